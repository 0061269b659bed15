//! A verdict as the JSON that sinks and commands show.

use avouch_engine::decode::format_timestamp;
use avouch_engine::verdict::{Severity, VerdictRecord, class};
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

/// One verdict. A number that is not finite is `null`. `log` and `index` identify it for good.
pub fn verdict_json(log: &str, r: &VerdictRecord) -> Value {
    let (v, e) = (&r.verdict, &r.evidence);
    let features: Vec<Value> = e
        .features
        .iter()
        .map(|f| json!({ "name": f.name, "value": f.value, "expected": f.expected, "contribution": f.contribution }))
        .collect();
    let references: Vec<Value> =
        e.references.iter().map(|r| json!({ "name": r.name, "version": hex(&r.version) })).collect();
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
        "features": features,
        "rows": e.rows,
        "references": references,
        "source": { "topic": e.topic, "partition": e.partition, "first_offset": e.first_offset, "last_offset": e.last_offset },
        "device_id": hex(&v.device_id),
        "model_hash": hex(&v.model_hash),
        "config_hash": hex(&v.config_hash),
        "input_digest": hex(&v.input_digest),
        "evidence_hash": hex(&v.evidence_hash),
        "salt": hex(&v.salt),
        "entry": hex(&r.entry()),
    })
}
