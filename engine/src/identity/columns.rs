//! The content of a reading whose signature is one of its fields: its other fields, in a form that does not depend on how
//! they are written.

use sha2::{Digest, Sha256};

use crate::verdict::Hash32;

const TAG: &[u8; 16] = b"avouch/columns/1";

/// A field's value.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Cell<'a> {
    /// Absent, or null.
    Null,
    /// `bool`.
    Bool(bool),
    /// `i64`, and `timestamp_ms` in milliseconds since 1970.
    I64(i64),
    /// `f64`.
    F64(f64),
    /// `utf8`.
    Text(&'a [u8]),
}

/// Appends the canonical bytes: `01`, ASCII `avouch/columns/1`, then for each field that the pipeline names, but the
/// signature's, in the order of their names' bytes: the name (4-byte length, little-endian, and its UTF-8), then one byte,
/// `00` for null, `01` for a value, and the value as in the canonical rows of an input digest: numbers and times in 8 bytes
/// little-endian (`f64` as its bits), `bool` in one, text with its length.
pub(super) fn write<'a>(cells: impl Iterator<Item = (&'a str, Cell<'a>)>, out: &mut Vec<u8>) {
    fn text(bytes: &[u8], out: &mut Vec<u8>) {
        out.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
        out.extend_from_slice(bytes);
    }
    out.push(1);
    out.extend_from_slice(TAG);
    for (name, cell) in cells {
        text(name.as_bytes(), out);
        out.push(u8::from(cell != Cell::Null));
        match cell {
            Cell::Null => {}
            Cell::Bool(v) => out.push(u8::from(v)),
            Cell::I64(v) => out.extend_from_slice(&v.to_le_bytes()),
            Cell::F64(v) => out.extend_from_slice(&v.to_bits().to_le_bytes()),
            Cell::Text(v) => text(v, out),
        }
    }
}

/// The content of these fields, which are sorted by name here: SHA-256 of the canonical bytes.
pub fn columns_content(cells: &[(&str, Cell<'_>)]) -> Hash32 {
    let mut sorted = cells.to_vec();
    sorted.sort_by_key(|(name, _)| *name);
    let mut out = Vec::new();
    write(sorted.into_iter(), &mut out);
    hash(&out)
}

/// The content of canonical bytes.
pub(super) fn hash(canonical: &[u8]) -> Hash32 {
    Sha256::digest(canonical).into()
}
