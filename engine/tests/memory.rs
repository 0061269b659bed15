//! What devices cost, in counted bytes, for the example pipeline's features: an idle one less than half a KiB, and one that
//! has a row in each of the six panes of its window less than 4 KiB.

#![allow(clippy::unwrap_used, unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use avouch_engine::decode::RawRecord;
use avouch_engine::event::Tick;
use avouch_engine::lane::{Lane, Output};
use avouch_engine::plan::LanePlan;
use avouch_engine::spec::{FieldSpec, FieldType, FormatSpec, LaneSpec, SourceSpec, SqlStepSpec, WindowSpec};
use avouch_engine::verdict::Secret;

/// The system's allocator, counting what is live.
struct Counting;

static LIVE: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call goes to the system's allocator as it came; only sizes are added up.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        LIVE.fetch_add(layout.size(), Relaxed);
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, p: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), Relaxed);
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(p, layout) }
    }
    unsafe fn realloc(&self, p: *mut u8, layout: Layout, new: usize) -> *mut u8 {
        LIVE.fetch_add(new, Relaxed);
        LIVE.fetch_sub(layout.size(), Relaxed);
        // SAFETY: as the caller promises.
        unsafe { System.realloc(p, layout, new) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const DEVICES: usize = 250_000;
const T0: i64 = 1_700_000_040_000;
const DAY: i64 = 86_400_000;

/// The example pipeline up to its features, with row functions before them.
fn plan() -> Arc<LanePlan> {
    let field = |name: &str, ty, required| FieldSpec { name: name.into(), ty, required };
    let step = |name: &str, from: &str, sql: &str, window| SqlStepSpec {
        name: name.into(),
        from: from.into(),
        sql: sql.into(),
        window,
    };
    let spec = LaneSpec {
        pipeline: "pump-health".into(),
        config_hash: [1; 32],
        source: SourceSpec {
            name: "readings".into(),
            topic: "pumps.telemetry".into(),
            fields: vec![
                field("device", FieldType::Utf8, true),
                field("pressure", FieldType::F64, false),
                field("rpm", FieldType::I64, false),
                field("temperature", FieldType::F64, false),
                field("ts", FieldType::TimestampMs, true),
                field("vibration", FieldType::F64, false),
            ],
            format: FormatSpec::Json,
            key: "device".into(),
            keyed: false,
            time: "ts".into(),
            max_disorder_ms: 30_000,
            max_future_ms: 300_000,
            device_ttl_ms: Some(30 * DAY),
            max_record_bytes: 1 << 20,
            signature: None,
        },
        references: Vec::new(),
        sql: vec![
            step(
                "clean",
                "readings",
                "SELECT *, pressure / NULLIF(rpm, 0) AS load, delta(temperature) AS dt, ewma(vibration, '10m') AS calm \
                 FROM readings WHERE temperature BETWEEN -40 AND 200",
                None,
            ),
            step(
                "features",
                "clean",
                "SELECT device, avg(temperature) AS temp_mean, stddev(temperature) AS temp_std, \
                 rms(vibration) AS vib_rms, kurtosis(vibration) AS vib_kurt, crest_factor(vibration) AS vib_crest, \
                 slope(temperature, ts) AS temp_slope, avg(load) AS load_mean FROM clean GROUP BY device",
                Some(WindowSpec::Sliding { size_ms: 60_000, every_ms: 10_000 }),
            ),
        ],
        scores: Vec::new(),
    };
    Arc::new(LanePlan::new(&spec).unwrap())
}

/// One row of each of the first `devices` devices.
fn report(lane: &mut Lane, devices: usize, at: i64, next_offset: &mut i64) {
    let mut text = String::new();
    for from in (0..devices).step_by(4_096) {
        text.clear();
        let mut ends = Vec::new();
        for d in from..(from + 4_096).min(devices) {
            write!(
                text,
                "{{\"device\":\"pump-{d:07}\",\"ts\":{at},\"temperature\":60.5,\"vibration\":0.25,\"pressure\":3.5,\"rpm\":1450}}"
            )
            .unwrap();
            ends.push(text.len());
        }
        let mut start = 0;
        let records: Vec<RawRecord<'_>> = ends
            .iter()
            .map(|&end| {
                let value = &text.as_bytes()[start..end];
                start = end;
                *next_offset += 1;
                RawRecord {
                    offset: *next_offset - 1,
                    timestamp: at,
                    key: None,
                    value: Some(value),
                    origin: None,
                    signature: None,
                }
            })
            .collect();
        let mut out = Output::default();
        lane.step(&records, &mut out).unwrap();
        assert!(out.dead.is_empty());
    }
}

#[test]
fn an_idle_device_costs_less_than_two_kibibytes() {
    let plan = plan();
    let before = LIVE.load(Relaxed);
    let per_device = || (LIVE.load(Relaxed) - before) / DEVICES;
    let mut lane = Lane::new(plan.clone(), 0, Secret::new(b"memory"));
    let mut next = 0;

    report(&mut lane, DEVICES, T0, &mut next);
    let one_pane = per_device();
    // The most that a device has open at once: a row in every pane of its windows.
    for pane in 1..6 {
        report(&mut lane, DEVICES, T0 + pane * 10_000, &mut next);
    }
    let all_panes = per_device();
    // All but one fall silent. Their windows close, and they are remembered.
    for pane in 6..60 {
        report(&mut lane, 1, T0 + pane * 10_000, &mut next);
    }
    let silent = per_device();
    let snapshot = lane.snapshot();
    let stored = snapshot.len() / DEVICES;
    drop(snapshot);
    // They come back, and then the whole partition is idle.
    report(&mut lane, DEVICES, T0 + 600_000, &mut next);
    let again = per_device();
    let tick = Tick { after_offset: next - 1, watermark_ms: T0 + DAY };
    lane.tick(tick, &mut Output::default()).unwrap();
    let idle = per_device();
    // Their time is over.
    let tick = Tick { after_offset: next - 1, watermark_ms: T0 + 40 * DAY };
    let mut out = Output::default();
    lane.tick(tick, &mut out).unwrap();
    assert_eq!((out.events.len() - 1, lane.devices()), (DEVICES, 0));
    drop(out);
    let evicted = per_device();

    println!(
        "bytes a device: {one_pane} with a row in one pane, {all_panes} in all six, {silent} silent, {stored} of it in the \
         snapshot, {again} back, {idle} in an idle partition, {evicted} evicted"
    );
    assert!(all_panes < 4_096, "{all_panes} bytes with a row in every pane");
    assert!(one_pane < 1_024, "{one_pane} bytes with a row in one pane");
    assert!(silent < 512, "{silent} bytes silent");
    assert!(idle < 512, "{idle} bytes in an idle partition");
    // What is left of the evicted is the room that others will take.
    assert!(evicted <= silent + 16, "{evicted} bytes evicted");
    report(&mut lane, DEVICES, T0 + 41 * DAY, &mut next);
    assert!(per_device() <= one_pane + 64, "a new generation takes the room of the old: {}", per_device());
}
