//! The one option of the univariate detector, and linfa's checked parameters made of it.

use serde::{Deserialize, Serialize};

use crate::ModelError;
use crate::params::{Options, Params, Valid};

/// Longest rest that may be set, in readings.
pub(super) const LONGEST_REST: u32 = 1_000_000;

/// `algorithm = { kind = "univariate", ... }`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct UnivariateConfig {
    /// Readings after an alarm in which only what is clearly louder is said. 0: every reading is said as it is.
    pub rest: u32,
    /// Recorded in the card; nothing is drawn at random.
    pub seed: u64,
}

impl Default for UnivariateConfig {
    fn default() -> Self {
        Self { rest: 200, seed: 0 }
    }
}

/// Unchecked parameters, in linfa's manner: `UnivariateParams::from(config).fit(&dataset)`.
pub type UnivariateParams = Params<UnivariateConfig>;

/// Parameters that passed the check; only these fit.
pub type UnivariateValidParams = Valid<UnivariateConfig>;

impl Options for UnivariateConfig {
    fn check(&self) -> Result<(), ModelError> {
        let rest = self.rest;
        if rest > LONGEST_REST {
            return Err(ModelError::config(
                "algorithm.rest",
                format!("{rest} readings are more than {LONGEST_REST}; about 200 is usual"),
            ));
        }
        Ok(())
    }
}
