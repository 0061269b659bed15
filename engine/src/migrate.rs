//! Another pipeline for a lane that has a past: what stays of its state, what is dropped, and why.
//!
//! A pipeline is changed at a place of the input: behind the last record the lane has taken. The change is recorded there
//! ([`LaneEvent::Pipeline`](crate::event::LaneEvent)) like a tick, so the lane's verdicts stay a function of what was
//! recorded: the records up to that place under the pipeline before, those behind it under the one after.
//!
//! | of the lane | what becomes of it |
//! | --- | --- |
//! | the log, its next index, every device's `seq`, numbers and names of devices, counters | stay |
//! | the watermark | stays where it is, also under another `max_disorder`: no closed window opens again. It goes on when a row reaches further by the new rule |
//! | what row functions remember, open windows | stay if the step's [`Definition`] is the same; else dropped |
//! | versions of reference tables | stay for tables that are still there |
//! | the time to live of devices | the new one, from the next row on |
//! | what online models remember of devices | stays if model, features and the windowed step are the same; else dropped |
//! | thresholds, other models, sinks | have no state |
//!
//! A step that is new, or whose state was dropped, begins as a lane does: with the next row, in windows that are still open at
//! the watermark. Of the first of these it has only the rows behind the change; its verdicts say how many rows and which.
//! Rows whose state was dropped were used: *rows in = rows used + dead letters* counts what was admitted, once, and goes on.

use sha2::{Digest, Sha256};

use crate::codec::{CodecError, Reader, Writer};
use crate::reference::ReferenceSpec;
use crate::spec::{FieldSpec, FormatSpec, Framing, ScoreStepSpec, SourceSpec, SqlStepSpec, WindowSpec};
use crate::verdict::Hash32;

/// What decides the state of a step: if it is the same in two pipelines, the state of one is that of the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Definition {
    /// Of the step alone: the name of its input, its SQL, its window, and the columns of the references it joins.
    pub own: Hash32,
    /// With everything its rows come from, up to the source.
    pub whole: Hash32,
}

impl Definition {
    /// Of a source: its names, format, fields, key and time column. Not how late rows may be, or how large.
    pub fn of_source(source: &SourceSpec) -> Self {
        let mut w = Writer::new();
        w.str("avouch/source-definition/1");
        w.str(&source.name);
        w.str(&source.topic);
        w.u8(u8::from(source.keyed));
        w.str(&source.key);
        w.str(&source.time);
        match &source.format {
            FormatSpec::Json => w.u8(0),
            FormatSpec::Avro => w.u8(1),
            FormatSpec::Protobuf(p) => {
                w.u8(2);
                w.raw(&Sha256::digest(&p.descriptor));
                w.str(&p.message);
                w.u8(u8::from(p.framing == Framing::Confluent));
            }
            FormatSpec::Arrow => w.u8(3),
        }
        fields(&source.fields, &mut w);
        let own = Sha256::digest(&w.bytes).into();
        Self { own, whole: own }
    }

    /// Of a step whose rows come from what `upstream` defines, and were joined with these references on the way.
    pub(crate) fn of_step<'a>(
        step: &SqlStepSpec,
        upstream: &Self,
        references: impl Iterator<Item = &'a ReferenceSpec>,
    ) -> Self {
        let mut w = Writer::new();
        w.str("avouch/step-definition/1");
        w.str(&step.from);
        w.str(&step.sql);
        let (kind, a, b) = match step.window {
            None => (0, 0, 0),
            Some(WindowSpec::Tumbling { size_ms }) => (1, size_ms, 0),
            Some(WindowSpec::Sliding { size_ms, every_ms }) => (2, size_ms, every_ms),
            Some(WindowSpec::Session { gap_ms, max_ms }) => (3, gap_ms, max_ms),
        };
        w.u8(kind);
        w.i64(a);
        w.i64(b);
        for r in references {
            w.str(&r.name);
            w.str(&r.key);
            fields(&r.fields, &mut w);
        }
        let own: Hash32 = Sha256::digest(&w.bytes).into();
        let whole = Sha256::digest([own, upstream.whole].as_flattened()).into();
        Self { own, whole }
    }

    /// Of a model step on the features that `upstream` defines: its model and the features it takes. Not its thresholds.
    pub(crate) fn of_model(step: &ScoreStepSpec, upstream: &Self) -> Self {
        let mut w = Writer::new();
        w.str("avouch/model-definition/1");
        w.str(&step.from);
        w.raw(&step.model.hash());
        step.features.iter().for_each(|f| w.str(f));
        let own: Hash32 = Sha256::digest(&w.bytes).into();
        let whole = Sha256::digest([own, upstream.whole].as_flattened()).into();
        Self { own, whole }
    }

    pub(crate) fn write(&self, w: &mut Writer) {
        w.raw(&self.own);
        w.raw(&self.whole);
    }

    pub(crate) fn read(r: &mut Reader<'_>) -> Result<Self, CodecError> {
        Ok(Self { own: r.array()?, whole: r.array()? })
    }
}

fn fields(list: &[FieldSpec], w: &mut Writer) {
    w.u32(list.len() as u32);
    for f in list {
        w.str(&f.name);
        w.str(f.ty.name());
        w.u8(u8::from(f.required));
    }
}

/// How much a step's state holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Held {
    /// Devices.
    pub devices: u64,
    /// Rows of windows; 0 of row functions, which do not count them.
    pub rows: u64,
}

/// Why a step's state was dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DropReason {
    /// Its own table has changed: SQL, window, `from`, the columns of a reference it joins, or its model.
    Changed,
    /// Its own table is the same, but a step before it or the source has changed.
    Upstream,
    /// The pipeline has no such step any more.
    Removed,
}

impl DropReason {
    /// All, in the order of their codes, which begin at 1.
    pub const ALL: [DropReason; 3] = [DropReason::Changed, DropReason::Upstream, DropReason::Removed];

    /// In words.
    pub fn text(self) -> &'static str {
        match self {
            DropReason::Changed => "its definition changed",
            DropReason::Upstream => "what it reads changed",
            DropReason::Removed => "there is no such step any more",
        }
    }
}

/// The state of one step that was dropped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DroppedState {
    /// The step.
    pub step: String,
    /// Why.
    pub why: DropReason,
    /// What it held.
    pub held: Held,
}

impl DroppedState {
    pub(crate) fn write(&self, w: &mut Writer) {
        w.str(&self.step);
        w.u8(self.why as u8 + 1);
        w.u64(self.held.devices);
        w.u64(self.held.rows);
    }

    pub(crate) fn read(r: &mut Reader<'_>) -> Result<Self, CodecError> {
        let step = r.str()?.to_owned();
        let code = r.u8()?;
        let Some(&why) = usize::from(code).checked_sub(1).and_then(|i| DropReason::ALL.get(i)) else {
            return Err(r.invalid(format!("unknown reason {code}")));
        };
        Ok(Self { step, why, held: Held { devices: r.u64()?, rows: r.u64()? } })
    }
}

/// The state of one step as a snapshot keeps it: it can be passed over by a pipeline that has no such step.
#[derive(Debug)]
pub(crate) struct StepState<'a> {
    pub name: &'a str,
    pub definition: Definition,
    pub held: Held,
    pub bytes: &'a [u8],
}

impl<'a> StepState<'a> {
    /// Writes a step's state, which `fill` writes.
    pub fn write(name: &str, definition: &Definition, w: &mut Writer, fill: impl FnOnce(&mut Writer) -> Held) {
        w.str(name);
        definition.write(w);
        let at = w.bytes.len();
        w.raw(&[0; 24]);
        let start = w.bytes.len();
        let held = fill(w);
        let length = (w.bytes.len() - start) as u64;
        for (i, n) in [held.devices, held.rows, length].into_iter().enumerate() {
            w.bytes[at + 8 * i..at + 8 * i + 8].copy_from_slice(&n.to_le_bytes());
        }
    }

    pub fn read(r: &mut Reader<'a>) -> Result<Self, CodecError> {
        let name = r.str()?;
        let definition = Definition::read(r)?;
        let held = Held { devices: r.u64()?, rows: r.u64()? };
        let length = r.u64()?;
        let length = usize::try_from(length).map_err(|_| r.invalid("a length beyond all memory"))?;
        Ok(Self { name, definition, held, bytes: r.raw(length)? })
    }

    /// The smallest number of bytes one takes.
    pub const LEAST: usize = 4 + 64 + 24;

    /// What becomes of it in a pipeline where the step of its name has this definition, or where there is none: `None` if it
    /// stays.
    pub fn dropped(&self, now: Option<&Definition>) -> Option<DroppedState> {
        let why = match now {
            Some(now) if now.whole == self.definition.whole => return None,
            Some(now) if now.own == self.definition.own => DropReason::Upstream,
            Some(_) => DropReason::Changed,
            None => DropReason::Removed,
        };
        Some(DroppedState { step: self.name.to_owned(), why, held: self.held })
    }
}
