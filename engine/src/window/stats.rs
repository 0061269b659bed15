//! One-pass statistics of one input channel, kept as plain words so that panes merge and snapshot without ceremony.
//!
//! Every update is in row order and every merge in pane order, so results have the same bits however the input is cut.
//! Central moments by Welford (1962) and Pébay (2008, SAND2008-6212), merged by Chan, Golub & LeVeque (1979).

/// What must be kept of a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Needs {
    /// The sum of values.
    pub sum: bool,
    /// Central moments up to this order: 0 (none), 2 or 4.
    pub moments: u8,
    /// Smallest and largest value.
    pub extremes: bool,
    /// The sum of squares.
    pub squares: bool,
    /// Co-moments with time.
    pub slope: bool,
}

impl Needs {
    /// All that either needs.
    pub fn union(self, other: Needs) -> Needs {
        Needs {
            sum: self.sum || other.sum,
            moments: self.moments.max(other.moments),
            extremes: self.extremes || other.extremes,
            squares: self.squares || other.squares,
            slope: self.slope || other.slope,
        }
    }
}

/// The layout of a channel's words: the count first, then what [`Needs`] asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layout {
    needs: Needs,
    sum: usize,
    moments: usize,
    extremes: usize,
    squares: usize,
    slope: usize,
    len: usize,
}

impl Layout {
    /// The layout for these needs.
    pub fn new(needs: Needs) -> Self {
        let mut at = 1;
        let mut room = |words: usize| {
            let here = at;
            at += words;
            here
        };
        let sum = room(usize::from(needs.sum));
        let moments = room(usize::from(needs.moments));
        let extremes = room(2 * usize::from(needs.extremes));
        let squares = room(usize::from(needs.squares));
        let slope = room(4 * usize::from(needs.slope));
        Self { needs, sum, moments, extremes, squares, slope, len: at }
    }

    /// How many words a channel takes.
    pub fn words(&self) -> usize {
        self.len
    }

    /// The words of no rows.
    pub fn clear(&self, w: &mut [f64]) {
        w.fill(0.0);
        if self.needs.extremes {
            w[self.extremes] = f64::INFINITY;
            w[self.extremes + 1] = f64::NEG_INFINITY;
        }
    }

    /// Takes one value at `seconds` since the pane's start.
    #[inline(always)]
    pub fn update(&self, w: &mut [f64], x: f64, seconds: f64) {
        let n = w[0] + 1.0;
        w[0] = n;
        if self.needs.sum {
            w[self.sum] += x;
        }
        if self.needs.moments == 2 {
            let m = &mut w[self.moments..self.moments + 2];
            let delta = x - m[0];
            m[0] += delta / n;
            m[1] += delta * (x - m[0]);
        } else if self.needs.moments == 4 {
            let m = &mut w[self.moments..self.moments + 4];
            let delta = x - m[0];
            let d = delta / n;
            let d2 = d * d;
            let term = delta * d * (n - 1.0);
            m[0] += d;
            m[3] += term * d2 * (n * n - 3.0 * n + 3.0) + 6.0 * d2 * m[1] - 4.0 * d * m[2];
            m[2] += term * d * (n - 2.0) - 3.0 * d * m[1];
            m[1] += term;
        }
        if self.needs.extremes {
            let m = &mut w[self.extremes..self.extremes + 2];
            // A NaN sticks: it must not hide behind comparisons that are all false.
            if x < m[0] || x.is_nan() {
                m[0] = x;
            }
            if x > m[1] || x.is_nan() {
                m[1] = x;
            }
        }
        if self.needs.squares {
            w[self.squares] += x * x;
        }
        if self.needs.slope {
            let s = &mut w[self.slope..self.slope + 4];
            let dt = seconds - s[0];
            s[0] += dt / n;
            s[1] += (x - s[1]) / n;
            s[2] += dt * (seconds - s[0]);
            s[3] += dt * (x - s[1]);
        }
    }

    /// Adds to `a` the rows of `b`, whose seconds count from `shift` seconds after those of `a`.
    pub fn merge(&self, a: &mut [f64], b: &[f64], shift: f64) {
        let (na, nb) = (a[0], b[0]);
        if nb == 0.0 {
            return;
        }
        let n = na + nb;
        a[0] = n;
        if self.needs.sum {
            a[self.sum] += b[self.sum];
        }
        if self.needs.moments >= 2 {
            let at = self.moments;
            let delta = b[at] - a[at];
            let (m2a, m2b) = (a[at + 1], b[at + 1]);
            let d = delta / n;
            if self.needs.moments == 4 {
                let (m3a, m3b) = (a[at + 2], b[at + 2]);
                let d2 = d * d;
                a[at + 3] = a[at + 3]
                    + b[at + 3]
                    + delta * d * d2 * na * nb * (na * na - na * nb + nb * nb)
                    + 6.0 * d2 * (na * na * m2b + nb * nb * m2a)
                    + 4.0 * d * (na * m3b - nb * m3a);
                a[at + 2] = m3a + m3b + delta * d2 * na * nb * (na - nb) + 3.0 * d * (na * m2b - nb * m2a);
            }
            a[at + 1] = m2a + m2b + delta * d * na * nb;
            a[at] += d * nb;
        }
        if self.needs.extremes {
            let at = self.extremes;
            if b[at] < a[at] || b[at].is_nan() {
                a[at] = b[at];
            }
            if b[at + 1] > a[at + 1] || b[at + 1].is_nan() {
                a[at + 1] = b[at + 1];
            }
        }
        if self.needs.squares {
            a[self.squares] += b[self.squares];
        }
        if self.needs.slope {
            let at = self.slope;
            let (dt, dx) = (b[at] + shift - a[at], b[at + 1] - a[at + 1]);
            let f = na * nb / n;
            a[at] += dt * (nb / n);
            a[at + 1] += dx * (nb / n);
            a[at + 2] += b[at + 2] + dt * dt * f;
            a[at + 3] += b[at + 3] + dt * dx * f;
        }
    }

    /// The value of a statistic, or `None` where SQL says NULL.
    pub fn value(&self, w: &[f64], stat: Statistic) -> Option<f64> {
        let n = w[0];
        if stat == Statistic::Count {
            return Some(n);
        }
        if n == 0.0 {
            return None;
        }
        let m = |i: usize| w[self.moments + i];
        let rms = || libm::sqrt(w[self.squares] / n);
        Some(match stat {
            Statistic::Count => n,
            Statistic::Sum => w[self.sum],
            Statistic::Avg => w[self.sum] / n,
            Statistic::Min => w[self.extremes],
            Statistic::Max => w[self.extremes + 1],
            Statistic::VarPop => m(1) / n,
            Statistic::StddevPop => libm::sqrt(m(1) / n),
            Statistic::VarSamp if n < 2.0 => return None,
            Statistic::VarSamp => m(1) / (n - 1.0),
            Statistic::StddevSamp if n < 2.0 => return None,
            Statistic::StddevSamp => libm::sqrt(m(1) / (n - 1.0)),
            Statistic::Rms => rms(),
            Statistic::PeakToPeak => w[self.extremes + 1] - w[self.extremes],
            Statistic::CrestFactor => {
                let r = rms();
                if r == 0.0 {
                    return None;
                }
                libm::fabs(w[self.extremes]).max(libm::fabs(w[self.extremes + 1])) / r
            }
            Statistic::Kurtosis if m(1) == 0.0 => return None,
            Statistic::Kurtosis => n * m(3) / (m(1) * m(1)),
            Statistic::Skewness if m(1) == 0.0 => return None,
            Statistic::Skewness => libm::sqrt(n) * m(2) / (m(1) * libm::sqrt(m(1))),
            Statistic::Slope if w[self.slope + 2] == 0.0 => return None,
            Statistic::Slope => w[self.slope + 3] / w[self.slope + 2],
        })
    }
}

/// A statistic of a channel over a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Statistic {
    /// Values that are not null.
    Count,
    /// Sum.
    Sum,
    /// Arithmetic mean.
    Avg,
    /// Smallest.
    Min,
    /// Largest.
    Max,
    /// Sample variance (n − 1).
    VarSamp,
    /// Population variance (n).
    VarPop,
    /// Sample standard deviation (n − 1).
    StddevSamp,
    /// Population standard deviation (n).
    StddevPop,
    /// Root mean square.
    Rms,
    /// Largest minus smallest.
    PeakToPeak,
    /// Largest magnitude over root mean square; null when the signal is zero.
    CrestFactor,
    /// Pearson's kurtosis m4/m2² (3 for a normal signal); null when constant.
    Kurtosis,
    /// m3/m2^1.5; null when constant.
    Skewness,
    /// Least-squares slope against time, per second; null when all rows have one time.
    Slope,
}

impl Statistic {
    /// What it needs kept.
    pub fn needs(self) -> Needs {
        let none = Needs::default();
        match self {
            Statistic::Count => none,
            Statistic::Sum | Statistic::Avg => Needs { sum: true, ..none },
            Statistic::Min | Statistic::Max | Statistic::PeakToPeak => Needs { extremes: true, ..none },
            Statistic::VarSamp | Statistic::VarPop | Statistic::StddevSamp | Statistic::StddevPop => {
                Needs { moments: 2, ..none }
            }
            Statistic::Rms => Needs { squares: true, ..none },
            Statistic::CrestFactor => Needs { squares: true, extremes: true, ..none },
            Statistic::Kurtosis | Statistic::Skewness => Needs { moments: 4, ..none },
            Statistic::Slope => Needs { slope: true, ..none },
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    const ALL: [Statistic; 15] = [
        Statistic::Count,
        Statistic::Sum,
        Statistic::Avg,
        Statistic::Min,
        Statistic::Max,
        Statistic::VarSamp,
        Statistic::VarPop,
        Statistic::StddevSamp,
        Statistic::StddevPop,
        Statistic::Rms,
        Statistic::PeakToPeak,
        Statistic::CrestFactor,
        Statistic::Kurtosis,
        Statistic::Skewness,
        Statistic::Slope,
    ];

    /// Two-pass textbook formulas.
    fn reference(xs: &[(f64, f64)], stat: Statistic) -> Option<f64> {
        let n = xs.len() as f64;
        let mean = xs.iter().map(|p| p.1).sum::<f64>() / n;
        let tmean = xs.iter().map(|p| p.0).sum::<f64>() / n;
        let m = |k: i32| xs.iter().map(|p| (p.1 - mean).powi(k)).sum::<f64>() / n;
        let min = xs.iter().map(|p| p.1).fold(f64::INFINITY, f64::min);
        let max = xs.iter().map(|p| p.1).fold(f64::NEG_INFINITY, f64::max);
        let rms = (xs.iter().map(|p| p.1 * p.1).sum::<f64>() / n).sqrt();
        let some = |ok: bool, v: f64| ok.then_some(v);
        match stat {
            Statistic::Count => Some(n),
            _ if xs.is_empty() => None,
            Statistic::Sum => Some(mean * n),
            Statistic::Avg => Some(mean),
            Statistic::Min => Some(min),
            Statistic::Max => Some(max),
            Statistic::VarPop => Some(m(2)),
            Statistic::StddevPop => Some(m(2).sqrt()),
            Statistic::VarSamp => some(n > 1.0, m(2) * n / (n - 1.0)),
            Statistic::StddevSamp => some(n > 1.0, (m(2) * n / (n - 1.0)).sqrt()),
            Statistic::Rms => Some(rms),
            Statistic::PeakToPeak => Some(max - min),
            Statistic::CrestFactor => some(rms != 0.0, min.abs().max(max.abs()) / rms),
            Statistic::Kurtosis => some(m(2) > 1e-12, m(4) / (m(2) * m(2))),
            Statistic::Skewness => some(m(2) > 1e-12, m(3) / m(2).powf(1.5)),
            Statistic::Slope => {
                let tt = xs.iter().map(|p| (p.0 - tmean).powi(2)).sum::<f64>();
                let tv = xs.iter().map(|p| (p.0 - tmean) * (p.1 - mean)).sum::<f64>();
                some(tt > 1e-12, tv / tt)
            }
        }
    }

    proptest! {
        #[test]
        fn agree_with_two_pass_formulas_and_merge(
            xs in proptest::collection::vec((0.0f64..60.0, -100.0f64..100.0), 0..60),
            cut in 0usize..60,
        ) {
            for stat in ALL {
                let layout = Layout::new(stat.needs());
                let cut = cut.min(xs.len());
                // The second half's pane starts 30 s later.
                let mut a = vec![0.0; layout.words()];
                let mut b = a.clone();
                layout.clear(&mut a);
                layout.clear(&mut b);
                for (t, x) in &xs[..cut] { layout.update(&mut a, *x, *t); }
                for (t, x) in &xs[cut..] { layout.update(&mut b, *x, *t - 30.0); }
                layout.merge(&mut a, &b, 30.0);
                let (got, want) = (layout.value(&a, stat), reference(&xs, stat));
                match (got, want) {
                    (Some(g), Some(w)) => prop_assert!((g - w).abs() <= 1e-6 * (1.0 + w.abs()), "{stat:?} {g} {w}"),
                    (g, w) => prop_assert!(g.is_none() == w.is_none()
                        || matches!(stat, Statistic::Kurtosis | Statistic::Skewness | Statistic::Slope | Statistic::CrestFactor),
                        "{stat:?} {g:?} {w:?}"),
                }
            }
        }
    }
}
