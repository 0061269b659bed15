//! How a model step decides: thresholds, a budget of false alarms, and what its prognosis is measured in.

use avouch_engine::decide::{Comparison, DecideSpec, Quantity, Threshold};

use super::span::Spanned;
use super::units::format_duration;

/// `decide = { … }` of a model step.
#[derive(Debug, Clone, Default)]
pub struct Decide {
    /// When a verdict is a warning, as written.
    pub warning: Option<Spanned<Threshold>>,
    /// When a verdict is critical, as written.
    pub critical: Option<Spanned<Threshold>>,
    /// How often a healthy device may be called.
    pub false_alarms: Option<Spanned<Budget>>,
    /// How far apart alarms of one incident are at most, milliseconds.
    pub incident: Option<Spanned<i64>>,
    /// The unit that a prognosis is in.
    pub unit: Option<Spanned<&'static str>>,
    /// The share of cases in which the truth lies within a prognosis' interval.
    pub coverage: Option<Spanned<f64>>,
}

/// How often a healthy device may be called: `"1 per device per week"`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Budget {
    /// Alarms a device and period.
    pub alarms: f64,
    /// The period, milliseconds.
    pub period_ms: i64,
}

const DAY: i64 = 86_400_000;
/// The periods of a budget; a month is thirty days, a year 365.
pub const PERIODS: [(&str, i64); 5] =
    [("hour", DAY / 24), ("day", DAY), ("week", 7 * DAY), ("month", 30 * DAY), ("year", 365 * DAY)];

/// The units of a prognosis, with their milliseconds.
#[cfg(test)]
pub const UNITS: [(&str, i64); 4] = [("seconds", 1_000), ("minutes", 60_000), ("hours", DAY / 24), ("days", DAY)];

impl Budget {
    /// Reads `N per device per hour|day|week|month|year`; the error says what is wrong.
    pub fn parse(text: &str) -> Result<Self, String> {
        let words: Vec<&str> = text.split_whitespace().collect();
        let [n, "per", "device", "per", period] = words[..] else {
            return Err("is not of the form `N per device per week`".to_owned());
        };
        let alarms: f64 = n.parse().map_err(|_| format!("begins with `{n}`, which is not a number"))?;
        if !(alarms > 0.0 && alarms.is_finite()) {
            return Err(format!("allows {n} alarms; it must be more than none"));
        }
        let Some((_, period_ms)) = PERIODS.iter().find(|(name, _)| *name == period) else {
            let names = PERIODS.map(|(name, _)| name).join(", ");
            return Err(format!("has the unknown period `{period}`; there are {names}"));
        };
        Ok(Self { alarms, period_ms: *period_ms })
    }

    /// The p-value at or below which a healthy device is called that often, where it is judged every `every_ms`: each window
    /// counts as an alarm of its own, so overlapping windows that are called together cost more of the budget than they must.
    pub fn p_value(&self, every_ms: i64) -> f64 {
        self.alarms * every_ms as f64 / self.period_ms as f64
    }

    /// Windows a device is judged by in a period.
    pub fn windows(&self, every_ms: i64) -> f64 {
        self.period_ms as f64 / every_ms as f64
    }
}

/// The unit of a prognosis where none is given.
const UNIT: &str = "hours";
/// Its coverage where none is given.
const COVERAGE: f64 = 0.9;

impl Decide {
    /// The unit of a prognosis.
    pub fn unit(&self) -> &'static str {
        self.unit.as_ref().map_or(UNIT, |u| u.value)
    }

    /// The share of cases in which the truth is to lie within a prognosis' interval.
    pub fn coverage(&self) -> f64 {
        self.coverage.as_ref().map_or(COVERAGE, |c| c.value)
    }

    /// The thresholds as the engine takes them, for windows every `every_ms` (`None`: at no fixed distance). Within a budget
    /// of false alarms, all thresholds are lowered by the same factor until the mildest keeps to it; without thresholds, the
    /// budget is that of a warning.
    pub fn spec(&self, every_ms: Option<i64>) -> DecideSpec {
        let plain = |t: &Option<Spanned<Threshold>>| t.as_ref().map(|t| t.value);
        let (warning, critical) = (plain(&self.warning), plain(&self.critical));
        let incident_ms = self.incident.as_ref().map(|i| i.value);
        let Some(p) = self.budget(every_ms) else { return DecideSpec { warning, critical, incident_ms } };
        let mildest = warning.or(critical).map(|t| t.limit);
        let Some(mildest) = mildest else {
            return DecideSpec { warning: Some(Threshold::p_value(p)), critical: None, incident_ms };
        };
        let factor = (p / mildest).min(1.0);
        // At most the budget, also where the product is rounded up.
        let lowered = |t: Threshold| Threshold { limit: (t.limit * factor).min(p), ..t };
        DecideSpec { warning: warning.map(lowered), critical: critical.map(lowered), incident_ms }
    }

    /// The p-value that the budget allows.
    pub fn budget(&self, every_ms: Option<i64>) -> Option<f64> {
        Some(self.false_alarms.as_ref()?.value.p_value(every_ms?))
    }

    /// In words, for a reader: what the budget comes to.
    pub fn budget_in_words(&self, every_ms: Option<i64>) -> Option<String> {
        let budget = &self.false_alarms.as_ref()?.value;
        let every = every_ms?;
        Some(format!(
            "a device is judged every {}, {:.0} times in {}; {} of these may call a healthy one: p-values of at most {:.3e}",
            format_duration(every),
            budget.windows(every),
            format_duration(budget.period_ms),
            budget.alarms,
            budget.p_value(every)
        ))
    }
}

/// A threshold as it is shown: `p ≤ 0.01`, `lower < 168`.
pub fn shown(t: &Threshold) -> String {
    let quantity = match t.quantity {
        Quantity::PValue => "p",
        Quantity::Value => "value",
        Quantity::Lower => "lower",
        Quantity::Upper => "upper",
    };
    let comparison = match t.comparison {
        Comparison::AtMost => "≤",
        Comparison::Below => "<",
        Comparison::AtLeast => "≥",
        Comparison::Above => ">",
    };
    format!("{quantity} {comparison} {}", t.limit)
}

/// Reads a condition such as `lower < 168`; the error says what is wrong.
pub fn parse_condition(text: &str) -> Result<Threshold, String> {
    const QUANTITIES: [(&str, Quantity); 4] = [
        ("lower", Quantity::Lower),
        ("upper", Quantity::Upper),
        ("value", Quantity::Value),
        ("p_value", Quantity::PValue),
    ];
    const COMPARISONS: [(&str, Comparison); 4] =
        [("<=", Comparison::AtMost), (">=", Comparison::AtLeast), ("<", Comparison::Below), (">", Comparison::Above)];
    let Some((at, sign, comparison)) = COMPARISONS.iter().find_map(|(s, c)| Some((text.find(s)?, *s, *c))) else {
        return Err("has no `<`, `<=`, `>` or `>=`".to_owned());
    };
    let (name, limit) = (text[..at].trim(), text[at + sign.len()..].trim());
    let Some((_, quantity)) = QUANTITIES.iter().find(|(n, _)| *n == name) else {
        let names = QUANTITIES.map(|(n, _)| format!("`{n}`")).join(", ");
        return Err(format!("is about `{name}`; a condition is about one of {names}"));
    };
    let limit: f64 = limit.parse().map_err(|_| format!("compares with `{limit}`, which is not a number"))?;
    if !limit.is_finite() {
        return Err("compares with a number that is not finite".to_owned());
    }
    Ok(Threshold { quantity: *quantity, comparison, limit })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::lang::Span;

    fn at<T>(value: T) -> Option<Spanned<T>> {
        Some(Spanned::new(value, Span::new(0, 0)))
    }

    #[test]
    fn a_budget_is_read_and_becomes_a_p_value() {
        let b = Budget::parse("1 per device per week").unwrap();
        assert_eq!(b.p_value(10_000), 10_000.0 / (7.0 * 86_400_000.0));
        assert_eq!(b.windows(10_000), 60_480.0);
        assert_eq!(Budget::parse("0.5 per device per day").unwrap().alarms, 0.5);
        for wrong in ["1 per week", "one per device per day", "0 per device per day", "1 per device per fortnight", ""]
        {
            assert!(Budget::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn thresholds_are_lowered_together_until_the_mildest_keeps_to_the_budget() {
        let mut d = Decide {
            warning: at(Threshold::p_value(0.01)),
            critical: at(Threshold::p_value(0.001)),
            false_alarms: at(Budget { alarms: 1.0, period_ms: 10_000 }),
            ..Decide::default()
        };
        let limits = |d: &Decide| {
            let spec = d.spec(Some(10));
            (spec.warning.map(|t| t.limit), spec.critical.map(|t| t.limit))
        };
        // One window in a thousand: a tenth of 0.01.
        let (warning, critical) = limits(&d);
        assert_eq!(warning, Some(0.001));
        assert!((critical.unwrap() - 0.0001).abs() < 1e-18);
        // Thresholds that keep to it already stay.
        d.false_alarms = at(Budget { alarms: 100.0, period_ms: 10_000 });
        assert_eq!(limits(&d), (Some(0.01), Some(0.001)));
        (d.warning, d.critical) = (None, None);
        assert_eq!(limits(&d), (Some(0.1), None));
    }

    #[test]
    fn conditions_are_read() {
        let t = parse_condition("lower < 168").unwrap();
        assert_eq!((t.quantity, t.comparison, t.limit), (Quantity::Lower, Comparison::Below, 168.0));
        assert_eq!(parse_condition("value>=0.5").unwrap().comparison, Comparison::AtLeast);
        assert_eq!(shown(&t), "lower < 168");
        for wrong in ["168", "lower = 3", "life < 3", "lower < soon", "lower < inf"] {
            assert!(parse_condition(wrong).is_err(), "{wrong}");
        }
    }
}
