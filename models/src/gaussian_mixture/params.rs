//! Options of the mixture, and linfa's checked parameters made of them.

use serde::{Deserialize, Serialize};

use crate::ModelError;
use crate::k_means::lloyd;
use crate::params::{Options, Params, Valid};

/// More conditions than this are no conditions.
const MAX_COMPONENTS: usize = 256;

/// `algorithm = { kind = "gaussian-mixture", components = 8, seed = 7 }`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GaussianMixtureConfig {
    /// How many components, 1 to 256. Fewer are kept if the data do not bear so many.
    pub components: usize,
    /// Seed of the k-means starts.
    #[serde(default)]
    pub seed: u64,
}

/// Unchecked parameters, in linfa's manner: `GaussianMixtureParams::from(config).fit(&dataset)`.
pub type GaussianMixtureParams = Params<GaussianMixtureConfig>;

/// Parameters that passed the check; only these fit.
pub type GaussianMixtureValidParams = Valid<GaussianMixtureConfig>;

impl GaussianMixtureValidParams {
    /// Where expectation maximisation begins.
    pub(super) fn start(&self, z: &[f64], p: usize) -> lloyd::Clusters {
        lloyd::cluster(z, p, self.config().components, self.config().seed)
    }
}

impl Options for GaussianMixtureConfig {
    fn check(&self) -> Result<(), ModelError> {
        let components = self.components;
        if !(1..=MAX_COMPONENTS).contains(&components) {
            return Err(ModelError::config(
                "algorithm.components",
                format!("{components} components: there may be 1 to {MAX_COMPONENTS}"),
            ));
        }
        Ok(())
    }
}
