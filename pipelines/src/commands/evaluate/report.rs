//! What an evaluation shows: tables for people, JSON for machines, scores for plots.

use std::fmt::Write as _;
use std::path::Path;

use avouch_models::Confusion;
use serde_json::{Value, json};

use super::EvaluateError;
use super::skab::{PUBLISHED, Scored, TRAIN_ROWS};
use super::verdicts::Verdicts;
use crate::lang::{Pipeline, hex, plural};

/// The figures of one evaluation.
#[derive(Debug)]
pub(super) struct Report {
    pipeline: String,
    step: String,
    config_hash: String,
    models: Vec<String>,
    lanes: Vec<i32>,
    in_memory: bool,
    verdicts: u64,
    experiments: Vec<Line>,
    all: Line,
    warnings: Vec<String>,
}

#[derive(Debug)]
struct Line {
    name: String,
    confusion: Confusion,
    without_verdict: u64,
}

/// What a reader must know before believing the figures.
pub(super) fn warnings(scored: &[Scored<'_>], verdicts: &Verdicts) -> Vec<String> {
    let mut out = Vec::new();
    let silent: Vec<&str> = scored
        .iter()
        .filter(|s| !s.rows.is_empty() && s.rows.len() as u64 == s.without_verdict)
        .map(|s| s.device)
        .collect();
    if !silent.is_empty() {
        out.push(format!(
            "{} without any verdict, counted as if never an alarm was raised: {}; was it produced, and read to its end?",
            plural(silent.len(), "experiment"),
            silent.join(", ")
        ));
    }
    let strangers: Vec<&str> = verdicts.devices().filter(|d| scored.iter().all(|s| s.device != *d)).collect();
    if !strangers.is_empty() {
        let what = plural(strangers.len(), "device");
        out.push(format!(
            "verdicts about {what} that the data set does not have are left out: {}",
            strangers.join(", ")
        ));
    }
    if verdicts.models.len() > 1 {
        let models = verdicts.models.len();
        out.push(format!("the verdicts were made by {models} different models, so the figures are of none of them"));
    }
    if verdicts.erased > 0 {
        let what = plural(verdicts.erased as usize, "record");
        out.push(format!(
            "{what} of the logs were erased, and are not judged: figures without them may be better or worse"
        ));
    }
    if verdicts.not_a_number > 0 {
        let what = plural(verdicts.not_a_number as usize, "verdict");
        out.push(format!("{what} without a score (a feature was null or not finite), counted as no alarm"));
    }
    out
}

impl Report {
    pub fn new(
        pipeline: &Pipeline,
        step: &str,
        scored: &[Scored<'_>],
        verdicts: &Verdicts,
        warnings: Vec<String>,
    ) -> Self {
        let mut all = Line { name: "all".into(), confusion: Confusion::default(), without_verdict: 0 };
        let mut experiments = Vec::with_capacity(scored.len());
        for s in scored {
            all.confusion.merge(&s.confusion);
            all.without_verdict += s.without_verdict;
            let (confusion, without_verdict) = (s.confusion, s.without_verdict);
            experiments.push(Line { name: s.device.to_owned(), confusion, without_verdict });
        }
        Self {
            pipeline: pipeline.name.value.clone(),
            step: step.to_owned(),
            config_hash: hex(&pipeline.config_hash()),
            models: verdicts.models.iter().map(|m| hex(m)).collect(),
            lanes: verdicts.lanes.clone(),
            in_memory: verdicts.in_memory,
            verdicts: verdicts.count,
            experiments,
            all,
            warnings,
        }
    }

    /// The tables.
    pub fn text(&self) -> String {
        let all = &self.all.confusion;
        let lanes: Vec<String> = self.lanes.iter().map(i32::to_string).collect();
        let from = match self.in_memory {
            true => "of the engine over the files, in memory".to_owned(),
            false => format!("in the logs of {} {}", if lanes.len() == 1 { "lane" } else { "lanes" }, lanes.join(", ")),
        };
        let mut out = format!(
            "{}, step {}, on SKAB: {} rows of {} judged (the first {TRAIN_ROWS} rows of each train)\n\
             {} verdicts {}\nmodel       {}\nconfigHash  {}\n\n",
            self.pipeline,
            self.step,
            all.rows(),
            plural(self.experiments.len(), "experiment"),
            self.verdicts,
            from,
            self.models.join(", "),
            self.config_hash,
        );
        let width = self.experiments.iter().map(|l| l.name.len()).max().unwrap_or(0).max("experiment".len());
        // Writing into a String cannot fail.
        let _ = writeln!(
            out,
            "{:<width$}  {:>6} {:>6} {:>6} {:>6} {:>6}  {:>5}  {:>5}  {:>5}  {:>10}",
            "experiment", "rows", "TP", "FP", "FN", "TN", "F1", "FAR %", "MAR %", "no verdict"
        );
        for line in self.experiments.iter().chain([&self.all]) {
            let c = &line.confusion;
            let _ = writeln!(
                out,
                "{:<width$}  {:>6} {:>6} {:>6} {:>6} {:>6}  {:>5}  {:>5}  {:>5}  {:>10}",
                line.name,
                c.rows(),
                c.true_positives,
                c.false_positives,
                c.false_negatives,
                c.true_negatives,
                figure(c.f1(), 3),
                figure(100.0 * c.false_alarm_rate(), 1),
                figure(100.0 * c.missed_alarm_rate(), 1),
                line.without_verdict,
            );
        }
        out.push_str("\nA row without a verdict (too few readings in its window, or a window not closed yet) counts as no alarm.\n\n");
        let _ = writeln!(out, "{:<17}  {:>5}  {:>5}  {:>5}", "", "F1", "FAR %", "MAR %");
        let mut row = |name: &str, f1: String, far: f64, mar: f64, remark: &str| {
            let line = format!("{name:<17}  {f1:>5}  {:>5}  {:>5}  {remark}", figure(far, 1), figure(mar, 1));
            out.push_str(line.trim_end());
            out.push('\n');
        };
        row(
            "this pipeline",
            figure(all.f1(), 3),
            100.0 * all.false_alarm_rate(),
            100.0 * all.missed_alarm_rate(),
            "the rows above",
        );
        let always = always(all);
        row(
            "always an alarm",
            figure(always.f1(), 3),
            100.0 * always.false_alarm_rate(),
            100.0 * always.missed_alarm_rate(),
            "the rows above",
        );
        for (name, f1, far, mar) in PUBLISHED {
            row(name, figure(f1, 2), far, mar, "published, over the whole benchmark");
        }
        for warning in &self.warnings {
            let _ = write!(out, "\nwarning: {warning}");
        }
        if !self.warnings.is_empty() {
            out.push('\n');
        }
        out
    }

    /// The same for machines. Rates are 0 to 1; one that has nothing to divide by is null.
    pub fn json(&self) -> Value {
        let line = |l: &Line| {
            let c = &l.confusion;
            json!({
                "rows": c.rows(),
                "rows_without_verdict": l.without_verdict,
                "true_positives": c.true_positives,
                "false_positives": c.false_positives,
                "false_negatives": c.false_negatives,
                "true_negatives": c.true_negatives,
                "f1": c.f1(),
                "false_alarm_rate": c.false_alarm_rate(),
                "missed_alarm_rate": c.missed_alarm_rate(),
            })
        };
        let experiments: serde_json::Map<String, Value> =
            self.experiments.iter().map(|l| (l.name.clone(), line(l))).collect();
        let published: Vec<Value> = PUBLISHED
            .iter()
            .map(|(name, f1, far, mar)| {
                json!({ "name": name, "f1": f1, "false_alarm_rate": far / 100.0, "missed_alarm_rate": mar / 100.0 })
            })
            .collect();
        json!({
            "benchmark": "skab",
            "pipeline": self.pipeline,
            "step": self.step,
            "config_hash": self.config_hash,
            "models": self.models,
            "lanes": self.lanes,
            "in_memory": self.in_memory,
            "verdicts": self.verdicts,
            "training_rows": TRAIN_ROWS,
            "all": line(&self.all),
            "experiments": experiments,
            "published": published,
            "warnings": self.warnings,
        })
    }
}

/// What calling every row an alarm would give: F1 alone says little where most rows are anomalous.
fn always(c: &Confusion) -> Confusion {
    Confusion {
        true_positives: c.true_positives + c.false_negatives,
        false_positives: c.false_positives + c.true_negatives,
        ..Confusion::default()
    }
}

fn figure(x: f64, digits: usize) -> String {
    if x.is_nan() { "–".into() } else { format!("{x:.digits$}") }
}

/// Writes `<dir>/<experiment>.csv`, the judged rows in file order: datetime, score, p_value, alarm, anomaly. Score and
/// p-value are empty where there is no verdict or no number; both are written so that they read back the same.
pub(super) fn write_scores(dir: &Path, scored: &Scored<'_>) -> Result<(), EvaluateError> {
    let path = dir.join(format!("{}.csv", scored.device));
    let io = |source| EvaluateError::Io { path: path.clone(), source };
    let number = |x: Option<f64>| x.filter(|x| !x.is_nan()).map_or(String::new(), |x| x.to_string());
    let mut text = String::from("datetime,score,p_value,alarm,anomaly\n");
    for row in &scored.rows {
        let score = number(row.verdict.map(|v| v.score));
        let p_value = number(row.verdict.map(|v| v.p_value));
        let (alarm, anomaly) = (u8::from(row.alarm()), u8::from(row.label.anomaly));
        // Writing into a String cannot fail; a time has no comma and no quote.
        let _ = writeln!(text, "{},{score},{p_value},{alarm},{anomaly}", row.label.datetime);
    }
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent).map_err(io)?;
    }
    std::fs::write(&path, text).map_err(io)
}
