//! What tells one version of a file from another without reading it.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::SystemTime;

/// Time, length and inode: a file renamed over another is another file, also where both were written within one tick of the file
/// system's clock.
pub type Stamp = (SystemTime, u64, u64);

/// The stamp of a file; `None` if there is none.
pub fn stamp(path: &Path) -> Option<Stamp> {
    let meta = std::fs::metadata(path).ok()?;
    Some((meta.modified().ok()?, meta.len(), meta.ino()))
}
