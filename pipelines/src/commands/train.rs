//! `avouch train`: features by the engine, a frame by Polars, a model by linfa, a file with its card.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use arrow::array::{ArrayRef, BooleanArray, Int64Array, RecordBatch, StringArray};
use arrow::compute::filter_record_batch;
use arrow::datatypes::{DataType, Field, Schema};
use avouch_connectors::files::{DeviceFrom, FilesError, Order, ReplayOptions, Row};
use avouch_engine::decode::{RawRecord, format_timestamp};
use avouch_engine::label::Label;
use avouch_engine::lane::{FeatureRows, Lane, Output};
use avouch_engine::model::Says;
use avouch_engine::verdict::Secret;
use avouch_models::{
    AlgorithmConfig, Failures, LabelConfig, ModelError, Provenance, TrainConfig, TrainedModel, TrainingFrame, train,
};
use clap::Args;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::json;
use thiserror::Error;

use super::train_rows;
use crate::labels::LastWord;
use crate::lang::{self, Diagnostics, ModelStep, Models, Pipeline, Train, TrainDevice, TrainFailures, hex};

/// Rows given to the engine at once. Any number gives the same features.
const CHUNK: usize = 4_096;

/// Train the models of a pipeline on files, through the same engine that serves them.
#[derive(Debug, Clone, Args)]
pub struct TrainArgs {
    /// The pipeline file
    #[arg(value_name = "PIPELINE.toml")]
    pub file: PathBuf,

    /// Only these [train.*] entries
    #[arg(value_name = "NAME")]
    pub only: Vec<String>,

    /// Creation time in the model card, RFC 3339 [default: now]. The same time and rows give the same file, byte for byte
    #[arg(long, value_name = "TIME")]
    pub created: Option<String>,

    /// Train nothing: write the rows that the model would be made from into this Parquet file, as the engine computes them.
    /// For a model trained elsewhere, which comes back as `kind = "onnx"`. Columns: device, window_end, the features, label
    /// if there is one, and held_back: the rows to calibrate on, not to train on
    #[arg(long, value_name = "FILE.parquet", conflicts_with = "created")]
    pub rows: Option<PathBuf>,

    /// Print the model cards as JSON
    #[arg(long)]
    pub json: bool,
}

/// Why training failed.
#[derive(Debug, Error)]
pub enum TrainError {
    /// The pipeline file is wrong.
    #[error("{0}")]
    Pipeline(String),
    /// There is nothing to train, or no such entry.
    #[error("{0}")]
    Nothing(String),
    /// The training rows cannot be read.
    #[error("[train.{name}] data: {source}")]
    Files {
        /// The entry.
        name: String,
        /// What happened.
        source: FilesError,
    },
    /// The engine failed on them.
    #[error("[train.{name}]: {why}")]
    Engine {
        /// The entry.
        name: String,
        /// What happened.
        why: String,
    },
    /// The model could not be made.
    #[error("[train.{name}]: {source}")]
    Model {
        /// The entry.
        name: String,
        /// What happened.
        source: ModelError,
    },
    /// A file the algorithm is in cannot be read.
    #[error("[train.{name}] algorithm.file: {path}: {source}; give the path relative to the pipeline file")]
    Read {
        /// The entry.
        name: String,
        /// The file.
        path: PathBuf,
        /// The system's words.
        source: std::io::Error,
    },
    /// The rows cannot be written as Parquet.
    #[error("{path}: {why}")]
    Parquet {
        /// The file.
        path: PathBuf,
        /// What happened.
        why: String,
    },
    /// The model file cannot be written.
    #[error("{path}: {source}")]
    Write {
        /// The file.
        path: PathBuf,
        /// The system's words.
        source: std::io::Error,
    },
}

/// Trains and saves. Exit code 0 if all models were written.
pub fn run(args: &TrainArgs) -> ExitCode {
    match train_all(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(TrainError::Pipeline(text)) => {
            eprint!("{text}");
            ExitCode::FAILURE
        }
        Err(e) => super::fail(args.json, e),
    }
}

fn train_all(args: &TrainArgs) -> Result<(), TrainError> {
    let text = |d: Diagnostics| TrainError::Pipeline(d.render_text(super::check::colour()));
    let pipeline = Pipeline::load(&args.file).map_err(text)?;
    if let Some(path) = &args.rows {
        return train_rows::write(&pipeline, &entries(&pipeline, &args.only)?, path, args.json);
    }
    let created = args.created.clone().unwrap_or_else(now);
    for entry in entries(&pipeline, &args.only)? {
        let (path, model) = train_one(&pipeline, entry, &created, args.json)?;
        if args.json {
            let card: serde_json::Value = serde_json::from_str(&model.card.to_json()).unwrap_or_default();
            println!("{}", json!({ "file": path, "sha256": hex(&model.hash), "card": card }));
        } else {
            println!("{}", model.card.to_markdown());
            for line in decisions(&pipeline, entry, &model) {
                println!("{line}");
            }
            println!("wrote {} (SHA-256 {})", path.display(), hex(&model.hash));
        }
    }
    Ok(())
}

/// What the step's thresholds mean for a healthy device, in words.
fn decisions(pipeline: &Pipeline, entry: &Train, model: &TrainedModel) -> Vec<String> {
    let Some(step) = pipeline.model_step(&entry.step.value) else { return Vec::new() };
    let every = pipeline.judged_every(step);
    let mut out: Vec<String> = step.decide.budget_in_words(every).into_iter().collect();
    if model.scorer.says() != Says::Anomaly {
        return out;
    }
    let spec = pipeline.thresholds(step);
    let smallest = model.scorer.smallest_p_value();
    for (name, p) in [("warning", spec.warning), ("critical", spec.critical)] {
        let Some(p) = p.map(|t| t.limit) else { continue };
        let windows = 1.0 / p;
        let often = every.map_or(String::new(), |ms| {
            format!(", which is one in {:.1} days of a device", windows * ms as f64 / 86_400_000.0)
        });
        let beyond = if p < smallest { "; this model's p-values do not get that small, so it never fires" } else { "" };
        out.push(format!("{name} at p ≤ {p:.3e}: one healthy window in {windows:.0}{often}{beyond}"));
    }
    out
}

pub(crate) fn now() -> String {
    let ms = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as i64);
    format_timestamp(ms)
}

/// Trains one entry and writes its model file.
pub(crate) fn train_one(
    pipeline: &Pipeline,
    entry: &Train,
    created: &str,
    quiet: bool,
) -> Result<(PathBuf, TrainedModel), TrainError> {
    let (path, model) = make(pipeline, entry, created, quiet)?;
    save(&path, &model.bytes)?;
    Ok((path, model))
}

/// Trains one entry, and writes nothing.
pub(crate) fn fit(pipeline: &Pipeline, entry: &Train, created: &str, quiet: bool) -> Result<TrainedModel, TrainError> {
    Ok(make(pipeline, entry, created, quiet)?.1)
}

/// Trains one entry; the path is where its model file belongs.
pub(crate) fn make(
    pipeline: &Pipeline,
    entry: &Train,
    created: &str,
    quiet: bool,
) -> Result<(PathBuf, TrainedModel), TrainError> {
    let step = step_of(pipeline, entry)?;
    let frame = frame_of(pipeline, entry, &Rows::of(entry), quiet)?;
    let model = model_of(pipeline, entry, &frame, entry.data.files.raw(), created)?;
    Ok((step.model_file.value.clone(), model))
}

/// Which rows are trained on.
pub(super) struct Rows {
    /// Patterns of files.
    pub patterns: Vec<String>,
    /// Only windows that end after this, milliseconds since the epoch.
    pub after: Option<i64>,
    /// What people have said of windows. A model that learns what is healthy is not fitted on what was said to be a fault, and is
    /// on what was said to be none, whatever `after` and the entry's `first` say.
    pub word: LastWord,
}

/// How often what people said decided about a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct ByLabels {
    /// Windows left out, as faults.
    pub left_out: u64,
    /// Windows taken in as healthy that would have been left out.
    pub taken_in: u64,
}

impl Rows {
    /// As the entry says.
    pub fn of(entry: &Train) -> Self {
        Self { patterns: vec![entry.data.pattern.clone()], after: None, word: LastWord::default() }
    }
}

/// The entries of these names, or all.
pub(super) fn entries<'a>(pipeline: &'a Pipeline, only: &[String]) -> Result<Vec<&'a Train>, TrainError> {
    if pipeline.train.is_empty() {
        let why = format!("{} has no [train.*] entry, so there is nothing to train", pipeline.file.path().display());
        return Err(TrainError::Nothing(why));
    }
    for name in only {
        if !pipeline.train.iter().any(|t| t.name.value == *name) {
            let names: Vec<&str> = pipeline.train.iter().map(|t| t.name.value.as_str()).collect();
            let why = format!("there is no [train.{name}]; there is {}", names.join(", "));
            return Err(TrainError::Nothing(why));
        }
    }
    Ok(pipeline.train.iter().filter(|t| only.is_empty() || only.contains(&t.name.value)).collect())
}

/// The model step that an entry is of.
pub(super) fn step_of<'a>(pipeline: &'a Pipeline, entry: &Train) -> Result<&'a ModelStep, TrainError> {
    pipeline.model_step(&entry.step.value).ok_or_else(|| TrainError::Engine {
        name: entry.name.value.clone(),
        why: format!("there is no model step \"{}\"", entry.step.value),
    })
}

/// The training rows, as the engine computes them.
pub(super) fn frame_of(
    pipeline: &Pipeline,
    entry: &Train,
    rows: &Rows,
    quiet: bool,
) -> Result<TrainingFrame, TrainError> {
    Ok(frame_by_labels(pipeline, entry, rows, quiet)?.0)
}

/// The same, and what people's labels decided. They decide nothing of rows that have labels of their own.
pub(super) fn frame_by_labels(
    pipeline: &Pipeline,
    entry: &Train,
    rows: &Rows,
    quiet: bool,
) -> Result<(TrainingFrame, ByLabels), TrainError> {
    let name = &entry.name.value;
    let step = step_of(pipeline, entry)?;
    let features: Vec<String> = step.features.iter().map(|f| f.value.clone()).collect();
    let given = features_of(pipeline, entry, &rows.patterns, entry.data.first, &step.from.value, quiet)?;
    let in_engine = |why| TrainError::Engine { name: name.clone(), why };
    let in_model = |source| TrainError::Model { name: name.clone(), source };
    let after = |end: i64| rows.after.is_none_or(|after| end > after);
    let Some(label) = &entry.label else {
        let mut by_labels = ByLabels::default();
        let of = |device: &str, window| rows.word.of(device, &step.name.value, window);
        let mut batches = Vec::new();
        for r in &given {
            let batch = frame_batch(r, &features, |device, window| match of(device, window) {
                Some(opinion) if opinion.is_fault() => {
                    by_labels.left_out += u64::from(after(window.1));
                    false
                }
                Some(_) => {
                    by_labels.taken_in += u64::from(!after(window.1));
                    true
                }
                None => after(window.1),
            });
            batches.push(batch.map_err(in_engine)?);
        }
        let healthy = |l: &Label| !l.opinion.is_fault();
        if entry.data.first.is_some() && rows.word.of_step(&step.name.value).any(healthy) {
            // Windows behind those that the entry takes of each device.
            let mut there: HashSet<(&str, i64)> = HashSet::new();
            for r in &given {
                there.extend(r.devices.iter().map(String::as_str).zip(r.window_ends.iter().copied()));
            }
            for r in &features_of(pipeline, entry, &rows.patterns, None, &step.from.value, quiet)? {
                let batch = frame_batch(r, &features, |device, window| {
                    let said = of(device, window).is_some_and(|o| !o.is_fault());
                    let taken = said && !there.contains(&(device, window.1));
                    by_labels.taken_in += u64::from(taken);
                    taken
                });
                batches.push(batch.map_err(in_engine)?);
            }
        }
        let frame = TrainingFrame::from_batches(&features, &batches).map_err(in_model)?;
        return Ok((frame, by_labels));
    };
    let batches = given.iter().map(|r| frame_batch(r, &features, |_, (_, end)| after(end)));
    let batches = batches.collect::<Result<Vec<_>, _>>().map_err(in_engine)?;
    let frame = TrainingFrame::from_batches(&features, &batches).map_err(in_model)?;
    let failures = match &label.failures {
        Some(f) => failures_of(pipeline, f, name)?,
        None => Failures::new(),
    };
    let wanted = label.config.clone().in_unit(step.decide.unit(), step.decide.coverage()).map_err(in_model)?;
    let labelled = match &wanted {
        LabelConfig::Failure { column } => {
            let with: Vec<String> = features.iter().chain([column]).cloned().collect();
            let batches = given.iter().map(|r| frame_batch(r, &with, |_, (_, end)| after(end)));
            batches.collect::<Result<Vec<_>, _>>().map_err(in_engine)?
        }
        LabelConfig::RemainingLife { .. } => Vec::new(),
    };
    let frame = frame.with_labels(&wanted, &failures, &labelled).map_err(in_model)?;
    Ok((frame, ByLabels::default()))
}

/// The model that the entry makes of these rows; `data` is what its card says of where they came from.
pub(super) fn model_of(
    pipeline: &Pipeline,
    entry: &Train,
    frame: &TrainingFrame,
    data: &str,
    created: &str,
) -> Result<TrainedModel, TrainError> {
    let config = TrainConfig {
        algorithm: algorithm(entry)?,
        split: entry.split,
        provenance: Provenance {
            pipeline: pipeline.name.value.clone(),
            step: entry.step.value.clone(),
            pipeline_digest: hex(&pipeline.config_hash()),
            created: created.to_owned(),
            data: data.to_owned(),
        },
    };
    train(frame, &config).map_err(|source| TrainError::Model { name: entry.name.value.clone(), source })
}

/// Writes a file whole or not at all, and the directories it is in.
pub(super) fn save(path: &Path, bytes: &[u8]) -> Result<(), TrainError> {
    let write = |source| TrainError::Write { path: path.to_path_buf(), source };
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent).map_err(write)?;
    }
    let temporary = path.with_extension("tmp");
    std::fs::write(&temporary, bytes).map_err(write)?;
    std::fs::rename(&temporary, path).map_err(write)
}

/// The algorithm, with the contents of the file it is in, if it is.
fn algorithm(entry: &Train) -> Result<AlgorithmConfig, TrainError> {
    let mut algorithm = entry.algorithm.value.clone();
    if let AlgorithmConfig::Onnx(onnx) = &mut algorithm {
        let (name, path) = (entry.name.value.clone(), onnx.path.clone());
        onnx.contents = std::fs::read(&path).map_err(|source| TrainError::Read { name, path, source })?;
    }
    Ok(algorithm)
}

/// Runs the training rows through a lane up to the windowed step. Each row stands for a record that arrived at its event
/// time, so none is from the future; rows that die (bad values, out of order) are counted and said.
fn features_of(
    pipeline: &Pipeline,
    entry: &Train,
    patterns: &[String],
    first: Option<u64>,
    step: &str,
    quiet: bool,
) -> Result<Vec<FeatureRows>, TrainError> {
    let name = entry.name.value.clone();
    let text = |d: Diagnostics| TrainError::Pipeline(d.render_text(super::check::colour()));
    // Rows of files come as JSON, whatever the source speaks.
    let plan = Arc::new(lang::plan(pipeline, &Models::new()).map_err(text)?.of_json());
    let engine = |why: String| TrainError::Engine { name: name.clone(), why };
    let Some(window) = plan.windows.iter().position(|w| w.name == step) else {
        return Err(engine(format!("\"{step}\" is not a windowed step")));
    };
    let files = |source| TrainError::Files { name: name.clone(), source };
    let mut options = ReplayOptions::new(patterns.iter().cloned());
    // A training set is read whole anyway; in time order no row is late, whatever the order of files and lines.
    options.order = Order::Sorted;
    options.delimiter = entry.data.delimiter;
    options.first = first;
    options.time = Some(pipeline.source.time.column.value.clone());
    options.device_field = Some(pipeline.source.key.value.clone());
    options.device = Some(device_from(pipeline, entry));
    let mut replay = options.open().map_err(files)?;

    let bar = ProgressBar::new(replay.progress().1);
    if quiet {
        bar.set_draw_target(ProgressDrawTarget::hidden());
    }
    if let Ok(style) = ProgressStyle::with_template("{spinner} reading {bytes}/{total_bytes} [{wide_bar}] {eta}") {
        bar.set_style(style);
    }
    // Features do not depend on the secret.
    let mut lane = Lane::new(plan, 0, Secret::new(b"training"));
    lane.begin_references(&mut Output::default()).map_err(|e| engine(e.to_string()))?;
    let (mut out, mut dead) = (Vec::new(), Vec::new());
    let mut chunk: Vec<(i64, Vec<u8>)> = Vec::with_capacity(CHUNK);
    let mut row = Row::default();
    let mut offset = 0;
    loop {
        let more = replay.next_row(&mut row).map_err(files)?;
        if more {
            chunk.push((row.time_ms.unwrap_or(0), row.json.clone()));
        }
        if chunk.len() == CHUNK || (!more && !chunk.is_empty()) {
            let records: Vec<RawRecord<'_>> = chunk
                .iter()
                .enumerate()
                .map(|(i, (time, json))| RawRecord {
                    offset: offset + i as i64,
                    timestamp: *time,
                    key: None,
                    value: Some(json),
                    origin: None,
                    signature: None,
                })
                .collect();
            out.extend(lane.step_features(&records, window, &mut dead).map_err(|e| engine(e.to_string()))?);
            offset += chunk.len() as i64;
            chunk.clear();
            bar.set_position(replay.progress().0);
        }
        if !more {
            break;
        }
    }
    out.extend(lane.finish_features(window).map_err(|e| engine(e.to_string()))?);
    bar.finish_and_clear();
    if let Some(first) = dead.first() {
        eprintln!(
            "warning: [train.{name}] {} of {offset} rows were left out; the first: {}: {}",
            dead.len(),
            first.reason.name(),
            first.detail
        );
    }
    if out.is_empty() {
        return Err(engine(format!(
            "{offset} rows gave no closed window of step \"{step}\"; more rows or a shorter window are needed"
        )));
    }
    Ok(out)
}

/// When devices failed: the last time that the file has for each.
fn failures_of(pipeline: &Pipeline, label: &TrainFailures, name: &str) -> Result<Failures, TrainError> {
    let files = |source| TrainError::Files { name: name.to_owned(), source };
    let on = label.device.clone().unwrap_or_else(|| pipeline.source.key.value.clone());
    let mut options = ReplayOptions::new([label.pattern.clone()]);
    options.order = Order::File;
    options.time = Some(label.time.clone());
    options.device = Some(DeviceFrom::Column(on));
    let mut replay = options.open().map_err(files)?;
    let mut failures = Failures::new();
    let mut row = Row::default();
    while replay.next_row(&mut row).map_err(files)? {
        if let Some(time) = row.time_ms {
            let at = failures.entry(row.device.clone()).or_insert(time);
            *at = time.max(*at);
        }
    }
    Ok(failures)
}

/// What names the device of a training row.
pub(super) fn device_from(pipeline: &Pipeline, entry: &Train) -> DeviceFrom {
    match &entry.data.device {
        TrainDevice::Key => DeviceFrom::Column(pipeline.source.key.value.clone()),
        TrainDevice::Path => DeviceFrom::Path,
        TrainDevice::Column(c) => DeviceFrom::Column(c.value.clone()),
    }
}

/// The rows of windows that `keep` says of: a device and a window's start and end.
fn frame_batch(
    rows: &FeatureRows,
    features: &[String],
    mut keep: impl FnMut(&str, (i64, i64)) -> bool,
) -> Result<RecordBatch, String> {
    let mut fields = vec![
        Field::new(avouch_models::frame::DEVICE, DataType::Utf8, false),
        Field::new(avouch_models::frame::WINDOW_END, DataType::Int64, false),
    ];
    let mut columns: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from_iter_values(&rows.devices)),
        Arc::new(Int64Array::from(rows.window_ends.clone())),
    ];
    for f in features {
        let Some((i, field)) = rows.batch.schema_ref().column_with_name(f) else {
            let have: Vec<&str> = rows.batch.schema_ref().fields().iter().map(|f| f.name().as_str()).collect();
            return Err(format!("feature \"{f}\" is not a column of its step; there are {}", have.join(", ")));
        };
        fields.push(Field::new(f, field.data_type().clone(), true));
        columns.push(rows.batch.column(i).clone());
    }
    let batch = RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).map_err(|e| e.to_string())?;
    let windows = rows.window_starts.iter().copied().zip(rows.window_ends.iter().copied());
    let keep: BooleanArray = rows.devices.iter().zip(windows).map(|(d, window)| Some(keep(d, window))).collect();
    filter_record_batch(&batch, &keep).map_err(|e| e.to_string())
}
