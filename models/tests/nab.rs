//! The scoring of the Numenta Anomaly Benchmark, held against figures published for other detectors.
#![allow(clippy::unwrap_used)]

use std::path::PathBuf;

use avouch_models::nab::{NabFile, Profile, Series, best_threshold, load, points, probation};

fn files() -> Option<Vec<NabFile>> {
    let root = std::env::var_os("AVOUCH_DATASETS")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared/datasets"), PathBuf::from);
    let dir = root.join("nab");
    if !dir.join("labels").is_dir() {
        assert!(std::env::var("CI").as_deref() != Ok("true"), "no data sets at {}", root.display());
        println!("SKIPPED: no data sets at {} (set AVOUCH_DATASETS)", root.display());
        return None;
    }
    Some(load(&dir).unwrap())
}

fn best(files: &[NabFile], scores: &[Vec<f64>], profile: &Profile) -> f64 {
    let series: Vec<Series<'_>> =
        files.iter().zip(scores).map(|(f, s)| Series { scores: s, windows: &f.windows }).collect();
    points(&series, best_threshold(&series, profile), profile).points
}

/// A file of 1,000 rows with windows at 400 ..= 499 and 800 ..= 819.
fn small(alarms: &[usize], profile: &Profile) -> f64 {
    let mut scores = vec![0.0; 1000];
    for &i in alarms {
        scores[i] = 1.0;
    }
    points(&[Series { scores: &scores, windows: &[(400, 499), (800, 819)] }], 1.0, profile).points
}

#[test]
fn perfect_is_100_and_never_alarming_is_0() {
    for profile in Profile::ALL {
        assert!((small(&[400, 800], &profile) - 100.0).abs() < 1e-12);
        assert_eq!(small(&[], &profile), 0.0);
    }
}

#[test]
fn without_a_window_there_are_no_points_but_false_alarms_count() {
    let scores = vec![1.0; 200];
    let a = points(&[Series { scores: &scores, windows: &[] }], 1.0, &Profile::STANDARD);
    assert_eq!((a.hits, a.misses, a.false_alarms), (0, 0, 170));
    assert!(a.points.is_nan() && (a.raw + 170.0 * 0.11).abs() < 1e-9);
}

#[test]
fn alarms_are_worth_what_the_benchmark_says() {
    let p = Profile::STANDARD;
    let share = |raw: f64| 100.0 * (raw + 2.0) / 4.0;
    let sigmoid = |x: f64| 2.0 / (1.0 + (5.0 * x).exp()) - 1.0;
    // In probation nothing, before any window the full cost, later alarms of a window nothing more.
    assert_eq!(probation(1000), 150);
    assert!((small(&[149], &p) - share(-2.0)).abs() < 1e-12);
    assert!((small(&[150], &p) - share(-2.11)).abs() < 1e-12);
    assert!((small(&[450, 460], &p) - share(-1.0 + sigmoid(-0.5) / sigmoid(-1.0))).abs() < 1e-12);
    // Right after a window an alarm costs little.
    assert!((small(&[509], &p) - share(-2.0 + 0.11 * sigmoid(10.0 / 99.0))).abs() < 1e-12);
    // Three widths after it, everything.
    assert!((small(&[499 + 297], &p) - share(-2.11)).abs() < 1e-12);
    // A miss costs twice as much where misses are to be punished: 100 · (1 − 2 + 4) / (2 + 4).
    assert!((small(&[400], &Profile::LOW_FN) - 50.0).abs() < 1e-12);
}

#[test]
fn the_best_threshold_beats_every_other() {
    let scores: Vec<f64> = (0..1000u64).map(|i| (i * 7_919 % 1000) as f64).collect();
    let series = [Series { scores: &scores, windows: &[(400, 499), (800, 819)] }];
    for profile in Profile::ALL {
        let best = points(&series, best_threshold(&series, &profile), &profile).points;
        for t in 0..=1000 {
            assert!(points(&series, f64::from(t), &profile).points <= best + 1e-9);
        }
    }
}

/// As the published outputs have it: with twelve digits. Where a score is 1 to so many digits decides the best threshold.
fn rounded(score: f64) -> f64 {
    (score * 1e12).round() / 1e12
}

/// The benchmark's windowed Gaussian: the tail probability under the mean and deviation of a window of 6,400 rows that
/// moves on in steps of 100 once it is full.
fn windowed_gaussian(values: &[f64]) -> Vec<f64> {
    const WINDOW: usize = 6400;
    const STEP: usize = 100;
    let (mut window, mut step): (Vec<f64>, Vec<f64>) = (Vec::new(), Vec::new());
    let (mut sum, mut squares) = (0.0, 0.0);
    let shift = values[0];
    let mut out = Vec::with_capacity(values.len());
    for &x in values {
        let n = window.len() as f64;
        let mean = sum / n;
        let deviation = (squares / n - mean * mean).max(0.0).sqrt();
        let deviation = if deviation == 0.0 { 1e-6 } else { deviation };
        let z = (x - shift - mean).abs() / deviation;
        out.push(if window.is_empty() { 0.0 } else { rounded(1.0 - 0.5 * libm::erfc(z / std::f64::consts::SQRT_2)) });
        if window.len() < WINDOW {
            window.push(x - shift);
        } else {
            step.push(x - shift);
            if step.len() < STEP {
                continue;
            }
            window.drain(..STEP);
            window.append(&mut step);
        }
        if window.len() < WINDOW {
            sum += x - shift;
            squares += (x - shift) * (x - shift);
        } else {
            sum = window.iter().sum();
            squares = window.iter().map(|v| v * v).sum();
        }
    }
    out
}

/// Relative entropy (Wang et al. 2011) as the benchmark runs it: the histogram over 5 bins of the last 52 values is held
/// against all histograms that were ever new; it is new if none is likely at 99 %. Bins span the file's own range.
fn relative_entropy(values: &[f64]) -> Vec<f64> {
    const BINS: usize = 5;
    const WINDOW: usize = 52;
    /// 99 % quantile of χ² with four degrees of freedom.
    const LIMIT: f64 = 13.276_704_135_987_622;
    let (low, high) = values.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), v| (l.min(*v), h.max(*v)));
    let step = (high - low) / BINS as f64;
    let mut known: Vec<([f64; BINS], u64)> = Vec::new();
    let mut out = vec![0.0; values.len()];
    if step == 0.0 {
        return out;
    }
    for end in WINDOW..=values.len() {
        let mut now = [0.0; BINS];
        for v in &values[end - WINDOW..end] {
            now[(((v - low) / step).ceil() as usize).min(BINS - 1)] += 1.0 / WINDOW as f64;
        }
        let mut closest: Option<(f64, usize)> = None;
        for (i, (p, _)) in known.iter().enumerate() {
            let entropy: f64 = now.iter().zip(p).map(|(a, b)| if *a > 0.0 { a * (a / b).ln() } else { 0.0 }).sum();
            let statistic = 2.0 * WINDOW as f64 * entropy;
            if statistic < LIMIT && closest.is_none_or(|c| statistic < c.0) {
                closest = Some((statistic, i));
            }
        }
        match closest {
            Some((_, i)) => known[i].1 += 1,
            None => {
                // The first is nothing to compare with.
                out[end - 1] = if known.is_empty() { 0.0 } else { 1.0 };
                known.push((now, 1));
            }
        }
    }
    out
}

/// Their published outputs give 35.2 and 54.5 on these 41 files.
#[test]
fn it_reproduces_two_detectors_from_their_published_formulae() {
    let Some(files) = files() else { return };
    if files.len() != 41 {
        println!("SKIPPED: figures are known for 41 files, here are {}", files.len());
        return;
    }
    let windows: usize = files.iter().map(|f| f.windows.len()).sum();
    assert_eq!((files.iter().map(|f| f.values.len()).sum::<usize>(), windows), (272_400, 79));
    let gaussian: Vec<Vec<f64>> = files.iter().map(|f| windowed_gaussian(&f.values)).collect();
    let entropy: Vec<Vec<f64>> = files.iter().map(|f| relative_entropy(&f.values)).collect();
    let (g, e) = (best(&files, &gaussian, &Profile::STANDARD), best(&files, &entropy, &Profile::STANDARD));
    println!("windowed Gaussian {g:.2}, relative entropy {e:.2}");
    assert!((g - 35.2).abs() < 0.3, "windowed Gaussian: {g}");
    assert!((e - 54.5).abs() < 0.3, "relative entropy: {e}");
}
