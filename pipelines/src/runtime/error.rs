//! Why a pipeline cannot run on.

use std::path::PathBuf;

use avouch_connectors::http::HttpError;
use avouch_connectors::kafka::KafkaError;
use avouch_connectors::store::StoreError;
use avouch_engine::control::invariants::Violation;
use avouch_engine::lane::LaneError;
use thiserror::Error;

/// An error of a running pipeline.
#[derive(Debug, Error)]
pub enum RuntimeError {
    /// Kafka.
    #[error(transparent)]
    Kafka(#[from] KafkaError),
    /// Files of a source.
    #[error(transparent)]
    Files(#[from] avouch_connectors::files::FilesError),
    /// The journal of a source.
    #[error(transparent)]
    Journal(#[from] avouch_connectors::journal::JournalError),
    /// The MQTT broker of a source.
    #[error(transparent)]
    Mqtt(#[from] avouch_connectors::mqtt::MqttError),
    /// The durable store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A lane.
    #[error("lane {lane}: {source}")]
    Lane {
        /// The source partition.
        lane: i32,
        /// What happened.
        source: LaneError,
    },
    /// The HTTP server.
    #[error(transparent)]
    Http(#[from] HttpError),
    /// The schema registry's settings.
    #[error(transparent)]
    Registry(#[from] avouch_connectors::schema_registry::RegistryError),
    /// The chain.
    #[error(transparent)]
    Chain(#[from] avouch_connectors::ethereum::EthereumError),
    /// A file of the state directory.
    #[error("{path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// The system's words.
        source: std::io::Error,
    },
    /// What is kept does not fit together.
    #[error("lane {lane}: {why}")]
    Inconsistent {
        /// The source partition.
        lane: i32,
        /// What.
        why: String,
    },
    /// The lanes were run under another version of the pipeline, and nobody has said that they are to go on under this one.
    #[error(
        "the lanes of this pipeline were last run under another version of its file (configHash {found}, this one is \
         {expected}). If this file is to be used from here on, start with --accept-change: the lanes go on at their checkpoints, \
         the state of steps that changed is dropped and said, and the log goes on. Else bring the other file back, or give \
         this one a new pipeline.name, which begins a new log"
    )]
    Changed {
        /// Hex of the latest configHash.
        found: String,
        /// Hex of this one.
        expected: String,
    },
    /// An invariant does not hold: going on would be wrong.
    #[error("lane {lane}: {source}")]
    Violation {
        /// The source partition.
        lane: i32,
        /// Which, and how.
        source: Violation,
    },
    /// Metrics could not be registered, or a thread not started.
    #[error("{0}")]
    Start(String),
}

impl RuntimeError {
    /// Whether it says that another process writes what we wrote.
    pub fn is_fence(&self) -> bool {
        matches!(self, RuntimeError::Kafka(KafkaError::Fenced { .. }) | RuntimeError::Store(StoreError::Fenced { .. }))
    }
}
