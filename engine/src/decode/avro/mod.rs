//! Avro records in Confluent framing.
//!
//! A record says only which schema it was written with, by a number that a registry gives out; the engine has no I/O, so
//! it is told ([`AvroDecoder::learn`]) and says which it needs ([`AvroDecoder::schema_needed`]). The writer's schema is
//! resolved against the pipeline's fields once and gives a list of steps, which is then followed for every record.
//!
//! `arrow-avro` decodes whole batches into columns. It is not used here because one bad record leaves its columns of
//! unequal length (the good records before it are lost), because text is checked only when the batch ends, and because it
//! trusts the counts of arrays whose items take no bytes. It is what the tests compare with.

mod body;
mod plan;
mod schema;

use body::Cursor;
use plan::Plan;
use schema::Schema;

use super::{RowDecoder, RowError, Slot, check_required};
use crate::spec::FieldSpec;

/// What a schema registry says of an id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SchemaAnswer<'a> {
    /// The schema: Avro's JSON.
    Avro(&'a [u8]),
    /// There is a schema, but it cannot be used; the text says why.
    Unusable(&'a str),
    /// There is none of this id.
    Unknown,
}

/// How records of one schema id fare.
#[derive(Debug, Clone)]
enum Known {
    Plan(Box<Plan>),
    /// All of them die of this.
    Refused(RowError),
}

/// Decodes records of one pipeline's fields, whatever schema each was written with.
#[derive(Debug, Clone)]
pub struct AvroDecoder {
    fields: Vec<FieldSpec>,
    slots: Vec<Slot>,
    scratch: Vec<u8>,
    /// By id, in the order of learning; there are few.
    known: Vec<(u32, Known)>,
    /// The place of the id seen last: a guess that only saves time.
    last: usize,
}

/// The schema id of a framed record.
fn schema_id(payload: &[u8]) -> Option<u32> {
    match payload {
        [0, a, b, c, d, ..] => Some(u32::from_be_bytes([*a, *b, *c, *d])),
        _ => None,
    }
}

impl AvroDecoder {
    /// A decoder for these fields, which knows no schema.
    pub fn new(fields: &[FieldSpec]) -> Self {
        Self {
            fields: fields.to_vec(),
            slots: vec![Slot::Missing; fields.len()],
            scratch: Vec::new(),
            known: Vec::new(),
            last: 0,
        }
    }

    /// The id of the schema that a record was written with, if it is not known yet.
    #[inline]
    pub fn schema_needed(&self, payload: &[u8]) -> Option<u32> {
        let id = schema_id(payload)?;
        match self.known.get(self.last) {
            Some((last, _)) if *last == id => None,
            _ => self.known.iter().all(|(k, _)| *k != id).then_some(id),
        }
    }

    /// Takes the registry's answer for an id; a later answer replaces an earlier one.
    pub fn learn(&mut self, id: u32, answer: SchemaAnswer<'_>) {
        let unusable =
            |why: &str| RowError::undecodable(format!("the schema {id} of the record cannot be used: {why}"));
        let known = match answer {
            SchemaAnswer::Unknown => {
                Known::Refused(RowError::undecodable(format!("the schema registry has no schema {id}")))
            }
            SchemaAnswer::Unusable(why) => Known::Refused(unusable(why)),
            SchemaAnswer::Avro(json) => match Schema::parse(json) {
                Err(why) => Known::Refused(unusable(&why)),
                Ok(schema) => match Plan::new(schema, &self.fields) {
                    Ok(plan) => Known::Plan(Box::new(plan)),
                    Err(why) => Known::Refused(RowError::schema(format!("{why} (schema {id} of the writer)"))),
                },
            },
        };
        match self.known.iter_mut().find(|(k, _)| *k == id) {
            Some((_, place)) => *place = known,
            None => self.known.push((id, known)),
        }
    }

    /// Forgets an id, so that it is asked for again.
    pub fn forget(&mut self, id: u32) {
        self.known.retain(|(k, _)| *k != id);
        self.last = 0;
    }
}

impl RowDecoder for AvroDecoder {
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
        let Some(id) = schema_id(payload).filter(|_| u32::try_from(payload.len()).is_ok()) else {
            return Err(unframed(payload));
        };
        if self.known.get(self.last).is_none_or(|(k, _)| *k != id) {
            let Some(place) = self.known.iter().position(|(k, _)| *k == id) else {
                return Err(RowError::undecodable(format!("the schema {id} of the record was not given")));
            };
            self.last = place;
        }
        let plan = match &self.known[self.last].1 {
            Known::Plan(plan) => plan,
            Known::Refused(e) => return Err(e.clone()),
        };
        self.slots.fill(Slot::Missing);
        self.scratch.clear();
        let mut cursor = Cursor { bytes: payload, at: 5 };
        let mut row = body::Row {
            fields: &self.fields,
            slots: &mut self.slots,
            scratch: &mut self.scratch,
            schema: &plan.schema,
        };
        for step in &plan.steps {
            row.step(step, &mut cursor)?;
        }
        if cursor.at != payload.len() {
            return Err(RowError::undecodable(format!(
                "{} bytes are left over after the record of schema {id}",
                payload.len() - cursor.at
            )));
        }
        check_required(&self.fields, &self.slots)
    }
}

#[cold]
fn unframed(payload: &[u8]) -> RowError {
    RowError::undecodable(match payload.first() {
        Some(b'{') => "the value looks like JSON, not like Avro with a schema id before it".to_owned(),
        Some(b'O') if payload.starts_with(b"Obj\x01") => {
            "the value is an Avro container file; send single records with a schema id before each".to_owned()
        }
        Some(0) => format!("the value has {} bytes; a zero byte and a schema id of four are expected", payload.len()),
        Some(b) => format!("the value begins with byte {b:#04x}, not with the zero byte before a schema id"),
        None => "the value is empty".to_owned(),
    })
}

#[cfg(test)]
mod tests;
