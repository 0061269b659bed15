//! How well scores rank anomalies before normal rows, without any threshold: area under the ROC curve and average precision.
//!
//! Rows of one score are one step of either curve, so the figures do not depend on the order of rows, and a score that is
//! the same everywhere has an area of one half and a precision of the share of anomalies. Both agree with scikit-learn's
//! `roc_auc_score` and `average_precision_score`.

/// Counts of anomalies and normal rows, by score: highest first. `None` if a score is not a number.
fn steps(scores: &[f64], anomaly: &[bool]) -> Option<Vec<(u64, u64)>> {
    if scores.len() != anomaly.len() || scores.iter().any(|s| s.is_nan()) {
        return None;
    }
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_by(|&i, &j| scores[j].total_cmp(&scores[i]));
    let mut out: Vec<(u64, u64)> = Vec::new();
    let mut last = None;
    for i in order {
        // Not by `total_cmp`: the two zeroes are one score.
        if last != Some(scores[i]) {
            out.push((0, 0));
            last = Some(scores[i]);
        }
        if let Some((anomalies, normal)) = out.last_mut() {
            *anomalies += u64::from(anomaly[i]);
            *normal += u64::from(!anomaly[i]);
        }
    }
    Some(out)
}

/// The probability that an anomaly scores higher than a normal row, ties counted half: the area under the ROC curve.
/// `None` without an anomaly or without a normal row, where a score is NaN, or where there are not as many labels as scores.
pub fn roc_auc(scores: &[f64], anomaly: &[bool]) -> Option<f64> {
    let (mut above, mut twice, mut normal) = (0u64, 0u128, 0u64);
    for (a, n) in steps(scores, anomaly)? {
        twice += u128::from(n) * u128::from(2 * above + a);
        above += a;
        normal += n;
    }
    let pairs = u128::from(above) * u128::from(normal);
    (pairs > 0).then(|| twice as f64 / (2 * pairs) as f64)
}

/// Average precision: the precision at each score, weighted by the anomalies that have it; no interpolation.
/// `None` without an anomaly, where a score is NaN, or where there are not as many labels as scores.
pub fn average_precision(scores: &[f64], anomaly: &[bool]) -> Option<f64> {
    let (mut found, mut rows, mut sum) = (0u64, 0u64, 0.0);
    for (a, n) in steps(scores, anomaly)? {
        found += a;
        rows += a + n;
        sum += a as f64 * (found as f64 / rows as f64);
    }
    (found > 0).then(|| sum / found as f64)
}
