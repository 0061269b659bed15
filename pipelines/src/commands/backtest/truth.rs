//! Verdicts held against what really was.

use std::collections::BTreeMap;

use avouch_models::Confusion;
use serde::Serialize;

use super::alarms::Episode;
use super::figures::{number, timestamp};
use super::judged::{Judged, Side};
use super::labels::{Failure, Known, Labels, Stretch};

/// What was found, by the kind of labels.
#[derive(Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Truth {
    Failures(FailureReport),
    Windows(WindowReport),
}

/// Warnings before failures.
#[derive(Debug, Serialize)]
pub(super) struct FailureReport {
    pub horizon_ms: i64,
    pub failures: u64,
    pub warned: u64,
    pub missed: u64,
    /// Failures before which there is no verdict about the device within the horizon: nothing can be said of them.
    pub not_judged: u64,
    pub median_lead_ms: Option<i64>,
    pub shortest_lead_ms: Option<i64>,
    pub longest_lead_ms: Option<i64>,
    /// Episodes with no alarm in the horizon of a failure of their device.
    pub episodes_elsewhere: u64,
    pub each: Vec<FailureLine>,
}

/// One failure.
#[derive(Debug, Serialize)]
pub(super) struct FailureLine {
    pub device: String,
    #[serde(serialize_with = "timestamp")]
    pub failed_at: i64,
    pub step: Option<String>,
    pub outcome: Outcome,
    /// From the first alarm in the horizon to the failure.
    pub lead_ms: Option<i64>,
    /// From the first alarm of the last episode before the failure to it.
    pub last_episode_lead_ms: Option<i64>,
    /// Alarms in the horizon.
    pub alarms: u64,
    /// Episodes with an alarm in it.
    pub episodes: u64,
}

/// What became of a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Outcome {
    Warned,
    Missed,
    NotJudged,
}

impl Outcome {
    pub fn name(self) -> &'static str {
        match self {
            Outcome::Warned => "warned",
            Outcome::Missed => "missed",
            Outcome::NotJudged => "not judged",
        }
    }
}

/// Verdicts by window against labelled windows.
#[derive(Debug, Serialize)]
pub(super) struct WindowReport {
    /// Labelled windows, those of one device and step that overlap or touch taken together.
    pub labelled: u64,
    /// Those with an alarm that overlaps them.
    pub found: u64,
    /// Those that no verdict overlaps.
    pub not_judged: u64,
    pub steps: Vec<StepTruth>,
}

/// One step's verdicts.
#[derive(Debug, Serialize)]
pub(super) struct StepTruth {
    pub step: String,
    pub true_positives: u64,
    pub false_positives: u64,
    pub false_negatives: u64,
    pub true_negatives: u64,
    /// Verdicts whose window lies across the edge of a labelled one: neither right nor wrong.
    pub left_out: u64,
    #[serde(serialize_with = "number")]
    pub precision: f64,
    #[serde(serialize_with = "number")]
    pub recall: f64,
    #[serde(serialize_with = "number")]
    pub f1: f64,
    #[serde(serialize_with = "number")]
    pub false_alarm_rate: f64,
}

pub(super) fn hold(labels: &Labels, side: &Side, episodes: &[Episode], horizon: i64) -> Truth {
    match &labels.known {
        Known::Failures(failures) => Truth::Failures(before_failures(failures, side, episodes, horizon)),
        Known::Windows(windows) => Truth::Windows(in_windows(windows, side)),
    }
}

/// The step a label is about, if it names one.
fn concerns(side: &Side, label: Option<&String>, step: u16) -> bool {
    label.is_none_or(|name| side.steps[step as usize].name == *name)
}

fn before_failures(failures: &[Failure], side: &Side, episodes: &[Episode], horizon: i64) -> FailureReport {
    let mut each: Vec<FailureLine> = Vec::with_capacity(failures.len());
    let mut before = vec![false; episodes.len()];
    for failure in failures {
        let device = side.device_number(&failure.device);
        let from = failure.failed_at.saturating_sub(horizon);
        let in_horizon = |t: i64| from <= t && t <= failure.failed_at;
        let (mut judged, mut first, mut alarms) = (false, None, 0);
        let steps = (0..side.steps.len() as u16).filter(|s| concerns(side, failure.step.as_ref(), *s));
        for v in
            steps.flat_map(|s| device.map(|d| side.of(s, d)).unwrap_or_default()).filter(|v| in_horizon(v.window_end))
        {
            judged = true;
            if v.alarm() {
                alarms += 1;
                first = Some(first.map_or(v.window_end, |f: i64| f.min(v.window_end)));
            }
        }
        let mut of_it: Vec<i64> = Vec::new();
        for (e, before) in episodes.iter().zip(&mut before) {
            let theirs = Some(e.device) == device && concerns(side, failure.step.as_ref(), e.step);
            if theirs && e.first_ms <= failure.failed_at && e.last_ms >= from {
                *before = true;
                of_it.push(e.first_ms.max(from));
            }
        }
        // One alarm that nothing follows is no warning: it must go on or recur.
        let warned = alarms > 1;
        let lead = |t: i64| failure.failed_at - t;
        each.push(FailureLine {
            device: failure.device.clone(),
            failed_at: failure.failed_at,
            step: failure.step.clone(),
            outcome: match (judged, warned) {
                (false, _) => Outcome::NotJudged,
                (true, true) => Outcome::Warned,
                (true, false) => Outcome::Missed,
            },
            lead_ms: first.filter(|_| warned).map(lead),
            last_episode_lead_ms: of_it.iter().max().filter(|_| warned).map(|t| lead(*t)),
            alarms,
            episodes: of_it.len() as u64,
        });
    }
    let mut leads: Vec<i64> = each.iter().filter_map(|f| f.lead_ms).collect();
    leads.sort_unstable();
    let outcomes = |o: Outcome| each.iter().filter(|f| f.outcome == o).count() as u64;
    FailureReport {
        horizon_ms: horizon,
        failures: each.len() as u64,
        warned: outcomes(Outcome::Warned),
        missed: outcomes(Outcome::Missed),
        not_judged: outcomes(Outcome::NotJudged),
        // Of an even number the lower one, so that it is the lead of a failure.
        median_lead_ms: leads.len().checked_sub(1).and_then(|last| leads.get(last / 2)).copied(),
        shortest_lead_ms: leads.first().copied(),
        longest_lead_ms: leads.last().copied(),
        episodes_elsewhere: before.iter().filter(|b| !**b).count() as u64,
        each,
    }
}

/// Labelled windows by device and, if they name one, step: in order, and apart from each other.
type Stretches<'a> = BTreeMap<(&'a str, Option<&'a str>), Vec<(i64, i64)>>;

/// Those that overlap or touch are taken together.
fn merged(windows: &[Stretch]) -> Stretches<'_> {
    let mut out = Stretches::new();
    for w in windows {
        out.entry((&w.device, w.step.as_deref())).or_default().push((w.from, w.to));
    }
    for stretches in out.values_mut() {
        stretches.sort_unstable();
        let mut joined: Vec<(i64, i64)> = Vec::with_capacity(stretches.len());
        for (from, to) in stretches.drain(..) {
            match joined.last_mut() {
                Some(last) if from <= last.1 => last.1 = last.1.max(to),
                _ => joined.push((from, to)),
            }
        }
        *stretches = joined;
    }
    out
}

/// How a verdict's window lies to labelled ones.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Lies {
    Outside,
    Across,
    Within,
}

fn lies(v: &Judged, from: i64, to: i64) -> Lies {
    let overlaps = v.window_start < to && from < v.window_end;
    let within = from <= v.window_start && v.window_end <= to;
    let around = v.window_start <= from && to <= v.window_end;
    match overlaps {
        false => Lies::Outside,
        true if within || around => Lies::Within,
        true => Lies::Across,
    }
}

fn in_windows(windows: &[Stretch], side: &Side) -> WindowReport {
    let merged = merged(windows);
    let mut found: BTreeMap<(&str, Option<&str>, usize), bool> = BTreeMap::new();
    let mut steps: Vec<(Confusion, u64)> = vec![(Confusion::default(), 0); side.steps.len()];
    for v in &side.verdicts {
        let (device, step) = (side.device(v), side.step(v).name.as_str());
        let mut lie = Lies::Outside;
        for key in [(device, None), (device, Some(step))] {
            let Some(stretches) = merged.get(&key) else { continue };
            // Those that end before the window begins are over.
            let first = stretches.partition_point(|(_, to)| *to <= v.window_start);
            for (i, (from, to)) in stretches.iter().enumerate().skip(first).take_while(|(_, s)| s.0 < v.window_end) {
                lie = lie.max(lies(v, *from, *to));
                *found.entry((key.0, key.1, i)).or_default() |= v.alarm();
            }
        }
        let (confusion, left_out) = &mut steps[v.step as usize];
        match lie {
            Lies::Within => confusion.add(v.alarm(), true),
            Lies::Outside => confusion.add(v.alarm(), false),
            Lies::Across => *left_out += 1,
        }
    }
    let labelled = merged.values().map(|s| s.len() as u64).sum::<u64>();
    WindowReport {
        labelled,
        found: found.values().filter(|f| **f).count() as u64,
        not_judged: labelled - found.len() as u64,
        steps: side
            .steps
            .iter()
            .zip(steps)
            .map(|(step, (c, left_out))| StepTruth {
                step: step.name.clone(),
                true_positives: c.true_positives,
                false_positives: c.false_positives,
                false_negatives: c.false_negatives,
                true_negatives: c.true_negatives,
                left_out,
                precision: c.precision(),
                recall: c.recall(),
                f1: c.f1(),
                false_alarm_rate: c.false_alarm_rate(),
            })
            .collect(),
    }
}
