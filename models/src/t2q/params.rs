//! Options of the T²/Q chart, and linfa's checked parameters made of them.

use serde::{Deserialize, Serialize};

use crate::ModelError;
use crate::params::{Options, Params, Valid};

/// What a device is compared with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BaselineKind {
    /// One mean and spread for all devices.
    #[default]
    Fleet,
    /// Each device's own mean; the fleet's for devices that were not in the training data.
    Device,
    /// The fleet's mean at first, then each device's own as it earns it, see [`super::adaptive`].
    Adaptive,
}

/// Whose spread a device's features are divided by. Only with `baseline = "device"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ScaleKind {
    /// The fleet's spread within devices: for machines of one make, and whenever a device has few training rows.
    #[default]
    Fleet,
    /// The device's own spread, moderated by ten rows' worth of the fleet's so that a device that happened to stand
    /// still in training does not alarm at the first move.
    Device,
}

/// How far the correlations are drawn towards none.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(try_from = "RawShrinkage", into = "RawShrinkage")]
pub enum Shrinkage {
    /// The intensity that minimises the expected error (Ledoit and Wolf 2004).
    #[default]
    Auto,
    /// A fixed intensity in 0 ..= 1.
    Fixed(f64),
}

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum RawShrinkage {
    Number(f64),
    Word(String),
}

impl TryFrom<RawShrinkage> for Shrinkage {
    type Error = String;

    fn try_from(raw: RawShrinkage) -> Result<Self, String> {
        match raw {
            RawShrinkage::Number(v) => Ok(Shrinkage::Fixed(v)),
            RawShrinkage::Word(w) if w == "auto" => Ok(Shrinkage::Auto),
            RawShrinkage::Word(w) => Err(format!("`{w}` is neither \"auto\" nor a number from 0 to 1")),
        }
    }
}

impl From<Shrinkage> for RawShrinkage {
    fn from(s: Shrinkage) -> Self {
        match s {
            Shrinkage::Auto => RawShrinkage::Word("auto".to_owned()),
            Shrinkage::Fixed(v) => RawShrinkage::Number(v),
        }
    }
}

/// `algorithm = { kind = "t2-q", ... }`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct T2qConfig {
    /// Share of the variance the retained components explain, above 0 and at most 1. Default 0.95 unless
    /// `components` is given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub variance: Option<f64>,
    /// Number of retained components, instead of `variance`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub components: Option<usize>,
    /// `"auto"` or a number from 0 (correlations as measured) to 1 (none at all).
    pub shrinkage: Shrinkage,
    /// `"fleet"`, `"device"` or `"adaptive"`.
    pub baseline: BaselineKind,
    /// `"fleet"` or `"device"`.
    pub scale: ScaleKind,
    /// Recorded in the card; the chart draws nothing at random.
    pub seed: u64,
}

/// How many components are retained.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Retain {
    Variance(f64),
    Components(usize),
}

/// Unchecked parameters, in linfa's manner: `T2qParams::from(config).fit(&dataset)`.
pub type T2qParams = Params<T2qConfig>;

/// Parameters that passed the check; only these fit.
pub type T2qValidParams = Valid<T2qConfig>;

impl T2qValidParams {
    pub(super) fn retain(&self) -> Retain {
        match self.config().components {
            Some(k) => Retain::Components(k),
            None => Retain::Variance(self.config().variance.unwrap_or(0.95)),
        }
    }
}

impl Options for T2qConfig {
    fn check(&self) -> Result<(), ModelError> {
        let c = self;
        if c.variance.is_some() && c.components.is_some() {
            return Err(ModelError::config(
                "algorithm.components",
                "`variance` and `components` both say how many components to retain; give one of them",
            ));
        }
        if let Some(v) = c.variance
            && !(v > 0.0 && v <= 1.0)
        {
            return Err(ModelError::config(
                "algorithm.variance",
                format!("{v} is not a share above 0 and at most 1, such as 0.95"),
            ));
        }
        if c.components == Some(0) {
            return Err(ModelError::config("algorithm.components", "at least one component must be retained"));
        }
        if let Shrinkage::Fixed(s) = c.shrinkage
            && !(0.0..=1.0).contains(&s)
        {
            return Err(ModelError::config(
                "algorithm.shrinkage",
                format!("{s} is neither \"auto\" nor a number from 0 to 1"),
            ));
        }
        if c.scale == ScaleKind::Device {
            let why = match c.baseline {
                BaselineKind::Device => None,
                BaselineKind::Fleet => Some("a device's own scale needs its own mean: set `baseline = \"device\"` too"),
                BaselineKind::Adaptive => Some(
                    "an adaptive baseline learns levels, not spreads: leave `scale` out, or set `baseline = \"device\"`",
                ),
            };
            if let Some(why) = why {
                return Err(ModelError::config("algorithm.scale", why));
            }
        }
        Ok(())
    }
}
