//! Prometheus' text format, read.

use std::collections::BTreeMap;

use thiserror::Error;

/// One value of one series.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// The metric's name, of histograms with `_bucket`, `_sum` or `_count` behind it.
    pub name: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its value.
    pub value: f64,
}

impl Sample {
    /// A label's value; empty where it has none of this name.
    pub fn label(&self, name: &str) -> &str {
        self.labels.get(name).map_or("", String::as_str)
    }
}

/// A line that is not of the format.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("line {line} of /metrics is not in Prometheus' text format: {text}")]
pub struct ExpositionError {
    /// Which, from 1.
    pub line: usize,
    /// How it begins.
    pub text: String,
}

/// The samples of a text, in its order.
///
/// # Errors
/// The first line that is neither a sample, a comment nor empty.
pub fn samples(text: &str) -> Result<Vec<Sample>, ExpositionError> {
    let mut out = Vec::new();
    for (i, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let wrong = || ExpositionError { line: i + 1, text: line.chars().take(80).collect() };
        out.push(sample(line).ok_or_else(wrong)?);
    }
    Ok(out)
}

fn sample(line: &str) -> Option<Sample> {
    let end = line.find(['{', ' ', '\t'])?;
    let (name, rest) = line.split_at(end);
    let fits = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    if name.is_empty() || !name.chars().all(fits) || name.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    let (labels, rest) = match rest.strip_prefix('{') {
        Some(rest) => labels(rest)?,
        None => (BTreeMap::new(), rest),
    };
    // A time may stand behind the value.
    let mut words = rest.split_ascii_whitespace();
    let value = match words.next()? {
        "+Inf" => f64::INFINITY,
        "-Inf" => f64::NEG_INFINITY,
        "NaN" => f64::NAN,
        number => number.parse().ok()?,
    };
    let timed = words.next().is_none_or(|t| t.parse::<i64>().is_ok());
    (timed && words.next().is_none()).then(|| Sample { name: name.to_owned(), labels, value })
}

/// `name="value",…}`, and what stands behind it.
fn labels(mut rest: &str) -> Option<(BTreeMap<String, String>, &str)> {
    let mut out = BTreeMap::new();
    loop {
        rest = rest.trim_start();
        if let Some(rest) = rest.strip_prefix('}') {
            return Some((out, rest));
        }
        let (name, after) = rest.split_once('=')?;
        let mut value = String::new();
        let mut chars = after.trim_start().strip_prefix('"')?.char_indices();
        let text = after.trim_start().get(1..)?;
        let end = loop {
            match chars.next()? {
                (i, '"') => break i,
                (_, '\\') => value.push(match chars.next()?.1 {
                    'n' => '\n',
                    c => c,
                }),
                (_, c) => value.push(c),
            }
        };
        out.insert(name.trim().to_owned(), value);
        rest = text.get(end + 1..)?.trim_start();
        rest = rest.strip_prefix(',').unwrap_or(rest);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_the_format_has() {
        let text = "# HELP a help\n# TYPE a counter\na{lane=\"0\",kind=\"x \\\"y\\\\ {z}\\n, ä\"} 1.5e3\nb 7 1700000000000\n\n\
                    h_bucket{le=\"+Inf\"} +Inf\nn NaN\n";
        let found = samples(text).unwrap();
        assert_eq!(found.len(), 4);
        assert_eq!((found[0].label("lane"), found[0].label("kind")), ("0", "x \"y\\ {z}\n, ä"));
        assert_eq!((found[0].value, found[1].value), (1500.0, 7.0));
        assert_eq!(found[2].value, f64::INFINITY);
        assert!(found[3].value.is_nan());
        for (line, text) in [(1, "<html>"), (2, "a 1\nb{c=\"} 1"), (1, "a"), (1, "a x"), (1, "a 1 2 3")] {
            assert_eq!(samples(text).unwrap_err().line, line, "{text}");
        }
    }

    /// What our own encoder writes, read back.
    #[test]
    fn our_own_metrics() {
        let metrics = crate::runtime::metrics::Metrics::new().unwrap();
        let mut lane = metrics.lane(3);
        lane.watermark.set(1.5);
        lane.lag(7);
        let counters = avouch_engine::lane::Counters { rows_in: 12, ..Default::default() };
        lane.show(&counters);
        let mut text = Vec::new();
        use prometheus::Encoder as _;
        prometheus::TextEncoder::new().encode(&metrics.registry.gather(), &mut text).unwrap();
        let found = samples(std::str::from_utf8(&text).unwrap()).unwrap();
        let value = |name: &str| found.iter().find(|s| s.name == name && s.label("lane") == "3").map(|s| s.value);
        assert_eq!(value("avouch_lane_rows_in_total"), Some(12.0));
        assert_eq!(value("avouch_lane_watermark_timestamp_seconds"), Some(1.5));
        assert_eq!(value("avouch_lane_lag_records"), Some(7.0));
        assert!(found.iter().any(|s| s.name == "avouch_lane_opening_seconds_bucket" && s.label("le") == "+Inf"));
    }
}
