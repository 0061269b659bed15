// SPDX-License-Identifier: Apache-2.0 OR MIT
pragma solidity 0.8.37;

import {Anchored, Checkpoint} from "../src/IVerdictLog.sol";
import {VerdictLog} from "../src/VerdictLog.sol";
import {ReferenceLog} from "./ReferenceLog.sol";
import {Testing} from "./Testing.sol";

/// @notice Everything anybody can do to a log, honest and not, beside a ghost of what the log must then be.
/// @dev The dishonest operator holds the signer's key: what stops it is the consistency proof alone.
contract Actors is Testing {
    uint256 private constant KEY = 0xA11CE;

    VerdictLog public verdictLog = new VerdictLog();
    ReferenceLog public ghost = new ReferenceLog();
    bytes32 public logId;
    uint64[] public anchored;
    uint256 public forged;

    constructor() {
        logId = verdictLog.register("log", vm.addr(KEY));
    }

    function checkpoints() external view returns (uint256) {
        return anchored.length;
    }

    function honest(uint8 n, bytes32 seed) external {
        uint64 old = _last();
        uint64 size = old + uint64(between(n, 1, 9));
        for (uint64 i = old; i < size; ++i) {
            ghost.push(keccak256(abi.encode(seed, i)));
        }
        vm.warp(block.timestamp + 12);
        vm.roll(block.number + 1);
        Checkpoint memory c = _checkpoint(old, size, ghost.rootAt(size));
        verdictLog.advance(c, ghost.consistency(old, size), _sign(c, KEY));
        anchored.push(size);
    }

    /// @dev The operator rewrites an entry and signs the result, with the best proof of the rewritten log.
    function rewrite(uint8 n, uint256 where) external {
        uint64 old = _last();
        if (old == 0) return;
        uint64 size = old + uint64(between(n, 1, 9));
        ReferenceLog fork = new ReferenceLog();
        for (uint64 i = 0; i < size; ++i) {
            fork.push(i < old && i != where % old ? ghost.entries(i) : keccak256(abi.encode("forged", i)));
        }
        Checkpoint memory c = _checkpoint(old, size, fork.rootAt(size));
        _expectRefused(c, fork.consistency(old, size), _sign(c, KEY));
        // Nor if it claims the rewritten past.
        c.oldRoot = fork.rootAt(old);
        _expectRefused(c, fork.consistency(old, size), _sign(c, KEY));
    }

    /// @dev The operator drops the last entries.
    function shrink(uint256 where) external {
        uint64 old = _last();
        if (old < 2) return;
        uint64 size = uint64(between(where, 1, old));
        Checkpoint memory c = _checkpoint(old, size, ghost.rootAt(size));
        _expectRefused(c, ghost.consistency(size, old), _sign(c, KEY));
        c = _checkpoint(0, size, ghost.rootAt(size));
        c.oldRoot = 0;
        _expectRefused(c, new bytes32[](0), _sign(c, KEY));
    }

    /// @dev A stranger signs a true extension.
    function stranger(uint256 key, uint8 n) external {
        key = between(key, 1, 2 ** 128);
        if (key == KEY) return;
        uint64 old = _last();
        uint64 size = old + uint64(between(n, 1, 9));
        Checkpoint memory c = _checkpoint(old, size, keccak256("any"));
        _expectRefused(c, new bytes32[](0), _sign(c, key));
        vm.prank(vm.addr(key));
        try verdictLog.setSigner(logId, vm.addr(key)) {
            ++forged;
        } catch {}
    }

    /// @dev Others register, under the same name too.
    function register(address by, bytes32 name, address with) external {
        if (by == address(this) || by == address(0) || with == address(0)) return;
        vm.prank(by);
        try verdictLog.register(name, with) returns (bytes32 id) {
            if (id == logId) ++forged;
        } catch {}
        vm.prank(by);
        try verdictLog.register("log", with) returns (bytes32 id) {
            if (id == logId) ++forged;
        } catch {}
    }

    function _expectRefused(Checkpoint memory c, bytes32[] memory proof, bytes memory signature) private {
        try verdictLog.advance(c, proof, signature) {
            ++forged;
        } catch {}
    }

    function _last() private view returns (uint64) {
        return anchored.length == 0 ? 0 : anchored[anchored.length - 1];
    }

    function _checkpoint(uint64 old, uint64 size, bytes32 root) private view returns (Checkpoint memory) {
        return Checkpoint(
            logId, old, size, old == 0 ? bytes32(0) : ghost.rootAt(old), root, keccak256("data"), uint64(size) * 1000
        );
    }

    function _sign(Checkpoint memory c, uint256 key) private view returns (bytes memory) {
        (uint8 v, bytes32 r, bytes32 s) = vm.sign(key, verdictLog.digestOf(c));
        return abi.encodePacked(r, s, v);
    }
}

contract VerdictLogInvariantTest is Testing {
    Actors private actors;

    function setUp() public {
        actors = new Actors();
    }

    function targetContracts() external view returns (address[] memory targets) {
        targets = new address[](1);
        targets[0] = address(actors);
    }

    /// @dev The head is the ghost's: it never shrank, and no dishonest call got through.
    function invariant_the_head_is_the_longest_honest_log() public view {
        Anchored memory head = actors.verdictLog().head(actors.logId());
        equal(actors.forged(), 0, "dishonest calls that passed");
        equal(head.size, actors.ghost().size(), "size");
        if (head.size != 0) equal(head.root, actors.ghost().rootAt(head.size), "root");
    }

    /// @dev Every remembered checkpoint is one of the last 64 honest ones, with the root it had when it was made.
    function invariant_the_ring_is_the_recent_past() public view {
        uint256 n = actors.checkpoints();
        for (uint256 i = n > 64 ? n - 64 : 0; i < n; ++i) {
            uint64 size = actors.anchored(i);
            equal(actors.verdictLog().checkpointOf(actors.logId(), size).root, actors.ghost().rootAt(size), "root");
        }
    }

    /// @dev An index means the same entry at every remembered checkpoint, and no other.
    function invariant_an_index_never_changes_meaning() public view {
        uint256 n = actors.checkpoints();
        if (n == 0) return;
        VerdictLog verdictLog = actors.verdictLog();
        ReferenceLog ghost = actors.ghost();
        uint64 first = actors.anchored(n > 64 ? n - 64 : 0);
        uint64 last = actors.anchored(n - 1);
        uint64[3] memory indices = [uint64(0), first / 2, first - 1];
        for (uint256 i = 0; i < indices.length; ++i) {
            uint64 m = indices[i];
            bytes32 entry = ghost.entries(m);
            check(verdictLog.verifyInclusion(actors.logId(), entry, m, first, ghost.inclusion(m, first)), "then");
            check(verdictLog.verifyInclusion(actors.logId(), entry, m, last, ghost.inclusion(m, last)), "now");
            check(
                !verdictLog.verifyInclusion(actors.logId(), keccak256("forged"), m, last, ghost.inclusion(m, last)),
                "another entry"
            );
        }
    }
}
