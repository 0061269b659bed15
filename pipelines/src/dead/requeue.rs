//! Giving letters back to the source, each once.

use std::path::{Path, PathBuf};

use avouch_connectors::kafka::{KafkaError, OutRecord, TransactionalSink, record_limit};
use avouch_engine::dead_letter::DeadReason;
use thiserror::Error;

use super::record::{Given, Record, RecordError, replace};
use super::{DeadError, Filter, Letter, each};
use crate::lang::{Format, KafkaSource, Pipeline, SourceKind};
use crate::runtime::lanes_here;

/// The header that says which record a requeued one is a copy of.
pub const HEADER: &str = "avouch.requeued-from";

/// Why letters cannot be given back.
#[derive(Debug, Error)]
pub enum RequeueError {
    /// The letters cannot be read.
    #[error(transparent)]
    Dead(#[from] DeadError),
    /// What was given back is not known.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// The source's cluster.
    #[error(transparent)]
    Kafka(#[from] KafkaError),
    /// A file cannot be written.
    #[error("{path}: {source}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

/// What is going to be given back, of the letters meant.
pub struct Requeue<'p> {
    pipeline: &'p Pipeline,
    state: PathBuf,
    record: Record,
    sink: Option<TransactionalSink>,
    letters: Vec<Letter>,
    /// Letters given back before.
    pub before: usize,
    /// Letters that cannot be given back: single rows of records of many, or, in a file, values that are not one line of text.
    pub unfit: usize,
    /// Letters left out because they would be late again.
    pub late: usize,
}

/// What was done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// How many letters were given back.
    pub given: usize,
    /// To where.
    pub to: String,
}

impl<'p> Requeue<'p> {
    /// Finds what is to be given back. Of late letters only if `filter` names that reason: they would be late again.
    ///
    /// # Errors
    /// [`RequeueError`]; nothing was written then.
    pub async fn plan(pipeline: &'p Pipeline, filter: &Filter) -> Result<Self, RequeueError> {
        let state = lanes_here(pipeline).map_err(DeadError::from)?;
        let state = std::path::absolute(&state).map_err(|source| RequeueError::File { path: state, source })?;
        if !state.is_dir() {
            return Err(DeadError::NoState { dir: state }.into());
        }
        let mut record = Record::open(&state)?;
        let sink = match &pipeline.source.kind {
            SourceKind::Kafka(kafka) => Some(open(pipeline, kafka).await?),
            SourceKind::Files(_) | SourceKind::Mqtt(_) | SourceKind::Ethereum(_) => None,
        };
        record.settle(sink.as_ref().and_then(TransactionalSink::position))?;
        let given = record.all();
        let mut plan = Self { pipeline, state, record, sink, letters: Vec::new(), before: 0, unfit: 0, late: 0 };
        let state = plan.state.clone();
        let in_file = plan.sink.is_none();
        each(&state, filter, |letter| {
            if given.contains(&(letter.lane, letter.number)) {
                plan.before += 1;
            } else if letter.letter.row.is_some() && matches!(pipeline.source.format, Format::Arrow)
                || in_file && line(&letter).is_none()
            {
                plan.unfit += 1;
            } else if letter.letter.reason == DeadReason::Late && !filter.reasons.contains(&DeadReason::Late) {
                plan.late += 1;
            } else {
                plan.letters.push(letter);
            }
            Ok::<(), RequeueError>(())
        })?;
        Ok(plan)
    }

    /// The letters that are going to be given back.
    pub fn letters(&self) -> &[Letter] {
        &self.letters
    }

    /// Where they go, as it stands in the pipeline file.
    pub fn target(&self) -> String {
        match (&self.pipeline.source.kind, self.file()) {
            (SourceKind::Kafka(kafka), _) => format!("topic {}", kafka.topic.raw()),
            (_, file) => file.display().to_string(),
        }
    }

    /// A name that follows from what was given back before, so that doing it again after a crash writes the same file.
    fn file(&self) -> PathBuf {
        self.state.join("requeued").join(format!("{:012}.ndjson", self.record.done()))
    }

    /// Gives them back: to a topic in one transaction, so all or none; to a file, which is put in place whole.
    ///
    /// # Errors
    /// [`RequeueError`]. Whether they were written is then found out by the next attempt, which gives none back twice.
    pub fn give(mut self) -> Result<Outcome, RequeueError> {
        let outcome = Outcome { given: self.letters.len(), to: self.target() };
        if self.letters.is_empty() {
            return Ok(outcome);
        }
        let file = self.file();
        let lines = self.letters.iter().map(|l| Given { lane: l.lane, number: l.number, offset: l.letter.offset });
        let next = self.record.announce(lines)?;
        match &self.sink {
            Some(sink) => {
                let topic = self.pipeline.source.log_name();
                // A lane's partition is its letters' own, whatever partitioner the devices' producer has.
                let header = self.pipeline.source.signature_header().map(str::to_owned);
                let own = self.pipeline.source.repartition().is_none();
                let records: Vec<OutRecord> = self
                    .letters
                    .drain(..)
                    .map(|l| OutRecord {
                        headers: vec![(HEADER, format!("{topic}/{}", l.place()).into_bytes())],
                        partition: own.then_some(l.lane),
                        key: l.letter.key,
                        value: l.letter.value,
                        named: header.clone().zip(l.letter.signature),
                        may_be_cut: false,
                    })
                    .collect();
                sink.write(&records, next, &self.record.note(next))?;
            }
            None => {
                let text: String = self.letters.iter().filter_map(line).flat_map(|l| [l, "\n"]).collect();
                write_file(&file, text.as_bytes())?;
            }
        }
        self.record.written()?;
        Ok(outcome)
    }
}

fn write_file(path: &Path, bytes: &[u8]) -> Result<(), RequeueError> {
    let failed = |source| RequeueError::File { path: path.to_owned(), source };
    if let Some(dir) = path.parent() {
        std::fs::create_dir_all(dir).map_err(failed)?;
    }
    replace(path, bytes).map_err(failed)
}

/// A value as a line of a file.
fn line(letter: &Letter) -> Option<&str> {
    let text = std::str::from_utf8(letter.letter.value.as_deref()?).ok()?;
    (!text.trim().is_empty() && !text.contains(['\n', '\r'])).then_some(text)
}

async fn open(pipeline: &Pipeline, kafka: &KafkaSource) -> Result<TransactionalSink, KafkaError> {
    let (connection, topic) = (kafka.connection(), kafka.topic.as_str().to_owned());
    let limit = record_limit(&connection, &topic).await;
    let id = format!("avouch.{}.requeue.{topic}", pipeline.name.value);
    let opened = tokio::task::spawn_blocking(move || TransactionalSink::open(&connection, &topic, limit, &id)).await;
    match opened {
        Ok(opened) => opened,
        Err(e) if e.is_panic() => std::panic::resume_unwind(e.into_panic()),
        Err(_) => std::future::pending().await,
    }
}
