//! Several files as one stream.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::path::{Path, PathBuf};

use super::csv_rows::CsvRows;
use super::ndjson_rows::NdjsonRows;
use super::parquet_rows::ParquetRows;
use super::{FilesError, Format, Order, ReplayOptions, Row, RowReader};

/// The rows of one or many files, in order. Made by [`ReplayOptions::open`].
///
/// The same files and options give the same rows in the same order. Memory: one row a file, and with
/// [`Order::Sorted`] all rows of all files.
pub struct Replay {
    options: ReplayOptions,
    files: Vec<PathBuf>,
    sizes: Vec<u64>,
    inner: Inner,
    taken: HashMap<String, u64>,
    /// What is wrong with the row after the last one handed out: a merge reads one row ahead.
    ahead: Option<FilesError>,
}

enum Inner {
    /// File after file; the next file is opened when the one before it ends.
    Chain { at: usize, reader: Option<Box<dyn RowReader>>, done: u64 },
    /// The row with the smallest time of all files' next rows comes next.
    Merge { sources: Vec<Source>, next: BinaryHeap<Reverse<(i64, usize)>> },
}

struct Source {
    reader: Box<dyn RowReader>,
    head: Row,
}

/// A file that has been read whole and sorted.
struct SortedRows {
    rows: std::vec::IntoIter<Row>,
    size: u64,
    total: usize,
}

impl RowReader for SortedRows {
    fn read(&mut self, row: &mut Row) -> Result<bool, FilesError> {
        match self.rows.next() {
            Some(next) => {
                *row = next;
                Ok(true)
            }
            None => Ok(false),
        }
    }

    fn bytes_read(&self) -> u64 {
        let read = self.total - self.rows.len();
        (self.size as u128 * read as u128 / self.total.max(1) as u128) as u64
    }
}

fn open_reader(path: &Path, options: &ReplayOptions) -> Result<Box<dyn RowReader>, FilesError> {
    let path = path.to_path_buf();
    Ok(match options.format.or_else(|| Format::of(&path)) {
        Some(Format::Csv) => Box::new(CsvRows::open(path, options)?),
        Some(Format::Ndjson) => Box::new(NdjsonRows::open(path, options)?),
        Some(Format::Parquet) => Box::new(ParquetRows::open(path, options)?),
        None => return Err(FilesError::UnknownFormat { path }),
    })
}

fn sort(mut reader: Box<dyn RowReader>, size: u64) -> Result<Box<dyn RowReader>, FilesError> {
    let mut rows = Vec::new();
    let mut row = Row::default();
    while reader.read(&mut row)? {
        rows.push(row.clone());
    }
    rows.sort_by_key(Row::order_ms);
    let total = rows.len();
    Ok(Box::new(SortedRows { rows: rows.into_iter(), size, total }))
}

impl Replay {
    pub(super) fn open(options: ReplayOptions, files: Vec<PathBuf>) -> Result<Self, FilesError> {
        let sizes = files
            .iter()
            .map(|path| {
                std::fs::metadata(path).map(|m| m.len()).map_err(|source| FilesError::Io { path: path.clone(), source })
            })
            .collect::<Result<Vec<_>, _>>()?;
        let inner = if options.order == Order::File || !options.has_time() {
            Inner::Chain { at: 0, reader: Some(open_reader(&files[0], &options)?), done: 0 }
        } else {
            let mut sources = Vec::with_capacity(files.len());
            for (path, size) in files.iter().zip(&sizes) {
                let mut reader = open_reader(path, &options)?;
                if options.order == Order::Sorted {
                    reader = sort(reader, *size)?;
                }
                sources.push(Source { reader, head: Row::default() });
            }
            Inner::Merge { sources, next: BinaryHeap::new() }
        };
        let mut replay = Self { options, files, sizes, inner, taken: HashMap::new(), ahead: None };
        replay.prime()?;
        Ok(replay)
    }

    fn prime(&mut self) -> Result<(), FilesError> {
        if let Inner::Merge { sources, next } = &mut self.inner {
            for (file, source) in sources.iter_mut().enumerate() {
                if source.reader.read(&mut source.head)? {
                    source.head.file = file;
                    next.push(Reverse((source.head.order_ms().unwrap_or(i64::MIN), file)));
                }
            }
        }
        Ok(())
    }

    /// The files, in the order used for ties.
    pub fn files(&self) -> &[PathBuf] {
        &self.files
    }

    /// Bytes read so far and bytes in all, for a progress bar.
    pub fn progress(&self) -> (u64, u64) {
        let done = match &self.inner {
            Inner::Chain { reader, done, .. } => done + reader.as_ref().map_or(0, |r| r.bytes_read()),
            Inner::Merge { sources, .. } => sources.iter().map(|s| s.reader.bytes_read()).sum(),
        };
        (done, self.sizes.iter().sum())
    }

    /// Fills `row` with the next row; false when all files are at their end. Errors name file and line, and end the
    /// stream: what a later call returns is not specified.
    pub fn next_row(&mut self, row: &mut Row) -> Result<bool, FilesError> {
        while self.advance(row)? {
            if self.wanted(&row.device) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn wanted(&mut self, device: &str) -> bool {
        if self.options.skip == 0 && self.options.first.is_none() {
            return true;
        }
        let seen = match self.taken.get_mut(device) {
            Some(n) => n,
            None => self.taken.entry(device.to_owned()).or_insert(0),
        };
        *seen += 1;
        *seen > self.options.skip
            && self.options.first.is_none_or(|first| *seen <= self.options.skip.saturating_add(first))
    }

    fn advance(&mut self, row: &mut Row) -> Result<bool, FilesError> {
        if let Some(error) = self.ahead.take() {
            return Err(error);
        }
        match &mut self.inner {
            Inner::Chain { at, reader, done } => loop {
                let Some(open) = reader else { return Ok(false) };
                if open.read(row)? {
                    row.file = *at;
                    return Ok(true);
                }
                *done += self.sizes[*at];
                *at += 1;
                *reader = match self.files.get(*at) {
                    Some(path) => Some(open_reader(path, &self.options)?),
                    None => None,
                };
            },
            Inner::Merge { sources, next } => {
                let Some(Reverse((time, file))) = next.pop() else { return Ok(false) };
                std::mem::swap(row, &mut sources[file].head);
                match refill(&mut sources[file], file, time, &self.files[file]) {
                    Ok(Some(after)) => next.push(Reverse((after, file))),
                    Ok(None) => {}
                    Err(error) => self.ahead = Some(error),
                }
                Ok(true)
            }
        }
    }
}

/// Reads the file's next row and returns its time, which must not be before `time`.
fn refill(source: &mut Source, file: usize, time: i64, path: &Path) -> Result<Option<i64>, FilesError> {
    if !source.reader.read(&mut source.head)? {
        return Ok(None);
    }
    source.head.file = file;
    let after = source.head.order_ms().unwrap_or(time);
    if after < time {
        let why = format!(
            "time goes back by {} ms from the row before; files are merged by time and must each be in order: sort them (--order sorted, which reads them into memory) or replay them as they stand (--order file)",
            time - after
        );
        return Err(FilesError::Row { path: path.to_path_buf(), line: source.head.line, why });
    }
    Ok(Some(after))
}
