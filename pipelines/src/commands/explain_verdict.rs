//! `avouch explain-verdict`: one verdict in words.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use avouch_connectors::store::{LaneReader, StoreError};
use avouch_engine::bundle::{BundleError, Files, parse};
use avouch_engine::verdict::{Severity, VerdictRecord};
use clap::Args;
use serde_json::json;
use thiserror::Error;

use super::bundle::{BundleFailure, Wanted, find, lanes, severity};
use super::fail;
use crate::explain::verdict_in_words;
use crate::lang::Pipeline;
use crate::runtime::{self, RuntimeError, lane_dir, lanes_here};

/// Say a verdict in words: what was seen, what was expected, and what made the difference.
///
/// Of a pipeline, the verdict is read from its log: the newest that fits, anchored or not. Of a bundle, it is the one in it;
/// whether the bundle is genuine is for `avouch verify` to say.
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
    /// The state cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Lanes in an object store cannot be brought here.
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
    /// The lanes cannot be listed.
    #[error(transparent)]
    Lanes(#[from] BundleFailure),
    /// No verdict fits.
    #[error("{0} has no such verdict; `avouch query` lists those there are")]
    None(PathBuf),
}

/// Explains. Exit code 0 if there was such a verdict.
pub fn run(args: &ExplainVerdictArgs) -> ExitCode {
    match wanted(args) {
        Ok((log, record)) if args.json => {
            let words = verdict_in_words(&log, record.index, &record.verdict, &record.evidence);
            println!("{}", json!({ "verdict": runtime::verdict_json(&log, &record), "words": words }));
            ExitCode::SUCCESS
        }
        Ok((log, record)) => {
            print!("{}", verdict_in_words(&log, record.index, &record.verdict, &record.evidence));
            ExitCode::SUCCESS
        }
        Err(ExplainVerdictError::Pipeline(text)) => {
            eprint!("{text}");
            ExitCode::FAILURE
        }
        Err(e) => fail(args.json, e),
    }
}

fn wanted(args: &ExplainVerdictArgs) -> Result<(String, VerdictRecord), ExplainVerdictError> {
    if args.of.is_dir() {
        return of_bundle(&args.of);
    }
    let text = |d: crate::lang::Diagnostics| ExplainVerdictError::Pipeline(d.render_text(super::check::colour()));
    let pipeline = Pipeline::load(&args.of).map_err(text)?;
    let state = lanes_here(&pipeline)?;
    let lanes = match args.lane {
        Some(lane) => vec![lane],
        None => lanes(&state)?,
    };
    let wanted = Wanted { index: args.index, device: args.device.as_deref(), severity: args.severity };
    let mut newest: Option<(String, VerdictRecord)> = None;
    for lane in lanes {
        let reader = LaneReader::open_read_only(&lane_dir(&state, lane))?;
        let committed = reader.committed();
        if let Some(record) = find(&wanted, &reader, committed.log_size)? {
            let later = |(_, r): &(String, VerdictRecord)| r.verdict.window_end < record.verdict.window_end;
            if newest.as_ref().is_none_or(later) {
                newest = Some((committed.origin.clone(), record));
            }
        }
    }
    newest.ok_or_else(|| ExplainVerdictError::None(args.of.clone()))
}

fn of_bundle(dir: &Path) -> Result<(String, VerdictRecord), ExplainVerdictError> {
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
    let record = VerdictRecord { index: bundle.index, verdict: bundle.verdict, evidence: bundle.evidence };
    Ok((bundle.origin.as_str().to_owned(), record))
}
