//! `avouch retrain`: a candidate and what would change, beside a model that stays as it is.

use std::path::Path;

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
