//! What tasks ask of services, and what becomes of it: messages arrive in any order, long after their sender has given up or
//! died, and answers get lost.

use avouch_engine::control::Head;
use avouch_engine::control::reload::{Version, Versions};

use super::archive::Place;
use super::bugs::Bug;
use super::chain::Transaction;
use super::kafka::{Cursor, Denied, Life};
use super::objects::{Manifest, Part};
use super::world::World;

/// Which task a message comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Task {
    Lane(usize),
    Sink(usize, usize),
    Anchor,
    Version,
}

/// A message to a service.
pub enum Ask {
    BeginEpoch { lane: usize },
    FetchCursor { lane: usize },
    Produce { lane: usize, epoch: u32, records: Vec<(usize, u64)> },
    AddCursor { lane: usize, epoch: u32, cursor: Cursor },
    SetCursor { lane: usize, cursor: Cursor },
    EndTransaction { lane: usize, epoch: u32, commit: bool },
    ProducePlain { lane: usize, from: usize, words: Vec<u64> },
    ProduceDead { lane: usize, from: usize, indices: Vec<u64> },
    ReadArchive { lane: usize },
    SetArchive { lane: usize, place: Place, version: u64 },
    PutFile { lane: usize, from: usize, words: Vec<u64> },
    KeepRefusal { lane: usize, index: u64 },
    Newest { lane: usize },
    PutPart { lane: usize, id: u64, part: Part },
    PutManifest { lane: usize, number: u64, manifest: Box<Manifest> },
    AnyAbove { lane: usize, number: u64 },
    Send(Transaction),
    ReadChain { lane: usize, size: u64 },
    Versions,
    PutVersion(Version),
}

/// A lane's newest manifest: its number, itself, the log and the dead letters it covers.
pub type Newest = (u64, Manifest, Vec<u64>, Vec<u64>);

/// What a service answers.
pub enum Answer {
    Done,
    Denied(Denied),
    Epoch(u32),
    Cursor(Option<Cursor>),
    Archive(Option<Place>, u64),
    Version(u64),
    Newest(Option<Box<Newest>>),
    /// Whose manifest is there now.
    Writer(u64),
    Above(bool),
    Versions(Versions),
    Put(bool),
    Chain {
        head: Head,
        root_at: Option<[u8; 32]>,
        final_size: u64,
    },
}

pub struct Message {
    pub from: (Life, Task),
    pub call: u32,
    pub ask: Ask,
    /// How often it is still passed over.
    pub delay: usize,
}

/// A question on its way, in the task that asked.
pub struct Call {
    pub id: u32,
    pub answer: Option<Answer>,
}

/// What a call has come to.
pub enum Heard {
    Nothing,
    Answer(Answer),
    /// Nobody knows whether it happened, or will.
    TimedOut,
}

/// Kinds of services.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Service {
    Transactions,
    Plain,
    Archive,
    Objects,
    Chain,
}

impl Ask {
    pub fn service(&self) -> Service {
        match self {
            Ask::BeginEpoch { .. }
            | Ask::FetchCursor { .. }
            | Ask::Produce { .. }
            | Ask::AddCursor { .. }
            | Ask::SetCursor { .. }
            | Ask::EndTransaction { .. } => Service::Transactions,
            Ask::ProducePlain { .. } | Ask::ProduceDead { .. } => Service::Plain,
            Ask::ReadArchive { .. } | Ask::SetArchive { .. } | Ask::PutFile { .. } => Service::Archive,
            Ask::Newest { .. }
            | Ask::PutPart { .. }
            | Ask::PutManifest { .. }
            | Ask::AnyAbove { .. }
            | Ask::KeepRefusal { .. }
            | Ask::Versions
            | Ask::PutVersion(_) => Service::Objects,
            Ask::Send(_) | Ask::ReadChain { .. } => Service::Chain,
        }
    }
}

impl World {
    pub fn ask(&mut self, from: (Life, Task), ask: Ask) -> Call {
        self.next_call += 1;
        // Most arrive soon; some are stuck somewhere until everybody has forgotten them.
        let delay = if self.fault(self.faults.stuck) { self.random.below(150) } else { 0 };
        self.messages.push(Message { from, call: self.next_call, ask, delay });
        Call { id: self.next_call, answer: None }
    }

    /// Looks whether a call has come to something.
    pub fn hear(&mut self, call: &mut Option<Call>) -> Heard {
        let Some(waiting) = call else { return Heard::TimedOut };
        if let Some(answer) = waiting.answer.take() {
            *call = None;
            return Heard::Answer(answer);
        }
        let id = waiting.id;
        // While the run drains only what cannot be answered any more times out.
        let under_way = self.messages.iter().any(|m| m.call == id);
        if (under_way && !self.fault(self.faults.time_out)) || (!under_way && !self.random.one_in(4)) {
            return Heard::Nothing;
        }
        *call = None;
        Heard::TimedOut
    }

    pub fn serve(&mut self, ask: Ask) -> Answer {
        let done = |r: Result<(), Denied>| r.map_or_else(Answer::Denied, |()| Answer::Done);
        match ask {
            Ask::BeginEpoch { lane } => Answer::Epoch(self.topics[lane].begin_epoch()),
            Ask::FetchCursor { lane } => Answer::Cursor(self.topics[lane].cursor()),
            Ask::Produce { lane, epoch, records } => done(self.topics[lane].produce(epoch, &records, &mut self.random)),
            Ask::AddCursor { lane, epoch, cursor } => done(self.topics[lane].add_cursor(epoch, cursor)),
            Ask::SetCursor { lane, cursor } => {
                self.topics[lane].set_cursor(cursor);
                Answer::Done
            }
            Ask::EndTransaction { lane, epoch, commit } => {
                let is_kept = |index| self.refusals[lane].is_durable(self.objects, index);
                match self.topics[lane].end(epoch, commit, &self.truth[lane], is_kept) {
                    Ok(ended) => done(ended),
                    Err(why) => {
                        self.violate(why);
                        Answer::Done
                    }
                }
            }
            Ask::ProducePlain { lane, from, words } => {
                if let Err(why) = self.plain[lane].produce(from, &words, &self.truth[lane]) {
                    self.violate(why);
                }
                Answer::Done
            }
            Ask::ProduceDead { lane, from, indices } => {
                if let Err(why) = self.dead[lane].produce(from, &indices, &self.truth[lane]) {
                    self.violate(why);
                }
                Answer::Done
            }
            Ask::ReadArchive { lane } => {
                let (place, version) = self.archives[lane].read();
                Answer::Archive(place, version)
            }
            Ask::SetArchive { lane, place, version } => match self.archives[lane].set(place, version) {
                Ok(Some(version)) => Answer::Version(version),
                Ok(None) => Answer::Denied(Denied::Fenced),
                Err(why) => {
                    self.violate(why);
                    Answer::Done
                }
            },
            Ask::PutFile { lane, from, words } => {
                if let Err(why) = self.archives[lane].put(from, words, &self.truth[lane]) {
                    self.violate(why);
                }
                Answer::Done
            }
            Ask::KeepRefusal { lane, index } => {
                self.refusals[lane].pieces.insert(index);
                Answer::Done
            }
            Ask::Newest { lane } => {
                let bucket = &self.buckets[lane];
                let newest = bucket.newest().map(|(n, m)| (n, m.clone(), bucket.fetch(m)));
                match newest {
                    None => Answer::Newest(None),
                    Some((number, manifest, Ok((log, dead)))) => {
                        Answer::Newest(Some(Box::new((number, manifest, log, dead))))
                    }
                    Some((.., Err(why))) => {
                        self.violate(why);
                        Answer::Newest(None)
                    }
                }
            }
            Ask::PutPart { lane, id, part } => {
                self.buckets[lane].parts.insert(id, part);
                Answer::Done
            }
            Ask::PutManifest { lane, number, manifest } => {
                let over = self.bug == Bug::NoFence;
                match self.buckets[lane].put_manifest(number, *manifest, over) {
                    Ok(writer) => Answer::Writer(writer),
                    Err(why) => {
                        self.violate(why);
                        Answer::Writer(0)
                    }
                }
            }
            Ask::AnyAbove { lane, number } => {
                Answer::Above(self.buckets[lane].newest().is_some_and(|(newest, _)| newest > number))
            }
            Ask::Versions => Answer::Versions(self.versions.seen()),
            Ask::PutVersion(version) => Answer::Put(self.versions.put(version, true, self.bug == Bug::VersionPutOver)),
            Ask::Send(transaction) => {
                self.chain.send(transaction);
                Answer::Done
            }
            Ask::ReadChain { lane, size } => Answer::Chain {
                head: self.chain.head(lane),
                root_at: self.chain.root_at(lane, size),
                final_size: self.chain.final_size(lane),
            },
        }
    }
}
