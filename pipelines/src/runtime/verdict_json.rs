//! A verdict as the JSON that sinks and commands show.

use avouch_engine::decode::format_timestamp;
use avouch_engine::lane::EarlyVerdict;
use avouch_engine::verdict::{Evidence, Severity, VerdictRecord, class};
use serde_json::{Value, json};

use super::artifacts::hex;

/// The name of a verdict class.
pub fn class_name(code: u16) -> &'static str {
    match code {
        class::NORMAL => "normal",
        class::ANOMALY => "anomaly",
        class::NOT_A_NUMBER => "not_a_number",
        _ => "unknown",
    }
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
    let (v, e) = (&r.verdict, &r.evidence);
    json!({
        "log": log,
        "index": r.index,
        "device": e.device,
        "seq": v.seq,
        "step": e.step,
        "window_start": format_timestamp(v.window_start as i64),
        "window_end": format_timestamp(v.window_end as i64),
        "severity": Severity::from_code(v.severity).map_or("unknown", Severity::name),
        "class": class_name(v.class),
        "score": e.score,
        "p_value": e.p_value,
        "features": features(e),
        "rows": e.rows,
        "references": references(e),
        "source": source(e),
        "device_id": hex(&v.device_id),
        "model_hash": hex(&v.model_hash),
        "config_hash": hex(&v.config_hash),
        "input_digest": hex(&v.input_digest),
        "evidence_hash": hex(&v.evidence_hash),
        "salt": hex(&v.salt),
        "entry": hex(&r.entry()),
    })
}
