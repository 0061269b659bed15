//! The JSON Schema against the readers: it has their keys, refuses nothing that they accept, and refuses what they find
//! wrong in the structure.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use avouch::lang::{Diagnostics, Pipeline, SourceFile, schema};
use serde_json::{Map, Value, json};

use super::Fixed;
use super::validator::mistakes;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn to_json(mut value: toml_span::Value<'_>) -> Value {
    use toml_span::value::ValueInner;
    match value.take() {
        ValueInner::String(s) => s.into_owned().into(),
        ValueInner::Integer(i) => i.into(),
        ValueInner::Float(f) => f.into(),
        ValueInner::Boolean(b) => b.into(),
        ValueInner::Array(items) => items.into_iter().map(to_json).collect(),
        ValueInner::Table(t) => {
            t.into_iter().map(|(k, v)| (k.name.into_owned(), to_json(v))).collect::<Map<_, _>>().into()
        }
    }
}

fn parsed(text: &str) -> Option<Value> {
    toml_span::parse(text).ok().map(to_json)
}

/// A value as TOML, inline.
fn to_toml(value: &Value) -> String {
    match value {
        Value::Object(t) => {
            let parts: Vec<String> = t.iter().map(|(k, v)| format!("{} = {}", json!(k), to_toml(v))).collect();
            format!("{{ {} }}", parts.join(", "))
        }
        Value::Array(items) => format!("[{}]", items.iter().map(to_toml).collect::<Vec<_>>().join(", ")),
        other => other.to_string(),
    }
}

fn document(value: &Value) -> String {
    value.as_object().unwrap().iter().map(|(k, v)| format!("{} = {}\n", json!(k), to_toml(v))).collect()
}

fn read(text: &str) -> Result<Pipeline, Diagnostics> {
    Pipeline::read(Arc::new(SourceFile::new("p.toml", text)), &Fixed)
}

/// Every case and every pipeline of the tree that the readers accept, as it is named and as its values.
fn accepted() -> Vec<(String, String, Value)> {
    let mut paths: Vec<PathBuf> =
        std::fs::read_dir(root().join("tests/check/cases")).unwrap().map(|e| e.unwrap().path()).collect();
    paths.extend(std::fs::read_dir(root()).unwrap().map(|e| e.unwrap().path().join("pipeline.toml")));
    paths.push(root().join("../tests/bench/pipeline.toml"));
    paths
        .retain(|p| p.extension().is_some_and(|e| e == "toml") && p.file_name().unwrap() != "Cargo.toml" && p.exists());
    paths.sort();
    let mut out = Vec::new();
    for path in paths {
        let text = std::fs::read_to_string(&path).unwrap();
        if read(&text).is_ok() {
            let value = parsed(&text).unwrap();
            out.push((path.file_name().unwrap().to_str().unwrap().to_owned(), text, value));
        }
    }
    assert!(out.len() > 25, "{}", out.len());
    out
}

#[test]
fn the_committed_schema_is_that_of_the_readers() {
    let path = root().join("pipeline.schema.json");
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&path, schema::text()).unwrap();
    }
    assert!(
        std::fs::read_to_string(&path).unwrap_or_default() == schema::text(),
        "pipelines/pipeline.schema.json is not what `avouch schema` prints; write it anew with UPDATE=1"
    );
}

#[test]
fn every_key_has_a_description() {
    let schema = schema::json_schema();
    let tables = schema["$defs"].as_object().unwrap().values().chain([&schema]);
    let mut keys = 0;
    for table in tables {
        assert!(table["description"].as_str().is_some_and(|d| d.ends_with('.')), "{table}");
        for (key, value) in table["properties"].as_object().unwrap() {
            assert!(value["description"].as_str().is_some_and(|d| d.len() > 3), "{key}");
            keys += 1;
        }
    }
    assert!(keys > 150, "{keys}");
}

/// Which keys there are the readers and the schema take from one place; this shows that each is read.
#[test]
fn every_key_of_the_schema_is_asked_for_by_a_reader_and_the_other_way_round() {
    let mut asked: BTreeSet<String> = BTreeSet::new();
    let mut used: BTreeSet<String> = BTreeSet::new();
    for (_, text, value) in accepted() {
        asked.extend(schema::asked(&Arc::new(SourceFile::new("p.toml", text.as_str())), &Fixed).unwrap());
        collect_keys(&value, &mut used);
    }
    // Read as a whole, by the models crate.
    let tables = [
        "t2q.",
        "split.",
        "blend.",
        "drift.",
        "gradient_boosting.",
        "kernel_ridge.",
        "linear.",
        "recipe.",
        "gaussian_mixture.",
        "half_space_trees.",
        "k_means.",
        "nearest_neighbours.",
        "random_cut_forest.",
        "mewma.",
        "one_class_svm.",
        "onnx.",
        "sensor_health.",
        "univariate.",
    ];
    let whole = |k: &String| tables.iter().any(|t| k.starts_with(t));
    let declared: BTreeSet<String> = schema::declared().into_iter().filter(|k| !whole(k)).collect();
    asked.retain(|k| !whole(k));
    assert_eq!(declared.difference(&asked).collect::<Vec<_>>(), Vec::<&String>::new(), "declared, but read by nobody");
    assert_eq!(asked.difference(&declared).collect::<Vec<_>>(), Vec::<&String>::new(), "read, but not declared");
    // And accepted where it is written: some file that passes has it.
    let unwritten: Vec<String> = schema::declared()
        .into_iter()
        .filter(|k| !used.contains(k.split_once('.').map_or("", |(_, key)| key)))
        .collect();
    assert_eq!(unwritten, Vec::<String>::new(), "no case has them");
}

fn collect_keys(value: &Value, out: &mut BTreeSet<String>) {
    match value {
        Value::Object(t) => {
            for (k, v) in t {
                out.insert(k.clone());
                collect_keys(v, out);
            }
        }
        Value::Array(items) => items.iter().for_each(|v| collect_keys(v, out)),
        _ => {}
    }
}

/// The models crate reads its tables with serde, which refuses unknown keys.
#[test]
fn the_models_crate_reads_the_declared_options() {
    let schema = schema::json_schema();
    let keys =
        |name: &str| schema["$defs"][name]["properties"].as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    let sorted = |mut names: Vec<String>| {
        names.sort();
        names
    };
    let recipe = json!({ "conditions": 2, "on": ["a"], "as_is": ["b"], "means": [5], "slope": 9, "baseline": 3 });
    assert_eq!(sorted(keys("recipe")), sorted(recipe.as_object().unwrap().keys().cloned().collect()));
    // What each writes when everything is given is what is declared.
    for (table, sample) in [
        ("blend", json!({ "kind": "blend", "of": [{ "kind": "linear" }], "recipe": recipe })),
        ("drift", json!({ "kind": "drift" })),
        ("gaussian_mixture", json!({ "kind": "gaussian-mixture", "components": 8, "seed": 7 })),
        ("gradient_boosting", json!({ "kind": "gradient-boosting", "recipe": recipe })),
        (
            "half_space_trees",
            json!({ "kind": "half-space-trees", "trees": 10, "depth": 5, "online": true, "window": 100,
                    "baseline": "device", "seed": 3 }),
        ),
        ("k_means", json!({ "kind": "k-means", "clusters": 8, "seed": 7 })),
        ("kernel_ridge", json!({ "kind": "kernel-ridge", "recipe": recipe })),
        ("linear", json!({ "kind": "linear", "recipe": recipe })),
        ("mewma", json!({ "kind": "mewma", "smoothing": 0.1, "scales": 2, "shrinkage": 0.5, "seed": 7 })),
        (
            "nearest_neighbours",
            json!({ "kind": "nearest-neighbours", "neighbours": 2, "sample": 100, "recent": 10, "every": 5, "delay": 20,
                    "baseline": "device", "seed": 3 }),
        ),
        ("one_class_svm", json!({ "kind": "one-class-svm", "nu": 0.1, "eps": 4.0, "seed": 7 })),
        (
            "onnx",
            json!({ "kind": "onnx", "file": "m.onnx", "output": "scores", "column": 1, "higher_is": "normal",
                    "says": "probability", "seed": 3 }),
        ),
        (
            "random_cut_forest",
            json!({ "kind": "random-cut-forest", "trees": 10, "sample": 100, "baseline": "device", "seed": 3 }),
        ),
        (
            "sensor_health",
            json!({ "kind": "sensor-health", "readings": "n", "interval_max": "gap", "interval_spread": "jitter",
                    "spread": ["t_std"], "low": ["t_min"], "high": ["t_max"], "range": [[-40.0, 85.0]], "level": 0.01,
                    "seed": 3 }),
        ),
        (
            "t2q",
            json!({ "kind": "t2-q", "variance": 0.9, "components": 2, "shrinkage": 0.5, "baseline": "device",
                    "scale": "device", "seed": 3 }),
        ),
        ("univariate", json!({ "kind": "univariate", "rest": 100, "seed": 3 })),
    ] {
        let read: avouch_models::AlgorithmConfig = serde_json::from_value(sample).unwrap();
        let written = serde_json::to_value(read).unwrap().as_object().unwrap().keys().cloned().collect();
        assert_eq!(sorted(keys(table)), sorted(written), "{table}");
    }
    let split = serde_json::to_value(avouch_models::SplitConfig::default()).unwrap();
    assert_eq!(keys("split"), split.as_object().unwrap().keys().cloned().collect::<Vec<_>>());
}

#[test]
fn it_refuses_nothing_that_the_readers_accept() {
    let schema = schema::json_schema();
    for (name, _, value) in accepted() {
        assert_eq!(mistakes(&schema, &value), Vec::<String>::new(), "{name}");
    }
}

/// What a mistake in the structure is called.
const STRUCTURAL: [&str; 7] =
    ["unknown-key", "missing-key", "wrong-type", "unknown-value", "bad-duration", "bad-size", "empty"];

/// Mistakes that rest on another table, and names of tables, which the readers take for what is missing.
fn beyond_a_schema(shown: &str) -> bool {
    [
        "but nothing says on which brokers",
        "names nothing",
        "has neither `sql` nor `model`",
        "needs to know where tokens come from",
        "cannot be read as one",
    ]
    .iter()
    .any(|s| shown.contains(s))
}

#[test]
fn one_change_anywhere_is_judged_alike() {
    let schema = schema::json_schema();
    let mut judged = BTreeMap::new();
    let mut wrong = Vec::new();
    // The cases that warn are these again, but for one thing.
    for (name, _, value) in
        accepted().into_iter().filter(|(name, ..)| name.starts_with("valid") || name == "pipeline.toml")
    {
        let mut places = Vec::new();
        places_of(&value, &mut Vec::new(), &mut places);
        for place in &places {
            for change in changes(&value, place) {
                let (what, changed) = change;
                let text = document(&changed);
                let Some(value) = parsed(&text) else { continue };
                let refused = mistakes(&schema, &value);
                let (accepts, structural, shown) = match read(&text) {
                    Ok(_) => (true, false, String::new()),
                    Err(d) => {
                        let shown = d.render_text(false);
                        (
                            false,
                            d.items().iter().any(|i| STRUCTURAL.contains(&i.code)) && !beyond_a_schema(&shown),
                            shown,
                        )
                    }
                };
                *judged.entry(accepts).or_insert(0) += 1;
                if accepts && !refused.is_empty() {
                    wrong.push(format!("{name}: {place:?} {what}: accepted, but the schema says {refused:?}"));
                }
                if structural && refused.is_empty() {
                    wrong.push(format!("{name}: {place:?} {what}: the schema says nothing to\n{shown}"));
                }
            }
        }
    }
    assert!(judged[&true] > 300 && judged[&false] > 3000, "{judged:?}");
    let n = wrong.len();
    wrong.truncate(12);
    assert!(n == 0, "{n} are judged otherwise, among them\n{}", wrong.join("\n"));
}

fn places_of(value: &Value, at: &mut Vec<String>, out: &mut Vec<Vec<String>>) {
    if let Value::Object(t) = value {
        for (k, v) in t {
            at.push(k.clone());
            out.push(at.clone());
            places_of(v, at, out);
            at.pop();
        }
    }
}

/// A document with one place changed in several ways.
fn changes(whole: &Value, place: &[String]) -> Vec<(&'static str, Value)> {
    let mut out = Vec::new();
    let (last, above) = place.split_last().unwrap();
    let mut with = |what, change: &dyn Fn(&mut Map<String, Value>)| {
        let mut changed = whole.clone();
        let mut at = &mut changed;
        for key in above {
            at = &mut at[key.as_str()];
        }
        change(at.as_object_mut().unwrap());
        out.push((what, changed));
    };
    with("removed", &|t| {
        t.remove(last);
    });
    with("another key beside it", &|t| {
        t.insert("zzz".into(), 1.into());
    });
    let values = [
        ("a number", json!(7)),
        ("a negative number", json!(-1)),
        ("a fraction", json!(0.5)),
        ("a boolean", json!(true)),
        ("a word", json!("banana")),
        ("a duration", json!("90s")),
        ("a reference", json!("${env:KEY}")),
        ("nothing", json!("")),
        ("an empty array", json!([])),
        ("an array", json!(["banana"])),
        ("an empty table", json!({})),
    ];
    for (what, value) in values {
        with(what, &|t| {
            t.insert(last.clone(), value.clone());
        });
    }
    out
}
