//! The writer: brings signed checkpoints onto the chain, once each, through crashes, lost answers and reorgs.
//!
//! ```text
//!            journal                        chain
//! advance ── begin ──► sign ── add ──► send ──► wait ──► included ──► (later) final
//!                       ▲                        │  │
//!                       └── fee bump, new nonce ─┘  └─ reorg: reopened, sent again
//! ```
//!
//! - One key has one writer: the journal's lease sees to it, and nonces are explicit. One transaction is under way at a time.
//! - Everything is in the journal, fsynced, before it is sent. Whoever drops the writer at any moment, even in the middle of
//!   [`AnchorWriter::advance`], and opens it again loses nothing and sends nothing twice: the contract takes a
//!   checkpoint only at its head, and the writer looks its transactions up before it makes new ones.
//! - "Already known", "nonce too low" and answers that never came all mean: look it up.
//! - Included is not final. [`AnchorWriter::finalized_size`] says what no reorg takes back; what one took back is sent again
//!   by the next call, from the journal.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use alloy::primitives::{B256, Bytes, TxKind};
use alloy::rpc::types::TransactionReceipt;
use alloy::sol_types::SolCall;
use avouch_engine::control::Head;
use avouch_engine::control::anchor::{Place, place, taken_back};
use avouch_engine::control::invariants::{Fork, same_root};
use avouch_engine::verdict::Hash32;

use super::bindings::VerdictLog as contract;
use super::checkpoint::{Checkpoint, Domain};
use super::error::{EthereumError, Roots};
use super::journal::{Attempt, Holder, Inclusion, Journal};
use super::reader::{ChainReader, Heads};
use super::rpc::{At, Endpoint, RpcOptions};
use super::signer::OperatorKey;
use super::transact::{self, Payload, Sent, SignedTransaction};

/// The writer's patience and limits.
#[derive(Debug, Clone)]
pub struct WriterOptions {
    /// For the endpoint.
    pub rpc: RpcOptions,
    /// Between two looks at whether a transaction is in a block.
    pub poll: Duration,
    /// After how long without a block the fees are raised.
    pub bump_after: Duration,
    /// After how long a call gives up waiting; the transaction stays in the journal and is followed up by the next call.
    pub give_up_after: Duration,
    /// Never offer more than this, in wei per gas.
    pub max_fee_per_gas: u128,
}

impl Default for WriterOptions {
    fn default() -> Self {
        Self {
            rpc: RpcOptions::default(),
            poll: Duration::from_millis(500),
            bump_after: Duration::from_secs(45),
            give_up_after: Duration::from_secs(300),
            max_fee_per_gas: 500_000_000_000,
        }
    }
}

/// Where a writer writes, and as whom.
#[derive(Clone)]
pub struct WriterConfig {
    /// URL of the RPC endpoint.
    pub url: String,
    /// The chain and the contract.
    pub domain: Domain,
    /// Signs checkpoints.
    pub signer: OperatorKey,
    /// Pays for transactions; may be the same key.
    pub payer: OperatorKey,
    /// The journal's file; one for each paying key, chain and contract. A lock file lies beside it.
    pub journal: PathBuf,
    /// Patience and limits.
    pub options: WriterOptions,
}

impl std::fmt::Debug for WriterConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The URL may hold credentials.
        f.debug_struct("WriterConfig")
            .field("domain", &self.domain)
            .field("signer", &self.signer)
            .field("payer", &self.payer)
            .field("journal", &self.journal)
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

/// A checkpoint that is in a block. Whether the block is final, [`AnchorWriter::finalized_size`] says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Anchored {
    /// The log on chain.
    pub log_id: Hash32,
    /// Its size.
    pub size: u64,
    /// Its root.
    pub root: Hash32,
    /// The transaction.
    pub transaction: Hash32,
    /// Number of its block.
    pub block_number: u64,
    /// Hash of its block.
    pub block_hash: Hash32,
    /// Gas it took; 0 when somebody else relayed the checkpoint.
    pub gas_used: u64,
}

/// Writes the checkpoints of one key's logs. See the [module](self).
#[derive(Debug)]
pub struct AnchorWriter {
    reader: ChainReader,
    signer: OperatorKey,
    payer: OperatorKey,
    journal: Journal,
    options: WriterOptions,
}

/// What looking up an attempt's transactions found.
enum Found {
    Included(Inclusion),
    Reverted,
    Nothing,
}

impl AnchorWriter {
    /// Takes the journal's lease, then connects: checks the chain's id and, byte by byte, that the code at the contract's
    /// address is VerdictLog's. Sends nothing: what an earlier writer left under way is followed up by the first
    /// [`AnchorWriter::recover`] or [`AnchorWriter::advance`].
    pub async fn open(config: WriterConfig) -> Result<Self, EthereumError> {
        let WriterConfig { url, domain, signer, payer, journal, options } = config;
        let holder = Holder { chain_id: domain.chain_id, contract: domain.contract, payer: payer.address() };
        let journal = Journal::open(&journal, holder)?;
        let reader = ChainReader::connect(&url, Some(domain.chain_id), domain.contract, options.rpc.clone()).await?;
        let used = reader.endpoint().nonce(payer.address()).await?;
        if journal.next_nonce() != 0 && used > journal.next_nonce() {
            tracing::warn!(account = %payer.address(), used, journaled = journal.next_nonce(),
                "this account sent transactions that the journal does not know; give the writer a key of its own");
        }
        Ok(Self { reader, signer, payer, journal, options })
    }

    /// The read side of the same contract.
    pub fn reader(&self) -> &ChainReader {
        &self.reader
    }

    /// Checkpoints that are journaled but not in a block, as far as is known here.
    pub fn pending(&self) -> usize {
        self.journal.attempts().iter().filter(|a| a.included.is_none()).count()
    }

    /// Bytes of an unfinished record that were cut off the journal when it was opened; 0 after a clean stop.
    pub fn torn_bytes(&self) -> u64 {
        self.journal.torn_bytes()
    }

    /// Where a log ends, at the newest block and at the newest final one.
    pub async fn head(&self, log_id: &Hash32) -> Result<Heads, EthereumError> {
        self.reader.heads(log_id).await
    }

    /// Signs `checkpoint` and brings it, with its consistency `proof` (RFC 9162 §2.1.4; empty for the first), into a block.
    ///
    /// Repeating a call changes nothing and says where the checkpoint is. Only checkpoints of a durable log may be given: what
    /// is signed can appear on chain from then on, whatever this returns.
    ///
    /// # Errors
    /// [`EthereumError::HeadMoved`]: the chain is elsewhere; make the next checkpoint from its head.
    /// [`EthereumError::Diverged`] and [`EthereumError::Inconsistent`]: the log here is not the one anchored; stop.
    /// Those that are [`EthereumError::retryable`]: call again, with this checkpoint or a later one.
    pub async fn advance(&mut self, checkpoint: Checkpoint, proof: Vec<Hash32>) -> Result<Anchored, EthereumError> {
        let signature = self.signer.sign_checkpoint(&checkpoint, &self.reader.domain())?;
        self.advance_signed(checkpoint, proof, signature).await
    }

    /// As [`AnchorWriter::advance`], with a signature made elsewhere, for instance by an ERC-1271 wallet's owners.
    pub async fn advance_signed(
        &mut self,
        checkpoint: Checkpoint,
        proof: Vec<Hash32>,
        signature: Vec<u8>,
    ) -> Result<Anchored, EthereumError> {
        self.recover().await?;
        if let Some(inclusion) = self.anchored_already(&checkpoint).await? {
            return Ok(anchored(&checkpoint, inclusion));
        }
        let id = self.journal.begin(checkpoint, proof, signature)?;
        self.drive(id).await
    }

    /// Settles what the journal holds: sends and waits for what is under way, and sends again what a reorg took back. Returns
    /// what got into a block by it. A checkpoint that the chain has no place for any more is given up, with a warning.
    pub async fn recover(&mut self) -> Result<Vec<Anchored>, EthereumError> {
        self.reopen_what_was_taken_back().await?;
        let open: Vec<u64> = self.journal.attempts().iter().filter(|a| a.included.is_none()).map(|a| a.id).collect();
        let mut settled = Vec::new();
        for id in open {
            match self.drive(id).await {
                Ok(anchored) => settled.push(anchored),
                // It has been given up: whoever asks for a checkpoint next learns where the chain stands.
                Err(error)
                    if self.journal.attempt(id).is_none() && !matches!(error, EthereumError::Diverged { .. }) =>
                {
                    tracing::warn!(%error, "gave up a journaled checkpoint");
                }
                Err(error) => return Err(error),
            }
        }
        Ok(settled)
    }

    /// The size of a log that is final on chain: what no reorg takes back. The journal forgets what is final.
    pub async fn finalized_size(&mut self, log_id: &Hash32) -> Result<u64, EthereumError> {
        let head = self.reader.head(log_id, At::Finalized).await?;
        let of_log = |a: &&Attempt| a.checkpoint.log_id == *log_id && a.included.is_some();
        if let Some(a) = self.journal.attempts().iter().filter(of_log).find(|a| a.checkpoint.new_size == head.size) {
            same_root(head.size, &head.root, &a.checkpoint.new_root).map_err(|f| self.diverged(*log_id, &f))?;
        }
        let done: Vec<u64> = self
            .journal
            .attempts()
            .iter()
            .filter(of_log)
            .filter(|a| a.checkpoint.new_size <= head.size)
            .map(|a| a.id)
            .collect();
        for id in done {
            self.journal.finalized(id)?;
        }
        Ok(head.size)
    }

    /// Compares what was included with the chain's heads, and opens again what is not there any more.
    async fn reopen_what_was_taken_back(&mut self) -> Result<(), EthereumError> {
        let mut logs: Vec<Hash32> =
            self.journal.attempts().iter().filter(|a| a.included.is_some()).map(|a| a.checkpoint.log_id).collect();
        logs.sort_unstable();
        logs.dedup();
        for log_id in logs {
            let head = self.reader.head(&log_id, At::Latest).await?;
            let head = Head { size: head.size, root: head.root };
            let mut lost = Vec::new();
            for a in self.journal.attempts() {
                if a.checkpoint.log_id != log_id || a.included.is_none() {
                    continue;
                }
                let (_, new) = ends(&a.checkpoint);
                if taken_back(&new, &head).map_err(|f| self.diverged(log_id, &f))? {
                    lost.push(a.id);
                }
            }
            for id in lost {
                tracing::warn!(attempt = id, head = head.size, "a reorg took an anchor back; sending it again");
                self.journal.reopened(id)?;
            }
        }
        Ok(())
    }

    /// Whether the chain holds exactly this checkpoint's result. Where it stands elsewhere, that is an error.
    async fn anchored_already(&self, checkpoint: &Checkpoint) -> Result<Option<Inclusion>, EthereumError> {
        let (old, new) = ends(checkpoint);
        let head = self.reader.head(&checkpoint.log_id, At::Latest).await?;
        let head = Head { size: head.size, root: head.root };
        let at_new_size = if head.size == old.size {
            None
        } else {
            self.reader.checkpoint_of(&checkpoint.log_id, new.size, At::Latest).await?.map(|there| there.root)
        };
        match place(&old, &new, &head, at_new_size.as_ref()).map_err(|f| self.diverged(checkpoint.log_id, &f))? {
            Place::Next => Ok(None),
            Place::There => self.inclusion_by_event(checkpoint).await,
            Place::Elsewhere => Err(EthereumError::HeadMoved {
                contract: self.reader.domain().contract,
                log_id: checkpoint.log_id,
                old_size: old.size,
                head_size: head.size,
                head_root: head.root,
            }),
        }
    }

    /// The chain has another log under this name.
    fn diverged(&self, log_id: Hash32, fork: &Fork) -> EthereumError {
        EthereumError::Diverged {
            contract: self.reader.domain().contract,
            log_id,
            size: fork.size,
            roots: Box::new(Roots { ours: fork.now, chain: fork.known }),
        }
    }

    async fn inclusion_by_event(&self, checkpoint: &Checkpoint) -> Result<Option<Inclusion>, EthereumError> {
        let Some(anchor) = self.reader.find_anchor(&checkpoint.log_id, checkpoint.new_size, 0).await? else {
            return Ok(None);
        };
        let ours =
            self.journal.attempts().iter().filter_map(|a| a.included).find(|i| i.transaction == anchor.transaction);
        Ok(Some(Inclusion {
            transaction: anchor.transaction,
            block_number: anchor.block_number,
            block_hash: anchor.block_hash,
            gas_used: ours.map_or(0, |i| i.gas_used),
        }))
    }

    /// Brings one attempt to its end: into a block, or given up.
    async fn drive(&mut self, id: u64) -> Result<Anchored, EthereumError> {
        let started = Instant::now();
        let mut sent_at: Option<Instant> = None;
        let mut unanswered: Option<Instant> = None;
        loop {
            let Some(attempt) = self.journal.attempt(id).cloned() else {
                // Invariant: only `drive` ends attempts, and it returns when it does.
                unreachable!("attempt {id} has ended");
            };
            match self.look_up(&attempt).await? {
                Found::Included(inclusion) => return self.settle(&attempt, inclusion),
                Found::Reverted => {
                    self.after_a_revert(&attempt).await?;
                    if let Some(inclusion) = self.by_another(&attempt.checkpoint).await? {
                        return self.settle(&attempt, inclusion);
                    }
                    let nonce = self.free_nonce().await?;
                    self.make_transaction(&attempt, nonce, None).await?;
                    sent_at = None;
                }
                Found::Nothing => {}
            }

            if attempt.transactions.is_empty() {
                let nonce = self.free_nonce().await?;
                self.make_transaction(&attempt, nonce, None).await?;
            } else if sent_at.is_some_and(|t| t.elapsed() >= self.options.bump_after) {
                if let Some(inclusion) = self.by_another(&attempt.checkpoint).await? {
                    return self.settle(&attempt, inclusion);
                }
                self.replace(&attempt).await?;
                sent_at = None;
            }

            if sent_at.is_none() {
                let Some(newest) = self.journal.attempt(id).and_then(|a| a.transactions.last()).cloned() else {
                    unreachable!("a transaction was made above");
                };
                match transact::send(self.endpoint(), &newest).await {
                    Sent::Taken => {
                        sent_at = Some(Instant::now());
                        unanswered = None;
                        // On chains with a block a moment, it is there already.
                        continue_after(Duration::from_millis(5)).await;
                        continue;
                    }
                    Sent::NonceUsed => {
                        if let Some(anchored) = self.after_a_used_nonce(id, &newest).await? {
                            return Ok(anchored);
                        }
                    }
                    Sent::Underpriced(message) => {
                        tracing::info!(%message, "raising the fees");
                        let current = self.journal.attempt(id).cloned().unwrap_or(attempt);
                        if !self.replace(&current).await? {
                            // At the limit: what is sent stays sent.
                            sent_at = Some(Instant::now());
                        }
                    }
                    Sent::Underfunded => {
                        return Err(transact::underfunded(self.endpoint(), self.payer.address()).await);
                    }
                    Sent::Unknown(error) => {
                        let since = *unanswered.get_or_insert_with(Instant::now);
                        tracing::debug!(%error, "no usable answer to a transaction; looking it up");
                        if since.elapsed() > self.options.rpc.read_budget {
                            return Err(error);
                        }
                    }
                    Sent::Refused(error) => {
                        // A transaction that no node has ever taken can be given up; one that may be under way cannot.
                        if self.journal.attempt(id).is_some_and(|a| a.transactions.len() == 1) {
                            self.journal.abandoned(id, &error.to_string())?;
                        }
                        return Err(error);
                    }
                }
            }

            if started.elapsed() >= self.options.give_up_after {
                let newest = self.journal.attempt(id).map(|a| a.transactions.clone()).unwrap_or_default();
                return Err(EthereumError::NotIncluded {
                    endpoint: self.endpoint().to_string(),
                    transaction: newest.last().map(|t| t.hash).unwrap_or_default(),
                    nonce: newest.last().map(|t| t.nonce).unwrap_or_default(),
                    waited: started.elapsed(),
                    attempts: newest.len(),
                });
            }
            continue_after(self.options.poll).await;
        }
    }

    fn endpoint(&self) -> &Endpoint {
        self.reader.endpoint()
    }

    fn payload(&self, attempt: &Attempt) -> Payload {
        let domain = self.reader.domain();
        let call = contract::advanceCall {
            checkpoint: attempt.checkpoint.to_sol(),
            proof: attempt.proof.iter().map(|p| B256::from(*p)).collect(),
            signature: Bytes::from(attempt.signature.clone()),
        };
        Payload { chain_id: domain.chain_id, to: TxKind::Call(domain.contract), data: Bytes::from(call.abi_encode()) }
    }

    /// The next nonce of the paying account. An endpoint may lag behind what it told before, so it is never below what is
    /// known to be in blocks.
    async fn free_nonce(&self) -> Result<u64, EthereumError> {
        let known = self
            .journal
            .attempts()
            .iter()
            .filter(|a| a.included.is_some())
            .flat_map(|a| a.transactions.iter().map(|t| t.nonce + 1))
            .max()
            .unwrap_or(0);
        Ok(self.endpoint().nonce(self.payer.address()).await?.max(known))
    }

    /// Signs a transaction for an attempt and journals it. What the contract would refuse is given up instead.
    async fn make_transaction(
        &mut self,
        attempt: &Attempt,
        nonce: u64,
        replaced: Option<&SignedTransaction>,
    ) -> Result<(), EthereumError> {
        let payload = self.payload(attempt);
        let gas_limit = match replaced {
            Some(t) => t.gas_limit,
            None => {
                match transact::estimate_gas(self.endpoint(), self.payer.address(), payload.to, &payload.data).await {
                    Ok(gas) => gas,
                    Err(error) if error.revert_data().is_some() => {
                        return Err(self.refused(attempt, error)?);
                    }
                    Err(EthereumError::Rpc { message, .. })
                        if message.to_lowercase().contains("insufficient funds") =>
                    {
                        return Err(transact::underfunded(self.endpoint(), self.payer.address()).await);
                    }
                    Err(error) => return Err(error),
                }
            }
        };
        let market = transact::market_fees(self.endpoint()).await?;
        let fees = replaced.map_or(market, |t| t.fees.replacing(market));
        if fees.max_fee > self.options.max_fee_per_gas {
            return Err(EthereumError::FeeLimit {
                endpoint: self.endpoint().to_string(),
                needed: fees.max_fee,
                limit: self.options.max_fee_per_gas,
            });
        }
        let transaction = transact::sign(&self.payer, &payload, nonce, gas_limit, fees)?;
        tracing::debug!(nonce, max_fee = fees.max_fee, %attempt, "signed");
        self.journal.add(attempt.id, transaction)
    }

    /// The contract would refuse the attempt. It is given up, unless a transaction of it may be under way.
    fn refused(&mut self, attempt: &Attempt, error: EthereumError) -> Result<EthereumError, EthereumError> {
        let error = self.reader.explain(error, "advance", attempt.checkpoint.old_size);
        self.journal.abandoned(attempt.id, &error.to_string())?;
        Ok(error)
    }

    /// Replaces an attempt's newest transaction by one with higher fees; false if the limit forbids it.
    async fn replace(&mut self, attempt: &Attempt) -> Result<bool, EthereumError> {
        let Some(newest) = attempt.transactions.last() else { return Ok(false) };
        match self.make_transaction(attempt, newest.nonce, Some(newest)).await {
            Ok(()) => Ok(true),
            Err(EthereumError::FeeLimit { needed, limit, .. }) => {
                tracing::warn!(needed, limit, "the fee limit is reached; waiting at the present fees");
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    /// Asks for the receipts of an attempt's transactions, newest first.
    async fn look_up(&self, attempt: &Attempt) -> Result<Found, EthereumError> {
        let newest_nonce = attempt.transactions.last().map(|t| t.nonce);
        let mut reverted = false;
        for transaction in attempt.transactions.iter().rev() {
            let Some(receipt) = self.endpoint().receipt(&transaction.hash).await? else { continue };
            if let Some(inclusion) = inclusion(&receipt) {
                if receipt.status() {
                    return Ok(Found::Included(inclusion));
                }
                // An older one that failed was answered by a newer one already.
                reverted |= Some(transaction.nonce) == newest_nonce;
            }
        }
        Ok(if reverted { Found::Reverted } else { Found::Nothing })
    }

    /// Whether somebody else's transaction brought the checkpoint onto the chain.
    async fn by_another(&self, checkpoint: &Checkpoint) -> Result<Option<Inclusion>, EthereumError> {
        let there = self.reader.checkpoint_of(&checkpoint.log_id, checkpoint.new_size, At::Latest).await?;
        match there {
            Some(there) if there.root == checkpoint.new_root => self.inclusion_by_event(checkpoint).await,
            _ => Ok(None),
        }
    }

    /// A transaction of the attempt is in a block and failed. If the checkpoint stands on chain all the same, or would be
    /// taken now, all is well; else it is given up with the contract's reason.
    async fn after_a_revert(&mut self, attempt: &Attempt) -> Result<(), EthereumError> {
        let payload = self.payload(attempt);
        match transact::estimate_gas(self.endpoint(), self.payer.address(), payload.to, &payload.data).await {
            Ok(_) => Ok(()),
            Err(error) if error.revert_data().is_some() => {
                if self.by_another(&attempt.checkpoint).await?.is_some() {
                    return Ok(());
                }
                Err(self.refused(attempt, error)?)
            }
            Err(error) => Err(error),
        }
    }

    /// The node says that the nonce is used. By one of ours, whose receipt may take a moment to show; or by a transaction the
    /// journal does not know, and then the attempt gets another nonce.
    async fn after_a_used_nonce(
        &mut self,
        id: u64,
        transaction: &SignedTransaction,
    ) -> Result<Option<Anchored>, EthereumError> {
        let Some(attempt) = self.journal.attempt(id).cloned() else { return Ok(None) };
        for _ in 0..4 {
            match self.look_up(&attempt).await? {
                Found::Included(inclusion) => return self.settle(&attempt, inclusion).map(Some),
                Found::Reverted => return Ok(None),
                Found::Nothing => continue_after(self.options.poll / 2).await,
            }
        }
        if let Some(inclusion) = self.by_another(&attempt.checkpoint).await? {
            return self.settle(&attempt, inclusion).map(Some);
        }
        let nonce = self.free_nonce().await?;
        if nonce > transaction.nonce {
            tracing::warn!(
                lost = transaction.nonce,
                nonce,
                "a transaction that the journal does not know used a nonce"
            );
            self.make_transaction(&attempt, nonce, None).await?;
        }
        Ok(None)
    }

    fn settle(&mut self, attempt: &Attempt, inclusion: Inclusion) -> Result<Anchored, EthereumError> {
        self.journal.included(attempt.id, inclusion)?;
        tracing::info!(%attempt, block = inclusion.block_number, gas = inclusion.gas_used, "anchored");
        Ok(anchored(&attempt.checkpoint, inclusion))
    }

    /// The journal's file.
    pub fn journal_path(&self) -> &Path {
        self.journal.path()
    }
}

/// Where a checkpoint begins and where it ends.
fn ends(c: &Checkpoint) -> (Head, Head) {
    (Head { size: c.old_size, root: c.old_root }, Head { size: c.new_size, root: c.new_root })
}

async fn continue_after(pause: Duration) {
    tokio::time::sleep(pause).await;
}

fn inclusion(receipt: &TransactionReceipt) -> Option<Inclusion> {
    Some(Inclusion {
        transaction: receipt.transaction_hash.0,
        block_number: receipt.block_number?,
        block_hash: receipt.block_hash?.0,
        gas_used: receipt.gas_used,
    })
}

fn anchored(checkpoint: &Checkpoint, inclusion: Inclusion) -> Anchored {
    Anchored {
        log_id: checkpoint.log_id,
        size: checkpoint.new_size,
        root: checkpoint.new_root,
        transaction: inclusion.transaction,
        block_number: inclusion.block_number,
        block_hash: inclusion.block_hash,
        gas_used: inclusion.gas_used,
    }
}
