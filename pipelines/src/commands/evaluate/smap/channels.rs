//! The data set: a file of training rows and one of test rows a channel, and the labels.

use std::path::{Path, PathBuf};

use avouch_connectors::files::{ReplayOptions, Row};
use indicatif::ProgressBar;
use serde::Deserialize;

use super::SmapError;
use crate::commands::evaluate::EvaluateError;

/// Directories of the data set, in the order of tables.
const SPACECRAFT: [&str; 2] = ["SMAP", "MSL"];

/// One channel of telemetry. Commands, which the files have too, are not read.
#[derive(Debug)]
pub(super) struct Channel {
    pub spacecraft: String,
    /// With the spacecraft: `SMAP/A-1`. The device's name.
    pub name: String,
    pub train: Vec<f64>,
    pub test: Vec<f64>,
    /// Of each test row, what the labels say.
    pub anomaly: Vec<bool>,
}

#[derive(Deserialize)]
struct Fields {
    value: f64,
}

/// Reads all channels under `data`.
pub(super) fn load(data: &Path, bar: &ProgressBar) -> Result<Vec<Channel>, EvaluateError> {
    let mut files = Vec::new();
    for spacecraft in SPACECRAFT {
        let dir = data.join(spacecraft).join("train");
        let entries = match std::fs::read_dir(&dir) {
            Ok(entries) => entries,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => continue,
            Err(source) => return Err(EvaluateError::Io { path: dir, source }),
        };
        let mut names = Vec::new();
        for entry in entries {
            let path = entry.map_err(|source| EvaluateError::Io { path: dir.clone(), source })?.path();
            if path.extension().is_some_and(|e| e == "parquet")
                && let Some(name) = path.file_name().and_then(|s| s.to_str())
            {
                names.push(name.to_owned());
            }
        }
        names.sort();
        files.extend(names.into_iter().map(|name| (spacecraft, name)));
    }
    if files.is_empty() {
        return Err(SmapError::NoData { dir: data.to_path_buf() }.into());
    }
    bar.set_length(files.len() as u64);
    let mut channels = Vec::with_capacity(files.len());
    for (spacecraft, file) in files {
        let test = values(&data.join(spacecraft).join("test").join(&file))?;
        channels.push(Channel {
            spacecraft: spacecraft.to_owned(),
            name: format!("{spacecraft}/{}", file.trim_end_matches(".parquet")),
            train: values(&data.join(spacecraft).join("train").join(&file))?,
            anomaly: vec![false; test.len()],
            test,
        });
        bar.inc(1);
    }
    labels(&data.join("labels.csv"), &mut channels)?;
    Ok(channels)
}

fn values(path: &Path) -> Result<Vec<f64>, EvaluateError> {
    let wrong = |line, why: String| EvaluateError::from(SmapError::Label { path: path.to_path_buf(), line, why });
    let name = path.to_str().ok_or_else(|| wrong(0, "the path is not UTF-8; rename it".into()))?;
    let mut rows = ReplayOptions::new([name]).open()?;
    let (mut out, mut row) = (Vec::new(), Row::default());
    while rows.next_row(&mut row)? {
        let fields: Fields = serde_json::from_slice(&row.json)
            .map_err(|e| wrong(row.line as usize, format!("a row needs a number in the column `value`: {e}")))?;
        out.push(fields.value);
    }
    Ok(out)
}

/// `spacecraft,channel,start,end,…`: rows of the test file, both ends included.
fn labels(path: &Path, channels: &mut [Channel]) -> Result<(), EvaluateError> {
    let text =
        std::fs::read_to_string(path).map_err(|source| EvaluateError::Io { path: path.to_path_buf(), source })?;
    let wrong = |line: usize, why: String| {
        EvaluateError::from(SmapError::Label { path: PathBuf::from(path), line: line + 1, why })
    };
    for (i, line) in text.lines().enumerate() {
        let cells: Vec<&str> = line.split(',').map(str::trim).collect();
        if i == 0 {
            if !line.starts_with("spacecraft,channel,start,end") {
                return Err(wrong(i, "the first columns must be spacecraft,channel,start,end".into()));
            }
            continue;
        }
        let [spacecraft, channel, start, end, ..] = cells.as_slice() else {
            return Err(wrong(i, "a label needs spacecraft, channel, start and end".into()));
        };
        let number =
            |cell: &str| cell.parse::<usize>().map_err(|_| wrong(i, format!("`{cell}` is not the number of a row")));
        let (start, end) = (number(start)?, number(end)?);
        let name = format!("{spacecraft}/{channel}");
        let Some(channel) = channels.iter_mut().find(|c| c.name == name) else {
            // Part of the data set may be there.
            continue;
        };
        let rows = channel.anomaly.len();
        let Some(marked) = channel.anomaly.get_mut(start..=end) else {
            return Err(wrong(i, format!("rows {start} to {end} of a test file of {rows}")));
        };
        marked.fill(true);
    }
    Ok(())
}
