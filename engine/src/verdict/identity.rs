//! Pseudonyms, salts and the name of a log.

use hmac::{Hmac, KeyInit, Mac};
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

/// The pipeline's secret for one period. Whoever destroys it makes the pseudonyms and salts made under it unlinkable.
#[derive(Clone)]
pub struct Secret {
    keyed: Hmac<Sha256>,
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(…)")
    }
}

impl Secret {
    /// From key bytes of any length (RFC 2104); 32 random bytes are right.
    pub fn new(key: &[u8]) -> Self {
        let keyed = match Hmac::<Sha256>::new_from_slice(key) {
            Ok(keyed) => keyed,
            // Invariant: HMAC takes keys of every length.
            Err(_) => unreachable!("HMAC-SHA-256 accepts any key length"),
        };
        Self { keyed }
    }

    /// `deviceId`: HMAC-SHA-256(secret, "avouch/device/1" ‖ 0x00 ‖ name).
    pub fn device_id(&self, device: &str) -> Hash32 {
        let mut mac = self.keyed.clone();
        mac.update(b"avouch/device/1\0");
        mac.update(device.as_bytes());
        mac.finalize().into_bytes().into()
    }

    /// Seed of the Ed25519 key that signs a log's published checkpoints where several machines must sign as one:
    /// HMAC-SHA-256(secret, "avouch/note-key/1" ‖ 0x00 ‖ log id).
    pub fn note_seed(&self, log_id: &Hash32) -> Hash32 {
        let mut mac = self.keyed.clone();
        mac.update(b"avouch/note-key/1\0");
        mac.update(log_id);
        mac.finalize().into_bytes().into()
    }

    /// `salt`: HMAC-SHA-256(secret, "avouch/salt/1" ‖ 0x00 ‖ log id ‖ index as 8 bytes, big-endian).
    pub fn salt(&self, log_id: &Hash32, index: u64) -> Hash32 {
        let mut mac = self.keyed.clone();
        mac.update(b"avouch/salt/1\0");
        mac.update(log_id);
        mac.update(&index.to_be_bytes());
        mac.finalize().into_bytes().into()
    }
}
