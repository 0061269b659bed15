//! How many vectors a CPU-second scores, by kind: `cargo run --release -p avouch-models --example score_rate`.

mod clock;

use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray};
use avouch_engine::model::Memory;
use avouch_models::{AlgorithmConfig, SplitConfig, TrainConfig, TrainingFrame, train};
use clock::Clock;

const DEVICES: usize = 1000;
const PER_DEVICE: usize = 100;

/// Rows of which are drawn at random, over and over.
const ROWS: usize = 4096;

const KINDS: [&str; 12] = [
    r#"{"kind":"t2-q","baseline":"device"}"#,
    r#"{"kind":"mewma"}"#,
    r#"{"kind":"mewma","scales":3}"#,
    r#"{"kind":"k-means","clusters":8}"#,
    r#"{"kind":"gaussian-mixture","components":2}"#,
    r#"{"kind":"gaussian-mixture","components":8}"#,
    r#"{"kind":"one-class-svm"}"#,
    r#"{"kind":"half-space-trees"}"#,
    r#"{"kind":"half-space-trees","trees":25,"depth":6,"online":true}"#,
    r#"{"kind":"random-cut-forest"}"#,
    r#"{"kind":"nearest-neighbours"}"#,
    r#"{"kind":"nearest-neighbours","recent":100}"#,
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
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
        let rows: Vec<f64> = (0..ROWS * p).map(|_| next() + next()).collect();
        for kind in KINDS {
            let clock = Clock::start();
            let algorithm: AlgorithmConfig = serde_json::from_str(kind)?;
            let config = TrainConfig { algorithm, split: SplitConfig::default(), provenance: Default::default() };
            let model = train(&frame, &config)?;
            let trained = clock.seconds();
            let mut memories: Vec<Box<dyn Memory>> = devices.iter().filter_map(|d| model.scorer.memory(d)).collect();
            let (mut expected, mut contributions) = (vec![0.0; p], vec![0.0; p]);
            let (mut sum, mut rounds) = (0.0, 0);
            let clock = Clock::start();
            while rounds == 0 || clock.seconds() < 1.0 {
                for (i, x) in rows.chunks_exact(p).enumerate() {
                    let device = (i * 7 + rounds) % DEVICES;
                    sum += match memories.get_mut(device) {
                        Some(memory) => memory.score(0, x, &mut expected, &mut contributions),
                        None => model.scorer.score(&devices[device], x, &mut expected, &mut contributions),
                    }
                    .p_value;
                }
                rounds += 1;
            }
            let scored = (rounds * ROWS) as f64;
            println!(
                "{p} features {kind}: {:.2} M vectors per CPU-second ({n} rows trained in {trained:.1} s; mean p {:.3}; file {} bytes)",
                scored / clock.seconds() / 1e6,
                sum / scored,
                model.bytes.len()
            );
        }
    }
    Ok(())
}
