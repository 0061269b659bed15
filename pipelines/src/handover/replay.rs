//! The lane run again over its readings, and every record compared with the log's.

use std::collections::VecDeque;

use avouch_engine::decode::RawRecord;
use avouch_engine::event::LaneEvent;
use avouch_engine::lane::{Lane, LaneError, Output};
use avouch_engine::replay::Replay;
use avouch_engine::verdict::{Hash32, LogOrigin, Logged, Secret};
use thiserror::Error;

use super::compare::{Difference, Under, difference};
use super::plans::{PlanFailure, Plans};
use super::{Handover, HandoverError, Reading, Records};
use crate::lang::Pipeline;
use crate::runtime::{RuntimeError, Schemas, schema_registry};

/// Why a lane cannot be run again.
#[derive(Debug, Error)]
pub enum ReplayFailure {
    /// The export cannot be read.
    #[error(transparent)]
    Handover(#[from] HandoverError),
    /// It cannot be planned.
    #[error(transparent)]
    Plan(#[from] PlanFailure),
    /// The lane cannot go on.
    #[error("the lane cannot be run again: {0}")]
    Lane(#[from] LaneError),
    /// A schema is missing.
    #[error(
        "the schema {id} that records were written with is not in the export, and the registry does not answer: {why}"
    )]
    Schema {
        /// Its id.
        id: u32,
        /// What the registry says.
        why: String,
    },
    /// The registry's client cannot be made.
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
    /// Readings are signed, and the secret is not given.
    #[error(
        "these readings are signed, and their devices' keys are known by pseudonyms, which are made under the pipeline's secret: ask \
         for it and give it with --secret"
    )]
    NeedsSecret,
    /// The secret is another one.
    #[error("this is not the secret of the log: under it the first record's device has another pseudonym")]
    OtherSecret,
}

/// What a replay gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replayed {
    /// Records of the source that were read.
    pub readings: u64,
    /// Recorded inputs that were given: ticks, versions of references, labels, changes of the pipeline.
    pub events: u64,
    /// Rows among them.
    pub rows: u64,
    /// Rows that became dead letters again.
    pub dead: u64,
    /// Records of the log that were made again the same, up to the first that was not.
    pub agreed: u64,
    /// Records of the log that were erased: that there is one at this place was compared, and nothing else.
    pub erased: u64,
    /// Records of the log whose keys were erased from the secret since: their salts were not compared.
    pub unsalted: u64,
    /// The first difference; `None` if the whole log was made again.
    pub difference: Option<Difference>,
    /// Whether pseudonyms and salts were compared, too.
    pub with_secret: bool,
    /// How many pipelines the lane had, one after the other.
    pub pipelines: u64,
}

/// Runs the lane of an export again and compares. `given`: pipeline files, for what the canonical form does not hold (a Protobuf
/// descriptor set); `secret`: the one that pseudonyms and salts are made under.
///
/// # Errors
/// When it cannot be run at all. That it gives something else is no error.
pub fn replay(handover: &Handover, given: &[Pipeline], secret: Option<Secret>) -> Result<Replayed, ReplayFailure> {
    let events = handover.events()?;
    let first = events.iter().find_map(|e| match e {
        LaneEvent::Pipeline { from, .. } => Some(*from),
        _ => None,
    });
    let config = match first {
        Some(config) => config,
        None => handover.config()?,
    };
    let plans = Plans::new(handover, given, &events)?;
    let with_secret = secret.is_some();
    // The log, and what is compared under the secret.
    let mut run = Run {
        log: Log { records: handover.records()?, waiting: VecDeque::new() },
        log_id: LogOrigin::from_text(handover.head.log.clone()).log_id(),
        secret: secret.clone(),
        agreed: 0,
        erased: 0,
        unsalted: 0,
        difference: None,
        dead: 0,
    };
    // Whatever key: what it makes is not compared then.
    let key = secret.unwrap_or_else(|| Secret::new(b"avouch replay"));
    if with_secret
        && let Some(Logged::Record(first)) = run.log.peek()?
        && key.device_id(&first.evidence.device) != first.verdict.device_id
    {
        return Err(ReplayFailure::OtherSecret);
    }
    let partition = handover.head.partition;
    let plan = plans.plan(&config)?;
    if plan.source.signature.is_some() && !with_secret {
        return Err(ReplayFailure::NeedsSecret);
    }
    let mut lane = Lane::new(plan, partition, key.clone());
    let mut schemas = Registry::of(&plans.pipeline(&config)?, handover)?;
    let mut inputs = Replay::new(events);
    let total = inputs.len() as u64;
    let mut readings = handover.readings()?;
    let (mut count, mut pipelines) = (0, 1);
    let mut piece: Vec<Reading> = Vec::new();
    let mut ended = false;
    while !ended && run.difference.is_none() {
        let table = |name: &str, version: &_| {
            plans.version(name, version).map_err(|why| LaneError::Reference { name: name.to_owned(), why })
        };
        let records: Vec<RawRecord<'_>> = piece.iter().map(Reading::record).collect();
        let mut rest = &records[..];
        loop {
            let mut out = Output::default();
            if let Some((_, to)) = inputs.next_change(lane.last_offset()) {
                let plan = plans.plan(to)?;
                schemas = Registry::of(&plans.pipeline(to)?, handover)?;
                lane = Lane::migrate(plan, partition, key.clone(), &lane.snapshot(), &mut out)?;
                inputs.changed();
                pipelines += 1;
            } else {
                inputs.give(&mut lane, table, &mut out)?;
            }
            run.compare(out)?;
            if run.difference.is_some() || inputs.next_change(lane.last_offset()).is_some() {
                if run.difference.is_some() {
                    break;
                }
                continue;
            }
            if rest.is_empty() {
                break;
            }
            let n = inputs.before(rest)?;
            let mut out = Output::default();
            let taken = schemas.step(&mut lane, &rest[..n], &mut out)?;
            rest = &rest[taken..];
            run.compare(out)?;
        }
        count += piece.len() as u64;
        piece = readings.next()?;
        ended = piece.is_empty();
    }
    if run.difference.is_none()
        && let Some(record) = run.log.next()?
    {
        run.difference = Some(Difference {
            index: record.index(),
            field: "record".into(),
            log: match &record {
                Logged::Record(record) => format!("a verdict on {}", record.evidence.device),
                Logged::Erased(_) => "a record that was erased".into(),
            },
            replay: "nothing: the readings give no such record".into(),
        });
    }
    Ok(Replayed {
        readings: count,
        events: total - inputs.len() as u64,
        rows: lane.counters().rows_in,
        dead: run.dead,
        agreed: run.agreed,
        erased: run.erased,
        unsalted: run.unsalted,
        difference: run.difference,
        with_secret,
        pipelines,
    })
}

/// The log's records, one after the other.
struct Log {
    records: Records,
    waiting: VecDeque<Logged>,
}

impl Log {
    fn fill(&mut self) -> Result<(), HandoverError> {
        if self.waiting.is_empty() {
            self.waiting.extend(self.records.next()?);
        }
        Ok(())
    }

    fn peek(&mut self) -> Result<Option<&Logged>, HandoverError> {
        self.fill()?;
        Ok(self.waiting.front())
    }

    fn next(&mut self) -> Result<Option<Logged>, HandoverError> {
        self.fill()?;
        Ok(self.waiting.pop_front())
    }
}

struct Run {
    log: Log,
    log_id: Hash32,
    secret: Option<Secret>,
    agreed: u64,
    erased: u64,
    unsalted: u64,
    difference: Option<Difference>,
    dead: u64,
}

impl Run {
    fn compare(&mut self, out: Output) -> Result<(), HandoverError> {
        self.dead += out.dead.len() as u64;
        for made in &out.verdicts {
            if self.difference.is_some() {
                break;
            }
            self.difference = match self.log.next()? {
                Some(Logged::Record(logged)) => {
                    let under = match &self.secret {
                        None => Under::NoSecret,
                        Some(secret) if secret.has(&self.log_id, logged.index) => Under::Secret,
                        Some(_) => {
                            self.unsalted += 1;
                            Under::SecretWithout
                        }
                    };
                    difference(&logged, made, under)
                }
                Some(Logged::Erased(stone)) if stone.index == made.index => {
                    self.erased += 1;
                    continue;
                }
                Some(Logged::Erased(stone)) => Some(Difference {
                    index: stone.index,
                    field: "index".into(),
                    log: stone.index.to_string(),
                    replay: made.index.to_string(),
                }),
                None => Some(Difference {
                    index: made.index,
                    field: "record".into(),
                    log: "nothing: the log ends before it".into(),
                    replay: format!("a verdict on {}", made.evidence.device),
                }),
            };
            if self.difference.is_none() {
                self.agreed += 1;
            }
        }
        Ok(())
    }
}

/// Where the schemas of Avro records come from, if they are of Avro; with the runtime that asks for them.
struct Registry(Option<(Schemas, tokio::runtime::Runtime)>);

impl Registry {
    fn of(pipeline: &Pipeline, handover: &Handover) -> Result<Self, ReplayFailure> {
        let registry = schema_registry(pipeline, &handover.dir).map_err(|e| RuntimeError::Start(e.to_string()))?;
        let Some(registry) = registry else { return Ok(Self(None)) };
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .map_err(|e| RuntimeError::Start(format!("cannot start the async runtime: {e}")))?;
        Ok(Self(Some((Schemas::new(registry, runtime.handle().clone()), runtime))))
    }

    /// Gives the lane some of these records, and returns how many.
    fn step(&mut self, lane: &mut Lane, records: &[RawRecord<'_>], out: &mut Output) -> Result<usize, ReplayFailure> {
        loop {
            match lane.step_some(records, out) {
                Ok(n) => return Ok(n),
                Err(LaneError::NeedSchema { id, .. }) => {
                    let Self(Some((schemas, _))) = self else {
                        return Err(LaneError::NeedSchema { id, at: 0 }.into());
                    };
                    let told = schemas.learn(lane, id);
                    told.map_err(|e| ReplayFailure::Schema { id, why: e.to_string() })?;
                }
                Err(e) => return Err(e.into()),
            }
        }
    }
}
