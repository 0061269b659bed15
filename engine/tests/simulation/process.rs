//! A process: a member of the group, its lanes with their sinks, its anchors. It can die and sleep at any act.

use avouch_engine::control::lane::{Ended, LaneAction, LaneEvent};

use super::anchor_task::{AnchorTask, Journal};
use super::bugs::Bug;
use super::kafka::{Life, Told};
use super::lane_task::{LaneTask, Remembered};
use super::messages::{Call, Task};
use super::sink_task::Role;
use super::version_task::VersionTask;
use super::versions::config;
use super::world::World;

/// A lane and its sinks.
const PARTS: usize = 1 + Role::ALL.len();

pub struct Process {
    id: usize,
    life: u32,
    alive: bool,
    /// Asleep, as after SIGSTOP: it keeps its locks and does not answer; it may wake as a zombie.
    pub paused: bool,
    pub skew_ms: i64,
    joined: bool,
    /// Told to end; it does when its lanes have closed.
    stopping: bool,
    lanes: Vec<Option<Box<LaneTask>>>,
    anchor: Option<Box<AnchorTask>>,
    version: Option<Box<VersionTask>>,
    journal: Journal,
    /// What lanes that were here left behind, for a protocol that trusts it.
    remembered: Vec<Option<Remembered>>,
}

impl Process {
    pub fn new(id: usize) -> Self {
        Self {
            id,
            life: 0,
            alive: false,
            paused: false,
            skew_ms: 0,
            joined: false,
            stopping: false,
            lanes: Vec::new(),
            anchor: None,
            version: None,
            journal: Journal::default(),
            remembered: Vec::new(),
        }
    }

    /// Tasks of a process: membership, anchors, the pipeline's version, and for each lane itself and its sinks.
    pub fn slots(lanes: usize) -> usize {
        3 + PARTS * lanes
    }

    fn life(&self) -> Life {
        (self.id, self.life)
    }

    pub fn dead(&self) -> bool {
        !self.alive
    }

    /// Starts it. Who does that has mended a file that was wrong, and may have given it the newest one.
    pub fn start(&mut self, w: &mut World) {
        if w.draining || w.files[self.id].is_none() || w.random.one_in(4) {
            let newest = w.versions.latest().map_or(0, |v| config(&v.config));
            w.files[self.id] = Some(newest);
        }
        self.life += 1;
        self.alive = true;
        self.paused = false;
        self.joined = false;
        self.stopping = false;
        self.lanes = w.partitions.iter().map(|_| None).collect();
        self.remembered = w.partitions.iter().map(|_| None).collect();
        self.anchor = Some(Box::new(AnchorTask::new(w.anchor_policy)));
        self.version = Some(Box::new(VersionTask::new(w, (self.id, self.life))));
    }

    /// What it held in memory is gone; the operating system lets go of its locks. What it sent is still on its way.
    pub fn kill(&mut self, w: &mut World) {
        if !self.alive {
            return;
        }
        let life = self.life();
        self.alive = false;
        for lane in self.lanes.iter_mut().filter_map(Option::take) {
            lane.killed(w);
        }
        self.anchor = None;
        self.version = None;
        for dir in &mut w.dirs {
            if dir.lock == Some(life) {
                dir.lock = None;
            }
        }
    }

    /// Asks it to end in good order: a last checkpoint of every lane, and its sinks up to there.
    pub fn stop(&mut self, w: &mut World) {
        if self.alive && !self.stopping {
            self.stopping = true;
            let now = w.now_ms + self.skew_ms;
            if let Some(version) = &mut self.version {
                version.stop(w, now);
            }
            for lane in self.lanes.iter_mut().flatten() {
                lane.tell(w, LaneEvent::Stop, now);
            }
        }
    }

    pub fn ask_to_reload(&mut self) {
        if let Some(version) = &mut self.version {
            version.asked = true;
        }
    }

    pub fn power_cut(&mut self, w: &mut World) {
        self.journal.power_cut(&mut w.random);
    }

    /// One act of one task.
    pub fn act(&mut self, w: &mut World, slot: usize) {
        if !self.alive {
            if w.draining && slot == 0 {
                self.start(w);
            }
            return;
        }
        if self.paused {
            return;
        }
        let now = w.now_ms + self.skew_ms;
        match slot {
            0 => self.poll(w, now),
            1 => {
                if let Some(anchor) = &mut self.anchor {
                    anchor.act(w, (self.id, self.life), &mut self.journal, now);
                }
            }
            2 => {
                let Some(version) = &mut self.version else { return };
                if !version.act(w, &mut self.lanes, now) {
                    self.kill(w);
                }
            }
            _ => self.act_lane(w, (slot - 3) / PARTS, (slot - 3) % PARTS, now),
        }
    }

    fn poll(&mut self, w: &mut World, now: i64) {
        let life = self.life();
        if self.stopping {
            if self.lanes.iter().all(Option::is_none) {
                w.group.leave(life, &mut w.random);
                self.kill(w);
            }
            return;
        }
        let Some(ours) = self.version.as_ref().and_then(|v| v.opens(w)) else { return };
        if !self.joined {
            // Who comes back after its session has expired first learns what it has lost.
            if self.lanes.iter().all(Option::is_none) || w.group.members[self.id] == Some(self.life) {
                w.group.join(life, &mut w.random);
                self.joined = true;
            }
        }
        for lane in 0..self.lanes.len() {
            let task = &mut self.lanes[lane];
            match (w.group.poll(life, lane, task.is_some()), task) {
                (Some(Told::Assigned), None) => {
                    self.lanes[lane] = Some(Box::new(LaneTask::new(lane, life, ours, None)))
                }
                (Some(Told::Revoked), Some(task)) => task.taken(w, LaneEvent::Revoked, now),
                (Some(Told::Lost), Some(task)) => task.taken(w, LaneEvent::Lost, now),
                _ => {}
            }
        }
        self.joined = w.group.members[self.id] == Some(self.life);
    }

    fn act_lane(&mut self, w: &mut World, lane: usize, part: usize, now: i64) {
        let Some(task) = &mut self.lanes[lane] else { return };
        let Some(anchor) = &mut self.anchor else { return };
        match part {
            0 => task.act(w, anchor, self.remembered[lane].as_ref(), now),
            sink => task.act_sink(w, sink - 1, now),
        }
        if let LaneAction::End(ended) = task.action(now) {
            let gone = self.lanes[lane].take();
            let reopen = gone.as_ref().filter(|_| ended == Ended::Revoked).and_then(|g| g.reopen);
            if w.bug == Bug::TakeoverFromMemory {
                self.remembered[lane] = gone.and_then(|g| g.remember());
            }
            match (reopen, self.version.as_ref().and_then(|v| v.opens(w))) {
                (Some(after), Some(ours)) if !self.stopping => {
                    self.lanes[lane] = Some(Box::new(LaneTask::new(lane, self.life(), ours, Some((now, after)))));
                }
                _ => w.group.release(self.life(), lane),
            }
            if ended == Ended::Failed {
                // The runtime ends with an error; somebody starts it again.
                self.kill(w);
            }
        }
    }

    /// Where the answer to a call goes, if whoever asked is still there.
    pub fn waiting(&mut self, life: u32, task: Task) -> Option<&mut Call> {
        if life != self.life || !self.alive {
            return None;
        }
        match task {
            Task::Lane(lane) => self.lanes[lane].as_mut()?.call.as_mut(),
            Task::Sink(lane, sink) => self.lanes[lane].as_mut()?.sink_call(sink),
            Task::Anchor => self.anchor.as_mut()?.call.as_mut(),
            Task::Version => self.version.as_mut()?.call.as_mut(),
        }
    }

    pub fn describe(&self) -> String {
        let lanes: Vec<_> = self.lanes.iter().map(|l| l.as_ref().map(|l| l.describe())).collect();
        let version = self.version.as_ref().map(|v| v.describe());
        format!("process {} (alive {}, joined {}, {version:?}): {lanes:?}; ", self.id, self.alive, self.joined)
    }
}
