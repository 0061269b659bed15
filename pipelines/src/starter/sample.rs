//! Rows to guess from.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::time::{Duration, Instant};

use avouch_connectors::files::{DeviceFrom, Format, Order, ReplayOptions, Row};
use avouch_connectors::kafka::{GroupOptions, GroupProtocol, KafkaConnection, Share, Source, partition_count};
use serde_json::{Map, Value};

use super::StarterError;

/// Rows that are looked at, at most.
pub const MOST_ROWS: usize = 2_000;

/// How long a topic is waited for.
const PATIENCE: Duration = Duration::from_secs(10);

/// Some rows of a file or topic, in order.
#[derive(Debug, Clone, Default)]
pub struct Sample {
    /// Each row's JSON object.
    pub rows: Vec<Map<String, Value>>,
    /// The values as they came, one a row, with lines that are no JSON object among them.
    pub lines: Vec<Vec<u8>>,
    /// Field delimiter, if it is a CSV file.
    pub delimiter: Option<u8>,
    /// Whether the device is the file's own name, in the field `device`.
    pub device_of_path: bool,
    /// Where the rows come from, for a person.
    pub from: String,
    /// Whether numbers in the device's field become text on the way to a topic: in CSV and Parquet.
    pub keys_become_text: bool,
}

/// Reads the first rows of a file. `key`: the column that names the device, or `path`.
///
/// # Errors
/// What is wrong with the file.
pub fn sample_of_file(path: &Path, delimiter: Option<u8>, key: Option<&str>) -> Result<Sample, StarterError> {
    let name = path.to_string_lossy().into_owned();
    let format = Format::of(path);
    let mut options = ReplayOptions::new([name.clone()]);
    options.order = Order::File;
    options.keep_unreadable = true;
    let mut sample = Sample { from: name, keys_become_text: format != Some(Format::Ndjson), ..Sample::default() };
    if format == Some(Format::Csv) {
        let found = delimiter.map_or_else(|| sniff(path), Ok)?;
        options.delimiter = found;
        sample.delimiter = Some(found);
    }
    match key {
        None => {}
        Some("path") => {
            options.device = Some(DeviceFrom::Path);
            sample.device_of_path = true;
        }
        Some(column) if sample.keys_become_text => options.device = Some(DeviceFrom::Column(column.to_owned())),
        Some(_) => {}
    }
    let mut replay = options.open()?;
    let mut row = Row::default();
    while sample.lines.len() < MOST_ROWS && replay.next_row(&mut row)? {
        sample.add(std::mem::take(&mut row.json));
    }
    Ok(sample)
}

/// The delimiter that the first line has most of.
fn sniff(path: &Path) -> Result<u8, StarterError> {
    let read = |source| StarterError::Write { path: path.to_path_buf(), source };
    let mut line = Vec::new();
    BufReader::new(std::fs::File::open(path).map_err(read)?).read_until(b'\n', &mut line).map_err(read)?;
    let count = |d: &u8| line.iter().filter(|b| *b == d).count();
    let best = [b',', b';', b'\t', b'|'].into_iter().rev().max_by_key(count).unwrap_or(b',');
    Ok(if count(&best) == 0 { b',' } else { best })
}

/// Reads the earliest rows that a topic keeps, of all its partitions. Nothing is committed.
///
/// # Errors
/// What the brokers say.
pub fn sample_of_topic(brokers: &str, topic: &str) -> Result<Sample, StarterError> {
    let connection = KafkaConnection::plaintext(brokers);
    let partitions = partition_count(&connection, topic, PATIENCE)?;
    let group =
        GroupOptions { group: "avouch-new".into(), instance: None, protocol: GroupProtocol::Classic, session: None };
    let (source, _events) = Source::open(&connection, topic, group, Share::All, 1_000)?;
    let each = MOST_ROWS / usize::try_from(partitions).unwrap_or(1).max(1);
    let mut sample = Sample { from: format!("topic {topic}"), ..Sample::default() };
    let began = Instant::now();
    for partition in 0..partitions {
        let end = source.end_offset(partition)?;
        if end == 0 {
            continue;
        }
        let mut reader = source.begin(partition, None)?;
        let mut taken = 0;
        'partition: while began.elapsed() < PATIENCE {
            source.serve(Duration::ZERO)?;
            let batch = reader.poll(Duration::from_millis(200))?;
            for i in 0..batch.len() {
                let Some(record) = batch.record(i) else { continue };
                if let Some(value) = record.value {
                    sample.add(value.to_vec());
                }
                taken += 1;
                if taken >= each.max(1) || record.offset + 1 >= end {
                    break 'partition;
                }
            }
            if batch.end().is_some() {
                break;
            }
        }
    }
    Ok(sample)
}

impl Sample {
    fn add(&mut self, value: Vec<u8>) {
        if let Ok(Value::Object(row)) = serde_json::from_slice(&value) {
            self.rows.push(row);
        }
        self.lines.push(value);
    }
}
