//! The two halves of the chart: a baseline that standardises a vector, and the quadratic form that weighs the result.

use super::eigen;
use super::params::{Retain, Shrinkage};

/// Standard normal quantile of the limits' 99 %.
const Z_99: f64 = 2.326_347_874_040_840_8;

/// Eigenvalues below this share of the largest are raised to it: linearly dependent features would otherwise divide
/// rounding noise by rounding noise.
const EIGEN_FLOOR: f64 = 1e-9;

/// Standardised values are cut off here, so that a score stays finite whatever finite value comes in.
const Z_MAX: f64 = 1e100;

/// What a feature vector is standardised by.
#[derive(Debug, Clone, PartialEq)]
pub struct Baseline {
    pub(crate) mean: Vec<f64>,
    pub(crate) scale: Vec<f64>,
    /// 1 / scale, kept because scoring multiplies.
    pub(super) inverse: Vec<f64>,
}

impl Baseline {
    pub(crate) fn new(mean: Vec<f64>, scale: Vec<f64>) -> Self {
        let inverse = scale.iter().map(|s| 1.0 / s).collect();
        Self { mean, scale, inverse }
    }

    /// Mean of each feature, in the features' own units.
    pub fn mean(&self) -> &[f64] {
        &self.mean
    }

    /// Spread each feature is divided by, in the features' own units; positive.
    pub fn scale(&self) -> &[f64] {
        &self.scale
    }

    /// Writes the standardised `x` to `z`.
    #[inline]
    pub(crate) fn standardise(&self, x: &[f64], z: &mut [f64]) {
        for (((z, x), m), i) in z.iter_mut().zip(x).zip(&self.mean).zip(&self.inverse) {
            *z = ((x - m) * i).clamp(-Z_MAX, Z_MAX);
        }
    }
}

/// The quadratic form φ of the combined index, with the facts the card reports about it.
#[derive(Debug, Clone, PartialEq)]
pub struct Chart {
    /// Eigenvalues of the shrunk covariance of the standardised rows, largest first.
    pub eigenvalues: Vec<f64>,
    /// How many components are retained; the rest go to Q.
    pub components: usize,
    /// Shrinkage intensity used, 0 to 1.
    pub shrinkage: f64,
    /// 99 % limit of T².
    pub t2_limit: f64,
    /// 99 % limit of Q; none when all components are retained.
    pub q_limit: Option<f64>,
    /// The symmetric root of φ, features × features, row-major.
    pub(super) root: Vec<f64>,
}

impl Chart {
    /// Makes the chart of `rows` standardised rows of `p` values each, row-major.
    pub(crate) fn of(z: &[f64], p: usize, shrinkage: Shrinkage, retain: Retain) -> Self {
        let (cov, shrinkage) = shrunk_covariance(z, p, shrinkage);
        Self::of_covariance(&cov, p, shrinkage, retain)
    }

    /// Makes the chart of a symmetric `p`×`p` covariance (row-major), which was shrunk by the intensity `shrinkage`.
    pub(super) fn of_covariance(cov: &[f64], p: usize, shrinkage: f64, retain: Retain) -> Self {
        let (mut eigenvalues, vectors) = eigen::symmetric(cov, p);
        let floor = eigenvalues[0] * EIGEN_FLOOR;
        for v in &mut eigenvalues {
            *v = v.max(floor);
        }
        let components = match retain {
            Retain::Components(k) => k.min(p),
            Retain::Variance(share) => retained(&eigenvalues, share),
        };
        let rest = &eigenvalues[components..];
        let t2_limit = chi_square_99(components as f64);
        // Box's approximation: Q is distributed as g χ²(h), matched in its first two moments.
        let (theta1, theta2) = (rest.iter().sum::<f64>(), rest.iter().map(|v| v * v).sum::<f64>());
        let q_limit = (!rest.is_empty()).then(|| theta2 / theta1 * chi_square_99(theta1 * theta1 / theta2));

        let mut root = vec![0.0; p * p];
        for (c, value) in eigenvalues.iter().enumerate() {
            let weight = match q_limit {
                Some(q) if c >= components => 1.0 / q.sqrt(),
                _ => 1.0 / (value * t2_limit).sqrt(),
            };
            let v = &vectors[c * p..(c + 1) * p];
            for i in 0..p {
                for j in 0..=i {
                    root[i * p + j] += weight * v[i] * v[j];
                }
            }
        }
        for i in 0..p {
            for j in 0..i {
                root[j * p + i] = root[i * p + j];
            }
        }
        Self { eigenvalues, components, shrinkage, t2_limit, q_limit, root }
    }

    /// Writes each feature's contribution for the standardised `z` and returns their sum, which is the score.
    #[inline]
    pub(crate) fn score(&self, z: &[f64], contributions: &mut [f64]) -> f64 {
        let mut sum = 0.0;
        for (c, row) in contributions.iter_mut().zip(self.root.chunks_exact(z.len())) {
            let mut dot = 0.0;
            for (w, z) in row.iter().zip(z) {
                dot += w * z;
            }
            *c = dot * dot;
            sum += *c;
        }
        sum
    }

    /// Share of the variance the retained components explain.
    pub fn explained(&self) -> f64 {
        self.eigenvalues[..self.components].iter().sum::<f64>() / self.eigenvalues.iter().sum::<f64>()
    }
}

/// The covariance about zero of standardised rows of `p` values each, drawn towards a multiple of the identity, and by which
/// intensity it was.
pub(super) fn shrunk_covariance(z: &[f64], p: usize, shrinkage: Shrinkage) -> (Vec<f64>, f64) {
    let n = (z.len() / p) as f64;
    let mut cov = vec![0.0; p * p];
    for row in z.chunks_exact(p) {
        for i in 0..p {
            for j in 0..=i {
                cov[i * p + j] += row[i] * row[j];
            }
        }
    }
    for i in 0..p {
        for j in 0..=i {
            cov[i * p + j] /= n;
            cov[j * p + i] = cov[i * p + j];
        }
    }
    let mean_variance = (0..p).map(|i| cov[i * p + i]).sum::<f64>() / p as f64;
    let shrinkage = match shrinkage {
        Shrinkage::Fixed(s) => s,
        Shrinkage::Auto => ledoit_wolf(z, &cov, mean_variance, p),
    };
    for i in 0..p {
        for j in 0..p {
            let target = if i == j { mean_variance } else { 0.0 };
            cov[i * p + j] = (1.0 - shrinkage) * cov[i * p + j] + shrinkage * target;
        }
    }
    (cov, shrinkage)
}

/// How many of the leading eigenvalues it takes to reach `share` of their sum.
fn retained(eigenvalues: &[f64], share: f64) -> usize {
    let total: f64 = eigenvalues.iter().sum();
    let mut sum = 0.0;
    for (i, v) in eigenvalues.iter().enumerate() {
        sum += v;
        // The slack keeps `variance = 1.0` from depending on how the sum rounds.
        if sum >= (share - 1e-12) * total {
            return i + 1;
        }
    }
    eigenvalues.len()
}

/// The intensity that minimises the expected squared error of the covariance, towards a multiple of the identity
/// (Ledoit and Wolf 2004). It takes rows for independent; overlapping windows are not, so it errs on the low side.
fn ledoit_wolf(z: &[f64], cov: &[f64], mean_variance: f64, p: usize) -> f64 {
    let n = (z.len() / p) as f64;
    let mut distance = 0.0;
    for i in 0..p {
        for j in 0..p {
            let d = cov[i * p + j] - if i == j { mean_variance } else { 0.0 };
            distance += d * d;
        }
    }
    let mut noise = 0.0;
    for row in z.chunks_exact(p) {
        for i in 0..p {
            for j in 0..p {
                let d = row[i] * row[j] - cov[i * p + j];
                noise += d * d;
            }
        }
    }
    noise /= n * n;
    if distance > noise { noise / distance } else { 1.0 }
}

/// 99 % quantile of χ² with `h` ≥ 1 degrees of freedom, fractional ones included (Wilson and Hilferty 1931; within
/// 1 % of the true value).
fn chi_square_99(h: f64) -> f64 {
    let v = 2.0 / (9.0 * h);
    let base = 1.0 - v + Z_99 * v.sqrt();
    h * base * base * base
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_those_of_tables() {
        for (h, table) in [(1.0, 6.635), (2.0, 9.210), (3.0, 11.345), (8.0, 20.090), (30.0, 50.892)] {
            assert!((chi_square_99(h) / table - 1.0).abs() < 0.01, "{h}: {}", chi_square_99(h));
        }
    }

    #[test]
    fn full_variance_retains_everything() {
        assert_eq!(retained(&[2.0, 1.0, 0.1, 1e-9], 1.0), 4);
        assert_eq!(retained(&[2.0, 1.0, 0.1, 1e-9], 0.95), 2);
        assert_eq!(retained(&[1.0], 0.01), 1);
    }
}
