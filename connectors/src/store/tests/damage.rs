//! Files that were cut, flipped, or lost after a commit: the exact committed state, or an earlier one loudly, or a clear
//! refusal; never a wrong root, and the log that grows again is the same.

use std::path::Path;

use proptest::prelude::*;

use super::fixture::*;
use crate::store::StoreError;

const SIZES: [u64; 4] = [0, 40, 90, 150];
const END: u64 = 200;

/// What opening made of a damaged directory.
#[derive(Debug, PartialEq)]
enum Outcome {
    Exact,
    Mended,
    Earlier,
    Refused,
}

/// Opens a damaged copy of a lane with commits at [`SIZES`] and checks all that must hold.
fn examine(dir: &Path, file: &str) -> Outcome {
    static ROOTS: std::sync::LazyLock<Vec<[u8; 32]>> = std::sync::LazyLock::new(|| roots(END));
    static WHOLE: std::sync::LazyLock<Vec<(String, usize, Vec<u8>)>> =
        std::sync::LazyLock::new(|| log_bytes(lane(&[END]).path()));
    let mut store = match open(dir) {
        Ok(store) => store,
        Err(e) => {
            // Refusals leave everything as it was and say which file.
            assert!(!e.is_io(), "{file}: {e}");
            return Outcome::Refused;
        }
    };
    let (size, recovery) = (store.size(), store.recovery().clone());
    assert!(SIZES.contains(&size), "{file}: {size}");
    assert_eq!(store.root(), ROOTS[size as usize], "{file}");
    if size < 150 {
        assert_ne!(recovery.damaged, [], "{file}: fell back to {size} silently");
        assert_eq!(recovery.high_water.map(|h| h.0), Some(150), "{file}");
        // Nothing smaller is published over what was.
        let head = std::fs::read_to_string(dir.join("public/checkpoint")).unwrap();
        assert_eq!(head.lines().nth(1), Some("150"), "{file}");
    }
    // The log grows to the same bytes, published files included, unless damage far back shows when it is read.
    grow(&mut store, END).unwrap();
    commit(&mut store).unwrap();
    let reader = store.reader();
    assert_eq!(reader.committed().root, ROOTS[END as usize]);
    for n in 0..END {
        match reader.record(n) {
            Ok(r) => assert_eq!(r, logged(n), "{file}"),
            Err(e) => assert!(matches!(e, StoreError::Damaged { .. }), "{file}: {e}"),
        }
    }
    if recovery.damaged.is_empty() || size < 150 {
        drop(store);
        let store = open(dir).unwrap();
        assert_eq!(store.size(), END, "{file}");
        let whole = reader.records(0, usize::MAX).is_ok()
            && reader.dead_letters(0, usize::MAX).is_ok()
            && reader.events(0, usize::MAX).is_ok();
        if whole {
            assert_eq!(log_bytes(dir), *WHOLE, "{file}");
        }
    }
    match (size, recovery.rebuilt.is_empty()) {
        (150, true) => Outcome::Exact,
        (150, false) => Outcome::Mended,
        _ => Outcome::Earlier,
    }
}

fn name(dir: &Path, file: &Path) -> String {
    file.strip_prefix(dir).unwrap().display().to_string()
}

#[test]
fn every_file_lost() {
    let dir = lane(&SIZES);
    let mut seen = Vec::new();
    for file in files(dir.path()) {
        let hurt = copy(dir.path());
        let which = name(dir.path(), &file);
        std::fs::remove_file(hurt.path().join(&which)).unwrap();
        let outcome = examine_lost(hurt.path(), &which);
        seen.push((which, outcome));
    }
    let of = |prefix: &str| -> Vec<&Outcome> {
        seen.iter().filter(|(n, _)| n.starts_with(prefix)).map(|(_, o)| o).collect()
    };
    // Derived files are mended in place; records can only be made again, from a checkpoint before them.
    for derived in ["entries-", "hashes-", "offsets-", "dead-offsets-", "event-offsets-", "public/tile/0/000.p/150"] {
        assert!(of(derived).iter().all(|o| **o == Outcome::Mended), "{derived}: {:?}", of(derived));
    }
    assert!(of("records-").iter().all(|o| **o == Outcome::Earlier), "{:?}", of("records-"));
    // Nor can what the lane recorded, dead letters and events.
    for own in ["dead-0", "events-"] {
        assert!(!of(own).is_empty() && of(own).iter().all(|o| **o == Outcome::Earlier), "{own}: {:?}", of(own));
    }
    assert_eq!(of("lock"), [&Outcome::Exact]);
    assert_eq!(of("checkpoint-00000000000000000002"), [&Outcome::Exact]);
}

/// Losing the newest checkpoint file outright cannot be told from never having written it, but for what was published.
fn examine_lost(dir: &Path, which: &str) -> Outcome {
    if which != "checkpoint-00000000000000000004" {
        return examine(dir, which);
    }
    let mut store = open(dir).unwrap();
    assert_eq!(store.size(), 90);
    grow(&mut store, END).unwrap();
    commit(&mut store).unwrap();
    Outcome::Earlier
}

#[test]
fn every_file_cut_anywhere() {
    let dir = lane(&SIZES);
    for file in files(dir.path()) {
        let which = name(dir.path(), &file);
        let len = std::fs::metadata(&file).unwrap().len();
        for cut in [0, 1, len / 3, len / 2, len.saturating_sub(33), len.saturating_sub(1)] {
            if cut >= len || which == "lock" {
                continue;
            }
            let hurt = copy(dir.path());
            std::fs::OpenOptions::new().write(true).open(hurt.path().join(&which)).unwrap().set_len(cut).unwrap();
            examine(hurt.path(), &format!("{which} cut to {cut}"));
        }
    }
}

#[test]
fn rubbish_after_the_end_of_any_file() {
    let dir = lane(&SIZES);
    for file in files(dir.path()) {
        let which = name(dir.path(), &file);
        if which.starts_with("checkpoint-") || which == "lock" {
            continue;
        }
        let hurt = copy(dir.path());
        let mut bytes = std::fs::read(&file).unwrap();
        bytes.extend_from_slice(&[0x5a; 5000]);
        std::fs::write(hurt.path().join(&which), bytes).unwrap();
        let outcome = examine(hurt.path(), &which);
        let published = which.starts_with("public/");
        assert!(outcome == Outcome::Exact || (published && outcome == Outcome::Mended), "{which}: {outcome:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_bit_flipped(pick: prop::sample::Index, at: prop::sample::Index, bit in 0u8..8) {
        static DIR: std::sync::LazyLock<tempfile::TempDir> = std::sync::LazyLock::new(|| lane(&SIZES));
        let all = files(DIR.path());
        let file = &all[pick.index(all.len())];
        let which = name(DIR.path(), file);
        let hurt = copy(DIR.path());
        let mut bytes = std::fs::read(file).unwrap();
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        std::fs::write(hurt.path().join(&which), bytes).unwrap();
        let outcome = examine(hurt.path(), &format!("{which} byte {at} bit {bit}"));
        if which.starts_with("checkpoint-00000000000000000004") {
            prop_assert_eq!(outcome, Outcome::Earlier);
        }
    }
}

#[test]
fn a_log_that_would_fork_is_stopped() {
    let dir = lane(&SIZES);
    // The newest checkpoint is lost, and the pipeline is not the one that made it.
    let newest = dir.path().join("checkpoint-00000000000000000004");
    let mut bytes = std::fs::read(&newest).unwrap();
    bytes[40] ^= 1;
    std::fs::write(&newest, bytes).unwrap();
    for signer in [options().signer, None] {
        let hurt = copy(dir.path());
        if signer.is_none() {
            // High water alone must do where nothing is published.
            std::fs::remove_dir_all(hurt.path().join("public")).unwrap();
        }
        let options = crate::store::StoreOptions { signer, ..options() };
        let mut store = open_with(hurt.path(), options.clone()).unwrap();
        assert_eq!((store.size(), store.recovery().damaged.len()), (90, 1));
        // Short of what was shown, commits are fine; they only are not published.
        grow(&mut store, 100).unwrap();
        commit(&mut store).unwrap();
        drop(store);
        let mut store = open_with(hurt.path(), options.clone()).unwrap();
        assert_eq!((store.size(), store.recovery().damaged.len()), (100, 0));
        assert_eq!(store.recovery().high_water.map(|h| h.0), Some(150));
        for n in 100..160 {
            let mut other = record(n);
            other.verdict.config_hash = [9; 32];
            store.append(&other).unwrap();
        }
        let refused = commit(&mut store).unwrap_err();
        assert!(matches!(refused, StoreError::Fork { size: 150, .. }), "{refused}");
        assert!(matches!(commit(&mut store), Err(StoreError::Failed { .. })));
        drop(store);
        // With the old pipeline back, it goes on.
        let mut store = open_with(hurt.path(), options.clone()).unwrap();
        grow(&mut store, END).unwrap();
        commit(&mut store).unwrap();
        assert!(!hurt.path().join("high-water").exists());
        drop(store);
        assert_eq!(open_with(hurt.path(), options).unwrap().recovery().high_water, None);
    }
}
