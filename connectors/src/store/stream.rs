//! One long run of bytes, appended to, in segments of fixed size.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use super::{StoreError, io};

type Result<T> = std::result::Result<T, StoreError>;

/// Appended bytes are handed to the operating system in pieces of about this size.
const FLUSH_BYTES: usize = 1 << 20;

/// Where a run of bytes lies: byte `p` is byte `p % segment_bytes` of `<name>-<p / segment_bytes>`.
#[derive(Debug, Clone)]
pub(super) struct Layout {
    pub dir: PathBuf,
    pub name: &'static str,
    pub segment_bytes: u64,
}

impl Layout {
    pub fn new(dir: &Path, name: &'static str, segment_bytes: u64) -> Self {
        Self { dir: dir.to_path_buf(), name, segment_bytes: segment_bytes.max(1) }
    }

    /// The file of a segment.
    pub fn path(&self, segment: u64) -> PathBuf {
        self.dir.join(format!("{}-{segment:06}", self.name))
    }

    /// The segment number of a file of this run.
    pub fn segment_of(&self, file: &str) -> Option<u64> {
        let digits = file.strip_prefix(self.name)?.strip_prefix('-')?;
        if digits.len() < 6 || !digits.bytes().all(|b| b.is_ascii_digit()) {
            return None;
        }
        digits.parse().ok()
    }

    /// How many bytes can be read from the start without a gap.
    pub fn disk_len(&self) -> Result<u64> {
        let mut len = 0;
        for segment in 0.. {
            let path = self.path(segment);
            let here = match std::fs::metadata(&path) {
                Ok(m) => m.len().min(self.segment_bytes),
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => break,
                Err(e) => return Err(io::failed("look at", &path)(e)),
            };
            len += here;
            if here < self.segment_bytes {
                break;
            }
        }
        Ok(len)
    }

    /// Cuts off everything after `len` bytes. Returns how many bytes that was.
    pub fn truncate(&self, len: u64) -> Result<u64> {
        let (segment, within) = (len / self.segment_bytes, len % self.segment_bytes);
        let mut cut = 0;
        for name in io::list(&self.dir)? {
            let Some(k) = self.segment_of(&name) else { continue };
            let path = self.dir.join(&name);
            let have = std::fs::metadata(&path).map_err(io::failed("look at", &path))?.len();
            if k > segment || (k == segment && within == 0) {
                io::remove(&path)?;
                cut += have;
            } else if k == segment && have > within {
                io::set_len(&path, within)?;
                cut += have - within;
            } else if k < segment && have > self.segment_bytes {
                io::set_len(&path, self.segment_bytes)?;
                cut += have - self.segment_bytes;
            }
        }
        Ok(cut)
    }
}

/// Appends to a run.
#[derive(Debug)]
pub(super) struct StreamWriter {
    layout: Layout,
    flushed: u64,
    buffer: Vec<u8>,
    /// Segments written since the last fsync; the last one is the current one.
    open: BTreeMap<u64, Arc<File>>,
    unsynced: bool,
    created: bool,
}

/// Files that were written and not yet fsynced, and whether some are new, so that the directory must be fsynced too.
#[derive(Debug, Default)]
pub(super) struct Unsynced {
    files: Vec<(PathBuf, Arc<File>)>,
    created: bool,
}

impl Unsynced {
    /// Makes what was written durable.
    pub fn sync(&self, dir: &Path) -> Result<()> {
        for (path, file) in &self.files {
            io::sync(file, path)?;
        }
        if self.created { io::sync_dir(dir) } else { Ok(()) }
    }
}

impl StreamWriter {
    /// Goes on after `len` bytes, which is where the run must end on disk.
    pub fn new(layout: Layout, len: u64) -> Self {
        Self { layout, flushed: len, buffer: Vec::new(), open: BTreeMap::new(), unsynced: false, created: false }
    }

    /// Bytes appended so far, on disk or not.
    pub fn len(&self) -> u64 {
        self.flushed + self.buffer.len() as u64
    }

    /// Appends what `fill` pushes.
    pub fn append_with(&mut self, fill: impl FnOnce(&mut Vec<u8>)) -> Result<()> {
        fill(&mut self.buffer);
        if self.buffer.len() >= FLUSH_BYTES { self.flush() } else { Ok(()) }
    }

    pub fn append(&mut self, bytes: &[u8]) -> Result<()> {
        self.append_with(|b| b.extend_from_slice(bytes))
    }

    /// Hands everything to the operating system.
    pub fn flush(&mut self) -> Result<()> {
        let mut rest = self.buffer.as_slice();
        while !rest.is_empty() {
            let segment = self.flushed / self.layout.segment_bytes;
            let within = self.flushed % self.layout.segment_bytes;
            let n = rest.len().min(usize::try_from(self.layout.segment_bytes - within).unwrap_or(usize::MAX));
            let path = self.layout.path(segment);
            let file = match self.open.entry(segment) {
                std::collections::btree_map::Entry::Occupied(e) => e.into_mut(),
                std::collections::btree_map::Entry::Vacant(e) => {
                    self.created |= within == 0;
                    e.insert(Arc::new(io::open_for_writing(&path)?))
                }
            };
            io::write_at(file, &path, &rest[..n], within)?;
            self.unsynced = true;
            self.flushed += n as u64;
            rest = &rest[n..];
        }
        self.buffer.clear();
        Ok(())
    }

    /// Hands everything to the operating system, and what must be fsynced for it to be durable to `out`.
    pub fn hand_over(&mut self, out: &mut Unsynced) -> Result<()> {
        self.flush()?;
        if self.unsynced {
            for (segment, file) in &self.open {
                out.files.push((self.layout.path(*segment), Arc::clone(file)));
            }
            let current = self.flushed / self.layout.segment_bytes;
            self.open.retain(|segment, _| *segment == current);
            self.unsynced = false;
        }
        out.created |= std::mem::take(&mut self.created);
        Ok(())
    }

    /// Makes everything durable.
    pub fn sync(&mut self) -> Result<()> {
        let mut unsynced = Unsynced::default();
        self.hand_over(&mut unsynced)?;
        unsynced.sync(&self.layout.dir)
    }
}

/// Reads a run. Keeps a few segments open.
#[derive(Debug)]
pub(super) struct StreamReader {
    layout: Layout,
    open: Mutex<BTreeMap<u64, Arc<File>>>,
}

const OPEN_SEGMENTS: usize = 8;

impl StreamReader {
    pub fn new(layout: Layout) -> Self {
        Self { layout, open: Mutex::default() }
    }

    pub fn name(&self) -> &'static str {
        self.layout.name
    }

    fn segment(&self, segment: u64) -> Result<Arc<File>> {
        // A panic of another reader leaves the map whole.
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(file) = open.get(&segment) {
            return Ok(Arc::clone(file));
        }
        let path = self.layout.path(segment);
        let file = Arc::new(File::open(&path).map_err(|e| self.gone(e, &path))?);
        if open.len() >= OPEN_SEGMENTS {
            open.pop_first();
        }
        open.insert(segment, Arc::clone(&file));
        Ok(file)
    }

    /// A missing or short file is damage; anything else is the environment.
    fn gone(&self, e: std::io::Error, path: &Path) -> StoreError {
        match e.kind() {
            std::io::ErrorKind::NotFound | std::io::ErrorKind::UnexpectedEof => {
                StoreError::Damaged { file: path.display().to_string(), why: "it is missing or too short".into() }
            }
            _ => io::failed("read", path)(e),
        }
    }

    /// The bytes `[at, at + buffer.len())`.
    pub fn read_exact(&self, at: u64, buffer: &mut [u8]) -> Result<()> {
        let (mut at, mut rest) = (at, buffer);
        while !rest.is_empty() {
            let segment = at / self.layout.segment_bytes;
            let within = at % self.layout.segment_bytes;
            let n = rest.len().min(usize::try_from(self.layout.segment_bytes - within).unwrap_or(usize::MAX));
            let (here, after) = rest.split_at_mut(n);
            let file = self.segment(segment)?;
            file.read_exact_at(here, within).map_err(|e| self.gone(e, &self.layout.path(segment)))?;
            at += n as u64;
            rest = after;
        }
        Ok(())
    }

    pub fn read(&self, at: u64, len: usize) -> Result<Vec<u8>> {
        let mut out = vec![0; len];
        self.read_exact(at, &mut out)?;
        Ok(out)
    }

    /// Goes through `[0, len)` in pieces whose length is a multiple of `unit`.
    pub fn chunks(&self, len: u64, unit: usize, mut f: impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
        let piece = ((1 << 20) / unit.max(1)).max(1) * unit;
        let mut at = 0;
        let mut buffer = vec![0; usize::try_from(len).unwrap_or(usize::MAX).min(piece)];
        while at < len {
            let n = usize::try_from(len - at).unwrap_or(usize::MAX).min(piece);
            self.read_exact(at, &mut buffer[..n])?;
            f(&buffer[..n])?;
            at += n as u64;
        }
        Ok(())
    }
}
