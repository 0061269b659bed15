//! A lane's state as bytes, which it can be restored from.

use std::sync::Arc;

use super::{Counters, Lane, LaneError, Switch, hex};
use crate::codec::{CodecError, Reader, Section, Writer};
use crate::device::DeviceTable;
use crate::plan::LanePlan;
use crate::verdict::{Hash32, Secret};

const SNAPSHOT_VERSION: u16 = 4;

/// A lane's whole state, which it can be restored from. Dereferences to its bytes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Snapshot {
    /// The state.
    pub bytes: Vec<u8>,
    /// What it is made of, in order; a store may keep each apart.
    pub sections: Vec<Section>,
}

impl std::ops::Deref for Snapshot {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

impl From<Vec<u8>> for Snapshot {
    /// A state of one piece.
    fn from(bytes: Vec<u8>) -> Self {
        Self { bytes, sections: Vec::new() }
    }
}

impl Counters {
    fn snapshot(&self, w: &mut Writer) {
        w.u64(self.rows_in);
        w.u64(self.rows_used);
        w.u64(self.ticks);
        w.u64(self.evicted);
        for n in self.dead.iter().chain(&self.verdicts) {
            w.u64(*n);
        }
    }

    fn restore(r: &mut Reader<'_>) -> Result<Self, CodecError> {
        let mut c =
            Self { rows_in: r.u64()?, rows_used: r.u64()?, ticks: r.u64()?, evicted: r.u64()?, ..Self::default() };
        for n in c.dead.iter_mut().chain(&mut c.verdicts) {
            *n = r.u64()?;
        }
        Ok(c)
    }
}

impl Lane {
    /// The whole state. Two lanes that took the same records have equal snapshots.
    pub fn snapshot(&self) -> Snapshot {
        let mut w = Writer::with_capacity(self.last_snapshot.get());
        w.section("lane", 0);
        w.u16(SNAPSHOT_VERSION);
        w.raw(&self.plan.config_hash);
        w.u64(self.next_index);
        w.i64(self.last_offset);
        self.counters.snapshot(&mut w);
        self.admission.snapshot(&mut w);
        w.section("devices", self.devices.live());
        self.devices.snapshot(&mut w);
        w.section("references", self.switches.len());
        w.u32(self.switches.len() as u32);
        for s in &self.switches {
            w.i64(s.after_offset);
            w.u32(s.reference);
            w.raw(&s.version);
        }
        for (step, memory) in self.memories.iter().enumerate().filter_map(|(n, m)| Some((n, m.as_ref()?))) {
            w.section(format!("memory of step {step}"), 0);
            memory.snapshot(&self.devices, &mut w);
        }
        w.section("windows", self.windows.len());
        w.u32(self.windows.len() as u32);
        for (step, o) in self.plan.windows.iter().zip(&self.windows) {
            w.section(format!("window {}", step.name), 0);
            o.snapshot(&mut w);
        }
        self.last_snapshot.set(w.bytes.len());
        Snapshot { bytes: w.bytes, sections: w.sections }
    }

    /// A lane in the state of a snapshot of the same pipeline. Before it goes on, it takes
    /// its references again ([`Lane::begin_references`]).
    pub fn restore(plan: Arc<LanePlan>, partition: i32, secret: Secret, snapshot: &[u8]) -> Result<Self, LaneError> {
        let mut r = Reader::new("lane state", snapshot);
        let version = r.u16()?;
        if version != SNAPSHOT_VERSION {
            return Err(r.invalid(format!("version {version}; this program reads version {SNAPSHOT_VERSION}")).into());
        }
        let found: Hash32 = r.array()?;
        if found != plan.config_hash {
            return Err(LaneError::OtherPipeline { found: hex(&found), expected: hex(&plan.config_hash) });
        }
        let mut lane = Self::new(plan, partition, secret.clone());
        lane.next_index = r.u64()?;
        lane.last_offset = r.i64()?;
        lane.counters = Counters::restore(&mut r)?;
        lane.admission.restore(&mut r)?;
        lane.devices = DeviceTable::restore(secret, lane.plan.source.device_ttl_ms, &mut r)?;
        for _ in 0..r.count(44)? {
            let s = Switch { after_offset: r.i64()?, reference: r.u32()?, version: r.array()? };
            if s.reference as usize >= lane.plan.references.len() {
                return Err(r.invalid(format!("there is no reference number {}", s.reference)).into());
            }
            if lane.switches.last().is_some_and(|before| before.after_offset > s.after_offset) {
                return Err(r.invalid("changes of references out of order").into());
            }
            lane.switches.push(s);
        }
        for memory in lane.memories.iter_mut().flatten() {
            memory.restore(&lane.devices, &mut r)?;
        }
        let windows = r.u32()? as usize;
        if windows != lane.windows.len() {
            return Err(r
                .invalid(format!("{windows} windowed steps, this pipeline has {}", lane.windows.len()))
                .into());
        }
        for o in &mut lane.windows {
            o.restore(&lane.devices, &mut r)?;
            // Otherwise its windows would wait for rows of a time that the lane has not reached.
            if o.watermark() > lane.admission.watermark().unwrap_or(i64::MIN) {
                return Err(r.invalid("a windowed step is ahead of the lane's watermark").into());
            }
        }
        r.finish()?;
        Ok(lane)
    }
}
