//! The one option of the univariate detector, and linfa's checked parameters made of it.

use linfa::ParamGuard;
use serde::{Deserialize, Serialize};

use crate::ModelError;

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

/// Unchecked parameters, in linfa's manner.
#[derive(Debug, Clone, PartialEq)]
pub struct UnivariateParams(UnivariateValidParams);

/// Parameters that passed [`ParamGuard::check`].
#[derive(Debug, Clone, PartialEq)]
pub struct UnivariateValidParams(UnivariateConfig);

impl From<UnivariateConfig> for UnivariateParams {
    fn from(config: UnivariateConfig) -> Self {
        Self(UnivariateValidParams(config))
    }
}

impl UnivariateValidParams {
    /// The options.
    pub fn config(&self) -> &UnivariateConfig {
        &self.0
    }
}

impl ParamGuard for UnivariateParams {
    type Checked = UnivariateValidParams;
    type Error = ModelError;

    fn check_ref(&self) -> Result<&UnivariateValidParams, ModelError> {
        let rest = self.0.0.rest;
        if rest > LONGEST_REST {
            return Err(ModelError::config(
                "algorithm.rest",
                format!("{rest} readings are more than {LONGEST_REST}; about 200 is usual"),
            ));
        }
        Ok(&self.0)
    }

    fn check(self) -> Result<UnivariateValidParams, ModelError> {
        self.check_ref()?;
        Ok(self.0)
    }
}
