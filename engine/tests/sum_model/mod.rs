//! A model to test lanes with.

use avouch_engine::model::{Score, Scorer};
use avouch_engine::verdict::Hash32;

/// The score is the sum of the features.
#[derive(Debug)]
pub struct SumModel(pub Vec<String>);

impl Scorer for SumModel {
    fn hash(&self) -> Hash32 {
        [7; 32]
    }
    fn features(&self) -> &[String] {
        &self.0
    }
    fn score(&self, _device: &str, x: &[f64], expected: &mut [f64], contributions: &mut [f64]) -> Score {
        expected.fill(0.0);
        contributions.copy_from_slice(x);
        let value: f64 = x.iter().sum();
        Score::anomaly(value, 1.0 / (1.0 + value.abs()))
    }
    fn smallest_p_value(&self) -> f64 {
        0.0
    }
}
