//! The Skoltech Anomaly Benchmark: its files, and which verdict judges which row.

use std::path::{Path, PathBuf};

use avouch_connectors::files::{FilesError, Order, ReplayOptions, Row};
use avouch_models::Confusion;
use serde::Deserialize;

use super::EvaluateError;
use super::alarm_plot::{Point, Series};
use super::verdicts::{Judged, Verdicts};

/// Rows at the start of each file that train, by the protocol; they are not judged.
pub(super) const TRAIN_ROWS: usize = 400;

/// The bed's readings are a second apart, and windows end every second: the first window end after a row.
const NEXT_END_MS: i64 = 1000;

/// Directories of labelled experiments. The run without anomalies has no labels.
const DIRECTORIES: [&str; 3] = ["valve1", "valve2", "other"];

const TIME: &str = "datetime";

/// Figures over the whole benchmark as its datasets page reports them: name, F1, FAR and MAR in percent.
pub(super) const PUBLISHED: [(&str, f64, f64, f64); 6] = [
    ("Conv-AE", 0.78, 13.6, 28.0),
    ("MSET", 0.78, 39.7, 14.1),
    ("T2+Q", 0.76, 26.6, 24.9),
    ("LSTM-AE", 0.74, 30.0, 25.9),
    ("T2", 0.66, 19.2, 42.6),
    ("Isolation Forest", 0.29, 2.6, 82.9),
];

/// One file, which is one device.
#[derive(Debug)]
pub(super) struct Experiment {
    /// Directory and file name without extension, as `--device path` names it: `valve1/0`.
    pub device: String,
    /// In file order.
    pub rows: Vec<LabelledRow>,
}

/// One row of a file.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct LabelledRow {
    /// As it stands in the file.
    pub datetime: String,
    /// Milliseconds since the epoch.
    pub time_ms: i64,
    /// What the label says.
    pub anomaly: bool,
}

/// A row and what was said of it.
#[derive(Debug)]
pub(super) struct ScoredRow<'a> {
    pub label: &'a LabelledRow,
    /// The verdict of the window that ends with the row, if there is one.
    pub verdict: Option<&'a Judged>,
}

impl ScoredRow<'_> {
    /// A row without a verdict is no alarm.
    pub fn alarm(&self) -> bool {
        self.verdict.is_some_and(|v| v.alarm)
    }
}

/// A file's judged rows.
#[derive(Debug)]
pub(super) struct Scored<'a> {
    pub device: &'a str,
    pub rows: Vec<ScoredRow<'a>>,
    pub confusion: Confusion,
    pub without_verdict: u64,
}

impl Scored<'_> {
    /// For a plot.
    pub fn series(&self) -> Series {
        Series {
            name: self.device.to_owned(),
            unit: "reading after the training rows".to_owned(),
            points: self
                .rows
                .iter()
                .map(|r| Point {
                    p_value: r.verdict.map_or(f64::NAN, |v| v.p_value),
                    alarm: r.alarm(),
                    labelled: r.label.anomaly,
                })
                .collect(),
        }
    }
}

/// Matches verdicts to rows. The row at time t is judged by the verdict about its device whose window ends at t + 1 s;
/// rows of equal time share one.
pub(super) fn score<'a>(experiments: &'a [Experiment], verdicts: &'a Verdicts) -> Vec<Scored<'a>> {
    experiments
        .iter()
        .map(|e| {
            let of_device = verdicts.of(&e.device);
            let mut out =
                Scored { device: &e.device, rows: Vec::new(), confusion: Confusion::default(), without_verdict: 0 };
            for label in e.rows.iter().skip(TRAIN_ROWS) {
                let end = u64::try_from(label.time_ms.saturating_add(NEXT_END_MS)).ok();
                let verdict = end.and_then(|end| of_device?.get(&end));
                let row = ScoredRow { label, verdict };
                out.confusion.add(row.alarm(), label.anomaly);
                out.without_verdict += u64::from(verdict.is_none());
                out.rows.push(row);
            }
            out
        })
        .collect()
}

#[derive(Deserialize)]
struct Fields {
    datetime: Option<serde_json::Value>,
    anomaly: Option<serde_json::Value>,
}

/// Reads the labels of every experiment under `data`, in the order of directory and number.
pub(super) fn load(data: &Path, mut progress: impl FnMut(u64, u64)) -> Result<Vec<Experiment>, EvaluateError> {
    let files = files(data)?;
    let all = files.len() as u64;
    let mut out = Vec::with_capacity(files.len());
    for (i, (device, path)) in files.into_iter().enumerate() {
        progress(i as u64, all);
        out.push(Experiment { rows: rows(&path)?, device });
    }
    Ok(out)
}

/// The files of [`load`].
pub(super) fn paths(data: &Path) -> Result<Vec<PathBuf>, EvaluateError> {
    Ok(files(data)?.into_iter().map(|(_, path)| path).collect())
}

fn files(data: &Path) -> Result<Vec<(String, PathBuf)>, EvaluateError> {
    let mut out = Vec::new();
    for directory in DIRECTORIES {
        let path = data.join(directory);
        let io = |source| EvaluateError::Io { path: path.clone(), source };
        let entries = match std::fs::read_dir(&path) {
            Ok(entries) => entries,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => continue,
            Err(e) => return Err(io(e)),
        };
        let mut names = Vec::new();
        for entry in entries {
            let path = entry.map_err(io)?.path();
            if path.extension().is_some_and(|e| e == "csv")
                && let Some(stem) = path.file_stem().and_then(|s| s.to_str())
            {
                // 2 before 10.
                names.push((stem.len(), stem.to_owned(), path));
            }
        }
        names.sort();
        out.extend(names.into_iter().map(|(_, stem, path)| (format!("{directory}/{stem}"), path)));
    }
    if out.is_empty() {
        return Err(EvaluateError::NoData { dir: data.to_path_buf() });
    }
    Ok(out)
}

fn rows(path: &Path) -> Result<Vec<LabelledRow>, EvaluateError> {
    let wrong = |line, why: String| EvaluateError::Label { path: path.to_path_buf(), line, why };
    let name = path.to_str().ok_or_else(|| wrong(0, "the path is not UTF-8; rename it".into()))?;
    let mut options = ReplayOptions::new([name]);
    options.delimiter = b';';
    options.time = Some(TIME.into());
    options.order = Order::File;
    let mut replay = match options.open() {
        Err(FilesError::NoColumn { line, .. }) => {
            return Err(wrong(line, format!("there is no column `{TIME}`; SKAB's files are separated by `;`")));
        }
        opened => opened?,
    };
    let mut out = Vec::new();
    let mut row = Row::default();
    while replay.next_row(&mut row)? {
        let fields: Fields = serde_json::from_slice(&row.json).map_err(|e| wrong(row.line, e.to_string()))?;
        let anomaly = match fields.anomaly.as_ref().and_then(serde_json::Value::as_f64) {
            Some(0.0) => false,
            Some(1.0) => true,
            _ => {
                let found = fields.anomaly.map_or("missing".to_owned(), |v| v.to_string());
                return Err(wrong(row.line, format!("the label `anomaly` is {found}; it must be 0 or 1")));
            }
        };
        let datetime = match fields.datetime {
            Some(serde_json::Value::String(text)) => text,
            Some(other) => other.to_string(),
            None => String::new(),
        };
        // Invariant of the reader: a named time column gives every row its time.
        let time_ms = row.time_ms.ok_or_else(|| wrong(row.line, format!("the time `{TIME}` is missing")))?;
        out.push(LabelledRow { datetime, time_ms, anomaly });
    }
    Ok(out)
}
