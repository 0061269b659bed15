//! The lanes that are simulated, and the unbroken run that everything is compared with.
//!
//! Most seeds use a stand-in: some tens of nanoseconds a row, with every output depending on all rows before it, on the
//! state's every field and on the order of rows. A fraction of the seeds run the engine's own lane ([`super::real`]).

use std::sync::Arc;

use avouch_engine::control::Head;
use avouch_engine::control::invariants::{Fork, same_root};
use avouch_engine::lane::Counters;

use super::bugs::Bug;
use super::real::{RealLane, RealPlans};
use super::versions::Config;

pub fn mix(a: u64, b: u64) -> u64 {
    let mut x = (a ^ b.rotate_left(29)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    x ^= x >> 32;
    x.wrapping_mul(0xD6E8_FEB8_6659_FD93) ^ (x >> 29)
}

/// A root, as the machines carry it.
pub fn head(size: usize, root: u64) -> Head {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&root.to_le_bytes());
    Head { size: size as u64, root: bytes }
}

/// The root of a log that goes on with `word`. It stands for the Merkle root: equal roots, equal logs.
pub fn grow_root(root: u64, word: u64) -> u64 {
    mix(root, word ^ 0xA5A5)
}

/// A lane's partition: offsets with a row, and offsets that a reader never sees (aborted records, markers).
pub struct Partition {
    pub values: Vec<Option<u64>>,
}

/// What a step gives.
#[derive(Default)]
pub struct Made {
    pub verdicts: Vec<u64>,
    pub dead: Vec<u64>,
}

/// A lane small enough for millions of steps. Its "devices" have sequence numbers and sums, as real ones have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct StandIn {
    h: u64,
    next_index: u64,
    rows_in: u64,
    rows_used: u64,
    dead: u64,
    seq: [u32; 4],
    /// The state of one step …
    sum: [u64; 4],
    /// … and that of one beside it is `h`.
    config: Config,
}

/// What decides the state of each of the two steps, and thresholds, which have none.
fn definitions(config: Config) -> [u64; 3] {
    [config % 2, config / 2 % 2, config / 4 % 3]
}

impl StandIn {
    /// How many pipeline files there are.
    const CONFIGS: usize = 12;

    fn new(config: Config, lane: usize) -> Self {
        Self { h: lane as u64, config, ..Self::default() }
    }

    /// Goes on under another pipeline; says which steps begin anew.
    fn migrate(&mut self, to: Config, lane: usize) -> u64 {
        let (before, after) = (definitions(self.config), definitions(to));
        self.config = to;
        let mut dropped = 0;
        if before[0] != after[0] {
            self.sum = [0; 4];
            dropped |= 1;
        }
        if before[1] != after[1] {
            self.h = lane as u64;
            dropped |= 2;
        }
        dropped
    }

    fn step(&mut self, offset: i64, value: u64, out: &mut Made) {
        self.rows_in += 1;
        if value.is_multiple_of(9) {
            self.dead += 1;
            out.dead.push(mix(value, offset as u64));
            return;
        }
        self.rows_used += 1;
        let device = (value >> 8) as usize % 4;
        self.sum[device] = mix(self.sum[device], value);
        self.h = mix(self.h, self.sum[device] ^ offset as u64);
        // Between none and two verdicts a row, 0.7 on average.
        let [_, _, threshold] = definitions(self.config);
        for (divisor, device) in [(2 + threshold, device), (5 - threshold, (device + 1) % 4)] {
            if self.sum[device].is_multiple_of(divisor) {
                let said = mix(self.h ^ self.config, mix(self.sum[device], self.next_index));
                out.verdicts.push(mix(said, mix(self.seq[device].into(), mix(self.rows_in, self.dead))));
                self.seq[device] += 1;
                self.next_index += 1;
            }
        }
    }
}

impl StandIn {
    /// The clock acts, as on an idle partition: an input like any other once it is recorded.
    fn tick(&mut self, at: u64, out: &mut Made) {
        self.h = mix(self.h, at);
        if at.is_multiple_of(3) {
            let device = at as usize % 4;
            out.verdicts.push(mix(self.h ^ self.config, mix(self.seq[device].into(), self.next_index)));
            self.seq[device] += 1;
            self.next_index += 1;
        }
    }
}

/// What was recorded as an input of the lane beside its rows, and before which offset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// The clock has acted.
    Tick { before: usize, at: u64 },
    /// The lane was carried over to another pipeline, and dropped this state.
    Pipeline { before: usize, from: Config, to: Config, dropped: u64 },
}

impl Input {
    fn before(&self) -> usize {
        match self {
            Input::Tick { before, .. } | Input::Pipeline { before, .. } => *before,
        }
    }
}

/// A lane of either kind.
#[allow(clippy::large_enum_variant, reason = "nearly all are stand-ins")]
pub enum SimLane {
    StandIn(StandIn),
    Real(RealLane),
}

/// A lane's state, as a checkpoint keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Snapshot {
    StandIn(StandIn),
    Real(Arc<[u8]>),
}

/// Which kind of lane a run has.
#[derive(Clone)]
pub enum Kind {
    StandIn,
    Real(RealPlans),
}

impl Kind {
    /// How many pipeline files there are: 0 and up.
    pub fn configs(&self) -> usize {
        match self {
            Kind::StandIn => StandIn::CONFIGS,
            Kind::Real(plans) => plans.len(),
        }
    }
}

impl SimLane {
    pub fn new(kind: &Kind, config: Config, lane: usize) -> Self {
        match kind {
            Kind::StandIn => SimLane::StandIn(StandIn::new(config, lane)),
            Kind::Real(plans) => SimLane::Real(RealLane::new(plans, config, lane)),
        }
    }

    pub fn restore(kind: &Kind, config: Config, lane: usize, snapshot: &Snapshot, bug: Bug) -> Self {
        match (kind, snapshot) {
            (_, Snapshot::StandIn(s)) => {
                let mut s = StandIn { config, ..*s };
                if bug == Bug::CounterNotInSnapshot {
                    s.dead = 0;
                }
                SimLane::StandIn(s)
            }
            (Kind::Real(plans), Snapshot::Real(bytes)) => SimLane::Real(RealLane::restore(plans, config, lane, bytes)),
            (Kind::StandIn, Snapshot::Real(_)) => unreachable!("one run has one kind of lane"),
        }
    }

    /// Carries a lane over to another pipeline; says what it drops.
    pub fn migrate(kind: &Kind, to: Config, lane: usize, snapshot: &Snapshot, bug: Bug) -> (Self, u64) {
        match (kind, snapshot) {
            (_, Snapshot::StandIn(s)) => {
                let mut lanes = *s;
                let dropped = lanes.migrate(to, lane);
                if bug == Bug::StateOfChangedStepKept {
                    lanes = StandIn { config: to, ..*s };
                }
                (SimLane::StandIn(lanes), dropped)
            }
            (Kind::Real(plans), Snapshot::Real(bytes)) => {
                let (lane, dropped) = RealLane::migrate(plans, to, lane, bytes);
                (SimLane::Real(lane), dropped)
            }
            (Kind::StandIn, Snapshot::Real(_)) => unreachable!("one run has one kind of lane"),
        }
    }

    pub fn step(&mut self, offset: i64, value: u64, out: &mut Made) {
        match self {
            SimLane::StandIn(s) => s.step(offset, value, out),
            SimLane::Real(r) => r.step(offset, value, out),
        }
    }

    pub fn tick(&mut self, at: u64, out: &mut Made) {
        match self {
            SimLane::StandIn(s) => s.tick(at, out),
            SimLane::Real(_) => unreachable!("real lanes are not ticked here"),
        }
    }

    pub fn snapshot(&self) -> Snapshot {
        match self {
            SimLane::StandIn(s) => Snapshot::StandIn(*s),
            SimLane::Real(r) => Snapshot::Real(r.snapshot()),
        }
    }

    pub fn next_index(&self) -> u64 {
        match self {
            SimLane::StandIn(s) => s.next_index,
            SimLane::Real(r) => r.next_index(),
        }
    }

    pub fn counters(&self) -> Counters {
        match self {
            SimLane::StandIn(s) => {
                let mut c = Counters { rows_in: s.rows_in, rows_used: s.rows_used, ..Counters::default() };
                c.dead[0] = s.dead;
                c
            }
            SimLane::Real(r) => r.counters(),
        }
    }
}

/// What an unbroken run makes of a partition and the other inputs recorded for it.
pub struct Unbroken {
    pub verdicts: Vec<u64>,
    pub dead: Vec<u64>,
    pub state: Snapshot,
}

impl Unbroken {
    /// `Err` when a change of the pipeline was not recorded as it was.
    pub fn run(
        kind: &Kind,
        lane: usize,
        partition: &Partition,
        first: Config,
        inputs: &[Input],
    ) -> Result<Self, String> {
        let mut sim = SimLane::new(kind, first, lane);
        let mut made = Made::default();
        let mut config = first;
        let mut inputs = inputs.iter().peekable();
        for offset in 0..=partition.values.len() {
            while let Some(input) = inputs.next_if(|input| input.before() == offset) {
                match *input {
                    Input::Tick { at, .. } => sim.tick(at, &mut made),
                    Input::Pipeline { from, to, dropped, .. } => {
                        let now;
                        (sim, now) = SimLane::migrate(kind, to, lane, &sim.snapshot(), Bug::None);
                        if (from, dropped) != (config, now) {
                            return Err(format!(
                                "at {offset} a change {from} to {to} is recorded that dropped {dropped:b}; it was from {config} and drops {now:b}"
                            ));
                        }
                        config = to;
                    }
                }
            }
            if let Some(Some(value)) = partition.values.get(offset) {
                sim.step(offset as i64, *value, &mut made);
            }
        }
        if let Some(input) = inputs.next() {
            return Err(format!("{input:?} is recorded out of order"));
        }
        Ok(Self { verdicts: made.verdicts, dead: made.dead, state: sim.snapshot() })
    }
}

/// A log as anybody was ever shown it. What is shown later must begin with it.
pub struct Truth {
    pub verdicts: Vec<u64>,
    /// By size, from 0 on.
    roots: Vec<u64>,
}

impl Truth {
    pub fn new() -> Self {
        Self { verdicts: Vec::new(), roots: vec![0] }
    }

    pub fn head(&self, size: usize) -> Head {
        // Beyond what was shown there is no root, and none that a log could have.
        head(size, self.roots.get(size).copied().unwrap_or(u64::MAX))
    }

    /// Somebody is shown this log, by entries and by root at each size.
    pub fn show(&mut self, log: &[u64], roots: &[u64]) -> Result<(), Fork> {
        let known = self.verdicts.len();
        let common = known.min(log.len());
        same_root(common as u64, &head(common, self.roots[common]).root, &head(common, roots[common]).root)?;
        if log.len() > known {
            self.verdicts.extend_from_slice(&log[known..]);
            self.roots.extend_from_slice(&roots[known + 1..=log.len()]);
        }
        Ok(())
    }
}
