//! Records of any length in a run of bytes, and the table of where each ends.
//!
//! A frame is the payload's length (`u32`), its CRC-32 (`u32`), the payload; all little-endian. A row of the table is
//! the position where the frame ends (`u64`) and the CRC-32 of frame number and position (`u32`).

use super::StoreError;
use super::stream::{Layout, StreamReader, StreamWriter};

type Result<T> = std::result::Result<T, StoreError>;

pub(super) const ROW: u64 = 12;
pub(super) const HEADER: usize = 8;

/// One read of frames returns at most about this much, so that a huge `max` cannot make us allocate.
const READ_BYTES: u64 = 8 << 20;

/// CRC-32 (IEEE).
pub(crate) fn crc32(bytes: &[u8]) -> u32 {
    crc32fast::hash(bytes)
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut b = [0; 4];
    b.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(b)
}

fn row(number: u64, end: u64) -> [u8; ROW as usize] {
    let mut checked = [0; 16];
    checked[..8].copy_from_slice(&number.to_le_bytes());
    checked[8..].copy_from_slice(&end.to_le_bytes());
    let mut out = [0; ROW as usize];
    out[..8].copy_from_slice(&end.to_le_bytes());
    out[8..].copy_from_slice(&crc32(&checked).to_le_bytes());
    out
}

fn row_end(number: u64, bytes: &[u8]) -> Option<u64> {
    let mut end = [0; 8];
    end.copy_from_slice(&bytes[..8]);
    let end = u64::from_le_bytes(end);
    (row(number, end) == bytes[..ROW as usize]).then_some(end)
}

/// Appends frames.
#[derive(Debug)]
pub(super) struct FrameWriter {
    pub data: StreamWriter,
    pub rows: StreamWriter,
    pub count: u64,
}

impl FrameWriter {
    pub fn new(data: Layout, rows: Layout, count: u64, len: u64) -> Self {
        Self { data: StreamWriter::new(data, len), rows: StreamWriter::new(rows, count * ROW), count }
    }

    /// Appends one frame. Payloads of 4 GiB and more are refused.
    pub fn append(&mut self, payload: &[u8]) -> Result<()> {
        self.append_with(|b| b.extend_from_slice(payload))
    }

    /// Appends one frame, whose payload is what `fill` appends.
    pub fn append_with(&mut self, fill: impl FnOnce(&mut Vec<u8>)) -> Result<()> {
        let mut too_large = None;
        self.data.append_with(|b| {
            let start = b.len();
            b.extend_from_slice(&[0; HEADER]);
            fill(b);
            let payload = &b[start + HEADER..];
            match u32::try_from(payload.len()) {
                Ok(len) => {
                    let crc = crc32(payload);
                    b[start..start + 4].copy_from_slice(&len.to_le_bytes());
                    b[start + 4..start + HEADER].copy_from_slice(&crc.to_le_bytes());
                }
                Err(_) => {
                    too_large = Some(payload.len());
                    b.truncate(start);
                }
            }
        })?;
        if let Some(len) = too_large {
            return Err(StoreError::BadCommit { why: format!("a record of {len} bytes is too large") });
        }
        self.rows.append(&row(self.count, self.data.len()))?;
        self.count += 1;
        Ok(())
    }
}

/// Reads frames.
#[derive(Debug)]
pub(super) struct FrameReader {
    pub data: StreamReader,
    pub rows: StreamReader,
}

impl FrameReader {
    pub fn new(data: Layout, rows: Layout) -> Self {
        Self { data: StreamReader::new(data), rows: StreamReader::new(rows) }
    }

    fn damaged(&self, number: u64, why: &str) -> StoreError {
        StoreError::Damaged { file: format!("{}, record {number}", self.data.name()), why: why.to_owned() }
    }

    fn end(&self, number: u64) -> Result<u64> {
        let bytes = self.rows.read(number * ROW, ROW as usize)?;
        row_end(number, &bytes).ok_or_else(|| StoreError::Damaged {
            file: format!("{}, row {number}", self.rows.name()),
            why: "its checksum is wrong".into(),
        })
    }

    /// Where a frame begins.
    pub fn start(&self, number: u64) -> Result<u64> {
        if number == 0 { Ok(0) } else { self.end(number - 1) }
    }

    /// Frames `[from, to)`, as many as fit one read but at least one: calls `f` with number and payload.
    pub fn read(&self, from: u64, to: u64, mut f: impl FnMut(u64, &[u8]) -> Result<()>) -> Result<()> {
        if from >= to {
            return Ok(());
        }
        // A frame is at least its header, which bounds the rows worth reading.
        let to = to.min(from.saturating_add(READ_BYTES / HEADER as u64));
        let start = self.start(from)?;
        let rows = self.rows.read(from * ROW, usize::try_from((to - from) * ROW).unwrap_or(usize::MAX))?;
        let mut ends = Vec::with_capacity(rows.len() / ROW as usize);
        for (i, bytes) in rows.chunks_exact(ROW as usize).enumerate() {
            let number = from + i as u64;
            let end = row_end(number, bytes).ok_or_else(|| self.damaged(number, "its row's checksum is wrong"))?;
            let before = ends.last().copied().unwrap_or(start);
            if end < before + HEADER as u64 {
                return Err(self.damaged(number, "its row contradicts the row before"));
            }
            if !ends.is_empty() && end - start > READ_BYTES {
                break;
            }
            ends.push(end);
        }
        let last = ends.last().copied().unwrap_or(start);
        let bytes = self.data.read(start, usize::try_from(last - start).unwrap_or(usize::MAX))?;
        let mut at = 0;
        for (i, end) in ends.into_iter().enumerate() {
            let (number, stop) = (from + i as u64, usize::try_from(end - start).unwrap_or(usize::MAX));
            let frame = &bytes[at..stop];
            if u32_at(frame, 0) as usize != frame.len() - HEADER {
                return Err(self.damaged(number, "its length is wrong"));
            }
            let payload = &frame[HEADER..];
            if crc32(payload) != u32_at(frame, 4) {
                return Err(self.damaged(number, "its checksum is wrong"));
            }
            f(number, payload)?;
            at = stop;
        }
        Ok(())
    }

    /// Checks every frame of `[from, to)`.
    pub fn check(&self, from: u64, to: u64) -> Result<()> {
        let mut at = from;
        while at < to {
            let mut read = 0;
            self.read(at, to, |_, _| {
                read += 1;
                Ok(())
            })?;
            at += read;
        }
        Ok(())
    }

    /// Whether the table has `count` good rows that end at `len`.
    pub fn rows_are_good(&self, count: u64, len: u64) -> Result<bool> {
        let (mut number, mut before, mut good) = (0, 0, true);
        let outcome = self.rows.chunks(count * ROW, ROW as usize, |bytes| {
            for bytes in bytes.chunks_exact(ROW as usize) {
                match row_end(number, bytes) {
                    Some(end) if end >= before + HEADER as u64 => before = end,
                    _ => good = false,
                }
                number += 1;
            }
            Ok(())
        });
        match outcome {
            Ok(()) => Ok(good && before == len),
            Err(StoreError::Damaged { .. }) => Ok(false),
            Err(e) => Err(e),
        }
    }

    /// Goes through the frames in `[0, len)` without the table.
    pub fn walk(&self, len: u64, mut f: impl FnMut(u64, u64, &[u8]) -> Result<()>) -> Result<()> {
        let (mut at, mut number) = (0, 0);
        // What is read ahead: bytes [at, at + ahead.len() - used).
        let (mut ahead, mut used): (Vec<u8>, usize) = (Vec::new(), 0);
        while at < len {
            let left = len - at;
            let mut need = HEADER;
            loop {
                if need as u64 > left {
                    return Err(self.damaged(number, "it is longer than what is left"));
                }
                if ahead.len() - used < need {
                    ahead.drain(..used);
                    used = 0;
                    let more = (left - ahead.len() as u64).min(((need - ahead.len()).max(1 << 20)) as u64);
                    let bytes = self.data.read(at + ahead.len() as u64, usize::try_from(more).unwrap_or(usize::MAX))?;
                    ahead.extend_from_slice(&bytes);
                }
                let whole = HEADER + u32_at(&ahead, used) as usize;
                if need == whole {
                    break;
                }
                need = whole;
            }
            let frame = &ahead[used..used + need];
            if crc32(&frame[HEADER..]) != u32_at(frame, 4) {
                return Err(self.damaged(number, "its checksum is wrong"));
            }
            at += need as u64;
            f(number, at, &frame[HEADER..])?;
            used += need;
            number += 1;
        }
        Ok(())
    }
}

/// The payloads of the frames these bytes begin with, up to the first that is not whole.
pub(super) fn whole_frames(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let (header, after) = rest.split_at_checked(HEADER)?;
        let (payload, after) = after.split_at_checked(u32_at(header, 0) as usize)?;
        rest = after;
        (crc32(payload) == u32_at(header, 4)).then_some(payload)
    })
    // What follows a frame that is not whole has no known beginning.
    .fuse()
}

/// A payload, of less than 4 GiB, in its frame.
pub(super) fn frame_around(payload: &[u8]) -> Vec<u8> {
    let mut out = (payload.len() as u32).to_le_bytes().to_vec();
    out.extend(crc32(payload).to_le_bytes());
    out.extend(payload);
    out
}

/// Appends table rows for frames that end at the given places; for rebuilding a table.
pub(super) fn push_row(number: u64, end: u64, out: &mut Vec<u8>) {
    out.extend_from_slice(&row(number, end));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crc32_is_the_ieee_one() {
        assert_eq!(crc32(b""), 0);
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
        assert_eq!(crc32(b"The quick brown fox jumps over the lazy dog"), 0x414f_a339);
    }
}
