//! The Numenta Anomaly Benchmark: the pipeline over its files, and what its verdicts are worth.
//!
//! Each file is a device, and all of them run through one lane of the engine in the order of time, as they would have
//! come. A row is judged by the verdict of the window that holds its time; rows of equal time share one.

mod plots;
mod report;

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::path::{Path, PathBuf};

use avouch_connectors::files::{DeviceFrom, Order};
use avouch_engine::decode::{format_timestamp, parse_timestamp};
use avouch_models::nab::{NabFile, load};
use clap::Args;
use indicatif::ProgressBar;

pub(super) use report::Report;

use super::in_memory::{self, Shipped};
use super::verdicts::Judged;
use super::{EvaluateError, wrong_pipeline};
use crate::history::{Ending, HistoryOptions};
use crate::lang::{self, Models, Pipeline, hex, plural};

/// The pipeline that is evaluated if none is named.
const PIPELINE: Shipped = Shipped { name: "nab/pipeline.toml", text: include_str!("../../../../nab/pipeline.toml") };

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

/// What was said of each device's windows, by the window's end, with the window's start.
type Said = HashMap<String, BTreeMap<i64, (i64, Judged)>>;

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
    let files = load(&args.data)?;
    let mut pipeline = PIPELINE.unless(args.pipeline.as_deref())?;
    let step = super::step(&pipeline, args.step.as_deref())?;
    let mut warnings = Vec::new();
    let bar = super::bar(args.json);
    let models = models(&mut pipeline, args, &bar, &mut warnings)?;

    let mut options = HistoryOptions::of(&pipeline, [pattern(&args.data)]);
    options.device = DeviceFrom::Path;
    options.order = Order::Sorted;
    options.ending = Ending::CloseAll;
    let (mut said, mut verdicts) = (Said::new(), 0u64);
    let dead = in_memory::judge(&pipeline, &models, &step, options, &bar, |record, lane| {
        let (start, end) = (record.verdict.window_start as i64, record.verdict.window_end as i64);
        let windows = said.entry(record.evidence.device.to_string()).or_default();
        windows.insert(end, (start, Judged::of(&record, lane)));
        verdicts += 1;
        Ok(())
    })?;
    bar.finish_and_clear();
    if let Some(dead) = dead {
        warnings.push(format!("{} became dead letters; the first: {}", plural(dead.rows, "row"), dead.first));
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
fn models(
    pipeline: &mut Pipeline,
    args: &NabArgs,
    bar: &ProgressBar,
    warnings: &mut Vec<String>,
) -> Result<Models, EvaluateError> {
    let (mut models, missing) = lang::load_models_there(pipeline).map_err(wrong_pipeline)?;
    for entry in &mut pipeline.train {
        entry.data.pattern = pattern(&args.data);
    }
    let without: Vec<_> = pipeline.model_steps.iter().filter(|s| !models.contains_key(&s.name.value)).collect();
    for step in without {
        let name = &step.name.value;
        let Some(entry) = pipeline.train.iter().find(|t| t.step.value == *name) else {
            return Err(wrong_pipeline(missing));
        };
        let model = in_memory::fit(pipeline, name, args.json, bar)?;
        warnings.push(format!(
            "{} is not there, so the model was trained now, as [train.{}] says, and is not kept",
            step.model_file.value.display(),
            entry.name.value
        ));
        models.insert(name.clone(), model.scorer);
    }
    Ok(models)
}

fn pattern(data: &Path) -> String {
    data.join("data/*/*.csv").to_string_lossy().into_owned()
}

fn match_rows(file: NabFile, said: &Said) -> Result<Scored, EvaluateError> {
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
        let judged = of_device.and_then(|d| d.range(after).next()).map(|(_, j)| *j).filter(|(start, _)| *start <= t);
        let judged = judged.map(|(_, j)| j);
        scores.push(judged.map_or(f64::NAN, |j| j.score));
        alarms.push(judged.is_some_and(|j| j.alarm));
        without_verdict += u64::from(judged.is_none());
    }
    Ok(Scored { file, scores, alarms, without_verdict })
}
