//! Hotelling T² and Q (squared prediction error) charts over window features.
//!
//! A feature vector is standardised by its device's baseline, `z`, and split by principal components into the part
//! the training data varies in and the rest:
//!
//! ```text
//!     T² = Σ_{i ≤ k} (pᵢ·z)² / λᵢ        how far out along the k retained components
//!     Q  = ‖z − Σ_{i ≤ k} (pᵢ·z) pᵢ‖²    how far off the plane they span
//!     φ  = T² / T²lim + Q / Qlim  = ‖W z‖²     the score (Yue and Qin 2001)
//! ```
//!
//! The limits are the 99 % ones of either chart under normality; they only weigh the two parts against each other,
//! since a score becomes a decision by its calibrated p-value. `W` is the symmetric root of φ's quadratic form, so a
//! feature's contribution is the square of one entry of `W z`: never negative, and the contributions add up to the
//! score (complete decomposition contributions, Alcala and Qin 2009).
//!
//! Baselines: the fleet's mean and spread, or each device's own mean (`baseline = "device"`) with the fleet's spread
//! within devices or the device's own (`scale`). A device the model does not know is scored on the fleet's baseline,
//! with that baseline's own calibration.
//!
//! With `baseline = "adaptive"` a device's mean is learnt while it is judged, see [`adaptive`].
//!
//! Determinism: fixed summation order, IEEE arithmetic and square roots only. No value depends on the platform, the
//! thread count or a seed.

pub mod adaptive;
mod chart;
pub(crate) mod eigen;
mod file;
mod fit;
mod params;
mod scorer;

use std::sync::Arc;

use avouch_engine::codec::CodecError;
use avouch_engine::model::Scorer;
use avouch_engine::verdict::Hash32;

pub use chart::{Baseline, Chart};
pub use fit::{Devices, T2q};
pub use params::{BaselineKind, ScaleKind, Shrinkage, T2qConfig, T2qParams, T2qValidParams};
pub use scorer::T2qScorer;

pub(crate) use file::{decode, encode, read_baseline, read_chart, write_baseline, write_chart};
pub(crate) use fit::{mean, refuse_constant, squares};
pub(crate) use params::Retain;

/// Reads a model's body, of whichever baseline.
pub(crate) fn load(body: &[u8], hash: Hash32) -> Result<Arc<dyn Scorer>, CodecError> {
    Ok(if adaptive::is_adaptive(body) {
        Arc::new(adaptive::decode(body, hash)?)
    } else {
        Arc::new(decode(body, hash)?)
    })
}

/// The name in TOML and in the model file.
pub const KIND: &str = "t2-q";
