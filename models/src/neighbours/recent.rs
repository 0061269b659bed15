//! What an online model remembers of one device: some of its past vectors.

use avouch_engine::codec::{CodecError, Reader, Writer};

use crate::perdevice::is_scaled;

/// Which vectors are remembered, and when they count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Keep {
    pub recent: u32,
    pub every: u32,
    pub delay: u32,
}

impl Keep {
    /// Whether the vector after `seen` others is remembered.
    pub fn takes(&self, seen: u64) -> bool {
        seen.is_multiple_of(u64::from(self.every))
    }

    /// How many were remembered of the first `seen` vectors.
    fn taken(&self, seen: u64) -> u64 {
        seen.div_ceil(u64::from(self.every))
    }

    /// How many of them count for the vector that comes next.
    fn counting(&self, seen: u64) -> u64 {
        match seen.checked_sub(u64::from(self.delay)) {
            Some(before) => before / u64::from(self.every) + 1,
            None => 0,
        }
    }

    /// Most vectors held: those that count, and those that will.
    fn room(&self) -> u64 {
        u64::from(self.recent) + u64::from(self.delay.div_ceil(self.every))
    }

    /// How many are held after `seen` vectors.
    fn held(&self, seen: u64) -> u64 {
        self.taken(seen).min(self.room())
    }
}

/// A device's remembered vectors, scaled, oldest first.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Recent {
    pub(super) seen: u64,
    vectors: Vec<f64>,
}

impl Recent {
    /// Those that count for the vector that comes next.
    pub(super) fn old(&self, keep: &Keep, p: usize) -> &[f64] {
        let held = (self.vectors.len() / p) as u64;
        let too_young = self.taken_since(keep);
        let end = held.saturating_sub(too_young);
        let start = end.saturating_sub(u64::from(keep.recent));
        self.vectors.get(start as usize * p..end as usize * p).unwrap_or(&[])
    }

    fn taken_since(&self, keep: &Keep) -> u64 {
        keep.taken(self.seen) - keep.counting(self.seen)
    }

    /// One more vector was seen; `kept` if it is one to remember.
    pub(super) fn next(&mut self, keep: &Keep, kept: Option<&[f64]>, p: usize) {
        self.seen = self.seen.saturating_add(1);
        let Some(z) = kept else { return };
        if (self.vectors.len() / p) as u64 >= keep.room() {
            self.vectors.drain(..p);
        }
        self.vectors.extend_from_slice(z);
    }

    pub(super) fn write(&self, w: &mut Writer) {
        w.u64(self.seen);
        for v in &self.vectors {
            w.f64(*v);
        }
    }

    pub(super) fn read(r: &mut Reader<'_>, keep: &Keep, p: usize) -> Result<Self, CodecError> {
        let seen = r.u64()?;
        let values = keep.held(seen) as usize * p;
        if r.remaining() / 8 < values {
            return Err(r.invalid("too few bytes for the vectors remembered"));
        }
        let mut vectors = Vec::with_capacity(values);
        for _ in 0..values {
            let v = r.f64()?;
            if !is_scaled(v) {
                return Err(r.invalid("a vector remembered is out of range"));
            }
            vectors.push(v);
        }
        Ok(Self { seen, vectors })
    }
}
