//! The writer and its readers against chains that misbehave, from outside the crate: several endpoints, budgets, a thousand
//! checkpoints through faults, a node stricter than anvil.

use avouch_connectors::ethereum;

// Helpers of the crate's own tests, of which these need a part each.
#[allow(dead_code)]
#[path = "../../src/ethereum/tests/chain.rs"]
mod chain;
#[allow(dead_code)]
#[path = "../../src/ethereum/tests/merkle.rs"]
mod merkle;
#[allow(dead_code)]
#[path = "../../src/ethereum/tests/proxy.rs"]
mod proxy;

mod budget;
mod endpoints;
mod handover;
mod hardhat;
#[cfg(feature = "aws-kms")]
mod kms;
#[cfg(feature = "aws-kms")]
#[path = "../../src/store/tests/moto.rs"]
mod moto;
mod node;
mod reorgs;
mod source;
mod thousand;
