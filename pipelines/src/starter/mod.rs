//! A first pipeline from a sample of readings: what `avouch new` writes.
//!
//! ```text
//!   file, or topic ─ sample ─► rows of JSON ─ guess ─► Guess: fields, time, device, cadence, windows ─ write ─► files
//! ```
//!
//! The same sample and answers give the same files.

mod guess;
mod sample;
mod write;

use thiserror::Error;

pub use guess::{Answers, Guess, guess};
pub use sample::{Sample, sample_of_file, sample_of_topic};
pub use write::{Written, files_of};

/// Why no pipeline can be made of a sample.
#[derive(Debug, Error)]
pub enum StarterError {
    /// The file cannot be read.
    #[error(transparent)]
    Files(#[from] avouch_connectors::files::FilesError),
    /// The topic cannot be read.
    #[error(transparent)]
    Kafka(#[from] avouch_connectors::kafka::KafkaError),
    /// What the sample holds is not enough, with what to do.
    #[error("{0}")]
    Sample(String),
    /// Nothing in the sample seems to name the device.
    #[error("{0}")]
    NoDevice(String),
    /// A file cannot be written.
    #[error("{path}: {source}")]
    Write {
        /// The file.
        path: std::path::PathBuf,
        /// The system's words.
        source: std::io::Error,
    },
    /// What was written is wrong. It is left as it is, to be looked at.
    #[error("{0}")]
    Own(String),
}
