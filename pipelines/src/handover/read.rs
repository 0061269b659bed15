//! Reading an export, believing nothing of it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use avouch_engine::bundle::SignedCheckpoint;
use avouch_engine::event::LaneEvent;
use avouch_engine::identity::KeySet;
use avouch_engine::verdict::{Hash32, Logged, NO_MODEL};
use serde::Deserialize;
use sha2::{Digest as _, Sha256};

use super::frames::{FrameReader, failed};
use super::reading::Reading;
use super::{FORMAT, HandoverError, Head, file};
use crate::lang::hex_bytes;
use crate::runtime::{keys_path, reference_path, signed};

/// An export on this machine.
#[derive(Debug, Clone)]
pub struct Handover {
    /// Where it lies.
    pub dir: PathBuf,
    /// What it says of itself.
    pub head: Head,
    /// The signed checkpoints.
    pub signed: Vec<SignedCheckpoint>,
    /// The offsets read at their sizes.
    pub offsets: BTreeMap<u64, i64>,
    /// Model files by what their SHA-256 is.
    pub models: BTreeMap<Hash32, PathBuf>,
    /// Canonical pipelines by what their SHA-256 is.
    pub pipelines: BTreeMap<Hash32, String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OffsetLine {
    size: u64,
    next_offset: i64,
}

impl Handover {
    /// Opens an export. Models and pipelines are hashed; a file that is not what its name says goes by what it is.
    ///
    /// # Errors
    /// When it is none, or a file of it cannot be read.
    pub fn open(dir: &Path) -> Result<Self, HandoverError> {
        let path = dir.join(file::HEAD);
        let malformed = |path: &Path, why: String| HandoverError::Malformed { path: path.to_path_buf(), why };
        let text = std::fs::read_to_string(&path).map_err(failed(&path))?;
        let head: Head = serde_json::from_str(&text).map_err(|e| malformed(&path, e.to_string()))?;
        if head.format != FORMAT {
            return Err(malformed(&path, format!("its format is {:?}, not {FORMAT:?}", head.format)));
        }
        let path = dir.join(file::OFFSETS);
        let text = std::fs::read_to_string(&path).map_err(failed(&path))?;
        let mut offsets = BTreeMap::new();
        for (n, line) in text.lines().enumerate() {
            let OffsetLine { size, next_offset } =
                serde_json::from_str(line).map_err(|e| malformed(&path, format!("line {}: {e}", n + 1)))?;
            offsets.insert(size, next_offset);
        }
        let (mut models, mut pipelines) = (BTreeMap::new(), BTreeMap::new());
        for path in listed(&dir.join("models"))? {
            models.insert(Sha256::digest(std::fs::read(&path).map_err(failed(&path))?).into(), path);
        }
        for path in listed(&dir.join("pipelines"))? {
            let text = std::fs::read_to_string(&path).map_err(failed(&path))?;
            pipelines.insert(Sha256::digest(&text).into(), text);
        }
        Ok(Self { dir: dir.to_path_buf(), head, signed: signed::all(dir)?, offsets, models, pipelines })
    }

    /// The hash in the head's `config`.
    ///
    /// # Errors
    /// When it is no hash.
    pub fn config(&self) -> Result<Hash32, HandoverError> {
        self.hash(&self.head.config)
    }

    /// A hash of the head.
    ///
    /// # Errors
    /// When it is none.
    pub fn hash(&self, text: &str) -> Result<Hash32, HandoverError> {
        hex_bytes(text).ok_or_else(|| HandoverError::Malformed {
            path: self.dir.join(file::HEAD),
            why: format!("{text:?} is not a hash of 64 hexadecimal digits"),
        })
    }

    /// Reads the records of the log, piece by piece: see [`Records::next`].
    ///
    /// # Errors
    /// When there are none.
    pub fn records(&self) -> Result<Records, HandoverError> {
        Ok(Records(FrameReader::open(self.dir.join(file::RECORDS))?))
    }

    /// The models that the records name, by going through all of them.
    ///
    /// # Errors
    /// As [`Records::next`].
    pub fn models_named(&self) -> Result<BTreeSet<Hash32>, HandoverError> {
        let (mut records, mut models) = (self.records()?, BTreeSet::new());
        loop {
            let piece = records.next()?;
            if piece.is_empty() {
                models.remove(&NO_MODEL);
                return Ok(models);
            }
            models.extend(piece.iter().filter_map(Logged::record).map(|r| r.verdict.model_hash));
        }
    }

    /// All events, in order.
    ///
    /// # Errors
    /// When the file cannot be read, or does not hold events.
    pub fn events(&self) -> Result<Vec<LaneEvent>, HandoverError> {
        let mut frames = FrameReader::open(self.dir.join(file::EVENTS))?;
        let path = frames.path.clone();
        let mut events = Vec::new();
        while let Some(bytes) = frames.next()? {
            let event = LaneEvent::from_bytes(bytes);
            events.push(event.map_err(|source| HandoverError::Codec { path: path.clone(), source })?);
        }
        Ok(events)
    }

    /// Reads the records of the source, piece by piece: see [`Readings::next`].
    ///
    /// # Errors
    /// When they were not exported.
    pub fn readings(&self) -> Result<Readings, HandoverError> {
        let path = self.dir.join(file::READINGS);
        if !self.head.readings {
            let why = "the readings were not exported; `avouch export --readings` fetches them".to_owned();
            return Err(HandoverError::Malformed { path, why });
        }
        Ok(Readings(FrameReader::open(path)?))
    }

    /// A version of a reference table, or of keys of devices, as it was kept; the caller compares its hash.
    ///
    /// # Errors
    /// When it is not there.
    pub fn version(&self, name: &str, version: &Hash32) -> Result<Vec<u8>, HandoverError> {
        let path = if KeySet::is_name(name) { keys_path } else { reference_path };
        let path = path(&self.dir, version);
        std::fs::read(&path).map_err(failed(&path))
    }
}

/// Records given at once.
const PIECE: usize = 4_096;

/// The exported records of the log.
pub struct Records(FrameReader);

impl Records {
    /// The next some thousand, in order; none at the end.
    ///
    /// # Errors
    /// When the file cannot be read, or does not hold records.
    #[allow(clippy::should_implement_trait)]
    pub fn next(&mut self) -> Result<Vec<Logged>, HandoverError> {
        let mut out = Vec::with_capacity(PIECE);
        while out.len() < PIECE {
            let path = self.0.path.clone();
            let Some(frame) = self.0.next()? else { break };
            out.push(Logged::from_bytes(frame).map_err(|source| HandoverError::Codec { path, source })?);
        }
        Ok(out)
    }
}

/// The exported records of the source.
pub struct Readings(FrameReader);

impl Readings {
    /// The next some thousand; none at the end.
    ///
    /// # Errors
    /// When the file cannot be read, or does not hold readings.
    #[allow(clippy::should_implement_trait)]
    pub fn next(&mut self) -> Result<Vec<Reading>, HandoverError> {
        let mut out = Vec::new();
        let mut bytes = 0;
        while out.len() < PIECE && bytes < PIECE_BYTES {
            let path = self.0.path.clone();
            let Some(frame) = self.0.next()? else { break };
            bytes += frame.len();
            out.push(Reading::from_bytes(frame).map_err(|source| HandoverError::Codec { path, source })?);
        }
        Ok(out)
    }
}

/// … of so many bytes.
const PIECE_BYTES: usize = 16 << 20;

fn listed(dir: &Path) -> Result<Vec<PathBuf>, HandoverError> {
    let entries = match std::fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(failed(dir)(e)),
    };
    let mut out = Vec::new();
    for entry in entries {
        out.push(entry.map_err(failed(dir))?.path());
    }
    out.sort();
    Ok(out)
}
