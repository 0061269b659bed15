//! A chain as the input log of a lane: blocks, or events of contracts, each a record at an offset that never changes.
//!
//! ```text
//!   eth_getBlockByNumber("finalized") ─► how far
//!   blocks: eth_getBlockByNumber(n)   ─┐
//!   events: eth_getLogs(n … m)        ─┴─► one JSON object a record ─► the lane's decoder
//! ```
//!
//! - **Only what is final.** Nothing is read past the chain's `finalized` block, so no reorganisation takes a record back,
//!   and reading again gives the same records. That is about a quarter of an hour behind the newest block on Ethereum.
//! - **Offsets.** A block's number times 2²⁰; an event adds its place in its block (`logIndex`). They grow, with holes,
//!   which a lane does not mind, and they do not depend on which events are asked for.
//! - **Timestamp.** A record has its block's time: the chain is the witness that `max_future` is held against.
//! - **Values.** What the schema's fields ask for: see [`Columns`]. An event whose first topic fits and whose layout does
//!   not (ERC-721's `Transfer` where ERC-20's was meant) is a record too, so that it becomes a dead letter:
//!   see [`ChainBatch::finding`].
//! - **Trust.** A single endpoint is believed, and only asked about events up to a block that it has. Of several, a quorum must
//!   give the same blocks and events; one that keeps an event to itself is found out.
//! - **Failures** that may pass are waited for. If a node refuses a range as too large, smaller ones are asked for.

mod columns;
mod event;
#[cfg(test)]
mod tests;

use std::time::{Duration, Instant};

use alloy::primitives::{Address, B256, U64};
use alloy::rpc::types::{Block, Log};
use avouch_engine::decode::RawRecord;
use serde_json::json;
use tokio::runtime::Handle;
use tokio::task::JoinSet;

pub use columns::{ColumnError, Columns};
pub use event::{ContractEvent, EventError};

use super::error::EthereumError;
use super::quorum::compared_of_logs;
use super::rpc::{At, Endpoint};

/// Bits of an offset that are the event's place in its block.
const PLACE_BITS: u32 = 20;
/// Blocks asked for at the same time.
const ABREAST: u64 = 16;
/// Blocks that one search for events spans at most.
const LARGEST_SPAN: u64 = 2_000;
/// How often the newest final block is asked for, once everything before was read.
const LOOK_AGAIN: Duration = Duration::from_secs(2);

/// What is read of a chain.
#[derive(Debug, Clone)]
pub enum Reads {
    /// Every block, a record each.
    Blocks,
    /// Events of contracts.
    Events {
        /// Of these contracts; of all if there is none.
        contracts: Vec<Address>,
        /// These.
        events: Vec<ContractEvent>,
    },
}

/// What to read and how.
#[derive(Debug, Clone)]
pub struct ChainLogOptions {
    /// Whom to ask.
    pub endpoint: Endpoint,
    /// The chain it must serve.
    pub chain_id: u64,
    /// What is read.
    pub reads: Reads,
    /// The fields of a record.
    pub columns: Columns,
    /// The first block.
    pub from_block: u64,
}

/// Reads the log. Blocks; made for a thread of its own.
pub struct ChainLog {
    options: ChainLogOptions,
    runtime: Handle,
    /// Offset of the next record, or less: nothing that is wanted lies between.
    next: i64,
    /// The newest final block that is known of; none before the first answer.
    finalized: Option<u64>,
    looked: Option<Instant>,
    span: u64,
    /// Read and not handed out yet.
    waiting: std::vec::IntoIter<Record>,
    /// Whether the last request failed.
    failing: bool,
    /// Whether one has since [`ChainLog::was_listening`] was last asked.
    failed: bool,
}

#[derive(Debug)]
struct Record {
    offset: i64,
    timestamp: i64,
    /// The decoder's.
    value: String,
    problem: Option<Problem>,
}

/// An event that is not what it was taken for.
#[derive(Debug)]
struct Problem {
    why: String,
    raw: String,
}

/// The offset of a block's first record.
fn offset_of(block: u64) -> i64 {
    // 2⁴³ blocks are not reached in a million years of seconds.
    i64::try_from(block).unwrap_or(i64::MAX >> PLACE_BITS).saturating_mul(1 << PLACE_BITS)
}

fn block_of(offset: i64) -> u64 {
    u64::try_from(offset >> PLACE_BITS).unwrap_or(0)
}

impl ChainLog {
    /// Opens the log to read on at offset `start` (`None`: at `from_block`). Asks the endpoint for its chain. Blocks, but not
    /// within the async runtime that `runtime` belongs to.
    ///
    /// # Errors
    /// [`EthereumError::WrongChain`], and what keeps the endpoint from answering within its budget.
    pub fn open(options: ChainLogOptions, runtime: Handle, start: Option<i64>) -> Result<Self, EthereumError> {
        runtime.block_on(options.endpoint.require_chain(options.chain_id))?;
        Ok(Self {
            next: start.unwrap_or(0).max(offset_of(options.from_block)),
            options,
            runtime,
            finalized: None,
            looked: None,
            span: LARGEST_SPAN,
            waiting: Vec::new().into_iter(),
            failing: false,
            failed: false,
        })
    }

    /// How many final blocks lie behind `next_offset`, as far as that is known without asking.
    pub fn blocks_behind(&self, next_offset: i64) -> Option<i64> {
        let next = block_of(next_offset.max(self.next));
        self.finalized.map(|last| i64::try_from((last + 1).saturating_sub(next)).unwrap_or(i64::MAX))
    }

    /// Whether the endpoint, asked now, has no final block behind `next_offset` or behind what was read.
    pub fn is_at_end(&self, next_offset: i64) -> bool {
        let next = block_of(next_offset.max(self.next));
        self.waiting.len() == 0
            && matches!(self.runtime.block_on(final_block(&self.options.endpoint)), Ok(last) if last < next)
    }

    /// Whether no request has failed since this was last asked.
    pub fn was_listening(&mut self) -> bool {
        !std::mem::replace(&mut self.failed, self.failing)
    }

    /// The next records, at most `most`. Waits at most `timeout` when there are none, besides for the endpoint's answer.
    ///
    /// # Errors
    /// What does not pass by itself; the rest is logged, and the batch empty.
    pub fn poll(&mut self, timeout: Duration, most: usize) -> Result<ChainBatch, EthereumError> {
        if self.waiting.len() == 0
            && let Err(error) = self.fill()
        {
            if !error.retryable() {
                return Err(error);
            }
            if !self.failing {
                tracing::warn!(%error, "reading the chain; trying again");
            }
            (self.failing, self.failed) = (true, true);
            std::thread::sleep(timeout);
            return Ok(ChainBatch::default());
        }
        self.failing = false;
        let records: Vec<Record> = self.waiting.by_ref().take(most).collect();
        let at_end = self.waiting.len() == 0 && self.finalized.is_some_and(|last| last < block_of(self.next));
        if records.is_empty() && at_end {
            std::thread::sleep(timeout);
        }
        Ok(ChainBatch { records, end: at_end.then_some(self.next) })
    }

    /// Reads the next blocks, or the events of the next blocks, as far as they are final.
    fn fill(&mut self) -> Result<(), EthereumError> {
        let first = block_of(self.next);
        let known = self.finalized.filter(|last| *last >= first);
        let last = match known {
            Some(last) => last,
            None if self.looked.is_some_and(|at| at.elapsed() < LOOK_AGAIN) => return Ok(()),
            None => {
                let last = self.runtime.block_on(final_block(&self.options.endpoint))?;
                self.looked = Some(Instant::now());
                // A node that lags behind another one of its service may know less than we were told before.
                self.finalized = self.finalized.max(Some(last));
                if last < first {
                    return Ok(());
                }
                last
            }
        };
        let (records, to) = match &self.options.reads {
            Reads::Blocks => {
                let to = last.min(first + ABREAST - 1);
                (self.runtime.block_on(blocks(&self.options, first, to))?, to)
            }
            Reads::Events { contracts, events } => {
                let to = last.min(first.saturating_add(self.span - 1));
                let found = self.runtime.block_on(events_in(&self.options, contracts, events, first, to));
                match found {
                    // Nodes say in many ways that a range holds too much.
                    Err(
                        EthereumError::Rpc { .. }
                        | EthereumError::Timeout { .. }
                        | EthereumError::Http { .. }
                        | EthereumError::NoQuorum { .. },
                    ) if to > first => {
                        self.span = (to - first + 1).div_ceil(2);
                        tracing::debug!(span = self.span, "asking for events of fewer blocks");
                        return Ok(());
                    }
                    Err(e) => return Err(e),
                    Ok(records) => {
                        self.span = (self.span * 2).min(LARGEST_SPAN);
                        (records, to)
                    }
                }
            }
        };
        let from = self.next;
        self.next = offset_of(to + 1);
        self.waiting = records.into_iter().filter(|r| r.offset >= from).collect::<Vec<_>>().into_iter();
        Ok(())
    }
}

async fn final_block(endpoint: &Endpoint) -> Result<u64, EthereumError> {
    let block = endpoint.newest(At::Finalized).await?;
    // A chain that has just begun has none.
    Ok(block.map_or(0, |b| b.header.number))
}

async fn block(endpoint: &Endpoint, number: u64) -> Result<Block, EthereumError> {
    let (method, params) = ("eth_getBlockByNumber", json!([U64::from(number), false]));
    let block: Option<Block> = endpoint.agreed(method, params, None, |block| block["hash"].clone()).await?;
    block.ok_or_else(|| EthereumError::Malformed {
        endpoint: endpoint.to_string(),
        method: "eth_getBlockByNumber".to_owned(),
        reason: format!("block {number} is final, and the node does not have it"),
    })
}

async fn blocks(options: &ChainLogOptions, first: u64, to: u64) -> Result<Vec<Record>, EthereumError> {
    let mut asked = JoinSet::new();
    for number in first..=to {
        let endpoint = options.endpoint.clone();
        asked.spawn(async move { (number, block(&endpoint, number).await) });
    }
    let mut answers = asked.join_all().await;
    answers.sort_unstable_by_key(|(number, _)| *number);
    answers
        .into_iter()
        .map(|(number, block)| {
            let block = block?;
            Ok(Record {
                offset: offset_of(number),
                timestamp: milliseconds(block.header.timestamp),
                value: options.columns.of_block(&block),
                problem: None,
            })
        })
        .collect()
}

fn milliseconds(seconds: u64) -> i64 {
    i64::try_from(seconds.saturating_mul(1000)).unwrap_or(i64::MAX)
}

async fn events_in(
    options: &ChainLogOptions,
    contracts: &[Address],
    events: &[ContractEvent],
    first: u64,
    to: u64,
) -> Result<Vec<Record>, EthereumError> {
    let topics: Vec<B256> = events.iter().map(ContractEvent::topic).collect();
    let mut filter = json!({ "fromBlock": U64::from(first), "toBlock": U64::from(to), "topics": [topics] });
    if !contracts.is_empty() {
        filter["address"] = json!(contracts);
    }
    let mut logs: Vec<Log> =
        options.endpoint.agreed("eth_getLogs", json!([filter]), Some(to), compared_of_logs).await?;
    let malformed = |reason: String| EthereumError::Malformed {
        endpoint: options.endpoint.to_string(),
        method: "eth_getLogs".to_owned(),
        reason,
    };
    if logs.iter().any(|l| l.block_number.is_none() || l.log_index.is_none()) {
        return Err(malformed("an event without a block or a place in it".to_owned()));
    }
    logs.sort_by_key(|l| (l.block_number, l.log_index));
    let mut seconds: Option<(u64, u64)> = None;
    let mut out: Vec<Record> = Vec::with_capacity(logs.len());
    for log in logs {
        let (number, place) = (log.block_number.unwrap_or_default(), log.log_index.unwrap_or_default());
        if place >= 1 << PLACE_BITS {
            return Err(malformed(format!("block {number} has an event at {place}")));
        }
        let time = match (log.block_timestamp, seconds) {
            (Some(time), _) => time,
            (None, Some((of, time))) if of == number => time,
            (None, _) => block(&options.endpoint, number).await?.header.timestamp,
        };
        seconds = Some((number, time));
        let offset = offset_of(number) + place as i64;
        if out.last().is_some_and(|r| r.offset >= offset) {
            return Err(malformed(format!("two events at place {place} of block {number}")));
        }
        let (value, problem) = match options.columns.of_event(&log, time, events) {
            Ok(value) => (value, None),
            Err(why) => (String::new(), Some(Problem { why, raw: json!(log.inner).to_string() })),
        };
        out.push(Record { offset, timestamp: milliseconds(time), value, problem });
    }
    Ok(out)
}

/// Records of a [`ChainLog`].
#[derive(Debug, Default)]
pub struct ChainBatch {
    records: Vec<Record>,
    end: Option<i64>,
}

/// What is known of a record besides its value, for its dead letter.
#[derive(Debug, PartialEq, Eq)]
pub struct ChainFinding<'a> {
    /// Block and place, as in `block 19000000, event 17`.
    pub place: String,
    /// What is wrong with it, if it could not be made a value.
    pub problem: Option<&'a str>,
    /// The event as the node gave it, then.
    pub raw: Option<&'a [u8]>,
}

impl ChainBatch {
    /// Whether it has no record.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// Where to go on, if everything final was read.
    pub fn end(&self) -> Option<i64> {
        self.end
    }

    /// Appends the records. One that is no value has an empty one: the decoder refuses it, and [`ChainBatch::finding`] has the
    /// rest.
    pub fn records<'a>(&'a self, out: &mut Vec<RawRecord<'a>>) {
        out.extend(self.records.iter().map(|r| RawRecord {
            offset: r.offset,
            timestamp: r.timestamp,
            key: None,
            value: Some(r.value.as_bytes()),
            origin: None,
            signature: None,
        }));
    }

    /// What is known of the record at `offset`, if it is one of these.
    pub fn finding(&self, offset: i64) -> Option<ChainFinding<'_>> {
        let record = &self.records[self.records.binary_search_by_key(&offset, |r| r.offset).ok()?];
        Some(ChainFinding {
            place: format!("block {}, event {}", block_of(offset), offset & ((1 << PLACE_BITS) - 1)),
            problem: record.problem.as_ref().map(|p| p.why.as_str()),
            raw: record.problem.as_ref().map(|p| p.raw.as_bytes()),
        })
    }
}
