//! The lanes of this process: opened when the source gives them, closed when it takes them back.
//!
//! What is next for a lane, its [`LaneControl`] decides, with its diagram; here it is done ([`Lanes::drive`]): each thing that
//! takes long on a thread or a task of its own, whose end is told to the machine. What follows when a lane has ended is decided in
//! `ended.rs`; how all of them go over to another version of the pipeline, in `change.rs`.
//!
//! A lane's store is opened before anything is read and closed before the partition is given back, so whoever gets it next
//! finds the last checkpoint. A process that was silent for too long loses its lanes without a word: what it still
//! does then is refused by the store (one writer, by lock and generation) and by Kafka (one transactional writer).

mod change;
mod ended;
mod slot;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use avouch_connectors::schema_registry::SchemaRegistry;
use avouch_connectors::store::LaneStore;
use avouch_engine::control::checkpoint::Checkpointer;
use avouch_engine::control::lane::{LaneAction, LaneControl, LaneEvent, LaneState};
use avouch_engine::idle::Idle;
use avouch_engine::lane::Counters;
use tokio::sync::{mpsc, watch};
use tokio::task::{Id, JoinError, JoinSet};

use super::error::RuntimeError;
use super::halt::{Ending, Halt};
use super::inputs::Inputs;
use super::lane_input::LaneInput;
use super::lane_worker::{LaneEnd, LaneWorker, Until, covered};
use super::metrics::Metrics;
use super::open::{Busy, OpenLane, Opener, part};
use super::readers::OwnReaders;
use super::reference_watch::Tables;
use super::schemas::Schemas;
use super::sinks::{self, EarlyOutputs, TailStop};
use super::tap::{LaneTaps, Taps};
use crate::labels::Inbox;
use crate::lang::Pipeline;
use slot::Slot;

/// How often lanes are looked at when nothing happens to them, milliseconds: more often than whoever waits for
/// [`Lanes::next`] has other things to do (every second), since that begins the waiting anew.
const LOOK_EVERY: i64 = 250;
/// How often lanes that are held are looked at, milliseconds.
const LOOK_AT_HELD: i64 = 5;

/// What every lane of the process has in common.
pub struct Setup {
    pub opener: Opener,
    pub checkpoint_every: Duration,
    pub pipeline: Pipeline,
    /// Whether stopping with records undelivered is an error.
    pub must_finish: bool,
    /// Told (partition, offset) after each checkpoint.
    pub checkpointed: mpsc::UnboundedSender<(i32, i64)>,
    /// Where schemas are asked for, if the format has any.
    pub registry: Option<Arc<SchemaRegistry>>,
    /// The reference tables, as they change.
    pub references: watch::Receiver<Tables>,
    /// Who looks on.
    pub taps: Taps,
}

/// What a thread has done for a lane.
enum Done {
    Taken(Result<Result<Box<OpenLane>, Busy>, RuntimeError>),
    Begun(Result<(LaneInput, Until), RuntimeError>),
    Released,
}

/// The lanes of this process.
pub struct Lanes {
    setup: Arc<Setup>,
    readers: OwnReaders,
    slots: BTreeMap<i32, Slot>,
    /// The origin of the steady clock that the machines are told.
    began: Instant,
    threads: JoinSet<(i32, Done)>,
    workers: JoinSet<(i32, Result<LaneEnd, RuntimeError>, LaneStore)>,
    sinks: JoinSet<Result<(), RuntimeError>>,
    /// Whose sink a task is.
    whose: HashMap<Id, i32>,
    /// Partitions that are ours.
    ours: BTreeSet<i32>,
    /// When sinks of a lane were fenced.
    fences: BTreeMap<i32, Vec<Instant>>,
    /// Partitions the group wants back, until all of them are closed.
    revoked: Option<Vec<i32>>,
    /// Lanes are held at a checkpoint so that all of them can go over to another pipeline.
    held: bool,
    /// What the lanes that ended here left.
    ended: BTreeMap<i32, (Counters, u64)>,
    stopping: bool,
}

impl Lanes {
    /// None yet.
    pub fn new(setup: Setup, readers: OwnReaders) -> Self {
        Self {
            setup: Arc::new(setup),
            readers,
            slots: BTreeMap::new(),
            began: Instant::now(),
            threads: JoinSet::new(),
            workers: JoinSet::new(),
            sinks: JoinSet::new(),
            whose: HashMap::new(),
            ours: BTreeSet::new(),
            fences: BTreeMap::new(),
            revoked: None,
            held: false,
            ended: BTreeMap::new(),
            stopping: false,
        }
    }

    fn metrics(&self) -> &Metrics {
        &self.setup.opener.metrics
    }

    fn inputs(&self) -> &Inputs {
        &self.setup.opener.inputs
    }

    /// What the lanes that ended here left, by partition: counters and log size.
    pub fn ended(&self) -> &BTreeMap<i32, (Counters, u64)> {
        &self.ended
    }

    fn now_ms(&self) -> i64 {
        millis(self.began.elapsed())
    }

    /// Opens lanes. Those that are here already stay as they are.
    pub fn given(&mut self, partitions: &[i32]) -> Result<(), RuntimeError> {
        for &partition in partitions {
            self.ours.insert(partition);
            self.open(partition, Duration::ZERO)?;
        }
        self.count();
        Ok(())
    }

    fn open(&mut self, partition: i32, after: Duration) -> Result<(), RuntimeError> {
        if self.slots.contains_key(&partition) || self.stopping {
            return Ok(());
        }
        let (stop_sinks, _) = watch::channel(TailStop::No);
        // At once, not in the task that opens it: this process is not ready between being given a lane and running it.
        self.setup.opener.readiness.waiting(&part(partition), "restoring");
        let slot = Slot {
            control: LaneControl::assigned_after(self.now_ms(), millis(after)),
            halt: Arc::new(Halt::default()),
            busy: false,
            running: false,
            asked: None,
            holder: String::new(),
            taken: None,
            ready: None,
            store: None,
            stop_sinks,
            sinks: Vec::new(),
            cut: false,
            fenced: None,
            reopen: None,
        };
        self.slots.insert(partition, slot);
        self.drive(partition)
    }

    /// Does what the lane's machine says, until there is something to wait for.
    fn drive(&mut self, partition: i32) -> Result<(), RuntimeError> {
        loop {
            let now = self.now_ms();
            let Some(slot) = self.slots.get_mut(&partition) else { return Ok(()) };
            let setup = self.setup.clone();
            let event = match slot.control.action(now) {
                LaneAction::TakeLock if !slot.busy => {
                    slot.busy = true;
                    slot.asked.get_or_insert_with(Instant::now);
                    self.threads.spawn_blocking(move || (partition, Done::Taken(setup.opener.take(partition))));
                    return Ok(());
                }
                LaneAction::Open { .. } if !slot.busy => {
                    slot.busy = true;
                    let offset = slot.taken.as_ref().and_then(|open| open.next_offset);
                    let begin = move || (partition, Done::Begun(setup.opener.begin(partition, offset)));
                    self.threads.spawn_blocking(begin);
                    return Ok(());
                }
                LaneAction::Read if !slot.busy => return self.start(partition),
                LaneAction::Drain => {
                    slot.halt.tell(Ending::Checkpoint);
                    return Ok(());
                }
                LaneAction::StopTails { flush, .. } => {
                    if flush {
                        slot.end_sinks();
                    } else {
                        slot.cut_sinks(partition);
                    }
                    if !slot.sinks.is_empty() {
                        return Ok(());
                    }
                    LaneEvent::TailsStopped
                }
                LaneAction::Release if !slot.busy => match slot.store.take() {
                    Some(store) => {
                        slot.busy = true;
                        // It waits for what is still being written.
                        self.threads.spawn_blocking(move || {
                            drop(store);
                            (partition, Done::Released)
                        });
                        return Ok(());
                    }
                    None => LaneEvent::Released,
                },
                // There is something to wait for, or a thread that is at it.
                _ => return Ok(()),
            };
            slot.on(event, now, partition)?;
        }
    }

    /// Closes lanes that the group wants back; when all are closed, it gets them ([`Source::release`]). `lost`: it has given
    /// them to others already.
    pub fn taken(&mut self, partitions: Vec<i32>, lost: bool) -> Result<(), RuntimeError> {
        let event = if lost { LaneEvent::Lost } else { LaneEvent::Revoked };
        for &partition in &partitions {
            self.ours.remove(&partition);
            self.close(partition, event)?;
        }
        let mut all = self.revoked.take().unwrap_or_default();
        all.extend(partitions);
        self.revoked = Some(all);
        self.settle()
    }

    fn close(&mut self, partition: i32, event: LaneEvent) -> Result<(), RuntimeError> {
        let now = self.now_ms();
        let Some(slot) = self.slots.get_mut(&partition) else { return Ok(()) };
        // The group has spoken: what the fence meant is clear now.
        slot.fenced = None;
        if event == LaneEvent::Lost {
            slot.halt.tell(Ending::Abandon);
        }
        slot.on(event, now, partition)?;
        self.drive(partition)
    }

    /// Ends all lanes, each with a last checkpoint; then their sinks end after what the checkpoints cover. No lane is opened
    /// any more.
    pub fn stop(&mut self) -> Result<(), RuntimeError> {
        self.stopping = true;
        let partitions: Vec<i32> = self.slots.keys().copied().collect();
        for partition in partitions {
            self.close(partition, LaneEvent::Stop)?;
        }
        Ok(())
    }

    /// Whether no lane is left, and nothing of one.
    pub fn idle(&self) -> bool {
        self.slots.is_empty() && self.threads.is_empty() && self.workers.is_empty() && self.sinks.is_empty()
    }

    /// Whether every lane has ended by itself, having reached its end.
    pub fn finished(&self) -> bool {
        let ended = |s: &Slot| matches!(s.control.state(), LaneState::Resting | LaneState::Closing | LaneState::Closed);
        !self.slots.is_empty() && self.slots.values().all(ended)
    }

    /// Waits for the next thing to happen to a lane. Errors are those after which the process cannot go on.
    pub async fn next(&mut self) -> Result<(), RuntimeError> {
        let now = self.now_ms();
        let wakes_at = self.slots.values().filter_map(|s| s.wakes_at(now)).min();
        // With nothing under way there is nothing else to wait for.
        let most = if self.held { LOOK_AT_HELD } else { LOOK_EVERY };
        let left = wakes_at.map_or(most, |at| at.saturating_sub(now).clamp(0, most));
        let outcome = tokio::select! {
            Some(done) = self.threads.join_next() => {
                let (partition, done) = joined(done)?;
                self.done(partition, done)
            }
            Some(ended) = self.workers.join_next() => {
                let (partition, ended, store) = joined(ended)?;
                self.worker_ended(partition, ended, store)
            }
            Some(ended) = self.sinks.join_next_with_id() => match ended {
                Ok((task, ended)) => self.sink_ended(task, ended),
                Err(e) if e.is_cancelled() => self.sink_ended(e.id(), Ok(())),
                Err(e) => Err(died(&e)),
            },
            () = tokio::time::sleep(Duration::from_millis(left.unsigned_abs())) => {
                let partitions: Vec<i32> = self.slots.keys().copied().collect();
                partitions.into_iter().try_for_each(|partition| self.drive(partition))
            }
        };
        // Also after a failure: the lane it ended is closed by now, and nothing else may happen any more.
        let settled = self.settle();
        outcome.and(settled)
    }

    /// A thread has done what the lane's machine said.
    fn done(&mut self, partition: i32, done: Done) -> Result<(), RuntimeError> {
        let now = self.now_ms();
        let Some(slot) = self.slots.get_mut(&partition) else { return Ok(()) };
        slot.busy = false;
        let failed = match done {
            Done::Taken(Ok(Ok(open))) => {
                slot.on(LaneEvent::LockTaken { generation: open.store.generation() }, now, partition)?;
                slot.taken = Some(open);
                None
            }
            Done::Taken(Ok(Err(busy))) => {
                slot.on(LaneEvent::LockBusy, now, partition)?;
                self.setup.opener.say(partition, busy, &mut slot.holder);
                None
            }
            Done::Begun(Ok(ready)) => {
                slot.on(LaneEvent::Restored, now, partition)?;
                slot.ready = Some(ready);
                let took = slot.asked.map(|at| at.elapsed()).unwrap_or_default();
                self.setup.opener.metrics.lane_opening.observe(took.as_secs_f64());
                None
            }
            Done::Released => {
                slot.on(LaneEvent::Released, now, partition)?;
                None
            }
            Done::Taken(Err(e)) | Done::Begun(Err(e)) => {
                slot.on(LaneEvent::Failed, now, partition)?;
                // What a lane that is lost could not do does not matter any more.
                (slot.halt.told() != Some(Ending::Abandon)).then_some(e)
            }
        };
        if !slot.control.may_open() {
            // Told to end meanwhile.
            slot.ready = None;
            if let Some(open) = slot.taken.take() {
                slot.store = Some(open.store);
            }
        }
        self.drive(partition)?;
        failed.map_or(Ok(()), Err)
    }

    /// Runs a lane that is restored, and its sinks.
    fn start(&mut self, partition: i32) -> Result<(), RuntimeError> {
        let setup = self.setup.clone();
        let Some(slot) = self.slots.get_mut(&partition) else { return Ok(()) };
        let (Some(open), Some((input, until))) = (slot.taken.take(), slot.ready.take()) else { return Ok(()) };
        let open = *open;
        slot.busy = true;
        slot.running = true;
        if !open.migrated {
            slot.halt.begin();
        }
        let own = open.store.reader();
        let (early, early_tails) = {
            let log = &own.committed().origin;
            EarlyOutputs::new(&setup.pipeline, log, partition, &setup.opener.metrics)?
        };
        let committed = open.store.committed();
        let every = i64::try_from(setup.checkpoint_every.as_millis()).unwrap_or(i64::MAX);
        let checkpoints = match open.migrated {
            true => Checkpointer::carried_over(covered(&committed), every, 0),
            false => Checkpointer::restored(covered(&committed), committed.seq == 0, every, 0),
        };
        let worker = LaneWorker {
            plan: setup.opener.plan.clone(),
            next_offset: open.next_offset.unwrap_or(0),
            replay: open.replay,
            generation: open.generation,
            artifacts: setup.opener.artifacts.clone(),
            labels: Inbox::new(&setup.opener.state, partition),
            metrics: setup.opener.metrics.lane(partition),
            lane: open.lane,
            store: open.store,
            remote: open.remote,
            input,
            early,
            taps: LaneTaps::new(&setup.taps, &setup.pipeline.name.value, partition),
            readiness: setup.opener.readiness.clone(),
            schemas: setup.registry.clone().map(|r| Schemas::new(r, tokio::runtime::Handle::current())),
            references: setup.references.clone(),
            idle: setup.pipeline.source.time.idle_after_ms.map(Idle::new),
            began: Instant::now(),
            checkpoints,
            kept_checkpoints: setup.opener.stores.keep(),
            until,
            halt: slot.halt.clone(),
            checkpointed: setup.checkpointed.clone(),
            begun: None,
        };
        self.workers.spawn_blocking(move || {
            let (ended, store) = worker.run();
            (partition, ended, store)
        });
        self.readers.insert(partition, own.clone());
        let source = &setup.opener.plan.source.topic;
        let metrics = &setup.opener.metrics;
        let Some(slot) = self.slots.get_mut(&partition) else { return Ok(()) };
        for tail in sinks::tails(&setup.pipeline, source, partition, &own, metrics, setup.must_finish)? {
            let last = tail.is_last();
            let task = self.sinks.spawn(tail.run(slot.stop_sinks.subscribe()));
            self.whose.insert(task.id(), partition);
            slot.sinks.push((task, last));
        }
        for tail in early_tails {
            let task = self.sinks.spawn(tail.run(slot.stop_sinks.subscribe()));
            self.whose.insert(task.id(), partition);
            slot.sinks.push((task, false));
        }
        self.count();
        Ok(())
    }

    /// The lanes of this process that are being opened or closed, or have not begun with a durable checkpoint yet.
    pub fn moving(&self) -> Vec<i32> {
        let begun = |s: &Slot| match s.control.state() {
            LaneState::Running => s.halt.has_begun(),
            LaneState::Resting => true,
            _ => false,
        };
        self.slots.iter().filter(|(_, s)| !begun(s)).map(|(p, _)| *p).collect()
    }

    fn count(&self) {
        let running = self.slots.values().filter(|s| s.running).count();
        self.metrics().lanes_owned.set(running as i64);
        self.metrics().lanes_opening.set((self.slots.len() - running) as i64);
    }
}

fn joined<T>(ended: Result<T, JoinError>) -> Result<T, RuntimeError> {
    ended.map_err(|e| died(&e))
}

fn died(e: &JoinError) -> RuntimeError {
    RuntimeError::Start(format!("a part of the runtime ended: {e}"))
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}
