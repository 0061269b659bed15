//! How a step cuts time into panes and windows.
//!
//! Every start and every end of a window is a border of panes. A window that begins every `every` and is `size` long ends
//! `size mod every` after some start, so there are at most two panes an `every`, whatever the two lengths:
//!
//! ```text
//!   size = 25 s, every = 10 s:   0────5────10───15────20───25────30     panes of 5 s and 5 s
//!   size = 60 s, every = 10 s:   0─────────10─────────20─────────30     panes of 10 s
//! ```
//!
//! Panes are numbered from the epoch. Blocks of as many panes as a window has are numbered alike; see [`super::fold`].

use crate::spec::WindowSpec;

/// A step's panes. For sessions a pane is `gap` wide: rows of one device in one pane are always in one session.
#[derive(Debug, Clone, Copy)]
pub(super) struct Grid {
    every: i64,
    size: i64,
    /// Width of the first of two panes an `every`; 0 if there is one.
    first: i64,
    /// Panes of a window.
    panes: i64,
}

impl Grid {
    pub(super) fn new(window: WindowSpec) -> Self {
        let (size, every) = match window {
            WindowSpec::Session { gap_ms, .. } => (gap_ms, gap_ms),
            fixed => (fixed.size_ms(), fixed.every_ms()),
        };
        let first = size % every;
        let panes = if first == 0 { size / every } else { size / every * 2 + 1 };
        Self { every, size, first, panes }
    }

    /// The pane of a time.
    pub(super) fn pane(&self, t: i64) -> i64 {
        let n = t.div_euclid(self.every);
        if self.first == 0 { n } else { 2 * n + i64::from(t.rem_euclid(self.every) >= self.first) }
    }

    /// Its first instant.
    pub(super) fn start(&self, pane: i64) -> i64 {
        if self.first == 0 {
            pane * self.every
        } else {
            pane.div_euclid(2) * self.every + pane.rem_euclid(2) * self.first
        }
    }

    /// The first pane of the block after the one `pane` is in.
    pub(super) fn next_block(&self, pane: i64) -> i64 {
        (pane.div_euclid(self.panes) + 1) * self.panes
    }

    /// Panes of a window.
    pub(super) fn panes(&self) -> i64 {
        self.panes
    }

    pub(super) fn size(&self) -> i64 {
        self.size
    }

    pub(super) fn every(&self) -> i64 {
        self.every
    }

    /// The end of the earliest window that contains `t`, which is also the earliest end after `t`.
    pub(super) fn first_end(&self, t: i64) -> i64 {
        // Its start is the first multiple of `every` above t - size.
        ((t - self.size).div_euclid(self.every) + 1) * self.every + self.size
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn windows_are_whole_panes(every in 1i64..50, more in 0i64..200, t in -500i64..500) {
            let grid = Grid::new(WindowSpec::Sliding { size_ms: every + more, every_ms: every });
            let pane = grid.pane(t);
            prop_assert!(grid.start(pane) <= t && t < grid.start(pane + 1));
            let start = t.div_euclid(every) * every;
            let first = grid.pane(start);
            prop_assert_eq!(grid.start(first), start);
            prop_assert_eq!(grid.start(first + grid.panes()), start + grid.size());
            let end = grid.first_end(t);
            prop_assert!(end > t && end - grid.size() <= t && (end - grid.size()).rem_euclid(every) == 0);
            prop_assert!(end - every <= t || end - every - grid.size() > t);
        }
    }
}
