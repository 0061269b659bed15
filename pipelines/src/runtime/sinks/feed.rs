//! What a tail takes from a lane.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use avouch_connectors::store::{LaneReader, Refusal, Refusals, StoreError};
use avouch_engine::dead_letter::DeadLetter;
use avouch_engine::lane::EarlyVerdict;
use avouch_engine::sql::Condition;
use avouch_engine::verdict::{Logged, VerdictRecord, class};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::super::artifacts::hex;
use super::super::error::RuntimeError;
use super::super::verdict_json::verdict_json;
use super::Target;
use crate::verdict_table::{condition_rows, early_rows};

/// The most that is read at once.
const PAGE: usize = 2_000;
/// A sink that takes little of a long log moves its cursor at least every so many records.
const SCAN: u64 = 100_000;

/// A sink's `where`, planned.
#[derive(Debug)]
pub(super) struct Where {
    pub condition: Condition,
    pub schema: SchemaRef,
}

/// What a tail takes from a lane.
#[derive(Debug, Clone)]
pub(super) enum Feed {
    /// The verdicts of these model steps for which the condition holds; or all of these steps, those marked.
    Verdicts { steps: Vec<String>, condition: Option<Arc<Where>>, marks_only: bool },
    /// The lane's dead letters.
    DeadLetters,
    /// What a sink has refused.
    Refused(Arc<Refusals>),
}

/// One record for a writer.
#[derive(Debug, Clone)]
pub(super) struct Item {
    /// Its number in the feed: the index in the log, the dead letter's number, the refusal's number.
    pub number: u64,
    pub record: Record,
    /// Whether the sink's `where` holds.
    pub matches: bool,
}

#[derive(Debug, Clone)]
pub(super) enum Record {
    Verdict(VerdictRecord),
    Dead(DeadLetter),
    Refused(Refusal, VerdictRecord),
}

impl Feed {
    /// How many records there are so far.
    pub fn have(&self, reader: &LaneReader) -> u64 {
        match self {
            Feed::Verdicts { .. } => reader.committed().log_size,
            Feed::DeadLetters => reader.committed().dead_count,
            Feed::Refused(refusals) => refusals.settled(),
        }
    }

    /// Records from number `at` up to `to`, at most `most` and not many more bytes than `bytes`; and the number after them.
    /// With `usize::MAX` for both, all of them.
    pub fn read(
        &self,
        reader: &LaneReader,
        at: u64,
        to: u64,
        most: usize,
        bytes: usize,
    ) -> Result<(Vec<Item>, u64), RuntimeError> {
        let (mut out, mut next, mut size) = (Vec::new(), at, 0);
        // A page without a record for this sink is no reason to stop.
        while next < to && out.len() < most && size < bytes {
            let here = out.len();
            let page = PAGE.min(most - out.len()).min(usize::try_from(to - next).unwrap_or(usize::MAX));
            let read = self.page(reader, next, page, &mut out)?;
            next += read;
            if read == 0 || (next - at >= SCAN && most < usize::MAX) {
                break;
            }
            size += out[here..].iter().map(Item::size).sum::<usize>();
        }
        Ok((out, next))
    }

    fn page(&self, reader: &LaneReader, at: u64, most: usize, out: &mut Vec<Item>) -> Result<u64, RuntimeError> {
        match self {
            Feed::Verdicts { steps, condition, marks_only } => {
                let logged = reader.records(at, most)?;
                let read = logged.len() as u64;
                // Erasing waits for all sinks, so that one comes here only where its cursor was put back; it has had the record.
                let mut records: Vec<_> = logged.into_iter().filter_map(Logged::into_record).collect();
                records.retain(|r| {
                    let label = class::is_label(r.verdict.class);
                    // What a person says neither opens an alert nor ends one.
                    let counts = !(*marks_only && label);
                    // A label of a stretch may be about all steps, and is then of none.
                    counts && (steps.iter().any(|s| **s == *r.evidence.step) || (label && r.evidence.step.is_empty()))
                });
                let matches = match condition {
                    None => vec![true; records.len()],
                    Some(c) => c.hold(&reader.committed().origin, &records)?,
                };
                for (record, matches) in records.into_iter().zip(matches) {
                    if matches || *marks_only {
                        out.push(Item { number: record.index, record: Record::Verdict(record), matches });
                    }
                }
                Ok(read)
            }
            Feed::DeadLetters => {
                let letters = reader.dead_letters(at, most)?;
                let read = letters.len() as u64;
                let items = letters.into_iter().zip(at..);
                out.extend(items.map(|(l, number)| Item { number, record: Record::Dead(l), matches: true }));
                Ok(read)
            }
            Feed::Refused(refusals) => {
                let refused = refusals.read(at, most)?;
                let read = refused.len() as u64;
                for (refusal, number) in refused.into_iter().zip(at..) {
                    // What the sink said of a record that was erased stays in its file, and goes nowhere.
                    if let Some(record) = verdict(reader, refusal.index)?.into_record() {
                        out.push(Item { number, record: Record::Refused(refusal, record), matches: true });
                    }
                }
                Ok(read)
            }
        }
    }

    /// What identifies everything before `next` in this feed: the log's root, or the last dead letter. A cursor with
    /// another note belongs to another log, and going on from it would leave records out in silence.
    pub fn note(&self, reader: &LaneReader, next: u64) -> Result<String, RuntimeError> {
        Ok(match self {
            Feed::Verdicts { .. } => hex(&reader.root(next)?),
            _ if next == 0 => String::new(),
            Feed::DeadLetters => {
                let last = reader.dead_letters(next - 1, 1)?;
                last.first().map_or_else(String::new, |l| hex(&Sha256::digest(l.to_bytes())))
            }
            Feed::Refused(refusals) => match refusals.read(next - 1, 1)?.first() {
                Some(last) => hex(&reader.root(last.index + 1)?),
                None => String::new(),
            },
        })
    }
}

fn verdict(reader: &LaneReader, index: u64) -> Result<Logged, RuntimeError> {
    reader.records(index, 1)?.pop().ok_or_else(|| {
        let why = "a sink has refused it, but it is not in the log".to_owned();
        RuntimeError::Store(StoreError::Damaged { file: format!("records, record {index}"), why })
    })
}

impl Where {
    /// Which early results it holds for.
    pub fn hold_early(&self, log: &str, results: &[Arc<EarlyVerdict>]) -> Result<Vec<bool>, String> {
        let results: Vec<&EarlyVerdict> = results.iter().map(Arc::as_ref).collect();
        let rows = early_rows(&self.schema, log, &results).map_err(|e| e.to_string())?;
        self.condition.holds(&rows)
    }

    fn hold(&self, log: &str, records: &[VerdictRecord]) -> Result<Vec<bool>, RuntimeError> {
        if records.is_empty() {
            return Ok(Vec::new());
        }
        let records: Vec<&VerdictRecord> = records.iter().collect();
        let failed = |e: String| RuntimeError::Start(format!("a sink's `where` cannot be computed: {e}"));
        let rows = condition_rows(&self.schema, log, &records).map_err(|e| failed(e.to_string()))?;
        self.condition.holds(&rows).map_err(failed)
    }
}

impl Item {
    /// Roughly, in memory.
    fn size(&self) -> usize {
        let verdict = |r: &VerdictRecord| 500 + 64 * r.evidence.features.len();
        match &self.record {
            Record::Verdict(r) => verdict(r),
            Record::Refused(refusal, r) => verdict(r) + refusal.why.len(),
            Record::Dead(l) => {
                200 + l.detail.len() + l.key.as_ref().map_or(0, Vec::len) + l.value.as_ref().map_or(0, Vec::len)
            }
        }
    }

    /// As one JSON object: a verdict as everywhere, a dead letter with its reason and its raw bytes (`key`, `value`; as
    /// `key_hex`, `value_hex` where they are not UTF-8).
    pub fn json(&self, log: &str, target: &Target) -> Value {
        match &self.record {
            Record::Verdict(r) => verdict_json(log, r),
            Record::Refused(refusal, r) => json!({
                "reason": "refused",
                "detail": refusal.why,
                "sink": refusing_sink(target),
                "status": refusal.status,
                "log": log,
                "index": refusal.index,
                "value": verdict_json(log, r).to_string(),
            }),
            Record::Dead(l) => {
                let mut out = json!({
                    "reason": l.reason.name(),
                    "detail": l.detail,
                    "topic": target.source_topic,
                    "partition": target.partition,
                    "offset": l.offset,
                    "timestamp": l.timestamp,
                });
                if let Some(row) = l.row {
                    out["row"] = row.into();
                }
                if let Some(signature) = &l.signature {
                    out["signature_hex"] = hex(signature).into();
                }
                for (name, bytes) in [("key", &l.key), ("value", &l.value)] {
                    match bytes.as_deref().map(|b| (std::str::from_utf8(b), b)) {
                        None => out[name] = Value::Null,
                        Some((Ok(text), _)) => out[name] = text.into(),
                        Some((Err(_), bytes)) => out[format!("{name}_hex")] = hex(bytes).into(),
                    }
                }
                out
            }
        }
    }
}

/// The sink whose refusals a target delivers.
pub(super) fn refusing_sink(target: &Target) -> &str {
    target.name.split_once('.').map_or("", |(_, sink)| sink)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use avouch_connectors::store::{Commit, LaneStore, StoreOptions};
    use avouch_engine::label::{Label, Opinion};
    use avouch_engine::lane::Snapshot;
    use avouch_engine::verdict::{Evidence, LogOrigin, NO_MODEL, Verdict};

    use super::*;

    fn record(index: u64, step: &str, label: Option<Label>) -> VerdictRecord {
        let class = label.as_ref().map_or(class::ANOMALY, |l| l.opinion.class());
        let evidence = Evidence {
            salt: [0; 32],
            device: "pump-1".into(),
            step: step.into(),
            topic: "t".into(),
            partition: 0,
            first_offset: 0,
            last_offset: 0,
            rows: 0,
            references: Vec::new(),
            score: f64::NAN,
            p_value: f64::NAN,
            interval: None,
            incident: None,
            label: label.map(Box::new),
            features: Vec::new(),
        };
        let verdict = Verdict {
            device_id: [0; 32],
            seq: index,
            window_start: 0,
            window_end: 1,
            model_hash: NO_MODEL,
            config_hash: [0; 32],
            input_digest: [0; 32],
            score_e6: 0,
            severity: 0,
            class,
            evidence_hash: evidence.hash(),
            salt: [0; 32],
        };
        VerdictRecord { index, verdict, evidence }
    }

    #[test]
    fn labels_go_where_verdicts_of_their_step_go_but_to_alerts() {
        let dir = tempfile::tempdir().unwrap();
        let (mut store, _) =
            LaneStore::open(&dir.path().join("0"), &LogOrigin::new("p", 0), StoreOptions::default()).unwrap();
        let label = |step: &str| {
            let (device, verdict) = ("pump-1".to_owned(), None);
            let opinion = Opinion::FalseAlarm;
            Some(Label {
                device,
                verdict,
                step: step.into(),
                from: 0,
                to: 1,
                opinion,
                reason: None,
                by: [0; 32],
                at: 0,
            })
        };
        store
            .append_all(&[
                record(0, "a", None),
                record(1, "a", label("a")),
                record(2, "b", label("b")),
                record(3, "", label("")),
                record(4, "b", None),
            ])
            .unwrap();
        store
            .commit(Commit {
                next_offset: 1,
                lane_state: Snapshot::default(),
                config_hash: [0; 32],
                topic: "t",
                partition: 0,
                watermark: None,
                counters: &[],
            })
            .unwrap();
        let given = |marks_only| {
            let feed = Feed::Verdicts { steps: vec!["a".into()], condition: None, marks_only };
            let (items, next) = feed.read(&store.reader(), 0, 5, 10, 1 << 20).unwrap();
            assert_eq!(next, 5);
            items.iter().map(|i| i.number).collect::<Vec<_>>()
        };
        assert_eq!(given(false), [0, 1, 3]);
        assert_eq!(given(true), [0]);
    }
}
