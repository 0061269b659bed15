//! An operator's key in AWS KMS: it never leaves the service, and what it signs is asked for, one hash a request.
//!
//! | part | what it is |
//! | --- | --- |
//! | [`KmsKey`] | one key: which account it is, and its signatures |
//! | `client` | two calls of the service's JSON interface, signed with SigV4 and repeated where that may help |
//! | `encoding` | the service's DER to what Ethereum takes, and back to an account |
//!
//! What is asked of the service is `GetPublicKey`, once when the key is opened, and `Sign` with `MessageType` `DIGEST`: the hash
//! that is signed is Ethereum's (keccak256), which KMS cannot compute; it gets the 32 bytes and sees nothing of what they stand for.
//!
//! **Signatures are not repeatable.** KMS draws a nonce for each, so the same hash signed twice gives two signatures, both
//! valid. Nothing may therefore be signed anew that was, or may have been, given away: the journal keeps the very signature of a
//! checkpoint and the very bytes of a transaction before either is sent, and sends those.
//!
//! Each signature is checked before it is used: that it recovers to the account which the key had when it was opened. So a service
//! that signs with another key (an alias that was moved), or signs another hash, cannot put anything into the journal.

mod client;
mod encoding;

use alloy::primitives::{Address, B256, Signature};

use super::kms_error::{KmsAction, KmsError};
use super::kms_options::KmsOptions;
use client::Client;

/// A key in AWS KMS that was found to be fit.
pub(super) struct KmsKey {
    client: Client,
    address: Address,
}

impl std::fmt::Debug for KmsKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "KmsKey({} as {})", self.client.key(), self.address)
    }
}

impl KmsKey {
    /// Asks the service for the public key, and checks that it is one that Ethereum knows.
    pub(super) async fn open(options: KmsOptions) -> Result<Self, KmsError> {
        let client = Client::new(options)?;
        let found = client.public_key().await?;
        if found.spec != "ECC_SECG_P256K1" || found.usage != "SIGN_VERIFY" {
            let found = format!("a key of spec {} for {}", found.spec, found.usage);
            return Err(KmsError::WrongSpec { key: client.key().to_owned(), found });
        }
        let address =
            encoding::address(&found.der).map_err(|reason| client.malformed(KmsAction::GetPublicKey, reason))?;
        tracing::debug!(key = client.key(), %address, endpoint = client.endpoint(), "key in AWS KMS opened");
        Ok(Self { client, address })
    }

    pub(super) fn address(&self) -> Address {
        self.address
    }

    /// Signs a hash as it is.
    pub(super) async fn sign(&self, hash: &B256) -> Result<Signature, KmsError> {
        let der = self.client.sign(hash.as_slice()).await?;
        let signature = encoding::signature(&der).map_err(|reason| self.client.malformed(KmsAction::Sign, reason))?;
        encoding::recoverable(signature, hash, self.address)
            .ok_or_else(|| KmsError::WrongKey { key: self.client.key().to_owned(), address: self.address })
    }
}
