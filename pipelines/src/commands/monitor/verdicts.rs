//! Verdicts as they were delivered, read from a file that may grow.

use std::collections::HashMap;
use std::fs::File;
use std::io::{ErrorKind, Read as _, Seek as _, SeekFrom};
use std::path::PathBuf;

use avouch_engine::decode::parse_timestamp;
use avouch_engine::verdict::Hash32;
use serde::Deserialize;

use crate::lang::hex_bytes;

/// What a delivered verdict says that can be checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Delivered {
    pub index: u64,
    pub entry: Hash32,
    pub device: Hash32,
    pub seq: u64,
    pub model: Hash32,
    /// Milliseconds since the epoch.
    pub window_end: u64,
}

#[derive(Deserialize)]
struct Line {
    index: u64,
    entry: String,
    device_id: String,
    seq: u64,
    model_hash: String,
    window_end: String,
}

/// The file, how far it was read, and what must still be compared.
pub(super) struct Verdicts {
    path: PathBuf,
    at: u64,
    /// The beginning of a line that is not whole yet.
    rest: Vec<u8>,
    pub waiting: Vec<Delivered>,
    /// The last seq of each device, by its pseudonym.
    seqs: HashMap<Hash32, u64>,
}

impl Verdicts {
    pub fn new(path: PathBuf) -> Self {
        Self { path, at: 0, rest: Vec::new(), waiting: Vec::new(), seqs: HashMap::new() }
    }

    /// Reads what was added of this log. Early results and verdicts of other logs are passed over, and so are lines that are no
    /// verdicts: what is wrong with the first of them is the result, and the lines after it count.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn read(&mut self, log: &str) -> Result<Option<String>, String> {
        let fail = |e: std::io::Error| format!("{}: {e}", self.path.display());
        let mut file = match File::open(&self.path) {
            Ok(file) => file,
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(fail(e)),
        };
        file.seek(SeekFrom::Start(self.at)).map_err(fail)?;
        let mut bytes = std::mem::take(&mut self.rest);
        self.at += file.read_to_end(&mut bytes).map_err(fail)? as u64;
        let end = bytes.iter().rposition(|b| *b == b'\n').map_or(0, |n| n + 1);
        self.rest = bytes.split_off(end);
        let mut wrong = None;
        for line in bytes.split(|b| *b == b'\n').filter(|l| !l.is_empty()) {
            match delivered(line, log) {
                Ok(Some(delivered)) => self.waiting.push(delivered),
                Ok(None) => {}
                Err(why) => {
                    let shown: String = String::from_utf8_lossy(line).chars().take(80).collect();
                    wrong.get_or_insert_with(|| format!("{}: {why}: {shown:?}", self.path.display()));
                }
            }
        }
        Ok(wrong)
    }

    /// Why a verdict is not the next of its device; the first that is seen of a device may have any seq.
    pub fn follows(&mut self, d: &Delivered) -> Option<String> {
        let last = self.seqs.get(&d.device).copied();
        match last {
            // Delivered again.
            Some(last) if d.seq <= last => None,
            Some(last) if d.seq > last + 1 => {
                self.seqs.insert(d.device, d.seq);
                let missing = d.seq - last - 1;
                Some(format!("its device had seq {last} before, and now has {}: {missing} were not delivered", d.seq))
            }
            _ => {
                self.seqs.insert(d.device, d.seq);
                None
            }
        }
    }
}

/// The verdict in a line, if it is one of this log.
fn delivered(line: &[u8], log: &str) -> Result<Option<Delivered>, String> {
    let value: serde_json::Value = serde_json::from_slice(line).map_err(|e| format!("a line is no JSON ({e})"))?;
    if value.get("early").is_some() || value.get("log").and_then(|l| l.as_str()) != Some(log) {
        return Ok(None);
    }
    let line: Line =
        serde_json::from_value(value).map_err(|e| format!("a line is no verdict as a sink delivers it ({e})"))?;
    line.delivered().map(Some).ok_or_else(|| "a hash or a time of a line is none".to_owned())
}

impl Line {
    fn delivered(self) -> Option<Delivered> {
        Some(Delivered {
            index: self.index,
            entry: hex_bytes(&self.entry)?,
            device: hex_bytes(&self.device_id)?,
            seq: self.seq,
            model: hex_bytes(&self.model_hash)?,
            window_end: u64::try_from(parse_timestamp(self.window_end.as_bytes())?).ok()?,
        })
    }
}
