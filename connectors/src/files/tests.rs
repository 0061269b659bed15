#![allow(clippy::unwrap_used)]

use std::path::PathBuf;
use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, DictionaryArray, Float32Array, Float64Array, Int32Array, StringArray};
use arrow::array::{RecordBatch, TimestampMicrosecondArray};
use arrow::datatypes::Int8Type;
use parquet::arrow::ArrowWriter;
use proptest::prelude::*;
use tempfile::TempDir;

use super::*;

struct Folder(TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }
    fn file(&self, name: &str, content: impl AsRef<[u8]>) -> String {
        let path = self.0.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, content).unwrap();
        path.to_str().unwrap().to_owned()
    }
    fn pattern(&self, pattern: &str) -> String {
        self.0.path().join(pattern).to_str().unwrap().to_owned()
    }
    fn message(&self, error: &FilesError) -> String {
        error.to_string().replace(&format!("{}/", self.0.path().display()), "")
    }
}

fn rows(options: ReplayOptions) -> Result<Vec<Row>, FilesError> {
    let mut replay = options.open()?;
    let mut out = Vec::new();
    let mut row = Row::default();
    while replay.next_row(&mut row)? {
        out.push(row.clone());
    }
    let (done, all) = replay.progress();
    assert_eq!(done, all, "progress ends at 100 %");
    Ok(out)
}

fn json(options: ReplayOptions) -> Vec<String> {
    rows(options).unwrap().into_iter().map(|r| String::from_utf8(r.json).unwrap()).collect()
}

const SKAB: &str = "datetime;Accelerometer1RMS;Volume Flow RateRMS;anomaly\n\
    2020-03-09 10:14:33;0.0265878;32.0;0.0\n\
    2020-03-09 10:14:34;0.0261697;;1.0\n";

#[test]
fn a_semicolon_file_with_the_device_from_its_path() {
    let folder = Folder::new();
    folder.file("valve1/0.csv", SKAB);
    let mut options = ReplayOptions::new([folder.pattern("*/*.csv")]);
    options.delimiter = b';';
    options.device = Some(DeviceFrom::Path);
    options.time = Some("datetime".into());
    let rows = rows(options).unwrap();
    assert_eq!(
        String::from_utf8_lossy(&rows[0].json),
        r#"{"device":"valve1/0","datetime":"2020-03-09 10:14:33","Accelerometer1RMS":0.0265878,"Volume Flow RateRMS":32.0,"anomaly":0.0}"#
    );
    assert_eq!(
        String::from_utf8_lossy(&rows[1].json),
        r#"{"device":"valve1/0","datetime":"2020-03-09 10:14:34","Accelerometer1RMS":0.0261697,"Volume Flow RateRMS":null,"anomaly":1.0}"#
    );
    assert_eq!((rows[1].device.as_str(), rows[1].key.as_str()), ("valve1/0", "valve1/0"));
    assert_eq!(rows[1].time_ms, Some(1_583_748_874_000));
    assert_eq!((rows[0].line, rows[1].line), (2, 3));
}

#[test]
fn quotes_line_breaks_escapes_and_a_byte_order_mark() {
    let folder = Folder::new();
    let file = folder.file(
        "a.csv",
        "\u{feff}device,note,x\r\n1,\"says \"\"hi\"\",\r\nthen\tleaves\",007\r\n2,\\ é \u{1},-1.50e3\r\n3,true,+1\r\n",
    );
    let mut options = ReplayOptions::new([file]);
    options.device = Some(DeviceFrom::Column("device".into()));
    let rows = rows(options).unwrap();
    let json: Vec<_> = rows.iter().map(|r| std::str::from_utf8(&r.json).unwrap()).collect();
    assert_eq!(
        json,
        [
            r#"{"device":"1","note":"says \"hi\",\r\nthen\tleaves","x":"007"}"#,
            r#"{"device":"2","note":"\\ é \u0001","x":-1.50e3}"#,
            r#"{"device":"3","note":"true","x":"+1"}"#,
        ]
    );
    assert_eq!(rows.iter().map(|r| r.line).collect::<Vec<_>>(), [2, 4, 5]);
}

#[test]
fn names_given_instead_of_a_header_and_columns_kept_as_text() {
    let folder = Folder::new();
    let file = folder.file("a.tsv", "17\t0012\r\n18\t5\r\n");
    let mut options = ReplayOptions::new([file]);
    options.header = Header::Names(vec!["n".into(), "part".into()]);
    options.text = vec!["part".into()];
    let rows = rows(options).unwrap();
    assert_eq!(rows[0].json, br#"{"n":17,"part":"0012"}"#);
    assert_eq!(rows[1].json, br#"{"n":18,"part":"5"}"#);
    assert_eq!((rows[0].line, rows[1].line), (1, 2));
}

#[test]
fn ndjson_goes_through_as_it_stands() {
    let folder = Folder::new();
    let lines =
        [r#"{"device":"a","ts":1000,"x":1e-7,"deep":{"y":[1,2]}}"#, r#"{ "ts":"1970-01-01T00:00:02Z", "device":"b" }"#];
    let file = folder.file("a.ndjson", format!("{}\r\n\n{}", lines[0], lines[1]));
    let mut options = ReplayOptions::new([file]);
    options.device = Some(DeviceFrom::Column("device".into()));
    options.key = Some("x".into());
    options.time = Some("ts".into());
    let rows = rows(options).unwrap();
    assert_eq!(rows.iter().map(|r| std::str::from_utf8(&r.json).unwrap()).collect::<Vec<_>>(), lines);
    assert_eq!(
        rows.iter().map(|r| (r.device.as_str(), r.time_ms, r.line)).collect::<Vec<_>>(),
        [("a", Some(1000), 1), ("b", Some(2000), 3)]
    );
    assert_eq!((rows[0].key.as_str(), rows[1].key.as_str()), ("1e-7", ""));
}

#[test]
fn the_path_device_is_put_into_ndjson() {
    let folder = Folder::new();
    folder.file("line/p1.jsonl", " {\"x\":1}\n{}\n");
    let mut options = ReplayOptions::new([folder.pattern("line/*")]);
    options.device = Some(DeviceFrom::Path);
    assert_eq!(json(options.clone()), [r#"{"device":"line/p1","x":1}"#, r#"{"device":"line/p1"}"#]);
    options.device_field = None;
    let kept = rows(options.clone()).unwrap();
    assert_eq!((kept[0].json.as_slice(), kept[0].device.as_str()), (br#" {"x":1}"#.as_slice(), "line/p1"));
    options.device_field = Some("x".into());
    let error = rows(options).unwrap_err();
    assert_eq!(
        folder.message(&error),
        "line/p1.jsonl:1: there is a field `x` already; give the device of the path another field name, or take the device from the field"
    );
}

#[test]
fn unreadable_lines_are_errors_or_kept() {
    let folder = Folder::new();
    let file = folder.file(
        "a.ndjson",
        "{\"device\":\"a\",\"ts\":7}\n{\"device\":\"a\",\"ts\":8\n[1]\n{\"device\":\"a\",\"ts\":9}\n",
    );
    let mut options = ReplayOptions::new([file]);
    options.device = Some(DeviceFrom::Column("device".into()));
    options.time = Some("ts".into());
    let error = rows(options.clone()).unwrap_err();
    assert_eq!(
        folder.message(&error),
        "a.ndjson:2: this line is not a JSON object: EOF while parsing an object, at byte 20"
    );
    options.keep_unreadable = true;
    let rows = rows(options).unwrap();
    assert_eq!(
        rows.iter().map(|r| (r.readable, r.time_ms)).collect::<Vec<_>>(),
        [(true, Some(7)), (false, Some(7)), (false, Some(7)), (true, Some(9))]
    );
    assert_eq!(rows[1].json, br#"{"device":"a","ts":8"#);
    assert_eq!(rows[1].device, "");
}

fn parquet_file(folder: &Folder, name: &str, columns: Vec<(&str, ArrayRef)>) -> String {
    let batch = RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(n, a)| (n, a, true))).unwrap();
    let mut bytes = Vec::new();
    let mut writer = ArrowWriter::try_new(&mut bytes, batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    folder.file(name, bytes)
}

#[test]
fn parquet_of_every_flat_type() {
    let folder = Folder::new();
    let names: DictionaryArray<Int8Type> = vec![Some("p\"1"), None].into_iter().collect();
    let file = parquet_file(
        &folder,
        "a.parquet",
        vec![
            ("device", Arc::new(Int32Array::from(vec![17, 18])) as ArrayRef),
            (
                "ts",
                Arc::new(TimestampMicrosecondArray::from(vec![1_500_999, 2_000_000]).with_timezone("Europe/Berlin")),
            ),
            ("f64", Arc::new(Float64Array::from(vec![Some(0.1), Some(f64::NAN)]))),
            ("f32", Arc::new(Float32Array::from(vec![Some(0.1), None]))),
            ("ok", Arc::new(BooleanArray::from(vec![true, false]))),
            ("name", Arc::new(names)),
            ("text", Arc::new(StringArray::from(vec!["1", "é"]))),
        ],
    );
    let mut options = ReplayOptions::new([file]);
    options.device = Some(DeviceFrom::Column("device".into()));
    options.time = Some("ts".into());
    let rows = rows(options).unwrap();
    assert_eq!(
        rows.iter().map(|r| std::str::from_utf8(&r.json).unwrap()).collect::<Vec<_>>(),
        [
            r#"{"device":"17","ts":1500,"f64":0.1,"f32":0.1,"ok":true,"name":"p\"1","text":"1"}"#,
            r#"{"device":"18","ts":2000,"f64":null,"f32":null,"ok":false,"name":null,"text":"é"}"#,
        ]
    );
    assert_eq!(
        rows.iter().map(|r| (r.device.as_str(), r.time_ms, r.line)).collect::<Vec<_>>(),
        [("17", Some(1500), 1), ("18", Some(2000), 2)]
    );
}

#[test]
fn a_fleet_comes_in_time_order_ties_by_file() {
    let folder = Folder::new();
    folder.file("a.csv", "ts,x\n1,a1\n3,a3\n3,a3b\n9,a9\n");
    folder.file("b.csv", "ts,x\n2,b2\n3,b3\n4,b4\n");
    folder.file("c.csv", "ts,x\n");
    let mut options = ReplayOptions::new([folder.pattern("b.csv"), folder.pattern("*.csv")]);
    options.time = Some("ts".into());
    options.device = Some(DeviceFrom::Path);
    options.device_field = None;
    let x = |rows: Vec<String>| -> String {
        rows.iter().map(|r| r.rsplit('"').nth(1).unwrap().to_owned()).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(x(json(options.clone())), "a1 b2 b3 a3 a3b b4 a9");
    options.skip = 1;
    options.first = Some(2);
    assert_eq!(x(json(options.clone())), "b3 a3 a3b b4");
    options.order = Order::File;
    assert_eq!(x(json(options)), "b3 b4 a3 a3b");
}

#[test]
fn what_is_wrong_is_said_at_file_and_line() {
    let folder = Folder::new();
    let unsorted = folder.file("unsorted.csv", "device,ts\na,1000\na,3000\na,2000\n");
    let by_time = |file: &str, time: &str| {
        let mut options = ReplayOptions::new([file]);
        options.time = Some(time.into());
        options
    };
    let message = |options: ReplayOptions| folder.message(&rows(options).unwrap_err());
    let mut lines = vec![
        message(by_time(&unsorted, "ts")),
        message(by_time(&unsorted, "time")),
        message(by_time(&folder.file("gap.csv", "ts,x\n1,1\n,2\n"), "ts")),
        message(by_time(&folder.file("words.csv", "ts,x\nyesterday,1\n"), "ts")),
        message(by_time(&folder.file("ragged.csv", "ts,x\r\n1,1\r\n2,2,2\r\n"), "ts")),
        message(by_time(&folder.file("latin.csv", b"ts,x\n1,\xe9\n"), "ts")),
        message(by_time(&folder.file("twice.csv", "ts,x,x\n"), "ts")),
        message(by_time(&folder.file("empty.csv", ""), "ts")),
        message(by_time(&folder.file("null.ndjson", "{\"x\":1}\n"), "ts")),
        message(by_time(&folder.file("not.parquet", "PAR0"), "ts")),
        message(ReplayOptions::new([folder.file("a.csv.gz", "")])),
        message(ReplayOptions::new([folder.pattern("none/*.csv")])),
        message(ReplayOptions::new([folder.pattern("[")])),
        message(ReplayOptions::new(Vec::<String>::new())),
    ];
    let mut clash = ReplayOptions::new([unsorted.clone()]);
    clash.device = Some(DeviceFrom::Path);
    lines.push(message(clash));
    for line in &mut lines {
        *line = line.replace(&folder.0.path().display().to_string(), "…");
    }
    let expected = include_str!("messages.txt");
    let actual = lines.join("\n") + "\n";
    if std::env::var_os("UPDATE_SNAPSHOTS").is_some() {
        let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src/files/messages.txt");
        std::fs::write(path, &actual).unwrap();
    }
    assert_eq!(actual, expected);

    let mut sorted = by_time(&unsorted, "ts");
    sorted.order = Order::Sorted;
    assert_eq!(rows(sorted).unwrap().iter().map(|r| r.time_ms.unwrap()).collect::<Vec<_>>(), [1000, 2000, 3000]);
    let mut as_it_stands = by_time(&unsorted, "ts");
    as_it_stands.order = Order::File;
    assert_eq!(rows(as_it_stands).unwrap().iter().map(|r| r.time_ms.unwrap()).collect::<Vec<_>>(), [1000, 3000, 2000]);
}

proptest! {
    /// Whatever text a CSV holds, the row is JSON and says the same.
    #[test]
    fn any_csv_text_becomes_the_same_json(cells in proptest::collection::vec(("[^\0]{0,12}", any::<i64>()), 1..8)) {
        let folder = Folder::new();
        let mut writer = csv::Writer::from_writer(Vec::new());
        writer.write_record(["text", "n"]).unwrap();
        for (text, n) in &cells {
            writer.write_record([text.as_str(), &n.to_string()]).unwrap();
        }
        let mut options = ReplayOptions::new([folder.file("a.csv", writer.into_inner().unwrap())]);
        options.text = vec!["text".into()];
        let out = json(options);
        prop_assert_eq!(out.len(), cells.len());
        for (line, (text, n)) in out.iter().zip(&cells) {
            let value: serde_json::Value = serde_json::from_str(line).unwrap();
            prop_assert_eq!(value["text"].as_str().unwrap_or(""), text);
            prop_assert_eq!(value["n"].as_i64(), Some(*n));
        }
    }

    /// Merging sorted files is a stable sort of their concatenation.
    #[test]
    fn merging_is_a_stable_sort(files in proptest::collection::vec(proptest::collection::vec(0i64..20, 0..12), 1..5)) {
        let folder = Folder::new();
        let mut expected = Vec::new();
        let mut names = Vec::new();
        for (f, times) in files.iter().enumerate() {
            let mut times = times.clone();
            times.sort_unstable();
            let mut content = "ts,at\n".to_owned();
            for (i, t) in times.iter().enumerate() {
                content += &format!("{t},{}\n", f * 100 + i);
                expected.push((*t, f * 100 + i));
            }
            names.push(folder.file(&format!("{f}.csv"), content));
        }
        expected.sort_by_key(|(t, _)| *t);
        let mut options = ReplayOptions::new(names);
        options.time = Some("ts".into());
        let expected: Vec<_> = expected.iter().map(|(t, at)| format!("{{\"ts\":{t},\"at\":{at}}}")).collect();
        prop_assert_eq!(json(options), expected);
    }
}
