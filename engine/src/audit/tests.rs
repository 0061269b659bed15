#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use super::*;
use crate::bundle::{SignedCheckpoint, chain_log_id};
use crate::label::{Label, Opinion};
use crate::log::{Coverage, TreeAppender};
use crate::verdict::{Evidence, FeatureEvidence, Logged, NO_MODEL, Tombstone, Verdict, VerdictRecord, class, score_e6};

const RECORDS: u64 = 400;
/// Sizes that were anchored.
const SIZES: [u64; 4] = [1, 150, 256, 390];
const MODEL: Hash32 = [7; 32];
const CONFIG: Hash32 = [8; 32];
const OWNER: [u8; 20] = [0xab; 20];
const MINUTE: u64 = 60_000;

struct Sample {
    records: Vec<VerdictRecord>,
    claims: Claims,
}

fn record(index: u64) -> VerdictRecord {
    let device = index % 7;
    let score = index as f64 / 16.0;
    let mut evidence = Evidence {
        salt: [0; 32],
        device: format!("pump-{device}"),
        step: "anomaly".into(),
        topic: "telemetry".into(),
        partition: 3,
        first_offset: index as i64 * 10,
        last_offset: index as i64 * 10 + 9,
        rows: 10,
        references: Vec::new(),
        score,
        p_value: 0.5,
        interval: None,
        incident: None,
        label: None,
        features: vec![FeatureEvidence { name: "vib".into(), value: 1.0, expected: 0.5, contribution: score }],
    };
    let (from, to) = (1_000 * MINUTE + index * 1_000, 1_001 * MINUTE + index * 1_000);
    let is_label = index % 100 == 99;
    if is_label {
        evidence.label = Some(Box::new(Label {
            device: evidence.device.clone(),
            verdict: Some(index - 7),
            step: "anomaly".into(),
            from,
            to,
            opinion: Opinion::FalseAlarm,
            reason: None,
            by: [1; 32],
            at: 5,
        }));
        (evidence.rows, evidence.features) = (0, Vec::new());
    }
    VerdictRecord {
        index,
        verdict: Verdict {
            device_id: [device as u8 + 1; 32],
            seq: index / 7,
            window_start: from,
            window_end: to,
            model_hash: if is_label { NO_MODEL } else { MODEL },
            config_hash: CONFIG,
            input_digest: [2; 32],
            score_e6: if is_label { 0 } else { score_e6(score) },
            severity: (index % 3) as u8,
            class: if is_label { class::LABEL_FALSE_ALARM } else { class::NORMAL },
            evidence_hash: evidence.hash(),
            salt: [index as u8; 32],
        },
        evidence,
    }
}

/// A log as an honest operator hands it over.
fn sample() -> Sample {
    let records: Vec<VerdictRecord> = (0..RECORDS).map(record).collect();
    claimed(records)
}

/// What an operator would say of these records, whatever is wrong with them.
fn claimed(records: Vec<VerdictRecord>) -> Sample {
    let origin = LogOrigin::new("pumps", 3);
    let offsets: BTreeMap<u64, i64> = std::iter::once(0).chain(SIZES).map(|s| (s, s as i64 * 10 + 13)).collect();
    let (mut tree, mut old, mut signed, mut anchors) = (TreeAppender::new(), (0, [0; 32]), Vec::new(), Vec::new());
    for size in SIZES {
        while tree.size() < size {
            tree.append(&records[tree.size() as usize].entry(), &mut Vec::new());
        }
        let run = Coverage {
            topic: "telemetry".into(),
            partition: 3,
            from_offset: offsets[&old.0],
            to_offset: offsets[&size],
        };
        let end = 1_001 * MINUTE + size * 1_000;
        let c = SignedCheckpoint {
            log_id: chain_log_id(&OWNER, &origin),
            old_size: old.0,
            new_size: size,
            old_root: old.1,
            new_root: tree.root(),
            data_commitment: run.commitment(),
            issued_at: end + 2_000,
            chain_id: 1,
            contract: [3; 20],
            owner: OWNER,
            signer: OWNER,
            signature: vec![1],
        };
        anchors.push(ChainAnchor {
            old_size: c.old_size,
            size,
            root: c.new_root,
            data_commitment: c.data_commitment,
            issued_at: c.issued_at,
            block_time: end / 1_000 + 12,
            block: size,
        });
        old = (size, c.new_root);
        signed.push(c);
    }
    let window = ModelWindow { from: 1_000 * 60, until: u64::MAX, revoked_at: None };
    let claims = Claims {
        origin,
        topic: "telemetry".into(),
        partition: 3,
        signed,
        offsets,
        anchors: Some(anchors),
        models: Some(BTreeMap::from([(MODEL, Some(window))])),
        promise_ms: Some(10 * MINUTE),
        model_files: vec![MODEL],
        pipelines: vec![CONFIG],
    };
    Sample { records, claims }
}

fn audit(sample: &Sample) -> AuditReport {
    audit_in(sample, usize::MAX)
}

fn audit_in(sample: &Sample, chunk: usize) -> AuditReport {
    let mut audit = LogAudit::new(sample.claims.clone());
    for records in sample.records.chunks(chunk.min(sample.records.len().max(1))) {
        let logged: Vec<Logged> = records.iter().cloned().map(Logged::Record).collect();
        audit.take(&logged);
    }
    audit.finish(Some(&|c| if c.signature == [1] { Ok("good".into()) } else { Err("bad".into()) }))
}

/// The names of the checks that failed.
fn failed(report: &AuditReport) -> Vec<&'static str> {
    report.checks.iter().filter(|c| c.grade == Grade::Failed).map(|c| c.name).collect()
}

#[test]
fn an_honest_log_passes_however_it_is_read() {
    let sample = sample();
    let report = audit(&sample);
    assert_eq!(report.grade(), Grade::Passed, "{:#?}", report.checks);
    assert!(report.checks.iter().all(|c| c.grade == Grade::Passed));
    assert_eq!((report.records, report.anchored, report.devices), (RECORDS, 390, 7));
    assert_eq!(report.severities.iter().sum::<u64>(), RECORDS);
    assert_eq!(report.labels.len(), 4);
    assert_eq!(report.models.len(), 1);
    assert_eq!((report.models[0].records, report.models[0].last), (RECORDS - 4, 398));
    for chunk in [1, 7, 64, 255] {
        assert_eq!(audit_in(&sample, chunk), report);
    }
    let delays = report.delays.unwrap();
    // The second record waits for the checkpoint of 150.
    assert_eq!((delays.records, delays.max_ms), (387, 161_000));
    assert_eq!(delays.late, Some(0));
    assert_eq!(delays.longest_pause_ms, 149_000);
}

#[test]
fn a_record_that_was_rewritten_is_found() {
    for at in [0, 120, 255, 389] {
        let mut sample = sample();
        let score = 99.0;
        let r = &mut sample.records[at];
        (r.evidence.score, r.verdict.score_e6) = (score, score_e6(score));
        r.verdict.evidence_hash = r.evidence.hash();
        let report = audit(&sample);
        assert_eq!(failed(&report), ["roots", "anchors"], "record {at}");
        // Between which two checkpoints it is.
        let after = SIZES.iter().find(|s| **s > at as u64).unwrap();
        let before = SIZES.iter().rfind(|s| **s <= at as u64).unwrap_or(&0);
        for check in report.checks.iter().filter(|c| c.grade == Grade::Failed) {
            let what = &check.findings[0].what;
            assert!(what.contains(&format!("up to size {before} they are, and at size {after} the root is")), "{what}");
            assert_eq!(check.findings.len(), 1);
            assert_eq!(check.found, SIZES.iter().filter(|s| *s >= after).count() as u64);
        }
        // The operator may sign anew; the contract's root stays.
        let contract = sample.claims.anchors.clone();
        let mut again = claimed(std::mem::take(&mut sample.records));
        again.claims.anchors = contract;
        assert_eq!(failed(&audit(&again)), ["anchors"], "record {at}, signed again");
    }
}

#[test]
fn a_record_that_was_dropped_is_found() {
    let mut records = sample().records;
    records.remove(130);
    records.iter_mut().zip(0..).for_each(|(r, i)| r.index = i);
    // Even where everything else was made to fit.
    let report = audit(&claimed(records));
    assert_eq!(failed(&report), ["sequence"]);
    let sequence = report.checks.iter().find(|c| c.name == "sequence").unwrap();
    assert_eq!(sequence.findings[0].index, Some(136));
    assert_eq!(sequence.found, 1);
}

#[test]
fn a_log_in_another_order_is_found() {
    let mut records = sample().records;
    records.swap(200, 203);
    records.iter_mut().zip(0..).for_each(|(r, i)| r.index = i);
    let mut reordered = sample();
    reordered.records = records.clone();
    assert_eq!(failed(&audit(&reordered)), ["roots", "anchors"]);
    let mut of_one_device = sample().records;
    of_one_device.swap(200, 207);
    of_one_device.iter_mut().zip(0..).for_each(|(r, i)| r.index = i);
    assert_eq!(failed(&audit(&claimed(of_one_device))), ["sequence"]);
}

#[test]
fn records_that_are_withheld_are_found() {
    let mut sample = sample();
    sample.records.truncate(300);
    let report = audit(&sample);
    assert_eq!(failed(&report), ["roots", "anchors"]);
    let anchors = report.checks.iter().find(|c| c.name == "anchors").unwrap();
    assert!(anchors.findings[0].what.contains("90 are withheld"), "{:?}", anchors.findings);
}

#[test]
fn an_anchor_that_was_not_handed_over_is_found() {
    let mut sample = sample();
    sample.claims.signed.remove(2);
    assert_eq!(failed(&audit(&sample)), ["anchors"]);
    let mut sample = self::sample();
    sample.claims.anchors.as_mut().unwrap().remove(1);
    assert_eq!(failed(&audit(&sample)), ["anchors"]);
    let mut sample = self::sample();
    sample.claims.anchors = Some(Vec::new());
    assert_eq!(failed(&audit(&sample)), ["anchors"]);
}

#[test]
fn a_signature_that_is_not_the_signers_is_found() {
    let mut sample = sample();
    sample.claims.signed[2].signature = vec![2];
    assert_eq!(failed(&audit(&sample)), ["signatures"]);
}

#[test]
fn a_checkpoint_of_another_log_is_found() {
    let mut sample = sample();
    sample.claims.signed[1].log_id = [9; 32];
    assert_eq!(failed(&audit(&sample)), ["roots"]);
}

#[test]
fn offsets_that_were_not_committed_to_are_found() {
    let mut sample = sample();
    // A run of offsets that was left out.
    sample.claims.offsets.insert(256, 2_600);
    assert_eq!(failed(&audit(&sample)), ["coverage"]);
    let mut sample = self::sample();
    sample.claims.offsets.remove(&150);
    assert_eq!(failed(&audit(&sample)), ["coverage"]);
    let mut records = self::sample().records;
    // Rows that had not been read yet.
    let r = &mut records[10];
    r.evidence.last_offset = 1_513;
    r.verdict.evidence_hash = r.evidence.hash();
    let report = audit(&claimed(records));
    assert_eq!(failed(&report), ["coverage"]);
}

#[test]
fn a_model_that_nobody_activated_or_not_yet_is_found() {
    let mut records = sample().records;
    records[60].verdict.model_hash = [6; 32];
    let mut swapped = claimed(records);
    assert_eq!(failed(&audit(&swapped)), ["files", "models"]);
    swapped.claims.model_files.push([6; 32]);
    assert_eq!(failed(&audit(&swapped)), ["models"]);
    let mut early = sample();
    let window = ModelWindow { from: 1_001 * 60 + 200, until: u64::MAX, revoked_at: None };
    early.claims.models = Some(BTreeMap::from([(MODEL, Some(window))]));
    let report = audit(&early);
    assert_eq!(failed(&report), ["models"]);
    let models = report.checks.iter().find(|c| c.name == "models").unwrap();
    assert_eq!(models.found, 198, "200 records but two labels");
    let mut revoked = sample();
    let window = ModelWindow { from: 0, until: u64::MAX, revoked_at: Some(1_001 * 60 + 390) };
    revoked.claims.models = Some(BTreeMap::from([(MODEL, Some(window))]));
    assert_eq!(failed(&audit(&revoked)), ["models"]);
}

#[test]
fn a_window_that_is_dated_before_the_model_was_active_does_not_help() {
    // Its windows lie in the model's window, but the model was activated after the anchor.
    let mut sample = sample();
    for anchor in sample.claims.anchors.as_mut().unwrap() {
        anchor.block_time = 59_000;
        anchor.issued_at = 0;
    }
    for signed in &mut sample.claims.signed {
        signed.issued_at = 0;
    }
    assert_eq!(failed(&audit(&sample)), ["models"]);
}

#[test]
fn a_device_under_a_second_pseudonym_is_shown() {
    let mut records = sample().records;
    for r in records.iter_mut().filter(|r| r.index >= 200 && r.evidence.device == "pump-2") {
        r.verdict.device_id = [0x77; 32];
        r.verdict.seq = 0;
    }
    let report = audit(&claimed(records));
    let sequence = report.checks.iter().find(|c| c.name == "sequence").unwrap();
    assert_eq!(sequence.grade, Grade::Failed);
    assert!(sequence.findings.iter().any(|f| f.what.contains("another pseudonym")));
}

#[test]
fn a_broken_promise_and_a_clock_ahead_are_shown() {
    let mut sample = sample();
    sample.claims.promise_ms = Some(20_000);
    let report = audit(&sample);
    assert_eq!(report.grade(), Grade::Attention);
    assert!(report.delays.unwrap().late.unwrap() > 0);
    let mut ahead = self::sample();
    ahead.claims.anchors.as_mut().unwrap()[0].issued_at += 86_400_000;
    ahead.claims.signed[0].issued_at += 86_400_000;
    assert_eq!(failed(&audit(&ahead)), ["anchors"]);
}

#[test]
fn times_are_said_as_people_say_them() {
    let said = [0, 1_250, -9_999, 10_000, 599_000, 600_000, 7_199_000, 7_260_000, 172_800_000].map(super::delays::span);
    assert_eq!(said, ["0.0 s", "1.2 s", "-9.9 s", "10 s", "599 s", "10 min", "119 min", "2 h 1 min", "2 days"]);
}

#[test]
fn evidence_and_score_are_the_records() {
    let mut sample = sample();
    sample.records[5].evidence.score = 4.0;
    assert_eq!(failed(&audit(&sample)), ["records"]);
    let mut records = self::sample().records;
    records[5].verdict.score_e6 += 1;
    assert_eq!(failed(&audit(&claimed(records))), ["records"]);
}

#[test]
fn without_chain_and_registry_that_is_said() {
    let mut sample = sample();
    (sample.claims.anchors, sample.claims.models) = (None, None);
    let report = audit(&sample);
    let not_made: Vec<_> = report.checks.iter().filter(|c| c.grade == Grade::NotMade).map(|c| c.name).collect();
    assert_eq!(not_made, ["anchors", "models", "delays"]);
    assert_eq!((report.grade(), report.anchored), (Grade::Passed, 390));
}

/// Audits the sample with tombstones in these places.
fn audit_erased(sample: &Sample, erased: &[u64]) -> AuditReport {
    let stone = |r: &VerdictRecord| Logged::Erased(Tombstone { index: r.index, entry: r.entry() });
    let of = |r: &VerdictRecord| if erased.contains(&r.index) { stone(r) } else { Logged::Record(r.clone()) };
    audit_logged(sample, &sample.records.iter().map(of).collect::<Vec<_>>())
}

fn audit_logged(sample: &Sample, logged: &[Logged]) -> AuditReport {
    let mut audit = LogAudit::new(sample.claims.clone());
    audit.take(logged);
    audit.finish(Some(&|c| if c.signature == [1] { Ok("good".into()) } else { Err("bad".into()) }))
}

fn of<'a>(report: &'a AuditReport, name: &str) -> &'a Check {
    report.checks.iter().find(|c| c.name == name).unwrap()
}

#[test]
fn erased_records_leave_a_log_that_is_looked_at_and_not_refused() {
    let sample = sample();
    // All of one device, the first and the last among them; and some of another in its middle.
    let device: Vec<u64> = (0..RECORDS).filter(|i| i % 7 == 0).collect();
    for erased in [&device[..], &[8, 15, 16, 22], &[1], &[RECORDS - 1]] {
        let report = audit_erased(&sample, erased);
        assert_eq!(failed(&report), [] as [&str; 0], "{erased:?}: {:#?}", report.checks);
        assert_eq!((report.grade(), report.records), (Grade::Attention, RECORDS));
        assert_eq!(of(&report, "erased").said, format!("{} records were erased; their entries stand", erased.len()));
        assert_eq!(of(&report, "roots").grade, Grade::Passed);
    }
    // A whole device leaves no gap; the middle of one does, and it is explained.
    assert_eq!(of(&audit_erased(&sample, &device), "sequence").grade, Grade::Passed);
    let report = audit_erased(&sample, &[8, 15, 16, 22]);
    let sequence = of(&report, "sequence");
    assert_eq!((sequence.grade, sequence.found), (Grade::Attention, 4));
    assert_eq!(sequence.findings[0].what, "4 numbers are missing, each where another of 4 records was erased");
}

#[test]
fn a_tombstone_with_another_entry_is_found_by_the_roots() {
    let sample = sample();
    let mut logged: Vec<Logged> = sample.records.iter().cloned().map(Logged::Record).collect();
    logged[140] = Logged::Erased(Tombstone { index: 140, entry: [9; 32] });
    assert!(failed(&audit_logged(&sample, &logged)).contains(&"roots"));
    // One that stands in another's place.
    let entry = sample.records[140].entry();
    logged[140] = Logged::Erased(Tombstone { index: 141, entry });
    assert_eq!(failed(&audit_logged(&sample, &logged)), ["records"]);
}

#[test]
fn a_gap_that_erased_records_cannot_explain_fails() {
    let mut sample = sample();
    // Three numbers of one device are skipped where one record was erased; the records are otherwise what they were, so the
    // signed roots, which no longer fit, are beside the point here.
    for r in &mut sample.records {
        if r.index % 7 == 1 && r.index > 20 {
            r.verdict.seq += 2;
        }
    }
    let report = audit_erased(&sample, &[22]);
    let sequence = of(&report, "sequence");
    assert_eq!(sequence.grade, Grade::Failed);
    assert_eq!(sequence.findings[0].what, "seq 6 of device pump-1 comes where 3 is due");
    // Where the record was erased elsewhere than in the gap, it explains nothing.
    let mut sample = super::tests::sample();
    for r in &mut sample.records {
        if r.index % 7 == 1 && r.index > 20 {
            r.verdict.seq += 1;
        }
    }
    assert_eq!(of(&audit_erased(&sample, &[300]), "sequence").grade, Grade::Failed);
    // Where it was erased in the gap but is missing from another device, one record would have to explain two numbers; and more of
    // them elsewhere, the last ones of their devices, do not help.
    for erased in [&[16][..], &[16, RECORDS - 1, RECORDS - 2]] {
        let report = audit_erased(&sample, erased);
        let sequence = of(&report, "sequence");
        assert_eq!((sequence.grade, sequence.found), (Grade::Failed, 2));
        assert_eq!(sequence.findings[1].what, "seq 3 of device pump-2 comes where 2 is due");
    }
}
