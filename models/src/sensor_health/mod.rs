//! Whether the readings themselves can be believed: gaps, stuck and saturated sensors, irregular cadence.
//!
//! It reads windowed features by their role and learns from healthy windows what is usual. How far a window is from that is
//! told for each feature in units of its limit, from 0 (usual) over 1 (found) to at most [`CAP`]; the score is their sum, with
//! a split-conformal p-value. A feature at 1 or beyond is a finding of its class, whatever the thresholds say:
//!
//! ```text
//!     role             found when                                                          finding
//!     readings         so few that exp(−N·KL(n/N ‖ q) / φ) ≤ level (Chernoff's bound of    gap
//!                      the binomial tail), or a tenth more than ever                       irregular
//!     interval_max     half as long again as ever                                          gap
//!     interval_spread  half as large again as ever                                         irregular
//!     spread           a tenth of the least ever, or less                                  stuck
//!     low, high        all readings at an end of the range                                 saturated
//!     spread, low,     null or not finite: the sensor gave nothing                         gap
//!     high
//! ```
//!
//! "Ever" leaves out the share `level` of the training windows that were furthest off. `N` is the number of readings of a full
//! window, `q` the share of them that comes, `φ ≥ 1` how much more counts vary than binomial ones. An end of the range is
//! where the largest (or smallest) reading of the training windows stood in three windows or more, exactly: a sensor that is
//! not at its end does not repeat its extreme. Ends can also be given (`range`); then touching one is enough, if no healthy window
//! did. What healthy windows do is never found: where they stand still, or sit at an end (a flow of 0), that check is off, and the
//! card says so.
//!
//! Of several findings the verdict has one: gap before saturated before stuck before irregular; the contributions show all.
//!
//! **Silence.** A device that sends nothing closes no window, so there is no verdict while it is silent. A gap is found
//! in the first window after it, by `interval_max`, and in windows it only cut, by `readings`.
//!
//! Determinism: fixed order, IEEE arithmetic, logarithms of `libm`. State: none. Cost: a few operations a feature.

mod config;
mod file;
mod fit;
mod scorer;

pub use config::SensorHealthConfig;
pub use scorer::SensorHealthScorer;

pub(crate) use file::decode;
pub(crate) use fit::train;

use avouch_engine::model::Finding;

/// The name in TOML and in the model file.
pub const KIND: &str = "sensor-health";

/// A feature is at most so many times its limit off.
pub const CAP: f64 = 6.0;

/// What a limit is beyond the usual: of spreads, of intervals, of too many readings.
const SPREAD_LIMIT: f64 = 10.0;
const INTERVAL_LIMIT: f64 = 1.5;
const MANY_LIMIT: f64 = 1.1;

/// An end of a sensor's range.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct End {
    pub at: f64,
    /// Found when any reading is there, not only when all are.
    pub touching: bool,
}

/// What is known of one feature.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Check {
    /// Readings of a full window, the share that comes, and how much more counts vary than binomial ones.
    Readings {
        full: f64,
        share: f64,
        dispersion: f64,
    },
    IntervalMax {
        most: f64,
    },
    IntervalSpread {
        most: f64,
    },
    /// The least of the usual; none where healthy windows stand still.
    Spread {
        least: Option<f64>,
    },
    /// The sensor's smallest reading; the feature with its largest, and the lower end of its range.
    Low {
        high: usize,
        end: Option<End>,
    },
    /// The other way round.
    High {
        low: usize,
        end: Option<End>,
    },
}

impl Check {
    /// How many times its limit feature `j` of `x` is off, and what that would be called.
    fn off(&self, x: &[f64], j: usize, level: f64) -> (f64, Finding) {
        let v = x[j];
        let missing = !v.is_finite();
        let (off, finding) = match *self {
            // Both are of the window as a whole: an interval takes two readings, and a count is always there.
            Check::Readings { .. } | Check::IntervalMax { .. } | Check::IntervalSpread { .. } if missing => {
                (0.0, Finding::Gap)
            }
            _ if missing => (CAP, Finding::Gap),
            Check::Readings { full, share, dispersion } => {
                if v > full {
                    ((v / full - 1.0) / (MANY_LIMIT - 1.0), Finding::Irregular)
                } else {
                    (few(v, full, share) / dispersion / -libm::log(level), Finding::Gap)
                }
            }
            Check::IntervalMax { most } => ((v / most - 1.0) / (INTERVAL_LIMIT - 1.0), Finding::Gap),
            Check::IntervalSpread { most } => ((v / most - 1.0) / (INTERVAL_LIMIT - 1.0), Finding::Irregular),
            Check::Spread { least: None } => (0.0, Finding::Stuck),
            Check::Spread { least: Some(least) } => {
                let off = if v > 0.0 { libm::log(least / v) / libm::log(SPREAD_LIMIT) } else { CAP };
                (off, Finding::Stuck)
            }
            Check::Low { high, end } => {
                let at = end.is_some_and(|e| x[high] <= e.at || (e.touching && v <= e.at));
                (f64::from(u8::from(at)), Finding::Saturated)
            }
            Check::High { low, end } => {
                let at = end.is_some_and(|e| x[low] >= e.at || (e.touching && v >= e.at));
                (f64::from(u8::from(at)), Finding::Saturated)
            }
        };
        (off.clamp(0.0, CAP), finding)
    }
}

/// N · KL(n/N ‖ q): minus the logarithm of Chernoff's bound of a binomial count of at most `n`; 0 where more are expected.
fn few(n: f64, full: f64, share: f64) -> f64 {
    let f = (n / full).max(0.0);
    if f >= share {
        return 0.0;
    }
    let term = |a: f64, b: f64| if a > 0.0 { a * libm::log(a / b) } else { 0.0 };
    (full * (term(f, share) + term(1.0 - f, 1.0 - share))).max(0.0)
}

/// Writes how far each feature is off and returns the sum, and the gravest class that is found.
pub(crate) fn off(checks: &[Check], level: f64, x: &[f64], contributions: &mut [f64]) -> (f64, Option<Finding>) {
    let grave = |f: Finding| match f {
        Finding::Gap => 4,
        Finding::Saturated => 3,
        Finding::Stuck => 2,
        Finding::Irregular => 1,
        Finding::Drift => 0,
    };
    let mut found: Option<Finding> = None;
    let mut sum = 0.0;
    for (j, (check, c)) in checks.iter().zip(contributions).enumerate() {
        let (off, finding) = check.off(x, j, level);
        *c = off;
        sum += off;
        if off >= 1.0 && found.is_none_or(|f| grave(f) < grave(finding)) {
            found = Some(finding);
        }
    }
    (sum, found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bound_is_one_of_the_binomial_tail_and_not_a_loose_one() {
        let (full, share) = (60.0, 0.95);
        let mut tail = 0.0;
        for n in 0..55 {
            let mut log = 0.0;
            for i in 0..n {
                log += libm::log((60 - i) as f64 / (i + 1) as f64);
            }
            tail += libm::exp(log + n as f64 * libm::log(share) + (60 - n) as f64 * libm::log(1.0 - share));
            let bound = libm::exp(-few(n as f64, full, share));
            assert!(bound >= tail && bound <= 40.0 * tail, "{n}: {bound} of {tail}");
        }
        assert_eq!(few(57.0, full, share), 0.0);
    }
}
