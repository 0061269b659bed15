//! How long records waited for their anchor.

/// From the end of a record's window, which is event time, to the time of the block that anchored it, in milliseconds.
///
/// It holds everything between: how late readings came, the disorder that the lane waits for, and the writer. Where
/// readings of long ago were read, it is long for that reason alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Delays {
    /// How many records it is about.
    pub records: u64,
    /// Half of them waited no longer.
    pub median_ms: i64,
    /// 99 in 100 waited no longer.
    pub p99_ms: i64,
    /// None waited longer.
    pub max_ms: i64,
    /// How many waited longer than was promised; `None` where nothing is known of a promise.
    pub late: Option<u64>,
    /// The longest time from one anchor's block to the next, milliseconds, over anchors that were given.
    pub longest_pause_ms: u64,
}

/// A time as people say it: in seconds, in hours and minutes, in days.
pub(super) fn span(ms: i64) -> String {
    let (s, sign) = (ms.unsigned_abs() / 1000, if ms < 0 { "-" } else { "" });
    match s {
        0..10 => format!("{sign}{}.{} s", s, ms.unsigned_abs() % 1000 / 100),
        10..600 => format!("{sign}{s} s"),
        600..7_200 => format!("{sign}{} min", s / 60),
        7_200..172_800 => format!("{sign}{} h {} min", s / 3_600, s % 3_600 / 60),
        _ => format!("{sign}{} days", s / 86_400),
    }
}

impl Delays {
    /// Of these waits. `None` of none.
    pub(super) fn of(mut waits: Vec<i64>, promise_ms: Option<u64>, longest_pause_ms: u64) -> Option<Self> {
        waits.sort_unstable();
        let at = |share: f64| {
            let rank = (share * waits.len() as f64).ceil() as usize;
            waits.get(rank.saturating_sub(1)).copied()
        };
        Some(Self {
            records: waits.len() as u64,
            median_ms: at(0.5)?,
            p99_ms: at(0.99)?,
            max_ms: *waits.last()?,
            late: promise_ms.map(|p| {
                let promise = i64::try_from(p).unwrap_or(i64::MAX);
                (waits.len() - waits.partition_point(|w| *w <= promise)) as u64
            }),
            longest_pause_ms,
        })
    }
}
