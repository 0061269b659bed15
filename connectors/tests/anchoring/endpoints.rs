//! Several endpoints: one stands in for another, and they check each other.
#![allow(clippy::unwrap_used)]

use std::sync::atomic::Ordering;
use std::time::Duration;

use serde_json::json;

use super::chain::{Anvil, World, key, quick};
use super::node::Node;
use crate::ethereum::{AnchorWriter, ChainReader, Endpoint, EthereumError, RpcOptions, WriterConfig, WriterOptions};

fn config(world: &World, nodes: &[&Node], quorum: usize, options: WriterOptions) -> WriterConfig {
    let urls = nodes.iter().map(|n| n.url().to_owned()).collect();
    WriterConfig { urls, quorum, ..world.config("", options) }
}

fn impatient() -> WriterOptions {
    let mut options = quick();
    options.rpc.read_budget = Duration::from_millis(400);
    options
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_is_away_is_stood_in_for_and_comes_back() {
    let Some(mut world) = World::new(&[]).await else { return };
    let (a, b) = (Node::start(&world.anvil.url).await, Node::start(&world.anvil.url).await);
    a.set_away(true);
    let mut writer = AnchorWriter::open(config(&world, &[&a, &b], 1, quick())).await.unwrap();
    world.advance(&mut writer, 0, 3).await.unwrap();
    assert_eq!((a.sent() > 0, b.sent() > 0), (false, true), "the first is not even sent to before it was checked");
    a.set_away(false);
    b.set_away(true);
    world.advance(&mut writer, 3, 5).await.unwrap();
    assert!(a.sent() > 0);
    b.set_away(false);
    world.advance(&mut writer, 5, 9).await.unwrap();
    assert_eq!(world.anchored_sizes().await, [3, 5, 9]);
    a.set_away(true);
    b.set_away(true);
    let error = {
        let endpoint = Endpoint::several([a.url(), b.url()], 1, impatient().rpc).unwrap();
        ChainReader::over(endpoint, Some(31337), world.domain.contract).await.unwrap_err()
    };
    assert!(error.retryable() && matches!(error, EthereumError::Http { status: 503, .. }), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn transactions_go_to_all() {
    let Some(mut world) = World::new(&[]).await else { return };
    let (a, b) = (Node::start(&world.anvil.url).await, Node::start(&world.anvil.url).await);
    let before = world.nonce(key().address()).await;
    let mut writer = AnchorWriter::open(config(&world, &[&a, &b], 2, quick())).await.unwrap();
    for i in 0..5u64 {
        world.advance(&mut writer, i * 2, i * 2 + 2).await.unwrap();
    }
    assert!(a.sent() >= 5 && b.sent() >= 5, "{} {}", a.sent(), b.sent());
    assert_eq!(world.anchored_sizes().await, [2, 4, 6, 8, 10]);
    assert_eq!(world.nonce(key().address()).await - before, 5, "sent twice, in a block once");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_endpoint_must_serve_the_chain_and_the_contract() {
    let Some(world) = World::new(&[]).await else { return };
    let Some(stranger) = Anvil::start(&["--chain-id", "5"]) else { return };
    let Some(empty) = Anvil::start(&[]) else { return };
    let open = |url: &str, quorum| {
        let urls = vec![world.anvil.url.clone(), url.to_owned()];
        AnchorWriter::open(WriterConfig { urls, quorum, ..world.config("", impatient()) })
    };
    for quorum in [1, 2] {
        let error = open(&stranger.url, quorum).await.unwrap_err();
        assert!(matches!(error, EthereumError::WrongChain { expected: 31337, found: 5, .. }), "{error}");
        assert!(error.to_string().contains(&stranger.url), "{error}");
    }
    // The same chain id, another chain: the contract is not there.
    let error = open(&empty.url, 2).await.unwrap_err();
    assert!(matches!(error, EthereumError::NoQuorum { agreeing: 1, quorum: 2, .. }), "{error}");
    assert!(error.to_string().contains("there is no contract at"), "{error}");
}

/// It passed no check while it was away. When it comes back as another chain, nothing is sent to it.
#[tokio::test(flavor = "multi_thread")]
async fn one_that_comes_back_as_another_chain_gets_nothing() {
    let Some(mut world) = World::new(&[]).await else { return };
    let Some(stranger) = Anvil::start(&["--chain-id", "5"]) else { return };
    let (good, other) = (Node::start(&world.anvil.url).await, Node::start(&stranger.url).await);
    other.set_away(true);
    let mut writer = AnchorWriter::open(config(&world, &[&other, &good], 1, quick())).await.unwrap();
    other.set_away(false);
    for i in 0..4u64 {
        world.advance(&mut writer, i, i + 1).await.unwrap();
    }
    assert_eq!(other.sent(), 0);
    assert_eq!(world.anchored_sizes().await, [1, 2, 3, 4]);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_lags_is_waited_for() {
    let Some(mut world) = World::new(&[]).await else { return };
    let (a, b) = (Node::start(&world.anvil.url).await, Node::start(&world.anvil.url).await);
    let mut writer = AnchorWriter::open(config(&world, &[&a, &b], 2, quick())).await.unwrap();
    world.advance(&mut writer, 0, 2).await.unwrap();
    b.stand_at(world.latest_block().await);
    let (checkpoint, proof) = world.step(2, 5);
    let work = writer.advance(checkpoint, proof);
    tokio::pin!(work);
    tokio::select! {
        done = &mut work => panic!("one node alone has it: {done:?}"),
        () = tokio::time::sleep(Duration::from_millis(1200)) => {}
    }
    assert_eq!(world.anchored_sizes().await, [2, 5], "it is in a block all the same");
    b.stand_at(0);
    assert_eq!(work.await.unwrap().size, 5);
    assert_eq!(world.anchored_sizes().await, [2, 5]);
}

/// Below what was seen before an answer is old, and old heads would look like a reorg.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_seen_before_is_not_unseen() {
    let Some(mut world) = World::new(&[]).await else { return };
    let (a, b) = (Node::start(&world.anvil.url).await, Node::start(&world.anvil.url).await);
    let mut writer = AnchorWriter::open(config(&world, &[&a, &b], 2, impatient())).await.unwrap();
    world.advance(&mut writer, 0, 2).await.unwrap();
    let old = world.latest_block().await;
    world.advance(&mut writer, 2, 5).await.unwrap();
    b.stand_at(old);
    let error = writer.head(&world.log_id).await.unwrap_err();
    assert!(matches!(error, EthereumError::Lagging { at, .. } if at == old) && error.retryable(), "{error}");
    assert!(error.to_string().contains(b.url()), "{error}");
    // A chain that is shorter for all is a reorg, and taken as one.
    b.stand_at(0);
    let snapshot = world.anvil.rpc("evm_snapshot", json!([])).await;
    world.advance(&mut writer, 5, 6).await.unwrap();
    world.anvil.rpc("evm_revert", json!([snapshot])).await;
    assert_eq!(writer.head(&world.log_id).await.unwrap().latest.size, 5);
    writer.recover().await.unwrap();
    assert_eq!(world.anchored_sizes().await, [2, 5, 6]);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_lies_is_found_out() {
    let Some(mut world) = World::new(&[]).await else { return };
    let (a, b) = (Node::start(&world.anvil.url).await, Node::start(&world.anvil.url).await);
    let c = Node::start(&world.anvil.url).await;
    let mut writer = AnchorWriter::open(config(&world, &[&b, &a], 2, impatient())).await.unwrap();
    world.advance(&mut writer, 0, 2).await.unwrap();
    b.lie(Some(json!(format!("0x{}", "00".repeat(160)))));
    let error = writer.head(&world.log_id).await.unwrap_err();
    let text = error.to_string();
    assert!(matches!(error, EthereumError::Disagreement(_)) && error.retryable(), "{text}");
    assert!(text.contains(a.url()) && text.contains(b.url()) && text.contains("eth_call"), "{text}");
    assert!(world.advance(&mut writer, 2, 3).await.is_err());
    assert_eq!(world.anchored_sizes().await, [2], "nothing is sent on the word of one");
    // With a third one it is outvoted.
    drop(writer);
    let mut writer = AnchorWriter::open(config(&world, &[&b, &a, &c], 2, quick())).await.unwrap();
    assert_eq!(writer.head(&world.log_id).await.unwrap().latest.size, 2);
    world.advance(&mut writer, 2, 3).await.unwrap();
    assert_eq!(world.anchored_sizes().await, [2, 3]);
}

#[tokio::test(flavor = "multi_thread")]
async fn events_are_asked_of_nodes_that_have_the_blocks() {
    let Some(mut world) = World::new(&[]).await else { return };
    let (a, b) = (Node::start(&world.anvil.url).await, Node::start(&world.anvil.url).await);
    let mut writer = world.writer(&world.anvil.url).await.unwrap();
    world.advance(&mut writer, 0, 2).await.unwrap();
    a.stand_at(world.latest_block().await - 1);
    let endpoint = Endpoint::several([a.url(), b.url()], 1, RpcOptions::default()).unwrap();
    let reader = ChainReader::over(endpoint, Some(31337), world.domain.contract).await.unwrap();
    let found = reader.anchors(&world.log_id, None, 0, world.latest_block().await).await.unwrap();
    assert_eq!(found.iter().map(|a| a.size).collect::<Vec<_>>(), [2], "not what the first says, which is nothing");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_tag_finalized_depth_counts() {
    let Some(mut world) = World::new(&[]).await else { return };
    for several in [false, true] {
        let (a, b) = (Node::start(&world.anvil.url).await, Node::start(&world.anvil.url).await);
        for node in [&a, &b] {
            node.faults.untagged.store(true, Ordering::SeqCst);
        }
        let nodes: &[&Node] = if several { &[&a, &b] } else { &[&a] };
        let mut writer = AnchorWriter::open(config(&world, nodes, nodes.len(), quick())).await.unwrap();
        let from = writer.head(&world.log_id).await.unwrap().latest.size;
        world.advance(&mut writer, from, from + 4).await.unwrap();
        world.anvil.mine(63).await;
        assert_eq!(writer.finalized_size(&world.log_id).await.unwrap(), from);
        world.anvil.mine(1).await;
        assert_eq!(writer.finalized_size(&world.log_id).await.unwrap(), from + 4);
    }
}
