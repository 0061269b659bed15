#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::time::Duration;

use avouch_engine::spec::{FieldSpec, FieldType};

use super::*;

fn field(name: &str, ty: FieldType) -> FieldSpec {
    FieldSpec { name: name.into(), ty, required: false }
}

fn rows(max_record_bytes: usize) -> RowOptions {
    RowOptions {
        format: None,
        delimiter: b',',
        fields: vec![
            field("device", FieldType::Utf8),
            field("on", FieldType::Bool),
            field("t", FieldType::F64),
            field("ts", FieldType::TimestampMs),
        ],
        key: "device".into(),
        max_record_bytes,
    }
}

fn options(dir: &Path, pattern: &str) -> FileLogOptions {
    let place = Place::Local(dir.join(pattern).to_string_lossy().into_owned());
    FileLogOptions { place, rows: rows(64), follow: false }
}

/// Everything from `start` on, as (offset, value or problem, place), read `most` at a time.
fn drain(dir: &Path, options: &FileLogOptions, start: Option<i64>, most: usize) -> Vec<(i64, String, String)> {
    let mut log = FileLog::open(&dir.join("input"), options.clone(), start).unwrap();
    let mut out = Vec::new();
    loop {
        let batch = log.poll(Duration::ZERO, most).unwrap();
        let mut records = Vec::new();
        batch.records(&mut records);
        for r in &records {
            let finding = batch.finding(r.offset).unwrap();
            let value = finding.problem.map_or_else(
                || String::from_utf8_lossy(r.value.unwrap()).into_owned(),
                |p| format!("{p} | {}", String::from_utf8_lossy(finding.raw.or(r.value).unwrap())),
            );
            assert!(r.timestamp > 1_600_000_000_000);
            out.push((r.offset, value, finding.place));
        }
        if let Some(end) = batch.end() {
            assert_eq!(end, log.position());
            return out;
        }
    }
}

fn files(dir: &Path) {
    std::fs::create_dir_all(dir.join("data")).unwrap();
    std::fs::write(dir.join("data/b.csv"), "device,ts,t,other,on\np1,5,1.50,x,true\n007,6,,y,maybe\n").unwrap();
    std::fs::write(
        dir.join("data/a.ndjson"),
        "{\"device\":\"n1\",\"ts\":1}\n\n  \nnot json\n{\"device\":\"n2\",\"ts\":2}",
    )
    .unwrap();
    std::fs::write(dir.join("data/c.csv"), "device,ts\nx,1,2\n\"y\"\"z\",\"2020-01-01 00:00:00\"\n").unwrap();
    std::fs::write(dir.join("data/d.csv"), "").unwrap();
    std::fs::write(dir.join("data/e.ndjson"), format!("{}\nlast\n", "o".repeat(100))).unwrap();
    std::fs::write(dir.join("data/f.dat"), "what am I").unwrap();
    std::fs::write(dir.join("data/g.parquet"), "PAR1 no").unwrap();
    std::fs::write(dir.join("data/h.txt"), b"\x1f\x8b\x08\x00packed").unwrap();
}

#[test]
fn every_row_once_in_a_stable_order_from_any_offset() {
    let dir = tempfile::tempdir().unwrap();
    files(dir.path());
    let options = options(dir.path(), "data/*");
    let all = drain(dir.path(), &options, None, 100);
    let expected = [
        ("{\"device\":\"n1\",\"ts\":1}", "a.ndjson:1"),
        ("not json", "a.ndjson:4"),
        ("{\"device\":\"n2\",\"ts\":2}", "a.ndjson:5"),
        ("{\"device\":\"p1\",\"ts\":5,\"t\":1.50,\"on\":true}", "b.csv:2"),
        ("{\"device\":\"007\",\"ts\":6,\"t\":null,\"on\":\"maybe\"}", "b.csv:3"),
        ("this row has 3 fields, the header 2; check the delimiter and the quotes | x,1,2", "c.csv:2"),
        ("{\"device\":\"y\\\"z\",\"ts\":\"2020-01-01 00:00:00\"}", "c.csv:3"),
        ("the file is empty; a header line was expected | ", "d.csv:1"),
    ];
    for (i, (got, want)) in all.iter().zip(expected).enumerate() {
        assert_eq!((got.0, got.1.as_str(), got.2.as_str()), (i as i64, want.0, want.1));
    }
    let rest: Vec<_> = all[8..].iter().map(|r| (r.1.split(" | ").next().unwrap(), r.2.as_str())).collect();
    assert!(rest[0].0.starts_with("this row has at least 100 bytes, more than max_record_bytes = 64"), "{rest:?}");
    assert_eq!(rest[1], ("last", "e.ndjson:2"));
    assert!(rest[2].0.starts_with("its format cannot be told from its name") && rest[2].1 == "f.dat:1", "{rest:?}");
    assert!(rest[3].0.starts_with("this is not a Parquet file") && rest[3].1 == "g.parquet:1", "{rest:?}");
    assert!(rest[4].0.starts_with("the file is packed (gzip)") && rest[4].1 == "h.txt:1", "{rest:?}");
    assert_eq!(all.len(), 13);
    for start in 0..=all.len() {
        for most in [1, 3] {
            assert_eq!(drain(dir.path(), &options, Some(start as i64), most), all[start..], "from {start}");
        }
    }
}

#[test]
fn new_files_come_after_those_seen_before() {
    let dir = tempfile::tempdir().unwrap();
    files(dir.path());
    let options = options(dir.path(), "data/*");
    let before = drain(dir.path(), &options, None, 2);
    std::fs::write(dir.path().join("data/0.ndjson"), "new\n").unwrap();
    let after = drain(dir.path(), &options, None, 5);
    assert_eq!(after[..before.len()], before);
    assert_eq!(after[before.len()..], [(13, "new".to_owned(), "0.ndjson:1".to_owned())]);
    // What was read to its end is not needed any more.
    std::fs::remove_file(dir.path().join("data/a.ndjson")).unwrap();
    assert_eq!(drain(dir.path(), &options, Some(13), 5), after[13..]);
}

#[test]
fn a_followed_pattern_gives_files_as_they_appear() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("data")).unwrap();
    let options = FileLogOptions { follow: true, ..options(dir.path(), "data/*.ndjson") };
    let mut log = FileLog::open(&dir.path().join("input"), options, None).unwrap();
    assert_eq!(log.poll(Duration::ZERO, 9).unwrap().end(), Some(0));
    std::fs::write(dir.path().join("data/x.ndjson"), "1\n2\n").unwrap();
    let mut records = 0;
    while records < 2 {
        let batch = log.poll(Duration::from_millis(20), 9).unwrap();
        let mut out = Vec::new();
        batch.records(&mut out);
        records += out.len();
    }
    assert_eq!(log.files(), (1, 1));
}

#[test]
fn a_file_that_changed_is_an_error_that_names_it() {
    let dir = tempfile::tempdir().unwrap();
    files(dir.path());
    let options = options(dir.path(), "data/*");
    drain(dir.path(), &options, None, 100);
    let path = dir.path().join("data/b.csv");
    let text = std::fs::read_to_string(&path).unwrap();
    let again = |start| FileLog::open(&dir.path().join("input"), options.clone(), Some(start));
    // The same bytes, written again: nothing has changed.
    std::fs::write(&path, &text).unwrap();
    again(5).unwrap();
    for changed in [format!("{text}p9,9,9,9,true\n"), text.replace("1.50", "1.51")] {
        std::fs::write(&path, changed).unwrap();
        let error = again(5).err().unwrap().to_string();
        assert!(error.contains("data/b.csv changed after its reading began"), "{error}");
        // Before it was read nobody minds.
        again(1).unwrap();
    }
}

#[test]
fn a_file_that_is_gone_too_early_is_an_error_that_names_it() {
    let dir = tempfile::tempdir().unwrap();
    files(dir.path());
    let options = options(dir.path(), "data/*");
    let open = |start| FileLog::open(&dir.path().join("input"), options.clone(), start);
    let mut log = open(None).unwrap();
    // Offset 4 is within the second file, b.csv; the third has been seen and not begun.
    log.poll(Duration::ZERO, 4).unwrap();
    drop(log);
    let text = std::fs::read(dir.path().join("data/b.csv")).unwrap();
    std::fs::remove_file(dir.path().join("data/b.csv")).unwrap();
    let error = open(Some(4)).err().unwrap().to_string();
    assert!(error.contains("data/b.csv is gone, and rows of it are still to be read"), "{error}");
    std::fs::write(dir.path().join("data/b.csv"), text).unwrap();
    std::fs::remove_file(dir.path().join("data/c.csv")).unwrap();
    let error = open(Some(4)).unwrap().poll(Duration::ZERO, 100).err().unwrap().to_string();
    assert!(error.contains("data/c.csv is gone, and it was there when the pattern was looked at"), "{error}");
}

#[test]
fn a_checkpoint_beyond_the_files_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    files(dir.path());
    let options = options(dir.path(), "data/*");
    let error = FileLog::open(&dir.path().join("input"), options.clone(), Some(3)).err().unwrap();
    assert!(matches!(error, FilesError::Inconsistent { .. }), "{error}");
    drain(dir.path(), &options, None, 100);
    let error = FileLog::open(&dir.path().join("input"), options, Some(14)).err().unwrap();
    assert!(matches!(error, FilesError::Inconsistent { .. }), "{error}");
    let none = super::FileLogOptions {
        place: Place::Local(dir.path().join("none/*").to_string_lossy().into_owned()),
        rows: rows(64),
        follow: false,
    };
    let error = FileLog::open(&dir.path().join("other"), none, None).err().unwrap();
    assert!(matches!(error, FilesError::NoMatch { .. }), "{error}");
}

#[cfg(feature = "object-store")]
#[test]
fn objects_are_read_like_files() {
    use object_store::ObjectStoreExt as _;
    use object_store::path::Path as Key;

    let dir = tempfile::tempdir().unwrap();
    files(dir.path());
    let local = drain(dir.path(), &options(dir.path(), "data/*.csv"), None, 100);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().unwrap();
    let store: std::sync::Arc<dyn object_store::ObjectStore> =
        std::sync::Arc::new(object_store::memory::InMemory::new());
    let put = |name: &str, bytes: Vec<u8>| runtime.block_on(store.put(&Key::from(name), bytes.into())).unwrap();
    for name in ["b.csv", "c.csv", "d.csv"] {
        let bytes = std::fs::read(dir.path().join("data").join(name)).unwrap();
        put(&format!("in/data/{name}"), bytes.clone());
        put(&format!("in/data/deeper/{name}"), bytes);
    }
    let objects = super::find::Objects {
        store: store.clone(),
        name: "memory://x".into(),
        pattern: "in/data/*.csv".into(),
        runtime: runtime.handle().clone(),
    };
    let options = FileLogOptions { place: Place::Objects(objects), rows: rows(64), follow: false };
    let remote = dir.path().join("remote");
    assert_eq!(drain(&remote, &options, None, 2), local);
    for start in 0..=local.len() {
        assert_eq!(drain(&remote, &options, Some(start as i64), 2), local[start..]);
    }
    put("in/data/b.csv", b"device,ts\nother,1\n".to_vec());
    let error = FileLog::open(&remote.join("input"), options, Some(3)).err().unwrap().to_string();
    assert!(error.contains("memory://x/in/data/b.csv changed"), "{error}");
}
