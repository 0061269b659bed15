//! One test: run, then held against what it expects.

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::util::pretty::pretty_format_batches;
use avouch_connectors::files::FilesError;
use avouch_engine::dead_letter::DeadReason;
use avouch_engine::plan::LanePlan;
use avouch_engine::verdict::VerdictRecord;
use datafusion::logical_expr::LogicalPlan;
use datafusion::prelude::SessionContext;

use super::gathered::{Gathered, gather};
use super::golden::{GoldenError, GoldenFile};
use crate::history::HistoryError;
use crate::lang::{
    self, DeadClass, Diagnostics, Models, Pipeline, PipelineTest, Spanned, assertion_plan, assertion_session, plural,
    test_tables, uses_verdicts, with_early,
};

/// How many rows of a failed assertion are shown.
const SHOWN: usize = 20;

/// Why a test failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// A word for machines: `input`, `model`, `verdicts`, `golden`, `late`, `dead_letters`, `assert` or `lane`.
    pub kind: &'static str,
    /// In one line.
    pub message: String,
    /// More lines, for a person.
    pub detail: Vec<String>,
}

impl Failure {
    fn new(kind: &'static str, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), detail: Vec::new() }
    }
}

/// What became of a test.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct TestOutcome {
    /// Its name.
    pub name: String,
    /// Why it failed; empty if it passed.
    pub failures: Vec<Failure>,
    /// What else a reader should know.
    pub notes: Vec<String>,
    /// What it ran over and gave: rows, verdicts.
    pub counts: Option<(u64, u64)>,
    /// What `--update` did to its golden file.
    pub updated: Option<String>,
    /// How long it took, if that was measured.
    pub seconds: Option<f64>,
}

/// A pipeline whose tests can be run.
pub struct Tester<'p> {
    pipeline: &'p Pipeline,
    models: Models,
    /// What is said of the models that are not there, if any are not.
    missing: Option<(Vec<String>, Diagnostics)>,
    /// Planned without rows, to see what an assertion reads.
    session: SessionContext,
}

impl<'p> Tester<'p> {
    /// Loads the models there are and plans the assertions.
    ///
    /// # Errors
    /// Everything that `avouch check` calls an error, but a model that is not there.
    pub fn new(pipeline: &'p Pipeline) -> Result<Self, Diagnostics> {
        let (models, missing) = lang::load_models_there(pipeline)?;
        let found = lang::check(pipeline);
        let errors = found.errors_without("missing-file");
        if errors.has_errors() {
            return Err(errors);
        }
        let absent: Vec<String> = pipeline
            .model_steps
            .iter()
            .filter(|s| !models.contains_key(&s.name.value))
            .map(|s| s.name.value.clone())
            .collect();
        let plan = lang::plan(pipeline, &models)?;
        let session = assertion_session(&test_tables(pipeline, &plan))
            .map_err(|why| pipeline.error_at("sql", pipeline.name.span, why, "rename the step"))?;
        let missing = (!absent.is_empty()).then_some((absent, missing));
        Ok(Self { pipeline, models, missing, session })
    }

    fn plan(&self) -> Result<LanePlan, Failure> {
        let plan = lang::plan(self.pipeline, &self.models).map_err(|d| Failure::new("lane", d.render_text(false)))?;
        with_early(self.pipeline, plan).map_err(|e| Failure::new("lane", e.to_string()))
    }

    fn needs_verdicts(&self, test: &PipelineTest) -> bool {
        let reads = |sql: &Spanned<String>| assertion_plan(&self.session, &sql.value).is_ok_and(|p| uses_verdicts(&p));
        test.expect.verdicts.is_some() || test.assertions.iter().any(reads)
    }

    /// Runs one test. With `update` its golden file becomes what was given.
    pub async fn run(&self, test: &PipelineTest, update: bool) -> TestOutcome {
        let mut outcome = TestOutcome { name: test.name.value.clone(), ..TestOutcome::default() };
        if let Err(failure) = self.judge(test, update, &mut outcome).await {
            outcome.failures.push(failure);
        }
        outcome
    }

    async fn judge(&self, test: &PipelineTest, update: bool, outcome: &mut TestOutcome) -> Result<(), Failure> {
        if let Some((steps, said)) = &self.missing {
            let named = steps.join(", ");
            if self.needs_verdicts(test) {
                let mut failure = Failure::new("model", format!("it is about verdicts, but {named} has no model yet"));
                failure.detail = said.render_text(false).trim_end().lines().map(str::to_owned).collect();
                return Err(failure);
            }
            outcome.notes.push(format!("{named} has no model yet and was left out"));
        }
        let plan = self.plan()?;
        let gathered = gather(self.pipeline, plan, test).map_err(|e| Failure::new("input", self.unread(&e)))?;
        let verdicts: Vec<&VerdictRecord> = gathered.verdicts.iter().map(|(_, v)| v).collect();
        outcome.counts = Some((gathered.counters.rows_in, verdicts.len() as u64));
        if let Some(silence) = &test.silence_ms
            && self.pipeline.source.time.idle_after_ms.is_none_or(|after| silence.value < after)
        {
            outcome
                .notes
                .push("`silence` is not as long as the source's `time.idle_after`, so time stands still".into());
        }
        if gathered.counters.rows_in == 0 {
            outcome.notes.push("the input has no rows".into());
        }
        self.verdicts(test, &verdicts, update, outcome);
        counts(test, &gathered, outcome);
        let misses = |f: &Failure| f.kind == "verdicts" && f.detail.iter().any(|line| line.starts_with("- "));
        if gathered.open && outcome.failures.iter().any(misses) {
            outcome.notes.push("some windows were still open at the end of the input and gave nothing".into());
        }
        if !test.assertions.is_empty() {
            self.assertions(test, &gathered, outcome).await?;
        }
        Ok(())
    }

    fn verdicts(&self, test: &PipelineTest, verdicts: &[&VerdictRecord], update: bool, outcome: &mut TestOutcome) {
        let Some(golden) = &test.expect.verdicts else { return };
        let file = GoldenFile { shown: &golden.text, path: &golden.path };
        let compared = file.compare(verdicts);
        let what = match (&compared, update) {
            (Ok(diff), _) if diff.is_empty() => return,
            (Ok(diff), true) => diff.counts(),
            (Err(GoldenError::Missing { .. }), true) => format!("new, {}", plural(verdicts.len(), "verdict")),
            (Err(GoldenError::Line { .. }), true) => format!("written anew, {}", plural(verdicts.len(), "verdict")),
            (Ok(diff), false) => {
                outcome.failures.push(Failure {
                    kind: "verdicts",
                    message: format!("verdicts are not those of {}: {}", golden.text, diff.counts()),
                    detail: diff.lines(),
                });
                return;
            }
            (Err(e), _) => {
                outcome.failures.push(Failure::new("golden", e.to_string()));
                return;
            }
        };
        match file.write(verdicts) {
            Ok(()) => outcome.updated = Some(format!("{}: {what}", golden.text)),
            Err(e) => outcome.failures.push(Failure::new("golden", e.to_string())),
        }
    }

    async fn assertions(
        &self,
        test: &PipelineTest,
        gathered: &Gathered,
        outcome: &mut TestOutcome,
    ) -> Result<(), Failure> {
        let plan = self.plan()?;
        let tables =
            gathered.tables(self.pipeline, &plan).map_err(|e| Failure::new("lane", format!("the rows: {e}")))?;
        let session = assertion_session(&tables).map_err(|e| Failure::new("lane", e))?;
        for sql in &test.assertions {
            let asked = match assertion_plan(&session, &sql.value) {
                Ok(plan) => ask(&session, plan).await,
                Err(e) => Err(e),
            };
            let why = match &asked {
                Ok(batches) if holds(batches) => continue,
                Ok(batches) => shown_rows(batches),
                Err(e) => vec![format!("it could not be computed: {e}")],
            };
            let (line, column) = self.pipeline.file.line_col(sql.span.start);
            let file = self.pipeline.file.path().file_name().map(|n| n.to_string_lossy()).unwrap_or_default();
            let mut failure = Failure::new("assert", format!("an assertion does not hold ({file}:{line}:{column})"));
            failure.detail.extend(unindented(&sql.value));
            failure.detail.push(String::new());
            failure.detail.extend(why);
            outcome.failures.push(failure);
        }
        Ok(())
    }

    /// Why the input could not be run over, with paths as a reader of the pipeline file knows them.
    fn unread(&self, e: &HistoryError) -> String {
        let message = match e {
            HistoryError::Files(FilesError::NoMatch { pattern }) => {
                format!("no file matches `{pattern}`; check the path, which starts at the pipeline file's directory")
            }
            other => other.to_string(),
        };
        match self.pipeline.file.dir().to_str() {
            Some(dir) if !dir.is_empty() => message.replace(&format!("{dir}/"), ""),
            _ => message,
        }
    }
}

async fn ask(session: &SessionContext, plan: LogicalPlan) -> Result<Vec<RecordBatch>, String> {
    let rows = async { session.execute_logical_plan(plan).await?.collect().await };
    rows.await.map_err(|e: datafusion::error::DataFusionError| e.strip_backtrace())
}

/// One row with one true boolean.
fn holds(batches: &[RecordBatch]) -> bool {
    let mut rows = batches.iter().filter(|b| b.num_rows() > 0);
    match (rows.next(), rows.next()) {
        (Some(one), None) if one.num_rows() == 1 && one.num_columns() == 1 => {
            one.column(0).as_boolean_opt().is_some_and(|a| a.is_valid(0) && a.value(0))
        }
        _ => false,
    }
}

fn shown_rows(batches: &[RecordBatch]) -> Vec<String> {
    let all: usize = batches.iter().map(RecordBatch::num_rows).sum();
    if all == 0 {
        return vec!["gave no row".into()];
    }
    let mut left = SHOWN;
    let mut some = Vec::new();
    for batch in batches {
        let n = batch.num_rows().min(left);
        some.push(batch.slice(0, n));
        left -= n;
    }
    let mut lines = vec!["gave".to_owned()];
    match pretty_format_batches(&some) {
        Ok(table) => lines.extend(table.to_string().lines().map(str::to_owned)),
        Err(e) => lines.push(e.to_string()),
    }
    if all > SHOWN {
        lines.push(format!("… and {}", plural(all - SHOWN, "more row")));
    }
    lines
}

/// The lines of a SQL text without what it is indented by in the file.
fn unindented(sql: &str) -> Vec<String> {
    let lines: Vec<&str> = sql.lines().map(str::trim_end).skip_while(|l| l.is_empty()).collect();
    let indent = lines.iter().filter(|l| !l.is_empty()).map(|l| l.len() - l.trim_start().len()).min().unwrap_or(0);
    let end = lines.iter().rposition(|l| !l.is_empty()).map_or(0, |i| i + 1);
    lines[..end].iter().map(|l| l.get(indent..).unwrap_or_default().to_owned()).collect()
}

/// Late rows and dead letters against what is expected.
fn counts(test: &PipelineTest, gathered: &Gathered, outcome: &mut TestOutcome) {
    let of = |class: DeadClass| -> i64 {
        let counted = DeadReason::ALL.into_iter().filter(|r| class.counts(*r));
        counted.map(|r| gathered.counters.dead[r.index()] as i64).sum()
    };
    let late = DeadClass::Reason(DeadReason::Late);
    let examples = |class: DeadClass| -> Vec<String> {
        let some = gathered.dead.iter().filter(|(_, d)| class.counts(d.reason));
        let line = |(lane, d): &(i32, avouch_engine::dead_letter::DeadLetter)| {
            let lane = if test.lanes > 1 { format!("lane {lane}, ") } else { String::new() };
            format!("{}: {} ({lane}row {})", d.reason.name(), d.detail, d.offset)
        };
        let mut lines: Vec<String> = some.clone().take(3).map(line).collect();
        let n = some.count();
        if n > 3 {
            lines.push(format!("… and {} more", n - 3));
        }
        lines
    };
    if let Some(expected) = &test.expect.late
        && of(late) != expected.value
    {
        outcome.failures.push(Failure {
            kind: "late",
            message: format!("{} late, not {}", plural(of(late) as usize, "row"), expected.value),
            detail: examples(late),
        });
    }
    let Some(expected) = &test.expect.dead_letters else { return };
    let mut named: Vec<(DeadClass, i64)> = expected.value.iter().map(|(class, n)| (*class, n.value)).collect();
    for reason in DeadReason::ALL {
        let said_of = named.iter().any(|(class, _)| class.counts(reason));
        if !said_of && (reason != DeadReason::Late || test.expect.late.is_none()) {
            named.push((DeadClass::Reason(reason), 0));
        }
    }
    for (class, expected) in named {
        if of(class) != expected {
            outcome.failures.push(Failure {
                kind: "dead_letters",
                message: format!(
                    "{} called `{}`, not {expected}",
                    plural(of(class) as usize, "dead letter"),
                    class.name()
                ),
                detail: examples(class),
            });
        }
    }
}
