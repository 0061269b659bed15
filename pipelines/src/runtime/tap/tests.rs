#![allow(clippy::unwrap_used)]

use std::io;
use std::path::Path;
use std::time::Duration;

use avouch_connectors::http::{Live, LiveQuestion, LiveRefusal};
use avouch_engine::decode::RawRecord;
use avouch_engine::lane::{Lane, Output};
use avouch_engine::verdict::Secret;
use serde_json::Value;

use super::*;
use crate::lang::{Environment, Models, SourceFile, plan};

const PUMPS: &str = r#"
version = 1
[pipeline]
name = "pumps"
secret = "a secret of the tests"
[http]
tap = true
[sources.readings]
kind   = "files"
path   = "file:///nowhere/*.ndjson"
schema = { device = "utf8!", ts = "timestamp_ms!", lane = "utf8", heat = "f64" }
key    = "device"
time   = { column = "ts", max_disorder = "1s" }
[steps.hot]
from = "readings"
sql  = "SELECT readings.*, heat * 2 AS twice FROM readings WHERE heat > 50"
[steps.tens]
from   = "hot"
window = { kind = "tumbling", size = "10s" }
sql    = "SELECT device, max(heat) AS peak, count(*) AS n FROM hot GROUP BY device"
[steps.anomaly]
from     = "tens"
model    = { file = "none.model" }
features = ["peak"]
decide   = { severity = { warning = 0.01 } }
[sinks.lines]
from     = ["anomaly"]
kind     = "stdout"
delivery = "at-least-once"
[dead_letter]
kind     = "stdout"
delivery = "at-least-once"
"#;

struct Nothing;

impl Environment for Nothing {
    fn var(&self, _: &str) -> Option<String> {
        None
    }
    fn read(&self, _: &Path) -> io::Result<Vec<u8>> {
        Err(io::ErrorKind::NotFound.into())
    }
}

fn pipeline(text: &str) -> (Pipeline, Arc<LanePlan>) {
    let pipeline =
        Pipeline::read(Arc::new(SourceFile::new("pumps.toml", text)), &Nothing).unwrap_or_else(|d| panic!("{d}"));
    let plan = plan(&pipeline, &Models::new()).unwrap_or_else(|d| panic!("{d}"));
    (pipeline, Arc::new(plan))
}

/// A lane with a hub.
struct Bench {
    taps: Taps,
    lane: Lane,
    lane_taps: LaneTaps,
    next: i64,
}

impl Bench {
    fn new(text: &str) -> Self {
        let (pipeline, plan) = pipeline(text);
        let taps = Taps::default();
        taps.running(&pipeline, &plan);
        let lane_taps = LaneTaps::new(&taps, "pumps", 3);
        Self { taps, lane: Lane::new(plan, 3, Secret::new(b"a secret of the tests")), lane_taps, next: 0 }
    }

    /// One reading, as the worker takes it.
    fn read(&mut self, device: &str, second: i64, heat: f64) {
        self.lane_taps.follow(&mut self.lane);
        let ts = 1_767_686_400_000 + second * 1000;
        let value = format!(r#"{{"device":"{device}","ts":{ts},"lane":"own","heat":{heat}}}"#);
        let record = RawRecord {
            offset: self.next,
            timestamp: ts,
            key: None,
            value: Some(value.as_bytes()),
            origin: None,
            signature: None,
        };
        self.next += 1;
        self.lane.step(&[record], &mut Output::default()).unwrap();
        self.lane_taps.rows(&mut self.lane);
    }

    fn open(
        &self,
        step: &str,
        condition: Option<&str>,
        limit: Option<u64>,
    ) -> Result<mpsc::Receiver<Vec<u8>>, LiveRefusal> {
        self.taps.open(LiveQuestion { step: step.into(), condition: condition.map(str::to_owned), limit })
    }

    fn tapped(&self) -> usize {
        self.taps.0.state.lock().unwrap().taps.len()
    }
}

/// Lines until the stream ends.
async fn lines(mut from: mpsc::Receiver<Vec<u8>>) -> Vec<Value> {
    let mut out = Vec::new();
    while let Some(piece) = from.recv().await {
        let text = String::from_utf8(piece).unwrap();
        assert!(text.ends_with('\n'));
        out.extend(text.lines().map(|l| serde_json::from_str::<Value>(l).unwrap()));
    }
    out
}

#[tokio::test]
async fn rows_of_each_kind_of_step_with_a_condition_and_a_limit() {
    let mut bench = Bench::new(PUMPS);
    let readings = bench.open("readings", Some("device = 'b' AND lane = 'own'"), Some(2)).unwrap();
    let hot = bench.open("hot", Some("twice > 130 AND offset >= 3"), Some(1)).unwrap();
    let windows = bench.open("tens", None, Some(1)).unwrap();
    for second in 0..14 {
        bench.read("a", second, 60.0 + second as f64);
        bench.read("b", second, 40.0);
    }
    let (readings, hot, windows) = (lines(readings).await, lines(hot).await, lines(windows).await);
    // A column of the source's own goes before ours of the same name.
    let columns = &readings[0]["tap"]["columns"];
    assert_eq!(*columns, serde_json::json!(["offset", "time", "device", "heat", "lane", "ts"]));
    let row = serde_json::json!({
        "offset": 3, "time": "2026-01-06T08:00:01Z", "device": "b", "ts": "2026-01-06T08:00:01", "lane": "own", "heat": 40.0
    });
    assert_eq!(readings[2]["row"], row);
    assert_eq!(readings[3]["tap"]["end"], "the limit is reached");
    assert_eq!(readings.len(), 4);
    // 2 × (60 + s) > 130 first at second 6, offset 12.
    assert_eq!((&hot[1]["row"]["offset"], &hot[1]["row"]["twice"]), (&12.into(), &132.0.into()));
    assert_eq!(windows[0]["tap"]["kind"], "windows");
    let window = serde_json::json!({
        "lane": 3, "offset": 18, "device": "a", "window_start": "2026-01-06T08:00:00Z", "window_end": "2026-01-06T08:00:10Z",
        "peak": 69.0, "n": 10
    });
    assert_eq!(windows[1]["row"]["peak"], 69.0, "{windows:?}");
    assert_eq!(windows[1]["row"], window);
}

/// What is not tapped is not kept; when nobody reads any more, nothing is kept either.
#[tokio::test]
async fn nothing_is_kept_for_nobody() {
    let mut bench = Bench::new(PUMPS);
    bench.read("a", 0, 60.0);
    assert!(bench.lane.take_watched().is_empty());
    let tap = bench.open("hot", None, None).unwrap();
    bench.lane_taps.follow(&mut bench.lane);
    assert_eq!(bench.tapped(), 1);
    drop(tap);
    for _ in 0..200 {
        tokio::time::sleep(Duration::from_millis(10)).await;
        if bench.tapped() == 0 {
            break;
        }
    }
    assert_eq!(bench.tapped(), 0, "who is gone is forgotten, although no row came");
    bench.read("a", 1, 60.0);
    assert!(bench.lane_taps.taps.is_empty());
    assert!(bench.lane.take_watched().is_empty());
}

/// A reader that reads nothing holds bounded bytes and nobody up; what it missed is counted and said.
#[tokio::test]
async fn a_reader_that_stands_still_costs_bounded_bytes() {
    let mut bench = Bench::new(PUMPS);
    let tap = bench.open("readings", None, None).unwrap();
    let n = 2 * PIECES as i64;
    for second in 0..n {
        // Not once is anything taken out: this is the only thread.
        bench.read("a", second, 60.0);
    }
    let kept = bench.taps.0.state.lock().unwrap().taps[0].clone();
    assert_eq!(kept.seen.load(Ordering::Relaxed), n as u64);
    assert_eq!(kept.dropped.load(Ordering::Relaxed), (n as u64) - PIECES as u64);
    assert!(kept.waiting.load(Ordering::Relaxed) <= ROOM);
    drop(kept);
    let mut rows = 0;
    let mut told = None;
    let mut tap = tap;
    while told.is_none() {
        let text = String::from_utf8(tap.recv().await.unwrap()).unwrap();
        for line in text.lines().map(|l| serde_json::from_str::<Value>(l).unwrap()) {
            rows += u64::from(line.get("row").is_some());
            told = told.or(line["tap"]["dropped"].as_u64());
        }
    }
    assert_eq!(told, Some(n as u64 - PIECES as u64), "said with the first rows after it");
    assert!(rows >= 1);
}

/// One piece that is larger than the room is let through alone.
#[tokio::test]
async fn bytes_are_bounded_too() {
    let (queue, mut pieces) = mpsc::channel(PIECES);
    let tap = Tap {
        id: 1,
        step: "s".into(),
        verdicts: true,
        config: [0; 32],
        queue,
        waiting: AtomicUsize::new(0),
        seen: AtomicU64::new(0),
        dropped: AtomicU64::new(0),
    };
    let piece = || Piece::Verdicts { log: "l".into(), records: Arc::new(Vec::new()) };
    tap.offer(piece(), 1, 3 * ROOM);
    tap.offer(piece(), 1, 10);
    assert_eq!((tap.waiting.load(Ordering::Relaxed), tap.dropped.load(Ordering::Relaxed)), (3 * ROOM, 1));
    let (_, bytes) = pieces.recv().await.unwrap();
    tap.waiting.fetch_sub(bytes, Ordering::Relaxed);
    tap.offer(piece(), 1, ROOM - 10);
    tap.offer(piece(), 1, 10);
    tap.offer(piece(), 1, 1);
    assert_eq!((tap.waiting.load(Ordering::Relaxed), tap.dropped.load(Ordering::Relaxed)), (ROOM, 2));
}

#[tokio::test]
async fn what_cannot_be_tapped_is_said() {
    let bench = Bench::new(PUMPS);
    let refused = |step: &str, condition: Option<&str>| {
        let e = bench.open(step, condition, None).unwrap_err();
        (e.status, e.why)
    };
    let (status, why) = refused("tenss", None);
    assert_eq!((status, why.as_str()), (404, "there is no step `tenss` in this pipeline; did you mean `tens`?"));
    let (_, why) = refused("nothing", None);
    assert!(why.ends_with("there are `readings`, `hot`, `tens` and `anomaly`"), "{why}");
    let (status, why) = refused("tens", Some("peek > 3"));
    assert_eq!(status, 400);
    assert!(why.contains("no column `peek`") && why.contains("  | ^^^^") && why.contains("peak`"), "{why}");
    let (_, why) = refused("anomaly", Some("severity ="));
    assert!(why.contains("cannot be used"), "{why}");
    let (_, why) = refused("readings", Some("true) UNION SELECT * FROM (readings"));
    assert!(why.contains("ends before )"), "{why}");
    // A model step's condition knows its features.
    let tap = bench.open("anomaly", Some("peak > 3 AND severity <> 'normal'"), None).unwrap();
    let _others: Vec<_> = (1..MOST_TAPS).map(|_| bench.open("hot", None, None).unwrap()).collect();
    let (status, why) = refused("hot", None);
    assert!(status == 503 && why.contains("8 look on already"), "{why}");
    drop(tap);

    let closed = Bench::new(&PUMPS.replace("tap = true", ""));
    let e = closed.open("hot", None, None).unwrap_err();
    assert!(e.status == 403 && e.why.contains("`tap = true` in `[http]`"), "{}", e.why);
    let starting = Taps::default();
    assert_eq!(starting.open(LiveQuestion { step: "hot".into(), ..Default::default() }).unwrap_err().status, 503);
}

/// A reload ends a tap, for the columns may be others; one that changes nothing does not.
#[tokio::test]
async fn a_reload_ends_a_tap() {
    let mut bench = Bench::new(PUMPS);
    let tap = bench.open("hot", None, None).unwrap();
    bench.read("a", 0, 60.0);
    let (same, plan) = pipeline(PUMPS);
    bench.taps.running(&same, &plan);
    bench.read("a", 1, 60.0);
    assert_eq!(bench.tapped(), 1);
    let (other, plan) = pipeline(&PUMPS.replace("heat * 2", "heat * 3"));
    bench.taps.running(&other, &plan);
    bench.read("a", 2, 60.0);
    let lines = lines(tap).await;
    let rows = lines.iter().filter(|l| l.get("row").is_some()).count();
    assert_eq!(rows, 2);
    assert!(lines.last().unwrap()["tap"]["end"].as_str().unwrap().contains("reloaded"));
    assert!(bench.open("hot", None, None).is_ok());
    // Switched off, it is not in the hash; what is open ends all the same.
    let (off, plan) = pipeline(&PUMPS.replace("heat * 2", "heat * 3").replace("[http]\ntap = true\n", ""));
    assert_eq!(off.config_hash(), other.config_hash());
    bench.taps.running(&off, &plan);
    assert_eq!(bench.tapped(), 0);
}
