//! A windowed query: what goes into the statistics, and what is made of them.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, Float64Array, RecordBatch, StringArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::common::{Column, DFSchema, Result, exec_err, plan_err};
use datafusion::logical_expr::{Aggregate as AggregatePlan, Expr, LogicalPlan};
use datafusion::physical_expr::PhysicalExpr;

use super::functions::statistic;
use super::rows::{RowPipeline, Selection, compile_expr, operator_name};
use super::{context, message};
use crate::device::DeviceTable;
use crate::window::{Aggregate, ChannelValues, FiredWindow, Layout, Needs, Statistic};

/// `SELECT key, aggregates… FROM input [WHERE …] GROUP BY key [HAVING …]`, split at the aggregation.
#[derive(Debug, Clone)]
pub struct WindowedQuery {
    before: RowPipeline,
    inputs: Vec<Arc<dyn PhysicalExpr>>,
    layouts: Vec<Layout>,
    aggregates: Vec<Aggregate>,
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
        let mut query = Self {
            before,
            inputs: Vec::new(),
            layouts: Vec::new(),
            aggregates: Vec::new(),
            grouped: Arc::new(Schema::empty()),
            after: RowPipeline::identity(Arc::new(Schema::empty())),
        };
        let mut needs: Vec<(Expr, Needs)> = Vec::new();
        for e in &aggregate.aggr_expr {
            query.aggregates.push(query.aggregate(e, input, time, &mut needs)?);
        }
        for (e, n) in &needs {
            let as_f64 = datafusion::logical_expr::cast(e.clone(), DataType::Float64);
            query.inputs.push(compile_expr(&as_f64, input)?);
            query.layouts.push(Layout::new(*n));
        }
        let fields: Vec<_> = aggregate.schema.as_arrow().fields().iter().cloned().collect();
        query.grouped = Arc::new(Schema::new(fields));
        query.after = RowPipeline::identity(query.grouped.clone());
        for plan in above.iter().rev() {
            match plan {
                LogicalPlan::Projection(p) => query.after.project(&p.expr, p.input.schema(), &p.schema)?,
                LogicalPlan::Filter(f) => query.after.filter(&f.predicate, f.input.schema())?,
                _ => {}
            }
        }
        Ok(query)
    }

    fn aggregate(&self, e: &Expr, input: &DFSchema, time: usize, needs: &mut Vec<(Expr, Needs)>) -> Result<Aggregate> {
        let e = match e {
            Expr::Alias(a) => a.expr.as_ref(),
            other => other,
        };
        let Expr::AggregateFunction(f) = e else {
            return plan_err!("{e} is not an aggregate function");
        };
        let p = &f.params;
        if p.distinct || p.filter.is_some() || !p.order_by.is_empty() {
            return plan_err!("DISTINCT, FILTER and ORDER BY inside {}(…) are not available in windows", f.func.name());
        }
        let name = f.func.name();
        let Some(stat) = statistic(name) else {
            return plan_err!("{name} is not available in windows");
        };
        if stat == Statistic::Count && p.args.iter().all(|a| matches!(a, Expr::Literal(..))) {
            return Ok(Aggregate::Rows);
        }
        let value = match (stat, p.args.as_slice()) {
            (Statistic::Slope, [value, at]) => {
                let from = match at {
                    Expr::Column(c) => self.source_column(c, input),
                    Expr::Cast(c) => match c.expr.as_ref() {
                        Expr::Column(c) => self.source_column(c, input),
                        _ => None,
                    },
                    _ => None,
                };
                if from != Some(time) {
                    return plan_err!("slope(value, ts) takes the source's time column as its second argument");
                }
                value
            }
            (_, [value]) => value,
            _ => return plan_err!("{name} takes one argument"),
        };
        let channel = match needs.iter().position(|(e, _)| e == value) {
            Some(i) => i,
            None => {
                needs.push((value.clone(), Needs::default()));
                needs.len() - 1
            }
        };
        needs[channel].1 = needs[channel].1.union(stat.needs());
        Ok(Aggregate::Of(channel, stat))
    }

    fn source_column(&self, c: &Column, input: &DFSchema) -> Option<usize> {
        input.maybe_index_of_column(c).and_then(|i| self.before.lineage(i))
    }

    /// The columns of the result.
    pub fn schema(&self) -> &SchemaRef {
        self.after.schema()
    }

    /// What is kept of each channel, in the order of the channels.
    pub fn layouts(&self) -> &[Layout] {
        &self.layouts
    }

    /// The aggregates, in the order of [`FiredWindow::values`].
    pub fn aggregates(&self) -> &[Aggregate] {
        &self.aggregates
    }

    /// Runs what stands before the aggregation and evaluates the channels; hands both to `then`. Failing rows go to
    /// `failed`, as in [`RowPipeline::run`].
    pub fn channels(
        &self,
        input: &Selection,
        failed: &mut Vec<(u32, String)>,
        then: impl FnOnce(&[u32], &[ChannelValues<'_>]),
    ) -> Result<()> {
        let mut selection = self.before.run(input, failed)?;
        let arrays = match self.evaluate(&selection.batch) {
            Ok(arrays) => arrays,
            Err(_) => {
                // A channel fails on some row: find which, and go on without them.
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
        let mut values: Vec<ChannelValues<'_>> = Vec::with_capacity(arrays.len());
        for a in &arrays {
            let Some(a) = a.as_any().downcast_ref::<Float64Array>() else {
                return exec_err!("an aggregate's argument is {}, not a number", a.data_type());
            };
            values.push((a.values(), a.nulls().filter(|n| n.null_count() > 0)));
        }
        then(&selection.rows, &values);
        Ok(())
    }

    fn evaluate(&self, batch: &RecordBatch) -> Result<Vec<ArrayRef>> {
        self.inputs.iter().map(|e| e.evaluate(batch)?.into_array(batch.num_rows())).collect()
    }

    /// What stands after the aggregation, over a fired window.
    pub fn features(&self, window: &FiredWindow, devices: &DeviceTable) -> Result<Features> {
        let names = window.devices.iter().map(|f| Some(devices.name(f.device)));
        let mut arrays: Vec<ArrayRef> = vec![Arc::new(names.collect::<StringArray>())];
        for (values, field) in window.values.iter().zip(&self.grouped.fields()[1..]) {
            let column: Float64Array = values.iter().copied().collect();
            arrays.push(match field.data_type() {
                DataType::Float64 => Arc::new(column),
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
