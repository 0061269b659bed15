//! Windows looked at before they close.
//!
//! Whenever the watermark passes a multiple of `early`, an instant, the windows that began before it and are open
//! (`start < instant`, `watermark < end`) are folded as their rows stand at that row, and nothing else happens: panes, hashes
//! and what closes when stay as they are. A row that passes several instants at once is one occasion, at the last of them,
//! since nothing came in between. The next instant follows from the watermark, so a snapshot need not hold it.

use super::operator::{Closing, FiredWindow, WindowOperator};

/// A window's rows so far.
#[derive(Debug)]
pub struct EarlyWindow {
    /// The watermark at which it was looked at.
    pub as_of: i64,
    /// The rows, as if the window had closed; without input digests.
    pub window: FiredWindow,
}

/// When an operator looks, and what it has seen.
#[derive(Debug)]
pub(super) struct Early {
    /// Milliseconds between instants; 0: never.
    every: i64,
    /// The watermark at which to look next; `i64::MAX` if there is none.
    pub next: i64,
    seen: Vec<EarlyWindow>,
}

impl Early {
    pub(super) fn never() -> Self {
        Self { every: 0, next: i64::MAX, seen: Vec::new() }
    }

    /// The watermark stands here, and what lies behind it was looked at, or will not be.
    pub(super) fn stand_at(&mut self, watermark: i64) {
        self.next = match self.every {
            0 => i64::MAX,
            every => watermark.div_euclid(every).saturating_add(1).saturating_mul(every),
        };
    }
}

impl WindowOperator {
    /// Looks at open windows at every multiple of `every_ms`. Sessions have no early results.
    pub fn with_early(mut self, every_ms: Option<i64>) -> Self {
        if let (Some(every), None) = (every_ms.filter(|e| *e > 0), &self.sessions) {
            self.early.every = every;
        }
        self
    }

    /// What was seen since this was called last.
    pub fn take_early(&mut self) -> Vec<EarlyWindow> {
        std::mem::take(&mut self.early.seen)
    }

    /// Looks at the open windows that began before the last instant up to `watermark`; row `at` has taken it there.
    pub(super) fn look(&mut self, at: usize, watermark: i64) {
        self.early.stand_at(watermark);
        let instant = watermark - watermark.rem_euclid(self.early.every.max(1));
        if self.panes.earliest().is_none() {
            return;
        }
        let live = self.panes.take_live();
        let mut end = self.grid.first_end(watermark);
        while end - self.grid.size() < instant {
            let start = end - self.grid.size();
            let first = self.grid.pane(start);
            let mut closing = Closing::new(&self.definition, at);
            for &device in &live {
                // What the fold keeps for later holds until a row changes its pane, whoever asked for it first.
                if let Some(folding) = self.folder.window(&mut self.panes, &self.grid, device, first) {
                    closing.add(&self.panes, &self.folder.words, &folding, device, start, end);
                }
            }
            if !closing.fired.devices.is_empty() {
                self.early.seen.push(EarlyWindow { as_of: watermark, window: closing.fired });
            }
            end += self.grid.every();
        }
        self.panes.give_live(live);
    }
}
