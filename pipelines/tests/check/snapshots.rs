//! `cases/*.toml`, each with one mistake, and what `avouch check` says of it in `*.expected`.

use std::collections::BTreeSet;
use std::path::PathBuf;

use avouch::lang::Level;

use super::findings;

fn cases() -> Vec<PathBuf> {
    let dir = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/check/cases");
    let mut cases: Vec<PathBuf> = std::fs::read_dir(dir)
        .unwrap()
        .map(|e| e.unwrap().path())
        .filter(|p| p.extension().is_some_and(|e| e == "toml"))
        .collect();
    cases.sort();
    cases
}

#[test]
fn every_case_says_what_it_said() {
    let update = std::env::var_os("UPDATE").is_some();
    let mut wrong = Vec::new();
    for path in cases() {
        let name = path.file_name().unwrap().to_str().unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        let (_, diags) = findings(name, &text);
        let shown = if diags.is_empty() { "ok\n".to_owned() } else { diags.render_text(false) };
        let expected = path.with_extension("expected");
        if update {
            std::fs::write(&expected, &shown).unwrap();
        } else if std::fs::read_to_string(&expected).unwrap_or_default() != shown {
            wrong.push(format!("── {name} now says\n{shown}"));
        }
    }
    assert!(
        wrong.is_empty(),
        "{}\nIf this is right: UPDATE=1 cargo test --release -p avouch --test check",
        wrong.join("\n")
    );
}

#[test]
fn every_case_has_its_mistake_at_a_place_with_help() {
    let mut codes = BTreeSet::new();
    let mut broken = 0;
    for path in cases() {
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        let text = std::fs::read_to_string(&path).unwrap();
        let (pipeline, diags) = findings(&name, &text);
        let may_run = name.starts_with("valid") || name.starts_with("warn-") || name == "secret-in-file.toml";
        let may_run = may_run || name == "anchor-plain-key-in-production.toml";
        assert_eq!(diags.has_errors(), !may_run, "{name}:\n{}", diags.render_text(false));
        assert!(pipeline.is_some() || diags.has_errors(), "{name}");
        broken += usize::from(diags.has_errors());
        for d in diags.items() {
            assert!(d.span.is_some() && !d.help.is_empty() && !d.message.is_empty(), "{name}: {d:?}");
            codes.insert(d.code);
        }
        // The machine form holds the same findings.
        let json = diags.to_json();
        assert_eq!(json["diagnostics"].as_array().unwrap().len(), diags.items().len());
        assert_eq!(json["errors"], diags.count(Level::Error));
        for (item, d) in json["diagnostics"].as_array().unwrap().iter().zip(diags.items()) {
            assert_eq!(item["message"], d.message);
            assert!(item["place"]["line"].as_u64().unwrap() >= 1);
        }
    }
    assert!(broken >= 100, "{broken} broken pipelines");
    assert!(codes.len() >= 30, "{codes:?}");
}

#[test]
fn nothing_secret_is_shown() {
    for path in cases() {
        let text = std::fs::read_to_string(&path).unwrap();
        let (pipeline, diags) = findings("p.toml", &text);
        let mut all = format!("{}\n{}\n{diags:?}", diags.render_text(true), diags.to_json());
        if let Some(p) = pipeline {
            all += &format!("{p:?}");
        }
        for secret in ["hunter2", "correct horse", "0123456789abcdef", "abababab", "value-from-outside", "notakeyatall"]
        {
            assert!(!all.contains(secret), "{} shows {secret}:\n{all}", path.display());
        }
    }
}

/// Pipelines that ship with the program must pass it. Models are made later, so only that may be warned of.
#[test]
fn the_pipelines_we_ship_pass() {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let mut seen = 0;
    for entry in std::fs::read_dir(root).unwrap() {
        let path = entry.unwrap().path().join("pipeline.toml");
        if !path.exists() {
            continue;
        }
        seen += 1;
        let text = std::fs::read_to_string(&path).unwrap();
        let (_, diags) = findings(path.to_str().unwrap(), &text);
        assert!(diags.items().iter().all(|d| d.code == "no-model-yet"), "{diags}");
    }
    assert!(seen > 0);
}

/// The target of the language: every key of it is either built or refused as not built yet, never as unknown.
#[test]
fn the_whole_language_is_known() {
    let text = include_str!("target.toml");
    let (_, diags) = findings("target.toml", text);
    for d in diags.items() {
        assert!(matches!(d.code, "not-supported-yet" | "broken-guarantee" | "missing-file"), "{diags}");
    }
    assert!(diags.count(Level::Error) > 1, "{diags}");
}
