//! Where two records differ.

use avouch_engine::verdict::{Evidence, VerdictRecord};

use crate::runtime::hex;

/// The first field in which the log and its replay differ.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// Index of the record.
    pub index: u64,
    /// The field.
    pub field: String,
    /// What the log has.
    pub log: String,
    /// What the replay gives.
    pub replay: String,
}

/// Whether pseudonyms and salts can be compared: they are made under the secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Under {
    /// It is known.
    Secret,
    /// It is known, but the record's key was erased from it, so the salts, and evidenceHash, into which they go, are not compared.
    SecretWithout,
    /// It is not, so deviceId is not compared either.
    NoSecret,
}

/// The first difference between a record of the log and the one that was made again; `None` if there is none.
pub(super) fn difference(log: &VerdictRecord, replay: &VerdictRecord, under: Under) -> Option<Difference> {
    let found = |field: &str, a: String, b: String| {
        (a != b).then(|| Difference { index: log.index, field: field.to_owned(), log: a, replay: b })
    };
    let (a, b) = (&log.verdict, &replay.verdict);
    let evidence = || of_evidence(&log.evidence, &replay.evidence).and_then(|(f, x, y)| found(&f, x, y));
    let named = |x: &[u8; 32]| if under == Under::NoSecret { String::new() } else { hex(x) };
    let salted = |x: &[u8; 32]| if under == Under::Secret { hex(x) } else { String::new() };
    found("index", log.index.to_string(), replay.index.to_string())
        // What is readable comes first: a hash says only that something differs.
        .or_else(|| found("windowStart", a.window_start.to_string(), b.window_start.to_string()))
        .or_else(|| found("windowEnd", a.window_end.to_string(), b.window_end.to_string()))
        .or_else(|| found("modelHash", hex(&a.model_hash), hex(&b.model_hash)))
        .or_else(|| found("configHash", hex(&a.config_hash), hex(&b.config_hash)))
        .or_else(evidence)
        .or_else(|| found("class_", a.class.to_string(), b.class.to_string()))
        .or_else(|| found("severity", a.severity.to_string(), b.severity.to_string()))
        .or_else(|| found("scoreE6", a.score_e6.to_string(), b.score_e6.to_string()))
        .or_else(|| found("seq", a.seq.to_string(), b.seq.to_string()))
        .or_else(|| found("inputDigest", hex(&a.input_digest), hex(&b.input_digest)))
        .or_else(|| found("evidence.salt", salted(&log.evidence.salt), salted(&replay.evidence.salt)))
        .or_else(|| found("evidenceHash", salted(&a.evidence_hash), salted(&b.evidence_hash)))
        .or_else(|| found("deviceId", named(&a.device_id), named(&b.device_id)))
        .or_else(|| found("salt", salted(&a.salt), salted(&b.salt)))
}

/// A double as it is, to the bit.
fn bits(x: f64) -> String {
    format!("{x} (0x{:016x})", x.to_bits())
}

fn of_evidence(a: &Evidence, b: &Evidence) -> Option<(String, String, String)> {
    let found = |field: String, x: String, y: String| (x != y).then_some((field, x, y));
    let text = |field: &str, x: &str, y: &str| found(field.to_owned(), x.to_owned(), y.to_owned());
    let debug = |field: &str, x: &dyn std::fmt::Debug, y: &dyn std::fmt::Debug| {
        found(field.to_owned(), format!("{x:?}"), format!("{y:?}"))
    };
    text("evidence.device", &a.device, &b.device)
        .or_else(|| text("evidence.step", &a.step, &b.step))
        .or_else(|| text("evidence.topic", &a.topic, &b.topic))
        .or_else(|| debug("evidence.partition", &a.partition, &b.partition))
        .or_else(|| debug("evidence.first_offset", &a.first_offset, &b.first_offset))
        .or_else(|| debug("evidence.last_offset", &a.last_offset, &b.last_offset))
        .or_else(|| debug("evidence.rows", &a.rows, &b.rows))
        .or_else(|| debug("evidence.references", &a.references, &b.references))
        .or_else(|| debug("evidence.features", &a.features.len(), &b.features.len()))
        .or_else(|| {
            a.features.iter().zip(&b.features).enumerate().find_map(|(i, (x, y))| {
                let field = |what: &str| format!("evidence.features[{i}] {}.{what}", x.name);
                found(field("name"), x.name.to_string(), y.name.to_string())
                    .or_else(|| found(field("value"), bits(x.value), bits(y.value)))
                    .or_else(|| found(field("expected"), bits(x.expected), bits(y.expected)))
                    .or_else(|| found(field("contribution"), bits(x.contribution), bits(y.contribution)))
            })
        })
        .or_else(|| found("evidence.score".into(), bits(a.score), bits(b.score)))
        .or_else(|| found("evidence.p_value".into(), bits(a.p_value), bits(b.p_value)))
        .or_else(|| debug("evidence.interval", &a.interval, &b.interval))
        .or_else(|| debug("evidence.incident", &a.incident, &b.incident))
        .or_else(|| debug("evidence.label", &a.label, &b.label))
}
