//! Erasing: a device's records are gone from the lane, whatever the process that erases them dies of, and the log stays valid.
#![allow(clippy::unwrap_used)]

mod pumps;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use avouch::erasure::{EraseError, Erasing, Lanes, OfLane, What, carry_out, choose};
use avouch::lang::Pipeline;
use avouch_connectors::store::LaneReader;
use avouch_engine::log::verify_inclusion;
use avouch_engine::verdict::{Hash32, LogOrigin, Secret, VerdictRecord};
use avouch_system_tests::{Avouch, place};
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(60);
const DEVICE: &str = "pump-004";

/// A pipeline over files, which ends when it has read them.
struct Pumps {
    directory: PathBuf,
    /// Whether the file gives the secret.
    given: bool,
}

impl Pumps {
    fn new(what: &str, given: bool) -> Self {
        let directory = place::fresh_directory(what);
        std::fs::create_dir(directory.join("data")).unwrap();
        Self { directory, given }
    }

    fn copy(&self, what: &str) -> Self {
        let to = Self { directory: place::fresh_directory(what), given: self.given };
        copy(&self.directory, &to.directory);
        to
    }

    /// Readings of twenty pumps, one a second each.
    fn read(&self, file: &str, seconds: std::ops::Range<i64>) {
        let rows: Vec<String> = seconds
            .flat_map(|s| (0..20).map(move |d| pumps::reading(&format!("pump-{d:03}"), pumps::START + s * 1000)))
            .collect();
        std::fs::write(self.directory.join("data").join(file), rows.join("\n")).unwrap();
    }

    fn call(&self, command: &str) -> Avouch {
        let call = pumps::avouch_without_kafka(command, &self.directory, pumps::FILES, "state");
        if !self.given {
            let file = self.directory.join("pumps.toml");
            let text = std::fs::read_to_string(&file).unwrap();
            let without: Vec<&str> = text.lines().filter(|l| !l.starts_with("secret ")).collect();
            std::fs::write(&file, without.join("\n")).unwrap();
        }
        call
    }

    fn run(&self) {
        self.call("run").run(LIMIT).success();
    }

    fn state(&self) -> PathBuf {
        self.directory.join("state/pumps")
    }

    fn reader(&self) -> LaneReader {
        LaneReader::open_read_only(&self.state().join("0")).unwrap()
    }

    fn kept(&self) -> Vec<VerdictRecord> {
        self.reader().kept(0, usize::MAX).unwrap()
    }

    fn entries(&self) -> Vec<Hash32> {
        let reader = self.reader();
        (0..reader.committed().log_size).map(|i| reader.entry(i).unwrap()).collect()
    }

    fn secret(&self) -> Secret {
        Secret::from_stored(&std::fs::read(self.state().join("secret")).unwrap()).unwrap()
    }

    fn refused(&self, args: &[&str]) -> String {
        let outcome = self.call("erase").args(args).run(LIMIT);
        assert_eq!(outcome.code, Some(1), "{}{}", outcome.stdout, outcome.stderr);
        let text = outcome.stderr.replace(&self.directory.display().to_string(), "DIR");
        // Without the log.
        text.lines().filter(|l| l.starts_with("error: ")).map(str::to_owned).collect()
    }

    /// The pipeline, for who is in this process: with the values of the variables.
    fn pipeline(&self) -> Pipeline {
        self.call("run");
        let text = std::fs::read_to_string(self.directory.join("pumps.toml")).unwrap();
        let state = self.directory.join("state").display().to_string();
        let text =
            text.replace("${env:T_STATE}", &state).replace("${env:T_MODEL}", &pumps::model().display().to_string());
        let file = self.directory.join("here.toml");
        std::fs::write(&file, text).unwrap();
        Pipeline::load(file).map_err(|d| d.render_text(false)).unwrap()
    }
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let to = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy(&path, &to);
        } else {
            std::fs::copy(&path, to).unwrap();
        }
    }
}

/// Whether the bytes are in a file of the lane's records.
fn is_in_records(state: &Path, needle: &[u8]) -> bool {
    let names = std::fs::read_dir(state.join("0")).unwrap().map(|e| e.unwrap().path());
    names
        .filter(|p| p.file_name().unwrap().to_str().unwrap().starts_with("records-"))
        .any(|p| std::fs::read(p).unwrap().windows(needle.len()).any(|w| w == needle))
}

/// A label's score is not a number, and equal to none.
fn bytes(records: &[VerdictRecord]) -> Vec<u8> {
    records.iter().flat_map(VerdictRecord::to_bytes).collect()
}

fn seqs(records: &[VerdictRecord]) -> BTreeMap<&str, Vec<u64>> {
    let mut out: BTreeMap<&str, Vec<u64>> = BTreeMap::new();
    records.iter().for_each(|r| out.entry(&r.evidence.device).or_default().push(r.verdict.seq));
    out
}

#[test]
fn a_device_is_erased_and_the_log_goes_on() {
    let pumps = Pumps::new("erase", false);
    pumps.read("1.ndjson", 0..400);
    pumps.run();
    let alarm = pumps.kept().into_iter().find(|r| r.verdict.severity > 0 && r.evidence.device == DEVICE).unwrap();
    let of =
        ["false-alarm", "--by", "anna", "--lane", "0", "--index", &alarm.index.to_string(), "--reason", "no alarm"];
    pumps.call("label").args(of).run(LIMIT).success();
    pumps.read("2.ndjson", 400..500);
    pumps.run();
    let (before, entries) = (pumps.kept(), pumps.entries());
    let mine = |r: &&VerdictRecord| r.evidence.device == DEVICE;
    let (gone, label): (Vec<&VerdictRecord>, _) =
        (before.iter().filter(mine).collect(), before.iter().find(|r| r.evidence.label.is_some()).unwrap());
    assert!(gone.len() > 50 && label.evidence.device == DEVICE, "{}", gone.len());
    let reasons = || std::fs::read_dir(pumps.state().join("labels/reasons")).unwrap().count();
    assert_eq!((reasons(), std::fs::metadata(pumps.state().join("secret")).unwrap().len()), (1, 32));

    // What a tired person types.
    let typed: [&[&str]; 5] = [
        &[],
        &["--device", "pmp-004"],
        &["--lane", "3", "--index", "1"],
        &["--device", DEVICE, "--secret-out", "here", "--yes"],
        &["--from", "2026-01-02T00:00:00Z", "--to", "2026-01-01T00:00:00Z"],
    ];
    let answers: Vec<String> =
        typed.iter().map(|args| format!("{}\n{}\n", args.join(" "), pumps.refused(args))).collect();
    insta::assert_snapshot!("erase_typed_wrong", answers.join("\n"));
    let asked = pumps.call("erase").args(["--device", DEVICE]).run(LIMIT);
    assert_eq!(asked.code, Some(1));
    insta::assert_snapshot!("erase_overview", without_numbers(&asked.stdout));
    assert!(asked.stderr.contains("records would be erased, for good; say --yes"), "{}", asked.stderr);
    assert!(bytes(&pumps.kept()) == bytes(&before), "nothing has happened");

    let said: Value = pumps.call("erase").args(["--device", DEVICE, "--yes", "--json"]).run(LIMIT).success().json();
    assert_eq!((&said["records"], &said["reasons"]), (&Value::from(gone.len()), &Value::from(1)));
    assert_eq!(reasons(), 0);
    for name in ["erasing", "secret.before", "secret.tmp"] {
        assert!(!pumps.state().join(name).exists(), "{name}");
    }

    // Every other record is as it was, and so is every entry; nothing of the erased ones is in the records any more.
    let rest: Vec<VerdictRecord> = before.iter().filter(|r| !mine(r)).cloned().collect();
    assert!(bytes(&pumps.kept()) == bytes(&rest));
    assert_eq!(pumps.entries(), entries);
    assert!(!is_in_records(&pumps.state(), DEVICE.as_bytes()) && is_in_records(&pumps.state(), b"pump-005"));
    assert!(gone.iter().all(|r| !is_in_records(&pumps.state(), &r.verdict.salt)));
    // Nor can the salts be made again, while all others can.
    let (secret, log_id) = (pumps.secret(), LogOrigin::new("pumps", 0).log_id());
    assert!(gone.iter().all(|r| !secret.has(&log_id, r.index)));
    assert!(rest.iter().all(|r| secret.record_salts(&log_id, r.index, 1)[0].salt == r.verdict.salt));

    // The pipeline goes on as if nothing had been: the device has its next number, and nobody else a gap.
    pumps.read("3.ndjson", 500..600);
    pumps.run();
    let after = pumps.kept();
    let (old, new) = (seqs(&before), seqs(&after));
    assert_eq!(new[DEVICE][0], *old[DEVICE].last().unwrap() + 1);
    for (device, seqs) in new.iter().filter(|(d, _)| **d != DEVICE) {
        assert!(seqs.iter().zip(0..).all(|(a, b)| *a == b), "{device}");
        assert!(seqs.len() > old[device].len());
    }
    assert_eq!(pumps.entries()[..entries.len()], entries);

    // Proofs of other records hold, and those of erased ones prove an entry.
    let (reader, size) = (pumps.reader(), pumps.reader().committed().log_size);
    let root = reader.committed().root;
    for record in [&rest[0], rest.last().unwrap(), gone[0]] {
        let proof = reader.inclusion_proof(record.index, size).unwrap();
        verify_inclusion(&record.entry(), record.index, size, &proof, &root).unwrap();
    }

    // Its readers.
    let index = gone[0].index.to_string();
    let explained = pumps.call("explain-verdict").args(["--lane", "0", "--index", &index]).run(LIMIT);
    assert_eq!(explained.code, Some(1));
    let why = format!("error: record {index} of avouch/pumps/0 was erased");
    assert!(explained.stderr.starts_with(&why), "{}", explained.stderr);
    let query =
        Avouch::new(["query"]).args([pumps.state()]).args(["SELECT count(*) AS n FROM verdicts", "--format", "json"]);
    assert_eq!(query.run(LIMIT).success().json()["n"], after.len());

    // Audited: everything fits, and somebody is to look at what was erased.
    let export = pumps.directory.join("export");
    pumps.call("export").args(["--lane", "0", "--readings", "--out"]).args([&export]).run(LIMIT).success();
    let report = Avouch::new(["audit"]).args([&export]).args(["--json"]).run(LIMIT).json();
    let check = |name: &str| report["checks"].as_array().unwrap().iter().find(|c| c["name"] == name).unwrap().clone();
    assert_eq!((&check("records")["grade"], &check("erased")["grade"]), (&"passed".into(), &"attention".into()));
    assert_eq!(check("sequence")["grade"], "attention");
    let found = |name: &str| check(name)["findings"][0]["what"].as_str().unwrap().to_owned();
    let n = gone.len();
    assert_eq!(found("sequence"), format!("{n} numbers are missing, each where another of {n} records was erased"));
    assert!(found("erased").starts_with(&format!("{n} records were erased, the first of them {index}, the last ")));

    // Replayed, with what is left of the secret and without.
    let replay = |secret: &[&str]| {
        Avouch::new(["replay"]).args([&export]).args(secret).args(["--json"]).run(LIMIT).success().json()
    };
    let secret = pumps.state().join("secret").display().to_string();
    for with in [&["--secret", &secret][..], &[]] {
        let replayed = replay(with);
        assert_eq!(
            (&replayed["erased"], &replayed["same"]),
            (&Value::from(gone.len()), &Value::from(true)),
            "{replayed}"
        );
        assert_eq!(replayed["agreed"], after.len());
    }

    // A lane older than the erasure is not gone on with: it could not make the same records again.
    let old = pumps.copy("erase-old");
    std::fs::remove_dir_all(old.state().join("0")).unwrap();
    let outcome = old.call("run").run(LIMIT);
    assert_eq!(outcome.code, Some(1));
    assert!(outcome.stderr.contains("the lane's directory is older than the erasure"), "{}", outcome.stderr);

    // A period.
    let from = before[300].verdict.window_start;
    let time = |ms: u64| avouch_engine::decode::format_timestamp(ms as i64);
    let period = ["--from", &time(from), "--to", &time(from + 60_000), "--yes"];
    pumps.call("erase").args(period).run(LIMIT).success();
    assert!(pumps.kept().iter().all(|r| r.verdict.window_end <= from || r.verdict.window_start >= from + 60_000));
    assert_eq!(pumps.entries()[..entries.len()], entries);
}

#[test]
fn killed_at_every_step_it_is_finished_by_calling_it_again() {
    for given in [false, true] {
        let whole = Pumps::new(&format!("erase-kills-{given}"), given);
        whole.read("1.ndjson", 0..200);
        whole.run();
        let before = whole.kept();
        let gone: Vec<u64> = before.iter().filter(|r| r.evidence.device == DEVICE).map(|r| r.index).collect();
        for stop in 0..4 {
            let pumps = whole.copy(&format!("erase-kill-{given}-{stop}"));
            let (pipeline, out) = (pumps.pipeline(), pumps.directory.join("new-secret"));
            let mut lanes = Lanes::open(&pipeline).unwrap();
            let what = What { device: Some(DEVICE.into()), ..What::default() };
            let chosen =
                lanes.each().map(|(lane, store)| choose(&what, lane, &store.reader()).unwrap()).next().unwrap();
            assert_eq!(chosen.indices, gone);
            let erasing = Erasing::new(vec![OfLane::new(0, &gone)], Vec::new(), given.then(|| out.clone()));
            let mut step = 0;
            let killed = carry_out(&pipeline, &erasing, &mut lanes, &mut |_| {
                step += 1;
                if step > stop { Err(EraseError::Refused("killed".into())) } else { Ok(()) }
            });
            assert!(killed.is_err());
            drop(lanes);

            // Until it is finished nothing else is done with the pipeline.
            let outcome = pumps.call("run").run(LIMIT);
            assert_eq!(outcome.code, Some(1), "{stop}");
            assert!(
                outcome.stderr.contains("are being erased, and that is not finished; `avouch erase "),
                "{}",
                outcome.stderr
            );

            let finished = pumps.call("erase").run(LIMIT).success();
            assert!(finished.stdout.contains("an erasure had been broken off and is finished"), "{}", finished.stdout);
            assert!(!pumps.state().join("erasing").exists());
            assert!(pumps.kept().iter().all(|r| r.evidence.device != DEVICE));
            assert_eq!(pumps.kept().len() + gone.len(), before.len());
            assert!(!is_in_records(&pumps.state(), DEVICE.as_bytes()));
            let left =
                if given { std::fs::read(&out).unwrap() } else { std::fs::read(pumps.state().join("secret")).unwrap() };
            let secret = Secret::from_stored(&left).unwrap();
            let log_id = LogOrigin::new("pumps", 0).log_id();
            assert!(secret.is_punctured() && gone.iter().all(|i| !secret.has(&log_id, *i)));

            // And the pipeline goes on, where its secret is given with what is left of it.
            pumps.read("2.ndjson", 200..300);
            let text = String::from_utf8_lossy(&left).trim().to_owned();
            let run = pumps.call("run");
            let run = if given { run.env("T_SECRET", text) } else { run };
            run.run(LIMIT).success();
            let after = seqs(&pumps.kept()).into_iter().map(|(d, s)| (d.to_owned(), s)).collect::<BTreeMap<_, _>>();
            assert!(after["pump-005"].iter().zip(0..).all(|(a, b)| *a == b));
            assert_eq!(after[DEVICE][0], gone.len() as u64);
        }
    }
}

#[test]
fn what_was_erased_stays_out_of_a_secret_that_somebody_else_keeps() {
    let pumps = Pumps::new("erase-twice", true);
    pumps.read("1.ndjson", 0..100);
    pumps.run();
    let before = pumps.kept();
    // The second time with the secret as it was before the first: nobody has put what was left of it in its place.
    for (device, out) in [(DEVICE, "first"), ("pump-005", "second")] {
        let out = pumps.directory.join(out);
        pumps.call("erase").args(["--device", device, "--yes", "--secret-out"]).args([out]).run(LIMIT).success();
    }
    let secret = Secret::from_stored(&std::fs::read(pumps.directory.join("second")).unwrap()).unwrap();
    let log_id = LogOrigin::new("pumps", 0).log_id();
    for record in before {
        let erased = [DEVICE, "pump-005"].contains(&&*record.evidence.device);
        assert_eq!(secret.has(&log_id, record.index), !erased, "{}", record.index);
    }
}

#[test]
fn what_stands_in_the_way_is_named() {
    let pumps = Pumps::new("erase-refused", true);
    pumps.read("1.ndjson", 0..100);
    pumps.run();
    let args = ["--device", DEVICE, "--yes", "--secret-out", "new"];
    let mut said = vec![pumps.refused(&args[..3])];
    // A sink that has not had all.
    let mut cursor = pumps.reader().cursor("verdicts").unwrap();
    let end = cursor.get();
    cursor.set(7).unwrap();
    said.push(pumps.refused(&args));
    cursor.set(end).unwrap();
    // It runs.
    let pipeline = pumps.pipeline();
    let held = Lanes::open(&pipeline).unwrap();
    said.push(pumps.refused(&args));
    drop(held);
    // What says what is being erased is damaged.
    std::fs::write(pumps.state().join("erasing"), "{").unwrap();
    said.push(pumps.refused(&args));
    insta::assert_snapshot!("erase_refused", without_numbers(&said.join("\n")));
}

/// What differs from run to run is as good as any number.
fn without_numbers(text: &str) -> String {
    let (mut out, mut digits) = (String::new(), false);
    for c in text.chars() {
        if !c.is_ascii_digit() {
            out.push(c);
        } else if !digits {
            out.push('N');
        }
        digits = c.is_ascii_digit();
    }
    out
}
