//! Ticks are inputs: a log whose verdicts rest on them regrows to the same bytes after a fall-back, here and elsewhere.

use std::path::Path;

use avouch_engine::codec::Writer;
use avouch_engine::event::{LaneEvent, Tick};
use avouch_engine::lane::Snapshot;
use avouch_engine::replay::Replay;
use avouch_engine::verdict::VerdictRecord;
use sha2::{Digest, Sha256};
use tempfile::TempDir;

use super::fixture::{copy, files, log_bytes, options, origin, record};
use super::objects::{in_directory, with};
use crate::store::io::fault;
use crate::store::{Commit, LaneStore, StoreError, StoreOptions, inspect_remote};

/// A lane whose verdict `n` is made at record `n` and depends on every tick before it. Its clock says something else in every
/// life, so that a tick that is made again is another one.
struct Mini {
    store: LaneStore,
    /// Records read.
    size: u64,
    /// What all ticks so far came to.
    ticks: [u8; 32],
    replay: Replay,
    clock: i64,
    /// Ticks made by the clock, in this life.
    made: u64,
}

const END: u64 = 150;

fn verdict(n: u64, ticks: &[u8; 32]) -> VerdictRecord {
    let mut r = record(n);
    r.verdict.input_digest = *ticks;
    r
}

impl Mini {
    fn open(dir: &Path, options: StoreOptions, clock: i64) -> Result<Self, StoreError> {
        let (store, checkpoint) = LaneStore::open(dir, &origin(), options)?;
        let (mut size, mut ticks) = (0, [0; 32]);
        if let Some(c) = checkpoint {
            size = u64::from_le_bytes(c.lane_state[..8].try_into().unwrap());
            ticks.copy_from_slice(&c.lane_state[8..40]);
        }
        let replay = Replay::new(store.recovery().replay.clone());
        Ok(Self { store, size, ticks, replay, clock, made: 0 })
    }

    fn tick(&mut self, watermark_ms: i64) -> Result<(), StoreError> {
        let after_offset = self.size as i64 - 1;
        self.ticks = Sha256::digest([&self.ticks[..], &watermark_ms.to_le_bytes()].concat()).into();
        self.store.append_event(&LaneEvent::Tick(Tick { after_offset, watermark_ms }))?;
        if self.ticks[0].is_multiple_of(2) {
            let device_id = self.ticks;
            self.store.append_event(&LaneEvent::Evicted {
                after_offset,
                watermark_ms,
                device_id,
                next_seq: self.size,
            })?;
        }
        Ok(())
    }

    /// What stands behind the last record: recorded ticks, or else the clock's.
    fn ticks_here(&mut self) -> Result<(), StoreError> {
        let here = self.size as i64 - 1;
        let due: Vec<LaneEvent> =
            self.store.recovery().replay.iter().filter(|e| e.after_offset() == here).cloned().collect();
        if !self.replay.is_empty() {
            for event in due {
                let LaneEvent::Tick(tick) = event else { panic!("{event:?}") };
                self.tick(tick.watermark_ms)?;
            }
            let left = self.store.recovery().replay.iter().filter(|e| e.after_offset() > here).cloned();
            self.replay = Replay::new(left);
        } else if self.size % 4 == 1 {
            for n in 0..self.size % 3 + 1 {
                self.made += 1;
                self.tick(self.clock * 1_000_000 + self.size as i64 * 10 + n as i64)?;
            }
        }
        Ok(())
    }

    fn grow(&mut self, size: u64) -> Result<(), StoreError> {
        while self.size < size {
            let n = self.size;
            self.store.append(&verdict(n, &self.ticks))?;
            self.size += 1;
            self.ticks_here()?;
        }
        Ok(())
    }

    fn commit(&mut self) -> Result<(), StoreError> {
        let mut w = Writer::new();
        w.section("lane", 0);
        w.u64(self.size);
        w.raw(&self.ticks);
        // More than a chunk, so that it lies in a pack.
        w.raw(&self.ticks.repeat(3_000));
        let state = Snapshot { bytes: w.bytes, sections: w.sections };
        self.store.commit(Commit {
            next_offset: self.size as i64,
            lane_state: state,
            config_hash: [2; 32],
            topic: "pumps",
            partition: 0,
            watermark: None,
            counters: &[],
        })?;
        Ok(())
    }

    fn to(&mut self, size: u64) -> Result<(), StoreError> {
        self.grow(size)?;
        self.commit()
    }

    fn events(&self) -> Vec<LaneEvent> {
        self.store.reader().events(0, usize::MAX).unwrap()
    }
}

const SIZES: [u64; 6] = [0, 23, 60, 61, 97, END];

/// The first life of the lane: shown up to [`END`], and read on a little beyond.
fn first_life(options: impl Fn() -> StoreOptions) -> (TempDir, Vec<LaneEvent>) {
    let dir = tempfile::tempdir().unwrap();
    let mut lane = Mini::open(dir.path(), options(), 1).unwrap();
    for size in SIZES {
        lane.to(size).unwrap();
    }
    let events = lane.events();
    assert!(events.len() > 60 && events.iter().any(|e| !e.is_input()));
    // Ticks that nothing shown rests on.
    lane.grow(END + 9).unwrap();
    assert!(lane.made > 70);
    drop(lane);
    (dir, events)
}

fn flip(path: &Path) {
    let mut bytes = std::fs::read(path).unwrap();
    let at = bytes.len() / 2;
    bytes[at] ^= 0x10;
    std::fs::write(path, bytes).unwrap();
}

/// From wherever it stands to the end and beyond, in another life: everything shown is the same again.
fn regrown(dir: &Path, options: StoreOptions, clock: i64, shown: &[LaneEvent], whole: &[[u8; 32]], what: &str) {
    let mut lane = Mini::open(dir, options.clone(), clock).unwrap_or_else(|e| panic!("{what}: {e}"));
    lane.to(END).unwrap_or_else(|e| panic!("{what}: {e}"));
    assert_eq!(lane.store.root(), whole[0], "{what}");
    assert_eq!(lane.events(), shown, "{what}");
    assert_eq!(lane.made, 0, "{what}: the clock was asked before all recorded ticks were taken");
    assert!(!dir.join("replay").exists(), "{what}");
    sizes_are_known(&lane, what);
    lane.to(END + 40).unwrap();
    assert!(lane.made > 0, "{what}");
    drop(lane);
    let lane = Mini::open(dir, options, clock + 1).unwrap();
    assert_eq!((lane.size, lane.store.recovery().replay.len()), (END + 40, 0), "{what}");
}

/// What was anchored at a size that was shown can be followed by the next anchor, whatever sizes later checkpoints have.
fn sizes_are_known(lane: &Mini, what: &str) {
    for size in SIZES {
        let row = lane.store.reader().at_size(size).unwrap_or_else(|e| panic!("{what}: {e}"));
        assert_eq!(row.next_offset, size as i64, "{what}");
    }
}

fn root_of(dir: &Path) -> [[u8; 32]; 1] {
    [crate::store::LaneReader::open_read_only(dir).unwrap().committed().root]
}

#[test]
fn nothing_is_replayed_after_a_crash() {
    let (dir, events) = first_life(options);
    let whole = root_of(dir.path());
    let lane = Mini::open(dir.path(), options(), 2).unwrap();
    assert_eq!(lane.store.recovery().damaged, []);
    assert_eq!((lane.store.recovery().replay.len(), lane.store.event_count()), (0, events.len() as u64));
    drop(lane);
    // Unless the newest checkpoint was lost without a trace but what it had published.
    std::fs::remove_file(dir.path().join("checkpoint-00000000000000000006")).unwrap();
    let lane = Mini::open(dir.path(), options(), 2).unwrap();
    assert_eq!(lane.store.recovery().damaged, []);
    assert!(lane.store.recovery().replay.len() > 10);
    drop(lane);
    let mut lane = Mini::open(dir.path(), options(), 3).unwrap();
    lane.to(END).unwrap();
    assert_eq!((lane.store.root(), lane.made), (whole[0], 0));
    assert_eq!(lane.events()[..events.len()], events);
}

#[test]
fn the_log_regrows_from_each_kept_checkpoint() {
    let (dir, events) = first_life(options);
    let whole = root_of(dir.path());
    for lost in 1..5 {
        let hurt = copy(dir.path());
        for seq in (7 - lost)..7 {
            flip(&hurt.path().join(format!("checkpoint-{seq:020}")));
        }
        // The damaged one cannot say how much it covered, so ticks beyond it may be taken again, too; they do no harm.
        let mut lane = Mini::open(hurt.path(), options(), 2).unwrap();
        assert_eq!((lane.size, lane.store.recovery().lost_events), (SIZES[5 - lost], 0));
        let size = lane.size;
        // Killed in the middle of it, with and without a checkpoint there; each input is taken once.
        lane.to(size + 7).unwrap();
        lane.grow(size + 19).unwrap();
        drop(lane);
        let mut lane = Mini::open(hurt.path(), options(), 3).unwrap();
        assert_eq!(lane.size, size + 7);
        lane.to(END).unwrap();
        assert_eq!((lane.store.root(), lane.made), (whole[0], 0), "{lost} lost");
        assert_eq!(lane.events()[..events.len()], events, "{lost} lost");
        sizes_are_known(&lane, &format!("{lost} lost"));
        lane.to(END + 40).unwrap();
        assert!(lane.made > 0);
        assert!(!hurt.path().join("replay").exists());
    }
}

#[test]
fn what_a_readable_checkpoint_covered_is_taken_and_no_more() {
    let (dir, events) = first_life(options);
    let whole = root_of(dir.path());
    // Packs of the newest are lost, its file is whole.
    let packs: Vec<_> = files(dir.path());
    for pack in packs.iter().filter(|f| f.file_name().unwrap().to_string_lossy().starts_with("pack-000001-0000000006"))
    {
        let hurt = copy(dir.path());
        std::fs::remove_file(hurt.path().join(pack.file_name().unwrap())).unwrap();
        regrown(hurt.path(), options(), 2, &events, &whole, "packs lost");
    }
}

#[test]
fn killed_at_every_act_of_a_fall_back() {
    let (dir, events) = first_life(options);
    let whole = root_of(dir.path());
    std::fs::remove_file(dir.path().join("pack-000001-0000000006-0000-00000000")).unwrap();
    let run = |dir: &Path| -> Result<(), StoreError> {
        let mut lane = Mini::open(dir, options(), 2)?;
        for size in [110, 131, END, END + 20] {
            lane.to(size)?;
        }
        Ok(())
    };
    fault::clear();
    run(copy(dir.path()).path()).unwrap();
    let acts = fault::clear();
    assert!(acts > 60, "{acts}");
    for n in 0..acts {
        let hurt = copy(dir.path());
        fault::stop_after(n, n % 2 == 0);
        run(hurt.path()).unwrap_err();
        fault::clear();
        let mut lane = Mini::open(hurt.path(), options(), 3).unwrap_or_else(|e| panic!("act {n}: {e}"));
        if lane.size < END {
            lane.to(END).unwrap_or_else(|e| panic!("act {n}: {e}"));
            assert_eq!((lane.store.root(), lane.made), (whole[0], 0), "act {n}");
            sizes_are_known(&lane, &format!("act {n}"));
        }
        assert_eq!(lane.store.reader().root(END).unwrap(), whole[0], "act {n}");
        assert_eq!(lane.events()[..events.len()], events, "act {n}");
    }
}

#[test]
fn a_lost_tick_is_said_and_the_fork_it_makes_is_refused() {
    let (dir, _) = first_life(options);
    // The newest checkpoint's pack and some of the events that it covered are gone.
    std::fs::remove_file(dir.path().join("pack-000001-0000000006-0000-00000000")).unwrap();
    let lane = Mini::open(copy(dir.path()).path(), options(), 2).unwrap();
    assert!(lane.store.recovery().replay.len() > 10);
    drop(lane);
    let path = dir.path().join("events-000000");
    let len = std::fs::metadata(&path).unwrap().len();
    let whole = std::fs::read(&path).unwrap();
    std::fs::write(&path, &whole[..len as usize - 600]).unwrap();
    let mut lane = Mini::open(dir.path(), options(), 2).unwrap();
    assert_eq!(lane.size, 97);
    assert!(lane.store.recovery().lost_events > 0);
    let refused = lane.to(END + 40).unwrap_err();
    assert!(matches!(refused, StoreError::Fork { size: END, .. }), "{refused}");
}

#[test]
fn the_log_regrows_on_another_machine_and_on_a_third() {
    let home = tempfile::tempdir().unwrap();
    let objects = in_directory(home.path());
    let (local, events) = first_life(|| with(&objects));
    let whole = root_of(local.path());
    let manifest = inspect_remote(&super::objects::remote(&objects), true).unwrap().remove(0);
    let pack = manifest.contents.unwrap().packs[0].0.clone();
    for here in [false, true] {
        let (hurt, old) = (copy(home.path()), copy(local.path()));
        let objects = in_directory(hurt.path());
        objects.delete(&pack).unwrap();
        std::fs::remove_file(old.path().join(&pack)).unwrap();
        let second = tempfile::tempdir().unwrap();
        let second = if here { old.path() } else { second.path() };
        let mut lane = Mini::open(second, with(&objects), 2).unwrap();
        let recovery = lane.store.recovery();
        assert_eq!((lane.size, recovery.high_water.map(|h| h.0), recovery.lost_events), (97, Some(END), 0));
        let left = recovery.replay.len();
        assert!(left > 10);
        lane.to(120).unwrap();
        lane.grow(130).unwrap();
        drop(lane);
        // That one is lost, too. What is left to be taken again, and what was shown, travels on.
        let third = tempfile::tempdir().unwrap();
        let lane = Mini::open(third.path(), with(&objects), 3).unwrap();
        let recovery = lane.store.recovery();
        assert_eq!((lane.size, &recovery.damaged[..], recovery.high_water.map(|h| h.0)), (120, &[][..], Some(END)));
        assert!((1..left).contains(&recovery.replay.len()));
        drop(lane);
        regrown(third.path(), with(&objects), 4, &events, &whole, "third");
        // The lane comes back to a directory with ticks of a life that nobody saw.
        let mut lane = Mini::open(second, with(&objects), 9).unwrap();
        assert_eq!((lane.size, lane.store.recovery().replay.len()), (END + 40, 0));
        lane.to(END + 60).unwrap();
    }
}

#[test]
fn a_manifest_that_cannot_be_read_costs_no_tick_that_is_here() {
    let home = tempfile::tempdir().unwrap();
    let objects = in_directory(home.path());
    let (local, events) = first_life(|| with(&objects));
    let whole = root_of(local.path());
    let newest = files(home.path()).into_iter().rfind(|f| f.to_string_lossy().contains("manifest-")).unwrap();
    flip(&newest);
    let lane = Mini::open(local.path(), with(&objects), 2).unwrap();
    let recovery = lane.store.recovery();
    assert_eq!((lane.size, recovery.damaged.len(), recovery.high_water.map(|h| h.0)), (97, 1, Some(END)));
    drop(lane);
    regrown(local.path(), with(&objects), 3, &events, &whole, "here");
    let elsewhere = tempfile::tempdir().unwrap();
    drop(Mini::open(elsewhere.path(), with(&objects), 5).unwrap());
    assert_eq!(log_bytes(elsewhere.path()), log_bytes(local.path()));
}
