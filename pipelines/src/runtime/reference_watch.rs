//! Reference tables while the pipeline runs: read again when their files change, and handed to the lanes.
//!
//! A lane records where it changes over, so a new version decides verdicts from a place of the input and not from a
//! time. The version is kept in the state directory before any lane hears of it. A file that cannot be read or does not
//! fit keeps the old version in use; that is logged, counted, and tried again when the file changes once more.

use std::path::PathBuf;
use std::time::Duration;

use avouch_connectors::files::read_reference;
use avouch_engine::plan::LanePlan;
use avouch_engine::reference::Versioned;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::artifacts::{Artifacts, hex, reference_path};
use super::error::RuntimeError;
use super::keys::{KeyWatch, Keys};
use super::metrics::{Metrics, ReferenceMetrics};
use super::stamp::{Stamp, stamp};
use crate::lang::Pipeline;

/// How often files are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What the lanes are told: the tables in use, in the order of the plan, then the source's keys, if its readings are signed.
pub type Tables = Vec<Versioned>;

struct Watched {
    path: PathBuf,
    seen: Option<Stamp>,
    metrics: ReferenceMetrics,
}

/// What is watched while a pipeline runs.
pub struct Watches {
    tables: Option<ReferenceWatch>,
    keys: Option<KeyWatch>,
}

impl Watches {
    /// Begins to.
    pub fn spawn(self) -> Watching {
        let tables = self.tables.map(|w| tokio::spawn(w.run()));
        Watching { tasks: tables.into_iter().chain(self.keys.map(|w| tokio::spawn(w.run()))).collect() }
    }
}

/// What is being watched, until this is dropped.
pub struct Watching {
    tasks: Vec<JoinHandle<()>>,
}

impl Drop for Watching {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

/// Watches the files of a pipeline's references.
pub struct ReferenceWatch {
    artifacts: Artifacts,
    watched: Vec<Watched>,
    tell: watch::Sender<Tables>,
}

impl ReferenceWatch {
    /// Keeps the versions the plan was made with, and begins to watch, and to follow the keys. Nothing for a pipeline without
    /// either, for which the receiver never has news.
    ///
    /// # Errors
    /// [`RuntimeError::File`] when the state directory cannot be written.
    pub fn begin(
        pipeline: &Pipeline,
        plan: &LanePlan,
        artifacts: &Artifacts,
        metrics: &Metrics,
        keys: Option<Keys>,
    ) -> Result<(Watches, watch::Receiver<Tables>), RuntimeError> {
        let (keys, follower) = keys.map(|k| (k.now, k.follower)).unzip();
        let tables: Tables = plan.references.iter().cloned().map(Versioned::from).collect();
        let (tell, told) = watch::channel(tables.into_iter().chain(keys.map(Versioned::from)).collect());
        let mut watched = Vec::new();
        for (table, file) in plan.references.iter().zip(&pipeline.references) {
            artifacts.keep(&reference_path(artifacts.state(), &table.version()), &table.to_bytes())?;
            let metrics = metrics.reference(&table.spec().name);
            metrics.rows.set(table.len() as i64);
            // Looked at once more at first: the file may have changed since it was planned with.
            watched.push(Watched { path: file.file.value.clone(), seen: None, metrics });
        }
        let keys = follower.map(|follower| follower.telling(tell.clone()));
        let watch = Self { artifacts: artifacts.clone(), watched, tell };
        Ok((Watches { tables: (!watch.watched.is_empty()).then_some(watch), keys }, told))
    }

    /// Runs until its task is aborted.
    pub async fn run(mut self) {
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            let looked = tokio::task::spawn_blocking(move || {
                self.look();
                self
            });
            match looked.await {
                Ok(watch) => self = watch,
                Err(e) => {
                    tracing::error!(error = %e, "reference tables are not watched any more");
                    return;
                }
            }
        }
    }

    fn look(&mut self) {
        let tables = self.tell.borrow().clone();
        let tables = tables.iter().filter_map(|t| match t {
            Versioned::Table(table) => Some(table.clone()),
            Versioned::Keys(_) => None,
        });
        for (at, (table, w)) in tables.zip(&mut self.watched).enumerate() {
            let now = stamp(&w.path);
            if now == w.seen {
                continue;
            }
            let spec = table.spec();
            let outcome = read_reference(&w.path, &spec.name, &spec.key, Some(&spec.fields)).map_err(|e| e.to_string());
            // Written while it was read: look again rather than trust it.
            if stamp(&w.path) != now {
                continue;
            }
            if let Ok(new) = &outcome
                && new.version() != table.version()
                && let Err(e) =
                    self.artifacts.keep(&reference_path(self.artifacts.state(), &new.version()), &new.to_bytes())
            {
                // It is no fault of the file's: look again.
                tracing::error!(reference = spec.name, error = %e, "the new table cannot be kept; the old one stays");
                w.metrics.errors.inc();
                continue;
            }
            w.seen = now;
            match outcome {
                Ok(new) if new.version() == table.version() => {}
                Ok(new) => {
                    let (version, rows) = (hex(&new.version()), new.len());
                    tracing::info!(reference = spec.name, version, rows, "reference table changed");
                    w.metrics.changes.inc();
                    w.metrics.rows.set(rows as i64);
                    // The keys, which stand behind the tables, may be changed meanwhile by who follows them.
                    self.tell.send_modify(|tables| tables[at] = new.into());
                }
                Err(why) => {
                    tracing::error!(reference = spec.name, why, "the changed file cannot be used; the old table stays");
                    w.metrics.errors.inc();
                }
            }
        }
    }
}
