//! Operating conditions: where they are, and what each sensor reads in them.

use avouch_engine::codec::{CodecError, Reader, Writer};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

/// Rounds of Lloyd's algorithm at most; separated conditions settle in a few.
const MAX_ROUNDS: usize = 100;

/// A spread below this share of the magnitude is rounding noise: the sensor stands still in that condition.
const STILL: f64 = 1e-9;

/// Fitted conditions, in the order of their centres.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Conditions {
    /// Scale of each feature of `on`: mean and 1 / deviation.
    on_mean: Vec<f64>,
    on_inverse: Vec<f64>,
    /// Of each condition its centre, in standardised features of `on`.
    centres: Vec<Vec<f64>>,
    /// Of each condition the sensors' means and 1 / deviations (0 where a sensor stands still).
    mean: Vec<Vec<f64>>,
    inverse: Vec<Vec<f64>>,
}

/// Mean and 1 / deviation of the values; 0 where they do not vary.
fn scale(values: impl Iterator<Item = f64> + Clone) -> (f64, f64) {
    let n = values.clone().count().max(1) as f64;
    let mean = values.clone().sum::<f64>() / n;
    let (mut squares, mut magnitude) = (0.0, 0.0f64);
    for v in values {
        squares += (v - mean) * (v - mean);
        magnitude = magnitude.max(v.abs());
    }
    let deviation = (squares / n).sqrt();
    (mean, if deviation.is_finite() && deviation > magnitude * STILL { 1.0 / deviation } else { 0.0 })
}

impl Conditions {
    pub fn fit(rows: &[f64], p: usize, on: &[usize], sensors: &[usize], k: usize, seed: u64) -> Self {
        let column = |j: usize| rows.iter().skip(j).step_by(p).copied();
        let (on_mean, on_inverse): (Vec<f64>, Vec<f64>) = on.iter().map(|&j| scale(column(j))).unzip();
        let mut out = Self { on_mean, on_inverse, centres: Vec::new(), mean: Vec::new(), inverse: Vec::new() };
        let places: Vec<Vec<f64>> = rows.chunks_exact(p).map(|x| out.place(x, on)).collect();
        out.centres = lloyd(&places, k, seed);
        let of: Vec<usize> = places.iter().map(|x| closest(&out.centres, x)).collect();
        for c in 0..out.centres.len() {
            let (mean, inverse) =
                sensors.iter().map(|&j| scale(column(j).zip(&of).filter(|(_, at)| **at == c).map(|(v, _)| v))).unzip();
            out.mean.push(mean);
            out.inverse.push(inverse);
        }
        out
    }

    pub fn len(&self) -> usize {
        self.centres.len()
    }

    fn place(&self, x: &[f64], on: &[usize]) -> Vec<f64> {
        on.iter().zip(&self.on_mean).zip(&self.on_inverse).map(|((&j, m), i)| (x[j] - m) * i).collect()
    }

    /// The condition that a vector is in.
    pub fn nearest(&self, x: &[f64], on: &[usize]) -> usize {
        if self.centres.len() == 1 { 0 } else { closest(&self.centres, &self.place(x, on)) }
    }

    pub fn mean(&self, condition: usize) -> &[f64] {
        &self.mean[condition]
    }

    /// The sensors of a vector, standardised by its condition.
    pub fn standardise(&self, x: &[f64], on: &[usize], sensors: &[usize]) -> Vec<f64> {
        let c = self.nearest(x, on);
        // Cut off far outside of what any model was fitted to, so that sums stay finite whatever comes in.
        sensors
            .iter()
            .zip(&self.mean[c])
            .zip(&self.inverse[c])
            .map(|((&j, m), i)| ((x[j] - m) * i).clamp(-1e6, 1e6))
            .collect()
    }

    pub fn write(&self, w: &mut Writer) {
        w.u32(self.centres.len() as u32);
        let lists = [&self.on_mean, &self.on_inverse].into_iter().chain(&self.centres);
        for v in lists.chain(&self.mean).chain(&self.inverse).flatten() {
            w.f64(*v);
        }
    }

    pub fn read(r: &mut Reader<'_>, on: usize, sensors: usize) -> Result<Self, CodecError> {
        let k = r.count(8 * (on + 2 * sensors))?;
        if k == 0 || k > 64 {
            return Err(r.invalid(format!("{k} operating conditions, there are 1 to 64")));
        }
        let mut list = |n: usize, positive: bool| -> Result<Vec<f64>, CodecError> {
            let mut out = Vec::with_capacity(n.min(r.remaining() / 8));
            for _ in 0..n {
                let v = r.f64()?;
                if !v.is_finite() || (positive && v < 0.0) {
                    return Err(r.invalid(format!("a recipe's scale is {v}")));
                }
                out.push(v);
            }
            Ok(out)
        };
        let (on_mean, on_inverse) = (list(on, false)?, list(on, true)?);
        let mut lists = |n, positive| (0..k).map(|_| list(n, positive)).collect::<Result<Vec<_>, _>>();
        let (centres, mean, inverse) = (lists(on, false)?, lists(sensors, false)?, lists(sensors, true)?);
        if centres.windows(2).any(|w| !before(&w[0], &w[1])) {
            return Err(r.invalid("operating conditions are not in order"));
        }
        Ok(Self { on_mean, on_inverse, centres, mean, inverse })
    }
}

fn distance(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| (a - b) * (a - b)).sum()
}

/// The first of the closest centres.
fn closest(centres: &[Vec<f64>], x: &[f64]) -> usize {
    let mut best = (0, f64::INFINITY);
    for (i, c) in centres.iter().enumerate() {
        let d = distance(c, x);
        if d < best.1 {
            best = (i, d);
        }
    }
    best.0
}

fn before(a: &[f64], b: &[f64]) -> bool {
    let first = a.iter().zip(b).map(|(a, b)| a.total_cmp(b)).find(|o| o.is_ne());
    first.is_some_and(std::cmp::Ordering::is_lt)
}

/// A number in [0, 1).
fn unit(rng: &mut ChaCha8Rng) -> f64 {
    (rng.next_u64() >> 11) as f64 / (1u64 << 53) as f64
}

/// At most `k` centres, fewer where there are fewer distinct places; sorted, all different.
fn lloyd(places: &[Vec<f64>], k: usize, seed: u64) -> Vec<Vec<f64>> {
    let dimensions = places.first().map_or(0, Vec::len);
    if k <= 1 || places.is_empty() || dimensions == 0 {
        return vec![vec![0.0; dimensions]];
    }
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let first = ((unit(&mut rng) * places.len() as f64) as usize).min(places.len() - 1);
    let mut centres = vec![places[first].clone()];
    let mut far: Vec<f64> = places.iter().map(|x| distance(x, &centres[0])).collect();
    while centres.len() < k {
        let total: f64 = far.iter().sum();
        if total <= 0.0 {
            break;
        }
        let mut left = unit(&mut rng) * total;
        let chosen = far.iter().position(|d| {
            left -= d;
            left < 0.0
        });
        let Some(chosen) = chosen.or_else(|| far.iter().rposition(|d| *d > 0.0)) else { break };
        let centre = places[chosen].clone();
        for (f, x) in far.iter_mut().zip(places) {
            *f = f.min(distance(x, &centre));
        }
        centres.push(centre);
    }
    for _ in 0..MAX_ROUNDS {
        let mut sums = vec![(0usize, vec![0.0; dimensions]); centres.len()];
        for x in places {
            let (n, sum) = &mut sums[closest(&centres, x)];
            *n += 1;
            for (s, v) in sum.iter_mut().zip(x) {
                *s += v;
            }
        }
        let next: Vec<Vec<f64>> = sums
            .into_iter()
            .zip(&centres)
            .map(|((n, sum), old)| if n == 0 { old.clone() } else { sum.iter().map(|s| s / n as f64).collect() })
            .collect();
        if next == centres {
            break;
        }
        centres = next;
    }
    centres.sort_by(|a, b| if before(a, b) { std::cmp::Ordering::Less } else { std::cmp::Ordering::Greater });
    // Where a round left a centre without rows, or two fell together, nothing may be nearest to nothing.
    let mut used = vec![false; centres.len()];
    for x in places {
        used[closest(&centres, x)] = true;
    }
    let mut used = used.into_iter();
    centres.retain(|_| used.next().unwrap_or(false));
    centres
}
