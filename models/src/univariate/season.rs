//! What a value usually is at this time of day, and how this day of the week differs: learned as readings come, whatever
//! their cadence.

use avouch_engine::codec::{CodecError, Reader, Writer};

/// Half hours of a day.
const SLOTS: usize = 48;
const DAYS: usize = 7;
const DAY_MS: i64 = 86_400_000;

/// A slot's mean follows at least this fast: a fiftieth of the way a reading.
const SLOWEST: f64 = 0.02;

/// Readings' worth of doubt that a day of the week differs from the others.
const DOUBT: f64 = 5.0;

/// Counts stop here; a rate of [`SLOWEST`] is reached long before.
const MOST: u16 = 1000;

/// Half-hourly means of a day, and of each day of the week how far it is from them. 2.9 KB.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Season {
    mean: [f64; SLOTS],
    count: [u16; SLOTS],
    differs: [f32; SLOTS * DAYS],
    differs_count: [u16; SLOTS * DAYS],
}

fn rate(count: u16) -> f64 {
    (1.0 / (f64::from(count) + 1.0)).max(SLOWEST)
}

impl Season {
    pub(super) const EMPTY: Self =
        Self { mean: [0.0; SLOTS], count: [0; SLOTS], differs: [0.0; SLOTS * DAYS], differs_count: [0; SLOTS * DAYS] };

    /// What is expected of a reading at `at` (milliseconds since the epoch, UTC), by what was seen before it; then learns
    /// from it. None if this time of day was never seen.
    #[inline]
    pub(super) fn step(&mut self, at: i64, x: f64) -> Option<f64> {
        let slot = (at.rem_euclid(DAY_MS) * SLOTS as i64 / DAY_MS) as usize;
        // The epoch was a Thursday; which day is numbered 0 does not matter.
        let day = at.div_euclid(DAY_MS).rem_euclid(DAYS as i64) as usize;
        let of_week = day * SLOTS + slot;
        if self.count[slot] == 0 {
            self.mean[slot] = x;
            self.count[slot] = 1;
            return None;
        }
        let mean = self.mean[slot];
        let seen = self.differs_count[of_week];
        let differs = f64::from(self.differs[of_week]);
        let expected = mean + differs * f64::from(seen) / (f64::from(seen) + DOUBT);
        let most = f64::from(f32::MAX);
        self.differs[of_week] = (differs + (x - mean - differs) * rate(seen)).clamp(-most, most) as f32;
        self.differs_count[of_week] = (seen + 1).min(MOST);
        self.mean[slot] += (x - expected) * rate(self.count[slot]);
        self.count[slot] = (self.count[slot] + 1).min(MOST);
        Some(expected)
    }

    pub(super) fn write(&self, w: &mut Writer) {
        for (mean, count) in self.mean.iter().zip(&self.count) {
            w.u16(*count);
            if *count > 0 {
                w.f64(*mean);
            }
        }
        for (differs, count) in self.differs.iter().zip(&self.differs_count) {
            w.u16(*count);
            if *count > 0 {
                w.u32(differs.to_bits());
            }
        }
    }

    pub(super) fn read(r: &mut Reader<'_>) -> Result<Self, CodecError> {
        let mut out = Self::EMPTY;
        for i in 0..SLOTS {
            out.count[i] = count(r)?;
            if out.count[i] > 0 {
                out.mean[i] = r.f64()?;
                if !out.mean[i].is_finite() {
                    return Err(r.invalid(format!("the mean of half hour {i} is no number")));
                }
            }
        }
        for i in 0..SLOTS * DAYS {
            out.differs_count[i] = count(r)?;
            if out.differs_count[i] > 0 {
                out.differs[i] = f32::from_bits(r.u32()?);
                if !out.differs[i].is_finite() || out.count[i % SLOTS] == 0 {
                    return Err(
                        r.invalid(format!("half hour {i} of the week is no number, or its half hour never was"))
                    );
                }
            }
        }
        Ok(out)
    }
}

fn count(r: &mut Reader<'_>) -> Result<u16, CodecError> {
    let count = r.u16()?;
    if count > MOST { Err(r.invalid(format!("{count} readings in a half hour"))) } else { Ok(count) }
}
