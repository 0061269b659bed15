//! Support vectors and the score against them.

use avouch_engine::codec::{CodecError, Reader, Writer};
use avouch_engine::verdict::Hash32;
use linfa::traits::{Fit, PredictInplace};
use linfa::{DatasetBase, ParamGuard};
use ndarray::{Array1, ArrayBase, Data, Ix2};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

use super::params::{OneClassSvmConfig, OneClassSvmParams, OneClassSvmValidParams};
use super::{KIND, MAX_ROWS, smo};
use crate::ModelError;
use crate::calibrated::{self, CalibratedScorer, VectorModel};
use crate::card::Fitted;
use crate::frame::{Rows, TrainingFrame};
use crate::standard::{Standardised, read_finite, standardise};
use crate::t2q::{Baseline, read_baseline, write_baseline};
use crate::train::Parts;

/// Weights below this are none.
const LEAST_WEIGHT: f64 = 1e-12;

/// Squared distances are cut off here, so that a score stays finite whatever finite value comes in.
const FAR: f64 = 1e200;

/// A fitted one-class machine.
#[derive(Debug, Clone, PartialEq)]
pub struct OneClassSvm {
    baseline: Baseline,
    eps: f64,
    rho: f64,
    /// Logarithms of the weights.
    log_alpha: Vec<f64>,
    /// Standardised, a row each.
    vectors: Vec<f64>,
    rows: usize,
    steps: usize,
}

impl OneClassSvm {
    /// How many support vectors there are.
    pub fn support_vectors(&self) -> usize {
        self.log_alpha.len()
    }

    /// f at the edge.
    pub fn rho(&self) -> f64 {
        self.rho
    }

    /// The kernel's width.
    pub fn eps(&self) -> f64 {
        self.eps
    }

    /// −ln(αᵢ K(z, sᵢ)).
    #[inline]
    fn cost(&self, i: usize, z: &[f64]) -> f64 {
        let p = z.len();
        let mut distance = 0.0;
        for (z, s) in z.iter().zip(&self.vectors[i * p..(i + 1) * p]) {
            distance += (z - s) * (z - s);
        }
        distance.min(FAR) / self.eps - self.log_alpha[i]
    }
}

impl VectorModel for OneClassSvm {
    fn n_features(&self) -> usize {
        self.baseline.mean.len()
    }

    fn judge(&self, x: &[f64], expected: &mut [f64], contributions: &mut [f64]) -> f64 {
        let (b, p) = (&self.baseline, x.len());
        // Both outputs begin as scratch: the standardised vector, and the support vectors' mean.
        b.standardise(x, expected);
        contributions.fill(0.0);
        let z: &[f64] = expected;
        let mut least = f64::INFINITY;
        for i in 0..self.log_alpha.len() {
            least = least.min(self.cost(i, z));
        }
        // Shares relative to the nearest support vector's, whose is 1. Those of e^-40 add nothing to a sum of doubles.
        let mut sum = 0.0;
        let mut squares = vec![0.0; p];
        for i in 0..self.log_alpha.len() {
            let cost = self.cost(i, z);
            if cost - least > 40.0 {
                continue;
            }
            let share = libm::exp(least - cost);
            sum += share;
            for (j, s) in self.vectors[i * p..(i + 1) * p].iter().enumerate() {
                contributions[j] += share * s;
                squares[j] += share * (z[j] - s) * (z[j] - s);
            }
        }
        let score = libm::log(self.rho) + least - libm::log(sum);
        // Σ wᵢ ln(wᵢ/αᵢ) + ln ρ is what the squares leave of the score.
        let mut by_feature = 0.0;
        for s in &mut squares {
            *s = (*s / sum).min(FAR) / self.eps;
            by_feature += *s;
        }
        let rest = (score - by_feature) / p as f64;
        for j in 0..p {
            expected[j] = b.mean[j] + contributions[j] / sum * b.scale[j];
            contributions[j] = squares[j] + rest;
        }
        score
    }
}

/// Needs finite records, more rows than features and at least three; a feature that does not vary is an error.
impl<D: Data<Elem = f64>, T> Fit<ArrayBase<D, Ix2>, T, ModelError> for OneClassSvmValidParams {
    type Object = OneClassSvm;

    fn fit(&self, dataset: &DatasetBase<ArrayBase<D, Ix2>, T>) -> Result<OneClassSvm, ModelError> {
        let Standardised { baseline, z, p } = standardise(dataset)?;
        let config = self.config();
        let eps = config.eps.unwrap_or(2.0 * p as f64);
        let drawn = draw(z.len() / p, config.seed);
        let n = drawn.len();
        let row = |i: usize| &z[drawn[i] * p..(drawn[i] + 1) * p];
        let mut k = vec![1.0; n * n];
        for i in 0..n {
            for j in 0..i {
                let mut distance = 0.0;
                for (a, b) in row(i).iter().zip(row(j)) {
                    distance += (a - b) * (a - b);
                }
                k[i * n + j] = libm::exp(-distance / eps);
                k[j * n + i] = k[i * n + j];
            }
        }
        let solution = smo::solve(&k, n, config.nu);
        let (mut log_alpha, mut vectors) = (Vec::new(), Vec::new());
        for (i, a) in solution.alpha.iter().enumerate().filter(|(_, a)| **a > LEAST_WEIGHT) {
            log_alpha.push(libm::log(*a));
            vectors.extend_from_slice(row(i));
        }
        Ok(OneClassSvm { baseline, eps, rho: solution.rho, log_alpha, vectors, rows: n, steps: solution.steps })
    }
}

/// Which of `n` rows are fitted on, in order: all, or [`MAX_ROWS`] drawn with the seed.
fn draw(n: usize, seed: u64) -> Vec<usize> {
    let mut order: Vec<usize> = (0..n).collect();
    if n <= MAX_ROWS {
        return order;
    }
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    // The first steps of a Fisher-Yates shuffle; the widening multiplication's bias is below n / 2⁶⁴.
    for i in 0..MAX_ROWS {
        let pick = i + ((u128::from(rng.next_u64()) * (n - i) as u128) >> 64) as usize;
        order.swap(i, pick);
    }
    order.truncate(MAX_ROWS);
    order.sort_unstable();
    order
}

/// Scores, one a record.
impl<D: Data<Elem = f64>> PredictInplace<ArrayBase<D, Ix2>, Array1<f64>> for OneClassSvm {
    fn predict_inplace<'a>(&'a self, x: &'a ArrayBase<D, Ix2>, y: &mut Array1<f64>) {
        calibrated::predict(self, x, y);
    }

    fn default_target(&self, x: &ArrayBase<D, Ix2>) -> Array1<f64> {
        Array1::zeros(x.nrows())
    }
}

/// Fits and calibrates.
pub(crate) fn train(
    frame: &TrainingFrame,
    config: &OneClassSvmConfig,
    fit: Rows,
    held_back: &Rows,
) -> Result<Parts, ModelError> {
    let params = OneClassSvmParams::from(config.clone()).check()?;
    let model = params.fit(&fit.into_dataset(frame.features()))?;
    let (calibration, cards) = calibrated::calibrate(&model, held_back)?;
    let body = calibrated::encode(frame.features(), &calibration, |w| write(w, &model));
    let fact = |name: &str, value: f64| Fitted { name: name.to_owned(), value: vec![value] };
    let fitted = vec![
        fact("rows the machine was fitted on", model.rows as f64),
        fact("support vectors", model.support_vectors() as f64),
        fact("kernel width", model.eps),
        fact("ρ", model.rho),
        fact("steps", model.steps as f64),
    ];
    Ok(Parts {
        model: "One-class support vector machine with a Gaussian kernel (Schölkopf et al. 2001), scored as ln ρ − ln f, \
                with contributions by the support vectors' shares and split-conformal p-values.",
        fitted,
        calibration: cards,
        body,
    })
}

fn write(w: &mut Writer, model: &OneClassSvm) {
    write_baseline(w, &model.baseline);
    w.f64(model.eps);
    w.f64(model.rho);
    w.u32(model.rows as u32);
    w.u32(model.steps as u32);
    w.u32(model.log_alpha.len() as u32);
    for v in model.log_alpha.iter().chain(&model.vectors) {
        w.f64(*v);
    }
}

/// Reads a body, refusing whatever training would not have written.
pub(crate) fn decode(body: &[u8], hash: Hash32) -> Result<CalibratedScorer<OneClassSvm>, CodecError> {
    calibrated::decode(KIND, body, hash, |r: &mut Reader<'_>, p| {
        let baseline = read_baseline(r, p)?;
        let (eps, rho) = (r.f64()?, r.f64()?);
        if !(eps > 0.0 && eps.is_finite() && rho > 0.0 && rho.is_finite()) {
            return Err(r.invalid("the kernel's width and ρ must be positive"));
        }
        let (rows, steps) = (r.u32()? as usize, r.u32()? as usize);
        let count = r.count(8 + 8 * p)?;
        if count == 0 || count > rows || rows > MAX_ROWS {
            return Err(r.invalid(format!("{count} support vectors of {rows} rows")));
        }
        let log_alpha = read_finite(r, count)?;
        if log_alpha.iter().any(|a| *a > 0.0) {
            return Err(r.invalid("a support vector's weight is above 1"));
        }
        let vectors = read_finite(r, count * p)?;
        Ok(OneClassSvm { baseline, eps, rho, log_alpha, vectors, rows, steps })
    })
}
