#![allow(clippy::unwrap_used)]
use proptest::prelude::*;

use super::*;

fn holder() -> Holder {
    Holder { chain_id: 31337, contract: Address::repeat_byte(1), payer: Address::repeat_byte(2) }
}

fn checkpoint(old_size: u64) -> Checkpoint {
    Checkpoint {
        log_id: [7; 32],
        old_size,
        new_size: old_size + 10,
        old_root: [old_size as u8; 32],
        new_root: [old_size as u8 + 1; 32],
        data_commitment: [9; 32],
        issued_at: 1_790_000_000_000,
    }
}

fn transaction(nonce: u64) -> SignedTransaction {
    SignedTransaction {
        nonce,
        gas_limit: 90_000,
        fees: Fees { max_fee: u128::from(nonce) + 5, priority: 1 },
        hash: [nonce as u8; 32],
        raw: vec![2; 300],
    }
}

const INCLUSION: Inclusion = Inclusion {
    transaction: [3; 32],
    block_number: 5,
    block_hash: [6; 32],
    gas_used: 60_000,
    cost: Spent { day: 20_000, wei: 7 },
};

/// A journal with every kind of record; returns the file's length after each.
fn fill(path: &Path) -> Vec<u64> {
    let mut ends = Vec::new();
    let length = || std::fs::metadata(path).unwrap().len();
    let mut j = Journal::open(path, holder()).unwrap();
    ends.push(length());
    let a = j.begin(checkpoint(0), vec![], vec![1; 65]).unwrap();
    ends.push(length());
    j.add(a, transaction(4)).unwrap();
    ends.push(length());
    j.add(a, transaction(5)).unwrap();
    ends.push(length());
    j.included(a, INCLUSION).unwrap();
    ends.push(length());
    let b = j.begin(checkpoint(10), vec![[8; 32]; 3], vec![2; 65]).unwrap();
    ends.push(length());
    j.add(b, transaction(6)).unwrap();
    ends.push(length());
    j.reopened(a).unwrap();
    ends.push(length());
    j.included(a, INCLUSION).unwrap();
    ends.push(length());
    j.finalized(a).unwrap();
    ends.push(length());
    j.abandoned(b, "stale").unwrap();
    ends.push(length());
    let c = j.begin(checkpoint(20), vec![[8; 32]; 2], vec![3; 65]).unwrap();
    ends.push(length());
    j.add(c, transaction(7)).unwrap();
    ends.push(length());
    ends
}

#[test]
fn it_says_after_reopening_what_it_said_before() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("deep/er/journal");
    fill(&path);
    let j = Journal::open(&path, holder()).unwrap();
    assert_eq!(j.torn_bytes(), 0);
    assert_eq!(j.next_nonce(), 8);
    assert_eq!(j.attempts().len(), 1);
    let last = j.attempt(2).unwrap();
    assert_eq!(last.checkpoint, checkpoint(20));
    assert_eq!(last.transactions, vec![transaction(7)]);
    assert_eq!(last.proof.len(), 2);
}

/// Cut at every single byte: what remains is always the records that were whole, and it can be written on.
#[test]
fn a_torn_end_is_cut_off_wherever_it_is_torn() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("journal");
    let ends = fill(&path);
    let whole = std::fs::read(&path).unwrap();
    for cut in 0..whole.len() {
        std::fs::write(&path, &whole[..cut]).unwrap();
        let mut j = Journal::open(&path, holder()).unwrap();
        let kept = ends.iter().rev().find(|e| **e <= cut as u64).copied();
        assert_eq!(j.torn_bytes(), cut as u64 - kept.unwrap_or(0), "cut at {cut}");
        // Every journal that had its head keeps its length; a new one gets its head again.
        assert_eq!(std::fs::metadata(&path).unwrap().len(), kept.unwrap_or(ends[0]), "cut at {cut}");
        j.begin(checkpoint(90), vec![], vec![]).unwrap();
        drop(j);
        let again = Journal::open(&path, holder()).unwrap();
        assert_eq!(again.torn_bytes(), 0);
        assert_eq!(again.attempts().last().unwrap().checkpoint, checkpoint(90));
    }
}

#[test]
fn zeros_and_a_half_written_last_record_are_torn() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("journal");
    fill(&path);
    let whole = std::fs::read(&path).unwrap();
    let mut zeros = whole.clone();
    zeros.extend([0; 777]);
    std::fs::write(&path, &zeros).unwrap();
    assert_eq!(Journal::open(&path, holder()).unwrap().torn_bytes(), 777);
    let mut half = whole.clone();
    let n = half.len();
    half[n - 20..].fill(0);
    std::fs::write(&path, &half).unwrap();
    let j = Journal::open(&path, holder()).unwrap();
    assert!(j.torn_bytes() > 0);
    assert!(j.attempt(2).unwrap().transactions.is_empty(), "the last transaction was never on disk, so never sent");
}

#[test]
fn a_journal_of_another_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("journal");
    fill(&path);
    for other in [
        Holder { chain_id: 1, ..holder() },
        Holder { contract: Address::repeat_byte(8), ..holder() },
        Holder { payer: Address::repeat_byte(8), ..holder() },
    ] {
        let error = Journal::open(&path, other).unwrap_err();
        assert!(matches!(error, EthereumError::JournalForeign { .. }), "{error}");
    }
    std::fs::write(&path, "something else entirely").unwrap();
    let error = Journal::open(&path, holder()).unwrap_err().to_string();
    assert!(error.contains("no journal"), "{error}");
}

#[test]
fn one_key_one_writer() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("journal");
    let first = Journal::open(&path, holder()).unwrap();
    let error = Journal::open(&path, holder()).unwrap_err();
    assert!(matches!(error, EthereumError::JournalBusy { .. }), "{error}");
    drop(first);
    Journal::open(&path, holder()).unwrap();
}

#[test]
fn a_long_journal_is_rewritten_and_forgets_nothing_that_matters() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("journal");
    let mut j = Journal::open(&path, holder()).unwrap();
    for i in 0..2_000u64 {
        let id = j.begin(checkpoint(i % 200), vec![[1; 32]; 10], vec![1; 65]).unwrap();
        j.add(id, transaction(i)).unwrap();
        j.included(id, INCLUSION).unwrap();
        if i < 1_990 {
            j.finalized(id).unwrap();
        }
    }
    let before = j.state.clone();
    drop(j);
    let long = std::fs::metadata(&path).unwrap().len();
    let j = Journal::open(&path, holder()).unwrap();
    assert_eq!(j.state, before);
    assert_eq!(j.next_nonce(), 2_000);
    drop(j);
    let short = std::fs::metadata(&path).unwrap().len();
    assert!(short < long / 50, "{short} of {long}");
    assert_eq!(Journal::open(&path, holder()).unwrap().state, before);
}

proptest! {
    /// Damage in the middle is never taken for a torn end: it is found, or the record it hit is the last one.
    #[test]
    fn damage_is_found(at in 0usize..2000, flip in 1u8..) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal");
        let ends = fill(&path);
        let mut bytes = std::fs::read(&path).unwrap();
        let at = at % bytes.len();
        bytes[at] ^= flip;
        std::fs::write(&path, &bytes).unwrap();
        let last = ends[ends.len() - 2] as usize;
        match Journal::open(&path, holder()) {
            Err(EthereumError::JournalDamaged { .. } | EthereumError::JournalForeign { .. }) => {}
            Err(other) => prop_assert!(false, "{other}"),
            Ok(j) => {
                prop_assert!(at >= last, "a flip at {at} went unnoticed");
                prop_assert!(j.torn_bytes() > 0);
            }
        }
    }
}

/// What a day's gas cost, through everything that can happen to a transaction, and through restarts and rewriting.
#[test]
fn what_was_spent_is_remembered() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("journal");
    let cost = |day, wei| Spent { day, wei };
    let included = |wei| Inclusion { cost: cost(20_000, wei), ..INCLUSION };
    let reopen = |j: Journal| {
        drop(j);
        Journal::open(&path, holder()).unwrap()
    };
    let mut j = Journal::open(&path, holder()).unwrap();
    let a = j.begin(checkpoint(0), vec![], vec![]).unwrap();
    j.add(a, transaction(4)).unwrap();
    assert_eq!((j.attempts()[0].worst(), j.spent_on(20_000)), (9 * 90_000, 0), "on its way: the most it can cost");
    j.reverted(a, [4; 32], cost(20_000, 100)).unwrap();
    j.reverted(a, [4; 32], cost(20_000, 100)).unwrap();
    assert_eq!(j.spent_on(20_000), 100, "counted once");
    j = reopen(j);
    j.reverted(a, [4; 32], cost(20_000, 100)).unwrap();
    j.included(a, included(40)).unwrap();
    assert_eq!((j.attempts()[0].worst(), j.spent_on(20_000)), (0, 140));
    j.reopened(a).unwrap();
    assert_eq!(j.spent_on(20_000), 100, "a reorg gives the money back");
    j.included(a, included(60)).unwrap();
    j.finalized(a).unwrap();
    j = reopen(j);
    j.rewrite(holder()).unwrap();
    j = reopen(j);
    assert_eq!((j.spent_on(20_000), j.spent_on(20_001), j.attempts().len()), (160, 0, 0));
    let b = j.begin(checkpoint(10), vec![], vec![]).unwrap();
    j.included(b, Inclusion { cost: cost(20_001, 5), ..INCLUSION }).unwrap();
    j.rewrite(holder()).unwrap();
    j = reopen(j);
    assert_eq!((j.spent_on(20_000), j.spent_on(20_001)), (0, 5), "the next day begins with nothing");
}

#[test]
fn a_journal_from_before_costs_were_known_is_read() {
    let included = |kind: u8, with_cost: bool| {
        let mut bytes = Record::Included(1, INCLUSION).to_bytes();
        bytes[0] = kind;
        bytes.truncate(bytes.len() - if with_cost { 0 } else { 24 });
        Record::from_bytes(&bytes)
    };
    let Ok(Record::Included(1, old)) = included(3, false) else { panic!("it is not read") };
    assert_eq!(old, Inclusion { cost: Spent::default(), ..INCLUSION });
    assert!(included(3, true).is_err() && included(9, false).is_err() && included(9, true).is_ok());
}
