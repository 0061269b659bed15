//! Evidence in parts, each committed to by a hash of its own, so that some can be shown and others kept back.
//!
//! `evidenceHash` is the SHA-256 of a list: of every part its name and a commitment, SHA-256(salt ‖ value). A part is shown
//! by its salt and value, which anyone can hash; of one that is kept back the commitment tells nothing, because the salt is
//! not known (the way of RFC 9901, selective disclosure for JWTs, without JSON). Which parts there are, and their names,
//! everybody sees who sees the list.
//!
//! The list, and the parts that are shown ([`crate::codec`] has the encoding of each value):
//!
//! ```text
//! list      "avouchE4", count (u32), then of each part: name (text), commitment (32 bytes)
//! disclosed "avouchD1", count (u32), then of each part: position in the list (u32), salt (16 bytes), value (bytes)
//!
//! device       the name's UTF-8             step         the name's UTF-8
//! source       topic (text), partition (u32), first and last offset (i64), rows (u64)
//! references   count (u32), then of each: name (text), version (32 bytes)
//! score        score and p-value (f64), then 0, or 1 and the interval's lower and upper end (f64)
//! incident     index of its first verdict (u64)        label        the label's canonical bytes
//! feature:NAME value, expected, contribution (f64)
//! ```
//!
//! Parts stand in this order, features in the model's; `incident` and `label` only where there is one. Salts are made from the
//! record's [`Evidence::salt`], two from each SHA-256(that ‖ number (u32)), so that who has all evidence needs 32 bytes and who
//! is shown a part learns nothing of the others'.

use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::evidence::{Evidence, FeatureEvidence, ReferenceVersion};
use super::{Hash32, evidence};
use crate::codec::{CodecError, Reader, Writer};
use crate::label::Label;
use crate::model::Interval;
use crate::sha256::Messages;

const LIST: &[u8; 8] = b"avouchE4";
const DISCLOSED: &[u8; 8] = b"avouchD1";
/// The parts' names but those of features.
const FIXED: [&str; 7] = ["device", "step", "source", "references", "score", "incident", "label"];
/// A feature's part is named this and the feature's name.
pub const FEATURE: &str = "feature:";

/// Where a verdict's rows came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceRows {
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
}

/// What a model said.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Scored {
    /// The score, estimate or probability before scaling (NaN when there is none).
    pub score: f64,
    /// The calibrated p-value of the score (NaN when there is none).
    pub p_value: f64,
    /// The prediction interval of an estimate or a probability.
    pub interval: Option<Interval>,
}

/// A part as it is shown: bytes, not yet checked against anything.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Opening {
    position: usize,
    salt: [u8; 16],
    value: Vec<u8>,
}

/// Evidence of which some parts may be kept back.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Disclosed {
    /// Of every part its name and commitment.
    list: Vec<(String, Hash32)>,
    openings: Vec<Opening>,
    /// The device's name, as in the readings.
    pub device: Option<String>,
    /// The pipeline step that judged.
    pub step: Option<Arc<str>>,
    /// Where the rows came from.
    pub source: Option<SourceRows>,
    /// The versions of reference tables that these rows were joined with.
    pub references: Option<Vec<ReferenceVersion>>,
    /// What the model said.
    pub score: Option<Scored>,
    /// The incident that the alarm belongs to.
    pub incident: Option<u64>,
    /// What a person says.
    pub label: Option<Box<Label>>,
    /// The features that are shown, in the model's order.
    pub features: Vec<FeatureEvidence>,
}

/// Appends a part's value. Parts are numbered as they stand in the list.
fn write_value(e: &Evidence, name: Name<'_>, w: &mut Writer) {
    match name {
        Name::Fixed("device") => w.raw(e.device.as_bytes()),
        Name::Fixed("step") => w.raw(e.step.as_bytes()),
        Name::Fixed("source") => evidence::write_source(e, w),
        Name::Fixed("references") => evidence::write_references(&e.references, w),
        Name::Fixed("score") => {
            w.f64(e.score);
            w.f64(e.p_value);
            w.u8(u8::from(e.interval.is_some()));
            if let Some(i) = e.interval {
                w.f64(i.lower);
                w.f64(i.upper);
            }
        }
        Name::Fixed("incident") => e.incident.iter().for_each(|i| w.u64(*i)),
        Name::Fixed(_) => e.label.iter().for_each(|l| l.write(w)),
        Name::Feature(f) => {
            w.f64(f.value);
            w.f64(f.expected);
            w.f64(f.contribution);
        }
    }
}

#[derive(Clone, Copy)]
enum Name<'a> {
    Fixed(&'static str),
    Feature(&'a FeatureEvidence),
}

impl Name<'_> {
    fn write(self, w: &mut Writer) {
        match self {
            Name::Fixed(name) => w.str(name),
            Name::Feature(f) => w.nested(|w| {
                w.raw(FEATURE.as_bytes());
                w.raw(f.name.as_bytes());
            }),
        }
    }

    fn text(self) -> String {
        match self {
            Name::Fixed(name) => name.to_owned(),
            Name::Feature(f) => format!("{FEATURE}{}", f.name),
        }
    }
}

/// The parts that this evidence has, in order.
fn names(e: &Evidence) -> impl Iterator<Item = Name<'_>> {
    let fixed = FIXED.into_iter().filter(|name| match *name {
        "incident" => e.incident.is_some(),
        "label" => e.label.is_some(),
        _ => true,
    });
    fixed.map(Name::Fixed).chain(e.features.iter().map(Name::Feature))
}

/// The salts of the parts, two from each hash.
fn salts(hashes: &[Hash32]) -> impl Iterator<Item = &[u8]> {
    hashes.iter().flat_map(|hash| hash.chunks_exact(16))
}

/// What [`lists`] works in, kept from one group to the next.
#[derive(Debug, Default)]
pub(crate) struct Room {
    messages: Messages,
    counts: Vec<usize>,
}

/// `evidenceHash` of each: their many small hashes are made side by side.
pub(crate) fn hashes<'a>(all: impl Iterator<Item = &'a Evidence> + Clone, room: &mut Room) -> Vec<Hash32> {
    lists(all, room);
    room.messages.digests()
}

/// The list of each, as a message of its own in the room.
fn lists<'a>(all: impl Iterator<Item = &'a Evidence> + Clone, room: &mut Room) {
    let Room { messages, counts } = room;
    messages.clear();
    counts.clear();
    for e in all.clone() {
        let count = names(e).count();
        for number in 0..count.div_ceil(2) as u32 {
            messages.bytes.extend_from_slice(&e.salt);
            messages.bytes.extend_from_slice(&number.to_le_bytes());
            messages.end();
        }
        counts.push(count);
    }
    let made = messages.digests();
    messages.clear();
    let mut w = Writer::after(std::mem::take(&mut messages.bytes));
    let mut at = 0;
    for (e, count) in all.clone().zip(counts.iter()) {
        let own = &made[at..at + count.div_ceil(2)];
        at += own.len();
        for (name, salt) in names(e).zip(salts(own)) {
            w.raw(salt);
            write_value(e, name, &mut w);
            messages.end_at(w.bytes.len());
        }
    }
    messages.bytes = w.bytes;
    let commitments = messages.digests();
    messages.clear();
    let mut w = Writer::after(std::mem::take(&mut messages.bytes));
    let mut commitments = commitments.iter();
    for (e, count) in all.zip(counts.iter()) {
        w.raw(LIST);
        w.u32(*count as u32);
        for (name, commitment) in names(e).zip(&mut commitments) {
            name.write(&mut w);
            w.raw(commitment);
        }
        messages.end_at(w.bytes.len());
    }
    messages.bytes = w.bytes;
}

impl Evidence {
    /// The list of its parts with their commitments (see the module).
    pub fn list(&self) -> Vec<u8> {
        let mut room = Room::default();
        lists(std::iter::once(self), &mut room);
        room.messages.bytes
    }

    /// SHA-256 of [`Evidence::list`]: the verdict's `evidenceHash`.
    pub fn hash(&self) -> Hash32 {
        Sha256::digest(self.list()).into()
    }

    /// The names of its parts, in order.
    pub fn part_names(&self) -> Vec<String> {
        names(self).map(Name::text).collect()
    }

    /// The parts of these names with their salts, in the form that [`Disclosed::from_bytes`] reads: what somebody is given who
    /// may see them, beside [`Evidence::list`].
    pub fn disclose(&self, shown: impl Fn(&str) -> bool) -> Vec<u8> {
        let mut w = Writer::new();
        w.raw(DISCLOSED);
        let names: Vec<Name<'_>> = names(self).collect();
        let shown: Vec<(usize, Name<'_>)> =
            names.into_iter().enumerate().filter(|(_, name)| shown(&name.text())).collect();
        w.u32(shown.len() as u32);
        for (position, name) in shown {
            w.u32(position as u32);
            let made: Hash32 = Sha256::new()
                .chain_update(self.salt)
                .chain_update((position as u32 / 2).to_le_bytes())
                .finalize()
                .into();
            w.raw(&made[position % 2 * 16..][..16]);
            w.nested(|w| write_value(self, name, w));
        }
        w.bytes
    }
}

impl Disclosed {
    /// Reads [`Evidence::list`].
    ///
    /// # Errors
    /// When the bytes are not exactly that, or a part stands where it cannot.
    fn read_list(bytes: &[u8]) -> Result<Vec<(String, Hash32)>, CodecError> {
        let mut r = Reader::new("list of evidence", bytes);
        if &r.array::<8>()? != LIST {
            return Err(r.invalid("these bytes are not a list of evidence of version 4"));
        }
        let count = r.count(36)?;
        let mut list: Vec<(String, Hash32)> = Vec::with_capacity(count);
        // Names that may still come, in their order.
        let mut fixed = &FIXED[..];
        let mut seen = std::collections::BTreeSet::new();
        let optional = |skipped: &[&str]| skipped.iter().all(|name| ["incident", "label"].contains(name));
        for _ in 0..count {
            let name = r.str()?;
            let skipped = match fixed.iter().position(|f| *f == name) {
                Some(at) => at,
                None if name.starts_with(FEATURE) => fixed.len(),
                None => return Err(r.invalid(format!("a part {name:?} where none can be"))),
            };
            if !optional(&fixed[..skipped]) || !seen.insert(name) {
                return Err(r.invalid(format!("a part {name:?} where none can be")));
            }
            fixed = fixed.get(skipped + 1..).unwrap_or_default();
            list.push((name.to_owned(), r.array()?));
        }
        if !optional(fixed) {
            return Err(r.invalid("a part is missing"));
        }
        r.finish()?;
        Ok(list)
    }

    /// Reads a list and what [`Evidence::disclose`] wrote of its parts. Whether these are the parts that the list commits to
    /// is for [`Disclosed::broken`] to say.
    ///
    /// # Errors
    /// When the bytes are not exactly that, or a part's value is none.
    pub fn from_bytes(list: &[u8], disclosed: &[u8]) -> Result<Self, CodecError> {
        let mut out = Self { list: Self::read_list(list)?, ..Self::default() };
        let mut r = Reader::new("disclosed evidence", disclosed);
        if &r.array::<8>()? != DISCLOSED {
            return Err(r.invalid("these bytes are not disclosed evidence of version 1"));
        }
        for _ in 0..r.count(24)? {
            let (position, salt) = (r.u32()? as usize, r.array()?);
            let after = out.openings.last().is_none_or(|o| o.position < position);
            let name = match out.list.get(position) {
                Some((name, _)) if after => name.clone(),
                _ => return Err(r.invalid(format!("part {position} is not the next of {}", out.list.len()))),
            };
            let value = r.bytes()?.to_vec();
            out.take(&name, &value)?;
            out.openings.push(Opening { position, salt, value });
        }
        r.finish()?;
        Ok(out)
    }

    fn take(&mut self, name: &str, value: &[u8]) -> Result<(), CodecError> {
        let mut r = Reader::new("part of evidence", value);
        match name {
            "device" | "step" => {
                let text = std::str::from_utf8(r.raw(value.len())?).map_err(|e| r.invalid(e.to_string()))?;
                if name == "device" {
                    self.device = Some(text.to_owned());
                } else {
                    self.step = Some(text.into());
                }
            }
            "source" => self.source = Some(evidence::read_source(&mut r)?),
            "references" => self.references = Some(evidence::read_references(&mut r)?),
            "score" => {
                let (score, p_value) = (r.f64()?, r.f64()?);
                let interval = match r.u8()? {
                    0 => None,
                    1 => Some(Interval { lower: r.f64()?, upper: r.f64()? }),
                    other => return Err(r.invalid(format!("{other} where there is an interval or none"))),
                };
                self.score = Some(Scored { score, p_value, interval });
            }
            "incident" => self.incident = Some(r.u64()?),
            "label" => self.label = Some(Box::new(Label::from_bytes(r.raw(value.len())?)?)),
            feature => {
                let name = feature.strip_prefix(FEATURE).unwrap_or(feature).into();
                let (value, expected, contribution) = (r.f64()?, r.f64()?, r.f64()?);
                self.features.push(FeatureEvidence { name, value, expected, contribution });
            }
        }
        r.finish()
    }

    /// The first part that is shown and is not the one that the list commits to.
    pub fn broken(&self) -> Option<&str> {
        self.openings.iter().find_map(|o| {
            let (name, commitment) = &self.list[o.position];
            let found: Hash32 = Sha256::new().chain_update(o.salt).chain_update(&o.value).finalize().into();
            (found != *commitment).then_some(name.as_str())
        })
    }

    /// Whether there is such a part, shown or not.
    pub fn has(&self, name: &str) -> bool {
        self.list.iter().any(|(n, _)| n == name)
    }

    /// How many parts there are.
    pub fn parts(&self) -> usize {
        self.list.len()
    }

    /// How many of them are features, shown or not.
    pub fn parts_of_features(&self) -> usize {
        self.list.iter().filter(|(name, _)| name.starts_with(FEATURE)).count()
    }

    /// The names of the parts that are kept back, in order.
    pub fn withheld(&self) -> Vec<&str> {
        let mut shown = self.openings.iter().map(|o| o.position).peekable();
        let kept_back = self.list.iter().enumerate().filter(|(i, _)| shown.next_if_eq(i).is_none());
        kept_back.map(|(_, (name, _))| name.as_str()).collect()
    }

    /// All of it, where nothing is kept back. The salt stays with whoever made the verdict: here it is zero, so
    /// [`Evidence::hash`] of this is nothing.
    pub fn whole(&self) -> Option<Evidence> {
        if self.openings.len() != self.list.len() {
            return None;
        }
        let (source, scored) = (self.source.clone()?, self.score?);
        Some(Evidence {
            device: self.device.clone()?,
            step: self.step.clone()?,
            topic: source.topic,
            partition: source.partition,
            first_offset: source.first_offset,
            last_offset: source.last_offset,
            rows: source.rows,
            references: self.references.clone()?,
            score: scored.score,
            p_value: scored.p_value,
            interval: scored.interval,
            incident: self.incident,
            label: self.label.clone(),
            features: self.features.clone(),
            salt: [0; 32],
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;
    use crate::label::Opinion;

    fn label() -> Label {
        Label {
            device: "pump-7".into(),
            verdict: Some(3),
            step: "anomaly".into(),
            from: 1_000,
            to: 2_000,
            opinion: Opinion::FalseAlarm,
            reason: None,
            by: [5; 32],
            at: 9_000,
        }
    }

    prop_compose! {
        fn evidences()(
            device in "[a-z0-9-]{0,12}", rows in any::<u64>(), offsets in any::<[i64; 2]>(), score in any::<f64>(),
            interval in any::<Option<(f64, f64)>>(), incident in any::<Option<u64>>(), labelled in any::<bool>(),
            references in 0usize..3, features in prop::collection::vec(any::<[f64; 3]>(), 0..9), salt in any::<Hash32>(),
        ) -> Evidence {
            Evidence {
                device,
                step: "anomaly".into(),
                topic: "pumps".into(),
                partition: 2,
                first_offset: offsets[0],
                last_offset: offsets[1],
                rows,
                references: (0..references).map(|i| ReferenceVersion { name: format!("table-{i}"), version: [7; 32] }).collect(),
                score,
                p_value: 0.25,
                interval: interval.map(|(lower, upper)| Interval { lower, upper }),
                incident,
                label: labelled.then(|| Box::new(label())),
                features: features.into_iter().enumerate().map(|(i, [value, expected, contribution])| FeatureEvidence {
                    name: format!("f{i}").into(), value, expected, contribution,
                }).collect(),
                salt,
            }
        }
    }

    /// As doubles to the bit, since a NaN is not itself.
    fn same(a: &Evidence, b: &Evidence) -> bool {
        let bytes = |e: &Evidence| Evidence { salt: [0; 32], ..e.clone() }.to_bytes();
        bytes(a) == bytes(b)
    }

    proptest! {
        #[test]
        fn any_parts_can_be_shown_and_no_other(e in evidences(), shown in any::<u32>()) {
            let names = e.part_names();
            let is_shown = |name: &str| names.iter().position(|n| n == name).is_some_and(|i| shown >> i & 1 == 1);
            let (list, disclosed) = (e.list(), e.disclose(is_shown));
            let seen = Disclosed::from_bytes(&list, &disclosed).unwrap();
            prop_assert_eq!(seen.broken(), None);
            prop_assert_eq!(Hash32::from(Sha256::digest(&list)), e.hash());
            let kept_back: Vec<&str> = names.iter().map(String::as_str).filter(|n| !is_shown(n)).collect();
            prop_assert_eq!(seen.withheld(), kept_back.clone());
            prop_assert_eq!(seen.whole().is_some(), kept_back.is_empty());
            let all = Disclosed::from_bytes(&list, &e.disclose(|_| true)).unwrap().whole().unwrap();
            prop_assert!(same(&all, &e));
        }

        #[test]
        fn made_side_by_side_they_are_those_made_one_by_one(all in prop::collection::vec(evidences(), 0..40)) {
            let one_by_one: Vec<Hash32> = all.iter().map(Evidence::hash).collect();
            prop_assert_eq!(hashes(all.iter(), &mut Room::default()), one_by_one);
        }

        #[test]
        fn a_changed_byte_is_no_part_any_more(e in evidences(), at in any::<prop::sample::Index>(), flip in 1u8..) {
            let (list, mut disclosed) = (e.list(), e.disclose(|_| true));
            let at = at.index(disclosed.len());
            disclosed[at] ^= flip;
            if let Ok(seen) = Disclosed::from_bytes(&list, &disclosed) {
                prop_assert!(seen.broken().is_some());
            }
        }
    }

    /// The commitment to a part that is kept back depends on a salt that no shown part tells.
    #[test]
    fn who_knows_the_value_cannot_tell_it_from_its_commitment() {
        let mut runner = proptest::test_runner::TestRunner::deterministic();
        let e = evidences().new_tree(&mut runner).unwrap().current();
        let other = Evidence { salt: [0xee; 32], ..e.clone() };
        let commitments = |e: &Evidence| Disclosed::from_bytes(&e.list(), &e.disclose(|_| false)).unwrap().list;
        for ((name, one), (_, another)) in commitments(&e).iter().zip(&commitments(&other)) {
            assert_ne!(one, another, "{name}");
        }
        let salts: std::collections::BTreeSet<_> =
            Disclosed::from_bytes(&e.list(), &e.disclose(|_| true)).unwrap().openings.iter().map(|o| o.salt).collect();
        assert_eq!(salts.len(), e.part_names().len(), "each part has a salt of its own");
    }

    use proptest::strategy::ValueTree as _;

    #[test]
    fn parts_out_of_order_or_twice_are_refused() {
        let mut runner = proptest::test_runner::TestRunner::deterministic();
        let e = evidences().new_tree(&mut runner).unwrap().current();
        let list = Disclosed::read_list(&e.list()).unwrap();
        let write = |list: &[(String, Hash32)]| {
            let mut w = Writer::new();
            w.raw(LIST);
            w.u32(list.len() as u32);
            for (name, commitment) in list {
                w.str(name);
                w.raw(commitment);
            }
            w.bytes
        };
        assert_eq!(Disclosed::read_list(&write(&list)).unwrap(), list);
        for (i, j) in [(0, 1), (1, 4), (2, 3)] {
            let mut swapped = list.clone();
            swapped.swap(i, j);
            assert!(Disclosed::read_list(&write(&swapped)).is_err());
        }
        for i in 0..5 {
            let mut without = list.clone();
            without.remove(i);
            assert!(Disclosed::read_list(&write(&without)).is_err());
        }
        for name in ["device", "score", "feature:f0", "verdict"] {
            let mut more = list.clone();
            more.push(("feature:f0".into(), [0; 32]));
            more.push((name.into(), [0; 32]));
            assert!(Disclosed::read_list(&write(&more)).is_err(), "{name}");
        }
    }
}
