//! Objects and local copies that were cut, flipped or lost.

use std::path::Path;
use std::sync::Arc;

use super::fixture::*;
use super::objects::*;
use crate::store::{Objects, StoreError, inspect_remote};

const SIZES: [u64; 7] = [0, 40, 90, 150, 170, 230, 260];
const END: u64 = 300;

/// A lane in a directory that serves as object store, and its local copy.
fn a_lane() -> (tempfile::TempDir, tempfile::TempDir) {
    let (home, local) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let objects = in_directory(home.path());
    let mut store = open_with(local.path(), with(&objects)).unwrap();
    for size in SIZES {
        grow(&mut store, size).unwrap();
        commit(&mut store).unwrap();
    }
    drop(store);
    (home, local)
}

/// Opens on a machine that has nothing and checks all that must hold. `None` if it was refused.
fn taken_over(home: &Path, what: &str) -> Option<u64> {
    let objects = in_directory(home);
    let dir = tempfile::tempdir().unwrap();
    let mut store = match open_with(dir.path(), with(&objects)) {
        Ok(store) => store,
        Err(e) => {
            assert!(matches!(e, StoreError::NoUsableCheckpoint { .. }), "{what}: {e}");
            return None;
        }
    };
    let size = store.size();
    assert!(SIZES.contains(&size), "{what}");
    assert_eq!(store.recovery().damaged.is_empty(), size == 260, "{what}: {:?}", store.recovery());
    check_readers(&store, &roots(size));
    grow(&mut store, END).unwrap();
    commit(&mut store).unwrap();
    drop(store);
    assert_eq!(log_bytes(dir.path()), log_bytes(lane(&[END]).path()), "{what}");
    // Once it has gone on, nothing is wrong any more.
    let next = tempfile::tempdir().unwrap();
    let store = open_with(next.path(), with(&objects)).unwrap();
    assert_eq!((store.size(), &store.recovery().damaged[..]), (END, &[][..]), "{what}");
    Some(size)
}

fn harm(path: &Path, how: usize) {
    let bytes = std::fs::read(path).unwrap();
    match how {
        0 => std::fs::remove_file(path).unwrap(),
        1 => std::fs::write(path, &bytes[..bytes.len() / 2]).unwrap(),
        2 => std::fs::write(path, b"").unwrap(),
        n => {
            let mut bytes = bytes;
            let at = (bytes.len() - 1) * (n - 3) / 4;
            bytes[at] ^= 1 << (n % 8);
            std::fs::write(path, bytes).unwrap();
        }
    }
}

#[test]
fn the_lane_can_be_restored_from_each_kept_checkpoint() {
    let (home, _local) = a_lane();
    let kept = inspect_remote(&remote(&in_directory(home.path())), true).unwrap();
    assert_eq!(kept.iter().map(|c| c.number).collect::<Vec<_>>(), [7, 6, 5, 4, 3]);
    assert!(kept.iter().all(|c| c.damaged.is_none()));
    for lost in 0..5 {
        let hurt = copy(home.path());
        let mut manifests: Vec<_> = files(hurt.path());
        manifests.retain(|f| f.file_name().unwrap().to_string_lossy().starts_with("manifest-"));
        for path in manifests.iter().rev().take(lost) {
            harm(path, 5);
        }
        assert_eq!(taken_over(hurt.path(), &format!("{lost} lost")), Some(SIZES[6 - lost]));
    }
}

#[test]
fn every_object_harmed_in_every_way() {
    let (home, _local) = a_lane();
    let (mut exact, mut earlier, mut refused) = (0, 0, 0);
    for file in files(home.path()) {
        let name = file.strip_prefix(home.path()).unwrap();
        for how in 0..8 {
            let hurt = copy(home.path());
            harm(&hurt.path().join(name), how);
            let what = format!("{} harmed in way {how}", name.display());
            // A manifest that is gone cannot be told from one that was never put.
            let newest = name.display().to_string().contains("manifest-00000000000000000007");
            if how == 0 && newest {
                let dir = tempfile::tempdir().unwrap();
                assert_eq!(open_with(dir.path(), with(&in_directory(hurt.path()))).unwrap().size(), 230);
                continue;
            }
            let said = inspect_remote(&remote(&in_directory(hurt.path())), true).unwrap();
            match taken_over(hurt.path(), &what) {
                Some(260) => exact += 1,
                Some(_) => {
                    assert!(said[0].damaged.is_some(), "{what}: {said:?}");
                    earlier += 1;
                }
                // A part of the log that every kept checkpoint needs.
                None => {
                    assert!(name.display().to_string().contains("part-"), "{what}");
                    assert!(said.iter().all(|c| c.damaged.is_some()), "{what}");
                    refused += 1;
                }
            }
        }
    }
    println!("{exact} exact, {earlier} from an earlier checkpoint, {refused} refused");
    assert!(exact > 20 && earlier > 20, "{exact} {earlier} {refused}");
}

#[test]
fn what_is_harmed_here_is_mended_from_there() {
    let (home, local) = a_lane();
    let whole = log_bytes(lane(&[END]).path());
    for file in files(local.path()) {
        let name = file.strip_prefix(local.path()).unwrap();
        if name.starts_with("lock") {
            continue;
        }
        for how in 0..8 {
            let what = format!("{} harmed in way {how}", name.display());
            let (hurt, home) = (copy(local.path()), copy(home.path()));
            harm(&hurt.path().join(name), how);
            let objects = in_directory(home.path());
            let mut store = open_with(hurt.path(), with(&objects)).unwrap_or_else(|e| panic!("{what}: {e}"));
            assert_eq!((store.size(), &store.recovery().damaged[..]), (260, &[][..]), "{what}");
            grow(&mut store, END).unwrap();
            commit(&mut store).unwrap();
            let reader = store.reader();
            let whole_again = reader.records(0, usize::MAX).is_ok()
                && reader.dead_letters(0, usize::MAX).is_ok()
                && reader.events(0, usize::MAX).is_ok();
            drop(store);
            if whole_again {
                assert_eq!(log_bytes(hurt.path()), whole, "{what}");
            }
        }
    }
}

#[test]
fn a_log_that_would_fork_is_stopped_on_another_machine_too() {
    let (home, _local) = a_lane();
    let objects: Arc<dyn Objects> = in_directory(home.path());
    // A pack of the newest checkpoint is lost: what it had shown is known from its manifest.
    let newest = inspect_remote(&remote(&objects), false).unwrap().remove(0);
    let packs = newest.contents.unwrap().packs;
    objects.delete(&packs[0].0).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let mut store = open_with(dir.path(), with(&objects)).unwrap();
    assert_eq!(store.size(), 230);
    assert_eq!(store.recovery().high_water.map(|h| h.0), Some(260));
    for n in 230..270 {
        let mut other = record(n);
        other.verdict.config_hash = [9; 32];
        store.append(&other).unwrap();
    }
    let refused = commit(&mut store).unwrap_err();
    assert!(matches!(refused, StoreError::Fork { size: 260, .. }), "{refused}");
}
