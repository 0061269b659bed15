//! The chart with a level of each device that is learnt while the device is judged (`baseline = "adaptive"`).
//!
//! Devices of one make differ in level: `x = μ + b + e`, where `b` is the device's own and `e` its windows' scatter. A new
//! device is first compared with the fleet's mean `μ` and the scatter of fleet and windows together, and with each healthy
//! window a little more with itself (empirical Bayes: James and Stein 1961; Efron and Morris 1975):
//!
//! ```text
//!     mₙ = (k μ + x₁ + … + xₙ) / (k + n)                  the level after n windows
//!     k  = c σ² / τ²                                      the fleet's mean counts for k windows, for each feature
//!     Sₙ = W + [k kᵀ B + n √c √cᵀ W] / [(k+n) (k+n)ᵀ]      what x − mₙ scatters by: exactly, for independent b and e
//! ```
//!
//! `σ²` and `τ²` are the variances within and between the training devices, `W` and `B` their covariances, and `c` by how much
//! less a window tells of the level than an independent one would (overlapping and sluggish windows; by batch means). `S₀ = W +
//! B`, `S∞ = W`: the chart narrows as the level is known better. There is a chart for `n` = 0, 1, 2, 4, … windows; between
//! them the wider one holds.
//!
//! **What is learnt.** Only windows with a p-value above [`LEARN_ABOVE`], each feature's step cut at [`CLIP`] of its present
//! standard deviations, and only until `n` reaches `settle`, where the level's variance has fallen to a hundredth of the
//! windows' ([`MAX_SETTLE`] windows at most). From there on the level stands still.
//!
//! **What that trades.** A level that stands still does not follow a slow drift of the machine, so a fault that creeps is
//! called however slowly it creeps; and a machine whose healthy level moves for good is called until the model is trained
//! again. While a device is young the level moves, by at most `CLIP · S / (k + n + 1)` a window, less with each; a fault
//! that creeps through these first windows is half learnt. And a fault that a new device brings with it can be told only where
//! it is outside what the fleet shows; one that is outside stays called, for it is not learnt.
//!
//! **P-values.** The same online model is run over the held-back rows in time order, once with devices at their fitted level and
//! once as if they were new (compared with the mean of the other devices), from several starts. Scores of young devices
//! (level's variance above a tenth of the windows') and of grown ones have a calibration each. What young devices' rests on
//! is above all the number of devices, which the number of rows does not show.
//!
//! State: p means and a count a device. Determinism: as the rest of the chart.

mod file;
mod fit;
mod memory;
mod scorer;
mod train;

pub use memory::Level;
pub use scorer::AdaptiveScorer;

pub(crate) use file::{decode, is_adaptive};
pub(crate) use train::train;

use super::chart::Chart;

/// Windows at most this likely are not learnt from.
pub const LEARN_ABOVE: f64 = 0.01;

/// A feature's step is cut at so many standard deviations of what is expected at that age.
pub const CLIP: f64 = 2.0;

/// A level is settled after this many windows at the latest.
pub const MAX_SETTLE: u32 = 10_000;

/// Standardised values are cut off here, as in the other baselines.
const Z_MAX: f64 = 1e100;

/// What all devices share.
#[derive(Debug, Clone, PartialEq)]
pub struct Adaptive {
    /// The mean of the devices' means.
    pub(super) mean: Vec<f64>,
    /// How many windows the fleet's mean counts for, each feature; positive.
    pub(super) prior: Vec<f64>,
    /// Below so many windows a device is young.
    pub(super) young: u32,
    /// After so many windows its level stands still.
    pub(super) settle: u32,
    /// Charts by age, youngest first; the first is from 0.
    pub(super) rungs: Vec<Rung>,
}

/// The chart from an age on.
#[derive(Debug, Clone, PartialEq)]
pub struct Rung {
    /// Windows learnt.
    pub(super) from: u32,
    /// Standard deviation of a window about the level, each feature.
    pub(super) scale: Vec<f64>,
    /// Of what is standardised by it.
    pub(super) chart: Chart,
}

impl Adaptive {
    /// How many features a vector has.
    pub fn n_features(&self) -> usize {
        self.mean.len()
    }

    /// The level of a device nothing is known of.
    pub fn fresh(&self) -> Level {
        Level { seen: 0, mean: self.mean.clone() }
    }

    /// The chart for a device with so many windows learnt.
    fn rung(&self, seen: u32) -> &Rung {
        let after = self.rungs.partition_point(|r| r.from <= seen);
        &self.rungs[after.saturating_sub(1)]
    }

    /// Scores one vector of finite features against a level. Writes the level to `expected` and the contributions, which
    /// sum to the score in order.
    pub fn score(&self, level: &Level, x: &[f64], expected: &mut [f64], contributions: &mut [f64]) -> f64 {
        let rung = self.rung(level.seen);
        for (((z, x), m), s) in expected.iter_mut().zip(x).zip(&level.mean).zip(&rung.scale) {
            *z = ((x - m) / s).clamp(-Z_MAX, Z_MAX);
        }
        let score = rung.chart.score(expected, contributions);
        expected.copy_from_slice(&level.mean);
        score
    }

    /// Learns a vector of finite features whose p-value was `p`.
    pub fn learn(&self, level: &mut Level, x: &[f64], p: f64) {
        if p <= LEARN_ABOVE || level.seen >= self.settle {
            return;
        }
        let rung = self.rung(level.seen);
        let weight = f64::from(level.seen) + 1.0;
        for (((m, x), s), k) in level.mean.iter_mut().zip(x).zip(&rung.scale).zip(&self.prior) {
            *m += (x - *m).clamp(-CLIP * s, CLIP * s) / (k + weight);
        }
        level.seen += 1;
    }
}
