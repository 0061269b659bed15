//! Formats of one row a record: decode into slots, admit, append.

use super::{Gather, Rows, Run, Values, dead_letter};
use crate::admit::Admission;
use crate::dead_letter::{DeadLetter, DeadReason};
use crate::decode::{RawRecord, RowDecoder, RowError, Slot};
use crate::device::DeviceTable;

impl Gather {
    pub(super) fn slots<D: RowDecoder>(
        &mut self,
        decoder: &mut D,
        records: &[RawRecord<'_>],
        admission: &mut Admission,
        devices: &mut DeviceTable,
        dead: &mut Vec<DeadLetter>,
    ) -> Run {
        let n = records.len().min(super::MOST_ROWS);
        let mut rows = Rows::new(self.schema.clone(), n, 20 + 8 * self.columns.len());
        let mut taken = 0;
        for (i, record) in records.iter().enumerate() {
            if i > 0 && self.full(taken, &rows, record) {
                break;
            }
            if let Err(e) = self.row(decoder, i, record, admission, devices, &mut rows) {
                dead.push(dead_letter(record, e));
            }
            taken += 1;
        }
        Run { rows, taken, rows_in: taken as u64 }
    }

    #[inline]
    fn row<D: RowDecoder>(
        &mut self,
        decoder: &mut D,
        index: usize,
        record: &RawRecord<'_>,
        admission: &mut Admission,
        devices: &mut DeviceTable,
        rows: &mut Rows,
    ) -> Result<(), RowError> {
        let payload = self.payload(record)?;
        decoder.decode(payload)?;
        let slots = decoder.slots();
        let device = decoder.text(payload, slots[self.key]);
        if device.is_empty() {
            return Err(RowError { reason: DeadReason::NoDevice, detail: "the device's name is empty".into() });
        }
        let Slot::Timestamp(time) = slots[self.time] else {
            return Err(RowError::schema("the time column holds no time"));
        };
        let watermark = admission.admit(time, record.timestamp)?;
        rows.offsets.push(record.offset);
        rows.times.push(time);
        rows.watermarks.push(watermark);
        rows.devices.push(devices.number(device));
        rows.records.push(index as u32);
        self.append(decoder, payload, record.offset, &mut rows.canonical);
        rows.canonical_ends.push(rows.canonical.len() as u32);
        Ok(())
    }

    #[inline]
    fn append<D: RowDecoder>(&mut self, decoder: &D, payload: &[u8], offset: i64, canonical: &mut Vec<u8>) {
        canonical.extend_from_slice(&offset.to_le_bytes());
        canonical.extend_from_slice(&0u32.to_le_bytes());
        let bitmap = canonical.len();
        canonical.resize(bitmap + self.bitmap_bytes, 0);
        for (i, (column, &slot)) in self.columns.iter_mut().zip(decoder.slots()).enumerate() {
            let present = match (&mut column.values, slot) {
                (Values::F64(values), Slot::F64(v)) => {
                    values.push(v);
                    canonical.extend_from_slice(&v.to_bits().to_le_bytes());
                    true
                }
                (Values::I64(values), Slot::I64(v)) | (Values::Time(values), Slot::Timestamp(v)) => {
                    values.push(v);
                    canonical.extend_from_slice(&v.to_le_bytes());
                    true
                }
                (Values::Bool(values), Slot::Bool(v)) => {
                    values.push(v);
                    canonical.push(u8::from(v));
                    true
                }
                (Values::Text { ends, bytes }, Slot::Text { .. } | Slot::Unescaped { .. }) => {
                    let text = decoder.text(payload, slot);
                    bytes.extend_from_slice(text);
                    ends.push(bytes.len() as i32);
                    if i != self.key {
                        canonical.extend_from_slice(&(text.len() as u32).to_le_bytes());
                        canonical.extend_from_slice(text);
                    }
                    true
                }
                _ => false,
            };
            if present {
                column.mark_valid();
                canonical[bitmap + i / 8] |= 1 << (i % 8);
            } else {
                column.push_null();
            }
        }
    }
}
