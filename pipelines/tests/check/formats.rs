//! `avouch check` of several files, as text, JSON and SARIF.

use std::path::PathBuf;

use avouch::commands::check::{CheckArgs, OutputFormat, report};
use serde_json::Value;

fn of(format: OutputFormat, json: bool) -> (bool, String, String) {
    let files = ["broken", "warned", "absent"].map(|n| PathBuf::from(format!("tests/check/formats/{n}.toml")));
    report(&CheckArgs { files: files.to_vec(), format, json, ..CheckArgs::default() })
}

/// What a format says is what it said; UPDATE=1 writes it anew.
fn snapshot(name: &str, shown: &str) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/check/formats").join(name);
    let shown = shown.replace(env!("CARGO_PKG_VERSION"), "VERSION");
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&path, &shown).unwrap();
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(expected == shown, "{name} now says\n{shown}");
}

#[test]
fn text() {
    let (ok, out, err) = of(OutputFormat::Text, false);
    assert!(!ok);
    snapshot("check.out", &out);
    snapshot("check.err", &err);
}

#[test]
fn json_is_one_object_a_file_and_line() {
    let (ok, out, err) = of(OutputFormat::Json, false);
    assert!(!ok && err.is_empty());
    let read: Vec<Value> = out.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    assert_eq!(read.iter().map(|r| r["ok"].as_bool().unwrap()).collect::<Vec<_>>(), [false, true, false]);
    assert_eq!(of(OutputFormat::Text, true).1, out, "--json is --format json");
    snapshot("check.jsonl", &out);
}

#[test]
fn sarif_has_what_its_schema_requires() {
    let (ok, out, err) = of(OutputFormat::Sarif, false);
    assert!(!ok && err.is_empty());
    let log: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(log["version"], "2.1.0");
    let runs = log["runs"].as_array().unwrap();
    assert_eq!(runs.len(), 1);
    let rules = runs[0]["tool"]["driver"]["rules"].as_array().unwrap();
    assert!(runs[0]["tool"]["driver"]["name"].is_string());
    let results = runs[0]["results"].as_array().unwrap();
    assert!(results.len() > 5, "{out}");
    let mut places = 0;
    for r in results {
        assert_eq!(rules[r["ruleIndex"].as_u64().unwrap() as usize]["id"], r["ruleId"]);
        assert!(["error", "warning"].contains(&r["level"].as_str().unwrap()));
        assert!(r["message"]["text"].as_str().unwrap().contains("Help: "));
        let location = &r["locations"][0]["physicalLocation"];
        assert!(location["artifactLocation"]["uri"].as_str().unwrap().ends_with(".toml"));
        let region = &location["region"];
        if region.is_object() {
            places += 1;
            let n = |k: &str| region[k].as_u64().unwrap();
            assert!(n("startLine") >= 1 && n("startColumn") >= 1, "{region}");
            assert!((n("endLine"), n("endColumn")) >= (n("startLine"), n("startColumn")), "{region}");
        }
    }
    // All but the file that is not there.
    assert_eq!(places, results.len() - 1);
    snapshot("check.sarif", &out);
}

/// Whatever is away is said in one run, each at the key concerned. What the other side's libraries say of it differs from
/// machine to machine, so places, codes and advice are held, not their words.
#[test]
fn everything_that_is_away_is_said_at_once() {
    let files = vec![PathBuf::from("tests/check/formats/away.toml")];
    let (ok, out, err) = report(&CheckArgs { files, connect: true, ..CheckArgs::default() });
    assert!(!ok && out.is_empty(), "{out}");
    let mut shown = String::new();
    for line in err.lines() {
        if let Some((place, message)) = line.split_once("]: ") {
            assert!(message.len() > 10, "{line}");
            shown.push_str(&format!("{place}]\n"));
        } else {
            shown.push_str(&format!("{line}\n"));
        }
    }
    snapshot("away.err", &shown);
}
