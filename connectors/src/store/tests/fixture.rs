//! A deterministic lane without an engine: verdict `n` and dead letter `n` are functions of `n`.

use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use avouch_engine::codec::Writer;
use avouch_engine::dead_letter::{DeadLetter, DeadReason};
use avouch_engine::event::{LaneEvent, Tick};
use avouch_engine::lane::Snapshot;
use avouch_engine::log::{NoteSigner, TreeAppender};
use avouch_engine::verdict::{Evidence, FeatureEvidence, Hash32, LogOrigin, Logged, Verdict, VerdictRecord};
use sha2::{Digest, Sha256};
use tempfile::TempDir;

use crate::store::{Commit, LaneStore, StoreError, StoreOptions};

pub fn origin() -> LogOrigin {
    LogOrigin::new("pump-health", 0)
}

pub fn options() -> StoreOptions {
    let signer = NoteSigner::from_seed(&origin(), &[3; 32]).unwrap();
    // Small segments, so that a test of a few hundred verdicts crosses many.
    StoreOptions { signer: Some(signer), segment_bytes: 4096, ..StoreOptions::default() }
}

pub fn record(index: u64) -> VerdictRecord {
    let score = index as f64 / 7.0;
    let feature = |i: u64| FeatureEvidence {
        name: format!("f{i}").into(),
        value: i as f64,
        expected: 0.5,
        contribution: score / 4.0,
    };
    let evidence = Evidence {
        salt: [0; 32],
        device: format!("pump-{}", index % 17),
        step: "anomaly".into(),
        topic: "pumps".into(),
        partition: 0,
        first_offset: index as i64 * 10,
        last_offset: index as i64 * 10 + 9,
        rows: 10,
        references: Vec::new(),
        score,
        p_value: 0.25,
        interval: None,
        incident: None,
        label: None,
        features: (0..4).map(feature).collect(),
    };
    let verdict = Verdict {
        device_id: [(index % 17) as u8; 32],
        seq: index / 17,
        window_start: index * 1000,
        window_end: index * 1000 + 1000,
        model_hash: [1; 32],
        config_hash: [2; 32],
        input_digest: [3; 32],
        score_e6: avouch_engine::verdict::score_e6(score),
        severity: 0,
        class: 0,
        evidence_hash: evidence.hash(),
        salt: [4; 32],
    };
    VerdictRecord { index, verdict, evidence }
}

pub fn logged(index: u64) -> Logged {
    Logged::Record(record(index))
}

pub fn dead(n: u64) -> DeadLetter {
    DeadLetter {
        reason: DeadReason::ALL[n as usize % DeadReason::ALL.len()],
        detail: format!("letter {n}"),
        offset: n as i64,
        row: None,
        timestamp: 1_700_000_000_000,
        key: n.is_multiple_of(2).then(|| b"key".to_vec()),
        value: Some(vec![n as u8; n as usize % 50]),
        signature: n.is_multiple_of(3).then(|| vec![7; n as usize % 70]),
    }
}

pub fn event(n: u64) -> LaneEvent {
    LaneEvent::Tick(Tick { after_offset: n as i64 * 50, watermark_ms: n as i64 * 1000 })
}

/// Roots of the unbroken log, by size.
pub fn roots(size: u64) -> Vec<Hash32> {
    let mut tree = TreeAppender::new();
    let mut unused = Vec::new();
    let mut out = vec![tree.root()];
    for n in 0..size {
        tree.append(&record(n).entry(), &mut unused);
        out.push(tree.root());
    }
    out
}

/// The lane's state is how many verdicts and dead letters it has made, beside much that never changes; one dead letter
/// after every third verdict.
pub fn state(size: u64) -> Vec<u8> {
    snapshot(size).bytes
}

pub fn snapshot(size: u64) -> Snapshot {
    static NAMES: LazyLock<Vec<u8>> =
        LazyLock::new(|| (0u64..2_200).flat_map(|n| Sha256::digest(n.to_le_bytes())).collect());
    let mut w = Writer::new();
    w.section("devices", 2_200);
    w.raw(&NAMES);
    w.section("window features", 0);
    w.part("pane 1700000000000", 100);
    w.raw(&Sha256::digest(size.to_le_bytes()).repeat(100));
    w.str(&format!("state after {size}"));
    Snapshot { bytes: w.bytes, sections: w.sections }
}

pub fn dead_at(size: u64) -> u64 {
    size / 3
}

/// Events after so many verdicts: one after every fifth.
pub fn events_at(size: u64) -> u64 {
    size / 5
}

/// Appends what comes next, up to `size` verdicts.
pub fn grow(store: &mut LaneStore, size: u64) -> Result<(), StoreError> {
    while store.size() < size {
        // Some one by one, some at once; dead letters in between as ever.
        let left = size - store.size();
        if store.size().is_multiple_of(3) && left >= 3 {
            let next: Vec<_> = (store.size()..store.size() + 3).map(record).collect();
            store.append_all(&next)?;
        } else {
            store.append(&record(store.size()))?;
        }
        if store.size().is_multiple_of(3) {
            store.append_dead(&dead(store.dead_count()))?;
        }
        while store.event_count() < events_at(store.size()) {
            store.append_event(&event(store.event_count()))?;
        }
    }
    Ok(())
}

pub fn commit(store: &mut LaneStore) -> Result<(), StoreError> {
    let counters = counters(store.size());
    store.commit(a_commit(store.size(), &counters))?;
    Ok(())
}

pub fn counters(size: u64) -> [(String, u64); 1] {
    [("rows_in".to_owned(), size * 10)]
}

pub fn a_commit(size: u64, counters: &[(String, u64)]) -> Commit<'_> {
    Commit {
        next_offset: size as i64 * 10,
        lane_state: snapshot(size),
        config_hash: [2; 32],
        topic: "pumps",
        partition: 0,
        watermark: Some(size as i64),
        counters,
    }
}

pub fn open(dir: &Path) -> Result<LaneStore, StoreError> {
    open_with(dir, options())
}

/// Opens, checks that the checkpoint returned is one of the unbroken run, and hands the store over.
pub fn open_with(dir: &Path, options: StoreOptions) -> Result<LaneStore, StoreError> {
    let (store, checkpoint) = LaneStore::open(dir, &origin(), options)?;
    if let Some(c) = checkpoint {
        let size = c.committed.log_size;
        assert_eq!(c.lane_state, state(size));
        assert_eq!(c.committed.next_offset, size as i64 * 10);
        assert_eq!(c.committed.dead_count, dead_at(size));
        assert_eq!(c.committed.event_count, events_at(size));
        assert_eq!(c.committed.counters, [("rows_in".to_owned(), size * 10)]);
    }
    assert_eq!(store.size(), store.committed().log_size);
    assert_eq!(store.root(), store.committed().root);
    Ok(store)
}

/// A lane with commits at the given sizes.
pub fn lane(sizes: &[u64]) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(dir.path()).unwrap();
    for &size in sizes {
        grow(&mut store, size).unwrap();
        commit(&mut store).unwrap();
    }
    dir
}

pub fn files(dir: &Path) -> Vec<PathBuf> {
    let mut out = Vec::new();
    let mut todo = vec![dir.to_path_buf()];
    while let Some(d) = todo.pop() {
        for e in std::fs::read_dir(d).unwrap() {
            let path = e.unwrap().path();
            if path.is_dir() { todo.push(path) } else { out.push(path) }
        }
    }
    out.sort();
    out
}

pub fn copy(from: &Path) -> TempDir {
    let to = tempfile::tempdir().unwrap();
    for file in files(from) {
        let target = to.path().join(file.strip_prefix(from).unwrap());
        std::fs::create_dir_all(target.parent().unwrap()).unwrap();
        std::fs::copy(&file, target).unwrap();
    }
    to
}

/// What must be the same after every kind of trouble: the log's files and all that is published, each with its length
/// and digest.
pub fn log_bytes(dir: &Path) -> Vec<(String, usize, Vec<u8>)> {
    let name = |f: &PathBuf| f.strip_prefix(dir).unwrap().display().to_string();
    let part = |n: &str| {
        ["records-", "offsets-", "entries-", "hashes-", "dead-", "event", "public/"].iter().any(|p| n.starts_with(p))
            // Partial tiles are left behind for those who hold an older note.
            && !n.contains(".p/")
    };
    let digest = |f: &PathBuf| {
        let bytes = std::fs::read(f).unwrap();
        (name(f), bytes.len(), Sha256::digest(&bytes)[..4].to_vec())
    };
    files(dir).iter().filter(|f| part(&name(f))).map(digest).collect()
}

/// Everything a reader can say about a committed log is that of the unbroken run.
pub fn check_readers(store: &LaneStore, roots: &[Hash32]) {
    let reader = store.reader();
    let c = reader.committed();
    assert_eq!(c.root, roots[c.log_size as usize]);
    let mut at = 0;
    while at < c.log_size {
        let some = reader.records(at, 50).unwrap();
        for r in &some {
            assert_eq!(*r, logged(at));
            at += 1;
        }
        assert!(!some.is_empty());
    }
    // Another checkpoint may have come meanwhile.
    let letters = reader.dead_letters(0, c.dead_count as usize).unwrap();
    assert_eq!(letters.len() as u64, c.dead_count);
    for (n, letter) in letters.iter().enumerate() {
        assert_eq!(*letter, dead(n as u64));
    }
    let events = reader.events(0, c.event_count as usize).unwrap();
    assert_eq!(events, (0..c.event_count).map(event).collect::<Vec<_>>());
}
