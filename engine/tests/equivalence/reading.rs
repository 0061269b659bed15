//! Readings of a test, as the engine gets them (JSON records) and as DataFusion does (Arrow columns).

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanArray, Float64Array, Int64Array, RecordBatch, StringArray, TimestampMillisecondArray,
};
use arrow::datatypes::{DataType, Field, Schema, TimeUnit};
use avouch_engine::spec::{FieldSpec, FieldType};

/// One reading; times are milliseconds.
#[derive(Debug, Clone, PartialEq)]
pub struct Reading {
    pub device: String,
    pub ts: i64,
    pub x: Option<f64>,
    pub y: Option<f64>,
    pub n: Option<i64>,
    pub s: Option<String>,
    pub b: Option<bool>,
}

impl Reading {
    pub fn json(&self) -> String {
        serde_json::json!({
            "device": self.device, "ts": self.ts, "x": self.x, "y": self.y, "n": self.n, "s": self.s, "b": self.b,
        })
        .to_string()
    }
}

pub fn fields() -> Vec<FieldSpec> {
    [
        ("device", FieldType::Utf8, true),
        ("ts", FieldType::TimestampMs, true),
        ("x", FieldType::F64, false),
        ("y", FieldType::F64, false),
        ("n", FieldType::I64, false),
        ("s", FieldType::Utf8, false),
        ("b", FieldType::Bool, false),
    ]
    .map(|(name, ty, required)| FieldSpec { name: name.into(), ty, required })
    .into()
}

/// The readings as a table, with `off` for their place in the input.
pub fn batch(readings: &[Reading]) -> RecordBatch {
    let time = DataType::Timestamp(TimeUnit::Millisecond, None);
    let schema = Schema::new(vec![
        Field::new("device", DataType::Utf8, false),
        Field::new("ts", time, false),
        Field::new("x", DataType::Float64, true),
        Field::new("y", DataType::Float64, true),
        Field::new("n", DataType::Int64, true),
        Field::new("s", DataType::Utf8, true),
        Field::new("b", DataType::Boolean, true),
        Field::new("off", DataType::Int64, false),
    ]);
    let columns: Vec<ArrayRef> = vec![
        Arc::new(readings.iter().map(|r| Some(r.device.as_str())).collect::<StringArray>()),
        Arc::new(readings.iter().map(|r| Some(r.ts)).collect::<TimestampMillisecondArray>()),
        Arc::new(readings.iter().map(|r| r.x).collect::<Float64Array>()),
        Arc::new(readings.iter().map(|r| r.y).collect::<Float64Array>()),
        Arc::new(readings.iter().map(|r| r.n).collect::<Int64Array>()),
        Arc::new(readings.iter().map(|r| r.s.as_deref()).collect::<StringArray>()),
        Arc::new(readings.iter().map(|r| r.b).collect::<BooleanArray>()),
        Arc::new((0..readings.len() as i64).map(Some).collect::<Int64Array>()),
    ];
    RecordBatch::try_new(Arc::new(schema), columns).unwrap()
}
