//! Centres, the spread about them, and the distance from the nearest.

use avouch_engine::codec::{CodecError, Reader, Writer};
use avouch_engine::verdict::Hash32;
use linfa::traits::{Fit, PredictInplace};
use linfa::{DatasetBase, ParamGuard};
use ndarray::{Array1, ArrayBase, Data, Ix2};

use super::lloyd::{cluster, nearest};
use super::params::{KMeansConfig, KMeansParams, KMeansValidParams};
use crate::calibrated::{self, CalibratedScorer, VectorModel};
use crate::card::Fitted;
use crate::frame::{Rows, TrainingFrame};
use crate::standard::{Standardised, read_finite, standardise};
use crate::t2q::{Baseline, read_baseline, write_baseline};
use crate::train::Parts;
use crate::{ModelError, k_means::KIND};

/// Fitted centres of feature vectors.
#[derive(Debug, Clone, PartialEq)]
pub struct KMeans {
    /// Its scale is the spread within clusters.
    baseline: Baseline,
    /// Centres, a row each, standardised by the baseline.
    centres: Vec<f64>,
}

impl KMeans {
    /// Centre `c` in the features' own units.
    pub fn centre(&self, c: usize) -> Option<Vec<f64>> {
        let b = &self.baseline;
        let z = self.centres.chunks_exact(b.mean.len()).nth(c)?;
        Some(z.iter().zip(&b.scale).zip(&b.mean).map(|((z, s), m)| m + z * s).collect())
    }

    /// How many centres there are.
    pub fn clusters(&self) -> usize {
        self.centres.len() / self.baseline.mean.len()
    }

    /// The spread within clusters, by feature and in its own unit.
    pub fn within(&self) -> &[f64] {
        &self.baseline.scale
    }
}

impl VectorModel for KMeans {
    fn n_features(&self) -> usize {
        self.baseline.mean.len()
    }

    #[inline]
    fn judge(&self, x: &[f64], expected: &mut [f64], contributions: &mut [f64]) -> f64 {
        let (b, p) = (&self.baseline, x.len());
        // `contributions` holds the standardised vector until they are known.
        b.standardise(x, contributions);
        let (c, score) = nearest(&self.centres, p, contributions);
        let centre = &self.centres[c * p..(c + 1) * p];
        for (j, (contribution, centre)) in contributions.iter_mut().zip(centre).enumerate() {
            let d = centre - *contribution;
            *contribution = d * d;
            expected[j] = b.mean[j] + centre * b.scale[j];
        }
        score
    }
}

/// Needs finite records, more rows than features and at least three; a feature that does not vary is an error.
impl<D: Data<Elem = f64>, T> Fit<ArrayBase<D, Ix2>, T, ModelError> for KMeansValidParams {
    type Object = KMeans;

    fn fit(&self, dataset: &DatasetBase<ArrayBase<D, Ix2>, T>) -> Result<KMeans, ModelError> {
        let Standardised { baseline, z, p } = standardise(dataset)?;
        let clusters = cluster(&z, p, self.config().clusters, self.config().seed);
        let within = clusters.within(&z, p);
        let centres =
            clusters.centres.chunks_exact(p).flat_map(|c| c.iter().zip(&within).map(|(z, w)| z / w)).collect();
        let scale = baseline.scale.iter().zip(&within).map(|(s, w)| s * w).collect();
        Ok(KMeans { baseline: Baseline::new(baseline.mean, scale), centres })
    }
}

/// Scores, one a record.
impl<D: Data<Elem = f64>> PredictInplace<ArrayBase<D, Ix2>, Array1<f64>> for KMeans {
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
    config: &KMeansConfig,
    fit: Rows,
    held_back: &Rows,
) -> Result<Parts, ModelError> {
    let params = KMeansParams::from(config.clone()).check()?;
    let model = params.fit(&fit.into_dataset(frame.features()))?;
    let (calibration, cards) = calibrated::calibrate(&model, held_back)?;
    let body = calibrated::encode(frame.features(), &calibration, |w| write(w, &model));
    let mut fitted = vec![Fitted { name: "spread within clusters".to_owned(), value: model.within().to_vec() }];
    fitted.extend(
        (0..model.clusters())
            .map(|c| Fitted { name: format!("centre of cluster {c}"), value: model.centre(c).unwrap_or_default() }),
    );
    Ok(Parts {
        model: "k-means (Lloyd 1982) from k-means++ starts (Arthur and Vassilvitskii 2007): squared distance from the \
                nearest centre in spreads within clusters, with split-conformal p-values.",
        fitted,
        calibration: cards,
        body,
    })
}

fn write(w: &mut Writer, model: &KMeans) {
    write_baseline(w, &model.baseline);
    w.u32(model.clusters() as u32);
    for v in &model.centres {
        w.f64(*v);
    }
}

/// Reads a body, refusing whatever training would not have written.
pub(crate) fn decode(body: &[u8], hash: Hash32) -> Result<CalibratedScorer<KMeans>, CodecError> {
    calibrated::decode(KIND, body, hash, |r: &mut Reader<'_>, p| {
        let baseline = read_baseline(r, p)?;
        let k = r.count(8 * p)?;
        if k == 0 {
            return Err(r.invalid("no centres"));
        }
        let centres = read_finite(r, k * p)?;
        Ok(KMeans { baseline, centres })
    })
}
