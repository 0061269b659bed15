//! The operator's state in a lane's snapshot: what rows left behind, in the order of devices and panes. Partial results and
//! heaps are not in it; they are made again.

use super::operator::WindowOperator;
use super::panes::NONE;
use crate::codec::{CodecError, Reader, Writer};
use crate::device::DeviceTable;
use crate::migrate::Held;
use crate::sha256::Running;

/// Devices in a section of a snapshot; their slots are some 64 KiB then.
const BLOCK: u32 = 256;

impl WindowOperator {
    /// Writes the state, and returns of how many devices and rows. Two operators of the same definition that took the same
    /// rows write the same bytes.
    pub fn snapshot(&self, w: &mut Writer) -> Held {
        // Of sessions it is a bound that depends on when it was looked at.
        w.i64(if self.sessions.is_some() { i64::MAX } else { self.next_end });
        w.i64(self.watermark);
        w.u32(self.panes.shape.stride() as u32);
        w.u32(self.panes.gathers as u32);
        let devices = self.panes.devices();
        w.u32(devices.len() as u32);
        let mut held = Held { devices: devices.len() as u64, rows: 0 };
        // By blocks of device numbers: what one device adds does not move the bytes of the blocks after it.
        for block in devices.chunk_by(|a, b| a / BLOCK == b / BLOCK) {
            w.part("devices", block.len());
            for &device in block {
                w.u32(device);
                let mut slots = Vec::new();
                let mut at = self.panes.list(device).oldest;
                while at != NONE {
                    slots.push(at as usize);
                    at = self.panes.slots[at as usize].newer;
                }
                w.u32(slots.len() as u32);
                for i in slots {
                    let s = &self.panes.slots[i];
                    held.rows += s.rows;
                    w.i64(s.pane);
                    w.u64(s.rows);
                    w.i64(s.first_offset);
                    w.i64(s.last_offset);
                    let (state, length, tail) = self.panes.kept_hash(i);
                    state.iter().for_each(|word| w.u32(*word));
                    w.u64(length);
                    w.bytes(tail);
                    if let Some([first, last]) = self.panes.spans.get(i) {
                        w.i64(*first);
                        w.i64(*last);
                    }
                    self.panes.words_of(i).iter().for_each(|v| w.f64(*v));
                    let gathers = self.panes.gathers;
                    self.panes.kept[i * gathers..(i + 1) * gathers].iter().for_each(|kept| w.bytes(kept));
                }
            }
        }
        held
    }

    /// For an operator that begins in a lane which has come to `watermark`: windows that end by then are over, and none of
    /// them is ever made.
    pub fn begin_at(&mut self, watermark: i64) {
        self.watermark = watermark;
        self.early.stand_at(watermark);
    }

    /// Reads what [`WindowOperator::snapshot`] wrote, into an operator of the same definition. `devices` are
    /// those of the lane.
    pub fn restore(&mut self, devices: &DeviceTable, r: &mut Reader<'_>) -> Result<(), CodecError> {
        self.next_end = r.i64()?;
        self.watermark = r.i64()?;
        if self.watermark != i64::MIN {
            self.early.stand_at(self.watermark);
        }
        let (stride, gathers) = (r.u32()? as usize, r.u32()? as usize);
        if (stride, gathers) != (self.panes.shape.stride(), self.panes.gathers) {
            return Err(r.invalid(format!(
                "the step keeps {} words and {} kinds of rows a device, the snapshot {stride} and {gathers}",
                self.panes.shape.stride(),
                self.panes.gathers
            )));
        }
        self.panes.clear();
        if let Some(sessions) = &mut self.sessions {
            sessions.clear();
        }
        let mut last_device = None;
        for _ in 0..r.count(8)? {
            let device = r.u32()?;
            if !devices.is_live(device) || last_device.is_some_and(|d| d >= device) {
                return Err(r.invalid(format!("device number {device}, out of order or unknown")));
            }
            last_device = Some(device);
            let mut last_pane = None;
            for _ in 0..r.count(36)? {
                let (pane, rows, first_offset, last_offset) = (r.i64()?, r.counted()?, r.i64()?, r.i64()?);
                // Times are far from the ends of 64 bits; arithmetic on them rests on it.
                let far = pane.unsigned_abs() > (1 << 60) / self.grid.every().unsigned_abs();
                if far || last_pane.is_some_and(|p| p >= pane) {
                    return Err(r.invalid(format!("pane {pane}, out of order or of no time")));
                }
                last_pane = Some(pane);
                let mut state = [0; 8];
                for word in &mut state {
                    *word = r.u32()?;
                }
                let (length, tail) = (r.u64()?, r.bytes()?);
                let hash = Running::resume(state, length, tail).ok_or_else(|| r.invalid("a damaged hash state"))?;
                let i = self.panes.slot(device, pane, first_offset);
                let slot = &mut self.panes.slots[i];
                (slot.rows, slot.last_offset, slot.hash) = (rows, last_offset, hash);
                if self.sessions.is_some() {
                    let span = [r.i64()?, r.i64()?];
                    if span[0] > span[1] || span.map(|t| self.grid.pane(t)) != [pane; 2] {
                        return Err(r.invalid("times that are not in their pane"));
                    }
                    self.panes.spans[i] = span;
                }
                for word in &mut self.panes.words[i * stride..(i + 1) * stride] {
                    *word = r.f64()?;
                }
                for (g, gather) in self.definition.gathers.iter().enumerate() {
                    let kept = r.bytes()?;
                    gather.check(kept)?;
                    self.panes.kept[i * gathers + g] = kept.to_vec();
                }
            }
            if let Some(sessions) = &mut self.sessions {
                sessions.look_at(&self.panes, device);
            }
        }
        if let Some(sessions) = &self.sessions {
            self.next_end = sessions.next();
        }
        Ok(())
    }
}
