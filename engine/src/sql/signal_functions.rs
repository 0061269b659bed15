//! `zero_crossings(value)`, `ewma(value, alpha)` and `band_energy(value, ts, lo_hz, hi_hz)` as DataFusion aggregates. In a
//! window rows come in the order of event time, then offset; in a batch query, in the order of the input.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Float64Array, Int64Array, ListArray};
use arrow::datatypes::{DataType, Field, FieldRef, Float64Type, Int64Type, TimeUnit, TimestampMillisecondType};
use datafusion::common::{Result, ScalarValue, exec_err, plan_err};
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::{Accumulator, AggregateUDF, AggregateUDFImpl, Signature, Volatility};
use datafusion::physical_expr::expressions::Literal;

use super::signal;

/// The functions.
pub(super) fn aggregates() -> Vec<AggregateUDF> {
    let f64 = DataType::Float64;
    let time = DataType::Timestamp(TimeUnit::Millisecond, None);
    [
        (Kind::ZeroCrossings, vec![f64.clone()]),
        (Kind::Ewma, vec![f64.clone(); 2]),
        (Kind::BandEnergy, vec![f64.clone(), time, f64.clone(), f64]),
    ]
    .map(|(kind, args)| {
        AggregateUDF::new_from_impl(SignalFunction { kind, signature: Signature::exact(args, Volatility::Immutable) })
    })
    .into()
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Kind {
    ZeroCrossings,
    Ewma,
    BandEnergy,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct SignalFunction {
    kind: Kind,
    signature: Signature,
}

/// A constant argument.
fn constant(args: &AccumulatorArgs<'_>, i: usize, what: &str) -> Result<f64> {
    let expr = args.exprs.get(i).and_then(|e| e.downcast_ref::<Literal>());
    match expr.map(|l| l.value().cast_to(&DataType::Float64)) {
        Some(Ok(ScalarValue::Float64(Some(v)))) if v.is_finite() => Ok(v),
        _ => plan_err!("{what} is a number, the same for all rows"),
    }
}

impl AggregateUDFImpl for SignalFunction {
    fn name(&self) -> &str {
        match self.kind {
            Kind::ZeroCrossings => "zero_crossings",
            Kind::Ewma => "ewma",
            Kind::BandEnergy => "band_energy",
        }
    }
    fn signature(&self) -> &Signature {
        &self.signature
    }
    fn return_type(&self, _arg_types: &[DataType]) -> Result<DataType> {
        Ok(if self.kind == Kind::ZeroCrossings { DataType::Int64 } else { DataType::Float64 })
    }
    fn accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        let measure = match self.kind {
            Kind::ZeroCrossings => Measure::ZeroCrossings,
            Kind::Ewma => {
                let alpha = constant(&args, 1, "`ewma`: alpha")?;
                if !(alpha > 0.0 && alpha <= 1.0) {
                    return plan_err!("`ewma`: alpha is above 0 and at most 1, not {alpha}");
                }
                Measure::Ewma(alpha)
            }
            Kind::BandEnergy => {
                let lo = constant(&args, 2, "`band_energy`: lo_hz")?;
                let hi = constant(&args, 3, "`band_energy`: hi_hz")?;
                if !(lo >= 0.0 && lo < hi) {
                    return plan_err!("`band_energy`: 0 <= lo_hz < hi_hz, not {lo} and {hi}");
                }
                Measure::BandEnergy(lo, hi)
            }
        };
        Ok(Box::new(Samples { measure, times: Vec::new(), values: Vec::new() }))
    }
    fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        let list = |name: &str, ty: DataType| {
            let item = Arc::new(Field::new_list_field(ty, true));
            Arc::new(Field::new(format!("{}[{name}]", args.name), DataType::List(item), true))
        };
        Ok(vec![list("times", DataType::Int64), list("values", DataType::Float64)])
    }
}

#[derive(Debug, Clone, Copy)]
enum Measure {
    ZeroCrossings,
    Ewma(f64),
    BandEnergy(f64, f64),
}

/// The samples so far; times are kept for those that need them, and are 0 for the others.
#[derive(Debug)]
struct Samples {
    measure: Measure,
    times: Vec<i64>,
    values: Vec<f64>,
}

impl Accumulator for Samples {
    fn update_batch(&mut self, arrays: &[ArrayRef]) -> Result<()> {
        let Some(xs) = arrays.first().and_then(|a| a.as_primitive_opt::<Float64Type>()) else {
            return exec_err!("a signal is of doubles");
        };
        let times = match self.measure {
            Measure::BandEnergy(..) => arrays.get(1).and_then(|a| a.as_primitive_opt::<TimestampMillisecondType>()),
            _ => None,
        };
        for i in 0..xs.len() {
            if xs.is_valid(i) && times.is_none_or(|t| t.is_valid(i)) {
                self.times.push(times.map_or(0, |t| t.value(i)));
                self.values.push(xs.value(i));
            }
        }
        Ok(())
    }
    fn evaluate(&mut self) -> Result<ScalarValue> {
        Ok(match self.measure {
            Measure::ZeroCrossings => ScalarValue::Int64(signal::zero_crossings(&self.values)),
            Measure::Ewma(alpha) => ScalarValue::Float64(signal::ewma(&self.values, alpha)),
            Measure::BandEnergy(lo, hi) => {
                let mut samples: Vec<(i64, f64)> =
                    self.times.iter().copied().zip(self.values.iter().copied()).collect();
                samples.sort_by_key(|s| s.0);
                ScalarValue::Float64(signal::band_energy(&samples, lo, hi))
            }
        })
    }
    fn size(&self) -> usize {
        size_of_val(self) + 8 * (self.times.capacity() + self.values.capacity())
    }
    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        let times = Int64Array::from(std::mem::take(&mut self.times));
        let values = Float64Array::from(std::mem::take(&mut self.values));
        let list = |a: ArrayRef| -> ScalarValue {
            let item = Arc::new(Field::new_list_field(a.data_type().clone(), true));
            let offsets = arrow::buffer::OffsetBuffer::from_lengths([a.len()]);
            ScalarValue::List(Arc::new(ListArray::new(item, offsets, a, None)))
        };
        Ok(vec![list(Arc::new(times)), list(Arc::new(values))])
    }
    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        let [times, values] = states else { return exec_err!("a signal's state is two lists") };
        for (times, values) in times.as_list::<i32>().iter().zip(values.as_list::<i32>().iter()) {
            let (Some(times), Some(values)) = (times, values) else { continue };
            self.times.extend_from_slice(times.as_primitive::<Int64Type>().values());
            self.values.extend_from_slice(values.as_primitive::<Float64Type>().values());
        }
        Ok(())
    }
}
