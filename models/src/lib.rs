//! Avouch's models: detectors on linfa, their training and calibration, and the model file whose hash goes on chain.
//!
//! ```text
//!     Arrow batches ─► TrainingFrame (Polars: order, clean, split) ─► fit (linfa traits) ─► calibrate ─► model file
//!                                                                                                            │
//!     verdicts ◄─ engine ◄─ Scorer ◄─────────────────────────────────────────────────────────────────── load ┘
//! ```
//!
//! Training is a pure function: the same rows, configuration and seed give the same bytes, and scoring gives the same
//! bits, on every machine. See `README.md` beside this crate for the algorithms and when to choose which.
//!
//! ```
//! use std::sync::Arc;
//! use arrow::array::{ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray};
//! use avouch_models::{AlgorithmConfig, SplitConfig, TrainConfig, TrainingFrame, train};
//!
//! // A hundred windows of a pump: temperature and vibration, which rise and fall together.
//! let t: Vec<f64> = (0..100).map(|i| 60.0 + f64::from(i % 7)).collect();
//! let v: Vec<f64> = (0..100).map(|i| 1.0 + 0.1 * f64::from(i % 7) + 0.01 * f64::from(i % 3)).collect();
//! let batch = RecordBatch::try_from_iter([
//!     ("device", Arc::new(StringArray::from(vec!["pump-1"; 100])) as ArrayRef),
//!     ("window_end", Arc::new(Int64Array::from_iter_values((1..=100).map(|i| i * 10_000)))),
//!     ("temp_mean", Arc::new(Float64Array::from(t))),
//!     ("vib_rms", Arc::new(Float64Array::from(v))),
//! ])?;
//! let features = ["temp_mean".to_owned(), "vib_rms".to_owned()];
//! let frame = TrainingFrame::from_batches(&features, [&batch])?;
//! let algorithm: AlgorithmConfig = serde_json::from_str(r#"{"kind": "t2-q", "variance": 0.95}"#)?;
//! let config = TrainConfig { algorithm, split: SplitConfig::default(), provenance: Default::default() };
//! let model = train(&frame, &config)?;
//!
//! let (mut expected, mut contributions) = ([0.0; 2], [0.0; 2]);
//! let hot = model.scorer.score("pump-1", &[66.0, 1.0], &mut expected, &mut contributions);
//! let fine = model.scorer.score("pump-1", &[63.0, 1.3], &mut expected, &mut contributions);
//! assert!(hot.p_value < 0.05 && fine.p_value > 0.05);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

pub mod blend;
pub mod calibrate;
mod calibrated;
pub mod card;
pub mod config;
pub mod cutforest;
mod draw;
pub mod drift;
mod error;
pub mod evaluate;
pub mod file;
pub mod frame;
pub mod gaussian_mixture;
pub mod gradient_boosting;
pub mod halfspace;
mod held_back;
pub mod k_means;
pub mod kernel_ridge;
pub mod label;
pub mod linear;
pub mod mewma;
pub mod nab;
pub mod neighbours;
pub mod one_class_svm;
pub mod onnx;
pub mod params;
pub mod perdevice;
pub mod prognosis;
pub mod ranking;
pub mod recipe;
pub mod sensor_health;
mod standard;
pub mod t2q;
pub mod table;
mod train;
pub mod univariate;

use std::sync::Arc;

use avouch_engine::model::Scorer;

pub use calibrated::{CalibratedScorer, VectorModel};
pub use card::ModelCard;
pub use config::{AlgorithmConfig, Provenance, SplitBy, SplitConfig, TrainConfig};
pub use error::ModelError;
pub use evaluate::{Confusion, Evaluation};
pub use file::{ModelFile, model_hash};
pub use frame::TrainingFrame;
pub use label::{Failures, LabelConfig};
pub use train::{TrainedModel, train};

/// Loads a model file for scoring. Refuses what is not a model file, is of an unknown version or kind, was truncated
/// or altered, or is not laid out as this program writes it.
pub fn load(bytes: &[u8]) -> Result<Arc<dyn Scorer>, ModelError> {
    let file = file::open(bytes)?;
    let scorer: Arc<dyn Scorer> = match file.kind.as_str() {
        cutforest::KIND => Arc::new(perdevice::decode::<cutforest::RandomCutForest>(&file.body, file.hash)?),
        halfspace::KIND => Arc::new(perdevice::decode::<halfspace::HalfSpaceTrees>(&file.body, file.hash)?),
        neighbours::KIND => Arc::new(perdevice::decode::<neighbours::NearestNeighbours>(&file.body, file.hash)?),
        drift::KIND => Arc::new(drift::decode(&file.body, file.hash)?),
        gaussian_mixture::KIND => Arc::new(gaussian_mixture::decode(&file.body, file.hash)?),
        k_means::KIND => Arc::new(k_means::decode(&file.body, file.hash)?),
        kind if prognosis::is_kind(kind) => Arc::new(prognosis::decode(&file.body, file.hash)?),
        mewma::KIND => Arc::new(mewma::decode(&file.body, file.hash)?),
        one_class_svm::KIND => Arc::new(one_class_svm::decode(&file.body, file.hash)?),
        onnx::KIND => Arc::new(onnx::decode(&file.body, file.hash)?),
        sensor_health::KIND => Arc::new(sensor_health::decode(&file.body, file.hash)?),
        t2q::KIND => t2q::load(&file.body, file.hash)?,
        univariate::KIND => Arc::new(univariate::decode(&file.body, file.hash)?),
        other => {
            return Err(ModelError::UnknownKind { found: other.to_owned(), known: AlgorithmConfig::KINDS.join(", ") });
        }
    };
    if scorer.features() != file.card.features.as_slice() {
        return Err(ModelError::Malformed(avouch_engine::codec::CodecError::Invalid {
            what: "model file",
            why: "the card lists other features than the model takes".to_owned(),
            at: 0,
        }));
    }
    Ok(scorer)
}
