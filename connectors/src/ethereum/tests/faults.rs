//! Endpoints that fail, chains that forget, transactions that wait, nonces that others use.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use alloy::consensus::{Transaction, TxEnvelope};
use alloy::eips::eip2718::Decodable2718;
use alloy::primitives::{Bytes, hex};
use serde_json::json;

use super::chain::{OTHER_KEY, World, key, quick};
use super::proxy::{Fate, Proxy};
use crate::ethereum::{AnchorWriter, EthereumError, OperatorKey};

/// A small generator, so that the faults are the same in every run.
fn dice(seed: u64) -> impl FnMut() -> u64 + Send {
    let mut state = seed;
    move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flaky_endpoint_slows_and_changes_nothing() {
    let Some(mut world) = World::new(&[]).await else { return };
    let mut roll = dice(0x5eed);
    let proxy = Proxy::start(&world.anvil.url, move |_, _, _| match roll() % 12 {
        0 => Fate::Fail(500),
        1 => Fate::Fail(429),
        2 => Fate::LoseAnswer,
        3 => Fate::Swallow,
        4 => Fate::Error(-32603, "internal error".to_owned()),
        _ => Fate::Pass,
    })
    .await;
    let before = world.nonce(key().address()).await;
    let mut options = quick();
    options.rpc.request_timeout = Duration::from_millis(120);
    let mut writer = AnchorWriter::open(world.config(&proxy.url, options)).await.unwrap();
    for i in 0..25u64 {
        world.advance(&mut writer, i * 4, i * 4 + 4).await.unwrap();
    }
    assert_eq!(world.anchored_sizes().await, (1..=25).map(|i| i * 4).collect::<Vec<u64>>());
    assert_eq!(world.nonce(key().address()).await - before, 25);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_that_is_down_costs_a_bounded_time() {
    let Some(mut world) = World::new(&[]).await else { return };
    let broken = Arc::new(AtomicBool::new(false));
    let switch = broken.clone();
    let proxy =
        Proxy::start(
            &world.anvil.url,
            move |_, _, _| {
                if switch.load(Ordering::SeqCst) { Fate::Fail(503) } else { Fate::Pass }
            },
        )
        .await;
    let mut options = quick();
    options.rpc.read_budget = Duration::from_millis(300);
    let mut writer = AnchorWriter::open(world.config(&proxy.url, options)).await.unwrap();
    broken.store(true, Ordering::SeqCst);
    let started = std::time::Instant::now();
    let error = world.advance(&mut writer, 0, 3).await.unwrap_err();
    assert!(started.elapsed() < Duration::from_secs(3));
    assert!(error.retryable() && matches!(error, EthereumError::Http { status: 503, .. }), "{error}");
    broken.store(false, Ordering::SeqCst);
    world.advance(&mut writer, 0, 3).await.unwrap();
}

fn decode(raw: &serde_json::Value) -> TxEnvelope {
    let bytes = hex::decode(raw[0].as_str().unwrap()).unwrap();
    TxEnvelope::decode_2718(&mut bytes.as_slice()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_that_waits_is_replaced_at_higher_fees() {
    let Some(mut world) = World::new(&[]).await else { return };
    world.anvil.rpc("evm_setAutomine", json!([false])).await;
    let proxy = Proxy::start(&world.anvil.url, |_, _, _| Fate::Pass).await;
    let mut options = quick();
    options.bump_after = Duration::from_millis(250);
    let mut writer = AnchorWriter::open(world.config(&proxy.url, options)).await.unwrap();
    let anchored = {
        let advance = world.step(0, 6);
        let work = writer.advance(advance.0, advance.1);
        tokio::pin!(work);
        loop {
            tokio::select! {
                done = &mut work => break done.unwrap(),
                () = tokio::time::sleep(Duration::from_millis(50)) => {
                    if proxy.requests("eth_sendRawTransaction").len() >= 4 {
                        world.anvil.rpc("evm_mine", json!([])).await;
                    }
                }
            }
        }
    };
    let sent: Vec<TxEnvelope> = proxy.requests("eth_sendRawTransaction").iter().map(decode).collect();
    assert!(sent.len() >= 4);
    for pair in sent.windows(2) {
        assert_eq!(pair[0].nonce(), pair[1].nonce());
        // A node that asks for 12.5 % takes every one of them.
        assert!(pair[1].max_fee_per_gas() * 8 >= pair[0].max_fee_per_gas() * 9);
        let tips = [&pair[0], &pair[1]].map(|t| t.max_priority_fee_per_gas().unwrap());
        assert!(tips[1] * 8 >= tips[0] * 9 && tips[1] > tips[0]);
    }
    assert!(sent.iter().any(|t| t.tx_hash().0 == anchored.transaction));
    assert_eq!(world.anchored_sizes().await, [6]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_stricter_than_anvil_is_satisfied() {
    let Some(mut world) = World::new(&[]).await else { return };
    world.anvil.rpc("evm_setAutomine", json!([false])).await;
    // The node already holds a dearer transaction of this nonce: it refuses replacements until they are dear enough.
    let proxy = Proxy::start(&world.anvil.url, |method, n, _| {
        if method == "eth_sendRawTransaction" && n < 3 {
            Fate::Error(-32000, "replacement transaction underpriced".to_owned())
        } else {
            Fate::Pass
        }
    })
    .await;
    let mut writer = world.writer(&proxy.url).await.unwrap();
    let (checkpoint, proof) = world.step(0, 6);
    let work = writer.advance(checkpoint, proof);
    tokio::pin!(work);
    loop {
        tokio::select! {
            done = &mut work => { done.unwrap(); break }
            () = tokio::time::sleep(Duration::from_millis(50)) => {
                if proxy.requests("eth_sendRawTransaction").len() >= 4 {
                    world.anvil.rpc("evm_mine", json!([])).await;
                }
            }
        }
    }
    assert_eq!(world.anchored_sizes().await, [6]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_included_in_time_stays_in_the_journal() {
    let Some(mut world) = World::new(&[]).await else { return };
    world.anvil.rpc("evm_setAutomine", json!([false])).await;
    let mut options = quick();
    options.give_up_after = Duration::from_millis(300);
    let mut writer = AnchorWriter::open(world.config(&world.anvil.url, options)).await.unwrap();
    let error = world.advance(&mut writer, 0, 6).await.unwrap_err();
    assert!(matches!(error, EthereumError::NotIncluded { attempts: 1, .. }) && error.retryable(), "{error}");
    assert_eq!(writer.pending(), 1);
    world.anvil.rpc("evm_mine", json!([])).await;
    let settled = writer.recover().await.unwrap();
    assert_eq!(settled.iter().map(|a| a.size).collect::<Vec<_>>(), [6]);
    assert_eq!(writer.pending(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_fee_limit_holds() {
    let Some(mut world) = World::new(&[]).await else { return };
    let mut options = quick();
    options.max_fee_per_gas = 10;
    let mut writer = AnchorWriter::open(world.config(&world.anvil.url, options)).await.unwrap();
    let error = world.advance(&mut writer, 0, 3).await.unwrap_err();
    assert!(matches!(error, EthereumError::FeeLimit { limit: 10, .. }) && error.retryable(), "{error}");
    assert_eq!(world.anchored_sizes().await, [0u64; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reorg_is_answered_from_the_journal() {
    let Some(mut world) = World::new(&[]).await else { return };
    let mut writer = world.writer(&world.anvil.url).await.unwrap();
    world.advance(&mut writer, 0, 3).await.unwrap();
    let snapshot = world.anvil.rpc("evm_snapshot", json!([])).await;
    let lost = world.advance(&mut writer, 3, 7).await.unwrap();
    world.advance(&mut writer, 7, 8).await.unwrap();
    world.anvil.rpc("evm_revert", json!([snapshot])).await;
    assert_eq!(world.reader().await.heads(&world.log_id).await.unwrap().latest.size, 3);

    // A restart in between changes nothing.
    drop(writer);
    let mut writer = world.writer(&world.anvil.url).await.unwrap();
    world.advance(&mut writer, 8, 12).await.unwrap();
    assert_eq!(world.anchored_sizes().await, [3, 7, 8, 12]);
    let anchor = world.reader().await.find_anchor(&world.log_id, 7, 0).await.unwrap().unwrap();
    assert_eq!(anchor.transaction, lost.transaction, "the very transaction, from the journal");
    assert_eq!(writer.recover().await.unwrap(), []);
}

/// Sends a plain transfer from the writer's own account, as somebody would who uses its key beside it.
async fn use_a_nonce(world: &World) {
    let own = key().address();
    world.anvil.rpc("eth_sendTransaction", json!([{ "from": own, "to": own, "value": "0x1" }])).await;
    world.anvil.mine(1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_nonce_used_by_a_stranger_is_replaced() {
    let Some(mut world) = World::new(&[]).await else { return };
    let proxy = Proxy::start(&world.anvil.url, |method, n, _| {
        if method == "eth_sendRawTransaction" && n == 0 { Fate::Swallow } else { Fate::Pass }
    })
    .await;
    let mut writer = world.writer(&proxy.url).await.unwrap();
    tokio::select! {
        done = world.advance(&mut writer, 0, 4) => panic!("{done:?}"),
        () = proxy.stuck() => {}
    }
    drop(writer);
    use_a_nonce(&world).await;
    let mut writer = world.writer(&proxy.url).await.unwrap();
    world.advance(&mut writer, 0, 4).await.unwrap();
    use_a_nonce(&world).await;
    world.advance(&mut writer, 4, 5).await.unwrap();
    assert_eq!(world.anchored_sizes().await, [4, 5]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_checkpoint_relayed_by_another_is_found() {
    let Some(mut world) = World::new(&[]).await else { return };
    // Our transaction never gets out; another account relays the very same signed checkpoint.
    let proxy = Proxy::start(&world.anvil.url, |method, n, _| {
        if method == "eth_sendRawTransaction" && n == 0 { Fate::Swallow } else { Fate::Pass }
    })
    .await;
    let mut writer = world.writer(&proxy.url).await.unwrap();
    tokio::select! {
        done = world.advance(&mut writer, 0, 4) => panic!("{done:?}"),
        () = proxy.stuck() => {}
    }
    drop(writer);
    let ours = decode(&proxy.requests("eth_sendRawTransaction")[0]);
    let data: Bytes = ours.input().clone();
    let relayer = OperatorKey::from_hex(OTHER_KEY).unwrap().address();
    world
        .anvil
        .rpc(
            "eth_sendTransaction",
            json!([{ "from": relayer, "to": world.domain.contract, "input": data, "gas": "0x493e0" }]),
        )
        .await;
    world.anvil.mine(1).await;
    assert_eq!(world.anchored_sizes().await, [4]);

    let mut writer = world.writer(&proxy.url).await.unwrap();
    let anchored = world.advance(&mut writer, 0, 4).await.unwrap();
    assert_eq!(anchored.gas_used, 0, "somebody else paid");
    assert_eq!(writer.pending(), 0);
    world.advance(&mut writer, 4, 6).await.unwrap();
    assert_eq!(world.anchored_sizes().await, [4, 6]);
}

/// What is not JSON-RPC at all.
#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_that_is_something_else_is_told_so() {
    let Some(world) = World::new(&[]).await else { return };
    for (status, words) in [(404, "check the endpoint's path"), (401, "check the credentials")] {
        let proxy = Proxy::start(&world.anvil.url, move |_, _, _| Fate::Fail(status)).await;
        let error = world.writer(&proxy.url).await.unwrap_err();
        assert!(error.to_string().contains(words) && !error.retryable(), "{error}");
    }
    let proxy = Proxy::start(&world.anvil.url, |_, _, _| Fate::Fail(200)).await;
    let error = world.writer(&proxy.url).await.unwrap_err();
    assert!(error.to_string().contains("is this an Ethereum JSON-RPC endpoint?"), "{error}");
}
