//! Files that a process left behind, with other bytes in them. Checksums are made right again, or nothing behind them would
//! ever be read.

use std::path::{Path, PathBuf};
use std::sync::{LazyLock, Mutex, PoisonError};

use avouch_connectors::journal::{JournalOptions, JournalWriter, Message};
use avouch_connectors::store::{Commit, LaneStore, StoreOptions, inspect_dir};
use avouch_engine::lane::Snapshot;
use avouch_engine::verdict::LogOrigin;
use sha2::{Digest, Sha256};
use tempfile::TempDir;

/// A directory in memory where there is one; fuzzing writes it thousands of times a second.
fn scratch() -> TempDir {
    let memory = Path::new("/dev/shm");
    let made = if memory.is_dir() { TempDir::new_in(memory) } else { TempDir::new() };
    match made {
        Ok(dir) => dir,
        Err(e) => panic!("a directory to fuzz in: {e}"),
    }
}

fn sorted(dir: &Path, prefix: &str) -> Vec<PathBuf> {
    let mut out: Vec<PathBuf> = std::fs::read_dir(dir)
        .into_iter()
        .flatten()
        .flatten()
        .map(|e| e.path())
        .filter(|p| p.file_name().and_then(|n| n.to_str()).is_some_and(|n| n.starts_with(prefix)))
        .collect();
    out.sort();
    out
}

/// A lane's directory with three checkpoints, and the path of the newest.
fn lane() -> (TempDir, PathBuf) {
    let dir = scratch();
    let made = || -> Result<(), avouch_connectors::store::StoreError> {
        let origin = LogOrigin::new("p", 0);
        let (mut store, _) = LaneStore::open(dir.path(), &origin, StoreOptions::default())?;
        for n in 0..3 {
            store.commit(Commit {
                lane_state: Snapshot::from(vec![n as u8; 300]),
                next_offset: n,
                watermark: Some(n),
                config_hash: [1; 32],
                topic: "t",
                partition: 0,
                counters: &[("rows_in".into(), n as u64)],
            })?;
        }
        Ok(())
    };
    if let Err(e) = made() {
        panic!("a lane's store: {e}");
    }
    let newest = sorted(dir.path(), "checkpoint-").pop();
    match newest {
        Some(newest) => (dir, newest),
        None => panic!("there is a checkpoint"),
    }
}

/// The newest checkpoint of a lane, without the SHA-256 at its end.
pub fn checkpoint(data: &[u8]) {
    static LANE: LazyLock<Mutex<(TempDir, PathBuf)>> = LazyLock::new(|| Mutex::new(lane()));
    let lane = LANE.lock().unwrap_or_else(PoisonError::into_inner);
    let sealed = [data, &Sha256::digest(data)].concat();
    if let Err(e) = std::fs::write(&lane.1, sealed) {
        panic!("the checkpoint: {e}");
    }
    let reports = inspect_dir(lane.0.path());
    // The others are as they were, whatever stands in this one.
    if let Ok(reports) = reports {
        assert!(reports.iter().skip(1).all(|r| r.damaged.is_none()), "{reports:?}");
    }
}

pub fn checkpoint_seeds() -> Vec<Vec<u8>> {
    let (_dir, newest) = lane();
    let bytes = std::fs::read(newest).unwrap_or_default();
    vec![bytes[..bytes.len() - 32].to_vec()]
}

fn crc32(bytes: &[u8]) -> u32 {
    let step = |crc: u32, byte: &u8| {
        (0..8).fold(crc ^ u32::from(*byte), |c, _| if c & 1 == 1 { c >> 1 ^ 0xedb8_8320 } else { c >> 1 })
    };
    !bytes.iter().fold(!0, step)
}

fn options() -> JournalOptions {
    JournalOptions { segment_bytes: 4_096, max_bytes: 1 << 20, keep_ms: 0 }
}

/// A segment of a journal, whose groups' checksums are made right if the first byte is odd.
pub fn journal(data: &[u8]) {
    let Some((flag, data)) = data.split_first() else { return };
    let mut bytes = data.to_vec();
    let mut at = 0;
    while flag & 1 == 1 && bytes.len() - at >= 32 {
        let mut len = [0; 4];
        len.copy_from_slice(&bytes[at + 4..at + 8]);
        let end = (at + 32).saturating_add(u32::from_le_bytes(len) as usize);
        if end <= bytes.len() {
            let crc = crc32(&bytes[at + 32..end]).to_le_bytes();
            bytes[at + 24..at + 28].copy_from_slice(&crc);
        }
        let crc = crc32(&bytes[at..at + 28]).to_le_bytes();
        bytes[at + 28..at + 32].copy_from_slice(&crc);
        if end >= bytes.len() {
            break;
        }
        at = end;
    }
    static DIR: LazyLock<Mutex<(TempDir, PathBuf)>> = LazyLock::new(|| {
        let (dir, path) = written();
        Mutex::new((dir, path))
    });
    let dir = DIR.lock().unwrap_or_else(PoisonError::into_inner);
    if let Err(e) = std::fs::write(&dir.1, &bytes) {
        panic!("the segment: {e}");
    }
    let Ok(writer) = JournalWriter::open(dir.0.path(), options()) else { return };
    let end = writer.handle().end();
    let Ok(mut reader) = writer.reader(None) else { return };
    let mut seen = reader.position();
    while let Ok(batch) = reader.poll(std::time::Duration::ZERO, 1_000) {
        let mut records = Vec::new();
        batch.records(&mut records);
        for r in &records {
            assert_eq!(r.offset, seen, "offsets follow each other");
            seen += 1;
        }
        if batch.is_empty() {
            assert!(seen <= end);
            return;
        }
    }
}

fn written() -> (TempDir, PathBuf) {
    let dir = scratch();
    let write = || -> Result<(), avouch_connectors::journal::JournalError> {
        let mut writer = JournalWriter::open(dir.path(), options())?;
        for n in 0..3u16 {
            writer.append(Message { arrived_ms: i64::from(n), packet: n, topic: b"a/b", value: b"{\"x\":1}" });
            writer.append(Message { arrived_ms: i64::from(n), packet: 0, topic: b"", value: b"" });
            writer.commit()?;
        }
        Ok(())
    };
    if let Err(e) = write() {
        panic!("a journal: {e}");
    }
    let first = sorted(dir.path(), "").into_iter().next();
    match first {
        Some(first) => (dir, first),
        None => panic!("there is a segment"),
    }
}

pub fn journal_seeds() -> Vec<Vec<u8>> {
    let (_dir, path) = written();
    let bytes = std::fs::read(path).unwrap_or_default();
    vec![[&[1], bytes.as_slice()].concat(), [&[0], bytes.as_slice()].concat()]
}
