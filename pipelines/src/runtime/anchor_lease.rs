//! Who anchors: one process of all that share a state directory, so that one key has one writer. The others wait, and take
//! over when it ends, however it ends.

use std::fs::{File, OpenOptions, TryLockError};
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use super::error::RuntimeError;

/// Held for as long as it lives; the operating system lets go of it when the process dies.
#[derive(Debug)]
pub struct AnchorLease {
    file: File,
}

impl AnchorLease {
    /// Takes `<state>/anchor-lease`, or says who has it.
    pub fn try_take(state: &Path) -> Result<Result<Self, String>, RuntimeError> {
        let path = state.join("anchor-lease");
        let fail = |source| RuntimeError::File { path: path.clone(), source };
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path).map_err(fail)?;
        match file.try_lock() {
            Ok(()) => {
                let text = format!("process {}\n", std::process::id());
                file.set_len(0).and_then(|()| file.write_all_at(text.as_bytes(), 0)).map_err(fail)?;
                Ok(Ok(Self { file }))
            }
            Err(TryLockError::WouldBlock) => {
                let holder = std::fs::read_to_string(&path).unwrap_or_default();
                let holder = holder.trim();
                Ok(Err(if holder.is_empty() { "another process".to_owned() } else { holder.to_owned() }))
            }
            Err(TryLockError::Error(e)) => Err(fail(e)),
        }
    }
}

impl Drop for AnchorLease {
    fn drop(&mut self) {
        // Closing the file is not enough: a process just being started from here may hold a copy of it until it execs.
        let _ = self.file.unlock();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn one_has_it_and_the_next_takes_over() {
        let dir = tempfile::tempdir().unwrap();
        let first = AnchorLease::try_take(dir.path()).unwrap().unwrap();
        let holder = AnchorLease::try_take(dir.path()).unwrap().unwrap_err();
        assert_eq!(holder, format!("process {}", std::process::id()));
        drop(first);
        assert!(AnchorLease::try_take(dir.path()).unwrap().is_ok());
    }
}
