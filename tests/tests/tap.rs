//! Looking on at a running pipeline: `avouch tap` and `avouch top` show what is so, and hold nothing up.
#![allow(clippy::unwrap_used)]

mod pumps;

use std::time::{Duration, Instant};

use avouch_system_tests::{Avouch, Isolation, KafkaBroker, Process, eventually, place, require};
use pumps::Place;
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(90);
const DEVICES: u32 = 3;
const SECONDS: i64 = 240;

/// A running pipeline that may be looked on at.
fn running(place: &mut Place) -> (Process, String) {
    place.rewrite("[http]\n", "[http]\ntap = true\n");
    let http = format!("127.0.0.1:{}", place::free_port());
    place.set("T_HTTP", &http);
    let mut process = place.avouch("run").start(&place.directory.join("avouch.log"));
    eventually("it is ready", LIMIT, || {
        assert!(process.ended().is_none(), "{}", process.log_tail());
        (pumps::readyz(&http)? == "ready\n").then_some(())
    });
    (process, http)
}

/// A tap, once it taps.
fn tap(place: &Place, log: &str, arguments: &[&str]) -> Process {
    let mut tap = place.avouch("tap").args(arguments).start(&place.directory.join(log));
    eventually("it taps", LIMIT, || {
        assert!(tap.ended().is_none(), "{}", tap.log_tail());
        tap.log().contains("tapping").then_some(())
    });
    tap
}

/// The rows that a tap has printed as JSON.
fn rows(tap: &Process) -> Vec<Value> {
    tap.log().lines().filter_map(|l| serde_json::from_str(l).ok()).collect()
}

#[test]
fn tap_and_top_show_what_is_so() {
    let kafka = require!(KafkaBroker::shared());
    let mut place = Place::on(kafka, 1);
    let (mut process, http) = running(&mut place);

    let json = ["--format", "json"];
    let mut readings = tap(&place, "readings.log", &[&["readings", "--limit", "100"][..], &json].concat());
    let one = ["features", "--where", "device = 'pump-001' AND readings >= 10", "--limit", "5"];
    let mut features = tap(&place, "features.log", &[&one[..], &json].concat());
    let mut verdicts = tap(&place, "verdicts.log", &[&["anomaly", "--limit", "20"][..], &json].concat());
    let mut shown = tap(&place, "shown.log", &["anomaly", "--format", "table", "--limit", "3"]);
    let records = pumps::healthy(DEVICES, SECONDS);
    kafka.produce(place.get("T_READINGS"), records.iter().cloned());

    for tap in [&mut readings, &mut features, &mut verdicts, &mut shown] {
        assert!(tap.wait(LIMIT).success(), "{}", tap.log_tail());
    }
    let seen = rows(&readings);
    assert_eq!(seen.len(), 100);
    for (offset, row) in seen.iter().enumerate() {
        let sent: Value = serde_json::from_str(&records[offset].text()).unwrap();
        assert_eq!((&row["lane"], &row["offset"]), (&0.into(), &offset.into()));
        assert_eq!(row["device"], sent["device"]);
        // `40` is 40.0 of a field of doubles.
        for name in ["temperature", "vibration", "pressure", "rpm"] {
            assert_eq!(row[name].as_f64(), sent[name].as_f64(), "{name} of {row}");
        }
    }
    let seen = rows(&features);
    assert_eq!(seen.len(), 5);
    for row in &seen {
        assert_eq!((&row["device"], &row["readings"]), (&"pump-001".into(), &10.into()), "{row}");
        assert!((row["press_mean"].as_f64().unwrap() - 4.2).abs() < 1e-9, "{row}");
        assert!(row["window_end"].as_str().unwrap() > row["window_start"].as_str().unwrap(), "{row}");
    }
    // Ahead of the checkpoint, and the same as in the log.
    let delivered = eventually("all verdicts are delivered", LIMIT, || {
        let all = pumps::metric(&http, "avouch_lane_next_offset")? == records.len() as f64;
        let log = pumps::metric(&http, "avouch_log_size_entries")?;
        let judged = pumps::metric(&http, "avouch_lane_verdicts_total")?;
        let waiting = pumps::metric(&http, "avouch_sink_lag_entries")?;
        (all && log == judged && waiting == 0.0).then(|| kafka.read(place.get("T_VERDICTS"), Isolation::Committed))
    });
    let delivered: Vec<Value> = delivered.iter().map(|r| serde_json::from_str(&r.text()).unwrap()).collect();
    assert_eq!(rows(&verdicts), delivered[..20]);
    let table = shown.log();
    let lines: Vec<&str> = table.lines().collect();
    assert!(lines.iter().any(|l| l.starts_with("device") && l.contains("severity")), "{table}");
    assert!(lines.iter().filter(|l| l.starts_with("pump-")).count() == 3, "{table}");

    let top = place.avouch("top").args(["--once"]).run(LIMIT).success();
    println!("{}", top.stdout);
    let lines: Vec<Vec<&str>> = top.stdout.lines().map(|l| l.split_whitespace().collect()).collect();
    assert_eq!(lines.len(), 3, "a heading, one lane, all lanes");
    // Of the headings only `TO SINKS` has two words.
    assert!(top.stdout.lines().next().unwrap().contains("TO SINKS"), "{}", top.stdout);
    let cell = |name: &str, at: usize| {
        let i = lines[0].iter().position(|h| *h == name).unwrap();
        lines[1][if i > at { i - 1 } else { i }].replace(',', "")
    };
    let sinks = lines[0].iter().position(|h| *h == "TO").unwrap();
    let cell = |name: &str| cell(name, sinks);
    let by_severity = |severity: &str| delivered.iter().filter(|v| v["severity"] == severity).count().to_string();
    assert_eq!(cell("LANE"), "0");
    assert_eq!(cell("LAG"), "0");
    assert_eq!((cell("LATE"), cell("DEAD")), ("0".into(), "0".into()));
    assert_eq!(cell("LOG"), delivered.len().to_string());
    for (column, severity) in [("NORMAL", "normal"), ("WARNING", "warning"), ("CRITICAL", "critical")] {
        assert_eq!(cell(column), by_severity(severity), "{}", top.stdout);
    }
    assert_eq!(cell("UNANCHORED"), "-", "nothing is anchored here");
    assert_eq!(cell("TO"), "0");
    assert!(cell("DELAY").ends_with('h') || cell("DELAY").ends_with('m'), "{}", top.stdout);
    assert!(cell("CHECKPOINT").ends_with('s'), "{}", top.stdout);

    // By its URL, too.
    let url = format!("http://{http}");
    assert_eq!(Avouch::new(["top", &url, "--once"]).run(LIMIT).success().stdout.lines().count(), 3);

    // What cannot be shown.
    let said = |call: Avouch| {
        let outcome = call.run(LIMIT);
        assert_eq!(outcome.code, Some(1), "{}", outcome.stdout);
        outcome.stderr
    };
    let why = said(place.avouch("tap").args(["featurs"]));
    assert!(why.contains("there is no step `featurs` in this pipeline; did you mean `features`?"), "{why}");
    let why = said(place.avouch("tap").args(["features", "--where", "vib_rsm > 1"]));
    assert!(
        why.contains("there is no column `vib_rsm`") && why.contains("  | ^^^^^^^") && why.contains("`vib_rms`"),
        "{why}"
    );
    let why = said(Avouch::new(["top", &url]));
    assert!(why.contains("--once"), "{why}");
    let why = said(Avouch::new(["top", "127.0.0.1.toml", "--once"]));
    assert!(why.contains("cannot be read"), "{why}");

    // Once it is switched off it shows nothing, and its log goes on under the same hash.
    place.rewrite("tap = true\n", "");
    process.signal("HUP");
    eventually("it is reloaded", LIMIT, || {
        let why = said(place.avouch("tap").args(["readings", "--limit", "1"]));
        (why.contains("shows no rows") && why.contains("`tap = true` in `[http]`")).then_some(())
    });
    process.signal("TERM");
    assert!(process.wait(LIMIT).success(), "{}", process.log_tail());
    let why = said(place.avouch("tap").args(["readings"]));
    assert!(why.contains(&format!("no pipeline answers at http://{http}")) && why.contains("avouch run"), "{why}");
}

/// A reader that stands still does not make the lane wait: it misses rows, and is told so when it goes on.
#[test]
fn a_reader_that_stands_still_holds_nothing_up() {
    let kafka = require!(KafkaBroker::shared());
    let mut place = Place::on(kafka, 1);
    let (mut process, http) = running(&mut place);
    let slow = tap(&place, "slow.log", &["readings", "--format", "json"]);
    slow.signal("STOP");
    // Much more than the sockets and the tap's queue hold.
    let records = pumps::healthy(20, 12_000);
    kafka.produce(place.get("T_READINGS"), records.iter().cloned());
    let started = Instant::now();
    eventually("the lane has read all", LIMIT, || {
        assert!(process.ended().is_none(), "{}", process.log_tail());
        (pumps::metric(&http, "avouch_lane_next_offset")? == records.len() as f64).then_some(())
    });
    println!("{} rows in {:?}", records.len(), started.elapsed());
    slow.signal("CONT");
    eventually("it is told what it missed", LIMIT, || slow.log().contains("were dropped").then_some(()));
    let shown = rows(&slow).len();
    assert!(shown > 0 && shown < records.len(), "{shown} of {}", records.len());
    process.signal("TERM");
    assert!(process.wait(LIMIT).success(), "{}", process.log_tail());
}
