//! The model as the engine calls it.

use avouch_engine::model::{Score, Scorer};
use avouch_engine::verdict::Hash32;

use super::{Check, off};
use crate::calibrate::Calibration;

/// A sensor-health model file, loaded.
#[derive(Debug, Clone)]
pub struct SensorHealthScorer {
    pub(super) hash: Hash32,
    pub(super) features: Vec<String>,
    /// Medians of the training rows.
    pub(super) typical: Vec<f64>,
    pub(super) checks: Vec<Check>,
    pub(super) level: f64,
    pub(super) calibration: Calibration,
}

impl Scorer for SensorHealthScorer {
    fn hash(&self) -> Hash32 {
        self.hash
    }

    fn features(&self) -> &[String] {
        &self.features
    }

    /// Missing values are what it looks for, so they are scored too.
    fn score(&self, _device: &str, x: &[f64], expected: &mut [f64], contributions: &mut [f64]) -> Score {
        let p = self.features.len();
        if x.len() != p || expected.len() != p || contributions.len() != p {
            expected.fill(f64::NAN);
            contributions.fill(f64::NAN);
            return Score::NONE;
        }
        expected.copy_from_slice(&self.typical);
        let (value, finding) = off(&self.checks, self.level, x, contributions);
        Score { finding, ..Score::anomaly(value, self.calibration.p_value(value)) }
    }

    fn smallest_p_value(&self) -> f64 {
        self.calibration.smallest_p_value()
    }
}
