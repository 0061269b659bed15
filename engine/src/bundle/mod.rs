//! The evidence bundle: everything an auditor needs to check one verdict on a machine of their own.
//!
//! A bundle is a directory of these files (here a map from name to bytes, since the engine does no I/O):
//!
//! | file | what | bound by |
//! | --- | --- | --- |
//! | `verdict.json` | the twelve fields, the log and the index | its struct hash is the log's entry |
//! | `evidence.bin` | what the verdict rests on, part by part: the name and a salted commitment | `evidenceHash` |
//! | `disclosed.bin` | the parts that are shown, with their salts ([`crate::verdict::Disclosed`]) | the commitments in `evidence.bin` |
//! | `evidence.json` | the same, to be read | rendered from `disclosed.bin`, compared byte for byte |
//! | `inclusion.json` | the path from the entry to the checkpoint's root | the root |
//! | `checkpoint.json` | the signed checkpoint, and where it is anchored | the signature |
//! | `coverage.bin` | the run of source offsets the checkpoint answers for | `dataCommitment` |
//! | `coverage.json` | the same, to be read | rendered from `coverage.bin`, compared byte for byte |
//! | `model` | the model file | `modelHash` |
//! | `pipeline.canonical.json` | the canonical pipeline | `configHash` |
//! | `withheld.json` | which parts are kept back ([`Part`]), if any are | nothing: they are missed by their hashes |
//! | `README.txt` | what to do with it | nothing; it is not read |
//!
//! Every JSON file has exactly one accepted spelling: it is parsed strictly and must equal its own re-rendering, so
//! that no byte of it can be changed unnoticed. 64-bit integers are decimal strings, since JSON readers round them.
//!
//! [`build`] makes the files and refuses parts that do not belong together; [`parse`] reads them; [`verify_offline`]
//! checks them step by step, each step saying what it proves and what it does not. Signatures are checked by the
//! caller ([`SignatureCheck`]), because the engine knows no elliptic curves.

mod json;
mod readme;
mod steps;
mod withheld;

#[cfg(test)]
mod tests;

pub use json::utc;
pub use steps::{Outcome, SignatureCheck, Step, accepted, verify_offline};
pub use withheld::Part;

use std::collections::BTreeMap;

use alloy_primitives::keccak256;
use thiserror::Error;

use crate::log::Coverage;
use crate::verdict::{Disclosed, Hash32, LogOrigin, Verdict, VerdictRecord};

/// The files of a bundle, by name.
pub type Files = BTreeMap<String, Vec<u8>>;

/// Names of the files.
pub mod file {
    /// The verdict.
    pub const VERDICT: &str = "verdict.json";
    /// The list of the evidence's parts, with a commitment to each.
    pub const EVIDENCE: &str = "evidence.bin";
    /// The parts that are shown.
    pub const DISCLOSED: &str = "disclosed.bin";
    /// The evidence, readable.
    pub const EVIDENCE_JSON: &str = "evidence.json";
    /// The inclusion proof.
    pub const INCLUSION: &str = "inclusion.json";
    /// The signed checkpoint.
    pub const CHECKPOINT: &str = "checkpoint.json";
    /// The coverage's canonical bytes.
    pub const COVERAGE: &str = "coverage.bin";
    /// The coverage, readable.
    pub const COVERAGE_JSON: &str = "coverage.json";
    /// The model file.
    pub const MODEL: &str = "model";
    /// The canonical pipeline.
    pub const PIPELINE: &str = "pipeline.canonical.json";
    /// What to do with it all.
    pub const README: &str = "README.txt";
    /// Which parts are kept back, if any are.
    pub const WITHHELD: &str = "withheld.json";
    /// Those that must be there, unless they are kept back.
    pub const REQUIRED: [&str; 10] =
        [VERDICT, EVIDENCE, DISCLOSED, EVIDENCE_JSON, INCLUSION, CHECKPOINT, COVERAGE, COVERAGE_JSON, MODEL, PIPELINE];
}

/// Why files are not a bundle. Every message begins with the file's name.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
pub enum BundleError {
    /// A file is not there.
    #[error("{file}: missing from the bundle; ask for the bundle again")]
    Missing {
        /// Its name.
        file: &'static str,
    },
    /// A file does not belong.
    #[error("{file}: does not belong to a bundle; move it out of the directory")]
    Unknown {
        /// Its name.
        file: String,
    },
    /// A file cannot be read as what it should be.
    #[error("{file}: {why}")]
    Malformed {
        /// Its name.
        file: &'static str,
        /// What is wrong.
        why: String,
    },
    /// A file says what it should in another spelling, or a readable copy says something else than the hashed bytes.
    #[error("{file}: {why}; it was changed after the bundle was made")]
    Altered {
        /// Its name.
        file: &'static str,
        /// How that shows.
        why: String,
    },
    /// Nothing can be kept back that is not there.
    #[error("the evidence of this verdict has no part {name}; it has {parts}")]
    NoSuchPart {
        /// What was to be kept back.
        name: String,
        /// What there is.
        parts: String,
    },
    /// Parts to build from do not belong together.
    #[error("these parts make no bundle: {step}: {why}")]
    Mismatch {
        /// Name of the check that fails.
        step: &'static str,
        /// What it says.
        why: String,
    },
}

/// The checkpoint as it was signed for the contract, and where it is anchored: plain data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedCheckpoint {
    /// The log on chain: keccak256(abi.encode(owner, SHA-256 of the origin line)).
    pub log_id: Hash32,
    /// Entries before.
    pub old_size: u64,
    /// Entries now.
    pub new_size: u64,
    /// Root before; zero for the first checkpoint.
    pub old_root: Hash32,
    /// Root now.
    pub new_root: Hash32,
    /// SHA-256 of `coverage.bin`.
    pub data_commitment: Hash32,
    /// When it was signed, by the signer's clock, milliseconds since the epoch.
    pub issued_at: u64,
    /// EIP-155 id of the chain.
    pub chain_id: u64,
    /// The VerdictLog contract.
    pub contract: [u8; 20],
    /// Who registered the log.
    pub owner: [u8; 20],
    /// Whose signature it is.
    pub signer: [u8; 20],
    /// The EIP-712 signature: 65 bytes (r, s, v), or what an ERC-1271 contract takes.
    pub signature: Vec<u8>,
}

/// The id of a log on chain: keccak256(abi.encode(owner, name)), `name` being [`LogOrigin::log_id`].
pub fn chain_log_id(owner: &[u8; 20], origin: &LogOrigin) -> Hash32 {
    let mut preimage = [0u8; 64];
    preimage[12..32].copy_from_slice(owner);
    preimage[32..].copy_from_slice(&origin.log_id());
    keccak256(preimage).0
}

/// What a bundle is built from.
#[derive(Debug, Clone)]
pub struct Parts<'a> {
    /// The log.
    pub origin: &'a LogOrigin,
    /// The verdict with its evidence.
    pub record: &'a VerdictRecord,
    /// Inclusion proof of the verdict in the log of the checkpoint's `new_size`.
    pub inclusion: &'a [Hash32],
    /// The signed checkpoint.
    pub checkpoint: &'a SignedCheckpoint,
    /// What its data commitment is made from.
    pub coverage: &'a Coverage,
    /// The model file.
    pub model: &'a [u8],
    /// The canonical pipeline.
    pub pipeline: &'a [u8],
}

/// The path from an entry to a root, as `inclusion.json` states it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inclusion {
    /// Index of the entry.
    pub index: u64,
    /// Size of the log.
    pub size: u64,
    /// The entry.
    pub entry: Hash32,
    /// The root.
    pub root: Hash32,
    /// RFC 9162 proof.
    pub path: Vec<Hash32>,
}

/// A bundle as it was read: well-formed, but nothing checked yet; see [`verify_offline`].
#[derive(Debug, Clone, PartialEq)]
pub struct Bundle {
    /// The log.
    pub origin: LogOrigin,
    /// Index of the verdict in it.
    pub index: u64,
    /// The verdict.
    pub verdict: Verdict,
    /// What it rests on, as far as it is shown; `None` where all of it is kept back.
    pub evidence: Option<Disclosed>,
    /// `evidence.bin` as it stands; empty where that is kept back.
    pub evidence_bytes: Vec<u8>,
    /// The inclusion proof.
    pub inclusion: Inclusion,
    /// The signed checkpoint.
    pub checkpoint: SignedCheckpoint,
    /// The readings the checkpoint answers for.
    pub coverage: Coverage,
    /// `coverage.bin` as it stands.
    pub coverage_bytes: Vec<u8>,
    /// The model file; `None` where it is kept back.
    pub model: Option<Vec<u8>>,
    /// The canonical pipeline; `None` where it is kept back.
    pub pipeline: Option<Vec<u8>>,
}

/// Makes a bundle's files, all but the parts that are to be kept back. Same parts, same bytes.
///
/// # Errors
/// [`BundleError::NoSuchPart`] when one of these is none; [`BundleError::Mismatch`] when the parts do not belong together: whatever can be checked offline, short of the
/// signature, is checked before a bundle leaves the house.
pub fn build(parts: &Parts<'_>, kept_back: &[Part]) -> Result<Files, BundleError> {
    let VerdictRecord { index, verdict, evidence } = parts.record;
    let inclusion = Inclusion {
        index: *index,
        size: parts.checkpoint.new_size,
        entry: verdict.struct_hash(),
        root: parts.checkpoint.new_root,
        path: parts.inclusion.to_vec(),
    };
    let text = |name: &str, text: String| (name.to_owned(), text.into_bytes());
    let of_evidence = withheld::kept_back(evidence, kept_back)?;
    let (list, shown) = (evidence.list(), evidence.disclose(|name| !of_evidence.contains(name)));
    let disclosed = Disclosed::from_bytes(&list, &shown)
        .map_err(|e| BundleError::Mismatch { step: "evidence", why: e.to_string() })?;
    let mut files = Files::from([
        text(file::VERDICT, json::verdict(parts.origin, *index, verdict)),
        (file::EVIDENCE.to_owned(), list),
        text(file::EVIDENCE_JSON, json::evidence(&disclosed)),
        (file::DISCLOSED.to_owned(), shown),
        text(file::INCLUSION, json::inclusion(&inclusion)),
        text(file::CHECKPOINT, json::checkpoint(parts.checkpoint)),
        (file::COVERAGE.to_owned(), parts.coverage.to_bytes()),
        text(file::COVERAGE_JSON, json::coverage(parts.coverage)),
        (file::MODEL.to_owned(), parts.model.to_vec()),
        (file::PIPELINE.to_owned(), parts.pipeline.to_vec()),
        text(file::README, readme::render(verdict, &inclusion, parts.checkpoint)),
    ]);
    withheld::withhold(&mut files, kept_back, of_evidence);
    for step in verify_offline(&parse(&files)?, None) {
        if let Outcome::Failed { why, .. } = step.outcome {
            return Err(BundleError::Mismatch { step: step.name, why });
        }
    }
    Ok(files)
}

/// Reads a bundle's files.
///
/// # Errors
/// When a file is missing, does not belong, is malformed, has unknown fields, or is not spelt as [`build`] spells it.
pub fn parse(files: &Files) -> Result<Bundle, BundleError> {
    let allowed = |n: &str| [file::README, file::WITHHELD].contains(&n) || file::REQUIRED.contains(&n);
    if let Some(unknown) = files.keys().find(|n| !allowed(n)) {
        return Err(BundleError::Unknown { file: unknown.clone() });
    }
    let get = |name: &'static str| files.get(name).ok_or(BundleError::Missing { file: name });
    let withheld = withheld::parse(files)?;
    let kept_back = |name: &str| withheld.iter().any(|p| p.files().contains(&name));
    for name in file::REQUIRED.into_iter().filter(|n| !kept_back(n)) {
        get(name)?;
    }
    let (origin, index, verdict) = json::parse_verdict(get(file::VERDICT)?)?;
    let malformed = |file, why: &dyn std::fmt::Display| BundleError::Malformed { file, why: why.to_string() };

    let evidence_bytes = files.get(file::EVIDENCE).cloned().unwrap_or_default();
    let evidence = match kept_back(file::EVIDENCE) {
        true => None,
        false => Some(
            Disclosed::from_bytes(&evidence_bytes, get(file::DISCLOSED)?)
                .map_err(|e| malformed(file::DISCLOSED, &format!("with {}: {e}", file::EVIDENCE)))?,
        ),
    };
    let mut of_evidence: Vec<&str> = evidence.iter().flat_map(Disclosed::withheld).collect();
    of_evidence.sort_unstable();
    if of_evidence != withheld.iter().filter(|p| matches!(p, Part::Of(_))).map(Part::name).collect::<Vec<_>>() {
        let why = format!("it and {} do not name the same parts", file::DISCLOSED);
        return Err(BundleError::Altered { file: file::WITHHELD, why });
    }
    let coverage_bytes = get(file::COVERAGE)?.clone();
    let coverage = Coverage::from_bytes(&coverage_bytes).map_err(|e| malformed(file::COVERAGE, &e))?;
    for (readable, hashed, text) in evidence
        .iter()
        .map(|e| (file::EVIDENCE_JSON, "disclosed.bin with the names of evidence.bin", json::evidence(e)))
        .chain([(file::COVERAGE_JSON, file::COVERAGE, json::coverage(&coverage))])
    {
        if get(readable)? != text.as_bytes() {
            return Err(BundleError::Altered { file: readable, why: format!("it does not say what {hashed} says") });
        }
    }
    Ok(Bundle {
        origin,
        index,
        verdict,
        evidence,
        evidence_bytes,
        inclusion: json::parse_inclusion(get(file::INCLUSION)?)?,
        checkpoint: json::parse_checkpoint(get(file::CHECKPOINT)?)?,
        coverage,
        coverage_bytes,
        model: files.get(file::MODEL).cloned(),
        pipeline: files.get(file::PIPELINE).cloned(),
    })
}
