//! `kill -9` again and again, of two processes that share the lanes, while the broker is killed and frozen as well: what is
//! left is, byte for byte and exactly once, what one unbroken run leaves.
//!
//! `AVOUCH_CRASH_KILLS`, `AVOUCH_CRASH_ROWS`, `AVOUCH_CRASH_BROKER_KILLS` and `AVOUCH_CRASH_FREEZE_S` make it as large as one
//! likes; what CI runs is small. `AVOUCH_CRASH_SEED` repeats the moments.
#![allow(clippy::unwrap_used)]

mod pumps;

use std::time::{Duration, Instant};

use avouch_connectors::store::LaneReader;
use avouch_system_tests::{Isolation, KafkaBroker, Process, Record, require};
use pumps::Place;
use pumps::left::{self, Delivered, Topics, random};

const PARTITIONS: i32 = 4;
const TOPICS: Topics = Topics(["crash.readings", "crash.verdicts", "crash.dead"]);
const LIMIT: Duration = Duration::from_secs(1_200);
/// Rows that the simulated fleet of forty pumps sends in a minute.
const ROWS_A_MINUTE: u64 = 2_400;
/// Under a lasting name a killed process has its lanes back as soon as it is started again.
const GROUP: &str = "group   = \"pumps\"\nsession_timeout = \"6s\"\ninstance = \"${env:T_INSTANCE:-}\"";

fn size(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).map_or(otherwise, |given| given.parse().unwrap_or_else(|_| panic!("{name} is a number")))
}

#[test]
fn kills_leave_what_an_unbroken_run_leaves() {
    let began = Instant::now();
    let kills = size("AVOUCH_CRASH_KILLS", 50) as usize;
    let rows = size("AVOUCH_CRASH_ROWS", 72_000);
    let broker_kills = size("AVOUCH_CRASH_BROKER_KILLS", 1) as usize;
    let freeze = Duration::from_secs(size("AVOUCH_CRASH_FREEZE_S", 3));
    let mut seed = left::seed();
    println!("seed {seed}; AVOUCH_CRASH_SEED={seed} repeats the moments");
    let records = left::simulated(u32::try_from(rows.div_ceil(ROWS_A_MINUTE)).unwrap(), PARTITIONS);

    // Two brokers, one after the other: the runs share the names of topics and transactional ids.
    let (reference, expected) = {
        let kafka = require!(KafkaBroker::start());
        let place = on(&kafka);
        kafka.produce(TOPICS.readings(), records.iter().cloned());
        let run = place.avouch("run").args(["--until-end"]).run(LIMIT).success();
        println!("the unbroken run took {:.1?}", run.took);
        (place, Delivered::read(&kafka, TOPICS, Isolation::Committed))
    };
    println!(
        "reference: {} rows, {} verdicts, {} dead letters",
        records.len(),
        expected.verdicts.len(),
        expected.dead.len()
    );
    assert!(expected.verdicts.len() > 10_000 && expected.dead.len() > 50, "the readings exercise both sinks");

    let kafka = require!(KafkaBroker::start());
    let place = on(&kafka);
    let mut processes = [Pair::of(&place, "one"), Pair::of(&place, "two")];
    let mut seen = Seen::default();
    let slices: Vec<&[Record]> = records.chunks(records.len().div_ceil(kills)).collect();
    let middle = kills / 2;
    for kill in 0..kills {
        for process in &mut processes {
            process.up();
        }
        kafka.produce(TOPICS.readings(), slices.get(kill).copied().unwrap_or_default().iter().cloned());
        if kill == middle && !freeze.is_zero() {
            kafka.freeze();
            std::thread::sleep(freeze);
            kafka.thaw();
            println!("{:6.1?}  the broker was frozen for {freeze:?}", began.elapsed());
        }
        // Broker kills are spread over the run, away from the freeze.
        if broker_kills > 0
            && (kill + 1) % (kills / (broker_kills + 1)).max(1) == 0
            && kill != middle
            && kill + 1 < kills
        {
            kafka.kill();
            kafka.restart();
            println!("{:6.1?}  the broker was killed and restarted", began.elapsed());
        }
        // From the start of a process to well into its work.
        std::thread::sleep(Duration::from_millis(50 + random(&mut seed) % 2_950));
        // One, the other, or now and then both at once.
        let which = random(&mut seed) % 5;
        for (i, process) in processes.iter_mut().enumerate() {
            if which == 4 || which % 2 == i as u64 {
                process.kill(kill);
            }
        }
        seen.look(&place, kill);
    }
    println!(
        "{:6.1?}  {kills} kills: after {} of them a checkpoint was new, after {} none was",
        began.elapsed(),
        seen.grew,
        seen.early
    );
    assert!(seen.grew >= kills / 3, "the kills hit work, not only start-up");
    drop(processes);

    let last = place.avouch("run").args(["--until-end"]).run(LIMIT).success();
    println!("{:6.1?}  a last run of {:.1?} finished", began.elapsed(), last.took);
    for partition in 0..PARTITIONS {
        left::same_files(&reference.lane(partition), &place.lane(partition));
        let log = LaneReader::open_read_only(&reference.lane(partition)).unwrap();
        assert_eq!(LaneReader::open_read_only(&place.lane(partition)).unwrap().committed().root, log.committed().root);
        // Whatever was committed before a kill is a prefix of the log that an unbroken run writes.
        for (_, size, root) in seen.roots.iter().filter(|(lane, ..)| *lane == partition) {
            assert_eq!(log.root(*size).unwrap(), *root, "lane {partition} had forked at size {size}");
        }
    }
    let delivered = Delivered::read(&kafka, TOPICS, Isolation::Committed);
    delivered.same_as(&expected);
    let written = kafka.read(TOPICS.0[1], Isolation::Uncommitted).len();
    println!(
        "{} verdicts stood in transactions that a kill aborted; {:.1?} in all",
        written - delivered.verdicts.len(),
        began.elapsed()
    );
}

fn on(kafka: &KafkaBroker) -> Place {
    let place = TOPICS.on(kafka, PARTITIONS);
    place.rewrite("group   = \"pumps\"", GROUP);
    place
}

/// A member of the group, started again after each kill.
struct Pair<'p> {
    place: &'p Place,
    name: &'static str,
    process: Option<Process>,
}

impl<'p> Pair<'p> {
    fn of(place: &'p Place, name: &'static str) -> Self {
        Self { place, name, process: None }
    }

    fn up(&mut self) {
        let start = || {
            let log = self.place.directory.join(format!("{}.log", self.name));
            self.place.avouch("run").env("T_INSTANCE", self.name).start(&log)
        };
        self.process.get_or_insert_with(start);
    }

    fn kill(&mut self, kill: usize) {
        if let Some(mut process) = self.process.take() {
            let tail = process.log_tail();
            assert!(process.ended().is_none(), "kill {kill}: {} ended by itself:\n{tail}", self.name);
            process.kill();
        }
    }
}

/// What the lanes' checkpoints said after each kill.
#[derive(Default)]
struct Seen {
    roots: Vec<(i32, u64, [u8; 32])>,
    last: Vec<(u64, u64, i64)>,
    grew: usize,
    early: usize,
}

impl Seen {
    /// Asserts that no lane went back.
    fn look(&mut self, place: &Place, kill: usize) {
        self.last.resize(PARTITIONS as usize, (0, 0, 0));
        let mut grown = false;
        for partition in 0..PARTITIONS {
            let was = &mut self.last[partition as usize];
            let Some(now) = left::committed(&place.lane(partition)) else {
                assert_eq!(*was, (0, 0, 0), "kill {kill}: lane {partition} has lost its checkpoints");
                continue;
            };
            let is = (now.log_size, now.dead_count, now.next_offset);
            assert!(
                is.0 >= was.0 && is.1 >= was.1 && is.2 >= was.2,
                "kill {kill}: lane {partition} went back from (verdicts, dead letters, offset) {was:?} to {is:?}"
            );
            grown |= is.2 > was.2;
            *was = is;
            self.roots.push((partition, now.log_size, now.root));
        }
        self.grew += usize::from(grown);
        self.early += usize::from(!grown);
    }
}
