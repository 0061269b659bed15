//! How rare a statistic is, from the extremes of its own past: peaks over a threshold on a bounded sketch.
//!
//! The sketch keeps the largest [`PEAKS`] block maxima (blocks of [`BLOCK`] readings, since extremes come in clusters).
//! Above the least of them, `u`, the survival is that of a generalised Pareto tail (Pickands 1975), its shape and scale
//! fitted to the excesses by their first two moments (Hosking and Wallis 1987):
//!
//! ```text
//!     P(Z ≥ z) = k/n · (1 + ξ (z − u) / σ)^(−1/ξ)      ξ = ½ (1 − m²/v),  σ = m (1 − ξ)
//! ```
//!
//! with mean `m` and variance `v` of the `k − 1` excesses. The shape is drawn towards 0 by as much as [`PRIOR`] excesses
//! and kept in 0 ..= ½. Below `u` the probability falls on a line from 1 at 0; nothing is decided there. This is the idea of
//! SPOT (Siffer et al. 2017) without its optimiser: a reading costs a comparison, and only extremes cost more.

use avouch_engine::codec::{CodecError, Reader, Writer};

/// Block maxima kept.
const PEAKS: usize = 30;

/// Readings in a block.
const BLOCK: u8 = 5;

/// Block maxima below which nothing is rare.
const LEAST: usize = 4;

/// Readings after which the past counts half: every other peak is dropped.
const HORIZON: u32 = 50_000;

/// How many excesses the prior of the shape is worth.
const PRIOR: f64 = 20.0;

/// Heaviest tail.
const HEAVIEST: f64 = 0.5;

/// log₁₀ e
const LOG10_E: f64 = std::f64::consts::LOG10_E;

/// The sketch of one statistic's upper tail.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Tail {
    /// Largest first; those from `kept` on are 0.
    peaks: [f32; PEAKS],
    kept: u8,
    /// Readings seen, fewer after the horizon.
    readings: u32,
    /// Largest of the block that is under way, and its readings.
    block_max: f32,
    block: u8,
}

impl Tail {
    pub(super) const EMPTY: Self = Self { peaks: [0.0; PEAKS], kept: 0, readings: 0, block_max: 0.0, block: 0 };

    /// −log₁₀ of the probability of a statistic at least as large as `z` ≥ 0.
    #[inline]
    pub(super) fn surprise(&self, z: f64) -> f64 {
        let kept = usize::from(self.kept);
        if kept < LEAST || z <= 0.0 {
            return 0.0;
        }
        let least = f64::from(self.peaks[kept - 1]);
        let rate = kept as f64 / (f64::from(self.readings) + 1.0);
        if z <= least {
            return -libm::log10(rate + (1.0 - rate) * (1.0 - z / least));
        }
        self.beyond(z - least, least, rate)
    }

    fn beyond(&self, excess: f64, least: f64, rate: f64) -> f64 {
        let kept = usize::from(self.kept);
        let (mut sum, mut squares) = (0.0, 0.0);
        for peak in &self.peaks[..kept] {
            let e = f64::from(*peak) - least;
            sum += e;
            squares += e * e;
        }
        let n = (kept - 1) as f64;
        // Peaks that are all equal still leave a tail to divide by.
        let mean = (sum / n).max(1e-9 * least);
        let variance = squares / n - mean * mean;
        let shape = if variance > 0.0 { 0.5 * (1.0 - mean * mean / variance) } else { 0.0 };
        let shape = (shape * n / (n + PRIOR)).clamp(0.0, HEAVIEST);
        let over = excess / (mean * (1.0 - shape));
        let log_survival = if shape < 1e-6 { over } else { libm::log1p(shape * over) / shape };
        log_survival * LOG10_E - libm::log10(rate)
    }

    /// Takes in the statistic of one more reading, at least 0 and finite.
    #[inline]
    pub(super) fn add(&mut self, z: f64) {
        self.readings += 1;
        let z = z.min(f64::from(f32::MAX)) as f32;
        if z > self.block_max {
            self.block_max = z;
        }
        self.block += 1;
        if self.block == BLOCK {
            self.end_block();
        }
        if self.readings >= HORIZON {
            self.forget();
        }
    }

    fn end_block(&mut self) {
        let peak = std::mem::replace(&mut self.block_max, 0.0);
        self.block = 0;
        let kept = usize::from(self.kept);
        if peak <= 0.0 || (kept == PEAKS && peak <= self.peaks[PEAKS - 1]) {
            return;
        }
        let at = self.peaks[..kept].partition_point(|p| *p >= peak);
        let last = kept.min(PEAKS - 1);
        self.peaks.copy_within(at..last, at + 1);
        self.peaks[at] = peak;
        self.kept = (last + 1) as u8;
    }

    fn forget(&mut self) {
        self.readings /= 2;
        let kept = usize::from(self.kept).div_ceil(2);
        for i in 0..kept {
            self.peaks[i] = self.peaks[2 * i];
        }
        self.peaks[kept..].fill(0.0);
        self.kept = kept as u8;
    }

    pub(super) fn write(&self, w: &mut Writer) {
        w.u32(self.readings);
        w.u8(self.block);
        w.u32(self.block_max.to_bits());
        w.u8(self.kept);
        for p in &self.peaks[..usize::from(self.kept)] {
            w.u32(p.to_bits());
        }
    }

    pub(super) fn read(r: &mut Reader<'_>) -> Result<Self, CodecError> {
        let mut out = Self { readings: r.u32()?, block: r.u8()?, ..Self::EMPTY };
        out.block_max = f32::from_bits(r.u32()?);
        out.kept = r.u8()?;
        let kept = usize::from(out.kept);
        let block = u32::from(out.block);
        if out.readings >= HORIZON || block >= u32::from(BLOCK) || block > out.readings || kept > PEAKS {
            return Err(r.invalid(format!("a tail of {} readings with {kept} peaks", out.readings)));
        }
        // No peak and no maximum comes of a sign bit, so 0 has one encoding.
        let fine = |v: f32| v.is_finite() && v.is_sign_positive();
        if !fine(out.block_max) || (out.block == 0 && out.block_max > 0.0) {
            return Err(r.invalid("a block whose maximum is none"));
        }
        for i in 0..kept {
            let peak = f32::from_bits(r.u32()?);
            if !fine(peak) || peak <= 0.0 || (i > 0 && peak > out.peaks[i - 1]) {
                return Err(r.invalid(format!("peak {i} is out of order")));
            }
            out.peaks[i] = peak;
        }
        Ok(out)
    }
}
