//! Pseudonyms, salts and the name of a log.

use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};

use super::Hash32;
use crate::sha256::{self, Messages};

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
    /// SHA-256 after the block of the inner and of the outer key, from which many are made side by side.
    states: [sha256::State; 2],
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
        let mut block = [0; 64];
        if key.len() <= 64 {
            block[..key.len()].copy_from_slice(key);
        } else {
            block[..32].copy_from_slice(&Sha256::digest(key));
        }
        let states = [0x36, 0x5c].map(|pad| {
            let mut state = sha256::INITIAL;
            sha256::compress(&mut state, &block.map(|b| b ^ pad));
            state
        });
        Self { keyed, states }
    }

    /// `deviceId`: HMAC-SHA-256(secret, "avouch/device/1" ‖ 0x00 ‖ name).
    pub fn device_id(&self, device: &str) -> Hash32 {
        let mut mac = self.keyed.clone();
        mac.update(b"avouch/device/1\0");
        mac.update(device.as_bytes());
        mac.finalize().into_bytes().into()
    }

    /// The pseudonym of a person who labels: HMAC-SHA-256(secret, "avouch/person/1" ‖ 0x00 ‖ name).
    pub fn person_id(&self, name: &str) -> Hash32 {
        let mut mac = self.keyed.clone();
        mac.update(b"avouch/person/1\0");
        mac.update(name.as_bytes());
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

    /// What the `count` records from `first` on are blinded with: [`Secret::salt`], and `evidence`, which is
    /// HMAC-SHA-256(secret, "avouch/parts/1" ‖ 0x00 ‖ log id ‖ index as 8 bytes, big-endian). Made for many at once.
    pub fn record_salts(&self, log_id: &Hash32, first: u64, count: usize) -> Vec<RecordSalts> {
        let mut messages = Messages::default();
        for index in (first..).take(count) {
            for tag in [b"avouch/salt/1\0".as_slice(), b"avouch/parts/1\0"] {
                messages.bytes.extend_from_slice(tag);
                messages.bytes.extend_from_slice(log_id);
                messages.bytes.extend_from_slice(&index.to_be_bytes());
                messages.end();
            }
        }
        let [inner, outer] = &self.states;
        let hashes = messages.digests_after(inner, 64);
        messages.clear();
        for hash in &hashes {
            messages.bytes.extend_from_slice(hash);
            messages.end();
        }
        let made = messages.digests_after(outer, 64);
        made.chunks_exact(2).map(|two| RecordSalts { salt: two[0], evidence: two[1] }).collect()
    }
}

/// What one record is blinded with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordSalts {
    /// The verdict's `salt`.
    pub salt: Hash32,
    /// [`super::Evidence::salt`].
    pub evidence: Hash32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_salts_are_those_made_one_by_one() {
        for key in [&b""[..], b"short", &[7; 64], &[9; 65], &[1; 200]] {
            let secret = Secret::new(key);
            let id = LogOrigin::new("pumps", 3).log_id();
            let one_by_one: Vec<Hash32> = (41..41 + 37).map(|i| secret.salt(&id, i)).collect();
            let together = secret.record_salts(&id, 41, 37);
            assert_eq!(together.iter().map(|s| s.salt).collect::<Vec<_>>(), one_by_one);
            assert!(together.iter().all(|s| s.salt != s.evidence));
        }
    }
}
