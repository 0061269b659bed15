//! The one binary encoding of everything the engine hashes or stores: records, evidence, lane state.
//!
//! Little-endian integers, IEEE-754 bit patterns for floats (a NaN keeps its bits), and a `u32` length before every
//! string or byte run. There is exactly one encoding of a value, so equal values have equal bytes, which is what
//! hashes and the byte-for-byte restart guarantee rest on.

use thiserror::Error;

/// Why stored bytes could not be read back.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
pub enum CodecError {
    /// The bytes end before the value does.
    #[error("{what}: truncated, {need} more bytes needed at byte {at}; the file is damaged, use an earlier copy")]
    Truncated {
        /// What was being read.
        what: &'static str,
        /// How many bytes were missing.
        need: usize,
        /// Where.
        at: usize,
    },
    /// The bytes are complete but are not what is expected there.
    #[error("{what}: {why} at byte {at}")]
    Invalid {
        /// What was being read.
        what: &'static str,
        /// What is wrong with it.
        why: String,
        /// Where.
        at: usize,
    },
}

/// Counting a million a second reaches this in nine years.
pub const MOST_COUNTED: u64 = 1 << 48;

/// No time is farther from 1970, in milliseconds: 36 million years.
pub const FARTHEST_MS: u64 = 1 << 60;

/// A named stretch of the bytes, up to where the next one starts. The names say nothing to [`Reader`]: they let a store
/// keep what has not changed since the last snapshot, and let people see what a snapshot is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Section {
    /// What it holds.
    pub name: String,
    /// Its first byte.
    pub start: u64,
    /// How many things it holds, in the unit its name suggests; 0 where there is nothing to count.
    pub items: u64,
}

/// Appends values to a byte buffer.
#[derive(Debug, Default, Clone)]
pub struct Writer {
    /// The bytes written so far.
    pub bytes: Vec<u8>,
    /// The sections begun so far; none unless the writer's user asked for them.
    pub sections: Vec<Section>,
    scope: String,
}

impl Writer {
    /// An empty writer.
    pub fn new() -> Self {
        Self::default()
    }
    /// A writer that goes on after these bytes.
    pub fn after(bytes: Vec<u8>) -> Self {
        Self { bytes, ..Self::default() }
    }
    /// An empty writer with room for `capacity` bytes.
    pub fn with_capacity(capacity: usize) -> Self {
        Self { bytes: Vec::with_capacity(capacity), ..Self::default() }
    }
    /// Begins a section.
    pub fn section(&mut self, name: impl Into<String>, items: usize) {
        self.scope = name.into();
        self.sections.push(Section { name: self.scope.clone(), start: self.bytes.len() as u64, items: items as u64 });
    }
    /// Begins a section within the last [`Writer::section`], under its name.
    pub fn part(&mut self, name: impl std::fmt::Display, items: usize) {
        let name = if self.scope.is_empty() { name.to_string() } else { format!("{}/{name}", self.scope) };
        self.sections.push(Section { name, start: self.bytes.len() as u64, items: items as u64 });
    }
    /// One byte.
    pub fn u8(&mut self, v: u8) {
        self.bytes.push(v);
    }
    /// Two bytes, little-endian.
    pub fn u16(&mut self, v: u16) {
        self.bytes.extend_from_slice(&v.to_le_bytes());
    }
    /// Four bytes, little-endian.
    pub fn u32(&mut self, v: u32) {
        self.bytes.extend_from_slice(&v.to_le_bytes());
    }
    /// Eight bytes, little-endian.
    pub fn u64(&mut self, v: u64) {
        self.bytes.extend_from_slice(&v.to_le_bytes());
    }
    /// Eight bytes, two's complement, little-endian.
    pub fn i64(&mut self, v: i64) {
        self.bytes.extend_from_slice(&v.to_le_bytes());
    }
    /// The bit pattern of a double.
    pub fn f64(&mut self, v: f64) {
        self.u64(v.to_bits());
    }
    /// Bytes of a length both sides know.
    pub fn raw(&mut self, v: &[u8]) {
        self.bytes.extend_from_slice(v);
    }
    /// A length, then bytes. Runs of 4 GiB and more are not representable and are cut off by the callers' own limits.
    pub fn bytes(&mut self, v: &[u8]) {
        self.u32(v.len() as u32);
        self.raw(v);
    }
    /// A length, then what `fill` writes: [`Writer::bytes`] without a copy of its own.
    pub fn nested(&mut self, fill: impl FnOnce(&mut Self)) {
        let start = self.bytes.len();
        self.u32(0);
        fill(self);
        let len = (self.bytes.len() - start - 4) as u32;
        self.bytes[start..start + 4].copy_from_slice(&len.to_le_bytes());
    }
    /// A length, then UTF-8.
    pub fn str(&mut self, v: &str) {
        self.bytes(v.as_bytes());
    }
}

/// Reads values back, refusing what is truncated or malformed. Allocation is bounded by the bytes at hand.
#[derive(Debug, Clone)]
pub struct Reader<'a> {
    what: &'static str,
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    /// Reads `bytes`; `what` names them in errors.
    pub fn new(what: &'static str, bytes: &'a [u8]) -> Self {
        Self { what, bytes, at: 0 }
    }
    /// How many bytes are left.
    pub fn remaining(&self) -> usize {
        self.bytes.len() - self.at
    }
    /// Where the next value starts.
    pub fn position(&self) -> usize {
        self.at
    }
    /// An error at this place.
    pub fn invalid(&self, why: impl Into<String>) -> CodecError {
        CodecError::Invalid { what: self.what, why: why.into(), at: self.at }
    }
    /// Bytes of a length both sides know.
    pub fn raw(&mut self, n: usize) -> Result<&'a [u8], CodecError> {
        if self.remaining() < n {
            return Err(CodecError::Truncated { what: self.what, need: n - self.remaining(), at: self.at });
        }
        let out = &self.bytes[self.at..self.at + n];
        self.at += n;
        Ok(out)
    }
    /// A fixed array.
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], CodecError> {
        let mut out = [0u8; N];
        out.copy_from_slice(self.raw(N)?);
        Ok(out)
    }
    /// One byte.
    pub fn u8(&mut self) -> Result<u8, CodecError> {
        Ok(self.array::<1>()?[0])
    }
    /// Two bytes.
    pub fn u16(&mut self) -> Result<u16, CodecError> {
        Ok(u16::from_le_bytes(self.array()?))
    }
    /// Four bytes.
    pub fn u32(&mut self) -> Result<u32, CodecError> {
        Ok(u32::from_le_bytes(self.array()?))
    }
    /// Eight bytes.
    pub fn u64(&mut self) -> Result<u64, CodecError> {
        Ok(u64::from_le_bytes(self.array()?))
    }
    /// Eight bytes, signed.
    pub fn i64(&mut self) -> Result<i64, CodecError> {
        Ok(i64::from_le_bytes(self.array()?))
    }
    /// A double from its bit pattern.
    pub fn f64(&mut self) -> Result<f64, CodecError> {
        Ok(f64::from_bits(self.u64()?))
    }
    /// A length, then bytes.
    pub fn bytes(&mut self) -> Result<&'a [u8], CodecError> {
        let n = self.u32()? as usize;
        self.raw(n)
    }
    /// A length, then UTF-8.
    pub fn str(&mut self) -> Result<&'a str, CodecError> {
        let at = self.at;
        std::str::from_utf8(self.bytes()?).map_err(|e| CodecError::Invalid {
            what: self.what,
            why: format!("text is not UTF-8 ({e})"),
            at,
        })
    }

    /// What was counted one by one: nothing has been counted further than [`MOST_COUNTED`], so that whoever goes on counting from
    /// a damaged one stays within 64 bits.
    pub fn counted(&mut self) -> Result<u64, CodecError> {
        let n = self.u64()?;
        if n > MOST_COUNTED {
            return Err(self.invalid(format!("{n} were counted, which nothing can have been")));
        }
        Ok(n)
    }

    /// A time, or a length of time, in milliseconds: far enough from the ends of 64 bits that sums and differences of two stay
    /// within them.
    pub fn milliseconds(&mut self) -> Result<i64, CodecError> {
        let ms = self.i64()?;
        if ms.unsigned_abs() > FARTHEST_MS {
            return Err(self.invalid(format!("{ms} ms, which is no time")));
        }
        Ok(ms)
    }

    /// A count of items that each take at least `min_bytes`, so that a damaged count cannot make us allocate.
    pub fn count(&mut self, min_bytes: usize) -> Result<usize, CodecError> {
        let n = self.u32()? as usize;
        if n.saturating_mul(min_bytes.max(1)) > self.remaining() {
            return Err(self.invalid(format!("a count of {n} does not fit the {} bytes left", self.remaining())));
        }
        Ok(n)
    }
    /// All bytes must have been read.
    pub fn finish(self) -> Result<(), CodecError> {
        if self.remaining() == 0 {
            Ok(())
        } else {
            Err(self.invalid(format!("{} bytes are left over", self.remaining())))
        }
    }
}
