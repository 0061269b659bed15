//! The rows of one file, as a lane reads them: a row that cannot be read is a row too, with what is wrong with it.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek as _};
use std::path::Path;

use avouch_engine::spec::{FieldSpec, FieldType};

use super::super::json_text::{is_json_number, member, push_string};
use super::super::parquet_rows::ParquetRows;
use super::super::{DeviceFrom, FilesError, Format, ReplayOptions, Row, RowReader};
use super::csv_scan::{CsvScan, Scanned};

const BUFFER: usize = 1 << 18;

/// What the rows of a source look like.
#[derive(Debug, Clone)]
pub struct RowOptions {
    /// What the files hold; `None`: what their names promise.
    pub format: Option<Format>,
    /// Field delimiter of CSV.
    pub delimiter: u8,
    /// The fields of a reading: they say which columns of a CSV file count and how their text becomes JSON.
    pub fields: Vec<FieldSpec>,
    /// The field that names the device.
    pub key: String,
    /// Rows longer than this die; no more of one is held in memory.
    pub max_record_bytes: usize,
}

/// What was appended to the buffer.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Taken {
    /// The value of a record: a JSON object, as far as this room can tell.
    Row,
    /// A row of which only the beginning was kept, more than `max_record_bytes` of it; and what to say.
    Overlong(String),
    /// Raw bytes of what is no row, and what to say of it.
    Bad(String),
    /// Nothing: the end.
    End,
}

/// The rows of one file.
pub(super) enum Rows {
    Csv(CsvRecords),
    Lines(Lines),
    Parquet(Box<ParquetRows>, Row),
    /// A file that holds no rows that could be read, with what is wrong with it: one bad row.
    Unreadable(Option<String>),
}

impl Rows {
    /// Opens a file. One that cannot be read *as a format* is a file with one bad row; what the operating system refuses
    /// is an error.
    pub fn open(path: &Path, name: &str, options: &RowOptions) -> Result<Self, FilesError> {
        let io = |source| FilesError::Io { path: path.to_path_buf(), source };
        let mut file = File::open(path).map_err(io)?;
        if let Some(kind) = packed(&mut file).map_err(io)? {
            let why = format!("the file is packed ({kind}); unpack it, and give it to avouch under another name");
            return Ok(Rows::Unreadable(Some(why)));
        }
        let Some(format) = options.format.or_else(|| Format::of(Path::new(name))) else {
            let why = "its format cannot be told from its name: what is packed must be unpacked first; else name it .csv, .ndjson or .parquet, or give `file_format`";
            return Ok(Rows::Unreadable(Some(why.into())));
        };
        Ok(match format {
            Format::Csv => Rows::Csv(CsvRecords::open(file, name, options).map_err(io)?),
            Format::Ndjson => Rows::Lines(Lines::open(file, options.max_record_bytes).map_err(io)?),
            Format::Parquet => {
                let mut replay = ReplayOptions::new([name]);
                replay.device = Some(DeviceFrom::Column(options.key.clone()));
                match ParquetRows::open(path.to_path_buf(), &replay) {
                    Ok(rows) => Rows::Parquet(Box::new(rows), Row::default()),
                    Err(FilesError::Io { path, source }) => return Err(FilesError::Io { path, source }),
                    Err(e) => Rows::Unreadable(Some(said(&e))),
                }
            }
        })
    }

    /// Appends the next row to `out`, and says on which line of the file it began (for Parquet the row, from 1).
    pub fn take(&mut self, out: &mut Vec<u8>) -> io::Result<(u64, Taken)> {
        match self {
            Rows::Csv(rows) => rows.take(out),
            Rows::Lines(rows) => rows.take(out),
            Rows::Parquet(rows, row) => match rows.read(row) {
                Ok(true) => {
                    out.extend_from_slice(&row.json);
                    Ok((row.line, Taken::Row))
                }
                Ok(false) => Ok((0, Taken::End)),
                Err(FilesError::Io { source, .. }) => Err(source),
                Err(e) => {
                    let line = if let FilesError::Row { line, .. } = &e { *line } else { 0 };
                    // What follows in the file cannot be found any more: it dies as one row.
                    *self = Rows::Unreadable(None);
                    Ok((line, Taken::Bad(said(&e))))
                }
            },
            Rows::Unreadable(why) => Ok((1, why.take().map_or(Taken::End, Taken::Bad))),
        }
    }
}

/// How a file is packed, if it is: no text begins with these bytes, nor does Parquet.
fn packed(file: &mut File) -> io::Result<Option<&'static str>> {
    const KINDS: [(&[u8], &str); 5] = [
        (b"\x1f\x8b", "gzip"),
        (b"\x28\xb5\x2f\xfd", "zstd"),
        (b"BZh", "bzip2"),
        (b"\xfd7zXZ\0", "xz"),
        (b"PK\x03\x04", "zip"),
    ];
    let mut start = Vec::with_capacity(8);
    file.by_ref().take(8).read_to_end(&mut start)?;
    file.rewind()?;
    Ok(KINDS.iter().find(|(magic, _)| start.starts_with(magic)).map(|(_, kind)| *kind))
}

/// The error without its place, which is said by others.
fn said(e: &FilesError) -> String {
    match e {
        FilesError::Row { why, .. } => why.clone(),
        FilesError::NoColumn { column, have, .. } => {
            format!("there is no column `{column}`; the columns are {}", have.join(", "))
        }
        other => other.to_string(),
    }
}

/// A column that counts: `"name":` and its type.
struct Column {
    member: Vec<u8>,
    ty: FieldType,
}

pub(super) struct CsvRecords {
    scan: CsvScan<BufReader<File>>,
    /// One a column of the file; `None` where the schema has no such field.
    columns: Vec<Option<Column>>,
    /// What is wrong with the header: then the file is one bad row.
    broken: Option<(u64, String)>,
    most: usize,
}

impl CsvRecords {
    fn open(file: File, name: &str, options: &RowOptions) -> io::Result<Self> {
        let tab = options.delimiter == b',' && name.to_ascii_lowercase().ends_with(".tsv");
        let delimiter = if tab { b'\t' } else { options.delimiter };
        let most = options.max_record_bytes;
        let mut scan = CsvScan::new(BufReader::with_capacity(BUFFER, file), delimiter, most);
        scan.skip_mark()?;
        let mut rows = Self { scan, columns: Vec::new(), broken: None, most };
        let mut names: Vec<Vec<u8>> = Vec::new();
        match rows.scan.next()? {
            Scanned::Record => names.extend(rows.scan.fields().map(<[u8]>::to_vec)),
            Scanned::Overlong(n) => rows.broken = Some((1, overlong(n, most))),
            Scanned::End => rows.broken = Some((1, "the file is empty; a header line was expected".into())),
        }
        for (i, name) in names.iter().enumerate() {
            let twice = names[..i].contains(name);
            let field = options.fields.iter().find(|f| f.name.as_bytes() == name);
            if twice && field.is_some() {
                let why = format!("two columns are called `{}`; rename one", String::from_utf8_lossy(name));
                rows.broken = Some((rows.scan.record_line, why));
            }
            rows.columns.push(field.map(|f| Column { member: member(&f.name), ty: f.ty }));
        }
        Ok(rows)
    }

    fn take(&mut self, out: &mut Vec<u8>) -> io::Result<(u64, Taken)> {
        if let Some((line, why)) = self.broken.take() {
            out.extend_from_slice(&self.scan.raw);
            // Without a header no row means anything.
            self.columns.clear();
            return Ok((line, Taken::Bad(why)));
        }
        if self.columns.is_empty() {
            return Ok((0, Taken::End));
        }
        let scanned = self.scan.next()?;
        let line = self.scan.record_line;
        let n = match scanned {
            Scanned::End => return Ok((line, Taken::End)),
            Scanned::Overlong(n) => {
                out.extend_from_slice(&self.scan.raw);
                return Ok((line, Taken::Overlong(overlong(n, self.most))));
            }
            Scanned::Record => self.scan.fields().len(),
        };
        if n != self.columns.len() {
            let why = format!(
                "this row has {n} fields, the header {}; check the delimiter and the quotes",
                self.columns.len()
            );
            out.extend_from_slice(&self.scan.raw);
            return Ok((line, Taken::Bad(why)));
        }
        let start = out.len();
        out.push(b'{');
        for (i, (column, value)) in self.columns.iter().zip(self.scan.fields()).enumerate() {
            let Some(column) = column else { continue };
            if out.len() > start + 1 {
                out.push(b',');
            }
            out.extend_from_slice(&column.member);
            let literal = match column.ty {
                _ if value.is_empty() => {
                    out.extend_from_slice(b"null");
                    continue;
                }
                FieldType::Utf8 => false,
                FieldType::Bool => matches!(value, b"true" | b"false"),
                FieldType::I64 | FieldType::F64 | FieldType::TimestampMs => is_json_number(value),
            };
            if literal {
                out.extend_from_slice(value);
            } else if let Ok(text) = std::str::from_utf8(value) {
                push_string(out, text);
            } else {
                out.truncate(start);
                out.extend_from_slice(&self.scan.raw);
                return Ok((line, Taken::Bad(format!("field {} is not UTF-8; save the file as UTF-8", i + 1))));
            }
        }
        out.push(b'}');
        Ok((line, Taken::Row))
    }
}

fn overlong(bytes: u64, most: usize) -> String {
    format!(
        "this row has at least {bytes} bytes, more than max_record_bytes = {most}; is a quote not closed, or a line break missing?"
    )
}

/// One record a line, passed through as it stands: the engine's decoder is its judge.
pub(super) struct Lines {
    reader: BufReader<File>,
    line: u64,
    most: usize,
}

impl Lines {
    fn open(file: File, most: usize) -> io::Result<Self> {
        let mut reader = BufReader::with_capacity(BUFFER, file);
        if reader.fill_buf()?.starts_with(b"\xef\xbb\xbf") {
            reader.consume(3);
        }
        Ok(Self { reader, line: 0, most })
    }

    fn take(&mut self, out: &mut Vec<u8>) -> io::Result<(u64, Taken)> {
        let start = out.len();
        loop {
            // One byte more than allowed tells a line that just fits from one that does not; two for its line break.
            let n = self.reader.by_ref().take(self.most as u64 + 3).read_until(b'\n', out)?;
            if n == 0 {
                return Ok((self.line, Taken::End));
            }
            self.line += 1;
            let ended = out.last() == Some(&b'\n');
            if !ended && n as u64 == self.most as u64 + 3 {
                let bytes = n as u64 + self.skip_line()?;
                return Ok((self.line, Taken::Overlong(overlong(bytes, self.most))));
            }
            while out.len() > start && matches!(out.last(), Some(b'\n' | b'\r')) {
                out.pop();
            }
            if out.len() - start > self.most {
                let bytes = (out.len() - start) as u64;
                return Ok((self.line, Taken::Overlong(overlong(bytes, self.most))));
            }
            if out[start..].iter().all(u8::is_ascii_whitespace) {
                out.truncate(start);
                continue;
            }
            return Ok((self.line, Taken::Row));
        }
    }

    /// Drops what is left of a line; returns how much that was, without the line break.
    fn skip_line(&mut self) -> io::Result<u64> {
        let mut skipped = 0u64;
        loop {
            let chunk = match self.reader.fill_buf() {
                Ok(chunk) => chunk,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(e),
            };
            if chunk.is_empty() {
                return Ok(skipped);
            }
            match chunk.iter().position(|b| *b == b'\n') {
                Some(at) => {
                    self.reader.consume(at + 1);
                    return Ok(skipped + at as u64);
                }
                None => {
                    let n = chunk.len();
                    self.reader.consume(n);
                    skipped += n as u64;
                }
            }
        }
    }
}
