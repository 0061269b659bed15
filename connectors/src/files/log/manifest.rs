//! Which files a log consists of, in which order, and what they were when their reading began.
//!
//! A text file, only ever appended to. A line is 16 hexadecimal digits, a space and one JSON object; the digits begin
//! the SHA-256 of the digits of the line before (none before the first) and the object. Three kinds of lines:
//!
//! ```text
//! {"version":1}                                           the first
//! {"seen":"day-1.csv"}                                    file 0, the next one file 1, …
//! {"begins":0,"offset":0,"size":812,"sha256":"…","etag":null,"modified_ms":1714000000000}
//! ```
//!
//! A file that begins at offset *o* has its first row there. Each line is durable before anything that rests on it is
//! handed out. A torn last line (a crash while it was written) is cut off: nothing rested on it yet. Any other line that
//! does not fit its digits is an error.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::super::FilesError;

const VERSION: u32 = 1;
const DIGITS: usize = 16;

/// What a file was when its reading began.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Begin {
    /// Which file.
    #[serde(rename = "begins")]
    pub file: usize,
    /// Offset of its first row.
    pub offset: i64,
    /// Bytes.
    pub size: u64,
    /// SHA-256 of its contents, hexadecimal.
    pub sha256: String,
    /// What the object store calls this version of it.
    pub etag: Option<String>,
    /// When it was last modified, milliseconds since the epoch: the timestamp of its rows.
    pub modified_ms: i64,
}

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Line {
    Version { version: u32 },
    Seen { seen: String },
    Begins(Begin),
}

/// The manifest, open for appending.
#[derive(Debug)]
pub(super) struct Manifest {
    path: PathBuf,
    file: File,
    last: String,
    /// Names in the order in which they are read.
    pub names: Vec<String>,
    /// Of the first so many files, in order.
    pub begun: Vec<Begin>,
}

impl Manifest {
    /// Opens or creates the manifest at `path`, whose directory exists.
    pub fn open(path: &Path) -> Result<Self, FilesError> {
        let io = |source| FilesError::Io { path: path.to_path_buf(), source };
        let text = match std::fs::read(path) {
            Ok(text) => text,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Vec::new(),
            Err(e) => return Err(io(e)),
        };
        let whole = text.iter().rposition(|b| *b == b'\n').map_or(0, |i| i + 1);
        let file = File::options().create(true).append(true).open(path).map_err(io)?;
        if whole < text.len() {
            tracing::warn!(file = %path.display(), bytes = text.len() - whole, "a torn line is cut off");
            file.set_len(whole as u64).map_err(io)?;
        }
        let mut manifest =
            Self { path: path.to_path_buf(), file, last: String::new(), names: Vec::new(), begun: Vec::new() };
        let mut lines = 0u64;
        for line in text[..whole].split(|b| *b == b'\n').filter(|l| !l.is_empty()) {
            lines += 1;
            manifest.take(line, lines)?;
        }
        if lines == 0 {
            manifest.append(&[Line::Version { version: VERSION }])?;
            if let Some(dir) = path.parent() {
                File::open(dir).and_then(|d| d.sync_all()).map_err(io)?;
            }
        }
        Ok(manifest)
    }

    fn take(&mut self, line: &[u8], number: u64) -> Result<(), FilesError> {
        let damaged = |why: &str| FilesError::Row {
            path: self.path.clone(),
            line: number,
            why: format!("{why}; restore this file from a copy, or give the pipeline a new checkpoint store"),
        };
        let text = std::str::from_utf8(line).map_err(|_| damaged("it is damaged"))?;
        let Some((digits, json)) = text.split_once(' ') else { return Err(damaged("it is damaged")) };
        if digits != check(&self.last, json) {
            return Err(damaged("its checksum is wrong"));
        }
        let read: Line = serde_json::from_str(json).map_err(|e| damaged(&format!("it is not understood ({e})")))?;
        match read {
            Line::Version { version } if version == VERSION && number == 1 => {}
            Line::Version { .. } => return Err(damaged("it was written by another version of avouch")),
            Line::Seen { seen } => self.names.push(seen),
            Line::Begins(b) if b.file == self.begun.len() && b.file < self.names.len() => self.begun.push(b),
            Line::Begins(_) => return Err(damaged("it is out of order")),
        }
        self.last = digits.to_owned();
        Ok(())
    }

    /// Appends files to the log, durably.
    pub fn see(&mut self, names: Vec<String>) -> Result<(), FilesError> {
        let lines: Vec<Line> = names.iter().map(|n| Line::Seen { seen: n.clone() }).collect();
        self.append(&lines)?;
        self.names.extend(names);
        Ok(())
    }

    /// Records what the next file is, durably, before its first row is handed out.
    pub fn begin(&mut self, begin: Begin) -> Result<(), FilesError> {
        self.append(&[Line::Begins(begin.clone())])?;
        self.begun.push(begin);
        Ok(())
    }

    fn append(&mut self, lines: &[Line]) -> Result<(), FilesError> {
        let io = |source| FilesError::Io { path: self.path.clone(), source };
        let mut text = String::new();
        let mut last = self.last.clone();
        for line in lines {
            let json = serde_json::to_string(line).map_err(|e| io(e.into()))?;
            last = check(&last, &json);
            text.push_str(&format!("{last} {json}\n"));
        }
        self.file.write_all(text.as_bytes()).and_then(|()| self.file.sync_data()).map_err(io)?;
        self.last = last;
        Ok(())
    }
}

fn check(last: &str, json: &str) -> String {
    let digest = Sha256::new().chain_update(last).chain_update(json).finalize();
    digest.iter().take(DIGITS / 2).map(|b| format!("{b:02x}")).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn begin(file: usize) -> Begin {
        Begin { file, offset: 10 * file as i64, size: 3, sha256: "ab".into(), etag: None, modified_ms: 7 }
    }

    #[test]
    fn it_comes_back_and_a_torn_line_does_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("files");
        let mut m = Manifest::open(&path).unwrap();
        m.see(vec!["b.csv".into(), "a \"quoted\"\n.csv".into()]).unwrap();
        m.begin(begin(0)).unwrap();
        m.begin(begin(1)).unwrap();
        let whole = std::fs::read(&path).unwrap();
        for cut in 0..=whole.len() {
            std::fs::write(&path, &whole[..cut]).unwrap();
            let m = Manifest::open(&path).unwrap();
            // Whatever was cut off was the last line, so what is left is a beginning of the whole.
            assert!(m.begun == [begin(0), begin(1)][..m.begun.len()], "{cut}");
            assert!(m.names.len() <= 2);
        }
        let m = Manifest::open(&path).unwrap();
        assert_eq!((m.names.len(), m.begun.len()), (2, 2));
    }

    #[test]
    fn any_other_damage_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("files");
        let mut m = Manifest::open(&path).unwrap();
        m.see(vec!["a.csv".into()]).unwrap();
        m.begin(begin(0)).unwrap();
        let whole = std::fs::read(&path).unwrap();
        for at in 0..whole.len() - 1 {
            let mut bytes = whole.clone();
            bytes[at] ^= 4;
            if bytes[at] == b'\n' || whole[at] == b'\n' {
                continue;
            }
            std::fs::write(&path, &bytes).unwrap();
            assert!(Manifest::open(&path).is_err(), "byte {at}");
        }
    }
}
