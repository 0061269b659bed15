//! Options of the mixture, and linfa's checked parameters made of them.

use linfa::ParamGuard;
use serde::{Deserialize, Serialize};

use crate::ModelError;
use crate::k_means::lloyd;

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
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GaussianMixtureParams(GaussianMixtureValidParams);

/// Parameters that passed [`ParamGuard::check`]; only these fit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GaussianMixtureValidParams(GaussianMixtureConfig);

impl From<GaussianMixtureConfig> for GaussianMixtureParams {
    fn from(config: GaussianMixtureConfig) -> Self {
        Self(GaussianMixtureValidParams(config))
    }
}

impl GaussianMixtureValidParams {
    /// The options.
    pub fn config(&self) -> &GaussianMixtureConfig {
        &self.0
    }

    /// Where expectation maximisation begins.
    pub(super) fn start(&self, z: &[f64], p: usize) -> lloyd::Clusters {
        lloyd::cluster(z, p, self.0.components, self.0.seed)
    }
}

impl ParamGuard for GaussianMixtureParams {
    type Checked = GaussianMixtureValidParams;
    type Error = ModelError;

    fn check_ref(&self) -> Result<&GaussianMixtureValidParams, ModelError> {
        let components = self.0.0.components;
        if !(1..=MAX_COMPONENTS).contains(&components) {
            return Err(ModelError::config(
                "algorithm.components",
                format!("{components} components: there may be 1 to {MAX_COMPONENTS}"),
            ));
        }
        Ok(&self.0)
    }

    fn check(self) -> Result<GaussianMixtureValidParams, ModelError> {
        self.check_ref()?;
        Ok(self.0)
    }
}
