//! A whole log, as its operator hands it to an auditor: a directory of plain files, made by `avouch export`.
//!
//! | file | what it is |
//! | --- | --- |
//! | `log.json` | the log's name, topic, partition and size, and what was exported with it |
//! | `records` | every record of the log, or its tombstone, in frames ([`avouch_engine::verdict::Logged::to_bytes`]) |
//! | `events` | what happened to the lane besides rows, in frames ([`avouch_engine::event::LaneEvent`]) |
//! | `signed-checkpoints.jsonl` | every checkpoint that was signed for the contract, a JSON object a line |
//! | `offsets.jsonl` | up to which offset (exclusive) the lane had read at each size that a checkpoint names |
//! | `models/<sha256>.model` | the models that decided |
//! | `pipelines/<sha256>.json` | the canonical pipelines under which they did |
//! | `references/<sha256>.reference` | the versions of reference tables that rows were joined with |
//! | `keys/<sha256>.keys` | of signed readings: the versions of the devices' keys |
//! | `schemas/…` | of Avro: the schemas that records were written with |
//! | `readings` | only on request: the records of the source that the lane read, in frames ([`Reading`]) |
//!
//! A frame is the payload's length, four bytes, little-endian, and the payload. Nothing in the directory is believed: the
//! audit compares it with what was signed and anchored, and the replay makes it again.
//!
//! Records name devices, features and values. They are the operator's data, and are for who may see them; on chain are only
//! hashes. The secret is never exported.

mod compare;
mod frames;
mod plans;
mod read;
mod reading;
mod replay;
mod write;

pub use compare::Difference;
pub use plans::PlanFailure;
pub use read::{Handover, Readings, Records};
pub use reading::Reading;
pub use replay::{ReplayFailure, Replayed, replay};
pub use write::{Exported, Wanted, export};

use std::path::PathBuf;

use avouch_connectors::store::StoreError;
use avouch_engine::codec::CodecError;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::runtime::RuntimeError;

/// What `log.json` says it is.
pub const FORMAT: &str = "avouch/log/1";

/// Names of the files.
mod file {
    pub const HEAD: &str = "log.json";
    pub const RECORDS: &str = "records";
    pub const EVENTS: &str = "events";
    pub const OFFSETS: &str = "offsets.jsonl";
    pub const READINGS: &str = "readings";
}

/// `log.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Head {
    /// [`FORMAT`].
    pub format: String,
    /// The log's origin.
    pub log: String,
    /// The topic its lane reads.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// How many records.
    pub size: u64,
    /// Offset of the first record of the source that the lane had not read by then.
    pub next_offset: i64,
    /// `configHash` that the lane had then, hexadecimal.
    pub config: String,
    /// Which model each step has under it, hexadecimal, by the step's name.
    pub models: std::collections::BTreeMap<String, String>,
    /// Whether the readings are here.
    pub readings: bool,
}

/// What is wrong with an export.
#[derive(Debug, Error)]
pub enum HandoverError {
    /// The directory is there already.
    #[error("{0} exists already; choose another directory")]
    Exists(PathBuf),
    /// A file cannot be read or written.
    #[error("{path}: {source}")]
    File {
        /// Which.
        path: PathBuf,
        /// The system's words.
        source: std::io::Error,
    },
    /// A file is not what it should be.
    #[error("{path}: {why}; ask for the export again")]
    Malformed {
        /// Which.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// A value in a file cannot be read.
    #[error("{path}: {source}")]
    Codec {
        /// Which.
        path: PathBuf,
        /// What is wrong.
        source: CodecError,
    },
    /// The lane's store cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The runtime's files cannot be read, or the source cannot.
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
    /// The source has not all the lane has read.
    #[error(
        "the source has nothing any more between the offsets {missing} and {until}, which the lane has read; restore it from an \
         archive, or export without --readings"
    )]
    ReadingsGone {
        /// From here on.
        missing: i64,
        /// Up to here.
        until: i64,
    },
}
