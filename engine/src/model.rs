//! The contract between the engine and a model. The `models` crate implements it; the engine only calls it.
//!
//! Most models judge each feature vector by itself ([`Scorer::score`]). An **online** model goes on learning: it remembers
//! something of each device ([`Scorer::memory`]), which the lane keeps, snapshots, restores and evicts with the device.

use crate::codec::{CodecError, Reader, Writer};
use crate::verdict::Hash32;

/// What a model says about one feature vector.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Score {
    /// What [`Scorer::says`] says it is: a score (higher is stranger), an estimate, a probability. NaN when the vector
    /// cannot be scored.
    pub value: f64,
    /// Of a score: the calibrated probability of one at least this high on healthy data, in (0, 1]. NaN when the value is,
    /// and of estimates and probabilities.
    pub p_value: f64,
    /// Of an estimate or a probability: where the truth lies with the coverage that the model was calibrated for.
    pub interval: Option<Interval>,
    /// What is wrong with the input rather than with the machine, if the model is one that looks for that.
    pub finding: Option<Finding>,
}

impl Score {
    /// The vector cannot be scored.
    pub const NONE: Self = Self { value: f64::NAN, p_value: f64::NAN, interval: None, finding: None };

    /// Of a detector.
    pub fn anomaly(value: f64, p_value: f64) -> Self {
        Self { value, p_value, interval: None, finding: None }
    }

    /// Of a prognosis: an estimate or a probability.
    pub fn estimate(value: f64, interval: Option<Interval>) -> Self {
        Self { value, p_value: f64::NAN, interval, finding: None }
    }
}

/// A prediction interval, ends included.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Interval {
    /// Lower end.
    pub lower: f64,
    /// Upper end.
    pub upper: f64,
}

/// What may be wrong with the readings themselves, or with the model's idea of them. Each is a class of verdicts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Finding {
    /// Readings are missing.
    Gap,
    /// A sensor repeats one value.
    Stuck,
    /// A sensor is at the end of its range.
    Saturated,
    /// Readings come at another rhythm than they should.
    Irregular,
    /// The data are not any more what the model was made for.
    Drift,
}

/// What a model's value is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Says {
    /// A score with a p-value: how strange this is.
    Anomaly,
    /// An estimate in the unit of the training labels, such as hours of remaining life: lower is worse.
    Estimate,
    /// The probability of a failure: higher is worse.
    Probability,
}

/// A loaded model. Scoring is a pure function of the arguments and the model file: same bytes in, same bits out, on any
/// thread.
pub trait Scorer: Send + Sync + std::fmt::Debug {
    /// SHA-256 of the model file.
    fn hash(&self) -> Hash32;

    /// The features it takes, in the order [`Scorer::score`] takes them.
    fn features(&self) -> &[String];

    /// What its value is.
    fn says(&self) -> Says {
        Says::Anomaly
    }

    /// Of an estimate: its unit, such as `hours`.
    fn unit(&self) -> Option<&str> {
        None
    }

    /// Of a model with intervals: the share of truths they were calibrated to hold.
    fn coverage(&self) -> Option<f64> {
        None
    }

    /// Scores one vector of `features().len()` values for `device` (models with a baseline per device look it up by
    /// name, others ignore it). Writes to `expected` what the model expected of each feature (NaN where it expects nothing of
    /// a single feature), and to `contributions` what each adds to the value; contributions sum to a score up to rounding, and
    /// to the difference of a prognosis from its mean. A null feature comes in as NaN; models that cannot do without it, and
    /// all models for infinities, answer [`Score::NONE`] with NaN in both outputs.
    ///
    /// An online model judges here as if it had seen nothing of the device.
    fn score(&self, device: &str, features: &[f64], expected: &mut [f64], contributions: &mut [f64]) -> Score;

    /// The smallest p-value it can give, so that thresholds below it can be refused or warned of.
    fn smallest_p_value(&self) -> f64;

    /// Of an online model: what it remembers of a device it has not seen. `None`: the model is not online.
    fn memory(&self, device: &str) -> Option<Box<dyn Memory>> {
        let _ = device;
        None
    }

    /// Reads what [`Memory::write`] wrote. Must refuse what no memory of this model would write.
    ///
    /// # Errors
    /// When it is none.
    fn read_memory(&self, device: &str, r: &mut Reader<'_>) -> Result<Box<dyn Memory>, CodecError> {
        let _ = device;
        Err(r.invalid("this model remembers nothing of a device"))
    }
}

/// What an online model remembers of one device, and how it judges the device by it.
pub trait Memory: Send + Sync + std::fmt::Debug {
    /// Scores the device's next vector as [`Scorer::score`] does, and learns from it. Vectors of a device come in the order of
    /// their windows' ends, `window_end` in milliseconds since the epoch. A vector that cannot be scored must leave the memory
    /// fit for the next.
    fn score(&mut self, window_end: i64, features: &[f64], expected: &mut [f64], contributions: &mut [f64]) -> Score;

    /// All of it, in the canonical encoding: two memories that would ever judge differently write different bytes, and bounded:
    /// it does not grow with the number of vectors seen.
    fn write(&self, w: &mut Writer);

    /// A copy, for judging without learning.
    fn copy(&self) -> Box<dyn Memory>;
}
