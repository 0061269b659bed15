//! The mixture as it scores: for each component a mean, the root of its precision, and what the condition is worth.

use avouch_engine::codec::{CodecError, Reader, Writer};
use avouch_engine::verdict::Hash32;
use linfa::traits::{Fit, PredictInplace};
use linfa::{DatasetBase, ParamGuard};
use ndarray::{Array1, ArrayBase, Data, Ix2};

use super::em::{self, Gaussian, Mixture};
use super::params::{GaussianMixtureConfig, GaussianMixtureParams, GaussianMixtureValidParams};
use crate::calibrated::{self, CalibratedScorer, VectorModel};
use crate::card::Fitted;
use crate::frame::{Rows, TrainingFrame};
use crate::standard::{Standardised, read_finite, standardise};
use crate::t2q::{Baseline, eigen, read_baseline, write_baseline};
use crate::train::Parts;
use crate::{ModelError, gaussian_mixture::KIND};

/// One component.
#[derive(Debug, Clone, PartialEq)]
pub struct Component {
    weight: f64,
    /// cₖ.
    offset: f64,
    /// Standardised.
    mean: Vec<f64>,
    /// The symmetric root of the precision, features × features, row-major.
    root: Vec<f64>,
}

impl Component {
    fn of(g: Gaussian, p: usize) -> Self {
        let (values, vectors) = eigen::symmetric(&g.covariance, p);
        let mut root = vec![0.0; p * p];
        let mut log_det = 0.0;
        for (value, v) in values.iter().zip(vectors.chunks_exact(p)) {
            // The prior keeps it positive, and rounding must not undo that.
            let value = value.max(f64::MIN_POSITIVE.sqrt());
            log_det += libm::log(value);
            let weight = 1.0 / value.sqrt();
            for i in 0..p {
                for j in 0..p {
                    root[i * p + j] += weight * v[i] * v[j];
                }
            }
        }
        Self { weight: g.weight, offset: log_det - 2.0 * libm::log(g.weight), mean: g.mean, root }
    }

    /// Its share of the training rows.
    pub fn weight(&self) -> f64 {
        self.weight
    }

    /// What it adds to the score of every vector it is responsible for; 0 for the component with the highest peak.
    pub fn offset(&self) -> f64 {
        self.offset
    }
}

/// A fitted mixture over feature vectors.
#[derive(Debug, Clone, PartialEq)]
pub struct GaussianMixture {
    baseline: Baseline,
    components: Vec<Component>,
    likelihood: f64,
    iterations: usize,
}

impl GaussianMixture {
    /// The components, in the order of the k-means centres they came from.
    pub fn components(&self) -> &[Component] {
        &self.components
    }

    /// Mean of component `k` in the features' own units.
    pub fn mean(&self, k: usize) -> Option<Vec<f64>> {
        let (b, c) = (&self.baseline, self.components.get(k)?);
        Some(c.mean.iter().zip(&b.scale).zip(&b.mean).map(|((z, s), m)| m + z * s).collect())
    }

    /// The component that is most responsible for a standardised vector, and the score. Of equal ones the first.
    #[inline]
    fn responsible(&self, z: &[f64]) -> (usize, f64) {
        let mut best = (0, f64::INFINITY);
        for (k, c) in self.components.iter().enumerate() {
            let mut score = c.offset;
            for row in c.root.chunks_exact(z.len()) {
                let dot = dot(row, z, &c.mean);
                score += dot * dot;
                // It only grows.
                if score >= best.1 {
                    break;
                }
            }
            if score < best.1 {
                best = (k, score);
            }
        }
        best
    }
}

#[inline]
fn dot(row: &[f64], z: &[f64], mean: &[f64]) -> f64 {
    let mut dot = 0.0;
    for ((w, z), m) in row.iter().zip(z).zip(mean) {
        dot += w * (z - m);
    }
    dot
}

impl VectorModel for GaussianMixture {
    fn n_features(&self) -> usize {
        self.baseline.mean.len()
    }

    #[inline]
    fn judge(&self, x: &[f64], expected: &mut [f64], contributions: &mut [f64]) -> f64 {
        let (b, p) = (&self.baseline, x.len());
        // `expected` serves as the scratch of the standardised vector, so that scoring allocates nothing.
        b.standardise(x, expected);
        let (k, score) = self.responsible(expected);
        let c = &self.components[k];
        let share = c.offset / p as f64;
        for (contribution, row) in contributions.iter_mut().zip(c.root.chunks_exact(p)) {
            let dot = dot(row, expected, &c.mean);
            *contribution = dot * dot + share;
        }
        for (j, expected) in expected.iter_mut().enumerate() {
            *expected = b.mean[j] + c.mean[j] * b.scale[j];
        }
        score
    }
}

/// Needs finite records, more rows than features and at least three; a feature that does not vary is an error.
impl<D: Data<Elem = f64>, T> Fit<ArrayBase<D, Ix2>, T, ModelError> for GaussianMixtureValidParams {
    type Object = GaussianMixture;

    fn fit(&self, dataset: &DatasetBase<ArrayBase<D, Ix2>, T>) -> Result<GaussianMixture, ModelError> {
        let Standardised { baseline, z, p } = standardise(dataset)?;
        let Mixture { components, likelihood, iterations } = em::fit(&z, p, &self.start(&z, p))?;
        let mut components: Vec<Component> = components.into_iter().map(|g| Component::of(g, p)).collect();
        let least = components.iter().map(|c| c.offset).fold(f64::INFINITY, f64::min);
        for c in &mut components {
            c.offset -= least;
        }
        Ok(GaussianMixture { baseline, components, likelihood, iterations })
    }
}

/// Scores, one a record.
impl<D: Data<Elem = f64>> PredictInplace<ArrayBase<D, Ix2>, Array1<f64>> for GaussianMixture {
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
    config: &GaussianMixtureConfig,
    fit: Rows,
    held_back: &Rows,
) -> Result<Parts, ModelError> {
    let params = GaussianMixtureParams::from(config.clone()).check()?;
    let model = params.fit(&fit.into_dataset(frame.features()))?;
    let (calibration, cards) = calibrated::calibrate(&model, held_back)?;
    let body = calibrated::encode(frame.features(), &calibration, |w| write(w, &model));
    let of_components = |name: &str, f: fn(&Component) -> f64| Fitted {
        name: name.to_owned(),
        value: model.components.iter().map(f).collect(),
    };
    let mut fitted = vec![
        Fitted { name: "log likelihood a row, standardised".to_owned(), value: vec![model.likelihood] },
        Fitted { name: "iterations".to_owned(), value: vec![model.iterations as f64] },
        of_components("weights of the components", Component::weight),
        of_components("what each component adds to its scores", Component::offset),
    ];
    fitted.extend(
        (0..model.components.len())
            .map(|k| Fitted { name: format!("mean of component {k}"), value: model.mean(k).unwrap_or_default() }),
    );
    Ok(Parts {
        model: "Gaussian mixture by expectation maximisation (Dempster, Laird and Rubin 1977) with a prior on the \
                covariances (Fraley and Raftery 2007): weighted density of the most responsible component, with complete \
                decomposition contributions (Alcala and Qin 2009) and split-conformal p-values.",
        fitted,
        calibration: cards,
        body,
    })
}

fn write(w: &mut Writer, model: &GaussianMixture) {
    write_baseline(w, &model.baseline);
    w.f64(model.likelihood);
    w.u32(model.iterations as u32);
    w.u32(model.components.len() as u32);
    for c in &model.components {
        w.f64(c.weight);
        w.f64(c.offset);
        for v in c.mean.iter().chain(&c.root) {
            w.f64(*v);
        }
    }
}

/// Reads a body, refusing whatever training would not have written.
pub(crate) fn decode(body: &[u8], hash: Hash32) -> Result<CalibratedScorer<GaussianMixture>, CodecError> {
    calibrated::decode(KIND, body, hash, |r: &mut Reader<'_>, p| {
        let baseline = read_baseline(r, p)?;
        let likelihood = r.f64()?;
        if !likelihood.is_finite() {
            return Err(r.invalid("the likelihood is not finite"));
        }
        let iterations = r.u32()? as usize;
        let count = r.count(16 + 16 * p)?;
        let mut components = Vec::with_capacity(count);
        for k in 0..count {
            let (weight, offset) = (r.f64()?, r.f64()?);
            if !(weight > 0.0 && weight <= 1.0 && offset >= 0.0 && offset.is_finite()) {
                return Err(r.invalid(format!("weight or offset of component {k} is out of range")));
            }
            let mean = read_finite(r, p)?;
            let root = read_finite(r, p.saturating_mul(p))?;
            components.push(Component { weight, offset, mean, root });
        }
        if !components.iter().any(|c| c.offset == 0.0) {
            return Err(r.invalid("no component has the highest peak"));
        }
        Ok(GaussianMixture { baseline, components, likelihood, iterations })
    })
}
