//! A lane in a process: drives [`LaneControl`] and [`Checkpointer`] against the simulated disk or object store, act by act in
//! the order of `connectors/src/store`.

mod commit;
mod open;

use avouch_engine::control::checkpoint::{Action, Checkpointer, Covered};
use avouch_engine::control::lane::{LaneAction, LaneControl, LaneEvent, LaneState};
use avouch_engine::control::reload::Version;
use avouch_engine::control::{Head, Stop};

use super::anchor_task::AnchorTask;
use super::bugs::Bug;
use super::disk::Checkpoint;
use super::kafka::Life;
use super::lanes::{Input, Made, SimLane, Snapshot, head};
use super::messages::{Ask, Call, Task};
use super::sink_task::{LogView, SinkTask};
use super::versions::{Config, config};
use super::world::World;

/// What a lane leaves in its process's memory.
#[derive(Clone)]
pub struct Remembered {
    log: Vec<u64>,
    dead: Vec<u64>,
    version: Option<Version>,
    first: Config,
    inputs: Vec<Input>,
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
    /// The version of its process, and the one that its checkpoints are made under.
    ours: Version,
    version: Option<Version>,
    /// The pipeline it began with.
    first: Config,
    inputs: Vec<Input>,
    /// Is to stand still, and does, in this hold.
    held: Option<u64>,
    still: Option<u64>,
    /// Is opened again once it is closed, after so long.
    pub reopen: Option<i64>,
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
    /// `after`: it is not opened before so long after this time.
    pub fn new(lane: usize, life: Life, ours: Version, after: Option<(i64, i64)>) -> Self {
        Self {
            lane,
            life,
            control: after.map_or_else(LaneControl::assigned, |(now, ms)| LaneControl::assigned_after(now, ms)),
            checkpointer: None,
            sim: None,
            made: Made::default(),
            log: Vec::new(),
            roots: vec![0],
            dead: Vec::new(),
            ours,
            version: None,
            first: config(&ours.config),
            inputs: Vec::new(),
            held: None,
            still: None,
            reopen: None,
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

    pub fn state(&self) -> LaneState {
        self.control.state()
    }

    /// The group takes it away.
    pub fn taken(&mut self, w: &mut World, event: LaneEvent, now: i64) {
        self.reopen = None;
        self.tell(w, event, now);
    }

    /// Asks it to stand still; whether it does.
    pub fn hold(&mut self, number: u64) -> bool {
        self.held = Some(number);
        self.still == self.held
    }

    pub fn go_on(&mut self) {
        self.held = None;
    }

    /// Whether everything it has read is durable.
    pub fn all_durable(&self) -> bool {
        self.checkpointer.as_ref().is_some_and(|c| *c.shown() == self.covered())
    }

    /// It is closed, and opened again with the version that its process has by then.
    pub fn change(&mut self, w: &mut World, now: i64) {
        if self.control.opens_again() {
            self.reopen = Some(0);
        }
        self.tell(w, LaneEvent::Revoked, now);
    }

    /// Whether it is open and past its first checkpoint under this version.
    pub fn has_begun(&self) -> bool {
        self.state() == LaneState::Running && self.checkpointer.as_ref().is_some_and(|c| !c.is_at_boundary())
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
        let (log, dead, inputs) = (self.log.clone(), self.dead.clone(), self.inputs.clone());
        let (version, first) = (self.version, self.first);
        Some(Remembered { log, dead, version, first, inputs, next_offset: self.next_offset, state })
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
            // While it is held it makes everything durable that it has read, and then stands still.
            LaneAction::Read => match self.due(now, self.held.is_some()) {
                Action::ReadOn if self.held.is_some() && self.phase == 0 => self.still = self.held,
                Action::ReadOn if self.held.is_some() => self.checkpoint(w, anchor, now),
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
                self.inputs.push(Input::Tick { before: self.next_offset, at });
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
}
