// SPDX-License-Identifier: Apache-2.0 OR MIT
pragma solidity 0.8.37;

import {Checkpoint} from "../src/IVerdictLog.sol";
import {Proof, Severity, Verdict, Verdicts} from "../src/Verdict.sol";
import {VerdictLogFixture} from "./VerdictLogFixture.sol";
import {ERC20} from "@openzeppelin/contracts/token/ERC20/ERC20.sol";

/// @notice A token for tests.
contract Coin is ERC20 {
    constructor() ERC20("Coin", "COIN") {}

    function mint(address to, uint256 amount) external {
        _mint(to, amount);
    }
}

/// @notice A token that keeps a tenth of every transfer.
contract Tithe is ERC20 {
    constructor() ERC20("Tithe", "TITHE") {}

    function mint(address to, uint256 amount) external {
        _mint(to, amount);
    }

    function _update(address from, address to, uint256 value) internal override {
        if (from == address(0)) return super._update(from, to, value);
        super._update(from, address(0), value / 10);
        super._update(from, to, value - value / 10);
    }
}

/// @notice Says what time it is. A test must ask it: compiled via IR, a function reads the block's time once, whatever it sets it to.
contract Clock {
    function time() external view returns (uint256) {
        return block.timestamp;
    }
}

/// @notice Takes a struct from memory to calldata.
contract Hasher {
    function entryOf(Verdict calldata verdict) external pure returns (bytes32) {
        return Verdicts.entryOf(verdict);
    }
}

/// @notice A log with verdicts in it.
abstract contract VerdictsFixture is VerdictLogFixture {
    bytes32 internal constant DEVICE = keccak256("pump-001");
    bytes32 internal constant MODEL = keccak256("a model");

    Clock internal clock = new Clock();
    Hasher internal hasher;
    Verdict[] internal said;

    function setUp() public virtual override {
        super.setUp();
        hasher = new Hasher();
    }

    function present() internal view returns (uint64) {
        return uint64(clock.time());
    }

    function pass(uint256 seconds_) internal {
        vm.warp(clock.time() + seconds_);
    }

    /// @dev A verdict about the device, of the minute that ends now.
    function verdictNow(uint8 severity) internal view returns (Verdict memory v) {
        v = Verdict({
            deviceId: DEVICE,
            seq: uint64(said.length),
            windowStart: (present() - 60) * 1000,
            windowEnd: present() * 1000,
            modelHash: MODEL,
            configHash: keccak256("a pipeline"),
            inputDigest: keccak256(abi.encode("rows", said.length)),
            scoreE6: 12_500_000,
            severity: severity,
            class_: severity == Severity.NORMAL ? 0 : 1,
            evidenceHash: keccak256(abi.encode("evidence", said.length)),
            salt: keccak256(abi.encode("salt", said.length))
        });
    }

    /// @dev Appends it and anchors the log; returns its index.
    function log(Verdict memory v) internal returns (uint64 index) {
        index = uint64(ghost.size());
        ghost.push(hasher.entryOf(v));
        said.push(v);
        anchor();
    }

    function anchor() internal {
        (Checkpoint memory c, bytes32[] memory nodes) = next();
        verdictLog.advance(c, nodes, sign(c, KEY));
    }

    function proofOf(uint64 index) internal view returns (Proof memory) {
        uint64 size = uint64(ghost.size());
        return Proof({index: index, size: size, nodes: ghost.inclusion(index, size)});
    }
}
