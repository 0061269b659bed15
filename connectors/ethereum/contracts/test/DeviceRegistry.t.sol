// SPDX-License-Identifier: Apache-2.0 OR MIT
pragma solidity 0.8.37;

import {DeviceRegistry} from "../src/DeviceRegistry.sol";
import {DeviceKey, Enrolment, IDeviceRegistry} from "../src/IDeviceRegistry.sol";
import {P256Verifier} from "../src/P256Verifier.sol";
import {Testing} from "./Testing.sol";
import {IERC5267} from "@openzeppelin/contracts/interfaces/IERC5267.sol";
import {IERC165} from "@openzeppelin/contracts/utils/introspection/IERC165.sol";

contract DeviceRegistryTest is Testing {
    bytes32 private constant DEVICE = keccak256("pump-001");
    bytes32 private constant MESSAGE = keccak256("a reading");
    uint64 private constant FOR_EVER = type(uint64).max;
    address private constant OWNER = address(0x0111);
    address private constant ENROLLER = address(0x0222);
    uint256 private constant KEY = 0xA11CE;
    uint256 private constant OTHER = 0xB0B;

    DeviceRegistry private registry = new DeviceRegistry();
    P256Verifier private p256 = new P256Verifier();
    bytes32 private fleet;

    function setUp() public {
        vm.warp(1_000_000);
        vm.prank(OWNER);
        fleet = registry.register("pumps", ENROLLER);
    }

    function account(uint256 key) private pure returns (bytes memory) {
        return abi.encodePacked(vm.addr(key));
    }

    function signed(uint256 key, bytes32 digest) private pure returns (bytes memory) {
        (uint8 v, bytes32 r, bytes32 s) = vm.sign(key, digest);
        return abi.encodePacked(r, s, v);
    }

    function consent(uint256 key, uint64 fromSeq) private view returns (bytes memory) {
        return signed(key, registry.digestOf(Enrolment(fleet, DEVICE, fromSeq, account(key))));
    }

    function enrol(uint256 key) private {
        bytes memory yes = consent(key, 0);
        vm.prank(ENROLLER);
        registry.enrol(fleet, DEVICE, account(key), yes);
    }

    function rotate(uint256 key, uint64 fromSeq) private {
        bytes memory yes = consent(key, fromSeq);
        vm.prank(ENROLLER);
        registry.rotate(fleet, DEVICE, fromSeq, account(key), yes);
    }

    function revoke(uint256 number, uint64 fromSeq) private {
        vm.prank(ENROLLER);
        registry.revoke(fleet, DEVICE, number, fromSeq, "stolen");
    }

    function revokeRefused(uint256 number, uint64 fromSeq, bytes memory reason) private {
        refusedBy(ENROLLER, abi.encodeCall(IDeviceRegistry.revoke, (fleet, DEVICE, number, fromSeq, "")), reason);
    }

    function speaks(uint256 key, uint64 seq) private view returns (bool) {
        return registry.verify(fleet, DEVICE, seq, account(key), MESSAGE, signed(key, MESSAGE));
    }

    function refusedBy(address who, bytes memory call, bytes memory reason) private {
        vm.expectRevert(reason);
        vm.prank(who);
        (bool done,) = address(registry).call(call);
        done;
    }

    function test_a_key_speaks_from_its_first_message_to_its_last() public {
        enrol(KEY);
        check(speaks(KEY, 0) && speaks(KEY, 1_000_000), "from 0 on");
        check(!speaks(OTHER, 0), "nobody else");
        rotate(OTHER, 100);
        check(speaks(KEY, 99) && !speaks(KEY, 100), "the old one up to the rotation");
        check(!speaks(OTHER, 99) && speaks(OTHER, 100), "the new one from there");
        equal(registry.keysOf(fleet, DEVICE), 2, "both are kept");
        DeviceKey memory key = registry.keyAt(fleet, DEVICE, 100);
        equal(key.keyHash, keccak256(account(OTHER)), "hash");
        equal(key.fromSeq, 100, "from");
        equal(key.untilSeq, FOR_EVER, "until");
        equal(key.enrolledAt, 1_000_000, "enrolled");
    }

    function test_after_a_revocation_nothing_speaks_until_a_new_key_does() public {
        enrol(KEY);
        vm.expectEmit(true, true, true, true, address(registry));
        emit IDeviceRegistry.DeviceRevoked(fleet, DEVICE, 0, 50, "stolen");
        revoke(0, 50);
        check(speaks(KEY, 49) && !speaks(KEY, 50), "revoked from 50");
        equal(registry.keyAt(fleet, DEVICE, 60).keyHash, 0, "none");
        revokeRefused(0, 60, abi.encodeWithSelector(IDeviceRegistry.NotSpokenFor.selector, 60, 0, 50));
        bytes memory yes = consent(OTHER, 49);
        refusedBy(
            ENROLLER,
            abi.encodeCall(IDeviceRegistry.rotate, (fleet, DEVICE, 49, account(OTHER), yes)),
            abi.encodeWithSelector(IDeviceRegistry.BadSeq.selector, 49, 50)
        );
        rotate(OTHER, 70);
        check(!speaks(OTHER, 69) && !speaks(KEY, 69) && speaks(OTHER, 70), "a gap in which nothing speaks");
    }

    function test_a_key_can_be_revoked_from_its_first_message_on() public {
        enrol(KEY);
        rotate(OTHER, 10);
        revoke(1, 10);
        check(!speaks(OTHER, 10) && speaks(KEY, 9), "the key before it is not touched");
        rotate(KEY, 10);
        check(speaks(KEY, 10), "and can be given again");
        revokeRefused(2, 9, abi.encodeWithSelector(IDeviceRegistry.NotSpokenFor.selector, 9, 10, FOR_EVER));
        revokeRefused(1, 10, abi.encodeWithSelector(IDeviceRegistry.NotSpokenFor.selector, 10, 10, 10));
    }

    function test_a_stolen_key_is_revoked_although_a_rotation_is_planned() public {
        enrol(KEY);
        rotate(OTHER, 1_000_000);
        // The key is stolen at message 500.
        revoke(0, 500);
        check(speaks(KEY, 499) && !speaks(KEY, 500) && !speaks(KEY, 999_999), "the thief speaks no more");
        check(!speaks(OTHER, 999_999) && speaks(OTHER, 1_000_000), "the planned key is not touched");
        // It was stolen earlier than was thought.
        revoke(0, 400);
        check(speaks(KEY, 399) && !speaks(KEY, 400), "and back again");
        // Another key is needed at once: the planned one leaves its place.
        bytes memory yes = consent(0xC0DE, 400);
        refusedBy(
            ENROLLER,
            abi.encodeCall(IDeviceRegistry.rotate, (fleet, DEVICE, 400, account(0xC0DE), yes)),
            abi.encodeWithSelector(IDeviceRegistry.BadSeq.selector, 400, 1_000_001)
        );
        revoke(1, 1_000_000);
        rotate(0xC0DE, 400);
        check(speaks(0xC0DE, 400) && speaks(0xC0DE, 2_000_000) && !speaks(OTHER, 1_000_000), "the new key");
        check(speaks(KEY, 399), "what was signed before the theft stays good");
    }

    function test_a_key_that_was_rotated_can_still_be_revoked() public {
        enrol(KEY);
        rotate(OTHER, 100);
        revoke(0, 60);
        check(speaks(KEY, 59) && !speaks(KEY, 60) && !speaks(OTHER, 60) && speaks(OTHER, 100), "void in between");
        revoke(0, 0);
        check(!speaks(KEY, 0) && speaks(OTHER, 100), "all of it");
    }

    function test_a_device_whose_every_key_was_revoked_begins_anew() public {
        enrol(KEY);
        revoke(0, 0);
        equal(registry.keyAt(fleet, DEVICE, 0).keyHash, 0, "nothing speaks");
        rotate(OTHER, 0);
        check(speaks(OTHER, 0) && !speaks(KEY, 0), "from the first message on");
    }

    function test_an_account_has_one_signature_for_a_message() public {
        enrol(KEY);
        (uint8 v, bytes32 r, bytes32 s) = vm.sign(KEY, MESSAGE);
        bytes32 mirrored = bytes32(SECP256K1_N - uint256(s));
        bytes memory high = abi.encodePacked(r, mirrored, v == 27 ? uint8(28) : uint8(27));
        check(!registry.verify(fleet, DEVICE, 0, account(KEY), MESSAGE, high), "high s");
        bytes32 vs = bytes32(uint256(s) | (uint256(v - 27) << 255));
        check(!registry.verify(fleet, DEVICE, 0, account(KEY), MESSAGE, abi.encodePacked(r, vs)), "64 bytes");
        check(!registry.verify(fleet, DEVICE, 0, account(KEY), MESSAGE, ""), "none");
        check(!registry.verify(fleet, DEVICE, 0, account(KEY), MESSAGE, new bytes(65)), "zeros");
        check(speaks(KEY, 0), "the one");
    }

    function test_a_wallet_that_reverts_reenters_or_burns_gas_is_no_key() public {
        for (uint256 mode = 0; mode < 4; ++mode) {
            bytes memory wallet = abi.encodePacked(address(new HostileWallet(registry, fleet, mode)));
            bytes memory call = abi.encodeCall(IDeviceRegistry.enrol, (fleet, DEVICE, wallet, ""));
            vm.prank(ENROLLER);
            (bool done,) = address(registry).call{gas: 3_000_000}(call);
            check(!done, "enrolled");
        }
        equal(registry.keysOf(fleet, DEVICE), 0, "none of them");
        enrol(KEY);
        check(speaks(KEY, 0), "and nobody is hindered");
    }

    function test_a_key_must_consent_to_this_device_at_this_message_here() public {
        bytes memory none = abi.encodeWithSelector(IDeviceRegistry.NoConsent.selector, fleet, DEVICE);
        bytes memory yes = consent(KEY, 0);
        // Another's key under one's own signature, and a consent to something else.
        refusedBy(ENROLLER, abi.encodeCall(IDeviceRegistry.enrol, (fleet, DEVICE, account(OTHER), yes)), none);
        bytes memory later = consent(KEY, 5);
        refusedBy(ENROLLER, abi.encodeCall(IDeviceRegistry.enrol, (fleet, DEVICE, account(KEY), later)), none);
        vm.chainId(2);
        refusedBy(ENROLLER, abi.encodeCall(IDeviceRegistry.enrol, (fleet, DEVICE, account(KEY), yes)), none);
    }

    function signedP256(uint256 key, bytes32 digest) private pure returns (bytes memory) {
        (bytes32 r, bytes32 s) = vm.signP256(key, digest);
        return abi.encodePacked(r, lowS(s));
    }

    function enrolP256(uint256 secret) private returns (bytes memory key) {
        (uint256 x, uint256 y) = vm.publicKeyP256(secret);
        key = abi.encodePacked(address(p256), x, y);
        bytes memory yes = signedP256(secret, registry.digestOf(Enrolment(fleet, DEVICE, 0, key)));
        vm.prank(ENROLLER);
        registry.enrol(fleet, DEVICE, key, yes);
    }

    function test_a_p256_key_speaks_by_its_verifier() public {
        bytes memory key = enrolP256(KEY);
        bytes memory signature = signedP256(KEY, MESSAGE);
        check(registry.verify(fleet, DEVICE, 0, key, MESSAGE, signature), "its own");
        check(!registry.verify(fleet, DEVICE, 0, key, keccak256("other"), signature), "of another message");
        check(!registry.verify(fleet, DEVICE, 0, key, MESSAGE, signedP256(OTHER, MESSAGE)), "by another key");
        // One message has one signature: neither its mirror image is one, nor itself with something behind it.
        (bytes32 r, bytes32 s) = vm.signP256(KEY, MESSAGE);
        bytes memory mirror = abi.encodePacked(r, bytes32(P256_N - uint256(lowS(s))));
        check(!registry.verify(fleet, DEVICE, 0, key, MESSAGE, mirror), "malleable");
        check(!registry.verify(fleet, DEVICE, 0, key, MESSAGE, bytes.concat(signature, hex"1b")), "longer");
        check(!registry.verify(fleet, DEVICE, 0, key, MESSAGE, ""), "none");
        check(!registry.verify(fleet, DEVICE, 0, key, MESSAGE, new bytes(64)), "zeros");
    }

    function test_a_p256_key_enrols_itself_alone() public {
        (uint256 x, uint256 y) = vm.publicKeyP256(KEY);
        bytes memory key = abi.encodePacked(address(p256), x, y);
        bytes32 digest = registry.digestOf(Enrolment(fleet, DEVICE, 0, key));
        bytes memory none = abi.encodeWithSelector(IDeviceRegistry.NoConsent.selector, fleet, DEVICE);
        bytes memory anothers = signedP256(OTHER, digest);
        refusedBy(ENROLLER, abi.encodeCall(IDeviceRegistry.enrol, (fleet, DEVICE, key, anothers)), none);
        // A key that is no point of the curve, and one of another length.
        bytes memory yes = signedP256(KEY, digest);
        bytes memory off = abi.encodePacked(address(p256), x, y ^ 1);
        refusedBy(ENROLLER, abi.encodeCall(IDeviceRegistry.enrol, (fleet, DEVICE, off, yes)), none);
        bytes memory short = abi.encodePacked(address(p256), x);
        refusedBy(ENROLLER, abi.encodeCall(IDeviceRegistry.enrol, (fleet, DEVICE, short, yes)), none);
    }

    /// @dev What docs/signed-readings.md has a device sign, to the byte, of one reading and of a batch.
    function test_a_reading_s_statement_signed_with_p256_is_verified_on_chain() public {
        bytes memory key = enrolP256(KEY);
        bytes32 domain = sha256(abi.encodePacked("avouch/fleet/chain", uint64(block.chainid), address(registry), fleet));
        bytes32 name = sha256("pump-1");
        bytes32 content = sha256(abi.encodePacked(hex"00", '{"device":"pump-1","ts":1700000000000,"x":1.5}'));
        bytes memory reading = abi.encodePacked("avouch/reading/1", domain, name, uint64(7), content);
        equal(reading.length, 120, "bytes of a reading's statement");
        bytes memory signature = signedP256(KEY, sha256(reading));
        check(registry.verify(fleet, DEVICE, 7, key, sha256(reading), signature), "a reading");
        reading[119] ^= 0x01;
        check(!registry.verify(fleet, DEVICE, 7, key, sha256(reading), signature), "another content");

        bytes32 leaf = sha256(abi.encodePacked(hex"00", uint64(8), content));
        bytes memory batch = abi.encodePacked("avouch/batches/1", domain, name, uint64(8), leaf, uint32(1));
        equal(batch.length, 124, "bytes of a batch's statement");
        signature = signedP256(KEY, sha256(batch));
        check(registry.verify(fleet, DEVICE, 8, key, sha256(batch), signature), "a batch");
        revoke(0, 8);
        check(!registry.verify(fleet, DEVICE, 8, key, sha256(batch), signature), "after it was taken back");
    }

    /// @dev RFC 6979, A.2.5, "sample" with SHA-256, its `s` turned to the lower one; and that one, as it stands there.
    function test_the_p256_verifier_knows_the_signature_of_rfc6979() public view {
        bytes32 r = 0xEFD48B2AACB6A8FD1140DD9CD45E81D69D2C877B56AAF991C34D0EA84EAF3716;
        uint256 s = 0xF7CB1C942D657C41D436C7A1B6E29F65F3E900DBB9AFF4064DC4AB2F843ACDA8;
        bytes memory key = abi.encodePacked(
            hex"60FED4BA255A9D31C961EB74C6356D68C049B8923B61FA6CE669622E60F29FB6",
            hex"7903FE1008B8BC99A41AE9E95628BC64F2F1B20C2D7E9F5177A3C294D4462299"
        );
        bytes memory low = abi.encodePacked(r, P256_N - s);
        check(p256.verify(key, sha256("sample"), low) == p256.verify.selector, "the lower");
        check(p256.verify(key, sha256("sample"), abi.encodePacked(r, s)) == 0xffffffff, "the higher");
        check(p256.verify(key, sha256("test"), low) == 0xffffffff, "another message");
        check(address(p256).codehash == keccak256(type(P256Verifier).runtimeCode), "no immutables");
    }

    uint256 private constant SECP256K1_N = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141;
    uint256 private constant P256_N = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551;

    function lowS(bytes32 s) private pure returns (bytes32) {
        return uint256(s) > P256_N / 2 ? bytes32(P256_N - uint256(s)) : s;
    }

    function test_an_ed25519_key_is_recorded_and_not_checked() public {
        bytes memory key = abi.encodePacked(registry.ED25519(), keccak256("an ed25519 key"));
        vm.prank(ENROLLER);
        registry.enrol(fleet, DEVICE, key, "checked by who needs to");
        vm.expectRevert(abi.encodeWithSelector(IDeviceRegistry.CheckedOffChain.selector));
        registry.verify(fleet, DEVICE, 0, key, MESSAGE, "");
        check(!registry.verify(fleet, DEVICE, 0, account(KEY), MESSAGE, ""), "another key is simply not its");
        bytes memory short = abi.encodePacked(registry.ED25519(), uint64(1));
        refusedBy(
            ENROLLER,
            abi.encodeCall(IDeviceRegistry.rotate, (fleet, DEVICE, 1, short, "")),
            abi.encodeWithSelector(IDeviceRegistry.BadKey.selector)
        );
    }

    function test_what_is_no_key_is_refused() public {
        bytes memory bad = abi.encodeWithSelector(IDeviceRegistry.BadKey.selector);
        refusedBy(ENROLLER, abi.encodeCall(IDeviceRegistry.enrol, (fleet, DEVICE, "", "")), bad);
        refusedBy(ENROLLER, abi.encodeCall(IDeviceRegistry.enrol, (fleet, DEVICE, new bytes(19), "")), bad);
        // A verifier without code: nobody, and the precompiles, of which the identity would say yes to everything.
        for (uint160 precompile = 0; precompile < 20; ++precompile) {
            bytes memory none = abi.encodePacked(address(precompile), keccak256("looks like a key"));
            refusedBy(ENROLLER, abi.encodeCall(IDeviceRegistry.enrol, (fleet, DEVICE, none, "no signature")), bad);
        }
        bytes memory nobody = abi.encodePacked(address(0x0999), keccak256("key"));
        refusedBy(ENROLLER, abi.encodeCall(IDeviceRegistry.enrol, (fleet, DEVICE, nobody, "")), bad);
        // As an account a precompile signs nothing.
        refusedBy(
            ENROLLER,
            abi.encodeCall(IDeviceRegistry.enrol, (fleet, DEVICE, abi.encodePacked(address(4)), new bytes(65))),
            abi.encodeWithSelector(IDeviceRegistry.NoConsent.selector, fleet, DEVICE)
        );
    }

    function test_only_the_enroller_enrols_and_only_the_owner_names_it() public {
        bytes memory yes = consent(KEY, 0);
        bytes memory call = abi.encodeCall(IDeviceRegistry.enrol, (fleet, DEVICE, account(KEY), yes));
        refusedBy(OWNER, call, abi.encodeWithSelector(IDeviceRegistry.NotAuthorized.selector, fleet, OWNER));
        enrol(KEY);
        refusedBy(ENROLLER, call, abi.encodeWithSelector(IDeviceRegistry.AlreadyEnrolled.selector, fleet, DEVICE));
        vm.prank(OWNER);
        registry.setEnroller("pumps", address(0x0444));
        refusedBy(
            ENROLLER,
            abi.encodeCall(IDeviceRegistry.revoke, (fleet, DEVICE, 0, 0, "")),
            abi.encodeWithSelector(IDeviceRegistry.NotAuthorized.selector, fleet, ENROLLER)
        );
        bytes32 strangers = registry.fleetIdOf(address(0x0777), "pumps");
        refusedBy(
            address(0x0777),
            abi.encodeCall(IDeviceRegistry.setEnroller, ("pumps", address(0x0777))),
            abi.encodeWithSelector(IDeviceRegistry.UnknownFleet.selector, strangers)
        );
        refusedBy(
            OWNER,
            abi.encodeCall(IDeviceRegistry.register, ("pumps", ENROLLER)),
            abi.encodeWithSelector(IDeviceRegistry.AlreadyRegistered.selector, fleet)
        );
        refusedBy(
            OWNER,
            abi.encodeCall(IDeviceRegistry.register, ("other", address(0))),
            abi.encodeWithSelector(IDeviceRegistry.ZeroAddress.selector)
        );
        (address owner, address enroller) = registry.fleetOf(fleet);
        check(owner == OWNER && enroller == address(0x0444), "roles");
    }

    function test_what_is_not_there_is_refused() public {
        bytes memory unknown = abi.encodeWithSelector(IDeviceRegistry.UnknownDevice.selector, fleet, bytes32("no"));
        refusedBy(ENROLLER, abi.encodeCall(IDeviceRegistry.revoke, (fleet, "no", 0, 0, "")), unknown);
        refusedBy(ENROLLER, abi.encodeCall(IDeviceRegistry.rotate, (fleet, "no", 1, account(KEY), "")), unknown);
        refusedBy(
            ENROLLER,
            abi.encodeCall(IDeviceRegistry.enrol, ("no", DEVICE, account(KEY), "")),
            abi.encodeWithSelector(IDeviceRegistry.UnknownFleet.selector, bytes32("no"))
        );
        check(!registry.verify("no", DEVICE, 0, account(KEY), MESSAGE, ""), "no fleet");
        enrol(KEY);
        bytes memory yes = consent(OTHER, FOR_EVER);
        refusedBy(
            ENROLLER,
            abi.encodeCall(IDeviceRegistry.rotate, (fleet, DEVICE, FOR_EVER, account(OTHER), yes)),
            abi.encodeWithSelector(IDeviceRegistry.BadSeq.selector, FOR_EVER, 1)
        );
        revokeRefused(0, FOR_EVER, abi.encodeWithSelector(IDeviceRegistry.NotSpokenFor.selector, FOR_EVER, 0, FOR_EVER));
        revokeRefused(1, 0, abi.encodeWithSelector(IDeviceRegistry.UnknownKey.selector, fleet, DEVICE, 1));
    }

    function test_it_says_what_it_is() public view {
        check(registry.supportsInterface(type(IDeviceRegistry).interfaceId), "its interface");
        check(registry.supportsInterface(type(IERC5267).interfaceId), "ERC-5267");
        check(registry.supportsInterface(type(IERC165).interfaceId), "ERC-165");
        check(!registry.supportsInterface(0xffffffff), "and no other");
        (bytes1 fields, string memory name, string memory version, uint256 chain, address at_,,) =
            registry.eip712Domain();
        check(fields == hex"0f" && chain == block.chainid && at_ == address(registry), "domain");
        equal(keccak256(bytes(name)), keccak256("Avouch devices"), "name");
        equal(keccak256(bytes(version)), keccak256("1"), "version");
    }

    /// @dev Any rotations and revocations, beside a list of who may speak for each of the first 64 messages.
    function testFuzz_whoever_may_speak_is_who_the_registry_says(uint256 seed) public {
        // Of each key where it begins and ends; nothing else is known here of how the registry finds one.
        uint64[12] memory from;
        uint64[12] memory until;
        uint256 keys = 1;
        enrol(1);
        until[0] = FOR_EVER;
        for (uint256 step = 0; step < 20 && keys < 12; ++step) {
            seed = uint256(keccak256(abi.encode(seed)));
            uint256 number = (seed >> 8) % keys;
            uint64 end = until[number] < 64 ? until[number] : 64;
            if (seed % 2 == 0 && from[number] < end) {
                uint64 cut = uint64(between(seed >> 16, from[number], end - 1));
                revoke(number, cut);
                until[number] = cut;
            } else {
                uint64 least = 0;
                for (uint256 k = 0; k < keys; ++k) {
                    if (from[k] == until[k]) continue;
                    uint64 after_ = until[k] == FOR_EVER ? from[k] + 1 : until[k];
                    if (after_ > least) least = after_;
                }
                if (least > 63) break;
                uint64 cut = uint64(between(seed >> 16, least, 63));
                for (uint256 k = 0; k < keys; ++k) {
                    if (until[k] == FOR_EVER) until[k] = cut;
                }
                rotate(keys + 1, cut);
                (from[keys], until[keys]) = (cut, FOR_EVER);
                ++keys;
            }
        }
        equal(registry.keysOf(fleet, DEVICE), keys, "keys");
        for (uint64 m = 0; m < 64; ++m) {
            bytes32 expected;
            for (uint256 k = 0; k < keys; ++k) {
                if (from[k] <= m && m < until[k]) {
                    check(expected == bytes32(0), "two speak for one message");
                    expected = keccak256(account(k + 1));
                }
            }
            equal(registry.keyAt(fleet, DEVICE, m).keyHash, expected, "key");
        }
    }
}

/// @notice A contract that is given as a key and misbehaves when it is asked for a signature.
contract HostileWallet {
    IDeviceRegistry private immutable _registry;
    bytes32 private immutable _fleet;
    uint256 private immutable _mode;

    constructor(IDeviceRegistry registry, bytes32 fleet, uint256 mode) {
        (_registry, _fleet, _mode) = (registry, fleet, mode);
    }

    function isValidSignature(bytes32, bytes calldata) external returns (bytes4) {
        if (_mode == 0) revert("no");
        // It is asked by a call that may change nothing, so this fails.
        if (_mode == 1) _registry.register("mine", address(this));
        while (_mode == 2) {}
        return 0xffffffff;
    }
}
