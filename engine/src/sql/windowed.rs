//! A windowed query: what goes into the statistics, and what is made of them.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, Float64Array, RecordBatch, StringArray};
use arrow::compute::cast;
use arrow::datatypes::{Field, Schema, SchemaRef};
use datafusion::common::{Result, ScalarValue, exec_err, plan_err};
use datafusion::logical_expr::{Aggregate as AggregatePlan, Expr, LogicalPlan};
use datafusion::physical_expr::PhysicalExpr;

use super::aggregates::{self, Kept};
use super::rows::{RowPipeline, Selection, operator_name};
use super::{context, message};
use crate::device::DeviceTable;
use crate::spec::WindowSpec;
use crate::window::{CellArray, ChannelValues, Column, FiredWindow, Inputs, WindowDefinition};

/// `SELECT key, aggregates… FROM input [WHERE …] GROUP BY key [HAVING …]`, split at the aggregation.
#[derive(Debug, Clone)]
pub struct WindowedQuery {
    pub(super) before: RowPipeline,
    pub(super) kept: Kept,
    /// The aggregation's output: the key, then the aggregates.
    grouped: SchemaRef,
    after: RowPipeline,
}

/// A fired window's rows after the query: columns, and the index in [`FiredWindow::devices`] of each row.
pub type Features = Selection;

impl WindowedQuery {
    /// Plans `sql` over a table with these columns. `key` is the source's key column and `time` its time column, found in
    /// the input as the columns with these indices.
    pub fn plan(sql: &str, table: &str, schema: SchemaRef, key: usize, time: usize) -> Result<Self> {
        let plan = context::plan(sql, table, schema.clone())?;
        let mut above = Vec::new();
        let aggregate = find_aggregate(&plan, &mut above)?;
        let before = RowPipeline::compile(&aggregate.input, schema)?;
        let input = aggregate.input.schema();
        let [Expr::Column(group)] = aggregate.group_expr.as_slice() else {
            return plan_err!("a windowed step groups by the source's key and nothing else; the window does the rest");
        };
        if input.maybe_index_of_column(group).and_then(|i| before.lineage(i)) != Some(key) {
            return plan_err!("GROUP BY {} is not the source's key; group by the key column", group.name());
        }
        let kept = aggregates::plan(&aggregate.aggr_expr, input, &before, time)?;
        let fields: Vec<_> = aggregate.schema.as_arrow().fields().iter().cloned().collect();
        let grouped: SchemaRef = Arc::new(Schema::new(fields));
        let mut query = Self { before, kept, after: RowPipeline::identity(grouped.clone()), grouped };
        for plan in above.iter().rev() {
            match plan {
                LogicalPlan::Projection(p) => query.after.project(&p.expr, p.input.schema(), &p.schema)?,
                LogicalPlan::Filter(f) => query.after.filter(&f.predicate, f.input.schema())?,
                _ => {}
            }
        }
        Ok(query)
    }

    /// The columns of the result.
    pub fn schema(&self) -> &SchemaRef {
        self.after.schema()
    }

    /// What a window of this query keeps and computes.
    pub fn definition(&self, window: WindowSpec) -> WindowDefinition {
        WindowDefinition {
            window,
            shape: self.kept.shape.clone(),
            gathers: self.kept.gathers.clone(),
            aggregates: self.kept.aggregates.clone(),
        }
    }

    /// Runs what stands before the aggregation and evaluates its inputs; hands both to `then`. Failing rows go to
    /// `failed`, as in [`RowPipeline::run`].
    pub fn channels(
        &self,
        input: &Selection,
        failed: &mut Vec<(u32, String)>,
        then: impl FnOnce(&[u32], Inputs<'_>),
    ) -> Result<()> {
        let mut selection = self.before.run(input, failed)?;
        let arrays = match self.evaluate(&selection.batch) {
            Ok(arrays) => arrays,
            Err(_) => {
                // An input fails on some row: find which, and go on without them.
                let mut keep = Vec::new();
                for i in 0..selection.rows.len() {
                    match self.evaluate(&selection.batch.slice(i, 1)) {
                        Ok(_) => keep.push(true),
                        Err(e) => {
                            failed.push((selection.rows[i], message(&e)));
                            keep.push(false);
                        }
                    }
                }
                let mut i = 0;
                selection.rows.retain(|_| {
                    i += 1;
                    keep[i - 1]
                });
                selection.batch = arrow::compute::filter_record_batch(&selection.batch, &keep.into())?;
                self.evaluate(&selection.batch)?
            }
        };
        let (channels, gathered) = arrays.split_at(self.kept.channels.len());
        let mut values: Vec<ChannelValues<'_>> = Vec::with_capacity(channels.len());
        for a in channels {
            let Some(a) = a.as_any().downcast_ref::<Float64Array>() else {
                return exec_err!("an aggregate's argument is {}, not a number", a.data_type());
            };
            values.push((a.values(), a.nulls().filter(|n| n.null_count() > 0)));
        }
        let mut cells: Vec<CellArray<'_>> = Vec::with_capacity(gathered.len());
        for a in gathered {
            let Some(cell) = CellArray::of(a.as_ref()) else {
                return exec_err!("an aggregate's argument is {}, which cannot be kept", a.data_type());
            };
            cells.push(cell);
        }
        then(&selection.rows, Inputs { channels: &values, gathered: &cells });
        Ok(())
    }

    fn evaluate(&self, batch: &RecordBatch) -> Result<Vec<ArrayRef>> {
        let inputs = self.kept.channels.iter().chain(&self.kept.gathered);
        inputs.map(|e: &Arc<dyn PhysicalExpr>| e.evaluate(batch)?.into_array(batch.num_rows())).collect()
    }

    /// What stands after the aggregation, over a fired window.
    pub fn features(&self, window: &FiredWindow, devices: &DeviceTable) -> Result<Features> {
        let names = window.devices.iter().map(|f| Some(devices.name(f.device)));
        let mut arrays: Vec<ArrayRef> = vec![Arc::new(names.collect::<StringArray>())];
        if let Some(why) = &window.failed {
            return exec_err!("an aggregate fails on a window: {why}");
        }
        for (values, field) in window.values.iter().zip(&self.grouped.fields()[1..]) {
            let column: ArrayRef = match values {
                Column::Numbers(values) => Arc::new(values.iter().copied().collect::<Float64Array>()),
                Column::Scalars(values) if values.is_empty() => arrow::array::new_empty_array(field.data_type()),
                Column::Scalars(values) => ScalarValue::iter_to_array(values.iter().cloned())?,
            };
            arrays.push(match field.data_type() {
                same if same == column.data_type() => column,
                other => cast(&column, other)?,
            });
        }
        // Names may carry what the plan knows of nullability; the values are checked by the cast above.
        let fields: Vec<Field> = self
            .grouped
            .fields()
            .iter()
            .zip(&arrays)
            .map(|(f, a)| Field::new(f.name(), a.data_type().clone(), true))
            .collect();
        let batch = RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays)?;
        let rows = (0..window.devices.len() as u32).collect();
        let mut failed = Vec::new();
        let out = self.after.run(&Selection { batch, rows }, &mut failed)?;
        if let Some((_, why)) = failed.first() {
            return exec_err!("the SELECT list fails on a window's aggregates: {why}");
        }
        Ok(out)
    }
}

fn find_aggregate<'a>(plan: &'a LogicalPlan, above: &mut Vec<&'a LogicalPlan>) -> Result<&'a AggregatePlan> {
    match plan {
        LogicalPlan::Aggregate(a) => Ok(a),
        LogicalPlan::Projection(p) => {
            above.push(plan);
            find_aggregate(&p.input, above)
        }
        LogicalPlan::Filter(f) => {
            above.push(plan);
            find_aggregate(&f.input, above)
        }
        LogicalPlan::SubqueryAlias(s) => find_aggregate(&s.input, above),
        LogicalPlan::TableScan(_) => plan_err!("a step with a window aggregates: SELECT key, avg(…) … GROUP BY key"),
        other => plan_err!("{} is not available in a step with a window", operator_name(other)),
    }
}
