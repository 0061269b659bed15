// SPDX-License-Identifier: Apache-2.0 OR MIT
pragma solidity 0.8.37;

import {IERC5267} from "@openzeppelin/contracts/interfaces/IERC5267.sol";
import {IERC165} from "@openzeppelin/contracts/utils/introspection/IERC165.sol";

/// @notice One key of a device, and for which of its messages it speaks. `seq` is the counter that the device signs with each
/// message; it never goes back. A key whose `fromSeq` is its `untilSeq` speaks for none.
struct DeviceKey {
    /// keccak256 of the key's bytes.
    bytes32 keyHash;
    /// The first message it speaks for.
    uint64 fromSeq;
    /// The first message it does not speak for any more; the largest number while there is none.
    uint64 untilSeq;
    /// When it was enrolled, in seconds since the Unix epoch.
    uint64 enrolledAt;
}

/// @notice The signed consent of a key to be a device's.
/// @dev This is the EIP-712 struct, with `key` hashed as EIP-712 hashes bytes.
struct Enrolment {
    /// The fleet.
    bytes32 fleetId;
    /// The device's pseudonym, as in verdicts.
    bytes32 deviceId;
    /// The first message the key shall speak for.
    uint64 fromSeq;
    /// ERC-7913 bytes.
    bytes key;
}

/// @title Which key speaks for which device
/// @notice A key is ERC-7913 bytes: a verifier's address and what it verifies with. 20 bytes are an account (secp256k1, or a
/// contract by ERC-1271); more are a key of the verifier, such as OpenZeppelin's for P-256. `ED25519` in the verifier's place
/// marks a key that is recorded here and checked off chain, where that costs nothing worth mentioning.
/// @dev Anyone may keep fleets here; a fleet's id is bound to who registered it. Keys stand in the events; the contract has
/// their hashes. A device keeps all its keys, numbered from 0: what was signed under one that was rotated stays verifiable.
///
/// The enroller is trusted. It says which key is a device's; a rotation may begin at a message that was seen before, and a
/// revocation may end a key there. What it did stands in the events with the time, so whoever relies on a key judges by them.
interface IDeviceRegistry is IERC165, IERC5267 {
    /// @notice No fleet has this id.
    error UnknownFleet(bytes32 fleetId);
    /// @notice The owner has registered this name already.
    error AlreadyRegistered(bytes32 fleetId);
    /// @notice The enroller may not be the zero address.
    error ZeroAddress();
    /// @notice Only the fleet's enroller (or its owner, for the enroller itself) may do this.
    error NotAuthorized(bytes32 fleetId, address caller);
    /// @notice The device was enrolled before: rotate its key.
    error AlreadyEnrolled(bytes32 fleetId, bytes32 deviceId);
    /// @notice The device was never enrolled.
    error UnknownDevice(bytes32 fleetId, bytes32 deviceId);
    /// @notice The device has no key of this number.
    error UnknownKey(bytes32 fleetId, bytes32 deviceId, uint256 number);
    /// @notice The key does not speak for this message, so nothing can be taken from it there: it speaks from `fromSeq` to
    /// before `untilSeq`.
    error NotSpokenFor(uint64 given, uint64 fromSeq, uint64 untilSeq);
    /// @notice A key speaks for later messages than the one before it, and from less than the largest number on.
    error BadSeq(uint64 given, uint64 least);
    /// @notice These bytes are no ERC-7913 key: at least 20 are needed, and 52 where the verifier is `ED25519`; any other
    /// verifier must be a contract that is there. (A precompile answers without code, and the identity says yes to everything.)
    error BadKey();
    /// @notice The key did not sign its enrolment.
    error NoConsent(bytes32 fleetId, bytes32 deviceId);
    /// @notice This contract does not check Ed25519: whoever needs to does it off chain, by the key in the event.
    error CheckedOffChain();

    /// @notice A fleet came into being, or has another enroller.
    /// @param fleetId `fleetIdOf(owner, name)`.
    /// @param owner Who registered it.
    /// @param name The owner's name for it.
    /// @param enroller Who enrols, rotates and revokes from here on.
    event EnrollerSet(bytes32 indexed fleetId, address indexed owner, bytes32 indexed name, address enroller);

    /// @notice A key speaks for a device from `fromSeq` on; the one that had no end yet, if any, ends there.
    /// @param fleetId The fleet.
    /// @param deviceId The device.
    /// @param number The key's number among the device's, from 0.
    /// @param fromSeq The first message it speaks for.
    /// @param key ERC-7913 bytes.
    /// @param consent The key's signature of the enrolment; of an Ed25519 key it was not checked here.
    event DeviceKeySet(
        bytes32 indexed fleetId, bytes32 indexed deviceId, uint256 number, uint64 fromSeq, bytes key, bytes consent
    );

    /// @notice A key ends at `fromSeq`, which may be earlier than it ended before. Other keys are not touched.
    /// @param fleetId The fleet.
    /// @param deviceId The device.
    /// @param number The key's number among the device's, from 0.
    /// @param fromSeq The first message it does not speak for any more.
    /// @param reasonHash SHA-256 of the reason, which is kept elsewhere.
    event DeviceRevoked(
        bytes32 indexed fleetId, bytes32 indexed deviceId, uint256 number, uint64 fromSeq, bytes32 reasonHash
    );

    /// @notice Makes a fleet of the caller's.
    /// @param name The caller's name for it.
    /// @param enroller Who enrols, rotates and revokes.
    /// @return fleetId `fleetIdOf(msg.sender, name)`.
    function register(bytes32 name, address enroller) external returns (bytes32 fleetId);

    /// @notice Lets another account enrol. Only the owner may.
    /// @param name The caller's name for the fleet.
    /// @param enroller Who enrols, rotates and revokes from here on.
    /// @return fleetId `fleetIdOf(msg.sender, name)`.
    function setEnroller(bytes32 name, address enroller) external returns (bytes32 fleetId);

    /// @notice Enrols a device with its first key, which speaks for its messages from 0 on.
    /// @param fleetId The fleet.
    /// @param deviceId Its pseudonym, as in verdicts.
    /// @param key ERC-7913 bytes.
    /// @param consent The key's signature over `digestOf` of the enrolment. That of an Ed25519 key is only recorded: whoever
    /// follows the registry checks it, and counts a key without it as not enrolled.
    function enrol(bytes32 fleetId, bytes32 deviceId, bytes calldata key, bytes calldata consent) external;

    /// @notice Gives a device another key from one of its messages on, which ends the one before it. After a revocation the new key
    /// begins where the revoked one ended, or later; a key that was revoked from its first message on leaves its place.
    /// @param fleetId The fleet.
    /// @param deviceId The device.
    /// @param fromSeq The first message it speaks for. It may be one that was seen already: then what the key before signed from
    /// there on is not the device's any more.
    /// @param key ERC-7913 bytes.
    /// @param consent As for `enrol`.
    function rotate(bytes32 fleetId, bytes32 deviceId, uint64 fromSeq, bytes calldata key, bytes calldata consent)
        external;

    /// @notice Ends one of a device's keys at one of its messages. It may be an earlier message than those that were seen:
    /// whatever a stolen key signed is forged from there on. It may be a key that a rotation ended, or is planned to end: it ends
    /// earlier then, and nothing speaks in between.
    /// @param fleetId The fleet.
    /// @param deviceId The device.
    /// @param number The key's number among the device's, from 0.
    /// @param fromSeq The first message it does not speak for any more: one that it speaks for now.
    /// @param reasonHash SHA-256 of the reason, which is kept elsewhere.
    function revoke(bytes32 fleetId, bytes32 deviceId, uint256 number, uint64 fromSeq, bytes32 reasonHash) external;

    /// @notice Whether `signature` is that of the device over `hash`, as its message `seq`.
    /// @dev `seq` chooses the key and nothing else: a `hash` that does not cover the counter can be replayed as another message.
    /// @param fleetId The fleet.
    /// @param deviceId The device.
    /// @param seq The message's counter.
    /// @param key The key's bytes, from the event; another one's hash is not the registry's.
    /// @param hash What was signed.
    /// @param signature As the key's verifier, or the account, takes it.
    /// @return False also if nothing speaks for that message. Reverts with `CheckedOffChain` for a right Ed25519 key.
    function verify(
        bytes32 fleetId,
        bytes32 deviceId,
        uint64 seq,
        bytes calldata key,
        bytes32 hash,
        bytes calldata signature
    ) external view returns (bool);

    /// @notice The key that speaks for a message; all zero if none does. Looks through the keys from the last back.
    /// @param fleetId The fleet.
    /// @param deviceId The device.
    /// @param seq The message's counter.
    /// @return The key.
    function keyAt(bytes32 fleetId, bytes32 deviceId, uint64 seq) external view returns (DeviceKey memory);

    /// @notice How many keys a device has had.
    /// @param fleetId The fleet.
    /// @param deviceId The device.
    /// @return Their number, which the next key will have.
    function keysOf(bytes32 fleetId, bytes32 deviceId) external view returns (uint256);

    /// @notice Owner and enroller of a fleet; zero if there is none.
    /// @param fleetId The fleet.
    /// @return owner Who registered it.
    /// @return enroller Who enrols, rotates and revokes.
    function fleetOf(bytes32 fleetId) external view returns (address owner, address enroller);

    /// @notice The id of a fleet.
    /// @param owner Who registers it.
    /// @param name The owner's name for it.
    /// @return keccak256(abi.encode(owner, name)).
    function fleetIdOf(address owner, bytes32 name) external pure returns (bytes32);

    /// @notice What a key signs to consent: the EIP-712 digest, for this chain and this contract.
    /// @param enrolment Fleet, device, first message and key.
    /// @return keccak256(0x1901 ‖ domain separator ‖ struct hash).
    function digestOf(Enrolment calldata enrolment) external view returns (bytes32);
}
