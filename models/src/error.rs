//! What can go wrong with a model, each error saying where and what to do next.

use avouch_engine::codec::CodecError;
use thiserror::Error;

/// Why a model could not be configured, trained or loaded.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ModelError {
    /// A training option is out of range or contradicts another one. `key` is its path below `[train.<name>]`.
    #[error("{key}: {why}")]
    Config {
        /// Path of the option, such as `algorithm.variance`.
        key: &'static str,
        /// What is wrong and what is allowed.
        why: String,
    },
    /// The training rows lack a column, or one has a type that cannot be used.
    #[error("training column `{column}`: {why}")]
    Column {
        /// Name of the column.
        column: String,
        /// What is wrong.
        why: String,
    },
    /// The training rows are of no use as a whole.
    #[error("training rows: {0}")]
    Rows(String),
    /// A feature that never varies cannot be scaled.
    #[error(
        "feature `{feature}` is the same in all rows the model is fitted on{within}; leave it out of the step's \
         `features`, or train on data in which it varies"
    )]
    ConstantFeature {
        /// Name of the feature.
        feature: String,
        /// Empty, or where it does not vary.
        within: &'static str,
    },
    /// The bytes are not a model file.
    #[error("not an Avouch model file: it starts with {found}, not with `AVOUCHM`; check the path in `model.file`")]
    NotAModel {
        /// The first bytes, printable.
        found: String,
    },
    /// The file is of a format this program does not know.
    #[error(
        "model file version {found} is not understood, this program reads version {known}; retrain the model with \
         `avouch train`, or use the program it was trained with"
    )]
    UnknownVersion {
        /// Version in the file.
        found: u16,
        /// Version this program reads and writes.
        known: u16,
    },
    /// The file is of an algorithm this program does not know.
    #[error("model kind `{found}` is not known, this program has: {known}; use the program the model was trained with")]
    UnknownKind {
        /// Kind in the file.
        found: String,
        /// Kinds this program knows.
        known: String,
    },
    /// The file's own digest does not match its contents.
    #[error(
        "the model file was truncated or altered: its contents hash to {found}, its trailer says {stated}; fetch it \
         again from where it was published"
    )]
    Altered {
        /// SHA-256 of the contents, hexadecimal.
        found: String,
        /// What the trailer states, hexadecimal.
        stated: String,
    },
    /// The file's digest is right, yet its contents are not a model.
    #[error("model file: {0}")]
    Malformed(#[from] CodecError),
    /// A linfa trait failed.
    #[error(transparent)]
    Linfa(#[from] linfa::Error),
    /// Polars failed while preparing the rows.
    #[error("preparing the training rows: {0}")]
    Polars(#[from] polars::error::PolarsError),
}

impl ModelError {
    pub(crate) fn config(key: &'static str, why: impl Into<String>) -> Self {
        ModelError::Config { key, why: why.into() }
    }

    pub(crate) fn column(column: &str, why: impl Into<String>) -> Self {
        ModelError::Column { column: column.to_owned(), why: why.into() }
    }
}
