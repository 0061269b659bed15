//! Early results over real Kafka: they go to who asks for them, and leave no trace in verdicts, dead letters and log.
#![allow(clippy::unwrap_used)]

mod pumps;

use std::collections::BTreeSet;
use std::time::Duration;

use avouch_system_tests::{Endpoint, Isolation, KafkaBroker, Record, eventually, place, require};
use pumps::{Place, START, record};
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(90);
const DEVICES: usize = 3;
const SECONDS: i64 = 240;
const WINDOW: &str = r#"window = { kind = "sliding", size = "10s", every = "5s" }"#;
const LONGER: &str = r#"window = { kind = "sliding", size = "40s", every = "20s" }"#;
const EARLY: &str = r#"window = { kind = "sliding", size = "40s", every = "20s", early = "5s" }"#;

const SINKS: &str = r#"
[sinks.hook]
from     = "anomaly"
kind     = "webhook"
url      = "${env:T_HOOK}/verdicts"
secret   = "a secret of the hook"
early    = true
delivery = "at-least-once"

[sinks.lines]
from     = "anomaly"
where    = "device = 'pump-001'"
kind     = "stdout"
early    = true
delivery = "at-least-once"

[dead_letter]
"#;

/// `place` with a topic and two other sinks that take early results.
fn with_early(kafka: &KafkaBroker, place: &mut Place, hook: &Endpoint) {
    place.rewrite(WINDOW, EARLY);
    place.rewrite(
        "topic = \"${env:T_VERDICTS:-verdicts}\"",
        "topic = \"${env:T_VERDICTS}\"\nearly_topic = \"${env:T_EARLY}\"",
    );
    place.rewrite("[dead_letter]\n", SINKS);
    place.set("T_EARLY", kafka.create_topic("early", 1));
    place.set("T_HOOK", hook.url());
}

/// What identifies an early result, and how many rows it must have seen.
type Seen = (i64, i64, String, u64);

/// At each row that takes the watermark (5 s behind) over a multiple of 5 s: the rows so far of each device in each window
/// that the watermark stands in.
fn expected() -> BTreeSet<Seen> {
    let rows: Vec<(i64, usize)> = (0..SECONDS).flat_map(|s| (0..DEVICES).map(move |d| (s, d))).collect();
    let mut out = BTreeSet::new();
    for (i, (second, _)) in rows.iter().enumerate().filter(|(_, (s, d))| *d == 0 && *s > 0 && s % 5 == 0) {
        let now = second - 5;
        for start in (-40..SECONDS).step_by(20).filter(|s| *s < now && now < s + 40) {
            for device in 0..DEVICES {
                let n = rows[..=i].iter().filter(|(s, d)| *d == device && (start..start + 40).contains(s)).count();
                if n > 0 {
                    out.insert((now, start, format!("pump-{device:03}"), n as u64));
                }
            }
        }
    }
    out
}

/// Looks at an early result, and says which it is.
fn seen(json: &Value) -> Seen {
    assert_eq!(json["early"], true, "{json}");
    for absent in ["index", "seq", "salt", "entry", "input_digest", "evidence_hash"] {
        assert!(json.get(absent).is_none(), "{json} is in no log, so it has no {absent}");
    }
    assert_eq!((&json["log"], &json["step"]), (&"avouch/pumps/0".into(), &"anomaly".into()));
    assert_eq!(json["features"].as_array().unwrap().len(), 6);
    assert!(json["severity"].is_string() && json["source"]["last_offset"].is_i64(), "{json}");
    let second = |name: &str| {
        let text = json[name].as_str().unwrap();
        (avouch_engine::decode::parse_timestamp(text.as_bytes()).unwrap() - START) / 1000
    };
    assert_eq!(second("window_end") - second("window_start"), 40);
    (
        second("as_of"),
        second("window_start"),
        json["device"].as_str().unwrap().to_owned(),
        json["rows"].as_u64().unwrap(),
    )
}

fn is_early(json: &Value) -> bool {
    json.get("early").is_some()
}

fn texts(kafka: &KafkaBroker, topic: &str) -> Vec<String> {
    kafka.read(topic, Isolation::Committed).iter().map(|r| r.text()).collect()
}

/// The dead letters of a place, without the time at which they were written there.
fn dead_letters(kafka: &KafkaBroker, place: &Place) -> Vec<Record> {
    let letters = kafka.read(place.get("T_DEAD"), Isolation::Committed).into_iter();
    letters.map(|letter| Record { timestamp: None, ..letter }).collect()
}

/// The same verdict, apart from the hash of the pipeline file and what it goes into.
fn without_config(verdict: &str) -> Value {
    let mut json: Value = serde_json::from_str(verdict).unwrap();
    let fields = json.as_object_mut().unwrap();
    assert!(fields.remove("config_hash").is_some() && fields.remove("entry").is_some());
    json
}

#[test]
fn early_results_go_beside_the_log_and_not_into_it() {
    let kafka = require!(KafkaBroker::shared());
    let plain = Place::on(kafka, 1);
    plain.rewrite(WINDOW, LONGER);
    let mut records = pumps::healthy(DEVICES as u32, SECONDS);
    // Dead letters, in between.
    for at in [7, 300, 650] {
        records.insert(at, record(0, "pump-001", START + 1000 * SECONDS, "{not json"));
    }
    kafka.produce(plain.get("T_READINGS"), records.iter().cloned());
    plain.avouch("run").args(["--until-end"]).run(LIMIT).success();
    let without = texts(kafka, plain.get("T_VERDICTS"));
    let dead = dead_letters(kafka, &plain);
    assert!(without.len() >= 30 && dead.len() == 3, "{} {}", without.len(), dead.len());

    // The same readings, with early results.
    let hook = Endpoint::start(|_| Some((200, Vec::new())));
    let mut place = Place::on(kafka, 1);
    place.set("T_READINGS", plain.get("T_READINGS"));
    with_early(kafka, &mut place, &hook);
    let outcome = place.avouch("run").args(["--until-end"]).run(LIMIT).success();
    let with = texts(kafka, place.get("T_VERDICTS"));
    let compared = |all: &[String]| all.iter().map(|v| without_config(v)).collect::<Vec<_>>();
    assert_eq!(compared(&with), compared(&without), "the verdict topic is the log, with the same verdicts");
    assert_eq!(dead_letters(kafka, &place), dead);

    let expected = expected();
    assert!(expected.len() > 200, "{}", expected.len());
    let early: Vec<Value> = kafka
        .read(place.get("T_EARLY"), Isolation::Committed)
        .iter()
        .map(|r| {
            assert_eq!(r.header("early").as_deref(), Some("true"));
            serde_json::from_str(&r.text()).unwrap()
        })
        .collect();
    assert_eq!(early.len(), expected.len(), "each once");
    assert_eq!(early.iter().map(seen).collect::<BTreeSet<_>>(), expected);
    let posts = hook.posts();
    let posted: Vec<Value> = posts
        .iter()
        .filter(|p| is_early(&p.json()[0]))
        .flat_map(|p| {
            assert!(p.header("idempotency-key").starts_with("avouch/pumps/0/hook/early/"), "{p:?}");
            assert!(p.header("avouch-signature").starts_with("v1="), "{p:?}");
            p.json().as_array().unwrap().clone()
        })
        .collect();
    assert_eq!(posted, early, "the hook has them as Kafka has");
    let verdicts = posts.iter().filter(|p| !is_early(&p.json()[0])).map(|p| p.json().as_array().unwrap().len());
    assert_eq!(verdicts.sum::<usize>(), with.len(), "in requests of their own, beside the verdicts");
    let printed: Vec<Value> =
        outcome.stdout.lines().filter_map(|l| serde_json::from_str(l).ok()).filter(is_early).collect();
    let of_one: Vec<Value> = early.iter().filter(|e| e["device"] == "pump-001").cloned().collect();
    assert_eq!(printed, of_one, "standard output has those for which `where` holds");

    let unbroken: BTreeSet<String> = texts(kafka, place.get("T_EARLY")).into_iter().collect();

    // Again, killed in between, with a hook that takes no early results: that holds nothing up.
    hook.judge(|body| Some((if is_early(&body[0]) { 503 } else { 200 }, Vec::new())));
    let again = Place::on(kafka, 1);
    let http = format!("127.0.0.1:{}", place::free_port());
    place.set("T_HTTP", &http);
    place.set("T_STATE", place.directory.join("again").display());
    place.set("T_VERDICTS", again.get("T_VERDICTS"));
    place.set("T_DEAD", again.get("T_DEAD"));
    place.set("T_EARLY", kafka.create_topic("early", 1));
    let start = |n: u32| {
        let run = place.avouch("run").args(["--all-partitions"]);
        run.start(&place.directory.join(format!("avouch-{n}.log")))
    };
    let mut process = start(0);
    let metric = |name: &str| pumps::metric(&http, name).unwrap_or(-1.0);
    eventually("it judges early", LIMIT, || (metric("avouch_early_results_total") > 0.0).then_some(()));
    process.kill();
    let mut process = start(1);
    eventually("all is read and delivered", LIMIT, || {
        assert!(process.ended().is_none(), "{}", process.log_tail());
        (metric("avouch_lane_checkpoint_offset") == records.len() as f64 && metric("avouch_sink_lag_entries") == 0.0)
            .then_some(())
    });
    pumps::assert_served(&http, &["avouch_early_"]);
    process.signal("TERM");
    assert!(process.wait(LIMIT).success(), "{}", process.log_tail());
    assert_eq!(texts(kafka, again.get("T_VERDICTS")), with, "the same bytes");
    assert_eq!(dead_letters(kafka, &again), dead);
    let mut repeated: BTreeSet<String> = BTreeSet::new();
    for text in texts(kafka, place.get("T_EARLY")) {
        let json: Value = serde_json::from_str(&text).unwrap();
        assert!(expected.contains(&seen(&json)), "{text}");
        repeated.insert(text);
    }
    assert!(repeated.is_subset(&unbroken), "what is given again is the same");
    assert!(repeated.len() * 10 > unbroken.len(), "{} of {}", repeated.len(), unbroken.len());
}

/// A hook that is down drops early results and counts them; the verdict topic and the lane do not wait for it.
#[test]
fn a_sink_that_is_down_drops_early_results_and_counts_them() {
    let kafka = require!(KafkaBroker::shared());
    let hook = Endpoint::start(|body| Some((if is_early(&body[0]) { 503 } else { 200 }, Vec::new())));
    let mut place = Place::on(kafka, 1);
    with_early(kafka, &mut place, &hook);
    let http = format!("127.0.0.1:{}", place::free_port());
    place.set("T_HTTP", &http);
    let records = pumps::healthy(DEVICES as u32, SECONDS);
    kafka.produce(place.get("T_READINGS"), records.iter().cloned());
    let run = place.avouch("run").args(["--all-partitions"]);
    let mut process = run.start(&place.directory.join("avouch.log"));
    let of = |name: &str, sink: &str| {
        let text = ureq::get(format!("http://{http}/metrics")).call().ok()?.body_mut().read_to_string().ok()?;
        let line = text.lines().find(|l| l.starts_with(name) && l.contains(&format!("sink=\"{sink}\"")))?;
        line.rsplit(' ').next()?.parse::<f64>().ok()
    };
    let all = expected().len() as f64;
    eventually("Kafka has all and the hook none", LIMIT, || {
        assert!(process.ended().is_none(), "{}", process.log_tail());
        (of("avouch_early_results_total", "verdicts")? == all && of("avouch_early_dropped_total", "hook")? == all)
            .then_some(())
    });
    assert_eq!(of("avouch_early_results_total", "hook"), Some(0.0));
    assert_eq!(of("avouch_early_dropped_total", "verdicts"), Some(0.0));
    eventually("verdicts are delivered", LIMIT, || {
        (of("avouch_sink_lag_entries", "hook")? == 0.0 && of("avouch_sink_lag_entries", "verdicts")? == 0.0)
            .then_some(())
    });
    assert!(hook.posts().iter().filter(|p| p.status == 200).count() > 0);
    process.signal("TERM");
    assert!(process.wait(LIMIT).success(), "{}", process.log_tail());
}
