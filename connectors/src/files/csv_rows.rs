//! Delimited text.

use std::collections::HashSet;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::PathBuf;

use csv::ErrorKind;

use super::json_text::{is_json_number, member, push_string};
use super::options::{device_of, no_time, time_of};
use super::{DeviceFrom, FilesError, Header, ReplayOptions, Row, RowReader};

struct Column {
    /// `"name":`
    member: Vec<u8>,
    text: bool,
}

/// A time column: its place and, for errors, its name.
type TimeColumn = Option<(usize, String)>;

pub(super) struct CsvRows {
    path: PathBuf,
    reader: csv::Reader<File>,
    record: csv::ByteRecord,
    columns: Vec<Column>,
    /// What stands before the first column: nothing, or the device of the path.
    prefix: Vec<u8>,
    path_device: String,
    device: Option<usize>,
    key: Option<usize>,
    time: TimeColumn,
    arrival: TimeColumn,
    line_breaks_crlf: bool,
    keep_undated: bool,
    last_times: (Option<i64>, Option<i64>),
}

impl CsvRows {
    pub(super) fn open(path: PathBuf, options: &ReplayOptions) -> Result<Self, FilesError> {
        let io = |source| FilesError::Io { path: path.clone(), source };
        let mut file = File::open(&path).map_err(io)?;
        let line_breaks_crlf = starts_with_crlf_lines(&mut file).map_err(io)?;
        let tab = options.delimiter == b',' && path.extension().is_some_and(|e| e.eq_ignore_ascii_case("tsv"));
        let mut reader = csv::ReaderBuilder::new()
            .delimiter(if tab { b'\t' } else { options.delimiter })
            .has_headers(false)
            .buffer_capacity(1 << 16)
            .from_reader(file);
        let row_error = |line: u64, why: String| FilesError::Row { path: path.clone(), line, why };

        let names: Vec<String> = match &options.header {
            Header::Names(names) => names.clone(),
            Header::FirstLine => {
                let mut first = csv::ByteRecord::new();
                if !reader.read_byte_record(&mut first).map_err(|e| csv_error(&path, &e))? {
                    return Err(row_error(1, "the file is empty; a header line was expected".into()));
                }
                first
                    .iter()
                    .map(|f| String::from_utf8(f.to_vec()))
                    .collect::<Result<_, _>>()
                    .map_err(|_| row_error(1, "the header is not UTF-8; save the file as UTF-8".into()))?
            }
        };
        let names: Vec<String> = names
            .into_iter()
            .enumerate()
            .map(|(i, n)| if n.is_empty() { format!("column_{}", i + 1) } else { n })
            .collect();
        let mut seen = HashSet::new();
        if let Some(twice) = names.iter().find(|n| !seen.insert(n.as_str())) {
            return Err(row_error(1, format!("two columns are called `{twice}`; rename one")));
        }
        let find = |column: &String| -> Result<usize, FilesError> {
            names.iter().position(|n| n == column).ok_or_else(|| FilesError::NoColumn {
                path: path.clone(),
                line: 1,
                column: column.clone(),
                have: names.clone(),
            })
        };
        let mut prefix = Vec::new();
        let mut path_device = String::new();
        let mut device = None;
        match &options.device {
            None => {}
            Some(DeviceFrom::Column(column)) => device = Some(find(column)?),
            Some(DeviceFrom::Path) => {
                path_device = device_of(&path);
                if let Some(field) = &options.device_field {
                    if names.contains(field) {
                        let why = format!(
                            "there is a column `{field}` already; give the device of the path another field name, or take the device from the column"
                        );
                        return Err(row_error(1, why));
                    }
                    prefix = member(field);
                    push_string(&mut prefix, &path_device);
                }
            }
        }
        let text: HashSet<usize> = options.text.iter().map(&find).collect::<Result<_, _>>()?;
        let time_column = |name: &Option<String>| -> Result<TimeColumn, FilesError> {
            name.as_ref().map(|n| Ok((find(n)?, n.clone()))).transpose()
        };
        let (time, arrival) = (time_column(&options.time)?, time_column(&options.arrival)?);
        let key = options.key.as_ref().map(&find).transpose()?;
        let columns = names
            .iter()
            .enumerate()
            .map(|(i, n)| Column { member: member(n), text: device == Some(i) || text.contains(&i) })
            .collect();
        Ok(Self {
            path,
            reader,
            record: csv::ByteRecord::new(),
            columns,
            prefix,
            path_device,
            device,
            key,
            time,
            arrival,
            line_breaks_crlf,
            keep_undated: options.keep_undated,
            last_times: (None, None),
        })
    }

    fn error(&self, line: u64, why: String) -> FilesError {
        FilesError::Row { path: self.path.clone(), line, why }
    }

    /// The csv crate ends a record at `\r` and counts the line at the `\n` after it, so where lines end in both the
    /// position of every record but the first is one line short.
    fn line_offset(&self, position: Option<&csv::Position>) -> u64 {
        u64::from(self.line_breaks_crlf && position.is_some_and(|p| p.record() > 0))
    }

    fn time_at(&self, column: &TimeColumn, line: u64, before: Option<i64>) -> Result<Option<i64>, FilesError> {
        let Some((at, name)) = column else { return Ok(None) };
        let text = std::str::from_utf8(&self.record[*at]).unwrap_or_default();
        if self.keep_undated {
            return Ok(time_of(text).or(before));
        }
        time_of(text).map(Some).ok_or_else(|| self.error(line, no_time(name, text)))
    }
}

/// Looks at the start of the file and goes back to it.
fn starts_with_crlf_lines(file: &mut File) -> std::io::Result<bool> {
    let mut start = Vec::new();
    file.by_ref().take(1 << 16).read_to_end(&mut start)?;
    file.seek(SeekFrom::Start(0))?;
    Ok(start.iter().position(|b| *b == b'\n').is_some_and(|i| i > 0 && start[i - 1] == b'\r'))
}

fn csv_error(path: &std::path::Path, error: &csv::Error) -> FilesError {
    let path = path.to_path_buf();
    match error.kind() {
        ErrorKind::Io(e) => FilesError::Io { path, source: std::io::Error::new(e.kind(), e.to_string()) },
        ErrorKind::UnequalLengths { pos, expected_len, len } => FilesError::Row {
            path,
            line: pos.as_ref().map_or(0, csv::Position::line),
            why: format!(
                "this row has {len} fields, those before it {expected_len}; check the delimiter and the quotes"
            ),
        },
        other => {
            FilesError::Row { path, line: error.position().map_or(0, csv::Position::line), why: format!("{other:?}") }
        }
    }
}

impl RowReader for CsvRows {
    fn read(&mut self, row: &mut Row) -> Result<bool, FilesError> {
        row.clear();
        match self.reader.read_byte_record(&mut self.record) {
            Ok(true) => {}
            Ok(false) => return Ok(false),
            Err(e) => {
                let mut error = csv_error(&self.path, &e);
                if let FilesError::Row { line, .. } = &mut error {
                    *line += self.line_offset(e.position());
                }
                return Err(error);
            }
        }
        let position = self.record.position();
        let line = position.map_or(0, csv::Position::line) + self.line_offset(position);
        row.line = line;
        if self.record.len() != self.columns.len() {
            let why =
                format!("this row has {} fields, but {} columns are named", self.record.len(), self.columns.len());
            return Err(self.error(line, why));
        }
        row.json.push(b'{');
        row.json.extend_from_slice(&self.prefix);
        for (i, (column, value)) in self.columns.iter().zip(&self.record).enumerate() {
            if i > 0 || !self.prefix.is_empty() {
                row.json.push(b',');
            }
            row.json.extend_from_slice(&column.member);
            if value.is_empty() {
                row.json.extend_from_slice(b"null");
            } else if !column.text && is_json_number(value) {
                row.json.extend_from_slice(value);
            } else {
                let Ok(text) = std::str::from_utf8(value) else {
                    let why = format!("field {} is not UTF-8; save the file as UTF-8", i + 1);
                    return Err(self.error(line, why));
                };
                push_string(&mut row.json, text);
            }
        }
        row.json.push(b'}');
        let text_at = |at: usize| String::from_utf8_lossy(&self.record[at]);
        match self.device {
            Some(at) => row.device.push_str(&text_at(at)),
            None => row.device.push_str(&self.path_device),
        }
        match self.key {
            Some(at) => row.key.push_str(&text_at(at)),
            None => row.key.push_str(&row.device),
        }
        row.time_ms = self.time_at(&self.time, line, self.last_times.0)?;
        row.arrival_ms = self.time_at(&self.arrival, line, self.last_times.1)?;
        self.last_times = (row.time_ms, row.arrival_ms);
        Ok(true)
    }

    fn bytes_read(&self) -> u64 {
        self.reader.position().byte()
    }
}
