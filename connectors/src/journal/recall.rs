//! What redeliveries are recognised by, as of some offset: see the module's bytes of `recall`.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::Write as _;
use std::path::Path;

use super::{JournalError, Result, failed};
use crate::store::crc32;

const MAGIC: &[u8; 4] = b"AVR1";
const HEADER: usize = 20;
const ENTRY: usize = 34;

/// The last message under each packet identifier, of all messages before an offset.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Recall {
    pub offset: i64,
    pub session: u32,
    pub recent: HashMap<u16, [u8; 32]>,
}

impl Recall {
    /// Reads it, if it was ever written.
    pub fn read(dir: &Path) -> Result<Option<Self>> {
        let path = dir.join("recall");
        let bytes = match std::fs::read(&path) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(failed("read", &path)(e)),
        };
        Self::from_bytes(&bytes).map(Some).ok_or_else(|| JournalError::Damaged {
            path,
            at: 0,
            why: "it is not what was written".into(),
        })
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (body, crc) = bytes.split_last_chunk::<4>()?;
        if crc32(body) != u32::from_le_bytes(*crc) || !body.starts_with(MAGIC) || body.len() < HEADER {
            return None;
        }
        let count = u32::from_le_bytes(body[16..20].try_into().ok()?);
        let entries = &body[HEADER..];
        if entries.len() != ENTRY * usize::try_from(count).ok()? {
            return None;
        }
        let entry = |e: &[u8]| Some((u16::from_le_bytes([e[0], e[1]]), e[2..].try_into().ok()?));
        Some(Self {
            offset: i64::from_le_bytes(body[4..12].try_into().ok()?),
            session: u32::from_le_bytes(body[12..16].try_into().ok()?),
            recent: entries.chunks_exact(ENTRY).map(entry).collect::<Option<_>>()?,
        })
    }

    /// Replaces it, durably.
    pub fn write(dir: &Path, offset: i64, session: u32, recent: &HashMap<u16, [u8; 32]>) -> Result<()> {
        let mut bytes = MAGIC.to_vec();
        bytes.extend_from_slice(&offset.to_le_bytes());
        bytes.extend_from_slice(&session.to_le_bytes());
        bytes.extend_from_slice(&(recent.len() as u32).to_le_bytes());
        for (packet, digest) in recent.iter().collect::<BTreeMap<_, _>>() {
            bytes.extend_from_slice(&packet.to_le_bytes());
            bytes.extend_from_slice(digest);
        }
        let crc = crc32(&bytes);
        bytes.extend_from_slice(&crc.to_le_bytes());
        let (temporary, path) = (dir.join("recall.tmp"), dir.join("recall"));
        File::create(&temporary)
            .and_then(|mut f| f.write_all(&bytes).and_then(|()| f.sync_all()))
            .map_err(failed("write", &temporary))?;
        std::fs::rename(&temporary, &path).map_err(failed("rename", &temporary))?;
        File::open(dir).and_then(|d| d.sync_all()).map_err(failed("fsync the directory", dir))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn it_comes_back_and_damage_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Recall::read(dir.path()).unwrap(), None);
        let recent = HashMap::from([(7, [1; 32]), (65_535, [2; 32])]);
        Recall::write(dir.path(), 5, 3, &recent).unwrap();
        assert_eq!(Recall::read(dir.path()).unwrap(), Some(Recall { offset: 5, session: 3, recent }));
        let path = dir.path().join("recall");
        let whole = std::fs::read(&path).unwrap();
        for at in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[at] ^= 1;
            assert_eq!(Recall::from_bytes(&bytes), None);
            assert_eq!(Recall::from_bytes(&whole[..at]), None);
        }
        std::fs::write(&path, &whole[1..]).unwrap();
        assert!(matches!(Recall::read(dir.path()), Err(JournalError::Damaged { .. })));
    }
}
