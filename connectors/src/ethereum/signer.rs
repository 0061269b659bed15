//! The operator's key: signs checkpoints and pays for the transactions that carry them.
//!
//! It is held in memory, or asked for each signature where it lies (AWS KMS). A key in memory signs by RFC 6979: the same hash gives
//! the same bytes. One in KMS does not: **two signatures of one hash differ, and both are valid.** So nothing here signs twice what
//! it may have given away. A checkpoint's signature is made once and kept, by the runtime beside the lane and by the journal
//! in the attempt, and every transaction of that attempt carries it. A transaction is signed once and journaled before it is sent; what is
//! sent again, after a restart or a reorg, are the journaled bytes. A crash between signing and keeping loses a signature that nobody has
//! seen, and the next one takes its place.

use std::path::Path;
#[cfg(feature = "aws-kms")]
use std::sync::Arc;

use alloy::consensus::{SignableTransaction, TxEip1559, TxEnvelope};
use alloy::eips::eip2718::Encodable2718;
use alloy::primitives::{Address, B256, Bytes, Signature};
use alloy::signers::SignerSync;
use alloy::signers::local::PrivateKeySigner;
use avouch_engine::verdict::Hash32;

use super::checkpoint::{Checkpoint, Domain};
use super::error::EthereumError;
#[cfg(feature = "aws-kms")]
use super::kms::KmsKey;
#[cfg(not(feature = "aws-kms"))]
use super::kms_error::KmsError;
use super::kms_options::KmsOptions;

/// A secp256k1 key, in memory or in AWS KMS. One in KMS signs the same hash with other bytes each time, all of them valid, so a
/// signature or a signed transaction that was given away is kept and never made again.
///
/// Its `Debug` form shows the address, and where the key lies if that is not here.
#[derive(Clone)]
pub struct OperatorKey {
    held: Held,
}

/// Where a key lies.
#[derive(Clone)]
enum Held {
    Here(PrivateKeySigner),
    #[cfg(feature = "aws-kms")]
    Kms(Arc<KmsKey>),
}

impl std::fmt::Debug for OperatorKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.held {
            Held::Here(signer) => write!(f, "OperatorKey({})", signer.address()),
            #[cfg(feature = "aws-kms")]
            Held::Kms(key) => write!(f, "OperatorKey({key:?})"),
        }
    }
}

impl From<PrivateKeySigner> for OperatorKey {
    fn from(signer: PrivateKeySigner) -> Self {
        Self { held: Held::Here(signer) }
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
        Ok(signer.into())
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
        Some(text.parse::<PrivateKeySigner>().ok()?.into())
    }

    /// A fresh key from the operating system's randomness, for development chains and tests.
    pub fn random() -> Self {
        PrivateKeySigner::random().into()
    }

    /// A key in AWS KMS, of spec `ECC_SECG_P256K1` for `SIGN_VERIFY`. Asks the service for its public key, and so whether it is
    /// there, fit and allowed to be looked at; whether it may sign, only a signature shows.
    ///
    /// # Errors
    /// [`EthereumError::Kms`], with what to do. Without the cargo feature `aws-kms` that is always
    /// [`KmsError::NotBuilt`](super::KmsError::NotBuilt).
    pub async fn from_kms(options: KmsOptions) -> Result<Self, EthereumError> {
        #[cfg(feature = "aws-kms")]
        {
            Ok(Self { held: Held::Kms(Arc::new(KmsKey::open(options).await?)) })
        }
        #[cfg(not(feature = "aws-kms"))]
        {
            Err(KmsError::NotBuilt { key: options.key }.into())
        }
    }

    /// The account of this key.
    pub fn address(&self) -> Address {
        match &self.held {
            Held::Here(signer) => signer.address(),
            #[cfg(feature = "aws-kms")]
            Held::Kms(key) => key.address(),
        }
    }

    /// Signs a checkpoint for a chain and contract: 65 bytes r, s, v. Keep them: another call may give others.
    ///
    /// # Errors
    /// [`EthereumError::Signing`]; for a key elsewhere [`EthereumError::Kms`].
    pub async fn sign_checkpoint(&self, checkpoint: &Checkpoint, domain: &Domain) -> Result<Vec<u8>, EthereumError> {
        let signature = self.sign_hash(&B256::from(checkpoint.signing_hash(domain))).await?;
        Ok(signature.as_bytes().to_vec())
    }

    async fn sign_hash(&self, hash: &B256) -> Result<Signature, EthereumError> {
        match &self.held {
            Held::Here(signer) => signer
                .sign_hash_sync(hash)
                .map_err(|e| EthereumError::Signing { account: signer.address(), reason: e.to_string() }),
            #[cfg(feature = "aws-kms")]
            Held::Kms(key) => Ok(key.sign(hash).await?),
        }
    }

    /// Signs a transaction: its hash and the raw bytes to send.
    pub(crate) async fn sign_transaction(&self, transaction: TxEip1559) -> Result<(Hash32, Bytes), EthereumError> {
        let signature = self.sign_hash(&transaction.signature_hash()).await?;
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
