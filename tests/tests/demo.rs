//! `avouch demo`, as a newcomer runs it: what it claims at its end is asserted here, and that it leaves no node behind.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use avouch_system_tests::{Anvil, Avouch, Isolation, KafkaBroker, place, require};
use serde_json::Value;

/// anvil as the harness finds it, so that the test is skipped where it is not installed instead of asking npm.
fn anvil() -> Result<String, avouch_system_tests::Missing> {
    avouch_system_tests::anvil::tool("anvil").map(|path| path.display().to_string())
}

fn quality<'a>(summary: &'a Value, faulty_if: &str, severity: &str) -> &'a Value {
    let all = summary["quality"].as_array().unwrap();
    all.iter().find(|q| q["faulty_if"] == faulty_if && q["from_severity"] == severity).unwrap()
}

/// Processes that have this in their command line.
fn processes_with(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        if line.contains(text) {
            found.push(line);
        }
    }
    found
}

#[test]
fn the_demo_keeps_its_promises() {
    let anvil = require!(anvil());
    let dir = place::fresh_directory("demo");
    // A link of its own, so that no other test's node is taken for this one's.
    let own = dir.join("anvil-of-the-demo");
    std::os::unix::fs::symlink(anvil, &own).unwrap();
    let work = dir.join("work");
    let demo =
        Avouch::new(["demo", "--json", "--speed", "max"]).args(["--anvil"]).args([&own]).args(["--dir"]).args([&work]);
    let outcome = demo.run(Duration::from_secs(180)).success();
    let summary = outcome.json();
    println!("{summary:#}");
    assert_eq!(summary["ok"], true);
    assert!(summary["checks"].as_array().unwrap().iter().all(|c| c["holds"] == true), "{}", summary["checks"]);
    assert_eq!(processes_with(&own.display().to_string()), Vec::<String>::new());

    let rows = &summary["rows"];
    assert_eq!(rows["read"], 288_000);
    assert_eq!(rows["dead_letters"], rows["planted"]);
    for reason in ["undecodable", "late", "future"] {
        assert!(rows["planted"][reason].as_u64().unwrap() > 0, "{reason}");
    }
    // Windows whose fault can be seen throughout, and every window a fault so much as touches.
    for (faulty_if, severity, precise, complete) in
        [("seen", "critical", 0.98, 0.95), ("seen", "warning", 0.95, 0.97), ("any", "warning", 0.95, 0.85)]
    {
        let q = quality(&summary, faulty_if, severity);
        assert!(q["precision"].as_f64().unwrap() >= precise && q["recall"].as_f64().unwrap() >= complete, "{q}");
    }
    for d in summary["detections"].as_array().unwrap() {
        assert!(d["called_after_s"].is_number(), "never noticed: {d}");
        if let Some(seen) = d["seen_after_s"].as_f64() {
            assert!(d["called_after_s"].as_f64().unwrap() <= seen + 300.0, "{d}");
        }
    }
    let anchored = &summary["anchored"];
    assert_eq!(anchored["log_size"], anchored["anchored_size"]);
    assert!(anchored["gas_per_verdict"].as_f64().unwrap() < 200.0, "{anchored}");

    // The evidence outlives the demo: another call accepts it, and refuses what was tampered with.
    let bundle = summary["evidence"]["bundle"].as_str().unwrap();
    let verify = |dir: &str| Avouch::new(["verify", dir, "--json"]).run(Duration::from_secs(30));
    assert_eq!(verify(bundle).success().json()["accepted"], true);
    for file in ["verdict", "inclusion", "model"] {
        let refused = verify(&format!("{bundle}-tampered-{file}"));
        assert_eq!((refused.code, &refused.json()["accepted"]), (Some(1), &Value::Bool(false)), "{file}");
    }
}

#[test]
fn the_demo_works_in_no_directory_that_is_in_use() {
    let dir = place::fresh_directory("demo-in-use");
    std::fs::write(dir.join("something"), "").unwrap();
    let outcome = Avouch::new(["demo"]).args(["--dir"]).args([&dir]).run(Duration::from_secs(30));
    assert_eq!(outcome.code, Some(1));
    assert!(outcome.stderr.contains("name a new or empty directory"), "{}", outcome.stderr);
    assert!(!dir.join("pipeline.toml").exists());
}

#[test]
fn brokers_that_are_not_there_are_named_soon() {
    let dir = place::fresh_directory("demo-no-broker").join("work");
    let outcome = Avouch::new(["demo", "--brokers", "127.0.0.1:1", "--dir"]).args([&dir]).run(Duration::from_secs(30));
    assert_eq!(outcome.code, Some(1));
    assert!(outcome.stderr.contains("no broker at 127.0.0.1:1 answers"), "{}", outcome.stderr);
}

#[test]
fn an_interrupted_demo_takes_its_node_with_it() {
    let anvil = require!(anvil());
    for (signal, code) in [("INT", Some(130)), ("KILL", None)] {
        let dir = place::fresh_directory("demo-interrupted");
        let own = dir.join("anvil-of-the-demo");
        std::os::unix::fs::symlink(&anvil, &own).unwrap();
        let demo = Avouch::new(["demo"]).args(["--anvil"]).args([&own]).args(["--dir"]).args([dir.join("work")]);
        let mut running = demo.start(&dir.join("log"));
        avouch_system_tests::eventually("rows are read", Duration::from_secs(60), || {
            std::fs::read_to_string(dir.join("log")).unwrap().contains(" rows (").then_some(())
        });
        running.signal(signal);
        assert_eq!(running.wait(Duration::from_secs(20)).code(), code, "{signal}");
        let name = own.display().to_string();
        avouch_system_tests::eventually("its node is gone", Duration::from_secs(10), || {
            processes_with(&format!("{name} --host")).is_empty().then_some(())
        });
    }
}

#[test]
fn the_demo_does_the_same_on_a_real_broker_and_chain() {
    let kafka = require!(KafkaBroker::shared());
    let chain = require!(Anvil::start());
    let work = place::fresh_directory("demo-real").join("work");
    let key = chain.key(1).to_owned();
    let summary =
        Avouch::new(["demo", "--json", "--speed", "max", "--brokers", &kafka.bootstrap(), "--rpc", &chain.rpc()])
            .args(["--key-env", "DEMO_KEY", "--dir"])
            .args([&work])
            .env("DEMO_KEY", &key)
            .run(Duration::from_secs(180))
            .success()
            .json();
    assert_eq!((&summary["ok"], &summary["delivery"]), (&true.into(), &"exactly-once".into()), "{summary:#}");

    // What it says it wrote is there, once.
    let pipeline = std::fs::read_to_string(work.join("pipeline.toml")).unwrap();
    assert!(!pipeline.contains(&key) && !pipeline.contains(&chain.rpc()), "{pipeline}");
    let prefix = pipeline.split("avouch-demo-").nth(1).unwrap().split('.').next().unwrap();
    let count = |name: &str| kafka.read(&format!("avouch-demo-{prefix}.{name}"), Isolation::Committed).len();
    assert_eq!(count("verdicts"), summary["anchored"]["log_size"]);
    assert_eq!(count("telemetry"), summary["rows"]["simulated"]);
    let dead: u64 = summary["rows"]["dead_letters"].as_object().unwrap().values().map(|n| n.as_u64().unwrap()).sum();
    assert_eq!(count("dead") as u64, dead);
}
