//! An honest pipeline's log on a chain, with what an auditor needs of it; and how it is tampered with.

use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use avouch_engine::verdict::VerdictRecord;
use avouch_system_tests::{Anvil, Avouch, Missing, Process, eventually, place, skip};
use serde_json::{Value, json};

use super::{FOLLOWED_FILES, metric};

pub const LIMIT: Duration = Duration::from_secs(90);

/// The clock, milliseconds since the epoch.
pub fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as i64
}

/// A pipeline over files; what it anchors is up to who makes it.
pub struct Pumps {
    pub directory: PathBuf,
    pub http: String,
    pub chain: Vec<(&'static str, String)>,
}

impl Pumps {
    pub fn new(what: &str) -> Self {
        let directory = place::fresh_directory(what);
        std::fs::create_dir(directory.join("data")).unwrap();
        Self { directory, http: format!("127.0.0.1:{}", place::free_port()), chain: Vec::new() }
    }

    pub fn anchored(mut self, anvil: &Anvil, contract: &str) -> Self {
        self.chain =
            vec![("T_RPC", anvil.rpc()), ("T_CONTRACT", contract.to_owned()), ("T_KEY", anvil.key(0).to_owned())];
        self
    }

    /// Readings of twenty pumps, one a second each, from `from` on.
    pub fn read(&self, file: &str, from: i64, seconds: std::ops::Range<i64>) {
        let rows: Vec<String> = seconds
            .flat_map(|s| (0..20).map(move |d| super::reading(&format!("pump-{d:03}"), from + s * 1000)))
            .collect();
        std::fs::write(self.directory.join("data").join(file), rows.join("\n")).unwrap();
    }

    pub fn call(&self, command: &str) -> Avouch {
        let call = super::avouch_without_kafka(command, &self.directory, FOLLOWED_FILES, "state");
        let file = self.directory.join("pumps.toml");
        let mut text = std::fs::read_to_string(&file).unwrap();
        text = text.replace("[http]\n", "[http]\nlog = true\n");
        if !self.chain.is_empty() {
            text += &std::fs::read_to_string(super::fixture("anchor.toml")).unwrap();
        }
        std::fs::write(&file, text).unwrap();
        self.chain.iter().fold(call.env("T_HTTP", &self.http), |call, (name, value)| call.env(name, value))
    }

    pub fn start(&self) -> Process {
        self.call("run").start(&self.directory.join("avouch.log"))
    }

    pub fn lane(&self) -> PathBuf {
        self.directory.join("state/pumps/0")
    }

    /// Waits until so many rows were read and, where there is a chain, all that came of them is anchored.
    pub fn reached(&self, offset: i64) {
        let there = || super::left::committed(&self.lane()).is_some_and(|c| c.next_offset >= offset).then_some(());
        eventually("it has read all", LIMIT, there);
        if !self.chain.is_empty() {
            let size = super::left::committed(&self.lane()).unwrap().log_size as f64;
            eventually("all is anchored", LIMIT, || {
                (metric(&self.http, "avouch_anchor_size_entries")? >= size).then_some(())
            });
        }
    }

    pub fn export(&self, to: &str) -> PathBuf {
        let out = self.directory.join(to);
        let call = self.call("export").args(["--readings", "--json", "--out"]).args([&out]);
        let made = call.run(LIMIT).success().json();
        assert!(made["readings"].as_u64().unwrap() > 0, "{made}");
        out
    }

    pub fn key(&self) -> String {
        std::fs::read_to_string(self.lane().join("public/key")).unwrap().trim().to_owned()
    }
}

pub fn end(mut process: Process) {
    process.signal("TERM");
    assert!(process.wait(LIMIT).success(), "{}", process.log_tail());
}

/// A chain with the two contracts, a registry of models in which the pumps' model is active, and an honest pipeline's log.
pub struct World {
    pub anvil: Anvil,
    pub contract: String,
    pub registry: String,
    pub owner: String,
    pub pumps: Pumps,
    pub export: PathBuf,
}

pub fn world() -> Option<&'static World> {
    static WORLD: LazyLock<Result<World, Missing>> = LazyLock::new(World::new);
    match &*WORLD {
        Ok(world) => Some(world),
        Err(missing) => {
            skip(&missing.to_string());
            None
        }
    }
}

impl World {
    pub fn new() -> Result<Self, Missing> {
        // An hour ago, by the chain's time, until the model is active: readings are of the past.
        let anvil = Anvil::start_with(&["--timestamp", &(now_ms() / 1000 - 3_600).to_string()])?;
        let contract = super::deploy(&anvil);
        let rpc = anvil.rpc();
        let run = |call: Avouch, key: usize| call.env("AVOUCH_KEY", anvil.key(key)).run(LIMIT).success().json();
        let deploy = Avouch::new(["deploy", "model-registry", "--json", "--rpc", &rpc]);
        let registry = run(deploy, 0)["contract"].as_str().unwrap().to_owned();
        let account = |n: usize| {
            let address = anvil.cast(&["wallet", "address", "--private-key", anvil.key(n)]).unwrap();
            address.trim().to_owned()
        };
        let (owner, publisher, approver) = (account(0), account(1), account(2));
        let model = super::model().to_str().unwrap();
        let of = ["--registry", &registry, "--owner", &owner, "--rpc", &rpc, "--json"];
        let roles = ["model", "register", "--publisher", &publisher, "--approver", &approver];
        run(Avouch::new(roles).args(of), 0);
        run(Avouch::new(["model", "propose", model]).args(of), 1);
        run(Avouch::new(["model", "activate", model]).args(of), 2);

        anvil.call("evm_increaseTime", &json!([3_600]));
        anvil.call("evm_mine", &json!([]));
        let pumps = Pumps::new("audited").anchored(&anvil, &contract);
        // Readings repeat every seven seconds and windows begin every five: each run is to judge the same.
        let from = now_ms() / 35_000 * 35_000 - 1_820_000;
        let process = pumps.start();
        for piece in 0..4 {
            pumps.read(&format!("{piece}.ndjson"), from, piece * 60..(piece + 1) * 60);
            pumps.reached((piece + 1) * 1_200);
            if piece == 1 {
                copy(&pumps.lane().join("public"), &pumps.directory.join("published-early"));
            }
        }
        let label = ["false-alarm", "--by", "anna", "--lane", "0", "--index", "40", "--json"];
        pumps.call("label").args(label).run(LIMIT).success();
        pumps.read("4.ndjson", from, 240..300);
        pumps.reached(6_000);
        // Followed while it runs, by what is published at its address.
        let place = format!("http://{}/log/0", pumps.http);
        let watched = ["monitor", &place, "--key", &pumps.key(), "--once", "--json"];
        let on_chain = ["--rpc", &rpc, "--contract", &contract, "--owner", &owner];
        let said = Avouch::new(watched).args(on_chain).run(LIMIT).success();
        assert!(said.stdout.contains("anchored") && !said.stdout.contains("alarm"), "{}", said.stdout);
        end(process);
        // So that all of it is final.
        anvil.call("anvil_mine", &json!(["0x60"]));
        let export = pumps.export("export");
        Ok(Self { anvil, contract, registry, owner, pumps, export })
    }

    pub fn audit(&self, dir: &Path) -> Avouch {
        let chain = ["--rpc", &self.anvil.rpc(), "--contract", &self.contract, "--owner", &self.owner];
        let models = ["--registry", &self.registry, "--registry-owner", &self.owner];
        Avouch::new(["audit"]).args([dir]).args(chain).args(models).args(["--json"])
    }

    /// The names of the checks that fail on an export.
    pub fn failed(&self, dir: &Path) -> Vec<String> {
        let outcome = self.audit(dir).run(LIMIT);
        let report: Value = serde_json::from_str(&outcome.stdout).unwrap();
        let failed: Vec<String> = report["checks"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|c| c["grade"] == "failed")
            .map(|c| c["name"].as_str().unwrap().to_owned())
            .collect();
        assert_eq!((outcome.code == Some(0)), failed.is_empty(), "{report}");
        failed
    }

    /// A copy of the export, with its records as somebody made them.
    pub fn altered(&self, what: &str, alter: impl FnOnce(&mut Vec<VerdictRecord>)) -> PathBuf {
        let to = place::fresh_directory(what).join("export");
        copy(&self.export, &to);
        let bytes = std::fs::read(to.join("records")).unwrap();
        let (mut records, mut rest) = (Vec::new(), &bytes[..]);
        while let Some((length, after)) = rest.split_first_chunk::<4>() {
            let (payload, after) = after.split_at(u32::from_le_bytes(*length) as usize);
            records.push(VerdictRecord::from_bytes(payload).unwrap());
            rest = after;
        }
        alter(&mut records);
        let mut out = Vec::new();
        for (index, record) in (0..).zip(&mut records) {
            record.index = index;
            let payload = record.to_bytes();
            out.extend((payload.len() as u32).to_le_bytes());
            out.extend(payload);
        }
        std::fs::write(to.join("records"), out).unwrap();
        to
    }
}

pub fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let to = to.join(path.file_name().unwrap());
        if path.is_dir() { copy(&path, &to) } else { std::fs::copy(&path, &to).map(drop).unwrap() }
    }
}
