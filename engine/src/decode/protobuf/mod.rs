//! Protobuf messages by a descriptor set.
//!
//! [`MessagePlan`] resolves the pipeline's fields against the message's descriptor once, into a table by field number;
//! [`ProtobufDecoder`] walks a message and puts what the table names into slots.
//!
//! What is absent from a message: a field with presence (`optional`, one of a `oneof`, a message, everything in proto2) is
//! null; a field without (proto3's plain scalars) has its type's default, as the language says: 0, false, empty text, the
//! first name of an enum. Defaults declared in proto2 are not applied. A wrapper (`google.protobuf.DoubleValue` and its
//! like) is its value or null. A field that stands twice has its last value; repeated fields and maps cannot be named.
//!
//! Protobuf's wire tells only the width of a value. A producer's change between types of one width (`double` to `fixed64`) cannot
//! be seen; any other is a dead letter that names the field.

mod descriptor;
mod wire;

use std::sync::Arc;

pub use descriptor::{DescriptorError, MessagePlan};
use descriptor::{Entry, Kind, Table, Take};
use wire::{Cursor, WireType};

use super::timestamp::{MAX_TIMESTAMP_MS, parse_timestamp};
use super::{RowDecoder, RowError, Slot, check_required, excerpt, unfit};
use crate::spec::{FieldSpec, FieldType, Framing};

/// Decodes messages of one plan.
#[derive(Debug, Clone)]
pub struct ProtobufDecoder {
    plan: Arc<MessagePlan>,
    slots: Vec<Slot>,
    scratch: Vec<u8>,
}

impl ProtobufDecoder {
    /// A decoder of this plan.
    pub fn new(plan: Arc<MessagePlan>) -> Self {
        Self { slots: plan.absent.clone(), scratch: Vec::new(), plan }
    }
}

impl RowDecoder for ProtobufDecoder {
    #[inline]
    fn slots(&self) -> &[Slot] {
        &self.slots
    }

    #[inline]
    fn text<'a>(&'a self, payload: &'a [u8], slot: Slot) -> &'a [u8] {
        match slot {
            Slot::Text { start, end } => &payload[start as usize..end as usize],
            Slot::Unescaped { start, end } => &self.scratch[start as usize..end as usize],
            _ => &[],
        }
    }

    fn decode(&mut self, payload: &[u8]) -> Result<(), RowError> {
        if u32::try_from(payload.len()).is_err() {
            return Err(RowError::undecodable("the value is larger than 4 GiB"));
        }
        let plan = &*self.plan;
        self.slots.copy_from_slice(&plan.absent);
        self.scratch.clear();
        self.scratch.extend_from_slice(&plan.absent_text);
        let mut cursor = Cursor { bytes: payload, at: 0, end: payload.len() };
        if plan.framing == Framing::Confluent {
            frame(&mut cursor, &plan.path)?;
        }
        let mut row =
            Row { fields: &plan.fields, tables: &plan.tables, slots: &mut self.slots, scratch: &mut self.scratch };
        row.message(&plan.tables[0], &mut cursor)?;
        check_required(&plan.fields, &self.slots)
    }
}

/// Passes over Confluent's frame: a zero byte, a schema id, and the path of the message in its file.
fn frame(c: &mut Cursor<'_>, path: &[i64]) -> Result<(), RowError> {
    let head = c.take(5, "the schema id before the message")?;
    if head[0] != 0 {
        return Err(RowError::undecodable(format!(
            "the value begins with byte {:#04x}, not with the zero byte before a schema id",
            head[0]
        )));
    }
    let zigzag = |n: u64| (n >> 1) as i64 ^ -((n & 1) as i64);
    let count = zigzag(c.varint()?);
    // No index at all is short for the file's first message.
    let same = if count == 0 {
        path == [0]
    } else {
        let mut same = usize::try_from(count).is_ok_and(|n| n == path.len());
        if same {
            for expected in path {
                same &= zigzag(c.varint()?) == *expected;
            }
        }
        same
    };
    if same { Ok(()) } else { Err(RowError::schema("the record holds another message of the schema")) }
}

struct Row<'r> {
    fields: &'r [FieldSpec],
    tables: &'r [Table],
    slots: &'r mut [Slot],
    scratch: &'r mut Vec<u8>,
}

impl Row<'_> {
    fn message(&mut self, table: &Table, c: &mut Cursor<'_>) -> Result<(), RowError> {
        // Fields mostly come in the order of their numbers.
        let mut guess = 0;
        while c.at < c.end {
            let (number, wire) = c.tag()?;
            let place = match table.entries.get(guess) {
                Some(e) if e.number == number => Some(guess),
                _ => table.entries.binary_search_by_key(&number, |e| e.number).ok(),
            };
            let Some(place) = place else {
                c.skip(number, wire, 0)?;
                continue;
            };
            guess = place + 1;
            let entry = &table.entries[place];
            if wire != entry.wire {
                return Err(self.other_type(entry, wire));
            }
            match entry.take {
                Take::Field(i) => self.field(entry, i, c)?,
                Take::Message(t) => {
                    let mut inner = c.message("a message")?;
                    let table = &self.tables[t];
                    self.present(table);
                    // Tables are made of the names the pipeline gives, so they nest no deeper than those do.
                    self.message(table, &mut inner)?;
                }
            }
        }
        Ok(())
    }

    /// A nested message is there: what of it has no presence of its own takes its default, unless it was seen already.
    fn present(&mut self, table: &Table) {
        for (i, slot) in &table.defaults {
            if self.slots[*i] == Slot::Missing {
                self.slots[*i] = *slot;
            }
        }
    }

    #[inline]
    fn field(&mut self, e: &Entry, i: usize, c: &mut Cursor<'_>) -> Result<(), RowError> {
        let field = &self.fields[i];
        let zigzag = |n: u64| (n >> 1) as i64 ^ -((n & 1) as i64);
        self.slots[i] = match &e.kind {
            Kind::Double => real(field, f64::from_le_bytes(c.array("a double")?))?,
            Kind::Float => real(field, f64::from(f32::from_le_bytes(c.array("a float")?)))?,
            // Negative numbers of 32 bits are sent as 64; what is beyond 32 bits is cut off, as the language says.
            Kind::Int32 => signed(field, i64::from(c.varint()? as i32))?,
            Kind::Int64 => signed(field, c.varint()? as i64)?,
            Kind::Uint32 => signed(field, i64::from(c.varint()? as u32))?,
            Kind::Uint64 => unsigned(field, c.varint()?)?,
            Kind::Sint32 => signed(field, zigzag(u64::from(c.varint()? as u32)))?,
            Kind::Sint64 => signed(field, zigzag(c.varint()?))?,
            Kind::Fixed32 => signed(field, i64::from(u32::from_le_bytes(c.array("a fixed32")?)))?,
            Kind::Sfixed32 => signed(field, i64::from(i32::from_le_bytes(c.array("an sfixed32")?)))?,
            Kind::Fixed64 => unsigned(field, u64::from_le_bytes(c.array("a fixed64")?))?,
            Kind::Sfixed64 => signed(field, i64::from_le_bytes(c.array("an sfixed64")?))?,
            Kind::Bool => Slot::Bool(c.varint()? != 0),
            Kind::Text => {
                let text = c.run("text")?;
                if simdutf8::basic::from_utf8(text).is_err() {
                    return Err(unfit(field, "bytes that are not UTF-8"));
                }
                match field.ty {
                    FieldType::Utf8 => Slot::Text { start: (c.at - text.len()) as u32, end: c.at as u32 },
                    _ => match parse_timestamp(text) {
                        Some(ms) if (0..=MAX_TIMESTAMP_MS).contains(&ms) => Slot::Timestamp(ms),
                        _ => return Err(unfit(field, excerpt(text))),
                    },
                }
            }
            Kind::Enum(names) => {
                let number = c.varint()? as i32;
                match field.ty {
                    FieldType::Utf8 => match names.iter().find(|(n, _)| *n == number) {
                        Some((_, name)) => {
                            let start = self.scratch.len() as u32;
                            self.scratch.extend_from_slice(name.as_bytes());
                            Slot::Unescaped { start, end: self.scratch.len() as u32 }
                        }
                        None => {
                            let found = format!("number {number}, for which the enum has no name");
                            return Err(unfit(field, found));
                        }
                    },
                    _ => signed(field, i64::from(number))?,
                }
            }
            Kind::Timestamp => timestamp(field, c.message("a Timestamp")?)?,
        };
        Ok(())
    }

    #[cold]
    fn other_type(&self, entry: &Entry, found: WireType) -> RowError {
        RowError::schema(format!(
            "field \"{}\": {} expected (field {} is {} on the wire), found {}",
            entry.name,
            entry.declared,
            entry.number,
            entry.wire.name(),
            found.name()
        ))
    }
}

#[inline]
fn real(field: &FieldSpec, v: f64) -> Result<Slot, RowError> {
    if v.is_finite() { Ok(Slot::F64(v)) } else { Err(unfit(field, v)) }
}

#[inline]
fn signed(field: &FieldSpec, v: i64) -> Result<Slot, RowError> {
    match field.ty {
        FieldType::F64 => Ok(Slot::F64(v as f64)),
        FieldType::TimestampMs if (0..=MAX_TIMESTAMP_MS).contains(&v) => Ok(Slot::Timestamp(v)),
        FieldType::TimestampMs => Err(unfit(field, v)),
        _ => Ok(Slot::I64(v)),
    }
}

#[inline]
fn unsigned(field: &FieldSpec, v: u64) -> Result<Slot, RowError> {
    match (field.ty, i64::try_from(v)) {
        (FieldType::F64, _) => Ok(Slot::F64(v as f64)),
        (_, Ok(v)) => signed(field, v),
        (_, Err(_)) => Err(unfit(field, v)),
    }
}

/// A `google.protobuf.Timestamp`: seconds (field 1) and nanoseconds (field 2).
fn timestamp(field: &FieldSpec, mut c: Cursor<'_>) -> Result<Slot, RowError> {
    let (mut seconds, mut nanos) = (0i64, 0i32);
    while c.at < c.end {
        match c.tag()? {
            (1, WireType::Varint) => seconds = c.varint()? as i64,
            (2, WireType::Varint) => nanos = c.varint()? as i32,
            (number, wire) => c.skip(number, wire, 0)?,
        }
    }
    let ms = seconds.checked_mul(1000).and_then(|s| s.checked_add(i64::from(nanos.div_euclid(1_000_000))));
    match ms {
        Some(ms) if (0..=MAX_TIMESTAMP_MS).contains(&ms) && (0..1_000_000_000).contains(&nanos) => {
            Ok(Slot::Timestamp(ms))
        }
        _ => Err(unfit(field, format!("a Timestamp of {seconds} s and {nanos} ns"))),
    }
}

#[cfg(test)]
mod tests;
