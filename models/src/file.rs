//! The model file: one canonical, versioned, self-describing file. Its SHA-256 is the model's identity.
//!
//! ```text
//!     offset  bytes  what
//!          0      7  "AVOUCHM"
//!          7      2  format version, little-endian (1)
//!          9    4+n  algorithm kind, as in TOML
//!               4+n  the model card, JSON
//!               4+n  the body: what scoring needs, laid out by the algorithm
//!                32  SHA-256 of all bytes before it
//! ```
//!
//! Lengths are `u32`, floats IEEE-754 bit patterns, everything little-endian (see `avouch_engine::codec`). The same
//! rows, configuration and seed give the same bytes on every machine. Loading verifies the trailer, then refuses a card
//! with unknown keys and any body that training would not have written: values out of range or order, bytes left over.
//! The trailer catches damage; that nobody swapped the file for another is what its hash in the verdict is for.

use avouch_engine::codec::{CodecError, Reader, Writer};
use avouch_engine::verdict::Hash32;
use sha2::{Digest, Sha256};

use crate::ModelError;
use crate::card::{ModelCard, hex};

const MAGIC: &[u8; 7] = b"AVOUCHM";

/// The format version this program reads and writes.
pub const FORMAT_VERSION: u16 = 1;

/// Length of the trailer.
const TRAILER: usize = 32;

/// A model file taken apart, its trailer verified.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelFile {
    /// Algorithm kind, as in TOML.
    pub kind: String,
    /// The card.
    pub card: ModelCard,
    /// The card exactly as it stands in the file.
    pub card_json: String,
    /// The body, laid out by the algorithm.
    pub body: Vec<u8>,
    /// SHA-256 of the whole file, trailer included: the model hash in every verdict and on chain.
    pub hash: Hash32,
}

/// SHA-256 of a model file's bytes.
pub fn model_hash(bytes: &[u8]) -> Hash32 {
    Sha256::digest(bytes).into()
}

pub(crate) fn write(kind: &str, card: &ModelCard, body: &[u8]) -> Vec<u8> {
    let mut w = Writer::new();
    w.raw(MAGIC);
    w.u16(FORMAT_VERSION);
    w.str(kind);
    w.str(&card.to_json());
    w.bytes(body);
    let digest = model_hash(&w.bytes);
    w.raw(&digest);
    w.bytes
}

/// Takes a model file apart. Refuses what is not a model file, what is of another version, and whatever does not hash
/// to its trailer.
pub fn open(bytes: &[u8]) -> Result<ModelFile, ModelError> {
    if !bytes.starts_with(MAGIC) {
        let start: String = bytes.iter().take(8).flat_map(|b| b.escape_ascii()).map(char::from).collect();
        let found = if start.is_empty() { "nothing (the file is empty)".to_owned() } else { format!("`{start}`") };
        return Err(ModelError::NotAModel { found });
    }
    let mut head = Reader::new("model file", &bytes[MAGIC.len()..]);
    let version = head.u16()?;
    if version != FORMAT_VERSION {
        return Err(ModelError::UnknownVersion { found: version, known: FORMAT_VERSION });
    }
    let end = bytes.len().checked_sub(TRAILER).filter(|end| *end >= MAGIC.len() + 2).ok_or_else(|| {
        ModelError::Altered { found: hex(&model_hash(bytes)), stated: "nothing (the file ends before it)".to_owned() }
    })?;
    let (contents, trailer) = bytes.split_at(end);
    let digest = model_hash(contents);
    if trailer != digest {
        return Err(ModelError::Altered { found: hex(&digest), stated: hex(trailer) });
    }
    let mut r = Reader::new("model file", contents);
    r.raw(MAGIC.len() + 2)?;
    let kind = r.str()?.to_owned();
    let json = r.str()?;
    let card: ModelCard =
        serde_json::from_str(json).map_err(|e| r.invalid(format!("the model card cannot be read: {e}")))?;
    let body = r.bytes()?.to_vec();
    r.finish()?;
    Ok(ModelFile { kind, card, card_json: json.to_owned(), body, hash: model_hash(bytes) })
}

/// Reads the names of a body's features: at least one, none empty, none twice.
pub(crate) fn read_features(r: &mut Reader<'_>) -> Result<Vec<String>, CodecError> {
    let p = r.count(4)?;
    if p == 0 {
        return Err(r.invalid("no features"));
    }
    let mut features: Vec<String> = Vec::with_capacity(p);
    for _ in 0..p {
        let name = r.str()?.to_owned();
        if name.is_empty() || features.contains(&name) {
            return Err(r.invalid(format!("feature name `{name}` is empty or there twice")));
        }
        features.push(name);
    }
    Ok(features)
}
