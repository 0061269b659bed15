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
