//! The list of versions of the pipeline, the same for all processes: in an object store, or files in a directory, each
//! written beside, fsynced and linked to its name only where nothing has it, before the directory is fsynced.

use std::collections::BTreeMap;

use avouch_engine::control::reload::{Version, Versions};
use avouch_engine::verdict::Hash32;

use super::random::Random;

/// A pipeline file, as far as processes and lanes tell one from another.
pub type Config = u64;

/// Its configHash.
pub fn hash(config: Config) -> Hash32 {
    let mut bytes = [7; 32];
    bytes[..8].copy_from_slice(&config.to_le_bytes());
    bytes
}

/// The file of this configHash.
pub fn config(hash: &Hash32) -> Config {
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&hash[..8]);
    Config::from_le_bytes(bytes)
}

#[derive(Default)]
pub struct VersionList {
    /// By number: the hash, and whether no power cut takes its name away.
    entries: BTreeMap<u64, (Hash32, bool)>,
}

impl VersionList {
    pub fn seen(&self) -> Versions {
        self.entries.iter().map(|(number, (hash, _))| (*number, *hash)).collect()
    }

    pub fn latest(&self) -> Option<Version> {
        self.entries.last_key_value().map(|(number, (config, _))| Version { number: *number, config: *config })
    }

    /// Puts one unless there is one of this number; whether there was none. With `over` it is put whatever is there, as nobody
    /// should.
    pub fn put(&mut self, version: Version, durable: bool, over: bool) -> bool {
        if self.entries.contains_key(&version.number) && !over {
            return false;
        }
        self.entries.insert(version.number, (version.config, durable));
        true
    }

    pub fn sync_dir(&mut self) {
        self.entries.values_mut().for_each(|(_, named)| *named = true);
    }

    pub fn power_cut(&mut self, random: &mut Random) {
        self.entries.retain(|_, (_, named)| *named || random.one_in(2));
        self.sync_dir();
    }
}
