//! Sinks tail what is committed, each with a cursor of its own: a dead sink holds its cursor and nothing else.

use std::time::Duration;

use avouch_connectors::kafka::{KafkaError, OutRecord, PlainSink, TransactionalSink, record_limit};
use avouch_connectors::store::{Cursor, LaneReader};
use avouch_engine::dead_letter::DeadLetter;
use avouch_engine::verdict::VerdictRecord;
use sha2::{Digest as _, Sha256};
use tokio::sync::watch;

use super::artifacts::hex;
use super::error::RuntimeError;
use super::metrics::SinkMetrics;
use super::verdict_json::verdict_json;

const MOST: usize = 2_000;
/// How often an idle sink writes its cursor again, so that Kafka does not forget it.
const REFRESH: Duration = Duration::from_secs(3600);
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
        format!("avouch.{}.{}.{}.{}", self.pipeline, self.name, self.topic, self.partition)
    }
}

enum Writer {
    /// Its cursor is in Kafka; the copy here tells a first start from a cursor that Kafka has forgotten.
    Transactional(TransactionalSink, Cursor),
    Plain(PlainSink, Cursor),
}

/// Where a sink goes on, and the note of what it had delivered by then.
struct Position {
    at: u64,
    note: Option<String>,
}

impl Writer {
    fn open(target: &SinkTarget, limit: Option<usize>, reader: &LaneReader) -> Result<(Self, Position), RuntimeError> {
        let cursor = reader.cursor(&target.name)?;
        if !target.exactly_once {
            let at = cursor.get();
            return Ok((
                Writer::Plain(PlainSink::open(&target.brokers, &target.topic, limit)?, cursor),
                Position { at, note: None },
            ));
        }
        let sink = TransactionalSink::open(
            &target.brokers,
            &target.topic,
            limit,
            &target.id(),
            &target.source_topic,
            target.partition,
        )?;
        let position = match sink.position()? {
            Some((at, note)) => Position { at, note: Some(note) },
            None if cursor.get() > 0 => {
                let why = format!(
                    "sink \"{}\" has delivered {} but Kafka holds no cursor in the group \"{}\": it expired \
                     (offsets.retention.minutes) or this is another cluster. To go on there, set the group's offset of {}/{} to {}; \
                     to deliver everything again, delete the lane's file cursor-{}",
                    target.name,
                    cursor.get(),
                    sink.id(),
                    target.source_topic,
                    target.partition,
                    cursor.get(),
                    target.name
                );
                return Err(RuntimeError::Inconsistent { lane: target.partition, why });
            }
            None => Position { at: 0, note: None },
        };
        Ok((Writer::Transactional(sink, cursor), position))
    }

    fn write(&mut self, records: &[OutRecord], next: u64, note: &str) -> Result<(), RuntimeError> {
        let cursor = match self {
            Writer::Transactional(sink, cursor) => {
                sink.write(records, next, note)?;
                cursor
            }
            Writer::Plain(sink, cursor) => {
                sink.write(records)?;
                cursor
            }
        };
        Ok(cursor.set(next)?)
    }
}

/// What identifies everything before `next` in a feed: the log's root, or the last dead letter. A cursor with another
/// note belongs to another log, and going on from it would leave verdicts out in silence.
fn note(feed: &Feed, reader: &LaneReader, next: u64) -> Result<String, RuntimeError> {
    Ok(match feed {
        Feed::Verdicts(_) => hex(&reader.root(next)?),
        Feed::DeadLetters if next == 0 => String::new(),
        Feed::DeadLetters => {
            let last = reader.dead_letters(next - 1, 1)?;
            last.first().map_or_else(String::new, |l| hex(&Sha256::digest(l.to_bytes())))
        }
    })
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
            Err(e @ RuntimeError::Kafka(KafkaError::Fenced { .. }))
            | Err(e @ (RuntimeError::Store(_) | RuntimeError::Inconsistent { .. })) => return Err(e),
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
    let (mut writer, Position { mut at, note: mut to_check }) = {
        let (target, reader) = (target.clone(), reader.clone());
        let limit = record_limit(&target.brokers, &target.topic).await;
        blocking(move || Writer::open(&target, limit, &reader)).await?
    };
    loop {
        metrics.position.set(at as i64);
        let stopping = *stop.borrow();
        let committed = reader.committed();
        let have = match feed {
            Feed::Verdicts(_) => committed.log_size,
            Feed::DeadLetters => committed.dead_count,
        };
        if have >= at
            && let Some(noted) = to_check.take()
            && noted != note(feed, reader, at)?
        {
            return Err(other_log(target, at));
        }
        if at < have {
            let (feed, reader, target) = (feed.clone(), reader.clone(), target.clone());
            let (next, count);
            (writer, next, count) = blocking(move || {
                let (records, next) = gather(&feed, &reader, &target, &committed.origin, at)?;
                writer.write(&records, next, &note(&feed, &reader, next)?)?;
                Ok((writer, next, records.len()))
            })
            .await?;
            at = next;
            metrics.records.inc_by(count as u64);
            *pause = Duration::from_millis(200);
            continue;
        }
        if stopping {
            // A log shorter than what was delivered is another log, unless it regrows after a restart.
            return if to_check.is_some() && target.must_finish { Err(other_log(target, at)) } else { Ok(()) };
        }
        let mut refresh = false;
        let gone = tokio::select! {
            newer = reader.newer_than(committed.seq) => newer?.is_none(),
            _ = stop.wait_for(|s| *s) => false,
            () = tokio::time::sleep(REFRESH), if to_check.is_none() => {
                refresh = true;
                false
            }
        };
        if refresh {
            let (feed, reader) = (feed.clone(), reader.clone());
            writer = blocking(move || {
                writer.write(&[], at, &note(&feed, &reader, at)?)?;
                Ok(writer)
            })
            .await?;
        }
        if gone && reader.committed().seq == committed.seq {
            // The lane has ended: what is committed now is all there will be. An error here means that the runtime is gone.
            drop(stop.wait_for(|s| *s).await);
        }
    }
}

fn other_log(target: &SinkTarget, at: u64) -> RuntimeError {
    let why = format!(
        "sink \"{}\" has delivered {at} records of another log into \"{}\" under the name \"{}\"; nothing is delivered. Give the \
         pipeline or the sink another name or topic, or use the state directory that log is in",
        target.name,
        target.topic,
        target.id()
    );
    RuntimeError::Inconsistent { lane: target.partition, why }
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
    let mut headers = vec![
        ("reason", l.reason.name().as_bytes().to_vec()),
        ("detail", l.detail.into_bytes()),
        ("topic", target.source_topic.as_bytes().to_vec()),
        ("partition", target.partition.to_string().into_bytes()),
        ("offset", l.offset.to_string().into_bytes()),
        ("timestamp", l.timestamp.to_string().into_bytes()),
    ];
    if let Some(row) = l.row {
        headers.push(("row", row.to_string().into_bytes()));
    }
    OutRecord { key: l.key, value: l.value, headers }
}
