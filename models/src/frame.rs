//! Training rows: Arrow batches from the engine, put in order, cleaned and split with Polars.

use std::collections::BTreeMap;

use arrow::array::{
    Array, AsArray, Float64Array, Int64Array, LargeStringArray, RecordBatch, StringArray, StringViewArray,
};
use arrow::datatypes::{DataType, TimeUnit, TimestampMillisecondType};
use linfa::DatasetBase;
use ndarray::{Array1, Array2};
use polars::prelude::{
    BooleanChunked, Column, DataFrame, IntoColumn, NamedFrom, NewChunkedArray, Series, SortMultipleOptions,
};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::ModelError;
use crate::config::{SplitBy, SplitConfig};
use crate::label::{Failures, LabelConfig, Labels};

/// The column that names a row's device: text, never null.
pub const DEVICE: &str = "device";

/// The column with the end of a row's window: integers or timestamps of milliseconds since the epoch, never null.
pub const WINDOW_END: &str = "window_end";

/// Feature rows of many devices, sorted by device and window end. How they were cut into batches, and in which order
/// they came, leaves no trace.
#[derive(Debug, Clone)]
pub struct TrainingFrame {
    features: Vec<String>,
    devices: Vec<String>,
    /// Rows all of whose features are finite.
    used: DataFrame,
    dropped: usize,
    profile: Vec<FeatureProfile>,
    labels: Option<Labels>,
}

/// What one feature looks like over the rows given.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FeatureProfile {
    /// Feature name.
    pub feature: String,
    /// Rows in which it is finite; the figures below are over these.
    pub rows: u64,
    /// Rows in which it is null or not finite.
    pub missing: u64,
    /// Smallest value.
    pub min: f64,
    /// Mean.
    pub mean: f64,
    /// Largest value.
    pub max: f64,
    /// Standard deviation (n − 1), 0 for a single row.
    pub deviation: f64,
}

/// Rows of some devices, ready for linfa.
#[derive(Debug, Clone)]
pub struct Rows {
    /// Feature values, a row a window, in the order of device and window end.
    pub values: Array2<f64>,
    /// The number of each row's device, in the order of [`TrainingFrame::devices`].
    pub device: Array1<usize>,
}

impl Rows {
    /// As a linfa dataset: the targets are the devices.
    pub fn into_dataset(self, features: &[String]) -> DatasetBase<Array2<f64>, Array1<usize>> {
        DatasetBase::new(self.values, self.device).with_feature_names(features.to_vec())
    }
}

impl TrainingFrame {
    /// Gathers `batches`, which must have the columns [`DEVICE`], [`WINDOW_END`] and `features` (float or integer);
    /// other columns are ignored. Rows with a null or non-finite feature are dropped and counted; a device with two
    /// rows of the same window end is an error, since one of them must be wrong.
    pub fn from_batches<'a>(
        features: &[String],
        batches: impl IntoIterator<Item = &'a RecordBatch>,
    ) -> Result<Self, ModelError> {
        if features.is_empty() {
            return Err(ModelError::Rows("the model step names no features".to_owned()));
        }
        if let Some(f) = features.iter().enumerate().find_map(|(i, f)| features[..i].contains(f).then_some(f)) {
            return Err(ModelError::column(f, "is listed twice in `features`"));
        }
        let (mut device, mut window_end) = (Vec::new(), Vec::new());
        let mut values: Vec<Vec<Option<f64>>> = vec![Vec::new(); features.len()];
        for batch in batches {
            texts(named(batch, DEVICE)?, &mut device)?;
            instants(named(batch, WINDOW_END)?, &mut window_end)?;
            for (feature, out) in features.iter().zip(&mut values) {
                numbers(feature, named(batch, feature)?, out)?;
            }
        }
        let mut columns = vec![
            Series::new(DEVICE.into(), device).into_column(),
            Series::new(WINDOW_END.into(), window_end).into_column(),
        ];
        for (i, v) in values.into_iter().enumerate() {
            columns.push(Series::new(column_name(i).into(), v).into_column());
        }
        let all = DataFrame::new_infer_height(columns)?.sort([DEVICE, WINDOW_END], SortMultipleOptions::default())?;
        refuse_duplicates(&all)?;

        let mut keep = vec![true; all.height()];
        let mut profile = Vec::with_capacity(features.len());
        for (i, feature) in features.iter().enumerate() {
            let finite: Vec<Option<f64>> =
                all.column(&column_name(i))?.f64()?.iter().map(|v| v.filter(|v| v.is_finite())).collect();
            for (k, v) in keep.iter_mut().zip(&finite) {
                *k &= v.is_some();
            }
            profile.push(FeatureProfile::of(feature, &finite));
        }
        let used = all.filter(&BooleanChunked::from_slice("keep".into(), &keep))?;
        if used.height() == 0 {
            let worst = profile.iter().max_by_key(|p| p.missing);
            return Err(ModelError::Rows(format!(
                "none of the {} rows has all features{}",
                all.height(),
                worst
                    .filter(|p| p.missing > 0)
                    .map_or(String::new(), |p| format!("; `{}` is null or not finite in {}", p.feature, p.missing))
            )));
        }
        let mut devices: Vec<String> = Vec::new();
        for name in used.column(DEVICE)?.str()?.iter().flatten() {
            if devices.last().is_none_or(|last| last != name) {
                devices.push(name.to_owned());
            }
        }
        let dropped = all.height() - used.height();
        Ok(Self { features: features.to_vec(), devices, used, dropped, profile, labels: None })
    }

    /// The same with labels by `config`: remaining life by when the devices failed, or the column that says whether a row's
    /// device failed, in `batches` that were given to [`TrainingFrame::from_batches`]. Windows that end after a failure say
    /// nothing of the way there: they are left out and counted.
    ///
    /// # Errors
    /// [`ModelError::Rows`] for a device without a failure: a device that was still running is not one that lasted as long as
    /// it was seen, so give its rows to a model when it has failed, or leave them out. [`ModelError::Column`] where the column
    /// is null, or neither 0 nor 1.
    pub fn with_labels<'a>(
        mut self,
        config: &LabelConfig,
        failures: &Failures,
        batches: impl IntoIterator<Item = &'a RecordBatch>,
    ) -> Result<Self, ModelError> {
        config.check()?;
        let ends: Vec<i64> = self.used.column(WINDOW_END)?.i64()?.iter().flatten().collect();
        let values: Vec<Option<f64>> = match config {
            LabelConfig::RemainingLife { cap, .. } => {
                let missing: Vec<&str> =
                    self.devices.iter().filter(|d| !failures.contains_key(*d)).map(String::as_str).collect();
                if let Some(first) = missing.first() {
                    return Err(ModelError::Rows(format!(
                        "{} of {} devices have no time of failure, the first is `{first}`; add theirs to the label's \
                         file, or leave their rows out: it is not known how long they last",
                        missing.len(),
                        self.devices.len()
                    )));
                }
                let unit = config.milliseconds()?;
                let names = self.used.column(DEVICE)?.str()?;
                names
                    .iter()
                    .flatten()
                    .zip(&ends)
                    .map(|(device, end)| {
                        let left = failures.get(device)?.checked_sub(*end).filter(|ms| *ms >= 0)? as f64 / unit;
                        Some(cap.map_or(left, |c| left.min(c)))
                    })
                    .collect()
            }
            LabelConfig::Failure { column } => self.column_of(column, batches)?.into_iter().map(Some).collect(),
        };
        let keep: Vec<bool> = values.iter().map(Option::is_some).collect();
        let after_failure = keep.iter().filter(|k| !**k).count();
        self.used = self.used.filter(&BooleanChunked::from_slice("keep".into(), &keep))?;
        if self.used.height() == 0 {
            return Err(ModelError::Rows("every window ends after its device's failure".to_owned()));
        }
        let mut devices: Vec<String> = Vec::new();
        for name in self.used.column(DEVICE)?.str()?.iter().flatten() {
            if devices.last().is_none_or(|last| last != name) {
                devices.push(name.to_owned());
            }
        }
        self.devices = devices;
        let values = values.into_iter().flatten().collect();
        self.labels = Some(Labels { config: config.clone(), values, after_failure });
        Ok(self)
    }

    /// A column that is 0 or 1, in the order of the rows used.
    fn column_of<'a>(
        &self,
        column: &str,
        batches: impl IntoIterator<Item = &'a RecordBatch>,
    ) -> Result<Vec<f64>, ModelError> {
        let (mut device, mut window_end, mut label) = (Vec::new(), Vec::new(), Vec::new());
        for batch in batches {
            texts(named(batch, DEVICE)?, &mut device)?;
            instants(named(batch, WINDOW_END)?, &mut window_end)?;
            numbers(column, named(batch, column)?, &mut label)?;
        }
        let of: BTreeMap<(&str, i64), Option<f64>> =
            device.iter().map(String::as_str).zip(window_end).zip(label).collect();
        let ends = self.used.column(WINDOW_END)?.i64()?;
        let rows = self.used.column(DEVICE)?.str()?.iter().flatten().zip(ends.iter().flatten());
        rows.map(|row| match of.get(&row).copied().flatten() {
            Some(v) if v == 0.0 || v == 1.0 => Ok(v),
            other => Err(ModelError::column(
                column,
                format!(
                    "is {} for device `{}`; a label is 0 (did not fail) or 1 (failed)",
                    other.map_or("null".to_owned(), |v| v.to_string()),
                    row.0
                ),
            )),
        })
        .collect()
    }

    /// The labels, if there are any.
    pub(crate) fn labels(&self) -> Option<&Labels> {
        self.labels.as_ref()
    }

    /// All rows used.
    pub(crate) fn all_rows(&self) -> Result<Rows, ModelError> {
        rows_of(&self.used, &self.devices, self.features.len())
    }

    /// The features, in the order given.
    pub fn features(&self) -> &[String] {
        &self.features
    }

    /// Names of the devices with at least one row, sorted.
    pub fn devices(&self) -> &[String] {
        &self.devices
    }

    /// Rows used.
    pub fn rows(&self) -> usize {
        self.used.height()
    }

    /// Rows dropped because a feature was null or not finite.
    pub fn dropped(&self) -> usize {
        self.dropped
    }

    /// What each feature looks like, over the rows given.
    pub fn profile(&self) -> &[FeatureProfile] {
        &self.profile
    }

    /// The profile as a table, a row a feature, for printing.
    pub fn profile_table(&self) -> Result<DataFrame, ModelError> {
        let p = &self.profile;
        let numbers = |name: &str, f: fn(&FeatureProfile) -> f64| {
            Series::new(name.into(), p.iter().map(f).collect::<Vec<f64>>()).into_column()
        };
        Ok(DataFrame::new_infer_height(vec![
            Series::new("feature".into(), p.iter().map(|p| p.feature.clone()).collect::<Vec<_>>()).into_column(),
            Series::new("rows".into(), p.iter().map(|p| p.rows).collect::<Vec<_>>()).into_column(),
            Series::new("missing".into(), p.iter().map(|p| p.missing).collect::<Vec<_>>()).into_column(),
            numbers("min", |p| p.min),
            numbers("mean", |p| p.mean),
            numbers("max", |p| p.max),
            numbers("deviation", |p| p.deviation),
        ])?)
    }

    /// Earliest and latest window end used.
    pub fn window_ends(&self) -> Result<(i64, i64), ModelError> {
        let ends = self.used.column(WINDOW_END)?.i64()?;
        let fold = |f: fn(i64, i64) -> i64| ends.iter().flatten().reduce(f).unwrap_or(0);
        Ok((fold(i64::min), fold(i64::max)))
    }

    /// SHA-256 over feature names and, in the order of device and window end, device, window end and feature bits of
    /// every row used, in the engine's canonical encoding.
    pub fn digest(&self) -> Result<[u8; 32], ModelError> {
        let mut hash = Sha256::new();
        let mut text = |s: &str| {
            hash.update((s.len() as u32).to_le_bytes());
            hash.update(s.as_bytes());
        };
        text("avouch training rows 1");
        for f in &self.features {
            text(f);
        }
        let rows = rows_of(&self.used, &self.devices, self.features.len())?;
        let ends = self.used.column(WINDOW_END)?.i64()?;
        for ((row, device), end) in rows.values.outer_iter().zip(&rows.device).zip(ends.iter().flatten()) {
            let name = &self.devices[*device];
            hash.update((name.len() as u32).to_le_bytes());
            hash.update(name.as_bytes());
            hash.update(end.to_le_bytes());
            for v in row {
                hash.update(v.to_bits().to_le_bytes());
            }
        }
        if let Some(labels) = &self.labels {
            hash.update(b"labels");
            for v in &labels.values {
                hash.update(v.to_bits().to_le_bytes());
            }
        }
        Ok(hash.finalize().into())
    }

    /// Splits into rows to fit on and rows held back. By time, the last `hold_back` of every device's rows are held
    /// back (rounded; a device with a single row is fitted on). By device, that share of the devices, at least one,
    /// is drawn with the seed.
    pub fn split(&self, config: &SplitConfig) -> Result<(Rows, Rows), ModelError> {
        let mask = BooleanChunked::from_slice("held_back".into(), &self.held_back(config)?);
        let part = |mask: &BooleanChunked| -> Result<Rows, ModelError> {
            rows_of(&self.used.filter(mask)?, &self.devices, self.features.len())
        };
        Ok((part(&!&mask)?, part(&mask)?))
    }

    /// All rows used with their window ends, in the order of device and window end.
    pub(crate) fn in_order(&self) -> Result<(Rows, Vec<i64>), ModelError> {
        let rows = rows_of(&self.used, &self.devices, self.features.len())?;
        Ok((rows, self.used.column(WINDOW_END)?.i64()?.iter().flatten().collect()))
    }

    /// Which of these rows [`TrainingFrame::split`] holds back.
    pub(crate) fn held_back(&self, config: &SplitConfig) -> Result<Vec<bool>, ModelError> {
        config.check()?;
        let rows = rows_of(&self.used, &self.devices, self.features.len())?;
        let mut count = vec![0usize; self.devices.len()];
        for d in &rows.device {
            count[*d] += 1;
        }
        Ok(match config.by {
            SplitBy::Time => {
                let mut seen = vec![0usize; self.devices.len()];
                let fitted: Vec<usize> = count
                    .iter()
                    .map(|n| ((*n as f64 * (1.0 - config.hold_back)).round_ties_even() as usize).max(1))
                    .collect();
                rows.device
                    .iter()
                    .map(|&d| {
                        seen[d] += 1;
                        seen[d] > fitted[d]
                    })
                    .collect()
            }
            SplitBy::Device => {
                let held = draw(self.devices.len(), config)?;
                rows.device.iter().map(|&d| held[d]).collect()
            }
        })
    }

    /// Where what [`TrainingFrame::split`] holds back of each of [`TrainingFrame::devices`] begins: the end of its first
    /// window, milliseconds since the epoch; none where nothing of the device is held back.
    pub fn held_back_from(&self, config: &SplitConfig) -> Result<Vec<Option<i64>>, ModelError> {
        let held = self.held_back(config)?;
        let rows = rows_of(&self.used, &self.devices, self.features.len())?;
        let ends = self.used.column(WINDOW_END)?.i64()?;
        let mut out = vec![None; self.devices.len()];
        for ((held, device), end) in held.iter().zip(&rows.device).zip(ends.iter().flatten()) {
            if *held && out[*device].is_none() {
                out[*device] = Some(end);
            }
        }
        Ok(out)
    }

    /// The values of a feature by its place in [`TrainingFrame::features`], in the order of device and window end.
    pub fn values(&self, feature: usize) -> Result<Vec<f64>, ModelError> {
        Ok(self.used.column(&column_name(feature))?.f64()?.iter().flatten().collect())
    }
}

impl FeatureProfile {
    /// Added in row order, so the figures are the same on every machine.
    fn of(feature: &str, values: &[Option<f64>]) -> Self {
        let n = values.iter().flatten().count();
        let mean = values.iter().flatten().sum::<f64>() / n as f64;
        let squares: f64 = values.iter().flatten().map(|v| (v - mean) * (v - mean)).sum();
        Self {
            feature: feature.to_owned(),
            rows: n as u64,
            missing: (values.len() - n) as u64,
            min: values.iter().flatten().fold(f64::INFINITY, |a, v| a.min(*v)),
            mean,
            max: values.iter().flatten().fold(f64::NEG_INFINITY, |a, v| a.max(*v)),
            deviation: if n > 1 { (squares / (n - 1) as f64).sqrt() } else { 0.0 },
        }
    }
}

/// Feature columns are numbered inside the frame, so that a feature may be called `device`.
fn column_name(i: usize) -> String {
    format!("f{i}")
}

fn named<'a>(batch: &'a RecordBatch, name: &str) -> Result<&'a dyn Array, ModelError> {
    batch.column_by_name(name).map(AsRef::as_ref).ok_or_else(|| {
        let have: Vec<&str> = batch.schema_ref().fields().iter().map(|f| f.name().as_str()).collect();
        ModelError::column(name, format!("is not there; the rows have {}", have.join(", ")))
    })
}

fn texts(column: &dyn Array, out: &mut Vec<String>) -> Result<(), ModelError> {
    let any = column.as_any();
    let mut push = |v: Option<&str>| match v {
        Some(v) => {
            out.push(v.to_owned());
            Ok(())
        }
        None => Err(ModelError::column(DEVICE, "is null in a row; every row must name its device")),
    };
    if let Some(a) = any.downcast_ref::<StringArray>() {
        a.iter().try_for_each(&mut push)
    } else if let Some(a) = any.downcast_ref::<LargeStringArray>() {
        a.iter().try_for_each(&mut push)
    } else if let Some(a) = any.downcast_ref::<StringViewArray>() {
        a.iter().try_for_each(&mut push)
    } else {
        Err(ModelError::column(DEVICE, format!("has type {}, text is needed", column.data_type())))
    }
}

fn instants(column: &dyn Array, out: &mut Vec<i64>) -> Result<(), ModelError> {
    let mut push = |v: Option<i64>| match v {
        Some(v) => {
            out.push(v);
            Ok(())
        }
        None => Err(ModelError::column(WINDOW_END, "is null in a row")),
    };
    match column.data_type() {
        DataType::Int64 => column.as_primitive::<arrow::datatypes::Int64Type>().iter().try_for_each(&mut push),
        DataType::Timestamp(TimeUnit::Millisecond, _) => {
            column.as_primitive::<TimestampMillisecondType>().iter().try_for_each(&mut push)
        }
        other => Err(ModelError::column(
            WINDOW_END,
            format!("has type {other}, integers or timestamps of milliseconds are needed"),
        )),
    }
}

fn numbers(name: &str, column: &dyn Array, out: &mut Vec<Option<f64>>) -> Result<(), ModelError> {
    let any = column.as_any();
    if let Some(a) = any.downcast_ref::<Float64Array>() {
        out.extend(a.iter());
    } else if let Some(a) = any.downcast_ref::<Int64Array>() {
        out.extend(a.iter().map(|v| v.map(|v| v as f64)));
    } else {
        return Err(ModelError::column(name, format!("has type {}, a number is needed", column.data_type())));
    }
    Ok(())
}

fn refuse_duplicates(sorted: &DataFrame) -> Result<(), ModelError> {
    let (device, end) = (sorted.column(DEVICE)?.str()?, sorted.column(WINDOW_END)?.i64()?);
    let mut last: Option<(&str, i64)> = None;
    for row in device.iter().flatten().zip(end.iter().flatten()) {
        if last == Some(row) {
            return Err(ModelError::Rows(format!(
                "device `{}` has two rows for the window that ends at {}; is a file read twice?",
                row.0, row.1
            )));
        }
        last = Some(row);
    }
    Ok(())
}

/// The rows of a sorted frame without nulls, devices numbered by their place in the sorted `devices`.
fn rows_of(frame: &DataFrame, devices: &[String], p: usize) -> Result<Rows, ModelError> {
    let n = frame.height();
    let mut values = Array2::zeros((n, p));
    for j in 0..p {
        let column: &Column = frame.column(&column_name(j))?;
        for (i, v) in column.f64()?.iter().enumerate() {
            values[[i, j]] = v.unwrap_or(f64::NAN);
        }
    }
    let mut device = Array1::zeros(n);
    let mut current = 0;
    for (i, name) in frame.column(DEVICE)?.str()?.iter().enumerate() {
        // Both are sorted, so the place only moves forward.
        while devices.get(current).is_some_and(|d| Some(d.as_str()) != name) {
            current += 1;
        }
        device[i] = current;
    }
    Ok(Rows { values, device })
}

/// Draws which of `n` devices are held back.
fn draw(n: usize, config: &SplitConfig) -> Result<Vec<bool>, ModelError> {
    if n < 2 {
        return Err(ModelError::config(
            "split.by",
            "there is only one device, so none can be held back; set `split.by = \"time\"`",
        ));
    }
    let hold = ((n as f64 * config.hold_back).round_ties_even() as usize).clamp(1, n - 1);
    let mut rng = ChaCha8Rng::seed_from_u64(config.seed);
    let mut order: Vec<usize> = (0..n).collect();
    let mut held = vec![false; n];
    // The first `hold` steps of a Fisher-Yates shuffle; the widening multiplication's bias is below n / 2⁶⁴.
    for i in 0..hold {
        let pick = i + ((u128::from(rng.next_u64()) * (n - i) as u128) >> 64) as usize;
        order.swap(i, pick);
        held[order[i]] = true;
    }
    Ok(held)
}
