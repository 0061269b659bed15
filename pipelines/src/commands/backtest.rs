//! `avouch backtest`: a pipeline over history, and a report of what it would have said.
//!
//! ```text
//!   files ─ history ─► verdicts ─┬─► alarms, episodes, devices ─┐
//!                                ├─► labels: failures, windows ─┼─► report.json, report.html
//!   files ─ history ─► verdicts ─┴─► differences ───────────────┘      differences.ndjson
//!     (--against)
//! ```
//!
//! It is the engine's own lane that runs ([`crate::history`]). The report has no clock in it: the same files, pipelines and
//! models give the same bytes.

pub(super) mod alarms;
pub(super) mod differences;
pub(super) mod figures;
mod html;
pub(super) mod judged;
mod labels;
mod plots;
mod report;
mod truth;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use avouch_connectors::files::{DeviceFrom, FilesError, Order};
use clap::{Args, ValueEnum};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use thiserror::Error;

use crate::history::{HistoryError, HistoryOptions};
use crate::lang::{Diagnostics, Pipeline, UnitError, parse_duration};
use judged::Side;

/// Run a pipeline over history, at full speed and without a network, and report what it would have said.
#[derive(Debug, Clone, Args)]
pub struct BacktestArgs {
    /// The pipeline file
    #[arg(value_name = "PIPELINE.toml")]
    pub file: PathBuf,

    /// CSV, NDJSON or Parquet files to run over: names or patterns, quoted
    #[arg(long, required = true, num_args = 1.., value_name = "PATTERN")]
    pub data: Vec<String>,

    /// Another pipeline file (another model, threshold or SQL) to run over the same files and compare with
    #[arg(long, value_name = "OTHER.toml")]
    pub against: Option<PathBuf>,

    /// CSV of what really was: `device, failed_at [, step]` for failures, or `device, from, to [, step]` for windows in which
    /// something was wrong
    #[arg(long, value_name = "FILE.csv")]
    pub labels: Option<PathBuf>,

    /// How long before a failure an alarm counts as a warning of it
    #[arg(long, default_value = "7d", value_parser = duration, value_name = "DURATION")]
    pub horizon: i64,

    /// Where report.json, report.html and differences.ndjson are written
    #[arg(long, default_value = "backtest", value_name = "DIR")]
    pub out: PathBuf,

    /// The order of rows: as they stand, file after file; merged by time (each file is in order itself); or sorted by time,
    /// in memory
    #[arg(long, value_enum, default_value_t = RowOrder::File)]
    pub order: RowOrder,

    /// The column with the time of arrival, which rows then come in the order of and `max_future` is held against
    #[arg(long, value_name = "COLUMN")]
    pub arrival: Option<String>,

    /// What names the device: `path` (directory and file name), or a column [default: the pipeline's key]
    #[arg(long, value_name = "COLUMN|path")]
    pub device: Option<String>,

    /// Field delimiter of CSV files
    #[arg(long, default_value_t = ',', value_name = "CHAR")]
    pub delimiter: char,

    /// Print the report as JSON instead of a summary
    #[arg(long)]
    pub json: bool,
}

/// The order in which rows are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum RowOrder {
    /// As they stand, file after file.
    File,
    /// Files merged by time.
    Time,
    /// Sorted by time.
    Sorted,
}

/// Why there is no report.
#[derive(Debug, Error)]
pub enum BacktestError {
    /// A pipeline file or a model is wrong.
    #[error("{0}")]
    Pipeline(String),
    /// The delimiter is no byte.
    #[error("--delimiter `{0}`: a delimiter is one ASCII character")]
    Delimiter(char),
    /// The rows cannot be read.
    #[error("--data: {0}")]
    Files(FilesError),
    /// The engine failed on them.
    #[error(transparent)]
    History(HistoryError),
    /// The labels cannot be read.
    #[error("--labels: {0}")]
    LabelFile(FilesError),
    /// Labels that make no sense, each at its line.
    #[error("{0}")]
    Labels(String),
    /// A plot cannot be drawn.
    #[error("the plot of {what} cannot be drawn: {why}")]
    Plot {
        /// What it shows.
        what: String,
        /// The plotter's words.
        why: String,
    },
    /// A file of the report cannot be written.
    #[error("{}: {source}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// The system's words.
        source: std::io::Error,
    },
}

impl From<HistoryError> for BacktestError {
    fn from(e: HistoryError) -> Self {
        match e {
            HistoryError::Files(e) => BacktestError::Files(e),
            e @ HistoryError::Lane { .. } => BacktestError::History(e),
        }
    }
}

fn duration(text: &str) -> Result<i64, UnitError> {
    parse_duration(text)
}

/// Runs and reports. Exit code 0 if the report was written, whatever is in it.
pub fn run(args: &BacktestArgs) -> ExitCode {
    match backtest(args) {
        Ok(text) => {
            print!("{text}");
            ExitCode::SUCCESS
        }
        Err(BacktestError::Pipeline(text)) if !args.json => {
            eprint!("{text}");
            ExitCode::FAILURE
        }
        Err(e) => super::fail(args.json, e),
    }
}

fn backtest(args: &BacktestArgs) -> Result<String, BacktestError> {
    let pipeline = load(&args.file, args.json)?;
    let other = args.against.as_ref().map(|file| load(file, args.json)).transpose()?;
    // Both models, and the labels, before a long run begins.
    let models = judged::models(&pipeline, colour(args))?;
    let other = match other {
        Some(other) => Some((judged::models(&other, colour(args))?, other)),
        None => None,
    };
    let labels = args.labels.as_ref().map(|path| labels::read(path, &pipeline)).transpose()?;

    let bar = bar(args);
    bar.set_message("running");
    let keep_features = other.is_some();
    let side = Side::run(&pipeline, &models, options(&pipeline, args)?, keep_features, colour(args), &bar)?;
    let there = match &other {
        Some((models, other)) => {
            bar.set_message("running the other");
            Some(Side::run(other, models, options(other, args)?, true, colour(args), &bar)?)
        }
        None => None,
    };
    bar.finish_and_clear();
    if let Some(labels) = &labels {
        labels.check_devices(&side)?;
    }

    std::fs::create_dir_all(&args.out).map_err(|source| BacktestError::Write { path: args.out.clone(), source })?;
    let compared = match &there {
        Some(there) => Some(differences::compare(&side, there, &args.out.join("differences.ndjson"))?),
        None => None,
    };
    let episodes = alarms::episodes(&side);
    let truth = labels.as_ref().map(|labels| truth::hold(labels, &side, &episodes, args.horizon));
    let parts = report::Parts {
        data: &args.data,
        side: &side,
        episodes: &episodes,
        labels: labels.as_ref(),
        truth,
        against: there.as_ref().zip(compared),
    };
    let report = report::Report::new(parts);
    let json = report.json();
    let page = html::page(&report, &side, &episodes, labels.as_ref(), args.horizon)?;
    write(&args.out.join("report.json"), &json)?;
    write(&args.out.join("report.html"), &page)?;
    Ok(if args.json { json } else { report.text(&args.out) })
}

fn load(file: &Path, json: bool) -> Result<Pipeline, BacktestError> {
    let text = |d: Diagnostics| BacktestError::Pipeline(d.render_text(!json && super::check::colour()));
    Pipeline::load(file).map_err(text)
}

fn colour(args: &BacktestArgs) -> bool {
    !args.json && super::check::colour()
}

fn options(pipeline: &Pipeline, args: &BacktestArgs) -> Result<HistoryOptions, BacktestError> {
    let mut options = HistoryOptions::of(pipeline, args.data.iter().cloned());
    options.delimiter =
        u8::try_from(args.delimiter).ok().filter(u8::is_ascii).ok_or(BacktestError::Delimiter(args.delimiter))?;
    options.order = match args.order {
        RowOrder::File => Order::File,
        RowOrder::Time => Order::Time,
        RowOrder::Sorted => Order::Sorted,
    };
    options.arrival = args.arrival.clone();
    match args.device.as_deref() {
        None => {}
        Some("path") => options.device = DeviceFrom::Path,
        Some(column) => options.device = DeviceFrom::Column(column.to_owned()),
    }
    Ok(options)
}

fn bar(args: &BacktestArgs) -> ProgressBar {
    let bar = ProgressBar::new(0);
    if args.json {
        bar.set_draw_target(ProgressDrawTarget::hidden());
    }
    if let Ok(style) =
        ProgressStyle::with_template("{spinner} {msg} {bytes}/{total_bytes} [{wide_bar}] {bytes_per_sec} {eta}")
    {
        bar.set_style(style);
    }
    bar
}

fn write(path: &Path, text: &str) -> Result<(), BacktestError> {
    std::fs::write(path, text).map_err(|source| BacktestError::Write { path: path.to_path_buf(), source })
}
