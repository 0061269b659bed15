//! From panes to a window, at a cost that does not depend on how many panes a window has (van Herk 1992; Gil & Werman 1993).
//!
//! Panes are grouped into blocks of as many panes as a window has, aligned to the epoch. A window is then the end of one
//! block and the beginning of the next:
//!
//! ```text
//!   panes    │ 0  1  2  3 │ 4  5  6  7 │ 8 …        a window has four panes
//!   window         [2  3    4  5]                    = suffix(2) ∘ prefix(5)
//!   suffix(2) = 2 ∘ suffix(3), suffix(3) = 3         folded from the right, once for each pane
//!   prefix(5) = prefix(4) ∘ 5, prefix(4) = 4         folded from the left, once for each pane
//! ```
//!
//! So a window costs three merges, however long it is. The shape of the folds depends on nothing but which panes have rows
//! (panes without rows are left out), so results have the same bits whether a partial result was kept or computed again:
//! after a restart, and after a row behind the watermark changed a pane, it is computed again.
//!
//! Digests follow the same shape. The digest of a pane is SHA-256 over its rows' canonical bytes in offset order; that of
//! two parts is SHA-256 over [`LINK`], the digest of the earlier and the digest of the later.

use sha2::{Digest, Sha256};

use super::grid::Grid;
use super::panes::{Folded, NONE, Panes, Partial};
use crate::device::DeviceNumber;
use crate::verdict::Hash32;

/// What stands before two digests that are joined.
pub(super) const LINK: &[u8; 12] = b"avouch/panes";

/// The digest of two adjacent parts.
pub(super) fn link(earlier: &Hash32, later: &Hash32) -> Hash32 {
    Sha256::new().chain_update(LINK).chain_update(earlier).chain_update(later).finalize().into()
}

/// Joins two parts, except for their digests.
fn join(a: &Partial, b: &Partial) -> Partial {
    Partial {
        rows: a.rows + b.rows,
        first_offset: a.first_offset.min(b.first_offset),
        last_offset: a.last_offset.max(b.last_offset),
        digest: a.digest,
        origin: a.origin,
    }
}

/// A device's window: its words are left in [`Folder::words`].
#[derive(Debug, Clone, Copy)]
pub(super) struct Folding {
    pub partial: Partial,
    /// Digests of the suffix and the prefix; zero where there is none.
    pub digests: [Hash32; 2],
    /// The slots that are in the window.
    pub oldest: u32,
    pub newest: u32,
}

/// Folds panes into windows.
#[derive(Debug, Default)]
pub(super) struct Folder {
    pub words: Vec<f64>,
    /// How often words were merged, to show what a window costs.
    pub merges: u64,
}

impl Folder {
    /// The window of a device that begins with `pane`; `None` if it has no rows in it. When a window closes, slots before
    /// `pane` are freed already; when one is looked at early, they are not. Where a window is one pane, its
    /// digest is left zero.
    pub(super) fn window(
        &mut self,
        panes: &mut Panes,
        grid: &Grid,
        device: DeviceNumber,
        pane: i64,
    ) -> Option<Folding> {
        let list = panes.list(device);
        let after = pane + grid.panes();
        let (mut oldest, mut newest) = (list.oldest, list.newest);
        while oldest != NONE && panes.slots[oldest as usize].pane < pane {
            oldest = panes.slots[oldest as usize].newer;
        }
        if oldest == NONE || panes.slots[oldest as usize].pane >= after {
            return None;
        }
        while panes.slots[newest as usize].pane >= after {
            newest = panes.slots[newest as usize].older;
        }
        let stride = panes.shape.stride();
        self.words.resize(stride, 0.0);
        if grid.panes() == 1 {
            let slot = oldest as usize;
            self.words.copy_from_slice(panes.words_of(slot));
            // Its digest is made with those of the other devices.
            let partial = panes.own_rows(slot, grid.start(pane));
            return Some(Folding { partial, digests: [[0; 32]; 2], oldest, newest });
        }
        let border = grid.next_block(pane);
        let range = |slot: u32| slot as usize * stride..(slot as usize + 1) * stride;
        let suffix = (panes.slots[oldest as usize].pane < border).then(|| {
            self.suffix(panes, grid, oldest, border);
            self.words.copy_from_slice(&panes.partial_words[range(oldest)]);
            panes.partials[oldest as usize]
        });
        let prefix = (panes.slots[newest as usize].pane >= border).then(|| {
            self.prefix(panes, grid, newest, border);
            panes.partials[newest as usize]
        });
        let partial = match (suffix, prefix) {
            (Some(a), Some(b)) => {
                panes.shape.merge(&mut self.words, &panes.partial_words[range(newest)], seconds(a.origin, b.origin));
                self.merges += 1;
                join(&a, &b)
            }
            (Some(a), None) => a,
            (None, Some(b)) => {
                self.words.copy_from_slice(&panes.partial_words[range(newest)]);
                b
            }
            (None, None) => return None,
        };
        let digests = [suffix, prefix].map(|p| p.map_or([0; 32], |p| p.digest));
        Some(Folding { partial, digests, oldest, newest })
    }

    /// Makes the suffix at `slot`, and with it those after it in its block, which ends before pane `border`.
    fn suffix(&mut self, panes: &mut Panes, grid: &Grid, slot: u32, border: i64) {
        let mut at = slot;
        loop {
            let newer = panes.slots[at as usize].newer;
            if panes.slots[at as usize].folded == Folded::Suffix {
                break;
            }
            if newer == NONE || panes.slots[newer as usize].pane >= border {
                self.single(panes, grid, at, Folded::Suffix);
                break;
            }
            at = newer;
        }
        while at != slot {
            let later = panes.partials[at as usize];
            let from = at as usize * panes.shape.stride();
            at = panes.slots[at as usize].older;
            let own = panes.own(at as usize, grid.start(panes.slots[at as usize].pane));
            let stride = panes.shape.stride();
            let mut words = std::mem::take(&mut self.words);
            words.copy_from_slice(panes.words_of(at as usize));
            panes.shape.merge(&mut words, &panes.partial_words[from..from + stride], seconds(own.origin, later.origin));
            panes.partial_words[at as usize * stride..(at as usize + 1) * stride].copy_from_slice(&words);
            self.words = words;
            self.merges += 1;
            panes.partials[at as usize] = Partial { digest: link(&own.digest, &later.digest), ..join(&own, &later) };
            panes.slots[at as usize].folded = Folded::Suffix;
        }
    }

    /// Makes the prefix at `slot`, and with it those before it in its block, which begins with pane `border`.
    fn prefix(&mut self, panes: &mut Panes, grid: &Grid, slot: u32, border: i64) {
        let mut at = slot;
        loop {
            let older = panes.slots[at as usize].older;
            if panes.slots[at as usize].folded == Folded::Prefix {
                break;
            }
            if older == NONE || panes.slots[older as usize].pane < border {
                self.single(panes, grid, at, Folded::Prefix);
                break;
            }
            at = older;
        }
        while at != slot {
            let (earlier, before) = (panes.partials[at as usize], at as usize);
            at = panes.slots[at as usize].newer;
            let own = panes.own(at as usize, grid.start(panes.slots[at as usize].pane));
            let stride = panes.shape.stride();
            let here = at as usize * stride;
            panes.partial_words.copy_within(before * stride..(before + 1) * stride, here);
            panes.shape.merge(
                &mut panes.partial_words[here..here + stride],
                &panes.words[here..here + stride],
                seconds(earlier.origin, own.origin),
            );
            self.merges += 1;
            panes.partials[at as usize] =
                Partial { digest: link(&earlier.digest, &own.digest), ..join(&earlier, &own) };
            panes.slots[at as usize].folded = Folded::Prefix;
        }
    }

    fn single(&mut self, panes: &mut Panes, grid: &Grid, slot: u32, folded: Folded) {
        let i = slot as usize;
        let stride = panes.shape.stride();
        panes.partials[i] = panes.own(i, grid.start(panes.slots[i].pane));
        panes.partial_words[i * stride..(i + 1) * stride].copy_from_slice(&panes.words[i * stride..(i + 1) * stride]);
        panes.slots[i].folded = folded;
    }

    /// A run of a device's slots, folded from the left: a session.
    pub(super) fn run(&mut self, panes: &Panes, grid: &Grid, oldest: u32, newest: u32) -> Folding {
        self.words.resize(panes.shape.stride(), 0.0);
        self.words.copy_from_slice(panes.words_of(oldest as usize));
        let mut partial = panes.own(oldest as usize, grid.start(panes.slots[oldest as usize].pane));
        let mut at = oldest;
        while at != newest {
            at = panes.slots[at as usize].newer;
            let own = panes.own(at as usize, grid.start(panes.slots[at as usize].pane));
            panes.shape.merge(&mut self.words, panes.words_of(at as usize), seconds(partial.origin, own.origin));
            self.merges += 1;
            partial = Partial { digest: link(&partial.digest, &own.digest), ..join(&partial, &own) };
        }
        Folding { partial, digests: [partial.digest, [0; 32]], oldest, newest }
    }
}

/// Seconds from one origin to another.
fn seconds(from: i64, to: i64) -> f64 {
    (to - from) as f64 / 1000.0
}
