//! A lane's side: what it keeps for those who look on, and how it hands that over.

use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use avouch_engine::lane::Lane;
use avouch_engine::verdict::{LogOrigin, VerdictRecord};

use super::{Piece, Tap, Taps};

/// Those who look on at one lane.
#[derive(Debug)]
pub(in super::super) struct LaneTaps {
    hub: Taps,
    /// The version of the hub's list that `taps` is of.
    version: u64,
    pub(super) taps: Vec<Arc<Tap>>,
    lane: i32,
    log: Arc<str>,
}

impl LaneTaps {
    /// Those of a lane of a pipeline.
    pub fn new(hub: &Taps, pipeline: &str, lane: i32) -> Self {
        let log = LogOrigin::new(pipeline, lane).as_str().into();
        Self { hub: hub.clone(), version: 0, taps: Vec::new(), lane, log }
    }

    /// Keeps from here on what those who look on now want to see. Costs one look at a number where nothing changed.
    pub fn follow(&mut self, lane: &mut Lane) {
        let version = self.hub.0.version.load(Ordering::Acquire);
        if version == self.version {
            return;
        }
        self.version = version;
        let config = *lane.config_hash();
        {
            let state = self.hub.0.state.lock().unwrap_or_else(PoisonError::into_inner);
            self.taps = state.taps.iter().filter(|t| t.config == config).cloned().collect();
        }
        let taps = &self.taps;
        lane.watch(|step| taps.iter().any(|t| !t.verdicts && t.step == step));
    }

    /// Hands over the rows that the lane has kept.
    pub fn rows(&self, lane: &mut Lane) {
        if self.taps.is_empty() {
            return;
        }
        for rows in lane.take_watched() {
            let n = rows.devices.len();
            // Names, offsets and times beside the columns.
            let own: usize = rows.devices.iter().map(|d| d.len() + 24 + 24).sum();
            let bytes = rows.batch.get_array_memory_size() + own;
            let rows = Arc::new(rows);
            for tap in self.taps.iter().filter(|t| !t.verdicts && *t.step == *rows.step) {
                tap.offer(Piece::Rows { lane: self.lane, rows: rows.clone() }, n, bytes);
            }
        }
    }

    /// Hands over verdicts, which are in the log by now.
    pub fn verdicts(&self, verdicts: &[VerdictRecord]) {
        for tap in self.taps.iter().filter(|t| t.verdicts) {
            let records: Vec<VerdictRecord> =
                verdicts.iter().filter(|v| *v.evidence.step == *tap.step).cloned().collect();
            if records.is_empty() {
                continue;
            }
            let bytes = records.iter().map(|r| 500 + 64 * r.evidence.features.len()).sum();
            let n = records.len();
            tap.offer(Piece::Verdicts { log: self.log.clone(), records: Arc::new(records) }, n, bytes);
        }
    }
}
