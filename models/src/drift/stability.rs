//! The population stability index: recent rows in the quantile bins of the training rows.

use avouch_engine::codec::{CodecError, Reader, Writer};

/// Added to every bin, so that an empty one has a logarithm.
const PRIOR: f64 = 0.5;

/// Quantile bins of one feature's training values. A value belongs to the bin after the last edge below it.
#[derive(Debug, Clone, PartialEq)]
pub struct Bins {
    /// Strictly ascending; one fewer than bins.
    edges: Vec<f64>,
    /// Training rows in each bin.
    rows: Vec<u64>,
    /// Share of each bin, and its logarithm.
    share: Vec<(f64, f64)>,
}

impl Bins {
    /// Bins with about as many of these values each; fewer than `wanted` where values repeat. `values` are finite and sorted,
    /// at least one.
    pub fn of(values: &[f64], wanted: usize) -> Self {
        let n = values.len();
        let mut edges: Vec<f64> = Vec::with_capacity(wanted);
        for k in 1..wanted {
            let edge = values[(k * n).div_ceil(wanted).max(1) - 1];
            if edges.last().is_none_or(|last| *last < edge) {
                edges.push(edge);
            }
        }
        let mut rows = vec![0; edges.len() + 1];
        for v in values {
            rows[edges.partition_point(|e| e < v)] += 1;
        }
        Self::made(edges, rows)
    }

    fn made(edges: Vec<f64>, rows: Vec<u64>) -> Self {
        let all = rows.iter().sum::<u64>() as f64 + PRIOR * rows.len() as f64;
        let share = rows.iter().map(|n| (*n as f64 + PRIOR) / all).map(|e| (e, libm::log(e))).collect();
        Self { edges, rows, share }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there is none, which cannot be.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The upper edges of all bins but the last.
    pub fn edges(&self) -> &[f64] {
        &self.edges
    }

    /// Training rows in each bin.
    pub fn rows(&self) -> &[u64] {
        &self.rows
    }

    /// The bin of a value.
    pub fn bin(&self, value: f64) -> usize {
        self.edges.partition_point(|e| *e < value)
    }

    /// The index of `rows` rows that lie in the bins as `counts` say.
    pub fn index(&self, counts: &[u64]) -> f64 {
        let all = counts.iter().sum::<u64>() as f64 + PRIOR * counts.len() as f64;
        let all_log = libm::log(all);
        let terms = counts.iter().zip(&self.share).map(|(n, share)| {
            let n = *n as f64 + PRIOR;
            term(n / all, libm::log(n) - all_log, *share)
        });
        terms.sum()
    }

    /// The same, to the bit, with logarithms looked up: `logs[n]` is that of n and the prior, `all_log` that of all of them.
    pub(super) fn index_of(&self, counts: &[u16], all: f64, all_log: f64, logs: &[f64]) -> f64 {
        let terms = counts.iter().zip(&self.share).map(|(n, share)| {
            let log = logs.get(usize::from(*n)).copied().unwrap_or(f64::NAN);
            term((f64::from(*n) + PRIOR) / all, log - all_log, *share)
        });
        terms.sum()
    }

    pub(super) fn write(&self, w: &mut Writer) {
        w.u32(self.edges.len() as u32);
        for e in &self.edges {
            w.f64(*e);
        }
        for n in &self.rows {
            w.u64(*n);
        }
    }

    pub(super) fn read(r: &mut Reader<'_>, most: usize) -> Result<Self, CodecError> {
        let count = r.count(16)?;
        if count == 0 || count >= most {
            return Err(r.invalid(format!("{count} edges of at most {most} bins")));
        }
        let mut edges: Vec<f64> = Vec::with_capacity(count);
        for _ in 0..count {
            let e = r.f64()?;
            if !e.is_finite() || edges.last().is_some_and(|last| *last >= e) {
                return Err(r.invalid("the edges of bins are not in order"));
            }
            edges.push(e);
        }
        let mut rows = Vec::with_capacity(count + 1);
        let mut all = 0_u64;
        for _ in 0..=count {
            let n = r.u64()?;
            all = all.checked_add(n).filter(|all| *all < 1 << 53).ok_or_else(|| r.invalid("bins of too many rows"))?;
            rows.push(n);
        }
        if all == 0 {
            return Err(r.invalid("no rows are in the bins"));
        }
        Ok(Self::made(edges, rows))
    }
}

fn term(a: f64, a_log: f64, (e, e_log): (f64, f64)) -> f64 {
    (a - e) * (a_log - e_log)
}

/// Logarithms of the counts that a window of so many rows can have, with the prior.
pub(super) fn logs(window: usize) -> Vec<f64> {
    (0..=window).map(|n| libm::log(n as f64 + PRIOR)).collect()
}

/// All of a full window of `window` rows in `bins` bins, with the prior.
pub(super) fn all(window: usize, bins: usize) -> f64 {
    window as f64 + PRIOR * bins as f64
}

/// The population stability index of `newer` against `older`, in ten quantile bins of `older`; half a row is added to every
/// bin on both sides. Values must be finite; `None` if either is empty. Below 0.1 little changed, above 0.25 much, by the
/// custom of credit scoring.
pub fn population_stability(older: &[f64], newer: &[f64]) -> Option<f64> {
    if older.is_empty() || newer.is_empty() {
        return None;
    }
    let mut sorted = older.to_vec();
    sorted.sort_by(f64::total_cmp);
    let bins = Bins::of(&sorted, 10);
    let mut counts = vec![0_u64; bins.len()];
    for v in newer {
        counts[bins.bin(*v)] += 1;
    }
    Some(bins.index(&counts))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_index_by_hand() {
        let older: Vec<f64> = (0..100).map(f64::from).collect();
        let bins = Bins::of(&older, 4);
        assert_eq!(bins.edges(), [24.0, 49.0, 74.0]);
        assert_eq!(bins.rows(), [25, 25, 25, 25]);
        assert_eq!((bins.bin(24.0), bins.bin(24.5), bins.bin(f64::INFINITY), bins.bin(-9.0)), (0, 1, 3, 0));
        assert_eq!(bins.index(&[25, 25, 25, 25]), 0.0);
        // (40.5/102 − 1/4) ln(4 × 40.5/102) and so on.
        let by_hand: f64 =
            [40.5, 40.5, 10.5, 10.5].iter().map(|n| n / 102.0).map(|a: f64| (a - 0.25) * libm::log(a / 0.25)).sum();
        assert!((bins.index(&[40, 40, 10, 10]) - by_hand).abs() < 1e-12);
        assert!(population_stability(&older, &older).is_some_and(|v| v < 1e-12));
        assert!(population_stability(&older, &[99.0; 50]).is_some_and(|v| v > 2.0));
        assert_eq!(population_stability(&older, &[]), None);
    }

    #[test]
    fn values_that_repeat_share_a_bin() {
        let mostly_zero: Vec<f64> = (0..100).map(|i| if i < 80 { 0.0 } else { f64::from(i) }).collect();
        let bins = Bins::of(&mostly_zero, 10);
        assert_eq!(bins.edges(), [0.0, 89.0]);
        assert_eq!(bins.rows(), [80, 10, 10]);
    }
}
