//! Estimating the fleet: how much devices differ, how much windows do, and how alike neighbouring windows are.

use super::super::chart::{Chart, shrunk_covariance};
use super::super::fit::Devices;
use super::super::params::{Retain, Shrinkage};
use super::{Adaptive, Level, MAX_SETTLE, Rung};
use crate::ModelError;

/// Devices it takes to see how much devices differ.
const MIN_DEVICES: usize = 3;

/// Devices are taken to differ by at least this share of the windows' variance: few devices that happen to agree are no
/// proof that the next one will.
const MIN_BETWEEN: f64 = 0.01;

/// A level is settled, and a device grown, when the level's variance is this share of the windows'.
const SETTLED: f64 = 0.01;
const GROWN: f64 = 0.1;

/// Nobody is grown before so many windows, or settled before so many.
const MIN_YOUNG: u32 = 10;
const MIN_SETTLE: u32 = 100;

/// The rows it is fitted on, a device's together and in the order of time.
pub(super) struct Rows<'a> {
    pub flat: &'a [f64],
    pub device: &'a [usize],
    pub p: usize,
}

/// What was estimated, with what the card tells of it.
pub(super) struct Fitted {
    pub model: Adaptive,
    /// The level of each device that had rows enough.
    pub levels: Vec<Option<Level>>,
    /// The mean of the other devices' means, for a device that is to be treated as new.
    pub without: Vec<Option<Vec<f64>>>,
    /// τ² / σ² of each feature.
    pub between: Vec<f64>,
    /// c of each feature.
    pub sluggishness: Vec<f64>,
}

pub(super) fn fit(
    rows: &Rows<'_>,
    devices: &Devices,
    shrinkage: Shrinkage,
    retain: Retain,
) -> Result<Fitted, ModelError> {
    let p = rows.p;
    let known: Vec<usize> = (0..devices.baselines.len()).filter(|d| devices.baseline(*d).is_some()).collect();
    if known.len() < MIN_DEVICES {
        return Err(ModelError::Rows(format!(
            "{} devices have the rows a level takes, and it takes {MIN_DEVICES} to see how devices differ; give more data, \
             or set `baseline = \"fleet\"`",
            known.len()
        )));
    }
    let mean_of = |d: usize| devices.baseline(d).map_or(&[][..], |b| b.mean());
    let within: Vec<f64> = devices.baseline(known[0]).map_or(Vec::new(), |b| b.scale().to_vec());
    let mut count = vec![0u32; devices.baselines.len()];
    for d in rows.device {
        count[*d] = count[*d].saturating_add(1);
    }

    let n = known.len() as f64;
    let column_sum = |j: usize| known.iter().map(|d| mean_of(*d)[j]).sum::<f64>();
    let mean: Vec<f64> = (0..p).map(|j| column_sum(j) / n).collect();
    let sluggishness = sluggishness(rows, devices, &within);
    let inverse_rows = known.iter().map(|d| 1.0 / f64::from(count[*d])).sum::<f64>() / n;
    // Variance of the devices' means, less what their own windows' scatter makes of it; a new device also differs from
    // a mean of only n devices.
    let spread: Vec<f64> = (0..p)
        .map(|j| {
            let squares: f64 = known.iter().map(|d| (mean_of(*d)[j] - mean[j]) * (mean_of(*d)[j] - mean[j])).sum();
            squares / (n - 1.0) / (within[j] * within[j])
        })
        .collect();
    let between: Vec<f64> = spread
        .iter()
        .zip(&sluggishness)
        .map(|(s, c)| (s - c * inverse_rows).max(MIN_BETWEEN) * (1.0 + 1.0 / n))
        .collect();
    let prior: Vec<f64> = sluggishness.iter().zip(&between).map(|(c, b)| c / b).collect();

    let after = |share: f64| {
        let windows = sluggishness.iter().zip(&prior).map(|(c, k)| c / share - k).fold(0.0, f64::max);
        windows.ceil().min(f64::from(MAX_SETTLE)) as u32
    };
    let settle = after(SETTLED).max(MIN_SETTLE);
    let young = after(GROWN).clamp(MIN_YOUNG, settle);

    let mut z = Vec::with_capacity(rows.flat.len());
    let mut row_z = vec![0.0; p];
    for (x, d) in rows.flat.chunks_exact(p).zip(rows.device) {
        if let Some(b) = devices.baseline(*d) {
            b.standardise(x, &mut row_z);
            z.extend_from_slice(&row_z);
        }
    }
    let (w, intensity) = shrunk_covariance(&z, p, shrinkage);
    let alike = correlation_between(&known, &mean, &spread, &within, &mean_of);
    let rungs = ages(settle)
        .into_iter()
        .map(|from| {
            let n = f64::from(from);
            let s: Vec<f64> = (0..p * p)
                .map(|at| {
                    let (i, j) = (at / p, at % p);
                    let b = alike[at] * (between[i] * between[j]).sqrt();
                    let c = (sluggishness[i] * sluggishness[j]).sqrt();
                    w[at] + (prior[i] * prior[j] * b + n * c * w[at]) / ((prior[i] + n) * (prior[j] + n))
                })
                .collect();
            let root: Vec<f64> = (0..p).map(|i| s[i * p + i].sqrt()).collect();
            let correlation: Vec<f64> = (0..p * p).map(|at| s[at] / (root[at / p] * root[at % p])).collect();
            let scale = root.iter().zip(&within).map(|(r, w)| r * w).collect();
            Rung { from, scale, chart: Chart::of_covariance(&correlation, p, intensity, retain) }
        })
        .collect();

    let levels = (0..devices.baselines.len())
        .map(|d| {
            devices.baseline(d).map(|own| {
                let seen = count[d].min(settle);
                let n = f64::from(seen);
                let mean = (0..p).map(|j| (prior[j] * mean[j] + n * own.mean()[j]) / (prior[j] + n)).collect();
                Level { seen, mean }
            })
        })
        .collect();
    let without = (0..devices.baselines.len())
        .map(|d| devices.baseline(d).map(|own| (0..p).map(|j| (column_sum(j) - own.mean()[j]) / (n - 1.0)).collect()))
        .collect();
    let model = Adaptive { mean, prior, young, settle, rungs };
    Ok(Fitted { model, levels, without, between, sluggishness })
}

/// 0, 1, 2, 4, … up to where the level stands still.
fn ages(settle: u32) -> Vec<u32> {
    let mut out = vec![0];
    let mut age = 1;
    while age < settle {
        out.push(age);
        age *= 2;
    }
    out.push(settle);
    out
}

/// By how much the variance of a mean of many windows exceeds that of as many independent ones, at least 1: by the means of
/// batches of √n windows in a row (Conway 1963).
fn sluggishness(rows: &Rows<'_>, devices: &Devices, within: &[f64]) -> Vec<f64> {
    let p = rows.p;
    let (mut squares, mut freedom) = (vec![0.0; p], 0.0);
    let mut from = 0;
    while from < rows.device.len() {
        let d = rows.device[from];
        let to = from + rows.device[from..].iter().take_while(|o| **o == d).count();
        if let Some(baseline) = devices.baseline(d) {
            let n = to - from;
            let length = ((n as f64).sqrt() as usize).max(1);
            for batch in rows.flat[from * p..to * p].chunks_exact(length * p) {
                for (j, s) in squares.iter_mut().enumerate() {
                    let mean = batch.iter().skip(j).step_by(p).sum::<f64>() / length as f64;
                    let off = (mean - baseline.mean()[j]) / within[j];
                    *s += length as f64 * off * off;
                }
            }
            freedom += ((n / length).max(1) - 1) as f64;
        }
        from = to;
    }
    squares.iter().map(|s| if freedom > 0.0 { (s / freedom).max(1.0) } else { 1.0 }).collect()
}

/// How the devices' levels of different features go together: their correlation, shrunk, for there are few devices.
fn correlation_between<'a>(
    known: &[usize],
    mean: &[f64],
    spread: &[f64],
    within: &[f64],
    mean_of: &dyn Fn(usize) -> &'a [f64],
) -> Vec<f64> {
    let p = mean.len();
    let mut z = Vec::with_capacity(known.len() * p);
    for d in known {
        for j in 0..p {
            let deviation = spread[j].sqrt() * within[j];
            z.push(if deviation > 0.0 { (mean_of(*d)[j] - mean[j]) / deviation } else { 0.0 });
        }
    }
    let (cov, _) = shrunk_covariance(&z, p, Shrinkage::Auto);
    (0..p * p)
        .map(|at| {
            let (i, j) = (at / p, at % p);
            let root = (cov[i * p + i] * cov[j * p + j]).sqrt();
            match (i == j, root > 0.0) {
                (true, _) => 1.0,
                (false, true) => cov[at] / root,
                (false, false) => 0.0,
            }
        })
        .collect()
}
