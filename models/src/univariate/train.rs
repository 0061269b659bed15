//! Calibrating the detector: nothing is fitted, but what its scores are like on data without alarms is measured.

use linfa::ParamGuard;

use super::file::encode;
use super::memory::DeviceMemory;
use super::params::{UnivariateConfig, UnivariateParams};
use crate::ModelError;
use crate::calibrate::Calibration;
use crate::card::{CalibrationCard, Fitted};
use crate::config::SplitConfig;
use crate::frame::TrainingFrame;
use crate::train::Parts;

/// Runs every device through, from its first row, and calibrates on the scores of the rows held back.
pub(crate) fn train(
    frame: &TrainingFrame,
    config: &UnivariateConfig,
    split: &SplitConfig,
) -> Result<Parts, ModelError> {
    let params = UnivariateParams::from(config.clone()).check()?;
    let rest = params.config().rest;
    let held_back = frame.held_back(split)?;
    let (rows, ends) = frame.in_order()?;
    let p = frame.features().len();
    // Anything does: judging here uses scores only.
    let any = std::sync::Arc::new(Calibration::of(&[0.0])?);
    let (mut x, mut expected, mut contributions) = (vec![0.0; p], vec![0.0; p], vec![0.0; p]);
    let mut per_device: Vec<Vec<f64>> = vec![Vec::new(); frame.devices().len()];
    let mut memory: Option<(usize, DeviceMemory)> = None;
    for (((row, &device), end), held) in rows.values.outer_iter().zip(&rows.device).zip(&ends).zip(&held_back) {
        if memory.as_ref().is_none_or(|(of, _)| *of != device) {
            memory = Some((device, DeviceMemory::new(p, rest, any.clone())));
        }
        let Some((_, memory)) = memory.as_mut() else { continue };
        for (x, v) in x.iter_mut().zip(row) {
            *x = *v;
        }
        let score = memory.step(*end, &x, &mut expected, &mut contributions);
        if *held {
            per_device[device].push(score);
        }
    }
    let (mut scores, mut first, mut second) = (Vec::new(), Vec::new(), Vec::new());
    for of_device in &per_device {
        let (a, b) = of_device.split_at(of_device.len() / 2);
        first.extend_from_slice(a);
        second.extend_from_slice(b);
        scores.extend_from_slice(of_device);
    }
    let calibration = Calibration::of(&scores)?;
    let said = scores.iter().filter(|s| **s > 0.0).count();
    let fitted = vec![
        Fitted { name: "rest, in readings".to_owned(), value: vec![f64::from(rest)] },
        Fitted {
            name: "share of held-back rows with a score above 0".to_owned(),
            value: vec![said as f64 / scores.len() as f64],
        },
    ];
    Ok(Parts {
        model: "Nine streaming views of each value (seasonal residual, range novelty, levels, spread), each calibrated in \
                its own tail by peaks over a threshold (Pickands 1975; Siffer et al. 2017), summed in orders of magnitude, \
                with a rest after what was said, and split-conformal p-values.",
        fitted,
        calibration: vec![CalibrationCard::of("all devices", &calibration, &scores, (&first, &second))],
        body: encode(frame.features(), rest, &calibration),
    })
}
