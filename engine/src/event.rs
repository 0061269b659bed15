//! What happens to a lane besides rows: recorded in order, so that verdicts stay a function of what was recorded.
//!
//! Ticks, reference switches, labels and changes of the pipeline are *inputs*: whoever replays a lane gives them back at the same place, which is after
//! the record at `after_offset`, in the order in which they stand. Evictions are *consequences*, which a replay makes
//! again by itself; they are recorded because a device's memory was lost there.

use crate::codec::{CodecError, Reader, Writer};
use crate::label::Label;
use crate::migrate::DroppedState;
use crate::verdict::Hash32;

/// The offset that stands before the first record.
pub const BEFORE_ALL: i64 = -1;

/// Time that went on without rows: an idle partition's windows close by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tick {
    /// Offset of the last record the lane had taken, [`BEFORE_ALL`] if none.
    pub after_offset: i64,
    /// The watermark from here on, milliseconds; ahead of the one before.
    pub watermark_ms: i64,
}

/// One event in the history of a lane.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LaneEvent {
    /// A tick (an input).
    Tick(Tick),
    /// From here on rows are joined with this version of a reference table, or signatures are checked with this version of
    /// a source's keys (an input).
    Reference {
        /// Offset of the last record the lane had taken.
        after_offset: i64,
        /// The reference's name; of keys, [`KeySet::name_of`](crate::identity::KeySet::name_of) the source.
        name: String,
        /// SHA-256 of its canonical content.
        version: Hash32,
    },
    /// A device was idle for longer than `device_ttl`, and what was remembered of it is gone but for its next `seq`
    /// (a consequence).
    Evicted {
        /// Offset of the record (or of the last one before the tick) that brought time so far.
        after_offset: i64,
        /// The watermark there, milliseconds.
        watermark_ms: i64,
        /// The device's pseudonym.
        device_id: Hash32,
        /// The `seq` its next verdict will have.
        next_seq: u64,
    },
    /// From here on another pipeline is computed (an input): see [`crate::migrate`].
    Pipeline {
        /// Offset of the last record the lane had taken.
        after_offset: i64,
        /// `configHash` before.
        from: Hash32,
        /// `configHash` from here on.
        to: Hash32,
        /// The steps whose state was dropped, by name.
        dropped: Vec<DroppedState>,
    },
    /// A person says something of a verdict or of a device (an input): see [`crate::label`].
    Label {
        /// Offset of the last record the lane had taken.
        after_offset: i64,
        /// What is said.
        label: Label,
    },
}

impl LaneEvent {
    /// Whether a replay must be given this event, as against making it itself.
    pub fn is_input(&self) -> bool {
        !matches!(self, LaneEvent::Evicted { .. })
    }

    /// Offset of the record after which it stands.
    pub fn after_offset(&self) -> i64 {
        match self {
            LaneEvent::Tick(t) => t.after_offset,
            LaneEvent::Reference { after_offset, .. }
            | LaneEvent::Evicted { after_offset, .. }
            | LaneEvent::Label { after_offset, .. }
            | LaneEvent::Pipeline { after_offset, .. } => *after_offset,
        }
    }

    /// The canonical bytes (see [`crate::codec`]): a code (1 tick, 2 reference, 3 evicted, 4 pipeline, 5 label), then the fields in the order
    /// of the declaration.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut w = Writer::new();
        match self {
            LaneEvent::Tick(t) => {
                w.u8(1);
                w.i64(t.after_offset);
                w.i64(t.watermark_ms);
            }
            LaneEvent::Reference { after_offset, name, version } => {
                w.u8(2);
                w.i64(*after_offset);
                w.str(name);
                w.raw(version);
            }
            LaneEvent::Evicted { after_offset, watermark_ms, device_id, next_seq } => {
                w.u8(3);
                w.i64(*after_offset);
                w.i64(*watermark_ms);
                w.raw(device_id);
                w.u64(*next_seq);
            }
            LaneEvent::Pipeline { after_offset, from, to, dropped } => {
                w.u8(4);
                w.i64(*after_offset);
                w.raw(from);
                w.raw(to);
                w.u32(dropped.len() as u32);
                dropped.iter().for_each(|d| d.write(&mut w));
            }
            LaneEvent::Label { after_offset, label } => {
                w.u8(5);
                w.i64(*after_offset);
                w.bytes(&label.to_bytes());
            }
        }
        w.bytes
    }

    /// Reads what [`LaneEvent::to_bytes`] wrote.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, CodecError> {
        let mut r = Reader::new("lane event", bytes);
        let out = match r.u8()? {
            1 => LaneEvent::Tick(Tick { after_offset: r.i64()?, watermark_ms: r.i64()? }),
            2 => LaneEvent::Reference { after_offset: r.i64()?, name: r.str()?.to_owned(), version: r.array()? },
            3 => LaneEvent::Evicted {
                after_offset: r.i64()?,
                watermark_ms: r.i64()?,
                device_id: r.array()?,
                next_seq: r.u64()?,
            },
            4 => {
                let (after_offset, from, to) = (r.i64()?, r.array()?, r.array()?);
                let n = r.count(21)?;
                let dropped = (0..n).map(|_| DroppedState::read(&mut r)).collect::<Result<_, _>>()?;
                LaneEvent::Pipeline { after_offset, from, to, dropped }
            }
            5 => LaneEvent::Label { after_offset: r.i64()?, label: Label::from_bytes(r.bytes()?)? },
            other => return Err(r.invalid(format!("unknown event code {other}"))),
        };
        r.finish()?;
        Ok(out)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::label::Opinion;
    use crate::migrate::{DropReason, Held};

    #[test]
    fn bytes_and_back() {
        for event in [
            LaneEvent::Tick(Tick { after_offset: BEFORE_ALL, watermark_ms: -5 }),
            LaneEvent::Reference { after_offset: 7, name: "devices".into(), version: [9; 32] },
            LaneEvent::Evicted { after_offset: 7, watermark_ms: 1 << 40, device_id: [3; 32], next_seq: 12 },
            LaneEvent::Pipeline { after_offset: 9, from: [1; 32], to: [2; 32], dropped: Vec::new() },
            LaneEvent::Label {
                after_offset: 11,
                label: Label {
                    device: "pump-7".into(),
                    verdict: Some(3),
                    step: "anomaly".into(),
                    from: 1_000,
                    to: 2_000,
                    opinion: Opinion::FalseAlarm,
                    reason: Some([4; 32]),
                    by: [5; 32],
                    at: 1_700_000_000_000,
                },
            },
            LaneEvent::Pipeline {
                after_offset: 9,
                from: [1; 32],
                to: [2; 32],
                dropped: DropReason::ALL
                    .map(|why| DroppedState { step: "features".into(), why, held: Held { devices: 3, rows: 40 } })
                    .to_vec(),
            },
        ] {
            let bytes = event.to_bytes();
            assert_eq!(LaneEvent::from_bytes(&bytes).unwrap(), event);
            for cut in 0..bytes.len() {
                assert!(LaneEvent::from_bytes(&bytes[..cut]).is_err());
            }
            assert!(LaneEvent::from_bytes(&[bytes.as_slice(), &[0]].concat()).is_err());
        }
        assert!(LaneEvent::from_bytes(&[9]).is_err());
    }
}
