//! Training rows for the tests: a small fleet with correlated features, the same on every machine.
#![allow(dead_code, clippy::unwrap_used, clippy::needless_range_loop)]

use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray};
use avouch_models::t2q::{BaselineKind, ScaleKind, Shrinkage, T2qConfig};
use avouch_models::{AlgorithmConfig, Provenance, SplitBy, SplitConfig, TrainConfig};

/// A row: device, window end, features.
pub type Row = (String, i64, Vec<f64>);

/// Uniform numbers in [-0.5, 0.5) from a fixed generator.
pub struct Noise(pub u64);

impl Noise {
    pub fn next(&mut self) -> f64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 11) as f64 / (1u64 << 53) as f64 - 0.5
    }

    /// Roughly normal, with variance 1/3.
    pub fn bell(&mut self) -> f64 {
        (0..4).map(|_| self.next()).sum()
    }
}

/// `devices` × `per_device` rows of `p` features: two latent causes, plus noise, around each device's own level.
pub fn fleet(devices: usize, per_device: usize, p: usize, seed: u64) -> Vec<Row> {
    let mut noise = Noise(seed.wrapping_mul(2).wrapping_add(1));
    let mut rows = Vec::new();
    for d in 0..devices {
        let level: Vec<f64> = (0..p).map(|_| 10.0 * noise.next()).collect();
        for i in 0..per_device {
            let (a, b) = (noise.bell(), noise.bell());
            let x = (0..p)
                .map(|j| {
                    level[j] + a * (1.0 + j as f64) + b * (if j % 2 == 0 { 0.5 } else { -0.5 }) + 0.2 * noise.bell()
                })
                .collect();
            rows.push((format!("pump-{d:02}"), 1_700_000_000_000 + 10_000 * i as i64, x));
        }
    }
    rows
}

pub fn names(p: usize) -> Vec<String> {
    (0..p).map(|j| format!("feature_{j}")).collect()
}

/// One batch of these rows; NaN becomes null.
pub fn batch(rows: &[Row], p: usize) -> RecordBatch {
    let mut columns: Vec<(String, ArrayRef)> = vec![
        ("device".to_owned(), Arc::new(StringArray::from_iter_values(rows.iter().map(|r| &r.0)))),
        ("window_end".to_owned(), Arc::new(Int64Array::from_iter_values(rows.iter().map(|r| r.1)))),
    ];
    for (j, name) in names(p).into_iter().enumerate() {
        let values = rows.iter().map(|r| Some(r.2[j]).filter(|v| !v.is_nan()));
        columns.push((name, Arc::new(Float64Array::from_iter(values))));
    }
    RecordBatch::try_from_iter(columns).unwrap()
}

/// Rows as batches of the given sizes, the last repeated.
pub fn batches(rows: &[Row], p: usize, sizes: &[usize]) -> Vec<RecordBatch> {
    let (mut out, mut at, mut i) = (Vec::new(), 0, 0);
    while at < rows.len() {
        let size = sizes[i.min(sizes.len() - 1)].max(1).min(rows.len() - at);
        out.push(batch(&rows[at..at + size], p));
        at += size;
        i += 1;
    }
    out
}

pub fn per_device(variance: f64) -> T2qConfig {
    T2qConfig {
        variance: Some(variance),
        components: None,
        shrinkage: Shrinkage::Auto,
        baseline: BaselineKind::Device,
        scale: ScaleKind::Fleet,
        seed: 7,
    }
}

pub fn config(algorithm: T2qConfig, by: SplitBy) -> TrainConfig {
    config_of(AlgorithmConfig::T2q(algorithm), by)
}

pub fn config_of(algorithm: AlgorithmConfig, by: SplitBy) -> TrainConfig {
    TrainConfig {
        algorithm,
        split: SplitConfig { by, hold_back: 0.2, seed: 7 },
        provenance: Provenance {
            pipeline: "test".to_owned(),
            step: "anomaly".to_owned(),
            pipeline_digest: "00".repeat(32),
            created: "2026-01-01T00:00:00Z".to_owned(),
            data: "data/*.parquet".to_owned(),
        },
    }
}
