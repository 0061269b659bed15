//! One thread a lane: read, step, append, checkpoint.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use avouch_connectors::http::Readiness;
use avouch_connectors::store::{Commit, Committed, LaneStore, RemoteLane, StoreError};
use avouch_engine::control::Head;
use avouch_engine::control::checkpoint::{Action, Checkpointer, Covered};
use avouch_engine::control::invariants::Violation;
use avouch_engine::dead_letter::DeadReason;
use avouch_engine::decode::RawRecord;
use avouch_engine::event::Tick;
use avouch_engine::idle::Idle;
use avouch_engine::lane::{Counters, Lane, LaneError, Output};
use avouch_engine::plan::LanePlan;
use avouch_engine::replay::Replay;
use avouch_engine::verdict::Severity;
use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::watch;

use super::artifacts::Artifacts;
use super::error::RuntimeError;
use super::generations;
use super::halt::{Ending, Halt};
use super::lane_input::{InputBatch, LaneInput};
use super::metrics::LaneMetrics;
use super::reference_watch::Tables;
use super::schemas::Schemas;
use super::sinks::EarlyOutputs;
use super::tap::LaneTaps;
use crate::labels::{Inbox, Outcome};

/// How long a poll gathers messages: the latency added at low rates.
const GATHER: Duration = Duration::from_millis(20);

/// How often a lane that stands still looks whether it is to go on.
const STANDING: Duration = Duration::from_millis(2);
/// How long a lane waits for the broker's word on where its partition ends.
const BROKER_WAIT: Duration = Duration::from_secs(1);
/// When a lane stops by itself, with everything read before it judged and in a checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Until {
    /// Never.
    Stopped,
    /// Once it has read up to this offset.
    Offset(i64),
    /// Once there is nothing more to read.
    End,
}

/// Everything a lane's thread needs.
pub struct LaneWorker {
    pub plan: Arc<LanePlan>,
    pub lane: Lane,
    pub store: LaneStore,
    /// The object store that checkpoints are copied to, if there is one.
    pub remote: Option<RemoteLane>,
    pub input: LaneInput,
    /// Where results of windows that are still open go.
    pub early: EarlyOutputs,
    /// Who looks on.
    pub taps: LaneTaps,
    pub metrics: LaneMetrics,
    pub readiness: Readiness,
    /// For a source that needs a schema registry.
    pub schemas: Option<Schemas>,
    pub next_offset: i64,
    /// Inputs recorded beyond the checkpoint that the lane was restored from; it makes none before it has taken these.
    pub replay: Replay,
    pub artifacts: Artifacts,
    /// Where what people say of this lane's verdicts comes from.
    pub labels: Inbox,
    /// Says when to make a checkpoint, what it covers, and what may be shown.
    pub checkpoints: Checkpointer,
    /// The reference tables to join with, as they change.
    pub references: watch::Receiver<Tables>,
    /// Watches for idleness, where the source has an `idle_after`.
    pub idle: Option<Idle>,
    /// The origin of the steady clock that idleness and the time between checkpoints are measured by.
    pub began: Instant,
    /// How many checkpoints the store keeps.
    pub kept_checkpoints: usize,
    /// When to stop without being told to.
    pub until: Until,
    pub halt: Arc<Halt>,
    /// Told (partition, offset) after each checkpoint.
    pub checkpointed: UnboundedSender<(i32, i64)>,
    /// When the checkpoint under way was begun; none at the start.
    pub begun: Option<Instant>,
    /// The number of the pipeline's version ([`generations`]).
    pub generation: u64,
}

/// What a lane that ended has left.
#[derive(Debug, Clone)]
pub struct LaneEnd {
    /// Its counters at the end.
    pub counters: Counters,
    /// The durable size of its log.
    pub log_size: u64,
    /// Whether it ended without a checkpoint, because it was not ours any more.
    pub abandoned: bool,
}

impl LaneWorker {
    /// Runs until told to stop, or until the end if there is one. The last act is a checkpoint, unless the lane is abandoned.
    /// Gives the store back however it ends: the lane's lock is let go with it.
    pub fn run(mut self) -> (Result<LaneEnd, RuntimeError>, LaneStore) {
        let ended = self.run_lane();
        (ended, self.store)
    }

    fn run_lane(&mut self) -> Result<LaneEnd, RuntimeError> {
        let partition = self.input.lane();
        let part = format!("lane {partition}");
        self.show();
        // A restored lane has a checkpoint, although this process has not made it.
        let committed = self.store.committed();
        self.metrics.log_size.set(committed.log_size as i64);
        self.metrics.checkpoint_offset.set(committed.next_offset);
        self.metrics.checkpoint_damaged.inc_by(self.store.recovery().damaged.len() as u64);
        let mut output = Output::default();
        if self.replay.is_empty() {
            self.take_references(&mut output)?;
        } else {
            self.begin_replay(&mut output)?;
        }
        // Coverage of the first anchor starts at the first one. And a lane that was carried over to another pipeline begins
        // at a checkpoint of it, and waits until that is durable.
        self.checkpoint(false)?;
        self.readiness.ready(&part);
        loop {
            let batch = self.input.poll(GATHER)?;
            self.taps.follow(&mut self.lane);
            if self.replay.is_empty() && self.references.has_changed().unwrap_or(false) {
                self.take_references(&mut output)?;
            }
            if let Some(schemas) = &mut self.schemas {
                schemas.forget_old(&mut self.lane);
            }
            let mut taken = true;
            if !batch.is_empty() {
                let mut records = Vec::new();
                batch.records(&mut records);
                // Pauses of the client during rebalances must never show the lane a record twice.
                let again = records.iter().take_while(|r| r.offset < self.next_offset).count();
                if again > 0 {
                    tracing::warn!(
                        lane = partition,
                        again,
                        from = self.next_offset,
                        "records came again and are passed over"
                    );
                    records.drain(..again);
                }
                taken = self.take(&batch, &records, &mut output)?;
                self.show();
                if let Some(idle) = &mut self.idle {
                    idle.records(clock_ms(self.began));
                }
            }
            if let Some(end) = batch.end().filter(|_| taken) {
                // Past aborted records and transaction markers there is nothing to read again.
                if end > self.next_offset {
                    self.next_offset = end;
                    self.checkpoints.progressed();
                }
            }
            if taken && self.tick(&mut output)? {
                self.checkpoints.progressed();
                self.show();
            }
            if taken {
                self.take_labels(&mut output)?;
            }
            self.show_lag();
            self.stand_still()?;
            let told = self.halt.told();
            if told == Some(Ending::Abandon) {
                self.hurry();
                tracing::warn!(
                    lane = partition,
                    offset = self.store.committed().next_offset,
                    "lane abandoned after its last checkpoint"
                );
                return Ok(self.end(true));
            }
            let ended = match self.until {
                Until::Stopped => false,
                Until::Offset(end) => self.next_offset >= end,
                Until::End => taken && batch.end().is_some(),
            };
            if self.input.wants_checkpoint() {
                self.checkpoints.progressed();
            }
            let stop = ended || told.is_some();
            self.hurry();
            self.checkpoint(stop)?;
            let polled = self.store.poll_commit();
            if let Some(committed) = self.stored(polled)? {
                self.durable(&committed)?;
                self.show_remote();
            }
            if stop {
                tracing::info!(lane = partition, offset = self.next_offset, log = self.store.size(), "lane stopped");
                return Ok(self.end(false));
            }
        }
    }

    /// While the lane is held, makes everything durable that it has taken, and then waits. It is let go on also while a
    /// checkpoint is being made that does not get done.
    fn stand_still(&mut self) -> Result<(), RuntimeError> {
        while let Some(number) = self.halt.held().filter(|_| self.halt.told().is_none()) {
            match self.checkpoints.action(clock_ms(self.began), true) {
                Action::ReadOn => self.halt.stand_still(number),
                Action::Begin => self.begin_checkpoint(Instant::now())?,
                Action::Settle => {
                    let polled = self.store.poll_commit();
                    if let Some(committed) = self.stored(polled)? {
                        self.durable(&committed)?;
                    }
                    self.show_remote();
                }
            }
            std::thread::sleep(STANDING);
        }
        Ok(())
    }

    /// Takes records, however many rows they hold, and waits for the schemas they need; whether all were taken, which is
    /// not so only when told to stop while waiting.
    fn take(
        &mut self,
        batch: &InputBatch,
        records: &[RawRecord<'_>],
        output: &mut Output,
    ) -> Result<bool, RuntimeError> {
        let mut rest = records;
        while !rest.is_empty() {
            let next = &rest[..self.replay.before(rest).map_err(|source| self.failed(source))?];
            let outcome = match self.lane.step_some(next, output) {
                // What comes before the record that has to wait need not.
                Err(LaneError::NeedSchema { at, .. }) if at > 0 => self.lane.step_some(&next[..at], output),
                other => other,
            };
            match outcome {
                Ok(n) => {
                    self.next_offset = rest[n - 1].offset + 1;
                    self.checkpoints.progressed();
                    rest = &rest[n..];
                    for d in &mut output.dead {
                        batch.explain(d);
                    }
                    self.keep(output)?;
                    self.go_on_replaying(output)?;
                }
                Err(LaneError::NeedSchema { id, .. }) => {
                    if !self.wait_for_schema(id)? {
                        return Ok(false);
                    }
                }
                Err(source) => return Err(self.failed(source)),
            }
        }
        Ok(true)
    }

    fn failed(&self, source: LaneError) -> RuntimeError {
        RuntimeError::Lane { lane: self.input.lane(), source }
    }

    /// Goes back to the tables that the lane used at its checkpoint, then takes what stands there.
    fn begin_replay(&mut self, output: &mut Output) -> Result<(), RuntimeError> {
        tracing::warn!(
            lane = self.input.lane(),
            inputs = self.replay.len(),
            "taking recorded ticks and switches of reference tables again"
        );
        let used: Vec<_> = self.lane.references_in_use().filter_map(|(name, version)| Some((name, version?))).collect();
        for (name, version) in used {
            let outcome = self.artifacts.reference(&name, &version).and_then(|t| self.lane.take_reference(t, output));
            outcome.map_err(|source| self.failed(source))?;
        }
        self.go_on_replaying(output)?;
        // A lane that is at the very beginning records its first tables there; those it has not recorded are new.
        let missing: Vec<_> = self.lane.references_in_use().filter(|(_, v)| v.is_none()).map(|(n, _)| n).collect();
        for table in self.references.borrow().clone() {
            if missing.iter().any(|name| name == table.name()) {
                self.lane.take_reference(table, output).map_err(|source| self.failed(source))?;
            }
        }
        self.keep(output)?;
        self.checkpoints.progressed();
        Ok(())
    }

    /// Takes the recorded inputs that stand behind the last record taken; after the last of all, the tables as they are now.
    fn go_on_replaying(&mut self, output: &mut Output) -> Result<(), RuntimeError> {
        if self.replay.is_empty() {
            return Ok(());
        }
        let artifacts = &self.artifacts;
        let given = self.replay.give(&mut self.lane, |name, version| artifacts.reference(name, version), output);
        self.keep(output)?;
        if let Err(LaneError::NextPipeline { .. }) = &given {
            // What comes is for another pipeline, which begins at this place.
            self.checkpoints.progressed();
            self.checkpoint(true)?;
        }
        given.map_err(|source| self.failed(source))?;
        if self.replay.is_empty() {
            tracing::info!(
                lane = self.input.lane(),
                offset = self.next_offset,
                "all recorded inputs are taken; the lane goes on by itself"
            );
            self.take_references(output)?;
        }
        Ok(())
    }

    /// Waits until the registry says what schema `id` is, however long that takes: what the lane has taken stays durable
    /// meanwhile, and nothing is skipped. False if told to stop.
    fn wait_for_schema(&mut self, id: u32) -> Result<bool, RuntimeError> {
        let lane = self.input.lane();
        let Some(mut schemas) = self.schemas.take() else {
            return Err(RuntimeError::Lane { lane, source: LaneError::NeedSchema { id, at: 0 } });
        };
        let mut waited = false;
        let learnt = loop {
            let Err(e) = schemas.learn(&mut self.lane, id) else { break true };
            let pause = schemas.pause();
            self.metrics.schema_errors.inc();
            tracing::warn!(lane, schema = id, error = %e, ?pause, "the lane waits for a schema");
            self.readiness.waiting(&format!("lane {lane}"), &format!("waiting for schema {id}: {e}"));
            if !waited {
                // All that came before is durable and delivered while this lasts.
                self.checkpoint(true)?;
                self.show();
                waited = true;
            }
            let until = Instant::now() + pause;
            while Instant::now() < until && self.halt.told().is_none() {
                // All is durable already, and it stands still as it is.
                if let Some(number) = self.halt.held() {
                    self.halt.stand_still(number);
                }
                std::thread::sleep(Duration::from_millis(50));
            }
            if self.halt.told().is_some() {
                break false;
            }
        };
        if waited {
            self.readiness.ready(&format!("lane {lane}"));
        }
        self.schemas = Some(schemas);
        Ok(learnt)
    }

    fn end(&self, abandoned: bool) -> LaneEnd {
        let log_size = self.checkpoints.shown().log.size;
        LaneEnd { counters: *self.lane.counters(), log_size, abandoned }
    }

    /// Joins with the tables as they are now. One that is new is recorded at this place of the input.
    fn take_references(&mut self, output: &mut Output) -> Result<(), RuntimeError> {
        let lane = self.input.lane();
        let tables = self.references.borrow_and_update().clone();
        for table in tables {
            self.lane.take_reference(table, output).map_err(|source| RuntimeError::Lane { lane, source })?;
        }
        if !output.events.is_empty() {
            self.checkpoints.progressed();
        }
        self.keep(output)
    }

    /// Lets time go on where no rows come any more. Returns whether it did, which the next checkpoint makes durable
    /// together with its effects.
    fn tick(&mut self, output: &mut Output) -> Result<bool, RuntimeError> {
        let Some(idle) = self.idle.as_mut().filter(|_| self.replay.is_empty()) else { return Ok(false) };
        let mut asked = false;
        if idle.asks(clock_ms(self.began)) {
            let at_end = self.input.was_listening() && self.input.is_at_end(self.next_offset, BROKER_WAIT);
            idle.answer(clock_ms(self.began), at_end);
            asked = true;
        }
        let target = idle.observe(clock_ms(self.began), self.lane.counters().rows_used, self.lane.watermark());
        self.metrics.idle.set(i64::from(target.is_some()));
        let Some(watermark_ms) = target.filter(|t| self.lane.next_due().is_some_and(|due| due <= *t)) else {
            return Ok(false);
        };
        if !asked {
            let at_end = self.input.was_listening() && self.input.is_at_end(self.next_offset, BROKER_WAIT);
            idle.answer(clock_ms(self.began), at_end);
            if !at_end {
                return Ok(false);
            }
        }
        let lane = self.input.lane();
        let tick = Tick { after_offset: self.lane.last_offset(), watermark_ms };
        self.lane.tick(tick, output).map_err(|source| RuntimeError::Lane { lane, source })?;
        tracing::debug!(lane, after_offset = tick.after_offset, watermark_ms, "tick");
        self.keep(output)?;
        Ok(true)
    }

    /// Takes what people have said meanwhile. A lane that stops by itself looks each time, so that it does not miss what was
    /// said before it began.
    fn take_labels(&mut self, output: &mut Output) -> Result<(), RuntimeError> {
        if !self.replay.is_empty() || (self.until == Until::Stopped && !self.labels.is_due()) {
            return Ok(());
        }
        let found = self.labels.take(&self.store.reader())?;
        found.others.iter().for_each(|o| self.metrics.label(*o));
        for label in found.labels {
            let after_offset = self.lane.last_offset();
            self.lane.label(after_offset, label.clone(), output).map_err(|source| self.failed(source))?;
            let size = self.lane.next_index();
            self.labels.taken(&label, size);
            self.metrics.label(Outcome::Taken);
            tracing::info!(lane = self.input.lane(), index = size - 1, says = label.opinion.name(), "label taken");
            self.checkpoints.progressed();
        }
        self.keep(output)
    }

    fn keep(&mut self, output: &mut Output) -> Result<(), RuntimeError> {
        self.store.append_all(&output.verdicts)?;
        self.taps.rows(&mut self.lane);
        self.taps.verdicts(&output.verdicts);
        self.metrics.appended(&output.verdicts);
        output.verdicts.clear();
        for d in output.dead.drain(..) {
            self.store.append_dead(&d)?;
        }
        self.labels.seen(&output.events);
        for e in output.events.drain(..) {
            self.store.append_event(&e)?;
        }
        // After the log, which does not depend on them.
        self.early.offer(output.early.drain(..));
        for e in output.early_failed.drain(..) {
            tracing::warn!(lane = self.input.lane(), error = %e, "no early results: the rows so far cannot be judged");
        }
        Ok(())
    }

    /// Makes a checkpoint if one is due. The lane stands still until the checkpoint before is durable, and while its state is
    /// copied. `last`: until everything that was read is durable.
    fn checkpoint(&mut self, last: bool) -> Result<(), RuntimeError> {
        let started = Instant::now();
        loop {
            match self.checkpoints.action(clock_ms(self.began), last) {
                Action::ReadOn => return Ok(()),
                Action::Settle => self.settle()?,
                Action::Begin => self.begin_checkpoint(started)?,
            }
        }
    }

    fn begin_checkpoint(&mut self, started: Instant) -> Result<(), RuntimeError> {
        let counters = *self.lane.counters();
        let log = Head { size: self.store.size(), root: self.store.root() };
        let covers = Covered { next_offset: self.next_offset, log, dead: self.store.dead_count() };
        // Checked in production, not only in tests: a checkpoint must never make an imbalance durable.
        let begun = self.checkpoints.begin(covers, self.lane.next_index(), &counters, clock_ms(self.began));
        begun.map_err(|v| self.violation(v))?;
        let mut counters = named(&counters);
        counters.extend(generations::counter(self.generation));
        let state = self.lane.snapshot();
        self.metrics.checkpoint_bytes.set(state.len() as i64);
        let begun = self.store.begin_commit(Commit {
            next_offset: covers.next_offset,
            lane_state: state,
            config_hash: self.plan.config_hash,
            topic: &self.plan.source.topic,
            partition: self.input.lane(),
            watermark: self.lane.watermark(),
            counters: &counters,
        });
        self.stored(begun)?;
        self.begun = Some(started);
        self.metrics.checkpoint_duration.observe(started.elapsed().as_secs_f64());
        Ok(())
    }

    fn violation(&self, source: Violation) -> RuntimeError {
        RuntimeError::Violation { lane: self.input.lane(), source }
    }

    /// What the store says of a checkpoint. After a failure none is made any more: the store must be opened again.
    fn stored<T>(&mut self, outcome: Result<T, StoreError>) -> Result<T, RuntimeError> {
        outcome.map_err(|e| {
            self.checkpoints.failed();
            e.into()
        })
    }

    /// Waits for the checkpoint that was begun, if there is one.
    fn settle(&mut self) -> Result<(), RuntimeError> {
        // An object store can take long: its troubles show meanwhile.
        while self.remote.is_some() && self.store.is_committing() {
            self.hurry();
            self.show_remote();
            self.show_lag();
            std::thread::sleep(Duration::from_millis(2));
        }
        let finished = self.store.finish_commit();
        if let Some(committed) = self.stored(finished)? {
            self.durable(&committed)?;
        }
        self.show_remote();
        Ok(())
    }

    /// A checkpoint has become durable.
    fn durable(&mut self, committed: &Committed) -> Result<(), RuntimeError> {
        let lane = self.input.lane();
        let shown = self.checkpoints.durable(&covered(committed)).copied();
        let shown = shown.map_err(|v| self.violation(v))?;
        let took = self.begun.take().map(|b| b.elapsed()).unwrap_or_default();
        self.metrics.checkpoint_write_duration.observe(took.as_secs_f64());
        self.metrics.checkpoint_new_bytes.set(committed.new_state_bytes as i64);
        self.metrics.log_size.set(shown.log.size as i64);
        self.metrics.checkpoint_offset.set(shown.next_offset);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |d| d.as_secs_f64());
        self.metrics.checkpoint_time.set(now);
        tracing::debug!(lane, offset = shown.next_offset, log = shown.log.size, ?took, "checkpoint");
        let (next_offset, size) = (shown.next_offset, shown.log.size);
        self.labels.settled(size);
        self.input.checkpointed(next_offset, self.kept_checkpoints)?;
        if !self.checkpoints.is_at_boundary() {
            self.halt.begin();
        }
        // Nobody listens any more only when the process is ending.
        let _ = self.checkpointed.send((lane, next_offset));
        Ok(())
    }

    /// A process that ends does not wait for ever for an object store that is away.
    fn hurry(&self) {
        if let Some(remote) = self.remote.as_ref().filter(|_| self.halt.told().is_some()) {
            remote.give_up_soon();
        }
    }

    fn show_remote(&mut self) {
        if let Some(remote) = &self.remote {
            self.metrics.show_remote(&remote.stats());
        }
    }

    fn show_lag(&self) {
        if let Some(records) = self.input.behind(self.next_offset) {
            self.metrics.lag(records);
        }
    }

    fn show(&mut self) {
        self.metrics.show(self.lane.counters());
        self.metrics.next_offset.set(self.next_offset);
        self.metrics.devices.set(self.lane.devices() as i64);
        if let Some(identity) = self.lane.identity() {
            self.metrics.show_gaps(identity.skipped());
        }
        if let Some(w) = self.lane.watermark() {
            self.metrics.watermark.set(w as f64 / 1000.0);
        }
    }
}

/// What a checkpoint of the store covers.
pub fn covered(committed: &Committed) -> Covered {
    let log = Head { size: committed.log_size, root: committed.root };
    Covered { next_offset: committed.next_offset, log, dead: committed.dead_count }
}

fn clock_ms(began: Instant) -> i64 {
    i64::try_from(began.elapsed().as_millis()).unwrap_or(i64::MAX)
}

/// The counters as a checkpoint keeps them, for those who look at it.
fn named(c: &Counters) -> Vec<(String, u64)> {
    let mut out = vec![("rows_in".to_owned(), c.rows_in), ("rows_used".to_owned(), c.rows_used)];
    out.extend(DeadReason::ALL.iter().zip(c.dead).map(|(r, n)| (format!("dead_{}", r.name()), n)));
    out.extend(Severity::ALL.iter().zip(c.verdicts).map(|(s, n)| (format!("verdicts_{}", s.name()), n)));
    out
}
