//! The pipeline's secret: from the pipeline file, or one made once and kept beside the checkpoints.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use avouch_engine::verdict::Secret;
use rand::RngCore as _;
use rand::rngs::OsRng;

use super::error::RuntimeError;
use crate::lang::Pipeline;

/// The secret that pseudonyms and salts are made under. Without one in the file, 32 random bytes are kept in
/// `<state>/<pipeline>/secret`, readable by the owner alone; whoever deletes that file makes the records unlinkable and
/// ends the log's reproducibility.
pub fn secret(pipeline: &Pipeline, dir: &Path) -> Result<Secret, RuntimeError> {
    if let Some(given) = &pipeline.secret {
        return Ok(Secret::new(given.value.expose().as_bytes()));
    }
    let path = dir.join("secret");
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
        Ok(bytes) => {
            let why = format!("{} bytes where 32 are expected; restore it from a copy", bytes.len());
            Err(fail(std::io::Error::other(why)))
        }
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(fail(e)),
    }
}
