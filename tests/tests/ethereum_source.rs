//! A chain as a source: events and blocks are judged once they are final, each once, whatever the process dies of.
#![allow(clippy::unwrap_used)]

mod pumps;

use std::path::{Path, PathBuf};
use std::time::Duration;

use avouch_connectors::store::LaneReader;
use avouch_system_tests::{Anvil, Avouch, Missing, eventually, place, require};
use pumps::left::{committed, same_files};
use serde_json::{Value, json};

const LIMIT: Duration = Duration::from_secs(120);

/// Blocks between the newest one and the newest final one on anvil.
const FINALITY: u64 = 64;

/// The first block's time; one comes every twelve seconds.
const START: u64 = 1_767_600_000;

const PIPELINE: &str = r#"
version = 1

[pipeline]
name       = "meters"
delivery   = "exactly-once"
checkpoint = { every = "100ms", store = "file://${env:T_STATE}" }
secret     = "a secret of the tests, and of nothing else"

[http]
listen = "127.0.0.1:0"

[sources.readings]
kind       = "ethereum"
rpc        = "${env:T_RPC}"
chain_id   = 31337
from_block = 1
events     = ["Metered(bytes32 indexed meter, uint256 watts)"]
contracts  = ["CONTRACT"]
schema     = { meter = "utf8!", timestamp = "timestamp_ms!", watts = "f64!", block_number = "i64!" }
key        = "meter"
time       = { column = "timestamp", max_disorder = "0s" }

[steps.features]
from   = "readings"
window = { kind = "tumbling", size = "1m" }
sql    = "SELECT meter, avg(watts) AS watts_mean, max(watts) AS watts_max, max(block_number) AS block FROM readings GROUP BY meter"

[steps.anomaly]
from     = "features"
model    = { file = "${env:T_MODEL}" }
features = ["watts_mean", "watts_max"]
decide   = { severity = { warning = 0.01 } }

[dead_letter]
kind = "files"
path = "file://${env:T_STATE}/dead"

[train.anomaly]
step      = "anomaly"
data      = "${env:T_TRAINING:-none.ndjson}"
algorithm = { kind = "t2-q" }
split     = { by = "time", hold_back = 0.25, seed = 7 }
"#;

fn start() -> Result<Anvil, Missing> {
    Anvil::start_with(&["--no-mining", "--order", "fifo", "--timestamp", &START.to_string()])
}

/// A chain whose blocks come when they are asked for, with a contract that says of every call's data that it was metered.
struct Chain {
    anvil: Anvil,
    sender: Value,
    contract: String,
    mined: u64,
}

impl Chain {
    fn start(anvil: Anvil) -> Self {
        let sender = anvil.call("eth_accounts", &json!([]))[0].clone();
        let topic = anvil.cast(&["keccak", "Metered(bytes32,uint256)"]).unwrap();
        // The runtime copies all but the call's first word and logs it under the event's topic and that word:
        //   PUSH1 32, CALLDATASIZE, SUB, DUP1, PUSH1 32, PUSH0, CALLDATACOPY, PUSH0, CALLDATALOAD, PUSH32 topic, DUP3, PUSH0, LOG2, STOP
        let runtime = format!("602036038060205f375f357f{}825fa200", topic.trim_start_matches("0x"));
        let size = runtime.len() / 2;
        let code = format!("0x60{size:02x}600a5f3960{size:02x}5ff3{runtime}");
        let mut chain = Self { anvil, sender, contract: String::new(), mined: 0 };
        let deployment = chain.send(&json!({ "data": code }));
        chain.mine(1);
        let receipt = chain.anvil.call("eth_getTransactionReceipt", &json!([deployment]));
        assert_eq!(receipt["status"], "0x1", "{receipt}");
        chain.contract = receipt["contractAddress"].as_str().unwrap().to_owned();
        chain
    }

    fn send(&self, transaction: &Value) -> Value {
        let mut transaction = transaction.clone();
        transaction["from"] = self.sender.clone();
        transaction["gas"] = json!("0x30d40");
        self.anvil.call("eth_sendTransaction", &json!([transaction]))
    }

    /// Mines empty blocks, or one with what was sent.
    fn mine(&mut self, blocks: u64) {
        for _ in 0..blocks {
            self.mined += 1;
            self.anvil.call("evm_setNextBlockTimestamp", &json!([START + 12 * self.mined]));
            self.anvil.call("evm_mine", &json!([]));
        }
    }

    /// A block in which every meter has said something.
    fn metered(&mut self, meters: u64) {
        for meter in 0..meters {
            let watts = 1_000 + 37 * meter + (self.mined * 7919 + meter * 104_729) % 50;
            self.send(&json!({ "to": self.contract, "data": format!("0x{meter:064x}{watts:064x}") }));
        }
        self.mine(1);
    }

    fn run(&self, directory: &Path, state: &str, model: &Path) -> Avouch {
        let file = directory.join("meters.toml");
        std::fs::write(&file, PIPELINE.replace("CONTRACT", &self.contract)).unwrap();
        Avouch::new(["run"])
            .args([file])
            .within(directory)
            .env("T_RPC", self.anvil.rpc())
            .env("T_MODEL", model)
            .env("T_STATE", directory.join(state))
    }
}

fn trained(directory: &Path) -> PathBuf {
    let rows: Vec<String> = (0..2_000u64)
        .map(|i| {
            let (meter, at) = (i % 4, (START + 12 * (i / 4)) * 1000);
            let watts = 1_000 + 37 * meter + (i * 7919) % 50;
            format!(r#"{{"meter":"0x{meter:064x}","timestamp":{at},"watts":{watts},"block_number":{i}}}"#)
        })
        .collect();
    let (data, model) = (directory.join("healthy.ndjson"), directory.join("meters.model"));
    std::fs::write(&data, rows.join("\n")).unwrap();
    let file = directory.join("training.toml");
    std::fs::write(&file, PIPELINE.replace("CONTRACT", &format!("0x{}", "11".repeat(20)))).unwrap();
    Avouch::new(["train"])
        .args([file])
        .args(["--created", "2026-01-05T09:00:00Z"])
        .env("T_RPC", "http://127.0.0.1:1")
        .env("T_STATE", directory)
        .env("T_TRAINING", &data)
        .env("T_MODEL", &model)
        .run(LIMIT)
        .success();
    model
}

#[test]
fn events_are_judged_once_they_are_final_and_each_once() {
    let directory = place::fresh_directory("chain-source");
    let model = trained(&directory);
    let mut chain = Chain::start(require!(start()));
    for _ in 0..60 {
        chain.metered(4);
    }
    // Nothing of it is final yet.
    let summary = chain.run(&directory, "early", &model).args(["--until-end", "--json"]).run(LIMIT).success().json();
    assert_eq!(summary["rows_in"], 0);

    // A process that is killed over and over, while the chain goes on.
    let run = chain.run(&directory, "killed", &model);
    let (log, lane) = (directory.join("killed.log"), directory.join("killed/meters/0"));
    for round in 1..=4u64 {
        let mut process = run.start(&log);
        chain.mine(15);
        let last = chain.mined - FINALITY;
        eventually("it has judged what is final", LIMIT, || {
            assert!(process.ended().is_none(), "{}", process.log_tail());
            let at = committed(&lane).map_or(0, |c| c.next_offset);
            (at > (last as i64) << 20).then_some(())
        });
        process.kill();
        // An event that has the topic, and not the layout.
        chain.send(&json!({ "to": chain.contract, "data": format!("0x{round:064x}") }));
    }
    for _ in 0..20 {
        chain.metered(4);
    }
    chain.mine(FINALITY);
    let summary = run.clone().args(["--until-end", "--json"]).run(LIMIT).success().json();
    assert_eq!(summary["rows_in"], 4 * 80 + 4);
    assert_eq!(summary["dead_letters"]["undecodable"], 4);
    let whole = chain.run(&directory, "whole", &model).args(["--until-end", "--json"]).run(LIMIT).success().json();
    assert_eq!(whole["rows_in"], summary["rows_in"]);
    same_files(&directory.join("whole/meters/0"), &lane);

    let reader = LaneReader::open_read_only(&lane).unwrap();
    let record = reader.verdict(0).unwrap();
    assert_eq!(&*record.evidence.topic, "ethereum:readings");
    assert_eq!(record.evidence.device, format!("0x{:064x}", 0));
    // A block every twelve seconds, the third of them the first with events, and windows of a minute.
    assert_eq!([record.evidence.rows, reader.verdict(4).unwrap().evidence.rows], [3, 5]);
    assert!(reader.committed().log_size > 50, "{}", reader.committed().log_size);
    let letters = reader.dead_letters(0, 10).unwrap();
    let said = &letters[0].detail;
    assert!(said.contains("its layout is not that of `Metered(bytes32,uint256)`"), "{said}");
    assert!(said.starts_with("block "), "{said}");
    let raw: Value = serde_json::from_slice(letters[0].value.as_deref().unwrap()).unwrap();
    assert_eq!(raw["address"].as_str().unwrap().to_lowercase(), chain.contract.to_lowercase());
}

#[test]
fn check_connect_says_what_a_run_would_fail_on() {
    let directory = place::fresh_directory("chain-source-check");
    let model = trained(&directory);
    let mut chain = Chain::start(require!(start()));
    chain.mine(FINALITY + 5);
    chain.run(&directory, "state", &model);
    let file = directory.join("meters.toml");
    let check = |text: &str| {
        std::fs::write(&file, text).unwrap();
        Avouch::new(["check", "--connect"])
            .args([&file])
            .env("T_RPC", chain.anvil.rpc())
            .env("T_MODEL", &model)
            .env("T_STATE", directory.join("state"))
            .run(LIMIT)
    };
    let text = PIPELINE.replace("CONTRACT", &chain.contract);
    let good = check(&text);
    assert_eq!(good.code, Some(0), "{}{}", good.stdout, good.stderr);
    let said = format!("{}{}", good.stdout, good.stderr);
    assert!(said.contains("6 final blocks of chain 31337"), "{said}");
    let other = check(&text.replace("chain_id   = 31337", "chain_id   = 1"));
    let said = format!("{}{}", other.stdout, other.stderr);
    assert_eq!(other.code, Some(1), "{said}");
    assert!(said.contains("error[wrong-chain]") && said.contains("serves chain 31337, but chain 1"), "{said}");
    let nobody = check(
        &text.replace(&chain.contract, &format!("0x{}", "77".repeat(20))).replace("from_block = 1", "from_block = 100"),
    );
    let said = format!("{}{}", nobody.stdout, nobody.stderr);
    assert!(said.contains("warning[no-contract]") && said.contains("warning[future-block]"), "{said}");
}

#[test]
fn blocks_are_readings_too() {
    let directory = place::fresh_directory("chain-blocks");
    let mut chain = Chain::start(require!(start()));
    for _ in 0..30 {
        chain.metered(3);
    }
    chain.mine(FINALITY);
    let text = PIPELINE
        .lines()
        .filter(|l| !l.starts_with("events ") && !l.starts_with("contracts "))
        .collect::<Vec<_>>()
        .join("\n")
        .replace(
            r#"schema     = { meter = "utf8!", timestamp = "timestamp_ms!", watts = "f64!", block_number = "i64!" }"#,
            r#"schema     = { chain = "utf8!", timestamp = "timestamp_ms!", gas_used = "f64!", transactions = "i64!", number = "i64!" }"#,
        )
        .replace(r#"key        = "meter""#, r#"key        = "chain""#)
        .replace(
            "SELECT meter, avg(watts) AS watts_mean, max(watts) AS watts_max, max(block_number) AS block FROM readings GROUP BY meter",
            "SELECT chain, avg(gas_used) AS watts_mean, max(transactions) AS watts_max, max(number) AS block FROM readings GROUP BY chain",
        );
    let file = directory.join("blocks.toml");
    std::fs::write(&file, text).unwrap();
    let model = trained(&directory);
    let summary = Avouch::new(["run"])
        .args([&file])
        .args(["--until-end", "--json"])
        .env("T_RPC", chain.anvil.rpc())
        .env("T_MODEL", &model)
        .env("T_STATE", directory.join("state"))
        .run(LIMIT)
        .success()
        .json();
    // Block 0 is before `from_block`; the contract's, and thirty more.
    assert_eq!(summary["rows_in"], 31);
    let reader = LaneReader::open_read_only(&directory.join("state/meters/0")).unwrap();
    let record = reader.verdict(1).unwrap();
    assert_eq!(record.evidence.device, "31337");
    assert_eq!(record.evidence.features.iter().find(|f| &*f.name == "watts_max").unwrap().value, 3.0);
}
