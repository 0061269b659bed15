//! Training rows as a table for others: what a model trained elsewhere is to be trained on.

use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, Float64Array, RecordBatch, StringArray, TimestampMillisecondArray};

use crate::ModelError;
use crate::config::SplitConfig;
use crate::frame::{DEVICE, TrainingFrame, WINDOW_END};

/// The column with a row's label, where the rows have labels.
pub const LABEL: &str = "label";

/// The column that says whether a row is held back from fitting, for calibration.
pub const HELD_BACK: &str = "held_back";

impl TrainingFrame {
    /// All rows used, in the order of device and window end: [`DEVICE`], [`WINDOW_END`] (milliseconds, UTC), the features in
    /// their order, [`LABEL`] if there are labels, and [`HELD_BACK`], which is what [`TrainingFrame::split`] does with them.
    ///
    /// # Errors
    /// [`ModelError::Column`] for a feature called as one of the other columns, and what [`TrainingFrame::split`] refuses.
    pub fn table(&self, split: &SplitConfig) -> Result<RecordBatch, ModelError> {
        let (rows, ends) = self.in_order()?;
        let devices = self.devices();
        let names = rows.device.iter().map(|d| devices.get(*d).map(String::as_str));
        let ends: TimestampMillisecondArray = ends.into_iter().map(Some).collect();
        let mut columns: Vec<(&str, ArrayRef)> = vec![
            (DEVICE, Arc::new(names.collect::<StringArray>())),
            (WINDOW_END, Arc::new(ends.with_timezone("+00:00"))),
        ];
        for (feature, values) in self.features().iter().zip(rows.values.columns()) {
            columns.push((feature, Arc::new(values.iter().map(|v| Some(*v)).collect::<Float64Array>())));
        }
        if let Some(labels) = self.labels() {
            columns.push((LABEL, Arc::new(Float64Array::from(labels.values.clone()))));
        }
        columns.push((HELD_BACK, Arc::new(BooleanArray::from(self.held_back(split)?))));
        for feature in self.features() {
            if columns.iter().filter(|(name, _)| name == feature).count() > 1 {
                return Err(ModelError::column(
                    feature,
                    "is also a column of the table; give the feature another name",
                ));
            }
        }
        RecordBatch::try_from_iter(columns).map_err(|e| ModelError::Rows(e.to_string()))
    }
}
