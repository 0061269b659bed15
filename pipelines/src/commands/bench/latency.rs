//! How long after the row that closes a window its verdicts are seen, at a steady load.
//!
//! This process is the fleet and the reader of verdicts; the pipeline itself is run by another process, an `avouch run` of the
//! same file, to be started when the first line says that the topics are there. Rows are the file's, again and again, each with
//! the clock's time, in milliseconds, at which it is handed to the Kafka client. So the row that closes a window that ends at
//! `e` is the first whose time is at least `e` + `max_disorder`, and its time is when it was produced: what comes before that
//! is the choice of the pipeline, not the engine's latency. What comes after counts in full: this client's batching
//! (`linger.ms` = 5), the broker, the lane, its checkpoint, the sink's transaction, and the read by a `read_committed` consumer.
//!
//! For each run of verdicts of one window that came together, one line tells `window_end`, `produced_ms` (when the row that
//! closed it was produced), `seen_ms` (when the consumer had them) and the log's indices `first` to `last`. All times are of
//! this machine's clock. When a checkpoint has made them durable is told by the log of `avouch run`.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use avouch_connectors::kafka::{
    GroupOptions, KafkaConnection, PartitionReader, Publisher, Share, Source, TopicOptions, create_topic,
};
use avouch_engine::decode::{format_timestamp, parse_timestamp};
use avouch_engine::plan::LanePlan;
use serde::Deserialize;
use serde_json::json;

use super::kafka::settle;
use super::{BATCH, BenchError};
use crate::lang::{KafkaSource, Pipeline, SinkKind};

/// After how long without a verdict no more are waited for, once all rows are sent.
const SILENCE: Duration = Duration::from_secs(8);
/// Digits of a time in milliseconds, for the next 260 years.
const TIME_DIGITS: usize = 13;

/// How many rows a second are sent, and for how long.
#[derive(Debug, Clone, Copy)]
pub(super) struct Load {
    pub rate: u64,
    pub seconds: u64,
}

/// What of a verdict is needed here.
#[derive(Deserialize)]
struct Seen {
    index: u64,
    window_end: String,
}

/// Verdicts of one window that were seen together.
struct Sighting {
    window_end: String,
    first: u64,
    last: u64,
    seen_ms: f64,
}

/// Sends rows, reads verdicts, and prints what was seen.
pub(super) fn measure(
    pipeline: &Pipeline,
    kafka: &KafkaSource,
    plan: &LanePlan,
    lines: &[&[u8]],
    load: Load,
) -> Result<(), BenchError> {
    let verdicts = pipeline.sinks.iter().find_map(|sink| match &sink.kind {
        SinkKind::Kafka(sink) => Some(sink),
        _ => None,
    });
    let verdicts = verdicts.ok_or(BenchError::NoSink)?;
    let source = kafka.connection();
    let sink = verdicts.brokers.as_ref().map_or_else(|| source.clone(), |b| KafkaConnection::plaintext(b.as_str()));
    let rows = templates(&plan.source.time, &plan.source.key, lines)?;
    let one = TopicOptions { partitions: Some(1), replication: None };
    create_topic(&source, &plan.source.topic, &one, &[])?;
    create_topic(&sink, verdicts.topic.as_str(), &one, &[])?;
    let mut publisher = Publisher::connect(&source, &plan.source.topic, &[("linger.ms".into(), "5".into())])?;
    let group = GroupOptions { group: "avouch-bench-verdicts".into(), ..kafka.group_options() };
    let (reading, _events) = Source::open(&sink, verdicts.topic.as_str(), group, Share::All, BATCH)?;
    let reader = reading.begin(0, None)?;
    println!("{}", json!({ "name": "latency", "ready": true }));

    let sent = AtomicBool::new(false);
    let (times, sightings) = std::thread::scope(|scope| {
        let seen = scope.spawn(|| watch(reader, &sent));
        let times = send(&rows, &mut publisher, load).and_then(|times| {
            settle(&mut publisher, &plan.source.topic)?;
            Ok(times)
        });
        sent.store(true, Ordering::Release);
        let seen = seen.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        Ok::<_, BenchError>((times?, seen?))
    })?;

    let mut closed: BTreeMap<&str, Option<i64>> = BTreeMap::new();
    for s in &sightings {
        let produced = *closed.entry(&s.window_end).or_insert_with(|| {
            let closes = parse_timestamp(s.window_end.as_bytes())? + plan.source.max_disorder_ms;
            times.millis.get(times.millis.partition_point(|t| *t < closes)).copied()
        });
        println!(
            "{}",
            json!({
                "name": "verdicts",
                "window_end": s.window_end,
                "produced_ms": produced,
                "seen_ms": s.seen_ms,
                "first": s.first,
                "last": s.last,
            })
        );
    }
    let first = times.millis.first().copied().unwrap_or_default();
    println!(
        "{}",
        json!({
            "name": "sent",
            "rows": times.rows,
            "rate": times.rows as f64 / times.took.as_secs_f64(),
            "asked": load.rate,
            "began": format_timestamp(first),
            "began_ms": first,
            "late_ms": times.late.as_secs_f64() * 1000.0,
        })
    );
    Ok(())
}

/// The file's rows, each with its device and the place of its time.
struct Template {
    row: Vec<u8>,
    device: String,
    time_at: usize,
}

impl Template {
    /// Writes the row with this time into `row`, which is emptied first.
    fn stamp(&self, now: i64, row: &mut Vec<u8>) {
        row.clear();
        row.extend_from_slice(&self.row);
        row[self.time_at..self.time_at + TIME_DIGITS].copy_from_slice(format!("{now:013}").as_bytes());
    }
}

/// As many rows as keep every device of a usual fleet in turn.
const MOST_TEMPLATES: usize = 200_000;

fn templates(time: &str, key: &str, lines: &[&[u8]]) -> Result<Vec<Template>, BenchError> {
    let named = format!("\"{time}\":").into_bytes();
    let unusable =
        || BenchError::Row(format!("a row has no `{time}` in milliseconds of {TIME_DIGITS} digits, or no `{key}`"));
    let rows = lines.iter().take(MOST_TEMPLATES).map(|line| {
        let row: serde_json::Value = serde_json::from_slice(line).map_err(|e| BenchError::Row(e.to_string()))?;
        let device = row[key].as_str().ok_or_else(unusable)?.to_owned();
        let at = line.windows(named.len()).position(|w| w == named).ok_or_else(unusable)? + named.len();
        let digits = line[at..].iter().take_while(|b| b.is_ascii_digit()).count();
        if digits == TIME_DIGITS { Ok(Template { row: line.to_vec(), device, time_at: at }) } else { Err(unusable()) }
    });
    let rows = rows.collect::<Result<Vec<_>, _>>()?;
    if rows.is_empty() { Err(unusable()) } else { Ok(rows) }
}

/// What was sent when.
struct Times {
    rows: u64,
    took: Duration,
    /// The times that rows have, each once.
    millis: Vec<i64>,
    /// How far behind its pace the sender was at most.
    late: Duration,
}

fn send(rows: &[Template], publisher: &mut Publisher, load: Load) -> Result<Times, BenchError> {
    let mut times = Times { rows: 0, took: Duration::ZERO, millis: Vec::new(), late: Duration::ZERO };
    let mut row = Vec::new();
    let mut from = rows.iter().cycle();
    let all = load.rate * load.seconds;
    let began = Instant::now();
    while times.rows < all {
        let due = ((began.elapsed().as_secs_f64() * load.rate as f64) as u64).min(all);
        if due <= times.rows {
            publisher.poll(Duration::from_millis(1));
            continue;
        }
        let behind = Duration::from_secs_f64((due - times.rows) as f64 / load.rate as f64);
        times.late = times.late.max(behind);
        // A few at a time, so that each has the time at which it goes.
        for _ in times.rows..due.min(times.rows + 256) {
            let Some(template) = from.next() else { break };
            let now = now_ms() as i64;
            if times.millis.last().is_none_or(|t| *t < now) {
                times.millis.push(now);
            }
            // Should the clock be set back, time stands still for the fleet.
            let now = times.millis.last().copied().unwrap_or(now);
            template.stamp(now, &mut row);
            publisher.send(Some(template.device.as_bytes()), &row, None)?;
            times.rows += 1;
        }
        publisher.poll(Duration::ZERO);
    }
    times.took = began.elapsed();
    Ok(times)
}

/// Reads verdicts until all rows are sent and no more come.
fn watch(mut reader: PartitionReader, sent: &AtomicBool) -> Result<Vec<Sighting>, BenchError> {
    let mut out: Vec<Sighting> = Vec::new();
    let mut heard = Instant::now();
    loop {
        let batch = reader.poll(Duration::from_millis(1))?;
        let seen_ms = now_ms();
        if batch.is_empty() {
            // While rows are sent, a window may close at any time.
            if !sent.load(Ordering::Acquire) {
                heard = Instant::now();
            } else if heard.elapsed() > SILENCE {
                return Ok(out);
            }
            continue;
        }
        heard = Instant::now();
        for value in (0..batch.len()).filter_map(|i| batch.record(i)?.value) {
            let seen: Seen = serde_json::from_slice(value).map_err(|e| BenchError::Row(e.to_string()))?;
            match out.last_mut() {
                Some(s) if s.seen_ms == seen_ms && s.window_end == seen.window_end && s.last + 1 == seen.index => {
                    s.last = seen.index;
                }
                _ => out.push(Sighting { window_end: seen.window_end, first: seen.index, last: seen.index, seen_ms }),
            }
        }
    }
}

/// The clock, in milliseconds with their fractions.
fn now_ms() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |d| d.as_secs_f64() * 1000.0)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_row_gets_another_time_and_keeps_everything_else() {
        let line: &[u8] = br#"{"device":"pump-1","ts":1767225600000,"flow":20.5}"#;
        let rows = templates("ts", "device", &[line]).unwrap();
        assert_eq!(rows[0].device, "pump-1");
        let mut row = b"of before".to_vec();
        rows[0].stamp(1_800_000_000_123, &mut row);
        assert_eq!(row, br#"{"device":"pump-1","ts":1800000000123,"flow":20.5}"#);
    }

    #[test]
    fn rows_whose_time_cannot_be_replaced_are_refused() {
        let lines: [&[u8]; 4] = [
            br#"{"device":"pump-1","ts":"2026-01-01T00:00:00Z"}"#,
            br#"{"device":"pump-1","ts":17}"#,
            br#"{"device":"pump-1"}"#,
            br#"{"ts":1767225600000}"#,
        ];
        for line in lines {
            assert!(templates("ts", "device", &[line]).is_err(), "{}", String::from_utf8_lossy(line));
        }
        assert!(templates("ts", "device", &[]).is_err());
    }
}
