//! Signatures under any kind of key.

use super::ecdsa::verify_account;
use super::ed25519::{self, Item};
use super::keys::DeviceKey;
use super::statement::Statement;

/// A signature that is to be judged.
#[derive(Debug, Clone, Copy)]
pub struct Signature<'a> {
    /// The key that speaks for the reading.
    pub key: &'a DeviceKey,
    /// What must be signed.
    pub statement: &'a Statement,
    /// The signature.
    pub signature: &'a [u8],
}

/// Whether each is valid. Those by Ed25519 are judged together, with the answer that each alone would have.
pub fn verify_all(all: &[Signature<'_>]) -> Vec<bool> {
    let mut valid = vec![false; all.len()];
    let mut together = Vec::with_capacity(all.len());
    let mut places = Vec::with_capacity(all.len());
    for (i, one) in all.iter().enumerate() {
        match one.key {
            DeviceKey::Ed25519(key) => {
                if let Ok(signature) = one.signature.try_into() {
                    together.push(Item { key, message: one.statement.as_bytes(), signature });
                    places.push(i);
                }
            }
            DeviceKey::P256(key) => valid[i] = key.verify(&one.statement.digest(), one.signature),
            DeviceKey::Account(address) => {
                valid[i] = verify_account(address, &one.statement.digest(), one.signature);
            }
            DeviceKey::Other(_) => {}
        }
    }
    for (i, ok) in places.into_iter().zip(ed25519::verify_each(&together)) {
        valid[i] = ok;
    }
    valid
}
