//! The loop that delivers, the same for every kind of sink.

use std::ops::Range;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use avouch_connectors::delivery::{DownKind, Failure};
use avouch_connectors::store::{LaneReader, Refusal, Refusals};
use tokio::sync::watch;

use super::super::error::RuntimeError;
use super::super::metrics::SinkMetrics;
use super::Target;
use super::feed::{Feed, Item};
use super::retry::Backoff;
use super::writer::{Batch, Halt, Position, Writer, blocking};

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
    backoff: Backoff,
}

impl Tail {
    pub(super) fn new(
        target: Target,
        feed: Feed,
        reader: LaneReader,
        metrics: SinkMetrics,
        refusals: Option<Arc<Refusals>>,
    ) -> Self {
        Self { target, feed, reader, metrics, refusals, backoff: Backoff::default() }
    }

    /// Whether it delivers what another sink refuses, and so ends after it.
    pub fn is_last(&self) -> bool {
        matches!(self.feed, Feed::Refused(_))
    }

    fn ending(&self, stop: &watch::Receiver<TailStop>) -> bool {
        *stop.borrow() >= if self.is_last() { TailStop::Refusals } else { TailStop::Records }
    }

    async fn stopped(&self, stop: &mut watch::Receiver<TailStop>) {
        let enough = if self.is_last() { TailStop::Refusals } else { TailStop::Records };
        // An error means that the runtime is gone.
        let _ = stop.wait_for(|s| *s >= enough).await;
    }

    /// Runs until `stop` says so and everything committed by then is delivered, or for as long as the lane lives. Returns
    /// only errors after which going on would be wrong: another writer, another log's cursor, a damaged store.
    pub async fn run(mut self, mut stop: watch::Receiver<TailStop>) -> Result<(), RuntimeError> {
        loop {
            let failure = match self.deliver(&mut stop).await {
                Ok(()) => return Ok(()),
                Err(Halt::Stop(e)) => return Err(e),
                Err(Halt::Failed(failure)) => failure,
            };
            let (kind, why, asked) = match failure {
                Failure::Fatal(why) => return Err(self.inconsistent(why)),
                Failure::Down { kind, why, retry_after } => (kind, why, retry_after),
                // Only what has nowhere to put a refusal comes here.
                Failure::Refused { status, why, .. } => {
                    (DownKind::Failed, format!("refused with {status}: {why}"), None)
                }
            };
            self.metrics.error(kind);
            let pause = self.backoff.pause(asked);
            tracing::warn!(
                sink = self.target.name,
                lane = self.target.partition,
                kind = kind.name(),
                error = why,
                ?pause,
                "delivery failed, trying again"
            );
            if self.ending(&stop) {
                // The cursor stays, the next run delivers; but whoever asked for everything must know.
                return if self.target.must_finish { Err(self.inconsistent(why)) } else { Ok(()) };
            }
            self.wait(pause, &mut stop).await;
        }
    }

    fn inconsistent(&self, why: String) -> RuntimeError {
        RuntimeError::Inconsistent { lane: self.target.partition, why: format!("sink \"{}\": {why}", self.target.name) }
    }

    async fn wait(&self, pause: Duration, stop: &mut watch::Receiver<TailStop>) {
        let until = Instant::now() + pause;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.metrics.next_retry.set((now + pause).as_secs_f64());
        while let Some(left) = until.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) {
            self.show_lag();
            tokio::select! {
                () = tokio::time::sleep(left.min(SHOW)) => {}
                () = self.stopped(stop) => break,
            }
        }
        self.metrics.next_retry.set(0.0);
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

    async fn deliver(&mut self, stop: &mut watch::Receiver<TailStop>) -> Result<(), Halt> {
        // A sink that refuses nothing needs no second connection to say so.
        while self.is_last() && self.feed.have(&self.reader) == 0 {
            if self.ending(stop) {
                return Ok(());
            }
            self.more(0, None, stop).await?;
        }
        // As far as is known here; the other side may take its time to say.
        let known = self.reader.cursor(&self.target.name)?.get();
        self.metrics.position.set(i64::try_from(known).unwrap_or(i64::MAX));
        let opening = Writer::open(&self.target, &self.reader);
        let (mut writer, Position { mut at, note: mut to_check }) = self.showing(opening).await?;
        if let Some(r) = &self.refusals {
            r.rewind(at)?;
        }
        let mut waiting: Option<Instant> = None;
        loop {
            self.show(at);
            let ending = self.ending(stop);
            let have = self.feed.have(&self.reader);
            let seq = self.reader.committed().seq;
            if have >= at
                && let Some(noted) = to_check.take()
                && noted != self.feed.note(&self.reader, at)?
            {
                return Err(self.other_log(at).into());
            }
            // What was announced ends where it was announced; after a fall-back the log may have to regrow that far.
            let whole = writer.until();
            if at < have && whole.is_none_or(|until| until <= have) {
                let since = *waiting.get_or_insert_with(Instant::now);
                let longer = writer.wait_for_more(have - at, since.elapsed()).filter(|_| !ending);
                if let Some(longer) = longer {
                    self.wait_for(longer, seq, stop).await?;
                    continue;
                }
                at = self.offer(&mut writer, at, whole.unwrap_or(have), whole.is_some()).await?;
                waiting = None;
                continue;
            }
            if ending {
                // A log shorter than what was delivered is another log, unless it regrows after a restart.
                let short = to_check.is_some() || whole.is_some();
                return if short && self.target.must_finish { Err(self.other_log(at).into()) } else { Ok(()) };
            }
            let refresh = writer.refresh_every().filter(|_| to_check.is_none());
            if self.more(seq, refresh, stop).await? {
                let note = self.feed.note(&self.reader, at)?;
                writer.refresh(at, &note).await?;
            }
        }
    }

    /// Waits until there may be more than at checkpoint `seq`, or the end. Returns whether `refresh` has passed instead.
    async fn more(
        &self,
        seq: u64,
        refresh: Option<Duration>,
        stop: &mut watch::Receiver<TailStop>,
    ) -> Result<bool, RuntimeError> {
        let pause = async {
            match refresh {
                Some(every) => tokio::time::sleep(every).await,
                None => std::future::pending().await,
            }
        };
        if let Feed::Refused(refusals) = &self.feed {
            let mut told = refusals.watch();
            let have = *told.borrow_and_update();
            if have > u64::try_from(self.metrics.position.get()).unwrap_or(0) {
                return Ok(false);
            }
            return Ok(tokio::select! {
                _ = told.changed() => false,
                () = self.stopped(stop) => false,
                () = pause => true,
            });
        }
        let gone = tokio::select! {
            newer = self.reader.newer_than(seq) => newer?.is_none(),
            () = self.stopped(stop) => return Ok(false),
            () = pause => return Ok(true),
        };
        if gone && self.reader.committed().seq == seq {
            // The lane has ended: what is committed now is all there will be.
            self.stopped(stop).await;
        }
        Ok(false)
    }

    /// Waits for so long, for a newer checkpoint, or for the end.
    async fn wait_for(
        &self,
        longest: Duration,
        seq: u64,
        stop: &mut watch::Receiver<TailStop>,
    ) -> Result<(), RuntimeError> {
        tokio::select! {
            () = tokio::time::sleep(longest) => {}
            more = self.more(seq, None, stop) => { more?; }
        }
        Ok(())
    }

    /// Reads the next records and offers them until they are taken or refused. Returns the cursor after them.
    async fn offer(&mut self, writer: &mut Writer, at: u64, to: u64, whole: bool) -> Result<u64, Halt> {
        let (feed, reader) = (self.feed.clone(), self.reader.clone());
        let (most, bytes) = if whole { (usize::MAX, usize::MAX) } else { writer.most() };
        let (items, next) = blocking(move || Ok(feed.read(&reader, at, to, most, bytes)?)).await?;
        if next == at {
            let why = format!("the store has records up to {to} but gives none from {at} on");
            return Err(self.inconsistent(why).into());
        }
        writer.announce(next).await?;
        let log = self.reader.committed().origin.clone();
        let (mut at, mut done, mut size) = (at, 0, items.len());
        loop {
            let part = &items[done..(done + size.max(1)).min(items.len())];
            let to = items.get(done + part.len()).map_or(next, |i| i.number);
            let note = self.feed.note(&self.reader, to)?;
            let batch = Batch { log: &log, items: part, from: at, to, note: &note };
            match self.showing(writer.deliver(&self.target, batch)).await {
                Ok(()) => {
                    self.metrics.records.inc_by(part.len() as u64);
                    done += part.len();
                    size = size.saturating_mul(2);
                }
                // One of these is refused: find it.
                Err(Halt::Failed(Failure::Refused { among, .. })) if self.refusals.is_some() && part.len() > 1 => {
                    size = narrower(part.len(), among);
                    continue;
                }
                Err(Halt::Failed(Failure::Refused { status, why, .. }))
                    if part.len() == 1 && self.refusals.is_some() =>
                {
                    self.refuse(&part[0], status, why).await?;
                    writer.deliver(&self.target, Batch { items: &[], ..batch }).await?;
                    done += 1;
                }
                Err(e) => return Err(e),
            }
            at = to;
            self.backoff.reset();
            if let Some(r) = &self.refusals {
                r.settle(at);
            }
            self.show(at);
            if done >= items.len() {
                return Ok(at);
            }
        }
    }

    /// Keeps what the sink refuses; from here on it may be passed over.
    async fn refuse(&self, item: &Item, status: String, why: String) -> Result<(), Halt> {
        tracing::warn!(
            sink = self.target.name,
            lane = self.target.partition,
            index = item.number,
            status,
            why,
            "the sink refuses a verdict: it goes to the dead letters"
        );
        let Some(refusals) = self.refusals.clone() else { return Ok(()) };
        let refusal = Refusal { index: item.number, status, why };
        blocking(move || Ok(refusals.append(&refusal)?)).await
    }

    fn other_log(&self, at: u64) -> RuntimeError {
        let why = format!(
            "what was delivered, {at} records, is of another log; nothing is delivered. Give the pipeline or the sink another \
             name or place, or use the state directory that log is in"
        );
        self.inconsistent(why)
    }
}

/// How many to offer next when at least one of `offered` (two or more) is refused: those before the first that may be, which
/// are then out of the way; or else half of those that may be.
fn narrower(offered: usize, among: Option<Range<usize>>) -> usize {
    let among = among.unwrap_or(0..offered);
    let next = if among.start > 0 { among.start } else { among.len() / 2 };
    next.clamp(1, offered - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Offers as [`Tail::offer`] does, to a sink that takes all of a batch or says which may be the refused ones.
    fn refused(
        count: usize,
        bad: &[usize],
        names: impl Fn(Range<usize>) -> Option<Range<usize>>,
    ) -> (Vec<usize>, usize) {
        let (mut done, mut size, mut refused, mut offers) = (0, count, Vec::new(), 0);
        while done < count {
            let part = done..(done + size.max(1)).min(count);
            offers += 1;
            if !bad.iter().any(|b| part.contains(b)) {
                done = part.end;
                size = size.saturating_mul(2);
            } else if part.len() > 1 {
                size = narrower(part.len(), names(part));
            } else {
                refused.push(done);
                done += 1;
            }
        }
        (refused, offers)
    }

    #[test]
    fn what_is_refused_is_found_whatever_the_sink_says_of_it() {
        let bad = [3, 4, 57, 999];
        let named = |part: Range<usize>| {
            let of: Vec<usize> = bad.iter().filter(|b| part.contains(b)).map(|b| b - part.start).collect();
            Some(of[0]..of[of.len() - 1] + 1)
        };
        let (unnamed, offers) = refused(1_000, &bad, |_| None);
        assert_eq!(unnamed, bad);
        let (found, fewer) = refused(1_000, &bad, named);
        assert_eq!(found, bad);
        assert!(fewer < offers && offers < 64, "{fewer} and {offers} offers");
        // Even what it says wrongly.
        for wrong in [0..0, 5..6, 0..5_000, 4_000..5_000] {
            assert_eq!(refused(1_000, &bad, |_| Some(wrong.clone())).0, bad);
        }
        let all: Vec<usize> = (0..20).collect();
        assert_eq!(refused(20, &all, |_| None).0, all);
    }
}
