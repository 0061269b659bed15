//! Filters and projections over rows, compiled once.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, RecordBatch, RecordBatchOptions};
use arrow::compute::{concat_batches, filter_record_batch};
use arrow::datatypes::{Schema, SchemaRef};
use datafusion::common::{Column, DFSchema, Result, exec_err, plan_err};
use datafusion::execution::context::ExecutionProps;
use datafusion::logical_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion::logical_expr::{Expr, LogicalPlan};
use datafusion::physical_expr::{PhysicalExpr, create_physical_expr};

use super::{context, message};

/// Rows of a step, and which source row each comes from.
#[derive(Debug, Clone)]
pub struct Selection {
    /// The columns.
    pub batch: RecordBatch,
    /// For each row the index of its source row, increasing.
    pub rows: Vec<u32>,
}

#[derive(Debug, Clone)]
enum Stage {
    Filter(Arc<dyn PhysicalExpr>),
    Project(Vec<Arc<dyn PhysicalExpr>>, SchemaRef),
}

/// A query without aggregation: the filters and projections of its plan, innermost first.
#[derive(Debug, Clone)]
pub struct RowPipeline {
    stages: Vec<Stage>,
    schema: SchemaRef,
    /// For each output column the input column it is a plain copy of.
    lineage: Vec<Option<usize>>,
}

pub(super) fn compile_expr(e: &Expr, schema: &DFSchema) -> Result<Arc<dyn PhysicalExpr>> {
    create_physical_expr(e, schema, &ExecutionProps::new(), &PhysicalPlanningContext::default())
}

fn plain_column(e: &Expr) -> Option<&Column> {
    match e {
        Expr::Column(c) => Some(c),
        Expr::Alias(a) => plain_column(&a.expr),
        _ => None,
    }
}

impl RowPipeline {
    /// Plans `sql` over a table `table` with these columns.
    pub fn plan(sql: &str, table: &str, schema: SchemaRef) -> Result<Self> {
        let plan = context::plan(sql, table, schema.clone())?;
        Self::compile(&plan, schema)
    }

    /// Compiles the filters and projections of a plan whose leaf is a table with this schema.
    pub(super) fn compile(plan: &LogicalPlan, input: SchemaRef) -> Result<Self> {
        match plan {
            LogicalPlan::TableScan(_) | LogicalPlan::EmptyRelation(_) => {
                if matches!(plan, LogicalPlan::EmptyRelation(_)) {
                    return plan_err!("the query reads no table");
                }
                let lineage = (0..input.fields().len()).map(Some).collect();
                Ok(Self { stages: Vec::new(), schema: input, lineage })
            }
            LogicalPlan::SubqueryAlias(alias) => Self::compile(&alias.input, input),
            LogicalPlan::Filter(f) => {
                let mut below = Self::compile(&f.input, input)?;
                below.stages.push(Stage::Filter(compile_expr(&f.predicate, f.input.schema())?));
                Ok(below)
            }
            LogicalPlan::Projection(p) => {
                let mut below = Self::compile(&p.input, input)?;
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
        Self { stages: Vec::new(), schema, lineage }
    }

    pub(super) fn filter(&mut self, predicate: &Expr, input: &DFSchema) -> Result<()> {
        self.stages.push(Stage::Filter(compile_expr(predicate, input)?));
        Ok(())
    }

    pub(super) fn project(&mut self, exprs: &[Expr], input: &DFSchema, output: &DFSchema) -> Result<()> {
        let compiled = exprs.iter().map(|e| compile_expr(e, input)).collect::<Result<Vec<_>>>()?;
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
        match self.evaluate(input.clone()) {
            Ok(out) => Ok(out),
            Err(_) if input.rows.len() > 1 => {
                let mut batches = Vec::new();
                let mut rows = Vec::new();
                for i in 0..input.rows.len() {
                    let one = Selection { batch: input.batch.slice(i, 1), rows: vec![input.rows[i]] };
                    match self.evaluate(one) {
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

    fn evaluate(&self, input: Selection) -> Result<Selection> {
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
