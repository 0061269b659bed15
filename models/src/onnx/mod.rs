//! Models brought from elsewhere, as ONNX.
//!
//! The file's bytes go into a model file of ours as they are, with card, features and calibration, so such a model is hashed,
//! anchored and re-executed like any other. What it says is one number of one output: a score that is calibrated on held-back
//! rows, a probability, or an estimate.
//!
//! **Why the graph is interpreted here.** A verdict must come out the same, bit for bit, on any machine. `tract` chooses its
//! kernels by the CPU at hand (`tract-linalg`, `x86_64/mod.rs`: matrix products, sigmoid and tanh in AVX-512, FMA, AVX and generic
//! versions). They differ in bits: FMA rounds once where the others round twice, tiles of another shape add in another order, and
//! the activations are polynomials in several forms. So nothing of it is used: the file is read by [`proto`] and the graph evaluated by [`graph`], whose
//! operators are a closed list: +, −, ×, ÷, √ as IEEE 754 has them, everything else from `libm`, sums in the order of elements in
//! double precision, rounded once. Results differ from other runtimes' by rounding (some 10⁻⁶ of single-precision values).
//!
//! **What is refused**, with operator and node: what draws at random, what is not on the list, attributes that are not known,
//! graphs within graphs, weights outside the file, versions of the operator sets that are not known, files above 16 MiB. What the
//! chosen output does not need (such as a label beside the probabilities) is not looked at.
//!
//! **Contributions.** A graph explains nothing by itself. What a window adds up to is compared with a reference, the medians of the
//! rows fitted on: the score is how much stranger the window is than the reference, and features are exchanged for
//! it one after another; what an exchange changes is the feature's contribution. Up to four features that is averaged over all
//! orders (Shapley values: Shapley 1953), beyond that over the order of the features and its reverse. Contributions add up to
//! the score, or to the difference of a prognosis from that of the reference. It takes 2ᵖ evaluations, or 2p.
//!
//! Determinism: bit for bit, on every machine. State: none.

mod attributes;
mod classical;
mod config;
mod explain;
mod file;
mod graph;
mod ops;
mod proto;
mod scorer;
mod tensor;
mod train;
mod trees;

pub use config::{HigherIs, OnnxConfig, OnnxSays};
pub use scorer::OnnxScorer;

pub(crate) use file::decode;
pub(crate) use train::train;

use thiserror::Error;

/// The name in TOML and in the model file.
pub const KIND: &str = "onnx";

/// Why an ONNX file cannot be used.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum OnnxError {
    /// It is not an ONNX file.
    #[error("not an ONNX file: {0}")]
    NotOnnx(String),
    /// It is too large.
    #[error("{bytes} bytes are too many, at most {} are taken; make the model smaller", graph::MAX_BYTES)]
    TooLarge {
        /// Its size.
        bytes: usize,
    },
    /// Its operators are of a version whose meaning is not known here.
    #[error("operator set {domain} {found} is not known, {first} to {last} are; export with `target_opset`")]
    Version {
        /// Which set.
        domain: &'static str,
        /// Its version.
        found: i64,
        /// First version known.
        first: i64,
        /// Last version known.
        last: i64,
    },
    /// A node cannot be evaluated.
    #[error("operator {op} of node {node}: {why}")]
    Operator {
        /// The operator.
        op: String,
        /// The node's name.
        node: String,
        /// Why.
        why: String,
    },
    /// Shapes or types do not fit.
    #[error("{0}")]
    Shape(String),
    /// Its inputs do not fit the features.
    #[error("input: {0}")]
    Input(String),
    /// Its output does not fit what is wanted.
    #[error("output: {0}")]
    Output(String),
}

impl OnnxError {
    fn shape(why: impl Into<String>) -> Self {
        OnnxError::Shape(why.into())
    }
}
