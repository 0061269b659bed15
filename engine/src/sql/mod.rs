//! SQL steps: planned once by DataFusion, run as vectorised expressions, row by row where a row fails.

mod aggregates;
mod condition;
mod context;
mod functions;
mod join;
mod memory;
mod reads;
mod reduce;
mod rows;
mod signal;
mod signal_functions;
mod windowed;

pub use condition::Condition;
pub use context::functions as registered_functions;
pub use memory::{Memory, RowPlaces};
pub use rows::{RowPipeline, Selection, Surroundings};
pub use windowed::WindowedQuery;

use datafusion::error::DataFusionError;

/// The part of a DataFusion error that a pipeline's author can use.
pub(crate) fn message(e: &DataFusionError) -> String {
    match e {
        DataFusionError::Diagnostic(_, inner) | DataFusionError::Context(_, inner) => message(inner),
        DataFusionError::Collection(all) => all.iter().map(message).collect::<Vec<_>>().join("; "),
        other => {
            let text = other.strip_backtrace();
            // A function's own word on its arguments, without what DataFusion puts around it.
            let own = text.split_once("user-defined coercion failed with: ").map(|(_, own)| own);
            let own = own.map(|own| own.split(" No function matches").next().unwrap_or(own).trim_end_matches('.'));
            own.unwrap_or(&text).trim_start_matches("Error during planning: ").to_owned()
        }
    }
}
