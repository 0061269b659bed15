//! A fleet of pumps that does not exist, with what is wrong with it kept aside.
//!
//! The fleet turns on event time alone: an hour of forty pumps takes a moment, and the same configuration gives the
//! same bytes on every machine (seeded ChaCha, transcendental functions from `libm`, one order of draws). Readings come
//! out as a broker would see them, by arrival time: slightly delayed, a few of them late by minutes, a few cut off in
//! the middle. The [`GroundTruth`] never touches the readings; it says which fault each pump had, when it could be
//! seen, and how many rows of each kind were sent, so that verdicts and dead letters can be held against it.
//!
//! ```text
//!   FleetConfig ─► Fleet ─┬─► SimulatedReading { device, broker_time_ms, payload }   (Iterator, by broker time)
//!                         └─► GroundTruth { faults per device, rows, bad, late, future }
//! ```
//!
//! [`ScenarioConfig`] simulates fleets of other kinds, for the ready pipelines; [`TurbofanConfig`] engines that fail, and
//! [`MillingConfig`] jobs that do. They write into a [`Row`], as JSON or CSV.
//!
//! [`bench`] is another matter: a plain workload for measuring rows a second.

mod batteries;
pub mod bench;
mod cold_chain;
mod fault;
mod fleet;
mod milling;
mod plant;
mod pump;
mod random;
mod row;
mod scenario;
mod servers;
mod spacecraft;
#[cfg(test)]
mod tests;
mod truth;
mod turbofan;

pub use fault::{FaultKind, Sensor};
pub use fleet::{FaultMix, Fleet, FleetConfig, SimulatedReading, SimulatorError};
pub use milling::{MillingConfig, MillingRows};
pub use row::{Row, RowForm};
pub use scenario::{Scenario, ScenarioConfig, ScenarioFault, ScenarioRows};
pub use truth::{DeviceTruth, FaultTruth, GroundTruth, Label};
pub use turbofan::{TurbofanConfig, TurbofanRows};
