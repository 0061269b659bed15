//! From the aggregate functions of a windowed query to what a window keeps for them.
//!
//! | kept | by | cost a row | cost a window |
//! | --- | --- | --- | --- |
//! | words of a channel | count, sum, avg, min, max, var, stddev, bool_and, bool_or, and those of machines | a few additions | three merges |
//! | words of a pair | corr, covar, regr | a few additions | three merges |
//! | one row a pane | first_value, last_value; min and max of what is not a double | a comparison | its rows |
//! | all rows | all others | a copy | its rows |

use std::sync::Arc;

use arrow::datatypes::{DataType, Schema, TimeUnit};
use datafusion::common::{DFSchema, Result, plan_err};
use datafusion::logical_expr::expr::{AggregateFunction, NullTreatment};
use datafusion::logical_expr::{Expr, ExprSchemable, cast, lit, when};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::PhysicalSortExpr;
use datafusion::physical_expr::aggregate::AggregateExprBuilder;

use super::functions::statistic;
use super::reduce::{Argument, Reduction, Reductions};
use super::rows::{RowPipeline, compile_expr};
use crate::window::{Aggregate, CellType, GatherSpec, Keep, Layout, Needs, PairStatistic, Shape, Statistic};

/// Aggregates that keep all rows and run DataFusion's accumulator over them. Each gives the same bits for the same rows in
/// the same order on every machine.
pub(super) const OVER_ALL_ROWS: &[&str] = &[
    "approx_distinct",
    "approx_median",
    "approx_percentile_cont",
    "approx_percentile_cont_with_weight",
    "band_energy",
    "bit_and",
    "bit_or",
    "bit_xor",
    "ewma",
    "median",
    "nth_value",
    "percentile_cont",
    "string_agg",
    "zero_crossings",
];

fn pair_statistic(name: &str) -> Option<PairStatistic> {
    use PairStatistic::*;
    Some(match name {
        "corr" => Corr,
        "covar_pop" => CovarPop,
        "covar_samp" => CovarSamp,
        "regr_avgx" => RegrAvgX,
        "regr_avgy" => RegrAvgY,
        "regr_count" => RegrCount,
        "regr_intercept" => RegrIntercept,
        "regr_r2" => RegrR2,
        "regr_slope" => RegrSlope,
        "regr_sxx" => RegrSxx,
        "regr_sxy" => RegrSxy,
        "regr_syy" => RegrSyy,
        _ => return None,
    })
}

/// What a query's aggregates need.
#[derive(Debug, Clone)]
pub(super) struct Kept {
    /// Of channels and pairs; doubles.
    pub channels: Vec<Arc<dyn PhysicalExpr>>,
    /// Of gathered rows.
    pub gathered: Vec<Arc<dyn PhysicalExpr>>,
    pub shape: Shape,
    pub gathers: Vec<GatherSpec>,
    pub aggregates: Vec<Aggregate>,
}

/// Plans aggregates over rows of this form. `time` is the source's time column.
pub(super) fn plan(exprs: &[Expr], input: &DFSchema, before: &RowPipeline, time: usize) -> Result<Kept> {
    let mut planner = Planner {
        input,
        before,
        time,
        needs: Vec::new(),
        pairs: Vec::new(),
        cells: Vec::new(),
        gathers: Vec::new(),
        reductions: Reductions::default(),
        all: None,
    };
    let aggregates = exprs.iter().map(|e| planner.aggregate(e)).collect::<Result<Vec<_>>>()?;
    let compile = |e: &Expr, ty: DataType| compile_expr(&cast(e.clone(), ty), input);
    let layouts: Vec<Layout> = planner.needs.iter().map(|(_, n)| Layout::new(*n)).collect();
    let mut gathers = planner.gathers;
    if let Some(all) = planner.all {
        gathers[all].reduce = Some(Arc::new(planner.reductions));
    }
    Ok(Kept {
        channels: planner.needs.iter().map(|(e, _)| compile(e, DataType::Float64)).collect::<Result<_>>()?,
        gathered: planner.cells.iter().map(|(e, ty)| compile(e, cell_arrow(*ty))).collect::<Result<_>>()?,
        shape: Shape::new(&layouts, &planner.pairs),
        gathers,
        aggregates,
    })
}

struct Planner<'a> {
    input: &'a DFSchema,
    before: &'a RowPipeline,
    time: usize,
    /// Channels.
    needs: Vec<(Expr, Needs)>,
    /// Channels of x and y.
    pairs: Vec<(usize, usize)>,
    /// Inputs of gathered rows.
    cells: Vec<(Expr, CellType)>,
    gathers: Vec<GatherSpec>,
    reductions: Reductions,
    /// Which of `gathers` keeps all rows.
    all: Option<usize>,
}

fn cell_type(ty: &DataType) -> Option<CellType> {
    Some(match ty {
        DataType::Float64 | DataType::Float32 => CellType::F64,
        DataType::Int8 | DataType::Int16 | DataType::Int32 | DataType::Int64 => CellType::I64,
        DataType::UInt8 | DataType::UInt16 | DataType::UInt32 => CellType::I64,
        DataType::Boolean => CellType::Bool,
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => CellType::Text,
        DataType::Timestamp(TimeUnit::Millisecond, None) => CellType::Time,
        _ => return None,
    })
}

fn cell_arrow(ty: CellType) -> DataType {
    match ty {
        CellType::F64 => DataType::Float64,
        CellType::I64 => DataType::Int64,
        CellType::Bool => DataType::Boolean,
        CellType::Text => DataType::Utf8,
        CellType::Time => DataType::Timestamp(TimeUnit::Millisecond, None),
    }
}

/// A cast of a constant is a constant: `2` where a function takes a double.
fn folded(e: Expr) -> Result<Expr> {
    Ok(match e {
        Expr::Cast(c) => match folded(*c.expr.clone())? {
            Expr::Literal(value, meta) => Expr::Literal(value.cast_to(c.field.data_type())?, meta),
            _ => Expr::Cast(c),
        },
        other => other,
    })
}

impl Planner<'_> {
    fn aggregate(&mut self, e: &Expr) -> Result<Aggregate> {
        let e = match e {
            Expr::Alias(a) => a.expr.as_ref(),
            other => other,
        };
        let Expr::AggregateFunction(f) = e else {
            return plan_err!("{e} is not an aggregate function");
        };
        let (name, p) = (f.func.name(), &f.params);
        let keep_nulls = matches!(name, "first_value" | "last_value" | "nth_value");
        let ignore_nulls = p.null_treatment == Some(NullTreatment::IgnoreNulls);
        if p.filter.is_some() && keep_nulls && !ignore_nulls {
            return plan_err!(
                "`{name}` with FILTER must say what a null means: write {name}(…) IGNORE NULLS FILTER (…)"
            );
        }
        let same_if_distinct = matches!(name, "min" | "max" | "bool_and" | "bool_or" | "approx_distinct");
        if p.distinct && name != "count" && !same_if_distinct {
            return plan_err!("DISTINCT is available in count(DISTINCT …) only, not in `{name}`");
        }
        let ordered_by_value =
            matches!(name, "percentile_cont" | "approx_percentile_cont" | "approx_percentile_cont_with_weight");
        if !ordered_by_value && p.order_by.iter().any(|o| !o.asc || self.source_column(&o.expr) != Some(self.time)) {
            return plan_err!(
                "rows of a window are in the order of event time; ORDER BY inside `{name}` cannot change that"
            );
        }
        if name == "count" && p.args.iter().all(|a| matches!(a, Expr::Literal(..))) && !p.distinct {
            return match &p.filter {
                None => Ok(Aggregate::Rows),
                Some(filter) => self.channel(when(filter.as_ref().clone(), lit(1.0)).end()?, Statistic::Count),
            };
        }
        let args = match &p.filter {
            None => p.args.clone(),
            Some(filter) => {
                let mut args = p.args.clone();
                if let Some(first) = args.first_mut() {
                    *first = when(filter.as_ref().clone(), first.clone()).end()?;
                }
                args
            }
        };
        match (name, args.as_slice()) {
            ("count", [_]) if p.distinct => self.over_all(f, args, ignore_nulls),
            ("count", [value]) => {
                let present = when(value.clone().is_not_null(), lit(1.0)).end()?;
                let plain = matches!(value.get_type(self.input)?, DataType::Float64);
                self.channel(if plain { value.clone() } else { present }, Statistic::Count)
            }
            ("bool_and", [value]) => self.channel(value.clone(), Statistic::Min),
            ("bool_or", [value]) => self.channel(value.clone(), Statistic::Max),
            ("min" | "max", [value]) if !self.fits_a_double(value)? => {
                self.one_row(if name == "min" { Keep::Smallest } else { Keep::Largest }, true, value)
            }
            ("first_value", [value]) => self.one_row(Keep::First, ignore_nulls, value),
            ("last_value", [value]) => self.one_row(Keep::Last, ignore_nulls, value),
            ("slope", [value, at]) => {
                if self.source_column(at) != Some(self.time) {
                    return plan_err!("slope(value, ts) takes the source's time column as its second argument");
                }
                self.channel(value.clone(), Statistic::Slope)
            }
            (name, args) if OVER_ALL_ROWS.contains(&name) => self.over_all(f, args.to_vec(), ignore_nulls),
            (name, [a, b]) if let Some(stat) = pair_statistic(name) => {
                // Regressions are of y over x, in this order.
                let (x, y) = if name.starts_with("regr_") { (b, a) } else { (a, b) };
                let pair = (self.input_channel(x, Needs::default()), self.input_channel(y, Needs::default()));
                let i = self.pairs.iter().position(|p| *p == pair).unwrap_or_else(|| {
                    self.pairs.push(pair);
                    self.pairs.len() - 1
                });
                Ok(Aggregate::OfPair(i, stat))
            }
            (name, [value]) if let Some(stat) = statistic(name) => self.channel(value.clone(), stat),
            (name, args) if statistic(name).is_some() => plan_err!("`{name}` takes one argument, not {}", args.len()),
            _ => plan_err!("`{name}` is not available in windows"),
        }
    }

    /// The input column behind an expression that only renames or casts.
    fn source_column(&self, e: &Expr) -> Option<usize> {
        match e {
            Expr::Column(c) => self.input.maybe_index_of_column(c).and_then(|i| self.before.lineage(i)),
            Expr::Cast(c) => self.source_column(&c.expr),
            Expr::Alias(a) => self.source_column(&a.expr),
            _ => None,
        }
    }

    /// Whether all values of its type are doubles too.
    fn fits_a_double(&self, e: &Expr) -> Result<bool> {
        use DataType::*;
        Ok(matches!(e.get_type(self.input)?, Float64 | Float32 | Int8 | Int16 | Int32 | UInt8 | UInt16 | UInt32))
    }

    fn input_channel(&mut self, value: &Expr, needs: Needs) -> usize {
        let i = self.needs.iter().position(|(e, _)| e == value).unwrap_or_else(|| {
            self.needs.push((value.clone(), Needs::default()));
            self.needs.len() - 1
        });
        self.needs[i].1 = self.needs[i].1.union(needs);
        i
    }

    fn channel(&mut self, value: Expr, stat: Statistic) -> Result<Aggregate> {
        Ok(Aggregate::Of(self.input_channel(&value, stat.needs()), stat))
    }

    /// The index of a gathered input.
    fn cell(&mut self, value: &Expr, of: &str) -> Result<(usize, CellType)> {
        let ty = value.get_type(self.input)?;
        let Some(cell) = cell_type(&ty) else {
            return plan_err!("{of} of {ty} is not available in windows; cast it to a number or a text");
        };
        let i = self.cells.iter().position(|(e, _)| e == value).unwrap_or_else(|| {
            self.cells.push((value.clone(), cell));
            self.cells.len() - 1
        });
        Ok((i, cell))
    }

    fn one_row(&mut self, keep: Keep, skip_null: bool, value: &Expr) -> Result<Aggregate> {
        let (input, ty) = self.cell(value, "first, last, smallest and largest")?;
        let same = |g: &GatherSpec| g.keep == keep && g.skip_null == skip_null && g.inputs == [input];
        let i = self.gathers.iter().position(same).unwrap_or_else(|| {
            self.gathers.push(GatherSpec { keep, skip_null, inputs: vec![input], types: vec![ty], reduce: None });
            self.gathers.len() - 1
        });
        Ok(Aggregate::Gathered(i, 0))
    }

    fn over_all(&mut self, f: &AggregateFunction, args: Vec<Expr>, ignore_nulls: bool) -> Result<Aggregate> {
        let name = f.func.name();
        let gather = *self.all.get_or_insert_with(|| {
            let spec =
                GatherSpec { keep: Keep::All, skip_null: false, inputs: Vec::new(), types: Vec::new(), reduce: None };
            self.gathers.push(spec);
            self.gathers.len() - 1
        });
        let args: Vec<Expr> = args.into_iter().map(folded).collect::<Result<_>>()?;
        if args.iter().all(|a| matches!(a, Expr::Literal(..))) {
            return plan_err!("`{name}` takes a column, not only constants");
        }
        let schema: Arc<Schema> = Arc::new(self.input.as_arrow().clone());
        let mut compiled = Vec::new();
        let mut arguments = Vec::new();
        for arg in &args {
            compiled.push(compile_expr(arg, self.input)?);
            if let Expr::Literal(value, _) = arg {
                arguments.push(Argument::Constant(value.clone()));
                continue;
            }
            let (input, ty) = self.cell(arg, name)?;
            let g = &mut self.gathers[gather];
            let column = g.inputs.iter().position(|&i| i == input).unwrap_or_else(|| {
                g.inputs.push(input);
                g.types.push(ty);
                g.inputs.len() - 1
            });
            arguments.push(Argument::Kept(column, arg.get_type(self.input)?));
        }
        let ordered = f.params.order_by.iter().map(|o| {
            let options = arrow::compute::SortOptions { descending: !o.asc, nulls_first: o.nulls_first };
            Ok(PhysicalSortExpr { expr: compile_expr(&o.expr, self.input)?, options })
        });
        // Rows come in time order, so only an order by value says something more.
        let order_by = if name.contains("percentile") { ordered.collect::<Result<Vec<_>>>()? } else { Vec::new() };
        let mut builder = AggregateExprBuilder::new(f.func.clone(), compiled)
            .schema(schema)
            .alias(name)
            .order_by(order_by)
            .with_ignore_nulls(ignore_nulls);
        if f.params.distinct {
            builder = builder.distinct();
        }
        let function = builder.build()?;
        // Finds arguments that the function refuses, before there are rows.
        function.create_accumulator()?;
        self.reductions.0.push(Reduction { function, arguments });
        Ok(Aggregate::Gathered(gather, self.reductions.0.len() - 1))
    }
}
