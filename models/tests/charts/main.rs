//! What must hold of the kinds for several features: same bytes, same bits, contributions that add up, memories that can be
//! put away in mid-stream, damage refused, false alarms as promised; and that they agree with linfa's where it has the same.
#![allow(clippy::unwrap_used, clippy::needless_range_loop)]

mod beside_linfa;
#[path = "../common/mod.rs"]
mod common;

use avouch_engine::codec::{Reader, Writer};
use avouch_engine::model::{Memory, Score, Scorer};
use avouch_models::{
    AlgorithmConfig, ModelError, Provenance, SplitBy, SplitConfig, TrainConfig, TrainedModel, TrainingFrame, load,
    train,
};
use common::{Noise, Row, batch, batches, fleet, names};
use proptest::prelude::*;
use sha2::{Digest, Sha256};

/// One of each kind, with options that use what it has.
const KINDS: [&str; 6] = [
    r#"{"kind":"mewma","smoothing":0.2}"#,
    r#"{"kind":"mewma","smoothing":0.1,"scales":3,"shrinkage":0.0}"#,
    r#"{"kind":"gaussian-mixture","components":4,"seed":7}"#,
    r#"{"kind":"gaussian-mixture","components":1}"#,
    r#"{"kind":"k-means","clusters":4,"seed":7}"#,
    r#"{"kind":"one-class-svm","nu":0.1}"#,
];

fn config(algorithm: &str, by: SplitBy) -> TrainConfig {
    let algorithm: AlgorithmConfig = serde_json::from_str(algorithm).unwrap();
    TrainConfig {
        algorithm,
        split: SplitConfig { by, hold_back: 0.25, seed: 7 },
        provenance: Provenance { pipeline: "test".to_owned(), step: "anomaly".to_owned(), ..Provenance::default() },
    }
}

fn trained_on(rows: &[Row], p: usize, algorithm: &str, by: SplitBy) -> Result<TrainedModel, ModelError> {
    train(&TrainingFrame::from_batches(&names(p), [&batch(rows, p)])?, &config(algorithm, by))
}

fn trained(p: usize, algorithm: &str) -> TrainedModel {
    trained_on(&fleet(6, 60, p, 3), p, algorithm, SplitBy::Time).unwrap()
}

/// A judge of one device's vectors in order: by its memory, if the model has one.
enum Judge<'a> {
    Offline(&'a dyn Scorer),
    Online(Box<dyn Memory>),
}

impl<'a> Judge<'a> {
    fn of(model: &'a dyn Scorer) -> Self {
        model.memory("pump-00").map_or(Self::Offline(model), Self::Online)
    }

    fn score(&mut self, x: &[f64]) -> (Score, Vec<f64>, Vec<f64>) {
        let (mut e, mut c) = (vec![1.0; x.len()], vec![2.0; x.len()]);
        let s = match self {
            Self::Offline(model) => model.score("pump-00", x, &mut e, &mut c),
            Self::Online(memory) => memory.score(0, x, &mut e, &mut c),
        };
        (s, e, c)
    }
}

fn bits(v: &[f64]) -> Vec<u64> {
    v.iter().map(|v| v.to_bits()).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_same_rows_give_the_same_bytes_however_they_come(
        kind in prop::sample::select(KINDS.to_vec()),
        by_device in any::<bool>(),
        p in 2usize..5,
        sizes in prop::collection::vec(1usize..200, 1..8),
        seed in 0u64..1000,
        rotate in 0usize..160,
    ) {
        let rows = fleet(4, 40, p, seed);
        let cfg = config(kind, if by_device { SplitBy::Device } else { SplitBy::Time });
        let one = train(&TrainingFrame::from_batches(&names(p), [&batch(&rows, p)]).unwrap(), &cfg).unwrap();
        let mut shuffled = rows;
        shuffled.rotate_left(rotate);
        let cut = batches(&shuffled, p, &sizes);
        let other = train(&TrainingFrame::from_batches(&names(p), &cut).unwrap(), &cfg).unwrap();
        prop_assert_eq!(&one.bytes, &other.bytes);
        prop_assert_eq!(one.hash, other.scorer.hash());
    }

    #[test]
    fn contributions_add_up_and_loading_changes_no_bit(
        kind in prop::sample::select(KINDS.to_vec()),
        p in 2usize..5,
        xs in prop::collection::vec(prop::collection::vec(-1e4f64..1e4, 5), 1..12),
    ) {
        let model = trained(p, kind);
        let loaded = load(&model.bytes).unwrap();
        let (mut one, mut two) = (Judge::of(&*model.scorer), Judge::of(&*loaded));
        for x in &xs {
            let (s, e, c) = one.score(&x[..p]);
            let (s2, e2, c2) = two.score(&x[..p]);
            prop_assert_eq!(s.value.to_bits(), s2.value.to_bits());
            prop_assert_eq!(s.p_value.to_bits(), s2.p_value.to_bits());
            prop_assert_eq!((bits(&e), bits(&c)), (bits(&e2), bits(&c2)));
            let (sum, size) = c.iter().fold((0.0, 1.0), |(sum, size): (f64, f64), c| (sum + c, size + c.abs()));
            prop_assert!((sum - s.value).abs() <= 1e-9 * size, "{} against {}", sum, s.value);
            prop_assert!(s.value.is_finite() && e.iter().all(|e| e.is_finite()));
            prop_assert!(s.p_value >= loaded.smallest_p_value() && s.p_value <= 1.0);
            if !kind.contains("svm") {
                prop_assert!(c.iter().all(|c| *c >= 0.0));
            }
        }
    }

    /// A memory put away and taken out again anywhere goes on as if nothing had been, and writes the same bytes.
    #[test]
    fn a_memory_survives_being_written_in_mid_stream(
        kind in prop::sample::select(KINDS[..2].to_vec()),
        cuts in prop::collection::vec(any::<bool>(), 40),
        seed in 0u64..1000,
    ) {
        let p = 3;
        let model = trained(p, kind).scorer;
        let (mut whole, mut cut) = (model.memory("a").unwrap(), model.memory("a").unwrap());
        for (row, put_away) in fleet(1, 40, p, seed).iter().zip(cuts) {
            let mut x = row.2.clone();
            // Some vectors cannot be scored, and some are absurd.
            x[0] = match row.1 / 10_000 % 7 { 3 => f64::NAN, 5 => 1e300, _ => x[0] };
            let (mut e, mut c, mut e2, mut c2) = (vec![0.0; p], vec![0.0; p], vec![0.0; p], vec![0.0; p]);
            // A copy judges without the original's learning.
            let ahead = whole.copy().score(0, &x, &mut e2, &mut c2);
            let a = whole.score(0, &x, &mut e, &mut c);
            prop_assert_eq!(ahead.value.to_bits(), a.value.to_bits());
            let b = cut.score(0, &x, &mut e2, &mut c2);
            prop_assert_eq!((a.value.to_bits(), bits(&c)), (b.value.to_bits(), bits(&c2)));
            let (mut w, mut w2) = (Writer::new(), Writer::new());
            whole.write(&mut w);
            cut.write(&mut w2);
            prop_assert_eq!(&w.bytes, &w2.bytes);
            if put_away {
                let mut r = Reader::new("memory", &w.bytes);
                cut = model.read_memory("a", &mut r).unwrap();
                r.finish().unwrap();
            }
        }
    }

    #[test]
    fn bytes_that_are_no_memory_are_refused(at in 0usize..9, value in any::<f64>(), cut in 0usize..72) {
        let model = trained(2, KINDS[1]).scorer;
        let mut w = Writer::new();
        model.memory("a").unwrap().write(&mut w);
        // Three charts: what is left of three pasts, and three times two smoothed values.
        prop_assert_eq!(w.bytes.len(), 72);
        prop_assert!(model.read_memory("a", &mut Reader::new("memory", &w.bytes[..cut])).is_err());
        w.bytes[8 * at..8 * at + 8].copy_from_slice(&value.to_bits().to_le_bytes());
        let possible = value.is_finite() && if at < 3 { (0.0..=1.0).contains(&value) && value.is_sign_positive() } else { value.abs() <= 100.0 };
        prop_assert_eq!(model.read_memory("a", &mut Reader::new("memory", &w.bytes)).is_ok(), possible);
    }

    #[test]
    fn a_truncated_or_altered_file_is_refused(
        kind in prop::sample::select(KINDS.to_vec()), cut in 0usize..100_000, bit in 0usize..800_000,
    ) {
        let model = trained(3, kind);
        prop_assert!(load(&model.bytes[..cut % model.bytes.len()]).is_err());
        let mut altered = model.bytes.clone();
        let bit = bit % (8 * altered.len());
        altered[bit / 8] ^= 1 << (bit % 8);
        prop_assert!(load(&altered).is_err());
    }

    /// With a trailer that is right, so that the body itself must be looked at: refused, or a model that does not panic.
    #[test]
    fn a_forged_body_is_refused_or_harmless(
        kind in prop::sample::select(KINDS.to_vec()),
        changes in prop::collection::vec((any::<usize>(), any::<u8>()), 1..4),
        words in prop::collection::vec((any::<usize>(), prop::sample::select(vec![0u32, 1, 0x7fff_ffff, u32::MAX])), 0..2),
        shorten in 0usize..40,
    ) {
        let model = trained(2, kind);
        let mut bytes = model.bytes[..model.bytes.len() - 32 - shorten].to_vec();
        // The body comes last; what comes before it has its own tests.
        let from = bytes.len() - 1500.min(bytes.len() / 2);
        let room = bytes.len() - from - 4;
        for (at, byte) in changes {
            bytes[from + at % room] = byte;
        }
        for (at, word) in words {
            let at = from + at % room;
            bytes[at..at + 4].copy_from_slice(&word.to_le_bytes());
        }
        let digest = Sha256::digest(&bytes);
        bytes.extend_from_slice(&digest);
        if let Ok(model) = load(&bytes) {
            let mut judge = Judge::of(&*model);
            for x in [0.0, 1e308, -3.5, f64::NAN] {
                judge.score(&[x, -x]);
            }
        }
    }
}

#[test]
fn what_cannot_be_scored_is_not_a_number_and_what_is_huge_still_has_a_score() {
    for kind in KINDS {
        let model = trained(3, kind).scorer;
        let mut judge = Judge::of(&*model);
        for bad in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            let (s, e, c) = judge.score(&[1.0, bad, 1.0]);
            assert!(s.value.is_nan() && s.p_value.is_nan(), "{kind}");
            assert!(e.iter().chain(&c).all(|v| v.is_nan()), "{kind}");
        }
        for huge in [f64::MAX, f64::MIN] {
            let (s, e, c) = judge.score(&[huge, -huge, huge]);
            assert!(s.value.is_finite() && e.iter().chain(&c).all(|v| v.is_finite()), "{kind}: {s:?}");
            assert_eq!(s.p_value, model.smallest_p_value(), "{kind}");
        }
        assert!(model.score("a", &[1.0], &mut [0.0], &mut [0.0]).value.is_nan(), "{kind}: too short");
    }
}

#[test]
fn an_online_model_without_memory_judges_a_device_as_new() {
    let model = trained(3, KINDS[1]).scorer;
    let x = [3.0, -2.0, 4.0];
    let (mut e, mut c) = ([0.0; 3], [0.0; 3]);
    let stateless = model.score("a", &x, &mut e, &mut c);
    let first = model.memory("a").unwrap().score(0, &x, &mut e, &mut c);
    assert_eq!(stateless.value.to_bits(), first.value.to_bits());
}

/// The chart by its formula, with the covariance of the smoothed rows inverted by Gauss elimination.
#[test]
fn the_chart_is_lowrys() {
    let (p, lambda) = (3, 0.3);
    let rows = fleet(1, 400, p, 11);
    let algorithm = r#"{"kind":"mewma","smoothing":0.3,"shrinkage":0.0}"#;
    let model = trained_on(&rows, p, algorithm, SplitBy::Time).unwrap();
    let fit: Vec<&Vec<f64>> = rows[..300].iter().map(|r| &r.2).collect();
    let n = fit.len() as f64;
    let mean: Vec<f64> = (0..p).map(|j| fit.iter().map(|x| x[j]).sum::<f64>() / n).collect();
    let smooth = |xs: &[&Vec<f64>]| {
        let (mut s, mut out) = (vec![0.0; p], Vec::new());
        for (i, x) in xs.iter().enumerate() {
            let unit = (lambda / (2.0 - lambda) * (1.0 - (1.0f64 - lambda).powi(2 * (i as i32 + 1)))).sqrt();
            for j in 0..p {
                s[j] = lambda * (x[j] - mean[j]) + (1.0 - lambda) * s[j];
            }
            out.push(s.iter().map(|s| s / unit).collect::<Vec<f64>>());
        }
        out
    };
    let smoothed = smooth(&fit);
    let mut cov = vec![vec![0.0; p]; p];
    for o in &smoothed {
        for i in 0..p {
            for j in 0..p {
                cov[i][j] += o[i] * o[j] / n;
            }
        }
    }
    let fact = |name: &str| model.card.fitted.iter().find(|f| f.name.starts_with(name)).unwrap().value[0];
    let divisor = fact("T² limit") * fact("limit on the rows held back");
    let all: Vec<&Vec<f64>> = rows.iter().map(|r| &r.2).collect();
    let mut memory = model.scorer.memory("pump-00").unwrap();
    let (mut e, mut c) = (vec![0.0; p], vec![0.0; p]);
    for (x, o) in all.iter().zip(smooth(&all)) {
        let mut a: Vec<Vec<f64>> =
            cov.iter().zip(&o).map(|(row, o)| row.iter().copied().chain([*o]).collect()).collect();
        for i in 0..p {
            let pivot = a[i].clone();
            for row in a.iter_mut().enumerate().filter(|(k, _)| *k != i).map(|(_, row)| row) {
                let f = row[i] / pivot[i];
                for (v, w) in row.iter_mut().zip(&pivot) {
                    *v -= f * w;
                }
            }
        }
        let t2: f64 = (0..p).map(|i| o[i] * a[i][p] / a[i][i]).sum();
        let s = memory.score(0, x, &mut e, &mut c);
        assert!((s.value * divisor - t2).abs() < 1e-7 * (1.0 + t2), "{} against {t2}", s.value * divisor);
    }
    assert!(e.iter().zip(&mean).all(|(e, m)| (e - m).abs() < 1e-9));
}

/// What it is for: a shift of a quarter of the spread, which single vectors hardly show.
#[test]
fn small_shifts_that_last_are_found_by_memory_alone() {
    let p = 4;
    let mut rows = fleet(1, 3000, p, 5);
    let healthy = rows.drain(..2000).collect::<Vec<_>>();
    let called = |algorithm: &str| {
        let model = trained_on(&healthy, p, algorithm, SplitBy::Time).unwrap();
        let mut judge = Judge::of(&*model.scorer);
        healthy.iter().for_each(|r| drop(judge.score(&r.2)));
        let shifted =
            |r: &Row| r.2.iter().enumerate().map(|(j, v)| v + if j == 0 { 0.15 } else { 0.0 }).collect::<Vec<_>>();
        rows.iter().filter(|r| judge.score(&shifted(r)).0.p_value <= 0.01).count()
    };
    let single = called(r#"{"kind":"t2-q","variance":1.0,"shrinkage":0.0}"#);
    let smoothed = called(r#"{"kind":"mewma","smoothing":0.05,"shrinkage":0.0}"#);
    let both = called(r#"{"kind":"mewma","smoothing":0.05,"scales":2,"shrinkage":0.0}"#);
    println!("of 1000: {single} by T², {smoothed} by MEWMA, {both} by both");
    assert!(smoothed > 900 && both > 800 && single < 300, "{single} {smoothed} {both}");
}

#[test]
fn an_absurd_reading_is_forgotten_after_a_few_windows() {
    let model = trained_on(&fleet(1, 400, 3, 3), 3, KINDS[0], SplitBy::Time).unwrap().scorer;
    let mut judge = Judge::of(&*model);
    assert_eq!(judge.score(&[1e300, 0.0, 0.0]).0.p_value, model.smallest_p_value());
    let rows = fleet(1, 60, 3, 3);
    let called: Vec<bool> = rows.iter().map(|r| judge.score(&r.2).0.p_value <= 0.01).collect();
    assert!(called[0] && !called[40..].iter().any(|c| *c), "{called:?}");
}

/// Two conditions, far apart and of different correlation, in turn.
fn conditions(n: usize, seed: u64) -> Vec<Row> {
    let mut noise = Noise(seed);
    (0..n)
        .map(|i| {
            let (a, b) = (noise.bell(), noise.bell());
            let x = if i / 10 % 2 == 0 {
                vec![a, a + 0.1 * b, 5.0 + b]
            } else {
                vec![20.0 + a, 30.0 - a + 0.1 * b, 5.0 + b]
            };
            ("pump-00".to_owned(), 10_000 * i as i64, x)
        })
        .collect()
}

#[test]
fn what_lies_between_two_conditions_is_strange_only_to_kinds_that_know_them() {
    let rows = conditions(800, 9);
    let p_value = |algorithm: &str, x: &[f64]| {
        let model = trained_on(&rows, 3, algorithm, SplitBy::Time).unwrap();
        Judge::of(&*model.scorer).score(x).0.p_value
    };
    let between = [10.0, 15.0, 5.0];
    assert!(p_value(r#"{"kind":"t2-q","variance":1.0,"shrinkage":0.0}"#, &between) > 0.5);
    for algorithm in [
        r#"{"kind":"gaussian-mixture","components":2,"seed":7}"#,
        r#"{"kind":"k-means","clusters":2,"seed":7}"#,
        r#"{"kind":"one-class-svm","nu":0.05,"eps":0.5}"#,
    ] {
        assert!(p_value(algorithm, &between) < 0.005, "{algorithm}");
        assert!(p_value(algorithm, &[0.0, 0.0, 5.0]) > 0.05, "{algorithm}");
    }
    // Only the mixture knows that in the second condition the features go against each other.
    let against = [20.4, 30.4, 5.0];
    assert!(p_value(r#"{"kind":"gaussian-mixture","components":2,"seed":7}"#, &against) < 0.005);
    assert!(p_value(r#"{"kind":"k-means","clusters":2,"seed":7}"#, &against) > 0.02);
}

#[test]
fn the_feature_that_is_off_contributes_most_and_what_was_expected_is_of_its_condition() {
    let rows = conditions(800, 9);
    for algorithm in [
        r#"{"kind":"gaussian-mixture","components":2,"seed":7}"#,
        r#"{"kind":"k-means","clusters":2,"seed":7}"#,
        r#"{"kind":"one-class-svm","nu":0.05,"eps":0.5}"#,
        r#"{"kind":"mewma","smoothing":1.0,"shrinkage":0.0}"#,
    ] {
        let model = trained_on(&rows, 3, algorithm, SplitBy::Time).unwrap();
        let (s, e, c) = Judge::of(&*model.scorer).score(&[20.0, 30.0, 11.0]);
        assert!(c[2] > 0.7 * s.value, "{algorithm}: {c:?} of {}", s.value);
        if !algorithm.contains("mewma") {
            assert!(
                (e[0] - 20.0).abs() < 1.5 && (e[1] - 30.0).abs() < 1.5 && (e[2] - 5.0).abs() < 2.0,
                "{algorithm}: {e:?}"
            );
        }
    }
}

/// The share of later healthy rows that is called is what the p-value says, within what chance allows.
#[test]
fn false_alarms_keep_their_promise() {
    let p = 3;
    let (fit, calibrate, later) = (2000, 2000, 4000);
    let rows = fleet(1, fit + calibrate + later, p, 17);
    for kind in KINDS {
        let mut cfg = config(kind, SplitBy::Time);
        cfg.split.hold_back = 0.5;
        let frame = TrainingFrame::from_batches(&names(p), [&batch(&rows[..fit + calibrate], p)]).unwrap();
        let model = train(&frame, &cfg).unwrap();
        let mut judge = Judge::of(&*model.scorer);
        rows[..fit + calibrate].iter().for_each(|r| drop(judge.score(&r.2)));
        let called = rows[fit + calibrate..].iter().filter(|r| judge.score(&r.2).0.p_value <= 0.01).count();
        let rate = called as f64 / later as f64;
        // Both the calibration rows and the later ones are a sample; smoothed rows are alike for about (2 − λ)/λ rows.
        let alike = match kind.contains("mewma") {
            true => {
                if kind.contains("0.2") {
                    9.0
                } else {
                    19.0
                }
            }
            false => 1.0,
        };
        let chance = (0.01 * 0.99 * alike * (1.0 / f64::from(calibrate as u32) + 1.0 / f64::from(later as u32))).sqrt();
        println!("{kind}: {rate:.4} called at 0.01, chance allows ± {:.4}", 3.0 * chance);
        assert!((rate - 0.01).abs() <= 3.0 * chance, "{kind}: {rate}");
    }
}

/// As `../shared/pipeline-example.toml` has it.
#[test]
fn a_mixture_can_be_calibrated_on_devices_it_never_saw() {
    let rows: Vec<Row> = (0..6)
        .flat_map(|d| conditions(200, 100 + d).into_iter().map(move |r| (format!("pump-{d:02}"), r.1, r.2)))
        .collect();
    let model =
        trained_on(&rows, 3, r#"{"kind":"gaussian-mixture","components":8,"seed":7}"#, SplitBy::Device).unwrap();
    assert!(model.card.training.rows_held_back.is_multiple_of(200) && model.card.training.rows_held_back > 0);
    assert_eq!(model.card.seed, 7);
    let weights = &model.card.fitted.iter().find(|f| f.name.starts_with("weights")).unwrap().value;
    assert!((weights.iter().sum::<f64>() - 1.0).abs() < 1e-12, "{weights:?}");
    assert!(model.card.to_markdown().contains("mean of component 0"));
}

#[test]
fn more_rows_than_the_machine_takes_are_drawn_with_the_seed() {
    let rows = fleet(2, 1500, 2, 8);
    let with = |seed: u64| {
        trained_on(&rows, 2, &format!(r#"{{"kind":"one-class-svm","nu":0.02,"seed":{seed}}}"#), SplitBy::Time).unwrap()
    };
    let (one, again, other) = (with(1), with(1), with(2));
    assert_eq!(one.bytes, again.bytes);
    assert_ne!(one.bytes, other.bytes);
    assert_eq!(one.card.fitted[0].value, [2000.0]);
}

#[test]
fn conditions_that_the_data_do_not_have_are_not_made_up() {
    // Twelve different rows, four times over.
    let rows: Vec<Row> = (0..48)
        .map(|i| ("a".to_owned(), i as i64, vec![f64::from((i % 12) as u32), f64::from((i % 4) as u32)]))
        .collect();
    let k_means = trained_on(&rows, 2, r#"{"kind":"k-means","clusters":40}"#, SplitBy::Time).unwrap();
    assert_eq!(k_means.card.fitted.iter().filter(|f| f.name.starts_with("centre")).count(), 12);
    let mixture = trained_on(&rows, 2, r#"{"kind":"gaussian-mixture","components":40}"#, SplitBy::Time).unwrap();
    assert!(mixture.card.fitted.iter().filter(|f| f.name.starts_with("mean of")).count() <= 12);
}

#[test]
fn every_mistake_is_named() {
    let p = 2;
    let good = fleet(3, 40, p, 1);
    let say = |algorithm: &str| match trained_on(&good, p, algorithm, SplitBy::Time) {
        Ok(_) => format!("accepted: {algorithm}"),
        Err(e) => e.to_string(),
    };
    let mut messages: Vec<String> = [
        r#"{"kind":"mewma","smoothing":0.0}"#,
        r#"{"kind":"mewma","smoothing":1.5}"#,
        r#"{"kind":"mewma","scales":0}"#,
        r#"{"kind":"mewma","scales":9}"#,
        r#"{"kind":"mewma","smoothing":1.0,"scales":2}"#,
        r#"{"kind":"mewma","shrinkage":2.0}"#,
        r#"{"kind":"gaussian-mixture","components":0}"#,
        r#"{"kind":"k-means","clusters":257}"#,
        r#"{"kind":"one-class-svm","nu":0.0}"#,
        r#"{"kind":"one-class-svm","eps":-1.0}"#,
    ]
    .into_iter()
    .map(say)
    .collect();
    let mut constant = good.clone();
    constant.iter_mut().for_each(|r| r.2[1] = 0.1);
    messages.push(trained_on(&constant, p, KINDS[2], SplitBy::Time).unwrap_err().to_string());
    messages.push(trained_on(&good[..2], p, KINDS[4], SplitBy::Time).unwrap_err().to_string());
    let unknown = serde_json::from_str::<AlgorithmConfig>(r#"{"kind":"k-means","clusters":2,"centres":3}"#);
    messages.push(unknown.unwrap_err().to_string());
    golden("charts-messages.txt", &(messages.join("\n") + "\n"));
}

/// Scores of fixed rows under fixed models, to the last bit. A change here means that old verdicts cannot be
/// re-executed: think twice before regenerating with AVOUCH_REGENERATE=1.
#[test]
fn scores_are_the_committed_bits() {
    let mut text = String::new();
    for kind in KINDS {
        let model = trained(4, kind).scorer;
        let mut judge = Judge::of(&*model);
        for x in [[0.0; 4], [1.0, 2.0, -3.0, 4.0], [1e3, -1e-3, 0.125, 7.0], [0.5, -0.5, 0.25, 0.0]] {
            let (s, e, c) = judge.score(&x);
            let hex = |v: &[f64]| v.iter().map(|v| format!("{:016x}", v.to_bits())).collect::<Vec<_>>().join(" ");
            text += &format!(
                "{kind} {x:?}: score {:016x} p {:016x} contributions {} expected {}\n",
                s.value.to_bits(),
                s.p_value.to_bits(),
                hex(&c),
                hex(&e)
            );
        }
    }
    golden("charts-scores.txt", &text);
}

fn golden(name: &str, text: &str) {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    if std::env::var_os("AVOUCH_REGENERATE").is_some() {
        std::fs::write(&path, text).unwrap();
    }
    let golden = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(golden, text, "{} differs; AVOUCH_REGENERATE=1 rewrites it", path.display());
}
