//! Ethereum: the verdict log's witness on chain.
//!
//! | part | what it is |
//! | --- | --- |
//! | [`checkpoint`] | what is hashed and signed; offline verification |
//! | [`AnchorWriter`] | one key, one writer: brings checkpoints onto the chain through crashes and reorgs |
//! | [`ChainReader`] | what an auditor asks the chain: heads, inclusion, the transaction of a checkpoint |
//! | [`deploy`], [`register_log`] | done once, by a person |
//! | [`ModelRegistry`] | which models may decide, and since when |
//! | [`DeviceRegistry`] | which keys speak for which device |
//! | [`source`] | blocks and events as the input log of a lane |
//! | [`OperatorKey`] | an encrypted keystore file, a key in AWS KMS, or an environment variable for development |
//!
//! The contract and its tests are in `connectors/ethereum/contracts`; its compiled artifact is part of this program, and
//! whatever code is found at a configured address is compared with it byte by byte before anything is sent.

mod artifact;
mod bindings;
pub mod checkpoint;
mod deploy;
mod devices;
mod error;
mod journal;
#[cfg(feature = "aws-kms")]
mod kms;
mod kms_error;
mod kms_options;
mod models;
mod node;
mod quorum;
mod reader;
mod rpc;
mod signer;
pub mod source;
#[cfg(test)]
mod tests;
mod transact;
mod writer;

pub use alloy::primitives::Address;

pub use artifact::Contract;
pub use checkpoint::{Checkpoint, Domain, log_id};
pub use deploy::{Deployed, Registered, deploy, register_log, register_log_of, set_signer, set_successor};
pub use devices::{DeviceRegistry, FleetKeys, RegisteredKey, fleet_id};
pub use error::{Dissent, EthereumError, Roots};
pub use kms_error::{KmsAction, KmsError};
pub use kms_options::KmsOptions;
pub use models::{ModelOnChain, ModelRegistry, Roles, registry_id};
pub use reader::{Anchor, ChainCheckpoint, ChainReader, Heads};
pub use rpc::{At, Endpoint, RpcOptions};
pub use signer::OperatorKey;
pub use writer::{AnchorWriter, Anchored, GasPrice, WriterConfig, WriterOptions};
