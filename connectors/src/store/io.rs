//! Every act that changes the disk, so that tests can make each of them fail or stop half-way.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use super::StoreError;

type Result<T> = std::result::Result<T, StoreError>;

pub(super) fn failed(doing: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> StoreError {
    let path = path.to_path_buf();
    move |source| StoreError::Io { doing, path, source }
}

pub(super) fn create_dir_all(path: &Path) -> Result<()> {
    fault::point(path)?;
    std::fs::create_dir_all(path).map_err(failed("create the directory", path))
}

/// Opens a file for writing at places, creating it.
pub(super) fn open_for_writing(path: &Path) -> Result<File> {
    fault::point(path)?;
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    options.open(path).map_err(failed("open for writing", path))
}

pub(super) fn write_at(file: &File, path: &Path, bytes: &[u8], at: u64) -> Result<()> {
    if let Some(part) = fault::torn(path, bytes.len())? {
        let _ = file.write_all_at(&bytes[..part], at);
        return fault::stop(path);
    }
    file.write_all_at(bytes, at).map_err(failed("write", path))
}

pub(super) fn sync(file: &File, path: &Path) -> Result<()> {
    fault::point(path)?;
    file.sync_data().map_err(failed("fsync", path))
}

pub(super) fn sync_dir(path: &Path) -> Result<()> {
    fault::point(path)?;
    let dir = File::open(path).map_err(failed("open the directory", path))?;
    dir.sync_all().map_err(failed("fsync the directory", path))
}

pub(super) fn set_len(path: &Path, len: u64) -> Result<()> {
    fault::point(path)?;
    let file = OpenOptions::new().write(true).open(path).map_err(failed("open for writing", path))?;
    file.set_len(len).map_err(failed("truncate", path))?;
    file.sync_all().map_err(failed("fsync", path))
}

pub(super) fn remove(path: &Path) -> Result<()> {
    fault::point(path)?;
    match std::fs::remove_file(path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(()),
        other => other.map_err(failed("delete", path)),
    }
}

pub(super) fn remove_dir_all(path: &Path) -> Result<()> {
    fault::point(path)?;
    match std::fs::remove_dir_all(path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(()),
        other => other.map_err(failed("delete", path)),
    }
}

pub(super) fn rename(from: &Path, to: &Path) -> Result<()> {
    fault::point(from)?;
    std::fs::rename(from, to).map_err(failed("rename", from))
}

/// Puts a file in place so that there is always either the old or the new one. `durable`: fsyncs it before (the caller
/// fsyncs the directory, once for all it put there).
pub(super) fn replace(path: &Path, bytes: &[u8], durable: bool) -> Result<()> {
    let mut name = path.as_os_str().to_owned();
    name.push(".tmp");
    let tmp = std::path::PathBuf::from(name);
    fault::point(&tmp)?;
    let mut file = File::create(&tmp).map_err(failed("create", &tmp))?;
    if let Some(part) = fault::torn(&tmp, bytes.len())? {
        let _ = file.write_all(&bytes[..part]);
        return fault::stop(&tmp);
    }
    file.write_all(bytes).map_err(failed("write", &tmp))?;
    if durable {
        sync(&file, &tmp)?;
    }
    drop(file);
    rename(&tmp, path)
}

/// The bytes of a file, or `None` when there is none.
pub(super) fn read_if_there(path: &Path) -> Result<Option<Vec<u8>>> {
    match std::fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(failed("read", path)(e)),
    }
}

/// Where the bytes of a file behind `from` begin (earlier, if it is shorter), and these bytes; a missing file is empty.
pub(super) fn read_behind(path: &Path, from: u64) -> Result<(u64, Vec<u8>)> {
    use std::io::{Read as _, Seek as _, SeekFrom};
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok((0, Vec::new())),
        Err(e) => return Err(failed("open", path)(e)),
    };
    let from = from.min(file.metadata().map_err(failed("look at", path))?.len());
    let mut bytes = Vec::new();
    let read = file.seek(SeekFrom::Start(from)).and_then(|_| file.read_to_end(&mut bytes));
    read.map_err(failed("read", path))?;
    Ok((from, bytes))
}

/// The names in a directory, sorted; none when it does not exist.
pub(super) fn list(dir: &Path) -> Result<Vec<String>> {
    let entries = match std::fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(failed("list", dir)(e)),
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.map_err(failed("list", dir))?;
        names.push(entry.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}

/// In tests, stops the writer at its n-th act, as if it were killed there. In a build it is nothing.
#[cfg(not(test))]
mod fault {
    use super::{Path, Result};

    pub(super) fn point(_: &Path) -> Result<()> {
        Ok(())
    }
    pub(super) fn torn(_: &Path, _: usize) -> Result<Option<usize>> {
        Ok(None)
    }
    pub(super) fn stop(_: &Path) -> Result<()> {
        Ok(())
    }
}

#[cfg(test)]
pub(super) mod fault {
    use std::cell::Cell;

    use super::{Path, Result, failed};

    thread_local! {
        /// Acts left before the stop, and whether the last write is torn.
        static LEFT: Cell<Option<(u64, bool)>> = const { Cell::new(None) };
        static DONE: Cell<u64> = const { Cell::new(0) };
    }

    /// Stops this thread's writer at its `n`-th act from now on; every later act is refused too.
    pub(in crate::store) fn stop_after(n: u64, torn: bool) {
        LEFT.set(Some((n, torn)));
    }
    /// Lets it go on, and returns how many acts there were since the last call.
    pub(in crate::store) fn clear() -> u64 {
        LEFT.set(None);
        DONE.replace(0)
    }

    pub(super) fn point(path: &Path) -> Result<()> {
        DONE.set(DONE.get() + 1);
        match LEFT.get() {
            Some((0, _)) => stop(path),
            Some((n, torn)) => {
                LEFT.set(Some((n - 1, torn)));
                Ok(())
            }
            None => Ok(()),
        }
    }
    /// For a write: how much of it gets through, if it is the last one and torn.
    pub(super) fn torn(path: &Path, len: usize) -> Result<Option<usize>> {
        let last = matches!(LEFT.get(), Some((0, true)));
        if last {
            return Ok(Some(len / 2));
        }
        point(path).map(|()| None)
    }
    pub(super) fn stop(path: &Path) -> Result<()> {
        Err(failed("go on after the simulated kill", path)(std::io::Error::other("killed")))
    }
}
