//! Avouch's pipelines: the language they are written in, the runtime that drives them, and the program's commands.
//!
//! ```text
//!   pipeline.toml ─ lang ─► Pipeline ─ plan ─► LanePlan ─ runtime ─► lanes, sinks, anchors, metrics
//!                                                          ▲
//!                     commands: one file a subcommand ─────┘     simulator: fleets with a known truth
//! ```
//!
//! `README.md` beside this crate describes the language.

pub mod commands;
pub mod dead;
pub mod erasure;
pub mod explain;
pub mod graph;
pub mod handover;
pub mod history;
pub mod labels;
pub mod lang;
mod live_table;
mod markup;
pub mod query;
pub mod runtime;
pub mod signing;
pub mod simulator;
pub mod starter;
pub mod top;
pub mod trial;
pub mod verdict_table;
