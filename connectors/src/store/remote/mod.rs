//! The copy of a lane in an object store: what lets any machine take the lane over.
//!
//! ```text
//!   <url>/<pipeline>/<partition>/
//!     manifest-<number>     one for every commit and every opening, each put only if its name is not taken
//!     part-<generation>-<number>-<writer>      what was appended to records, dead letters, history and events
//!     pack-<generation>-<seq>-<piece>-<writer> chunks of the lane's state; the same bytes as the local file of that name
//!     beside-<generation>-<writer>-<count>     what was appended to a file beside the lane (see beside.rs)
//! ```
//!
//! The local directory stays the working copy; the object store has everything that cannot be derived from it. A
//! checkpoint counts once its manifest is there: only then is the local checkpoint file written, and readers told.
//!
//! # The fence
//!
//! Manifests are numbered without gaps and made by *put if absent*, so of two writers one loses the race for the next
//! number and must stop. Opening a lane for writing puts a manifest at once, of a higher generation, so that the next
//! commit of whoever had the lane before fails. Old manifests are deleted, which would let a writer that slept for long put one
//! of a number that is free again: after every put the names above are listed, and a writer that finds one has lost, too.
//!
//! A put whose answer was lost is tried again; the answer "exists" then means our own write if the bytes are ours (every
//! manifest holds its writer's random number).
//!
//! Other objects have names no other writer uses (the generation and the random number are in them) and are never changed. They are
//! deleted when no kept manifest refers to them: the manifest goes first.

pub(super) mod beside;
mod fetch;
pub(super) mod manifest;
mod mirror;
#[cfg(feature = "object-store")]
mod object_store;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

pub(super) use fetch::{Fetched, fetch};
pub(super) use mirror::{Mirror, Put};
#[cfg(feature = "object-store")]
pub use object_store::{ObjectStoreOptions, ObjectStoreRoot, open_object_store};

use super::StoreError;

type Result<T> = std::result::Result<T, StoreError>;

/// Why an object store did not do what it was asked.
#[derive(Debug, Clone)]
pub struct ObjectError {
    /// What it said.
    pub why: String,
    /// Whether asking again is pointless: wrong credentials, no such bucket.
    pub permanent: bool,
}

impl fmt::Display for ObjectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.why)
    }
}

/// What a lane needs of an object store, under a prefix. Every call waits for the answer; a failed put may have happened.
pub trait Objects: Send + Sync + fmt::Debug {
    /// Its URL, for messages.
    fn url(&self) -> String;
    /// Puts an object unless there is one of this name; returns whether there was none.
    ///
    /// # Errors
    /// When it is not known to have happened.
    fn put_new(&self, name: &str, bytes: &[u8]) -> std::result::Result<bool, ObjectError>;
    /// An object's bytes, or `None` if there is none of this name.
    ///
    /// # Errors
    /// When it cannot be told.
    fn get(&self, name: &str) -> std::result::Result<Option<Vec<u8>>, ObjectError>;
    /// Names and sizes of all objects under the prefix whose name begins with `beginning`, in any order.
    ///
    /// # Errors
    /// When they cannot be listed.
    fn list(&self, beginning: &str) -> std::result::Result<Vec<(String, u64)>, ObjectError>;
    /// Deletes an object, which need not be there.
    ///
    /// # Errors
    /// When it is not known to be gone.
    fn delete(&self, name: &str) -> std::result::Result<(), ObjectError>;
}

/// What goes on between a lane and its object store, for metrics.
#[derive(Debug, Default)]
pub struct RemoteStats {
    errors: AtomicU64,
    uploaded: AtomicU64,
    waiting: AtomicBool,
}

impl RemoteStats {
    /// Requests that failed and were tried again, or given up, since the process started.
    pub fn errors(&self) -> u64 {
        self.errors.load(Ordering::Relaxed)
    }
    /// Bytes put since the process started.
    pub fn uploaded(&self) -> u64 {
        self.uploaded.load(Ordering::Relaxed)
    }
    /// Whether a request has failed and is being tried again now.
    pub fn is_failing(&self) -> bool {
        self.waiting.load(Ordering::Relaxed)
    }
}

/// The object store of one lane.
#[derive(Debug, Clone)]
pub struct RemoteLane {
    objects: Arc<dyn Objects>,
    stats: Arc<RemoteStats>,
    /// How long an opening goes on asking.
    patience: Duration,
    /// Set when nobody wants to wait any longer.
    ending: Arc<AtomicBool>,
}

const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

impl RemoteLane {
    /// A lane whose objects are these. Opening it gives up after `patience` of failed requests; a commit goes on trying.
    pub fn new(objects: Arc<dyn Objects>, patience: Duration) -> Self {
        Self { objects, stats: Arc::default(), patience, ending: Arc::default() }
    }

    /// What goes on with it.
    pub fn stats(&self) -> Arc<RemoteStats> {
        Arc::clone(&self.stats)
    }

    /// From now on a commit gives up as an opening does; for a process that wants to end.
    pub fn give_up_soon(&self) {
        self.ending.store(true, Ordering::Relaxed);
    }

    pub(super) fn url(&self) -> String {
        self.objects.url()
    }

    /// Asks until there is an answer: for as long as it takes in a commit, within the patience otherwise.
    fn insist<T>(
        &self,
        doing: impl Fn() -> String,
        commit: bool,
        mut ask: impl FnMut(&dyn Objects) -> std::result::Result<T, ObjectError>,
    ) -> Result<T> {
        let (mut pause, mut since) = (FIRST_PAUSE, Instant::now());
        let mut ending = false;
        loop {
            let error = match ask(&*self.objects) {
                Ok(answer) => {
                    self.stats.waiting.store(false, Ordering::Relaxed);
                    return Ok(answer);
                }
                Err(e) => e,
            };
            self.stats.errors.fetch_add(1, Ordering::Relaxed);
            self.stats.waiting.store(true, Ordering::Relaxed);
            if self.ending.load(Ordering::Relaxed) && !ending {
                // The patience begins when ending does.
                (ending, since) = (true, Instant::now());
            }
            let endless = commit && !ending;
            if !endless && (error.permanent || since.elapsed() + pause > self.patience) {
                return Err(StoreError::Remote { place: self.url(), doing: doing(), why: error.why });
            }
            tracing::warn!(store = self.url(), doing = doing(), error = error.why, again_in = ?pause, "the object store failed");
            std::thread::sleep(pause);
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    fn put(&self, name: &str, bytes: &[u8], commit: bool) -> Result<bool> {
        let new = self.insist(|| format!("put {name}"), commit, |o| o.put_new(name, bytes))?;
        self.stats.uploaded.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        Ok(new)
    }

    pub(super) fn get(&self, name: &str, commit: bool) -> Result<Option<Vec<u8>>> {
        self.insist(|| format!("get {name}"), commit, |o| o.get(name))
    }

    pub(super) fn list(&self, beginning: &str, commit: bool) -> Result<Vec<(String, u64)>> {
        self.insist(|| "list the lane's objects".to_owned(), commit, |o| o.list(beginning))
    }

    /// Deletes what is not needed any more. A failure does no harm: the next opening finds it again.
    fn discard(&self, name: &str) -> bool {
        match self.objects.delete(name) {
            Ok(()) => true,
            Err(e) => {
                self.stats.errors.fetch_add(1, Ordering::Relaxed);
                tracing::warn!(
                    store = self.url(),
                    name,
                    error = e.why,
                    "an object that is not needed any more could not be deleted"
                );
                false
            }
        }
    }
}

/// Numbers nobody else has, from the system's randomness.
fn nonce() -> Result<u64> {
    use std::io::Read as _;
    let random = std::path::Path::new("/dev/urandom");
    let mut bytes = [0; 8];
    let mut source = std::fs::File::open(random).map_err(super::io::failed("open", random))?;
    source.read_exact(&mut bytes).map_err(super::io::failed("read", random))?;
    Ok(u64::from_le_bytes(bytes))
}
