//! What KMS says of keys and signatures, as Ethereum has it.

use alloy::primitives::{Address, B256, Signature};
use alloy::signers::k256::ecdsa::{Signature as Scalars, VerifyingKey};

/// A SubjectPublicKeyInfo (RFC 5480) of an uncompressed point on secp256k1, up to the point: all of these have one length, so DER
/// leaves nothing to choose.
const SPKI: [u8; 23] = [
    0x30, 0x56, 0x30, 0x10, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x05, 0x2b, 0x81, 0x04, 0x00,
    0x0a, 0x03, 0x42, 0x00,
];

/// The account of a public key: a DER-encoded SubjectPublicKeyInfo.
pub(super) fn address(der: &[u8]) -> Result<Address, String> {
    let point = der.strip_prefix(&SPKI).filter(|point| point.len() == 65 && point[0] == 4);
    let point = point.ok_or("the public key is no uncompressed point on secp256k1")?;
    let key = VerifyingKey::from_sec1_bytes(point).map_err(|_| "the public key is no point on secp256k1")?;
    Ok(Address::from_public_key(&key))
}

/// The two numbers of a DER-encoded signature (SEQUENCE of r and s), with the lower of the two possible s: KMS gives either, and the
/// contract takes the lower one only.
pub(super) fn signature(der: &[u8]) -> Result<Scalars, String> {
    let signature = Scalars::from_der(der).map_err(|_| "the signature is no DER sequence of two scalars")?;
    Ok(signature.normalize_s().unwrap_or(signature))
}

/// The signature with what `v` says: which of the two possible keys made it. `None` if neither is the account's.
pub(super) fn recoverable(signature: Scalars, hash: &B256, account: Address) -> Option<Signature> {
    let of = |odd: bool| Signature::from_signature_and_parity(signature, odd);
    [of(false), of(true)].into_iter().find(|s| s.recover_address_from_prehash(hash).is_ok_and(|found| found == account))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use alloy::primitives::{U256, address, hex};
    use alloy::signers::SignerSync;
    use alloy::signers::local::PrivateKeySigner;

    use super::*;

    /// `openssl ec -pubout -outform DER` of the private key 1111…11.
    const PUBLIC: &str = "3056301006072a8648ce3d020106052b8104000a034200\
        044f355bdcb7cc0af728ef3cceb9615d90684bb5b2ca5f859ab0f0b704075871aa\
        385b6b1b8ead809ca67454d9683fcf2ba03456d6fe2c4abe2b07f0fbdbb2f1c1";
    const ACCOUNT: Address = address!("19E7E376E7C213B7E7e7e46cc70A5dD086DAff2A");

    fn public() -> Vec<u8> {
        hex::decode(PUBLIC).unwrap()
    }

    fn key() -> PrivateKeySigner {
        "11".repeat(32).parse().unwrap()
    }

    /// A DER signature with the s that is asked for: lower or upper.
    fn der(hash: &B256, upper: bool) -> Vec<u8> {
        let signature = key().sign_hash_sync(hash).unwrap();
        let order = U256::from_be_slice(&hex!("fffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141"));
        let s = if upper { order - signature.s() } else { signature.s() };
        let number = |n: U256| {
            let mut bytes: Vec<u8> = n.to_be_bytes::<32>().into_iter().skip_while(|b| *b == 0).collect();
            if bytes[0] >= 0x80 {
                bytes.insert(0, 0);
            }
            [vec![2, bytes.len() as u8], bytes].concat()
        };
        let body = [number(signature.r()), number(s)].concat();
        [vec![0x30, body.len() as u8], body].concat()
    }

    #[test]
    fn a_public_key_has_its_account() {
        assert_eq!(address(&public()).unwrap(), ACCOUNT);
        assert_eq!(key().address(), ACCOUNT);
    }

    #[test]
    fn what_is_no_key_of_ethereums_curve_is_refused() {
        // P-256's identifier in place of secp256k1's, with lengths to fit.
        let p256 = hex::decode("3059301306072a8648ce3d020106082a8648ce3d030107034200").unwrap();
        let p256 = [&p256[..], &public()[23..]].concat();
        let mut off_curve = public();
        *off_curve.last_mut().unwrap() ^= 1;
        let mut compressed = public();
        compressed[23] = 2;
        for (name, der) in [
            ("another curve", p256),
            ("off the curve", off_curve),
            ("compressed", compressed),
            ("cut", public()[..87].to_vec()),
            ("longer", [public(), vec![0]].concat()),
            ("empty", Vec::new()),
        ] {
            assert!(address(&der).is_err(), "{name}");
        }
    }

    #[test]
    fn either_s_becomes_the_lower_one_and_recovers_to_the_account() {
        let mut parities = [0; 2];
        for n in 0..64u8 {
            let hash = B256::repeat_byte(n);
            let expected = key().sign_hash_sync(&hash).unwrap();
            for upper in [false, true] {
                let found = recoverable(signature(&der(&hash, upper)).unwrap(), &hash, ACCOUNT).unwrap();
                assert_eq!(found, expected, "{n} {upper}");
                assert_eq!(found.normalize_s(), None);
            }
            parities[usize::from(expected.v())] += 1;
        }
        assert!(parities.iter().all(|n| *n > 10), "both parities were seen: {parities:?}");
    }

    #[test]
    fn a_signature_of_another_key_or_hash_is_none() {
        let (hash, other) = (B256::repeat_byte(1), B256::repeat_byte(2));
        let made = signature(&der(&hash, false)).unwrap();
        assert_eq!(recoverable(made, &other, ACCOUNT), None);
        assert_eq!(recoverable(made, &hash, Address::ZERO), None);
    }

    #[test]
    fn damaged_signatures_are_refused_and_never_panic() {
        let good = der(&B256::repeat_byte(7), false);
        for n in 0..good.len() {
            assert!(signature(&good[..n]).is_err(), "cut at {n}");
        }
        assert!(signature(&[&good[..], &[0]].concat()).is_err());
        assert!(signature(&hex!("3006020100020101")).is_err(), "r is zero");
        assert!(signature(&hex!("3006020101020100")).is_err(), "s is zero");
        // A number may not have more leading zeroes than its sign needs.
        assert!(signature(&hex!("30080202000102020001")).is_err());
    }
}
