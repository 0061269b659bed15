//! The device's side: keys and signatures, as a simulator, a gateway or a test makes them.

use ed25519_dalek::Signer as _;
use p256::ecdsa::signature::hazmat::PrehashSigner as _;
use thiserror::Error;

use super::ecdsa::{P256Key, account_of};
use super::ed25519::PublicKey;
use super::envelope::{Envelope, MOST_IN_BATCH};
use super::keys::DeviceKey;
use super::statement::{BatchTree, Statement, device_hash, leaf};
use crate::verdict::Hash32;

/// Why something cannot be signed.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
pub enum SignerError {
    /// No such kind of key.
    #[error("there is no kind of key \"{0}\"; there are ed25519, p256 and secp256k1")]
    Kind(String),
    /// Bytes that are no secret of this kind.
    #[error("these 32 bytes are no secret key of {0}")]
    Secret(&'static str),
    /// Too many readings, or none.
    #[error("a batch of {0} readings cannot be signed; it may have 1 to 65536, whose numbers have 64 bits")]
    Batch(usize),
    /// The curve's code refused.
    #[error("the signature could not be made")]
    Failed,
}

/// A device's secret key.
#[derive(Debug, Clone)]
pub enum SigningKey {
    /// Ed25519.
    Ed25519(Box<ed25519_dalek::SigningKey>),
    /// P-256.
    P256(p256::ecdsa::SigningKey),
    /// secp256k1.
    Secp256k1(k256::ecdsa::SigningKey),
}

impl SigningKey {
    /// From 32 secret bytes; `kind` as [`DeviceKey::kind`] names it.
    ///
    /// # Errors
    /// [`SignerError::Kind`], and [`SignerError::Secret`] for the few bytes that are no key of an ECDSA curve.
    pub fn new(kind: &str, secret: &[u8; 32]) -> Result<Self, SignerError> {
        match kind {
            "ed25519" => Ok(Self::Ed25519(Box::new(ed25519_dalek::SigningKey::from_bytes(secret)))),
            "p256" => {
                p256::ecdsa::SigningKey::from_slice(secret).map(Self::P256).map_err(|_| SignerError::Secret("p256"))
            }
            "secp256k1" => {
                let key = k256::ecdsa::SigningKey::from_slice(secret);
                key.map(Self::Secp256k1).map_err(|_| SignerError::Secret("secp256k1"))
            }
            other => Err(SignerError::Kind(other.to_owned())),
        }
    }

    /// What verifies its signatures.
    pub fn public(&self) -> DeviceKey {
        match self {
            Self::Ed25519(key) => DeviceKey::Ed25519(PublicKey::new(key.verifying_key().to_bytes())),
            Self::P256(key) => {
                let mut bytes = [0; 64];
                bytes.copy_from_slice(&key.verifying_key().to_encoded_point(false).as_bytes()[1..]);
                DeviceKey::P256(Box::new(P256Key::new(bytes)))
            }
            Self::Secp256k1(key) => DeviceKey::Account(account_of(key.verifying_key())),
        }
    }

    /// Signs a statement.
    ///
    /// # Errors
    /// [`SignerError::Failed`].
    pub fn sign(&self, statement: &Statement) -> Result<Vec<u8>, SignerError> {
        match self {
            Self::Ed25519(key) => Ok(key.sign(statement.as_bytes()).to_bytes().to_vec()),
            _ => self.sign_digest(&statement.digest()),
        }
    }

    /// Signs a digest, such as that of an enrolment; Ed25519 signs its 32 bytes.
    ///
    /// # Errors
    /// [`SignerError::Failed`].
    pub fn sign_digest(&self, digest: &Hash32) -> Result<Vec<u8>, SignerError> {
        match self {
            Self::Ed25519(key) => Ok(key.sign(digest).to_bytes().to_vec()),
            Self::P256(key) => {
                let signature: p256::ecdsa::Signature = key.sign_prehash(digest).map_err(|_| SignerError::Failed)?;
                Ok(signature.normalize_s().unwrap_or(signature).to_bytes().to_vec())
            }
            Self::Secp256k1(key) => {
                // Its `s` is the lower one.
                let (signature, recovery) = key.sign_prehash_recoverable(digest).map_err(|_| SignerError::Failed)?;
                let mut out = signature.to_bytes().to_vec();
                out.push(27 + u8::from(recovery.is_y_odd()));
                Ok(out)
            }
        }
    }
}

/// The envelope of one reading.
///
/// # Errors
/// [`SignerError::Failed`].
pub fn sign_reading(
    key: &SigningKey,
    domain: &Hash32,
    device: &str,
    seq: u64,
    content: &Hash32,
) -> Result<Vec<u8>, SignerError> {
    let statement = Statement::reading(domain, &device_hash(device.as_bytes()), seq, content);
    Ok(Envelope::reading(seq, &key.sign(&statement)?))
}

/// The envelopes of readings that are signed together, numbered from `first` on.
///
/// # Errors
/// [`SignerError::Batch`] for none, or too many; [`SignerError::Failed`].
pub fn sign_batch(
    key: &SigningKey,
    domain: &Hash32,
    device: &str,
    first: u64,
    contents: &[Hash32],
) -> Result<Vec<Vec<u8>>, SignerError> {
    let wrong = SignerError::Batch(contents.len());
    let count = u32::try_from(contents.len()).ok().filter(|n| (1..=MOST_IN_BATCH).contains(n)).ok_or(wrong.clone())?;
    first.checked_add(u64::from(count - 1)).ok_or(wrong)?;
    let tree = BatchTree::new((first..).zip(contents).map(|(seq, content)| leaf(seq, content)).collect());
    let root = tree.root();
    let signature = key.sign(&Statement::batch(domain, &device_hash(device.as_bytes()), first, &root, count))?;
    let member = |i: u32| Envelope::member(first, count, i, &tree.path(i as usize), &signature);
    Ok((0..count).map(member).collect())
}
