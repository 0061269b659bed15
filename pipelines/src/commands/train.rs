//! `avouch train`: features by the engine, a frame by Polars, a model by linfa, a file with its card.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema};
use avouch_connectors::files::{DeviceFrom, FilesError, Order, ReplayOptions, Row};
use avouch_engine::decode::{RawRecord, format_timestamp};
use avouch_engine::lane::{FeatureRows, Lane, Output};
use avouch_engine::verdict::Secret;
use avouch_models::{AlgorithmConfig, ModelError, Provenance, TrainConfig, TrainedModel, TrainingFrame, train};
use clap::Args;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::json;
use thiserror::Error;

use crate::lang::{self, Diagnostics, Models, Pipeline, Train, TrainDevice, hex};

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
    if pipeline.train.is_empty() {
        let why = format!("{} has no [train.*] entry, so there is nothing to train", args.file.display());
        return Err(TrainError::Nothing(why));
    }
    for name in &args.only {
        if !pipeline.train.iter().any(|t| t.name.value == *name) {
            let names: Vec<&str> = pipeline.train.iter().map(|t| t.name.value.as_str()).collect();
            let why = format!("there is no [train.{name}]; there is {}", names.join(", "));
            return Err(TrainError::Nothing(why));
        }
    }
    let created = args.created.clone().unwrap_or_else(now);
    for entry in &pipeline.train {
        if args.only.is_empty() || args.only.contains(&entry.name.value) {
            let (path, model) = train_one(&pipeline, entry, &created, args.json)?;
            if args.json {
                let card: serde_json::Value = serde_json::from_str(&model.card.to_json()).unwrap_or_default();
                println!("{}", json!({ "file": path, "sha256": hex(&model.hash), "card": card }));
            } else {
                println!("{}\nwrote {} (SHA-256 {})", model.card.to_markdown(), path.display(), hex(&model.hash));
            }
        }
    }
    Ok(())
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
    let name = entry.name.value.clone();
    let Some(step) = pipeline.model_step(&entry.step.value) else {
        let why = format!("there is no model step \"{}\"", entry.step.value);
        return Err(TrainError::Engine { name, why });
    };
    let features: Vec<String> = step.features.iter().map(|f| f.value.clone()).collect();
    let rows = features_of(pipeline, entry, &step.from.value, quiet)?;
    let in_model = |source| TrainError::Model { name: name.clone(), source };
    let batches = rows.iter().map(|r| frame_batch(r, &features)).collect::<Result<Vec<_>, _>>();
    let batches = batches.map_err(|why| TrainError::Engine { name: name.clone(), why })?;
    let frame = TrainingFrame::from_batches(&features, &batches).map_err(in_model)?;
    let config = TrainConfig {
        algorithm: algorithm(entry)?,
        split: entry.split,
        provenance: Provenance {
            pipeline: pipeline.name.value.clone(),
            step: step.name.value.clone(),
            pipeline_digest: hex(&pipeline.config_hash()),
            created: created.to_owned(),
            data: entry.data.files.raw().to_owned(),
        },
    };
    let model = train(&frame, &config).map_err(in_model)?;
    let path = step.model_file.value.clone();
    let write = |source| TrainError::Write { path: path.clone(), source };
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent).map_err(write)?;
    }
    let temporary = path.with_extension("tmp");
    std::fs::write(&temporary, &model.bytes).map_err(write)?;
    std::fs::rename(&temporary, &path).map_err(write)?;
    Ok((path, model))
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
fn features_of(pipeline: &Pipeline, entry: &Train, step: &str, quiet: bool) -> Result<Vec<FeatureRows>, TrainError> {
    let name = entry.name.value.clone();
    let text = |d: Diagnostics| TrainError::Pipeline(d.render_text(super::check::colour()));
    // Rows of files come as JSON, whatever the source speaks.
    let plan = Arc::new(lang::plan(pipeline, &Models::new()).map_err(text)?.of_json());
    let engine = |why: String| TrainError::Engine { name: name.clone(), why };
    let Some(window) = plan.windows.iter().position(|w| w.name == step) else {
        return Err(engine(format!("\"{step}\" is not a windowed step")));
    };
    let files = |source| TrainError::Files { name: name.clone(), source };
    let mut options = ReplayOptions::new([entry.data.pattern.clone()]);
    // A training set is read whole anyway; in time order no row is late, whatever the order of files and lines.
    options.order = Order::Sorted;
    options.delimiter = entry.data.delimiter;
    options.first = entry.data.first;
    options.time = Some(pipeline.source.time.column.value.clone());
    options.device_field = Some(pipeline.source.key.value.clone());
    options.device = Some(match &entry.data.device {
        TrainDevice::Key => DeviceFrom::Column(pipeline.source.key.value.clone()),
        TrainDevice::Path => DeviceFrom::Path,
        TrainDevice::Column(c) => DeviceFrom::Column(c.value.clone()),
    });
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

fn frame_batch(rows: &FeatureRows, features: &[String]) -> Result<RecordBatch, String> {
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
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).map_err(|e| e.to_string())
}
