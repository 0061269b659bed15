//! Drift: whether a device's features still are what a model was trained for.
//!
//! An online model over the same features as a detector. A feature is standardised by the training rows, `z`, and three
//! statistics of each feature are held against a limit:
//!
//! ```text
//!     Page-Hinkley   g⁺ ← max(0, g⁺ + z − δ),  g⁻ ← max(0, g⁻ − z − δ)       a level that moved      (Page 1954; Hinkley 1971)
//!     ADWIN          |μ₀ − μ₁| / ε over all cuts of an exponential histogram   a level that moves now  (Bifet and Gavaldà 2007)
//!     PSI            Σ (a − e)(ln a − ln e) over quantile bins of training     another distribution
//! ```
//!
//! The value is the largest of these over all features, each divided by its limit: at 1 or above there is a drift, and the
//! score carries [`Finding::Drift`](avouch_engine::model::Finding::Drift). A feature's contribution is its share of the
//! value, in proportion to the square of its own largest ratio, so contributions are never negative and add up to the value.
//!
//! **When a drift ends.** Each statistic ends by itself once the data are as in training again: Page-Hinkley falls by δ a
//! row from at most twice its limit, ADWIN forgets what lies before its cut, and the PSI is of the last `window` rows. While
//! the data stay changed, Page-Hinkley and the PSI stay at their limits and the drift stays on. With `adapt = true` the
//! reference is learnt anew instead: over the `window` rows from the detection on (the drift stays on meanwhile) level and
//! spread of the device are measured, become the reference, and all statistics begin again. The default is `false`: a
//! model that was not retrained does not fit the data because the drift detector got used to them.
//!
//! **Limits** belong to the model, not to a series, and to a feature: with `limits = "held-back"` each is the option's value or
//! 1.25 times the largest that the statistic of this feature reached on any training row, fitted or held back, run through in time order, whichever is
//! greater: windows that overlap are alike, and a machine wanders, which no formula for independent rows knows. With
//! `limits = "fixed"` they are the options' values.
//!
//! **Memory** of a device at the defaults: at most 1 KiB for each feature (two sums, 45 buckets of 16 bytes and nine counts,
//! 200 bin numbers, ten counts of bins, with `adapt` 32 bytes of reference); it does not grow with time.
//!
//! Determinism: fixed order of sums, + − × ÷ √ and `libm`'s logarithm; nothing is drawn at random.

mod adwin;
mod file;
mod fit;
mod memory;
mod page_hinkley;
mod params;
mod scorer;
mod stability;
mod train;

pub use adwin::Adwin;
pub use fit::{DriftModel, Limits};
pub use page_hinkley::PageHinkley;
pub use params::{DriftBaseline, DriftConfig, DriftParams, DriftValidParams, LimitsKind};
pub use scorer::DriftScorer;
pub use stability::{Bins, population_stability};

pub(crate) use file::decode;
pub(crate) use train::{split, train};

/// The name in TOML and in the model file.
pub const KIND: &str = "drift";

/// A standardised feature counts for at most this in Page-Hinkley and ADWIN: one wild reading is not a drift.
const CLIP: f64 = 4.0;
