//! The keys of devices while the pipeline runs: read before its lanes begin, followed after, and handed to the lanes as reference
//! tables are.
//!
//! A version is kept in the state directory before any lane hears of it, and a lane records where it goes over. Keys on a chain
//! are read as far as blocks are final, and kept beside the versions, so that a start needs no endpoint and reads on where it was.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use avouch_connectors::ethereum::{Address, DeviceRegistry, EthereumError, FleetKeys, RpcOptions};
use avouch_connectors::files::read_keys;
use avouch_engine::identity::KeySet;
use avouch_engine::reference::Versioned;
use tokio::sync::watch;

use super::artifacts::{Artifacts, hex, keys_path};
use super::error::RuntimeError;
use super::metrics::{Metrics, ReferenceMetrics};
use super::reference_watch::Tables;
use super::stamp::{Stamp, stamp};
use crate::lang::{ChainKeys, KeyRegistry, Pipeline};

/// How often a file is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How often a chain is asked: a block takes longer, and is final much later.
const ASK_EVERY: Duration = Duration::from_secs(4);

/// The keys as they are now, and what follows them.
pub struct Keys {
    pub now: Arc<KeySet>,
    pub follower: Follower,
}

/// Follows the keys of one source.
pub struct Follower {
    name: String,
    from: Place,
    artifacts: Artifacts,
    metrics: ReferenceMetrics,
}

// There is one of it in a process.
#[allow(clippy::large_enum_variant)]
enum Place {
    File { path: PathBuf, seen: Option<Stamp> },
    Chain { keys: ChainKeys, registry: Option<DeviceRegistry>, fleet: Option<FleetKeys>, cache: PathBuf },
}

/// The registry of a pipeline's fleet.
///
/// # Errors
/// What keeps the endpoint from answering, and that the contract is none of ours.
pub async fn registry(keys: &ChainKeys) -> Result<DeviceRegistry, EthereumError> {
    let (contract, fleet) = (Address::from(keys.contract.value), keys.fleet.value);
    let endpoint = keys.rpc.endpoint(RpcOptions::default())?;
    DeviceRegistry::over(endpoint, Some(keys.chain_id), contract, fleet).await
}

/// Reads the keys of a pipeline's source, and keeps this version. `None` where readings need no signature.
///
/// # Errors
/// When the file cannot be used; when the chain cannot be asked, and was not asked before.
pub async fn open(pipeline: &Pipeline, artifacts: &Artifacts, metrics: &Metrics) -> Result<Option<Keys>, RuntimeError> {
    let Some(identity) = &pipeline.source.identity else { return Ok(None) };
    let name = KeySet::name_of(&pipeline.source.name.value);
    let from = match &identity.registry {
        KeyRegistry::File(path) => Place::File { path: path.value.clone(), seen: None },
        KeyRegistry::Chain(keys) => Place::Chain {
            keys: keys.clone(),
            registry: None,
            fleet: None,
            cache: artifacts.state().join("keys").join("chain.json"),
        },
    };
    let metrics = metrics.reference(&name);
    let mut follower = Follower { name, from, artifacts: artifacts.clone(), metrics };
    let now = follower.read().await.map_err(RuntimeError::Start)?;
    follower.keep(&now)?;
    follower.metrics.rows.set(now.devices().len() as i64);
    tracing::info!(
        source = pipeline.source.name.value,
        version = hex(&now.version()),
        devices = now.devices().len(),
        "readings must be signed"
    );
    Ok(Some(Keys { now, follower }))
}

impl Follower {
    /// Tells lanes.
    pub fn telling(self, tell: watch::Sender<Tables>) -> KeyWatch {
        KeyWatch { follower: self, tell }
    }

    fn keep(&self, keys: &KeySet) -> Result<(), RuntimeError> {
        self.artifacts.keep(&keys_path(self.artifacts.state(), &keys.version()), &keys.to_bytes())
    }

    /// The keys at the start.
    async fn read(&mut self) -> Result<Arc<KeySet>, String> {
        match &mut self.from {
            Place::File { path, .. } => {
                read_keys(path, &self.name).map_err(|e| format!("the keys of devices cannot be used: {e}"))
            }
            Place::Chain { .. } => {
                let followed = self.ask().await;
                let Place::Chain { fleet, keys, .. } = &self.from else { return Err(String::new()) };
                match (fleet, followed) {
                    (Some(fleet), Err(e)) => {
                        let next_block = fleet.next_block;
                        tracing::warn!(error = %e, next_block, "the device registry cannot be asked; its keys of before are used");
                    }
                    (None, Err(e)) => {
                        let contract = Address::from(keys.contract.value);
                        return Err(format!("the keys of devices cannot be read from the registry {contract}: {e}"));
                    }
                    (_, Ok(_)) => {}
                }
                match fleet {
                    Some(fleet) => fleet.key_set(&self.name).map_err(|e| e.to_string()),
                    None => Err("the registry was not read".into()),
                }
            }
        }
    }

    /// Asks the chain; whether anything was new. What was read before stays whatever happens.
    async fn ask(&mut self) -> Result<bool, EthereumError> {
        let Place::Chain { keys, registry: known, fleet, cache } = &mut self.from else { return Ok(false) };
        if fleet.is_none() {
            *fleet = cached(cache, keys);
        }
        let registry = match known {
            Some(registry) => registry,
            None => known.insert(registry(keys).await?),
        };
        let kept = fleet.take().filter(|kept| registry.is_of(kept));
        let fleet = fleet.insert(kept.unwrap_or_else(|| registry.begin(keys.from_block)));
        let before = fleet.next_block;
        let followed = registry.follow(fleet, false).await;
        if fleet.next_block > before
            && let Err(e) = save(cache, fleet)
        {
            tracing::warn!(error = %e, "what was read of the device registry cannot be kept; the next start reads it again");
        }
        followed
    }

    /// The keys, if they may have changed.
    async fn look(&mut self) -> Result<Option<Arc<KeySet>>, String> {
        match &mut self.from {
            Place::File { path, seen } => {
                let now = stamp(path);
                if now == *seen {
                    return Ok(None);
                }
                let read = read_keys(path, &self.name);
                // Written while it was read: look again rather than trust it.
                if stamp(path) != now {
                    return Ok(None);
                }
                *seen = now;
                read.map(Some).map_err(|e| e.to_string())
            }
            Place::Chain { .. } => {
                if !self.ask().await.map_err(|e| e.to_string())? {
                    return Ok(None);
                }
                let Place::Chain { fleet: Some(fleet), .. } = &self.from else { return Ok(None) };
                fleet.key_set(&self.name).map(Some).map_err(|e| e.to_string())
            }
        }
    }
}

/// What was read of the fleet before. A file that is damaged, or another fleet's, is as good as none: all is read again.
fn cached(path: &Path, keys: &ChainKeys) -> Option<FleetKeys> {
    let fleet: FleetKeys = serde_json::from_slice(&std::fs::read(path).ok()?).ok()?;
    let contract = &keys.contract.value;
    let domain = avouch_engine::identity::chain_domain(keys.chain_id, contract, &keys.fleet.value);
    fleet.key_set("").ok().filter(|set| *set.domain() == domain).map(|_| fleet)
}

fn save(path: &Path, fleet: &FleetKeys) -> std::io::Result<()> {
    if let Some(dir) = path.parent() {
        std::fs::create_dir_all(dir)?;
    }
    let temporary = path.with_extension(format!("{}.tmp", std::process::id()));
    std::fs::write(&temporary, serde_json::to_vec(fleet)?)?;
    std::fs::rename(&temporary, path)
}

/// Follows the keys and tells the lanes.
pub struct KeyWatch {
    follower: Follower,
    tell: watch::Sender<Tables>,
}

impl KeyWatch {
    /// Runs until its task is aborted.
    pub async fn run(mut self) {
        let pause = match self.follower.from {
            Place::File { .. } => LOOK_EVERY,
            Place::Chain { .. } => ASK_EVERY,
        };
        loop {
            tokio::time::sleep(pause).await;
            let looked = self.follower.look().await;
            let metrics = &self.follower.metrics;
            let new = match looked {
                Ok(None) => continue,
                Ok(Some(new)) => new,
                Err(why) => {
                    tracing::error!(why, "the keys of devices cannot be read; those of before stay in use");
                    metrics.errors.inc();
                    continue;
                }
            };
            if self.tell.borrow().iter().any(|t| t.version() == new.version()) {
                continue;
            }
            if let Err(e) = self.follower.keep(&new) {
                tracing::error!(error = %e, "the new keys cannot be kept; those of before stay in use");
                metrics.errors.inc();
                if let Place::File { seen, .. } = &mut self.follower.from {
                    *seen = None;
                }
                continue;
            }
            let (version, devices) = (hex(&new.version()), new.devices().len());
            tracing::info!(version, devices, "keys of devices changed");
            metrics.changes.inc();
            metrics.rows.set(devices as i64);
            self.tell.send_modify(|tables| {
                tables.retain(|t| !matches!(t, Versioned::Keys(_)));
                tables.push(new.into());
            });
        }
    }
}
