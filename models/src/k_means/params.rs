//! Options of k-means, and linfa's checked parameters made of them.

use serde::{Deserialize, Serialize};

use crate::ModelError;
use crate::params::{Options, Params, Valid};

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
pub type KMeansParams = Params<KMeansConfig>;

/// Parameters that passed the check; only these fit.
pub type KMeansValidParams = Valid<KMeansConfig>;

impl Options for KMeansConfig {
    fn check(&self) -> Result<(), ModelError> {
        let clusters = self.clusters;
        if !(1..=MAX_CLUSTERS).contains(&clusters) {
            return Err(ModelError::config(
                "algorithm.clusters",
                format!("{clusters} clusters: there may be 1 to {MAX_CLUSTERS}"),
            ));
        }
        Ok(())
    }
}
