//! Features brought to one scale, for detectors that measure distances.

use avouch_engine::codec::{CodecError, Reader, Writer};

/// The least spread of a device's feature, as a share of the fleet's: a device on which a feature stood still while it was
/// fitted on does not alarm at its last digit.
const LEAST_SHARE: f64 = 0.02;

/// Scaled values are cut off here, so that squares and sums of them stay finite whatever finite value comes in.
const Z_MAX: f64 = 1e100;

/// Mean and spread of each feature.
#[derive(Debug, Clone, PartialEq)]
pub struct Scale {
    mean: Vec<f64>,
    spread: Vec<f64>,
    /// 1 / spread, kept because scoring multiplies.
    inverse: Vec<f64>,
}

/// Mean and standard deviation (over n) of each of `p` features of row-major rows. Two passes, because one cancels.
pub(crate) fn spread(flat: &[f64], p: usize) -> (Vec<f64>, Vec<f64>) {
    let n = (flat.len() / p) as f64;
    let (mut mean, mut squares) = (vec![0.0; p], vec![0.0; p]);
    for row in flat.chunks_exact(p) {
        for (m, x) in mean.iter_mut().zip(row) {
            *m += x;
        }
    }
    for m in &mut mean {
        *m /= n;
    }
    for row in flat.chunks_exact(p) {
        for ((s, m), x) in squares.iter_mut().zip(&mean).zip(row) {
            *s += (x - m) * (x - m);
        }
    }
    for s in &mut squares {
        *s = (*s / n).sqrt();
    }
    (mean, squares)
}

/// Whether `v` is one that [`Scale::apply`] may have written.
pub(crate) fn is_scaled(v: f64) -> bool {
    v.abs() <= Z_MAX
}

impl Scale {
    /// Of the rows of one group, beside the fleet's spread of each feature, which is positive.
    pub(crate) fn of(flat: &[f64], fleet: &[f64]) -> Self {
        let (mean, own) = spread(flat, fleet.len());
        let spread = own
            .iter()
            .zip(fleet)
            .map(|(own, fleet)| (own * own + LEAST_SHARE * LEAST_SHARE * fleet * fleet).sqrt())
            .collect();
        Self::new(mean, spread)
    }

    fn new(mean: Vec<f64>, spread: Vec<f64>) -> Self {
        let inverse = spread.iter().map(|s| 1.0 / s).collect();
        Self { mean, spread, inverse }
    }

    /// Mean of each feature, in its own unit.
    pub fn mean(&self) -> &[f64] {
        &self.mean
    }

    /// What each feature is divided by, in its own unit; positive.
    pub fn spread(&self) -> &[f64] {
        &self.spread
    }

    /// Writes the scaled `x` to `z`.
    #[inline]
    pub(crate) fn apply(&self, x: &[f64], z: &mut [f64]) {
        for (((z, x), m), i) in z.iter_mut().zip(x).zip(&self.mean).zip(&self.inverse) {
            *z = ((x - m) * i).clamp(-Z_MAX, Z_MAX);
        }
    }

    /// Scaled rows.
    pub(crate) fn rows(&self, flat: &[f64]) -> Vec<f64> {
        let p = self.mean.len();
        let mut out = vec![0.0; flat.len()];
        for (z, x) in out.chunks_exact_mut(p).zip(flat.chunks_exact(p)) {
            self.apply(x, z);
        }
        out
    }

    pub(crate) fn write(&self, w: &mut Writer) {
        for v in self.mean.iter().chain(&self.spread) {
            w.f64(*v);
        }
    }

    pub(crate) fn read(r: &mut Reader<'_>, p: usize) -> Result<Self, CodecError> {
        let mut values = Vec::new();
        for i in 0..2 * p {
            let v = r.f64()?;
            if !v.is_finite() || (i >= p && !(v > 0.0 && (1.0 / v).is_finite())) {
                return Err(r.invalid("a scale's mean must be finite, and its spread positive"));
            }
            values.push(v);
        }
        let spread = values.split_off(p);
        Ok(Self::new(values, spread))
    }
}
