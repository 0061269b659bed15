//! Expectation maximisation, the same bits on every machine.

use crate::ModelError;
use crate::k_means::lloyd::Clusters;

/// Mean log likelihood a row gained less than this in the last iteration: it has converged.
const TOLERANCE: f64 = 1e-7;

/// Iterations after which it is taken as it is.
const MAX_ITERATIONS: usize = 500;

/// A component left with fewer rows than this is dropped.
const LEAST_ROWS: f64 = 1.0;

/// Weight, mean and covariance of a component.
#[derive(Debug, Clone)]
pub(super) struct Gaussian {
    pub weight: f64,
    pub mean: Vec<f64>,
    /// Row-major, symmetric and positive definite.
    pub covariance: Vec<f64>,
}

/// Components and how it went.
pub(super) struct Mixture {
    pub components: Vec<Gaussian>,
    /// Mean log likelihood a row.
    pub likelihood: f64,
    pub iterations: usize,
}

/// Fits the rows of `z`, each of `p` values of unit spread, from the clusters.
pub(super) fn fit(z: &[f64], p: usize, start: &Clusters) -> Result<Mixture, ModelError> {
    let n = z.len() / p;
    let mut k = start.centres.len() / p;
    let prior = Prior::of(z, p, start);
    let mut shares = vec![0.0; n * k];
    for (row, &c) in shares.chunks_exact_mut(k).zip(&start.of_row) {
        row[c] = 1.0;
    }
    let mut last = f64::NEG_INFINITY;
    for iteration in 1.. {
        let components = maximise(z, p, &shares, k, &prior);
        if components.len() < k {
            k = components.len();
            shares = vec![0.0; n * k];
            last = f64::NEG_INFINITY;
        }
        let likelihood = expect(z, p, &components, &mut shares)?;
        if likelihood - last < TOLERANCE || iteration == MAX_ITERATIONS {
            return Ok(Mixture { components, likelihood, iterations: iteration });
        }
        last = likelihood;
    }
    // The loop has no end of its own.
    Err(ModelError::Rows("expectation maximisation did not end".to_owned()))
}

/// Rows that each component is given beside its own.
struct Prior {
    rows: f64,
    variance: Vec<f64>,
}

impl Prior {
    fn of(z: &[f64], p: usize, start: &Clusters) -> Self {
        Self { rows: p as f64 + 2.0, variance: start.within(z, p).iter().map(|w| w * w).collect() }
    }
}

/// Weights, means and covariances of the rows' shares; components with less than a row are left out.
fn maximise(z: &[f64], p: usize, shares: &[f64], k: usize, prior: &Prior) -> Vec<Gaussian> {
    let mut rows = vec![0.0; k];
    let mut means = vec![0.0; k * p];
    for (row, share) in z.chunks_exact(p).zip(shares.chunks_exact(k)) {
        for (c, &r) in share.iter().enumerate() {
            // Most shares of well separated components are nothing; leaving them out changes no bit.
            if r == 0.0 {
                continue;
            }
            rows[c] += r;
            for (m, v) in means[c * p..(c + 1) * p].iter_mut().zip(row) {
                *m += r * v;
            }
        }
    }
    for (mean, rows) in means.chunks_exact_mut(p).zip(&rows).filter(|(_, rows)| **rows >= LEAST_ROWS) {
        for m in mean {
            *m /= rows;
        }
    }
    let mut covariances = vec![0.0; k * p * p];
    let mut d = vec![0.0; p];
    for (row, share) in z.chunks_exact(p).zip(shares.chunks_exact(k)) {
        for (c, &r) in share.iter().enumerate() {
            if r == 0.0 || rows[c] < LEAST_ROWS {
                continue;
            }
            for ((d, v), m) in d.iter_mut().zip(row).zip(&means[c * p..(c + 1) * p]) {
                *d = v - m;
            }
            let covariance = &mut covariances[c * p * p..(c + 1) * p * p];
            for i in 0..p {
                let scaled = r * d[i];
                for j in 0..=i {
                    covariance[i * p + j] += scaled * d[j];
                }
            }
        }
    }
    let kept: f64 = rows.iter().filter(|rows| **rows >= LEAST_ROWS).sum();
    let mut out = Vec::with_capacity(k);
    for (c, &rows) in rows.iter().enumerate() {
        if rows < LEAST_ROWS {
            continue;
        }
        let mut covariance = covariances[c * p * p..(c + 1) * p * p].to_vec();
        for i in 0..p {
            covariance[i * p + i] += prior.rows * prior.variance[i];
            for j in 0..=i {
                covariance[i * p + j] /= rows + prior.rows;
                covariance[j * p + i] = covariance[i * p + j];
            }
        }
        out.push(Gaussian { weight: rows / kept, mean: means[c * p..(c + 1) * p].to_vec(), covariance });
    }
    out
}

/// Writes each component's share of each row, and returns the mean log likelihood a row.
fn expect(z: &[f64], p: usize, components: &[Gaussian], shares: &mut [f64]) -> Result<f64, ModelError> {
    let k = components.len();
    let mut factors = Vec::with_capacity(k);
    for c in components {
        let factor = cholesky(&c.covariance, p).ok_or_else(|| {
            ModelError::Rows(
                "a component's covariance is not positive definite; are values as large as 1e150?".to_owned(),
            )
        })?;
        let half_log_det: f64 = (0..p).map(|i| libm::log(factor[i * p + i])).sum();
        let constant = libm::log(c.weight) - half_log_det - 0.5 * p as f64 * libm::log(2.0 * std::f64::consts::PI);
        factors.push((factor, constant));
    }
    let mut y = vec![0.0; p];
    let mut total = 0.0;
    for (row, share) in z.chunks_exact(p).zip(shares.chunks_exact_mut(k)) {
        let mut most = f64::NEG_INFINITY;
        for ((c, (factor, constant)), share) in components.iter().zip(&factors).zip(share.iter_mut()) {
            // Solves L y = z − μ; the distance is the length of y.
            let mut distance = 0.0;
            for i in 0..p {
                let mut v = row[i] - c.mean[i];
                for (l, y) in factor[i * p..i * p + i].iter().zip(&y) {
                    v -= l * y;
                }
                y[i] = v / factor[i * p + i];
                distance += y[i] * y[i];
            }
            *share = constant - 0.5 * distance;
            most = most.max(*share);
        }
        let mut sum = 0.0;
        for share in share.iter_mut() {
            *share = libm::exp(*share - most);
            sum += *share;
        }
        for share in share.iter_mut() {
            *share /= sum;
        }
        total += most + libm::log(sum);
    }
    Ok(total / (z.len() / p) as f64)
}

/// The lower factor of a symmetric matrix; none if it is not positive definite.
fn cholesky(a: &[f64], p: usize) -> Option<Vec<f64>> {
    let mut l = vec![0.0; p * p];
    for i in 0..p {
        for j in 0..=i {
            let mut v = a[i * p + j];
            for m in 0..j {
                v -= l[i * p + m] * l[j * p + m];
            }
            if i == j {
                if !(v > 0.0 && v.is_finite()) {
                    return None;
                }
                l[i * p + i] = v.sqrt();
            } else {
                l[i * p + j] = v / l[j * p + j];
            }
        }
    }
    Some(l)
}
