//! A detector as the engine calls it: device by name, score and calibrated p-value, and memory where it is online.

use std::collections::HashMap;
use std::sync::Arc;

use avouch_engine::codec::{CodecError, Reader, Writer};
use avouch_engine::model::{Memory, Score, Scorer};
use avouch_engine::verdict::Hash32;

use super::{Detector, PerDevice};
use crate::calibrate::Calibration;

/// A model file, loaded.
#[derive(Debug, Clone)]
pub struct PerDeviceScorer<D> {
    pub(super) known: Arc<Known<D>>,
}

/// What the file says; shared with the memories of an online model.
#[derive(Debug)]
pub(super) struct Known<D> {
    pub hash: Hash32,
    pub features: Vec<String>,
    /// Looked up, never iterated: its order does not matter.
    pub names: HashMap<Box<str>, usize>,
    pub model: PerDevice<D>,
    pub fleet_calibration: Calibration,
    /// One for each name, in the order of their numbers.
    pub calibrations: Vec<Calibration>,
}

impl<D: Detector> Known<D> {
    fn judge(&self, device: Option<usize>) -> (&D, &Calibration) {
        match (self.model.of_device(device), device.and_then(|i| self.calibrations.get(i))) {
            ((own, true), Some(calibration)) => (own, calibration),
            _ => (self.model.fleet(), &self.fleet_calibration),
        }
    }

    /// Whether the vectors can be scored; if not, says so in the outputs.
    fn fits(&self, features: &[f64], expected: &mut [f64], contributions: &mut [f64]) -> bool {
        let p = self.features.len();
        let fits = features.len() == p && expected.len() == p && contributions.len() == p;
        if fits && features.iter().all(|v| v.is_finite()) {
            return true;
        }
        expected.fill(f64::NAN);
        contributions.fill(f64::NAN);
        false
    }
}

impl<D: Detector> PerDeviceScorer<D> {
    /// The fitted model.
    pub fn model(&self) -> &PerDevice<D> {
        &self.known.model
    }

    /// Whether `device` has a detector of its own.
    pub fn knows(&self, device: &str) -> bool {
        self.known.names.contains_key(device)
    }
}

impl<D: Detector> Scorer for PerDeviceScorer<D> {
    fn hash(&self) -> Hash32 {
        self.known.hash
    }

    fn features(&self) -> &[String] {
        &self.known.features
    }

    fn score(&self, device: &str, features: &[f64], expected: &mut [f64], contributions: &mut [f64]) -> Score {
        if !self.known.fits(features, expected, contributions) {
            return Score::NONE;
        }
        // Without detectors per device there is nothing to look up.
        let device = if self.known.names.is_empty() { None } else { self.known.names.get(device).copied() };
        let (detector, calibration) = self.known.judge(device);
        let value = detector.score(features, expected, contributions);
        Score::anomaly(value, calibration.p_value(value))
    }

    fn smallest_p_value(&self) -> f64 {
        // The largest: a threshold below it could never fire for some device.
        let fleet = self.known.fleet_calibration.smallest_p_value();
        self.known.calibrations.iter().fold(fleet, |a, c| a.max(c.smallest_p_value()))
    }

    fn memory(&self, device: &str) -> Option<Box<dyn Memory>> {
        let device = self.known.names.get(device).copied();
        let state = self.known.judge(device).0.state()?;
        Some(Box::new(DeviceMemory { known: self.known.clone(), device, state }))
    }

    fn read_memory(&self, device: &str, r: &mut Reader<'_>) -> Result<Box<dyn Memory>, CodecError> {
        let device = self.known.names.get(device).copied();
        let state = self.known.judge(device).0.read_state(r)?;
        Ok(Box::new(DeviceMemory { known: self.known.clone(), device, state }))
    }
}

/// What an online detector remembers of one device.
#[derive(Debug)]
struct DeviceMemory<D: Detector> {
    known: Arc<Known<D>>,
    device: Option<usize>,
    state: D::State,
}

impl<D: Detector> Memory for DeviceMemory<D> {
    fn score(&mut self, _: i64, features: &[f64], expected: &mut [f64], contributions: &mut [f64]) -> Score {
        if !self.known.fits(features, expected, contributions) {
            return Score::NONE;
        }
        let (detector, calibration) = self.known.judge(self.device);
        let value = detector.learn(&mut self.state, features, expected, contributions);
        Score::anomaly(value, calibration.p_value(value))
    }

    fn write(&self, w: &mut Writer) {
        self.known.judge(self.device).0.write_state(&self.state, w);
    }

    fn copy(&self) -> Box<dyn Memory> {
        Box::new(Self { known: self.known.clone(), device: self.device, state: self.state.clone() })
    }
}
