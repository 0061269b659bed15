//! A lane's state in chunks, so that a checkpoint writes only what has changed.
//!
//! The state is cut where its sections begin and then every 64 KiB; a chunk is known by its SHA-256. Chunks that the last
//! checkpoint but one has are referenced where they lie; the others are gathered in new files of at most 16 MiB, named
//! `pack-<generation>-<checkpoint>-<piece>-<writer>`, which are written once and never changed. That it is the last but one
//! makes two lines of checkpoints that share no file, so that whatever single file is damaged, of any two checkpoints in a
//! row one can be used. What changes always is written once a checkpoint nevertheless; only what changes seldom is written
//! twice. A pack is deleted when no kept checkpoint refers to it. Packs of which little is still used would pile up: when they hold more than three times
//! the state, the chunks of the emptiest are written again, until they hold at most twice as much.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use avouch_engine::codec::{CodecError, Reader, Section, Writer};
use avouch_engine::lane::Snapshot;
use avouch_engine::verdict::Hash32;
use sha2::{Digest, Sha256};

use super::{StoreError, io};

type Result<T> = std::result::Result<T, StoreError>;
/// Packs that are not as they were written, each with why.
type BadPacks = Vec<(String, String)>;

const CHUNK: u64 = 64 << 10;
const PACK: u64 = 16 << 20;
/// Sections smaller than this share chunks with their neighbours.
const SMALL: u64 = 4 << 10;
/// Packs may hold this much whatever the size of the state.
const SPARE: u64 = 4 << 20;

/// A file of chunks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pack {
    pub name: String,
    pub len: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Chunk {
    hash: Hash32,
    len: u32,
    /// Index of its pack in the table.
    pack: u32,
    /// Its first byte there.
    at: u32,
}

/// Where the bytes of a state lie.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct StateTable {
    pub len: u64,
    pub sections: Vec<Section>,
    pub packs: Vec<Pack>,
    chunks: Vec<Chunk>,
}

/// Names new packs: unlike any other writer's, however many there have been.
#[derive(Debug, Clone, Copy)]
pub(super) struct PackNames {
    pub generation: u64,
    pub writer: u32,
}

impl PackNames {
    fn name(self, seq: u64, piece: usize) -> String {
        format!("pack-{:06}-{seq:010}-{piece:04}-{:08x}", self.generation, self.writer)
    }
}

/// Whether this can be the name of a pack; names read from elsewhere become paths.
pub(super) fn is_pack(name: &str) -> bool {
    name.strip_prefix("pack-").is_some_and(|rest| {
        !rest.is_empty() && rest.len() <= 64 && rest.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-')
    })
}

/// Where chunks begin, and the end.
fn cuts(len: u64, sections: &[Section]) -> Vec<u64> {
    let mut out = vec![0];
    let mut cut = |at: u64| {
        if out.last().is_some_and(|last| *last < at) {
            out.push(at);
        }
    };
    let starts: Vec<u64> = std::iter::once(0).chain(sections.iter().map(|s| s.start.min(len))).chain([len]).collect();
    // Where the present run of small sections, or the large section, began.
    let (mut run, mut run_is_small) = (0, true);
    for section in starts.windows(2) {
        let (start, end) = (section[0], section[1]);
        let small = end - start < SMALL;
        if !(small && run_is_small) {
            cut(start);
            run = start;
        }
        run_is_small = small;
        while run + CHUNK < end {
            run += CHUNK;
            cut(run);
        }
    }
    cut(len);
    out
}

/// What writing a state did.
#[derive(Debug)]
pub(super) struct Written {
    pub table: StateTable,
    /// The new packs.
    pub new: Vec<Pack>,
}

impl Written {
    pub fn new_bytes(&self) -> u64 {
        self.new.iter().map(|p| p.len).sum()
    }
}

/// Writes what `previous` does not have of a state, durably but for the directory, and says where everything is.
pub(super) fn write(
    dir: &Path,
    state: &Snapshot,
    previous: &StateTable,
    names: PackNames,
    seq: u64,
) -> Result<Written> {
    let bytes = &state.bytes;
    let bounds = cuts(bytes.len() as u64, &state.sections);
    let pieces: Vec<&[u8]> = bounds.windows(2).map(|w| &bytes[w[0] as usize..w[1] as usize]).collect();
    let hashes: Vec<Hash32> = pieces.iter().map(|p| Sha256::digest(p).into()).collect();

    let mut known: HashMap<Hash32, Chunk> = previous.chunks.iter().map(|c| (c.hash, *c)).collect();
    for worn in worn(previous, &known, &hashes, &pieces) {
        known.retain(|_, c| c.pack != worn);
    }

    // First those that are new, then those that only move: the latter lie together, since they change seldom.
    let before: BTreeSet<&Hash32> = previous.chunks.iter().map(|c| &c.hash).collect();
    let (mut fresh, mut moved) = (Vec::new(), Vec::new());
    let mut due = BTreeSet::new();
    for (hash, piece) in hashes.iter().zip(&pieces) {
        if !known.contains_key(hash) && due.insert(hash) {
            if before.contains(hash) { moved.push((hash, *piece)) } else { fresh.push((hash, *piece)) }
        }
    }
    let mut table = StateTable { len: bytes.len() as u64, sections: state.sections.clone(), ..StateTable::default() };
    let mut place: HashMap<&Hash32, Chunk> = HashMap::new();
    let mut new = Vec::new();
    for group in [fresh, moved] {
        let mut rest = group.as_slice();
        while !rest.is_empty() {
            let (mut len, mut n) = (0u64, 0);
            while n < rest.len() && len + rest[n].1.len() as u64 <= PACK {
                len += rest[n].1.len() as u64;
                n += 1;
            }
            let name = names.name(seq, new.len());
            let mut at = 0;
            for (hash, piece) in &rest[..n] {
                let (len, pack) = (piece.len() as u32, table.packs.len() as u32);
                place.insert(hash, Chunk { hash: **hash, len, pack, at });
                at += len;
            }
            write_pack(&dir.join(&name), &rest[..n])?;
            let pack = Pack { name, len };
            table.packs.push(pack.clone());
            new.push(pack);
            rest = &rest[n..];
        }
    }
    let mut renumbered: BTreeMap<u32, u32> = BTreeMap::new();
    for hash in &hashes {
        let chunk = match (place.get(hash), known.get(hash)) {
            (Some(chunk), _) => *chunk,
            (None, Some(old)) => {
                let packs = &mut table.packs;
                let pack = *renumbered.entry(old.pack).or_insert_with(|| {
                    packs.push(previous.packs[old.pack as usize].clone());
                    packs.len() as u32 - 1
                });
                Chunk { pack, ..*old }
            }
            // Every hash was either known or due.
            (None, None) => continue,
        };
        table.chunks.push(chunk);
    }
    Ok(Written { table, new })
}

/// The packs (by number in `previous`) whose chunks should be written again.
fn worn(previous: &StateTable, known: &HashMap<Hash32, Chunk>, hashes: &[Hash32], pieces: &[&[u8]]) -> Vec<u32> {
    let mut live: BTreeMap<u32, u64> = BTreeMap::new();
    let (mut state, mut new, mut seen) = (0, 0, BTreeSet::new());
    for (hash, piece) in hashes.iter().zip(pieces) {
        let len = piece.len() as u64;
        state += len;
        if !seen.insert(hash) {
            continue;
        }
        match known.get(hash) {
            Some(c) => *live.entry(c.pack).or_default() += len,
            None => new += len,
        }
    }
    let held = |pack: u32| previous.packs[pack as usize].len;
    let mut total: u64 = new + live.keys().map(|p| held(*p)).sum::<u64>();
    if total <= 3 * state + SPARE {
        return Vec::new();
    }
    let mut by_use: Vec<(u32, u64)> = live.into_iter().collect();
    by_use.sort_by_key(|(pack, live)| (live * 1000 / held(*pack).max(1), *pack));
    let mut out = Vec::new();
    for (pack, live) in by_use {
        if total <= 2 * state + SPARE {
            break;
        }
        total -= held(pack) - live.min(held(pack));
        out.push(pack);
    }
    out
}

fn write_pack(path: &Path, chunks: &[(&Hash32, &[u8])]) -> Result<()> {
    let file = io::open_for_writing(path)?;
    let mut at = 0;
    for (_, piece) in chunks {
        io::write_at(&file, path, piece, at)?;
        at += piece.len() as u64;
    }
    io::sync(&file, path)
}

impl StateTable {
    /// Reads the state, comparing every chunk with its SHA-256. The inner error names the packs that are damaged, and how.
    pub fn read(&self, dir: &Path) -> Result<std::result::Result<Vec<u8>, BadPacks>> {
        let mut out = Vec::with_capacity(usize::try_from(self.len.min(1 << 30)).unwrap_or(0));
        let mut files: Vec<Option<File>> = self.packs.iter().map(|_| None).collect();
        let mut bad: BTreeMap<u32, String> = BTreeMap::new();
        for (i, pack) in self.packs.iter().enumerate() {
            let path = dir.join(&pack.name);
            match File::open(&path) {
                Ok(file) => files[i] = Some(file),
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                    bad.insert(i as u32, "it is missing".into());
                }
                Err(e) => return Err(io::failed("open", &path)(e)),
            }
        }
        for (number, chunk) in self.chunks.iter().enumerate() {
            let Some(file) = files.get(chunk.pack as usize).and_then(Option::as_ref) else { continue };
            let from = out.len();
            out.resize(from + chunk.len as usize, 0);
            let why = match file.read_exact_at(&mut out[from..], u64::from(chunk.at)) {
                Ok(()) if Sha256::digest(&out[from..])[..] == chunk.hash => continue,
                Ok(()) => format!("the SHA-256 of chunk {number} is not the one it was written with"),
                Err(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => format!("it ends before chunk {number}"),
                Err(e) => return Err(io::failed("read", &dir.join(&self.packs[chunk.pack as usize].name))(e)),
            };
            bad.entry(chunk.pack).or_insert(why);
        }
        if bad.is_empty() {
            return Ok(Ok(out));
        }
        Ok(Err(bad.into_iter().map(|(p, why)| (self.packs[p as usize].name.clone(), why)).collect()))
    }

    /// Whether a pack's bytes are good for all that this table takes from it.
    pub fn accepts(&self, name: &str, bytes: &[u8]) -> bool {
        self.chunks.iter().filter(|c| self.packs[c.pack as usize].name == name).all(|c| {
            let from = c.at as usize;
            bytes.get(from..from + c.len as usize).is_some_and(|b| Sha256::digest(b)[..] == c.hash)
        })
    }

    /// Number of chunks.
    pub fn chunks(&self) -> usize {
        self.chunks.len()
    }

    /// Each section with its length.
    pub fn section_lengths(&self) -> Vec<(&Section, u64)> {
        let ends = self.sections.iter().skip(1).map(|s| s.start).chain([self.len]);
        self.sections.iter().zip(ends).map(|(s, end)| (s, end.saturating_sub(s.start))).collect()
    }

    pub fn write(&self, w: &mut Writer) {
        w.u64(self.len);
        w.u32(self.sections.len() as u32);
        for s in &self.sections {
            w.str(&s.name);
            w.u64(s.start);
            w.u64(s.items);
        }
        w.u32(self.packs.len() as u32);
        for p in &self.packs {
            w.str(&p.name);
            w.u64(p.len);
        }
        w.u32(self.chunks.len() as u32);
        for c in &self.chunks {
            w.raw(&c.hash);
            w.u32(c.len);
            w.u32(c.pack);
            w.u32(c.at);
        }
    }

    pub fn from_reader(r: &mut Reader<'_>) -> std::result::Result<Self, CodecError> {
        let mut table = Self { len: r.u64()?, ..Self::default() };
        for _ in 0..r.count(20)? {
            let section = Section { name: r.str()?.to_owned(), start: r.u64()?, items: r.u64()? };
            if section.start > table.len || table.sections.last().is_some_and(|s| s.start > section.start) {
                return Err(r.invalid(format!("section \"{}\" is out of place", section.name)));
            }
            table.sections.push(section);
        }
        for _ in 0..r.count(12)? {
            let pack = Pack { name: r.str()?.to_owned(), len: r.u64()? };
            if !is_pack(&pack.name) {
                return Err(r.invalid(format!("{:?} cannot be the name of a pack", pack.name)));
            }
            table.packs.push(pack);
        }
        let mut len = 0u64;
        for _ in 0..r.count(44)? {
            let chunk = Chunk { hash: r.array()?, len: r.u32()?, pack: r.u32()?, at: r.u32()? };
            let within = table.packs.get(chunk.pack as usize).map_or(0, |p| p.len);
            if u64::from(chunk.len) > CHUNK || u64::from(chunk.at) + u64::from(chunk.len) > within {
                return Err(r.invalid("a chunk lies outside its pack"));
            }
            len += u64::from(chunk.len);
            table.chunks.push(chunk);
        }
        if len != table.len {
            return Err(r.invalid(format!("the chunks have {len} bytes, the state {}", table.len)));
        }
        Ok(table)
    }
}

/// The packs of a directory.
pub(super) fn list(dir: &Path) -> Result<Vec<String>> {
    Ok(io::list(dir)?.into_iter().filter(|n| is_pack(n)).collect())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn snapshot(sections: &[(&str, Vec<u8>)]) -> Snapshot {
        let mut out = Snapshot::default();
        for (name, bytes) in sections {
            out.sections.push(Section { name: (*name).into(), start: out.bytes.len() as u64, items: 0 });
            out.bytes.extend_from_slice(bytes);
        }
        out
    }

    fn noise(seed: u8, len: usize) -> Vec<u8> {
        let mut out = Vec::new();
        let mut block = [seed; 32];
        while out.len() < len {
            block = Sha256::digest(block).into();
            out.extend_from_slice(&block);
        }
        out.truncate(len);
        out
    }

    const NAMES: PackNames = PackNames { generation: 1, writer: 0 };

    #[test]
    fn cut_at_large_sections_and_every_64_kib() {
        let s = |start| Section { name: String::new(), start, items: 0 };
        assert_eq!(cuts(0, &[]), [0]);
        assert_eq!(cuts(10, &[]), [0, 10]);
        assert_eq!(cuts(2 * CHUNK, &[]), [0, CHUNK, 2 * CHUNK]);
        // Small sections share a chunk; a large one begins one, and so does what follows it.
        let sections = [s(0), s(100), s(200), s(200 + CHUNK + 5), s(300 + CHUNK)];
        assert_eq!(cuts(400 + CHUNK, &sections), [0, 200, 200 + CHUNK, 205 + CHUNK, 400 + CHUNK]);
        let many: Vec<Section> = (0..1000).map(|i| s(i * 1000)).collect();
        let all = cuts(1_000_000, &many);
        assert!(all.windows(2).all(|w| w[1] - w[0] <= CHUNK), "{all:?}");
        assert_eq!(all.len(), 1_000_000 / CHUNK as usize + 2);
    }

    #[test]
    fn only_what_changed_is_written() {
        let dir = tempfile::tempdir().unwrap();
        let names = noise(1, 1_000_000);
        let old_pane = noise(2, 3_000_000);
        let first = snapshot(&[("names", names.clone()), ("old", old_pane.clone()), ("new", noise(3, 500_000))]);
        let a = write(dir.path(), &first, &StateTable::default(), NAMES, 1).unwrap();
        assert_eq!(a.new_bytes(), 4_500_000);
        assert_eq!(a.table.read(dir.path()).unwrap().unwrap(), first.bytes);
        // The names grow at their end, one pane changes.
        let mut grown = names.clone();
        grown.extend(noise(4, 10));
        let second = snapshot(&[("names", grown), ("old", old_pane), ("new", noise(5, 500_000))]);
        let b = write(dir.path(), &second, &a.table, NAMES, 2).unwrap();
        assert!(b.new_bytes() < 500_000 + CHUNK, "{}", b.new_bytes());
        assert_eq!(b.table.read(dir.path()).unwrap().unwrap(), second.bytes);
        // Nothing changes: nothing is written.
        let c = write(dir.path(), &second, &b.table, NAMES, 3).unwrap();
        assert_eq!(c.new, []);
        assert_eq!(c.table.read(dir.path()).unwrap().unwrap(), second.bytes);
    }

    #[test]
    fn packs_do_not_pile_up() {
        let dir = tempfile::tempdir().unwrap();
        let mut parts: Vec<Vec<u8>> = (0..64).map(|i| noise(i, CHUNK as usize)).collect();
        let mut table = StateTable::default();
        let mut written = 0;
        for round in 0u64..400 {
            // One chunk in 64 changes each time, so that every pack thins out slowly.
            let which = (round * 37 % 64) as usize;
            parts[which] = noise((round % 250) as u8, CHUNK as usize - 1 - (round / 250) as usize);
            let state = Snapshot::from(parts.concat());
            // Cut at the parts, so that a change stays within one.
            let state = Snapshot {
                sections: (0..64)
                    .map(|i| Section {
                        name: String::new(),
                        start: parts[..i].iter().map(|p| p.len() as u64).sum(),
                        items: 0,
                    })
                    .collect(),
                ..state
            };
            let w = write(dir.path(), &state, &table, NAMES, round).unwrap();
            written += w.new_bytes();
            table = w.table;
            let held: u64 = table.packs.iter().map(|p| p.len).sum();
            assert!(held <= 3 * table.len + SPARE, "round {round}: {held} bytes for {}", table.len);
            assert_eq!(table.read(dir.path()).unwrap().unwrap(), state.bytes);
        }
        assert!(written < 400 * 2 * CHUNK + 64 * CHUNK, "{} chunks", written / CHUNK);
    }

    #[test]
    fn damage_names_the_pack() {
        let dir = tempfile::tempdir().unwrap();
        let state = Snapshot::from(noise(1, 300_000));
        let w = write(dir.path(), &state, &StateTable::default(), NAMES, 1).unwrap();
        let path = dir.path().join(&w.new[0].name);
        let good = std::fs::read(&path).unwrap();
        for at in [0, 100_000, 299_999] {
            let mut bad = good.clone();
            bad[at] ^= 4;
            assert!(!w.table.accepts(&w.new[0].name, &bad));
            std::fs::write(&path, bad).unwrap();
            let said = w.table.read(dir.path()).unwrap().unwrap_err();
            assert!(said[0].1.contains("SHA-256"), "{said:?}");
        }
        std::fs::write(&path, &good[..200_000]).unwrap();
        assert!(w.table.read(dir.path()).unwrap().unwrap_err()[0].1.contains("it ends before chunk 3"));
        std::fs::remove_file(&path).unwrap();
        assert_eq!(w.table.read(dir.path()).unwrap().unwrap_err()[0].1, "it is missing");
        assert!(w.table.accepts(&w.new[0].name, &good));
    }

    #[test]
    fn tables_are_read_with_care() {
        let dir = tempfile::tempdir().unwrap();
        let state = snapshot(&[("a", noise(1, 70_000)), ("b", noise(2, 70_000))]);
        let table = write(dir.path(), &state, &StateTable::default(), NAMES, 1).unwrap().table;
        let mut w = Writer::new();
        table.write(&mut w);
        assert_eq!(StateTable::from_reader(&mut Reader::new("table", &w.bytes)).unwrap(), table);
        for name in ["pack-../../etc/passwd", "pack-", "records-000000", "pack-1/2"] {
            assert!(!is_pack(name), "{name}");
        }
        for i in 0..w.bytes.len() {
            assert!(StateTable::from_reader(&mut Reader::new("table", &w.bytes[..i])).is_err());
        }
    }
}
