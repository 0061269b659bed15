//! The charts as the engine calls them: a memory for each device.

use std::sync::Arc;

use avouch_engine::codec::{CodecError, Reader, Writer};
use avouch_engine::model::{Memory, Score, Scorer};
use avouch_engine::verdict::Hash32;

use super::Z_MEMORY;
use super::fit::{Mewma, Scratch, State};
use crate::calibrate::Calibration;
use crate::calibrated::scorable;
use crate::standard::read_finite;

/// A MEWMA model file, loaded.
#[derive(Debug, Clone)]
pub struct MewmaScorer {
    hash: Hash32,
    features: Vec<String>,
    judge: Arc<Judge>,
}

/// What scorer and memories share.
#[derive(Debug)]
struct Judge {
    model: Mewma,
    calibration: Calibration,
}

/// A device's smoothed vectors.
#[derive(Debug, Clone)]
struct Smoothed {
    judge: Arc<Judge>,
    state: State,
    scratch: Scratch,
}

impl MewmaScorer {
    pub(super) fn new(hash: Hash32, features: Vec<String>, model: Mewma, calibration: Calibration) -> Self {
        Self { hash, features, judge: Arc::new(Judge { model, calibration }) }
    }

    /// The fitted model.
    pub fn model(&self) -> &Mewma {
        &self.judge.model
    }

    fn fresh(&self) -> Smoothed {
        let model = &self.judge.model;
        Smoothed { judge: self.judge.clone(), state: model.state(), scratch: Scratch::new(model.n_features()) }
    }
}

impl Scorer for MewmaScorer {
    fn hash(&self) -> Hash32 {
        self.hash
    }

    fn features(&self) -> &[String] {
        &self.features
    }

    fn score(&self, _: &str, features: &[f64], expected: &mut [f64], contributions: &mut [f64]) -> Score {
        self.fresh().score(0, features, expected, contributions)
    }

    fn smallest_p_value(&self) -> f64 {
        self.judge.calibration.smallest_p_value()
    }

    fn memory(&self, _: &str) -> Option<Box<dyn Memory>> {
        Some(Box::new(self.fresh()))
    }

    fn read_memory(&self, _: &str, r: &mut Reader<'_>) -> Result<Box<dyn Memory>, CodecError> {
        let mut memory = self.fresh();
        let (scales, values) = (memory.state.left.len(), memory.state.smoothed.len());
        memory.state.left = read_finite(r, scales)?;
        memory.state.smoothed = read_finite(r, values)?;
        if memory.state.left.iter().any(|l| !(0.0..=1.0).contains(l) || l.is_sign_negative()) {
            return Err(r.invalid("a chart's memory is not between none and all of its past"));
        }
        // A mean of values cut off at Z_MEMORY, but for rounding.
        if memory.state.smoothed.iter().any(|s| s.abs() > Z_MEMORY * (1.0 + 1e-9)) {
            return Err(r.invalid("a smoothed value is larger than any value taken in"));
        }
        Ok(Box::new(memory))
    }
}

impl Memory for Smoothed {
    fn score(&mut self, _: i64, features: &[f64], expected: &mut [f64], contributions: &mut [f64]) -> Score {
        let Judge { model, calibration } = &*self.judge;
        if !scorable(model.n_features(), features, expected, contributions) {
            return Score::NONE;
        }
        let value = model.judge(&mut self.state, &mut self.scratch, features, expected, contributions);
        Score::anomaly(value, calibration.p_value(value))
    }

    fn write(&self, w: &mut Writer) {
        for v in self.state.left.iter().chain(&self.state.smoothed) {
            w.f64(*v);
        }
    }

    fn copy(&self) -> Box<dyn Memory> {
        Box::new(self.clone())
    }
}
