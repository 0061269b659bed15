//! What is kept of each device's panes: one slot a device and pane that has rows, in one slab, linked in time order.
//!
//! ```text
//!   device 7:  oldest ─► slot 3 (10:00) ◄─► slot 9 (10:10) ◄─► slot 4 (10:20) ◄─ newest
//! ```
//!
//! A row of a device that reports in order finds its slot through `newest`, in one step. A device without rows costs its
//! entry in `lists` and nothing else, and is not looked at when windows fire.

use std::collections::BTreeMap;

use super::words::Shape;
use crate::device::DeviceNumber;
use crate::sha256::{Queue, Running};
use crate::verdict::Hash32;

/// No slot.
pub(super) const NONE: u32 = u32::MAX;

/// Which partial result [`super::fold`] keeps in a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Folded {
    /// None that still holds.
    No,
    /// From the block's first pane to this one.
    Prefix,
    /// From this pane to the block's last.
    Suffix,
}

/// One device's rows in one pane.
#[derive(Debug, Clone)]
pub(super) struct Slot {
    pub pane: i64,
    pub rows: u64,
    pub first_offset: i64,
    pub last_offset: i64,
    pub hash: Running,
    pub older: u32,
    pub newer: u32,
    pub folded: Folded,
}

/// A device's slots.
#[derive(Debug, Clone, Copy)]
pub(super) struct List {
    pub oldest: u32,
    pub newest: u32,
}

impl List {
    const EMPTY: List = List { oldest: NONE, newest: NONE };
}

/// What is folded of several panes of a device, beside the words.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Partial {
    pub rows: u64,
    pub first_offset: i64,
    pub last_offset: i64,
    pub digest: Hash32,
    /// The instant from which the words count seconds.
    pub origin: i64,
}

#[derive(Debug)]
pub(super) struct Panes {
    pub shape: Shape,
    /// Kept rows a slot.
    pub gathers: usize,
    pub slots: Vec<Slot>,
    /// `shape.stride()` a slot.
    pub words: Vec<f64>,
    /// Blocks of the slots' canonical rows that wait to be hashed together.
    queue: Queue,
    /// First and last event time of a slot; only for sessions.
    pub spans: Vec<[i64; 2]>,
    pub with_spans: bool,
    /// `gathers` a slot.
    pub kept: Vec<Vec<u8>>,
    free: Vec<u32>,
    /// How many slots were in use lately, at most; sinks by an eighth whenever windows fire.
    recent: usize,
    lists: Vec<List>,
    /// Devices that have slots or had some, in the order of their numbers; then those that came since, in no order.
    live: Vec<DeviceNumber>,
    fresh: Vec<DeviceNumber>,
    /// How many slots each pane has.
    held: BTreeMap<i64, u32>,
    /// Partial results, by slot: what can be computed again at any time. Empty for windows of one pane.
    pub partials: Vec<Partial>,
    pub partial_words: Vec<f64>,
    /// Panes of a block, where partial results are kept; 1 where they are not.
    block: i64,
}

impl Panes {
    /// `block` is the number of panes whose partial results are kept together; with 1 none are kept.
    pub(super) fn new(shape: Shape, gathers: usize, with_spans: bool, block: i64) -> Self {
        Self {
            shape,
            gathers,
            with_spans,
            block,
            slots: Vec::new(),
            words: Vec::new(),
            queue: Queue::default(),
            spans: Vec::new(),
            kept: Vec::new(),
            free: Vec::new(),
            recent: 0,
            lists: Vec::new(),
            live: Vec::new(),
            fresh: Vec::new(),
            held: BTreeMap::new(),
            partials: Vec::new(),
            partial_words: Vec::new(),
        }
    }

    pub(super) fn list(&self, device: DeviceNumber) -> List {
        self.lists.get(device as usize).copied().unwrap_or(List::EMPTY)
    }

    /// The slot of a device and pane, made if there is none.
    #[inline]
    pub(super) fn slot(&mut self, device: DeviceNumber, pane: i64, offset: i64) -> usize {
        if let Some(list) = self.lists.get(device as usize)
            && list.newest != NONE
            && self.slots[list.newest as usize].pane == pane
        {
            return list.newest as usize;
        }
        self.find_or_insert(device, pane, offset)
    }

    fn find_or_insert(&mut self, device: DeviceNumber, pane: i64, offset: i64) -> usize {
        if self.lists.len() <= device as usize {
            self.lists.resize(device as usize + 1, List::EMPTY);
        }
        let list = self.lists[device as usize];
        if list.newest == NONE {
            self.fresh.push(device);
        }
        let (mut older, mut newer) = (list.newest, NONE);
        while older != NONE && self.slots[older as usize].pane > pane {
            newer = older;
            older = self.slots[older as usize].older;
        }
        if older != NONE && self.slots[older as usize].pane == pane {
            return older as usize;
        }
        let new = self.allocate(Slot {
            pane,
            rows: 0,
            first_offset: offset,
            last_offset: offset,
            hash: Running::default(),
            older,
            newer,
            folded: Folded::No,
        });
        match older {
            NONE => self.lists[device as usize].oldest = new,
            s => self.slots[s as usize].newer = new,
        }
        match newer {
            NONE => self.lists[device as usize].newest = new,
            s => self.slots[s as usize].older = new,
        }
        *self.held.entry(pane).or_insert(0) += 1;
        if self.block > 1 {
            self.unfold_around(new);
        }
        new as usize
    }

    fn allocate(&mut self, slot: Slot) -> u32 {
        let stride = self.shape.stride();
        if let Some(at) = self.free.pop() {
            let i = at as usize;
            self.slots[i] = slot;
            self.shape.clear(&mut self.words[i * stride..(i + 1) * stride]);
            if self.with_spans {
                self.spans[i] = [i64::MAX, i64::MIN];
            }
            return at;
        }
        let at = self.slots.len() as u32;
        if self.slots.len() == self.slots.capacity() {
            self.grow();
        }
        self.slots.push(slot);
        let from = self.words.len();
        self.words.resize(from + stride, 0.0);
        self.shape.clear(&mut self.words[from..]);
        self.kept.resize_with(self.slots.len() * self.gathers, Vec::new);
        if self.with_spans {
            self.spans.push([i64::MAX, i64::MIN]);
        }
        if self.block > 1 {
            self.partials.push(Partial::default());
            self.partial_words.resize(from + stride, 0.0);
        }
        at
    }

    /// Makes room for an eighth more slots. Doubling would leave up to half of the memory of a large fleet unused.
    #[cold]
    fn grow(&mut self) {
        let more = (self.slots.len() / 8).max(64);
        let stride = self.shape.stride();
        self.slots.reserve_exact(more);
        self.words.reserve_exact(more * stride);
        self.kept.reserve_exact(more * self.gathers);
        if self.with_spans {
            self.spans.reserve_exact(more);
        }
        if self.block > 1 {
            self.partials.reserve_exact(more);
            self.partial_words.reserve_exact(more * stride);
        }
    }

    /// How many slots are in use.
    pub(super) fn used(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Call it after windows have fired, with the number of slots in use before: gives memory back when far fewer slots
    /// than there are were in use lately.
    pub(super) fn settle(&mut self, before: usize) {
        self.recent = before.max(self.recent - self.recent / 8);
        if self.slots.len() > 2 * self.recent + 1_024 {
            self.pack();
        }
    }

    /// Gives memory back at once if most slots are not in use.
    pub(super) fn pack_if_sparse(&mut self) {
        if self.slots.capacity() > 2 * self.used() + 64 {
            self.pack();
        }
    }

    /// Moves the slots in use together and gives the rest of the memory back. Where slots lie shows in no result.
    #[cold]
    pub(super) fn pack(&mut self) {
        self.take_waiting();
        let (stride, gathers) = (self.shape.stride(), self.gathers);
        let mut unused = vec![false; self.slots.len()];
        std::mem::take(&mut self.free).iter().for_each(|&at| unused[at as usize] = true);
        let mut moved = vec![NONE; self.slots.len()];
        let mut to = 0;
        for from in (0..self.slots.len()).filter(|&at| !unused[at]) {
            moved[from] = to as u32;
            if from != to {
                self.slots.swap(from, to);
                self.words.copy_within(from * stride..(from + 1) * stride, to * stride);
                (0..gathers).for_each(|g| self.kept.swap(from * gathers + g, to * gathers + g));
                if self.with_spans {
                    self.spans[to] = self.spans[from];
                }
                if self.block > 1 {
                    self.partials[to] = self.partials[from];
                    self.partial_words.copy_within(from * stride..(from + 1) * stride, to * stride);
                }
            }
            to += 1;
        }
        fn cut<T>(v: &mut Vec<T>, len: usize) {
            v.truncate(len);
            v.shrink_to_fit();
        }
        cut(&mut self.slots, to);
        cut(&mut self.words, to * stride);
        cut(&mut self.kept, to * gathers);
        cut(&mut self.spans, if self.with_spans { to } else { 0 });
        cut(&mut self.partials, if self.block > 1 { to } else { 0 });
        cut(&mut self.partial_words, if self.block > 1 { to * stride } else { 0 });
        let new = |at: u32| if at == NONE { NONE } else { moved[at as usize] };
        for slot in &mut self.slots {
            (slot.older, slot.newer) = (new(slot.older), new(slot.newer));
        }
        for list in &mut self.lists {
            *list = List { oldest: new(list.oldest), newest: new(list.newest) };
        }
    }

    /// A slot changed: partial results that cover it no longer hold.
    #[inline]
    pub(super) fn changed(&mut self, slot: usize) {
        if self.slots[slot].folded != Folded::No {
            self.unfold_around(slot as u32);
        }
    }

    /// Forgets, within the slot's block, suffixes that reach over it from before and prefixes that do from after.
    #[cold]
    fn unfold_around(&mut self, slot: u32) {
        let block = self.slots[slot as usize].pane.div_euclid(self.block);
        self.slots[slot as usize].folded = Folded::No;
        for (kind, step) in [(Folded::Suffix, (|s| s.older) as fn(&Slot) -> u32), (Folded::Prefix, |s| s.newer)] {
            let mut s = step(&self.slots[slot as usize]);
            while s != NONE {
                let other = &mut self.slots[s as usize];
                if other.folded != kind || other.pane.div_euclid(self.block) != block {
                    break;
                }
                other.folded = Folded::No;
                s = step(other);
            }
        }
    }

    /// Devices that have slots, in the order of their numbers.
    pub(super) fn take_live(&mut self) -> Vec<DeviceNumber> {
        let mut live = std::mem::take(&mut self.live);
        if !self.fresh.is_empty() {
            live.append(&mut self.fresh);
            live.sort_unstable();
            live.dedup();
        }
        live
    }

    /// Gives back what [`Panes::take_live`] took, without devices that have no slots any more.
    pub(super) fn give_live(&mut self, mut live: Vec<DeviceNumber>) {
        live.retain(|&d| self.list(d).oldest != NONE);
        self.live = live;
    }

    /// Forgets devices without slots when there may be many: where windows do not fire for all devices together.
    pub(super) fn tidy(&mut self) {
        if self.fresh.len() > self.live.len() + 1_024 {
            let live = self.take_live();
            self.give_live(live);
        }
    }

    /// Frees a device's oldest slots, as long as `done` says so.
    pub(super) fn free_oldest(&mut self, device: DeviceNumber, mut done: impl FnMut(&Slot) -> bool) {
        let Some(list) = self.lists.get_mut(device as usize) else { return };
        while list.oldest != NONE {
            let at = list.oldest;
            let slot = &self.slots[at as usize];
            if !done(slot) {
                break;
            }
            if let Some(n) = self.held.get_mut(&slot.pane) {
                *n -= 1;
                if *n == 0 {
                    self.held.remove(&slot.pane);
                }
            }
            list.oldest = slot.newer;
            self.free.push(at);
            let from = at as usize * self.gathers;
            for kept in &mut self.kept[from..from + self.gathers] {
                // Room that the next device's rows will need, unless this one was far above the others.
                if kept.capacity() > 1 << 16 { *kept = Vec::new() } else { kept.clear() }
            }
            match list.oldest {
                NONE => list.newest = NONE,
                s => self.slots[s as usize].older = NONE,
            }
        }
    }

    /// The earliest pane that has rows.
    pub(super) fn earliest(&self) -> Option<i64> {
        self.held.first_key_value().map(|(pane, _)| *pane)
    }

    /// Devices that have slots, in the order of their numbers, without changing anything.
    pub(super) fn devices(&self) -> Vec<DeviceNumber> {
        let mut all: Vec<_> = self.live.iter().chain(&self.fresh).copied().collect();
        all.sort_unstable();
        all.retain(|&d| self.list(d).oldest != NONE);
        all.dedup();
        all
    }

    /// Forgets everything.
    pub(super) fn clear(&mut self) {
        *self = Self::new(self.shape.clone(), self.gathers, self.with_spans, self.block);
    }

    /// A slot's words.
    pub(super) fn words_of(&self, slot: usize) -> &[f64] {
        &self.words[slot * self.shape.stride()..(slot + 1) * self.shape.stride()]
    }

    /// Takes a row's canonical bytes into the slot's digest.
    #[inline]
    pub(super) fn hash(&mut self, slot: usize, row: &[u8]) {
        self.queue.append(&mut self.slots, slot, |s| &mut s.hash, row);
    }

    /// Takes all blocks that wait: before slots are freed or move.
    pub(super) fn take_waiting(&mut self) {
        self.queue.flush(&mut self.slots, |s| &mut s.hash);
    }

    /// The digests of these slots' rows; no block waits ([`Panes::take_waiting`]).
    pub(super) fn digests(&self, slots: &[u32]) -> Vec<Hash32> {
        self.queue.digests(slots.iter().map(|&s| &self.slots[s as usize].hash))
    }

    /// What has to be kept of a slot's digest: see [`Queue::kept`].
    pub(super) fn kept_hash(&self, slot: usize) -> ([u32; 8], u64, &[u8]) {
        self.queue.kept(&self.slots[slot].hash)
    }

    /// What stands in one slot alone, except for its digest.
    pub(super) fn own_rows(&self, slot: usize, origin: i64) -> Partial {
        let s = &self.slots[slot];
        Partial { rows: s.rows, first_offset: s.first_offset, last_offset: s.last_offset, digest: [0; 32], origin }
    }

    /// What stands in one slot alone; its words count seconds from `origin`, the pane's start.
    pub(super) fn own(&self, slot: usize, origin: i64) -> Partial {
        Partial { digest: self.queue.digest(&self.slots[slot].hash), ..self.own_rows(slot, origin) }
    }
}
