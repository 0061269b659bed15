//! The mean of several models on the same inputs: each errs in its own way, and the mean errs less than most of them.

use serde::{Deserialize, Serialize};

use crate::gradient_boosting::GradientBoostingConfig;
use crate::kernel_ridge::KernelRidgeConfig;
use crate::linear::LinearConfig;
use crate::recipe::RecipeConfig;

/// The name in TOML and in the model file.
pub const KIND: &str = "blend";

/// `algorithm = { kind = "blend", of = [{ kind = "gradient-boosting" }, { kind = "kernel-ridge" }], ... }`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BlendConfig {
    /// The models, all of one weight.
    pub of: Vec<PartConfig>,
    /// Features of the device's past, see [`crate::recipe`]. The parts have no recipes of their own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recipe: Option<RecipeConfig>,
    /// Fit once more on all rows after calibrating on those held back.
    #[serde(default)]
    pub refit: bool,
    /// Seeds the recipe's search for operating conditions; the parts have seeds of their own.
    #[serde(default)]
    pub seed: u64,
}

/// One of the models.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind")]
pub enum PartConfig {
    /// See [`crate::gradient_boosting`].
    #[serde(rename = "gradient-boosting")]
    GradientBoosting(GradientBoostingConfig),
    /// See [`crate::kernel_ridge`].
    #[serde(rename = "kernel-ridge")]
    KernelRidge(KernelRidgeConfig),
    /// See [`crate::linear`].
    #[serde(rename = "linear")]
    Linear(LinearConfig),
}

impl PartConfig {
    pub(crate) fn recipe(&self) -> Option<&RecipeConfig> {
        match self {
            Self::GradientBoosting(c) => c.recipe.as_ref(),
            Self::KernelRidge(c) => c.recipe.as_ref(),
            Self::Linear(c) => c.recipe.as_ref(),
        }
    }

    pub(crate) fn refit(&self) -> bool {
        match self {
            Self::GradientBoosting(c) => c.refit,
            Self::KernelRidge(c) => c.refit,
            Self::Linear(c) => c.refit,
        }
    }

    pub(crate) fn seed(&self) -> u64 {
        match self {
            Self::GradientBoosting(c) => c.seed,
            Self::KernelRidge(c) => c.seed,
            Self::Linear(c) => c.seed,
        }
    }
}
