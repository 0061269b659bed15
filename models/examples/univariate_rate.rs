//! How many readings a CPU-second the univariate detector judges on one thread:
//! `cargo run --release -p avouch-models --example univariate_rate`.

mod clock;

use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray};
use avouch_engine::codec::Writer;
use avouch_engine::model::Memory;
use avouch_models::univariate::UnivariateConfig;
use avouch_models::{AlgorithmConfig, SplitConfig, TrainConfig, TrainingFrame, train};
use clock::Clock;

const FIVE_MINUTES: i64 = 300_000;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    const READINGS: usize = 4_000;
    let mut state = 1u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 11) as f64 / (1u64 << 53) as f64
    };
    // A day's wave, noise, and a spike now and then.
    let mut value = |i: usize| {
        let hour = (i % 288) as f64 / 12.0;
        (hour - 12.0).abs() + next() + next() + if next() > 0.998 { 10.0 } else { 0.0 }
    };
    let values: Vec<f64> = (0..1000).map(&mut value).collect();
    let batch = RecordBatch::try_from_iter([
        ("device", Arc::new(StringArray::from(vec!["pump"; 1000])) as ArrayRef),
        ("window_end", Arc::new(Int64Array::from_iter_values((0..1000).map(|i| i * FIVE_MINUTES)))),
        ("value", Arc::new(Float64Array::from(values))),
    ])?;
    let frame = TrainingFrame::from_batches(&["value".to_owned()], [&batch])?;
    let config = TrainConfig {
        algorithm: AlgorithmConfig::Univariate(UnivariateConfig::default()),
        split: SplitConfig::default(),
        provenance: Default::default(),
    };
    let model = train(&frame, &config)?;
    let readings: Vec<f64> = (0..READINGS).map(&mut value).collect();
    for devices in [1usize, 100, 1000] {
        let mut memories: Vec<Box<dyn Memory>> =
            (0..devices).filter_map(|d| model.scorer.memory(&format!("device-{d}"))).collect();
        let (mut expected, mut contributions) = ([0.0], [0.0]);
        let (mut sum, mut scored) = (0.0, 0u64);
        let clock = Clock::start();
        // Readings of all devices take turns, as they do in a lane.
        for (i, x) in readings.iter().enumerate() {
            for memory in &mut memories {
                let at = i as i64 * FIVE_MINUTES;
                sum += memory.score(at, &[*x], &mut expected, &mut contributions).p_value;
                scored += 1;
            }
        }
        let seconds = clock.seconds();
        let mut w = Writer::new();
        if let Some(memory) = memories.first() {
            memory.write(&mut w);
        }
        println!(
            "{devices} devices: {:.2} M readings per CPU-second ({} bytes of memory a device; mean p {:.3})",
            scored as f64 / seconds / 1e6,
            w.bytes.len(),
            sum / scored as f64
        );
    }
    Ok(())
}
