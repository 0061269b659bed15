//! Rows of a step as those who look on see them: as columns for their condition, as JSON for their eyes.
//!
//! | step | columns |
//! | --- | --- |
//! | the source, a row step | `lane`, `offset`, `device`, `time`, then its own |
//! | a windowed step | `lane`, `offset`, `device`, `window_start`, `window_end`, then its own |
//! | a model step | those that a sink's `where` sees; shown as verdicts are everywhere |
//!
//! A column of the step's own goes before one of the same name.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int32Array, Int64Array, RecordBatch, RecordBatchOptions, StringArray};
use arrow::array::{BooleanArray, TimestampMillisecondArray};
use arrow::compute::{cast, filter_record_batch};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use arrow::error::ArrowError;
use avouch_engine::ingest::arrow_schema;
use avouch_engine::lane::StepRows;
use avouch_engine::plan::LanePlan;
use avouch_engine::sql::Condition;
use avouch_engine::verdict::VerdictRecord;
use serde_json::Value;

use super::super::verdict_json::verdict_json;
use super::Piece;
use crate::lang::Pipeline;
use crate::query::objects;
use crate::verdict_table::{TABLE, condition_rows, condition_schema};

/// What of a verdict stands in a table on a terminal.
const OF_VERDICTS: [&str; 8] =
    ["device", "window_start", "window_end", "severity", "class", "score", "p_value", "rows"];

/// The rows of one step.
#[derive(Debug)]
pub(super) struct Shown {
    /// The name that a condition knows the rows by.
    pub table: String,
    pub kind: Kind,
    pub schema: SchemaRef,
    condition: Option<Condition>,
}

/// What a step gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Readings, or rows of a row step.
    Rows,
    /// Features.
    Windows,
    /// Verdicts.
    Verdicts,
}

impl Kind {
    pub fn name(self) -> &'static str {
        match self {
            Kind::Rows => "rows",
            Kind::Windows => "windows",
            Kind::Verdicts => "verdicts",
        }
    }
}

fn time() -> DataType {
    DataType::Timestamp(TimeUnit::Millisecond, Some("+00:00".into()))
}

impl Shown {
    /// Those of a step; `None` where the pipeline has none of this name.
    pub fn of(pipeline: &Pipeline, plan: &LanePlan, step: &str) -> Option<Self> {
        let shown = |kind, schema| Self { table: step.to_owned(), kind, schema, condition: None };
        if let Some(model) = pipeline.model_step(step) {
            let features = pipeline.features_of(std::slice::from_ref(&model.name));
            let schema = condition_schema(&features);
            return Some(Self { table: TABLE.to_owned(), ..shown(Kind::Verdicts, schema) });
        }
        if let Some(found) = plan.windows.iter().find(|s| s.name == step) {
            return Some(shown(Kind::Windows, with_place(found.query.schema(), Kind::Windows)));
        }
        if let Some(found) = plan.rows.iter().find(|s| s.name == step) {
            return Some(shown(Kind::Rows, with_place(found.query.schema(), Kind::Rows)));
        }
        let readings = (plan.source.name == step).then(|| arrow_schema(&plan.source.fields))?;
        Some(shown(Kind::Rows, with_place(&readings, Kind::Rows)))
    }

    /// Only those for which a condition holds.
    ///
    /// # Errors
    /// What is wrong with the condition.
    pub fn only(self, condition: Option<&str>) -> Result<Self, String> {
        let plan = |text: &str| Condition::plan(text, &self.table, self.schema.clone());
        let condition = condition.map(plan).transpose()?;
        Ok(Self { condition, ..self })
    }

    /// The columns of a table on a terminal.
    pub fn columns(&self) -> Vec<&str> {
        match self.kind {
            Kind::Verdicts => OF_VERDICTS.to_vec(),
            Kind::Rows | Kind::Windows => self.schema.fields().iter().map(|f| f.name().as_str()).collect(),
        }
    }

    /// The rows of a piece for which the condition holds.
    pub fn rows(&self, piece: &Piece) -> Result<Vec<Value>, String> {
        let said = |e: ArrowError| e.to_string();
        match piece {
            Piece::Rows { lane, rows } => {
                let mut batch = self.batch(*lane, rows).map_err(said)?;
                if let Some(condition) = &self.condition {
                    let mask = BooleanArray::from(condition.holds(&batch)?);
                    batch = filter_record_batch(&batch, &mask).map_err(said)?;
                }
                objects(&self.schema, &[batch]).map_err(|e| e.to_string())
            }
            Piece::Verdicts { log, records } => {
                let all: Vec<&VerdictRecord> = records.iter().collect();
                let holds = match &self.condition {
                    None => vec![true; all.len()],
                    Some(c) => c.holds(&condition_rows(&self.schema, log, &all).map_err(said)?)?,
                };
                Ok(all.iter().zip(holds).filter(|(_, h)| *h).map(|(r, _)| verdict_json(log, r)).collect())
            }
        }
    }

    fn batch(&self, lane: i32, rows: &StepRows) -> Result<RecordBatch, ArrowError> {
        let n = rows.devices.len();
        let time = |values: &[i64]| -> ArrayRef {
            Arc::new(TimestampMillisecondArray::from(values.to_vec()).with_timezone("+00:00"))
        };
        let own = self.schema.fields().len() - rows.batch.num_columns();
        let columns = self.schema.fields().iter().enumerate().map(|(i, field)| {
            let column: ArrayRef = match field.name().as_str() {
                _ if i >= own => rows.batch.column(i - own).clone(),
                "lane" => Arc::new(Int32Array::from(vec![lane; n])),
                "offset" => Arc::new(Int64Array::from(rows.offsets.clone())),
                "device" => Arc::new(StringArray::from_iter_values(&rows.devices)),
                "window_start" => time(&rows.window_starts),
                _ => time(&rows.times),
            };
            if column.data_type() == field.data_type() { Ok(column) } else { cast(&column, field.data_type()) }
        });
        let columns = columns.collect::<Result<Vec<_>, _>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(n));
        RecordBatch::try_new_with_options(self.schema.clone(), columns, &options)
    }
}

/// A step's own columns, and before them those that say where a row is from.
fn with_place(own: &SchemaRef, kind: Kind) -> SchemaRef {
    let mut place = vec![
        Field::new("lane", DataType::Int32, true),
        Field::new("offset", DataType::Int64, true),
        Field::new("device", DataType::Utf8, true),
    ];
    match kind {
        Kind::Windows => {
            place.extend([Field::new("window_start", time(), true), Field::new("window_end", time(), true)]);
        }
        Kind::Rows | Kind::Verdicts => place.push(Field::new("time", time(), true)),
    }
    place.retain(|f| own.fields().iter().all(|o| o.name() != f.name()));
    place.extend(own.fields().iter().map(|f| f.as_ref().clone().with_nullable(true)));
    Arc::new(Schema::new(place))
}
