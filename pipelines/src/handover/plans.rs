//! From canonical pipelines and model files of an export to plans that lanes run by. Nobody's TOML file is needed.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use avouch_engine::event::LaneEvent;
use avouch_engine::identity::KeySet;
use avouch_engine::plan::LanePlan;
use avouch_engine::reference::{Reference, Versioned};
use avouch_engine::spec::LaneSpec;
use avouch_engine::verdict::{Hash32, Logged, NO_MODEL, VerdictRecord};
use thiserror::Error;

use super::{Handover, HandoverError};
use crate::lang::{Diagnostics, Models, Pipeline, ProcessEnvironment, SourceFile, lane_spec, toml_of_canonical};
use crate::runtime::hex;

/// Why a lane cannot be planned again.
#[derive(Debug, Error)]
pub enum PlanFailure {
    /// A pipeline is not there.
    #[error("the pipeline of configHash {0} is not in the export, and none of the pipeline files given has that hash")]
    NoPipeline(String),
    /// A pipeline cannot be read.
    #[error("the pipeline of configHash {config} cannot be read again from its canonical form; name its file as well:\n{}", .why.render_text(false))]
    Pipeline {
        /// Its hash.
        config: String,
        /// What is wrong.
        why: Box<Diagnostics>,
    },
    /// A model is not there.
    #[error("the model {model} of step \"{step}\" is not in the export")]
    NoModel {
        /// The step.
        step: String,
        /// The file's hash.
        model: String,
    },
    /// It is not known which model a step has.
    #[error(
        "nothing says which model the step \"{step}\" had under configHash {config}, since it decided nothing; name the \
         pipeline's file as well, with its models in place"
    )]
    UnknownModel {
        /// The step.
        step: String,
        /// The pipeline.
        config: String,
    },
    /// A step had several models under one configuration.
    #[error(
        "the step \"{step}\" decided with {count} models under one configHash, {config}: that cannot be replayed in one run"
    )]
    SeveralModels {
        /// The step.
        step: String,
        /// The pipeline.
        config: String,
        /// How many.
        count: usize,
    },
    /// A model cannot be loaded.
    #[error("{path}: {why}")]
    Model {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// A reference table cannot be read.
    #[error("reference \"{name}\": {why}")]
    Reference {
        /// Its name.
        name: String,
        /// What is wrong.
        why: String,
    },
    /// The engine cannot plan it.
    #[error("the pipeline of configHash {config} cannot be planned: {why}")]
    Plan {
        /// Its hash.
        config: String,
        /// What is wrong.
        why: String,
    },
    /// The export cannot be read.
    #[error(transparent)]
    Handover(#[from] HandoverError),
}

/// Which models decided in which step, under which configuration.
type Used = BTreeMap<(Hash32, String), BTreeSet<Hash32>>;

/// Makes plans. See the [module](self).
pub(super) struct Plans<'a> {
    handover: &'a Handover,
    given: &'a [Pipeline],
    used: Used,
    /// Each reference's first version.
    references: BTreeMap<String, Hash32>,
}

impl<'a> Plans<'a> {
    /// Reads all records once.
    pub fn new(handover: &'a Handover, given: &'a [Pipeline], events: &[LaneEvent]) -> Result<Self, PlanFailure> {
        let mut used = Used::new();
        let mut records = handover.records()?;
        loop {
            let piece = records.next()?;
            if piece.is_empty() {
                break;
            }
            piece.iter().filter_map(Logged::record).for_each(|r| note(r, &mut used));
        }
        let mut references = BTreeMap::new();
        for event in events {
            if let LaneEvent::Reference { name, version, .. } = event {
                references.entry(name.clone()).or_insert(*version);
            }
        }
        Ok(Self { handover, given, used, references })
    }

    /// The pipeline of a configuration: a file that was given, or its canonical form.
    pub fn pipeline(&self, config: &Hash32) -> Result<Pipeline, PlanFailure> {
        if let Some(given) = self.given.iter().find(|p| p.config_hash() == *config) {
            return Ok(given.clone());
        }
        let hash = hex(config);
        let json = self.handover.pipelines.get(config).ok_or_else(|| PlanFailure::NoPipeline(hash.clone()))?;
        let text = without_files(json).and_then(|json| toml_of_canonical(&json));
        let text = text.ok_or_else(|| PlanFailure::NoPipeline(hash.clone()))?;
        let path = self.handover.dir.join(format!("{hash}.toml"));
        let read = Pipeline::read_offline(Arc::new(SourceFile::new(&path, text)), &ProcessEnvironment);
        read.map_err(|why| PlanFailure::Pipeline { config: hash, why: Box::new(why) })
    }

    /// The plan of a configuration.
    pub fn plan(&self, config: &Hash32) -> Result<Arc<LanePlan>, PlanFailure> {
        let pipeline = self.pipeline(config)?;
        let models = self.models(config, &pipeline)?;
        let mut tables = Vec::new();
        for r in &pipeline.references {
            let name = &r.name.value;
            let fail = |why: String| PlanFailure::Reference { name: name.clone(), why };
            let version =
                self.references.get(name).ok_or_else(|| fail("the lane never took a version of it".into()))?;
            match self.version(name, version).map_err(fail)? {
                Versioned::Table(table) => tables.push(table),
                Versioned::Keys(_) => return Err(fail("keys of devices stand under its name".into())),
            }
        }
        // The hash of what was handed over, not of what it was read from here.
        let mut spec = LaneSpec { config_hash: *config, references: tables, ..lane_spec(&pipeline, &models) };
        // The topic's name may be the operator's environment's to say; the coverage commits to it.
        spec.source.topic.clone_from(&self.handover.head.topic);
        LanePlan::new(&spec).map(Arc::new).map_err(|errors| PlanFailure::Plan {
            config: hex(config),
            why: errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "),
        })
    }

    /// A version of a reference table, or of keys of devices, which must be what its hash says.
    pub fn version(&self, name: &str, version: &Hash32) -> Result<Versioned, String> {
        let bytes = self.handover.version(name, version).map_err(|e| e.to_string())?;
        let table: Versioned = match KeySet::is_name(name) {
            true => KeySet::from_bytes(name, &bytes).map_err(|e| e.to_string())?.into(),
            false => Reference::from_bytes(name, &bytes).map_err(|e| e.to_string())?.into(),
        };
        if table.version() == *version { Ok(table) } else { Err(format!("version {} was altered", hex(version))) }
    }

    fn models(&self, config: &Hash32, pipeline: &Pipeline) -> Result<Models, PlanFailure> {
        let mut models = Models::new();
        for step in &pipeline.model_steps {
            let name = step.name.value.clone();
            let hash = match self.used.get(&(*config, name.clone())) {
                Some(several) if several.len() > 1 => {
                    return Err(PlanFailure::SeveralModels { step: name, config: hex(config), count: several.len() });
                }
                Some(one) => one.first().copied(),
                None => match self.handover.head.models.get(&name) {
                    Some(hash) if self.handover.config()? == *config => Some(self.handover.hash(hash)?),
                    _ => None,
                },
            };
            let (path, bytes) = match hash {
                Some(hash) => {
                    let path = self.handover.models.get(&hash);
                    let path =
                        path.ok_or_else(|| PlanFailure::NoModel { step: name.clone(), model: hex(&hash) })?.clone();
                    (path.clone(), std::fs::read(&path))
                }
                // Of a pipeline file that was given, the model beside it.
                None => (step.model_file.value.clone(), std::fs::read(&step.model_file.value)),
            };
            let unknown = || PlanFailure::UnknownModel { step: name.clone(), config: hex(config) };
            let bytes = bytes.map_err(|_| unknown())?;
            let model = avouch_models::load(&bytes).map_err(|e| PlanFailure::Model { path, why: e.to_string() })?;
            models.insert(name, model);
        }
        Ok(models)
    }
}

/// A canonical pipeline, but for where its models lie and how they were trained: the records say which models they were, and the
/// operator's paths, and the variables that stand in them, are of no use here.
fn without_files(json: &str) -> Option<String> {
    let mut pipeline: serde_json::Value = serde_json::from_str(json).ok()?;
    pipeline.as_object_mut()?.remove("train");
    for step in pipeline.get_mut("steps").and_then(|s| s.as_object_mut()).into_iter().flat_map(|s| s.values_mut()) {
        if let Some(model) = step.get_mut("model").and_then(|m| m.as_object_mut()) {
            model.remove("sha256");
            model.insert("file".into(), "model".into());
        }
    }
    Some(pipeline.to_string())
}

fn note(record: &VerdictRecord, used: &mut Used) {
    let v = &record.verdict;
    if v.model_hash == NO_MODEL {
        return;
    }
    // Nearly all records find their place: no key is made for them.
    let step = record.evidence.step.to_string();
    used.entry((v.config_hash, step)).or_default().insert(v.model_hash);
}
