//! `avouch evaluate`: how good a pipeline's verdicts are, where the truth is known.
//!
//! The verdicts come from the engine running a pipeline file: from the pipeline's own logs, as its sinks and auditors read
//! them, where it has run; or from a run in memory over the data set's files, with a model trained by the file's own
//! `[train.*]` entry. No model is ever asked beside the engine.

mod ai4i;
mod alarm_plot;
mod cmapss;
mod estimate_plot;
mod gzip;
mod in_memory;
mod nab;
mod prognoses;
mod report;
mod scratch;
mod skab;
mod smap;
mod tep;
#[cfg(test)]
mod tests;
mod verdicts;

use std::path::PathBuf;
use std::process::ExitCode;

use avouch_connectors::files::{DeviceFrom, FilesError, Order};
use avouch_connectors::store::StoreError;
use avouch_models::nab::NabError;
use clap::{Args, Subcommand};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use thiserror::Error;

use super::train::TrainError;
use crate::history::HistoryError;
use crate::history::HistoryOptions;
use crate::lang::{Diagnostics, Pipeline};
use crate::runtime::RuntimeError;
pub use ai4i::Ai4iArgs;
pub use cmapss::CmapssArgs;
use in_memory::Shipped;

/// Hold a pipeline's verdicts against a data set's labels.
#[derive(Debug, Clone, Args)]
pub struct EvaluateArgs {
    /// The benchmark whose protocol is followed
    #[command(subcommand)]
    pub benchmark: Benchmark,
}

/// A data set with labels, and its protocol.
#[derive(Debug, Clone, Subcommand)]
pub enum Benchmark {
    /// Skoltech Anomaly Benchmark, a water-pump test bed: F1, false and missed alarms over all experiments
    ///
    /// Of each file the first 400 rows train and are not judged. A row is an alarm if the verdict of the window that ends
    /// one second after it (the window that ends with it) is a warning or worse; a row without a verdict is no alarm.
    ///
    /// Without --pipeline the pipeline `water-pump` that comes with this program is trained and run over the files in memory.
    Skab(SkabArgs),
    /// Numenta Anomaly Benchmark, single values that stream in: its points, in all three profiles
    ///
    /// The pipeline is run over the files in memory, each file a device, in the order of time, without Kafka and without a
    /// store. The first 15 % of a file, at most 750 rows, are not judged; one threshold holds for all files, the best, as the
    /// benchmark has it. Nothing is ranked but the verdicts' score.
    Nab(nab::NabArgs),
    /// Tennessee Eastman process: detection of 16 faults by row, and false alarms before them
    ///
    /// The model is fitted on d00 and its threshold set on d00_te; rows 161 to 960 of each fault's run are under the fault.
    /// The pipeline `tennessee-eastman` that comes with this program is trained and run over the files in memory.
    Tep(TepArgs),
    /// AI4I 2020, failures of a milling machine: F1 by stratified five-fold cross-validation
    ///
    /// The pipeline's model is trained anew for each fold on the rows outside it, and the pipeline judges those inside.
    Ai4i(Ai4iArgs),
    /// C-MAPSS, remaining life of turbofan engines: RMSE and the PHM 2008 score over the test engines
    ///
    /// The pipeline's model is trained on the training engines, and the pipeline judges the test engines; the verdict at an
    /// engine's last row is its prediction. Remaining life is cut at 125 cycles on both sides.
    Cmapss(CmapssArgs),
    /// SMAP and MSL, telemetry of spacecraft: mean AUC-ROC and average precision over channels, without point adjustment
    ///
    /// Trains the pipeline on each channel's training rows and judges its test rows, minute by minute, in memory.
    Smap(smap::SmapArgs),
}

/// What `avouch evaluate skab` needs.
#[derive(Debug, Clone, Args)]
pub struct SkabArgs {
    /// The data set: a directory with valve1, valve2 and other in it, or some of them
    #[arg(long, value_name = "DIR")]
    pub data: PathBuf,

    /// The pipeline file whose verdicts are judged; they are read from its checkpoint store, where it has run
    #[arg(long, value_name = "PIPELINE.toml")]
    pub pipeline: Option<PathBuf>,

    /// Train and run that pipeline in memory, whatever is in its store
    #[arg(long)]
    pub memory: bool,

    /// The model step that is judged, where the pipeline has several
    #[arg(long, value_name = "NAME")]
    pub step: Option<String>,

    /// Write a CSV file for each experiment into this directory: datetime, score, p_value, alarm, anomaly
    #[arg(long, value_name = "DIR")]
    pub scores: Option<PathBuf>,

    /// Draw some experiments as SVG files in this directory
    #[arg(long, value_name = "DIR")]
    pub plots: Option<PathBuf>,

    /// Print one JSON object instead of tables
    #[arg(long)]
    pub json: bool,
}

/// What `avouch evaluate tep` needs.
#[derive(Debug, Clone, Args)]
pub struct TepArgs {
    /// The data set: a directory with d00.dat, d00_te.dat, d01_te.dat … in it, gzipped or not
    #[arg(long, value_name = "DIR")]
    pub data: PathBuf,

    /// Another pipeline file over the same readings; its [train.*] entries are given the runs d00 and d00_te
    #[arg(long, value_name = "PIPELINE.toml")]
    pub pipeline: Option<PathBuf>,

    /// The model step that is judged, where the pipeline has several
    #[arg(long, value_name = "NAME")]
    pub step: Option<String>,

    /// Keep the runs as readings here, a CSV file each, to produce them to Kafka for example
    #[arg(long, value_name = "DIR")]
    pub readings: Option<PathBuf>,

    /// Write a CSV file for each run into this directory: row, score, p_value, alarm, fault
    #[arg(long, value_name = "DIR")]
    pub scores: Option<PathBuf>,

    /// Draw some runs as SVG files in this directory
    #[arg(long, value_name = "DIR")]
    pub plots: Option<PathBuf>,

    /// Print one JSON object instead of tables
    #[arg(long)]
    pub json: bool,
}

/// Why verdicts could not be evaluated.
#[derive(Debug, Error)]
pub enum EvaluateError {
    /// The pipeline file is wrong.
    #[error("{0}")]
    Pipeline(String),
    /// No such model step, or several and none was named.
    #[error("{0}")]
    Step(String),
    /// The pipeline has not run with this store.
    #[error(
        "{dir}: there is no verdict log of `{pipeline}` here; run it first (`avouch run`), with the same checkpoint store"
    )]
    NoState {
        /// The pipeline's state directory.
        dir: PathBuf,
        /// Its name.
        pipeline: String,
    },
    /// The logs are empty.
    #[error(
        "{dir}: no verdict of step `{step}` is logged in {lanes}; has `{topic}` any readings, and did the run reach a checkpoint?"
    )]
    NoVerdicts {
        /// The pipeline's state directory.
        dir: PathBuf,
        /// The step.
        step: String,
        /// Which lanes were read.
        lanes: String,
        /// The source's topic as the file gives it.
        topic: String,
    },
    /// The log was written under another definition of the pipeline.
    #[error(
        "{dir}: its {what} was made by another version of this pipeline (configHash {found}, the file's is {expected}); evaluate with the file that made it; where the log has gone over from one version to another, its figures would be of neither: judge this file with --memory, or run it with a checkpoint store of its own"
    )]
    OtherPipeline {
        /// The lane's directory.
        dir: PathBuf,
        /// The checkpoint or the verdict.
        what: String,
        /// Hex of the configHash found.
        found: String,
        /// Hex of the file's.
        expected: String,
    },
    /// Two verdicts about one device and window.
    #[error(
        "the window of `{device}` that ends {window_end} has a verdict in lane {first} and in lane {second}; key the topic by device, so that all its readings reach one lane, and run again"
    )]
    Twice {
        /// The device.
        device: String,
        /// The window's end.
        window_end: String,
        /// One lane.
        first: i32,
        /// The other.
        second: i32,
    },
    /// Lanes in an object store cannot be brought here.
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
    /// A lane's store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The pipeline's model could not be trained.
    #[error(transparent)]
    Train(#[from] TrainError),
    /// The pipeline could not be run over the rows.
    #[error(transparent)]
    History(#[from] HistoryError),
    /// The labelled files.
    #[error(transparent)]
    Files(#[from] FilesError),
    /// A labelled row.
    #[error("{path}:{line}: {why}")]
    Label {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: u64,
        /// What is wrong.
        why: String,
    },
    /// There are no labelled files.
    #[error("{dir}: holds no experiments; name the directory that has valve1, valve2 or other in it, with .csv files")]
    NoData {
        /// The directory.
        dir: PathBuf,
    },
    /// Verdicts and labels are about different things.
    #[error(
        "none of the {verdicts} verdicts is about a row of {dir}: they judge {devices}; produce its files with `--device path --time datetime --delimiter ';'`, and let the pipeline's windows end every second"
    )]
    NoMatch {
        /// The data set.
        dir: PathBuf,
        /// How many verdicts there are.
        verdicts: u64,
        /// Some of their devices.
        devices: String,
    },
    /// The Numenta benchmark's files.
    #[error(transparent)]
    Nab(#[from] NabError),
    /// No verdict is about a row.
    #[error(
        "none of the {verdicts} verdicts is about a row of {dir}, they are about {devices}; windows must hold the readings they judge, and the key be the device"
    )]
    NoSeries {
        /// The data set.
        dir: PathBuf,
        /// How many verdicts there are.
        verdicts: u64,
        /// Some of their devices.
        devices: String,
    },
    /// A plot could not be drawn.
    #[error("{path}: cannot be drawn: {why}")]
    Drawing {
        /// The file it should be in.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// The pipeline cannot be trained, or run over the files.
    #[error("{0}")]
    Run(String),
    /// The spacecraft telemetry.
    #[error(transparent)]
    Smap(#[from] smap::SmapError),
    /// A run of the Tennessee Eastman process.
    #[error("{path}: {why}")]
    Tep {
        /// The file or directory.
        path: PathBuf,
        /// What is wrong and what to do.
        why: String,
    },
    /// A file could not be read or written.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's words.
        source: std::io::Error,
    },
}

/// Evaluates and prints. Exit code 0 if there are figures, whatever they are.
pub fn run(args: &EvaluateArgs) -> ExitCode {
    let (json, shown) = match &args.benchmark {
        Benchmark::Skab(args) => {
            (args.json, evaluate_skab(args).map(|r| if args.json { format!("{}\n", r.json()) } else { r.text() }))
        }
        Benchmark::Ai4i(args) => {
            let figures = ai4i::evaluate(args, &bar(args.json));
            let show = |f| if args.json { format!("{}\n", ai4i::to_json(&f)) } else { ai4i::text(&f) };
            (args.json, figures.map(show))
        }
        Benchmark::Cmapss(args) => {
            let figures = cmapss::evaluate(args, &bar(args.json));
            let show = |f: Vec<_>| if args.json { format!("{}\n", cmapss::to_json(&f)) } else { cmapss::text(&f) };
            (args.json, figures.map(show))
        }
        Benchmark::Nab(args) => {
            let shown = |r: nab::Report| if args.json { format!("{}\n", r.json()) } else { r.text() };
            (args.json, nab::evaluate(args).map(shown))
        }
        Benchmark::Smap(args) => {
            (args.json, smap::evaluate(args).map(|r| if args.json { format!("{}\n", r.json()) } else { r.text() }))
        }
        Benchmark::Tep(args) => {
            (args.json, tep::evaluate(args).map(|r| if args.json { format!("{}\n", r.json()) } else { r.text() }))
        }
    };
    match shown {
        Ok(shown) => {
            print!("{shown}");
            ExitCode::SUCCESS
        }
        Err(EvaluateError::Pipeline(text) | EvaluateError::Train(TrainError::Pipeline(text))) => {
            eprint!("{text}");
            ExitCode::FAILURE
        }
        Err(e) => super::fail(json, e),
    }
}

/// The pipeline that is judged if no other is named.
const WATER_PUMP: Shipped =
    Shipped { name: "water-pump/pipeline.toml", text: include_str!("../../water-pump/pipeline.toml") };

/// Experiments that are drawn.
const PLOTTED: [&str; 4] = ["valve1/0", "valve1/7", "valve2/0", "valve2/2"];

fn wrong_pipeline(d: Diagnostics) -> EvaluateError {
    EvaluateError::Pipeline(d.render_text(super::check::colour()))
}

fn bar(quiet: bool) -> ProgressBar {
    let bar = ProgressBar::new(0);
    if quiet {
        bar.set_draw_target(ProgressDrawTarget::hidden());
    }
    if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} {human_pos}/{human_len} [{wide_bar}] {eta}") {
        bar.set_style(style);
    }
    bar
}

fn texts(paths: Vec<PathBuf>) -> Vec<String> {
    paths.into_iter().map(|p| p.to_string_lossy().into_owned()).collect()
}

fn evaluate_skab(args: &SkabArgs) -> Result<report::Report, EvaluateError> {
    let mut pipeline = match &args.pipeline {
        Some(path) if !args.memory => Pipeline::load(path).map_err(wrong_pipeline)?,
        path => WATER_PUMP.unless(path.as_deref())?,
    };
    let step = step(&pipeline, args.step.as_deref())?;
    let bar = bar(args.json);
    // Labels first: they are quickly read, and what is wrong with them shows before a long log is read.
    bar.set_message("reading labels");
    let experiments = skab::load(&args.data, |done, all| {
        bar.set_length(all);
        bar.set_position(done);
    })?;
    let verdicts = if args.memory || args.pipeline.is_none() {
        in_memory::train_on(&mut pipeline, &args.data);
        let mut options = HistoryOptions::of(&pipeline, texts(skab::paths(&args.data)?));
        (options.device, options.delimiter, options.order) = (DeviceFrom::Path, b';', Order::Sorted);
        in_memory::run(&pipeline, &step, options, args.json, &bar)?.verdicts
    } else {
        bar.set_message("reading verdicts");
        verdicts::read(&pipeline, &step, |done, all| {
            bar.set_length(all);
            bar.set_position(done);
        })?
    };
    bar.finish_and_clear();
    let scored = skab::score(&experiments, &verdicts);
    if scored.iter().all(|s| s.rows.iter().all(|r| r.verdict.is_none())) {
        let mut devices: Vec<String> = verdicts.devices().take(3).map(|d| format!("`{d}`")).collect();
        if verdicts.devices().count() > 3 {
            devices.push("…".into());
        }
        let devices = devices.join(", ");
        return Err(EvaluateError::NoMatch { dir: args.data.clone(), verdicts: verdicts.count, devices });
    }
    if let Some(dir) = &args.scores {
        for experiment in &scored {
            report::write_scores(dir, experiment)?;
        }
    }
    if let Some(dir) = &args.plots {
        for experiment in scored.iter().filter(|s| PLOTTED.contains(&s.device)) {
            alarm_plot::write(dir, &experiment.series())?;
        }
    }
    let mut warnings = report::warnings(&scored, &verdicts);
    warnings.extend(beyond_the_protocol(&pipeline, &step));
    Ok(report::Report::new(&pipeline, &step, &scored, &verdicts, warnings))
}

/// The step to judge: the one named, or the only one.
fn step(pipeline: &Pipeline, named: Option<&str>) -> Result<String, EvaluateError> {
    let all: Vec<&str> = pipeline.model_steps.iter().map(|s| s.name.value.as_str()).collect();
    match (named, all.as_slice()) {
        (Some(name), _) if all.contains(&name) => Ok(name.to_owned()),
        (Some(name), _) => {
            Err(EvaluateError::Step(format!("there is no model step `{name}`; there is {}", all.join(", "))))
        }
        (None, [only]) => Ok((*only).to_owned()),
        (None, _) => Err(EvaluateError::Step(format!(
            "this pipeline has {} model steps; name one: --step {}",
            all.len(),
            all.join("|")
        ))),
    }
}

/// A warning if the pipeline says that its model was trained on rows that are judged here.
fn beyond_the_protocol(pipeline: &Pipeline, step: &str) -> Option<String> {
    let train = pipeline.train.iter().find(|t| t.step.value == step)?;
    let most = skab::TRAIN_ROWS as u64;
    if train.data.first.is_some_and(|first| first <= most) {
        return None;
    }
    Some(format!(
        "[train.{}] does not stop at the first {most} rows of each experiment, so the model may have seen rows judged here",
        train.name.value
    ))
}
