//! What stands in the header or field: the number, the place in a batch, the signature.

use thiserror::Error;

use super::statement::path_length;
use crate::verdict::Hash32;

const READING: u8 = 1;
const BATCH: u8 = 2;

/// A batch has at most so many readings.
pub const MOST_IN_BATCH: u32 = 1 << 16;

/// A parsed envelope; borrows its bytes. Numbers are unsigned and big-endian.
///
/// | bytes | what |
/// | --- | --- |
/// | 1 | `01` one reading, `02` a reading of a batch |
/// | 8 | `seq` of the reading, or of the batch's first |
/// | 4 | batch only: how many readings it has, 1 to 65,536 |
/// | 4 | batch only: the reading's place in it, from 0 |
/// | 32 each | batch only: its path, as many hashes as RFC 6962 has for that place and number |
/// | 64 or 65 | the signature: Ed25519 and P-256 `r ‖ s` (64), secp256k1 `r ‖ s ‖ v` (65) |
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Envelope<'a> {
    /// The reading's number.
    pub seq: u64,
    /// Its place in a batch, if it is of one.
    pub member: Option<Member<'a>>,
    /// The signature.
    pub signature: &'a [u8],
}

/// A reading's place in its batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Member<'a> {
    /// The number of the batch's first reading.
    pub first: u64,
    /// How many readings the batch has.
    pub count: u32,
    /// This one's place among them.
    pub index: u32,
    /// The hashes of the path, one after another.
    path: &'a [u8],
}

impl Member<'_> {
    /// The hashes of the path, from the leaf's sibling upwards.
    pub fn path(&self) -> impl Iterator<Item = Hash32> + '_ {
        self.path.as_chunks::<32>().0.iter().copied()
    }
}

/// Why bytes are no envelope.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
pub enum EnvelopeError {
    /// It ends before it is complete.
    #[error("the signature's envelope has {found} bytes where at least {needed} are needed")]
    Short {
        /// Bytes needed.
        needed: usize,
        /// Bytes there are.
        found: usize,
    },
    /// No kind of envelope.
    #[error("the signature's envelope begins with {0:#04x}; 0x01 is one reading, 0x02 a reading of a batch")]
    Kind(u8),
    /// No number of readings.
    #[error("a batch of {0} readings; it may have 1 to 65536")]
    Count(u32),
    /// No place in the batch.
    #[error("the reading is number {index} of a batch of {count}")]
    Index {
        /// The place.
        index: u32,
        /// The number.
        count: u32,
    },
    /// The numbers of the batch go beyond 64 bits.
    #[error("the numbers of the batch go beyond 64 bits")]
    Overflow,
    /// What is left is no signature.
    #[error("the signature has {0} bytes; Ed25519 and P-256 have 64, secp256k1 has 65")]
    SignatureLength(usize),
    /// Not the hexadecimal digits of bytes.
    #[error("the signature's field is not an even number of hexadecimal digits")]
    NotHex,
}

impl<'a> Envelope<'a> {
    /// Parses the whole of `bytes`. One reading has one envelope: nothing may be left over.
    ///
    /// # Errors
    /// [`EnvelopeError`]. Never panics, and allocates nothing.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, EnvelopeError> {
        let (kind, rest) = bytes.split_first().ok_or(EnvelopeError::Short { needed: 73, found: 0 })?;
        let short = |needed| EnvelopeError::Short { needed, found: bytes.len() };
        let (first, rest) = rest.split_first_chunk::<8>().ok_or(short(73))?;
        let first = u64::from_be_bytes(*first);
        let (seq, member, signature) = match *kind {
            READING => (first, None, rest),
            BATCH => {
                let (count, rest) = rest.split_first_chunk::<4>().ok_or(short(81))?;
                let (index, rest) = rest.split_first_chunk::<4>().ok_or(short(81))?;
                let (count, index) = (u32::from_be_bytes(*count), u32::from_be_bytes(*index));
                if !(1..=MOST_IN_BATCH).contains(&count) {
                    return Err(EnvelopeError::Count(count));
                }
                if index >= count {
                    return Err(EnvelopeError::Index { index, count });
                }
                first.checked_add(u64::from(count - 1)).ok_or(EnvelopeError::Overflow)?;
                let hashes = 32 * path_length(index, count);
                let (path, rest) = rest.split_at_checked(hashes).ok_or(short(81 + hashes))?;
                (first + u64::from(index), Some(Member { first, count, index, path }), rest)
            }
            other => return Err(EnvelopeError::Kind(other)),
        };
        if !matches!(signature.len(), 64 | 65) {
            return Err(EnvelopeError::SignatureLength(signature.len()));
        }
        Ok(Self { seq, member, signature })
    }

    /// The bytes of one reading's envelope.
    pub fn reading(seq: u64, signature: &[u8]) -> Vec<u8> {
        let mut out = vec![READING];
        out.extend_from_slice(&seq.to_be_bytes());
        out.extend_from_slice(signature);
        out
    }

    /// The bytes of the envelope of reading `index` in a batch.
    pub fn member(first: u64, count: u32, index: u32, path: &[Hash32], signature: &[u8]) -> Vec<u8> {
        let mut out = vec![BATCH];
        out.extend_from_slice(&first.to_be_bytes());
        out.extend_from_slice(&count.to_be_bytes());
        out.extend_from_slice(&index.to_be_bytes());
        out.extend_from_slice(path.as_flattened());
        out.extend_from_slice(signature);
        out
    }
}

/// The bytes that hexadecimal digits stand for, into `out`.
pub(super) fn unhex(text: &[u8], out: &mut Vec<u8>) -> Result<(), EnvelopeError> {
    out.clear();
    let (pairs, rest) = text.as_chunks::<2>();
    if !rest.is_empty() {
        return Err(EnvelopeError::NotHex);
    }
    let digit = |c: u8| char::from(c).to_digit(16).ok_or(EnvelopeError::NotHex);
    for [high, low] in pairs {
        out.push((digit(*high)? << 4 | digit(*low)?) as u8);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_written_is_read(seq in any::<u64>(), n in 64usize..66, count in 1u32..300, at in any::<prop::sample::Index>()) {
            let signature = vec![7; n];
            let bytes = Envelope::reading(seq, &signature);
            prop_assert_eq!(Envelope::parse(&bytes).unwrap(), Envelope { seq, member: None, signature: &signature });
            let index = at.index(count as usize) as u32;
            let path: Vec<Hash32> = (0..path_length(index, count)).map(|i| [i as u8; 32]).collect();
            let first = seq.min(u64::MAX - 300);
            let bytes = Envelope::member(first, count, index, &path, &signature);
            let envelope = Envelope::parse(&bytes).unwrap();
            prop_assert_eq!((envelope.seq, envelope.signature), (first + u64::from(index), &signature[..]));
            let member = envelope.member.unwrap();
            prop_assert_eq!((member.first, member.count, member.index), (first, count, index));
            prop_assert_eq!(member.path().collect::<Vec<_>>(), path);
        }

        /// There is one way to write each: what is read is written the same again, whatever bytes come.
        #[test]
        fn any_bytes_are_refused_or_are_the_envelope_of_what_they_say(
            kind in 0u8..4,
            numbers in proptest::collection::vec(prop_oneof![Just(0u8), Just(1), Just(255), any::<u8>()], 16),
            rest in proptest::collection::vec(any::<u8>(), 0..400),
        ) {
            let bytes = [&[kind][..], &numbers, &rest].concat();
            if let Ok(e) = Envelope::parse(&bytes) {
                let again = match &e.member {
                    None => Envelope::reading(e.seq, e.signature),
                    Some(m) => Envelope::member(m.first, m.count, m.index, &m.path().collect::<Vec<_>>(), e.signature),
                };
                prop_assert_eq!(again, bytes);
            }
        }
    }

    #[test]
    fn what_is_wrong_is_said() {
        let long = |kind: u8, count: u32, index: u32| {
            [&[kind][..], &[255; 8], &count.to_be_bytes(), &index.to_be_bytes(), &[0; 64]].concat()
        };
        let refused = |bytes: &[u8]| Envelope::parse(bytes).unwrap_err();
        assert_eq!(refused(&[]), EnvelopeError::Short { needed: 73, found: 0 });
        assert_eq!(refused(&[1, 2]), EnvelopeError::Short { needed: 73, found: 2 });
        assert_eq!(refused(&long(3, 1, 0)), EnvelopeError::Kind(3));
        assert_eq!(refused(&long(2, 0, 0)), EnvelopeError::Count(0));
        assert_eq!(refused(&long(2, 65_537, 0)), EnvelopeError::Count(65_537));
        assert_eq!(refused(&long(2, 3, 3)), EnvelopeError::Index { index: 3, count: 3 });
        assert_eq!(refused(&long(2, 3, 0)), EnvelopeError::Overflow);
        assert_eq!(refused(&long(1, 1, 0)), EnvelopeError::SignatureLength(72));
        let mut out = Vec::new();
        assert_eq!(unhex(b"abc", &mut out), Err(EnvelopeError::NotHex));
        assert_eq!(unhex(b"+1", &mut out), Err(EnvelopeError::NotHex));
        assert_eq!(unhex(b"0aFf", &mut out), Ok(()));
        assert_eq!(out, [10, 255]);
    }
}
