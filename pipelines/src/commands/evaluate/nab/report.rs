//! The figures beside the published ones, and the scores as a file.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use avouch_models::nab::{Alarms, Profile, Series, best_threshold, points};
use serde_json::{Value, json};

use super::super::EvaluateError;
use super::Scored;
use crate::lang::{Pipeline, hex, plural};

/// Best-threshold scores, standard profile, of the detectors' own published outputs on the 41 files that are freely
/// redistributable.
const PUBLISHED: [(&str, f64); 11] = [
    ("ARTime", 73.7),
    ("Numenta HTM", 67.9),
    ("CAD OSE", 64.9),
    ("HTM Java", 62.7),
    ("Relative Entropy", 54.5),
    ("earthgecko Skyline", 54.3),
    ("kNN-CAD", 51.3),
    ("Random Cut Forest", 44.8),
    ("Twitter ADVec", 41.6),
    ("windowed Gaussian", 35.2),
    ("Bayesian change point", 13.1),
];

/// How many files and rows the published figures are over.
const PUBLISHED_FILES: usize = 41;

/// The figures of one evaluation.
#[derive(Debug)]
pub(in crate::commands::evaluate) struct Report {
    pipeline: String,
    step: String,
    config_hash: String,
    model: String,
    verdicts: u64,
    files: usize,
    rows: usize,
    /// Best threshold of each profile over all files.
    thresholds: [f64; 3],
    /// By folder: files, and what they come to at the thresholds of all.
    folders: Vec<(String, usize, [Alarms; 3])>,
    all: [Alarms; 3],
    /// At the pipeline's own decisions, standard profile.
    decided: Alarms,
    warnings: Vec<String>,
}

fn at(files: &[&Scored], thresholds: [f64; 3]) -> [Alarms; 3] {
    let series: Vec<Series<'_>> = files.iter().map(|s| series(s)).collect();
    let mut out = [Alarms::default(); 3];
    for ((out, profile), threshold) in out.iter_mut().zip(&Profile::ALL).zip(thresholds) {
        *out = points(&series, threshold, profile);
    }
    out
}

fn series(s: &Scored) -> Series<'_> {
    Series { scores: &s.scores, windows: &s.file.windows }
}

impl Report {
    pub(super) fn new(
        pipeline: &Pipeline,
        step: &str,
        model: String,
        verdicts: u64,
        scored: &[Scored],
        warnings: Vec<String>,
    ) -> Self {
        let every: Vec<Series<'_>> = scored.iter().map(series).collect();
        let thresholds = Profile::ALL.map(|p| best_threshold(&every, &p));
        let mut folders: BTreeMap<&str, Vec<&Scored>> = BTreeMap::new();
        for s in scored {
            folders.entry(s.file.name.split('/').next().unwrap_or_default()).or_default().push(s);
        }
        let own: Vec<Vec<f64>> =
            scored.iter().map(|s| s.alarms.iter().map(|a| f64::from(u8::from(*a))).collect()).collect();
        let decided: Vec<Series<'_>> =
            scored.iter().zip(&own).map(|(s, own)| Series { scores: own, windows: &s.file.windows }).collect();
        Self {
            pipeline: pipeline.name.value.clone(),
            step: step.to_owned(),
            config_hash: hex(&pipeline.config_hash()),
            model,
            verdicts,
            files: scored.len(),
            rows: scored.iter().map(|s| s.scores.len()).sum(),
            thresholds,
            folders: folders.iter().map(|(name, s)| ((*name).to_owned(), s.len(), at(s, thresholds))).collect(),
            all: at(&scored.iter().collect::<Vec<_>>(), thresholds),
            decided: points(&decided, 1.0, &Profile::STANDARD),
            warnings,
        }
    }

    /// The best threshold of the standard profile.
    pub(super) fn threshold(&self) -> f64 {
        self.thresholds[0]
    }

    /// The tables.
    pub fn text(&self) -> String {
        let mut out = format!(
            "{}, step {}, on the Numenta Anomaly Benchmark: {} in {}, {} verdicts\nmodel       {}\nconfigHash  {}\n\n",
            self.pipeline,
            self.step,
            plural(self.rows, "row"),
            plural(self.files, "file"),
            self.verdicts,
            self.model,
            self.config_hash,
        );
        // Writing into a String cannot fail.
        let _ = writeln!(
            out,
            "{:<22}  {:>5} {:>7} {:>5} {:>12}  {:>8} {:>13} {:>13}",
            "folder", "files", "windows", "hit", "false alarms", "standard", "reward low FP", "reward low FN"
        );
        let all = ("all".to_owned(), self.files, self.all);
        for (name, files, a) in self.folders.iter().chain([&all]) {
            let _ = writeln!(
                out,
                "{name:<22}  {files:>5} {:>7} {:>5} {:>12}  {:>8} {:>13} {:>13}",
                a[0].hits + a[0].misses,
                a[0].hits,
                a[0].false_alarms,
                figure(a[0].points),
                figure(a[1].points),
                figure(a[2].points),
            );
        }
        let [standard, low_fp, low_fn] = self.thresholds;
        let _ = writeln!(
            out,
            "\nOne threshold for all files and rows, the best of each profile, as the benchmark has it: score {standard:.3}, \
             {low_fp:.3}, {low_fn:.3}.\nWindows and false alarms are at the first of them. At the pipeline's own decisions \
             (a warning or worse): {} of {} windows, {}, {} points, standard.\n",
            self.decided.hits,
            self.decided.hits + self.decided.misses,
            plural(self.decided.false_alarms as usize, "false alarm"),
            figure(self.decided.points),
        );
        let _ = writeln!(out, "{:<22}  {:>8}", "", "standard");
        let _ = writeln!(out, "{:<22}  {:>8}", "this pipeline", figure(self.all[0].points));
        for (name, score) in PUBLISHED {
            let _ = writeln!(out, "{name:<22}  {score:>8.1}  from its published output, on 41 files");
        }
        if self.files != PUBLISHED_FILES {
            let _ = writeln!(out, "\nThe published figures are over {PUBLISHED_FILES} files; here are {}.", self.files);
        }
        for warning in &self.warnings {
            let _ = write!(out, "\nwarning: {warning}");
        }
        if !self.warnings.is_empty() {
            out.push('\n');
        }
        out
    }

    /// The same for machines. Where there is nothing to divide by, points are null.
    pub fn json(&self) -> Value {
        let profiles = |a: &[Alarms; 3]| {
            let one = |p: &Profile, a: &Alarms| {
                let figures = json!({
                    "points": a.points, "windows_hit": a.hits, "windows_missed": a.misses,
                    "false_alarms": a.false_alarms, "raw": a.raw,
                });
                (p.name.to_owned(), figures)
            };
            Value::Object(Profile::ALL.iter().zip(a).map(|(p, a)| one(p, a)).collect())
        };
        let folders: serde_json::Map<String, Value> = self
            .folders
            .iter()
            .map(|(name, files, a)| (name.clone(), json!({ "files": files, "profiles": profiles(a) })))
            .collect();
        let thresholds: serde_json::Map<String, Value> =
            Profile::ALL.iter().zip(self.thresholds).map(|(p, t)| (p.name.to_owned(), json!(t))).collect();
        let published: Vec<Value> =
            PUBLISHED.iter().map(|(name, score)| json!({ "name": name, "standard": score })).collect();
        json!({
            "benchmark": "nab",
            "pipeline": self.pipeline,
            "step": self.step,
            "config_hash": self.config_hash,
            "model": self.model,
            "files": self.files,
            "rows": self.rows,
            "verdicts": self.verdicts,
            "thresholds": thresholds,
            "all": profiles(&self.all),
            "folders": folders,
            "at_own_decisions": {
                "points": self.decided.points, "windows_hit": self.decided.hits,
                "windows_missed": self.decided.misses, "false_alarms": self.decided.false_alarms,
            },
            "published": published,
            "warnings": self.warnings,
        })
    }
}

fn figure(x: f64) -> String {
    if x.is_nan() { "–".into() } else { format!("{x:.1}") }
}

/// Writes `<dir>/<folder>/avouch_<series>.csv`. The benchmark's tools take scores from 0 to 1, so s becomes s/(1+s); a row
/// without a verdict has 0.
pub(super) fn write_scores(dir: &Path, scored: &Scored) -> Result<(), EvaluateError> {
    let file = &scored.file;
    let (folder, series) = file.name.split_once('/').unwrap_or(("", &file.name));
    let path = dir.join(folder).join(format!("avouch_{series}.csv"));
    let io = |source| EvaluateError::Io { path: path.clone(), source };
    let mut text = String::from("timestamp,value,anomaly_score,label\n");
    for (i, ((time, value), score)) in file.timestamps.iter().zip(&file.values).zip(&scored.scores).enumerate() {
        let score = if score.is_nan() { 0.0 } else { score / (1.0 + score) };
        let label = u8::from(file.windows.iter().any(|w| (w.0..=w.1).contains(&i)));
        let _ = writeln!(text, "{time},{value},{score},{label}");
    }
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent).map_err(io)?;
    }
    std::fs::write(&path, text).map_err(io)
}
