//! From score to p-value: split-conformal calibration on held-back rows.
//!
//! The p-value of a score `s` is `(1 + #{held-back scores ≥ s}) / (n + 1)` (Vovk, Gammerman and Shafer 2005): if a
//! window is exchangeable with the held-back ones, its p-value is at most `a` with probability at most `a`, whatever
//! the scores' distribution. Two things to know of it:
//!
//! * Overlapping windows are not independent and machines drift, so the guarantee holds for the long-run share of
//!   windows on data like the held-back ones, not for each day. The model card shows how the second half of the
//!   held-back rows fares against a calibration on the first.
//! * `n` rows cannot show anything rarer than `1 / (n + 1)`. Beyond the largest held-back score the p-value is
//!   **extrapolated**: `1 / (n + 1)` times the survival of a generalised Pareto tail fitted to the top tenth of the
//!   scores by probability-weighted moments (Hosking and Wallis 1987), never with a lighter tail than exponential, and
//!   never below a hundredth of `1 / (n + 1)`. With fewer than 200 rows there is no tail and `1 / (n + 1)` is the end.
//!
//! The file keeps at most 4,096 of the scores: the largest quarter of that exactly, the rest thinned. Between kept
//! scores the p-value is rounded up.

use avouch_engine::codec::{CodecError, Reader, Writer};
use serde::{Deserialize, Serialize};

use crate::ModelError;

/// Scores kept at most.
const MAX_KNOTS: usize = 4096;

/// Of these, the largest are kept exactly.
const EXACT: usize = 1024;

/// Exceedances a tail is fitted to, at least and at most.
const TAIL_ROWS: (usize, usize) = (20, 500);

/// How far the tail may go below the smallest p-value the rows themselves show.
const EXTRAPOLATION: f64 = 100.0;

/// A generalised Pareto tail beyond the largest held-back score.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Tail {
    /// Shape ξ, 0 (exponential) to 0.9.
    pub shape: f64,
    /// Scale at the largest held-back score, in units of the score.
    pub scale: f64,
}

/// The distribution of held-back scores, bounded in size.
#[derive(Debug, Clone, PartialEq)]
pub struct Calibration {
    /// Number of held-back rows.
    n: u64,
    /// Kept scores, strictly ascending.
    knots: Vec<f64>,
    /// How many held-back scores are greater than the knot, strictly descending to 0.
    greater: Vec<u64>,
    tail: Option<Tail>,
}

impl Calibration {
    /// Calibrates on `scores`, in any order. Scores must be finite; there must be at least one.
    pub fn of(scores: &[f64]) -> Result<Self, ModelError> {
        if scores.is_empty() {
            return Err(ModelError::Rows(
                "no rows are held back to calibrate on; raise `split.hold_back` or give more data".to_owned(),
            ));
        }
        if scores.iter().any(|s| !s.is_finite()) {
            return Err(ModelError::Rows("a held-back row has no finite score".to_owned()));
        }
        let mut sorted = scores.to_vec();
        sorted.sort_by(f64::total_cmp);
        let n = sorted.len();
        // Index of the last score of every kept value; what comes after it is greater.
        let (mut knots, mut greater) = (Vec::new(), Vec::new());
        let exact_from = n.saturating_sub(EXACT);
        let step = if n <= MAX_KNOTS { 1 } else { exact_from.div_ceil(MAX_KNOTS - EXACT - 1) };
        let mut due = 0;
        for (i, &s) in sorted.iter().enumerate() {
            let last_of_value = i + 1 == n || sorted[i + 1] > s;
            if last_of_value && (i >= due || i >= exact_from) {
                knots.push(s);
                greater.push((n - 1 - i) as u64);
                due = i + step;
            }
        }
        Ok(Self { n: n as u64, knots, greater, tail: tail(&sorted) })
    }

    /// The p-value of `score`, in (0, 1]; NaN for NaN. Never increases with the score.
    #[inline]
    pub fn p_value(&self, score: f64) -> f64 {
        if score.is_nan() {
            return f64::NAN;
        }
        let total = (self.n + 1) as f64;
        // Scores at or above `score` are at most those greater than the largest knot below it.
        let below = self.knots.partition_point(|k| *k < score);
        if below == 0 {
            return 1.0;
        }
        let at_least = self.greater[below - 1];
        if at_least > 0 {
            return (1 + at_least) as f64 / total;
        }
        let Some(tail) = self.tail else { return 1.0 / total };
        let over = (score - self.knots[self.knots.len() - 1]) / tail.scale;
        let survival =
            if tail.shape == 0.0 { libm::exp(-over) } else { libm::exp(-libm::log1p(tail.shape * over) / tail.shape) };
        survival.max(1.0 / EXTRAPOLATION) / total
    }

    /// The smallest p-value it can give.
    pub fn smallest_p_value(&self) -> f64 {
        let shown = 1.0 / (self.n + 1) as f64;
        if self.tail.is_some() { 1.0 / EXTRAPOLATION / (self.n + 1) as f64 } else { shown }
    }

    /// The smallest kept score whose p-value is at most `p`; none if only the tail reaches it.
    pub fn score_at(&self, p: f64) -> Option<f64> {
        let total = (self.n + 1) as f64;
        (0..self.knots.len()).find(|&i| i > 0 && (1 + self.greater[i - 1]) as f64 / total <= p).map(|i| self.knots[i])
    }

    /// Number of held-back rows.
    pub fn rows(&self) -> u64 {
        self.n
    }

    /// The tail, if there were rows enough to fit one.
    pub fn tail(&self) -> Option<Tail> {
        self.tail
    }

    /// Scores kept.
    pub fn knots(&self) -> &[f64] {
        &self.knots
    }

    pub(crate) fn write(&self, w: &mut Writer) {
        w.u64(self.n);
        w.u32(self.knots.len() as u32);
        for (k, g) in self.knots.iter().zip(&self.greater) {
            w.f64(*k);
            w.u64(*g);
        }
        match self.tail {
            None => w.u8(0),
            Some(t) => {
                w.u8(1);
                w.f64(t.shape);
                w.f64(t.scale);
            }
        }
    }

    pub(crate) fn read(r: &mut Reader<'_>) -> Result<Self, CodecError> {
        let n = r.u64()?;
        let count = r.count(16)?;
        if count == 0 || n == 0 || n == u64::MAX || count as u64 > n {
            return Err(r.invalid(format!("{count} knots of {n} held-back scores")));
        }
        let (mut knots, mut greater) = (Vec::with_capacity(count), Vec::with_capacity(count));
        for i in 0..count {
            let (k, g) = (r.f64()?, r.u64()?);
            let ascending = knots.last().is_none_or(|last| *last < k);
            let descending = greater.last().is_none_or(|last| *last > g);
            if !k.is_finite() || !ascending || !descending || g >= n {
                return Err(r.invalid(format!("calibration knot {i} is out of order")));
            }
            knots.push(k);
            greater.push(g);
        }
        if greater.last() != Some(&0) {
            return Err(r.invalid("the largest calibration score is not kept"));
        }
        let tail = match r.u8()? {
            0 => None,
            1 => {
                let (shape, scale) = (r.f64()?, r.f64()?);
                if !((0.0..=MAX_SHAPE).contains(&shape) && scale > 0.0 && scale.is_finite()) {
                    return Err(r.invalid("calibration tail out of range"));
                }
                Some(Tail { shape, scale })
            }
            other => return Err(r.invalid(format!("calibration tail flag {other}"))),
        };
        Ok(Self { n, knots, greater, tail })
    }
}

/// Probability-weighted moments exist below a shape of 1; near it the estimate means nothing more.
const MAX_SHAPE: f64 = 0.9;

/// Fits the tail to the top tenth of `sorted`.
fn tail(sorted: &[f64]) -> Option<Tail> {
    let n = sorted.len();
    let m = (n / 10).min(TAIL_ROWS.1);
    if m < TAIL_ROWS.0 {
        return None;
    }
    let threshold = sorted[n - m - 1];
    let excesses: Vec<f64> = sorted[n - m..].iter().map(|s| s - threshold).collect();
    let mean = excesses.iter().sum::<f64>() / m as f64;
    let weighted =
        excesses.iter().enumerate().map(|(i, x)| (1.0 - (i as f64 + 0.65) / m as f64) * x).sum::<f64>() / m as f64;
    if mean <= 0.0 {
        return None;
    }
    // Both moments' quotient is 1/2 for an exponential tail and falls towards 0 as the tail grows heavier.
    let shape = (2.0 - mean / (mean - 2.0 * weighted).max(f64::MIN_POSITIVE)).clamp(0.0, MAX_SHAPE);
    // The scale that keeps the mean excess, mean = scale / (1 − shape); then moved from the threshold to the maximum.
    let scale = mean * (1.0 - shape) + shape * excesses[m - 1];
    Some(Tail { shape, scale })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    fn exact(scores: &[f64], s: f64) -> f64 {
        (1 + scores.iter().filter(|c| **c >= s).count()) as f64 / (scores.len() + 1) as f64
    }

    proptest! {
        #[test]
        fn within_the_sample_it_is_the_conformal_p_value(
            scores in prop::collection::vec((0u32..500).prop_map(|v| f64::from(v) / 8.0), 1..400),
            s in -1.0f64..80.0,
        ) {
            let c = Calibration::of(&scores).unwrap();
            let max = scores.iter().fold(0.0, |a: f64, b| a.max(*b));
            if s <= max {
                prop_assert_eq!(c.p_value(s), exact(&scores, s));
            } else {
                prop_assert!(c.p_value(s) <= exact(&scores, s));
                prop_assert!(c.p_value(s) >= c.smallest_p_value());
            }
        }

        #[test]
        fn it_never_increases(scores in prop::collection::vec(0.0f64..9.0, 1..600), mut at in prop::collection::vec(0.0f64..1e4, 30)) {
            let c = Calibration::of(&scores).unwrap();
            at.sort_by(f64::total_cmp);
            for pair in at.windows(2) {
                prop_assert!(c.p_value(pair[1]) <= c.p_value(pair[0]));
            }
            prop_assert!(c.p_value(f64::INFINITY) > 0.0 && c.p_value(f64::NAN).is_nan());
        }

        #[test]
        fn it_reads_back_what_it_wrote(scores in prop::collection::vec(0.0f64..9.0, 1..600)) {
            let c = Calibration::of(&scores).unwrap();
            let mut w = Writer::new();
            c.write(&mut w);
            let mut r = Reader::new("calibration", &w.bytes);
            prop_assert_eq!(Calibration::read(&mut r).unwrap(), c);
            r.finish().unwrap();
        }
    }

    #[test]
    fn a_large_sample_is_thinned_but_rounds_up_and_keeps_its_end() {
        let scores: Vec<f64> = (0..100_000).map(|i| f64::from((i * 7919) % 100_003) / 100.0).collect();
        let c = Calibration::of(&scores).unwrap();
        assert!(c.knots().len() <= MAX_KNOTS);
        for s in [-1.0, 0.0, 3.3, 500.0, 901.1, 990.0, 999.0, 1000.0] {
            let p = exact(&scores, s);
            assert!(c.p_value(s) >= p && c.p_value(s) <= p + 4e-4, "{s}: {} against {p}", c.p_value(s));
        }
        assert_eq!(c.p_value(999.5), exact(&scores, 999.5));
    }

    #[test]
    fn the_tail_finds_the_shape_it_was_drawn_from() {
        // Quantiles of a generalised Pareto with shape 0.3 and scale 2.
        let n = 4000;
        let scores: Vec<f64> =
            (0..n).map(|i| 2.0 / 0.3 * (libm::pow(1.0 - (f64::from(i) + 0.5) / f64::from(n), -0.3) - 1.0)).collect();
        let c = Calibration::of(&scores).unwrap();
        let t = c.tail().unwrap();
        assert!((t.shape - 0.3).abs() < 0.05, "{t:?}");
        // A score ten times rarer than the sample shows, by the true distribution.
        let s = 2.0 / 0.3 * (libm::pow(0.1 / f64::from(n), -0.3) - 1.0);
        let p = c.p_value(s) * f64::from(n);
        assert!(p > 0.05 && p < 0.3, "{p}");
    }
}
