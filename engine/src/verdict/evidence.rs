//! What a verdict rests on, bound to it by `evidenceHash` ([`super::parts`]).

use std::sync::Arc;

use super::Hash32;
use super::parts::SourceRows;
use crate::codec::{CodecError, Reader, Writer};
use crate::label::Label;
use crate::model::Interval;

/// The version of the log's own copy; the list that `evidenceHash` is of has one of its own.
const MAGIC: &[u8; 8] = b"avouchF4";
const INTERVAL: u8 = 1;
const INCIDENT: u8 = 2;
const LABEL: u8 = 4;

/// The readable side of a verdict: where its rows came from, the features the model saw, and what each contributed.
#[derive(Debug, Clone, PartialEq)]
pub struct Evidence {
    /// The device's name, as in the readings.
    pub device: String,
    /// The pipeline step that judged. (What the verdicts of a step have in common is shared, not copied.)
    pub step: Arc<str>,
    /// Source topic.
    pub topic: Arc<str>,
    /// Source partition, which is the lane.
    pub partition: i32,
    /// Offset of the first row used.
    pub first_offset: i64,
    /// Offset of the last row used.
    pub last_offset: i64,
    /// How many rows were used.
    pub rows: u64,
    /// The versions of reference tables that these rows were joined with, in the order of the references' names and of
    /// their use: more than one of a name when it changed between the first row and the last.
    pub references: Vec<ReferenceVersion>,
    /// The score, estimate or probability before scaling (NaN when there is none).
    pub score: f64,
    /// The calibrated p-value of the score (NaN when there is none).
    pub p_value: f64,
    /// The prediction interval of an estimate or a probability.
    pub interval: Option<Interval>,
    /// Of an alarm whose step groups them: the incident, which is the index of the verdict that it began with.
    pub incident: Option<u64>,
    /// Of a label, what is said; then there are no rows, no score and no features, and both offsets are those of the last record
    /// that the lane had taken.
    pub label: Option<Box<Label>>,
    /// The score's parts that add up to it, and the features they belong to, in the model's order:
    /// (feature, value seen, value expected, contribution).
    pub features: Vec<FeatureEvidence>,
    /// What the salts of its parts are made from ([`super::parts`]); of one record only.
    pub salt: Hash32,
}

/// One version of a reference table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReferenceVersion {
    /// The reference's name.
    pub name: String,
    /// SHA-256 of its canonical content ([`crate::reference::Reference::to_bytes`]).
    pub version: Hash32,
}

/// One feature's part in a verdict.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct FeatureEvidence {
    /// Feature name.
    pub name: Arc<str>,
    /// Value the model saw.
    pub value: f64,
    /// Value the model expected.
    pub expected: f64,
    /// What it adds to the score; contributions sum to the score.
    pub contribution: f64,
}

impl Evidence {
    /// The canonical bytes (see [`crate::codec`]).
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut w = Writer::new();
        self.write(&mut w);
        w.bytes
    }

    pub(crate) fn write(&self, w: &mut Writer) {
        let parts =
            [(self.interval.is_some(), INTERVAL), (self.incident.is_some(), INCIDENT), (self.label.is_some(), LABEL)];
        let more = parts.iter().fold(0, |more, (there, part)| more | (u8::from(*there) * part));
        w.raw(MAGIC);
        w.raw(&self.salt);
        w.str(&self.device);
        w.str(&self.step);
        write_source(self, w);
        write_references(&self.references, w);
        w.f64(self.score);
        w.f64(self.p_value);
        w.u8(more);
        if let Some(i) = self.interval {
            w.f64(i.lower);
            w.f64(i.upper);
        }
        if let Some(i) = self.incident {
            w.u64(i);
        }
        if let Some(label) = &self.label {
            w.nested(|w| label.write(w));
        }
        w.u32(self.features.len() as u32);
        for f in &self.features {
            w.str(&f.name);
            w.f64(f.value);
            w.f64(f.expected);
            w.f64(f.contribution);
        }
    }

    /// Reads what [`Evidence::to_bytes`] wrote.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, CodecError> {
        let mut r = Reader::new("evidence", bytes);
        let magic: [u8; 8] = r.array()?;
        if &magic != MAGIC {
            return Err(r.invalid("these bytes are not evidence of version 4"));
        }
        let salt = r.array()?;
        let device = r.str()?.to_owned();
        let step = r.str()?.into();
        let SourceRows { topic, partition, first_offset, last_offset, rows } = read_source(&mut r)?;
        let references = read_references(&mut r)?;
        let score = r.f64()?;
        let p_value = r.f64()?;
        let more = r.u8()?;
        if more > INTERVAL | INCIDENT | LABEL {
            return Err(r.invalid(format!("evidence with the unknown parts {more}")));
        }
        let interval = match more & INTERVAL {
            0 => None,
            _ => Some(Interval { lower: r.f64()?, upper: r.f64()? }),
        };
        let incident = if more & INCIDENT == 0 { None } else { Some(r.u64()?) };
        let label = if more & LABEL == 0 { None } else { Some(Box::new(Label::from_bytes(r.bytes()?)?)) };
        let n = r.count(28)?;
        let mut features = Vec::with_capacity(n);
        for _ in 0..n {
            features.push(FeatureEvidence {
                name: r.str()?.into(),
                value: r.f64()?,
                expected: r.f64()?,
                contribution: r.f64()?,
            });
        }
        r.finish()?;
        Ok(Self {
            device,
            step,
            topic,
            partition,
            first_offset,
            last_offset,
            rows,
            references,
            score,
            p_value,
            interval,
            incident,
            label,
            features,
            salt,
        })
    }
}

pub(super) fn write_source(e: &Evidence, w: &mut Writer) {
    w.str(&e.topic);
    w.u32(e.partition as u32);
    w.i64(e.first_offset);
    w.i64(e.last_offset);
    w.u64(e.rows);
}

pub(super) fn read_source(r: &mut Reader<'_>) -> Result<SourceRows, CodecError> {
    Ok(SourceRows {
        topic: r.str()?.into(),
        partition: r.u32()? as i32,
        first_offset: r.i64()?,
        last_offset: r.i64()?,
        rows: r.u64()?,
    })
}

pub(super) fn write_references(references: &[ReferenceVersion], w: &mut Writer) {
    w.u32(references.len() as u32);
    for r in references {
        w.str(&r.name);
        w.raw(&r.version);
    }
}

pub(super) fn read_references(r: &mut Reader<'_>) -> Result<Vec<ReferenceVersion>, CodecError> {
    let n = r.count(36)?;
    let mut references = Vec::with_capacity(n);
    for _ in 0..n {
        references.push(ReferenceVersion { name: r.str()?.to_owned(), version: r.array()? });
    }
    Ok(references)
}
