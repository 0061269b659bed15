//! Nothing is trained: the ONNX file is checked, the reference taken from the rows, and the scores calibrated.

use super::OnnxError;
use super::config::{OnnxConfig, OnnxSays};
use super::file;
use super::scorer::Value;
use crate::ModelError;
use crate::calibrate::Calibration;
use crate::card::{CalibrationCard, Fitted};
use crate::frame::{Rows, TrainingFrame};
use crate::train::Parts;

pub(crate) fn train(
    frame: &TrainingFrame,
    config: &OnnxConfig,
    fit: &Rows,
    held_back: &Rows,
) -> Result<Parts, ModelError> {
    config.check()?;
    let refused = |e: OnnxError| match e {
        OnnxError::Output(why) => ModelError::config("algorithm.output", why),
        other => ModelError::config("algorithm.file", format!("`{}`: {other}", config.file)),
    };
    let value = Value::of(config.into(), &config.contents, frame.features(), medians(fit)).map_err(refused)?;

    let (mut scores, mut halves) = (Vec::new(), (Vec::new(), Vec::new()));
    let mut count = vec![0usize; frame.devices().len()];
    held_back.device.iter().for_each(|d| count[*d] += 1);
    let mut seen = vec![0usize; count.len()];
    for (row, &d) in held_back.values.outer_iter().zip(&held_back.device) {
        // Also where nothing is calibrated: a model that fails on the training data would fail in service.
        let score = value.alone(&row.to_vec()).map_err(refused)?;
        scores.push(score);
        let half = if seen[d] < count[d] / 2 { &mut halves.0 } else { &mut halves.1 };
        half.push(score);
        seen[d] += 1;
    }
    let calibration = match config.says {
        OnnxSays::Anomaly => Some(Calibration::of(&scores)?),
        _ => None,
    };
    let cards =
        calibration.iter().map(|c| CalibrationCard::of("all devices", c, &scores, (&halves.0, &halves.1))).collect();
    let extent = value.graph().extent();
    let fact = |name: &str, value: Vec<f64>| Fitted { name: name.to_owned(), value };
    Ok(Parts {
        model: "A model trained elsewhere, as an ONNX graph, evaluated operator by operator in a fixed order. Contributions are \
                what changes when features are exchanged for their medians: Shapley values (Shapley 1953) up to four \
                features, beyond that the mean of the features' order and its reverse.",
        fitted: vec![
            fact("bytes of the ONNX file", vec![config.contents.len() as f64]),
            fact("nodes evaluated", vec![extent.nodes as f64]),
            fact("constants in tensors", vec![extent.constants as f64]),
            fact("medians that features are compared with", value.reference.clone()),
        ],
        calibration: cards,
        body: file::encode(frame.features(), config, &value.reference, calibration.as_ref()),
    })
}

/// Of each feature, the lower of the two middle ones.
fn medians(rows: &Rows) -> Vec<f64> {
    let columns = rows.values.columns();
    columns
        .into_iter()
        .map(|c| {
            let mut sorted = c.to_vec();
            sorted.sort_by(f64::total_cmp);
            sorted.get(sorted.len().saturating_sub(1) / 2).copied().unwrap_or(0.0)
        })
        .collect()
}
