//! `avouch test` as its user sees it: what passes, each way to fail, goldens, missing models.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use avouch::commands::test::{TestArgs, outcomes};
use avouch::commands::train::{TrainArgs, run as train};
use avouch::trial;

const HEAD: &str = r#"
version = 1

[pipeline]
name   = "trial"
secret = "${env:TRIAL_SECRET_THAT_NOBODY_SETS}"

[sources.readings]
kind    = "kafka"
brokers = "${env:TRIAL_BROKERS_THAT_NOBODY_SETS}"
topic   = "t"
format  = "json"
schema  = { device = "utf8!", ts = "timestamp_ms!", x = "f64" }
key     = "device"
time    = { column = "ts", max_disorder = "2s", max_future = "1m", idle_after = "1m" }

[steps.clean]
from = "readings"
sql  = "SELECT *, x * 2 AS y FROM readings WHERE x >= 0"

[steps.features]
from   = "clean"
window = { kind = "tumbling", size = "10s" }
sql    = "SELECT device, avg(y) AS y_mean, stddev(y) AS y_std FROM clean GROUP BY device"

[steps.anomaly]
from     = "features"
model    = { file = "trial.model" }
features = ["y_mean", "y_std"]
decide   = { severity = { warning = 0.02 } }

[sinks.verdicts]
from  = ["anomaly"]
kind  = "kafka"
topic = "v"

[dead_letter]
kind  = "kafka"
topic = "dead"

[anchor]
kind     = "ethereum"
rpc      = "${env:TRIAL_RPC_THAT_NOBODY_SETS}"
chain_id = 31337
contract = "${env:TRIAL_LOG_THAT_NOBODY_SETS}"
signer   = { keystore = "keys/none.json", password = "${file:/nowhere/password}" }
every    = { verdicts = 100, interval = "5s" }

[train.anomaly]
step      = "anomaly"
data      = "training.jsonl"
algorithm = { kind = "t2-q", seed = 7 }
"#;

struct Place {
    dir: tempfile::TempDir,
}

impl Place {
    /// A pipeline with these tests, readings to train on, and readings to test with.
    fn new(tests: &str) -> Self {
        let place = Self { dir: tempfile::tempdir().unwrap() };
        place.write("pipeline.toml", &format!("{HEAD}{tests}"));
        let row = |out: &mut String, device: &str, i: i64, x: f64| {
            writeln!(out, "{{\"device\":\"{device}\",\"ts\":{},\"x\":{x}}}", i * 1000).unwrap();
        };
        // Whole numbers and few of them, without a period of the window's.
        let healthy = |i: i64, k: i64| 10.0 + ((i * (7 + k) + i / 3) % 11) as f64;
        let mut training = String::new();
        for i in 0..4000 {
            row(&mut training, "a", i, healthy(i, 0));
            row(&mut training, "b", i, healthy(i, 2));
        }
        place.write("training.jsonl", &training);
        let mut two = String::new();
        for i in 5000..5042 {
            row(&mut two, "a", i, healthy(i, 0));
            // b is broken in its third window.
            row(&mut two, "b", i, healthy(i, 2) + if (5020..5030).contains(&i) { 90.0 } else { 0.0 });
        }
        // Late, cut off, without time.
        two.push_str(
            "{\"device\":\"a\",\"ts\":5001000,\"x\":1}\n{\"device\":\"a\",\"ts\":50\n{\"device\":\"a\",\"x\":1}\n",
        );
        place.write("fixtures/two.jsonl", &two);
        place
    }

    fn trained(tests: &str) -> Self {
        let place = Self::new(tests);
        let args = TrainArgs {
            file: place.path("pipeline.toml"),
            only: Vec::new(),
            created: Some("2026-01-01T00:00:00Z".into()),
            rows: None,
            json: true,
        };
        // Training needs the whole file; what nobody sets is of no use to it.
        let text = std::fs::read_to_string(place.path("pipeline.toml")).unwrap();
        let set = text
            .replace("${env:TRIAL_SECRET_THAT_NOBODY_SETS}", "0123456789abcdef")
            .replace("${env:TRIAL_BROKERS_THAT_NOBODY_SETS}", "localhost:9092")
            .replace("${env:TRIAL_RPC_THAT_NOBODY_SETS}", "http://localhost:8545")
            .replace("${env:TRIAL_LOG_THAT_NOBODY_SETS}", &format!("0x{}", "11".repeat(20)))
            .replace("${file:/nowhere/password}", "none");
        let whole = place.path("whole.toml");
        std::fs::write(&whole, set).unwrap();
        let _ = train(&TrainArgs { file: whole, ..args });
        assert!(place.path("trial.model").exists());
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap_or(Path::new("."))).unwrap();
        std::fs::write(path, text).unwrap();
    }

    fn outcomes(&self, name: Option<&str>, update: bool) -> Vec<trial::FileOutcome> {
        let args = TestArgs {
            files: vec![self.path("pipeline.toml")],
            name: name.map(str::to_owned),
            update,
            junit: None,
            json: false,
        };
        let mut files = outcomes(&args).unwrap();
        // What is the machine's and the moment's.
        let dir = format!("{}/", self.dir.path().display());
        for file in &mut files {
            file.file = file.file.replace(&dir, "");
            file.broken = file.broken.as_ref().map(|b| b.replace(&dir, ""));
            for test in &mut file.tests {
                test.seconds = None;
                for failure in &mut test.failures {
                    failure.message = failure.message.replace(&dir, "");
                    failure.detail.iter_mut().for_each(|line| *line = line.replace(&dir, ""));
                }
            }
        }
        files
    }

    fn said(&self, update: bool) -> String {
        trial::render(&self.outcomes(None, update), false)
    }
}

const PASSING: &str = r#"
[[tests]]
name   = "b is called, a is not"
input  = "fixtures/two.jsonl"
expect = { verdicts = "golden/two.jsonl", late = 1, dead_letters = { bad = 2 } }
assert = [
    "SELECT count(*) = 1 FROM verdicts WHERE severity = 'warning' AND device = 'b'",
    "SELECT count(*) = 84 FROM readings",
    "SELECT avg(y_mean) > 20 FROM features WHERE window_end <= '1970-01-01T01:24:00Z'",
    "SELECT count(*) = 1 FROM dead_letters WHERE reason = 'undecodable' AND value = '{\"device\":\"a\",\"ts\":50'",
]
"#;

#[test]
fn goldens_are_written_and_then_hold() {
    let place = Place::trained(PASSING);
    insta::assert_snapshot!("golden_is_missing", place.said(false));
    insta::assert_snapshot!("golden_is_written", place.said(true));
    let golden = std::fs::read_to_string(place.path("golden/two.jsonl")).unwrap();
    assert_eq!(golden.lines().count(), 6);
    assert!(
        golden.starts_with("{\"device\":\"a\",\"step\":\"anomaly\",\"window_start\":\"1970-01-01T01:23:20.000Z\""),
        "{golden}"
    );
    insta::assert_snapshot!("golden_holds", place.said(false));
    // It holds as well over several lanes, and with another secret or model path nothing of it would be other.
    let text = std::fs::read_to_string(place.path("pipeline.toml")).unwrap();
    place.write("pipeline.toml", &text.replace("expect = {", "lanes  = 3\nexpect = {"));
    assert!(place.outcomes(None, false)[0].tests[0].failures.iter().all(|f| f.kind != "verdicts"));
    place.write("pipeline.toml", &text);

    // A row is gone, one is new, one is otherwise in the last digit of a number.
    let mut lines: Vec<String> = golden.lines().map(str::to_owned).collect();
    let digit = lines[3].rfind(|c: char| c.is_ascii_digit()).unwrap();
    let other = if &lines[3][digit..=digit] == "1" { "2" } else { "1" };
    lines[3].replace_range(digit..=digit, other);
    let renamed = lines[0].replace("\"device\":\"a\"", "\"device\":\"c\"");
    lines[0] = renamed;
    place.write("golden/two.jsonl", &lines.join("\n"));
    let files = place.outcomes(None, false);
    let failure = &files[0].tests[0].failures[0];
    assert_eq!((failure.kind, files[0].tests[0].failures.len()), ("verdicts", 1));
    assert!(failure.message.ends_with("golden/two.jsonl: 1 changed, 1 missing, 1 added"), "{}", failure.message);
    assert_eq!(failure.detail.iter().filter(|l| l.starts_with(['~', '-', '+'])).count(), 3, "{:?}", failure.detail);
    assert!(failure.detail[1].contains(" → "), "{:?}", failure.detail);

    place.write("golden/two.jsonl", "{\"device\":\"a\"}\n");
    let files = place.outcomes(None, false);
    assert_eq!(files[0].tests[0].failures[0].kind, "golden");
    assert!(files[0].tests[0].failures[0].message.starts_with("golden/two.jsonl:1: a verdict has `device`"));
    assert!(place.outcomes(None, true)[0].ok(), "--update writes it anew");
    assert_eq!(std::fs::read_to_string(place.path("golden/two.jsonl")).unwrap(), golden, "the same bytes");
}

#[test]
fn each_way_to_fail_is_said() {
    let place = Place::trained(
        r#"
[[tests]]
name   = "counts"
input  = "fixtures/two.jsonl"
expect = { late = 3, dead_letters = { undecodable = 1, future = 1 } }

[[tests]]
name   = "SQL that does not hold"
input  = ["fixtures/two.jsonl"]
assert = [
    "SELECT count(*) = 0 FROM verdicts WHERE severity = 'warning'",
    """
    SELECT x > 0
    FROM clean
    """,
    "SELECT x > 0 FROM readings WHERE device = 'nobody'",
    "SELECT x = 1 FROM readings WHERE false UNION ALL SELECT NULL",
]

[[tests]]
name   = "no such file"
input  = "fixtures/none.jsonl"
assert = "SELECT true"

[[tests]]
name   = "passes"
input  = "fixtures/two.jsonl"
silence = "2m"
assert = "SELECT count(*) = 10 FROM features"
"#,
    );
    insta::assert_snapshot!("each_way_to_fail", place.said(false));
    let files = place.outcomes(Some("no such"), false);
    assert_eq!(files[0].tests.len(), 1);
    let xml = trial::junit(&place.outcomes(None, false)).unwrap();
    assert!(xml.contains("tests=\"4\"") && xml.contains("failures=\"2\"") && xml.contains("errors=\"1\""), "{xml}");
    let json = trial::json(&place.outcomes(None, false));
    assert_eq!((&json["ok"], &json["files"][0]["failed"]), (&false.into(), &3.into()));
}

#[test]
fn without_a_model_only_what_is_about_verdicts_fails() {
    let place = Place::new(
        r#"
[[tests]]
name   = "about features"
input  = "fixtures/two.jsonl"
expect = { late = 1 }
assert = "SELECT count(*) = 6 FROM features"

[[tests]]
name   = "about verdicts"
input  = "fixtures/two.jsonl"
assert = "SELECT count(*) > 0 FROM (SELECT * FROM verdicts)"
"#,
    );
    insta::assert_snapshot!("without_a_model", place.said(false));
}

#[test]
fn mistakes_in_tests_are_found_where_they_stand() {
    let place = Place::new(
        r#"
[[tests]]
name   = "typos"
input  = "fixtures/two.jsonl"
assert = [
    "SELECT count(*) = 0 FROM verdicts WHERE severty = 'critical'",
    "SELECT avg(y_maen) > 0 FROM features",
    "SELECT true FROM verdict",
    "SELECT count(*) FROM readings",
    "SELECT now() > window_end FROM verdicts",
    "DROP TABLE readings",
    "SELECT count(* FROM readings",
]
"#,
    );
    insta::assert_snapshot!("mistakes_in_sql", place.said(false));
    let place = Place::new(
        r#"
[[tests]]
name   = "keys"
inputs = "fixtures/two.jsonl"
expect = { dead_letters = { latte = 1, bad = 2, schema = 1 }, late = -1 }

[[tests]]
name  = "nothing"
input = "fixtures/two.jsonl"

[[tests]]
name   = "nothing"
input  = 3
order  = "backwards"
assert = "SELECT true"
"#,
    );
    insta::assert_snapshot!("mistakes_in_keys", place.said(false));
}

#[test]
fn the_program_ends_as_a_script_needs_it() {
    let place = Place::new(
        r#"
[[tests]]
name   = "holds"
input  = "fixtures/two.jsonl"
assert = "SELECT count(*) = 84 FROM readings"

[[tests]]
name   = "does not"
input  = "fixtures/two.jsonl"
assert = "SELECT count(*) = 85 FROM readings"
"#,
    );
    let run = |arguments: &[&str]| {
        let out = std::process::Command::new(env!("CARGO_BIN_EXE_avouch"))
            .current_dir(place.dir.path())
            .env_clear()
            .arg("test")
            .args(arguments)
            .output()
            .unwrap();
        (out.status.code(), String::from_utf8(out.stdout).unwrap(), String::from_utf8(out.stderr).unwrap())
    };
    let (code, out, err) = run(&["pipeline.toml", "--name", "hol*s"]);
    assert_eq!((code, err.as_str()), (Some(0), ""), "{out}");
    assert!(out.ends_with("\n1 test passed\n"), "{out}");
    let (code, out, _) = run(&["pipeline.toml", "--json", "--junit", "report.xml"]);
    assert_eq!(code, Some(1));
    let json: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!((&json["files"][0]["passed"], &json["files"][0]["failed"]), (&1.into(), &1.into()));
    assert!(std::fs::read_to_string(place.path("report.xml")).unwrap().contains("failures=\"1\""));
    let (code, out, _) = run(&["none.toml", "pipeline.toml"]);
    assert_eq!(code, Some(1));
    assert!(out.contains("none.toml\n  error no test could be run"), "{out}");
    assert_eq!(run(&["pipeline.toml", "--name", "nobody"]).0, Some(2));
    assert_eq!(run(&[]).0, Some(2));
}
