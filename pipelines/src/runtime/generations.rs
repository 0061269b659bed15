//! Which version of the pipeline is newer than which: a numbered list beside the lanes, the same for all processes.
//!
//! Every version that lanes were run under has a number, taken by put-if-absent when somebody says that it is to be: by the
//! first start, by a reload, or by `--accept-change`. A lane's checkpoint names the number it was made under. What follows from
//! the numbers is decided in [`avouch_engine::control::reload`]; here is where they are kept.

use std::fs::File;
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use avouch_connectors::store::{Committed, ObjectError, Objects};
use avouch_engine::control::reload::{Numbering, Version, Versions, begins, claims};
use avouch_engine::verdict::Hash32;

use super::artifacts::{Artifacts, hex, pipeline_path};
use super::checkpoint_store::CheckpointStore;
use super::error::RuntimeError;
use crate::lang::{Pipeline, Takes, canonical_changes};

/// Under which name a checkpoint keeps the number among its counters; absent while it is 0.
const COUNTER: &str = "pipeline_generation";

/// The number that a lane's checkpoint was made under.
pub fn of(committed: &Committed) -> u64 {
    committed.counters.iter().find(|(name, _)| name == COUNTER).map_or(0, |(_, n)| *n)
}

/// As a counter of a checkpoint.
pub fn counter(generation: u64) -> Option<(String, u64)> {
    (generation > 0).then(|| (COUNTER.to_owned(), generation))
}

/// The list of one pipeline.
#[derive(Debug, Clone)]
pub struct Generations {
    state: PathBuf,
    artifacts: Artifacts,
    objects: Option<Arc<dyn Objects>>,
}

impl Generations {
    /// Beside the lanes: in the object store where there is one, else in `<state>/generations`.
    pub fn new(pipeline: &Pipeline, state: &Path, stores: &CheckpointStore, artifacts: &Artifacts) -> Self {
        let objects = stores.root().map(|root| root.under(&format!("{}/artifacts/generations", pipeline.name.value)));
        Self { state: state.to_path_buf(), artifacts: artifacts.clone(), objects }
    }

    /// The number of the version that a process begins with. `accept`: lanes that were run under another one are to be
    /// carried over to this one. Blocks.
    ///
    /// # Errors
    /// [`RuntimeError::Changed`] when the lanes have another one and it is not accepted; when the list cannot be read.
    pub fn begin(&self, pipeline: &Pipeline, accept: bool) -> Result<u64, RuntimeError> {
        let hash = pipeline.config_hash();
        loop {
            match begins(&self.all()?, &hash, self.has_lanes()?, accept) {
                Numbering::Has(number) => return Ok(number),
                Numbering::Refused(latest) => {
                    return Err(RuntimeError::Changed { found: hex(&latest.config), expected: hex(&hash) });
                }
                Numbering::Put { number, over } => {
                    if let Some(over) = over {
                        self.same_log(&over.config, pipeline)?;
                        let (from, to) = (hex(&over.config), hex(&hash));
                        tracing::warn!(from, to, "the lanes are carried over to the changed pipeline");
                    }
                    if self.put(number, &hash)? {
                        return Ok(number);
                    }
                }
            }
        }
    }

    /// The number of a version that a process which runs `own` is told to go over to. Blocks.
    ///
    /// # Errors
    /// When the list cannot be read or written.
    pub fn claim(&self, own: &Version, hash: &Hash32) -> Result<u64, RuntimeError> {
        loop {
            match claims(&self.all()?, own, hash) {
                Numbering::Has(number) => return Ok(number),
                Numbering::Put { number, .. } if self.put(number, hash)? => return Ok(number),
                // Somebody has just taken it.
                Numbering::Put { .. } | Numbering::Refused(_) => {}
            }
        }
    }

    /// Whether a key that must not change under one name has changed since a version of which a copy is kept.
    fn same_log(&self, known: &Hash32, pipeline: &Pipeline) -> Result<(), RuntimeError> {
        let old = self.artifacts.read(&pipeline_path(&self.state, known))?;
        let changed = canonical_changes(&String::from_utf8_lossy(&old), &pipeline.canonical.json);
        match changed
            .into_iter()
            .find_map(|c| if let Takes::NewName(why) = c.takes { Some((c.key, why)) } else { None })
        {
            None => Ok(()),
            Some((key, why)) => Err(RuntimeError::Start(format!(
                "`{key}` has changed, which needs a new `pipeline.name`, and so a new log: {why}"
            ))),
        }
    }

    fn has_lanes(&self) -> Result<bool, RuntimeError> {
        if self.objects.is_some() {
            // Lanes are not looked for one by one: whoever has made a list has run some.
            return Ok(true);
        }
        let fail = |path: &Path, source| RuntimeError::File { path: path.to_path_buf(), source };
        for entry in std::fs::read_dir(&self.state).map_err(|e| fail(&self.state, e))? {
            let entry = entry.map_err(|e| fail(&self.state, e))?;
            if entry.file_name().to_str().is_none_or(|name| name.parse::<i32>().is_err()) {
                continue;
            }
            let lane = entry.path();
            for file in std::fs::read_dir(&lane).map_err(|e| fail(&lane, e))? {
                let file = file.map_err(|e| fail(&lane, e))?;
                if file.file_name().to_string_lossy().starts_with("checkpoint") {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    fn dir(&self) -> PathBuf {
        self.state.join("generations")
    }

    fn all(&self) -> Result<Versions, RuntimeError> {
        let mut out = Versions::new();
        for (name, text) in self.entries()? {
            let (Ok(number), Some(hash)) = (name.parse(), unhex(&text)) else {
                let why = format!("{}/{name} is not the configHash of a pipeline; bring it back", self.place());
                return Err(RuntimeError::Start(why));
            };
            out.insert(number, hash);
        }
        Ok(out)
    }

    fn place(&self) -> String {
        self.objects.as_ref().map_or_else(|| self.dir().display().to_string(), |o| o.url())
    }

    fn entries(&self) -> Result<Vec<(String, String)>, RuntimeError> {
        let mut out = Vec::new();
        if let Some(objects) = &self.objects {
            let fail = |e: &ObjectError| RuntimeError::Start(format!("{}: {e}", objects.url()));
            for (name, _) in objects.list("").map_err(|e| fail(&e))? {
                let bytes = objects.get(&name).map_err(|e| fail(&e))?.unwrap_or_default();
                out.push((name, String::from_utf8_lossy(&bytes).into_owned()));
            }
            return Ok(out);
        }
        let dir = self.dir();
        let fail = |path: &Path, source| RuntimeError::File { path: path.to_path_buf(), source };
        let entries = match std::fs::read_dir(&dir) {
            Ok(entries) => entries,
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(out),
            Err(e) => return Err(fail(&dir, e)),
        };
        for entry in entries {
            let path = entry.map_err(|e| fail(&dir, e))?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            // What a process that was killed has left is no entry.
            if !name.ends_with(".tmp") {
                out.push((name, std::fs::read_to_string(&path).map_err(|e| fail(&path, e))?));
            }
        }
        // An entry that another process has just linked may be gone after a power cut, and its number would then be given to
        // another version, while our lanes name it.
        File::open(&dir).and_then(|d| d.sync_all()).map_err(|e| fail(&dir, e))?;
        Ok(out)
    }

    /// Adds an entry unless there is one of this number; whether there was none.
    fn put(&self, number: u64, hash: &Hash32) -> Result<bool, RuntimeError> {
        let (name, text) = (format!("{number:08}"), hex(hash));
        if let Some(objects) = &self.objects {
            return objects
                .put_new(&name, text.as_bytes())
                .map_err(|e| RuntimeError::Start(format!("{}: {e}", objects.url())));
        }
        let dir = self.dir();
        let path = dir.join(&name);
        let fail = |source| RuntimeError::File { path: path.clone(), source };
        std::fs::create_dir_all(&dir).map_err(fail)?;
        // Written whole before it has its name, and given its name only where nothing has it.
        let temporary = dir.join(format!("{name}.{}.tmp", std::process::id()));
        let mut file = File::create(&temporary).map_err(fail)?;
        file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(fail)?;
        let made = std::fs::hard_link(&temporary, &path);
        std::fs::remove_file(&temporary).map_err(fail)?;
        match made {
            Ok(()) => File::open(&dir).and_then(|d| d.sync_all()).map_err(fail).map(|()| true),
            Err(e) if e.kind() == ErrorKind::AlreadyExists => Ok(false),
            Err(e) => Err(fail(e)),
        }
    }
}

fn unhex(text: &str) -> Option<Hash32> {
    let mut out = [0; 32];
    if text.len() != 64 || !text.is_ascii() {
        return None;
    }
    for (i, byte) in out.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * i..2 * i + 2], 16).ok()?;
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn list(state: &Path) -> Generations {
        Generations { state: state.to_path_buf(), artifacts: Artifacts::local(state), objects: None }
    }

    #[test]
    fn a_number_is_given_once_and_found_again() {
        let dir = tempfile::tempdir().unwrap();
        let (a, b, c) = ([1; 32], [2; 32], [3; 32]);
        let list = list(dir.path());
        assert!(list.put(0, &a).unwrap());
        assert!(!list.put(0, &b).unwrap(), "a number is given once");
        let first = Version { number: 0, config: a };
        assert_eq!(list.claim(&first, &b).unwrap(), 1);
        assert_eq!(list.claim(&first, &b).unwrap(), 1, "another process, told later, finds that it was taken");
        assert_eq!(list.claim(&Version { number: 1, config: b }, &c).unwrap(), 2);
        assert_eq!(list.all().unwrap(), [(0, a), (1, b), (2, c)].into());
        std::fs::write(dir.path().join("generations/00000003"), "half").unwrap();
        assert!(list.claim(&first, &b).unwrap_err().to_string().contains("is not the configHash of a pipeline"));
    }
}
