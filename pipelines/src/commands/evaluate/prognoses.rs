//! A benchmark of prognoses: its pipeline, trained and run over rows that the evaluation has written.

use std::path::Path;

use avouch_engine::model::Interval;
use indicatif::ProgressBar;

use super::EvaluateError;
use super::in_memory::{Shipped, fit, judge, only_model};
use crate::history::{Ending, HistoryOptions};
use crate::lang::{Models, hex};

/// One verdict of the model step.
#[derive(Debug, Clone)]
pub(super) struct Said {
    pub device: String,
    pub window_end: i64,
    pub value: f64,
    pub interval: Option<Interval>,
}

/// What the trained pipeline says, and of which model.
pub(super) struct Run {
    pub said: Vec<Said>,
    pub model: String,
    pub config_hash: String,
}

/// Where the rows are.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rows<'a> {
    pub train: &'a Path,
    /// When which device failed, if the pipeline's label asks.
    pub failures: Option<&'a Path>,
    /// In the order of time.
    pub judge: &'a Path,
}

/// Trains the one model of the pipeline given, or of the one that is shipped, then runs the pipeline. Every row must be judged.
pub(super) fn run(
    given: Option<&Path>,
    shipped: Shipped,
    rows: Rows<'_>,
    bar: &ProgressBar,
) -> Result<Run, EvaluateError> {
    let mut pipeline = shipped.unless(given)?;
    let (step, entry) = only_model(&mut pipeline)?;
    entry.data.pattern = rows.train.to_string_lossy().into_owned();
    if let (Some(label), Some(path)) = (&mut entry.label, rows.failures)
        && let Some(f) = &mut label.failures
    {
        f.pattern = path.to_string_lossy().into_owned();
    }
    let trained = fit(&pipeline, &step, true, bar)?;
    let mut options = HistoryOptions::of(&pipeline, [rows.judge.to_string_lossy().into_owned()]);
    options.ending = Ending::CloseAll;
    let mut said = Vec::new();
    let models = Models::from([(step.clone(), trained.scorer)]);
    let dead = judge(&pipeline, &models, &step, options, bar, |record, _| {
        said.push(Said {
            window_end: record.verdict.window_end as i64,
            value: record.evidence.score,
            interval: record.evidence.interval,
            device: record.evidence.device.to_string(),
        });
        Ok(())
    })?;
    if let Some(dead) = dead {
        let why = format!("{}: {} rows were not judged; the first: {}", rows.judge.display(), dead.rows, dead.first);
        return Err(EvaluateError::Step(why));
    }
    Ok(Run { said, model: hex(&trained.hash), config_hash: hex(&pipeline.config_hash()) })
}
