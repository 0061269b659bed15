//! The drift model as the engine calls it: a memory for each device.

use std::collections::HashMap;
use std::sync::Arc;

use avouch_engine::codec::{CodecError, Reader};
use avouch_engine::model::{Memory, Score, Scorer};
use avouch_engine::verdict::Hash32;

use super::fit::{Against, Calibrations, DriftModel};
use super::memory::{DriftMemory, State};

/// A drift model file, loaded.
#[derive(Debug, Clone)]
pub struct DriftScorer {
    pub(super) hash: Hash32,
    pub(super) features: Vec<String>,
    /// Looked up, never iterated: its order does not matter.
    pub(super) devices: HashMap<Box<str>, usize>,
    pub(super) model: Arc<(DriftModel, Calibrations)>,
}

impl DriftScorer {
    /// The fitted model.
    pub fn model(&self) -> &DriftModel {
        &self.model.0
    }

    fn against(&self, device: &str) -> Against {
        self.model.0.against(self.devices.get(device).copied())
    }

    fn fresh(&self, device: &str) -> DriftMemory {
        let against = self.against(device);
        DriftMemory { model: self.model.clone(), against, state: State::new(&self.model.0, against) }
    }
}

impl Scorer for DriftScorer {
    fn hash(&self) -> Hash32 {
        self.hash
    }

    fn features(&self) -> &[String] {
        &self.features
    }

    fn score(&self, device: &str, features: &[f64], expected: &mut [f64], contributions: &mut [f64]) -> Score {
        self.fresh(device).score(0, features, expected, contributions)
    }

    fn smallest_p_value(&self) -> f64 {
        // The larger of the two: a threshold below it could never fire for some device.
        let calibrations = &self.model.1;
        let fleet = calibrations.fleet.smallest_p_value();
        calibrations.devices.as_ref().map_or(fleet, |c| c.smallest_p_value().max(fleet))
    }

    fn memory(&self, device: &str) -> Option<Box<dyn Memory>> {
        Some(Box::new(self.fresh(device)))
    }

    fn read_memory(&self, device: &str, r: &mut Reader<'_>) -> Result<Box<dyn Memory>, CodecError> {
        let against = self.against(device);
        let state = State::read(r, &self.model.0, against)?;
        Ok(Box::new(DriftMemory { model: self.model.clone(), against, state }))
    }
}
