//! anvil, a contract on it and a log to write: what the tests stand on.
#![allow(clippy::unwrap_used)]

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use alloy::primitives::Address;
use avouch_engine::verdict::Hash32;
use serde_json::{Value, json};

use super::merkle::MerkleLog;
use crate::ethereum::{
    AnchorWriter, Anchored, ChainReader, Checkpoint, Contract, Domain, EthereumError, OperatorKey, RpcOptions,
    WriterConfig, WriterOptions, deploy, register_log,
};

/// The first two accounts that anvil gives ether to.
pub const KEY: &str = "0xac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80";
pub const OTHER_KEY: &str = "0x59c6995e998f97a5a0044966f0945389dc9e86dae88c7a8412f4603b6b78690d";

/// SHA-256 of the origin line of the test's log would stand here; any 32 bytes do.
pub const NAME: Hash32 = [0x11; 32];

pub fn key() -> OperatorKey {
    OperatorKey::from_hex(KEY).unwrap()
}

pub fn tool(name: &str) -> Option<PathBuf> {
    let local = Path::new(env!("CARGO_MANIFEST_DIR")).join("ethereum/contracts/node_modules/.bin").join(name);
    if local.exists() {
        return Some(local);
    }
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|d| d.join(name)).find(|p| p.is_file())
}

/// Without the tool a test says so and passes, but not in CI, where it must be there.
pub fn tool_or_skip(name: &str) -> Option<PathBuf> {
    let found = tool(name);
    if found.is_none() {
        let advice = "run `npm ci` in connectors/ethereum/contracts";
        assert!(std::env::var("CI").as_deref() != Ok("true"), "CI has no {name}: {advice}");
        eprintln!("SKIPPED: no {name} here; {advice}");
    }
    found
}

/// A running anvil; killed when dropped.
pub struct Anvil {
    child: Child,
    pub url: String,
}

impl Drop for Anvil {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Anvil {
    /// Starts anvil on a free port of its own choosing; `None` if there is none on this machine.
    pub fn start(arguments: &[&str]) -> Option<Self> {
        let anvil = tool_or_skip("anvil")?;
        let mut child = Command::new(anvil)
            .args(["--port", "0", "--enable-tx-gas-limit"])
            .args(arguments)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let address = lines
            .by_ref()
            .map(Result::unwrap)
            .find_map(|line| line.strip_prefix("Listening on ").map(str::to_owned))
            .expect("anvil says where it listens");
        // Its output is read on, so that it never waits for us.
        std::thread::spawn(move || lines.for_each(drop));
        Some(Self { child, url: format!("http://{address}") })
    }

    pub async fn rpc(&self, method: &'static str, params: Value) -> Value {
        super::proxy::post(&self.url, method, &params).await
    }

    pub async fn mine(&self, blocks: u64) {
        self.rpc("anvil_mine", json!([blocks])).await;
    }
}

/// A chain with a contract, a registered log, and the log's content.
pub struct World {
    pub anvil: Anvil,
    pub domain: Domain,
    pub log_id: Hash32,
    pub log: MerkleLog,
    pub dir: tempfile::TempDir,
}

pub fn quick() -> WriterOptions {
    WriterOptions {
        rpc: RpcOptions {
            request_timeout: Duration::from_millis(400),
            read_budget: Duration::from_secs(20),
            first_pause: Duration::from_millis(5),
            rest: Duration::from_millis(300),
        },
        poll: Duration::from_millis(20),
        bump_after: Duration::from_secs(20),
        give_up_after: Duration::from_secs(40),
        max_fee_per_gas: 500_000_000_000,
        budget_per_day: None,
    }
}

impl World {
    pub async fn new(arguments: &[&str]) -> Option<Self> {
        let anvil = Anvil::start(arguments)?;
        let deployed =
            deploy(Contract::VerdictLog, &anvil.url, Some(31337), &key(), RpcOptions::default()).await.unwrap();
        let domain = Domain { chain_id: 31337, contract: deployed.contract };
        let world =
            Self { anvil, domain, log_id: [0; 32], log: MerkleLog::default(), dir: tempfile::tempdir().unwrap() };
        let registered = register_log(&world.reader().await, &key(), &NAME, key().address()).await.unwrap();
        Some(Self { log_id: registered.log_id, ..world })
    }

    pub async fn reader(&self) -> ChainReader {
        ChainReader::connect(&self.anvil.url, Some(31337), self.domain.contract, RpcOptions::default()).await.unwrap()
    }

    pub fn config(&self, url: &str, options: WriterOptions) -> WriterConfig {
        WriterConfig {
            urls: vec![url.to_owned()],
            quorum: 1,
            domain: self.domain,
            signer: key(),
            payer: key(),
            journal: self.dir.path().join("journal"),
            options,
        }
    }

    pub async fn writer(&self, url: &str) -> Result<AnchorWriter, EthereumError> {
        AnchorWriter::open(self.config(url, quick())).await
    }

    /// The checkpoint from one size to another, and its proof.
    pub fn step(&mut self, old: u64, new: u64) -> (Checkpoint, Vec<Hash32>) {
        self.log.grow_to(new);
        self.checkpoint(old, new)
    }

    /// The same of a log that is as long already.
    pub fn checkpoint(&self, old: u64, new: u64) -> (Checkpoint, Vec<Hash32>) {
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

    pub async fn advance(&mut self, writer: &mut AnchorWriter, old: u64, new: u64) -> Result<Anchored, EthereumError> {
        let (checkpoint, proof) = self.step(old, new);
        writer.advance(checkpoint, proof).await
    }

    pub async fn nonce(&self, account: Address) -> u64 {
        let text = self.anvil.rpc("eth_getTransactionCount", json!([account, "latest"])).await;
        u64::from_str_radix(text.as_str().unwrap().trim_start_matches("0x"), 16).unwrap()
    }

    pub async fn latest_block(&self) -> u64 {
        let text = self.anvil.rpc("eth_blockNumber", json!([])).await;
        u64::from_str_radix(text.as_str().unwrap().trim_start_matches("0x"), 16).unwrap()
    }

    /// The sizes that the chain's events tell, in order.
    pub async fn anchored_sizes(&self) -> Vec<u64> {
        let reader = self.reader().await;
        let anchors = reader.anchors(&self.log_id, None, 0, self.latest_block().await).await.unwrap();
        anchors.iter().map(|a| a.size).collect()
    }
}
