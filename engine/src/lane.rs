//! The lane: one partition's readings in, verdicts and dead letters out.
//!
//! ```text
//!  records ─ decode ─ admit ─ SQL ─ window ─ score ─ decide ─► verdicts
//!               └───────┴──────┴─────────────────────────────► dead letters
//! ```
//!
//! A lane is a pure state machine. Its verdicts are a function of the records (offset, timestamp, key, value, origin) and the
//! recorded events between them ([`crate::event`]), the plan, the model files and the secret: byte for byte the same
//! however the records are cut into calls of [`Lane::step`] and wherever it was [`Lane::snapshot`]ted and [`Lane::restore`]d in between.

mod early;
mod incidents;
mod judge;
mod label;
mod online;
mod state;
mod watched;

use std::sync::Arc;

use thiserror::Error;

use crate::admit::Admission;
use crate::codec::CodecError;
use crate::dead_letter::{DeadLetter, DeadReason};
use crate::decode::{RawRecord, SchemaAnswer};
use crate::device::DeviceTable;
use crate::event::{BEFORE_ALL, LaneEvent, Tick};
use crate::identity::{Checker, KeySet};
use crate::ingest::{Ingest, Rows, Run};
use crate::plan::{Input, LanePlan};
use crate::reference::{Reference, Versioned};
use crate::sql::{Memory, RowPlaces, Selection, Surroundings};
use crate::verdict::{Hash32, LogOrigin, Secret, Severity, VerdictRecord};
use crate::window::{EarlyWindow, FiredWindow, WindowOperator};

pub use early::EarlyVerdict;
pub use state::Snapshot;
pub use watched::StepRows;

/// Why a lane cannot go on. None of these comes from the contents of a record: bad records become dead letters.
#[derive(Debug, Error)]
pub enum LaneError {
    /// A snapshot could not be read.
    #[error("lane state: {0}")]
    Snapshot(#[from] CodecError),
    /// The snapshot was made by a pipeline with another definition.
    #[error(
        "the checkpoint was written by another version of this pipeline (configHash {found} there, {expected} here); \
         restore the pipeline file, let the lane go on under this one with `avouch run --accept-change`, or give the \
         changed pipeline a new name, which begins a new log"
    )]
    OtherPipeline {
        /// Hex of the snapshot's configHash.
        found: String,
        /// Hex of this pipeline's.
        expected: String,
    },
    /// A record was written with a schema that the lane was not told. Nothing was taken: give the records before it, tell
    /// the lane the schema with [`Lane::learn_schema`], then give the rest.
    #[error("schema {id} is needed to go on")]
    NeedSchema {
        /// The schema's id in the registry.
        id: u32,
        /// Index of the first record that needs it.
        at: usize,
    },
    /// A tick or another event was given at another place than it was made at.
    #[error("an event after offset {given} was given to a lane that has taken records up to offset {at}: {why}")]
    EventOutOfPlace {
        /// The place in the event.
        given: i64,
        /// The last offset the lane has taken.
        at: i64,
        /// What is wrong.
        why: &'static str,
    },
    /// What was recorded says that another pipeline is computed from here on. Until here the lane is right: make a checkpoint.
    #[error(
        "after offset {after_offset} this lane went on under another version of the pipeline, configHash {to}, and what \
         stands behind that was judged by it; go on with that pipeline file (its canonical form is kept beside the lanes as \
         pipelines/{to}.json)"
    )]
    NextPipeline {
        /// The offset of the last record of this pipeline.
        after_offset: i64,
        /// Hex of the configHash.
        to: String,
    },
    /// A label that cannot be.
    #[error("a label cannot be taken: {0}")]
    Label(String),
    /// A reference table is missing or is not the one that is needed.
    #[error("reference \"{name}\": {why}")]
    Reference {
        /// The reference.
        name: String,
        /// What is wrong and what to do.
        why: String,
    },
    /// DataFusion or Arrow failed where no row is to blame.
    #[error("step \"{step}\": {message}")]
    Step {
        /// The step.
        step: String,
        /// What happened.
        message: String,
    },
}

/// Rows counted since the lane began, over all restarts. `rows_in` = `rows_used` + the sum of `dead`.
///
/// Most formats have one row a record. A record of several rows (Arrow) counts as so many, each of which is used or dead
/// by itself; a record that cannot be decoded, and whose rows are therefore not known, counts as one row in and one dead.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counters {
    /// Rows taken, as the decoder counts them before it knows what becomes of them.
    pub rows_in: u64,
    /// Rows admitted whose SQL did not fail; a row that a WHERE drops is used, since dropping it is what the SQL decided.
    pub rows_used: u64,
    /// Dead letters by [`DeadReason::index`].
    pub dead: [u64; DeadReason::ALL.len()],
    /// Verdicts by severity; labels, which have none, are not among them.
    pub verdicts: [u64; Severity::ALL.len()],
    /// Ticks taken.
    pub ticks: u64,
    /// Devices evicted.
    pub evicted: u64,
}

impl Counters {
    /// The conservation of rows, checked after every step.
    pub fn balanced(&self) -> bool {
        self.rows_in == self.rows_used + self.dead.iter().sum::<u64>()
    }
}

/// What a step gives.
#[derive(Debug, Default)]
pub struct Output {
    /// In log order; indices go on where the last step's ended.
    pub verdicts: Vec<VerdictRecord>,
    /// In offset order.
    pub dead: Vec<DeadLetter>,
    /// What else happened, in order; to be recorded with the verdicts.
    pub events: Vec<LaneEvent>,
    /// Results of windows that are still open, where the plan asks for them: no part of the log, and nothing rests on them.
    pub early: Vec<EarlyVerdict>,
    /// Windows whose rows so far could not be judged. That is no failure of the lane: the window may still become one that
    /// can.
    pub early_failed: Vec<LaneError>,
}

/// A table of features, as training sees them: one row a device and window.
#[derive(Debug)]
pub struct FeatureRows {
    /// The columns of the windowed step.
    pub batch: arrow::array::RecordBatch,
    /// Window ends, milliseconds, one a row.
    pub window_ends: Vec<i64>,
    /// Devices, one a row.
    pub devices: Vec<String>,
    /// Window starts, milliseconds, one a row.
    pub window_starts: Vec<i64>,
}

/// One lane of a pipeline.
#[derive(Debug)]
pub struct Lane {
    plan: Arc<LanePlan>,
    partition: i32,
    secret: Secret,
    log_id: Hash32,
    next_index: u64,
    /// Offset of the last record taken.
    last_offset: i64,
    ingest: Ingest,
    admission: Admission,
    devices: DeviceTable,
    windows: Vec<WindowOperator>,
    /// Windows that were looked at before they closed and are not judged yet, with their steps.
    early: Vec<(usize, EarlyWindow)>,
    /// What row steps remember, by step; `None` for those without row functions.
    memories: Vec<Option<Memory>>,
    /// What online models remember, by model step; `None` for models that do not learn.
    online: Vec<Option<online::Memories>>,
    /// Incidents, by model step; `None` for steps whose alarms stand alone.
    incidents: Vec<Option<incidents::Incidents>>,
    /// The reference tables in use, by their index in the plan.
    references: Vec<Option<Arc<Reference>>>,
    /// Who checks signatures, where readings must be signed.
    identity: Option<Checker>,
    /// Every change of a reference or of the keys: after which offset, which, to what.
    switches: Vec<Switch>,
    counters: Counters,
    /// Rows of steps that somebody looks at.
    watched: watched::Watched,
    /// Bytes of the last snapshot: room for the next one, so that it need not grow step by step.
    last_snapshot: std::cell::Cell<usize>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Switch {
    after_offset: i64,
    /// Its index in the plan; of keys, the one after those.
    reference: u32,
    version: Hash32,
}

impl Lane {
    /// A lane at the beginning of its partition.
    pub fn new(plan: Arc<LanePlan>, partition: i32, secret: Secret) -> Self {
        let source = &plan.source;
        let ingest = Ingest::new(source, &plan.decoding, plan.key, plan.time);
        let windows = plan.windows.iter().map(|w| w.window).collect();
        let admission = Admission::new(source.max_disorder_ms, source.max_future_ms, windows);
        let operators = plan
            .windows
            .iter()
            .map(|w| WindowOperator::new(w.query.definition(w.window), &source.topic, partition).with_early(w.early_ms))
            .collect();
        let log_id = LogOrigin::new(&plan.pipeline, partition).log_id();
        Self {
            ingest,
            admission,
            devices: DeviceTable::new(secret.clone(), source.device_ttl_ms),
            windows: operators,
            early: Vec::new(),
            memories: plan.rows.iter().map(|s| s.query.memory()).collect(),
            online: plan.scores.iter().map(|s| online::Memories::of(s.model.as_ref())).collect(),
            incidents: plan.scores.iter().map(|s| s.decide.incident_ms.map(incidents::Incidents::new)).collect(),
            references: vec![None; plan.references.len()],
            identity: source.signature.as_ref().and_then(|s| Checker::new(s, &source.fields, secret.clone())),
            switches: Vec::new(),
            counters: Counters::default(),
            watched: watched::Watched::default(),
            last_snapshot: std::cell::Cell::new(0),
            next_index: 0,
            last_offset: BEFORE_ALL,
            log_id,
            partition,
            secret,
            plan,
        }
    }

    /// The counters.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// The watermark, milliseconds, once a row was admitted.
    pub fn watermark(&self) -> Option<i64> {
        self.admission.watermark()
    }

    /// How many devices the lane remembers: those it has seen, without evicted ones.
    pub fn devices(&self) -> usize {
        self.devices.live()
    }

    /// How often partial results of windows were merged since the lane was made or restored: what its windows cost.
    pub fn window_merges(&self) -> u64 {
        self.windows.iter().map(WindowOperator::merges).sum()
    }

    /// The index the next verdict will have, which is the size of the log.
    pub fn next_index(&self) -> u64 {
        self.next_index
    }

    /// Tells the lane what the registry says of a schema id. An id's schema never changes, so this changes no verdict of
    /// records that were taken; that a registry has none of an id is its answer of the moment, and can be replaced.
    pub fn learn_schema(&mut self, id: u32, answer: SchemaAnswer<'_>) {
        self.ingest.learn_schema(id, answer);
    }

    /// Forgets what was learnt of a schema id, so that it is needed again.
    pub fn forget_schema(&mut self, id: u32) {
        self.ingest.forget_schema(id);
    }

    /// Takes records in offset order.
    ///
    /// # Errors
    /// After [`LaneError::NeedSchema`] the lane is as before. After any other it must not be used again.
    pub fn step(&mut self, records: &[RawRecord<'_>], out: &mut Output) -> Result<(), LaneError> {
        self.have_schemas(records)?;
        let mut rest = records;
        while !rest.is_empty() {
            let taken = self.take(rest, out)?;
            rest = &rest[taken..];
        }
        Ok(())
    }

    /// Takes some of the records, from the first on, and at least one: as many as make a batch of bounded size. How many
    /// were taken is the result. What a caller does with `out` between calls bounds its memory, however many rows a
    /// record holds.
    ///
    /// # Errors
    /// As [`Lane::step`].
    pub fn step_some(&mut self, records: &[RawRecord<'_>], out: &mut Output) -> Result<usize, LaneError> {
        self.have_schemas(records)?;
        if records.is_empty() { Ok(0) } else { self.take(records, out) }
    }

    fn have_schemas(&self, records: &[RawRecord<'_>]) -> Result<(), LaneError> {
        self.ingest.schema_needed(records).map_or(Ok(()), |(at, id)| Err(LaneError::NeedSchema { id, at }))
    }

    /// `configHash` of the pipeline that the lane computes.
    pub fn config_hash(&self) -> &Hash32 {
        &self.plan.config_hash
    }

    /// Offset of the last record taken, [`BEFORE_ALL`] if none: where a tick made now stands.
    pub fn last_offset(&self) -> i64 {
        self.last_offset
    }

    /// The watermark at which the next window closes, if one is open: a tick before that would change nothing.
    pub fn next_due(&self) -> Option<i64> {
        self.windows.iter().filter_map(WindowOperator::next_end).min()
    }

    /// Lets time go on without a row: windows that end by the tick's watermark close, and rows behind it are late from
    /// here on. The tick is an input: it is pushed to `out.events` and must be recorded together with its effects.
    ///
    /// # Errors
    /// [`LaneError::EventOutOfPlace`] when it stands at another place, or would not take time forward.
    pub fn tick(&mut self, tick: Tick, out: &mut Output) -> Result<(), LaneError> {
        let misplaced = |why| LaneError::EventOutOfPlace { given: tick.after_offset, at: self.last_offset, why };
        if tick.after_offset != self.last_offset {
            return Err(misplaced("it belongs elsewhere in the input"));
        }
        if !self.admission.tick(tick.watermark_ms) {
            return Err(misplaced("its watermark is not ahead of the lane's"));
        }
        out.events.push(LaneEvent::Tick(tick));
        self.counters.ticks += 1;
        let mut fired = Vec::new();
        for (i, operator) in self.windows.iter_mut().enumerate() {
            let mut closed = Vec::new();
            operator.tick(tick.watermark_ms, &self.devices, &mut closed);
            fired.extend(closed.into_iter().map(|w| (i, w)));
            self.early.extend(operator.take_early().into_iter().map(|w| (i, w)));
        }
        self.give(&fired, out)?;
        self.give_early(out);
        self.devices.advance(self.last_offset, tick.watermark_ms);
        self.forget(&mut out.events);
        Ok(())
    }

    /// From here on rows are joined with this version of its reference, or signatures are checked with these keys. An input
    /// like a tick: it is pushed to `out.events`, unless the version is in use already.
    ///
    /// # Errors
    /// [`LaneError::Reference`] when the plan has no such reference, or one with other columns.
    pub fn take_reference(&mut self, given: impl Into<Versioned>, out: &mut Output) -> Result<(), LaneError> {
        let given = given.into();
        let (name, version) = (given.name().to_owned(), given.version());
        let reference = match given {
            Versioned::Table(table) => {
                let reference = self.reference_index(&table)?;
                self.references[reference] = Some(table);
                reference
            }
            Versioned::Keys(keys) => match &mut self.identity {
                Some(identity) if name == KeySet::name_of(&self.plan.source.name) => {
                    identity.take_keys(keys);
                    self.plan.references.len()
                }
                _ => {
                    let why = "readings of this pipeline's source need no signature".to_owned();
                    return Err(LaneError::Reference { name, why });
                }
            },
        };
        if self.version_of(reference) == Some(version) {
            return Ok(());
        }
        self.switches.push(Switch { after_offset: self.last_offset, reference: reference as u32, version });
        out.events.push(LaneEvent::Reference { after_offset: self.last_offset, name, version });
        Ok(())
    }

    /// Takes the references that the plan was made with: the first thing a lane does, new or restored. Where a restored
    /// lane used another version, this is a change like any other, at this place.
    ///
    /// # Errors
    /// Those of [`Lane::take_reference`].
    pub fn begin_references(&mut self, out: &mut Output) -> Result<(), LaneError> {
        let plan = self.plan.clone();
        plan.references.iter().try_for_each(|table| self.take_reference(table.clone(), out))
    }

    /// The version of each reference that rows are joined with now, and of the keys that signatures are checked with, by
    /// name; `None` before the first one was given.
    pub fn references_in_use(&self) -> impl Iterator<Item = (String, Option<Hash32>)> {
        let names = self.versioned_names();
        names.into_iter().enumerate().map(|(i, name)| (name, self.version_of(i)))
    }

    /// The names of what is given in versions, by the index that [`Switch::reference`] has.
    fn versioned_names(&self) -> Vec<String> {
        let tables = self.plan.references.iter().map(|r| r.spec().name.clone());
        tables.chain(self.identity.as_ref().map(|_| KeySet::name_of(&self.plan.source.name))).collect()
    }

    /// Who checks signatures, where readings must be signed.
    pub fn identity(&self) -> Option<&Checker> {
        self.identity.as_ref()
    }

    fn version_of(&self, reference: usize) -> Option<Hash32> {
        self.switches.iter().rev().find(|s| s.reference as usize == reference).map(|s| s.version)
    }

    fn reference_index(&self, table: &Reference) -> Result<usize, LaneError> {
        let name = &table.spec().name;
        let fail = |why: &str| LaneError::Reference { name: name.clone(), why: why.to_owned() };
        let Some(i) = self.plan.references.iter().position(|r| r.spec().name == *name) else {
            return Err(fail("the pipeline has no such reference"));
        };
        if self.plan.references[i].spec() != table.spec() {
            return Err(fail("its columns or types are others than the pipeline was planned with"));
        }
        Ok(i)
    }

    /// Lets go of the devices that were evicted in this step.
    fn forget(&mut self, events: &mut Vec<LaneEvent>) {
        let mut freed = Vec::new();
        self.devices.finish_step(&mut freed, events);
        for memory in self.memories.iter_mut().flatten() {
            freed.iter().for_each(|place| memory.forget(*place));
        }
        for memories in self.online.iter_mut().flatten() {
            freed.iter().for_each(|place| memories.forget(*place));
        }
        for incidents in self.incidents.iter_mut().flatten() {
            freed.iter().for_each(|place| incidents.forget(*place));
        }
        self.counters.evicted += freed.len() as u64;
    }

    /// Judges closed windows and counts the verdicts.
    fn give(&mut self, fired: &[(usize, FiredWindow)], out: &mut Output) -> Result<(), LaneError> {
        let before = out.verdicts.len();
        for (step, window) in fired {
            self.see_window(*step, window)?;
            self.judge(*step, window, &mut out.verdicts)?;
        }
        for v in &out.verdicts[before..] {
            self.counters.verdicts[v.verdict.severity as usize] += 1;
        }
        Ok(())
    }

    fn take(&mut self, records: &[RawRecord<'_>], out: &mut Output) -> Result<usize, LaneError> {
        let dead = out.dead.len();
        let (fired, taken) = self.advance(records, &mut out.dead)?;
        self.give(&fired, out)?;
        self.give_early(out);
        self.forget(&mut out.events);
        for letter in &out.dead[dead..] {
            self.counters.dead[letter.reason.index()] += 1;
        }
        Ok(taken)
    }

    /// Takes records as [`Lane::step`] does, but gives the features of the windowed step `step` instead of verdicts: this is
    /// how models are trained, on features from the same code that serves them.
    pub fn step_features(
        &mut self,
        records: &[RawRecord<'_>],
        step: usize,
        dead: &mut Vec<DeadLetter>,
    ) -> Result<Vec<FeatureRows>, LaneError> {
        self.have_schemas(records)?;
        let mut out = Vec::new();
        let mut rest = records;
        while !rest.is_empty() {
            let (fired, taken) = self.advance(rest, dead)?;
            for (_, window) in fired.iter().filter(|(i, _)| *i == step) {
                out.push(self.feature_rows(step, window)?);
            }
            self.early.clear();
            self.forget(&mut Vec::new());
            rest = &rest[taken..];
        }
        Ok(out)
    }

    /// The features of the windows that are still open, as if time went on without further rows. Only for input that has
    /// an end, such as training data: the lane takes no more rows sensibly after it.
    pub fn finish_features(&mut self, step: usize) -> Result<Vec<FeatureRows>, LaneError> {
        let mut closed = Vec::new();
        if let Some(operator) = self.windows.get_mut(step) {
            operator.close_all(&self.devices, &mut closed);
        }
        closed.iter().map(|window| self.feature_rows(step, window)).collect()
    }

    fn feature_rows(&self, step: usize, window: &FiredWindow) -> Result<FeatureRows, LaneError> {
        let features = self.features(step, window)?;
        let fired = |&r: &u32| &window.devices[r as usize];
        Ok(FeatureRows {
            window_starts: features.rows.iter().map(|r| fired(r).start).collect(),
            window_ends: features.rows.iter().map(|r| fired(r).end).collect(),
            devices: features.rows.iter().map(|r| self.devices.name(fired(r).device).to_owned()).collect(),
            batch: features.batch,
        })
    }

    /// Decodes, admits, runs SQL and windows; the windows that closed, in the order in which rows closed them, and how
    /// many records were taken.
    fn advance(
        &mut self,
        records: &[RawRecord<'_>],
        dead: &mut Vec<DeadLetter>,
    ) -> Result<(Vec<(usize, FiredWindow)>, usize), LaneError> {
        let before = dead.len();
        if let Some(missing) = self.references.iter().position(Option::is_none) {
            let name = self.plan.references[missing].spec().name.clone();
            return Err(LaneError::Reference { name, why: "it was not loaded before the first record".into() });
        }
        if self.identity.as_ref().is_some_and(|i| i.keys().is_none()) {
            let name = KeySet::name_of(&self.plan.source.name);
            return Err(LaneError::Reference { name, why: "no keys were loaded before the first record".into() });
        }
        let Run { rows, taken, rows_in } = self
            .ingest
            .run(records, &mut self.admission, &mut self.devices, self.identity.as_mut(), dead)
            .map_err(|e| LaneError::Step { step: self.plan.source.name.clone(), message: e.to_string() })?;
        if let Some(last) = records[..taken].last() {
            self.last_offset = last.offset;
        }
        let mut failed: Vec<(u32, String)> = Vec::new();
        let fired = self.windows(&rows, &mut failed)?;
        // A row may fail in several steps; it dies once, with the first reason in step order.
        failed.sort_by_key(|(row, _)| *row);
        failed.dedup_by_key(|(row, _)| *row);
        self.counters.rows_in += rows_in;
        self.counters.rows_used += (rows.len() - failed.len()) as u64;
        for (row, detail) in failed {
            let record = &records[rows.records[row as usize] as usize];
            dead.push(rows.dead_letter(row as usize, record, DeadReason::Sql, detail));
        }
        dead[before..].sort_by_key(|d| (d.offset, d.row));
        Ok((fired, taken))
    }

    fn windows(
        &mut self,
        rows: &Rows,
        failed: &mut Vec<(u32, String)>,
    ) -> Result<Vec<(usize, FiredWindow)>, LaneError> {
        let plan = self.plan.clone();
        let source = Selection { batch: rows.batch.clone(), rows: (0..rows.len() as u32).collect() };
        let mut steps: Vec<Selection> = Vec::with_capacity(plan.rows.len());
        let places: Vec<u32> = match self.memories.iter().any(Option::is_some) {
            true => rows.devices.iter().map(|d| self.devices.place(*d) as u32).collect(),
            false => Vec::new(),
        };
        // A step without row functions may still join.
        let mut nothing = Memory::default();
        self.watched.readings(rows, &self.devices);
        for (i, (step, memory)) in plan.rows.iter().zip(&mut self.memories).enumerate() {
            let mut errors = Vec::new();
            let input = match step.input {
                Input::Source => &source,
                Input::Step(i) => &steps[i],
            };
            let mut around = Surroundings {
                memory: memory.as_mut().unwrap_or(&mut nothing),
                at: RowPlaces { places: &places, times: &rows.times },
                references: &self.references,
            };
            let selection =
                step.query.run_in(input, Some(&mut around), &mut errors).map_err(|e| step_error(&step.name, &e))?;
            failed.extend(errors.into_iter().map(|(row, why)| (row, format!("step \"{}\": {why}", step.name))));
            self.watched.row_step(i, &selection, rows, &self.devices);
            steps.push(selection);
        }
        let mut fired: Vec<(usize, FiredWindow)> = Vec::new();
        for (i, (step, operator)) in plan.windows.iter().zip(&mut self.windows).enumerate() {
            let input = match step.input {
                Input::Source => &source,
                Input::Step(i) => &steps[i],
            };
            let mut errors = Vec::new();
            let mut closed = Vec::new();
            let devices = &self.devices;
            step.query
                .channels(input, &mut errors, |selected, values| {
                    operator.run(rows, selected, values, devices, &mut closed);
                })
                .map_err(|e| step_error(&step.name, &e))?;
            failed.extend(errors.into_iter().map(|(row, why)| (row, format!("step \"{}\": {why}", step.name))));
            fired.extend(closed.into_iter().map(|w| (i, w)));
            self.early.extend(operator.take_early().into_iter().map(|w| (i, w)));
        }
        // By the row that closed them, then by step: independent of how the rows were cut into batches.
        fired.sort_by_key(|(step, w)| (w.at, *step));
        Ok(fired)
    }
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn step_error(step: &str, e: &datafusion::error::DataFusionError) -> LaneError {
    LaneError::Step { step: step.to_owned(), message: crate::sql::message(e) }
}
