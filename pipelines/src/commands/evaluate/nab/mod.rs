//! The Numenta Anomaly Benchmark: the pipeline over its files, and what its verdicts are worth.
//!
//! Each file is a device, and all of them run through one lane of the engine in the order of time, as they would have
//! come. A row is judged by the verdict of the window that holds its time; rows of equal time share one.

mod plots;
mod report;

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use avouch_connectors::files::{DeviceFrom, Order};
use avouch_engine::decode::{format_timestamp, parse_timestamp};
use avouch_engine::verdict::{Severity, class};
use avouch_models::nab::{NabFile, load};
use clap::Args;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

pub(super) use report::Report;

use super::EvaluateError;
use crate::commands::train;
use crate::history::{Ending, History, HistoryOptions};
use crate::lang::{self, Diagnostics, Models, Pipeline, ProcessEnvironment, SourceFile, hex, plural};

/// The pipeline that is evaluated if none is named.
const PIPELINE: &str = include_str!("../../../../nab/pipeline.toml");

/// Of a model that is trained here and kept nowhere: so the same data give the same model.
const CREATED: &str = "1970-01-01T00:00:00.000Z";

/// What `avouch evaluate nab` needs.
#[derive(Debug, Clone, Args)]
pub struct NabArgs {
    /// The data set: a directory with data/<folder>/<series>.csv and labels/combined_windows.json in it
    #[arg(long, value_name = "DIR")]
    pub data: PathBuf,

    /// The pipeline file that is run over it [default: pipelines/nab, which is built in]
    #[arg(long, value_name = "PIPELINE.toml")]
    pub pipeline: Option<PathBuf>,

    /// The model step that is judged, where the pipeline has several
    #[arg(long, value_name = "NAME")]
    pub step: Option<String>,

    /// Write a CSV file for each series into this directory, as the benchmark's own tools read them: <folder>/avouch_<series>.csv
    /// with timestamp, value, anomaly_score, label. The anomaly score is s/(1+s) of the verdict's score s
    #[arg(long, value_name = "DIR")]
    pub scores: Option<PathBuf>,

    /// Draw a few series into this directory, as SVG: values, labelled windows and alarms
    #[arg(long, value_name = "DIR")]
    pub plots: Option<PathBuf>,

    /// Print one JSON object instead of tables
    #[arg(long)]
    pub json: bool,
}

/// What was said of a window.
#[derive(Debug, Clone, Copy)]
struct Judged {
    start: i64,
    score: f64,
    alarm: bool,
}

/// A file and what was said of its rows.
#[derive(Debug)]
struct Scored {
    file: NabFile,
    /// NaN where there is no verdict, or none with a score.
    scores: Vec<f64>,
    /// Whether the verdict was a warning or worse.
    alarms: Vec<bool>,
    without_verdict: u64,
}

/// Runs the pipeline over the files and scores it.
pub(super) fn evaluate(args: &NabArgs) -> Result<Report, EvaluateError> {
    let text = |d: Diagnostics| EvaluateError::Pipeline(d.render_text(crate::commands::check::colour()));
    let files = load(&args.data)?;
    let pipeline = match &args.pipeline {
        Some(path) => Pipeline::load_offline(path),
        None => {
            let file = SourceFile::new(Path::new("pipelines/nab/pipeline.toml"), PIPELINE);
            Pipeline::read(Arc::new(file), &ProcessEnvironment)
        }
    }
    .map_err(text)?;
    let step = super::step(&pipeline, args.step.as_deref())?;
    let mut warnings = Vec::new();
    let models = models(&pipeline, args, &mut warnings)?;
    let plan = lang::plan(&pipeline, &models).map_err(text)?;

    let mut options = HistoryOptions::of(&pipeline, [pattern(&args.data)]);
    options.device = DeviceFrom::Path;
    options.order = Order::Sorted;
    options.ending = Ending::CloseAll;
    let mut history = History::open(plan, options)?;
    let bar = ProgressBar::new(history.progress().1);
    if args.json {
        bar.set_draw_target(ProgressDrawTarget::hidden());
    }
    if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} {bytes}/{total_bytes} [{wide_bar}] {eta}") {
        bar.set_style(style);
    }
    bar.set_message("judging");
    let mut said: HashMap<String, BTreeMap<i64, Judged>> = HashMap::new();
    let (mut verdicts, mut dead) = (0u64, Vec::new());
    while let Some(piece) = history.next()? {
        for record in &piece.output.verdicts {
            let v = &record.verdict;
            if *record.evidence.step != *step {
                continue;
            }
            verdicts += 1;
            let judged = Judged {
                start: v.window_start as i64,
                score: record.evidence.score,
                alarm: v.class != class::NOT_A_NUMBER && v.severity >= Severity::Warning.code(),
            };
            said.entry(record.evidence.device.to_string()).or_default().insert(v.window_end as i64, judged);
        }
        dead.extend(piece.output.dead.into_iter().map(|d| format!("{}: {}", d.reason.name(), d.detail)));
        bar.set_position(history.progress().0);
    }
    bar.finish_and_clear();
    if let Some(first) = dead.first() {
        warnings.push(format!("{} became dead letters; the first: {first}", plural(dead.len(), "row")));
    }
    let mut scored = Vec::with_capacity(files.len());
    for file in files {
        scored.push(match_rows(file, &said)?);
    }
    let without: u64 = scored.iter().map(|s| s.without_verdict).sum();
    if without > 0 {
        warnings.push(format!("{} without a verdict, counted as no alarm", plural(without as usize, "row")));
    }
    let unscored =
        scored.iter().map(|s| s.scores.iter().filter(|x| x.is_nan()).count()).sum::<usize>() - without as usize;
    if unscored > 0 {
        warnings.push(format!(
            "{} without a score (no number, or not finite), counted as no alarm",
            plural(unscored, "row")
        ));
    }
    if scored.iter().all(|s| s.without_verdict as usize == s.scores.len()) {
        let mut devices: Vec<&str> = said.keys().map(String::as_str).collect();
        devices.sort_unstable();
        devices.truncate(3);
        let devices = if devices.is_empty() { "nothing".to_owned() } else { devices.join(", ") };
        return Err(EvaluateError::NoSeries { dir: args.data.clone(), verdicts, devices });
    }
    let model = models.get(&step).map(|m| hex(&m.hash())).unwrap_or_default();
    let report = Report::new(&pipeline, &step, model, verdicts, &scored, warnings);
    if let Some(dir) = &args.scores {
        for s in &scored {
            report::write_scores(dir, s)?;
        }
    }
    if let Some(dir) = &args.plots {
        plots::write(dir, &scored, report.threshold())?;
    }
    Ok(report)
}

/// The models of the pipeline's files; one whose file is not there is trained as the pipeline says, and not kept.
fn models(pipeline: &Pipeline, args: &NabArgs, warnings: &mut Vec<String>) -> Result<Models, EvaluateError> {
    let text = |d: Diagnostics| EvaluateError::Pipeline(d.render_text(crate::commands::check::colour()));
    let (mut models, missing) = lang::load_models_there(pipeline).map_err(text)?;
    for step in &pipeline.model_steps {
        if models.contains_key(&step.name.value) {
            continue;
        }
        let Some(entry) = pipeline.train.iter().find(|t| t.step.value == step.name.value) else {
            return Err(text(missing));
        };
        let mut entry = entry.clone();
        entry.data.pattern = pattern(&args.data);
        let (_, model) = train::make(pipeline, &entry, CREATED, args.json)?;
        warnings.push(format!(
            "{} is not there, so the model was trained now, as [train.{}] says, and is not kept",
            step.model_file.value.display(),
            entry.name.value
        ));
        models.insert(step.name.value.clone(), model.scorer);
    }
    Ok(models)
}

fn pattern(data: &Path) -> String {
    data.join("data/*/*.csv").to_string_lossy().into_owned()
}

fn match_rows(file: NabFile, said: &HashMap<String, BTreeMap<i64, Judged>>) -> Result<Scored, EvaluateError> {
    let of_device = said.get(&file.name);
    let n = file.timestamps.len();
    let (mut scores, mut alarms) = (Vec::with_capacity(n), Vec::with_capacity(n));
    let mut without_verdict = 0;
    for (i, text) in file.timestamps.iter().enumerate() {
        let Some(t) = parse_timestamp(text.as_bytes()) else {
            return Err(EvaluateError::Label {
                path: PathBuf::from(format!("{}.csv", file.name)),
                line: i as u64 + 2,
                why: format!("`{text}` is no time, such as `{}`", format_timestamp(0)),
            });
        };
        // The first window that ends after the reading is the one that holds it, or none does.
        let after = (Bound::Excluded(t), Bound::Unbounded);
        let judged = of_device.and_then(|d| d.range(after).next()).map(|(_, j)| *j).filter(|j| j.start <= t);
        scores.push(judged.map_or(f64::NAN, |j| j.score));
        alarms.push(judged.is_some_and(|j| j.alarm));
        without_verdict += u64::from(judged.is_none());
    }
    Ok(Scored { file, scores, alarms, without_verdict })
}
