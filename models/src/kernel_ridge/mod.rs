//! Kernel ridge regression with a Gaussian kernel on landmarks: smooth where trees make steps, and so a good partner of them.
//!
//! ```text
//!     value = mean + Σᵢ aᵢ exp(−width/d · ‖z − lᵢ‖²)       z: the d inputs, standardised; lᵢ: training rows drawn at random
//!     a minimises Σ (y − value)² + l2 · aᵀ K a              K: the kernel among the landmarks
//! ```
//!
//! Saunders, Gammerman and Vovk 1998; the landmarks (subset of regressors) are Smola and Schölkopf's, 2000. It stands where one
//! would look for a support vector regression: `linfa-svm` holds the kernel of all pairs of rows (3.4 GB for FD001), so it
//! takes a fifth of them, and calls the platform's `exp`, so its bits depend on the machine. This takes all rows, costs
//! `landmarks` kernel evaluations a window, and uses `libm`.
//!
//! Contributions: inputs are moved from their means to their values, feature by feature, once in order and once in reverse,
//! and what each step adds is averaged; they add up to the value minus the value at the means.

use avouch_engine::codec::{CodecError, Reader, Writer};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};
use serde::{Deserialize, Serialize};

use crate::ModelError;
use crate::linear::solve::Normal;
use crate::linear::{Scale, finite};
use crate::prognosis::Table;
use crate::recipe::RecipeConfig;

/// The name in TOML and in the model file.
pub const KIND: &str = "kernel-ridge";

/// Landmarks at most: training solves a dense system of so many equations.
const MAX_LANDMARKS: usize = 4096;

/// `algorithm = { kind = "kernel-ridge", ... }`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct KernelRidgeConfig {
    /// Training rows that are compared with, drawn with the seed.
    pub landmarks: usize,
    /// How quickly likeness fades with the mean squared distance of standardised inputs; larger is more local.
    pub width: f64,
    /// Penalty; larger is smoother.
    pub l2: f64,
    /// Count each input in the distance in proportion to the size of its correlation with the label, so that inputs that say
    /// nothing do not blur what is alike.
    pub relevance: bool,
    /// Features of the device's past, see [`crate::recipe`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recipe: Option<RecipeConfig>,
    /// Fit once more on all rows after calibrating on those held back.
    pub refit: bool,
    /// Draws the landmarks, and seeds the recipe's search for operating conditions.
    pub seed: u64,
}

impl Default for KernelRidgeConfig {
    fn default() -> Self {
        Self { landmarks: 400, width: 1.0, l2: 1.0, relevance: false, recipe: None, refit: false, seed: 0 }
    }
}

/// A fitted model.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct KernelRidge {
    scale: Scale,
    mean: f64,
    /// `width / d`.
    gamma: f64,
    /// One after another, standardised.
    landmarks: Vec<f64>,
    weights: Vec<f64>,
}

impl KernelRidge {
    pub fn fit(config: &KernelRidgeConfig, x: &Table, y: &[f64]) -> Result<Self, ModelError> {
        if config.landmarks == 0 || config.landmarks > MAX_LANDMARKS {
            let why = format!("{} is not from 1 to {MAX_LANDMARKS}", config.landmarks);
            return Err(ModelError::config("algorithm.landmarks", why));
        }
        for (key, v) in [("algorithm.width", config.width), ("algorithm.l2", config.l2)] {
            if !(v > 0.0 && v.is_finite()) {
                return Err(ModelError::config(key, format!("{v} is not a number above 0")));
            }
        }
        let d = x.width;
        let mut scale = Scale::of(x);
        if config.relevance {
            weigh(&mut scale, x, y);
        }
        let mut z = vec![0.0; d];
        let mut landmarks = Vec::with_capacity(config.landmarks.min(x.rows) * d);
        for i in draw(x.rows, config.landmarks, config.seed) {
            scale.apply(x.row(i), &mut z);
            landmarks.extend_from_slice(&z);
        }
        let m = landmarks.len() / d;
        let mean = y.iter().sum::<f64>() / y.len() as f64;
        let mut out = Self { scale, mean, gamma: config.width / d as f64, landmarks, weights: vec![0.0; m] };
        let mut normal = Normal::new(m);
        let mut likeness = vec![0.0; m];
        for (row, y) in x.iter().zip(y) {
            out.scale.apply(row, &mut z);
            out.likeness(&z, &mut likeness);
            normal.add(&likeness, y - mean);
        }
        for i in 0..m {
            let landmark = &out.landmarks[i * d..(i + 1) * d];
            out.likeness(landmark, &mut likeness);
            for (j, k) in likeness[..=i].iter().enumerate() {
                normal.penalise(i, j, config.l2 * k);
            }
            // Landmarks that are nearly the same row would leave the system without a stable solution.
            normal.penalise(i, i, 1e-8 * x.rows as f64);
        }
        out.weights = normal.solve();
        Ok(out)
    }

    fn likeness(&self, z: &[f64], out: &mut [f64]) {
        for (out, l) in out.iter_mut().zip(self.landmarks.chunks_exact(z.len())) {
            *out = libm::exp(-self.gamma * squared(z, l));
        }
    }

    fn at(&self, distances: &[f64]) -> f64 {
        distances.iter().zip(&self.weights).fold(self.mean, |sum, (d, w)| sum + w * libm::exp(-self.gamma * d))
    }

    /// The value at the means of the inputs.
    pub fn base(&self) -> f64 {
        self.at(&self.off_centre(self.scale.mean.len()))
    }

    fn off_centre(&self, d: usize) -> Vec<f64> {
        let centre = vec![0.0; d];
        self.landmarks.chunks_exact(d).map(|l| squared(&centre, l)).collect()
    }

    pub fn value(&self, x: &[f64]) -> f64 {
        let mut z = vec![0.0; x.len()];
        self.scale.apply(x, &mut z);
        let distances: Vec<f64> = self.landmarks.chunks_exact(x.len()).map(|l| squared(&z, l)).collect();
        self.at(&distances)
    }

    /// Adds `share` of what each feature adds to the value, over [`KernelRidge::base`].
    pub fn explain(&self, x: &[f64], share: f64, sources: &[usize], contributions: &mut [f64]) {
        let d = x.len();
        let mut z = vec![0.0; d];
        self.scale.apply(x, &mut z);
        let features = contributions.len();
        let order = || (0..features).filter(|f| sources.contains(f));
        let centre = self.off_centre(d);
        let mut walk = |steps: &mut dyn Iterator<Item = usize>| {
            let mut distances = centre.clone();
            let mut last = self.at(&distances);
            for feature in steps {
                let inputs: Vec<usize> = (0..d).filter(|&j| sources[j] == feature).collect();
                for (distance, l) in distances.iter_mut().zip(self.landmarks.chunks_exact(d)) {
                    for &j in &inputs {
                        // (z − l)² − (0 − l)²
                        *distance += z[j] * (z[j] - 2.0 * l[j]);
                    }
                }
                let next = self.at(&distances);
                contributions[feature] += 0.5 * share * (next - last);
                last = next;
            }
        };
        walk(&mut order());
        walk(&mut order().rev());
    }

    /// How many landmarks there are.
    pub fn landmarks(&self) -> usize {
        self.weights.len()
    }

    pub fn write(&self, w: &mut Writer) {
        self.scale.write(w);
        w.f64(self.mean);
        w.f64(self.gamma);
        w.u32(self.weights.len() as u32);
        for v in self.landmarks.iter().chain(&self.weights) {
            w.f64(*v);
        }
    }

    pub fn read(r: &mut Reader<'_>, width: usize) -> Result<Self, CodecError> {
        let scale = Scale::read(r, width)?;
        let mean = finite(r, 1)?[0];
        let gamma = finite(r, 1)?[0];
        let m = r.count(8 * (width + 1))?;
        if gamma <= 0.0 || m == 0 || m > MAX_LANDMARKS {
            return Err(r.invalid(format!("a kernel of width {gamma} on {m} landmarks")));
        }
        Ok(Self { scale, mean, gamma, landmarks: finite(r, m * width)?, weights: finite(r, m)? })
    }
}

/// Scales inputs so that each counts in squared distances by its correlation with the label, on average by 1.
fn weigh(scale: &mut Scale, x: &Table, y: &[f64]) {
    let n = y.len() as f64;
    let mean = y.iter().sum::<f64>() / n;
    let correlation: Vec<f64> = (0..x.width)
        .map(|j| {
            let (m, i) = (scale.mean[j], scale.inverse[j]);
            (x.column(j).zip(y).map(|(v, y)| (v - m) * i * (y - mean)).sum::<f64>() / n).abs()
        })
        .collect();
    let average = correlation.iter().sum::<f64>() / x.width as f64;
    if average > 0.0 {
        for (inverse, c) in scale.inverse.iter_mut().zip(&correlation) {
            *inverse *= (c / average).sqrt();
        }
    }
}

/// Squared distance, in four running sums of fixed order.
fn squared(a: &[f64], b: &[f64]) -> f64 {
    let mut sums = [0.0; 4];
    let (a4, b4) = (a.chunks_exact(4), b.chunks_exact(4));
    let rest: f64 = a4.remainder().iter().zip(b4.remainder()).map(|(a, b)| (a - b) * (a - b)).sum();
    for (a, b) in a4.zip(b4) {
        for k in 0..4 {
            sums[k] += (a[k] - b[k]) * (a[k] - b[k]);
        }
    }
    (sums[0] + sums[1]) + (sums[2] + sums[3]) + rest
}

/// `m` of `n` rows, ascending.
fn draw(n: usize, m: usize, seed: u64) -> Vec<usize> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut order: Vec<usize> = (0..n).collect();
    let m = m.min(n);
    for i in 0..m {
        let pick = i + ((u128::from(rng.next_u64()) * (n - i) as u128) >> 64) as usize;
        order.swap(i, pick);
    }
    order.truncate(m);
    order.sort_unstable();
    order
}
