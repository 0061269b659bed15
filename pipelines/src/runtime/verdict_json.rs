//! A verdict as the JSON that sinks and commands show.

use avouch_engine::decode::format_timestamp;
use avouch_engine::label::Label;
use avouch_engine::lane::EarlyVerdict;
use avouch_engine::log::entries;
use avouch_engine::model::Interval;
use avouch_engine::verdict::{Evidence, FeatureEvidence, Hash32, Severity, VerdictRecord, class};
use serde::{Serialize, Serializer};
use serde_json::{Value, json};

use super::artifacts::hex;

/// The name of a verdict class.
pub fn class_name(code: u16) -> &'static str {
    class::name(code).unwrap_or("unknown")
}

fn features(e: &Evidence) -> Vec<Value> {
    e.features
        .iter()
        .map(|f| json!({ "name": f.name, "value": f.value, "expected": f.expected, "contribution": f.contribution }))
        .collect()
}

fn references(e: &Evidence) -> Vec<Value> {
    e.references.iter().map(|r| json!({ "name": r.name, "version": hex(&r.version) })).collect()
}

fn source(e: &Evidence) -> Value {
    json!({ "topic": e.topic, "partition": e.partition, "first_offset": e.first_offset, "last_offset": e.last_offset })
}

/// One early result: what a verdict of the window would say of its rows so far, marked with `early`. It has no index, no
/// `seq` and no hash of a log entry, because it is in no log.
pub fn early_json(log: &str, r: &EarlyVerdict) -> Value {
    let e = &r.evidence;
    json!({
        "early": true,
        "as_of": format_timestamp(r.as_of),
        "log": log,
        "device": e.device,
        "step": e.step,
        "window_start": format_timestamp(r.window_start),
        "window_end": format_timestamp(r.window_end),
        "severity": r.severity.name(),
        "class": class_name(r.class),
        "score": e.score,
        "p_value": e.p_value,
        "features": features(e),
        "rows": e.rows,
        "references": references(e),
        "source": source(e),
        "model_hash": hex(&r.model_hash),
    })
}

/// One verdict. A number that is not finite is `null`. `log` and `index` identify it for good.
pub fn verdict_json(log: &str, r: &VerdictRecord) -> Value {
    // Invariant: texts, numbers and lists of them are always JSON.
    serde_json::to_value(VerdictJson::new(log, r, &r.entry())).unwrap_or_default()
}

/// The bytes of [`verdict_json`] for many verdicts, whose entries are made side by side.
pub fn verdict_lines<'a>(log: &str, records: impl Iterator<Item = &'a VerdictRecord>) -> Vec<Vec<u8>> {
    let records: Vec<&VerdictRecord> = records.collect();
    let verdicts: Vec<_> = records.iter().map(|r| &r.verdict).collect();
    let line = |(r, entry): (&&VerdictRecord, &Hash32)| {
        let mut line = Vec::with_capacity(1_024 + 128 * r.evidence.features.len());
        // Invariant: as above, and memory takes all of it.
        let _ = serde_json::to_writer(&mut line, &VerdictJson::new(log, r, entry));
        line
    };
    records.iter().zip(&entries(&verdicts)).map(line).collect()
}

/// Its fields stand in the order of their names, as everywhere in our JSON.
#[derive(Serialize)]
struct VerdictJson<'a> {
    class: &'static str,
    config_hash: Hex<'a>,
    device: &'a str,
    device_id: Hex<'a>,
    entry: Hex<'a>,
    evidence_hash: Hex<'a>,
    features: Features<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    incident: Option<u64>,
    index: u64,
    input_digest: Hex<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    interval: Option<Interval>,
    #[serde(skip_serializing_if = "Option::is_none")]
    label: Option<LabelJson>,
    log: &'a str,
    model_hash: Hex<'a>,
    p_value: f64,
    references: Vec<Value>,
    rows: u64,
    salt: Hex<'a>,
    score: f64,
    seq: u64,
    severity: &'static str,
    source: SourceJson<'a>,
    step: &'a str,
    window_end: String,
    window_start: String,
}

impl<'a> VerdictJson<'a> {
    fn new(log: &'a str, r: &'a VerdictRecord, entry: &'a Hash32) -> Self {
        let (v, e) = (&r.verdict, &r.evidence);
        Self {
            class: class_name(v.class),
            config_hash: Hex(&v.config_hash),
            device: &e.device,
            device_id: Hex(&v.device_id),
            entry: Hex(entry),
            evidence_hash: Hex(&v.evidence_hash),
            features: Features(&e.features),
            incident: e.incident,
            index: r.index,
            input_digest: Hex(&v.input_digest),
            interval: e.interval,
            label: e.label.as_deref().map(LabelJson::new),
            log,
            model_hash: Hex(&v.model_hash),
            p_value: e.p_value,
            references: references(e),
            rows: e.rows,
            salt: Hex(&v.salt),
            score: e.score,
            seq: v.seq,
            severity: Severity::from_code(v.severity).map_or("unknown", Severity::name),
            source: SourceJson {
                first_offset: e.first_offset,
                last_offset: e.last_offset,
                partition: e.partition,
                topic: &e.topic,
            },
            step: &e.step,
            window_end: format_timestamp(v.window_end as i64),
            window_start: format_timestamp(v.window_start as i64),
        }
    }
}

/// What a person says, in the record of a label.
#[derive(Serialize)]
struct LabelJson {
    at: String,
    by: String,
    reason_hash: Option<String>,
    says: &'static str,
    verdict: Option<u64>,
}

impl LabelJson {
    fn new(l: &Label) -> Self {
        Self {
            at: format_timestamp(l.at),
            by: hex(&l.by),
            reason_hash: l.reason.as_ref().map(|h| hex(h)),
            says: l.opinion.name(),
            verdict: l.verdict,
        }
    }
}

#[derive(Serialize)]
struct SourceJson<'a> {
    first_offset: i64,
    last_offset: i64,
    partition: i32,
    topic: &'a str,
}

struct Features<'a>(&'a [FeatureEvidence]);

impl Serialize for Features<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Feature<'a> {
            contribution: f64,
            expected: f64,
            name: &'a str,
            value: f64,
        }
        serializer.collect_seq(self.0.iter().map(|f| Feature {
            contribution: f.contribution,
            expected: f.expected,
            name: &f.name,
            value: f.value,
        }))
    }
}

/// A hash in hexadecimal digits.
struct Hex<'a>(&'a Hash32);

impl Serialize for Hex<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let mut text = [0; 64];
        for (two, byte) in text.chunks_exact_mut(2).zip(self.0) {
            two[0] = DIGITS[usize::from(byte >> 4)];
            two[1] = DIGITS[usize::from(byte & 15)];
        }
        // Invariant: digits are UTF-8.
        serializer.serialize_str(std::str::from_utf8(&text).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use avouch_engine::verdict::{ReferenceVersion, Verdict};

    use super::*;

    #[test]
    fn a_line_is_the_value_and_hashes_are_whole() {
        let hash = |n: u8| std::array::from_fn(|i| n.wrapping_mul(31).wrapping_add(i as u8));
        let record = |index: u64| VerdictRecord {
            index,
            verdict: Verdict {
                device_id: hash(1),
                seq: index / 2,
                window_start: 1_767_686_400_000,
                window_end: 1_767_686_460_000 + index,
                model_hash: hash(2),
                config_hash: hash(3),
                input_digest: hash(4),
                score_e6: -7,
                severity: (index % 4) as u8,
                class: (index % 4) as u16,
                evidence_hash: hash(5),
                salt: hash(6),
            },
            evidence: Evidence {
                salt: [0; 32],
                device: format!("p\u{fc}mp \"{index}\"\n"),
                step: "anomaly".into(),
                topic: "t".into(),
                partition: 3,
                first_offset: -1,
                last_offset: i64::MAX,
                rows: u64::MAX,
                references: vec![ReferenceVersion { name: "sites".into(), version: hash(7) }],
                score: if index.is_multiple_of(2) { f64::NAN } else { 0.1 + index as f64 },
                p_value: 1e-300,
                interval: None,
                incident: None,
                label: None,
                features: (0..index % 3)
                    .map(|i| FeatureEvidence {
                        name: format!("f{i}").into(),
                        value: f64::INFINITY,
                        expected: -0.0,
                        contribution: 1.0 / 3.0,
                    })
                    .collect(),
            },
        };
        let records: Vec<VerdictRecord> = (0..21).map(record).collect();
        let lines = verdict_lines("avouch/p/3", records.iter());
        assert_eq!(lines.len(), records.len());
        for (r, line) in records.iter().zip(&lines) {
            let value = verdict_json("avouch/p/3", r);
            assert_eq!(String::from_utf8_lossy(line), value.to_string());
            assert_eq!(value["entry"], hex(&r.entry()));
            assert_eq!(value["config_hash"], hex(&hash(3)));
            assert_eq!(value["device"], r.evidence.device.as_str());
            assert_eq!(value["score"].is_null(), r.index.is_multiple_of(2));
            assert_eq!(value["features"].as_array().unwrap().len() as u64, r.index % 3);
        }
    }
}
