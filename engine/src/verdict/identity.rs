//! The name of a log.

use sha2::{Digest, Sha256};

use super::Hash32;

/// The name of one verdict log: one per pipeline and lane. Its text form is the origin line of the log's checkpoints.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct LogOrigin(String);

impl LogOrigin {
    /// The log of a pipeline's lane: `avouch/<pipeline>/<partition>`.
    pub fn new(pipeline: &str, partition: i32) -> Self {
        Self(format!("avouch/{pipeline}/{partition}"))
    }

    /// Takes an origin as it stands, for instance from a bundle.
    pub fn from_text(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The origin line.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// SHA-256 of the origin line: the name under which the log's owner registers it on chain. (The contract's `logId` binds
    /// this name to the owner's account, so that nobody can take it.)
    pub fn log_id(&self) -> Hash32 {
        Sha256::digest(self.0.as_bytes()).into()
    }
}
