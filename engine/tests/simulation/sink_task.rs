//! A sink of a lane in a process: drives [`Delivery`] against the simulated Kafka, message by message in the order of
//! `connectors/src/kafka/sink.rs`.

use avouch_engine::control::invariants;
use avouch_engine::control::sink::{Action, Delivery, Ended, Guarantee, Outcome};
use avouch_engine::control::{Failure, Ticket};

use super::bugs::Bug;
use super::kafka::{Cursor, Denied, Life};
use super::world::{Answer, Ask, Call, Heard, Task, World};

/// The most records of one batch: few, so that batches end everywhere.
const MOST: usize = 5;

/// The log that a sink tails.
pub struct LogView<'a> {
    pub lane: usize,
    pub life: Life,
    pub log: &'a [u64],
    pub roots: &'a [u64],
}

pub struct SinkTask {
    pub delivery: Delivery,
    guarantee: Guarantee,
    doing: Option<(Ticket, Action)>,
    phase: u8,
    pub call: Option<Call>,
    epoch: u32,
    note: u64,
    /// First and end of the batch under way.
    batch: (usize, usize),
    refused: usize,
    saved: u64,
    /// Where it believes to be, for protocols that trust it.
    believed: Option<usize>,
    read_first: Option<Option<Cursor>>,
}

impl SinkTask {
    pub fn new(guarantee: Guarantee, durable: u64, now: i64) -> Self {
        Self {
            delivery: Delivery::new(guarantee, durable, now),
            guarantee,
            doing: None,
            phase: 0,
            call: None,
            epoch: 0,
            note: 0,
            batch: (0, 0),
            refused: 0,
            saved: 0,
            believed: None,
            read_first: None,
        }
    }

    pub fn ended(&self, now: i64) -> bool {
        self.doing.is_none() && matches!(self.delivery.action(now), Action::End(_))
    }

    pub fn describe(&self) -> String {
        format!("{:?} at {} doing {:?} phase {}", self.guarantee, self.delivery.position(), self.doing, self.phase)
    }

    fn ask(&mut self, w: &mut World, view: &LogView<'_>, ask: Ask) {
        let sink = usize::from(self.guarantee == Guarantee::Plain);
        self.call = Some(w.ask((view.life, Task::Sink(view.lane, sink)), ask));
    }

    /// One act. False when the process must end.
    pub fn act(&mut self, w: &mut World, view: &LogView<'_>, now: i64) -> bool {
        let (ticket, doing) = match self.doing {
            Some(doing) => doing,
            None => match self.delivery.action(now) {
                Action::Wait { .. } | Action::End(Ended::Stopped { .. }) => return true,
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
        let outcome = match (doing, self.guarantee) {
            (Action::Open, Guarantee::Transactional) => self.open(w, view),
            (Action::Open, Guarantee::Plain) => {
                let cursor = w.dirs[view.lane].cursors[1].get();
                Some(Outcome::Opened { cursor: Some(cursor), noted: false, saved: cursor })
            }
            (Action::CheckNote { at }, _) => Some(Outcome::Note { same: view.roots[at as usize] == self.note }),
            (Action::SaveCursor { next }, _) => self.save_cursor(w, view, next),
            (Action::Write { from, upto }, Guarantee::Transactional) => {
                self.transaction(w, view, (from as usize, upto as usize), false)
            }
            (Action::SetAside { index }, Guarantee::Transactional) => {
                self.transaction(w, view, (index as usize, index as usize + 1), true)
            }
            (Action::Refresh { at }, _) => self.transaction(w, view, (at as usize, at as usize), false),
            (Action::Write { from, upto }, Guarantee::Plain) => self.plain(w, view, (from as usize, upto as usize)),
            (Action::SetAside { .. } | Action::Wait { .. } | Action::End(_), _) => {
                unreachable!("a plain topic takes all")
            }
        };
        if let Some(outcome) = outcome {
            self.doing = None;
            if let Outcome::Acked { next } = outcome {
                self.believed = Some(next as usize);
            }
            w.hold(self.delivery.on(ticket, outcome, now));
            // Some answers come twice.
            if w.random.one_in(8) {
                w.hold(self.delivery.on(ticket, outcome, now));
            }
        }
        true
    }

    fn unknown(&mut self) -> Option<Outcome> {
        self.call = None;
        Some(Outcome::Failed(Failure::Unknown))
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
            Some(Outcome::Opened { cursor, noted: cursor.is_some(), saved })
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
                        return Some(Outcome::Opened { cursor: Some(at as u64), noted: false, saved });
                    }
                    self.ask(w, view, Ask::FetchCursor { lane });
                    self.phase = 2;
                }
                _ => return self.unknown(),
            },
            2 => match w.hear(&mut self.call) {
                Heard::Nothing => {}
                Heard::Answer(Answer::Cursor(cursor)) => return opened(self, cursor),
                _ => return self.unknown(),
            },
            _ => match w.hear(&mut self.call) {
                Heard::Nothing => {}
                Heard::Answer(Answer::Cursor(cursor)) => {
                    self.read_first = Some(cursor);
                    self.ask(w, view, Ask::BeginEpoch { lane });
                    self.phase = 1;
                }
                _ => return self.unknown(),
            },
        }
        None
    }

    fn choose(&mut self, w: &mut World, (from, upto): (usize, usize)) {
        self.batch = (from, if upto > from { from + 1 + w.random.below((upto - from).min(MOST)) } else { from });
    }

    /// Records, cursor, commit.
    fn transaction(&mut self, w: &mut World, view: &LogView<'_>, all: (usize, usize), aside: bool) -> Option<Outcome> {
        let (lane, epoch) = (view.lane, self.epoch);
        if self.phase == 0 {
            self.choose(w, all);
            let (from, next) = self.batch;
            let durable = w.durable_size(lane) as u64;
            w.hold(invariants::only_durable("a delivery", next as u64, durable));
            if next == from {
                self.phase = 2;
            } else if w.bug == Bug::CursorBeforeTransaction {
                self.ask(w, view, Ask::SetCursor { lane, cursor: (next, view.roots[next]) });
                self.phase = 1;
            } else {
                self.phase = 2;
                self.produce(w, view, aside);
                return None;
            }
        }
        let (from, next) = self.batch;
        let cursor = (next, view.roots[next]);
        match self.phase {
            // The mistake of moving the cursor first.
            1 => match w.hear(&mut self.call) {
                Heard::Nothing => {}
                Heard::Answer(_) => {
                    self.produce(w, view, aside);
                    self.phase = 2;
                }
                Heard::TimedOut => return self.unknown(),
            },
            2 if from == next && self.call.is_none() => {
                self.ask(w, view, Ask::AddCursor { lane, epoch, cursor });
                self.phase = 3;
            }
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
                Heard::Answer(Answer::Denied(Denied::Record(index))) => {
                    self.refused = index;
                    self.ask(w, view, Ask::EndTransaction { lane, epoch, commit: false });
                    self.phase = 5;
                }
                other => return self.gone(other),
            },
            3 => match w.hear(&mut self.call) {
                Heard::Nothing => {}
                Heard::Answer(Answer::Done) => {
                    self.ask(w, view, Ask::EndTransaction { lane, epoch, commit: true });
                    self.phase = 4;
                }
                other => return self.gone(other),
            },
            4 => match w.hear(&mut self.call) {
                Heard::Nothing => {}
                Heard::Answer(Answer::Done) if w.bug == Bug::CursorAfterTransaction && from < next => {
                    self.ask(w, view, Ask::SetCursor { lane, cursor });
                    self.phase = 6;
                }
                Heard::Answer(Answer::Done) => return Some(Outcome::Acked { next: next as u64 }),
                other => return self.gone(other),
            },
            // The transaction is aborted, or there was none.
            5 => match w.hear(&mut self.call) {
                Heard::Nothing => {}
                Heard::Answer(Answer::Done | Answer::Denied(Denied::NoTransaction)) => {
                    return Some(Outcome::Refused { index: self.refused as u64 });
                }
                other => return self.gone(other),
            },
            _ => match w.hear(&mut self.call) {
                Heard::Nothing => {}
                Heard::Answer(_) => return Some(Outcome::Acked { next: next as u64 }),
                Heard::TimedOut => return self.unknown(),
            },
        }
        None
    }

    fn produce(&mut self, w: &mut World, view: &LogView<'_>, set_aside: bool) {
        let (from, next) = self.batch;
        let words = view.log[from..next].to_vec();
        self.ask(w, view, Ask::Produce { lane: view.lane, epoch: self.epoch, from, words, set_aside });
    }

    fn gone(&mut self, heard: Heard) -> Option<Outcome> {
        self.call = None;
        Some(Outcome::Failed(match heard {
            Heard::Answer(Answer::Denied(Denied::Fenced)) => Failure::Fenced,
            _ => Failure::Unknown,
        }))
    }

    fn plain(&mut self, w: &mut World, view: &LogView<'_>, all: (usize, usize)) -> Option<Outcome> {
        let lane = view.lane;
        if self.phase == 0 {
            self.choose(w, all);
            let (from, next) = self.batch;
            let durable = w.durable_size(lane) as u64;
            w.hold(invariants::only_durable("a delivery", next as u64, durable));
            if w.bug == Bug::PlainCursorFirst {
                w.dirs[lane].cursors[1].replace(next as u64);
                w.dirs[lane].cursors[1].sync();
            }
            self.ask(w, view, Ask::ProducePlain { lane, from, words: view.log[from..next].to_vec() });
            self.phase = 1;
            return None;
        }
        match w.hear(&mut self.call) {
            Heard::Nothing => None,
            Heard::Answer(_) => Some(Outcome::Acked { next: self.batch.1 as u64 }),
            Heard::TimedOut => self.unknown(),
        }
    }

    fn save_cursor(&mut self, w: &mut World, view: &LogView<'_>, next: u64) -> Option<Outcome> {
        let cursor = &mut w.dirs[view.lane].cursors[usize::from(self.guarantee == Guarantee::Plain)];
        if self.phase == 0 {
            cursor.replace(next);
            self.phase = 1;
            return None;
        }
        cursor.sync();
        Some(Outcome::CursorSaved)
    }
}
