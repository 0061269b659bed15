//! Files as a stream of readings, for replay into a topic and for training; and as a lane's input log ([`log`]).
//!
//! CSV, NDJSON and Parquet files become rows of JSON, the same bytes a device would have sent, so that replayed and
//! trained-on data go through the one decoder of the engine. With a time column the files of a fleet are merged in
//! event-time order; each file is read once, in order, and holds one row in memory, whatever its size.
//!
//! ```no_run
//! use avouch_connectors::files::{DeviceFrom, ReplayOptions, Row};
//!
//! # fn main() -> Result<(), avouch_connectors::files::FilesError> {
//! let mut options = ReplayOptions::new(["skab/valve1/*.csv"]);
//! options.delimiter = b';';
//! options.device = Some(DeviceFrom::Path);
//! options.time = Some("datetime".into());
//! let mut replay = options.open()?;
//! let mut row = Row::default();
//! while replay.next_row(&mut row)? {
//!     println!("{}", String::from_utf8_lossy(&row.json)); // {"device":"valve1/0","datetime":"2020-03-09 10:14:33",…}
//! }
//! # Ok(())
//! # }
//! ```

#[cfg(feature = "object-store")]
mod archive;
mod csv_rows;
mod error;
mod json_text;
mod keys;
pub mod log;
mod ndjson_rows;
mod options;
mod parquet_rows;
mod reference;
mod replay;
#[cfg(test)]
mod tests;

#[cfg(feature = "object-store")]
pub use archive::{Archive, ArchiveCursor, archive_in_s3};
pub use error::FilesError;
pub use keys::{DeviceRow, KeyFile, KeyRow, read_keys};
pub use options::{DeviceFrom, Format, Header, Order, ReplayOptions};
pub use reference::read_reference;
pub use replay::Replay;

/// Whether `pattern` is a file pattern; else what is wrong with it.
///
/// # Errors
/// The words of the pattern's parser.
pub fn check_pattern(pattern: &str) -> Result<(), String> {
    glob::Pattern::new(pattern).map(drop).map_err(|e| e.msg.to_owned())
}

/// Whether there is a file that `pattern` means: by its very name, or as a pattern.
pub fn there_is(pattern: &str) -> bool {
    let is_file = |path: &std::path::Path| path.is_file();
    is_file(pattern.as_ref()) || glob::glob(pattern).is_ok_and(|paths| paths.flatten().any(|p| is_file(&p)))
}

/// One row, with what replay and training need to know of it. Meant to be reused: every call that fills it keeps its
/// buffers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Row {
    /// The row as one JSON object, without a line feed. Fields in file order, the device from the path first.
    pub json: Vec<u8>,
    /// The device; empty when none was asked for or the row has none.
    pub device: String,
    /// The key: the value of the key column if one was named, else the device.
    pub key: String,
    /// Event time in milliseconds since the epoch, if a time column was named.
    pub time_ms: Option<i64>,
    /// Arrival time in milliseconds since the epoch, if an arrival column was named.
    pub arrival_ms: Option<i64>,
    /// Which of [`Replay::files`] it comes from.
    pub file: usize,
    /// Line in the file, from 1 (for Parquet the row, from 1).
    pub line: u64,
    /// False for an NDJSON line kept although it is no JSON object; `json` then holds it as it stands.
    pub readable: bool,
}

impl Row {
    fn clear(&mut self) {
        self.json.clear();
        self.device.clear();
        self.key.clear();
        self.time_ms = None;
        self.arrival_ms = None;
        self.line = 0;
        self.readable = true;
    }

    /// The time rows are merged by: arrival where it is known, else event time.
    fn order_ms(&self) -> Option<i64> {
        self.arrival_ms.or(self.time_ms)
    }
}

/// A file being read. Rows come in file order.
trait RowReader: Send {
    /// Fills `row` with the next row (all but [`Row::file`]); false at the end.
    fn read(&mut self, row: &mut Row) -> Result<bool, FilesError>;

    /// How far it has read, in bytes of the file, for progress only.
    fn bytes_read(&self) -> u64;
}
