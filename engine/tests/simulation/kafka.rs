//! Kafka as far as the runtime leans on it: a consumer group with sessions, and topics written in transactions that carry
//! a cursor, under ids whose epochs fence.

use avouch_engine::control::invariants;

use super::lanes::Truth;
use super::random::Random;
use super::refusals::{is_refused, is_taken};

/// A process, in one of its lives.
pub type Life = (usize, u32);

/// Who owns which lane.
pub struct Group {
    pub members: Vec<Option<u32>>,
    owner: Vec<Option<Life>>,
    target: Vec<Option<usize>>,
    /// Members keep their lanes through a restart (`group.instance.id`).
    lasting: bool,
}

/// What a poll tells a member about a lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Told {
    Assigned,
    Revoked,
    Lost,
}

impl Group {
    pub fn new(processes: usize, lanes: usize, lasting: bool) -> Self {
        Self { members: vec![None; processes], owner: vec![None; lanes], target: vec![None; lanes], lasting }
    }

    pub fn join(&mut self, (process, life): Life, random: &mut Random) {
        let before = self.members[process].replace(life);
        for owner in self.owner.iter_mut().filter(|o| o.is_some_and(|(p, _)| p == process)) {
            // The life before is over, or fenced by this one's joining under its name.
            *owner = if self.lasting && before.is_some() { Some((process, life)) } else { None };
        }
        self.rebalance(random);
    }

    /// The session of a member has expired.
    pub fn expire(&mut self, process: usize, random: &mut Random) {
        if self.members[process].take().is_some() {
            for owner in self.owner.iter_mut().filter(|o| o.is_some_and(|(p, _)| p == process)) {
                *owner = None;
            }
            self.rebalance(random);
        }
    }

    /// A member ends in good order.
    pub fn leave(&mut self, (process, life): Life, random: &mut Random) {
        if self.members[process] == Some(life) {
            self.expire(process, random);
        }
    }

    pub fn rebalance(&mut self, random: &mut Random) {
        let members: Vec<usize> = (0..self.members.len()).filter(|p| self.members[*p].is_some()).collect();
        for target in &mut self.target {
            let stays = target.is_some_and(|t| members.contains(&t));
            // Sticky, but now and then a lane moves for balance.
            if !stays || random.one_in(4) {
                *target = if members.is_empty() { None } else { Some(members[random.below(members.len())]) };
            }
        }
    }

    /// What has changed for `lane`, of which the member believes that it has it or not.
    pub fn poll(&mut self, life: Life, lane: usize, has: bool) -> Option<Told> {
        let (process, incarnation) = life;
        if self.members[process] != Some(incarnation) {
            return has.then_some(Told::Lost);
        }
        match self.owner[lane] {
            None if self.target[lane] == Some(process) && !has => {
                self.owner[lane] = Some(life);
                Some(Told::Assigned)
            }
            Some(owner) if owner == life && !has => Some(Told::Assigned),
            Some(owner) if owner == life && self.target[lane] != Some(process) => Some(Told::Revoked),
            Some(owner) if owner == life => None,
            _ => has.then_some(Told::Lost),
        }
    }

    /// The member has let go of a lane.
    pub fn release(&mut self, life: Life, lane: usize) {
        if self.owner[lane] == Some(life) {
            self.owner[lane] = None;
        }
    }
}

/// A cursor and the note that goes with it.
pub type Cursor = (usize, u64);

/// Why the broker did not do it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Denied {
    Fenced,
    /// No transaction is open, or it was aborted meanwhile.
    NoTransaction,
    /// It refuses some of these records: those from the first of these numbers up to the second, if it says.
    Records(Option<(u64, u64)>),
}

#[derive(Default)]
struct Open {
    records: Vec<(usize, u64)>,
    cursor: Option<Cursor>,
}

/// The transactional topic of one lane's sink: its id, its cursor, what `read_committed` shows.
#[derive(Default)]
pub struct TransactionalTopic {
    epoch: u32,
    open: Option<Open>,
    cursor: Option<Cursor>,
    /// The next index that must appear.
    pub delivered: usize,
}

impl TransactionalTopic {
    /// A new writer: whatever the one before left open is aborted.
    pub fn begin_epoch(&mut self) -> u32 {
        self.epoch += 1;
        self.open = None;
        self.epoch
    }

    pub fn cursor(&self) -> Option<Cursor> {
        self.cursor
    }

    /// Outside of any transaction, as no sink should.
    pub fn set_cursor(&mut self, cursor: Cursor) {
        self.cursor = Some(cursor);
    }

    pub fn produce(&mut self, epoch: u32, records: &[(usize, u64)], random: &mut Random) -> Result<(), Denied> {
        self.alone(epoch)?;
        let refused = |(_, word): &(usize, u64)| is_refused(*word);
        if let Some(first) = records.iter().position(refused) {
            let last = records.iter().rposition(refused).unwrap_or(first);
            // What a sink says of it need not even be right.
            let said =
                [None, Some((first as u64, last as u64 + 1)), Some((random.below(9) as u64, random.below(9) as u64))];
            return Err(Denied::Records(said[random.below(3)]));
        }
        self.open.get_or_insert_default().records.extend_from_slice(records);
        Ok(())
    }

    pub fn add_cursor(&mut self, epoch: u32, cursor: Cursor) -> Result<(), Denied> {
        self.alone(epoch)?;
        self.open.get_or_insert_default().cursor = Some(cursor);
        Ok(())
    }

    /// Ends the transaction. What it commits must be what follows what `read_committed` has shown so far; what it leaves out
    /// is either none of this sink's or refused, and then no crash may take away that it was (`is_kept`).
    pub fn end(
        &mut self,
        epoch: u32,
        commit: bool,
        truth: &Truth,
        is_kept: impl Fn(u64) -> bool,
    ) -> Result<Result<(), Denied>, String> {
        if let Err(denied) = self.alone(epoch) {
            return Ok(Err(denied));
        }
        let Some(open) = self.open.take() else { return Ok(Err(Denied::NoTransaction)) };
        if !commit {
            return Ok(Ok(()));
        }
        for (index, word) in open.records {
            self.pass(index, truth, &is_kept)?;
            invariants::batch_in_order(self.delivered as u64, index as u64, index as u64 + 1)
                .map_err(|v| format!("read_committed: {v}"))?;
            check_word(truth, index, word)?;
            self.delivered += 1;
        }
        if let Some(cursor) = open.cursor {
            self.pass(cursor.0, truth, &is_kept)?;
            self.cursor = Some(cursor);
        }
        Ok(Ok(()))
    }

    fn pass(&mut self, to: usize, truth: &Truth, is_kept: impl Fn(u64) -> bool) -> Result<(), String> {
        for index in self.delivered..to {
            match truth.verdicts.get(index) {
                Some(word) if !is_taken(*word) => {}
                Some(word) if is_refused(*word) && is_kept(index as u64) => {}
                Some(word) if is_refused(*word) => {
                    return Err(format!("refusal {index} was passed before it was kept"));
                }
                _ => return Err(format!("read_committed: record {index} was left out")),
            }
        }
        self.delivered = self.delivered.max(to);
        Ok(())
    }

    /// The coordinator gives up waiting for the end of a transaction.
    pub fn time_out(&mut self) {
        if self.open.take().is_some() {
            self.epoch += 1;
        }
    }

    fn alone(&self, epoch: u32) -> Result<(), Denied> {
        if epoch == self.epoch { Ok(()) } else { Err(Denied::Fenced) }
    }
}

/// A topic written without transactions: each record at least once, and none before those before it.
#[derive(Default)]
pub struct PlainTopic {
    pub delivered: usize,
}

impl PlainTopic {
    pub fn produce(&mut self, from: usize, words: &[u64], truth: &Truth) -> Result<(), String> {
        for (i, word) in words.iter().enumerate() {
            check_word(truth, from + i, *word)?;
        }
        if from > self.delivered {
            return Err(format!("a plain sink left out records {}..{from}", self.delivered));
        }
        self.delivered = self.delivered.max(from + words.len());
        Ok(())
    }
}

fn check_word(truth: &Truth, index: usize, word: u64) -> Result<(), String> {
    if truth.verdicts.get(index) == Some(&word) {
        return Ok(());
    }
    Err(format!("verdict {index} was delivered, but not as readers were shown it"))
}
