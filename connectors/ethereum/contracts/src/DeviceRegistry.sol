// SPDX-License-Identifier: Apache-2.0 OR MIT
pragma solidity 0.8.37;

import {DeviceKey, Enrolment, IDeviceRegistry} from "./IDeviceRegistry.sol";
import {IERC5267} from "@openzeppelin/contracts/interfaces/IERC5267.sol";
import {MessageHashUtils} from "@openzeppelin/contracts/utils/cryptography/MessageHashUtils.sol";
import {SignatureChecker} from "@openzeppelin/contracts/utils/cryptography/SignatureChecker.sol";
import {IERC165} from "@openzeppelin/contracts/utils/introspection/IERC165.sol";

/// @title DeviceRegistry
/// @notice See {IDeviceRegistry}. No constructor, no immutables: its code hash is the same on every chain.
contract DeviceRegistry is IDeviceRegistry {
    struct Fleet {
        address owner;
        address enroller;
    }

    /// @notice In the verifier's place: the 32 bytes after it are an Ed25519 key. The address of no contract: "ed25519" in ASCII.
    address public constant ED25519 = address(uint160(0x65643235353139));

    uint64 private constant FOR_EVER = type(uint64).max;
    bytes32 private constant DOMAIN_TYPE_HASH =
        keccak256("EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)");
    bytes32 private constant ENROLMENT_TYPE_HASH =
        keccak256("Enrolment(bytes32 fleetId,bytes32 deviceId,uint64 fromSeq,bytes key)");

    mapping(bytes32 fleetId => Fleet) private _fleets;
    // It is written through the list that `_add` has of it.
    // slither-disable-next-line uninitialized-state
    mapping(bytes32 fleetId => mapping(bytes32 deviceId => DeviceKey[])) private _keys;

    // ── changing ────────────────────────────────────────────────────────────

    /// @inheritdoc IDeviceRegistry
    function register(bytes32 name, address enroller) external returns (bytes32 fleetId) {
        fleetId = fleetIdOf(msg.sender, name);
        if (_fleets[fleetId].owner != address(0)) revert AlreadyRegistered(fleetId);
        _fleets[fleetId].owner = msg.sender;
        _setEnroller(fleetId, name, enroller);
    }

    /// @inheritdoc IDeviceRegistry
    function setEnroller(bytes32 name, address enroller) external returns (bytes32 fleetId) {
        fleetId = fleetIdOf(msg.sender, name);
        if (_fleets[fleetId].owner == address(0)) revert UnknownFleet(fleetId);
        _setEnroller(fleetId, name, enroller);
    }

    /// @inheritdoc IDeviceRegistry
    function enrol(bytes32 fleetId, bytes32 deviceId, bytes calldata key, bytes calldata consent) external {
        _requireEnroller(fleetId);
        if (_keys[fleetId][deviceId].length != 0) revert AlreadyEnrolled(fleetId, deviceId);
        _add(Enrolment({fleetId: fleetId, deviceId: deviceId, fromSeq: 0, key: key}), consent);
    }

    /// @inheritdoc IDeviceRegistry
    function rotate(bytes32 fleetId, bytes32 deviceId, uint64 fromSeq, bytes calldata key, bytes calldata consent)
        external
    {
        _requireEnroller(fleetId);
        DeviceKey[] storage keys = _keysOf(fleetId, deviceId);
        // A key that was revoked from its first message on speaks for nothing and is passed over.
        uint256 count = keys.length;
        while (count != 0 && keys[count - 1].fromSeq == keys[count - 1].untilSeq) --count;
        uint64 least = 0;
        if (count != 0) {
            DeviceKey storage last = keys[count - 1];
            // After a revocation a key speaks from there on; else from later than the one before, which it ends.
            bool open = last.untilSeq == FOR_EVER;
            least = open ? last.fromSeq + 1 : last.untilSeq;
            if (open && fromSeq >= least) last.untilSeq = fromSeq;
        }
        if (fromSeq < least || fromSeq == FOR_EVER) revert BadSeq(fromSeq, least);
        _add(Enrolment({fleetId: fleetId, deviceId: deviceId, fromSeq: fromSeq, key: key}), consent);
    }

    /// @inheritdoc IDeviceRegistry
    function revoke(bytes32 fleetId, bytes32 deviceId, uint256 number, uint64 fromSeq, bytes32 reasonHash) external {
        _requireEnroller(fleetId);
        DeviceKey[] storage keys = _keysOf(fleetId, deviceId);
        if (number >= keys.length) revert UnknownKey(fleetId, deviceId, number);
        DeviceKey storage key = keys[number];
        if (fromSeq < key.fromSeq || fromSeq >= key.untilSeq) revert NotSpokenFor(fromSeq, key.fromSeq, key.untilSeq);
        key.untilSeq = fromSeq;
        emit DeviceRevoked(fleetId, deviceId, number, fromSeq, reasonHash);
    }

    // ── reading ─────────────────────────────────────────────────────────────

    /// @inheritdoc IDeviceRegistry
    function verify(
        bytes32 fleetId,
        bytes32 deviceId,
        uint64 seq,
        bytes calldata key,
        bytes32 hash,
        bytes calldata signature
    ) external view returns (bool) {
        bytes32 keyHash = keyAt(fleetId, deviceId, seq).keyHash;
        if (keyHash == bytes32(0) || keyHash != keccak256(key)) return false;
        if (_isEd25519(key)) revert CheckedOffChain();
        return SignatureChecker.isValidSignatureNow(key, hash, signature);
    }

    /// @inheritdoc IDeviceRegistry
    function keyAt(bytes32 fleetId, bytes32 deviceId, uint64 seq) public view returns (DeviceKey memory found) {
        DeviceKey[] storage keys = _keys[fleetId][deviceId];
        // No two keys speak for one message; but one that speaks for none may begin after the next, so they are not in order.
        for (uint256 i = keys.length; i != 0; --i) {
            DeviceKey storage key = keys[i - 1];
            if (key.fromSeq <= seq && seq < key.untilSeq) return key;
        }
    }

    /// @inheritdoc IDeviceRegistry
    function keysOf(bytes32 fleetId, bytes32 deviceId) external view returns (uint256) {
        return _keys[fleetId][deviceId].length;
    }

    /// @inheritdoc IDeviceRegistry
    function fleetOf(bytes32 fleetId) external view returns (address owner, address enroller) {
        Fleet storage fleet = _fleets[fleetId];
        return (fleet.owner, fleet.enroller);
    }

    /// @inheritdoc IDeviceRegistry
    function fleetIdOf(address owner, bytes32 name) public pure returns (bytes32) {
        return keccak256(abi.encode(owner, name));
    }

    /// @inheritdoc IDeviceRegistry
    function digestOf(Enrolment memory enrolment) public view returns (bytes32) {
        bytes32 separator = keccak256(
            abi.encode(DOMAIN_TYPE_HASH, keccak256("Avouch devices"), keccak256("1"), block.chainid, address(this))
        );
        bytes32 structHash = keccak256(
            abi.encode(
                ENROLMENT_TYPE_HASH, enrolment.fleetId, enrolment.deviceId, enrolment.fromSeq, keccak256(enrolment.key)
            )
        );
        return MessageHashUtils.toTypedDataHash(separator, structHash);
    }

    /// @inheritdoc IERC5267
    function eip712Domain()
        external
        view
        returns (
            bytes1 fields,
            string memory name,
            string memory version,
            uint256 chainId,
            address verifyingContract,
            bytes32 salt,
            uint256[] memory extensions
        )
    {
        return (hex"0f", "Avouch devices", "1", block.chainid, address(this), bytes32(0), new uint256[](0));
    }

    /// @inheritdoc IERC165
    function supportsInterface(bytes4 interfaceId) external pure returns (bool) {
        return interfaceId == type(IDeviceRegistry).interfaceId || interfaceId == type(IERC5267).interfaceId
            || interfaceId == type(IERC165).interfaceId;
    }

    // ── the steps of an enrolment ───────────────────────────────────────────

    function _requireEnroller(bytes32 fleetId) private view {
        Fleet storage fleet = _fleets[fleetId];
        if (fleet.owner == address(0)) revert UnknownFleet(fleetId);
        if (msg.sender != fleet.enroller) revert NotAuthorized(fleetId, msg.sender);
    }

    function _keysOf(bytes32 fleetId, bytes32 deviceId) private view returns (DeviceKey[] storage keys) {
        keys = _keys[fleetId][deviceId];
        if (keys.length == 0) revert UnknownDevice(fleetId, deviceId);
    }

    function _isEd25519(bytes memory key) private pure returns (bool) {
        // A key has at least 20 bytes: `_add` has refused others.
        return address(bytes20(key)) == ED25519;
    }

    function _add(Enrolment memory enrolment, bytes calldata consent) private {
        bytes memory key = enrolment.key;
        if (key.length < 20) revert BadKey();
        if (_isEd25519(key)) {
            if (key.length != 52) revert BadKey();
        } else {
            // A precompile has no code and answers: the identity would say yes to everything.
            if (key.length > 20 && address(bytes20(key)).code.length == 0) revert BadKey();
            if (!SignatureChecker.isValidSignatureNow(key, digestOf(enrolment), consent)) {
                revert NoConsent(enrolment.fleetId, enrolment.deviceId);
            }
        }
        DeviceKey[] storage keys = _keys[enrolment.fleetId][enrolment.deviceId];
        keys.push(
            DeviceKey({
                keyHash: keccak256(key),
                fromSeq: enrolment.fromSeq,
                untilSeq: FOR_EVER,
                enrolledAt: uint64(block.timestamp)
            })
        );
        emit DeviceKeySet(enrolment.fleetId, enrolment.deviceId, keys.length - 1, enrolment.fromSeq, key, consent);
    }

    function _setEnroller(bytes32 fleetId, bytes32 name, address enroller) private {
        if (enroller == address(0)) revert ZeroAddress();
        _fleets[fleetId].enroller = enroller;
        emit EnrollerSet(fleetId, msg.sender, name, enroller);
    }
}
