//! What works when all is well, what it costs, and what is refused before anything is sent.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use alloy::primitives::{Address, B256, Bytes};
use alloy::sol_types::SolCall;

use super::chain::{Anvil, KEY, NAME, OTHER_KEY, World, key, quick};
use super::merkle::entry;
use crate::ethereum::bindings::VerdictLog;
use crate::ethereum::{
    AnchorWriter, At, ChainReader, Contract, Domain, EthereumError, OperatorKey, RpcOptions, deploy, log_id,
    register_log, set_signer, set_successor,
};

#[tokio::test(flavor = "multi_thread")]
async fn checkpoints_reach_the_chain_and_are_found_there() {
    let Some(mut world) = World::new(&[]).await else { return };
    let mut writer = world.writer(&world.anvil.url).await.unwrap();
    let (checkpoint, proof) = world.step(0, 5);
    // The runtime drives the writer in a task of its own.
    let (mut writer, first) = tokio::spawn(async move {
        let first = writer.advance(checkpoint, proof).await.unwrap();
        (writer, first)
    })
    .await
    .unwrap();
    let second = world.advance(&mut writer, 5, 12).await.unwrap();
    assert_eq!((first.size, second.size), (5, 12));
    assert_eq!(second.root, world.log.root(12));

    // The same again changes nothing and says where it is.
    let again = world.advance(&mut writer, 5, 12).await.unwrap();
    assert_eq!(again.transaction, second.transaction);
    assert_eq!(again.gas_used, second.gas_used);
    assert_eq!(world.anchored_sizes().await, [5, 12]);

    let reader = world.reader().await;
    let heads = reader.heads(&world.log_id).await.unwrap();
    assert_eq!((heads.latest.size, heads.latest.root), (12, world.log.root(12)));
    assert_eq!(heads.finalized.size, 0);
    assert_eq!(heads.latest.block_number, second.block_number);
    assert_eq!(reader.checkpoint_of(&world.log_id, 5, At::Latest).await.unwrap().unwrap().root, world.log.root(5));
    assert_eq!(reader.checkpoint_of(&world.log_id, 6, At::Latest).await.unwrap(), None);
    assert_eq!(reader.owner_of(&world.log_id).await.unwrap(), Some(key().address()));
    assert_eq!(reader.owner_of(&[9; 32]).await.unwrap(), None);

    let anchor = reader.find_anchor(&world.log_id, 5, 0).await.unwrap().unwrap();
    assert_eq!((anchor.transaction, anchor.block_hash), (first.transaction, first.block_hash));
    assert_eq!((anchor.old_size, anchor.root, anchor.data_commitment), (0, world.log.root(5), [0xdc; 32]));
    assert_eq!(reader.find_anchor(&world.log_id, 6, 0).await.unwrap(), None);

    for (size, index) in [(5u64, 3u64), (12, 3), (12, 11), (12, 0)] {
        let proof = world.log.inclusion(index, size);
        let included = |e| {
            let reader = reader.clone();
            let (proof, log) = (proof.clone(), world.log_id);
            async move { reader.verify_inclusion_on_chain(&log, &e, index, size, &proof, At::Latest).await.unwrap() }
        };
        assert!(included(entry(index)).await);
        assert!(!included(entry(index + 1)).await);
    }
    let error = reader.verify_inclusion_on_chain(&world.log_id, &entry(0), 0, 7, &[], At::Latest).await.unwrap_err();
    assert!(matches!(error, EthereumError::UnknownCheckpoint { size: 7, .. }), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_contract_hashes_what_this_room_hashes() {
    let Some(mut world) = World::new(&[]).await else { return };
    let (checkpoint, _) = world.step(3, 9);
    let reader = world.reader().await;
    let ask = |data: Vec<u8>| {
        let reader = reader.clone();
        async move { reader.endpoint().call(reader.domain().contract, Bytes::from(data), At::Latest).await.unwrap() }
    };
    let digest = ask(VerdictLog::digestOfCall { checkpoint: checkpoint.to_sol() }.abi_encode()).await;
    assert_eq!(digest.as_ref(), checkpoint.signing_hash(&world.domain));
    let id = ask(VerdictLog::logIdOfCall { owner: key().address(), name: B256::from(NAME) }.abi_encode()).await;
    assert_eq!(id.as_ref(), log_id(key().address(), &NAME));
    assert_eq!(world.log_id, log_id(key().address(), &NAME));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_ring_forgets_and_events_remember() {
    let Some(mut world) = World::new(&[]).await else { return };
    let mut writer = world.writer(&world.anvil.url).await.unwrap();
    let mut first = None;
    for i in 0..70u64 {
        let anchored = world.advance(&mut writer, i * 3, i * 3 + 3).await.unwrap();
        first.get_or_insert(anchored);
    }
    let reader = world.reader().await;
    assert_eq!(reader.checkpoint_of(&world.log_id, 3, At::Latest).await.unwrap(), None);
    let anchor = reader.find_anchor(&world.log_id, 3, 0).await.unwrap().unwrap();
    assert_eq!(anchor.transaction, first.unwrap().transaction);
    // An old verdict is proven against the head.
    let proof = world.log.inclusion(1, 210);
    assert!(reader.verify_inclusion_on_chain(&world.log_id, &entry(1), 1, 210, &proof, At::Latest).await.unwrap());
}

/// The figure in the design: 68,500 gas a checkpoint, in the steady state (ring full), whatever the batch.
#[tokio::test(flavor = "multi_thread")]
async fn gas_of_a_steady_checkpoint() {
    let Some(mut world) = World::new(&[]).await else { return };
    let mut writer = world.writer(&world.anvil.url).await.unwrap();
    let mut old = 0;
    let mut steady = Vec::new();
    let mut proof_nodes = 0;
    for i in 0..96u64 {
        let new = 100_000 + i * 997;
        let anchored = world.advance(&mut writer, old, new).await.unwrap();
        if i >= 65 {
            steady.push(anchored.gas_used);
            proof_nodes += world.log.consistency(old, new).len();
        }
        old = new;
    }
    let mean = steady.iter().sum::<u64>() / steady.len() as u64;
    let (least, most) = (steady.iter().min().unwrap(), steady.iter().max().unwrap());
    println!(
        "gas a checkpoint (~130,000 entries, 997 each): mean {mean}, least {least}, most {most}, {:.1} proof nodes on average",
        proof_nodes as f64 / steady.len() as f64
    );
    assert!(mean <= 68_500, "{mean}");
}

#[tokio::test(flavor = "multi_thread")]
async fn finality_is_told_and_the_journal_forgets_what_is_final() {
    let Some(mut world) = World::new(&[]).await else { return };
    let mut writer = world.writer(&world.anvil.url).await.unwrap();
    world.advance(&mut writer, 0, 4).await.unwrap();
    assert_eq!(writer.finalized_size(&world.log_id).await.unwrap(), 0);
    world.anvil.mine(70).await;
    world.advance(&mut writer, 4, 6).await.unwrap();
    assert_eq!(writer.finalized_size(&world.log_id).await.unwrap(), 4);
    let heads = writer.head(&world.log_id).await.unwrap();
    assert_eq!((heads.latest.size, heads.finalized.size), (6, 4));
    world.anvil.mine(70).await;
    assert_eq!(writer.finalized_size(&world.log_id).await.unwrap(), 6);
    assert_eq!(writer.pending(), 0);
    drop(writer);
    let mut writer = world.writer(&world.anvil.url).await.unwrap();
    assert_eq!(writer.recover().await.unwrap(), []);
    world.advance(&mut writer, 6, 7).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn registering_is_idempotent_and_keys_rotate() {
    let Some(mut world) = World::new(&[]).await else { return };
    let reader = world.reader().await;
    let again = register_log(&reader, &key(), &NAME, key().address()).await.unwrap();
    assert_eq!((again.transaction, again.log_id), (None, world.log_id));
    let other = OperatorKey::from_hex(OTHER_KEY).unwrap();
    let error = register_log(&reader, &key(), &NAME, other.address()).await.unwrap_err();
    assert!(matches!(error, EthereumError::OtherSigner { .. }), "{error}");
    // The same name under another owner is another log.
    let theirs = register_log(&reader, &other, &NAME, other.address()).await.unwrap();
    assert_ne!(theirs.log_id, world.log_id);
    assert!(theirs.gas_used > 0);

    set_signer(&reader, &key(), &world.log_id, other.address()).await.unwrap();
    let mut writer = world.writer(&world.anvil.url).await.unwrap();
    let error = world.advance(&mut writer, 0, 3).await.unwrap_err();
    assert!(matches!(error, EthereumError::WrongSigner { signer, .. } if signer == other.address()), "{error}");
    assert!(!error.retryable());
    assert_eq!(writer.pending(), 0, "what is refused is not kept");
    drop(writer);
    // One key signs, another pays.
    let mut config = world.config(&world.anvil.url, quick());
    config.signer = other;
    let mut writer = AnchorWriter::open(config).await.unwrap();
    world.advance(&mut writer, 0, 3).await.unwrap();

    set_successor(&reader, &key(), &world.log_id, Address::repeat_byte(7)).await.unwrap();
    let error = world.advance(&mut writer, 3, 4).await.unwrap_err();
    assert!(matches!(error, EthereumError::LogClosed { .. }), "{error}");
    assert_eq!(reader.successor_of(&world.log_id).await.unwrap(), Some(Address::repeat_byte(7)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_was_altered_is_not_anchored() {
    let Some(mut world) = World::new(&[]).await else { return };
    let mut writer = world.writer(&world.anvil.url).await.unwrap();
    world.advance(&mut writer, 0, 8).await.unwrap();

    let (mut forked, proof) = world.step(8, 10);
    forked.new_root[0] ^= 1;
    let error = writer.advance(forked, proof.clone()).await.unwrap_err();
    assert!(matches!(error, EthereumError::Inconsistent { .. }), "{error}");

    let (mut rewritten, _) = world.step(8, 10);
    rewritten.old_root[0] ^= 1;
    let error = writer.advance(rewritten, proof.clone()).await.unwrap_err();
    assert!(matches!(error, EthereumError::Diverged { size: 8, .. }), "{error}");

    let (stale, old_proof) = world.step(5, 7);
    let error = writer.advance(stale, old_proof).await.unwrap_err();
    assert!(matches!(error, EthereumError::HeadMoved { head_size: 8, .. }), "{error}");

    let (mut other_past, proof_of_8) = world.step(0, 8);
    other_past.new_root[0] ^= 1;
    let error = writer.advance(other_past, proof_of_8).await.unwrap_err();
    assert!(matches!(error, EthereumError::Diverged { size: 8, .. }), "{error}");

    world.advance(&mut writer, 8, 10).await.unwrap();
    assert_eq!(world.anchored_sizes().await, [8, 10]);
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_places_are_told_before_anything_is_sent() {
    let Some(world) = World::new(&[]).await else { return };
    let url = &world.anvil.url;
    let before = world.nonce(key().address()).await;
    let open = |url: String, domain: Domain| {
        let mut config = world.config(&url, quick());
        config.domain = domain;
        config.options.rpc.read_budget = Duration::from_millis(50);
        config.journal = world.dir.path().join(format!("journal-{}-{}", domain.chain_id, domain.contract));
        AnchorWriter::open(config)
    };

    let nothing = Domain { contract: Address::repeat_byte(0x42), ..world.domain };
    let error = open(url.clone(), nothing).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        format!(
            "{url}: there is no contract at 0x4242424242424242424242424242424242424242 on chain 31337; check the address, or deploy VerdictLog there with `avouch deploy`"
        )
    );
    assert!(!error.retryable());

    // CREATE2's factory is deployed on every anvil.
    let factory: Address = "0x4e59b44847b379578588920cA78FbF26c0B4956C".parse().unwrap();
    let error = open(url.clone(), Domain { contract: factory, ..world.domain }).await.unwrap_err();
    assert!(
        matches!(&error, EthereumError::WrongCode { expected, .. } if *expected == Contract::VerdictLog.code_hash()),
        "{error}"
    );
    assert!(error.to_string().contains("is not this version's VerdictLog"), "{error}");

    let error = open(url.clone(), Domain { chain_id: 1, ..world.domain }).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("{url} serves chain 31337, but chain 1 is configured; change the endpoint or chain_id")
    );

    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let error = open(format!("http://user:secret@{free}/key"), world.domain).await.unwrap_err();
    assert!(matches!(error, EthereumError::Unreachable { .. }), "{error}");
    let message = error.to_string();
    assert!(message.starts_with(&format!("http://{free}/…: cannot connect (")), "{message}");
    assert!(!message.contains("secret") && !message.contains("/key"), "{message}");
    assert!(error.retryable());

    let error = world.reader().await.head(&[5; 32], At::Latest).await.unwrap_err();
    assert!(matches!(error, EthereumError::UnknownLog { .. }), "{error}");
    assert_eq!(world.nonce(key().address()).await, before, "nothing was sent");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_writer_is_refused() {
    let Some(world) = World::new(&[]).await else { return };
    let writer = world.writer(&world.anvil.url).await.unwrap();
    let error = world.writer(&world.anvil.url).await.unwrap_err();
    assert!(matches!(error, EthereumError::JournalBusy { .. }), "{error}");
    assert!(error.to_string().contains("one key has one writer"), "{error}");
    drop(writer);
    world.writer(&world.anvil.url).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_without_ether_is_told_so() {
    let Some(mut world) = World::new(&[]).await else { return };
    let mut config = world.config(&world.anvil.url, quick());
    config.payer = OperatorKey::random();
    let mut writer = AnchorWriter::open(config).await.unwrap();
    let error = world.advance(&mut writer, 0, 3).await.unwrap_err();
    assert!(matches!(error, EthereumError::Underfunded { .. }), "{error}");
    assert!(error.to_string().contains("it holds 0 wei"), "{error}");
    let poor = OperatorKey::random();
    let error = deploy(Contract::VerdictLog, &world.anvil.url, None, &poor, RpcOptions::default()).await.unwrap_err();
    assert!(matches!(error, EthereumError::Underfunded { .. }), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn deploying_to_the_wrong_chain_sends_nothing() {
    let Some(anvil) = Anvil::start(&["--chain-id", "777"]) else { return };
    let operator = OperatorKey::from_hex(KEY).unwrap();
    let error = deploy(Contract::VerdictLog, &anvil.url, Some(1), &operator, RpcOptions::default()).await.unwrap_err();
    assert!(matches!(error, EthereumError::WrongChain { expected: 1, found: 777, .. }), "{error}");
    let deployed = deploy(Contract::VerdictLog, &anvil.url, Some(777), &operator, RpcOptions::default()).await.unwrap();
    println!("gas of the deployment: {}", deployed.gas_used);
    let reader = ChainReader::connect(&anvil.url, None, deployed.contract, RpcOptions::default()).await.unwrap();
    assert_eq!(reader.domain(), Domain { chain_id: 777, contract: deployed.contract });
}
