//! The writer is dropped at every step of its work, again and again, and the chain shows an unbroken run.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use super::chain::{World, key};
use super::proxy::{Fate, Proxy};
use crate::ethereum::{AnchorWriter, EthereumError};

/// Where the next checkpoint's first request of a kind gets stuck.
const NOWHERE: u8 = 0;
/// After the journal was written, before anything was sent.
const BEFORE_SENDING: u8 = 1;
/// The node has the transaction; its answer never came.
const AFTER_SENDING: u8 = 2;
/// The transaction is sent and answered; its receipt never came.
const BEFORE_THE_RECEIPT: u8 = 3;

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_checkpoints_with_a_restart_at_every_step() {
    let Some(mut world) = World::new(&[]).await else { return };
    let trap = Arc::new(AtomicU8::new(NOWHERE));
    let armed = trap.clone();
    let mut sent = false;
    let proxy = Proxy::start(&world.anvil.url, move |method, _, _| {
        let fate = match (armed.load(Ordering::SeqCst), method) {
            (BEFORE_SENDING, "eth_sendRawTransaction") => Fate::Swallow,
            (AFTER_SENDING, "eth_sendRawTransaction") => Fate::LoseAnswer,
            (BEFORE_THE_RECEIPT, "eth_getTransactionReceipt") if sent => Fate::Swallow,
            _ => Fate::Pass,
        };
        sent = method == "eth_sendRawTransaction" || (sent && method == "eth_getTransactionReceipt");
        if !matches!(fate, Fate::Pass) {
            armed.store(NOWHERE, Ordering::SeqCst);
            sent = false;
        }
        fate
    })
    .await;

    let nonce_before = world.nonce(key().address()).await;
    let mut writer: Option<AnchorWriter> = None;
    let (mut size, mut restarts) = (0u64, 0);
    for i in 0..100u64 {
        let next = size + 1 + i % 7;
        let step = (i % 4) as u8;
        if step != NOWHERE {
            let mut doomed = match writer.take() {
                Some(w) => w,
                None => world.writer(&proxy.url).await.unwrap(),
            };
            trap.store(step, Ordering::SeqCst);
            tokio::select! {
                done = world.advance(&mut doomed, size, next) => panic!("step {step} was not reached: {done:?}"),
                () = proxy.stuck() => {}
            }
            assert_eq!(doomed.pending(), 1);
            drop(doomed);
            restarts += 1;
        }
        let mut fresh = match writer.take() {
            Some(w) => w,
            None => world.writer(&proxy.url).await.unwrap(),
        };
        let anchored = world.advance(&mut fresh, size, next).await.unwrap();
        assert_eq!((anchored.size, anchored.root), (next, world.log.root(next)));
        assert_eq!(fresh.pending(), 0);
        // Some runs go on with the same writer, some with a new one.
        writer = (i % 3 == 0).then_some(fresh);
        size = next;
    }
    assert_eq!(restarts, 75);
    let mut expected = Vec::new();
    let mut at = 0;
    for i in 0..100u64 {
        at += 1 + i % 7;
        expected.push(at);
    }
    assert_eq!(world.anchored_sizes().await, expected);
    assert_eq!(
        world.nonce(key().address()).await - nonce_before,
        100,
        "one transaction a checkpoint: none twice, no gap"
    );
}

/// Dropped in the middle of writing the journal's record: it was not sent, so it is as if it had never been.
#[tokio::test(flavor = "multi_thread")]
async fn a_torn_journal_is_taken_up_again() {
    let Some(mut world) = World::new(&[]).await else { return };
    let mut writer = world.writer(&world.anvil.url).await.unwrap();
    world.advance(&mut writer, 0, 3).await.unwrap();
    let path = writer.journal_path().to_owned();
    let whole = std::fs::read(&path).unwrap().len();
    drop(writer);
    let proxy =
        Proxy::start(
            &world.anvil.url,
            |method, _, _| {
                if method == "eth_sendRawTransaction" { Fate::Swallow } else { Fate::Pass }
            },
        )
        .await;
    let mut writer = world.writer(&proxy.url).await.unwrap();
    tokio::select! {
        done = world.advance(&mut writer, 3, 5) => panic!("{done:?}"),
        () = proxy.stuck() => {}
    }
    drop(writer);
    let bytes = std::fs::read(&path).unwrap();
    for cut in [bytes.len() - 1, bytes.len() - 100, whole + 40, whole + 7] {
        std::fs::write(&path, &bytes[..cut]).unwrap();
        let writer = world.writer(&world.anvil.url).await.unwrap();
        assert!(writer.torn_bytes() > 0);
    }
    let mut writer = world.writer(&world.anvil.url).await.unwrap();
    world.advance(&mut writer, 3, 5).await.unwrap();
    assert_eq!(world.anchored_sizes().await, [3, 5]);
}

/// A checkpoint that was journaled and never sent is settled first; the caller, who knows a longer log by now, is told
/// where the chain stands.
#[tokio::test(flavor = "multi_thread")]
async fn after_a_restart_a_longer_step_is_asked_for() {
    let Some(mut world) = World::new(&[]).await else { return };
    let proxy = Proxy::start(&world.anvil.url, |method, n, _| {
        if method == "eth_sendRawTransaction" && n == 0 { Fate::Swallow } else { Fate::Pass }
    })
    .await;
    let mut writer = world.writer(&proxy.url).await.unwrap();
    tokio::select! {
        done = world.advance(&mut writer, 0, 5) => panic!("{done:?}"),
        () = proxy.stuck() => {}
    }
    drop(writer);
    let mut writer = world.writer(&proxy.url).await.unwrap();
    let error = world.advance(&mut writer, 0, 9).await.unwrap_err();
    assert!(matches!(error, EthereumError::HeadMoved { old_size: 0, head_size: 5, .. }), "{error}");
    world.advance(&mut writer, 5, 9).await.unwrap();
    assert_eq!(world.anchored_sizes().await, [5, 9]);
}
