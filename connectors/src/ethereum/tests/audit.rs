//! An auditor with `cast` and one endpoint, and nothing of ours: the commands of the README, run.
#![allow(clippy::unwrap_used)]

use std::process::Command;

use alloy::primitives::hex;
use avouch_engine::verdict::{VERDICT_TYPE, Verdict, class};

use super::chain::{World, key, tool_or_skip};
use crate::ethereum::{Checkpoint, Contract};

fn verdict(seq: u64) -> Verdict {
    Verdict {
        device_id: [1; 32],
        seq,
        window_start: 1_790_000_000_000,
        window_end: 1_790_000_060_000,
        model_hash: [2; 32],
        config_hash: [3; 32],
        input_digest: [4; 32],
        score_e6: -12_345_678,
        severity: 2,
        class: class::ANOMALY,
        evidence_hash: [5; 32],
        salt: [seq as u8; 32],
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_verdict_is_verified_with_cast_alone() {
    let Some(cast) = tool_or_skip("cast") else { return };
    let Some(mut world) = World::new(&[]).await else { return };
    for seq in 0..21 {
        world.log.push(&verdict(seq).struct_hash());
    }
    let mut writer = world.writer(&world.anvil.url).await.unwrap();
    world.advance(&mut writer, 0, 13).await.unwrap();
    let anchored = world.advance(&mut writer, 13, 21).await.unwrap();

    let url = world.anvil.url.clone();
    let run = |arguments: &[&str]| -> String {
        let output = Command::new(&cast).args(arguments).env("ETH_RPC_URL", &url).output().unwrap();
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "cast {arguments:?}: {errors}");
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    };
    let contract = world.domain.contract.to_string();
    let log_id = hex::encode_prefixed(world.log_id);

    // 1. The contract is the one whose source is published.
    assert_eq!(run(&["codehash", &contract]), hex::encode_prefixed(Contract::VerdictLog.code_hash()));

    // 2. The log is its operator's.
    let owner = key().address().to_string();
    let name = hex::encode_prefixed(super::chain::NAME);
    let encoded = run(&["abi-encode", "f(address,bytes32)", &owner, &name]);
    assert_eq!(run(&["keccak", &encoded]), log_id);

    // 3. The verdict's entry: its EIP-712 struct hash.
    let v = verdict(5);
    let type_hash = run(&["keccak", VERDICT_TYPE]);
    let h = |b: &[u8; 32]| hex::encode_prefixed(b);
    let encoded = run(&[
        "abi-encode",
        "f(bytes32,bytes32,uint64,uint64,uint64,bytes32,bytes32,bytes32,int64,uint8,uint16,bytes32,bytes32)",
        &type_hash,
        &h(&v.device_id),
        &v.seq.to_string(),
        &v.window_start.to_string(),
        &v.window_end.to_string(),
        &h(&v.model_hash),
        &h(&v.config_hash),
        &h(&v.input_digest),
        &v.score_e6.to_string(),
        &v.severity.to_string(),
        &v.class.to_string(),
        &h(&v.evidence_hash),
        &h(&v.salt),
    ]);
    let entry = run(&["keccak", &encoded]);
    assert_eq!(entry, hex::encode_prefixed(v.struct_hash()));

    // 4. The contract checks the inclusion proof against the root it holds.
    let proof: Vec<String> = world.log.inclusion(5, 21).iter().map(h).collect();
    let proof = format!("[{}]", proof.join(","));
    let ask = |entry: &str, index: &str| {
        run(&[
            "call",
            &contract,
            "verifyInclusion(bytes32,bytes32,uint64,uint64,bytes32[])(bool)",
            &log_id,
            entry,
            index,
            "21",
            &proof,
        ])
    };
    assert_eq!(ask(&entry, "5"), "true");
    assert_eq!(ask(&entry, "6"), "false");
    let mut altered = hex::decode(&entry).unwrap();
    altered[31] ^= 1;
    assert_eq!(ask(&hex::encode_prefixed(altered), "5"), "false");

    // 5. Since when: the block's own time.
    let remembered =
        run(&["call", &contract, "checkpointOf(bytes32,uint64)((uint64,bytes32,uint64,uint64,uint64))", &log_id, "21"]);
    assert!(remembered.contains(&h(&world.log.root(21))), "{remembered}");
    let block = anchored.block_number.to_string();
    assert!(remembered.contains(&block));

    // 6. The anchor transaction, by its event.
    let events = run(&[
        "logs",
        "--from-block",
        "0",
        "--address",
        &contract,
        "CheckpointAdvanced(bytes32 indexed,uint64 indexed,uint64,bytes32,bytes32,uint64)",
        &log_id,
        "21",
    ]);
    assert!(events.contains(&h(&anchored.transaction)), "{events}");

    // 7. The operator's signature on the checkpoint, over the digest the contract computes.
    let (checkpoint, _) = world.step(13, 21);
    let Checkpoint { old_size, new_size, old_root, new_root, data_commitment, issued_at, .. } = &checkpoint;
    let tuple =
        format!("({log_id},{old_size},{new_size},{},{},{},{issued_at})", h(old_root), h(new_root), h(data_commitment));
    let digest =
        run(&["call", &contract, "digestOf((bytes32,uint64,uint64,bytes32,bytes32,bytes32,uint64))(bytes32)", &tuple]);
    let signature = hex::encode_prefixed(key().sign_checkpoint(&checkpoint, &world.domain).await.unwrap());
    run(&["wallet", "verify", "--no-hash", "--address", &owner, &digest, &signature]);
}
