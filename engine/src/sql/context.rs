//! What a step's SQL may name: one table, and functions that give the same bits everywhere.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::{Arc, OnceLock};

use arrow::datatypes::{DataType, SchemaRef};
use datafusion::common::config::ConfigOptions;
use datafusion::common::{Result, TableReference, plan_err};
use datafusion::execution::SessionStateDefaults;
use datafusion::logical_expr::logical_plan::builder::LogicalTableSource;
use datafusion::logical_expr::planner::{ContextProvider, ExprPlanner};
use datafusion::logical_expr::{
    AggregateUDF, HigherOrderUDF, LogicalPlan, ScalarUDF, TableSource, Volatility, WindowUDF,
};
use datafusion::optimizer::Analyzer;
use datafusion::sql::parser::{DFParser, Statement};
use datafusion::sql::planner::{ParserOptions, SqlToRel};
use datafusion::sql::sqlparser::ast::{self, visit_expressions};

use super::aggregates::OVER_ALL_ROWS;
use super::{functions, memory, signal_functions};
use crate::ingest::arrow_schema;
use crate::reference::ReferenceSpec;

/// DataFusion's scalar functions that are exact or correctly rounded, so that every machine gives the same bits.
/// Transcendental ones are ours ([`functions::scalar`]), from one library.
const SCALARS: &[&str] = &[
    "abs",
    "arrow_cast",
    "ascii",
    "bit_length",
    "btrim",
    "ceil",
    "chr",
    "coalesce",
    "concat",
    "concat_ws",
    "contains",
    "date_bin",
    "date_part",
    "date_trunc",
    "ends_with",
    "floor",
    "from_unixtime",
    "gcd",
    "greatest",
    "isnan",
    "iszero",
    "lcm",
    "least",
    "lower",
    "ltrim",
    "nanvl",
    "nullif",
    "nvl",
    "nvl2",
    "octet_length",
    "pi",
    "repeat",
    "replace",
    "round",
    "rtrim",
    "signum",
    "split_part",
    "sqrt",
    "starts_with",
    "to_timestamp",
    "to_timestamp_millis",
    "to_timestamp_seconds",
    "trunc",
    "upper",
];

/// DataFusion's aggregates that windows compute.
const AGGREGATES: &[&str] = &[
    "avg",
    "bool_and",
    "bool_or",
    "corr",
    "count",
    "covar_pop",
    "covar_samp",
    "first_value",
    "last_value",
    "max",
    "min",
    "regr_avgx",
    "regr_avgy",
    "regr_count",
    "regr_intercept",
    "regr_r2",
    "regr_slope",
    "regr_sxx",
    "regr_sxy",
    "regr_syy",
    "stddev",
    "stddev_pop",
    "sum",
    "var",
    "var_pop",
];

struct Functions {
    scalars: BTreeMap<String, Arc<ScalarUDF>>,
    aggregates: BTreeMap<String, Arc<AggregateUDF>>,
    planners: Vec<Arc<dyn ExprPlanner>>,
}

fn functions_available() -> &'static Functions {
    static ALL: OnceLock<Functions> = OnceLock::new();
    ALL.get_or_init(|| {
        let mut scalars = BTreeMap::new();
        for f in SessionStateDefaults::default_scalar_functions() {
            if SCALARS.contains(&f.name()) && f.signature().volatility == Volatility::Immutable {
                for name in std::iter::once(f.name().to_owned()).chain(f.aliases().iter().cloned()) {
                    scalars.insert(name, f.clone());
                }
            }
        }
        for f in functions::scalar().into_iter().chain(memory::placeholders()) {
            scalars.insert(f.name().to_owned(), Arc::new(f));
        }
        let mut aggregates = BTreeMap::new();
        for f in SessionStateDefaults::default_aggregate_functions() {
            if AGGREGATES.contains(&f.name()) || OVER_ALL_ROWS.contains(&f.name()) {
                for name in std::iter::once(f.name().to_owned()).chain(f.aliases().iter().cloned()) {
                    aggregates.insert(name, f.clone());
                }
            }
        }
        for f in functions::aggregate().into_iter().chain(signal_functions::aggregates()) {
            aggregates.insert(f.name().to_owned(), Arc::new(f));
        }
        Functions { scalars, aggregates, planners: SessionStateDefaults::default_expr_planners() }
    })
}

/// Avouch's own functions, to be registered with a DataFusion session: scalar functions in `libm`'s bits, and statistics
/// of machines and signals. Those that depend on order (`zero_crossings`, `ewma`) take rows as the query gives them.
pub fn functions() -> (Vec<ScalarUDF>, Vec<AggregateUDF>) {
    (functions::scalar(), functions::aggregate().into_iter().chain(signal_functions::aggregates()).collect())
}

struct Tables<'a> {
    name: String,
    source: Arc<dyn TableSource>,
    references: &'a [ReferenceSpec],
    /// Whether row functions are possible.
    remembers: bool,
    options: ConfigOptions,
}

impl ContextProvider for Tables<'_> {
    fn get_table_source(&self, name: TableReference) -> Result<Arc<dyn TableSource>> {
        if name.table() == self.name && name.schema().is_none() {
            return Ok(self.source.clone());
        }
        if let Some(r) = self.references.iter().find(|r| r.name == name.table() && name.schema().is_none()) {
            return Ok(Arc::new(LogicalTableSource::new(arrow_schema(&r.fields))));
        }
        let joined: Vec<&str> = self.references.iter().map(|r| r.name.as_str()).collect();
        let joined = match joined.as_slice() {
            [] => String::new(),
            names => format!(", and {} can be joined", names.join(", ")),
        };
        plan_err!("table \"{name}\" is not this step's input; FROM {} is{joined}", self.name)
    }
    fn get_expr_planners(&self) -> &[Arc<dyn ExprPlanner>] {
        &functions_available().planners
    }
    fn get_function_meta(&self, name: &str) -> Option<Arc<ScalarUDF>> {
        // Over a window, `ewma` is an aggregate.
        if name == "ewma" && !self.remembers {
            return None;
        }
        functions_available().scalars.get(name).cloned()
    }
    fn get_higher_order_meta(&self, _name: &str) -> Option<Arc<HigherOrderUDF>> {
        None
    }
    fn get_aggregate_meta(&self, name: &str) -> Option<Arc<AggregateUDF>> {
        functions_available().aggregates.get(name).cloned()
    }
    fn get_window_meta(&self, _name: &str) -> Option<Arc<WindowUDF>> {
        None
    }
    fn get_variable_type(&self, _variable_names: &[String]) -> Option<DataType> {
        None
    }
    fn options(&self) -> &ConfigOptions {
        &self.options
    }
    fn udf_names(&self) -> Vec<String> {
        functions_available().scalars.keys().cloned().collect()
    }
    fn higher_order_function_names(&self) -> Vec<String> {
        Vec::new()
    }
    fn udaf_names(&self) -> Vec<String> {
        functions_available().aggregates.keys().cloned().collect()
    }
    fn udwf_names(&self) -> Vec<String> {
        Vec::new()
    }
}

/// Plans one query over one table and coerces its types. Pure: no catalogue, no session, no files.
pub(super) fn plan(sql: &str, table: &str, schema: SchemaRef) -> Result<LogicalPlan> {
    plan_in(sql, table, schema, &[], false)
}

/// [`plan`], with row functions, and reference tables that can be joined.
pub(super) fn plan_with(
    sql: &str,
    table: &str,
    schema: SchemaRef,
    references: &[ReferenceSpec],
) -> Result<LogicalPlan> {
    plan_in(sql, table, schema, references, true)
}

fn plan_in(
    sql: &str,
    table: &str,
    schema: SchemaRef,
    references: &[ReferenceSpec],
    remembers: bool,
) -> Result<LogicalPlan> {
    let mut statements = DFParser::parse_sql(sql)?;
    let statement = match (statements.pop_front(), statements.is_empty()) {
        (Some(s @ Statement::Statement(_)), true) => s,
        (None, _) => return plan_err!("there is no query here; write SELECT … FROM {table}"),
        _ => return plan_err!("a step is exactly one SELECT"),
    };
    if let Statement::Statement(query) = &statement {
        let over = visit_expressions(query.as_ref(), |e| match e {
            ast::Expr::Function(f) if f.over.is_some() => ControlFlow::Break(f.name.to_string()),
            _ => ControlFlow::Continue(()),
        });
        match over {
            ControlFlow::Break(name) if memory::NAMES.contains(&name.to_ascii_lowercase().as_str()) => {
                return plan_err!(
                    "{name} goes over the rows of the device in the order they came; write it without OVER (…)"
                );
            }
            ControlFlow::Break(name) => return plan_err!("{name}(…) OVER (…) is not possible in a step"),
            ControlFlow::Continue(()) => {}
        }
    }
    let provider = Tables {
        name: table.to_owned(),
        source: Arc::new(LogicalTableSource::new(schema)),
        references,
        remembers,
        options: ConfigOptions::new(),
    };
    // Text is Utf8 in our batches; Utf8View literals would need casts at every comparison.
    let options = ParserOptions { map_string_types_to_utf8view: false, ..ParserOptions::default() };
    let plan = SqlToRel::new_with_options(&provider, options).statement_to_plan(statement)?;
    Analyzer::new().execute_and_check(plan, &provider.options, |_, _| {})
}
