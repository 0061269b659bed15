//! Signed readings: a reading is used only if the device it names has signed it, once, with a key that speaks for it.
//!
//! What is signed, to the byte, is in `docs/signed-readings.md`, whose worked example is a test. In short: a device counts what
//! it signs (`seq`) and signs a [`Statement`] of its fleet, its name, that number and the hash of what it says, with a key
//! that a [`KeySet`] names for that number. For high rates it signs the Merkle root of many readings at once.
//!
//! ```text
//!   record ─ decode ─ whose? ─ key of that seq ─ signature ─ counter ─► admit …
//!                └──────┴────────────┴────────────┴───────────┴──────► dead letter: unsigned, unknown_device, revoked,
//!                                                                      key_not_valid, forged, replayed
//! ```
//!
//! **Deterministic.** Whether a reading is accepted is a function of the lane's recorded inputs alone. The keys are one of them,
//! as reference tables are: a version is named by the SHA-256 of its content, and a lane goes over from one to another at a
//! recorded place ([`LaneEvent::Reference`](crate::event::LaneEvent)). The highest `seq` of each device is state of the lane. And
//! signatures are judged alike one by one and in batches, whatever the input: see [`ed25519`].

mod check;
mod columns;
mod content;
pub mod ecdsa;
pub mod ed25519;
mod envelope;
mod keys;
mod signer;
mod statement;
mod verify;

pub use check::{Checked, Checker};
pub use columns::{Cell, columns_content};
pub use content::json_content;
pub use envelope::{Envelope, EnvelopeError, MOST_IN_BATCH, Member};
pub use keys::{DeviceKey, DeviceKeys, KeyAt, KeyError, KeySet, KeySpan, Naming, chain_domain, file_domain, hex};
pub use signer::{SignerError, SigningKey, sign_batch, sign_reading};
pub use statement::{BatchTree, Statement, device_hash, leaf, path_length, value_content};
pub use verify::{Signature, verify_all};

use crate::dead_letter::DeadReason;
use crate::decode::RowError;

/// Where a reading's signature stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SignatureIn {
    /// Beside the record, as [`RawRecord::signature`](crate::decode::RawRecord): what is signed are the value's bytes.
    Header,
    /// In this field of the reading, in hexadecimal: what is signed are the other fields' values.
    Field(String),
}

fn refuse(reason: DeadReason, detail: impl Into<String>) -> RowError {
    RowError { reason, detail: detail.into() }
}
