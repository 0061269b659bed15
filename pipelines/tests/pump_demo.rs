//! The demo's pipeline on the demo's fleet, without a broker: trained on the day before, held against the ground truth.
#![allow(clippy::unwrap_used, missing_docs)]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use avouch::lang::{self, Level, Pipeline};
use avouch::simulator::{Fleet, FleetConfig, GroundTruth, Label, SimulatedReading};
use avouch_engine::dead_letter::DeadReason;
use avouch_engine::decode::RawRecord;
use avouch_engine::lane::{Lane, Output};
use avouch_engine::verdict::{Secret, Severity, VerdictRecord};
use avouch_models::{Provenance, TrainConfig, TrainingFrame, frame, train};

/// 2026-01-06T07:00:00Z; the fleet is judged a day and an hour later.
const TRAINING: i64 = 1_767_682_800_000;
const HOUR: i64 = 3_600_000;

fn pipeline() -> Pipeline {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/pump-demo/pipeline.toml");
    Pipeline::load(path).unwrap_or_else(|e| panic!("{}", e.render_text(false)))
}

/// Feeds readings in chunks, as a source would.
fn feed(readings: impl Iterator<Item = SimulatedReading>, mut step: impl FnMut(&[RawRecord<'_>])) -> u64 {
    let (mut chunk, mut offset) = (Vec::new(), 0);
    let mut flush = |chunk: &mut Vec<SimulatedReading>, first: i64| {
        let records: Vec<_> = chunk
            .iter()
            .enumerate()
            .map(|(i, r)| RawRecord {
                offset: first + i as i64,
                timestamp: r.broker_time_ms,
                key: Some(r.device.as_bytes()),
                value: Some(&r.payload),
                origin: None,
                signature: None,
            })
            .collect();
        step(&records);
        chunk.clear();
    };
    for reading in readings {
        chunk.push(reading);
        if chunk.len() == 2000 {
            flush(&mut chunk, offset);
            offset += 2000;
        }
    }
    let last = chunk.len() as i64;
    flush(&mut chunk, offset);
    (offset + last) as u64
}

fn train_on_the_day_before(pipeline: &Pipeline) -> lang::Models {
    let plan = Arc::new(lang::plan(pipeline, &lang::Models::new()).unwrap());
    let step = &pipeline.model_steps[0];
    let at = plan.windows.iter().position(|w| w.name == step.from.value).unwrap();
    let mut lane = Lane::new(plan, 0, Secret::new(b"training"));
    let (mut dead, mut batches) = (Vec::new(), Vec::new());
    let fleet = Fleet::new(FleetConfig::healthy(7, 40, TRAINING, 4 * HOUR)).unwrap();
    feed(fleet, |records| {
        for rows in lane.step_features(records, at, &mut dead).unwrap() {
            let mut columns: Vec<(String, ArrayRef)> = step
                .features
                .iter()
                .map(|f| (f.value.clone(), rows.batch.column_by_name(&f.value).unwrap().clone()))
                .collect();
            columns.push((frame::DEVICE.into(), Arc::new(StringArray::from(rows.devices))));
            columns.push((frame::WINDOW_END.into(), Arc::new(Int64Array::from(rows.window_ends))));
            batches.push(
                RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(n, a)| (n, a, true))).unwrap(),
            );
        }
    });
    assert_eq!(dead, []);
    let features: Vec<String> = step.features.iter().map(|f| f.value.clone()).collect();
    let frame = TrainingFrame::from_batches(&features, &batches).unwrap();
    assert_eq!((frame.devices().len(), frame.dropped()), (40, 0));
    let train_table = &pipeline.train[0];
    let config = TrainConfig {
        algorithm: train_table.algorithm.value.clone(),
        split: train_table.split,
        provenance: Provenance::default(),
    };
    lang::Models::from([(step.name.value.clone(), train(&frame, &config).unwrap().scorer)])
}

/// Verdicts at or above `least`, against the truth: right, wrong and missed windows.
fn confusion(verdicts: &[VerdictRecord], truth: &GroundTruth, least: Severity) -> (u32, u32, u32) {
    let (mut right, mut wrong, mut missed) = (0, 0, 0);
    for v in verdicts {
        let (start, end) = (v.verdict.window_start as i64, v.verdict.window_end as i64);
        let called = v.verdict.severity >= least.code();
        match truth.label(&v.evidence.device, start, end).unwrap() {
            Label::Faulty(_) if called => right += 1,
            Label::Faulty(_) => missed += 1,
            Label::Healthy if called => wrong += 1,
            Label::Healthy | Label::Unclear => {}
        }
    }
    (right, wrong, missed)
}

#[test]
fn the_file_is_right() {
    let pipeline = pipeline();
    let findings = lang::check(&pipeline);
    assert_eq!(findings.count(Level::Error), 0, "{}", findings.render_text(false));
    let text = findings.render_text(false);
    assert!(findings.count(Level::Warning) <= 1, "only the model that is still to be trained:\n{text}");
}

#[test]
fn faults_are_called_and_what_cannot_be_used_is_kept() {
    let pipeline = pipeline();
    let models = train_on_the_day_before(&pipeline);
    let plan = Arc::new(lang::plan(&pipeline, &models).unwrap());
    let mut lane = Lane::new(plan, 0, Secret::new(b"0123456789abcdef"));
    let mut fleet = Fleet::new(FleetConfig::troubled(7, 40, TRAINING + 25 * HOUR, 2 * HOUR)).unwrap();
    let mut out = Output::default();
    let started = Instant::now();
    let rows = feed(fleet.by_ref(), |records| lane.step(records, &mut out).unwrap());
    let seconds = started.elapsed().as_secs_f64();
    let truth = fleet.truth();

    let mut dead: BTreeMap<&str, u64> = BTreeMap::new();
    for letter in &out.dead {
        *dead.entry(letter.reason.name()).or_default() += 1;
    }
    assert_eq!(
        dead,
        BTreeMap::from([
            (DeadReason::Undecodable.name(), truth.bad_rows),
            (DeadReason::Late.name(), truth.late_rows),
            (DeadReason::Future.name(), truth.future_rows),
        ])
    );
    assert!(lane.counters().balanced());
    assert_eq!((rows, lane.counters().rows_in), (truth.rows, truth.rows));

    println!("{rows} rows, {} verdicts in {seconds:.2} s", out.verdicts.len());
    for (least, precise, complete) in [(Severity::Warning, 0.93, 0.97), (Severity::Critical, 0.98, 0.96)] {
        let (right, wrong, missed) = confusion(&out.verdicts, &truth, least);
        let precision = f64::from(right) / f64::from(right + wrong);
        let recall = f64::from(right) / f64::from(right + missed);
        println!(
            "{}: precision {precision:.3}, recall {recall:.3} ({right} right, {wrong} wrong, {missed} missed)",
            least.name()
        );
        assert!(precision >= precise && recall >= complete);
    }
    // Every fault but the fast clock, whose rows are refused, is called within five minutes of being evident.
    for device in truth.devices.iter().filter(|d| d.fault.as_ref().is_some_and(|f| !f.evident.is_empty())) {
        let evident = device.fault.as_ref().unwrap().evident[0].0;
        let called = out.verdicts.iter().any(|v| {
            v.evidence.device == device.device
                && v.verdict.severity == Severity::Critical.code()
                && (evident..evident + 300_000).contains(&(v.verdict.window_end as i64))
        });
        assert!(called, "{}", device.device);
    }
}
