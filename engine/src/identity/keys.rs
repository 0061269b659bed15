//! Which key speaks for which reading of which device.

use std::sync::Arc;

use sha2::{Digest, Sha256};
use thiserror::Error;

use super::ecdsa::P256Key;
use super::ed25519::PublicKey;
use crate::codec::{CodecError, Reader, Writer};
use crate::verdict::Hash32;

const MAGIC: &str = "avouch/keys/1";
/// In a verifier's place in ERC-7913 bytes: an Ed25519 key follows ("ed25519" in ASCII, as `DeviceRegistry` has it).
const ED25519_MARK: [u8; 20] = *b"\0\0\0\0\0\0\0\0\0\0\0\0\0ed25519";

/// A device's key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DeviceKey {
    /// Ed25519, by the rules of ZIP 215.
    Ed25519(PublicKey),
    /// P-256 (ES256).
    P256(Box<P256Key>),
    /// secp256k1, known by its account.
    Account([u8; 20]),
    /// ERC-7913 bytes of a kind that is not verified here: no reading under it is accepted.
    Other(Vec<u8>),
}

impl DeviceKey {
    /// From ERC-7913 bytes, as the registry has them: 20 bytes are an account, 52 with the mark of Ed25519 such a key, 84 a P-256
    /// key behind the address of whatever contract verifies it.
    pub fn from_erc7913(bytes: &[u8]) -> Self {
        if let Ok(address) = bytes.try_into() {
            return Self::Account(address);
        }
        if let Some((verifier, key)) = bytes.split_first_chunk::<20>() {
            if let (true, Ok(key)) = (*verifier == ED25519_MARK, key.try_into()) {
                return Self::Ed25519(PublicKey::new(key));
            }
            if let Ok(key) = key.try_into() {
                return Self::P256(Box::new(P256Key::new(key)));
            }
        }
        Self::Other(bytes.to_vec())
    }

    /// As ERC-7913 bytes. `p256`: the contract that verifies P-256, which goes before such a key.
    pub fn to_erc7913(&self, p256: &[u8; 20]) -> Vec<u8> {
        match self {
            Self::Ed25519(key) => [&ED25519_MARK[..], key.as_bytes()].concat(),
            Self::P256(key) => [&p256[..], key.as_bytes()].concat(),
            Self::Account(address) => address.to_vec(),
            Self::Other(bytes) => bytes.clone(),
        }
    }

    /// What kind it is.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Ed25519(_) => "ed25519",
            Self::P256(_) => "p256",
            Self::Account(_) => "secp256k1",
            Self::Other(_) => "other",
        }
    }

    fn code(&self) -> u8 {
        match self {
            Self::Other(_) => 0,
            Self::Ed25519(_) => 1,
            Self::P256(_) => 2,
            Self::Account(_) => 3,
        }
    }

    fn bytes(&self) -> &[u8] {
        match self {
            Self::Ed25519(key) => key.as_bytes(),
            Self::P256(key) => key.as_bytes(),
            Self::Account(address) => address,
            Self::Other(bytes) => bytes,
        }
    }

    /// From its kind, as [`DeviceKey::kind`] names it, and its bytes: 32 of Ed25519, 64 of P-256 (`x ‖ y`), 20 of an account.
    ///
    /// # Errors
    /// [`KeyError::Key`] for another kind or length, and for bytes under which nothing could be valid.
    pub fn new(kind: &str, bytes: &[u8]) -> Result<Self, KeyError> {
        let fail = |why: &str| KeyError::Key(format!("a key \"{kind}\" of {} bytes {why}", bytes.len()));
        let key = match kind {
            "ed25519" => bytes.try_into().map(|b| Self::Ed25519(PublicKey::new(b))).ok(),
            "p256" => bytes.try_into().map(|b| Self::P256(Box::new(P256Key::new(b)))).ok(),
            "secp256k1" => bytes.try_into().map(Self::Account).ok(),
            _ => return Err(fail("is of no kind known here: ed25519, p256, secp256k1")),
        };
        match key {
            None => Err(fail("has another length than such keys: ed25519 32, p256 64, secp256k1 20 (its account)")),
            Some(Self::Ed25519(key)) if !key.is_point() => Err(fail("is no point of the curve")),
            Some(Self::P256(key)) if !key.is_point() => Err(fail("is no point of the curve")),
            Some(key) => Ok(key),
        }
    }
}

/// One key, and for which readings it speaks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeySpan {
    /// The first `seq` it speaks for.
    pub from_seq: u64,
    /// The first it does not speak for any more; `u64::MAX` while there is none.
    pub until_seq: u64,
    /// The key.
    pub key: DeviceKey,
}

/// The keys that a device has had.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceKeys {
    /// Which device: see [`Naming`].
    pub id: Hash32,
    /// By `from_seq`.
    pub spans: Vec<KeySpan>,
}

/// How devices are named in a set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Naming {
    /// By the SHA-256 of their names: files, which need no secret.
    Name,
    /// By the pseudonyms that verdicts have too: the registry on chain.
    Pseudonym,
}

/// Which key speaks for a `seq`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyAt<'a> {
    /// This one.
    Key(&'a DeviceKey),
    /// None yet: the first begins at this `seq`.
    NotYet(u64),
    /// None any more: the last one before it ended at this `seq`.
    Revoked(u64),
}

/// Why keys are no set.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
pub enum KeyError {
    /// A device stands twice.
    #[error("the device {0} stands twice")]
    Twice(String),
    /// A device without a key.
    #[error("the device {0} has no key")]
    NoKey(String),
    /// A key that begins where the one before it has not ended, or ends before it begins.
    #[error("the keys of the device {device} overlap, or are not in order: one speaks for {from}..{until}")]
    Order {
        /// The device.
        device: String,
        /// Its first `seq`.
        from: u64,
        /// Where it ends.
        until: u64,
    },
    /// No key.
    #[error("{0}")]
    Key(String),
    /// Stored bytes could not be read.
    #[error("{0}")]
    Bytes(#[from] CodecError),
}

/// One version of the keys of a fleet. Immutable.
#[derive(Debug, PartialEq, Eq)]
pub struct KeySet {
    name: String,
    domain: Hash32,
    naming: Naming,
    /// By id.
    devices: Vec<DeviceKeys>,
    version: Hash32,
}

impl KeySet {
    /// The name under which the keys of a source are recorded and named in evidence. No reference can have it.
    pub fn name_of(source: &str) -> String {
        format!("{source}.identity")
    }

    /// Whether keys are recorded under this name, and not a reference table.
    pub fn is_name(name: &str) -> bool {
        name.ends_with(".identity")
    }

    /// From devices in any order. `name`: [`KeySet::name_of`]; it is not part of the content.
    ///
    /// # Errors
    /// [`KeyError`] naming the device.
    pub fn new(
        name: &str,
        domain: Hash32,
        naming: Naming,
        mut devices: Vec<DeviceKeys>,
    ) -> Result<Arc<Self>, KeyError> {
        devices.sort_by_key(|d| d.id);
        if let Some(pair) = devices.windows(2).find(|p| p[0].id == p[1].id) {
            return Err(KeyError::Twice(hex(&pair[0].id)));
        }
        for device in &devices {
            if device.spans.is_empty() {
                return Err(KeyError::NoKey(hex(&device.id)));
            }
            let mut least = 0;
            for (i, s) in device.spans.iter().enumerate() {
                // A key that was revoked from its beginning on speaks for nothing, and still stands.
                if s.from_seq < least || s.until_seq < s.from_seq || i > 0 && s.from_seq == device.spans[i - 1].from_seq
                {
                    let (from, until) = (s.from_seq, s.until_seq);
                    return Err(KeyError::Order { device: hex(&device.id), from, until });
                }
                least = s.until_seq;
            }
        }
        let mut set = Self { name: name.to_owned(), domain, naming, devices, version: [0; 32] };
        set.version = Sha256::digest(set.to_bytes()).into();
        Ok(Arc::new(set))
    }

    /// The name under which it is recorded.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What signatures name the fleet by.
    pub fn domain(&self) -> &Hash32 {
        &self.domain
    }

    /// How its devices are named.
    pub fn naming(&self) -> Naming {
        self.naming
    }

    /// The devices, by id.
    pub fn devices(&self) -> &[DeviceKeys] {
        &self.devices
    }

    /// SHA-256 of [`KeySet::to_bytes`].
    pub fn version(&self) -> Hash32 {
        self.version
    }

    /// Where a device stands.
    pub fn find(&self, id: &Hash32) -> Option<usize> {
        self.devices.binary_search_by(|d| d.id.cmp(id)).ok()
    }

    /// The key that speaks for `seq` of the device at `place`.
    pub fn key_at(&self, place: usize, seq: u64) -> KeyAt<'_> {
        let spans = &self.devices[place].spans;
        match spans[..spans.partition_point(|s| s.from_seq <= seq)].last() {
            // Invariant: every device has a key.
            None => KeyAt::NotYet(spans[0].from_seq),
            Some(s) if seq < s.until_seq => KeyAt::Key(&s.key),
            Some(s) => KeyAt::Revoked(s.until_seq),
        }
    }

    /// The canonical content (see [`crate::codec`]): the text `avouch/keys/1`, the domain (32 bytes), how devices are named (0 by
    /// name, 1 by pseudonym), their number, and for each, by id: the id (32), the number of its keys and for each `from_seq`
    /// (8), `until_seq` (8), its kind (0 other, 1 Ed25519, 2 P-256, 3 account) and its bytes with their length.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut w = Writer::new();
        w.str(MAGIC);
        w.raw(&self.domain);
        w.u8(u8::from(self.naming == Naming::Pseudonym));
        w.u32(self.devices.len() as u32);
        for device in &self.devices {
            w.raw(&device.id);
            w.u32(device.spans.len() as u32);
            for s in &device.spans {
                w.u64(s.from_seq);
                w.u64(s.until_seq);
                w.u8(s.key.code());
                w.bytes(s.key.bytes());
            }
        }
        w.bytes
    }

    /// Reads what [`KeySet::to_bytes`] wrote.
    ///
    /// # Errors
    /// [`KeyError::Bytes`] for damaged bytes, and those of [`KeySet::new`].
    pub fn from_bytes(name: &str, bytes: &[u8]) -> Result<Arc<Self>, KeyError> {
        let mut r = Reader::new("keys", bytes);
        if r.str()? != MAGIC {
            return Err(r.invalid("these bytes are not a key set of version 1").into());
        }
        let domain = r.array()?;
        let naming = match r.u8()? {
            0 => Naming::Name,
            1 => Naming::Pseudonym,
            other => return Err(r.invalid(format!("devices named in way {other}")).into()),
        };
        let n = r.count(36)?;
        let mut devices = Vec::with_capacity(n);
        for _ in 0..n {
            let id = r.array()?;
            let n = r.count(21)?;
            let mut spans = Vec::with_capacity(n);
            for _ in 0..n {
                let (from_seq, until_seq, code) = (r.u64()?, r.u64()?, r.u8()?);
                let key = r.bytes()?;
                let wrong = r.invalid(format!("a key of kind {code} with {} bytes", key.len()));
                let key = match code {
                    0 => Some(DeviceKey::Other(key.to_vec())),
                    1 => key.try_into().ok().map(|b| DeviceKey::Ed25519(PublicKey::new(b))),
                    2 => key.try_into().ok().map(|b| DeviceKey::P256(Box::new(P256Key::new(b)))),
                    3 => key.try_into().ok().map(DeviceKey::Account),
                    _ => None,
                };
                spans.push(KeySpan { from_seq, until_seq, key: key.ok_or(wrong)? });
            }
            devices.push(DeviceKeys { id, spans });
        }
        let another = r.invalid("the same keys are written otherwise");
        r.finish()?;
        let set = Self::new(name, domain, naming, devices)?;
        if set.to_bytes() == bytes { Ok(set) } else { Err(another.into()) }
    }
}

/// The domain of a fleet of a registry on chain: SHA-256 of `avouch/fleet/chain` ‖ chain id (8 bytes, big-endian) ‖ the
/// contract's address (20) ‖ the fleet's id (32).
pub fn chain_domain(chain_id: u64, contract: &[u8; 20], fleet: &Hash32) -> Hash32 {
    Sha256::new()
        .chain_update(b"avouch/fleet/chain")
        .chain_update(chain_id.to_be_bytes())
        .chain_update(contract)
        .chain_update(fleet)
        .finalize()
        .into()
}

/// The domain of a fleet whose keys stand in a file: SHA-256 of `avouch/fleet/file` ‖ `00` ‖ the fleet's name in UTF-8.
pub fn file_domain(fleet: &str) -> Hash32 {
    Sha256::new().chain_update(b"avouch/fleet/file\0").chain_update(fleet).finalize().into()
}

/// Lower-case hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    crate::lane::hex(bytes)
}
