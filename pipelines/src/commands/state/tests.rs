//! What `avouch state` prints, kept as it is read.
#![allow(clippy::unwrap_used)]

use std::path::Path;

use avouch_connectors::store::{Commit, Cursor, LaneStore, StoreOptions, inspect_dir};
use avouch_engine::codec::Writer;
use avouch_engine::dead_letter::{DeadLetter, DeadReason};
use avouch_engine::lane::Snapshot;
use avouch_engine::verdict::LogOrigin;

use super::place::Place;
use super::{Format, ListArgs, ShowArgs, StateError, list, show};

fn snapshot(round: u64) -> Snapshot {
    let mut w = Writer::new();
    w.section("lane", 0);
    w.u64(round);
    w.section("devices", 3_000);
    w.part("names", 3_000);
    for n in 0..3_000 {
        w.str(&format!("pump-{n:05}"));
    }
    w.part("sequences", 3_000);
    for n in 0..3_000 {
        w.u64(round + n);
    }
    w.section("window features", 0);
    for pane in 0..2 {
        w.part(format_args!("pane {}", 1_700_000_000_000_u64 + pane * 10_000), 500);
        w.raw(&vec![round as u8 * u8::from(pane == 1); 120_000]);
    }
    Snapshot { bytes: w.bytes, sections: w.sections }
}

/// Two lanes with checkpoints, without verdicts.
fn a_pipeline(state: &Path) {
    for lane in 0..2 {
        let dir = state.join("pump-health").join(lane.to_string());
        let (mut store, _) =
            LaneStore::open(&dir, &LogOrigin::new("pump-health", lane), StoreOptions::default()).unwrap();
        for round in 0..4 + lane as u64 {
            for n in 0..round {
                store
                    .append_dead(&DeadLetter {
                        reason: DeadReason::Late,
                        detail: String::new(),
                        offset: (round * 10 + n) as i64,
                        row: None,
                        timestamp: 0,
                        key: None,
                        value: None,
                        signature: None,
                    })
                    .unwrap();
            }
            store
                .commit(Commit {
                    next_offset: round as i64 * 123_456,
                    lane_state: snapshot(round),
                    config_hash: [0xab; 32],
                    topic: "pumps.telemetry",
                    partition: lane,
                    watermark: (round > 0).then(|| 1_700_000_000_000 + round as i64 * 1_500),
                    counters: &[("rows_in".into(), round * 123_456), ("rows_used".into(), round * 123_400)],
                })
                .unwrap();
        }
        Cursor::open(&dir, "archive").unwrap().set(77).unwrap();
    }
}

/// Takes out what differs from run to run.
fn steady(text: &str, dir: &Path) -> String {
    let mut out = text.replace(&dir.display().to_string(), "STATE");
    let made = made_at(&out);
    for made in made {
        out = out.replace(&made, "2026-11-22T00:00:00Z");
    }
    out
}

/// The times of making: all dates but those of the watermark and panes, which are of 2023.
fn made_at(text: &str) -> Vec<String> {
    let words = text.split(|c: char| c.is_whitespace() || c == '"');
    words.filter(|w| w.len() == 20 && w.ends_with('Z') && !w.starts_with("2023")).map(str::to_owned).collect()
}

fn list_of(place: &Path, format: Format) -> (String, bool) {
    list(&ListArgs { place: place.display().to_string(), verify: false, format }).unwrap()
}

fn show_of(place: &Path, lane: i32, checkpoint: Option<u64>) -> Result<(String, bool), StateError> {
    let place = place.display().to_string();
    show(&ShowArgs { place, lane, checkpoint, verify: false, format: Format::Text })
}

#[test]
fn what_is_listed() {
    let dir = tempfile::tempdir().unwrap();
    a_pipeline(dir.path());
    let (whole, good) = list_of(dir.path(), Format::Text);
    assert!(good);
    // The same lanes, whichever directory is named.
    let pipeline = dir.path().join("pump-health");
    assert_eq!(list_of(&pipeline, Format::Text).0, whole);
    assert!(whole.starts_with(list_of(&pipeline.join("0"), Format::Text).0.trim_end()));

    // A file is lost, a checkpoint altered.
    let newest = inspect_dir(&pipeline.join("1")).unwrap().remove(0);
    std::fs::remove_file(pipeline.join("1").join(&newest.contents.unwrap().packs[0].0)).unwrap();
    let path = pipeline.join("0/checkpoint-00000000000000000002");
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[100] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let (hurt, good) = list_of(dir.path(), Format::Text);
    assert!(!good);
    insta::assert_snapshot!(steady(&format!("{whole}\n--- damaged ---\n\n{hurt}"), dir.path()));

    let json: serde_json::Value = serde_json::from_str(&list_of(dir.path(), Format::Json).0).unwrap();
    let first = &json["lanes"][0]["checkpoints"];
    assert_eq!((&first[0]["checkpoint"], &first[0]["usable"]), (&4.into(), &true.into()));
    assert_eq!((&first[2]["checkpoint"], &first[2]["usable"]), (&serde_json::Value::Null, &false.into()));
    assert_eq!(first[0]["next_offset"], 3 * 123_456);
}

#[test]
fn what_is_inside() {
    let dir = tempfile::tempdir().unwrap();
    a_pipeline(dir.path());
    let newest = show_of(dir.path(), 1, None).unwrap();
    assert!(newest.1);
    let third = show_of(dir.path(), 1, Some(3)).unwrap().0;
    assert!(third.contains("checkpoint 3 in"), "{third}");
    insta::assert_snapshot!(steady(&newest.0, dir.path()));
    let args = ShowArgs {
        place: dir.path().display().to_string(),
        lane: 1,
        checkpoint: None,
        verify: false,
        format: Format::Json,
    };
    let json: serde_json::Value = serde_json::from_str(&show(&args).unwrap().0).unwrap();
    assert_eq!(json["sections"][2]["name"], "devices/names");
    assert_eq!(json["sections"][2]["items"], 3000);
    assert_eq!(json["cursors"]["archive"], 77);
    assert_eq!(json["counters"]["rows_in"], 4 * 123_456);
    assert_eq!(json["watermark_ms"], 1_700_000_006_000_i64);
}

#[test]
fn what_cannot_be_shown_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let empty = tempfile::tempdir().unwrap();
    a_pipeline(dir.path());
    let mut said = Vec::new();
    for (place, lane, checkpoint) in
        [(dir.path(), 7, None), (dir.path(), 0, Some(99)), (empty.path(), 0, None), (Path::new("no/such"), 0, None)]
    {
        said.push(show_of(place, lane, checkpoint).unwrap_err().to_string());
    }
    for place in ["gs://bucket/x", "s3-no-url"] {
        said.push(Place::find(place).unwrap_err().to_string());
    }
    let text = said.join("\n").replace(&dir.path().display().to_string(), "STATE");
    insta::assert_snapshot!(text.replace(&empty.path().display().to_string(), "EMPTY"));
}
