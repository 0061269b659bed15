//! How much a windowed step keeps in memory of a device's rows in one pane.

use std::mem::size_of;

use super::grid::Grid;
use super::operator::WindowDefinition;
use super::panes::{Partial, Slot};
use crate::spec::WindowSpec;

/// What is kept of a device that has rows in a pane. One that has none in it takes nothing there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PaneSize {
    /// Panes that a window has; a session of the greatest length, for sessions.
    pub panes: i64,
    /// Bytes of statistics.
    pub words: usize,
    /// Bytes of what every pane has: its rows' running digest, count and offsets.
    pub fixed: usize,
    /// Bytes of partial results over several panes, which can be computed again.
    pub partial: usize,
}

impl PaneSize {
    /// All of it; rows that are kept whole come on top.
    pub fn bytes(&self) -> usize {
        self.words + self.fixed + self.partial
    }
}

impl WindowDefinition {
    /// What one pane takes.
    pub fn pane_size(&self) -> PaneSize {
        let words = self.shape.stride() * size_of::<f64>();
        let panes = Grid::new(self.window).panes();
        let partial = if panes > 1 { words + size_of::<Partial>() } else { 0 };
        match self.window {
            WindowSpec::Session { gap_ms, max_ms } => PaneSize {
                // A session begins anywhere in its first pane.
                panes: max_ms / gap_ms + 1,
                words,
                fixed: size_of::<Slot>() + size_of::<[i64; 2]>(),
                partial,
            },
            _ => PaneSize { panes, words, fixed: size_of::<Slot>(), partial },
        }
    }
}
