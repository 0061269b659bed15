//! A directory for what an evaluation writes on its way.

use std::path::PathBuf;

use super::EvaluateError;

/// A directory that goes when this does.
#[derive(Debug)]
pub(super) struct Scratch(PathBuf);

impl Scratch {
    /// A new one for the benchmark `name`.
    pub fn new(name: &str) -> Result<Self, EvaluateError> {
        let path = std::env::temp_dir().join(format!("avouch-evaluate-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).map_err(|source| EvaluateError::Io { path: path.clone(), source })?;
        Ok(Self(path))
    }

    /// Writes a file in it, over one of the same name.
    pub fn write(&self, name: &str, text: &str) -> Result<PathBuf, EvaluateError> {
        let path = self.0.join(name);
        std::fs::write(&path, text).map_err(|source| EvaluateError::Io { path: path.clone(), source })?;
        Ok(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What stays behind is in the system's directory of temporary files.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
