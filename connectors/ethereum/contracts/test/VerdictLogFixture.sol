// SPDX-License-Identifier: Apache-2.0 OR MIT
pragma solidity 0.8.37;

import {Anchored, Checkpoint, IVerdictLog} from "../src/IVerdictLog.sol";
import {VerdictLog} from "../src/VerdictLog.sol";
import {ReferenceLog} from "./ReferenceLog.sol";
import {Testing} from "./Testing.sol";

/// @notice An ERC-1271 wallet with one key behind it.
contract Wallet {
    address private immutable _key;

    constructor(address key) {
        _key = key;
    }

    function isValidSignature(bytes32 hash, bytes calldata signature) external view returns (bytes4) {
        (bytes32 r, bytes32 s) = abi.decode(signature, (bytes32, bytes32));
        bool good = ecrecover(hash, 27, r, s) == _key || ecrecover(hash, 28, r, s) == _key;
        return good ? bytes4(0x1626ba7e) : bytes4(0xffffffff);
    }
}

/// @notice A log with an owner, a signer and a ghost of what it must hold.
abstract contract VerdictLogFixture is Testing {
    uint256 internal constant KEY = 0xA11CE;
    uint256 internal constant OTHER_KEY = 0xB0B;
    /// Order of secp256k1.
    uint256 internal constant N = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141;
    /// SHA-256 of "avouch/test/0", as a literal: computing it would be the call that a prank is meant for.
    bytes32 internal constant NAME = 0x3df9212e5dab7bdbc2286a100c989fe52569d63d237af8696a28982753df6bc2;

    VerdictLog internal verdictLog;
    ReferenceLog internal ghost;
    address internal owner = address(0x0123);
    address internal signer;
    bytes32 internal logId;

    function setUp() public virtual {
        verdictLog = new VerdictLog();
        ghost = new ReferenceLog();
        signer = vm.addr(KEY);
        vm.prank(owner);
        logId = verdictLog.register(NAME, signer);
        vm.warp(1_700_000_000);
        vm.roll(1000);
    }

    function grow(uint256 n) internal {
        for (uint256 i = 0; i < n; ++i) {
            ghost.push(keccak256(abi.encode("entry", ghost.size())));
        }
    }

    /// @dev The checkpoint from the contract's head to the ghost's present size.
    function next() internal view returns (Checkpoint memory c, bytes32[] memory proof) {
        Anchored memory head = verdictLog.head(logId);
        uint64 size = uint64(ghost.size());
        c = Checkpoint({
            logId: logId,
            oldSize: head.size,
            newSize: size,
            oldRoot: head.root,
            newRoot: ghost.rootAt(size),
            dataCommitment: keccak256(abi.encode("offsets", size)),
            issuedAt: uint64(block.timestamp * 1000)
        });
        proof = ghost.consistency(head.size, size);
    }

    function sign(Checkpoint memory c, uint256 key) internal view returns (bytes memory) {
        (uint8 v, bytes32 r, bytes32 s) = vm.sign(key, verdictLog.digestOf(c));
        return abi.encodePacked(r, s, v);
    }

    function advanceBy(uint256 n) internal returns (Checkpoint memory c) {
        grow(n);
        bytes32[] memory proof;
        (c, proof) = next();
        verdictLog.advance(c, proof, sign(c, KEY));
    }

    function invalid(address by) internal view returns (bytes memory) {
        return abi.encodeWithSelector(IVerdictLog.InvalidSignature.selector, logId, by);
    }

    function inconsistent(Checkpoint memory c) internal pure returns (bytes memory) {
        return abi.encodeWithSelector(IVerdictLog.InconsistentLog.selector, c.logId, c.oldSize, c.newSize);
    }
}
