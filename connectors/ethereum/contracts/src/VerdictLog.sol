// SPDX-License-Identifier: Apache-2.0 OR MIT
pragma solidity 0.8.37;

import {Anchored, Checkpoint, IVerdictLog} from "./IVerdictLog.sol";
import {MerkleLog} from "./MerkleLog.sol";
import {IERC5267} from "@openzeppelin/contracts/interfaces/IERC5267.sol";
import {ECDSA} from "@openzeppelin/contracts/utils/cryptography/ECDSA.sol";
import {MessageHashUtils} from "@openzeppelin/contracts/utils/cryptography/MessageHashUtils.sol";
import {SignatureChecker} from "@openzeppelin/contracts/utils/cryptography/SignatureChecker.sol";
import {IERC165} from "@openzeppelin/contracts/utils/introspection/IERC165.sol";

/// @title VerdictLog
/// @notice See {IVerdictLog}. Nobody administers it, nothing in it can be upgraded, and it calls nobody but an ERC-1271
/// signer, read-only.
/// @dev It has no constructor and no immutables, so its code, and with it its code hash, is the same wherever it is
/// deployed, and an auditor compares one hash.
contract VerdictLog is IVerdictLog {
    /// @dev One remembered checkpoint. `packed` is size | issuedAt | anchoredAt | blockNumber, 64 bits each from the lowest:
    /// packed by hand so that a checkpoint writes it once and does not read it first.
    struct Slot {
        uint256 packed;
        bytes32 root;
    }

    /// @dev `state` is signer | size | count, 160, 64 and 32 bits from the lowest: every checkpoint reads it once and writes
    /// it once. The signer is zero while the log does not exist and after it is closed.
    struct Log {
        uint256 state;
        address owner;
        address successor;
        Slot[64] ring;
    }

    uint256 private constant RING = 64;

    bytes32 private constant DOMAIN_TYPE_HASH =
        keccak256("EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)");
    bytes32 private constant CHECKPOINT_TYPE_HASH = keccak256(
        "Checkpoint(bytes32 logId,uint64 oldSize,uint64 newSize,bytes32 oldRoot,bytes32 newRoot,bytes32 dataCommitment,uint64 issuedAt)"
    );
    bytes32 private constant NAME_HASH = keccak256("Avouch");
    bytes32 private constant VERSION_HASH = keccak256("1");

    mapping(bytes32 logId => Log) private _logs;

    // ── changing ────────────────────────────────────────────────────────────

    /// @inheritdoc IVerdictLog
    function register(bytes32 name, address signer) external returns (bytes32 logId) {
        if (signer == address(0)) revert ZeroAddress();
        logId = logIdOf(msg.sender, name);
        Log storage log = _logs[logId];
        if (log.owner != address(0)) revert AlreadyRegistered(logId);
        log.owner = msg.sender;
        log.state = uint160(signer);
        emit LogRegistered(logId, msg.sender, name, signer);
    }

    /// @inheritdoc IVerdictLog
    function setSigner(bytes32 logId, address signer) external {
        if (signer == address(0)) revert ZeroAddress();
        Log storage log = _logs[logId];
        uint256 state = _open(log, logId);
        address previous = _signerIn(state);
        if (msg.sender != log.owner && msg.sender != previous) revert NotAuthorized(logId, msg.sender);
        log.state = _with(signer, state);
        emit SignerChanged(logId, previous, signer);
    }

    /// @inheritdoc IVerdictLog
    function setSuccessor(bytes32 logId, address successor) external {
        if (successor == address(0)) revert ZeroAddress();
        Log storage log = _logs[logId];
        uint256 state = _open(log, logId);
        if (msg.sender != log.owner) revert NotAuthorized(logId, msg.sender);
        log.successor = successor;
        log.state = _with(address(0), state);
        emit LogSucceeded(logId, successor);
    }

    /// @inheritdoc IVerdictLog
    function advance(Checkpoint calldata checkpoint, bytes32[] calldata proof, bytes calldata signature) external {
        Log storage log = _logs[checkpoint.logId];
        uint256 state = _open(log, checkpoint.logId);
        // Once each: whenever a `uint64` is read from calldata, it is looked at whether it is one.
        uint64 oldSize = checkpoint.oldSize;
        uint64 newSize = checkpoint.newSize;
        uint64 issuedAt = checkpoint.issuedAt;
        _requireExtendsHead(log, state, checkpoint, oldSize, newSize);
        address signer = _signerIn(state);
        if (!_isSignedBy(signer, digestOf(checkpoint), signature)) revert InvalidSignature(checkpoint.logId, signer);
        _requireConsistent(checkpoint, oldSize, newSize, proof);
        _remember(log, state, newSize, checkpoint.newRoot, issuedAt);
        emit CheckpointAdvanced(
            checkpoint.logId, newSize, oldSize, checkpoint.newRoot, checkpoint.dataCommitment, issuedAt
        );
    }

    // ── reading ─────────────────────────────────────────────────────────────

    /// @inheritdoc IVerdictLog
    function head(bytes32 logId) external view returns (Anchored memory anchored) {
        Log storage log = _existing(logId);
        uint256 count = _countIn(log.state);
        if (count != 0) anchored = _anchored(_at(log, count - 1));
    }

    /// @inheritdoc IVerdictLog
    function checkpointOf(bytes32 logId, uint64 size) external view returns (Anchored memory) {
        return _anchored(_find(logId, size));
    }

    /// @inheritdoc IVerdictLog
    function verifyInclusion(bytes32 logId, bytes32 entry, uint64 index, uint64 size, bytes32[] calldata proof)
        external
        view
        returns (bool)
    {
        return MerkleLog.includes(_find(logId, size).root, size, entry, index, proof);
    }

    /// @inheritdoc IVerdictLog
    function ownerOf(bytes32 logId) external view returns (address) {
        return _logs[logId].owner;
    }

    /// @inheritdoc IVerdictLog
    function signerOf(bytes32 logId) external view returns (address) {
        return _signerIn(_logs[logId].state);
    }

    /// @inheritdoc IVerdictLog
    function successorOf(bytes32 logId) external view returns (address) {
        return _logs[logId].successor;
    }

    /// @inheritdoc IVerdictLog
    function logIdOf(address owner, bytes32 name) public pure returns (bytes32) {
        return keccak256(abi.encode(owner, name));
    }

    /// @inheritdoc IVerdictLog
    function digestOf(Checkpoint calldata checkpoint) public view returns (bytes32) {
        return MessageHashUtils.toTypedDataHash(_domainSeparator(), _structHash(checkpoint));
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
        return (hex"0f", "Avouch", "1", block.chainid, address(this), bytes32(0), new uint256[](0));
    }

    /// @inheritdoc IERC165
    function supportsInterface(bytes4 interfaceId) external pure returns (bool) {
        return interfaceId == type(IVerdictLog).interfaceId || interfaceId == type(IERC5267).interfaceId
            || interfaceId == type(IERC165).interfaceId;
    }

    // ── the steps of a checkpoint ───────────────────────────────────────────

    /// @dev The state of a log that exists and is open.
    function _open(Log storage log, bytes32 logId) private view returns (uint256 state) {
        state = log.state;
        if (_signerIn(state) == address(0)) {
            address successor = log.successor;
            if (successor != address(0)) revert LogClosed(logId, successor);
            revert UnknownLog(logId);
        }
    }

    function _requireExtendsHead(
        Log storage log,
        uint256 state,
        Checkpoint calldata checkpoint,
        uint64 oldSize,
        uint64 newSize
    ) private view {
        uint64 headSize = uint64(state >> 160);
        uint256 count = _countIn(state);
        bytes32 headRoot = count == 0 ? bytes32(0) : _at(log, count - 1).root;
        if (oldSize != headSize || checkpoint.oldRoot != headRoot) {
            revert StaleCheckpoint(checkpoint.logId, headSize, headRoot);
        }
        if (newSize <= headSize) revert NotLonger(headSize, newSize);
    }

    /// @dev The key is asked before the account: to look whether an account has code takes 2,600 gas where the signer is not
    /// the sender. So a signature by the account's own key counts also where the account has code. That is one that took it on
    /// by EIP-7702, whose key can take it off again; of a contract's address nobody has a key. An account without code has no
    /// answer to ERC-1271.
    function _isSignedBy(address signer, bytes32 digest, bytes calldata signature) private view returns (bool) {
        // What it leaves out is more about why a signature is none, for a message.
        // slither-disable-next-line unused-return
        (address recovered, ECDSA.RecoverError failure,) = ECDSA.tryRecoverCalldata(digest, signature);
        return (failure == ECDSA.RecoverError.NoError && recovered == signer)
            || SignatureChecker.isValidERC1271SignatureNowCalldata(signer, digest, signature);
    }

    /// @dev Any log extends the empty one, and the proof of that is empty.
    function _requireConsistent(
        Checkpoint calldata checkpoint,
        uint64 oldSize,
        uint64 newSize,
        bytes32[] calldata proof
    ) private view {
        bool consistent = oldSize == 0
            ? proof.length == 0
            : MerkleLog.extends_(checkpoint.oldRoot, oldSize, checkpoint.newRoot, newSize, proof);
        if (!consistent) revert InconsistentLog(checkpoint.logId, oldSize, newSize);
    }

    function _remember(Log storage log, uint256 state, uint64 newSize, bytes32 newRoot, uint64 issuedAt) private {
        uint256 count = _countIn(state);
        Slot storage slot = _at(log, count);
        slot.packed = uint256(newSize) | uint256(issuedAt) << 64 | uint256(uint64(block.timestamp)) << 128
            | uint256(uint64(block.number)) << 192;
        slot.root = newRoot;
        log.state = uint160(state) | uint256(newSize) << 160 | _next(count) << 224;
    }

    /// @dev The count of checkpoints; past its last value it goes on with the same place in a full ring, so that no number
    /// of checkpoints stops a log.
    function _next(uint256 count) private pure returns (uint256) {
        return count == type(uint32).max ? RING : count + 1;
    }

    // ── a log's state ───────────────────────────────────────────────────────

    function _signerIn(uint256 state) private pure returns (address) {
        return address(uint160(state));
    }

    function _countIn(uint256 state) private pure returns (uint256) {
        return state >> 224;
    }

    function _with(address signer, uint256 state) private pure returns (uint256) {
        return state >> 160 << 160 | uint160(signer);
    }

    // ── the ring ────────────────────────────────────────────────────────────

    function _existing(bytes32 logId) private view returns (Log storage log) {
        log = _logs[logId];
        if (log.owner == address(0)) revert UnknownLog(logId);
    }

    function _at(Log storage log, uint256 nth) private view returns (Slot storage) {
        return log.ring[nth % RING];
    }

    /// @dev Sizes only grow, so the ring is searched by halves: at most seven slots are read.
    function _find(bytes32 logId, uint64 size) private view returns (Slot storage) {
        Log storage log = _existing(logId);
        uint256 count = _countIn(log.state);
        uint256 low = count > RING ? count - RING : 0;
        uint256 high = count;
        while (low < high) {
            uint256 middle = (low + high) / 2;
            Slot storage slot = _at(log, middle);
            uint64 found = uint64(slot.packed);
            if (found == size) return slot;
            if (found < size) low = middle + 1;
            else high = middle;
        }
        revert UnknownCheckpoint(logId, size);
    }

    function _anchored(Slot storage slot) private view returns (Anchored memory) {
        uint256 packed = slot.packed;
        return Anchored({
            size: uint64(packed),
            root: slot.root,
            issuedAt: uint64(packed >> 64),
            anchoredAt: uint64(packed >> 128),
            blockNumber: uint64(packed >> 192)
        });
    }

    // ── EIP-712 ─────────────────────────────────────────────────────────────

    /// @dev Every member is one word, so the struct's calldata is its EIP-712 encoding: 7 words, copied as they are. A
    /// `uint64` with higher bits set gives the hash of no checkpoint, and `advance` refuses it when it reads the member.
    function _structHash(Checkpoint calldata checkpoint) private pure returns (bytes32 hash) {
        bytes32 typeHash = CHECKPOINT_TYPE_HASH;
        assembly ("memory-safe") {
            let buffer := mload(0x40)
            mstore(buffer, typeHash)
            calldatacopy(add(buffer, 32), checkpoint, 224)
            hash := keccak256(buffer, 256)
        }
    }

    /// @dev Computed each time: five words to hash cost less than reading a cached copy is worth, and the code stays the
    /// same on every chain.
    function _domainSeparator() private view returns (bytes32 separator) {
        bytes32 typeHash = DOMAIN_TYPE_HASH;
        bytes32 nameHash = NAME_HASH;
        bytes32 versionHash = VERSION_HASH;
        assembly ("memory-safe") {
            let buffer := mload(0x40)
            mstore(buffer, typeHash)
            mstore(add(buffer, 32), nameHash)
            mstore(add(buffer, 64), versionHash)
            mstore(add(buffer, 96), chainid())
            mstore(add(buffer, 128), address())
            separator := keccak256(buffer, 160)
        }
    }
}
