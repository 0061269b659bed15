//! Ridge regression: an estimate as a weighted sum, each weight in the card.
//!
//! ```text
//!     value = intercept + Σⱼ wⱼ (xⱼ − meanⱼ) / deviationⱼ        w minimises Σ (y − value)² + l2 · n · ‖w‖²
//! ```
//!
//! Hoerl and Kennard 1970; with `l2 = 0` ordinary least squares. `linfa_linear` computes the same, but multiplies through
//! `matrixmultiply`, whose kernels differ with the CPU's instruction set: the bytes of a model would depend on the machine.
//! This is Cholesky's method with sums in fixed order, + − × ÷ √ only; a test holds it against `linfa_linear`.

pub(crate) mod solve;

use avouch_engine::codec::{CodecError, Reader, Writer};
use serde::{Deserialize, Serialize};

use crate::ModelError;
use crate::prognosis::Table;
use crate::recipe::RecipeConfig;

/// The name in TOML and in the model file.
pub const KIND: &str = "linear";

/// `algorithm = { kind = "linear", ... }`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LinearConfig {
    /// Penalty on the squared weights of standardised inputs, relative to the number of rows; 0 is ordinary least squares.
    pub l2: f64,
    /// Features of the device's past, see [`crate::recipe`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recipe: Option<RecipeConfig>,
    /// Fit once more on all rows after calibrating on those held back.
    pub refit: bool,
    /// Seeds the recipe's search for operating conditions.
    pub seed: u64,
}

impl Default for LinearConfig {
    fn default() -> Self {
        Self { l2: 1e-4, recipe: None, refit: false, seed: 0 }
    }
}

/// Centre and scale of a model's inputs.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Scale {
    pub mean: Vec<f64>,
    /// 1 / deviation; 0 for what does not vary.
    pub inverse: Vec<f64>,
}

impl Scale {
    pub fn of(x: &Table) -> Self {
        let n = x.rows as f64;
        let (mut mean, mut inverse) = (Vec::with_capacity(x.width), Vec::with_capacity(x.width));
        for j in 0..x.width {
            let m = x.column(j).sum::<f64>() / n;
            let deviation = (x.column(j).map(|v| (v - m) * (v - m)).sum::<f64>() / n).sqrt();
            let magnitude = x.column(j).fold(0.0f64, |a, v| a.max(v.abs()));
            mean.push(m);
            inverse.push(if deviation > 1e-9 * magnitude { 1.0 / deviation } else { 0.0 });
        }
        Self { mean, inverse }
    }

    /// Standardises `x`, cut off where no training row ever was.
    pub fn apply(&self, x: &[f64], z: &mut [f64]) {
        for (((z, x), m), i) in z.iter_mut().zip(x).zip(&self.mean).zip(&self.inverse) {
            *z = ((x - m) * i).clamp(-1e6, 1e6);
        }
    }

    pub fn write(&self, w: &mut Writer) {
        for v in self.mean.iter().chain(&self.inverse) {
            w.f64(*v);
        }
    }

    pub fn read(r: &mut Reader<'_>, width: usize) -> Result<Self, CodecError> {
        let mean = finite(r, width)?;
        let inverse = finite(r, width)?;
        if inverse.iter().any(|i| *i < 0.0) {
            return Err(r.invalid("a scale is negative"));
        }
        Ok(Self { mean, inverse })
    }
}

/// `n` finite numbers.
pub(crate) fn finite(r: &mut Reader<'_>, n: usize) -> Result<Vec<f64>, CodecError> {
    if n.saturating_mul(8) > r.remaining() {
        return Err(r.invalid(format!("{n} numbers do not fit the {} bytes left", r.remaining())));
    }
    (0..n)
        .map(|_| {
            let v = r.f64()?;
            if v.is_finite() { Ok(v) } else { Err(r.invalid(format!("a number is {v}"))) }
        })
        .collect()
}

/// Fitted weights.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Linear {
    scale: Scale,
    intercept: f64,
    weights: Vec<f64>,
}

impl Linear {
    pub fn fit(config: &LinearConfig, x: &Table, y: &[f64]) -> Result<Self, ModelError> {
        if !(config.l2 >= 0.0 && config.l2.is_finite()) {
            return Err(ModelError::config("algorithm.l2", format!("{} is not a penalty of 0 or more", config.l2)));
        }
        let scale = Scale::of(x);
        let intercept = y.iter().sum::<f64>() / y.len() as f64;
        let mut normal = solve::Normal::new(x.width);
        let mut z = vec![0.0; x.width];
        for (row, y) in x.iter().zip(y) {
            scale.apply(row, &mut z);
            normal.add(&z, y - intercept);
        }
        // What does not vary has no equation of its own: its weight is 0.
        let ridge = config.l2 * x.rows as f64;
        for j in 0..x.width {
            normal.penalise(j, j, if scale.inverse[j] == 0.0 { 1.0 } else { ridge });
        }
        let weights = normal.solve();
        Ok(Self { scale, intercept, weights })
    }

    pub fn base(&self) -> f64 {
        self.intercept
    }

    pub fn value(&self, x: &[f64]) -> f64 {
        self.terms(x).fold(self.intercept, |sum, t| sum + t)
    }

    fn terms<'a>(&'a self, x: &'a [f64]) -> impl Iterator<Item = f64> + 'a {
        x.iter()
            .zip(&self.scale.mean)
            .zip(&self.scale.inverse)
            .zip(&self.weights)
            .map(|(((x, m), i), w)| ((x - m) * i).clamp(-1e6, 1e6) * w)
    }

    /// Adds `share` of what each input adds to the value.
    pub fn explain(&self, x: &[f64], share: f64, sources: &[usize], contributions: &mut [f64]) {
        for (t, s) in self.terms(x).zip(sources) {
            contributions[*s] += share * t;
        }
    }

    /// Weights of the standardised inputs.
    pub fn weights(&self) -> &[f64] {
        &self.weights
    }

    pub fn write(&self, w: &mut Writer) {
        self.scale.write(w);
        w.f64(self.intercept);
        for v in &self.weights {
            w.f64(*v);
        }
    }

    pub fn read(r: &mut Reader<'_>, width: usize) -> Result<Self, CodecError> {
        let scale = Scale::read(r, width)?;
        let intercept = finite(r, 1)?[0];
        Ok(Self { scale, intercept, weights: finite(r, width)? })
    }
}
