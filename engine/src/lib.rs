//! Avouch's engine: pure and deterministic. No I/O, no clock, no randomness of its own; time enters as data.

pub mod codec;
pub mod dead_letter;
pub mod model;
pub mod spec;
pub mod verdict;
