//! The opening side: the local directory brought to what the newest good manifest says.
//!
//! Of the local files only what differs is downloaded. What a local checkpoint covers is trusted if a manifest in the
//! store has the same checkpoint and the data gives its root; where that fails, every part is compared by its SHA-256.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use sha2::{Digest, Sha256};

use super::RemoteLane;
use super::beside::{self, Piece};
use super::manifest::{self, EVENTS, HISTORY, Manifest, Part, STREAMS};
use super::mirror::Kept;
use crate::store::checkpoint::{self, Saved};
use crate::store::chunks::is_pack;
use crate::store::cursor::Cursor;
use crate::store::high_water::HighWater;
use crate::store::history::ROW;
use crate::store::recover::{self, Damage, Files};
use crate::store::replay::Replay;
use crate::store::stream::{StreamReader, StreamWriter};
use crate::store::{StoreError, io};

type Result<T> = std::result::Result<T, StoreError>;
/// Good, or why it is not.
type Judged<T> = std::result::Result<T, String>;

/// What was found and done.
#[derive(Debug, Default)]
pub(in crate::store) struct Fetched {
    /// Larger than any generation seen, minus one.
    pub generation: u64,
    /// Number of the next manifest.
    pub next: u64,
    /// The one the directory now agrees with; `None` if the store was empty.
    pub manifest: Option<Manifest>,
    pub kept: BTreeMap<u64, Kept>,
    pub there: BTreeSet<String>,
    /// Manifests newer than that which cannot be used, newest first.
    pub damaged: Vec<Damage>,
    /// Local files that were wrong and have been downloaded again.
    pub mended: Vec<Damage>,
    pub downloaded: u64,
    /// What gives the files beside the lane.
    pub beside: Vec<Piece>,
    /// Events that manifests which cannot be used covered and that were not to be had.
    pub lost_events: u64,
}

/// Brings a locked directory to the newest manifest that can be used. `last` is the generation of the last writer in it.
pub(in crate::store) fn fetch(dir: &Path, origin: &str, lane: &RemoteLane, last: u64) -> Result<Fetched> {
    let mut out = Fetched::default();
    let found = read_all(dir, origin, lane, &mut out)?;
    if found.is_empty() && out.damaged.is_empty() {
        return Ok(out);
    }
    let mut here = Vec::new();
    for seq in checkpoint::list(dir)? {
        here.extend(checkpoint::read(dir, seq)?.ok());
    }
    let mut rejected: Vec<&Manifest> = Vec::new();
    for manifest in &found {
        let bring = Bring { dir, lane, manifest, known: &found };
        let why = match bring.run(&mut out)? {
            Ok(()) => {
                // Names sort as their numbers do.
                let stands = manifest::name(manifest.number);
                out.damaged.sort_by(|a, b| b.file.cmp(&a.file));
                for d in out.damaged.iter().filter(|d| d.file < stands) {
                    tracing::warn!(
                        store = lane.url(),
                        file = d.file,
                        why = d.why,
                        "an old checkpoint in the object store is damaged"
                    );
                }
                out.damaged.retain(|d| d.file > stands);
                for d in &out.damaged {
                    tracing::error!(
                        store = lane.url(),
                        file = d.file,
                        why = d.why,
                        "a checkpoint in the object store cannot be used; falling back to checkpoint {} at log size {}",
                        manifest.saved.committed.seq,
                        manifest.saved.committed.log_size
                    );
                }
                bring.shown_beyond(&rejected, &here, &mut out)?;
                let found = beside::fetch(dir, lane, manifest, &out.there, manifest.generation == last)?;
                for d in &found.lost {
                    tracing::error!(
                        store = lane.url(),
                        file = d.file,
                        why = d.why,
                        "an object with refusals of sinks or signed checkpoints is lost; what it held is gone"
                    );
                }
                out.mended.extend(found.lost);
                out.downloaded += found.downloaded;
                out.beside = found.pieces;
                out.manifest = Some(manifest.clone());
                return Ok(out);
            }
            Err(why) => why,
        };
        rejected.push(manifest);
        out.damaged.push(Damage { file: manifest::name(manifest.number), why });
    }
    let reasons = out.damaged.iter().map(|d| format!("\n  {}: {}", d.file, d.why)).collect();
    Err(StoreError::NoUsableCheckpoint { dir: lane.url().into(), reasons })
}

/// Reads all manifests, newest first.
fn read_all(dir: &Path, origin: &str, lane: &RemoteLane, out: &mut Fetched) -> Result<Vec<Manifest>> {
    let mut found = Vec::new();
    out.there = lane.list("", false)?.into_iter().map(|(name, _)| name).collect();
    let mut numbers: Vec<u64> = out.there.iter().filter_map(|n| manifest::number(n)).collect();
    numbers.sort_unstable_by(|a, b| b.cmp(a));
    out.next = numbers.first().map_or(0, |n| n + 1);
    if numbers.is_empty() {
        let data = |n: &&String| is_pack(n) || manifest::is_part(n);
        if let Some(name) = out.there.iter().find(data)
            && checkpoint::list(dir)?.is_empty()
        {
            return Err(StoreError::MissingCheckpoints { dir: lane.url().into(), found: name.clone() });
        }
    }
    for number in numbers {
        let name = manifest::name(number);
        let read = match lane.get(&name, false)? {
            // Its writer deletes old ones while we look.
            None if number + 1 < out.next => continue,
            None => Err("it is gone".to_owned()),
            Some(bytes) => Manifest::parse(&bytes, number, &format!("{}/{name}", lane.url()))?,
        };
        match read {
            Ok(m) if m.saved.committed.origin != origin => {
                return Err(StoreError::WrongLog {
                    dir: lane.url().into(),
                    found: m.saved.committed.origin.clone(),
                    expected: origin.to_owned(),
                });
            }
            Ok(m) => {
                out.generation = out.generation.max(m.generation);
                out.kept.insert(number, Kept { seq: Some(m.saved.committed.seq), objects: m.objects() });
                found.push(m);
            }
            Err(why) => {
                out.kept.insert(number, Kept { seq: None, objects: BTreeSet::new() });
                out.damaged.push(Damage { file: name, why });
            }
        }
    }
    // Each of those that cannot be read may have been of a generation of its own.
    out.generation += out.damaged.len() as u64;
    Ok(found)
}

struct Bring<'a> {
    dir: &'a Path,
    lane: &'a RemoteLane,
    manifest: &'a Manifest,
    known: &'a [Manifest],
}

impl Bring<'_> {
    fn run(&self, out: &mut Fetched) -> Result<Judged<()>> {
        let c = &self.manifest.saved.committed;
        let base = self.trusted()?;
        if base != [0; STREAMS] {
            match self.attempt(base, out)? {
                Ok(()) => return self.settle(),
                Err(why) => tracing::warn!(
                    dir = %self.dir.display(), checkpoint = c.seq, why,
                    "the local copy of the lane is not as it should be; comparing all of it with the object store"
                ),
            }
        }
        match self.attempt([0; STREAMS], out)? {
            Ok(()) => self.settle(),
            Err(why) => Ok(Err(why)),
        }
    }

    /// How far the local runs need no comparison.
    fn trusted(&self) -> Result<[u64; STREAMS]> {
        let ours = manifest::lengths(&self.manifest.saved);
        for seq in checkpoint::list(self.dir)? {
            let Some(bytes) = io::read_if_there(&checkpoint::path(self.dir, seq))? else { continue };
            let same = |m: &&Manifest| m.saved.committed.seq == seq && m.saved.to_bytes() == bytes;
            if let Some(m) = self.known.iter().find(same) {
                let theirs = manifest::lengths(&m.saved);
                if theirs.iter().zip(ours).all(|(t, o)| *t <= o) {
                    return Ok(theirs);
                }
            }
        }
        Ok([0; STREAMS])
    }

    /// Downloads what is not there or differs, then examines the whole.
    fn attempt(&self, base: [u64; STREAMS], out: &mut Fetched) -> Result<Judged<()>> {
        let saved = &self.manifest.saved;
        let files = Files::new(self.dir, saved.committed.segment_bytes);
        let runs = files.copied();
        let mut changed = false;
        for part in &self.manifest.parts {
            if part.ranges.iter().zip(base).all(|((_, to), base)| *to <= base) {
                continue;
            }
            let there = local(&runs.map(|l| StreamReader::new(l.clone())), part)?;
            if there.as_ref().is_some_and(|bytes| Sha256::digest(bytes)[..] == part.sha256) {
                continue;
            }
            let Some(bytes) = self.lane.get(&part.name, false)? else {
                return Ok(Err(format!("{} is missing", part.name)));
            };
            out.downloaded += bytes.len() as u64;
            if bytes.len() as u64 != part.len() || Sha256::digest(&bytes)[..] != part.sha256 {
                return Ok(Err(format!("{} is damaged: its SHA-256 is not the one it was put with", part.name)));
            }
            changed = true;
            let mut rest = bytes.as_slice();
            for (layout, (from, to)) in runs.iter().zip(part.ranges) {
                let (here, after) = rest.split_at(usize::try_from(to - from).unwrap_or(usize::MAX));
                let mut writer = StreamWriter::new((*layout).clone(), from);
                writer.append(here)?;
                writer.sync()?;
                rest = after;
            }
        }
        if let Err(why) = self.packs(saved, out)? {
            return Ok(Err(why));
        }
        if changed || files.derived_are_short(&saved.committed)? {
            match recover::derive(&files, &saved.committed) {
                Ok(()) => {}
                Err(StoreError::Damaged { file, why }) => return Ok(Err(format!("{file}: {why}"))),
                Err(e) => return Err(e),
            }
        }
        // As far back as an opening without an object store looks.
        let mut since = saved.committed.frames();
        for seq in checkpoint::list(self.dir)? {
            if let Ok(local) = checkpoint::read(self.dir, seq)? {
                since = since.min(local.committed.frames());
            }
        }
        Ok(recover::examine(self.dir, saved, since)?.map(|_| ()))
    }

    /// Keeps what was shown beyond this manifest, and the inputs recorded beyond it, before anything goes on from it.
    /// `rejected`, newest first, could not be used; `here` are the checkpoints that were in the directory.
    fn shown_beyond(&self, rejected: &[&Manifest], here: &[Saved], out: &mut Fetched) -> Result<()> {
        let c = &self.manifest.saved.committed;
        // A manifest that cannot be read at all may be the one of a newer checkpoint that is here.
        let unread = out.damaged.iter().any(|d| rejected.iter().all(|m| manifest::name(m.number) != d.file));
        let here: Vec<&Saved> = here.iter().filter(|s| unread && s.committed.seq > c.seq).collect();
        let told = rejected.iter().map(|m| &m.saved).chain(here.iter().copied());
        let shown = told.map(|s| HighWater::of(&s.committed)).chain(self.manifest.high_water);
        HighWater::raise(self.dir, c.log_size, shown)?;

        let mut replay = Replay::read(self.dir)?.beyond(c);
        replay.add(self.manifest.replay.clone().beyond(c));
        let (mut covered, mut there) = (c.event_count, c.event_count);
        for m in rejected {
            covered = covered.max(m.saved.committed.event_count);
            if there < covered {
                let bytes = self.run_of(m, EVENTS, c.events_len, out)?;
                there = there.max(replay.take(c.event_count, &bytes, Some(m.saved.committed.event_count)));
            }
            replay.take_rows(&self.run_of(m, HISTORY, c.history_rows * ROW, out)?, c.log_size);
            replay.add(m.replay.clone().beyond(c));
        }
        for saved in here {
            let n = saved.committed.event_count;
            covered = covered.max(n);
            let files = Files::new(self.dir, c.segment_bytes);
            replay.take_history(&files, c)?;
            if there < covered {
                there = there.max(replay.take_run(&files, c.events_len, c.event_count, Some(n))?);
            }
        }
        out.lost_events = covered - there.min(covered);
        replay.keep(self.dir)
    }

    /// A run of a manifest behind `from` bytes, as far as its parts can be had.
    fn run_of(&self, m: &Manifest, run: usize, from: u64, out: &mut Fetched) -> Result<Vec<u8>> {
        let runs = Files::new(self.dir, m.saved.committed.segment_bytes).copied().map(|l| StreamReader::new(l.clone()));
        let mut out_bytes = Vec::new();
        for part in m.parts.iter().filter(|p| p.ranges[run].1 > from && p.ranges[run].0 < p.ranges[run].1) {
            let good = |bytes: &Vec<u8>| Sha256::digest(bytes)[..] == part.sha256;
            let bytes = match local(&runs, part)?.filter(good) {
                Some(bytes) => bytes,
                None => match self.lane.get(&part.name, false)?.filter(good) {
                    Some(bytes) => {
                        out.downloaded += bytes.len() as u64;
                        bytes
                    }
                    None => break,
                },
            };
            // The runs of a part stand one behind the other.
            let before: u64 = part.ranges[..run].iter().map(|(from, to)| to - from).sum();
            let (begins, ends) = part.ranges[run];
            let at = |n: u64| usize::try_from(before + n - begins).unwrap_or(usize::MAX);
            out_bytes.extend_from_slice(&bytes[at(begins.max(from))..at(ends)]);
        }
        Ok(out_bytes)
    }

    fn packs(&self, saved: &Saved, out: &mut Fetched) -> Result<Judged<()>> {
        let Err(bad) = saved.table.read(self.dir)? else { return Ok(Ok(())) };
        for (name, why) in bad {
            let Some(bytes) = self.lane.get(&name, false)? else {
                return Ok(Err(format!("{name} is missing in the object store, and here {why}")));
            };
            out.downloaded += bytes.len() as u64;
            if !saved.table.accepts(&name, &bytes) {
                return Ok(Err(format!(
                    "{name} is damaged: the SHA-256 of a chunk is not the one it was written with"
                )));
            }
            let path = self.dir.join(&name);
            if path.exists() {
                tracing::error!(file = %path.display(), why, "a local file is damaged and is downloaded again");
                out.mended.push(Damage { file: name, why });
            }
            io::replace(&path, &bytes, true)?;
        }
        io::sync_dir(self.dir)?;
        Ok(Ok(()))
    }

    /// Makes the manifest's checkpoint the local one, and takes over cursors that are further.
    fn settle(&self) -> Result<Judged<()>> {
        let saved = &self.manifest.saved;
        let (seq, ours) = (saved.committed.seq, saved.to_bytes());
        for local in checkpoint::list(self.dir)? {
            let path = checkpoint::path(self.dir, local);
            let bytes = io::read_if_there(&path)?.unwrap_or_default();
            let known = |m: &Manifest| {
                m.number <= self.manifest.number && m.saved.committed.seq == local && m.saved.to_bytes() == bytes
            };
            // Newer than what stands, or of a history that the store does not have.
            if local > seq || !self.known.iter().any(known) {
                io::remove(&path)?;
            }
        }
        if io::read_if_there(&checkpoint::path(self.dir, seq))?.as_ref() != Some(&ours) {
            checkpoint::write(self.dir, seq, &ours)?;
        }
        for c in &self.manifest.cursors {
            match Cursor::open(self.dir, &c.sink) {
                Ok(mut cursor) if cursor.get() < c.next => cursor.set_with(c.next, &c.note)?,
                Ok(_) => {}
                // Its sink refuses it when it is opened.
                Err(StoreError::Damaged { .. }) => {}
                Err(StoreError::BadName { name }) => return Ok(Err(format!("{name:?} cannot name a cursor"))),
                Err(e) => return Err(e),
            }
        }
        Ok(Ok(()))
    }
}

/// A part's bytes as the local files have them; `None` where they are too short.
fn local(runs: &[StreamReader; STREAMS], part: &Part) -> Result<Option<Vec<u8>>> {
    let mut out = Vec::new();
    for (run, (from, to)) in runs.iter().zip(part.ranges) {
        match run.read(from, usize::try_from(to - from).unwrap_or(usize::MAX)) {
            Ok(bytes) => out.extend(bytes),
            Err(StoreError::Damaged { .. }) => return Ok(None),
            Err(e) => return Err(e),
        }
    }
    Ok(Some(out))
}
