//! Training rows as a table for others say all that training would use.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Float64Array, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::Float64Type;
use avouch_models::{Failures, LabelConfig, ModelError, SplitBy, SplitConfig, TrainingFrame};

fn frame(feature: &str) -> (TrainingFrame, RecordBatch) {
    let batch = RecordBatch::try_from_iter([
        ("device", Arc::new(StringArray::from(vec!["b", "a", "a", "b", "a"])) as ArrayRef),
        ("window_end", Arc::new(Int64Array::from(vec![2_000, 2_000, 1_000, 1_000, 3_000]))),
        (feature, Arc::new(Float64Array::from(vec![Some(5.0), Some(2.0), Some(1.0), Some(4.0), None]))),
        ("failed", Arc::new(Float64Array::from(vec![1.0, 0.0, 1.0, 0.0, 0.0]))),
    ])
    .unwrap();
    (TrainingFrame::from_batches(&[feature.to_owned()], [&batch]).unwrap(), batch)
}

const HALF: SplitConfig = SplitConfig { by: SplitBy::Time, hold_back: 0.5, seed: 7 };

#[test]
fn rows_are_in_order_with_label_and_what_is_held_back_and_without_those_dropped() {
    let (frame, batch) = frame("x");
    let label = LabelConfig::Failure { column: "failed".to_owned() };
    let table = frame.with_labels(&label, &Failures::new(), [&batch]).unwrap().table(&HALF).unwrap();
    let names: Vec<&str> = table.schema_ref().fields().iter().map(|f| f.name().as_str()).collect();
    assert_eq!(names, ["device", "window_end", "x", "label", "held_back"]);
    let numbers = |name: &str| table.column_by_name(name).unwrap().as_primitive::<Float64Type>().values().to_vec();
    assert_eq!(numbers("x"), [1.0, 2.0, 4.0, 5.0]);
    assert_eq!(numbers("label"), [1.0, 0.0, 0.0, 1.0]);
    let held_back: Vec<bool> = table.column(4).as_boolean().iter().flatten().collect();
    assert_eq!(held_back, [false, true, false, true]);
}

#[test]
fn without_labels_there_is_no_label_and_a_feature_may_not_be_called_as_another_column() {
    assert!(frame("x").0.table(&HALF).unwrap().column_by_name("label").is_none());
    assert!(
        matches!(frame("held_back").0.table(&HALF), Err(ModelError::Column { column, .. }) if column == "held_back")
    );
}
