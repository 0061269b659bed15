//! Nearest neighbours: how far a vector is from the most similar healthy one.
//!
//! The model file holds a bounded set of the training rows, chosen to cover the others: one drawn with the seed, then again and
//! again the row that is farthest from all chosen (Gonzalez 1985). No row fitted on is farther from the set than the card's
//! covering radius, which is at most twice the smallest that any set of that size could have. So also a rare state of a healthy machine stays known.
//!
//! Features are scaled to the spread of the rows fitted on. The score is the mean distance to the `neighbours` nearest
//! (Ramaswamy, Rastogi and Shim 2000). A distance is the sum of its features' shares, (difference)² / distance, so contributions are never
//! negative and add up. What was expected is the nearest healthy row itself.
//!
//! **Online**, with `recent` above 0. A healthy machine goes over to states that the training data do not have, and the
//! distance to them says so forever. Then a second distance is added: to the nearest of reference rows *and* the device's own
//! recent vectors. What is new counts three times, what the device has done before once:
//!
//! ```text
//!     score = d(x, reference) + 2 d(x, reference ∪ recent)
//! ```
//!
//! Every `every`-th vector of a device is remembered, and compared with those that come at least `delay` vectors later, so that overlapping
//! windows do not excuse each other; the last `recent` of them count.
//!
//! Determinism: one draw from ChaCha8, ties go to the earlier row, only + − × ÷ and square roots in fixed order.

mod coreset;
mod fit;
mod nearest;
mod params;
mod read;
mod recent;

pub use nearest::NearestNeighbours;
pub use params::{NearestNeighboursConfig, NearestNeighboursParams, NearestNeighboursValidParams};
pub use recent::Recent;

pub(crate) use fit::train;

/// The name in TOML and in the model file.
pub const KIND: &str = "nearest-neighbours";
