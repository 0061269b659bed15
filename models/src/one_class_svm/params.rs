//! Options of the machine, and linfa's checked parameters made of them.

use serde::{Deserialize, Serialize};

use crate::ModelError;
use crate::params::{Options, Params, Valid};

/// `algorithm = { kind = "one-class-svm", nu = 0.05 }`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct OneClassSvmConfig {
    /// Share of the training rows left outside, at most; above 0 and at most 1.
    pub nu: f64,
    /// Width of the kernel exp(−‖z − s‖² / eps) in squared deviations. Default: twice the number of features.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub eps: Option<f64>,
    /// Seed of the draw of rows, where there are more than the fit takes.
    pub seed: u64,
}

impl Default for OneClassSvmConfig {
    fn default() -> Self {
        Self { nu: 0.05, eps: None, seed: 0 }
    }
}

/// Unchecked parameters, in linfa's manner: `OneClassSvmParams::from(config).fit(&dataset)`.
pub type OneClassSvmParams = Params<OneClassSvmConfig>;

/// Parameters that passed the check; only these fit.
pub type OneClassSvmValidParams = Valid<OneClassSvmConfig>;

impl Options for OneClassSvmConfig {
    fn check(&self) -> Result<(), ModelError> {
        let c = self;
        if !(c.nu > 0.0 && c.nu <= 1.0) {
            return Err(ModelError::config(
                "algorithm.nu",
                format!("{} is not a share above 0 and at most 1, such as 0.05", c.nu),
            ));
        }
        if let Some(eps) = c.eps
            && !(1e-6..=1e6).contains(&eps)
        {
            return Err(ModelError::config(
                "algorithm.eps",
                format!("{eps} is not a width from 1e-6 to 1e6; leave it out for twice the number of features"),
            ));
        }
        Ok(())
    }
}
