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
///
/// A sink may keep a note with it, one line that changes together with the place: which alerts are open, how long a file
/// was.
#[derive(Debug)]
pub struct Cursor {
    path: PathBuf,
    next: u64,
    note: String,
}

/// `avouch-cursor 2 <next> <sum>`, a line feed, the note, a line feed. The sum is of everything else.
fn render(next: u64, note: &str) -> String {
    let digest = Sha256::digest(format!("avouch-cursor 2 {next}\n{note}").as_bytes());
    let sum: String = digest[..8].iter().map(|b| format!("{b:02x}")).collect();
    format!("avouch-cursor 2 {next} {sum}\n{note}\n")
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
            return Ok(Self { path, next: 0, note: String::new() });
        };
        let text = String::from_utf8_lossy(&bytes);
        let note = text.split_once('\n').and_then(|(_, n)| n.strip_suffix('\n')).unwrap_or_default();
        match text.split(' ').nth(2).and_then(|n| n.parse().ok()) {
            Some(next) if render(next, note).as_bytes() == bytes => Ok(Self { path, next, note: note.to_owned() }),
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

    /// The note kept with it; empty when there is none.
    pub fn note(&self) -> &str {
        &self.note
    }

    /// Moves it, durably: when this returns, a crash does not undo it. The note stays.
    ///
    /// # Errors
    /// When it cannot be written; then the old value stands.
    pub fn set(&mut self, next: u64) -> Result<()> {
        let note = std::mem::take(&mut self.note);
        let outcome = self.put(next, &note);
        self.note = note;
        outcome
    }

    /// Moves it together with a note, both or neither.
    ///
    /// # Errors
    /// As [`Cursor::set`].
    pub fn set_with(&mut self, next: u64, note: &str) -> Result<()> {
        self.put(next, note)?;
        self.note = note.to_owned();
        Ok(())
    }

    fn put(&mut self, next: u64, note: &str) -> Result<()> {
        let bytes = render(next, note);
        if next == self.next && io::read_if_there(&self.path)?.is_some_and(|there| there == bytes.as_bytes()) {
            return Ok(());
        }
        io::replace(&self.path, bytes.as_bytes(), true)?;
        if let Some(dir) = self.path.parent() {
            io::sync_dir(dir)?;
        }
        self.next = next;
        Ok(())
    }
}
