//! Checking a bundle, step by step.

use sha2::{Digest, Sha256};

use super::json::hex;
use super::{Bundle, Part, SignedCheckpoint, chain_log_id, file};
use crate::log::verify_inclusion;
use crate::verdict::{Disclosed, FEATURE, Hash32, NO_MODEL, SCORE_NOT_A_NUMBER, Scored, Severity, class, score_e6};

/// What became of a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It holds; with what was compared.
    Passed(String),
    /// It does not: the bundle must be refused.
    Failed {
        /// The files that contradict each other; one of them was changed.
        files: Vec<&'static str>,
        /// What is wrong; begins with the files' names.
        why: String,
    },
    /// Nobody has checked it.
    NotChecked(String),
    /// It cannot be checked, or not all of it, because the bundle keeps these parts back.
    Withheld(Vec<Part>),
}

/// One check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// What is checked, in a few words.
    pub name: &'static str,
    /// What is known when it passes.
    pub proves: &'static str,
    /// What is not known by it.
    pub does_not_prove: &'static str,
    /// The outcome.
    pub outcome: Outcome,
}

/// Checks that the checkpoint's signature is its signer's over its seven fields for its chain and contract. Says what it
/// found: an account recovered, or why not.
pub type SignatureCheck<'a> = &'a dyn Fn(&SignedCheckpoint) -> Result<String, String>;

/// Whether every step passed, but for those that take parts which may be kept back. Who does not need the evidence, or its
/// features, does not need a part of them.
pub fn accepted(steps: &[Step], may_be_withheld: &[Part]) -> bool {
    steps.iter().all(|s| match &s.outcome {
        Outcome::Passed(_) => true,
        Outcome::Withheld(parts) => parts.iter().all(|part| may_be_withheld.iter().any(|may| may.covers(part))),
        Outcome::Failed { .. } | Outcome::NotChecked(_) => false,
    })
}

impl Outcome {
    /// What is said of a step that cannot be made because parts are kept back.
    pub fn of_withheld(parts: &[Part]) -> String {
        let names: Vec<&str> = parts.iter().map(Part::name).collect();
        let commitment = parts.first().map_or("", Part::commitment);
        format!("the operator keeps back: {}; {commitment}", names.join(", "))
    }
}

/// Checks everything in a bundle that needs no chain. All steps are made, whatever fails. Without `signature` that step
/// is [`Outcome::NotChecked`].
pub fn verify_offline(bundle: &Bundle, signature: Option<SignatureCheck<'_>>) -> Vec<Step> {
    vec![
        Step {
            name: "verdict",
            proves: "verdict.json states the very fields that the log's entry is the EIP-712 struct hash of",
            does_not_prove: "that the entry is in an anchored log; see inclusion, signature and the chain itself",
            outcome: verdict(bundle),
        },
        Step {
            name: "evidence",
            proves: "the device, features and contributions shown are those the verdict was made with",
            does_not_prove: "that the sensors told the truth",
            outcome: match &bundle.evidence {
                None => Outcome::Withheld(vec![Part::Evidence]),
                Some(shown) => evidence(bundle, shown),
            },
        },
        Step {
            name: "score",
            proves: "the contributions add up to the score, and the score is the verdict's",
            does_not_prove: "that the model gives this score for these features; re-execute the lane for that",
            outcome: match &bundle.evidence {
                None => Outcome::Withheld(vec![Part::Evidence]),
                Some(shown) => score(bundle, shown),
            },
        },
        Step {
            name: "model",
            proves: "the file `model` is the one that made the decision",
            does_not_prove: "that the model is right",
            outcome: model(bundle),
        },
        Step {
            name: "pipeline",
            proves: "pipeline.canonical.json is the configuration that was running",
            does_not_prove: "that the configuration suits its purpose",
            outcome: match &bundle.pipeline {
                None => Outcome::Withheld(vec![Part::Pipeline]),
                Some(pipeline) => {
                    digest(pipeline, &bundle.verdict.config_hash, file::PIPELINE, (file::VERDICT, "configHash"))
                }
            },
        },
        Step {
            name: "inclusion",
            proves: "the verdict stands at its index in the log with the checkpoint's root, and cannot be changed without changing that root",
            does_not_prove: "that this root was anchored; see signature and the chain itself",
            outcome: inclusion(bundle),
        },
        Step {
            name: "coverage",
            proves: "the checkpoint commits to having read every record in a stated run of offsets, and the verdict's rows end before that run's end",
            does_not_prove: "which records those were; replay the topic to see that none of them was left out",
            outcome: coverage(bundle),
        },
        Step {
            name: "log",
            proves: "the checkpoint is of this pipeline's log, registered by the stated owner",
            does_not_prove: "who the owner is; compare the address with one you know",
            outcome: log(bundle),
        },
        Step {
            name: "signature",
            proves: "the stated signer signed this checkpoint for this chain and contract",
            does_not_prove: "that the contract has it, and when it took it; ask the chain",
            outcome: match signature {
                None => Outcome::NotChecked("no check of signatures was given".into()),
                Some(check) => match check(&bundle.checkpoint) {
                    Ok(found) => Outcome::Passed(found),
                    Err(why) => failed([file::CHECKPOINT], &why),
                },
            },
        },
    ]
}

fn failed<const N: usize>(files: [&'static str; N], why: &str) -> Outcome {
    Outcome::Failed { files: files.to_vec(), why: format!("{}: {why}", files.join(", ")) }
}

fn digest(bytes: &[u8], expected: &Hash32, file: &'static str, (stated, field): (&'static str, &str)) -> Outcome {
    let found: Hash32 = Sha256::digest(bytes).into();
    if found == *expected {
        return Outcome::Passed(format!("SHA-256 of {file} is {field}, {}", hex(&found)));
    }
    failed([file, stated], &format!("the SHA-256 of {file} is {} but {field} is {}", hex(&found), hex(expected)))
}

fn verdict(b: &Bundle) -> Outcome {
    let files = [file::VERDICT, file::INCLUSION];
    let found = b.verdict.struct_hash();
    if found != b.inclusion.entry {
        let entry = hex(&b.inclusion.entry);
        return failed(files, &format!("the struct hash of the verdict is {} but the entry is {entry}", hex(&found)));
    }
    if b.index != b.inclusion.index {
        return failed(files, &format!("the verdict's index is {} but the proof's is {}", b.index, b.inclusion.index));
    }
    Outcome::Passed(format!("struct hash of the verdict is the entry, {}", hex(&found)))
}

fn model(b: &Bundle) -> Outcome {
    // Known without the file.
    if !class::is_label(b.verdict.class) && b.verdict.model_hash == NO_MODEL {
        return failed([file::VERDICT], "a model has decided this, but modelHash is that of no model");
    }
    if class::is_label(b.verdict.class) && b.verdict.model_hash != NO_MODEL {
        return failed([file::VERDICT], "no model makes a label, but there is a modelHash");
    }
    let Some(model) = &b.model else { return Outcome::Withheld(vec![Part::Model]) };
    if !class::is_label(b.verdict.class) {
        return digest(model, &b.verdict.model_hash, file::MODEL, (file::VERDICT, "modelHash"));
    }
    if !model.is_empty() {
        return failed([file::MODEL, file::VERDICT], "no model makes a label, but there is a model");
    }
    Outcome::Passed("a person said this, and no model: modelHash is zero".into())
}

/// The parts that are shown are those that the verdict commits to.
fn evidence(b: &Bundle, shown: &Disclosed) -> Outcome {
    let list = digest(&b.evidence_bytes, &b.verdict.evidence_hash, file::EVIDENCE, (file::VERDICT, "evidenceHash"));
    let Outcome::Passed(found) = list else { return list };
    if let Some(part) = shown.broken() {
        let why = format!("the part {part} that is shown is not the one that {} commits to", file::EVIDENCE);
        return failed([file::DISCLOSED, file::EVIDENCE], &why);
    }
    match shown.withheld() {
        none if none.is_empty() => Outcome::Passed(format!("{found}; it commits to the {} parts shown", shown.parts())),
        parts => Outcome::Withheld(of(parts)),
    }
}

fn of(parts: Vec<&str>) -> Vec<Part> {
    parts.into_iter().map(|name| Part::Of(name.to_owned())).collect()
}

/// Those of the parts of these names, or whose name begins with one, that are kept back: without them a step cannot be made.
fn missing(shown: &Disclosed, needed: &[&str]) -> Option<Outcome> {
    let mut parts = shown.withheld();
    parts.retain(|part| needed.iter().any(|n| part.starts_with(n)));
    (!parts.is_empty()).then(|| Outcome::Withheld(of(parts)))
}

/// Of a label: it has no score, and says what the verdict says.
fn label(b: &Bundle, e: &Disclosed) -> Outcome {
    let (v, files) = (&b.verdict, [file::VERDICT, file::DISCLOSED]);
    if !e.has("label") {
        return failed(files, &format!("class_ {} is a label but the evidence has none", v.class));
    }
    if e.score.is_some_and(|s| !s.score.is_nan())
        || v.score_e6 != SCORE_NOT_A_NUMBER
        || v.severity != Severity::Normal.code()
        || e.source.as_ref().is_some_and(|s| s.rows > 0)
        || e.parts_of_features() > 0
    {
        return failed(files, "a label has no score, severity, rows or features");
    }
    let Some(label) = &e.label else {
        return missing(e, &["label"]).unwrap_or(Outcome::NotChecked("there is no label".into()));
    };
    if label.id() != v.input_digest {
        let (id, stated) = (hex(&label.id()), hex(&v.input_digest));
        return failed(files, &format!("the SHA-256 of the label is {id} but inputDigest is {stated}"));
    }
    let said = (label.opinion.class(), label.from, label.to);
    if said != (v.class, v.window_start, v.window_end)
        || e.device.as_ref().is_some_and(|d| *d != label.device)
        || e.step.as_ref().is_some_and(|s| **s != label.step)
    {
        return failed(files, "the label is of another class, device, step or time than the verdict");
    }
    if label.verdict.is_some_and(|about| about >= b.index) {
        return failed(files, "the label is about a verdict that came after it");
    }
    missing(e, &["device", "step", "score", "source"]).unwrap_or_else(|| {
        Outcome::Passed(format!("it is a label, which has no score: a person says {}", label.opinion.name()))
    })
}

fn score(b: &Bundle, e: &Disclosed) -> Outcome {
    let v = &b.verdict;
    let files = [file::VERDICT, file::DISCLOSED];
    if class::is_label(v.class) {
        return label(b, e);
    }
    if e.has("label") {
        return failed(files, &format!("the evidence is a label but class_ {} is none", v.class));
    }
    if Severity::from_code(v.severity).is_none() {
        return failed([file::VERDICT], &format!("there is no severity {}", v.severity));
    }
    // What is wrong with the readings may be seen where nothing can be scored.
    let unscored = v.score_e6 == SCORE_NOT_A_NUMBER;
    let finding = (class::GAP..=class::DRIFT).contains(&v.class);
    if (unscored && !finding && v.class != class::NOT_A_NUMBER) || (!unscored && v.class == class::NOT_A_NUMBER) {
        return failed([file::VERDICT], &format!("scoreE6 {} does not go with class_ {}", v.score_e6, v.class));
    }
    let Some(Scored { score, p_value, .. }) = e.score else {
        return missing(e, &["score"]).unwrap_or(Outcome::NotChecked("there is no score".into()));
    };
    if score_e6(score) != v.score_e6 {
        return failed(files, &format!("the evidence's score {score} is not the verdict's scoreE6 {}", v.score_e6));
    }
    if score.is_nan() {
        return Outcome::Passed("the window could not be scored, and the verdict says so".into());
    }
    if p_value.is_nan() {
        if v.class == class::ANOMALY {
            return failed(files, "an anomaly is one by its p-value, and the evidence has none");
        }
        // What a prognosis starts from, the mean of its training data, is in the model and not in the evidence.
        return Outcome::Passed(format!(
            "the evidence's value {score} is the verdict's scoreE6; contributions to it begin at a value that the model has, and were not added up"
        ));
    }
    if let Some(withheld) = missing(e, &[FEATURE]) {
        return withheld;
    }
    let (mut sum, mut size) = (0.0, score.abs());
    for f in &e.features {
        sum += f.contribution;
        size += f.contribution.abs();
    }
    // Contributions are rounded one by one: the sum may be off by some units in the last place of the largest.
    if sum == score || (size.is_finite() && (sum - score).abs() <= 1e-9 * size) {
        return Outcome::Passed(format!("{} contributions sum to {sum}, the score is {score}", e.features.len()));
    }
    failed([file::DISCLOSED], &format!("the contributions sum to {sum} but the score is {score}"))
}

fn inclusion(b: &Bundle) -> Outcome {
    let (i, c) = (&b.inclusion, &b.checkpoint);
    if (i.size, i.root) != (c.new_size, c.new_root) {
        let why = format!(
            "the proof is for size {} and root {} but the checkpoint for {} and {}",
            i.size,
            hex(&i.root),
            c.new_size,
            hex(&c.new_root)
        );
        return failed([file::INCLUSION, file::CHECKPOINT], &why);
    }
    match verify_inclusion(&b.verdict.struct_hash(), b.index, c.new_size, &i.path, &c.new_root) {
        Ok(()) => {
            let n = i.path.len();
            Outcome::Passed(format!("{n} hashes lead from entry {} to newRoot, {}", b.index, hex(&c.new_root)))
        }
        Err(e) => failed([file::INCLUSION, file::VERDICT, file::CHECKPOINT], &e.to_string()),
    }
}

fn coverage(b: &Bundle) -> Outcome {
    let c = &b.coverage;
    let outcome =
        digest(&b.coverage_bytes, &b.checkpoint.data_commitment, file::COVERAGE, (file::CHECKPOINT, "dataCommitment"));
    if !matches!(outcome, Outcome::Passed(_)) {
        return outcome;
    }
    let run = format!("{}/{} from offset {} up to {}", c.topic, c.partition, c.from_offset, c.to_offset);
    let e = match &b.evidence {
        None => return Outcome::Withheld(vec![Part::Evidence]),
        Some(e) => match &e.source {
            None => return missing(e, &["source"]).unwrap_or(Outcome::NotChecked("there is no source".into())),
            Some(source) => source,
        },
    };
    let files = [file::COVERAGE, file::DISCLOSED];
    if (&*c.topic, c.partition) != (&*e.topic, e.partition) {
        let why = format!("it covers {}/{} but the rows are of {}/{}", c.topic, c.partition, e.topic, e.partition);
        return failed(files, &why);
    }
    if e.first_offset > e.last_offset || e.last_offset >= c.to_offset {
        let why =
            format!("the rows at offsets {} to {} do not end before {}", e.first_offset, e.last_offset, c.to_offset);
        return failed(files, &why);
    }
    Outcome::Passed(run)
}

fn log(b: &Bundle) -> Outcome {
    let found = chain_log_id(&b.checkpoint.owner, &b.origin);
    if found == b.checkpoint.log_id {
        return Outcome::Passed(format!("logId of {} is {}", b.origin.as_str(), hex(&found)));
    }
    let why = format!(
        "logId of the log {} and the owner would be {} but is {}",
        b.origin.as_str(),
        hex(&found),
        hex(&b.checkpoint.log_id)
    );
    failed([file::CHECKPOINT, file::VERDICT], &why)
}
