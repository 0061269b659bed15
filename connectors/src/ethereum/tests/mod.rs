//! The writer and the reader against a real chain: anvil.

mod audit;
mod chain;
mod faults;
mod flow;
mod merkle;
mod models;
mod proofs;
#[allow(dead_code)] // Used by `connectors/tests/anchoring` too.
mod proxy;
mod restarts;
