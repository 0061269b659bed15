//! Dead letters as files: one JSON object a line, in `<path>/<pipeline>.<lane>.<name>.<first>.ndjson`, where `first` is the
//! number of the first letter in the file.
//!
//! Exactly once: the cursor keeps, together with its place, the file and how long it was then. When the sink opens, what a
//! crash left beyond that length is cut off, and written again. A file that has reached `size` is closed, and the next
//! letter begins a new one; files are never deleted.

use std::fs::{File, OpenOptions};
use std::io::{Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use avouch_connectors::delivery::{DownKind, Failure};
use avouch_connectors::store::{Cursor, LaneReader, StoreError};

use super::super::error::RuntimeError;
use super::Target;
use super::writer::{Batch, Halt, Position, blocking};
use crate::lang::DeadLetterFiles;

#[derive(Debug, Clone)]
pub(super) struct Options {
    dir: PathBuf,
    bytes: u64,
}

impl Options {
    pub fn new(f: &DeadLetterFiles) -> Self {
        Self { dir: f.dir.clone(), bytes: f.bytes }
    }
}

pub(super) struct FileWriter {
    cursor: Cursor,
    options: Options,
    stem: String,
    /// The file written to: number of its first letter, and its length.
    current: Option<(u64, u64)>,
}

fn failed(path: &Path) -> impl Fn(std::io::Error) -> Halt {
    move |e| Failure::down(DownKind::Failed, format!("{}: {e}", path.display())).into()
}

impl FileWriter {
    pub fn open(target: &Target, options: &Options, reader: &LaneReader) -> Result<(Self, Position), Halt> {
        let cursor = reader.cursor(&target.name)?;
        let current = match cursor.note().split_once(' ') {
            None => None,
            Some((first, length)) => match (first.parse(), length.parse()) {
                (Ok(first), Ok(length)) => Some((first, length)),
                _ => {
                    let why = format!("cursor-{} does not name a file of dead letters", target.name);
                    return Err(RuntimeError::Inconsistent { lane: target.partition, why }.into());
                }
            },
        };
        let stem = format!("{}.{}.{}", target.pipeline, target.partition, target.name);
        std::fs::create_dir_all(&options.dir).map_err(failed(&options.dir))?;
        let writer = Self { cursor, options: options.clone(), stem, current };
        writer.cut(target)?;
        let position = Position::of(&writer.cursor);
        Ok((writer, position))
    }

    fn path(&self, first: u64) -> PathBuf {
        self.options.dir.join(format!("{}.{first:012}.ndjson", self.stem))
    }

    /// Cuts off what a crash left beyond the cursor.
    fn cut(&self, target: &Target) -> Result<(), Halt> {
        if let Some((first, length)) = self.current {
            let path = self.path(first);
            let have = match std::fs::metadata(&path) {
                Ok(m) => m.len(),
                // Whoever has moved a file away has taken what was in it.
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => 0,
                Err(e) => return Err(failed(&path)(e)),
            };
            if have > length {
                let file = OpenOptions::new().write(true).open(&path).map_err(failed(&path))?;
                file.set_len(length).and_then(|()| file.sync_all()).map_err(failed(&path))?;
            } else if have < length {
                tracing::warn!(
                    sink = target.name,
                    file = %path.display(),
                    "a file of dead letters was moved away or cut; the next letters begin a new one"
                );
            }
        }
        // A new file's name is the cursor's: of what is not counted yet there can be only this one.
        let next = self.path(self.cursor.get());
        if self.current.is_none_or(|(first, _)| first != self.cursor.get()) && next.exists() {
            std::fs::remove_file(&next).map_err(failed(&next))?;
        }
        Ok(())
    }

    pub async fn deliver(&mut self, target: &Target, batch: Batch<'_>) -> Result<(), Halt> {
        let mut text = String::new();
        for item in batch.items {
            text.push_str(&item.json(batch.log, target).to_string());
            text.push('\n');
        }
        if text.is_empty() {
            return Ok(());
        }
        let whole = |(first, length): &(u64, u64)| {
            *length < self.options.bytes && std::fs::metadata(self.path(*first)).is_ok_and(|m| m.len() == *length)
        };
        let (first, length) = self.current.filter(whole).unwrap_or((batch.from, 0));
        let (path, bytes) = (self.path(first), text.len() as u64);
        blocking(move || {
            let write = || {
                let mut file = OpenOptions::new().write(true).create(true).truncate(false).open(&path)?;
                file.set_len(length)?;
                file.seek(SeekFrom::Start(length))?;
                file.write_all(text.as_bytes())?;
                file.sync_all()?;
                match path.parent() {
                    Some(dir) if length == 0 => File::open(dir)?.sync_all(),
                    _ => Ok(()),
                }
            };
            write().map_err(failed(&path))
        })
        .await?;
        self.current = Some((first, length + bytes));
        Ok(())
    }

    pub fn save(&mut self, next: u64) -> Result<(), StoreError> {
        match self.current {
            Some((first, length)) => self.cursor.set_with(next, &format!("{first} {length}")),
            None => self.cursor.set(next),
        }
    }
}
