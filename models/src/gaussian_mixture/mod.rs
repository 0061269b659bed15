//! A mixture of Gaussians for machines with several operating conditions, each with its own level, spreads and correlations.
//!
//! Vectors are standardised by the fleet's mean and spread. Weights `w`, means `μ` and covariances `Σ` are fitted by
//! expectation maximisation (Dempster, Laird and Rubin 1977) from k-means centres, with a conjugate prior on the covariances
//! as Fraley and Raftery (2007) have it: as if each component had seen `p + 2` more vectors, spread without correlation as
//! the rows are about their k-means centres (theirs are spread as the whole of the data is, which is far too wide for
//! conditions that lie far apart). So a component of few rows, or of a feature that stands still in it, keeps a spread.
//! A component that is left with less than a row is dropped.
//!
//! The score is how improbable a vector is in the component that is most responsible for it:
//!
//! ```text
//!     score = min over components k of  (z − μₖ)' Σₖ⁻¹ (z − μₖ) + cₖ
//!     cₖ    = ln det Σₖ − 2 ln wₖ,  less the smallest of these: never negative
//! ```
//!
//! which is −2 ln of the largest weighted density, less what it is at the highest peak; with one component it is the
//! Mahalanobis distance squared. The whole mixture's density would add the smaller terms, which changes it by at most 2 ln K
//! and would split by feature no more.
//!
//! **Contributions** are of the responsible component: the square of a feature's entry of `Σₖ^(−1/2) (z − μₖ)` (Alcala and
//! Qin 2009), plus an equal share `cₖ / p` of what the condition itself is worth, which is nobody's fault. Never negative,
//! and they add up to the score. What was expected of a feature is the component's mean.
//!
//! `linfa_clustering::GaussianMixtureModel` is not used for the fit: it multiplies through `matrixmultiply`, whose kernels
//! differ with the CPU's instruction set, calls the platform's `exp` and `ln`, starts from a k-means that runs in rayon's
//! thread pool, and gives up on a component that collapses. The tests hold this one against it.
//!
//! Determinism: a row order fixed by device and time, sums in that order, `libm` for `exp` and `ln`, one seeded generator.
//! Scoring needs neither.

mod em;
mod fit;
mod params;

pub use fit::{Component, GaussianMixture};
pub use params::{GaussianMixtureConfig, GaussianMixtureParams, GaussianMixtureValidParams};

pub(crate) use fit::{decode, train};

/// The name in TOML and in the model file.
pub const KIND: &str = "gaussian-mixture";
