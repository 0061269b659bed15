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
use super::journal::{Attempt, Holder, Inclusion, Journal, Spent};
use super::reader::{ChainReader, Heads};
use super::rpc::{At, Endpoint, RpcOptions};
use super::signer::OperatorKey;
use super::transact::{self, Fees, Market, Payload, Sent, SignedTransaction};

/// The writer's patience and limits.
#[derive(Debug, Clone)]
pub struct WriterOptions {
    /// For the endpoints.
    pub rpc: RpcOptions,
    /// Between two looks at whether a transaction is in a block.
    pub poll: Duration,
    /// After how long without a block the fees are raised.
    pub bump_after: Duration,
    /// After how long a call gives up waiting; the transaction stays in the journal and is followed up by the next call.
    pub give_up_after: Duration,
    /// Never offer more than this, in wei per gas.
    pub max_fee_per_gas: u128,
    /// Never spend more than this on a day (UTC, by the chain's clock), in wei. What may be spent is counted as spent until
    /// it is known what was.
    pub budget_per_day: Option<u128>,
}

impl Default for WriterOptions {
    fn default() -> Self {
        Self {
            rpc: RpcOptions::default(),
            poll: Duration::from_millis(500),
            bump_after: Duration::from_secs(45),
            give_up_after: Duration::from_secs(300),
            max_fee_per_gas: 500_000_000_000,
            budget_per_day: None,
        }
    }
}

/// Where a writer writes, and as whom.
#[derive(Clone)]
pub struct WriterConfig {
    /// URLs of the RPC endpoints, the preferred first. Transactions go to all of them.
    pub urls: Vec<String>,
    /// How many of them must agree about the chain's heads, nonces and code.
    pub quorum: usize,
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
        // URLs may hold credentials.
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

/// What gas costs, and what may still be spent: by the chain's newest block and the journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GasPrice {
    /// Wei per gas that a transaction pays now: the base fee and a tip.
    pub fee: u128,
    /// Wei per gas that it has to offer.
    pub offer: u128,
    /// Wei spent today, or reserved for what is on its way.
    pub spent: u128,
    /// Wei that the next checkpoint may cost, judged by the last one's gas.
    pub worst: u128,
    /// Milliseconds until the next day.
    pub renews_in_ms: i64,
}

/// Writes the checkpoints of one key's logs. See the [module](self).
#[derive(Debug)]
pub struct AnchorWriter {
    reader: ChainReader,
    signer: OperatorKey,
    payer: OperatorKey,
    journal: Journal,
    options: WriterOptions,
    /// Gas limit of the last checkpoint's transaction.
    last_gas: u64,
}

/// Gas of a checkpoint before there is one to judge by, with the margin of an estimate.
const TYPICAL_GAS: u64 = 100_000;
const DAY_S: u64 = 86_400;

/// What looking up an attempt's transactions found.
enum Found {
    Included(Box<TransactionReceipt>),
    Reverted(Box<TransactionReceipt>),
    Nothing,
}

impl AnchorWriter {
    /// Takes the journal's lease, then connects: checks the chain's id and, byte by byte, that the code at the contract's
    /// address is VerdictLog's. Sends nothing: what an earlier writer left under way is followed up by the first
    /// [`AnchorWriter::recover`] or [`AnchorWriter::advance`].
    pub async fn open(config: WriterConfig) -> Result<Self, EthereumError> {
        let WriterConfig { urls, quorum, domain, signer, payer, journal, options } = config;
        let holder = Holder { chain_id: domain.chain_id, contract: domain.contract, payer: payer.address() };
        let journal = Journal::open(&journal, holder)?;
        let endpoint = Endpoint::several(&urls, quorum, options.rpc.clone())?;
        let reader = ChainReader::over(endpoint, Some(domain.chain_id), domain.contract).await?;
        let used = reader.endpoint().nonce(payer.address()).await?;
        if journal.next_nonce() != 0 && used > journal.next_nonce() {
            tracing::warn!(account = %payer.address(), used, journaled = journal.next_nonce(),
                "this account sent transactions that the journal does not know; give the writer a key of its own");
        }
        Ok(Self { reader, signer, payer, journal, options, last_gas: TYPICAL_GAS })
    }

    /// The read side of the same contract.
    pub fn reader(&self) -> &ChainReader {
        &self.reader
    }

    /// What gas costs now, and what of the day's budget is spent.
    pub async fn price(&self) -> Result<GasPrice, EthereumError> {
        let market = transact::market(self.endpoint()).await?;
        let spent = self.committed_on(market.time / DAY_S, None);
        Ok(GasPrice {
            fee: u128::from(market.base) + market.fees.priority,
            offer: market.fees.max_fee,
            spent,
            worst: market.fees.max_fee.saturating_mul(u128::from(self.last_gas)),
            renews_in_ms: ((DAY_S - market.time % DAY_S) * 1000) as i64,
        })
    }

    /// Wei spent on a day, with what may still be spent for what is on its way, `but` for one attempt.
    fn committed_on(&self, day: u64, but: Option<u64>) -> u128 {
        let on_its_way = self.journal.attempts().iter().filter(|a| Some(a.id) != but).map(Attempt::worst);
        on_its_way.fold(self.journal.spent_on(day), u128::saturating_add)
    }

    /// Refuses what is dearer than the limits allow. `attempt` is the one that it is for, whose own transactions it replaces.
    fn allow(&self, market: Market, fees: Fees, gas: u64, attempt: Option<u64>) -> Result<(), EthereumError> {
        if fees.max_fee > self.options.max_fee_per_gas {
            return Err(EthereumError::FeeLimit {
                endpoint: self.endpoint().to_string(),
                needed: fees.max_fee,
                limit: self.options.max_fee_per_gas,
            });
        }
        let Some(budget) = self.options.budget_per_day else { return Ok(()) };
        let spent = self.committed_on(market.time / DAY_S, attempt);
        let needed = fees.max_fee.saturating_mul(u128::from(gas));
        if spent.saturating_add(needed) > budget {
            return Err(EthereumError::BudgetSpent { account: self.payer.address(), spent, budget, needed });
        }
        Ok(())
    }

    /// Checkpoints that are journaled but not in a block, as far as is known here.
    pub fn pending(&self) -> usize {
        self.journal.attempts().iter().filter(|a| a.included.is_none()).count()
    }

    /// Checkpoints that the journal holds: those on their way, and those in blocks that are not final yet.
    pub fn journaled(&self) -> usize {
        self.journal.attempts().len()
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
        let signature = self.signer.sign_checkpoint(&checkpoint, &self.reader.domain()).await?;
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
        // Before it is journaled: what cannot be paid for now waits, and a longer one is made in its place.
        let market = transact::market(self.endpoint()).await?;
        self.allow(market, market.fees, self.last_gas, None)?;
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
            cost: Spent::default(),
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
                Found::Included(receipt) => return self.settle_by(&attempt, &receipt).await,
                Found::Reverted(receipt) => {
                    let cost = self.cost(&receipt).await?;
                    self.journal.reverted(id, receipt.transaction_hash.0, cost)?;
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
                if !self.fill_a_gap(&attempt).await? {
                    self.replace(&attempt).await?;
                }
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
        let market = transact::market(self.endpoint()).await?;
        let fees = replaced.map_or(market.fees, |t| t.fees.replacing(market.fees));
        if let Err(error) = self.allow(market, fees, gas_limit, Some(attempt.id)) {
            // Nothing of it was ever sent: a longer checkpoint is made when it can be paid for.
            if attempt.transactions.is_empty() {
                self.journal.abandoned(attempt.id, &error.to_string())?;
            }
            return Err(error);
        }
        self.last_gas = gas_limit;
        let transaction = transact::sign(&self.payer, &payload, nonce, gas_limit, fees).await?;
        tracing::debug!(nonce, max_fee = fees.max_fee, %attempt, "signed");
        self.journal.add(attempt.id, transaction)
    }

    /// The contract would refuse the attempt. It is given up, unless it will be taken once an earlier one is there again.
    fn refused(&mut self, attempt: &Attempt, error: EthereumError) -> Result<EthereumError, EthereumError> {
        let old_size = attempt.checkpoint.old_size;
        let error = self.reader.explain(error, "advance", old_size);
        let earlier =
            |a: &Attempt| a.checkpoint.log_id == attempt.checkpoint.log_id && a.checkpoint.new_size == old_size;
        if matches!(error, EthereumError::HeadMoved { head_size, .. } if head_size < old_size)
            && self.journal.attempts().iter().any(earlier)
        {
            return Ok(error);
        }
        self.journal.abandoned(attempt.id, &error.to_string())?;
        Ok(error)
    }

    /// A reorg may take a transaction back that is not ours, and with it the nonce before ours: then ours waits for one that never
    /// comes. Makes a transaction for the nonce that the chain waits for, if that is what happened. (It is none of ours: those of
    /// earlier attempts are in blocks before a later one is worked at; and if a reorg has just taken one of them back, the
    /// contract refuses this one, and the next call begins with that.)
    async fn fill_a_gap(&mut self, attempt: &Attempt) -> Result<bool, EthereumError> {
        let next = self.endpoint().nonce(self.payer.address()).await?;
        if attempt.transactions.last().is_none_or(|newest| newest.nonce <= next) {
            return Ok(false);
        }
        tracing::warn!(nonce = next, "a reorg left a gap before the nonces in use; filling it");
        self.make_transaction(attempt, next, None).await?;
        Ok(true)
    }

    /// Replaces an attempt's newest transaction by one with higher fees; false if the limit forbids it.
    async fn replace(&mut self, attempt: &Attempt) -> Result<bool, EthereumError> {
        let Some(newest) = attempt.transactions.last() else { return Ok(false) };
        match self.make_transaction(attempt, newest.nonce, Some(newest)).await {
            Ok(()) => Ok(true),
            Err(error @ (EthereumError::FeeLimit { .. } | EthereumError::BudgetSpent { .. })) => {
                tracing::warn!(%error, "waiting at the present fees");
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    /// Asks for the receipts of an attempt's transactions, newest first.
    async fn look_up(&self, attempt: &Attempt) -> Result<Found, EthereumError> {
        let newest_nonce = attempt.transactions.last().map(|t| t.nonce);
        let mut reverted = None;
        for transaction in attempt.transactions.iter().rev() {
            let Some(receipt) = self.endpoint().receipt(&transaction.hash).await? else { continue };
            if receipt.block_number.is_none() || receipt.block_hash.is_none() {
                continue;
            }
            if receipt.status() {
                if self.is_on_chain(attempt).await? {
                    return Ok(Found::Included(Box::new(receipt)));
                }
            } else if Some(transaction.nonce) == newest_nonce {
                // An older one that failed was answered by a newer one already.
                reverted.get_or_insert(receipt);
            }
        }
        Ok(reverted.map_or(Found::Nothing, |receipt| Found::Reverted(Box::new(receipt))))
    }

    /// Whether the contract shows what a receipt says. The receipt is one node's word, and may be of a block that a reorg has
    /// taken back; the head is what a quorum says of the newest block.
    async fn is_on_chain(&self, attempt: &Attempt) -> Result<bool, EthereumError> {
        let head = self.reader.head(&attempt.checkpoint.log_id, At::Latest).await?;
        Ok(head.size >= attempt.checkpoint.new_size)
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
                Found::Included(receipt) => return self.settle_by(&attempt, &receipt).await.map(Some),
                Found::Reverted(_) => return Ok(None),
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

    /// What a transaction cost, on the chain's present day.
    async fn cost(&self, receipt: &TransactionReceipt) -> Result<Spent, EthereumError> {
        let time = self.endpoint().block(At::Latest).await?.map_or(0, |b| b.header.timestamp);
        let wei = receipt.effective_gas_price.saturating_mul(u128::from(receipt.gas_used));
        Ok(Spent { day: time / DAY_S, wei })
    }

    async fn settle_by(&mut self, attempt: &Attempt, receipt: &TransactionReceipt) -> Result<Anchored, EthereumError> {
        let cost = self.cost(receipt).await?;
        let inclusion = Inclusion {
            transaction: receipt.transaction_hash.0,
            block_number: receipt.block_number.unwrap_or_default(),
            block_hash: receipt.block_hash.unwrap_or_default().0,
            gas_used: receipt.gas_used,
            cost,
        };
        self.settle(attempt, inclusion)
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
