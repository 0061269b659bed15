//! A run: one event at a time as the seed decides, trouble first, then peace in which everything must drain, and the end, which
//! must be that of an unbroken run.

use super::lanes::{Input, Unbroken};
use super::messages::Message;
use super::process::Process;
use super::refusals::is_refused;
use super::world::{Setup, World};

/// A world with its processes.
pub struct Simulation {
    pub world: World,
    pub processes: Vec<Process>,
    pub steps: u64,
}

/// What the lanes hold at the end.
#[derive(Debug, Clone, Copy, Default)]
pub struct Totals {
    pub verdicts: u64,
    pub dead: u64,
    /// How often lanes went over to another version of the pipeline.
    pub changes: u64,
}

/// What one run came to.
pub struct Outcome {
    pub steps: u64,
    pub made: Totals,
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
    s.world.drained_from = Some(s.world.now_ms);
    s.processes.iter_mut().for_each(|p| p.paused = false);
    let patience = s.steps + 100_000;
    while s.world.violation.is_none() && !s.drained() {
        s.step();
        if s.steps >= patience {
            let stuck = s.stuck();
            s.world.violate(format!("it does not come to rest: {stuck}"));
        }
    }
    let made = if s.world.violation.is_none() { s.check_end() } else { Totals::default() };
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
                && w.versions.latest().zip(w.durable_version(lane)).is_some_and(|(a, b)| a.config == b.config)
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

    /// At rest, the durable logs are those of an unbroken run over the partition, the recorded ticks and
    /// changes of the pipeline: entries, dead
    /// letters, state, and rows.
    fn check_end(&mut self) -> Totals {
        let mut made = Totals::default();
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
            let Some((log, dead, c)) = found else {
                w.violate(format!("lane {lane} ends with nothing"));
                continue;
            };
            made.verdicts += log.len() as u64;
            made.dead += dead.len() as u64;
            made.changes += c.inputs.iter().filter(|i| matches!(i, Input::Pipeline { .. })).count() as u64;
            match Unbroken::run(&w.kind, lane, &w.partitions[lane], c.first, &c.inputs) {
                Err(why) => w.violate(format!("lane {lane}: {why}")),
                Ok(u) if log == u.verdicts && dead == u.dead && c.state == u.state => {}
                Ok(_) => w.violate(format!("lane {lane} does not end as an unbroken run")),
            }
        }
        made
    }
}
