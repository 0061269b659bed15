//! `avouch query`.

use std::path::Path;

use avouch::query::{QueryError, Verdicts, csv, json, table};
use avouch::verdict_table::archive_rows;
use avouch_connectors::files::{Archive, ArchiveCursor};
use avouch_engine::verdict::{Evidence, FeatureEvidence, Verdict, VerdictRecord};

const DAY: u64 = 86_400_000;

fn record(index: u64, device: &str, window_end: u64, severity: u8) -> VerdictRecord {
    let feature = |name: &str, value| FeatureEvidence { name: name.into(), value, expected: 1.0, contribution: 0.5 };
    let evidence = Evidence {
        salt: [0; 32],
        device: device.into(),
        step: "anomaly".into(),
        topic: "t".into(),
        partition: 0,
        first_offset: 0,
        last_offset: 9,
        rows: 10,
        references: Vec::new(),
        score: if severity == 0 { f64::NAN } else { 4.5 },
        p_value: 0.25,
        interval: None,
        incident: None,
        label: None,
        features: vec![feature("rms", 2.5), feature("peak", 7.0)],
    };
    let verdict = Verdict {
        device_id: [1; 32],
        seq: index,
        window_start: window_end - 60_000,
        window_end,
        model_hash: [2; 32],
        config_hash: [3; 32],
        input_digest: [4; 32],
        score_e6: 0,
        severity,
        class: 0,
        evidence_hash: evidence.hash(),
        salt: [5; 32],
    };
    VerdictRecord { index, verdict, evidence }
}

/// Two days in an archive, as the sink writes it.
async fn write(dir: &Path) {
    let mut archive = Archive::open(&format!("file://{}", dir.display()), "avouch/p/0", "archive").unwrap();
    let records = [record(0, "p,1", DAY, 0), record(1, "p-2", DAY, 2), record(2, "p-2", 2 * DAY, 1)];
    let days = [("1970-01-02", &records[..2]), ("1970-01-03", &records[2..])].map(|(day, records)| {
        (day.to_owned(), archive_rows("avouch/p/0", &records.iter().collect::<Vec<_>>()).unwrap())
    });
    let announced = ArchiveCursor { next: 0, until: 3, root: String::new() };
    archive.cursor().await.unwrap();
    archive.set_cursor(&announced).await.unwrap();
    archive.write(&announced, &days.into(), "").await.unwrap();
}

fn block_on<T>(f: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(f)
}

fn said(outcome: Result<impl Sized, QueryError>) -> String {
    match outcome {
        Err(e) => e.to_string(),
        Ok(_) => panic!("it had an answer"),
    }
}

#[test]
fn an_archive_answers() {
    let dir = tempfile::tempdir().unwrap();
    block_on(async {
        write(dir.path()).await;
        let verdicts = Verdicts::in_directory(dir.path()).unwrap();
        let sql = "SELECT day, device, severity, score, window_end FROM verdicts ORDER BY log, index";
        let (schema, rows) = verdicts.query(sql).await.unwrap();
        insta::assert_snapshot!("table", table(&schema, &rows).unwrap());
        insta::assert_snapshot!("csv", csv(&schema, &rows).unwrap());
        let sql = "SELECT device, features FROM verdicts WHERE index = 2";
        let (schema, rows) = verdicts.query(sql).await.unwrap();
        insta::assert_snapshot!("json", json(&schema, &rows).unwrap());
        let sql = "SELECT get_field(f, 'name') AS name, max(get_field(f, 'value')) AS value FROM (SELECT unnest(features) AS f FROM verdicts) GROUP BY 1 ORDER BY 1";
        let (schema, rows) = verdicts.query(sql).await.unwrap();
        insta::assert_snapshot!("nested", table(&schema, &rows).unwrap());
    });
}

/// A file that cannot be read shows whether it was.
#[test]
fn only_the_days_asked_for_are_read() {
    let dir = tempfile::tempdir().unwrap();
    block_on(async {
        write(dir.path()).await;
        let damaged = dir.path().join("day=1970-01-03");
        for file in std::fs::read_dir(damaged).unwrap() {
            std::fs::write(file.unwrap().path(), b"not parquet").unwrap();
        }
        let verdicts = Verdicts::in_directory(dir.path()).unwrap();
        let one = verdicts.query("SELECT count(*) AS n FROM verdicts WHERE day = '1970-01-02'").await.unwrap();
        assert_eq!(csv(&one.0, &one.1).unwrap(), "n\n2\n");
        assert!(verdicts.query("SELECT count(score) FROM verdicts").await.is_err());
    });
}

#[test]
fn what_cannot_be_answered_is_said() {
    let dir = tempfile::tempdir().unwrap();
    block_on(async {
        write(dir.path()).await;
        let verdicts = Verdicts::in_directory(dir.path()).unwrap();
        let mut all = String::new();
        for sql in [
            "SELECT severty FROM verdicts",
            "SELECT * FROM verdict",
            "SELECT cuont(*) FROM verdicts",
            "SELEC 1",
            "DROP TABLE verdicts",
            "INSERT INTO verdicts SELECT * FROM verdicts",
            "COPY verdicts TO '/tmp/x.csv'",
        ] {
            all += &format!("> {sql}\n{}\n\n", said(verdicts.query(sql).await));
        }
        insta::assert_snapshot!("errors", all);
        let none = tempfile::tempdir().unwrap();
        assert!(said(Verdicts::in_directory(none.path())).contains("neither an archive"));
        std::fs::create_dir(none.path().join("_cursors")).unwrap();
        let empty = Verdicts::in_directory(none.path()).unwrap();
        assert!(said(empty.query("SELECT 1 FROM verdicts").await).contains("is empty: no verdict"));
    });
}

#[test]
fn a_sink_is_found_by_name() {
    let pipeline = super::everything();
    assert!(matches!(Verdicts::of(&pipeline, None).unwrap(), Verdicts::Archive { only: None, .. }));
    assert_eq!(
        said(Verdicts::of(&pipeline, Some("archve"))),
        "there is no parquet sink `archve`; did you mean `archive`?"
    );
}
