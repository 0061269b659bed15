//! Auditing a whole log: every record, every signed checkpoint and every anchor against each other.
//!
//! ```text
//!   records in order ─► entries ─► tree ─► its root at every size that was signed or anchored
//!        │                                        ║ must be
//!        ├─ seq of each device, rows' offsets     signed checkpoints ═ anchors of the contract
//!        └─ models, configurations, labels
//! ```
//!
//! An evidence bundle ([`crate::bundle`]) shows one record. This shows that there are no others, and that they were never
//! any different: from the records alone the roots are made again, so that each of them is included, and all checkpoints are
//! consistent with each other, if the roots agree. Nothing the operator says is believed but what is compared with
//! something that was fixed before.
//!
//! [`LogAudit`] takes what was handed over and what the chain says ([`Claims`]), then all records in order, and gives the
//! [`Check`]s. Signatures are checked by the caller, as for bundles. A pure function of these; memory grows with the number
//! of devices, and by eight bytes a record.

mod delays;
mod log;
#[cfg(test)]
mod tests;

pub use delays::Delays;
pub use log::LogAudit;

use std::collections::BTreeMap;

use crate::bundle::SignedCheckpoint;
use crate::label::Label;
use crate::verdict::{Hash32, LogOrigin};

/// A checkpoint as the contract took it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChainAnchor {
    /// Entries before.
    pub old_size: u64,
    /// Entries since.
    pub size: u64,
    /// The root at `size`.
    pub root: Hash32,
    /// SHA-256 of the coverage.
    pub data_commitment: Hash32,
    /// When it was signed, by the signer's clock, milliseconds since the epoch.
    pub issued_at: u64,
    /// The time of its block, seconds since the epoch.
    pub block_time: u64,
    /// The number of its block.
    pub block: u64,
}

/// From when to when a model may decide, as a registry says. Seconds since the epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ModelWindow {
    /// From this second on.
    pub from: u64,
    /// Before this second.
    pub until: u64,
    /// And not from this second on, if it was revoked.
    pub revoked_at: Option<u64>,
}

impl ModelWindow {
    /// Whether it may decide at a time.
    pub fn is_active(&self, when: u64) -> bool {
        (self.from..self.until).contains(&when) && self.revoked_at.is_none_or(|r| when < r)
    }
}

/// What was handed over beside the records, and what the chain says.
#[derive(Debug, Clone)]
pub struct Claims {
    /// The log.
    pub origin: LogOrigin,
    /// The topic its lane reads, as in the coverage.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// The checkpoints that were signed, in any order.
    pub signed: Vec<SignedCheckpoint>,
    /// Up to which offset (exclusive) the lane had read when the log had which size.
    pub offsets: BTreeMap<u64, i64>,
    /// The anchors of the contract, oldest first; `None` where the chain was not asked.
    pub anchors: Option<Vec<ChainAnchor>>,
    /// What a registry says of models (`None` of one it never activated); `None` where none was asked.
    pub models: Option<BTreeMap<Hash32, Option<ModelWindow>>>,
    /// What was promised: how long after the end of its window a verdict is anchored, milliseconds.
    pub promise_ms: Option<u64>,
    /// SHA-256 of the model files that were handed over.
    pub model_files: Vec<Hash32>,
    /// SHA-256 of the canonical pipelines that were handed over.
    pub pipelines: Vec<Hash32>,
}

/// How a check ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Grade {
    /// It holds.
    Passed,
    /// Nobody could make it; the text says what is missing.
    NotMade,
    /// It holds, but somebody should look at what was found.
    Attention,
    /// It does not hold: the log must not be relied on.
    Failed,
}

impl Grade {
    /// The name, as in reports.
    pub fn name(self) -> &'static str {
        match self {
            Grade::Passed => "passed",
            Grade::NotMade => "not made",
            Grade::Attention => "attention",
            Grade::Failed => "failed",
        }
    }
}

/// Something that was found, and at which record, if it is about one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Index of the record.
    pub index: Option<u64>,
    /// What is wrong.
    pub what: String,
}

/// One check of the whole log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// A word or two.
    pub name: &'static str,
    /// What is known when it passes.
    pub proves: &'static str,
    /// What is not known by it.
    pub does_not_prove: &'static str,
    /// How it ended.
    pub grade: Grade,
    /// What was compared, or what is missing.
    pub said: String,
    /// What was found, the first [`MOST_FINDINGS`].
    pub findings: Vec<Finding>,
    /// How many were found in all.
    pub found: u64,
}

/// How many findings of one check are kept.
pub const MOST_FINDINGS: usize = 50;

/// What a model decided, as far as the log shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelUse {
    /// SHA-256 of its file.
    pub model: Hash32,
    /// The step it decided in.
    pub step: String,
    /// How many records.
    pub records: u64,
    /// Index of the first.
    pub first: u64,
    /// Index of the last.
    pub last: u64,
    /// What the registry says: `None` where none was asked, `Some(None)` where it never activated it.
    pub window: Option<Option<ModelWindow>>,
}

/// Which configuration decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigUse {
    /// `configHash`.
    pub config: Hash32,
    /// How many records in a row.
    pub records: u64,
    /// Index of the first of them.
    pub first: u64,
    /// Index of the last of them.
    pub last: u64,
}

/// What a person said, as a record of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SaidByPerson {
    /// Index of the record.
    pub index: u64,
    /// What was said.
    pub label: Label,
}

/// What an audit found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditReport {
    /// The log.
    pub origin: LogOrigin,
    /// How many records were given.
    pub records: u64,
    /// The root over them.
    pub root: Hash32,
    /// How many of them an anchor covers, as the chain says; as was signed, where it was not asked.
    pub anchored: u64,
    /// How many devices there are.
    pub devices: u64,
    /// Records by severity: normal, warning, critical.
    pub severities: [u64; 3],
    /// The checks, in the order they are made.
    pub checks: Vec<Check>,
    /// The models.
    pub models: Vec<ModelUse>,
    /// The configurations, in the order of the log.
    pub configs: Vec<ConfigUse>,
    /// What people said.
    pub labels: Vec<SaidByPerson>,
    /// How long records waited for their anchor; `None` where the chain was not asked.
    pub delays: Option<Delays>,
}

impl AuditReport {
    /// The worst grade of its checks; checks that were not made count as passed.
    pub fn grade(&self) -> Grade {
        self.checks.iter().map(|c| c.grade).filter(|g| *g != Grade::NotMade).max().unwrap_or(Grade::Passed)
    }
}
