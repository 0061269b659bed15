//! Which files a published log consists of: the tlog-tiles layout, tiles of height 8.
//!
//! Paths are those of the specification (`tile/<level>/<index>[.p/<width>]` and `tile/entries/…`), which leave out the
//! height that `tlog_tiles` writes in its own.

use tlog_tiles::tile::Tile;

use super::tree::with_reader;
use super::{HashReader, LogError};

pub(super) const HEIGHT: u8 = 8;

/// Hashes in a full tile, entries in a full entry bundle.
pub const TILE_WIDTH: u64 = 1 << HEIGHT;

/// One tile of a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TileRef(Tile);

impl Ord for TileRef {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        let key = |t: &Self| (t.0.level(), t.0.level_index(), t.0.width());
        key(self).cmp(&key(other))
    }
}

impl PartialOrd for TileRef {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

/// The tiles to publish when a log grows from `old` to `new` entries: those that became full, and the partial ones at
/// the right edge.
pub fn tiles_between(old: u64, new: u64) -> Vec<TileRef> {
    Tile::new_tiles(HEIGHT, old, new).into_iter().map(TileRef).collect()
}

impl TileRef {
    pub(super) fn of(tile: Tile) -> Self {
        Self(tile)
    }

    pub(super) fn tile(&self) -> Tile {
        self.0
    }

    /// Its path below the log's address.
    pub fn path(&self) -> String {
        let path = self.0.path();
        format!("tile/{}", path.strip_prefix("tile/8/").unwrap_or(&path))
    }

    /// The path of the entry bundle beside it; only tiles of level 0 have one.
    pub fn entries_path(&self) -> Option<String> {
        let path = self.0.path();
        path.strip_prefix("tile/8/0/").map(|place| format!("tile/entries/{place}"))
    }

    /// 0 for tiles of leaves.
    pub fn level(&self) -> u8 {
        self.0.level()
    }

    /// Index of its first hash within its level (for level 0: of its first entry).
    pub fn first(&self) -> u64 {
        self.0.level_index() << HEIGHT
    }

    /// How many hashes it holds.
    pub fn width(&self) -> u64 {
        u64::from(self.0.width())
    }

    /// Whether nothing will be added to it.
    pub fn is_full(&self) -> bool {
        self.width() == TILE_WIDTH
    }

    /// Its bytes: its hashes, one after the other.
    ///
    /// # Errors
    /// Those of the reader.
    pub fn read<R: HashReader + ?Sized>(&self, reader: &R) -> Result<Vec<u8>, LogError> {
        with_reader(reader, |r| self.0.read_data(r))
    }
}

/// The entry bundle of some entries of 32 bytes each: every entry with its length before it, as two bytes, big-endian.
pub fn entry_bundle(entries: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(entries.len() / 32 * 34);
    for entry in entries.chunks_exact(32) {
        out.extend_from_slice(&32u16.to_be_bytes());
        out.extend_from_slice(entry);
    }
    out
}
