//! Options of the chart, and linfa's checked parameters made of them.

use serde::{Deserialize, Serialize};

use crate::ModelError;
use crate::params::{Options, Params, Valid};
use crate::t2q::Shrinkage;

/// Charts side by side, at most: more would only repeat their neighbours.
const MAX_SCALES: usize = 8;

/// `algorithm = { kind = "mewma", ... }`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MewmaConfig {
    /// Weight λ of the newest vector in the chart with the longest memory, at least 0.001 and at most 1.
    pub smoothing: f64,
    /// How many charts, 1 to 8. One has λ = `smoothing`; several go from λ = 1 to `smoothing` in equal ratios.
    pub scales: usize,
    /// `"auto"` or a number from 0 (correlations as measured) to 1 (none at all).
    pub shrinkage: Shrinkage,
    /// Recorded in the card; the chart draws nothing at random.
    pub seed: u64,
}

impl Default for MewmaConfig {
    fn default() -> Self {
        Self { smoothing: 0.2, scales: 1, shrinkage: Shrinkage::Auto, seed: 0 }
    }
}

/// Unchecked parameters, in linfa's manner: `MewmaParams::from(config).fit(&dataset)`.
pub type MewmaParams = Params<MewmaConfig>;

/// Parameters that passed the check; only these fit.
pub type MewmaValidParams = Valid<MewmaConfig>;

impl MewmaValidParams {
    /// λ of each chart, the shortest memory first.
    pub fn lambdas(&self) -> Vec<f64> {
        let (smoothing, scales) = (self.config().smoothing, self.config().scales);
        match scales {
            1 => vec![smoothing],
            n => (0..n).map(|k| libm::pow(smoothing, k as f64 / (n - 1) as f64)).collect(),
        }
    }
}

impl Options for MewmaConfig {
    fn check(&self) -> Result<(), ModelError> {
        let c = self;
        if !(0.001..=1.0).contains(&c.smoothing) {
            return Err(ModelError::config(
                "algorithm.smoothing",
                format!("{} is not a weight from 0.001 to 1, such as 0.2", c.smoothing),
            ));
        }
        if !(1..=MAX_SCALES).contains(&c.scales) {
            return Err(ModelError::config(
                "algorithm.scales",
                format!("{} charts: there may be 1 to {MAX_SCALES}", c.scales),
            ));
        }
        if c.scales > 1 && c.smoothing == 1.0 {
            return Err(ModelError::config(
                "algorithm.scales",
                "with `smoothing = 1` all charts would be the same; give a smaller `smoothing`, or leave `scales` out",
            ));
        }
        if let Shrinkage::Fixed(s) = c.shrinkage
            && !(0.0..=1.0).contains(&s)
        {
            return Err(ModelError::config(
                "algorithm.shrinkage",
                format!("{s} is neither \"auto\" nor a number from 0 to 1"),
            ));
        }
        Ok(())
    }
}
