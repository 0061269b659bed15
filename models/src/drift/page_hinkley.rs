//! The Page-Hinkley test, in both directions.

use avouch_engine::codec::{CodecError, Reader, Writer};

/// Cumulative sums of what exceeds the tolerance, upwards and downwards, each less its own minimum (Page 1954; Hinkley
/// 1971, with the mean before the change known).
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct PageHinkley {
    up: f64,
    down: f64,
}

impl PageHinkley {
    /// Takes the next standardised value, finite; gives the larger of the two sums. Neither goes beyond twice `limit`, so
    /// that a drift that was long does not take as long to be forgotten.
    pub fn add(&mut self, z: f64, tolerance: f64, limit: f64) -> f64 {
        self.up = (self.up + z - tolerance).clamp(0.0, 2.0 * limit);
        self.down = (self.down - z - tolerance).clamp(0.0, 2.0 * limit);
        self.up.max(self.down)
    }

    pub(super) fn write(&self, w: &mut Writer) {
        w.f64(self.up);
        w.f64(self.down);
    }

    pub(super) fn read(r: &mut Reader<'_>, limit: f64) -> Result<Self, CodecError> {
        let (up, down) = (r.f64()?, r.f64()?);
        let within = |v: f64| (0.0..=2.0 * limit).contains(&v) && v.is_sign_positive();
        if !within(up) || !within(down) {
            return Err(r.invalid("a cumulative sum is out of range"));
        }
        Ok(Self { up, down })
    }
}
