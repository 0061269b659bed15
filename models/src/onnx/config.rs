//! What `algorithm = { kind = "onnx", ... }` says.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::ModelError;

/// `algorithm = { kind = "onnx", file = "models/iforest.onnx", output = "scores", higher_is = "normal" }`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OnnxConfig {
    /// The ONNX file, for a reader: a path as the pipeline file gives it.
    pub file: String,
    /// The path resolved, put here by whoever read the pipeline file.
    #[serde(skip)]
    pub path: PathBuf,
    /// The file's contents, put here by whoever read it.
    #[serde(skip)]
    pub contents: Vec<u8>,
    /// The output that is the model's value.
    pub output: String,
    /// Which of the output's values, from 0; needed where it has several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub column: Option<usize>,
    /// What a high score means. Of scores only.
    #[serde(default)]
    pub higher_is: HigherIs,
    /// What the value is.
    #[serde(default)]
    pub says: OnnxSays,
    /// Recorded in the card; nothing is drawn at random.
    #[serde(default)]
    pub seed: u64,
}

/// What a high score means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HigherIs {
    /// A window unlike the training data.
    #[default]
    Stranger,
    /// A window like it, as of scikit-learn's detectors.
    Normal,
}

/// What the value is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnnxSays {
    /// A score, which gets its p-values from the held-back rows.
    #[default]
    Anomaly,
    /// The probability of a failure.
    Probability,
    /// An estimate in a unit of its own, such as hours of remaining life.
    Estimate,
}

impl OnnxConfig {
    pub(super) fn check(&self) -> Result<(), ModelError> {
        if self.contents.is_empty() {
            return Err(ModelError::config("algorithm.file", format!("`{}` is empty or was not read", self.file)));
        }
        if self.higher_is == HigherIs::Normal && self.says != OnnxSays::Anomaly {
            return Err(ModelError::config(
                "algorithm.higher_is",
                "it tells what a score means; of a probability the higher is the worse, of an estimate the lower",
            ));
        }
        Ok(())
    }
}

impl From<OnnxSays> for avouch_engine::model::Says {
    fn from(says: OnnxSays) -> Self {
        match says {
            OnnxSays::Anomaly => Self::Anomaly,
            OnnxSays::Probability => Self::Probability,
            OnnxSays::Estimate => Self::Estimate,
        }
    }
}
