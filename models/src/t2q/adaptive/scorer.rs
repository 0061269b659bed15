//! The chart as the engine calls it.

use std::collections::HashMap;
use std::sync::Arc;

use avouch_engine::codec::{CodecError, Reader};
use avouch_engine::model::{Memory, Score, Scorer};
use avouch_engine::verdict::Hash32;

use super::Adaptive;
use super::memory::{Learning, Level};
use crate::calibrate::Calibration;

/// A T²/Q model file with an adaptive baseline, loaded.
#[derive(Debug, Clone)]
pub struct AdaptiveScorer {
    pub(super) hash: Hash32,
    pub(super) features: Vec<String>,
    /// The devices it was trained on, at their level. Looked up, never iterated.
    pub(super) devices: HashMap<Box<str>, Level>,
    pub(super) parts: Arc<Parts>,
}

/// What judging takes besides the device's level.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Parts {
    pub model: Adaptive,
    pub ages: Ages,
}

/// The calibrations by age.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Ages {
    pub young: Calibration,
    pub grown: Calibration,
}

impl Ages {
    /// That of a device with so many windows learnt, if below `young` it is young.
    pub fn of(&self, seen: u32, young: u32) -> &Calibration {
        if seen < young { &self.young } else { &self.grown }
    }
}

impl Parts {
    pub fn score(&self, level: &Level, x: &[f64], expected: &mut [f64], contributions: &mut [f64]) -> Score {
        let p = self.model.n_features();
        let fits = x.len() == p && expected.len() == p && contributions.len() == p;
        if !fits || x.iter().any(|v| !v.is_finite()) {
            expected.fill(f64::NAN);
            contributions.fill(f64::NAN);
            return Score::NONE;
        }
        let value = self.model.score(level, x, expected, contributions);
        Score::anomaly(value, self.ages.of(level.seen, self.model.young).p_value(value))
    }
}

impl AdaptiveScorer {
    /// What all devices share.
    pub fn model(&self) -> &Adaptive {
        &self.parts.model
    }

    /// The level a device begins with: its own if it was trained on, otherwise the fleet's.
    pub fn start(&self, device: &str) -> Level {
        self.devices.get(device).cloned().unwrap_or_else(|| self.parts.model.fresh())
    }
}

impl Scorer for AdaptiveScorer {
    fn hash(&self) -> Hash32 {
        self.hash
    }

    fn features(&self) -> &[String] {
        &self.features
    }

    fn score(&self, device: &str, x: &[f64], expected: &mut [f64], contributions: &mut [f64]) -> Score {
        match self.devices.get(device) {
            Some(level) => self.parts.score(level, x, expected, contributions),
            None => self.parts.score(&self.parts.model.fresh(), x, expected, contributions),
        }
    }

    fn smallest_p_value(&self) -> f64 {
        // The larger of the two: a threshold below it could never fire at some age.
        self.parts.ages.young.smallest_p_value().max(self.parts.ages.grown.smallest_p_value())
    }

    fn memory(&self, device: &str) -> Option<Box<dyn Memory>> {
        Some(Box::new(Learning { parts: self.parts.clone(), level: self.start(device) }))
    }

    fn read_memory(&self, device: &str, r: &mut Reader<'_>) -> Result<Box<dyn Memory>, CodecError> {
        let level = Level::read(r, self.parts.model.n_features(), self.parts.model.settle)?;
        let start = self.start(device);
        let same = level.mean.iter().zip(&start.mean).all(|(a, b)| a.to_bits() == b.to_bits());
        if level.seen < start.seen || (level.seen == start.seen && !same) {
            return Err(r.invalid(format!("a level that device `{device}` cannot have, for it began with another")));
        }
        Ok(Box::new(Learning { parts: self.parts.clone(), level }))
    }
}
