//! The operator's key: signs checkpoints and pays for the transactions that carry them.

use std::path::Path;

use alloy::consensus::{SignableTransaction, TxEip1559, TxEnvelope};
use alloy::eips::eip2718::Encodable2718;
use alloy::primitives::{Address, B256, Bytes};
use alloy::signers::SignerSync;
use alloy::signers::local::PrivateKeySigner;
use avouch_engine::verdict::Hash32;

use super::checkpoint::{Checkpoint, Domain};
use super::error::EthereumError;

/// A secp256k1 key held in memory. Its `Debug` form shows the address alone.
#[derive(Clone)]
pub struct OperatorKey {
    signer: PrivateKeySigner,
}

impl std::fmt::Debug for OperatorKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "OperatorKey({})", self.address())
    }
}

impl OperatorKey {
    /// Decrypts an encrypted keystore file (Web3 Secret Storage, as `cast wallet new`, geth and others write it). This
    /// takes a second or so by design: the password is stretched.
    pub fn from_keystore(path: &Path, password: &str) -> Result<Self, EthereumError> {
        // A password read from a file usually ends in a newline that is not part of it.
        let password = password.trim_end_matches(['\r', '\n']);
        let keystore = |reason: String| EthereumError::Keystore { path: path.to_owned(), reason };
        std::fs::metadata(path).map_err(|e| keystore(e.to_string()))?;
        let signer = PrivateKeySigner::decrypt_keystore(path, password).map_err(|e| keystore(e.to_string()))?;
        Ok(Self { signer })
    }

    /// Reads a hexadecimal private key from an environment variable. For development: an environment is easily read by
    /// others, a keystore is not.
    pub fn from_env(variable: &str) -> Result<Self, EthereumError> {
        let missing =
            |reason: &str| EthereumError::KeyVariable { variable: variable.to_owned(), reason: reason.to_owned() };
        let text = std::env::var(variable).map_err(|_| missing("it is not set"))?;
        // The reason never repeats the text: it may be a key with one letter too many.
        Self::from_hex(text.trim()).ok_or_else(|| missing("it is not a private key of 64 hexadecimal digits"))
    }

    /// From 64 hexadecimal digits, with or without `0x`; `None` if they are no key.
    pub fn from_hex(text: &str) -> Option<Self> {
        Some(Self { signer: text.parse().ok()? })
    }

    /// A fresh key from the operating system's randomness, for development chains and tests.
    pub fn random() -> Self {
        Self { signer: PrivateKeySigner::random() }
    }

    /// The account of this key.
    pub fn address(&self) -> Address {
        self.signer.address()
    }

    /// Signs a checkpoint for a chain and contract: 65 bytes r, s, v. RFC 6979, so the same checkpoint gives the same bytes.
    pub fn sign_checkpoint(&self, checkpoint: &Checkpoint, domain: &Domain) -> Result<Vec<u8>, EthereumError> {
        self.sign_hash(&checkpoint.signing_hash(domain))
    }

    fn sign_hash(&self, hash: &Hash32) -> Result<Vec<u8>, EthereumError> {
        let signature = self
            .signer
            .sign_hash_sync(&B256::from(*hash))
            .map_err(|e| EthereumError::Signing { account: self.address(), reason: e.to_string() })?;
        Ok(signature.as_bytes().to_vec())
    }

    /// Signs a transaction: its hash and the raw bytes to send.
    pub(crate) fn sign_transaction(&self, transaction: TxEip1559) -> Result<(Hash32, Bytes), EthereumError> {
        let signature = self
            .signer
            .sign_hash_sync(&transaction.signature_hash())
            .map_err(|e| EthereumError::Signing { account: self.address(), reason: e.to_string() })?;
        let envelope = TxEnvelope::from(transaction.into_signed(signature));
        Ok((envelope.tx_hash().0, envelope.encoded_2718().into()))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// Written by `cast wallet import` from the private key 1111…11 under the password "correct horse".
    const KEYSTORE: &str = include_str!("testdata/keystore.json");
    const KEY: &str = "1111111111111111111111111111111111111111111111111111111111111111";

    #[test]
    fn a_keystore_of_another_program_opens() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("operator.json");
        std::fs::write(&path, KEYSTORE).unwrap();
        let key = OperatorKey::from_keystore(&path, "correct horse\n").unwrap();
        assert_eq!(key.address(), OperatorKey::from_hex(KEY).unwrap().address());
        assert!(format!("{key:?}").starts_with("OperatorKey(0x19E7E376"), "{key:?}");

        let wrong = OperatorKey::from_keystore(&path, "wrong").unwrap_err().to_string();
        assert!(wrong.contains("operator.json") && !wrong.contains("wrong "), "{wrong}");
        let gone = OperatorKey::from_keystore(&dir.path().join("none.json"), "x").unwrap_err().to_string();
        assert!(gone.contains("none.json"), "{gone}");
        std::fs::write(&path, "{}").unwrap();
        assert!(OperatorKey::from_keystore(&path, "x").is_err());
    }

    #[test]
    fn a_key_in_the_environment_is_never_repeated() {
        let missing = OperatorKey::from_env("AVOUCH_TEST_NO_SUCH_VARIABLE").unwrap_err().to_string();
        assert!(missing.contains("AVOUCH_TEST_NO_SUCH_VARIABLE") && missing.contains("not set"), "{missing}");
        assert!(OperatorKey::from_hex("0x").is_none());
        assert!(OperatorKey::from_hex(&format!("{KEY}1")).is_none());
        assert!(OperatorKey::from_hex(&format!("0x{KEY}")).is_some());
    }
}
