//! What was really wrong, kept aside.

use serde::{Deserialize, Serialize};

use super::fault::{FaultKind, Sensor};

/// A fault of one pump.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FaultTruth {
    /// What.
    pub kind: FaultKind,
    /// Which sensor is stuck.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sensor: Option<Sensor>,
    /// First instant of the fault, milliseconds since the epoch (true time, not the device's clock).
    pub onset_ms: i64,
    /// First instant after it.
    pub end_ms: i64,
    /// The stretches `[from, to)` in which it can be seen in the readings: wear once it has grown, cavitation
    /// while the load brings it about, a stuck sensor from its onset, a fast clock never (its rows are refused).
    pub evident: Vec<(i64, i64)>,
}

/// One pump.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceTruth {
    /// Its name.
    pub device: String,
    /// Its fault, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fault: Option<FaultTruth>,
    /// Rows sent, of every kind.
    pub rows: u64,
}

/// What one run of a fleet really was. Counts are of rows handed out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroundTruth {
    /// The fleet's seed.
    pub seed: u64,
    /// First instant of the run, milliseconds since the epoch.
    pub start_ms: i64,
    /// First instant after it.
    pub end_ms: i64,
    /// Rows sent, of every kind.
    pub rows: u64,
    /// Rows cut off in the middle: dead letters `undecodable`.
    pub bad_rows: u64,
    /// Rows that arrive after their windows have closed: dead letters `late`.
    pub late_rows: u64,
    /// Rows dated in the future by a fast clock: dead letters `future`.
    pub future_rows: u64,
    /// Every pump, by name.
    pub devices: Vec<DeviceTruth>,
}

/// What a window of a device ought to be called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Label {
    /// Nothing was wrong in it.
    Healthy,
    /// A fault was evident in all of it.
    Faulty(FaultKind),
    /// A fault was present but evident in a part of it at most, or the window reaches beyond the run and so holds only
    /// a part of its readings: no verdict is right or wrong there.
    Unclear,
}

impl GroundTruth {
    /// What a verdict over `[window_start_ms, window_end_ms)` ought to say; `None` for a device that is not of this fleet.
    pub fn label(&self, device: &str, window_start_ms: i64, window_end_ms: i64) -> Option<Label> {
        let at = self.devices.binary_search_by(|d| d.device.as_str().cmp(device)).ok()?;
        if window_start_ms < self.start_ms || window_end_ms > self.end_ms {
            return Some(Label::Unclear);
        }
        let Some(fault) = &self.devices[at].fault else { return Some(Label::Healthy) };
        if fault.evident.iter().any(|(from, to)| *from <= window_start_ms && window_end_ms <= *to) {
            return Some(Label::Faulty(fault.kind));
        }
        let overlaps = window_start_ms < fault.end_ms && fault.onset_ms < window_end_ms;
        Some(if overlaps { Label::Unclear } else { Label::Healthy })
    }

    /// As pretty JSON with a line feed at the end.
    pub fn to_json(&self) -> Result<String, serde_json::Error> {
        let mut text = serde_json::to_string_pretty(self)?;
        text.push('\n');
        Ok(text)
    }
}
