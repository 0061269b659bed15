//! P-256 (ES256) and secp256k1, of messages hashed by SHA-256. Of the two signatures that every one of them has a twin in, only
//! the one with the lower `s` is valid, as in OpenZeppelin's contracts: nobody can make another signature of one they saw.

use alloy_primitives::keccak256;
use k256::ecdsa::RecoveryId;
use p256::ecdsa::signature::hazmat::PrehashVerifier as _;

use crate::verdict::Hash32;

/// A P-256 key: its coordinates, and the key, if they are a point of the curve.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct P256Key {
    bytes: [u8; 64],
    key: Option<p256::ecdsa::VerifyingKey>,
}

impl P256Key {
    /// Any coordinates. Under ones that are no point nothing is valid.
    pub fn new(bytes: [u8; 64]) -> Self {
        let mut sec1 = [4; 65];
        sec1[1..].copy_from_slice(&bytes);
        Self { bytes, key: p256::ecdsa::VerifyingKey::from_sec1_bytes(&sec1).ok() }
    }

    /// `x ‖ y`.
    pub fn as_bytes(&self) -> &[u8; 64] {
        &self.bytes
    }

    /// Whether the coordinates are a point of the curve.
    pub fn is_point(&self) -> bool {
        self.key.is_some()
    }

    /// Whether `signature`, `r ‖ s`, is this key's of `digest`.
    pub fn verify(&self, digest: &Hash32, signature: &[u8]) -> bool {
        let (Some(key), Ok(signature)) = (&self.key, p256::ecdsa::Signature::from_slice(signature)) else {
            return false;
        };
        signature.normalize_s().is_none() && key.verify_prehash(digest, &signature).is_ok()
    }
}

/// Whether `signature`, `r ‖ s ‖ v` with `v` 27 or 28, is of `digest` and by the account `address`.
pub fn verify_account(address: &[u8; 20], digest: &Hash32, signature: &[u8]) -> bool {
    let Some((v, rs)) = signature.split_last() else { return false };
    let (Some(parity), Ok(signature)) = (v.checked_sub(27).filter(|p| *p < 2), k256::ecdsa::Signature::from_slice(rs))
    else {
        return false;
    };
    if signature.normalize_s().is_some() {
        return false;
    }
    let recovery = RecoveryId::new(parity == 1, false);
    k256::ecdsa::VerifyingKey::recover_from_prehash(digest, &signature, recovery)
        .is_ok_and(|key| account_of(&key) == *address)
}

/// The account of a secp256k1 key.
pub fn account_of(key: &k256::ecdsa::VerifyingKey) -> [u8; 20] {
    let point = key.to_encoded_point(false);
    let mut address = [0; 20];
    address.copy_from_slice(&keccak256(&point.as_bytes()[1..])[12..]);
    address
}
