//! A lane in a process: drives [`LaneControl`] and [`Checkpointer`] against the simulated disk or object store, act by act in
//! the order of `connectors/src/store`.

use avouch_engine::control::checkpoint::{Action, Checkpointer, Covered};
use avouch_engine::control::invariants;
use avouch_engine::control::lane::{LaneAction, LaneControl, LaneEvent};
use avouch_engine::control::{Head, Stop};

use super::anchor_task::AnchorTask;
use super::bugs::Bug;
use super::disk::Checkpoint;
use super::kafka::Life;
use super::lanes::{Made, SimLane, Snapshot, Tick, grow_root, head};
use super::objects::{Manifest, Part};
use super::sink_task::{LogView, Role, SinkTask};
use super::world::{Answer, Ask, Call, Heard, Task, World};

/// What a lane leaves in its process's memory.
#[derive(Clone)]
pub struct Remembered {
    log: Vec<u64>,
    dead: Vec<u64>,
    ticks: Vec<Tick>,
    next_offset: usize,
    state: Snapshot,
}

pub struct LaneTask {
    lane: usize,
    life: Life,
    control: LaneControl,
    checkpointer: Option<Checkpointer>,
    sim: Option<SimLane>,
    made: Made,
    log: Vec<u64>,
    /// By size, from 0 on.
    roots: Vec<u64>,
    dead: Vec<u64>,
    ticks: Vec<Tick>,
    next_offset: usize,
    /// Number of the last checkpoint, or manifest.
    seq: u64,
    generation: u64,
    /// Entries and dead letters that the operating system has, or the object store's parts.
    handed: (usize, usize),
    parts: Vec<u64>,
    writer: u64,
    /// Where in the present action it is.
    phase: u8,
    under_way: Option<Checkpoint>,
    pub call: Option<Call>,
    sinks: [Option<Box<SinkTask>>; 4],
    /// How many refusals of the first sink stand.
    settled: u64,
}

impl LaneTask {
    pub fn new(lane: usize, life: Life) -> Self {
        Self {
            lane,
            life,
            control: LaneControl::assigned(),
            checkpointer: None,
            sim: None,
            made: Made::default(),
            log: Vec::new(),
            roots: vec![0],
            dead: Vec::new(),
            ticks: Vec::new(),
            next_offset: 0,
            seq: 0,
            generation: 0,
            handed: (0, 0),
            parts: Vec::new(),
            writer: 0,
            phase: 0,
            under_way: None,
            call: None,
            sinks: [const { None }; 4],
            settled: 0,
        }
    }

    pub fn action(&self, now: i64) -> LaneAction {
        self.control.action(now)
    }

    pub fn tell(&mut self, w: &mut World, event: LaneEvent, now: i64) {
        w.hold(self.control.on(event, now));
    }

    pub fn sink_call(&mut self, sink: usize) -> Option<&mut Call> {
        self.sinks[sink].as_mut()?.call.as_mut()
    }

    pub fn describe(&self) -> String {
        let sinks: Vec<_> = self.sinks.iter().flatten().map(|s| s.describe()).collect();
        format!("{:?} phase {} offset {} sinks {sinks:?}", self.control.state(), self.phase, self.next_offset)
    }

    fn due(&self, now: i64, last: bool) -> Action {
        self.checkpointer.as_ref().map_or(Action::ReadOn, |c| c.action(now, last))
    }

    fn checkpoint(&mut self, w: &mut World, anchor: &mut AnchorTask, now: i64) {
        if w.objects {
            self.checkpoint_objects(w, anchor, now);
        } else {
            self.checkpoint_disk(w, anchor, now);
        }
    }

    /// What a process's memory would hold of it.
    pub fn remember(&self) -> Option<Remembered> {
        let state = self.sim.as_ref()?.snapshot();
        let (log, dead, ticks) = (self.log.clone(), self.dead.clone(), self.ticks.clone());
        Some(Remembered { log, dead, ticks, next_offset: self.next_offset, state })
    }

    /// A kill in the middle of handing bytes to the operating system leaves some of them there.
    pub fn killed(&self, w: &mut World) {
        let (log, dead) = self.handed;
        if !w.objects && self.sim.is_some() && w.dirs[self.lane].lock == Some(self.life) && w.random.one_in(2) {
            let more = w.random.below(self.log.len() - log + 1);
            w.dirs[self.lane].log.append(&self.log[log..log + more]);
            let more = w.random.below(self.dead.len() - dead + 1);
            w.dirs[self.lane].dead.append(&self.dead[dead..dead + more]);
        }
    }

    fn head(&self) -> Head {
        head(self.log.len(), self.roots[self.log.len()])
    }

    fn covered(&self) -> Covered {
        Covered { next_offset: self.next_offset as i64, log: self.head(), dead: self.dead.len() as u64 }
    }

    fn ask(&mut self, w: &mut World, ask: Ask) {
        self.call = Some(w.ask((self.life, Task::Lane(self.lane)), ask));
    }

    /// One act.
    pub fn act(&mut self, w: &mut World, anchor: &mut AnchorTask, remembered: Option<&Remembered>, now: i64) {
        match self.control.action(now) {
            LaneAction::WaitUntil(_) | LaneAction::End(_) => {}
            LaneAction::TakeLock => self.take_lock(w, now),
            LaneAction::Open { .. } if w.objects => self.open_objects(w, anchor, remembered, now),
            LaneAction::Open { .. } => self.open_disk(w, anchor, remembered, now),
            LaneAction::Read => match self.due(now, false) {
                // What a checkpoint leaves behind is cleared away before the next one.
                Action::Begin if self.phase == 0 => self.begin_checkpoint(w, anchor, now),
                // Rows are read while a checkpoint is made.
                Action::ReadOn if self.phase == 0 || w.random.one_in(2) => self.read(w, anchor, now),
                _ => self.checkpoint(w, anchor, now),
            },
            LaneAction::Drain => match self.due(now, true) {
                Action::Begin if self.phase == 0 => self.begin_checkpoint(w, anchor, now),
                Action::ReadOn if self.phase == 0 => self.tell(w, LaneEvent::Drained, now),
                _ => {
                    self.checkpoint(w, anchor, now);
                    if !w.objects && w.bug == Bug::ReleasedBeforeLastCheckpoint {
                        w.dirs[self.lane].lock = None;
                        w.group.release(self.life, self.lane);
                    }
                }
            },
            // A checkpoint that was under way when the lane was lost is left to the fence: it may go on, or not.
            LaneAction::StopTails { .. } if self.phase > 0 && self.sim.is_some() && !w.random.one_in(4) => {
                self.checkpoint(w, anchor, now);
            }
            LaneAction::Rest => w.violate("a partition has no end"),
            LaneAction::StopTails { flush, .. } => {
                self.phase = 0;
                self.call = None;
                let how = if flush { Stop::Flush } else { Stop::Now };
                anchor.machine.forget(self.lane as i32);
                let [sinks @ .., last] = &mut self.sinks;
                sinks.iter_mut().flatten().for_each(|s| s.delivery.stop(how));
                // What delivers the refusals ends last: then what was refused is all there will be.
                if !flush || sinks.iter().flatten().all(|s| s.ended(now)) {
                    last.iter_mut().for_each(|s| s.delivery.stop(how));
                }
                if self.sinks.iter().flatten().all(|s| s.ended(now)) {
                    self.sinks = [const { None }; 4];
                    self.tell(w, LaneEvent::TailsStopped, now);
                }
            }
            LaneAction::Release => {
                if w.dirs[self.lane].lock == Some(self.life) {
                    w.dirs[self.lane].lock = None;
                }
                self.tell(w, LaneEvent::Released, now);
            }
        }
    }

    pub fn act_sink(&mut self, w: &mut World, sink: usize, now: i64) {
        let view = LogView { lane: self.lane, life: self.life, log: &self.log, roots: &self.roots };
        let Some(task) = &mut self.sinks[sink] else { return };
        if !task.act(w, &view, &mut self.settled, now) {
            self.tell(w, LaneEvent::Failed, now);
        }
    }

    fn take_lock(&mut self, w: &mut World, now: i64) {
        let dir = &mut w.dirs[self.lane];
        if w.objects {
            // Nothing to wait for: whoever opens last fences the others.
            self.tell(w, LaneEvent::LockTaken { generation: 0 }, now);
        } else if dir.lock.is_some() {
            self.tell(w, LaneEvent::LockBusy, now);
        } else {
            dir.lock = Some(self.life);
            let newest = dir.recover().ok().flatten().map_or(0, |c| c.generation);
            let generation = dir.generation.get().max(newest) + 1;
            self.generation = generation;
            self.tell(w, LaneEvent::LockTaken { generation }, now);
        }
    }

    fn load(&mut self, log: &[u64], dead: &[u64], next_offset: usize) {
        self.log = log.to_vec();
        self.dead = dead.to_vec();
        self.roots = vec![0];
        self.grow_roots();
        self.next_offset = next_offset;
    }

    fn grow_roots(&mut self) {
        for i in self.roots.len() - 1..self.log.len() {
            self.roots.push(grow_root(self.roots[i], self.log[i]));
        }
    }

    /// Recovery: choose, begin a generation, cut off, make sure that what was chosen stays.
    fn open_disk(&mut self, w: &mut World, anchor: &mut AnchorTask, remembered: Option<&Remembered>, now: i64) {
        let lane = self.lane;
        match self.phase {
            0 => {
                let chosen = w.dirs[lane].recover().map(|c| c.cloned());
                match chosen {
                    Err(why) => w.violate(why),
                    Ok(None) if w.dirs[lane].has_data() => w.violate("files, but no checkpoint"),
                    Ok(chosen) => self.under_way = chosen,
                }
                w.dirs[lane].generation.replace(self.generation);
            }
            1 => w.dirs[lane].generation.sync(),
            2 => {
                let dir = &mut w.dirs[lane];
                dir.remove_temporary();
                if let Some(c) = &self.under_way
                    && w.bug != Bug::LogNotTruncated
                {
                    dir.log.truncate(c.log_size);
                    dir.dead.truncate(c.dead);
                }
            }
            // A new directory begins with the checkpoint of the empty log.
            3 if self.under_way.is_none() => {
                let state = SimLane::new(&w.kind, lane).snapshot();
                let generation = self.generation;
                let c = Checkpoint {
                    seq: 0,
                    generation,
                    next_offset: 0,
                    log_size: 0,
                    root: 0,
                    dead: 0,
                    ticks: Vec::new(),
                    state,
                };
                w.dirs[lane].write_temporary(c.clone());
                self.under_way = Some(c);
            }
            4 => w.dirs[lane].sync_temporary(),
            5 => w.dirs[lane].rename(),
            3 => self.phase = 5,
            6 if w.bug != Bug::DirectoryNotSyncedAtOpening => w.dirs[lane].sync_dir(),
            6 => {}
            _ => {
                let Some(c) = self.under_way.take() else { return };
                let dir = &w.dirs[lane];
                let (log, dead) = (dir.log.cached.clone(), dir.dead.cached.clone());
                self.load(&log, &dead, c.next_offset);
                self.seq = c.seq;
                self.ticks = c.ticks;
                self.handed = (self.log.len(), self.dead.len());
                return self.restored(w, anchor, &c.state, remembered, now);
            }
        }
        self.phase += 1;
    }

    /// Takeover: read the newest manifest, then put one of a higher generation on top of it.
    fn open_objects(&mut self, w: &mut World, anchor: &mut AnchorTask, remembered: Option<&Remembered>, now: i64) {
        let lane = self.lane;
        match self.phase {
            0 => {
                self.ask(w, Ask::Newest { lane });
                self.phase = 1;
            }
            1 => match w.hear(&mut self.call) {
                Heard::Nothing => {}
                Heard::Answer(Answer::Newest(newest)) => {
                    let state = SimLane::new(&w.kind, lane).snapshot();
                    let mut c = Checkpoint {
                        seq: 0,
                        generation: 0,
                        next_offset: 0,
                        log_size: 0,
                        root: 0,
                        dead: 0,
                        ticks: Vec::new(),
                        state,
                    };
                    self.parts.clear();
                    self.seq = 0;
                    if let Some(newest) = newest {
                        let (number, manifest, log, dead) = *newest;
                        c = manifest.checkpoint;
                        self.parts = manifest.parts;
                        self.seq = number;
                        self.load(&log, &dead, c.next_offset);
                    } else {
                        self.load(&[], &[], 0);
                    }
                    self.handed = (self.log.len(), self.dead.len());
                    self.ticks.clone_from(&c.ticks);
                    self.generation = c.generation + 1;
                    c.generation = self.generation;
                    self.under_way = Some(c);
                    self.writer = w.fresh();
                    self.put_manifest(w);
                    self.phase = 2;
                }
                _ => self.phase = 0,
            },
            2 => match w.hear(&mut self.call) {
                Heard::Nothing => {}
                Heard::TimedOut => self.put_manifest(w),
                Heard::Answer(Answer::Writer(writer)) if writer == self.writer => {
                    self.ask(w, Ask::AnyAbove { lane, number: self.seq + 1 });
                    self.phase = 3;
                }
                // Somebody was quicker: see what is there now.
                Heard::Answer(_) => self.phase = 0,
            },
            3 => match w.hear(&mut self.call) {
                Heard::Nothing => {}
                Heard::TimedOut => self.ask(w, Ask::AnyAbove { lane, number: self.seq + 1 }),
                Heard::Answer(Answer::Above(true)) => self.phase = 0,
                Heard::Answer(_) => self.phase = 4,
            },
            _ => {
                self.seq += 1;
                w.buckets[lane].delete_parts_of_nobody(self.generation);
                let Some(c) = self.under_way.take() else { return };
                self.restored(w, anchor, &c.state, remembered, now);
            }
        }
    }

    fn restored(
        &mut self,
        w: &mut World,
        anchor: &mut AnchorTask,
        state: &Snapshot,
        remembered: Option<&Remembered>,
        now: i64,
    ) {
        self.phase = 0;
        let mut state = state.clone();
        if let Some(r) = remembered {
            self.load(&r.log, &r.dead, r.next_offset);
            self.ticks.clone_from(&r.ticks);
            state = r.state.clone();
        }
        // What was once shown is there, whatever happened since. (With an object store this process may have been overtaken
        // since it read the manifest; that no manifest covers less than one before it, the bucket checks.)
        let most = w.shown[self.lane].most().map_or(0, |m| m.size);
        if !w.objects && (self.log.len() as u64) < most {
            w.violate(format!("a published log of {most} entries was truncated to {}", self.log.len()));
        }
        self.sim = Some(SimLane::restore(&w.kind, self.lane, &state, w.bug));
        let first = self.next_offset == 0;
        self.checkpointer = Some(Checkpointer::restored(self.covered(), first, w.checkpoint_every_ms, now));
        self.tell(w, LaneEvent::Restored, now);
        let size = self.log.len() as u64;
        let kept = &mut w.refusals[self.lane];
        kept.open(self.log.len());
        self.settled = kept.below(w.objects, w.dirs[self.lane].cursors[Role::Transactional as usize].get());
        for (sink, role) in self.sinks.iter_mut().zip(Role::ALL) {
            let have = if role == Role::Refusals { self.settled } else { size };
            *sink = Some(Box::new(SinkTask::new(role, have, now)));
        }
        self.show(w, anchor, self.head(), now);
    }

    /// Everybody who tails the log is told what is durable.
    fn show(&mut self, w: &mut World, anchor: &mut AnchorTask, shown: Head, now: i64) {
        let size = shown.size as usize;
        w.show(self.lane, shown, &self.log[..size], &self.roots[..=size]);
        // The last one's feed is not the log.
        for sink in self.sinks[..3].iter_mut().flatten() {
            w.hold(sink.delivery.committed(shown.size, now));
        }
        w.hold(anchor.machine.committed(self.lane as i32, shown, now));
    }

    fn read(&mut self, w: &mut World, anchor: &mut AnchorTask, now: i64) {
        let until = w.available[self.lane].min(self.next_offset + 1 + w.random.below(4));
        let Some(sim) = &mut self.sim else { return };
        let idle = until == self.next_offset;
        if idle && w.ticks && !w.draining && w.random.one_in(8) {
            let at = w.random.word() >> 8;
            sim.tick(at, &mut self.made);
            if w.bug != Bug::TickNotRecorded {
                self.ticks.push((self.next_offset, at));
            }
            self.read_on(w, anchor, until, now);
        } else if !idle {
            for offset in self.next_offset..until {
                if let Some(value) = w.partitions[self.lane].values[offset] {
                    sim.step(offset as i64, value, &mut self.made);
                }
            }
            self.read_on(w, anchor, until, now);
        }
        if !w.objects && w.random.one_in(3) {
            self.hand_over(w);
        }
    }

    /// What was made of the input up to `until` is appended.
    fn read_on(&mut self, w: &mut World, anchor: &mut AnchorTask, until: usize, now: i64) {
        self.next_offset = until;
        self.log.append(&mut self.made.verdicts);
        self.dead.append(&mut self.made.dead);
        self.grow_roots();
        let forgotten = self.under_way.is_some() && w.bug == Bug::RowsReadMeanwhileForgotten;
        if let Some(c) = self.checkpointer.as_mut().filter(|_| !forgotten) {
            c.progressed();
        }
        if w.bug == Bug::AnchorNotDurable {
            let _ = anchor.machine.committed(self.lane as i32, self.head(), now);
        }
    }

    /// Buffers go to the operating system.
    fn hand_over(&mut self, w: &mut World) {
        let dir = &mut w.dirs[self.lane];
        let (log, dead) = self.handed;
        let (Some(log), Some(dead)) = (self.log.get(log..), self.dead.get(dead..)) else {
            return w.violate(format!("lane {} holds less than it has handed over", self.lane));
        };
        dir.log.append(log);
        dir.dead.append(dead);
        self.handed = (self.log.len(), self.dead.len());
    }

    fn begin_checkpoint(&mut self, w: &mut World, anchor: &mut AnchorTask, now: i64) {
        let covers = self.covered();
        let (Some(sim), Some(checkpointer)) = (&self.sim, &mut self.checkpointer) else { return };
        let begun = checkpointer.begin(covers, sim.next_index(), &sim.counters(), now);
        if !w.hold(begun) {
            return;
        }
        let ahead = usize::from(w.bug == Bug::OffsetAheadOfState && self.next_offset < w.available[self.lane]);
        self.under_way = Some(Checkpoint {
            seq: self.seq + 1,
            generation: self.generation,
            next_offset: self.next_offset + ahead,
            log_size: self.log.len(),
            root: self.roots[self.log.len()],
            dead: self.dead.len(),
            ticks: self.ticks.clone(),
            state: sim.snapshot(),
        });
        if w.bug == Bug::ShownBeforeDurable {
            self.show(w, anchor, covers.log, now);
        }
        if w.objects {
            self.writer = w.fresh();
            let id = self.generation << 32 | w.fresh();
            self.parts.push(id);
            if w.bug == Bug::ManifestBeforeParts {
                self.put_manifest(w);
                self.phase = 11;
            } else {
                self.put_part(w);
                self.phase = 1;
            }
            return;
        }
        // The generation is looked up again at every commit.
        match invariants::one_writer(self.generation, w.dirs[self.lane].generation.get()) {
            Ok(()) => self.phase = 1,
            Err(_) => self.broken(w, LaneEvent::Fenced, now),
        }
    }

    fn checkpoint_disk(&mut self, w: &mut World, anchor: &mut AnchorTask, now: i64) {
        match self.phase {
            1 => self.hand_over(w),
            2 if w.bug != Bug::DataNotSynced => w.dirs[self.lane].log.sync(),
            3 if w.bug != Bug::DataNotSynced => w.dirs[self.lane].dead.sync(),
            4 => w.dirs[self.lane].sync_dir(),
            5 => {
                if let Some(c) = &self.under_way {
                    w.dirs[self.lane].write_temporary(c.clone());
                }
            }
            6 if w.bug != Bug::CheckpointNotSynced => w.dirs[self.lane].sync_temporary(),
            7 => w.dirs[self.lane].rename(),
            8 if w.bug != Bug::DirectoryNotSynced => w.dirs[self.lane].sync_dir(),
            9 => self.durable(w, anchor, now),
            10 => {
                w.dirs[self.lane].prune(w.keep);
                self.phase = 0;
                return;
            }
            _ => {}
        }
        self.phase += 1;
    }

    fn put_part(&mut self, w: &mut World) {
        let Some(c) = &self.under_way else { return };
        let (log, dead) = self.handed;
        let (Some(log), Some(dead)) = (self.log.get(log..c.log_size), self.dead.get(dead..c.dead)) else {
            return w.violate(format!("lane {} holds less than it has handed over", self.lane));
        };
        let part = Part { log: log.to_vec(), dead: dead.to_vec() };
        let id = self.parts[self.parts.len() - 1];
        self.ask(w, Ask::PutPart { lane: self.lane, id, part });
    }

    fn put_manifest(&mut self, w: &mut World) {
        let Some(checkpoint) = self.under_way.clone() else { return };
        let manifest = Box::new(Manifest { writer: self.writer, checkpoint, parts: self.parts.clone() });
        self.ask(w, Ask::PutManifest { lane: self.lane, number: self.seq + 1, manifest });
    }

    fn checkpoint_objects(&mut self, w: &mut World, anchor: &mut AnchorTask, now: i64) {
        let (lane, number) = (self.lane, self.seq + 1);
        match self.phase {
            1 => match w.hear(&mut self.call) {
                Heard::Nothing => {}
                Heard::TimedOut => self.put_part(w),
                Heard::Answer(_) => {
                    self.put_manifest(w);
                    self.phase = 2;
                }
            },
            // 11 is the mistaken order: the manifest first.
            2 | 11 => match w.hear(&mut self.call) {
                Heard::Nothing => {}
                Heard::TimedOut => self.put_manifest(w),
                Heard::Answer(Answer::Writer(writer)) if writer == self.writer => {
                    if self.phase == 11 {
                        self.put_part(w);
                        self.phase = 12;
                    } else if w.bug == Bug::NewerManifestsNotLookedFor {
                        self.phase = 4;
                    } else {
                        self.ask(w, Ask::AnyAbove { lane, number });
                        self.phase = 3;
                    }
                }
                Heard::Answer(_) => self.broken(w, LaneEvent::Fenced, now),
            },
            12 => match w.hear(&mut self.call) {
                Heard::Nothing => {}
                Heard::TimedOut => self.put_part(w),
                Heard::Answer(_) => self.phase = 4,
            },
            3 => match w.hear(&mut self.call) {
                Heard::Nothing => {}
                Heard::TimedOut => self.ask(w, Ask::AnyAbove { lane, number }),
                Heard::Answer(Answer::Above(true)) => self.broken(w, LaneEvent::Fenced, now),
                Heard::Answer(_) => self.phase = 4,
            },
            4 => {
                if let Some(c) = &self.under_way {
                    self.handed = (c.log_size, c.dead);
                }
                self.durable(w, anchor, now);
                self.phase = 5;
            }
            _ => {
                w.buckets[lane].prune(w.keep);
                let mine = if w.bug == Bug::PartsOfOthersDeleted { u64::MAX } else { self.generation };
                w.buckets[lane].delete_parts_of_nobody(mine);
                self.phase = 0;
            }
        }
    }

    fn durable(&mut self, w: &mut World, anchor: &mut AnchorTask, now: i64) {
        if w.buckets[self.lane].void.contains(&self.writer) {
            w.violate("a checkpoint counts although its lane had gone on without it");
        }
        let (Some(c), Some(checkpointer)) = (self.under_way.take(), &mut self.checkpointer) else { return };
        let log = head(c.log_size, c.root);
        let stands = Covered { next_offset: c.next_offset as i64, log, dead: c.dead as u64 };
        let durable = checkpointer.durable(&stands).copied();
        self.seq += 1;
        match durable {
            Ok(_) if w.bug == Bug::RowsReadMeanwhileShown => self.show(w, anchor, self.head(), now),
            Ok(shown) => self.show(w, anchor, shown.log, now),
            Err(v) => w.violate(v.to_string()),
        }
    }

    fn broken(&mut self, w: &mut World, event: LaneEvent, now: i64) {
        if let Some(c) = &mut self.checkpointer {
            c.failed();
        }
        self.phase = 0;
        self.call = None;
        self.tell(w, event, now);
    }
}
