#![allow(clippy::unwrap_used)]

use sha2::{Digest, Sha256};

use super::*;
use crate::label::{Label, Opinion};
use crate::log::{TreeAppender, inclusion_proof};
use crate::verdict::{Evidence, FeatureEvidence, NO_MODEL, SCORE_NOT_A_NUMBER, class};

const SIZE: u64 = 300;
const INDEX: u64 = 137;

/// Stands in for a signature scheme: a digest over all that EIP-712 binds, keyed by the signer.
fn sign(c: &SignedCheckpoint) -> Vec<u8> {
    let mut h = Sha256::new();
    for part in [&c.log_id, &c.old_root, &c.new_root, &c.data_commitment] {
        h.update(part);
    }
    for n in [c.old_size, c.new_size, c.issued_at, c.chain_id] {
        h.update(n.to_be_bytes());
    }
    h.update(c.contract);
    h.update(c.signer);
    h.finalize().to_vec()
}

fn check(c: &SignedCheckpoint) -> Result<String, String> {
    if c.signature == sign(c) {
        Ok("signed by the stated signer".into())
    } else {
        Err("the signature is not the stated signer's over this checkpoint".into())
    }
}

struct Sample {
    origin: LogOrigin,
    record: VerdictRecord,
    inclusion: Vec<Hash32>,
    checkpoint: SignedCheckpoint,
    coverage: Coverage,
    model: Vec<u8>,
    pipeline: Vec<u8>,
}

impl Sample {
    fn parts(&self) -> Parts<'_> {
        Parts {
            origin: &self.origin,
            record: &self.record,
            inclusion: &self.inclusion,
            checkpoint: &self.checkpoint,
            coverage: &self.coverage,
            model: &self.model,
            pipeline: &self.pipeline,
        }
    }
}

fn sample_with(score: f64) -> Sample {
    let model = b"avouch-model 1\nweights and card\n".to_vec();
    let pipeline = br#"{"pipeline":{"name":"pump-health"},"version":1}"#.to_vec();
    let feature = |name: &str, value, part: f64| FeatureEvidence {
        name: name.into(),
        value,
        expected: 0.1,
        contribution: part * score,
    };
    let evidence = Evidence {
        device: "pump-7".into(),
        step: "anomaly".into(),
        topic: "pumps.telemetry".into(),
        partition: 2,
        first_offset: 48_100,
        last_offset: 48_219,
        rows: 60,
        references: vec![crate::verdict::ReferenceVersion { name: "devices".into(), version: [0x44; 32] }],
        score,
        p_value: if score.is_nan() { f64::NAN } else { 0.0004 },
        interval: None,
        incident: None,
        label: None,
        features: vec![
            feature("vib_rms", 3.25, 0.8),
            feature("temp_mean", if score.is_nan() { f64::NAN } else { 61.0 }, 0.2),
        ],
        salt: [0x77; 32],
    };
    let verdict = Verdict {
        device_id: [0x11; 32],
        seq: 41,
        window_start: 1_767_225_600_000,
        window_end: 1_767_225_660_000,
        model_hash: Sha256::digest(&model).into(),
        config_hash: Sha256::digest(&pipeline).into(),
        input_digest: [0x22; 32],
        score_e6: crate::verdict::score_e6(score),
        severity: 2,
        class: if score.is_nan() { class::NOT_A_NUMBER } else { class::ANOMALY },
        evidence_hash: evidence.hash(),
        salt: [0x33; 32],
    };
    anchored(verdict, evidence, model, pipeline)
}

/// In a log whose checkpoint is anchored.
fn anchored(verdict: Verdict, evidence: Evidence, model: Vec<u8>, pipeline: Vec<u8>) -> Sample {
    let (mut tree, mut stored) = (TreeAppender::new(), Vec::new());
    for n in 0..SIZE {
        let entry = if n == INDEX { verdict.struct_hash() } else { Sha256::digest(n.to_be_bytes()).into() };
        tree.append(&entry, &mut stored);
    }
    let hashes: Vec<Hash32> = stored.chunks_exact(32).map(|h| h.try_into().unwrap()).collect();
    let origin = LogOrigin::new("pump-health", 2);
    let coverage = Coverage { topic: "pumps.telemetry".into(), partition: 2, from_offset: 31_000, to_offset: 52_000 };
    let owner = [0xab; 20];
    let mut checkpoint = SignedCheckpoint {
        log_id: chain_log_id(&owner, &origin),
        old_size: 120,
        new_size: SIZE,
        old_root: [0x44; 32],
        new_root: tree.root(),
        data_commitment: coverage.commitment(),
        issued_at: 1_767_225_700_123,
        chain_id: 31_337,
        contract: [0xcd; 20],
        owner,
        signer: [0xef; 20],
        signature: vec![],
    };
    checkpoint.signature = sign(&checkpoint);
    Sample {
        origin,
        record: VerdictRecord { index: INDEX, verdict, evidence },
        inclusion: inclusion_proof(INDEX, SIZE, &hashes).unwrap(),
        checkpoint,
        coverage,
        model,
        pipeline,
    }
}

fn sample() -> Sample {
    sample_with(12.345_678_9)
}

/// What refuses these files, if anything does.
fn refusal(files: &Files) -> Option<String> {
    match parse(files) {
        Err(e) => Some(e.to_string()),
        Ok(bundle) => {
            let steps = verify_offline(&bundle, Some(&check));
            let why: Vec<String> = steps
                .iter()
                .filter_map(|s| match &s.outcome {
                    Outcome::Failed { why, .. } => Some(format!("{}: {why}", s.name)),
                    _ => None,
                })
                .collect();
            assert_eq!(why.is_empty(), accepted(&steps, &[]));
            (!why.is_empty()).then(|| why.join("\n"))
        }
    }
}

#[test]
fn a_bundle_round_trips_and_is_accepted() {
    let s = sample();
    let files = build(&s.parts(), &[]).unwrap();
    let bundle = parse(&files).unwrap();
    assert_eq!(bundle.origin, s.origin);
    assert_eq!(
        (bundle.index, &bundle.verdict, bundle.evidence.as_ref().and_then(|e| e.whole())),
        // The salt of all parts is not in it, only those of each.
        (INDEX, &s.record.verdict, Some(Evidence { salt: [0; 32], ..s.record.evidence.clone() }))
    );
    assert!(!files.values().any(|bytes| bytes.windows(32).any(|w| w == s.record.evidence.salt)));
    assert_eq!((&bundle.checkpoint, &bundle.coverage), (&s.checkpoint, &s.coverage));
    assert_eq!((bundle.model.as_ref(), bundle.pipeline.as_ref()), (Some(&s.model), Some(&s.pipeline)));
    assert_eq!(refusal(&files), None);
    assert_eq!(build(&s.parts(), &[]).unwrap(), files);
    // Without a check of signatures nobody can accept it.
    assert!(!accepted(&verify_offline(&bundle, None), &[Part::Evidence, Part::Model, Part::Pipeline]));
    // The README is for people.
    let mut without = files;
    without.remove(file::README);
    assert_eq!(refusal(&without), None);
}

/// Files with the parts kept back, and whether they hold a text.
fn without(s: &Sample, parts: &[Part]) -> (Files, impl Fn(&str) -> bool + use<>) {
    let files = build(&s.parts(), parts).unwrap();
    let all: Vec<u8> = files.values().flatten().copied().collect();
    (files, move |text: &str| all.windows(text.len()).any(|w| w == text.as_bytes()))
}

#[test]
fn what_is_kept_back_is_not_in_the_files_and_the_rest_is_still_checked() {
    let s = sample();
    for parts in [&[Part::Evidence][..], &[Part::Model, Part::Evidence], &[Part::Evidence, Part::Model, Part::Pipeline]]
    {
        let (files, holds) = without(&s, parts);
        let steps = verify_offline(&parse(&files).unwrap(), Some(&check));
        assert!(!accepted(&steps, &[]), "not without being told so");
        assert!(accepted(&steps, parts));
        assert!(!accepted(&steps, &[Part::Pipeline]));
        // Evidence names the device and its features; all else has pseudonyms and hashes.
        assert!(!holds("pump-7") && !holds("vib_rms"));
        let withheld = |s: &&Step| matches!(s.outcome, Outcome::Withheld(_));
        assert_eq!(steps.iter().filter(withheld).count(), parts.len() + 2, "evidence takes score and coverage with it");
        // What is shown must still be what was decided.
        let mut forged = s.record.clone();
        forged.verdict.severity = 0;
        let mut other = files.clone();
        other.insert(file::VERDICT.into(), json::verdict(&s.origin, INDEX, &forged.verdict).into_bytes());
        assert!(!accepted(&verify_offline(&parse(&other).unwrap(), Some(&check)), parts));
    }
    let whole = build(&s.parts(), &[]).unwrap();
    // A part cannot be there and kept back, nor missing without a word.
    let (mut files, _) = without(&s, &[Part::Model]);
    files.insert(file::MODEL.into(), s.model.clone());
    assert!(parse(&files).unwrap_err().to_string().contains("but model is there"));
    let mut files = whole.clone();
    files.remove(file::MODEL);
    assert!(matches!(parse(&files), Err(BundleError::Missing { .. })));
    for wrong in ["{}", "{\n  \"format\": \"avouch-withheld/1\",\n  \"withheld\": [\"verdict\"]\n}\n"] {
        let mut files = whole.clone();
        files.insert(file::WITHHELD.into(), wrong.into());
        assert!(parse(&files).is_err());
    }
}

#[test]
fn single_parts_of_the_evidence_are_kept_back_and_shown_later() {
    let s = sample();
    let of = |name: &str| Part::named(name).unwrap();
    let shown = |part: Part| {
        let (files, holds) = without(&s, std::slice::from_ref(&part));
        let steps = verify_offline(&parse(&files).unwrap(), Some(&check));
        let withheld: Vec<&str> =
            steps.iter().filter(|s| matches!(s.outcome, Outcome::Withheld(_))).map(|s| s.name).collect();
        assert!(
            !accepted(&steps, &[])
                && accepted(&steps, std::slice::from_ref(&part))
                && accepted(&steps, &[Part::Evidence])
        );
        assert!(steps.iter().all(|s| !matches!(s.outcome, Outcome::Failed { .. })));
        (withheld.join(" "), ["pump-7", "61.0", "3.25"].map(holds))
    };
    assert_eq!(shown(of("device")), ("evidence".into(), [false, true, true]));
    assert_eq!(shown(of("feature:vib_rms")), ("evidence score".into(), [true, true, false]));
    assert_eq!(shown(Part::Features), ("evidence score".into(), [true, false, false]));
    assert_eq!(shown(of("score")), ("evidence score".into(), [true, true, true]));
    assert_eq!(shown(of("source")), ("evidence coverage".into(), [true, true, true]));
    for name in ["step", "references"] {
        assert_eq!(shown(of(name)), ("evidence".into(), [true, true, true]), "{name}");
    }
    // Who does not need one part may need another.
    let (files, _) = without(&s, &[of("device"), of("feature:vib_rms")]);
    let steps = verify_offline(&parse(&files).unwrap(), Some(&check));
    assert!(!accepted(&steps, &[of("device")]) && !accepted(&steps, &[Part::Features]));
    assert!(accepted(&steps, &[of("device"), Part::Features]));
    // What was committed to does not change with what is shown.
    let whole = build(&s.parts(), &[]).unwrap();
    assert_eq!(files[file::EVIDENCE], whole[file::EVIDENCE]);
    // A part from elsewhere in its place is refused; so is one that is there and said to be kept back, and the other way round.
    let mut other = sample();
    other.record.evidence.device = "pump-8".into();
    let mut forged = files.clone();
    forged.insert(file::DISCLOSED.into(), other.record.evidence.disclose(|n| n != "feature:vib_rms"));
    assert!(parse(&forged).unwrap_err().to_string().contains("do not name the same parts"));
    let shown = Disclosed::from_bytes(&whole[file::EVIDENCE], &forged[file::DISCLOSED]).unwrap();
    forged.insert(file::EVIDENCE_JSON.into(), json::evidence(&shown).into_bytes());
    forged.insert(file::WITHHELD.into(), without(&s, &[of("feature:vib_rms")]).0[file::WITHHELD].clone());
    assert!(
        refusal(&forged).unwrap().contains("the part device that is shown is not the one"),
        "{:?}",
        refusal(&forged)
    );
    // Nothing can be kept back that is not there, and the message says what is.
    let why = build(&s.parts(), &[of("feature:speed")]).unwrap_err().to_string();
    insta::assert_snapshot!(why, @"the evidence of this verdict has no part feature:speed; it has device, step, source, references, score, feature:vib_rms, feature:temp_mean");
    assert!(Part::named("feature:").is_none() && Part::named("salt").is_none());
}

#[test]
fn a_label_keeps_back_what_it_says_of_the_device() {
    let s = label_sample();
    let (files, holds) = without(&s, &[Part::named("device").unwrap()]);
    assert!(!holds("pump-7"));
    let steps = verify_offline(&parse(&files).unwrap(), Some(&check));
    assert!(!accepted(&steps, &[Part::named("device").unwrap()]), "the label is kept back with it, and must be named");
    assert!(accepted(&steps, &[Part::named("device").unwrap(), Part::named("label").unwrap()]));
}

#[test]
fn a_verdict_without_a_score_is_a_verdict() {
    let files = build(&sample_with(f64::NAN).parts(), &[]).unwrap();
    assert_eq!(refusal(&files), None);
    let text = String::from_utf8(files[file::EVIDENCE_JSON].clone()).unwrap();
    assert!(text.contains("\"score\": \"NaN\""), "{text}");
}

/// What a person says of the verdict before.
fn label_sample() -> Sample {
    let said = sample();
    let label = Label {
        device: "pump-7".into(),
        verdict: Some(INDEX - 1),
        step: "anomaly".into(),
        from: 1_767_225_600_000,
        to: 1_767_225_660_000,
        opinion: Opinion::FalseAlarm,
        reason: Some([0x66; 32]),
        by: [0x55; 32],
        at: 1_767_229_200_000,
    };
    let evidence = Evidence {
        last_offset: said.record.evidence.first_offset,
        rows: 0,
        references: Vec::new(),
        score: f64::NAN,
        p_value: f64::NAN,
        label: Some(Box::new(label.clone())),
        features: Vec::new(),
        ..said.record.evidence
    };
    let verdict = Verdict {
        model_hash: NO_MODEL,
        input_digest: label.id(),
        score_e6: SCORE_NOT_A_NUMBER,
        severity: 0,
        class: label.opinion.class(),
        evidence_hash: evidence.hash(),
        ..said.record.verdict
    };
    anchored(verdict, evidence, Vec::new(), said.pipeline)
}

#[test]
fn a_label_is_bundled_like_a_verdict_and_has_no_model() {
    let s = label_sample();
    let files = build(&s.parts(), &[]).unwrap();
    assert_eq!(refusal(&files), None);
    let text = String::from_utf8(files[file::EVIDENCE_JSON].clone()).unwrap();
    assert!(text.contains("\"says\": \"false-alarm\""), "{text}");
    assert!(files[file::MODEL].is_empty());
    assert_eq!(parse(&files).unwrap().evidence.unwrap().label, s.record.evidence.label);
}

#[test]
fn a_label_that_says_one_thing_and_is_another_is_refused() {
    type Change = fn(&mut Sample);
    let changes: [(&str, Change); 9] = [
        ("no model makes a label", |s| s.record.verdict.model_hash = [1; 32]),
        ("but there is a model", |s| s.model = b"a model".to_vec()),
        ("but inputDigest is", |s| s.record.verdict.input_digest = [0; 32]),
        ("another class, device, step or time", |s| s.record.verdict.class = class::LABEL_HEALTHY),
        ("another class, device, step or time", |s| s.record.verdict.window_end += 1),
        ("no score, severity, rows or features", |s| s.record.verdict.severity = 2),
        ("no score, severity, rows or features", |s| s.record.evidence.rows = 1),
        ("but the evidence has none", |s| s.record.evidence.label = None),
        ("class_ 1 is none", |s| s.record.verdict.class = class::ANOMALY),
    ];
    for (expected, change) in changes {
        let mut s = label_sample();
        change(&mut s);
        let Sample { record, model, pipeline, .. } = s;
        let mut verdict = record.verdict;
        verdict.evidence_hash = record.evidence.hash();
        // As whoever made the log could have written it.
        let changed = anchored(verdict, record.evidence, model, pipeline);
        let why = build(&changed.parts(), &[]).map_or_else(|e| Some(e.to_string()), |files| refusal(&files)).unwrap();
        assert!(why.contains(expected), "{expected}: {why}");
    }
    let mut early = label_sample();
    if let Some(label) = &mut early.record.evidence.label {
        label.verdict = Some(INDEX);
        early.record.verdict.input_digest = label.id();
    }
    let Sample { record, model, pipeline, .. } = early;
    let verdict = Verdict { evidence_hash: record.evidence.hash(), ..record.verdict };
    let changed = anchored(verdict, record.evidence, model, pipeline);
    let why = build(&changed.parts(), &[]).map_or_else(|e| Some(e.to_string()), |files| refusal(&files)).unwrap();
    assert!(why.contains("a verdict that came after it"), "{why}");
}

#[test]
fn every_byte_counts() {
    let files = build(&sample().parts(), &[]).unwrap();
    let mut tried = 0;
    for name in file::REQUIRED {
        for at in 0..files[name].len() {
            for flip in [0x01, 0x20, 0x80] {
                let mut bad = files.clone();
                bad.get_mut(name).unwrap()[at] ^= flip;
                let Some(why) = refusal(&bad) else { panic!("{name} byte {at} flip {flip:#x} was accepted") };
                assert!(why.contains(name), "{name} byte {at}: {why}");
                tried += 1;
            }
            // Another digit in place of a digit keeps the JSON well-formed.
            let byte = files[name][at];
            if byte.is_ascii_digit() {
                let mut bad = files.clone();
                bad.get_mut(name).unwrap()[at] = b'0' + (byte - b'0' + 1) % 10;
                let Some(why) = refusal(&bad) else { panic!("{name} byte {at} was accepted as another digit") };
                assert!(why.contains(name), "{name} byte {at}: {why}");
                tried += 1;
            }
        }
        for len in [0, files[name].len() / 2, files[name].len() - 1] {
            let mut bad = files.clone();
            bad.get_mut(name).unwrap().truncate(len);
            assert!(refusal(&bad).is_some_and(|why| why.contains(name)), "{name} cut to {len}");
        }
        let mut bad = files.clone();
        bad.get_mut(name).unwrap().push(b'\n');
        assert!(refusal(&bad).is_some_and(|why| why.contains(name)), "{name} with a line more");
    }
    println!("{tried} changes refused");
    assert!(tried > 10_000, "{tried}");
}

#[test]
fn parts_that_do_not_belong_together_make_no_bundle() {
    let refuse = |change: &dyn Fn(&mut Sample)| {
        let mut s = sample();
        change(&mut s);
        build(&s.parts(), &[]).unwrap_err().to_string()
    };
    let other = sample_with(3.0);
    let said = [
        refuse(&|s| s.model.push(0)),
        refuse(&|s| s.pipeline.clear()),
        refuse(&|s| s.record.evidence.rows += 1),
        refuse(&|s| s.record.index += 1),
        refuse(&|s| s.record.verdict.severity = 1),
        refuse(&|s| s.inclusion[2][7] ^= 1),
        refuse(&|s| s.checkpoint.new_size = INDEX),
        refuse(&|s| s.checkpoint.new_root = other.checkpoint.new_root),
        refuse(&|s| s.coverage.to_offset -= 1),
        refuse(&|s| s.checkpoint.owner = [0; 20]),
        refuse(&|s| s.origin = LogOrigin::new("pump-health", 3)),
    ];
    insta::assert_snapshot!(said.join("\n"));
}

#[test]
fn messages_of_refusals() {
    let files = build(&sample().parts(), &[]).unwrap();
    let edit = |name: &str, from: &str, to: &str| {
        let mut bad = files.clone();
        let text = String::from_utf8(bad[name].clone()).unwrap();
        assert!(text.contains(from), "{name}: {from}");
        bad.insert(name.to_owned(), text.replacen(from, to, 1).into_bytes());
        format!("# {name}: {from:?} -> {to:?}\n{}\n", refusal(&bad).unwrap())
    };
    let without = |name: &str| {
        let mut bad = files.clone();
        bad.remove(name);
        format!("# without {name}\n{}\n", refusal(&bad).unwrap())
    };
    let with = |name: &str| {
        let mut bad = files.clone();
        bad.insert(name.to_owned(), vec![]);
        format!("# with {name}\n{}\n", refusal(&bad).unwrap())
    };
    let said = [
        without(file::MODEL),
        with("notes.txt"),
        edit(file::VERDICT, "\"severity\": 2", "\"severity\": 1"),
        edit(file::VERDICT, "critical", "normal"),
        edit(file::VERDICT, "\"seq\": \"41\"", "\"seq\": \"42\""),
        edit(file::VERDICT, "\"seq\": \"41\"", "\"seq\": \"041\""),
        edit(file::VERDICT, "\"seq\": \"41\"", "\"seq\": 41"),
        edit(file::VERDICT, "\"seq\": \"41\",", "\"seq\": \"41\", \"seq\": \"41\","),
        edit(file::VERDICT, "\"salt\"", "\"pepper\""),
        edit(file::VERDICT, "0x1111", "0x11"),
        edit(file::VERDICT, "avouch-verdict/1", "avouch-verdict/2"),
        edit(file::VERDICT, "pump-health/2", "pump-health/3"),
        edit(file::EVIDENCE_JSON, "pump-7", "pump-8"),
        edit(file::INCLUSION, "\"index\": \"137\"", "\"index\": \"138\""),
        edit(file::INCLUSION, "\"size\": \"300\"", "\"size\": \"301\""),
        edit(file::CHECKPOINT, "\"issuedAt\": \"1767225700123\"", "\"issuedAt\": \"1767225700124\""),
        edit(file::CHECKPOINT, "\"chainId\": \"31337\"", "\"chainId\": \"1\""),
        edit(file::CHECKPOINT, "\"name\": \"Avouch\"", "\"name\": \"Vouch\""),
        edit(file::CHECKPOINT, "{\n", "{\n  \"extra\": 1,\n"),
        edit(file::COVERAGE_JSON, "31000", "30000"),
        edit(file::PIPELINE, "\"version\":1", "\"version\":2"),
        edit(file::MODEL, "weights", "height"),
    ];
    insta::assert_snapshot!(said.join("\n"));
}

#[test]
fn what_a_bundle_looks_like() {
    let files = build(&sample().parts(), &[]).unwrap();
    let text = |n: &str| format!("==> {n}\n{}", String::from_utf8_lossy(&files[n]));
    let shown =
        [file::VERDICT, file::EVIDENCE_JSON, file::INCLUSION, file::CHECKPOINT, file::COVERAGE_JSON, file::README];
    insta::assert_snapshot!(shown.map(text).join("\n"));
}

#[test]
fn what_the_steps_say() {
    let bundle = parse(&build(&sample().parts(), &[]).unwrap()).unwrap();
    let steps = verify_offline(&bundle, Some(&check));
    assert!(accepted(&steps, &[]));
    let text = |s: &Step| {
        let Outcome::Passed(found) = &s.outcome else { panic!("{s:?}") };
        format!("{}\n  proves: {}\n  does not prove: {}\n  found: {found}\n", s.name, s.proves, s.does_not_prove)
    };
    insta::assert_snapshot!(steps.iter().map(text).collect::<Vec<_>>().join("\n"));
}

#[test]
fn dates() {
    assert_eq!(json::utc(0), "1970-01-01T00:00:00.000Z");
    assert_eq!(json::utc(951_782_400_000), "2000-02-29T00:00:00.000Z");
    assert_eq!(json::utc(1_767_225_600_000), "2026-01-01T00:00:00.000Z");
    assert_eq!(json::utc(253_402_300_799_999), "9999-12-31T23:59:59.999Z");
    assert_eq!(json::utc(u64::MAX), "18446744073709551615 ms");
}
