//! What a test's run gave, and the tables of its assertions.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray, TimestampMillisecondArray};
use arrow::compute::cast;
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use avouch_connectors::files::{DeviceFrom, Order};
use avouch_engine::dead_letter::DeadLetter;
use avouch_engine::lane::{Counters, LaneError, StepRows};
use avouch_engine::plan::LanePlan;
use avouch_engine::verdict::{LogOrigin, VerdictRecord};

use crate::history::{Ending, History, HistoryError, HistoryOptions};
use crate::lang::{Pipeline, PipelineTest, TestTable, TrainDevice, test_tables};
use crate::verdict_table::condition_rows;

/// Everything a run over a test's input gave.
#[derive(Debug)]
pub struct Gathered {
    /// All verdicts with their lanes, in the order of golden files: by device, step, window.
    pub verdicts: Vec<(i32, VerdictRecord)>,
    /// All dead letters with their lanes.
    pub dead: Vec<(i32, DeadLetter)>,
    /// Rows of every step.
    pub rows: Vec<StepRows>,
    /// Sums over the lanes.
    pub counters: Counters,
    /// Windows that were looked at early and could not be judged.
    pub early_failed: Vec<LaneError>,
    /// Whether a window was still open at the end.
    pub open: bool,
}

/// Runs a pipeline, planned with the models it has, over a test's input.
///
/// # Errors
/// What is wrong with a file or a lane.
pub fn gather(pipeline: &Pipeline, plan: LanePlan, test: &PipelineTest) -> Result<Gathered, HistoryError> {
    let mut options = HistoryOptions::of(pipeline, test.input.iter().map(|i| i.pattern.clone()));
    options.delimiter = test.delimiter;
    options.device = match &test.device {
        TrainDevice::Key => options.device,
        TrainDevice::Path => DeviceFrom::Path,
        TrainDevice::Column(c) => DeviceFrom::Column(c.value.clone()),
    };
    options.arrival = test.arrival.as_ref().map(|a| a.value.clone());
    options.order = if test.sorted { Order::Sorted } else { Order::File };
    options.lanes = test.lanes;
    let idle = pipeline.source.time.idle_after_ms;
    options.ending = match &test.silence_ms {
        Some(silence) if idle.is_some_and(|after| silence.value >= after) => Ending::Silence(silence.value),
        _ => Ending::Stop,
    };
    let steps = plan.rows.iter().map(|s| &s.name).chain(plan.windows.iter().map(|s| &s.name));
    options.watch = steps.chain([&plan.source.name]).cloned().collect();
    let mut history = History::open(plan, options)?;
    let mut out = Gathered {
        verdicts: Vec::new(),
        dead: Vec::new(),
        rows: Vec::new(),
        counters: Counters::default(),
        early_failed: Vec::new(),
        open: false,
    };
    while let Some(piece) = history.next()? {
        let lane = piece.lane;
        out.rows.extend(piece.rows);
        out.verdicts.extend(piece.output.verdicts.into_iter().map(|v| (lane, v)));
        out.dead.extend(piece.output.dead.into_iter().map(|d| (lane, d)));
        out.early_failed.extend(piece.output.early_failed);
    }
    out.counters = history.counters();
    out.open = history.lanes().any(|lane| lane.next_due().is_some());
    // Whichever lane a device is in, and whichever device closed a window: the same order.
    out.verdicts.sort_by(|(_, a), (_, b)| {
        let key = |r: &VerdictRecord| (r.verdict.window_end, r.verdict.window_start);
        let names = a.evidence.device.cmp(&b.evidence.device).then_with(|| a.evidence.step.cmp(&b.evidence.step));
        names.then_with(|| key(a).cmp(&key(b)))
    });
    Ok(out)
}

impl Gathered {
    /// The tables of assertions, with their rows.
    ///
    /// # Errors
    /// None for the plan the run was made with.
    pub fn tables(&self, pipeline: &Pipeline, plan: &LanePlan) -> Result<BTreeMap<String, TestTable>, ArrowError> {
        let mut tables = test_tables(pipeline, plan);
        let is_step =
            |name: &str| plan.rows.iter().any(|s| s.name == name) || plan.windows.iter().any(|s| s.name == name);
        for rows in &self.rows {
            add_step(&mut tables, &rows.step, rows)?;
            if *rows.step == *plan.source.name && &*rows.step != "readings" && !is_step("readings") {
                add_step(&mut tables, "readings", rows)?;
            }
        }
        if let Some(table) = tables.get_mut("verdicts") {
            table.batches = self.verdict_batches(pipeline, &table.schema)?;
        }
        if let Some(table) = tables.get_mut("dead_letters") {
            table.batches = vec![self.dead_batch(&table.schema)?];
        }
        Ok(tables)
    }

    fn verdict_batches(&self, pipeline: &Pipeline, schema: &SchemaRef) -> Result<Vec<RecordBatch>, ArrowError> {
        let lanes: std::collections::BTreeSet<i32> = self.verdicts.iter().map(|(lane, _)| *lane).collect();
        let of_lane = |lane: i32| {
            let records: Vec<&VerdictRecord> =
                self.verdicts.iter().filter(|(l, _)| *l == lane).map(|(_, v)| v).collect();
            condition_rows(schema, LogOrigin::new(&pipeline.name.value, lane).as_str(), &records)
        };
        lanes.into_iter().map(of_lane).collect()
    }

    fn dead_batch(&self, schema: &SchemaRef) -> Result<RecordBatch, ArrowError> {
        let text = |f: &dyn Fn(&DeadLetter) -> Option<String>| -> ArrayRef {
            Arc::new(self.dead.iter().map(|(_, d)| f(d)).collect::<StringArray>())
        };
        let lossy = |bytes: &Option<Vec<u8>>| bytes.as_ref().map(|b| String::from_utf8_lossy(b).into_owned());
        let int = |f: &dyn Fn(i32, &DeadLetter) -> Option<i64>| -> ArrayRef {
            Arc::new(self.dead.iter().map(|(lane, d)| f(*lane, d)).collect::<Int64Array>())
        };
        let times = self.dead.iter().map(|(_, d)| Some(d.timestamp)).collect::<TimestampMillisecondArray>();
        let columns: Vec<ArrayRef> = vec![
            text(&|d| Some(d.reason.name().to_owned())),
            text(&|d| Some(d.detail.clone())),
            text(&|d| lossy(&d.key)),
            text(&|d| lossy(&d.value)),
            int(&|lane, _| Some(lane.into())),
            int(&|_, d| Some(d.offset)),
            int(&|_, d| d.row.map(i64::from)),
            Arc::new(times.with_timezone("+00:00")),
        ];
        RecordBatch::try_new(schema.clone(), columns)
    }
}

fn add_step(tables: &mut BTreeMap<String, TestTable>, name: &str, rows: &StepRows) -> Result<(), ArrowError> {
    let Some(table) = tables.get_mut(name) else { return Ok(()) };
    let time = |values: &[i64]| -> ArrayRef {
        Arc::new(TimestampMillisecondArray::from(values.to_vec()).with_timezone("+00:00"))
    };
    let own = rows.batch.num_columns();
    let columns = table.schema.fields().iter().enumerate().map(|(i, field)| {
        let column = match field.name().as_str() {
            _ if i < own => rows.batch.column(i).clone(),
            "window_start" => time(&rows.window_starts),
            _ => time(&rows.times),
        };
        if column.data_type() == field.data_type() { Ok(column) } else { cast(&column, field.data_type()) }
    });
    let columns = columns.collect::<Result<Vec<_>, _>>()?;
    table.batches.push(RecordBatch::try_new(table.schema.clone(), columns)?);
    Ok(())
}
