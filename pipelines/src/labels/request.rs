//! A label on its way to a lane: a file in the lane's inbox.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use avouch_engine::label::{Label, Opinion};
use avouch_engine::verdict::Hash32;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::runtime::hex;

const FORMAT: &str = "avouch-label/1";

/// Why a file is no request.
#[derive(Debug, Error)]
pub enum RequestError {
    /// It cannot be read, or not be written.
    #[error("{path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// The system's words.
        source: std::io::Error,
    },
    /// It says what no label can.
    #[error("{0}")]
    Content(String),
}

/// Where labels for a lane wait, in a pipeline's state directory.
pub fn inbox_dir(state: &Path, lane: i32) -> PathBuf {
    state.join("labels").join(lane.to_string())
}

/// A label, and the log it is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Origin of the log.
    pub log: String,
    /// What is said.
    pub label: Label,
}

/// As it stands in the file.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RequestFile {
    format: String,
    log: String,
    device: String,
    verdict: Option<u64>,
    step: String,
    from: u64,
    to: u64,
    says: String,
    reason_hash: Option<String>,
    by: String,
    at: i64,
}

impl Request {
    /// The label's id in hexadecimal digits, which is the file's name.
    pub fn name(&self) -> String {
        format!("{}.json", hex(&self.label.id()))
    }

    /// The file's bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let l = &self.label;
        let file = RequestFile {
            format: FORMAT.to_owned(),
            log: self.log.clone(),
            device: l.device.clone(),
            verdict: l.verdict,
            step: l.step.clone(),
            from: l.from,
            to: l.to,
            says: l.opinion.name().to_owned(),
            reason_hash: l.reason.as_ref().map(|h| hex(h)),
            by: hex(&l.by),
            at: l.at,
        };
        // Invariant: texts and numbers are always JSON.
        let mut bytes = serde_json::to_vec_pretty(&file).unwrap_or_default();
        bytes.push(b'\n');
        bytes
    }

    /// Reads what [`Request::to_bytes`] wrote.
    ///
    /// # Errors
    /// When the bytes are something else, or say what no label can.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, RequestError> {
        let content = |why: String| RequestError::Content(why);
        let file: RequestFile =
            serde_json::from_slice(bytes).map_err(|e| content(format!("it is no request of `avouch label`: {e}")))?;
        if file.format != FORMAT {
            return Err(content(format!("its format is `{}`; this program reads {FORMAT}", file.format)));
        }
        let hash = |name: &str, text: &str| {
            unhex(text).ok_or_else(|| content(format!("`{name}` is not 64 lower-case hexadecimal digits")))
        };
        let Some(opinion) = Opinion::named(&file.says) else {
            return Err(content(format!("`{}` is not what a label can say", file.says)));
        };
        let label = Label {
            device: file.device,
            verdict: file.verdict,
            step: file.step,
            from: file.from,
            to: file.to,
            opinion,
            reason: file.reason_hash.map(|h| hash("reason_hash", &h)).transpose()?,
            by: hash("by", &file.by)?,
            at: file.at,
        };
        match label.flaw() {
            Some(flaw) => Err(content(flaw.to_owned())),
            None => Ok(Self { log: file.log, label }),
        }
    }

    /// Puts it into an inbox, whole or not at all. One that is there already is the same.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn put(&self, dir: &Path) -> Result<PathBuf, RequestError> {
        let path = dir.join(self.name());
        put(&path, &self.to_bytes()).map_err(|source| RequestError::File { path: path.clone(), source })?;
        Ok(path)
    }
}

/// Writes a file durably, whole or not at all, and the directory it is in.
pub(super) fn put(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let dir = path.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(dir)?;
    // No reader takes it for a request before it is whole.
    let temporary = path.with_extension(format!("{}.tmp", std::process::id()));
    let mut file = File::create(&temporary)?;
    file.write_all(bytes).and_then(|()| file.sync_all())?;
    std::fs::rename(&temporary, path)?;
    File::open(dir)?.sync_all()
}

/// The requests in an inbox, in the order of their names. None where there is no inbox.
///
/// # Errors
/// When the directory cannot be read.
pub fn waiting(dir: &Path) -> std::io::Result<Vec<PathBuf>> {
    let entries = match std::fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(e),
    };
    let mut out = Vec::new();
    for entry in entries {
        let path = entry?.path();
        if path.extension().is_some_and(|e| e == "json") {
            out.push(path);
        }
    }
    out.sort();
    Ok(out)
}

fn unhex(text: &str) -> Option<Hash32> {
    let digit = |b: u8| match b {
        b'0'..=b'9' => Some(b - b'0'),
        b'a'..=b'f' => Some(b - b'a' + 10),
        _ => None,
    };
    let bytes: &[u8; 64] = text.as_bytes().try_into().ok()?;
    let mut out = [0; 32];
    for (byte, two) in out.iter_mut().zip(bytes.chunks_exact(2)) {
        *byte = digit(two[0])? << 4 | digit(two[1])?;
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn request() -> Request {
        Request {
            log: "avouch/pumps/0".into(),
            label: Label {
                device: "pümp \"1\"".into(),
                verdict: Some(3),
                step: "anomaly".into(),
                from: 1,
                to: 2,
                opinion: Opinion::FalseAlarm,
                reason: Some([0xab; 32]),
                by: [1; 32],
                at: -5,
            },
        }
    }

    #[test]
    fn a_file_and_back() {
        let dir = tempfile::tempdir().unwrap();
        let request = request();
        let inbox = inbox_dir(dir.path(), 7);
        assert_eq!(waiting(&inbox).unwrap(), Vec::<PathBuf>::new());
        let path = request.put(&inbox).unwrap();
        assert_eq!(request.put(&inbox).unwrap(), path);
        std::fs::write(inbox.join("half.1.tmp"), "{").unwrap();
        assert_eq!(waiting(&inbox).unwrap(), vec![path.clone()]);
        assert_eq!(Request::from_bytes(&std::fs::read(path).unwrap()).unwrap(), request);
    }

    #[test]
    fn what_is_no_request_says_why() {
        let text = String::from_utf8(request().to_bytes()).unwrap();
        let said: Vec<String> = [
            ("false-alarm", "perhaps"),
            ("avouch-label/1", "avouch-label/2"),
            ("abab", "ABAB"),
            ("\"to\": 2", "\"to\": 1"),
            ("\"by\"", "\"who\""),
            ("}", ""),
        ]
        .iter()
        .map(|(a, b)| Request::from_bytes(text.replacen(a, b, 1).as_bytes()).unwrap_err().to_string())
        .collect();
        insta::assert_snapshot!(said.join("\n"));
    }
}
