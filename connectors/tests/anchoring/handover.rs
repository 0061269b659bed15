//! A log changes hands: what was anchored stands, the old writer is told, the new one goes on.
#![allow(clippy::unwrap_used)]

use super::chain::{NAME, OTHER_KEY, World, key, quick};
use crate::ethereum::{AnchorWriter, At, EthereumError, OperatorKey, WriterConfig, register_log_of, set_signer};

#[tokio::test(flavor = "multi_thread")]
async fn a_log_is_handed_over_to_another_key() {
    let Some(mut world) = World::new(&[]).await else { return };
    let heir = OperatorKey::from_hex(OTHER_KEY).unwrap();
    let mut old = world.writer(&world.anvil.url).await.unwrap();
    let before = world.advance(&mut old, 0, 5).await.unwrap();
    let reader = world.reader().await;

    // Before: the heir may not sign, and says whose key is needed.
    let error = register_log_of(&reader, &heir, key().address(), &NAME).await.unwrap_err();
    assert!(matches!(error, EthereumError::OtherSigner { found, .. } if found == key().address()), "{error}");
    set_signer(&reader, &key(), &world.log_id, heir.address()).await.unwrap();

    // The writer that still runs with the old key ends with what to do, and leaves nothing behind.
    let error = world.advance(&mut old, 5, 8).await.unwrap_err();
    assert!(matches!(error, EthereumError::WrongSigner { signer, .. } if signer == heir.address()), "{error}");
    assert!(!error.retryable() && error.to_string().contains("avouch rotate"), "{error}");
    assert_eq!(old.pending(), 0);
    drop(old);

    let registered = register_log_of(&reader, &heir, key().address(), &NAME).await.unwrap();
    assert_eq!((registered.log_id, registered.owner, registered.transaction), (world.log_id, key().address(), None));
    let config = |journal: &str| WriterConfig {
        signer: heir.clone(),
        payer: heir.clone(),
        journal: world.dir.path().join(journal),
        ..world.config(&world.anvil.url, quick())
    };
    let error = AnchorWriter::open(config("journal")).await.unwrap_err();
    assert!(matches!(error, EthereumError::JournalForeign { .. }), "another key's journal is not taken: {error}");
    let mut new = AnchorWriter::open(config("journal-of-the-heir")).await.unwrap();
    world.advance(&mut new, 5, 8).await.unwrap();
    assert_eq!(world.anchored_sizes().await, [5, 8]);
    // What the old key signed is where it was.
    let anchor = reader.find_anchor(&world.log_id, 5, 0).await.unwrap().unwrap();
    assert_eq!((anchor.transaction, anchor.root), (before.transaction, world.log.root(5)));
    assert_eq!(reader.checkpoint_of(&world.log_id, 5, At::Latest).await.unwrap().unwrap().root, world.log.root(5));
    let unknown = register_log_of(&reader, &heir, key().address(), &[9; 32]).await.unwrap_err();
    assert!(matches!(unknown, EthereumError::UnknownLog { .. }), "{unknown}");
}
