//! The verdicts a sink has refused, kept beside the log they are in.
//!
//! A refused verdict is no dead row: its rows were used and it stands in the log, so it counts neither against the lane's
//! rows nor among the lane's dead letters. It is a delivery that died. What is kept of it is its index and the sink's words;
//! the verdict itself is in the log, which is never cut below what a sink has been offered.
//!
//! `refused-<sink>` is one line a refusal, in the order of the log:
//! `{"index":5,"status":"422","why":"…"}`, a tab, the first 16 hexadecimal digits of the SHA-256 of what is before, a line feed.
//!
//! A refusal is durable before the sink's cursor passes it and counts only once it has: a crash in between offers the
//! record again, and what the sink says then stands.

use std::fs::{File, OpenOptions};
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use tokio::sync::watch;

use super::{LaneReader, StoreError, io};

type Result<T> = std::result::Result<T, StoreError>;

/// One verdict that a sink refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// Its index in the log.
    pub index: u64,
    /// The sink's code.
    pub status: String,
    /// The sink's words.
    pub why: String,
}

#[derive(Debug)]
struct Kept {
    file: File,
    /// For each refusal its index and where its line ends.
    lines: Vec<(u64, u64)>,
}

impl Kept {
    fn end(&self) -> u64 {
        self.lines.last().map_or(0, |(_, end)| *end)
    }

    /// How many are of indices below `next`.
    fn below(&self, next: u64) -> usize {
        self.lines.partition_point(|(index, _)| *index < next)
    }
}

/// The refusals of one sink and lane. The sink appends, the dead-letter output reads.
#[derive(Debug)]
pub struct Refusals {
    path: PathBuf,
    kept: Mutex<Kept>,
    settled: watch::Sender<u64>,
    /// Of the lane, where refusals are copied to an object store at once.
    lane: Option<LaneReader>,
}

fn line(refusal: &Refusal) -> String {
    // Invariant: a struct of a number and two strings is always JSON.
    let json = serde_json::to_string(refusal).unwrap_or_default();
    format!("{json}\t{}\n", sum(json.as_bytes()))
}

fn sum(bytes: &[u8]) -> String {
    Sha256::digest(bytes)[..8].iter().map(|b| format!("{b:02x}")).collect()
}

fn parse(line: &[u8]) -> Option<Refusal> {
    let text = std::str::from_utf8(line.strip_suffix(b"\n")?).ok()?;
    let (json, told) = text.split_once('\t')?;
    (told == sum(json.as_bytes())).then(|| serde_json::from_str(json).ok()).flatten()
}

impl Refusals {
    /// Opens the refusals of a sink of the lane in this directory. `next` is the sink's cursor as far as it is known here.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] when a line in the middle is not what was written; [`StoreError::BadName`], [`StoreError::Io`].
    pub fn open(lane_dir: &Path, sink: &str, next: u64) -> Result<Self> {
        let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if sink.is_empty() || !sink.chars().all(fits) {
            return Err(StoreError::BadName { name: sink.to_owned() });
        }
        let path = lane_dir.join(format!("refused-{sink}"));
        let mut options = OpenOptions::new();
        let mut file = options
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(io::failed("open for writing", &path))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(io::failed("read", &path))?;
        let (mut lines, mut end) = (Vec::<(u64, u64)>::new(), 0);
        for line in bytes.split_inclusive(|b| *b == b'\n') {
            match parse(line) {
                Some(r) if lines.last().is_none_or(|(last, _)| *last < r.index) => {
                    end += line.len() as u64;
                    lines.push((r.index, end));
                }
                // A line that a crash left unfinished is the last one; its sink's cursor has not passed it.
                None if end + line.len() as u64 == bytes.len() as u64 && !line.ends_with(b"\n") => break,
                _ => {
                    let why = format!("line {} was altered; restore the file from a copy", lines.len() + 1);
                    return Err(StoreError::Damaged { file: path.display().to_string(), why });
                }
            }
        }
        file.set_len(end).map_err(io::failed("truncate", &path))?;
        let kept = Kept { file, lines };
        let (settled, _) = watch::channel(kept.below(next) as u64);
        Ok(Self { path, kept: Mutex::new(kept), settled, lane: None })
    }

    /// Opens the refusals of a sink of a lane; each counts as kept once the lane's object store has it, too, if it has one.
    ///
    /// # Errors
    /// As [`Refusals::open`].
    pub fn of_lane(lane: &LaneReader, sink: &str) -> Result<Self> {
        let opened = Self::open(lane.dir(), sink, lane.cursor(sink)?.get())?;
        Ok(Self { lane: Some(lane.clone()), ..opened })
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        // A panic elsewhere leaves the list as long as the file's whole lines.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The sink opens at `next`: what was refused from there on will be offered again, so it is forgotten.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub fn rewind(&self, next: u64) -> Result<()> {
        let mut kept = self.kept();
        let below = kept.below(next);
        kept.lines.truncate(below);
        let end = kept.end();
        kept.file.set_len(end).map_err(io::failed("truncate", &self.path))?;
        self.settled.send_replace(below as u64);
        Ok(())
    }

    /// Keeps a refusal, durably. One that is kept already is not kept twice. Blocks ([`LaneReader::copy_beside`]).
    ///
    /// # Errors
    /// [`StoreError::Io`], [`StoreError::Remote`].
    pub fn append(&self, refusal: &Refusal) -> Result<()> {
        let mut kept = self.kept();
        if kept.lines.last().is_some_and(|(last, _)| *last >= refusal.index) {
            return Ok(());
        }
        let (line, at) = (line(refusal), kept.end());
        let write = |file: &mut File| {
            file.seek(SeekFrom::Start(at))?;
            file.write_all(line.as_bytes())?;
            file.sync_all()
        };
        write(&mut kept.file).map_err(io::failed("write", &self.path))?;
        if at == 0
            && let Some(dir) = self.path.parent()
        {
            io::sync_dir(dir)?;
        }
        kept.lines.push((refusal.index, at + line.len() as u64));
        drop(kept);
        match (&self.lane, self.path.file_name().and_then(|n| n.to_str())) {
            (Some(lane), Some(file)) => lane.copy_beside(file, at),
            _ => Ok(()),
        }
    }

    /// The sink's cursor has durably reached `next`: refusals below it stand.
    pub fn settle(&self, next: u64) {
        let below = self.kept().below(next) as u64;
        self.settled.send_if_modified(|s| std::mem::replace(s, below) != below);
    }

    /// How many stand.
    pub fn settled(&self) -> u64 {
        *self.settled.borrow()
    }

    /// Tells how many stand, whenever that changes.
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.settled.subscribe()
    }

    /// Those that stand, from the `from`-th on, at most `most`.
    ///
    /// # Errors
    /// [`StoreError::Damaged`], [`StoreError::Io`].
    pub fn read(&self, from: u64, most: usize) -> Result<Vec<Refusal>> {
        let settled = self.settled();
        let mut kept = self.kept();
        let first = usize::try_from(from.min(settled)).unwrap_or(usize::MAX);
        let last = first.saturating_add(most).min(usize::try_from(settled).unwrap_or(usize::MAX)).min(kept.lines.len());
        if first >= last {
            return Ok(Vec::new());
        }
        let start = first.checked_sub(1).map_or(0, |i| kept.lines[i].1);
        let mut bytes = vec![0; usize::try_from(kept.lines[last - 1].1 - start).unwrap_or(0)];
        let read = |file: &mut File, bytes: &mut Vec<u8>| {
            file.seek(SeekFrom::Start(start))?;
            file.read_exact(bytes)
        };
        read(&mut kept.file, &mut bytes).map_err(io::failed("read", &self.path))?;
        bytes
            .split_inclusive(|b| *b == b'\n')
            .map(|line| {
                parse(line).ok_or_else(|| StoreError::Damaged {
                    file: self.path.display().to_string(),
                    why: "it was altered while it was in use".into(),
                })
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn refusal(index: u64) -> Refusal {
        Refusal { index, status: "422".into(), why: format!("no \"{index}\"\tplease\n") }
    }

    #[test]
    fn what_stands_is_what_the_cursor_has_passed() {
        let dir = tempfile::tempdir().unwrap();
        let r = Refusals::open(dir.path(), "hook", 0).unwrap();
        for index in [3, 5, 9] {
            r.append(&refusal(index)).unwrap();
            r.append(&refusal(index)).unwrap();
        }
        assert!(r.read(0, 10).unwrap().is_empty());
        r.settle(6);
        assert_eq!(r.read(0, 10).unwrap(), [refusal(3), refusal(5)]);
        assert_eq!(r.read(1, 10).unwrap(), [refusal(5)]);
        drop(r);

        // After a crash with the cursor at 6, what was refused beyond is offered again.
        let r = Refusals::open(dir.path(), "hook", 6).unwrap();
        assert_eq!(r.settled(), 2);
        r.rewind(6).unwrap();
        r.settle(100);
        assert_eq!(r.settled(), 2, "9 was taken this time");
        r.append(&refusal(120)).unwrap();
        r.settle(121);
        assert_eq!(r.read(0, 2).unwrap(), [refusal(3), refusal(5)]);
        assert_eq!(r.read(2, 2).unwrap(), [refusal(120)]);
    }

    #[test]
    fn a_torn_line_is_cut_and_an_altered_one_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("refused-hook");
        let r = Refusals::open(dir.path(), "hook", 0).unwrap();
        r.append(&refusal(1)).unwrap();
        r.append(&refusal(2)).unwrap();
        drop(r);
        let whole = std::fs::read(&path).unwrap();
        let one = whole.len() / 2;
        for cut in one..whole.len() {
            std::fs::write(&path, &whole[..cut]).unwrap();
            let r = Refusals::open(dir.path(), "hook", 9).unwrap();
            assert_eq!(r.read(0, 9).unwrap(), [refusal(1)], "cut at {cut}");
            r.append(&refusal(2)).unwrap();
            drop(r);
            assert_eq!(std::fs::read(&path).unwrap(), whole);
        }
        let mut altered = whole.clone();
        altered[one / 2] ^= 1;
        std::fs::write(&path, &altered).unwrap();
        assert!(matches!(Refusals::open(dir.path(), "hook", 9), Err(StoreError::Damaged { .. })));
    }
}
