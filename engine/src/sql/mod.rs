//! SQL steps: planned once by DataFusion, run as vectorised expressions, row by row where a row fails.

mod aggregates;
mod condition;
mod context;
mod functions;
mod reduce;
mod rows;
mod signal;
mod signal_functions;
mod windowed;

pub use condition::Condition;
pub use context::functions as registered_functions;
pub use rows::{RowPipeline, Selection};
pub use windowed::WindowedQuery;

use datafusion::error::DataFusionError;

/// The part of a DataFusion error that a pipeline's author can use.
pub(crate) fn message(e: &DataFusionError) -> String {
    match e {
        DataFusionError::Diagnostic(_, inner) | DataFusionError::Context(_, inner) => message(inner),
        DataFusionError::Collection(all) => all.iter().map(message).collect::<Vec<_>>().join("; "),
        other => other.strip_backtrace().trim_start_matches("Error during planning: ").to_owned(),
    }
}
