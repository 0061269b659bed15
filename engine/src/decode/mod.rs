//! From the bytes of a record to typed field values, without allocating per row.
//!
//! A decoder fills one [`Slot`] a field; [`crate::ingest`] admits the row by its event time and only then appends the
//! slots to Arrow builders, so a row that dies leaves no trace in the batch.

mod json;
mod number;
mod timestamp;

pub use json::JsonDecoder;
pub use timestamp::{MAX_TIMESTAMP_MS, format_timestamp, parse_timestamp};

use crate::dead_letter::DeadReason;

/// A record as the source hands it over; everything is borrowed.
#[derive(Debug, Clone, Copy)]
pub struct RawRecord<'a> {
    /// Offset in the source partition; strictly increasing from record to record.
    pub offset: i64,
    /// The record's broker timestamp, milliseconds since the epoch.
    pub timestamp: i64,
    /// Key.
    pub key: Option<&'a [u8]>,
    /// Value.
    pub value: Option<&'a [u8]>,
}

/// A decoded field value. Text is a range of the payload, or of the decoder's unescaped scratch text.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Slot {
    /// The payload has no such field.
    Missing,
    /// It is null.
    Null,
    /// `bool`.
    Bool(bool),
    /// `i64`.
    I64(i64),
    /// `f64`, always finite.
    F64(f64),
    /// `timestamp_ms`.
    Timestamp(i64),
    /// `utf8`: bytes `start..end` of the payload.
    Text {
        /// First byte.
        start: u32,
        /// One past the last byte.
        end: u32,
    },
    /// `utf8` that had escapes: bytes `start..end` of the scratch text.
    Unescaped {
        /// First byte.
        start: u32,
        /// One past the last byte.
        end: u32,
    },
}

/// Why a row cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowError {
    /// The reason it is counted under.
    pub reason: DeadReason,
    /// What exactly, for a person.
    pub detail: String,
}

impl RowError {
    pub(crate) fn undecodable(detail: impl Into<String>) -> Self {
        Self { reason: DeadReason::Undecodable, detail: detail.into() }
    }
    pub(crate) fn schema(detail: impl Into<String>) -> Self {
        Self { reason: DeadReason::Schema, detail: detail.into() }
    }
}
