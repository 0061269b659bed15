//! What a sample seems to be: types, the time, the device, how often readings come, and the windows that fit.

use std::collections::{BTreeMap, BTreeSet};

use avouch_engine::decode::parse_timestamp;
use avouch_engine::spec::FieldType;
use serde_json::Value;

use super::StarterError;
use super::sample::Sample;
use crate::lang::format_duration;

/// What a person said already; the rest is guessed.
#[derive(Debug, Clone, Default)]
pub struct Answers {
    /// The column of event time.
    pub time: Option<String>,
    /// The column of the device, or `path`.
    pub key: Option<String>,
    /// The window's length, milliseconds.
    pub window_ms: Option<i64>,
    /// How often a window begins, milliseconds.
    pub every_ms: Option<i64>,
    /// How far rows may be out of order, milliseconds.
    pub max_disorder_ms: Option<i64>,
}

/// A field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    /// Its name in the rows.
    pub name: String,
    /// Its type.
    pub ty: FieldType,
    /// Whether every row has one.
    pub required: bool,
    /// How many different values it has.
    distinct: usize,
}

/// What a sample seems to be.
#[derive(Debug, Clone)]
pub struct Guess {
    /// The fields, by name.
    pub columns: Vec<Column>,
    /// Fields that hold objects or arrays, or values of several kinds, and are left out.
    pub left_out: Vec<String>,
    /// The time column.
    pub time: String,
    /// The device's column.
    pub key: String,
    /// How many devices there are in the sample.
    pub devices: usize,
    /// Median time between two readings of a device, milliseconds.
    pub cadence_ms: i64,
    /// How far rows are out of order in the sample, milliseconds.
    pub disorder_ms: i64,
    /// Whether the sample stands device by device, so that it must be sorted to be replayed.
    pub by_device: bool,
    /// `time.max_disorder`, milliseconds.
    pub max_disorder_ms: i64,
    /// The window's length, milliseconds.
    pub window_ms: i64,
    /// How often a window begins, milliseconds.
    pub every_ms: i64,
    /// The numbers that features are made of.
    pub numbers: Vec<String>,
}

/// Lengths that people choose, milliseconds.
const NICE: [i64; 25] = [
    100,
    200,
    500,
    1_000,
    2_000,
    5_000,
    10_000,
    15_000,
    20_000,
    30_000,
    60_000,
    120_000,
    300_000,
    600_000,
    900_000,
    1_800_000,
    3_600_000,
    7_200_000,
    10_800_000,
    21_600_000,
    43_200_000,
    86_400_000,
    172_800_000,
    604_800_000,
    2_592_000_000,
];

/// Features are made of so many numbers at most.
const MOST_NUMBERS: usize = 8;

/// 2000 and 2100: between them an integer may be a time.
const YEARS: (i64, i64) = (946_684_800, 4_102_444_800);

fn at_least(ms: i64) -> i64 {
    NICE.into_iter().find(|n| *n >= ms).unwrap_or(ms)
}

fn at_most(ms: i64) -> i64 {
    NICE.into_iter().rev().find(|n| *n <= ms).unwrap_or(ms.max(1))
}

/// Guesses, with what is answered taken as said.
///
/// # Errors
/// [`StarterError::Sample`] with what is missing.
pub fn guess(sample: &Sample, answers: &Answers) -> Result<Guess, StarterError> {
    let fail = |why: String| Err(StarterError::Sample(why));
    if sample.rows.is_empty() {
        let what = if sample.lines.is_empty() { "has no rows" } else { "has no row that is a JSON object" };
        return fail(format!("{} {what}; give a sample with some hundred readings", sample.from));
    }
    let (mut columns, left_out) = columns_of(sample);
    let names: Vec<String> = columns.iter().map(|c| c.name.clone()).collect();
    if columns.len() < 2 {
        let hint = if sample.delimiter.is_some() { " (another --delimiter?)" } else { "" };
        return fail(format!(
            "{} has one column, `{}`{hint}. A reading has a time and at least one number",
            sample.from,
            names.first().map_or("", String::as_str)
        ));
    }
    let time = time_of(sample, &columns, answers)?;
    let key = key_of(sample, &columns, &time, answers)?;
    for column in &mut columns {
        if column.name == time {
            (column.ty, column.required) = (FieldType::TimestampMs, true);
        } else if column.name == key {
            (column.ty, column.required) = (FieldType::Utf8, true);
        }
    }
    let numbers: Vec<String> = columns
        .iter()
        .filter(|c| matches!(c.ty, FieldType::F64 | FieldType::I64) && c.distinct > 1)
        .map(|c| c.name.clone())
        .take(MOST_NUMBERS)
        .collect();
    if numbers.is_empty() {
        return fail(format!(
            "{} has no column of numbers that change, so there is nothing to make features of; the columns are {}",
            sample.from,
            names.join(", ")
        ));
    }
    let times = Times::of(sample, &time, &key);
    let Some(cadence_ms) = times.cadence() else {
        return fail(format!(
            "no device in {} has readings at two times; give a longer sample, or say with --key what names the device",
            sample.from
        ));
    };
    let by_device = times.disorder > 4 * at_least(cadence_ms) && times.disorder > times.disorder_within * 2;
    let disorder_ms = if by_device { times.disorder_within } else { times.disorder };
    let max_disorder_ms = answers.max_disorder_ms.unwrap_or_else(|| at_least((2 * disorder_ms).max(cadence_ms)));
    // So long that a window of the sample closes.
    let room = ((times.span - max_disorder_ms) / 3).max(1);
    let window_ms = answers.window_ms.unwrap_or_else(|| at_least(60 * cadence_ms).min(at_most(room)));
    let every_ms = answers.every_ms.unwrap_or_else(|| {
        let divides = |n: &&i64| **n >= cadence_ms && window_ms % **n == 0;
        NICE.iter().filter(|n| **n <= window_ms / 3).rev().find(divides).copied().unwrap_or(window_ms)
    });
    Ok(Guess {
        devices: times.devices,
        columns,
        left_out,
        time,
        key,
        cadence_ms,
        disorder_ms,
        by_device,
        max_disorder_ms,
        window_ms,
        every_ms,
        numbers,
    })
}

impl Guess {
    /// What was found, a line each, for a person.
    pub fn lines(&self) -> Vec<String> {
        let order = match (self.by_device, self.disorder_ms) {
            (true, _) => "device after device".to_owned(),
            (false, 0) => "in order".to_owned(),
            (false, ms) => format!("up to {} out of order", format_duration(ms)),
        };
        vec![
            format!("time     {}", self.time),
            format!("device   {} ({} in the sample)", self.key, self.devices),
            format!("cadence  a reading every {} and device, {order}", format_duration(self.cadence_ms)),
            format!("windows  {} every {}", format_duration(self.window_ms), format_duration(self.every_ms)),
            format!("numbers  {}", self.numbers.join(", ")),
        ]
    }
}

#[derive(Default)]
struct Seen {
    rows: usize,
    kinds: BTreeSet<&'static str>,
    times: usize,
    distinct: BTreeSet<String>,
}

fn columns_of(sample: &Sample) -> (Vec<Column>, Vec<String>) {
    let mut seen: BTreeMap<&str, Seen> = BTreeMap::new();
    for (name, value) in sample.rows.iter().flatten() {
        let s = seen.entry(name).or_default();
        let kind = match value {
            Value::Null => continue,
            Value::Bool(_) => "bool",
            Value::Number(n) if n.is_i64() => "i64",
            Value::Number(_) => "f64",
            Value::String(text) => {
                s.times += usize::from(parse_timestamp(text.as_bytes()).is_some());
                "utf8"
            }
            Value::Array(_) | Value::Object(_) => "nested",
        };
        s.rows += 1;
        s.kinds.insert(kind);
        s.distinct.insert(value.to_string());
    }
    let (mut columns, mut left_out) = (Vec::new(), Vec::new());
    for (name, s) in seen {
        let kinds: Vec<&str> = s.kinds.iter().copied().collect();
        let ty = match kinds.as_slice() {
            ["bool"] => FieldType::Bool,
            ["i64"] => FieldType::I64,
            ["f64"] | ["f64", "i64"] => FieldType::F64,
            ["utf8"] if s.times == s.rows => FieldType::TimestampMs,
            ["utf8"] => FieldType::Utf8,
            _ => {
                left_out.push(name.to_owned());
                continue;
            }
        };
        let required = s.rows == sample.rows.len();
        columns.push(Column { name: name.to_owned(), ty, required, distinct: s.distinct.len() });
    }
    (columns, left_out)
}

fn alike(name: &str, words: &[&str]) -> usize {
    let name = name.to_ascii_lowercase();
    let parts: Vec<&str> = name.split(|c: char| !c.is_ascii_alphanumeric()).collect();
    words.iter().position(|w| name == *w || parts.contains(w)).map_or(0, |at| words.len() - at)
}

const TIME_NAMES: [&str; 9] =
    ["ts", "timestamp", "time", "datetime", "event_time", "at", "date", "measured", "created"];
const KEY_NAMES: [&str; 14] = [
    "device",
    "device_id",
    "asset",
    "machine",
    "sensor",
    "equipment",
    "pump",
    "unit",
    "vehicle",
    "battery",
    "host",
    "serial",
    "id",
    "name",
];

fn time_of(sample: &Sample, columns: &[Column], answers: &Answers) -> Result<String, StarterError> {
    let of = |name: &str, c: &Column| -> Option<i64> {
        let first = sample.rows.iter().filter_map(|r| r.get(name)).find(|v| !v.is_null())?;
        match c.ty {
            FieldType::TimestampMs => Some(1),
            FieldType::I64 => {
                let n = first.as_i64()?;
                [1_000, 1, 1_000_000, 1_000_000_000].into_iter().find(|unit| {
                    let seconds = if *unit == 1 { n } else { n / unit };
                    (YEARS.0..YEARS.1).contains(&seconds)
                })
            }
            _ => None,
        }
    };
    // In `of` 1,000 a second is milliseconds, which is what a pipeline reads; text is 1 as well as seconds are.
    let reads = |c: &Column| c.ty == FieldType::TimestampMs || of(&c.name, c) == Some(1_000);
    let other = |c: &Column| match of(&c.name, c) {
        Some(1) if c.ty == FieldType::I64 => Some("seconds"),
        Some(1_000_000) => Some("microseconds"),
        Some(1_000_000_000) => Some("nanoseconds"),
        _ => None,
    };
    let wrong_unit = |c: &Column, unit: &str| {
        StarterError::Sample(format!(
            "`{}` is a time in {unit}; a reading's time is milliseconds since 1970, RFC 3339, or YYYY-MM-DD HH:MM:SS: let \
             who sends the readings write one of these",
            c.name
        ))
    };
    if let Some(name) = &answers.time {
        let Some(column) = columns.iter().find(|c| c.name == *name) else {
            return Err(no_column("--time", name, columns));
        };
        if reads(column) {
            return Ok(name.clone());
        }
        return Err(match other(column) {
            Some(unit) => wrong_unit(column, unit),
            None => StarterError::Sample(format!(
                "`{name}` is no time in every row; a reading's time is milliseconds since 1970, RFC 3339, or YYYY-MM-DD HH:MM:SS"
            )),
        });
    }
    let best =
        columns.iter().filter(|c| c.required && reads(c)).max_by_key(|c| (alike(&c.name, &TIME_NAMES), c.distinct));
    if let Some(best) = best {
        return Ok(best.name.clone());
    }
    if let Some((column, unit)) = columns.iter().find_map(|c| Some((c, other(c)?))) {
        return Err(wrong_unit(column, unit));
    }
    let names: Vec<&str> = columns.iter().map(|c| c.name.as_str()).collect();
    Err(StarterError::Sample(format!(
        "no column of {} is a time in every row (milliseconds since 1970, RFC 3339, or YYYY-MM-DD HH:MM:SS); the columns are {}",
        sample.from,
        names.join(", ")
    )))
}

fn no_column(flag: &str, name: &str, columns: &[Column]) -> StarterError {
    let names: Vec<&str> = columns.iter().map(|c| c.name.as_str()).collect();
    StarterError::Sample(format!("{flag}: there is no column `{name}`; the columns are {}", names.join(", ")))
}

fn key_of(sample: &Sample, columns: &[Column], time: &str, answers: &Answers) -> Result<String, StarterError> {
    if sample.device_of_path {
        return Ok("device".into());
    }
    let fits = |c: &Column| {
        c.required && (c.ty == FieldType::Utf8 || (c.ty == FieldType::I64 && sample.keys_become_text)) && c.name != time
    };
    if let Some(name) = &answers.key {
        return match columns.iter().find(|c| c.name == *name) {
            None => Err(no_column("--key", name, columns)),
            Some(c) if fits(c) => Ok(name.clone()),
            Some(_) => Err(StarterError::Sample(format!(
                "`{name}` cannot name the device: it must be text, and every row must have one"
            ))),
        };
    }
    let candidates: Vec<&Column> = columns
        .iter()
        .filter(|c| fits(c) && c.distinct * 2 <= sample.rows.len().max(2))
        .filter(|c| c.ty == FieldType::Utf8 || alike(&c.name, &KEY_NAMES) > 0)
        .collect();
    match candidates.iter().max_by_key(|c| (alike(&c.name, &KEY_NAMES), c.distinct)) {
        Some(best) => Ok(best.name.clone()),
        None => Err(StarterError::NoDevice(format!(
            "no column of {} seems to name the device; say which with --key{}",
            sample.from,
            if sample.keys_become_text { ", or --key path where each file is a device" } else { "" }
        ))),
    }
}

struct Times {
    devices: usize,
    gaps: Vec<i64>,
    /// Of all rows, and within a device.
    disorder: i64,
    disorder_within: i64,
    span: i64,
}

/// A time of a row, milliseconds.
pub(super) fn millis(value: Option<&Value>) -> Option<i64> {
    match value? {
        Value::String(text) => parse_timestamp(text.as_bytes()),
        other => other.as_i64(),
    }
}

impl Times {
    fn of(sample: &Sample, time: &str, key: &str) -> Self {
        let mut by_device: BTreeMap<String, Vec<i64>> = BTreeMap::new();
        let (mut highest, mut lowest, mut disorder) = (i64::MIN, i64::MAX, 0);
        for row in &sample.rows {
            let Some(t) = millis(row.get(time)) else { continue };
            disorder = disorder.max(highest.saturating_sub(t));
            (highest, lowest) = (highest.max(t), lowest.min(t));
            let device = row.get(key).map(Value::to_string).unwrap_or_default();
            by_device.entry(device).or_default().push(t);
        }
        let (mut gaps, mut disorder_within) = (Vec::new(), 0);
        for times in by_device.values_mut() {
            let mut highest = i64::MIN;
            for t in times.iter() {
                disorder_within = disorder_within.max(highest.saturating_sub(*t));
                highest = highest.max(*t);
            }
            times.sort_unstable();
            gaps.extend(times.windows(2).map(|w| w[1] - w[0]).filter(|gap| *gap > 0));
        }
        gaps.sort_unstable();
        Self { devices: by_device.len(), gaps, disorder, disorder_within, span: highest.saturating_sub(lowest) }
    }

    fn cadence(&self) -> Option<i64> {
        self.gaps.get(self.gaps.len() / 2).copied()
    }
}
