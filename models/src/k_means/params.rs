//! Options of k-means, and linfa's checked parameters made of them.

use linfa::ParamGuard;
use serde::{Deserialize, Serialize};

use crate::ModelError;

/// More conditions than this are no conditions.
pub(crate) const MAX_CLUSTERS: usize = 256;

/// `algorithm = { kind = "k-means", clusters = 8, seed = 7 }`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KMeansConfig {
    /// How many centres, 1 to 256. Fewer are kept if there are fewer different rows.
    pub clusters: usize,
    /// Seed of the starts.
    #[serde(default)]
    pub seed: u64,
}

/// Unchecked parameters, in linfa's manner: `KMeansParams::from(config).fit(&dataset)`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KMeansParams(KMeansValidParams);

/// Parameters that passed [`ParamGuard::check`]; only these fit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KMeansValidParams(KMeansConfig);

impl From<KMeansConfig> for KMeansParams {
    fn from(config: KMeansConfig) -> Self {
        Self(KMeansValidParams(config))
    }
}

impl KMeansValidParams {
    /// The options.
    pub fn config(&self) -> &KMeansConfig {
        &self.0
    }
}

impl ParamGuard for KMeansParams {
    type Checked = KMeansValidParams;
    type Error = ModelError;

    fn check_ref(&self) -> Result<&KMeansValidParams, ModelError> {
        let clusters = self.0.0.clusters;
        if !(1..=MAX_CLUSTERS).contains(&clusters) {
            return Err(ModelError::config(
                "algorithm.clusters",
                format!("{clusters} clusters: there may be 1 to {MAX_CLUSTERS}"),
            ));
        }
        Ok(&self.0)
    }

    fn check(self) -> Result<KMeansValidParams, ModelError> {
        self.check_ref()?;
        Ok(self.0)
    }
}
