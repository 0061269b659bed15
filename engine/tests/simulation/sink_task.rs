//! A sink of a lane in a process: drives [`Delivery`] against the simulated Kafka and archive, message by message in the order
//! of `pipelines/src/runtime/sinks` and `connectors/src/kafka/sink.rs`.

use avouch_engine::control::invariants;
use avouch_engine::control::sink::{Action, Delivery, Ended, Gather, Guarantee, Outcome, REFRESH_MS};
use avouch_engine::control::{Failure, Ticket};

use super::archive::Place;
use super::bugs::Bug;
use super::kafka::{Cursor, Denied, Life};
use super::messages::{Answer, Ask, Call, Heard, Task};
use super::refusals::is_taken;
use super::world::World;

/// The most records of one batch: few, so that batches end everywhere.
const MOST: usize = 5;

/// Which sink of its lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Kafka, exactly once, with a `where`; it refuses some records.
    Transactional,
    /// Kafka, at least once.
    Plain,
    /// An archive, exactly once.
    Archive,
    /// What the first one refuses, to a topic for dead letters, at least once.
    Refusals,
}

impl Role {
    pub const ALL: [Role; 4] = [Role::Transactional, Role::Plain, Role::Archive, Role::Refusals];
}

/// The log that a sink tails.
pub struct LogView<'a> {
    pub lane: usize,
    pub life: Life,
    pub log: &'a [u64],
    pub roots: &'a [u64],
}

pub struct SinkTask {
    pub delivery: Delivery,
    role: Role,
    doing: Option<(Ticket, Action)>,
    phase: u8,
    pub call: Option<Call>,
    epoch: u32,
    /// Of the archive's cursor.
    version: u64,
    note: u64,
    /// First and end of the batch under way.
    batch: (usize, usize),
    /// What of it is offered: index and entry.
    offered: Vec<(usize, u64)>,
    among: Option<(u64, u64)>,
    saved: u64,
    /// Where it believes to be, for protocols that trust it.
    believed: Option<usize>,
    read_first: Option<Option<Cursor>>,
}

impl SinkTask {
    pub fn new(role: Role, durable: u64, now: i64) -> Self {
        let guarantee = match role {
            Role::Transactional => Guarantee::Transactional,
            Role::Archive => Guarantee::Announced,
            Role::Plain | Role::Refusals => Guarantee::Plain,
        };
        let delivery = Delivery::new(guarantee, durable, now);
        Self {
            delivery: if role == Role::Refusals { delivery.lazy() } else { delivery },
            role,
            doing: None,
            phase: 0,
            call: None,
            epoch: 0,
            version: 0,
            note: 0,
            batch: (0, 0),
            offered: Vec::new(),
            among: None,
            saved: 0,
            believed: None,
            read_first: None,
        }
    }

    pub fn ended(&self, now: i64) -> bool {
        self.doing.is_none() && matches!(self.delivery.action(now), Action::End(_))
    }

    pub fn describe(&self) -> String {
        format!("{:?} at {} doing {:?} phase {}", self.role, self.delivery.position(), self.doing, self.phase)
    }

    fn ask(&mut self, w: &mut World, view: &LogView<'_>, ask: Ask) {
        self.call = Some(w.ask((view.life, Task::Sink(view.lane, self.role as usize)), ask));
    }

    /// One act. `settled` is how many refusals stand. False when the process must end.
    pub fn act(&mut self, w: &mut World, view: &LogView<'_>, settled: &mut u64, now: i64) -> bool {
        if self.role == Role::Refusals {
            if *settled < self.delivery.durable() {
                self.delivery.rewound(*settled);
            } else {
                w.hold(self.delivery.committed(*settled, now));
            }
        }
        let (ticket, doing) = match self.doing {
            Some(doing) => doing,
            None => match self.delivery.action(now) {
                Action::Wait { .. }
                | Action::Pause { .. }
                | Action::End(Ended::Stopped { .. } | Ended::NotRegrown { .. }) => return true,
                Action::End(Ended::Fenced | Ended::Failed) => return false,
                Action::End(ended) => {
                    w.violate(format!("a sink of lane {} ended: {ended:?}", view.lane));
                    return false;
                }
                action => {
                    self.phase = 0;
                    *self.doing.insert((self.delivery.ticket(), action))
                }
            },
        };
        let outcome = match (doing, self.role) {
            (Action::Open, Role::Transactional) => self.open(w, view),
            (Action::Open, Role::Archive) => self.open_archive(w, view),
            (Action::Open, _) => {
                let cursor = w.dirs[view.lane].cursors[self.role as usize].get();
                Some(Outcome::Opened { cursor: Some(cursor), noted: false, saved: cursor, announced: None })
            }
            (Action::CheckNote { at }, _) => Some(Outcome::Note { same: view.roots[at as usize] == self.note }),
            (Action::Announce { from, upto }, _) => self.announce(w, view, (from as usize, upto as usize)),
            (Action::SaveCursor { next }, _) => self.save_cursor(w, view, next),
            (Action::Write { from, upto, most, .. }, Role::Transactional) => {
                self.transaction(w, view, (from as usize, upto as usize), most)
            }
            (Action::SetAside { from, index }, _) => self.set_aside(w, view, from as usize, index),
            (Action::Refresh { at }, _) => self.transaction(w, view, (at as usize, at as usize), 0),
            (Action::Write { from, upto, .. }, Role::Archive) => self.file(w, view, (from as usize, upto as usize)),
            (Action::Write { from, upto, .. }, _) => self.plain(w, view, (from as usize, upto as usize)),
            (Action::Wait { .. } | Action::Pause { .. } | Action::End(_), _) => unreachable!("nothing to do"),
        };
        if let Some(outcome) = outcome {
            self.doing = None;
            match outcome {
                Outcome::Acked { next } => self.believed = Some(next as usize),
                Outcome::Opened { cursor, saved, .. } => self.opened(w, view, settled, cursor.unwrap_or(saved)),
                Outcome::CursorSaved if self.role == Role::Transactional => {
                    *settled = w.refusals[view.lane].below(w.objects, self.delivery.position());
                }
                _ => {}
            }
            w.hold(self.delivery.on(ticket, outcome, now));
            // Some answers come twice.
            if w.random.one_in(8) {
                w.hold(self.delivery.on(ticket, outcome, now));
            }
        }
        true
    }

    /// The sink is open at `at`: what it wants, and what was refused from there on will be offered again.
    fn opened(&mut self, w: &mut World, view: &LogView<'_>, settled: &mut u64, at: u64) {
        match self.role {
            Role::Transactional => {
                self.delivery.refresh_every(Some(REFRESH_MS / 1_000));
                let kept = &mut w.refusals[view.lane];
                *settled = kept.below(w.objects, at);
                if !w.objects {
                    kept.file.truncate(*settled as usize);
                }
            }
            Role::Archive => {
                let enough = w.random.below(6) as u64;
                self.delivery.gather(Some(Gather { enough, longest_ms: w.random.below(2_000) as i64 }));
            }
            Role::Plain | Role::Refusals => {}
        }
    }

    fn unknown(&mut self, w: &mut World) -> Option<Outcome> {
        self.call = None;
        if w.random.one_in(2) {
            return Some(Outcome::Failed(Failure::Unknown));
        }
        let asked_ms = w.random.one_in(2).then(|| w.random.below(1_000) as i64);
        Some(Outcome::Down { asked_ms, shorter_permille: w.random.below(501) as u16 })
    }

    /// Fence, then read the cursor.
    fn open(&mut self, w: &mut World, view: &LogView<'_>) -> Option<Outcome> {
        let lane = view.lane;
        if self.phase == 0 {
            // Before fencing: read afterwards, it could be what a faster writer saved since.
            self.saved = w.dirs[lane].cursors[0].get();
        }
        let saved = self.saved;
        let opened = |this: &mut Self, cursor: Option<Cursor>| {
            this.note = cursor.map_or(0, |c| c.1);
            let cursor = cursor.map(|c| c.0 as u64);
            Some(Outcome::Opened { cursor, noted: cursor.is_some(), saved, announced: None })
        };
        match self.phase {
            0 if w.bug == Bug::CursorReadBeforeFencing => {
                self.ask(w, view, Ask::FetchCursor { lane });
                self.phase = 3;
            }
            0 => {
                self.ask(w, view, Ask::BeginEpoch { lane });
                self.phase = 1;
            }
            1 => match w.hear(&mut self.call) {
                Heard::Nothing => {}
                Heard::Answer(Answer::Epoch(epoch)) => {
                    self.epoch = epoch;
                    if let Some(cursor) = self.read_first.take() {
                        return opened(self, cursor);
                    }
                    if let (Bug::LostAnswerSentAgain, Some(at)) = (w.bug, self.believed) {
                        let cursor = Some(at as u64);
                        return Some(Outcome::Opened { cursor, noted: false, saved, announced: None });
                    }
                    self.ask(w, view, Ask::FetchCursor { lane });
                    self.phase = 2;
                }
                _ => return self.unknown(w),
            },
            2 => match w.hear(&mut self.call) {
                Heard::Nothing => {}
                Heard::Answer(Answer::Cursor(cursor)) => return opened(self, cursor),
                _ => return self.unknown(w),
            },
            _ => match w.hear(&mut self.call) {
                Heard::Nothing => {}
                Heard::Answer(Answer::Cursor(cursor)) => {
                    self.read_first = Some(cursor);
                    self.ask(w, view, Ask::BeginEpoch { lane });
                    self.phase = 1;
                }
                _ => return self.unknown(w),
            },
        }
        None
    }

    /// Chooses a batch from what may be written: its records that are this sink's, at most `most`, and where it ends.
    fn choose(&mut self, w: &mut World, view: &LogView<'_>, (from, upto): (usize, usize), most: u64) {
        let takes = |i: &usize| self.role != Role::Transactional || is_taken(view.log[*i]);
        let most = most.min(1 + w.random.below(MOST) as u64) as usize;
        let mut ours = (from..upto).filter(takes);
        self.offered = ours.by_ref().take(most).map(|i| (i, view.log[i])).collect();
        self.batch = (from, ours.next().unwrap_or(upto));
    }

    /// Records, cursor, commit.
    fn transaction(&mut self, w: &mut World, view: &LogView<'_>, all: (usize, usize), most: u64) -> Option<Outcome> {
        if self.phase == 0 {
            self.choose(w, view, all, most);
            return self.begin(w, view);
        }
        self.go_on(w, view)
    }

    fn begin(&mut self, w: &mut World, view: &LogView<'_>) -> Option<Outcome> {
        let lane = view.lane;
        let next = self.batch.1;
        let durable = w.durable_size(lane) as u64;
        w.hold(invariants::only_durable("a delivery", next as u64, durable));
        if self.offered.is_empty() {
            self.ask(w, view, Ask::AddCursor { lane, epoch: self.epoch, cursor: (next, view.roots[next]) });
            self.phase = 3;
        } else if w.bug == Bug::CursorBeforeTransaction {
            self.ask(w, view, Ask::SetCursor { lane, cursor: (next, view.roots[next]) });
            self.phase = 1;
        } else {
            self.produce(w, view);
        }
        None
    }

    fn go_on(&mut self, w: &mut World, view: &LogView<'_>) -> Option<Outcome> {
        let (lane, epoch) = (view.lane, self.epoch);
        let next = self.batch.1;
        let cursor = (next, view.roots[next]);
        match self.phase {
            // The mistake of moving the cursor first.
            1 => match w.hear(&mut self.call) {
                Heard::Nothing => {}
                Heard::Answer(_) => self.produce(w, view),
                Heard::TimedOut => return self.unknown(w),
            },
            2 => match w.hear(&mut self.call) {
                Heard::Nothing => {}
                Heard::Answer(Answer::Done) if w.bug == Bug::CursorAfterTransaction => {
                    self.ask(w, view, Ask::EndTransaction { lane, epoch, commit: true });
                    self.phase = 4;
                }
                Heard::Answer(Answer::Done) => {
                    self.ask(w, view, Ask::AddCursor { lane, epoch, cursor });
                    self.phase = 3;
                }
                Heard::Answer(Answer::Denied(Denied::Records(among))) => {
                    self.among = among;
                    self.ask(w, view, Ask::EndTransaction { lane, epoch, commit: false });
                    self.phase = 5;
                }
                other => return self.gone(w, other),
            },
            3 => match w.hear(&mut self.call) {
                Heard::Nothing => {}
                Heard::Answer(Answer::Done) => {
                    self.ask(w, view, Ask::EndTransaction { lane, epoch, commit: true });
                    self.phase = 4;
                }
                other => return self.gone(w, other),
            },
            4 => match w.hear(&mut self.call) {
                Heard::Nothing => {}
                Heard::Answer(Answer::Done) if w.bug == Bug::CursorAfterTransaction && !self.offered.is_empty() => {
                    self.ask(w, view, Ask::SetCursor { lane, cursor });
                    self.phase = 6;
                }
                Heard::Answer(Answer::Done) => return Some(Outcome::Acked { next: next as u64 }),
                other => return self.gone(w, other),
            },
            // The transaction is aborted, or there was none.
            5 => match w.hear(&mut self.call) {
                Heard::Nothing => {}
                Heard::Answer(Answer::Done | Answer::Denied(Denied::NoTransaction)) => {
                    let first = self.offered[0].0 as u64;
                    let alone = w.bug == Bug::FirstOfRefusedSetAside;
                    let offered = if alone { 1 } else { self.offered.len() as u64 };
                    return Some(Outcome::Refused { first, offered, among: self.among, next: next as u64 });
                }
                other => return self.gone(w, other),
            },
            _ => match w.hear(&mut self.call) {
                Heard::Nothing => {}
                Heard::Answer(_) => return Some(Outcome::Acked { next: next as u64 }),
                Heard::TimedOut => return self.unknown(w),
            },
        }
        None
    }

    fn produce(&mut self, w: &mut World, view: &LogView<'_>) {
        let records = self.offered.clone();
        self.ask(w, view, Ask::Produce { lane: view.lane, epoch: self.epoch, records });
        self.phase = 2;
    }

    fn gone(&mut self, w: &mut World, heard: Heard) -> Option<Outcome> {
        match heard {
            Heard::Answer(Answer::Denied(Denied::Fenced)) => {
                self.call = None;
                Some(Outcome::Failed(Failure::Fenced))
            }
            _ => self.unknown(w),
        }
    }

    /// The refusal first, durably; then a transaction with the cursor behind it, and nothing else.
    fn set_aside(&mut self, w: &mut World, view: &LogView<'_>, from: usize, index: u64) -> Option<Outcome> {
        let lane = view.lane;
        match self.phase {
            0 if w.bug == Bug::RefusalKeptAfterCursor => self.phase = 23,
            0 if w.objects => {
                self.ask(w, view, Ask::KeepRefusal { lane, index });
                self.phase = 20;
            }
            0 => {
                // One that is kept already is not kept twice.
                let kept = &mut w.refusals[lane];
                if kept.file.cached.last().is_none_or(|last| *last < index) {
                    kept.file.append(&[index]);
                }
                self.phase = 21;
            }
            20 => match w.hear(&mut self.call) {
                Heard::Nothing => {}
                Heard::Answer(_) => self.phase = 23,
                Heard::TimedOut => return self.unknown(w),
            },
            21 => {
                let file = &mut w.refusals[lane].file;
                file.sync();
                self.phase = if file.cached.len() == 1 { 22 } else { 23 };
            }
            22 => {
                w.refusals[lane].file.sync_dir();
                self.phase = 23;
            }
            23 => {
                let behind = index as usize + 1;
                let upto = self.delivery.durable() as usize;
                let next = (behind..upto).find(|i| is_taken(view.log[*i])).unwrap_or(upto);
                (self.batch, self.offered) = ((from, next), Vec::new());
                return self.begin(w, view);
            }
            _ => {
                let acked = self.go_on(w, view);
                if acked.is_some() && w.bug == Bug::RefusalKeptAfterCursor {
                    w.refusals[lane].file.append(&[index]);
                }
                return acked;
            }
        }
        None
    }

    fn open_archive(&mut self, w: &mut World, view: &LogView<'_>) -> Option<Outcome> {
        let lane = view.lane;
        if self.phase == 0 {
            self.saved = w.dirs[lane].cursors[self.role as usize].get();
            self.ask(w, view, Ask::ReadArchive { lane });
            self.phase = 1;
            return None;
        }
        match w.hear(&mut self.call) {
            Heard::Nothing => None,
            Heard::Answer(Answer::Archive(place, version)) => {
                self.version = version;
                self.note = place.map_or(0, |p| p.note);
                let announced = place.filter(|p| p.until > p.next && w.bug != Bug::AnnouncedRangeForgotten);
                Some(Outcome::Opened {
                    cursor: place.map(|p| p.next as u64),
                    noted: place.is_some_and(|p| p.next > 0),
                    saved: self.saved,
                    announced: announced.map(|p| p.until as u64),
                })
            }
            _ => self.unknown(w),
        }
    }

    fn set_archive(&mut self, w: &mut World, view: &LogView<'_>, next: usize, until: usize) {
        let place = Place { next, until, note: view.roots[next] };
        self.ask(w, view, Ask::SetArchive { lane: view.lane, place, version: self.version });
    }

    fn announce(&mut self, w: &mut World, view: &LogView<'_>, all: (usize, usize)) -> Option<Outcome> {
        if self.phase == 0 {
            self.choose(w, view, all, MOST as u64);
            if w.bug == Bug::NotAnnounced {
                return Some(Outcome::Announced { until: self.batch.1 as u64 });
            }
            let (from, until) = self.batch;
            self.set_archive(w, view, from, until);
            self.phase = 1;
            return None;
        }
        match w.hear(&mut self.call) {
            Heard::Nothing => None,
            Heard::Answer(Answer::Version(version)) => {
                self.version = version;
                Some(Outcome::Announced { until: self.batch.1 as u64 })
            }
            other => self.moved(w, other),
        }
    }

    /// The file of an announced range, then the cursor behind it.
    fn file(&mut self, w: &mut World, view: &LogView<'_>, (from, upto): (usize, usize)) -> Option<Outcome> {
        let lane = view.lane;
        if self.phase == 0 {
            let durable = w.durable_size(lane) as u64;
            w.hold(invariants::only_durable("a delivery", upto as u64, durable));
            self.ask(w, view, Ask::PutFile { lane, from, words: view.log[from..upto].to_vec() });
            self.phase = 1;
            return None;
        }
        match (w.hear(&mut self.call), self.phase) {
            (Heard::Nothing, _) => None,
            (Heard::Answer(Answer::Done), 1) => {
                self.set_archive(w, view, upto, upto);
                self.phase = 2;
                None
            }
            (Heard::Answer(Answer::Version(version)), _) => {
                self.version = version;
                Some(Outcome::Acked { next: upto as u64 })
            }
            (other, _) => self.moved(w, other),
        }
    }

    /// A cursor that another process has set meanwhile ends this one.
    fn moved(&mut self, w: &mut World, heard: Heard) -> Option<Outcome> {
        match heard {
            Heard::Answer(Answer::Denied(_)) => Some(Outcome::Failed(Failure::Fatal)),
            _ => self.unknown(w),
        }
    }

    fn plain(&mut self, w: &mut World, view: &LogView<'_>, (from, upto): (usize, usize)) -> Option<Outcome> {
        let lane = view.lane;
        if self.phase == 0 {
            let next = from + 1 + w.random.below((upto - from).min(MOST));
            self.batch = (from, next);
            if self.role == Role::Refusals {
                let indices = w.refusals[lane].list(w.objects, u64::MAX);
                let Some(indices) = indices.get(from..next) else {
                    w.violate(format!("lane {lane} has lost refusals {from}..{next}"));
                    return None;
                };
                self.ask(w, view, Ask::ProduceDead { lane, from, indices: indices.to_vec() });
            } else {
                let durable = w.durable_size(lane) as u64;
                w.hold(invariants::only_durable("a delivery", next as u64, durable));
                if w.bug == Bug::PlainCursorFirst {
                    w.dirs[lane].cursors[1].replace(next as u64);
                    w.dirs[lane].cursors[1].sync();
                }
                self.ask(w, view, Ask::ProducePlain { lane, from, words: view.log[from..next].to_vec() });
            }
            self.phase = 1;
            return None;
        }
        match w.hear(&mut self.call) {
            Heard::Nothing => None,
            Heard::Answer(_) => Some(Outcome::Acked { next: self.batch.1 as u64 }),
            Heard::TimedOut => self.unknown(w),
        }
    }

    fn save_cursor(&mut self, w: &mut World, view: &LogView<'_>, next: u64) -> Option<Outcome> {
        let cursor = &mut w.dirs[view.lane].cursors[self.role as usize];
        if self.phase == 0 {
            cursor.replace(next);
            self.phase = 1;
            return None;
        }
        cursor.sync();
        Some(Outcome::CursorSaved)
    }
}
