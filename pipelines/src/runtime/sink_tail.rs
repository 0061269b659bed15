//! Sinks tail what is committed, each with a cursor of its own: a dead sink holds its cursor and nothing else.

use std::time::Duration;

use avouch_connectors::kafka::{KafkaError, OutRecord, PlainSink, TransactionalSink};
use avouch_connectors::store::{Cursor, LaneReader};
use avouch_engine::dead_letter::DeadLetter;
use avouch_engine::verdict::VerdictRecord;
use tokio::sync::watch;

use super::error::RuntimeError;
use super::metrics::SinkMetrics;
use super::verdict_json::verdict_json;

const MOST: usize = 2_000;
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// What a sink takes from a lane.
#[derive(Debug, Clone)]
pub enum Feed {
    /// The verdicts of these model steps.
    Verdicts(Vec<String>),
    /// The dead letters.
    DeadLetters,
}

/// Where and how a sink writes.
#[derive(Debug, Clone)]
pub struct SinkTarget {
    pub name: String,
    pub brokers: String,
    pub topic: String,
    pub source_topic: String,
    pub partition: i32,
    pub pipeline: String,
    pub exactly_once: bool,
    /// Whether stopping with records undelivered is an error.
    pub must_finish: bool,
}

impl SinkTarget {
    /// One writer a pipeline, sink and lane; also the group that carries its cursor.
    fn id(&self) -> String {
        format!("avouch.{}.{}.{}", self.pipeline, self.name, self.partition)
    }
}

enum Writer {
    Transactional(TransactionalSink),
    Plain(PlainSink, Cursor),
}

impl Writer {
    fn open(target: &SinkTarget, reader: &LaneReader) -> Result<(Self, u64), RuntimeError> {
        if target.exactly_once {
            let sink = TransactionalSink::open(
                &target.brokers,
                &target.topic,
                &target.id(),
                &target.source_topic,
                target.partition,
            )?;
            let at = sink.position()?;
            return Ok((Writer::Transactional(sink), at));
        }
        let cursor = reader.cursor(&target.name)?;
        let at = cursor.get();
        Ok((Writer::Plain(PlainSink::open(&target.brokers, &target.topic)?, cursor), at))
    }

    fn write(&mut self, records: &[OutRecord], next: u64) -> Result<(), RuntimeError> {
        match self {
            Writer::Transactional(sink) => Ok(sink.write(records, next)?),
            Writer::Plain(sink, cursor) => {
                sink.write(records)?;
                Ok(cursor.set(next)?)
            }
        }
    }
}

/// Runs a sink until `stop` says so and everything committed by then is delivered, or for as long as the lane lives.
/// Returns only errors after which going on would be wrong: another writer, or a damaged store.
pub async fn run(
    target: SinkTarget,
    feed: Feed,
    reader: LaneReader,
    metrics: SinkMetrics,
    mut stop: watch::Receiver<bool>,
) -> Result<(), RuntimeError> {
    let mut pause = Duration::from_millis(200);
    loop {
        match deliver(&target, &feed, &reader, &metrics, &mut stop, &mut pause).await {
            Ok(()) => return Ok(()),
            Err(e @ RuntimeError::Kafka(KafkaError::Fenced { .. })) | Err(e @ RuntimeError::Store(_)) => return Err(e),
            Err(e) => {
                metrics.errors.inc();
                tracing::warn!(sink = target.name, lane = target.partition, error = %e, ?pause, "delivery failed, trying again");
                if *stop.borrow() {
                    // The cursor stays, the next run delivers; but whoever asked for everything must know.
                    return if target.must_finish { Err(e) } else { Ok(()) };
                }
                tokio::select! {
                    () = tokio::time::sleep(pause) => {}
                    _ = stop.wait_for(|s| *s) => {}
                }
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
        }
    }
}

async fn deliver(
    target: &SinkTarget,
    feed: &Feed,
    reader: &LaneReader,
    metrics: &SinkMetrics,
    stop: &mut watch::Receiver<bool>,
    pause: &mut Duration,
) -> Result<(), RuntimeError> {
    let (mut writer, mut at) = {
        let (target, reader) = (target.clone(), reader.clone());
        blocking(move || Writer::open(&target, &reader)).await?
    };
    loop {
        metrics.position.set(at as i64);
        let stopping = *stop.borrow();
        let committed = reader.committed();
        let have = match feed {
            Feed::Verdicts(_) => committed.log_size,
            Feed::DeadLetters => committed.dead_count,
        };
        if at < have {
            let (feed, reader, target) = (feed.clone(), reader.clone(), target.clone());
            let (next, count);
            (writer, next, count) = blocking(move || {
                let (records, next) = gather(&feed, &reader, &target, &committed.origin, at)?;
                if !records.is_empty() {
                    writer.write(&records, next)?;
                }
                Ok((writer, next, records.len()))
            })
            .await?;
            at = next;
            metrics.records.inc_by(count as u64);
            *pause = Duration::from_millis(200);
            continue;
        }
        if stopping {
            return Ok(());
        }
        let gone = tokio::select! {
            newer = reader.newer_than(committed.seq) => newer?.is_none(),
            _ = stop.wait_for(|s| *s) => false,
        };
        if gone {
            // The lane has ended: what is committed now is all there will be.
            if reader.committed().seq == committed.seq {
                return Ok(());
            }
        }
    }
}

async fn blocking<T: Send + 'static>(
    f: impl FnOnce() -> Result<T, RuntimeError> + Send + 'static,
) -> Result<T, RuntimeError> {
    match tokio::task::spawn_blocking(f).await {
        Ok(out) => out,
        Err(e) => Err(RuntimeError::Start(format!("a sink's thread ended: {e}"))),
    }
}

/// The next records and the cursor after them.
fn gather(
    feed: &Feed,
    reader: &LaneReader,
    target: &SinkTarget,
    origin: &str,
    at: u64,
) -> Result<(Vec<OutRecord>, u64), RuntimeError> {
    Ok(match feed {
        Feed::Verdicts(steps) => {
            let records = reader.records(at, MOST)?;
            let next = at + records.len() as u64;
            let out = records.iter().filter(|r| steps.contains(&r.evidence.step)).map(|r| verdict(origin, r)).collect();
            (out, next)
        }
        Feed::DeadLetters => {
            let letters = reader.dead_letters(at, MOST)?;
            let next = at + letters.len() as u64;
            (letters.into_iter().map(|l| dead(target, l)).collect(), next)
        }
    })
}

fn verdict(origin: &str, r: &VerdictRecord) -> OutRecord {
    OutRecord {
        key: Some(r.evidence.device.clone().into_bytes()),
        value: Some(verdict_json(origin, r).to_string().into_bytes()),
        headers: vec![("log", origin.as_bytes().to_vec()), ("index", r.index.to_string().into_bytes())],
    }
}

fn dead(target: &SinkTarget, l: DeadLetter) -> OutRecord {
    OutRecord {
        key: l.key,
        value: l.value,
        headers: vec![
            ("reason", l.reason.name().as_bytes().to_vec()),
            ("detail", l.detail.into_bytes()),
            ("topic", target.source_topic.as_bytes().to_vec()),
            ("partition", target.partition.to_string().into_bytes()),
            ("offset", l.offset.to_string().into_bytes()),
            ("timestamp", l.timestamp.to_string().into_bytes()),
        ],
    }
}
