//! Options of the random cut forest, and linfa's checked parameters made of them.

use linfa::ParamGuard;
use serde::{Deserialize, Serialize};

use crate::ModelError;
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

/// Unchecked parameters, in linfa's manner.
#[derive(Debug, Clone, PartialEq)]
pub struct RandomCutForestParams(RandomCutForestValidParams);

/// Parameters that passed [`ParamGuard::check`]; only these fit.
#[derive(Debug, Clone, PartialEq)]
pub struct RandomCutForestValidParams(pub(super) RandomCutForestConfig);

impl From<RandomCutForestConfig> for RandomCutForestParams {
    fn from(config: RandomCutForestConfig) -> Self {
        Self(RandomCutForestValidParams(config))
    }
}

impl ParamGuard for RandomCutForestParams {
    type Checked = RandomCutForestValidParams;
    type Error = ModelError;

    fn check_ref(&self) -> Result<&RandomCutForestValidParams, ModelError> {
        let c = &self.0.0;
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
        Ok(&self.0)
    }

    fn check(self) -> Result<RandomCutForestValidParams, ModelError> {
        self.check_ref()?;
        Ok(self.0)
    }
}
