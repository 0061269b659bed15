//! What really was: a CSV file of failures, or of windows in which something was wrong.

use std::path::{Path, PathBuf};

use avouch_connectors::files::{Format, ReplayOptions, Row};
use avouch_engine::decode::parse_timestamp;
use serde_json::{Map, Value};

use super::BacktestError;
use super::judged::Side;
use crate::lang::Pipeline;

/// At most so many mistakes are said.
const MOST: usize = 20;

/// A failure of a device.
#[derive(Debug)]
pub(super) struct Failure {
    pub device: String,
    pub failed_at: i64,
    /// The only step whose alarms count, if one is named.
    pub step: Option<String>,
    line: u64,
}

/// A stretch `[from, to)` in which something was wrong with a device.
#[derive(Debug)]
pub(super) struct Stretch {
    pub device: String,
    pub from: i64,
    pub to: i64,
    /// The only step whose verdicts ought to say so, if one is named.
    pub step: Option<String>,
    line: u64,
}

/// A label file, in the order of its lines.
#[derive(Debug)]
pub(super) enum Known {
    Failures(Vec<Failure>),
    Windows(Vec<Stretch>),
}

#[derive(Debug)]
pub(super) struct Labels {
    pub path: PathBuf,
    pub known: Known,
}

impl Labels {
    /// Every label must be about a device of the data: a name written differently would make all its figures wrong.
    pub fn check_devices(&self, side: &Side) -> Result<(), BacktestError> {
        let labelled: Vec<(&str, u64)> = match &self.known {
            Known::Failures(f) => f.iter().map(|l| (l.device.as_str(), l.line)).collect(),
            Known::Windows(w) => w.iter().map(|l| (l.device.as_str(), l.line)).collect(),
        };
        let unknown = |name: &str| side.device_number(name).is_none() && !side.of_the_dead.contains(name);
        let mistakes: Vec<String> = labelled
            .into_iter()
            .filter(|(device, _)| unknown(device))
            .map(|(device, line)| {
                let near = match closest(device, &side.devices) {
                    Some(near) => format!("did you mean `{near}`?"),
                    None => "write the device as the readings do, or give --data its readings".into(),
                };
                format!(
                    "{}:{line}: the device `{device}` is not in the data: it has no verdict and no dead letter; {near}",
                    self.path.display()
                )
            })
            .collect();
        fail(mistakes)
    }
}

fn closest<'a>(name: &str, among: &'a [String]) -> Option<&'a String> {
    let best = among.iter().min_by_key(|d| strsim::damerau_levenshtein(name, d))?;
    (strsim::damerau_levenshtein(name, best) <= 2).then_some(best)
}

fn fail(mut mistakes: Vec<String>) -> Result<(), BacktestError> {
    if mistakes.is_empty() {
        return Ok(());
    }
    let more = mistakes.len().saturating_sub(MOST);
    mistakes.truncate(MOST);
    if more > 0 {
        mistakes.push(format!("and {more} more"));
    }
    Err(BacktestError::Labels(mistakes.join("\n")))
}

/// Reads them all and says everything that is wrong with them, except devices, which are known after the run.
pub(super) fn read(path: &Path, pipeline: &Pipeline) -> Result<Labels, BacktestError> {
    let mut options = ReplayOptions::new([path.display().to_string()]);
    options.format = Some(Format::Csv);
    // A device called 007 stays that.
    options.text = vec!["device".into()];
    let mut replay = options.open().map_err(BacktestError::LabelFile)?;
    let (mut failures, mut windows, mut mistakes) = (Vec::new(), Vec::new(), Vec::new());
    let mut row = Row::default();
    while replay.next_row(&mut row).map_err(BacktestError::LabelFile)? {
        let fields: Map<String, Value> = serde_json::from_slice(&row.json).unwrap_or_default();
        let line = row.line;
        if let Err(why) = take(&fields, line, pipeline, &mut failures, &mut windows) {
            mistakes.push(format!("{}:{line}: {why}", path.display()));
        }
    }
    if mistakes.is_empty() && failures.is_empty() && windows.is_empty() {
        mistakes.push(format!("{}: there is no label in it; leave --labels out if none is known", path.display()));
    }
    fail(mistakes)?;
    // One header, so one kind.
    let known = if failures.is_empty() { Known::Windows(windows) } else { Known::Failures(failures) };
    Ok(Labels { path: path.to_path_buf(), known })
}

fn take(
    fields: &Map<String, Value>,
    line: u64,
    pipeline: &Pipeline,
    failures: &mut Vec<Failure>,
    windows: &mut Vec<Stretch>,
) -> Result<(), String> {
    let device = text(fields, "device")?.ok_or("the device is empty; name it as the readings do")?;
    let step = match fields.contains_key("step") {
        true => text(fields, "step")?,
        false => None,
    };
    if let Some(step) = &step
        && pipeline.model_step(step).is_none()
    {
        let have: Vec<&str> = pipeline.model_steps.iter().map(|s| s.name.value.as_str()).collect();
        return Err(format!("there is no model step `{step}`; there is {}", have.join(", ")));
    }
    match (fields.contains_key("failed_at"), fields.contains_key("from") && fields.contains_key("to")) {
        (true, false) => {
            failures.push(Failure { device, failed_at: time(fields, "failed_at")?, step, line });
        }
        (false, true) => {
            let (from, to) = (time(fields, "from")?, time(fields, "to")?);
            if from >= to {
                return Err("`to` is not after `from`; a window is [from, to)".into());
            }
            windows.push(Stretch { device, from, to, step, line });
        }
        (both, _) => {
            let have: Vec<String> = fields.keys().map(|k| format!("`{k}`")).collect();
            let why = if both { "these are both kinds" } else { "these are neither" };
            return Err(format!(
                "labels are `device, failed_at [, step]` or `device, from, to [, step]`; {why}: {}",
                have.join(", ")
            ));
        }
    }
    Ok(())
}

/// The text of a field; `None` where it is empty.
fn text(fields: &Map<String, Value>, column: &str) -> Result<Option<String>, String> {
    match fields.get(column) {
        None => {
            let have: Vec<String> = fields.keys().map(|k| format!("`{k}`")).collect();
            Err(format!("there is no column `{column}`; the columns are {}", have.join(", ")))
        }
        Some(Value::Null) => Ok(None),
        Some(Value::String(s)) => Ok(Some(s.clone()).filter(|s| !s.is_empty())),
        // CSV values that look like numbers, digit for digit.
        Some(other) => Ok(Some(other.to_string())),
    }
}

fn time(fields: &Map<String, Value>, column: &str) -> Result<i64, String> {
    let value = text(fields, column)?.ok_or_else(|| format!("`{column}` is empty; every label needs a time"))?;
    value.parse().ok().or_else(|| parse_timestamp(value.as_bytes())).ok_or_else(|| {
        let shown: String = value.chars().take(40).collect();
        format!("`{column}` is `{shown}`, which is no time; write milliseconds since 1970, RFC 3339, or YYYY-MM-DD HH:MM:SS (UTC)")
    })
}
