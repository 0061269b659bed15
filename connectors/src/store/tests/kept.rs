//! Checkpoints kept N deep, and the files they share.

use std::path::Path;

use super::fixture::*;
use crate::store::{LaneStore, StoreError, StoreOptions, inspect_dir};

fn flip(path: &Path) {
    let mut bytes = std::fs::read(path).unwrap();
    let at = bytes.len() / 2;
    bytes[at] ^= 0x10;
    std::fs::write(path, bytes).unwrap();
}

fn packs(dir: &Path) -> Vec<String> {
    let name = |f: &std::path::PathBuf| f.file_name().unwrap().to_string_lossy().into_owned();
    files(dir).iter().map(name).filter(|n| n.starts_with("pack-")).collect()
}

#[test]
fn the_lane_can_be_restored_from_each() {
    let sizes = [0, 40, 90, 150, 170, 230, 260, 300];
    let whole = log_bytes(lane(&[330]).path());
    for keep in [2, 5, 7] {
        let dir = tempfile::tempdir().unwrap();
        let options = StoreOptions { keep_checkpoints: keep, ..options() };
        let mut store = open_with(dir.path(), options.clone()).unwrap();
        for size in sizes {
            grow(&mut store, size).unwrap();
            commit(&mut store).unwrap();
        }
        drop(store);
        let kept = inspect_dir(dir.path()).unwrap();
        assert_eq!(kept.iter().map(|c| c.number).collect::<Vec<_>>(), (1..=8).rev().take(keep).collect::<Vec<_>>());
        for lost in 0..keep {
            let hurt = copy(dir.path());
            for c in &kept[..lost] {
                flip(&hurt.path().join(&c.file));
            }
            let mut store = open_with(hurt.path(), options.clone()).unwrap();
            assert_eq!((store.size(), store.recovery().damaged.len()), (sizes[7 - lost], lost), "keep {keep}");
            grow(&mut store, 330).unwrap();
            commit(&mut store).unwrap();
            drop(store);
            assert_eq!(log_bytes(hurt.path()), whole);
        }
    }
}

#[test]
fn a_checkpoint_writes_only_what_changed_and_shares_no_file_with_the_one_before() {
    let dir = lane(&[0, 40, 90, 150, 170]);
    let all = inspect_dir(dir.path()).unwrap();
    let contents = |i: usize| all[i].contents.as_ref().unwrap();
    let new: Vec<u64> = (0..4).map(|i| contents(i).committed.new_state_bytes).collect();
    let state = contents(0).committed.state_bytes;
    assert!(new[..3].iter().all(|n| *n < state / 10), "{new:?} of {state}");
    let names = |i: usize| contents(i).packs.iter().map(|p| p.0.clone()).collect::<Vec<_>>();
    for i in 0..3 {
        assert!(names(i).iter().all(|n| !names(i + 1).contains(n)));
    }
    let sections: Vec<_> = contents(0).sections.iter().map(|s| (s.name.as_str(), s.items, s.bytes)).collect();
    assert_eq!(
        sections,
        [("devices", 2200, 70_400), ("window features", 0, 0), ("window features/pane 1700000000000", 100, 3219)]
    );
}

#[test]
fn whatever_pack_is_lost_or_flipped_one_of_the_last_two_checkpoints_is_used() {
    let sizes = [0, 40, 90, 150, 170, 230, 260, 300];
    let dir = lane(&sizes);
    for pack in packs(dir.path()) {
        for lose in [false, true] {
            let hurt = copy(dir.path());
            let path = hurt.path().join(&pack);
            if lose {
                std::fs::remove_file(&path).unwrap()
            } else {
                flip(&path)
            }
            let mut store = open(hurt.path()).unwrap();
            assert!([260, 300].contains(&store.size()), "{pack}: {}", store.size());
            assert_eq!(store.recovery().damaged.len(), usize::from(store.size() == 260), "{pack}");
            grow(&mut store, 330).unwrap();
            commit(&mut store).unwrap();
            grow(&mut store, 340).unwrap();
            commit(&mut store).unwrap();
            drop(store);
            assert_eq!(open(hurt.path()).unwrap().recovery().damaged, [], "{pack}");
        }
    }
}

#[test]
fn packs_go_with_the_checkpoints_that_need_them() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(dir.path()).unwrap();
    for size in 0..60 {
        grow(&mut store, size).unwrap();
        commit(&mut store).unwrap();
        let needed: std::collections::BTreeSet<String> =
            inspect_dir(dir.path()).unwrap().into_iter().flat_map(|c| c.contents.unwrap().packs).map(|p| p.0).collect();
        assert_eq!(packs(dir.path()), needed.into_iter().collect::<Vec<_>>());
    }
    // A pack whose checkpoint never came to be.
    std::fs::write(dir.path().join("pack-000001-0000000999-0000-00000000"), b"x").unwrap();
    drop(store);
    let before = packs(dir.path()).len();
    drop(open(dir.path()).unwrap());
    assert_eq!(packs(dir.path()).len(), before - 1);
}

#[test]
fn another_version_is_refused_and_not_taken_for_damage() {
    use sha2::{Digest, Sha256};
    let dir = lane(&[5, 9]);
    let path = dir.path().join("checkpoint-00000000000000000002");
    let mut bytes = std::fs::read(&path).unwrap();
    let body = bytes.len() - 32;
    assert_eq!(bytes[..8], *b"avouchK2");
    bytes[7] = b'9';
    let digest = Sha256::digest(&bytes[..body]);
    bytes[body..].copy_from_slice(&digest);
    std::fs::write(&path, &bytes).unwrap();
    let before = files(dir.path());
    let refused = LaneStore::open(dir.path(), &origin(), options()).unwrap_err();
    assert!(matches!(refused, StoreError::Version { found: '9', expected: '2', .. }), "{refused}");
    assert!(refused.to_string().contains("written in version 9 of the format, this program reads version 2"));
    assert_eq!(files(dir.path()), before);
    // A flipped bit in the version is damage: the digest says so.
    bytes[8..].copy_from_slice(&std::fs::read(&path).unwrap()[8..]);
    bytes[20] ^= 1;
    std::fs::write(&path, &bytes).unwrap();
    assert_eq!(open(dir.path()).unwrap().size(), 5);
}

#[test]
fn the_lane_goes_on_while_a_checkpoint_is_made_durable() {
    let dir = tempfile::tempdir().unwrap();
    let whole = log_bytes(lane(&[400]).path());
    let roots = roots(400);
    let mut store = open(dir.path()).unwrap();
    let reader = store.reader();
    for size in (0..=400).step_by(20) {
        grow(&mut store, size).unwrap();
        let told = counters(size);
        store.begin_commit(a_commit(size, &told)).unwrap();
        // At most one behind, and what readers see is a whole checkpoint.
        assert!(reader.committed().log_size + 20 >= size);
        grow(&mut store, (size + 13).min(400)).unwrap();
        check_readers(&store, &roots);
    }
    let last = store.finish_commit().unwrap().unwrap();
    assert_eq!((last.log_size, last.seq), (400, 21));
    assert_eq!(store.finish_commit().unwrap(), None);
    check_readers(&store, &roots);
    // Dropping waits for the one under way.
    let told = counters(400);
    store.begin_commit(a_commit(400, &told)).unwrap();
    drop(store);
    let store = open(dir.path()).unwrap();
    assert_eq!((store.committed().seq, store.recovery().damaged.len()), (22, 0));
    drop(store);
    assert_eq!(log_bytes(dir.path()), whole);
}
