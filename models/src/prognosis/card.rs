//! The part of a model card that is about a prognosis, for a reader.

use std::fmt::Write as _;

use super::PrognosisCard;
use crate::card::short;
use crate::label::LabelConfig;

impl PrognosisCard {
    pub(crate) fn write_markdown(&self, s: &mut String) {
        // Writing to a String cannot fail, so the results are dropped.
        let _ = writeln!(s, "\n## On the held-back rows\n\n| | |\n| --- | --- |");
        let mut row = |name: &str, value: String| {
            let _ = writeln!(s, "| {name} | {value} |");
        };
        match &self.label {
            LabelConfig::RemainingLife { cap, unit, coverage } => {
                let capped = cap.map_or(String::new(), |c| format!(", at most {}", short(c)));
                row("says", format!("remaining life in {unit}{capped}"));
                row("intervals are to hold", format!("{} of the truths", short(*coverage)));
                row("rows after the failure, left out", self.rows_after_failure.to_string());
            }
            LabelConfig::Failure { column } => row("says", format!("the probability that `{column}` is 1")),
        }
        row("mean label", short(self.mean_label));
        row("contributions are counted from", short(self.base));
        row("devices held back", self.devices_held_back.to_string());
        row("fitted once more on all rows, after calibration", if self.refit { "yes" } else { "no" }.to_owned());
        row("root mean squared error", short(self.rmse));
        row("mean absolute error", short(self.mean_absolute_error));
        if let Some(c) = self.coverage_across_devices {
            row("intervals of the first half of these devices hold of the second half's truths", short(c));
        }
        if !self.intervals.is_empty() {
            let _ =
                writeln!(s, "\n| values from | rows | interval from value | to value |\n| ---: | ---: | ---: | ---: |");
            for b in &self.intervals {
                let _ = writeln!(s, "| {} | {} | {} | +{} |", short(b.from), b.rows, short(b.below), short(b.above));
            }
        }
        if !self.reliability.is_empty() {
            let _ =
                writeln!(s, "\n| probability | rows | mean said | share that failed |\n| --- | ---: | ---: | ---: |");
            for r in &self.reliability {
                let range = format!("{} to {}", short(r.from), short(r.to));
                let _ = writeln!(s, "| {range} | {} | {} | {} |", r.rows, short(r.said), short(r.seen));
            }
        }
        let _ = writeln!(s);
    }
}
