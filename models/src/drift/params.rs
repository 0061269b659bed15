//! Options of the drift detector, and linfa's checked parameters made of them.

use serde::{Deserialize, Serialize};

use crate::ModelError;
use crate::params::{Options, Params, Valid};

/// What a device is compared with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DriftBaseline {
    /// One mean and spread for all devices.
    #[default]
    Fleet,
    /// Each device's own mean, with the spread pooled within devices; the fleet's for devices that were not in the training
    /// data.
    Device,
}

/// Where limits come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LimitsKind {
    /// The options' values, each raised to 1.25 times the largest that any training row reaches.
    #[default]
    HeldBack,
    /// The options' values.
    Fixed,
}

/// `algorithm = { kind = "drift", ... }`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DriftConfig {
    /// `"fleet"` or `"device"`.
    pub baseline: DriftBaseline,
    /// Recent rows the population stability index is over, and rows a reference is learnt anew from: 20 to 1,000.
    pub window: usize,
    /// Quantile bins of the index: 2 to 50.
    pub bins: usize,
    /// Page-Hinkley's δ, in standard deviations: smaller moves are let pass. Above 0, at most 3.
    pub tolerance: f64,
    /// Page-Hinkley's limit λ, in standard deviations summed up. Above 0, at most 10,000.
    pub page_hinkley: f64,
    /// ADWIN's δ: the chance of a false cut, above 0 and below 1.
    pub confidence: f64,
    /// Limit of the population stability index. Above 0, at most 10.
    pub psi: f64,
    /// `"held-back"` or `"fixed"`.
    pub limits: LimitsKind,
    /// Whether the reference is learnt anew after a detection.
    pub adapt: bool,
    /// Recorded in the card; nothing is drawn at random.
    pub seed: u64,
}

impl Default for DriftConfig {
    fn default() -> Self {
        Self {
            baseline: DriftBaseline::Fleet,
            window: 200,
            bins: 10,
            tolerance: 0.5,
            page_hinkley: 15.0,
            confidence: 0.002,
            psi: 0.25,
            limits: LimitsKind::HeldBack,
            adapt: false,
            seed: 0,
        }
    }
}

/// Unchecked parameters, in linfa's manner: `DriftParams::from(config).fit(&dataset)`.
pub type DriftParams = Params<DriftConfig>;

/// Parameters that passed the check; only these fit.
pub type DriftValidParams = Valid<DriftConfig>;

/// What `check` allows; the model file is read by the same bounds.
pub(super) const WINDOW: std::ops::RangeInclusive<usize> = 20..=1_000;
pub(super) const BINS: std::ops::RangeInclusive<usize> = 2..=50;
pub(super) const MOST_TOLERANCE: f64 = 3.0;

impl Options for DriftConfig {
    fn check(&self) -> Result<(), ModelError> {
        let c = self;
        if !WINDOW.contains(&c.window) {
            let why = format!("{} is not a number of rows from {} to {}", c.window, WINDOW.start(), WINDOW.end());
            return Err(ModelError::config("algorithm.window", why));
        }
        if !BINS.contains(&c.bins) {
            let why = format!("{} is not a number of bins from {} to {}", c.bins, BINS.start(), BINS.end());
            return Err(ModelError::config("algorithm.bins", why));
        }
        let above_zero = |key: &'static str, v: f64, most: f64| {
            if v > 0.0 && v <= most {
                Ok(())
            } else {
                Err(ModelError::config(key, format!("{v} is not a number above 0 and at most {most}")))
            }
        };
        above_zero("algorithm.tolerance", c.tolerance, MOST_TOLERANCE)?;
        above_zero("algorithm.page_hinkley", c.page_hinkley, 10_000.0)?;
        above_zero("algorithm.psi", c.psi, 10.0)?;
        if !(c.confidence > 0.0 && c.confidence < 1.0) {
            let why = format!("{} is not a probability above 0 and below 1, such as 0.002", c.confidence);
            return Err(ModelError::config("algorithm.confidence", why));
        }
        Ok(())
    }
}
