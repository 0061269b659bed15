//! k-means for machines with several operating conditions: how far is a vector from the nearest one?
//!
//! Vectors are standardised by the fleet's mean and spread. Centres are sought by Lloyd's iterations from k-means++ starts
//! (Lloyd 1982; Arthur and Vassilvitskii 2007), ten of them, of which the one with the least inertia is kept. Then every
//! feature gets its spread within clusters `w`, pooled over the clusters, and the score is the squared distance from the
//! nearest centre in these spreads:
//!
//! ```text
//!     score = min over centres c of  Σⱼ ((zⱼ − cⱼ) / wⱼ)²
//! ```
//!
//! A feature contributes its own square: never negative, and they add up to the score. What was expected of it is the
//! nearest centre's value.
//!
//! k-means supposes that conditions differ in where they are and are alike in spread, with features independent within
//! them; where they are not, see [`crate::gaussian_mixture`]. A feature that hardly varies within clusters, such as a set
//! point, gets at least a hundredth of its overall spread.
//!
//! `linfa_clustering::KMeans` is not used for the fit: its draws are of `rand`'s distributions, which their authors may
//! change between versions, and it runs in rayon's thread pool. The tests hold this one against it.
//!
//! Determinism: a row order fixed by device and time, sums in that order, one seeded generator (ChaCha8), ties to the lower
//! number.

mod fit;
pub(crate) mod lloyd;
mod params;

pub use fit::KMeans;
pub use params::{KMeansConfig, KMeansParams, KMeansValidParams};

pub(crate) use fit::{decode, train};

/// The name in TOML and in the model file.
pub const KIND: &str = "k-means";
