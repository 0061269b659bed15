//! Options of half-space trees, and linfa's checked parameters made of them.

use serde::{Deserialize, Serialize};

use crate::ModelError;
use crate::params::{Options, Params, Valid};
use crate::t2q::BaselineKind;

/// Most trees of a model.
pub(super) const MAX_TREES: usize = 1_000;

/// Deepest tree: 4,096 cells.
pub(super) const MAX_DEPTH: usize = 12;

/// Longest window of an online model.
pub(super) const MAX_WINDOW: u32 = 1_000_000;

/// `algorithm = { kind = "half-space-trees", ... }`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HalfSpaceTreesConfig {
    /// Number of trees, 1 to 1,000.
    pub trees: usize,
    /// Cuts from root to leaf, 1 to 12.
    pub depth: usize,
    /// Whether a device's masses are those of its own last window of vectors.
    pub online: bool,
    /// With `online`: vectors a window, 2 to 1,000,000.
    pub window: u32,
    /// `"fleet"` or `"device"`: trees for all devices, or for each its own.
    pub baseline: BaselineKind,
    /// Seed of the cuts.
    pub seed: u64,
}

impl Default for HalfSpaceTreesConfig {
    fn default() -> Self {
        Self { trees: 50, depth: 8, online: false, window: 256, baseline: BaselineKind::Fleet, seed: 0 }
    }
}

/// Unchecked parameters, in linfa's manner: `HalfSpaceTreesParams::from(config).fit(&dataset)`.
pub type HalfSpaceTreesParams = Params<HalfSpaceTreesConfig>;

/// Parameters that passed the check; only these fit.
pub type HalfSpaceTreesValidParams = Valid<HalfSpaceTreesConfig>;

impl Options for HalfSpaceTreesConfig {
    fn check(&self) -> Result<(), ModelError> {
        let c = self;
        if !(1..=MAX_TREES).contains(&c.trees) {
            return Err(ModelError::config(
                "algorithm.trees",
                format!("{} is not a number of trees from 1 to {MAX_TREES}, such as 50", c.trees),
            ));
        }
        if !(1..=MAX_DEPTH).contains(&c.depth) {
            return Err(ModelError::config(
                "algorithm.depth",
                format!("{} is not a depth from 1 to {MAX_DEPTH}, such as 8", c.depth),
            ));
        }
        if !(2..=MAX_WINDOW).contains(&c.window) {
            return Err(ModelError::config(
                "algorithm.window",
                format!("{} is not a number of vectors from 2 to {MAX_WINDOW}, such as 256", c.window),
            ));
        }
        Ok(())
    }
}
