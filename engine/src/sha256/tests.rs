#![allow(clippy::unwrap_used)]
use proptest::prelude::*;
use sha2::{Digest, Sha256};

use super::*;

fn plain(message: &[u8]) -> [u8; 32] {
    Sha256::digest(message).into()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn messages_have_the_hashes_of_sha2(
        messages in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..300), 0..60),
        prefix in proptest::collection::vec(any::<u8>(), 64),
    ) {
        let mut all = Messages::default();
        for m in &messages {
            all.bytes.extend_from_slice(m);
            all.end();
        }
        let expected: Vec<_> = messages.iter().map(|m| plain(m)).collect();
        prop_assert_eq!(all.digests(), expected);
        let mut state = INITIAL;
        compress(&mut state, prefix.as_slice().try_into().unwrap());
        let expected: Vec<_> = messages.iter().map(|m| plain(&[&prefix[..], m].concat())).collect();
        prop_assert_eq!(all.digests_after(&state, 64), expected);
    }

    #[test]
    fn messages_that_grow_in_turn_have_the_hashes_of_sha2(
        parts in proptest::collection::vec((0usize..24, proptest::collection::vec(any::<u8>(), 0..150)), 0..200),
        stop in 0usize..200,
        // One is what a processor without AVX-512 has.
        most in prop::sample::select(vec![1, 7, LANES]),
    ) {
        let mut queue = Queue::of(most);
        let mut running = vec![Running::default(); 24];
        let mut whole = vec![Vec::new(); 24];
        for (i, (owner, part)) in parts.iter().enumerate() {
            if i == stop {
                // As a snapshot and a restore do.
                running = running
                    .iter()
                    .map(|r| {
                        let (state, length, tail) = queue.kept(r);
                        Running::resume(state, length, tail).unwrap()
                    })
                    .collect();
                queue = Queue::of(most);
            }
            queue.append(&mut running, *owner, |r| r, part);
            whole[*owner].extend_from_slice(part);
        }
        let expected: Vec<_> = whole.iter().map(|m| plain(m)).collect();
        let one_by_one: Vec<_> = running.iter().map(|r| queue.digest(r)).collect();
        prop_assert_eq!(&one_by_one, &expected);
        queue.flush(&mut running, |r| r);
        prop_assert_eq!(queue.digests(running.iter()), expected);
    }
}

#[test]
fn what_does_not_fit_together_is_not_resumed() {
    assert!(Running::resume(INITIAL, 65, &[0; 1]).is_some());
    assert!(Running::resume(INITIAL, 65, &[0; 2]).is_none());
    assert!(Running::resume(INITIAL, u64::MAX, &[0; 63]).is_none());
}
