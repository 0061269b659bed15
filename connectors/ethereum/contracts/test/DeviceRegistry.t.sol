// SPDX-License-Identifier: Apache-2.0 OR MIT
pragma solidity 0.8.37;

import {DeviceRegistry} from "../src/DeviceRegistry.sol";
import {DeviceKey, Enrolment, IDeviceRegistry} from "../src/IDeviceRegistry.sol";
import {Testing} from "./Testing.sol";
import {IERC5267} from "@openzeppelin/contracts/interfaces/IERC5267.sol";
import {ERC7913P256Verifier} from "@openzeppelin/contracts/utils/cryptography/verifiers/ERC7913P256Verifier.sol";
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
    ERC7913P256Verifier private p256 = new ERC7913P256Verifier();
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

    function revoke(uint64 fromSeq) private {
        vm.prank(ENROLLER);
        registry.revoke(fleet, DEVICE, fromSeq, "stolen");
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
        revoke(50);
        check(speaks(KEY, 49) && !speaks(KEY, 50), "revoked from 50");
        equal(registry.keyAt(fleet, DEVICE, 60).keyHash, 0, "none");
        refusedBy(
            ENROLLER,
            abi.encodeCall(IDeviceRegistry.revoke, (fleet, DEVICE, 60, "again")),
            abi.encodeWithSelector(IDeviceRegistry.Revoked.selector, fleet, DEVICE, 50)
        );
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
        revoke(10);
        check(!speaks(OTHER, 10) && speaks(KEY, 9), "the key before it is not touched");
        rotate(KEY, 10);
        check(speaks(KEY, 10), "and can be given again");
        refusedBy(
            ENROLLER,
            abi.encodeCall(IDeviceRegistry.revoke, (fleet, DEVICE, 9, "")),
            abi.encodeWithSelector(IDeviceRegistry.BadSeq.selector, 9, 10)
        );
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

    function test_a_p256_key_speaks_by_its_verifier() public {
        (uint256 x, uint256 y) = vm.publicKeyP256(KEY);
        bytes memory key = abi.encodePacked(address(p256), x, y);
        (bytes32 r, bytes32 s) = vm.signP256(KEY, registry.digestOf(Enrolment(fleet, DEVICE, 0, key)));
        vm.prank(ENROLLER);
        registry.enrol(fleet, DEVICE, key, abi.encodePacked(r, lowS(s)));
        (r, s) = vm.signP256(KEY, MESSAGE);
        bytes memory signature = abi.encodePacked(r, lowS(s));
        check(registry.verify(fleet, DEVICE, 0, key, MESSAGE, signature), "its own");
        check(!registry.verify(fleet, DEVICE, 0, key, keccak256("other"), signature), "of another message");
        // The signature's mirror image is refused: one message has one signature.
        bytes memory mirror = abi.encodePacked(r, bytes32(P256_N - uint256(lowS(s))));
        check(!registry.verify(fleet, DEVICE, 0, key, MESSAGE, mirror), "malleable");
    }

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
        // A verifier without code says yes to nothing.
        bytes memory nobody = abi.encodePacked(address(0x0999), keccak256("key"));
        refusedBy(
            ENROLLER,
            abi.encodeCall(IDeviceRegistry.enrol, (fleet, DEVICE, nobody, "")),
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
            abi.encodeCall(IDeviceRegistry.revoke, (fleet, DEVICE, 0, "")),
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
        refusedBy(ENROLLER, abi.encodeCall(IDeviceRegistry.revoke, (fleet, "no", 0, "")), unknown);
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
        refusedBy(
            ENROLLER,
            abi.encodeCall(IDeviceRegistry.revoke, (fleet, DEVICE, FOR_EVER, "")),
            abi.encodeWithSelector(IDeviceRegistry.BadSeq.selector, FOR_EVER, 0)
        );
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
        uint256[64] memory ghost;
        enrol(1);
        for (uint256 m = 0; m < 64; ++m) {
            ghost[m] = 1;
        }
        uint64 from = 0;
        bool revoked = false;
        for (uint256 key = 2; key < 10 && from < 60; ++key) {
            seed = uint256(keccak256(abi.encode(seed)));
            if (seed % 3 == 0 && !revoked) {
                from = uint64(between(seed >> 8, from, 63));
                revoke(from);
                revoked = true;
                for (uint256 m = from; m < 64; ++m) {
                    ghost[m] = 0;
                }
            } else {
                from = uint64(between(seed >> 8, revoked ? from : from + 1, 63));
                rotate(key, from);
                revoked = false;
                for (uint256 m = from; m < 64; ++m) {
                    ghost[m] = key;
                }
            }
        }
        for (uint64 m = 0; m < 64; ++m) {
            bytes32 expected = ghost[m] == 0 ? bytes32(0) : keccak256(account(ghost[m]));
            equal(registry.keyAt(fleet, DEVICE, m).keyHash, expected, "key");
        }
    }
}
