//! `avouch retrain`: a candidate for a model, from other data, beside the model that runs; and what would change.
//!
//! ```text
//!              labels ─┐
//!   --data ─ engine ─► rows ─┬─ fitted ───► candidate ──────────────► NAME.model.candidate
//!                            └─ held back ─► windows ─┐
//!   --data ─ history ─┬─ model that runs ─► verdicts ─┼─► report: .report.json, .report.md, .differences.ndjson
//!                     └─ candidate ───────► verdicts ─┘
//! ```
//!
//! What people said of verdicts and devices (`avouch label`) is read from the logs: windows that were said to be faults are not
//! trained on and are the known faults that both models are held against, windows that were said to be healthy are trained on.
//!
//! It proposes and never activates: the file that runs is not touched, and neither is the pipeline file. Only windows that
//! the candidate was not fitted on are compared, and it is the engine's own lane that judges them ([`crate::history`]).

mod known;
mod report;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use avouch_connectors::files::Order;
use avouch_connectors::store::StoreError;
use avouch_engine::decode::parse_timestamp;
use avouch_engine::label::Opinion;
use avouch_models::drift::population_stability;
use avouch_models::{ModelError, TrainedModel, TrainingFrame, file};
use clap::Args;
use indicatif::{ProgressBar, ProgressDrawTarget};
use thiserror::Error;

use super::backtest::BacktestError;
use super::backtest::alarms::episodes;
use super::backtest::differences::compare;
use super::backtest::judged::Side;
use super::train::{
    ByLabels, Rows, TrainError, device_from, entries, frame_by_labels, frame_of, model_of, save, step_of,
};
use crate::history::{Ending, HistoryOptions};
use crate::labels::LastWord;
use crate::lang::{self, Diagnostics, Models, Pipeline, Train, hex};
use crate::runtime::state_dir;
use known::{Known, Labels};
use report::{FeatureShift, ModelFacts, Report, Verdicts};

/// Propose a model trained on other data: writes a candidate beside the model that runs, and a report of what would change.
/// Nothing is activated.
///
/// Exit code 0 if candidates and reports were written, whatever they say; 1 if not; 2 if the command line is wrong.
#[derive(Debug, Clone, Args)]
pub struct RetrainArgs {
    /// The pipeline file
    #[arg(value_name = "PIPELINE.toml")]
    pub file: PathBuf,

    /// Only these [train.*] entries
    #[arg(value_name = "NAME")]
    pub only: Vec<String>,

    /// CSV, NDJSON or Parquet files to train on and compare over, read as the entry reads its own: names or patterns, quoted
    #[arg(long, required = true, num_args = 1.., value_name = "PATTERN")]
    pub data: Vec<String>,

    /// Only windows that end after this, RFC 3339
    #[arg(long, value_name = "TIME")]
    pub since: Option<String>,

    /// Where candidate and report are written [default: beside the model]
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,

    /// Creation time in the candidate's card, RFC 3339 [default: now]
    #[arg(long, value_name = "TIME")]
    pub created: Option<String>,

    /// Print the reports as JSON
    #[arg(long)]
    pub json: bool,
}

/// Why there is no candidate, or no report.
#[derive(Debug, Error)]
pub enum RetrainError {
    /// What training says.
    #[error(transparent)]
    Train(#[from] TrainError),
    /// What running the models over the files says.
    #[error(transparent)]
    History(#[from] BacktestError),
    /// `--since` is no time.
    #[error("--since `{0}` is not a time such as 2026-01-07T08:00:00Z")]
    Since(String),
    /// There is no model to compare with.
    #[error("[train.{name}]: there is no model {} to hold a candidate against; make the first with `avouch train`", path.display())]
    NoModel {
        /// The entry.
        name: String,
        /// Where it would be.
        path: PathBuf,
    },
    /// The model that runs cannot be read.
    #[error("{}: {source}", path.display())]
    Model {
        /// Its file.
        path: PathBuf,
        /// What is wrong with it.
        source: ModelError,
    },
    /// The logs cannot be read for what people said.
    #[error("the labels in the logs: {0}")]
    Labels(#[from] StoreError),
    /// A file cannot be read.
    #[error("{}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's words.
        source: std::io::Error,
    },
}

/// Trains candidates and reports. Exit code 0 if all were written.
pub fn run(args: &RetrainArgs) -> ExitCode {
    match retrain_all(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(RetrainError::Train(TrainError::Pipeline(text)) | RetrainError::History(BacktestError::Pipeline(text)))
            if !args.json =>
        {
            eprint!("{text}");
            ExitCode::FAILURE
        }
        Err(e) => super::fail(args.json, e),
    }
}

fn retrain_all(args: &RetrainArgs) -> Result<(), RetrainError> {
    let after = match &args.since {
        None => None,
        Some(text) => Some(parse_timestamp(text.as_bytes()).ok_or_else(|| RetrainError::Since(text.clone()))?),
    };
    let pipeline = Pipeline::load(&args.file).map_err(in_pipeline)?;
    let word = LastWord::read(&state_dir(&pipeline))?;
    for entry in entries(&pipeline, &args.only)? {
        let report = retrain(&pipeline, entry, args, after, &word)?;
        print!("{}", if args.json { report.json() } else { report.markdown() });
    }
    Ok(())
}

fn in_pipeline(d: Diagnostics) -> TrainError {
    TrainError::Pipeline(d.render_text(super::check::colour()))
}

/// One entry: candidate, comparison, report.
fn retrain(
    pipeline: &Pipeline,
    entry: &Train,
    args: &RetrainArgs,
    after: Option<i64>,
    word: &LastWord,
) -> Result<Report, RetrainError> {
    let step = step_of(pipeline, entry)?;
    let running = &step.model_file.value;
    // Before a long run begins: what it is held against must be there and be what the pipeline pins.
    if !running.exists() {
        return Err(RetrainError::NoModel { name: entry.name.value.clone(), path: running.clone() });
    }
    let (mut models, _) = lang::load_models_there(pipeline).map_err(in_pipeline)?;
    models.retain(|name, _| *name == step.name.value);
    let bytes = std::fs::read(running).map_err(|source| RetrainError::Read { path: running.clone(), source })?;
    let old = file::open(&bytes).map_err(|source| RetrainError::Model { path: running.clone(), source })?;

    let rows = Rows { patterns: args.data.clone(), after, word: word.clone() };
    let (frame, by_labels) = frame_by_labels(pipeline, entry, &rows, args.json)?;
    let created = args.created.clone().unwrap_or_else(super::train::now);
    let candidate = model_of(pipeline, entry, &frame, &described(args, by_labels), &created)?;
    let path = beside(running, args.out.as_deref());
    save(&path, &candidate.bytes)?;

    let held = HeldBack::of(&frame, entry).map_err(|source| in_model(entry, source))?;
    let here_models = Models::from([(step.name.value.clone(), candidate.scorer.clone())]);
    let name = &step.name.value;
    let ((here, here_known), (there, there_known)) =
        (judge(pipeline, entry, args, &here_models, &held, word)?, judge(pipeline, entry, args, &models, &held, word)?);
    let labels = Labels::new(word, name, entry.label.is_none(), by_labels, (there_known, here_known));
    let comparison = compare(&here, &there, &with(&path, "differences.ndjson"))?;
    let span = here.span();

    let (features, older_rows) = features(pipeline, entry, args, &frame, &old.card, &candidate)?;
    let report = Report::new(report::Parts {
        entry: entry.name.value.clone(),
        step: step.name.value.clone(),
        data: args.data.clone(),
        since: args.since.clone(),
        running: ModelFacts::new(running, hex(&old.hash), old.card),
        candidate: ModelFacts::new(&path, hex(&candidate.hash), candidate.card),
        pinned: step.model_sha256.is_some(),
        older_rows,
        features,
        held_back: span,
        labels,
        verdicts: (Verdicts::of(&there, &episodes(&there)), Verdicts::of(&here, &episodes(&here))),
        comparison,
    });
    save(&with(&path, "report.json"), report.json().as_bytes())?;
    save(&with(&path, "report.md"), report.markdown().as_bytes())?;
    Ok(report)
}

fn in_model(entry: &Train, source: ModelError) -> TrainError {
    TrainError::Model { name: entry.name.value.clone(), source }
}

/// `pump.model.candidate`, beside the model or in another directory. Never the model's own name.
fn beside(running: &Path, out: Option<&Path>) -> PathBuf {
    let candidate = with(running, "candidate");
    match (out, candidate.file_name()) {
        (Some(dir), Some(name)) => dir.join(name),
        _ => candidate,
    }
}

/// The path with an ending added.
fn with(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(ending);
    name.into()
}

/// Which windows the candidate was not fitted on.
struct HeldBack {
    /// By name; devices without any are left out.
    from: Vec<(String, i64)>,
}

impl HeldBack {
    fn of(frame: &TrainingFrame, entry: &Train) -> Result<Self, ModelError> {
        let from = frame.held_back_from(&entry.split)?;
        let named = frame.devices().iter().zip(from).filter_map(|(name, from)| Some((name.clone(), from?)));
        Ok(Self { from: named.collect() })
    }

    fn holds(&self, device: &str, window_end: i64) -> bool {
        let at = self.from.binary_search_by(|(name, _)| name.as_str().cmp(device));
        at.is_ok_and(|i| window_end >= self.from[i].1)
    }
}

/// What the card says of where the rows came from.
fn described(args: &RetrainArgs, by: ByLabels) -> String {
    let data = args.data.join(" ");
    match by {
        ByLabels { left_out: 0, taken_in: 0 } => data,
        ByLabels { left_out, taken_in } => {
            format!("{data}; by labels in the logs {left_out} windows left out and {taken_in} taken in")
        }
    }
}

/// What a model says of the held-back windows that were not said to be faults, and of those that people have said something of;
/// through the engine.
fn judge(
    pipeline: &Pipeline,
    entry: &Train,
    args: &RetrainArgs,
    models: &Models,
    held: &HeldBack,
    word: &LastWord,
) -> Result<(Side, Known), RetrainError> {
    let step = &entry.step.value;
    let held_back = |device: &str, end| held.holds(device, end);
    let mut side = side_of(pipeline, entry, args, models, entry.data.first)?;
    let known = match entry.data.first {
        // People also know of windows behind those that the entry takes of each device.
        Some(_) if !word.is_empty() => Known::of(&side_of(pipeline, entry, args, models, None)?, step, word, held_back),
        _ => Known::of(&side, step, word, held_back),
    };
    let devices = std::mem::take(&mut side.devices);
    side.verdicts.retain(|v| {
        let device = &devices[v.device as usize];
        let window = (v.window_start, v.window_end);
        held.holds(device, v.window_end) && !word.of(device, step, window).is_some_and(Opinion::is_fault)
    });
    side.devices = devices;
    Ok((side, known))
}

fn side_of(
    pipeline: &Pipeline,
    entry: &Train,
    args: &RetrainArgs,
    models: &Models,
    first: Option<u64>,
) -> Result<Side, RetrainError> {
    let mut options = HistoryOptions::of(pipeline, args.data.iter().cloned());
    options.delimiter = entry.data.delimiter;
    options.device = device_from(pipeline, entry);
    options.order = Order::Sorted;
    options.first = first;
    // As in training: every window counts, also the last.
    options.ending = Ending::CloseAll;
    let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden());
    Ok(Side::run(pipeline, models, options, true, super::check::colour(), &bar)?)
}

/// Each feature in the rows of the model that runs and in the new ones, and what is to be said of the former.
fn features(
    pipeline: &Pipeline,
    entry: &Train,
    args: &RetrainArgs,
    newer: &TrainingFrame,
    old: &avouch_models::ModelCard,
    candidate: &TrainedModel,
) -> Result<(Vec<FeatureShift>, String), RetrainError> {
    let (older, said) = match frame_of(pipeline, entry, &Rows::of(entry), args.json) {
        Ok(frame) => {
            let digest = frame.digest().map_err(|source| in_model(entry, source))?;
            let said = if hex(&digest) == old.training.digest {
                "the rows the model that runs was trained on, read again".to_owned()
            } else {
                format!(
                    "what `{}` holds now, which is not what the model that runs was trained on",
                    entry.data.files.raw()
                )
            };
            (Some(frame), said)
        }
        Err(e) => (None, format!("none: the entry's own data cannot be read ({e})")),
    };
    let mut out = Vec::new();
    for (j, name) in newer.features().iter().enumerate() {
        let psi = match &older {
            None => None,
            Some(older) => {
                let values = |frame: &TrainingFrame| frame.values(j).map_err(|source| in_model(entry, source));
                population_stability(&values(older)?, &values(newer)?)
            }
        };
        let profile =
            |card: &avouch_models::ModelCard| card.training.profile.iter().find(|p| p.feature == *name).cloned();
        out.push(FeatureShift::new(name, profile(old), profile(&candidate.card), psi));
    }
    Ok((out, said))
}
