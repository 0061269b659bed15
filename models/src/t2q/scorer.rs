//! The chart as the engine calls it: device by name, score and calibrated p-value.

use std::collections::HashMap;

use avouch_engine::model::{Score, Scorer};
use avouch_engine::verdict::Hash32;

use super::fit::T2q;
use crate::calibrate::Calibration;

/// A T²/Q model file, loaded.
#[derive(Debug, Clone)]
pub struct T2qScorer {
    pub(super) hash: Hash32,
    pub(super) features: Vec<String>,
    /// Looked up, never iterated: its order does not matter.
    pub(super) devices: HashMap<Box<str>, usize>,
    pub(super) model: T2q,
    /// For devices without a baseline of their own.
    pub(super) fleet_calibration: Calibration,
    /// For devices with one; there if and only if the model has baselines per device.
    pub(super) device_calibration: Option<Calibration>,
}

impl T2qScorer {
    /// The fitted model.
    pub fn model(&self) -> &T2q {
        &self.model
    }

    /// Whether `device` has a baseline of its own.
    pub fn knows(&self, device: &str) -> bool {
        self.devices.contains_key(device)
    }
}

impl Scorer for T2qScorer {
    fn hash(&self) -> Hash32 {
        self.hash
    }

    fn features(&self) -> &[String] {
        &self.features
    }

    fn score(&self, device: &str, features: &[f64], expected: &mut [f64], contributions: &mut [f64]) -> Score {
        let p = self.features.len();
        let fits = features.len() == p && expected.len() == p && contributions.len() == p;
        if !fits || features.iter().any(|v| !v.is_finite()) {
            expected.fill(f64::NAN);
            contributions.fill(f64::NAN);
            return Score::NONE;
        }
        // Without baselines per device there is nothing to look up.
        let known = match &self.device_calibration {
            Some(c) => self.devices.get(device).map(|&i| (i, c)),
            None => None,
        };
        let (device, calibration) = match known {
            Some((i, c)) => (Some(i), c),
            None => (None, &self.fleet_calibration),
        };
        let value = self.model.score(device, features, expected, contributions);
        Score::anomaly(value, calibration.p_value(value))
    }

    fn smallest_p_value(&self) -> f64 {
        // The larger of the two: a threshold below it could never fire for some device.
        let fleet = self.fleet_calibration.smallest_p_value();
        self.device_calibration.as_ref().map_or(fleet, |c| c.smallest_p_value().max(fleet))
    }
}
