//! The pipeline's secret, and what is left of it when the keys of single records are taken from it. What a record's salts are is made
//! here a second time, from the words of the documentation alone.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;

use avouch_engine::verdict::{Hash32, LogOrigin, RecordSalts, Secret, SecretError};
use hmac::{Hmac, KeyInit, Mac};
use proptest::prelude::*;
use sha2::{Digest, Sha256};

fn hmac(key: &[u8], parts: &[&[u8]]) -> Hash32 {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).unwrap();
    parts.iter().for_each(|p| mac.update(p));
    mac.finalize().into_bytes().into()
}

fn sha(parts: &[&[u8]]) -> Hash32 {
    let mut hash = Sha256::new();
    parts.iter().for_each(|p| hash.update(p));
    hash.finalize().into()
}

/// All seeds on the way to a record's key, from the root to the key itself.
fn way(master: &[u8], log_id: &Hash32, index: u64) -> Vec<Hash32> {
    let path: Vec<u8> = [&log_id[..16], &index.to_be_bytes()].concat();
    let mut seeds = vec![hmac(master, &[b"avouch/key/1\0", b"records"])];
    for depth in 0..192 {
        let bit = path[depth / 8] >> (7 - depth % 8) & 1;
        seeds.push(sha(&[b"avouch/tree/1\0", &seeds[depth], &[bit]]));
    }
    seeds
}

fn salts(master: &[u8], log_id: &Hash32, index: u64) -> RecordSalts {
    let key = way(master, log_id, index)[192];
    RecordSalts { salt: sha(&[b"avouch/salt/2\0", &key]), evidence: sha(&[b"avouch/evidence/1\0", &key]) }
}

fn log(lane: i32) -> Hash32 {
    LogOrigin::new("pumps", lane).log_id()
}

#[test]
fn salts_are_those_of_the_documentation_however_many_are_made_at_once() {
    for key in [&b""[..], b"short", &[7; 64], &[9; 65], &[1; 200]] {
        let secret = Secret::new(key);
        for (first, count) in [(0, 1), (41, 37), (1020, 9), (1000, 2100), (u64::MAX - 3, 3)] {
            let made = secret.record_salts(&log(3), first, count);
            assert_eq!(made.len(), count);
            for at in [0, count / 2, count - 1] {
                assert_eq!(made[at], salts(key, &log(3), first + at as u64), "{first} + {at}");
            }
            // From wherever it comes, and with whatever it remembers.
            assert_eq!(made, Secret::new(key).record_salts(&log(3), first, count));
        }
    }
}

#[test]
fn what_else_is_made_of_it_stays_when_records_are_erased() {
    let (whole, mut less) = (Secret::new(b"key"), Secret::new(b"key"));
    less.puncture(&log(0), [3, 4, 9]);
    less = Secret::from_stored(&less.to_bytes()).unwrap();
    assert_eq!(whole.device_id("pump-1"), less.device_id("pump-1"));
    assert_eq!(
        whole.device_id("pump-1"),
        hmac(&hmac(b"key", &[b"avouch/key/1\0devices"]), &[b"avouch/device/1\0pump-1"])
    );
    assert_eq!(whole.person_id("ada"), less.person_id("ada"));
    assert_ne!(whole.person_id("ada"), whole.device_id("ada"));
    assert_eq!(whole.note_seed(&log(0)), less.note_seed(&log(0)));
    // Logs that come later have their keys.
    assert_eq!(whole.record_salts(&log(77), 5, 9), less.record_salts(&log(77), 5, 9));
    assert!(less.is_punctured() && !whole.is_punctured());
    assert_eq!((less.last_erased(&log(0)), less.last_erased(&log(1))), (Some(9), None));
}

#[test]
fn what_an_erasure_costs() {
    let size = |indices: &mut dyn Iterator<Item = u64>| {
        let mut secret = Secret::new(b"key");
        secret.puncture(&log(0), indices);
        secret.to_bytes().len()
    };
    let head = 8 + 3 * 32 + 4 + 16 + 8 + 8 + 32;
    // One record: a seed for each of the 192 levels.
    assert_eq!(size(&mut [5].into_iter()), head + 16 + 192 * 32);
    // A run of 100,000: two ends.
    assert!(size(&mut (1_000_000..1_100_000)) < head + 16 + (128 + 2 * 64) * 32);
    // One device of sixteen, of 65,536 records: four seeds and the run each.
    assert_eq!(size(&mut (0..4096).map(|k| 16 * k)), head + 4096 * (16 + 4 * 32) + (128 + 48) * 32);
}

#[test]
fn a_damaged_secret_is_refused_and_never_taken_for_a_key() {
    let mut secret = Secret::new(b"key");
    secret.puncture(&log(0), [1, 2, 3, 50]);
    let (bytes, text) = (secret.to_bytes(), secret.to_text());
    for at in 8..bytes.len() {
        let mut bad = bytes.clone();
        bad[at] ^= 1;
        assert!(matches!(Secret::from_stored(&bad), Err(SecretError::Damaged(_))), "{at}");
        assert!(Secret::from_stored(&bytes[..at]).is_err(), "{at}");
    }
    assert!(Secret::from_stored(format!("{text}\n").as_bytes()).is_ok(), "a file ends with a line feed");
    insta::assert_snapshot!(Secret::from_stored(&text.as_bytes()[..2001]).unwrap_err(), @r#"the secret begins with "avouch-secret-1:", but what follows is not base64; was it cut off?"#);
    insta::assert_snapshot!(Secret::from_stored(&bytes[..300]).unwrap_err(), @"the secret is damaged (punctured secret: its checksum is wrong at byte 8); restore it from a copy made after the last erasure");
}

#[test]
fn another_encoding_of_the_same_is_refused() {
    let mut secret = Secret::new(b"key");
    secret.puncture(&log(0), [1, 2, 3]);
    let bytes = secret.to_bytes();
    // One run as two that touch.
    let at = 8 + 96 + 4 + 16;
    let mut other = bytes[..at].to_vec();
    other.extend(2u64.to_le_bytes());
    for (first, last) in [(1u64, 1u64), (2, 3)] {
        other.extend(first.to_le_bytes());
        other.extend(last.to_le_bytes());
    }
    other.extend(&bytes[at + 8 + 16..bytes.len() - 32]);
    let sum = Sha256::digest(&other);
    other.extend(sum);
    let why = Secret::from_stored(&other).unwrap_err().to_string();
    assert!(why.contains("its runs of erased records are not in order"), "{why}");
}

/// Erasures of a few logs, some in runs, some far out.
fn erasures() -> impl Strategy<Value = Vec<(i32, u64, u64)>> {
    let run = prop_oneof![
        (0u64..3000, 0u64..40),
        (0u64..64, 0u64..3),
        (0u64..3000, 900u64..1500),
        (u64::MAX - 70..=u64::MAX - 60, 0u64..60)
    ];
    proptest::collection::vec((0..3i32, run).prop_map(|(lane, (first, more))| (lane, first, first + more)), 1..12)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_was_erased_is_gone_and_all_else_is_as_before(erased in erasures(), seed in any::<[u8; 32]>()) {
        let whole = Secret::new(&seed);
        let mut less = Secret::new(&seed);
        let mut gone: BTreeSet<(i32, u64)> = BTreeSet::new();
        for &(lane, first, last) in &erased {
            // Salts are made in between, so that something is remembered.
            less.record_salts(&log(lane), first.saturating_sub(2), 8);
            less.puncture(&log(lane), first..=last);
            gone.extend((first..=last).map(|i| (lane, i)));
        }
        let stored = less.to_bytes();

        // The stored form gives the same, and does not depend on the order or on how it was cut up.
        let again = Secret::from_stored(&stored).unwrap();
        prop_assert_eq!(&again.to_bytes(), &stored);
        prop_assert_eq!(&Secret::from_stored(less.to_text().as_bytes()).unwrap().to_bytes(), &stored);
        let mut backwards = Secret::new(&seed);
        for &(lane, first, last) in erased.iter().rev() {
            let middle = first + (last - first) / 2;
            backwards.puncture(&log(lane), (middle..=last).rev());
            backwards = Secret::from_stored(&backwards.to_bytes()).unwrap();
            backwards.puncture(&log(lane), first..=middle);
        }
        prop_assert_eq!(&backwards.to_bytes(), &stored);

        // Every salt is the one before, or gone.
        for lane in 0..3 {
            for (from, count) in [(0u64, 4700usize), (u64::MAX - 80, 80)] {
                let before = whole.record_salts(&log(lane), from, count);
                let after = again.record_salts(&log(lane), from, count);
                for (i, (before, after)) in (from..).zip(before.iter().zip(&after)) {
                    let is_gone = gone.contains(&(lane, i));
                    prop_assert_eq!(again.has(&log(lane), i), !is_gone, "{} {}", lane, i);
                    prop_assert_eq!(after, if is_gone { &RecordSalts::GONE } else { before }, "{} {}", lane, i);
                }
            }
        }

        // Nothing that is stored leads to a key that was erased: no seed on the way to one is in the stored form, at any byte.
        let windows: BTreeSet<&[u8]> = stored.windows(32).collect();
        for &(lane, first, last) in &erased {
            for index in [first, first + (last - first) / 2, last] {
                for (depth, seed) in way(&seed, &log(lane), index).iter().enumerate() {
                    prop_assert!(!windows.contains(&seed[..]), "depth {} of {} {}", depth, lane, index);
                }
            }
        }
        prop_assert!(!windows.contains(&seed[..]), "the master");
    }
}
