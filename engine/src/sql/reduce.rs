//! DataFusion's own accumulators, run over the rows that a window kept.
//!
//! An accumulator sees all rows of a window in one batch, in the order of event time, then offset. So its result does not
//! depend on how rows arrived, and nothing of it outlives the call: the rows are the state, and what a snapshot holds.

use arrow::array::ArrayRef;
use arrow::compute::cast;
use arrow::datatypes::DataType;
use datafusion::common::{Result, ScalarValue};
use datafusion::physical_expr::aggregate::AggregateFunctionExpr;

use crate::window::{GatheredRows, Reduce};

/// Where an argument comes from.
#[derive(Debug, Clone)]
pub(super) enum Argument {
    /// A kept column, and the type that the function takes.
    Kept(usize, DataType),
    /// The same for all rows.
    Constant(ScalarValue),
}

/// One aggregate.
#[derive(Debug, Clone)]
pub(super) struct Reduction {
    pub function: AggregateFunctionExpr,
    pub arguments: Vec<Argument>,
}

/// The aggregates of a step over all its kept rows.
#[derive(Debug, Clone, Default)]
pub(super) struct Reductions(pub Vec<Reduction>);

impl Reduce for Reductions {
    fn reduce(&self, rows: &GatheredRows<'_>) -> Result<Vec<ScalarValue>> {
        self.0
            .iter()
            .map(|reduction| {
                let mut accumulator = reduction.function.create_accumulator()?;
                let arrays: Vec<ArrayRef> = reduction
                    .arguments
                    .iter()
                    .map(|argument| match argument {
                        Argument::Kept(i, ty) => {
                            let column = rows.column(*i);
                            Ok(if column.data_type() == ty { column } else { cast(&column, ty)? })
                        }
                        Argument::Constant(value) => value.to_array_of_size(rows.len()),
                    })
                    .collect::<Result<_>>()?;
                accumulator.update_batch(&arrays)?;
                accumulator.evaluate()
            })
            .collect()
    }
}
