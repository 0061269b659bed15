//! What online models remember of the lane's devices.
//!
//! A model step whose model goes on learning has a [`Memory`] a device, made when the device is first judged, changed by each
//! verdict in the order of the log, kept in the lane's snapshots, and forgotten with the device. So a verdict of an online
//! model is a function of the lane's input like any other.

use crate::codec::{CodecError, Reader, Writer};
use crate::device::{DeviceNumber, DeviceTable};
use crate::migrate::Held;
use crate::model::{Memory, Scorer};

/// The memories of one model step, by the devices' places.
#[derive(Debug, Default)]
pub(super) struct Memories {
    places: Vec<Option<Box<dyn Memory>>>,
}

impl Memories {
    /// For a step with this model; `None` if it is not online.
    pub fn of(model: &dyn Scorer) -> Option<Self> {
        // Whether a model is online does not depend on the device.
        model.memory("").map(|_| Self::default())
    }

    /// That of the device, new if there is none.
    pub fn get(&mut self, device: DeviceNumber, devices: &DeviceTable, model: &dyn Scorer) -> Option<&mut dyn Memory> {
        let place = devices.place(device);
        if self.places.len() <= place {
            self.places.resize_with(place + 1, || None);
        }
        let slot = &mut self.places[place];
        if slot.is_none() {
            *slot = model.memory(devices.name(device));
        }
        match slot {
            Some(memory) => Some(&mut **memory),
            None => None,
        }
    }

    /// A copy of that of the device, for judging without learning; `None` if the device was not judged yet.
    pub fn copy(&self, device: DeviceNumber, devices: &DeviceTable) -> Option<Box<dyn Memory>> {
        self.places.get(devices.place(device))?.as_ref().map(|m| m.copy())
    }

    /// Forgets the device at a place.
    pub fn forget(&mut self, place: usize) {
        if let Some(slot) = self.places.get_mut(place) {
            *slot = None;
        }
    }

    /// Writes all of them, by device number, and returns of how many devices.
    pub fn snapshot(&self, devices: &DeviceTable, w: &mut Writer) -> Held {
        let mut held = Held::default();
        let count = w.bytes.len();
        w.u32(0);
        for number in (0..devices.numbers() as u32).filter(|n| devices.is_live(*n)) {
            let Some(Some(memory)) = self.places.get(devices.place(number)) else { continue };
            held.devices += 1;
            w.u32(number);
            let at = w.bytes.len();
            w.u32(0);
            memory.write(w);
            let length = (w.bytes.len() - at - 4) as u32;
            w.bytes[at..at + 4].copy_from_slice(&length.to_le_bytes());
        }
        w.bytes[count..count + 4].copy_from_slice(&(held.devices as u32).to_le_bytes());
        held
    }

    /// Reads what [`Memories::snapshot`] wrote.
    pub fn restore(&mut self, model: &dyn Scorer, devices: &DeviceTable, r: &mut Reader<'_>) -> Result<(), CodecError> {
        let mut last = None;
        for _ in 0..r.count(8)? {
            let number = r.u32()?;
            if last.is_some_and(|l| l >= number) || !devices.is_live(number) {
                return Err(r.invalid(format!("a model's memory of device {number}, which is unknown or out of order")));
            }
            last = Some(number);
            let bytes = r.bytes()?;
            let mut inner = Reader::new("a model's memory", bytes);
            let memory = model.read_memory(devices.name(number), &mut inner)?;
            inner.finish()?;
            let place = devices.place(number);
            if self.places.len() <= place {
                self.places.resize_with(place + 1, || None);
            }
            self.places[place] = Some(memory);
        }
        Ok(())
    }
}
