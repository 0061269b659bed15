//! From rows to a model file.

use std::sync::Arc;

use avouch_engine::model::Scorer;
use avouch_engine::verdict::Hash32;
use linfa::ParamGuard;
use linfa::traits::Fit;

use crate::calibrate::Calibration;
use crate::card::{CalibrationCard, Fitted, ModelCard, TrainingCard, hex, libraries};
use crate::config::{AlgorithmConfig, TrainConfig};
use crate::frame::{Rows, TrainingFrame};
use crate::t2q::{self, BaselineKind, Chart, T2q, T2qConfig, T2qParams};
use crate::{ModelError, cutforest, drift, file, halfspace, neighbours, onnx, prognosis, sensor_health, univariate};

/// A model just trained: the bytes to save, and the model as loading those bytes gives it.
#[derive(Debug, Clone)]
pub struct TrainedModel {
    /// The model file.
    pub bytes: Vec<u8>,
    /// SHA-256 of the file.
    pub hash: Hash32,
    /// Its card.
    pub card: ModelCard,
    /// The model, loaded from `bytes`.
    pub scorer: Arc<dyn Scorer>,
}

/// Trains a model on `frame`. The same rows, configuration and seed give the same bytes, however the rows came.
pub fn train(frame: &TrainingFrame, config: &TrainConfig) -> Result<TrainedModel, ModelError> {
    if let Some(wanted) = prognosis::Wanted::by(&config.algorithm)? {
        return prognosis::train_model(frame, config, &wanted);
    }
    if frame.labels().is_some() {
        let why = format!("`{}` looks for what is strange and takes no labels; remove it", config.algorithm.kind());
        return Err(ModelError::config("label", why));
    }
    config.algorithm.check_split(&config.split)?;
    let (fit, held_back) = match &config.algorithm {
        AlgorithmConfig::Drift(c) => drift::split(frame, c, &config.split)?,
        _ => frame.split(&config.split)?,
    };
    let (first_window_end, last_window_end) = frame.window_ends()?;
    let training = TrainingCard {
        data: config.provenance.data.clone(),
        digest: hex(&frame.digest()?),
        rows: frame.rows() as u64,
        rows_dropped: frame.dropped() as u64,
        rows_fitted: fit.device.len() as u64,
        rows_held_back: held_back.device.len() as u64,
        devices: frame.devices().len() as u64,
        first_window_end,
        last_window_end,
        profile: frame.profile().to_vec(),
    };
    let parts = match &config.algorithm {
        AlgorithmConfig::HalfSpaceTrees(c) => halfspace::train(frame, c, fit, &held_back)?,
        AlgorithmConfig::NearestNeighbours(c) => neighbours::train(frame, c, fit, &held_back)?,
        AlgorithmConfig::RandomCutForest(c) => cutforest::train(frame, c, fit, &held_back)?,
        AlgorithmConfig::Drift(c) => drift::train(frame, c, fit, &held_back)?,
        AlgorithmConfig::GaussianMixture(c) => crate::gaussian_mixture::train(frame, c, fit, &held_back)?,
        AlgorithmConfig::KMeans(c) => crate::k_means::train(frame, c, fit, &held_back)?,
        AlgorithmConfig::Mewma(c) => crate::mewma::train(frame, c, fit, &held_back)?,
        AlgorithmConfig::OneClassSvm(c) => crate::one_class_svm::train(frame, c, fit, &held_back)?,
        AlgorithmConfig::Onnx(c) => onnx::train(frame, c, &fit, &held_back)?,
        AlgorithmConfig::SensorHealth(c) => sensor_health::train(frame, c, &fit, &held_back)?,
        AlgorithmConfig::T2q(c) if c.baseline == BaselineKind::Adaptive => {
            t2q::adaptive::train(frame, c, fit, &held_back)?
        }
        AlgorithmConfig::T2q(c) => train_t2q(frame, c, fit, &held_back)?,
        AlgorithmConfig::Univariate(c) => univariate::train(frame, c, &config.split)?,
        // Prognoses went their own way above.
        other => return Err(ModelError::config("algorithm.kind", format!("`{}` is no detector", other.kind()))),
    };
    let card = ModelCard {
        model: parts.model.to_owned(),
        created: config.provenance.created.clone(),
        pipeline: config.provenance.pipeline.clone(),
        pipeline_digest: config.provenance.pipeline_digest.clone(),
        step: config.provenance.step.clone(),
        features: frame.features().to_vec(),
        algorithm: config.algorithm.clone(),
        seed: config.algorithm.seed(),
        split: config.split,
        training,
        fitted: parts.fitted,
        calibration: parts.calibration,
        prognosis: None,
        libraries: libraries(),
    };
    let bytes = file::write(config.algorithm.kind(), &card, &parts.body);
    let scorer = crate::load(&bytes)?;
    Ok(TrainedModel { hash: scorer.hash(), bytes, card, scorer })
}

/// What an algorithm adds to card and file.
pub(crate) struct Parts {
    /// The algorithm in words, with its papers.
    pub model: &'static str,
    /// What training chose.
    pub fitted: Vec<Fitted>,
    /// How it does on the rows held back.
    pub calibration: Vec<CalibrationCard>,
    /// What scoring needs.
    pub body: Vec<u8>,
}

fn train_t2q(frame: &TrainingFrame, config: &T2qConfig, fit: Rows, held_back: &Rows) -> Result<Parts, ModelError> {
    let params = T2qParams::from(config.clone()).check()?;
    let model = params.fit(&fit.into_dataset(frame.features()))?;

    let mut fitted = chart_facts("fleet", model.fleet().1);
    let everyone = Scored::of(&model, held_back, |_| Some(None));
    let fleet = Calibration::of(&everyone.scores)?;
    let mut calibration = Vec::new();
    let device = match model.devices() {
        None => {
            calibration.push(everyone.card("all devices", &fleet));
            None
        }
        Some(devices) => {
            fitted.extend(chart_facts("per device", devices.chart()));
            let known = (0..frame.devices().len()).filter(|i| devices.baseline(*i).is_some()).count();
            fitted.push(Fitted { name: "devices with a baseline of their own".to_owned(), value: vec![known as f64] });
            let own = Scored::of(&model, held_back, |d| devices.baseline(d).map(|_| Some(d)));
            let device = Calibration::of(&own.scores)?;
            calibration.push(own.card("devices with a baseline of their own", &device));
            calibration.push(everyone.card("all other devices, on the fleet's baseline", &fleet));
            Some(device)
        }
    };
    let body = t2q::encode(frame.features(), frame.devices(), &model, &fleet, device.as_ref());
    Ok(Parts {
        model: "Hotelling T² and Q charts on principal components, combined as T²/T²lim + Q/Qlim (Yue and Qin 2001), \
                with complete decomposition contributions (Alcala and Qin 2009) and split-conformal p-values.",
        fitted,
        calibration,
        body,
    })
}

/// Held-back scores, whole and in halves by time within each device.
struct Scored {
    scores: Vec<f64>,
    first: Vec<f64>,
    second: Vec<f64>,
}

impl Scored {
    /// Scores the rows of devices for which `judge` says how: against no device's baseline, or a device's.
    fn of(model: &T2q, rows: &Rows, judge: impl Fn(usize) -> Option<Option<usize>>) -> Self {
        let p = model.n_features();
        let (mut x, mut expected, mut contributions) = (vec![0.0; p], vec![0.0; p], vec![0.0; p]);
        let mut per_device: Vec<Vec<f64>> = Vec::new();
        for (row, &device) in rows.values.outer_iter().zip(&rows.device) {
            let Some(against) = judge(device) else { continue };
            for (x, v) in x.iter_mut().zip(row) {
                *x = *v;
            }
            if per_device.len() <= device {
                per_device.resize(device + 1, Vec::new());
            }
            per_device[device].push(model.score(against, &x, &mut expected, &mut contributions));
        }
        let mut out = Self { scores: Vec::new(), first: Vec::new(), second: Vec::new() };
        for scores in per_device {
            let (first, second) = scores.split_at(scores.len() / 2);
            out.first.extend_from_slice(first);
            out.second.extend_from_slice(second);
            out.scores.extend_from_slice(&scores);
        }
        out
    }

    fn card(&self, applies_to: &str, calibration: &Calibration) -> CalibrationCard {
        CalibrationCard::of(applies_to, calibration, &self.scores, (&self.first, &self.second))
    }
}

fn chart_facts(which: &str, chart: &Chart) -> Vec<Fitted> {
    let fact = |name: &str, value: Vec<f64>| Fitted { name: format!("{name} ({which})"), value };
    let mut facts = vec![
        fact("components retained", vec![chart.components as f64]),
        fact("variance explained", vec![chart.explained()]),
        fact("shrinkage", vec![chart.shrinkage]),
        fact("eigenvalues", chart.eigenvalues.clone()),
        fact("T² limit", vec![chart.t2_limit]),
    ];
    facts.extend(chart.q_limit.map(|q| fact("Q limit", vec![q])));
    facts
}
