//! A lane's state as bytes, which it can be restored from.

use std::sync::Arc;

use super::incidents::Incidents;
use super::{Counters, Lane, LaneError, Output, Switch, hex};
use crate::codec::{CodecError, Reader, Section, Writer};
use crate::device::DeviceTable;
use crate::event::LaneEvent;
use crate::identity::Checker;
use crate::migrate::{Definition, DroppedState, StepState};
use crate::plan::LanePlan;
use crate::verdict::{Hash32, Secret};

const SNAPSHOT_VERSION: u16 = 7;
/// The version before there were signatures: fewer reasons to die, and no counters of devices.
const UNSIGNED_VERSION: u16 = 6;
const UNSIGNED_REASONS: usize = 7;
/// In place of a time to live, where there is none.
const NO_TTL: i64 = -1;

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

    fn restore(version: u16, r: &mut Reader<'_>) -> Result<Self, CodecError> {
        let mut c = Self {
            rows_in: r.counted()?,
            rows_used: r.counted()?,
            ticks: r.counted()?,
            evicted: r.counted()?,
            ..Self::default()
        };
        let reasons = if version == UNSIGNED_VERSION { UNSIGNED_REASONS } else { c.dead.len() };
        for n in c.dead[..reasons].iter_mut().chain(&mut c.verdicts) {
            *n = r.counted()?;
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
        w.i64(self.plan.source.max_disorder_ms);
        w.i64(self.plan.source.device_ttl_ms.unwrap_or(NO_TTL));
        w.section("devices", self.devices.live());
        self.devices.snapshot(&mut w);
        w.section("references", self.switches.len());
        let names = self.versioned_names();
        w.u32(names.len() as u32);
        names.iter().for_each(|name| w.str(name));
        w.u32(self.switches.len() as u32);
        for s in &self.switches {
            w.i64(s.after_offset);
            w.u32(s.reference);
            w.raw(&s.version);
        }
        w.u32(self.memories.iter().flatten().count() as u32);
        for (step, memory) in self.plan.rows.iter().zip(&self.memories) {
            let Some(memory) = memory else { continue };
            w.section(format!("memory of step {}", step.name), 0);
            StepState::write(&step.name, &step.definition, &mut w, |w| memory.snapshot(&self.devices, w));
        }
        w.section("windows", self.windows.len());
        w.u32(self.windows.len() as u32);
        for (step, o) in self.plan.windows.iter().zip(&self.windows) {
            w.section(format!("window {}", step.name), 0);
            StepState::write(&step.name, &step.definition, &mut w, |w| o.snapshot(w));
        }
        w.section("online", self.online.iter().flatten().count());
        w.u32(self.online.iter().flatten().count() as u32);
        for (step, memories) in self.plan.scores.iter().zip(&self.online) {
            let Some(memories) = memories else { continue };
            w.section(format!("model {}", step.name), 0);
            StepState::write(&step.name, &step.definition, &mut w, |w| memories.snapshot(&self.devices, w));
        }
        w.section("incidents", self.incidents.iter().flatten().count());
        w.u32(self.incidents.iter().flatten().count() as u32);
        for (step, incidents) in self.plan.scores.iter().zip(&self.incidents) {
            let Some(incidents) = incidents else { continue };
            w.str(&step.name);
            incidents.snapshot(&self.devices, &mut w);
        }
        w.u8(u8::from(self.identity.is_some()));
        if let Some(identity) = &self.identity {
            w.section("identity", identity.counted());
            identity.snapshot(&mut w);
        }
        self.last_snapshot.set(w.bytes.len());
        Snapshot { bytes: w.bytes, sections: w.sections }
    }

    /// The `configHash` of the pipeline that made a snapshot.
    ///
    /// # Errors
    /// When it is none of this version.
    pub fn config_of(snapshot: &[u8]) -> Result<Hash32, LaneError> {
        let mut r = Reader::new("lane state", snapshot);
        Ok(head(&mut r)?.1)
    }

    /// A lane in the state of a snapshot of the same pipeline. Before it goes on, it takes
    /// its references again ([`Lane::begin_references`]).
    pub fn restore(plan: Arc<LanePlan>, partition: i32, secret: Secret, snapshot: &[u8]) -> Result<Self, LaneError> {
        let found = Self::config_of(snapshot)?;
        if found != plan.config_hash {
            return Err(LaneError::OtherPipeline { found: hex(&found), expected: hex(&plan.config_hash) });
        }
        let (lane, dropped) = Self::read(plan, partition, secret, snapshot, true)?;
        match dropped.first() {
            None => Ok(lane),
            Some(d) => {
                let why = format!("the step \"{}\" is another one, although the pipeline is the same", d.step);
                Err(CodecError::Invalid { what: "lane state", why, at: 0 }.into())
            }
        }
    }

    /// A lane that goes on from a snapshot of another pipeline: see [`crate::migrate`]. The change is an input like a tick: it
    /// is pushed to `out.events` and must be recorded before the lane takes anything. Then the lane takes its references
    /// ([`Lane::begin_references`]).
    ///
    /// # Errors
    /// As [`Lane::restore`].
    pub fn migrate(
        plan: Arc<LanePlan>,
        partition: i32,
        secret: Secret,
        snapshot: &[u8],
        out: &mut Output,
    ) -> Result<Self, LaneError> {
        let (from, to) = (Self::config_of(snapshot)?, plan.config_hash);
        let (lane, dropped) = Self::read(plan, partition, secret, snapshot, false)?;
        out.events.push(LaneEvent::Pipeline { after_offset: lane.last_offset, from, to, dropped });
        Ok(lane)
    }

    /// `same`: the pipeline is the same, so that its definitions need not be compared.
    fn read(
        plan: Arc<LanePlan>,
        partition: i32,
        secret: Secret,
        snapshot: &[u8],
        same: bool,
    ) -> Result<(Self, Vec<DroppedState>), LaneError> {
        let mut r = Reader::new("lane state", snapshot);
        let (version, _) = head(&mut r)?;
        let mut lane = Self::new(plan, partition, secret.clone());
        lane.next_index = r.counted()?;
        lane.last_offset = r.i64()?;
        lane.counters = Counters::restore(version, &mut r)?;
        lane.admission.restore(&mut r)?;
        let (disorder, ttl) = (r.milliseconds()?, r.i64()?);
        if disorder != lane.plan.source.max_disorder_ms && !lane.admission.keep_watermark(disorder) {
            return Err(r.invalid("a watermark of no time").into());
        }
        lane.devices = DeviceTable::restore(secret, lane.plan.source.device_ttl_ms, &mut r)?;
        if ttl != lane.plan.source.device_ttl_ms.unwrap_or(NO_TTL) {
            lane.devices.time_to_live_changed();
        }
        lane.read_switches(&mut r)?;
        let mut dropped = lane.read_memories(&mut r, same)?;
        dropped.extend(lane.read_windows(&mut r, same)?);
        dropped.extend(lane.read_online(&mut r, same)?);
        lane.read_incidents(&mut r, same)?;
        if version != UNSIGNED_VERSION {
            match r.u8()? {
                0 => {}
                1 => Checker::restore(lane.identity.as_mut(), &mut r)?,
                other => return Err(r.invalid(format!("counters of devices with the flag {other}")).into()),
            }
        }
        r.finish()?;
        dropped.sort_by(|a, b| a.step.cmp(&b.step));
        Ok((lane, dropped))
    }

    fn read_switches(&mut self, r: &mut Reader<'_>) -> Result<(), LaneError> {
        // Their numbers in the pipeline that wrote them, to those in this one.
        let names = self.versioned_names();
        let n = r.count(4)?;
        let mut numbers = Vec::with_capacity(n);
        for _ in 0..n {
            let name = r.str()?;
            numbers.push(names.iter().position(|n| n == name));
        }
        let mut last = i64::MIN;
        for _ in 0..r.count(44)? {
            let (after_offset, number, version) = (r.i64()?, r.u32()?, r.array()?);
            let Some(&reference) = numbers.get(number as usize) else {
                return Err(r.invalid(format!("there is no reference number {number}")).into());
            };
            if last > after_offset {
                return Err(r.invalid("changes of references out of order").into());
            }
            last = after_offset;
            if let Some(reference) = reference {
                self.switches.push(Switch { after_offset, reference: reference as u32, version });
            }
        }
        Ok(())
    }

    fn read_memories(&mut self, r: &mut Reader<'_>, same: bool) -> Result<Vec<DroppedState>, LaneError> {
        let mut dropped = Vec::new();
        let mut taken = vec![false; self.memories.len()];
        for _ in 0..r.count(StepState::LEAST)? {
            let state = StepState::read(r)?;
            let at = self.plan.rows.iter().position(|s| s.name == state.name);
            let now = at.map(|i| if same { &state.definition } else { &self.plan.rows[i].definition });
            if let Some(d) = state.dropped(now.or_else(|| self.definition_of(state.name))) {
                dropped.push(d);
                continue;
            }
            let known = at.and_then(|i| Some((self.memories[i].as_mut()?, &mut taken[i])));
            let Some((memory, taken)) = known.filter(|(_, taken)| !**taken) else {
                return Err(r.invalid(format!("row functions of a step \"{}\"", state.name)).into());
            };
            *taken = true;
            let mut inner = Reader::new("lane state", state.bytes);
            memory.restore(&self.devices, &mut inner)?;
            inner.finish()?;
        }
        if same && self.memories.iter().zip(&taken).any(|(m, taken)| m.is_some() && !taken) {
            return Err(r.invalid("row functions of a step are missing").into());
        }
        Ok(dropped)
    }

    fn read_windows(&mut self, r: &mut Reader<'_>, same: bool) -> Result<Vec<DroppedState>, LaneError> {
        let mut dropped = Vec::new();
        let mut taken = vec![false; self.windows.len()];
        let watermark = self.admission.watermark();
        for _ in 0..r.count(StepState::LEAST)? {
            let state = StepState::read(r)?;
            let at = self.plan.windows.iter().position(|s| s.name == state.name);
            let now = at.map(|i| if same { &state.definition } else { &self.plan.windows[i].definition });
            if let Some(d) = state.dropped(now.or_else(|| self.definition_of(state.name))) {
                dropped.push(d);
                continue;
            }
            let Some(i) = at.filter(|i| !taken[*i]) else {
                return Err(r.invalid(format!("windows of a step \"{}\"", state.name)).into());
            };
            taken[i] = true;
            let mut inner = Reader::new("lane state", state.bytes);
            let operator = &mut self.windows[i];
            operator.restore(&self.devices, &mut inner)?;
            inner.finish()?;
            // Otherwise its windows would wait for rows of a time that the lane has not reached.
            if operator.watermark() > watermark.unwrap_or(i64::MIN) {
                return Err(r.invalid("a windowed step is ahead of the lane's watermark").into());
            }
        }
        if same && taken.contains(&false) {
            return Err(r.invalid("the windows of a step are missing").into());
        }
        if let Some(watermark) = watermark {
            self.windows.iter_mut().zip(taken).filter(|(_, taken)| !taken).for_each(|(o, _)| o.begin_at(watermark));
        }
        Ok(dropped)
    }

    fn read_online(&mut self, r: &mut Reader<'_>, same: bool) -> Result<Vec<DroppedState>, LaneError> {
        let plan = self.plan.clone();
        let mut dropped = Vec::new();
        let mut taken = vec![false; self.online.len()];
        for _ in 0..r.count(StepState::LEAST)? {
            let state = StepState::read(r)?;
            let at = plan.scores.iter().position(|s| s.name == state.name);
            let now = at.map(|i| if same { &state.definition } else { &plan.scores[i].definition });
            if let Some(d) = state.dropped(now.or_else(|| self.definition_of(state.name))) {
                dropped.push(d);
                continue;
            }
            let known = at.and_then(|i| Some((i, self.online[i].as_mut()?, &mut taken[i])));
            let Some((i, memories, taken)) = known.filter(|(_, _, taken)| !**taken) else {
                return Err(r.invalid(format!("memories of a model step \"{}\"", state.name)).into());
            };
            *taken = true;
            let mut inner = Reader::new("lane state", state.bytes);
            memories.restore(plan.scores[i].model.as_ref(), &self.devices, &mut inner)?;
            inner.finish()?;
        }
        if same && self.online.iter().zip(&taken).any(|(m, taken)| m.is_some() && !taken) {
            return Err(r.invalid("the memories of an online model are missing").into());
        }
        Ok(dropped)
    }

    /// An incident goes on whatever the step's model and thresholds have become.
    fn read_incidents(&mut self, r: &mut Reader<'_>, same: bool) -> Result<(), LaneError> {
        let plan = self.plan.clone();
        let mut taken = vec![false; self.incidents.len()];
        for _ in 0..r.count(8)? {
            let name = r.str()?;
            let at = plan.scores.iter().position(|s| s.name == name).filter(|i| self.incidents[*i].is_some());
            if at.is_none() && same || at.is_some_and(|i| std::mem::replace(&mut taken[i], true)) {
                return Err(r.invalid(format!("incidents of a step \"{name}\"")).into());
            }
            let to = at.and_then(|i| self.incidents[i].as_mut());
            Incidents::restore(to, &self.devices, self.next_index, r)?;
        }
        if same && self.incidents.iter().zip(&taken).any(|(i, taken)| i.is_some() && !taken) {
            return Err(r.invalid("the incidents of a step are missing").into());
        }
        Ok(())
    }

    /// Of any SQL step of this name: one that has a window now and had none has changed, and is not gone.
    fn definition_of(&self, name: &str) -> Option<&Definition> {
        let rows = self.plan.rows.iter().find(|s| s.name == name).map(|s| &s.definition);
        rows.or_else(|| self.plan.windows.iter().find(|s| s.name == name).map(|s| &s.definition))
    }
}

fn head(r: &mut Reader<'_>) -> Result<(u16, Hash32), CodecError> {
    let version = r.u16()?;
    if ![SNAPSHOT_VERSION, UNSIGNED_VERSION].contains(&version) {
        let reads = format!("{UNSIGNED_VERSION} and {SNAPSHOT_VERSION}");
        return Err(r.invalid(format!("version {version}; this program reads versions {reads}")));
    }
    Ok((version, r.array()?))
}
