//! Random cut forest (Guha, Mishra, Roy and Schrijvers 2016): how much of a sample of healthy rows would have to move for a vector.
//!
//! A robust random cut tree divides its sample of rows until each stands alone: at every node a feature is drawn in
//! proportion to its range there, and cut at a uniform place of the range. A vector that were added to the tree would be cut
//! off from a node's rows with the probability that the first cut of the extended box falls into the extension:
//!
//! ```text
//!     at a node with box B, mass m, and e_j how far x lies outside of B in feature j:
//!         p = Σ e_j / Σ (range_j + e_j)
//!     displacement = Σ along the path  (probability to get there) · p · m / n
//! ```
//!
//! The score is the expected displacement, as a share of the sample, averaged over the trees: near 0 for a vector among
//! many like it, and near 1 for one that the first cut would part from all. It is computed without adding the vector, so scoring
//! changes nothing and is a pure function. Each `p` divides into the features' `e_j`, which gives contributions that are
//! never negative and add up to the score.
//! (The paper's collusive displacement takes the largest over groups of look-alikes in the sample; that is for
//! anomalies within the sample itself, and these samples are healthy.)
//!
//! Features are scaled to the spread of the rows fitted on, since cuts go by range. The model file holds the pool of rows the trees drew from, and every cut.
//!
//! Determinism: rows and cuts drawn from ChaCha8 with the seed; only + − × ÷ and square roots, in fixed order.

mod fit;
mod forest;
mod params;
mod read;

pub use forest::RandomCutForest;
pub use params::{RandomCutForestConfig, RandomCutForestParams, RandomCutForestValidParams};

pub(crate) use fit::train;

/// The name in TOML and in the model file.
pub const KIND: &str = "random-cut-forest";
