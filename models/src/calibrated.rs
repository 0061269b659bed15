//! Models that judge each vector by itself, the same for every device, with one calibration.

use avouch_engine::codec::{CodecError, Reader, Writer};
use avouch_engine::model::{Score, Scorer};
use avouch_engine::verdict::Hash32;
use ndarray::{Array1, ArrayBase, Data, Ix2};

use crate::ModelError;
use crate::calibrate::Calibration;
use crate::card::CalibrationCard;
use crate::frame::Rows;
use crate::held_back::HeldBack;
use crate::standard::{read_features, write_features};

/// A fitted model of single vectors.
pub trait VectorModel: Send + Sync + std::fmt::Debug {
    /// How many features a vector has.
    fn n_features(&self) -> usize;

    /// Scores one vector of finite features: the higher, the stranger, and always finite. Writes what was expected of each
    /// feature, and contributions that add up to the score. All slices have [`VectorModel::n_features`] values.
    fn judge(&self, x: &[f64], expected: &mut [f64], contributions: &mut [f64]) -> f64;
}

/// A model file of such a model, loaded.
#[derive(Debug, Clone)]
pub struct CalibratedScorer<M> {
    hash: Hash32,
    features: Vec<String>,
    model: M,
    calibration: Calibration,
}

impl<M> CalibratedScorer<M> {
    /// The fitted model.
    pub fn model(&self) -> &M {
        &self.model
    }
}

impl<M: VectorModel> Scorer for CalibratedScorer<M> {
    fn hash(&self) -> Hash32 {
        self.hash
    }

    fn features(&self) -> &[String] {
        &self.features
    }

    fn score(&self, _: &str, features: &[f64], expected: &mut [f64], contributions: &mut [f64]) -> Score {
        if !scorable(self.features.len(), features, expected, contributions) {
            return Score::NONE;
        }
        let value = self.model.judge(features, expected, contributions);
        Score::anomaly(value, self.calibration.p_value(value))
    }

    fn smallest_p_value(&self) -> f64 {
        self.calibration.smallest_p_value()
    }
}

/// Whether a vector of `p` features can be scored; if not, both outputs are filled with NaN.
pub(crate) fn scorable(p: usize, features: &[f64], expected: &mut [f64], contributions: &mut [f64]) -> bool {
    let fits = features.len() == p && expected.len() == p && contributions.len() == p;
    let good = fits && features.iter().all(|v| v.is_finite());
    if !good {
        expected.fill(f64::NAN);
        contributions.fill(f64::NAN);
    }
    good
}

/// Scores the rows held back and calibrates on them.
pub(crate) fn calibrate<M: VectorModel>(
    model: &M,
    held_back: &Rows,
) -> Result<(Calibration, Vec<CalibrationCard>), ModelError> {
    let p = model.n_features();
    let (mut x, mut expected, mut contributions) = (vec![0.0; p], vec![0.0; p], vec![0.0; p]);
    let mut scores = HeldBack::default();
    for (row, &device) in held_back.values.outer_iter().zip(&held_back.device) {
        for (x, v) in x.iter_mut().zip(row) {
            *x = *v;
        }
        scores.push(device, model.judge(&x, &mut expected, &mut contributions));
    }
    let (calibration, card) = scores.calibrate("all devices")?;
    Ok((calibration, vec![card]))
}

/// Scores of an array's rows, for linfa's `PredictInplace`.
pub(crate) fn predict<M: VectorModel, D: Data<Elem = f64>>(model: &M, x: &ArrayBase<D, Ix2>, y: &mut Array1<f64>) {
    let p = model.n_features();
    let (mut row, mut expected, mut contributions) = (vec![0.0; p], vec![0.0; p], vec![0.0; p]);
    for (record, y) in x.outer_iter().zip(y.iter_mut()) {
        for (r, v) in row.iter_mut().zip(record) {
            *r = *v;
        }
        *y = model.judge(&row, &mut expected, &mut contributions);
    }
}

/// Writes a body: features, calibration, then what `model` writes.
pub(crate) fn encode(features: &[String], calibration: &Calibration, model: impl FnOnce(&mut Writer)) -> Vec<u8> {
    let mut w = Writer::new();
    write_features(&mut w, features);
    calibration.write(&mut w);
    model(&mut w);
    w.bytes
}

/// Reads a body back, refusing whatever [`encode`] would not have written. `model` reads its part, told how many features
/// there are.
pub(crate) fn decode<M>(
    what: &'static str,
    body: &[u8],
    hash: Hash32,
    model: impl FnOnce(&mut Reader<'_>, usize) -> Result<M, CodecError>,
) -> Result<CalibratedScorer<M>, CodecError> {
    let mut r = Reader::new(what, body);
    let features = read_features(&mut r)?;
    let calibration = Calibration::read(&mut r)?;
    let model = model(&mut r, features.len())?;
    r.finish()?;
    Ok(CalibratedScorer { hash, features, model, calibration })
}
