//! Repartitioning: a topic that is not keyed by device goes, record by record, to one that is, whose partitions are the
//! lanes' input logs.
//!
//! ```text
//!   source topic ─► the group "<group>-repartition" ─► device of the record ─┐   one transaction:
//!                    its offsets say where to go on                           ├─► records by device ─► lanes
//!                            ▲                                                │   and offsets
//!                            └────────────────────────────────────────────────┘
//! ```
//!
//! A copy has the record's value, timestamp and headers, the device as its key, and headers that name the record and the
//! time of copying. It is in the partition that Java's default partitioner gives its key. A record whose device cannot be read is copied without a
//! key, to the lane of its partition's number: that lane makes the dead letter of it, and could never take it for a row,
//! since a row's device must be its record's key.
//!
//! **Exactly once**: [`Mover`] commits copies and offsets together, as the member of the group that read them. After
//! anything that goes wrong the transaction is aborted and everything is read again from the group's offsets. So a record
//! is copied once whoever dies, sleeps or is told to stop, and whenever.
//!
//! **Order**: of one source partition, always kept. Of several, by timestamp as far as records are at hand ([`merge`]),
//! within one process. Two processes go at paces of their own, so a lane keeps time by source partition, and waits for the
//! one furthest behind (`avouch_engine::admit`).

mod merge;
mod name;
mod origin;
mod parts;
mod topic;

pub use origin::Origin;
pub use topic::prepare;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use avouch_connectors::http::Readiness;
use avouch_connectors::kafka::{
    GroupEvent, KafkaError, Moved, Mover, Positions, Share, Source, partition_count, partition_of_key,
};
use avouch_connectors::schema_registry::SchemaRegistry;
use avouch_engine::ingest::DeviceReader;
use avouch_engine::plan::LanePlan;
use tokio::runtime::Handle;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::watch;

use super::error::RuntimeError;
use super::inputs::now_ms;
use super::metrics::Metrics;
use super::schemas::Schemas;
use super::{ANSWER, FENCED_OFTEN, FENCED_WITHIN, MOST_MESSAGES};
use crate::lang::{KafkaSource, Repartition};
use name::WriterName;
use origin::{COPIED_HEADER, KEY_HEADER, SOURCE_HEADER};
use parts::Parts;

/// How long a transaction gathers records: the latency that repartitioning adds.
const TRANSACTION: Duration = Duration::from_millis(100);
/// So many records or bytes end a transaction sooner.
const MOST_RECORDS: u64 = 20_000;
const MOST_BYTES: usize = 16 << 20;
/// How many records are moved before the group and the clock are looked at.
const AT_ONCE: usize = 512;
/// How long offsets alone, past markers of transactions, wait for records to be committed with.
const OFFSETS_WAIT: Duration = Duration::from_secs(1);
/// How often it is looked whether all is done, where that is asked for.
const LOOK: Duration = Duration::from_millis(200);
const GATHER: Duration = Duration::from_millis(5);
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// Its part in `/readyz`.
const PART: &str = "repartition";

/// What repartitioning needs.
pub struct Repartitioner {
    source: KafkaSource,
    through: Repartition,
    reader: DeviceReader,
    schemas: Option<Schemas>,
    /// What the topic takes ([`avouch_connectors::kafka::record_limit`]).
    limit: Option<usize>,
    name: WriterName,
    metrics: Metrics,
    readiness: Readiness,
    /// Whether to end once all of the source is repartitioned up to the end it had at the start.
    until_end: bool,
    /// Any of them ends it.
    stops: [watch::Receiver<bool>; 2],
    fenced: Vec<Instant>,
}

/// Where it gets what it needs.
pub struct Setup<'a> {
    pub source: &'a KafkaSource,
    pub through: &'a Repartition,
    pub plan: &'a Arc<LanePlan>,
    pub state: &'a Path,
    pub registry: Option<Arc<SchemaRegistry>>,
    pub limit: Option<usize>,
    pub metrics: &'a Metrics,
    pub readiness: &'a Readiness,
    pub until_end: bool,
    pub stops: [watch::Receiver<bool>; 2],
}

impl Repartitioner {
    /// For a source whose topic [`prepare`] has seen. To be made within the async runtime.
    pub fn new(setup: Setup<'_>) -> Result<Self, RuntimeError> {
        let Some(reader) = DeviceReader::new(setup.plan) else {
            return Err(RuntimeError::Start("records of this format cannot be repartitioned".into()));
        };
        setup.readiness.waiting(PART, "joining the group");
        Ok(Self {
            source: setup.source.clone(),
            through: setup.through.clone(),
            reader,
            schemas: setup.registry.map(|r| Schemas::new(r, Handle::current())),
            limit: setup.limit,
            name: WriterName::take(setup.state, &setup.plan.pipeline)?,
            metrics: setup.metrics.clone(),
            readiness: setup.readiness.clone(),
            until_end: setup.until_end,
            stops: setup.stops,
            fenced: Vec::new(),
        })
    }

    fn told_to_stop(&self) -> bool {
        self.stops.iter().any(|s| *s.borrow())
    }

    /// Repartitions until it is told to stop, or, `until_end`, until all is done. Blocks; needs a thread that may block on
    /// the async runtime.
    pub fn run(mut self) -> Result<(), RuntimeError> {
        let outcome = loop {
            match self.membership() {
                // As for the lanes: a request of an earlier process under our name does this once.
                Err(RuntimeError::Kafka(e @ KafkaError::SameInstance { .. })) if !self.often_fenced() => {
                    tracing::warn!(error = %e, "joining the group of repartitioning again");
                }
                other => break other,
            }
        };
        match &outcome {
            Ok(()) => self.readiness.ready(PART),
            Err(e) => self.readiness.waiting(PART, &e.to_string()),
        }
        outcome
    }

    fn often_fenced(&mut self) -> bool {
        self.fenced.retain(|at| at.elapsed() < FENCED_WITHIN);
        self.fenced.push(Instant::now());
        self.fenced.len() > FENCED_OFTEN
    }

    /// One membership in the group, from joining to leaving.
    fn membership(&mut self) -> Result<(), RuntimeError> {
        let connection = self.source.connection();
        let (topic, group) = (self.source.topic.as_str().to_owned(), self.source.repartition_group());
        let positions = Positions::open(&connection, &group.group, &topic)?;
        let Some(mover) = self.mover()? else { return Ok(()) };
        let (source, events) = Source::open(&connection, &topic, group, Share::Group, MOST_MESSAGES)?;
        let ends = match self.until_end {
            true => Some(ends(&source, partition_count(&connection, &topic, ANSWER)?)?),
            false => None,
        };
        let mut flow = Flow {
            all: self,
            source,
            events,
            positions,
            mover,
            parts: Parts::default(),
            records: 0,
            bytes: 0,
            since: None,
            looked: Instant::now(),
            schema_pause: None,
            pause: FIRST_PAUSE,
            ends,
        };
        let outcome = flow.run();
        flow.leave();
        outcome
    }

    /// A writer under our name; `None` if told to stop before the brokers let there be one.
    fn mover(&mut self) -> Result<Option<Mover>, RuntimeError> {
        let connection = self.source.connection();
        let mut pause = FIRST_PAUSE;
        while !self.told_to_stop() {
            match Mover::open(&connection, self.through.topic.as_str(), self.limit, &self.name.id()) {
                Ok(mover) => return Ok(Some(mover)),
                Err(e @ KafkaError::Fenced { .. }) => {
                    tracing::warn!(error = %e, "another process opened the same writer");
                }
                Err(e) if e.retryable() => {
                    tracing::warn!(error = %e, ?pause, "repartitioning waits for the brokers");
                    self.readiness.waiting(PART, &e.to_string());
                }
                Err(e) => return Err(e.into()),
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
        Ok(None)
    }
}

/// Where each partition of the source ends now that holds anything.
fn ends(source: &Source, partitions: i32) -> Result<BTreeMap<i32, i64>, KafkaError> {
    let mut out = BTreeMap::new();
    for partition in 0..partitions {
        let (first, end) = source.bounds(partition)?;
        if first < end {
            out.insert(partition, end);
        }
    }
    Ok(out)
}

/// One membership under way.
struct Flow<'r> {
    all: &'r mut Repartitioner,
    source: Source,
    events: UnboundedReceiver<GroupEvent>,
    positions: Positions,
    mover: Mover,
    parts: Parts,
    /// In the open transaction.
    records: u64,
    bytes: usize,
    /// When there first was something to commit.
    since: Option<Instant>,
    looked: Instant,
    /// Until when the registry is not asked again.
    schema_pause: Option<Instant>,
    pause: Duration,
    /// Where the source's partitions ended at the start, if that is where to stop; those done with are taken out.
    ends: Option<BTreeMap<i32, i64>>,
}

impl Flow<'_> {
    fn run(&mut self) -> Result<(), RuntimeError> {
        loop {
            self.source.serve(Duration::ZERO)?;
            while let Ok(event) = self.events.try_recv() {
                self.follow(event)?;
            }
            if self.all.told_to_stop() {
                self.settle()?;
                return Ok(());
            }
            if let Some(schemas) = &mut self.all.schemas {
                schemas.forget_old(&mut self.all.reader);
            }
            if let Err(e) = self.step() {
                self.failed(e)?;
            }
            if self.looked.elapsed() >= if self.ends.is_some() { LOOK } else { OFFSETS_WAIT } {
                self.looked = Instant::now();
                self.parts.lags().for_each(|(p, lag)| self.all.metrics.move_lag(p, Some(lag)));
                if self.is_done()? {
                    return Ok(());
                }
            }
        }
    }

    /// Moves what is at hand, and commits when it is time.
    fn step(&mut self) -> Result<(), RuntimeError> {
        if self.parts.is_empty() {
            std::thread::sleep(GATHER);
            return Ok(());
        }
        let waits = self.schema_pause.is_some_and(|until| Instant::now() < until);
        if waits {
            std::thread::sleep(GATHER);
        } else if !self.parts.gather(GATHER)? {
            for _ in 0..AT_ONCE {
                if !self.move_first()? || !self.parts.advance()? {
                    break;
                }
            }
            self.mover.serve()?;
        }
        if self.since.is_none() && (self.mover.is_open() || !self.parts.ahead().is_empty()) {
            self.since = Some(Instant::now());
        }
        let age = self.since.map(|s| s.elapsed()).unwrap_or_default();
        let full = self.records >= MOST_RECORDS || self.bytes >= MOST_BYTES;
        if full || age >= if self.mover.is_open() { TRANSACTION } else { OFFSETS_WAIT } {
            self.commit()?;
        }
        Ok(())
    }

    /// Copies the record that comes next; false if there is none, or its schema is waited for.
    fn move_first(&mut self) -> Result<bool, RuntimeError> {
        let Some((partition, record, mut headers)) = self.parts.first() else { return Ok(false) };
        let all = &mut *self.all;
        if let Some(id) = record.value.and_then(|v| all.reader.schema_needed(v)) {
            let Some(schemas) = &mut all.schemas else {
                return Err(RuntimeError::Start("a schema is needed, but the source has no registry".into()));
            };
            if let Err(e) = schemas.learn(&mut all.reader, id) {
                let pause = schemas.pause();
                tracing::warn!(schema = id, error = %e, ?pause, "repartitioning waits for a schema");
                all.readiness.waiting(PART, &format!("waiting for schema {id}: {e}"));
                self.schema_pause = Some(Instant::now() + pause);
                return Ok(false);
            }
        }
        if self.schema_pause.take().is_some() {
            all.readiness.ready(PART);
        }
        let place = format!("{}/{partition}/{}", self.source.topic(), record.offset);
        headers.push((SOURCE_HEADER, Some(place.as_bytes())));
        let copied = now_ms().to_string();
        headers.push((COPIED_HEADER, Some(copied.as_bytes())));
        let lanes = all.through.partitions;
        let (to, key) = match all.reader.device(record.value) {
            Ok(device) => (partition_of_key(device, lanes), Some(device)),
            Err(_) => {
                if record.key.is_some() {
                    headers.push((KEY_HEADER, record.key));
                }
                (partition % lanes, None)
            }
        };
        let moved = Moved { partition: to, key, value: record.value, timestamp: record.timestamp, headers: &headers };
        self.mover.write(&moved)?;
        self.records += 1;
        self.bytes += record.value.map_or(0, <[u8]>::len) + place.len();
        Ok(true)
    }

    fn commit(&mut self) -> Result<(), RuntimeError> {
        let offsets = self.parts.ahead();
        if offsets.is_empty() && !self.mover.is_open() {
            self.since = None;
            return Ok(());
        }
        self.mover.commit(&self.source, &offsets)?;
        self.parts.committed(&offsets);
        self.all.metrics.moved.inc_by(self.records);
        if self.pause != FIRST_PAUSE {
            self.all.readiness.ready(PART);
        }
        self.pause = FIRST_PAUSE;
        self.begun_anew();
        Ok(())
    }

    /// Nothing is under way.
    fn begun_anew(&mut self) {
        (self.records, self.bytes, self.since) = (0, 0, None);
    }

    /// Ends the open transaction one way or the other: whether it was committed. If not, what was at hand is to be read again.
    fn settle(&mut self) -> Result<bool, RuntimeError> {
        let e = match self.commit() {
            Ok(()) => return Ok(true),
            Err(RuntimeError::Kafka(e)) => self.mover.cause(e),
            Err(e) => return Err(e),
        };
        self.abort(&e)?;
        Ok(false)
    }

    /// A transaction failed: it is aborted, and what was in it is read again.
    fn failed(&mut self, e: RuntimeError) -> Result<(), RuntimeError> {
        let RuntimeError::Kafka(e) = e else { return Err(e) };
        if matches!(e, KafkaError::OffsetGone { .. }) {
            return Err(e.into());
        }
        let e = self.mover.cause(e);
        self.abort(&e)?;
        match &e {
            KafkaError::Refused { topic, .. } => {
                return Err(RuntimeError::Start(format!(
                    "{e}; it is a record of \"{}\" with two headers more, so set \"{topic}\" to take what the source takes \
                     (`max.message.bytes`, `message.timestamp.*`)",
                    self.source.topic()
                )));
            }
            KafkaError::Fenced { .. } => {}
            e if !e.retryable() => return Err(RuntimeError::Start(e.to_string())),
            _ => {}
        }
        self.all.readiness.waiting(PART, &e.to_string());
        // Not at once again, and answering the group meanwhile.
        let until = Instant::now() + self.pause;
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        while Instant::now() < until && self.events.is_empty() && !self.all.told_to_stop() {
            self.source.serve(GATHER)?;
        }
        self.rewind()
    }

    fn abort(&mut self, why: &KafkaError) -> Result<(), RuntimeError> {
        tracing::warn!(error = %why, records = self.records, "repartitioning reads again from the group's offsets");
        if self.mover.is_open() {
            self.all.metrics.moves_aborted.inc();
        }
        self.begun_anew();
        match self.mover.abort() {
            // What fails again and again is given a new writer.
            Ok(()) if self.pause < LONGEST_PAUSE => return Ok(()),
            Ok(()) => {}
            Err(e) => {
                tracing::warn!(error = %e, "the writer of repartitioning is opened again");
                if matches!(e, KafkaError::Fenced { .. }) && self.all.often_fenced() {
                    // Not our own past: someone lives under our name.
                    self.all.name.renew()?;
                }
            }
        }
        // Told to stop, there is none: what is open ends when its time is over, or when the name is used next.
        if let Some(mover) = self.all.mover()? {
            let old = std::mem::replace(&mut self.mover, mover);
            // A writer that was fenced may take its time to end.
            std::thread::spawn(move || drop(old));
        }
        Ok(())
    }

    /// Reads on from the group's offsets.
    fn rewind(&mut self) -> Result<(), RuntimeError> {
        let numbers = self.parts.numbers();
        self.begin(&numbers)
    }

    /// Begins partitions, or begins them anew, at the group's offsets.
    fn begin(&mut self, partitions: &[i32]) -> Result<(), RuntimeError> {
        if partitions.is_empty() {
            return Ok(());
        }
        let committed = loop {
            match self.positions.committed(partitions) {
                Ok(committed) => break committed,
                Err(e) if !e.retryable() => return Err(e.into()),
                Err(_) if self.all.told_to_stop() => return Ok(()),
                // Also while a transaction of whoever had them is open.
                Err(e) => {
                    tracing::info!(error = %e, "repartitioning waits for the group's offsets");
                    self.all.readiness.waiting(PART, &e.to_string());
                    self.source.serve(FIRST_PAUSE)?;
                }
            }
        };
        for &partition in partitions {
            let offset = committed.get(&partition).copied().flatten();
            self.parts.end(partition);
            let reader = self.source.begin_anew(partition, offset)?;
            self.parts.begin(reader, offset);
        }
        self.all.readiness.ready(PART);
        Ok(())
    }

    fn follow(&mut self, event: GroupEvent) -> Result<(), RuntimeError> {
        match event {
            GroupEvent::Assigned(partitions) => {
                tracing::info!(?partitions, "partitions given to this process to repartition");
                self.source.accept()?;
                self.begin(&partitions)?;
                self.all.readiness.ready(PART);
            }
            GroupEvent::Revoked { partitions, lost } => {
                tracing::info!(?partitions, lost, "partitions taken from this process, which repartitioned them");
                // Before they are given back: afterwards their offsets are no business of ours, whatever the group thinks
                // of our membership.
                let whole = if lost {
                    let silent = "this process was silent for longer than its session";
                    self.abort(&KafkaError::Fenced { id: format!("{} ({silent})", self.all.name.id()) })?;
                    false
                } else {
                    self.settle()?
                };
                for partition in &partitions {
                    self.parts.end(*partition);
                    self.all.metrics.move_lag(*partition, None);
                }
                self.source.release(&partitions)?;
                if !whole {
                    self.rewind()?;
                }
            }
        }
        Ok(())
    }

    /// Whether all of the source was repartitioned up to where it ended at the start, by whichever process.
    fn is_done(&mut self) -> Result<bool, RuntimeError> {
        let Some(ends) = &mut self.ends else { return Ok(false) };
        if ends.is_empty() {
            return Ok(true);
        }
        let left: Vec<i32> = ends.keys().copied().collect();
        let committed = match self.positions.committed(&left) {
            Ok(committed) => committed,
            Err(e) if e.retryable() => return Ok(false),
            Err(e) => return Err(e.into()),
        };
        ends.retain(|p, end| committed.get(p).copied().flatten().is_none_or(|at| at < *end));
        Ok(ends.is_empty())
    }

    /// Gives everything up. What is open is ended by now, or is aborted when its time is over.
    fn leave(mut self) {
        if self.mover.is_open()
            && let Err(e) = self.mover.abort()
        {
            tracing::warn!(error = %e, "a transaction of repartitioning is left open");
        }
        for partition in self.parts.numbers() {
            self.parts.end(partition);
            self.all.metrics.move_lag(partition, None);
        }
        self.source.leave();
    }
}
