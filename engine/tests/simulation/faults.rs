//! What goes wrong, and how often; and what the people do who run the processes.

use super::messages::Service;
use super::random::Random;
use super::run::Simulation;

/// How often what goes wrong, as one in so many events; 0 is never. Drawn anew for each seed, so that some runs have one
/// kind of trouble in plenty and none of the others.
pub struct Faults {
    pub kill: usize,
    pub power_cut: usize,
    pub pause: usize,
    pub expire: usize,
    pub lost_answer: usize,
    pub time_out: usize,
    pub clock_jump: usize,
    pub abort: usize,
    pub reorganise: usize,
    pub lose_transaction: usize,
    pub rebalance: usize,
    pub stop: usize,
    /// Somebody changes a pipeline file, or asks for a reload.
    pub change: usize,
    pub stuck: usize,
    /// One kind of service that is slow throughout.
    pub slow: Option<Service>,
}

impl Faults {
    pub fn draw(random: &mut Random) -> Self {
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
            change: some(80),
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

impl Simulation {
    /// Faults. They are drawn several times a step of this kind, so the rates are per event all the same.
    pub fn trouble(&mut self) {
        let w = &mut self.world;
        let n = self.processes.len();
        // Roughly one event in twenty comes here.
        let mut happens =
            |one_in: usize| !w.draining && one_in > 0 && w.random.one_in((one_in / 20).max(1)) && !w.random.one_in(4);
        let faults = &w.faults;
        let (kill, cut, pause, expire) =
            (happens(faults.kill), happens(faults.power_cut), happens(faults.pause), happens(faults.expire));
        let (jump, abort, reorganise, lose, rebalance, stop, change) = (
            happens(faults.clock_jump),
            happens(faults.abort),
            happens(faults.reorganise),
            happens(faults.lose_transaction),
            happens(faults.rebalance),
            happens(faults.stop),
            happens(faults.change),
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
                w.versions.power_cut(&mut w.random);
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
        if change {
            self.change_file(process);
        }
        let w = &mut self.world;
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

    /// Somebody changes the pipeline file of a process, or of all of them, and most often asks for a reload; also with a file that
    /// is wrong, or that has not changed.
    fn change_file(&mut self, process: usize) {
        let w = &mut self.world;
        let all = w.random.one_in(2);
        let what = w.random.below(8);
        let new = w.random.below(w.kind.configs()) as u64;
        for p in 0..self.processes.len() {
            if p != process && !all {
                continue;
            }
            match what {
                0 => {}
                1 => w.files[p] = None,
                _ => w.files[p] = Some(new),
            }
            // One after the other, or never.
            if !w.random.one_in(4) {
                self.processes[p].ask_to_reload();
            }
        }
    }
}
