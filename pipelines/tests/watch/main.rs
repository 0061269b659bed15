//! What looks at pipelines: `graph` and `explain` of the pipelines we ship, and of one that has everything.
//! `query` and `explain-verdict` look at what a pipeline left.
//!
//! `INSTA_UPDATE=always cargo test --release --workspace --test watch` writes the snapshots anew.

#![allow(clippy::unwrap_used)]

mod explain;
mod explain_verdict;
mod graph;
mod query;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use avouch::lang::{Environment, Pipeline, SourceFile};

/// The same environment on every machine.
struct Fixed;

impl Environment for Fixed {
    fn var(&self, name: &str) -> Option<String> {
        match name {
            "SECRET_PART" => Some("hunter2".into()),
            "KEY" => Some(format!("0x{}", "ab".repeat(32))),
            _ => None,
        }
    }
    fn read(&self, _: &Path) -> io::Result<Vec<u8>> {
        Err(io::ErrorKind::NotFound.into())
    }
}

/// A pipeline with each kind of part, awkward names and secrets.
const EVERYTHING: &str = include_str!("everything.toml");

fn everything() -> Pipeline {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/watch/everything.toml");
    read(&dir, EVERYTHING)
}

fn read(path: &Path, text: &str) -> Pipeline {
    Pipeline::read(Arc::new(SourceFile::new(path, text)), &Fixed).unwrap_or_else(|d| panic!("{d}"))
}

/// The pipelines that ship with the program, by their directory's name.
fn ready() -> Vec<(String, Pipeline)> {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let mut dirs: Vec<PathBuf> = std::fs::read_dir(root).unwrap().map(|e| e.unwrap().path()).collect();
    dirs.sort();
    let found: Vec<(String, Pipeline)> = dirs
        .into_iter()
        .filter(|d| d.join("pipeline.toml").exists())
        .map(|d| {
            let path = d.join("pipeline.toml");
            let name = d.file_name().unwrap().to_str().unwrap().to_owned();
            let text = std::fs::read_to_string(&path).unwrap();
            (name, read(&path, &text))
        })
        .collect();
    assert!(!found.is_empty());
    found
}
