//! `avouch explain-verdict`: one verdict in words.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use avouch_connectors::store::{LaneReader, StoreError};
use avouch_engine::bundle::{BundleError, Files, parse};
use avouch_engine::decode::format_timestamp;
use avouch_engine::label::Label;
use avouch_engine::verdict::{Severity, VerdictRecord};
use clap::Args;
use serde_json::json;
use thiserror::Error;

use super::bundle::{BundleFailure, Wanted, find, lanes, severity};
use super::fail;
use crate::explain::{labels_in_words, verdict_in_words};
use crate::labels::{Recorded, reason_of, recorded};
use crate::lang::Pipeline;
use crate::runtime::{self, RuntimeError, hex, lane_dir, lanes_here};

/// Say a verdict in words: what was seen, what was expected, and what made the difference.
///
/// Of a pipeline, the verdict is read from its log: the newest that fits, anchored or not. Of a bundle, it is the one in it;
/// whether the bundle is genuine is for `avouch verify` to say. Of a pipeline, what people said of the verdict (`avouch label`) is
/// shown too.
#[derive(Debug, Clone, Args)]
pub struct ExplainVerdictArgs {
    /// A pipeline file, or the directory of a bundle
    #[arg(value_name = "PIPELINE.toml|BUNDLE")]
    pub of: PathBuf,

    /// Source partition of the verdict's log
    #[arg(long, value_name = "PARTITION")]
    pub lane: Option<i32>,

    /// Index of the verdict in its log
    #[arg(long, value_name = "N", requires = "lane")]
    pub index: Option<u64>,

    /// Without an index: the newest verdict of this device
    #[arg(long, value_name = "NAME")]
    pub device: Option<String>,

    /// Without an index: the newest verdict at least this grave
    #[arg(long, value_name = "warning|critical", value_parser = severity)]
    pub severity: Option<Severity>,

    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Why a verdict was not explained.
#[derive(Debug, Error)]
pub enum ExplainVerdictError {
    /// The pipeline file is wrong.
    #[error("{0}")]
    Pipeline(String),
    /// A file of the bundle cannot be read.
    #[error("{path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// The system's words.
        source: std::io::Error,
    },
    /// It is no bundle.
    #[error(transparent)]
    Bundle(#[from] BundleError),
    /// What would be explained is not there.
    #[error("{0}: the operator keeps {1} back, without which there is nothing to explain; ask for it")]
    Withheld(PathBuf, String),
    /// The state cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Lanes in an object store cannot be brought here.
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
    /// The lanes cannot be listed.
    #[error(transparent)]
    Lanes(#[from] BundleFailure),
    /// Nothing has run.
    #[error("{} has no verdict log in {}; `avouch run` writes one", file.display(), state.display())]
    NoLog {
        /// The pipeline file.
        file: PathBuf,
        /// Where its lanes would be.
        state: PathBuf,
    },
    /// That lane has no log; others have.
    #[error("{} has no log of lane {lane}, but of {present}", file.display())]
    NoLane {
        /// The pipeline file.
        file: PathBuf,
        /// The lane asked for.
        lane: i32,
        /// Those there are.
        present: String,
    },
    /// No verdict fits.
    #[error("{} has no such verdict among the {held} in {logs}; `avouch query` lists them", file.display())]
    None {
        /// The pipeline file.
        file: PathBuf,
        /// How many verdicts were looked through.
        held: u64,
        /// In which logs.
        logs: String,
    },
}

/// Explains. Exit code 0 if there was such a verdict.
pub fn run(args: &ExplainVerdictArgs) -> ExitCode {
    match wanted(args) {
        Ok(Found { log, record, labels, state }) => {
            let words = verdict_in_words(&log, record.index, &record.verdict, &record.evidence);
            let reason = |l: &Label| reason_of(state.as_deref()?, l.reason.as_ref()?);
            if args.json {
                let said: Vec<_> = labels
                    .iter()
                    .map(|Recorded { index, label: l }| {
                        json!({
                            "index": index, "says": l.opinion.name(), "verdict": l.verdict, "by": hex(&l.by),
                            "at": format_timestamp(l.at), "reason": reason(l),
                        })
                    })
                    .collect();
                let verdict = runtime::verdict_json(&log, &record);
                println!("{}", json!({ "verdict": verdict, "words": words, "labels": said }));
                return ExitCode::SUCCESS;
            }
            print!("{words}");
            if let Some(text) = record.evidence.label.as_deref().and_then(reason) {
                println!("The reason: {text}");
            }
            let said: Vec<(u64, &Label, Option<String>)> =
                labels.iter().map(|r| (r.index, &r.label, reason(&r.label))).collect();
            print!("{}", labels_in_words(&said));
            ExitCode::SUCCESS
        }
        Err(ExplainVerdictError::Pipeline(text)) => {
            eprint!("{text}");
            ExitCode::FAILURE
        }
        Err(e) => fail(args.json, e),
    }
}

/// A verdict, and what people said of it.
struct Found {
    log: String,
    record: VerdictRecord,
    labels: Vec<Recorded>,
    /// Where reasons are kept; a bundle has none.
    state: Option<PathBuf>,
}

fn wanted(args: &ExplainVerdictArgs) -> Result<Found, ExplainVerdictError> {
    if args.of.is_dir() {
        return of_bundle(&args.of);
    }
    let text = |d: crate::lang::Diagnostics| ExplainVerdictError::Pipeline(d.render_text(super::check::colour()));
    let pipeline = Pipeline::load(&args.of).map_err(text)?;
    let state = lanes_here(&pipeline)?;
    let present = if state.is_dir() { lanes(&state)? } else { Vec::new() };
    if present.is_empty() {
        // By its parts, so that `./.` is not said.
        return Err(ExplainVerdictError::NoLog { file: args.of.clone(), state: state.components().collect() });
    }
    let lanes = match args.lane {
        Some(lane) if present.contains(&lane) => vec![lane],
        Some(lane) => {
            let present: Vec<String> = present.iter().map(i32::to_string).collect();
            return Err(ExplainVerdictError::NoLane { file: args.of.clone(), lane, present: present.join(", ") });
        }
        None => present,
    };
    let wanted = Wanted { index: args.index, device: args.device.as_deref(), severity: args.severity };
    let mut newest: Option<(LaneReader, VerdictRecord)> = None;
    let (mut held, mut logs) = (0, Vec::new());
    for lane in lanes {
        let reader = LaneReader::open_read_only(&lane_dir(&state, lane))?;
        let committed = reader.committed();
        held += committed.log_size;
        logs.push(committed.origin.clone());
        if let Some(record) = find(&wanted, &reader, committed.log_size)? {
            let later = |(_, r): &(LaneReader, VerdictRecord)| r.verdict.window_end < record.verdict.window_end;
            if newest.as_ref().is_none_or(later) {
                newest = Some((reader, record));
            }
        }
    }
    let (reader, record) =
        newest.ok_or_else(|| ExplainVerdictError::None { file: args.of.clone(), held, logs: logs.join(", ") })?;
    let window = (record.verdict.window_start as i64, record.verdict.window_end as i64);
    let mut labels = recorded(&reader)?;
    labels.retain(|r| match r.label.verdict {
        _ if record.evidence.label.is_some() => false,
        Some(index) => index == record.index,
        None => r.label.covers(&record.evidence.device, &record.evidence.step, window),
    });
    Ok(Found { log: reader.committed().origin.clone(), record, labels, state: Some(state) })
}

fn of_bundle(dir: &Path) -> Result<Found, ExplainVerdictError> {
    let mut files = Files::new();
    let fail = |path: &Path| {
        let path = path.to_path_buf();
        move |source| ExplainVerdictError::File { path, source }
    };
    for entry in std::fs::read_dir(dir).map_err(fail(dir))? {
        let path = entry.map_err(fail(dir))?.path();
        if let (true, Some(name)) = (path.is_file(), path.file_name().and_then(|n| n.to_str())) {
            files.insert(name.to_owned(), std::fs::read(&path).map_err(fail(&path))?);
        }
    }
    let bundle = parse(&files)?;
    let withheld = bundle.evidence.as_ref().map_or("the evidence".to_owned(), |e| e.withheld().join(", "));
    let whole = bundle.evidence.and_then(|e| e.whole());
    let evidence = whole.ok_or_else(|| ExplainVerdictError::Withheld(dir.to_path_buf(), withheld))?;
    let record = VerdictRecord { index: bundle.index, verdict: bundle.verdict, evidence };
    Ok(Found { log: bundle.origin.as_str().to_owned(), record, labels: Vec::new(), state: None })
}
