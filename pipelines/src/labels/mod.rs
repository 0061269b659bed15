//! What people say of verdicts: on its way into the log, and read from it.
//!
//! ```text
//!  avouch label ─► <state>/labels/<lane>/<id>.json ─ lane ─► log ─► explain-verdict, query, retrain
//!         └──────► <state>/labels/reasons/<hash>.json                (the reason's text, which may be deleted)
//! ```
//!
//! A request is a file, so that it can be made while nothing runs, and survives whatever the process that takes it dies of. Its
//! name is the label's id, which is also in the log: what is there already is not taken again.

mod inbox;
mod last_word;
mod reason;
mod request;

use avouch_connectors::store::{LaneReader, StoreError};
use avouch_engine::event::LaneEvent;
use avouch_engine::label::Label;
use avouch_engine::verdict::Logged;

pub use inbox::{Inbox, Outcome, Taken};
pub use last_word::LastWord;
pub(crate) use reason::reason_path;
pub use reason::{Reason, keep_reason, reason_of};
pub use request::{Request, RequestError, inbox_dir, waiting};

/// Events read at once.
const EVENTS: usize = 10_000;
/// Records read at once.
const RECORDS: usize = 2_000;

/// A label that is in a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recorded {
    /// Index of its record.
    pub index: u64,
    /// What is said.
    pub label: Label,
}

/// The labels that a lane's newest checkpoint covers, as the lane took them: after which offset, and what.
///
/// # Errors
/// When the lane's events cannot be read.
pub fn events(reader: &LaneReader) -> Result<Vec<Label>, StoreError> {
    let all = reader.committed().event_count;
    let (mut next, mut out) = (0, Vec::new());
    while next < all {
        let some = reader.events(next, EVENTS)?;
        if some.is_empty() {
            break;
        }
        next += some.len() as u64;
        out.extend(some.into_iter().filter_map(|e| match e {
            LaneEvent::Label { label, .. } => Some(label),
            _ => None,
        }));
    }
    Ok(out)
}

/// The labels in a lane's log, in its order; one that was erased says nothing any more. Of a log without any, only the lane's events are read.
///
/// # Errors
/// When the lane's events or records cannot be read.
pub fn recorded(reader: &LaneReader) -> Result<Vec<Recorded>, StoreError> {
    let wanted = events(reader)?.len();
    let size = reader.committed().log_size;
    let (mut at, mut out) = (0, Vec::with_capacity(wanted));
    while at < size && out.len() < wanted {
        let records = reader.records(at, RECORDS)?;
        if records.is_empty() {
            break;
        }
        at += records.len() as u64;
        let kept = records.into_iter().filter_map(Logged::into_record);
        out.extend(kept.filter_map(|r| Some(Recorded { index: r.index, label: *r.evidence.label? })));
    }
    Ok(out)
}
