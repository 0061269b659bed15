//! A prognosis as the engine calls it.

use std::sync::Arc;

use avouch_engine::codec::{CodecError, Reader, Writer};
use avouch_engine::model::{Memory, Says, Score, Scorer};
use avouch_engine::verdict::Hash32;

use super::interval::Intervals;
use super::parts::Parts;
use super::platt::Platt;
use crate::recipe::{Past, Recipe};

/// How a raw value becomes what is said.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Answer {
    /// Clamped to the labels' range, with an interval.
    Estimate { unit: String, limits: (f64, f64), intervals: Intervals },
    /// Scaled.
    Probability(Platt),
}

/// What a device's next row is turned into before a model sees it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Input {
    /// The features themselves; their means are what is expected.
    Plain(Vec<f64>),
    /// By a recipe.
    Made(Box<Recipe>),
}

impl Input {
    pub fn width(&self) -> usize {
        match self {
            Self::Plain(mean) => mean.len(),
            Self::Made(recipe) => recipe.width(),
        }
    }

    pub fn sources(&self) -> Vec<usize> {
        match self {
            Self::Plain(mean) => (0..mean.len()).collect(),
            Self::Made(recipe) => recipe.sources(),
        }
    }

    pub fn take(&self, past: &mut Past, x: &[f64], out: &mut [f64]) {
        match self {
            Self::Plain(_) => out.copy_from_slice(x),
            Self::Made(recipe) => past.take(recipe, x, out),
        }
    }
}

/// All that scoring needs.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Core {
    pub features: Vec<String>,
    pub input: Input,
    pub parts: Parts,
    pub answer: Answer,
    /// The feature of each input.
    pub sources: Vec<usize>,
    /// What contributions of raw values are counted from.
    pub base: f64,
}

impl Core {
    pub fn new(features: Vec<String>, input: Input, parts: Parts, answer: Answer) -> Self {
        let (sources, base) = (input.sources(), parts.base());
        Self { features, input, parts, answer, sources, base }
    }

    fn answer(&self, raw: f64) -> f64 {
        match &self.answer {
            Answer::Estimate { limits, .. } => raw.clamp(limits.0, limits.1),
            Answer::Probability(platt) => platt.probability(raw),
        }
    }

    /// What contributions are counted from.
    pub fn base(&self) -> f64 {
        self.answer(self.base)
    }

    fn score(&self, past: &mut Past, x: &[f64], expected: &mut [f64], contributions: &mut [f64]) -> Score {
        let p = self.features.len();
        let fits = x.len() == p && expected.len() == p && contributions.len() == p;
        if !fits || x.iter().any(|v| !v.is_finite()) {
            expected.fill(f64::NAN);
            contributions.fill(f64::NAN);
            return Score::NONE;
        }
        let mut inputs = vec![0.0; self.input.width()];
        self.input.take(past, x, &mut inputs);
        match &self.input {
            Input::Plain(mean) => expected.copy_from_slice(mean),
            Input::Made(recipe) => recipe.expected(x, expected),
        }
        let raw = self.parts.value(&inputs);
        if !raw.is_finite() {
            expected.fill(f64::NAN);
            contributions.fill(f64::NAN);
            return Score::NONE;
        }
        self.parts.explain(&inputs, &self.sources, contributions);
        let (value, base) = (self.answer(raw), self.base());
        let moved = raw - self.base;
        let share = if moved == 0.0 { 0.0 } else { (value - base) / moved };
        for c in contributions.iter_mut() {
            *c *= share;
        }
        match &self.answer {
            Answer::Estimate { limits, intervals, .. } => {
                Score::estimate(value, Some(intervals.around(value, *limits)))
            }
            Answer::Probability(_) => Score::estimate(value, None),
        }
    }
}

/// A model that predicts a label, loaded.
#[derive(Debug, Clone)]
pub struct Prognosis {
    pub(super) hash: Hash32,
    pub(super) core: Arc<Core>,
}

impl Scorer for Prognosis {
    fn hash(&self) -> Hash32 {
        self.hash
    }

    fn features(&self) -> &[String] {
        &self.core.features
    }

    fn says(&self) -> Says {
        match self.core.answer {
            Answer::Estimate { .. } => Says::Estimate,
            Answer::Probability(_) => Says::Probability,
        }
    }

    fn score(&self, _device: &str, features: &[f64], expected: &mut [f64], contributions: &mut [f64]) -> Score {
        self.core.score(&mut Past::default(), features, expected, contributions)
    }

    fn smallest_p_value(&self) -> f64 {
        // It gives none, so none is too small.
        0.0
    }

    fn unit(&self) -> Option<&str> {
        match &self.core.answer {
            Answer::Estimate { unit, .. } => Some(unit),
            Answer::Probability(_) => None,
        }
    }

    fn coverage(&self) -> Option<f64> {
        match &self.core.answer {
            Answer::Estimate { intervals, .. } => Some(intervals.coverage),
            Answer::Probability(_) => None,
        }
    }

    fn memory(&self, _device: &str) -> Option<Box<dyn Memory>> {
        match self.core.input {
            Input::Plain(_) => None,
            Input::Made(_) => Some(Box::new(Remembered { core: Arc::clone(&self.core), past: Past::default() })),
        }
    }

    fn read_memory(&self, _device: &str, r: &mut Reader<'_>) -> Result<Box<dyn Memory>, CodecError> {
        let Input::Made(recipe) = &self.core.input else {
            return Err(r.invalid("this model remembers nothing of a device"));
        };
        Ok(Box::new(Remembered { core: Arc::clone(&self.core), past: Past::read(recipe, r)? }))
    }
}

/// A device's past beside the model that judges it.
#[derive(Debug, Clone)]
struct Remembered {
    core: Arc<Core>,
    past: Past,
}

impl Memory for Remembered {
    fn score(&mut self, _window_end: i64, x: &[f64], expected: &mut [f64], contributions: &mut [f64]) -> Score {
        // A vector with a missing value is passed over: the past goes on without it.
        self.core.score(&mut self.past, x, expected, contributions)
    }

    fn write(&self, w: &mut Writer) {
        self.past.write(w);
    }

    fn copy(&self) -> Box<dyn Memory> {
        Box::new(self.clone())
    }
}
