//! From rows to the body of a model file: the fit, then the online model run over the held-back rows.

use linfa::ParamGuard;
use linfa::traits::Fit;

use super::super::params::{T2qConfig, T2qParams};
use super::file;
use super::fit::{self, Fitted};
use super::memory::Level;
use super::scorer::{self, Ages};
use super::{Adaptive, LEARN_ABOVE};
use crate::ModelError;
use crate::calibrate::Calibration;
use crate::card::{CalibrationCard, Fitted as Fact};
use crate::frame::{Rows, TrainingFrame};
use crate::train::Parts;

pub(crate) fn train(
    frame: &TrainingFrame,
    config: &T2qConfig,
    fit: Rows,
    held_back: &Rows,
) -> Result<Parts, ModelError> {
    let params = T2qParams::from(config.clone()).check()?;
    let flat: Vec<f64> = fit.values.iter().copied().collect();
    let device = fit.device.to_vec();
    let charts = params.fit(&fit.into_dataset(frame.features()))?;
    let p = charts.n_features();
    let Some(devices) = &charts.devices else {
        return Err(ModelError::Rows("no device has rows enough for a level of its own".to_owned()));
    };
    let rows = fit::Rows { flat: &flat, device: &device, p };
    let fitted = fit::fit(&rows, devices, config.shrinkage, params.retain())?;

    let held = Held::of(held_back, &fitted);
    // What may be learnt depends on p-values, and these on what was learnt: first everything is, and by what that gives
    // the second run tells what to learn.
    let (young, grown) = held.run(None);
    let ages = Ages { young: young.calibration()?, grown: grown.or(&young).calibration()? };
    if ages.young.smallest_p_value() > LEARN_ABOVE || ages.grown.smallest_p_value() > LEARN_ABOVE {
        return Err(ModelError::Rows(format!(
            "{} held-back windows cannot show a p-value of {LEARN_ABOVE}, which tells what a device's level may learn from; \
             give more data or raise `split.hold_back`",
            young.scores.len()
        )));
    }
    let (young, grown) = held.run(Some(&ages));
    let ages = Ages { young: young.calibration()?, grown: grown.or(&young).calibration()? };

    let fact = |name: &str, value: Vec<f64>| Fact { name: name.to_owned(), value };
    let model = fitted.model.clone();
    let known = fitted.levels.iter().flatten().count();
    let facts = vec![
        fact("devices with a level of their own", vec![known as f64]),
        fact("variance between devices to within", fitted.between.clone()),
        fact("windows that tell as much as one independent window", fitted.sluggishness.clone()),
        fact("windows the fleet's mean counts for", model.prior.clone()),
        fact("windows until a device is grown", vec![f64::from(model.young)]),
        fact("windows until its level stands still", vec![f64::from(model.settle)]),
    ];
    let calibration = vec![
        young.card("young devices", &ages.young),
        match grown.enough() {
            true => grown.card("grown devices", &ages.grown),
            false => young.card("grown devices: too few rows held back, so as young ones", &ages.grown),
        },
    ];
    let body = file::encode(frame.features(), frame.devices(), &fitted.levels, &scorer::Parts { model, ages });
    Ok(Parts {
        model: "Hotelling T² and Q charts on principal components, combined as T²/T²lim + Q/Qlim (Yue and Qin 2001), about a \
                level of each device that begins at the fleet's mean and is learnt as empirical Bayes has it (Efron and \
                Morris 1975); complete decomposition contributions (Alcala and Qin 2009), split-conformal p-values by age.",
        fitted: facts,
        calibration,
        body,
    })
}

/// The held-back rows, by device.
struct Held<'a> {
    fitted: &'a Fitted,
    /// A device's number and its rows in the order of time.
    devices: Vec<(usize, Vec<Vec<f64>>)>,
}

impl<'a> Held<'a> {
    fn of(rows: &Rows, fitted: &'a Fitted) -> Self {
        let mut devices: Vec<(usize, Vec<Vec<f64>>)> = Vec::new();
        for (row, &d) in rows.values.outer_iter().zip(&rows.device) {
            if devices.last().is_none_or(|(last, _)| *last != d) {
                devices.push((d, Vec::new()));
            }
            if let Some((_, of)) = devices.last_mut() {
                of.push(row.to_vec());
            }
        }
        Self { fitted, devices }
    }

    /// Scores of young and of grown devices.
    fn run(&self, learn_by: Option<&Ages>) -> (Scored, Scored) {
        let model = &self.fitted.model;
        let (mut young, mut grown) = (Scored::default(), Scored::default());
        for (d, rows) in &self.devices {
            let get = |of: &[Option<Level>]| of.get(*d).cloned().flatten();
            let known = get(&self.fitted.levels).unwrap_or_else(|| model.fresh());
            let mut level = known;
            for (i, x) in rows.iter().enumerate() {
                let age = level.seen;
                let score = step(model, &mut level, x, learn_by);
                if age >= model.young {
                    grown.push(score, i < rows.len() / 2);
                }
            }
            let mean = self.fitted.without.get(*d).cloned().flatten();
            let new = mean.map_or_else(|| model.fresh(), |mean| Level { seen: 0, mean });
            let length = model.young as usize;
            for start in (0..rows.len()).step_by(length) {
                let mut level = new.clone();
                // A device whose windows are not learnt stays young: as long as this is followed, twice over.
                for (i, x) in rows.iter().enumerate().skip(start).take(2 * length) {
                    if level.seen >= model.young {
                        break;
                    }
                    young.push(step(model, &mut level, x, learn_by), i < rows.len() / 2);
                }
            }
        }
        (young, grown)
    }
}

fn step(model: &Adaptive, level: &mut Level, x: &[f64], learn_by: Option<&Ages>) -> f64 {
    let p = model.n_features();
    let (mut expected, mut contributions) = (vec![0.0; p], vec![0.0; p]);
    let score = model.score(level, x, &mut expected, &mut contributions);
    let p = learn_by.map_or(1.0, |ages| ages.of(level.seen, model.young).p_value(score));
    model.learn(level, x, p);
    score
}

/// Held-back scores, whole and in halves by time within each device.
#[derive(Default)]
struct Scored {
    scores: Vec<f64>,
    first: Vec<f64>,
    second: Vec<f64>,
}

impl Scored {
    fn push(&mut self, score: f64, early: bool) {
        self.scores.push(score);
        if early { &mut self.first } else { &mut self.second }.push(score);
    }

    /// Whether they show what [`LEARN_ABOVE`] asks for.
    fn enough(&self) -> bool {
        self.scores.len() as f64 + 1.0 >= 1.0 / LEARN_ABOVE
    }

    fn or<'a>(&'a self, other: &'a Self) -> &'a Self {
        if self.enough() { self } else { other }
    }

    fn calibration(&self) -> Result<Calibration, ModelError> {
        Calibration::of(&self.scores)
    }

    fn card(&self, applies_to: &str, calibration: &Calibration) -> CalibrationCard {
        CalibrationCard::of(applies_to, calibration, &self.scores, (&self.first, &self.second))
    }
}
