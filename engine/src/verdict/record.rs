//! A verdict with its evidence, as the log's segments hold it.

use super::{Evidence, Hash32, Verdict};
use crate::codec::{CodecError, Reader, Writer};

const MAGIC: &[u8; 8] = b"avouchV1";

/// One entry of the verdict log together with everything needed to recompute it.
#[derive(Debug, Clone, PartialEq)]
pub struct VerdictRecord {
    /// Index in its log, from 0.
    pub index: u64,
    /// What is hashed into the log.
    pub verdict: Verdict,
    /// What it rests on.
    pub evidence: Evidence,
}

impl VerdictRecord {
    /// The log entry: [`Verdict::struct_hash`].
    pub fn entry(&self) -> Hash32 {
        self.verdict.struct_hash()
    }

    /// The canonical bytes (see [`crate::codec`]): index, the verdict's fields, then the evidence.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.write(&mut out);
        out
    }

    /// Appends [`VerdictRecord::to_bytes`].
    pub fn write(&self, out: &mut Vec<u8>) {
        let v = &self.verdict;
        let mut w = Writer::after(std::mem::take(out));
        w.raw(MAGIC);
        w.u64(self.index);
        w.raw(&v.device_id);
        w.u64(v.seq);
        w.u64(v.window_start);
        w.u64(v.window_end);
        w.raw(&v.model_hash);
        w.raw(&v.config_hash);
        w.raw(&v.input_digest);
        w.i64(v.score_e6);
        w.u8(v.severity);
        w.u16(v.class);
        w.raw(&v.evidence_hash);
        w.raw(&v.salt);
        w.nested(|w| self.evidence.write(w));
        *out = w.bytes;
    }

    /// Reads what [`VerdictRecord::to_bytes`] wrote. Whether the evidence belongs to the verdict is the reader's to check.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, CodecError> {
        let mut r = Reader::new("verdict record", bytes);
        let magic: [u8; 8] = r.array()?;
        if &magic != MAGIC {
            return Err(r.invalid("these bytes are not a verdict record of version 1"));
        }
        let index = r.u64()?;
        let verdict = Verdict {
            device_id: r.array()?,
            seq: r.u64()?,
            window_start: r.u64()?,
            window_end: r.u64()?,
            model_hash: r.array()?,
            config_hash: r.array()?,
            input_digest: r.array()?,
            score_e6: r.i64()?,
            severity: r.u8()?,
            class: r.u16()?,
            evidence_hash: r.array()?,
            salt: r.array()?,
        };
        let evidence = Evidence::from_bytes(r.bytes()?)?;
        r.finish()?;
        Ok(Self { index, verdict, evidence })
    }
}

/// What stands in a record's place once it was erased: its entry, so that the log stays what it was, and nothing of what was decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tombstone {
    /// Index in the log.
    pub index: u64,
    /// The log entry that the record had. Without its salt nobody finds the record that it is the hash of.
    pub entry: Hash32,
}

impl Tombstone {
    const MAGIC: &[u8; 8] = b"avouchX1";

    /// Its bytes without what pads them.
    pub const LEN: usize = 8 + 8 + 32;

    /// Its bytes, with zeros behind them up to `len` bytes, the length of the record it stands for.
    pub fn to_bytes(self, len: usize) -> Vec<u8> {
        let mut w = Writer::with_capacity(len.max(Self::LEN));
        w.raw(Self::MAGIC);
        w.u64(self.index);
        w.raw(&self.entry);
        w.bytes.resize(len.max(Self::LEN), 0);
        w.bytes
    }

    fn from_bytes(bytes: &[u8]) -> Result<Self, CodecError> {
        let mut r = Reader::new("erased record", bytes);
        r.raw(Self::MAGIC.len())?;
        let stone = Self { index: r.u64()?, entry: r.array()? };
        if r.raw(r.remaining())?.iter().any(|b| *b != 0) {
            return Err(r.invalid("something stands behind it"));
        }
        r.finish()?;
        Ok(stone)
    }
}

/// What stands in the log at an index. Whoever reads a log decides what an erased record means to him.
// Nearly all are records: a box for each would only cost.
#[allow(clippy::large_enum_variant)]
#[derive(Debug, Clone, PartialEq)]
pub enum Logged {
    /// The record.
    Record(VerdictRecord),
    /// It was erased.
    Erased(Tombstone),
}

impl Logged {
    /// Reads what [`VerdictRecord::to_bytes`] or [`Tombstone::to_bytes`] wrote.
    ///
    /// # Errors
    /// When it is neither.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, CodecError> {
        if bytes.starts_with(Tombstone::MAGIC) {
            return Tombstone::from_bytes(bytes).map(Self::Erased);
        }
        VerdictRecord::from_bytes(bytes).map(Self::Record)
    }

    /// Its bytes. Those of an erased record are as short as they can be.
    pub fn to_bytes(&self) -> Vec<u8> {
        match self {
            Logged::Record(record) => record.to_bytes(),
            Logged::Erased(stone) => stone.to_bytes(0),
        }
    }

    /// Index in the log, as it says itself.
    pub fn index(&self) -> u64 {
        match self {
            Logged::Record(record) => record.index,
            Logged::Erased(stone) => stone.index,
        }
    }

    /// The log entry: made from the record, or what its tombstone says.
    pub fn entry(&self) -> Hash32 {
        match self {
            Logged::Record(record) => record.entry(),
            Logged::Erased(stone) => stone.entry,
        }
    }

    /// The record, if it was not erased.
    pub fn record(&self) -> Option<&VerdictRecord> {
        match self {
            Logged::Record(record) => Some(record),
            Logged::Erased(_) => None,
        }
    }

    /// The record itself, if it was not erased.
    pub fn into_record(self) -> Option<VerdictRecord> {
        match self {
            Logged::Record(record) => Some(record),
            Logged::Erased(_) => None,
        }
    }

    /// Whether it was erased.
    pub fn is_erased(&self) -> bool {
        matches!(self, Logged::Erased(_))
    }
}
