//! The engine's own lane, on versions of a small pipeline, in the place of the stand-in.

use std::sync::Arc;

use avouch_engine::decode::RawRecord;
use avouch_engine::lane::{Counters, Lane, Output};
use avouch_engine::plan::LanePlan;
use avouch_engine::spec::{
    DecideSpec, FieldSpec, FieldType, FormatSpec, LaneSpec, ScoreStepSpec, SourceSpec, SqlStepSpec, WindowSpec,
};
use avouch_engine::verdict::Secret;

use super::lanes::{Made, mix};
use super::sum_model::SumModel;
use super::versions::{Config, hash};

/// Planned pipelines; making one takes as long as a thousand seeds of the stand-in.
#[derive(Clone)]
pub struct RealPlans(Arc<[Arc<LanePlan>]>);

impl RealPlans {
    /// One, the same with other thresholds, with another window, with another query on a source of later rows.
    pub fn new() -> Self {
        let changes: [fn(&mut LaneSpec); 4] = [
            |_| {},
            |spec| spec.scores[0].decide = DecideSpec::p_values(Some(0.9), Some(0.5)),
            |spec| spec.sql[0].window = Some(WindowSpec::Sliding { size_ms: 3_000, every_ms: 1_000 }),
            |spec| {
                spec.source.max_disorder_ms = 2_000;
                spec.sql[0].sql = "SELECT device, max(x) AS m, count(*) AS c FROM readings GROUP BY device".into();
            },
        ];
        let plan = |(n, change): (u64, &fn(&mut LaneSpec))| {
            let mut spec = Self::spec();
            spec.config_hash = hash(n);
            change(&mut spec);
            Arc::new(LanePlan::new(&spec).expect("the pipeline is right"))
        };
        Self((0..).zip(&changes).map(plan).collect())
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    fn get(&self, config: Config) -> Arc<LanePlan> {
        self.0[config as usize].clone()
    }

    fn spec() -> LaneSpec {
        let field = |name: &str, ty, required| FieldSpec { name: name.into(), ty, required };
        let features = vec!["m".to_owned(), "c".to_owned()];
        LaneSpec {
            pipeline: "p".into(),
            config_hash: hash(0),
            source: SourceSpec {
                name: "readings".into(),
                topic: "t".into(),
                format: FormatSpec::Json,
                fields: vec![
                    field("device", FieldType::Utf8, true),
                    field("ts", FieldType::TimestampMs, true),
                    field("x", FieldType::F64, false),
                ],
                key: "device".into(),
                keyed: false,
                time: "ts".into(),
                max_disorder_ms: 1_000,
                max_future_ms: 5_000,
                device_ttl_ms: None,
                max_record_bytes: 1_000,
                signature: None,
            },
            references: Vec::new(),
            sql: vec![SqlStepSpec {
                name: "w".into(),
                from: "readings".into(),
                sql: "SELECT device, avg(x) AS m, count(*) AS c FROM readings GROUP BY device".into(),
                window: Some(WindowSpec::Sliding { size_ms: 2_000, every_ms: 1_000 }),
            }],
            scores: vec![ScoreStepSpec {
                name: "s".into(),
                from: "w".into(),
                features: features.clone(),
                model: Arc::new(SumModel(features)),
                decide: DecideSpec::p_values(Some(0.05), Some(0.01)),
            }],
        }
    }
}

pub struct RealLane(Lane);

impl RealLane {
    fn secret() -> Secret {
        Secret::new(b"simulated")
    }

    pub fn new(plans: &RealPlans, config: Config, lane: usize) -> Self {
        Self(Lane::new(plans.get(config), lane as i32, Self::secret()))
    }

    pub fn restore(plans: &RealPlans, config: Config, lane: usize, bytes: &[u8]) -> Self {
        let lane = Lane::restore(plans.get(config), lane as i32, Self::secret(), bytes);
        Self(lane.expect("a snapshot of this pipeline"))
    }

    /// Carries it over to another pipeline; what it drops, as one number.
    pub fn migrate(plans: &RealPlans, to: Config, lane: usize, bytes: &[u8]) -> (Self, u64) {
        let mut out = Output::default();
        let lane = Lane::migrate(plans.get(to), lane as i32, Self::secret(), bytes, &mut out);
        let event = out.events.iter().flat_map(|event| event.to_bytes()).fold(0, |h, byte| mix(h, byte.into()));
        (Self(lane.expect("a snapshot of another pipeline")), event)
    }

    /// The number decides the row: mostly a reading of one of three devices about half a second after the one before, some
    /// late, some in the future, some no JSON at all.
    pub fn step(&mut self, offset: i64, value: u64, out: &mut Made) {
        let timestamp = 1_700_000_000_000 + offset * 500;
        let ts = match value % 16 {
            0 => timestamp + 60_000,
            1 => timestamp - 60_000,
            n => timestamp + n as i64 * 60 - 500,
        };
        let text = match value % 11 {
            0 => "{\"device\":".to_owned(),
            n => format!("{{\"device\":\"d{}\",\"ts\":{ts},\"x\":{}}}", value % 3, (value >> 20) as f64 / n as f64),
        };
        let record =
            RawRecord { offset, timestamp, key: None, value: Some(text.as_bytes()), origin: None, signature: None };
        let mut output = Output::default();
        self.0.step(&[record], &mut output).expect("no record stops a lane");
        let word = |bytes: &[u8]| u64::from_le_bytes(bytes[..8].try_into().expect("eight bytes"));
        out.verdicts.extend(output.verdicts.iter().map(|v| word(&v.entry())));
        out.dead.extend(output.dead.iter().map(|d| word(&d.to_bytes()) ^ d.offset as u64));
    }

    pub fn snapshot(&self) -> Arc<[u8]> {
        self.0.snapshot().bytes.into()
    }

    pub fn next_index(&self) -> u64 {
        self.0.next_index()
    }

    pub fn counters(&self) -> Counters {
        *self.0.counters()
    }
}
