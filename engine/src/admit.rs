//! Event time: which rows are admitted, and how far time has come.
//!
//! The watermark is a property of the row, not of the batch: after each admitted row it is the highest time so far minus
//! `max_disorder`. However the input is cut, the same rows are late.
//!
//! One fast clock never makes the other devices late. A row whose event time is more than `max_future` ahead of the
//! record's own broker timestamp is refused; one that is ahead by less is admitted, but moves time no further than that
//! timestamp. This rests on the timestamp being the broker's (`message.timestamp.type=LogAppendTime`). Where it is the
//! producer's (`CreateTime`, Kafka's default), a producer whose own clock is fast vouches for itself: nothing here can
//! tell its rows from time that really went on.
//!
//! Where records were repartitioned, those of several source partitions meet in one lane, copied by processes that go at
//! paces of their own. Then time is kept by source partition, and the lane's goes no further than the one furthest behind:
//! see [`Origins`].

mod origins;

use crate::codec::{CodecError, FARTHEST_MS, Reader, Writer};
use crate::dead_letter::DeadReason;
use crate::decode::{RecordOrigin, RowError, format_timestamp};
use crate::spec::WindowSpec;

pub use origins::{ORIGIN_WAIT_MS, Origins};

/// Event-time admission of one lane.
#[derive(Debug, Clone)]
pub struct Admission {
    max_disorder: i64,
    max_future: i64,
    windows: Vec<WindowSpec>,
    /// The highest time that an admitted row reached (its event time, or its broker timestamp if that is earlier), or
    /// the one that the last tick stands for if that is higher.
    max_event_time: Option<i64>,
    /// The times of the source partitions, where records were repartitioned; `max_event_time` follows them.
    origins: Origins,
}

impl Admission {
    /// `windows` are those of all windowed steps: a row is late when in every one of them its last window has closed.
    /// With no windows no row is late.
    pub fn new(max_disorder_ms: i64, max_future_ms: i64, windows: Vec<WindowSpec>) -> Self {
        Self {
            max_disorder: max_disorder_ms,
            max_future: max_future_ms,
            windows,
            max_event_time: None,
            origins: Origins::default(),
        }
    }

    /// The watermark after the rows so far: no window that ends at or before it will change any more.
    #[inline]
    pub fn watermark(&self) -> Option<i64> {
        self.max_event_time.map(|t| t - self.max_disorder)
    }

    /// Admits a row or says why not. Only an admitted row advances the watermark.
    #[inline]
    pub fn admit(&mut self, event_time: i64, broker_time: i64, origin: Option<RecordOrigin>) -> Result<i64, RowError> {
        if event_time > broker_time.saturating_add(self.max_future) {
            return Err(self.future(event_time, broker_time));
        }
        let mut reached = event_time.min(broker_time);
        if let Some(origin) = origin {
            if let Some(watermark) = self.watermark()
                && event_time < watermark
                && self.is_late(event_time, watermark)
            {
                return Err(self.late(event_time, watermark));
            }
            reached = self.origins.reached(origin, reached);
        }
        match self.max_event_time {
            Some(max) if reached <= max => {
                let watermark = max - self.max_disorder;
                // A row at or above the watermark is never late: its windows end after it.
                if event_time < watermark && self.is_late(event_time, watermark) {
                    return Err(self.late(event_time, watermark));
                }
                Ok(watermark)
            }
            _ => {
                self.max_event_time = Some(reached);
                Ok(reached - self.max_disorder)
            }
        }
    }

    /// Lets time go on without a row. `false`, and nothing happens, when there was no row yet or the watermark is not
    /// ahead of the present one: time never goes back.
    pub fn tick(&mut self, watermark: i64) -> bool {
        match self.watermark() {
            Some(now) if watermark > now => {
                self.max_event_time = Some(watermark.saturating_add(self.max_disorder));
                true
            }
            _ => false,
        }
    }

    fn is_late(&self, event_time: i64, watermark: i64) -> bool {
        !self.windows.is_empty() && self.windows.iter().all(|w| w.is_closed(event_time, watermark))
    }

    #[cold]
    fn late(&self, event_time: i64, watermark: i64) -> RowError {
        RowError {
            reason: DeadReason::Late,
            detail: format!(
                "event time {} is behind the watermark {} and all its windows are closed",
                format_timestamp(event_time),
                format_timestamp(watermark)
            ),
        }
    }

    #[cold]
    fn future(&self, event_time: i64, broker_time: i64) -> RowError {
        RowError {
            reason: DeadReason::Future,
            detail: format!(
                "event time {} is {} ms ahead of the record's timestamp {}, more than the allowed {} ms",
                format_timestamp(event_time),
                event_time - broker_time,
                format_timestamp(broker_time),
                self.max_future
            ),
        }
    }

    /// After [`Admission::restore`] of what was kept with another `max_disorder`: the watermark stays where it was, so that no
    /// window that is closed opens again, and goes on when rows reach further by the new rule. `false` if that is no time any more,
    /// which only a damaged state leads to.
    #[must_use]
    pub fn keep_watermark(&mut self, max_disorder_ms: i64) -> bool {
        let moved = self.max_disorder.saturating_sub(max_disorder_ms);
        self.max_event_time = self.max_event_time.map(|t| t.saturating_add(moved));
        self.max_event_time.is_none_or(|t| t.unsigned_abs() <= FARTHEST_MS)
    }

    /// Writes the state into a snapshot.
    pub fn snapshot(&self, w: &mut Writer) {
        let origins = !self.origins.is_empty();
        w.u8(u8::from(self.max_event_time.is_some()) | u8::from(origins) << 1);
        w.i64(self.max_event_time.unwrap_or(0));
        if origins {
            self.origins.snapshot(w);
        }
    }

    /// Reads what [`Admission::snapshot`] wrote.
    pub fn restore(&mut self, r: &mut Reader<'_>) -> Result<(), CodecError> {
        let present = r.u8()?;
        let time = r.milliseconds()?;
        self.max_event_time = match present {
            0 => None,
            1 | 3 => Some(time),
            other => return Err(r.invalid(format!("presence flag {other}"))),
        };
        self.origins = if present == 3 { Origins::restore(r)? } else { Origins::default() };
        Ok(())
    }
}
