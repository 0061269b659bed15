//! The writing side: every checkpoint copied, manifest by manifest.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::beside::{Beside, is_beside};
use super::fetch::Fetched;
use super::manifest::{self, Manifest, ManifestKind, Part, STREAMS, SinkCursor};
use super::{RemoteLane, nonce};
use crate::store::checkpoint::{Saved, now};
use crate::store::chunks::is_pack;
use crate::store::cursor::Cursor;
use crate::store::high_water::HighWater;
use crate::store::recover::Files;
use crate::store::replay::Replay;
use crate::store::stream::StreamReader;
use crate::store::{StoreError, io};

type Result<T> = std::result::Result<T, StoreError>;

/// The largest part.
const PART: u64 = 64 << 20;
/// This many parts of one level become one of the next, so that a long log does not end as a heap of small parts.
const MERGE: usize = 8;
/// Puts under way at once.
const AT_ONCE: usize = 4;

/// What is known of a manifest in the store.
#[derive(Debug, Clone)]
pub(in crate::store) struct Kept {
    /// Its checkpoint; `None` if it cannot be read.
    pub seq: Option<u64>,
    pub objects: BTreeSet<String>,
}

/// How a race for a manifest's number ended.
#[derive(Debug)]
pub(in crate::store) enum Put {
    Won,
    /// Another writer has it.
    Lost {
        by: String,
        /// Whether that one only made a checkpoint, rather than taking the lane over.
        commit: bool,
    },
}

/// Copies one lane, as its one writer.
#[derive(Debug)]
pub(in crate::store) struct Mirror {
    lane: RemoteLane,
    dir: PathBuf,
    runs: [StreamReader; STREAMS],
    generation: u64,
    writer: u64,
    /// Number of the next manifest.
    next: u64,
    parts: Vec<Part>,
    kept: BTreeMap<u64, Kept>,
    /// Objects known to be there.
    there: BTreeSet<String>,
    keep: usize,
    beside: Beside,
}

impl Mirror {
    /// Goes on from what an opening found.
    pub fn new(
        lane: RemoteLane,
        dir: &Path,
        files: &Files,
        generation: u64,
        keep: usize,
        fetched: &Fetched,
    ) -> Result<Self> {
        let writer = nonce()?;
        Ok(Self {
            beside: Beside::new(lane.clone(), dir, generation, writer as u32, fetched.beside.clone()),
            lane,
            dir: dir.to_path_buf(),
            runs: files.copied().map(|layout| StreamReader::new(layout.clone())),
            generation,
            writer,
            next: fetched.next,
            parts: fetched.manifest.as_ref().map(|m| m.parts.clone()).unwrap_or_default(),
            kept: fetched.kept.clone(),
            there: fetched.there.clone(),
            keep: keep.max(1),
        })
    }

    /// The part of the random number that stands in the names of objects.
    pub fn short_writer(&self) -> u32 {
        self.writer as u32
    }

    /// What copies the files beside the lane.
    pub fn beside(&self) -> Beside {
        self.beside.clone()
    }

    pub fn url(&self) -> String {
        self.lane.url()
    }

    /// Copies what the store does not have of a checkpoint, then puts the manifest.
    pub fn put(&mut self, kind: ManifestKind, saved: &Saved) -> Result<Put> {
        let commit = kind == ManifestKind::Commit;
        let new: Vec<&String> =
            saved.table.packs.iter().map(|p| &p.name).filter(|n| !self.there.contains(*n)).collect();
        for some in new.chunks(AT_ONCE) {
            let (dir, lane) = (&self.dir, &self.lane);
            std::thread::scope(|threads| -> Result<()> {
                let each: Vec<_> = some
                    .iter()
                    .map(|name| {
                        threads.spawn(move || {
                            let path = dir.join(name);
                            let bytes = std::fs::read(&path).map_err(io::failed("read", &path))?;
                            lane.put(name, &bytes, commit)
                        })
                    })
                    .collect();
                for thread in each {
                    match thread.join() {
                        Ok(done) => done?,
                        Err(_) => return Err(StoreError::Failed { why: "an uploading thread panicked".into() }),
                    };
                }
                Ok(())
            })?;
        }
        let new: Vec<String> = new.into_iter().cloned().collect();
        self.there.extend(new);

        let parts = self.parts_for(saved, commit)?;
        let number = self.next;
        let manifest = Manifest {
            number,
            kind,
            generation: self.generation,
            writer: self.writer,
            put_at: now(),
            parts,
            cursors: self.cursors()?,
            high_water: HighWater::read(&self.dir)?.filter(|row| row.log_size > saved.committed.log_size),
            replay: Replay::read(&self.dir)?.beyond(&saved.committed),
            beside: self.beside.catch_up(commit)?,
            saved: saved.clone(),
        };
        let (name, bytes) = (manifest::name(number), manifest.to_bytes());
        if !self.lane.put(&name, &bytes, commit)? {
            // Ours after all, if only the answer to the first attempt was lost.
            let there = self.lane.get(&name, commit)?.unwrap_or_default();
            if there != bytes {
                return Ok(self.lost(number, &there));
            }
        }
        // The number may have been free only because its manifest was deleted since.
        let above = |(n, _): &(String, u64)| manifest::number(n).filter(|n| *n > number);
        if let Some(newest) = self.lane.list("manifest-", commit)?.iter().filter_map(above).max() {
            self.lane.discard(&name);
            let there = self.lane.get(&manifest::name(newest), commit)?.unwrap_or_default();
            return Ok(self.lost(newest, &there));
        }
        self.next = number + 1;
        self.kept.insert(number, Kept { seq: Some(saved.committed.seq), objects: manifest.objects() });
        self.parts = manifest.parts;
        self.prune();
        for name in self.beside.merged() {
            // Those that a kept manifest names go with it.
            if !self.kept.values().any(|k| k.objects.contains(&name)) {
                self.lane.discard(&name);
            }
        }
        Ok(Put::Won)
    }

    fn lost(&self, number: u64, there: &[u8]) -> Put {
        let name = manifest::name(number);
        match Manifest::parse(there, number, &name) {
            Ok(Ok(m)) => Put::Lost {
                by: format!("{name} in {} is of a writer of generation {}", self.url(), m.generation),
                commit: m.kind == ManifestKind::Commit,
            },
            _ => Put::Lost { by: format!("{name} in {} is another writer's", self.url()), commit: false },
        }
    }

    /// The parts that hold all a checkpoint covers: those there are, and new ones, which are put.
    fn parts_for(&self, saved: &Saved, commit: bool) -> Result<Vec<Part>> {
        let planned = plan(&self.parts, manifest::lengths(saved));
        let mut parts = Vec::with_capacity(planned.len());
        for (piece, part) in planned.into_iter().enumerate() {
            parts.push(match part {
                Planned::There(part) => part,
                Planned::New { ranges, level } => self.put_part(ranges, level, piece, commit)?,
            });
        }
        Ok(parts)
    }

    fn put_part(&self, ranges: [(u64, u64); STREAMS], level: u8, piece: usize, commit: bool) -> Result<Part> {
        let mut bytes = Vec::new();
        for (run, (from, to)) in self.runs.iter().zip(ranges) {
            bytes.extend(run.read(from, usize::try_from(to - from).unwrap_or(usize::MAX))?);
        }
        let name = format!("part-{:06}-{:010}-{piece:04}-{:08x}", self.generation, self.next, self.short_writer());
        self.lane.put(&name, &bytes, commit)?;
        Ok(Part { name, sha256: Sha256::digest(&bytes).into(), ranges, level })
    }

    /// Where the sinks that keep their cursors beside the lane have got to.
    fn cursors(&self) -> Result<Vec<SinkCursor>> {
        let names = io::list(&self.dir)?;
        let sinks = names.iter().filter_map(|n| n.strip_prefix("cursor-")).filter(|n| !n.ends_with(".tmp"));
        let mut out = Vec::new();
        for sink in sinks {
            match Cursor::open(&self.dir, sink) {
                Ok(cursor) => {
                    out.push(SinkCursor { sink: sink.to_owned(), next: cursor.get(), note: cursor.note().to_owned() });
                }
                // Its sink says so when it is opened.
                Err(StoreError::Damaged { .. }) => {}
                Err(e) => return Err(e),
            }
        }
        Ok(out)
    }

    /// Deletes the manifests that are not needed, then the objects that only they referred to.
    fn prune(&mut self) {
        let (mut last, mut left) = (None, self.keep);
        let mut old = Vec::new();
        for (number, kept) in self.kept.iter().rev() {
            // One manifest a checkpoint is enough; one of a later checkpoint than its successor was given up.
            let needed = left > 0 && kept.seq.is_none_or(|seq| last.is_none_or(|last| seq < last));
            if !needed {
                old.push(*number);
            } else if kept.seq.is_some() {
                last = kept.seq;
                left -= 1;
            }
        }
        let mut gone = BTreeSet::new();
        for number in old {
            if self.lane.discard(&manifest::name(number))
                && let Some(kept) = self.kept.remove(&number)
            {
                gone.extend(kept.objects);
            }
        }
        for name in gone {
            if !self.kept.values().any(|k| k.objects.contains(&name)) && self.lane.discard(&name) {
                self.there.remove(&name);
            }
        }
    }

    /// Deletes objects that no manifest refers to: what a writer put before it was killed or lost the lane.
    pub fn sweep(&mut self) {
        let loose: Vec<String> = self
            .there
            .iter()
            .filter(|n| is_pack(n) || manifest::is_part(n) || is_beside(n))
            .filter(|n| !self.kept.values().any(|k| k.objects.contains(*n)))
            .cloned()
            .collect();
        for name in loose {
            if self.lane.discard(&name) {
                self.there.remove(&name);
            }
        }
    }
}

#[derive(Debug)]
enum Planned {
    There(Part),
    New { ranges: [(u64, u64); STREAMS], level: u8 },
}

impl Planned {
    fn ranges(&self) -> &[(u64, u64); STREAMS] {
        match self {
            Planned::There(part) => &part.ranges,
            Planned::New { ranges, .. } => ranges,
        }
    }
    fn level(&self) -> u8 {
        match self {
            Planned::There(part) => part.level,
            Planned::New { level, .. } => *level,
        }
    }
    fn len(&self) -> u64 {
        self.ranges().iter().map(|(from, to)| to - from).sum()
    }
}

/// Which parts hold everything up to `end`, given those that are there.
fn plan(there: &[Part], end: [u64; STREAMS]) -> Vec<Planned> {
    let mut parts: Vec<Planned> = there.iter().cloned().map(Planned::There).collect();
    let mut at = parts.last().map_or([0; STREAMS], |p| p.ranges().map(|(_, to)| to));
    while at != end {
        let mut room = PART;
        let mut ranges = [(0, 0); STREAMS];
        for ((range, at), end) in ranges.iter_mut().zip(&mut at).zip(end) {
            let to = end.min(at.saturating_add(room));
            *range = (*at, to);
            room -= to.saturating_sub(*at);
            *at = to;
        }
        parts.push(Planned::New { ranges, level: 0 });
    }
    loop {
        let from = parts.len().saturating_sub(MERGE);
        let Some(level) = parts.last().map(Planned::level) else { return parts };
        let tail = &parts[from..];
        let same = tail.len() == MERGE && tail.iter().all(|p| p.level() == level);
        if !same || tail.iter().map(Planned::len).sum::<u64>() > PART {
            return parts;
        }
        let mut ranges = *tail[0].ranges();
        for (range, last) in ranges.iter_mut().zip(tail[MERGE - 1].ranges()) {
            range.1 = last.1;
        }
        parts.truncate(from);
        parts.push(Planned::New { ranges, level: level.saturating_add(1) });
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn parts_join_and_stay_few() {
        let (mut parts, mut end): (Vec<Part>, _) = (Vec::new(), [0; STREAMS]);
        let (mut put, mut most) = (0, 0);
        for n in 0..5_000u64 {
            end = [end[0] + 1000 * (n % 7), end[1] + n % 3, end[2] + 64, end[3] + 5 * (n % 2)];
            parts = plan(&parts, end)
                .into_iter()
                .map(|p| match p {
                    Planned::There(part) => part,
                    Planned::New { ranges, level } => {
                        let part = Part { name: String::new(), sha256: [0; 32], ranges, level };
                        put += part.len();
                        part
                    }
                })
                .collect();
            let mut at = [0; STREAMS];
            for p in &parts {
                assert_eq!(p.ranges.map(|r| r.0), at);
                at = p.ranges.map(|r| r.1);
            }
            assert_eq!(at, end);
            most = most.max(parts.len());
        }
        let all: u64 = end.iter().sum();
        assert!(most <= 5 * MERGE, "{most}");
        assert!(put < 6 * all, "every byte is put once, and again for each level: {put} of {all}");
        // What is there before the first copy is cut into parts of bounded size.
        let first = plan(&[], [PART * 2 + 5, 7, PART, 3]);
        assert_eq!(first.iter().map(Planned::len).collect::<Vec<_>>(), [PART, PART, PART, 15]);
    }
}
