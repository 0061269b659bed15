//! `avouch graph`: a pipeline as a picture, or as text that other programs draw.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, ValueEnum};

use super::fail;
use crate::graph::{Graph, dot, mermaid, svg};
use crate::lang::{self, Models, Pipeline};

/// Draw a pipeline: sources, reference tables, steps, models, sinks, dead letters and anchor. Shows no secret
#[derive(Debug, Clone, Args)]
pub struct GraphArgs {
    /// The pipeline file
    #[arg(value_name = "PIPELINE.toml")]
    pub file: PathBuf,

    /// What to write: text for Mermaid or Graphviz, or a picture. By the ending of --out if not given, else mermaid
    #[arg(long, value_enum)]
    pub format: Option<GraphFormat>,

    /// Write to this file instead of standard output
    #[arg(long, value_name = "PATH")]
    pub out: Option<PathBuf>,
}

/// How a graph is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum GraphFormat {
    /// A Mermaid flowchart.
    Mermaid,
    /// The DOT language of Graphviz.
    Dot,
    /// A picture.
    Svg,
}

impl GraphFormat {
    fn of_file(path: &std::path::Path) -> Option<Self> {
        match path.extension()?.to_str()? {
            "svg" => Some(Self::Svg),
            "dot" | "gv" => Some(Self::Dot),
            "mmd" | "mermaid" => Some(Self::Mermaid),
            _ => None,
        }
    }

    /// The graph in this form.
    pub fn write(self, graph: &Graph) -> String {
        match self {
            Self::Mermaid => mermaid(graph),
            Self::Dot => dot(graph),
            Self::Svg => svg(graph),
        }
    }
}

/// Draws the pipeline. Exit code 1 if the file has mistakes; its models need not be there.
pub fn run(args: &GraphArgs) -> ExitCode {
    let graph = match Pipeline::load(&args.file).and_then(|p| Ok(Graph::of(&p, &lang::plan(&p, &Models::new())?))) {
        Ok(graph) => graph,
        Err(diags) => {
            eprint!("{}", diags.render_text(super::check::colour()));
            return ExitCode::FAILURE;
        }
    };
    let format = args.format.or_else(|| GraphFormat::of_file(args.out.as_deref()?)).unwrap_or(GraphFormat::Mermaid);
    let text = format.write(&graph);
    match &args.out {
        Some(path) => {
            if let Err(e) = std::fs::write(path, text) {
                return fail(false, format!("{}: {e}", path.display()));
            }
        }
        // A closed pipe is the reader's choice, not an error of ours.
        None => drop(std::io::stdout().write_all(text.as_bytes())),
    }
    ExitCode::SUCCESS
}
