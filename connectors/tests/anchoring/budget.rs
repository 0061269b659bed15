//! What may be spent: a ceiling for gas and a budget for the day, which survives restarts.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use serde_json::json;

use super::chain::{World, key, quick};
use super::proxy::{Fate, Proxy};
use crate::ethereum::{AnchorWriter, EthereumError, WriterOptions};

const GWEI: u128 = 1_000_000_000;

async fn balance(world: &World) -> u128 {
    let text = world.anvil.rpc("eth_getBalance", json!([key().address(), "latest"])).await;
    u128::from_str_radix(text.as_str().unwrap().trim_start_matches("0x"), 16).unwrap()
}

async fn base_fee(world: &World, wei: u128) {
    world.anvil.rpc("anvil_setNextBlockBaseFeePerGas", json!([format!("{wei:#x}")])).await;
    world.anvil.mine(1).await;
}

/// To the first minute of the next day by the chain's clock.
async fn next_day(world: &World) {
    let block = world.anvil.rpc("eth_getBlockByNumber", json!(["latest", false])).await;
    let time = u64::from_str_radix(block["timestamp"].as_str().unwrap().trim_start_matches("0x"), 16).unwrap();
    world.anvil.rpc("evm_setNextBlockTimestamp", json!([(time / 86_400 + 1) * 86_400 + 60])).await;
    world.anvil.mine(1).await;
}

async fn open(world: &World, options: WriterOptions) -> AnchorWriter {
    AnchorWriter::open(world.config(&world.anvil.url, options)).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_spent_budget_lasts_until_the_next_day_and_nothing_is_lost() {
    let Some(mut world) = World::new(&[]).await else { return };
    next_day(&world).await;
    base_fee(&world, 10 * GWEI).await;
    // Enough for a few checkpoints at this price.
    let mut options = quick();
    options.budget_per_day = Some(100_000 * 25 * GWEI * 3);
    let mut writer = open(&world, options.clone()).await;
    let (start, mut size) = (balance(&world).await, 0);
    let error = loop {
        base_fee(&world, 10 * GWEI).await;
        match world.advance(&mut writer, size, size + 5).await {
            Ok(_) => size += 5,
            Err(error) => break error,
        }
        assert!(size < 100, "the budget has no effect");
    };
    assert!(matches!(error, EthereumError::BudgetSpent { .. }) && error.retryable(), "{error}");
    assert!(size >= 10, "{size}");
    assert_eq!(writer.pending(), 0, "what cannot be paid for is not begun");
    let spent = writer.price().await.unwrap().spent;
    assert_eq!(spent, start - balance(&world).await, "to the wei");
    assert!(spent <= options.budget_per_day.unwrap());

    // A restart does not begin the day anew.
    drop(writer);
    let mut writer = open(&world, options.clone()).await;
    assert_eq!(writer.price().await.unwrap().spent, spent);
    let error = world.advance(&mut writer, size, size + 20).await.unwrap_err();
    assert!(matches!(error, EthereumError::BudgetSpent { spent: s, .. } if s == spent), "{error}");

    next_day(&world).await;
    base_fee(&world, 10 * GWEI).await;
    assert_eq!(writer.price().await.unwrap().spent, 0);
    world.advance(&mut writer, size, size + 40).await.unwrap();
    let sizes = world.anchored_sizes().await;
    assert_eq!(sizes.last(), Some(&(size + 40)), "what waited goes in one");
    assert_eq!(sizes.len() as u64, size / 5 + 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn above_the_ceiling_nothing_is_sent() {
    let Some(mut world) = World::new(&[]).await else { return };
    let mut options = quick();
    options.max_fee_per_gas = 50 * GWEI;
    let proxy = Proxy::start(&world.anvil.url, |_, _, _| Fate::Pass).await;
    let mut writer = AnchorWriter::open(world.config(&proxy.url, options)).await.unwrap();
    world.advance(&mut writer, 0, 4).await.unwrap();
    base_fee(&world, 200 * GWEI).await;
    let price = writer.price().await.unwrap();
    assert!(price.offer > 50 * GWEI && price.fee > 170 * GWEI, "{price:?}");
    for _ in 0..3 {
        let error = world.advance(&mut writer, 4, 8).await.unwrap_err();
        assert!(matches!(error, EthereumError::FeeLimit { .. }) && error.retryable(), "{error}");
    }
    assert_eq!((writer.pending(), proxy.requests("eth_sendRawTransaction").len()), (0, 1));
    base_fee(&world, GWEI).await;
    world.advance(&mut writer, 4, 30).await.unwrap();
    assert_eq!(world.anchored_sizes().await, [4, 30]);
}

/// One that is on its way stays there; it is not made dearer than the budget allows.
#[tokio::test(flavor = "multi_thread")]
async fn a_replacement_keeps_within_the_budget() {
    let Some(mut world) = World::new(&[]).await else { return };
    base_fee(&world, 10 * GWEI).await;
    let mut options = quick();
    options.bump_after = Duration::from_millis(150);
    options.give_up_after = Duration::from_millis(1200);
    // The first offer, and one replacement at an eighth more, but not two.
    options.budget_per_day = Some(150_000 * 25 * GWEI);
    world.anvil.rpc("evm_setAutomine", json!([false])).await;
    let proxy = Proxy::start(&world.anvil.url, |_, _, _| Fate::Pass).await;
    let mut writer = AnchorWriter::open(world.config(&proxy.url, options.clone())).await.unwrap();
    let error = world.advance(&mut writer, 0, 6).await.unwrap_err();
    assert!(matches!(error, EthereumError::NotIncluded { .. }), "{error}");
    let reserved = writer.price().await.unwrap().spent;
    assert!(reserved > 0 && reserved <= options.budget_per_day.unwrap(), "{reserved}");
    assert_eq!(writer.pending(), 1);
    world.anvil.rpc("evm_setAutomine", json!([true])).await;
    world.anvil.mine(1).await;
    assert_eq!(writer.recover().await.unwrap().len(), 1);
    assert_eq!(world.anchored_sizes().await, [6]);
    let spent = writer.price().await.unwrap().spent;
    assert!(spent > 0 && spent < reserved, "{spent} of {reserved}: now it is known");
}
