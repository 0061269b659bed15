//! Golden verdicts: one JSON object a line, readable, and without what changes with a secret, a path or a hash.
//!
//! ```json
//! {"device":"pump-1","step":"anomaly","window_start":"2026-01-06T08:00:00Z","window_end":"2026-01-06T08:01:00Z",
//!  "severity":"critical","class":"anomaly","score":31.25,"p_value":0.0004,
//!  "features":{"temp_mean":{"value":71.5,"contribution":30.0}}}
//! ```
//!
//! Numbers have the fewest digits that read back as the same double, and are compared by these digits: a golden file holds
//! every bit. One that is not finite is `null`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use avouch_engine::decode::format_timestamp;
use avouch_engine::model::Interval;
use avouch_engine::verdict::{FeatureEvidence, VerdictRecord};
use serde::{Serialize, Serializer};
use serde_json::Value;
use thiserror::Error;

use crate::runtime::class_name;
use crate::verdict_table::severity_name;

/// How many rows and fields a diff shows.
const SHOWN_ROWS: usize = 10;
const SHOWN_FIELDS: usize = 8;

/// Why a golden file cannot be used.
#[derive(Debug, Error)]
pub enum GoldenError {
    /// It is not there.
    #[error("{shown} is not there yet; look at what the pipeline gives, then write it with `avouch test --update`")]
    Missing {
        /// As it stands in the pipeline file.
        shown: String,
    },
    /// It cannot be read or written.
    #[error("{shown}: {source}")]
    Io {
        /// As it stands in the pipeline file.
        shown: String,
        /// The system's words.
        source: std::io::Error,
    },
    /// A line of it is no verdict.
    #[error("{shown}:{line}: {why}; write it anew with `avouch test --update`")]
    Line {
        /// As it stands in the pipeline file.
        shown: String,
        /// From 1.
        line: usize,
        /// What is wrong.
        why: String,
    },
}

#[derive(Serialize)]
struct Line<'a> {
    device: &'a str,
    step: &'a str,
    window_start: String,
    window_end: String,
    severity: &'static str,
    class: &'static str,
    score: f64,
    p_value: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    interval: Option<Interval>,
    #[serde(skip_serializing_if = "Option::is_none")]
    incident: Option<u64>,
    features: Features<'a>,
}

struct Features<'a>(&'a [FeatureEvidence]);

impl Serialize for Features<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Feature {
            value: f64,
            contribution: f64,
        }
        let one = |f: &FeatureEvidence| Feature { value: f.value, contribution: f.contribution };
        serializer.collect_map(self.0.iter().map(|f| (&*f.name, one(f))))
    }
}

/// A verdict as a golden file has it.
pub fn verdict_line(r: &VerdictRecord) -> String {
    let e = &r.evidence;
    let line = Line {
        device: &e.device,
        step: &e.step,
        window_start: format_timestamp(r.verdict.window_start as i64),
        window_end: format_timestamp(r.verdict.window_end as i64),
        severity: severity_name(r),
        class: class_name(r.verdict.class),
        score: e.score,
        p_value: e.p_value,
        interval: e.interval,
        incident: e.incident,
        features: Features(&e.features),
    };
    // Invariant: texts, numbers and maps of them are always JSON.
    serde_json::to_string(&line).unwrap_or_default()
}

/// What a verdict is compared by.
type Key = (String, String, String);

fn key_of(value: &Value) -> Option<Key> {
    let text = |name: &str| value.get(name)?.as_str().map(str::to_owned);
    Some((text("device")?, text("step")?, text("window_end")?))
}

/// Golden and given verdicts, where they are not the same.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GoldenDiff {
    /// In the file, and not given.
    pub missing: Vec<String>,
    /// Given, and not in the file.
    pub added: Vec<String>,
    /// Given otherwise: which row, and each field with both values.
    pub changed: Vec<(String, Vec<String>)>,
}

impl GoldenDiff {
    /// Whether both are the same.
    pub fn is_empty(&self) -> bool {
        self.missing.is_empty() && self.added.is_empty() && self.changed.is_empty()
    }

    /// `2 changed, 1 missing`.
    pub fn counts(&self) -> String {
        let all = [(self.changed.len(), "changed"), (self.missing.len(), "missing"), (self.added.len(), "added")];
        let some: Vec<String> = all.iter().filter(|(n, _)| *n > 0).map(|(n, what)| format!("{n} {what}")).collect();
        some.join(", ")
    }

    /// The rows, a line each, with the fields of changed ones under them; of many, the first and how many more there are.
    pub fn lines(&self) -> Vec<String> {
        let mut out = Vec::new();
        for (row, fields) in self.changed.iter().take(SHOWN_ROWS) {
            out.push(format!("~ {row}"));
            out.extend(fields.iter().take(SHOWN_FIELDS).map(|f| format!("    {f}")));
            rest(fields.len(), SHOWN_FIELDS, "field", "    ", &mut out);
        }
        rest(self.changed.len(), SHOWN_ROWS, "changed row", "", &mut out);
        for (sign, rows, what) in [("-", &self.missing, "missing row"), ("+", &self.added, "added row")] {
            out.extend(rows.iter().take(SHOWN_ROWS).map(|row| format!("{sign} {row}")));
            rest(rows.len(), SHOWN_ROWS, what, "", &mut out);
        }
        out
    }
}

fn rest(n: usize, shown: usize, what: &str, indent: &str, out: &mut Vec<String>) {
    if n > shown {
        out.push(format!("{indent}… and {}", crate::lang::plural(n - shown, &format!("more {what}"))));
    }
}

/// A golden file.
#[derive(Debug)]
pub(super) struct GoldenFile<'a> {
    pub shown: &'a str,
    pub path: &'a Path,
}

impl GoldenFile<'_> {
    /// Holds the verdicts against the file.
    pub fn compare(&self, verdicts: &[&VerdictRecord]) -> Result<GoldenDiff, GoldenError> {
        let shown = || self.shown.to_owned();
        let text = match std::fs::read_to_string(self.path) {
            Ok(text) => text,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Err(GoldenError::Missing { shown: shown() }),
            Err(source) => return Err(GoldenError::Io { shown: shown(), source }),
        };
        let mut expected: BTreeMap<Key, (String, Value)> = BTreeMap::new();
        for (i, line) in text.lines().enumerate().filter(|(_, l)| !l.trim().is_empty()) {
            let fail = |why: String| GoldenError::Line { shown: shown(), line: i + 1, why };
            let value: Value = serde_json::from_str(line).map_err(|e| {
                // The error counts lines from this one.
                let place = format!(" at line {} column {}", e.line(), e.column());
                fail(format!("this is no JSON object: {} at byte {}", e.to_string().replace(&place, ""), e.column()))
            })?;
            let key = key_of(&value)
                .ok_or_else(|| fail("a verdict has `device`, `step` and `window_end`, each as text".into()))?;
            if expected.insert(key, (line.to_owned(), value)).is_some() {
                return Err(fail("this device, step and window stand in the file twice".into()));
            }
        }
        let mut diff = GoldenDiff::default();
        for record in verdicts {
            let line = verdict_line(record);
            let value: Value = serde_json::from_str(&line).unwrap_or_default();
            let Some(key) = key_of(&value) else { continue };
            match expected.remove(&key) {
                None => diff.added.push(row(&key, &value)),
                Some((golden, _)) if golden == line => {}
                Some((golden, before)) => {
                    let mut fields = Vec::new();
                    compare("", &before, &value, &mut fields);
                    if fields.is_empty() && squeezed(&golden) != squeezed(&line) {
                        fields.push(format!("written as {golden}, and given as {line}"));
                    }
                    if !fields.is_empty() {
                        diff.changed.push((named(&key), fields));
                    }
                }
            }
        }
        diff.missing = expected.iter().map(|(key, (_, value))| row(key, value)).collect();
        Ok(diff)
    }

    /// Writes the verdicts.
    pub fn write(&self, verdicts: &[&VerdictRecord]) -> Result<(), GoldenError> {
        let io = |source| GoldenError::Io { shown: self.shown.to_owned(), source };
        if let Some(parent) = self.path.parent() {
            std::fs::create_dir_all(parent).map_err(io)?;
        }
        let mut text = String::new();
        for record in verdicts {
            text.push_str(&verdict_line(record));
            text.push('\n');
        }
        let mut name = self.path.as_os_str().to_owned();
        name.push(".tmp");
        let temporary = PathBuf::from(name);
        std::fs::write(&temporary, text).map_err(io)?;
        std::fs::rename(&temporary, self.path).map_err(io)
    }
}

fn named((device, step, window_end): &Key) -> String {
    format!("{device} {step} {window_end}")
}

fn row(key: &Key, value: &Value) -> String {
    let field = |name: &str| value.get(name).map_or_else(|| "none".into(), Value::to_string);
    let severity = value.get("severity").and_then(Value::as_str).unwrap_or("none").to_owned();
    format!("{} {severity}, score {}, p-value {}", named(key), field("score"), field("p_value"))
}

/// Spaces stand in no number, and a text with other spaces was found to differ as a value.
fn squeezed(line: &str) -> String {
    line.chars().filter(|c| !c.is_whitespace()).collect()
}

/// The fields in which two values differ, by the path of their names.
fn compare(path: &str, before: &Value, now: &Value, out: &mut Vec<String>) {
    if let (Value::Object(a), Value::Object(b)) = (before, now) {
        let names: std::collections::BTreeSet<&String> = a.keys().chain(b.keys()).collect();
        for name in names {
            let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
            match (a.get(name), b.get(name)) {
                (Some(a), Some(b)) => compare(&path, a, b, out),
                (Some(a), None) => out.push(format!("{path}: {a} is not there any more")),
                (None, Some(b)) => out.push(format!("{path}: {b} is new")),
                (None, None) => {}
            }
        }
    } else if before != now {
        out.push(format!("{path}: {before} → {now}"));
    }
}
