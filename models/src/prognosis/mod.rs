//! Estimates and probabilities: what the kinds that predict a label have in common.
//!
//! ```text
//!     features ─► recipe (of the device's past, if there is one) ─► one model, or the mean of several ─► raw value
//!
//!     remaining life:  clamped to the labels' range  ─► value, with an interval by split conformal prediction
//!     failure:         Platt's scaling               ─► probability
//! ```
//!
//! Contributions add up to the value minus the model's base (in the card): where clamping or scaling moves the value, they
//! are moved in the same proportion.

mod card;
mod file;
pub mod interval;
mod parts;
pub mod platt;
mod scorer;
mod table;
mod train;

use serde::{Deserialize, Serialize};

use crate::blend::PartConfig;
use crate::config::AlgorithmConfig;
use crate::label::LabelConfig;
use crate::recipe::RecipeConfig;
use crate::{ModelError, blend, gradient_boosting, kernel_ridge, linear};

pub(crate) use file::decode;
pub use scorer::Prognosis;
pub use table::Table;
pub(crate) use train::train_model;

/// Whether this program has such a kind, and it is a prognosis.
pub(crate) fn is_kind(kind: &str) -> bool {
    [blend::KIND, gradient_boosting::KIND, kernel_ridge::KIND, linear::KIND].contains(&kind)
}

/// What an algorithm asks for, whichever kind it is.
pub(crate) struct Wanted<'a> {
    pub of: Vec<PartConfig>,
    pub recipe: Option<&'a RecipeConfig>,
    pub refit: bool,
    pub seed: u64,
}

impl<'a> Wanted<'a> {
    /// `None` if the algorithm is no prognosis.
    pub fn by(algorithm: &'a AlgorithmConfig) -> Result<Option<Self>, ModelError> {
        let one = |part: PartConfig, recipe: &'a Option<RecipeConfig>| {
            let (refit, seed) = (part.refit(), part.seed());
            Ok(Some(Self { of: vec![part], recipe: recipe.as_ref(), refit, seed }))
        };
        match algorithm {
            AlgorithmConfig::GradientBoosting(c) => one(PartConfig::GradientBoosting(c.clone()), &c.recipe),
            AlgorithmConfig::KernelRidge(c) => one(PartConfig::KernelRidge(c.clone()), &c.recipe),
            AlgorithmConfig::Linear(c) => one(PartConfig::Linear(c.clone()), &c.recipe),
            AlgorithmConfig::Blend(c) => {
                if c.of.is_empty() || c.of.len() > 16 {
                    return Err(ModelError::config("algorithm.of", "a blend is of 1 to 16 models"));
                }
                if c.of.iter().any(|p| p.recipe().is_some() || p.refit()) {
                    let why = "`recipe` and `refit` belong to the blend, not to one of its parts";
                    return Err(ModelError::config("algorithm.of", why));
                }
                Ok(Some(Self { of: c.of.clone(), recipe: c.recipe.as_ref(), refit: c.refit, seed: c.seed }))
            }
            #[allow(unreachable_patterns)]
            _ => Ok(None),
        }
    }
}

/// What the card says of a prognosis, over the held-back rows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PrognosisCard {
    /// What the labels are.
    pub label: LabelConfig,
    /// Rows that were left out because their window ended after the failure.
    pub rows_after_failure: u64,
    /// Mean label of the rows used.
    pub mean_label: f64,
    /// What contributions are counted from.
    pub base: f64,
    /// Held-back devices.
    pub devices_held_back: u64,
    /// Whether the model was fitted once more, on all rows, after it was calibrated.
    pub refit: bool,
    /// Root mean squared error of the values: in the label's unit; of probabilities, the root of the Brier score.
    pub rmse: f64,
    /// Mean absolute error.
    pub mean_absolute_error: f64,
    /// Intervals, by the value they are about; none of a probability.
    pub intervals: Vec<interval::Band>,
    /// Share of truths that intervals held, when those of the first half of the held-back devices are tried on the second.
    pub coverage_across_devices: Option<f64>,
    /// Said against seen; none of an estimate.
    pub reliability: Vec<Reliability>,
}

/// One row of a reliability table.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reliability {
    /// Probabilities from here.
    pub from: f64,
    /// To below here.
    pub to: f64,
    /// Held-back rows that were given one of these.
    pub rows: u64,
    /// Their mean probability.
    pub said: f64,
    /// Share of them that failed.
    pub seen: f64,
}
