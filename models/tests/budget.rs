//! A budget of false alarms is kept: of healthy windows that training never saw, no more are called than it allows.
#![allow(clippy::unwrap_used)]

mod common;

use avouch_models::{SplitBy, TrainingFrame, train};
use common::{batch, config, fleet, names, per_device};

const DEVICES: usize = 20;
const TRAINED: usize = 2_000;
const FRESH: usize = 4_000;
const FLEETS: u64 = 4;
const P: usize = 4;

/// Windows called at each p-value, and windows judged.
fn called(p_values: &[f64]) -> (Vec<u64>, u64, u64) {
    let (mut out, mut judged, mut held_back) = (vec![0u64; p_values.len()], 0, 0);
    for seed in 0..FLEETS {
        // Each device's first rows train; the rest is as healthy.
        let rows = fleet(DEVICES, TRAINED + FRESH, P, 100 + seed);
        let (early, late): (Vec<_>, Vec<_>) = rows.chunks(TRAINED + FRESH).map(|d| d.split_at(TRAINED)).unzip();
        let frame = TrainingFrame::from_batches(&names(P), [&batch(&early.concat(), P)]).unwrap();
        let model = train(&frame, &config(per_device(0.9), SplitBy::Time)).unwrap();
        held_back += model.card.training.rows_held_back;
        let (mut expected, mut contributions) = ([0.0; P], [0.0; P]);
        for (device, _, x) in late.concat() {
            let p = model.scorer.score(&device, &x, &mut expected, &mut contributions).p_value;
            judged += 1;
            for (n, limit) in out.iter_mut().zip(p_values) {
                *n += u64::from(p <= *limit);
            }
        }
    }
    (out, judged, held_back)
}

#[test]
fn healthy_windows_are_called_as_often_as_the_budget_says_and_no_more() {
    // The last is beyond what the held-back rows themselves can show: the tail's.
    let p_values = [0.01, 0.001, 0.000_02];
    let (called, judged, held_back) = called(&p_values);
    assert!(1.0 / (held_back as f64 / FLEETS as f64) > p_values[2]);
    for (n, p) in called.into_iter().zip(p_values) {
        let mean = judged as f64 * p;
        // Binomial, and what the calibration itself is off by, since it rests on so many rows.
        let sigma = (mean * (1.0 + judged as f64 / held_back as f64)).sqrt();
        assert!(n as f64 <= mean + 4.0 * sigma, "at p = {p}: {n} of {judged} called, {mean:.0} allowed");
        if p >= 0.001 {
            assert!(n as f64 >= mean - 4.0 * sigma, "at p = {p}: {n} of {judged} called, {mean:.0} expected");
        }
    }
}
