//! The model as the engine calls it.

use avouch_engine::model::{Says, Score, Scorer};
use avouch_engine::verdict::Hash32;

use super::OnnxError;
use super::config::{HigherIs, OnnxConfig, OnnxSays};
use super::explain::contributions;
use super::graph::Graph;
use crate::calibrate::Calibration;

/// An ONNX model file, loaded.
#[derive(Debug, Clone)]
pub struct OnnxScorer {
    pub(super) hash: Hash32,
    pub(super) features: Vec<String>,
    pub(super) value: Value,
    /// Of scores.
    pub(super) calibration: Option<Calibration>,
}

/// The number that is taken from the graph.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Value {
    graph: Graph,
    column: Option<usize>,
    higher_is: HigherIs,
    says: OnnxSays,
    /// What features are exchanged for, in contributions.
    pub reference: Vec<f64>,
    at_reference: f64,
}

/// What is wanted of the graph.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted<'a> {
    pub output: &'a str,
    pub column: Option<usize>,
    pub higher_is: HigherIs,
    pub says: OnnxSays,
}

impl<'a> From<&'a OnnxConfig> for Wanted<'a> {
    fn from(c: &'a OnnxConfig) -> Self {
        Self { output: &c.output, column: c.column, higher_is: c.higher_is, says: c.says }
    }
}

impl Value {
    /// Of the ONNX file `bytes`. Runs it once, on the reference, which shows whether the shapes fit.
    pub fn of(wanted: Wanted<'_>, bytes: &[u8], features: &[String], reference: Vec<f64>) -> Result<Self, OnnxError> {
        let graph = Graph::read(bytes, features, wanted.output)?;
        let Wanted { column, higher_is, says, .. } = wanted;
        let mut value = Self { graph, column, higher_is, says, reference, at_reference: 0.0 };
        value.at_reference = value.at(&value.reference)?;
        Ok(value)
    }

    pub fn graph(&self) -> &Graph {
        &self.graph
    }

    /// The value, higher meaning stranger where it is a score.
    fn at(&self, x: &[f64]) -> Result<f64, OnnxError> {
        let out = self.graph.run(x)?;
        let v = match (self.column, out.data.as_slice()) {
            (None, [one]) => *one,
            (None, many) => {
                return Err(OnnxError::Output(format!("it has {} values; choose one by `column`", many.len())));
            }
            (Some(i), all) => *all
                .get(i)
                .ok_or_else(|| OnnxError::Output(format!("it has no column {i}, there are {}", all.len())))?,
        };
        if !v.is_finite() {
            return Err(OnnxError::Output(format!("the value is {v}")));
        }
        if self.says == OnnxSays::Probability && !(0.0..=1.0).contains(&v) {
            return Err(OnnxError::Output(format!("{v} is no probability")));
        }
        Ok(if self.higher_is == HigherIs::Normal { -v } else { v })
    }

    /// The value of finite features, and what each adds to it. A score is told as how much stranger it is than the reference.
    pub fn explained(&self, x: &[f64], out: &mut [f64]) -> Result<f64, OnnxError> {
        let at = (self.at(x)?, self.at_reference);
        contributions(&|x| self.at(x), x, &self.reference, at, out)?;
        Ok(self.told(at.0))
    }

    /// The value alone.
    pub fn alone(&self, x: &[f64]) -> Result<f64, OnnxError> {
        Ok(self.told(self.at(x)?))
    }

    fn told(&self, v: f64) -> f64 {
        if self.says == OnnxSays::Anomaly { v - self.at_reference } else { v }
    }
}

impl Scorer for OnnxScorer {
    fn hash(&self) -> Hash32 {
        self.hash
    }

    fn features(&self) -> &[String] {
        &self.features
    }

    fn says(&self) -> Says {
        match self.value.says {
            OnnxSays::Anomaly => Says::Anomaly,
            OnnxSays::Probability => Says::Probability,
            OnnxSays::Estimate => Says::Estimate,
        }
    }

    fn score(&self, _device: &str, x: &[f64], expected: &mut [f64], contributions: &mut [f64]) -> Score {
        let p = self.features.len();
        let fits = x.len() == p && expected.len() == p && contributions.len() == p;
        if fits
            && x.iter().all(|v| v.is_finite())
            && let Ok(value) = self.value.explained(x, contributions)
        {
            expected.copy_from_slice(&self.value.reference);
            return match &self.calibration {
                Some(c) => Score::anomaly(value, c.p_value(value)),
                None => Score::estimate(value, None),
            };
        }
        expected.fill(f64::NAN);
        contributions.fill(f64::NAN);
        Score::NONE
    }

    fn smallest_p_value(&self) -> f64 {
        self.calibration.as_ref().map_or(0.0, Calibration::smallest_p_value)
    }
}
