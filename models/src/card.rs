//! The model card: what a reader must know to judge a model, inside the model file and so under its hash.

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

use crate::calibrate::{Calibration, Tail};
use crate::config::{AlgorithmConfig, SplitConfig};
use crate::frame::FeatureProfile;

/// The card. Field order is the order in JSON; there are no maps, so the same model has the same text.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelCard {
    /// The algorithm in words, with its papers.
    pub model: String,
    /// Creation time as given to training, not the clock.
    pub created: String,
    /// The pipeline's name.
    pub pipeline: String,
    /// SHA-256 of the canonical pipeline file, hexadecimal.
    pub pipeline_digest: String,
    /// The model step's name.
    pub step: String,
    /// Features in the order the model takes them.
    pub features: Vec<String>,
    /// Algorithm kind and hyper-parameters as configured.
    pub algorithm: AlgorithmConfig,
    /// Seed of the algorithm.
    pub seed: u64,
    /// What was held back.
    pub split: SplitConfig,
    /// The training data.
    pub training: TrainingCard,
    /// What training chose, name and value.
    pub fitted: Vec<Fitted>,
    /// How the model does on the held-back rows, and how its scores become p-values: one entry per baseline.
    pub calibration: Vec<CalibrationCard>,
    /// Of a model that predicts a label: how it does on the held-back rows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prognosis: Option<crate::prognosis::PrognosisCard>,
    /// Libraries the model was trained with.
    pub libraries: Vec<Library>,
}

/// The training data in the card.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainingCard {
    /// Where the rows came from, as given.
    pub data: String,
    /// SHA-256 over the rows used (see [`crate::frame::TrainingFrame::digest`]), hexadecimal.
    pub digest: String,
    /// Rows used: fitted on and held back together.
    pub rows: u64,
    /// Rows given but not used, because a feature was null or not finite.
    pub rows_dropped: u64,
    /// Rows fitted on.
    pub rows_fitted: u64,
    /// Rows held back.
    pub rows_held_back: u64,
    /// Devices with at least one row used.
    pub devices: u64,
    /// Earliest window end used, milliseconds since the epoch.
    pub first_window_end: i64,
    /// Latest window end used, milliseconds since the epoch.
    pub last_window_end: i64,
    /// What the features looked like, over the rows given.
    pub profile: Vec<FeatureProfile>,
}

/// One value that training chose.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fitted {
    /// What it is.
    pub name: String,
    /// Its value or values.
    pub value: Vec<f64>,
}

/// Calibration in the card.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CalibrationCard {
    /// Which devices it is for.
    pub applies_to: String,
    /// Held-back rows it rests on.
    pub rows: u64,
    /// Smallest held-back score whose p-value is at most 0.05; none if only scores beyond the largest reach it.
    pub score_at_5_percent: Option<f64>,
    /// The same at 0.01.
    pub score_at_1_percent: Option<f64>,
    /// The same at 0.001.
    pub score_at_1_permille: Option<f64>,
    /// Median of the held-back scores.
    pub median_score: f64,
    /// Largest held-back score; beyond it p-values are extrapolated.
    pub largest_score: f64,
    /// The fitted tail.
    pub tail: Option<Tail>,
    /// The smallest p-value it gives.
    pub smallest_p_value: f64,
    /// Drift: share of the second half of the held-back rows that a calibration on the first half would call at 0.05.
    /// Near 0.05 if the data are stable. None below 40 held-back rows.
    pub second_half_at_5_percent: Option<f64>,
    /// The same at 0.01. None below 200 held-back rows.
    pub second_half_at_1_percent: Option<f64>,
}

/// A library and its version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Library {
    /// Crate name.
    pub name: String,
    /// Version it was compiled with.
    pub version: String,
}

impl CalibrationCard {
    /// Describes `calibration`, made of `scores` in the order of device and time; `halves` are the same scores as
    /// the first and second half of what is held back.
    pub(crate) fn of(applies_to: &str, calibration: &Calibration, scores: &[f64], halves: (&[f64], &[f64])) -> Self {
        let mut sorted = scores.to_vec();
        sorted.sort_by(f64::total_cmp);
        let second_half = |p: f64, rows: usize| {
            if halves.0.len() + halves.1.len() < rows || halves.1.is_empty() {
                return None;
            }
            let first = Calibration::of(halves.0).ok()?;
            let called = halves.1.iter().filter(|s| first.p_value(**s) <= p).count();
            Some(called as f64 / halves.1.len() as f64)
        };
        Self {
            applies_to: applies_to.to_owned(),
            rows: calibration.rows(),
            score_at_5_percent: calibration.score_at(0.05),
            score_at_1_percent: calibration.score_at(0.01),
            score_at_1_permille: calibration.score_at(0.001),
            median_score: sorted[(sorted.len() - 1) / 2],
            largest_score: sorted[sorted.len() - 1],
            tail: calibration.tail(),
            smallest_p_value: calibration.smallest_p_value(),
            second_half_at_5_percent: second_half(0.05, 40),
            second_half_at_1_percent: second_half(0.01, 200),
        }
    }
}

impl ModelCard {
    /// The card as JSON, the same text for the same card.
    pub fn to_json(&self) -> String {
        // Serialising plain structs with finite numbers and string keys cannot fail.
        serde_json::to_string_pretty(self).unwrap_or_default()
    }

    /// The card for a reader.
    pub fn to_markdown(&self) -> String {
        let mut s = String::new();
        self.write_markdown(&mut s);
        s
    }

    fn write_markdown(&self, s: &mut String) {
        // Writing to a String cannot fail, so the results are dropped.
        let _ = writeln!(s, "# Model card: {} / {}\n", self.pipeline, self.step);
        let _ = writeln!(s, "{}\n", self.model);
        let _ = writeln!(s, "| | |\n| --- | --- |");
        let mut row = |name: &str, value: String| {
            let _ = writeln!(s, "| {name} | {value} |");
        };
        row("created", self.created.clone());
        row("pipeline digest", format!("`{}`", self.pipeline_digest));
        row("features, in order", self.features.iter().map(|f| format!("`{f}`")).collect::<Vec<_>>().join(", "));
        row("algorithm", format!("`{}`", json_line(&self.algorithm)));
        row("seed", self.seed.to_string());
        row("split", format!("`{}`", json_line(&self.split)));
        let t = &self.training;
        row("training data", format!("`{}`", t.data));
        row("training digest", format!("`{}`", t.digest));
        row(
            "rows",
            format!(
                "{} of {} devices: {} fitted on, {} held back; {} given but dropped (null or not finite)",
                t.rows, t.devices, t.rows_fitted, t.rows_held_back, t.rows_dropped
            ),
        );
        row("window ends", format!("{} to {} (ms since the epoch)", t.first_window_end, t.last_window_end));
        for f in &self.fitted {
            let values: Vec<String> = f.value.iter().map(|v| short(*v)).collect();
            row(&f.name, values.join(", "));
        }
        row(
            "libraries",
            self.libraries.iter().map(|l| format!("{} {}", l.name, l.version)).collect::<Vec<_>>().join(", "),
        );
        let _ = writeln!(s, "\n## Features in the training rows\n");
        let _ = writeln!(s, "| feature | rows | missing | min | mean | max | deviation |");
        let _ = writeln!(s, "| --- | ---: | ---: | ---: | ---: | ---: | ---: |");
        for p in &t.profile {
            let _ = writeln!(
                s,
                "| `{}` | {} | {} | {} | {} | {} | {} |",
                p.feature,
                p.rows,
                p.missing,
                short(p.min),
                short(p.mean),
                short(p.max),
                short(p.deviation)
            );
        }
        if let Some(prognosis) = &self.prognosis {
            prognosis.write_markdown(s);
            return;
        }
        let _ = writeln!(s, "\n## Calibration on the held-back rows\n");
        let _ = writeln!(
            s,
            "A p-value is the share of healthy windows expected to score at least as high. \"Second half\" is the \
             share of the later held-back rows called by a calibration on the earlier ones: well above its p-value, \
             the machine drifts.\n"
        );
        for c in &self.calibration {
            let _ = writeln!(s, "### {}\n\n| | |\n| --- | --- |", c.applies_to);
            let mut row = |name: &str, value: String| {
                let _ = writeln!(s, "| {name} | {value} |");
            };
            let or_none = |v: Option<f64>| v.map_or("too few rows".to_owned(), short);
            let or_beyond = |v: Option<f64>| v.map_or("beyond the largest".to_owned(), short);
            row("held-back rows", c.rows.to_string());
            row("score at p = 0.05", or_beyond(c.score_at_5_percent));
            row("score at p = 0.01", or_beyond(c.score_at_1_percent));
            row("score at p = 0.001", or_beyond(c.score_at_1_permille));
            row("median, largest score", format!("{}, {}", short(c.median_score), short(c.largest_score)));
            row(
                "tail beyond the largest",
                c.tail.map_or("none: too few rows".to_owned(), |t| {
                    format!("generalised Pareto, shape {}, scale {}", short(t.shape), short(t.scale))
                }),
            );
            row("smallest p-value", short(c.smallest_p_value));
            row("second half called at 0.05", or_none(c.second_half_at_5_percent));
            row("second half called at 0.01", or_none(c.second_half_at_1_percent));
            let _ = writeln!(s);
        }
    }
}

fn json_line<T: Serialize>(value: &T) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

/// Four significant digits, for readers; the JSON has them all.
pub(crate) fn short(v: f64) -> String {
    let magnitude = v.abs();
    if v == v.trunc() && magnitude < 1e15 {
        return format!("{v}");
    }
    if (1e-3..1e6).contains(&magnitude) {
        let digits = if magnitude >= 1000.0 {
            0
        } else if magnitude >= 100.0 {
            1
        } else if magnitude >= 10.0 {
            2
        } else if magnitude >= 1.0 {
            3
        } else {
            5
        };
        format!("{v:.digits$}")
    } else {
        format!("{v:.3e}")
    }
}

/// Lower-case hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut s, b| {
        let _ = write!(s, "{b:02x}");
        s
    })
}

/// The workspace's lock file: what was compiled, and nothing else.
const LOCK: &str = include_str!("../../Cargo.lock");

/// The libraries whose code a model's numbers pass through, with the versions compiled.
pub(crate) fn libraries() -> Vec<Library> {
    let mut out = vec![Library { name: "avouch-models".to_owned(), version: env!("CARGO_PKG_VERSION").to_owned() }];
    for name in ["linfa", "ndarray", "polars", "arrow", "libm", "rand_chacha"] {
        if let Some(version) = locked_version(LOCK, "avouch-models", name) {
            out.push(Library { name: name.to_owned(), version: version.to_owned() });
        }
    }
    out
}

/// One more of them.
pub(crate) fn library(name: &str) -> Option<Library> {
    let version = locked_version(LOCK, "avouch-models", name)?;
    Some(Library { name: name.to_owned(), version: version.to_owned() })
}

/// The value of `key = "value"` in a package's entry.
fn field<'a>(package: &'a str, key: &str) -> Option<&'a str> {
    package.lines().find_map(|l| l.strip_prefix(key)?.strip_prefix(" = \"")?.strip_suffix('"'))
}

/// The version of `name` that package `of` depends on. A lock file names the version in the dependency only where
/// there are several.
fn locked_version<'a>(lock: &'a str, of: &str, name: &str) -> Option<&'a str> {
    let packages = || lock.split("[[package]]");
    let dependency = packages()
        .find(|p| field(p, "name") == Some(of))?
        .lines()
        .map(|l| l.trim().trim_end_matches(',').trim_matches('"'))
        .find(|d| d.split(' ').next() == Some(name))?;
    match dependency.split(' ').nth(1) {
        Some(version) => Some(version),
        None => packages().find(|p| field(p, "name") == Some(name)).and_then(|p| field(p, "version")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_come_from_the_lock_file() {
        let names: Vec<String> = libraries().into_iter().map(|l| l.name).collect();
        assert_eq!(names, ["avouch-models", "linfa", "ndarray", "polars", "arrow", "libm", "rand_chacha"]);
        let lock = "[[package]]\nname = \"a\"\nversion = \"1.0.0\"\ndependencies = [\n \"b\",\n \"c 0.3.1\",\n]\n\n\
                    [[package]]\nname = \"b\"\nversion = \"2.0.0\"\n\n[[package]]\nname = \"c\"\nversion = \"9.9.9\"\n";
        assert_eq!(locked_version(lock, "a", "b"), Some("2.0.0"));
        assert_eq!(locked_version(lock, "a", "c"), Some("0.3.1"));
        assert_eq!(locked_version(lock, "a", "d"), None);
    }
}
