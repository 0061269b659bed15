//! The bytes of one Avro record.

use super::plan::Step;
use super::schema::{Node, NodeId, Schema, Unit};
use crate::decode::timestamp::{MAX_TIMESTAMP_MS, parse_timestamp};
use crate::decode::{RowError, Slot, excerpt, unfit};
use crate::spec::FieldSpec;

/// Deepest nesting of values that are passed over.
const MAX_DEPTH: usize = 64;

/// Reads a record's bytes.
pub(super) struct Cursor<'a> {
    pub bytes: &'a [u8],
    pub at: usize,
}

impl<'a> Cursor<'a> {
    #[cold]
    fn truncated(&self, what: &str) -> RowError {
        RowError::undecodable(format!("the record ends at byte {} within {what}", self.bytes.len()))
    }

    #[inline]
    fn take(&mut self, n: usize, what: &str) -> Result<&'a [u8], RowError> {
        match self.at.checked_add(n).and_then(|end| self.bytes.get(self.at..end)) {
            Some(out) => {
                self.at += n;
                Ok(out)
            }
            None => Err(self.truncated(what)),
        }
    }

    #[inline]
    fn array<const N: usize>(&mut self, what: &str) -> Result<[u8; N], RowError> {
        let mut out = [0; N];
        out.copy_from_slice(self.take(N, what)?);
        Ok(out)
    }

    /// A zig-zag integer of at most ten bytes.
    #[inline]
    fn long(&mut self) -> Result<i64, RowError> {
        let mut n = 0u64;
        for i in 0..10 {
            let Some(&b) = self.bytes.get(self.at + i) else { return Err(self.truncated("an integer")) };
            n |= u64::from(b & 0x7f) << (7 * i);
            if b < 0x80 {
                if i == 9 && b > 1 {
                    break;
                }
                self.at += i + 1;
                return Ok((n >> 1) as i64 ^ -((n & 1) as i64));
            }
        }
        Err(RowError::undecodable(format!("the integer at byte {} has more than 64 bits", self.at)))
    }

    /// The bytes of a string or bytes value.
    #[inline]
    fn run(&mut self, what: &str) -> Result<&'a [u8], RowError> {
        let at = self.at;
        let n = self.long()?;
        match usize::try_from(n) {
            Ok(n) => self.take(n, what),
            Err(_) => Err(RowError::undecodable(format!("a length of {n} at byte {at}"))),
        }
    }

    fn branch(&mut self, branches: usize) -> Result<usize, RowError> {
        let at = self.at;
        let n = self.long()?;
        match usize::try_from(n) {
            Ok(n) if n < branches => Ok(n),
            _ => Err(RowError::undecodable(format!("branch {n} of a union of {branches} at byte {at}"))),
        }
    }
}

/// The row being decoded.
pub(super) struct Row<'r> {
    pub fields: &'r [FieldSpec],
    pub slots: &'r mut [Slot],
    pub scratch: &'r mut Vec<u8>,
    pub schema: &'r Schema,
}

impl Row<'_> {
    #[inline]
    pub fn step(&mut self, step: &Step, c: &mut Cursor<'_>) -> Result<(), RowError> {
        match step {
            Step::Double(i) => self.float(*i, f64::from_le_bytes(c.array("a double")?)),
            Step::Float(i) => self.float(*i, f64::from(f32::from_le_bytes(c.array("a float")?))),
            Step::Whole(i) => {
                self.slots[*i] = Slot::F64(c.long()? as f64);
                Ok(())
            }
            Step::Integer(i) => {
                self.slots[*i] = Slot::I64(c.long()?);
                Ok(())
            }
            Step::Time(i, unit) => {
                let n = c.long()?;
                let ms = match unit {
                    Unit::Millis => n,
                    Unit::Micros => n.div_euclid(1_000),
                    Unit::Nanos => n.div_euclid(1_000_000),
                };
                if !(0..=MAX_TIMESTAMP_MS).contains(&ms) {
                    return Err(unfit(&self.fields[*i], n));
                }
                self.slots[*i] = Slot::Timestamp(ms);
                Ok(())
            }
            Step::Text(i) => {
                let text = c.run("text")?;
                if simdutf8::basic::from_utf8(text).is_err() {
                    return Err(unfit(&self.fields[*i], "bytes that are not UTF-8"));
                }
                self.slots[*i] = Slot::Text { start: (c.at - text.len()) as u32, end: c.at as u32 };
                Ok(())
            }
            Step::Bool(i) => match c.take(1, "a boolean")? {
                [b @ (0 | 1)] => {
                    self.slots[*i] = Slot::Bool(*b == 1);
                    Ok(())
                }
                other => Err(RowError::undecodable(format!("a boolean of {other:02x?} at byte {}", c.at - 1))),
            },
            Step::Union(branches) => {
                let b = c.branch(branches.len())?;
                self.step(&branches[b], c)
            }
            Step::Null(fields) => {
                fields.iter().for_each(|i| self.slots[*i] = Slot::Null);
                Ok(())
            }
            Step::Record(steps) => {
                for step in steps {
                    self.step(step, c)?;
                }
                Ok(())
            }
            Step::TextTime(i) => {
                let text = c.run("text")?;
                match parse_timestamp(text) {
                    Some(ms) if (0..=MAX_TIMESTAMP_MS).contains(&ms) => {
                        self.slots[*i] = Slot::Timestamp(ms);
                        Ok(())
                    }
                    _ => Err(unfit(&self.fields[*i], excerpt(text))),
                }
            }
            Step::Symbol(i, symbols) => {
                let n = c.branch(symbols.len())?;
                let start = self.scratch.len() as u32;
                self.scratch.extend_from_slice(symbols[n].as_bytes());
                self.slots[*i] = Slot::Unescaped { start, end: self.scratch.len() as u32 };
                Ok(())
            }
            Step::Skip(node) => self.skip(*node, c, 0),
            Step::Refuse(_, why) => Err(RowError::schema(why.clone())),
        }
    }

    #[inline]
    fn float(&mut self, i: usize, v: f64) -> Result<(), RowError> {
        if !v.is_finite() {
            return Err(unfit(&self.fields[i], v));
        }
        self.slots[i] = Slot::F64(v);
        Ok(())
    }

    fn skip(&self, id: NodeId, c: &mut Cursor<'_>, depth: usize) -> Result<(), RowError> {
        if depth > MAX_DEPTH {
            return Err(RowError::undecodable(format!("nested deeper than {MAX_DEPTH} levels at byte {}", c.at)));
        }
        if self.schema.empty[id] {
            // Nothing to pass over, and not to be walked either: records of empty records can fan out without end.
            return Ok(());
        }
        match &self.schema.nodes[id] {
            Node::Open | Node::Null => {}
            Node::Boolean => {
                c.take(1, "a boolean")?;
            }
            Node::Int | Node::Long(_) | Node::Enum(_) => {
                c.long()?;
            }
            Node::Float => {
                c.take(4, "a float")?;
            }
            Node::Double => {
                c.take(8, "a double")?;
            }
            Node::Bytes | Node::String => {
                c.run("bytes")?;
            }
            Node::Fixed(n) => {
                c.take(*n, "a fixed")?;
            }
            Node::Union(branches) => {
                let b = c.branch(branches.len())?;
                self.skip(branches[b], c, depth + 1)?;
            }
            Node::Record(fields) => {
                for (_, node) in fields {
                    self.skip(*node, c, depth + 1)?;
                }
            }
            Node::Array(items) => self.blocks(*items, false, c, depth)?,
            Node::Map(values) => self.blocks(*values, true, c, depth)?,
        }
        Ok(())
    }

    /// The blocks of an array or map. Every pass takes at least a byte, so the record's length bounds the work.
    fn blocks(&self, items: NodeId, keys: bool, c: &mut Cursor<'_>, depth: usize) -> Result<(), RowError> {
        loop {
            let count = c.long()?;
            if count == 0 {
                return Ok(());
            }
            if count < 0 {
                // The block's size in bytes follows.
                c.run("a block of an array or map")?;
                continue;
            }
            if !keys && self.schema.empty[items] {
                continue;
            }
            for _ in 0..count {
                if keys {
                    c.run("a map's key")?;
                }
                self.skip(items, c, depth + 1)?;
            }
        }
    }
}
