//! Kills: simulated at every single act on the disk, and real ones.

use std::path::Path;
use std::process::{Command, Stdio};

use super::fixture::*;
use crate::store::io::fault;

const COMMITS: [u64; 5] = [0, 3, 90, 90, 130];
const END: u64 = 160;

/// A run from wherever the store stands to the end; stops at the first failure, as a kill would.
fn run(dir: &Path) -> Option<u64> {
    let mut store = open(dir).ok()?;
    let mut durable = store.size();
    for size in COMMITS {
        if size < store.size() {
            continue;
        }
        grow(&mut store, size).ok()?;
        let done = commit(&mut store);
        durable = store.committed().log_size;
        if done.is_err() {
            return Some(durable);
        }
    }
    Some(durable)
}

#[test]
fn killed_at_every_act() {
    let whole = log_bytes(lane(&[END]).path());
    let roots = roots(END);
    let dry = tempfile::tempdir().unwrap();
    fault::clear();
    run(dry.path());
    let acts = fault::clear();
    assert!(acts > 150, "{acts}");
    println!("{acts} acts, each killed before and half-way");
    for n in 0..acts {
        for torn in [false, true] {
            let dir = tempfile::tempdir().unwrap();
            fault::stop_after(n, torn);
            let durable = run(dir.path());
            fault::clear();
            let mut store = open(dir.path()).unwrap_or_else(|e| panic!("act {n}, torn {torn}: {e}"));
            assert_eq!(store.recovery().damaged, [], "act {n}: a kill damages nothing");
            // What a commit made durable is there. (One that failed after its checkpoint stood counts, too.)
            assert!(store.size() >= durable.unwrap_or(0), "act {n}");
            check_readers(&store, &roots);
            grow(&mut store, END).unwrap();
            commit(&mut store).unwrap();
            check_readers(&store, &roots);
            drop(store);
            assert_eq!(log_bytes(dir.path()), whole, "act {n}, torn {torn}");
        }
    }
}

#[test]
fn killed_at_every_act_of_a_recovery() {
    let whole = log_bytes(lane(&[END]).path());
    // Derived files gone, the newest checkpoint damaged, uncommitted rubbish at the end: recovery has much to do.
    let hurt = lane(&[0, 40, 90, 150]);
    let newest = hurt.path().join("checkpoint-00000000000000000004");
    std::fs::write(&newest, &std::fs::read(&newest).unwrap()[1..]).unwrap();
    for lost in ["hashes-000000", "dead-offsets-000000", "offsets-000000", "event-offsets-000000"] {
        std::fs::remove_file(hurt.path().join(lost)).unwrap();
    }
    fault::clear();
    drop(open(copy(hurt.path()).path()).unwrap());
    let acts = fault::clear();
    assert!(acts > 20, "{acts}");
    for n in 0..acts {
        for torn in [false, true] {
            let dir = copy(hurt.path());
            fault::stop_after(n, torn);
            let stopped = open(dir.path());
            fault::clear();
            assert!(stopped.is_err(), "act {n} of {acts}");
            let mut store = open(dir.path()).unwrap_or_else(|e| panic!("act {n}, torn {torn}: {e}"));
            assert_eq!(store.size(), 90);
            assert_eq!(store.recovery().high_water.map(|h| h.0), Some(150), "act {n}");
            grow(&mut store, END).unwrap();
            commit(&mut store).unwrap();
            drop(store);
            assert_eq!(log_bytes(dir.path()), whole, "act {n}, torn {torn}");
        }
    }
}

const CHILD_DIR: &str = "AVOUCH_STORE_TEST_CHILD";

/// Not a test of its own: the writer that [`killed_for_real`] starts and kills.
#[test]
fn child_writer() {
    let Ok(dir) = std::env::var(CHILD_DIR) else { return };
    let mut store = open(Path::new(&dir)).unwrap();
    loop {
        let size = store.size();
        grow(&mut store, size + 1 + size % 97).unwrap();
        commit(&mut store).unwrap();
    }
}

#[test]
fn killed_for_real() {
    let dir = tempfile::tempdir().unwrap();
    let mut before = 0;
    let mut largest = 0;
    for round in 0u64..40 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "store::tests::crash::child_writer", "--test-threads=1"])
            .env(CHILD_DIR, dir.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(std::time::Duration::from_millis(5 + round * 7919 % 90));
        child.kill().unwrap();
        child.wait().unwrap();
        let Ok(store) = open(dir.path()) else { panic!("round {round}") };
        assert_eq!(store.recovery().damaged, [], "round {round}");
        assert!(store.size() >= before);
        before = store.size();
        largest = largest.max(before);
    }
    println!("40 kills, {largest} verdicts");
    let mut store = open(dir.path()).unwrap();
    check_readers(&store, &roots(store.size()));
    let end = store.size() + 7;
    grow(&mut store, end).unwrap();
    commit(&mut store).unwrap();
    drop(store);
    assert_eq!(log_bytes(dir.path()), log_bytes(lane(&[end]).path()));
}
