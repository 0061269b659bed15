//! The pipeline language: one TOML file says where readings come from, what is computed, and where verdicts go.
//!
//! ```text
//!   text ─ syntax ─► tree ─ structure ─► draft ─ references ─ guarantees ─► Pipeline ─ planning ─► the engine's lane
//!           │         │ keys, types,      │ names, cycles,    promises                SQL, columns,
//!           │         │ interpolation     │ kinds of steps    that hold               models
//!           │         └► canonical form, `configHash`
//!           └ every key and value keeps its place, so every error is at file:line:column
//! ```
//!
//! A syntax error ends the reading. All other mistakes of the file are found in one run: a broken part is left out and
//! reading goes on. Unknown keys are errors; so are keys of the language that this version does not build yet.
//!
//! Values are interpolated (`${env:NAME}`, `${env:NAME:-default}`, `${file:path}`) after parsing, into string values
//! only, and only where they do not decide verdicts: brokers, topics, group, checkpoint store, secrets, endpoints,
//! addresses, model file and hash, training files, and operational intervals. Names, schema, SQL, windows, features,
//! thresholds and training options must stand in the file, because its hash stands in every verdict.
//!
//! Reading is deterministic in the file, the environment and the files named in it. Relative paths are resolved
//! against the directory of the pipeline file.

mod assertions;
mod canonical;
mod changes;
mod decide;
mod decisions;
mod diagnostics;
mod early;
mod fields;
mod format;
mod guarantees;
mod interpolate;
mod keys;
mod pipeline;
mod planning;
mod references;
pub mod schema;
mod sink;
mod span;
mod structure;
mod testing;
mod tree;
mod units;
mod warnings;

use std::path::Path;
use std::sync::Arc;

pub use assertions::{TestTable, assertion_plan, assertion_session, test_tables, uses_verdicts};
pub use canonical::{Canonical, hex, toml_of_canonical};
pub use changes::{Change, Takes, canonical_changes, changes, refusal};
pub use decide::{Budget, Decide, shown as shown_threshold};
pub use diagnostics::{Diagnostic, Diagnostics, Level};
pub(crate) use diagnostics::{grouped, plural};
pub use early::with_early;
pub(crate) use fields::{closest, list};
pub use format::{Format, Protobuf, Registry, RegistryLogin};
pub use interpolate::{Environment, ProcessEnvironment, SecretString, Text};
pub use pipeline::{
    Anchor, ChainKeys, ChainSource, Checkpoint, Delivery, FileFormat, FilesPlace, FilesSource, Gas, Identity,
    JournalSettings, KafkaSecurity, KafkaSource, KeyRegistry, KmsKey, Membership, ModelStep, MqttSource, ObjectStore,
    Pipeline, ReferenceTable, Repartition, Rpc, SignaturePlace, Signer, Source, SourceKind, SqlStep, Time, Train,
    TrainData, TrainDevice, TrainFailures, TrainLabel,
};
pub use planning::{Models, check, lane_spec, load_models, load_models_there, plan};
pub(crate) use planning::{advice, condition_mistake};
pub use sink::{
    AlertmanagerSink, DeadLetterFiles, DeadLetterKind, DeadLetterSink, EarlyTo, KafkaSink, ParquetSink, Sink, SinkKind,
    WebhookSink,
};
pub use span::{SourceFile, Span, Spanned};
pub(crate) use structure::hex_bytes;
pub use testing::{DeadClass, Expectation, Golden, PipelineTest, TestInput};
pub use units::{MAX_DURATION_MS, UnitError, format_duration, format_ether, parse_duration, parse_ether, parse_size};

use fields::Reading;
use structure::{Draft, Section, StepBody};

/// A pipeline is written by people; what is larger is another file.
const MAX_FILE_BYTES: usize = 1 << 20;

impl Pipeline {
    /// Reads and checks a pipeline file, with this process's environment. Does not plan its SQL ([`check`], [`plan`])
    /// and reads no model. All mistakes are returned, not only the first.
    pub fn load(path: impl AsRef<Path>) -> Result<Self, Diagnostics> {
        let file = read_file(path.as_ref())?;
        Self::read(file, &ProcessEnvironment)
    }

    /// [`Pipeline::load`] for what runs in memory alone: a variable that is not set, or a file that is not there, is no
    /// mistake where it decides no verdict and is not read (brokers, endpoints, secrets). What stands in its place leads
    /// nowhere.
    pub fn load_offline(path: impl AsRef<Path>) -> Result<Self, Diagnostics> {
        let file = read_file(path.as_ref())?;
        Self::read_as(file, &ProcessEnvironment, true)
    }

    /// [`Pipeline::load_offline`] of a text, with the environment given.
    pub fn read_offline(file: Arc<SourceFile>, env: &dyn Environment) -> Result<Self, Diagnostics> {
        Self::read_as(file, env, true)
    }

    /// Checks the text of a pipeline file, with the environment given.
    pub fn read(file: Arc<SourceFile>, env: &dyn Environment) -> Result<Self, Diagnostics> {
        Self::read_as(file, env, false)
    }

    fn read_as(file: Arc<SourceFile>, env: &dyn Environment, offline: bool) -> Result<Self, Diagnostics> {
        let root = tree::parse(&file)?;
        let canonical = Canonical::of_tree(&root);
        let dir = file.dir();
        let mut reading =
            Reading { env, dir: &dir, offline, diags: Diagnostics::new(file.clone()), asked: Default::default() };
        let draft = structure::read(&mut reading, &root);
        let mut diags = reading.diags;
        references::check(&draft, &mut diags);
        guarantees::check(&draft, &mut diags);
        early::check(&draft, &mut diags);
        guarantees::warn(&draft, &mut diags);
        early::warn(&draft, &mut diags);
        if diags.has_errors() {
            return Err(diags);
        }
        match finish(draft, file, canonical, diags.clone()) {
            Some(mut pipeline) => {
                planning::default_features(&mut pipeline);
                Ok(pipeline)
            }
            None => {
                // A part is missing only when its error was reported, so this is a defect of ours; say so rather than
                // run half a pipeline.
                diags.error(
                    "internal",
                    Span::default(),
                    "a part of this pipeline could not be read, but no mistake was found in it",
                    "please report this with the file",
                );
                Err(diags)
            }
        }
    }
}

/// Reads the text of a pipeline file.
pub fn read_file(path: &Path) -> Result<Arc<SourceFile>, Diagnostics> {
    let fail = |message: String, help: &str| {
        let mut diags = Diagnostics::new(Arc::new(SourceFile::new(path, "")));
        diags.push(Diagnostic {
            level: Level::Error,
            code: "unreadable",
            span: None,
            message,
            help: help.to_owned(),
            related: None,
        });
        diags
    };
    let bytes = std::fs::read(path).map_err(|e| {
        fail(format!("the pipeline file cannot be read: {e}"), "check the path; every pipeline is one TOML file")
    })?;
    if bytes.len() > MAX_FILE_BYTES {
        return Err(fail(
            format!("the file has {} bytes, a pipeline at most {MAX_FILE_BYTES}", bytes.len()),
            "check the path; every pipeline is one TOML file",
        ));
    }
    match String::from_utf8(bytes) {
        Ok(text) => Ok(Arc::new(SourceFile::new(path, text))),
        Err(e) => {
            let at = e.utf8_error().valid_up_to();
            let text = String::from_utf8_lossy(e.as_bytes()).into_owned();
            let mut diags = Diagnostics::new(Arc::new(SourceFile::new(path, text)));
            diags.error(
                "syntax",
                Span::new(at, at + 1),
                "the file is not UTF-8 from here on",
                "save it as UTF-8; TOML knows no other encoding",
            );
            Err(diags)
        }
    }
}

fn finish(draft: Draft, file: Arc<SourceFile>, canonical: Canonical, warnings: Diagnostics) -> Option<Pipeline> {
    let head = draft.head?;
    let source = draft.sources.into_iter().next()?.body?;
    let (mut sql_steps, mut model_steps) = (Vec::new(), Vec::new());
    for step in draft.steps {
        match step.body? {
            StepBody::Sql(s) => sql_steps.push(s),
            StepBody::Model(s) => model_steps.push(*s),
        }
    }
    let mut references: Vec<ReferenceTable> = draft.references.into_iter().map(|r| r.body).collect::<Option<_>>()?;
    let mut sinks: Vec<Sink> = draft.sinks.into_iter().map(|s| s.body).collect::<Option<_>>()?;
    let mut train: Vec<Train> = draft.train.into_iter().map(|t| t.body).collect::<Option<_>>()?;
    // By name: the hash of the file does not cover its order, so nothing may depend on it.
    references.sort_by(|a, b| a.name.value.cmp(&b.name.value));
    sql_steps.sort_by(|a, b| a.name.value.cmp(&b.name.value));
    model_steps.sort_by(|a, b| a.name.value.cmp(&b.name.value));
    sinks.sort_by(|a, b| a.name.value.cmp(&b.name.value));
    train.sort_by(|a, b| a.name.value.cmp(&b.name.value));
    let dead_letter = match draft.dead_letter {
        Section::Read(d) => d.body,
        Section::Absent | Section::Broken => return None,
    };
    let anchor = match draft.anchor {
        Section::Read(a) => Some(a),
        Section::Absent => None,
        Section::Broken => return None,
    };
    let http = draft.http?;
    Some(Pipeline {
        file,
        canonical,
        warnings,
        name: head.name,
        description: head.description,
        delivery: head.delivery?,
        checkpoint: head.checkpoint?,
        secret: head.secret,
        source,
        references,
        sql_steps,
        model_steps,
        sinks,
        dead_letter,
        anchor,
        train,
        tests: draft.tests,
        http_listen: http.listen,
        http_tap: http.tap,
        http_log: http.log,
    })
}
