//! From the bytes of a record to typed field values, without allocating per row.
//!
//! JSON, Avro and Protobuf carry one row a record: their decoders are [`RowDecoder`]s, which fill one [`Slot`] a field;
//! [`crate::ingest`] admits the row by its event time and only then appends the slots to columns, so a row that dies
//! leaves no trace in the batch. An Arrow IPC record carries rows already in columns: [`ArrowDecoder`] appends all of
//! them, and what admission refuses is taken out again.
//!
//! The rules of all formats are the same. Fields that the pipeline does not name are passed over. A nullable field that is
//! absent is null. A field of another type than the pipeline says is a dead letter that names the field and both types.
//!
//! | pipeline | JSON | Avro | Protobuf | Arrow |
//! | --- | --- | --- | --- | --- |
//! | `utf8` | text | string, enum (its symbol), bytes that are UTF-8 | string, enum (its name) | Utf8, LargeUtf8, Utf8View, a dictionary of them |
//! | `bool` | true, false | boolean | bool | Boolean |
//! | `i64` | integer | int, long | every integer type, enum (its number) | every integer type |
//! | `f64` | number | double, float, long, int | double, float, every integer type | Float64, Float32, every integer type |
//! | `timestamp_ms` | integer of ms, RFC 3339 | long with any timestamp type, long of ms, string in RFC 3339 | `google.protobuf.Timestamp`, 64-bit integer of ms, string in RFC 3339 | Timestamp of any unit, Int64 or UInt64 of ms, text in RFC 3339 |
//!
//! An `f64` must be finite. A finer timestamp loses what is beyond milliseconds, always towards the past. A field named
//! `motor.temp` is, in Avro and Protobuf, the field `temp` of the record or message `motor`.

mod arrow_ipc;
mod avro;
mod json;
mod number;
mod protobuf;
mod timestamp;

pub use arrow_ipc::ArrowDecoder;
pub(crate) use arrow_ipc::Fault;
pub use avro::{AvroDecoder, SchemaAnswer};
pub use json::JsonDecoder;
pub use protobuf::{DescriptorError, MessagePlan, ProtobufDecoder};
pub use timestamp::{MAX_TIMESTAMP_MS, format_timestamp, parse_timestamp};

use crate::dead_letter::DeadReason;
use crate::spec::{FieldSpec, FieldType};

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
    /// Where it was copied from, and when, if it was repartitioned.
    pub origin: Option<RecordOrigin>,
    /// What stands in the header that its device's signature is expected in, if the source has one.
    pub signature: Option<&'a [u8]>,
}

/// What a record that was repartitioned says of the copying. Part of the input log, so time judged by it is no clock's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordOrigin {
    /// The partition of the source it is a copy from.
    pub partition: i32,
    /// When it was copied, milliseconds since the epoch.
    pub copied_ms: i64,
}

/// Decodes records of one row. Reused from row to row; holds no state between rows that affects results.
pub trait RowDecoder {
    /// Decodes one payload. On success every required field has a value, and text in slots is valid UTF-8.
    fn decode(&mut self, payload: &[u8]) -> Result<(), RowError>;

    /// The values of the row decoded last, in schema order.
    fn slots(&self) -> &[Slot];

    /// The text of a [`Slot::Text`] or [`Slot::Unescaped`] of the row decoded last; empty for other slots.
    fn text<'a>(&'a self, payload: &'a [u8], slot: Slot) -> &'a [u8];
}

/// A decoded field value. Text is a range of the payload, or of the decoder's scratch text.
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
    /// `utf8` that does not stand in the payload as it is (it had escapes, or is an enum's name): bytes `start..end` of
    /// the scratch text.
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

/// Refuses a row without a required field.
#[inline]
fn check_required(fields: &[FieldSpec], slots: &[Slot]) -> Result<(), RowError> {
    for (field, slot) in fields.iter().zip(slots) {
        if field.required && matches!(slot, Slot::Missing | Slot::Null) {
            let what = if *slot == Slot::Null { "null" } else { "missing" };
            return Err(RowError::schema(format!("field \"{}\" is {what} but required", field.name)));
        }
    }
    Ok(())
}

/// What a field must be, for a person.
fn wanted(ty: FieldType) -> &'static str {
    match ty {
        FieldType::Utf8 => "text (utf8)",
        FieldType::Bool => "true or false (bool)",
        FieldType::I64 => "a 64-bit integer (i64)",
        FieldType::F64 => "a finite number (f64)",
        FieldType::TimestampMs => "milliseconds since 1970 or an RFC 3339 time, between 1970 and 9999 (timestamp_ms)",
    }
}

/// A field whose value is not of its type.
#[cold]
fn unfit(field: &FieldSpec, found: impl std::fmt::Display) -> RowError {
    RowError::schema(format!("field \"{}\": {} expected, found {found}", field.name, wanted(field.ty)))
}

/// A text that is to be shown in a detail: its beginning.
fn excerpt(text: &[u8]) -> String {
    format!("\"{}\"", String::from_utf8_lossy(&text[..text.len().min(40)]).escape_debug())
}
