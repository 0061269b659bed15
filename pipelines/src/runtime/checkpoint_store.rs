//! Where the lanes of a pipeline are kept, from what its file says.

use std::path::PathBuf;
use std::time::Duration;

use avouch_connectors::store::{
    ObjectStoreOptions, ObjectStoreRoot, RemoteLane, StoreOptions, load_or_create_note_signer, open_object_store,
};
use avouch_engine::log::NoteSigner;
use avouch_engine::verdict::{LogOrigin, Secret};

use super::error::RuntimeError;
use super::state_dir;
use crate::lang::Pipeline;

/// How long a failing object store is asked again before a lane is not opened, or a process that ends gives up.
const PATIENCE: Duration = Duration::from_secs(30);

/// The checkpoint store of a pipeline.
#[derive(Debug, Clone)]
pub struct CheckpointStore {
    pipeline: String,
    state: PathBuf,
    keep: usize,
    root: Option<ObjectStoreRoot>,
}

impl CheckpointStore {
    /// Reads what the pipeline says. Asks nothing of the network.
    ///
    /// # Errors
    /// When what it and the environment say of an object store does not suffice.
    pub fn open(pipeline: &Pipeline) -> Result<Self, RuntimeError> {
        let c = &pipeline.checkpoint;
        let root = match &c.object_store {
            None => None,
            Some(o) => {
                let options = ObjectStoreOptions {
                    endpoint: o.endpoint.clone(),
                    region: o.region.clone(),
                    access_key: o.access_key.as_ref().map(|k| k.expose().to_owned()),
                    secret_key: o.secret_key.as_ref().map(|k| k.expose().to_owned()),
                    timeout: None,
                };
                let root = open_object_store(&o.url, &options);
                Some(root.map_err(|why| RuntimeError::Start(format!("the checkpoint store {}: {why}", o.url)))?)
            }
        };
        Ok(Self { pipeline: pipeline.name.value.clone(), state: state_dir(pipeline), keep: c.keep, root })
    }

    /// How many checkpoints of each lane are kept.
    pub fn keep(&self) -> usize {
        self.keep
    }

    /// The object store, if it is one.
    pub fn root(&self) -> Option<&ObjectStoreRoot> {
        self.root.as_ref()
    }

    /// How a lane's store is opened.
    ///
    /// The key that signs the lane's published log is made from the pipeline's secret where any machine must be able to go
    /// on with the lane; in a directory it is a file beside the lanes, made once.
    ///
    /// # Errors
    /// When the key's file cannot be read or made.
    pub fn options(&self, partition: i32, secret: &Secret) -> Result<StoreOptions, RuntimeError> {
        let origin = LogOrigin::new(&self.pipeline, partition);
        let (signer, remote) = match &self.root {
            None => (load_or_create_note_signer(&self.state.join(format!("note-key-{partition}")), &origin)?, None),
            Some(root) => {
                let signer = NoteSigner::from_seed(&origin, &secret.note_seed(&origin.log_id()))
                    .map_err(avouch_connectors::store::StoreError::from)?;
                let objects = root.under(&format!("{}/{partition}", self.pipeline));
                (signer, Some(RemoteLane::new(objects, PATIENCE)))
            }
        };
        Ok(StoreOptions { signer: Some(signer), keep_checkpoints: self.keep, remote, ..StoreOptions::default() })
    }
}
