//! SQL of `[[tests]]`: its tables, and planning it, with or without rows.
//!
//! | table | rows | columns |
//! | --- | --- | --- |
//! | `readings`, and the source's own name | admitted readings | the schema's fields |
//! | a SQL step's name | what it gave | those of its SELECT; of a windowed step also `window_start`, `window_end` |
//! | `verdicts` | verdicts | those of [`crate::verdict_table`], with each feature by its name |
//! | `dead_letters` | rows that died | `reason`, `detail`, `key`, `value` (text); `lane`, `offset`, `row` (integers); `timestamp` |
//!
//! A step that is called `verdicts` or `dead_letters` is not seen under that name. All of DataFusion's SQL is possible, and Avouch's
//! functions; what depends on the clock or on chance is not.

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use avouch_engine::ingest::arrow_schema;
use avouch_engine::plan::LanePlan;
use avouch_engine::sql::registered_functions;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::datasource::MemTable;
use datafusion::error::DataFusionError;
use datafusion::logical_expr::LogicalPlan;
use datafusion::prelude::{SQLOptions, SessionConfig, SessionContext};

use super::diagnostics::Diagnostics;
use super::fields::{closest, list};
use super::pipeline::Pipeline;
use super::planning::{advice, locate};
use super::span::Spanned;
use crate::verdict_table::condition_schema;

/// DataFusion's functions that give another answer each time.
const NOT_THE_SAME: [&str; 5] = ["now", "current_date", "current_time", "random", "uuid"];

/// A table of assertions.
#[derive(Debug, Clone)]
pub struct TestTable {
    /// Its columns; each may be null.
    pub schema: SchemaRef,
    /// Its rows.
    pub batches: Vec<RecordBatch>,
}

fn time() -> DataType {
    DataType::Timestamp(TimeUnit::Millisecond, Some("+00:00".into()))
}

/// The tables of a pipeline by name, without rows.
pub fn test_tables(pipeline: &Pipeline, plan: &LanePlan) -> BTreeMap<String, TestTable> {
    let mut tables = BTreeMap::new();
    let mut add = |name: &str, fields: Vec<Field>| {
        let fields: Vec<Field> = fields.into_iter().map(|f| f.with_nullable(true)).collect();
        tables.insert(name.to_owned(), TestTable { schema: Arc::new(Schema::new(fields)), batches: Vec::new() });
    };
    let fields = |schema: &SchemaRef| schema.fields().iter().map(|f| f.as_ref().clone()).collect::<Vec<_>>();
    let readings = fields(&arrow_schema(&plan.source.fields));
    add("readings", readings.clone());
    for step in &plan.rows {
        add(&step.name, fields(step.query.schema()));
    }
    for step in &plan.windows {
        let mut of_window = fields(step.query.schema());
        for name in ["window_start", "window_end"] {
            if of_window.iter().all(|f| f.name() != name) {
                of_window.push(Field::new(name, time(), true));
            }
        }
        add(&step.name, of_window);
    }
    // After the steps: where a step has the source's name, `check` has refused it.
    add(&plan.source.name, readings);
    let steps: Vec<Spanned<String>> = pipeline.model_steps.iter().map(|s| s.name.clone()).collect();
    add("verdicts", fields(&condition_schema(&pipeline.features_of(&steps))));
    let text = |name| Field::new(name, DataType::Utf8, true);
    let int = |name| Field::new(name, DataType::Int64, true);
    let dead = vec![
        text("reason"),
        text("detail"),
        text("key"),
        text("value"),
        int("lane"),
        int("offset"),
        int("row"),
        Field::new("timestamp", time(), true),
    ];
    add("dead_letters", dead);
    tables
}

/// A session in which these tables can be asked. One thread, rows in order, no files.
///
/// # Errors
/// When a batch does not have its table's columns.
pub fn assertion_session(tables: &BTreeMap<String, TestTable>) -> Result<SessionContext, String> {
    let mut config = SessionConfig::new().with_target_partitions(1);
    config.options_mut().sql_parser.map_string_types_to_utf8view = false;
    let session = SessionContext::new_with_config(config);
    let (scalars, aggregates) = registered_functions();
    scalars.into_iter().for_each(|f| session.register_udf(f));
    aggregates.into_iter().for_each(|f| session.register_udaf(f));
    NOT_THE_SAME.iter().for_each(|f| session.deregister_udf(f));
    for (name, table) in tables {
        let table = MemTable::try_new(table.schema.clone(), vec![table.batches.clone()]).map_err(|e| said(&e))?;
        session.register_table(name.as_str(), Arc::new(table)).map_err(|e| said(&e))?;
    }
    Ok(session)
}

/// Plans one assertion, and checks that what it gives is one boolean.
///
/// # Errors
/// What is wrong with it, for its author.
pub fn assertion_plan(session: &SessionContext, sql: &str) -> Result<LogicalPlan, String> {
    let state = session.state();
    let dialect = state.config().options().sql_parser.dialect;
    let statement = state.sql_to_statement(sql, &dialect).map_err(|e| said(&e))?;
    let plan = at_once(state.statement_to_plan(statement)).map_err(|e| said(&e))?;
    let options = SQLOptions::new().with_allow_ddl(false).with_allow_dml(false).with_allow_statements(false);
    options.verify_plan(&plan).map_err(|_| "an assertion is one SELECT".to_owned())?;
    let plan = state.optimize(&plan).map_err(|e| said(&e))?;
    let fields = plan.schema().fields();
    match fields.iter().map(|f| f.data_type()).collect::<Vec<_>>().as_slice() {
        [DataType::Boolean] => Ok(plan),
        [other] => {
            Err(format!("an assertion gives one boolean, this one gives {other}; compare it with what it should be"))
        }
        many => Err(format!("an assertion gives one boolean, this one gives {} columns", many.len())),
    }
}

/// Whether a plan reads the table of verdicts, for which models must be there.
pub fn uses_verdicts(plan: &LogicalPlan) -> bool {
    let mut found = false;
    // The visitor fails nowhere, so neither does the visit.
    let _ = plan.apply_with_subqueries(|node| {
        if let LogicalPlan::TableScan(scan) = node {
            found |= scan.table_name.table() == "verdicts";
        }
        Ok(TreeNodeRecursion::Continue)
    });
    found
}

/// Plans every assertion of the file.
pub(super) fn check(pipeline: &Pipeline, plan: &LanePlan, diags: &mut Diagnostics) {
    if pipeline.tests.iter().all(|t| t.assertions.is_empty()) {
        return;
    }
    let tables = test_tables(pipeline, plan);
    let session = match assertion_session(&tables) {
        Ok(session) => session,
        Err(why) => {
            diags.error("sql", pipeline.name.span, why, "rename the step whose columns cannot be a table");
            return;
        }
    };
    for test in &pipeline.tests {
        for sql in &test.assertions {
            let Err(message) = assertion_plan(&session, &sql.value) else { continue };
            let at = locate(pipeline, sql, &message);
            let changes = NOT_THE_SAME.iter().find(|f| message.contains(&format!("Invalid function '{f}'")));
            let (message, help) = match (changes, unknown_table(&message)) {
                (Some(function), _) => (
                    format!("`{function}` gives another answer each time"),
                    "write the value itself: a test is the same on every day".to_owned(),
                ),
                (None, Some(wrong)) => {
                    let names: Vec<&str> = tables.keys().map(String::as_str).collect();
                    let help = match closest(wrong, names.iter().copied()) {
                        Some(near) => format!("did you mean `{near}`?"),
                        None => format!("the tables of a test are {}", list(&names)),
                    };
                    (format!("there is no table `{wrong}`"), help)
                }
                (None, None) => {
                    let (said, help) = advice(&message, "verdicts");
                    let general = help.starts_with("correct the SQL");
                    let own =
                        "correct the SQL; README.md of the pipelines lists the tables of a test and their columns";
                    (said, if general { own.to_owned() } else { help })
                }
            };
            diags.error("sql", at, format!("assertion of the test `{}`: {message}", test.name.value), help);
        }
    }
}

/// `table 'datafusion.public.verdict' not found`: the name.
fn unknown_table(message: &str) -> Option<&str> {
    message.split_once("table 'datafusion.public.")?.1.split_once("' not found").map(|(name, _)| name)
}

/// The result of a future that waits for nothing: planning over tables in memory.
fn at_once<T>(future: impl Future<Output = Result<T, DataFusionError>>) -> Result<T, DataFusionError> {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(result) => result,
        Poll::Pending => Err(DataFusionError::Plan("this SQL cannot be planned over tables in memory".into())),
    }
}

/// The part of a planner's error that an author can use.
fn said(e: &DataFusionError) -> String {
    match e {
        DataFusionError::Diagnostic(_, inner) | DataFusionError::Context(_, inner) => said(inner),
        DataFusionError::Collection(all) => all.iter().map(said).collect::<Vec<_>>().join("; "),
        other => other.strip_backtrace().trim_start_matches("Error during planning: ").to_owned(),
    }
}
