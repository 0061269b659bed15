//! Records into lanes, piece by piece.

use std::collections::VecDeque;
use std::sync::Arc;

use avouch_connectors::files::{FilesError, Replay, Row};
use avouch_connectors::kafka::partition_of_key;
use avouch_engine::decode::RawRecord;
use avouch_engine::event::Tick;
use avouch_engine::lane::{Counters, Lane, LaneError, Output, StepRows};
use avouch_engine::plan::LanePlan;
use thiserror::Error;

use super::options::{Ending, HistoryOptions};

/// Rows read before lanes take them. Any number gives the same output.
const CHUNK: usize = 4_096;

/// Why a pipeline cannot be run over history.
#[derive(Debug, Error)]
pub enum HistoryError {
    /// The rows cannot be read.
    #[error(transparent)]
    Files(#[from] FilesError),
    /// The engine failed on them.
    #[error("lane {lane}: {source}")]
    Lane {
        /// Which lane.
        lane: i32,
        /// What happened.
        source: LaneError,
    },
}

/// What one lane gave for some of its records.
#[derive(Debug)]
pub struct Piece {
    /// The lane.
    pub lane: i32,
    /// Verdicts, dead letters, events and early results.
    pub output: Output,
    /// Rows of the steps that are watched.
    pub rows: Vec<StepRows>,
}

struct Taken {
    timestamp: i64,
    key: Vec<u8>,
    value: Vec<u8>,
}

struct Feed {
    lane: Lane,
    next_offset: i64,
    waiting: Vec<Taken>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Begin,
    Rows,
    End,
}

/// A pipeline that runs over files.
pub struct History {
    replay: Replay,
    feeds: Vec<Feed>,
    arrival: bool,
    last_timestamp: i64,
    ending: Ending,
    stage: Stage,
    ready: VecDeque<Piece>,
}

impl History {
    /// Opens the files. `plan` is the pipeline's ([`crate::lang::plan`], [`crate::lang::with_early`]).
    ///
    /// # Errors
    /// [`HistoryError::Files`]
    pub fn open(plan: LanePlan, options: HistoryOptions) -> Result<Self, HistoryError> {
        let plan = Arc::new(plan.of_json());
        let replay = options.replay().open()?;
        let feeds = (0..options.lanes.max(1))
            .map(|partition| {
                let mut lane = Lane::new(plan.clone(), partition, options.secret.clone());
                lane.watch(|step| options.watch.iter().any(|w| w == step));
                Feed { lane, next_offset: 0, waiting: Vec::new() }
            })
            .collect();
        Ok(Self {
            replay,
            feeds,
            arrival: options.arrival.is_some(),
            last_timestamp: 0,
            ending: options.ending,
            stage: Stage::Begin,
            ready: VecDeque::new(),
        })
    }

    /// The next piece; `None` when everything was given. Pieces of a lane come in its order.
    ///
    /// # Errors
    /// What is wrong with a file, or with a lane. It is of no use after that.
    // Not an iterator: an error ends it.
    #[allow(clippy::should_implement_trait)]
    pub fn next(&mut self) -> Result<Option<Piece>, HistoryError> {
        loop {
            if let Some(piece) = self.ready.pop_front() {
                return Ok(Some(piece));
            }
            match self.stage {
                Stage::Begin => {
                    self.stage = Stage::Rows;
                    self.each(|feed, out| feed.lane.begin_references(out))?;
                }
                Stage::Rows => {
                    if !self.read()? {
                        self.stage = Stage::End;
                        let ending = self.ending;
                        self.each(|feed, out| feed.end(ending, out))?;
                    }
                }
                Stage::End => return Ok(None),
            }
        }
    }

    /// Bytes read and bytes in all.
    pub fn progress(&self) -> (u64, u64) {
        self.replay.progress()
    }

    /// What was counted in all lanes.
    pub fn counters(&self) -> Counters {
        let mut all = Counters::default();
        for c in self.feeds.iter().map(|f| f.lane.counters()) {
            all.rows_in += c.rows_in;
            all.rows_used += c.rows_used;
            all.ticks += c.ticks;
            all.evicted += c.evicted;
            all.dead.iter_mut().zip(c.dead).for_each(|(sum, n)| *sum += n);
            all.verdicts.iter_mut().zip(c.verdicts).for_each(|(sum, n)| *sum += n);
        }
        all
    }

    /// The lanes, to be looked at: watermarks, what is still open.
    pub fn lanes(&self) -> impl Iterator<Item = &Lane> {
        self.feeds.iter().map(|f| &f.lane)
    }

    /// Reads a chunk and gives it to the lanes; false when there are no more rows.
    fn read(&mut self) -> Result<bool, HistoryError> {
        let lanes = self.feeds.len() as i32;
        let mut row = Row::default();
        let mut n = 0;
        while n < CHUNK && self.replay.next_row(&mut row)? {
            n += 1;
            let time = if self.arrival { row.arrival_ms } else { row.time_ms };
            self.last_timestamp = time.unwrap_or(self.last_timestamp);
            let feed = match row.key.is_empty() {
                true => 0,
                false => partition_of_key(row.key.as_bytes(), lanes) as usize,
            };
            if let Some(feed) = self.feeds.get_mut(feed) {
                feed.waiting.push(Taken {
                    timestamp: self.last_timestamp,
                    key: std::mem::take(&mut row.key).into_bytes(),
                    value: std::mem::take(&mut row.json),
                });
            }
        }
        if n > 0 {
            self.each(Feed::take)?;
        }
        Ok(n > 0)
    }

    fn each(
        &mut self,
        mut act: impl FnMut(&mut Feed, &mut Output) -> Result<(), LaneError>,
    ) -> Result<(), HistoryError> {
        for (lane, feed) in (0..).zip(&mut self.feeds) {
            let mut output = Output::default();
            act(feed, &mut output).map_err(|source| HistoryError::Lane { lane, source })?;
            let rows = feed.lane.take_watched();
            let Output { verdicts, dead, events, early, early_failed } = &output;
            let nothing = verdicts.is_empty()
                && dead.is_empty()
                && events.is_empty()
                && early.is_empty()
                && early_failed.is_empty()
                && rows.is_empty();
            if !nothing {
                self.ready.push_back(Piece { lane, output, rows });
            }
        }
        Ok(())
    }
}

impl Feed {
    fn take(&mut self, out: &mut Output) -> Result<(), LaneError> {
        let waiting = std::mem::take(&mut self.waiting);
        let records: Vec<RawRecord<'_>> = (self.next_offset..)
            .zip(&waiting)
            .map(|(offset, taken)| RawRecord {
                offset,
                timestamp: taken.timestamp,
                key: (!taken.key.is_empty()).then_some(&taken.key),
                value: Some(&taken.value),
                origin: None,
                signature: None,
            })
            .collect();
        self.next_offset += records.len() as i64;
        self.lane.step(&records, out)
    }

    fn end(&mut self, ending: Ending, out: &mut Output) -> Result<(), LaneError> {
        let Some(watermark) = self.lane.watermark() else { return Ok(()) };
        let until = match ending {
            Ending::Stop => return Ok(()),
            Ending::Silence(ms) => watermark.saturating_add(ms),
            Ending::CloseAll => i64::MAX,
        };
        // As a running lane does: a tick for each window that ends.
        while let Some(due) = self.lane.next_due().filter(|due| *due <= until) {
            let at = self.lane.watermark().unwrap_or(due);
            let watermark_ms = due.max(at.saturating_add(1));
            self.lane.tick(Tick { after_offset: self.lane.last_offset(), watermark_ms }, out)?;
        }
        Ok(())
    }
}
