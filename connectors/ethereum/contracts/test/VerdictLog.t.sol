// SPDX-License-Identifier: Apache-2.0 OR MIT
pragma solidity 0.8.37;

import {Anchored, Checkpoint, IVerdictLog} from "../src/IVerdictLog.sol";
import {VerdictLog} from "../src/VerdictLog.sol";
import {VerdictLogFixture, Wallet} from "./VerdictLogFixture.sol";
import {IERC5267} from "@openzeppelin/contracts/interfaces/IERC5267.sol";
import {ECDSA} from "@openzeppelin/contracts/utils/cryptography/ECDSA.sol";

/// @notice An ERC-1271 wallet that takes its key's signature as an account's: 65 bytes.
contract PlainWallet {
    address private immutable _key;

    constructor(address key) {
        _key = key;
    }

    function isValidSignature(bytes32 hash, bytes calldata signature) external view returns (bytes4) {
        return ECDSA.recover(hash, signature) == _key ? bytes4(0x1626ba7e) : bytes4(0xffffffff);
    }
}

contract VerdictLogTest is VerdictLogFixture {
    // ── registration ────────────────────────────────────────────────────────

    function test_register_binds_the_id_to_the_caller() public {
        equal(logId, keccak256(abi.encode(owner, NAME)), "id");
        equal(verdictLog.ownerOf(logId), owner, "owner");
        equal(verdictLog.signerOf(logId), signer, "signer");
        // Another's registration of the same name is another log.
        vm.prank(address(0x0456));
        bytes32 other = verdictLog.register(NAME, address(0x0456));
        check(other != logId, "a name cannot be squatted");
        equal(verdictLog.signerOf(logId), signer, "and leaves the first alone");
    }

    function test_register_emits() public {
        bytes32 id = verdictLog.logIdOf(address(this), "n");
        vm.expectEmit(true, true, true, true, address(verdictLog));
        emit IVerdictLog.LogRegistered(id, address(this), "n", signer);
        verdictLog.register("n", signer);
    }

    function test_register_twice_is_refused() public {
        vm.expectRevert(abi.encodeWithSelector(IVerdictLog.AlreadyRegistered.selector, logId));
        vm.prank(owner);
        verdictLog.register(NAME, address(1));
    }

    function test_register_without_signer_is_refused() public {
        vm.expectRevert(abi.encodeWithSelector(IVerdictLog.ZeroAddress.selector));
        verdictLog.register("n", address(0));
    }

    function test_unknown_log() public {
        bytes memory unknown = abi.encodeWithSelector(IVerdictLog.UnknownLog.selector, bytes32("no"));
        Checkpoint memory c;
        c.logId = "no";
        vm.expectRevert(unknown);
        verdictLog.advance(c, new bytes32[](0), "");
        vm.expectRevert(unknown);
        verdictLog.head("no");
        vm.expectRevert(unknown);
        verdictLog.checkpointOf("no", 1);
        vm.expectRevert(unknown);
        verdictLog.verifyInclusion("no", 0, 0, 1, new bytes32[](0));
        vm.expectRevert(unknown);
        verdictLog.setSigner("no", signer);
        vm.expectRevert(unknown);
        verdictLog.setSuccessor("no", signer);
    }

    // ── rotation ────────────────────────────────────────────────────────────

    function test_owner_and_signer_rotate_and_nobody_else() public {
        vm.expectRevert(abi.encodeWithSelector(IVerdictLog.NotAuthorized.selector, logId, address(this)));
        verdictLog.setSigner(logId, address(this));
        address second = vm.addr(OTHER_KEY);
        vm.expectEmit(true, true, true, true, address(verdictLog));
        emit IVerdictLog.SignerChanged(logId, signer, second);
        vm.prank(signer);
        verdictLog.setSigner(logId, second);
        vm.expectRevert(abi.encodeWithSelector(IVerdictLog.NotAuthorized.selector, logId, signer));
        vm.prank(signer);
        verdictLog.setSigner(logId, signer);
        vm.expectRevert(abi.encodeWithSelector(IVerdictLog.ZeroAddress.selector));
        vm.prank(owner);
        verdictLog.setSigner(logId, address(0));
        vm.prank(owner);
        verdictLog.setSigner(logId, signer);
        equal(verdictLog.signerOf(logId), signer, "the owner has the last word");
    }

    function test_after_rotation_only_the_new_key_signs() public {
        advanceBy(3);
        vm.prank(owner);
        verdictLog.setSigner(logId, vm.addr(OTHER_KEY));
        grow(2);
        (Checkpoint memory c, bytes32[] memory proof) = next();
        bytes memory old = sign(c, KEY);
        vm.expectRevert(invalid(vm.addr(OTHER_KEY)));
        verdictLog.advance(c, proof, old);
        verdictLog.advance(c, proof, sign(c, OTHER_KEY));
        equal(verdictLog.head(logId).size, 5, "size");
    }

    // ── succession ──────────────────────────────────────────────────────────

    function test_succession_closes_the_log_and_keeps_its_history() public {
        advanceBy(5);
        vm.expectRevert(abi.encodeWithSelector(IVerdictLog.NotAuthorized.selector, logId, signer));
        vm.prank(signer);
        verdictLog.setSuccessor(logId, address(0x77));
        vm.expectRevert(abi.encodeWithSelector(IVerdictLog.ZeroAddress.selector));
        vm.prank(owner);
        verdictLog.setSuccessor(logId, address(0));
        vm.expectEmit(true, true, true, true, address(verdictLog));
        emit IVerdictLog.LogSucceeded(logId, address(0x77));
        vm.prank(owner);
        verdictLog.setSuccessor(logId, address(0x77));
        equal(verdictLog.successorOf(logId), address(0x77), "successor");

        grow(1);
        (Checkpoint memory c, bytes32[] memory proof) = next();
        bytes memory signature = sign(c, KEY);
        bytes memory closed = abi.encodeWithSelector(IVerdictLog.LogClosed.selector, logId, address(0x77));
        vm.expectRevert(closed);
        verdictLog.advance(c, proof, signature);
        vm.expectRevert(closed);
        vm.prank(owner);
        verdictLog.setSigner(logId, signer);
        vm.expectRevert(closed);
        vm.prank(owner);
        verdictLog.setSuccessor(logId, address(0x78));
        vm.expectRevert(abi.encodeWithSelector(IVerdictLog.AlreadyRegistered.selector, logId));
        vm.prank(owner);
        verdictLog.register(NAME, signer);
        check(verdictLog.verifyInclusion(logId, ghost.entries(2), 2, 5, ghost.inclusion(2, 5)), "still provable");
    }

    // ── advancing ───────────────────────────────────────────────────────────

    function test_first_checkpoint_and_the_next() public {
        Anchored memory nothing = verdictLog.head(logId);
        equal(nothing.size, 0, "empty");
        equal(nothing.root, 0, "no root");
        grow(7);
        (Checkpoint memory c, bytes32[] memory proof) = next();
        bytes memory signature = sign(c, KEY);
        vm.expectEmit(true, true, true, true, address(verdictLog));
        emit IVerdictLog.CheckpointAdvanced(logId, 7, 0, c.newRoot, c.dataCommitment, c.issuedAt);
        verdictLog.advance(c, proof, signature);
        vm.warp(1_700_000_012);
        vm.roll(1001);
        c = advanceBy(6);
        Anchored memory head = verdictLog.head(logId);
        equal(head.size, 13, "size");
        equal(head.root, ghost.rootAt(13), "root");
        equal(head.issuedAt, 1_700_000_012_000, "issued");
        equal(head.anchoredAt, 1_700_000_012, "anchored");
        equal(head.blockNumber, 1001, "block");
        Anchored memory first = verdictLog.checkpointOf(logId, 7);
        equal(first.root, ghost.rootAt(7), "the first is remembered");
        equal(first.anchoredAt, 1_700_000_000, "with its time");
    }

    function test_a_checkpoint_cannot_be_anchored_twice() public {
        advanceBy(3);
        grow(1);
        (Checkpoint memory c, bytes32[] memory proof) = next();
        bytes memory signature = sign(c, KEY);
        verdictLog.advance(c, proof, signature);
        vm.expectRevert(abi.encodeWithSelector(IVerdictLog.StaleCheckpoint.selector, logId, 4, c.newRoot));
        verdictLog.advance(c, proof, signature);
    }

    function test_a_fork_is_refused_however_it_is_signed() public {
        advanceBy(3);
        grow(1);
        (Checkpoint memory c, bytes32[] memory proof) = next();
        c.newRoot = sha256("another history");
        bytes memory signature = sign(c, KEY);
        vm.expectRevert(inconsistent(c));
        verdictLog.advance(c, proof, signature);
        (c, proof) = next();
        c.oldRoot = sha256("another past");
        signature = sign(c, KEY);
        vm.expectRevert(
            abi.encodeWithSelector(IVerdictLog.StaleCheckpoint.selector, logId, 3, verdictLog.head(logId).root)
        );
        verdictLog.advance(c, proof, signature);
    }

    function test_the_log_must_get_longer() public {
        advanceBy(4);
        (Checkpoint memory c,) = next();
        bytes memory signature = sign(c, KEY);
        vm.expectRevert(abi.encodeWithSelector(IVerdictLog.NotLonger.selector, 4, 4));
        verdictLog.advance(c, new bytes32[](0), signature);
        c.newSize = 3;
        c.newRoot = ghost.rootAt(3);
        signature = sign(c, KEY);
        vm.expectRevert(abi.encodeWithSelector(IVerdictLog.NotLonger.selector, 4, 3));
        verdictLog.advance(c, new bytes32[](0), signature);
        // An empty first checkpoint is none.
        vm.prank(owner);
        bytes32 empty = verdictLog.register("empty", signer);
        Checkpoint memory zero;
        zero.logId = empty;
        signature = sign(zero, KEY);
        vm.expectRevert(abi.encodeWithSelector(IVerdictLog.NotLonger.selector, 0, 0));
        verdictLog.advance(zero, new bytes32[](0), signature);
    }

    function test_the_first_proof_is_empty() public {
        grow(2);
        (Checkpoint memory c,) = next();
        bytes memory signature = sign(c, KEY);
        vm.expectRevert(inconsistent(c));
        verdictLog.advance(c, new bytes32[](1), signature);
    }

    function test_proofs_of_the_wrong_length_are_refused() public {
        advanceBy(6);
        grow(5);
        (Checkpoint memory c, bytes32[] memory proof) = next();
        bytes memory signature = sign(c, KEY);
        for (uint256 n = 0; n < proof.length + 4; ++n) {
            if (n == proof.length) continue;
            bytes32[] memory wrong = new bytes32[](n);
            for (uint256 i = 0; i < n && i < proof.length; ++i) {
                wrong[i] = proof[i];
            }
            vm.expectRevert(inconsistent(c));
            verdictLog.advance(c, wrong, signature);
        }
        verdictLog.advance(c, proof, signature);
    }

    function test_a_proof_for_other_sizes_is_refused() public {
        advanceBy(6);
        grow(5);
        (Checkpoint memory c,) = next();
        bytes memory signature = sign(c, KEY);
        for (uint256 m = 1; m < 11; ++m) {
            if (m == 6) continue;
            bytes32[] memory wrong = ghost.consistency(m, 11);
            vm.expectRevert(inconsistent(c));
            verdictLog.advance(c, wrong, signature);
        }
        for (uint256 n = 7; n < 11; ++n) {
            bytes32[] memory wrong = ghost.consistency(6, n);
            vm.expectRevert(inconsistent(c));
            verdictLog.advance(c, wrong, signature);
        }
    }

    // ── signatures ──────────────────────────────────────────────────────────

    function test_every_field_is_signed() public {
        advanceBy(3);
        grow(2);
        (Checkpoint memory good, bytes32[] memory proof) = next();
        bytes memory signature = sign(good, KEY);
        Checkpoint memory c;
        (c,) = next();
        c.dataCommitment = "other";
        vm.expectRevert(invalid(signer));
        verdictLog.advance(c, proof, signature);
        (c,) = next();
        c.issuedAt += 1;
        vm.expectRevert(invalid(signer));
        verdictLog.advance(c, proof, signature);
        (c,) = next();
        c.newRoot = "other";
        vm.expectRevert(invalid(signer));
        verdictLog.advance(c, proof, signature);
        (c,) = next();
        c.newSize += 1;
        vm.expectRevert(invalid(signer));
        verdictLog.advance(c, proof, signature);
        verdictLog.advance(good, proof, signature);
    }

    function test_another_log_of_the_same_signer_does_not_take_it() public {
        vm.prank(owner);
        bytes32 second = verdictLog.register("second", signer);
        grow(2);
        (Checkpoint memory c, bytes32[] memory proof) = next();
        bytes memory signature = sign(c, KEY);
        c.logId = second;
        vm.expectRevert(abi.encodeWithSelector(IVerdictLog.InvalidSignature.selector, second, signer));
        verdictLog.advance(c, proof, signature);
    }

    function test_malleable_short_long_and_empty_signatures_are_refused() public {
        grow(2);
        (Checkpoint memory c, bytes32[] memory proof) = next();
        (uint8 v, bytes32 r, bytes32 s) = vm.sign(KEY, verdictLog.digestOf(c));
        bytes32 mirrored = bytes32(N - uint256(s));
        bytes[7] memory wrong = [
            abi.encodePacked(r, mirrored, v == 27 ? uint8(28) : uint8(27)),
            abi.encodePacked(r, s, uint8(v - 27)),
            // EIP-2098
            abi.encodePacked(r, bytes32(uint256(s) | (uint256(v - 27) << 255))),
            abi.encodePacked(r, s),
            abi.encodePacked(r, s, v, uint8(0)),
            abi.encodePacked(bytes32(0), bytes32(0), v),
            bytes("")
        ];
        for (uint256 i = 0; i < wrong.length; ++i) {
            vm.expectRevert(invalid(signer));
            verdictLog.advance(c, proof, wrong[i]);
        }
        verdictLog.advance(c, proof, abi.encodePacked(r, s, v));
    }

    function test_another_chain_and_another_contract_do_not_take_it() public {
        grow(2);
        (Checkpoint memory c, bytes32[] memory proof) = next();
        bytes memory signature = sign(c, KEY);
        VerdictLog twin = new VerdictLog();
        vm.prank(owner);
        equal(twin.register(NAME, signer), logId, "the same log id in both contracts");
        vm.expectRevert(invalid(signer));
        twin.advance(c, proof, signature);
        vm.chainId(999);
        vm.expectRevert(invalid(signer));
        verdictLog.advance(c, proof, signature);
        vm.chainId(31337);
        verdictLog.advance(c, proof, signature);
    }

    function test_a_wallet_signs_by_erc1271() public {
        Wallet wallet = new Wallet(vm.addr(OTHER_KEY));
        vm.prank(owner);
        verdictLog.setSigner(logId, address(wallet));
        grow(3);
        (Checkpoint memory c, bytes32[] memory proof) = next();
        (, bytes32 r, bytes32 s) = vm.sign(OTHER_KEY, verdictLog.digestOf(c));
        bytes memory eoa = sign(c, KEY);
        vm.expectRevert(invalid(address(wallet)));
        verdictLog.advance(c, proof, eoa);
        verdictLog.advance(c, proof, abi.encode(r, s));
        equal(verdictLog.head(logId).size, 3, "size");
    }

    function test_a_wallet_that_takes_65_bytes_is_asked_though_they_are_no_key_of_its() public {
        PlainWallet wallet = new PlainWallet(vm.addr(OTHER_KEY));
        vm.prank(owner);
        verdictLog.setSigner(logId, address(wallet));
        grow(3);
        (Checkpoint memory c, bytes32[] memory proof) = next();
        bytes memory anothers = sign(c, KEY);
        vm.expectRevert(invalid(address(wallet)));
        verdictLog.advance(c, proof, anothers);
        verdictLog.advance(c, proof, sign(c, OTHER_KEY));
        equal(verdictLog.head(logId).size, 3, "size");
    }

    /// @dev As by EIP-7702: the account of KEY has the code of a wallet of OTHER_KEY's.
    function test_an_account_that_took_on_code_signs_by_its_key_and_by_its_code() public {
        vm.etch(signer, address(new PlainWallet(vm.addr(OTHER_KEY))).code);
        advanceBy(2);
        equal(verdictLog.head(logId).size, 2, "by its key");
        grow(1);
        (Checkpoint memory c, bytes32[] memory proof) = next();
        bytes memory anothers = sign(c, 0xC0DE);
        vm.expectRevert(invalid(signer));
        verdictLog.advance(c, proof, anothers);
        verdictLog.advance(c, proof, sign(c, OTHER_KEY));
        equal(verdictLog.head(logId).size, 3, "by its code");
        // Code that refuses everything does not keep the key from signing.
        vm.etch(signer, hex"60006000fd");
        advanceBy(1);
        equal(verdictLog.head(logId).size, 4, "by its key again");
    }

    /// @dev A precompile has no code and answers whatever it is asked. Some take all the gas they are given.
    function test_a_precompile_does_not_sign() public {
        grow(1);
        for (uint160 i = 1; i <= 0x11; ++i) {
            vm.prank(owner);
            verdictLog.setSigner(logId, address(i));
            (Checkpoint memory c, bytes32[] memory proof) = next();
            bytes memory signature = sign(c, KEY);
            vm.expectRevert(invalid(address(i)));
            verdictLog.advance{gas: 1_000_000}(c, proof, signature);
            vm.expectRevert(invalid(address(i)));
            verdictLog.advance{gas: 1_000_000}(c, proof, "");
        }
    }

    function test_a_signer_contract_that_reverts_or_lies_does_not_pass() public {
        vm.prank(owner);
        verdictLog.setSigner(logId, address(0xdead));
        grow(1);
        (Checkpoint memory c, bytes32[] memory proof) = next();
        bytes[3] memory codes = [
            bytes(hex"60006000fd"), // reverts
            hex"00", // returns nothing
            hex"600160005260206000f3" // returns 1
        ];
        for (uint256 i = 0; i < codes.length; ++i) {
            vm.etch(address(0xdead), codes[i]);
            vm.expectRevert(invalid(address(0xdead)));
            verdictLog.advance(c, proof, "");
        }
    }

    function test_the_digest_is_the_eip712_one() public view {
        Checkpoint memory c = Checkpoint(logId, 1, 2, "a", "b", "c", 3);
        bytes32 domain = keccak256(
            abi.encode(
                keccak256("EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)"),
                keccak256("Avouch"),
                keccak256("1"),
                block.chainid,
                address(verdictLog)
            )
        );
        bytes32 structHash = keccak256(
            abi.encode(
                keccak256(
                    "Checkpoint(bytes32 logId,uint64 oldSize,uint64 newSize,bytes32 oldRoot,bytes32 newRoot,bytes32 dataCommitment,uint64 issuedAt)"
                ),
                logId,
                uint256(1),
                uint256(2),
                bytes32("a"),
                bytes32("b"),
                bytes32("c"),
                uint256(3)
            )
        );
        equal(verdictLog.digestOf(c), keccak256(abi.encodePacked(hex"1901", domain, structHash)), "digest");
        (bytes1 fields, string memory name, string memory version, uint256 chainId, address verifying,,) =
            verdictLog.eip712Domain();
        equal(bytes32(fields), bytes32(hex"0f"), "fields");
        equal(keccak256(bytes(name)), keccak256("Avouch"), "name");
        equal(keccak256(bytes(version)), keccak256("1"), "version");
        equal(chainId, block.chainid, "chain");
        equal(verifying, address(verdictLog), "contract");
    }

    // ── the ring ────────────────────────────────────────────────────────────

    function test_the_ring_holds_the_last_64() public {
        for (uint256 i = 0; i < 130; ++i) {
            advanceBy(1 + i % 3);
        }
        uint64 size = verdictLog.head(logId).size;
        equal(size, ghost.size(), "head");
        uint64 seen = 0;
        uint64 oldest = 0;
        for (uint64 s = size; s > 0; --s) {
            try verdictLog.checkpointOf(logId, s) returns (Anchored memory a) {
                equal(a.size, s, "size");
                equal(a.root, ghost.rootAt(s), "root");
                ++seen;
                oldest = s;
            } catch (bytes memory reason) {
                equal(
                    keccak256(reason),
                    keccak256(abi.encodeWithSelector(IVerdictLog.UnknownCheckpoint.selector, logId, s)),
                    "reason"
                );
            }
        }
        equal(seen, 64, "remembered");
        check(verdictLog.verifyInclusion(logId, ghost.entries(0), 0, oldest, ghost.inclusion(0, oldest)), "oldest");
    }

    function test_the_count_does_not_run_out() public {
        for (uint256 i = 0; i < 64; ++i) {
            advanceBy(1);
        }
        // `count` is the upper 32 bits of the log's first slot.
        bytes32 slot = keccak256(abi.encode(logId, uint256(0)));
        uint256 word = uint256(vm.load(address(verdictLog), slot));
        equal(word >> 224, 64, "count");
        vm.store(address(verdictLog), slot, bytes32((word << 32 >> 32) | (uint256(type(uint32).max - 63) << 224)));
        for (uint256 i = 0; i < 130; ++i) {
            advanceBy(1);
        }
        equal(verdictLog.head(logId).size, 194, "size");
        equal(verdictLog.checkpointOf(logId, 131).root, ghost.rootAt(131), "oldest");
    }

    // ── inclusion ───────────────────────────────────────────────────────────

    function test_every_index_is_provable_against_every_checkpoint() public {
        for (uint256 i = 0; i < 8; ++i) {
            advanceBy(1 + i % 4);
        }
        uint64 size = verdictLog.head(logId).size;
        for (uint64 s = 1; s <= size; ++s) {
            try verdictLog.checkpointOf(logId, s) {
                for (uint64 m = 0; m < s; ++m) {
                    bytes32[] memory path = ghost.inclusion(m, s);
                    check(verdictLog.verifyInclusion(logId, ghost.entries(m), m, s, path), "included");
                    check(!verdictLog.verifyInclusion(logId, "x", m, s, path), "another entry");
                    check(!verdictLog.verifyInclusion(logId, ghost.entries(m), m + 1, s, path), "another index");
                    check(
                        !verdictLog.verifyInclusion(logId, ghost.entries(m), m, s, new bytes32[](path.length + 1)),
                        "another length"
                    );
                }
                check(!verdictLog.verifyInclusion(logId, ghost.entries(s - 1), s, s, new bytes32[](0)), "past the end");
            } catch {}
        }
    }

    function test_interfaces() public view {
        check(verdictLog.supportsInterface(type(IVerdictLog).interfaceId), "IVerdictLog");
        check(verdictLog.supportsInterface(0x01ffc9a7), "ERC-165");
        check(verdictLog.supportsInterface(type(IERC5267).interfaceId), "ERC-5267");
        check(!verdictLog.supportsInterface(0xffffffff), "not everything");
        equal(bytes32(type(IVerdictLog).interfaceId), bytes32(bytes4(0xf800d4c1)), "the published interface id");
    }

    /// @dev Nothing can be sent to it and nothing is in it that changes from chain to chain.
    function test_no_ether_and_one_code() public {
        (bool taken,) = address(verdictLog).call{value: 1}("");
        check(!taken, "takes no ether");
        equal(address(new VerdictLog()).codehash, address(verdictLog).codehash, "one code hash");
    }
}
