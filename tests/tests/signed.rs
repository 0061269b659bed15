//! Signed telemetry from end to end: a fleet on a chain, devices that are enrolled, rotated and revoked, readings that are signed,
//! forged, replayed, revoked and strange; verdicts only from the honest ones, and a dead letter with its reason for each other.
#![allow(clippy::unwrap_used)]

mod pumps;

use std::time::Duration;

use avouch_system_tests::{Anvil, Avouch, Isolation, KafkaBroker, Record, eventually, place, require};
use pumps::{Place, START};
use serde_json::{Value, json};

const LIMIT: Duration = Duration::from_secs(120);

/// Appends `identity` to the source of the pipeline.
fn sign(place: &Place, identity: &str) {
    place.rewrite("key     = \"device\"", &format!("key     = \"device\"\nidentity = {identity}"));
}

fn device(place: &Place, what: &[&str]) -> Avouch {
    let file = place.file.display().to_string();
    let call = Avouch::new(["device", what[0], file.as_str(), "--json"]).args(&what[1..]).within(&place.directory);
    ["T_KAFKA", "T_READINGS", "T_VERDICTS", "T_DEAD", "T_STATE", "T_MODEL"]
        .iter()
        .fold(call, |call, name| call.env(name, place.get(name)))
}

fn keygen(place: &Place, device: &str, kind: &str) -> String {
    let made = Avouch::new(["device", "keygen", "--json", "--device", device, "--kind", kind])
        .within(&place.directory)
        .run(LIMIT)
        .success()
        .json();
    made["file"].as_str().unwrap().to_owned()
}

/// Readings of these devices, one a second each, as a file.
fn file_of(place: &Place, name: &str, devices: &[&str], seconds: std::ops::Range<i64>) -> String {
    let path = place.directory.join(name);
    let lines = seconds.flat_map(|s| devices.iter().map(move |d| pumps::reading(d, START + s * 1000) + "\n"));
    std::fs::write(&path, lines.collect::<String>()).unwrap();
    path.display().to_string()
}

/// Sends a file's readings, signed by the devices' keys.
fn send(place: &Place, file: &str, batch: &str) {
    let pipeline = place.file.display().to_string();
    let call =
        Avouch::new(["produce", "--json", "--brokers", place.get("T_KAFKA"), "--topic", place.get("T_READINGS")])
            .args(["--files", file, "--time", "ts", "--timestamp", "event", "--sign-for", &pipeline])
            .args(["--device-keys", "device-keys", "--sign-batch", batch])
            .within(&place.directory);
    let call = ["T_KAFKA", "T_READINGS", "T_VERDICTS", "T_DEAD", "T_STATE", "T_MODEL"]
        .iter()
        .fold(call, |call, name| call.env(name, place.get(name)));
    call.run(LIMIT).success();
}

fn run(place: &Place) -> Value {
    place.avouch("run").args(["--until-end", "--json"]).run(LIMIT).success().json()
}

/// The devices that have verdicts, with the rows that were used.
fn judged(kafka: &KafkaBroker, place: &Place) -> Vec<(String, u64)> {
    let mut out = std::collections::BTreeMap::<String, u64>::new();
    for record in kafka.read(place.get("T_VERDICTS"), Isolation::Committed) {
        let verdict: Value = serde_json::from_str(&record.text()).unwrap();
        assert_eq!(verdict["references"][0]["name"], "readings.identity", "{verdict}");
        *out.entry(verdict["device"].as_str().unwrap().to_owned()).or_default() += verdict["rows"].as_u64().unwrap();
    }
    out.into_iter().collect()
}

/// What was sent of a device, in order.
fn sent_by(kafka: &KafkaBroker, place: &Place, device: &str) -> Vec<Record> {
    let all = kafka.read(place.get("T_READINGS"), Isolation::Committed);
    all.into_iter().filter(|r| r.key.as_deref() == Some(device.as_bytes())).collect()
}

fn again(record: &Record) -> Record {
    Record { offset: 0, ..record.clone() }
}

#[test]
fn only_what_enrolled_devices_have_signed_is_judged() {
    let kafka = require!(KafkaBroker::shared());
    let anvil = require!(Anvil::start());
    let (rpc, owner, enroller) = (anvil.rpc(), anvil.key(0), anvil.key(1));
    let deployed = Avouch::new(["deploy", "device-registry", "--json", "--rpc", &rpc]).env("AVOUCH_KEY", owner);
    let contract = deployed.run(LIMIT).success().json()["contract"].as_str().unwrap().to_owned();
    let deployed = Avouch::new(["deploy", "p256-verifier", "--json", "--rpc", &rpc]).env("AVOUCH_KEY", owner);
    let verifier = deployed.run(LIMIT).success().json()["contract"].as_str().unwrap().to_owned();
    let enroller_account = anvil.cast(&["wallet", "address", "--private-key", enroller]).unwrap();
    let registered = Avouch::new(["device", "register", "--json", "--rpc", &rpc, "--registry", &contract])
        .args(["--name", "pumps", "--enroller", enroller_account.trim()])
        .env("AVOUCH_KEY", owner)
        .run(LIMIT)
        .success()
        .json();
    let fleet = registered["fleet"].as_str().unwrap().to_owned();

    let place = Place::on(kafka, 1);
    let identity = |contract: &str| {
        format!(
            "{{ signature = \"header:sig\", registry = \"chain\", rpc = \"{rpc}\", chain_id = 31337, contract = \"{contract}\", \
             fleet = \"{fleet}\" }}"
        )
    };
    sign(&place, &identity(&contract));
    // Thirty seconds of a device come at once where they are signed at once.
    place.rewrite("max_disorder = \"5s\"", "max_disorder = \"40s\"");

    // Three devices are enrolled; a fourth has a key of its own making.
    for name in ["pump-000", "pump-001", "pump-002", "pump-003"] {
        let kind = match name {
            "pump-001" => "secp256k1",
            "pump-002" => "p256",
            _ => "ed25519",
        };
        let file = keygen(&place, name, kind);
        if name == "pump-003" {
            continue;
        }
        let enrol = || device(&place, &["enrol", "--key-file", &file]).env("AVOUCH_KEY", enroller);
        if kind == "p256" {
            // The registry asks a contract about such a key: one must be named, and be a verifier.
            let unnamed = enrol().run(LIMIT);
            assert!(
                unnamed.code != Some(0) && unnamed.stdout.contains("avouch deploy p256-verifier"),
                "{}",
                unnamed.stdout
            );
            let other = enrol().args(["--p256-verifier", &contract]).run(LIMIT);
            assert!(other.code != Some(0), "{}", other.stdout);
        }
        let enrolled = if kind == "p256" { enrol().args(["--p256-verifier", &verifier]) } else { enrol() };
        let said = enrolled.run(LIMIT).success().json();
        assert_eq!((&said["keys"][0]["from_seq"], &said["keys"][0]["kind"]), (&json!(0), &json!(kind)), "{said}");
    }
    // Not everybody may, and nobody twice.
    let stranger = device(&place, &["enrol", "--key-file", "device-keys/pump-003.json"]).env("AVOUCH_KEY", owner);
    let refused = stranger.run(LIMIT);
    assert!(refused.code != Some(0) && refused.stdout.contains("is not the fleet's enroller"), "{}", refused.stdout);
    let twice = device(&place, &["enrol", "--key-file", "device-keys/pump-000.json"]).env("AVOUCH_KEY", enroller);
    assert!(twice.run(LIMIT).stdout.contains("was enrolled before"));
    assert_eq!(device(&place, &["status", "--device", "pump-003"]).run(LIMIT).code, Some(1));
    assert_eq!(device(&place, &["list"]).run(LIMIT).success().json()["devices"].as_array().unwrap().len(), 3);

    // Nothing is final yet: the check says so, and a run knows no device.
    let check = || place.avouch("check").args(["--connect"]).run(LIMIT);
    let told = check();
    assert!(told.stdout.contains("no-devices") || told.stderr.contains("no-devices"), "{}{}", told.stdout, told.stderr);
    let finalize = || anvil.call("anvil_mine", &json!(["0x46"]));
    finalize();
    let told = check();
    assert!(told.stdout.contains("3 enrolled devices"), "{}{}", told.stdout, told.stderr);

    // Honest readings: two minutes, the second signed thirty at a time.
    let all = ["pump-000", "pump-001", "pump-002", "pump-003"];
    send(&place, &file_of(&place, "first.ndjson", &all, 0..60), "1");
    send(&place, &file_of(&place, "second.ndjson", &all, 60..120), "30");
    // What an attacker does who can write to the topic.
    let of = |name: &str| sent_by(kafka, &place, name);
    let (a, b) = (of("pump-000"), of("pump-001"));
    assert_eq!((a.len(), b.len()), (120, 120));
    let at = START + 120_000;
    let mut forged = again(&a[119]);
    forged.value = Some(pumps::reading("pump-000", at).into_bytes());
    let mut borrowed = again(&b[119]);
    borrowed.value = Some(pumps::reading("pump-000", at).into_bytes());
    borrowed.key = Some(b"pump-000".to_vec());
    let unsigned = pumps::record(0, "pump-002", at, pumps::reading("pump-002", at));
    let replayed = again(&a[60]);
    kafka.produce(place.get("T_READINGS"), [forged, borrowed, unsigned, replayed]);
    let first = run(&place);
    let dead = &first["dead_letters"];
    assert_eq!(
        (&dead["unknown_device"], &dead["forged"], &dead["unsigned"], &dead["replayed"]),
        (&json!(120), &json!(2), &json!(1), &json!(1)),
        "{first}"
    );
    assert_eq!(first["rows_used"], 360);
    assert_eq!(first["rows_in"], 484);

    // A key is taken back from the 130th reading on, another is replaced from the 150th on.
    let revoked = device(&place, &["revoke", "--device", "pump-001", "--from-seq", "130", "--reason", "stolen"]);
    revoked.env("AVOUCH_KEY", enroller).run(LIMIT).success();
    std::fs::rename(place.directory.join("device-keys/pump-002.json"), place.directory.join("old.json")).unwrap();
    let new = keygen(&place, "pump-002", "ed25519");
    let rotated = device(&place, &["rotate", "--key-file", &new, "--from-seq", "150"]).env("AVOUCH_KEY", enroller);
    assert_eq!(rotated.run(LIMIT).success().json()["keys"][0]["until_seq"], 150);
    finalize();
    send(&place, &file_of(&place, "third.ndjson", &all[..3], 120..180), "1");
    let second = run(&place);
    let dead = &second["dead_letters"];
    // 120 to 129 were signed before the key was taken back.
    assert_eq!(
        (&dead["revoked"], &dead["forged"], &dead["unknown_device"]),
        (&json!(50), &json!(2), &json!(120)),
        "{second}"
    );
    assert_eq!(second["rows_used"], 360 + 60 + 10 + 60);
    // The counter outlives the process: what was accepted before the restart is not accepted again.
    kafka.produce(place.get("T_READINGS"), [again(&a[119])]);
    assert_eq!(run(&place)["dead_letters"]["replayed"], 2);

    // Verdicts are of honest readings alone.
    let devices: Vec<String> = judged(kafka, &place).into_iter().map(|(name, _)| name).collect();
    assert_eq!(devices, all[..3]);
    // The dead letters say why, and keep the signature for whoever wants to look at it.
    let letters = kafka.read(place.get("T_DEAD"), Isolation::Committed);
    let reasons = |reason: &str| letters.iter().filter(|l| l.header("reason").as_deref() == Some(reason)).count();
    assert_eq!(["unknown_device", "forged", "unsigned", "replayed", "revoked"].map(reasons), [120, 2, 1, 2, 50]);
    assert!(
        letters.iter().all(|l| (l.header("reason").as_deref() == Some("unsigned")) == l.header("signature").is_none())
    );
    let detail =
        letters.iter().find(|l| l.header("reason").as_deref() == Some("revoked")).unwrap().header("detail").unwrap();
    assert_eq!(detail, "reading 130: no key speaks for the device's readings from 130 on");

    // Handed over with keys and signatures, the same comes of it elsewhere, where there is no chain.
    let out = place.directory.join("export");
    let exported = place.avouch("export").args(["--readings", "--json", "--out"]).args([&out]).run(LIMIT);
    let exported = exported.success().json();
    assert_eq!((&exported["readings"], &exported["events"]), (&json!(665), &json!(2)), "the keys were two versions");
    // The registry has pseudonyms of devices, so the secret belongs to it.
    let without = Avouch::new(["replay"]).args([&out]).run(LIMIT);
    assert!(without.code != Some(0) && without.stderr.contains("give it with --secret"), "{}", without.stderr);
    let secret = place.directory.join("the-secret");
    std::fs::write(&secret, "a secret of the tests, and of nothing else").unwrap();
    let replayed = Avouch::new(["replay", "--json"]).args([&out]).args(["--secret"]).args([&secret]);
    let replayed = replayed.run(LIMIT).success().json();
    assert_eq!((&replayed["same"], &replayed["agreed"]), (&json!(true), &exported["size"]), "{replayed}");
    assert_eq!(replayed["dead"], 175, "as many were refused");

    // A restart needs no chain: what was final is kept. And a lane whose state is lost makes the same again from what was kept.
    anvil.freeze();
    assert_eq!(run(&place)["rows_used"], 490);
    anvil.thaw();
}

#[test]
fn keys_in_a_file_are_followed_while_the_pipeline_runs() {
    let kafka = require!(KafkaBroker::shared());
    let mut place = Place::on(kafka, 1);
    place.rewrite("device = \"utf8!\",", "device = \"utf8!\", sig = \"utf8\",");
    sign(&place, "{ signature = \"field:sig\", registry = { file = \"devices.json\" } }");
    let address = format!("127.0.0.1:{}", place::free_port());
    place.set("T_HTTP", &address);
    // Without the file it says what to do.
    let missing = place.avouch("check").run(LIMIT);
    assert!(missing.code != Some(0));
    for name in ["pump-000", "pump-001"] {
        keygen(&place, name, "p256");
    }
    let unnamed = device(&place, &["enrol", "--key-file", "device-keys/pump-000.json"]).run(LIMIT);
    assert!(unnamed.stdout.contains("name the fleet it is for with --fleet"), "{}", unnamed.stdout);
    let enrol = |name: &str| {
        let file = format!("device-keys/{name}.json");
        device(&place, &["enrol", "--fleet", "works", "--key-file", &file]).run(LIMIT).success();
    };
    enrol("pump-000");
    let metrics = || -> String {
        let agent: ureq::Agent = ureq::Agent::new_with_defaults();
        let answer = agent.get(format!("http://{address}/metrics")).call();
        answer.ok().and_then(|mut a| a.body_mut().read_to_string().ok()).unwrap_or_default()
    };
    let count = |what: &str| -> Option<u64> {
        let text = metrics();
        let line = text.lines().find(|l| l.starts_with(what))?;
        line.rsplit(' ').next()?.parse().ok()
    };
    let running = place.avouch("run").start(&place.directory.join("log"));
    send(&place, &file_of(&place, "first.ndjson", &["pump-000", "pump-001"], 0..30), "1");
    eventually("the stranger's readings are dead", LIMIT, || {
        (count("avouch_lane_dead_letters_total{lane=\"0\",reason=\"unknown_device\"}") == Some(30)).then_some(())
    });
    enrol("pump-001");
    eventually("the second device is known", LIMIT, || {
        (count("avouch_reference_rows{reference=\"readings.identity\"}") == Some(2)).then_some(())
    });
    send(&place, &file_of(&place, "second.ndjson", &["pump-000", "pump-001"], 30..60), "10");
    eventually("both devices' readings are used", LIMIT, || {
        (count("avouch_lane_rows_used_total{lane=\"0\"}") == Some(90)).then_some(())
    });
    assert_eq!(count("avouch_reference_changes_total{reference=\"readings.identity\"}"), Some(1));
    // A file that cannot be used leaves the keys as they are.
    std::fs::write(place.directory.join("devices.json"), "{").unwrap();
    eventually("the damaged file is told of", LIMIT, || {
        (count("avouch_reference_errors_total{reference=\"readings.identity\"}") >= Some(1)).then_some(())
    });
    send_unsigned_fields(&place, kafka);
    eventually("what is not signed is dead", LIMIT, || {
        (count("avouch_lane_dead_letters_total{lane=\"0\",reason=\"unsigned\"}") == Some(1)).then_some(())
    });
    drop(running);
}

fn send_unsigned_fields(place: &Place, kafka: &KafkaBroker) {
    let at = START + 61_000;
    kafka.produce(place.get("T_READINGS"), [pumps::record(0, "pump-000", at, pumps::reading("pump-000", at))]);
}
