//! `avouch evaluate smap`: SMAP and MSL, the spacecraft telemetry of Hundman et al. (KDD 2018), through the engine.
//!
//! ```text
//!   <spacecraft>/train/*.parquet ─ rows ─► avouch train ─► model file, a detector a channel ─┐
//!   <spacecraft>/test/*.parquet  ─ rows ─► history (the engine's lane) ◄─────────────────────┘
//!                                              │ verdicts
//!   labels.csv ────────────────────────────────┴─► AUC-ROC and average precision of each channel, and their means
//! ```
//!
//! A channel is a device, called `SMAP/A-1`. The data set's rows have no times: a row is a minute here, all channels begin
//! together. The verdict of the window that ends with a row is the row's score. There is no "point adjustment", by which
//! a whole stretch counts as found once one row of it is: it makes even random scores look good.

mod channels;
mod judged;
mod plots;
mod report;

use std::path::PathBuf;
use std::process::ExitCode;

use avouch_connectors::files::FilesError;
use clap::Args;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use thiserror::Error;

use crate::commands::train::TrainError;
use crate::history::HistoryError;

/// What `avouch evaluate smap` needs.
#[derive(Debug, Clone, Args)]
pub struct SmapArgs {
    /// The data set: a directory with labels.csv, and SMAP and MSL with train and test in them
    #[arg(long, value_name = "DIR")]
    pub data: PathBuf,

    /// The pipeline file that is trained and run [default: pipelines/spacecraft, which this program carries]
    #[arg(long, value_name = "PIPELINE.toml")]
    pub pipeline: Option<PathBuf>,

    /// Write a CSV file for each channel into this directory: row, value, score, p_value, alarm, anomaly
    #[arg(long, value_name = "DIR")]
    pub scores: Option<PathBuf>,

    /// Draw some channels of each spacecraft as SVG into this directory: the best, the one in the middle, the worst
    #[arg(long, value_name = "DIR")]
    pub plots: Option<PathBuf>,

    /// Print one JSON object instead of tables
    #[arg(long)]
    pub json: bool,
}

/// Why the pipeline could not be evaluated.
#[derive(Debug, Error)]
pub enum SmapError {
    /// The pipeline file is wrong, or its model cannot be loaded.
    #[error("{0}")]
    Pipeline(String),
    /// The pipeline is not one that can be trained and run here.
    #[error("the pipeline needs one model step and one [train.*] entry for it; it has {steps} and {entries}")]
    Shape {
        /// Model steps.
        steps: usize,
        /// Entries.
        entries: usize,
    },
    /// The data set is not there.
    #[error(
        "{dir}: holds no channels; name the directory with labels.csv, and SMAP/train or MSL/train with .parquet files"
    )]
    NoData {
        /// The directory.
        dir: PathBuf,
    },
    /// A label cannot be read.
    #[error("{path}:{line}: {why}")]
    Label {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong.
        why: String,
    },
    /// A channel has no verdicts at all.
    #[error("{channel}: the pipeline gave no verdict on its test rows; do its windows close every minute?")]
    NoVerdicts {
        /// The channel.
        channel: String,
    },
    /// Training.
    #[error(transparent)]
    Train(#[from] TrainError),
    /// Running.
    #[error(transparent)]
    History(#[from] HistoryError),
    /// Rows of the data set.
    #[error(transparent)]
    Files(#[from] FilesError),
    /// A plot cannot be drawn.
    #[error("the plot of {channel} cannot be drawn: {why}")]
    Plot {
        /// The channel.
        channel: String,
        /// The plotter's words.
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
pub(super) fn run(args: &SmapArgs) -> ExitCode {
    match evaluate(args) {
        Ok(report) => {
            print!("{}", if args.json { format!("{}\n", report.json()) } else { report.text() });
            ExitCode::SUCCESS
        }
        Err(SmapError::Pipeline(text)) if !args.json => {
            eprint!("{text}");
            ExitCode::FAILURE
        }
        Err(e) => crate::commands::fail(args.json, e),
    }
}

fn evaluate(args: &SmapArgs) -> Result<report::Report, SmapError> {
    let bar = ProgressBar::new(0);
    if args.json {
        bar.set_draw_target(ProgressDrawTarget::hidden());
    }
    if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} {human_pos}/{human_len} [{wide_bar}] {eta}") {
        bar.set_style(style);
    }
    bar.set_message("reading channels");
    let channels = channels::load(&args.data, &bar)?;
    bar.set_message("training");
    let run = judged::run(&channels, args.pipeline.as_deref(), args.json, &bar)?;
    bar.finish_and_clear();
    if let Some(dir) = &args.scores {
        report::write_scores(dir, &channels, &run)?;
    }
    let report = report::Report::new(&channels, &run)?;
    if let Some(dir) = &args.plots {
        for i in report.examples() {
            plots::write(dir, &channels[i], &run.rows[i])?;
        }
    }
    Ok(report)
}

#[cfg(test)]
mod tests;
