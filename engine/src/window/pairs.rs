//! One-pass statistics of two channels together: covariance, correlation and linear regression, in six plain words.
//!
//! Co-moments by Welford's update and the pairwise merge of Chan, Golub & LeVeque, as in [`super::stats`].

/// Words of a pair: count, means of x and y, their sums of squared deviations, and the sum of products of deviations.
pub(super) const PAIR_WORDS: usize = 6;

/// Takes one row in which neither value is null.
#[inline]
pub(super) fn update(w: &mut [f64], x: f64, y: f64) {
    let n = w[0] + 1.0;
    w[0] = n;
    let dx = x - w[1];
    let dy = y - w[2];
    w[1] += dx / n;
    w[2] += dy / n;
    w[3] += dx * (x - w[1]);
    w[4] += dy * (y - w[2]);
    w[5] += dx * (y - w[2]);
}

/// Adds to `a` the rows of `b`.
pub(super) fn merge(a: &mut [f64], b: &[f64]) {
    let (na, nb) = (a[0], b[0]);
    if nb == 0.0 {
        return;
    }
    let n = na + nb;
    let (dx, dy) = (b[1] - a[1], b[2] - a[2]);
    let f = na * nb / n;
    a[0] = n;
    a[1] += dx * (nb / n);
    a[2] += dy * (nb / n);
    a[3] += b[3] + dx * dx * f;
    a[4] += b[4] + dy * dy * f;
    a[5] += b[5] + dx * dy * f;
}

/// A statistic of two channels over the rows where neither is null. Of the pair, x and y are as SQL's regressions name
/// them: `regr_slope(y, x)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PairStatistic {
    /// Population covariance.
    CovarPop,
    /// Sample covariance.
    CovarSamp,
    /// Pearson's correlation; null when either is constant.
    Corr,
    /// Slope of the least-squares line of y over x; null when x is constant.
    RegrSlope,
    /// Where that line crosses x = 0.
    RegrIntercept,
    /// Coefficient of determination; null when either is constant.
    RegrR2,
    /// Rows where neither is null.
    RegrCount,
    /// Mean of x.
    RegrAvgX,
    /// Mean of y.
    RegrAvgY,
    /// Sum of squared deviations of x.
    RegrSxx,
    /// Sum of squared deviations of y.
    RegrSyy,
    /// Sum of products of deviations.
    RegrSxy,
}

impl PairStatistic {
    /// The value, or `None` where SQL says NULL.
    pub fn value(self, w: &[f64]) -> Option<f64> {
        let [n, mx, my, sxx, syy, sxy] = *w else { return None };
        use PairStatistic::*;
        let least = match self {
            RegrCount => return Some(n),
            CovarPop | RegrAvgX | RegrAvgY | RegrSxx | RegrSyy | RegrSxy => 1.0,
            CovarSamp | Corr | RegrSlope | RegrIntercept | RegrR2 => 2.0,
        };
        let constant = match self {
            Corr | RegrR2 => sxx == 0.0 || syy == 0.0,
            RegrSlope | RegrIntercept => sxx == 0.0,
            _ => false,
        };
        if n < least || constant {
            return None;
        }
        Some(match self {
            CovarPop => sxy / n,
            CovarSamp => sxy / (n - 1.0),
            Corr => sxy / (libm::sqrt(sxx) * libm::sqrt(syy)),
            RegrSlope => sxy / sxx,
            RegrIntercept => my - sxy / sxx * mx,
            RegrR2 => sxy * sxy / (sxx * syy),
            RegrCount => n,
            RegrAvgX => mx,
            RegrAvgY => my,
            RegrSxx => sxx,
            RegrSyy => syy,
            RegrSxy => sxy,
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn agree_with_two_pass_formulas_and_merge(
            rows in proptest::collection::vec((-50.0f64..50.0, -50.0f64..50.0), 2..50),
            cut in 0usize..50,
        ) {
            let cut = cut.min(rows.len());
            let (mut a, mut b) = ([0.0; PAIR_WORDS], [0.0; PAIR_WORDS]);
            rows[..cut].iter().for_each(|r| update(&mut a, r.0, r.1));
            rows[cut..].iter().for_each(|r| update(&mut b, r.0, r.1));
            merge(&mut a, &b);
            let n = rows.len() as f64;
            let (mx, my) = (rows.iter().map(|r| r.0).sum::<f64>() / n, rows.iter().map(|r| r.1).sum::<f64>() / n);
            let s = |f: &dyn Fn(f64, f64) -> f64| rows.iter().map(|r| f(r.0 - mx, r.1 - my)).sum::<f64>();
            let (sxx, syy, sxy) = (s(&|x, _| x * x), s(&|_, y| y * y), s(&|x, y| x * y));
            prop_assume!(sxx > 1e-3 && syy > 1e-3);
            for (stat, want) in [
                (PairStatistic::CovarPop, sxy / n),
                (PairStatistic::CovarSamp, sxy / (n - 1.0)),
                (PairStatistic::Corr, sxy / (sxx * syy).sqrt()),
                (PairStatistic::RegrSlope, sxy / sxx),
                (PairStatistic::RegrIntercept, my - sxy / sxx * mx),
                (PairStatistic::RegrR2, sxy * sxy / (sxx * syy)),
                (PairStatistic::RegrCount, n),
                (PairStatistic::RegrAvgX, mx),
                (PairStatistic::RegrAvgY, my),
                (PairStatistic::RegrSxx, sxx),
                (PairStatistic::RegrSyy, syy),
                (PairStatistic::RegrSxy, sxy),
            ] {
                let got = stat.value(&a).unwrap();
                prop_assert!((got - want).abs() <= 1e-8 * (1.0 + want.abs()), "{stat:?} {got} {want}");
            }
        }
    }
}
