//! The window operator.
//!
//! Time is cut into panes as wide as the greatest common divisor of `size` and `every`. A row updates one pane; a window
//! is the merge of its panes, in time order. A window fires at the exact row whose watermark reaches its end, so what a
//! window contains does not depend on how rows were batched. Inside a window devices come in the order of their numbers.

use std::collections::BTreeMap;

use arrow::buffer::NullBuffer;
use sha2::digest::common::hazmat::{SerializableState, SerializedState};
use sha2::{Digest, Sha256};

use super::stats::{Layout, Statistic};
use crate::codec::{CodecError, Reader, Writer};
use crate::device::{DeviceNumber, DeviceTable};
use crate::ingest::Rows;
use crate::spec::WindowSpec;
use crate::verdict::Hash32;

/// One input of the statistics: a numeric expression over rows. `layout` says what is kept of it.
#[derive(Debug, Clone, Copy)]
pub struct Channel {
    /// Where its words start in a slot.
    pub base: usize,
    /// Its words.
    pub layout: Layout,
}

/// A channel's value for each row that reached the step, and which of them are null.
pub type ChannelValues<'a> = (&'a [f64], Option<&'a NullBuffer>);

/// One output: a statistic of a channel, or the number of rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Aggregate {
    /// `count(*)`.
    Rows,
    /// A statistic of the channel with this index.
    Of(usize, Statistic),
}

/// The aggregates of one window, one row a device.
#[derive(Debug)]
pub struct FiredWindow {
    /// Index of the source row in its batch at which the window closed.
    pub at: usize,
    /// First instant, milliseconds.
    pub start: i64,
    /// First instant after, milliseconds.
    pub end: i64,
    /// The devices, in the order of their numbers.
    pub devices: Vec<Fired>,
    /// `devices.len()` values for each aggregate, aggregate by aggregate.
    pub values: Vec<Vec<Option<f64>>>,
}

/// What is known of one device's rows in a window, besides the aggregates.
#[derive(Debug, Clone, Copy)]
pub struct Fired {
    /// The device.
    pub device: DeviceNumber,
    /// How many rows.
    pub rows: u64,
    /// Offset of the first row.
    pub first_offset: i64,
    /// Offset of the last row.
    pub last_offset: i64,
    /// The input digest, see [`WindowOperator`].
    pub digest: Hash32,
}

#[derive(Debug)]
struct Slot {
    device: DeviceNumber,
    rows: u64,
    first_offset: i64,
    last_offset: i64,
    hasher: Sha256,
}

#[derive(Debug, Default)]
struct Pane {
    /// By device number: index into `slots` plus one, or 0.
    slot_of: Vec<u32>,
    slots: Vec<Slot>,
    /// `stride` words a slot.
    words: Vec<f64>,
}

impl Pane {
    #[inline]
    fn slot_or_new(&mut self, device: DeviceNumber, offset: i64, stride: usize, channels: &[Channel]) -> usize {
        if self.slot_of.len() <= device as usize {
            self.slot_of.resize(device as usize + 1, 0);
        }
        let slot = self.slot_of[device as usize] as usize;
        if slot > 0 {
            return slot - 1;
        }
        self.slots.push(Slot { device, rows: 0, first_offset: offset, last_offset: offset, hasher: Sha256::new() });
        self.slot_of[device as usize] = self.slots.len() as u32;
        let at = self.words.len();
        self.words.resize(at + stride, 0.0);
        for c in channels {
            c.layout.clear(&mut self.words[at + c.base..at + c.base + c.layout.words()]);
        }
        self.slots.len() - 1
    }

    fn slot(&self, device: DeviceNumber) -> Option<usize> {
        match self.slot_of.get(device as usize) {
            Some(&s) if s > 0 => Some(s as usize - 1),
            _ => None,
        }
    }
}

/// The end of the earliest window that contains time `t`, which is also the earliest end after `t`.
fn first_end(window: WindowSpec, t: i64) -> i64 {
    let (size, every) = (window.size_ms(), window.every_ms());
    // Its start is the first multiple of `every` above t - size.
    ((t - size).div_euclid(every) + 1) * every + size
}

/// The end of the latest window that contains time `t`.
fn last_end(window: WindowSpec, t: i64) -> i64 {
    let every = window.every_ms();
    t.div_euclid(every) * every + window.size_ms()
}

/// Windows of one step over one lane.
///
/// The input digest of a device's window is SHA-256 over the codec form (see [`crate::codec`]) of: the text
/// `avouch/input/2`, topic, partition (4 bytes), device name, window start and end (8 bytes each), the number of
/// non-empty panes (4 bytes), and for each in time order its start (8 bytes), its number of rows (8 bytes) and the
/// SHA-256 of its rows' canonical bytes ([`Rows::canonical`]) in offset order. Rows that a SQL filter dropped before the
/// window are not in it.
#[derive(Debug)]
pub struct WindowOperator {
    window: WindowSpec,
    pane_ms: i64,
    channels: Vec<Channel>,
    stride: usize,
    aggregates: Vec<Aggregate>,
    header: Vec<u8>,
    panes: BTreeMap<i64, Pane>,
    /// End of the next window to fire; `i64::MAX` while no pane has rows.
    next_end: i64,
    /// The watermark after the last row seen.
    watermark: i64,
}

fn gcd(a: i64, b: i64) -> i64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

impl WindowOperator {
    /// An operator without rows. `layouts` are those of the channels, in order.
    pub fn new(
        window: WindowSpec,
        layouts: &[Layout],
        aggregates: Vec<Aggregate>,
        topic: &str,
        partition: i32,
    ) -> Self {
        let mut base = 0;
        let channels = layouts
            .iter()
            .map(|&layout| {
                let c = Channel { base, layout };
                base += layout.words();
                c
            })
            .collect();
        let mut header = Writer::new();
        header.str("avouch/input/2");
        header.str(topic);
        header.u32(partition as u32);
        Self {
            window,
            pane_ms: gcd(window.size_ms(), window.every_ms()),
            channels,
            stride: base,
            aggregates,
            header: header.bytes,
            panes: BTreeMap::new(),
            next_end: i64::MAX,
            watermark: i64::MIN,
        }
    }

    /// Takes the rows of a batch that reached this step. `selected[k]` is the source row of the `k`-th; `values[c]` holds
    /// channel `c`'s value for each, with its null buffer (`None`: none are null). Windows that close are pushed to
    /// `out`, also when the row that closed them was itself filtered out before this step.
    pub fn run(
        &mut self,
        rows: &Rows,
        selected: &[u32],
        values: &[ChannelValues<'_>],
        devices: &DeviceTable,
        out: &mut Vec<FiredWindow>,
    ) {
        let Some(&last) = rows.watermarks.last() else { return };
        let (mut k, mut from) = (0, 0);
        loop {
            k = self.add(rows, selected, values, k);
            let seen = selected.get(k).map_or(rows.len(), |&row| row as usize);
            let watermark = if seen == 0 { self.watermark } else { rows.watermarks[seen - 1] };
            if watermark >= self.next_end {
                // The row that closed the window, which need not be one that reached this step.
                from += rows.watermarks[from..seen].partition_point(|&w| w < self.next_end);
                self.fire(from, rows.watermarks[from], devices, out);
            } else if k == selected.len() {
                break;
            }
        }
        self.watermark = last;
    }

    /// Adds selected rows from the `k`-th on until one comes before which a window has to fire; returns that one's index.
    #[inline]
    fn add(&mut self, rows: &Rows, selected: &[u32], values: &[ChannelValues<'_>], mut k: usize) -> usize {
        let mut pane_start = i64::MIN;
        let mut pane: Option<&mut Pane> = None;
        let (window, pane_ms, stride) = (self.window, self.pane_ms, self.stride);
        while let Some(&row) = selected.get(k) {
            let row = row as usize;
            let before = if row == 0 { self.watermark } else { rows.watermarks[row - 1] };
            if before >= self.next_end {
                return k;
            }
            let time = rows.times[row];
            if pane.is_none() || time < pane_start || time - pane_start >= pane_ms {
                if time < before && last_end(window, time) <= before {
                    // All windows of this step are closed to the row, though another step's are not.
                    k += 1;
                    continue;
                }
                pane_start = time.div_euclid(pane_ms) * pane_ms;
                let mut end = first_end(window, time);
                if end <= before {
                    end = first_end(window, before);
                }
                self.next_end = self.next_end.min(end);
                pane = Some(self.panes.entry(pane_start).or_default());
            }
            if let Some(pane) = pane.as_deref_mut() {
                let slot = pane.slot_or_new(rows.devices[row], rows.offsets[row], stride, &self.channels);
                let words = &mut pane.words[slot * stride..(slot + 1) * stride];
                let seconds = (time - pane_start) as f64 / 1000.0;
                for (c, (xs, nulls)) in self.channels.iter().zip(values) {
                    if nulls.is_none_or(|b| b.is_valid(k)) {
                        c.layout.update(&mut words[c.base..c.base + c.layout.words()], xs[k], seconds);
                    }
                }
                let s = &mut pane.slots[slot];
                s.rows += 1;
                s.last_offset = rows.offsets[row];
                s.hasher.update(rows.canonical(row));
            }
            k += 1;
        }
        k
    }

    /// Fires all open windows, as if no row came any more.
    pub fn close_all(&mut self, devices: &DeviceTable, out: &mut Vec<FiredWindow>) {
        while self.next_end != i64::MAX {
            self.fire(0, self.next_end, devices, out);
        }
    }

    /// Fires every window that ends at or before `watermark`, oldest first, and drops panes no window needs any more.
    fn fire(&mut self, at: usize, watermark: i64, devices: &DeviceTable, out: &mut Vec<FiredWindow>) {
        while self.next_end <= watermark {
            let end = self.next_end;
            let start = end - self.window.size_ms();
            out.push(self.close(at, start, end, devices));
            let every = self.window.every_ms();
            self.panes = self.panes.split_off(&(start + every));
            // The next window that has rows; empty windows in a gap are passed over.
            self.next_end = match self.panes.keys().next() {
                Some(&pane) => first_end(self.window, pane).max(end + every),
                None => i64::MAX,
            };
        }
    }

    fn close(&self, at: usize, start: i64, end: i64, table: &DeviceTable) -> FiredWindow {
        let panes: Vec<(i64, &Pane)> = self.panes.range(start..end).map(|(s, p)| (*s, p)).collect();
        let numbers = panes.iter().map(|(_, p)| p.slot_of.len()).max().unwrap_or(0) as DeviceNumber;
        let mut devices = Vec::new();
        let mut values = vec![Vec::new(); self.aggregates.len()];
        let mut words = vec![0.0; self.stride];
        let mut input = Writer::new();
        for device in 0..numbers {
            let mut fired: Option<Fired> = None;
            input.bytes.clear();
            for (pane_start, pane) in &panes {
                let Some(slot) = pane.slot(device) else { continue };
                let s = &pane.slots[slot];
                let from = &pane.words[slot * self.stride..(slot + 1) * self.stride];
                let shift = (pane_start - start) as f64 / 1000.0;
                match &mut fired {
                    None => {
                        fired = Some(Fired {
                            device,
                            rows: s.rows,
                            first_offset: s.first_offset,
                            last_offset: s.last_offset,
                            digest: [0; 32],
                        });
                        for c in &self.channels {
                            let w = &mut words[c.base..c.base + c.layout.words()];
                            c.layout.clear(w);
                            c.layout.merge(w, &from[c.base..c.base + c.layout.words()], shift);
                        }
                    }
                    Some(f) => {
                        f.rows += s.rows;
                        f.first_offset = f.first_offset.min(s.first_offset);
                        f.last_offset = f.last_offset.max(s.last_offset);
                        for c in &self.channels {
                            let w = &mut words[c.base..c.base + c.layout.words()];
                            c.layout.merge(w, &from[c.base..c.base + c.layout.words()], shift);
                        }
                    }
                }
                input.i64(*pane_start);
                input.u64(s.rows);
                input.raw(&s.hasher.clone().finalize());
            }
            let Some(mut f) = fired else { continue };
            let mut w = Writer { bytes: Vec::with_capacity(self.header.len() + input.bytes.len() + 64) };
            w.raw(&self.header);
            w.str(table.name(device));
            w.i64(start);
            w.i64(end);
            w.u32((input.bytes.len() / 48) as u32);
            w.raw(&input.bytes);
            f.digest = Sha256::digest(&w.bytes).into();
            devices.push(f);
            for (out, aggregate) in values.iter_mut().zip(&self.aggregates) {
                out.push(match *aggregate {
                    Aggregate::Rows => Some(f.rows as f64),
                    Aggregate::Of(c, stat) => {
                        let c = &self.channels[c];
                        c.layout.value(&words[c.base..c.base + c.layout.words()], stat)
                    }
                });
            }
        }
        FiredWindow { at, start, end, devices, values }
    }

    /// Writes all open panes into a snapshot.
    pub fn snapshot(&self, w: &mut Writer) {
        w.i64(self.next_end);
        w.i64(self.watermark);
        w.u32(self.stride as u32);
        w.u32(self.panes.len() as u32);
        for (start, pane) in &self.panes {
            w.i64(*start);
            w.u32(pane.slots.len() as u32);
            for (i, s) in pane.slots.iter().enumerate() {
                w.u32(s.device);
                w.u64(s.rows);
                w.i64(s.first_offset);
                w.i64(s.last_offset);
                w.bytes(&s.hasher.serialize());
                for v in &pane.words[i * self.stride..(i + 1) * self.stride] {
                    w.f64(*v);
                }
            }
        }
    }

    /// Reads what [`WindowOperator::snapshot`] wrote, into an operator of the same definition.
    pub fn restore(&mut self, devices: usize, r: &mut Reader<'_>) -> Result<(), CodecError> {
        self.next_end = r.i64()?;
        self.watermark = r.i64()?;
        let stride = r.u32()? as usize;
        if stride != self.stride {
            return Err(r.invalid(format!("the step keeps {} words a device, the snapshot {stride}", self.stride)));
        }
        self.panes.clear();
        for _ in 0..r.count(12)? {
            let start = r.i64()?;
            let mut pane = Pane::default();
            for _ in 0..r.count(28)? {
                let device = r.u32()?;
                if device as usize >= devices {
                    return Err(r.invalid(format!("device number {device} of {devices}")));
                }
                let (rows, first_offset, last_offset) = (r.u64()?, r.i64()?, r.i64()?);
                let state = SerializedState::<Sha256>::try_from(r.bytes()?)
                    .map_err(|_| r.invalid("a hash state of the wrong length"))?;
                let hasher = Sha256::deserialize(&state).map_err(|_| r.invalid("a damaged hash state"))?;
                if pane.slot_of.len() <= device as usize {
                    pane.slot_of.resize(device as usize + 1, 0);
                }
                pane.slots.push(Slot { device, rows, first_offset, last_offset, hasher });
                pane.slot_of[device as usize] = pane.slots.len() as u32;
                for _ in 0..stride {
                    pane.words.push(r.f64()?);
                }
            }
            self.panes.insert(start, pane);
        }
        Ok(())
    }
}
