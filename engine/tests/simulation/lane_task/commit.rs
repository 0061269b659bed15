//! The checkpoints of a lane, act by act: on a disk, and in an object store.

use avouch_engine::control::checkpoint::Covered;
use avouch_engine::control::invariants;
use avouch_engine::control::lane::LaneEvent;

use super::super::anchor_task::AnchorTask;
use super::super::bugs::Bug;
use super::super::disk::Checkpoint;
use super::super::lanes::head;
use super::super::messages::{Answer, Ask, Heard};
use super::super::objects::{Manifest, Part};
use super::super::world::World;
use super::LaneTask;

impl LaneTask {
    /// Buffers go to the operating system.
    pub(super) fn hand_over(&mut self, w: &mut World) {
        let dir = &mut w.dirs[self.lane];
        let (log, dead) = self.handed;
        let (Some(log), Some(dead)) = (self.log.get(log..), self.dead.get(dead..)) else {
            return w.violate(format!("lane {} holds less than it has handed over", self.lane));
        };
        dir.log.append(log);
        dir.dead.append(dead);
        self.handed = (self.log.len(), self.dead.len());
    }

    pub(super) fn begin_checkpoint(&mut self, w: &mut World, anchor: &mut AnchorTask, now: i64) {
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
            version: self.version,
            first: self.first,
            inputs: self.inputs.clone(),
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

    pub(super) fn checkpoint_disk(&mut self, w: &mut World, anchor: &mut AnchorTask, now: i64) {
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
            7 => {
                let checked = w.dirs[self.lane].rename();
                w.hold(checked);
            }
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

    pub(super) fn put_manifest(&mut self, w: &mut World) {
        let Some(checkpoint) = self.under_way.clone() else { return };
        let manifest = Box::new(Manifest { writer: self.writer, checkpoint, parts: self.parts.clone() });
        self.ask(w, Ask::PutManifest { lane: self.lane, number: self.seq + 1, manifest });
    }

    pub(super) fn checkpoint_objects(&mut self, w: &mut World, anchor: &mut AnchorTask, now: i64) {
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
