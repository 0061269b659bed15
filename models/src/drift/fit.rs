//! What is measured of the training rows: level, spread and quantile bins of each feature.

use linfa::DatasetBase;
use linfa::traits::Fit;
use ndarray::{Array1, Array2};

use super::params::{DriftBaseline, DriftConfig, DriftValidParams, LimitsKind};
use super::stability::{Bins, all, logs};
use crate::ModelError;
use crate::calibrate::Calibration;

/// A device needs this many rows for a level of its own.
const MIN_DEVICE_ROWS: usize = 10;

/// A feature whose spread is below this share of its magnitude is constant.
const CONSTANT: f64 = 1e-12;

/// How far above what the training rows reach a limit lies, with `limits = "held-back"`.
pub(super) const MARGIN: f64 = 1.25;

/// At which a statistic of one feature is a drift.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Limits {
    /// Of either Page-Hinkley sum, in standard deviations.
    pub page_hinkley: f64,
    /// Of |μ₀ − μ₁| / ε in ADWIN; 1 is the paper's.
    pub adwin: f64,
    /// Of the population stability index.
    pub psi: f64,
}

impl Limits {
    /// No statistic reaches these.
    pub(super) const NONE: Self = Self { page_hinkley: f64::INFINITY, adwin: f64::INFINITY, psi: f64::INFINITY };

    /// The options' values.
    pub(super) fn of(config: &DriftConfig) -> Self {
        Self { page_hinkley: config.page_hinkley, adwin: 1.0, psi: config.psi }
    }
}

/// What standardised features are held against.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Yardstick {
    /// Spread of each feature.
    pub scale: Vec<f64>,
    /// Bins of each feature's standardised training values.
    pub bins: Vec<Bins>,
    /// Of a full window: rows and prior, and the logarithm, for each feature's number of bins.
    pub all: Vec<(f64, f64)>,
    /// Of each feature.
    pub limits: Vec<Limits>,
}

impl Yardstick {
    pub fn new(scale: Vec<f64>, bins: Vec<Bins>, limits: Vec<Limits>, window: usize) -> Self {
        let all = bins.iter().map(|b| all(window, b.len())).map(|n| (n, libm::log(n))).collect();
        Self { scale, bins, all, limits }
    }
}

/// Which of a model's two yardsticks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Against {
    Fleet,
    /// A device with a level of its own, by its number.
    Device(usize),
}

/// A fitted drift model.
#[derive(Debug, Clone, PartialEq)]
pub struct DriftModel {
    pub(super) window: usize,
    pub(super) tolerance: f64,
    pub(super) confidence: f64,
    pub(super) adapt: bool,
    /// Logarithms of the counts that a window can have.
    pub(super) logs: Vec<f64>,
    pub(super) fleet_mean: Vec<f64>,
    pub(super) fleet: Yardstick,
    /// With `baseline = "device"`: the level of each device that has one, and their common yardstick.
    pub(super) devices: Option<(Vec<Option<Vec<f64>>>, Yardstick)>,
}

impl DriftModel {
    /// How many features it takes.
    pub fn n_features(&self) -> usize {
        self.fleet_mean.len()
    }

    /// The limits of each feature on the fleet's baseline, and on devices' own if there are any.
    pub fn limits(&self) -> (&[Limits], Option<&[Limits]>) {
        (&self.fleet.limits, self.devices.as_ref().map(|(_, y)| y.limits.as_slice()))
    }

    /// What the device of this number is held against.
    pub(super) fn against(&self, device: Option<usize>) -> Against {
        match (&self.devices, device) {
            (Some((means, _)), Some(i)) if means.get(i).is_some_and(Option::is_some) => Against::Device(i),
            _ => Against::Fleet,
        }
    }

    pub(super) fn yardstick(&self, against: Against) -> (&[f64], &Yardstick) {
        if let (Against::Device(i), Some((means, yardstick))) = (against, &self.devices)
            && let Some(Some(mean)) = means.get(i)
        {
            return (mean, yardstick);
        }
        (&self.fleet_mean, &self.fleet)
    }

    /// Sets the limits of one yardstick.
    pub(super) fn set_limits(&mut self, of_devices: bool, limits: Vec<Limits>) {
        match &mut self.devices {
            Some((_, yardstick)) if of_devices => yardstick.limits = limits,
            _ => self.fleet.limits = limits,
        }
    }
}

/// Rows in the order of device and time; the targets are the devices. The limits are the options' values, or with
/// `limits = "held-back"` none yet: training sets them once it has seen the held-back rows, too.
impl Fit<Array2<f64>, Array1<usize>, ModelError> for DriftValidParams {
    type Object = DriftModel;

    fn fit(&self, dataset: &DatasetBase<Array2<f64>, Array1<usize>>) -> Result<DriftModel, ModelError> {
        let config = self.config();
        let x = dataset.records();
        let (n, p) = x.dim();
        if p == 0 {
            return Err(ModelError::Rows("there are no features to watch".to_owned()));
        }
        if n < (2 * config.bins).max(MIN_DEVICE_ROWS) {
            return Err(ModelError::Rows(format!(
                "{n} rows are too few for {} bins; give more data, hold less of it back, or set fewer `bins`",
                config.bins
            )));
        }
        if x.iter().any(|v| !v.is_finite()) {
            return Err(ModelError::Rows("a value to fit on is not finite".to_owned()));
        }
        let limits = match config.limits {
            LimitsKind::HeldBack => Limits::NONE,
            LimitsKind::Fixed => Limits::of(config),
        };
        let name = |j: usize| dataset.feature_names().get(j).cloned().unwrap_or_else(|| format!("feature {j}"));
        let everyone = vec![0; n];
        let fleet_rows = Levels::of(x, &everyone, 1);
        let fleet = fleet_rows.yardstick(x, &everyone, config, limits, "", &name)?;
        let fleet_mean = fleet_rows.means.into_iter().flatten().next().unwrap_or_default();
        let devices = match config.baseline {
            DriftBaseline::Fleet => None,
            DriftBaseline::Device => {
                let device: Vec<usize> = dataset.targets().iter().copied().collect();
                let levels = Levels::of(x, &device, device.iter().max().map_or(0, |m| m + 1));
                if levels.freedom == 0.0 {
                    return Err(ModelError::Rows(format!(
                        "no device has the {MIN_DEVICE_ROWS} rows a baseline of its own takes; give more data, or set \
                         `baseline = \"fleet\"`"
                    )));
                }
                let yardstick = levels.yardstick(x, &device, config, limits, " within each device", &name)?;
                Some((levels.means, yardstick))
            }
        };
        Ok(DriftModel {
            window: config.window,
            tolerance: config.tolerance,
            confidence: config.confidence,
            adapt: config.adapt,
            logs: logs(config.window),
            fleet_mean,
            fleet,
            devices,
        })
    }
}

/// Means of groups of rows, and the squares about them, pooled.
struct Levels {
    means: Vec<Option<Vec<f64>>>,
    squares: Vec<f64>,
    freedom: f64,
}

impl Levels {
    fn of(x: &Array2<f64>, group: &[usize], groups: usize) -> Self {
        let p = x.ncols();
        let mut rows = vec![0_usize; groups];
        let mut sums = vec![vec![0.0; p]; groups];
        for (row, &g) in x.outer_iter().zip(group) {
            rows[g] += 1;
            for (sum, v) in sums[g].iter_mut().zip(row) {
                *sum += v;
            }
        }
        let means: Vec<Option<Vec<f64>>> = sums
            .into_iter()
            .zip(&rows)
            .map(|(sum, n)| (*n >= MIN_DEVICE_ROWS).then(|| sum.into_iter().map(|s| s / *n as f64).collect()))
            .collect();
        let mut squares = vec![0.0; p];
        for (row, &g) in x.outer_iter().zip(group) {
            let Some(mean) = &means[g] else { continue };
            for ((s, v), m) in squares.iter_mut().zip(row).zip(mean) {
                *s += (v - m) * (v - m);
            }
        }
        let freedom = rows.iter().filter(|n| **n >= MIN_DEVICE_ROWS).map(|n| (*n - 1) as f64).sum();
        Self { means, squares, freedom }
    }

    fn yardstick(
        &self,
        x: &Array2<f64>,
        group: &[usize],
        config: &DriftConfig,
        limits: Limits,
        within: &'static str,
        name: &dyn Fn(usize) -> String,
    ) -> Result<Yardstick, ModelError> {
        let scale: Vec<f64> = self.squares.iter().map(|s| (s / self.freedom.max(1.0)).sqrt()).collect();
        let mut bins = Vec::with_capacity(scale.len());
        for (j, (column, &scale)) in x.columns().into_iter().zip(&scale).enumerate() {
            let magnitude = column.iter().fold(0.0, |a: f64, v| a.max(v.abs()));
            if !scale.is_finite() {
                return Err(ModelError::Rows(format!("feature `{}` overflows when squared", name(j))));
            }
            if scale <= magnitude * CONSTANT {
                return Err(ModelError::ConstantFeature { feature: name(j), within });
            }
            let of_group = |g: usize| self.means.get(g).and_then(Option::as_ref).map(|m| m[j]);
            let mut z: Vec<f64> =
                column.iter().zip(group).filter_map(|(v, g)| of_group(*g).map(|m| (v - m) / scale)).collect();
            z.sort_by(f64::total_cmp);
            bins.push(Bins::of(&z, config.bins));
        }
        let limits = vec![limits; scale.len()];
        Ok(Yardstick::new(scale, bins, limits, config.window))
    }
}

/// How values of a yardstick become p-values.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Calibrations {
    pub fleet: Calibration,
    /// There if and only if the model has levels of devices.
    pub devices: Option<Calibration>,
}
