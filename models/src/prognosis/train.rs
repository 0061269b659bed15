//! From labelled rows to a model file.

use std::collections::BTreeSet;

use super::interval::Intervals;
use super::parts::Parts;
use super::platt::Platt;
use super::scorer::{Answer, Core, Input};
use super::{PrognosisCard, Reliability, Table, Wanted, file};
use crate::card::{Fitted, ModelCard, TrainingCard, hex, libraries, library};
use crate::config::{SplitConfig, TrainConfig};
use crate::frame::{Rows, TrainingFrame};
use crate::label::LabelConfig;
use crate::recipe::{Past, Recipe};
use crate::{ModelError, TrainedModel};

/// Rows of a reliability table.
const RELIABILITY_ROWS: usize = 10;

/// What training gives for card and file.
struct Trained {
    model: String,
    fitted: Vec<Fitted>,
    card: PrognosisCard,
    rows_fitted: u64,
    rows_held_back: u64,
    body: Vec<u8>,
}

/// Trains a model on labelled rows. The same rows, labels, configuration and seed give the same bytes.
pub(crate) fn train_model(
    frame: &TrainingFrame,
    config: &TrainConfig,
    wanted: &Wanted<'_>,
) -> Result<TrainedModel, ModelError> {
    let trained = train(frame, wanted, &config.split)?;
    let (first_window_end, last_window_end) = frame.window_ends()?;
    let mut libraries = libraries();
    libraries.extend(library("forust-ml"));
    let card = ModelCard {
        model: trained.model,
        created: config.provenance.created.clone(),
        pipeline: config.provenance.pipeline.clone(),
        pipeline_digest: config.provenance.pipeline_digest.clone(),
        step: config.provenance.step.clone(),
        features: frame.features().to_vec(),
        algorithm: config.algorithm.clone(),
        seed: config.algorithm.seed(),
        split: config.split,
        training: TrainingCard {
            data: config.provenance.data.clone(),
            digest: hex(&frame.digest()?),
            rows: frame.rows() as u64,
            rows_dropped: frame.dropped() as u64,
            rows_fitted: trained.rows_fitted,
            rows_held_back: trained.rows_held_back,
            devices: frame.devices().len() as u64,
            first_window_end,
            last_window_end,
            profile: frame.profile().to_vec(),
        },
        fitted: trained.fitted,
        calibration: Vec::new(),
        prognosis: Some(trained.card),
        libraries,
    };
    let bytes = crate::file::write(config.algorithm.kind(), &card, &trained.body);
    let scorer = crate::load(&bytes)?;
    Ok(TrainedModel { hash: scorer.hash(), bytes, card, scorer })
}

/// Fits on the rows that are not held back, calibrates on those that are, and, if asked to, fits once more on all.
///
/// The split is by rows for a plain model and by rows or devices for both; a device's past is built from all of its rows in
/// the order of time, so rows held back by time know what came before them, as they will when serving.
fn train(frame: &TrainingFrame, wanted: &Wanted<'_>, split: &SplitConfig) -> Result<Trained, ModelError> {
    let labels = frame.labels().ok_or_else(|| {
        ModelError::config("label", "this algorithm predicts a label: say which, `label = { column = \"failed\" }`")
    })?;
    labels.config.check()?;
    let held = frame.held_back(split)?;
    let rows = frame.all_rows()?;
    let y = &labels.values;

    let (input, x) = inputs(frame, wanted, &rows, &held, false)?;
    let part = |held_back: bool| {
        let chosen: Vec<usize> = (0..y.len()).filter(|i| held[*i] == held_back).collect();
        let values: Vec<f64> = chosen.iter().flat_map(|i| x.row(*i)).copied().collect();
        (Table::new(x.width, values), chosen.iter().map(|i| y[*i]).collect::<Vec<f64>>(), chosen)
    };
    let (fit_x, fit_y, _) = part(false);
    let (calibrate_x, calibrate_y, calibrated) = part(true);
    if fit_y.is_empty() || calibrate_y.is_empty() {
        return Err(ModelError::Rows("rows are needed both to fit on and to calibrate on".to_owned()));
    }
    let parts = Parts::fit(&wanted.of, &fit_x, &fit_y)?;
    drop(fit_x);
    let raw: Vec<f64> = calibrate_x.iter().map(|row| parts.value(row)).collect();

    let limits = y.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |l, v| (l.0.min(*v), l.1.max(*v)));
    let (answer, said, coverage) = match &labels.config {
        LabelConfig::RemainingLife { cap, unit, coverage } => {
            let limits = (0.0, cap.unwrap_or(limits.1));
            let said: Vec<f64> = raw.iter().map(|v| v.clamp(limits.0, limits.1)).collect();
            let pairs: Vec<(f64, f64)> = said.iter().copied().zip(calibrate_y.iter().copied()).collect();
            let across = across_devices(&pairs, &calibrated, &rows, *coverage, limits);
            let intervals = Intervals::of(&pairs, *coverage)?;
            (Answer::Estimate { unit: unit.clone(), limits, intervals }, said, across)
        }
        LabelConfig::Failure { .. } => {
            let pairs: Vec<(f64, f64)> = raw.iter().copied().zip(calibrate_y.iter().copied()).collect();
            let platt = Platt::of(&pairs)?;
            let said = raw.iter().map(|v| platt.probability(*v)).collect();
            (Answer::Probability(platt), said, None)
        }
    };
    let (input, parts) = if wanted.refit {
        drop(x);
        let (input, x) = inputs(frame, wanted, &rows, &held, true)?;
        let parts = Parts::fit(&wanted.of, &x, y)?;
        (input, parts)
    } else {
        (input, parts)
    };

    let n = said.len() as f64;
    let errors = || said.iter().zip(&calibrate_y).map(|(v, y)| v - y);
    let devices: BTreeSet<usize> = calibrated.iter().map(|i| rows.device[*i]).collect();
    let mut fitted = parts.facts();
    if let Input::Made(recipe) = &input {
        let value = vec![recipe.conditions() as f64];
        fitted.insert(0, Fitted { name: "operating conditions".to_owned(), value });
    }
    let core = Core::new(frame.features().to_vec(), input, parts, answer);
    let card = PrognosisCard {
        label: labels.config.clone(),
        rows_after_failure: labels.after_failure as u64,
        mean_label: y.iter().sum::<f64>() / y.len() as f64,
        base: core.base(),
        devices_held_back: devices.len() as u64,
        refit: wanted.refit,
        rmse: (errors().map(|e| e * e).sum::<f64>() / n).sqrt(),
        mean_absolute_error: errors().map(f64::abs).sum::<f64>() / n,
        intervals: match &core.answer {
            Answer::Estimate { intervals, .. } => intervals.bands().to_vec(),
            Answer::Probability(_) => Vec::new(),
        },
        coverage_across_devices: coverage,
        reliability: match &core.answer {
            Answer::Estimate { .. } => Vec::new(),
            Answer::Probability(_) => reliability(&said, &calibrate_y),
        },
    };
    Ok(Trained {
        model: describe(wanted, &labels.config),
        fitted,
        card,
        rows_fitted: fit_y.len() as u64,
        rows_held_back: calibrate_y.len() as u64,
        body: file::encode(&core),
    })
}

/// What the rows become for the model, scales fitted on the rows that are not held back, or on all.
fn inputs(
    frame: &TrainingFrame,
    wanted: &Wanted<'_>,
    rows: &Rows,
    held: &[bool],
    all: bool,
) -> Result<(Input, Table), ModelError> {
    let p = frame.features().len();
    let fitted: Vec<f64> = rows
        .values
        .outer_iter()
        .zip(held)
        .filter(|(_, held)| all || !**held)
        .flat_map(|(row, _)| row.to_vec())
        .collect();
    let input = match wanted.recipe {
        None => {
            let n = (fitted.len() / p).max(1) as f64;
            Input::Plain((0..p).map(|j| fitted.iter().skip(j).step_by(p).sum::<f64>() / n).collect())
        }
        Some(recipe) => Input::Made(Box::new(Recipe::fit(recipe, frame.features(), &fitted, wanted.seed)?)),
    };
    let width = input.width();
    let mut values = vec![0.0; rows.values.nrows() * width];
    let mut past = Past::default();
    let mut current = None;
    for ((row, device), out) in rows.values.outer_iter().zip(&rows.device).zip(values.chunks_exact_mut(width)) {
        if current != Some(*device) {
            (past, current) = (Past::default(), Some(*device));
        }
        input.take(&mut past, &row.to_vec(), out);
    }
    Ok((input, Table::new(width, values)))
}

/// Intervals of the first half of the held-back devices, tried on the second: the share of truths they hold.
fn across_devices(
    pairs: &[(f64, f64)],
    calibrated: &[usize],
    rows: &Rows,
    coverage: f64,
    limits: (f64, f64),
) -> Option<f64> {
    let devices: Vec<usize> = calibrated.iter().map(|i| rows.device[*i]).collect();
    let distinct: Vec<usize> = devices.iter().copied().collect::<BTreeSet<_>>().into_iter().collect();
    let middle = *distinct.get(distinct.len() / 2).filter(|_| distinct.len() >= 4)?;
    let half = |second: bool| -> Vec<(f64, f64)> {
        pairs.iter().zip(&devices).filter(|(_, d)| (**d >= middle) == second).map(|(p, _)| *p).collect()
    };
    let intervals = Intervals::of(&half(false), coverage).ok()?;
    let tried = half(true);
    let inside = tried
        .iter()
        .filter(|(value, truth)| {
            let i = intervals.around(*value, limits);
            i.lower <= *truth && *truth <= i.upper
        })
        .count();
    Some(inside as f64 / tried.len() as f64)
}

fn reliability(said: &[f64], truth: &[f64]) -> Vec<Reliability> {
    let step = 1.0 / RELIABILITY_ROWS as f64;
    (0..RELIABILITY_ROWS)
        .filter_map(|i| {
            let (from, to) = (i as f64 * step, (i + 1) as f64 * step);
            let last = i + 1 == RELIABILITY_ROWS;
            let rows: Vec<(f64, f64)> = said
                .iter()
                .copied()
                .zip(truth.iter().copied())
                .filter(|(p, _)| *p >= from && (*p < to || last))
                .collect();
            let n = rows.len() as f64;
            (!rows.is_empty()).then(|| Reliability {
                from,
                to,
                rows: rows.len() as u64,
                said: rows.iter().map(|r| r.0).sum::<f64>() / n,
                seen: rows.iter().map(|r| r.1).sum::<f64>() / n,
            })
        })
        .collect()
}

fn describe(wanted: &Wanted<'_>, label: &LabelConfig) -> String {
    use crate::blend::PartConfig;
    let names: Vec<&str> = wanted
        .of
        .iter()
        .map(|p| match p {
            PartConfig::GradientBoosting(_) => "gradient-boosted trees on squared error (Friedman 2001)",
            PartConfig::KernelRidge(_) => {
                "kernel ridge regression on landmarks (Saunders, Gammerman and Vovk 1998; Smola and Schölkopf 2000)"
            }
            PartConfig::Linear(_) => "ridge regression (Hoerl and Kennard 1970)",
        })
        .collect();
    let mean = if names.len() > 1 { "The mean of " } else { "" };
    let rest = match label {
        LabelConfig::RemainingLife { .. } => {
            "the remaining life of the device, with intervals by split conformal prediction within bands of the value \
             (Vovk, Gammerman and Shafer 2005)"
        }
        LabelConfig::Failure { .. } => "the probability of a failure, by Platt's scaling (Platt 1999)",
    };
    format!("{mean}{}: {rest}.", names.join(" and "))
}
