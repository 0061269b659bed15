//! One-class support vector machine (Schölkopf, Platt, Shawe-Taylor, Smola and Williamson 2001): the smallest region of any
//! shape that holds all but a share `nu` of the training rows.
//!
//! Vectors are standardised by the fleet's mean and spread. With the Gaussian kernel `K(z, s) = exp(−‖z − s‖² / eps)` and
//! support vectors `s` of weights `α`, the region is where `f(z) = Σ αᵢ K(z, sᵢ) ≥ ρ`, and the score
//!
//! ```text
//!     score = ln ρ − ln f(z)          0 at its edge, negative inside, growing with the squared distance outside
//! ```
//!
//! orders vectors as the decision function `f − ρ` does, which far out is `−ρ` for all alike.
//!
//! **Contributions.** With the support vectors' shares `wᵢ = αᵢ K(z, sᵢ) / f(z)`, which add up to 1,
//!
//! ```text
//!     −ln f(z) = Σⱼ Σᵢ wᵢ (zⱼ − sᵢⱼ)² / eps  +  Σᵢ wᵢ ln (wᵢ / αᵢ)
//! ```
//!
//! holds exactly. The first sum is split by feature `j`; the second, and `ln ρ`, is a matter of how many support vectors are
//! near and is shared out equally. So contributions add up to the score, and like it may be negative. What was expected of a
//! feature is `Σᵢ wᵢ sᵢⱼ`, the support vectors' mean as seen from the vector.
//!
//! The time and memory of the fit grow with the square of the rows, so at most [`MAX_ROWS`] are fitted on, drawn with
//! the seed; calibration has all that are held back.
//!
//! `linfa_svm` is not used for the fit: its kernel calls the platform's `exp`, in which platforms differ. The tests hold
//! this one against it.
//!
//! Determinism: a row order fixed by device and time, sums in that order, `libm` for `exp` and `ln`, one seeded generator.

mod fit;
mod params;
mod smo;

pub use fit::OneClassSvm;
pub use params::{OneClassSvmConfig, OneClassSvmParams, OneClassSvmValidParams};

pub(crate) use fit::{decode, train};

/// The name in TOML and in the model file.
pub const KIND: &str = "one-class-svm";

/// Rows fitted on at most.
pub const MAX_ROWS: usize = 2000;
