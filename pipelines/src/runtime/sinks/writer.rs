//! The kinds of sinks behind one face. Dispatch is by batch.

use std::time::Duration;

use avouch_connectors::delivery::Failure;
use avouch_connectors::kafka::KafkaError;
use avouch_connectors::store::{LaneReader, StoreError};

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

/// Where a sink goes on, and what identifies what it had delivered by then, if it keeps that.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Position {
    pub at: u64,
    pub note: Option<String>,
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

    /// For how long to wait for more than `pending` records, of which the oldest has waited for `waited`.
    pub fn wait_for_more(&self, pending: u64, waited: Duration) -> Option<Duration> {
        match self {
            Writer::Archive(w) => w.wait_for_more(pending, waited),
            _ => None,
        }
    }

    /// Where the next batch must end, if that was decided before.
    pub fn until(&self) -> Option<u64> {
        match self {
            Writer::Archive(w) => w.until(),
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

    /// Offers a batch; when this returns, the sink has it and the cursor is durably at its end.
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

    /// How often an idle sink wants [`Writer::refresh`].
    pub fn refresh_every(&self) -> Option<Duration> {
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
            Writer::Alerts(w) => w.refresh(at).await,
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
