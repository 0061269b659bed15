//! Fitting: baselines first, then the chart of what they leave.

use linfa::DatasetBase;
use linfa::traits::{Fit, PredictInplace};
use ndarray::{Array1, ArrayBase, Data, Ix2};

use super::chart::{Baseline, Chart};
use super::params::{BaselineKind, Retain, ScaleKind, T2qValidParams};
use crate::ModelError;

/// A device with fewer rows than this to fit on gets no baseline of its own.
const MIN_DEVICE_ROWS: usize = 10;

/// How many rows' worth of the fleet's spread goes into a device's own (see [`ScaleKind::Device`]).
const PRIOR_ROWS: f64 = 10.0;

/// A spread below this share of the feature's magnitude is rounding, not variation.
const CONSTANT: f64 = 1e-12;

/// A fitted T²/Q model of feature vectors. Devices are numbered as in the dataset it was fitted on.
#[derive(Debug, Clone, PartialEq)]
pub struct T2q {
    pub(super) fleet: (Baseline, Chart),
    pub(super) devices: Option<Devices>,
}

/// The part of a model with a baseline per device.
#[derive(Debug, Clone, PartialEq)]
pub struct Devices {
    /// One per device, none where it had fewer than ten rows.
    pub(super) baselines: Vec<Option<Baseline>>,
    /// One chart for all: what is left after the baseline is taken to be alike.
    pub(super) chart: Chart,
}

impl Devices {
    /// The baseline of device `i`, if it had enough rows.
    pub fn baseline(&self, i: usize) -> Option<&Baseline> {
        self.baselines.get(i).and_then(Option::as_ref)
    }

    /// The chart all devices share.
    pub fn chart(&self) -> &Chart {
        &self.chart
    }
}

impl T2q {
    /// How many features a vector has.
    pub fn n_features(&self) -> usize {
        self.fleet.0.mean.len()
    }

    /// The baseline and chart for devices the model does not know.
    pub fn fleet(&self) -> (&Baseline, &Chart) {
        (&self.fleet.0, &self.fleet.1)
    }

    /// The baselines per device, where the model was fitted with them.
    pub fn devices(&self) -> Option<&Devices> {
        self.devices.as_ref()
    }

    /// The baseline and chart that judge device `device`.
    pub(super) fn of_device(&self, device: Option<usize>) -> (&Baseline, &Chart) {
        match (&self.devices, device) {
            (Some(d), Some(i)) => match d.baseline(i) {
                Some(b) => (b, &d.chart),
                None => self.fleet(),
            },
            _ => self.fleet(),
        }
    }

    /// Scores one vector of finite features against device `device` (none: the fleet). Writes the baseline's means to
    /// `expected` and the contributions, which sum to the score in order. All slices have [`T2q::n_features`] values.
    #[inline]
    pub fn score(&self, device: Option<usize>, x: &[f64], expected: &mut [f64], contributions: &mut [f64]) -> f64 {
        let (baseline, chart) = self.of_device(device);
        // `expected` serves as the scratch of the standardised vector, so that scoring allocates nothing.
        baseline.standardise(x, expected);
        let score = chart.score(expected, contributions);
        expected.copy_from_slice(&baseline.mean);
        score
    }
}

/// Rows grouped by device. The targets are each row's device, numbered from 0; rows of a device need not be adjacent.
impl<D: Data<Elem = f64>> Fit<ArrayBase<D, Ix2>, Array1<usize>, ModelError> for T2qValidParams {
    type Object = T2q;

    /// Fits baselines and charts. Needs finite records, more rows than features and at least three; a feature that
    /// does not vary is an error.
    fn fit(&self, dataset: &DatasetBase<ArrayBase<D, Ix2>, Array1<usize>>) -> Result<T2q, ModelError> {
        let x = dataset.records();
        let (n, p) = x.dim();
        if dataset.targets().len() != n {
            return Err(linfa::Error::MismatchedShapes(n, dataset.targets().len()).into());
        }
        if p == 0 {
            return Err(ModelError::Rows("there are no features to fit on".to_owned()));
        }
        if n <= p || n < 3 {
            return Err(ModelError::Rows(format!(
                "{n} rows are too few to fit {p} features on; give more data or hold less of it back"
            )));
        }
        if let Retain::Components(k) = self.retain()
            && k > p
        {
            return Err(ModelError::config(
                "algorithm.components",
                format!("{k} components cannot be retained of {p} features"),
            ));
        }
        let flat: Vec<f64> = x.iter().copied().collect();
        if flat.iter().any(|v| !v.is_finite()) {
            return Err(ModelError::Rows("a value to fit on is not finite".to_owned()));
        }
        let name = |i: usize| dataset.feature_names().get(i).cloned().unwrap_or_else(|| format!("feature {i}"));
        let all: Vec<usize> = (0..n).collect();
        let fleet = self.fit_fleet(&flat, &all, p, &name)?;
        let devices = match self.config().baseline {
            BaselineKind::Fleet => None,
            BaselineKind::Device | BaselineKind::Adaptive => {
                Some(self.fit_devices(&flat, dataset.targets(), p, &name)?)
            }
        };
        Ok(T2q { fleet, devices })
    }
}

impl T2qValidParams {
    fn fit_fleet(
        &self,
        flat: &[f64],
        rows: &[usize],
        p: usize,
        name: &dyn Fn(usize) -> String,
    ) -> Result<(Baseline, Chart), ModelError> {
        let mean = mean(flat, rows, p);
        let scale: Vec<f64> =
            squares(flat, rows, p, &mean).iter().map(|s| (s / (rows.len() - 1) as f64).sqrt()).collect();
        refuse_constant(flat, &scale, p, "", name)?;
        let baseline = Baseline::new(mean, scale);
        let mut z = vec![0.0; flat.len()];
        for (z, x) in z.chunks_exact_mut(p).zip(flat.chunks_exact(p)) {
            baseline.standardise(x, z);
        }
        let chart = Chart::of(&z, p, self.config().shrinkage, self.retain());
        Ok((baseline, chart))
    }

    fn fit_devices(
        &self,
        flat: &[f64],
        targets: &Array1<usize>,
        p: usize,
        name: &dyn Fn(usize) -> String,
    ) -> Result<Devices, ModelError> {
        let mut rows: Vec<Vec<usize>> = vec![Vec::new(); targets.iter().max().map_or(0, |m| m + 1)];
        for (i, &device) in targets.iter().enumerate() {
            rows[device].push(i);
        }
        // Spread within devices, pooled: each device's squares about its own mean, over the degrees of freedom left.
        let mut pooled = vec![0.0; p];
        let mut freedom = 0.0;
        let mut fitted: Vec<Option<(Vec<f64>, Vec<f64>)>> = Vec::with_capacity(rows.len());
        for rows in &rows {
            if rows.len() < MIN_DEVICE_ROWS {
                fitted.push(None);
                continue;
            }
            let mean = mean(flat, rows, p);
            let squares = squares(flat, rows, p, &mean);
            for (a, s) in pooled.iter_mut().zip(&squares) {
                *a += s;
            }
            freedom += (rows.len() - 1) as f64;
            fitted.push(Some((mean, squares)));
        }
        if freedom == 0.0 {
            return Err(ModelError::Rows(format!(
                "no device has the {MIN_DEVICE_ROWS} rows a baseline of its own takes; give more data, or set \
                 `baseline = \"fleet\"`"
            )));
        }
        for v in &mut pooled {
            *v /= freedom;
        }
        let within: Vec<f64> = pooled.iter().map(|v| v.sqrt()).collect();
        refuse_constant(flat, &within, p, " within each device", name)?;

        let mut baselines = Vec::with_capacity(rows.len());
        let mut z = Vec::with_capacity(flat.len());
        let mut row_z = vec![0.0; p];
        for (rows, fitted) in rows.iter().zip(fitted) {
            let Some((mean, squares)) = fitted else {
                baselines.push(None);
                continue;
            };
            let scale = match self.config().scale {
                ScaleKind::Fleet => within.clone(),
                ScaleKind::Device => squares
                    .iter()
                    .zip(&pooled)
                    .map(|(s, v)| ((s + PRIOR_ROWS * v) / ((rows.len() - 1) as f64 + PRIOR_ROWS)).sqrt())
                    .collect(),
            };
            let baseline = Baseline::new(mean, scale);
            for &i in rows {
                baseline.standardise(&flat[i * p..(i + 1) * p], &mut row_z);
                z.extend_from_slice(&row_z);
            }
            baselines.push(Some(baseline));
        }
        let chart = Chart::of(&z, p, self.config().shrinkage, self.retain());
        Ok(Devices { baselines, chart })
    }
}

pub(crate) fn mean(flat: &[f64], rows: &[usize], p: usize) -> Vec<f64> {
    let mut mean = vec![0.0; p];
    for &i in rows {
        for (m, x) in mean.iter_mut().zip(&flat[i * p..(i + 1) * p]) {
            *m += x;
        }
    }
    for m in &mut mean {
        *m /= rows.len() as f64;
    }
    mean
}

/// Sums of squares about `mean`; two passes, because one cancels.
pub(crate) fn squares(flat: &[f64], rows: &[usize], p: usize, mean: &[f64]) -> Vec<f64> {
    let mut out = vec![0.0; p];
    for &i in rows {
        for ((s, m), x) in out.iter_mut().zip(mean).zip(&flat[i * p..(i + 1) * p]) {
            *s += (x - m) * (x - m);
        }
    }
    out
}

pub(crate) fn refuse_constant(
    flat: &[f64],
    scale: &[f64],
    p: usize,
    within: &'static str,
    name: &dyn Fn(usize) -> String,
) -> Result<(), ModelError> {
    for (j, &s) in scale.iter().enumerate() {
        let magnitude = flat.iter().skip(j).step_by(p).fold(0.0, |a: f64, v| a.max(v.abs()));
        if !s.is_finite() {
            return Err(ModelError::Rows(format!("feature `{}` overflows when squared", name(j))));
        }
        if s <= magnitude * CONSTANT {
            return Err(ModelError::ConstantFeature { feature: name(j), within });
        }
    }
    Ok(())
}

/// Scores of rows of an unknown device, one a record.
impl<D: Data<Elem = f64>> PredictInplace<ArrayBase<D, Ix2>, Array1<f64>> for T2q {
    fn predict_inplace<'a>(&'a self, x: &'a ArrayBase<D, Ix2>, y: &mut Array1<f64>) {
        let p = self.n_features();
        let (mut row, mut expected, mut contributions) = (vec![0.0; p], vec![0.0; p], vec![0.0; p]);
        for (record, y) in x.outer_iter().zip(y.iter_mut()) {
            for (r, v) in row.iter_mut().zip(record) {
                *r = *v;
            }
            *y = self.score(None, &row, &mut expected, &mut contributions);
        }
    }

    fn default_target(&self, x: &ArrayBase<D, Ix2>) -> Array1<f64> {
        Array1::zeros(x.nrows())
    }
}
