//! Tensors of the interpreter.
//!
//! Every value is held as an `f64` that the tensor's type can represent. Sums are added up in `f64` in the order of the
//! elements and rounded once; one +, −, ×, ÷ or √ of two `f32` computed in `f64` and rounded is what `f32` arithmetic gives.

use super::OnnxError;

/// A tensor has at most so many elements, which bounds what a hostile graph can make us allocate.
pub(super) const MAX_ELEMENTS: usize = 1 << 20;

/// What the elements are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    F32,
    F64,
    /// Of any width in the file; exact up to 2⁵³.
    Int,
    Bool,
}

impl Kind {
    /// The nearest value that the type has.
    pub fn put(self, v: f64) -> f64 {
        match self {
            Kind::F32 => f64::from(v as f32),
            Kind::F64 => v,
            Kind::Int => (v as i64) as f64,
            Kind::Bool => f64::from(u8::from(v != 0.0)),
        }
    }
}

/// Row-major.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Tensor {
    pub kind: Kind,
    pub shape: Vec<usize>,
    pub data: Vec<f64>,
}

impl Tensor {
    /// Rounds `data` to the type and refuses a shape that does not fit it.
    pub fn new(kind: Kind, shape: Vec<usize>, mut data: Vec<f64>) -> Result<Self, OnnxError> {
        if size(&shape)? != data.len() {
            return Err(OnnxError::shape(format!("{} elements do not fill the shape {shape:?}", data.len())));
        }
        for v in &mut data {
            *v = kind.put(*v);
        }
        Ok(Self { kind, shape, data })
    }

    /// The same elements in another shape.
    pub fn reshaped(&self, shape: Vec<usize>) -> Result<Self, OnnxError> {
        Self::new(self.kind, shape, self.data.clone())
    }

    /// Of rows and columns; a vector is one row.
    pub fn rows(&self) -> Result<(usize, usize), OnnxError> {
        match self.shape.as_slice() {
            [n] => Ok((1, *n)),
            [m, n] => Ok((*m, *n)),
            other => Err(OnnxError::shape(format!("a matrix is needed, not the shape {other:?}"))),
        }
    }

    /// An axis, where negative ones count from the end.
    pub fn axis(&self, axis: i64) -> Result<usize, OnnxError> {
        axis_of(axis, self.shape.len())
    }

    /// How many elements come before, along and after an axis.
    pub fn around(&self, axis: usize) -> (usize, usize, usize) {
        let product = |of: &[usize]| of.iter().product::<usize>();
        (product(&self.shape[..axis]), self.shape[axis], product(&self.shape[axis + 1..]))
    }

    /// Its elements as whole numbers.
    pub fn ints(&self) -> Vec<i64> {
        self.data.iter().map(|v| *v as i64).collect()
    }
}

/// The number of elements of a shape, within bounds.
pub(super) fn size(shape: &[usize]) -> Result<usize, OnnxError> {
    // The other dimensions of an empty tensor are bounded too, for their product is taken elsewhere.
    let n = shape.iter().try_fold(1usize, |n, d| n.checked_mul((*d).max(1))).filter(|n| *n <= MAX_ELEMENTS);
    let n = n.map(|n| if shape.contains(&0) { 0 } else { n });
    n.ok_or_else(|| OnnxError::shape(format!("the shape {shape:?} has more than {MAX_ELEMENTS} elements")))
}

/// An axis of so many, where negative ones count from the end.
pub(super) fn axis_of(axis: i64, rank: usize) -> Result<usize, OnnxError> {
    let at = if axis < 0 { axis + rank as i64 } else { axis };
    usize::try_from(at)
        .ok()
        .filter(|a| *a < rank)
        .ok_or_else(|| OnnxError::shape(format!("there is no axis {axis} among {rank}")))
}

/// The shape both broadcast to.
fn broadcast(a: &[usize], b: &[usize]) -> Result<Vec<usize>, OnnxError> {
    let rank = a.len().max(b.len());
    let at = |s: &[usize], i: usize| if i + s.len() >= rank { s[i + s.len() - rank] } else { 1 };
    let shape = (0..rank).map(|i| match (at(a, i), at(b, i)) {
        (m, n) if m == n => Ok(m),
        (1, n) => Ok(n),
        (m, 1) => Ok(m),
        _ => Err(OnnxError::shape(format!("the shapes {a:?} and {b:?} do not go together"))),
    });
    let shape = shape.collect::<Result<Vec<_>, _>>()?;
    size(&shape)?;
    Ok(shape)
}

/// Where in `from` the element of `shape` at the flat index `i` is.
fn source(i: usize, shape: &[usize], from: &[usize]) -> usize {
    let (mut i, mut at, mut stride) = (i, 0, 1);
    let skip = shape.len() - from.len();
    for (k, n) in shape.iter().enumerate().rev() {
        let along = i % n;
        i /= n;
        if k >= skip {
            let own = from[k - skip];
            at += if own == 1 { 0 } else { along * stride };
            stride *= own;
        }
    }
    at
}

/// `f` of the elements of two tensors of one type, broadcast to each other; the result is of `kind`, or of theirs.
pub(super) fn zip(
    a: &Tensor,
    b: &Tensor,
    kind: Option<Kind>,
    f: impl Fn(f64, f64) -> f64,
) -> Result<Tensor, OnnxError> {
    if a.kind != b.kind {
        return Err(OnnxError::shape(format!("{:?} and {:?} do not mix", a.kind, b.kind)));
    }
    let shape = broadcast(&a.shape, &b.shape)?;
    let n = size(&shape)?;
    let data = if a.shape == b.shape {
        a.data.iter().zip(&b.data).map(|(a, b)| f(*a, *b)).collect()
    } else {
        let of = |t: &Tensor, i: usize| t.data[source(i, &shape, &t.shape)];
        (0..n).map(|i| f(of(a, i), of(b, i))).collect()
    };
    Tensor::new(kind.unwrap_or(a.kind), shape, data)
}

/// The elements of `t` broadcast to `shape`.
pub(super) fn spread(t: &Tensor, shape: &[usize]) -> Result<Tensor, OnnxError> {
    if broadcast(&t.shape, shape)? != shape {
        return Err(OnnxError::shape(format!("the shape {:?} does not broadcast to {shape:?}", t.shape)));
    }
    let data = (0..size(shape)?).map(|i| t.data[source(i, shape, &t.shape)]).collect();
    Tensor::new(t.kind, shape.to_vec(), data)
}
