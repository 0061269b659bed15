//! How many vectors one thread scores in a second of CPU time: `cargo run --release -p avouch-models --example score_rate`.
//! With names of kinds, only these.

use std::sync::Arc;
use std::time::Instant;

use arrow::array::{ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray};
use avouch_models::t2q::{BaselineKind, T2qConfig};
use avouch_models::{AlgorithmConfig, SplitConfig, TrainConfig, TrainedModel, TrainingFrame, train};

type Failure = Box<dyn std::error::Error>;

const DEVICES: usize = 1000;
const PER_DEVICE: usize = 100;

/// Seconds this thread was on a CPU, where Linux says so; otherwise seconds on the wall.
fn seconds(since: Instant) -> f64 {
    let on_cpu = std::fs::read_to_string("/proc/thread-self/schedstat")
        .ok()
        .and_then(|text| text.split(' ').next()?.parse::<f64>().ok());
    on_cpu.map_or(since.elapsed().as_secs_f64(), |ns| ns / 1e9)
}

/// Uniform numbers from 0 to 1.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> f64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (self.0 >> 11) as f64 / (1u64 << 53) as f64
    }
}

fn fleet(p: usize, numbers: &mut Numbers) -> Result<(Vec<String>, TrainingFrame), Failure> {
    let devices: Vec<String> = (0..DEVICES).map(|d| format!("device-{d:05}")).collect();
    let n = DEVICES * PER_DEVICE;
    let names: Vec<String> = (0..p).map(|j| format!("f{j}")).collect();
    let mut columns: Vec<(String, ArrayRef)> = vec![
        ("device".to_owned(), Arc::new(StringArray::from_iter_values((0..n).map(|i| &devices[i / PER_DEVICE])))),
        ("window_end".to_owned(), Arc::new(Int64Array::from_iter_values((0..n).map(|i| (i % PER_DEVICE) as i64)))),
    ];
    for name in &names {
        let values = (0..n).map(|_| numbers.next() + numbers.next());
        columns.push((name.clone(), Arc::new(Float64Array::from_iter_values(values))));
    }
    let batch = RecordBatch::try_from_iter(columns)?;
    let frame = TrainingFrame::from_batches(&names, [&batch])?;
    Ok((devices, frame))
}

/// Scores and their mean p-value, for as long as it takes to measure, on devices in turn.
fn score(model: &TrainedModel, devices: &[String], p: usize, numbers: &mut Numbers) -> (f64, f64) {
    let rows: Vec<f64> = (0..4096 * p).map(|_| numbers.next() + numbers.next()).collect();
    let (mut expected, mut contributions) = (vec![0.0; p], vec![0.0; p]);
    // Online models keep a memory of each device, as a lane does.
    let mut memories: Vec<_> = devices.iter().map(|d| model.scorer.memory(d)).collect();
    let (mut sum, mut scored, wall) = (0.0, 0u64, Instant::now());
    let start = seconds(wall);
    let mut spent = 0.0;
    while spent < 1.0 {
        for (i, x) in rows.chunks_exact(p).enumerate() {
            let d = (i * 7 + scored as usize / 4096) % devices.len();
            let said = match &mut memories[d] {
                Some(memory) => memory.score(scored as i64, x, &mut expected, &mut contributions),
                None => model.scorer.score(&devices[d], x, &mut expected, &mut contributions),
            };
            sum += said.p_value;
        }
        scored += 4096;
        spent = seconds(wall) - start;
    }
    (scored as f64 / spent, sum / scored as f64)
}

fn main() -> Result<(), Failure> {
    let only: Vec<String> = std::env::args().skip(1).collect();
    let algorithms = [
        AlgorithmConfig::T2q(T2qConfig { baseline: BaselineKind::Device, ..T2qConfig::default() }),
        AlgorithmConfig::HalfSpaceTrees(Default::default()),
        AlgorithmConfig::HalfSpaceTrees(avouch_models::halfspace::HalfSpaceTreesConfig {
            trees: 25,
            depth: 6,
            online: true,
            ..Default::default()
        }),
        AlgorithmConfig::RandomCutForest(Default::default()),
        AlgorithmConfig::NearestNeighbours(Default::default()),
        AlgorithmConfig::NearestNeighbours(avouch_models::neighbours::NearestNeighboursConfig {
            recent: 100,
            ..Default::default()
        }),
    ];
    for algorithm in algorithms {
        if !only.is_empty() && !only.iter().any(|o| o == algorithm.kind()) {
            continue;
        }
        println!("{}", serde_json::to_string(&algorithm)?);
        for p in [3usize, 5, 8] {
            let mut numbers = Numbers(1);
            let (devices, frame) = fleet(p, &mut numbers)?;
            let wall = Instant::now();
            let start = seconds(wall);
            let config = TrainConfig {
                algorithm: algorithm.clone(),
                split: SplitConfig::default(),
                provenance: Default::default(),
            };
            let model = train(&frame, &config)?;
            let trained = seconds(wall) - start;
            let (rate, mean) = score(&model, &devices, p, &mut numbers);
            println!(
                "  {p} features, {DEVICES} devices: {:.3} M vectors a CPU-second ({} rows trained in {:.2} s; mean p {mean:.3}; file {} bytes)",
                rate / 1e6,
                DEVICES * PER_DEVICE,
                trained,
                model.bytes.len()
            );
        }
    }
    Ok(())
}
