//! Files: every row is judged once, whatever the process dies of.
#![allow(clippy::unwrap_used)]

mod pumps;

use std::path::Path;
use std::time::Duration;

use avouch_connectors::store::LaneReader;
use avouch_system_tests::{Avouch, place};

const LIMIT: Duration = Duration::from_secs(120);

const SOURCE: &str = r#"
[sources.readings]
kind   = "files"
path   = "data/*"
schema = { device = "utf8!", ts = "timestamp_ms!", temperature = "f64", vibration = "f64", pressure = "f64", rpm = "i64" }
key    = "device"
time   = { column = "ts", max_disorder = "5s", max_future = "5m" }
"#;

fn pipeline(directory: &Path, state: &str) -> Avouch {
    let text = std::fs::read_to_string(pumps::fixture("pumps.toml")).unwrap();
    let (head, rest) = text.split_once("[sources.readings]").unwrap();
    let (_, steps) = rest.split_once("[steps.features]").unwrap();
    let (steps, rest) = steps.split_once("[sinks.verdicts]").unwrap();
    let (_, train) = rest.split_once("[train.anomaly]").unwrap();
    let sinks = "[sinks.verdicts]\nfrom = [\"anomaly\"]\nkind = \"parquet\"\npath = \"file://${env:T_STATE}/archive\"\n\n\
                 [dead_letter]\nkind = \"files\"\npath = \"file://${env:T_STATE}/dead\"\n";
    let text = format!("{head}{SOURCE}\n[steps.features]{steps}\n{sinks}\n[train.anomaly]{train}");
    std::fs::write(directory.join("pumps.toml"), text).unwrap();
    Avouch::new(["run"])
        .args([directory.join("pumps.toml")])
        .within(directory)
        .env("T_MODEL", pumps::model())
        .env("T_STATE", directory.join(state))
}

/// Two files of readings in different formats, with bad rows in both.
fn data(directory: &Path) -> u64 {
    let dir = directory.join("data");
    std::fs::create_dir(&dir).unwrap();
    let rows: Vec<String> = (0..120_000i64)
        .map(|i| pumps::reading(&format!("pump-{:03}", i % 20), pumps::START + (i / 20) * 1000))
        .collect();
    let mut csv = "rpm,device,ts,temperature,pressure,vibration,site\n".to_owned();
    for (i, row) in rows[..60_000].iter().enumerate() {
        let value = |name: &str| {
            let rest = row.split_once(&format!("\"{name}\":")).unwrap().1;
            rest[..rest.find([',', '}']).unwrap()].to_owned()
        };
        let [rpm, device, ts, t, p, v] = ["rpm", "device", "ts", "temperature", "pressure", "vibration"].map(value);
        csv.push_str(&format!("{rpm},{device},{ts},{t},{p},{v},north\n"));
        if i == 30_000 {
            csv.push_str("1440,pump-001\n");
        }
    }
    std::fs::write(dir.join("1-first.csv"), csv).unwrap();
    std::fs::write(dir.join("2-second.ndjson"), format!("{}\nno json\n", rows[60_000..].join("\n"))).unwrap();
    rows.len() as u64 + 2
}

fn same(a: &Path, b: &Path) {
    let (one, two) = (LaneReader::open_read_only(a).unwrap(), LaneReader::open_read_only(b).unwrap());
    assert_eq!(one.committed().next_offset, two.committed().next_offset);
    assert_eq!(one.committed().root, two.committed().root);
    for file in ["records-000000", "entries-000000", "dead-000000"] {
        assert!(std::fs::read(a.join(file)).unwrap() == std::fs::read(b.join(file)).unwrap(), "{file} differs");
    }
}

#[test]
fn killed_runs_leave_what_one_unbroken_run_leaves() {
    let directory = place::fresh_directory("files");
    let rows = data(&directory);
    let summary = pipeline(&directory, "whole").args(["--json"]).run(LIMIT).success().json();
    assert_eq!(summary["rows_in"], rows);
    assert_eq!(summary["dead_letters"]["undecodable"], 2);
    let whole = directory.join("whole/pumps/0");
    let reader = LaneReader::open_read_only(&whole).unwrap();
    assert!(reader.committed().log_size > 10_000, "{}", reader.committed().log_size);
    let letters = reader.dead_letters(0, 10).unwrap();
    let said: Vec<_> = letters.iter().map(|l| (l.offset, l.detail.as_str(), l.value.clone().unwrap())).collect();
    assert_eq!(
        said[0],
        (
            30_001,
            "1-first.csv:30003: this row has 2 fields, the header 7; check the delimiter and the quotes",
            b"1440,pump-001".to_vec()
        )
    );
    assert_eq!((said[1].0, &said[1].2[..]), (rows as i64 - 1, &b"no json"[..]));
    assert!(said[1].1.starts_with("2-second.ndjson:60001: "), "{}", said[1].1);

    let run = pipeline(&directory, "killed");
    let log = directory.join("killed.log");
    let mut kills = 0;
    for moment in [60, 150, 200, 240, 280, 320, 360, 400, 450, 500] {
        let mut process = run.start(&log);
        std::thread::sleep(Duration::from_millis(moment));
        if process.ended().is_some() {
            break;
        }
        process.kill();
        kills += 1;
    }
    assert!(kills > 2, "the kills hit the run");
    run.run(LIMIT).success();
    same(&whole, &directory.join("killed/pumps/0"));

    // A file that appears later goes on where the log ended.
    let at = pumps::START + 6_000_000;
    std::fs::write(directory.join("data/0-late.ndjson"), pumps::reading("pump-001", at)).unwrap();
    let summary = run.clone().args(["--json"]).run(LIMIT).success().json();
    assert_eq!(summary["rows_in"], rows + 1);

    // And one that changed stops the run, by name.
    let path = directory.join("data/1-first.csv");
    let text = std::fs::read_to_string(&path).unwrap().replacen(",north", ",south", 1);
    std::fs::write(&path, text).unwrap();
    let outcome = run.run(LIMIT);
    assert_eq!(outcome.code, Some(1));
    assert!(outcome.stderr.contains("1-first.csv changed after its reading began"), "{}", outcome.stderr);
}
