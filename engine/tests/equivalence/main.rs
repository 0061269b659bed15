//! The stream's answer is the batch answer: windowed SQL over a lane equals DataFusion's SQL over the same rows, for every
//! kind of window and every aggregate, with rows out of order within the allowed disorder.
//!
//! One file a case in `cases`. `UPDATE=1 cargo test --release -p avouch-engine --test equivalence` writes the expected rows
//! anew; they are written only where stream and batch agree. A case is:
//!
//! ```text
//! # what it shows
//! window: tumbling 10s | sliding 10s 2s | session 5s 1m      size | size, every | gap, max
//! disorder: 5s
//! clean: SELECT …                                            optional: a step before
//! scale: 100                                                 optional: size of rounding errors relative to 1e-9
//! sql: SELECT device, … GROUP BY device                      what the lane runs
//! batch: SELECT device, … GROUP BY device                    optional: other SQL for the same, for the batch
//! rows: device | ts (seconds) | x | y | n | s | b
//! a | 0.5 | 1.25 | - | 3 | text | true                       `-` is null
//! ----
//! end | … the expected rows
//! ```

#![allow(clippy::unwrap_used)]

mod answer;
mod batch;
mod cost;
mod random;
mod reading;
mod streamed;

use std::path::Path;

use avouch_engine::spec::WindowSpec;

use answer::compare;
use reading::Reading;
use streamed::Query;

struct Case {
    query: Query,
    batch: Option<String>,
    scale: f64,
    readings: Vec<Reading>,
    /// All up to and with the line of dashes.
    input: String,
    expected: String,
}

/// `1.5s`, `10m`: milliseconds.
fn duration(text: &str) -> i64 {
    let (number, unit) = text.split_at(text.find(|c: char| c.is_alphabetic()).unwrap());
    let ms = match unit {
        "ms" => 1.0,
        "s" => 1e3,
        "m" => 6e4,
        "h" => 36e5,
        other => panic!("unit {other}"),
    };
    (number.parse::<f64>().unwrap() * ms).round() as i64
}

fn window(text: &str) -> WindowSpec {
    let words: Vec<&str> = text.split_whitespace().collect();
    match words.as_slice() {
        ["tumbling", size] => WindowSpec::Tumbling { size_ms: duration(size) },
        ["sliding", size, every] => WindowSpec::Sliding { size_ms: duration(size), every_ms: duration(every) },
        ["session", gap, max] => WindowSpec::Session { gap_ms: duration(gap), max_ms: duration(max) },
        other => panic!("window {other:?}"),
    }
}

fn reading(line: &str) -> Reading {
    let cells: Vec<Option<&str>> = line.split('|').map(|c| Some(c.trim()).filter(|c| *c != "-")).collect();
    let [device, ts, x, y, n, s, b] = cells.as_slice() else { panic!("not seven columns: {line}") };
    Reading {
        device: device.unwrap().to_owned(),
        ts: (ts.unwrap().parse::<f64>().unwrap() * 1000.0).round() as i64,
        x: x.map(|x| x.parse().unwrap()),
        y: y.map(|y| y.parse().unwrap()),
        n: n.map(|n| n.parse().unwrap()),
        s: s.map(str::to_owned),
        b: b.map(|b| b.parse().unwrap()),
    }
}

fn case(text: &str) -> Case {
    let (input, expected) = text.split_once("----\n").unwrap_or((text, ""));
    let (head, rows) = input.split_once("rows:").unwrap();
    let mut keys: Vec<(&str, String)> = Vec::new();
    for line in head.lines().filter(|l| !l.starts_with('#') && !l.trim().is_empty()) {
        match (line.split_once(": "), line.starts_with(' ')) {
            (Some((key, value)), false) => keys.push((key, value.to_owned())),
            // A query goes on over lines that are indented.
            _ => {
                let (_, value) = keys.last_mut().unwrap();
                value.push(' ');
                value.push_str(line.trim());
            }
        }
    }
    let get = |key: &str| keys.iter().find(|(k, _)| *k == key).map(|(_, v)| v.clone());
    Case {
        query: Query {
            window: window(&get("window").unwrap()),
            disorder_ms: duration(&get("disorder").unwrap()),
            clean: get("clean"),
            sql: get("sql").unwrap(),
        },
        batch: get("batch"),
        scale: get("scale").map_or(1.0, |s| s.parse().unwrap()),
        readings: rows.lines().skip(1).filter(|l| !l.trim().is_empty()).map(reading).collect(),
        input: format!("{input}----\n"),
        expected: expected.to_owned(),
    }
}

#[test]
fn cases() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/equivalence/cases");
    let update = std::env::var_os("UPDATE").is_some();
    let mut paths: Vec<_> = std::fs::read_dir(&dir).unwrap().map(|e| e.unwrap().path()).collect();
    paths.retain(|p| p.extension().is_some_and(|e| e == "case"));
    paths.sort();
    assert!(paths.len() >= 20, "only {} cases", paths.len());
    let mut wrong = Vec::new();
    for path in &paths {
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        let case = case(&std::fs::read_to_string(path).unwrap());
        let batch = batch::answer(&case.query, &case.readings, case.batch.as_deref());
        for cut in [1, 3, 1000] {
            let (streamed, dead) = streamed::answer(&case.query, &case.readings, cut);
            if dead > 0 {
                wrong.push(format!("{name}: {dead} dead letters; rows of a case are within the disorder"));
            } else if let Err(why) = compare(&streamed, &batch, case.scale) {
                wrong.push(format!("{name}, batches of {cut}: {why}"));
            } else if streamed.text() != case.expected {
                if update {
                    std::fs::write(path, format!("{}{}", case.input, streamed.text())).unwrap();
                } else {
                    wrong.push(format!("{name}: expected\n{}\nfound\n{}", case.expected, streamed.text()));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}
