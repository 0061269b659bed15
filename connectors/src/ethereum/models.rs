//! The model registry: which models may decide, and since when. Reading takes no key; changing takes that of a role.
//!
//! The writer of anchors has a journal because it runs unattended for years. What is done here is done by a person, once in a
//! while, who sees what came of it: each change is one transaction that is waited for.

use alloy::primitives::{Address, B256, Bytes, TxKind, keccak256};
use alloy::sol_types::{SolCall, SolInterface, SolValue};
use avouch_engine::verdict::Hash32;

use super::artifact::Contract;
use super::bindings::ModelRegistry as contract;
use super::bindings::ModelRegistry::ModelRegistryErrors as ContractError;
use super::deploy::transact_once;
use super::error::{EthereumError, show};
use super::rpc::{At, Endpoint, RpcOptions};
use super::signer::OperatorKey;
use super::transact::Payload;

/// A ModelRegistry contract behind an endpoint, checked to be one, and one registry in it.
#[derive(Debug, Clone)]
pub struct ModelRegistry {
    endpoint: Endpoint,
    chain_id: u64,
    contract: Address,
    owner: Address,
    name: Hash32,
}

/// Who may do what in a registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Roles {
    /// Gives the roles.
    pub owner: Address,
    /// Proposes models.
    pub publisher: Address,
    /// Activates them.
    pub approver: Address,
}

/// What a registry knows of a model. Times are those of blocks, in seconds since the Unix epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ModelOnChain {
    /// When it was proposed.
    pub proposed_at: u64,
    /// Who proposed it.
    pub proposer: Address,
    /// SHA-256 of what it was trained on.
    pub data_hash: Hash32,
    /// Its window; `None` until it is activated. The end is no part of it.
    pub window: Option<(u64, u64)>,
    /// When it was revoked.
    pub revoked_at: Option<u64>,
}

impl ModelOnChain {
    /// Whether it may decide at a time, in seconds since the Unix epoch: as the contract says it.
    pub fn is_active(&self, when: u64) -> bool {
        self.window.is_some_and(|(from, until)| (from..until).contains(&when))
            && self.revoked_at.is_none_or(|r| when < r)
    }
}

/// The id of a registry: keccak256 of owner and name.
pub fn registry_id(owner: Address, name: &Hash32) -> Hash32 {
    keccak256((owner, B256::from(*name)).abi_encode()).0
}

impl ModelRegistry {
    /// Connects, checks the chain (where one is expected) and that the code at `contract` is ModelRegistry's. The registry is
    /// that of `owner` with `name`; it need not exist yet.
    ///
    /// # Errors
    /// What keeps the endpoint from answering; [`EthereumError::WrongChain`], [`EthereumError::NoContract`],
    /// [`EthereumError::WrongCode`].
    pub async fn connect(
        url: &str,
        chain_id: Option<u64>,
        contract: Address,
        owner: Address,
        name: Hash32,
        options: RpcOptions,
    ) -> Result<Self, EthereumError> {
        Self::over(Endpoint::new(url, options)?, chain_id, contract, owner, name).await
    }

    /// The same by way of several nodes: each that answers is checked.
    ///
    /// # Errors
    /// The same.
    pub async fn over(
        endpoint: Endpoint,
        chain_id: Option<u64>,
        contract: Address,
        owner: Address,
        name: Hash32,
    ) -> Result<Self, EthereumError> {
        let found = endpoint.chain(chain_id).await?;
        endpoint.require_code(Contract::ModelRegistry, contract).await?;
        Ok(Self { endpoint, chain_id: found, contract, owner, name })
    }

    /// The registry's id.
    pub fn id(&self) -> Hash32 {
        registry_id(self.owner, &self.name)
    }

    /// Who may do what; `None` if the registry was never made. At the newest block.
    pub async fn roles(&self) -> Result<Option<Roles>, EthereumError> {
        let roles = self.view(&contract::rolesOfCall { registryId: self.id().into() }).await?;
        let roles = Roles { owner: roles.owner, publisher: roles.publisher, approver: roles.approver };
        Ok(Some(roles).filter(|r| !r.owner.is_zero()))
    }

    /// What is known of a model; `None` if it was never proposed. At the newest block.
    pub async fn model(&self, model: &Hash32) -> Result<Option<ModelOnChain>, EthereumError> {
        let call = contract::modelOfCall { registryId: self.id().into(), modelHash: B256::from(*model) };
        let found = self.view(&call).await?;
        let known = ModelOnChain {
            proposed_at: found.proposedAt,
            proposer: found.proposer,
            data_hash: found.dataHash.0,
            window: (found.activeFrom != 0).then_some((found.activeFrom, found.activeUntil)),
            revoked_at: (found.revokedAt != 0).then_some(found.revokedAt),
        };
        Ok(Some(known).filter(|m| m.proposed_at != 0))
    }

    /// Makes the registry, which is `key`'s: the owner given to [`ModelRegistry::connect`] must be its account. Returns the
    /// transaction's hash.
    ///
    /// # Errors
    /// [`EthereumError::Reverted`] with what the contract said, and what keeps a transaction from a block.
    pub async fn register(
        &self,
        key: &OperatorKey,
        publisher: Address,
        approver: Address,
    ) -> Result<Hash32, EthereumError> {
        let call = contract::registerCall { name: B256::from(self.name), publisher, approver };
        self.change(key, call.abi_encode(), "register").await
    }

    /// Gives the roles to others. `key` must be the owner's. Returns the transaction's hash.
    ///
    /// # Errors
    /// As [`ModelRegistry::register`].
    pub async fn set_roles(
        &self,
        key: &OperatorKey,
        publisher: Address,
        approver: Address,
    ) -> Result<Hash32, EthereumError> {
        let call = contract::setRolesCall { name: B256::from(self.name), publisher, approver };
        self.change(key, call.abi_encode(), "setRoles").await
    }

    /// Proposes a model. `key` must be the publisher's. Returns the transaction's hash.
    ///
    /// # Errors
    /// As [`ModelRegistry::register`].
    pub async fn propose(
        &self,
        key: &OperatorKey,
        model: &Hash32,
        data: &Hash32,
        uri: &str,
    ) -> Result<Hash32, EthereumError> {
        let call = contract::proposeCall {
            registryId: self.id().into(),
            modelHash: B256::from(*model),
            dataHash: B256::from(*data),
            uri: uri.to_owned(),
        };
        self.change(key, call.abi_encode(), "propose").await
    }

    /// Lets a proposed model decide from `from` (`None`: now) to `until` (`None`: until it is revoked), seconds since the Unix
    /// epoch. `key` must be the approver's. Returns the transaction's hash.
    ///
    /// # Errors
    /// As [`ModelRegistry::register`].
    pub async fn activate(
        &self,
        key: &OperatorKey,
        model: &Hash32,
        from: Option<u64>,
        until: Option<u64>,
    ) -> Result<Hash32, EthereumError> {
        let call = contract::activateCall {
            registryId: self.id().into(),
            modelHash: B256::from(*model),
            from: from.unwrap_or(0),
            until: until.unwrap_or(u64::MAX),
        };
        self.change(key, call.abi_encode(), "activate").await
    }

    /// Ends a model's right to decide. `key` must be publisher's, approver's or owner's; `reason` is SHA-256 of a text that is kept
    /// elsewhere. Returns the transaction's hash.
    ///
    /// # Errors
    /// As [`ModelRegistry::register`].
    pub async fn revoke(&self, key: &OperatorKey, model: &Hash32, reason: &Hash32) -> Result<Hash32, EthereumError> {
        let call = contract::revokeCall {
            registryId: self.id().into(),
            modelHash: B256::from(*model),
            reasonHash: B256::from(*reason),
        };
        self.change(key, call.abi_encode(), "revoke").await
    }

    async fn view<C: SolCall>(&self, call: &C) -> Result<C::Return, EthereumError> {
        let answer = self.endpoint.call(self.contract, Bytes::from(call.abi_encode()), At::Latest).await?;
        C::abi_decode_returns(&answer).map_err(|e| EthereumError::Malformed {
            endpoint: self.endpoint.to_string(),
            method: "eth_call".to_owned(),
            reason: e.to_string(),
        })
    }

    async fn change(&self, key: &OperatorKey, data: Vec<u8>, action: &str) -> Result<Hash32, EthereumError> {
        let payload = Payload { chain_id: self.chain_id, to: TxKind::Call(self.contract), data: Bytes::from(data) };
        let receipt =
            transact_once(&self.endpoint, key, &payload).await.map_err(|e| self.explain(e, action, key.address()))?;
        if receipt.status() {
            return Ok(receipt.transaction_hash.0);
        }
        Err(self.reverted(action, "the chain changed between estimate and block".to_owned()))
    }

    fn reverted(&self, action: &str, reason: String) -> EthereumError {
        EthereumError::Reverted { contract: self.contract, action: action.to_owned(), reason }
    }

    /// What the contract said, in words.
    fn explain(&self, error: EthereumError, action: &str, caller: Address) -> EthereumError {
        let Some(data) = error.revert_data() else { return error };
        let reason = match ContractError::abi_decode(data) {
            Ok(ContractError::UnknownRegistry(_)) => {
                format!("account {} has no registry of this name; make it first", self.owner)
            }
            Ok(ContractError::AlreadyRegistered(_)) => {
                "the registry is there already; its owner can change its roles".into()
            }
            Ok(ContractError::BadRoles(_)) => {
                "publisher and approver must be two different accounts, so that two people stand behind a model".into()
            }
            Ok(ContractError::NotAuthorized(e)) => format!("account {} does not have the role for this", e.caller),
            Ok(ContractError::AlreadyProposed(e)) => format!("model {} was proposed before", show(&e.modelHash.0)),
            Ok(ContractError::NotProposed(e)) => format!("model {} was not proposed", show(&e.modelHash.0)),
            Ok(ContractError::AlreadyActivated(e)) => {
                format!(
                    "model {} was activated before; its window can only be cut short, by a revocation",
                    show(&e.modelHash.0)
                )
            }
            Ok(ContractError::Revoked(e)) => format!("model {} was revoked, for good", show(&e.modelHash.0)),
            Ok(ContractError::SamePerson(_)) => {
                format!("account {caller} has proposed the model, so another one must activate it")
            }
            Ok(ContractError::BadWindow(e)) => format!(
                "a window from {} to {} is none: it begins now ({}) or later, and ends after it begins",
                e.from, e.until, e.present
            ),
            Err(_) => format!("with {}", alloy::primitives::hex::encode_prefixed(data)),
        };
        self.reverted(action, reason)
    }
}
