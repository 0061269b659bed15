//! A pipeline trained by its own `[train.*]` entry and run over a data set's files, in memory: the engine and the pipeline
//! file of production, without network, keys or stores.

use std::path::Path;
use std::sync::Arc;

use avouch_models::ModelCard;
use indicatif::ProgressBar;

use super::verdicts::{Judged, Verdicts};
use super::{EvaluateError, wrong_pipeline};
use crate::commands::train;
use crate::history::{History, HistoryOptions};
use crate::lang::{self, Models, Pipeline, ProcessEnvironment, SourceFile};

/// The card's time of creation: the clock has no part in an evaluation, so that the model's hash has none.
const CREATED: &str = "1970-01-01T00:00:00Z";

/// What a run gave.
pub(super) struct Run {
    pub verdicts: Verdicts,
    pub card: ModelCard,
    /// Rows that no model saw, and why the first one died.
    pub dead: Option<(usize, String)>,
}

/// The pipeline file given, or the one that comes with this program.
pub(super) fn pipeline(given: Option<&Path>, name: &str, text: &str) -> Result<Pipeline, EvaluateError> {
    match given {
        Some(path) => Pipeline::load_offline(path),
        None => Pipeline::read_offline(Arc::new(SourceFile::new(name, text)), &ProcessEnvironment),
    }
    .map_err(wrong_pipeline)
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

/// Trains the model of `step` and runs the pipeline with it.
pub(super) fn run(
    pipeline: &Pipeline,
    step: &str,
    options: HistoryOptions,
    quiet: bool,
    bar: &ProgressBar,
) -> Result<Run, EvaluateError> {
    let Some(entry) = pipeline.train.iter().find(|t| t.step.value == step) else {
        let why = format!("no [train.*] entry makes the model of step `{step}`, so it cannot be trained here; add one");
        return Err(EvaluateError::Run(why));
    };
    bar.set_message("training");
    let trained = train::fit(pipeline, entry, CREATED, quiet).map_err(|e| EvaluateError::Run(e.to_string()))?;
    let models = Models::from([(step.to_owned(), trained.scorer.clone())]);
    let plan = lang::plan(pipeline, &models).map_err(wrong_pipeline)?;
    let failed = |e: crate::history::HistoryError| EvaluateError::Run(e.to_string());
    let mut history = History::open(plan, options).map_err(failed)?;
    bar.set_message("running");
    let mut verdicts = Verdicts::default();
    (verdicts.lanes, verdicts.in_memory) = (vec![0], true);
    verdicts.models.insert(trained.hash);
    let mut dead = (0, String::new());
    while let Some(piece) = history.next().map_err(failed)? {
        let (done, all) = history.progress();
        bar.set_length(all);
        bar.set_position(done);
        for record in piece.output.verdicts.iter().filter(|r| *r.evidence.step == *step) {
            verdicts.add(&record.evidence.device, record.verdict.window_end, Judged::of(record, piece.lane))?;
        }
        if let (0, Some(letter)) = (dead.0, piece.output.dead.first()) {
            dead.1 = format!("{}: {}", letter.reason.name(), letter.detail);
        }
        dead.0 += piece.output.dead.len();
    }
    Ok(Run { verdicts, card: trained.card, dead: (dead.0 > 0).then_some(dead) })
}
