//! The rows as records of a topic, and a lane from there to its durable log.
//!
//! What is measured is what `avouch run` does without delivering: a `read_committed` consumer, decoding, windows, model, verdict
//! log, and checkpoints with their fsyncs, as often as the pipeline says, written beside the lane. The client's start counts.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use avouch_connectors::kafka::{GroupOptions, Publisher, Share, Source, TopicOptions, create_topic};
use avouch_connectors::store::{Commit, LaneStore, StoreOptions};
use avouch_engine::decode::SchemaAnswer;
use avouch_engine::lane::{Lane, Output};
use avouch_engine::plan::LanePlan;
use avouch_engine::verdict::LogOrigin;
use serde_json::json;

use super::encode::{self, BATCH_ROWS, Value};
use super::{BATCH, BenchError, RecordFormat, Stopwatch, secret};
use crate::lang::{KafkaSource, Pipeline};

/// Rows encoded at a time; whole Arrow records of them.
const CHUNK: usize = 100 * BATCH_ROWS;
/// After how long without a record the topic is taken to hold no more.
const SILENCE: Duration = Duration::from_secs(20);

/// Creates the pipeline's topic with one partition and puts the rows into it, each record with its device as the key (but
/// not those of Arrow, which hold rows of many).
pub(super) fn produce(
    kafka: &KafkaSource,
    plan: &LanePlan,
    format: RecordFormat,
    lines: &[&[u8]],
) -> Result<(), BenchError> {
    let (connection, topic) = (kafka.connection(), &plan.source.topic);
    let one = TopicOptions { partitions: Some(1), replication: None };
    create_topic(&connection, topic, &one, &[])?;
    let mut publisher = Publisher::connect(&connection, topic, &[])?;
    let fields = &plan.source.fields;
    let device = fields.iter().position(|f| f.name == plan.source.key).unwrap_or_default();
    let mut bytes = 0;
    for lines in lines.chunks(CHUNK) {
        let rows = encode::rows(fields, lines);
        if rows.len() < lines.len() {
            return Err(BenchError::Row("some rows of the file are not as the pipeline's schema has them".into()));
        }
        let encoded = encode::records(format, fields, &rows)?;
        let values: Vec<&[u8]> = match format {
            RecordFormat::Json => lines.to_vec(),
            _ => encoded.iter().map(Vec::as_slice).collect(),
        };
        for (i, value) in values.iter().enumerate() {
            let key = match rows[i].get(device) {
                Some(Some(Value::Text(name))) if format != RecordFormat::Arrow => Some(name.as_bytes()),
                _ => None,
            };
            publisher.send(key, value, None)?;
            bytes += value.len();
            if i.is_multiple_of(1024) {
                publisher.poll(Duration::ZERO);
            }
        }
    }
    settle(&mut publisher, topic)?;
    println!(
        "{}",
        json!({ "name": "produced", "format": format.title(), "rows": lines.len(), "records": publisher.sent(), "bytes": bytes })
    );
    Ok(())
}

/// Waits until everything sent is acknowledged.
pub(super) fn settle(publisher: &mut Publisher, topic: &str) -> Result<(), BenchError> {
    publisher.finish()?;
    match publisher.first_failure() {
        None => Ok(()),
        Some(first) => Err(BenchError::Undelivered { topic: topic.to_owned(), failed: publisher.failed(), first }),
    }
}

/// Everything from the broker to the durable log.
pub(super) fn measure(
    pipeline: &Pipeline,
    kafka: &KafkaSource,
    plan: &Arc<LanePlan>,
    format: RecordFormat,
    state: &Path,
    rows: usize,
) -> Result<(), BenchError> {
    let every = Duration::from_millis(pipeline.checkpoint.every_ms.max(1) as u64);
    let watch = Stopwatch::start()?;
    let (mut store, _) = LaneStore::open(state, &LogOrigin::new(&plan.pipeline, 0), StoreOptions::default())?;
    let mut lane = Lane::new(plan.clone(), 0, secret());
    if format == RecordFormat::Avro {
        lane.learn_schema(encode::SCHEMA_ID, SchemaAnswer::Avro(encode::avro_schema(&plan.source.fields).as_bytes()));
    }
    lane.begin_references(&mut Output::default())?;
    let group = GroupOptions { group: "avouch-bench".into(), ..kafka.group_options() };
    let (source, _events) = Source::open(&kafka.connection(), &plan.source.topic, group, Share::All, BATCH)?;
    let mut reader = source.begin(0, None)?;
    let mut out = Output::default();
    let (mut next, mut checkpoints) = (0, 0);
    let (mut last, mut heard) = (Instant::now(), Instant::now());
    loop {
        let batch = reader.poll(Duration::from_millis(20))?;
        let mut records = Vec::new();
        batch.records(&mut records);
        if let Some(r) = records.last() {
            next = r.offset + 1;
            heard = Instant::now();
        }
        lane.step(&records, &mut out)?;
        store.append_all(&out.verdicts)?;
        out.verdicts.clear();
        for d in out.dead.drain(..) {
            store.append_dead(&d)?;
        }
        out.events.clear();
        let found = usize::try_from(lane.counters().rows_in).unwrap_or(usize::MAX);
        if found > rows || heard.elapsed() > SILENCE {
            return Err(BenchError::OtherRows { topic: plan.source.topic.clone(), found, wanted: rows });
        }
        let ended = found == rows;
        if ended || last.elapsed() >= every {
            store.finish_commit()?;
            store.begin_commit(Commit {
                next_offset: next,
                lane_state: lane.snapshot(),
                watermark: lane.watermark(),
                config_hash: plan.config_hash,
                topic: &plan.source.topic,
                partition: 0,
                counters: &[],
            })?;
            checkpoints += 1;
            last = Instant::now();
        }
        store.poll_commit()?;
        if ended {
            break;
        }
    }
    store.finish_commit()?;
    let took = watch.stop()?;
    let dead: u64 = lane.counters().dead.iter().sum();
    took.report(
        &format!("from Kafka to the durable log, {}", format.title()),
        rows,
        json!({ "verdicts": store.size(), "dead": dead, "checkpoints": checkpoints }),
    );
    Ok(())
}
