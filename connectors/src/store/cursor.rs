//! How far a sink has got, durably.

use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::{StoreError, io};

type Result<T> = std::result::Result<T, StoreError>;

/// A sink's place in the log: the index of the first verdict it has not taken yet. A sink writes it after it has
/// delivered, so that a crash repeats rather than loses; verdicts are told apart by (origin, index).
///
/// After a fall-back to an earlier checkpoint a cursor can be ahead of the log; the log regrows to the same bytes, so
/// the sink just waits.
#[derive(Debug)]
pub struct Cursor {
    path: PathBuf,
    next: u64,
}

fn render(next: u64) -> String {
    let body = format!("avouch-cursor 1 {next}");
    let digest = Sha256::digest(body.as_bytes());
    let sum: String = digest[..8].iter().map(|b| format!("{b:02x}")).collect();
    format!("{body} {sum}\n")
}

impl Cursor {
    /// Opens a sink's cursor in a lane's directory; a new one is at 0.
    ///
    /// # Errors
    /// When the name cannot be a file's, or the file is damaged: it is never taken for 0.
    pub fn open(lane_dir: &Path, sink: &str) -> Result<Self> {
        let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if sink.is_empty() || sink.ends_with(".tmp") || !sink.chars().all(fits) {
            return Err(StoreError::BadName { name: sink.to_owned() });
        }
        let path = lane_dir.join(format!("cursor-{sink}"));
        let Some(bytes) = io::read_if_there(&path)? else {
            return Ok(Self { path, next: 0 });
        };
        let text = String::from_utf8_lossy(&bytes);
        match text.split(' ').nth(2).and_then(|n| n.parse().ok()) {
            Some(next) if render(next).as_bytes() == bytes => Ok(Self { path, next }),
            _ => Err(StoreError::Damaged {
                file: path.display().to_string(),
                why: "it is not a cursor, or was altered; delete it to let the sink start from the first verdict"
                    .into(),
            }),
        }
    }

    /// The index of the first verdict not yet taken.
    pub fn get(&self) -> u64 {
        self.next
    }

    /// Moves it, durably: when this returns, a crash does not undo it.
    ///
    /// # Errors
    /// When it cannot be written; then the old value stands.
    pub fn set(&mut self, next: u64) -> Result<()> {
        if next == self.next && self.path.exists() {
            return Ok(());
        }
        io::replace(&self.path, render(next).as_bytes(), true)?;
        if let Some(dir) = self.path.parent() {
            io::sync_dir(dir)?;
        }
        self.next = next;
        Ok(())
    }
}
