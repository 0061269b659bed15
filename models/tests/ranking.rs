//! Area under the ROC curve and average precision, against cases worked out by hand and against their definitions.
#![allow(clippy::unwrap_used)]

use avouch_models::ranking::{average_precision, roc_auc};
use proptest::prelude::*;

#[test]
fn hand_computed_cases() {
    // scikit-learn's own example: pairs (0.35, 0.1), (0.35, 0.4), (0.8, 0.1), (0.8, 0.4): three of four in order.
    let (s, y) = ([0.1, 0.4, 0.35, 0.8], [false, false, true, true]);
    assert_eq!(roc_auc(&s, &y), Some(0.75));
    // At 0.8: 1/1. At 0.4: no anomaly. At 0.35: 2/3.
    assert_eq!(average_precision(&s, &y), Some((1.0 + 2.0 / 3.0) / 2.0));
    // One score for all: chance.
    assert_eq!(roc_auc(&[7.0; 5], &[true, false, false, true, false]), Some(0.5));
    assert_eq!(average_precision(&[7.0; 5], &[true, false, false, true, false]), Some(0.4));
    // A tie of an anomaly with one of two normal rows counts half: (1 + ½) / 2.
    assert_eq!(roc_auc(&[2.0, 2.0, 1.0], &[true, false, false]), Some(0.75));
    assert_eq!(average_precision(&[2.0, 2.0, 1.0], &[true, false, false]), Some(0.5));
    // Perfect, and upside down.
    assert_eq!(roc_auc(&[3.0, 2.0, 1.0], &[true, false, false]), Some(1.0));
    assert_eq!(roc_auc(&[1.0, 2.0, 3.0], &[true, false, false]), Some(0.0));
    assert_eq!(average_precision(&[1.0, 2.0, 3.0], &[true, false, false]), Some(1.0 / 3.0));
    // The two zeroes are one score; infinities are scores.
    assert_eq!(roc_auc(&[0.0, -0.0], &[true, false]), Some(0.5));
    assert_eq!(roc_auc(&[f64::INFINITY, f64::NEG_INFINITY], &[true, false]), Some(1.0));
}

#[test]
fn what_has_no_answer_gets_none() {
    assert_eq!(roc_auc(&[1.0, 2.0], &[true, true]), None);
    assert_eq!(roc_auc(&[1.0, 2.0], &[false, false]), None);
    assert_eq!(roc_auc(&[1.0, f64::NAN], &[true, false]), None);
    assert_eq!(roc_auc(&[1.0], &[true, false]), None);
    assert_eq!(roc_auc(&[], &[]), None);
    assert_eq!(average_precision(&[1.0], &[false]), None);
    assert_eq!(average_precision(&[1.0, 0.0], &[true, true]), Some(1.0));
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn they_are_what_they_are_defined_as(rows in prop::collection::vec((0u8..12, any::<bool>()), 2..80), rotate in 0usize..80) {
        let scores: Vec<f64> = rows.iter().map(|r| f64::from(r.0) / 3.0).collect();
        let labels: Vec<bool> = rows.iter().map(|r| r.1).collect();
        let of = |label: bool| rows.iter().filter(|r| r.1 == label).collect::<Vec<&(u8, bool)>>();
        let (positive, negative) = (of(true), of(false));
        let (auc, ap) = (roc_auc(&scores, &labels), average_precision(&scores, &labels));
        if positive.is_empty() {
            prop_assert!(auc.is_none() && ap.is_none());
            return Ok(());
        }
        let expected_ap = positive
            .iter()
            .map(|p| {
                let found = positive.iter().filter(|q| q.0 >= p.0).count() as f64;
                found / (found + negative.iter().filter(|q| q.0 >= p.0).count() as f64)
            })
            .sum::<f64>() / positive.len() as f64;
        prop_assert!((ap.unwrap() - expected_ap).abs() < 1e-12);
        if negative.is_empty() {
            prop_assert!(auc.is_none());
            return Ok(());
        }
        let mut won = 0.0;
        for p in &positive {
            for n in &negative {
                won += if p.0 > n.0 { 1.0 } else if p.0 == n.0 { 0.5 } else { 0.0 };
            }
        }
        prop_assert!((auc.unwrap() - won / (positive.len() * negative.len()) as f64).abs() < 1e-12);
        // The order of rows does not matter, to the bit.
        let (mut s, mut l) = (scores, labels);
        let by = rotate % s.len();
        s.rotate_left(by);
        l.rotate_left(by);
        prop_assert_eq!(roc_auc(&s, &l), auc);
        prop_assert_eq!(average_precision(&s, &l), ap);
    }
}
