//! The Ed25519 key that signs a lane's published checkpoints.

use std::fs::{File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use avouch_engine::log::NoteSigner;
use avouch_engine::verdict::{Hash32, LogOrigin};

use super::{StoreError, io};

/// Reads the key's seed (64 hex digits) from a file, or makes one from the system's randomness, readable by its owner
/// alone.
///
/// # Errors
/// When the file cannot be read or made, or does not hold a seed.
pub fn load_or_create_note_signer(path: &Path, origin: &LogOrigin) -> Result<NoteSigner, StoreError> {
    let seed = match io::read_if_there(path)? {
        Some(bytes) => hash_of_hex(&bytes).ok_or_else(|| StoreError::Damaged {
            file: path.display().to_string(),
            why: "it should hold 64 hex digits".into(),
        })?,
        None => create(path)?,
    };
    Ok(NoteSigner::from_seed(origin, &seed)?)
}

/// 64 hexadecimal digits, and white space around them.
pub(crate) fn hash_of_hex(bytes: &[u8]) -> Option<Hash32> {
    let text = std::str::from_utf8(bytes).ok()?.trim();
    if text.len() != 64 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    let mut seed = [0; 32];
    for (i, byte) in seed.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * i..2 * i + 2], 16).ok()?;
    }
    Some(seed)
}

fn create(path: &Path) -> Result<Hash32, StoreError> {
    let random = Path::new("/dev/urandom");
    let mut seed = [0; 32];
    let mut source = File::open(random).map_err(io::failed("open", random))?;
    source.read_exact(&mut seed).map_err(io::failed("read", random))?;
    let hex: String = seed.iter().map(|b| format!("{b:02x}")).collect();
    let mut file =
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(io::failed("create", path))?;
    file.write_all(format!("{hex}\n").as_bytes()).map_err(io::failed("write", path))?;
    file.sync_all().map_err(io::failed("fsync", path))?;
    Ok(seed)
}
