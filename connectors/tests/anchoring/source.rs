//! Events as readings, from nodes that do not have them yet: late is allowed, silently lost is not.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use avouch_engine::decode::RawRecord;
use avouch_engine::spec::{FieldSpec, FieldType};
use serde_json::json;

use super::chain::World;
use super::node::Node;
use crate::ethereum::source::{ChainLog, ChainLogOptions, Columns, ContractEvent, Reads};
use crate::ethereum::{Endpoint, RpcOptions};

const EVENT: &str = "CheckpointAdvanced(bytes32 indexed logId, uint64 indexed newSize, uint64 oldSize, bytes32 newRoot, \
                     bytes32 dataCommitment, uint64 issuedAt)";

fn open(world: &World, nodes: &[&Node], quorum: usize) -> ChainLog {
    let reads =
        Reads::Events { contracts: vec![world.domain.contract], events: vec![ContractEvent::parse(EVENT).unwrap()] };
    let field = FieldSpec { name: "newSize".to_owned(), ty: FieldType::I64, required: false };
    let columns = Columns::new(&reads, 31337, &[field]).unwrap();
    let options = RpcOptions { rest: Duration::from_millis(50), ..RpcOptions::default() };
    let endpoint = Endpoint::several(nodes.iter().map(|n| n.url()), quorum, options).unwrap();
    let options = ChainLogOptions { endpoint, chain_id: 31337, reads, columns, from_block: 0 };
    ChainLog::open(options, tokio::runtime::Handle::current(), None).unwrap()
}

/// Reads for a while, and gives the records' values.
fn read(log: &mut ChainLog, polls: usize) -> Vec<String> {
    let mut values = Vec::new();
    for _ in 0..polls {
        let batch = log.poll(Duration::from_millis(20), 100).unwrap();
        let mut records: Vec<RawRecord<'_>> = Vec::new();
        batch.records(&mut records);
        values.extend(records.iter().map(|r| String::from_utf8_lossy(r.value.unwrap()).into_owned()));
    }
    values
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_lags_loses_no_event() {
    let Some(mut world) = World::new(&[]).await else { return };
    let mut writer = world.writer(&world.anvil.url).await.unwrap();
    for i in 0..3u64 {
        world.advance(&mut writer, i, i + 1).await.unwrap();
    }
    world.anvil.mine(70).await;
    let expected: Vec<String> = (1..=3).map(|i| json!({ "newSize": i }).to_string()).collect();
    let (a, b) = (Node::start(&world.anvil.url).await, Node::start(&world.anvil.url).await);
    // The first of them is in block 3.
    a.stand_at(2);
    tokio::task::spawn_blocking(move || {
        // Alone it is waited for.
        let mut alone = open(&world, &[&a], 1);
        assert_eq!(read(&mut alone, 10), Vec::<String>::new());
        assert!(!alone.was_listening());
        // With another beside it, that one is asked.
        assert_eq!(read(&mut open(&world, &[&a, &b], 1), 10), expected);
        // With a quorum, both are waited for.
        let mut both = open(&world, &[&a, &b], 2);
        assert_eq!(read(&mut both, 10), Vec::<String>::new());
        a.stand_at(0);
        assert_eq!(read(&mut alone, 10), expected);
        assert_eq!(read(&mut both, 10), expected);
    })
    .await
    .unwrap();
}
