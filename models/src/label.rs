//! What a prognosis is trained to say of a window: the remaining life of its device, or whether it failed.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::ModelError;

/// The truth about each training row.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "says", rename_all = "kebab-case", deny_unknown_fields)]
pub enum LabelConfig {
    /// Time from a window's end to the device's failure.
    RemainingLife {
        /// Longer lives count as this long, in `unit`: no sensor tells a machine that has ten years left from one that
        /// has eleven.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        cap: Option<f64>,
        /// The unit of label, estimate and interval: one of [`UNITS`].
        #[serde(default = "hours")]
        unit: String,
        /// Share of windows whose truth the interval is to hold, above 0.5 and below 1.
        #[serde(default = "ninety_percent")]
        coverage: f64,
    },
    /// Whether it failed: a column of the windowed step that is 0 or 1.
    Failure {
        /// The column.
        column: String,
    },
}

/// Units of time and their milliseconds.
pub const UNITS: [(&str, f64); 4] = [("seconds", 1e3), ("minutes", 60e3), ("hours", 3_600e3), ("days", 86_400e3)];

fn hours() -> String {
    "hours".to_owned()
}

fn ninety_percent() -> f64 {
    0.9
}

impl LabelConfig {
    /// Remaining life in hours, with intervals that hold nine truths of ten.
    pub fn remaining_life(cap: Option<f64>) -> Self {
        Self::RemainingLife { cap, unit: hours(), coverage: ninety_percent() }
    }

    /// The same remaining life in another unit and with another coverage; a label of failures stays as it is.
    ///
    /// # Errors
    /// [`ModelError::Config`] for an unknown unit or a coverage that is none.
    pub fn in_unit(self, unit: &str, coverage: f64) -> Result<Self, ModelError> {
        let before = self.milliseconds()?;
        let Self::RemainingLife { cap, .. } = self else { return Ok(self) };
        let mut out = Self::RemainingLife { cap: None, unit: unit.to_owned(), coverage };
        let after = out.milliseconds()?;
        if let Self::RemainingLife { cap: new, .. } = &mut out {
            *new = cap.map(|c| c * before / after);
        }
        out.check()?;
        Ok(out)
    }

    /// Refuses an unknown unit, a cap that caps nothing and a coverage that is none.
    pub fn check(&self) -> Result<(), ModelError> {
        let Self::RemainingLife { cap, unit, coverage } = self else { return Ok(()) };
        self.milliseconds()?;
        if cap.is_some_and(|c| !(c > 0.0 && c.is_finite())) {
            return Err(ModelError::config("label.cap", format!("a cap is above 0 {unit}")));
        }
        if !(*coverage > 0.5 && *coverage < 1.0) {
            let why = format!("{coverage} is not a share above 0.5 and below 1, such as 0.9");
            return Err(ModelError::config("label.coverage", why));
        }
        Ok(())
    }

    /// Milliseconds of the unit; 1 where there is none.
    pub fn milliseconds(&self) -> Result<f64, ModelError> {
        let Self::RemainingLife { unit, .. } = self else { return Ok(1.0) };
        UNITS.iter().find(|(name, _)| name == unit).map(|(_, ms)| *ms).ok_or_else(|| {
            let known: Vec<&str> = UNITS.iter().map(|(name, _)| *name).collect();
            ModelError::config("label.unit", format!("`{unit}` is no unit of time; there are {}", known.join(", ")))
        })
    }
}

/// When devices failed, in milliseconds since the epoch.
pub type Failures = BTreeMap<String, i64>;

/// Labels of a frame's rows.
#[derive(Debug, Clone)]
pub(crate) struct Labels {
    pub config: LabelConfig,
    /// A row each, in the frame's order.
    pub values: Vec<f64>,
    /// Rows that were left out because their window ended after the failure.
    pub after_failure: usize,
}
