//! A running pipeline at a glance, from its own metrics.
//!
//! ```text
//!   /metrics ─ exposition ─► samples ─ figures ─► lanes, process ─ table ─► a plain table, or a screen
//! ```
//!
//! Nothing here knows the process but by what it serves: what this shows, Prometheus sees too.

mod exposition;
mod figures;
mod screen;
mod table;

pub use exposition::{ExpositionError, Sample, samples};
pub use figures::{Figures, LaneFigures, ProcessFigures, View};
pub use screen::{Screen, Told};
pub use table::{Column, plain};
