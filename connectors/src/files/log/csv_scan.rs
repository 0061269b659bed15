//! Records of delimited text (RFC 4180), one at a time, within a bound of memory.
//!
//! The grammar is that of the `csv` crate, which training reads with (a test compares them): a quote opens a quoted
//! field only at the field's start and is doubled within; `\r`, `\n` and `\r\n` end a record outside quotes; empty lines
//! are no records. Unlike it, a record that does not end within the bound is cut there, so that one forgotten quote
//! costs one record and not the rest of the file: reading goes on at the next line.

use std::io::{self, BufRead};

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// Before the first byte of a record.
    Start,
    /// Before the first byte of a field.
    Field,
    Plain,
    Quoted,
    /// After a quote within a quoted field: it closes the field, or is the first of two.
    QuoteInQuoted,
    /// Behind the bound: everything up to the next line break is dropped.
    Overlong,
}

/// What was scanned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scanned {
    /// A record; see [`CsvScan::fields`].
    Record,
    /// A record longer than the bound; [`CsvScan::raw`] holds its beginning, this is all it had up to the line break.
    Overlong(u64),
    /// The end of the file.
    End,
}

pub(super) struct CsvScan<R> {
    reader: R,
    delimiter: u8,
    most: usize,
    line: u64,
    /// Line the last record began on, from 1.
    pub record_line: u64,
    /// The last record as it stands in the file, without its line break.
    pub raw: Vec<u8>,
    text: Vec<u8>,
    ends: Vec<usize>,
}

impl<R: BufRead> CsvScan<R> {
    /// `most`: bytes a record may have.
    pub fn new(reader: R, delimiter: u8, most: usize) -> Self {
        Self { reader, delimiter, most, line: 1, record_line: 0, raw: Vec::new(), text: Vec::new(), ends: Vec::new() }
    }

    /// Skips a UTF-8 byte order mark. Call it first.
    pub fn skip_mark(&mut self) -> io::Result<()> {
        if self.reader.fill_buf()?.starts_with(b"\xef\xbb\xbf") {
            self.reader.consume(3);
        }
        Ok(())
    }

    /// The fields of the last record, without quotes.
    pub fn fields(&self) -> impl ExactSizeIterator<Item = &[u8]> {
        self.ends.iter().enumerate().map(|(i, &end)| {
            let start = if i == 0 { 0 } else { self.ends[i - 1] };
            &self.text[start..end]
        })
    }

    /// Goes to the next record.
    pub fn next(&mut self) -> io::Result<Scanned> {
        self.raw.clear();
        self.text.clear();
        self.ends.clear();
        let mut state = State::Start;
        let mut length = 0u64;
        loop {
            let chunk = match self.reader.fill_buf() {
                Ok(chunk) => chunk,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(e),
            };
            if chunk.is_empty() {
                return Ok(match state {
                    State::Start => Scanned::End,
                    State::Overlong => Scanned::Overlong(length),
                    _ => {
                        self.ends.push(self.text.len());
                        Scanned::Record
                    }
                });
            }
            let (mut used, mut done) = (0, false);
            let mut kept = if state == State::Start || state == State::Overlong { None } else { Some(0) };
            for &b in chunk {
                used += 1;
                if b == b'\n' {
                    self.line += 1;
                }
                if state == State::Start {
                    if b == b'\n' || b == b'\r' {
                        continue;
                    }
                    self.record_line = self.line;
                    kept = Some(used - 1);
                    state = State::Field;
                }
                length += 1;
                let ends_line = b == b'\n' || b == b'\r';
                state = match state {
                    State::Overlong if ends_line => {
                        length -= 1;
                        done = true;
                        break;
                    }
                    State::Overlong => State::Overlong,
                    State::Quoted if b == b'"' => State::QuoteInQuoted,
                    State::Quoted => {
                        self.text.push(b);
                        State::Quoted
                    }
                    State::Field if b == b'"' => State::Quoted,
                    State::QuoteInQuoted if b == b'"' => {
                        self.text.push(b'"');
                        State::Quoted
                    }
                    _ if b == self.delimiter => {
                        self.ends.push(self.text.len());
                        State::Field
                    }
                    _ if ends_line => {
                        self.ends.push(self.text.len());
                        done = true;
                        break;
                    }
                    _ => {
                        self.text.push(b);
                        State::Plain
                    }
                };
                if state != State::Overlong && length > self.most as u64 {
                    if let Some(from) = kept.take() {
                        self.raw.extend_from_slice(&chunk[from..used]);
                    }
                    state = State::Overlong;
                    if ends_line {
                        // The bound was crossed by a line break within quotes: go on behind it.
                        done = true;
                        break;
                    }
                }
            }
            if let Some(from) = kept {
                // Without the line break that ended the record.
                let to = if done { used - 1 } else { used };
                self.raw.extend_from_slice(&chunk[from..to]);
            }
            self.reader.consume(used);
            if done {
                return Ok(if state == State::Overlong { Scanned::Overlong(length) } else { Scanned::Record });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::io::BufReader;

    use proptest::prelude::*;

    use super::*;

    /// What was scanned, its line, its raw bytes, its fields.
    type Row = (Scanned, u64, Vec<u8>, Vec<Vec<u8>>);

    fn scan(text: &[u8], most: usize, buffer: usize) -> Vec<Row> {
        let mut scan = CsvScan::new(BufReader::with_capacity(buffer, text), b',', most);
        scan.skip_mark().unwrap();
        let mut out = Vec::new();
        loop {
            let what = scan.next().unwrap();
            if what == Scanned::End {
                return out;
            }
            out.push((what, scan.record_line, scan.raw.clone(), scan.fields().map(<[u8]>::to_vec).collect()));
        }
    }

    fn by_the_csv_crate(text: &[u8]) -> Vec<Vec<Vec<u8>>> {
        let mut reader = csv::ReaderBuilder::new().has_headers(false).flexible(true).from_reader(text);
        reader.byte_records().map(|r| r.unwrap().iter().map(<[u8]>::to_vec).collect()).collect()
    }

    proptest! {
        #[test]
        fn records_are_those_of_the_csv_crate(text in "[a\",\r\n ]{0,40}", buffer in 3usize..16) {
            let ours: Vec<_> = scan(text.as_bytes(), 1 << 20, buffer).into_iter().map(|r| r.3).collect();
            prop_assert_eq!(ours, by_the_csv_crate(text.as_bytes()));
        }

        #[test]
        fn however_the_file_is_buffered(text in "[a\",\r\n]{0,60}", most in 1usize..20, buffer in 3usize..16) {
            prop_assert_eq!(scan(text.as_bytes(), most, buffer), scan(text.as_bytes(), most, 1 << 12));
        }
    }

    #[test]
    fn a_forgotten_quote_costs_one_record() {
        let text = b"a,b\n1,\"x\n2,y\n3,z\n4,w\n";
        let got = scan(text, 8, 1024);
        let lines: Vec<_> = got.iter().map(|r| (r.0, r.1, String::from_utf8_lossy(&r.2).into_owned())).collect();
        assert_eq!(
            lines,
            [
                (Scanned::Record, 1, "a,b".to_owned()),
                (Scanned::Overlong(9), 2, "1,\"x\n2,y\n".to_owned()),
                (Scanned::Record, 4, "3,z".to_owned()),
                (Scanned::Record, 5, "4,w".to_owned()),
            ]
        );
    }

    #[test]
    fn lines_are_counted_where_editors_count_them() {
        let text = b"\xef\xbb\xbfa\r\n\r\n\"x\r\ny\"\r\nb";
        let got = scan(text, 1 << 10, 5);
        assert_eq!(got.iter().map(|r| r.1).collect::<Vec<_>>(), [1, 3, 5]);
        assert_eq!(got[1].3, [b"x\r\ny".to_vec()]);
        assert_eq!(got[1].2, b"\"x\r\ny\"");
    }
}
