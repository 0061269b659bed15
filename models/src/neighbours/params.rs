//! Options of nearest neighbours, and linfa's checked parameters made of them.

use serde::{Deserialize, Serialize};

use crate::ModelError;
use crate::params::{Options, Params, Valid};
use crate::t2q::BaselineKind;

/// Most rows kept of one detector.
pub(super) const MAX_SAMPLE: usize = 16_384;

/// Most neighbours.
pub(super) const MAX_NEIGHBOURS: usize = 16;

/// Most vectors remembered of a device, most vectors between two of them, longest delay.
pub(super) const MAX_RECENT: u32 = 4_096;

/// `algorithm = { kind = "nearest-neighbours", ... }`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct NearestNeighboursConfig {
    /// Over how many neighbours the distance is averaged, 1 to 16.
    pub neighbours: usize,
    /// Rows kept at most, 16 to 16,384.
    pub sample: usize,
    /// Vectors remembered of each device, 0 (the model is not online) to 4,096.
    pub recent: u32,
    /// With `recent`: one vector in how many is remembered, 1 to 4,096.
    pub every: u32,
    /// With `recent`: after how many vectors one begins to count, 1 to 4,096.
    pub delay: u32,
    /// `"fleet"` or `"device"`: reference rows of all devices, or of each its own.
    pub baseline: BaselineKind,
    /// Seed of the first row kept.
    pub seed: u64,
}

impl Default for NearestNeighboursConfig {
    fn default() -> Self {
        Self { neighbours: 1, sample: 512, recent: 0, every: 10, delay: 30, baseline: BaselineKind::Fleet, seed: 0 }
    }
}

/// Unchecked parameters, in linfa's manner: `NearestNeighboursParams::from(config).fit(&dataset)`.
pub type NearestNeighboursParams = Params<NearestNeighboursConfig>;

/// Parameters that passed the check; only these fit.
pub type NearestNeighboursValidParams = Valid<NearestNeighboursConfig>;

impl Options for NearestNeighboursConfig {
    fn check(&self) -> Result<(), ModelError> {
        let c = self;
        if !(1..=MAX_NEIGHBOURS).contains(&c.neighbours) {
            return Err(ModelError::config(
                "algorithm.neighbours",
                format!("{} is not a number of neighbours from 1 to {MAX_NEIGHBOURS}", c.neighbours),
            ));
        }
        if !(MAX_NEIGHBOURS..=MAX_SAMPLE).contains(&c.sample) {
            return Err(ModelError::config(
                "algorithm.sample",
                format!("{} is not a number of rows from {MAX_NEIGHBOURS} to {MAX_SAMPLE}, such as 512", c.sample),
            ));
        }
        if c.recent > MAX_RECENT {
            return Err(ModelError::config(
                "algorithm.recent",
                format!("{} is not a number of vectors from 0 to {MAX_RECENT}, such as 100", c.recent),
            ));
        }
        if !(1..=MAX_RECENT).contains(&c.every) {
            return Err(ModelError::config(
                "algorithm.every",
                format!("{} is not a number of vectors from 1 to {MAX_RECENT}, such as 10", c.every),
            ));
        }
        if !(1..=MAX_RECENT).contains(&c.delay) {
            return Err(ModelError::config(
                "algorithm.delay",
                format!(
                    "{} is not a number of vectors from 1 to {MAX_RECENT}; give as many as windows overlap, such as 30",
                    c.delay
                ),
            ));
        }
        Ok(())
    }
}
