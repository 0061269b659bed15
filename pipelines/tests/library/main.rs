//! Every ready pipeline is checked, trained by its README's recipe on simulated readings, and passes its own tests.
#![allow(clippy::unwrap_used, missing_docs)]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// A ready pipeline: its directory, what simulates it, how long it is trained on, and the environment's names of
/// training files and model.
const READY: [(&str, &str, &str, &str, &str); 3] = [
    ("server-metrics", "servers", "21d", "SERVER_TRAINING", "SERVER_MODEL"),
    ("cold-chain", "cold-chain", "7d", "COLD_CHAIN_TRAINING", "COLD_CHAIN_MODEL"),
    ("battery-fleet", "batteries", "2d", "BATTERY_TRAINING", "BATTERY_MODEL"),
];

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn directory(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

#[test]
fn each_is_trained_by_its_recipe_and_passes_its_tests() {
    for (name, kind, long, training, model) in READY {
        let scratch = tempfile::tempdir().unwrap();
        let file = directory(name).join("pipeline.toml");
        let rows = scratch.path().join("healthy.ndjson");
        let avouch = |words: &[&str]| {
            let mut command = Command::new(env!("CARGO_BIN_EXE_avouch"));
            command.args(words).env(training, &rows).env(model, scratch.path().join("a.model"));
            let output = command.output().unwrap();
            assert!(output.status.success(), "{name}: avouch {}\n{}", words.join(" "), said(&output));
            said(&output)
        };
        let (rows, file) = (rows.to_str().unwrap(), file.to_str().unwrap());
        let start = "2026-01-01T00:00:00Z";
        avouch(&["simulate", kind, "--healthy", "--start", start, "--duration", long, "--out", rows]);
        avouch(&["train", file]);
        let checked = avouch(&["check", file]);
        assert!(checked.contains("no mistake found") && !checked.contains("warning"), "{checked}");
        println!("{}", avouch(&["test", file]));
    }
}

/// The commands that the test above runs are those that the README tells a newcomer to run.
#[test]
fn the_readme_says_the_same() {
    for (name, kind, long, ..) in READY {
        let readme = std::fs::read_to_string(directory(name).join("README.md")).unwrap();
        let simulate = format!(
            "avouch simulate {kind} --healthy --start 2026-01-01T00:00:00Z --duration {long} --out training/healthy.ndjson"
        );
        for command in [simulate.as_str(), "avouch train pipeline.toml", "avouch test pipeline.toml"] {
            assert!(readme.contains(command), "{name}/README.md: {command}");
        }
    }
}

/// Fixtures are what the simulator makes today, by the command that stands in the README.
#[test]
fn fixtures_are_what_their_readme_makes() {
    for (name, ..) in READY {
        let readme = std::fs::read_to_string(directory(name).join("README.md")).unwrap().replace("\\\n", " ");
        let line = readme.lines().find(|l| l.contains("--labels")).unwrap();
        let scratch = tempfile::tempdir().unwrap();
        std::fs::create_dir(scratch.path().join("fixtures")).unwrap();
        let mut words = line.split_whitespace();
        assert_eq!(words.next(), Some("avouch"), "{line}");
        let output =
            Command::new(env!("CARGO_BIN_EXE_avouch")).args(words).current_dir(scratch.path()).output().unwrap();
        assert!(output.status.success(), "{}", said(&output));
        let mut files = 0;
        for entry in std::fs::read_dir(scratch.path().join("fixtures")).unwrap() {
            let made = entry.unwrap();
            let kept = directory(name).join("fixtures").join(made.file_name());
            assert!(std::fs::read(made.path()).unwrap() == std::fs::read(&kept).unwrap(), "{}", kept.display());
            files += 1;
        }
        assert_eq!(files, 2, "{name}");
    }
}
