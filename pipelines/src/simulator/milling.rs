//! Jobs of a milling machine, in the layout of AI4I 2020 and after its own description (Matzka 2020).
//!
//! Air warms and cools slowly and the process with it; the more torque, the slower the spindle; a tool wears by 2, 3 or 5
//! minutes a job by the product's quality and is changed between 200 and 240 minutes. A job fails in one of four ways that
//! follow from its row, or, one in a thousand, for no reason.

use std::fmt::Write as _;

use avouch_engine::decode::format_timestamp;

use super::fleet::SimulatorError;
use super::random::Noise;
use super::row::Row;

const MINUTE_MS: i64 = 60_000;
/// Radians a second of a turn a minute.
const RPM: f64 = 0.104_719_755;
/// Number of the first product.
const FIRST: u64 = 14_860;

/// Jobs of one machine, a minute apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MillingConfig {
    /// Decides everything random.
    pub seed: u64,
    /// How many jobs.
    pub jobs: u64,
    /// First job, milliseconds since the epoch.
    pub start_ms: i64,
}

/// The jobs in order of time. Made by [`MillingConfig::rows`].
pub struct MillingRows {
    config: MillingConfig,
    noise: Noise,
    next: u64,
    /// K away from the mean: the air, and the process from the air.
    air: f64,
    excess: f64,
    /// Minutes the tool has cut, and at how many it breaks or is changed.
    wear: f64,
    lasts: f64,
    breaks: bool,
    failures: String,
}

impl MillingConfig {
    /// The jobs.
    ///
    /// # Errors
    /// [`SimulatorError`] if the configuration makes no sense.
    pub fn rows(&self) -> Result<MillingRows, SimulatorError> {
        let wrong = |why: String| Err(SimulatorError { why });
        if self.jobs == 0 || self.jobs > 10_000_000 {
            return wrong(format!("{} jobs: there are between 1 and 10,000,000", self.jobs));
        }
        if !(0..i64::MAX / 2).contains(&self.start_ms) {
            return wrong("the run must start in 1970 or later and end within the range of 64-bit milliseconds".into());
        }
        let mut noise = Noise::new(self.seed, 32, 0);
        let (air, excess) = (2.0 * noise.normal(), noise.normal());
        let mut rows = MillingRows {
            config: self.clone(),
            noise,
            next: 0,
            air,
            excess,
            wear: 0.0,
            lasts: 0.0,
            breaks: false,
            failures: String::from("product,at,cause\n"),
        };
        rows.new_tool();
        Ok(rows)
    }
}

impl MillingRows {
    /// The jobs written so far that failed, as CSV: `product,at,cause`.
    pub fn failures(&self) -> &str {
        &self.failures
    }

    /// Writes the next job; `false` at the end.
    pub fn write(&mut self, row: &mut Row) -> bool {
        if self.next == self.config.jobs {
            return false;
        }
        let noise = &mut self.noise;
        // Walks that come back: two kelvin and one in the long run.
        self.air = 0.999 * self.air + 2.0 * (1.0f64 - 0.999 * 0.999).sqrt() * noise.normal();
        self.excess = 0.995 * self.excess + (1.0f64 - 0.995 * 0.995).sqrt() * noise.normal();
        let (quality, bears, wears) = match noise.uniform() {
            q if q < 0.5 => ("L", 11_000.0, 2.0),
            q if q < 0.8 => ("M", 12_000.0, 3.0),
            _ => ("H", 13_000.0, 5.0),
        };
        let torque = (40.0 + 10.0 * noise.normal()).max(3.0);
        let speed = 1500.0 * libm::pow(40.0 / torque, 0.4) + 60.0 * noise.normal();
        let chance = noise.uniform();
        let (air, process) = (300.0 + self.air, 310.0 + self.air + self.excess);
        let power = torque * speed * RPM;
        let cause = if self.wear >= self.lasts && self.breaks {
            Some("tool wear")
        } else if process - air < 8.6 && speed < 1380.0 {
            Some("heat")
        } else if !(3500.0..=9000.0).contains(&power) {
            Some("power")
        } else if self.wear * torque > bears {
            Some("overstrain")
        } else if chance < 0.001 {
            Some("no reason")
        } else {
            None
        };
        let product = format!("{quality}{}", FIRST + self.next);
        let at = format_timestamp(self.config.start_ms + self.next as i64 * MINUTE_MS);
        row.begin();
        row.text("product", &product);
        row.text("at", &at);
        row.text("quality", quality);
        row.number("air", air, 1);
        row.number("process", process, 1);
        row.number("speed", speed, 0);
        row.number("torque", torque, 1);
        row.number("wear", self.wear, 0);
        row.whole("failed", i64::from(cause.is_some()));
        row.end();
        if let Some(cause) = cause {
            // Writing to a String cannot fail.
            let _ = writeln!(self.failures, "{product},{at},{cause}");
        }
        if self.wear >= self.lasts {
            self.new_tool();
        } else {
            self.wear += wears;
        }
        self.next += 1;
        true
    }

    fn new_tool(&mut self) {
        self.wear = 0.0;
        self.lasts = self.noise.between(200.0, 240.0);
        self.breaks = self.noise.uniform() < 0.4;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::row::RowForm;
    use super::*;

    #[test]
    fn jobs_fail_about_as_often_as_the_data_sets_and_the_truth_says_why() {
        let config = MillingConfig { seed: 7, jobs: 10_000, start_ms: 1_577_836_800_000 };
        let (mut rows, mut row) = (config.rows().unwrap(), Row::new(RowForm::Csv));
        let mut failed = 0;
        while rows.write(&mut row) {
            let text = std::str::from_utf8(row.bytes()).unwrap();
            assert_eq!(text.split(',').count(), 9, "{text}");
            failed += usize::from(text.ends_with(",1"));
        }
        assert_eq!(row.columns(), b"product,at,quality,air,process,speed,torque,wear,failed");
        assert!((200..600).contains(&failed), "{failed}");
        assert_eq!(rows.failures().lines().count(), 1 + failed);
        for cause in ["tool wear", "heat", "power", "overstrain", "no reason"] {
            assert!(rows.failures().contains(cause), "{cause}");
        }
    }

    #[test]
    fn what_makes_no_sense_is_said() {
        for (jobs, start_ms) in [(0, 0), (1, -1)] {
            let error = MillingConfig { seed: 7, jobs, start_ms }.rows().err().unwrap().to_string();
            assert!(error.starts_with("the fleet cannot be simulated: "), "{error}");
        }
    }
}
