//! Verdicts as a table: what `where` of a sink sees, and what the Parquet archive holds.
//!
//! | column | type | |
//! | --- | --- | --- |
//! | `log`, `index` | text, integer | which verdict it is, for good |
//! | `device`, `device_id` | text | its name; its pseudonym, 64 hexadecimal digits |
//! | `seq` | integer | its number among the device's verdicts |
//! | `step` | text | the model step that judged |
//! | `window_start`, `window_end` | timestamp, UTC | |
//! | `severity`, `class` | text | as in JSON |
//! | `score`, `p_value` | double | null where there is none |
//! | `lower`, `upper` | double | a prognosis' interval; null where there is none |
//! | `incident` | integer | index of the verdict that the incident began with; null where alarms stand alone |
//! | `rows` | integer | readings used |
//! | `topic`, `partition`, `first_offset`, `last_offset` | text, integers | where these readings were |
//! | `model_hash`, `config_hash`, `input_digest`, `evidence_hash`, `salt`, `entry` | text | 64 hexadecimal digits |
//! | `features` | list of (`name`, `value`, `expected`, `contribution`) | in the archive |
//! | each feature by its name | double | for `where`; null in verdicts of steps without it |
//!
//! Of an early result `where` sees the same columns; what only a verdict has is null: `index`, `incident`, `seq`, `device_id`,
//! `input_digest`, `evidence_hash`, `salt`, `entry`, `config_hash`.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, Float64Array, Int32Array, Int64Array, ListArray, RecordBatch, RecordBatchOptions, StringArray,
    StructArray, TimestampMillisecondArray, new_null_array,
};
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::{DataType, Field, Fields, Schema, SchemaRef, TimeUnit};
use arrow::error::ArrowError;
use avouch_engine::lane::EarlyVerdict;
use avouch_engine::verdict::{FeatureEvidence, Hash32, Severity, VerdictRecord};

use crate::lang::hex;
use crate::runtime::class_name;

/// The table's name in SQL.
pub const TABLE: &str = "verdicts";

fn time() -> DataType {
    DataType::Timestamp(TimeUnit::Millisecond, Some("+00:00".into()))
}

fn plain_fields() -> Vec<Field> {
    let text = |name| Field::new(name, DataType::Utf8, false);
    let int = |name| Field::new(name, DataType::Int64, false);
    vec![
        text("log"),
        int("index"),
        text("device"),
        text("device_id"),
        int("seq"),
        text("step"),
        Field::new("window_start", time(), false),
        Field::new("window_end", time(), false),
        text("severity"),
        text("class"),
        Field::new("score", DataType::Float64, true),
        Field::new("p_value", DataType::Float64, true),
        Field::new("lower", DataType::Float64, true),
        Field::new("upper", DataType::Float64, true),
        Field::new("incident", DataType::Int64, true),
        int("rows"),
        text("topic"),
        Field::new("partition", DataType::Int32, false),
        int("first_offset"),
        int("last_offset"),
        text("model_hash"),
        text("config_hash"),
        text("input_digest"),
        text("evidence_hash"),
        text("salt"),
        text("entry"),
    ]
}

fn feature_fields() -> Fields {
    let number = |name| Field::new(name, DataType::Float64, true);
    vec![Field::new("name", DataType::Utf8, false), number("value"), number("expected"), number("contribution")].into()
}

fn finite(x: f64) -> Option<f64> {
    x.is_finite().then_some(x)
}

fn plain_columns(log: &str, records: &[&VerdictRecord]) -> Vec<ArrayRef> {
    let text = |f: &dyn Fn(&VerdictRecord) -> String| -> ArrayRef {
        Arc::new(records.iter().map(|r| Some(f(r))).collect::<StringArray>())
    };
    let hash = |f: &dyn Fn(&VerdictRecord) -> Hash32| text(&|r| hex(&f(r)));
    let int = |f: &dyn Fn(&VerdictRecord) -> i64| -> ArrayRef {
        Arc::new(records.iter().map(|r| Some(f(r))).collect::<Int64Array>())
    };
    let number = |f: &dyn Fn(&VerdictRecord) -> f64| -> ArrayRef {
        Arc::new(records.iter().map(|r| finite(f(r))).collect::<Float64Array>())
    };
    let at = |f: &dyn Fn(&VerdictRecord) -> u64| -> ArrayRef {
        let values = records.iter().map(|r| Some(f(r) as i64));
        Arc::new(values.collect::<TimestampMillisecondArray>().with_timezone("+00:00"))
    };
    vec![
        text(&|_| log.to_owned()),
        int(&|r| r.index as i64),
        text(&|r| r.evidence.device.clone()),
        hash(&|r| r.verdict.device_id),
        int(&|r| r.verdict.seq as i64),
        text(&|r| r.evidence.step.to_string()),
        at(&|r| r.verdict.window_start),
        at(&|r| r.verdict.window_end),
        text(&|r| severity_name(r).to_owned()),
        text(&|r| class_name(r.verdict.class).to_owned()),
        number(&|r| r.evidence.score),
        number(&|r| r.evidence.p_value),
        number(&|r| r.evidence.interval.map_or(f64::NAN, |i| i.lower)),
        number(&|r| r.evidence.interval.map_or(f64::NAN, |i| i.upper)),
        Arc::new(records.iter().map(|r| r.evidence.incident.map(|i| i as i64)).collect::<Int64Array>()),
        int(&|r| r.evidence.rows as i64),
        text(&|r| r.evidence.topic.to_string()),
        Arc::new(records.iter().map(|r| Some(r.evidence.partition)).collect::<Int32Array>()),
        int(&|r| r.evidence.first_offset),
        int(&|r| r.evidence.last_offset),
        hash(&|r| r.verdict.model_hash),
        hash(&|r| r.verdict.config_hash),
        hash(&|r| r.verdict.input_digest),
        hash(&|r| r.verdict.evidence_hash),
        hash(&|r| r.verdict.salt),
        hash(&|r| r.entry()),
    ]
}

/// The severity's name, as everywhere outside.
pub fn severity_name(r: &VerdictRecord) -> &'static str {
    Severity::from_code(r.verdict.severity).map_or("unknown", Severity::name)
}

/// The columns that `where` sees: the plain ones, then the features that are not named like one of them.
pub fn condition_schema(features: &[String]) -> SchemaRef {
    // Early results lack some.
    let mut fields: Vec<Field> = plain_fields().into_iter().map(|f| f.with_nullable(true)).collect();
    for name in features {
        if fields.iter().all(|f| f.name() != name) {
            fields.push(Field::new(name, DataType::Float64, true));
        }
    }
    Arc::new(Schema::new(fields))
}

/// The rows of a `where`, with a schema of [`condition_schema`].
///
/// # Errors
/// None for such a schema.
pub fn condition_rows(schema: &SchemaRef, log: &str, records: &[&VerdictRecord]) -> Result<RecordBatch, ArrowError> {
    let mut columns = plain_columns(log, records);
    for field in &schema.fields()[columns.len()..] {
        let value = |r: &&VerdictRecord| {
            r.evidence.features.iter().find(|f| *f.name == **field.name()).and_then(|f| finite(f.value))
        };
        columns.push(Arc::new(records.iter().map(value).collect::<Float64Array>()));
    }
    RecordBatch::try_new(schema.clone(), columns)
}

/// [`condition_rows`] of early results.
///
/// # Errors
/// None for a schema of [`condition_schema`].
pub fn early_rows(schema: &SchemaRef, log: &str, results: &[&EarlyVerdict]) -> Result<RecordBatch, ArrowError> {
    let text = |f: &dyn Fn(&EarlyVerdict) -> String| -> ArrayRef {
        Arc::new(results.iter().map(|r| Some(f(r))).collect::<StringArray>())
    };
    let int = |f: &dyn Fn(&EarlyVerdict) -> i64| -> ArrayRef {
        Arc::new(results.iter().map(|r| Some(f(r))).collect::<Int64Array>())
    };
    let number = |f: &dyn Fn(&EarlyVerdict) -> Option<f64>| -> ArrayRef {
        Arc::new(results.iter().map(|r| f(r).and_then(finite)).collect::<Float64Array>())
    };
    let at = |f: &dyn Fn(&EarlyVerdict) -> i64| -> ArrayRef {
        let values = results.iter().map(|r| Some(f(r)));
        Arc::new(values.collect::<TimestampMillisecondArray>().with_timezone("+00:00"))
    };
    let own = plain_fields().len();
    let column = |(i, field): (usize, &Arc<Field>)| -> ArrayRef {
        match field.name().as_str() {
            // A column of its own goes before a feature of the same name.
            name if i >= own => number(&|r| r.evidence.features.iter().find(|f| *f.name == *name).map(|f| f.value)),
            "log" => text(&|_| log.to_owned()),
            "device" => text(&|r| r.evidence.device.clone()),
            "step" => text(&|r| r.evidence.step.to_string()),
            "window_start" => at(&|r| r.window_start),
            "window_end" => at(&|r| r.window_end),
            "severity" => text(&|r| r.severity.name().to_owned()),
            "class" => text(&|r| class_name(r.class).to_owned()),
            "score" => number(&|r| Some(r.evidence.score)),
            "p_value" => number(&|r| Some(r.evidence.p_value)),
            "lower" => number(&|r| r.evidence.interval.map(|i| i.lower)),
            "upper" => number(&|r| r.evidence.interval.map(|i| i.upper)),
            "rows" => int(&|r| r.evidence.rows as i64),
            "topic" => text(&|r| r.evidence.topic.to_string()),
            "partition" => Arc::new(results.iter().map(|r| Some(r.evidence.partition)).collect::<Int32Array>()),
            "first_offset" => int(&|r| r.evidence.first_offset),
            "last_offset" => int(&|r| r.evidence.last_offset),
            "model_hash" => text(&|r| hex(&r.model_hash)),
            _ => new_null_array(field.data_type(), results.len()),
        }
    };
    let columns = schema.fields().iter().enumerate().map(column).collect();
    let options = RecordBatchOptions::new().with_row_count(Some(results.len()));
    RecordBatch::try_new_with_options(schema.clone(), columns, &options)
}

/// The columns of the archive.
pub fn archive_schema() -> SchemaRef {
    let item = Arc::new(Field::new("item", DataType::Struct(feature_fields()), false));
    let mut fields = plain_fields();
    fields.push(Field::new("features", DataType::List(item), false));
    Arc::new(Schema::new(fields))
}

/// The rows of the archive.
///
/// # Errors
/// When there are more than 2³¹ features in it.
pub fn archive_rows(log: &str, records: &[&VerdictRecord]) -> Result<RecordBatch, ArrowError> {
    let all = || records.iter().flat_map(|r| &r.evidence.features);
    let number = |f: &dyn Fn(&FeatureEvidence) -> f64| -> ArrayRef {
        Arc::new(all().map(|x| finite(f(x))).collect::<Float64Array>())
    };
    let parts: Vec<ArrayRef> = vec![
        Arc::new(all().map(|f| Some(&*f.name)).collect::<StringArray>()),
        number(&|f| f.value),
        number(&|f| f.expected),
        number(&|f| f.contribution),
    ];
    let each = StructArray::try_new(feature_fields(), parts, None)?;
    let item = Arc::new(Field::new("item", DataType::Struct(feature_fields()), false));
    let offsets = OffsetBuffer::from_lengths(records.iter().map(|r| r.evidence.features.len()));
    let lists = ListArray::try_new(item, offsets, Arc::new(each), None)?;
    let mut columns = plain_columns(log, records);
    columns.push(Arc::new(lists));
    RecordBatch::try_new(archive_schema(), columns)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use avouch_engine::verdict::{Evidence, Verdict};

    use super::*;

    fn record(index: u64) -> VerdictRecord {
        let feature =
            |name: &str, value| FeatureEvidence { name: name.into(), value, expected: 1.0, contribution: 2.0 };
        let evidence = Evidence {
            salt: [0; 32],
            device: "pump-1".into(),
            step: "anomaly".into(),
            topic: "t".into(),
            partition: 3,
            first_offset: 4,
            last_offset: 5,
            rows: 6,
            references: Vec::new(),
            score: f64::NAN,
            p_value: 0.25,
            interval: None,
            incident: None,
            label: None,
            features: vec![feature("temp_mean", 40.5), feature("rms", f64::INFINITY)],
        };
        let verdict = Verdict {
            device_id: [1; 32],
            seq: 9,
            window_start: 0,
            window_end: 60_000,
            model_hash: [2; 32],
            config_hash: [3; 32],
            input_digest: [4; 32],
            score_e6: 0,
            severity: 2,
            class: 1,
            evidence_hash: evidence.hash(),
            salt: [5; 32],
        };
        VerdictRecord { index, verdict, evidence }
    }

    #[test]
    fn both_tables_fit_their_schemas() {
        let (a, b) = (record(7), record(8));
        let archive = archive_rows("avouch/p/3", &[&a, &b]).unwrap();
        assert_eq!(archive.num_rows(), 2);
        assert_eq!(archive.schema().fields().len(), plain_fields().len() + 1);
        let schema = condition_schema(&["rms".into(), "score".into(), "temp_mean".into()]);
        assert_eq!(schema.fields().len(), plain_fields().len() + 2, "a verdict's own column goes before a feature");
        let rows = condition_rows(&schema, "avouch/p/3", &[&a, &b]).unwrap();
        let holds = |condition: &str| {
            avouch_engine::sql::Condition::plan(condition, TABLE, schema.clone()).unwrap().holds(&rows).unwrap()
        };
        assert_eq!(holds("severity = 'critical' AND index > 7"), [false, true]);
        assert_eq!(holds("temp_mean BETWEEN 40 AND 41 AND p_value < 0.3"), [true, true]);
        assert_eq!(holds("rms IS NULL AND score IS NULL"), [true, true]);
        let early = EarlyVerdict {
            as_of: 30_000,
            window_start: 0,
            window_end: 60_000,
            class: 1,
            severity: Severity::Critical,
            model_hash: [2; 32],
            evidence: a.evidence.clone(),
        };
        let early = early_rows(&schema, "avouch/p/3", &[&early]).unwrap();
        let holds_early = |condition: &str| {
            avouch_engine::sql::Condition::plan(condition, TABLE, schema.clone()).unwrap().holds(&early).unwrap()
        };
        assert_eq!(holds_early("severity = 'critical' AND temp_mean > 40 AND rows = 6 AND index IS NULL"), [true]);
        assert_eq!(holds_early("seq >= 0"), [false], "what only a verdict has is null");
        assert_eq!(holds("window_end >= '1970-01-01T00:01:00Z' AND device LIKE 'pump-%'"), [true, true]);
    }
}
