//! The text of a reason, kept beside the log and never in it: whoever deletes the file has erased the reason.

use std::path::{Path, PathBuf};

use avouch_engine::label::reason_hash;
use avouch_engine::verdict::Hash32;
use serde::{Deserialize, Serialize};

use super::request::{RequestError, put};
use crate::runtime::hex;

/// A reason and its salt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reason {
    /// 32 hexadecimal digits, random.
    pub salt: String,
    /// What was given.
    pub text: String,
}

fn path(state: &Path, hash: &Hash32) -> PathBuf {
    reason_path(state, &hex(hash))
}

/// The file of a reason, by its hash in hexadecimal digits.
pub(crate) fn reason_path(state: &Path, hash: &str) -> PathBuf {
    state.join("labels/reasons").join(format!("{hash}.json"))
}

/// Keeps a reason under a random salt; gives its hash and its file.
///
/// # Errors
/// When it cannot be written.
pub fn keep_reason(state: &Path, salt: [u8; 16], text: &str) -> Result<(Hash32, PathBuf), RequestError> {
    let hash = reason_hash(&salt, text);
    let path = path(state, &hash);
    let reason = Reason { salt: hex(&salt), text: text.to_owned() };
    // Invariant: texts are always JSON.
    let bytes = serde_json::to_vec(&reason).unwrap_or_default();
    put(&path, &bytes).map_err(|source| RequestError::File { path: path.clone(), source })?;
    Ok((hash, path))
}

/// The text of a reason, if it is still there and is the one that was hashed.
pub fn reason_of(state: &Path, hash: &Hash32) -> Option<String> {
    let bytes = std::fs::read(path(state, hash)).ok()?;
    let reason: Reason = serde_json::from_slice(&bytes).ok()?;
    let mut salt = [0; 16];
    if reason.salt.len() != 32 {
        return None;
    }
    for (i, byte) in salt.iter_mut().enumerate() {
        *byte = u8::from_str_radix(reason.salt.get(2 * i..2 * i + 2)?, 16).ok()?;
    }
    (reason_hash(&salt, &reason.text) == *hash).then_some(reason.text)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_reason_is_there_until_it_is_deleted_or_altered() {
        let dir = tempfile::tempdir().unwrap();
        let (hash, path) = keep_reason(dir.path(), [7; 16], "the valve was replaced").unwrap();
        assert_eq!(reason_of(dir.path(), &hash).unwrap(), "the valve was replaced");
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, text.replace("valve", "pump")).unwrap();
        assert_eq!(reason_of(dir.path(), &hash), None);
        std::fs::remove_file(path).unwrap();
        assert_eq!(reason_of(dir.path(), &hash), None);
    }
}
