//! One detector for the fleet and, with `baseline = "device"`, one for each device that has rows enough: what
//! half-space trees, random cut forests and nearest neighbours have in common.
//!
//! A kind says what its detector is ([`Detector`]); fitting by device, calibration, the body of the model file and the
//! engine's [`Scorer`](avouch_engine::model::Scorer) are here, once.
//!
//! Each device with a detector of its own has a calibration of its own, too: the scores of two devices need not mean the
//! same. All others are judged by the fleet's detector and calibration.

mod calibrated;
mod file;
mod fit;
mod scale;
mod scorer;

use std::fmt::Debug;

use avouch_engine::codec::{CodecError, Reader, Writer};

pub use fit::PerDevice;
pub use scale::Scale;
pub use scorer::PerDeviceScorer;

pub(crate) use calibrated::{Described, parts};
pub(crate) use file::decode;
pub(crate) use fit::{Group, fit_groups};
pub(crate) use scale::{is_scaled, spread};

/// What a fitted detector of one group of rows must do. Scoring is a pure function of detector and vector.
pub trait Detector: Debug + Clone + PartialEq + Send + Sync + 'static {
    /// The name in TOML and in the model file.
    const KIND: &'static str;

    /// What an online detector remembers of a device; `()` for the others.
    type State: Debug + Clone + Send + Sync + 'static;

    /// How many features a vector has.
    fn n_features(&self) -> usize;

    /// Scores one vector of finite features, higher is stranger. Writes what was expected of each feature and what each
    /// adds to the score; the score is their sum, in order. All slices have [`Detector::n_features`] values.
    fn score(&self, x: &[f64], expected: &mut [f64], contributions: &mut [f64]) -> f64;

    /// What it remembers of a device it has not seen; `None`: it is not online.
    fn state(&self) -> Option<Self::State> {
        None
    }

    /// Scores as [`Detector::score`] does, by what is remembered of the device, then learns from the vector.
    fn learn(&self, state: &mut Self::State, x: &[f64], expected: &mut [f64], contributions: &mut [f64]) -> f64 {
        let _ = state;
        self.score(x, expected, contributions)
    }

    /// All of a state, canonical.
    fn write_state(&self, state: &Self::State, w: &mut Writer) {
        let _ = (state, w);
    }

    /// Reads what [`Detector::write_state`] wrote.
    ///
    /// # Errors
    /// When it is nothing that it would have written.
    fn read_state(&self, r: &mut Reader<'_>) -> Result<Self::State, CodecError> {
        Err(r.invalid("this model remembers nothing of a device"))
    }

    /// The detector's part of the model file.
    fn write(&self, w: &mut Writer);

    /// Reads a detector of vectors of `p` features, refusing what [`Detector::write`] would not have written.
    ///
    /// # Errors
    /// When it is out of range or order, or truncated.
    fn read(r: &mut Reader<'_>, p: usize) -> Result<Self, CodecError>;
}
