//! What the README of each ready pipeline tells a newcomer to type is typed, in a copy of its directory as a fresh clone has
//! it: readings are simulated, a model is trained, its tests pass. And its fixtures are what the README says made them.
#![allow(clippy::unwrap_used, missing_docs)]

mod readme;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use readme::Commands;

fn directory(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

/// The files in a directory and below, by their path in it; none where it is not there.
fn files(root: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut open = vec![root.to_path_buf()];
    while let Some(dir) = open.pop() {
        for entry in std::fs::read_dir(dir).into_iter().flatten() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else {
                found.insert(path.strip_prefix(root).unwrap().to_path_buf(), std::fs::read(&path).unwrap());
            }
        }
    }
    found
}

/// A pipeline's files as a fresh clone has them, without models and readings that a developer made there.
fn cloned(name: &str) -> BTreeMap<PathBuf, Vec<u8>> {
    let root = directory(name);
    let mut all: BTreeMap<PathBuf, Vec<u8>> = ["README.md", "pipeline.toml"]
        .map(|file| (PathBuf::from(file), std::fs::read(root.join(file)).unwrap()))
        .into();
    for below in ["fixtures", "golden"] {
        all.extend(files(&root.join(below)).into_iter().map(|(path, bytes)| (Path::new(below).join(path), bytes)));
    }
    all
}

/// Types commands in a directory, with the program's own directory first in the path. What they say.
fn type_in(place: &Path, commands: &str) -> String {
    let program = Path::new(env!("CARGO_BIN_EXE_avouch")).parent().unwrap();
    let path = format!("{}:{}", program.display(), std::env::var("PATH").unwrap_or_default());
    let mut shell = Command::new("sh");
    // The environment of whoever runs this may name models and data of their own.
    for (name, _) in std::env::vars().filter(|(n, _)| ["_MODEL", "_TRAINING", "_ROWS"].iter().any(|e| n.ends_with(e))) {
        shell.env_remove(name);
    }
    let output = shell.args(["-euc", commands]).env("PATH", path).current_dir(place).output().unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{commands}\n{said}");
    said
}

fn try_it(name: &str) {
    let Commands { tried, .. } = readme::commands(&directory(name).join("README.md"));
    let place = tempfile::tempdir().unwrap();
    for (inside, bytes) in cloned(name) {
        let path = place.path().join(inside);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }
    assert!(tried.contains("avouch test pipeline.toml"), "{name}/README.md does not run the tests:\n{tried}");
    println!("{}", type_in(place.path(), &tried));
    if tried.contains("avouch train") {
        let checked = type_in(place.path(), "avouch check pipeline.toml");
        assert!(checked.contains("no mistake found") && !checked.contains("warning"), "{checked}");
    }
    for (inside, bytes) in cloned(name) {
        let left = std::fs::read(place.path().join(&inside)).unwrap();
        assert!(left == bytes, "{name}: the README's commands changed {}", inside.display());
    }
}

fn fixtures(name: &str) {
    let Commands { made, .. } = readme::commands(&directory(name).join("README.md"));
    let place = tempfile::tempdir().unwrap();
    std::fs::create_dir(place.path().join("fixtures")).unwrap();
    type_in(place.path(), &made);
    let (made, kept) = (files(&place.path().join("fixtures")), files(&directory(name).join("fixtures")));
    assert!(!kept.is_empty());
    assert_eq!(made.keys().collect::<Vec<_>>(), kept.keys().collect::<Vec<_>>(), "{name}");
    for (inside, bytes) in kept {
        assert!(made[&inside] == bytes, "{name}/fixtures/{} is not what the README's command makes", inside.display());
    }
}

macro_rules! library {
    ($($test:ident = $name:literal),+ $(,)?) => {
        const LIBRARY: &[&str] = &[$($name),+];
        $(mod $test {
            #[test]
            fn passes_its_tests_by_the_commands_of_its_readme() {
                super::try_it($name);
            }

            #[test]
            fn has_fixtures_that_its_readme_makes() {
                super::fixtures($name);
            }
        })+
    };
}

library! {
    battery_fleet = "battery-fleet",
    cold_chain = "cold-chain",
    milling = "milling",
    nab = "nab",
    pump_demo = "pump-demo",
    server_metrics = "server-metrics",
    spacecraft = "spacecraft",
    tennessee_eastman = "tennessee-eastman",
    turbofan = "turbofan",
    water_pump = "water-pump",
}

#[test]
fn all_are_here() {
    let mut found: Vec<String> = std::fs::read_dir(env!("CARGO_MANIFEST_DIR"))
        .unwrap()
        .map(|e| e.unwrap())
        .filter(|e| e.path().join("pipeline.toml").exists())
        .map(|e| e.file_name().into_string().unwrap())
        .collect();
    found.sort();
    assert_eq!(found, LIBRARY);
}
