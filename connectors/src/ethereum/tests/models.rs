//! The model registry, from Rust, on anvil.
#![allow(clippy::unwrap_used)]

use super::chain::{Anvil, KEY, NAME, OTHER_KEY, key};
use crate::ethereum::{Contract, EthereumError, ModelRegistry, OperatorKey, RpcOptions, deploy, registry_id};

const MODEL: [u8; 32] = [7; 32];
const DATA: [u8; 32] = [8; 32];

struct Two {
    anvil: Anvil,
    registry: ModelRegistry,
    publisher: OperatorKey,
    approver: OperatorKey,
}

async fn two() -> Option<Two> {
    let anvil = Anvil::start(&[])?;
    let (publisher, approver) = (OperatorKey::from_hex(KEY).unwrap(), OperatorKey::from_hex(OTHER_KEY).unwrap());
    let at = deploy(Contract::ModelRegistry, &anvil.url, Some(31337), &publisher, RpcOptions::default()).await.unwrap();
    println!("gas of the deployment: {}", at.gas_used);
    let owner = publisher.address();
    let registry =
        ModelRegistry::connect(&anvil.url, Some(31337), at.contract, owner, NAME, RpcOptions::default()).await.unwrap();
    Some(Two { anvil, registry, publisher, approver })
}

fn reverted(error: &EthereumError) -> &str {
    match error {
        EthereumError::Reverted { reason, .. } => reason,
        other => panic!("{other}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_is_proposed_by_one_and_activated_by_another() {
    let Some(Two { anvil, registry, publisher, approver }) = two().await else { return };
    assert_eq!(registry.id(), registry_id(publisher.address(), &NAME));
    assert_eq!(registry.roles().await.unwrap(), None);
    let early = registry.propose(&publisher, &MODEL, &DATA, "").await.unwrap_err();
    assert!(reverted(&early).contains("has no registry of this name"), "{early}");

    registry.register(&publisher, publisher.address(), approver.address()).await.unwrap();
    let roles = registry.roles().await.unwrap().unwrap();
    assert_eq!(
        (roles.owner, roles.publisher, roles.approver),
        (publisher.address(), publisher.address(), approver.address())
    );
    assert_eq!(registry.model(&MODEL).await.unwrap(), None);
    registry.propose(&publisher, &MODEL, &DATA, "file:///models/pump.model").await.unwrap();
    let proposed = registry.model(&MODEL).await.unwrap().unwrap();
    assert_eq!((proposed.data_hash, proposed.proposer, proposed.window), (DATA, publisher.address(), None));
    assert!(!proposed.is_active(proposed.proposed_at));

    let alone = registry.activate(&publisher, &MODEL, None, None).await.unwrap_err();
    assert!(reverted(&alone).contains("does not have the role"), "{alone}");
    let past = registry.activate(&approver, &MODEL, Some(1), None).await.unwrap_err();
    assert!(reverted(&past).contains("it begins now"), "{past}");
    registry.activate(&approver, &MODEL, None, None).await.unwrap();
    let active = registry.model(&MODEL).await.unwrap().unwrap();
    let (from, until) = active.window.unwrap();
    assert_eq!(until, u64::MAX);
    assert!(active.is_active(from) && !active.is_active(from - 1));

    anvil.rpc("evm_increaseTime", serde_json::json!([100])).await;
    registry.revoke(&approver, &MODEL, &[9; 32]).await.unwrap();
    let revoked = registry.model(&MODEL).await.unwrap().unwrap();
    let at = revoked.revoked_at.unwrap();
    assert!(at >= from + 100 && revoked.is_active(at - 1) && !revoked.is_active(at));
    let again = registry.activate(&approver, &MODEL, None, None).await.unwrap_err();
    assert!(reverted(&again).contains("was revoked, for good"), "{again}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_roles_are_two_people_and_the_owner_gives_them() {
    let Some(Two { anvil: _anvil, registry, publisher, approver }) = two().await else { return };
    let one = registry.register(&publisher, approver.address(), approver.address()).await.unwrap_err();
    assert!(reverted(&one).contains("two different accounts"), "{one}");
    registry.register(&publisher, publisher.address(), approver.address()).await.unwrap();
    let again = registry.register(&publisher, publisher.address(), approver.address()).await.unwrap_err();
    assert!(reverted(&again).contains("is there already"), "{again}");
    registry.propose(&publisher, &MODEL, &DATA, "").await.unwrap();
    registry.set_roles(&publisher, approver.address(), publisher.address()).await.unwrap();
    let same = registry.activate(&publisher, &MODEL, None, None).await.unwrap_err();
    assert!(reverted(&same).contains("another one must activate it"), "{same}");
}

#[tokio::test(flavor = "multi_thread")]
async fn another_contract_is_not_taken_for_a_registry() {
    let Some(anvil) = Anvil::start(&[]) else { return };
    let operator = key();
    let log = deploy(Contract::VerdictLog, &anvil.url, None, &operator, RpcOptions::default()).await.unwrap();
    let open = ModelRegistry::connect(&anvil.url, None, log.contract, operator.address(), NAME, RpcOptions::default());
    let error = open.await.unwrap_err().to_string();
    assert!(error.contains("is not this version's ModelRegistry"), "{error}");
}
