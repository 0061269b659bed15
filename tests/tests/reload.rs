//! The pipeline file is changed while the pipeline runs, on Apache Kafka and under load: the log goes on, no row is lost, open
//! windows stay open, a file that is wrong changes nothing, and nothing hangs.
//!
//! `AVOUCH_RELOADS` says how often the file is changed, `AVOUCH_CRASH_SEED` repeats the moments of the kills.
#![allow(clippy::unwrap_used)]

mod pumps;

use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, Instant};

use avouch_connectors::store::LaneReader;
use avouch_engine::event::LaneEvent;
use avouch_engine::verdict::VerdictRecord;
use avouch_system_tests::{Anvil, Avouch, Isolation, KafkaBroker, Record, require};
use pumps::left::{self, Delivered, Topics, random};
use pumps::live::{Live, WARNINGS, set_warning};
use pumps::{Place, readyz};

const PARTITIONS: i32 = 2;
const TOPICS: Topics = Topics(["reload.readings", "reload.verdicts", "reload.dead"]);
const LIMIT: Duration = Duration::from_secs(120);
/// A killed process has its lanes back as soon as it is started again.
const GROUP: &str = "group   = \"pumps\"\nsession_timeout = \"6s\"\ninstance = \"${env:T_INSTANCE:-}\"";

fn on(kafka: &KafkaBroker) -> Place {
    let place = TOPICS.on(kafka, PARTITIONS);
    place.rewrite("group   = \"pumps\"", GROUP);
    place
}

/// What one unbroken run makes of the readings.
fn reference(kafka: &KafkaBroker, records: &[Record]) -> (Place, Delivered) {
    let place = on(kafka);
    kafka.produce(TOPICS.readings(), records.iter().cloned());
    place.avouch("run").args(["--until-end"]).run(LIMIT).success();
    let delivered = Delivered::read(kafka, TOPICS, Isolation::Committed);
    assert!(delivered.verdicts.len() > 500 && delivered.dead.len() > 10, "the readings exercise both sinks");
    (place, delivered)
}

fn all(place: &Place, partition: i32) -> Vec<VerdictRecord> {
    let reader = LaneReader::open_read_only(&place.lane(partition)).unwrap();
    reader.kept(0, usize::MAX).unwrap()
}

/// All of a verdict that thresholds and the pipeline's hash do not decide.
fn judged(v: &VerdictRecord) -> (u64, [u8; 32], u64, u64, [u8; 32], Vec<u8>) {
    let w = &v.verdict;
    (v.index, w.device_id, w.seq, w.window_end, w.input_digest, v.evidence.to_bytes())
}

/// Asserts that the lanes have the verdicts of an unbroken run, under more than one pipeline, and that events say where each
/// began; returns how often the pipeline changed.
fn assert_as_unbroken(place: &Place, unbroken: &Place) -> usize {
    let mut changes = 0;
    for partition in 0..PARTITIONS {
        let (found, expected) = (all(place, partition), all(unbroken, partition));
        assert_eq!(found.len(), expected.len(), "verdicts of lane {partition}");
        let differs = found.iter().zip(&expected).find(|(a, b)| judged(a) != judged(b));
        assert!(differs.is_none(), "lane {partition}: {differs:?}");
        let reader = LaneReader::open_read_only(&place.lane(partition)).unwrap();
        let mut now = None;
        for event in reader.events(0, usize::MAX).unwrap() {
            let LaneEvent::Pipeline { from, to, dropped, .. } = event else { continue };
            assert!(dropped.is_empty(), "thresholds have no state");
            assert!(now.is_none_or(|now| now == from), "each change begins where the one before ended");
            now = Some(to);
            changes += 1;
        }
        assert_eq!(now, Some(reader.committed().config_hash));
        let hashes: BTreeSet<_> = found.iter().map(|v| v.verdict.config_hash).collect();
        assert!(hashes.len() > 1, "the log of lane {partition} holds several pipelines");
        let (counters, before) = (
            reader.committed().counters.clone(),
            LaneReader::open_read_only(&unbroken.lane(partition)).unwrap().committed().counters.clone(),
        );
        let of = |list: &[(String, u64)], name: &str| list.iter().find(|(n, _)| n == name).unwrap().1;
        for name in ["rows_in", "rows_used"] {
            assert_eq!(of(&counters, name), of(&before, name), "{name} of lane {partition}");
        }
    }
    changes
}

#[test]
fn two_hundred_reloads_under_load_leave_what_an_unbroken_run_leaves() {
    let reloads = std::env::var("AVOUCH_RELOADS").map_or(200, |n| n.parse::<usize>().unwrap());
    let records = left::simulated(8, PARTITIONS);
    let (unbroken, expected) = reference(&require!(KafkaBroker::start()), &records);
    let kafka = require!(KafkaBroker::start());
    let place = on(&kafka);
    let mut live = Live::start(&place, &place.file, "one", &[]);
    live.ready(PARTITIONS);
    let began = Instant::now();
    let mut slowest = Duration::ZERO;
    let mut slices = records.chunks(records.len().div_ceil(reloads));
    for i in 1..=reloads {
        set_warning(&place.file, WARNINGS[i % WARNINGS.len()]);
        kafka.produce(TOPICS.readings(), slices.next().unwrap_or_default().iter().cloned());
        let asked = Instant::now();
        live.process.signal("HUP");
        live.until("the reload is applied", |s| s.reloads("applied") >= i as f64);
        slowest = slowest.max(asked.elapsed());
    }
    let took = began.elapsed();
    println!("{reloads} reloads in {took:.1?}, the slowest in {slowest:.1?}");
    assert_eq!((live.reloads("applied"), live.reloads("failed")), (reloads as f64, 0.0));
    assert_eq!(live.metric("avouch_reload_failed"), 0.0);
    live.ready(PARTITIONS);
    live.stop();
    place.avouch("run").args(["--until-end"]).run(LIMIT).success();
    let changes = assert_as_unbroken(&place, &unbroken);
    assert_eq!(changes, reloads * PARTITIONS as usize, "each lane went over each time");
    let delivered = Delivered::read(&kafka, TOPICS, Isolation::Committed);
    assert_eq!(delivered.verdicts.len(), expected.verdicts.len(), "each verdict once");
    assert_eq!(delivered.dead, expected.dead);
}

#[test]
fn kills_around_reloads_leave_what_an_unbroken_run_leaves() {
    let mut seed = left::seed();
    println!("seed {seed}");
    let records = left::simulated(6, PARTITIONS);
    let (unbroken, expected) = reference(&require!(KafkaBroker::start()), &records);
    let kafka = require!(KafkaBroker::start());
    let place = on(&kafka);
    let kills = 12;
    let mut slices = records.chunks(records.len().div_ceil(kills));
    for kill in 1..=kills {
        // What the process before was told, and may have done or not, is what this one begins with.
        let mut live = Live::start(&place, &place.file, "one", &["--accept-change"]);
        live.ready(PARTITIONS);
        kafka.produce(TOPICS.readings(), slices.next().unwrap_or_default().iter().cloned());
        std::thread::sleep(Duration::from_millis(random(&mut seed) % 400));
        set_warning(&place.file, WARNINGS[kill % WARNINGS.len()]);
        live.process.signal("HUP");
        std::thread::sleep(Duration::from_millis(random(&mut seed) % 300));
        live.process.kill();
    }
    place.avouch("run").args(["--until-end", "--accept-change"]).run(LIMIT).success();
    let changes = assert_as_unbroken(&place, &unbroken);
    println!("{changes} changes of lanes over {kills} kills");
    let delivered = Delivered::read(&kafka, TOPICS, Isolation::Committed);
    assert_eq!(delivered.verdicts.len(), expected.verdicts.len(), "each verdict once");
    assert_eq!(delivered.dead, expected.dead);
}

#[test]
fn a_wrong_file_changes_nothing_and_a_changed_step_begins_anew() {
    let kafka = require!(KafkaBroker::shared());
    let place = Place::on(kafka, PARTITIONS);
    let readings = place.get("T_READINGS").to_owned();
    let good = std::fs::read_to_string(&place.file).unwrap();
    let mut records = pumps::healthy(5, 60);
    let rest = records.split_off(records.len() / 2);
    kafka.produce(&readings, records);
    let mut live = Live::start(&place, &place.file, "one", &["--reload-on-change"]);
    live.ready(PARTITIONS);
    live.until("rows are read", |s| s.metric("avouch_lane_rows_in_total") >= 150.0);

    // A typing error, a change that needs a restart, and one that needs another log: each is said, and nothing changes.
    let wrong = [
        (good.replace("avg(temperature)", "avg(temprature)"), "temprature"),
        (good.replace("key     = \"device\"", "key     = \"device\"\nmax_record_bytes = \"zero\""), "max_record_bytes"),
        (good.replace("[http]\nlisten = \"", "[http]\nlisten = \"${env:NOTHING:-}"), "takes effect at a restart"),
        (good.replace("name       = \"pumps\"", "name       = \"pump\""), "needs a new `pipeline.name`"),
    ];
    for (i, (text, why)) in wrong.iter().enumerate() {
        assert_ne!(*text, good);
        std::fs::write(&place.file, text).unwrap();
        live.until("the reload fails", |s| s.reloads("failed") > i as f64);
        assert_eq!(live.metric("avouch_reload_failed"), 1.0);
        assert!(live.process.log().contains(why), "it says {why}:\n{}", live.process.log_tail());
    }
    let (before, after) = rest.split_at(rest.len() / 2);
    kafka.produce(&readings, before.iter().cloned());
    live.until("it reads on", |s| s.metric("avouch_lane_rows_in_total") >= 225.0);
    // Mended: the file is as it was.
    std::fs::write(&place.file, &good).unwrap();
    live.until("the reload is applied", |s| s.reloads("applied") == 1.0);
    assert_eq!(live.metric("avouch_reload_failed"), 0.0);
    assert_eq!(live.metric("avouch_lane_dropped_states_total"), 0.0);

    // Another query of the windowed step.
    let changed = good.replace("count(*) AS readings", "count(temperature) AS readings");
    std::fs::write(&place.file, &changed).unwrap();
    live.until("the reload is applied", |s| s.reloads("applied") == 2.0);
    live.until("its state is dropped", |s| s.metric("avouch_lane_dropped_states_total") == f64::from(PARTITIONS));
    kafka.produce(&readings, after.iter().cloned());
    live.until("it reads on", |s| s.metric("avouch_lane_rows_in_total") >= 300.0);
    let said = live.process.log();
    assert!(said.contains("the state of a step is dropped") && said.contains("its definition changed"), "{said}");
    live.stop();
    let text = place.state(&["events", "--lane", "0"]).run(LIMIT).success().stdout;
    assert!(text.contains("state of features dropped (its definition changed): 5 devices"), "{text}");
    let reader = LaneReader::open_read_only(&place.lane(0)).unwrap();
    let counters = reader.committed().counters.clone();
    let of = |name: &str| counters.iter().find(|(n, _)| n == name).unwrap().1;
    assert_eq!((of("rows_in"), of("rows_used")), (300, 300), "rows whose state was dropped were used, and count once");

    // A start with a file that was changed meanwhile says so; told to, it goes on.
    std::fs::write(&place.file, &good).unwrap();
    let refused = place.avouch("run").args(["--until-end"]).run(LIMIT);
    assert_eq!(refused.code, Some(1));
    assert!(refused.stderr.contains("--accept-change"), "{}", refused.stderr);
    place.avouch("run").args(["--until-end", "--accept-change"]).run(LIMIT).success();
    place.avouch("run").args(["--until-end"]).run(LIMIT).success();
    let renamed =
        good.replace("key     = \"device\"", "key     = \"site\"").replace("{ device", "{ site = \"utf8!\", device");
    assert_ne!(renamed, good);
    std::fs::write(&place.file, renamed.replace("SELECT device,", "SELECT site,").replace("BY device", "BY site"))
        .unwrap();
    let refused = place.avouch("run").args(["--until-end", "--accept-change"]).run(LIMIT);
    assert!(refused.stderr.contains("needs a new `pipeline.name`"), "{}", refused.stderr);
}

/// Evidence, words, SQL and dead letters of a log that two pipelines wrote.
#[test]
fn the_log_of_two_pipelines_is_bundled_verified_explained_and_asked() {
    let kafka = require!(KafkaBroker::shared());
    let anvil = require!(Anvil::start());
    let mut place = Place::on(kafka, 1);
    place.anchor(&anvil.rpc(), &pumps::deploy(&anvil), anvil.key(0));
    let readings = place.get("T_READINGS").to_owned();
    let mut records = pumps::healthy(5, 240);
    let rest = records.split_off(records.len() / 2);
    let torn = |at: i64| pumps::record(0, "pump-000", pumps::START + at, "{\"device\":");
    kafka.produce(&readings, records.into_iter().chain([torn(0)]));
    let older = place.directory.join("older.toml");
    std::fs::copy(&place.file, &older).unwrap();
    let mut live = Live::start(&place, &place.file, "one", &[]);
    live.ready(1);
    live.until("the first half is read", |s| s.metric("avouch_lane_rows_in_total") >= 601.0);
    // The windowed step changes too, so the second pipeline's first windows hold only rows from there on.
    place.rewrite("count(*) AS readings", "count(temperature) AS readings");
    set_warning(&place.file, WARNINGS[2]);
    live.process.signal("HUP");
    live.until("the reload is applied", |s| s.reloads("applied") == 1.0);
    kafka.produce(&readings, rest.into_iter().chain([torn(1)]));
    live.until("the second half is read", |s| s.metric("avouch_lane_rows_in_total") >= 1_202.0);
    live.stop();
    place.avouch("run").args(["--until-end"]).run(LIMIT).success();

    let records = all(&place, 0);
    let hash = |v: &VerdictRecord| v.verdict.config_hash;
    let turn = records.iter().position(|v| hash(v) != hash(&records[0])).expect("two pipelines");
    assert!(records[turn..].iter().all(|v| hash(v) == hash(&records[turn])) && turn > 50 && records.len() - turn > 50);

    // The evidence for the last verdict of the first and the first of the second, each with the pipeline that made it.
    let bundle = |place: &Place, index: usize, name: &str| {
        let (dir, index) = (place.directory.join(name), index.to_string());
        let call = place.avouch("bundle").args(["--lane", "0", "--index", &index, "--json", "--out"]).args([&dir]);
        (call.run(LIMIT), dir)
    };
    let verify = |dir: &Path| Avouch::new(["verify"]).args([dir]).args(["--rpc", &anvil.rpc()]).run(LIMIT);
    let mut pipelines = Vec::new();
    for (index, name) in [(turn - 1, "before"), (turn, "after")] {
        let (made, dir) = bundle(&place, index, name);
        let made = made.success().json();
        assert_eq!((made["index"].as_u64(), &made["log"]), (Some(index as u64), &"avouch/pumps/0".into()));
        verify(&dir).success();
        pipelines.push(std::fs::read_to_string(dir.join("pipeline.canonical.json")).unwrap());
        let said = place.avouch("explain-verdict").args(["--lane", "0", "--index", &index.to_string()]).run(LIMIT);
        let of_bundle = Avouch::new(["explain-verdict"]).args([&dir]).run(LIMIT).success().stdout;
        assert_eq!(said.success().stdout, of_bundle);
        println!("{of_bundle}");
    }
    assert!(pipelines[0].contains("0.01") && pipelines[0].contains("count(*)"));
    assert!(pipelines[1].contains("0.05") && pipelines[1].contains("count(temperature)"));
    // A verdict is of its own pipeline: with the other one's file in its bundle it is refused.
    std::fs::write(place.directory.join("after/pipeline.canonical.json"), &pipelines[0]).unwrap();
    let refused = verify(&place.directory.join("after"));
    assert!(refused.code == Some(1) && refused.stdout.contains("pipeline"), "{}{}", refused.stdout, refused.stderr);
    // The file before it was changed names the same log.
    let mut former = place.clone();
    former.file = older;
    bundle(&former, turn, "by-the-older-file").0.success();

    let sql = "SELECT config_hash, count(*) AS n FROM verdicts GROUP BY config_hash ORDER BY min(\"index\")";
    let answer = place.avouch("query").args([sql, "--format", "csv"]).run(LIMIT).success().stdout;
    let counts: Vec<&str> = answer.lines().skip(1).map(|l| l.rsplit(',').next().unwrap()).collect();
    assert_eq!(counts, [turn.to_string(), (records.len() - turn).to_string()], "{answer}");
    let dead = place.avouch("dead").args(["list", "--json"]).run(LIMIT).success().json();
    assert_eq!((&dead["count"], &dead["reasons"]["undecodable"]), (&2.into(), &2.into()), "{dead}");
}

#[test]
fn a_process_with_an_older_file_leaves_lanes_alone_that_have_gone_on() {
    let kafka = require!(KafkaBroker::start());
    let place = on(&kafka);
    let records = left::simulated(2, PARTITIONS);
    let (first, rest) = records.split_at(records.len() / 2);
    let older = place.directory.join("older.toml");
    std::fs::copy(&place.file, &older).unwrap();
    let mut one = Live::start(&place, &place.file, "one", &[]);
    one.ready(PARTITIONS);
    let mut two = Live::start(&place, &older, "two", &[]);
    two.ready(1);
    one.ready(1);
    kafka.produce(TOPICS.readings(), first.iter().cloned());
    set_warning(&place.file, WARNINGS[1]);
    one.process.signal("HUP");
    one.until("the reload is applied", |s| s.reloads("applied") == 1.0);
    one.stop();
    // The second one is given the lane that has gone on, and says why it does not run it.
    two.until("it leaves the lane alone", |s| {
        readyz(&s.address).is_some_and(|said| said.contains("gone on under a newer version"))
    });
    assert!(two.metric("avouch_lanes_owned") <= 1.0);
    assert!(std::fs::read_to_string(&two.log).unwrap().contains("give this process the same file and reload it"));
    // Asked to reload before its file was changed, it takes nothing back.
    two.process.signal("HUP");
    two.until("it has read its file", |s| s.process.log().contains("the changed pipeline is in order"));
    two.until("it leaves the lane alone", |s| {
        readyz(&s.address).is_some_and(|said| said.contains("gone on under a newer version"))
    });
    // The lane that it waits for does not hold up the next reload.
    std::fs::copy(&place.file, &older).unwrap();
    two.process.signal("HUP");
    two.until("the reload is applied", |s| s.reloads("applied") == 2.0);
    two.ready(PARTITIONS);
    kafka.produce(TOPICS.readings(), rest.iter().cloned());
    two.stop();
    place.avouch("run").args(["--until-end"]).run(LIMIT).success();
    for partition in 0..PARTITIONS {
        let reader = LaneReader::open_read_only(&place.lane(partition)).unwrap();
        let events = reader.events(0, usize::MAX).unwrap();
        let changes = events.iter().filter(|e| matches!(e, LaneEvent::Pipeline { .. })).count();
        assert_eq!(changes, 1, "each lane went over once, and never back");
    }
}
