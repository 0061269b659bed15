//! Records erased from a lane: what stays, what is refused, and kills in the middle of it.

use std::path::Path;

use avouch_engine::log::verify_inclusion;
use avouch_engine::verdict::{Logged, Tombstone};

use super::fixture::*;
use crate::store::io::fault;
use crate::store::{LaneReader, LaneStore, StoreError};

const SIZES: [u64; 4] = [0, 40, 90, 150];
const END: u64 = 200;
/// Some in a row, some alone, the first and the last; frames that cross a segment are among them.
const ERASED: [u64; 14] = [0, 3, 4, 5, 6, 7, 8, 9, 10, 11, 77, 120, 148, 149];

fn erase(dir: &Path, indices: &[u64]) -> Result<u64, StoreError> {
    let (mut store, restored) = LaneStore::open(dir, &origin(), options())?;
    store.erase(&restored.unwrap(), indices)
}

fn stone(index: u64) -> Logged {
    Logged::Erased(Tombstone { index, entry: record(index).entry() })
}

/// All that the readers say, with tombstones in these places.
fn check(dir: &Path, size: u64, erased: &[u64]) {
    let reader = LaneReader::open_read_only(dir).unwrap();
    let roots = roots(size);
    assert_eq!((reader.committed().log_size, reader.committed().root), (size, roots[size as usize]));
    for index in 0..size {
        let is = reader.record(index).unwrap();
        assert_eq!(is, if erased.contains(&index) { stone(index) } else { logged(index) });
        let proof = reader.inclusion_proof(index, size).unwrap();
        verify_inclusion(&is.entry(), index, size, &proof, &roots[size as usize]).unwrap();
    }
    assert_eq!(reader.records(0, usize::MAX).unwrap().iter().filter(|l| l.is_erased()).count(), erased.len());
}

/// Whether anything that is only in these records is in any file of the lane's records.
fn is_found(dir: &Path, index: u64) -> bool {
    let bytes: Vec<u8> = files(dir)
        .iter()
        .filter(|f| f.file_name().unwrap().to_str().unwrap().starts_with("records-"))
        .flat_map(|f| std::fs::read(f).unwrap())
        .collect();
    // Evidence bytes are of this record alone.
    let needle = record(index).verdict.evidence_hash;
    bytes.windows(32).any(|w| w == needle)
}

#[test]
fn an_erased_record_is_gone_and_the_log_is_what_it_was() {
    let dir = lane(&SIZES);
    let before = log_bytes(dir.path());
    assert!(ERASED.iter().all(|i| is_found(dir.path(), *i)));
    assert_eq!(erase(dir.path(), &ERASED).unwrap(), 14);
    check(dir.path(), 150, &ERASED);
    assert!(!ERASED.iter().any(|i| is_found(dir.path(), *i)));
    assert!(is_found(dir.path(), 12));

    // Nothing but the records has changed, and they are as long as before.
    let after = log_bytes(dir.path());
    for (b, a) in before.iter().zip(&after) {
        assert_eq!((&b.0, b.1), (&a.0, a.1));
        assert!(b == a || b.0.starts_with("records-"), "{}", b.0);
    }

    // Again it changes nothing; more can be erased.
    assert_eq!(erase(dir.path(), &ERASED).unwrap(), 0);
    assert_eq!(log_bytes(dir.path()), after);
    assert_eq!(erase(dir.path(), &[12, 11]).unwrap(), 1);

    // The lane goes on, and its log is that of one from which nothing was erased.
    let mut store = open(dir.path()).unwrap();
    assert_eq!((&store.recovery().damaged[..], &store.recovery().rebuilt[..]), (&[][..], &[][..]));
    grow(&mut store, END).unwrap();
    commit(&mut store).unwrap();
    drop(store);
    let mut all = ERASED.to_vec();
    all.push(12);
    check(dir.path(), END, &all);
    let whole = log_bytes(lane(&[END]).path());
    let not_records = |bytes: Vec<(String, usize, Vec<u8>)>| -> Vec<_> {
        bytes.into_iter().filter(|f| !f.0.starts_with("records-")).collect()
    };
    assert_eq!(not_records(log_bytes(dir.path())), not_records(whole));
}

#[test]
fn what_follows_from_records_is_made_again_from_tombstones() {
    let dir = lane(&SIZES);
    erase(dir.path(), &ERASED).unwrap();
    let before = log_bytes(dir.path());
    for lost in ["entries-000000", "hashes-000001", "offsets-000000", "public/checkpoint"] {
        let hurt = copy(dir.path());
        std::fs::remove_file(hurt.path().join(lost)).unwrap();
        let store = open(hurt.path()).unwrap();
        assert_eq!(store.recovery().damaged, [], "{lost}");
        drop(store);
        assert_eq!(log_bytes(hurt.path()), before, "{lost}");
    }
}

#[test]
fn no_fall_back_goes_behind_what_was_erased() {
    let dir = lane(&SIZES);
    erase(dir.path(), &[149]).unwrap();
    let checkpoints: Vec<_> = files(dir.path())
        .into_iter()
        .filter(|f| f.file_name().unwrap().to_str().unwrap().starts_with("checkpoint-"))
        .collect();
    assert_eq!(checkpoints.len(), 5);
    // Each but one damaged, newest first: the lane still begins behind the erased record.
    for n in (1..5).rev() {
        std::fs::write(&checkpoints[n], b"no").unwrap();
        let store = open(dir.path()).unwrap();
        assert_eq!((store.size(), store.recovery().damaged.len()), (150, 1));
        drop(store);
        std::fs::remove_file(
            dir.path().join(format!("damaged-{}", checkpoints[n].file_name().unwrap().to_str().unwrap())),
        )
        .unwrap();
    }
    std::fs::write(&checkpoints[0], b"no").unwrap();
    assert!(matches!(open(dir.path()), Err(StoreError::NoUsableCheckpoint { .. })));
}

#[test]
fn what_cannot_be_erased_is_refused_with_the_reason() {
    let dir = lane(&SIZES);
    let before = log_bytes(dir.path());
    let refused = |dir: &Path, indices: &[u64]| {
        let e = erase(dir, indices).unwrap_err();
        assert!(matches!(e, StoreError::CannotErase { .. }), "{e}");
        e.to_string().replace(&dir.display().to_string(), "DIR")
    };
    assert_eq!(refused(dir.path(), &[3, 150]), "DIR: nothing was erased: there is no record 150; the log has 150");
    // While another has the lane.
    let held = open(dir.path()).unwrap();
    assert!(matches!(erase(dir.path(), &[3]), Err(StoreError::Locked { .. })));
    drop(held);
    assert_eq!(log_bytes(dir.path()), before);
    // After a fall-back that has not been made good.
    std::fs::write(dir.path().join("checkpoint-00000000000000000004"), b"no").unwrap();
    assert_eq!(
        refused(dir.path(), &[3]),
        "DIR: nothing was erased: it fell back to an earlier checkpoint and has not regrown to what readers were shown; run the pipeline \
         until it has, then erase"
    );
}

#[test]
fn killed_at_every_act_of_an_erasure() {
    let hurt = lane(&SIZES);
    let done = copy(hurt.path());
    fault::clear();
    erase(done.path(), &ERASED).unwrap();
    let acts = fault::clear();
    let whole = log_bytes(done.path());
    assert!(acts > 40, "{acts}");
    println!("{acts} acts, each killed before and half-way");
    let mut finished_alone = 0;
    for n in 0..acts {
        for torn in [false, true] {
            let dir = copy(hurt.path());
            fault::stop_after(n, torn);
            let stopped = erase(dir.path(), &ERASED);
            fault::clear();
            assert!(stopped.is_err(), "act {n} of {acts}");
            // Killed again, in the opening that does it again.
            fault::stop_after(n % 11, torn);
            let _ = open(dir.path());
            fault::clear();
            let store = open(dir.path()).unwrap_or_else(|e| panic!("act {n}, torn {torn}: {e}"));
            assert_eq!((store.size(), &store.recovery().damaged[..]), (150, &[][..]), "act {n}");
            drop(store);
            let here = log_bytes(dir.path());
            finished_alone += u32::from(here == whole);
            // All of it or nothing, and once more it is done.
            assert!(here == whole || here == log_bytes(hurt.path()), "act {n}, torn {torn}");
            erase(dir.path(), &ERASED).unwrap();
            assert_eq!(log_bytes(dir.path()), whole, "act {n}, torn {torn}");
            check(dir.path(), 150, &ERASED);
        }
    }
    assert!(finished_alone > 10, "{finished_alone}");
}

#[cfg(feature = "object-store")]
#[test]
fn a_copy_in_an_object_store_is_not_half_erased_and_gets_tombstones() {
    use super::objects::*;

    let (objects, dir) = (in_memory(), lane(&SIZES));
    erase(dir.path(), &[3, 77]).unwrap();
    drop(open_with(dir.path(), with(&objects)).unwrap());
    let elsewhere = tempfile::tempdir().unwrap();
    let (mut store, restored) = LaneStore::open(elsewhere.path(), &origin(), with(&objects)).unwrap();
    assert!(store.recovery().downloaded > 0);
    let refused = store.erase(&restored.unwrap(), &[5]).unwrap_err();
    assert!(matches!(&refused, StoreError::CannotErase { why, .. } if why.contains("object store")), "{refused}");
    drop(store);
    check(elsewhere.path(), 150, &[3, 77]);
}
