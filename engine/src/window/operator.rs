//! The window operator.
//!
//! A row updates one pane of its device; a window is made of panes (see [`super::fold`], [`super::session`]). A window fires
//! at the exact row whose watermark reaches its end, so what a window contains does not depend on how rows were batched.

use datafusion::common::ScalarValue;

use super::early::Early;
use super::fold::{Folder, Folding};
use super::gather::{CellArray, GatherSpec};
use super::grid::Grid;
use super::pairs::PairStatistic;
use super::panes::Panes;
use super::session::Sessions;
use super::stats::Statistic;
use super::words::{ChannelValues, Shape};
use crate::codec::Writer;
use crate::device::{DeviceNumber, DeviceTable};
use crate::ingest::Rows;
use crate::sha256::Messages;
use crate::spec::WindowSpec;
use crate::verdict::Hash32;

/// One output of a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Aggregate {
    /// `count(*)`.
    Rows,
    /// A statistic of the channel with this index.
    Of(usize, Statistic),
    /// A statistic of the pair with this index.
    OfPair(usize, PairStatistic),
    /// Of the rows gathered by the spec with this index, the result with that index.
    Gathered(usize, usize),
}

/// What a windowed step keeps and computes.
#[derive(Debug, Clone)]
pub struct WindowDefinition {
    /// The window.
    pub window: WindowSpec,
    /// What is kept in words.
    pub shape: Shape,
    /// What is gathered.
    pub gathers: Vec<GatherSpec>,
    /// The outputs.
    pub aggregates: Vec<Aggregate>,
}

/// The inputs of a batch's rows that reached the step.
#[derive(Debug, Clone, Copy)]
pub struct Inputs<'a> {
    /// Of channels and pairs.
    pub channels: &'a [ChannelValues<'a>],
    /// Of what is gathered.
    pub gathered: &'a [CellArray<'a>],
}

/// The values of one aggregate.
#[derive(Debug, Clone)]
pub enum Column {
    /// Of a statistic; `None` is NULL.
    Numbers(Vec<Option<f64>>),
    /// Of what is computed from gathered rows.
    Scalars(Vec<ScalarValue>),
}

/// The aggregates of windows that closed together, one row a device. A device can have several sessions in it.
#[derive(Debug)]
pub struct FiredWindow {
    /// Index of the source row in its batch at which they closed.
    pub at: usize,
    /// The devices: of tumbling and sliding windows in the order of their numbers, of sessions by end, then number.
    pub devices: Vec<Fired>,
    /// `devices.len()` values for each aggregate.
    pub values: Vec<Column>,
    /// What went wrong in an aggregate over gathered rows.
    pub failed: Option<String>,
}

/// What is known of one device's rows in a window, besides the aggregates.
#[derive(Debug, Clone, Copy)]
pub struct Fired {
    /// The device.
    pub device: DeviceNumber,
    /// First instant of the window, milliseconds.
    pub start: i64,
    /// First instant after, milliseconds.
    pub end: i64,
    /// How many rows.
    pub rows: u64,
    /// Offset of the first row.
    pub first_offset: i64,
    /// Offset of the last row.
    pub last_offset: i64,
    /// The input digest, see [`WindowOperator`].
    pub digest: Hash32,
}

/// Windows of one step over one lane.
///
/// The input digest of a device's window is SHA-256 over the codec form (see [`crate::codec`]) of: the text
/// `avouch/input/3`, topic, partition (4 bytes), device name, window start and end (8 bytes each), the number of rows (8
/// bytes), and two digests of 32 bytes, of which one may be absent and is zero then:
///
/// - of tumbling and sliding windows, that of the panes up to the end of the block the window begins in, and that of the
///   panes after it;
/// - of sessions, that of all panes, and none.
///
/// The digest of one pane is SHA-256 over the canonical bytes ([`Rows::canonical`]) of the device's rows in it, in offset
/// order. Two parts are joined by SHA-256 over the 12 bytes `avouch/panes`, the digest of the earlier and the digest of the
/// later part. Panes without rows are left out. In the first part panes are joined from the last one backwards
/// (`p1 ∘ (p2 ∘ p3)`), in the second part and in sessions from the first one forwards (`(p1 ∘ p2) ∘ p3`).
///
/// Panes of a tumbling window are its windows. Of a sliding window they are the pieces between multiples of `every` and,
/// where `every` does not divide `size`, the points `size mod every` after them. They are numbered from the epoch, and a
/// block is as many panes as a window has, from a multiple of that number. Of sessions, panes are `gap` wide. Rows that a
/// SQL filter dropped before the window are not in it.
#[derive(Debug)]
pub struct WindowOperator {
    pub(super) definition: WindowDefinition,
    pub(super) grid: Grid,
    header: Vec<u8>,
    pub(super) panes: Panes,
    pub(super) folder: Folder,
    pub(super) early: Early,
    pub(super) sessions: Option<Sessions>,
    /// No window ends before; `i64::MAX` while there are no rows. For sessions a bound, for other windows the next end.
    pub(super) next_end: i64,
    /// The watermark after the last row seen.
    pub(super) watermark: i64,
}

impl WindowOperator {
    /// An operator without rows.
    pub fn new(definition: WindowDefinition, topic: &str, partition: i32) -> Self {
        let mut header = Writer::new();
        header.str("avouch/input/3");
        header.str(topic);
        header.u32(partition as u32);
        let grid = Grid::new(definition.window);
        let sessions = match definition.window {
            WindowSpec::Session { gap_ms, max_ms } => Some(Sessions::new(gap_ms, max_ms)),
            _ => None,
        };
        let gathers = definition.gathers.len();
        Self {
            panes: Panes::new(definition.shape.clone(), gathers, sessions.is_some(), grid.panes()),
            definition,
            grid,
            header: header.bytes,
            folder: Folder::default(),
            early: Early::never(),
            sessions,
            next_end: i64::MAX,
            watermark: i64::MIN,
        }
    }

    /// Takes the rows of a batch that reached this step. `selected[k]` is the source row of the `k`-th. Windows that close
    /// are pushed to `out`, also when the row that closed them was itself filtered out before this step.
    pub fn run(
        &mut self,
        rows: &Rows,
        selected: &[u32],
        inputs: Inputs<'_>,
        devices: &DeviceTable,
        out: &mut Vec<FiredWindow>,
    ) {
        let Some(&last) = rows.watermarks.last() else { return };
        if self.watermark == i64::MIN {
            self.early.stand_at(rows.watermarks[0]);
        }
        let (mut k, mut from) = (0, 0);
        loop {
            k = match self.sessions {
                None => self.add::<false>(rows, selected, inputs, k),
                Some(_) => self.add::<true>(rows, selected, inputs, k),
            };
            let seen = selected.get(k).map_or(rows.len(), |&row| row as usize);
            let watermark = if seen == 0 { self.watermark } else { rows.watermarks[seen - 1] };
            let due = self.next_end.min(self.early.next);
            if watermark >= due {
                // The row that closed the window, which need not be one that reached this step.
                from += rows.watermarks[from..seen].partition_point(|&w| w < due);
                let reached = rows.watermarks[from];
                if reached >= self.next_end {
                    self.fire(from, reached, devices, out);
                }
                if reached >= self.early.next {
                    self.look(from, reached);
                }
            } else if k == selected.len() {
                break;
            }
        }
        self.watermark = last;
    }

    /// Lets time go on to `watermark` without a row: windows that end by then are pushed to `out`, with `at` 0.
    pub fn tick(&mut self, watermark: i64, devices: &DeviceTable, out: &mut Vec<FiredWindow>) {
        while self.next_end <= watermark {
            self.fire(0, watermark, devices, out);
        }
        if watermark >= self.early.next {
            self.look(0, watermark);
        }
        // The partition is idle: its memory is wanted elsewhere, or by nobody.
        self.panes.pack_if_sparse();
        self.watermark = self.watermark.max(watermark);
    }

    /// The watermark after the last row seen; `i64::MIN` before the first.
    pub(crate) fn watermark(&self) -> i64 {
        self.watermark
    }

    /// No window closes before this watermark, if one is open.
    pub fn next_end(&self) -> Option<i64> {
        (self.next_end != i64::MAX).then_some(self.next_end)
    }

    /// Adds selected rows from the `k`-th on until one comes before which a window has to fire; returns that one's index.
    #[inline]
    fn add<const SESSIONS: bool>(&mut self, rows: &Rows, selected: &[u32], inputs: Inputs<'_>, mut k: usize) -> usize {
        let (mut pane, mut pane_start, mut pane_end) = (0, i64::MAX, i64::MIN);
        let stride = self.definition.shape.stride();
        while let Some(&row) = selected.get(k) {
            let row = row as usize;
            let before = if row == 0 { self.watermark } else { rows.watermarks[row - 1] };
            if before >= self.next_end.min(self.early.next) {
                return k;
            }
            let time = rows.times[row];
            if SESSIONS && time < before {
                // Late for this step, though not for another.
                k += 1;
                continue;
            }
            if time < pane_start || time >= pane_end {
                if !SESSIONS && time < before && self.definition.window.is_closed(time, before) {
                    // All windows of this step are closed to the row, though another step's are not.
                    k += 1;
                    continue;
                }
                pane = self.grid.pane(time);
                (pane_start, pane_end) = (self.grid.start(pane), self.grid.start(pane + 1));
                if !SESSIONS {
                    let mut end = self.grid.first_end(time);
                    if end <= before {
                        end = self.grid.first_end(before);
                    }
                    self.next_end = self.next_end.min(end);
                }
            }
            let (device, offset) = (rows.devices[row], rows.offsets[row]);
            let slot = self.panes.slot(device, pane, offset);
            let words = &mut self.panes.words[slot * stride..(slot + 1) * stride];
            let seconds = (time - pane_start) as f64 / 1000.0;
            self.definition.shape.update(words, inputs.channels, k, seconds);
            for (i, gather) in self.definition.gathers.iter().enumerate() {
                let kept = &mut self.panes.kept[slot * self.definition.gathers.len() + i];
                gather.push(inputs.gathered, k, time, offset, kept);
            }
            let s = &mut self.panes.slots[slot];
            s.rows += 1;
            s.last_offset = offset;
            self.panes.hash(slot, rows.canonical(row));
            self.panes.changed(slot);
            if SESSIONS {
                self.span(device, slot, time);
            }
            k += 1;
        }
        k
    }

    /// Notes a row's time in its slot; a session that begins earlier than was known may end earlier.
    fn span(&mut self, device: DeviceNumber, slot: usize, time: i64) {
        let [first, last] = &mut self.panes.spans[slot];
        *last = (*last).max(time);
        if time < *first {
            *first = time;
            if self.panes.list(device).oldest as usize == slot
                && let Some(sessions) = &mut self.sessions
            {
                sessions.look_at(&self.panes, device);
                self.next_end = sessions.next();
            }
        }
    }

    /// Fires all open windows, as if no row came any more.
    pub fn close_all(&mut self, devices: &DeviceTable, out: &mut Vec<FiredWindow>) {
        while self.next_end != i64::MAX {
            self.fire(0, self.next_end, devices, out);
        }
    }

    /// How often the words of two panes or parts were merged, since the operator was made or restored: what windows cost.
    pub fn merges(&self) -> u64 {
        self.folder.merges
    }

    /// Fires every window that ends at or before `watermark`, oldest first, and drops panes no window needs any more.
    pub(crate) fn fire(&mut self, at: usize, watermark: i64, devices: &DeviceTable, out: &mut Vec<FiredWindow>) {
        if self.sessions.is_some() {
            self.fire_sessions(at, watermark, devices, out);
            return;
        }
        let used = self.panes.used();
        self.panes.take_waiting();
        while self.next_end <= watermark {
            let end = self.next_end;
            let start = end - self.grid.size();
            let every = self.grid.every();
            let mut closing = Closing::new(&self.definition, at);
            let (first, next) = (self.grid.pane(start), self.grid.pane(start + every));
            let live = self.panes.take_live();
            let mut single = Vec::new();
            for &device in &live {
                if let Some(folding) = self.folder.window(&mut self.panes, &self.grid, device, first) {
                    closing.add(&self.panes, &self.folder.words, &folding, device, start, end);
                    single.push(folding.oldest);
                }
            }
            if self.grid.panes() == 1 {
                closing.digests = self.panes.digests(&single).into_iter().map(|d| [d, [0; 32]]).collect();
            }
            for &device in &live {
                self.panes.free_oldest(device, |slot| slot.pane < next);
            }
            self.panes.give_live(live);
            let fired = closing.finish(&self.header, devices);
            if !fired.devices.is_empty() {
                out.push(fired);
            }
            // The next window that has rows; empty windows in a gap are passed over.
            self.next_end = match self.panes.earliest() {
                Some(pane) => self.grid.first_end(self.grid.start(pane)).max(end + every),
                None => i64::MAX,
            };
        }
        self.panes.settle(used);
    }

    fn fire_sessions(&mut self, at: usize, watermark: i64, devices: &DeviceTable, out: &mut Vec<FiredWindow>) {
        let Some(sessions) = &mut self.sessions else { return };
        let used = self.panes.used();
        self.panes.take_waiting();
        let mut closing = Closing::new(&self.definition, at);
        while let Some((device, session)) = sessions.pop(&self.panes, watermark) {
            let folding = self.folder.run(&self.panes, &self.grid, session.oldest, session.newest);
            closing.add(&self.panes, &self.folder.words, &folding, device, session.start, session.end);
            let last = self.panes.slots[session.newest as usize].pane;
            self.panes.free_oldest(device, |slot| slot.pane <= last);
            sessions.look_at(&self.panes, device);
        }
        self.next_end = sessions.next();
        let fired = closing.finish(&self.header, devices);
        if !fired.devices.is_empty() {
            out.push(fired);
            self.panes.tidy();
        }
        self.panes.settle(used);
    }
}

/// A [`FiredWindow`] in the making.
pub(super) struct Closing<'a> {
    definition: &'a WindowDefinition,
    pub(super) fired: FiredWindow,
    digests: Vec<[Hash32; 2]>,
    kept: Vec<u8>,
}

impl<'a> Closing<'a> {
    pub(super) fn new(definition: &'a WindowDefinition, at: usize) -> Self {
        let column = |a: &Aggregate| match a {
            Aggregate::Gathered(..) => Column::Scalars(Vec::new()),
            _ => Column::Numbers(Vec::new()),
        };
        let values = definition.aggregates.iter().map(column).collect();
        let fired = FiredWindow { at, devices: Vec::new(), values, failed: None };
        Self { definition, fired, digests: Vec::new(), kept: Vec::new() }
    }

    pub(super) fn add(
        &mut self,
        panes: &Panes,
        words: &[f64],
        folding: &Folding,
        device: DeviceNumber,
        start: i64,
        end: i64,
    ) {
        let p = &folding.partial;
        let rows = p.rows;
        let fired = Fired {
            device,
            start,
            end,
            rows,
            first_offset: p.first_offset,
            last_offset: p.last_offset,
            digest: [0; 32],
        };
        self.fired.devices.push(fired);
        self.digests.push(folding.digests);
        let mut gathered: Vec<Vec<ScalarValue>> = Vec::new();
        for (i, gather) in self.definition.gathers.iter().enumerate() {
            self.kept.clear();
            let mut slot = folding.oldest;
            loop {
                self.kept.extend_from_slice(&panes.kept[slot as usize * panes.gathers + i]);
                if slot == folding.newest {
                    break;
                }
                slot = panes.slots[slot as usize].newer;
            }
            gathered.push(gather.reduce(&self.kept).unwrap_or_else(|e| {
                self.fired.failed.get_or_insert(crate::sql::message(&e));
                Vec::new()
            }));
        }
        let shape = &self.definition.shape;
        for (aggregate, column) in self.definition.aggregates.iter().zip(&mut self.fired.values) {
            match (*aggregate, column) {
                (Aggregate::Rows, Column::Numbers(out)) => out.push(Some(rows as f64)),
                (Aggregate::Of(c, stat), Column::Numbers(out)) => out.push(shape.value(words, c, stat)),
                (Aggregate::OfPair(p, stat), Column::Numbers(out)) => out.push(shape.pair_value(words, p, stat)),
                (Aggregate::Gathered(g, i), Column::Scalars(out)) => {
                    out.push(gathered[g].get(i).cloned().unwrap_or(ScalarValue::Null));
                }
                _ => {}
            }
        }
    }

    fn finish(mut self, header: &[u8], table: &DeviceTable) -> FiredWindow {
        let mut messages = Messages::default();
        let mut w = Writer::new();
        for (fired, digests) in self.fired.devices.iter().zip(&self.digests) {
            std::mem::swap(&mut w.bytes, &mut messages.bytes);
            w.raw(header);
            w.str(table.name(fired.device));
            w.i64(fired.start);
            w.i64(fired.end);
            w.u64(fired.rows);
            w.raw(&digests[0]);
            w.raw(&digests[1]);
            std::mem::swap(&mut w.bytes, &mut messages.bytes);
            messages.end();
        }
        for (fired, digest) in self.fired.devices.iter_mut().zip(messages.digests()) {
            fired.digest = digest;
        }
        self.fired
    }
}
