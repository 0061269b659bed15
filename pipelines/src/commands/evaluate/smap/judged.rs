//! Training the pipeline on the training rows, and its verdicts on the test rows.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use avouch_engine::verdict::{Hash32, Severity, class};
use indicatif::ProgressBar;

use super::SmapError;
use super::channels::Channel;
use crate::commands::train::train_one;
use crate::history::{Ending, History, HistoryOptions};
use crate::lang::{self, Diagnostics, Pipeline};

/// The pipeline that ships with the program.
const PIPELINE: &str = include_str!("../../../../spacecraft/pipeline.toml");

/// A row of the data set.
const MINUTE: i64 = 60_000;

/// When training begins: 2012-01-01. Test rows follow long after; only distances matter.
const TRAIN_START: i64 = 1_325_376_000_000;
const TEST_START: i64 = TRAIN_START + 366 * 24 * 60 * MINUTE;

/// What the card says of its creation: the same data give the same model file.
const CREATED: &str = "2012-01-01T00:00:00Z";

/// What was said of one test row.
#[derive(Debug, Clone, Copy)]
pub(super) struct Said {
    pub score: f64,
    pub p_value: f64,
    /// Warning or worse.
    pub alarm: bool,
}

/// A pipeline trained and run.
#[derive(Debug)]
pub(super) struct Run {
    pub pipeline: String,
    pub step: String,
    pub config_hash: Hash32,
    pub model: Hash32,
    pub model_bytes: usize,
    /// Of each channel, what was said of each test row; none where no window ends with the row, or it has no score.
    pub rows: Vec<Vec<Option<Said>>>,
}

/// A directory for rows and model, gone when this is.
struct Place(PathBuf);

impl Place {
    fn new() -> Result<Self, SmapError> {
        let dir = std::env::temp_dir().join(format!("avouch-smap-{}", std::process::id()));
        std::fs::create_dir_all(&dir).map_err(|source| SmapError::Io { path: dir.clone(), source })?;
        Ok(Self(dir))
    }

    fn write(&self, name: &str, text: &str) -> Result<PathBuf, SmapError> {
        let path = self.0.join(name);
        std::fs::write(&path, text).map_err(|source| SmapError::Io { path: path.clone(), source })?;
        Ok(path)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // What is left over lies in the directory for temporary files.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Rows of all channels as a topic would have them: minute by minute.
fn rows<'a>(channels: &'a [Channel], start: i64, of: impl Fn(&'a Channel) -> &'a [f64]) -> String {
    let longest = channels.iter().map(|c| of(c).len()).max().unwrap_or(0);
    let mut out = String::new();
    for (i, ts) in (0..longest).zip((start..).step_by(MINUTE as usize)) {
        for c in channels {
            if let Some(value) = of(c).get(i) {
                // Names are of directories and files that the data set chose: no quotes. Writing into a String cannot fail.
                let _ = writeln!(out, "{{\"device\":\"{}\",\"ts\":{ts},\"value\":{value}}}", c.name);
            }
        }
    }
    out
}

/// Trains and runs.
pub(super) fn run(
    channels: &[Channel],
    pipeline: Option<&Path>,
    quiet: bool,
    bar: &ProgressBar,
) -> Result<Run, SmapError> {
    let text = |d: Diagnostics| SmapError::Pipeline(d.render_text(!quiet && crate::commands::check::colour()));
    let place = Place::new()?;
    let file = match pipeline {
        Some(file) => file.to_path_buf(),
        None => place.write("pipeline.toml", PIPELINE)?,
    };
    let mut pipeline = Pipeline::load_offline(&file).map_err(text)?;
    let (steps, entries) = (pipeline.model_steps.len(), pipeline.train.len());
    let ([step], [entry]) = (pipeline.model_steps.as_mut_slice(), pipeline.train.as_mut_slice()) else {
        return Err(SmapError::Shape { steps, entries });
    };
    // Rows and model lie here, whatever the file says; it decides everything else.
    let training = place.write("train.ndjson", &rows(channels, TRAIN_START, |c| &c.train))?;
    entry.data.pattern = training.to_string_lossy().into_owned();
    step.model_file.value = place.0.join("trained.model");
    let (entry, step) = (entry.clone(), step.name.value.clone());
    let (_, model) = train_one(&pipeline, &entry, CREATED, quiet)?;

    let (models, _) = lang::load_models(&pipeline).map_err(text)?;
    let plan = lang::plan(&pipeline, &models).map_err(text)?;
    let test = place.write("test.ndjson", &rows(channels, TEST_START, |c| &c.test))?;
    let mut options = HistoryOptions::of(&pipeline, [test.to_string_lossy()]);
    options.ending = Ending::CloseAll;
    let mut history = History::open(plan, options)?;
    bar.set_message("judging (bytes)");
    bar.set_length(history.progress().1);
    let numbers: HashMap<&str, usize> = channels.iter().enumerate().map(|(i, c)| (c.name.as_str(), i)).collect();
    let mut out: Vec<Vec<Option<Said>>> = channels.iter().map(|c| vec![None; c.test.len()]).collect();
    while let Some(piece) = history.next()? {
        for record in piece.output.verdicts {
            let (v, e) = (&record.verdict, &record.evidence);
            // The window that ends a minute after a row's time ends with the row.
            let row = (v.window_end as i64 - TEST_START) / MINUTE - 1;
            let Some(said) = numbers
                .get(&*e.device)
                .and_then(|i| out.get_mut(*i))
                .and_then(|rows| rows.get_mut(usize::try_from(row).ok()?))
            else {
                continue;
            };
            if v.class != class::NOT_A_NUMBER && !e.score.is_nan() {
                let alarm = v.severity >= Severity::Warning.code();
                *said = Some(Said { score: e.score, p_value: e.p_value, alarm });
            }
        }
        bar.set_position(history.progress().0);
    }
    for (channel, rows) in channels.iter().zip(&out) {
        if rows.iter().all(Option::is_none) {
            return Err(SmapError::NoVerdicts { channel: channel.name.clone() });
        }
    }
    Ok(Run {
        pipeline: pipeline.name.value.clone(),
        step,
        config_hash: pipeline.config_hash(),
        model: model.hash,
        model_bytes: model.bytes.len(),
        rows: out,
    })
}
