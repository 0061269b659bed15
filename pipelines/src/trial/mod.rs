//! Running a pipeline's `[[tests]]`.
//!
//! ```text
//!   input files ─ history ─► Gathered ─┬─ tables ─► DataFusion ─► each assertion: one row with one true boolean?
//!                (its whole lane)      ├─ verdicts, sorted ─ golden ─► the same, or a diff of rows
//!                                      └─ counts ─► late, dead letters
//!                                                                        └─► Outcome ─ report ─► text, JSON, JUnit
//! ```
//!
//! Nothing here reads the clock, the network or a key. (The time a test took is measured by the command.)

mod gathered;
mod golden;
mod judge;
mod report;

pub use gathered::{Gathered, gather};
pub use golden::{GoldenDiff, GoldenError, verdict_line};
pub use judge::{Failure, TestOutcome, Tester};
pub use report::{FileOutcome, json, junit, render};
