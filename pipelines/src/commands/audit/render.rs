//! An audit as text, and as JSON.

use std::fmt::Write as _;

use avouch_engine::audit::{Check, Grade, ModelUse};
use avouch_engine::bundle::utc;
use serde_json::{Value, json};

use super::Audit;
use crate::dead::printable;
use crate::runtime::hex;

/// Findings shown of each check; the JSON has more.
const SHOWN: usize = 5;

/// For people.
pub(super) fn text(audit: &Audit) -> String {
    // What an export says comes from somebody who is not trusted; it is not to write on the terminal but in its lines.
    let r = &audit.report;
    let mut out = format!(
        "{}: {} records on {} devices ({} normal, {} warning, {} critical), {} of them anchored\nroot 0x{}\n",
        printable(r.origin.as_str()),
        r.records,
        r.devices,
        r.severities[0],
        r.severities[1],
        r.severities[2],
        r.anchored.min(r.records),
        hex(&r.root)
    );
    if let Some(chain) = &audit.chain {
        let _ = writeln!(out, "{chain}");
    }
    out.push('\n');
    for c in &r.checks {
        let mark = match c.grade {
            Grade::Passed => "ok    ",
            Grade::NotMade => "-     ",
            Grade::Attention => "look  ",
            Grade::Failed => "FAILED",
        };
        let said = printable(&if c.grade == Grade::Failed { verdict_on(c) } else { c.said.clone() });
        let _ = writeln!(out, "{mark}  {:<10}  {said}", c.name);
        for f in c.findings.iter().take(SHOWN) {
            match f.index {
                Some(i) => drop(writeln!(out, "                    record {i}: {}", printable(&f.what))),
                None => drop(writeln!(out, "                    {}", printable(&f.what))),
            }
        }
        if c.found > SHOWN as u64 && c.findings.len() > SHOWN {
            let _ = writeln!(out, "                    … {} in all (--json lists them)", c.found);
        }
    }
    out.push_str("\nmodels\n");
    for m in &r.models {
        let _ = writeln!(
            out,
            "  {}  {:<16} records {} to {} ({}){}",
            hex(&m.model),
            printable(&m.step),
            m.first,
            m.last,
            m.records,
            active(m)
        );
    }
    out.push_str("configurations\n");
    for c in &r.configs {
        let _ = writeln!(out, "  {}  records {} to {} ({})", hex(&c.config), c.first, c.last, c.records);
    }
    if !r.labels.is_empty() {
        out.push_str("what people said\n");
        for l in r.labels.iter().take(20) {
            let of = l
                .label
                .verdict
                .map_or_else(|| format!("{} to {}", utc(l.label.from), utc(l.label.to)), |i| format!("record {i}"));
            let _ = writeln!(
                out,
                "  record {}: {} on {}, of {of}",
                l.index,
                l.label.opinion.name(),
                printable(&l.label.device)
            );
        }
        if r.labels.len() > 20 {
            let _ = writeln!(out, "  … {} in all (--json lists them)", r.labels.len());
        }
    }
    out.push_str(match r.grade() {
        Grade::Failed => "\nthis log must not be relied on\n",
        Grade::Attention => "\nnothing contradicts the log; something in it wants looking at\n",
        Grade::Passed | Grade::NotMade => "\nnothing contradicts the log\n",
    });
    out
}

/// How a failed check is introduced: what it would have said did not come true.
pub(super) fn verdict_on(c: &Check) -> String {
    format!("does not hold: {} finding{}", c.found, if c.found == 1 { "" } else { "s" })
}

/// When a registry lets a model decide.
pub(super) fn active(m: &ModelUse) -> String {
    let time = |s: u64| utc(s.saturating_mul(1000));
    match m.window {
        None => String::new(),
        Some(None) => ", never activated".to_owned(),
        Some(Some(w)) => {
            let until = if w.until >= u64::MAX / 1000 { String::new() } else { format!(" until {}", time(w.until)) };
            let revoked = w.revoked_at.map_or_else(String::new, |r| format!(", revoked {}", time(r)));
            format!(", active from {}{until}{revoked}", time(w.from))
        }
    }
}

/// For programs.
pub(super) fn json(audit: &Audit) -> Value {
    let r = &audit.report;
    let checks: Vec<Value> = r
        .checks
        .iter()
        .map(|c| {
            json!({
                "name": c.name, "grade": c.grade.name(), "said": c.said, "proves": c.proves,
                "does_not_prove": c.does_not_prove, "found": c.found,
                "findings": c.findings.iter().map(|f| json!({ "index": f.index, "what": f.what })).collect::<Vec<_>>(),
            })
        })
        .collect();
    let models: Vec<Value> = r
        .models
        .iter()
        .map(|m| {
            json!({
                "model": hex(&m.model), "step": m.step, "records": m.records, "first": m.first, "last": m.last,
                "registered": m.window.map(|w| w.is_some()),
                "active_from": m.window.flatten().map(|w| w.from), "active_until": m.window.flatten().map(|w| w.until),
                "revoked_at": m.window.flatten().and_then(|w| w.revoked_at),
            })
        })
        .collect();
    json!({
        "log": r.origin.as_str(),
        "grade": r.grade().name(),
        "records": r.records,
        "anchored": r.anchored,
        "devices": r.devices,
        "root": hex(&r.root),
        "severities": { "normal": r.severities[0], "warning": r.severities[1], "critical": r.severities[2] },
        "chain": audit.chain,
        "checks": checks,
        "models": models,
        "configurations": r.configs.iter().map(|c| json!({
            "config": hex(&c.config), "first": c.first, "last": c.last, "records": c.records,
        })).collect::<Vec<_>>(),
        "labels": r.labels.iter().map(|l| json!({
            "index": l.index, "device": l.label.device, "opinion": l.label.opinion.name(), "verdict": l.label.verdict,
            "from": l.label.from, "to": l.label.to, "by": hex(&l.label.by),
        })).collect::<Vec<_>>(),
        "delays": r.delays.map(|d| json!({
            "records": d.records, "median_ms": d.median_ms, "p99_ms": d.p99_ms, "max_ms": d.max_ms, "late": d.late,
            "longest_pause_ms": d.longest_pause_ms,
        })),
        "topic": audit.handover.head.topic,
        "partition": audit.handover.head.partition,
        "offsets": audit.handover.offsets.values().min().zip(audit.handover.offsets.values().max())
            .map(|(from, to)| json!({ "from": from, "to": to })),
    })
}
