//! The proof verifiers in Solidity and in Rust give the same answers, for proofs of every kind of log and for every way of
//! breaking them that is known here. Everything is drawn from a seed, so each run asks the same.
#![allow(clippy::unwrap_used)]

use alloy::primitives::{Bytes, FixedBytes, hex};
use alloy::sol;
use alloy::sol_types::SolCall;
use avouch_engine::log::{verify_consistency, verify_inclusion};
use avouch_engine::verdict::Hash32;
use serde_json::json;

use super::chain::Anvil;
use super::merkle::{MerkleLog, UniformLog, entry};

sol! {
    struct Inclusion { bytes32 root; uint64 size; bytes32 entry; uint64 index; bytes32[] proof; }
    struct Consistency { bytes32 oldRoot; uint64 oldSize; bytes32 newRoot; uint64 newSize; bytes32[] proof; }
    interface ProofBatch {
        function inclusions(Inclusion[] calldata all) external view returns (bool[] memory answers);
        function consistencies(Consistency[] calldata all) external view returns (bool[] memory answers);
    }
}

/// Where the test's contract is put.
const AT: &str = "0x00000000000000000000000000000000000ba7c4";

/// SplitMix64.
struct Draw(u64);

impl Draw {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// From `0..n`.
    fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    fn hash(&mut self) -> Hash32 {
        let mut hash = [0; 32];
        for word in hash.chunks_exact_mut(8) {
            word.copy_from_slice(&self.next().to_be_bytes());
        }
        hash
    }

    /// Sizes of logs of every magnitude, many of them near a power of two.
    fn size(&mut self) -> u64 {
        let power = 1u64 << self.below(64);
        match self.below(4) {
            0 => power,
            1 => (power - 1).max(1),
            2 => power.saturating_add(1),
            _ => (self.next() >> self.below(64)).max(1),
        }
    }

    fn flip(&mut self, hash: &mut Hash32) {
        let bit = self.below(256) as usize;
        hash[bit / 8] ^= 1 << (bit % 8);
    }

    /// Breaks a proof in one of eight ways.
    fn break_nodes(&mut self, proof: &mut Vec<Hash32>, how: u64) {
        let (len, any) = (proof.len(), self.below(proof.len().max(1) as u64) as usize);
        match how {
            0 if len > 0 => self.flip(&mut proof[any]),
            1 if len > 0 => {
                proof.remove(any);
            }
            2 => proof.insert(any, self.hash()),
            3 if len > 0 => {
                let twice = proof[any];
                proof.insert(any, twice);
            }
            4 if len > 1 => proof.swap(any, (any + 1) % len),
            5 if len > 1 => proof.reverse(),
            6 => proof.resize(len + 1 + self.below(70) as usize, [0; 32]),
            7 => proof.clear(),
            _ => proof.push(self.hash()),
        }
    }
}

fn batch_code() -> String {
    let artifact: serde_json::Value =
        serde_json::from_str(include_str!("../../../ethereum/contracts/test/artifacts/ProofBatch.json")).unwrap();
    artifact["deployedBytecode"].as_str().unwrap().to_owned()
}

fn words(proof: &[Hash32]) -> Vec<FixedBytes<32>> {
    proof.iter().copied().map(FixedBytes).collect()
}

/// Asks the contract, so many at a time as fit into the gas of a transaction.
async fn ask<T: Clone, C: SolCall<Return = Vec<bool>>>(
    anvil: &Anvil,
    all: &[T],
    call: impl Fn(Vec<T>) -> C,
) -> Vec<bool> {
    let mut answers = Vec::new();
    for some in all.chunks(256) {
        let data = Bytes::from(call(some.to_vec()).abi_encode());
        let answer = anvil.rpc("eth_call", json!([{"to": AT, "data": data, "gas": "0xf42400"}, "latest"])).await;
        let answer = hex::decode(answer.as_str().unwrap()).unwrap();
        answers.extend(C::abi_decode_returns(&answer).unwrap());
    }
    answers
}

#[tokio::test]
async fn solidity_and_rust_say_the_same_of_every_inclusion_proof() {
    let Some(anvil) = Anvil::start(&[]) else { return };
    anvil.rpc("anvil_setCode", json!([AT, batch_code()])).await;
    let (mut log, uniform, mut draw) = (MerkleLog::default(), UniformLog::new(), Draw(1));
    log.grow_to(700);
    // Every place of every small log, and many of larger ones.
    let mut places: Vec<(u64, u64)> = (1..=24).flat_map(|size| (0..size).map(move |index| (size, index))).collect();
    for _ in 0..700 {
        let size = 1 + draw.below(700);
        places.push((size, draw.below(size)));
    }
    let mut all = Vec::new();
    let mut genuine = 0;
    for n in 0..places.len() + 1_000 {
        let (base, size, index) = if let Some(&(size, index)) = places.get(n) {
            let (root, proof) = (log.root(size), log.inclusion(index, size));
            (
                Inclusion { root: root.into(), size, entry: entry(index).into(), index, proof: words(&proof) },
                size,
                index,
            )
        } else {
            let size = draw.size();
            let index = draw.below(size);
            let (root, proof) = (uniform.root(size), uniform.inclusion(index, size));
            (Inclusion { root: root.into(), size, entry: entry(0).into(), index, proof: words(&proof) }, size, index)
        };
        all.push(base.clone());
        genuine += 1;
        for how in [draw.below(9), 9 + draw.below(8)] {
            let mut broken = base.clone();
            match how {
                9 => draw.flip(&mut broken.root.0),
                10 => draw.flip(&mut broken.entry.0),
                11 => broken.index = draw.below(size.saturating_add(2)),
                12 => broken.index = index ^ (1 << draw.below(64)),
                13 => broken.size = size.wrapping_add(1),
                14 => broken.size = size - 1,
                15 => broken.size = draw.size(),
                16 => (broken.size, broken.index) = (u64::MAX, draw.next()),
                nodes => {
                    let mut proof: Vec<Hash32> = broken.proof.iter().map(|w| w.0).collect();
                    draw.break_nodes(&mut proof, nodes);
                    broken.proof = words(&proof);
                }
            }
            all.push(broken);
        }
    }
    let answers = ask(&anvil, &all, |all| ProofBatch::inclusionsCall { all }).await;
    assert_eq!(answers.len(), all.len());
    let mut right = 0;
    for (n, (one, answer)) in all.iter().zip(&answers).enumerate() {
        let proof: Vec<Hash32> = one.proof.iter().map(|w| w.0).collect();
        let expected = verify_inclusion(&one.entry.0, one.index, one.size, &proof, &one.root.0).is_ok();
        assert_eq!(*answer, expected, "vector {n}: index {} of {}, {} nodes", one.index, one.size, proof.len());
        assert!(n % 3 != 0 || expected, "vector {n} is a genuine proof");
        right += usize::from(expected);
    }
    // Some of what was broken is right all the same: another place of a log of equal entries, two equal nodes changed about.
    assert!(right >= genuine && right < genuine * 2, "{right} of {} proofs are right, {genuine} unbroken", all.len());
    println!("{} inclusion proofs, {genuine} of them unbroken and {right} right", all.len());
}

#[tokio::test]
async fn solidity_and_rust_say_the_same_of_every_consistency_proof() {
    let Some(anvil) = Anvil::start(&[]) else { return };
    anvil.rpc("anvil_setCode", json!([AT, batch_code()])).await;
    let (mut log, uniform, mut draw) = (MerkleLog::default(), UniformLog::new(), Draw(2));
    log.grow_to(700);
    // Every step between small logs, and many between larger ones.
    let mut steps: Vec<(u64, u64)> = (2..=24).flat_map(|new| (1..new).map(move |old| (old, new))).collect();
    for _ in 0..700 {
        let new = 2 + draw.below(699);
        steps.push((1 + draw.below(new - 1), new));
    }
    let mut all = Vec::new();
    let mut genuine = 0;
    for n in 0..steps.len() + 1_000 {
        let (old, new, roots, proof) = if let Some(&(old, new)) = steps.get(n) {
            (old, new, (log.root(old), log.root(new)), log.consistency(old, new))
        } else {
            let new = draw.size().max(2);
            let old = draw.size().min(new - 1);
            (old, new, (uniform.root(old), uniform.root(new)), uniform.consistency(old, new))
        };
        let base = Consistency {
            oldRoot: roots.0.into(),
            oldSize: old,
            newRoot: roots.1.into(),
            newSize: new,
            proof: words(&proof),
        };
        all.push(base.clone());
        genuine += 1;
        for how in [draw.below(9), 9 + draw.below(8)] {
            let mut broken = base.clone();
            match how {
                9 => draw.flip(&mut broken.oldRoot.0),
                10 => draw.flip(&mut broken.newRoot.0),
                11 => broken.oldSize = draw.below(new.saturating_add(2)),
                12 => broken.oldSize = old ^ (1 << draw.below(64)),
                13 => broken.newSize = new.wrapping_add(1),
                14 => broken.newSize = new - 1,
                15 => (broken.oldSize, broken.newSize) = (draw.size(), draw.size()),
                16 => std::mem::swap(&mut broken.oldRoot, &mut broken.newRoot),
                nodes => {
                    let mut proof: Vec<Hash32> = broken.proof.iter().map(|w| w.0).collect();
                    draw.break_nodes(&mut proof, nodes);
                    broken.proof = words(&proof);
                }
            }
            all.push(broken);
        }
    }
    let answers = ask(&anvil, &all, |all| ProofBatch::consistenciesCall { all }).await;
    assert_eq!(answers.len(), all.len());
    let mut right = 0;
    for (n, (one, answer)) in all.iter().zip(&answers).enumerate() {
        let proof: Vec<Hash32> = one.proof.iter().map(|w| w.0).collect();
        // From nothing, or to nothing more, there is no step to prove: the contract refuses both before it looks at a proof.
        let step = one.oldSize != 0 && one.oldSize < one.newSize;
        let expected =
            step && verify_consistency(one.oldSize, one.newSize, &proof, &one.oldRoot.0, &one.newRoot.0).is_ok();
        assert_eq!(*answer, expected, "vector {n}: {} to {}, {} nodes", one.oldSize, one.newSize, proof.len());
        assert!(n % 3 != 0 || expected, "vector {n} is a genuine proof");
        right += usize::from(expected);
    }
    assert!(right >= genuine && right < genuine * 2, "{right} of {} proofs are right, {genuine} unbroken", all.len());
    println!("{} consistency proofs, {genuine} of them unbroken and {right} right", all.len());
}
