//! Avouch's own SQL functions: statistics of machines, and transcendental functions from one library (`libm`), because
//! the platform's give different last bits on different machines.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Float64Array};
use arrow::datatypes::{DataType, Field, FieldRef, Float64Type};
use datafusion::common::{Result, ScalarValue, exec_err};
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl,
    Signature, Volatility,
};

use crate::window::{Layout, Statistic};

/// The statistic behind an aggregate's SQL name (DataFusion's canonical names and ours).
pub(super) fn statistic(name: &str) -> Option<Statistic> {
    Some(match name {
        "count" => Statistic::Count,
        "sum" => Statistic::Sum,
        "avg" => Statistic::Avg,
        "min" => Statistic::Min,
        "max" => Statistic::Max,
        "stddev" => Statistic::StddevSamp,
        "stddev_pop" => Statistic::StddevPop,
        "var" => Statistic::VarSamp,
        "var_pop" => Statistic::VarPop,
        "rms" => Statistic::Rms,
        "p2p" => Statistic::PeakToPeak,
        "crest_factor" => Statistic::CrestFactor,
        "kurtosis" => Statistic::Kurtosis,
        "skewness" => Statistic::Skewness,
        "slope" => Statistic::Slope,
        _ => return None,
    })
}

type Unary = fn(f64) -> f64;

/// The scalar functions.
pub(super) fn scalar() -> Vec<ScalarUDF> {
    let unary: [(&'static str, Unary); 14] = [
        ("acos", libm::acos),
        ("asin", libm::asin),
        ("atan", libm::atan),
        ("cbrt", libm::cbrt),
        ("cos", libm::cos),
        ("cosh", libm::cosh),
        ("exp", libm::exp),
        ("ln", libm::log),
        ("log10", libm::log10),
        ("log2", libm::log2),
        ("sin", libm::sin),
        ("sinh", libm::sinh),
        ("tan", libm::tan),
        ("tanh", libm::tanh),
    ];
    let mut out: Vec<ScalarUDF> =
        unary.into_iter().map(|(name, f)| ScalarUDF::new_from_impl(Transcendental::unary(name, f))).collect();
    out.push(ScalarUDF::new_from_impl(Transcendental::binary("power", libm::pow)));
    out.push(ScalarUDF::new_from_impl(Transcendental::binary("atan2", libm::atan2)));
    out
}

/// Whether a scalar function is one of ours, from `libm`.
pub(super) fn is_transcendental(name: &str) -> bool {
    scalar().iter().any(|f| f.name() == name)
}

#[derive(Clone, Copy)]
enum Function {
    Unary(Unary),
    Binary(fn(f64, f64) -> f64),
}

/// A function of doubles; null in, null out.
#[derive(Clone)]
struct Transcendental {
    name: &'static str,
    function: Function,
    signature: Signature,
}

impl Transcendental {
    fn unary(name: &'static str, f: Unary) -> Self {
        let signature = Signature::exact(vec![DataType::Float64], Volatility::Immutable);
        Self { name, function: Function::Unary(f), signature }
    }
    fn binary(name: &'static str, f: fn(f64, f64) -> f64) -> Self {
        let signature = Signature::exact(vec![DataType::Float64; 2], Volatility::Immutable);
        Self { name, function: Function::Binary(f), signature }
    }
}

impl std::fmt::Debug for Transcendental {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

// A function is its name: there is one of each.
impl PartialEq for Transcendental {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}
impl Eq for Transcendental {}
impl std::hash::Hash for Transcendental {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.name.hash(state);
    }
}

impl ScalarUDFImpl for Transcendental {
    fn name(&self) -> &str {
        self.name
    }
    fn signature(&self) -> &Signature {
        &self.signature
    }
    fn return_type(&self, _arg_types: &[DataType]) -> Result<DataType> {
        Ok(DataType::Float64)
    }
    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let arrays = ColumnarValue::values_to_arrays(&args.args)?;
        let column = |i: usize| -> Result<&Float64Array> {
            match arrays.get(i).and_then(|a| a.as_primitive_opt::<Float64Type>()) {
                Some(a) => Ok(a),
                None => exec_err!("{} takes doubles", self.name),
            }
        };
        let out: Float64Array = match self.function {
            Function::Unary(f) => column(0)?.unary(f),
            Function::Binary(f) => arrow::compute::binary(column(0)?, column(1)?, f)?,
        };
        Ok(ColumnarValue::Array(Arc::new(out)))
    }
}

/// The aggregates that DataFusion lacks.
pub(super) fn aggregate() -> Vec<AggregateUDF> {
    ["crest_factor", "kurtosis", "p2p", "rms", "skewness"]
        .into_iter()
        .filter_map(|name| Some(MachineStatistic::new(name, statistic(name)?, vec![DataType::Float64])))
        .chain([MachineStatistic::new(
            "slope",
            Statistic::Slope,
            vec![DataType::Float64, DataType::Timestamp(arrow::datatypes::TimeUnit::Millisecond, None)],
        )])
        .map(AggregateUDF::new_from_impl)
        .collect()
}

/// A statistic as a DataFusion aggregate, over the same words as in windows.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct MachineStatistic {
    name: &'static str,
    statistic: Statistic,
    signature: Signature,
}

impl MachineStatistic {
    fn new(name: &'static str, statistic: Statistic, args: Vec<DataType>) -> Self {
        Self { name, statistic, signature: Signature::exact(args, Volatility::Immutable) }
    }
}

impl AggregateUDFImpl for MachineStatistic {
    fn name(&self) -> &str {
        self.name
    }
    fn signature(&self) -> &Signature {
        &self.signature
    }
    fn return_type(&self, _arg_types: &[DataType]) -> Result<DataType> {
        Ok(DataType::Float64)
    }
    fn accumulator(&self, _args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        let layout = Layout::new(self.statistic.needs());
        let mut words = vec![0.0; layout.words()];
        layout.clear(&mut words);
        Ok(Box::new(Words { layout, statistic: self.statistic, words, origin: None }))
    }
    fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        let n = Layout::new(self.statistic.needs()).words() + 1;
        Ok((0..n).map(|i| Arc::new(Field::new(format!("{}[{i}]", args.name), DataType::Float64, true))).collect())
    }
}

#[derive(Debug)]
struct Words {
    layout: Layout,
    statistic: Statistic,
    words: Vec<f64>,
    /// Seconds count from the first row's time, in milliseconds.
    origin: Option<f64>,
}

impl Accumulator for Words {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let Some(xs) = values.first().and_then(|a| a.as_primitive_opt::<Float64Type>()) else {
            return exec_err!("a statistic takes doubles");
        };
        let times = values.get(1).and_then(|a| a.as_primitive_opt::<arrow::datatypes::TimestampMillisecondType>());
        for i in 0..xs.len() {
            if xs.is_null(i) || times.is_some_and(|t| t.is_null(i)) {
                continue;
            }
            let ms = times.map_or(0.0, |t| t.value(i) as f64);
            let origin = *self.origin.get_or_insert(ms);
            self.layout.update(&mut self.words, xs.value(i), (ms - origin) / 1000.0);
        }
        Ok(())
    }
    fn evaluate(&mut self) -> Result<ScalarValue> {
        Ok(ScalarValue::Float64(self.layout.value(&self.words, self.statistic)))
    }
    fn size(&self) -> usize {
        size_of_val(self) + size_of_val(self.words.as_slice())
    }
    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        Ok(std::iter::once(self.origin).chain(self.words.iter().map(|w| Some(*w))).map(ScalarValue::Float64).collect())
    }
    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        let columns: Vec<&Float64Array> = states.iter().filter_map(|a| a.as_primitive_opt::<Float64Type>()).collect();
        if columns.len() != self.words.len() + 1 {
            return exec_err!("a statistic's state has {} words, not {}", columns.len(), self.words.len() + 1);
        }
        for i in 0..columns[0].len() {
            if columns[0].is_null(i) {
                continue;
            }
            let theirs = columns[0].value(i);
            let origin = *self.origin.get_or_insert(theirs);
            let words: Vec<f64> = columns[1..].iter().map(|c| c.value(i)).collect();
            self.layout.merge(&mut self.words, &words, (theirs - origin) / 1000.0);
        }
        Ok(())
    }
}
