//! Options of the random cut forest, and linfa's checked parameters made of them.

use serde::{Deserialize, Serialize};

use crate::ModelError;
use crate::params::{Options, Params, Valid};
use crate::t2q::BaselineKind;

/// Most trees of a model.
pub(super) const MAX_TREES: usize = 1_000;

/// Most rows of a tree.
pub(super) const MAX_SAMPLE: usize = 4_096;

/// Rows in the pool for each row of a tree.
pub(super) const POOL: usize = 4;

/// `algorithm = { kind = "random-cut-forest", ... }`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RandomCutForestConfig {
    /// Number of trees, 1 to 1,000.
    pub trees: usize,
    /// Rows a tree, 2 to 4,096.
    pub sample: usize,
    /// `"fleet"` or `"device"`: one forest for all devices, or for each its own.
    pub baseline: BaselineKind,
    /// Seed of samples and cuts.
    pub seed: u64,
}

impl Default for RandomCutForestConfig {
    fn default() -> Self {
        Self { trees: 40, sample: 256, baseline: BaselineKind::Fleet, seed: 0 }
    }
}

/// Unchecked parameters, in linfa's manner: `RandomCutForestParams::from(config).fit(&dataset)`.
pub type RandomCutForestParams = Params<RandomCutForestConfig>;

/// Parameters that passed the check; only these fit.
pub type RandomCutForestValidParams = Valid<RandomCutForestConfig>;

impl Options for RandomCutForestConfig {
    fn check(&self) -> Result<(), ModelError> {
        let c = self;
        if !(1..=MAX_TREES).contains(&c.trees) {
            return Err(ModelError::config(
                "algorithm.trees",
                format!("{} is not a number of trees from 1 to {MAX_TREES}, such as 40", c.trees),
            ));
        }
        if !(2..=MAX_SAMPLE).contains(&c.sample) {
            return Err(ModelError::config(
                "algorithm.sample",
                format!("{} is not a number of rows from 2 to {MAX_SAMPLE}, such as 256", c.sample),
            ));
        }
        Ok(())
    }
}
