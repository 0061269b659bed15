//! Object stores for tests: in memory or a directory, behind one that fails as it is told.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;

use super::fixture::options;
use crate::store::{ObjectError, ObjectStoreRoot, Objects, RemoteLane, StoreOptions};

type Answer<T> = Result<T, ObjectError>;

/// What happens to one call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It fails and has not happened.
    Refused,
    /// It happens, but fails.
    AnswerLost,
    /// It does not happen, and no call does any more.
    Killed,
    /// It happens, and no call does any more.
    KilledAfter,
}

#[derive(Debug, Default)]
struct Script {
    /// Which call, counted from 0, and what happens to it.
    at: Option<(u64, Fault)>,
    dead: bool,
    /// This many calls are refused from now on.
    refuse: u64,
    pause: Duration,
}

/// Counts calls and lets one go wrong.
#[derive(Debug)]
pub struct Faulty {
    inner: Arc<dyn Objects>,
    script: Mutex<Script>,
    calls: AtomicU64,
}

fn refused(why: &str) -> ObjectError {
    ObjectError { why: why.to_owned(), permanent: why == "killed" }
}

impl Faulty {
    pub fn new(inner: Arc<dyn Objects>) -> Arc<Self> {
        Arc::new(Self { inner, script: Mutex::default(), calls: AtomicU64::new(0) })
    }
    pub fn fail_at(&self, call: u64, fault: Fault) {
        *self.script.lock().unwrap() = Script { at: Some((call, fault)), ..Script::default() };
        self.calls.store(0, Ordering::SeqCst);
    }
    pub fn refuse(&self, calls: u64) {
        self.script.lock().unwrap().refuse = calls;
    }
    pub fn pause(&self, pause: Duration) {
        self.script.lock().unwrap().pause = pause;
    }
    pub fn calls(&self) -> u64 {
        self.calls.load(Ordering::SeqCst)
    }

    fn act<T>(&self, act: impl FnOnce() -> Answer<T>) -> Answer<T> {
        let (fault, pause) = {
            let mut script = self.script.lock().unwrap();
            let call = self.calls.fetch_add(1, Ordering::SeqCst);
            if script.dead {
                return Err(refused("killed"));
            }
            if script.refuse > 0 {
                script.refuse -= 1;
                return Err(refused("500 Internal Server Error"));
            }
            let fault = script.at.filter(|(at, _)| *at == call).map(|(_, f)| f);
            script.dead = matches!(fault, Some(Fault::Killed | Fault::KilledAfter));
            (fault, script.pause)
        };
        std::thread::sleep(pause);
        match fault {
            None => act(),
            Some(Fault::Refused) => Err(refused("503 Slow Down")),
            Some(Fault::Killed) => Err(refused("killed")),
            Some(Fault::AnswerLost) => act().and_then(|_| Err(refused("connection reset"))),
            Some(Fault::KilledAfter) => act().and_then(|_| Err(refused("killed"))),
        }
    }
}

impl Objects for Faulty {
    fn url(&self) -> String {
        self.inner.url()
    }
    fn put_new(&self, name: &str, bytes: &[u8]) -> Answer<bool> {
        self.act(|| self.inner.put_new(name, bytes))
    }
    fn get(&self, name: &str) -> Answer<Option<Vec<u8>>> {
        self.act(|| self.inner.get(name))
    }
    fn list(&self, beginning: &str) -> Answer<Vec<(String, u64)>> {
        self.act(|| self.inner.list(beginning))
    }
    fn delete(&self, name: &str) -> Answer<()> {
        self.act(|| self.inner.delete(name))
    }
}

pub fn in_memory() -> Arc<dyn Objects> {
    ObjectStoreRoot::new(Arc::new(InMemory::new()), "state", "memory://test").unwrap().under("pump-health/0")
}

/// A directory as an object store: `<dir>/state/pump-health/0/<name>`.
pub fn in_directory(dir: &Path) -> Arc<dyn Objects> {
    let store = LocalFileSystem::new_with_prefix(dir).unwrap();
    ObjectStoreRoot::new(Arc::new(store), "state", "file://test").unwrap().under("pump-health/0")
}

/// Small waits, so that a test of failures takes no time.
pub fn remote(objects: &Arc<dyn Objects>) -> RemoteLane {
    RemoteLane::new(Arc::clone(objects), Duration::from_millis(350))
}

pub fn with(objects: &Arc<dyn Objects>) -> StoreOptions {
    StoreOptions { remote: Some(remote(objects)), ..options() }
}
