//! Half-space trees (Tan, Ting and Liu 2011): random cells, and how much of the healthy data lies in each.
//!
//! A tree halves the feature space again and again: at each node a feature drawn at random is cut in the middle of what
//! is left of its range. The ranges are the training data's, moved and widened at random for each tree, so that the trees'
//! cells overlap. Only the mass of the cells is learned: how many rows fell into each.
//!
//! A vector falls down one path in each tree. At every node on it, with mass `m` out of its parent's `M`, the tree says how
//! surprising that turn was, in bits:
//!
//! ```text
//!     surprise = log₂( ½ (M + 1) / (m + ½) )      score = mean over trees of the sum along the path
//! ```
//!
//! So the score is the mean of −log₂ of the density, estimated by the cells, against a uniform one: negative in the thick
//! of the data, and log₂(M + 1) for a step into a half without a single row, below which nothing is known and nothing
//! added. A turn's surprise belongs to the feature that was cut there, so contributions add up to the score; one is negative where
//! the feature speaks for a healthy machine.
//! The paper adds up m·2^depth at the leaves instead, which is large where the data are thick; its logarithm taken turn by
//! turn is what can be divided among features. The ½ is that of Krichevsky and Trofimov.
//!
//! **Fixed or online.** By default the model file fixes trees and masses, and the same vector has the same score forever. With
//! `online = true` the masses are those of the device's last full `window` of vectors, as in the paper, and the file's until
//! there is one: what lasts becomes normal. Masses of a device are bounded by the size of the trees.
//!
//! Determinism: cuts drawn from ChaCha8 with the seed, counts are integers, logarithms from `libm`, fixed order of sums.

mod fit;
mod params;
mod read;
mod trees;

pub use params::{HalfSpaceTreesConfig, HalfSpaceTreesParams, HalfSpaceTreesValidParams};
pub use trees::{HalfSpaceTrees, Recent};

pub(crate) use fit::train;

/// The name in TOML and in the model file.
pub const KIND: &str = "half-space-trees";
