//! Labels: what a person says is in the log once, whatever the process that takes it dies of, and as a record like any other.
#![allow(clippy::unwrap_used)]

mod pumps;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use avouch_connectors::store::LaneReader;
use avouch_engine::event::LaneEvent;
use avouch_engine::label::Opinion;
use avouch_engine::verdict::{NO_MODEL, VerdictRecord, class};
use avouch_system_tests::{Avouch, Process, eventually, place};
use pumps::{FOLLOWED_FILES, metric};
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(60);

/// A pipeline over files, which goes on when it has read them.
struct Pumps {
    directory: PathBuf,
    http: String,
}

impl Pumps {
    fn new(what: &str) -> Self {
        let directory = place::fresh_directory(what);
        std::fs::create_dir(directory.join("data")).unwrap();
        Self { directory, http: format!("127.0.0.1:{}", place::free_port()) }
    }

    /// Readings of twenty pumps, one a second each.
    fn read(&self, file: &str, seconds: std::ops::Range<i64>) {
        let rows: Vec<String> = seconds
            .flat_map(|s| (0..20).map(move |d| pumps::reading(&format!("pump-{d:03}"), pumps::START + s * 1000)))
            .collect();
        std::fs::write(self.directory.join("data").join(file), rows.join("\n")).unwrap();
    }

    fn call(&self, command: &str) -> Avouch {
        self.with(command, "150ms")
    }

    fn with(&self, command: &str, every: &str) -> Avouch {
        let call = pumps::avouch_without_kafka(command, &self.directory, FOLLOWED_FILES, "state");
        let file = self.directory.join("pumps.toml");
        let text = std::fs::read_to_string(&file).unwrap();
        std::fs::write(&file, text.replace("every = \"150ms\"", &format!("every = \"{every}\""))).unwrap();
        call.env("T_HTTP", &self.http)
    }

    fn start(&self, every: &str) -> Process {
        self.with("run", every).start(&self.directory.join("avouch.log"))
    }

    fn lane(&self) -> PathBuf {
        self.directory.join("state/pumps/0")
    }

    fn inbox(&self) -> PathBuf {
        self.directory.join("state/pumps/labels/0")
    }

    fn requests(&self) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(self.inbox()).into_iter().flatten().map(|e| e.unwrap().path());
        entries.filter(|p| p.extension().is_some_and(|e| e == "json")).collect()
    }

    fn outcomes(&self, outcome: &str) -> f64 {
        let name = format!("avouch_lane_label_requests_total{{lane=\"0\",outcome=\"{outcome}\"}}");
        metric(&self.http, &name).unwrap_or(0.0)
    }

    fn size(&self) -> u64 {
        pumps::left::committed(&self.lane()).map_or(0, |c| c.log_size)
    }

    fn reached(&self, offset: i64) {
        let there = || pumps::left::committed(&self.lane()).is_some_and(|c| c.next_offset >= offset).then_some(());
        eventually("it has read all", LIMIT, there);
    }

    fn records(&self) -> Vec<VerdictRecord> {
        LaneReader::open_read_only(&self.lane()).unwrap().kept(0, usize::MAX).unwrap()
    }

    fn labels(&self) -> usize {
        let reader = LaneReader::open_read_only(&self.lane()).unwrap();
        reader.events(0, 1_000).unwrap().iter().filter(|e| matches!(e, LaneEvent::Label { .. })).count()
    }

    fn label(&self, args: &[&str]) -> Value {
        self.call("label").args(args).args(["--json"]).run(LIMIT).success().json()
    }
}

fn end(mut process: Process) {
    process.signal("TERM");
    assert!(process.wait(LIMIT).success(), "{}", process.log_tail());
}

/// The newest checkpoint, damaged.
fn damage(lane: &Path) {
    let names = std::fs::read_dir(lane).unwrap().map(|e| e.unwrap().path());
    let newest = names.filter(|p| p.file_name().unwrap().to_string_lossy().starts_with("checkpoint-")).max().unwrap();
    let mut bytes = std::fs::read(&newest).unwrap();
    let at = bytes.len() / 2;
    bytes[at] ^= 1;
    std::fs::write(newest, bytes).unwrap();
}

#[test]
fn a_label_is_in_the_log_once_whatever_the_process_dies_of() {
    let pumps = Pumps::new("label");
    pumps.read("1.ndjson", 0..400);
    let process = pumps.start("150ms");
    pumps.reached(8_000);
    end(process);
    let before = pumps.size();
    let alarm =
        pumps.records().iter().find(|r| r.verdict.severity > 0 && r.evidence.device == "pump-004").unwrap().clone();
    let index = alarm.index.to_string();

    // Nothing runs: it waits, and saying it again adds nothing.
    let of = ["false-alarm", "--by", "anna", "--lane", "0", "--index", &index, "--reason", "I stood beside it"];
    let said = pumps.label(&of);
    assert_eq!(said["state"], "waiting");
    assert_eq!(pumps.label(&of)["state"], "waiting_before");
    let requests = pumps.requests();
    assert_eq!(requests.len(), 1);
    let request = std::fs::read(&requests[0]).unwrap();

    // Killed between taking it and the checkpoint that would cover it.
    let mut process = pumps.start("1h");
    eventually("it is taken", LIMIT, || (pumps.outcomes("taken") == 1.0).then_some(()));
    process.kill();
    assert_eq!((pumps.size(), pumps.requests()), (before, requests.clone()), "nothing has happened");

    let mut process = pumps.start("150ms");
    eventually("it is durable", LIMIT, || (pumps.size() == before + 1).then_some(()));
    eventually("its request is done with", LIMIT, || pumps.requests().is_empty().then_some(()));
    // Killed before the request was deleted, as if: it is there again.
    process.kill();
    std::fs::write(&requests[0], &request).unwrap();
    let mut process = pumps.start("150ms");
    eventually("the log has it already", LIMIT, || (pumps.outcomes("repeated") == 1.0).then_some(()));
    assert!(pumps.requests().is_empty());
    assert_eq!(pumps.label(&of)["index"], before);
    process.kill();
    assert_eq!((pumps.size(), pumps.labels()), (before + 1, 1));

    let record = pumps.records()[before as usize].clone();
    let label = record.evidence.label.clone().unwrap();
    assert_eq!((record.verdict.class, record.verdict.severity), (class::LABEL_FALSE_ALARM, 0));
    assert_eq!((record.verdict.model_hash, record.verdict.input_digest), (NO_MODEL, label.id()));
    assert_eq!((label.opinion, label.verdict), (Opinion::FalseAlarm, Some(alarm.index)));
    assert_eq!(record.verdict.window_end, alarm.verdict.window_end);
    assert_eq!(said["id"], avouch::lang::hex(&label.id()));

    // The checkpoint that covers it is lost: the recorded input is taken again at its place, and the log regrows the same.
    damage(&pumps.lane());
    let process = pumps.start("150ms");
    eventually("the log has regrown", LIMIT, || (pumps.size() == before + 1).then_some(()));
    assert_eq!(pumps.records()[before as usize].to_bytes(), record.to_bytes());

    // The lane goes on, and the device's numbers with it.
    pumps.read("2.ndjson", 400..500);
    pumps.reached(10_000);
    end(process);
    let records = pumps.records();
    assert!(records.len() as u64 > before + 100, "{}", records.len());
    let mut seq: BTreeMap<&str, u64> = BTreeMap::new();
    for r in &records {
        let next = seq.entry(&r.evidence.device).or_default();
        assert_eq!(r.verdict.seq, *next, "{}", r.evidence.device);
        *next += 1;
    }
    assert_eq!(pumps.labels(), 1);
}

#[test]
fn it_is_shown_where_verdicts_are_and_counts_as_none() {
    let pumps = Pumps::new("label-shown");
    pumps.read("1.ndjson", 0..200);
    let process = pumps.start("150ms");
    pumps.reached(4_000);
    let verdict = pumps.records().into_iter().find(|r| r.verdict.severity > 0).unwrap();
    let (index, device) = (verdict.index.to_string(), verdict.evidence.device.clone());
    let severities = || metric(&pumps.http, "avouch_lane_verdicts_total").unwrap();
    let verdicts = severities();
    let said = pumps.label(&[
        "true-alarm",
        "--by",
        "anna",
        "--lane",
        "0",
        "--index",
        &index,
        "--reason",
        "it smelt of oil",
        "--wait",
        "30s",
    ]);
    assert_eq!(said["state"], "recorded");
    let stretch = pumps.label(&[
        "healthy",
        "--by",
        "bert",
        "--device",
        &device,
        "--from",
        "2026-01-06T08:00:00Z",
        "--to",
        "2026-01-06T09:00:00Z",
        "--wait",
        "30s",
    ]);
    assert_eq!(stretch["index"].as_u64().unwrap(), said["index"].as_u64().unwrap() + 1);
    assert_eq!(severities(), verdicts, "it has no severity");
    let classes = |class: &str| {
        metric(&pumps.http, &format!("avouch_lane_verdict_classes_total{{class=\"{class}\",lane=\"0\"}}")).unwrap()
    };
    assert_eq!((classes("label_true_alarm"), classes("label_healthy")), (1.0, 1.0));

    let explain = pumps.call("explain-verdict").args(["--lane", "0", "--index", &index]).run(LIMIT).success().stdout;
    assert!(explain.contains("says of it: true-alarm") && explain.contains(": it smelt of oil"), "{explain}");
    // Erased by deleting a file.
    std::fs::remove_file(pumps.directory.join(said["reason_file"].as_str().unwrap())).unwrap();
    let explain = pumps.call("explain-verdict").args(["--lane", "0", "--index", &index]).run(LIMIT).success().stdout;
    assert!(!explain.contains("oil") && explain.contains("is not kept here any more"), "{explain}");
    let newest = pumps.call("explain-verdict").args(["--device", &device, "--json"]).run(LIMIT).success().json();
    assert_ne!(newest["verdict"]["class"], "label_healthy", "the newest verdict is no label");

    // What does not fit the log is put aside with the reason.
    let forged = serde_json::json!({
        "format": "avouch-label/1", "log": "avouch/pumps/0", "device": "pump-000", "verdict": verdict.index,
        "step": "anomaly", "from": 1, "to": 2, "says": "missed", "reason_hash": null, "by": "00".repeat(32), "at": 0,
    });
    for (name, text) in [("forged", forged.to_string()), ("nonsense", "{".into())] {
        let (half, whole) = (pumps.inbox().join(format!("{name}.new")), pumps.inbox().join(format!("{name}.json")));
        std::fs::write(&half, text).unwrap();
        std::fs::rename(half, whole).unwrap();
    }
    eventually("they are refused", LIMIT, || (pumps.outcomes("refused") == 2.0).then_some(()));
    let why = |name: &str| std::fs::read_to_string(pumps.inbox().join("refused").join(name)).unwrap();
    assert!(why("forged.why").contains("of another device, step or window than it says"), "{}", why("forged.why"));
    assert!(why("nonsense.why").contains("it is no request of `avouch label`"), "{}", why("nonsense.why"));
    assert!(pumps.requests().is_empty());
    end(process);
    assert_eq!(pumps.labels(), 2);

    // In the archive, like every record of its step; and that of a stretch too.
    let sql = "SELECT index, class, severity FROM verdicts WHERE class LIKE 'label%' ORDER BY index";
    let ask = || pumps.call("query").args([sql, "--format", "csv"]).run(LIMIT).success().stdout;
    let (a, b) = (&said["index"], &stretch["index"]);
    let expected = format!("index,class,severity\n{a},label_true_alarm,normal\n{b},label_healthy,normal\n");
    assert_eq!(ask(), expected);
}

#[test]
fn what_cannot_be_said_is_refused_in_words() {
    let pumps = Pumps::new("label-refused");
    let say = |args: &[&str]| {
        let outcome = pumps.call("label").args(args).run(LIMIT);
        assert_eq!(outcome.code, Some(1), "{args:?}");
        outcome.stderr.replace(&pumps.directory.display().to_string(), "HERE")
    };
    let mut said = vec![say(&["healthy", "--by", "anna", "--lane", "0", "--index", "3"])];
    pumps.read("1.ndjson", 0..100);
    let process = pumps.start("150ms");
    pumps.reached(2_000);
    end(process);
    let records = pumps.records();
    let alarm = records.iter().find(|r| r.verdict.severity > 0).unwrap().index.to_string();
    for args in [
        &["healthy", "--by", "anna", "--lane", "0", "--index", &alarm][..],
        &["true-alarm", "--by", " ", "--lane", "0", "--index", &alarm],
        &["healthy", "--by", "anna", "--lane", "7", "--index", "0"],
        &["healthy", "--by", "anna", "--lane", "0", "--index", "1000000"],
        &["healthy", "--by", "anna", "--device", "pump-000"],
        &["healthy", "--by", "anna", "--device", "pump-000", "--window-end", "noon"],
        &["healthy", "--by", "anna", "--device", "pump-000", "--window-end", "2026-01-06T08:00:01Z"],
        &[
            "missed",
            "--by",
            "anna",
            "--device",
            "pump-0",
            "--from",
            "2026-01-06T08:00:00Z",
            "--to",
            "2026-01-06T09:00:00Z",
        ],
        &[
            "missed",
            "--by",
            "anna",
            "--device",
            "pump-000",
            "--from",
            "2026-01-06T08:00:00Z",
            "--to",
            "2026-01-06T08:00:00Z",
        ],
        &["missed", "--by", "anna", "--device", "pump-000", "--window-end", "2026-01-06T08:00:01Z", "--step", "anomly"],
        &["true-alarm", "--by", "anna", "--lane", "0", "--index", &alarm, "--wait", "1s"],
    ] {
        said.push(say(args).replace(&format!("verdict {alarm} "), "verdict N "));
    }
    let all = said.concat();
    let name = pumps.requests()[0].file_name().unwrap().to_string_lossy().into_owned();
    insta::assert_snapshot!(
        all.replace(&name, "ID.json").replace(&format!("has {} records", records.len()), "has N records")
    );

    // What it says when it is said.
    let text = pumps.call("label").args(["missed", "--by", "bert", "--device", "pump-000", "--reason", "oil"]);
    let text =
        text.args(["--from", "2026-01-06T08:00:00Z", "--to", "2026-01-06T09:00:00Z", "--at", "2026-01-06T10:00:00Z"]);
    let text = text.run(LIMIT).success().stdout.replace(&pumps.directory.display().to_string(), "HERE");
    let hashes: String = text
        .split_inclusive('/')
        .map(|part| match part.split_once(".json") {
            Some((hash, rest)) if hash.len() == 64 => format!("HASH.json{rest}"),
            _ => part.to_owned(),
        })
        .collect();
    insta::assert_snapshot!("said", hashes);
}
