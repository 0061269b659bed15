//! Anchors: tails the committed logs and brings their checkpoints onto the chain.
//!
//! Of all processes that share a state directory one anchors, for all lanes in it: its own, and beside the others those that
//! they run. Which one, the lease says; the others wait for it.
//!
//! What to do next, [`Anchoring`] decides; here it is done.
//!
//! The chain may be slow or away: lanes do not wait for it, verdicts do, and how long is a metric. What is not retryable
//! (the wrong chain, no contract there, a head that is not this log's) stops the process: going on would promise anchors
//! that cannot come.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use avouch_connectors::ethereum::{
    Address, AnchorWriter, ChainReader, Checkpoint, Domain, EthereumError, GasPrice, KmsOptions, OperatorKey,
    RpcOptions, WriterConfig, WriterOptions, register_log_of,
};
use avouch_connectors::store::LaneReader;
use avouch_engine::bundle::SignedCheckpoint;
pub use avouch_engine::control::Stop;
use avouch_engine::control::anchor::{Action, AnchorPolicy, Anchoring, Ended, Outcome, TICK_MS};
use avouch_engine::control::invariants::{self, Violation};
use avouch_engine::control::pace::{self, Held, Promise};
use avouch_engine::control::{Failure, Head};
use avouch_engine::verdict::{Hash32, LogOrigin};
use tokio::sync::watch;

use super::anchor_lease::AnchorLease;
use super::error::RuntimeError;
use super::metrics::{AnchorMetrics, Metrics};
use super::readers::OwnReaders;
use super::{blocking, lane_dir, signed};
use crate::lang::{Anchor, Gas, Signer};

/// How often waiting lanes are looked at.
const TICK: Duration = Duration::from_millis(TICK_MS as u64);
/// How often lanes of other processes, and lanes that are new, are looked for.
const LOOK_BESIDE: Duration = Duration::from_secs(1);

/// The key that signs and pays, from where the pipeline says. A service that has it is asked for no longer than `patience`; the
/// usual time if that is `None`.
pub async fn operator_key(anchor: &Anchor, patience: Option<Duration>) -> Result<OperatorKey, EthereumError> {
    match &anchor.signer {
        Signer::Keystore { file, password } => OperatorKey::from_keystore(&file.value, password.value.expose()),
        Signer::Key(key) => {
            OperatorKey::from_hex(key.value.expose().trim()).ok_or_else(|| EthereumError::KeyVariable {
                variable: "anchor.signer.key".into(),
                reason: "it is not a private key of 64 hexadecimal digits".into(),
            })
        }
        Signer::Kms(kms) => {
            let mut options = KmsOptions {
                region: kms.region.clone(),
                endpoint: kms.endpoint.clone(),
                ..KmsOptions::new(kms.key.value.as_str())
            };
            if let Some(patience) = patience {
                options.budget = patience;
                options.timeout = options.timeout.min(patience);
            }
            OperatorKey::from_kms(options).await
        }
    }
}

/// Whose the logs are: of the account that registered them, which is the signer's unless it was handed over.
pub fn log_owner(anchor: &Anchor, key: &OperatorKey) -> Address {
    anchor.owner.as_ref().map_or(key.address(), |owner| Address::from(owner.value))
}

/// The journal's file in the state directory.
pub(crate) const JOURNAL: &str = "anchor-journal";

/// Opens the writer. The journal of another key, from before a handover, is left as it is, and this key has one of its own beside it.
pub(crate) async fn open_writer(config: WriterConfig) -> Result<AnchorWriter, EthereumError> {
    let payer = config.payer.address();
    match AnchorWriter::open(config.clone()).await {
        Err(EthereumError::JournalForeign { path, .. }) => {
            let name = format!("{JOURNAL}-{payer:#x}");
            AnchorWriter::open(WriterConfig { journal: path.with_file_name(name), ..config }).await
        }
        opened => opened,
    }
}

/// Anchors the lanes of a state directory.
pub struct AnchorTail {
    anchor: Anchor,
    state: PathBuf,
    own: OwnReaders,
    metrics: Metrics,
    lanes: Vec<Lane>,
    machine: Anchoring,
    /// The origin of the steady clock that the machine is told.
    began: Instant,
    /// When new lanes were looked for.
    discovered: Option<Instant>,
}

/// A connection to the chain, with the right to write.
struct Session {
    key: OperatorKey,
    owner: Address,
    domain: Domain,
    writer: AnchorWriter,
}

struct Lane {
    partition: i32,
    dir: PathBuf,
    reader: LaneReader,
    /// Whether this process runs the lane.
    own: bool,
    looked: Instant,
    metrics: AnchorMetrics,
    /// Which limit its anchors were last said to wait for.
    held: Option<Held>,
    name: Hash32,
    log_id: Hash32,
}

impl AnchorTail {
    /// For the lanes of a pipeline whose state is in `state`; those this process runs are in `own`.
    pub fn new(anchor: &Anchor, state: &Path, own: OwnReaders, metrics: &Metrics) -> Self {
        metrics.anchor_delay_max(anchor.max_merge_delay_ms as f64 / 1000.0);
        if let Some(wei) = anchor.gas.per_day {
            metrics.anchor_budget(wei);
        }
        let policy = AnchorPolicy { verdicts: anchor.every_verdicts, interval_ms: anchor.every_ms };
        let promise = Promise { delay_ms: anchor.max_merge_delay_ms, adapt: anchor.gas.adapt };
        Self {
            anchor: anchor.clone(),
            state: state.to_path_buf(),
            own,
            metrics: metrics.clone(),
            lanes: Vec::new(),
            machine: Anchoring::new(policy).paced(promise),
            began: Instant::now(),
            discovered: None,
        }
    }

    /// Waits for the lease; `None` when told to stop first.
    async fn lease(&self, stop: &mut watch::Receiver<Stop>) -> Result<Option<AnchorLease>, RuntimeError> {
        let mut said = String::new();
        loop {
            match AnchorLease::try_take(&self.state)? {
                Ok(lease) => {
                    tracing::info!("this process anchors");
                    self.metrics.anchor_lease.set(1);
                    return Ok(Some(lease));
                }
                Err(holder) if holder != said => {
                    tracing::info!(holder, "another process anchors; this one takes over when that one ends");
                    said = holder;
                }
                Err(_) => {}
            }
            tokio::select! {
                () = tokio::time::sleep(LOOK_BESIDE) => {}
                _ = stop.wait_for(|s| *s == Stop::Now) => return Ok(None),
            }
        }
    }

    /// Adds lanes that have come into being.
    fn discover(&mut self) -> Result<(), RuntimeError> {
        let listed =
            std::fs::read_dir(&self.state).map_err(|source| RuntimeError::File { path: self.state.clone(), source })?;
        let mut partitions: Vec<i32> = listed.flatten().filter_map(|e| e.file_name().to_str()?.parse().ok()).collect();
        partitions.extend(self.own.partitions());
        partitions.sort_unstable();
        partitions.dedup();
        partitions.retain(|p| self.lanes.iter().all(|l| l.partition != *p));
        for partition in partitions {
            let dir = lane_dir(&self.state, partition);
            let own = self.own.get(partition);
            let (reader, own) = match own {
                Some(reader) => (reader, true),
                None => match LaneReader::open_read_only(&dir) {
                    Ok(reader) => (reader, false),
                    // Its first checkpoint is not written yet, or it is being recovered: the next look finds it.
                    Err(error) => {
                        tracing::debug!(lane = partition, %error, "not to be anchored yet");
                        continue;
                    }
                },
            };
            self.lanes.push(Lane {
                partition,
                dir,
                name: LogOrigin::from_text(reader.committed().origin.clone()).log_id(),
                log_id: [0; 32],
                metrics: self.metrics.anchor(partition),
                held: None,
                reader,
                own,
                looked: Instant::now(),
            });
        }
        self.discovered = Some(Instant::now());
        Ok(())
    }

    fn now_ms(&self) -> i64 {
        i64::try_from(self.began.elapsed().as_millis()).unwrap_or(i64::MAX)
    }

    /// Runs until stopped. Errors that may pass are tried again with growing pauses.
    pub async fn run(mut self, mut stop: watch::Receiver<Stop>) -> Result<(), RuntimeError> {
        let Some(_lease) = self.lease(&mut stop).await? else { return Ok(()) };
        let mut session = None;
        let mut failed = None;
        loop {
            self.follow(*stop.borrow())?;
            let (ticket, action) = (self.machine.ticket(), self.machine.action(self.now_ms()));
            let done = tokio::select! {
                done = self.act(action, &mut session) => done,
                _ = stop.wait_for(|s| *s == Stop::Now) => return Ok(()),
            };
            let outcome = match (done, action) {
                (_, Action::End(Ended::Stopped)) | (Ok(None), Action::End(_)) => return failed.map_or(Ok(()), Err),
                (Ok(None), _) => continue,
                (Ok(Some(outcome)), _) => outcome,
                // Another process may be recovering the lane at this moment: read it anew.
                (Err(RuntimeError::Store(error)), Action::Anchor { lane, .. }) if self.reopen_beside(lane) => {
                    tracing::warn!(lane, %error, "a lane beside could not be read");
                    Outcome::Unreadable { lane }
                }
                (Err(e), _) => {
                    let passes = may_pass(&e);
                    failed = Some(e);
                    Outcome::Failed(if passes { Failure::Unknown } else { Failure::Fatal })
                }
            };
            let now = self.now_ms();
            self.machine.on(ticket, outcome, now).map_err(|v| RuntimeError::Start(v.to_string()))?;
            if let (Some(at), Some(error)) = (self.machine.retry_at_ms(), failed.take_if(|e| may_pass(e))) {
                for lane in &self.lanes {
                    lane.metrics.errors.inc();
                }
                let pause = Duration::from_millis(u64::try_from(at - now).unwrap_or(0));
                tracing::warn!(%error, ?pause, "anchoring failed, trying again; verdicts wait, lanes do not");
            }
        }
    }

    /// Tells the machine what is durable of every lane, and whether to stop.
    fn follow(&mut self, stop: Stop) -> Result<(), RuntimeError> {
        if stop == Stop::Flush || self.discovered.is_none_or(|at| at.elapsed() >= LOOK_BESIDE) {
            self.discover()?;
        }
        self.machine.stop(stop);
        let now = self.now_ms();
        for lane in &mut self.lanes {
            lane.look(&self.own);
            let committed = lane.reader.committed();
            let durable = Head { size: committed.log_size, root: committed.root };
            // Less than was known: its store was opened anew, at an earlier checkpoint.
            if self.machine.durable(lane.partition).is_some_and(|known| durable.size < known.size) {
                self.machine.fell_back(lane.partition, durable);
            } else {
                let told = self.machine.committed(lane.partition, durable, now);
                told.map_err(|v| violation(lane.partition, v))?;
            }
            lane.count(&self.machine, now);
        }
        Ok(())
    }

    async fn act(&mut self, action: Action, session: &mut Option<Session>) -> Result<Option<Outcome>, RuntimeError> {
        match (action, session) {
            (Action::Connect, session) => {
                *session = None;
                *session = Some(self.connect().await?);
                Ok(Some(Outcome::Done))
            }
            (Action::Look, Some(session)) => {
                self.look(session).await?;
                Ok(Some(Outcome::Done))
            }
            (Action::Anchor { lane, from, to }, Some(session)) => {
                let Some(i) = self.lanes.iter().position(|l| l.partition == lane) else { return Ok(None) };
                match self.lanes[i].anchor(session, from, to).await {
                    Ok(head) => Ok(Some(Outcome::Anchored { lane, head })),
                    // The price rose since it was last looked at.
                    Err(RuntimeError::Chain(
                        error @ (EthereumError::FeeLimit { .. } | EthereumError::BudgetSpent { .. }),
                    )) => {
                        tracing::warn!(lane, %error, "not anchored; verdicts wait, lanes do not");
                        Ok(Some(Outcome::Deferred { lane }))
                    }
                    Err(error) => Err(error),
                }
            }
            (Action::WaitUntil(until_ms), _) => {
                let left = u64::try_from(until_ms.saturating_sub(self.now_ms())).unwrap_or(0);
                tokio::time::sleep(TICK.min(Duration::from_millis(left))).await;
                Ok(None)
            }
            (Action::End(_), _) => Ok(None),
            (Action::Look | Action::Anchor { .. }, None) => {
                // Invariant: the machine looks and anchors only once it is connected.
                Err(RuntimeError::Start("anchoring goes on without a connection; please report this".into()))
            }
        }
    }

    async fn connect(&mut self) -> Result<Session, RuntimeError> {
        let key = operator_key(&self.anchor, None).await?;
        let domain = Domain { chain_id: self.anchor.chain_id, contract: Address::from(self.anchor.contract.value) };
        let owner = log_owner(&self.anchor, &key);
        let rpc = &self.anchor.rpc;
        let endpoint = rpc.endpoint(RpcOptions::default())?;
        let chain = ChainReader::over(endpoint, Some(domain.chain_id), domain.contract).await?;
        // Before the writer opens: a registration uses the same key's nonces.
        for lane in &mut self.lanes {
            let registered = register_log_of(&chain, &key, owner, &lane.name).await?;
            if registered.transaction.is_some() {
                tracing::info!(lane = %lane.dir.display(), gas = registered.gas_used, "log registered");
                if let Some(before) = signed::all(&lane.dir)?.last().filter(|c| c.owner != owner.into_array()) {
                    tracing::warn!(lane = lane.partition, owner = %Address::from(before.owner), size = before.new_size,
                        "this lane was anchored in another account's log, which ends here; `avouch rotate` would have gone on with it");
                }
            }
            lane.log_id = registered.log_id;
        }
        let config = WriterConfig {
            urls: rpc.endpoints.iter().map(|url| url.as_str().to_owned()).collect(),
            quorum: rpc.quorum,
            domain,
            signer: key.clone(),
            payer: key.clone(),
            journal: self.state.join(JOURNAL),
            options: options(&self.anchor.gas),
        };
        let mut writer = open_writer(config).await?;
        writer.recover().await?;
        Ok(Session { key, owner, domain, writer })
    }

    /// Reads the heads of all lanes' logs.
    async fn look(&mut self, session: &mut Session) -> Result<(), RuntimeError> {
        if self.anchor.gas != Gas::default() {
            let price = session.writer.price().await?;
            self.metrics.anchor_price(price.fee, price.spent);
            let now = self.now_ms();
            self.machine.priced(afforded(&self.anchor.gas, &price), now);
        }
        for lane in &mut self.lanes {
            let heads = session.writer.head(&lane.log_id).await?;
            lane.metrics.finalized.set(heads.finalized.size as i64);
            session.writer.finalized_size(&lane.log_id).await?;
            lane.metrics.size.set(heads.latest.size as i64);
            let head = Head { size: heads.latest.size, root: heads.latest.root };
            let now = i64::try_from(self.began.elapsed().as_millis()).unwrap_or(i64::MAX);
            self.machine.seen(lane.partition, head, now);
        }
        Ok(())
    }

    /// Reads a lane anew that another process runs. False if this one runs it.
    fn reopen_beside(&mut self, partition: i32) -> bool {
        let lane = self.lanes.iter_mut().find(|l| l.partition == partition && !l.own);
        lane.map(Lane::reopen).is_some()
    }
}

fn options(gas: &Gas) -> WriterOptions {
    let default = WriterOptions::default();
    WriterOptions {
        max_fee_per_gas: gas.max_fee.unwrap_or(default.max_fee_per_gas),
        budget_per_day: gas.per_day,
        ..default
    }
}

/// What a price means under the limits.
fn afforded(limits: &Gas, price: &GasPrice) -> pace::Gas {
    let left = limits.per_day.map(|budget| budget.saturating_sub(price.spent) / price.worst.max(1));
    pace::Gas {
        fee: u64::try_from(price.fee).unwrap_or(u64::MAX),
        within_ceiling: price.offer <= options(limits).max_fee_per_gas,
        affordable: left.map(|n| u64::try_from(n).unwrap_or(u64::MAX)),
        renews_in_ms: price.renews_in_ms,
    }
}

/// Whether trying again may help.
fn may_pass(e: &RuntimeError) -> bool {
    match e {
        // The chain went on between reading its head and signing: read it again.
        RuntimeError::Chain(EthereumError::HeadMoved { .. }) => true,
        RuntimeError::Chain(e) => e.retryable(),
        _ => false,
    }
}

fn violation(lane: i32, source: Violation) -> RuntimeError {
    RuntimeError::Violation { lane, source }
}

impl Lane {
    /// Follows the lane to whoever runs it now.
    fn look(&mut self, own: &OwnReaders) {
        match own.get(self.partition) {
            Some(reader) => (self.reader, self.own) = (reader, true),
            None if self.own => {
                self.own = false;
                self.reopen();
            }
            None if self.looked.elapsed() >= LOOK_BESIDE => {
                self.looked = Instant::now();
                if let Err(error) = self.reader.refresh() {
                    tracing::debug!(lane = self.partition, %error, "a lane beside cannot be read at this moment");
                }
            }
            None => {}
        }
    }

    /// Reads the lane's directory anew; where that fails, the old reader stands.
    fn reopen(&mut self) {
        match LaneReader::open_read_only(&self.dir) {
            Ok(reader) => self.reader = reader,
            Err(error) => tracing::debug!(lane = self.partition, %error, "a lane beside cannot be read at this moment"),
        }
        self.looked = Instant::now();
    }

    fn count(&mut self, machine: &Anchoring, now: i64) {
        if let Some(backlog) = machine.backlog(self.partition) {
            self.metrics.pending.set(backlog.pending() as i64);
            self.metrics.delay.set(backlog.waited_ms(now) as f64 / 1000.0);
            let held = machine.held(self.partition, now);
            for (reason, metric) in &self.metrics.held {
                metric.set(i64::from(held == Some(*reason)));
            }
            // What has to be known is said; that gas is cheaper later is no news.
            let limit = held.filter(|held| matches!(held, Held::Ceiling | Held::Budget));
            if limit != self.held {
                match limit {
                    Some(held) => tracing::warn!(lane = self.partition, why = held.why(), "anchors wait"),
                    None => tracing::info!(lane = self.partition, "anchors go on"),
                }
                self.held = limit;
            }
        }
    }

    /// Brings the log onto the chain from its head there up to a durable checkpoint. Returns its head then.
    async fn anchor(&mut self, session: &mut Session, from: Head, to: Head) -> Result<Head, RuntimeError> {
        let Session { key, owner, domain, writer } = session;
        invariants::anchor_extends(&from, &from, &to, self.reader.committed().log_size)
            .map_err(|v| violation(self.partition, v))?;
        let (old_size, old_root, new_size) = (from.size, from.root, to.size);
        let proof = if old_size == 0 { Vec::new() } else { self.reader.consistency_proof(old_size, new_size)? };
        let coverage = self.reader.coverage(old_size, new_size)?;
        let checkpoint = Checkpoint {
            log_id: self.log_id,
            old_size,
            new_size,
            old_root: if old_size == 0 { [0; 32] } else { old_root },
            new_root: to.root,
            data_commitment: coverage.commitment(),
            issued_at: now_ms().max(0) as u64,
        };
        let signature = key.sign_checkpoint(&checkpoint, domain).await?;
        let kept_at = signed::keep(
            &self.dir,
            &SignedCheckpoint {
                log_id: checkpoint.log_id,
                old_size,
                new_size,
                old_root: checkpoint.old_root,
                new_root: checkpoint.new_root,
                data_commitment: checkpoint.data_commitment,
                issued_at: checkpoint.issued_at,
                chain_id: domain.chain_id,
                contract: domain.contract.into_array(),
                owner: owner.into_array(),
                signer: key.address().into_array(),
                signature: signature.clone(),
            },
        )?;
        let reader = self.reader.clone();
        blocking(move || Ok(reader.copy_beside(signed::FILE, kept_at)?)).await?;
        let anchored = writer.advance_signed(checkpoint, proof, signature).await?;
        self.metrics.anchors.inc();
        self.metrics.gas.inc_by(anchored.gas_used);
        self.metrics.size.set(anchored.size as i64);
        Ok(Head { size: anchored.size, root: anchored.root })
    }
}

fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as i64)
}
