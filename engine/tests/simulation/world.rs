//! The simulated world: processes and what they share, one event at a time.
//!
//! An event is one act of one task (a write, an fsync, a message sent, an answer taken), the arrival of one message at a
//! service, or a fault. Which comes next, the seed decides. Messages arrive in any order, long after their sender has given
//! up or died; answers get lost. So every interleaving of acts that the runtime's threads and its brokers could show is
//! within reach, and a crash between any two acts.

use avouch_engine::control::Head;
use avouch_engine::control::anchor::AnchorPolicy;
use avouch_engine::control::invariants::{self, Shown, Violation};
use avouch_engine::control::reload::Version;

use super::archive::Archive;
use super::bugs::Bug;
use super::chain::Chain;
use super::disk::LaneDir;
use super::faults::Faults;
use super::kafka::{Group, PlainTopic, TransactionalTopic};
use super::lanes::{Kind, Partition, Truth, head};
use super::messages::Message;
use super::objects::Bucket;
use super::random::Random;
use super::refusals::{DeadTopic, Kept};
use super::versions::{Config, VersionList};

/// How a run is set up.
#[derive(Clone)]
pub struct Setup {
    pub seed: u64,
    pub bug: Bug,
    pub kind: Kind,
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
    /// When that began.
    pub drained_from: Option<i64>,
    /// The pipeline file of each process, as it is on its disk now; `None` is one that is wrong.
    pub files: Vec<Option<Config>>,
    pub versions: VersionList,
    pub messages: Vec<Message>,
    pub next_call: u32,
    next_id: u64,
    pub faults: Faults,
}

impl World {
    pub fn new(setup: &Setup) -> (Self, usize) {
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
        let first = random.below(setup.kind.configs()) as u64;
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
            drained_from: None,
            files: vec![Some(first); processes],
            versions: VersionList::default(),
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

    /// The version that a lane comes back under, whatever the processes believe; `None` if it would begin.
    pub fn durable_version(&self, lane: usize) -> Option<Version> {
        if self.objects {
            self.buckets[lane].newest().and_then(|(_, m)| m.checkpoint.version)
        } else {
            self.dirs[lane].recover().ok().flatten().and_then(|c| c.version)
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
}
