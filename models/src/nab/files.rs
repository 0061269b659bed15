//! The benchmark's files: `data/<folder>/<series>.csv` and `labels/combined_windows.json`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use thiserror::Error;

/// Why the benchmark's files cannot be read.
#[derive(Debug, Error)]
pub enum NabError {
    /// A file cannot be read.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's words.
        source: std::io::Error,
    },
    /// A file is not laid out as the benchmark's.
    #[error("{path}: {why}")]
    Layout {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// There is nothing to judge.
    #[error("{dir}: holds no series; name the directory that has data/<folder>/<series>.csv and labels/ in it")]
    NoData {
        /// The directory.
        dir: PathBuf,
    },
}

/// One series.
#[derive(Debug, Clone, PartialEq)]
pub struct NabFile {
    /// Folder and file without extension: `realTraffic/speed_6005`.
    pub name: String,
    /// As they stand in the file.
    pub timestamps: Vec<String>,
    /// Of each row; NaN where the file has no number.
    pub values: Vec<f64>,
    /// First and last row of each labelled window, ascending.
    pub windows: Vec<(usize, usize)>,
}

/// Reads every series under `dir`, ordered by name. A series that the labels do not name is an error: it could not be
/// judged.
pub fn load(dir: &Path) -> Result<Vec<NabFile>, NabError> {
    let labels = dir.join("labels").join("combined_windows.json");
    let layout = |path: &Path, why: String| NabError::Layout { path: path.to_path_buf(), why };
    let windows: BTreeMap<String, Vec<(String, String)>> =
        serde_json::from_str(&read(&labels)?).map_err(|e| layout(&labels, e.to_string()))?;
    let mut out = Vec::new();
    for folder in entries(&dir.join("data"))? {
        if !folder.is_dir() {
            continue;
        }
        for path in entries(&folder)? {
            if path.extension().is_none_or(|e| e != "csv") {
                continue;
            }
            let part = |p: &Path| p.file_stem().map(|s| s.to_string_lossy().into_owned()).unwrap_or_default();
            let name = format!("{}/{}", part(&folder), part(&path));
            let Some(limits) = windows.get(&format!("{name}.csv")) else {
                return Err(layout(&labels, format!("says nothing of {name}.csv")));
            };
            out.push(series(name, &path, limits)?);
        }
    }
    if out.is_empty() {
        return Err(NabError::NoData { dir: dir.to_path_buf() });
    }
    out.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(out)
}

fn series(name: String, path: &Path, limits: &[(String, String)]) -> Result<NabFile, NabError> {
    let text = read(path)?;
    let layout = |why: String| NabError::Layout { path: path.to_path_buf(), why };
    let mut lines = text.lines();
    if lines.next() != Some("timestamp,value") {
        return Err(layout("does not start with the line `timestamp,value`".to_owned()));
    }
    let (mut timestamps, mut values) = (Vec::new(), Vec::new());
    for (i, line) in lines.enumerate() {
        let Some((time, value)) = line.split_once(',') else {
            return Err(layout(format!("line {}: no `timestamp,value`", i + 2)));
        };
        timestamps.push(time.to_owned());
        values.push(value.trim().parse().unwrap_or(f64::NAN));
    }
    // The labels write fractions of a second that the files do not have. Of rows of equal time the first is meant.
    let row = |limit: &String| {
        let limit = limit.split_once('.').map_or(limit.as_str(), |(whole, _)| whole);
        let found = timestamps.iter().position(|t| t.as_str() == limit);
        found.ok_or_else(|| layout(format!("has no row at {limit}, where a labelled window starts or ends")))
    };
    let mut windows = Vec::with_capacity(limits.len());
    for (start, end) in limits {
        windows.push((row(start)?, row(end)?));
    }
    windows.sort_unstable();
    let ordered = windows.iter().all(|w| w.0 <= w.1) && windows.windows(2).all(|w| w[0].1 < w[1].0);
    if !ordered {
        return Err(layout("its labelled windows overlap or end before they start".to_owned()));
    }
    Ok(NabFile { name, timestamps, values, windows })
}

fn entries(dir: &Path) -> Result<Vec<PathBuf>, NabError> {
    let io = |source| NabError::Io { path: dir.to_path_buf(), source };
    let mut out = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(io)? {
        out.push(entry.map_err(io)?.path());
    }
    out.sort();
    Ok(out)
}

fn read(path: &Path) -> Result<String, NabError> {
    std::fs::read_to_string(path).map_err(|source| NabError::Io { path: path.to_path_buf(), source })
}
