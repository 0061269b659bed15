//! What windows cost, on one core: `cargo run --release -p avouch-engine --example window_rate`.
//!
//! 200 devices report once a second for two hours. Each line is one pipeline over the same rows: a window, how many windows
//! fired, merges a window, and nanoseconds a row for decoding and windows together. Between the sliding windows of one
//! minute and of one hour, only the length differs.

use std::error::Error;
use std::sync::Arc;
use std::time::Instant;

use avouch_engine::decode::RawRecord;
use avouch_engine::lane::Lane;
use avouch_engine::plan::LanePlan;
use avouch_engine::spec::{FieldSpec, FieldType, FormatSpec, LaneSpec, SourceSpec, SqlStepSpec, WindowSpec};
use avouch_engine::verdict::Secret;

const DEVICES: i64 = 200;
const SECONDS: i64 = 7_200;

fn plan(window: WindowSpec, aggregates: &str) -> Result<Arc<LanePlan>, Box<dyn Error>> {
    let field = |name: &str, ty, required| FieldSpec { name: name.into(), ty, required };
    let spec = LaneSpec {
        pipeline: "rate".into(),
        config_hash: [0; 32],
        source: SourceSpec {
            name: "readings".into(),
            topic: "t".into(),
            format: FormatSpec::Json,
            fields: vec![
                field("device", FieldType::Utf8, true),
                field("ts", FieldType::TimestampMs, true),
                field("a", FieldType::F64, false),
                field("b", FieldType::F64, false),
            ],
            key: "device".into(),
            keyed: false,
            time: "ts".into(),
            max_disorder_ms: 2_000,
            max_future_ms: 0,
            device_ttl_ms: None,
            max_record_bytes: 1_000,
            signature: None,
        },
        references: Vec::new(),
        sql: vec![SqlStepSpec {
            name: "features".into(),
            from: "readings".into(),
            sql: format!("SELECT device, {aggregates} FROM readings GROUP BY device"),
            window: Some(window),
        }],
        scores: Vec::new(),
    };
    LanePlan::new(&spec).map(Arc::new).map_err(|e| format!("{e:?}").into())
}

fn main() -> Result<(), Box<dyn Error>> {
    let rows: Vec<String> = (0..DEVICES * SECONDS)
        .map(|i| {
            let (second, device) = (i / DEVICES, i % DEVICES);
            let a = ((i * 7_919) % 1_000) as f64 / 10.0;
            let b = ((i * 104_729) % 997) as f64;
            let ts = 1_700_000_000_000 + second * 1_000 + device;
            format!("{{\"device\":\"d{device:03}\",\"ts\":{ts},\"a\":{a},\"b\":{b}}}")
        })
        .collect();
    let records: Vec<RawRecord<'_>> = rows
        .iter()
        .enumerate()
        .map(|(i, r)| RawRecord {
            offset: i as i64,
            timestamp: i64::MAX / 2,
            key: None,
            value: Some(r.as_bytes()),
            origin: None,
            signature: None,
        })
        .collect();
    let sliding =
        |size_s: i64, every_s: i64| WindowSpec::Sliding { size_ms: size_s * 1_000, every_ms: every_s * 1_000 };
    let plain = "avg(a) AS m, stddev(a) AS s, max(b) AS h";
    for (name, window, aggregates) in [
        ("tumbling 10s", WindowSpec::Tumbling { size_ms: 10_000 }, plain),
        ("sliding 1m every 10s", sliding(60, 10), plain),
        ("sliding 1h every 10s", sliding(3_600, 10), plain),
        ("sliding 1h every 7s", sliding(3_600, 7), plain),
        ("session gap 30s, max 5m", WindowSpec::Session { gap_ms: 30_000, max_ms: 300_000 }, plain),
        ("tumbling 10s, corr", WindowSpec::Tumbling { size_ms: 10_000 }, "corr(a, b) AS c"),
        ("tumbling 10s, median", WindowSpec::Tumbling { size_ms: 10_000 }, "median(a) AS m"),
        ("sliding 1m every 10s, median", sliding(60, 10), "median(a) AS m"),
        ("tumbling 1m, band_energy", WindowSpec::Tumbling { size_ms: 60_000 }, "band_energy(a, ts, 0.1, 0.4) AS e"),
    ] {
        let mut best = f64::INFINITY;
        let (mut windows, mut merges) = (0, 0);
        for _ in 0..3 {
            let mut lane = Lane::new(plan(window, aggregates)?, 0, Secret::new(b"rate"));
            windows = 0;
            let begin = Instant::now();
            for batch in records.chunks(4_096) {
                let fired = lane.step_features(batch, 0, &mut Vec::new())?;
                windows += fired.iter().map(|f| f.devices.len()).sum::<usize>();
            }
            best = best.min(begin.elapsed().as_secs_f64());
            merges = lane.window_merges();
        }
        let each = merges as f64 / windows as f64;
        let ns = best * 1e9 / records.len() as f64;
        println!("{name:30} {windows:8} windows  {each:5.2} merges a window  {ns:6.0} ns a row");
    }
    Ok(())
}
