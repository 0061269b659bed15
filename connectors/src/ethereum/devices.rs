//! The device registry: which keys speak for which device. Reading takes no key; changing takes that of a role.
//!
//! Keys stand in the contract's events. They are followed as far as blocks are final, so what was read is never taken back, and a
//! [`FleetKeys`] goes on where it was kept. The contract does not check the consent of Ed25519 keys: that is done here, and a
//! key without it counts as one under which nothing is valid.

use std::collections::BTreeMap;
use std::sync::Arc;

use alloy::primitives::{Address, B256, Bytes, TxKind, U256, keccak256};
use alloy::rpc::types::Log;
use alloy::sol_types::{Eip712Domain, SolCall, SolEvent, SolInterface, SolStruct, SolValue, eip712_domain};
use avouch_engine::identity::ed25519::{self, Item};
use avouch_engine::identity::{DeviceKey, DeviceKeys, KeyError, KeySet, KeySpan, Naming, chain_domain};
use avouch_engine::verdict::Hash32;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::artifact::Contract;
use super::bindings::DeviceRegistry as contract;
use super::bindings::DeviceRegistry::DeviceRegistryErrors as ContractError;
use super::bindings::Enrolment;
use super::deploy::transact_once;
use super::error::{EthereumError, show};
use super::rpc::{At, Endpoint, RpcOptions};
use super::signer::OperatorKey;
use super::transact::Payload;

/// So many blocks are asked for at once; fewer where an endpoint refuses that.
const MOST_BLOCKS: u64 = 10_000;

/// A DeviceRegistry contract behind an endpoint, checked to be one, and one fleet in it.
#[derive(Debug, Clone)]
pub struct DeviceRegistry {
    endpoint: Endpoint,
    chain_id: u64,
    contract: Address,
    fleet: Hash32,
}

/// One key of a device, as the registry has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RegisteredKey {
    /// The first message it speaks for.
    pub from_seq: u64,
    /// The first message it does not speak for any more; `u64::MAX` while there is none.
    pub until_seq: u64,
    /// ERC-7913 bytes, in hexadecimal.
    pub key: String,
    /// Whether it consented to be the device's.
    pub consents: bool,
}

impl RegisteredKey {
    /// The key; of one that did not consent, its bytes alone, under which nothing is valid.
    pub fn key(&self) -> DeviceKey {
        let bytes = alloy::primitives::hex::decode(&self.key).unwrap_or_default();
        if self.consents { DeviceKey::from_erc7913(&bytes) } else { DeviceKey::Other(bytes) }
    }

    /// Whether it was revoked from its first message on.
    pub fn is_void(&self) -> bool {
        self.from_seq == self.until_seq
    }
}

/// The keys of a fleet up to a block, to be followed on from there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FleetKeys {
    /// What signatures name the fleet by, in hexadecimal: keys of another one are not these.
    domain: String,
    /// The first block that was not read yet.
    pub next_block: u64,
    /// By the device's pseudonym in hexadecimal.
    devices: BTreeMap<String, Vec<RegisteredKey>>,
}

impl FleetKeys {
    /// How many devices were ever enrolled.
    pub fn len(&self) -> usize {
        self.devices.len()
    }

    /// Whether none was.
    pub fn is_empty(&self) -> bool {
        self.devices.is_empty()
    }

    /// The devices by pseudonym in hexadecimal, with their keys in the order of their numbers.
    pub fn devices(&self) -> impl Iterator<Item = (&str, &[RegisteredKey])> {
        self.devices.iter().map(|(id, keys)| (id.as_str(), keys.as_slice()))
    }

    /// The keys of one device, in the order of their numbers; none if it was never enrolled.
    pub fn device(&self, id: &Hash32) -> &[RegisteredKey] {
        self.devices.get(&hex(id)).map_or(&[], Vec::as_slice)
    }

    fn set(&mut self, device: &Hash32, number: U256, from_seq: u64, key: &[u8], consents: bool) -> Result<(), String> {
        let keys = self.devices.entry(hex(device)).or_default();
        if number != U256::from(keys.len()) {
            return Err(format!("key {number} of device {} comes after {} keys", hex(device), keys.len()));
        }
        // As the contract does it: the last one that speaks for anything ends where this one begins, unless it has ended.
        if let Some(last) = keys.iter_mut().rev().find(|k| !k.is_void())
            && last.until_seq == u64::MAX
        {
            last.until_seq = from_seq;
        }
        keys.push(RegisteredKey { from_seq, until_seq: u64::MAX, key: hex(key), consents });
        Ok(())
    }

    fn revoke(&mut self, device: &Hash32, number: U256, from_seq: u64) -> Result<(), String> {
        let keys = self.devices.get_mut(&hex(device));
        let key = keys.and_then(|keys| keys.get_mut(usize::try_from(number).ok()?));
        let key = key.ok_or_else(|| format!("key {number} of device {} is revoked before it is there", hex(device)))?;
        key.until_seq = from_seq;
        Ok(())
    }

    /// As the engine takes them. `name`: [`KeySet::name_of`] the source.
    ///
    /// # Errors
    /// [`KeyError`] where keys overlap, which the contract does not let happen.
    pub fn key_set(&self, name: &str) -> Result<Arc<KeySet>, KeyError> {
        let domain = bytes32(&self.domain).ok_or_else(|| KeyError::Key("the fleet's domain is not 32 bytes".into()))?;
        let mut devices = Vec::with_capacity(self.devices.len());
        for (id, keys) in &self.devices {
            let id = bytes32(id).ok_or_else(|| KeyError::Key(format!("`{id}` is no pseudonym")))?;
            let span = |k: &RegisteredKey| KeySpan { from_seq: k.from_seq, until_seq: k.until_seq, key: k.key() };
            // Keys that speak for nothing may begin after the next, and are left out, unless there is no other.
            let mut spans: Vec<KeySpan> = keys.iter().filter(|k| !k.is_void()).map(span).collect();
            if spans.is_empty() {
                spans.extend(keys.iter().min_by_key(|k| k.from_seq).map(span));
            }
            spans.sort_by_key(|s| s.from_seq);
            devices.push(DeviceKeys { id, spans });
        }
        KeySet::new(name, domain, Naming::Pseudonym, devices)
    }
}

/// The id of a fleet: keccak256 of owner and name.
pub fn fleet_id(owner: Address, name: &Hash32) -> Hash32 {
    keccak256((owner, B256::from(*name)).abi_encode()).0
}

impl DeviceRegistry {
    /// Connects, checks the chain (where one is expected) and that the code at `contract` is DeviceRegistry's. The fleet need not
    /// exist yet.
    ///
    /// # Errors
    /// What keeps the endpoint from answering; [`EthereumError::WrongChain`], [`EthereumError::NoContract`],
    /// [`EthereumError::WrongCode`].
    pub async fn connect(
        url: &str,
        chain_id: Option<u64>,
        contract: Address,
        fleet: Hash32,
        options: RpcOptions,
    ) -> Result<Self, EthereumError> {
        Self::over(Endpoint::new(url, options)?, chain_id, contract, fleet).await
    }

    /// The same by way of several nodes: each that answers is checked.
    ///
    /// # Errors
    /// The same.
    pub async fn over(
        endpoint: Endpoint,
        chain_id: Option<u64>,
        contract: Address,
        fleet: Hash32,
    ) -> Result<Self, EthereumError> {
        let found = endpoint.chain(chain_id).await?;
        endpoint.require_code(Contract::DeviceRegistry, contract).await?;
        Ok(Self { endpoint, chain_id: found, contract, fleet })
    }

    /// What signatures name the fleet by.
    pub fn domain(&self) -> Hash32 {
        chain_domain(self.chain_id, &self.contract.0.0, &self.fleet)
    }

    /// Owner and enroller of the fleet at the newest block; `None` if there is no such fleet.
    pub async fn roles(&self) -> Result<Option<(Address, Address)>, EthereumError> {
        let roles = self.view(&contract::fleetOfCall { fleetId: self.fleet.into() }).await?;
        Ok(Some((roles.owner, roles.enroller)).filter(|r| !r.0.is_zero()))
    }

    /// No keys, to be followed from `block` on.
    pub fn begin(&self, block: u64) -> FleetKeys {
        FleetKeys { domain: hex(&self.domain()), next_block: block, devices: BTreeMap::new() }
    }

    /// Whether kept keys are this fleet's.
    pub fn is_of(&self, keys: &FleetKeys) -> bool {
        keys.domain == hex(&self.domain())
    }

    /// Reads what was said of the fleet's keys up to the newest final block; `true` if anything was. `latest`: up to the newest
    /// block instead, which a chain may take back.
    ///
    /// # Errors
    /// What keeps the endpoint from answering. What was read until then stands in `keys`.
    pub async fn follow(&self, keys: &mut FleetKeys, latest: bool) -> Result<bool, EthereumError> {
        let end = match latest {
            true => self.endpoint.block(At::Latest).await?.map_or(0, |b| b.header.number),
            false => self.endpoint.final_block().await?,
        };
        let (mut most, mut changed) = (MOST_BLOCKS, false);
        while keys.next_block <= end {
            let to = end.min(keys.next_block.saturating_add(most - 1));
            let filter = json!([{
                "address": self.contract,
                "fromBlock": format!("{:#x}", keys.next_block),
                "toBlock": format!("{to:#x}"),
                "topics": [[contract::DeviceKeySet::SIGNATURE_HASH, contract::DeviceRevoked::SIGNATURE_HASH],
                    B256::from(self.fleet)],
            }]);
            let logs: Vec<Log> = match self.endpoint.logs(filter, to).await {
                Ok(logs) => logs,
                Err(EthereumError::Rpc { .. }) if most > 1 => {
                    most /= 2;
                    continue;
                }
                Err(e) => return Err(e),
            };
            // A batch as a whole or not at all.
            let mut next = keys.clone();
            for log in &logs {
                self.apply(&mut next, log).map_err(|reason| self.malformed("eth_getLogs", reason))?;
            }
            changed |= !logs.is_empty();
            next.next_block = to + 1;
            *keys = next;
        }
        Ok(changed)
    }

    fn apply(&self, keys: &mut FleetKeys, log: &Log) -> Result<(), String> {
        if log.removed {
            return Err("a final block has an event that was removed".into());
        }
        match log.topic0() {
            Some(&contract::DeviceKeySet::SIGNATURE_HASH) => {
                let e = contract::DeviceKeySet::decode_log(&log.inner).map_err(|e| e.to_string())?;
                let consents = self.consents(&e.deviceId.0, e.fromSeq, &e.key, &e.consent);
                keys.set(&e.deviceId.0, e.number, e.fromSeq, &e.key, consents)
            }
            Some(&contract::DeviceRevoked::SIGNATURE_HASH) => {
                let e = contract::DeviceRevoked::decode_log(&log.inner).map_err(|e| e.to_string())?;
                keys.revoke(&e.deviceId.0, e.number, e.fromSeq)
            }
            _ => Err("an event that was not asked for".into()),
        }
    }

    /// The consent of an Ed25519 key, which the contract only records; that of others it has checked.
    fn consents(&self, device: &Hash32, from_seq: u64, key: &[u8], consent: &[u8]) -> bool {
        let DeviceKey::Ed25519(key_) = DeviceKey::from_erc7913(key) else { return true };
        let digest = self.consent_digest(device, from_seq, key);
        consent.try_into().is_ok_and(|signature| ed25519::verify(&Item { key: &key_, message: &digest, signature }))
    }

    fn eip712(&self) -> Eip712Domain {
        eip712_domain! {
            name: "Avouch devices",
            version: "1",
            chain_id: self.chain_id,
            verifying_contract: self.contract,
        }
    }

    /// What a key signs to be a device's from a message on: the EIP-712 digest, as the contract makes it.
    pub fn consent_digest(&self, device: &Hash32, from_seq: u64, key: &[u8]) -> Hash32 {
        let enrolment = Enrolment {
            fleetId: self.fleet.into(),
            deviceId: B256::from(*device),
            fromSeq: from_seq,
            key: Bytes::copy_from_slice(key),
        };
        enrolment.eip712_signing_hash(&self.eip712()).0
    }

    /// Makes the fleet `name`, which is `key`'s, or gives it another enroller. Returns the transaction's hash.
    ///
    /// # Errors
    /// [`EthereumError::Reverted`] with what the contract said, and what keeps a transaction from a block.
    pub async fn register(&self, key: &OperatorKey, name: &Hash32, enroller: Address) -> Result<Hash32, EthereumError> {
        let name = B256::from(*name);
        match self.roles().await? {
            None => self.change(key, contract::registerCall { name, enroller }.abi_encode(), "register").await,
            Some(_) => self.change(key, contract::setEnrollerCall { name, enroller }.abi_encode(), "setEnroller").await,
        }
    }

    /// Enrols a device with its first key. `key` must be the enroller's. Returns the transaction's hash.
    ///
    /// # Errors
    /// As [`DeviceRegistry::register`].
    pub async fn enrol(
        &self,
        key: &OperatorKey,
        device: &Hash32,
        device_key: &[u8],
        consent: &[u8],
    ) -> Result<Hash32, EthereumError> {
        let call = contract::enrolCall {
            fleetId: self.fleet.into(),
            deviceId: B256::from(*device),
            key: Bytes::copy_from_slice(device_key),
            consent: Bytes::copy_from_slice(consent),
        };
        self.change(key, call.abi_encode(), "enrol").await
    }

    /// Gives a device another key from one of its messages on. `key` must be the enroller's. Returns the transaction's hash.
    ///
    /// # Errors
    /// As [`DeviceRegistry::register`].
    pub async fn rotate(
        &self,
        key: &OperatorKey,
        device: &Hash32,
        from_seq: u64,
        device_key: &[u8],
        consent: &[u8],
    ) -> Result<Hash32, EthereumError> {
        let call = contract::rotateCall {
            fleetId: self.fleet.into(),
            deviceId: B256::from(*device),
            fromSeq: from_seq,
            key: Bytes::copy_from_slice(device_key),
            consent: Bytes::copy_from_slice(consent),
        };
        self.change(key, call.abi_encode(), "rotate").await
    }

    /// Ends a device's key number `number` at one of its messages. `key` must be the enroller's; `reason` is SHA-256 of a text that
    /// is kept elsewhere. Returns the transaction's hash.
    ///
    /// # Errors
    /// As [`DeviceRegistry::register`].
    pub async fn revoke(
        &self,
        key: &OperatorKey,
        device: &Hash32,
        number: usize,
        from_seq: u64,
        reason: &Hash32,
    ) -> Result<Hash32, EthereumError> {
        let call = contract::revokeCall {
            fleetId: self.fleet.into(),
            deviceId: B256::from(*device),
            number: U256::from(number),
            fromSeq: from_seq,
            reasonHash: B256::from(*reason),
        };
        self.change(key, call.abi_encode(), "revoke").await
    }

    async fn view<C: SolCall>(&self, call: &C) -> Result<C::Return, EthereumError> {
        let answer = self.endpoint.call(self.contract, Bytes::from(call.abi_encode()), At::Latest).await?;
        C::abi_decode_returns(&answer).map_err(|e| self.malformed("eth_call", e.to_string()))
    }

    fn malformed(&self, method: &str, reason: String) -> EthereumError {
        EthereumError::Malformed { endpoint: self.endpoint.to_string(), method: method.to_owned(), reason }
    }

    async fn change(&self, key: &OperatorKey, data: Vec<u8>, action: &str) -> Result<Hash32, EthereumError> {
        let payload = Payload { chain_id: self.chain_id, to: TxKind::Call(self.contract), data: Bytes::from(data) };
        let receipt = transact_once(&self.endpoint, key, &payload).await.map_err(|e| self.explain(e, action))?;
        if receipt.status() {
            return Ok(receipt.transaction_hash.0);
        }
        Err(self.reverted(action, "the chain changed between estimate and block".to_owned()))
    }

    fn reverted(&self, action: &str, reason: String) -> EthereumError {
        EthereumError::Reverted { contract: self.contract, action: action.to_owned(), reason }
    }

    /// What the contract said, in words.
    fn explain(&self, error: EthereumError, action: &str) -> EthereumError {
        let Some(data) = error.revert_data() else { return error };
        let reason = match ContractError::abi_decode(data) {
            Ok(ContractError::UnknownFleet(e)) => {
                format!("there is no fleet {}; its owner makes it with `avouch device register`", show(&e.fleetId.0))
            }
            Ok(ContractError::AlreadyRegistered(_)) => "the fleet is there already".into(),
            Ok(ContractError::ZeroAddress(_)) => "the enroller must be an account".into(),
            Ok(ContractError::NotAuthorized(e)) => {
                format!("account {} is not the fleet's enroller (nor, for that, its owner)", e.caller)
            }
            Ok(ContractError::AlreadyEnrolled(e)) => {
                format!(
                    "device {} was enrolled before; give it another key with `avouch device rotate`",
                    show(&e.deviceId.0)
                )
            }
            Ok(ContractError::UnknownDevice(e)) => {
                format!(
                    "device {} was never enrolled; `avouch device enrol` gives it its first key",
                    show(&e.deviceId.0)
                )
            }
            Ok(ContractError::UnknownKey(e)) => {
                format!("device {} has no key number {}", show(&e.deviceId.0), e.number)
            }
            Ok(ContractError::NotSpokenFor(e)) => format!(
                "the key speaks for messages {} to before {}, so it cannot be ended at {}",
                e.fromSeq, e.untilSeq, e.given
            ),
            Ok(ContractError::BadSeq(e)) => {
                format!("the new key may speak from message {} on at the earliest, not from {}", e.least, e.given)
            }
            Ok(ContractError::BadKey(_)) => {
                "these are no ERC-7913 key bytes, or the verifier before them is no contract on this chain".into()
            }
            Ok(ContractError::NoConsent(_)) => {
                "the key did not sign its enrolment, or the contract named before it verifies no such keys".into()
            }
            Ok(ContractError::CheckedOffChain(_)) => "the contract does not check Ed25519".into(),
            Err(_) => format!("with {}", alloy::primitives::hex::encode_prefixed(data)),
        };
        self.reverted(action, reason)
    }
}

fn hex(bytes: &[u8]) -> String {
    alloy::primitives::hex::encode(bytes)
}

fn bytes32(text: &str) -> Option<Hash32> {
    alloy::primitives::hex::decode(text).ok()?.try_into().ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use avouch_engine::identity::KeyAt;

    use super::*;

    fn fleet() -> FleetKeys {
        FleetKeys { domain: hex(&[7; 32]), next_block: 0, devices: BTreeMap::new() }
    }

    fn key(n: u8) -> Vec<u8> {
        vec![n; 20]
    }

    fn at(keys: &FleetKeys, seq: u64) -> Result<u8, &'static str> {
        let set = keys.key_set("s.identity").unwrap();
        match set.key_at(set.find(&[1; 32]).unwrap(), seq) {
            KeyAt::Key(DeviceKey::Account(a)) => Ok(a[0]),
            KeyAt::Key(_) => Err("other"),
            KeyAt::NotYet(_) => Err("not yet"),
            KeyAt::Revoked(_) => Err("revoked"),
        }
    }

    #[test]
    fn keys_follow_each_other_as_in_the_contract() {
        let (mut keys, device) = (fleet(), [1; 32]);
        let set = |keys: &mut FleetKeys, n: u8, from| {
            let number = keys.device(&[1; 32]).len();
            keys.set(&[1; 32], U256::from(number), from, &key(n), true).unwrap();
        };
        set(&mut keys, 1, 0);
        set(&mut keys, 2, 100);
        assert_eq!((at(&keys, 99), at(&keys, 100), at(&keys, u64::MAX - 1)), (Ok(1), Ok(2), Ok(2)));
        // The first one was stolen before it was rotated: a hole.
        keys.revoke(&device, U256::from(0), 90).unwrap();
        assert_eq!((at(&keys, 89), at(&keys, 90), at(&keys, 100)), (Ok(1), Err("revoked"), Ok(2)));
        // One that never spoke leaves its place to the next, which may begin before it.
        keys.revoke(&device, U256::from(1), 100).unwrap();
        assert_eq!(at(&keys, 100), Err("revoked"));
        set(&mut keys, 3, 95);
        assert_eq!((at(&keys, 94), at(&keys, 95), at(&keys, 100)), (Err("revoked"), Ok(3), Ok(3)));
        // Revoked altogether, it is still a device that was enrolled.
        keys.revoke(&device, U256::from(0), 0).unwrap();
        keys.revoke(&device, U256::from(2), 95).unwrap();
        assert_eq!((at(&keys, 0), at(&keys, 500)), (Err("revoked"), Err("revoked")));
        assert!(keys.set(&device, U256::from(9), 1, &key(1), true).is_err());
        assert!(keys.revoke(&device, U256::from(9), 1).is_err());
    }

    #[test]
    fn a_key_without_consent_ends_the_one_before_it_and_speaks_for_nothing() {
        let mut keys = fleet();
        keys.set(&[1; 32], U256::ZERO, 0, &key(1), true).unwrap();
        keys.set(&[1; 32], U256::from(1), 10, &key(2), false).unwrap();
        assert_eq!((at(&keys, 9), at(&keys, 10)), (Ok(1), Err("other")));
    }

    #[test]
    fn what_is_kept_is_what_was_followed() {
        let mut keys = fleet();
        keys.set(&[1; 32], U256::ZERO, 0, &key(1), true).unwrap();
        keys.next_block = 77;
        let text = serde_json::to_string(&keys).unwrap();
        assert_eq!(serde_json::from_str::<FleetKeys>(&text).unwrap(), keys);
    }
}
