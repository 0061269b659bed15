//! A log read from its published tiles, believing no tile that the signed head does not vouch for.
//!
//! What is needed is found out by trying: a question either has its answer, or names the tiles that it lacks
//! ([`Lack::Tiles`]). The caller fetches them, from wherever they are, and asks again.

use std::cell::RefCell;
use std::collections::BTreeMap;

use tlog_tiles::tile::{Tile, TileHashReader, TileReader};
use tlog_tiles::{Hash, tlog};

use super::LogError;
use super::note::TreeHead;
use super::tiles::{HEIGHT, TILE_WIDTH, TileRef};
use crate::verdict::Hash32;

/// Why a question has no answer yet, or none at all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lack {
    /// These tiles must be fetched first.
    Tiles(Vec<TileRef>),
    /// They are there, and do not belong to the head.
    Log(LogError),
}

/// Tiles that were fetched for one head. Of another head make another: a tile at the right edge is of one size only.
#[derive(Debug, Clone)]
pub struct PublishedLog {
    head: TreeHead,
    tiles: BTreeMap<TileRef, Vec<u8>>,
}

impl PublishedLog {
    /// Of a head whose signature was checked.
    pub fn new(head: TreeHead) -> Self {
        Self { head, tiles: BTreeMap::new() }
    }

    /// The head.
    pub fn head(&self) -> &TreeHead {
        &self.head
    }

    /// Takes the bytes of a tile. Those of a fuller one at the same place do as well.
    ///
    /// # Errors
    /// When they are too few: whoever publishes the log lacks a part of it.
    pub fn insert(&mut self, tile: TileRef, mut bytes: Vec<u8>) -> Result<(), LogError> {
        let need = usize::try_from(tile.width() * 32).unwrap_or(usize::MAX);
        if bytes.len() < need || !bytes.len().is_multiple_of(32) {
            return Err(LogError::Read(format!("{} has {} bytes where {need} are due", tile.path(), bytes.len())));
        }
        bytes.truncate(need);
        self.tiles.insert(tile, bytes);
        Ok(())
    }

    /// The root the log had at an earlier size.
    ///
    /// # Errors
    /// [`Lack`]; beyond the head, [`LogError::NoSuchProof`].
    pub fn root(&self, size: u64) -> Result<Hash32, Lack> {
        self.within(size)?;
        if size == 0 {
            return Ok(super::EMPTY_ROOT);
        }
        self.ask(|reader| tlog::tree_hash(size, reader).map(|h| h.0))
    }

    /// The consistency proof from an earlier size to the head's.
    ///
    /// # Errors
    /// As [`PublishedLog::root`].
    pub fn consistency(&self, old: u64) -> Result<Vec<Hash32>, Lack> {
        self.within(old)?;
        if old == 0 || old == self.head.size {
            return Ok(Vec::new());
        }
        self.ask(|reader| tlog::prove_tree(self.head.size, old, reader).map(plain))
    }

    /// The leaf at an index: SHA-256(`00` ‖ entry).
    ///
    /// # Errors
    /// As [`PublishedLog::root`].
    pub fn leaf(&self, index: u64) -> Result<Hash32, Lack> {
        self.within(index.saturating_add(1))?;
        let at = super::stored_hash_index(0, index);
        self.ask(|reader| tlog::HashReader::read_hashes(reader, &[at]).map(|h| h.first().map_or([0; 32], |h| h.0)))
    }

    fn within(&self, size: u64) -> Result<(), Lack> {
        let have = self.head.size;
        if size <= have {
            return Ok(());
        }
        Err(Lack::Log(LogError::NoSuchProof(format!("the published log has {have} entries, not {size}"))))
    }

    fn ask<T>(&self, question: impl FnOnce(&TileHashReader<'_>) -> Result<T, tlog::Error>) -> Result<T, Lack> {
        let shelf = Shelf { tiles: &self.tiles, lacks: RefCell::default() };
        let reader = TileHashReader::new(self.head.size, Hash(self.head.root), &shelf);
        question(&reader).map_err(|e| {
            let lacks = shelf.lacks.take();
            if lacks.is_empty() {
                let what =
                    format!("the published tiles do not belong to the signed head of size {}: {e}", self.head.size);
                Lack::Log(LogError::Read(what))
            } else {
                Lack::Tiles(lacks)
            }
        })
    }
}

fn plain(hashes: Vec<Hash>) -> Vec<Hash32> {
    hashes.into_iter().map(|h| h.0).collect()
}

struct Shelf<'a> {
    tiles: &'a BTreeMap<TileRef, Vec<u8>>,
    lacks: RefCell<Vec<TileRef>>,
}

impl TileReader for Shelf<'_> {
    fn height(&self) -> u8 {
        HEIGHT
    }

    fn read_tiles(&self, tiles: &[Tile]) -> Result<Vec<Vec<u8>>, tlog::Error> {
        let mut out = Vec::with_capacity(tiles.len());
        for tile in tiles.iter().map(|t| TileRef::of(*t)) {
            match self.tiles.get(&tile) {
                Some(bytes) => out.push(bytes.clone()),
                None => self.lacks.borrow_mut().push(tile),
            }
        }
        if self.lacks.borrow().is_empty() { Ok(out) } else { Err(tlog::Error::IndexesNotInTree) }
    }

    fn save_tiles(&self, _: &[Tile], _: &[Vec<u8>]) {}
}

impl TileRef {
    /// The full tile at the same place: what is published once a log has grown beyond this one.
    pub fn filled(&self) -> TileRef {
        let t = self.tile();
        // 256 fits.
        TileRef::of(Tile::new(HEIGHT, t.level(), t.level_index(), TILE_WIDTH as u32, false))
    }
}
