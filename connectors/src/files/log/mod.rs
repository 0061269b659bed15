//! Files as the input log of a lane: every row of every file, once, at an offset that never changes.
//!
//! ```text
//!   data/*.csv ─ find ─► manifest: which files, in which order, what they were ─► rows, offset by offset
//! ```
//!
//! - **Order.** Files are taken in the order in which they are first seen, those seen at the same time by name. New
//!   files that match later are appended. The order is durable before the first row is handed out.
//! - **Offsets.** The first row of the first file has offset 0; every row, bad ones included, has the next one. Empty
//!   lines are no rows. Where each file begins is recorded, so a restart opens the file that holds its offset and skips
//!   to it (by reading, without decoding).
//! - **Timestamp.** The records of a file have the time at which it was last modified, as recorded when its reading
//!   began. That is what `max_future` is held against.
//! - **Files do not change.** Size and SHA-256 are recorded when the reading of a file begins, and held against the file
//!   when it ends and at every start. A file that changed is an error that names it. Files are therefore written under
//!   another name and renamed, or put into place whole. A file that was read to its end may be deleted.
//! - **Bad rows** are records too, so that they become dead letters: see [`FileBatch::finding`]. A file that cannot be read at
//!   all (packed, empty, no Parquet, a name that promises nothing) is one bad row.
//! - **Object stores.** An object is brought to a local file while it is being read, so its version is pinned.
//!
//! One directory holds the manifest and, for objects, the file being read. Its one writer is the lane's process.

mod csv_scan;
mod find;
mod manifest;
mod rows;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use avouch_engine::decode::RawRecord;

#[cfg(feature = "object-store")]
pub use find::Objects;
pub use find::Place;
pub use rows::RowOptions;

use super::FilesError;
use find::Finder;
use manifest::{Begin, Manifest};
use rows::{Rows, Taken};

/// How often a followed pattern is looked at again, once everything found before was read.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// A batch ends after so many bytes, which bounds memory at this and one row.
const BATCH_BYTES: usize = 4 << 20;

/// The names of the files that a log would find there now, in the order in which it would read them.
///
/// # Errors
/// What the system, or the object store, refuses.
pub fn matching(place: &Place) -> Result<Vec<String>, FilesError> {
    Finder::new(place)?.find()
}

/// What to read and how.
#[derive(Debug, Clone)]
pub struct FileLogOptions {
    /// Where the files are.
    pub place: Place,
    /// What their rows are.
    pub rows: RowOptions,
    /// Whether to keep looking for new files.
    pub follow: bool,
}

/// Reads the log. Blocks; made for a thread of its own.
pub struct FileLog {
    dir: PathBuf,
    finder: Finder,
    options: FileLogOptions,
    manifest: Manifest,
    /// The file being read, or the next one to begin.
    at: usize,
    reading: Option<Rows>,
    next: i64,
    looked: Instant,
}

impl FileLog {
    /// Opens the log whose manifest is kept in `dir`, to read on at offset `start` (`None`: at the beginning). Looks for
    /// files once.
    ///
    /// # Errors
    /// [`FilesError::NoMatch`] when there is no file at all and it does not follow; [`FilesError::Changed`];
    /// [`FilesError::Inconsistent`] when `start` is behind everything the manifest knows; what the system refuses.
    pub fn open(dir: &Path, options: FileLogOptions, start: Option<i64>) -> Result<Self, FilesError> {
        std::fs::create_dir_all(dir).map_err(|source| FilesError::Io { path: dir.to_path_buf(), source })?;
        let manifest = Manifest::open(&dir.join("files"))?;
        let finder = Finder::new(&options.place)?;
        let mut log = Self {
            dir: dir.to_path_buf(),
            finder,
            options,
            manifest,
            at: 0,
            reading: None,
            next: 0,
            looked: Instant::now(),
        };
        log.look()?;
        if log.manifest.names.is_empty() && !log.options.follow {
            return Err(FilesError::NoMatch { pattern: log.options.place.to_string() });
        }
        log.seek(start.unwrap_or(0))?;
        Ok(log)
    }

    /// Offset of the next record.
    pub fn position(&self) -> i64 {
        self.next
    }

    /// Files known, and how many of them have been read to their end.
    pub fn files(&self) -> (usize, usize) {
        (self.manifest.names.len(), self.at)
    }

    /// Appends files that are new to the log.
    fn look(&mut self) -> Result<(), FilesError> {
        let mut new = self.finder.find()?;
        let known: std::collections::HashSet<&String> = self.manifest.names.iter().collect();
        new.retain(|n| !known.contains(n));
        if !new.is_empty() {
            tracing::info!(files = new.len(), "new files");
            self.manifest.see(new)?;
        }
        self.looked = Instant::now();
        Ok(())
    }

    fn seek(&mut self, start: i64) -> Result<(), FilesError> {
        // Those behind the checkpoint are looked at when they are read.
        for begin in self.manifest.begun.iter().filter(|b| b.offset <= start) {
            self.finder.unchanged(&self.manifest.names[begin.file], begin)?;
        }
        let Some(last) = self.manifest.begun.iter().rfind(|b| b.offset <= start).cloned() else {
            if start > 0 {
                let why = format!(
                    "the checkpoint says {start} rows were read, but the manifest says of no file that its reading began"
                );
                return Err(FilesError::Inconsistent { dir: self.dir.clone(), why });
            }
            return Ok(());
        };
        self.at = last.file;
        self.next = last.offset;
        if start > self.next {
            self.begin()?;
            let mut scratch = Vec::new();
            while self.next < start {
                scratch.clear();
                if self.row(&mut scratch)?.is_none() {
                    let why = format!(
                        "the checkpoint says {start} rows were read, but the files have {} and no more; was one cut short?",
                        self.next
                    );
                    return Err(FilesError::Inconsistent { dir: self.dir.clone(), why });
                }
            }
        }
        Ok(())
    }

    /// Opens the file `at`, and records what it is if its reading begins for the first time.
    fn begin(&mut self) -> Result<(), FilesError> {
        let name = self.manifest.names[self.at].clone();
        let path = match self.manifest.begun.get(self.at) {
            Some(begin) => {
                self.finder.unchanged(&name, begin)?;
                self.finder.fetch(&name, Some(begin), &self.dir)?.path
            }
            None => {
                let fetched = self.finder.fetch(&name, None, &self.dir)?;
                self.manifest.begin(Begin {
                    file: self.at,
                    offset: self.next,
                    size: fetched.size,
                    sha256: fetched.sha256,
                    etag: fetched.etag,
                    modified_ms: fetched.modified_ms,
                })?;
                fetched.path
            }
        };
        self.reading = Some(Rows::open(&path, &name, &self.options.rows)?);
        Ok(())
    }

    /// Appends the next row of any file, going on to the next file where one ends.
    fn row(&mut self, out: &mut Vec<u8>) -> Result<Option<(u64, Taken)>, FilesError> {
        loop {
            let Some(reading) = &mut self.reading else {
                if self.at >= self.manifest.names.len() {
                    return Ok(None);
                }
                self.begin()?;
                continue;
            };
            let start = out.len();
            let taken = reading.take(out).map_err(|source| {
                let path = PathBuf::from(&self.manifest.names[self.at]);
                FilesError::Io { path, source }
            })?;
            if taken.1 != Taken::End {
                self.next += 1;
                return Ok(Some(taken));
            }
            out.truncate(start);
            self.reading = None;
            self.finder.unchanged(&self.manifest.names[self.at], &self.manifest.begun[self.at])?;
            self.at += 1;
        }
    }

    /// The next records, at most `most`. Waits at most `timeout` when there are none.
    pub fn poll(&mut self, timeout: Duration, most: usize) -> Result<FileBatch, FilesError> {
        let mut batch = FileBatch { first: self.next, ..FileBatch::default() };
        if self.at >= self.manifest.names.len() && self.options.follow && self.looked.elapsed() >= LOOK_AGAIN {
            self.look()?;
        }
        while batch.rows.len() < most && batch.bytes.len() < BATCH_BYTES {
            let Some((line, taken)) = self.row(&mut batch.bytes)? else {
                batch.end = Some(self.next);
                if batch.rows.is_empty() {
                    std::thread::sleep(timeout);
                }
                return Ok(batch);
            };
            let file = self.at;
            if batch.files.last().is_none_or(|f| f.0 != file) {
                let modified = self.manifest.begun[file].modified_ms.max(0);
                batch.files.push((file, batch.rows.len(), self.manifest.names[file].clone(), modified));
            }
            let problem = match taken {
                Taken::Bad(why) => Some((why, true)),
                Taken::Overlong(why) => Some((why, false)),
                Taken::Row | Taken::End => None,
            };
            batch.rows.push(RowAt { end: batch.bytes.len(), line, problem });
        }
        Ok(batch)
    }
}

/// Records of a [`FileLog`].
#[derive(Debug, Default)]
pub struct FileBatch {
    bytes: Vec<u8>,
    rows: Vec<RowAt>,
    /// File, its first row in this batch, its name, and the timestamp of its rows.
    files: Vec<(usize, usize, String, i64)>,
    first: i64,
    end: Option<i64>,
}

#[derive(Debug)]
struct RowAt {
    end: usize,
    line: u64,
    /// What is wrong with it, and whether its bytes are kept from the decoder, which could take them for a reading.
    problem: Option<(String, bool)>,
}

/// What a file's reader knows of a record, for its dead letter.
#[derive(Debug, PartialEq, Eq)]
pub struct Finding<'a> {
    /// File and line, as in `day-1.csv:17`.
    pub place: String,
    /// What is wrong with the row, if the reader found it; else the decoder has.
    pub problem: Option<&'a str>,
    /// The row as it stands in the file, where the record shows another value.
    pub raw: Option<&'a [u8]>,
}

impl FileBatch {
    /// Whether it has no record.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Where to go on, if everything there is was read.
    pub fn end(&self) -> Option<i64> {
        self.end
    }

    fn bytes_of(&self, row: usize) -> &[u8] {
        let start = if row == 0 { 0 } else { self.rows[row - 1].end };
        &self.bytes[start..self.rows[row].end]
    }

    fn file_of(&self, row: usize) -> &(usize, usize, String, i64) {
        &self.files[self.files.partition_point(|f| f.1 <= row) - 1]
    }

    /// Appends the records. A row that is none has an empty value: the decoder refuses it, and [`FileBatch::finding`] has
    /// the rest.
    pub fn records<'a>(&'a self, out: &mut Vec<RawRecord<'a>>) {
        out.reserve(self.rows.len());
        let mut files = self.files.iter().peekable();
        let mut timestamp = 0;
        for (i, row) in self.rows.iter().enumerate() {
            if let Some(file) = files.next_if(|f| f.1 == i) {
                timestamp = file.3;
            }
            let hidden = row.problem.as_ref().is_some_and(|p| p.1);
            let value: &[u8] = if hidden { &[] } else { self.bytes_of(i) };
            out.push(RawRecord {
                offset: self.first + i as i64,
                timestamp,
                key: None,
                value: Some(value),
                origin: None,
                signature: None,
            });
        }
    }

    /// What is known of the record at `offset`, if it is one of these.
    pub fn finding(&self, offset: i64) -> Option<Finding<'_>> {
        let i = usize::try_from(offset.checked_sub(self.first)?).ok()?;
        let row = self.rows.get(i)?;
        let hidden = row.problem.as_ref().is_some_and(|p| p.1);
        Some(Finding {
            place: format!("{}:{}", self.file_of(i).2, row.line),
            problem: row.problem.as_ref().map(|p| p.0.as_str()),
            raw: hidden.then(|| self.bytes_of(i)),
        })
    }
}
