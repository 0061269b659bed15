//! The pipeline language from outside: a file for each mistake with what the user sees of it, files that must never
//! make it panic, the canonical form's promises, and models against pipelines.
//!
//! `UPDATE=1 cargo test --release -p avouch --test check` writes the `*.expected` files anew.

#![allow(clippy::unwrap_used)]

mod canonical;
mod changes;
mod files;
mod formats;
mod language;
mod models;
mod mutations;
mod secrets;
mod sinks;
mod snapshots;
mod validator;

use std::io;
use std::path::Path;
use std::sync::Arc;

use avouch::lang::{Diagnostics, Environment, Pipeline, SourceFile, check};

/// The pipeline without a mistake.
pub(crate) const VALID: &str = include_str!("valid.toml");

/// The same environment on every machine.
pub(crate) struct Fixed;

impl Environment for Fixed {
    fn var(&self, name: &str) -> Option<String> {
        match name {
            "VERDICT_LOG" => Some("0x5FbDB2315678afecb367f032d93F642f64180aa3".into()),
            "KEY" => Some(format!("0x{}", "ab".repeat(32))),
            "NOT_A_URL" => Some("value-from-outside".into()),
            _ => None,
        }
    }
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        match path.file_name().and_then(|n| n.to_str()) {
            Some("secret") => Ok(b"0123456789abcdef0123456789abcdef\n".to_vec()),
            Some("telemetry.desc") => Ok(include_bytes!("telemetry.desc").to_vec()),
            Some("keystore-password") => Ok(b"correct horse\n".to_vec()),
            _ => Err(io::ErrorKind::NotFound.into()),
        }
    }
}

pub(crate) fn file(text: &str) -> Arc<SourceFile> {
    Arc::new(SourceFile::new("pipeline.toml", text))
}

/// What `avouch check` finds in a text.
pub(crate) fn findings(path: &str, text: &str) -> (Option<Pipeline>, Diagnostics) {
    match Pipeline::read(Arc::new(SourceFile::new(path, text)), &Fixed) {
        Ok(p) => {
            let diags = check(&p);
            (Some(p), diags)
        }
        Err(diags) => (None, diags),
    }
}
