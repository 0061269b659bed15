//! Parts of a bundle that are kept back: what is not shown is not known, and everything else is checked as ever.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::{BundleError, Files, file, json};
use crate::verdict::{Evidence, FEATURE};

/// A part that may be kept back. The verdict itself shows of it a hash and nothing else.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// Device, source, offsets, features and contributions, and how many there are.
    Evidence,
    /// One part of the evidence, by its name there: `device`, `source`, `feature:temp_mean` ([`crate::verdict::Disclosed`]).
    Of(String),
    /// All features of the evidence.
    Features,
    /// The model file.
    Model,
    /// The configuration.
    Pipeline,
}

/// Parts of evidence but for features, by their names there.
const OF_EVIDENCE: [&str; 7] = ["device", "step", "source", "references", "score", "incident", "label"];

impl Part {
    /// Its name, as on the command line.
    pub fn name(&self) -> &str {
        match self {
            Part::Evidence => "evidence",
            Part::Of(name) => name,
            Part::Features => "features",
            Part::Model => "model",
            Part::Pipeline => "pipeline",
        }
    }

    /// The part of a name.
    pub fn named(name: &str) -> Option<Self> {
        match name {
            "evidence" => Some(Part::Evidence),
            "features" => Some(Part::Features),
            "model" => Some(Part::Model),
            "pipeline" => Some(Part::Pipeline),
            _ if OF_EVIDENCE.contains(&name) => Some(Part::Of(name.to_owned())),
            _ => name.strip_prefix(FEATURE).filter(|f| !f.is_empty()).map(|_| Part::Of(name.to_owned())),
        }
    }

    /// Whether whoever does not need this part does not need that one either.
    pub(super) fn covers(&self, other: &Part) -> bool {
        match (self, other) {
            (Part::Evidence, Part::Of(_) | Part::Features) => true,
            (Part::Features, Part::Of(name)) => name.starts_with(FEATURE),
            (a, b) => a == b,
        }
    }

    /// The files it consists of; none where it is a part of one.
    pub(super) fn files(&self) -> &'static [&'static str] {
        match self {
            Part::Evidence => &[file::EVIDENCE, file::DISCLOSED, file::EVIDENCE_JSON],
            Part::Of(_) | Part::Features => &[],
            Part::Model => &[file::MODEL],
            Part::Pipeline => &[file::PIPELINE],
        }
    }

    /// What commits to it.
    pub(super) fn commitment(&self) -> &'static str {
        match self {
            Part::Evidence => "the verdict has its hash, evidenceHash",
            Part::Of(_) | Part::Features => "evidence.bin commits to it",
            Part::Model => "the verdict has its hash, modelHash",
            Part::Pipeline => "the verdict has its hash, configHash",
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

/// What of this evidence is shown when `parts` are kept back, as [`Evidence::disclose`] asks it.
///
/// # Errors
/// [`BundleError::NoSuchPart`] when it has no part of such a name.
pub(super) fn kept_back(evidence: &Evidence, parts: &[Part]) -> Result<BTreeSet<String>, BundleError> {
    let names = evidence.part_names();
    let mut out = BTreeSet::new();
    for part in parts {
        match part {
            Part::Of(name) if names.contains(name) => {
                out.insert(name.clone());
            }
            Part::Of(name) => return Err(BundleError::NoSuchPart { name: name.clone(), parts: names.join(", ") }),
            Part::Features => out.extend(names.iter().filter(|n| n.starts_with(FEATURE)).cloned()),
            Part::Evidence | Part::Model | Part::Pipeline => {}
        }
    }
    // A label says again which device and step it is about.
    if evidence.label.is_some() && (out.contains("device") || out.contains("step")) {
        out.insert("label".to_owned());
    }
    Ok(out)
}

/// Takes parts out of a bundle, which says from then on that they are kept back; `of_evidence` are those that its evidence was
/// made without. They can be shown later: the verdict has their hashes.
pub(super) fn withhold(files: &mut Files, parts: &[Part], of_evidence: BTreeSet<String>) {
    let whole = parts.contains(&Part::Evidence);
    let mut parts: Vec<Part> = parts.iter().filter(|p| !p.files().is_empty()).cloned().collect();
    if !whole {
        parts.extend(of_evidence.into_iter().map(Part::Of));
    }
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

/// The parts that a bundle says are kept back, in order.
pub(super) fn parse(files: &Files) -> Result<Vec<Part>, BundleError> {
    let Some(bytes) = files.get(file::WITHHELD) else { return Ok(Vec::new()) };
    let read: WithheldFile = json::parse(file::WITHHELD, bytes)?;
    json::format_is(file::WITHHELD, &read.format, FORMAT)?;
    let malformed = |why: String| BundleError::Malformed { file: file::WITHHELD, why };
    let mut parts = Vec::new();
    for name in &read.withheld {
        let part = Part::named(name)
            .filter(|p| *p != Part::Features)
            .ok_or_else(|| malformed(format!("a bundle has no part {name:?}")))?;
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
