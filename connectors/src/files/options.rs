//! What to read and how.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use super::{FilesError, Replay};

/// What a file holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Delimited text. A value that is a number by JSON's grammar stays one, digit for digit; an empty one is null;
    /// everything else is text.
    Csv,
    /// One JSON object a line. Lines go through unchanged.
    Ndjson,
    /// Apache Parquet with flat columns. Timestamps become integers of milliseconds; NaN and infinities, which JSON
    /// cannot write, become null.
    Parquet,
}

impl Format {
    /// The format a file name promises: csv, tsv, txt; ndjson, jsonl, json; parquet, pq.
    pub fn of(path: &Path) -> Option<Self> {
        match path.extension()?.to_str()?.to_ascii_lowercase().as_str() {
            "csv" | "tsv" | "txt" => Some(Self::Csv),
            "ndjson" | "jsonl" | "json" => Some(Self::Ndjson),
            "parquet" | "pq" => Some(Self::Parquet),
            _ => None,
        }
    }
}

/// Where a CSV file's column names come from. Nameless columns are called `column_1`, `column_2`, ….
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Header {
    /// The first line.
    FirstLine,
    /// Given here; the first line is data. Columns beyond these names are an error.
    Names(Vec<String>),
}

/// What names the device of a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DeviceFrom {
    /// The file: its directory's name, `/`, and its name without extension, as in `valve1/0`.
    Path,
    /// A column. Its values are text in the JSON even if they look like numbers (NDJSON goes through unchanged).
    Column(String),
}

/// The order in which the rows of several files come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Order {
    /// By arrival time if an arrival column is named, else by event time; ties by file, then row. Each file must be in
    /// order itself. Without a time column the same as [`Order::File`].
    #[default]
    Time,
    /// As [`Order::Time`], but every file is read into memory and sorted first (stable).
    Sorted,
    /// File after file, rows as they stand.
    File,
}

/// What to read and how. Make one with [`ReplayOptions::new`], set the fields, then [`ReplayOptions::open`].
#[derive(Debug, Clone)]
pub struct ReplayOptions {
    /// File names or patterns (`*`, `?`, `[…]`, `**`). Files come in the order of the patterns, and by name within one;
    /// a file named twice is read once.
    pub files: Vec<String>,
    /// Overrides what the file names say.
    pub format: Option<Format>,
    /// Field delimiter of CSV; one byte. Files named `.tsv` use a tab where this is left at `,`.
    pub delimiter: u8,
    /// Where CSV's column names come from.
    pub header: Header,
    /// CSV columns that are text even where they look like numbers.
    pub text: Vec<String>,
    /// What names the device.
    pub device: Option<DeviceFrom>,
    /// The JSON field that receives the device of [`DeviceFrom::Path`]; `None`: the row is left as it is.
    pub device_field: Option<String>,
    /// The column that keys the row, if not the device's.
    pub key: Option<String>,
    /// The column of event time: integer milliseconds, RFC 3339, or `YYYY-MM-DD HH:MM:SS[.fff]` (UTC). Every row must have one.
    pub time: Option<String>,
    /// The column that says when the row reached the broker, in the same formats.
    pub arrival: Option<String>,
    /// Row order.
    pub order: Order,
    /// Leaves out this many rows of each device.
    pub skip: u64,
    /// Then takes at most this many of each device.
    pub first: Option<u64>,
    /// Keeps NDJSON lines that are no JSON object, to replay bad input as it was. They take the times of the row before them.
    pub keep_unreadable: bool,
    /// Keeps rows whose time or arrival is missing or no time. They take that of the row before.
    pub keep_undated: bool,
}

impl ReplayOptions {
    /// Reads `files` with a comma, a header line, the device field `device`, no device, no time.
    pub fn new<S: Into<String>>(files: impl IntoIterator<Item = S>) -> Self {
        Self {
            files: files.into_iter().map(Into::into).collect(),
            format: None,
            delimiter: b',',
            header: Header::FirstLine,
            text: Vec::new(),
            device: None,
            device_field: Some("device".into()),
            key: None,
            time: None,
            arrival: None,
            order: Order::Time,
            skip: 0,
            first: None,
            keep_unreadable: false,
            keep_undated: false,
        }
    }

    /// Finds the files and opens them. Errors: a pattern without a file, a file that cannot be read or lacks a named
    /// column, options that contradict each other.
    pub fn open(self) -> Result<Replay, FilesError> {
        let contradiction = |why: &str| Err(FilesError::Options { why: why.into() });
        if !self.delimiter.is_ascii() || matches!(self.delimiter, b'"' | b'\n' | b'\r') {
            return contradiction("the delimiter must be one ASCII character other than a quote or a line break");
        }
        if self.order == Order::Sorted && self.time.is_none() && self.arrival.is_none() {
            return contradiction("sorting needs a time column; name one");
        }
        if (self.skip > 0 || self.first.is_some()) && self.device.is_none() {
            return contradiction("taking the first rows or skipping some counts by device; say what names the device");
        }
        let files = self.find()?;
        Replay::open(self, files)
    }

    fn find(&self) -> Result<Vec<PathBuf>, FilesError> {
        let mut seen = HashSet::new();
        let mut files = Vec::new();
        for pattern in &self.files {
            let literal = Path::new(pattern);
            // A name that exists is that file, even if it has brackets in it.
            if literal.is_file() {
                if seen.insert(literal.to_path_buf()) {
                    files.push(literal.to_path_buf());
                }
                continue;
            }
            let paths = glob::glob(pattern)
                .map_err(|e| FilesError::Pattern { pattern: pattern.clone(), why: e.msg.to_owned() })?;
            let mut found = false;
            for path in paths {
                let path = path.map_err(|e| {
                    let source = std::io::Error::new(e.error().kind(), e.error().to_string());
                    FilesError::Io { path: e.path().to_path_buf(), source }
                })?;
                if path.is_file() {
                    found = true;
                    if seen.insert(path.clone()) {
                        files.push(path);
                    }
                }
            }
            if !found {
                return Err(FilesError::NoMatch { pattern: pattern.clone() });
            }
        }
        if files.is_empty() {
            return Err(FilesError::Options { why: "no files are named; name at least one".into() });
        }
        Ok(files)
    }

    pub(super) fn has_time(&self) -> bool {
        self.time.is_some() || self.arrival.is_some()
    }
}

/// `<last directory>/<file stem>`; the stem alone where there is no directory.
pub(super) fn device_of(path: &Path) -> String {
    let stem = path.file_stem().map(|s| s.to_string_lossy().into_owned()).unwrap_or_default();
    match path.parent().and_then(Path::file_name) {
        Some(directory) => format!("{}/{stem}", directory.to_string_lossy()),
        None => stem,
    }
}

/// Milliseconds of a time written as text: an integer of milliseconds, or any form the engine reads.
pub(super) fn time_of(text: &str) -> Option<i64> {
    text.parse::<i64>().ok().or_else(|| avouch_engine::decode::parse_timestamp(text.as_bytes()))
}

/// What to say of a value that is no time.
pub(super) fn no_time(column: &str, value: &str) -> String {
    let value: String = value.chars().take(40).collect();
    if value.is_empty() {
        format!("the time `{column}` is missing; every row needs one")
    } else {
        format!(
            "the time `{column}` is `{value}`, which is no time; write milliseconds since 1970, RFC 3339, or YYYY-MM-DD HH:MM:SS (UTC)"
        )
    }
}
