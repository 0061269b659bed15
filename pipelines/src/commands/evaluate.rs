//! `avouch evaluate`: how good a pipeline's verdicts are, where the truth is known.
//!
//! The verdicts come from the pipeline's own logs, as its sinks and auditors read them: what is measured is what was
//! decided and logged, not what a model would say today.

mod report;
mod skab;
mod smap;
#[cfg(test)]
mod tests;
mod verdicts;

use std::path::PathBuf;
use std::process::ExitCode;

use avouch_connectors::files::FilesError;
use avouch_connectors::store::StoreError;
use clap::{Args, Subcommand};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use thiserror::Error;

use crate::lang::{Diagnostics, Pipeline};

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
    Skab(SkabArgs),
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

    /// The pipeline file whose verdicts are judged; they are read from its checkpoint store
    #[arg(long, value_name = "PIPELINE.toml")]
    pub pipeline: PathBuf,

    /// The model step that is judged, where the pipeline has several
    #[arg(long, value_name = "NAME")]
    pub step: Option<String>,

    /// Write a CSV file for each experiment into this directory: datetime, score, p_value, alarm, anomaly
    #[arg(long, value_name = "DIR")]
    pub scores: Option<PathBuf>,

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
        "{dir}: its {what} was made by another version of this pipeline (configHash {found}, the file's is {expected}); evaluate with the file that made it, or run this one with a checkpoint store of its own"
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
    /// A lane's store.
    #[error(transparent)]
    Store(#[from] StoreError),
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
    match &args.benchmark {
        Benchmark::Skab(args) => run_skab(args),
        Benchmark::Smap(args) => smap::run(args),
    }
}

fn run_skab(args: &SkabArgs) -> ExitCode {
    match evaluate_skab(args) {
        Ok(report) => {
            print!("{}", if args.json { format!("{}\n", report.json()) } else { report.text() });
            ExitCode::SUCCESS
        }
        Err(EvaluateError::Pipeline(text)) => {
            eprint!("{text}");
            ExitCode::FAILURE
        }
        Err(e) => super::fail(args.json, e),
    }
}

fn evaluate_skab(args: &SkabArgs) -> Result<report::Report, EvaluateError> {
    let text = |d: Diagnostics| EvaluateError::Pipeline(d.render_text(super::check::colour()));
    let pipeline = Pipeline::load(&args.pipeline).map_err(text)?;
    let step = step(&pipeline, args.step.as_deref())?;
    let bar = ProgressBar::new(0);
    if args.json {
        bar.set_draw_target(ProgressDrawTarget::hidden());
    }
    if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} {human_pos}/{human_len} [{wide_bar}] {eta}") {
        bar.set_style(style);
    }
    // Labels first: they are quickly read, and what is wrong with them shows before a long log is read.
    bar.set_message("reading labels");
    let experiments = skab::load(&args.data, |done, all| {
        bar.set_length(all);
        bar.set_position(done);
    })?;
    bar.set_message("reading verdicts");
    let verdicts = verdicts::read(&pipeline, &step, |done, all| {
        bar.set_length(all);
        bar.set_position(done);
    })?;
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
