//! Alarms of one device that follow each other closely are one incident.
//!
//! An incident's id is the index, in the lane's log, of the verdict that it began with: it never changes, an auditor finds the
//! verdict by it, and it is in the evidence of each of the incident's verdicts.

use crate::codec::{CodecError, Reader, Writer};
use crate::device::{DeviceNumber, DeviceTable};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Open {
    /// Index of the verdict that it began with.
    first: u64,
    /// End of the latest window that was an alarm.
    until: i64,
}

/// The incidents of one model step, by the devices' places.
#[derive(Debug)]
pub(super) struct Incidents {
    /// How far apart alarms of one incident are at most, milliseconds.
    gap_ms: i64,
    places: Vec<Option<Open>>,
}

impl Incidents {
    /// Of a step whose alarms belong together if they are at most so far apart.
    pub fn new(gap_ms: i64) -> Self {
        Self { gap_ms, places: Vec::new() }
    }

    /// The incident of an alarm at the log's `index`, of the window from `start` to `end`.
    pub fn of(&mut self, device: DeviceNumber, devices: &DeviceTable, index: u64, start: i64, end: i64) -> u64 {
        let place = devices.place(device);
        if self.places.len() <= place {
            self.places.resize(place + 1, None);
        }
        let open = self.places[place].filter(|o| start <= o.until.saturating_add(self.gap_ms));
        let open = match open {
            Some(o) => Open { until: o.until.max(end), ..o },
            None => Open { first: index, until: end },
        };
        self.places[place] = Some(open);
        open.first
    }

    /// Forgets the device at a place.
    pub fn forget(&mut self, place: usize) {
        if let Some(slot) = self.places.get_mut(place) {
            *slot = None;
        }
    }

    /// Writes the incidents that may still go on, by device number.
    pub fn snapshot(&self, devices: &DeviceTable, w: &mut Writer) {
        let at = w.bytes.len();
        let mut n = 0u32;
        w.u32(0);
        for number in (0..devices.numbers() as u32).filter(|n| devices.is_live(*n)) {
            let Some(Some(open)) = self.places.get(devices.place(number)) else { continue };
            n += 1;
            w.u32(number);
            w.u64(open.first);
            w.i64(open.until);
        }
        w.bytes[at..at + 4].copy_from_slice(&n.to_le_bytes());
    }

    /// Reads what [`Incidents::snapshot`] wrote, into `to` if there is such a step. Indices are below `next_index`.
    pub fn restore(
        mut to: Option<&mut Self>,
        devices: &DeviceTable,
        next_index: u64,
        r: &mut Reader<'_>,
    ) -> Result<(), CodecError> {
        let mut last = None;
        for _ in 0..r.count(20)? {
            let (number, first, until) = (r.u32()?, r.u64()?, r.i64()?);
            if last.is_some_and(|l| l >= number) || !devices.is_live(number) || first >= next_index {
                return Err(r.invalid(format!("an incident of device {number} that cannot be")));
            }
            last = Some(number);
            if let Some(incidents) = &mut to {
                let place = devices.place(number);
                if incidents.places.len() <= place {
                    incidents.places.resize(place + 1, None);
                }
                incidents.places[place] = Some(Open { first, until });
            }
        }
        Ok(())
    }
}
