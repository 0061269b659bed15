//! A thousand checkpoints through everything that can go wrong between a log and a chain, by a seeded schedule. In the end the
//! chain and the log agree: no checkpoint lost, none doubled, no gap in the nonces, nothing left in the journal.
//! `AVOUCH_ANCHOR_SEED=<number>` runs another schedule.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::Duration;

use serde_json::json;

use super::chain::{World, key, quick};
use super::node::Faults;
use super::proxy::{Fate, Proxy};
use crate::ethereum::{AnchorWriter, EthereumError, WriterConfig, WriterOptions};

const CHECKPOINTS: u64 = 1000;

/// A small generator, so that the faults are the same in every run.
#[derive(Clone)]
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 16) % sides
    }
}

/// What goes wrong on the way of one checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Nothing,
    /// Both endpoints fail every fourth request for a while, in every way there is.
    FlakyEndpoints,
    /// The node takes the transaction, and its answer never comes.
    TimeOutAfterAcceptance,
    /// No node ever hears of the transaction.
    LostOnTheWay,
    /// It waits in the pool until the pool forgets it.
    DroppedFromThePool,
    /// It waits in the pool until it has been replaced at higher fees, more than once.
    Replaced,
    /// Somebody who has the same key uses its nonce before it.
    NonceTaken,
    /// A reorg replaces the newest blocks by empty ones.
    Reorg,
    /// A reorg makes the chain shorter.
    Rollback,
    /// The process ends after the checkpoint was journaled and before it was sent.
    EndsBeforeSending,
    /// The process ends when it was sent.
    EndsAfterSending,
    /// The process ends when it is in a block, before it knew.
    EndsBeforeTheReceipt,
    /// The process ends at any moment.
    EndsAnywhere,
    /// The process ends in the middle of writing its journal.
    EndsInTheJournal,
    /// A second writer comes while the first one works.
    SecondWriter,
    /// The first endpoint is away.
    Away,
    /// The second endpoint lags behind.
    Lags,
    /// The second endpoint lies.
    Lies,
}

use Event::*;

const EVENTS: [(Event, u64); 18] = [
    (Nothing, 30),
    (FlakyEndpoints, 8),
    (TimeOutAfterAcceptance, 5),
    (LostOnTheWay, 4),
    (DroppedFromThePool, 4),
    (Replaced, 4),
    (NonceTaken, 4),
    (Reorg, 4),
    (Rollback, 4),
    (EndsBeforeSending, 5),
    (EndsAfterSending, 5),
    (EndsBeforeTheReceipt, 5),
    (EndsAnywhere, 6),
    (EndsInTheJournal, 3),
    (SecondWriter, 4),
    (Away, 4),
    (Lags, 3),
    (Lies, 3),
];

fn draw(dice: &mut Dice) -> Event {
    let mut left = dice.roll(EVENTS.iter().map(|(_, weight)| weight).sum());
    for (event, weight) in EVENTS {
        if left < weight {
            return event;
        }
        left -= weight;
    }
    Nothing
}

/// One of the two endpoints.
struct Node {
    proxy: Proxy,
    faults: Arc<Faults>,
    trap: Arc<AtomicU8>,
    /// So many requests more fail every now and then.
    flaky: Arc<AtomicU64>,
}

/// What a trap waits for: it lets the next request of its kind get stuck.
const NO_TRAP: u8 = 0;
const SWALLOW_SEND: u8 = 1;
const LOSE_ANSWER: u8 = 2;
const SWALLOW_RECEIPT: u8 = 3;

impl Node {
    async fn start(upstream: &str, seed: u64) -> Self {
        let faults = Arc::new(Faults::default());
        let (trap, flaky) = (Arc::new(AtomicU8::new(NO_TRAP)), Arc::new(AtomicU64::new(0)));
        let (plan, armed, failing) = (faults.clone(), trap.clone(), flaky.clone());
        let mut dice = Dice(seed);
        let mut sent = false;
        let proxy = Proxy::start(upstream, move |method, _, params| {
            let sends = method == "eth_sendRawTransaction";
            let fate = match armed.load(Ordering::SeqCst) {
                SWALLOW_SEND if sends => Some(Fate::Swallow),
                LOSE_ANSWER if sends => Some(Fate::LoseAnswer),
                SWALLOW_RECEIPT if sent && method == "eth_getTransactionReceipt" => Some(Fate::Swallow),
                _ => None,
            };
            sent = sends || (sent && method == "eth_getTransactionReceipt");
            if let Some(fate) = fate {
                armed.store(NO_TRAP, Ordering::SeqCst);
                sent = false;
                return fate;
            }
            if failing.load(Ordering::SeqCst) > 0 {
                failing.fetch_sub(1, Ordering::SeqCst);
                match dice.roll(20) {
                    0 => return Fate::Fail(500),
                    1 => return Fate::Fail(429),
                    2 => return Fate::Error(-32603, "internal error".to_owned()),
                    3 => return Fate::Swallow,
                    4 if sends => return Fate::LoseAnswer,
                    _ => {}
                }
            }
            plan.fate(method, params)
        })
        .await;
        Self { proxy, faults, trap, flaky }
    }

    fn arm(&self, trap: u8) {
        self.trap.store(trap, Ordering::SeqCst);
    }

    fn heal(&self) {
        self.arm(NO_TRAP);
        self.flaky.store(0, Ordering::SeqCst);
        self.faults.away.store(false, Ordering::SeqCst);
        self.faults.stands_at.store(0, Ordering::SeqCst);
        *self.faults.lie.lock().unwrap() = None;
    }
}

struct Trial {
    world: World,
    a: Node,
    b: Node,
    dice: Dice,
    /// Where the process has got to, by its own account: checkpoints whose `advance` returned.
    acknowledged: Vec<u64>,
    /// How often what went wrong.
    happened: BTreeMap<Event, u64>,
    writer: Option<AnchorWriter>,
    restarts: u64,
}

fn options() -> WriterOptions {
    let mut options = quick();
    options.rpc.request_timeout = Duration::from_millis(150);
    options.rpc.rest = Duration::from_millis(60);
    options.rpc.first_pause = Duration::from_millis(3);
    options.rpc.read_budget = Duration::from_secs(5);
    options.poll = Duration::from_millis(8);
    options.bump_after = Duration::from_millis(200);
    options.give_up_after = Duration::from_secs(10);
    options
}

impl Trial {
    async fn writer(&mut self) -> AnchorWriter {
        if let Some(writer) = self.writer.take() {
            return writer;
        }
        // Now one endpoint at a time is believed, now both have to agree.
        let quorum = if self.restarts.is_multiple_of(2) { 2 } else { 1 };
        self.restarts += 1;
        self.open(quorum).await.unwrap()
    }

    async fn open(&self, quorum: usize) -> Result<AnchorWriter, EthereumError> {
        let urls = vec![self.a.proxy.url.clone(), self.b.proxy.url.clone()];
        AnchorWriter::open(WriterConfig { urls, quorum, ..self.world.config("", options()) }).await
    }

    async fn automine(&self, on: bool) {
        self.world.anvil.rpc("evm_setAutomine", json!([on])).await;
        if on {
            self.world.anvil.mine(1).await;
        }
    }

    async fn sends(&self, more_than: usize) {
        while self.sent() <= more_than {
            tokio::time::sleep(Duration::from_millis(3)).await;
        }
    }

    fn sent(&self) -> usize {
        self.a.proxy.count("eth_sendRawTransaction") + self.b.proxy.count("eth_sendRawTransaction")
    }

    async fn reorg(&mut self, event: Event) {
        let depth = 1 + self.dice.roll(20);
        match event {
            Reorg => {
                self.world.anvil.rpc("anvil_reorg", json!([depth, []])).await;
            }
            _ => {
                self.world.anvil.rpc("anvil_rollback", json!([depth])).await;
            }
        }
    }

    /// Once, as the anchoring task does: look where the chain is, and make a checkpoint from there.
    async fn anchor(world: &World, writer: &mut AnchorWriter, to: u64) -> Result<(), EthereumError> {
        let head = writer.head(&world.log_id).await?.latest.size;
        if head >= to {
            // Settled by an earlier call, of this process or the one before.
            return writer.recover().await.map(drop);
        }
        let (checkpoint, proof) = world.checkpoint(head, to);
        writer.advance(checkpoint, proof).await.map(drop)
    }

    /// Until the checkpoint is acknowledged. Every error must be one that passes.
    async fn until_anchored(&mut self, writer: &mut AnchorWriter, to: u64) {
        for _ in 0..200 {
            match Self::anchor(&self.world, writer, to).await {
                Ok(()) => {
                    let head = writer.head(&self.world.log_id).await;
                    if head.is_ok_and(|h| h.latest.size >= to) {
                        return;
                    }
                }
                Err(EthereumError::HeadMoved { .. }) => {}
                Err(error) => assert!(error.retryable(), "to {to}: {error}"),
            }
        }
        panic!("checkpoint {to} never arrives");
    }

    /// What happens while the writer works: nothing that it has to be stopped for.
    async fn disturb(&mut self, event: Event, writer: &mut AnchorWriter, to: u64) {
        match event {
            FlakyEndpoints => {
                self.a.flaky.store(25, Ordering::SeqCst);
                self.b.flaky.store(25, Ordering::SeqCst);
            }
            TimeOutAfterAcceptance => {
                self.a.arm(LOSE_ANSWER);
                self.b.arm(LOSE_ANSWER);
            }
            LostOnTheWay => {
                self.a.arm(SWALLOW_SEND);
                self.b.arm(SWALLOW_SEND);
            }
            Away => self.a.faults.away.store(true, Ordering::SeqCst),
            Lags => self.b.faults.stands_at.store(self.world.latest_block().await, Ordering::SeqCst),
            Lies => *self.b.faults.lie.lock().unwrap() = Some(json!(format!("0x{}", "00".repeat(160)))),
            NonceTaken => {
                let own = key().address();
                self.automine(false).await;
                self.world.anvil.rpc("eth_sendTransaction", json!([{ "from": own, "to": own, "value": "0x1" }])).await;
            }
            Reorg | Rollback => self.reorg(event).await,
            DroppedFromThePool | Replaced => self.automine(false).await,
            SecondWriter => {
                let error = self.open(1).await.unwrap_err();
                assert!(matches!(error, EthereumError::JournalBusy { .. }), "{error}");
            }
            _ => {}
        }
        let already = self.sent();
        let done = async {
            for _ in 0..200 {
                match Self::anchor(&self.world, writer, to).await {
                    Ok(()) => return,
                    Err(EthereumError::HeadMoved { .. }) => {}
                    Err(error) => assert!(error.retryable(), "{event:?} to {to}: {error}"),
                }
            }
            panic!("checkpoint {to} never arrives ({event:?})");
        };
        let meanwhile = async {
            match event {
                DroppedFromThePool => {
                    self.sends(already).await;
                    tokio::time::sleep(Duration::from_millis(20)).await;
                    self.world.anvil.rpc("anvil_dropAllTransactions", json!([])).await;
                    self.automine(true).await;
                }
                Replaced => {
                    self.sends(already + 4).await;
                    self.automine(true).await;
                }
                NonceTaken => {
                    tokio::time::sleep(Duration::from_millis(40)).await;
                    self.automine(true).await;
                }
                Away | Lags | Lies => {
                    tokio::time::sleep(Duration::from_millis(if event == Away { 60 } else { 120 })).await;
                    self.a.heal();
                    self.b.heal();
                }
                _ => {}
            }
        };
        tokio::join!(done, meanwhile);
        self.a.heal();
        self.b.heal();
    }

    /// Drops the writer in the middle of its work.
    async fn end(&mut self, event: Event, mut writer: AnchorWriter, to: u64) {
        let trap = match event {
            EndsBeforeSending => SWALLOW_SEND,
            EndsAfterSending => LOSE_ANSWER,
            EndsBeforeTheReceipt => SWALLOW_RECEIPT,
            _ => NO_TRAP,
        };
        for node in [&self.a, &self.b] {
            // That something got stuck before is not that the trap was run into.
            while tokio::time::timeout(Duration::ZERO, node.proxy.stuck()).await.is_ok() {}
            node.arm(trap);
        }
        let pause = Duration::from_millis(1 + self.dice.roll(30));
        let journal = writer.journal_path().to_owned();
        let (a, b) = (&self.a.proxy, &self.b.proxy);
        let stuck = async {
            match trap {
                NO_TRAP => tokio::time::sleep(pause).await,
                _ => tokio::select! { () = a.stuck() => {}, () = b.stuck() => {} },
            }
        };
        tokio::select! {
            // A trap that nothing runs into, since all is done already, is no failure.
            done = Self::anchor(&self.world, &mut writer, to) => {
                let passes = done.as_ref().err().is_none_or(|e| e.retryable() || matches!(e, EthereumError::HeadMoved { .. }));
                assert!(passes, "{event:?}: {done:?}");
            }
            () = stuck => {}
        }
        drop(writer);
        self.a.heal();
        self.b.heal();
        if event == EndsInTheJournal {
            // As if a record had not got to the disk whole. What it says was not acted upon.
            let torn = [std::fs::read(&journal).unwrap().as_slice(), &[0x55, 0, 0, 0]].concat();
            std::fs::write(&journal, torn).unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_checkpoints_through_faults() {
    // No reorg is as deep as the contract.
    // anvil keeps its states in memory: those that it has put on disk have lost the contracts' code when a reorg goes back to them.
    let Some(world) = World::new(&["--prune-history", "100000"]).await else { return };
    world.anvil.mine(70).await;
    let seed = std::env::var("AVOUCH_ANCHOR_SEED").map_or(0x5eed_0006, |seed| seed.parse().unwrap());
    let (a, b) = (Node::start(&world.anvil.url, 0xa11ce).await, Node::start(&world.anvil.url, 0xb0b).await);
    let mut trial = Trial {
        world,
        a,
        b,
        dice: Dice(seed),
        acknowledged: Vec::new(),
        happened: BTreeMap::new(),
        writer: None,
        restarts: 0,
    };
    let mut size = 0;
    for _ in 0..CHECKPOINTS {
        let event = draw(&mut trial.dice);
        *trial.happened.entry(event).or_default() += 1;
        size += 1 + trial.dice.roll(9);
        trial.world.log.grow_to(size);
        let mut writer = trial.writer().await;
        match event {
            Lies => {
                // One that alone is believed can lie as it likes.
                drop(writer);
                writer = trial.open(2).await.unwrap();
                trial.disturb(event, &mut writer, size).await;
            }
            EndsBeforeSending | EndsAfterSending | EndsBeforeTheReceipt | EndsAnywhere | EndsInTheJournal => {
                trial.end(event, writer, size).await;
                writer = trial.writer().await;
            }
            _ => trial.disturb(event, &mut writer, size).await,
        }
        trial.until_anchored(&mut writer, size).await;
        trial.acknowledged.push(size);
        trial.writer = (trial.dice.roll(3) > 0).then_some(writer);
    }

    println!("{:?}, {} processes", trial.happened, trial.restarts);
    assert!(EVENTS.iter().all(|(event, _)| trial.happened[event] > 5), "{:?}", trial.happened);
    let mut writer = trial.writer().await;
    writer.recover().await.unwrap();
    let world = &trial.world;
    let latest = world.latest_block().await;
    let anchors = world.reader().await.anchors(&world.log_id, None, 0, latest).await.unwrap();
    // None lost, none doubled: each goes on where the one before it ended, and every one that was acknowledged is there.
    let mut at = 0;
    for anchor in &anchors {
        assert_eq!((anchor.old_size, anchor.root), (at, world.log.root(anchor.size)));
        at = anchor.size;
    }
    assert_eq!(at, size);
    let sizes: Vec<u64> = anchors.iter().map(|a| a.size).collect();
    for acknowledged in &trial.acknowledged {
        assert!(sizes.binary_search(acknowledged).is_ok(), "checkpoint {acknowledged} is lost");
    }
    assert_eq!(sizes.len() as u64, CHECKPOINTS, "{sizes:?}");
    // No gap: nothing waits for a nonce that never comes.
    let pool = world.anvil.rpc("txpool_status", json!([])).await;
    assert_eq!((pool["pending"].as_str(), pool["queued"].as_str()), (Some("0x0"), Some("0x0")));
    // In the end the journal has nothing left.
    world.anvil.mine(70).await;
    assert_eq!(writer.finalized_size(&world.log_id).await.unwrap(), size);
    assert_eq!(writer.journaled(), 0);
}
