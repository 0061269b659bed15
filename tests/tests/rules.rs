//! Alert rules and documentation name metrics that exist, and every alert is tested and tells what to do.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use avouch::runtime::metrics::{DECLARATIONS, Kind};
use avouch_system_tests::place;

/// All names that series of ours can have.
fn declared() -> BTreeSet<String> {
    let names = |declaration: &avouch::runtime::metrics::Declaration| match declaration.kind {
        Kind::Histogram => {
            ["", "_bucket", "_sum", "_count"].map(|suffix| format!("{}{suffix}", declaration.name)).to_vec()
        }
        Kind::Counter | Kind::Gauge => vec![declaration.name.to_owned()],
    };
    DECLARATIONS.iter().flat_map(names).collect()
}

/// The words of a text that begin like a metric of one of our parts. (`avouch_engine` is a crate.)
fn metrics_in(text: &str) -> BTreeSet<String> {
    let parts: BTreeSet<&str> =
        DECLARATIONS.iter().map(|declaration| declaration.name.split('_').nth(1).unwrap()).collect();
    text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
        .filter(|word| {
            word.strip_prefix("avouch_")
                .and_then(|rest| rest.split_once('_'))
                .is_some_and(|(part, rest)| parts.contains(part) && !rest.is_empty())
        })
        .map(str::to_owned)
        .collect()
}

fn rules(name: &str) -> String {
    std::fs::read_to_string(place::workspace().join("tests/prometheus").join(name)).unwrap()
}

/// The documents of the clone, and what goes with them: Markdown, dashboards, rules.
fn documents(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() {
            // Neither what is fetched, nor what is built.
            if !name.starts_with('.') && !["target", "node_modules", "lib", "out", "cache"].contains(&name.as_str()) {
                documents(&path, found);
            }
        } else if ["md", "yml", "yaml"].iter().any(|kind| path.extension().is_some_and(|found| found == *kind))
            || name.contains("dashboard")
        {
            found.push(path);
        }
    }
}

#[test]
fn every_metric_named_anywhere_is_declared() {
    let declared = declared();
    let mut paths = Vec::new();
    documents(&place::workspace(), &mut paths);
    assert!(paths.iter().any(|path| path.ends_with("rules.yml")));
    for path in paths {
        let text = String::from_utf8_lossy(&std::fs::read(&path).unwrap()).into_owned();
        let unknown: Vec<_> = metrics_in(&text).into_iter().filter(|name| !declared.contains(name)).collect();
        assert!(unknown.is_empty(), "{} names {unknown:?}, which no part of Avouch shows", path.display());
    }
    assert!(metrics_in(&rules("rules.yml")).len() >= 10);
}

#[test]
fn every_alert_has_a_runbook_line_and_a_test_in_which_it_fires() {
    let (rules, tests) = (rules("rules.yml"), rules("rules_test.yml"));
    let alerts: Vec<&str> = rules.split("- alert: ").skip(1).collect();
    assert!(alerts.len() >= 7);
    for alert in alerts {
        let name = alert.lines().next().unwrap();
        assert!(alert.contains("\n          runbook: \""), "{name} has no runbook line");
        assert!(alert.contains("\n          summary: \""), "{name} has no summary");
        let fires = tests.contains(&format!("alertname: {name}\n        exp_alerts:"));
        assert!(fires, "no test has {name} firing");
        assert!(tests.contains(&format!("alertname: {name} }}")), "no test has {name} silent");
    }
}
