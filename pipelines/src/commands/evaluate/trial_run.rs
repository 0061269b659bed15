//! A benchmark's pipeline, trained and run over its rows in a directory of its own.

use std::path::{Path, PathBuf};

use avouch_engine::decode::format_timestamp;
use avouch_engine::model::Interval;
use indicatif::ProgressBar;

use super::{EvaluateError, in_memory};
use crate::commands::train::train_one;
use crate::history::{Ending, History, HistoryOptions};
use crate::lang::{self, Diagnostics, hex};

/// A directory that goes when this does.
pub(super) struct Place(PathBuf);

impl Place {
    pub fn new(name: &str) -> Result<Self, EvaluateError> {
        let path = std::env::temp_dir().join(format!("avouch-evaluate-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).map_err(|source| EvaluateError::Io { path: path.clone(), source })?;
        Ok(Self(path))
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    pub fn write(&self, name: &str, text: &str) -> Result<PathBuf, EvaluateError> {
        let path = self.path(name);
        std::fs::write(&path, text).map_err(|source| EvaluateError::Io { path: path.clone(), source })?;
        Ok(path)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // What stays behind is in the system's directory of temporary files.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

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

/// A pipeline file that comes with this program.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shipped {
    /// Its path in `pipelines/`, for messages.
    pub name: &'static str,
    pub text: &'static str,
}

/// Trains the one model of the pipeline given, or of the one that is shipped, on `train`
/// (and the times in `failures`), then runs the pipeline over `judge`, which must be in the order of time.
pub(super) fn run(
    given: Option<&Path>,
    shipped: Shipped,
    place: &Place,
    train: &Path,
    failures: Option<&Path>,
    judge: &Path,
    bar: &ProgressBar,
) -> Result<Run, EvaluateError> {
    let text = |d: Diagnostics| EvaluateError::Pipeline(d.render_text(false));
    let mut pipeline = in_memory::pipeline(given, shipped.name, shipped.text)?;
    let (1, 1) = (pipeline.model_steps.len(), pipeline.train.len()) else {
        let why = format!("{}: one model step and one [train.*] entry are needed", pipeline.file.path().display());
        return Err(EvaluateError::Step(why));
    };
    pipeline.model_steps[0].model_file.value = place.path("trained.model");
    pipeline.model_steps[0].model_sha256 = None;
    let entry = &mut pipeline.train[0];
    entry.data.pattern = train.to_string_lossy().into_owned();
    if let (Some(label), Some(path)) = (&mut entry.label, failures)
        && let Some(f) = &mut label.failures
    {
        f.pattern = path.to_string_lossy().into_owned();
    }
    bar.set_message("training");
    // A fixed time of creation, so that the model is the same file each time.
    let (_, model) = train_one(&pipeline, &pipeline.train[0], &format_timestamp(0), true)?;

    bar.set_message("judging");
    let (models, _) = lang::load_models(&pipeline).map_err(text)?;
    let plan = lang::plan(&pipeline, &models).map_err(text)?;
    let mut options = HistoryOptions::of(&pipeline, [judge.to_string_lossy().into_owned()]);
    options.ending = Ending::CloseAll;
    let mut history = History::open(plan, options)?;
    bar.set_length(history.progress().1);
    let mut said = Vec::new();
    while let Some(piece) = history.next()? {
        if let Some(dead) = piece.output.dead.first() {
            let why = format!("{}: a row was not judged: {}", judge.display(), dead.detail);
            return Err(EvaluateError::Step(why));
        }
        said.extend(piece.output.verdicts.into_iter().map(|record| Said {
            window_end: record.verdict.window_end as i64,
            value: record.evidence.score,
            interval: record.evidence.interval,
            device: record.evidence.device,
        }));
        bar.set_position(history.progress().0);
    }
    Ok(Run { said, model: hex(&model.hash), config_hash: hex(&pipeline.config_hash()) })
}
