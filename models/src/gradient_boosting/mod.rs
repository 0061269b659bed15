//! Gradient-boosted trees on squared error: `forust-ml` grows them, we keep, walk and explain them.
//!
//! Friedman 2001; histograms of `forust-ml` 0.8 as in LightGBM. Two things are settled here for determinism: it runs on one
//! thread, and the loss is squared error also for 0/1 labels (a Brier score; calibration makes a probability of it), because
//! its logistic loss calls the platform's `exp`. Its sums are in `f32` and in a fixed order; rows and columns are drawn with
//! the seed.
//!
//! Contributions: along the path of each tree, what a split moves the mean of the training rows belongs to the split's
//! feature (Saabas 2014). They add up to the value minus the mean over the training rows.

mod grow;
mod trees;

use serde::{Deserialize, Serialize};

use crate::ModelError;
use crate::recipe::RecipeConfig;
pub(crate) use trees::Trees;

/// The name in TOML and in the model file.
pub const KIND: &str = "gradient-boosting";

/// `algorithm = { kind = "gradient-boosting", ... }`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct GradientBoostingConfig {
    /// How many trees.
    pub trees: usize,
    /// Splits from root to leaf, at most.
    pub depth: usize,
    /// Leaves of a tree, at most; the best splits come first. 0: as many as the depth allows.
    pub leaves: usize,
    /// Share of each tree that is added.
    pub learning_rate: f64,
    /// Penalty on leaf values, in rows.
    pub l2: f64,
    /// Rows in a leaf, at least.
    pub min_rows: f64,
    /// Share of rows each tree is grown on.
    pub rows: f64,
    /// Share of inputs each tree may split by.
    pub columns: f64,
    /// Bins of an input.
    pub bins: u16,
    /// Features of the device's past, see [`crate::recipe`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recipe: Option<RecipeConfig>,
    /// Fit once more on all rows after calibrating on those held back.
    pub refit: bool,
    /// Draws rows and columns, and seeds the recipe's search for operating conditions.
    pub seed: u64,
}

impl Default for GradientBoostingConfig {
    fn default() -> Self {
        Self {
            trees: 300,
            depth: 5,
            leaves: 0,
            learning_rate: 0.05,
            l2: 1.0,
            min_rows: 20.0,
            rows: 1.0,
            columns: 1.0,
            bins: 255,
            recipe: None,
            refit: false,
            seed: 0,
        }
    }
}

impl GradientBoostingConfig {
    fn check(&self) -> Result<(), ModelError> {
        let refuse = |key, why: String| Err(ModelError::config(key, why));
        if self.trees == 0 || self.trees > 10_000 {
            return refuse("algorithm.trees", format!("{} is not from 1 to 10000", self.trees));
        }
        if self.depth == 0 || self.depth > trees::MAX_DEPTH {
            return refuse("algorithm.depth", format!("{} is not from 1 to {}", self.depth, trees::MAX_DEPTH));
        }
        if self.leaves == 1 || self.leaves > 1 << trees::MAX_DEPTH {
            return refuse("algorithm.leaves", format!("{} leaves are not 0, nor from 2 to 65536", self.leaves));
        }
        for (key, v) in [
            ("algorithm.learning_rate", self.learning_rate),
            ("algorithm.rows", self.rows),
            ("algorithm.columns", self.columns),
        ] {
            if !(v > 0.0 && v <= 1.0) {
                return refuse(key, format!("{v} is not a share above 0 and at most 1"));
            }
        }
        for (key, v) in [("algorithm.l2", self.l2), ("algorithm.min_rows", self.min_rows)] {
            if !(0.0..=1e9).contains(&v) {
                return refuse(key, format!("{v} is not a number of rows, 0 or more"));
            }
        }
        if self.bins < 2 || self.bins > 10_000 {
            return refuse("algorithm.bins", format!("{} is not from 2 to 10000", self.bins));
        }
        Ok(())
    }
}
