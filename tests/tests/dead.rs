//! Dead letters are found, shown, and given back once; then they are judged.
#![allow(clippy::unwrap_used)]

mod pumps;

use std::time::Duration;

use avouch_system_tests::{Isolation, KafkaBroker, require};
use pumps::{FILES, Place, START};
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(60);
const LATER: i64 = START + 600_000;

fn dead(place: &Place, what: &[&str]) -> Value {
    place.avouch("dead").args(what).args(["--json"]).run(LIMIT).success().json()
}

#[test]
fn letters_are_given_back_once_and_judged() {
    let kafka = require!(KafkaBroker::shared());
    let place = Place::on(kafka, 2);
    let readings = place.get("T_READINGS").to_owned();
    // Sent with a timestamp ten minutes behind what the device says: dead, and nothing is wrong with the reading.
    let ahead = |second: i64| {
        let ts = LATER + second * 1000;
        pumps::record(0, "pump-000", START + 59_000, pumps::reading("pump-000", ts))
    };
    let mut records = pumps::healthy(3, 60);
    records.extend((0..20).map(ahead));
    records.push(pumps::record(0, "pump-001", START + 59_000, "{\"device\":\"pump-001\",\"ts"));
    let before = records.len() as i64;
    kafka.produce(&readings, records.clone());
    let run = || place.avouch("run").args(["--until-end", "--json"]).run(LIMIT).success().json();
    let first = run();
    assert_eq!(first["dead_letters"]["future"], 20);
    assert_eq!(first["dead_letters"]["undecodable"], 1);

    let listed = dead(&place, &["list"]);
    assert_eq!((&listed["count"], &listed["reasons"]["future"]), (&21.into(), &20.into()));
    assert_eq!(dead(&place, &["list", "--device", "pump-001"])["count"], 1);
    assert_eq!(dead(&place, &["list", "--since", "2027-01-01T00:00:00Z"])["count"], 0);
    let last = format!("0/{}", before - 1);
    let shown = dead(&place, &["show", &last]);
    assert_eq!(shown["value"], "{\"device\":\"pump-001\",\"ts");
    assert_eq!(
        (&shown["topic"], &shown["partition"], &shown["offset"]),
        (&readings.clone().into(), &0.into(), &(before - 1).into())
    );
    let none = place.avouch("dead").args(["show", "0/0"]).run(LIMIT);
    assert!(none.code != Some(0), "a reading that was used is no dead letter");

    // Nothing is written before it is meant.
    let ends = kafka.ends(&readings);
    assert_eq!(dead(&place, &["requeue", "--reason", "future", "--dry-run"])["meant"], 20);
    let unasked = place.avouch("dead").args(["requeue", "--reason", "future"]).run(LIMIT);
    assert!(unasked.code != Some(0), "nobody is there to say yes");
    assert_eq!(kafka.ends(&readings), ends);

    let given = dead(&place, &["requeue", "--reason", "future", "--yes"]);
    assert_eq!((&given["requeued"], &given["given_before"]), (&20.into(), &0.into()));
    let after = kafka.read(&readings, Isolation::Committed);
    assert_eq!(after.len() as i64, before + 20);
    for (copy, letter) in after.iter().filter(|r| r.header("avouch.requeued-from").is_some()).zip(&records[180..200]) {
        assert_eq!((&copy.key, &copy.value, copy.partition), (&letter.key, &letter.value, Some(0)));
    }
    let from = after.iter().find_map(|r| r.header("avouch.requeued-from")).unwrap();
    assert_eq!(from, format!("{readings}/0/180"));

    // Again: none, also where it is not known here any more that they were written.
    let ends = kafka.ends(&readings);
    let state = std::path::Path::new(place.get("T_STATE")).join("pumps");
    std::fs::remove_file(state.join("requeued.done")).unwrap();
    let again = dead(&place, &["requeue", "--reason", "future", "--yes"]);
    assert_eq!((&again["requeued"], &again["given_before"]), (&0.into(), &20.into()));
    assert_eq!(kafka.ends(&readings), ends);

    // They are judged.
    let close = LATER + 300_000;
    kafka.produce(&readings, [pumps::record(0, "pump-001", close, pumps::reading("pump-001", close))]);
    let second = run();
    assert_eq!(second["dead_letters"]["future"], 20, "none died again");
    assert_eq!(second["rows_used"].as_u64().unwrap(), first["rows_used"].as_u64().unwrap() + 21);
    let verdicts = kafka.read(place.get("T_VERDICTS"), Isolation::Committed);
    let verdicts: Vec<Value> = verdicts.iter().map(|v| serde_json::from_str(&v.text()).unwrap()).collect();
    let judged = |v: &&Value| v["device"] == "pump-000" && v["window_end"].to_string().contains("08:10:10");
    assert_eq!(verdicts.iter().find(judged).map(|v| &v["rows"]), Some(&10.into()), "{verdicts:?}");

    // Without an archive, SQL asks the log.
    let sql = "SELECT count(*) AS n FROM verdicts WHERE device = 'pump-000' AND day = '2026-01-06'";
    let asked = place.avouch("query").args([sql, "--format", "json"]).run(LIMIT).success().json();
    assert_eq!(asked["n"], verdicts.iter().filter(|v| v["device"] == "pump-000").count());

    // Another state directory's record would give them back a second time.
    for file in ["requeued.jsonl", "requeued.done"] {
        std::fs::remove_file(state.join(file)).unwrap();
    }
    let other = place.avouch("dead").args(["requeue", "--reason", "future", "--yes"]).run(LIMIT);
    assert!(other.code != Some(0));
    assert!(other.stderr.contains("would be given back twice"), "{}", other.stderr);
    assert_eq!(kafka.read(&readings, Isolation::Committed).len() as i64, before + 21);
}

#[test]
fn letters_of_files_become_a_file() {
    let directory = avouch_system_tests::place::fresh_directory("dead-files");
    std::fs::create_dir(directory.join("data")).unwrap();
    let good = pumps::reading("pump-000", START);
    let bad = good.replace("1440", "\"fast\"");
    std::fs::write(directory.join("data/a.ndjson"), format!("{good}\n{bad}\n")).unwrap();
    let call = |command: &str| pumps::avouch_without_kafka(command, &directory, FILES, "state");
    call("run").run(LIMIT).success();
    let requeue = || call("dead").args(["requeue", "--yes", "--json"]).run(LIMIT).success().json();
    let given = requeue();
    assert_eq!(given["requeued"], 1);
    let written = std::fs::read_to_string(given["to"].as_str().unwrap()).unwrap();
    assert_eq!(written, format!("{bad}\n"));
    assert_eq!((&requeue()["requeued"], &requeue()["given_before"]), (&0.into(), &1.into()));
}
