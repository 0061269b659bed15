//! From a [`LaneSpec`] to something that runs: names resolved, SQL planned, every column and type checked.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::datatypes::{DataType, SchemaRef};
use thiserror::Error;

use crate::identity::SignatureIn;
use crate::ingest::{Decoding, arrow_schema};
use crate::migrate::Definition;
use crate::model::Scorer;
use crate::reference::{Reference, ReferenceSpec};
use crate::spec::{DecideSpec, FieldType, FormatSpec, LaneSpec, SourceSpec, SqlStepSpec, WindowSpec};
use crate::sql::{RowPipeline, WindowedQuery, message};
use crate::verdict::Hash32;

/// What is wrong with a pipeline, and in which step.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
#[error("step \"{step}\": {message}")]
pub struct PlanError {
    /// The source or step.
    pub step: String,
    /// What is wrong and what to do.
    pub message: String,
}

impl PlanError {
    fn new(step: &str, message: impl Into<String>) -> Self {
        Self { step: step.to_owned(), message: message.into() }
    }
}

/// A SQL step without a window.
#[derive(Debug)]
pub struct RowStep {
    /// Its name.
    pub name: String,
    /// What it reads.
    pub input: Input,
    /// The query.
    pub query: RowPipeline,
    /// The references its rows are joined with, here or before, as indices into [`LanePlan::references`], ascending.
    pub references: Vec<usize>,
    /// What it is made of.
    pub definition: Definition,
}

/// A SQL step with a window.
#[derive(Debug)]
pub struct WindowStep {
    /// Its name.
    pub name: String,
    /// What it reads.
    pub input: Input,
    /// The window.
    pub window: WindowSpec,
    /// Early results at every multiple of so many milliseconds that the watermark passes; see [`LanePlan::with_early`].
    pub early_ms: Option<i64>,
    /// The query.
    pub query: WindowedQuery,
    /// The references its rows were joined with on the way, as indices into [`LanePlan::references`], ascending.
    pub references: Vec<usize>,
    /// What it is made of.
    pub definition: Definition,
}

/// A model step.
#[derive(Debug)]
pub struct ScoreStep {
    /// Its name.
    pub name: String,
    /// Index of the windowed step it reads.
    pub input: usize,
    /// The columns of that step, in the model's order.
    pub columns: Vec<usize>,
    /// The model.
    pub model: Arc<dyn Scorer>,
    /// What becomes a severity.
    pub decide: DecideSpec,
    /// What it is made of.
    pub definition: Definition,
}

/// What a step without a model reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Input {
    /// The source's readings.
    Source,
    /// The row step with this index.
    Step(usize),
}

/// A planned lane: immutable, shared by all lanes of a pipeline.
#[derive(Debug)]
pub struct LanePlan {
    /// The pipeline's name.
    pub pipeline: String,
    /// SHA-256 of the canonical pipeline.
    pub config_hash: Hash32,
    /// The source.
    pub source: SourceSpec,
    /// How its records are decoded.
    pub decoding: Decoding,
    /// Index of the key field.
    pub key: usize,
    /// Index of the time field.
    pub time: usize,
    /// The reference tables, sorted by name, in the versions to begin with.
    pub references: Vec<Arc<Reference>>,
    /// Row steps; each reads the source or an earlier one.
    pub rows: Vec<RowStep>,
    /// Windowed steps.
    pub windows: Vec<WindowStep>,
    /// Model steps.
    pub scores: Vec<ScoreStep>,
    /// What the source's readings are made of.
    pub definition: Definition,
}

impl LanePlan {
    /// Plans a lane. All errors are returned, not only the first.
    pub fn new(spec: &LaneSpec) -> Result<Self, Vec<PlanError>> {
        let mut errors = Vec::new();
        let source = &spec.source;
        let key = field(source, &source.key, FieldType::Utf8, "key", &mut errors);
        let time = field(source, &source.time, FieldType::TimestampMs, "time column", &mut errors);
        let decoding = Decoding::new(source)
            .map_err(|e| errors.extend(e.into_iter().map(|e| PlanError::new(&source.name, e.message))));
        signature(source, &mut errors);
        let (Some(key), Some(time), Ok(decoding)) = (key, time, decoding) else { return Err(errors) };
        let mut plan = Self {
            pipeline: spec.pipeline.clone(),
            config_hash: spec.config_hash,
            source: source.clone(),
            decoding,
            key,
            time,
            references: spec.references.clone(),
            rows: Vec::new(),
            windows: Vec::new(),
            scores: Vec::new(),
            definition: Definition::of_source(source),
        };
        // Steps come in any order: plan those whose input is planned until nothing moves.
        let mut waiting: Vec<&SqlStepSpec> = spec.sql.iter().collect();
        loop {
            let before = waiting.len();
            waiting.retain(|step| match plan.input(step) {
                Some(input) => {
                    if let Err(e) = plan.add(step, input) {
                        errors.push(e);
                    }
                    false
                }
                None => true,
            });
            if waiting.is_empty() || waiting.len() == before {
                break;
            }
        }
        for step in waiting {
            let failed = errors.iter().any(|e| e.step == step.from);
            if plan.windows.iter().any(|w| w.name == step.from) {
                errors.push(PlanError::new(
                    &step.name,
                    format!("\"{}\" is a windowed step; only model steps read windowed steps", step.from),
                ));
            } else if !failed {
                errors.push(PlanError::new(
                    &step.name,
                    format!("there is no source or step \"{}\" it can read", step.from),
                ));
            }
        }
        let longest = plan.windows.iter().max_by_key(|w| w.window.size_ms());
        if let (Some(ttl), Some(w)) = (source.device_ttl_ms, longest)
            && ttl < w.window.size_ms()
        {
            errors.push(PlanError::new(
                &source.name,
                format!(
                    "device_ttl = {ttl} ms is shorter than the windows of \"{}\" ({} ms), so devices would be forgotten while their windows are open; make it at least as long",
                    w.name,
                    w.window.size_ms()
                ),
            ));
        }
        for score in &spec.scores {
            match plan.windows.iter().position(|w| w.name == score.from) {
                Some(input) => match columns(
                    &score.name,
                    &score.features,
                    score.model.features(),
                    plan.windows[input].query.schema(),
                ) {
                    Ok(columns) => plan.scores.push(ScoreStep {
                        definition: Definition::of_model(score, &plan.windows[input].definition),
                        name: score.name.clone(),
                        input,
                        columns,
                        model: score.model.clone(),
                        decide: score.decide,
                    }),
                    Err(mut e) => errors.append(&mut e),
                },
                None if errors.iter().any(|e| e.step == score.from) => {}
                None => errors.push(PlanError::new(
                    &score.name,
                    format!("\"{}\" is not a windowed step; a model step reads one", score.from),
                )),
            }
        }
        if errors.is_empty() { Ok(plan) } else { Err(errors) }
    }

    /// The plan for rows that come as JSON, whatever the source's format is: rows of files and of tests. Their signatures are not
    /// checked.
    pub fn of_json(mut self) -> Self {
        self.decoding = Decoding::Json;
        // Rows of files have no key, and were not kept with their headers.
        self.source.keyed = false;
        self.source.signature = None;
        self
    }

    /// The plan with early results of a windowed step: at every multiple of `every_ms` that the watermark passes, the rows
    /// so far of each open window are judged too, beside the verdicts and without a trace in them.
    ///
    /// # Errors
    /// When there is no such step, or its windows cannot have them.
    pub fn with_early(mut self, step: &str, every_ms: i64) -> Result<Self, PlanError> {
        let fail = |message: &str| Err(PlanError::new(step, message));
        let Some(found) = self.windows.iter_mut().find(|w| w.name == step) else {
            return fail("it has no window, so there is nothing to judge early");
        };
        if matches!(found.window, WindowSpec::Session { .. }) {
            return fail("early results are for tumbling and sliding windows; a session's end is not known before");
        }
        if every_ms <= 0 || every_ms >= found.window.size_ms() {
            return fail("early results come at an interval longer than zero and shorter than the window");
        }
        found.early_ms = Some(every_ms);
        Ok(self)
    }

    /// The source's fields that no window's aggregates rest on, that no condition or join looks at, and that are neither its
    /// key nor its time, by name.
    pub fn unread_fields(&self) -> Vec<&str> {
        let mut source = BTreeSet::from([self.key, self.time]);
        let mut rows = vec![BTreeSet::new(); self.rows.len()];
        for window in &self.windows {
            match window.input {
                Input::Source => source.extend(window.query.reads()),
                Input::Step(i) => rows[i].extend(window.query.reads()),
            }
        }
        // A step reads only earlier ones, so what is asked of a step is known when its turn comes.
        for (i, step) in self.rows.iter().enumerate().rev() {
            let reads = step.query.reads(&rows[i]);
            match step.input {
                Input::Source => source.extend(reads),
                Input::Step(below) => rows[below].extend(reads),
            }
        }
        let fields = self.source.fields.iter().enumerate();
        fields.filter(|(i, _)| !source.contains(i)).map(|(_, f)| f.name.as_str()).collect()
    }

    fn input(&self, step: &SqlStepSpec) -> Option<Input> {
        if step.from == self.source.name {
            return Some(Input::Source);
        }
        self.rows.iter().position(|r| r.name == step.from).map(Input::Step)
    }

    /// The columns that an input has.
    pub fn input_schema(&self, input: Input) -> SchemaRef {
        match input {
            Input::Source => arrow_schema(&self.source.fields),
            Input::Step(i) => self.rows[i].query.schema().clone(),
        }
    }

    /// The references that an input's rows were joined with.
    fn joined(&self, input: Input) -> &[usize] {
        match input {
            Input::Source => &[],
            Input::Step(i) => &self.rows[i].references,
        }
    }

    /// The source column that an input's column is a plain copy of.
    fn lineage(&self, input: Input, column: usize) -> Option<usize> {
        match input {
            Input::Source => Some(column),
            Input::Step(i) => self.lineage(self.rows[i].input, self.rows[i].query.lineage(column)?),
        }
    }

    fn add(&mut self, step: &SqlStepSpec, input: Input) -> Result<(), PlanError> {
        let schema = self.input_schema(input);
        let fail = |e: datafusion::error::DataFusionError| PlanError::new(&step.name, message(&e));
        let Some(window) = step.window else {
            let specs: Vec<ReferenceSpec> = self.references.iter().map(|r| r.spec().clone()).collect();
            let query = RowPipeline::plan(&step.sql, &step.from, schema, &specs).map_err(fail)?;
            let mut references = self.joined(input).to_vec();
            for name in query.joined() {
                references.extend(self.references.iter().position(|r| r.spec().name == name));
            }
            references.sort_unstable();
            references.dedup();
            let definition = self.definition(step, input, &references);
            self.rows.push(RowStep { name: step.name.clone(), input, query, references, definition });
            return Ok(());
        };
        let (size, every) = (window.size_ms(), window.every_ms());
        let session = matches!(window, WindowSpec::Session { .. });
        let wrong = match (size.min(every), every > size) {
            (..=0, _) if session => "a session's gap and max are longer than zero".to_owned(),
            (..=0, _) => "a window's size and every are longer than zero".to_owned(),
            (_, true) if session => {
                format!("max = {size} ms is shorter than gap = {every} ms; make it at least the gap")
            }
            (_, true) => format!(
                "every = {every} ms is longer than size = {size} ms, so some rows would be in no window; make it at most the size"
            ),
            _ => String::new(),
        };
        if !wrong.is_empty() {
            return Err(PlanError::new(&step.name, wrong));
        }
        let find = |source_column: usize, what: &str, name: &str| {
            (0..schema.fields().len()).find(|&i| self.lineage(input, i) == Some(source_column)).ok_or_else(|| {
                PlanError::new(
                    &step.name,
                    format!("its input \"{}\" no longer has the {what} \"{name}\"; SELECT it there", step.from),
                )
            })
        };
        let key = find(self.key, "key column", &self.source.key)?;
        // The time column is needed only by slope(); its absence is the query's to report.
        let time = find(self.time, "time column", &self.source.time).unwrap_or(usize::MAX);
        let query = WindowedQuery::plan(&step.sql, &step.from, schema, key, time).map_err(fail)?;
        let references = self.joined(input).to_vec();
        let definition = self.definition(step, input, &references);
        let name = step.name.clone();
        self.windows.push(WindowStep { name, input, window, early_ms: None, query, references, definition });
        Ok(())
    }

    fn definition(&self, step: &SqlStepSpec, input: Input, references: &[usize]) -> Definition {
        let upstream = match input {
            Input::Source => &self.definition,
            Input::Step(i) => &self.rows[i].definition,
        };
        Definition::of_step(step, upstream, references.iter().map(|&r| self.references[r].spec()))
    }
}

/// Whether readings can carry the signature that they must.
fn signature(source: &SourceSpec, errors: &mut Vec<PlanError>) {
    let Some(signature) = &source.signature else { return };
    let mut fail = |why: String| errors.push(PlanError::new(&source.name, why));
    if matches!(source.format, FormatSpec::Arrow) {
        fail("a record of Arrow holds rows of several devices, none of which can sign it; use a format of one row a record".into());
    }
    if let SignatureIn::Field(name) = signature {
        match source.fields.iter().find(|f| f.name == *name) {
            Some(f) if f.ty == FieldType::Utf8 && f.name != source.key => {}
            Some(_) => fail(format!("the field \"{name}\" carries the signature and must be utf8, and not the key")),
            None => fail(format!("there is no field \"{name}\" to carry the signature; add it as utf8")),
        }
    }
}

fn field(source: &SourceSpec, name: &str, ty: FieldType, what: &str, errors: &mut Vec<PlanError>) -> Option<usize> {
    let Some(i) = source.fields.iter().position(|f| f.name == name) else {
        errors.push(PlanError::new(&source.name, format!("the {what} \"{name}\" is not in the schema")));
        return None;
    };
    let f = &source.fields[i];
    if f.ty != ty || !f.required {
        errors.push(PlanError::new(
            &source.name,
            format!(
                "the {what} \"{name}\" is {}{}; declare it \"{}!\"",
                f.ty.name(),
                if f.required { "!" } else { "" },
                ty.name()
            ),
        ));
        return None;
    }
    Some(i)
}

/// Where a model's features stand among a step's columns.
fn columns(
    step: &str,
    features: &[String],
    model: &[String],
    schema: &SchemaRef,
) -> Result<Vec<usize>, Vec<PlanError>> {
    let mut errors = Vec::new();
    if features != model {
        errors.push(PlanError::new(
            step,
            format!(
                "features = [{}] are not the model's, which are [{}] in this order; train the model again or correct the list",
                features.join(", "),
                model.join(", ")
            ),
        ));
        return Err(errors);
    }
    let mut out = Vec::new();
    for name in features {
        match schema.fields().iter().position(|f| f.name() == name) {
            Some(i) if numeric(schema.field(i).data_type()) => out.push(i),
            Some(i) => errors.push(PlanError::new(
                step,
                format!("feature \"{name}\" is {}, not a number", schema.field(i).data_type()),
            )),
            None => errors.push(PlanError::new(
                step,
                format!(
                    "feature \"{name}\" is not a column of its input; there are {}",
                    schema.fields().iter().map(|f| f.name().as_str()).collect::<Vec<_>>().join(", ")
                ),
            )),
        }
    }
    if errors.is_empty() { Ok(out) } else { Err(errors) }
}

fn numeric(ty: &DataType) -> bool {
    ty.is_numeric() && !matches!(ty, DataType::Decimal128(..) | DataType::Decimal256(..))
}
