//! What people said, and what the two models make of it.

use avouch_engine::label::Opinion;
use serde::Serialize;

use crate::commands::backtest::judged::Side;
use crate::commands::train::ByLabels;
use crate::labels::LastWord;

/// Labels in the report.
#[derive(Debug, Serialize)]
pub(super) struct Labels {
    /// Labels in the logs that are about the step.
    pub of_the_step: u64,
    true_alarm: u64,
    false_alarm: u64,
    missed: u64,
    healthy: u64,
    /// Windows that were not trained on, because they were said to be faults.
    pub left_out: u64,
    /// Windows that were trained on as healthy only because they were said to be.
    pub taken_in: u64,
    /// Whether they decided what was trained on: not of a model that learns from failures.
    pub decided: bool,
    /// Of the model that runs.
    pub running: Known,
    /// Of the candidate.
    pub candidate: Known,
}

/// What one model says of windows that people have said something of.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize)]
pub(super) struct Known {
    /// Labels that say that something was wrong and count for a window that was judged.
    pub faults: u64,
    /// Of them, those with an alarm.
    pub faults_called: u64,
    /// Windows that were said to be healthy, the candidate not having been fitted on them.
    pub healthy_windows: u64,
    /// Of them, those with an alarm.
    pub healthy_called: u64,
}

impl Known {
    /// Of these verdicts; `held` says which windows the candidate was not fitted on.
    pub fn of(side: &Side, step: &str, word: &LastWord, held: impl Fn(&str, i64) -> bool) -> Self {
        let mut out = Self::default();
        // Labels that count for a window, and whether one of these was called.
        let mut faults: Vec<([u8; 32], bool)> = Vec::new();
        for v in side.verdicts.iter().filter(|v| side.step(v).name == step) {
            let device = side.device(v);
            let Some(label) = word.last(device, step, (v.window_start, v.window_end)) else { continue };
            if label.opinion.is_fault() {
                let id = label.id();
                match faults.iter_mut().find(|(other, _)| *other == id) {
                    Some((_, called)) => *called |= v.alarm(),
                    None => faults.push((id, v.alarm())),
                }
            } else if held(device, v.window_end) {
                out.healthy_windows += 1;
                out.healthy_called += u64::from(v.alarm());
            }
        }
        out.faults = faults.len() as u64;
        out.faults_called = faults.iter().filter(|(_, called)| *called).count() as u64;
        out
    }
}

impl Labels {
    /// Of all labels about a step; `None` where there is none.
    pub fn new(
        word: &LastWord,
        step: &str,
        decided: bool,
        by: ByLabels,
        (running, candidate): (Known, Known),
    ) -> Option<Self> {
        let count = |o: Opinion| word.of_step(step).filter(|l| l.opinion == o).count() as u64;
        let all = word.of_step(step).count() as u64;
        (all > 0).then(|| Self {
            of_the_step: all,
            true_alarm: count(Opinion::TrueAlarm),
            false_alarm: count(Opinion::FalseAlarm),
            missed: count(Opinion::Missed),
            healthy: count(Opinion::Healthy),
            left_out: by.left_out,
            taken_in: by.taken_in,
            decided,
            running,
            candidate,
        })
    }

    /// The kinds, with how many there are of each.
    pub fn kinds(&self) -> [(Opinion, u64); 4] {
        [
            (Opinion::TrueAlarm, self.true_alarm),
            (Opinion::FalseAlarm, self.false_alarm),
            (Opinion::Missed, self.missed),
            (Opinion::Healthy, self.healthy),
        ]
    }
}
