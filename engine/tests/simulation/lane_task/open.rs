//! Opening a lane: its lock, what a crash left of it, and the version of the pipeline that it goes on under.

use avouch_engine::control::checkpoint::Checkpointer;
use avouch_engine::control::lane::LaneEvent;
use avouch_engine::control::reload::{self, Opening, Version};

use super::super::anchor_task::AnchorTask;
use super::super::bugs::Bug;
use super::super::disk::Checkpoint;
use super::super::lanes::{Input, SimLane, Snapshot, grow_root};
use super::super::messages::{Answer, Ask, Heard};
use super::super::sink_task::{Role, SinkTask};
use super::super::versions::config;
use super::super::world::World;
use super::{LaneTask, Remembered};

impl LaneTask {
    pub(super) fn take_lock(&mut self, w: &mut World, now: i64) {
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

    pub(super) fn grow_roots(&mut self) {
        for i in self.roots.len() - 1..self.log.len() {
            self.roots.push(grow_root(self.roots[i], self.log[i]));
        }
    }

    /// Recovery: choose, begin a generation, cut off, make sure that what was chosen stays.
    pub(super) fn open_disk(
        &mut self,
        w: &mut World,
        anchor: &mut AnchorTask,
        remembered: Option<&Remembered>,
        now: i64,
    ) {
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
                let c = self.nothing(w, self.generation);
                w.dirs[lane].write_temporary(c.clone());
                self.under_way = Some(c);
            }
            4 => w.dirs[lane].sync_temporary(),
            5 => {
                let checked = w.dirs[lane].rename();
                w.hold(checked);
            }
            3 => self.phase = 5,
            6 if w.bug != Bug::DirectoryNotSyncedAtOpening => w.dirs[lane].sync_dir(),
            6 => {}
            _ => {
                let Some(c) = self.under_way.take() else { return };
                let dir = &w.dirs[lane];
                let (log, dead) = (dir.log.cached.clone(), dir.dead.cached.clone());
                self.load(&log, &dead, c.next_offset);
                self.seq = c.seq;
                self.handed = (self.log.len(), self.dead.len());
                return self.restored(w, anchor, c, remembered, now);
            }
        }
        self.phase += 1;
    }

    /// Takeover: read the newest manifest, then put one of a higher generation on top of it.
    pub(super) fn open_objects(
        &mut self,
        w: &mut World,
        anchor: &mut AnchorTask,
        remembered: Option<&Remembered>,
        now: i64,
    ) {
        let lane = self.lane;
        match self.phase {
            0 => {
                self.ask(w, Ask::Newest { lane });
                self.phase = 1;
            }
            1 => match w.hear(&mut self.call) {
                Heard::Nothing => {}
                Heard::Answer(Answer::Newest(newest)) => {
                    let mut c = self.nothing(w, 0);
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
                self.restored(w, anchor, c, remembered, now);
            }
        }
    }

    fn restored(
        &mut self,
        w: &mut World,
        anchor: &mut AnchorTask,
        c: Checkpoint,
        remembered: Option<&Remembered>,
        now: i64,
    ) {
        self.phase = 0;
        let Checkpoint { mut state, mut version, .. } = c;
        (self.first, self.inputs) = (c.first, c.inputs);
        if let Some(r) = remembered {
            self.load(&r.log, &r.dead, r.next_offset);
            self.inputs.clone_from(&r.inputs);
            self.first = r.first;
            (state, version) = (r.state.clone(), r.version);
        }
        // What was once shown is there, whatever happened since. (With an object store this process may have been overtaken
        // since it read the manifest; that no manifest covers less than one before it, the bucket checks.)
        let most = w.shown[self.lane].most().map_or(0, |m| m.size);
        if !w.objects && (self.log.len() as u64) < most {
            w.violate(format!("a published log of {most} entries was truncated to {}", self.log.len()));
        }
        let Some(carried) = self.go_over(w, &state, version, now) else { return };
        let (first, every) = (self.next_offset == 0, w.checkpoint_every_ms);
        self.checkpointer = Some(match carried {
            true if w.bug != Bug::BoundarySkipped => Checkpointer::carried_over(self.covered(), every, now),
            _ => Checkpointer::restored(self.covered(), first, every, now),
        });
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

    /// Restores the lane, or carries it over to its process's version; whether it was. `None` when it is not to be run here.
    fn go_over(&mut self, w: &mut World, state: &Snapshot, version: Option<Version>, now: i64) -> Option<bool> {
        let (lane, ours) = (self.lane, self.ours);
        let to = config(&ours.config);
        let opening = match reload::opening(version.as_ref(), &ours) {
            Opening::Newer if w.bug == Bug::OlderFileTakesBack => Opening::CarryOver,
            Opening::CarryOver if w.bug == Bug::RestoredUnderAnother => Opening::Restore { number: ours.number },
            decided => decided,
        };
        self.version = Some(ours);
        match opening {
            Opening::New => {
                self.first = to;
                self.sim = Some(SimLane::new(&w.kind, to, lane));
                Some(false)
            }
            Opening::Restore { number } => {
                self.version = Some(Version { number, ..ours });
                self.sim = Some(SimLane::restore(&w.kind, to, lane, state, w.bug));
                Some(false)
            }
            Opening::CarryOver => {
                let (sim, dropped) = SimLane::migrate(&w.kind, to, lane, state, w.bug);
                self.sim = Some(sim);
                let from = version.map_or(to, |v| config(&v.config));
                if w.bug != Bug::ChangeNotRecorded {
                    self.inputs.push(Input::Pipeline { before: self.next_offset, from, to, dropped });
                }
                Some(true)
            }
            // It is left alone, and looked at again.
            Opening::Newer => {
                self.reopen = Some(300);
                self.tell(w, LaneEvent::Revoked, now);
                None
            }
            Opening::Conflict => {
                w.violate(format!("version {} names two pipelines", ours.number));
                None
            }
        }
    }

    /// The checkpoint of the empty log.
    fn nothing(&self, w: &World, generation: u64) -> Checkpoint {
        let first = config(&self.ours.config);
        Checkpoint {
            seq: 0,
            generation,
            next_offset: 0,
            log_size: 0,
            root: 0,
            dead: 0,
            version: None,
            first,
            inputs: Vec::new(),
            state: SimLane::new(&w.kind, first, self.lane).snapshot(),
        }
    }
}
