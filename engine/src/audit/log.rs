//! The audit itself: records one after the other, then what they add up to.

mod checks;
mod found;

use std::collections::{BTreeMap, BTreeSet, HashMap};

use found::Found;

use super::{AuditReport, Claims, ConfigUse, Delays, ModelUse, SaidByPerson};
use crate::bundle::SignedCheckpoint;
use crate::lane::hex;
use crate::log::{EMPTY_ROOT, TreeAppender, entries};
use crate::verdict::parts::{self, Room};
use crate::verdict::{Hash32, Logged, NO_MODEL, SCORE_NOT_A_NUMBER, Severity, VerdictRecord, class, score_e6};

/// Says whose signature a checkpoint's is, or why it is not its signer's.
pub type SignatureCheck<'a> = &'a dyn Fn(&SignedCheckpoint) -> Result<String, String>;

struct Device {
    id: Hash32,
    next_seq: u64,
    /// The index behind its last record.
    behind: u64,
}

/// Records whose evidence is hashed side by side.
const TOGETHER: usize = 256;

/// Audits one log. See the [module](super).
pub struct LogAudit {
    claims: Claims,
    /// Sizes at which the root is wanted, with the root once it is known.
    roots: BTreeMap<u64, Hash32>,
    wanted: BTreeSet<u64>,
    tree: TreeAppender,
    devices: HashMap<Box<str>, Device>,
    models: BTreeMap<(Hash32, String), ModelUse>,
    configs: Vec<ConfigUse>,
    labels: Vec<SaidByPerson>,
    severities: [u64; 3],
    waits: Vec<i64>,
    /// Records that were erased, and the first and last of them.
    erased: u64,
    erased_between: Option<(u64, u64)>,
    /// Those of them that explain no missing number yet.
    unexplained: BTreeSet<u64>,
    /// Numbers of devices that are missing, each where another record was erased that may have had it.
    missing: u64,
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
            models: BTreeMap::new(),
            configs: Vec::new(),
            labels: Vec::new(),
            severities: [0; 3],
            waits: Vec::new(),
            erased: 0,
            erased_between: None,
            unexplained: BTreeSet::new(),
            missing: 0,
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
    pub fn take(&mut self, records: &[Logged]) {
        let (mut rest, mut room) = (records, Room::default());
        while !rest.is_empty() {
            let size = self.tree.size();
            let next = self.wanted.range(size + 1..).next().copied().unwrap_or(u64::MAX);
            let n = usize::try_from(next - size).unwrap_or(usize::MAX).min(rest.len());
            let (now, later) = rest.split_at(n);
            let kept: Vec<&VerdictRecord> = now.iter().filter_map(Logged::record).collect();
            let verdicts: Vec<_> = kept.iter().map(|r| &r.verdict).collect();
            let mut made = entries(&verdicts).into_iter();
            let mut evidence = Vec::with_capacity(kept.len());
            for group in kept.chunks(TOGETHER) {
                evidence.extend(parts::hashes(group.iter().map(|r| &r.evidence), &mut room));
            }
            let mut evidence = evidence.into_iter();
            let entry = |l: &Logged| match l {
                Logged::Record(_) => made.next().unwrap_or_default(),
                // Whether it is the one that was there, the roots say.
                Logged::Erased(stone) => stone.entry,
            };
            let all: Vec<Hash32> = now.iter().map(entry).collect();
            let mut stored = Vec::new();
            self.tree.append_all(&all, &mut stored);
            for (index, logged) in (size..).zip(now) {
                match logged {
                    Logged::Record(record) => self.record(index, record, &evidence.next().unwrap_or_default()),
                    Logged::Erased(stone) => self.stone(index, stone.index),
                }
            }
            if self.tree.size() == next {
                self.roots.insert(next, self.tree.root());
            }
            rest = later;
        }
    }

    fn stone(&mut self, index: u64, says: u64) {
        if says != index {
            self.records.add(index, || format!("it says that it is record {says}, which was erased"));
        }
        self.erased += 1;
        self.unexplained.insert(index);
        let first = self.erased_between.map_or(index, |(first, _)| first);
        self.erased_between = Some((first, index));
    }

    /// `evidence`: the hash of its evidence.
    fn record(&mut self, index: u64, record: &VerdictRecord, evidence: &Hash32) {
        let (v, e) = (&record.verdict, &record.evidence);
        if record.index != index {
            self.records.add(index, || format!("it says that it is record {}", record.index));
        }
        if *evidence != v.evidence_hash {
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
            let (device_id, seq) = (v.device_id, v.seq);
            if seq != 0 && !self.explained(0..index, seq) {
                self.sequence.add(index, || {
                    format!("the first record of device {name} has seq {}: {} are missing", v.seq, v.seq)
                });
            }
            let device = Device { id: device_id, next_seq: seq.saturating_add(1), behind: index + 1 };
            self.devices.insert(name.into(), device);
            return;
        };
        if device.id != v.device_id {
            self.pseudonyms.add(index, || {
                format!(
                    "device {name} has another pseudonym from here on, under which its seq begins anew at {}",
                    v.seq
                )
            });
            *device = Device { id: v.device_id, next_seq: v.seq, behind: index };
        }
        let (expected, behind) = (device.next_seq, device.behind);
        (device.next_seq, device.behind) = (v.seq.saturating_add(1), index + 1);
        if v.seq != expected && !(v.seq > expected && self.explained(behind..index, v.seq - expected)) {
            self.sequence.add(index, || format!("seq {} of device {name} comes where {expected} is due", v.seq));
        }
    }

    /// Whether so many numbers that are missing can be those of records that were erased within this range and explain no other:
    /// then they do. Gaps come in the order of their ends, so taking the first of them leaves most for the others.
    fn explained(&mut self, within: std::ops::Range<u64>, missing: u64) -> bool {
        let most = usize::try_from(missing).unwrap_or(usize::MAX);
        let taken: Vec<u64> = self.unexplained.range(within).take(most).copied().collect();
        if taken.len() < most {
            return false;
        }
        for index in taken {
            self.unexplained.remove(&index);
        }
        self.missing += missing;
        true
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
        let mut checks = vec![
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
        checks.extend(audit.check_erased());
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
}
