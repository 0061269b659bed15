//! Scores of the rows held back, from which a model's p-values come.

use crate::ModelError;
use crate::calibrate::Calibration;
use crate::card::CalibrationCard;

/// Held-back scores by device, each device's in the order of time.
#[derive(Debug, Default)]
pub(crate) struct HeldBack {
    by_device: Vec<Vec<f64>>,
}

impl HeldBack {
    /// Adds the next score of a device.
    pub fn push(&mut self, device: usize, score: f64) {
        if self.by_device.len() <= device {
            self.by_device.resize(device + 1, Vec::new());
        }
        self.by_device[device].push(score);
    }

    /// All scores, in the order of device and time.
    pub fn scores(&self) -> Vec<f64> {
        self.by_device.concat()
    }

    /// Calibrates on them, and says for the card how their later half fares against their earlier one.
    pub fn calibrate(&self, applies_to: &str) -> Result<(Calibration, CalibrationCard), ModelError> {
        let scores = self.scores();
        let calibration = Calibration::of(&scores)?;
        let (mut first, mut second) = (Vec::new(), Vec::new());
        for of_device in &self.by_device {
            let (a, b) = of_device.split_at(of_device.len() / 2);
            first.extend_from_slice(a);
            second.extend_from_slice(b);
        }
        let card = CalibrationCard::of(applies_to, &calibration, &scores, (&first, &second));
        Ok((calibration, card))
    }
}
