//! Checkpoints of the verdict log: what exactly is hashed and signed, and checking that offline.
//!
//! A checkpoint is the EIP-712 struct
//!
//! ```text
//! Checkpoint(bytes32 logId,uint64 oldSize,uint64 newSize,bytes32 oldRoot,bytes32 newRoot,bytes32 dataCommitment,uint64 issuedAt)
//! ```
//!
//! - **struct hash** = keccak256(keccak256(the line above) ‖ the seven fields, 32 bytes each, integers big-endian);
//! - **domain separator** = keccak256(keccak256("EIP712Domain(string name,string version,uint256 chainId,address
//!   verifyingContract)") ‖ keccak256("Avouch") ‖ keccak256("1") ‖ chain id ‖ contract address);
//! - **signing hash** = keccak256(0x19 0x01 ‖ domain separator ‖ struct hash). This is what is signed, raw, without the
//!   "Ethereum Signed Message" prefix.
//!
//! Not hashed: the proof, the relayer, the transaction, its nonce and fees. So anyone may relay a signed checkpoint, and
//! a replacement transaction carries the same signature; but a signature is good for one chain and one contract only.

use alloy::primitives::{Address, B256, Signature, keccak256};
use alloy::sol_types::{SolStruct, SolValue, eip712_domain};
use avouch_engine::codec::{CodecError, Reader, Writer};
use avouch_engine::verdict::Hash32;

use super::{EthereumError, bindings};

/// Which contract on which chain a signature is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Domain {
    /// The chain's id (EIP-155).
    pub chain_id: u64,
    /// The VerdictLog contract.
    pub contract: Address,
}

/// A log's step from one size to another. See the [module](self) for what is hashed of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// The log on chain: [`log_id`] of its owner and name.
    pub log_id: Hash32,
    /// Entries before; 0 for the first checkpoint.
    pub old_size: u64,
    /// Entries now; more than before.
    pub new_size: u64,
    /// RFC 9162 root (SHA-256) before; zero for the first checkpoint.
    pub old_root: Hash32,
    /// RFC 9162 root (SHA-256) now.
    pub new_root: Hash32,
    /// What is committed to beside the verdicts, for instance the input offsets they cover; zero for nothing.
    pub data_commitment: Hash32,
    /// When it was signed, by the signer's clock: milliseconds since the Unix epoch.
    pub issued_at: u64,
}

/// The id of a log on chain: keccak256(abi.encode(owner, name)), where `name` is SHA-256 of the log's origin line
/// (`LogOrigin::log_id` of the engine). It is bound to the owner, so nobody can take the name of another's log; whoever
/// knows owner and origin can recompute it.
pub fn log_id(owner: Address, name: &Hash32) -> Hash32 {
    keccak256((owner, B256::from(*name)).abi_encode()).0
}

impl Checkpoint {
    /// The EIP-712 struct hash, without a domain.
    pub fn struct_hash(&self) -> Hash32 {
        self.to_sol().eip712_hash_struct().0
    }

    /// What the signer signs: the EIP-712 digest for this chain and contract.
    pub fn signing_hash(&self, domain: &Domain) -> Hash32 {
        let domain = eip712_domain! {
            name: "Avouch",
            version: "1",
            chain_id: domain.chain_id,
            verifying_contract: domain.contract,
        };
        self.to_sol().eip712_signing_hash(&domain).0
    }

    /// The address whose key made `signature` (65 bytes: r, s, v) over this checkpoint, offline. Some address comes out of
    /// most byte strings: compare it, or use [`Checkpoint::verify`].
    ///
    /// Refused, as the contract refuses them: other lengths, `v` other than 27 and 28, and the malleable `s` above half
    /// the curve's order.
    pub fn recover(&self, domain: &Domain, signature: &[u8]) -> Result<Address, EthereumError> {
        let bad = |reason: &str| EthereumError::BadSignature { log_id: self.log_id, reason: reason.to_owned() };
        let bytes: &[u8; 65] = signature.try_into().map_err(|_| bad("it is not 65 bytes (r, s, v)"))?;
        if !matches!(bytes[64], 27 | 28) {
            return Err(bad("its last byte is neither 27 nor 28"));
        }
        let parsed = Signature::from_raw_array(bytes).map_err(|e| bad(&e.to_string()))?;
        if parsed.normalize_s().is_some() {
            return Err(bad("its s is in the upper half, which makes it malleable"));
        }
        parsed.recover_address_from_prehash(&B256::from(self.signing_hash(domain))).map_err(|e| bad(&e.to_string()))
    }

    /// Checks offline that `signer`, an account with a key, signed this checkpoint. A contract's signature (ERC-1271)
    /// can be checked on its chain only.
    pub fn verify(&self, domain: &Domain, signature: &[u8], signer: Address) -> Result<(), EthereumError> {
        let found = self.recover(domain, signature)?;
        if found == signer {
            return Ok(());
        }
        Err(EthereumError::BadSignature {
            log_id: self.log_id,
            reason: format!("it was made by {found}, or for another checkpoint, chain or contract; expected {signer}"),
        })
    }

    pub(crate) fn to_sol(&self) -> bindings::Checkpoint {
        bindings::Checkpoint {
            logId: self.log_id.into(),
            oldSize: self.old_size,
            newSize: self.new_size,
            oldRoot: self.old_root.into(),
            newRoot: self.new_root.into(),
            dataCommitment: self.data_commitment.into(),
            issuedAt: self.issued_at,
        }
    }

    pub(crate) fn write(&self, w: &mut Writer) {
        w.raw(&self.log_id);
        w.u64(self.old_size);
        w.u64(self.new_size);
        w.raw(&self.old_root);
        w.raw(&self.new_root);
        w.raw(&self.data_commitment);
        w.u64(self.issued_at);
    }

    pub(crate) fn read(r: &mut Reader<'_>) -> Result<Self, CodecError> {
        Ok(Self {
            log_id: r.array()?,
            old_size: r.u64()?,
            new_size: r.u64()?,
            old_root: r.array()?,
            new_root: r.array()?,
            data_commitment: r.array()?,
            issued_at: r.u64()?,
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use alloy::primitives::{U256, address};

    use super::*;
    use crate::ethereum::OperatorKey;

    /// Order of secp256k1.
    const ORDER: &str = "0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141";

    fn sample() -> Checkpoint {
        Checkpoint {
            log_id: [1; 32],
            old_size: 7,
            new_size: 11,
            old_root: [2; 32],
            new_root: [3; 32],
            data_commitment: [4; 32],
            issued_at: 1_790_000_000_000,
        }
    }

    fn domain() -> Domain {
        Domain { chain_id: 31337, contract: address!("5FbDB2315678afecb367f032d93F642f64180aa3") }
    }

    /// The definition in the module's text, written out.
    #[test]
    fn the_signing_hash_is_what_the_text_says() {
        let c = sample();
        let word = |v: u64| U256::from(v).to_be_bytes::<32>();
        let mut s = keccak256(
            "Checkpoint(bytes32 logId,uint64 oldSize,uint64 newSize,bytes32 oldRoot,bytes32 newRoot,bytes32 dataCommitment,uint64 issuedAt)",
        )
        .to_vec();
        for w in [[1; 32], word(7), word(11), [2; 32], [3; 32], [4; 32], word(1_790_000_000_000)] {
            s.extend_from_slice(&w);
        }
        let struct_hash = keccak256(&s);
        assert_eq!(c.struct_hash(), struct_hash.0);
        let mut d =
            keccak256("EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)").to_vec();
        d.extend_from_slice(keccak256("Avouch").as_slice());
        d.extend_from_slice(keccak256("1").as_slice());
        d.extend_from_slice(&word(31337));
        d.extend_from_slice(domain().contract.into_word().as_slice());
        let mut all = vec![0x19, 0x01];
        all.extend_from_slice(keccak256(&d).as_slice());
        all.extend_from_slice(struct_hash.as_slice());
        assert_eq!(c.signing_hash(&domain()), keccak256(&all).0);
    }

    #[tokio::test]
    async fn signatures_are_checked_offline() {
        let key = OperatorKey::random();
        let c = sample();
        let signature = key.sign_checkpoint(&c, &domain()).await.unwrap();
        c.verify(&domain(), &signature, key.address()).unwrap();
        assert_eq!(c.recover(&domain(), &signature).unwrap(), key.address());

        let mut other = c.clone();
        other.new_size += 1;
        assert!(other.verify(&domain(), &signature, key.address()).is_err());
        let elsewhere = Domain { chain_id: 1, ..domain() };
        assert!(c.verify(&elsewhere, &signature, key.address()).is_err());
        let twin = Domain { contract: Address::ZERO, ..domain() };
        assert!(c.verify(&twin, &signature, key.address()).is_err());
        for i in 0..65 {
            let mut flipped = signature.clone();
            flipped[i] ^= 1;
            assert!(c.verify(&domain(), &flipped, key.address()).is_err(), "byte {i} is free");
        }
        for n in [0, 64, 66] {
            let mut cut = signature.clone();
            cut.resize(n, 0);
            assert!(c.recover(&domain(), &cut).is_err());
        }
    }

    #[tokio::test]
    async fn the_malleable_twin_is_refused() {
        let key = OperatorKey::random();
        let c = sample();
        let mut twin = key.sign_checkpoint(&c, &domain()).await.unwrap();
        let s = U256::from_be_slice(&twin[32..64]);
        let order: U256 = ORDER.parse().unwrap();
        twin[32..64].copy_from_slice(&(order - s).to_be_bytes::<32>());
        twin[64] = if twin[64] == 27 { 28 } else { 27 };
        let message = c.recover(&domain(), &twin).unwrap_err().to_string();
        assert!(message.contains("malleable"), "{message}");
    }

    #[test]
    fn a_log_id_is_bound_to_its_owner() {
        let a = log_id(address!("0000000000000000000000000000000000000123"), &[9; 32]);
        let b = log_id(address!("0000000000000000000000000000000000000124"), &[9; 32]);
        assert_ne!(a, b);
        let mut encoded = [0u8; 64];
        encoded[30..32].copy_from_slice(&[0x01, 0x23]);
        encoded[32..].copy_from_slice(&[9; 32]);
        assert_eq!(a, keccak256(encoded).0);
    }

    #[test]
    fn a_checkpoint_survives_its_bytes() {
        let mut w = Writer::new();
        sample().write(&mut w);
        let mut r = Reader::new("checkpoint", &w.bytes);
        assert_eq!(Checkpoint::read(&mut r).unwrap(), sample());
        r.finish().unwrap();
    }
}
