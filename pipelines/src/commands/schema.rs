//! `avouch schema`: the JSON Schema of the pipeline language.

use std::io::Write as _;
use std::process::ExitCode;

use clap::Args;

use crate::lang::schema;

/// Print the JSON Schema (draft 2020-12) of pipeline files, by which editors complete, check and document every key. Name it in
/// the first line of a pipeline: `#:schema pipeline.schema.json`
#[derive(Debug, Clone, Args)]
pub struct SchemaArgs {}

/// Prints the schema.
pub fn run(_: &SchemaArgs) -> ExitCode {
    match std::io::stdout().write_all(schema::text().as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}
