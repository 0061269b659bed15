//! What can go wrong with a file, always with file and line.

use std::path::PathBuf;

use thiserror::Error;

/// Why files could not be replayed.
#[derive(Debug, Error)]
pub enum FilesError {
    /// A pattern names no file.
    #[error("no file matches `{pattern}`; check the path, and quote the pattern so that the shell leaves it alone")]
    NoMatch {
        /// The pattern as given.
        pattern: String,
    },
    /// A pattern is not one.
    #[error("`{pattern}` is not a file pattern: {why}")]
    Pattern {
        /// The pattern as given.
        pattern: String,
        /// What is wrong with it.
        why: String,
    },
    /// Options that contradict each other.
    #[error("{why}")]
    Options {
        /// What contradicts what, and what to do.
        why: String,
    },
    /// The operating system refused.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What it said.
        source: std::io::Error,
    },
    /// The name does not say what is in the file.
    #[error("{}: cannot tell the format from the name; say csv, ndjson or parquet (compressed text must be unpacked first)", path.display())]
    UnknownFormat {
        /// The file.
        path: PathBuf,
    },
    /// A column that was named is not there.
    #[error("{}:{line}: there is no column `{column}`; the columns are {}", path.display(), list(have))]
    NoColumn {
        /// The file.
        path: PathBuf,
        /// The header's line.
        line: u64,
        /// The column asked for.
        column: String,
        /// Those there are.
        have: Vec<String>,
    },
    /// A file that was read, or is being read, is no longer what it was.
    #[error(
        "{name} changed after its reading began: {what}. What was read from it is in verdicts already: put the old \
         file back and give the new rows a file of their own (write it under another name, then rename it)"
    )]
    Changed {
        /// The file.
        name: String,
        /// What is different.
        what: String,
    },
    /// A file that is still to be read, or to be read on, is not there.
    #[error(
        "{name} is gone, and {what}; put it back. Files may be deleted once they are read to their end and a checkpoint covers that"
    )]
    Gone {
        /// The file.
        name: String,
        /// How far it was read.
        what: &'static str,
    },
    /// The manifest of a file source does not go with the checkpoint.
    #[error("{}: {why}", dir.display())]
    Inconsistent {
        /// The directory of the manifest.
        dir: PathBuf,
        /// What contradicts what.
        why: String,
    },
    /// Something is wrong with the file or one of its rows.
    #[error("{}:{line}: {why}", path.display())]
    Row {
        /// The file.
        path: PathBuf,
        /// Its line, from 1 (for Parquet the row).
        line: u64,
        /// What is wrong, and what to do.
        why: String,
    },
}

fn list(names: &[String]) -> String {
    names.iter().map(|n| format!("`{n}`")).collect::<Vec<_>>().join(", ")
}
