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

use clap::Args;
use thiserror::Error;

use super::EvaluateError;
pub(in crate::commands::evaluate) use report::Report;

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

/// Why channels cannot be read, judged or drawn.
#[derive(Debug, Error)]
pub enum SmapError {
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
    /// A plot cannot be drawn.
    #[error("the plot of {channel} cannot be drawn: {why}")]
    Plot {
        /// The channel.
        channel: String,
        /// The plotter's words.
        why: String,
    },
}

/// Runs the evaluation.
pub(super) fn evaluate(args: &SmapArgs) -> Result<Report, EvaluateError> {
    let bar = super::bar(args.json);
    bar.set_message("reading channels");
    let channels = channels::load(&args.data, &bar)?;
    let run = judged::run(&channels, args.pipeline.as_deref(), args.json, &bar)?;
    bar.finish_and_clear();
    if let Some(dir) = &args.scores {
        report::write_scores(dir, &channels, &run)?;
    }
    let report = Report::new(&channels, &run)?;
    if let Some(dir) = &args.plots {
        for i in report.examples() {
            plots::write(dir, &channels[i], &run.rows[i])?;
        }
    }
    Ok(report)
}

#[cfg(test)]
mod tests;
