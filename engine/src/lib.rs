//! Avouch's engine: pure and deterministic. No I/O, no clock, no randomness of its own; time enters as data.

pub mod admit;
pub mod anchor;
pub mod bundle;
pub mod codec;
pub mod dead_letter;
pub mod decode;
pub mod device;
pub mod ingest;
pub mod lane;
pub mod log;
pub mod model;
pub mod plan;
pub mod spec;
pub mod sql;
pub mod verdict;
pub mod window;
