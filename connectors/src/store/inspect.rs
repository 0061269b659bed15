//! Looking at checkpoints without changing or locking anything: what `avouch state` shows.

use std::path::Path;
use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::checkpoint::{self, Committed, Saved};
use super::recover;
use super::remote::manifest::{self, Manifest};
use super::{Cursor, RemoteLane, StoreError, io};

type Result<T> = std::result::Result<T, StoreError>;

/// A stretch of a lane's state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SectionReport {
    /// Such as `devices/names`.
    pub name: String,
    /// How many things it holds, 0 where there is nothing to count.
    pub items: u64,
    /// Its bytes.
    pub bytes: u64,
}

/// What a checkpoint that can be read says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contents {
    /// What it covers.
    pub committed: Arc<Committed>,
    /// What its state is made of, in order.
    pub sections: Vec<SectionReport>,
    /// Chunks of the state.
    pub chunks: u64,
    /// Files, or objects, that hold them, and how many bytes those have.
    pub packs: Vec<(String, u64)>,
    /// Sinks' cursors kept beside the lane, by name. A directory has only the present ones, whichever the checkpoint.
    pub cursors: Vec<(String, u64)>,
}

/// One checkpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckpointReport {
    /// Its number; of a manifest that cannot be read, the number of the manifest.
    pub number: u64,
    /// The file or object it is in.
    pub file: String,
    /// What it says, if it can be read.
    pub contents: Option<Contents>,
    /// Why it cannot be used, if it cannot.
    pub damaged: Option<String>,
}

fn contents(saved: &Saved, cursors: &[(String, u64)]) -> Contents {
    let section = |(s, bytes): (&avouch_engine::codec::Section, u64)| SectionReport {
        name: s.name.clone(),
        items: s.items,
        bytes,
    };
    Contents {
        committed: Arc::clone(&saved.committed),
        sections: saved.table.section_lengths().into_iter().map(section).collect(),
        chunks: saved.table.chunks() as u64,
        packs: saved.table.packs.iter().map(|p| (p.name.clone(), p.len)).collect(),
        cursors: cursors.to_vec(),
    }
}

/// The checkpoints of a lane's directory, newest first. Every byte they need is read and compared with its digest, checksum
/// or root. A writer may be at work meanwhile.
///
/// # Errors
/// [`StoreError::NoStore`] when there is none; [`StoreError::Io`]; [`StoreError::Version`].
pub fn inspect_dir(dir: &Path) -> Result<Vec<CheckpointReport>> {
    let mut cursors = Vec::new();
    for sink in io::list(dir)?.iter().filter_map(|n| n.strip_prefix("cursor-")) {
        if let Ok(cursor) = Cursor::open(dir, sink) {
            cursors.push((sink.to_owned(), cursor.get()));
        }
    }
    let mut out = Vec::new();
    let mut frames_are_good = false;
    for number in checkpoint::list(dir)? {
        let mut report =
            CheckpointReport { number, file: checkpoint::file_name(number), contents: None, damaged: None };
        match checkpoint::read(dir, number)? {
            Err(why) => report.damaged = Some(why),
            Ok(saved) => {
                let c = &saved.committed;
                // The frames of earlier checkpoints are among those of later ones.
                let since = if frames_are_good { c.frames() } else { (0, 0, 0) };
                match recover::examine(dir, &saved, since)? {
                    Ok(_) => frames_are_good = true,
                    Err(why) => report.damaged = Some(why),
                }
                report.contents = Some(contents(&saved, &cursors));
            }
        }
        // Deleted while we looked, to make room for a newer one.
        if report.damaged.is_none() || checkpoint::path(dir, number).exists() {
            out.push(report);
        }
    }
    if out.is_empty() {
        return Err(StoreError::NoStore { dir: dir.to_path_buf() });
    }
    Ok(out)
}

/// The checkpoints of a lane in an object store, newest first. Names and sizes of all objects they need are compared; with
/// `verify` all are downloaded and compared with their digests.
///
/// # Errors
/// [`StoreError::NoStore`] when there is none; [`StoreError::Remote`]; [`StoreError::Version`].
pub fn inspect_remote(lane: &RemoteLane, verify: bool) -> Result<Vec<CheckpointReport>> {
    let listed: std::collections::BTreeMap<String, u64> = lane.list("", false)?.into_iter().collect();
    let mut numbers: Vec<u64> = listed.keys().filter_map(|n| manifest::number(n)).collect();
    numbers.sort_unstable_by(|a, b| b.cmp(a));
    let mut out: Vec<CheckpointReport> = Vec::new();
    for number in numbers {
        let name = manifest::name(number);
        let Some(bytes) = lane.get(&name, false)? else { continue };
        let manifest = match Manifest::parse(&bytes, number, &format!("{}/{name}", lane.url()))? {
            Ok(m) => m,
            Err(why) => {
                out.push(CheckpointReport { number, file: name, contents: None, damaged: Some(why) });
                continue;
            }
        };
        let seq = manifest.saved.committed.seq;
        // An opening states the checkpoint before once more.
        if out.last().is_some_and(|r| r.contents.as_ref().is_some_and(|c| c.committed.seq == seq)) {
            continue;
        }
        let damaged = check(lane, &manifest, &listed, verify)?;
        let cursors: Vec<_> = manifest.cursors.iter().map(|c| (c.sink.clone(), c.next)).collect();
        let contents = Some(contents(&manifest.saved, &cursors));
        out.push(CheckpointReport { number: seq, file: name, contents, damaged });
    }
    if out.is_empty() {
        return Err(StoreError::NoStore { dir: lane.url().into() });
    }
    Ok(out)
}

/// What is wrong with the objects a manifest needs.
fn check(
    lane: &RemoteLane,
    manifest: &Manifest,
    listed: &std::collections::BTreeMap<String, u64>,
    verify: bool,
) -> Result<Option<String>> {
    let parts = manifest.parts.iter().map(|p| (p.name.as_str(), p.len()));
    let packs = manifest.saved.table.packs.iter().map(|p| (p.name.as_str(), p.len));
    for (name, len) in parts.chain(packs) {
        match listed.get(name) {
            None => return Ok(Some(format!("{name} is missing"))),
            Some(have) if *have != len => return Ok(Some(format!("{name} has {have} bytes instead of {len}"))),
            Some(_) => {}
        }
        if !verify {
            continue;
        }
        let Some(bytes) = lane.get(name, false)? else { return Ok(Some(format!("{name} is missing"))) };
        let good = match manifest.parts.iter().find(|p| p.name == name) {
            Some(part) => Sha256::digest(&bytes)[..] == part.sha256,
            None => manifest.saved.table.accepts(name, &bytes),
        };
        if !good {
            return Ok(Some(format!("{name} is not as it was written: its SHA-256 differs")));
        }
    }
    Ok(None)
}
