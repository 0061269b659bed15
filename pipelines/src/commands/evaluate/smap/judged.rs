//! Training the pipeline on the training rows, and its verdicts on the test rows.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::path::Path;

use avouch_engine::verdict::{Hash32, class};
use indicatif::ProgressBar;

use super::SmapError;
use super::channels::Channel;
use crate::commands::evaluate::EvaluateError;
use crate::commands::evaluate::in_memory::{Shipped, fit, judge, only_model};
use crate::commands::evaluate::scratch::Scratch;
use crate::commands::evaluate::verdicts::Judged;
use crate::history::{Ending, HistoryOptions};
use crate::lang::Models;

/// The pipeline that ships with the program.
const PIPELINE: Shipped =
    Shipped { name: "spacecraft/pipeline.toml", text: include_str!("../../../../spacecraft/pipeline.toml") };

/// A row of the data set.
const MINUTE: i64 = 60_000;

/// When training begins: 2012-01-01. Test rows follow long after; only distances matter.
const TRAIN_START: i64 = 1_325_376_000_000;
const TEST_START: i64 = TRAIN_START + 366 * 24 * 60 * MINUTE;

/// A pipeline trained and run.
#[derive(Debug)]
pub(super) struct Run {
    pub pipeline: String,
    pub step: String,
    pub config_hash: Hash32,
    pub model: Hash32,
    pub model_bytes: usize,
    /// Of each channel, what was said of each test row; none where no window ends with the row, or it has no score.
    pub rows: Vec<Vec<Option<Judged>>>,
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
) -> Result<Run, EvaluateError> {
    let scratch = Scratch::new("smap")?;
    let mut pipeline = PIPELINE.unless(pipeline)?;
    let (step, entry) = only_model(&mut pipeline)?;
    // Rows lie here, whatever the file says; it decides everything else.
    let training = scratch.write("train.ndjson", &rows(channels, TRAIN_START, |c| &c.train))?;
    entry.data.pattern = training.to_string_lossy().into_owned();
    let model = fit(&pipeline, &step, quiet, bar)?;

    let test = scratch.write("test.ndjson", &rows(channels, TEST_START, |c| &c.test))?;
    let mut options = HistoryOptions::of(&pipeline, [test.to_string_lossy()]);
    options.ending = Ending::CloseAll;
    let numbers: HashMap<&str, usize> = channels.iter().enumerate().map(|(i, c)| (c.name.as_str(), i)).collect();
    let mut out: Vec<Vec<Option<Judged>>> = channels.iter().map(|c| vec![None; c.test.len()]).collect();
    let models = Models::from([(step.clone(), model.scorer.clone())]);
    judge(&pipeline, &models, &step, options, bar, |record, lane| {
        // The window that ends a minute after a row's time ends with the row.
        let row = (record.verdict.window_end as i64 - TEST_START) / MINUTE - 1;
        let of_channel = numbers.get(&*record.evidence.device).and_then(|i| out.get_mut(*i));
        let of_row = of_channel.and_then(|rows| rows.get_mut(usize::try_from(row).ok()?));
        let judged = Judged::of(&record, lane);
        if let Some(slot) = of_row
            && !judged.score.is_nan()
            && record.verdict.class != class::NOT_A_NUMBER
        {
            *slot = Some(judged);
        }
        Ok(())
    })?;
    for (channel, rows) in channels.iter().zip(&out) {
        if rows.iter().all(Option::is_none) {
            return Err(SmapError::NoVerdicts { channel: channel.name.clone() }.into());
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
