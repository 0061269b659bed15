//! A Kafka topic. Exactly once: records and cursor in one transaction, the cursor as a group offset on the cluster that is
//! written to (see [`TransactionalSink`]); a repeat of what was committed cannot happen, what was not is invisible. At least
//! once: the cursor is the lane's file, set after delivery.

use std::sync::Arc;
use std::time::Duration;

use avouch_connectors::delivery::{DownKind, Failure};
use avouch_connectors::kafka::{KafkaConnection, OutRecord, PlainSink, TransactionalSink, record_limit};
use avouch_connectors::store::{Cursor, LaneReader};
use avouch_engine::control::sink::REFRESH_MS;

use super::super::verdict_json::verdict_lines;
use super::Target;
use super::feed::{Item, Record, refusing_sink};
use super::writer::{Batch, Halt, Position, blocking};

/// How long a write may take. librdkafka can keep one for ever when its writer is fenced in the middle of it; the sink is then
/// opened again, which fences that writer for good.
const LONGEST_WRITE: Duration = Duration::from_secs(150);

enum Sink {
    Transactional(TransactionalSink),
    Plain(PlainSink),
}

pub(super) struct KafkaWriter {
    sink: Arc<Sink>,
    topic: String,
    /// Of a transactional sink a copy, which tells a first start from a cursor that Kafka has forgotten.
    pub(super) cursor: Cursor,
}

/// One writer a pipeline, sink and lane; also the group that carries its cursor.
fn id(target: &Target, topic: &str) -> String {
    format!("avouch.{}.{}.{topic}.{}", target.pipeline, target.name, target.partition)
}

impl KafkaWriter {
    pub async fn open(
        target: &Target,
        connection: &KafkaConnection,
        topic: &str,
        reader: &LaneReader,
    ) -> Result<(Self, Position), Halt> {
        let limit = record_limit(connection, topic).await;
        // Before older writers are fenced: read afterwards, it could be what a still newer one has saved since.
        let cursor = reader.cursor(&target.name)?;
        let (target, connection, topic) = (target.clone(), connection.clone(), topic.to_owned());
        blocking(move || {
            if !target.exactly_once {
                let sink = Sink::Plain(PlainSink::open(&connection, &topic, limit)?);
                let position = Position::of(&cursor);
                return Ok((Self { sink: Arc::new(sink), topic, cursor }, position));
            }
            let sink = TransactionalSink::open(&connection, &topic, limit, &id(&target, &topic))?;
            let (at, note) = sink.position().unzip();
            let position = Position { cursor: at, note, saved: cursor.get(), announced: None };
            Ok((Self { sink: Arc::new(Sink::Transactional(sink)), topic, cursor }, position))
        })
        .await
    }

    pub async fn deliver(&mut self, target: &Target, batch: Batch<'_>) -> Result<(), Halt> {
        let (log, items) = (batch.log, batch.items);
        let verdicts = items.iter().filter_map(|i| match &i.record {
            Record::Verdict(r) | Record::Refused(_, r) => Some(r),
            Record::Dead(_) => None,
        });
        let mut lines = verdict_lines(log, verdicts).into_iter();
        let records = items.iter().map(|i| record(log, target, i, &mut lines)).collect();
        self.write(records, batch.to, batch.note).await
    }

    pub async fn write(&mut self, records: Vec<OutRecord>, next: u64, note: &str) -> Result<(), Halt> {
        let (sink, note) = (self.sink.clone(), note.to_owned());
        let write = blocking(move || {
            match &*sink {
                Sink::Transactional(sink) => sink.write(&records, next, &note)?,
                // Nothing to say is nothing to wait for.
                Sink::Plain(_) if records.is_empty() => {}
                Sink::Plain(sink) => sink.write(&records)?,
            }
            Ok(())
        });
        tokio::time::timeout(LONGEST_WRITE, write).await.map_err(|_| {
            let why = format!("a write took longer than {LONGEST_WRITE:?}");
            Halt::Failed(Failure::down(DownKind::Timeout, why))
        })?
    }

    pub fn refresh_every(&self) -> Option<i64> {
        matches!(*self.sink, Sink::Transactional(_)).then_some(REFRESH_MS)
    }

    pub fn forgotten(&self, target: &Target, at: u64) -> String {
        let (group, topic) = (id(target, &self.topic), &self.topic);
        format!(
            "sink \"{}\" has delivered {at} but Kafka holds no cursor in the group \"{group}\": it expired \
             (offsets.retention.minutes), the topic was deleted, or this is another cluster. To go on there, set the group's \
             offset of {topic}/0 to {at}; to deliver everything again, delete the lane's file cursor-{}",
            target.name, target.name
        )
    }
}

/// `lines` has the verdicts of the items from this one on.
fn record(log: &str, target: &Target, item: &Item, lines: &mut impl Iterator<Item = Vec<u8>>) -> OutRecord {
    let text = |s: &str| s.as_bytes().to_vec();
    match &item.record {
        Record::Verdict(r) => OutRecord {
            partition: None,
            key: Some(r.evidence.device.clone().into_bytes()),
            value: lines.next(),
            headers: vec![("log", text(log)), ("index", r.index.to_string().into_bytes())],
            named: None,
            // Half a verdict is none; one that is too large goes to the dead letters.
            may_be_cut: false,
        },
        Record::Refused(refusal, r) => OutRecord {
            partition: None,
            key: Some(r.evidence.device.clone().into_bytes()),
            value: lines.next(),
            headers: vec![
                ("reason", text("refused")),
                ("detail", text(&refusal.why)),
                ("sink", text(refusing_sink(target))),
                ("status", text(&refusal.status)),
                ("log", text(log)),
                ("index", refusal.index.to_string().into_bytes()),
            ],
            named: None,
            may_be_cut: true,
        },
        Record::Dead(l) => {
            let mut headers = vec![
                ("reason", text(l.reason.name())),
                ("detail", text(&l.detail)),
                ("topic", text(&target.source_topic)),
                ("partition", target.partition.to_string().into_bytes()),
                ("offset", l.offset.to_string().into_bytes()),
                ("timestamp", l.timestamp.to_string().into_bytes()),
            ];
            if let Some(row) = l.row {
                headers.push(("row", row.to_string().into_bytes()));
            }
            if let Some(signature) = &l.signature {
                headers.push(("signature", signature.clone()));
            }
            OutRecord {
                partition: None,
                key: l.key.clone(),
                value: l.value.clone(),
                headers,
                named: None,
                may_be_cut: true,
            }
        }
    }
}
