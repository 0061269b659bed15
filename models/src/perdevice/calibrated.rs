//! Calibration by device, and what goes into card and file.

use super::fit::PerDevice;
use super::{Detector, file};
use crate::ModelError;
use crate::calibrate::Calibration;
use crate::card::{CalibrationCard, Fitted};
use crate::frame::{Rows, TrainingFrame};
use crate::train::Parts;

/// A device with fewer rows held back than this is judged by the fleet's detector: its own p-values would say little.
const MIN_HELD_BACK: usize = 10;

/// Facts of a card, name and value.
type Facts = Vec<(&'static str, Vec<f64>)>;

/// What a kind says of itself in the card.
pub(crate) struct Described<D> {
    /// In words, with its papers.
    pub model: &'static str,
    /// Facts about one detector, name and value.
    pub facts: fn(&D) -> Facts,
}

/// Calibrates `model` on the held-back rows and describes it.
pub(crate) fn parts<D: Detector>(
    frame: &TrainingFrame,
    mut model: PerDevice<D>,
    held_back: &Rows,
    described: &Described<D>,
) -> Result<Parts, ModelError> {
    let mut rows: Vec<Vec<Vec<f64>>> = vec![Vec::new(); frame.devices().len()];
    for (row, &device) in held_back.values.outer_iter().zip(&held_back.device) {
        rows[device].push(row.to_vec());
    }
    // A device whose own scores cannot be calibrated has no detector of its own.
    if let Some(devices) = &mut model.devices {
        devices.resize(rows.len(), None);
        for (own, rows) in devices.iter_mut().zip(&rows) {
            if rows.len() < MIN_HELD_BACK {
                *own = None;
            }
        }
    }
    let everyone = Scored::of(rows.iter().map(|rows| scores(&model.fleet, rows)));
    let fleet = Calibration::of(&everyone.scores)?;
    let mut fitted: Vec<Fitted> = (described.facts)(&model.fleet)
        .into_iter()
        .map(|(name, value)| Fitted { name: format!("{name} (fleet)"), value })
        .collect();
    let (mut calibration, mut own) = (Vec::new(), Vec::new());
    match &model.devices {
        None => calibration.push(everyone.card("all devices", &fleet)),
        Some(devices) => {
            let with = devices.iter().filter(|d| d.is_some()).count();
            fitted.push(Fitted { name: "devices with a detector of their own".to_owned(), value: vec![with as f64] });
            for ((detector, rows), name) in devices.iter().zip(&rows).zip(frame.devices()) {
                let Some(detector) = detector else {
                    own.push(None);
                    continue;
                };
                let scored = Scored::of([scores(detector, rows)]);
                let calibrated = Calibration::of(&scored.scores)?;
                calibration.push(scored.card(&format!("device `{name}`"), &calibrated));
                own.push(Some(calibrated));
            }
            calibration.push(everyone.card("all other devices, by the fleet's detector", &fleet));
        }
    }
    let body = file::encode(frame.features(), frame.devices(), &model, &fleet, &own);
    Ok(Parts { model: described.model, fitted, calibration, body })
}

/// Scores of one device's held-back rows in the order of time; an online detector learns from them as it goes.
fn scores<D: Detector>(detector: &D, rows: &[Vec<f64>]) -> Vec<f64> {
    let p = detector.n_features();
    let (mut expected, mut contributions) = (vec![0.0; p], vec![0.0; p]);
    let mut state = detector.state();
    rows.iter()
        .map(|x| match &mut state {
            Some(state) => detector.learn(state, x, &mut expected, &mut contributions),
            None => detector.score(x, &mut expected, &mut contributions),
        })
        .collect()
}

/// Scores whole, and in halves by time within each device.
struct Scored {
    scores: Vec<f64>,
    first: Vec<f64>,
    second: Vec<f64>,
}

impl Scored {
    fn of(per_device: impl IntoIterator<Item = Vec<f64>>) -> Self {
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
