//! Groups of records: writing and checking their bytes.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use super::{JournalError, Result, failed};
use crate::store::crc32;

pub(super) const HEADER: usize = 32;
const MAGIC: &[u8; 4] = b"AVJ1";
/// What stands before topic and value of a record.
pub(super) const RECORD: usize = 16;

/// A group's header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Group {
    pub len: u32,
    pub first: i64,
    pub count: u32,
    pub session: u32,
    crc: u32,
}

fn u32_at(b: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([b[at], b[at + 1], b[at + 2], b[at + 3]])
}

fn i64_at(b: &[u8], at: usize) -> i64 {
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&b[at..at + 8]);
    i64::from_le_bytes(bytes)
}

/// Writes the header of a payload that stands behind `HEADER` bytes of room at the start of `bytes`.
pub(super) fn seal(bytes: &mut [u8], first: i64, count: u32, session: u32) {
    let crc = crc32(&bytes[HEADER..]);
    let len = (bytes.len() - HEADER) as u32;
    bytes[..4].copy_from_slice(MAGIC);
    bytes[4..8].copy_from_slice(&len.to_le_bytes());
    bytes[8..16].copy_from_slice(&first.to_le_bytes());
    bytes[16..20].copy_from_slice(&count.to_le_bytes());
    bytes[20..24].copy_from_slice(&session.to_le_bytes());
    bytes[24..28].copy_from_slice(&crc.to_le_bytes());
    let crc = crc32(&bytes[..28]);
    bytes[28..32].copy_from_slice(&crc.to_le_bytes());
}

/// What stands at a place of a segment.
pub(super) enum At {
    /// A whole group, its payload read.
    Group(Group),
    /// The end.
    End,
    /// The beginning of a group that was being written.
    Torn,
}

/// Reads the group at byte `at` of a segment of `len` bytes; its payload into `payload`.
pub(super) fn read(file: &File, path: &Path, at: u64, len: u64, payload: &mut Vec<u8>) -> Result<At> {
    let damaged = |why: &str| JournalError::Damaged { path: path.to_path_buf(), at, why: why.into() };
    payload.clear();
    if at >= len {
        return Ok(At::End);
    }
    let left = len - at;
    if left < HEADER as u64 {
        return Ok(At::Torn);
    }
    let mut header = [0u8; HEADER];
    file.read_exact_at(&mut header, at).map_err(failed("read", path))?;
    if crc32(&header[..28]) != u32_at(&header, 28) || &header[..4] != MAGIC {
        // A header that never reached the disk reads as zeros; one that did and is wrong was altered.
        return if header.iter().all(|b| *b == 0) { Ok(At::Torn) } else { Err(damaged("a group's header is wrong")) };
    }
    let group = Group {
        len: u32_at(&header, 4),
        first: i64_at(&header, 8),
        count: u32_at(&header, 16),
        session: u32_at(&header, 20),
        crc: u32_at(&header, 24),
    };
    let whole = HEADER as u64 + u64::from(group.len);
    if whole > left {
        return Ok(At::Torn);
    }
    payload.resize(group.len as usize, 0);
    file.read_exact_at(payload, at + HEADER as u64).map_err(failed("read", path))?;
    if crc32(payload) != group.crc {
        // The next group is written only after this one's fsync has returned.
        return if whole == left { Ok(At::Torn) } else { Err(damaged("a group's checksum is wrong")) };
    }
    Ok(At::Group(group))
}

/// A record in a payload.
#[derive(Debug, Clone, Copy)]
pub(super) struct RecordAt {
    pub arrived_ms: i64,
    pub packet: u16,
    /// Where its topic begins and ends, and its value ends, in the payload.
    pub topic: (usize, usize),
    pub end: usize,
}

/// The record at byte `at` of a payload. The checksum was right, so a record that does not fit is a defect of the writer.
pub(super) fn record(payload: &[u8], at: usize) -> Option<RecordAt> {
    let head = payload.get(at..at + RECORD)?;
    let topic = usize::from(u16::from_le_bytes([head[10], head[11]]));
    let value = u32_at(head, 12) as usize;
    let start = at + RECORD;
    let end = start.checked_add(topic)?.checked_add(value)?;
    (end <= payload.len()).then_some(RecordAt {
        arrived_ms: i64_at(head, 0),
        packet: u16::from_le_bytes([head[8], head[9]]),
        topic: (start, start + topic),
        end,
    })
}

pub(super) fn path(dir: &Path, first: i64) -> PathBuf {
    dir.join(format!("journal-{first:020}"))
}

/// First offsets of the segments in a directory, in order.
pub(super) fn list(dir: &Path) -> Result<Vec<i64>> {
    let mut out = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(failed("list", dir))? {
        let name = entry.map_err(failed("list", dir))?.file_name();
        let digits = name.to_str().and_then(|n| n.strip_prefix("journal-")).filter(|d| d.len() == 20);
        out.extend(digits.and_then(|d| d.parse::<i64>().ok()));
    }
    out.sort_unstable();
    Ok(out)
}
