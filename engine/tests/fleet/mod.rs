//! A small lane under test: devices that report `x`, one tumbling window of a second, one model.

#![allow(clippy::unwrap_used, dead_code)]

#[path = "../sum_model/mod.rs"]
mod sum_model;

use std::sync::Arc;

use avouch_engine::decode::RawRecord;
use avouch_engine::event::Tick;
use avouch_engine::lane::{Lane, LaneError, Output};
use avouch_engine::plan::LanePlan;
use avouch_engine::spec::{
    DecideSpec, FieldSpec, FieldType, FormatSpec, LaneSpec, ScoreStepSpec, SourceSpec, SqlStepSpec, WindowSpec,
};
use avouch_engine::verdict::Secret;
pub use sum_model::SumModel;

/// 2023-11-14T22:13:20Z, on a window's boundary.
pub const T0: i64 = 1_700_000_000_000;

pub fn spec() -> LaneSpec {
    let field = |name: &str, ty, required| FieldSpec { name: name.into(), ty, required };
    let features = vec!["m".to_owned()];
    LaneSpec {
        pipeline: "fleet".into(),
        config_hash: [1; 32],
        source: SourceSpec {
            name: "readings".into(),
            topic: "t".into(),
            fields: vec![
                field("device", FieldType::Utf8, true),
                field("ts", FieldType::TimestampMs, true),
                field("x", FieldType::F64, false),
            ],
            format: FormatSpec::Json,
            key: "device".into(),
            keyed: false,
            time: "ts".into(),
            max_disorder_ms: 0,
            max_future_ms: 60_000,
            device_ttl_ms: None,
            max_record_bytes: 1_000,
            signature: None,
        },
        references: Vec::new(),
        sql: vec![SqlStepSpec {
            name: "features".into(),
            from: "readings".into(),
            sql: "SELECT device, sum(x) AS m FROM readings GROUP BY device".into(),
            window: Some(WindowSpec::Tumbling { size_ms: 1_000 }),
        }],
        scores: vec![ScoreStepSpec {
            name: "anomaly".into(),
            from: "features".into(),
            model: Arc::new(SumModel(features.clone())),
            features,
            decide: DecideSpec::p_values(Some(0.1), None),
        }],
    }
}

pub fn row(device: &str, ts: i64, x: f64) -> String {
    format!("{{\"device\":\"{device}\",\"ts\":{ts},\"x\":{x}}}")
}

pub fn secret() -> Secret {
    Secret::new(b"fleet")
}

/// A lane and everything it gave.
pub struct Fleet {
    pub plan: Arc<LanePlan>,
    pub lane: Lane,
    pub out: Output,
    pub next_offset: i64,
}

impl Fleet {
    pub fn new(change: impl FnOnce(&mut LaneSpec)) -> Self {
        let mut spec = spec();
        change(&mut spec);
        let plan = Arc::new(LanePlan::new(&spec).unwrap());
        Self { lane: Lane::new(plan.clone(), 0, secret()), plan, out: Output::default(), next_offset: 0 }
    }

    /// One record; returns what it gave.
    pub fn send(&mut self, broker: i64, value: &str) -> Output {
        let record = RawRecord {
            offset: self.next_offset,
            timestamp: broker,
            key: None,
            value: Some(value.as_bytes()),
            origin: None,
            signature: None,
        };
        self.next_offset += 1;
        let mut out = Output::default();
        self.lane.step(&[record], &mut out).unwrap();
        self.keep(&out);
        out
    }

    /// A tick here.
    pub fn tick(&mut self, watermark_ms: i64) -> Result<Output, LaneError> {
        let mut out = Output::default();
        self.lane.tick(Tick { after_offset: self.lane.last_offset(), watermark_ms }, &mut out)?;
        self.keep(&out);
        Ok(out)
    }

    /// Restarts the lane from its snapshot.
    pub fn restart(&mut self) {
        let snapshot = self.lane.snapshot();
        self.lane = Lane::restore(self.plan.clone(), 0, secret(), &snapshot).unwrap();
        assert_eq!(self.lane.snapshot(), snapshot);
    }

    fn keep(&mut self, out: &Output) {
        self.out.verdicts.extend_from_slice(&out.verdicts);
        self.out.dead.extend_from_slice(&out.dead);
        self.out.events.extend_from_slice(&out.events);
    }

    pub fn into_parts(self) -> (Lane, Output) {
        (self.lane, self.out)
    }
}
