//! What must hold of every T²/Q model: same bytes, same bits, contributions that add up, damage refused.
#![allow(clippy::unwrap_used, clippy::needless_range_loop)]

mod common;

use avouch_models::t2q::{BaselineKind, ScaleKind, Shrinkage, T2qConfig};
use avouch_models::{ModelError, SplitBy, TrainedModel, TrainingFrame, file, load, model_hash, train};
use common::{batch, batches, config, fleet, names, per_device};
use proptest::prelude::*;

fn trained(p: usize, algorithm: T2qConfig, by: SplitBy) -> TrainedModel {
    let rows = fleet(6, 80, p, 3);
    let frame = TrainingFrame::from_batches(&names(p), &batches(&rows, p, &[64])).unwrap();
    train(&frame, &config(algorithm, by)).unwrap()
}

fn algorithms() -> impl Strategy<Value = (T2qConfig, SplitBy)> {
    let retain = prop_oneof![
        (0.3f64..1.0).prop_map(|v| (Some(v), None)),
        (1usize..3).prop_map(|k| (None, Some(k))),
        Just((None, None)),
    ];
    let shrinkage = prop_oneof![Just(Shrinkage::Auto), (0.0f64..=1.0).prop_map(Shrinkage::Fixed)];
    let baseline = prop_oneof![
        Just((BaselineKind::Fleet, ScaleKind::Fleet, SplitBy::Time)),
        Just((BaselineKind::Fleet, ScaleKind::Fleet, SplitBy::Device)),
        Just((BaselineKind::Device, ScaleKind::Fleet, SplitBy::Time)),
        Just((BaselineKind::Device, ScaleKind::Device, SplitBy::Time)),
    ];
    (retain, shrinkage, baseline, any::<u64>()).prop_map(
        |((variance, components), shrinkage, (baseline, scale, by), seed)| {
            (T2qConfig { variance, components, shrinkage, baseline, scale, seed }, by)
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_same_rows_give_the_same_bytes_however_they_come(
        (algorithm, by) in algorithms(),
        p in 2usize..6,
        sizes in prop::collection::vec(1usize..200, 1..8),
        seed in 0u64..1000,
        rotate in 0usize..200,
    ) {
        let rows = fleet(4, 50, p, seed);
        let cfg = config(algorithm, by);
        let one = train(&TrainingFrame::from_batches(&names(p), [&batch(&rows, p)]).unwrap(), &cfg).unwrap();
        let again = train(&TrainingFrame::from_batches(&names(p), [&batch(&rows, p)]).unwrap(), &cfg).unwrap();
        prop_assert_eq!(&one.bytes, &again.bytes);
        let mut shuffled = rows;
        shuffled.rotate_left(rotate);
        let cut = batches(&shuffled, p, &sizes);
        let other = train(&TrainingFrame::from_batches(&names(p), &cut).unwrap(), &cfg).unwrap();
        prop_assert_eq!(&one.bytes, &other.bytes);
        prop_assert_eq!(one.hash, model_hash(&one.bytes));
        prop_assert_eq!(one.hash, one.scorer.hash());
    }

    #[test]
    fn contributions_add_up_and_loading_changes_no_bit(
        (algorithm, by) in algorithms(),
        p in 2usize..6,
        x in prop::collection::vec(-1e6f64..1e6, 6),
        device in 0usize..8,
    ) {
        let model = trained(p, algorithm, by);
        let loaded = load(&model.bytes).unwrap();
        let device = format!("pump-{device:02}");
        let (mut e, mut c) = (vec![0.0; p], vec![0.0; p]);
        let (mut e2, mut c2) = (vec![1.0; p], vec![1.0; p]);
        let s = model.scorer.score(&device, &x[..p], &mut e, &mut c);
        let s2 = loaded.score(&device, &x[..p], &mut e2, &mut c2);
        prop_assert_eq!(s.value.to_bits(), s2.value.to_bits());
        prop_assert_eq!(s.p_value.to_bits(), s2.p_value.to_bits());
        prop_assert_eq!(&c, &c2);
        prop_assert_eq!(&e, &e2);
        let sum: f64 = c.iter().sum();
        prop_assert!((sum - s.value).abs() <= 1e-9 * s.value);
        prop_assert!(c.iter().all(|c| *c >= 0.0));
        prop_assert!(s.p_value >= loaded.smallest_p_value() && s.p_value <= 1.0);
    }

    #[test]
    fn a_truncated_or_altered_file_is_refused(cut in 0usize..100_000, bit in 0usize..800_000) {
        let model = trained(3, per_device(0.9), SplitBy::Time);
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
}

/// T² by the textbook: z' R⁻¹ z / limit, with R inverted by Gauss elimination rather than through eigenvectors.
#[test]
fn with_all_components_it_is_the_mahalanobis_distance() {
    let p = 4;
    let algorithm = T2qConfig { variance: Some(1.0), shrinkage: Shrinkage::Fixed(0.0), ..T2qConfig::default() };
    let rows = fleet(1, 400, p, 11);
    let frame = TrainingFrame::from_batches(&names(p), [&batch(&rows, p)]).unwrap();
    let model = train(&frame, &config(algorithm, SplitBy::Time)).unwrap();
    let fit = &rows[..320];
    let n = fit.len() as f64;
    let mean: Vec<f64> = (0..p).map(|j| fit.iter().map(|r| r.2[j]).sum::<f64>() / n).collect();
    let mut cov = vec![vec![0.0; p]; p];
    for r in fit {
        for i in 0..p {
            for j in 0..p {
                cov[i][j] += (r.2[i] - mean[i]) * (r.2[j] - mean[j]) / n;
            }
        }
    }
    // The chart standardises by the n − 1 deviation and averages the squares over n; the two cancel up to this.
    let x = [3.0, -2.0, 5.0, 1.0];
    let d: Vec<f64> = x.iter().zip(&mean).map(|(x, m)| x - m).collect();
    let mut a: Vec<Vec<f64>> = cov.iter().zip(&d).map(|(row, d)| row.iter().copied().chain([*d]).collect()).collect();
    for i in 0..p {
        let pivot = a[i].clone();
        for (k, row) in a.iter_mut().enumerate() {
            if k != i {
                let f = row[i] / pivot[i];
                for (v, w) in row.iter_mut().zip(&pivot) {
                    *v -= f * w;
                }
            }
        }
    }
    let t2: f64 = (0..p).map(|i| d[i] * a[i][p] / a[i][i]).sum();
    let limit = model.card.fitted.iter().find(|f| f.name.starts_with("T² limit")).unwrap().value[0];
    let (mut e, mut c) = ([0.0; 4], [0.0; 4]);
    let s = model.scorer.score("pump-00", &x, &mut e, &mut c);
    assert!((s.value * limit / t2 - 1.0).abs() < 1e-9, "{} against {}", s.value * limit, t2);
    assert!(e.iter().zip(&mean).all(|(e, m)| (e - m).abs() < 1e-9));
}

#[test]
fn a_known_device_is_judged_by_its_own_level_and_a_stranger_by_the_fleets() {
    let p = 3;
    let model = trained(p, per_device(0.95), SplitBy::Time);
    let rows = fleet(6, 80, p, 3);
    let (mut e, mut c) = (vec![0.0; p], vec![0.0; p]);
    let mut own = 0;
    for r in &rows {
        own += usize::from(model.scorer.score(&r.0, &r.2, &mut e, &mut c).p_value <= 0.02);
    }
    assert!(own <= rows.len() / 20, "{own} of {} healthy rows called", rows.len());
    // One device's healthy rows are strange for another, but not for a fleet that contains it.
    let of_one: Vec<_> = rows.iter().filter(|r| r.0 == "pump-00").collect();
    let called = |device: &str| {
        let (mut e, mut c) = (vec![0.0; p], vec![0.0; p]);
        of_one.iter().filter(|r| model.scorer.score(device, &r.2, &mut e, &mut c).p_value <= 0.02).count()
    };
    assert_eq!(called("pump-03"), of_one.len());
    assert!(called("never seen") <= of_one.len() / 10);
}

#[test]
fn the_shifted_feature_contributes_most() {
    let p = 4;
    let model = trained(p, T2qConfig { shrinkage: Shrinkage::Fixed(1.0), ..per_device(1.0) }, SplitBy::Time);
    let rows = fleet(6, 80, p, 3);
    for j in 0..p {
        let mut x = rows[5].2.clone();
        x[j] += 60.0;
        let (mut e, mut c) = (vec![0.0; p], vec![0.0; p]);
        let s = model.scorer.score(&rows[5].0, &x, &mut e, &mut c);
        assert!(c[j] > 0.9 * s.value, "{j}: {c:?}");
    }
}

#[test]
fn what_cannot_be_scored_is_not_a_number_and_what_is_huge_still_has_a_score() {
    let model = trained(3, per_device(0.9), SplitBy::Time);
    for bad in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        let (mut e, mut c) = ([0.0; 3], [0.0; 3]);
        let s = model.scorer.score("pump-00", &[1.0, bad, 1.0], &mut e, &mut c);
        assert!(s.value.is_nan() && s.p_value.is_nan());
        assert!(e.iter().chain(&c).all(|v| v.is_nan()));
    }
    for huge in [f64::MAX, f64::MIN] {
        let (mut e, mut c) = ([0.0; 3], [0.0; 3]);
        let s = model.scorer.score("pump-00", &[huge, -huge, huge], &mut e, &mut c);
        assert!(s.value.is_finite() && s.p_value == model.scorer.smallest_p_value());
    }
}

#[test]
fn the_p_value_is_what_it_says_on_rows_like_the_training_rows() {
    let p = 4;
    let rows = fleet(5, 2000, p, 21);
    let (train_rows, later): (Vec<_>, Vec<_>) = rows.into_iter().partition(|r| r.1 < 1_700_000_000_000 + 10_000_000);
    let frame = TrainingFrame::from_batches(&names(p), [&batch(&train_rows, p)]).unwrap();
    let model = train(&frame, &config(per_device(0.9), SplitBy::Time)).unwrap();
    let (mut e, mut c) = (vec![0.0; p], vec![0.0; p]);
    let called = |threshold: f64| {
        let (mut e, mut c) = (e.clone(), c.clone());
        let n = later.iter().filter(|r| model.scorer.score(&r.0, &r.2, &mut e, &mut c).p_value <= threshold).count();
        n as f64 / later.len() as f64
    };
    for (threshold, low, high) in [(0.1, 0.07, 0.13), (0.05, 0.03, 0.07), (0.01, 0.004, 0.018)] {
        let rate = called(threshold);
        assert!((low..high).contains(&rate), "p ≤ {threshold}: {rate}");
    }
    // A thousand held-back rows show nothing below 1/1001; the tail does.
    let far = model.scorer.score("pump-00", &[900.0; 4], &mut e, &mut c);
    assert!(far.p_value < 1e-4 && far.p_value > 0.0);
}

#[test]
fn the_card_is_inside_the_file() {
    let model = trained(3, per_device(0.9), SplitBy::Time);
    let opened = file::open(&model.bytes).unwrap();
    assert_eq!(opened.kind, "t2-q");
    assert_eq!(opened.card_json, model.card.to_json());
    assert_eq!(opened.card.features, names(3));
    let t = &opened.card.training;
    assert_eq!((t.rows, t.rows_fitted, t.rows_held_back, t.rows_dropped, t.devices), (480, 384, 96, 0, 6));
    let text = opened.card.to_markdown();
    for needle in ["# Model card: test / anomaly", "`feature_2`", "2026-01-01T00:00:00Z", "linfa 0.8", "held-back"] {
        assert!(text.contains(needle), "{needle} is not in\n{text}");
    }
}

#[test]
fn every_mistake_is_named() {
    let p = 2;
    let good = fleet(3, 40, p, 1);
    let frame = |rows: &[common::Row]| TrainingFrame::from_batches(&names(p), [&batch(rows, p)]);
    let say = |r: Result<TrainedModel, ModelError>| r.unwrap_err().to_string();
    let with = |algorithm: T2qConfig, by: SplitBy| say(train(&frame(&good).unwrap(), &config(algorithm, by)));
    let base = T2qConfig::default();

    let mut messages = vec![
        with(T2qConfig { variance: Some(1.5), ..base.clone() }, SplitBy::Time),
        with(T2qConfig { variance: Some(f64::NAN), ..base.clone() }, SplitBy::Time),
        with(T2qConfig { variance: Some(0.9), components: Some(1), ..base.clone() }, SplitBy::Time),
        with(T2qConfig { components: Some(5), ..base.clone() }, SplitBy::Time),
        with(T2qConfig { shrinkage: Shrinkage::Fixed(2.0), ..base.clone() }, SplitBy::Time),
        with(T2qConfig { scale: ScaleKind::Device, ..base.clone() }, SplitBy::Time),
        with(per_device(0.9), SplitBy::Device),
    ];
    let mut c = config(base.clone(), SplitBy::Time);
    c.split.hold_back = 1.0;
    messages.push(say(train(&frame(&good).unwrap(), &c)));
    let one_device = frame(&good[..40]).unwrap();
    messages.push(say(train(&one_device, &config(base.clone(), SplitBy::Device))));
    messages.push(say(train(&frame(&good[..3]).unwrap(), &config(base.clone(), SplitBy::Time))));
    messages.push(say(train(&frame(&fleet(9, 8, p, 1)).unwrap(), &config(per_device(0.9), SplitBy::Time))));
    let mut constant = good.clone();
    constant.iter_mut().for_each(|r| r.2[1] = 0.1);
    messages.push(say(train(&frame(&constant).unwrap(), &config(base.clone(), SplitBy::Time))));
    constant.iter_mut().for_each(|r| r.2[1] = f64::NAN);
    messages.push(frame(&constant).unwrap_err().to_string());
    let mut twice = good.clone();
    twice.push(good[4].clone());
    messages.push(frame(&twice).unwrap_err().to_string());
    messages.push(TrainingFrame::from_batches(&["speed".to_owned()], [&batch(&good, p)]).unwrap_err().to_string());
    messages.push(TrainingFrame::from_batches(&["device".to_owned()], [&batch(&good, p)]).unwrap_err().to_string());
    messages.push(load(b"PK\x03\x04 a zip").unwrap_err().to_string());
    messages.push(load(b"").unwrap_err().to_string());
    let model = trained(2, base, SplitBy::Time);
    let mut newer = model.bytes.clone();
    newer[7] = 9;
    messages.push(load(&newer).unwrap_err().to_string());
    messages.push(strip_digests(&load(&model.bytes[..500]).unwrap_err().to_string()));

    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/messages.txt");
    common_golden(&path, &(messages.join("\n") + "\n"));
}

/// Hexadecimal digests depend on library versions in the card.
fn strip_digests(text: &str) -> String {
    text.split(' ')
        .map(|w| if w.len() >= 64 && w[..64].bytes().all(|b| b.is_ascii_hexdigit()) { "<sha-256>" } else { w })
        .collect::<Vec<_>>()
        .join(" ")
}

/// Scores of fixed rows under fixed models, to the last bit. A change here means that old verdicts cannot be
/// re-executed: think twice before regenerating with AVOUCH_REGENERATE=1.
#[test]
fn scores_are_the_committed_bits() {
    let mut text = String::new();
    let p = 4;
    for (name, algorithm, by) in [
        ("fleet", T2qConfig::default(), SplitBy::Device),
        ("fleet-full-rank", T2qConfig { variance: Some(1.0), ..T2qConfig::default() }, SplitBy::Time),
        ("device", per_device(0.8), SplitBy::Time),
        ("device-own-scale", T2qConfig { scale: ScaleKind::Device, ..per_device(0.95) }, SplitBy::Time),
    ] {
        let model = trained(p, algorithm, by);
        for device in ["pump-00", "pump-05", "stranger"] {
            for x in [[0.0; 4], [1.0, 2.0, -3.0, 4.0], [1e3, -1e-3, 0.125, 7.0]] {
                let (mut e, mut c) = ([0.0; 4], [0.0; 4]);
                let s = model.scorer.score(device, &x, &mut e, &mut c);
                let bits: Vec<String> = c.iter().map(|v| format!("{:016x}", v.to_bits())).collect();
                text += &format!(
                    "{name} {device} {x:?}: score {:016x} p {:016x} contributions {}\n",
                    s.value.to_bits(),
                    s.p_value.to_bits(),
                    bits.join(" ")
                );
            }
        }
    }
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/t2q-scores.txt");
    common_golden(&path, &text);
}

fn common_golden(path: &std::path::Path, text: &str) {
    if std::env::var_os("AVOUCH_REGENERATE").is_some() {
        std::fs::write(path, text).unwrap();
    }
    let golden = std::fs::read_to_string(path).unwrap_or_default();
    assert_eq!(golden, text, "{} differs; AVOUCH_REGENERATE=1 rewrites it", path.display());
}
