//! The audit itself: records one after the other, then what they add up to.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::delays::span;
use super::{
    AuditReport, ChainAnchor, Check, Claims, ConfigUse, Delays, Finding, Grade, MOST_FINDINGS, ModelUse, SaidByPerson,
};
use crate::bundle::{SignedCheckpoint, chain_log_id};
use crate::log::{Coverage, EMPTY_ROOT, TreeAppender, entries};
use crate::verdict::{Hash32, NO_MODEL, SCORE_NOT_A_NUMBER, Severity, VerdictRecord, class, score_e6};

/// Says whose signature a checkpoint's is, or why it is not its signer's.
pub type SignatureCheck<'a> = &'a dyn Fn(&SignedCheckpoint) -> Result<String, String>;

/// What one check has found so far.
#[derive(Debug, Default)]
struct Found {
    findings: Vec<Finding>,
    count: u64,
}

impl Found {
    fn add(&mut self, index: impl Into<Option<u64>>, what: impl FnOnce() -> String) {
        self.count += 1;
        if self.findings.len() < MOST_FINDINGS {
            self.findings.push(Finding { index: index.into(), what: what() });
        }
    }
}

struct Device {
    id: Hash32,
    next_seq: u64,
}

/// Audits one log. See the [module](super).
pub struct LogAudit {
    claims: Claims,
    /// Sizes at which the root is wanted, with the root once it is known.
    roots: BTreeMap<u64, Hash32>,
    wanted: BTreeSet<u64>,
    tree: TreeAppender,
    devices: HashMap<Box<str>, Device>,
    /// Pseudonyms that were given up for another one.
    renamed: u64,
    models: BTreeMap<(Hash32, String), ModelUse>,
    configs: Vec<ConfigUse>,
    labels: Vec<SaidByPerson>,
    severities: [u64; 3],
    waits: Vec<i64>,
    /// The anchor that covers the next record.
    anchor: usize,
    records: Found,
    sequence: Found,
    pseudonyms: Found,
    offsets: Found,
    unregistered: Found,
    inactive: Found,
}

impl LogAudit {
    /// Before the first record.
    pub fn new(mut claims: Claims) -> Self {
        claims.signed.sort_by_key(|c| (c.new_size, c.issued_at));
        let signed = claims.signed.iter().flat_map(|c| [c.old_size, c.new_size]);
        let anchors = claims.anchors.iter().flatten().flat_map(|a| [a.old_size, a.size]);
        let mut wanted: BTreeSet<u64> = signed.chain(anchors).collect();
        wanted.remove(&0);
        Self {
            roots: BTreeMap::from([(0, EMPTY_ROOT)]),
            wanted,
            tree: TreeAppender::new(),
            devices: HashMap::new(),
            renamed: 0,
            models: BTreeMap::new(),
            configs: Vec::new(),
            labels: Vec::new(),
            severities: [0; 3],
            waits: Vec::new(),
            anchor: 0,
            records: Found::default(),
            sequence: Found::default(),
            pseudonyms: Found::default(),
            offsets: Found::default(),
            unregistered: Found::default(),
            inactive: Found::default(),
            claims,
        }
    }

    /// Takes the next records, in the order of the log. How they are divided into calls changes nothing.
    pub fn take(&mut self, records: &[VerdictRecord]) {
        let mut rest = records;
        while !rest.is_empty() {
            let size = self.tree.size();
            let next = self.wanted.range(size + 1..).next().copied().unwrap_or(u64::MAX);
            let n = usize::try_from(next - size).unwrap_or(usize::MAX).min(rest.len());
            let (now, later) = rest.split_at(n);
            let verdicts: Vec<_> = now.iter().map(|r| &r.verdict).collect();
            let mut stored = Vec::new();
            self.tree.append_all(&entries(&verdicts), &mut stored);
            for (index, record) in (size..).zip(now) {
                self.record(index, record);
            }
            if self.tree.size() == next {
                self.roots.insert(next, self.tree.root());
            }
            rest = later;
        }
    }

    fn record(&mut self, index: u64, record: &VerdictRecord) {
        let (v, e) = (&record.verdict, &record.evidence);
        if record.index != index {
            self.records.add(index, || format!("it says that it is record {}", record.index));
        }
        if e.hash() != v.evidence_hash {
            self.records.add(index, || "its evidence is not the one that its evidenceHash names".into());
        }
        if v.score_e6 != SCORE_NOT_A_NUMBER && !class::is_label(v.class) && score_e6(e.score) != v.score_e6 {
            self.records
                .add(index, || format!("its scoreE6 is {}, but its evidence has the score {}", v.score_e6, e.score));
        }
        if v.window_start > v.window_end {
            self.records.add(index, || format!("its window ends at {} before it begins", v.window_end));
        }
        if class::name(v.class).is_none() {
            self.records.add(index, || format!("its class {} has no meaning", v.class));
        }
        match Severity::from_code(v.severity) {
            Some(s) => self.severities[usize::from(s.code())] += 1,
            None => self.records.add(index, || format!("its severity {} has no meaning", v.severity)),
        }
        self.device(index, record);
        self.rows(index, record);
        self.model(index, record);
        match self.configs.last_mut() {
            Some(c) if c.config == v.config_hash => (c.last, c.records) = (index, c.records + 1),
            _ => self.configs.push(ConfigUse { config: v.config_hash, records: 1, first: index, last: index }),
        }
        if let Some(label) = &e.label {
            if label.verdict.is_some_and(|of| of >= index) {
                self.records.add(index, || "it is a label of a record that comes after it".into());
            }
            self.labels.push(SaidByPerson { index, label: (**label).clone() });
        }
    }

    fn device(&mut self, index: u64, record: &VerdictRecord) {
        let (v, name) = (&record.verdict, &*record.evidence.device);
        let Some(device) = self.devices.get_mut(name) else {
            if v.seq != 0 {
                self.sequence.add(index, || {
                    format!("the first record of device {name} has seq {}: {} are missing", v.seq, v.seq)
                });
            }
            self.devices.insert(name.into(), Device { id: v.device_id, next_seq: v.seq.saturating_add(1) });
            return;
        };
        if device.id != v.device_id {
            self.renamed += 1;
            self.pseudonyms.add(index, || {
                format!(
                    "device {name} has another pseudonym from here on, under which its seq begins anew at {}",
                    v.seq
                )
            });
            *device = Device { id: v.device_id, next_seq: v.seq };
        }
        if v.seq != device.next_seq {
            let expected = device.next_seq;
            self.sequence.add(index, || format!("seq {} of device {name} comes where {expected} is due", v.seq));
        }
        device.next_seq = v.seq.saturating_add(1);
    }

    /// The rows of a record were read before the checkpoint that first covers it.
    fn rows(&mut self, index: u64, record: &VerdictRecord) {
        let e = &record.evidence;
        if *e.topic != *self.claims.topic || e.partition != self.claims.partition {
            let (topic, partition) = (&self.claims.topic, self.claims.partition);
            self.offsets.add(index, || {
                format!("its rows are of {}/{}, the log's are of {topic}/{partition}", e.topic, e.partition)
            });
        }
        if class::is_label(record.verdict.class) || e.rows == 0 {
            return;
        }
        if e.first_offset > e.last_offset {
            self.offsets.add(index, || "its last offset is before its first".into());
        }
        let covered = self.claims.offsets.range(index + 1..).next();
        if let Some((size, end)) = covered
            && e.last_offset >= *end
        {
            self.offsets.add(index, || {
                format!(
                    "its last row is at offset {}, but at size {size} the lane had read up to {end} only",
                    e.last_offset
                )
            });
        }
    }

    fn model(&mut self, index: u64, record: &VerdictRecord) {
        let (v, e) = (&record.verdict, &record.evidence);
        let anchors = self.claims.anchors.as_deref().unwrap_or_default();
        while anchors.get(self.anchor).is_some_and(|a| a.size <= index) {
            self.anchor += 1;
        }
        let anchor = anchors.get(self.anchor).filter(|a| a.old_size <= index);
        if let Some(anchor) = anchor {
            let end = i64::try_from(v.window_end).unwrap_or(i64::MAX);
            let at = i64::try_from(anchor.block_time.saturating_mul(1000)).unwrap_or(i64::MAX);
            if !class::is_label(v.class) {
                self.waits.push(at.saturating_sub(end));
            }
        }
        if v.model_hash == NO_MODEL {
            if !class::is_label(v.class) {
                self.unregistered.add(index, || "it names no model".into());
            }
            return;
        }
        let window = self.claims.models.as_ref().map(|m| m.get(&v.model_hash).copied().flatten());
        let used = self.models.entry((v.model_hash, e.step.to_string())).or_insert_with(|| ModelUse {
            model: v.model_hash,
            step: e.step.to_string(),
            records: 0,
            first: index,
            last: index,
            window,
        });
        (used.records, used.last) = (used.records + 1, index);
        match window {
            None => {}
            Some(None) => {
                self.unregistered.add(index, || format!("model {} was never activated", hex(&v.model_hash)));
            }
            Some(Some(window)) => {
                let when = v.window_end / 1000;
                if !window.is_active(when) {
                    self.inactive.add(index, || {
                        format!("model {} was not active at the end of its window, {when}", hex(&v.model_hash))
                    });
                } else if anchor.is_some_and(|a| a.block_time < window.from) {
                    self.inactive
                        .add(index, || format!("it was anchored before model {} was active", hex(&v.model_hash)));
                }
            }
        }
    }

    /// After the last record. `signature` checks the signature of a checkpoint; without it that check is not made.
    pub fn finish(self, signature: Option<SignatureCheck<'_>>) -> AuditReport {
        let records = self.tree.size();
        let anchored = match &self.claims.anchors {
            Some(anchors) => anchors.iter().map(|a| a.size).max().unwrap_or(0),
            None => self.claims.signed.iter().map(|c| c.new_size).max().unwrap_or(0),
        };
        let longest_pause = self
            .claims
            .anchors
            .iter()
            .flat_map(|a| a.windows(2))
            .map(|w| w[1].block_time.saturating_sub(w[0].block_time).saturating_mul(1000))
            .max()
            .unwrap_or(0);
        let mut audit = self;
        let waits = std::mem::take(&mut audit.waits);
        let delays = Delays::of(waits, audit.claims.promise_ms, longest_pause);
        let checks = vec![
            audit.check_records(records),
            audit.check_roots(records),
            audit.check_signatures(signature),
            audit.check_anchors(records),
            audit.check_sequence(),
            audit.check_coverage(),
            audit.check_files(),
            audit.check_models(),
            audit.check_delays(delays.as_ref()),
            audit.check_labels(),
        ];
        AuditReport {
            origin: audit.claims.origin,
            records,
            root: audit.tree.root(),
            anchored,
            devices: audit.devices.len() as u64,
            severities: audit.severities,
            checks,
            models: audit.models.into_values().collect(),
            configs: audit.configs,
            labels: audit.labels,
            delays,
        }
    }

    fn check_records(&mut self, records: u64) -> Check {
        let said = format!("{records} records, each with the evidence that its entry names");
        check(RECORDS, std::mem::take(&mut self.records), Grade::Failed, said)
    }

    /// Every signed checkpoint is one of this very log.
    fn check_roots(&self, records: u64) -> Check {
        let mut found = Found::default();
        let mut beyond = 0;
        for c in &self.claims.signed {
            if c.log_id != chain_log_id(&c.owner, &self.claims.origin) {
                found.add(None, || format!("the checkpoint of size {} is of another log", c.new_size));
            }
            if c.new_size > records || c.old_size > records {
                beyond += 1;
                continue;
            }
            let zero_or = |size: u64, root: &Hash32| size == 0 && *root == [0; 32];
            for (size, root, which) in [(c.old_size, &c.old_root, "begins"), (c.new_size, &c.new_root, "ends")] {
                if self.roots.get(&size) != Some(root) && !zero_or(size, root) {
                    found.add(None, || {
                        format!(
                            "the checkpoint from size {} to {} {which} with the root {}, but the records give {}: they are \
                             not those that were signed",
                            c.old_size,
                            c.new_size,
                            hex(root),
                            self.roots.get(&size).map_or("none".into(), |r| hex(r))
                        )
                    });
                }
            }
        }
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

    fn check_signatures(&self, signature: Option<SignatureCheck<'_>>) -> Check {
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
    fn check_anchors(&self, records: u64) -> Check {
        let Some(anchors) = &self.claims.anchors else {
            return not_made(ANCHORS, "the chain was not asked (--rpc)".into());
        };
        if anchors.is_empty() {
            let mut found = Found::default();
            found.add(None, || "the contract has no checkpoint of this log".into());
            return check(ANCHORS, found, Grade::Failed, String::new());
        }
        let mut found = Found::default();
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
            } else if self.roots.get(&a.size) != Some(&a.root) {
                found.add(None, || {
                    format!(
                        "at size {} the contract has the root {} (block {}), the records give {}: this is not the log that \
                         was anchored",
                        a.size,
                        hex(&a.root),
                        a.block,
                        self.roots.get(&a.size).map_or("none".into(), |r| hex(r))
                    )
                });
            }
            let same = |c: &&SignedCheckpoint| {
                (c.old_size, c.new_size, c.issued_at) == (a.old_size, a.size, a.issued_at)
                    && c.data_commitment == a.data_commitment
                    && c.new_root == a.root
            };
            if !self.claims.signed.iter().any(|c| same(&c)) {
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
        let last = before.map_or(0, |b| b.size);
        let said = format!(
            "{} anchors, one after the other, up to size {last}; {} records wait for theirs",
            anchors.len(),
            records.saturating_sub(last)
        );
        check(ANCHORS, found, Grade::Failed, said)
    }

    fn check_sequence(&mut self) -> Check {
        let said = format!("seq has no gap and no repetition for any of {} devices", self.devices.len());
        let mut broken = check(SEQUENCE, std::mem::take(&mut self.sequence), Grade::Failed, said);
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
    fn check_coverage(&mut self) -> Check {
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
    fn check_files(&self) -> Check {
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

    fn check_models(&mut self) -> Check {
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

    fn check_delays(&self, delays: Option<&Delays>) -> Check {
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

    fn check_labels(&self) -> Check {
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

fn check(meaning: Meaning, found: Found, worst: Grade, said: String) -> Check {
    let (name, proves, does_not_prove) = meaning;
    let grade = if found.count > 0 { worst } else { Grade::Passed };
    Check { name, proves, does_not_prove, grade, said, findings: found.findings, found: found.count }
}

fn not_made(meaning: Meaning, said: String) -> Check {
    Check { grade: Grade::NotMade, ..check(meaning, Found::default(), Grade::Failed, said) }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}
