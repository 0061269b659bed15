//! Operators of the default domain. An operator is on this list, with the attributes that are read, or it is refused.

use super::OnnxError;
use super::attributes::{Attributes, kind_of};
use super::classical::{Classical, logistic};
use super::tensor::{Kind, MAX_ELEMENTS, Tensor, axis_of, size, spread, zip};
use super::trees::Trees;

/// Multiplications in one matrix product, at most.
const MAX_PRODUCTS: usize = 1 << 26;

/// Of one element.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Unary {
    Abs,
    Ceil,
    Elu(f64),
    Erf,
    Exp,
    Floor,
    Identity,
    LeakyRelu(f64),
    Log,
    Neg,
    Not,
    Reciprocal,
    Relu,
    Sigmoid,
    Sign,
    Softplus,
    Sqrt,
    Tanh,
}

impl Unary {
    fn of(self, x: f64) -> f64 {
        match self {
            Unary::Abs => x.abs(),
            Unary::Ceil => libm::ceil(x),
            Unary::Elu(alpha) => {
                if x < 0.0 {
                    alpha * libm::expm1(x)
                } else {
                    x
                }
            }
            Unary::Erf => libm::erf(x),
            Unary::Exp => libm::exp(x),
            Unary::Floor => libm::floor(x),
            Unary::Identity => x,
            Unary::LeakyRelu(alpha) => {
                if x < 0.0 {
                    alpha * x
                } else {
                    x
                }
            }
            Unary::Log => libm::log(x),
            Unary::Neg => -x,
            Unary::Not => 1.0 - x,
            Unary::Reciprocal => 1.0 / x,
            Unary::Relu => {
                if x > 0.0 {
                    x
                } else {
                    0.0
                }
            }
            Unary::Sigmoid => logistic(x),
            Unary::Sign => f64::from(u8::from(x > 0.0)) - f64::from(u8::from(x < 0.0)),
            Unary::Softplus => libm::log1p(libm::exp(-x.abs())) + x.max(0.0),
            Unary::Sqrt => x.sqrt(),
            Unary::Tanh => libm::tanh(x),
        }
    }
}

/// Of two elements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Binary {
    Add,
    Sub,
    Mul,
    Div,
    Pow,
    Max,
    Min,
    Equal,
    Greater,
    GreaterOrEqual,
    Less,
    LessOrEqual,
    And,
    Or,
}

impl Binary {
    fn of(self, a: f64, b: f64) -> f64 {
        let truth = |v: bool| f64::from(u8::from(v));
        match self {
            Binary::Add => a + b,
            Binary::Sub => a - b,
            Binary::Mul => a * b,
            Binary::Div => a / b,
            Binary::Pow => libm::pow(a, b),
            Binary::Max => a.max(b),
            Binary::Min => a.min(b),
            Binary::Equal => truth(a == b),
            Binary::Greater => truth(a > b),
            Binary::GreaterOrEqual => truth(a >= b),
            Binary::Less => truth(a < b),
            Binary::LessOrEqual => truth(a <= b),
            Binary::And => truth(a != 0.0 && b != 0.0),
            Binary::Or => truth(a != 0.0 || b != 0.0),
        }
    }

    fn kind(self) -> Option<Kind> {
        use Binary::*;
        matches!(self, Equal | Greater | GreaterOrEqual | Less | LessOrEqual | And | Or).then_some(Kind::Bool)
    }
}

/// Along axes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reduce {
    Sum,
    Mean,
    Max,
    Min,
    L1,
    L2,
    SumSquare,
    LogSumExp,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Op {
    Unary(Unary),
    /// Of two inputs.
    Binary(Binary),
    /// Of any number of inputs, and whether their mean is wanted.
    Fold(Binary, bool),
    Clip(Option<f64>, Option<f64>),
    Where,
    MatMul,
    Gemm {
        alpha: f64,
        beta: f64,
        trans_a: bool,
        trans_b: bool,
    },
    Reduce {
        what: Reduce,
        axes: Option<Vec<i64>>,
        keep: bool,
        none_means_all: bool,
    },
    /// The place of the largest, or of the smallest.
    Arg {
        axis: i64,
        keep: bool,
        smallest: bool,
    },
    Softmax {
        axis: i64,
        log: bool,
        last_only: bool,
    },
    Cast(Kind),
    Reshape,
    Flatten(i64),
    Transpose(Option<Vec<i64>>),
    Concat(i64),
    Gather(i64),
    Squeeze(Option<Vec<i64>>),
    Unsqueeze(Option<Vec<i64>>),
    ArrayFeatureExtractor,
    Classical(Classical),
    Trees(Trees),
}

impl Op {
    /// The operator `op` of the default domain at `version`; `None` if it is not on the list.
    pub fn of(op: &str, version: i64, a: &mut Attributes<'_>) -> Result<Option<Self>, OnnxError> {
        Ok(Some(match op {
            "Abs" => Op::Unary(Unary::Abs),
            "Ceil" => Op::Unary(Unary::Ceil),
            "Elu" => Op::Unary(Unary::Elu(a.float("alpha", 1.0)?)),
            "Erf" => Op::Unary(Unary::Erf),
            "Exp" => Op::Unary(Unary::Exp),
            "Floor" => Op::Unary(Unary::Floor),
            "Identity" => Op::Unary(Unary::Identity),
            "LeakyRelu" => Op::Unary(Unary::LeakyRelu(a.float("alpha", 0.01)?)),
            "Log" => Op::Unary(Unary::Log),
            "Neg" => Op::Unary(Unary::Neg),
            "Not" => Op::Unary(Unary::Not),
            "Reciprocal" => Op::Unary(Unary::Reciprocal),
            "Relu" => Op::Unary(Unary::Relu),
            "Sigmoid" => Op::Unary(Unary::Sigmoid),
            "Sign" => Op::Unary(Unary::Sign),
            "Softplus" => Op::Unary(Unary::Softplus),
            "Sqrt" => Op::Unary(Unary::Sqrt),
            "Tanh" => Op::Unary(Unary::Tanh),
            "Add" => Op::Binary(Binary::Add),
            "Sub" => Op::Binary(Binary::Sub),
            "Mul" => Op::Binary(Binary::Mul),
            "Div" => Op::Binary(Binary::Div),
            "Pow" => Op::Binary(Binary::Pow),
            "Equal" => Op::Binary(Binary::Equal),
            "Greater" => Op::Binary(Binary::Greater),
            "GreaterOrEqual" => Op::Binary(Binary::GreaterOrEqual),
            "Less" => Op::Binary(Binary::Less),
            "LessOrEqual" => Op::Binary(Binary::LessOrEqual),
            "And" => Op::Binary(Binary::And),
            "Or" => Op::Binary(Binary::Or),
            "Max" => Op::Fold(Binary::Max, false),
            "Min" => Op::Fold(Binary::Min, false),
            "Sum" => Op::Fold(Binary::Add, false),
            "Mean" => Op::Fold(Binary::Add, true),
            "Clip" if version < 11 => {
                Op::Clip(Some(a.float("min", f64::from(f32::MIN))?), Some(a.float("max", f64::from(f32::MAX))?))
            }
            "Clip" => Op::Clip(None, None),
            "Where" => Op::Where,
            "MatMul" => Op::MatMul,
            "Gemm" => Op::Gemm {
                alpha: a.float("alpha", 1.0)?,
                beta: a.float("beta", 1.0)?,
                trans_a: a.int("transA", 0)? != 0,
                trans_b: a.int("transB", 0)? != 0,
            },
            "ReduceSum" => reduce(Reduce::Sum, a)?,
            "ReduceMean" => reduce(Reduce::Mean, a)?,
            "ReduceMax" => reduce(Reduce::Max, a)?,
            "ReduceMin" => reduce(Reduce::Min, a)?,
            "ReduceL1" => reduce(Reduce::L1, a)?,
            "ReduceL2" => reduce(Reduce::L2, a)?,
            "ReduceSumSquare" => reduce(Reduce::SumSquare, a)?,
            "ReduceLogSumExp" => reduce(Reduce::LogSumExp, a)?,
            "ArgMax" | "ArgMin" => {
                a.only("select_last_index", 0)?;
                Op::Arg { axis: a.int("axis", 0)?, keep: a.int("keepdims", 1)? != 0, smallest: op == "ArgMin" }
            }
            // Before version 13 everything from the axis on was one vector; along the last axis that is the same.
            "Softmax" | "LogSoftmax" => Op::Softmax {
                axis: a.int("axis", if version < 13 { 1 } else { -1 })?,
                log: op == "LogSoftmax",
                last_only: version < 13,
            },
            "Cast" => {
                a.ignore(&["saturate", "round_mode"]);
                let to = i32::try_from(a.int("to", 0)?).unwrap_or(0);
                Op::Cast(kind_of(to).map_err(|e| a.refuse(e.to_string()))?)
            }
            "Reshape" => {
                a.only("allowzero", 0)?;
                Op::Reshape
            }
            "Flatten" => Op::Flatten(a.int("axis", 1)?),
            "Transpose" => Op::Transpose(a.ints("perm")?.map(<[i64]>::to_vec)),
            "Concat" => Op::Concat(a.int("axis", 0)?),
            "Gather" => Op::Gather(a.int("axis", 0)?),
            "Squeeze" => Op::Squeeze(a.ints("axes")?.map(<[i64]>::to_vec)),
            "Unsqueeze" => Op::Unsqueeze(a.ints("axes")?.map(<[i64]>::to_vec)),
            "Dropout" => {
                a.ignore(&["ratio", "seed"]);
                Op::Unary(Unary::Identity)
            }
            _ => return Ok(None),
        }))
    }

    /// The operator of the domain `ai.onnx.ml`.
    pub fn of_ml(op: &str, a: &mut Attributes<'_>) -> Result<Option<Self>, OnnxError> {
        Ok(match op {
            "TreeEnsembleRegressor" => Some(Op::Trees(Trees::regressor(a)?)),
            "TreeEnsembleClassifier" => Some(Op::Trees(Trees::classifier(a)?)),
            "ArrayFeatureExtractor" => Some(Op::ArrayFeatureExtractor),
            _ => Classical::read(op, a)?.map(Op::Classical),
        })
    }

    /// Which output of the node it computes: of classifiers the scores, not the label.
    pub fn output(&self, op: &str) -> usize {
        usize::from(matches!(op, "TreeEnsembleClassifier" | "LinearClassifier"))
    }

    /// Runs it on its inputs; optional ones that are not given are `None`.
    pub fn run(&self, inputs: &[Option<&Tensor>]) -> Result<Tensor, OnnxError> {
        let input = |i: usize| {
            inputs.get(i).copied().flatten().ok_or_else(|| OnnxError::shape(format!("its input {i} is missing")))
        };
        let maybe = |i: usize| inputs.get(i).copied().flatten();
        let x = input(0)?;
        match self {
            Op::Unary(u) => Tensor::new(x.kind, x.shape.clone(), x.data.iter().map(|v| u.of(*v)).collect()),
            Op::Binary(b) => zip(x, input(1)?, b.kind(), |a, c| b.of(a, c)),
            Op::Fold(b, mean) => {
                let mut out = x.clone();
                for i in 1..inputs.len() {
                    out = zip(&out, input(i)?, None, |a, c| b.of(a, c))?;
                }
                let n = inputs.len() as f64;
                if *mean {
                    out.data.iter_mut().for_each(|v| *v = out.kind.put(*v / n));
                }
                Ok(out)
            }
            Op::Clip(low, high) => {
                let low = maybe(1).and_then(|t| t.data.first().copied()).or(*low).unwrap_or(f64::NEG_INFINITY);
                let high = maybe(2).and_then(|t| t.data.first().copied()).or(*high).unwrap_or(f64::INFINITY);
                Tensor::new(x.kind, x.shape.clone(), x.data.iter().map(|v| v.max(low).min(high)).collect())
            }
            Op::Where => {
                let (yes, no) = (input(1)?, input(2)?);
                let both = zip(yes, no, None, |a, _| a)?;
                let shape = zip(&Tensor { kind: both.kind, ..x.clone() }, &both, None, |a, _| a)?.shape;
                let (c, y, n) = (spread(x, &shape)?, spread(yes, &shape)?, spread(no, &shape)?);
                let of = c.data.iter().zip(y.data.iter().zip(&n.data));
                Tensor::new(yes.kind, shape, of.map(|(c, (y, n))| if *c != 0.0 { *y } else { *n }).collect())
            }
            Op::MatMul => product(x, input(1)?, false, false),
            Op::Gemm { alpha, beta, trans_a, trans_b } => {
                let mut out = product(x, input(1)?, *trans_a, *trans_b)?;
                out.data.iter_mut().for_each(|v| *v = out.kind.put(alpha * *v));
                match maybe(2) {
                    Some(c) => {
                        let c = spread(c, &out.shape)?;
                        zip(&out, &c, None, |a, c| a + beta * c)
                    }
                    None => Ok(out),
                }
            }
            Op::Reduce { what, axes, keep, none_means_all } => {
                let axes = match maybe(1) {
                    Some(t) => Some(t.ints()),
                    None => axes.clone(),
                };
                match axes.filter(|a| !a.is_empty()) {
                    None if !none_means_all => Ok(x.clone()),
                    axes => reduced(x, *what, axes, *keep),
                }
            }
            Op::Arg { axis, keep, smallest } => {
                let axis = x.axis(*axis)?;
                let (before, along, after) = x.around(axis);
                let mut data = Vec::with_capacity(before * after);
                for i in 0..before * after {
                    let at = |k: usize| x.data[(i / after * along + k) * after + i % after];
                    let better = |a: f64, b: f64| if *smallest { a < b } else { a > b };
                    let best = (1..along).fold(0, |best, k| if better(at(k), at(best)) { k } else { best });
                    data.push(best as f64);
                }
                Tensor::new(Kind::Int, shape_without(&x.shape, &[axis], *keep), data)
            }
            Op::Softmax { axis, log, last_only } => {
                let axis = x.axis(*axis)?;
                if *last_only && axis + 1 != x.shape.len() {
                    return Err(OnnxError::shape("only along the last axis before version 13".to_owned()));
                }
                let (before, along, after) = x.around(axis);
                let (mut out, mut line) = (x.clone(), vec![0.0; along]);
                for i in 0..before * after {
                    let at = |k: usize| (i / after * along + k) * after + i % after;
                    for (k, v) in line.iter_mut().enumerate() {
                        *v = x.data[at(k)];
                    }
                    softmax(&mut line, *log);
                    for (k, v) in line.iter().enumerate() {
                        out.data[at(k)] = out.kind.put(*v);
                    }
                }
                Ok(out)
            }
            Op::Cast(kind) => Tensor::new(*kind, x.shape.clone(), x.data.clone()),
            Op::Reshape => x.reshaped(wanted(x, &input(1)?.ints())?),
            Op::Flatten(axis) => {
                let rank = x.shape.len() as i64;
                let at = if *axis == rank { x.shape.len() } else { x.axis(*axis)? };
                x.reshaped(vec![x.shape[..at].iter().product(), x.shape[at..].iter().product()])
            }
            Op::Transpose(order) => transpose(x, order.as_deref()),
            Op::Concat(axis) => concat(inputs, *axis),
            Op::Gather(axis) => gather(x, input(1)?, *axis),
            Op::ArrayFeatureExtractor => {
                let at = input(1)?;
                gather(x, &at.reshaped(vec![at.data.len()])?, -1)
            }
            Op::Squeeze(axes) => {
                let axes = maybe(1).map(Tensor::ints).or_else(|| axes.clone());
                let axes = match axes {
                    Some(axes) => axes.iter().map(|a| x.axis(*a)).collect::<Result<Vec<_>, _>>()?,
                    None => (0..x.shape.len()).filter(|i| x.shape[*i] == 1).collect(),
                };
                x.reshaped(shape_without(&x.shape, &axes, false))
            }
            Op::Unsqueeze(axes) => {
                let axes = maybe(1).map(Tensor::ints).or_else(|| axes.clone()).unwrap_or_default();
                let rank = x.shape.len() + axes.len();
                let axes = axes.iter().map(|a| axis_of(*a, rank)).collect::<Result<Vec<_>, _>>()?;
                let mut old = x.shape.iter().copied();
                let shape = (0..rank).map(|i| if axes.contains(&i) { 1 } else { old.next().unwrap_or(1) });
                x.reshaped(shape.collect())
            }
            Op::Classical(c) => c.run(x),
            Op::Trees(t) => t.run(x),
        }
    }
}

fn reduce(what: Reduce, a: &mut Attributes<'_>) -> Result<Op, OnnxError> {
    let axes = a.ints("axes")?.map(<[i64]>::to_vec);
    let none_means_all = a.int("noop_with_empty_axes", 0)? == 0;
    Ok(Op::Reduce { what, axes, keep: a.int("keepdims", 1)? != 0, none_means_all })
}

/// In place, or its logarithm.
pub(super) fn softmax(row: &mut [f64], log: bool) {
    let top = row.iter().fold(f64::NEG_INFINITY, |a, v| a.max(*v));
    let sum: f64 = row.iter().map(|v| libm::exp(v - top)).sum();
    for v in row {
        *v = if log { *v - top - libm::log(sum) } else { libm::exp(*v - top) / sum };
    }
}

fn product(a: &Tensor, b: &Tensor, trans_a: bool, trans_b: bool) -> Result<Tensor, OnnxError> {
    if a.shape.len() != 2 || b.shape.len() != 2 || a.kind != b.kind {
        return Err(OnnxError::shape(format!("{:?} and {:?} are not two matrices of one type", a.shape, b.shape)));
    }
    let turn = |t: &Tensor, trans: bool| if trans { (t.shape[1], t.shape[0]) } else { (t.shape[0], t.shape[1]) };
    let ((m, k), (k2, n)) = (turn(a, trans_a), turn(b, trans_b));
    if k != k2 {
        return Err(OnnxError::shape(format!("the shapes {:?} and {:?} do not multiply", a.shape, b.shape)));
    }
    if m.saturating_mul(n).saturating_mul(k) > MAX_PRODUCTS || m.saturating_mul(n) > MAX_ELEMENTS {
        return Err(OnnxError::shape(format!("a product of {m} × {k} × {n} is too large")));
    }
    let mut data = vec![0.0; m * n];
    for i in 0..m {
        for l in 0..k {
            let x = a.data[if trans_a { l * m + i } else { i * k + l }];
            for j in 0..n {
                data[i * n + j] += x * b.data[if trans_b { j * k + l } else { l * n + j }];
            }
        }
    }
    Tensor::new(a.kind, vec![m, n], data)
}

fn shape_without(shape: &[usize], axes: &[usize], keep: bool) -> Vec<usize> {
    let of = shape.iter().enumerate();
    of.filter_map(|(i, n)| match (axes.contains(&i), keep) {
        (true, true) => Some(1),
        (true, false) => None,
        (false, _) => Some(*n),
    })
    .collect()
}

fn reduced(x: &Tensor, what: Reduce, axes: Option<Vec<i64>>, keep: bool) -> Result<Tensor, OnnxError> {
    let axes = match axes {
        Some(axes) => axes.iter().map(|a| x.axis(*a)).collect::<Result<Vec<_>, _>>()?,
        None => (0..x.shape.len()).collect(),
    };
    let kept = shape_without(&x.shape, &axes, true);
    // The place among the results of each element, in the order of the elements.
    let mut places = Vec::with_capacity(x.data.len());
    for i in 0..x.data.len() {
        let (mut rest, mut at, mut stride) = (i, 0, 1);
        for (k, n) in x.shape.iter().enumerate().rev() {
            at += if axes.contains(&k) { 0 } else { rest % n * stride };
            stride *= kept[k];
            rest /= n;
        }
        places.push(at);
    }
    let n = size(&kept)?;
    let count = x.data.len() as f64 / n.max(1) as f64;
    let (mut out, mut top) = (vec![0.0; n], vec![f64::NEG_INFINITY; n]);
    if matches!(what, Reduce::Max | Reduce::LogSumExp) {
        places.iter().zip(&x.data).for_each(|(p, v)| top[*p] = top[*p].max(*v));
    }
    if what == Reduce::Min {
        out.fill(f64::INFINITY);
    }
    for (p, v) in places.iter().zip(&x.data) {
        let o = &mut out[*p];
        match what {
            Reduce::Sum | Reduce::Mean => *o += v,
            Reduce::Max => {}
            Reduce::Min => *o = o.min(*v),
            Reduce::L1 => *o += v.abs(),
            Reduce::L2 | Reduce::SumSquare => *o += v * v,
            Reduce::LogSumExp => *o += libm::exp(v - top[*p]),
        }
    }
    for (o, top) in out.iter_mut().zip(&top) {
        match what {
            Reduce::Mean => *o /= count,
            Reduce::L2 => *o = o.sqrt(),
            Reduce::Max => *o = *top,
            Reduce::LogSumExp => *o = libm::log(*o) + top,
            _ => {}
        }
    }
    Tensor::new(x.kind, shape_without(&x.shape, &axes, keep), out)
}

/// The shape that `Reshape` asks for: 0 is as before, −1 what is left.
fn wanted(x: &Tensor, ask: &[i64]) -> Result<Vec<usize>, OnnxError> {
    let bad = || OnnxError::shape(format!("the shape {:?} cannot become {ask:?}", x.shape));
    let mut shape = Vec::with_capacity(ask.len());
    let mut open = None;
    for (i, n) in ask.iter().enumerate() {
        shape.push(match *n {
            0 => *x.shape.get(i).ok_or_else(bad)?,
            -1 if open.is_none() => {
                open = Some(i);
                1
            }
            n => usize::try_from(n).map_err(|_| bad())?,
        });
    }
    if let Some(i) = open {
        let others = size(&shape)?.max(1);
        shape[i] = x.data.len() / others;
    }
    Ok(shape)
}

fn transpose(x: &Tensor, order: Option<&[i64]>) -> Result<Tensor, OnnxError> {
    let rank = x.shape.len();
    let order = match order {
        Some(order) => order.iter().map(|a| x.axis(*a)).collect::<Result<Vec<_>, _>>()?,
        None => (0..rank).rev().collect(),
    };
    if order.len() != rank || (0..rank).any(|i| !order.contains(&i)) {
        return Err(OnnxError::shape(format!("{order:?} is no order of {rank} axes")));
    }
    let shape: Vec<usize> = order.iter().map(|a| x.shape[*a]).collect();
    let stride = |a: usize| x.shape[a + 1..].iter().product::<usize>();
    let strides: Vec<usize> = order.iter().map(|a| stride(*a)).collect();
    let place = |mut i: usize| {
        let mut at = 0;
        for (n, stride) in shape.iter().zip(&strides).rev() {
            at += i % n * stride;
            i /= n;
        }
        at
    };
    let data = (0..x.data.len()).map(|i| x.data[place(i)]).collect();
    Tensor::new(x.kind, shape, data)
}

fn concat(inputs: &[Option<&Tensor>], axis: i64) -> Result<Tensor, OnnxError> {
    let parts: Vec<&Tensor> = inputs.iter().copied().flatten().collect();
    let first = parts[0];
    let axis = first.axis(axis)?;
    let (before, ..) = first.around(axis);
    let fits = |t: &&Tensor| {
        t.kind == first.kind
            && t.shape.len() == first.shape.len()
            && t.shape.iter().zip(&first.shape).enumerate().all(|(i, (a, b))| i == axis || a == b)
    };
    if !parts.iter().all(fits) {
        return Err(OnnxError::shape("what is joined has other shapes or types".to_owned()));
    }
    let mut shape = first.shape.clone();
    shape[axis] = parts.iter().map(|t| t.shape[axis]).sum();
    let mut data = Vec::with_capacity(size(&shape)?);
    for i in 0..before {
        for t in &parts {
            let (_, along, after) = t.around(axis);
            data.extend_from_slice(&t.data[i * along * after..(i + 1) * along * after]);
        }
    }
    Tensor::new(first.kind, shape, data)
}

fn gather(x: &Tensor, at: &Tensor, axis: i64) -> Result<Tensor, OnnxError> {
    let axis = x.axis(axis)?;
    let (before, along, after) = x.around(axis);
    let places = at.ints().iter().map(|i| axis_of(*i, along)).collect::<Result<Vec<_>, _>>()?;
    let shape: Vec<usize> = x.shape[..axis].iter().chain(&at.shape).chain(&x.shape[axis + 1..]).copied().collect();
    let mut data = Vec::with_capacity(size(&shape)?);
    for i in 0..before {
        for p in &places {
            let from = (i * along + p) * after;
            data.extend_from_slice(&x.data[from..from + after]);
        }
    }
    Tensor::new(x.kind, shape, data)
}
