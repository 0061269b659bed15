//! `avouch query` over an archive in an object store: the sink's own settings, and the same answers as of the log.
#![allow(clippy::unwrap_used)]

mod pumps;

use std::time::Duration;

use avouch_system_tests::objects::{BUCKET, ObjectStore};
use avouch_system_tests::{Avouch, place, require};

const LIMIT: Duration = Duration::from_secs(120);

#[test]
fn an_archive_in_a_bucket_answers_as_the_log_does() {
    let store = require!(ObjectStore::start());
    let directory = place::fresh_directory("query");
    std::fs::create_dir(directory.join("data")).unwrap();
    // Half an hour before midnight until half an hour after it: two days.
    let midnight = pumps::START + 16 * 3_600_000;
    let rows: Vec<String> = (-1800..1800)
        .flat_map(|second| (0..2).map(move |d| pumps::reading(&format!("pump-{d:03}"), midnight + second * 1000)))
        .collect();
    std::fs::write(directory.join("data/a.ndjson"), rows.join("\n")).unwrap();
    let place = format!("path = \"s3://{BUCKET}/archive\"");
    let text = pumps::without_kafka(pumps::FILES).replace("path = \"file://${env:T_STATE}/archive\"", &place);
    assert!(text.contains(&place));
    let file = directory.join("pumps.toml");
    std::fs::write(&file, text).unwrap();
    let state = directory.join("state");
    let call = |arguments: &[&str], place: &std::path::Path| {
        let call = Avouch::new(&arguments[..1]).args([place]).args(&arguments[1..]).within(&directory);
        call.env("T_MODEL", pumps::model())
            .env("T_STATE", &state)
            .env("AWS_ENDPOINT", store.endpoint())
            .env("AWS_ALLOW_HTTP", "true")
            .env("AWS_REGION", "us-east-1")
            .env("AWS_ACCESS_KEY_ID", "test")
            .env("AWS_SECRET_ACCESS_KEY", "test")
    };
    let empty = call(&["query", "SELECT 1 FROM verdicts"], &file).run(LIMIT);
    assert!(empty.stderr.contains("is empty: no verdict has been written"), "{}", empty.stderr);
    call(&["run"], &file).run(LIMIT).success();

    let ask = |place: &std::path::Path, sql: &str| {
        call(&["query", sql, "--format", "csv"], place).run(LIMIT).success().stdout
    };
    let bucket = format!("s3://{BUCKET}/archive");
    let bucket = std::path::Path::new(&bucket);
    let log = state.join("pumps");
    for sql in [
        "SELECT day, severity, count(*) AS n, min(index) AS first, max(window_end) AS last FROM verdicts GROUP BY 1, 2 ORDER BY 1, 2",
        "SELECT * FROM verdicts WHERE device = 'pump-001' AND day = '2026-01-07' ORDER BY index LIMIT 50",
        "SELECT get_field(f, 'name') AS name, max(get_field(f, 'value')) AS s FROM \
         (SELECT unnest(features) AS f FROM (SELECT * FROM verdicts ORDER BY index)) GROUP BY 1 ORDER BY 1",
    ] {
        let of_log = ask(&log, sql);
        assert!(of_log.lines().count() > 2, "{of_log}");
        assert_eq!(ask(&file, sql), of_log);
        assert_eq!(ask(bucket, sql), of_log);
    }
    // A day that is not asked for is not read: what is no Parquet file does not matter there.
    store.put("archive/day=1999-01-01/damaged.verdicts.0-1.parquet", b"not parquet");
    let of_day = "SELECT count(*) AS n FROM verdicts WHERE day = '2026-01-06'";
    assert_eq!(ask(&file, of_day), ask(&log, of_day));
    let damaged = call(&["query", "SELECT count(score) FROM verdicts"], &file).run(LIMIT);
    assert_eq!(damaged.code, Some(1));

    // What is missing is said.
    let nobody = call(&["query", "SELECT 1 FROM verdicts"], &file).env("AWS_ENDPOINT", "http://127.0.0.1:1").run(LIMIT);
    assert!(nobody.code == Some(1) && nobody.stderr.contains("AWS_ENDPOINT"), "{}", nobody.stderr);
    let other = std::path::Path::new("s3://no-such-bucket/archive");
    let missing = call(&["query", "SELECT 1 FROM verdicts"], other).run(LIMIT);
    assert!(missing.code == Some(1) && missing.stderr.contains("no-such-bucket"), "{}", missing.stderr);
}
