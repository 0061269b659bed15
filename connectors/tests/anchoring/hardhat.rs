//! The same rules on a node that is stricter than anvil: Hardhat's EDR refuses a replacement that is not a tenth dearer, keeps
//! what comes after a gap waiting, and knows no block by a hash that is not on its chain.
#![allow(clippy::unwrap_used)]

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use alloy::consensus::{Transaction, TxEnvelope};
use alloy::eips::eip2718::Decodable2718;
use alloy::primitives::hex;
use serde_json::{Value, json};

use super::chain::{NAME, key, quick};
use super::merkle::MerkleLog;
use super::proxy::{Fate, Proxy, post};
use crate::ethereum::{
    AnchorWriter, ChainReader, Checkpoint, Contract, Domain, RpcOptions, WriterConfig, WriterOptions, deploy,
    register_log,
};

/// A running Hardhat node; killed when dropped.
struct Hardhat {
    child: Child,
    url: String,
}

impl Drop for Hardhat {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Hardhat {
    /// Without it a test says so and passes, but not in CI.
    fn start() -> Option<Self> {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("ethereum/hardhat");
        let program = dir.join("node_modules/hardhat/internal/cli/bootstrap.js");
        if !program.exists() {
            let advice = "run `npm ci` in connectors/ethereum/hardhat";
            assert!(std::env::var("CI").as_deref() != Ok("true"), "CI has no Hardhat: {advice}");
            eprintln!("SKIPPED: no Hardhat here; {advice}");
            return None;
        }
        // Without the launcher in between, so that the process that is killed is the node.
        let mut child = Command::new("node")
            .arg(program)
            .args(["node", "--hostname", "127.0.0.1", "--port", "0"])
            .current_dir(dir)
            .env("HARDHAT_DISABLE_TELEMETRY_PROMPT", "true")
            // It colours its address where CI is set, whether anybody sees it or not.
            .env("FORCE_COLOR", "0")
            .env("NO_COLOR", "1")
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let url = lines
            .by_ref()
            .map(Result::unwrap)
            .find_map(|line| line.split("JSON-RPC server at ").nth(1).map(|url| url.trim_end_matches('/').to_owned()))
            .expect("Hardhat says where it listens");
        // Its output is read on, so that it never waits for us.
        std::thread::spawn(move || lines.for_each(drop));
        Some(Self { child, url })
    }

    async fn rpc(&self, method: &str, params: Value) -> Value {
        post(&self.url, method, &params).await
    }

    async fn pending(&self) -> usize {
        self.rpc("eth_pendingTransactions", json!([])).await.as_array().unwrap().len()
    }
}

struct World {
    node: Hardhat,
    reader: ChainReader,
    log_id: [u8; 32],
    log: MerkleLog,
    dir: tempfile::TempDir,
}

impl World {
    async fn new() -> Option<Self> {
        let node = Hardhat::start()?;
        let options = RpcOptions::default;
        let deployed = deploy(Contract::VerdictLog, &node.url, Some(31337), &key(), options()).await.unwrap();
        let reader = ChainReader::connect(&node.url, Some(31337), deployed.contract, options()).await.unwrap();
        let log_id = register_log(&reader, &key(), &NAME, key().address()).await.unwrap().log_id;
        Some(Self { node, reader, log_id, log: MerkleLog::default(), dir: tempfile::tempdir().unwrap() })
    }

    async fn writer(&self, url: &str, options: WriterOptions) -> AnchorWriter {
        let Domain { chain_id, contract } = self.reader.domain();
        let config = WriterConfig {
            urls: vec![url.to_owned()],
            quorum: 1,
            domain: Domain { chain_id, contract },
            signer: key(),
            payer: key(),
            journal: self.dir.path().join("journal"),
            options,
        };
        AnchorWriter::open(config).await.unwrap()
    }

    fn step(&mut self, old: u64, new: u64) -> (Checkpoint, Vec<[u8; 32]>) {
        self.log.grow_to(new);
        let checkpoint = Checkpoint {
            log_id: self.log_id,
            old_size: old,
            new_size: new,
            old_root: self.log.root(old),
            new_root: self.log.root(new),
            data_commitment: [0xdc; 32],
            issued_at: 1_790_000_000_000 + new,
        };
        (checkpoint, self.log.consistency(old, new))
    }

    async fn sizes(&self) -> Vec<u64> {
        let text = self.node.rpc("eth_blockNumber", json!([])).await;
        let last = u64::from_str_radix(text.as_str().unwrap().trim_start_matches("0x"), 16).unwrap();
        self.reader.anchors(&self.log_id, None, 0, last).await.unwrap().iter().map(|a| a.size).collect()
    }
}

fn decode(raw: &Value) -> TxEnvelope {
    let bytes = hex::decode(raw[0].as_str().unwrap()).unwrap();
    TxEnvelope::decode_2718(&mut bytes.as_slice()).unwrap()
}

fn patient() -> WriterOptions {
    let mut options = quick();
    options.rpc.request_timeout = Duration::from_secs(2);
    options
}

#[tokio::test(flavor = "multi_thread")]
async fn replacements_are_dear_enough_for_a_strict_node() {
    let Some(mut world) = World::new().await else { return };
    world.node.rpc("evm_setAutomine", json!([false])).await;
    let proxy = Proxy::start(&world.node.url, |_, _, _| Fate::Pass).await;
    let mut options = patient();
    options.bump_after = Duration::from_millis(300);
    let mut writer = world.writer(&proxy.url, options).await;
    let (checkpoint, proof) = world.step(0, 6);
    let work = writer.advance(checkpoint, proof);
    tokio::pin!(work);
    let anchored = loop {
        tokio::select! {
            done = &mut work => break done.unwrap(),
            () = tokio::time::sleep(Duration::from_millis(50)) => {
                if proxy.count("eth_sendRawTransaction") >= 4 {
                    world.node.rpc("evm_mine", json!([])).await;
                }
            }
        }
    };
    let sent: Vec<TxEnvelope> = proxy.requests("eth_sendRawTransaction").iter().map(decode).collect();
    assert!(sent.len() >= 4 && sent.iter().all(|t| t.nonce() == sent[0].nonce()));
    // Each replaced the one before it: the node never refused, so none had to be made dearer still.
    for pair in sent.windows(2) {
        assert!(pair[1].max_fee_per_gas() * 10 >= pair[0].max_fee_per_gas() * 11);
    }
    assert!(sent.iter().any(|t| t.tx_hash().0 == anchored.transaction));
    assert_eq!(world.sizes().await, [6]);
    assert_eq!(world.node.pending().await, 0);
}

/// Whether the node is as strict as the test before this one thinks: it refuses a replacement that is a wei dearer, which anvil
/// takes.
#[tokio::test(flavor = "multi_thread")]
async fn the_node_refuses_a_replacement_that_is_hardly_dearer() {
    let Some(world) = World::new().await else { return };
    world.node.rpc("evm_setAutomine", json!([false])).await;
    let own = key().address();
    let nonce = world.node.rpc("eth_getTransactionCount", json!([own, "latest"])).await;
    let offer = |fee: u64| {
        json!([{ "from": own, "to": own, "nonce": nonce, "value": "0x1", "gas": "0x5208",
            "maxFeePerGas": format!("{fee:#x}"), "maxPriorityFeePerGas": format!("{:#x}", fee / 4) }])
    };
    world.node.rpc("eth_sendTransaction", offer(8_000_000_000)).await;
    let refusal = super::proxy::ask(&world.node.url, "eth_sendTransaction", &offer(8_000_000_001)).await;
    assert!(refusal["error"]["message"].as_str().unwrap().contains("underpriced"), "{refusal}");
    world.node.rpc("eth_sendTransaction", offer(9_000_000_000)).await;
    assert_eq!(world.node.pending().await, 1);
}

/// A dearer transaction of the same nonce waits there already, of somebody who has the same key: it is outbid.
#[tokio::test(flavor = "multi_thread")]
async fn a_dearer_one_of_the_same_nonce_is_outbid() {
    let Some(mut world) = World::new().await else { return };
    world.node.rpc("evm_setAutomine", json!([false])).await;
    let own = key().address();
    let offer = json!([{ "from": own, "to": own, "value": "0x1", "gas": "0x5208",
        "maxFeePerGas": "0x2540be400", "maxPriorityFeePerGas": "0x77359400" }]);
    world.node.rpc("eth_sendTransaction", offer).await;
    let proxy = Proxy::start(&world.node.url, |_, _, _| Fate::Pass).await;
    let mut writer = world.writer(&proxy.url, patient()).await;
    let (checkpoint, proof) = world.step(0, 6);
    let work = writer.advance(checkpoint, proof);
    tokio::pin!(work);
    let mut quiet = 0;
    loop {
        tokio::select! {
            done = &mut work => { done.unwrap(); break }
            () = tokio::time::sleep(Duration::from_millis(50)) => {
                // When it has stopped raising its offer, the node has it.
                let sent = proxy.count("eth_sendRawTransaction");
                if sent > 0 && sent == quiet {
                    world.node.rpc("evm_mine", json!([])).await;
                }
                quiet = sent;
            }
        }
    }
    assert!(proxy.count("eth_sendRawTransaction") > 1, "the first offer was refused");
    assert_eq!(world.sizes().await, [6]);
    assert_eq!(world.node.pending().await, 0);
}

/// What waits behind a nonce that a reorg took back would wait for ever.
#[tokio::test(flavor = "multi_thread")]
async fn a_gap_before_the_nonces_in_use_is_filled() {
    let Some(mut world) = World::new().await else { return };
    let mut options = patient();
    options.bump_after = Duration::from_millis(300);
    let url = world.node.url.clone();
    let mut writer = world.writer(&url, options).await;
    let snapshot = world.node.rpc("evm_snapshot", json!([])).await;
    let own = key().address();
    world.node.rpc("eth_sendTransaction", json!([{ "from": own, "to": own, "value": "0x1" }])).await;
    let (checkpoint, proof) = world.step(0, 3);
    writer.advance(checkpoint, proof).await.unwrap();
    // Both are taken back, and the first one does not come again.
    world.node.rpc("evm_revert", json!([snapshot])).await;
    world.node.rpc("evm_setAutomine", json!([false])).await;
    let work = writer.recover();
    tokio::pin!(work);
    let settled = loop {
        tokio::select! {
            done = &mut work => break done.unwrap(),
            () = tokio::time::sleep(Duration::from_millis(50)) => {
                world.node.rpc("evm_mine", json!([])).await;
            }
        }
    };
    assert_eq!(settled.iter().map(|a| a.size).collect::<Vec<_>>(), [3]);
    assert_eq!(world.sizes().await, [3]);
}
