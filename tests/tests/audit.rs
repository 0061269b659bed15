//! The auditor's tools against a real chain: an honest log passes them all, and each attack on one is refused or named by the
//! tool that is for it.
#![allow(clippy::unwrap_used)]

mod pumps;

use std::path::Path;
use std::time::Duration;

use avouch_engine::verdict::{LogOrigin, score_e6};
use avouch_system_tests::{Anvil, Avouch, eventually, place, skip};
use pumps::audited::{LIMIT, Pumps, copy, end, world};
use serde_json::Value;

fn replay(dir: &Path, secret: Option<&Path>) -> (bool, Value) {
    let call = Avouch::new(["replay", "--json"]).args([dir]);
    let call = match secret {
        Some(secret) => call.args(["--secret"]).args([secret]),
        None => call,
    };
    let outcome = call.run(LIMIT);
    (outcome.code == Some(0), serde_json::from_str(&outcome.stdout).unwrap())
}

#[test]
fn an_honest_log_passes_the_audit_and_is_made_again_to_the_byte() {
    let Some(world) = world() else { return };
    let page = world.pumps.directory.join("audit.html");
    let report = world.audit(&world.export).args(["--html"]).args([&page]).run(LIMIT).success().json();
    for check in report["checks"].as_array().unwrap() {
        // The readings are half an hour old when they are read.
        let expected = if check["name"] == "delays" { "attention" } else { "passed" };
        assert_eq!(check["grade"], expected, "{check}");
    }
    let median = report["delays"]["median_ms"].as_i64().unwrap();
    assert!((1_200_000..1_900_000).contains(&median), "{median}");
    assert_eq!(report["anchored"], report["records"]);
    assert_eq!(report["devices"], 20);
    assert_eq!(report["labels"][0]["opinion"], "false-alarm");
    assert_eq!(report["models"][0]["registered"], true);
    assert!(std::fs::read_to_string(page).unwrap().contains("Nothing contradicts the log;"));

    let secret = world.pumps.directory.join("secret");
    std::fs::write(&secret, "a secret of the tests, and of nothing else\n").unwrap();
    let (same, replayed) = replay(&world.export, Some(&secret));
    assert!(same, "{replayed}");
    assert_eq!((&replayed["agreed"], &replayed["with_secret"]), (&report["records"], &Value::Bool(true)));
    assert_eq!((&replayed["readings"], &replayed["events"]), (&6_000.into(), &1.into()), "the label is an event");
    let (same, without) = replay(&world.export, None);
    assert!(same && without["agreed"] == replayed["agreed"], "{without}");
    // Under another secret every pseudonym would be another one.
    std::fs::write(&secret, "another").unwrap();
    let other = Avouch::new(["replay"]).args([&world.export]).args(["--secret"]).args([&secret]).run(LIMIT);
    assert!(other.code != Some(0) && other.stderr.contains("not the secret of the log"), "{}", other.stderr);
}

#[test]
fn a_rewritten_verdict_is_found_by_audit_and_by_replay() {
    let Some(world) = world() else { return };
    let dir = world.altered("rewritten", |records| {
        let r = &mut records[700];
        r.evidence.score += 1.0;
        r.verdict.score_e6 = score_e6(r.evidence.score);
        r.verdict.evidence_hash = r.evidence.hash();
    });
    assert_eq!(world.failed(&dir), ["roots", "anchors"]);
    let (same, replayed) = replay(&dir, None);
    assert!(!same);
    assert_eq!((&replayed["agreed"], &replayed["difference"]["index"]), (&700.into(), &700.into()));
    assert_eq!(replayed["difference"]["field"], "evidence.score");
}

#[test]
fn a_dropped_verdict_is_found_by_audit_and_by_replay() {
    let Some(world) = world() else { return };
    let dir = world.altered("dropped", |records| drop(records.remove(300)));
    let failed = world.failed(&dir);
    assert!(["roots", "anchors", "sequence"].iter().all(|name| failed.iter().any(|f| f == name)), "{failed:?}");
    let (same, replayed) = replay(&dir, None);
    assert!(!same && replayed["difference"]["index"] == 300, "{replayed}");
}

#[test]
fn a_reordered_log_is_found_by_audit() {
    let Some(world) = world() else { return };
    let dir = world.altered("reordered", |records| records.swap(500, 501));
    assert_eq!(world.failed(&dir)[..2], ["roots", "anchors"]);
}

#[test]
fn withheld_verdicts_are_found_by_audit() {
    let Some(world) = world() else { return };
    let dir = world.altered("withheld", |records| records.truncate(800));
    let failed = world.failed(&dir);
    assert!(failed.contains(&"anchors".to_owned()), "{failed:?}");
}

#[test]
fn a_swapped_model_is_found_by_audit() {
    let Some(world) = world() else { return };
    let dir = world.altered("swapped", |_| {});
    let model = std::fs::read_dir(dir.join("models")).unwrap().next().unwrap().unwrap().path();
    std::fs::copy(pumps::seasoned_model(), model).unwrap();
    assert_eq!(world.failed(&dir), ["files"], "the one that decided is in the registry, and was not handed over");
    let outcome = Avouch::new(["replay"]).args([&dir]).run(LIMIT);
    assert!(outcome.stderr.contains("is not in the export"), "{}", outcome.stderr);
}

#[test]
fn a_window_that_is_dated_before_its_model_was_active_is_found_by_audit() {
    let Some(world) = world() else { return };
    // An operator who runs on readings of long ago, with a model that was activated today.
    let pumps = Pumps::new("backdated").anchored(&world.anvil, &world.contract);
    let mut pumps = pumps;
    // A log of another owner: the account of another key.
    pumps.chain[2].1 = world.anvil.key(4).to_owned();
    pumps.read("0.ndjson", pumps::START, 0..60);
    let process = pumps.start();
    pumps.reached(1_200);
    end(process);
    let export = pumps.export("export");
    let owner = world.anvil.cast(&["wallet", "address", "--private-key", world.anvil.key(4)]).unwrap();
    let rpc = world.anvil.rpc();
    let chain = ["--rpc", &rpc, "--contract", &world.contract, "--owner", owner.trim(), "--latest", "--json"];
    let models = ["--registry", &world.registry, "--registry-owner", &world.owner];
    let outcome = Avouch::new(["audit"]).args([&export]).args(chain).args(models).run(LIMIT);
    let report: Value = serde_json::from_str(&outcome.stdout).unwrap();
    let failed: Vec<&Value> = report["checks"].as_array().unwrap().iter().filter(|c| c["grade"] == "failed").collect();
    assert_eq!((failed.len(), &failed[0]["name"]), (1, &"models".into()), "{report}");
    assert!(failed[0]["findings"][0]["what"].as_str().unwrap().contains("was not active at the end of its window"));
}

#[test]
fn a_log_for_another_contract_or_owner_is_refused_by_audit() {
    let Some(world) = world() else { return };
    let other = pumps::deploy(&world.anvil);
    let rpc = world.anvil.rpc();
    let at = |contract: &str, owner: &str| {
        let chain = ["--rpc", &rpc, "--contract", contract, "--owner", owner, "--latest", "--json"];
        let outcome = Avouch::new(["audit"]).args([&world.export]).args(chain).run(LIMIT);
        assert!(outcome.code != Some(0));
        let report: Value = serde_json::from_str(&outcome.stdout).unwrap();
        let named = report["checks"].as_array().unwrap().iter().filter(|c| c["grade"] == "failed");
        named.map(|c| c["name"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(at(&other, &world.owner), ["signatures", "anchors"]);
    assert_eq!(at(&world.contract, "0x00000000000000000000000000000000000000aa"), ["signatures", "anchors"]);
}

#[test]
fn of_several_endpoints_all_must_say_the_same() {
    let Some(world) = world() else { return };
    // A chain of the same id with the same contract at the same address, on which nothing was anchored: an endpoint that lies.
    let other = match Anvil::start() {
        Ok(other) => other,
        Err(missing) => return skip(&missing.to_string()),
    };
    assert_eq!(pumps::deploy(&other), world.contract);
    let (one, another) = (world.anvil.rpc(), other.rpc());
    let chain = ["--contract", &world.contract, "--owner", &world.owner, "--json"];
    let ask = |rpc: [&str; 4]| Avouch::new(["audit"]).args([&world.export]).args(rpc).args(chain).run(LIMIT);
    let agreed = ask(["--rpc", &one, "--rpc", &one]);
    assert_eq!(agreed.code, Some(0), "{}", agreed.stdout);
    let outcome = ask(["--rpc", &one, "--rpc", &another]);
    let said = format!("{}{}", outcome.stdout, outcome.stderr);
    assert_eq!(outcome.code, Some(1), "{said}");
    assert!(said.contains("the chain could not be asked") && said.contains(&one) && said.contains(&another), "{said}");
}

#[test]
fn a_forked_log_is_refused_by_the_witness_and_named_by_the_monitor() {
    let pumps = Pumps::new("forked");
    pumps.read("0.ndjson", pumps::START, 0..60);
    let process = pumps.start();
    pumps.reached(1_200);
    end(process);
    // The same key, the same name, the same beginning; then each auditor is shown another end.
    let mut other = Pumps::new("forked-other");
    copy(&pumps.directory, &other.directory);
    other.http = format!("127.0.0.1:{}", place::free_port());
    pumps.read("1.ndjson", pumps::START, 60..120);
    other.read("1.ndjson", pumps::START, 61..121);
    for pumps in [&pumps, &other] {
        let process = pumps.start();
        pumps.reached(2_400);
        end(process);
    }
    let key = pumps.key();
    assert_eq!(key, other.key());
    let [here, there] = [&pumps, &other].map(|p| p.lane().join("public").display().to_string());

    // A witness that has signed the one does not sign the other.
    let state = pumps.directory.join("witness");
    let listen = format!("127.0.0.1:{}", place::free_port());
    let serve = ["witness", "serve", "--name", "witness.test/w1", "--listen", &listen, "--log", &key, "--state"];
    let witness = || Avouch::new(serve).args([&state]).start(&pumps.directory.join("witness.log"));
    let mut process = witness();
    let witness_key = eventually("the witness names its key", LIMIT, || {
        let log = std::fs::read_to_string(pumps.directory.join("witness.log")).ok()?;
        log.lines().find_map(|l| l.strip_prefix("key ")).map(str::to_owned)
    });
    let url = format!("http://{listen}");
    let submit = |place: &str| {
        let to = ["witness", "submit", place, "--key", &key, "--witness", &url, "--witness-key", &witness_key];
        Avouch::new(to).run(LIMIT)
    };
    let note = submit(&here).success().stdout;
    assert!(note.contains("witness.test/w1"), "{note}");
    let file = pumps.directory.join("cosigned");
    std::fs::write(&file, &note).unwrap();
    let checked = Avouch::new(["witness", "check", "--json", "--witness-key", &witness_key]).args([&file]);
    assert_eq!(checked.run(LIMIT).success().json()["size"], pumps::left::committed(&pumps.lane()).unwrap().log_size);
    assert!((submit(&here).code == Some(0)), "it may be asked again");
    let refused = submit(&there);
    assert!(refused.code != Some(0) && refused.stderr.contains("the witness refused"), "{}", refused.stderr);
    // Nor after it was killed.
    process.kill();
    let process = witness();
    eventually("it listens again", LIMIT, || (submit(&here).code == Some(0)).then_some(()));
    assert!(submit(&there).code != Some(0));
    drop(process);

    // A monitor that has seen the one names the fork when it is shown the other, and keeps saying it.
    let memory = pumps.directory.join("monitor.json");
    let monitor = |place: &str| {
        Avouch::new(["monitor", place, "--key", &key, "--once", "--json", "--state"]).args([&memory]).run(LIMIT)
    };
    assert!((monitor(&here).code == Some(0)));
    let shown = monitor(&there);
    assert!(shown.code != Some(0) && shown.stdout.contains("\"fork\""), "{}", shown.stdout);
    assert!(monitor(&here).code != Some(0), "a fork that was seen stays");
    // A key that is not the log's is no proof of a fork, but none of the log either.
    let wrong = key.replace("avouch/pumps/0", "avouch/pumps/1");
    assert!(Avouch::new(["monitor", &here, "--key", &wrong, "--once"]).run(LIMIT).code != Some(0));
}

#[test]
fn a_log_that_was_anchored_otherwise_is_named_by_the_monitor() {
    let Some(world) = world() else { return };
    // The operator publishes another log under the name and key of the one that is anchored.
    let pumps = Pumps::new("otherwise");
    std::fs::create_dir_all(pumps.directory.join("state/pumps")).unwrap();
    let [from, to] = [&world.pumps, &pumps].map(|p| p.directory.join("state/pumps/note-key-0"));
    std::fs::copy(from, to).unwrap();
    pumps.read("0.ndjson", pumps::START, 0..320);
    let process = pumps.start();
    pumps.reached(6_400);
    end(process);
    let place = pumps.lane().join("public").display().to_string();
    let (key, rpc) = (world.pumps.key(), world.anvil.rpc());
    let watched = ["monitor", &place, "--key", &key, "--once", "--json", "--rpc", &rpc];
    let outcome = Avouch::new(watched).args(["--contract", &world.contract, "--owner", &world.owner]).run(LIMIT);
    assert!(outcome.code != Some(0));
    assert!(outcome.stdout.contains("the contract has the root"), "{}", outcome.stdout);
}

#[test]
fn delivered_verdicts_that_are_not_in_the_log_are_named_by_the_monitor() {
    let Some(world) = world() else { return };
    let reader = avouch_connectors::store::LaneReader::open_read_only(&world.pumps.lane()).unwrap();
    let log = reader.committed().origin.clone();
    let lines: Vec<Value> =
        reader.kept(0, 200).unwrap().iter().map(|r| avouch::runtime::verdict_json(&log, r)).collect();
    let file = world.pumps.directory.join("delivered.ndjson");
    let (key, rpc) = (world.pumps.key(), world.anvil.rpc());
    let place = world.pumps.lane().join("public").display().to_string();
    let look = |lines: &[Value]| {
        let text: String = lines.iter().map(|l| format!("{l}\n")).collect();
        std::fs::write(&file, text).unwrap();
        let chain = ["--rpc", &rpc, "--contract", &world.contract, "--owner", &world.owner];
        let models = ["--registry", &world.registry, "--registry-owner", &world.owner, "--verdicts"];
        Avouch::new(["monitor", &place, "--key", &key, "--once", "--json"])
            .args(chain)
            .args(models)
            .args([&file])
            .run(LIMIT)
    };
    let honest = look(&lines);
    assert!(honest.code == Some(0), "{}{}", honest.stdout, honest.stderr);
    let alarm = |lines: &[Value], kind: &str| {
        let outcome = look(lines);
        assert!(outcome.code != Some(0) && outcome.stdout.contains(&format!("\"{kind}\"")), "{}", outcome.stdout);
    };
    let mut rewritten = lines.clone();
    rewritten[50]["entry"] = format!("0x{}", "11".repeat(32)).into();
    alarm(&rewritten, "verdict");
    let mut missing = lines.clone();
    missing.remove(100);
    alarm(&missing, "sequence");
    // A line that is none is named, and does not end the watch of the others.
    let mut garbage = lines.clone();
    garbage.insert(10, serde_json::json!({ "log": log, "index": "x" }));
    alarm(&garbage, "verdict");
    let mut swapped = lines.clone();
    swapped[70]["model_hash"] = "22".repeat(32).into();
    alarm(&swapped, "model");
}

#[test]
fn a_checkpoint_that_is_late_is_named_by_the_monitor() {
    let Some(world) = world() else { return };
    // Published, and of a log that nobody anchors.
    let pumps = Pumps::new("late");
    pumps.read("0.ndjson", pumps::START, 0..60);
    let process = pumps.start();
    pumps.reached(1_200);
    end(process);
    // It is registered, so that the contract knows it.
    let pumps = Pumps { chain: Vec::new(), ..pumps }.anchored(&world.anvil, &world.contract);
    let frozen = Pumps { http: format!("127.0.0.1:{}", place::free_port()), ..pumps };
    let place = frozen.lane().join("public").display().to_string();
    let (key, rpc) = (frozen.key(), world.anvil.rpc());
    let owner = world.anvil.cast(&["wallet", "address", "--private-key", world.anvil.key(5)]).unwrap();
    let name: String = LogOrigin::new("pumps", 0).log_id().iter().map(|b| format!("{b:02x}")).collect();
    let name = format!("0x{name}");
    world
        .anvil
        .cast(&[
            "send",
            &world.contract,
            "register(bytes32,address)",
            &name,
            owner.trim(),
            "--private-key",
            world.anvil.key(5),
            "--rpc-url",
            &rpc,
        ])
        .unwrap();
    let memory = frozen.directory.join("monitor.json");
    let watched = ["monitor", &place, "--key", &key, "--once", "--json", "--promise", "1s", "--rpc", &rpc];
    let look = || {
        let chain = ["--contract", &world.contract, "--owner", owner.trim(), "--state"];
        Avouch::new(watched).args(chain).args([&memory]).run(LIMIT)
    };
    let first = look();
    assert!(first.code == Some(0), "nothing is late at first sight: {}{}", first.stdout, first.stderr);
    std::thread::sleep(Duration::from_millis(1_200));
    let late = look();
    assert!(late.code != Some(0) && late.stdout.contains("\"late\""), "{}", late.stdout);
}

#[test]
fn a_part_that_is_missing_and_a_log_that_is_withheld_are_named_by_the_monitor() {
    let Some(world) = world() else { return };
    let (key, rpc) = (world.pumps.key(), world.anvil.rpc());
    let look = |place: &Path, memory: &Path| {
        let chain = ["--rpc", &rpc, "--contract", &world.contract, "--owner", &world.owner];
        Avouch::new(["monitor"])
            .args([place])
            .args(["--key", &key, "--once", "--json", "--promise", "1s"])
            .args(chain)
            .args(["--state"])
            .args([memory])
            .run(LIMIT)
    };
    // A tile is gone that the anchors' roots take.
    let gap = place::fresh_directory("gap");
    let public = gap.join("public");
    copy(&world.pumps.lane().join("public"), &public);
    assert_eq!(look(&public, &gap.join("whole.json")).code, Some(0));
    std::fs::remove_file(public.join("tile/0/001")).unwrap();
    let found = look(&public, &gap.join("memory.json"));
    assert!(found.code != Some(0) && found.stdout.contains("\"gap\""), "{}{}", found.stdout, found.stderr);
    // What was published half-way, while the chain has more; at first sight that is no breach.
    let early = world.pumps.directory.join("published-early");
    let memory = gap.join("early.json");
    let first = look(&early, &memory);
    assert_eq!(first.code, Some(0), "{}{}", first.stdout, first.stderr);
    std::thread::sleep(Duration::from_millis(1_200));
    let withheld = look(&early, &memory);
    assert!(withheld.code != Some(0) && withheld.stdout.contains("\"withheld\""), "{}", withheld.stdout);
    // And who has seen more knows it for a log that shrank.
    let shrunk = look(&early, &gap.join("whole.json"));
    assert!(shrunk.code != Some(0) && shrunk.stdout.contains("\"fork\""), "{}", shrunk.stdout);
}
