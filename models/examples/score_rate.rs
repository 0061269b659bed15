//! How many vectors a second one thread scores: `cargo run --release -p avouch-models --example score_rate`.

use std::sync::Arc;
use std::time::Instant;

use arrow::array::{ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray};
use avouch_models::t2q::{BaselineKind, T2qConfig};
use avouch_models::{AlgorithmConfig, SplitConfig, TrainConfig, TrainingFrame, train};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    const DEVICES: usize = 1000;
    const PER_DEVICE: usize = 100;
    for p in [3usize, 5, 8] {
        let mut state = 1u64;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 11) as f64 / (1u64 << 53) as f64
        };
        let devices: Vec<String> = (0..DEVICES).map(|d| format!("device-{d:05}")).collect();
        let n = DEVICES * PER_DEVICE;
        let names: Vec<String> = (0..p).map(|j| format!("f{j}")).collect();
        let mut columns: Vec<(String, ArrayRef)> = vec![
            ("device".to_owned(), Arc::new(StringArray::from_iter_values((0..n).map(|i| &devices[i / PER_DEVICE])))),
            ("window_end".to_owned(), Arc::new(Int64Array::from_iter_values((0..n).map(|i| (i % PER_DEVICE) as i64)))),
        ];
        for name in &names {
            columns.push((name.clone(), Arc::new(Float64Array::from_iter_values((0..n).map(|_| next() + next())))));
        }
        let batch = RecordBatch::try_from_iter(columns)?;
        let frame = TrainingFrame::from_batches(&names, [&batch])?;
        let start = Instant::now();
        let config = TrainConfig {
            algorithm: AlgorithmConfig::T2q(T2qConfig { baseline: BaselineKind::Device, ..T2qConfig::default() }),
            split: SplitConfig::default(),
            provenance: Default::default(),
        };
        let model = train(&frame, &config)?;
        let trained = start.elapsed();
        let rows: Vec<f64> = (0..4096 * p).map(|_| next() + next()).collect();
        let (mut expected, mut contributions) = (vec![0.0; p], vec![0.0; p]);
        let (mut sum, rounds) = (0.0, 500);
        let start = Instant::now();
        for round in 0..rounds {
            for (i, x) in rows.chunks_exact(p).enumerate() {
                let device = &devices[(i * 7 + round) % DEVICES];
                sum += model.scorer.score(device, x, &mut expected, &mut contributions).p_value;
            }
        }
        let seconds = start.elapsed().as_secs_f64();
        let scored = (rounds * 4096) as f64;
        println!(
            "{p} features, {DEVICES} devices, {} held-back rows: {:.2} M vectors/s ({n} rows trained in {} ms; mean p {:.3}; file {} bytes)",
            model.card.training.rows_held_back,
            scored / seconds / 1e6,
            trained.as_millis(),
            sum / scored,
            model.bytes.len()
        );
    }
    Ok(())
}
