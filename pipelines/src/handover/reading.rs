//! One record of the source, as the lane read it.

use avouch_engine::codec::{CodecError, Reader, Writer};
use avouch_engine::decode::{RawRecord, RecordOrigin};

const MAGIC: u8 = 1;
const KEY: u8 = 1;
const VALUE: u8 = 2;
const ORIGIN: u8 = 4;
const SIGNATURE: u8 = 8;

/// A record of the source, owned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reading {
    /// Its offset.
    pub offset: i64,
    /// The broker's timestamp, milliseconds since the epoch.
    pub timestamp: i64,
    /// Its key.
    pub key: Option<Vec<u8>>,
    /// Its value.
    pub value: Option<Vec<u8>>,
    /// Where it was copied from, if it was repartitioned.
    pub origin: Option<RecordOrigin>,
    /// What stands in the header of its device's signature.
    pub signature: Option<Vec<u8>>,
}

impl Reading {
    /// The bytes of a record: a mark, what parts there are, then the fields in the order of their declaration.
    pub fn write(record: &RawRecord<'_>, out: &mut Vec<u8>) {
        let mut w = Writer::after(std::mem::take(out));
        w.u8(MAGIC);
        let part = |there: bool, bit| if there { bit } else { 0 };
        w.u8(part(record.key.is_some(), KEY)
            | part(record.value.is_some(), VALUE)
            | part(record.origin.is_some(), ORIGIN)
            | part(record.signature.is_some(), SIGNATURE));
        w.i64(record.offset);
        w.i64(record.timestamp);
        for bytes in [record.key, record.value, record.signature].into_iter().flatten() {
            w.bytes(bytes);
        }
        if let Some(origin) = record.origin {
            w.u32(origin.partition as u32);
            w.i64(origin.copied_ms);
        }
        *out = w.bytes;
    }

    /// Reads what [`Reading::write`] wrote.
    ///
    /// # Errors
    /// When the bytes are not exactly that.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, CodecError> {
        let mut r = Reader::new("reading", bytes);
        if r.u8()? != MAGIC {
            return Err(r.invalid("these bytes are not a reading of version 1"));
        }
        let parts = r.u8()?;
        if parts > KEY | VALUE | ORIGIN | SIGNATURE {
            return Err(r.invalid(format!("a reading with the unknown parts {parts}")));
        }
        let (offset, timestamp) = (r.i64()?, r.i64()?);
        let mut part = |bit: u8| -> Result<Option<Vec<u8>>, CodecError> {
            if parts & bit == 0 { Ok(None) } else { Ok(Some(r.bytes()?.to_vec())) }
        };
        let (key, value, signature) = (part(KEY)?, part(VALUE)?, part(SIGNATURE)?);
        let origin = match parts & ORIGIN {
            0 => None,
            _ => Some(RecordOrigin { partition: r.u32()? as i32, copied_ms: r.i64()? }),
        };
        r.finish()?;
        Ok(Self { offset, timestamp, key, value, origin, signature })
    }

    /// As the lane takes it.
    pub fn record(&self) -> RawRecord<'_> {
        RawRecord {
            offset: self.offset,
            timestamp: self.timestamp,
            key: self.key.as_deref(),
            value: self.value.as_deref(),
            origin: self.origin,
            signature: self.signature.as_deref(),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn is_read_back_as_it_was() {
        let origins = [None, Some(RecordOrigin { partition: -1, copied_ms: 12 })];
        for (key, value) in [(None, None), (Some(&b"k"[..]), None), (None, Some(&b""[..])), (Some(b"k"), Some(b"{}"))] {
            for (origin, signature) in origins.into_iter().zip([None, Some(&b"sig"[..])]) {
                let record = RawRecord { offset: 9, timestamp: -4, key, value, origin, signature };
                let mut bytes = Vec::new();
                Reading::write(&record, &mut bytes);
                let reading = Reading::from_bytes(&bytes).unwrap();
                let back = reading.record();
                assert_eq!(
                    (back.offset, back.timestamp, back.key, back.value, back.origin, back.signature),
                    (9, -4, key, value, origin, signature)
                );
                for cut in 0..bytes.len() {
                    assert!(Reading::from_bytes(&bytes[..cut]).is_err());
                }
                bytes.push(0);
                assert!(Reading::from_bytes(&bytes).is_err());
            }
        }
    }
}
