//! Fitting by device.

use linfa::DatasetBase;
use linfa::traits::PredictInplace;
use ndarray::{Array1, ArrayBase, Data, Ix2};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

use super::Detector;
use super::scale::spread;
use crate::ModelError;
use crate::t2q::BaselineKind;

/// A device with fewer rows than this to fit on gets no detector of its own.
pub(super) const MIN_DEVICE_ROWS: usize = 40;

/// A spread below this share of the feature's magnitude is rounding, not variation.
const CONSTANT: f64 = 1e-12;

/// A detector for the fleet, and perhaps one for each device. Devices are numbered as in the dataset it was fitted on.
#[derive(Debug, Clone, PartialEq)]
pub struct PerDevice<D> {
    pub(super) fleet: D,
    pub(super) devices: Option<Vec<Option<D>>>,
}

impl<D: Detector> PerDevice<D> {
    /// The detector of devices the model does not know.
    pub fn fleet(&self) -> &D {
        &self.fleet
    }

    /// The detector that judges `device`, and whether it is the device's own.
    pub fn of_device(&self, device: Option<usize>) -> (&D, bool) {
        match self.devices.as_ref().zip(device).and_then(|(d, i)| d.get(i)) {
            Some(Some(own)) => (own, true),
            _ => (&self.fleet, false),
        }
    }

    /// Whether it was fitted by device.
    pub fn by_device(&self) -> bool {
        self.devices.is_some()
    }
}

/// Rows that one detector is fitted on.
pub(crate) struct Group<'a> {
    /// Row-major.
    pub flat: &'a [f64],
    /// Values a row.
    pub p: usize,
    /// The standard deviation of each feature over all devices: positive.
    pub fleet_spread: &'a [f64],
    /// Of this group alone: what it draws depends on the seed and the device's number, not on the other devices' rows.
    pub rng: ChaCha8Rng,
}

/// Fits a detector of all rows, and with `baseline = "device"` one of the rows of each device that has enough.
pub(crate) fn fit_groups<S: Data<Elem = f64>, D>(
    dataset: &DatasetBase<ArrayBase<S, Ix2>, Array1<usize>>,
    baseline: BaselineKind,
    seed: u64,
    mut fit: impl FnMut(Group<'_>) -> Result<D, ModelError>,
) -> Result<PerDevice<D>, ModelError> {
    let x = dataset.records();
    let (n, p) = x.dim();
    if dataset.targets().len() != n {
        return Err(linfa::Error::MismatchedShapes(n, dataset.targets().len()).into());
    }
    if p == 0 {
        return Err(ModelError::Rows("there are no features to fit on".to_owned()));
    }
    if n < 3 {
        return Err(ModelError::Rows(format!(
            "{n} rows are too few to fit on; give more data or hold less of it back"
        )));
    }
    let flat: Vec<f64> = x.iter().copied().collect();
    if flat.iter().any(|v| !v.is_finite()) {
        return Err(ModelError::Rows("a value is not finite".to_owned()));
    }
    let (_, fleet_spread) = spread(&flat, p);
    for (j, s) in fleet_spread.iter().enumerate() {
        let name = || dataset.feature_names().get(j).cloned().unwrap_or_else(|| format!("feature {j}"));
        let magnitude = flat.iter().skip(j).step_by(p).fold(0.0, |a: f64, v| a.max(v.abs()));
        if !s.is_finite() {
            return Err(ModelError::Rows(format!("feature `{}` overflows when squared", name())));
        }
        if *s <= magnitude * CONSTANT {
            return Err(ModelError::ConstantFeature { feature: name(), within: "" });
        }
    }
    let rng = |stream: u64| {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(stream);
        rng
    };
    let fleet = fit(Group { flat: &flat, p, fleet_spread: &fleet_spread, rng: rng(0) })?;
    let devices = match baseline {
        BaselineKind::Adaptive => {
            let why = "`adaptive` is of `t2-q`; use `fleet`, or `device` for a detector of each device's own";
            return Err(ModelError::config("algorithm.baseline", why));
        }
        BaselineKind::Fleet => None,
        BaselineKind::Device => {
            let mut rows: Vec<Vec<f64>> = vec![Vec::new(); dataset.targets().iter().max().map_or(0, |m| m + 1)];
            for (row, &device) in flat.chunks_exact(p).zip(dataset.targets()) {
                rows[device].extend_from_slice(row);
            }
            let mut out = Vec::with_capacity(rows.len());
            for (device, own) in rows.iter().enumerate() {
                out.push(if own.len() < MIN_DEVICE_ROWS * p {
                    None
                } else {
                    Some(fit(Group { flat: own, p, fleet_spread: &fleet_spread, rng: rng(device as u64 + 1) })?)
                });
            }
            if out.iter().all(Option::is_none) {
                return Err(ModelError::Rows(format!(
                    "no device has the {MIN_DEVICE_ROWS} rows a detector of its own takes; give more data, or set \
                     `baseline = \"fleet\"`"
                )));
            }
            Some(out)
        }
    };
    Ok(PerDevice { fleet, devices })
}

/// Scores of rows of an unknown device, one a record, each as if it were the first.
impl<S: Data<Elem = f64>, D: Detector> PredictInplace<ArrayBase<S, Ix2>, Array1<f64>> for PerDevice<D> {
    fn predict_inplace<'a>(&'a self, x: &'a ArrayBase<S, Ix2>, y: &mut Array1<f64>) {
        let p = self.fleet.n_features();
        let (mut row, mut expected, mut contributions) = (vec![0.0; p], vec![0.0; p], vec![0.0; p]);
        for (record, y) in x.outer_iter().zip(y.iter_mut()) {
            for (r, v) in row.iter_mut().zip(record) {
                *r = *v;
            }
            *y = self.fleet.score(&row, &mut expected, &mut contributions);
        }
    }

    fn default_target(&self, x: &ArrayBase<S, Ix2>) -> Array1<f64> {
        Array1::zeros(x.nrows())
    }
}
