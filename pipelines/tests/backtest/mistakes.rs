//! What it says when there is nothing to report.

use super::by_hand::place;
use super::refused;

/// What it says of these arguments after `backtest`, with the labels given.
fn says(name: &str, labels: &str, args: &str) -> String {
    let dir = place();
    std::fs::write(dir.join(format!("{name}.csv")), labels).unwrap();
    let mut all = vec!["backtest"];
    all.extend(args.split(' '));
    refused(dir, &all)
}

#[test]
fn files_and_models_that_are_not_there() {
    let dir = place();
    let text = std::fs::read_to_string(dir.join("plain.toml")).unwrap();
    insta::assert_snapshot!(says("none", "", "plain.toml --data nowhere/*.csv"), @"error: --data: no file matches `nowhere/*.csv`; check the path, and quote the pattern so that the shell leaves it alone");

    std::fs::write(dir.join("untrained.toml"), text.replace("plain.model", "untrained.model")).unwrap();
    let untrained = says("none", "", "untrained.toml --data day.ndjson");
    assert!(
        untrained.contains("untrained.toml:24:") && untrained.contains("avouch train untrained.toml"),
        "{untrained}"
    );
    // The other one as well, and before anything is run.
    let against = says("none", "", "plain.toml --data day.ndjson --against untrained.toml --out unwritten");
    assert_eq!(against, untrained);
    assert!(!dir.join("unwritten").exists());

    let (head, rest) = text.split_once("[steps.anomaly]").unwrap();
    let (_, dead_letter) = rest.split_once("[dead_letter]").unwrap();
    let (dead_letter, _) = dead_letter.split_once("[train.anomaly]").unwrap();
    std::fs::write(dir.join("no-model.toml"), format!("{head}[dead_letter]{dead_letter}")).unwrap();
    let no_model = says("none", "", "no-model.toml --data day.ndjson");
    assert!(no_model.contains("model"), "{no_model}");
    insta::assert_snapshot!(no_model);
}

#[test]
fn labels_that_make_no_sense_are_said_with_their_lines_all_at_once() {
    let bad = "device,failed_at,step\na,yesterday,\n,2026-03-01T00:10:00Z,\na,,\nb,2026-03-01T00:10:00Z,anomoly\n";
    insta::assert_snapshot!(says("bad", bad, "plain.toml --data day.ndjson --labels bad.csv"), @r"
    error: bad.csv:2: `failed_at` is `yesterday`, which is no time; write milliseconds since 1970, RFC 3339, or YYYY-MM-DD HH:MM:SS (UTC)
    bad.csv:3: the device is empty; name it as the readings do
    bad.csv:4: `failed_at` is empty; every label needs a time
    bad.csv:5: there is no model step `anomoly`; there is anomaly
    ");
    let unknown = "device,from,to\naa,2026-03-01 00:10:00,2026-03-01 00:11:00\npump-77,1,2\n";
    insta::assert_snapshot!(says("unknown", unknown, "plain.toml --data day.ndjson --labels unknown.csv"), @r"
    error: unknown.csv:2: the device `aa` is not in the data: it has no verdict and no dead letter; did you mean `a`?
    unknown.csv:3: the device `pump-77` is not in the data: it has no verdict and no dead letter; write the device as the readings do, or give --data its readings
    ");
    let backwards = "device,from,to\na,2026-03-01 00:11:00,2026-03-01 00:10:00\n";
    insta::assert_snapshot!(says("backwards", backwards, "plain.toml --data day.ndjson --labels backwards.csv"), @"error: backwards.csv:2: `to` is not after `from`; a window is [from, to)");
    insta::assert_snapshot!(says("columns", "device,when\na,1\n", "plain.toml --data day.ndjson --labels columns.csv"), @"error: columns.csv:2: labels are `device, failed_at [, step]` or `device, from, to [, step]`; these are neither: `device`, `when`");
    insta::assert_snapshot!(says("pump", "pump,failed_at\na,1\n", "plain.toml --data day.ndjson --labels pump.csv"), @"error: --labels: pump.csv:1: there is no column `device`; the columns are `pump`, `failed_at`");
    insta::assert_snapshot!(says("empty", "device,failed_at\n", "plain.toml --data day.ndjson --labels empty.csv"), @"error: empty.csv: there is no label in it; leave --labels out if none is known");
    insta::assert_snapshot!(says("x", "", "plain.toml --data day.ndjson --labels lost.csv"), @"error: --labels: no file matches `lost.csv`; check the path, and quote the pattern so that the shell leaves it alone");
}
