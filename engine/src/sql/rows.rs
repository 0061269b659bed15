//! Filters and projections over rows, compiled once.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, RecordBatch, RecordBatchOptions};
use arrow::compute::{concat_batches, filter_record_batch};
use arrow::datatypes::{Field, Schema, SchemaRef};
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, DFSchema, Result, exec_err, plan_err};
use datafusion::execution::context::ExecutionProps;
use datafusion::logical_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion::logical_expr::simplify::{ExprSimplifyResult, SimplifyContext};
use datafusion::logical_expr::{Expr, ExprSchemable, LogicalPlan};
use datafusion::physical_expr::{PhysicalExpr, create_physical_expr};

use super::join::Lookup;
use super::memory::{self, Call, Memory, RowPlaces};
use super::{context, message};
use crate::reference::{Reference, ReferenceSpec};

/// Rows of a step, and which source row each comes from.
#[derive(Debug, Clone)]
pub struct Selection {
    /// The columns.
    pub batch: RecordBatch,
    /// For each row the index of its source row, increasing.
    pub rows: Vec<u32>,
}

#[derive(Debug, Clone)]
pub(super) enum Stage {
    Filter(Arc<dyn PhysicalExpr>),
    Project(Vec<Arc<dyn PhysicalExpr>>, SchemaRef),
    /// Row functions: from this site on, a column each; and the columns with them.
    Remember(usize, Vec<Call>, SchemaRef),
    Join(Lookup),
}

/// What a step's rows meet besides their own columns.
#[derive(Debug)]
pub struct Surroundings<'a> {
    /// What the step remembers.
    pub memory: &'a mut Memory,
    /// Whose rows these are and when they were, by source row.
    pub at: RowPlaces<'a>,
    /// The reference tables, in the order of the plan.
    pub references: &'a [Option<Arc<Reference>>],
}

/// A query without aggregation: the filters and projections of its plan, innermost first.
#[derive(Debug, Clone)]
pub struct RowPipeline {
    pub(super) stages: Vec<Stage>,
    schema: SchemaRef,
    /// For each output column the input column it is a plain copy of.
    lineage: Vec<Option<usize>>,
    /// The references that can be joined, where row functions and joins are possible.
    references: Option<Arc<[ReferenceSpec]>>,
    sites: usize,
}

pub(super) fn compile_expr(e: &Expr, schema: &DFSchema) -> Result<Arc<dyn PhysicalExpr>> {
    let mut remembers = None;
    e.apply(|e| {
        remembers = remembers.take().or_else(|| memory::is_call(e).map(|f| f.func.name().to_owned()));
        Ok(TreeNodeRecursion::Continue)
    })?;
    if let Some(name) = remembers {
        return plan_err!(
            "{name}(…) remembers rows, which is possible only in the SELECT list of a step without a window; compute it there, and use its column in the next step or around a sub-select"
        );
    }
    let e = spelt_out(e, schema)?;
    create_physical_expr(&e, schema, &ExecutionProps::new(), &PhysicalPlanningContext::default())
}

/// DataFusion's functions that never run as such: its optimizer, which a step does not go through, puts CASE or CAST in
/// their place.
const SPELT_OUT: [&str; 4] = ["arrow_cast", "coalesce", "nvl", "nvl2"];

fn spelt_out(e: &Expr, schema: &DFSchema) -> Result<Expr> {
    let out = e.clone().transform_up(|e| {
        let Expr::ScalarFunction(f) = &e else { return Ok(Transformed::no(e)) };
        if !SPELT_OUT.contains(&f.func.name()) {
            return Ok(Transformed::no(e));
        }
        let context = SimplifyContext::builder().with_schema(Arc::new(schema.clone())).build();
        Ok(match f.func.simplify(f.args.clone(), &context)? {
            ExprSimplifyResult::Simplified(simple) => Transformed::yes(simple),
            ExprSimplifyResult::Original(_) => Transformed::no(e),
        })
    })?;
    Ok(out.data)
}

fn plain_column(e: &Expr) -> Option<&Column> {
    match e {
        Expr::Column(c) => Some(c),
        Expr::Alias(a) => plain_column(&a.expr),
        _ => None,
    }
}

impl RowPipeline {
    /// Plans `sql` over a table `table` with these columns; it may join reference tables and use row functions.
    pub fn plan(sql: &str, table: &str, schema: SchemaRef, references: &[ReferenceSpec]) -> Result<Self> {
        let plan = context::plan_with(sql, table, schema.clone(), references)?;
        let references = references.iter().filter(|r| r.name != table).cloned().collect();
        Self::compile_from(&plan, Self { references: Some(references), ..Self::identity(schema) })
    }

    /// Plans `sql` over a table that is no lane's: without row functions and joins, which need one.
    pub(super) fn plan_alone(sql: &str, table: &str, schema: SchemaRef) -> Result<Self> {
        let plan = context::plan(sql, table, schema.clone())?;
        Self::compile(&plan, schema)
    }

    /// Compiles the filters and projections of a plan whose leaf is a table with this schema.
    pub(super) fn compile(plan: &LogicalPlan, input: SchemaRef) -> Result<Self> {
        Self::compile_from(plan, Self::identity(input))
    }

    fn compile_from(plan: &LogicalPlan, input: Self) -> Result<Self> {
        match plan {
            LogicalPlan::EmptyRelation(_) => plan_err!("the query reads no table"),
            LogicalPlan::TableScan(scan) => {
                let references = input.references.as_deref().unwrap_or_default();
                if references.iter().any(|r| r.name == scan.table_name.table()) {
                    return plan_err!(
                        "a reference table is joined to readings: FROM readings LEFT JOIN {} …",
                        scan.table_name
                    );
                }
                Ok(input)
            }
            LogicalPlan::SubqueryAlias(alias) => Self::compile_from(&alias.input, input),
            LogicalPlan::Join(join) if input.references.is_some() => {
                let mut left = Self::compile_from(&join.left, input)?;
                let lookup = Lookup::plan(join, left.references.as_deref().unwrap_or_default())?;
                left.lineage.resize(join.schema.fields().len(), None);
                if let Some((key, same)) = lookup.key_from() {
                    left.lineage[key] = left.lineage[same];
                }
                left.schema = lookup.schema().clone();
                left.stages.push(Stage::Join(lookup));
                Ok(left)
            }
            LogicalPlan::Filter(f) => {
                let mut below = Self::compile_from(&f.input, input)?;
                below.stages.push(Stage::Filter(compile_expr(&f.predicate, f.input.schema())?));
                Ok(below)
            }
            LogicalPlan::Projection(p) => {
                let mut below = Self::compile_from(&p.input, input)?;
                below.project(&p.expr, p.input.schema(), &p.schema)?;
                Ok(below)
            }
            other => plan_err!(
                "{} is not possible in a step without a window; such a step maps and filters rows (SELECT … FROM … WHERE …)",
                operator_name(other)
            ),
        }
    }

    /// An empty pipeline over these columns, to which stages are added.
    pub(super) fn identity(schema: SchemaRef) -> Self {
        let lineage = (0..schema.fields().len()).map(Some).collect();
        Self { stages: Vec::new(), schema, lineage, references: None, sites: 0 }
    }

    pub(super) fn filter(&mut self, predicate: &Expr, input: &DFSchema) -> Result<()> {
        self.stages.push(Stage::Filter(compile_expr(predicate, input)?));
        Ok(())
    }

    pub(super) fn project(&mut self, exprs: &[Expr], input: &DFSchema, output: &DFSchema) -> Result<()> {
        let compiled = match self.references {
            Some(_) => self.remember(exprs, input)?,
            None => exprs.iter().map(|e| compile_expr(e, input)).collect::<Result<Vec<_>>>()?,
        };
        let mut lineage = Vec::with_capacity(exprs.len());
        for e in exprs {
            let from = plain_column(e).and_then(|c| input.maybe_index_of_column(c));
            lineage.push(from.and_then(|i| self.lineage[i]));
        }
        // A step's columns are plain names for the steps after it, whatever they were qualified with here.
        let fields: Vec<_> = output.as_arrow().fields().iter().cloned().collect();
        let schema: SchemaRef = Arc::new(Schema::new(fields));
        for (i, f) in schema.fields().iter().enumerate() {
            if schema.fields()[..i].iter().any(|g| g.name() == f.name()) {
                return plan_err!("two columns are named \"{}\"; give one another name with AS", f.name());
            }
        }
        let is_identity = self.schema == schema && lineage.iter().enumerate().all(|(i, l)| *l == self.lineage[i]);
        if !is_identity {
            self.stages.push(Stage::Project(compiled, schema.clone()));
        }
        self.schema = schema;
        self.lineage = lineage;
        Ok(())
    }

    /// Compiles expressions of a SELECT list; row functions in them become a stage of their own before it.
    fn remember(&mut self, exprs: &[Expr], input: &DFSchema) -> Result<Vec<Arc<dyn PhysicalExpr>>> {
        let mut seen: Vec<Expr> = Vec::new();
        let mut calls: Vec<Call> = Vec::new();
        let mut schema = input.clone();
        let mut rewritten = Vec::with_capacity(exprs.len());
        for e in exprs {
            // Inner calls first: an outer one may read the column of an inner one, and equal calls are one.
            let out = e.clone().transform_up(|e| {
                let Some(call) = memory::is_call(&e) else { return Ok(Transformed::no(e)) };
                let n = match seen.iter().position(|s| *s == e) {
                    Some(n) => n,
                    None => {
                        let ty = call.args[0].get_type(&schema)?;
                        calls.push(Call::new(call, compile_expr(&call.args[0], &schema)?, ty)?);
                        let field = Field::new(hidden(seen.len()), e.get_type(&schema)?, true);
                        let more = DFSchema::from_unqualified_fields(vec![field].into(), Default::default())?;
                        schema = schema.join(&more)?;
                        seen.push(e);
                        seen.len() - 1
                    }
                };
                Ok(Transformed::yes(Expr::Column(Column::new_unqualified(hidden(n)))))
            })?;
            rewritten.push(out.data);
        }
        if !calls.is_empty() {
            let fields: Vec<_> = schema.as_arrow().fields().iter().cloned().collect();
            let first = self.sites;
            self.sites += calls.len();
            self.stages.push(Stage::Remember(first, calls, Arc::new(Schema::new(fields))));
        }
        rewritten.iter().map(|e| compile_expr(e, &schema)).collect()
    }

    /// An empty memory for this query's row functions; `None` if it has none.
    pub fn memory(&self) -> Option<Memory> {
        let calls = self.stages.iter().flat_map(|s| match s {
            Stage::Remember(_, calls, _) => calls.as_slice(),
            _ => &[],
        });
        (self.sites > 0).then(|| Memory::new(calls))
    }

    /// The names of the references it joins.
    pub fn joined(&self) -> impl Iterator<Item = &str> {
        self.stages.iter().filter_map(|s| match s {
            Stage::Join(lookup) => Some(lookup.reference()),
            _ => None,
        })
    }

    /// The output columns.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// The input column that output column `i` is a plain copy of, if it is one.
    pub fn lineage(&self, i: usize) -> Option<usize> {
        self.lineage[i]
    }

    /// Runs the query. Rows whose expressions fail (say, a division by zero) are left out and reported to `failed` with
    /// their source row and the reason, exactly the same rows however the batch was cut.
    pub fn run(&self, input: &Selection, failed: &mut Vec<(u32, String)>) -> Result<Selection> {
        self.run_in(input, None, failed)
    }

    /// [`RowPipeline::run`] for a query with row functions or joins. Rows that fail are not remembered.
    pub fn run_in(
        &self,
        input: &Selection,
        mut around: Option<&mut Surroundings<'_>>,
        failed: &mut Vec<(u32, String)>,
    ) -> Result<Selection> {
        match self.attempt(input.clone(), around.as_deref_mut()) {
            Ok(out) => Ok(out),
            Err(_) if input.rows.len() > 1 => {
                let mut batches = Vec::new();
                let mut rows = Vec::new();
                for i in 0..input.rows.len() {
                    let one = Selection { batch: input.batch.slice(i, 1), rows: vec![input.rows[i]] };
                    match self.attempt(one, around.as_deref_mut()) {
                        Ok(out) => {
                            rows.extend_from_slice(&out.rows);
                            batches.push(out.batch);
                        }
                        Err(e) => failed.push((input.rows[i], message(&e))),
                    }
                }
                Ok(Selection { batch: concat_batches(&self.schema, &batches)?, rows })
            }
            Err(e) => {
                failed.extend(input.rows.iter().map(|&r| (r, message(&e))));
                Ok(Selection { batch: RecordBatch::new_empty(self.schema.clone()), rows: Vec::new() })
            }
        }
    }

    /// Runs all or nothing: after an error nothing is remembered.
    fn attempt(&self, input: Selection, mut around: Option<&mut Surroundings<'_>>) -> Result<Selection> {
        let out = self.evaluate(input, around.as_deref_mut());
        if let Some(around) = around {
            match &out {
                Ok(_) => around.memory.keep(),
                Err(_) => around.memory.take_back(),
            }
        }
        out
    }

    fn evaluate(&self, input: Selection, mut around: Option<&mut Surroundings<'_>>) -> Result<Selection> {
        let Selection { mut batch, mut rows } = input;
        for stage in &self.stages {
            match stage {
                Stage::Filter(predicate) => {
                    let mask = predicate.evaluate(&batch)?.into_array(batch.num_rows())?;
                    let Some(mask) = mask.as_any().downcast_ref::<BooleanArray>() else {
                        return exec_err!("a WHERE or HAVING condition must be true or false");
                    };
                    if mask.null_count() == 0 && mask.true_count() == mask.len() {
                        continue;
                    }
                    batch = filter_record_batch(&batch, mask)?;
                    let mut i = 0;
                    rows.retain(|_| {
                        let keep = mask.is_valid(i) && mask.value(i);
                        i += 1;
                        keep
                    });
                }
                Stage::Remember(first, calls, schema) => {
                    let Some(around) = around.as_deref_mut() else {
                        return exec_err!("row functions need their memory");
                    };
                    let n = batch.num_rows();
                    let mut columns = batch.columns().to_vec();
                    for (i, call) in calls.iter().enumerate() {
                        let values = call.value().evaluate(&batch)?.into_array(n)?;
                        columns.push(around.memory.run(first + i, call, &values, &rows, &around.at)?);
                        // A later call may read this one's column.
                        let so_far = Arc::new(schema.project(&(0..columns.len()).collect::<Vec<_>>())?);
                        let options = RecordBatchOptions::new().with_row_count(Some(n));
                        batch = RecordBatch::try_new_with_options(so_far, columns.clone(), &options)?;
                    }
                }
                Stage::Join(lookup) => {
                    let references = around.as_deref().map_or(&[][..], |a| a.references);
                    lookup.run(references, &mut batch, &mut rows)?;
                }
                Stage::Project(exprs, schema) => {
                    let n = batch.num_rows();
                    let arrays: Vec<ArrayRef> =
                        exprs.iter().map(|e| e.evaluate(&batch)?.into_array(n)).collect::<Result<_>>()?;
                    let options = RecordBatchOptions::new().with_row_count(Some(n));
                    batch = RecordBatch::try_new_with_options(schema.clone(), arrays, &options)?;
                }
            }
        }
        Ok(Selection { batch, rows })
    }
}

fn hidden(n: usize) -> String {
    format!("__remembered_{n}")
}

pub(super) fn operator_name(plan: &LogicalPlan) -> &'static str {
    match plan {
        LogicalPlan::Aggregate(_) => "an aggregate or GROUP BY",
        LogicalPlan::Window(_) => "an OVER (…) clause",
        LogicalPlan::Sort(_) => "ORDER BY",
        LogicalPlan::Join(_) => "a JOIN",
        LogicalPlan::Limit(_) => "LIMIT or OFFSET",
        LogicalPlan::Distinct(_) => "DISTINCT",
        LogicalPlan::Union(_) => "UNION",
        LogicalPlan::Values(_) => "VALUES",
        LogicalPlan::Subquery(_) => "a subquery",
        _ => "this construct",
    }
}
