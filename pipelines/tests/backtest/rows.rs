//! `avouch train --rows`: what a model is made from, for those who make one elsewhere.

use std::fs::File;

use avouch_models::TrainingFrame;
use avouch_models::table::HELD_BACK;
use datafusion::arrow::array::{AsArray, RecordBatch};
use datafusion::parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use super::fleet::place;
use super::{done, json, refused};

#[test]
fn the_rows_written_are_those_the_model_was_made_from() {
    let dir = place();
    let said = json(&done(dir, &["train", "pumps.toml", "--rows", "rows.parquet", "--json"]));
    let shown = json(&done(dir, &["model", "show", "pump.model", "--json"]));
    let training = &shown["card"]["training"];

    let file = File::open(dir.join("rows.parquet")).unwrap();
    let batches: Vec<RecordBatch> =
        ParquetRecordBatchReaderBuilder::try_new(file).unwrap().build().unwrap().map(Result::unwrap).collect();
    let features: Vec<String> =
        said["features"].as_array().unwrap().iter().map(|f| f.as_str().unwrap().to_owned()).collect();
    // The card's digest covers device, end and every bit of the features of each row.
    let frame = TrainingFrame::from_batches(&features, &batches).unwrap();
    assert_eq!(training["digest"], avouch::lang::hex(&frame.digest().unwrap()));

    let held_back = |b: &RecordBatch| b.column_by_name(HELD_BACK).unwrap().as_boolean().true_count();
    assert_eq!(training["rows_held_back"], batches.iter().map(held_back).sum::<usize>());
    assert_eq!(training["rows_held_back"], said["held_back"]);
    assert_eq!(said["rows"], frame.rows());
}

#[test]
fn a_file_that_is_not_called_parquet_is_refused() {
    let said = refused(place(), &["train", "pumps.toml", "--rows", "rows.csv"]);
    assert_eq!(said, "error: rows.csv: rows are written as Parquet; let the file's name end in .parquet\n");
    assert!(!place().join("rows.csv").exists());
}
