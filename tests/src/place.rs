//! Where things are: the clone, the data sets, the cache of downloads, a directory and ports for what a test starts.

use std::collections::BTreeSet;
use std::fmt;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, Once};

/// A part that this machine lacks, and how it is had.
#[derive(Debug, Clone)]
pub struct Missing(pub String);

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The root of the clone.
pub fn workspace() -> PathBuf {
    // cargo sets it when it runs a test; the compiled-in one serves a test binary started by hand.
    let manifest =
        std::env::var_os("CARGO_MANIFEST_DIR").map_or_else(|| env!("CARGO_MANIFEST_DIR").into(), PathBuf::from);
    manifest.parent().expect("the tests' package lies in the workspace").to_path_buf()
}

/// The real data sets the tests read: `AVOUCH_DATASETS`, or `../shared/datasets` beside the clone.
///
/// # Errors
/// [`Missing`] if there is no such directory.
pub fn datasets() -> Result<PathBuf, Missing> {
    let path =
        std::env::var_os("AVOUCH_DATASETS").map_or_else(|| workspace().join("../shared/datasets"), PathBuf::from);
    path.canonicalize()
        .map_err(|error| Missing(format!("no data sets at {} ({error}); set AVOUCH_DATASETS", path.display())))
}

/// The cache that `tests/setup/install` fills: `AVOUCH_CACHE`, or `~/.cache/avouch`.
pub fn cache() -> PathBuf {
    std::env::var_os("AVOUCH_CACHE").map_or_else(
        || PathBuf::from(std::env::var_os("HOME").expect("HOME is set")).join(".cache/avouch"),
        PathBuf::from,
    )
}

/// The directory cargo put this profile's programs in: the test binary runs from its `deps`.
pub fn programs() -> PathBuf {
    let this = std::env::current_exe().expect("a running program has a path");
    let directory = this.parent().expect("a program lies in a directory");
    if directory.ends_with("deps") { directory.parent().expect("deps has a parent").into() } else { directory.into() }
}

/// A program on the PATH, or in `extra`.
pub fn find_program(name: &str, extra: &[PathBuf]) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).chain(extra.iter().cloned()).map(|dir| dir.join(name)).find(|path| path.is_file())
}

/// A new, empty directory for one part's data and logs.
///
/// It outlives the test, so that a failure can be looked into; the next test process sweeps away those whose process is gone.
pub fn fresh_directory(what: &str) -> PathBuf {
    static SWEEP: Once = Once::new();
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let root = cache().join("system-tests");
    SWEEP.call_once(|| sweep(&root));
    let name = format!("{}-{}-{what}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    let directory = root.join(name);
    std::fs::create_dir_all(&directory).unwrap_or_else(|error| panic!("creating {}: {error}", directory.display()));
    directory
}

fn sweep(root: &Path) {
    let Ok(entries) = std::fs::read_dir(root) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.split('-').next()?.parse::<u32>().ok()) else { continue };
        // A pid that was reused keeps its directory until the sweep after next, which harms nobody.
        if !Path::new(&format!("/proc/{pid}")).exists() || pid == std::process::id() {
            // Another test process may be sweeping it at this moment.
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}

/// A free loopback port below the range the kernel hands to outgoing connections.
///
/// From that range, a client that keeps dialling a stopped server can be given the server's own port, connect to itself, and keep
/// the server from coming back; tests that restart a broker on its port would fail once in a while.
pub fn free_port() -> u16 {
    static TAKEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());
    const FIRST: u16 = 20_000;
    const COUNT: u32 = 10_000;
    let mut taken = TAKEN.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    // Processes that test at the same time start looking at different ports.
    let start = std::process::id().wrapping_mul(97);
    (0..COUNT)
        .map(|step| FIRST + u16::try_from(start.wrapping_add(step) % COUNT).expect("less than COUNT"))
        .find(|&port| !taken.contains(&port) && TcpListener::bind(("127.0.0.1", port)).is_ok() && taken.insert(port))
        .expect("one of 10,000 ports is free")
}
