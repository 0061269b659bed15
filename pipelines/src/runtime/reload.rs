//! Another version of the pipeline file while the pipeline runs.
//!
//! What follows on what, with its diagram, is decided in [`avouch_engine::control::reload`]; here is what a reload is asked by,
//! and how a version is prepared beside the running lanes, within a limit of time: read, checked, its models loaded, its
//! topics made, its number taken. The session (`session.rs`) then has the lanes go over to it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use avouch_connectors::schema_registry::SchemaRegistry;
use avouch_engine::control::reload::Version;
use avouch_engine::plan::LanePlan;
use sha2::{Digest, Sha256};
use tokio::sync::{mpsc, watch};

use super::artifacts::Artifacts;
use super::generations::Generations;
use super::metrics::Metrics;
use super::reference_watch::{ReferenceWatch, Tables, Watches};
use super::stamp::stamp;
use super::{blocking, keep_artifacts, keys, schemas, sinks};
use crate::lang::{self, Pipeline};

/// How long reading, checking and preparing may take.
const PREPARED_WITHIN: Duration = Duration::from_secs(60);
/// How often the file is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Reads and checks the pipeline file as it is now, models included; else says what is wrong with it.
pub type Load = Arc<dyn Fn() -> Result<(Pipeline, Arc<LanePlan>), String> + Send + Sync>;

/// Where reloads come from.
pub struct Reloads {
    asked: mpsc::UnboundedReceiver<&'static str>,
    load: Load,
}

impl Reloads {
    /// For a pipeline that stays as it is.
    pub fn none() -> Self {
        let (_, asked) = mpsc::unbounded_channel();
        Self { asked, load: Arc::new(|| Err("this pipeline is not reloaded".into())) }
    }

    /// Reloads by `load`, whenever the sender is told why.
    pub fn new(load: Load) -> (mpsc::UnboundedSender<&'static str>, Self) {
        let (ask, asked) = mpsc::unbounded_channel();
        (ask, Self { asked, load })
    }

    /// Waits until a reload is asked for. Several at once are one.
    pub(super) async fn asked(&mut self) -> &'static str {
        let Some(why) = self.asked.recv().await else { return std::future::pending().await };
        while self.asked.try_recv().is_ok() {}
        why
    }

    pub(super) fn load(&self) -> Load {
        self.load.clone()
    }
}

/// Asks for a reload whenever the contents of a file change, until nobody listens.
pub async fn ask_on_change(path: PathBuf, ask: mpsc::UnboundedSender<&'static str>) {
    let mut seen = stamp(&path);
    let mut content = digest(&path);
    while !ask.is_closed() {
        tokio::time::sleep(LOOK_EVERY).await;
        let now = stamp(&path);
        if now == seen {
            continue;
        }
        let read = digest(&path);
        // Written while it was read, or away for the moment in which it is replaced: look again.
        if read.is_none() || stamp(&path) != now {
            continue;
        }
        seen = now;
        if read != content {
            content = read;
            let _ = ask.send("the file changed");
        }
    }
}

fn digest(path: &Path) -> Option<[u8; 32]> {
    Some(Sha256::digest(std::fs::read(path).ok()?).into())
}

/// A version of the pipeline that is ready to be run.
pub(super) struct Candidate {
    pub pipeline: Pipeline,
    pub plan: Arc<LanePlan>,
    pub generation: u64,
    pub registry: Option<Arc<SchemaRegistry>>,
    pub references: watch::Receiver<Tables>,
    pub watch: Watches,
}

/// What preparing one needs.
pub(super) struct Preparation {
    pub load: Load,
    /// The pipeline that runs, and its version.
    pub running: Pipeline,
    pub version: Version,
    pub generations: Generations,
    pub artifacts: Artifacts,
    pub metrics: Metrics,
    /// With how many partitions topics are made, if they are.
    pub create_topics: Option<i32>,
}

impl Preparation {
    /// Prepares it, or says why it cannot be.
    pub async fn run(self) -> Result<Box<Candidate>, String> {
        match tokio::time::timeout(PREPARED_WITHIN, self.prepare()).await {
            Ok(outcome) => outcome,
            Err(_) => Err(format!("it was not checked and prepared within {} s", PREPARED_WITHIN.as_secs())),
        }
    }

    async fn prepare(self) -> Result<Box<Candidate>, String> {
        let load = self.load;
        let loaded = tokio::task::spawn_blocking(move || load());
        let (pipeline, plan) = loaded.await.map_err(|e| format!("reading the file ended: {e}"))??;
        let changes = lang::changes(&self.running, &pipeline);
        if let Some(refused) = lang::refusal(&changes) {
            return Err(refused);
        }
        let keys: Vec<&str> = changes.iter().map(|c| c.key.as_str()).collect();
        tracing::info!(changed = ?keys, "the changed pipeline is in order");
        for topic in sinks::topics(&pipeline) {
            sinks::prepare(&topic, self.create_topics).await.map_err(|e| e.to_string())?;
        }
        let state = self.artifacts.state().to_path_buf();
        let registry = schemas::registry(&pipeline, &state).map_err(|e| e.to_string())?;
        let keys = keys::open(&pipeline, &self.artifacts, &self.metrics).await.map_err(|e| e.to_string())?;
        let prepared = blocking(move || {
            keep_artifacts(&pipeline, &plan, &self.artifacts)?;
            let (watch, references) = ReferenceWatch::begin(&pipeline, &plan, &self.artifacts, &self.metrics, keys)?;
            // Last: from here on processes with an older number leave alone what we carry over.
            let generation = self.generations.claim(&self.version, &plan.config_hash)?;
            Ok(Box::new(Candidate { pipeline, plan, generation, registry, references, watch }))
        });
        prepared.await.map_err(|e| e.to_string())
    }
}
