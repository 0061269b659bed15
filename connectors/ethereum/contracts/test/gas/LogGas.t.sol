// SPDX-License-Identifier: Apache-2.0 OR MIT
pragma solidity 0.8.37;

import {Anchored, Checkpoint} from "../../src/IVerdictLog.sol";
import {MerkleLog} from "../../src/MerkleLog.sol";
import {UniformLog} from "../ReferenceLog.sol";
import {VerdictLogFixture} from "../VerdictLogFixture.sol";
import {IEas, IEasSchemas} from "./Eas.sol";
import {Gas} from "./Gas.sol";

/// @notice The proof functions alone, without a transaction and the log's storage around them.
contract Prover {
    function inclusion(bytes32 root, uint64 size, bytes32 entry, uint64 index, bytes32[] calldata proof)
        external
        view
        returns (bool included, uint256 gas)
    {
        uint256 before = gasleft();
        included = MerkleLog.includes(root, size, entry, index, proof);
        gas = before - gasleft();
    }

    function consistency(bytes32 oldRoot, uint64 oldSize, bytes32 newRoot, uint64 newSize, bytes32[] calldata proof)
        external
        view
        returns (bool consistent, uint256 gas)
    {
        uint256 before = gasleft();
        consistent = MerkleLog.extends_(oldRoot, oldSize, newRoot, newSize, proof);
        gas = before - gasleft();
    }
}

/// @notice What a batch of verdicts costs to anchor, and what it costs to prove one; beside EAS, deployed from its npm package.
contract LogGasTest is Gas, VerdictLogFixture {
    string private constant EAS = "node_modules/@ethereum-attestation-service/eas-contracts/artifacts/contracts/";
    /// The largest batch of full records that fits into the 16,777,216 gas that a transaction may take (EIP-7825).
    uint256 private constant MOST = 42;
    uint256 private constant TRANSACTION = 1 << 24;

    UniformLog private uniform;
    IEas private eas;
    bytes32 private recordSchema;
    bytes32 private hashSchema;
    uint256 private seed;

    function setUp() public override {
        super.setUp();
        osaka();
        uniform = new UniformLog();
        address schemas = deployed(code("SchemaRegistry.sol/SchemaRegistry.json"));
        eas = IEas(deployed(bytes.concat(code("EAS.sol/EAS.json"), abi.encode(schemas))));
        string memory fields =
            "bytes32 deviceId,uint64 seq,uint64 windowStart,uint64 windowEnd,bytes32 modelHash,bytes32 configHash,bytes32 inputDigest,int64 scoreE6,uint8 severity,uint16 class_,bytes32 evidenceHash,bytes32 salt";
        recordSchema = IEasSchemas(schemas).register(fields, address(0), true);
        hashSchema = IEasSchemas(schemas).register("bytes32 entry", address(0), true);
    }

    function code(string memory artifact) private view returns (bytes memory) {
        return meter.parseJsonBytes(meter.readFile(string.concat(EAS, artifact)), ".bytecode");
    }

    function deployed(bytes memory creation) private returns (address made) {
        assembly {
            made := create(0, add(creation, 32), mload(creation))
        }
        check(made.code.length != 0, "not deployed");
    }

    // ── checkpoints ─────────────────────────────────────────────────────────

    function advance(uint64 batch, address relayer) private {
        Anchored memory head = verdictLog.head(logId);
        uint64 size = head.size + batch;
        Checkpoint memory c = Checkpoint(
            logId,
            head.size,
            size,
            head.root,
            uniform.rootAt(size),
            keccak256(abi.encode(size)),
            uint64(block.timestamp) * 1000 + size
        );
        bytes32[] memory proof = uniform.consistency(head.size, size);
        bytes memory signature = sign(c, KEY);
        vm.prank(relayer);
        verdictLog.advance(c, proof, signature);
    }

    function steady(uint64 start) private {
        advance(start, signer);
        for (uint256 i = 0; i < 64; ++i) {
            advance(97, signer);
        }
    }

    function measured(string memory name, uint64 batch, address relayer) private {
        uint256 sum;
        uint256 least = type(uint256).max;
        uint256 most;
        for (uint256 i = 0; i < 32; ++i) {
            advance(batch, relayer);
            uint256 gas = meter.lastCallGas().gasTotalUsed;
            sum += gas;
            if (gas < least) least = gas;
            if (gas > most) most = gas;
        }
        meter.snapshotValue("checkpoint", string.concat(name, " mean"), sum / 32);
        meter.snapshotValue("checkpoint", string.concat(name, " least"), least);
        meter.snapshotValue("checkpoint", string.concat(name, " most"), most);
        check(most <= 68_500, "a checkpoint has become dear");
    }

    function test_gas_of_checkpoints() public {
        steady(1_000_000);
        measured("1", 1, signer);
        measured("10", 10, signer);
        measured("100", 100, signer);
        measured("1000", 1_000, signer);
        measured("10000", 10_000, signer);
        measured("100000", 100_000, signer);
    }

    function test_gas_of_a_checkpoint_that_its_signer_sends() public {
        steady(100_000);
        measured("997", 997, signer);
    }

    function test_gas_of_a_checkpoint_that_another_sends() public {
        steady(100_000);
        measured("997 relayed", 997, address(0x0abc));
    }

    function test_gas_of_the_dearest_checkpoint() public {
        steady(1_000_000);
        uint64 size = (1 << 20) - 1;
        advance(size - verdictLog.head(logId).size, signer);
        equal(uniform.consistency(size, size + 1_000).length, 22, "nodes");
        advance(1_000, signer);
        meter.snapshotValue("checkpoint", "dearest", meter.lastCallGas().gasTotalUsed);
    }

    function test_gas_of_the_first_checkpoints() public {
        advance(1_000, signer);
        meter.snapshotValue("checkpoint", "first", meter.lastCallGas().gasTotalUsed);
        advance(1_000, signer);
        meter.snapshotValue("checkpoint", "second", meter.lastCallGas().gasTotalUsed);
    }

    // ── the same with EAS ───────────────────────────────────────────────────

    function word() private returns (bytes32) {
        return keccak256(abi.encode(++seed));
    }

    /// @dev A verdict's twelve fields, with values of the length that they have.
    function record() private returns (bytes memory) {
        uint64 now_ = uint64(block.timestamp) * 1000;
        return abi.encode(
            word(),
            uint64(123_456),
            now_,
            now_ + 60_000,
            word(),
            word(),
            word(),
            int64(12_500_000),
            2,
            1,
            word(),
            word()
        );
    }

    function request(bool full) private returns (IEas.Data memory) {
        return IEas.Data(address(0), 0, true, bytes32(0), full ? record() : abi.encode(word()), 0);
    }

    function attest(uint256 n, bool full) private returns (uint256) {
        if (n == 1) {
            IEas.Request memory one = IEas.Request(full ? recordSchema : hashSchema, request(full));
            eas.attest(one);
        } else {
            IEas.MultiRequest[] memory many = new IEas.MultiRequest[](1);
            many[0] = IEas.MultiRequest(full ? recordSchema : hashSchema, new IEas.Data[](n));
            for (uint256 i = 0; i < n; ++i) {
                many[0].data[i] = request(full);
            }
            eas.multiAttest(many);
        }
        return meter.lastCallGas().gasTotalUsed;
    }

    function stamp(uint256 n) private returns (uint256) {
        if (n == 1) {
            bytes32 one = word();
            eas.timestamp(one);
        } else {
            bytes32[] memory many = new bytes32[](n);
            for (uint256 i = 0; i < n; ++i) {
                many[i] = word();
            }
            eas.multiTimestamp(many);
        }
        return meter.lastCallGas().gasTotalUsed;
    }

    /// @dev A batch is as many full transactions as it takes, and one for the rest: both are measured.
    function inTransactions(string memory group, uint256 n, uint256 most, uint256 full, uint256 rest) private {
        meter.snapshotValue(group, vmString(n), n / most * full + rest);
    }

    function vmString(uint256 n) private pure returns (string memory text) {
        while (n != 0) {
            text = string.concat(string(abi.encodePacked(bytes1(uint8(48 + n % 10)))), text);
            n /= 10;
        }
    }

    function test_gas_of_eas() public {
        uint256 records = attest(MOST, true);
        check(records <= TRANSACTION && attest(MOST + 1, true) > TRANSACTION, "42 is the most");
        uint256 hashes = attest(100, false);
        uint256 stamps = stamp(500);
        check(hashes <= TRANSACTION && stamps <= TRANSACTION, "they fit");
        uint256[6] memory sizes = [uint256(1), 10, 100, 1_000, 10_000, 100_000];
        for (uint256 i = 0; i < sizes.length; ++i) {
            uint256 n = sizes[i];
            inTransactions("eas-record", n, MOST, records, n % MOST == 0 ? 0 : attest(n % MOST, true));
            inTransactions("eas-hash", n, 100, hashes, n % 100 == 0 ? 0 : attest(n % 100, false));
            inTransactions("eas-timestamp", n, 500, stamps, n % 500 == 0 ? 0 : stamp(n % 500));
        }
        meter.snapshotValue("eas-root", "attest", attest(1, false));
        meter.snapshotValue("eas-root", "timestamp", stamp(1));
    }

    // ── proofs ──────────────────────────────────────────────────────────────

    function test_gas_of_proofs() public {
        Prover prover = new Prover();
        bytes32 entry = uniform.ENTRY();
        uint8[10] memory depths = [0, 1, 5, 10, 14, 17, 20, 24, 30, 40];
        for (uint256 i = 0; i < depths.length; ++i) {
            uint64 size = uint64(1) << depths[i];
            // An index with ones and zeros, so that nodes stand on both sides.
            uint64 index = 0x5555555555555555 % size;
            bytes32 root = uniform.rootAt(size);
            bytes32[] memory proof = uniform.inclusion(index, size);
            equal(proof.length, depths[i], "depth");
            (bool good, uint256 gas) = prover.inclusion(root, size, entry, index, proof);
            check(good, "included");
            meter.snapshotValue("inclusion", vmString(uint256(depths[i]) + 1000), gas);
            if (depths[i] == 0) continue;
            // From half the log and one more, which takes a node of every level.
            uint64 old = size / 2 + 1;
            if (old == size) continue;
            proof = uniform.consistency(old, size);
            (good, gas) = prover.consistency(uniform.rootAt(old), old, root, size, proof);
            check(good, "consistent");
            meter.snapshotValue("consistency", vmString(proof.length + 1000), gas);
        }
    }
}
