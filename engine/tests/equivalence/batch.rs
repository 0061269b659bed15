//! DataFusion's answer in batch: a session over a table of readings with the windows they are in.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch};
use arrow::compute::{concat_batches, take_record_batch};
use arrow::datatypes::{DataType, Field, Int64Type, Schema};
use avouch_engine::spec::WindowSpec;
use datafusion::common::ScalarValue;
use datafusion::datasource::MemTable;
use datafusion::prelude::{SessionConfig, SessionContext};

use crate::answer::Answer;
use crate::reading::{Reading, batch};
use crate::streamed::Query;

/// One partition and no tasks: the plan is computed where it is polled.
fn block_on<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    let mut cx = Context::from_waker(Waker::noop());
    loop {
        match future.as_mut().poll(&mut cx) {
            Poll::Ready(out) => return out,
            Poll::Pending => std::thread::yield_now(),
        }
    }
}

fn session() -> SessionContext {
    let mut config = SessionConfig::new().with_target_partitions(1).with_batch_size(1 << 20);
    config.options_mut().sql_parser.map_string_types_to_utf8view = false;
    let session = SessionContext::new_with_config(config);
    let (scalars, aggregates) = avouch_engine::sql::registered_functions();
    for f in aggregates {
        session.register_udaf(f);
    }
    for f in scalars {
        session.register_udf(f);
    }
    session
}

fn sql(session: &SessionContext, query: &str) -> RecordBatch {
    let run = async {
        let frame = session.sql(query).await?;
        let schema = Arc::new(frame.schema().as_arrow().clone());
        let batches = frame.collect().await?;
        let schema = batches.first().map_or(schema, |b| b.schema());
        Ok::<_, datafusion::error::DataFusionError>(concat_batches(&schema, &batches)?)
    };
    block_on(run).unwrap_or_else(|e| panic!("{e}\n{query}"))
}

fn register(session: &SessionContext, name: &str, batch: RecordBatch) {
    let table = MemTable::try_new(batch.schema(), vec![vec![batch]]).unwrap();
    session.register_table(name, Arc::new(table)).unwrap();
}

/// The answer over all readings.
pub fn answer(query: &Query, readings: &[Reading], batch_sql: Option<&str>) -> Answer {
    let session = session();
    register(&session, "raw", batch(readings));
    let clean = match &query.clean {
        Some(clean) => {
            sql(&session, &clean.replacen("SELECT ", "SELECT off, ", 1).replace("FROM readings", "FROM raw"))
        }
        None => sql(&session, "SELECT * FROM raw"),
    };
    over(query, windowed(query, &clean, readings), batch_sql)
}

/// Rows with the start and end of the windows they are in, in the order of windows, time and offset.
pub fn windowed(query: &Query, clean: &RecordBatch, readings: &[Reading]) -> RecordBatch {
    let session = session();
    register(&session, "cleaned", clean.clone());
    match query.window {
        WindowSpec::Tumbling { size_ms } => sql(
            &session,
            &format!(
                "SELECT *, CAST(w AS BIGINT) AS win_start, CAST(w AS BIGINT) + {size_ms} AS win_end FROM (
                   SELECT *, date_bin(INTERVAL '{size_ms} milliseconds', ts, TIMESTAMP '1970-01-01T00:00:00') AS w
                   FROM cleaned) ORDER BY win_start, ts, off"
            ),
        ),
        WindowSpec::Sliding { size_ms, every_ms } => {
            let (lo, hi) = (readings.iter().map(|r| r.ts).min(), readings.iter().map(|r| r.ts).max());
            let (lo, hi) = (lo.unwrap_or(0) - size_ms, hi.unwrap_or(0));
            let starts = (lo.div_euclid(every_ms)..=hi.div_euclid(every_ms)).map(|i| i * every_ms);
            let starts: ArrayRef = Arc::new(starts.map(Some).collect::<Int64Array>());
            let schema = Schema::new(vec![Field::new("win_start", DataType::Int64, false)]);
            register(&session, "windows", RecordBatch::try_new(Arc::new(schema), vec![starts]).unwrap());
            sql(
                &session,
                &format!(
                    "SELECT cleaned.*, win_start, win_start + {size_ms} AS win_end FROM cleaned JOIN windows
                     ON CAST(ts AS BIGINT) >= win_start AND CAST(ts AS BIGINT) < win_start + {size_ms}
                     ORDER BY win_start, ts, off"
                ),
            )
        }
        WindowSpec::Session { gap_ms, max_ms } => sessionised(clean, gap_ms, max_ms),
    }
}

/// The answer over rows that already have their windows (`win_start`, `win_end`, milliseconds), in order.
pub fn over(query: &Query, windowed: RecordBatch, batch_sql: Option<&str>) -> Answer {
    let session = session();
    register(&session, "readings", windowed);
    let text = batch_sql
        .unwrap_or(&query.sql)
        .replace("FROM clean", "FROM readings")
        .replacen("SELECT device", "SELECT device, win_end", 1)
        .replace("GROUP BY device", "GROUP BY device, win_start, win_end");
    let result = sql(&session, &text);
    let mut answer = Answer::default();
    let schema = result.schema();
    answer.names = schema.fields().iter().map(|f| f.name().clone()).filter(|n| n != "win_end").collect();
    for row in 0..result.num_rows() {
        let device = result.column(0).as_string::<i32>().value(row).to_owned();
        let end = result.column(1).as_primitive::<Int64Type>().value(row);
        let values = (0..result.num_columns()).filter(|c| *c != 1);
        let values = values.map(|c| ScalarValue::try_from_array(result.column(c), row).unwrap()).collect();
        assert!(answer.rows.insert((end, device), values).is_none());
    }
    answer
}

/// Rows with the session they are in: a plain walk over each device's rows in time order, by the definition.
fn sessionised(rows: &RecordBatch, gap: i64, max: i64) -> RecordBatch {
    let column = |name: &str| rows.column_by_name(name).unwrap().clone();
    let devices = column("device");
    let (devices, off) = (devices.as_string::<i32>(), column("off"));
    let off = off.as_primitive::<Int64Type>();
    let ts = arrow::compute::cast(&column("ts"), &DataType::Int64).unwrap();
    let ts = ts.as_primitive::<Int64Type>();
    let mut order: Vec<usize> = (0..rows.num_rows()).collect();
    order.sort_by_key(|&i| (devices.value(i), ts.value(i), off.value(i)));
    // (rows of the session, start, end)
    let mut sessions: Vec<(Vec<usize>, i64, i64)> = Vec::new();
    for device in order.chunk_by(|&a, &b| devices.value(a) == devices.value(b)) {
        let mut rest = device;
        while let Some(&first) = rest.first() {
            let start = ts.value(first);
            let cut = (start + max).div_euclid(gap) * gap;
            let mut n = 1;
            while n < rest.len() && ts.value(rest[n]) - ts.value(rest[n - 1]) < gap && ts.value(rest[n]) < cut {
                n += 1;
            }
            let end = (ts.value(rest[n - 1]) + gap).min(cut);
            sessions.push((rest[..n].to_vec(), start, end));
            rest = &rest[n..];
        }
    }
    let members: Vec<(usize, i64, i64)> =
        sessions.iter().flat_map(|(rows, start, end)| rows.iter().map(|r| (*r, *start, *end))).collect();
    with_windows(rows, &members)
}

/// Rows by index with the start and end of a window each is in.
pub fn with_windows(rows: &RecordBatch, members: &[(usize, i64, i64)]) -> RecordBatch {
    let indices = arrow::array::UInt32Array::from_iter_values(members.iter().map(|m| m.0 as u32));
    let taken = take_record_batch(rows, &indices).unwrap();
    let mut fields: Vec<_> = taken.schema().fields().iter().cloned().collect();
    let mut columns = taken.columns().to_vec();
    for (name, values) in [
        ("win_start", members.iter().map(|m| m.1).collect::<Vec<_>>()),
        ("win_end", members.iter().map(|m| m.2).collect()),
    ] {
        fields.push(Arc::new(Field::new(name, DataType::Int64, false)));
        columns.push(Arc::new(Int64Array::from(values)));
    }
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).unwrap()
}
