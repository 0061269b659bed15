//! Readers of the lanes this process has, for those who read lanes without running them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use avouch_connectors::store::LaneReader;

/// The readers of this process's own lanes, by partition. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct OwnReaders(Arc<Mutex<BTreeMap<i32, LaneReader>>>);

impl OwnReaders {
    fn held(&self) -> MutexGuard<'_, BTreeMap<i32, LaneReader>> {
        // A panic of another thread leaves the map whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The lane is ours now.
    pub fn insert(&self, partition: i32, reader: LaneReader) {
        self.held().insert(partition, reader);
    }

    /// The lane is not ours any more.
    pub fn remove(&self, partition: i32) {
        self.held().remove(&partition);
    }

    /// The lane's reader, if it is ours.
    pub fn get(&self, partition: i32) -> Option<LaneReader> {
        self.held().get(&partition).cloned()
    }

    /// The lanes that are ours.
    pub fn partitions(&self) -> Vec<i32> {
        self.held().keys().copied().collect()
    }
}
