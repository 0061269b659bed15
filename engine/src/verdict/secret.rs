//! The pipeline's secret: what pseudonyms, salts and the keys of published notes are made from.
//!
//! From the bytes given, the master, four keys are derived, HMAC-SHA-256(master, "avouch/key/1" ‖ 0x00 ‖ purpose), one each for
//! devices, people, notes and records. Nothing else is made from the master, so that it can be given up: what is left when the key of
//! a record is erased ([`Secret::puncture`]) are the three other keys and the rest of the tree of records' keys.
//!
//! The punctured form is binary, or text for a place that takes text:
//!
//! ```text
//! "avouchS1"  devices  people  notes (32 bytes each)
//! logs: u32, each
//!   the first 16 bytes of its id
//!   runs of erased records: u64, each first: u64, last: u64
//! seeds: u64, each 32 bytes, in the order of the tree
//! SHA-256 of all before
//! ```
//!
//! Integers are little-endian; logs and runs in order, no run touching the next. The text is `avouch-secret-1:` and the same in base64.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};
use thiserror::Error;

use super::Hash32;
use super::salts::{Hole, Place, Recent, RecordSalts, SaltTree, merged};
use crate::codec::{CodecError, Reader, Writer};

const MAGIC: &[u8; 8] = b"avouchS1";
const TEXT: &str = "avouch-secret-1:";

/// Why bytes are no secret.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
pub enum SecretError {
    /// It begins like a secret that records were erased from, and is none.
    #[error("the secret is damaged ({0}); restore it from a copy made after the last erasure")]
    Damaged(#[from] CodecError),
    /// Its text is not base64.
    #[error("the secret begins with \"avouch-secret-1:\", but what follows is not base64; was it cut off?")]
    Text,
}

#[derive(Clone)]
struct Key {
    bytes: Hash32,
    keyed: Hmac<Sha256>,
}

impl Key {
    fn new(bytes: Hash32) -> Self {
        Self { bytes, keyed: keyed(&bytes) }
    }

    fn of(master: &Hmac<Sha256>, purpose: &str) -> Self {
        Self::new(mac(master, &[b"avouch/key/1\0", purpose.as_bytes()]))
    }

    fn mac(&self, parts: &[&[u8]]) -> Hash32 {
        mac(&self.keyed, parts)
    }
}

fn keyed(key: &[u8]) -> Hmac<Sha256> {
    match Hmac::<Sha256>::new_from_slice(key) {
        Ok(keyed) => keyed,
        // Invariant: HMAC takes keys of every length.
        Err(_) => unreachable!("HMAC-SHA-256 accepts any key length"),
    }
}

fn mac(keyed: &Hmac<Sha256>, parts: &[&[u8]]) -> Hash32 {
    let mut mac = keyed.clone();
    for part in parts {
        mac.update(part);
    }
    mac.finalize().into_bytes().into()
}

/// The pipeline's secret for one period. Whoever destroys it makes the pseudonyms and salts made under it unlinkable; whoever
/// punctures it makes single records so.
pub struct Secret {
    devices: Key,
    people: Key,
    notes: Key,
    records: Arc<SaltTree>,
    recent: Recent,
}

impl Clone for Secret {
    fn clone(&self) -> Self {
        Self {
            devices: self.devices.clone(),
            people: self.people.clone(),
            notes: self.notes.clone(),
            records: Arc::clone(&self.records),
            recent: Recent::default(),
        }
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(…)")
    }
}

impl Secret {
    /// From key bytes of any length (RFC 2104); 32 random bytes are right. They are taken as they are: see
    /// [`Secret::from_stored`] for what may be a punctured secret.
    pub fn new(key: &[u8]) -> Self {
        let master = keyed(key);
        Self {
            devices: Key::of(&master, "devices"),
            people: Key::of(&master, "people"),
            notes: Key::of(&master, "notes"),
            records: Arc::new(SaltTree::whole(Key::of(&master, "records").bytes)),
            recent: Recent::default(),
        }
    }

    /// From what a file or a variable holds: a punctured secret, as bytes or as text, or else key bytes.
    ///
    /// # Errors
    /// When it begins like a punctured secret and is none.
    pub fn from_stored(bytes: &[u8]) -> Result<Self, SecretError> {
        if bytes.starts_with(MAGIC) {
            return Ok(Self::from_bytes(bytes)?);
        }
        match bytes.trim_ascii().strip_prefix(TEXT.as_bytes()) {
            Some(text) => Ok(Self::from_bytes(&STANDARD.decode(text).map_err(|_| SecretError::Text)?)?),
            None => Ok(Self::new(bytes)),
        }
    }

    /// Whether records were erased from it. Only then is its form that of [`Secret::to_bytes`].
    pub fn is_punctured(&self) -> bool {
        !self.records.holes().is_empty()
    }

    /// The canonical bytes of a secret that records were erased from: see the module. They depend on what was erased and not on
    /// the order in which it was.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut w = Writer::new();
        w.raw(MAGIC);
        for key in [&self.devices, &self.people, &self.notes] {
            w.raw(&key.bytes);
        }
        let logs: Vec<&[Hole]> = self.records.holes().chunk_by(|a, b| a.log == b.log).collect();
        w.u32(logs.len() as u32);
        for holes in logs {
            w.raw(&holes[0].log.to_be_bytes());
            w.u64(holes.len() as u64);
            for hole in holes {
                w.u64(hole.first);
                w.u64(hole.last);
            }
        }
        let seeds = self.records.seeds();
        w.u64(seeds.len() as u64);
        for seed in seeds {
            w.raw(seed);
        }
        let sum = Sha256::digest(&w.bytes);
        w.raw(&sum);
        w.bytes
    }

    /// The same as text, for a variable or a file that is read as text.
    pub fn to_text(&self) -> String {
        format!("{TEXT}{}", STANDARD.encode(self.to_bytes()))
    }

    fn from_bytes(bytes: &[u8]) -> Result<Self, CodecError> {
        let mut r = Reader::new("punctured secret", bytes);
        if r.array::<8>()? != *MAGIC {
            return Err(r.invalid("these bytes are not a secret of version 1"));
        }
        let (body, sum) = bytes.split_at(bytes.len().saturating_sub(32));
        if Sha256::digest(body).as_slice() != sum {
            return Err(r.invalid("its checksum is wrong"));
        }
        let (devices, people, notes) = (Key::new(r.array()?), Key::new(r.array()?), Key::new(r.array()?));
        let mut holes = Vec::new();
        for _ in 0..r.u32()? {
            let log = u128::from_be_bytes(r.array()?);
            for _ in 0..r.u64()? {
                holes.push(Hole { log, first: r.u64()?, last: r.u64()? });
            }
        }
        if holes.iter().any(|h| h.first > h.last) || merged(holes.clone()) != holes {
            return Err(r.invalid("its runs of erased records are not in order"));
        }
        let mut seeds = Vec::new();
        for _ in 0..r.u64()? {
            seeds.push(r.array()?);
        }
        r.raw(32)?;
        let at = r.position();
        r.finish()?;
        let Some(records) = SaltTree::from_parts(holes, &seeds) else {
            return Err(CodecError::Invalid {
                what: "punctured secret",
                why: format!("its {} seeds are not those that its erased records leave", seeds.len()),
                at,
            });
        };
        // Two encodings of one value there must not be: no log without a run, none twice.
        let secret = Self { devices, people, notes, records: Arc::new(records), recent: Recent::default() };
        if secret.to_bytes() != bytes {
            return Err(CodecError::Invalid {
                what: "punctured secret",
                why: "it is not in the canonical form".into(),
                at: 0,
            });
        }
        Ok(secret)
    }

    /// Takes the keys of these records of a log away for good. What was made under them stays valid and cannot be made again; all
    /// other keys stay the same. What has no key any more is left out.
    ///
    /// It is this value that forgets. Copies of it, and where it is stored, are the caller's to replace.
    pub fn puncture(&mut self, log_id: &Hash32, indices: impl IntoIterator<Item = u64>) {
        let log = Place::new(log_id, 0).log;
        let holes: Vec<Hole> = indices.into_iter().map(|i| Hole { log, first: i, last: i }).collect();
        if !holes.is_empty() {
            Arc::make_mut(&mut self.records).puncture(merged(holes));
            self.recent = Recent::default();
        }
    }

    /// Whether the key of a record is there.
    pub fn has(&self, log_id: &Hash32, index: u64) -> bool {
        self.records.has(Place::new(log_id, index))
    }

    /// The last record of a log whose key was taken away. A lane appends only behind it: what it would have to make again there, it
    /// could not.
    pub fn last_erased(&self, log_id: &Hash32) -> Option<u64> {
        self.records.last_gone(Place::new(log_id, 0).log)
    }

    /// `deviceId`: HMAC-SHA-256(devices' key, "avouch/device/1" ‖ 0x00 ‖ name).
    pub fn device_id(&self, device: &str) -> Hash32 {
        self.devices.mac(&[b"avouch/device/1\0", device.as_bytes()])
    }

    /// The pseudonym of a person who labels: HMAC-SHA-256(people's key, "avouch/person/1" ‖ 0x00 ‖ name).
    pub fn person_id(&self, name: &str) -> Hash32 {
        self.people.mac(&[b"avouch/person/1\0", name.as_bytes()])
    }

    /// Seed of the Ed25519 key that signs a log's published checkpoints where several machines must sign as one:
    /// HMAC-SHA-256(notes' key, "avouch/note-key/1" ‖ 0x00 ‖ log id).
    pub fn note_seed(&self, log_id: &Hash32) -> Hash32 {
        self.notes.mac(&[b"avouch/note-key/1\0", log_id])
    }

    /// What blinds the `count` records of a log from `first` on: from the record's key `K`, the leaf of the tree,
    /// SHA-256("avouch/salt/2" ‖ 0x00 ‖ K) and SHA-256("avouch/evidence/1" ‖ 0x00 ‖ K). Of records whose key was taken away,
    /// [`RecordSalts::GONE`]; [`Secret::has`] says which. No lane comes to them: it begins behind [`Secret::last_erased`], which
    /// whoever opens it makes sure of. A replay does, and compares nothing of them.
    pub fn record_salts(&self, log_id: &Hash32, first: u64, count: usize) -> Vec<RecordSalts> {
        self.records.salts(Place::new(log_id, 0).log, first, count, &self.recent)
    }
}
