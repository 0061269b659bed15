//! What a model of vectors begins with: every feature in units of its own spread, and no feature that cannot be.

use avouch_engine::codec::{CodecError, Reader, Writer};
use linfa::DatasetBase;
use ndarray::{ArrayBase, Data, Ix2};

use crate::ModelError;
use crate::t2q::{Baseline, mean, refuse_constant, squares};

/// Rows of a dataset, standardised by their own mean and deviation.
pub(crate) struct Standardised {
    /// What they were standardised by.
    pub baseline: Baseline,
    /// The rows, row-major.
    pub z: Vec<f64>,
    /// How many features a row has.
    pub p: usize,
}

/// Standardises the records. Needs finite values, at least three rows and more rows than features, and features that vary.
pub(crate) fn standardise<D: Data<Elem = f64>, T>(
    dataset: &DatasetBase<ArrayBase<D, Ix2>, T>,
) -> Result<Standardised, ModelError> {
    let (n, p) = dataset.records().dim();
    if p == 0 {
        return Err(ModelError::Rows("there are no features to fit on".to_owned()));
    }
    if n <= p || n < 3 {
        return Err(ModelError::Rows(format!(
            "{n} rows are too few to fit {p} features on; give more data or hold less of it back"
        )));
    }
    let flat: Vec<f64> = dataset.records().iter().copied().collect();
    if flat.iter().any(|v| !v.is_finite()) {
        return Err(ModelError::Rows("a value to fit on is not finite".to_owned()));
    }
    let all: Vec<usize> = (0..n).collect();
    let centre = mean(&flat, &all, p);
    let scale: Vec<f64> = squares(&flat, &all, p, &centre).iter().map(|s| (s / (n - 1) as f64).sqrt()).collect();
    let name = |i: usize| dataset.feature_names().get(i).cloned().unwrap_or_else(|| format!("feature {i}"));
    refuse_constant(&flat, &scale, p, "", &name)?;
    let baseline = Baseline::new(centre, scale);
    let mut z = vec![0.0; flat.len()];
    for (z, x) in z.chunks_exact_mut(p).zip(flat.chunks_exact(p)) {
        baseline.standardise(x, z);
    }
    Ok(Standardised { baseline, z, p })
}

/// Writes feature names.
pub(crate) fn write_features(w: &mut Writer, features: &[String]) {
    w.u32(features.len() as u32);
    for f in features {
        w.str(f);
    }
}

/// Reads what [`write_features`] wrote: at least one, none empty, none twice.
pub(crate) fn read_features(r: &mut Reader<'_>) -> Result<Vec<String>, CodecError> {
    let features = crate::file::read_features(r)?;
    Ok(features)
}

/// Reads `n` finite numbers. Memory grows with what is there, not with what `n` promises.
pub(crate) fn read_finite(r: &mut Reader<'_>, n: usize) -> Result<Vec<f64>, CodecError> {
    let mut out = Vec::with_capacity(n.min(r.remaining() / 8));
    for _ in 0..n {
        let v = r.f64()?;
        if !v.is_finite() {
            return Err(r.invalid("a model's values must be finite"));
        }
        out.push(v);
    }
    Ok(out)
}
