//! Files of rows, as sources, training data and reference tables.

use std::path::{Path, PathBuf};
use std::sync::{LazyLock, Mutex, PoisonError};

use avouch_connectors::files::{ReplayOptions, Row, read_reference};
use tempfile::TempDir;

static DIR: LazyLock<Mutex<TempDir>> = LazyLock::new(|| {
    let memory = Path::new("/dev/shm");
    let made = if memory.is_dir() { TempDir::new_in(memory) } else { TempDir::new() };
    match made {
        Ok(dir) => Mutex::new(dir),
        Err(e) => panic!("a directory to fuzz in: {e}"),
    }
});

/// A file of rows, whose kind is the first byte: CSV, NDJSON or Parquet.
pub fn rows(data: &[u8]) {
    let Some((kind, bytes)) = data.split_first() else { return };
    let name = ["r.csv", "r.ndjson", "r.parquet"][usize::from(*kind) % 3];
    let dir = DIR.lock().unwrap_or_else(PoisonError::into_inner);
    let path: PathBuf = dir.path().join(name);
    if let Err(e) = std::fs::write(&path, bytes) {
        panic!("a file to read: {e}");
    }
    let _ = read_reference(&path, "devices", "device", None);
    let Ok(mut replay) = ReplayOptions::new([path.display().to_string()]).open() else { return };
    let mut row = Row::default();
    while let Ok(true) = replay.next_row(&mut row) {
        // A line of NDJSON is the value as it stands, with the blanks around it.
        let json = row.json.trim_ascii();
        assert!(json.starts_with(b"{") && json.ends_with(b"}"), "a row is one JSON object");
        assert!(!row.json.contains(&b'\n') || *kind % 3 == 1, "on one line");
    }
}

pub fn row_seeds() -> Vec<Vec<u8>> {
    let with = |kind: u8, text: &str| [&[kind], text.as_bytes()].concat();
    vec![
        with(0, "device,ts,x\na,1700000000000,1.5\n\"b,\"\"c\",2023-11-14T22:13:21Z,\n"),
        with(0, "a;b\n1;2\n"),
        with(1, "{\"device\":\"a\",\"ts\":1,\"x\":1.5}\n\n{\"device\":\"b\",\"ok\":true}\n"),
    ]
}
