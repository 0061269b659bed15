//! A detector for single values that stream in, learned online and for each device: no training, no parameters for a
//! series, a fixed number of operations a reading.
//!
//! ```text
//!             ┌─ residual of time of day and week, as it is, over its size, and less its recent mean ─┐
//!             ├─ recent mean of that residual                                                         │ each, upward and
//!     value ──┼─ how far beyond the range ever seen                                                   ├─ downward, against
//!             ├─ level of 40 against 800 readings, 100 against 1500, the value against 800            │ its own tail
//!             └─ spread of 40 against 800 readings                                                    ┘
//!                                                                                                       │
//!          score ◄── rest: only what is louder ◄── + ½ its own rarity ◄── sum of −log₁₀ p, at most 5 each ◄┘
//! ```
//!
//! Every view is a signed statistic. How rare it is, is told by peaks over a threshold on a bounded sketch of its own past
//! (`tail.rs`), so that a spike means the same in a series full of spikes as in a flat one. The score is a sum of
//! orders of magnitude; most readings that follow something louder score 0. p-values come from a calibration on held-back
//! rows of the training data, the same for all devices, so devices never seen are judged like any other.
//!
//! For the first hundred readings of a device nothing is said. A missing value leaves the memory as it is.
//!
//! Determinism: fixed order, IEEE arithmetic, `libm` for logarithms. Time of day is that of the window's end, in UTC.

mod file;
mod memory;
mod params;
mod scorer;
mod season;
mod tail;
mod train;
mod views;

pub use params::{UnivariateConfig, UnivariateParams, UnivariateValidParams};
pub use scorer::UnivariateScorer;

pub(crate) use file::decode;
pub(crate) use train::train;

/// The name in TOML and in the model file.
pub const KIND: &str = "univariate";
