//! The other operators of `ai.onnx.ml`: scalers, linear models, support vectors, encoders.

use super::OnnxError;
use super::attributes::Attributes;
use super::ops::softmax;
use super::tensor::{Kind, Tensor};

/// Outputs of one node, at most.
pub(super) const MAX_OUTPUTS: usize = 4096;

/// What is done with a model's scores.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Post {
    None,
    Logistic,
    Softmax,
}

impl Post {
    pub fn read(a: &mut Attributes<'_>) -> Result<Self, OnnxError> {
        match a.text("post_transform", "NONE")?.as_str() {
            "NONE" => Ok(Self::None),
            "LOGISTIC" => Ok(Self::Logistic),
            "SOFTMAX" => Ok(Self::Softmax),
            other => Err(a.refuse(format!("the transformation {other} is not supported"))),
        }
    }

    /// Of one row.
    pub fn apply(self, row: &mut [f64]) {
        match self {
            Post::None => {}
            Post::Logistic => row.iter_mut().for_each(|v| *v = logistic(*v)),
            Post::Softmax => softmax(row, false),
        }
    }
}

pub(super) fn logistic(x: f64) -> f64 {
    1.0 / (1.0 + libm::exp(-x))
}

/// Refuses rows of other columns than a model was made for; with `more`, of fewer.
pub(super) fn check_width(width: usize, columns: usize, more: bool) -> Result<(), OnnxError> {
    match width == columns || (more && width < columns) {
        true => Ok(()),
        false => Err(OnnxError::shape(format!("{columns} columns come, {width} are needed"))),
    }
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Classical {
    Scaler {
        offset: Vec<f64>,
        scale: Vec<f64>,
    },
    Normalizer(Norm),
    Binarizer(f64),
    /// Coefficients by output.
    Linear {
        coefficients: Vec<f64>,
        intercepts: Vec<f64>,
        post: Post,
    },
    Support(Support),
    Encoder {
        keys: Vec<f64>,
        values: Vec<f64>,
        default: f64,
        kind: Kind,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Norm {
    Max,
    L1,
    L2,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Support {
    kernel: Kernel,
    gamma: f64,
    coef0: f64,
    degree: f64,
    vectors: Vec<f64>,
    coefficients: Vec<f64>,
    rho: f64,
    one_class: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kernel {
    Linear,
    Poly,
    Rbf,
    Sigmoid,
}

impl Classical {
    pub fn read(op: &str, a: &mut Attributes<'_>) -> Result<Option<Self>, OnnxError> {
        Ok(Some(match op {
            "Scaler" => {
                let (offset, scale) = (a.floats("offset")?.unwrap_or_default(), a.floats("scale")?.unwrap_or_default());
                if offset.is_empty() || scale.is_empty() {
                    return Err(a.refuse("it has no offset or no scale"));
                }
                Self::Scaler { offset, scale }
            }
            "Normalizer" => Self::Normalizer(match a.text("norm", "MAX")?.as_str() {
                "MAX" => Norm::Max,
                "L1" => Norm::L1,
                "L2" => Norm::L2,
                other => return Err(a.refuse(format!("the norm {other} is not supported"))),
            }),
            "Binarizer" => Self::Binarizer(a.float("threshold", 0.0)?),
            "LinearRegressor" => {
                let outputs = usize::try_from(a.int("targets", 1)?).unwrap_or(0);
                Self::linear(a, outputs)?
            }
            "LinearClassifier" => {
                a.ignore(&["multi_class"]);
                let ints = a.ints("classlabels_ints")?.map(<[i64]>::len);
                let texts = a.texts("classlabels_strings")?.map(|l| l.len());
                let outputs = ints.or(texts).unwrap_or(0);
                Self::linear(a, outputs)?
            }
            "SVMRegressor" => Self::Support(Support::read(a)?),
            "LabelEncoder" => {
                let keys = match a.ints("keys_int64s")? {
                    Some(keys) => keys.iter().map(|v| *v as f64).collect(),
                    None => a.floats("keys_floats")?.unwrap_or_default(),
                };
                let (default_int, default_float) = (a.int("default_int64", -1)?, a.float("default_float", -0.0)?);
                let (values, default, kind) = match a.floats("values_floats")? {
                    Some(values) => (values, default_float, Kind::F32),
                    None => {
                        let values = a.ints("values_int64s")?.unwrap_or_default();
                        (values.iter().map(|v| *v as f64).collect(), default_int as f64, Kind::Int)
                    }
                };
                a.ignore(&["default_string"]);
                if keys.is_empty() || keys.len() != values.len() {
                    return Err(a.refuse("only numbers are encoded as numbers here, as many as there are keys"));
                }
                Self::Encoder { keys, values, default, kind }
            }
            _ => return Ok(None),
        }))
    }

    fn linear(a: &mut Attributes<'_>, outputs: usize) -> Result<Self, OnnxError> {
        let coefficients = a.floats("coefficients")?.unwrap_or_default();
        let mut intercepts = a.floats("intercepts")?.unwrap_or_default();
        let post = Post::read(a)?;
        if outputs == 0 || outputs > MAX_OUTPUTS {
            return Err(a.refuse(format!("it has {outputs} outputs, not 1 to {MAX_OUTPUTS}")));
        }
        if intercepts.is_empty() {
            intercepts = vec![0.0; outputs];
        }
        if intercepts.len() != outputs || coefficients.is_empty() || coefficients.len() % outputs != 0 {
            return Err(a.refuse(format!(
                "{} coefficients and {} intercepts do not fit {outputs} outputs",
                coefficients.len(),
                intercepts.len()
            )));
        }
        Ok(Self::Linear { coefficients, intercepts, post })
    }

    pub fn run(&self, x: &Tensor) -> Result<Tensor, OnnxError> {
        let (rows, columns) = x.rows()?;
        let lines = || x.data.chunks_exact(columns.max(1));
        match self {
            Self::Scaler { offset, scale } => {
                for of in [offset, scale] {
                    check_width(if of.len() == 1 { columns } else { of.len() }, columns, false)?;
                }
                let at = |of: &[f64], j: usize| of[if of.len() == 1 { 0 } else { j }];
                let data = lines()
                    .flat_map(|row| row.iter().enumerate())
                    .map(|(j, v)| Kind::F32.put(v - at(offset, j)) * at(scale, j))
                    .collect();
                Tensor::new(Kind::F32, x.shape.clone(), data)
            }
            Self::Normalizer(norm) => {
                let mut data = Vec::with_capacity(x.data.len());
                for row in lines() {
                    let length = match norm {
                        Norm::Max => row.iter().fold(f64::NEG_INFINITY, |a, v| a.max(*v)),
                        Norm::L1 => row.iter().map(|v| v.abs()).sum(),
                        Norm::L2 => row.iter().map(|v| v * v).sum::<f64>().sqrt(),
                    };
                    data.extend(row.iter().map(|v| if length == 0.0 { *v } else { v / length }));
                }
                Tensor::new(Kind::F32, x.shape.clone(), data)
            }
            Self::Binarizer(threshold) => {
                let data = x.data.iter().map(|v| f64::from(u8::from(v > threshold))).collect();
                Tensor::new(x.kind, x.shape.clone(), data)
            }
            Self::Linear { coefficients, intercepts, post } => {
                check_width(coefficients.len() / intercepts.len(), columns, false)?;
                let mut data = Vec::with_capacity(rows * intercepts.len());
                for row in lines() {
                    let of = coefficients.chunks_exact(columns).zip(intercepts);
                    let mut out: Vec<f64> = of.map(|(c, b)| dot(row, c) + b).collect();
                    post.apply(&mut out);
                    data.append(&mut out);
                }
                Tensor::new(Kind::F32, vec![rows, intercepts.len()], data)
            }
            Self::Support(s) => s.run(rows, columns, lines()),
            Self::Encoder { keys, values, default, kind } => {
                let code = |v: &f64| keys.iter().position(|k| k == v).map_or(*default, |i| values[i]);
                Tensor::new(*kind, x.shape.clone(), x.data.iter().map(code).collect())
            }
        }
    }
}

impl Support {
    fn read(a: &mut Attributes<'_>) -> Result<Self, OnnxError> {
        if Post::read(a)? != Post::None {
            return Err(a.refuse("a transformation of the output is not supported"));
        }
        let kernel = match a.text("kernel_type", "LINEAR")?.as_str() {
            "LINEAR" => Kernel::Linear,
            "POLY" => Kernel::Poly,
            "RBF" => Kernel::Rbf,
            "SIGMOID" => Kernel::Sigmoid,
            other => return Err(a.refuse(format!("the kernel {other} is not supported"))),
        };
        let parameters = a.floats("kernel_params")?.unwrap_or_default();
        let at = |i: usize, default: f64| parameters.get(i).copied().unwrap_or(default);
        let n = usize::try_from(a.int("n_supports", 0)?).unwrap_or(0);
        let support = Self {
            kernel,
            gamma: at(0, 0.0),
            coef0: at(1, 0.0),
            degree: at(2, 3.0),
            vectors: a.floats("support_vectors")?.unwrap_or_default(),
            coefficients: a.floats("coefficients")?.unwrap_or_default(),
            rho: a.floats("rho")?.unwrap_or_default().first().copied().unwrap_or(0.0),
            one_class: a.int("one_class", 0)? != 0,
        };
        if n == 0
            || support.coefficients.len() != n
            || support.vectors.is_empty()
            || !support.vectors.len().is_multiple_of(n)
        {
            return Err(a.refuse(format!("{n} support vectors do not fit their values and coefficients")));
        }
        Ok(support)
    }

    fn run<'a>(
        &self,
        rows: usize,
        columns: usize,
        lines: impl Iterator<Item = &'a [f64]>,
    ) -> Result<Tensor, OnnxError> {
        check_width(self.vectors.len() / self.coefficients.len(), columns, false)?;
        let mut out = Vec::with_capacity(rows);
        for row in lines {
            let mut sum = 0.0;
            for (v, c) in self.vectors.chunks_exact(columns).zip(&self.coefficients) {
                let inner = |scale: f64| scale * dot(row, v) + self.coef0;
                sum += c * match self.kernel {
                    Kernel::Linear => dot(row, v),
                    Kernel::Poly => libm::pow(inner(self.gamma), self.degree),
                    Kernel::Sigmoid => libm::tanh(inner(self.gamma)),
                    Kernel::Rbf => {
                        let squares: f64 = row.iter().zip(v).map(|(a, b)| (a - b) * (a - b)).sum();
                        libm::exp(-self.gamma * squares)
                    }
                };
            }
            let value = sum + self.rho;
            out.push(match self.one_class {
                true if value > 0.0 => 1.0,
                true => -1.0,
                false => value,
            });
        }
        Tensor::new(Kind::F32, vec![rows, 1], out)
    }
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}
