//! Multivariate EWMA control charts (Lowry, Woodall, Champ and Rigdon 1992): an online model for small shifts that last.
//!
//! A vector is standardised by the fleet's mean and spread, `z`, and each device's vectors are smoothed:
//!
//! ```text
//!     sᵢ = λ zᵢ + (1 − λ) sᵢ₋₁,   s₀ = 0
//!     oᵢ = sᵢ / √( λ/(2−λ) · (1 − (1−λ)²ⁱ) )     of unit spread from the first vector on, were vectors independent
//!     Mᵢ = oᵢ' Σ⁻¹ oᵢ                            Σ: covariance of the o of the training rows
//! ```
//!
//! `Σ` is that of the *smoothed* training rows, not of the rows: vectors of a real plant are correlated in time, so their
//! means spread wider than those of independent ones would, and not alike in all directions. With λ = 1 nothing is
//! smoothed, and `M` is Hotelling's T².
//!
//! A long memory finds small shifts and dilutes short ones, so several charts may stand side by side (`scales`), from
//! λ = 1 to λ = `smoothing` in equal ratios, as Shewhart and EWMA charts are combined in practice (Lucas and Saccucci
//! 1990). The score is that of the chart that is furthest out:
//!
//! ```text
//!     score = max over charts of  M / limit,     limit: 99 % of the rows held back
//! ```
//!
//! The limits only weigh the charts against each other, since a score becomes a decision by its calibrated p-value, which
//! counts the maximum. With the symmetric root `W` of `Σ⁻¹ / limit`, the contribution of a feature is the square of its
//! entry of `W o`: never negative, and they add up to the score (Alcala and Qin 2009).
//!
//! **What is remembered of a device**: `s` and `(1−λ)²ⁱ` of each chart. A standardised value further out than
//! [`Z_MEMORY`] counts as that far, so that one absurd reading is forgotten after a few windows. A vector that cannot be
//! scored leaves the memory as it is.
//!
//! Determinism: fixed summation order, IEEE arithmetic and square roots, `libm` for the ratio of the smoothing constants.

mod file;
mod fit;
mod params;
mod scorer;

pub use fit::{Mewma, Scale};
pub use params::{MewmaConfig, MewmaParams, MewmaValidParams};
pub use scorer::MewmaScorer;

pub(crate) use file::decode;
pub(crate) use fit::train;

/// The name in TOML and in the model file.
pub const KIND: &str = "mewma";

/// Deviations from the mean beyond which a value counts no more.
pub const Z_MEMORY: f64 = 100.0;
