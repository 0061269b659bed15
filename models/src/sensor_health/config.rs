//! What `algorithm = { kind = "sensor-health", ... }` says.

use serde::{Deserialize, Serialize};

use crate::ModelError;

/// Which feature plays which role. Every feature of the step has one.
///
/// ```toml
/// features  = ["n", "gap", "temp_min", "temp_max", "temp_std"]
/// algorithm = { kind = "sensor-health", readings = "n", interval_max = "gap", low = ["temp_min"], high = ["temp_max"], spread = ["temp_std"] }
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SensorHealthConfig {
    /// The number of readings in the window.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub readings: Option<String>,
    /// The longest time between two readings that follow each other.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interval_max: Option<String>,
    /// A measure of how much these times differ, such as their standard deviation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interval_spread: Option<String>,
    /// Measures of how much a sensor's readings differ (standard deviation, range, number of distinct values less one).
    pub spread: Vec<String>,
    /// Smallest readings of sensors.
    pub low: Vec<String>,
    /// Largest readings of the same sensors, in the same order.
    pub high: Vec<String>,
    /// Ends of these sensors' ranges, where they are known; otherwise they are learnt.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub range: Vec<[f64; 2]>,
    /// The share of healthy windows that may be called, above 0 and at most 0.1.
    pub level: f64,
    /// Recorded in the card; nothing is drawn at random.
    pub seed: u64,
}

impl Default for SensorHealthConfig {
    fn default() -> Self {
        Self {
            readings: None,
            interval_max: None,
            interval_spread: None,
            spread: Vec::new(),
            low: Vec::new(),
            high: Vec::new(),
            range: Vec::new(),
            level: 0.001,
            seed: 0,
        }
    }
}

/// What a feature is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    Readings,
    IntervalMax,
    IntervalSpread,
    Spread,
    /// Of the sensor of this number.
    Low(usize),
    High(usize),
}

impl SensorHealthConfig {
    /// The role of each feature, in their order.
    pub(super) fn roles(&self, features: &[String]) -> Result<Vec<Role>, ModelError> {
        if !(self.level > 0.0 && self.level <= 0.1) {
            let why = format!("{} is not a share above 0 and at most 0.1, such as 0.001", self.level);
            return Err(ModelError::config("algorithm.level", why));
        }
        if self.low.len() != self.high.len() {
            let why = format!(
                "{} features of lows and {} of highs; give both of each sensor",
                self.low.len(),
                self.high.len()
            );
            return Err(ModelError::config("algorithm.high", why));
        }
        if !self.range.is_empty() && self.range.len() != self.low.len() {
            let why = format!("{} ranges for {} sensors; give one for each, or none", self.range.len(), self.low.len());
            return Err(ModelError::config("algorithm.range", why));
        }
        if let Some([a, b]) = self.range.iter().find(|[a, b]| !(a < b && a.is_finite() && b.is_finite())) {
            return Err(ModelError::config(
                "algorithm.range",
                format!("[{a}, {b}] is not from a lower end to a higher"),
            ));
        }
        let mut given: Vec<(&'static str, &String, Role)> = Vec::new();
        given.extend(self.readings.iter().map(|f| ("algorithm.readings", f, Role::Readings)));
        given.extend(self.interval_max.iter().map(|f| ("algorithm.interval_max", f, Role::IntervalMax)));
        given.extend(self.interval_spread.iter().map(|f| ("algorithm.interval_spread", f, Role::IntervalSpread)));
        given.extend(self.spread.iter().map(|f| ("algorithm.spread", f, Role::Spread)));
        given.extend(self.low.iter().enumerate().map(|(i, f)| ("algorithm.low", f, Role::Low(i))));
        given.extend(self.high.iter().enumerate().map(|(i, f)| ("algorithm.high", f, Role::High(i))));
        for (i, (key, feature, _)) in given.iter().enumerate() {
            if !features.contains(feature) {
                return Err(ModelError::config(key, format!("`{feature}` is not among the step's `features`")));
            }
            if given[..i].iter().any(|(_, f, _)| f == feature) {
                return Err(ModelError::config(key, format!("`{feature}` has two roles")));
            }
        }
        let role = |f: &String| {
            given.iter().find(|(_, g, _)| *g == f).map(|(.., role)| *role).ok_or_else(|| {
                let why = format!("feature `{f}` has no role; give it one, or take it out of the step's `features`");
                ModelError::config("algorithm", why)
            })
        };
        features.iter().map(role).collect()
    }
}
