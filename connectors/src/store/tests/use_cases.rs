//! What a store is for.

use avouch_engine::log::{verify_consistency, verify_inclusion, verify_note};

use super::fixture::*;
use crate::store::{Commit, Cursor, LaneReader, LaneStore, StoreError, StoreOptions, load_or_create_note_signer};

#[test]
fn a_store_remembers() {
    let dir = lane(&[0, 10, 10, 300]);
    let roots = roots(420);
    let mut store = open(dir.path()).unwrap();
    assert_eq!(store.recovery().damaged, []);
    assert_eq!(store.recovery().rebuilt, []);
    assert_eq!(store.size(), 300);
    check_readers(&store, &roots);

    // What is not committed is not seen, and is lost on a kill.
    grow(&mut store, 400).unwrap();
    let reader = store.reader();
    assert_eq!(reader.committed().log_size, 300);
    assert_eq!(reader.records(300, 10).unwrap(), []);
    assert!(matches!(reader.entry(300), Err(StoreError::NotCommitted { have: 300, .. })));
    assert!(matches!(reader.root(301), Err(StoreError::NotCommitted { .. })));
    assert!(matches!(reader.inclusion_proof(1, 301), Err(StoreError::NotCommitted { .. })));
    assert!(matches!(reader.consistency_proof(1, 301), Err(StoreError::NotCommitted { .. })));
    drop(store);
    let mut store = open(dir.path()).unwrap();
    assert_eq!(store.size(), 300);
    grow(&mut store, 420).unwrap();
    commit(&mut store).unwrap();
    check_readers(&store, &roots);

    let whole = lane(&[0, 420]);
    assert_eq!(log_bytes(dir.path()), log_bytes(whole.path()));
}

#[test]
fn proofs_and_coverage() {
    let dir = lane(&[0, 10, 10, 300]);
    let (store, roots) = (open(dir.path()).unwrap(), roots(300));
    let reader = store.reader();
    for (index, size) in [(0, 1), (0, 300), (7, 10), (299, 300), (123, 256)] {
        let proof = reader.inclusion_proof(index, size).unwrap();
        verify_inclusion(&record(index).entry(), index, size, &proof, &roots[size as usize]).unwrap();
        assert_eq!(reader.record(index).unwrap(), logged(index));
    }
    for (old, new) in [(0, 10), (10, 300), (256, 300), (300, 300)] {
        let proof = reader.consistency_proof(old, new).unwrap();
        verify_consistency(old, new, &proof, &roots[old as usize], &roots[new as usize]).unwrap();
    }
    let c = reader.coverage(0, 10).unwrap();
    assert_eq!((c.topic.as_str(), c.partition, c.from_offset, c.to_offset), ("pumps", 0, 0, 100));
    assert_eq!(reader.coverage(10, 300).unwrap().from_offset, 100);
    assert!(matches!(reader.coverage(11, 300), Err(StoreError::NoSuchSize { size: 11 })));
    assert_eq!(reader.at_or_below(299).unwrap().unwrap().log_size, 10);
    // The second commit at size 10 adds no row: the offset of a size never changes.
    assert_eq!(reader.at_size(10).unwrap().seq, 2);
}

#[test]
fn the_published_log_is_whole_and_signed() {
    let dir = lane(&[0, 10, 256, 700]);
    let key = options().signer.unwrap().verifier_key();
    let public = dir.path().join("public");
    let note = std::fs::read(public.join("checkpoint")).unwrap();
    let head = verify_note(&note, &key).unwrap();
    assert_eq!((head.size, head.root), (700, roots(700)[700]));
    let names: Vec<String> =
        files(&public).iter().map(|f| f.strip_prefix(&public).unwrap().display().to_string()).collect();
    let expected = [
        "checkpoint",
        "key",
        "tile/0/000",
        "tile/0/001",
        "tile/0/002.p/188",
        "tile/1/000.p/1",
        "tile/1/000.p/2",
        "tile/entries/000",
        "tile/entries/001",
        "tile/entries/002.p/188",
    ];
    assert_eq!(names, expected);
    assert_eq!(std::fs::read_to_string(public.join("key")).unwrap(), format!("{key}\n"));
    // A monitor that knows nothing of us: leaves from the bundles, root from the leaves.
    let mut tree = avouch_engine::log::TreeAppender::new();
    let mut hashes = Vec::new();
    for file in ["000", "001", "002.p/188"] {
        for entry in std::fs::read(public.join("tile/entries").join(file)).unwrap().chunks(34) {
            assert_eq!(entry[..2], [0, 32]);
            tree.append(&entry[2..].try_into().unwrap(), &mut hashes);
        }
    }
    assert_eq!(tree.root(), head.root);

    // Someone damages it: opening mends it and says so.
    std::fs::write(public.join("tile/0/001"), b"x").unwrap();
    std::fs::remove_file(public.join("tile/entries/000")).unwrap();
    let before = log_bytes(lane(&[0, 10, 256, 700]).path());
    let store = open(dir.path()).unwrap();
    let mended: Vec<&str> = store.recovery().rebuilt.iter().map(|d| d.file.as_str()).collect();
    assert_eq!(mended, ["public/tile/entries/000", "public/tile/0/001"]);
    assert_eq!(log_bytes(dir.path()), before);
}

#[test]
fn publishing_can_begin_later() {
    let dir = tempfile::tempdir().unwrap();
    let quiet = StoreOptions { signer: None, segment_bytes: 4096, ..StoreOptions::default() };
    let mut store = open_with(dir.path(), quiet).unwrap();
    grow(&mut store, 300).unwrap();
    commit(&mut store).unwrap();
    assert!(!dir.path().join("public").exists());
    drop(store);
    let mut store = open(dir.path()).unwrap();
    assert_eq!(store.recovery().rebuilt, []);
    grow(&mut store, 310).unwrap();
    commit(&mut store).unwrap();
    assert_eq!(log_bytes(dir.path()), log_bytes(lane(&[300, 310]).path()));
}

#[test]
fn one_writer() {
    let dir = lane(&[5]);
    let first = open(dir.path()).unwrap();
    let refused = LaneStore::open(dir.path(), &origin(), options()).unwrap_err();
    let text = refused.to_string().replace(&dir.path().display().to_string(), "DIR");
    let text = text.replace(&std::process::id().to_string(), "N");
    assert_eq!(
        text,
        "DIR: another writer has this lane (generation 2 process N); a lane has one writer: stop that one, or give \
         this one a state directory of its own"
    );
    drop(first);
    let mut second = open(dir.path()).unwrap();
    assert_eq!(second.generation(), 3);

    // Someone deletes the lock file and starts another writer: the old one must not commit.
    std::fs::remove_file(dir.path().join("lock")).unwrap();
    let third = open(dir.path()).unwrap();
    let fenced = commit(&mut second).unwrap_err();
    assert!(matches!(fenced, StoreError::Fenced { ours: 3, .. }), "{fenced}");
    drop(third);
}

#[test]
fn wrong_uses_are_named() {
    let dir = lane(&[5]);
    let mut store = open(dir.path()).unwrap();
    assert!(matches!(store.append(&record(6)), Err(StoreError::OutOfOrder { expected: 5, got: 6 })));
    let back = Commit {
        next_offset: 49,
        lane_state: Vec::new().into(),
        config_hash: [0; 32],
        topic: "pumps",
        partition: 0,
        watermark: None,
        counters: &[],
    };
    assert!(matches!(store.commit(back), Err(StoreError::BadCommit { .. })));
    // Neither has harmed it.
    grow(&mut store, 6).unwrap();
    commit(&mut store).unwrap();
    drop(store);
    let other = avouch_engine::verdict::LogOrigin::new("pump-health", 1);
    assert!(matches!(LaneStore::open(dir.path(), &other, options()), Err(StoreError::WrongLog { .. })));
    assert!(matches!(LaneReader::open_read_only(&dir.path().join("no")), Err(StoreError::NoStore { .. })));
}

#[test]
fn nothing_starts_from_scratch_silently() {
    let dir = lane(&[5, 9]);
    for file in files(dir.path()) {
        if file.file_name().unwrap().to_string_lossy().starts_with("checkpoint-") {
            std::fs::remove_file(file).unwrap();
        }
    }
    let before = files(dir.path());
    assert!(matches!(LaneStore::open(dir.path(), &origin(), options()), Err(StoreError::MissingCheckpoints { .. })));
    assert_eq!(files(dir.path()), before);

    let dir = lane(&[5, 9]);
    for file in files(dir.path()) {
        if file.file_name().unwrap().to_string_lossy().starts_with("checkpoint-") {
            std::fs::write(file, b"nonsense").unwrap();
        }
    }
    let refused = LaneStore::open(dir.path(), &origin(), options()).unwrap_err();
    assert!(refused.to_string().contains("checkpoint-00000000000000000002: 8 bytes are too few"));
}

#[test]
fn cursors_are_durable_and_never_taken_for_zero() {
    let dir = lane(&[5]);
    let mut cursor = Cursor::open(dir.path(), "kafka-verdicts").unwrap();
    assert_eq!(cursor.get(), 0);
    for next in [0, 3, 1234] {
        cursor.set(next).unwrap();
        assert_eq!(Cursor::open(dir.path(), "kafka-verdicts").unwrap().get(), next);
    }
    let path = dir.path().join("cursor-kafka-verdicts");
    let good = std::fs::read(&path).unwrap();
    for i in 0..good.len() {
        let mut bad = good.clone();
        bad[i] ^= 1;
        std::fs::write(&path, &bad).unwrap();
        assert!(matches!(Cursor::open(dir.path(), "kafka-verdicts"), Err(StoreError::Damaged { .. })), "byte {i}");
        std::fs::write(&path, &good[..i]).unwrap();
        assert!(Cursor::open(dir.path(), "kafka-verdicts").is_err(), "{i} bytes");
    }
    assert!(matches!(Cursor::open(dir.path(), "../x"), Err(StoreError::BadName { .. })));
    assert!(open(dir.path()).is_ok());
}

#[test]
fn a_reader_beside_the_writer_sees_only_commits() {
    let dir = lane(&[5]);
    let mut store = open(dir.path()).unwrap();
    let beside = LaneReader::open_read_only(dir.path()).unwrap();
    grow(&mut store, 2000).unwrap();
    assert_eq!(beside.refresh().unwrap().log_size, 5);
    assert_eq!(beside.records(5, 1).unwrap(), []);
    commit(&mut store).unwrap();
    assert_eq!(beside.committed().log_size, 5);
    assert_eq!(beside.refresh().unwrap().log_size, 2000);
    assert_eq!(beside.record(1999).unwrap(), logged(1999));
    assert_eq!(beside.cursor("x").unwrap().get(), 0);
}

#[test]
fn waiting_for_a_commit() {
    let dir = lane(&[5]);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_time().build().unwrap();
    let mut store = open(dir.path()).unwrap();
    let (live, beside) = (store.reader(), LaneReader::open_read_only(dir.path()).unwrap());
    let seq = live.committed().seq;
    let waits = [live.clone(), beside].map(|r| runtime.spawn(async move { r.newer_than(seq).await }));
    std::thread::sleep(std::time::Duration::from_millis(30));
    grow(&mut store, 8).unwrap();
    commit(&mut store).unwrap();
    for wait in waits {
        let newer = runtime.block_on(wait).unwrap().unwrap().unwrap();
        assert_eq!((newer.seq, newer.log_size), (seq + 1, 8));
    }
    drop(store);
    assert_eq!(runtime.block_on(live.newer_than(seq + 1)).unwrap(), None);
}

#[test]
fn note_keys_are_kept_and_private() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("note.key");
    let a = load_or_create_note_signer(&path, &origin()).unwrap();
    let b = load_or_create_note_signer(&path, &origin()).unwrap();
    assert_eq!(a.verifier_key(), b.verifier_key());
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    std::fs::write(&path, "short").unwrap();
    assert!(matches!(load_or_create_note_signer(&path, &origin()), Err(StoreError::Damaged { .. })));
}
