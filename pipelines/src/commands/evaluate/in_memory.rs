//! A pipeline trained by its own `[train.*]` entry and run over a data set's files, in memory: the engine and the pipeline
//! file of production, without network, keys or stores. All benchmarks come through here.

use std::path::Path;
use std::sync::Arc;

use avouch_engine::verdict::VerdictRecord;
use avouch_models::{ModelCard, TrainedModel};
use indicatif::ProgressBar;

use super::verdicts::{Judged, Verdicts};
use super::{EvaluateError, wrong_pipeline};
use crate::commands::train;
use crate::history::{History, HistoryOptions};
use crate::lang::{self, Models, Pipeline, ProcessEnvironment, SourceFile, Train};

/// The card's time of creation: the clock has no part in an evaluation, so that the model's hash has none.
const CREATED: &str = "1970-01-01T00:00:00Z";

/// A pipeline file that comes with this program.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shipped {
    /// Its path in `pipelines/`, for messages.
    pub name: &'static str,
    pub text: &'static str,
}

impl Shipped {
    /// The pipeline file given, or else this one.
    pub fn unless(self, given: Option<&Path>) -> Result<Pipeline, EvaluateError> {
        match given {
            Some(path) => Pipeline::load_offline(path),
            None => Pipeline::read_offline(Arc::new(SourceFile::new(self.name, self.text)), &ProcessEnvironment),
        }
        .map_err(wrong_pipeline)
    }
}

/// Lets training read below `data`: of each entry's pattern the file's part, and that of its directory where it has a
/// directory of its own.
pub(super) fn train_on(pipeline: &mut Pipeline, data: &Path) {
    for entry in &mut pipeline.train {
        let pattern = Path::new(&entry.data.pattern);
        let mut parts: Vec<_> = pattern.iter().rev().take(2).collect();
        parts.reverse();
        entry.data.pattern = data.join(parts.iter().collect::<std::path::PathBuf>()).to_string_lossy().into_owned();
    }
}

/// The only model step of a pipeline and the only entry that trains it.
pub(super) fn only_model(pipeline: &mut Pipeline) -> Result<(String, &mut Train), EvaluateError> {
    let (steps, entries) = (pipeline.model_steps.len(), pipeline.train.len());
    let ([step], [entry]) = (pipeline.model_steps.as_slice(), pipeline.train.as_mut_slice()) else {
        let why = format!(
            "{}: one model step and one [train.*] entry for it are needed, it has {steps} and {entries}",
            pipeline.file.path().display(),
        );
        return Err(EvaluateError::Step(why));
    };
    Ok((step.name.value.clone(), entry))
}

/// Trains the model of `step` and keeps it nowhere.
pub(super) fn fit(
    pipeline: &Pipeline,
    step: &str,
    quiet: bool,
    bar: &ProgressBar,
) -> Result<TrainedModel, EvaluateError> {
    let Some(entry) = pipeline.train.iter().find(|t| t.step.value == step) else {
        let why = format!("no [train.*] entry makes the model of step `{step}`, so it cannot be trained here; add one");
        return Err(EvaluateError::Run(why));
    };
    bar.set_message("training");
    Ok(train::fit(pipeline, entry, CREATED, quiet)?)
}

/// Rows that no model saw.
#[derive(Debug)]
pub(super) struct Dead {
    pub rows: usize,
    /// Reason and detail of the first one.
    pub first: String,
}

/// Runs the pipeline with these models, and gives each verdict of `step`, with its lane, to `each`.
pub(super) fn judge(
    pipeline: &Pipeline,
    models: &Models,
    step: &str,
    options: HistoryOptions,
    bar: &ProgressBar,
    mut each: impl FnMut(VerdictRecord, i32) -> Result<(), EvaluateError>,
) -> Result<Option<Dead>, EvaluateError> {
    let plan = lang::plan(pipeline, models).map_err(wrong_pipeline)?;
    let mut history = History::open(plan, options)?;
    bar.set_message("judging");
    let mut dead: Option<Dead> = None;
    while let Some(piece) = history.next()? {
        let (done, all) = history.progress();
        bar.set_length(all);
        bar.set_position(done);
        for record in piece.output.verdicts {
            if *record.evidence.step == *step {
                each(record, piece.lane)?;
            }
        }
        for letter in piece.output.dead {
            let first = || Dead { rows: 0, first: format!("{}: {}", letter.reason.name(), letter.detail) };
            dead.get_or_insert_with(first).rows += 1;
        }
    }
    Ok(dead)
}

/// What a run gave.
pub(super) struct Run {
    pub verdicts: Verdicts,
    pub card: ModelCard,
    pub dead: Option<Dead>,
}

/// Trains the model of `step`, runs the pipeline with it and keeps all its verdicts.
pub(super) fn run(
    pipeline: &Pipeline,
    step: &str,
    options: HistoryOptions,
    quiet: bool,
    bar: &ProgressBar,
) -> Result<Run, EvaluateError> {
    let trained = fit(pipeline, step, quiet, bar)?;
    let models = Models::from([(step.to_owned(), trained.scorer.clone())]);
    let mut verdicts = Verdicts::default();
    (verdicts.lanes, verdicts.in_memory) = (vec![0], true);
    verdicts.models.insert(trained.hash);
    let dead = judge(pipeline, &models, step, options, bar, |record, lane| {
        verdicts.add(&record.evidence.device, record.verdict.window_end, Judged::of(&record, lane))
    })?;
    Ok(Run { verdicts, card: trained.card, dead })
}
