//! Two pipelines over the same files: where they agree, and why they do not.

use std::cmp::Ordering;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use avouch_engine::model::Score;
use avouch_engine::spec::DecideSpec;
use avouch_engine::verdict::Severity;
use serde::Serialize;

use super::BacktestError;
use super::figures::{number, round, timestamp};
use super::judged::{Judged, Part, Side};

/// So many stand in the page and in report.json; differences.ndjson has all.
const LISTED: usize = 50;

/// So many features of a difference are named.
const FEATURES: usize = 5;

/// Agreement of two pipelines. "Here" is the pipeline that is tested, "there" the one it is held against.
#[derive(Debug, Default, Serialize)]
pub(in crate::commands) struct Comparison {
    /// Windows judged by both: rows are severities here, columns there, mildest first.
    pub table: [[u64; 3]; 3],
    /// Verdicts by severity about windows that only this pipeline judged.
    pub only_here: [u64; 3],
    /// And only the other.
    pub only_there: [u64; 3],
    /// Windows judged by both with the same severity, but another score or p-value.
    pub same_severity_other_score: u64,
    /// Differences by why.
    pub why: Reasons,
    /// The first differences.
    pub first: Vec<Difference>,
}

impl Comparison {
    /// Windows judged by both.
    pub fn matched(&self) -> u64 {
        self.table.iter().flatten().sum()
    }

    /// Of these, those with the same severity.
    pub fn agreed(&self) -> u64 {
        (0..3).map(|i| self.table[i][i]).sum()
    }

    /// Lines of differences.ndjson.
    pub fn differences(&self) -> u64 {
        let Reasons { threshold, score, score_and_threshold, only_here, only_there } = self.why;
        threshold + score + score_and_threshold + only_here + only_there
    }
}

/// How many differences there are of each kind.
#[derive(Debug, Default, Serialize)]
pub(in crate::commands) struct Reasons {
    pub threshold: u64,
    pub score: u64,
    pub score_and_threshold: u64,
    pub only_here: u64,
    pub only_there: u64,
}

/// Why two verdicts about one window differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(in crate::commands) enum Why {
    /// The scores do not matter: with the same thresholds they would agree.
    Threshold,
    /// The thresholds do not matter: with the same scores they would agree.
    Score,
    /// Both are needed for it.
    ScoreAndThreshold,
    /// Only this pipeline judged the window.
    OnlyHere,
    /// Only the other did.
    OnlyThere,
}

/// One window they differ on.
#[derive(Debug, Serialize)]
pub(in crate::commands) struct Difference {
    pub step: String,
    pub device: String,
    #[serde(serialize_with = "timestamp")]
    pub window_end: i64,
    pub why: Why,
    pub here: Option<Opinion>,
    pub there: Option<Opinion>,
    /// Where scores differ: the features whose contributions differ most, these first.
    pub features: Vec<FeatureDifference>,
}

/// One side's verdict.
#[derive(Debug, Serialize)]
pub(in crate::commands) struct Opinion {
    pub severity: Severity,
    #[serde(serialize_with = "number")]
    pub score: f64,
    #[serde(serialize_with = "number")]
    pub p_value: f64,
}

/// One feature on both sides; nothing where a side does not have it, or it is not finite.
#[derive(Debug, Serialize)]
pub(in crate::commands) struct FeatureDifference {
    pub name: String,
    pub value_here: Option<f64>,
    pub value_there: Option<f64>,
    pub contribution_here: Option<f64>,
    pub contribution_there: Option<f64>,
}

/// Matches verdicts by step, device and end of window, and writes those that differ, one a line.
pub(in crate::commands) fn compare(here: &Side, there: &Side, path: &Path) -> Result<Comparison, BacktestError> {
    let failed = |source| BacktestError::Write { path: path.to_path_buf(), source };
    let mut out = BufWriter::new(File::create(path).map_err(failed)?);
    let mut comparison = Comparison::default();
    let (mut a, mut b) = (here.verdicts.iter().peekable(), there.verdicts.iter().peekable());
    loop {
        let order = match (a.peek(), b.peek()) {
            (None, None) => break,
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some(a), Some(b)) => key(here, a).cmp(&key(there, b)),
        };
        let a = if order.is_le() { a.next() } else { None };
        let b = if order.is_ge() { b.next() } else { None };
        if let Some(difference) = comparison.add((here, a), (there, b)) {
            serde_json::to_writer(&mut out, &difference).map_err(|e| failed(e.into()))?;
            out.write_all(b"\n").map_err(failed)?;
            if comparison.first.len() < LISTED {
                comparison.first.push(difference);
            }
        }
    }
    out.flush().map_err(failed)?;
    Ok(comparison)
}

fn key<'a>(side: &'a Side, v: &Judged) -> (&'a str, &'a str, i64) {
    (&side.steps[v.step as usize].name, &side.devices[v.device as usize], v.window_end)
}

impl Comparison {
    /// Counts a window that one or both judged; gives it if they differ.
    fn add(&mut self, a: (&Side, Option<&Judged>), b: (&Side, Option<&Judged>)) -> Option<Difference> {
        let (why, features) = match (a.1, b.1) {
            (Some(x), Some(y)) => {
                self.table[x.severity as usize][y.severity as usize] += 1;
                let same = same_score(x, y);
                if x.severity == y.severity {
                    self.same_severity_other_score += u64::from(!same);
                    return None;
                }
                let why = why((&a.0.step(x).decide, x), (&b.0.step(y).decide, y));
                match why {
                    Why::Threshold => self.why.threshold += 1,
                    Why::Score => self.why.score += 1,
                    _ => self.why.score_and_threshold += 1,
                }
                (why, if same { Vec::new() } else { features((a.0, x), (b.0, y)) })
            }
            (Some(x), None) => {
                self.only_here[x.severity as usize] += 1;
                self.why.only_here += 1;
                (Why::OnlyHere, Vec::new())
            }
            (None, Some(y)) => {
                self.only_there[y.severity as usize] += 1;
                self.why.only_there += 1;
                (Why::OnlyThere, Vec::new())
            }
            (None, None) => return None,
        };
        let (side, v) = if let Some(x) = a.1 { (a.0, x) } else { (b.0, b.1?) };
        let opinion = |v: &Judged| Opinion { severity: v.severity, score: v.score, p_value: v.p_value };
        Some(Difference {
            step: side.step(v).name.clone(),
            device: side.device(v).to_owned(),
            window_end: v.window_end,
            why,
            here: a.1.map(opinion),
            there: b.1.map(opinion),
            features,
        })
    }
}

/// To the bit; two scores that are both no number are the same.
fn same_score(a: &Judged, b: &Judged) -> bool {
    let same = |x: f64, y: f64| x.to_bits() == y.to_bits() || (x.is_nan() && y.is_nan());
    same(a.score, b.score) && same(a.p_value, b.p_value)
}

/// The severity that these thresholds make of a verdict, as the engine does.
fn severity(decide: &DecideSpec, v: &Judged) -> Severity {
    if v.unscored { Severity::Normal } else { decide.severity(&Score::anomaly(v.score, v.p_value)) }
}

fn why(a: (&DecideSpec, &Judged), b: (&DecideSpec, &Judged)) -> Why {
    let same_thresholds = a.0 == b.0;
    let agree_by_thresholds = severity(a.0, b.1) == a.1.severity && severity(b.0, a.1) == b.1.severity;
    let agree_by_scores = severity(a.0, b.1) == b.1.severity && severity(b.0, a.1) == a.1.severity;
    match (same_score(a.1, b.1), same_thresholds) {
        (true, _) => Why::Threshold,
        (_, true) => Why::Score,
        _ if agree_by_thresholds => Why::Threshold,
        _ if agree_by_scores => Why::Score,
        _ => Why::ScoreAndThreshold,
    }
}

/// The features whose contributions differ most.
fn features(a: (&Side, &Judged), b: (&Side, &Judged)) -> Vec<FeatureDifference> {
    let name = |side: &Side, part: &Part| side.features[part.name as usize].clone();
    let mut all: Vec<(std::sync::Arc<str>, Option<Part>, Option<Part>)> =
        a.1.features.iter().map(|p| (name(a.0, p), Some(*p), None)).collect();
    for p in &b.1.features {
        let name = name(b.0, p);
        match all.iter_mut().find(|(n, _, there)| *n == name && there.is_none()) {
            Some((_, _, there)) => *there = Some(*p),
            None => all.push((name, None, Some(*p))),
        }
    }
    let contribution = |p: &Option<Part>| p.map_or(0.0, |p| p.contribution);
    let apart = |(_, x, y): &(_, Option<Part>, Option<Part>)| (contribution(x) - contribution(y)).abs();
    // Stable: ties stay in the models' order.
    all.sort_by(|x, y| apart(y).total_cmp(&apart(x)));
    all.retain(|f| apart(f) != 0.0);
    all.truncate(FEATURES);
    all.into_iter()
        .map(|(name, x, y)| FeatureDifference {
            name: name.to_string(),
            value_here: x.and_then(|p| round(p.value)),
            value_there: y.and_then(|p| round(p.value)),
            contribution_here: x.and_then(|p| round(p.contribution)),
            contribution_there: y.and_then(|p| round(p.contribution)),
        })
        .collect()
}
