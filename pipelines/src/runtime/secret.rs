//! The pipeline's secret: from the pipeline file, or one made once and kept beside the checkpoints.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

use avouch_engine::verdict::Secret;
use rand::RngCore as _;
use rand::rngs::OsRng;

use super::error::RuntimeError;
use crate::lang::Pipeline;

/// What is being erased, beside the lanes ([`crate::erasure`]).
pub(crate) const ERASING: &str = "erasing";
/// The secret before records were erased, until it is destroyed.
const BEFORE: &str = "secret.before";
/// The secret, where the pipeline file gives none.
const KEPT: &str = "secret";

/// [`stored_secret`], unless records are being erased from it: what is made under it then would be made under keys that go.
///
/// # Errors
/// When it cannot be read or made, or an erasure was broken off.
pub fn secret(pipeline: &Pipeline, dir: &Path) -> Result<Secret, RuntimeError> {
    if dir.join(ERASING).exists() {
        let file = pipeline.file.path().display();
        return Err(RuntimeError::Start(format!(
            "records of this pipeline are being erased, and that is not finished; `avouch erase {file}` finishes it"
        )));
    }
    stored_secret(pipeline, dir)
}

/// The secret that pseudonyms and salts are made under. Without one in the file, 32 random bytes are kept in
/// `<state>/<pipeline>/secret`, readable by the owner alone; whoever deletes that file makes the records unlinkable and
/// ends the log's reproducibility. Once records were erased, the file holds what is left of it ([`Secret::to_bytes`]).
pub(crate) fn stored_secret(pipeline: &Pipeline, dir: &Path) -> Result<Secret, RuntimeError> {
    if let Some(given) = &pipeline.secret {
        return Secret::from_stored(given.value.expose().as_bytes())
            .map_err(|e| RuntimeError::Start(format!("`secret` of the pipeline file: {e}")));
    }
    let path = dir.join(KEPT);
    let fail = |source| RuntimeError::File { path: path.clone(), source };
    if let Some(kept) = read(&path)? {
        return Ok(kept);
    }
    let mut bytes = [0u8; 32];
    OsRng.fill_bytes(&mut bytes);
    // Written whole before it has its name: a crash must not leave half a secret behind.
    let temporary = dir.join(format!("secret.{}.tmp", std::process::id()));
    let mut file =
        OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary).map_err(fail)?;
    file.write_all(&bytes).and_then(|()| file.sync_all()).map_err(fail)?;
    // Where several processes start on one directory at once, one of them makes the secret and all use it.
    let made = std::fs::hard_link(&temporary, &path);
    std::fs::remove_file(&temporary).map_err(fail)?;
    match made {
        Ok(()) => std::fs::File::open(dir).and_then(|d| d.sync_all()).map_err(fail)?,
        Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {}
        Err(e) => return Err(fail(e)),
    }
    read(&path)?.ok_or_else(|| fail(std::io::Error::other("it was removed at this moment; start again")))
}

fn read(path: &Path) -> Result<Option<Secret>, RuntimeError> {
    let fail = |source| RuntimeError::File { path: path.to_path_buf(), source };
    match std::fs::read(path) {
        Ok(bytes) if bytes.len() == 32 => Ok(Some(Secret::new(&bytes))),
        Ok(bytes) => match Secret::from_stored(&bytes) {
            Ok(secret) if secret.is_punctured() => Ok(Some(secret)),
            Ok(_) => {
                let why = format!("{} bytes where 32 are expected; restore it from a copy", bytes.len());
                Err(fail(std::io::Error::other(why)))
            }
            Err(e) => Err(fail(std::io::Error::other(e))),
        },
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(fail(e)),
    }
}

/// Puts what is left of a secret that is kept beside the lanes in its place, and destroys the one before as far as that can be done:
/// its file is overwritten, which a file system that copies on writing, or a disk, may keep a copy of. Returns its bytes.
///
/// # Errors
/// When it cannot be written; then it may be done again.
pub(crate) fn keep_secret(secret: &Secret, dir: &Path) -> Result<u64, RuntimeError> {
    let (path, before) = (dir.join(KEPT), dir.join(BEFORE));
    let fail = |path: &Path| {
        let path = path.to_path_buf();
        move |source| RuntimeError::File { path, source }
    };
    let bytes = secret.to_bytes();
    let same = std::fs::read(&path).is_ok_and(|there| there == bytes);
    if !same && !before.exists() {
        // The name under which it can still be overwritten once the new one has its place.
        std::fs::hard_link(&path, &before).map_err(fail(&before))?;
    }
    if !same {
        write_secret(&path, &bytes)?;
    }
    if before.exists() && same_file(&path, &before).map_err(fail(&before))? {
        // Killed before the new one had its place, and now there is nothing to replace.
        std::fs::remove_file(&before).map_err(fail(&before))?;
    } else if before.exists() {
        let mut file = OpenOptions::new().write(true).open(&before).map_err(fail(&before))?;
        let length = file.metadata().map_err(fail(&before))?.len();
        let zeros = vec![0; usize::try_from(length).unwrap_or(0)];
        file.write_all(&zeros).and_then(|()| file.sync_all()).map_err(fail(&before))?;
        std::fs::remove_file(&before).map_err(fail(&before))?;
        File::open(dir).and_then(|d| d.sync_all()).map_err(fail(dir))?;
    }
    Ok(bytes.len() as u64)
}

fn same_file(a: &Path, b: &Path) -> std::io::Result<bool> {
    let of = |path: &Path| std::fs::metadata(path).map(|m| (m.dev(), m.ino()));
    Ok(of(a)? == of(b)?)
}

/// Writes a secret to a file that its owner alone may read, whole or not at all. Returns its bytes.
///
/// # Errors
/// When it cannot be written.
pub(crate) fn write_secret(path: &Path, bytes: &[u8]) -> Result<u64, RuntimeError> {
    put(path, bytes, 0o600).map_err(|source| RuntimeError::File { path: path.to_path_buf(), source })?;
    Ok(bytes.len() as u64)
}

/// Writes a file durably, whole or not at all.
pub(crate) fn put_durably(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    put(path, bytes, 0o644)
}

fn put(path: &Path, bytes: &[u8], mode: u32) -> std::io::Result<()> {
    let mut name = path.as_os_str().to_owned();
    name.push(".tmp");
    let temporary = std::path::PathBuf::from(name);
    // One that a kill left behind may have other rights.
    match std::fs::remove_file(&temporary) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&temporary)?;
    file.write_all(bytes).and_then(|()| file.sync_all())?;
    std::fs::rename(&temporary, path)?;
    match path.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => File::open(dir)?.sync_all(),
        _ => File::open(".")?.sync_all(),
    }
}
