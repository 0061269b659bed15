//! What must hold of the adaptive baseline: a new device is judged from its first window and learns its level, a fault is not
//! learnt, and the same input gives the same bits wherever it is interrupted.
#![allow(clippy::unwrap_used, clippy::needless_range_loop)]

mod common;

use avouch_engine::codec::{Reader, Writer};
use avouch_engine::model::{Memory, Score};
use avouch_models::t2q::adaptive::LEARN_ABOVE;
use avouch_models::t2q::{BaselineKind, ScaleKind, T2qConfig};
use avouch_models::{ModelError, SplitBy, TrainedModel, TrainingFrame, load, train};
use common::{Noise, Row, batch, batches, config, names};
use proptest::prelude::*;

const P: usize = 3;

/// What devices of the test's make differ by, and their windows.
const BETWEEN: f64 = 5.0;

/// Standard deviation of a window about its device's level: of each feature, 1/√3 · √(0.8² + 0.6²).
const WITHIN: f64 = 0.577_350_269_189_625_8;

/// A device: its level, and windows that scatter about it with a cause that all features share.
struct Device {
    level: [f64; P],
    noise: Noise,
}

impl Device {
    fn of(seed: u64) -> Self {
        let mut noise = Noise(seed.wrapping_mul(7919).wrapping_add(3));
        for _ in 0..20 {
            noise.next();
        }
        let level = std::array::from_fn(|_| BETWEEN * noise.bell());
        Self { level, noise }
    }

    fn at(level: [f64; P], seed: u64) -> Self {
        Self { level, ..Self::of(seed) }
    }

    fn window(&mut self) -> [f64; P] {
        let shared = self.noise.bell();
        std::array::from_fn(|j| self.level[j] + 0.8 * shared + 0.6 * self.noise.bell())
    }
}

fn rows(devices: usize, windows: usize) -> Vec<Row> {
    let mut out = Vec::new();
    for d in 0..devices {
        let mut device = Device::of(1_000 + d as u64);
        for i in 0..windows {
            out.push((format!("pump-{d:02}"), 1_700_000_000_000 + 10_000 * i as i64, device.window().to_vec()));
        }
    }
    out
}

fn with(baseline: BaselineKind) -> T2qConfig {
    T2qConfig { baseline, variance: Some(1.0), ..T2qConfig::default() }
}

fn trained(baseline: BaselineKind, by: SplitBy) -> TrainedModel {
    let frame = TrainingFrame::from_batches(&names(P), [&batch(&rows(60, 200), P)]).unwrap();
    train(&frame, &config(with(baseline), by)).unwrap()
}

fn judge(memory: &mut dyn Memory, i: usize, x: &[f64; P]) -> (Score, [f64; P]) {
    let (mut e, mut c) = ([0.0; P], [0.0; P]);
    let s = memory.score(1_800_000_000_000 + 10_000 * i as i64, x, &mut e, &mut c);
    if !s.value.is_nan() {
        assert!((c.iter().sum::<f64>() - s.value).abs() <= 1e-9 * s.value.abs(), "{c:?} do not add up to {}", s.value);
    }
    (s, e)
}

/// How many calls of `n` at a rate of `p` have a probability of at least `1 - at`.
fn binomial_bound(n: usize, p: f64, at: f64) -> usize {
    let mut log_term = n as f64 * (1.0 - p).ln();
    let mut sum = log_term.exp();
    let mut k = 0;
    while sum < 1.0 - at && k < n {
        log_term += ((n - k) as f64 * p / ((k + 1) as f64 * (1.0 - p))).ln();
        sum += log_term.exp();
        k += 1;
    }
    k
}

#[test]
fn a_new_device_has_no_more_false_alarms_than_the_threshold_says_at_any_age() {
    for by in [SplitBy::Time, SplitBy::Device] {
        let model = trained(BaselineKind::Adaptive, by);
        let (devices, windows) = (300, 360);
        let mut calls = vec![0usize; windows];
        for d in 0..devices {
            let mut device = Device::of(50_000 + d);
            let mut memory = model.scorer.memory(&format!("new-{d}")).unwrap();
            for (i, calls) in calls.iter_mut().enumerate() {
                *calls += usize::from(judge(&mut *memory, i, &device.window()).0.p_value <= 0.05);
            }
        }
        // The first window of each is one draw a device; the bound is for such. What the calibration of young devices
        // rests on is 60 devices, or the 12 held back, and their draw is worth as much again.
        let bound = binomial_bound(devices as usize, 0.05, 1e-3) + if by == SplitBy::Device { 8 } else { 0 };
        let worst = calls[..20].iter().max().unwrap();
        assert!(*worst <= bound, "{by:?}: {worst} of {devices} called at one age, {bound} may be: {:?}", &calls[..20]);
        // In its first hour of ten-second windows, all devices together.
        let all: usize = calls.iter().sum();
        let rate = all as f64 / (devices as usize * windows) as f64;
        assert!(rate <= 0.06, "{by:?}: {rate}");
        assert!(rate >= 0.03, "{by:?}: {rate}: a threshold that calls too little finds nothing");
    }
}

#[test]
fn a_new_device_with_a_level_of_its_own_is_learnt_where_the_fleets_baseline_calls_it_for_ever() {
    let adaptive = trained(BaselineKind::Adaptive, SplitBy::Time);
    let fleet = trained(BaselineKind::Fleet, SplitBy::Time);
    // Beyond what all but a few of a hundred devices have.
    let level = [5.7, -5.7, 2.0];
    // An hour of ten-second windows. The first few of such a device are rightly strange: nothing is known of it yet.
    let (windows, strange, devices) = (360, 10, 20);
    let (mut all, mut fleets) = (0, 0);
    for d in 0..devices {
        let mut device = Device::at(level, 9 + d);
        let mut memory = adaptive.scorer.memory("new").unwrap();
        let mut own = 0;
        for i in 0..windows {
            let x = device.window();
            let called = judge(&mut *memory, i, &x).0.p_value <= 0.05;
            own += usize::from(called && i >= strange);
            let (mut e, mut c) = ([0.0; P], [0.0; P]);
            let by_fleet = fleet.scorer.score("new", &x, &mut e, &mut c).p_value <= 0.05;
            fleets += usize::from(by_fleet && i >= windows - 60);
        }
        let bound = binomial_bound(windows - strange, 0.05, 1e-3 / devices as f64);
        assert!(own <= bound, "device {d}: {own} of {} called, {bound} may be", windows - strange);
        all += own;
    }
    // Of all together the bound also has to allow for the calibration, whose 2,400 rows know the rate to a standard error
    // of √(0.05 · 0.95 / 2400).
    let n = devices as usize * (windows - strange);
    let bound = binomial_bound(n, 0.05 + 3.0 * (0.05f64 * 0.95 / 2_400.0).sqrt(), 1e-3);
    assert!(all <= bound, "{all} of {n} called, {bound} may be");
    let last = devices as usize * 60;
    assert!(fleets * 10 >= last * 8, "the fleet's baseline calls {fleets} of {last} an hour later");
}

#[test]
fn a_fault_of_a_learnt_device_is_called_though_the_fleet_has_such_levels_and_it_is_not_learnt() {
    let adaptive = trained(BaselineKind::Adaptive, SplitBy::Time);
    let fleet = trained(BaselineKind::Fleet, SplitBy::Time);
    let mut device = Device::of(77);
    let mut memory = adaptive.scorer.memory("new").unwrap();
    for i in 0..60 {
        judge(&mut *memory, i, &device.window());
    }
    // Towards the fleet's middle: nothing a fleet's baseline could see.
    let step = 5.0 * WITHIN * if device.level[1] > 0.0 { -1.0 } else { 1.0 };
    device.level[1] += step;
    let (mut called, mut by_fleet, mut level) = (0, 0, Vec::new());
    for i in 60..160 {
        let x = device.window();
        let (s, e) = judge(&mut *memory, i, &x);
        called += usize::from(s.p_value <= LEARN_ABOVE);
        level.push(e[1]);
        let (mut e, mut c) = ([0.0; P], [0.0; P]);
        by_fleet += usize::from(fleet.scorer.score("new", &x, &mut e, &mut c).p_value <= LEARN_ABOVE);
    }
    assert!(called >= 98, "{called} of 100 called");
    assert!(by_fleet <= 5, "{by_fleet}");
    let moved = (level[99] - level[0]).abs();
    assert!(moved < 0.2 * WITHIN, "the level followed the fault by {moved}");
}

#[test]
fn a_device_that_comes_with_a_fault_is_called_from_its_first_window_and_for_good() {
    let model = trained(BaselineKind::Adaptive, SplitBy::Time);
    let mut device = Device::at([0.0, 25.0, 0.0], 4);
    let mut memory = model.scorer.memory("new").unwrap();
    for i in 0..500 {
        let (s, e) = judge(&mut *memory, i, &device.window());
        assert!(s.p_value <= LEARN_ABOVE, "window {i}: {s:?}");
        assert!(e[1].abs() < 2.0, "learnt: {e:?}");
    }
}

#[test]
fn a_level_that_is_settled_does_not_follow_a_fault_that_creeps() {
    let model = trained(BaselineKind::Adaptive, SplitBy::Time);
    let settle = model.card.fitted.iter().find(|f| f.name.contains("stands still")).unwrap().value[0] as usize;
    let mut device = Device::of(31);
    let mut memory = model.scorer.memory("new").unwrap();
    // A few more than it takes, for a called window does not count.
    for i in 0..settle + settle / 5 {
        judge(&mut *memory, i, &device.window());
    }
    let settled = judge(&mut *memory, 0, &device.window()).1;
    let mut called = 0;
    for i in 0..2_000 {
        // A thousandth of a standard deviation a window.
        device.level[0] += 0.003 * WITHIN;
        let (s, e) = judge(&mut *memory, i, &device.window());
        assert_eq!(e.map(f64::to_bits), settled.map(f64::to_bits), "window {i}");
        called += usize::from(i >= 1_900 && s.p_value <= LEARN_ABOVE);
    }
    assert!(called >= 95, "{called} of the last 100 called");
}

#[test]
fn a_fault_that_creeps_from_the_first_window_on_is_called_before_the_level_settles() {
    let model = trained(BaselineKind::Adaptive, SplitBy::Time);
    let mut device = Device::of(32);
    let mut memory = model.scorer.memory("new").unwrap();
    let mut last = Vec::new();
    for i in 0..1_000 {
        device.level[2] += 0.02 * WITHIN;
        last.push(judge(&mut *memory, i, &device.window()).0.p_value <= LEARN_ABOVE);
    }
    let first = last.iter().position(|c| *c).unwrap();
    assert!(last[900..].iter().all(|c| *c), "called first at {first}");
}

#[test]
fn a_device_that_was_trained_on_begins_with_its_own_level() {
    let model = trained(BaselineKind::Adaptive, SplitBy::Time);
    for d in [0u64, 7, 59] {
        let level = Device::of(1_000 + d).level;
        let (mut e, mut c) = ([0.0; P], [0.0; P]);
        model.scorer.score(&format!("pump-{d:02}"), &level, &mut e, &mut c);
        assert!(e.iter().zip(&level).all(|(e, l)| (e - l).abs() < 4.0 * WITHIN / 160f64.sqrt()), "{e:?} {level:?}");
    }
}

#[test]
fn the_cards_estimates_are_those_the_fleet_was_drawn_with() {
    let model = trained(BaselineKind::Adaptive, SplitBy::Time);
    let fact = |name: &str| &model.card.fitted.iter().find(|f| f.name.starts_with(name)).unwrap().value;
    let truth = BETWEEN * BETWEEN / 3.0 / (WITHIN * WITHIN);
    for v in fact("variance between") {
        // Of 60 devices: a standard error of √(2/59).
        assert!((v / truth - 1.0).abs() < 3.5 * (2.0f64 / 59.0).sqrt(), "{v} against {truth}");
    }
    assert!(fact("windows that tell").iter().all(|c| (1.0..1.3).contains(c)));
}

fn bits(s: &Score, e: &[f64; P]) -> (u64, u64, [u64; P]) {
    (s.value.to_bits(), s.p_value.to_bits(), e.map(f64::to_bits))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_restart_anywhere_and_missing_values_anywhere_change_no_bit(
        cuts in prop::collection::vec(0usize..150, 0..6),
        missing in prop::collection::vec((0usize..150, 0..P), 0..10),
        seed in 0u64..1_000,
        known in any::<bool>(),
    ) {
        let model = small();
        let name = if known { "pump-02" } else { "new" };
        let mut device = Device::of(seed);
        let mut through = model.scorer.memory(name).unwrap();
        let mut restarted = load(&model.bytes).unwrap().memory(name).unwrap();
        for i in 0..150 {
            let mut x = device.window();
            let gap = missing.iter().find(|(at, _)| *at == i);
            if let Some((_, j)) = gap {
                x[*j] = if i % 2 == 0 { f64::NAN } else { f64::INFINITY };
            }
            if cuts.contains(&i) {
                let mut w = Writer::new();
                restarted.write(&mut w);
                prop_assert_eq!(w.bytes.len(), 4 + 8 * P);
                let mut r = Reader::new("memory", &w.bytes);
                restarted = load(&model.bytes).unwrap().read_memory(name, &mut r).unwrap();
                r.finish().unwrap();
            }
            let mut early = restarted.copy();
            let before = judge(&mut *early, i, &x);
            let (a, b) = (judge(&mut *through, i, &x), judge(&mut *restarted, i, &x));
            prop_assert_eq!(bits(&a.0, &a.1), bits(&b.0, &b.1));
            prop_assert_eq!(bits(&a.0, &a.1), bits(&before.0, &before.1));
            prop_assert_eq!(a.0.value.is_nan(), gap.is_some());
        }
    }

    #[test]
    fn the_same_rows_give_the_same_bytes_however_they_come(
        sizes in prop::collection::vec(1usize..200, 1..6),
        rotate in 0usize..500,
    ) {
        let one = small();
        let mut shuffled = rows(6, 100);
        shuffled.rotate_left(rotate);
        let frame = TrainingFrame::from_batches(&names(P), &batches(&shuffled, P, &sizes)).unwrap();
        let other = train(&frame, &config(with(BaselineKind::Adaptive), SplitBy::Time)).unwrap();
        prop_assert!(one.bytes == other.bytes);
    }

    #[test]
    fn a_truncated_or_altered_file_is_refused(cut in 0usize..100_000, bit in 0usize..800_000) {
        let model = small();
        prop_assert!(load(&model.bytes[..cut % model.bytes.len()]).is_err());
        let mut altered = model.bytes.clone();
        let bit = bit % (8 * altered.len());
        altered[bit / 8] ^= 1 << (bit % 8);
        prop_assert!(load(&altered).is_err());
    }
}

fn small() -> TrainedModel {
    let frame = TrainingFrame::from_batches(&names(P), [&batch(&rows(6, 100), P)]).unwrap();
    train(&frame, &config(with(BaselineKind::Adaptive), SplitBy::Time)).unwrap()
}

#[test]
fn a_memory_that_no_device_could_have_is_refused() {
    let model = small();
    let read = |device: &str, seen: u32, mean: [f64; P]| {
        let mut w = Writer::new();
        w.u32(seen);
        mean.iter().for_each(|m| w.f64(*m));
        model.scorer.read_memory(device, &mut Reader::new("memory", &w.bytes)).map(|_| ())
    };
    assert!(read("new", 5, [0.0; P]).is_ok());
    assert!(read("new", 0, [0.0; P]).is_err(), "nothing learnt, yet not where it began");
    assert!(read("new", 5, [0.0, f64::NAN, 0.0]).is_err());
    assert!(read("new", u32::MAX, [0.0; P]).is_err());
    assert!(read("pump-00", 5, [0.0; P]).is_err(), "fewer than it began with");
    assert!(model.scorer.read_memory("new", &mut Reader::new("memory", &[1, 0, 0])).is_err());
}

#[test]
fn what_cannot_be_learnt_from_is_refused_with_what_to_do() {
    let attempt = |rows: &[Row], algorithm: T2qConfig| {
        let frame = TrainingFrame::from_batches(&names(P), [&batch(rows, P)]).unwrap();
        train(&frame, &config(algorithm, SplitBy::Time)).map(|m| m.hash)
    };
    let say = |r: Result<_, ModelError>| r.unwrap_err().to_string();
    let two = say(attempt(&rows(2, 200), with(BaselineKind::Adaptive)));
    assert!(two.contains("2 devices") && two.contains("baseline = \"fleet\""), "{two}");
    let few = say(attempt(&rows(6, 40), with(BaselineKind::Adaptive)));
    assert!(few.contains("split.hold_back"), "{few}");
    let scale = say(attempt(&rows(6, 100), T2qConfig { scale: ScaleKind::Device, ..with(BaselineKind::Adaptive) }));
    assert!(scale.contains("algorithm.scale"), "{scale}");
}
