//! Anchors: tails the committed logs and brings their checkpoints onto the chain.
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
use avouch_engine::verdict::{Hash32, LogOrigin};
use tokio::sync::watch;

use super::error::RuntimeError;
use super::metrics::{AnchorMetrics, Metrics};
use super::{lane_dir, signed};
use crate::lang::{Anchor, Signer};

const TICK: Duration = Duration::from_millis(200);
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

/// Anchors the lanes of one process.
pub struct AnchorTail {
    anchor: Anchor,
    state: PathBuf,
    lanes: Vec<Lane>,
}

struct Lane {
    dir: PathBuf,
    reader: LaneReader,
    metrics: AnchorMetrics,
    name: Hash32,
    log_id: Hash32,
    head: (u64, Hash32),
    backlog: Backlog,
}

impl AnchorTail {
    /// For the lanes of a pipeline whose state is in `state`.
    pub fn new(anchor: &Anchor, state: &Path, readers: Vec<(i32, LaneReader)>, metrics: &Metrics) -> Self {
        let promised = anchor.max_merge_delay_ms as f64 / 1000.0;
        let lanes = readers
            .into_iter()
            .map(|(partition, reader)| Lane {
                dir: lane_dir(state, partition),
                name: LogOrigin::from_text(reader.committed().origin.clone()).log_id(),
                log_id: [0; 32],
                metrics: metrics.anchor(partition, promised),
                reader,
                head: (0, [0; 32]),
                backlog: Backlog::default(),
            })
            .collect();
        Self { anchor: anchor.clone(), state: state.to_path_buf(), lanes }
    }

    /// Runs until stopped. Errors that may pass are tried again with growing pauses.
    pub async fn run(mut self, mut stop: watch::Receiver<Stop>) -> Result<(), RuntimeError> {
        let mut pause = FIRST_PAUSE;
        loop {
            let began = std::time::Instant::now();
            let ended = tokio::select! {
                ended = self.session(stop.clone()) => ended,
                _ = stop.wait_for(|s| *s == Stop::Now) => return Ok(()),
            };
            let error = match ended {
                Ok(()) => return Ok(()),
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
                lane.look(now);
            }
            tokio::time::sleep(TICK.min(pause)).await;
        }
    }

    async fn session(&mut self, stop: watch::Receiver<Stop>) -> Result<(), RuntimeError> {
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
        loop {
            if looked.is_none_or(|at| at.elapsed() >= LOOK_AT_HEADS) {
                for lane in &mut self.lanes {
                    let heads = writer.head(&lane.log_id).await?;
                    lane.metrics.finalized.set(heads.finalized.size as i64);
                    writer.finalized_size(&lane.log_id).await?;
                    lane.moved(heads.latest.size, heads.latest.root);
                }
                looked = Some(tokio::time::Instant::now());
            }
            let ending = *stop.borrow();
            let now = now_ms();
            for lane in &mut self.lanes {
                lane.look(now);
                // Only sizes of the durable log this process can prove from are anchored; after a fall-back it regrows first.
                let can = lane.reader.committed().log_size > lane.head.0;
                if can && lane.backlog.due(policy, now, ending == Stop::Flush) {
                    lane.anchor(&mut writer, &key, domain).await?;
                }
            }
            let pending: u64 = self.lanes.iter().map(|l| l.backlog.pending()).sum();
            if ending == Stop::Now || (ending == Stop::Flush && pending == 0) {
                return Ok(());
            }
            tokio::time::sleep(TICK).await;
        }
    }
}

impl Lane {
    fn look(&mut self, now: i64) {
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
        signed::keep(
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
        let anchored = writer.advance_signed(checkpoint, proof, signature).await?;
        self.metrics.anchors.inc();
        self.metrics.gas.inc_by(anchored.gas_used);
        self.moved(anchored.size, anchored.root);
        self.look(now_ms());
        Ok(())
    }
}

fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as i64)
}
