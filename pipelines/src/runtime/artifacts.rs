//! Copies of the models, pipelines and reference tables a log was made with, by hash, so that evidence can be bundled years later.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use avouch_engine::verdict::Hash32;

use super::error::RuntimeError;

/// Where a model file of this hash is kept in a pipeline's state directory.
pub fn model_path(dir: &Path, hash: &Hash32) -> PathBuf {
    dir.join("models").join(format!("{}.model", hex(hash)))
}

/// Where a canonical pipeline of this hash is kept.
pub fn pipeline_path(dir: &Path, hash: &Hash32) -> PathBuf {
    dir.join("pipelines").join(format!("{}.json", hex(hash)))
}

/// Where a Protobuf descriptor set of this hash is kept.
pub fn descriptor_path(dir: &Path, hash: &Hash32) -> PathBuf {
    dir.join("descriptors").join(format!("{}.desc", hex(hash)))
}

/// Where a version of a reference table is kept: its canonical content, whose SHA-256 is the version.
pub fn reference_path(dir: &Path, version: &Hash32) -> PathBuf {
    dir.join("references").join(format!("{}.reference", hex(version)))
}

/// Keeps a file unless it is there. The name is the hash of the bytes, so what is there is right.
pub fn keep(path: &Path, bytes: &[u8]) -> Result<(), RuntimeError> {
    let fail = |source| RuntimeError::File { path: path.to_path_buf(), source };
    if path.exists() {
        return Ok(());
    }
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent).map_err(fail)?;
    }
    // Several processes may start on one directory at once.
    let temporary = path.with_extension(format!("{}.tmp", std::process::id()));
    // Durable before anything that names it is: a log may outlive a power failure by years.
    let mut file = File::create(&temporary).map_err(fail)?;
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(fail)?;
    std::fs::rename(&temporary, path).map_err(fail)?;
    path.parent().map_or(Ok(()), |parent| File::open(parent).and_then(|d| d.sync_all()).map_err(fail))
}

/// Lower-case hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}
