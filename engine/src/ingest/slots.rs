//! Formats of one row a record: decode into slots, admit, append.

use super::{Gather, Rows, Run, Values, dead_letter};
use crate::admit::Admission;
use crate::dead_letter::{DeadLetter, DeadReason};
use crate::decode::{RawRecord, RowDecoder, RowError, Slot};
use crate::device::DeviceTable;
use crate::identity::Checker;

/// A row whose device another lane follows.
#[cold]
fn astray(key: Option<&[u8]>) -> RowError {
    let detail = match key {
        None => "the record has no key: when it was repartitioned, no device could be read from it".to_owned(),
        Some(key) => {
            let key = String::from_utf8_lossy(&key[..key.len().min(40)]).into_owned();
            format!(
                "the record's key \"{}\" is not the device it names: it belongs to another lane",
                key.escape_debug()
            )
        }
    };
    RowError { reason: DeadReason::NoDevice, detail }
}

/// How many of these records are looked at together, so that memory is bounded: at least one.
fn together(records: &[RawRecord<'_>]) -> usize {
    let mut bytes = 0;
    let fit = |r: &&RawRecord<'_>| {
        bytes += r.value.map_or(0, <[u8]>::len) + r.signature.map_or(0, <[u8]>::len);
        bytes <= super::MOST_BYTES
    };
    records.iter().take_while(fit).count().max(1).min(records.len())
}

impl Gather {
    pub(super) fn slots<D: RowDecoder>(
        &mut self,
        decoder: &mut D,
        records: &[RawRecord<'_>],
        admission: &mut Admission,
        devices: &mut DeviceTable,
        mut identity: Option<&mut Checker>,
        dead: &mut Vec<DeadLetter>,
    ) -> Run {
        let n = records.len().min(super::MOST_ROWS);
        let mut records = records;
        if let Some(identity) = &mut identity {
            // Before the rows, and all together: that is what makes signatures cheap.
            records = &records[..together(&records[..n])];
            identity.run(decoder, records, self.key, &self.fields, self.max_record_bytes);
        }
        let mut rows = Rows::new(self.schema.clone(), n, 20 + 8 * self.columns.len());
        let mut taken = 0;
        for (i, record) in records.iter().enumerate() {
            if i > 0 && self.full(taken, &rows, record) {
                break;
            }
            if let Err(e) = self.row(decoder, i, record, admission, devices, identity.as_deref_mut(), &mut rows) {
                dead.push(dead_letter(record, e));
            }
            taken += 1;
        }
        Run { rows, taken, rows_in: taken as u64 }
    }

    #[inline]
    #[expect(clippy::too_many_arguments, reason = "the parts of a lane, borrowed one by one")]
    fn row<D: RowDecoder>(
        &mut self,
        decoder: &mut D,
        index: usize,
        record: &RawRecord<'_>,
        admission: &mut Admission,
        devices: &mut DeviceTable,
        identity: Option<&mut Checker>,
        rows: &mut Rows,
    ) -> Result<(), RowError> {
        let payload = super::payload(record.value, self.max_record_bytes)?;
        decoder.decode(payload)?;
        let device = super::device(decoder, payload, self.key)?;
        if self.keyed && record.key != Some(device) {
            return Err(astray(record.key));
        }
        if let Some(identity) = identity {
            identity.admit(index, device)?;
        }
        let Slot::Timestamp(time) = decoder.slots()[self.time] else {
            return Err(RowError::schema("the time column holds no time"));
        };
        let watermark = admission.admit(time, record.timestamp, record.origin)?;
        rows.offsets.push(record.offset);
        rows.times.push(time);
        rows.watermarks.push(watermark);
        rows.devices.push(devices.number(device, record.offset, time, watermark));
        rows.records.push(index as u32);
        self.append(decoder, payload, record.offset, &mut rows.canonical);
        rows.canonical_ends.push(rows.canonical.len() as u32);
        Ok(())
    }

    /// Appends the row to the columns and its canonical bytes to `canonical`.
    #[inline]
    fn append<D: RowDecoder>(&mut self, decoder: &D, payload: &[u8], offset: i64, canonical: &mut Vec<u8>) {
        // The row is put together in a place of its own, of which no bound grows, and appended at once.
        let row = &mut self.row[..];
        let mut at = 12 + self.bitmap.len();
        row[..8].copy_from_slice(&offset.to_le_bytes());
        row[8..at].fill(0);
        let start = canonical.len();
        self.bitmap.fill(0);
        for (i, (column, &slot)) in self.columns.iter_mut().zip(decoder.slots()).enumerate() {
            let fixed = match (&mut column.values, slot) {
                (Values::F64(values), Slot::F64(v)) => {
                    values.push(v);
                    Some(v.to_bits().to_le_bytes())
                }
                (Values::I64(values), Slot::I64(v)) | (Values::Time(values), Slot::Timestamp(v)) => {
                    values.push(v);
                    Some(v.to_le_bytes())
                }
                (Values::Bool(values), Slot::Bool(v)) => {
                    values.push(v);
                    row[at] = u8::from(v);
                    at += 1;
                    None
                }
                (Values::Text { ends, bytes }, Slot::Text { .. } | Slot::Unescaped { .. }) => {
                    let text = decoder.text(payload, slot);
                    bytes.extend_from_slice(text);
                    ends.push(bytes.len() as i32);
                    if i != self.key {
                        canonical.extend_from_slice(&row[..at]);
                        canonical.extend_from_slice(&(text.len() as u32).to_le_bytes());
                        canonical.extend_from_slice(text);
                        at = 0;
                    }
                    None
                }
                _ => {
                    column.push_null();
                    continue;
                }
            };
            if let Some(bytes) = fixed
                && let Some(place) = row[at..].first_chunk_mut::<8>()
            {
                *place = bytes;
                at += 8;
            }
            column.mark_valid();
            self.bitmap[i / 8] |= 1 << (i % 8);
        }
        canonical.extend_from_slice(&row[..at]);
        canonical[start + 12..start + 12 + self.bitmap.len()].copy_from_slice(&self.bitmap);
    }
}
