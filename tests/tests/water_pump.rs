//! The whole path on real data: the SKAB test bed through Apache Kafka and anvil, held against its labels, and one of its
//! verdicts checked by people who trust neither us nor each other.
#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use avouch_system_tests::{Anvil, Avouch, Isolation, KafkaBroker, datasets, place, require};

const LIMIT: Duration = Duration::from_secs(180);

struct Bed {
    pipeline: PathBuf,
    directory: PathBuf,
    environment: Vec<(&'static str, String)>,
}

impl Bed {
    fn avouch(&self, args: &[&str]) -> Avouch {
        self.environment.iter().fold(Avouch::new(args), |call, (key, value)| call.env(key, value))
    }

    fn ok(&self, args: &[&str]) -> String {
        let outcome = self.avouch(args).run(LIMIT);
        assert_eq!(outcome.code, Some(0), "avouch {args:?}\n{}\n{}", outcome.stdout, outcome.stderr);
        outcome.stdout
    }
}

#[test]
fn judged_anchored_and_verified_three_ways() {
    let data = require!(datasets());
    let kafka = require!(KafkaBroker::start());
    let anvil = require!(Anvil::start_with(&["--block-time", "1"]));
    let directory = place::fresh_directory("water-pump");
    let skab = data.join("skab");
    let key = anvil.key(0).to_owned();
    let mut bed = Bed {
        pipeline: place::workspace().join("pipelines/water-pump/pipeline.toml"),
        environment: vec![
            ("AVOUCH_DATASETS", data.display().to_string()),
            ("AVOUCH_STATE", format!("file://{}", directory.join("state").display())),
            ("AVOUCH_HTTP", "127.0.0.1:0".into()),
            ("WATER_PUMP_MODEL", directory.join("water-pump.model").display().to_string()),
            ("KAFKA_BROKERS", kafka.bootstrap()),
            ("ETH_RPC", anvil.rpc()),
            ("AVOUCH_KEY", key),
        ],
        directory,
    };
    let pipeline = bed.pipeline.display().to_string();

    let deployed: serde_json::Value = serde_json::from_str(&bed.ok(&["deploy", "--json"])).unwrap();
    let contract = deployed["contract"].as_str().unwrap().to_owned();
    bed.environment.push(("VERDICT_LOG", contract.clone()));

    // Trained twice: the same bytes.
    let model = bed.directory.join("water-pump.model");
    let created = ["--created", "2026-01-01T00:00:00Z"];
    bed.ok(&[&["train", &pipeline][..], &created].concat());
    let first = std::fs::read(&model).unwrap();
    bed.ok(&[&["train", &pipeline][..], &created].concat());
    assert!(first == std::fs::read(&model).unwrap(), "training twice gave two model files");

    let files = format!("{}/valve[12]/*.csv", skab.display());
    let produced = bed.ok(&[
        "produce",
        "--create-topic",
        "--partitions",
        "2",
        "--topic",
        "water-pump.telemetry",
        "--files",
        &files,
        "--device",
        "path",
        "--delimiter",
        ";",
        "--time",
        "datetime",
        "--json",
    ]);
    let produced: serde_json::Value = serde_json::from_str(&produced).unwrap();
    assert_eq!(produced["delivered"], 22_472);

    let run: serde_json::Value =
        serde_json::from_str(&bed.ok(&["run", &pipeline, "--until-end", "--create-topics", "--json"])).unwrap();
    assert_eq!(run["rows_in"], 22_472);
    assert_eq!(run["rows_used"], 22_472, "{run}");
    let verdicts = kafka.read("water-pump.verdicts", Isolation::Committed);
    assert_eq!(run["log_size"].as_u64().unwrap(), verdicts.len() as u64, "every verdict is in the topic, once");

    let evaluated =
        bed.ok(&["evaluate", "skab", "--data", &skab.display().to_string(), "--pipeline", &pipeline, "--json"]);
    let evaluated: serde_json::Value = serde_json::from_str(&evaluated).unwrap();
    let pooled = &evaluated["all"];
    let (f1, far) = (pooled["f1"].as_f64().unwrap(), pooled["false_alarm_rate"].as_f64().unwrap());
    eprintln!("SKAB from the verdict logs: {pooled}");
    assert!(f1 >= 0.80 && far <= 0.25, "F1 {f1}, FAR {far}");

    let bundle = bed.directory.join("bundle");
    bed.ok(&["bundle", &pipeline, "--severity", "critical", "--out", &bundle.display().to_string()]);
    offline_and_on_chain(&bed, &anvil, &bundle);
    with_cast_alone(&anvil, &bundle);
    one_byte_is_refused(&bed, &bundle);
}

fn offline_and_on_chain(bed: &Bed, anvil: &Anvil, bundle: &Path) {
    let dir = bundle.display().to_string();
    assert!(bed.ok(&["verify", &dir]).ends_with("ACCEPTED\n"));
    let rpc = anvil.rpc();
    let told: serde_json::Value = serde_json::from_str(&bed.ok(&["verify", &dir, "--rpc", &rpc, "--json"])).unwrap();
    assert_eq!(told["accepted"], true);
    for step in ["signature", "registration", "anchor", "inclusion on chain"] {
        let found = told["steps"].as_array().unwrap().iter().find(|s| s["step"] == step);
        assert_eq!(found.unwrap()["outcome"], "passed", "{step}");
    }
    // Somebody else's signer or contract is not accepted.
    let other = "0x00000000000000000000000000000000000000aa";
    for flag in ["--signer", "--contract"] {
        assert_eq!(bed.avouch(&["verify", &dir, flag, other]).run(LIMIT).code, Some(1), "{flag}");
    }
}

/// The commands that the bundle's README prints, typed into a shell that has `cast` and an endpoint and nothing of ours.
fn with_cast_alone(anvil: &Anvil, bundle: &Path) {
    let readme = std::fs::read_to_string(bundle.join("README.txt")).unwrap();
    let mut commands: Vec<String> = Vec::new();
    let mut open = false;
    for line in readme.lines().map(str::trim) {
        if open || line.starts_with("cast ") {
            let text = line.trim_end_matches('\\');
            if open {
                commands.last_mut().unwrap().push_str(text);
            } else {
                commands.push(text.to_owned());
            }
            open = line.ends_with('\\');
        }
    }
    let cast = avouch_system_tests::anvil::tool("cast").unwrap();
    let answers: Vec<String> = commands
        .iter()
        .map(|command| {
            let mut shell = Command::new("bash");
            let path = format!("{}:/usr/bin:/bin", cast.parent().unwrap().display());
            let output =
                shell.env_clear().env("PATH", path).env("RPC", anvil.rpc()).args(["-ec", command]).output().unwrap();
            assert!(output.status.success(), "{command}\n{}", String::from_utf8_lossy(&output.stderr));
            String::from_utf8(output.stdout).unwrap().trim().to_owned()
        })
        .collect();
    let json = |name: &str| -> serde_json::Value {
        serde_json::from_slice(&std::fs::read(bundle.join(name)).unwrap()).unwrap()
    };
    assert_eq!(answers.len(), 3, "{commands:?}");
    assert_eq!(answers[0], json("inclusion.json")["entry"].as_str().unwrap(), "the entry, by cast");
    assert_eq!(answers[1], "true", "verifyInclusion");
    assert!(answers[2].contains(json("checkpoint.json")["checkpoint"]["newRoot"].as_str().unwrap()), "{}", answers[2]);
}

fn one_byte_is_refused(bed: &Bed, bundle: &Path) {
    for (i, name) in
        ["verdict.json", "inclusion.json", "model", "evidence.bin", "checkpoint.json", "pipeline.canonical.json"]
            .into_iter()
            .enumerate()
    {
        let copy = bed.directory.join(format!("changed-{i}"));
        std::fs::create_dir(&copy).unwrap();
        for entry in std::fs::read_dir(bundle).unwrap() {
            let path = entry.unwrap().path();
            std::fs::copy(&path, copy.join(path.file_name().unwrap())).unwrap();
        }
        let mut bytes = std::fs::read(copy.join(name)).unwrap();
        // In JSON a digit, so that the file still reads well: the lie that looks honest.
        let digits: Vec<usize> = (0..bytes.len()).filter(|&i| bytes[i].is_ascii_digit()).collect();
        let at = if name.ends_with(".json") { digits[digits.len() / 2] } else { bytes.len() / 2 };
        bytes[at] = if bytes[at] == b'7' { b'8' } else { b'7' };
        std::fs::write(copy.join(name), bytes).unwrap();
        let outcome = bed.avouch(&["verify", &copy.display().to_string()]).run(LIMIT);
        assert_eq!(outcome.code, Some(1), "{name} changed at byte {at}\n{}", outcome.stdout);
        assert!(outcome.stdout.contains("REFUSED"), "{}", outcome.stdout);
        assert!(outcome.stdout.contains(name), "the file is named: {}", outcome.stdout);
    }
}
