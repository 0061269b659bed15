//! Parts of a bundle that are kept back: what is not shown is not known, and everything else is checked as ever.

use serde::{Deserialize, Serialize};

use super::{BundleError, Files, file, json};

/// A part that may be kept back. The verdict itself shows of it a hash and nothing else.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// Device, source, offsets, features and contributions.
    Evidence,
    /// The model file.
    Model,
    /// The configuration.
    Pipeline,
}

impl Part {
    /// All of them.
    pub const ALL: [Part; 3] = [Part::Evidence, Part::Model, Part::Pipeline];

    /// Its name, as on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Part::Evidence => "evidence",
            Part::Model => "model",
            Part::Pipeline => "pipeline",
        }
    }

    /// The part of a name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|p| p.name() == name)
    }

    /// The files it consists of.
    pub(super) fn files(self) -> &'static [&'static str] {
        match self {
            Part::Evidence => &[file::EVIDENCE, file::EVIDENCE_JSON],
            Part::Model => &[file::MODEL],
            Part::Pipeline => &[file::PIPELINE],
        }
    }

    /// The field of the verdict that commits to it.
    pub(super) fn hash(self) -> &'static str {
        match self {
            Part::Evidence => "evidenceHash",
            Part::Model => "modelHash",
            Part::Pipeline => "configHash",
        }
    }
}

const FORMAT: &str = "avouch-withheld/1";

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WithheldFile {
    format: String,
    withheld: Vec<String>,
}

/// Takes parts out of a bundle, which says from then on that they are kept back. They can be shown later: the verdict has
/// their hashes.
pub fn withhold(files: &mut Files, parts: &[Part]) {
    let mut parts = parts.to_vec();
    parts.sort_unstable();
    parts.dedup();
    if parts.is_empty() {
        return;
    }
    for name in parts.iter().flat_map(|p| p.files()) {
        files.remove(*name);
    }
    let names: Vec<String> = parts.iter().map(|p| p.name().to_owned()).collect();
    if let Some(readme) = files.get_mut(file::README) {
        readme.extend_from_slice(
            format!(
                "\nWithheld\n  The operator keeps back: {}. `avouch verify` says which steps cannot be made for that.\n",
                names.join(", ")
            )
            .as_bytes(),
        );
    }
    let text = json::render(&WithheldFile { format: FORMAT.into(), withheld: names });
    files.insert(file::WITHHELD.to_owned(), text.into_bytes());
}

/// The parts that a bundle says are kept back.
pub(super) fn parse(files: &Files) -> Result<Vec<Part>, BundleError> {
    let Some(bytes) = files.get(file::WITHHELD) else { return Ok(Vec::new()) };
    let read: WithheldFile = json::parse(file::WITHHELD, bytes)?;
    json::format_is(file::WITHHELD, &read.format, FORMAT)?;
    let malformed = |why: String| BundleError::Malformed { file: file::WITHHELD, why };
    let mut parts = Vec::new();
    for name in &read.withheld {
        let part = Part::named(name).ok_or_else(|| malformed(format!("a bundle has no part {name:?}")))?;
        if parts.last().is_some_and(|last| *last >= part) {
            return Err(malformed("its parts are not in order".into()));
        }
        if let Some(there) = part.files().iter().find(|f| files.contains_key(**f)) {
            return Err(malformed(format!("it says that {name} is withheld, but {there} is there")));
        }
        parts.push(part);
    }
    if parts.is_empty() {
        return Err(malformed("nothing is withheld".into()));
    }
    Ok(parts)
}
