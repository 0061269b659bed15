//! From rows to a drift model: the fit, then limits and p-values by running the rows through the memory in time order.

use linfa::ParamGuard;
use linfa::traits::Fit;

use super::file::encode;
use super::fit::{Against, Calibrations, DriftModel, Limits, MARGIN};
use super::memory::{Reached, State, raise};
use super::params::{DriftBaseline, DriftConfig, DriftParams, LimitsKind};
use crate::ModelError;
use crate::calibrate::Calibration;
use crate::card::{CalibrationCard, Fitted};
use crate::config::{SplitBy, SplitConfig};
use crate::frame::{Rows, TrainingFrame};
use crate::train::Parts;

/// Splits the rows, after a look at whether options and split go together.
pub(crate) fn split(
    frame: &TrainingFrame,
    config: &DriftConfig,
    split: &SplitConfig,
) -> Result<(Rows, Rows), ModelError> {
    if config.baseline == DriftBaseline::Device && split.by == SplitBy::Device {
        return Err(ModelError::config(
            "split.by",
            "`baseline = \"device\"` is calibrated on later rows of the same devices; set `split.by = \"time\"`",
        ));
    }
    frame.split(split)
}

/// Fits, sets the limits and calibrates.
pub(crate) fn train(
    frame: &TrainingFrame,
    config: &DriftConfig,
    fit: Rows,
    held_back: &Rows,
) -> Result<Parts, ModelError> {
    let params = DriftParams::from(config.clone()).check()?;
    let streams = Streams::of(&fit, held_back, frame.devices().len());
    let mut model = params.fit(&fit.into_dataset(frame.features()))?;

    if config.limits == LimitsKind::HeldBack {
        let yardsticks: &[bool] = if model.devices.is_some() { &[false, true] } else { &[false] };
        for &of_devices in yardsticks {
            let mut limits = vec![Limits::of(config); model.n_features()];
            streams.run(&model, of_devices, |_, _, judged| raise(&mut limits, judged.reached, MARGIN));
            model.set_limits(of_devices, limits);
        }
    }

    let mut fitted = facts("fleet", model.limits().0);
    let everyone = Scored::of(&streams, &model, false);
    let fleet = Calibration::of(&everyone.scores)?;
    let mut calibration = Vec::new();
    let devices = match (&model.devices, model.limits().1) {
        (Some((means, _)), Some(limits)) => {
            fitted.extend(facts("per device", limits));
            let known = means.iter().filter(|m| m.is_some()).count();
            fitted.push(Fitted { name: "devices with a baseline of their own".to_owned(), value: vec![known as f64] });
            let own = Scored::of(&streams, &model, true);
            let devices = Calibration::of(&own.scores)?;
            own.tell("devices with a baseline of their own", &devices, &mut calibration, &mut fitted);
            everyone.tell("all other devices, on the fleet's baseline", &fleet, &mut calibration, &mut fitted);
            Some(devices)
        }
        _ => {
            everyone.tell("all devices", &fleet, &mut calibration, &mut fitted);
            None
        }
    };
    let calibrations = Calibrations { fleet, devices };
    let body = encode(frame.features(), frame.devices(), &model, &calibrations);
    Ok(Parts {
        model: "Drift: the largest of Page-Hinkley (Page 1954; Hinkley 1971), ADWIN (Bifet and Gavaldà 2007) and the \
                population stability index of each feature against the training rows, relative to its limit, with \
                split-conformal p-values.",
        fitted,
        calibration,
        body,
    })
}

/// The limits of each feature, in the order of features.
fn facts(which: &str, limits: &[Limits]) -> Vec<Fitted> {
    let fact = |name: &str, of: fn(&Limits) -> f64| Fitted {
        name: format!("{name} limit of each feature ({which})"),
        value: limits.iter().map(of).collect(),
    };
    vec![fact("Page-Hinkley", |l| l.page_hinkley), fact("ADWIN", |l| l.adwin), fact("PSI", |l| l.psi)]
}

/// All rows of each device in time order, and whether they are held back.
struct Streams {
    devices: Vec<Vec<(Vec<f64>, bool)>>,
}

impl Streams {
    /// Both are in the order of device and time, and no row of a device that is held back is before one that is fitted.
    fn of(fit: &Rows, held_back: &Rows, devices: usize) -> Self {
        let mut out = vec![Vec::new(); devices];
        for (rows, held) in [(fit, false), (held_back, true)] {
            for (row, device) in rows.values.outer_iter().zip(&rows.device) {
                out[*device].push((row.to_vec(), held));
            }
        }
        Self { devices: out }
    }

    /// Judges all rows, each device with a memory of its own: against the fleet, or with `of_devices` those devices that have
    /// a level of their own against that.
    fn run(&self, model: &DriftModel, of_devices: bool, mut each: impl FnMut(usize, bool, &Judged<'_>)) {
        let p = model.n_features();
        let (mut expected, mut contributions) = (vec![0.0; p], vec![0.0; p]);
        for (device, rows) in self.devices.iter().enumerate() {
            let against = match (of_devices, model.against(Some(device))) {
                (true, Against::Fleet) => continue,
                (true, own) => own,
                (false, _) => Against::Fleet,
            };
            let mut state = State::new(model, against);
            for (x, held) in rows {
                let (value, on) = state.judge(model, against, x, &mut expected, &mut contributions);
                each(device, *held, &Judged { value, on, reached: &state.reached });
            }
        }
    }
}

struct Judged<'a> {
    value: f64,
    on: bool,
    reached: &'a [Reached],
}

/// Held-back values, whole and in halves by time within each device; and how many of them are drifts.
struct Scored {
    scores: Vec<f64>,
    first: Vec<f64>,
    second: Vec<f64>,
    on: u64,
}

impl Scored {
    fn of(streams: &Streams, model: &DriftModel, of_devices: bool) -> Self {
        let mut per_device: Vec<Vec<f64>> = vec![Vec::new(); streams.devices.len()];
        let mut out = Self { scores: Vec::new(), first: Vec::new(), second: Vec::new(), on: 0 };
        streams.run(model, of_devices, |device, held, judged| {
            if held {
                per_device[device].push(judged.value);
                out.on += u64::from(judged.on);
            }
        });
        for scores in per_device {
            let (first, second) = scores.split_at(scores.len() / 2);
            out.first.extend_from_slice(first);
            out.second.extend_from_slice(second);
            out.scores.extend_from_slice(&scores);
        }
        out
    }

    fn tell(
        &self,
        applies_to: &str,
        calibration: &Calibration,
        cards: &mut Vec<CalibrationCard>,
        fitted: &mut Vec<Fitted>,
    ) {
        cards.push(CalibrationCard::of(applies_to, calibration, &self.scores, (&self.first, &self.second)));
        let share = self.on as f64 / self.scores.len() as f64;
        fitted.push(Fitted { name: format!("share of held-back rows in drift ({applies_to})"), value: vec![share] });
    }
}
