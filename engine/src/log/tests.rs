#![allow(clippy::unwrap_used)]
//! The tree against the RFC's own recursive definitions, and proofs that must be refused.

use proptest::prelude::*;
use sha2::{Digest, Sha256};

use super::*;
use crate::verdict::{Hash32, LogOrigin};

fn entry(n: u64) -> Hash32 {
    Sha256::digest(n.to_le_bytes()).into()
}

fn sha(parts: &[&[u8]]) -> Hash32 {
    let mut h = Sha256::new();
    for p in parts {
        h.update(p);
    }
    h.finalize().into()
}

/// RFC 6962 §2.1: MTH.
fn naive_root(entries: &[Hash32]) -> Hash32 {
    match entries {
        [] => sha(&[]),
        [e] => sha(&[&[0], e]),
        _ => {
            let k = split(entries.len());
            sha(&[&[1], &naive_root(&entries[..k]), &naive_root(&entries[k..])])
        }
    }
}

/// The largest power of two below n.
fn split(n: usize) -> usize {
    n.next_power_of_two() / 2
}

/// RFC 6962 §2.1.1: PATH.
fn naive_path(m: usize, entries: &[Hash32]) -> Vec<Hash32> {
    if entries.len() == 1 {
        return vec![];
    }
    let k = split(entries.len());
    let (mut path, sibling) = if m < k {
        (naive_path(m, &entries[..k]), naive_root(&entries[k..]))
    } else {
        (naive_path(m - k, &entries[k..]), naive_root(&entries[..k]))
    };
    path.push(sibling);
    path
}

/// RFC 6962 §2.1.2: SUBPROOF.
fn naive_subproof(m: usize, entries: &[Hash32], known: bool) -> Vec<Hash32> {
    if m == entries.len() {
        return if known { vec![] } else { vec![naive_root(entries)] };
    }
    let k = split(entries.len());
    let (mut proof, sibling) = if m <= k {
        (naive_subproof(m, &entries[..k], known), naive_root(&entries[k..]))
    } else {
        (naive_subproof(m - k, &entries[k..], false), naive_root(&entries[..k]))
    };
    proof.push(sibling);
    proof
}

struct Log {
    entries: Vec<Hash32>,
    stored: Vec<Hash32>,
    roots: Vec<Hash32>,
}

fn grow(size: u64) -> Log {
    let mut tree = TreeAppender::new();
    let (mut bytes, mut roots) = (Vec::new(), vec![tree.root()]);
    for n in 0..size {
        assert_eq!(bytes.len() as u64, 32 * stored_hash_index(0, n));
        tree.append(&entry(n), &mut bytes);
        roots.push(tree.root());
    }
    let stored: Vec<Hash32> = bytes.chunks_exact(32).map(|c| c.try_into().unwrap()).collect();
    assert_eq!(stored.len() as u64, stored_hash_count(size));
    Log { entries: (0..size).map(entry).collect(), stored, roots }
}

#[test]
fn every_small_tree_is_the_rfcs() {
    let log = grow(140);
    let mut proofs = 0;
    for size in 0..=140usize {
        let (n, expected) = (size as u64, naive_root(&log.entries[..size]));
        assert_eq!(log.roots[size], expected, "root of {size}");
        assert_eq!(root(n, &log.stored).unwrap(), expected);
        let resumed = TreeAppender::resume(n, &log.stored).unwrap();
        assert_eq!((resumed.size(), resumed.root()), (n, expected));
        for index in 0..size {
            let proof = inclusion_proof(index as u64, n, &log.stored).unwrap();
            assert_eq!(proof, naive_path(index, &log.entries[..size]));
            verify_inclusion(&log.entries[index], index as u64, n, &proof, &expected).unwrap();
            proofs += 1;
        }
        for old in 1..=size {
            let proof = consistency_proof(old as u64, n, &log.stored).unwrap();
            assert_eq!(proof, naive_subproof(old, &log.entries[..size], true));
            verify_consistency(old as u64, n, &proof, &log.roots[old], &expected).unwrap();
            proofs += 1;
        }
    }
    assert_eq!(proofs, 2 * (140 * 141 / 2));
}

#[test]
fn the_empty_log() {
    let none: Vec<Hash32> = vec![];
    assert_eq!(root(0, &none).unwrap(), EMPTY_ROOT);
    assert_eq!(EMPTY_ROOT, sha(&[]));
    let r1 = naive_root(&[entry(0)]);
    // The contract's first checkpoint starts from zeroes; the RFC's from the empty root.
    verify_consistency(0, 1, &[], &[0; 32], &r1).unwrap();
    verify_consistency(0, 1, &[], &EMPTY_ROOT, &r1).unwrap();
    verify_consistency(0, 0, &[], &[0; 32], &EMPTY_ROOT).unwrap();
    assert!(verify_consistency(0, 0, &[], &EMPTY_ROOT, &r1).is_err());
    assert!(verify_consistency(0, 1, &[], &r1, &r1).is_err());
    assert!(verify_consistency(0, 1, &[r1], &[0; 32], &r1).is_err());
    assert!(inclusion_proof(0, 0, &none).is_err());
    assert!(consistency_proof(2, 1, &none).is_err());
}

#[test]
fn reads_beyond_the_log_are_named() {
    let log = grow(10);
    let missing = inclusion_proof(3, 20, &log.stored).unwrap_err();
    assert!(matches!(missing, LogError::MissingHash { have: 18, .. }), "{missing}");
    struct Short;
    impl HashReader for Short {
        fn read_hashes(&self, _: &[u64]) -> Result<Vec<Hash32>, LogError> {
            Ok(vec![])
        }
    }
    assert!(matches!(root(7, &Short).unwrap_err(), LogError::Read(_)));
    assert!(TreeAppender::resume(7, &Short).is_err());
}

#[test]
fn absurd_proofs_are_refused_without_panic() {
    let h = entry(1);
    for proof in [vec![], vec![h; 64], vec![h; 65], vec![h; 1000]] {
        for (a, b) in [(0, u64::MAX), (u64::MAX - 1, u64::MAX), (u64::MAX, u64::MAX), (1, u64::MAX), (7, 3), (5, 5)] {
            let included = verify_inclusion(&h, a, b, &proof, &entry(2));
            assert!(included.is_err());
            if a != 0 {
                assert!(verify_consistency(a, b, &proof, &h, &entry(2)).is_err());
            }
        }
    }
}

/// Every way of changing a proof a little.
fn mutations(proof: &[Hash32], bit: usize) -> Vec<Vec<Hash32>> {
    let mut out = vec![[proof, &[entry(9)]].concat(), [&[entry(9)], proof].concat()];
    for i in 0..proof.len() {
        let mut flipped = proof.to_vec();
        flipped[i][bit / 8 % 32] ^= 1 << (bit % 8);
        let mut without = proof.to_vec();
        without.remove(i);
        out.extend([flipped, without]);
        if i + 1 < proof.len() && proof[i] != proof[i + 1] {
            let mut swapped = proof.to_vec();
            swapped.swap(i, i + 1);
            out.push(swapped);
        }
    }
    out
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn larger_trees_and_what_they_refuse(a in 1u64..3000, b in 1u64..3000, pick in 0u64..3000, bit in 0usize..256) {
        static LOG: std::sync::LazyLock<Log> = std::sync::LazyLock::new(|| grow(3000));
        let log = &*LOG;
        let (old, new) = (a.min(b), a.max(b));
        let index = pick % new;
        let (old_root, new_root) = (log.roots[old as usize], log.roots[new as usize]);
        let this = entry(index);
        let path = inclusion_proof(index, new, &log.stored).unwrap();
        verify_inclusion(&this, index, new, &path, &new_root).unwrap();
        let link = consistency_proof(old, new, &log.stored).unwrap();
        verify_consistency(old, new, &link, &old_root, &new_root).unwrap();

        for bad in mutations(&path, bit) {
            prop_assert!(verify_inclusion(&this, index, new, &bad, &new_root).is_err());
        }
        for bad in mutations(&link, bit) {
            prop_assert!(verify_consistency(old, new, &bad, &old_root, &new_root).is_err());
        }
        let mut other = this;
        other[bit / 8] ^= 1 << (bit % 8);
        prop_assert!(verify_inclusion(&other, index, new, &path, &new_root).is_err());
        let mut wrong = new_root;
        wrong[bit / 8] ^= 1 << (bit % 8);
        prop_assert!(verify_inclusion(&this, index, new, &path, &wrong).is_err());
        prop_assert!(verify_consistency(old, new, &link, &old_root, &wrong).is_err());
        let mut wrong = old_root;
        wrong[bit / 8] ^= 1 << (bit % 8);
        prop_assert!(verify_consistency(old, new, &link, &wrong, &new_root).is_err());
        if new > 1 {
            prop_assert!(verify_inclusion(&this, (index + 1) % new, new, &path, &new_root).is_err());
        }
    }

    #[test]
    fn resuming_anywhere_changes_nothing(cut in 0u64..700, more in 0u64..700) {
        static LOG: std::sync::LazyLock<Log> = std::sync::LazyLock::new(|| grow(1400));
        let log = &*LOG;
        let mut tree = TreeAppender::resume(cut, &log.stored).unwrap();
        let mut bytes = vec![];
        for n in cut..cut + more {
            tree.append(&entry(n), &mut bytes);
        }
        prop_assert_eq!(tree.root(), log.roots[(cut + more) as usize]);
        let from = stored_hash_count(cut) as usize;
        let to = stored_hash_count(cut + more) as usize;
        prop_assert_eq!(bytes, log.stored[from..to].concat());
    }

    #[test]
    fn coverage_round_trips(topic in ".{0,20}", partition: i32, from in 0i64..1 << 50, rows in 0i64..1 << 40) {
        let c = Coverage { topic: topic.clone(), partition, from_offset: from, to_offset: from + rows };
        let bytes = c.to_bytes();
        prop_assert_eq!(bytes.len(), 8 + 4 + topic.len() + 4 + 8 + 8);
        prop_assert_eq!(Coverage::from_bytes(&bytes).unwrap(), c.clone());
        prop_assert_eq!(coverage_commitment(&topic, partition, from, from + rows), sha(&[&bytes]));
        for end in 0..bytes.len() {
            prop_assert!(Coverage::from_bytes(&bytes[..end]).is_err());
        }
    }
}

#[test]
fn the_bytes_of_a_coverage() {
    let c = Coverage { topic: "pumps".into(), partition: 3, from_offset: 1, to_offset: 258 };
    let hex: String = c.to_bytes().iter().map(|b| format!("{b:02x}")).collect();
    assert_eq!(
        hex,
        "61766f75636843310500000070756d7073030000000100000000000000\
        0201000000000000"
            .replace(' ', "")
    );
    assert!(Coverage::from_bytes(&Coverage { from_offset: 2, to_offset: 1, ..c }.to_bytes()).is_err());
}

#[test]
fn notes_are_signed_and_refused() {
    let origin = LogOrigin::new("pump-health", 0);
    let text = checkpoint_text(&origin, 7, &entry(1)).unwrap();
    let base64 = tlog_tiles::Hash(entry(1)).to_string();
    assert_eq!(text, format!("avouch/pump-health/0\n7\n{base64}\n").into_bytes());
    let signer = NoteSigner::from_seed(&origin, &[7; 32]).unwrap();
    let note = signer.sign(&text).unwrap();
    let vkey = signer.verifier_key();
    let head = verify_note(&note, &vkey).unwrap();
    assert_eq!(head, TreeHead { origin: origin.clone(), size: 7, root: entry(1) });
    assert_eq!(read_note_unverified(&note).unwrap(), head);
    assert_eq!(signer.sign(&text).unwrap(), note);

    for i in 0..note.len() {
        for flip in [1u8, 0x20] {
            let mut bad = note.clone();
            bad[i] ^= flip;
            if let Ok(other) = verify_note(&bad, &vkey) {
                panic!("byte {i}: {other:?}");
            }
        }
    }
    let stranger = NoteSigner::from_seed(&origin, &[8; 32]).unwrap();
    assert!(verify_note(&note, &stranger.verifier_key()).is_err());
    let elsewhere = NoteSigner::from_seed(&LogOrigin::new("x", 0), &[7; 32]).unwrap();
    assert!(verify_note(&elsewhere.sign(&text).unwrap(), &elsewhere.verifier_key()).is_err());
    assert!(NoteSigner::from_seed(&LogOrigin::new("two words", 0), &[7; 32]).is_err());
    assert!(checkpoint_text(&LogOrigin::from_text("a\nb"), 1, &[0; 32]).is_err());
    assert!(checkpoint_text(&LogOrigin::from_text(""), 1, &[0; 32]).is_err());
}

#[test]
fn tiles_have_the_specifications_paths() {
    let log = grow(70_000);
    let paths: Vec<String> = tiles_between(0, 70_000).iter().map(TileRef::path).collect();
    assert_eq!(paths.len(), 273 + 1 + 1 + 1 + 1);
    assert_eq!(paths[0], "tile/0/000");
    assert_eq!(paths[273], "tile/0/273.p/112");
    assert_eq!(paths[274], "tile/1/000");
    assert_eq!(paths[275], "tile/1/001.p/17");
    assert_eq!(paths[276], "tile/2/000.p/1");
    let far = tiles_between(256 * 1_234_067, 256 * 1_234_067 + 8);
    assert_eq!(far[0].path(), "tile/0/x001/x234/067.p/8");
    assert_eq!(far[0].entries_path().unwrap(), "tile/entries/x001/x234/067.p/8");
    assert!(tiles_between(5, 5).is_empty());

    for tile in tiles_between(0, 70_000) {
        let bytes = tile.read(&log.stored).unwrap();
        assert_eq!(bytes.len() as u64, 32 * tile.width());
        assert_eq!(tile.is_full(), tile.width() == 256);
        match tile.level() {
            0 => {
                let leaf = leaf_hash(&entry(tile.first()));
                assert_eq!(bytes[..32], leaf);
                assert!(tile.entries_path().is_some());
            }
            1 => {
                let first = tile.first() as usize * 256;
                assert_eq!(bytes[..32], naive_root(&log.entries[first..first + 256]));
            }
            _ => assert_eq!(bytes[..32], naive_root(&log.entries[..65536])),
        }
    }
    let bundle = entry_bundle(&[entry(0), entry(1)].concat());
    assert_eq!(bundle.len(), 68);
    assert_eq!(bundle[..2], [0, 32]);
    assert_eq!(bundle[36..], entry(1));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn many_entries_are_appended_as_one_by_one(sizes in proptest::collection::vec(0u64..90, 0..12)) {
        let (mut one, mut stored) = (TreeAppender::new(), Vec::new());
        let (mut many, mut together) = (TreeAppender::new(), Vec::new());
        for size in sizes {
            let entries: Vec<Hash32> = (one.size()..one.size() + size).map(entry).collect();
            entries.iter().for_each(|e| one.append(e, &mut stored));
            many.append_all(&entries, &mut together);
            prop_assert_eq!(&many, &one);
            prop_assert!(together == stored);
        }
    }
}
