//! The kinds of sinks behind one face. Dispatch is by batch.

use avouch_connectors::delivery::Failure;
use avouch_connectors::kafka::KafkaError;
use avouch_connectors::store::{Cursor, LaneReader, StoreError};
use avouch_engine::control::sink::Gather;

use super::super::error::RuntimeError;
use super::alerts::AlertWriter;
use super::archive::ArchiveWriter;
use super::feed::Item;
use super::files::FileWriter;
use super::kafka::KafkaWriter;
use super::lines::LineWriter;
use super::webhook::WebhookWriter;
use super::{Output, Target};

/// Why a delivery did not go through.
#[derive(Debug)]
pub(super) enum Halt {
    /// Going on would be wrong.
    Stop(RuntimeError),
    /// The sink's answer.
    Failed(Failure),
}

impl From<RuntimeError> for Halt {
    fn from(e: RuntimeError) -> Self {
        Halt::Stop(e)
    }
}

impl From<StoreError> for Halt {
    fn from(e: StoreError) -> Self {
        Halt::Stop(e.into())
    }
}

impl From<Failure> for Halt {
    fn from(e: Failure) -> Self {
        Halt::Failed(e)
    }
}

impl From<KafkaError> for Halt {
    fn from(e: KafkaError) -> Self {
        match e {
            e @ KafkaError::Fenced { .. } => Halt::Stop(e.into()),
            e => Halt::Failed(e.failure()),
        }
    }
}

/// Where a sink goes on, as it says when it is opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Position {
    /// The cursor; `None` where there has been none.
    pub cursor: Option<u64>,
    /// What identifies everything delivered by then, if the sink keeps that.
    pub note: Option<String>,
    /// The copy of the cursor in the lane's directory.
    pub saved: u64,
    /// The end of a range that is announced and perhaps not written.
    pub announced: Option<u64>,
}

impl Position {
    /// Of a sink whose cursor is the lane's file.
    pub fn of(cursor: &Cursor) -> Self {
        Self { cursor: Some(cursor.get()), note: None, saved: cursor.get(), announced: None }
    }
}

/// What is offered at once: the items of the feed's range `[from, to)` that the sink takes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Batch<'a> {
    pub log: &'a str,
    pub items: &'a [Item],
    pub from: u64,
    pub to: u64,
    /// Identifies everything before `to`.
    pub note: &'a str,
}

pub(super) enum Writer {
    Kafka(KafkaWriter),
    Archive(ArchiveWriter),
    Alerts(AlertWriter),
    Webhook(WebhookWriter),
    Stdout(LineWriter),
    Files(FileWriter),
}

impl Writer {
    pub async fn open(target: &Target, reader: &LaneReader) -> Result<(Self, Position), Halt> {
        Ok(match &target.output {
            Output::Kafka { connection, topic } => {
                let (w, p) = KafkaWriter::open(target, connection, topic, reader).await?;
                (Writer::Kafka(w), p)
            }
            Output::Archive(options) => {
                let (w, p) = ArchiveWriter::open(target, options, reader).await?;
                (Writer::Archive(w), p)
            }
            Output::Alerts(options) => {
                let (w, p) = AlertWriter::open(target, options, reader)?;
                (Writer::Alerts(w), p)
            }
            Output::Webhook(options) => {
                let (w, p) = WebhookWriter::open(target, options, reader)?;
                (Writer::Webhook(w), p)
            }
            Output::Stdout => {
                let (w, p) = LineWriter::open(target, reader)?;
                (Writer::Stdout(w), p)
            }
            Output::Files(options) => {
                let (w, p) = FileWriter::open(target, options, reader)?;
                (Writer::Files(w), p)
            }
        })
    }

    /// The most items and bytes of a batch.
    pub fn most(&self) -> (usize, usize) {
        match self {
            Writer::Archive(w) => w.most(),
            Writer::Webhook(w) => (w.most(), 8 << 20),
            _ => (2_000, 8 << 20),
        }
    }

    /// How it gathers records before it takes them.
    pub fn gather(&self) -> Option<Gather> {
        match self {
            Writer::Archive(w) => Some(w.gather()),
            _ => None,
        }
    }

    /// Says what the next batch will be, before it is offered. What must be durable before the first byte goes out, is then.
    pub async fn announce(&mut self, to: u64) -> Result<(), Halt> {
        match self {
            Writer::Archive(w) => w.announce(to).await,
            _ => Ok(()),
        }
    }

    /// Offers a batch; when this returns, the sink has it.
    pub async fn deliver(&mut self, target: &Target, batch: Batch<'_>) -> Result<(), Halt> {
        match self {
            Writer::Kafka(w) => w.deliver(target, batch).await,
            Writer::Archive(w) => w.deliver(batch).await,
            Writer::Alerts(w) => w.deliver(target, batch).await,
            Writer::Webhook(w) => w.deliver(target, batch).await,
            Writer::Stdout(w) => w.deliver(target, batch).await,
            Writer::Files(w) => w.deliver(target, batch).await,
        }
    }

    /// Sets the cursor in the lane's directory, durably: everything before `next` is delivered.
    pub fn save(&mut self, next: u64) -> Result<(), StoreError> {
        match self {
            Writer::Kafka(w) => w.cursor.set(next),
            Writer::Archive(w) => w.copy.set(next),
            Writer::Alerts(w) => w.save(next),
            Writer::Webhook(w) => w.cursor.set(next),
            Writer::Stdout(w) => w.cursor.set(next),
            Writer::Files(w) => w.save(next),
        }
    }

    /// Why it must not go on: `delivered` are delivered, but there is no cursor where it was kept.
    pub fn forgotten(&self, target: &Target, delivered: u64) -> RuntimeError {
        let why = match self {
            Writer::Kafka(w) => w.forgotten(target, delivered),
            Writer::Archive(w) => w.forgotten(target, delivered),
            _ => format!("the cursor of sink \"{}\", which has delivered {delivered}, is gone", target.name),
        };
        RuntimeError::Inconsistent { lane: target.partition, why }
    }

    /// How often an idle sink wants [`Writer::refresh`], milliseconds.
    pub fn refresh_every(&self) -> Option<i64> {
        match self {
            Writer::Kafka(w) => w.refresh_every(),
            Writer::Alerts(w) => w.refresh_every(),
            _ => None,
        }
    }

    /// Keeps what the other side would forget.
    pub async fn refresh(&mut self, at: u64, note: &str) -> Result<(), Halt> {
        match self {
            Writer::Kafka(w) => w.write(Vec::new(), at, note).await,
            Writer::Alerts(w) => w.refresh().await,
            _ => Ok(()),
        }
    }
}

/// Runs what blocks on a thread for it.
pub(super) async fn blocking<T: Send + 'static>(
    f: impl FnOnce() -> Result<T, Halt> + Send + 'static,
) -> Result<T, Halt> {
    match tokio::task::spawn_blocking(f).await {
        Ok(out) => out,
        Err(e) => Err(RuntimeError::Start(format!("a sink's thread ended: {e}")).into()),
    }
}
