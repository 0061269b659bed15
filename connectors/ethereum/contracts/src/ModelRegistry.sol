// SPDX-License-Identifier: Apache-2.0 OR MIT
pragma solidity 0.8.37;

import {IModelRegistry, Model} from "./IModelRegistry.sol";
import {IERC165} from "@openzeppelin/contracts/utils/introspection/IERC165.sol";

/// @title ModelRegistry
/// @notice See {IModelRegistry}. No constructor, no immutables: its code hash is the same on every chain.
contract ModelRegistry is IModelRegistry {
    struct Registry {
        address owner;
        address publisher;
        address approver;
    }

    mapping(bytes32 registryId => Registry) private _registries;
    mapping(bytes32 registryId => mapping(bytes32 modelHash => Model)) private _models;

    /// @inheritdoc IModelRegistry
    function register(bytes32 name, address publisher, address approver) external returns (bytes32 registryId) {
        registryId = registryIdOf(msg.sender, name);
        if (_registries[registryId].owner != address(0)) revert AlreadyRegistered(registryId);
        _registries[registryId].owner = msg.sender;
        _setRoles(registryId, name, publisher, approver);
    }

    /// @inheritdoc IModelRegistry
    function setRoles(bytes32 name, address publisher, address approver) external returns (bytes32 registryId) {
        registryId = registryIdOf(msg.sender, name);
        _existing(registryId);
        _setRoles(registryId, name, publisher, approver);
    }

    /// @inheritdoc IModelRegistry
    function propose(bytes32 registryId, bytes32 modelHash, bytes32 dataHash, string calldata uri) external {
        if (msg.sender != _existing(registryId).publisher) revert NotAuthorized(registryId, msg.sender);
        Model storage model = _models[registryId][modelHash];
        if (model.proposedAt != 0) revert AlreadyProposed(registryId, modelHash);
        model.proposedAt = _now();
        (model.dataHash, model.proposer) = (dataHash, msg.sender);
        emit ModelProposed(registryId, modelHash, msg.sender, dataHash, uri);
    }

    /// @inheritdoc IModelRegistry
    function activate(bytes32 registryId, bytes32 modelHash, uint64 from, uint64 until) external {
        if (msg.sender != _existing(registryId).approver) revert NotAuthorized(registryId, msg.sender);
        Model storage model = _proposed(registryId, modelHash);
        if (model.revokedAt != 0) revert Revoked(registryId, modelHash);
        if (msg.sender == model.proposer) revert SamePerson(registryId, modelHash, msg.sender);
        if (model.activeFrom != 0) revert AlreadyActivated(registryId, modelHash);
        uint64 present = _now();
        if (from == 0) from = present;
        if (from < present || until <= from) revert BadWindow(from, until, present);
        (model.activeFrom, model.activeUntil) = (from, until);
        emit ModelActivated(registryId, modelHash, msg.sender, from, until);
    }

    /// @inheritdoc IModelRegistry
    function revoke(bytes32 registryId, bytes32 modelHash, bytes32 reasonHash) external {
        Registry storage registry = _existing(registryId);
        if (msg.sender != registry.publisher && msg.sender != registry.approver && msg.sender != registry.owner) {
            revert NotAuthorized(registryId, msg.sender);
        }
        Model storage model = _proposed(registryId, modelHash);
        if (model.revokedAt != 0) revert Revoked(registryId, modelHash);
        model.revokedAt = _now();
        emit ModelRevoked(registryId, modelHash, msg.sender, reasonHash);
    }

    /// @inheritdoc IModelRegistry
    function isActive(bytes32 registryId, bytes32 modelHash, uint64 when) external view returns (bool) {
        Model storage model = _models[registryId][modelHash];
        (uint64 from, uint64 until, uint64 revoked) = (model.activeFrom, model.activeUntil, model.revokedAt);
        return from != 0 && when >= from && when < until && (revoked == 0 || when < revoked);
    }

    /// @inheritdoc IModelRegistry
    function modelOf(bytes32 registryId, bytes32 modelHash) external view returns (Model memory) {
        return _models[registryId][modelHash];
    }

    /// @inheritdoc IModelRegistry
    function rolesOf(bytes32 registryId) external view returns (address owner, address publisher, address approver) {
        Registry storage registry = _registries[registryId];
        return (registry.owner, registry.publisher, registry.approver);
    }

    /// @inheritdoc IModelRegistry
    function registryIdOf(address owner, bytes32 name) public pure returns (bytes32) {
        return keccak256(abi.encode(owner, name));
    }

    /// @inheritdoc IERC165
    function supportsInterface(bytes4 interfaceId) external pure returns (bool) {
        return interfaceId == type(IModelRegistry).interfaceId || interfaceId == type(IERC165).interfaceId;
    }

    function _existing(bytes32 registryId) private view returns (Registry storage registry) {
        registry = _registries[registryId];
        if (registry.owner == address(0)) revert UnknownRegistry(registryId);
    }

    function _proposed(bytes32 registryId, bytes32 modelHash) private view returns (Model storage model) {
        model = _models[registryId][modelHash];
        if (model.proposedAt == 0) revert NotProposed(registryId, modelHash);
    }

    function _setRoles(bytes32 registryId, bytes32 name, address publisher, address approver) private {
        if (publisher == address(0) || approver == address(0) || publisher == approver) {
            revert BadRoles(publisher, approver);
        }
        Registry storage registry = _registries[registryId];
        (registry.publisher, registry.approver) = (publisher, approver);
        emit RolesSet(registryId, msg.sender, name, publisher, approver);
    }

    function _now() private view returns (uint64) {
        return uint64(block.timestamp);
    }
}
