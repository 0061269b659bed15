//! The file of a device's secret key.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use avouch_engine::identity::{SignerError, SigningKey};
use rand::RngCore as _;
use rand::rngs::OsRng;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::lang::{hex, hex_bytes};

/// So many numbers are put ahead at a time.
const AHEAD: u64 = 1 << 16;

/// Why a file of a secret key cannot be used.
#[derive(Debug, Error)]
pub enum KeyFileError {
    /// It cannot be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It is there already.
    #[error("{} is there already; a key that was lost by writing over it is lost for good, so choose another name", path.display())]
    Exists {
        /// Which.
        path: PathBuf,
    },
    /// It holds no key.
    #[error("{}: {why}; `avouch device keygen` writes such files", path.display())]
    Content {
        /// Which.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// The device's name cannot be a file's.
    #[error("the device `{0}` cannot be the name of a file; say its file with --out")]
    Name(String),
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Content {
    device: String,
    kind: String,
    secret: String,
    next_seq: u64,
}

/// A device's secret key, and the number its next reading has.
#[derive(Debug)]
pub struct DeviceKeyFile {
    path: PathBuf,
    device: String,
    key: SigningKey,
    kind: String,
    secret: [u8; 32],
    next_seq: u64,
    /// What stands in the file.
    reserved: u64,
}

impl DeviceKeyFile {
    /// Where the key of a device is in a directory.
    ///
    /// # Errors
    /// [`KeyFileError::Name`]
    pub fn path_in(dir: &Path, device: &str) -> Result<PathBuf, KeyFileError> {
        if device.is_empty() || device.starts_with('.') || device.contains(['/', '\\', '\0']) {
            return Err(KeyFileError::Name(device.to_owned()));
        }
        Ok(dir.join(format!("{device}.json")))
    }

    /// Makes a key at random, in a file that only its owner may read.
    ///
    /// # Errors
    /// [`KeyFileError::Exists`], and what keeps it from being written.
    pub fn make(path: &Path, device: &str, kind: &str) -> Result<Self, KeyFileError> {
        let mut secret = [0; 32];
        let key = loop {
            OsRng.fill_bytes(&mut secret);
            match SigningKey::new(kind, &secret) {
                Ok(key) => break key,
                // One in 2¹²⁸.
                Err(SignerError::Secret(_)) => {}
                Err(e) => return Err(KeyFileError::Content { path: path.to_path_buf(), why: e.to_string() }),
            }
        };
        let made = Self {
            path: path.to_path_buf(),
            device: device.to_owned(),
            key,
            kind: kind.to_owned(),
            secret,
            next_seq: 0,
            reserved: 0,
        };
        let io = |source| KeyFileError::Io { path: path.to_path_buf(), source };
        if let Some(dir) = path.parent() {
            std::fs::create_dir_all(dir).map_err(io)?;
        }
        let mut file = match OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
            Ok(file) => file,
            Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {
                return Err(KeyFileError::Exists { path: path.to_path_buf() });
            }
            Err(e) => return Err(io(e)),
        };
        file.write_all(made.text().as_bytes()).and_then(|()| file.sync_all()).map_err(io)?;
        Ok(made)
    }

    /// Reads one.
    ///
    /// # Errors
    /// [`KeyFileError`]
    pub fn read(path: &Path) -> Result<Self, KeyFileError> {
        let io = |source| KeyFileError::Io { path: path.to_path_buf(), source };
        let wrong = |why: String| KeyFileError::Content { path: path.to_path_buf(), why };
        let text = std::fs::read_to_string(path).map_err(io)?;
        // The parser's own words may repeat what stands there.
        let content: Content = serde_json::from_str(&text)
            .map_err(|e| wrong(format!("line {} is not what it must be ({:?} error)", e.line(), e.classify())))?;
        let secret = hex_bytes(&content.secret).ok_or_else(|| wrong("`secret` is not 64 hexadecimal digits".into()))?;
        let key = SigningKey::new(&content.kind, &secret).map_err(|e| wrong(e.to_string()))?;
        let Content { device, kind, next_seq, .. } = content;
        Ok(Self { path: path.to_path_buf(), device, key, kind, secret, next_seq, reserved: next_seq })
    }

    /// Whose key it is.
    pub fn device(&self) -> &str {
        &self.device
    }

    /// The key.
    pub fn key(&self) -> &SigningKey {
        &self.key
    }

    /// The number that its next reading has.
    pub fn next_seq(&self) -> u64 {
        self.next_seq
    }

    /// Another number for its next reading: one that readings before it did not have.
    ///
    /// # Errors
    /// When that cannot be written.
    pub fn begin_at(&mut self, seq: u64) -> Result<(), KeyFileError> {
        self.next_seq = seq;
        self.settle()
    }

    /// Takes the next `n` numbers, for good; the first of them.
    ///
    /// # Errors
    /// When the file cannot be written; then none is taken.
    pub fn take(&mut self, n: u64) -> Result<u64, KeyFileError> {
        let (first, next) = (self.next_seq, self.next_seq.saturating_add(n));
        if next > self.reserved {
            self.reserved = next.saturating_add(AHEAD);
            self.write()?;
        }
        self.next_seq = next;
        Ok(first)
    }

    /// Gives back the numbers that were put ahead and not taken.
    ///
    /// # Errors
    /// When that cannot be written.
    pub fn settle(&mut self) -> Result<(), KeyFileError> {
        self.reserved = self.next_seq;
        self.write()
    }

    fn text(&self) -> String {
        let content = Content {
            device: self.device.clone(),
            kind: self.kind.clone(),
            secret: hex(&self.secret),
            next_seq: self.reserved,
        };
        // Invariant: texts and a number are JSON.
        serde_json::to_string_pretty(&content).unwrap_or_default() + "\n"
    }

    fn write(&self) -> Result<(), KeyFileError> {
        let io = |source| KeyFileError::Io { path: self.path.clone(), source };
        let temporary = self.path.with_extension(format!("{}.tmp", std::process::id()));
        let mut file =
            OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary).map_err(io)?;
        file.write_all(self.text().as_bytes()).and_then(|()| file.sync_all()).map_err(io)?;
        std::fs::rename(&temporary, &self.path).map_err(io)?;
        let dir = self.path.parent().filter(|d| !d.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(dir).and_then(|d| d.sync_all()).map_err(io)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_number_is_never_used_twice_whatever_happens_to_the_process() {
        let dir = tempfile::tempdir().unwrap();
        let path = DeviceKeyFile::path_in(dir.path(), "pump-1").unwrap();
        let mut file = DeviceKeyFile::make(&path, "pump-1", "p256").unwrap();
        assert_eq!((file.take(3).unwrap(), file.take(1).unwrap()), (0, 3));
        // Killed: the next process begins behind all that could have been taken.
        let mut again = DeviceKeyFile::read(&path).unwrap();
        assert_eq!(again.key().public(), file.key().public());
        assert!(again.next_seq() >= 4);
        let first = again.take(1).unwrap();
        again.settle().unwrap();
        assert_eq!(DeviceKeyFile::read(&path).unwrap().next_seq(), first + 1);
        assert!(matches!(DeviceKeyFile::make(&path, "pump-1", "p256"), Err(KeyFileError::Exists { .. })));
        assert!(matches!(DeviceKeyFile::path_in(dir.path(), "../x"), Err(KeyFileError::Name(_))));
        use std::os::unix::fs::PermissionsExt as _;
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        // What stands there is shown to nobody.
        std::fs::write(&path, "{ \"secret\": \"0123\" ").unwrap();
        assert!(!DeviceKeyFile::read(&path).unwrap_err().to_string().contains("0123"));
    }
}
