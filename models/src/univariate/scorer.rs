//! The model as the engine calls it.

use std::sync::Arc;

use avouch_engine::codec::{CodecError, Reader};
use avouch_engine::model::{Memory, Score, Scorer};
use avouch_engine::verdict::Hash32;

use super::memory::DeviceMemory;
use crate::calibrate::Calibration;

/// A univariate model file, loaded.
#[derive(Debug, Clone)]
pub struct UnivariateScorer {
    pub(super) hash: Hash32,
    pub(super) features: Vec<String>,
    pub(super) rest: u32,
    pub(super) calibration: Arc<Calibration>,
}

impl UnivariateScorer {
    pub(super) fn fresh(&self) -> DeviceMemory {
        DeviceMemory::new(self.features.len(), self.rest, self.calibration.clone())
    }
}

impl Scorer for UnivariateScorer {
    fn hash(&self) -> Hash32 {
        self.hash
    }

    fn features(&self) -> &[String] {
        &self.features
    }

    fn score(&self, _device: &str, features: &[f64], expected: &mut [f64], contributions: &mut [f64]) -> Score {
        // The time of a first reading does not matter.
        self.fresh().score(0, features, expected, contributions)
    }

    fn smallest_p_value(&self) -> f64 {
        self.calibration.smallest_p_value()
    }

    fn memory(&self, _device: &str) -> Option<Box<dyn Memory>> {
        Some(Box::new(self.fresh()))
    }

    fn read_memory(&self, _device: &str, r: &mut Reader<'_>) -> Result<Box<dyn Memory>, CodecError> {
        let calibration = self.calibration.clone();
        Ok(Box::new(DeviceMemory::read(self.features.len(), self.rest, calibration, r)?))
    }
}
