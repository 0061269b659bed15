//! The verdicts of a run held against the simulator's truth.

use avouch_engine::dead_letter::{DeadLetter, DeadReason};
use avouch_engine::verdict::{Severity, VerdictRecord};
use serde::Serialize;

use crate::simulator::{DeviceTruth, FaultKind, FaultTruth, GroundTruth, Label};

/// How a window of one device is called right or wrong; printed with the figures.
pub(super) const DEFINITION: &str = "A verdict is about one pump's window of a minute. \"seen\": the window is faulty if its fault can be seen in all of it \
     (wear or cavitation at a fifth of its full strength or more, a stuck sensor from its onset), healthy if it lies wholly \
     outside the fault, and otherwise not counted. \"any\": faulty if it overlaps the fault at all, wear too slight to be seen and pauses of \
     cavitation included; nothing is left out. A clock that runs fast is no window's fault: \
     its rows are refused and counted as dead letters.";

/// Windows called and not called, under one definition of a faulty window and from one severity on.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(super) struct Confusion {
    /// `seen` or `any`.
    pub(super) faulty_if: &'static str,
    /// Called from this severity on.
    pub(super) from_severity: &'static str,
    /// Faulty and called.
    pub(super) right: u64,
    /// Healthy and called.
    pub(super) wrong: u64,
    /// Faulty and not called.
    pub(super) missed: u64,
    /// Healthy and not called.
    pub(super) quiet: u64,
    /// Neither.
    pub(super) not_counted: u64,
    /// right / (right + wrong); `null` when nothing was called.
    pub(super) precision: Option<f64>,
    /// right / (right + missed); `null` when nothing was faulty.
    pub(super) recall: Option<f64>,
}

/// When a fault was noticed.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Detection {
    pub(super) device: String,
    pub(super) fault: &'static str,
    /// Milliseconds since the epoch.
    pub(super) onset_ms: i64,
    /// From onset until it could first be seen in the readings; `null` if never.
    pub(super) seen_after_s: Option<f64>,
    /// From onset to the end of the first critical window that overlaps it; for a fast clock, to the first row refused.
    pub(super) called_after_s: Option<f64>,
    /// Rows of a fast clock that were refused.
    pub(super) rows_refused: u64,
}

/// All confusions: both definitions, both severities.
pub(super) fn confusions(verdicts: &[VerdictRecord], truth: &GroundTruth) -> Vec<Confusion> {
    let mut out = Vec::new();
    for faulty_if in ["seen", "any"] {
        for least in [Severity::Critical, Severity::Warning] {
            out.push(confusion(verdicts, truth, faulty_if, least));
        }
    }
    out
}

fn confusion(verdicts: &[VerdictRecord], truth: &GroundTruth, faulty_if: &'static str, least: Severity) -> Confusion {
    let (mut right, mut wrong, mut missed, mut quiet, mut not_counted) = (0, 0, 0, 0, 0);
    for v in verdicts {
        let faulty = if faulty_if == "seen" { seen(v, truth) } else { Some(overlaps(v, truth)) };
        match (faulty, v.verdict.severity >= least.code()) {
            (Some(true), true) => right += 1,
            (Some(true), false) => missed += 1,
            (Some(false), true) => wrong += 1,
            (Some(false), false) => quiet += 1,
            (None, _) => not_counted += 1,
        }
    }
    let share = |part: u64, rest: u64| (part + rest > 0).then(|| part as f64 / (part + rest) as f64);
    Confusion {
        faulty_if,
        from_severity: least.name(),
        right,
        wrong,
        missed,
        quiet,
        not_counted,
        precision: share(right, wrong),
        recall: share(right, missed),
    }
}

/// Whether the window is faulty beyond doubt, healthy beyond doubt, or neither.
pub(super) fn seen(v: &VerdictRecord, truth: &GroundTruth) -> Option<bool> {
    match truth.label(&v.evidence.device, v.verdict.window_start as i64, v.verdict.window_end as i64) {
        Some(Label::Faulty(_)) => Some(true),
        Some(Label::Healthy) => Some(false),
        Some(Label::Unclear) | None => None,
    }
}

fn overlaps(v: &VerdictRecord, truth: &GroundTruth) -> bool {
    let fault = truth.devices.iter().find(|d| d.device == v.evidence.device).and_then(|d| d.fault.as_ref());
    fault.is_some_and(|f| touches(v, f))
}

fn touches(v: &VerdictRecord, fault: &FaultTruth) -> bool {
    (v.verdict.window_start as i64) < fault.end_ms && fault.onset_ms < v.verdict.window_end as i64
}

/// When each fault was noticed, in the order of their onsets.
pub(super) fn detections(verdicts: &[VerdictRecord], dead: &[DeadLetter], truth: &GroundTruth) -> Vec<Detection> {
    let mut out: Vec<Detection> = truth.devices.iter().filter_map(|d| detection(d, verdicts, dead)).collect();
    out.sort_by(|a, b| (a.onset_ms, &a.device).cmp(&(b.onset_ms, &b.device)));
    out
}

fn detection(device: &DeviceTruth, verdicts: &[VerdictRecord], dead: &[DeadLetter]) -> Option<Detection> {
    let fault = device.fault.as_ref()?;
    let after = |ms: i64| (ms - fault.onset_ms) as f64 / 1000.0;
    let refused: Vec<i64> = dead
        .iter()
        .filter(|l| l.reason == DeadReason::Future && l.key.as_deref() == Some(device.device.as_bytes()))
        .map(|l| l.timestamp)
        .collect();
    let called = if fault.kind == FaultKind::FastClock {
        refused.iter().min().copied()
    } else {
        verdicts
            .iter()
            .filter(|v| v.evidence.device == device.device && v.verdict.severity >= Severity::Critical.code())
            .filter(|v| touches(v, fault))
            .map(|v| v.verdict.window_end as i64)
            .min()
    };
    Some(Detection {
        device: device.device.clone(),
        fault: fault.kind.name(),
        onset_ms: fault.onset_ms,
        seen_after_s: fault.evident.first().map(|(from, _)| after(*from)),
        called_after_s: called.map(after),
        rows_refused: refused.len() as u64,
    })
}

/// The newest critical verdict about a window that is faulty beyond doubt:
/// its lane and index.
pub(super) fn to_bundle(verdicts: &[VerdictRecord], truth: &GroundTruth) -> Option<(i32, u64)> {
    verdicts
        .iter()
        .filter(|v| v.verdict.severity >= Severity::Critical.code() && seen(v, truth) == Some(true))
        .max_by_key(|v| (v.verdict.window_end, v.evidence.partition, v.index))
        .map(|v| (v.evidence.partition, v.index))
}
