//! The published log: tlog-tiles files under `public/`, and its signed checkpoint note.
//!
//! All of it follows from `entries` and `hashes`. Tiles are put in place whole but not fsynced one by one (a commit of
//! 100,000 verdicts makes 800 of them); after a power cut, opening the store compares every tile and mends it. The
//! note is replaced last, so that it never speaks of tiles that are not there.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use avouch_engine::log::{
    HashReader, LogError, NoteSigner, TILE_WIDTH, TileRef, TreeHead, checkpoint_text, entry_bundle,
    read_note_unverified, tiles_between, verify_note,
};
use avouch_engine::verdict::{Hash32, LogOrigin};

use super::stream::StreamReader;
use super::{StoreError, io};

type Result<T> = std::result::Result<T, StoreError>;

/// Stored hashes in a run of bytes, the first `count` of them.
pub(super) struct StoredHashes<'a> {
    pub stream: &'a StreamReader,
    pub count: u64,
}

/// Hashes that lie at most this far apart are read at once: those of a tile of leaves do.
const GAP: u64 = 64;
/// … up to this many.
const SPAN: u64 = 4096;

impl HashReader for StoredHashes<'_> {
    fn read_hashes(&self, indexes: &[u64]) -> std::result::Result<Vec<Hash32>, LogError> {
        let mut out = Vec::with_capacity(indexes.len());
        let mut rest = indexes;
        while let Some(&first) = rest.first() {
            let mut n = 1;
            while n < rest.len() && rest[n] > rest[n - 1] && rest[n] - rest[n - 1] <= GAP && rest[n] - first < SPAN {
                n += 1;
            }
            let last = rest[n - 1];
            if last >= self.count {
                return Err(LogError::MissingHash { index: last, have: self.count });
            }
            let len = usize::try_from((last - first + 1) * 32).unwrap_or(usize::MAX);
            let bytes = self.stream.read(first * 32, len).map_err(|e| LogError::Read(e.to_string()))?;
            for &index in &rest[..n] {
                let at = usize::try_from((index - first) * 32).unwrap_or(usize::MAX);
                let mut hash = [0; 32];
                hash.copy_from_slice(&bytes[at..at + 32]);
                out.push(hash);
            }
            rest = &rest[n..];
        }
        Ok(out)
    }
}

/// The published tree of one lane.
#[derive(Debug)]
pub(super) struct Publisher {
    dir: PathBuf,
    origin: LogOrigin,
    signer: Option<NoteSigner>,
    /// Directories known to exist.
    made: BTreeSet<PathBuf>,
}

impl Publisher {
    pub fn new(lane_dir: &Path, origin: &LogOrigin, signer: Option<NoteSigner>) -> Self {
        Self { dir: lane_dir.join("public"), origin: origin.clone(), signer, made: BTreeSet::new() }
    }

    pub fn is_on(&self) -> bool {
        self.signer.is_some()
    }

    /// What the note says now. A note that cannot be read is `Err` of why.
    pub fn head(&self) -> Result<Option<std::result::Result<TreeHead, String>>> {
        let note = io::read_if_there(&self.dir.join("checkpoint"))?;
        Ok(note.map(|bytes| {
            // A note that is not as we signed it says nothing: a flipped digit of its size would hold publishing up.
            let head = match &self.signer {
                Some(signer) => verify_note(&bytes, &signer.verifier_key()),
                None => read_note_unverified(&bytes),
            };
            let head = head.map_err(|e| e.to_string())?;
            if head.origin != self.origin {
                return Err(format!("it is of the log {}", head.origin.as_str()));
            }
            Ok(head)
        }))
    }

    fn put(&mut self, path: &str, bytes: &[u8]) -> Result<()> {
        let path = self.dir.join(path);
        if let Some(parent) = path.parent()
            && !self.made.contains(parent)
        {
            io::create_dir_all(parent)?;
            self.made.insert(parent.to_path_buf());
        }
        io::replace(&path, bytes, false)
    }

    fn content(
        tile: &TileRef,
        hashes: &StoredHashes<'_>,
        entries: &StreamReader,
    ) -> Result<(Vec<u8>, Option<Vec<u8>>)> {
        let bytes = tile.read(hashes)?;
        let bundle = match tile.entries_path() {
            None => None,
            Some(_) => {
                let len = usize::try_from(tile.width() * 32).unwrap_or(usize::MAX);
                Some(entry_bundle(&entries.read(tile.first() * 32, len)?))
            }
        };
        Ok((bytes, bundle))
    }

    /// Publishes the log of `new` entries where that of `old` was. Old partial tiles stay until the note is replaced:
    /// whoever has the old note still finds what it speaks of.
    pub fn advance(
        &mut self,
        old: u64,
        new: u64,
        root: &Hash32,
        hashes: &StoredHashes<'_>,
        entries: &StreamReader,
    ) -> Result<()> {
        let Some(signer) = self.signer.clone() else { return Ok(()) };
        let tiles = tiles_between(old, new);
        for tile in &tiles {
            let (bytes, bundle) = Self::content(tile, hashes, entries)?;
            self.put(&tile.path(), &bytes)?;
            if let (Some(path), Some(bundle)) = (tile.entries_path(), bundle) {
                self.put(&path, &bundle)?;
            }
        }
        self.write_note(&signer, new, root)?;
        for tile in tiles.iter().filter(|t| t.is_full()) {
            // Only the tile at the old right edge can have had partial ones.
            if tile.first() == (old >> (8 * u32::from(tile.level()))) / TILE_WIDTH * TILE_WIDTH {
                for path in [Some(tile.path()), tile.entries_path()].into_iter().flatten() {
                    let partial = self.dir.join(format!("{path}.p"));
                    io::remove_dir_all(&partial)?;
                    self.made.remove(&partial);
                }
            }
        }
        Ok(())
    }

    fn write_note(&mut self, signer: &NoteSigner, size: u64, root: &Hash32) -> Result<()> {
        let note = signer.sign(&checkpoint_text(&self.origin, size, root)?)?;
        io::create_dir_all(&self.dir)?;
        let key = self.dir.join("key");
        let text = format!("{}\n", signer.verifier_key());
        if io::read_if_there(&key)?.as_deref() != Some(text.as_bytes()) {
            io::replace(&key, text.as_bytes(), true)?;
        }
        io::replace(&self.dir.join("checkpoint"), &note, true)?;
        io::sync_dir(&self.dir)
    }

    /// Compares every file of the published log of `size` with what it must be and replaces those that differ.
    /// Returns which were there and wrong, or missing though the note spoke of them.
    pub fn mend(
        &mut self,
        published: u64,
        size: u64,
        root: &Hash32,
        hashes: &StoredHashes<'_>,
        entries: &StreamReader,
    ) -> Result<Vec<String>> {
        let Some(signer) = self.signer.clone() else { return Ok(Vec::new()) };
        let mut mended = Vec::new();
        for tile in tiles_between(0, size) {
            let (bytes, bundle) = Self::content(&tile, hashes, entries)?;
            let due = (tile.first() + tile.width()) << (8 * u32::from(tile.level())) <= published;
            for (path, bytes) in [(Some(tile.path()), Some(bytes)), (tile.entries_path(), bundle)] {
                let (Some(path), Some(bytes)) = (path, bytes) else { continue };
                let there = io::read_if_there(&self.dir.join(&path))?;
                if there.as_ref() != Some(&bytes) {
                    self.put(&path, &bytes)?;
                    if due || there.is_some() {
                        mended.push(format!("public/{path}"));
                    }
                }
            }
        }
        self.write_note(&signer, size, root)?;
        Ok(mended)
    }
}
