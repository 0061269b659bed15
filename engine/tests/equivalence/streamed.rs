//! The engine's answer: a lane over records, cut into small batches and restored now and then.

use std::sync::Arc;

use arrow::array::RecordBatch;
use avouch_engine::decode::RawRecord;
use avouch_engine::lane::Lane;
use avouch_engine::plan::LanePlan;
use avouch_engine::spec::{FormatSpec, LaneSpec, SourceSpec, SqlStepSpec, WindowSpec};
use avouch_engine::verdict::Secret;
use datafusion::common::ScalarValue;

use crate::answer::Answer;
use crate::reading::{Reading, fields};

/// A windowed query over readings, after an optional step without a window.
#[derive(Debug, Clone)]
pub struct Query {
    pub window: WindowSpec,
    pub disorder_ms: i64,
    /// A step `clean` that the windowed step reads.
    pub clean: Option<String>,
    pub sql: String,
}

pub fn plan(query: &Query) -> Arc<LanePlan> {
    let step = |name: &str, from: &str, sql: &str, window| SqlStepSpec {
        name: name.into(),
        from: from.into(),
        sql: sql.into(),
        window,
    };
    let mut sql = Vec::new();
    sql.extend(query.clean.as_deref().map(|clean| step("clean", "readings", clean, None)));
    let from = if query.clean.is_some() { "clean" } else { "readings" };
    sql.push(step("features", from, &query.sql, Some(query.window)));
    let spec = LaneSpec {
        pipeline: "equivalence".into(),
        config_hash: [0; 32],
        source: SourceSpec {
            name: "readings".into(),
            topic: "t".into(),
            format: FormatSpec::Json,
            fields: fields(),
            key: "device".into(),
            keyed: false,
            time: "ts".into(),
            max_disorder_ms: query.disorder_ms,
            max_future_ms: 0,
            device_ttl_ms: None,
            max_record_bytes: 10_000,
            signature: None,
        },
        references: Vec::new(),
        sql,
        scores: Vec::new(),
    };
    Arc::new(LanePlan::new(&spec).unwrap_or_else(|e| panic!("{e:?}\n{}", query.sql)))
}

/// The answer and how many readings became dead letters. `cut` is the size of the batches; after each the lane is stopped
/// and restored.
pub fn answer(query: &Query, readings: &[Reading], cut: usize) -> (Answer, usize) {
    let plan = plan(query);
    let secret = || Secret::new(b"equivalence");
    let mut lane = Lane::new(plan.clone(), 0, secret());
    let texts: Vec<String> = readings.iter().map(Reading::json).collect();
    let mut answer = Answer::default();
    let mut dead = Vec::new();
    let records: Vec<RawRecord<'_>> = texts
        .iter()
        .enumerate()
        .map(|(i, t)| RawRecord {
            offset: i as i64,
            timestamp: i64::MAX / 2,
            key: None,
            value: Some(t.as_bytes()),
            origin: None,
            signature: None,
        })
        .collect();
    let mut take = |rows: Vec<avouch_engine::lane::FeatureRows>| {
        for rows in rows {
            add(&mut answer, &rows.batch, &rows.devices, &rows.window_ends);
        }
    };
    for batch in records.chunks(cut.max(1)) {
        take(lane.step_features(batch, 0, &mut dead).unwrap());
        lane = Lane::restore(plan.clone(), 0, secret(), &lane.snapshot()).unwrap();
    }
    take(lane.finish_features(0).unwrap());
    (answer, dead.len())
}

fn add(answer: &mut Answer, batch: &RecordBatch, devices: &[String], ends: &[i64]) {
    answer.names = batch.schema().fields().iter().map(|f| f.name().clone()).collect();
    for row in 0..batch.num_rows() {
        let values = batch.columns().iter().map(|c| ScalarValue::try_from_array(c, row).unwrap()).collect();
        let before = answer.rows.insert((ends[row], devices[row].clone()), values);
        assert!(before.is_none(), "a window fired twice: {} {}", devices[row], ends[row]);
    }
}
