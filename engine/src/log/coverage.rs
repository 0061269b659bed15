//! Which readings a checkpoint answers for, committed to by its `dataCommitment`.

use sha2::{Digest, Sha256};

use crate::codec::{CodecError, Reader, Writer};
use crate::verdict::Hash32;

const MAGIC: &[u8; 8] = b"avouchC1";

/// The run of source offsets a checkpoint adds to its log: every record at `from_offset <= offset < to_offset` of the
/// partition was read, and the log's entries up to `newSize` are all that its verdicts are. Successive checkpoints of
/// a log leave no gap: one's `to_offset` is the next one's `from_offset`.
///
/// The canonical bytes, to the byte:
///
/// | bytes | what |
/// | --- | --- |
/// | 8 | ASCII `avouchC1` |
/// | 4 | length of the topic's name in bytes, unsigned, little-endian |
/// | that many | the topic's name, UTF-8 |
/// | 4 | partition, two's complement, little-endian |
/// | 8 | `from_offset`, two's complement, little-endian |
/// | 8 | `to_offset`, two's complement, little-endian |
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Coverage {
    /// Source topic.
    pub topic: String,
    /// Source partition, which is the lane.
    pub partition: i32,
    /// The first offset covered.
    pub from_offset: i64,
    /// The first offset no longer covered.
    pub to_offset: i64,
}

impl Coverage {
    /// The canonical bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut w = Writer::new();
        w.raw(MAGIC);
        w.str(&self.topic);
        w.raw(&self.partition.to_le_bytes());
        w.i64(self.from_offset);
        w.i64(self.to_offset);
        w.bytes
    }

    /// Reads what [`Coverage::to_bytes`] wrote.
    ///
    /// # Errors
    /// When the bytes are not exactly that, or the run ends before it begins.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, CodecError> {
        let mut r = Reader::new("coverage", bytes);
        if &r.array::<8>()? != MAGIC {
            return Err(r.invalid("these bytes are not a coverage of version 1"));
        }
        let topic = r.str()?.to_owned();
        let partition = i32::from_le_bytes(r.array()?);
        let from_offset = r.i64()?;
        let to_offset = r.i64()?;
        if to_offset < from_offset {
            return Err(r.invalid(format!("the run of offsets {from_offset}..{to_offset} ends before it begins")));
        }
        r.finish()?;
        Ok(Self { topic, partition, from_offset, to_offset })
    }

    /// SHA-256 of the canonical bytes: the checkpoint's `dataCommitment`.
    pub fn commitment(&self) -> Hash32 {
        Sha256::digest(self.to_bytes()).into()
    }
}

/// [`Coverage::commitment`] of these parts.
pub fn coverage_commitment(topic: &str, partition: i32, from_offset: i64, to_offset: i64) -> Hash32 {
    Coverage { topic: topic.to_owned(), partition, from_offset, to_offset }.commitment()
}
