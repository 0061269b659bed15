//! Lanes copied to an object store: taken over by other machines, fenced, killed, and with a store that fails.

use std::sync::Arc;
use std::time::Duration;

use super::fixture::*;
use super::objects::*;
use crate::store::io::fault;
use crate::store::{Cursor, LaneStore, Objects, Refusal, Refusals, StoreError, StoreOptions, inspect_remote};

fn names(objects: &Arc<dyn Objects>, beginning: &str) -> Vec<String> {
    let mut all: Vec<String> = objects.list(beginning).unwrap().into_iter().map(|(n, _)| n).collect();
    all.sort();
    all
}

fn to(store: &mut LaneStore, size: u64) -> Result<(), StoreError> {
    grow(store, size)?;
    commit(store)
}

#[test]
fn any_machine_goes_on_from_the_store_alone() {
    let whole = log_bytes(lane(&[500]).path());
    let roots = roots(500);
    let home = tempfile::tempdir().unwrap();
    for objects in [in_memory(), in_directory(home.path())] {
        let machines = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let mut generation = 0;
        for (turn, size) in (0..=500_u64).step_by(25).enumerate() {
            // Round and round: empty at first, then with what was here when the lane left.
            let dir = machines[turn % 3].path();
            let mut store = open_with(dir, with(&objects)).unwrap();
            assert!(store.generation() > generation);
            generation = store.generation();
            assert_eq!(store.size(), size.saturating_sub(25));
            assert_eq!((&store.recovery().damaged[..], &store.recovery().rebuilt[..]), (&[][..], &[][..]));
            check_readers(&store, &roots);
            to(&mut store, size.saturating_sub(12)).unwrap();
            to(&mut store, size).unwrap();
            check_readers(&store, &roots);
        }
        let dir = tempfile::tempdir().unwrap();
        let store = open_with(dir.path(), with(&objects)).unwrap();
        assert_eq!(store.size(), 500);
        assert!(store.recovery().downloaded > 0);
        drop(store);
        assert_eq!(log_bytes(dir.path()), whole);
        // What is here already is not downloaded again.
        let store = open_with(dir.path(), with(&objects)).unwrap();
        assert_eq!(store.recovery().downloaded, 0);
    }
}

#[test]
fn whoever_had_the_lane_before_is_fenced() {
    let objects = in_memory();
    let dirs: Vec<_> = (0..3).map(|_| tempfile::tempdir().unwrap()).collect();
    let options = StoreOptions { keep_checkpoints: 2, ..with(&objects) };
    let mut first = open_with(dirs[0].path(), options.clone()).unwrap();
    to(&mut first, 40).unwrap();
    let mut second = open_with(dirs[1].path(), options.clone()).unwrap();
    assert_eq!(second.size(), 40);
    let fenced = to(&mut first, 60).unwrap_err();
    assert!(matches!(fenced, StoreError::Fenced { ours: 1, .. }), "{fenced}");
    assert!(fenced.to_string().contains("of a writer of generation 2"), "{fenced}");
    assert_eq!(first.committed().log_size, 40, "what was not committed is not shown");
    assert!(matches!(commit(&mut first), Err(StoreError::Failed { .. })));
    to(&mut second, 70).unwrap();

    // One that sleeps until the number it wants is free again, since old manifests are deleted.
    let mut third = open_with(dirs[2].path(), options.clone()).unwrap();
    for size in 71..90 {
        to(&mut third, size).unwrap();
    }
    assert!(names(&objects, "manifest-").len() <= 3);
    let fenced = to(&mut second, 75).unwrap_err();
    assert!(matches!(fenced, StoreError::Fenced { ours: 2, .. }), "{fenced}");
    to(&mut third, 95).unwrap();
    drop((first, third));
    // Fenced is not broken: it may open the lane again.
    let mut again = open_with(dirs[0].path(), options).unwrap();
    assert_eq!(again.size(), 95);
    to(&mut again, 100).unwrap();
    check_readers(&again, &roots(100));
}

#[test]
fn a_checkpoint_made_while_another_opens_is_not_lost() {
    // The opening one has read manifest n when n + 1 appears: it reads again, and only then takes over.
    let inner = in_memory();
    let (a, b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut first = open_with(a.path(), with(&inner)).unwrap();
    to(&mut first, 40).unwrap();
    #[derive(Debug)]
    struct Racing(Arc<dyn Objects>, std::sync::Mutex<Option<LaneStore>>);
    impl Objects for Racing {
        fn url(&self) -> String {
            self.0.url()
        }
        fn put_new(&self, name: &str, bytes: &[u8]) -> Result<bool, crate::store::ObjectError> {
            if let Some(mut first) = self.1.lock().unwrap().take() {
                to(&mut first, 60).unwrap();
            }
            self.0.put_new(name, bytes)
        }
        fn get(&self, name: &str) -> Result<Option<Vec<u8>>, crate::store::ObjectError> {
            self.0.get(name)
        }
        fn list(&self, beginning: &str) -> Result<Vec<(String, u64)>, crate::store::ObjectError> {
            self.0.list(beginning)
        }
        fn delete(&self, name: &str) -> Result<(), crate::store::ObjectError> {
            self.0.delete(name)
        }
    }
    let racing: Arc<dyn Objects> = Arc::new(Racing(inner, std::sync::Mutex::new(Some(first))));
    let store = open_with(b.path(), with(&racing)).unwrap();
    assert_eq!(store.size(), 60);
}

const RUN: [u64; 5] = [0, 30, 31, 90, 120];

/// A run from wherever the lane stands to the end; stops at the first failure. Returns what was durable by then.
fn run(dir: &std::path::Path, options: StoreOptions) -> Result<u64, (u64, StoreError)> {
    let mut store = open_with(dir, options).map_err(|e| (0, e))?;
    for size in RUN {
        if size >= store.size() {
            let done = to(&mut store, size);
            let durable = store.committed().log_size;
            done.map_err(|e| (durable, e))?;
        }
    }
    Ok(store.committed().log_size)
}

#[test]
fn every_lost_answer_and_every_refusal_is_survived() {
    let whole = log_bytes(lane(&RUN).path());
    let dry = Faulty::new(in_memory());
    let objects: Arc<dyn Objects> = dry.clone();
    run(tempfile::tempdir().unwrap().path(), with(&objects)).unwrap();
    let calls = dry.calls();
    assert!(calls > 20, "{calls}");
    println!("{calls} calls, each refused once, and its answer lost once");
    for call in 0..calls {
        for fault in [Fault::Refused, Fault::AnswerLost] {
            let faulty = Faulty::new(in_memory());
            faulty.fail_at(call, fault);
            let objects: Arc<dyn Objects> = faulty.clone();
            let dir = tempfile::tempdir().unwrap();
            let durable = run(dir.path(), with(&objects)).unwrap_or_else(|e| panic!("call {call} {fault:?}: {e:?}"));
            assert_eq!(durable, 120);
            assert_eq!(log_bytes(dir.path()), whole, "call {call} {fault:?}");
        }
    }
}

#[test]
fn killed_at_every_call_and_taken_over_elsewhere() {
    let whole = log_bytes(lane(&RUN).path());
    let roots = roots(120);
    let dry = Faulty::new(in_memory());
    let objects: Arc<dyn Objects> = dry.clone();
    run(tempfile::tempdir().unwrap().path(), with(&objects)).unwrap();
    for call in 0..dry.calls() {
        for fault in [Fault::Killed, Fault::KilledAfter] {
            let inner = in_memory();
            let faulty = Faulty::new(Arc::clone(&inner));
            faulty.fail_at(call, fault);
            let objects: Arc<dyn Objects> = faulty.clone();
            let dir = tempfile::tempdir().unwrap();
            let mut dying = with(&objects);
            dying.remote.as_mut().unwrap().give_up_soon();
            let durable = match run(dir.path(), dying) {
                Ok(durable) | Err((durable, _)) => durable,
            };
            // By a machine that has nothing, or again where it was.
            for elsewhere in [true, false] {
                let empty = tempfile::tempdir().unwrap();
                let place = if elsewhere { empty.path() } else { dir.path() };
                let store = open_with(place, with(&inner)).unwrap_or_else(|e| panic!("call {call} {fault:?}: {e}"));
                assert_eq!(store.recovery().damaged, [], "call {call} {fault:?}");
                assert!(store.size() >= durable, "call {call} {fault:?}");
                check_readers(&store, &roots);
                drop(store);
                assert_eq!(run(place, with(&inner)).unwrap(), 120);
                assert_eq!(log_bytes(place), whole, "call {call} {fault:?}");
            }
        }
    }
}

#[test]
fn killed_at_every_act_on_the_disk() {
    let whole = log_bytes(lane(&RUN).path());
    let objects = in_memory();
    fault::clear();
    run(tempfile::tempdir().unwrap().path(), with(&objects)).unwrap();
    let acts = fault::clear();
    for n in (0..acts).step_by(2) {
        let torn = n % 4 == 0;
        let objects = in_memory();
        let dir = tempfile::tempdir().unwrap();
        fault::stop_after(n, torn);
        let durable = match run(dir.path(), with(&objects)) {
            Ok(durable) | Err((durable, _)) => durable,
        };
        fault::clear();
        for elsewhere in [true, false] {
            let empty = tempfile::tempdir().unwrap();
            let place = if elsewhere { empty.path() } else { dir.path() };
            let store = open_with(place, with(&objects)).unwrap_or_else(|e| panic!("act {n} torn {torn}: {e}"));
            assert_eq!(store.recovery().damaged, [], "act {n}");
            assert!(store.size() >= durable, "act {n}");
            drop(store);
            assert_eq!(run(place, with(&objects)).unwrap(), 120);
            assert_eq!(log_bytes(place), whole, "act {n} torn {torn}");
        }
    }
}

#[test]
fn killed_at_every_act_of_a_takeover() {
    let whole = log_bytes(lane(&RUN).path());
    let objects = in_memory();
    run(tempfile::tempdir().unwrap().path(), with(&objects)).unwrap();
    fault::clear();
    drop(open_with(tempfile::tempdir().unwrap().path(), with(&objects)).unwrap());
    let acts = fault::clear();
    assert!(acts > 20, "{acts}");
    for n in 0..acts {
        for torn in [false, true] {
            let dir = tempfile::tempdir().unwrap();
            fault::stop_after(n, torn);
            let stopped = open_with(dir.path(), with(&objects));
            fault::clear();
            assert!(stopped.is_err(), "act {n} of {acts}");
            let store = open_with(dir.path(), with(&objects)).unwrap_or_else(|e| panic!("act {n} torn {torn}: {e}"));
            assert_eq!((store.size(), &store.recovery().damaged[..]), (120, &[][..]), "act {n}");
            drop(store);
            assert_eq!(log_bytes(dir.path()), whole, "act {n} torn {torn}");
        }
    }
}

#[test]
fn a_store_that_fails_holds_the_lane_up_and_nothing_is_lost() {
    let faulty = Faulty::new(in_memory());
    let objects: Arc<dyn Objects> = faulty.clone();
    let dir = tempfile::tempdir().unwrap();
    let options = with(&objects);
    let stats = options.remote.as_ref().unwrap().stats();
    let mut store = open_with(dir.path(), options.clone()).unwrap();
    to(&mut store, 10).unwrap();
    let reader = store.reader();

    // The lane goes on by one checkpoint and no further; readers see nothing of it.
    faulty.refuse(4);
    grow(&mut store, 20).unwrap();
    let told = counters(20);
    store.begin_commit(a_commit(20, &told)).unwrap();
    assert_eq!(store.poll_commit().unwrap(), None);
    while stats.errors() == 0 {
        std::thread::sleep(Duration::from_millis(1));
    }
    assert!(stats.is_failing());
    assert_eq!(reader.committed().log_size, 10);
    grow(&mut store, 30).unwrap();
    let told = counters(30);
    store.begin_commit(a_commit(30, &told)).unwrap();
    assert!(reader.committed().log_size >= 20, "the second began when the first was durable");
    store.finish_commit().unwrap();
    assert_eq!((stats.errors(), stats.is_failing(), reader.committed().log_size), (4, false, 30));
    assert!(stats.uploaded() > 70_000);

    // A process that ends gives up after a while; what it could not copy was never shown.
    options.remote.as_ref().unwrap().give_up_soon();
    faulty.refuse(1_000_000);
    let refused = to(&mut store, 40).unwrap_err();
    assert!(matches!(&refused, StoreError::Remote { why, .. } if why.contains("500")), "{refused}");
    assert_eq!(reader.committed().log_size, 30);
    drop(store);
    let refused = open_with(dir.path(), with(&objects)).unwrap_err();
    assert!(
        refused.to_string().starts_with("memory://test/state/pump-health/0: cannot list the lane's objects"),
        "{refused}"
    );
    faulty.refuse(0);
    let mut store = open_with(dir.path(), with(&objects)).unwrap();
    assert_eq!(store.size(), 30);
    to(&mut store, 40).unwrap();
}

#[test]
fn objects_stay_few_and_each_is_needed() {
    let objects = in_memory();
    let dir = tempfile::tempdir().unwrap();
    let mut store = open_with(dir.path(), with(&objects)).unwrap();
    for size in 1..=200 {
        to(&mut store, size).unwrap();
    }
    let (manifests, parts, packs) =
        (names(&objects, "manifest-").len(), names(&objects, "part-").len(), names(&objects, "pack-").len());
    assert_eq!(manifests, 5);
    // At most seven a level, of three levels, and those of the kept manifests before their last merging.
    assert!(parts <= 40, "{parts}");
    assert!(packs <= 12, "{packs}");
    // What a killed writer left behind.
    objects.put_new("part-000009-0000000099-0000-deadbeef", b"x").unwrap();
    objects.put_new("pack-000009-0000000099-0000-deadbeef", b"x").unwrap();
    objects.put_new("not-ours", b"x").unwrap();
    drop(store);
    drop(open_with(dir.path(), with(&objects)).unwrap());
    assert_eq!(names(&objects, "part-").len(), parts);
    assert_eq!(names(&objects, "pack-").len(), packs);
    assert_eq!(names(&objects, "not-ours").len(), 1);
    for c in inspect_remote(&remote(&objects), true).unwrap() {
        assert_eq!(c.damaged, None);
    }
}

#[test]
fn a_lane_kept_in_a_directory_moves_to_an_object_store() {
    let dir = lane(&[0, 40, 90]);
    let objects = in_memory();
    let mut store = open_with(dir.path(), with(&objects)).unwrap();
    assert_eq!(store.size(), 90);
    to(&mut store, 120).unwrap();
    drop(store);
    let elsewhere = tempfile::tempdir().unwrap();
    let store = open_with(elsewhere.path(), with(&objects)).unwrap();
    assert_eq!(store.size(), 120);
    drop(store);
    assert_eq!(log_bytes(elsewhere.path()), log_bytes(lane(&[120]).path()));
}

#[test]
fn cursors_kept_beside_the_lane_travel() {
    let objects = in_memory();
    let (a, b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut store = open_with(a.path(), with(&objects)).unwrap();
    to(&mut store, 40).unwrap();
    Cursor::open(a.path(), "archive").unwrap().set(33).unwrap();
    Cursor::open(a.path(), "alerts").unwrap().set_with(20, "open: pump-3").unwrap();
    to(&mut store, 50).unwrap();
    drop(store);
    drop(open_with(b.path(), with(&objects)).unwrap());
    assert_eq!(Cursor::open(b.path(), "archive").unwrap().get(), 33);
    let alerts = Cursor::open(b.path(), "alerts").unwrap();
    assert_eq!((alerts.get(), alerts.note()), (20, "open: pump-3"));
    // Never backwards.
    Cursor::open(a.path(), "archive").unwrap().set(45).unwrap();
    drop(open_with(a.path(), with(&objects)).unwrap());
    assert_eq!(Cursor::open(a.path(), "archive").unwrap().get(), 45);
}

fn refusal(index: u64) -> Refusal {
    Refusal { index, status: "422".into(), why: format!("no {index}") }
}

#[test]
fn refusals_and_signed_checkpoints_travel_as_they_are_written() {
    let objects = in_memory();
    let machine = tempfile::tempdir;
    let (a, b, c) = (machine().unwrap(), machine().unwrap(), machine().unwrap());
    let mut store = open_with(a.path(), with(&objects)).unwrap();
    to(&mut store, 40).unwrap();
    let refusals = Refusals::of_lane(&store.reader(), "hook").unwrap();
    refusals.append(&refusal(3)).unwrap();
    to(&mut store, 50).unwrap();
    // After the last checkpoint, just before the machine is lost.
    refusals.append(&refusal(41)).unwrap();
    refusals.append(&refusal(44)).unwrap();
    let signed = a.path().join("signed-checkpoints.jsonl");
    std::fs::write(&signed, b"\none").unwrap();
    store.reader().copy_beside("signed-checkpoints.jsonl", 0).unwrap();
    let expected = std::fs::read(a.path().join("refused-hook")).unwrap();
    drop(store);

    let mut store = open_with(b.path(), with(&objects)).unwrap();
    assert_eq!(std::fs::read(b.path().join("refused-hook")).unwrap(), expected);
    assert_eq!(std::fs::read(b.path().join("signed-checkpoints.jsonl")).unwrap(), b"\none");
    // The sink's own cursor says that 44 was not passed: it is offered again, and taken this time.
    let refusals = Refusals::of_lane(&store.reader(), "hook").unwrap();
    refusals.rewind(42).unwrap();
    to(&mut store, 60).unwrap();
    refusals.append(&refusal(55)).unwrap();
    let expected = std::fs::read(b.path().join("refused-hook")).unwrap();
    drop(store);
    for place in [c.path(), a.path(), b.path()] {
        drop(open_with(place, with(&objects)).unwrap());
        assert_eq!(std::fs::read(place.join("refused-hook")).unwrap(), expected, "nothing of a life that was given up");
        assert_eq!(std::fs::read(place.join("signed-checkpoints.jsonl")).unwrap(), b"\none");
    }

    // Thousands of them stay few objects, and what one holds that is lost is said.
    let mut store = open_with(c.path(), with(&objects)).unwrap();
    let refusals = Refusals::of_lane(&store.reader(), "hook").unwrap();
    for n in 0..300 {
        refusals.append(&refusal(100 + n)).unwrap();
        if n % 3 == 0 {
            to(&mut store, 61 + n).unwrap();
        }
    }
    let expected = std::fs::read(c.path().join("refused-hook")).unwrap();
    to(&mut store, 400).unwrap();
    drop(store);
    assert!(names(&objects, "beside-").len() < 60, "{}", names(&objects, "beside-").len());
    drop(open_with(a.path(), with(&objects)).unwrap());
    assert_eq!(std::fs::read(a.path().join("refused-hook")).unwrap(), expected);
    assert!(names(&objects, "beside-").len() < 60);
    let lost = names(&objects, "beside-").pop().unwrap();
    objects.delete(&lost).unwrap();
    let store = open_with(a.path(), with(&objects)).unwrap();
    assert_eq!((store.size(), &store.recovery().damaged[..]), (400, &[][..]));
    assert_eq!(store.recovery().rebuilt[0].file, lost);
    assert_eq!(std::fs::read(a.path().join("refused-hook")).unwrap(), expected, "what is here stays");
}

#[test]
fn another_log_is_refused() {
    let objects = in_memory();
    run(tempfile::tempdir().unwrap().path(), with(&objects)).unwrap();
    let other = avouch_engine::verdict::LogOrigin::new("other", 0);
    let refused = LaneStore::open(tempfile::tempdir().unwrap().path(), &other, with(&objects)).unwrap_err();
    assert!(matches!(refused, StoreError::WrongLog { .. }), "{refused}");
    // Objects without a manifest: someone deleted those.
    for name in names(&objects, "manifest-") {
        objects.delete(&name).unwrap();
    }
    let refused = LaneStore::open(tempfile::tempdir().unwrap().path(), &origin(), with(&objects)).unwrap_err();
    assert!(matches!(refused, StoreError::MissingCheckpoints { .. }), "{refused}");
}
