//! What must hold of half-space trees, random cut forests and nearest neighbours: same bytes, same bits, contributions that
//! add up, a memory that survives a restart, hostile files refused.
#![allow(clippy::unwrap_used)]

mod common;

use avouch_engine::codec::{Reader, Writer};
use avouch_engine::model::{Memory, Score};
use avouch_models::cutforest::RandomCutForestConfig;
use avouch_models::halfspace::{self, HalfSpaceTreesConfig};
use avouch_models::neighbours::NearestNeighboursConfig;
use avouch_models::t2q::BaselineKind;
use avouch_models::{AlgorithmConfig, ModelError, SplitBy, TrainedModel, TrainingFrame, load, model_hash, train};
use common::{Row, batch, batches, config_of, fleet, names};
use proptest::prelude::*;

fn baselines() -> impl Strategy<Value = (BaselineKind, SplitBy)> {
    prop_oneof![
        Just((BaselineKind::Fleet, SplitBy::Time)),
        Just((BaselineKind::Fleet, SplitBy::Device)),
        Just((BaselineKind::Device, SplitBy::Time)),
    ]
}

fn algorithms() -> impl Strategy<Value = (AlgorithmConfig, SplitBy)> {
    let half = (1usize..12, 1usize..7, any::<bool>(), 2u32..40).prop_map(|(trees, depth, online, window)| {
        AlgorithmConfig::HalfSpaceTrees(HalfSpaceTreesConfig { trees, depth, online, window, ..Default::default() })
    });
    let cut = (1usize..12, 2usize..64).prop_map(|(trees, sample)| {
        AlgorithmConfig::RandomCutForest(RandomCutForestConfig { trees, sample, ..Default::default() })
    });
    let near =
        (1usize..4, 16usize..80, 0u32..20, 1u32..9, 1u32..30).prop_map(|(neighbours, sample, recent, every, delay)| {
            AlgorithmConfig::NearestNeighbours(NearestNeighboursConfig {
                neighbours,
                sample,
                recent,
                every,
                delay,
                ..Default::default()
            })
        });
    (prop_oneof![half, cut, near], baselines(), 0u64..100).prop_map(|(mut algorithm, (baseline, by), seed)| {
        match &mut algorithm {
            AlgorithmConfig::HalfSpaceTrees(c) => (c.baseline, c.seed) = (baseline, seed),
            AlgorithmConfig::RandomCutForest(c) => (c.baseline, c.seed) = (baseline, seed),
            AlgorithmConfig::NearestNeighbours(c) => (c.baseline, c.seed) = (baseline, seed),
            _ => unreachable!(),
        }
        (algorithm, by)
    })
}

fn trained_on(rows: &[Row], p: usize, algorithm: AlgorithmConfig, by: SplitBy) -> TrainedModel {
    let frame = TrainingFrame::from_batches(&names(p), &batches(rows, p, &[64])).unwrap();
    train(&frame, &config_of(algorithm, by)).unwrap()
}

fn trained(p: usize, algorithm: AlgorithmConfig, by: SplitBy) -> TrainedModel {
    trained_on(&fleet(4, 60, p, 3), p, algorithm, by)
}

/// Each kind as it is by default, small enough for tests.
fn kinds(baseline: BaselineKind) -> [AlgorithmConfig; 5] {
    let half = HalfSpaceTreesConfig { trees: 20, depth: 6, window: 50, baseline, seed: 5, ..Default::default() };
    let near = NearestNeighboursConfig { sample: 64, baseline, seed: 5, ..Default::default() };
    [
        AlgorithmConfig::HalfSpaceTrees(half.clone()),
        AlgorithmConfig::HalfSpaceTrees(HalfSpaceTreesConfig { online: true, ..half }),
        AlgorithmConfig::NearestNeighbours(near.clone()),
        AlgorithmConfig::NearestNeighbours(NearestNeighboursConfig { recent: 20, every: 3, delay: 10, ..near }),
        AlgorithmConfig::RandomCutForest(RandomCutForestConfig { trees: 20, sample: 64, baseline, seed: 5 }),
    ]
}

/// Bits of a score and of all that comes with it.
fn bits(s: Score, e: &[f64], c: &[f64]) -> Vec<u64> {
    [s.value, s.p_value].iter().chain(e).chain(c).map(|v| v.to_bits()).collect()
}

fn judge(memory: &mut dyn Memory, rows: &[Vec<f64>]) -> Vec<Vec<u64>> {
    let p = rows[0].len();
    let (mut e, mut c) = (vec![0.0; p], vec![0.0; p]);
    rows.iter()
        .zip(1i64..)
        .map(|(x, i)| {
            let s = memory.score(i * 1000, x, &mut e, &mut c);
            if x.iter().all(|v| v.is_finite()) {
                let sum: f64 = c.iter().sum();
                assert!((sum - s.value).abs() <= 1e-9 * s.value.abs().max(1.0));
                assert!(s.p_value > 0.0 && s.p_value <= 1.0);
            } else {
                assert!(s.value.is_nan() && s.p_value.is_nan() && c.iter().all(|c| c.is_nan()));
            }
            bits(s, &e, &c)
        })
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_same_rows_give_the_same_bytes_however_they_come(
        (algorithm, by) in algorithms(),
        p in 1usize..6,
        sizes in prop::collection::vec(1usize..200, 1..8),
        seed in 0u64..1000,
        rotate in 0usize..240,
    ) {
        let rows = fleet(4, 60, p, seed);
        let cfg = config_of(algorithm, by);
        let one = train(&TrainingFrame::from_batches(&names(p), [&batch(&rows, p)]).unwrap(), &cfg).unwrap();
        let mut shuffled = rows;
        shuffled.rotate_left(rotate);
        let cut = batches(&shuffled, p, &sizes);
        // On another thread, out of other batches.
        let other = std::thread::scope(|s| {
            s.spawn(|| train(&TrainingFrame::from_batches(&names(p), &cut).unwrap(), &cfg).unwrap()).join().unwrap()
        });
        prop_assert_eq!(&one.bytes, &other.bytes);
        prop_assert_eq!(one.hash, model_hash(&one.bytes));
        prop_assert_eq!(one.hash, one.scorer.hash());
    }

    #[test]
    fn contributions_add_up_and_loading_changes_no_bit(
        (algorithm, by) in algorithms(),
        p in 1usize..6,
        x in prop::collection::vec(prop_oneof![-20.0f64..20.0, -1e6f64..1e6], 6),
        device in 0usize..8,
    ) {
        let never_negative = !matches!(algorithm, AlgorithmConfig::HalfSpaceTrees(_));
        let model = trained(p, algorithm, by);
        let loaded = load(&model.bytes).unwrap();
        let device = format!("pump-{device:02}");
        let (mut e, mut c) = (vec![0.0; p], vec![0.0; p]);
        let (mut e2, mut c2) = (vec![1.0; p], vec![1.0; p]);
        let s = model.scorer.score(&device, &x[..p], &mut e, &mut c);
        let s2 = std::thread::scope(|t| t.spawn(|| loaded.score(&device, &x[..p], &mut e2, &mut c2)).join().unwrap());
        prop_assert_eq!(bits(s, &e, &c), bits(s2, &e2, &c2));
        let sum: f64 = c.iter().sum();
        prop_assert!((sum - s.value).abs() <= 1e-9 * s.value.abs().max(1.0));
        prop_assert!(!never_negative || c.iter().all(|c| *c >= 0.0));
        prop_assert!(e.iter().all(|e| e.is_finite()));
        prop_assert!(s.p_value > 0.0 && s.p_value <= 1.0);
        prop_assert!(loaded.smallest_p_value() > 0.0);
        // Of an online model: what it says of a device's first vector.
        if let Some(mut memory) = loaded.memory(&device) {
            let s3 = memory.score(1, &x[..p], &mut e2, &mut c2);
            prop_assert_eq!(bits(s, &e, &c), bits(s3, &e2, &c2));
        }
    }

    #[test]
    fn a_memory_written_and_read_in_mid_stream_goes_on_with_the_same_bits(
        (algorithm, by) in algorithms(),
        p in 1usize..4,
        device in 0usize..6,
        cuts in prop::collection::vec(0usize..150, 1..4),
        gap in 0usize..150,
    ) {
        let model = trained(p, algorithm, by);
        let device = format!("pump-{device:02}");
        let Some(mut whole) = model.scorer.memory(&device) else {
            prop_assert!(model.scorer.read_memory(&device, &mut Reader::new("memory", &[])).is_err());
            return Ok(());
        };
        let mut rows: Vec<Vec<f64>> = fleet(1, 150, p, 77).into_iter().map(|r| r.2).collect();
        rows[gap][0] = f64::NAN;
        let expected = judge(whole.as_mut(), &rows);
        let mut cuts = cuts;
        cuts.extend([0, 150]);
        cuts.sort_unstable();
        let mut memory = model.scorer.memory(&device).unwrap();
        let mut size = 0;
        for pair in cuts.windows(2) {
            if pair[0] == pair[1] {
                continue;
            }
            let copied = judge(memory.copy().as_mut(), &rows[pair[0]..pair[1]]);
            let seen = judge(memory.as_mut(), &rows[pair[0]..pair[1]]);
            prop_assert_eq!(&copied, &seen);
            prop_assert_eq!(&seen[..], &expected[pair[0]..pair[1]]);
            let mut w = Writer::new();
            memory.write(&mut w);
            let mut r = Reader::new("memory", &w.bytes);
            memory = model.scorer.read_memory(&device, &mut r).unwrap();
            r.finish().unwrap();
            let mut again = Writer::new();
            memory.write(&mut again);
            prop_assert_eq!(&w.bytes, &again.bytes);
            size = w.bytes.len();
        }
        // It does not grow for ever: another thousand vectors leave it no larger than the options allow.
        for i in 0..1000 {
            memory.score(i, &rows[1], &mut vec![0.0; p], &mut vec![0.0; p]);
        }
        let mut w = Writer::new();
        memory.write(&mut w);
        let most = match &model.card.algorithm {
            AlgorithmConfig::HalfSpaceTrees(c) => 4 + 1 + 8 * (c.trees << c.depth),
            AlgorithmConfig::NearestNeighbours(c) => 8 + 8 * p * (c.recent + c.delay.div_ceil(c.every)) as usize,
            _ => 0,
        };
        prop_assert!(size <= most && w.bytes.len() <= most, "{size} and {} of {most}", w.bytes.len());
    }

    #[test]
    fn a_damaged_memory_is_refused_or_is_one(
        (algorithm, by) in algorithms(),
        at in 0usize..100_000,
        to in any::<u8>(),
        cut in 0usize..100_000,
    ) {
        let model = trained(2, algorithm, by);
        let Some(mut memory) = model.scorer.memory("pump-01") else { return Ok(()) };
        let rows: Vec<Vec<f64>> = fleet(1, 70, 2, 77).into_iter().map(|r| r.2).collect();
        judge(memory.as_mut(), &rows);
        let mut w = Writer::new();
        memory.write(&mut w);
        let mut bytes = w.bytes;
        let cut = cut % bytes.len();
        prop_assert!(model.scorer.read_memory("pump-01", &mut Reader::new("memory", &bytes[..cut])).is_err());
        let at = at % bytes.len();
        bytes[at] = to;
        let mut r = Reader::new("memory", &bytes);
        if let Ok(mut read) = model.scorer.read_memory("pump-01", &mut r) {
            let used = r.position();
            let mut w = Writer::new();
            read.write(&mut w);
            prop_assert_eq!(&w.bytes[..], &bytes[..used]);
            judge(read.as_mut(), &rows);
        }
    }

    #[test]
    fn a_truncated_or_altered_file_is_refused(
        (algorithm, by) in algorithms(),
        cut in 0usize..10_000_000,
        bit in 0usize..80_000_000,
    ) {
        let model = trained(3, algorithm, by);
        let cut = cut % model.bytes.len();
        prop_assert!(load(&model.bytes[..cut]).is_err());
        let mut altered = model.bytes.clone();
        let bit = bit % (8 * altered.len());
        altered[bit / 8] ^= 1 << (bit % 8);
        prop_assert!(load(&altered).is_err());
        let mut longer = model.bytes;
        longer.push(0);
        prop_assert!(load(&longer).is_err());
    }

    /// A forger gives the right trailer, too. What loads must score without panic and within its own bounds.
    #[test]
    fn a_hostile_body_is_refused_or_harmless(
        (algorithm, by) in algorithms(),
        changes in prop::collection::vec((any::<u32>(), prop_oneof![Just(0u8), Just(1), Just(255), any::<u8>()]), 1..4),
        x in prop::collection::vec(-1e3f64..1e3, 3),
    ) {
        let model = trained(3, algorithm, by);
        let body = body_of(&model.bytes);
        let mut bytes = model.bytes;
        for (at, to) in changes {
            let at = body + at as usize % (bytes.len() - 32 - body);
            bytes[at] = to;
        }
        if let Ok(scorer) = load(&sealed(bytes)) {
            let (mut e, mut c) = ([0.0; 3], [0.0; 3]);
            for device in ["pump-00", "pump-03", "stranger"] {
                scorer.score(device, &x, &mut e, &mut c);
                if let Some(mut memory) = scorer.memory(device) {
                    memory.score(1, &x, &mut e, &mut c);
                    memory.score(2, &x, &mut e, &mut c);
                }
            }
        }
    }
}

/// Where the body starts: after magic, version, kind, card and the body's own length.
fn body_of(bytes: &[u8]) -> usize {
    let mut r = Reader::new("test", bytes);
    r.raw(9).unwrap();
    r.str().unwrap();
    r.str().unwrap();
    r.u32().unwrap();
    r.position()
}

/// The file with a trailer that fits.
fn sealed(mut bytes: Vec<u8>) -> Vec<u8> {
    bytes.truncate(bytes.len() - 32);
    let digest = model_hash(&bytes);
    bytes.extend_from_slice(&digest);
    bytes
}

#[test]
fn a_healthy_row_is_rarely_called_and_a_strange_one_is() {
    let p = 3;
    let rows = fleet(4, 500, p, 21);
    let (before, after): (Vec<Row>, Vec<Row>) = rows.into_iter().partition(|r| r.1 < 1_700_000_000_000 + 10_000 * 400);
    for algorithm in kinds(BaselineKind::Device).into_iter().chain(kinds(BaselineKind::Fleet)) {
        let what = format!("{algorithm:?}");
        let model = trained_on(&before, p, algorithm, SplitBy::Time);
        let (mut e, mut c) = (vec![0.0; p], vec![0.0; p]);
        let (mut healthy, mut strange) = (0, 0);
        for device in 0..4 {
            let device = format!("pump-{device:02}");
            let mut memory = model.scorer.memory(&device);
            for (i, r) in after.iter().filter(|r| r.0 == device).enumerate() {
                let mut x = r.2.clone();
                // The last ten of a device's hundred: far off in one feature.
                let is_strange = i >= 90;
                if is_strange {
                    x[1] += 40.0;
                }
                let s = match &mut memory {
                    Some(memory) => memory.score(r.1, &x, &mut e, &mut c),
                    None => model.scorer.score(&device, &x, &mut e, &mut c),
                };
                let called = s.p_value <= 0.05;
                *if is_strange { &mut strange } else { &mut healthy } += usize::from(called);
                assert!(!is_strange || c[1] >= c[0].max(c[2]), "{what}: {c:?}");
            }
        }
        assert!(healthy <= 360 / 8, "{what}: {healthy} of 360 healthy rows called");
        assert!(strange >= 36, "{what}: {strange} of 40 strange rows called");
    }
}

#[test]
fn what_lasts_becomes_normal_only_where_the_model_is_online() {
    let p = 2;
    for algorithm in kinds(BaselineKind::Fleet) {
        let model = trained(p, algorithm.clone(), SplitBy::Time);
        let (mut e, mut c) = (vec![0.0; p], vec![0.0; p]);
        let moved: Vec<Vec<f64>> =
            fleet(1, 200, p, 9).into_iter().map(|r| vec![r.2[0] + 60.0, r.2[1] - 60.0]).collect();
        let first = model.scorer.score("pump-00", &moved[0], &mut e, &mut c).value;
        let fixed = model.scorer.score("pump-00", &moved[199], &mut e, &mut c).value;
        match model.scorer.memory("pump-00") {
            None => assert!(fixed > 0.5 * first, "{algorithm:?}: {first} then {fixed}"),
            Some(mut memory) => {
                let mut last = 0.0;
                for x in &moved {
                    last = memory.score(0, x, &mut e, &mut c).value;
                }
                // Nearest neighbours keep the half that the reference rows say.
                assert!(last < 0.7 * first, "{algorithm:?}: {first} then {last}");
                assert!(last < 0.7 * fixed, "{algorithm:?}: {fixed} without memory, {last} with it");
            }
        }
    }
}

#[test]
fn what_cannot_be_scored_is_not_a_number_and_what_is_huge_still_has_a_score() {
    for algorithm in kinds(BaselineKind::Device) {
        let model = trained(3, algorithm, SplitBy::Time);
        let (mut e, mut c) = ([0.0; 3], [0.0; 3]);
        for bad in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            let s = model.scorer.score("pump-00", &[1.0, bad, 1.0], &mut e, &mut c);
            assert!(s.value.is_nan() && s.p_value.is_nan());
            assert!(e.iter().chain(&c).all(|v| v.is_nan()));
        }
        assert!(model.scorer.score("pump-00", &[1.0, 2.0], &mut e[..2], &mut c[..2]).value.is_nan());
        for huge in [f64::MAX, f64::MIN] {
            let s = model.scorer.score("pump-00", &[huge, -huge, huge], &mut e, &mut c);
            assert!(s.value.is_finite() && c.iter().all(|c| c.is_finite()), "{s:?} {c:?}");
            assert!(s.p_value <= 0.2, "{s:?}");
        }
    }
}

/// The surprise along a path telescopes to −log₂ of the leaf's density where masses are large, by the paper's mass × 2^depth.
#[test]
fn half_space_trees_measure_density_in_bits() {
    let p = 2;
    let rows = fleet(1, 4000, p, 5);
    let algorithm = HalfSpaceTreesConfig { trees: 1, depth: 3, ..Default::default() };
    let model = trained_on(&rows, p, AlgorithmConfig::HalfSpaceTrees(algorithm), SplitBy::Time);
    let (mut e, mut c) = (vec![0.0; p], vec![0.0; p]);
    // Rows of one leaf share a score: the leaf's share of the rows fitted on is known by counting scores.
    let fitted: Vec<f64> = rows[..3200].iter().map(|r| model.scorer.score("x", &r.2, &mut e, &mut c).value).collect();
    let mut seen = fitted.clone();
    seen.sort_by(f64::total_cmp);
    seen.dedup();
    assert!(seen.len() >= 3);
    for s in seen {
        let m = fitted.iter().filter(|v| **v == s).count() as f64;
        let bits = -(m * 8.0 / 3200.0).log2();
        assert!((s - bits).abs() < 0.05 || m < 60.0, "{m} rows: {s} against {bits}");
    }
    assert_eq!(model.scorer.features().len(), p);
    assert_eq!(halfspace::KIND, "half-space-trees");
}

/// Of nearest neighbours: the distance found by looking at every reference row.
#[test]
fn nearest_neighbours_find_the_nearest_row_and_cover_the_others() {
    let p = 3;
    let rows = fleet(1, 300, p, 8);
    // As many reference rows as rows fitted on: the cover is all of them.
    let near = NearestNeighboursConfig { sample: 1000, ..Default::default() };
    let model = trained_on(&rows, p, AlgorithmConfig::NearestNeighbours(near.clone()), SplitBy::Time);
    let fact = |model: &TrainedModel, name: &str| {
        model.card.fitted.iter().find(|f| f.name.starts_with(name)).unwrap().value[0]
    };
    assert_eq!((fact(&model, "reference rows"), fact(&model, "covering radius")), (240.0, 0.0));
    let fit = &rows[..240];
    let mean: Vec<f64> = (0..p).map(|j| fit.iter().map(|r| r.2[j]).sum::<f64>() / 240.0).collect();
    let spread: Vec<f64> =
        (0..p).map(|j| (1.0004 * fit.iter().map(|r| (r.2[j] - mean[j]).powi(2)).sum::<f64>() / 240.0).sqrt()).collect();
    let (mut e, mut c) = (vec![0.0; p], vec![0.0; p]);
    for x in rows[240..].iter().map(|r| &r.2) {
        let (distance, row) = fit
            .iter()
            .map(|r| {
                let d: f64 = (0..p).map(|j| ((x[j] - r.2[j]) / spread[j]).powi(2)).sum();
                (d.sqrt(), &r.2)
            })
            .min_by(|a, b| a.0.total_cmp(&b.0))
            .unwrap();
        let s = model.scorer.score("pump-00", x, &mut e, &mut c);
        assert!((s.value - distance).abs() < 1e-9, "{} against {distance}", s.value);
        assert!(e.iter().zip(row).all(|(e, r)| (e - r).abs() < 1e-9));
    }
    // A small cover: no row fitted on is farther than the radius, and one is as far.
    let model = trained_on(
        &rows,
        p,
        AlgorithmConfig::NearestNeighbours(NearestNeighboursConfig { sample: 40, ..near }),
        SplitBy::Time,
    );
    let radius = fact(&model, "covering radius");
    let farthest = fit.iter().map(|r| model.scorer.score("pump-00", &r.2, &mut e, &mut c).value).fold(0.0, f64::max);
    assert!((farthest - radius).abs() < 1e-9, "{farthest} against {radius}");
}

/// Of a forest over two places: a vector between them is cut off from the root by what it stands out, worked out by hand.
#[test]
fn expected_displacement_is_what_the_definition_says() {
    // One feature, half of the rows at 0, half at 1, in turns: scaled, they are at −z and z.
    let rows: Vec<Row> = (0..100).map(|i| ("pump-00".to_owned(), i, vec![(i % 2) as f64])).collect();
    let algorithm = RandomCutForestConfig { trees: 30, sample: 80, ..Default::default() };
    let model = trained_on(&rows, 1, AlgorithmConfig::RandomCutForest(algorithm), SplitBy::Time);
    let (mut e, mut c) = ([0.0], [0.0]);
    let mut score = |x: f64| model.scorer.score("pump-00", &[x], &mut e, &mut c).value;
    // On a place: nothing is displaced. Far to the right by d: the root parts with d / (1 + d), displacing all; else
    // the vector goes on to the leaf at 1, which parts for sure and displaces its half.
    assert_eq!((score(0.0), score(1.0)), (0.0, 0.0));
    for d in [0.1, 1.0, 30.0] {
        let parts = d / (1.0 + d);
        let expected = parts + (1.0 - parts) * 0.5;
        assert!((score(1.0 + d) - expected).abs() < 1e-9, "{d}: {} against {expected}", score(1.0 + d));
    }
    // Between: the root cannot part it, the leaf it falls to displaces a half.
    assert!((score(0.5) - 0.5).abs() < 1e-12);
}

#[test]
fn a_device_with_rows_enough_is_judged_by_its_own_and_a_stranger_by_the_fleets() {
    let p = 2;
    for algorithm in kinds(BaselineKind::Device) {
        let what = format!("{algorithm:?}");
        let mut rows = fleet(3, 100, p, 4);
        rows.extend(fleet(1, 30, p, 4).into_iter().map(|r| ("pump-99".to_owned(), r.1, r.2)));
        let model = trained_on(&rows, p, algorithm, SplitBy::Time);
        let with = model.card.fitted.iter().find(|f| f.name == "devices with a detector of their own").unwrap();
        assert_eq!(with.value, [3.0], "{what}");
        assert_eq!(model.card.calibration.len(), 4);
        let (mut e, mut c) = (vec![0.0; p], vec![0.0; p]);
        let mut score = |device: &str| model.scorer.score(device, &rows[150].2, &mut e, &mut c).value;
        // A healthy row of pump-01 is strange for pump-00; whom the model does not know, and who had too few rows, are one.
        assert!(score("pump-00") > score("pump-01"), "{what}");
        assert_eq!(score("never seen"), score("pump-99"), "{what}");
    }
}

#[test]
fn every_mistake_is_named() {
    let p = 2;
    let good = fleet(3, 60, p, 1);
    let frame = |rows: &[Row]| TrainingFrame::from_batches(&names(p), [&batch(rows, p)]).unwrap();
    let say = |rows: &[Row], algorithm: AlgorithmConfig, by: SplitBy| -> String {
        let result: Result<TrainedModel, ModelError> = train(&frame(rows), &config_of(algorithm, by));
        result.unwrap_err().to_string()
    };
    let half = |c: HalfSpaceTreesConfig| say(&good, AlgorithmConfig::HalfSpaceTrees(c), SplitBy::Time);
    let cut = |c: RandomCutForestConfig| say(&good, AlgorithmConfig::RandomCutForest(c), SplitBy::Time);
    let near = |c: NearestNeighboursConfig| say(&good, AlgorithmConfig::NearestNeighbours(c), SplitBy::Time);
    let mut messages = vec![
        half(HalfSpaceTreesConfig { trees: 0, ..Default::default() }),
        half(HalfSpaceTreesConfig { depth: 13, ..Default::default() }),
        half(HalfSpaceTreesConfig { window: 1, ..Default::default() }),
        cut(RandomCutForestConfig { trees: 1001, ..Default::default() }),
        cut(RandomCutForestConfig { sample: 1, ..Default::default() }),
        near(NearestNeighboursConfig { neighbours: 0, ..Default::default() }),
        near(NearestNeighboursConfig { sample: 15, ..Default::default() }),
        near(NearestNeighboursConfig { recent: 5000, ..Default::default() }),
        near(NearestNeighboursConfig { recent: 5, every: 0, ..Default::default() }),
        near(NearestNeighboursConfig { recent: 5, delay: 0, ..Default::default() }),
    ];
    let mut constant = good.clone();
    constant.iter_mut().for_each(|r| r.2[1] = 0.1);
    for algorithm in kinds(BaselineKind::Device) {
        messages.push(say(&good, algorithm.clone(), SplitBy::Device));
        messages.push(say(&good[..2], algorithm.clone(), SplitBy::Time));
        messages.push(say(&fleet(9, 20, p, 1), algorithm.clone(), SplitBy::Time));
        messages.push(say(&constant, algorithm, SplitBy::Time));
    }
    messages.dedup();
    golden("trees-messages.txt", &(messages.join("\n") + "\n"));
}

/// Scores of fixed rows under fixed models, to the last bit. A change here means that old verdicts cannot be
/// re-executed: think twice before regenerating with AVOUCH_REGENERATE=1.
#[test]
fn scores_are_the_committed_bits() {
    let p = 3;
    let mut text = String::new();
    for baseline in [BaselineKind::Fleet, BaselineKind::Device] {
        for algorithm in kinds(baseline) {
            let model = trained(p, algorithm.clone(), SplitBy::Time);
            let online = model.scorer.memory("pump-01").is_some();
            let name = format!("{} {baseline:?}{}", algorithm.kind(), if online { " online" } else { "" });
            for device in ["pump-01", "stranger"] {
                let mut memory = model.scorer.memory(device);
                for (i, row) in fleet(1, 120, p, 31).iter().enumerate() {
                    let (mut e, mut c) = (vec![0.0; p], vec![0.0; p]);
                    let s = match &mut memory {
                        Some(memory) => memory.score(row.1, &row.2, &mut e, &mut c),
                        None => model.scorer.score(device, &row.2, &mut e, &mut c),
                    };
                    if i % 20 == 19 {
                        let c: Vec<String> = c.iter().map(|v| format!("{:016x}", v.to_bits())).collect();
                        text += &format!(
                            "{name} {device} {i}: score {:016x} p {:016x} contributions {}\n",
                            s.value.to_bits(),
                            s.p_value.to_bits(),
                            c.join(" ")
                        );
                    }
                }
            }
        }
    }
    golden("trees-scores.txt", &text);
}

fn golden(name: &str, text: &str) {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    if std::env::var_os("AVOUCH_REGENERATE").is_some() {
        std::fs::write(&path, text).unwrap();
    }
    let golden = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(golden, text, "{} differs; AVOUCH_REGENERATE=1 rewrites it", path.display());
}
