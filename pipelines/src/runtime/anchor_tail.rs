//! Anchors: tails the committed logs and brings their checkpoints onto the chain.
//!
//! Of all processes that share a state directory one anchors, for all lanes in it: its own, and beside the others those that
//! they run. Which one, the lease says; the others wait for it.
//!
//! The chain may be slow or away: lanes do not wait for it, verdicts do, and how long is a metric. What is not retryable
//! (the wrong chain, no contract there, a head that is not this log's) stops the process: going on would promise anchors
//! that cannot come.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use avouch_connectors::ethereum::{
    Address, AnchorWriter, ChainReader, Checkpoint, Domain, EthereumError, OperatorKey, RpcOptions, WriterConfig,
    WriterOptions, register_log,
};
use avouch_connectors::store::LaneReader;
use avouch_engine::bundle::SignedCheckpoint;
use avouch_engine::control::anchor::{AnchorPolicy, Backlog};
use avouch_engine::control::{Head, invariants};
use avouch_engine::verdict::{Hash32, LogOrigin};
use tokio::sync::watch;

use super::anchor_lease::AnchorLease;
use super::error::RuntimeError;
use super::metrics::{AnchorMetrics, Metrics};
use super::readers::OwnReaders;
use super::{blocking, lane_dir, signed};
use crate::lang::{Anchor, Signer};

const TICK: Duration = Duration::from_millis(200);
/// How often lanes of other processes, and lanes that are new, are looked for.
const LOOK_BESIDE: Duration = Duration::from_secs(1);
const LOOK_AT_HEADS: Duration = Duration::from_secs(5);
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// How anchoring should end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// Not yet.
    No,
    /// At once; the journal and the chain know how to go on.
    Now,
    /// After everything committed is anchored.
    Flush,
}

/// The key that signs and pays, read from where the pipeline says.
pub fn operator_key(anchor: &Anchor) -> Result<OperatorKey, EthereumError> {
    match &anchor.signer {
        Signer::Keystore { file, password } => OperatorKey::from_keystore(&file.value, password.value.expose()),
        Signer::Key(key) => {
            OperatorKey::from_hex(key.value.expose().trim()).ok_or_else(|| EthereumError::KeyVariable {
                variable: "anchor.signer.key".into(),
                reason: "it is not a private key of 64 hexadecimal digits".into(),
            })
        }
    }
}

/// Anchors the lanes of a state directory.
pub struct AnchorTail {
    anchor: Anchor,
    state: PathBuf,
    own: OwnReaders,
    metrics: Metrics,
    lanes: Vec<Lane>,
}

struct Lane {
    partition: i32,
    dir: PathBuf,
    reader: LaneReader,
    /// Whether this process runs the lane.
    own: bool,
    looked: tokio::time::Instant,
    metrics: AnchorMetrics,
    name: Hash32,
    log_id: Hash32,
    head: (u64, Hash32),
    backlog: Backlog,
}

/// Why a session with the chain ended well.
enum Ended {
    /// All that was asked for is done.
    Done,
    /// There are lanes it did not know.
    NewLanes,
}

impl AnchorTail {
    /// For the lanes of a pipeline whose state is in `state`; those this process runs are in `own`.
    pub fn new(anchor: &Anchor, state: &Path, own: OwnReaders, metrics: &Metrics) -> Self {
        metrics.anchor_delay_max(anchor.max_merge_delay_ms as f64 / 1000.0);
        Self { anchor: anchor.clone(), state: state.to_path_buf(), own, metrics: metrics.clone(), lanes: Vec::new() }
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

    /// Adds lanes that have come into being. Returns whether there were any.
    fn discover(&mut self) -> Result<bool, RuntimeError> {
        let listed =
            std::fs::read_dir(&self.state).map_err(|source| RuntimeError::File { path: self.state.clone(), source })?;
        let mut partitions: Vec<i32> = listed.flatten().filter_map(|e| e.file_name().to_str()?.parse().ok()).collect();
        partitions.extend(self.own.partitions());
        partitions.sort_unstable();
        partitions.dedup();
        partitions.retain(|p| self.lanes.iter().all(|l| l.partition != *p));
        let mut found = false;
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
            found = true;
            self.lanes.push(Lane {
                partition,
                dir,
                name: LogOrigin::from_text(reader.committed().origin.clone()).log_id(),
                log_id: [0; 32],
                metrics: self.metrics.anchor(partition),
                reader,
                own,
                looked: tokio::time::Instant::now(),
                head: (0, [0; 32]),
                backlog: Backlog::default(),
            });
        }
        Ok(found)
    }

    /// Runs until stopped. Errors that may pass are tried again with growing pauses.
    pub async fn run(mut self, mut stop: watch::Receiver<Stop>) -> Result<(), RuntimeError> {
        let Some(_lease) = self.lease(&mut stop).await? else { return Ok(()) };
        let mut pause = FIRST_PAUSE;
        loop {
            self.discover()?;
            let began = std::time::Instant::now();
            let ended = tokio::select! {
                ended = self.session(stop.clone()) => ended,
                _ = stop.wait_for(|s| *s == Stop::Now) => return Ok(()),
            };
            let error = match ended {
                Ok(Ended::Done) => return Ok(()),
                Ok(Ended::NewLanes) => continue,
                Err(RuntimeError::Chain(e)) if e.retryable() => e,
                // The chain went on between reading its head and signing: read it again.
                Err(RuntimeError::Chain(e @ EthereumError::HeadMoved { .. })) => e,
                Err(e) => return Err(e),
            };
            for lane in &self.lanes {
                lane.metrics.errors.inc();
            }
            if began.elapsed() > LONGEST_PAUSE {
                pause = FIRST_PAUSE;
            }
            tracing::warn!(error = %error, ?pause, "anchoring failed, trying again; verdicts wait, lanes do not");
            tokio::select! {
                () = self.wait(pause) => {}
                _ = stop.wait_for(|s| *s == Stop::Now) => return Ok(()),
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Pauses, but keeps the waiting time visible.
    async fn wait(&mut self, pause: Duration) {
        let until = tokio::time::Instant::now() + pause;
        while tokio::time::Instant::now() < until {
            let now = now_ms();
            for lane in &mut self.lanes {
                lane.look(&self.own, now);
            }
            tokio::time::sleep(TICK.min(pause)).await;
        }
    }

    async fn session(&mut self, stop: watch::Receiver<Stop>) -> Result<Ended, RuntimeError> {
        let key = operator_key(&self.anchor)?;
        let domain = Domain { chain_id: self.anchor.chain_id, contract: Address::from(self.anchor.contract.value) };
        let url = self.anchor.rpc.as_str().to_owned();
        let chain = ChainReader::connect(&url, Some(domain.chain_id), domain.contract, RpcOptions::default()).await?;
        // Before the writer opens: a registration uses the same key's nonces.
        for lane in &mut self.lanes {
            let registered = register_log(&chain, &key, &lane.name, key.address()).await?;
            if registered.transaction.is_some() {
                tracing::info!(lane = %lane.dir.display(), gas = registered.gas_used, "log registered");
            }
            lane.log_id = registered.log_id;
        }
        let config = WriterConfig {
            url,
            domain,
            signer: key.clone(),
            payer: key.clone(),
            journal: self.state.join("anchor-journal"),
            options: WriterOptions::default(),
        };
        let mut writer = AnchorWriter::open(config).await?;
        writer.recover().await?;
        let policy = AnchorPolicy { verdicts: self.anchor.every_verdicts, interval_ms: self.anchor.every_ms };
        let mut looked: Option<tokio::time::Instant> = None;
        let mut discovered = tokio::time::Instant::now();
        loop {
            let ending = *stop.borrow();
            if ending == Stop::Flush || discovered.elapsed() >= LOOK_BESIDE {
                if self.discover()? {
                    return Ok(Ended::NewLanes);
                }
                discovered = tokio::time::Instant::now();
            }
            if looked.is_none_or(|at| at.elapsed() >= LOOK_AT_HEADS) {
                for lane in &mut self.lanes {
                    let heads = writer.head(&lane.log_id).await?;
                    lane.metrics.finalized.set(heads.finalized.size as i64);
                    writer.finalized_size(&lane.log_id).await?;
                    lane.moved(heads.latest.size, heads.latest.root);
                }
                looked = Some(tokio::time::Instant::now());
            }
            let now = now_ms();
            for lane in &mut self.lanes {
                lane.look(&self.own, now);
                // Only sizes of the durable log this process can prove from are anchored; after a fall-back it regrows first.
                let can = lane.reader.committed().log_size > lane.head.0;
                if can && lane.backlog.due(policy, now, ending == Stop::Flush) {
                    match lane.anchor(&mut writer, &key, domain).await {
                        // Another process may be recovering the lane at this moment: read it anew.
                        Err(RuntimeError::Store(error)) if !lane.own => {
                            tracing::warn!(lane = lane.partition, %error, "a lane beside could not be read");
                            lane.reopen();
                        }
                        other => other?,
                    }
                }
            }
            let pending: u64 = self.lanes.iter().map(|l| l.backlog.pending()).sum();
            if ending == Stop::Now || (ending == Stop::Flush && pending == 0) {
                return Ok(Ended::Done);
            }
            tokio::time::sleep(TICK).await;
        }
    }
}

impl Lane {
    /// Follows the lane to whoever runs it now, and looks how long its log is.
    fn look(&mut self, own: &OwnReaders, now: i64) {
        match own.get(self.partition) {
            Some(reader) => (self.reader, self.own) = (reader, true),
            None if self.own => {
                self.own = false;
                self.reopen();
            }
            None if self.looked.elapsed() >= LOOK_BESIDE => {
                self.looked = tokio::time::Instant::now();
                if let Err(error) = self.reader.refresh() {
                    tracing::debug!(lane = self.partition, %error, "a lane beside cannot be read at this moment");
                }
            }
            None => {}
        }
        self.count(now);
    }

    /// Reads the lane's directory anew; where that fails, the old reader stands.
    fn reopen(&mut self) {
        match LaneReader::open_read_only(&self.dir) {
            Ok(reader) => self.reader = reader,
            Err(error) => tracing::debug!(lane = self.partition, %error, "a lane beside cannot be read at this moment"),
        }
        self.looked = tokio::time::Instant::now();
    }

    fn count(&mut self, now: i64) {
        self.backlog.committed(self.reader.committed().log_size, now);
        self.metrics.pending.set(self.backlog.pending() as i64);
        self.metrics.delay.set(self.backlog.waited_ms(now) as f64 / 1000.0);
    }

    /// The contract's head is here now.
    fn moved(&mut self, size: u64, root: Hash32) {
        if (size, root) != self.head {
            self.backlog.anchored(size, now_ms());
            self.head = (size, root);
        }
        self.metrics.size.set(size as i64);
    }

    async fn anchor(
        &mut self,
        writer: &mut AnchorWriter,
        key: &OperatorKey,
        domain: Domain,
    ) -> Result<(), RuntimeError> {
        let committed = self.reader.committed();
        let (old_size, old_root) = self.head;
        let new_size = committed.log_size;
        let (head, end) = (Head { size: old_size, root: old_root }, Head { size: new_size, root: committed.root });
        invariants::anchor_extends(&head, &head, &end, committed.log_size)
            .map_err(|source| RuntimeError::Violation { lane: committed.partition, source })?;
        let proof = if old_size == 0 { Vec::new() } else { self.reader.consistency_proof(old_size, new_size)? };
        let coverage = self.reader.coverage(old_size, new_size)?;
        let checkpoint = Checkpoint {
            log_id: self.log_id,
            old_size,
            new_size,
            old_root: if old_size == 0 { [0; 32] } else { old_root },
            new_root: committed.root,
            data_commitment: coverage.commitment(),
            issued_at: now_ms().max(0) as u64,
        };
        let signature = key.sign_checkpoint(&checkpoint, &domain)?;
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
                owner: key.address().into_array(),
                signer: key.address().into_array(),
                signature: signature.clone(),
            },
        )?;
        let reader = self.reader.clone();
        blocking(move || Ok(reader.copy_beside(signed::FILE, kept_at)?)).await?;
        let anchored = writer.advance_signed(checkpoint, proof, signature).await?;
        self.metrics.anchors.inc();
        self.metrics.gas.inc_by(anchored.gas_used);
        self.moved(anchored.size, anchored.root);
        self.count(now_ms());
        Ok(())
    }
}

fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as i64)
}
