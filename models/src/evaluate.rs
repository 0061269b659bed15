//! How good the decisions are, where the truth is known: pooled confusion counts and what follows from them.

use std::collections::BTreeMap;
use std::fmt;

use polars::prelude::{Column, DataFrame, IntoColumn, NamedFrom, Series};
use serde::{Deserialize, Serialize};

use crate::ModelError;

/// Confusion counts of alarms against labels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Confusion {
    /// Alarm, and the label says anomaly.
    pub true_positives: u64,
    /// Alarm, but the label says normal.
    pub false_positives: u64,
    /// No alarm, but the label says anomaly.
    pub false_negatives: u64,
    /// No alarm, and the label says normal.
    pub true_negatives: u64,
}

impl Confusion {
    /// Counts one row.
    pub fn add(&mut self, alarm: bool, anomaly: bool) {
        match (alarm, anomaly) {
            (true, true) => self.true_positives += 1,
            (true, false) => self.false_positives += 1,
            (false, true) => self.false_negatives += 1,
            (false, false) => self.true_negatives += 1,
        }
    }

    /// Adds another table's counts.
    pub fn merge(&mut self, other: &Confusion) {
        self.true_positives += other.true_positives;
        self.false_positives += other.false_positives;
        self.false_negatives += other.false_negatives;
        self.true_negatives += other.true_negatives;
    }

    /// Rows counted.
    pub fn rows(&self) -> u64 {
        self.true_positives + self.false_positives + self.false_negatives + self.true_negatives
    }

    /// F1 = 2 TP / (2 TP + FP + FN), 0 to 1; NaN without any alarm or anomaly.
    pub fn f1(&self) -> f64 {
        share(2 * self.true_positives, 2 * self.true_positives + self.false_positives + self.false_negatives)
    }

    /// False-alarm rate FP / (FP + TN), 0 to 1; NaN without normal rows.
    pub fn false_alarm_rate(&self) -> f64 {
        share(self.false_positives, self.false_positives + self.true_negatives)
    }

    /// Missed-alarm rate FN / (FN + TP), 0 to 1; NaN without anomalous rows.
    pub fn missed_alarm_rate(&self) -> f64 {
        share(self.false_negatives, self.false_negatives + self.true_positives)
    }

    /// Precision TP / (TP + FP), 0 to 1; NaN without alarms.
    pub fn precision(&self) -> f64 {
        share(self.true_positives, self.true_positives + self.false_positives)
    }

    /// Recall TP / (TP + FN), 0 to 1; NaN without anomalous rows.
    pub fn recall(&self) -> f64 {
        share(self.true_positives, self.true_positives + self.false_negatives)
    }
}

fn share(part: u64, whole: u64) -> f64 {
    part as f64 / whole as f64
}

impl fmt::Display for Confusion {
    /// `F1 0.886  FAR 4.9 %  MAR 17.1 %  (TP .. FP .. FN .. TN ..)`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "F1 {:.3}  FAR {:.1} %  MAR {:.1} %  (TP {} FP {} FN {} TN {})",
            self.f1(),
            100.0 * self.false_alarm_rate(),
            100.0 * self.missed_alarm_rate(),
            self.true_positives,
            self.false_positives,
            self.false_negatives,
            self.true_negatives
        )
    }
}

/// Confusion counts per group (device, file, experiment), pooled by adding them up.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Evaluation {
    groups: BTreeMap<String, Confusion>,
}

impl Evaluation {
    /// Counts one row of `group`.
    pub fn add(&mut self, group: &str, alarm: bool, anomaly: bool) {
        match self.groups.get_mut(group) {
            Some(c) => c.add(alarm, anomaly),
            None => self.groups.entry(group.to_owned()).or_default().add(alarm, anomaly),
        }
    }

    /// The groups in order of name.
    pub fn groups(&self) -> impl Iterator<Item = (&str, &Confusion)> {
        self.groups.iter().map(|(name, c)| (name.as_str(), c))
    }

    /// All groups added up.
    pub fn pooled(&self) -> Confusion {
        let mut sum = Confusion::default();
        for c in self.groups.values() {
            sum.merge(c);
        }
        sum
    }

    /// A table, a row a group and `all` last: counts, F1, and FAR and MAR in percent.
    pub fn table(&self) -> Result<DataFrame, ModelError> {
        let pooled = self.pooled();
        let rows: Vec<(&str, &Confusion)> = self.groups().chain([("all", &pooled)]).collect();
        let counts = |name: &str, f: fn(&Confusion) -> u64| -> Column {
            Series::new(name.into(), rows.iter().map(|(_, c)| f(c)).collect::<Vec<_>>()).into_column()
        };
        let figures = |name: &str, f: fn(&Confusion) -> f64| -> Column {
            Series::new(name.into(), rows.iter().map(|(_, c)| f(c)).collect::<Vec<_>>()).into_column()
        };
        Ok(DataFrame::new_infer_height(vec![
            Series::new("group".into(), rows.iter().map(|(name, _)| (*name).to_owned()).collect::<Vec<_>>())
                .into_column(),
            counts("rows", Confusion::rows),
            counts("tp", |c| c.true_positives),
            counts("fp", |c| c.false_positives),
            counts("fn", |c| c.false_negatives),
            counts("tn", |c| c.true_negatives),
            figures("f1", Confusion::f1),
            figures("far_percent", |c| 100.0 * c.false_alarm_rate()),
            figures("mar_percent", |c| 100.0 * c.missed_alarm_rate()),
        ])?)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn groups_are_pooled_by_adding_up() {
        let mut e = Evaluation::default();
        for (group, alarm, anomaly, times) in
            [("a", true, true, 8), ("a", true, false, 1), ("a", false, false, 9), ("b", false, true, 2)]
        {
            for _ in 0..times {
                e.add(group, alarm, anomaly);
            }
        }
        let all = e.pooled();
        assert_eq!((all.rows(), all.false_negatives), (20, 2));
        assert!((all.f1() - 16.0 / 19.0).abs() < 1e-15);
        assert!((all.false_alarm_rate() - 0.1).abs() < 1e-15);
        assert!((all.missed_alarm_rate() - 0.2).abs() < 1e-15);
        assert_eq!(all.to_string(), "F1 0.842  FAR 10.0 %  MAR 20.0 %  (TP 8 FP 1 FN 2 TN 9)");
        assert_eq!(e.table().unwrap().height(), 3);
    }
}
