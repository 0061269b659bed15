//! Rows of steps, for who looks on: tests, backtests, live views.
//!
//! What is watched changes nothing in the lane: no verdict, no snapshot, no counter.

use std::sync::Arc;

use arrow::array::RecordBatch;

use super::{Lane, LaneError};
use crate::device::DeviceTable;
use crate::ingest::Rows;
use crate::sql::Selection;
use crate::window::FiredWindow;

/// Rows that a step gave: the source's are the readings it admitted, a windowed step's are features. All vectors have one
/// entry a row.
#[derive(Debug, Clone)]
pub struct StepRows {
    /// The source or the step.
    pub step: Arc<str>,
    /// Its columns.
    pub batch: RecordBatch,
    /// Whose rows they are.
    pub devices: Vec<String>,
    /// Of readings and rows: the offset of the record. Of features: that of the last row in the window.
    pub offsets: Vec<i64>,
    /// Of readings and rows: event time, milliseconds. Of features: the first instant after the window.
    pub times: Vec<i64>,
    /// Of features: the first instant of the window, milliseconds. Empty for other steps.
    pub window_starts: Vec<i64>,
}

/// Which steps are watched, and what was seen since it was last taken.
#[derive(Debug, Default)]
pub(super) struct Watched {
    source: Option<Arc<str>>,
    rows: Vec<Option<Arc<str>>>,
    windows: Vec<Option<Arc<str>>>,
    seen: Vec<StepRows>,
}

impl Watched {
    pub(super) fn readings(&mut self, rows: &Rows, devices: &DeviceTable) {
        if let Some(step) = self.source.clone().filter(|_| !rows.is_empty()) {
            let all = 0..rows.len() as u32;
            self.see(step, &rows.batch, &all.collect::<Vec<_>>(), rows, devices);
        }
    }

    pub(super) fn row_step(&mut self, step: usize, selection: &Selection, rows: &Rows, devices: &DeviceTable) {
        if let Some(step) = self.rows.get(step).cloned().flatten().filter(|_| !selection.rows.is_empty()) {
            self.see(step, &selection.batch, &selection.rows, rows, devices);
        }
    }

    fn see(&mut self, step: Arc<str>, batch: &RecordBatch, at: &[u32], rows: &Rows, devices: &DeviceTable) {
        let of = |values: &[i64]| at.iter().map(|&i| values[i as usize]).collect();
        self.seen.push(StepRows {
            step,
            batch: batch.clone(),
            devices: at.iter().map(|&i| devices.name(rows.devices[i as usize]).to_owned()).collect(),
            offsets: of(&rows.offsets),
            times: of(&rows.times),
            window_starts: Vec::new(),
        });
    }
}

impl Lane {
    /// From here on keeps the rows of the steps whose names `watched` says yes to, the source among them, for
    /// [`Lane::take_watched`].
    pub fn watch(&mut self, watched: impl Fn(&str) -> bool) {
        let named = |name: &str| watched(name).then(|| Arc::<str>::from(name));
        self.watched = Watched {
            source: named(&self.plan.source.name),
            rows: self.plan.rows.iter().map(|s| named(&s.name)).collect(),
            windows: self.plan.windows.iter().map(|s| named(&s.name)).collect(),
            seen: Vec::new(),
        };
    }

    /// The rows of watched steps since this was last called: step after step and batch after batch, those of one step in
    /// the order of their offsets, features in the order of verdicts.
    pub fn take_watched(&mut self) -> Vec<StepRows> {
        std::mem::take(&mut self.watched.seen)
    }

    /// Keeps the features of a window that closed, if its step is watched.
    pub(super) fn see_window(&mut self, step: usize, window: &FiredWindow) -> Result<(), LaneError> {
        let Some(name) = self.watched.windows.get(step).cloned().flatten() else { return Ok(()) };
        let features = self.features(step, window)?;
        if features.rows.is_empty() {
            return Ok(());
        }
        let fired: Vec<_> = features.rows.iter().map(|&r| &window.devices[r as usize]).collect();
        let seen = StepRows {
            step: name,
            devices: fired.iter().map(|f| self.devices.name(f.device).to_owned()).collect(),
            offsets: fired.iter().map(|f| f.last_offset).collect(),
            times: fired.iter().map(|f| f.end).collect(),
            window_starts: fired.iter().map(|f| f.start).collect(),
            batch: features.batch,
        };
        self.watched.seen.push(seen);
        Ok(())
    }
}
