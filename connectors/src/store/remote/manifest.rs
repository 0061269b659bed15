//! A manifest: what a lane's copy in the object store is made of at one moment.

use std::collections::BTreeSet;

use avouch_engine::codec::{CodecError, Writer};
use avouch_engine::verdict::Hash32;

use super::beside::Piece;
use crate::store::StoreError;
use crate::store::checkpoint::{self, Saved, Unreadable, seal, unseal};
use crate::store::history::{self, HistoryRow};
use crate::store::replay::Replay;

type Result<T> = std::result::Result<T, StoreError>;

const MAGIC: &[u8; 7] = b"avouchM";
const VERSION: u8 = b'2';

/// The runs of bytes that are copied; all others follow from them.
pub(in crate::store) const STREAMS: usize = 4;
/// Which of them is the history.
pub(in crate::store) const HISTORY: usize = 2;
/// Which of them are the events.
pub(in crate::store) const EVENTS: usize = 3;

/// Why a manifest was put.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ManifestKind {
    /// By a commit: a new checkpoint.
    Commit,
    /// By an opening: the checkpoint before, under a new writer.
    Takeover,
}

/// A sink's cursor, with the note that changes together with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::store) struct SinkCursor {
    pub sink: String,
    pub next: u64,
    pub note: String,
}

/// An object that holds a stretch of each run, one after the other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::store) struct Part {
    pub name: String,
    pub sha256: Hash32,
    /// From where to where, for records, dead letters, history, events.
    pub ranges: [(u64, u64); STREAMS],
    /// How often its bytes were merged.
    pub level: u8,
}

impl Part {
    pub fn len(&self) -> u64 {
        self.ranges.iter().map(|(from, to)| to - from).sum()
    }
}

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::store) struct Manifest {
    pub number: u64,
    pub kind: ManifestKind,
    /// Of the writer that put it; its checkpoint may be of an earlier one.
    pub generation: u64,
    /// The writer's random number.
    pub writer: u64,
    /// When it was put by the writer's clock, Unix milliseconds.
    pub put_at: u64,
    pub parts: Vec<Part>,
    /// The sinks' cursors kept beside the lane.
    pub cursors: Vec<SinkCursor>,
    /// What readers had been shown before a fall-back, as long as the log has not regrown so far.
    pub high_water: Option<HistoryRow>,
    /// Inputs that the lane has yet to take again.
    pub replay: Replay,
    /// What gives the other files kept beside the lane.
    pub beside: Vec<Piece>,
    pub saved: Saved,
}

pub(in crate::store) fn name(number: u64) -> String {
    format!("manifest-{number:020}")
}

/// The number of a manifest's name.
pub(in crate::store) fn number(name: &str) -> Option<u64> {
    checkpoint::numbered(name, "manifest-")
}

pub(in crate::store) fn is_part(name: &str) -> bool {
    let fits = |b: u8| b.is_ascii_hexdigit() || b == b'-';
    name.strip_prefix("part-").is_some_and(|rest| !rest.is_empty() && rest.len() <= 64 && rest.bytes().all(fits))
}

impl Manifest {
    /// The objects it needs.
    pub fn objects(&self) -> BTreeSet<String> {
        let packs = self.saved.table.packs.iter().map(|p| p.name.clone());
        let beside = self.beside.iter().map(|p| p.object.clone());
        self.parts.iter().map(|p| p.name.clone()).chain(packs).chain(beside).collect()
    }

    pub fn to_bytes(&self) -> Vec<u8> {
        let mut w = Writer::new();
        w.raw(MAGIC);
        w.u8(VERSION);
        w.u64(self.number);
        w.u8(u8::from(self.kind == ManifestKind::Takeover));
        w.u64(self.generation);
        w.u64(self.writer);
        w.u64(self.put_at);
        w.u32(self.parts.len() as u32);
        for p in &self.parts {
            w.str(&p.name);
            w.raw(&p.sha256);
            for (from, to) in &p.ranges {
                w.u64(*from);
                w.u64(*to);
            }
            w.u8(p.level);
        }
        w.u32(self.cursors.len() as u32);
        for c in &self.cursors {
            w.str(&c.sink);
            w.u64(c.next);
            w.str(&c.note);
        }
        w.u8(u8::from(self.high_water.is_some()));
        if let Some(row) = self.high_water {
            w.raw(&row.to_bytes());
        }
        self.replay.write(&mut w);
        w.u32(self.beside.len() as u32);
        self.beside.iter().for_each(|p| p.write(&mut w));
        w.bytes(&self.saved.to_bytes());
        seal(w)
    }

    fn from_bytes(bytes: &[u8]) -> std::result::Result<Self, Unreadable> {
        let mut r = unseal("manifest", bytes, MAGIC, VERSION)?;
        let number = r.u64()?;
        let kind = if r.u8()? == 0 { ManifestKind::Commit } else { ManifestKind::Takeover };
        let (generation, writer, put_at) = (r.u64()?, r.u64()?, r.u64()?);
        let mut parts: Vec<Part> = Vec::new();
        let mut ends = [0; STREAMS];
        for _ in 0..r.count(101)? {
            let (name, sha256) = (r.str()?.to_owned(), r.array()?);
            let mut ranges = [(0, 0); STREAMS];
            for (range, end) in ranges.iter_mut().zip(&mut ends) {
                *range = (r.u64()?, r.u64()?);
                if range.0 != *end || range.1 < range.0 {
                    return Err(r.invalid("its parts do not join").into());
                }
                *end = range.1;
            }
            if !is_part(&name) {
                return Err(r.invalid(format!("{name:?} cannot be the name of a part")).into());
            }
            parts.push(Part { name, sha256, ranges, level: r.u8()? });
        }
        let mut cursors = Vec::new();
        for _ in 0..r.count(16)? {
            cursors.push(SinkCursor { sink: r.str()?.to_owned(), next: r.u64()?, note: r.str()?.to_owned() });
        }
        let high_water = match r.u8()? {
            0 => None,
            _ => match HistoryRow::from_bytes(&r.array::<{ history::ROW as usize }>()?) {
                Some(row) => Some(row),
                None => return Err(r.invalid("its high water is damaged").into()),
            },
        };
        let replay = Replay::from_reader(&mut r)?;
        let mut beside = Vec::new();
        for _ in 0..r.count(57)? {
            beside.push(Piece::from_reader(&mut r)?);
        }
        let saved = Saved::from_bytes(r.bytes()?)?;
        r.finish()?;
        let manifest =
            Self { number, kind, generation, writer, put_at, parts, cursors, high_water, replay, beside, saved };
        let (have, need) = (ends, lengths(&manifest.saved));
        if have != need {
            let why = format!(
                "its parts hold {have:?} bytes of records, dead letters, history and events, its checkpoint covers {need:?}"
            );
            return Err(CodecError::Invalid { what: "manifest", why, at: 0 }.into());
        }
        Ok(manifest)
    }

    /// Reads one; the inner error says why it is no good.
    pub fn parse(bytes: &[u8], number: u64, place: &str) -> Result<std::result::Result<Self, String>> {
        match Self::from_bytes(bytes) {
            Ok(m) if m.number != number => Ok(Err(format!("it is number {} under another's name", m.number))),
            Ok(m) => Ok(Ok(m)),
            Err(Unreadable::Damaged(why)) => Ok(Err(why)),
            Err(Unreadable::Version(found)) => {
                Err(StoreError::Version { place: place.to_owned(), found, expected: char::from(VERSION) })
            }
        }
    }
}

/// How long each copied run is under a checkpoint.
pub(in crate::store) fn lengths(saved: &Saved) -> [u64; STREAMS] {
    let c = &saved.committed;
    [c.records_len, c.dead_len, c.history_rows * history::ROW, c.events_len]
}
