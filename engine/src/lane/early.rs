//! Early results: the rows so far of windows that are still open, judged like closed ones.
//!
//! They are a function of the input like verdicts, but they are none: without index, `seq`, salt or digest, in no log and
//! under no anchor. Judging them changes nothing in the lane.

use super::judge::{Judged, Judging};
use super::{Lane, LaneError, Output};
use crate::verdict::{Evidence, Hash32, Severity};
use crate::window::EarlyWindow;

/// What a model says of a device's rows so far in a window that is still open.
#[derive(Debug, Clone, PartialEq)]
pub struct EarlyVerdict {
    /// The watermark at which the rows were looked at, milliseconds.
    pub as_of: i64,
    /// First instant of the window, milliseconds.
    pub window_start: i64,
    /// First instant after it, milliseconds.
    pub window_end: i64,
    /// As of a verdict ([`crate::verdict::class`]).
    pub class: u16,
    /// How grave it would be.
    pub severity: Severity,
    /// The hash of the model.
    pub model_hash: Hash32,
    /// Device, step, rows, score and features, as in a verdict's evidence.
    pub evidence: Evidence,
}

impl Lane {
    /// Judges what was looked at early.
    pub(super) fn give_early(&mut self, out: &mut Output) {
        let mut looked = std::mem::take(&mut self.early);
        // By the row at which they were looked at, then by step, as verdicts.
        looked.sort_by_key(|(step, w)| (w.window.at, *step));
        for (step, window) in &looked {
            let before = out.early.len();
            if let Err(e) = self.judge_early(*step, window, &mut out.early) {
                out.early.truncate(before);
                out.early_failed.push(e);
            }
        }
    }

    fn judge_early(&self, step: usize, early: &EarlyWindow, out: &mut Vec<EarlyVerdict>) -> Result<(), LaneError> {
        if self.plan.scores.iter().all(|s| s.input != step) {
            return Ok(());
        }
        let features = self.features(step, &early.window)?;
        for (number, score) in self.plan.scores.iter().enumerate().filter(|(_, s)| s.input == step) {
            let mut judging = Judging::new(self, step, score, &features)?;
            for (k, &row) in features.rows.iter().enumerate() {
                let rows = &early.window.devices[row as usize];
                let Judged { class, severity, evidence } =
                    judging.judge_early(self, k, rows, self.online[number].as_ref());
                out.push(EarlyVerdict {
                    as_of: early.as_of,
                    window_start: rows.start.max(0),
                    window_end: rows.end.max(0),
                    class,
                    severity,
                    model_hash: score.model.hash(),
                    evidence,
                });
            }
        }
        Ok(())
    }
}
