//! What is remembered of one device.

use std::sync::Arc;

use avouch_engine::codec::{CodecError, Reader, Writer};
use avouch_engine::model::{Memory, Score};

use super::scorer::Parts;

/// A device's level: how many windows it was learnt from, and the mean of each feature.
#[derive(Debug, Clone, PartialEq)]
pub struct Level {
    pub(super) seen: u32,
    pub(super) mean: Vec<f64>,
}

impl Level {
    /// Windows learnt from.
    pub fn seen(&self) -> u32 {
        self.seen
    }

    /// The mean of each feature, in the features' own units.
    pub fn mean(&self) -> &[f64] {
        &self.mean
    }

    pub(super) fn write(&self, w: &mut Writer) {
        w.u32(self.seen);
        for m in &self.mean {
            w.f64(*m);
        }
    }

    pub(super) fn read(r: &mut Reader<'_>, p: usize, settle: u32) -> Result<Self, CodecError> {
        let seen = r.u32()?;
        if seen > settle {
            return Err(r.invalid(format!("a level learnt from {seen} windows, where it stands still after {settle}")));
        }
        let mut mean = Vec::new();
        for _ in 0..p {
            let m = r.f64()?;
            if !m.is_finite() {
                return Err(r.invalid("a level that is not finite"));
            }
            mean.push(m);
        }
        Ok(Self { seen, mean })
    }
}

/// A level in use.
#[derive(Debug, Clone)]
pub(super) struct Learning {
    pub parts: Arc<Parts>,
    pub level: Level,
}

impl Memory for Learning {
    fn score(&mut self, _window_end: i64, x: &[f64], expected: &mut [f64], contributions: &mut [f64]) -> Score {
        let s = self.parts.score(&self.level, x, expected, contributions);
        if !s.value.is_nan() {
            self.parts.model.learn(&mut self.level, x, s.p_value);
        }
        s
    }

    fn write(&self, w: &mut Writer) {
        self.level.write(w);
    }

    fn copy(&self) -> Box<dyn Memory> {
        Box::new(self.clone())
    }
}
