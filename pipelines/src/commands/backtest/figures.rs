//! How numbers and times are written, everywhere in a report.

use avouch_engine::decode::format_timestamp;
use serde::Serializer;

/// Six significant digits, as the shortest decimal that reads back as them; nothing for what is not finite.
pub(in crate::commands) fn round(x: f64) -> Option<f64> {
    if x == 0.0 {
        // Without the sign of a negative zero.
        return Some(0.0);
    }
    x.is_finite().then(|| format!("{x:.5e}").parse().unwrap_or(x))
}

/// The same for serde.
pub(in crate::commands) fn number<S: Serializer>(x: &f64, out: S) -> Result<S::Ok, S::Error> {
    match round(*x) {
        Some(x) => out.serialize_f64(x),
        None => out.serialize_none(),
    }
}

/// As text.
pub(in crate::commands) fn show(x: f64) -> String {
    match round(x) {
        None => "–".into(),
        Some(x) if x != 0.0 && !(1e-4..1e9).contains(&x.abs()) => format!("{x:e}"),
        Some(x) => {
            // Whole and broken part by themselves: only the whole one is grouped.
            let text = x.abs().to_string();
            let (whole, broken) = text.split_once('.').unwrap_or((text.as_str(), ""));
            let sign = if x < 0.0 { "-" } else { "" };
            let point = if broken.is_empty() { "" } else { "." };
            format!("{sign}{}{point}{broken}", grouped(whole))
        }
    }
}

/// A share, in percent with one decimal.
pub(in crate::commands) fn percent(x: f64) -> String {
    if x.is_finite() { format!("{:.1} %", 100.0 * x) } else { "–".into() }
}

/// `12,345,678`.
pub(in crate::commands) fn count(n: u64) -> String {
    grouped(&n.to_string())
}

fn grouped(digits: &str) -> String {
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, c) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(c);
    }
    out
}

/// `2026-01-07 08:20:00` (UTC), with milliseconds where there are any.
pub(in crate::commands) fn time(ms: i64) -> String {
    let text = format_timestamp(ms).replace('T', " ");
    text.trim_end_matches('Z').trim_end_matches(".000").to_owned()
}

/// As in JSON: RFC 3339.
pub(in crate::commands) fn timestamp<S: Serializer>(ms: &i64, out: S) -> Result<S::Ok, S::Error> {
    out.serialize_str(&format_timestamp(*ms))
}

/// `3 d 4 h`, `1 h 20 min`, `45 s`: the two largest units.
pub(in crate::commands) fn span(ms: i64) -> String {
    const UNITS: [(i64, &str); 5] = [(86_400_000, "d"), (3_600_000, "h"), (60_000, "min"), (1_000, "s"), (1, "ms")];
    let mut rest = ms;
    let mut parts = Vec::new();
    for (size, unit) in UNITS {
        let n = rest / size;
        rest %= size;
        if n > 0 {
            parts.push(format!("{n} {unit}"));
        } else if !parts.is_empty() {
            break;
        }
        if parts.len() == 2 {
            break;
        }
    }
    if parts.is_empty() { "0 s".into() } else { parts.join(" ") }
}
