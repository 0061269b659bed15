//! Protobuf's wire: tags, varints, lengths.

use crate::decode::RowError;

/// Deepest nesting of groups that are passed over.
const MAX_DEPTH: usize = 64;

/// How a value is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WireType {
    Varint,
    Fixed64,
    Length,
    Start,
    End,
    Fixed32,
}

impl WireType {
    pub fn name(self) -> &'static str {
        match self {
            WireType::Varint => "a varint",
            WireType::Fixed64 => "64 bits",
            WireType::Length => "bytes with a length",
            WireType::Start | WireType::End => "a group",
            WireType::Fixed32 => "32 bits",
        }
    }
}

/// Reads `bytes` up to `end`; positions are those of the whole payload.
pub(super) struct Cursor<'a> {
    pub bytes: &'a [u8],
    pub at: usize,
    pub end: usize,
}

impl<'a> Cursor<'a> {
    #[cold]
    fn truncated(&self, what: &str) -> RowError {
        RowError::undecodable(format!("the message ends at byte {} within {what}", self.end))
    }

    #[inline]
    pub fn take(&mut self, n: usize, what: &str) -> Result<&'a [u8], RowError> {
        match self.at.checked_add(n) {
            Some(end) if end <= self.end => {
                let out = &self.bytes[self.at..end];
                self.at = end;
                Ok(out)
            }
            _ => Err(self.truncated(what)),
        }
    }

    #[inline]
    pub fn array<const N: usize>(&mut self, what: &str) -> Result<[u8; N], RowError> {
        let mut out = [0; N];
        out.copy_from_slice(self.take(N, what)?);
        Ok(out)
    }

    #[inline]
    pub fn varint(&mut self) -> Result<u64, RowError> {
        let mut n = 0u64;
        for i in 0..10 {
            if self.at + i >= self.end {
                return Err(self.truncated("a number"));
            }
            let b = self.bytes[self.at + i];
            n |= u64::from(b & 0x7f) << (7 * i);
            if b < 0x80 {
                if i == 9 && b > 1 {
                    break;
                }
                self.at += i + 1;
                return Ok(n);
            }
        }
        Err(RowError::undecodable(format!("the number at byte {} has more than 64 bits", self.at)))
    }

    /// A field's number and how it is written.
    #[inline]
    pub fn tag(&mut self) -> Result<(u32, WireType), RowError> {
        let at = self.at;
        let tag = self.varint()?;
        let wire = match tag & 7 {
            0 => WireType::Varint,
            1 => WireType::Fixed64,
            2 => WireType::Length,
            3 => WireType::Start,
            4 => WireType::End,
            5 => WireType::Fixed32,
            other => return Err(RowError::undecodable(format!("wire type {other} at byte {at}"))),
        };
        match u32::try_from(tag >> 3) {
            Ok(number) if (1..1 << 29).contains(&number) => Ok((number, wire)),
            _ => Err(RowError::undecodable(format!("field number {} at byte {at}", tag >> 3))),
        }
    }

    /// A length and that many bytes.
    #[inline]
    pub fn run(&mut self, what: &str) -> Result<&'a [u8], RowError> {
        let n = self.varint()?;
        match usize::try_from(n) {
            Ok(n) => self.take(n, what),
            Err(_) => Err(self.truncated(what)),
        }
    }

    /// A length and a message of it.
    #[inline]
    pub fn message(&mut self, what: &str) -> Result<Cursor<'a>, RowError> {
        let inner = self.run(what)?;
        Ok(Cursor { bytes: self.bytes, at: self.at - inner.len(), end: self.at })
    }

    /// Passes over a field.
    pub fn skip(&mut self, number: u32, wire: WireType, depth: usize) -> Result<(), RowError> {
        match wire {
            WireType::Varint => {
                self.varint()?;
            }
            WireType::Fixed64 => {
                self.take(8, "a field of 64 bits")?;
            }
            WireType::Fixed32 => {
                self.take(4, "a field of 32 bits")?;
            }
            WireType::Length => {
                self.run("a field")?;
            }
            WireType::Start => {
                if depth > MAX_DEPTH {
                    return Err(RowError::undecodable(format!(
                        "groups nested deeper than {MAX_DEPTH} levels at byte {}",
                        self.at
                    )));
                }
                loop {
                    if self.at >= self.end {
                        return Err(self.truncated("a group"));
                    }
                    match self.tag()? {
                        (n, WireType::End) if n == number => return Ok(()),
                        (n, w) => self.skip(n, w, depth + 1)?,
                    }
                }
            }
            WireType::End => {
                return Err(RowError::undecodable(format!("a group ends at byte {} that did not begin", self.at)));
            }
        }
        Ok(())
    }
}
