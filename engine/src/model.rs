//! The contract between the engine and a model. The `models` crate implements it; the engine only calls it.

use crate::verdict::Hash32;

/// What a model says about one feature vector.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Score {
    /// Higher is stranger. NaN when the vector cannot be scored.
    pub value: f64,
    /// Calibrated probability of a score at least this high on healthy data, in (0, 1]. NaN when the score is.
    pub p_value: f64,
}

/// A loaded model. Scoring is a pure function of the arguments and the model file: same bytes in, same bits out, on any
/// thread.
pub trait Scorer: Send + Sync + std::fmt::Debug {
    /// SHA-256 of the model file.
    fn hash(&self) -> Hash32;

    /// The features it takes, in the order [`Scorer::score`] takes them.
    fn features(&self) -> &[String];

    /// Scores one vector of `features().len()` values for `device` (models with a baseline per device look it up by
    /// name, others ignore it). Writes to `expected` what the model expected of each feature, and to `contributions`
    /// what each adds to the score; contributions sum to the score up to rounding. A null feature comes in as NaN;
    /// then, and for infinities, the score is NaN and both outputs are NaN.
    fn score(&self, device: &str, features: &[f64], expected: &mut [f64], contributions: &mut [f64]) -> Score;

    /// The smallest p-value it can give, so that thresholds below it can be refused or warned of.
    fn smallest_p_value(&self) -> f64;
}
