//! Delivers, for every kind of sink: what to do next, [`Delivery`] decides; here it is done.

use std::future::pending;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use avouch_connectors::delivery::{DownKind, Failure};
use avouch_connectors::store::{LaneReader, Refusal, Refusals, StoreError};
use avouch_engine::control::invariants::Violation;
use avouch_engine::control::sink::{Action, Delivery, Ended, Guarantee, Outcome};
use avouch_engine::control::{self, Stop};
use rand::Rng as _;
use tokio::sync::watch;

use super::super::error::RuntimeError;
use super::super::metrics::SinkMetrics;
use super::feed::{Feed, Item};
use super::writer::{Batch, Halt, Position, Writer, blocking};
use super::{Output, Target};

/// How often the metrics of a sink that is down are brought up to date.
const SHOW: Duration = Duration::from_secs(1);

/// How far the runtime has got with stopping.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(in super::super) enum TailStop {
    /// It runs.
    No,
    /// The lanes have ended: deliver what is committed, then end.
    Records,
    /// The sinks have ended too: what they refused is all there will be.
    Refusals,
}

/// One sink of one lane.
pub(in super::super) struct Tail {
    target: Target,
    feed: Feed,
    reader: LaneReader,
    metrics: SinkMetrics,
    /// Where what this sink refuses is kept; `None` for one that has nowhere to put it.
    refusals: Option<Arc<Refusals>>,
    delivery: Delivery,
    /// The origin of the steady clock that the delivery is told.
    began: Instant,
    open: Option<Open>,
    /// Why it failed last: as an error, if it ends by that, and in words.
    failed: (Option<RuntimeError>, String),
}

/// What an open sink has.
struct Open {
    writer: Writer,
    /// What identifies everything before the cursor it was opened at.
    note: Option<String>,
    /// Records read from the store and not delivered yet.
    page: Option<Page>,
    /// What the sink said of the one record that it refuses.
    refused: Option<Refusal>,
}

/// The feed's records from `from` up to `next`, as far as they are this sink's.
struct Page {
    from: u64,
    next: u64,
    items: Vec<Item>,
}

/// How much of the feed the delivery was told of, and by which checkpoint.
#[derive(Clone, Copy)]
struct Seen {
    seq: u64,
    have: u64,
}

impl Tail {
    pub(super) fn new(
        target: Target,
        feed: Feed,
        reader: LaneReader,
        metrics: SinkMetrics,
        refusals: Option<Arc<Refusals>>,
    ) -> Self {
        let guarantee = match target.output {
            Output::Kafka { .. } if target.exactly_once => Guarantee::Transactional,
            Output::Archive(_) => Guarantee::Announced,
            _ => Guarantee::Plain,
        };
        let delivery = Delivery::new(guarantee, feed.have(&reader), 0);
        // A sink that refuses nothing needs no second connection to say so.
        let delivery = if matches!(feed, Feed::Refused(_)) { delivery.lazy() } else { delivery };
        let failed = (None, String::new());
        Self { target, feed, reader, metrics, refusals, delivery, began: Instant::now(), open: None, failed }
    }

    /// Whether it delivers what another sink refuses, and so ends after it.
    pub fn is_last(&self) -> bool {
        matches!(self.feed, Feed::Refused(_))
    }

    fn enough(&self) -> TailStop {
        if self.is_last() { TailStop::Refusals } else { TailStop::Records }
    }

    async fn stopped(&self, stop: &mut watch::Receiver<TailStop>) {
        let enough = self.enough();
        // An error means that the runtime is gone.
        let _ = stop.wait_for(|s| *s >= enough).await;
    }

    fn now_ms(&self) -> i64 {
        millis(self.began.elapsed())
    }

    /// Runs until `stop` says so and everything committed by then is delivered, or for as long as the lane lives. Returns
    /// only errors after which going on would be wrong: another writer, another log's cursor, a damaged store.
    pub async fn run(mut self, mut stop: watch::Receiver<TailStop>) -> Result<(), RuntimeError> {
        loop {
            let seen = self.look(&stop)?;
            let (ticket, action) = (self.delivery.ticket(), self.delivery.action(self.now_ms()));
            let done = match action {
                Action::End(ended) => return self.end(ended),
                Action::Pause { until_ms } => {
                    self.pause(until_ms, &mut stop).await;
                    continue;
                }
                Action::Wait { until_ms } => {
                    self.wait(seen, until_ms, &mut stop).await?;
                    continue;
                }
                action => self.act(action).await,
            };
            let (outcome, failure) = match done {
                Ok(outcome) => (outcome, None),
                Err(halt) => self.fail(halt),
            };
            let now = self.now_ms();
            self.delivery.on(ticket, outcome, now).map_err(|v| self.violation(v))?;
            if let Some(kind) = failure {
                self.say(kind, now);
            }
        }
    }

    fn say(&self, kind: DownKind, now: i64) {
        self.metrics.error(kind);
        let (sink, lane, kind, error) = (&self.target.name, self.target.partition, kind.name(), &self.failed.1);
        match self.delivery.retry_at_ms() {
            Some(at) => {
                let pause = Duration::from_millis(u64::try_from(at - now).unwrap_or(0));
                tracing::warn!(sink, lane, kind, error, ?pause, "delivery failed, trying again");
            }
            None => tracing::warn!(sink, lane, kind, error, "delivery failed; what is left, the next run delivers"),
        }
    }

    /// Tells the delivery what is committed, and whether to stop.
    fn look(&mut self, stop: &watch::Receiver<TailStop>) -> Result<Seen, RuntimeError> {
        if *stop.borrow() >= self.enough() {
            self.delivery.stop(Stop::Flush);
        }
        let seen = Seen { seq: self.reader.committed().seq, have: self.feed.have(&self.reader) };
        if matches!(self.feed, Feed::Refused(_)) && seen.have < self.delivery.durable() {
            self.delivery.rewound(seen.have);
        } else {
            let now = self.now_ms();
            self.delivery.committed(seen.have, now).map_err(|v| self.violation(v))?;
        }
        Ok(seen)
    }

    async fn act(&mut self, action: Action) -> Result<Outcome, Halt> {
        match action {
            Action::Open => self.open().await,
            Action::CheckNote { at } => {
                let now = self.feed.note(&self.reader, at)?;
                let noted = self.open.as_mut().and_then(|o| o.note.take());
                Ok(Outcome::Note { same: noted.is_none_or(|noted| noted == now) })
            }
            Action::Announce { from, upto } => {
                let most = self.opened()?.writer.most();
                let page = self.read(from, upto, most).await?;
                let (until, open) = (page.next, self.opened()?);
                open.page = Some(page);
                open.writer.announce(until).await?;
                Ok(Outcome::Announced { until })
            }
            Action::Write { from, upto, most, whole } => self.write(from, upto, most, whole).await,
            Action::SetAside { from, index } => self.set_aside(from, index).await,
            Action::SaveCursor { next } => self.save(next),
            Action::Refresh { at } => {
                let note = self.feed.note(&self.reader, at)?;
                self.opened()?.writer.refresh(at, &note).await?;
                Ok(Outcome::Acked { next: at })
            }
            Action::Pause { .. } | Action::Wait { .. } | Action::End(_) => Err(self.not_open()),
        }
    }

    async fn open(&mut self) -> Result<Outcome, Halt> {
        self.open = None;
        // As far as is known here; the other side may take its time to say.
        let known = self.reader.cursor(&self.target.name)?.get();
        self.metrics.position.set(i64::try_from(known).unwrap_or(i64::MAX));
        let opening = Writer::open(&self.target, &self.reader);
        let (writer, Position { cursor, note, saved, announced }) = self.showing(opening).await?;
        let at = cursor.unwrap_or(saved);
        if let Some(r) = &self.refusals {
            r.rewind(at)?;
        }
        let noted = note.is_some();
        self.opened_as(Open { writer, note, page: None, refused: None });
        self.show(at);
        Ok(Outcome::Opened { cursor, noted, saved, announced })
    }

    /// Reads what comes from `at` on.
    async fn read(&self, at: u64, upto: u64, (most, bytes): (usize, usize)) -> Result<Page, Halt> {
        let (feed, reader) = (self.feed.clone(), self.reader.clone());
        let (items, next) = blocking(move || Ok(feed.read(&reader, at, upto, most, bytes)?)).await?;
        if next == at {
            let why = format!("the store has records up to {upto} but gives none from {at} on");
            return Err(self.inconsistent(why).into());
        }
        Ok(Page { from: at, next, items })
    }

    async fn write(&mut self, from: u64, upto: u64, most: u64, whole: bool) -> Result<Outcome, Halt> {
        let open = self.opened()?;
        let fits = |p: &Page| p.from == from && p.next <= upto && (!whole || p.next == upto);
        let (page, limits) = (open.page.take().filter(fits), open.writer.most());
        let page = match page {
            Some(page) => page,
            None => self.read(from, upto, if whole { (usize::MAX, usize::MAX) } else { limits }).await?,
        };
        let offered = page.items.len().min(usize::try_from(most).unwrap_or(usize::MAX));
        let to = page.items.get(offered).map_or(page.next, |i| i.number);
        let first = page.items.first().map_or(from, |i| i.number);
        let delivered = self.deliver(&page.items[..offered], from, to).await;
        let Page { next, mut items, .. } = page;
        match delivered {
            Ok(()) => {
                self.metrics.records.inc_by(offered as u64);
                items.drain(..offered);
                self.opened()?.page = (to < next).then_some(Page { from: to, next, items });
                Ok(Outcome::Acked { next: to })
            }
            Err(Halt::Failed(Failure::Refused { status, why, among })) if self.refusals.is_some() && offered > 0 => {
                let open = self.opened()?;
                open.page = Some(Page { from, next, items });
                open.refused = Some(Refusal { index: first, status, why });
                let among = among.map(|a| (a.start as u64, a.end as u64));
                Ok(Outcome::Refused { first, offered: offered as u64, among, next: to })
            }
            Err(e) => Err(e),
        }
    }

    async fn deliver(&mut self, items: &[Item], from: u64, to: u64) -> Result<(), Halt> {
        let log = self.reader.committed().origin.clone();
        let note = self.feed.note(&self.reader, to)?;
        let batch = Batch { log: &log, items, from, to, note: &note };
        let Some(mut open) = self.open.take() else { return Err(self.not_open()) };
        let delivered = self.showing(open.writer.deliver(&self.target, batch)).await;
        self.open = Some(open);
        delivered
    }

    /// Keeps what the sink refuses, then passes over it.
    async fn set_aside(&mut self, from: u64, index: u64) -> Result<Outcome, Halt> {
        let (refusals, open) = (self.refusals.clone(), self.opened()?);
        let (refusal, page) = (open.refused.take(), open.page.take());
        let (Some(refusal), Some(refusals), Some(Page { next, mut items, .. })) = (refusal, refusals, page) else {
            return Err(self.not_open());
        };
        tracing::warn!(
            sink = self.target.name,
            lane = self.target.partition,
            index,
            status = refusal.status,
            why = refusal.why,
            "the sink refuses a verdict: it goes to the dead letters"
        );
        blocking(move || Ok(refusals.append(&refusal)?)).await?;
        items.retain(|i| i.number > index);
        let to = items.first().map_or(next, |i| i.number);
        self.deliver(&[], from, to).await?;
        self.opened()?.page = (to < next).then_some(Page { from: to, next, items });
        Ok(Outcome::Acked { next: to })
    }

    fn save(&mut self, next: u64) -> Result<Outcome, Halt> {
        let writer = &mut self.opened()?.writer;
        writer.save(next)?;
        let (refresh, gather) = (writer.refresh_every(), writer.gather());
        self.delivery.refresh_every(refresh);
        self.delivery.gather(gather);
        if let Some(r) = &self.refusals {
            r.settle(next);
        }
        self.show(next);
        Ok(Outcome::CursorSaved)
    }

    fn opened_as(&mut self, open: Open) {
        self.delivery.refresh_every(open.writer.refresh_every());
        self.delivery.gather(open.writer.gather());
        self.open = Some(open);
    }

    fn opened(&mut self) -> Result<&mut Open, Halt> {
        match &mut self.open {
            Some(open) => Ok(open),
            None => Err(Halt::Stop(not_open(&self.target))),
        }
    }

    fn not_open(&self) -> Halt {
        Halt::Stop(not_open(&self.target))
    }

    /// What a failure means for the delivery. Of one that may pass, also which kind it is.
    fn fail(&mut self, halt: Halt) -> (Outcome, Option<DownKind>) {
        let (kind, why, asked) = match halt {
            Halt::Stop(e) => {
                let failure = if e.is_fence() { control::Failure::Fenced } else { control::Failure::Fatal };
                self.failed.0 = Some(e);
                return (Outcome::Failed(failure), None);
            }
            Halt::Failed(Failure::Fatal(why)) => {
                self.failed.0 = Some(self.inconsistent(why));
                return (Outcome::Failed(control::Failure::Fatal), None);
            }
            Halt::Failed(Failure::Down { kind, why, retry_after }) => (kind, why, retry_after),
            // Only what has nowhere to put a refusal comes here.
            Halt::Failed(Failure::Refused { status, why, .. }) => {
                (DownKind::Failed, format!("refused with {status}: {why}"), None)
            }
        };
        self.failed.1 = why;
        let shorter_permille = rand::thread_rng().gen_range(0..=500);
        (Outcome::Down { asked_ms: asked.map(millis), shorter_permille }, Some(kind))
    }

    fn end(mut self, ended: Ended) -> Result<(), RuntimeError> {
        match ended {
            // The cursor stays, the next run delivers; but whoever asked for everything must know.
            Ended::Stopped { short: true } if self.target.must_finish => {
                let why = std::mem::take(&mut self.failed.1);
                Err(self.inconsistent(why))
            }
            // A log shorter than what was delivered is another log, unless it regrows after a restart.
            Ended::NotRegrown { at } if self.target.must_finish => Err(self.other_log(at)),
            Ended::Stopped { .. } | Ended::NotRegrown { .. } => Ok(()),
            Ended::OtherLog { at } => Err(self.other_log(at)),
            Ended::Forgotten { delivered } => match &self.open {
                Some(open) => Err(open.writer.forgotten(&self.target, delivered)),
                None => Err(not_open(&self.target)),
            },
            Ended::Fenced | Ended::Failed => Err(self.failed.0.unwrap_or_else(|| not_open(&self.target))),
        }
    }

    fn inconsistent(&self, why: String) -> RuntimeError {
        inconsistent(&self.target, &why)
    }

    fn violation(&self, source: Violation) -> RuntimeError {
        RuntimeError::Violation { lane: self.target.partition, source }
    }

    fn other_log(&self, at: u64) -> RuntimeError {
        let why = format!(
            "what was delivered, {at} records, is of another log; nothing is delivered. Give the pipeline or the sink another \
             name or place, or use the state directory that log is in"
        );
        self.inconsistent(why)
    }

    fn until(&self, until_ms: i64) -> Duration {
        Duration::from_millis(u64::try_from(until_ms.saturating_sub(self.now_ms())).unwrap_or(0))
    }

    /// Waits until a sink that is down is to be tried again, or for the end.
    async fn pause(&self, until_ms: i64, stop: &mut watch::Receiver<TailStop>) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.metrics.next_retry.set((now + self.until(until_ms)).as_secs_f64());
        loop {
            let left = self.until(until_ms);
            if left.is_zero() {
                break;
            }
            self.show_lag();
            tokio::select! {
                () = tokio::time::sleep(left.min(SHOW)) => {}
                () = self.stopped(stop) => break,
            }
        }
        self.metrics.next_retry.set(0.0);
    }

    /// Waits until there may be more than was `seen`, for the end, or until this time.
    async fn wait(
        &self,
        seen: Seen,
        until_ms: Option<i64>,
        stop: &mut watch::Receiver<TailStop>,
    ) -> Result<(), RuntimeError> {
        self.show_lag();
        let rings = async {
            match until_ms {
                Some(until_ms) => tokio::time::sleep(self.until(until_ms)).await,
                None => pending().await,
            }
        };
        let more = async {
            if let Feed::Refused(refusals) = &self.feed {
                let mut told = refusals.watch();
                if *told.borrow_and_update() == seen.have && told.changed().await.is_err() {
                    pending::<()>().await;
                }
                return Ok::<(), StoreError>(());
            }
            if self.reader.newer_than(seen.seq).await?.is_none() && self.reader.committed().seq == seen.seq {
                // The lane has ended: what is committed now is all there will be.
                pending::<()>().await;
            }
            Ok(())
        };
        tokio::select! {
            more = more => more?,
            () = self.stopped(stop) => {}
            () = rings => {}
        }
        Ok(())
    }

    fn show_lag(&self) {
        let have = i64::try_from(self.feed.have(&self.reader)).unwrap_or(i64::MAX);
        self.metrics.lag.set((have - self.metrics.position.get()).max(0));
    }

    /// Does what the other side may be slow at, and shows the lag grow meanwhile.
    async fn showing<T>(&self, work: impl Future<Output = T>) -> T {
        let mut work = pin!(work);
        loop {
            tokio::select! {
                done = &mut work => return done,
                () = tokio::time::sleep(SHOW) => self.show_lag(),
            }
        }
    }

    fn show(&self, at: u64) {
        self.metrics.position.set(i64::try_from(at).unwrap_or(i64::MAX));
        self.show_lag();
        if let Some(r) = &self.refusals {
            self.metrics.refused(r.settled());
        }
    }
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

fn inconsistent(target: &Target, why: &str) -> RuntimeError {
    RuntimeError::Inconsistent { lane: target.partition, why: format!("sink \"{}\": {why}", target.name) }
}

/// Invariant: an action on an open sink comes only after it was opened, and one on a refused record after its refusal.
fn not_open(target: &Target) -> RuntimeError {
    inconsistent(target, "it was told to go on without having been opened; please report this")
}
