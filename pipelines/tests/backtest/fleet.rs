//! A simulated fleet of pumps, whose truth is known.

use std::fmt::Write as _;
use std::path::Path;
use std::sync::OnceLock;

use avouch::simulator::{FaultKind, GroundTruth};
use avouch_engine::decode::format_timestamp;
use tempfile::TempDir;

use super::{PUMPS, done, json, read};

/// A directory with a trained pipeline, two hours of a troubled fleet, and labels made of the truth. Nothing is written
/// into it afterwards but by tests under names of their own.
pub fn place() -> &'static Path {
    static PLACE: OnceLock<TempDir> = OnceLock::new();
    PLACE
        .get_or_init(|| {
            let tmp = tempfile::tempdir().unwrap();
            let dir = tmp.path();
            std::fs::write(dir.join("pumps.toml"), PUMPS).unwrap();
            let simulate = |args: &str| {
                let mut all = vec!["simulate", "pumps", "--devices", "10", "--seed", "3"];
                all.extend(args.split(' '));
                done(dir, &all);
            };
            simulate("--healthy --start 2026-01-06T07:00:00Z --duration 3h --out healthy.ndjson");
            simulate(
                "--wear 2 --cavitation 1 --stuck 1 --fast-clock 1 --start 2026-01-07T08:00:00Z --duration 2h \
                 --arrival arrived --out fleet.ndjson --truth truth.json",
            );
            done(dir, &["train", "pumps.toml", "--created", "2026-01-08T00:00:00Z"]);
            let truth = truth(dir);
            let (mut windows, mut failures) = (String::from("device,from,to\n"), String::from("device,failed_at\n"));
            for device in &truth.devices {
                let Some(fault) = &device.fault else { continue };
                for (from, to) in &fault.evident {
                    writeln!(windows, "{},{from},{}", device.device, format_timestamp(*to)).unwrap();
                }
                if fault.kind == FaultKind::BearingWear {
                    writeln!(failures, "{},{}", device.device, format_timestamp(fault.end_ms)).unwrap();
                }
            }
            std::fs::write(dir.join("windows.csv"), windows).unwrap();
            std::fs::write(dir.join("failures.csv"), failures).unwrap();
            tmp
        })
        .path()
}

fn truth(dir: &Path) -> GroundTruth {
    serde_json::from_str(&read(dir, "truth.json")).unwrap()
}

#[test]
fn every_row_is_accounted_for_and_faults_are_found_where_they_were() {
    let dir = place();
    let args = "backtest pumps.toml --data fleet.ndjson --arrival arrived --labels windows.csv --out windows --json";
    let printed = done(dir, &args.split(' ').collect::<Vec<_>>());
    assert_eq!(printed, read(dir, "windows/report.json"));
    let report = json(&printed);
    let truth = truth(dir);
    let rows = &report["rows"];
    assert_eq!(rows["in"], truth.rows);
    assert_eq!(rows["dead"]["undecodable"], truth.bad_rows);
    assert_eq!(rows["dead"]["late"], truth.late_rows);
    assert_eq!(rows["dead"]["future"], truth.future_rows);
    let dead: u64 = rows["dead"].as_object().unwrap().values().map(|n| n.as_u64().unwrap()).sum();
    assert_eq!(rows["used"].as_u64().unwrap() + dead, truth.rows);

    let step = &report["truth"]["windows"]["steps"][0];
    let number = |name: &str| step[name].as_f64().unwrap();
    // Labelled is where a fault is evident; it is there before, when alarms count as false here.
    assert!(number("precision") > 0.75 && number("recall") > 0.95, "{step:#}");
    let counted: f64 = ["true_positives", "false_positives", "false_negatives", "true_negatives", "left_out"]
        .into_iter()
        .map(number)
        .sum();
    let verdicts = &report["verdicts"][0];
    let all: u64 = ["normal", "warning", "critical"].into_iter().map(|s| verdicts[s].as_u64().unwrap()).sum();
    assert_eq!(counted, all as f64);
    let days: u64 = report["days"].as_array().unwrap().iter().map(|d| d["critical"].as_u64().unwrap()).sum();
    assert_eq!(days, verdicts["critical"].as_u64().unwrap());

    // Whoever has most alarms has a fault.
    let worst = report["devices"][0]["device"].as_str().unwrap();
    assert!(truth.devices.iter().any(|d| d.device == worst && d.fault.is_some()), "{worst}");
}

#[test]
fn the_summary_says_what_is_in_the_report() {
    let dir = place();
    let args =
        "backtest pumps.toml --data fleet.ndjson --arrival arrived --labels failures.csv --horizon 2h --out summary";
    insta::assert_snapshot!(done(dir, &args.split(' ').collect::<Vec<_>>()));
}

#[test]
fn the_same_input_gives_the_same_bytes() {
    let dir = place();
    let mut seen = Vec::new();
    for out in ["once", "twice"] {
        let args = format!(
            "backtest pumps.toml --data fleet.ndjson --arrival arrived --labels windows.csv --against pumps.toml --out {out}"
        );
        done(dir, &args.split(' ').collect::<Vec<_>>());
        let files = ["report.json", "report.html", "differences.ndjson"];
        seen.push(files.map(|name| read(&dir.join(out), name)));
    }
    assert!(seen[0] == seen[1]);
    assert_eq!(seen[0][2], "", "a pipeline does not differ from itself");
}

#[test]
fn the_page_stands_alone() {
    let dir = place();
    let args = "backtest pumps.toml --data fleet.ndjson --arrival arrived --labels windows.csv --out page";
    done(dir, &args.split(' ').collect::<Vec<_>>());
    let page = read(dir, "page/report.html");
    let page = page.replace("xmlns=\"http://www.w3.org/2000/svg\"", "");
    for outside in ["<script", "src=", "href=", "url(", "http:", "https:", "@import"] {
        assert!(!page.contains(outside), "{outside}");
    }
    // Verdicts, alarms, and a score of each of the devices with most alarms, up to six.
    let devices = json(&read(dir, "page/report.json"))["devices"].as_array().unwrap().len();
    assert_eq!(page.matches("<svg").count(), 2 + devices.min(6));
    assert_eq!(page.matches("<svg").count(), page.matches("</svg>").count());
    // Every colour of a plot is a stand-in that the style sheet names.
    for attribute in ["fill", "stroke"] {
        for part in page.split(&format!(" {attribute}=\"#")).skip(1) {
            let colour = &part[..6];
            assert!(page.contains(&format!("[{attribute}=\"#{colour}\"]")), "{attribute} #{colour}");
        }
    }
}
