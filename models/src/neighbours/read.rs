//! The reference rows in the model file.

use avouch_engine::codec::{CodecError, Reader, Writer};

use super::nearest::NearestNeighbours;
use super::params::{MAX_NEIGHBOURS, MAX_RECENT, MAX_SAMPLE};
use super::recent::Keep;
use crate::perdevice::{Scale, is_scaled};

impl NearestNeighbours {
    pub(super) fn write_file(&self, w: &mut Writer) {
        self.scale.write(w);
        w.u32(self.neighbours as u32);
        match &self.keep {
            None => w.u8(0),
            Some(keep) => {
                w.u8(1);
                w.u32(keep.recent);
                w.u32(keep.every);
                w.u32(keep.delay);
            }
        }
        w.f64(self.radius);
        w.u32(self.reference_rows() as u32);
        for v in &self.reference {
            w.f64(*v);
        }
    }

    pub(super) fn read_file(r: &mut Reader<'_>, p: usize) -> Result<Self, CodecError> {
        let scale = Scale::read(r, p)?;
        let neighbours = r.u32()? as usize;
        if !(1..=MAX_NEIGHBOURS).contains(&neighbours) {
            return Err(r.invalid(format!("{neighbours} neighbours")));
        }
        let keep = match r.u8()? {
            0 => None,
            1 => {
                let keep = Keep { recent: r.u32()?, every: r.u32()?, delay: r.u32()? };
                if [keep.recent, keep.every, keep.delay].iter().any(|v| !(1..=MAX_RECENT).contains(v)) {
                    return Err(r.invalid("what is remembered of a device is out of range"));
                }
                Some(keep)
            }
            other => return Err(r.invalid(format!("flag of recent vectors {other}"))),
        };
        let radius = r.f64()?;
        if !(radius >= 0.0 && radius.is_finite()) {
            return Err(r.invalid(format!("a covering radius of {radius}")));
        }
        let rows = r.count(8 * p)?;
        if rows == 0 || rows > MAX_SAMPLE {
            return Err(r.invalid(format!("{rows} reference rows")));
        }
        let mut reference = Vec::with_capacity(rows * p);
        for _ in 0..rows * p {
            let v = r.f64()?;
            if !is_scaled(v) {
                return Err(r.invalid("a reference row is out of range"));
            }
            reference.push(v);
        }
        Ok(Self { scale, neighbours, keep, radius, reference })
    }
}
