//! From what a model says to a severity: thresholds.

use crate::model::{Says, Score};
use crate::verdict::{Severity, class};

/// What a threshold is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Quantity {
    /// The calibrated p-value of a score.
    PValue,
    /// The estimate or the probability itself.
    Value,
    /// The lower end of its interval.
    Lower,
    /// The upper end of its interval.
    Upper,
}

/// When a verdict is of a severity.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Threshold {
    /// What is compared.
    pub quantity: Quantity,
    /// How: at most the limit, or below it, at least it, above it.
    pub comparison: Comparison,
    /// With what, in the quantity's unit.
    pub limit: f64,
}

/// How a quantity is compared with its limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Comparison {
    /// `<=`
    AtMost,
    /// `<`
    Below,
    /// `>=`
    AtLeast,
    /// `>`
    Above,
}

impl Threshold {
    /// A p-value of at most `p`.
    pub fn p_value(p: f64) -> Self {
        Self { quantity: Quantity::PValue, comparison: Comparison::AtMost, limit: p }
    }

    /// Whether it is reached by this value, p-value and interval. Nothing is reached by what is no number.
    pub fn reached(&self, s: &Score) -> bool {
        let x = match self.quantity {
            Quantity::PValue => s.p_value,
            Quantity::Value => s.value,
            Quantity::Lower => s.interval.map_or(f64::NAN, |i| i.lower),
            Quantity::Upper => s.interval.map_or(f64::NAN, |i| i.upper),
        };
        match self.comparison {
            Comparison::AtMost => x <= self.limit,
            Comparison::Below => x < self.limit,
            Comparison::AtLeast => x >= self.limit,
            Comparison::Above => x > self.limit,
        }
    }
}

/// The thresholds of a model step.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct DecideSpec {
    /// Of a warning.
    pub warning: Option<Threshold>,
    /// Of a critical verdict.
    pub critical: Option<Threshold>,
    /// How far apart alarms of one device are at most that are one incident, milliseconds; `None`: each stands alone.
    pub incident_ms: Option<i64>,
}

impl DecideSpec {
    /// Thresholds on p-values.
    pub fn p_values(warning: Option<f64>, critical: Option<f64>) -> Self {
        Self { warning: warning.map(Threshold::p_value), critical: critical.map(Threshold::p_value), incident_ms: None }
    }

    /// The severity alone.
    pub fn severity(&self, s: &Score) -> Severity {
        match (&self.critical, &self.warning) {
            (Some(t), _) if t.reached(s) => Severity::Critical,
            (_, Some(t)) if t.reached(s) => Severity::Warning,
            _ => Severity::Normal,
        }
    }

    /// Class and severity. What cannot be scored is a class of its own and never grave; a finding about the readings is at
    /// least a warning, since somebody must mend the sensor whatever the machine does.
    pub fn decide(&self, says: Says, s: &Score) -> (u16, Severity) {
        let severity = self.severity(s);
        if let Some(finding) = s.finding {
            return (class::of(finding), severity.max(Severity::Warning));
        }
        let unscored = match says {
            Says::Anomaly => s.value.is_nan() || s.p_value.is_nan(),
            Says::Estimate | Says::Probability => s.value.is_nan(),
        };
        match (unscored, severity, says) {
            (true, ..) => (class::NOT_A_NUMBER, Severity::Normal),
            (_, Severity::Normal, _) => (class::NORMAL, severity),
            (.., Says::Anomaly) => (class::ANOMALY, severity),
            (.., Says::Estimate | Says::Probability) => (class::FAILURE_EXPECTED, severity),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Finding, Interval};

    #[test]
    fn a_p_value_is_reached_at_its_limit_and_the_graver_threshold_wins() {
        let d = DecideSpec::p_values(Some(0.05), Some(0.01));
        let of = |p| d.decide(Says::Anomaly, &Score::anomaly(3.0, p));
        assert_eq!(of(0.2), (class::NORMAL, Severity::Normal));
        assert_eq!(of(0.05), (class::ANOMALY, Severity::Warning));
        assert_eq!(of(0.01), (class::ANOMALY, Severity::Critical));
        assert_eq!(d.decide(Says::Anomaly, &Score::NONE), (class::NOT_A_NUMBER, Severity::Normal));
    }

    #[test]
    fn an_estimate_is_judged_by_its_interval() {
        let below = |limit| Some(Threshold { quantity: Quantity::Lower, comparison: Comparison::Below, limit });
        let d = DecideSpec { warning: below(168.0), critical: below(24.0), incident_ms: None };
        let of = |lower| {
            let interval = Interval { lower, upper: lower + 100.0 };
            d.decide(Says::Estimate, &Score::estimate(lower + 50.0, Some(interval)))
        };
        assert_eq!(of(168.0), (class::NORMAL, Severity::Normal));
        assert_eq!(of(167.0), (class::FAILURE_EXPECTED, Severity::Warning));
        assert_eq!(of(23.9), (class::FAILURE_EXPECTED, Severity::Critical));
        // Without an interval there is nothing to compare.
        assert_eq!(d.decide(Says::Estimate, &Score::estimate(1.0, None)), (class::NORMAL, Severity::Normal));
    }

    #[test]
    fn a_finding_is_its_own_class_even_where_nothing_can_be_scored() {
        let s = Score { finding: Some(Finding::Stuck), ..Score::NONE };
        assert_eq!(DecideSpec::default().decide(Says::Anomaly, &s), (class::STUCK, Severity::Warning));
    }
}
