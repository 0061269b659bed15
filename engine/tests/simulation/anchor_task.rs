//! The anchors of a process: drives [`Anchoring`] against the simulated chain, with a journal on the process's disk, in the
//! order of `connectors/src/ethereum/writer.rs`.

use avouch_engine::control::anchor::{Action, AnchorPolicy, Anchoring, Ended, Outcome, Place, place, taken_back};
use avouch_engine::control::invariants;
use avouch_engine::control::{Failure, Head, Ticket};

use super::bugs::Bug;
use super::chain::Transaction;
use super::kafka::Life;
use super::lanes::{grow_root, head};
use super::messages::{Answer, Ask, Call, Heard, Task};
use super::random::Random;
use super::world::World;

/// How often a transaction is looked for before the call gives up; it stays in the journal.
const LOOKS: u8 = 12;

#[derive(Debug, Clone, Copy)]
struct Attempt {
    transaction: Transaction,
    included: bool,
}

/// What was signed, before it is sent.
#[derive(Default)]
pub struct Journal {
    cached: Vec<Attempt>,
    durable: Vec<Attempt>,
}

impl Journal {
    pub fn power_cut(&mut self, random: &mut Random) {
        if random.one_in(2) {
            self.cached.clone_from(&self.durable);
        }
        self.durable.clone_from(&self.cached);
    }

    fn sync(&mut self) {
        self.durable.clone_from(&self.cached);
    }

    fn find(&mut self, id: u64) -> Option<&mut Attempt> {
        self.cached.iter_mut().find(|a| a.transaction.id == id)
    }

    fn drop(&mut self, id: u64) {
        self.cached.retain(|a| a.transaction.id != id);
        self.sync();
    }
}

pub struct AnchorTask {
    pub machine: Anchoring,
    pub call: Option<Call>,
    doing: Option<(Ticket, Action)>,
    phase: u8,
    /// What is left of the present action: transactions to settle, or lanes to look at.
    todo: Vec<u64>,
    looks: u8,
}

impl AnchorTask {
    pub fn new(policy: AnchorPolicy) -> Self {
        Self { machine: Anchoring::new(policy), call: None, doing: None, phase: 0, todo: Vec::new(), looks: 0 }
    }

    /// One act.
    pub fn act(&mut self, w: &mut World, life: Life, journal: &mut Journal, now: i64) {
        let (ticket, doing) = match self.doing {
            Some(doing) => doing,
            None => match self.machine.action(now) {
                Action::WaitUntil(_) | Action::End(Ended::Stopped) => return,
                Action::End(ended) => return w.violate(format!("anchoring ended: {ended:?}")),
                action => {
                    (self.phase, self.looks, self.call) = (0, 0, None);
                    *self.doing.insert((self.machine.ticket(), action))
                }
            },
        };
        let outcome = match doing {
            Action::Connect => self.settle(w, life, journal),
            Action::Look => self.look(w, life, now),
            Action::Anchor { lane, from, to } => self.anchor(w, life, journal, lane, from, to),
            Action::WaitUntil(_) | Action::End(_) => None,
        };
        if let Some(outcome) = outcome {
            self.doing = None;
            w.hold(self.machine.on(ticket, outcome, now));
            if w.random.one_in(8) {
                w.hold(self.machine.on(ticket, outcome, now));
            }
        }
    }

    fn read_chain(&mut self, w: &mut World, life: Life, lane: usize, size: u64) {
        self.call = Some(w.ask((life, Task::Anchor), Ask::ReadChain { lane, size }));
    }

    /// Everything in the journal: what is final is forgotten, what a reorganisation took back is sent again.
    fn settle(&mut self, w: &mut World, life: Life, journal: &mut Journal) -> Option<Outcome> {
        if self.phase == 0 {
            self.todo = journal.cached.iter().map(|a| a.transaction.id).collect();
            self.phase = 1;
        }
        let Some(&id) = self.todo.last() else { return Some(Outcome::Done) };
        let Some(attempt) = journal.find(id) else {
            self.todo.pop();
            return None;
        };
        let t = attempt.transaction;
        if self.phase == 1 {
            self.read_chain(w, life, t.lane, t.new.size);
            self.phase = 2;
            return None;
        }
        match w.hear(&mut self.call) {
            Heard::Nothing => None,
            Heard::TimedOut => Some(Outcome::Failed(Failure::Unknown)),
            Heard::Answer(Answer::Chain { head, root_at, final_size }) => {
                self.phase = 1;
                if attempt.included {
                    match taken_back(&t.new, &head) {
                        Err(v) => w.violate(v.to_string()),
                        Ok(true) => attempt.included = false,
                        Ok(false) => {
                            self.todo.pop();
                            if t.new.size <= final_size {
                                journal.drop(id);
                            }
                        }
                    }
                    return None;
                }
                match place(&t.old, &t.new, &head, root_at.as_ref()) {
                    Err(v) => w.violate(v.to_string()),
                    Ok(Place::There) => {
                        attempt.included = true;
                        journal.sync();
                    }
                    Ok(Place::Elsewhere) => {
                        journal.drop(id);
                        self.todo.pop();
                    }
                    Ok(Place::Next) => {
                        self.looks += 1;
                        if self.looks > LOOKS {
                            return Some(Outcome::Failed(Failure::Unknown));
                        }
                        // The answer does not matter: the chain will show it.
                        w.ask((life, Task::Anchor), Ask::Send(t));
                    }
                }
                None
            }
            Heard::Answer(_) => None,
        }
    }

    /// On one machine, the lanes of all its processes are anchored by whoever looks, from what their directories hold.
    fn look_beside(&mut self, w: &mut World, now: i64) {
        for lane in 0..w.dirs.len() {
            let seen = w.dirs[lane].recover().ok().flatten().map(|c| head(c.log_size, c.root));
            if let Some(seen) = seen
                && self.machine.durable(lane as i32).is_none_or(|known| known.size < seen.size)
            {
                if w.bug != Bug::AnchorOfRenamed {
                    w.dirs[lane].sync_dir();
                }
                let log = w.dirs[lane].log.cached[..seen.size as usize].to_vec();
                let mut roots = vec![0];
                log.iter().for_each(|word| roots.push(grow_root(roots[roots.len() - 1], *word)));
                w.show(lane, seen, &log, &roots);
                w.hold(self.machine.committed(lane as i32, seen, now));
            }
        }
    }

    fn look(&mut self, w: &mut World, life: Life, now: i64) -> Option<Outcome> {
        if self.phase == 0 {
            if !w.objects {
                self.look_beside(w, now);
            }
            self.todo = (0..w.partitions.len() as u64).filter(|l| self.machine.backlog(*l as i32).is_some()).collect();
            self.phase = 1;
        }
        let Some(&lane) = self.todo.last() else { return Some(Outcome::Done) };
        if self.phase == 1 {
            self.read_chain(w, life, lane as usize, 0);
            self.phase = 2;
            return None;
        }
        match w.hear(&mut self.call) {
            Heard::Nothing => None,
            Heard::Answer(Answer::Chain { head, .. }) => {
                let lower = self.machine.head(lane as i32).is_some_and(|known| head.size < known.size);
                if !(lower && w.bug == Bug::ReorgIgnored) {
                    self.machine.seen(lane as i32, head, now);
                }
                self.todo.pop();
                self.phase = 1;
                None
            }
            _ => Some(Outcome::Failed(Failure::Unknown)),
        }
    }

    fn anchor(
        &mut self,
        w: &mut World,
        life: Life,
        journal: &mut Journal,
        lane: i32,
        from: Head,
        to: Head,
    ) -> Option<Outcome> {
        match self.phase {
            // The lane cannot be read, or gas is too dear: nothing was signed.
            0 if w.fault(40) => {
                let dear = (from.size + to.size) % 2 == 1;
                return Some(if dear { Outcome::Deferred { lane } } else { Outcome::Unreadable { lane } });
            }
            0 => {
                let durable = w.durable_size(lane as usize) as u64;
                w.hold(invariants::anchor_extends(&from, &from, &to, durable));
                let transaction = Transaction { id: w.fresh(), lane: lane as usize, old: from, new: to };
                journal.cached.push(Attempt { transaction, included: false });
                self.todo = vec![transaction.id];
                self.phase = 1;
            }
            1 => {
                journal.sync();
                self.phase = 2;
            }
            2 => {
                if let Some(attempt) = journal.find(self.todo[0]) {
                    w.ask((life, Task::Anchor), Ask::Send(attempt.transaction));
                }
                self.phase = 3;
            }
            3 => {
                self.read_chain(w, life, lane as usize, to.size);
                self.phase = 4;
            }
            _ => match w.hear(&mut self.call) {
                Heard::Nothing => {}
                Heard::Answer(Answer::Chain { head, root_at, .. }) => {
                    let id = self.todo[0];
                    match place(&from, &to, &head, root_at.as_ref()) {
                        Err(v) => w.violate(v.to_string()),
                        Ok(Place::There) => {
                            if let Some(attempt) = journal.find(id) {
                                attempt.included = true;
                            }
                            journal.sync();
                            return Some(Outcome::Anchored { lane, head });
                        }
                        Ok(Place::Elsewhere) => {
                            journal.drop(id);
                            return Some(Outcome::Failed(Failure::Unknown));
                        }
                        Ok(Place::Next) => {
                            self.looks += 1;
                            if self.looks > LOOKS {
                                return Some(Outcome::Failed(Failure::Unknown));
                            }
                            self.phase = if w.random.one_in(3) { 2 } else { 3 };
                        }
                    }
                }
                _ => return Some(Outcome::Failed(Failure::Unknown)),
            },
        }
        None
    }
}
