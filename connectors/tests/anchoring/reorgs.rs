//! Reorgs as deep as the chain is not final.
#![allow(clippy::unwrap_used)]

use serde_json::json;

use super::chain::{World, key};

/// A checkpoint in every block, and a reorg just not deep enough to touch what is final: all are sent again, in order, the very
/// same transactions.
#[tokio::test(flavor = "multi_thread")]
async fn sixty_four_blocks_deep() {
    for (shorter, depth) in [(false, 63), (true, 64)] {
        let Some(mut world) = World::new(&[]).await else { return };
        world.anvil.mine(70).await;
        let before = world.nonce(key().address()).await;
        let mut writer = world.writer(&world.anvil.url).await.unwrap();
        let mut anchored = Vec::new();
        for i in 0..70u64 {
            anchored.push(world.advance(&mut writer, i * 2, i * 2 + 2).await.unwrap().transaction);
        }
        assert_eq!(writer.finalized_size(&world.log_id).await.unwrap(), 12, "70 blocks less 64");
        assert_eq!(writer.journaled(), 64);
        let (method, params) =
            if shorter { ("anvil_rollback", json!([depth])) } else { ("anvil_reorg", json!([depth, []])) };
        world.anvil.rpc(method, params).await;
        let left = world.reader().await.heads(&world.log_id).await.unwrap().latest.size;
        assert_eq!(left, 140 - 2 * depth);
        // Half-way a restart.
        drop(writer);
        let mut writer = world.writer(&world.anvil.url).await.unwrap();
        let again = writer.recover().await.unwrap();
        assert_eq!(again.len() as u64, depth);
        for (again, first) in again.iter().rev().zip(anchored.iter().rev()) {
            assert_eq!(again.transaction, *first);
        }
        assert_eq!(world.anchored_sizes().await, (1..=70).map(|i| i * 2).collect::<Vec<u64>>());
        assert_eq!(world.nonce(key().address()).await - before, 70);
        world.anvil.mine(64).await;
        assert_eq!(writer.finalized_size(&world.log_id).await.unwrap(), 140);
        assert_eq!(writer.journaled(), 0);
    }
}
