//! The simulated world: processes and what they share, one event at a time.
//!
//! An event is one act of one task (a write, an fsync, a message sent, an answer taken), the arrival of one message at a
//! service, or a fault. Which comes next, the seed decides. Messages arrive in any order, long after their sender has given
//! up or died; answers get lost. So every interleaving of acts that the runtime's threads and its brokers could show is
//! within reach, and a crash between any two acts.

use avouch_engine::control::Head;
use avouch_engine::control::anchor::AnchorPolicy;
use avouch_engine::control::invariants::{self, Shown, Violation};

use super::archive::{Archive, Place};
use super::bugs::Bug;
use super::chain::{Chain, Transaction};
use super::disk::LaneDir;
use super::kafka::{Cursor, Denied, Group, Life, PlainTopic, TransactionalTopic};
use super::lanes::{Kind, Partition, Truth, Unbroken, head};
use super::objects::{Bucket, Manifest, Part};
use super::process::Process;
use super::random::Random;
use super::refusals::{DeadTopic, Kept, is_refused};

/// How a run is set up.
#[derive(Clone)]
pub struct Setup {
    pub seed: u64,
    pub bug: Bug,
    pub kind: Kind,
}

/// Which task a message comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Task {
    Lane(usize),
    Sink(usize, usize),
    Anchor,
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
    Chain {
        head: Head,
        root_at: Option<[u8; 32]>,
        final_size: u64,
    },
}

struct Message {
    from: (Life, Task),
    call: u32,
    ask: Ask,
    /// How often it is still passed over.
    delay: usize,
}

/// A question on its way, in the task that asked.
pub struct Call {
    id: u32,
    answer: Option<Answer>,
}

/// What a call has come to.
pub enum Heard {
    Nothing,
    Answer(Answer),
    /// Nobody knows whether it happened, or will.
    TimedOut,
}

/// How often what goes wrong, as one in so many events; 0 is never. Drawn anew for each seed, so that some runs have one
/// kind of trouble in plenty and none of the others.
struct Faults {
    kill: usize,
    power_cut: usize,
    pause: usize,
    expire: usize,
    lost_answer: usize,
    time_out: usize,
    clock_jump: usize,
    abort: usize,
    reorganise: usize,
    lose_transaction: usize,
    rebalance: usize,
    stop: usize,
    stuck: usize,
    /// One kind of service that is slow throughout.
    slow: Option<Service>,
}

/// Kinds of services.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Service {
    Transactions,
    Plain,
    Archive,
    Objects,
    Chain,
}

impl Ask {
    fn service(&self) -> Service {
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
            | Ask::KeepRefusal { .. } => Service::Objects,
            Ask::Send(_) | Ask::ReadChain { .. } => Service::Chain,
        }
    }
}

impl Faults {
    fn draw(random: &mut Random) -> Self {
        let mut some = |rate: usize| if random.one_in(3) { 0 } else { rate / 2 + 1 + random.below(rate) };
        Self {
            kill: some(300),
            power_cut: some(600),
            pause: some(400),
            expire: some(300),
            lost_answer: some(12),
            time_out: some(24),
            clock_jump: some(200),
            abort: some(200),
            reorganise: some(200),
            lose_transaction: some(100),
            rebalance: some(250),
            stop: some(500),
            stuck: some(40),
            slow: [
                None,
                None,
                Some(Service::Transactions),
                Some(Service::Plain),
                Some(Service::Archive),
                Some(Service::Objects),
                Some(Service::Chain),
            ][random.below(7)],
        }
    }
}

/// What all processes share.
pub struct World {
    pub random: Random,
    pub bug: Bug,
    pub kind: Kind,
    pub now_ms: i64,
    pub partitions: Vec<Partition>,
    /// Each log as it was ever shown.
    pub truth: Vec<Truth>,
    /// Whether the clock acts on idle partitions.
    pub ticks: bool,
    /// How much of each partition has been written yet.
    pub available: Vec<usize>,
    /// Lanes are kept in an object store and every process has a machine of its own; else one machine has all processes, and
    /// its disk all lanes.
    pub objects: bool,
    pub dirs: Vec<LaneDir>,
    pub buckets: Vec<Bucket>,
    pub group: Group,
    pub topics: Vec<TransactionalTopic>,
    pub plain: Vec<PlainTopic>,
    pub archives: Vec<Archive>,
    pub refusals: Vec<Kept>,
    pub dead: Vec<DeadTopic>,
    pub chain: Chain,
    /// How many checkpoints are kept: few, so that numbers become free and old ones are missed.
    pub keep: usize,
    pub checkpoint_every_ms: i64,
    pub anchor_policy: AnchorPolicy,
    /// The most that anybody was shown of each log.
    pub shown: Vec<Shown>,
    /// A mistaken protocol may be caught red-handed. Without one, the first violation ends the run.
    pub violation: Option<String>,
    pub draining: bool,
    messages: Vec<Message>,
    next_call: u32,
    next_id: u64,
    faults: Faults,
}

impl World {
    fn new(setup: &Setup) -> (Self, usize) {
        let mut random = Random::new(setup.seed);
        let processes = 1 + random.below(3);
        let lanes = 1 + random.below(3);
        let partitions: Vec<Partition> = (0..lanes)
            .map(|_| {
                let rows = 8 + random.below(40);
                let values = (0..rows).map(|_| (!random.one_in(8)).then(|| random.word() >> 16)).collect();
                Partition { values }
            })
            .collect();
        let lasting = random.one_in(2);
        let faults = Faults::draw(&mut random);
        let world = Self {
            bug: setup.bug,
            kind: setup.kind.clone(),
            now_ms: 1_000_000,
            available: vec![0; lanes],
            truth: (0..lanes).map(|_| Truth::new()).collect(),
            ticks: matches!(setup.kind, Kind::StandIn) && random.one_in(2),
            objects: random.one_in(2),
            dirs: (0..lanes).map(|_| LaneDir::default()).collect(),
            buckets: (0..lanes).map(|_| Bucket::default()).collect(),
            group: Group::new(processes, lanes, lasting),
            topics: (0..lanes).map(|_| TransactionalTopic::default()).collect(),
            plain: (0..lanes).map(|_| PlainTopic::default()).collect(),
            archives: (0..lanes).map(|_| Archive::default()).collect(),
            refusals: (0..lanes).map(|_| Kept::default()).collect(),
            dead: (0..lanes).map(|_| DeadTopic::default()).collect(),
            chain: Chain::new(lanes),
            keep: 1 + random.below(2),
            checkpoint_every_ms: 50 + random.below(500) as i64,
            anchor_policy: AnchorPolicy {
                verdicts: Some(1 + random.below(8) as u64),
                interval_ms: Some(500 + random.below(2_000) as i64),
            },
            shown: vec![Shown::default(); lanes],
            violation: None,
            draining: false,
            messages: Vec::new(),
            next_call: 0,
            next_id: 0,
            faults,
            partitions,
            random,
        };
        (world, processes)
    }

    /// Chance, but none while the run drains.
    pub fn fault(&mut self, one_in: usize) -> bool {
        !self.draining && one_in > 0 && self.random.one_in(one_in)
    }

    /// A number that nobody else has.
    pub fn fresh(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    pub fn violate(&mut self, what: impl Into<String>) {
        self.violation.get_or_insert_with(|| what.into());
    }

    /// Notes a violation, if it is one.
    pub fn hold<E: std::fmt::Display>(&mut self, checked: Result<(), E>) -> bool {
        if let Err(v) = &checked {
            self.violate(v.to_string());
        }
        checked.is_ok()
    }

    /// How much of a lane's log no crash can take away, whatever the processes believe.
    pub fn durable_size(&self, lane: usize) -> usize {
        if self.objects {
            self.buckets[lane].newest().map_or(0, |(_, m)| m.checkpoint.log_size)
        } else {
            self.dirs[lane].durable_size().unwrap_or(0)
        }
    }

    /// Readers, sinks and anchors are told of a checkpoint.
    pub fn show(&mut self, lane: usize, now: Head, log: &[u64], roots: &[u64]) {
        let durable = self.durable_size(lane) as u64;
        self.hold(invariants::only_durable("what readers are shown", now.size, durable));
        let shown = self.truth[lane].show(log, roots);
        self.hold(shown);
        let mut shown = self.shown[lane];
        // A process that was overtaken may still tell its own readers of its last checkpoint, which stands. What must not be is a
        // log that a newer reader would contradict.
        if shown.most().is_none_or(|most| now.size >= most.size) {
            let checked = shown.show::<Violation>(now, |size| Ok(head(size as usize, roots[size as usize]).root));
            self.hold(checked);
            self.shown[lane] = shown;
        }
    }

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

    fn serve(&mut self, ask: Ask) -> Answer {
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

/// A world with its processes.
pub struct Simulation {
    pub world: World,
    pub processes: Vec<Process>,
    pub steps: u64,
}

/// What one run came to.
pub struct Outcome {
    pub steps: u64,
    /// Verdicts and dead letters.
    pub made: (u64, u64),
    pub violation: Option<String>,
}

/// Runs one seed: trouble first, then peace in which everything must drain.
pub fn run(setup: &Setup) -> Outcome {
    let (world, processes) = World::new(setup);
    let mut s = Simulation { world, processes: (0..processes).map(Process::new).collect(), steps: 0 };
    let troubled = 300 + s.world.random.below(2_500) as u64;
    while s.steps < troubled && s.world.violation.is_none() {
        s.step();
    }
    s.world.draining = true;
    s.processes.iter_mut().for_each(|p| p.paused = false);
    let patience = s.steps + 100_000;
    while s.world.violation.is_none() && !s.drained() {
        s.step();
        if s.steps >= patience {
            let stuck = s.stuck();
            s.world.violate(format!("it does not come to rest: {stuck}"));
        }
    }
    let made = if s.world.violation.is_none() { s.check_end() } else { (0, 0) };
    Outcome { steps: s.steps, made, violation: s.world.violation }
}

impl Simulation {
    fn step(&mut self) {
        self.steps += 1;
        let w = &mut self.world;
        w.now_ms += w.random.below(if w.draining { 200 } else { 40 }) as i64;
        let slots = self.processes.len() * Process::slots(w.partitions.len());
        let events = slots + 2 * w.messages.len() + 3;
        let mut pick = w.random.below(events);
        if pick < slots {
            let n = self.processes.len();
            self.processes[pick % n].act(w, pick / n);
            return;
        }
        pick -= slots;
        if pick < 2 * w.messages.len() {
            self.deliver(pick / 2);
            return;
        }
        match pick - 2 * w.messages.len() {
            0 => {
                let lane = w.random.below(w.available.len());
                let more = 1 + w.random.below(4);
                w.available[lane] = (w.available[lane] + more).min(w.partitions[lane].values.len());
            }
            1 if w.random.one_in(4) => {
                if let Err(why) = w.chain.mine(&mut w.random, &w.truth) {
                    w.violate(why);
                }
            }
            1 => {}
            _ => self.trouble(),
        }
    }

    /// A message arrives; its answer may not.
    fn deliver(&mut self, index: usize) {
        let w = &mut self.world;
        if !w.draining && w.faults.slow == Some(w.messages[index].ask.service()) && !w.random.one_in(16) {
            return;
        }
        if !w.draining && w.messages[index].delay > 0 {
            w.messages[index].delay -= 1;
            return;
        }
        let Message { from: ((process, life), task), call, ask, .. } = w.messages.swap_remove(index);
        let answer = w.serve(ask);
        if w.fault(w.faults.lost_answer) {
            return;
        }
        if let Some(waiting) = self.processes[process].waiting(life, task)
            && waiting.id == call
        {
            waiting.answer = Some(answer);
        }
    }

    /// Faults. They are drawn several times a step of this kind, so the rates are per event all the same.
    fn trouble(&mut self) {
        let w = &mut self.world;
        let n = self.processes.len();
        // Roughly one event in twenty comes here.
        let mut happens =
            |one_in: usize| !w.draining && one_in > 0 && w.random.one_in((one_in / 20).max(1)) && !w.random.one_in(4);
        let faults = &w.faults;
        let (kill, cut, pause, expire) =
            (happens(faults.kill), happens(faults.power_cut), happens(faults.pause), happens(faults.expire));
        let (jump, abort, reorganise, lose, rebalance, stop) = (
            happens(faults.clock_jump),
            happens(faults.abort),
            happens(faults.reorganise),
            happens(faults.lose_transaction),
            happens(faults.rebalance),
            happens(faults.stop),
        );
        let process = w.random.below(n);
        if kill {
            self.processes[process].kill(w);
        }
        if cut {
            // With an object store a machine has one process and nothing on its disk that counts but its journal.
            for p in 0..n {
                if !w.objects || p == process {
                    self.processes[p].kill(w);
                    self.processes[p].power_cut(w);
                }
            }
            if !w.objects {
                for dir in &mut w.dirs {
                    dir.power_cut(&mut w.random);
                }
                for kept in &mut w.refusals {
                    kept.file.power_cut(&mut w.random);
                }
            }
        }
        if pause {
            self.processes[process].paused = true;
        } else if w.random.one_in(3) {
            self.processes[process].paused = false;
        }
        if expire {
            w.group.expire(process, &mut w.random);
        }
        if stop {
            self.processes[process].stop(w);
        }
        if jump {
            self.processes[process].skew_ms = w.random.below(200_000) as i64 - 100_000;
        }
        if abort {
            let lane = w.random.below(w.topics.len());
            w.topics[lane].time_out();
        }
        if reorganise {
            w.chain.reorganise(&mut w.random);
        }
        if lose {
            w.chain.lose_one(&mut w.random);
        }
        if rebalance {
            w.group.rebalance(&mut w.random);
        }
        // The dead come back, and what the group has not noticed yet it notices now.
        for p in 0..n {
            if self.processes[p].dead() {
                if w.random.one_in(2) {
                    w.group.expire(p, &mut w.random);
                } else {
                    self.processes[p].start(w);
                }
            }
        }
    }

    /// Whether everything has been read, delivered and anchored.
    fn drained(&self) -> bool {
        let w = &self.world;
        (0..w.partitions.len()).all(|lane| {
            let size = w.durable_size(lane);
            self.durable_offset(lane) == w.partitions[lane].values.len()
                && w.topics[lane].delivered == size
                && w.plain[lane].delivered == size
                && w.archives[lane].delivered() == size
                && w.dead[lane].delivered
                    == w.truth[lane].verdicts[..size.min(w.truth[lane].verdicts.len())]
                        .iter()
                        .filter(|v| is_refused(**v))
                        .count()
                && w.chain.head(lane).size == size as u64
        })
    }

    fn durable_offset(&self, lane: usize) -> usize {
        let w = &self.world;
        let newest = if w.objects {
            w.buckets[lane].newest().map(|(_, m)| m.checkpoint.next_offset)
        } else {
            w.dirs[lane].recover().ok().flatten().map(|c| c.next_offset)
        };
        newest.unwrap_or(0)
    }

    fn stuck(&self) -> String {
        let w = &self.world;
        let mut said = String::new();
        for lane in 0..w.partitions.len() {
            said.push_str(&format!(
                "lane {lane}: durable {} up to offset {} of {}, delivered {}, {}, {} and {}, anchored {}; ",
                w.durable_size(lane),
                self.durable_offset(lane),
                w.partitions[lane].values.len(),
                w.topics[lane].delivered,
                w.plain[lane].delivered,
                w.archives[lane].delivered(),
                w.dead[lane].delivered,
                w.chain.head(lane).size,
            ));
        }
        for p in &self.processes {
            said.push_str(&p.describe());
        }
        said
    }

    /// At rest, the durable logs are those of an unbroken run over the partition and the recorded ticks: entries, dead
    /// letters, state, and rows.
    fn check_end(&mut self) -> (u64, u64) {
        let mut made = (0, 0);
        for lane in 0..self.world.partitions.len() {
            let w = &mut self.world;
            let found = if w.objects {
                w.buckets[lane].newest().and_then(|(_, m)| {
                    let (log, dead) = w.buckets[lane].fetch(m).ok()?;
                    Some((log, dead, m.checkpoint.clone()))
                })
            } else {
                w.dirs[lane].recover().ok().flatten().map(|c| {
                    let dir = &w.dirs[lane];
                    (dir.log.cached[..c.log_size].to_vec(), dir.dead.cached[..c.dead].to_vec(), c.clone())
                })
            };
            let same = found.is_some_and(|(log, dead, c)| {
                let u = Unbroken::run(&w.kind, lane, &w.partitions[lane], &c.ticks);
                made = (made.0 + log.len() as u64, made.1 + dead.len() as u64);
                log == u.verdicts && dead == u.dead && c.state == u.state
            });
            if !same {
                w.violate(format!("lane {lane} does not end as an unbroken run"));
            }
        }
        made
    }
}
