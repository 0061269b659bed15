//! The pumps of the system tests: a pipeline, a model trained once a process, readings, and what a run has left.
// Each test binary takes what it needs.
#![allow(dead_code, clippy::unwrap_used)]

pub mod audited;
pub mod left;
pub mod live;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::time::Duration;

use avouch_system_tests::{Anvil, Avouch, KafkaBroker, Record, place};

/// 2026-01-06T08:00:00Z, where the simulated readings begin.
pub const START: i64 = 1_767_686_400_000;

const LIMIT: Duration = Duration::from_secs(60);

/// The model of the pumps `pump-000` to `pump-019`, trained by the program itself on fifteen healthy minutes.
pub fn model() -> &'static Path {
    static MODEL: LazyLock<PathBuf> = LazyLock::new(|| trained("15m"));
    &MODEL
}

/// The model of these pumps from so many healthy hours: who saw only minutes of their load is alarmed by the rest.
pub fn seasoned_model() -> &'static Path {
    static MODEL: LazyLock<PathBuf> = LazyLock::new(|| trained("8h"));
    &MODEL
}

fn trained(duration: &str) -> PathBuf {
    let directory = place::fresh_directory("model");
    let (data, model) = (directory.join("healthy.ndjson"), directory.join("pumps.model"));
    Avouch::new(["simulate", "pumps", "--healthy", "--devices", "20", "--duration", duration])
        .args(["--start", "2026-01-05T08:00:00Z", "--out"])
        .args([&data])
        .run(LIMIT)
        .success();
    Avouch::new(["train"])
        .args([fixture("pumps.toml")])
        .args(["--created", "2026-01-05T09:00:00Z"])
        .env("T_STATE", &directory)
        .env("T_TRAINING", &data)
        .env("T_MODEL", &model)
        .run(LIMIT)
        .success();
    model
}

/// A source for [`without_kafka`]: the files in `data`, read to their end.
pub const FILES: &str = r#"
[sources.readings]
kind   = "files"
path   = "data/*"
schema = { device = "utf8!", ts = "timestamp_ms!", temperature = "f64", vibration = "f64", pressure = "f64", rpm = "i64" }
key    = "device"
time   = { column = "ts", max_disorder = "5s", max_future = "5m" }
"#;

/// A source for [`without_kafka`]: files that appear in `data` are read as they come.
pub const FOLLOWED_FILES: &str = r#"
[sources.readings]
kind   = "files"
path   = "data/*"
follow = true
schema = { device = "utf8!", ts = "timestamp_ms!", temperature = "f64", vibration = "f64", pressure = "f64", rpm = "i64" }
key    = "device"
time   = { column = "ts", max_disorder = "5s", max_future = "5m" }
"#;

/// The text of the pipeline with another source, and sinks that need no Kafka: an archive and dead letters under `T_STATE`.
pub fn without_kafka(source: &str) -> String {
    let text = std::fs::read_to_string(fixture("pumps.toml")).unwrap();
    let (head, rest) = text.split_once("[sources.readings]").unwrap();
    let (_, steps) = rest.split_once("[steps.features]").unwrap();
    let (steps, rest) = steps.split_once("[sinks.verdicts]").unwrap();
    let (_, train) = rest.split_once("[train.anomaly]").unwrap();
    let sinks = "[sinks.verdicts]\nfrom = [\"anomaly\"]\nkind = \"parquet\"\npath = \"file://${env:T_STATE}/archive\"\n\n\
                 [dead_letter]\nkind = \"files\"\npath = \"file://${env:T_STATE}/dead\"\n";
    format!("{head}{source}\n[steps.features]{steps}\n{sinks}\n[train.anomaly]{train}")
}

/// A call of the program on a pipeline of [`without_kafka`], which keeps its state in `state`.
pub fn avouch_without_kafka(command: &str, directory: &Path, source: &str, state: &str) -> Avouch {
    let file = directory.join("pumps.toml");
    std::fs::write(&file, without_kafka(source)).unwrap();
    Avouch::new([command]).args([file]).within(directory).env("T_MODEL", model()).env("T_STATE", directory.join(state))
}

/// A file of `tests/fixtures`.
pub fn fixture(name: &str) -> PathBuf {
    place::workspace().join("tests/fixtures").join(name)
}

/// One pipeline on one broker, with a directory of its own.
#[derive(Debug, Clone)]
pub struct Place {
    pub directory: PathBuf,
    pub file: PathBuf,
    environment: BTreeMap<String, String>,
}

impl Place {
    /// With the model, and the topics given.
    pub fn new(kafka: &str, readings: &str, verdicts: &str, dead: &str) -> Self {
        let directory = place::fresh_directory("pipeline");
        let file = directory.join("pumps.toml");
        std::fs::copy(fixture("pumps.toml"), &file).unwrap();
        let mut place = Self { directory, file, environment: BTreeMap::new() };
        place.set("T_STATE", place.directory.join("state").display());
        place.set("T_MODEL", model().display());
        for (name, value) in [("T_KAFKA", kafka), ("T_READINGS", readings), ("T_VERDICTS", verdicts), ("T_DEAD", dead)]
        {
            place.set(name, value);
        }
        place
    }

    /// On fresh topics of a broker, the source of so many partitions.
    pub fn on(kafka: &KafkaBroker, partitions: i32) -> Self {
        let readings = kafka.create_topic("readings", partitions);
        let (verdicts, dead) = (kafka.create_topic("verdicts", partitions), kafka.create_topic("dead", partitions));
        Self::new(&kafka.bootstrap(), &readings, &verdicts, &dead)
    }

    /// Sets what the pipeline file interpolates.
    pub fn set(&mut self, name: &str, value: impl std::fmt::Display) {
        self.environment.insert(name.to_owned(), value.to_string());
    }

    /// What the pipeline file interpolates.
    pub fn get(&self, name: &str) -> &str {
        &self.environment[name]
    }

    /// Puts `new` for `old` in the pipeline file. Runs that are compared need the same file: its hash is in their verdicts.
    pub fn rewrite(&self, old: &str, new: &str) {
        let text = std::fs::read_to_string(&self.file).unwrap();
        assert!(text.contains(old), "{old} is in the pipeline file");
        std::fs::write(&self.file, text.replace(old, new)).unwrap();
    }

    /// Anchors at this endpoint, in this contract, under this key.
    pub fn anchor(&mut self, rpc: &str, contract: &str, key: &str) {
        let text = [fixture("pumps.toml"), fixture("anchor.toml")].map(|path| std::fs::read_to_string(path).unwrap());
        std::fs::write(&self.file, text.concat()).unwrap();
        self.set("T_RPC", rpc);
        self.set("T_CONTRACT", contract);
        self.set("T_KEY", key);
    }

    /// A call of the program on this pipeline.
    pub fn avouch(&self, command: &str) -> Avouch {
        let call = Avouch::new([command]).args([&self.file]).within(&self.directory);
        self.environment.iter().fold(call, |call, (name, value)| call.env(name, value))
    }

    /// A call of `avouch state` on this pipeline.
    pub fn state(&self, what: &[&str]) -> Avouch {
        let call = Avouch::new(["state"]).args(what).args([&self.file]).within(&self.directory);
        self.environment.iter().fold(call, |call, (name, value)| call.env(name, value))
    }

    /// A lane's directory.
    pub fn lane(&self, partition: i32) -> PathBuf {
        Path::new(self.get("T_STATE")).join("pumps").join(partition.to_string())
    }
}

/// Deploys VerdictLog from anvil's first account; its address.
pub fn deploy(anvil: &Anvil) -> String {
    let call = Avouch::new(["deploy", "--json", "--rpc", &anvil.rpc()]).env("AVOUCH_KEY", anvil.key(0));
    call.run(LIMIT).success().json()["contract"].as_str().unwrap().to_owned()
}

/// A healthy reading.
pub fn reading(device: &str, ts: i64) -> String {
    let wave = (ts / 1000 % 7) as f64 / 7.0;
    format!(
        r#"{{"device":"{device}","ts":{ts},"temperature":{},"vibration":{},"pressure":4.2,"rpm":1440}}"#,
        40.0 + wave,
        0.05 - wave / 10.0
    )
}

/// A record of the moment `ts`.
pub fn record(partition: i32, device: &str, ts: i64, value: impl Into<Vec<u8>>) -> Record {
    Record { partition: Some(partition), timestamp: Some(ts), ..Record::new(device, value) }
}

/// Healthy readings of pumps, one a second each, in one partition.
pub fn healthy(devices: u32, seconds: i64) -> Vec<Record> {
    (0..seconds)
        .flat_map(|second| {
            (0..devices).map(move |device| {
                let (device, ts) = (format!("pump-{device:03}"), START + second * 1000);
                record(0, &device, ts, reading(&device, ts))
            })
        })
        .collect()
}

/// What `/readyz` says at `address`; `None` if there is no answer.
pub fn readyz(address: &str) -> Option<String> {
    let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
    agent.get(format!("http://{address}/readyz")).call().ok()?.body_mut().read_to_string().ok()
}

/// Beginnings of the names of metrics that only some pipelines have; the tests of those pipelines look for them.
pub const ONLY_SOME: [&str; 8] = [
    "avouch_early_",
    "avouch_reference_",
    "avouch_mqtt_",
    "avouch_journal_",
    "avouch_repartition_",
    "avouch_anchor_gas_fee_",
    "avouch_anchor_gas_spent_",
    "avouch_anchor_gas_budget_",
];

/// Looks for every metric that is declared under these names on `/metrics` at `address`.
pub fn assert_served(address: &str, names: &[&str]) {
    let declared = avouch::runtime::metrics::DECLARATIONS.iter().map(|d| d.name);
    for name in declared.filter(|name| names.iter().any(|n| name.starts_with(n))) {
        assert!(metric(address, name).is_some(), "{name} is declared, and is not on /metrics");
    }
}

/// A metric's value on `/metrics` at `address`, summed over its series; `None` if there is none or no answer.
pub fn metric(address: &str, name: &str) -> Option<f64> {
    let text = ureq::get(format!("http://{address}/metrics")).call().ok()?.body_mut().read_to_string().ok()?;
    let values: Vec<f64> = text
        .lines()
        .filter(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' '])))
        .map(|line| line.rsplit(' ').next().unwrap().parse().unwrap())
        .collect();
    (!values.is_empty()).then(|| values.iter().sum())
}
