//! Why the demo did not come to its end.

use std::path::{Path, PathBuf};

use avouch_connectors::ethereum::EthereumError;
use avouch_connectors::kafka::KafkaError;
use avouch_connectors::store::StoreError;
use thiserror::Error;

use crate::commands::bundle::BundleFailure;
use crate::commands::produce::PublishError;
use crate::commands::train::TrainError;
use crate::runtime::RuntimeError;
use crate::simulator::SimulatorError;

/// Why the demo did not come to its end.
#[derive(Debug, Error)]
pub enum DemoError {
    /// Ctrl-C.
    #[error("interrupted; what was done until then is in {0}")]
    Interrupted(PathBuf),
    /// A directory with something in it.
    #[error("--dir {0}: there is something in it already; name a new or empty directory")]
    NotEmpty(PathBuf),
    /// A file could not be read or written.
    #[error("{path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// The system's words.
        source: std::io::Error,
    },
    /// No chain could be started.
    #[error("no Ethereum node for the demo: {0}")]
    NoAnvil(String),
    /// The fleet.
    #[error(transparent)]
    Fleet(#[from] SimulatorError),
    /// The demo's pipeline file does not load.
    #[error("the demo's pipeline: {0}")]
    Pipeline(String),
    /// Training.
    #[error("training: {0}")]
    Train(#[from] TrainError),
    /// Kafka.
    #[error(transparent)]
    Kafka(#[from] KafkaError),
    /// The simulator's readings could not be sent.
    #[error(transparent)]
    Publish(#[from] PublishError),
    /// Readings were refused.
    #[error("sending readings: {failed} of {sent} were not delivered; the first: {first}")]
    Undelivered {
        /// How many.
        failed: u64,
        /// Of how many.
        sent: u64,
        /// What was said of the first.
        first: String,
    },
    /// The chain.
    #[error(transparent)]
    Chain(#[from] EthereumError),
    /// The pipeline.
    #[error("the pipeline stopped: {0}")]
    Runtime(#[from] RuntimeError),
    /// Nothing moves any more.
    #[error("{0}; the log is {1}")]
    Stalled(String, PathBuf),
    /// The verdict log cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// No evidence.
    #[error("bundling a verdict: {0}")]
    Bundle(#[from] BundleFailure),
    /// No verdict to bundle.
    #[error(
        "no critical verdict about a pump that is really faulty, so there is nothing to bundle; try a longer --duration"
    )]
    NothingFound,
    /// A thread ended.
    #[error("a part of the demo ended: {0}")]
    Thread(String),
}

impl DemoError {
    pub(crate) fn file(path: &Path, source: std::io::Error) -> Self {
        DemoError::File { path: path.to_path_buf(), source }
    }
}
