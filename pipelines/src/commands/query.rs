//! `avouch query`: SQL over verdicts.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, ValueEnum};

use super::fail;
use crate::lang::Pipeline;
use crate::query::{Verdicts, csv, json, table};

/// Ask SQL of a pipeline's verdicts: of its Parquet archive, or of its logs if it has none. The table is `verdicts`
#[derive(Debug, Clone, Args)]
pub struct QueryArgs {
    /// The pipeline file, an archive (its directory, or s3://bucket/prefix), or a pipeline's state directory
    #[arg(value_name = "PIPELINE.toml|DIR|s3://…")]
    pub place: PathBuf,

    /// The query, such as "SELECT severity, count(*) FROM verdicts WHERE day = '2026-01-07' GROUP BY severity"
    pub sql: String,

    /// Which parquet sink's archive, where the pipeline has several
    #[arg(long, value_name = "NAME")]
    pub sink: Option<String>,

    /// How rows are printed
    #[arg(long, value_enum, default_value_t = RowFormat::Table)]
    pub format: RowFormat,
}

/// How rows are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum RowFormat {
    /// For a terminal.
    Table,
    /// With a header line.
    Csv,
    /// One object a line.
    Json,
}

/// Runs the query and prints its rows.
pub fn run(args: &QueryArgs) -> ExitCode {
    let verdicts = if let Some(url) = args.place.to_str().filter(|p| p.starts_with("s3://")) {
        Ok(Verdicts::in_bucket(url))
    } else if args.place.is_dir() {
        Verdicts::in_directory(&args.place)
    } else {
        match Pipeline::load(&args.place) {
            Ok(pipeline) => Verdicts::of(&pipeline, args.sink.as_deref()),
            Err(diags) => {
                eprint!("{}", diags.render_text(super::check::colour()));
                return ExitCode::FAILURE;
            }
        }
    };
    let verdicts = match verdicts {
        Ok(verdicts) => verdicts,
        Err(e) => return fail(false, e),
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(r) => r,
        Err(e) => return fail(false, format!("cannot start the async runtime: {e}")),
    };
    let (schema, rows) = match runtime.block_on(verdicts.query(&args.sql)) {
        Ok(answer) => answer,
        Err(e) => return fail(false, e),
    };
    let text = match args.format {
        RowFormat::Table => table(&schema, &rows),
        RowFormat::Csv => csv(&schema, &rows),
        RowFormat::Json => json(&schema, &rows),
    };
    match text {
        // A closed pipe is the reader's choice, not an error of ours.
        Ok(text) => drop(std::io::stdout().write_all(text.as_bytes())),
        Err(e) => return fail(false, e),
    }
    ExitCode::SUCCESS
}
