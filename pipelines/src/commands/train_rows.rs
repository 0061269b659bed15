//! `avouch train --rows`: what a model would be made from, as a file, for those who make one elsewhere.

use std::path::Path;

use arrow::array::{AsArray, RecordBatch};
use avouch_models::table::HELD_BACK;
use datafusion::parquet::arrow::ArrowWriter;
use datafusion::parquet::errors::ParquetError;
use serde_json::json;

use super::train::{Rows, TrainError, frame_of, save};
use crate::lang::{Pipeline, Train};

/// Writes the rows of the one entry.
pub(super) fn write(pipeline: &Pipeline, entries: &[&Train], path: &Path, json: bool) -> Result<(), TrainError> {
    let [entry] = entries else {
        let names: Vec<&str> = entries.iter().map(|t| t.name.value.as_str()).collect();
        let why = format!("--rows writes the rows of one entry; say which: {}", names.join(", "));
        return Err(TrainError::Nothing(why));
    };
    if path.extension().is_none_or(|e| e != "parquet" && e != "pq") {
        let why = "rows are written as Parquet; let the file's name end in .parquet".to_owned();
        return Err(TrainError::Parquet { path: path.to_path_buf(), why });
    }
    let frame = frame_of(pipeline, entry, &Rows::of(entry), json)?;
    let in_model = |source| TrainError::Model { name: entry.name.value.clone(), source };
    let table = frame.table(&entry.split).map_err(in_model)?;
    let bytes = parquet(&table).map_err(|e| TrainError::Parquet { path: path.to_path_buf(), why: e.to_string() })?;
    save(path, &bytes)?;
    let held_back = table.column_by_name(HELD_BACK).map_or(0, |c| c.as_boolean().true_count());
    let (rows, devices) = (table.num_rows(), frame.devices().len());
    if json {
        println!(
            "{}",
            json!({ "file": path, "rows": rows, "held_back": held_back, "dropped": frame.dropped(), "devices": devices,
                    "features": frame.features() })
        );
    } else {
        println!(
            "wrote {}: {rows} rows of {devices} devices, {held_back} of them held back; {} features{}",
            path.display(),
            frame.features().len(),
            match frame.dropped() {
                0 => String::new(),
                n => format!("; {n} rows left out, in which a feature is null or not finite"),
            }
        );
    }
    Ok(())
}

fn parquet(table: &RecordBatch) -> Result<Vec<u8>, ParquetError> {
    let mut writer = ArrowWriter::try_new(Vec::new(), table.schema(), None)?;
    writer.write(table)?;
    writer.into_inner()
}
