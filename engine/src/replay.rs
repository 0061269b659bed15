//! Recorded inputs given back to a lane: each at the place it was made at, once, and in order.
//!
//! Whoever re-reads a lane's records from some checkpoint on, with what was recorded beyond it, does this:
//!
//! ```text
//!   give ─► take the records that come before the next input ─► give ─► … ─► is_empty: the lane makes its own again
//! ```

use std::collections::VecDeque;

use crate::decode::RawRecord;
use crate::event::LaneEvent;
use crate::lane::{Lane, LaneError, Output, hex};
use crate::reference::Versioned;
use crate::verdict::Hash32;

/// Inputs that a lane has yet to take again.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Replay {
    inputs: VecDeque<LaneEvent>,
}

impl Replay {
    /// For what was recorded beyond the place where the lane stands, in order. Consequences among it are passed over: the
    /// lane makes those again.
    pub fn new(events: impl IntoIterator<Item = LaneEvent>) -> Self {
        Self { inputs: events.into_iter().filter(LaneEvent::is_input).collect() }
    }

    /// The change of the pipeline that comes next of all, if it stands at `at`: from what, to what.
    pub fn next_change(&self, at: i64) -> Option<(&Hash32, &Hash32)> {
        match self.inputs.front() {
            Some(LaneEvent::Pipeline { after_offset, from, to, .. }) if *after_offset == at => Some((from, to)),
            _ => None,
        }
    }

    /// That change was made, by [`Lane::migrate`].
    pub fn changed(&mut self) {
        self.inputs.pop_front_if(|e| matches!(e, LaneEvent::Pipeline { .. }));
    }

    /// Whether all were given. Before that the lane must be given no other tick and no other version of a reference.
    pub fn is_empty(&self) -> bool {
        self.inputs.is_empty()
    }

    /// How many are left.
    pub fn len(&self) -> usize {
        self.inputs.len()
    }

    /// How many of these records, which come next, the lane takes before the next input; all of them where none is left.
    ///
    /// # Errors
    /// [`LaneError::EventOutOfPlace`] when the first record is already behind it: the one it stood behind is not in the input
    /// any more.
    pub fn before(&self, records: &[RawRecord<'_>]) -> Result<usize, LaneError> {
        let Some(given) = self.inputs.front().map(LaneEvent::after_offset) else { return Ok(records.len()) };
        let n = records.partition_point(|r| r.offset <= given);
        match records.first() {
            Some(first) if n == 0 => Err(LaneError::EventOutOfPlace {
                given,
                at: first.offset - 1,
                why: "the record it stands behind is not in the input any more",
            }),
            _ => Ok(n),
        }
    }

    /// Gives the lane the inputs that stand behind the last record it has taken, and returns how many these were. `table` finds
    /// a version of a reference, or of keys, by name and version.
    ///
    /// # Errors
    /// [`LaneError::EventOutOfPlace`] when the lane is past the place of the next one, or does not take it there;
    /// [`LaneError::NextPipeline`] where the next one is for another pipeline to take; those of `table` and of [`Lane::take_reference`].
    pub fn give<T: Into<Versioned>>(
        &mut self,
        lane: &mut Lane,
        mut table: impl FnMut(&str, &Hash32) -> Result<T, LaneError>,
        out: &mut Output,
    ) -> Result<usize, LaneError> {
        let mut n = 0;
        while let Some(event) = self.inputs.front() {
            let (given, at) = (event.after_offset(), lane.last_offset());
            if given > at {
                break;
            }
            match event {
                LaneEvent::Tick(tick) => lane.tick(*tick, out)?,
                LaneEvent::Label { after_offset, label } if given == at => {
                    lane.label(*after_offset, label.clone(), out)?
                }
                LaneEvent::Reference { name, version, .. } if given == at => {
                    lane.take_reference(table(name, version)?, out)?;
                }
                LaneEvent::Pipeline { to, .. } if given == at => {
                    return Err(LaneError::NextPipeline { after_offset: at, to: hex(to) });
                }
                _ => {
                    let why = "the lane has taken records beyond it";
                    return Err(LaneError::EventOutOfPlace { given, at, why });
                }
            }
            self.inputs.pop_front();
            n += 1;
        }
        Ok(n)
    }
}
