//! Figures: tables for people, JSON for machines, scores for others to score.

use std::fmt::Write as _;
use std::path::Path;

use avouch_models::ranking::{average_precision, roc_auc};
use serde_json::{Value, json};

use super::channels::Channel;
use super::judged::Run;
use crate::commands::evaluate::EvaluateError;
use crate::commands::evaluate::verdicts::Judged;
use crate::lang::hex;

/// By others on these 57 channels, without point adjustment, as the data set's page reports it: name, AUC-ROC, AP.
const KNOWN: [(&str, f64, f64); 1] = [("streaming views", 0.699, 0.389)];

/// The figures of one evaluation.
#[derive(Debug)]
pub(in crate::commands::evaluate) struct Report {
    pipeline: String,
    step: String,
    config_hash: String,
    model: String,
    model_bytes: usize,
    channels: Vec<Line>,
}

#[derive(Debug)]
struct Line {
    spacecraft: String,
    name: String,
    rows: usize,
    anomalous: usize,
    without_verdict: usize,
    alarms: usize,
    auc: Option<f64>,
    ap: Option<f64>,
}

/// A row without a verdict is less strange than any with one.
fn ranked(rows: &[Option<Judged>]) -> Vec<f64> {
    rows.iter().map(|said| said.map_or(f64::NEG_INFINITY, |s| s.score)).collect()
}

impl Report {
    pub(super) fn new(channels: &[Channel], run: &Run) -> Result<Self, EvaluateError> {
        let lines = channels
            .iter()
            .zip(&run.rows)
            .map(|(c, rows)| {
                let scores = ranked(rows);
                Line {
                    spacecraft: c.spacecraft.clone(),
                    name: c.name.clone(),
                    rows: rows.len(),
                    anomalous: c.anomaly.iter().filter(|a| **a).count(),
                    without_verdict: rows.iter().filter(|r| r.is_none()).count(),
                    alarms: rows.iter().flatten().filter(|s| s.alarm).count(),
                    auc: roc_auc(&scores, &c.anomaly),
                    ap: average_precision(&scores, &c.anomaly),
                }
            })
            .collect();
        Ok(Self {
            pipeline: run.pipeline.clone(),
            step: run.step.clone(),
            config_hash: hex(&run.config_hash),
            model: hex(&run.model),
            model_bytes: run.model_bytes,
            channels: lines,
        })
    }

    /// Spacecraft in the order of the channels.
    fn spacecraft(&self) -> Vec<&str> {
        let mut out: Vec<&str> = Vec::new();
        for line in &self.channels {
            if !out.contains(&line.spacecraft.as_str()) {
                out.push(&line.spacecraft);
            }
        }
        out
    }

    /// Of each spacecraft the channel with the best AUC, the one in the middle and the worst.
    pub fn examples(&self) -> Vec<usize> {
        let mut out = Vec::new();
        for spacecraft in self.spacecraft() {
            let mut of: Vec<(f64, usize)> = self
                .channels
                .iter()
                .enumerate()
                .filter(|(_, l)| l.spacecraft == spacecraft)
                .filter_map(|(i, l)| Some((l.auc?, i)))
                .collect();
            of.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
            let at = [of.len().checked_sub(1), Some(of.len() / 2), Some(0)];
            for (_, i) in at.into_iter().flatten().filter_map(|at| of.get(at)) {
                if !out.contains(i) {
                    out.push(*i);
                }
            }
        }
        out
    }

    /// The tables.
    pub fn text(&self) -> String {
        let mut out = format!(
            "{}, step {}, on {}: {} channels, one detector each; no point adjustment\nmodel       {} ({} bytes)\nconfigHash  {}\n\n",
            self.pipeline,
            self.step,
            self.spacecraft().join(" and "),
            self.channels.len(),
            self.model,
            self.model_bytes,
            self.config_hash,
        );
        // Writing into a String cannot fail.
        let _ = writeln!(
            out,
            "{:<10}  {:>6} {:>9} {:>10} {:>7}  {:>7}  {:>5}",
            "channel", "rows", "anomalous", "no verdict", "alarms", "AUC-ROC", "AP"
        );
        for l in &self.channels {
            let _ = writeln!(
                out,
                "{:<10}  {:>6} {:>9} {:>10} {:>7}  {:>7}  {:>5}",
                l.name,
                l.rows,
                l.anomalous,
                l.without_verdict,
                l.alarms,
                figure(l.auc),
                figure(l.ap)
            );
        }
        out.push_str("\nMeans over channels. A row without a verdict (a window with too few readings) ranks below all others.\n\n");
        let _ = writeln!(out, "{:<32}  {:>8}  {:>7}  {:>5}", "", "channels", "AUC-ROC", "AP");
        let mut row = |name: &str, n: usize, auc: Option<f64>, ap: Option<f64>, remark: &str| {
            let line = format!("{name:<32}  {n:>8}  {:>7}  {:>5}  {remark}", figure(auc), figure(ap));
            out.push_str(line.trim_end());
            out.push('\n');
        };
        let means = self.means(None);
        row("this pipeline", means.channels, means.auc, means.ap, "");
        for spacecraft in self.spacecraft() {
            let m = self.means(Some(spacecraft));
            row(&format!("  {spacecraft} alone"), m.channels, m.auc, m.ap, "");
        }
        row("a score that says nothing", means.channels, Some(0.5), means.share, "AP: the share of anomalous rows");
        for (name, auc, ap) in KNOWN {
            row(name, 57, Some(auc), Some(ap), "measured on these channels");
        }
        let (alarms, rows) = self.channels.iter().fold((0, 0), |(f, n), l| (f + l.alarms, n + l.rows));
        let _ = writeln!(
            out,
            "\n{alarms} of {rows} rows are alarms by the pipeline's own thresholds; {} are labelled.",
            self.channels.iter().map(|l| l.anomalous).sum::<usize>()
        );
        out
    }

    /// The same as one object.
    pub fn json(&self) -> Value {
        let means = |m: Means| json!({ "channels": m.channels, "auc_roc": m.auc, "average_precision": m.ap });
        let spacecraft: serde_json::Map<String, Value> =
            self.spacecraft().into_iter().map(|s| (s.to_owned(), means(self.means(Some(s))))).collect();
        let channels: Vec<Value> = self
            .channels
            .iter()
            .map(|l| {
                json!({
                    "channel": l.name, "rows": l.rows, "anomalous": l.anomalous, "without_verdict": l.without_verdict,
                    "alarms": l.alarms, "auc_roc": l.auc, "average_precision": l.ap,
                })
            })
            .collect();
        let known: Vec<Value> = KNOWN
            .iter()
            .map(|(name, auc, ap)| json!({ "name": name, "auc_roc": auc, "average_precision": ap }))
            .collect();
        json!({
            "benchmark": "smap", "point_adjustment": false, "pipeline": self.pipeline, "step": self.step,
            "config_hash": self.config_hash, "model": self.model, "model_bytes": self.model_bytes,
            "all": means(self.means(None)), "spacecraft": spacecraft, "channels": channels, "known": known,
        })
    }

    fn means(&self, spacecraft: Option<&str>) -> Means {
        let of: Vec<&Line> = self
            .channels
            .iter()
            .filter(|l| spacecraft.is_none_or(|s| l.spacecraft == s))
            .filter(|l| l.auc.is_some() && l.ap.is_some())
            .collect();
        let mean =
            |f: fn(&Line) -> f64| (!of.is_empty()).then(|| of.iter().map(|l| f(l)).sum::<f64>() / of.len() as f64);
        Means {
            channels: of.len(),
            auc: mean(|l| l.auc.unwrap_or_default()),
            ap: mean(|l| l.ap.unwrap_or_default()),
            share: mean(|l| l.anomalous as f64 / l.rows as f64),
        }
    }
}

/// Over the channels that have both kinds of rows.
struct Means {
    channels: usize,
    auc: Option<f64>,
    ap: Option<f64>,
    share: Option<f64>,
}

fn figure(v: Option<f64>) -> String {
    v.map_or("-".into(), |v| format!("{v:.3}"))
}

/// A CSV file for each channel: `<dir>/SMAP/A-1.csv`.
pub(super) fn write_scores(dir: &Path, channels: &[Channel], run: &Run) -> Result<(), EvaluateError> {
    for (c, rows) in channels.iter().zip(&run.rows) {
        let path = dir.join(format!("{}.csv", c.name));
        let io = |source| EvaluateError::Io { path: path.clone(), source };
        let mut text = String::from("row,value,score,p_value,alarm,anomaly\n");
        for (i, ((value, said), anomaly)) in c.test.iter().zip(rows).zip(&c.anomaly).enumerate() {
            let (score, p_value) =
                said.map_or((String::new(), String::new()), |s| (s.score.to_string(), s.p_value.to_string()));
            let alarm = u8::from(said.is_some_and(|s| s.alarm));
            let _ = writeln!(text, "{i},{value},{score},{p_value},{alarm},{}", u8::from(*anomaly));
        }
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent).map_err(io)?;
        }
        std::fs::write(&path, text).map_err(io)?;
    }
    Ok(())
}
