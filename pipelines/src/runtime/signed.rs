//! The checkpoints signed for the contract, kept so that evidence can be bundled: one line of JSON each, in the lane's
//! `signed-checkpoints.jsonl`, written, fsynced and, where the lane is copied to an object store, copied before the transaction
//! is sent.
//!
//! A line says what was signed, not that it reached the chain: several may be signed for one size before one does. Which
//! one did, the chain says.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use avouch_engine::bundle::SignedCheckpoint;
use avouch_engine::verdict::Hash32;
use serde::{Deserialize, Serialize};

use super::artifacts::hex;
use super::error::RuntimeError;

#[derive(Serialize, Deserialize)]
struct Line {
    log_id: String,
    old_size: u64,
    new_size: u64,
    old_root: String,
    new_root: String,
    data_commitment: String,
    issued_at: u64,
    chain_id: u64,
    contract: String,
    owner: String,
    signer: String,
    signature: String,
}

/// The file's name.
pub const FILE: &str = "signed-checkpoints.jsonl";

fn path(lane_dir: &Path) -> PathBuf {
    lane_dir.join(FILE)
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    if !text.is_ascii() || !text.len().is_multiple_of(2) {
        return None;
    }
    (0..text.len()).step_by(2).map(|i| u8::from_str_radix(&text[i..i + 2], 16).ok()).collect()
}

fn array<const N: usize>(text: &str) -> Option<[u8; N]> {
    unhex(text)?.try_into().ok()
}

impl Line {
    fn parse(text: &str) -> Option<SignedCheckpoint> {
        let l: Line = serde_json::from_str(text).ok()?;
        Some(SignedCheckpoint {
            log_id: array::<32>(&l.log_id)? as Hash32,
            old_size: l.old_size,
            new_size: l.new_size,
            old_root: array(&l.old_root)?,
            new_root: array(&l.new_root)?,
            data_commitment: array(&l.data_commitment)?,
            issued_at: l.issued_at,
            chain_id: l.chain_id,
            contract: array(&l.contract)?,
            owner: array(&l.owner)?,
            signer: array(&l.signer)?,
            signature: unhex(&l.signature)?,
        })
    }
}

/// Keeps a signed checkpoint, durably. Returns where in the file it begins.
pub fn keep(lane_dir: &Path, c: &SignedCheckpoint) -> Result<u64, RuntimeError> {
    let line = Line {
        log_id: hex(&c.log_id),
        old_size: c.old_size,
        new_size: c.new_size,
        old_root: hex(&c.old_root),
        new_root: hex(&c.new_root),
        data_commitment: hex(&c.data_commitment),
        issued_at: c.issued_at,
        chain_id: c.chain_id,
        contract: hex(&c.contract),
        owner: hex(&c.owner),
        signer: hex(&c.signer),
        signature: hex(&c.signature),
    };
    let path = path(lane_dir);
    let fail = |source| RuntimeError::File { path: path.clone(), source };
    let text = serde_json::to_string(&line).map_err(|e| fail(std::io::Error::other(e)))?;
    let mut file = OpenOptions::new().create(true).append(true).open(&path).map_err(fail)?;
    let at = file.metadata().map_err(fail)?.len();
    // The line break comes first: a line that a crash left unfinished must not swallow this one.
    file.write_all(format!("\n{text}").as_bytes()).and_then(|()| file.sync_all()).map_err(fail)?;
    Ok(at)
}

/// All that were kept, in the order of signing. Lines that a crash left unfinished are passed over.
pub fn all(lane_dir: &Path) -> Result<Vec<SignedCheckpoint>, RuntimeError> {
    let path = path(lane_dir);
    match std::fs::read_to_string(&path) {
        Ok(text) => Ok(text.lines().filter_map(Line::parse).collect()),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(source) => Err(RuntimeError::File { path, source }),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_torn_line_hides_no_other() {
        let dir = tempfile::tempdir().unwrap();
        assert!(all(dir.path()).unwrap().is_empty());
        let mut c = SignedCheckpoint {
            log_id: [1; 32],
            old_size: 0,
            new_size: 5,
            old_root: [0; 32],
            new_root: [2; 32],
            data_commitment: [3; 32],
            issued_at: 7,
            chain_id: 31337,
            contract: [4; 20],
            owner: [5; 20],
            signer: [6; 20],
            signature: vec![9; 65],
        };
        keep(dir.path(), &c).unwrap();
        let mut torn = OpenOptions::new().append(true).open(path(dir.path())).unwrap();
        torn.write_all(b"\n{\"log_id\":\"01").unwrap();
        c.new_size = 9;
        keep(dir.path(), &c).unwrap();
        let sizes: Vec<u64> = all(dir.path()).unwrap().iter().map(|c| c.new_size).collect();
        assert_eq!(sizes, [5, 9]);
        assert_eq!(all(dir.path()).unwrap()[1], c);
    }
}
