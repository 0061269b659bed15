//! Fitting: smooth the training rows as serving will, and take the covariance of what comes of it.

use linfa::traits::Fit;
use linfa::{DatasetBase, ParamGuard};
use ndarray::{Array1, ArrayBase, Data, Ix2};

use super::params::{MewmaConfig, MewmaParams, MewmaValidParams};
use super::{Z_MEMORY, file};
use crate::ModelError;
use crate::card::Fitted;
use crate::frame::{Rows, TrainingFrame};
use crate::held_back::HeldBack;
use crate::standard::{Standardised, standardise};
use crate::t2q::{Baseline, Chart, Retain};
use crate::train::Parts;

/// Share of the rows held back that lie within a chart's limit.
const WITHIN: f64 = 0.99;

/// One chart.
#[derive(Debug, Clone, PartialEq)]
pub struct Scale {
    pub(super) lambda: f64,
    pub(super) chart: Chart,
    pub(super) limit: f64,
}

impl Scale {
    /// Weight of the newest vector.
    pub fn lambda(&self) -> f64 {
        self.lambda
    }

    /// The quadratic form of the smoothed vector.
    pub fn chart(&self) -> &Chart {
        &self.chart
    }

    /// What its value is divided by: 99 % of the rows held back.
    pub fn limit(&self) -> f64 {
        self.limit
    }
}

/// Fitted charts of feature vectors.
#[derive(Debug, Clone, PartialEq)]
pub struct Mewma {
    pub(super) baseline: Baseline,
    pub(super) scales: Vec<Scale>,
}

/// What is remembered of a device.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct State {
    /// The smoothed vector of each chart, one after the other.
    pub smoothed: Vec<f64>,
    /// (1 − λ)²ⁱ of each chart.
    pub left: Vec<f64>,
}

impl State {
    pub fn new(p: usize, scales: usize) -> Self {
        Self { smoothed: vec![0.0; p * scales], left: vec![1.0; scales] }
    }

    /// Takes in the standardised `z` in chart `k`, and writes the smoothed vector at unit spread to `out`.
    #[inline]
    pub fn smooth(&mut self, k: usize, lambda: f64, z: &[f64], out: &mut [f64]) {
        let keep = 1.0 - lambda;
        let left = &mut self.left[k];
        *left *= keep * keep;
        let unit = 1.0 / (lambda / (2.0 - lambda) * (1.0 - *left)).sqrt();
        let smoothed = &mut self.smoothed[k * z.len()..(k + 1) * z.len()];
        for ((s, z), out) in smoothed.iter_mut().zip(z).zip(out) {
            *s = lambda * z.clamp(-Z_MEMORY, Z_MEMORY) + keep * *s;
            *out = *s * unit;
        }
    }
}

/// Room for scoring, so that it allocates nothing.
#[derive(Debug, Clone)]
pub(super) struct Scratch {
    z: Vec<f64>,
    smoothed: Vec<f64>,
    contributions: Vec<f64>,
}

impl Scratch {
    pub fn new(p: usize) -> Self {
        Self { z: vec![0.0; p], smoothed: vec![0.0; p], contributions: vec![0.0; p] }
    }
}

impl Mewma {
    /// How many features a vector has.
    pub fn n_features(&self) -> usize {
        self.baseline.mean.len()
    }

    /// What vectors are standardised by.
    pub fn baseline(&self) -> &Baseline {
        &self.baseline
    }

    /// The charts, the shortest memory first.
    pub fn scales(&self) -> &[Scale] {
        &self.scales
    }

    /// A device that was not seen yet.
    pub(super) fn state(&self) -> State {
        State::new(self.n_features(), self.scales.len())
    }

    /// Takes a vector of finite features into `state` and scores it there. Writes the means to `expected` and the
    /// contributions of the chart that is furthest out; of two equal ones that with the shorter memory.
    #[inline]
    pub(super) fn judge(
        &self,
        state: &mut State,
        scratch: &mut Scratch,
        x: &[f64],
        expected: &mut [f64],
        contributions: &mut [f64],
    ) -> f64 {
        self.baseline.standardise(x, &mut scratch.z);
        let mut best = f64::NEG_INFINITY;
        for (k, scale) in self.scales.iter().enumerate() {
            state.smooth(k, scale.lambda, &scratch.z, &mut scratch.smoothed);
            let inverse = 1.0 / scale.limit;
            let score = scale.chart.score(&scratch.smoothed, &mut scratch.contributions) * inverse;
            if score > best {
                best = score;
                for (to, from) in contributions.iter_mut().zip(&scratch.contributions) {
                    *to = from * inverse;
                }
            }
        }
        expected.copy_from_slice(&self.baseline.mean);
        best
    }
}

/// The targets are each row's device; rows of a device follow each other in the order of time.
impl<D: Data<Elem = f64>> Fit<ArrayBase<D, Ix2>, Array1<usize>, ModelError> for MewmaValidParams {
    type Object = Mewma;

    /// Fits baseline and charts, all with limit 1. Needs finite records, more rows than features and at least three; a
    /// feature that does not vary is an error.
    fn fit(&self, dataset: &DatasetBase<ArrayBase<D, Ix2>, Array1<usize>>) -> Result<Mewma, ModelError> {
        let (n, devices) = (dataset.records().nrows(), dataset.targets());
        if devices.len() != n {
            return Err(linfa::Error::MismatchedShapes(n, devices.len()).into());
        }
        let Standardised { baseline, z, p } = standardise(dataset)?;
        let scales = self.lambdas().into_iter().map(|lambda| {
            let mut smoothed = vec![0.0; z.len()];
            let mut state = State::new(p, 1);
            let mut last = None;
            for ((row, out), &device) in z.chunks_exact(p).zip(smoothed.chunks_exact_mut(p)).zip(devices) {
                if last.is_some_and(|last| last != device) {
                    state = State::new(p, 1);
                }
                last = Some(device);
                state.smooth(0, lambda, row, out);
            }
            let chart = Chart::of(&smoothed, p, self.config().shrinkage, Retain::Components(p));
            Scale { lambda, chart, limit: 1.0 }
        });
        Ok(Mewma { scales: scales.collect(), baseline })
    }
}

/// Runs the charts over each device's rows, those fitted on first, and gives `each` the device and state after every row
/// held back.
fn run(model: &Mewma, fit: &Rows, held_back: &Rows, mut each: impl FnMut(usize, &Mewma, &mut State, &[f64])) {
    let devices = fit.device.iter().chain(&held_back.device).max().map_or(0, |d| d + 1);
    let p = model.n_features();
    let mut scratch = Scratch::new(p);
    let (mut expected, mut contributions, mut x) = (vec![0.0; p], vec![0.0; p], vec![0.0; p]);
    // Rows of a device are adjacent in both.
    let mut starts = (0, 0);
    for device in 0..devices {
        let mut state = model.state();
        while fit.device.get(starts.0) == Some(&device) {
            x.iter_mut().zip(fit.values.row(starts.0)).for_each(|(x, v)| *x = *v);
            model.judge(&mut state, &mut scratch, &x, &mut expected, &mut contributions);
            starts.0 += 1;
        }
        while held_back.device.get(starts.1) == Some(&device) {
            x.iter_mut().zip(held_back.values.row(starts.1)).for_each(|(x, v)| *x = *v);
            each(device, model, &mut state, &x);
            starts.1 += 1;
        }
    }
}

/// Fits, sets the charts' limits on the rows held back, and calibrates the score on them.
pub(crate) fn train(
    frame: &TrainingFrame,
    config: &MewmaConfig,
    fit: Rows,
    held_back: &Rows,
) -> Result<Parts, ModelError> {
    let params = MewmaParams::from(config.clone()).check()?;
    let mut model = params.fit(&fit.clone().into_dataset(frame.features()))?;
    let p = model.n_features();
    let mut scratch = Scratch::new(p);
    let (mut expected, mut contributions) = (vec![0.0; p], vec![0.0; p]);

    let mut values: Vec<Vec<f64>> = vec![Vec::new(); model.scales.len()];
    run(&model, &fit, held_back, |_, model, state, x| {
        model.baseline.standardise(x, &mut scratch.z);
        for (k, scale) in model.scales.iter().enumerate() {
            state.smooth(k, scale.lambda, &scratch.z, &mut scratch.smoothed);
            values[k].push(scale.chart.score(&scratch.smoothed, &mut scratch.contributions));
        }
    });
    for (scale, mut values) in model.scales.iter_mut().zip(values) {
        values.sort_by(f64::total_cmp);
        let at = libm::ceil(WITHIN * (values.len() + 1) as f64) as usize;
        // Positive unless all held-back rows are the mean itself; then any limit will do.
        scale.limit = values.get(at.min(values.len()).saturating_sub(1)).copied().filter(|v| *v > 0.0).unwrap_or(1.0);
    }
    let mut scores = HeldBack::default();
    run(&model, &fit, held_back, |device, model, state, x| {
        scores.push(device, model.judge(state, &mut scratch, x, &mut expected, &mut contributions));
    });
    let (calibration, card) = scores.calibrate("all devices")?;
    let of_scales = |name: &str, f: &dyn Fn(&Scale) -> f64| Fitted {
        name: name.to_owned(),
        value: model.scales.iter().map(f).collect(),
    };
    let fitted = vec![
        of_scales("smoothing of each chart", &|s| s.lambda),
        of_scales("shrinkage of each chart", &|s| s.chart.shrinkage),
        of_scales("T² limit under normality", &|s| s.chart.t2_limit),
        of_scales("limit on the rows held back, as a multiple of that", &|s| s.limit),
    ];
    Ok(Parts {
        model: "Multivariate EWMA control charts (Lowry, Woodall, Champ and Rigdon 1992) of the smoothed vectors' own \
                covariance, the furthest out of several smoothing constants counting, with complete decomposition \
                contributions (Alcala and Qin 2009) and split-conformal p-values.",
        fitted,
        calibration: vec![card],
        body: file::encode(frame.features(), &model, &calibration),
    })
}
