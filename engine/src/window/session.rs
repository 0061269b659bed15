//! Session windows: a device's rows that follow each other by less than `gap`, up to `max`.
//!
//! In the order of event time, a row belongs to the session of the row before it if it comes less than `gap` after that one
//! and before the session's cut; otherwise it begins the next. The cut is the last multiple of `gap` since the epoch that is
//! at most `max` after the session's first row. A session is `[first row, min(last row + gap, cut))`, and fires when the
//! watermark reaches its end.
//!
//! A row behind the watermark is late for sessions, also where a session is open: whether it belongs to that one, or to one
//! that has fired, or joins the two, cannot be told any more. At or above the watermark rows come in any order; one that
//! bridges two sessions makes them one.
//!
//! Panes are `gap` wide, so rows of one pane are never in two sessions, a cut is always a border of panes, and a session
//! holds at most `max / gap` panes and one. Sessions are therefore never merged as such: what belongs together is found when
//! it fires. The heap holds for each device a time at or before the end of its first session, to be looked at then.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::panes::{NONE, Panes};
use crate::device::DeviceNumber;

/// The first session of a device, as its rows stand now.
#[derive(Debug, Clone, Copy)]
pub(super) struct Session {
    pub start: i64,
    pub end: i64,
    pub oldest: u32,
    pub newest: u32,
}

#[derive(Debug)]
pub(super) struct Sessions {
    gap: i64,
    max: i64,
    /// A time to look at a device, and the device. Entries that are not in `due` are out of date.
    heap: BinaryHeap<Reverse<(i64, DeviceNumber)>>,
    /// By device: its entry in the heap; `i64::MAX` if it has none.
    due: Vec<i64>,
}

impl Sessions {
    pub(super) fn new(gap: i64, max: i64) -> Self {
        Self { gap, max, heap: BinaryHeap::new(), due: Vec::new() }
    }

    /// A device's first session; `None` if it has no rows.
    pub(super) fn first(&self, panes: &Panes, device: DeviceNumber) -> Option<Session> {
        let oldest = panes.list(device).oldest;
        if oldest == NONE {
            return None;
        }
        let [start, mut last] = panes.spans[oldest as usize];
        let cut = (start + self.max).div_euclid(self.gap) * self.gap;
        let mut newest = oldest;
        loop {
            let next = panes.slots[newest as usize].newer;
            if next == NONE {
                break;
            }
            let [first, end] = panes.spans[next as usize];
            if first - last >= self.gap || first >= cut {
                break;
            }
            last = end;
            newest = next;
        }
        Some(Session { start, end: (last + self.gap).min(cut), oldest, newest })
    }

    /// The device's first session may end earlier than was known: enters it in the heap.
    pub(super) fn look_at(&mut self, panes: &Panes, device: DeviceNumber) {
        if let Some(session) = self.first(panes, device) {
            if self.due.len() <= device as usize {
                self.due.resize(device as usize + 1, i64::MAX);
            }
            if session.end < self.due[device as usize] {
                self.due[device as usize] = session.end;
                self.heap.push(Reverse((session.end, device)));
            }
        }
    }

    /// When to look next; no session ends before. `i64::MAX` if there is none.
    pub(super) fn next(&self) -> i64 {
        self.heap.peek().map_or(i64::MAX, |Reverse((end, _))| *end)
    }

    /// A session that ends at or before `watermark`: the earliest end, then the lowest device. The caller frees its slots
    /// and then calls [`Sessions::look_at`].
    pub(super) fn pop(&mut self, panes: &Panes, watermark: i64) -> Option<(DeviceNumber, Session)> {
        while self.next() <= watermark {
            let Reverse((looked, device)) = self.heap.pop()?;
            if self.due[device as usize] != looked {
                continue;
            }
            self.due[device as usize] = i64::MAX;
            match self.first(panes, device) {
                Some(session) if session.end == looked => return Some((device, session)),
                Some(session) => {
                    self.due[device as usize] = session.end;
                    self.heap.push(Reverse((session.end, device)));
                }
                None => {}
            }
        }
        None
    }

    pub(super) fn clear(&mut self) {
        self.heap.clear();
        self.due.clear();
    }
}
