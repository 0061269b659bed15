//! What feeds a lane: its input log, read in order from the offset a checkpoint names.
//!
//! Every kind of source gives the same thing: records with strictly increasing offsets that come back the same when they
//! are read again. That is all a lane needs for its verdicts to be a function of its input.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use avouch_connectors::ethereum::source::{ChainBatch, ChainLog};
use avouch_connectors::files::log::{FileBatch, FileLog};
use avouch_connectors::journal::{JournalBatch, JournalHandle, JournalReader};
use avouch_connectors::kafka::{Batch, PartitionReader};
use avouch_connectors::mqtt::Counts;
use avouch_engine::dead_letter::DeadLetter;
use avouch_engine::decode::RawRecord;

use super::MOST_MESSAGES;
use super::error::RuntimeError;
use super::inputs::now_ms;
use super::repartition::Origin;

/// The reading end of one lane's input log.
pub enum LaneInput {
    /// A partition of a Kafka topic.
    Kafka(PartitionReader),
    /// A partition of the topic that a Kafka topic is repartitioned through.
    Repartitioned(PartitionReader),
    /// Files, one after another.
    Files(Box<FileLog>),
    /// A chain.
    Chain(Box<ChainLog>),
    /// A journal that a bridge fills.
    Journal(Box<JournalInput>),
}

/// A journal, and how far back it is needed.
pub struct JournalInput {
    reader: JournalReader,
    handle: JournalHandle,
    counts: Arc<Counts>,
    /// Offsets of the checkpoints made by this process, the newest last, as many as the store keeps.
    kept: VecDeque<i64>,
    /// How many connections had been lost when the bridge was last looked at.
    lost: u64,
}

impl JournalInput {
    /// Reads on where `reader` stands. `counts`: those of the bridge that fills the journal.
    pub fn new(reader: JournalReader, handle: JournalHandle, counts: Arc<Counts>) -> Self {
        Self { reader, handle, counts, kept: VecDeque::new(), lost: 0 }
    }
}

impl LaneInput {
    /// The same, where its topic is one that records are repartitioned through.
    pub fn repartitioned(self) -> Self {
        match self {
            LaneInput::Kafka(reader) => LaneInput::Repartitioned(reader),
            other => other,
        }
    }

    /// The lane it feeds, which for Kafka is the partition; the others feed one lane.
    pub fn lane(&self) -> i32 {
        match self {
            LaneInput::Kafka(reader) | LaneInput::Repartitioned(reader) => reader.partition(),
            LaneInput::Files(_) | LaneInput::Chain(_) | LaneInput::Journal(_) => 0,
        }
    }

    /// Whether whoever keeps the log says, within `timeout`, that there is nothing in it behind what was polled, which
    /// is all before `next_offset`. `false` also when there is no answer: silence is no proof that nothing more is coming.
    pub fn is_at_end(&self, next_offset: i64, timeout: Duration) -> bool {
        match self {
            LaneInput::Kafka(reader) | LaneInput::Repartitioned(reader) => reader.is_at_end(next_offset, timeout),
            // The last look found nothing more, and there is nobody else to ask.
            LaneInput::Files(_) => true,
            LaneInput::Chain(log) => log.is_at_end(next_offset),
            // While the MQTT broker is away, messages wait there.
            LaneInput::Journal(journal) => {
                journal.counts.connected.load(Ordering::Relaxed) && journal.handle.end() == next_offset
            }
        }
    }

    /// How many offsets lie between `next_offset` and the end of the log, as far as that is known without asking anybody:
    /// `None` for files, whose end is known only when it is reached. Of a chain, how many blocks.
    pub fn behind(&self, next_offset: i64) -> Option<i64> {
        match self {
            LaneInput::Kafka(reader) | LaneInput::Repartitioned(reader) => reader.behind(next_offset),
            LaneInput::Files(_) => None,
            LaneInput::Chain(log) => log.blocks_behind(next_offset),
            LaneInput::Journal(journal) => Some(journal.handle.end().saturating_sub(next_offset).max(0)),
        }
    }

    /// Whether silence since the last call says anything: while an MQTT broker is away or the journal is full, messages wait
    /// at the broker, and afterwards they take a moment to come; while a chain's endpoint fails, events wait there.
    pub fn was_listening(&mut self) -> bool {
        let journal = match self {
            LaneInput::Journal(journal) => journal,
            LaneInput::Chain(log) => return log.was_listening(),
            LaneInput::Kafka(_) | LaneInput::Repartitioned(_) | LaneInput::Files(_) => return true,
        };
        let lost = journal.counts.failures.load(Ordering::Relaxed);
        let unbroken = std::mem::replace(&mut journal.lost, lost) == lost;
        unbroken && !journal.handle.is_full() && journal.counts.connected.load(Ordering::Relaxed)
    }

    /// Waits at most `timeout` for records. An empty batch means that none came.
    ///
    /// # Errors
    /// Those after which this input cannot go on. What passes by itself (a broker that is away) is waited for.
    pub fn poll(&mut self, timeout: Duration) -> Result<InputBatch, RuntimeError> {
        Ok(match self {
            LaneInput::Kafka(reader) => InputBatch::Kafka(reader.poll(timeout)?),
            LaneInput::Repartitioned(reader) => InputBatch::Repartitioned(reader.poll(timeout)?),
            LaneInput::Files(log) => InputBatch::Files(log.poll(timeout, MOST_MESSAGES)?),
            LaneInput::Chain(log) => InputBatch::Chain(log.poll(timeout, MOST_MESSAGES)?),
            LaneInput::Journal(journal) => InputBatch::Journal(journal.reader.poll(timeout, MOST_MESSAGES)?),
        })
    }

    /// Told after a checkpoint that the lane reads on at `offset`. What no checkpoint that is kept needs may go.
    pub fn checkpointed(&mut self, offset: i64, kept: usize) -> Result<(), RuntimeError> {
        if let LaneInput::Journal(journal) = self {
            journal.kept.push_back(offset);
            while journal.kept.len() > kept.max(1) {
                journal.kept.pop_front();
            }
            if journal.kept.len() == kept.max(1)
                && let Some(oldest) = journal.kept.front()
            {
                journal.handle.release(*oldest, now_ms())?;
            }
        }
        Ok(())
    }

    /// Whether a checkpoint is wanted though nothing was read: the input has no room left, and gives some free only as
    /// checkpoints follow each other.
    pub fn wants_checkpoint(&self) -> bool {
        matches!(self, LaneInput::Journal(journal) if journal.handle.is_full())
    }
}

/// Records of one lane in offset order, owned until dropped.
pub enum InputBatch {
    /// Messages that librdkafka owns.
    Kafka(Batch),
    /// The same, of a topic that is repartitioned through.
    Repartitioned(Batch),
    /// Rows of files.
    Files(FileBatch),
    /// Blocks or events.
    Chain(ChainBatch),
    /// Records of a journal.
    Journal(JournalBatch),
}

impl InputBatch {
    /// Whether it has no record.
    pub fn is_empty(&self) -> bool {
        match self {
            InputBatch::Kafka(batch) | InputBatch::Repartitioned(batch) => batch.is_empty(),
            InputBatch::Files(batch) => batch.is_empty(),
            InputBatch::Chain(batch) => batch.is_empty(),
            InputBatch::Journal(batch) => batch.is_empty(),
        }
    }

    /// If there was nothing more to read behind these records: the offset to go on from, which may lie beyond the last
    /// record (aborted records and transaction markers are never seen). The lane had then caught up with its input.
    pub fn end(&self) -> Option<i64> {
        match self {
            InputBatch::Kafka(batch) | InputBatch::Repartitioned(batch) => batch.end(),
            InputBatch::Files(batch) => batch.end(),
            InputBatch::Chain(batch) => batch.end(),
            InputBatch::Journal(batch) => batch.end(),
        }
    }

    /// Appends the records, which borrow the batch.
    pub fn records<'a>(&'a self, out: &mut Vec<RawRecord<'a>>) {
        match self {
            InputBatch::Kafka(batch) => batch.records(out),
            InputBatch::Repartitioned(batch) => out.extend((0..batch.len()).filter_map(|i| {
                let origin = Origin::of(&batch.headers(i)).record();
                Some(RawRecord { origin, ..batch.record(i)? })
            })),
            InputBatch::Files(batch) => batch.records(out),
            InputBatch::Chain(batch) => batch.records(out),
            InputBatch::Journal(batch) => batch.records(out),
        }
    }

    /// Adds to a dead letter what its source knows of the row: file and line, and the row as it stands there; or where
    /// the record stood, and its key, before it was repartitioned.
    pub fn explain(&self, letter: &mut DeadLetter) {
        match self {
            InputBatch::Files(batch) => {
                let Some(finding) = batch.finding(letter.offset) else { return };
                let what = finding.problem.unwrap_or(&letter.detail);
                letter.detail = format!("{}: {what}", finding.place);
                if let Some(raw) = finding.raw {
                    letter.value = Some(raw.to_vec());
                }
            }
            InputBatch::Chain(batch) => {
                let Some(finding) = batch.finding(letter.offset) else { return };
                let what = finding.problem.unwrap_or(&letter.detail);
                letter.detail = format!("{}: {what}", finding.place);
                if let Some(raw) = finding.raw {
                    letter.value = Some(raw.to_vec());
                }
            }
            InputBatch::Repartitioned(batch) => {
                let Some(index) = batch.index_of(letter.offset) else { return };
                Origin::of(&batch.headers(index)).explain(letter);
            }
            InputBatch::Kafka(_) | InputBatch::Journal(_) => {}
        }
    }
}
