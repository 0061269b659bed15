//! Which offset had been read when the log had which size: what coverage commitments are made from.

use avouch_engine::verdict::Hash32;

use super::frame::crc32;

/// Bytes of a row.
pub(super) const ROW: u64 = 64;

/// The first checkpoint that gave the log its size. Later checkpoints of the same size add no row, so that the offset
/// that belongs to a size never changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HistoryRow {
    /// Number of the checkpoint.
    pub seq: u64,
    /// Entries of the log.
    pub log_size: u64,
    /// Offset of the first source record not read by then.
    pub next_offset: i64,
    /// Root of the log.
    pub root: Hash32,
}

impl HistoryRow {
    pub(super) fn to_bytes(self) -> [u8; ROW as usize] {
        let mut out = [0; ROW as usize];
        out[..8].copy_from_slice(&self.seq.to_le_bytes());
        out[8..16].copy_from_slice(&self.log_size.to_le_bytes());
        out[16..24].copy_from_slice(&self.next_offset.to_le_bytes());
        out[24..56].copy_from_slice(&self.root);
        let crc = crc32(&out[..56]);
        out[56..60].copy_from_slice(&crc.to_le_bytes());
        out
    }

    pub(super) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let eight = |at: usize| -> Option<[u8; 8]> { bytes.get(at..at + 8)?.try_into().ok() };
        let row = Self {
            seq: u64::from_le_bytes(eight(0)?),
            log_size: u64::from_le_bytes(eight(8)?),
            next_offset: i64::from_le_bytes(eight(16)?),
            root: bytes.get(24..56)?.try_into().ok()?,
        };
        (row.to_bytes() == bytes).then_some(row)
    }
}
