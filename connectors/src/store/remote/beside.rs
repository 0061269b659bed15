//! Files that others keep beside the lane and that grow line by line: what sinks refused, what was signed for the contract.
//!
//! They are copied piece by piece, each when it is written and not only at the next checkpoint: a sink's cursor may lie on its
//! own cluster and pass a refusal long before. A piece says of one file: behind `from` bytes comes this, and nothing else.
//! Pieces in order give the files; a manifest names those up to it, and what its writer put after it is found by name
//! (`beside-<generation>-<writer>-<count>`). What a writer puts after another one has looked, because it does not know yet that
//! it has lost the lane, is not seen by that one.
//!
//! They are not what a checkpoint rests on. A piece that is lost or damaged is reported and costs what it held.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use avouch_engine::codec::{CodecError, Reader, Writer};
use avouch_engine::verdict::Hash32;
use sha2::{Digest, Sha256};

use super::RemoteLane;
use super::manifest::Manifest;
use crate::store::checkpoint::{Unreadable, seal, unseal};
use crate::store::recover::Damage;
use crate::store::{StoreError, io};

type Result<T> = std::result::Result<T, StoreError>;

const MAGIC: &[u8; 7] = b"avouchB";
const VERSION: u8 = b'1';
/// This many pieces of one file and level become one of the next.
const MERGE: usize = 8;
/// The largest piece that is merged.
const LARGEST: u64 = 64 << 20;

/// Whether a file of the lane's directory is copied this way.
fn is_copied(file: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    file == "signed-checkpoints.jsonl"
        || file.strip_prefix("refused-").is_some_and(|sink| !sink.is_empty() && sink.chars().all(plain))
}

/// Whether an object is a piece.
pub(in crate::store) fn is_beside(name: &str) -> bool {
    let fits = |b: u8| b.is_ascii_hexdigit() || b == b'-';
    name.strip_prefix("beside-").is_some_and(|rest| !rest.is_empty() && rest.len() <= 64 && rest.bytes().all(fits))
}

fn prefix(generation: u64, writer: u32) -> String {
    format!("beside-{generation:06}-{writer:08x}-")
}

/// One piece, as a manifest names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::store) struct Piece {
    pub object: String,
    /// Of the object.
    pub sha256: Hash32,
    pub file: String,
    /// Where in the file it begins, and its bytes.
    pub from: u64,
    pub len: u64,
    /// How often its bytes were merged.
    pub level: u8,
}

impl Piece {
    pub fn write(&self, w: &mut Writer) {
        w.str(&self.object);
        w.raw(&self.sha256);
        w.str(&self.file);
        w.u64(self.from);
        w.u64(self.len);
        w.u8(self.level);
    }

    pub fn from_reader(r: &mut Reader<'_>) -> std::result::Result<Self, CodecError> {
        let (object, sha256, file) = (r.str()?.to_owned(), r.array()?, r.str()?.to_owned());
        if !is_beside(&object) || !is_copied(&file) {
            return Err(r.invalid(format!("{object:?} of {file:?} cannot be a piece")));
        }
        Ok(Self { object, sha256, file, from: r.u64()?, len: r.u64()?, level: r.u8()? })
    }
}

fn to_bytes(file: &str, from: u64, bytes: &[u8]) -> Vec<u8> {
    let mut w = Writer::new();
    w.raw(MAGIC);
    w.u8(VERSION);
    w.str(file);
    w.u64(from);
    w.bytes(bytes);
    seal(w)
}

fn from_bytes(object: &[u8]) -> std::result::Result<(String, u64, Vec<u8>), Unreadable> {
    let mut r = unseal("piece", object, MAGIC, VERSION)?;
    let out = (r.str()?.to_owned(), r.u64()?, r.bytes()?.to_vec());
    r.finish()?;
    Ok(out)
}

/// Copies the files beside one lane, for its one writer. Clones share what was copied.
#[derive(Debug, Clone)]
pub(in crate::store) struct Beside {
    lane: RemoteLane,
    dir: PathBuf,
    names: String,
    copied: Arc<Mutex<Copied>>,
}

#[derive(Debug, Default)]
struct Copied {
    /// Pieces put by this writer so far.
    count: u64,
    pieces: Vec<Piece>,
    /// How long each file is by them.
    lens: BTreeMap<String, u64>,
    /// Objects whose bytes lie in merged ones.
    merged: Vec<String>,
}

impl Beside {
    /// Goes on from the pieces that an opening found.
    pub fn new(lane: RemoteLane, dir: &Path, generation: u64, writer: u32, pieces: Vec<Piece>) -> Self {
        let lens = pieces.iter().map(|p| (p.file.clone(), p.from + p.len)).collect();
        let copied = Arc::new(Mutex::new(Copied { count: 0, pieces, lens, merged: Vec::new() }));
        Self { lane, dir: dir.to_path_buf(), names: prefix(generation, writer), copied }
    }

    fn copied(&self) -> MutexGuard<'_, Copied> {
        // A panic elsewhere leaves a list whose last piece may not have been put, which is put again.
        self.copied.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Copies what a file has behind `from` bytes. Returns once it is there, however long that takes.
    pub fn push(&self, file: &str, from: u64) -> Result<()> {
        let mut copied = self.copied();
        let from = from.min(copied.lens.get(file).copied().unwrap_or(0));
        let piece = self.put(&mut copied.count, file, from, 0, true)?;
        copied.lens.insert(file.to_owned(), piece.from + piece.len);
        copied.pieces.push(piece);
        Ok(())
    }

    fn put(&self, count: &mut u64, file: &str, from: u64, level: u8, commit: bool) -> Result<Piece> {
        let (from, rest) = io::read_behind(&self.dir.join(file), from)?;
        let object = format!("{}{count:010}", self.names);
        let sealed = to_bytes(file, from, &rest);
        self.lane.put(&object, &sealed, commit)?;
        *count += 1;
        let sha256 = Sha256::digest(&sealed).into();
        Ok(Piece { object, sha256, file: file.to_owned(), from, len: rest.len() as u64, level })
    }

    /// Copies what has not been, and returns the pieces that give all files as they are.
    pub fn catch_up(&self, commit: bool) -> Result<Vec<Piece>> {
        let mut copied = self.copied();
        let Copied { count, pieces, lens, merged } = &mut *copied;
        for file in io::list(&self.dir)?.into_iter().filter(|n| is_copied(n)) {
            let path = self.dir.join(&file);
            let have = std::fs::metadata(&path).map_err(io::failed("look at", &path))?.len();
            let known = lens.get(&file).copied().unwrap_or(0);
            if have != known {
                let piece = self.put(count, &file, known.min(have), 0, commit)?;
                lens.insert(file.clone(), piece.from + piece.len);
                pieces.push(piece);
            }
            // A file that grows for years must not end as a heap of pieces.
            loop {
                let own: Vec<&Piece> = pieces.iter().filter(|p| p.file == file).collect();
                let level = own.last().map_or(0, |p| p.level);
                // All of the level, or what is left over would stand between those of the next for good.
                let tail: Vec<&Piece> = own.into_iter().rev().take_while(|p| p.level == level).collect();
                if tail.len() < MERGE || tail.iter().map(|p| p.len).sum::<u64>() > LARGEST {
                    break;
                }
                let from = tail.iter().map(|p| p.from).min().unwrap_or(0);
                let gone: BTreeSet<String> = tail.iter().map(|p| p.object.clone()).collect();
                let piece = self.put(count, &file, from, level.saturating_add(1), commit)?;
                lens.insert(file.clone(), piece.from + piece.len);
                pieces.retain(|p| !gone.contains(&p.object));
                pieces.push(piece);
                merged.extend(gone);
            }
        }
        Ok(pieces.clone())
    }
}

impl Beside {
    /// The objects whose bytes lie in merged ones, which a manifest has named since; each is told once.
    pub fn merged(&self) -> Vec<String> {
        std::mem::take(&mut self.copied().merged)
    }
}

/// What an opening found.
#[derive(Debug, Default)]
pub(in crate::store) struct Found {
    /// Pieces that are whole.
    pub pieces: Vec<Piece>,
    /// Those that are not.
    pub lost: Vec<Damage>,
    pub downloaded: u64,
}

/// Brings the files beside a lane to what the manifest and its writer's later pieces say. `ours`: the manifest is of the
/// last writer in this directory, so what a file here has beyond the copy is only not copied yet.
pub(in crate::store) fn fetch(
    dir: &Path,
    lane: &RemoteLane,
    manifest: &Manifest,
    there: &BTreeSet<String>,
    ours: bool,
) -> Result<Found> {
    let mut out = Found::default();
    let mut files: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    let mut apply = |file: &str, from: u64, bytes: &[u8]| {
        let content = files.entry(file.to_owned()).or_default();
        content.truncate(usize::try_from(from).unwrap_or(usize::MAX));
        // A gap is what a lost piece held; its lines are gone, those behind it stand.
        content.extend_from_slice(bytes);
    };
    let later = prefix(manifest.generation, manifest.writer as u32);
    let named = manifest.beside.iter().map(|p| (p.object.clone(), Some(p)));
    let loose = there.iter().filter(|n| n.starts_with(&later) && manifest.beside.iter().all(|p| p.object != **n));
    // Of a merged piece's forerunners some may be left; they come before what the manifest names.
    let last = manifest.beside.iter().filter(|p| p.object.starts_with(&later)).map(|p| &p.object).max();
    let loose = loose.filter(|n| last.is_none_or(|last| *n > last)).map(|n| (n.clone(), None));
    for (object, piece) in named.chain(loose) {
        let read = match lane.get(&object, false)? {
            None => Err("it is missing".to_owned()),
            Some(bytes) if piece.is_some_and(|p| Sha256::digest(&bytes)[..] != p.sha256) => {
                Err("its SHA-256 is not the one it was put with".to_owned())
            }
            Some(bytes) => {
                out.downloaded += bytes.len() as u64;
                match from_bytes(&bytes) {
                    Ok(read) if is_copied(&read.0) => Ok((Sha256::digest(&bytes).into(), read)),
                    _ => Err("it is no piece".to_owned()),
                }
            }
        };
        match read {
            Ok((sha256, (file, from, bytes))) => {
                apply(&file, from, &bytes);
                let level = piece.map_or(0, |p| p.level);
                out.pieces.push(Piece { object, sha256, file, from, len: bytes.len() as u64, level });
            }
            Err(why) => out.lost.push(Damage { file: object, why }),
        }
    }
    for (file, content) in files {
        let path = dir.join(&file);
        let here = io::read_if_there(&path)?.unwrap_or_default();
        let keep = here == content || (ours && (here.starts_with(&content) || !out.lost.is_empty()));
        if !keep {
            io::replace(&path, &content, true)?;
            io::sync_dir(dir)?;
        }
    }
    Ok(out)
}
