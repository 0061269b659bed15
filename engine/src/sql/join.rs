//! Joins of readings to a reference table: each row looks up at most one.

use std::sync::Arc;

use arrow::array::{Array, AsArray, BooleanArray, RecordBatch, RecordBatchOptions};
use arrow::compute::{filter_record_batch, is_not_null, take};
use arrow::datatypes::{DataType, Schema, SchemaRef};
use datafusion::common::{JoinConstraint, JoinType, Result, exec_err, plan_err};
use datafusion::logical_expr::{Expr, Join, LogicalPlan, Operator};
use datafusion::physical_expr::PhysicalExpr;

use super::rows::compile_expr;
use crate::reference::{Reference, ReferenceSpec};

/// A join, planned: what is looked up in which table, and whether rows that find nothing stay.
#[derive(Debug, Clone)]
pub(super) struct Lookup {
    spec: ReferenceSpec,
    pub(super) value: Arc<dyn PhysicalExpr>,
    inner: bool,
    /// The column of the reference's key after the join, and the column before it that it is equal to.
    key_from: Option<(usize, usize)>,
    schema: SchemaRef,
}

/// The reference that the right side of a join is.
fn right_table<'a>(plan: &LogicalPlan, references: &'a [ReferenceSpec]) -> Option<&'a ReferenceSpec> {
    match plan {
        LogicalPlan::TableScan(scan) => references.iter().find(|r| r.name == scan.table_name.table()),
        LogicalPlan::SubqueryAlias(alias) => right_table(&alias.input, references),
        _ => None,
    }
}

impl Lookup {
    /// Plans a join whose left side is the step's input.
    pub fn plan(join: &Join, references: &[ReferenceSpec]) -> Result<Self> {
        let Some(spec) = right_table(&join.right, references) else {
            return plan_err!(
                "on the right of a JOIN stands a reference table, as [references.…] in the pipeline names it"
            );
        };
        let inner = match join.join_type {
            JoinType::Inner => true,
            JoinType::Left => false,
            other => {
                return plan_err!(
                    "{other} JOIN is not possible; use LEFT JOIN, or JOIN to drop rows that find nothing"
                );
            }
        };
        let by_key = || {
            format!(
                "a reference is joined by its key: LEFT JOIN {} USING ({}), or ON something = {}.{}",
                spec.name, spec.key, spec.name, spec.key
            )
        };
        let mut pairs: Vec<(&Expr, &Expr)> = join.on.iter().map(|(l, r)| (l, r)).collect();
        match &join.filter {
            None => {}
            Some(Expr::BinaryExpr(b)) if b.op == Operator::Eq => pairs.push((&b.left, &b.right)),
            Some(_) => return plan_err!("{}", by_key()),
        }
        let [(a, b)] = pairs.as_slice() else { return plan_err!("{}", by_key()) };
        let is_key = |e: &Expr| matches!(e, Expr::Column(c) if c.name == spec.key && join.right.schema().has_column(c));
        let value = match (is_key(a), is_key(b)) {
            (_, true) => a,
            (true, false) => b,
            _ => return plan_err!("{}", by_key()),
        };
        let left = join.left.schema();
        // With USING there is one column of that name, the reading's: also where a row finds nothing, and whichever of the
        // two the planner takes it from.
        let one = inner || join.join_constraint == JoinConstraint::Using;
        let same = match value {
            Expr::Column(c) if one => left.maybe_index_of_column(c),
            _ => None,
        };
        let key = spec.fields.iter().position(|f| f.name == spec.key).map(|k| left.fields().len() + k);
        let value = compile_expr(value, left)?;
        if value.data_type(left.as_arrow())? != DataType::Utf8 {
            return plan_err!("the key of \"{}\" is text, so what is compared to it must be text", spec.name);
        }
        let fields: Vec<_> = join.schema.as_arrow().fields().iter().cloned().collect();
        let schema = Arc::new(Schema::new(fields));
        Ok(Self { spec: spec.clone(), value, inner, key_from: key.zip(same), schema })
    }

    /// The columns after the join: the left side's, then the reference's.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// How many columns the left side has.
    pub fn width(&self) -> usize {
        self.schema.fields().len() - self.spec.fields.len()
    }

    /// The column that is the reference's key, and the one before the join that it is a copy of.
    pub fn key_from(&self) -> Option<(usize, usize)> {
        self.key_from
    }

    /// The reference's name.
    pub fn reference(&self) -> &str {
        &self.spec.name
    }

    /// Joins a batch.
    pub fn run(
        &self,
        references: &[Option<Arc<Reference>>],
        batch: &mut RecordBatch,
        rows: &mut Vec<u32>,
    ) -> Result<()> {
        let Some(table) = references.iter().flatten().find(|r| r.spec().name == self.spec.name) else {
            return exec_err!("the reference table \"{}\" is not loaded", self.spec.name);
        };
        let n = batch.num_rows();
        let values = self.value.evaluate(batch)?.into_array(n)?;
        let Some(values) = values.as_string_opt::<i32>() else {
            return exec_err!("the key of \"{}\" is compared to something else than text", self.spec.name);
        };
        let found = table.look_up(values.iter());
        let mut columns = batch.columns().to_vec();
        for column in table.batch().columns() {
            columns.push(take(column, &found, None)?);
        }
        if let Some((key, same)) = self.key_from {
            columns[key] = columns[same].clone();
        }
        let options = RecordBatchOptions::new().with_row_count(Some(n));
        if !self.inner || found.null_count() == 0 {
            *batch = RecordBatch::try_new_with_options(self.schema.clone(), columns, &options)?;
            return Ok(());
        }
        // Columns of the table are not null after an inner join, but only once the others are gone.
        let loose: Vec<_> = self.schema.fields().iter().map(|f| f.as_ref().clone().with_nullable(true)).collect();
        let all = RecordBatch::try_new_with_options(Arc::new(Schema::new(loose)), columns, &options)?;
        let mask: BooleanArray = is_not_null(&found)?;
        let left = filter_record_batch(&all, &mask)?;
        let options = RecordBatchOptions::new().with_row_count(Some(left.num_rows()));
        *batch = RecordBatch::try_new_with_options(self.schema.clone(), left.columns().to_vec(), &options)?;
        let mut i = 0;
        rows.retain(|_| {
            i += 1;
            mask.value(i - 1)
        });
        Ok(())
    }
}
