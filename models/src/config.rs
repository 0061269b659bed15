//! What a `[train.<name>]` table says, as plain data. The pipeline language fills these structs; training checks them.

use avouch_engine::model::Says;
use serde::{Deserialize, Serialize};

use crate::ModelError;
use crate::blend::BlendConfig;
use crate::cutforest::RandomCutForestConfig;
use crate::drift::DriftConfig;
use crate::gaussian_mixture::GaussianMixtureConfig;
use crate::gradient_boosting::GradientBoostingConfig;
use crate::halfspace::HalfSpaceTreesConfig;
use crate::k_means::KMeansConfig;
use crate::kernel_ridge::KernelRidgeConfig;
use crate::label::LabelConfig;
use crate::linear::LinearConfig;
use crate::mewma::MewmaConfig;
use crate::neighbours::NearestNeighboursConfig;
use crate::one_class_svm::OneClassSvmConfig;
use crate::onnx::OnnxConfig;
use crate::sensor_health::SensorHealthConfig;
use crate::t2q::BaselineKind;
use crate::t2q::T2qConfig;
use crate::univariate::UnivariateConfig;

/// Which algorithm to train, with its options: `algorithm = { kind = "...", ... }`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind")]
pub enum AlgorithmConfig {
    /// A mixture of Gaussians, see [`crate::gaussian_mixture`].
    #[serde(rename = "gaussian-mixture")]
    GaussianMixture(GaussianMixtureConfig),
    /// k-means, see [`crate::k_means`].
    #[serde(rename = "k-means")]
    KMeans(KMeansConfig),
    /// Multivariate EWMA charts, see [`crate::mewma`].
    #[serde(rename = "mewma")]
    Mewma(MewmaConfig),
    /// One-class support vector machine, see [`crate::one_class_svm`].
    #[serde(rename = "one-class-svm")]
    OneClassSvm(OneClassSvmConfig),
    /// The mean of several models, see [`crate::blend`].
    #[serde(rename = "blend")]
    Blend(BlendConfig),
    /// Gradient-boosted trees, see [`crate::gradient_boosting`].
    #[serde(rename = "gradient-boosting")]
    GradientBoosting(GradientBoostingConfig),
    /// Kernel ridge regression, see [`crate::kernel_ridge`].
    #[serde(rename = "kernel-ridge")]
    KernelRidge(KernelRidgeConfig),
    /// Ridge regression, see [`crate::linear`].
    #[serde(rename = "linear")]
    Linear(LinearConfig),
    /// A model trained elsewhere, see [`crate::onnx`].
    #[serde(rename = "onnx")]
    Onnx(OnnxConfig),
    /// Gaps, stuck and saturated sensors, irregular cadence, see [`crate::sensor_health`].
    #[serde(rename = "sensor-health")]
    SensorHealth(SensorHealthConfig),
    /// Drift of the features, see [`crate::drift`].
    #[serde(rename = "drift")]
    Drift(DriftConfig),
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
    /// Streaming views of single values, learned online, see [`crate::univariate`].
    #[serde(rename = "univariate")]
    Univariate(UnivariateConfig),
}

impl AlgorithmConfig {
    /// Every kind, for messages and editors.
    pub const KINDS: [&'static str; 16] = [
        crate::blend::KIND,
        crate::drift::KIND,
        crate::gaussian_mixture::KIND,
        crate::gradient_boosting::KIND,
        crate::halfspace::KIND,
        crate::k_means::KIND,
        crate::kernel_ridge::KIND,
        crate::linear::KIND,
        crate::mewma::KIND,
        crate::neighbours::KIND,
        crate::one_class_svm::KIND,
        crate::onnx::KIND,
        crate::cutforest::KIND,
        crate::sensor_health::KIND,
        crate::t2q::KIND,
        crate::univariate::KIND,
    ];

    /// The name in TOML and in the model file.
    pub fn kind(&self) -> &'static str {
        match self {
            AlgorithmConfig::GaussianMixture(_) => crate::gaussian_mixture::KIND,
            AlgorithmConfig::KMeans(_) => crate::k_means::KIND,
            AlgorithmConfig::Mewma(_) => crate::mewma::KIND,
            AlgorithmConfig::OneClassSvm(_) => crate::one_class_svm::KIND,
            AlgorithmConfig::Blend(_) => crate::blend::KIND,
            AlgorithmConfig::GradientBoosting(_) => crate::gradient_boosting::KIND,
            AlgorithmConfig::KernelRidge(_) => crate::kernel_ridge::KIND,
            AlgorithmConfig::Linear(_) => crate::linear::KIND,
            AlgorithmConfig::Onnx(_) => crate::onnx::KIND,
            AlgorithmConfig::SensorHealth(_) => crate::sensor_health::KIND,
            AlgorithmConfig::Drift(_) => crate::drift::KIND,
            AlgorithmConfig::HalfSpaceTrees(_) => crate::halfspace::KIND,
            AlgorithmConfig::NearestNeighbours(_) => crate::neighbours::KIND,
            AlgorithmConfig::RandomCutForest(_) => crate::cutforest::KIND,
            AlgorithmConfig::T2q(_) => crate::t2q::KIND,
            AlgorithmConfig::Univariate(_) => crate::univariate::KIND,
        }
    }

    /// What its models say, trained for this label.
    pub fn says(&self, label: Option<&LabelConfig>) -> Says {
        match self {
            AlgorithmConfig::Blend(_)
            | AlgorithmConfig::GradientBoosting(_)
            | AlgorithmConfig::KernelRidge(_)
            | AlgorithmConfig::Linear(_) => match label {
                Some(LabelConfig::Failure { .. }) => Says::Probability,
                _ => Says::Estimate,
            },
            AlgorithmConfig::Onnx(c) => c.says.into(),
            _ => Says::Anomaly,
        }
    }

    /// The seed given, recorded in the card also where the algorithm draws nothing at random.
    pub fn seed(&self) -> u64 {
        match self {
            AlgorithmConfig::GaussianMixture(c) => c.seed,
            AlgorithmConfig::KMeans(c) => c.seed,
            AlgorithmConfig::Mewma(c) => c.seed,
            AlgorithmConfig::OneClassSvm(c) => c.seed,
            AlgorithmConfig::Blend(c) => c.seed,
            AlgorithmConfig::GradientBoosting(c) => c.seed,
            AlgorithmConfig::KernelRidge(c) => c.seed,
            AlgorithmConfig::Linear(c) => c.seed,
            AlgorithmConfig::Onnx(c) => c.seed,
            AlgorithmConfig::SensorHealth(c) => c.seed,
            AlgorithmConfig::Drift(c) => c.seed,
            AlgorithmConfig::HalfSpaceTrees(c) => c.seed,
            AlgorithmConfig::NearestNeighbours(c) => c.seed,
            AlgorithmConfig::RandomCutForest(c) => c.seed,
            AlgorithmConfig::T2q(c) => c.seed,
            AlgorithmConfig::Univariate(c) => c.seed,
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
            _ => return false,
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
