//! Copies of the models, pipelines, reference tables and keys a log was made with, by hash, so that evidence can be bundled years later.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use avouch_connectors::store::{ObjectError, ObjectStoreRoot, Objects};
use avouch_engine::identity::KeySet;
use avouch_engine::lane::LaneError;
use avouch_engine::reference::{Reference, Versioned};
use avouch_engine::verdict::Hash32;

use super::checkpoint_store::CheckpointStore;
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

/// Where a version of a source's keys is kept: its canonical content, whose SHA-256 is the version.
pub fn keys_path(dir: &Path, version: &Hash32) -> PathBuf {
    dir.join("keys").join(format!("{}.keys", hex(version)))
}

/// The files of this kind of one pipeline: in its state directory, and, where lanes are copied to an object store, in
/// `<pipeline>/artifacts` there, so that any machine can replay and bundle what another one made.
#[derive(Debug, Clone)]
pub struct Artifacts {
    state: PathBuf,
    objects: Option<(ObjectStoreRoot, String)>,
}

impl Artifacts {
    /// For a pipeline's state directory.
    pub fn new(pipeline: &str, state: &Path, stores: &CheckpointStore) -> Self {
        let objects = stores.root().map(|root| (root.clone(), format!("{pipeline}/artifacts")));
        Self { state: state.to_path_buf(), objects }
    }

    /// In a directory alone.
    #[cfg(test)]
    pub fn local(state: &Path) -> Self {
        Self { state: state.to_path_buf(), objects: None }
    }

    /// The state directory.
    pub fn state(&self) -> &Path {
        &self.state
    }

    /// The objects beside a file of this path, and its name among them.
    fn object(&self, path: &Path) -> Option<(Arc<dyn Objects>, String)> {
        let (root, prefix) = self.objects.as_ref()?;
        let kind = path.parent()?.strip_prefix(&self.state).ok()?.to_str()?;
        Some((root.under(&format!("{prefix}/{kind}")), path.file_name()?.to_str()?.to_owned()))
    }

    /// Keeps a file unless it is there. The name is the hash of the bytes, so what is there is right.
    ///
    /// # Errors
    /// When it cannot be written, or not be put; then it is not kept.
    pub fn keep(&self, path: &Path, bytes: &[u8]) -> Result<(), RuntimeError> {
        if let Some((objects, name)) = self.object(path) {
            objects.put_new(&name, bytes).map_err(|e| unreachable_object(&*objects, "keep", &name, &e))?;
        }
        keep(path, bytes)
    }

    /// Reads a file that was kept, here or on another machine.
    ///
    /// # Errors
    /// When it is nowhere, or cannot be read.
    pub fn read(&self, path: &Path) -> Result<Vec<u8>, RuntimeError> {
        let missing = match std::fs::read(path) {
            Ok(bytes) => return Ok(bytes),
            Err(source) => RuntimeError::File { path: path.to_path_buf(), source },
        };
        let Some((objects, name)) = self.object(path) else { return Err(missing) };
        match objects.get(&name) {
            Ok(Some(bytes)) => {
                keep(path, &bytes)?;
                Ok(bytes)
            }
            Ok(None) => Err(missing),
            Err(e) => Err(unreachable_object(&*objects, "get", &name, &e)),
        }
    }

    /// A version of a reference table, or of a source's keys, as it was kept before any lane heard of it.
    ///
    /// # Errors
    /// [`LaneError::Reference`] when it is not there, or is not what it was.
    pub fn reference(&self, name: &str, version: &Hash32) -> Result<Versioned, LaneError> {
        let is_keys = KeySet::is_name(name);
        let path = if is_keys { keys_path(&self.state, version) } else { reference_path(&self.state, version) };
        let fail = |why: String| LaneError::Reference {
            name: name.to_owned(),
            why: format!(
                "version {} is needed to take a recorded change again, but {why}; bring {} back",
                hex(version),
                path.display()
            ),
        };
        let bytes = self.read(&path).map_err(|e| fail(e.to_string()))?;
        let table: Versioned = match is_keys {
            true => KeySet::from_bytes(name, &bytes).map_err(|e| fail(e.to_string()))?.into(),
            false => Reference::from_bytes(name, &bytes).map_err(|e| fail(e.to_string()))?.into(),
        };
        if table.version() == *version { Ok(table) } else { Err(fail("the file was altered".into())) }
    }
}

fn unreachable_object(objects: &dyn Objects, doing: &str, name: &str, e: &ObjectError) -> RuntimeError {
    RuntimeError::Start(format!("{}: cannot {doing} {name}: {e}", objects.url()))
}

fn keep(path: &Path, bytes: &[u8]) -> Result<(), RuntimeError> {
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
