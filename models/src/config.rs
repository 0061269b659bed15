//! What a `[train.<name>]` table says, as plain data. The pipeline language fills these structs; training checks them.

use serde::{Deserialize, Serialize};

use crate::ModelError;
use crate::cutforest::RandomCutForestConfig;
use crate::halfspace::HalfSpaceTreesConfig;
use crate::neighbours::NearestNeighboursConfig;
use crate::t2q::{BaselineKind, T2qConfig};

/// Which algorithm to train, with its options: `algorithm = { kind = "...", ... }`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind")]
pub enum AlgorithmConfig {
    /// Half-space trees, see [`crate::halfspace`].
    #[serde(rename = "half-space-trees")]
    HalfSpaceTrees(HalfSpaceTreesConfig),
    /// Distance to the nearest healthy rows, see [`crate::neighbours`].
    #[serde(rename = "nearest-neighbours")]
    NearestNeighbours(NearestNeighboursConfig),
    /// Random cut forest, see [`crate::cutforest`].
    #[serde(rename = "random-cut-forest")]
    RandomCutForest(RandomCutForestConfig),
    /// Hotelling T² and Q charts, see [`crate::t2q`].
    #[serde(rename = "t2-q")]
    T2q(T2qConfig),
}

impl AlgorithmConfig {
    /// Every kind, for messages and editors.
    pub const KINDS: [&'static str; 4] =
        [crate::halfspace::KIND, crate::neighbours::KIND, crate::cutforest::KIND, crate::t2q::KIND];

    /// The name in TOML and in the model file.
    pub fn kind(&self) -> &'static str {
        match self {
            AlgorithmConfig::HalfSpaceTrees(_) => crate::halfspace::KIND,
            AlgorithmConfig::NearestNeighbours(_) => crate::neighbours::KIND,
            AlgorithmConfig::RandomCutForest(_) => crate::cutforest::KIND,
            AlgorithmConfig::T2q(_) => crate::t2q::KIND,
        }
    }

    /// The seed given, recorded in the card also where the algorithm draws nothing at random.
    pub fn seed(&self) -> u64 {
        match self {
            AlgorithmConfig::HalfSpaceTrees(c) => c.seed,
            AlgorithmConfig::NearestNeighbours(c) => c.seed,
            AlgorithmConfig::RandomCutForest(c) => c.seed,
            AlgorithmConfig::T2q(c) => c.seed,
        }
    }
}

impl AlgorithmConfig {
    /// Whether devices have models of their own, which are calibrated on later rows of the same devices.
    fn by_device(&self) -> bool {
        let baseline = match self {
            AlgorithmConfig::HalfSpaceTrees(c) => c.baseline,
            AlgorithmConfig::NearestNeighbours(c) => c.baseline,
            AlgorithmConfig::RandomCutForest(c) => c.baseline,
            AlgorithmConfig::T2q(c) => c.baseline,
        };
        baseline == BaselineKind::Device
    }

    /// Refuses a split that the algorithm cannot be calibrated on.
    pub(crate) fn check_split(&self, split: &SplitConfig) -> Result<(), ModelError> {
        if self.by_device() && split.by == SplitBy::Device {
            return Err(ModelError::config(
                "split.by",
                "`baseline = \"device\"` is calibrated on later rows of the same devices; set `split.by = \"time\"`",
            ));
        }
        Ok(())
    }
}

/// How rows are kept out of the fit, for calibration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SplitBy {
    /// Whole devices are held back, drawn with the seed: shows how the model does on machines it never saw.
    Device,
    /// The last rows of every device are held back: shows how the model does on the days after the training data.
    Time,
}

/// Which rows are held back: `split = { by = "time", hold_back = 0.2, seed = 7 }`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SplitConfig {
    /// What is held back.
    pub by: SplitBy,
    /// Share held back, above 0 and at most 0.9.
    #[serde(default = "SplitConfig::default_hold_back")]
    pub hold_back: f64,
    /// Seed of the draw; `by = "time"` draws nothing.
    #[serde(default)]
    pub seed: u64,
}

impl SplitConfig {
    fn default_hold_back() -> f64 {
        0.2
    }

    /// Refuses a share that leaves nothing to fit or nothing to calibrate on.
    pub fn check(&self) -> Result<(), ModelError> {
        if self.hold_back > 0.0 && self.hold_back <= 0.9 {
            Ok(())
        } else {
            Err(ModelError::config(
                "split.hold_back",
                format!("{} is not a share above 0 and at most 0.9, such as 0.2", self.hold_back),
            ))
        }
    }
}

impl Default for SplitConfig {
    fn default() -> Self {
        Self { by: SplitBy::Time, hold_back: Self::default_hold_back(), seed: 0 }
    }
}

/// Where a model comes from, as its card tells it. Nothing here changes how the model scores, but everything here is
/// in the file and so in its hash.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Provenance {
    /// The pipeline's name.
    pub pipeline: String,
    /// The model step's name.
    pub step: String,
    /// SHA-256 of the canonical pipeline file, hexadecimal.
    pub pipeline_digest: String,
    /// Creation time as given by the caller (RFC 3339); training never asks the clock.
    pub created: String,
    /// Where the training rows came from, for a reader: a path or glob as the pipeline file gives it.
    pub data: String,
}

/// Everything `train` needs besides the rows.
#[derive(Debug, Clone, PartialEq)]
pub struct TrainConfig {
    /// Algorithm and its options.
    pub algorithm: AlgorithmConfig,
    /// What is held back for calibration.
    pub split: SplitConfig,
    /// What the card says of the model's origin.
    pub provenance: Provenance,
}
