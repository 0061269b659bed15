//! From a raw value to a probability: Platt's scaling (Platt 1999), with the targets of Lin, Lin and Weng 2007.

use avouch_engine::codec::{CodecError, Reader, Writer};

use crate::ModelError;
use crate::linear::finite;

/// Newton steps at most.
const MAX_STEPS: usize = 100;

/// `1 / (1 + exp(−(slope · raw + intercept)))`, never falling with the raw value.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Platt {
    slope: f64,
    intercept: f64,
}

fn logistic(t: f64) -> f64 {
    1.0 / (1.0 + libm::exp(-t))
}

impl Platt {
    /// Of raw values and labels (0 or 1) of held-back rows.
    ///
    /// # Errors
    /// When there are not both labels.
    pub fn of(pairs: &[(f64, f64)]) -> Result<Self, ModelError> {
        let ones = pairs.iter().filter(|(_, y)| *y > 0.5).count() as f64;
        let zeros = pairs.len() as f64 - ones;
        if ones < 5.0 || zeros < 5.0 {
            return Err(ModelError::Rows(format!(
                "of the rows held back {ones} failed and {zeros} did not; at least 5 of both are needed to calibrate a \
                 probability: raise `split.hold_back` or give more data"
            )));
        }
        let (one, zero) = ((ones + 1.0) / (ones + 2.0), 1.0 / (zeros + 2.0));
        let target = |y: f64| if y > 0.5 { one } else { zero };
        let loss = |s: f64, i: f64| -> f64 {
            pairs
                .iter()
                .map(|(x, y)| {
                    let t = s * x + i;
                    // log(1 + exp(t)) − y t, without overflow.
                    let soft = if t > 0.0 { t + libm::log1p(libm::exp(-t)) } else { libm::log1p(libm::exp(t)) };
                    soft - target(*y) * t
                })
                .sum()
        };
        let (mut slope, mut intercept) = (0.0, libm::log((ones + 1.0) / (zeros + 1.0)));
        let mut last = loss(slope, intercept);
        for _ in 0..MAX_STEPS {
            let (mut g, mut h) = ([0.0; 2], [1e-9, 0.0, 1e-9]);
            for (x, y) in pairs {
                let p = logistic(slope * x + intercept);
                let (d, c) = (p - target(*y), p * (1.0 - p));
                g[0] += d * x;
                g[1] += d;
                h[0] += c * x * x;
                h[1] += c * x;
                h[2] += c;
            }
            let determinant = h[0] * h[2] - h[1] * h[1];
            if determinant <= 0.0 {
                break;
            }
            let step = [(h[2] * g[0] - h[1] * g[1]) / determinant, (h[0] * g[1] - h[1] * g[0]) / determinant];
            let mut size = 1.0;
            let mut moved = false;
            while size > 1e-9 {
                let next = (slope - size * step[0], intercept - size * step[1]);
                let l = loss(next.0, next.1);
                if l < last - 1e-12 {
                    (slope, intercept) = next;
                    last = l;
                    moved = true;
                    break;
                }
                size *= 0.5;
            }
            if !moved {
                break;
            }
        }
        Ok(Self { slope: slope.max(0.0), intercept })
    }

    /// The probability for a raw value.
    pub fn probability(&self, raw: f64) -> f64 {
        logistic(self.slope * raw + self.intercept)
    }

    pub(crate) fn write(&self, w: &mut Writer) {
        w.f64(self.slope);
        w.f64(self.intercept);
    }

    pub(crate) fn read(r: &mut Reader<'_>) -> Result<Self, CodecError> {
        let v = finite(r, 2)?;
        if v[0] < 0.0 {
            return Err(r.invalid("a probability falls with its raw value"));
        }
        Ok(Self { slope: v[0], intercept: v[1] })
    }
}
