// SPDX-License-Identifier: Apache-2.0 OR MIT
pragma solidity 0.8.37;

import {IERC5267} from "@openzeppelin/contracts/interfaces/IERC5267.sol";
import {IERC165} from "@openzeppelin/contracts/utils/introspection/IERC165.sol";

/// @notice The signed statement that a verdict log grew from one size and root to another.
/// @dev This is the EIP-712 struct; `(oldSize, oldRoot)` is nonce and idempotency key at once.
struct Checkpoint {
    /// The log, as `IVerdictLog.logIdOf(owner, name)`.
    bytes32 logId;
    /// Size the log had, in entries; 0 for the first checkpoint.
    uint64 oldSize;
    /// Size the log has, in entries.
    uint64 newSize;
    /// RFC 9162 root (SHA-256) at `oldSize`; zero for the first checkpoint.
    bytes32 oldRoot;
    /// RFC 9162 root (SHA-256) at `newSize`.
    bytes32 newRoot;
    /// What the signer commits to beside the verdicts, for instance the input offsets they cover.
    bytes32 dataCommitment;
    /// When the signer says it signed, in milliseconds since the Unix epoch. A claim; the block's time is the witness.
    uint64 issuedAt;
}

/// @notice A checkpoint as the contract remembers it.
struct Anchored {
    /// Size of the log in entries.
    uint64 size;
    /// RFC 9162 root (SHA-256) at `size`.
    bytes32 root;
    /// The signer's claim of when it signed, in milliseconds since the Unix epoch.
    uint64 issuedAt;
    /// Time of the block that holds the checkpoint, in seconds since the Unix epoch.
    uint64 anchoredAt;
    /// Number of the block that holds the checkpoint.
    uint64 blockNumber;
}

/// @title Witness of append-only verdict logs
/// @notice Holds size and root of each log, and advances only after it has itself checked that the new log extends the
/// old one (RFC 9162 consistency proof, SHA-256) and that the log's signer says so (EIP-712; EOA or ERC-1271).
interface IVerdictLog is IERC165, IERC5267 {
    /// @notice No log has this id: register it first.
    error UnknownLog(bytes32 logId);
    /// @notice The owner has registered this log already.
    error AlreadyRegistered(bytes32 logId);
    /// @notice The log continues at its successor and takes no more checkpoints here.
    error LogClosed(bytes32 logId, address successor);
    /// @notice A signer or successor may not be the zero address.
    error ZeroAddress();
    /// @notice Only the log's owner or its present signer may do this.
    error NotAuthorized(bytes32 logId, address caller);
    /// @notice The checkpoint does not start where the log ends: read `head` and sign from there.
    error StaleCheckpoint(bytes32 logId, uint64 headSize, bytes32 headRoot);
    /// @notice A checkpoint must make the log longer.
    error NotLonger(uint64 oldSize, uint64 newSize);
    /// @notice The signature is not the signer's over this checkpoint, on this chain, for this contract.
    error InvalidSignature(bytes32 logId, address signer);
    /// @notice The proof does not show that the new root extends the old one.
    error InconsistentLog(bytes32 logId, uint64 oldSize, uint64 newSize);
    /// @notice No checkpoint of this size is among the last 64 of the log.
    error UnknownCheckpoint(bytes32 logId, uint64 size);

    /// @notice A log came into being.
    /// @param logId `logIdOf(owner, name)`.
    /// @param owner Who registered it.
    /// @param name The owner's name for it: SHA-256 of the log's origin line.
    /// @param signer Whose signature its checkpoints need.
    event LogRegistered(bytes32 indexed logId, address indexed owner, bytes32 indexed name, address signer);

    /// @notice From here on another signer's signature is needed.
    /// @param logId The log.
    /// @param previous The signer until now.
    /// @param current The signer from now on.
    event SignerChanged(bytes32 indexed logId, address indexed previous, address indexed current);

    /// @notice The log continues in another contract; this one keeps what it has.
    /// @param logId The log.
    /// @param successor Where it continues.
    event LogSucceeded(bytes32 indexed logId, address indexed successor);

    /// @notice The log grew. The transaction with this event is the anchor of `newSize`.
    /// @param logId The log.
    /// @param newSize Its size in entries.
    /// @param oldSize Its size before.
    /// @param newRoot Its root.
    /// @param dataCommitment As signed.
    /// @param issuedAt As signed.
    event CheckpointAdvanced(
        bytes32 indexed logId,
        uint64 indexed newSize,
        uint64 oldSize,
        bytes32 newRoot,
        bytes32 dataCommitment,
        uint64 issuedAt
    );

    /// @notice Registers the caller's log. The id is bound to the caller, so nobody can take another's name.
    /// @param name The caller's name for the log: SHA-256 of the log's origin line.
    /// @param signer Whose signature its checkpoints need: an EOA or an ERC-1271 contract.
    /// @return logId `logIdOf(msg.sender, name)`.
    function register(bytes32 name, address signer) external returns (bytes32 logId);

    /// @notice Changes a log's signer. Its owner may, and its present signer.
    /// @param logId The log.
    /// @param signer Whose signature is needed from now on.
    function setSigner(bytes32 logId, address signer) external;

    /// @notice Points to the contract where the log continues and closes it here, for good. Only its owner may.
    /// @param logId The log.
    /// @param successor Where it continues.
    function setSuccessor(bytes32 logId, address successor) external;

    /// @notice Advances a log. Anyone may relay; what counts is the signature.
    /// @param checkpoint What the signer signed. It must start at the log's head.
    /// @param proof RFC 9162 §2.1.4 consistency proof from `oldSize` to `newSize`; empty for the first checkpoint.
    /// @param signature The signer's EIP-712 signature: 65 bytes (r, s, v) of an EOA, with code (EIP-7702) or without, or what
    /// its ERC-1271 contract takes.
    function advance(Checkpoint calldata checkpoint, bytes32[] calldata proof, bytes calldata signature) external;

    /// @notice The id of a log.
    /// @param owner Who registers it.
    /// @param name The owner's name for it.
    /// @return keccak256(abi.encode(owner, name)).
    function logIdOf(address owner, bytes32 name) external pure returns (bytes32);

    /// @notice The latest checkpoint of a log; all zero before the first.
    /// @param logId The log; reverts with `UnknownLog` if nobody registered it.
    /// @return The checkpoint.
    function head(bytes32 logId) external view returns (Anchored memory);

    /// @notice One of the last 64 checkpoints of a log.
    /// @param logId The log; reverts with `UnknownLog` if nobody registered it.
    /// @param size The exact size it was made at; reverts with `UnknownCheckpoint` if there is none.
    /// @return The checkpoint.
    function checkpointOf(bytes32 logId, uint64 size) external view returns (Anchored memory);

    /// @notice Whether an entry stands at an index of a log.
    /// @param logId The log.
    /// @param entry The 32-byte entry: the EIP-712 struct hash of a verdict. Its leaf is SHA-256(0x00 ‖ entry).
    /// @param index The entry's index, from 0.
    /// @param size The size of one of the last 64 checkpoints, which the proof is made against.
    /// @param proof RFC 9162 §2.1.3 inclusion proof.
    /// @return True if the proof leads from the entry to the checkpoint's root.
    function verifyInclusion(bytes32 logId, bytes32 entry, uint64 index, uint64 size, bytes32[] calldata proof)
        external
        view
        returns (bool);

    /// @notice Who registered a log; zero if nobody did.
    /// @param logId The log.
    /// @return The owner.
    function ownerOf(bytes32 logId) external view returns (address);

    /// @notice Whose signature a log's checkpoints need; zero if nobody registered it or it is closed.
    /// @param logId The log.
    /// @return The signer.
    function signerOf(bytes32 logId) external view returns (address);

    /// @notice Where a closed log continues; zero while it is open.
    /// @param logId The log.
    /// @return The successor.
    function successorOf(bytes32 logId) external view returns (address);

    /// @notice What a signer signs: the EIP-712 digest of a checkpoint, for this chain and this contract.
    /// @param checkpoint The checkpoint.
    /// @return keccak256(0x1901 ‖ domain separator ‖ struct hash).
    function digestOf(Checkpoint calldata checkpoint) external view returns (bytes32);
}
