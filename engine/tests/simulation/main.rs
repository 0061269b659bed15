//! The deterministic simulation: the runtime's own decisions ([`avouch_engine::control`]) in a world of simulated disks, object
//! stores, Kafka and chain that crash, lose answers and lie about time; after every event the invariants of the whole
//! ([`avouch_engine::control::invariants`]), at the end the outcome of an unbroken run.
//!
//! | file | what |
//! | --- | --- |
//! | `world`, `messages` | what all processes share, and what they ask of it |
//! | `run`, `faults` | the scheduler and the end; what goes wrong, and what people do |
//! | `process`, `version_task`, `lane_task`, `sink_task`, `anchor_task` | the drivers: what the runtime does, act by act |
//! | `disk`, `objects`, `kafka`, `archive`, `refusals`, `chain`, `versions` | the simulated parts |
//! | `lanes`, `real` | the lanes: a stand-in for most seeds, the engine's own for some |
//! | `bugs` | protocols with a mistake built in, which must be found |
//!
//! Everything follows from the seed. `AVOUCH_SIM_SEED=<seed> cargo test --release -p avouch-engine --test simulation -- any_seed`
//! runs one again; `AVOUCH_SIM_SEEDS=<n>` sets how many are run.

mod anchor_task;
mod archive;
mod bugs;
mod chain;
mod disk;
mod faults;
mod kafka;
mod lane_task;
mod lanes;
mod messages;
mod objects;
mod process;
mod random;
mod real;
mod refusals;
mod run;
mod sink_task;
#[path = "../sum_model/mod.rs"]
mod sum_model;
mod version_task;
mod versions;
mod world;

use std::sync::atomic::{AtomicU64, Ordering};

use bugs::Bug;
use lanes::Kind;
use run::{Totals, run};
use world::Setup;

/// Seeds of one run of the tests.
const SEEDS: u64 = 20_000;
/// Seeds within which every mistake must be found.
const SEEDS_FOR_A_BUG: u64 = 60_000;
/// Seeds that run the engine's own lane.
const SEEDS_OF_REAL_LANES: u64 = 1_000;

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable} is a number, not {text:?}")))
}

/// What a search has come to.
struct Searched {
    /// The first violation, by seed.
    found: Option<(u64, String)>,
    steps: u64,
    made: Totals,
}

/// Runs seeds on all processors.
fn search(seeds: u64, setup: impl Fn(u64) -> Setup + Sync) -> Searched {
    let [next, steps, verdicts, dead, changes] = [const { AtomicU64::new(0) }; 5];
    let worst = AtomicU64::new(u64::MAX);
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let found = std::thread::scope(|scope| {
        let search = || {
            let mut first = None;
            loop {
                let seed = next.fetch_add(1, Ordering::Relaxed);
                if seed >= seeds || seed > worst.load(Ordering::Relaxed) {
                    return first;
                }
                let outcome = run(&setup(seed));
                steps.fetch_add(outcome.steps, Ordering::Relaxed);
                verdicts.fetch_add(outcome.made.verdicts, Ordering::Relaxed);
                dead.fetch_add(outcome.made.dead, Ordering::Relaxed);
                changes.fetch_add(outcome.made.changes, Ordering::Relaxed);
                if let Some(violation) = outcome.violation {
                    worst.fetch_min(seed, Ordering::Relaxed);
                    first = first.or(Some((seed, violation)));
                }
            }
        };
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(search)).collect();
        workers.into_iter().filter_map(|w| w.join().expect("a worker panicked")).min()
    });
    let (verdicts, dead, changes) = (verdicts.into_inner(), dead.into_inner(), changes.into_inner());
    Searched { found, steps: steps.into_inner(), made: Totals { verdicts, dead, changes } }
}

fn fail(test: &str, seed: u64, violation: &str) -> ! {
    panic!(
        "seed {seed}: {violation}\n\nrun it again:\n  AVOUCH_SIM_SEED={seed} cargo test --release -p avouch-engine --test simulation -- {test}\n"
    )
}

#[test]
fn any_seed() {
    let setup = |seed| Setup { seed, bug: Bug::None, kind: Kind::StandIn };
    if let Some(seed) = number("AVOUCH_SIM_SEED") {
        let outcome = run(&setup(seed));
        println!("seed {seed}: {} events", outcome.steps);
        if let Some(violation) = outcome.violation {
            fail("any_seed", seed, &violation);
        }
        return;
    }
    let seeds = number("AVOUCH_SIM_SEEDS").unwrap_or(SEEDS);
    let began = std::time::Instant::now();
    let Searched { found, steps, made } = search(seeds, setup);
    if let Some((seed, violation)) = found {
        fail("any_seed", seed, &violation);
    }
    let took = began.elapsed().as_secs_f64();
    println!(
        "{seeds} seeds, {steps} events in {took:.1} s: {:.2} M events a second; lanes went over to another pipeline {} times",
        steps as f64 / took / 1e6,
        made.changes
    );
    assert!(seeds < 100 || made.changes > seeds, "{} changes of a pipeline", made.changes);
}

/// The same world around the engine's own lane: its snapshots and restores under the same faults.
#[test]
fn any_seed_of_real_lanes() {
    let plans = real::RealPlans::new();
    let setup = |seed| Setup { seed, bug: Bug::None, kind: Kind::Real(plans.clone()) };
    let (first, seeds) = match number("AVOUCH_SIM_SEED") {
        Some(seed) => (seed, 1),
        None => (0, SEEDS_OF_REAL_LANES),
    };
    let Searched { found, steps, made: Totals { verdicts, dead, changes } } = search(seeds, |seed| setup(first + seed));
    if let Some((seed, violation)) = found {
        fail("any_seed_of_real_lanes", first + seed, &violation);
    }
    println!(
        "{seeds} seeds from {first} on with real lanes, {steps} events, {verdicts} verdicts, {dead} dead letters, {changes} changes"
    );
    // Else there would be nothing to lose.
    assert!(seeds == 1 || (verdicts > 10 * seeds && dead > seeds && changes > seeds));
}

#[test]
fn every_mistake_is_found() {
    let mut missed = Vec::new();
    for bug in Bug::ALL {
        let Searched { found, steps, .. } = search(SEEDS_FOR_A_BUG, |seed| Setup { seed, bug, kind: Kind::StandIn });
        match found {
            Some((seed, violation)) => println!("{bug:?}: seed {seed}, {steps} events: {violation}"),
            None => missed.push(bug),
        }
    }
    assert!(missed.is_empty(), "not found within {SEEDS_FOR_A_BUG} seeds: {missed:?}");
}
