//! The input digest as an auditor computes it: from the rows and the definition in `WindowOperator`'s documentation, with
//! none of the engine's code but the lane that is to be checked.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::sync::Arc;

use avouch_engine::decode::RawRecord;
use avouch_engine::lane::{Lane, Output};
use avouch_engine::model::{Score, Scorer};
use avouch_engine::plan::LanePlan;
use avouch_engine::spec::{
    DecideSpec, FieldSpec, FieldType, FormatSpec, LaneSpec, ScoreStepSpec, SourceSpec, SqlStepSpec, WindowSpec,
};
use avouch_engine::verdict::{Hash32, Secret};
use sha2::{Digest, Sha256};

#[derive(Debug)]
struct Count(Vec<String>);

impl Scorer for Count {
    fn hash(&self) -> Hash32 {
        [7; 32]
    }
    fn features(&self) -> &[String] {
        &self.0
    }
    fn score(&self, _device: &str, x: &[f64], expected: &mut [f64], contributions: &mut [f64]) -> Score {
        expected.fill(0.0);
        contributions.copy_from_slice(x);
        Score::anomaly(x[0], 0.5)
    }
    fn smallest_p_value(&self) -> f64 {
        0.0
    }
}

const DISORDER: i64 = 3_000;

fn plan(window: WindowSpec) -> Arc<LanePlan> {
    let field = |name: &str, ty, required| FieldSpec { name: name.into(), ty, required };
    let spec = LaneSpec {
        pipeline: "p".into(),
        config_hash: [1; 32],
        source: SourceSpec {
            name: "readings".into(),
            topic: "topic".into(),
            format: FormatSpec::Json,
            fields: vec![
                field("device", FieldType::Utf8, true),
                field("ts", FieldType::TimestampMs, true),
                field("x", FieldType::F64, false),
            ],
            key: "device".into(),
            keyed: false,
            time: "ts".into(),
            max_disorder_ms: DISORDER,
            max_future_ms: 0,
            device_ttl_ms: None,
            max_record_bytes: 1_000,
            signature: None,
        },
        references: Vec::new(),
        sql: vec![SqlStepSpec {
            name: "features".into(),
            from: "readings".into(),
            sql: "SELECT device, count(*) AS n, avg(x) AS m FROM readings GROUP BY device".into(),
            window: Some(window),
        }],
        scores: vec![ScoreStepSpec {
            name: "score".into(),
            from: "features".into(),
            features: vec!["n".into()],
            model: Arc::new(Count(vec!["n".into()])),
            decide: DecideSpec::p_values(Some(0.01), None),
        }],
    };
    Arc::new(LanePlan::new(&spec).unwrap())
}

struct Row {
    device: &'static str,
    ts: i64,
    x: Option<f64>,
}

impl Row {
    fn json(&self) -> String {
        match self.x {
            Some(x) => format!("{{\"device\":\"{}\",\"ts\":{},\"x\":{x}}}", self.device, self.ts),
            None => format!("{{\"device\":\"{}\",\"ts\":{}}}", self.device, self.ts),
        }
    }

    /// Offset, place in the record, presence bits, time, and x if it is there; the key stands in the digest's header.
    fn canonical(&self, offset: i64) -> Vec<u8> {
        let mut out = offset.to_le_bytes().to_vec();
        out.extend(0u32.to_le_bytes());
        out.push(if self.x.is_some() { 0b111 } else { 0b011 });
        out.extend(self.ts.to_le_bytes());
        out.extend(self.x.iter().flat_map(|x| x.to_bits().to_le_bytes()));
        out
    }
}

fn text(out: &mut Vec<u8>, s: &str) {
    out.extend((s.len() as u32).to_le_bytes());
    out.extend(s.as_bytes());
}

fn sha(parts: &[&[u8]]) -> Hash32 {
    let mut h = Sha256::new();
    parts.iter().for_each(|p| h.update(p));
    h.finalize().into()
}

fn joined(earlier: Hash32, later: Hash32) -> Hash32 {
    sha(&[b"avouch/panes", &earlier, &later])
}

/// The number of the pane of a time, and panes of a window.
fn pane(window: WindowSpec, t: i64) -> (i64, i64) {
    match window {
        WindowSpec::Session { gap_ms, .. } => (t.div_euclid(gap_ms), i64::MAX),
        _ => {
            let (size, every) = (window.size_ms(), window.every_ms());
            match size % every {
                0 => (t.div_euclid(every), size / every),
                rest => (2 * t.div_euclid(every) + i64::from(t.rem_euclid(every) >= rest), size / every * 2 + 1),
            }
        }
    }
}

/// The digest of the rows (with their offsets) that are in a window.
fn digest(window: WindowSpec, device: &str, start: i64, end: i64, rows: &[(i64, &Row)]) -> Hash32 {
    let mut panes: BTreeMap<i64, Vec<u8>> = BTreeMap::new();
    for (offset, row) in rows {
        panes.entry(pane(window, row.ts).0).or_default().extend(row.canonical(*offset));
    }
    let digests = |range: &dyn Fn(i64) -> bool| -> Vec<Hash32> {
        panes.iter().filter(|(p, _)| range(**p)).map(|(_, bytes)| sha(&[bytes])).collect()
    };
    let zero = [0; 32];
    let (first, second) = match window {
        WindowSpec::Session { .. } => (digests(&|_| true).into_iter().reduce(joined), None),
        _ => {
            let (begin, of_window) = pane(window, start);
            let border = (begin.div_euclid(of_window) + 1) * of_window;
            (
                digests(&|p| p < border).into_iter().rev().reduce(|later, earlier| joined(earlier, later)),
                digests(&|p| p >= border).into_iter().reduce(joined),
            )
        }
    };
    let mut out = Vec::new();
    text(&mut out, "avouch/input/3");
    text(&mut out, "topic");
    out.extend(4u32.to_le_bytes());
    text(&mut out, device);
    out.extend(start.to_le_bytes());
    out.extend(end.to_le_bytes());
    out.extend((rows.len() as u64).to_le_bytes());
    out.extend(first.unwrap_or(zero));
    out.extend(second.unwrap_or(zero));
    sha(&[&out])
}

#[test]
fn can_be_computed_from_rows_and_definition() {
    // Up to 4 s out of order: some rows are behind the watermark and count in the windows still open.
    let rows: Vec<Row> = (0..240i64)
        .map(|i| Row {
            device: if i % 5 == 0 { "b" } else { "a" },
            ts: 1_700_000_000_000 + i * 700 + (i % 60 / 50) * 9_000 - (i * 7_919 % 4_000),
            x: (i % 7 > 0).then_some(i as f64 / 3.0),
        })
        .collect();
    let texts: Vec<String> = rows.iter().map(Row::json).collect();
    for window in [
        WindowSpec::Tumbling { size_ms: 5_000 },
        WindowSpec::Sliding { size_ms: 12_000, every_ms: 3_000 },
        WindowSpec::Sliding { size_ms: 13_000, every_ms: 3_000 },
        WindowSpec::Session { gap_ms: 1_500, max_ms: 20_000 },
    ] {
        let plan = plan(window);
        let secret = || Secret::new(b"secret");
        let mut lane = Lane::new(plan.clone(), 4, secret());
        let mut out = Output::default();
        let records: Vec<RawRecord<'_>> = texts
            .iter()
            .enumerate()
            .map(|(i, t)| RawRecord {
                offset: 100 + i as i64,
                timestamp: i64::MAX / 2,
                key: None,
                value: Some(t.as_bytes()),
                origin: None,
                signature: None,
            })
            .collect();
        for (i, batch) in records.chunks(17).enumerate() {
            lane.step(batch, &mut out).unwrap();
            if i % 2 == 0 {
                lane = Lane::restore(plan.clone(), 4, secret(), &lane.snapshot()).unwrap();
            }
        }
        assert!(out.verdicts.len() > 20, "{window:?} {}", out.verdicts.len());
        // The watermark before each row.
        let mut highest = i64::MIN;
        let watermarks: Vec<i64> = rows
            .iter()
            .map(|r| {
                let before = highest.saturating_sub(DISORDER);
                highest = highest.max(r.ts);
                before
            })
            .collect();
        let mut behind = 0;
        for v in &out.verdicts {
            let (start, end) = (v.verdict.window_start as i64, v.verdict.window_end as i64);
            let inside: Vec<(i64, &Row)> = rows
                .iter()
                .enumerate()
                .filter(|(i, r)| {
                    let open = match window {
                        WindowSpec::Session { .. } => r.ts >= watermarks[*i],
                        _ => end > watermarks[*i],
                    };
                    r.device == v.evidence.device && (start..end).contains(&r.ts) && open
                })
                .map(|(i, r)| (100 + i as i64, r))
                .collect();
            behind += inside.iter().filter(|(o, r)| r.ts < watermarks[(*o - 100) as usize]).count();
            assert_eq!(v.evidence.rows, inside.len() as u64, "{window:?}");
            assert_eq!(v.evidence.first_offset, inside.iter().map(|r| r.0).min().unwrap());
            assert_eq!(v.evidence.last_offset, inside.iter().map(|r| r.0).max().unwrap());
            assert_eq!(v.verdict.input_digest, digest(window, &v.evidence.device, start, end, &inside), "{window:?}");
        }
        if !matches!(window, WindowSpec::Session { .. }) {
            assert!(behind > 0, "{window:?}: no row was behind the watermark");
        }
    }
}
