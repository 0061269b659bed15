//! The writer's journal: what was signed, before it is sent, and what became of it.
//!
//! It also says what was spent for gas on the present day, so that a restart does not begin the day's budget anew.
//!
//! An append-only file of frames, each written and fsynced before anything that rests on it is done:
//!
//! ```text
//! "avouchJ1"  then frames:  length u32 | length XOR 0xA5A5A5A5 u32 | SHA-256(payload)[..8] | payload
//! ```
//!
//! The first frame says whose journal it is (chain, contract, paying account) and at which nonce and attempt it goes on.
//! An *attempt* is one signed checkpoint with its proof; it has one or more *transactions* (replacements at higher fees
//! and, where a nonce was lost, at another nonce); it ends *included*, *abandoned* or, at last, *final*. An included
//! attempt is *reopened* when a reorg takes it back.
//!
//! A crash while appending leaves a torn last frame. What it would have said was not acted upon yet, so it is cut off,
//! and the cut is reported. Damage anywhere else is an error: a lost transaction could otherwise be signed twice.
//!
//! Signatures and raw transactions are kept as they were made, and never made again: a key that lies elsewhere (AWS KMS) signs the same
//! hash with other bytes each time, and another transaction would have another hash to look for.
//!
//! The lease is an exclusive lock on `<journal>.lock`, held as long as the journal is open, and given up by the operating
//! system if the process dies.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use alloy::primitives::Address;
use avouch_engine::codec::{CodecError, Reader, Writer};
use avouch_engine::verdict::Hash32;
use sha2::{Digest, Sha256};

use super::checkpoint::Checkpoint;
use super::error::{EthereumError, show};
use super::transact::{Fees, SignedTransaction};

const MAGIC: &[u8; 8] = b"avouchJ1";
const FRAME_HEAD: usize = 16;
const MASK: u32 = 0xA5A5_A5A5;
/// A journal above this size is rewritten with what is not final when it is opened.
const COMPACT_ABOVE: u64 = 1 << 20;

/// Whose journal it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Holder {
    pub chain_id: u64,
    pub contract: Address,
    pub payer: Address,
}

impl std::fmt::Display for Holder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "account {} at contract {} on chain {}", self.payer, self.contract, self.chain_id)
    }
}

/// Where a transaction was included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Inclusion {
    pub transaction: Hash32,
    pub block_number: u64,
    pub block_hash: Hash32,
    /// 0 when somebody else's transaction carried the checkpoint.
    pub gas_used: u64,
    /// What it cost, on which day.
    pub cost: Spent,
}

/// What was spent for gas on a day.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Spent {
    /// Days since the Unix epoch, UTC, by the chain's clock.
    pub day: u64,
    pub wei: u128,
}

impl Spent {
    /// Adds a cost. One of a later day begins that day; one of an earlier day is past.
    fn add(&mut self, cost: Spent) {
        match cost.day.cmp(&self.day) {
            std::cmp::Ordering::Greater => *self = cost,
            std::cmp::Ordering::Equal => self.wei = self.wei.saturating_add(cost.wei),
            std::cmp::Ordering::Less => {}
        }
    }

    /// Takes a cost back: what it was for is not on chain any more.
    fn take_back(&mut self, cost: Spent) {
        if cost.day == self.day {
            self.wei = self.wei.saturating_sub(cost.wei);
        }
    }
}

/// One signed checkpoint on its way, or on chain but not final.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Attempt {
    pub id: u64,
    pub checkpoint: Checkpoint,
    pub proof: Vec<Hash32>,
    pub signature: Vec<u8>,
    pub transactions: Vec<SignedTransaction>,
    /// Of these, those that are in blocks and failed.
    pub reverted: Vec<Hash32>,
    pub included: Option<Inclusion>,
}

impl Attempt {
    /// The most that it can still cost, in wei: one of its transactions gets into a block.
    pub(crate) fn worst(&self) -> u128 {
        if self.included.is_some() {
            return 0;
        }
        self.transactions.iter().map(SignedTransaction::worst).max().unwrap_or(0)
    }
}

/// What a journal says, without its file.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
struct State {
    attempts: Vec<Attempt>,
    next_id: u64,
    next_nonce: u64,
    spent: Spent,
}

/// An open journal. It holds the lease.
#[derive(Debug)]
pub(crate) struct Journal {
    path: PathBuf,
    file: File,
    /// Bytes of whole records.
    length: u64,
    state: State,
    torn_bytes: u64,
    _lease: File,
}

impl Journal {
    /// Opens or creates a journal, takes the lease, reads what it says and cuts off a torn last frame.
    pub(crate) fn open(path: &Path, holder: Holder) -> Result<Self, EthereumError> {
        let fail = |what: &str, e: std::io::Error| EthereumError::Journal {
            path: path.to_owned(),
            reason: format!("cannot {what}: {e}"),
        };
        if let Some(dir) = path.parent().filter(|d| !d.as_os_str().is_empty()) {
            std::fs::create_dir_all(dir).map_err(|e| fail("create its directory", e))?;
        }
        let lease = take_lease(path)?;
        let mut file =
            OpenOptions::new().read(true).append(true).create(true).open(path).map_err(|e| fail("open it", e))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(|e| fail("read it", e))?;
        let (state, good) = read_all(path, &bytes, holder)?;
        let torn_bytes = (bytes.len() - good) as u64;
        let mut journal = Self { path: path.to_owned(), file, length: good as u64, state, torn_bytes, _lease: lease };
        if torn_bytes > 0 {
            tracing::warn!(journal = %path.display(), torn_bytes, "cut off a record that a crash left unfinished");
            journal.file.set_len(good as u64).map_err(|e| fail("cut off its torn end", e))?;
            journal.file.sync_all().map_err(|e| fail("sync it", e))?;
        }
        if good == 0 || good as u64 > COMPACT_ABOVE {
            journal.rewrite(holder)?;
        }
        Ok(journal)
    }

    /// Attempts that are not final, oldest first.
    pub(crate) fn attempts(&self) -> &[Attempt] {
        &self.state.attempts
    }

    pub(crate) fn attempt(&self, id: u64) -> Option<&Attempt> {
        self.state.attempts.iter().find(|a| a.id == id)
    }

    /// The nonce after the highest one this journal ever used.
    pub(crate) fn next_nonce(&self) -> u64 {
        self.state.next_nonce
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Bytes of an unfinished record that were cut off when it was opened.
    pub(crate) fn torn_bytes(&self) -> u64 {
        self.torn_bytes
    }

    /// A new attempt. It is not sent before a transaction of it is added.
    pub(crate) fn begin(
        &mut self,
        checkpoint: Checkpoint,
        proof: Vec<Hash32>,
        signature: Vec<u8>,
    ) -> Result<u64, EthereumError> {
        let id = self.state.next_id;
        self.record(Record::Begun(Box::new(Attempt {
            id,
            checkpoint,
            proof,
            signature,
            transactions: Vec::new(),
            reverted: Vec::new(),
            included: None,
        })))?;
        Ok(id)
    }

    /// A transaction of an attempt. Once this returns it may be sent.
    pub(crate) fn add(&mut self, id: u64, transaction: SignedTransaction) -> Result<(), EthereumError> {
        self.record(Record::Signed(id, transaction))
    }

    pub(crate) fn included(&mut self, id: u64, inclusion: Inclusion) -> Result<(), EthereumError> {
        self.record(Record::Included(id, inclusion))
    }

    /// A transaction of an attempt is in a block and failed; it cost its gas all the same. Saying it again changes nothing.
    pub(crate) fn reverted(&mut self, id: u64, transaction: Hash32, cost: Spent) -> Result<(), EthereumError> {
        match self.attempt(id) {
            Some(a) if !a.reverted.contains(&transaction) => self.record(Record::Reverted(id, transaction, cost)),
            _ => Ok(()),
        }
    }

    /// What was spent on a day, as far as it is remembered: the newest day of all.
    pub(crate) fn spent_on(&self, day: u64) -> u128 {
        if self.state.spent.day == day { self.state.spent.wei } else { 0 }
    }

    pub(crate) fn reopened(&mut self, id: u64) -> Result<(), EthereumError> {
        self.record(Record::Reopened(id))
    }

    pub(crate) fn abandoned(&mut self, id: u64, reason: &str) -> Result<(), EthereumError> {
        self.record(Record::Abandoned(id, reason.to_owned()))
    }

    pub(crate) fn finalized(&mut self, id: u64) -> Result<(), EthereumError> {
        self.record(Record::Final(id))
    }

    fn record(&mut self, record: Record) -> Result<(), EthereumError> {
        let fail = |e: std::io::Error| EthereumError::Journal {
            path: self.path.clone(),
            reason: format!("cannot append to it: {e}"),
        };
        let bytes = frame(&record.to_bytes());
        if let Err(error) = self.file.write_all(&bytes).and_then(|()| self.file.sync_data()) {
            // A full disk leaves half a record, which must not stand before the next one.
            let cut = self.file.set_len(self.length).and_then(|()| self.file.sync_data());
            cut.map_err(fail)?;
            return Err(fail(error));
        }
        self.length += bytes.len() as u64;
        self.state.apply(record);
        Ok(())
    }

    /// Writes the journal anew, with what still matters, and puts it in the old one's place at once.
    fn rewrite(&mut self, holder: Holder) -> Result<(), EthereumError> {
        let fail = |e: std::io::Error| EthereumError::Journal {
            path: self.path.clone(),
            reason: format!("cannot rewrite it: {e}"),
        };
        let mut bytes = MAGIC.to_vec();
        let head = Record::Head(holder, self.state.next_id, self.state.next_nonce);
        bytes.extend(frame(&head.to_bytes()));
        for attempt in &self.state.attempts {
            let bare = Attempt { transactions: Vec::new(), reverted: Vec::new(), included: None, ..attempt.clone() };
            bytes.extend(frame(&Record::Begun(Box::new(bare)).to_bytes()));
            for transaction in &attempt.transactions {
                bytes.extend(frame(&Record::Signed(attempt.id, transaction.clone()).to_bytes()));
            }
            for hash in &attempt.reverted {
                bytes.extend(frame(&Record::Reverted(attempt.id, *hash, Spent::default()).to_bytes()));
            }
            if let Some(inclusion) = attempt.included {
                bytes.extend(frame(&Record::Included(attempt.id, inclusion).to_bytes()));
            }
        }
        // Last: it holds whatever the records before it say.
        if self.state.spent != Spent::default() {
            bytes.extend(frame(&Record::Spent(self.state.spent).to_bytes()));
        }
        let mut name = self.path.as_os_str().to_owned();
        name.push(".new");
        let fresh = PathBuf::from(name);
        let mut file = File::create(&fresh).map_err(fail)?;
        file.write_all(&bytes).map_err(fail)?;
        file.sync_all().map_err(fail)?;
        std::fs::rename(&fresh, &self.path).map_err(fail)?;
        let dir = self.path.parent().filter(|d| !d.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(dir).and_then(|d| d.sync_all()).map_err(fail)?;
        self.file = OpenOptions::new().read(true).append(true).open(&self.path).map_err(fail)?;
        self.length = bytes.len() as u64;
        Ok(())
    }
}

fn take_lease(path: &Path) -> Result<File, EthereumError> {
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    let lock = PathBuf::from(name);
    let fail =
        |e: std::io::Error| EthereumError::Journal { path: lock.clone(), reason: format!("cannot lock it: {e}") };
    let file = OpenOptions::new().create(true).truncate(false).write(true).open(&lock).map_err(fail)?;
    // A writer that was just dropped may seem to hold it for a moment still: a child process that another thread starts has
    // every open file of ours until it runs its program.
    for last in [false, false, false, false, true] {
        match file.try_lock() {
            Ok(()) => break,
            Err(TryLockError::WouldBlock) if last => return Err(EthereumError::JournalBusy { path: path.to_owned() }),
            Err(TryLockError::WouldBlock) => std::thread::sleep(std::time::Duration::from_millis(50)),
            Err(TryLockError::Error(e)) => return Err(fail(e)),
        }
    }
    Ok(file)
}

fn checksum(payload: &[u8]) -> [u8; 8] {
    let digest: Hash32 = Sha256::digest(payload).into();
    let mut out = [0; 8];
    out.copy_from_slice(&digest[..8]);
    out
}

fn frame(payload: &[u8]) -> Vec<u8> {
    let mut w = Writer::new();
    w.u32(payload.len() as u32);
    w.u32(payload.len() as u32 ^ MASK);
    w.raw(&checksum(payload));
    w.raw(payload);
    w.bytes
}

/// Reads all frames; returns what they say and how many bytes are good.
fn read_all(path: &Path, bytes: &[u8], holder: Holder) -> Result<(State, usize), EthereumError> {
    let damaged = |at: usize, reason: &str| EthereumError::JournalDamaged {
        path: path.to_owned(),
        at: at as u64,
        reason: reason.to_owned(),
    };
    let mut state = State::default();
    if bytes.len() < MAGIC.len() {
        // A crash right after it was created; a longer file with other bytes is not a journal.
        return if MAGIC.starts_with(bytes) { Ok((state, 0)) } else { Err(damaged(0, "this is no journal")) };
    }
    if !bytes.starts_with(MAGIC) {
        return Err(damaged(0, "this is no journal of this version"));
    }
    let mut at = MAGIC.len();
    let mut headed = false;
    while at < bytes.len() {
        let payload = match next_frame(&bytes[at..]) {
            Frame::Whole(payload) => payload,
            Frame::Torn => break,
            Frame::Damaged(reason) => return Err(damaged(at, reason)),
        };
        let record = Record::from_bytes(payload).map_err(|e| damaged(at, &e.to_string()))?;
        match (&record, headed) {
            (Record::Head(found, ..), false) if *found != holder => {
                return Err(EthereumError::JournalForeign {
                    path: path.to_owned(),
                    found: found.to_string(),
                    expected: holder.to_string(),
                });
            }
            (Record::Head(..), false) => headed = true,
            (Record::Head(..), true) => return Err(damaged(at, "a second head")),
            (_, false) => return Err(damaged(at, "it does not begin with its head")),
            (_, true) => {}
        }
        state.apply(record);
        at += FRAME_HEAD + payload.len();
    }
    // Without its head nothing was recorded yet.
    Ok((state, if headed { at } else { 0 }))
}

enum Frame<'a> {
    Whole(&'a [u8]),
    Torn,
    Damaged(&'static str),
}

fn next_frame(rest: &[u8]) -> Frame<'_> {
    // File systems may fill what was not written yet with zeros.
    if rest.len() < FRAME_HEAD || rest.iter().all(|b| *b == 0) {
        return Frame::Torn;
    }
    let word = |i: usize| u32::from_le_bytes([rest[i], rest[i + 1], rest[i + 2], rest[i + 3]]);
    let length = word(0);
    if word(4) != length ^ MASK {
        return Frame::Damaged("a record's length is not readable");
    }
    let end = FRAME_HEAD + length as usize;
    if rest.len() < end {
        return Frame::Torn;
    }
    let payload = &rest[FRAME_HEAD..end];
    if rest[8..16] == checksum(payload) {
        return Frame::Whole(payload);
    }
    // The last record may have its length on disk and not all of its bytes; any other one was whole once.
    if rest.len() == end { Frame::Torn } else { Frame::Damaged("a record's checksum is wrong") }
}

/// One frame's meaning.
enum Record {
    Head(Holder, u64, u64),
    Begun(Box<Attempt>),
    Signed(u64, SignedTransaction),
    Included(u64, Inclusion),
    Reopened(u64),
    Abandoned(u64, String),
    Final(u64),
    Spent(Spent),
    Reverted(u64, Hash32, Spent),
}

impl State {
    fn apply(&mut self, record: Record) {
        match record {
            Record::Head(_, next_id, next_nonce) => {
                self.next_id = next_id;
                self.next_nonce = next_nonce;
            }
            Record::Begun(attempt) => {
                self.next_id = self.next_id.max(attempt.id + 1);
                self.attempts.push(*attempt);
            }
            Record::Signed(id, transaction) => {
                self.next_nonce = self.next_nonce.max(transaction.nonce + 1);
                self.with(id, |a| a.transactions.push(transaction));
            }
            Record::Included(id, inclusion) => {
                self.spent.add(inclusion.cost);
                self.with(id, |a| a.included = Some(inclusion));
            }
            Record::Reopened(id) => {
                let mut cost = None;
                self.with(id, |a| cost = a.included.take().map(|i| i.cost));
                self.spent.take_back(cost.unwrap_or_default());
            }
            Record::Spent(spent) => self.spent = spent,
            Record::Reverted(id, transaction, cost) => {
                self.spent.add(cost);
                self.with(id, |a| a.reverted.push(transaction));
            }
            Record::Abandoned(id, reason) => {
                tracing::debug!(attempt = id, %reason, "abandoned");
                self.attempts.retain(|a| a.id != id);
            }
            Record::Final(id) => self.attempts.retain(|a| a.id != id),
        }
    }

    fn with(&mut self, id: u64, change: impl FnOnce(&mut Attempt)) {
        if let Some(attempt) = self.attempts.iter_mut().find(|a| a.id == id) {
            change(attempt);
        }
    }
}

impl Record {
    fn to_bytes(&self) -> Vec<u8> {
        let mut w = Writer::new();
        match self {
            Record::Head(holder, next_id, next_nonce) => {
                w.u8(0);
                w.u64(holder.chain_id);
                w.raw(holder.contract.as_slice());
                w.raw(holder.payer.as_slice());
                w.u64(*next_id);
                w.u64(*next_nonce);
            }
            Record::Begun(attempt) => {
                w.u8(1);
                w.u64(attempt.id);
                attempt.checkpoint.write(&mut w);
                w.u32(attempt.proof.len() as u32);
                attempt.proof.iter().for_each(|p| w.raw(p));
                w.bytes(&attempt.signature);
            }
            Record::Signed(id, t) => {
                w.u8(2);
                w.u64(*id);
                w.u64(t.nonce);
                w.u64(t.gas_limit);
                w.raw(&t.fees.max_fee.to_le_bytes());
                w.raw(&t.fees.priority.to_le_bytes());
                w.raw(&t.hash);
                w.bytes(&t.raw);
            }
            Record::Included(id, i) => {
                w.u8(9);
                w.u64(*id);
                w.raw(&i.transaction);
                w.u64(i.block_number);
                w.raw(&i.block_hash);
                w.u64(i.gas_used);
                i.cost.write(&mut w);
            }
            Record::Reopened(id) => {
                w.u8(4);
                w.u64(*id);
            }
            Record::Abandoned(id, reason) => {
                w.u8(5);
                w.u64(*id);
                w.str(reason);
            }
            Record::Final(id) => {
                w.u8(6);
                w.u64(*id);
            }
            Record::Spent(spent) => {
                w.u8(7);
                spent.write(&mut w);
            }
            Record::Reverted(id, transaction, cost) => {
                w.u8(8);
                w.u64(*id);
                w.raw(transaction);
                cost.write(&mut w);
            }
        }
        w.bytes
    }

    fn from_bytes(bytes: &[u8]) -> Result<Self, CodecError> {
        let mut r = Reader::new("journal record", bytes);
        let record = match r.u8()? {
            0 => {
                let chain_id = r.u64()?;
                let contract = Address::from(r.array::<20>()?);
                let payer = Address::from(r.array::<20>()?);
                Record::Head(Holder { chain_id, contract, payer }, r.u64()?, r.u64()?)
            }
            1 => {
                let id = r.u64()?;
                let checkpoint = Checkpoint::read(&mut r)?;
                let n = r.count(32)?;
                let proof = (0..n).map(|_| r.array()).collect::<Result<_, _>>()?;
                let signature = r.bytes()?.to_vec();
                Record::Begun(Box::new(Attempt {
                    id,
                    checkpoint,
                    proof,
                    signature,
                    transactions: Vec::new(),
                    reverted: Vec::new(),
                    included: None,
                }))
            }
            2 => {
                let id = r.u64()?;
                let nonce = r.u64()?;
                let gas_limit = r.u64()?;
                let max_fee = u128::from_le_bytes(r.array()?);
                let priority = u128::from_le_bytes(r.array()?);
                let hash = r.array()?;
                let raw = r.bytes()?.to_vec();
                Record::Signed(id, SignedTransaction { nonce, gas_limit, fees: Fees { max_fee, priority }, hash, raw })
            }
            // 3 is an inclusion as journals had it before they knew what things cost.
            kind @ (3 | 9) => Record::Included(
                r.u64()?,
                Inclusion {
                    transaction: r.array()?,
                    block_number: r.u64()?,
                    block_hash: r.array()?,
                    gas_used: r.u64()?,
                    cost: if kind == 3 { Spent::default() } else { Spent::read(&mut r)? },
                },
            ),
            4 => Record::Reopened(r.u64()?),
            5 => Record::Abandoned(r.u64()?, r.str()?.to_owned()),
            6 => Record::Final(r.u64()?),
            7 => Record::Spent(Spent::read(&mut r)?),
            8 => Record::Reverted(r.u64()?, r.array()?, Spent::read(&mut r)?),
            kind => return Err(r.invalid(format!("unknown kind {kind}"))),
        };
        r.finish()?;
        Ok(record)
    }
}

impl Spent {
    fn write(&self, w: &mut Writer) {
        w.u64(self.day);
        w.raw(&self.wei.to_le_bytes());
    }

    fn read(r: &mut Reader<'_>) -> Result<Self, CodecError> {
        Ok(Self { day: r.u64()?, wei: u128::from_le_bytes(r.array()?) })
    }
}

impl std::fmt::Display for Attempt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let c = &self.checkpoint;
        write!(f, "checkpoint {}→{} of log {}", c.old_size, c.new_size, show(&c.log_id))
    }
}

#[cfg(test)]
#[path = "journal_tests.rs"]
mod tests;
