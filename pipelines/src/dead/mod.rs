//! Dead letters after they died: found, shown, and given back to the source once what killed them is mended.
//!
//! They are read where none is cut short and none can be missing: in the lanes' own dead-letter files, which every pipeline keeps
//! in its state, whatever `[dead_letter]` says; from an object store they are brought here first. A running pipeline is not
//! disturbed; what its last checkpoint covers is seen.

mod record;
mod requeue;

pub use record::RecordError;
pub use requeue::{Outcome, Requeue, RequeueError};

use std::path::{Path, PathBuf};

use avouch_connectors::store::{LaneReader, StoreError};
use avouch_engine::dead_letter::{DeadLetter, DeadReason};
use avouch_engine::decode::format_timestamp;
use serde_json::{Value, json};
use thiserror::Error;

use crate::runtime::{RuntimeError, lane_dirs};

/// Letters read at once.
const AT_ONCE: usize = 2_000;

/// Why dead letters cannot be read.
#[derive(Debug, Error)]
pub enum DeadError {
    /// There is no lane.
    #[error("there are no lanes in {dir}, so nothing has died there; is this the machine the pipeline runs on?")]
    NoState {
        /// Where they would be.
        dir: PathBuf,
    },
    /// The directory cannot be read.
    #[error("{path}: {source}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Lanes in an object store cannot be brought here.
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
    /// A lane's files are damaged.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// There is no such letter.
    #[error("no dead letter came from {place}; `avouch dead list` shows where they came from")]
    NoLetter {
        /// Partition, offset and row as asked for.
        place: String,
    },
}

/// A dead letter, and which.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Letter {
    /// The lane, which is the partition of the source.
    pub lane: i32,
    /// Its number among the lane's dead letters.
    pub number: u64,
    /// The letter.
    pub letter: DeadLetter,
}

/// Which letters are meant.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// Of these reasons; of all if empty.
    pub reasons: Vec<DeadReason>,
    /// Whose record's timestamp is not earlier, milliseconds.
    pub since: Option<i64>,
    /// Of this device: the record's key, or the field of this name in a value that is a JSON object.
    pub device: Option<String>,
    /// The field that names the device.
    pub key: String,
}

impl Filter {
    /// Whether a letter is meant.
    pub fn takes(&self, letter: &DeadLetter) -> bool {
        let reason = self.reasons.is_empty() || self.reasons.contains(&letter.reason);
        let since = self.since.is_none_or(|since| letter.timestamp >= since);
        reason && since && self.device.as_ref().is_none_or(|wanted| self.is_of(letter, wanted))
    }

    fn is_of(&self, letter: &DeadLetter, wanted: &str) -> bool {
        if letter.key.as_deref() == Some(wanted.as_bytes()) {
            return true;
        }
        let value = letter.value.as_deref().and_then(|v| serde_json::from_slice::<Value>(v).ok());
        value.is_some_and(|v| v.get(&self.key).and_then(Value::as_str) == Some(wanted))
    }
}

impl Letter {
    /// Where it came from: `partition/offset`, and the row of a record of many.
    pub fn place(&self) -> String {
        match self.letter.row {
            None => format!("{}/{}", self.lane, self.letter.offset),
            Some(row) => format!("{}/{}/{row}", self.lane, self.letter.offset),
        }
    }

    /// For programs, as dead-letter files have it.
    pub fn json(&self, topic: &str) -> Value {
        let l = &self.letter;
        let mut out = json!({
            "reason": l.reason.name(),
            "detail": l.detail,
            "topic": topic,
            "partition": self.lane,
            "offset": l.offset,
            "row": l.row,
            "timestamp": l.timestamp,
            "number": self.number,
        });
        if let Some(map) = out.as_object_mut() {
            for (name, bytes) in [("key", &l.key), ("value", &l.value)] {
                match bytes.as_deref().map(|b| std::str::from_utf8(b).map_err(|_| b)) {
                    None => map.insert(name.to_owned(), Value::Null),
                    Some(Ok(text)) => map.insert(name.to_owned(), text.into()),
                    Some(Err(bytes)) => map.insert(format!("{name}_hex"), hexadecimal(bytes).into()),
                };
            }
            if let Some(signature) = &l.signature {
                map.insert("signature_hex".to_owned(), hexadecimal(signature).into());
            }
        }
        out
    }

    /// All there is to say of it. Bytes are shown as text where they are text without control characters, unless `hex`.
    pub fn text(&self, topic: &str, hex: bool) -> String {
        let l = &self.letter;
        let time = format_timestamp(l.timestamp);
        let mut out = String::new();
        let mut line = |name: &str, value: &str| out.push_str(&format!("{name:<10} {value}\n"));
        line("from", &format!("{topic} partition {} offset {}", self.lane, l.offset));
        if let Some(row) = l.row {
            line("row", &row.to_string());
        }
        line("timestamp", &time);
        line("reason", l.reason.name());
        line("detail", &printable(&l.detail));
        if let Some(signature) = &l.signature {
            line("signature", &format!("{} B in hexadecimal: {}", signature.len(), hexadecimal(signature)));
        }
        for (name, bytes) in [("key", &l.key), ("value", &l.value)] {
            match bytes {
                None => line(name, "none"),
                Some(b) => match std::str::from_utf8(b).ok().filter(|t| !hex && !t.contains(control)) {
                    Some(text) => line(name, text),
                    None => line(name, &format!("{} B in hexadecimal: {}", b.len(), hexadecimal(b))),
                },
            }
        }
        out
    }
}

fn control(c: char) -> bool {
    c.is_control() && c != '\n' && c != '\t'
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// A text that came from a device, for a terminal.
pub fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

/// Gives each letter of a pipeline's state that is meant to `take`, lane by lane, in the order in which they died. Letters are
/// not held in memory.
///
/// # Errors
/// [`DeadError`].
pub fn each<E: From<DeadError>>(
    state: &Path,
    filter: &Filter,
    mut take: impl FnMut(Letter) -> Result<(), E>,
) -> Result<(), E> {
    let lanes = lane_dirs(state).map_err(|source| DeadError::File { path: state.to_owned(), source })?;
    if lanes.is_empty() {
        return Err(DeadError::NoState { dir: state.to_owned() }.into());
    }
    for (lane, dir) in lanes {
        let reader = LaneReader::open_read_only(&dir).map_err(DeadError::from)?;
        let mut number = 0;
        loop {
            let letters = reader.dead_letters(number, AT_ONCE).map_err(DeadError::from)?;
            if letters.is_empty() {
                break;
            }
            for letter in letters {
                if filter.takes(&letter) {
                    take(Letter { lane, number, letter })?;
                }
                number += 1;
            }
        }
    }
    Ok(())
}
