//! Alarms, and the episodes they make.

use avouch_engine::verdict::Severity;

use super::judged::Side;

/// Alarms of one device and step that follow each other by one window's length at most.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::commands) struct Episode {
    pub step: u16,
    pub device: u32,
    /// When the first alarm could be raised: the end of its window.
    pub first_ms: i64,
    /// The end of the last alarm's window.
    pub last_ms: i64,
    pub alarms: u64,
    pub worst: Severity,
}

/// By step, device and time.
pub(in crate::commands) fn episodes(side: &Side) -> Vec<Episode> {
    let mut out: Vec<Episode> = Vec::new();
    for v in side.verdicts.iter().filter(|v| v.alarm()) {
        let window = side.step(v).window_ms;
        match out.last_mut() {
            Some(e) if (e.step, e.device) == (v.step, v.device) && v.window_end - e.last_ms <= window => {
                e.last_ms = v.window_end;
                e.alarms += 1;
                e.worst = e.worst.max(v.severity);
            }
            _ => out.push(Episode {
                step: v.step,
                device: v.device,
                first_ms: v.window_end,
                last_ms: v.window_end,
                alarms: 1,
                worst: v.severity,
            }),
        }
    }
    out
}

/// The time that verdicts cover, summed over devices, milliseconds: what several windows or steps cover counts once.
pub(in crate::commands) fn covered_ms(side: &Side) -> i64 {
    let mut windows: Vec<(u32, i64, i64)> =
        side.verdicts.iter().map(|v| (v.device, v.window_start, v.window_end)).collect();
    windows.sort_unstable();
    let (mut sum, mut of, mut until) = (0, None, i64::MIN);
    for (device, start, end) in windows {
        if of != Some(device) {
            (of, until) = (Some(device), i64::MIN);
        }
        if end > until {
            sum += end - start.max(until);
            until = end;
        }
    }
    sum
}
