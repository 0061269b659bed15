//! The Numenta Anomaly Benchmark: its files and labels, and its scoring, written from the benchmark's description
//! (Lavin and Ahmad 2015) and held against published figures in `models/tests/nab.rs`.
//!
//! ```text
//!     rows of a file:  │ probation │            │▒▒▒ window ▒▒▒│                 │▒ window ▒│
//!     an alarm earns:     nothing     −fp          +tp … 0         −fp·(0 … 1)
//! ```
//!
//! A window earns what its earliest alarm is worth: `tp` at its left end, falling along a sigmoid to nothing at its
//! right end; without an alarm it costs `fn`. An alarm outside costs `fp`, less than that shortly after a window. The first
//! 15 % of a file, at most 750 rows, are probation. One threshold holds for all files; it is the one that scores best.
//! Scores are given so that 0 is never alarming and 100 the earliest alarm in every window and no other.

mod files;
mod scoring;

pub use files::{NabError, NabFile, load};
pub use scoring::{Alarms, Profile, Series, best_threshold, points, probation};
