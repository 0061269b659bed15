//! The checks, over what the records add up to.

use std::collections::BTreeSet;

use super::super::delays::{Delays, span};
use super::super::{ChainAnchor, Check, Finding, Grade, MOST_FINDINGS};
use super::found::{Apart, Found};
use super::{LogAudit, SignatureCheck};
use crate::bundle::{SignedCheckpoint, chain_log_id};
use crate::lane::hex;
use crate::log::Coverage;
use crate::verdict::{Hash32, class};

impl LogAudit {
    pub(super) fn check_records(&mut self, records: u64) -> Check {
        let kept = records - self.erased;
        let said = match self.erased {
            0 => format!("{records} records, each with the evidence that its entry names"),
            n => format!(
                "{kept} records, each with the evidence that its entry names; {n} were erased, of which the entry is left"
            ),
        };
        check(RECORDS, std::mem::take(&mut self.records), Grade::Failed, said)
    }

    /// Every signed checkpoint is one of this very log.
    pub(super) fn check_roots(&self, records: u64) -> Check {
        let mut found = Found::default();
        let (mut beyond, mut apart) = (0, Apart::default());
        for c in &self.claims.signed {
            if c.log_id != chain_log_id(&c.owner, &self.claims.origin) {
                found.add(None, || format!("the checkpoint of size {} is of another log", c.new_size));
            }
            if c.new_size > records || c.old_size > records {
                beyond += 1;
                continue;
            }
            for (size, root) in [(c.old_size, &c.old_root), (c.new_size, &c.new_root)] {
                // The contract has it so that nothing stands at size 0.
                if size > 0 || *root != [0; 32] {
                    apart.compare(size, root, &self.roots);
                }
            }
        }
        apart.tell(&mut found, "were signed");
        if beyond > 0 {
            found.add(None, || {
                format!("{beyond} signed checkpoints reach beyond the {records} records that were handed over")
            });
        }
        let n = self.claims.signed.len();
        if n == 0 {
            return not_made(ROOTS, "no signed checkpoint was handed over".into());
        }
        let said = format!(
            "the roots of {n} signed checkpoints, made again from all records: each record is included, and each checkpoint \
             extends the one before"
        );
        check(ROOTS, found, Grade::Failed, said)
    }

    pub(super) fn check_signatures(&self, signature: Option<SignatureCheck<'_>>) -> Check {
        let Some(verify) = signature else { return not_made(SIGNATURES, "no check of signatures was given".into()) };
        if self.claims.signed.is_empty() {
            return not_made(SIGNATURES, "no signed checkpoint was handed over".into());
        }
        let mut found = Found::default();
        let mut signers = BTreeSet::new();
        for c in &self.claims.signed {
            match verify(c) {
                Ok(_) => {
                    signers.insert(c.signer);
                }
                Err(why) => found.add(None, || format!("the checkpoint of size {}: {why}", c.new_size)),
            }
        }
        let who: Vec<String> = signers.iter().map(|s| format!("0x{}", hex(s))).collect();
        let said = format!("{} checkpoints signed by {}", self.claims.signed.len(), who.join(", "));
        check(SIGNATURES, found, Grade::Failed, said)
    }

    /// The contract's anchors are one after the other, of this log, and signed for.
    pub(super) fn check_anchors(&self, records: u64) -> Check {
        let Some(anchors) = &self.claims.anchors else {
            return not_made(ANCHORS, "the chain was not asked (--rpc)".into());
        };
        if anchors.is_empty() {
            let mut found = Found::default();
            found.add(None, || "the contract has no checkpoint of this log".into());
            return check(ANCHORS, found, Grade::Failed, String::new());
        }
        let mut found = Found::default();
        let mut apart = Apart::default();
        let key = |c: &SignedCheckpoint| (c.old_size, c.new_size, c.issued_at, c.data_commitment, c.new_root);
        let signed: BTreeSet<_> = self.claims.signed.iter().map(key).collect();
        let mut before: Option<&ChainAnchor> = None;
        for a in anchors {
            let due = before.map_or(0, |b| b.size);
            if a.old_size != due {
                found.add(None, || {
                    format!("the anchor of size {} begins at {}, the one before ended at {due}", a.size, a.old_size)
                });
            }
            if a.size > records {
                found.add(None, || {
                    format!(
                        "the log was anchored up to size {} in block {}, but {records} records were handed over: {} are \
                         withheld",
                        a.size,
                        a.block,
                        a.size - records
                    )
                });
            } else {
                apart.compare(a.size, &a.root, &self.roots);
            }
            if !signed.contains(&(a.old_size, a.size, a.issued_at, a.data_commitment, a.root)) {
                found.add(None, || {
                    format!("the checkpoint that was anchored at size {} is not among those handed over", a.size)
                });
            }
            if a.issued_at / 1000 > a.block_time.saturating_add(FUTURE_S) {
                found.add(None, || {
                    format!("the checkpoint of size {} is dated after its block, by its signer's clock", a.size)
                });
            }
            before = Some(a);
        }
        apart.tell(&mut found, "are anchored on the contract");
        let last = before.map_or(0, |b| b.size);
        let said = format!(
            "{} anchors, one after the other, up to size {last}; {} records wait for theirs",
            anchors.len(),
            records.saturating_sub(last)
        );
        check(ANCHORS, found, Grade::Failed, said)
    }

    pub(super) fn check_sequence(&mut self) -> Check {
        let said = format!("seq has no gap and no repetition for any of {} devices", self.devices.len());
        let mut broken = check(SEQUENCE, std::mem::take(&mut self.sequence), Grade::Failed, said);
        if self.missing > 0 {
            let text = format!(
                "{} numbers are missing, each where another of {} records was erased",
                self.missing, self.erased
            );
            broken.grade = broken.grade.max(Grade::Attention);
            broken.found += self.missing;
            broken.findings.insert(0, Finding { index: None, what: text });
        }
        let renamed = std::mem::take(&mut self.pseudonyms);
        if renamed.count > 0 {
            broken.grade = broken.grade.max(Grade::Attention);
            broken.found += renamed.count;
            let room = MOST_FINDINGS.saturating_sub(broken.findings.len());
            broken.findings.extend(renamed.findings.into_iter().take(room));
        }
        broken
    }

    /// The run of offsets of each checkpoint is the one it commits to, and the runs leave no hole.
    pub(super) fn check_coverage(&mut self) -> Check {
        let mut found = std::mem::take(&mut self.offsets);
        let claims = &self.claims;
        let mut runs = 0;
        let mut commitment = |old: u64, new: u64, committed: &Hash32, found: &mut Found| {
            let (Some(from), Some(to)) = (claims.offsets.get(&old), claims.offsets.get(&new)) else {
                found.add(None, || format!("the offsets read at sizes {old} and {new} were not handed over"));
                return;
            };
            runs += 1;
            if to < from {
                found.add(None, || format!("at size {new} less had been read than at size {old}"));
                return;
            }
            let run = Coverage {
                topic: claims.topic.clone(),
                partition: claims.partition,
                from_offset: *from,
                to_offset: *to,
            };
            if run.commitment() != *committed {
                found.add(None, || {
                    format!("the checkpoint from size {old} to {new} does not commit to the offsets {from} to {to}")
                });
            }
        };
        match &claims.anchors {
            Some(anchors) => {
                anchors.iter().for_each(|a| commitment(a.old_size, a.size, &a.data_commitment, &mut found));
            }
            None => {
                claims.signed.iter().for_each(|c| commitment(c.old_size, c.new_size, &c.data_commitment, &mut found));
            }
        }
        let (first, last) = (claims.offsets.values().min(), claims.offsets.values().max());
        let said = format!(
            "{runs} checkpoints commit to runs of offsets of {}/{} that join, from {} up to {} (exclusive)",
            claims.topic,
            claims.partition,
            first.copied().unwrap_or(0),
            last.copied().unwrap_or(0)
        );
        check(COVERAGE, found, Grade::Failed, said)
    }

    /// What the records name was handed over.
    pub(super) fn check_files(&self) -> Check {
        let mut found = Found::default();
        let missing: BTreeSet<&Hash32> =
            self.models.keys().map(|(m, _)| m).filter(|m| !self.claims.model_files.contains(m)).collect();
        for model in missing {
            found.add(None, || format!("the file of model {} was not handed over", hex(model)));
        }
        let configs: BTreeSet<&Hash32> = self.configs.iter().map(|c| &c.config).collect();
        for config in configs.iter().filter(|c| !self.claims.pipelines.contains(c)) {
            found.add(None, || format!("the pipeline of configHash {} was not handed over", hex(*config)));
        }
        let said = format!(
            "{} model files and {} pipelines have the hashes that the records name",
            self.claims.model_files.len(),
            configs.len()
        );
        check(FILES, found, Grade::Failed, said)
    }

    pub(super) fn check_models(&mut self) -> Check {
        let Some(models) = &self.claims.models else {
            return not_made(MODELS, "no model registry was asked (--registry)".into());
        };
        let said = format!("{} models were active at the end of every window they judged", models.len());
        let mut found = std::mem::take(&mut self.unregistered);
        let inactive = std::mem::take(&mut self.inactive);
        found.count += inactive.count;
        let room = MOST_FINDINGS.saturating_sub(found.findings.len());
        found.findings.extend(inactive.findings.into_iter().take(room));
        check(MODELS, found, Grade::Failed, said)
    }

    pub(super) fn check_delays(&self, delays: Option<&Delays>) -> Check {
        let Some(delays) = delays else {
            return not_made(DELAYS, "the chain was not asked, or no record is anchored".into());
        };
        let mut found = Found::default();
        if let (Some(late), Some(promise)) = (delays.late, self.claims.promise_ms)
            && late > 0
        {
            found.add(None, || {
                format!(
                    "{late} of {} records were anchored more than {} after their windows ended",
                    delays.records,
                    span(i64::try_from(promise).unwrap_or(i64::MAX))
                )
            });
            found.count = late;
        }
        let said = format!(
            "from the end of the window to the anchor's block: median {}, 99 % within {}, longest {}",
            span(delays.median_ms),
            span(delays.p99_ms),
            span(delays.max_ms)
        );
        // Readings may have come late: that is no breach by itself.
        check(DELAYS, found, Grade::Attention, said)
    }

    /// What was erased, where something was.
    pub(super) fn check_erased(&self) -> Option<Check> {
        let (first, last) = self.erased_between?;
        let mut found = Found::default();
        let n = self.erased;
        found.add(None, || format!("{n} records were erased, the first of them {first}, the last {last}"));
        let said = format!("{n} records were erased; their entries stand");
        Some(check(ERASED, found, Grade::Attention, said))
    }

    pub(super) fn check_labels(&self) -> Check {
        let against = self
            .labels
            .iter()
            .filter(|l| matches!(l.label.opinion.class(), class::LABEL_FALSE_ALARM | class::LABEL_MISSED));
        let said = format!("{} labels, {} of them against what was decided", self.labels.len(), against.count());
        check(LABELS, Found::default(), Grade::Failed, said)
    }
}

/// A signer's clock may be ahead of the chain's by as much, in seconds.
const FUTURE_S: u64 = 900;

/// Name, what it proves, what it does not.
type Meaning = (&'static str, &'static str, &'static str);

const RECORDS: Meaning = (
    "records",
    "every record is what its entry in the log is the hash of, with its evidence",
    "that these are the entries that were anchored; see roots and anchors",
);
const ROOTS: Meaning = (
    "roots",
    "the records are those that every checkpoint was signed for: none was changed, left out, added or moved since",
    "when they were signed; see anchors",
);
const SIGNATURES: Meaning = (
    "signatures",
    "the stated signers signed every checkpoint for this chain and contract",
    "who is behind the accounts",
);
const ANCHORS: Meaning = (
    "anchors",
    "the contract took these checkpoints and no others, one after the other, and they are of these records",
    "that the operator keeps no second log under another name or account",
);
const SEQUENCE: Meaning = (
    "sequence",
    "no verdict of any device is missing between its first and its last",
    "that every device has a log; compare with the list of devices you know",
);
const COVERAGE: Meaning = (
    "coverage",
    "the checkpoints commit to one run of offsets without holes or overlaps, and no record rests on rows beyond it",
    "which records stood at these offsets; replay them",
);
const FILES: Meaning = (
    "files",
    "the models and pipelines that decided are those handed over",
    "that they give these verdicts; replay them",
);
const MODELS: Meaning = (
    "models",
    "a second person had activated every model before it decided, and none was revoked by then",
    "that the devices' clocks were right; see delays",
);
const DELAYS: Meaning = (
    "delays",
    "how long after the end of its window each record was beyond change",
    "why it took long: readings may have come late",
);
const LABELS: Meaning = (
    "labels",
    "what people said of verdicts, none of it left out",
    "that they were right, or that everybody was asked",
);

const ERASED: Meaning = (
    "erased",
    "which records the operator has erased since; with roots, that their entries are those that were signed for",
    "what they said, or whose they were: ask the operator why",
);

fn check(meaning: Meaning, found: Found, worst: Grade, said: String) -> Check {
    let (name, proves, does_not_prove) = meaning;
    let grade = if found.count > 0 { worst } else { Grade::Passed };
    Check { name, proves, does_not_prove, grade, said, findings: found.findings, found: found.count }
}

fn not_made(meaning: Meaning, said: String) -> Check {
    Check { grade: Grade::NotMade, ..check(meaning, Found::default(), Grade::Failed, said) }
}
