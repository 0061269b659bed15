//! `avouch retrain`: a candidate and what would change, beside a model that stays as it is.

use std::path::Path;
use std::sync::Arc;

use avouch::lang::{Pipeline, load_models, plan};
use avouch_connectors::store::{Commit, LaneStore, StoreOptions};
use avouch_engine::decode::parse_timestamp;
use avouch_engine::event::BEFORE_ALL;
use avouch_engine::label::{Label, Opinion};
use avouch_engine::lane::{Lane, Output};
use avouch_engine::verdict::{LogOrigin, Secret};
use serde_json::Value;
use tempfile::TempDir;

use super::fleet::place;
use super::{avouch, done, json, read, refused};

/// A directory with the trained pipeline, its training rows, and the same fleet two days later with every thermometer eight
/// degrees higher.
fn warmer() -> TempDir {
    let tmp = tempfile::tempdir().unwrap();
    for name in ["pumps.toml", "pump.model", "healthy.ndjson"] {
        std::fs::copy(place().join(name), tmp.path().join(name)).unwrap();
    }
    let simulate =
        "simulate pumps --devices 10 --seed 3 --healthy --start 2026-01-08T07:00:00Z --duration 3h --out later.ndjson";
    done(tmp.path(), &simulate.split(' ').collect::<Vec<_>>());
    let warmer: Vec<String> = read(tmp.path(), "later.ndjson")
        .lines()
        .map(|line| {
            let mut row = json(line);
            row["temperature"] = (row["temperature"].as_f64().unwrap() + 8.0).into();
            row.to_string()
        })
        .collect();
    std::fs::write(tmp.path().join("warmer.ndjson"), warmer.join("\n")).unwrap();
    tmp
}

fn retrain(dir: &Path, more: &str) -> Value {
    let args = format!("retrain pumps.toml anomaly --data warmer.ndjson --created 2026-01-09T00:00:00Z --json{more}");
    json(&done(dir, &args.split(' ').collect::<Vec<_>>()))
}

fn feature<'a>(report: &'a Value, name: &str) -> &'a Value {
    report["features"].as_array().unwrap().iter().find(|f| f["feature"] == name).unwrap()
}

#[test]
fn a_shift_is_shown_a_candidate_is_proposed_and_nothing_is_activated() {
    let tmp = warmer();
    let dir = tmp.path();
    let before = std::fs::read(dir.join("pump.model")).unwrap();
    let pipeline = read(dir, "pumps.toml");
    let report = retrain(dir, "");

    // What runs is untouched.
    assert_eq!(std::fs::read(dir.join("pump.model")).unwrap(), before);
    assert_eq!(read(dir, "pumps.toml"), pipeline);
    let candidate = std::fs::read(dir.join("pump.model.candidate")).unwrap();
    assert_ne!(candidate, before);
    let opened = avouch_models::file::open(&candidate).unwrap();
    assert_eq!(report["candidate"]["sha256"], avouch::lang::hex(&opened.hash));
    assert_eq!(report["candidate"]["card"]["training"]["data"], "warmer.ndjson");
    assert_eq!(report["candidate"]["card"]["algorithm"], report["running"]["card"]["algorithm"]);

    // Eight degrees are another population, everything else is as it was.
    let psi = |name: &str| feature(&report, name)["psi"].as_f64().unwrap();
    assert!(psi("temp_mean") > 0.25, "{}", psi("temp_mean"));
    assert!(psi("vib_crest") < 0.1 && psi("temp_mean") > 5.0 * psi("vib_rms"), "{report}");
    assert!(report["older_rows"].as_str().unwrap().contains("read again"), "{}", report["older_rows"]);

    // The model that runs calls the warmth, the candidate does not; and the warmth is what they differ in.
    let alarms = |of: &str| report["verdicts"][of]["share_of_alarms"].as_f64().unwrap();
    assert!(alarms("running") > 0.5, "{}", alarms("running"));
    assert!(alarms("candidate") < 0.1, "{}", alarms("candidate"));
    let windows = |of: &str| -> u64 {
        let counts = |s: &str| report["verdicts"][of][s].as_u64().unwrap();
        // Training leaves out windows without a score: those at the end with a single reading.
        counts("normal") + counts("warning") + counts("critical") - counts("not_a_number")
    };
    let held_back = report["candidate"]["card"]["training"]["rows_held_back"].as_u64().unwrap();
    assert_eq!((windows("running"), windows("candidate")), (held_back, held_back));
    let lines: Vec<Value> = read(dir, "pump.model.candidate.differences.ndjson").lines().map(json).collect();
    let why: u64 = report["comparison"]["why"].as_object().unwrap().values().map(|n| n.as_u64().unwrap()).sum();
    assert_eq!(lines.len() as u64, why);
    let by_warmth = lines.iter().filter(|d| d["features"][0]["name"] == "temp_mean").count();
    assert!(2 * by_warmth > lines.len(), "{by_warmth} of {}", lines.len());

    // The same, for people; and what is printed is what is written.
    assert_eq!(json(&read(dir, "pump.model.candidate.report.json")), report);
    let text = read(dir, "pump.model.candidate.report.md");
    for needle in
        ["another population", "Nothing has been activated", "`temp_mean`", "cp pump.model.candidate pump.model"]
    {
        assert!(text.contains(needle), "{needle} is not in\n{text}");
    }
    assert!(text.contains(report["candidate"]["sha256"].as_str().unwrap()));

    // Again: the same bytes, elsewhere if so wanted.
    let again = retrain(dir, " --out proposals");
    assert_eq!(again["comparison"], report["comparison"]);
    assert_eq!(std::fs::read(dir.join("proposals/pump.model.candidate")).unwrap(), candidate);
}

#[test]
fn once_it_is_activated_there_is_nothing_left_to_differ_in() {
    let tmp = warmer();
    let dir = tmp.path();
    let first = retrain(dir, "");
    // As the report says.
    std::fs::copy(dir.join("pump.model.candidate"), dir.join("pump.model")).unwrap();
    let pin = format!(
        "model    = {{ file = \"pump.model\", sha256 = \"{}\" }}",
        first["candidate"]["sha256"].as_str().unwrap()
    );
    let pinned = read(dir, "pumps.toml").replace("model    = { file = \"pump.model\" }", &pin);
    assert!(pinned.contains("sha256"));
    std::fs::write(dir.join("pumps.toml"), pinned).unwrap();
    done(dir, &["check", "pumps.toml"]);

    // The card names the pipeline, which has another hash now: another file, the same verdicts.
    let second = retrain(dir, "");
    assert_ne!(second["candidate"]["sha256"], second["running"]["sha256"]);
    let c = &second["comparison"];
    assert!(c["why"].as_object().unwrap().values().all(|n| n == 0), "{c}");
    assert_eq!(c["same_severity_other_score"], 0);
    assert!(second["older_rows"].as_str().unwrap().contains("not what the model that runs was trained on"));
    assert!(second["activate"].to_string().contains("Replace the pinned hash"));
}

#[test]
fn what_cannot_be_done_is_said_and_leaves_nothing_behind() {
    let tmp = tempfile::tempdir().unwrap();
    let dir = tmp.path();
    for name in ["pumps.toml", "healthy.ndjson"] {
        std::fs::copy(place().join(name), dir.join(name)).unwrap();
    }
    let say = |more: &[&str]| refused(dir, &[&["retrain", "pumps.toml", "--data", "healthy.ndjson"], more].concat());
    assert!(say(&[]).contains("make the first with `avouch train`"));
    std::fs::copy(place().join("pump.model"), dir.join("pump.model")).unwrap();
    assert!(say(&["--since", "yesterday"]).contains("--since `yesterday` is not a time"));
    let since = say(&["--since", "2027-01-01T00:00:00Z"]);
    assert!(since.contains("training rows"), "{since}");
    let name = refused(dir, &["retrain", "pumps.toml", "anomly", "--data", "healthy.ndjson"]);
    assert!(name.contains("there is no [train.anomly]"), "{name}");
    let files = refused(dir, &["retrain", "pumps.toml", "--data", "nothing-*.ndjson"]);
    assert!(files.contains("nothing-*.ndjson"), "{files}");
    assert!(!dir.join("pump.model.candidate").exists());
    assert_eq!(avouch(dir, &["retrain", "pumps.toml"]).status.code(), Some(2), "--data is required");
}

#[test]
fn only_windows_since_a_time_are_trained_on() {
    let tmp = warmer();
    let report = retrain(tmp.path(), " --since 2026-01-08T09:00:00Z");
    let training = &report["candidate"]["card"]["training"];
    assert!(training["first_window_end"].as_i64().unwrap() > 1_767_862_800_000, "{training}");
    assert!(report["held_back"]["first"].as_str().unwrap() > "2026-01-08 09:00:00", "{}", report["held_back"]);
}

/// Puts what people said into the log of the pipeline's lane 0, as a lane that ran would.
fn say(dir: &Path, labels: &[(&str, &str, &str, Opinion)]) {
    let pipeline = Pipeline::load(dir.join("pumps.toml")).unwrap();
    let (models, _) = load_models(&pipeline).unwrap();
    let plan = Arc::new(plan(&pipeline, &models).unwrap());
    let mut lane = Lane::new(plan.clone(), 0, Secret::new(b"test"));
    let mut out = Output::default();
    for (device, from, to, opinion) in labels {
        let time = |text: &str| parse_timestamp(text.as_bytes()).unwrap() as u64;
        let label = Label {
            device: (*device).to_owned(),
            verdict: None,
            step: String::new(),
            from: time(from),
            to: time(to),
            opinion: *opinion,
            reason: None,
            by: [1; 32],
            at: 0,
        };
        lane.label(BEFORE_ALL, label, &mut out).unwrap();
    }
    let state = dir.join("state/pumps/0");
    let (mut store, _) = LaneStore::open(&state, &LogOrigin::new("pumps", 0), StoreOptions::default()).unwrap();
    store.append_all(&out.verdicts).unwrap();
    out.events.iter().for_each(|e| store.append_event(e).unwrap());
    store
        .commit(Commit {
            next_offset: 0,
            lane_state: lane.snapshot(),
            config_hash: plan.config_hash,
            topic: "pumps",
            partition: 0,
            watermark: None,
            counters: &[],
        })
        .unwrap();
}

#[test]
fn what_people_said_decides_what_is_trained_on_and_what_both_are_held_against() {
    let tmp = warmer();
    let dir = tmp.path();
    let since = " --since 2026-01-08T08:00:00Z";
    let without = retrain(dir, since);
    assert!(without.get("labels").is_none(), "nobody has said anything");
    let rows = |report: &Value| report["candidate"]["card"]["training"]["rows"].as_u64().unwrap();
    let held = |report: &Value| report["candidate"]["card"]["training"]["rows_held_back"].as_u64().unwrap();

    let at = |time: &str| format!("2026-01-08T{time}:00Z");
    say(
        dir,
        &[
            // Within the windows that are held back, and called by the model that runs: everything is warmer.
            ("pump-002", &at("09:30"), &at("09:40"), Opinion::Missed),
            ("pump-003", &at("09:30"), &at("09:40"), Opinion::Healthy),
            // Before --since, so that it would not be trained on.
            ("pump-004", &at("07:10"), &at("07:20"), Opinion::Healthy),
            // Taken back by another one.
            ("pump-005", &at("09:30"), &at("09:40"), Opinion::Missed),
            ("pump-005", &at("09:00"), &at("09:50"), Opinion::FalseAlarm),
            // Of a time that is not in the data.
            ("pump-006", "2026-01-01T00:00:00Z", "2026-01-01T01:00:00Z", Opinion::TrueAlarm),
        ],
    );
    let with = retrain(dir, since);
    let labels = &with["labels"];
    let count = |name: &str| labels[name].as_u64().unwrap();
    let kinds = ["true_alarm", "false_alarm", "missed", "healthy"].map(count);
    assert_eq!((count("of_the_step"), kinds), (6, [1, 1, 2, 2]));
    // Windows of a minute every 20 s: those that touch ten minutes.
    assert_eq!((count("left_out"), count("taken_in")), (32, 32));
    // Windows at a device's end with a single reading have no score and are in neither.
    assert_eq!(rows(&with), rows(&without) - 32 + 32);
    assert!(held(&with) <= held(&without));
    let data = with["candidate"]["card"]["training"]["data"].as_str().unwrap();
    assert_eq!(data, "warmer.ndjson; by labels in the logs 32 windows left out and 32 taken in");

    let known = |model: &str, name: &str| labels[model][name].as_u64().unwrap();
    for model in ["running", "candidate"] {
        assert_eq!(known(model, "faults"), 1, "{labels}");
        assert!(known(model, "healthy_windows") >= 32, "{labels}");
    }
    assert_eq!(known("running", "faults_called"), 1, "{labels}");
    assert!(known("running", "healthy_called") > known("candidate", "healthy_called"), "{labels}");
    // Faults are not in the comparison of healthy windows.
    let judged = |report: &Value| {
        let count = |s: &str| report["verdicts"]["running"][s].as_u64().unwrap();
        count("normal") + count("warning") + count("critical") - count("not_a_number")
    };
    assert_eq!(judged(&with), held(&with));

    let text = read(dir, "pump.model.candidate.report.md");
    let section = &text[text.find("## What people said").unwrap()..text.find("## Verdicts").unwrap()];
    for needle in
        ["6 labels of the step", "32 windows that were said to be faults were not trained on", "1 of 1", "2 missed"]
    {
        assert!(section.contains(needle), "{needle} is not in\n{section}");
    }
    let candidate = std::fs::read(dir.join("pump.model.candidate")).unwrap();
    assert_eq!(retrain(dir, &format!("{since} --out again"))["labels"], with["labels"]);
    assert_eq!(std::fs::read(dir.join("again/pump.model.candidate")).unwrap(), candidate);
}

#[test]
fn what_was_said_of_windows_behind_the_first_rows_is_trained_on_too() {
    let tmp = warmer();
    let dir = tmp.path();
    let text = read(dir, "pumps.toml");
    let first = "data      = { files = \"healthy.ndjson\", first = 3600 }";
    std::fs::write(dir.join("pumps.toml"), text.replace("data      = \"healthy.ndjson\"", first)).unwrap();
    assert!(read(dir, "pumps.toml").contains(first));
    let without = retrain(dir, "");
    say(
        dir,
        &[
            ("pump-001", "2026-01-08T09:30:00Z", "2026-01-08T09:40:00Z", Opinion::Healthy),
            ("pump-002", "2026-01-08T09:30:00Z", "2026-01-08T09:40:00Z", Opinion::Missed),
        ],
    );
    let with = retrain(dir, "");
    let rows = |report: &Value| report["candidate"]["card"]["training"]["rows"].as_u64().unwrap();
    assert_eq!(with["labels"]["taken_in"], 32);
    assert_eq!(with["labels"]["left_out"], 0, "the fault is where nothing was trained on");
    assert_eq!(rows(&with), rows(&without) + 32);
    assert_eq!(with["labels"]["running"]["faults"], 1, "{}", with["labels"]);
}
