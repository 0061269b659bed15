// SPDX-License-Identifier: Apache-2.0 OR MIT
pragma solidity 0.8.37;

import {IModelRegistry, Model} from "../src/IModelRegistry.sol";
import {ModelRegistry} from "../src/ModelRegistry.sol";
import {Testing} from "./Testing.sol";
import {IERC165} from "@openzeppelin/contracts/utils/introspection/IERC165.sol";

contract ModelRegistryTest is Testing {
    bytes32 private constant MODEL = keccak256("a model");
    bytes32 private constant DATA = keccak256("rows");
    uint64 private constant FOR_EVER = type(uint64).max;
    address private constant OWNER = address(0x0111);
    address private constant PUBLISHER = address(0x0222);
    address private constant APPROVER = address(0x0333);

    ModelRegistry private registry = new ModelRegistry();
    bytes32 private id;

    function setUp() public {
        vm.warp(1_000_000);
        vm.prank(OWNER);
        id = registry.register("pumps", PUBLISHER, APPROVER);
    }

    function propose() private {
        vm.prank(PUBLISHER);
        registry.propose(id, MODEL, DATA, "ipfs://model");
    }

    function activate(uint64 from, uint64 until) private {
        vm.prank(APPROVER);
        registry.activate(id, MODEL, from, until);
    }

    function refusedBy(address who, bytes memory call, bytes memory reason) private {
        vm.expectRevert(reason);
        vm.prank(who);
        (bool done,) = address(registry).call(call);
        done;
    }

    function test_a_model_decides_in_its_window_only() public {
        propose();
        check(!registry.isActive(id, MODEL, 1_000_000), "proposed is not active");
        activate(1_000_100, 1_000_200);
        check(!registry.isActive(id, MODEL, 1_000_099), "before");
        check(registry.isActive(id, MODEL, 1_000_100), "from its first second");
        check(registry.isActive(id, MODEL, 1_000_199), "to its last");
        check(!registry.isActive(id, MODEL, 1_000_200), "after");
        check(!registry.isActive(id, keccak256("another"), 1_000_150), "another model");
        check(!registry.isActive("other", MODEL, 1_000_150), "another registry");
    }

    function test_a_window_is_never_backdated() public {
        propose();
        refusedBy(
            APPROVER,
            abi.encodeCall(IModelRegistry.activate, (id, MODEL, 999_999, FOR_EVER)),
            abi.encodeWithSelector(IModelRegistry.BadWindow.selector, 999_999, FOR_EVER, 1_000_000)
        );
        activate(0, FOR_EVER);
        Model memory model = registry.modelOf(id, MODEL);
        equal(model.activeFrom, 1_000_000, "0 is now");
        equal(model.proposedAt, 1_000_000, "when it was proposed");
        equal(model.dataHash, DATA, "data");
        check(!registry.isActive(id, MODEL, 999_999), "not before it was decided");
    }

    function test_a_window_ends_after_it_begins() public {
        propose();
        refusedBy(
            APPROVER,
            abi.encodeCall(IModelRegistry.activate, (id, MODEL, 1_000_005, 1_000_005)),
            abi.encodeWithSelector(IModelRegistry.BadWindow.selector, 1_000_005, 1_000_005, 1_000_000)
        );
    }

    function test_a_revocation_takes_effect_when_it_is_made_and_for_good() public {
        propose();
        activate(0, FOR_EVER);
        vm.warp(1_000_500);
        vm.prank(PUBLISHER);
        registry.revoke(id, MODEL, "it drifts");
        check(registry.isActive(id, MODEL, 1_000_499), "what it decided before stands");
        check(!registry.isActive(id, MODEL, 1_000_500), "and nothing after");
        bytes memory revoked = abi.encodeWithSelector(IModelRegistry.Revoked.selector, id, MODEL);
        refusedBy(APPROVER, abi.encodeCall(IModelRegistry.activate, (id, MODEL, 0, FOR_EVER)), revoked);
        refusedBy(OWNER, abi.encodeCall(IModelRegistry.revoke, (id, MODEL, "again")), revoked);
    }

    function test_a_model_that_was_revoked_before_it_was_active_never_is() public {
        propose();
        vm.prank(OWNER);
        registry.revoke(id, MODEL, "no");
        refusedBy(
            APPROVER,
            abi.encodeCall(IModelRegistry.activate, (id, MODEL, 0, FOR_EVER)),
            abi.encodeWithSelector(IModelRegistry.Revoked.selector, id, MODEL)
        );
    }

    function test_it_takes_two_people() public {
        bytes memory call = abi.encodeCall(IModelRegistry.propose, (id, MODEL, DATA, ""));
        refusedBy(APPROVER, call, abi.encodeWithSelector(IModelRegistry.NotAuthorized.selector, id, APPROVER));
        refusedBy(OWNER, call, abi.encodeWithSelector(IModelRegistry.NotAuthorized.selector, id, OWNER));
        propose();
        call = abi.encodeCall(IModelRegistry.activate, (id, MODEL, 0, FOR_EVER));
        refusedBy(PUBLISHER, call, abi.encodeWithSelector(IModelRegistry.NotAuthorized.selector, id, PUBLISHER));
        // Not even if the roles are given anew meanwhile.
        vm.prank(OWNER);
        registry.setRoles("pumps", APPROVER, PUBLISHER);
        refusedBy(PUBLISHER, call, abi.encodeWithSelector(IModelRegistry.SamePerson.selector, id, MODEL, PUBLISHER));
        refusedBy(
            OWNER,
            abi.encodeCall(IModelRegistry.setRoles, ("pumps", PUBLISHER, PUBLISHER)),
            abi.encodeWithSelector(IModelRegistry.BadRoles.selector, PUBLISHER, PUBLISHER)
        );
        refusedBy(
            OWNER,
            abi.encodeCall(IModelRegistry.register, ("b", address(0), APPROVER)),
            abi.encodeWithSelector(IModelRegistry.BadRoles.selector, address(0), APPROVER)
        );
    }

    function test_everything_is_done_once() public {
        propose();
        refusedBy(
            PUBLISHER,
            abi.encodeCall(IModelRegistry.propose, (id, MODEL, DATA, "")),
            abi.encodeWithSelector(IModelRegistry.AlreadyProposed.selector, id, MODEL)
        );
        activate(0, 2_000_000);
        refusedBy(
            APPROVER,
            abi.encodeCall(IModelRegistry.activate, (id, MODEL, 0, FOR_EVER)),
            abi.encodeWithSelector(IModelRegistry.AlreadyActivated.selector, id, MODEL)
        );
        refusedBy(
            OWNER,
            abi.encodeCall(IModelRegistry.register, ("pumps", PUBLISHER, APPROVER)),
            abi.encodeWithSelector(IModelRegistry.AlreadyRegistered.selector, id)
        );
    }

    function test_what_is_not_there_is_refused() public {
        bytes memory unknown = abi.encodeWithSelector(IModelRegistry.UnknownRegistry.selector, bytes32("no"));
        refusedBy(PUBLISHER, abi.encodeCall(IModelRegistry.propose, ("no", MODEL, DATA, "")), unknown);
        refusedBy(APPROVER, abi.encodeCall(IModelRegistry.activate, ("no", MODEL, 0, FOR_EVER)), unknown);
        refusedBy(OWNER, abi.encodeCall(IModelRegistry.revoke, ("no", MODEL, "")), unknown);
        bytes32 strangers = registry.registryIdOf(address(0x0777), "pumps");
        refusedBy(
            address(0x0777),
            abi.encodeCall(IModelRegistry.setRoles, ("pumps", PUBLISHER, APPROVER)),
            abi.encodeWithSelector(IModelRegistry.UnknownRegistry.selector, strangers)
        );
        bytes memory never = abi.encodeWithSelector(IModelRegistry.NotProposed.selector, id, MODEL);
        refusedBy(APPROVER, abi.encodeCall(IModelRegistry.activate, (id, MODEL, 0, FOR_EVER)), never);
        refusedBy(OWNER, abi.encodeCall(IModelRegistry.revoke, (id, MODEL, "")), never);
        refusedBy(
            address(0x0777),
            abi.encodeCall(IModelRegistry.revoke, (id, MODEL, "")),
            abi.encodeWithSelector(IModelRegistry.NotAuthorized.selector, id, address(0x0777))
        );
    }

    function test_it_says_what_it_is_and_who_has_which_role() public view {
        check(registry.supportsInterface(type(IModelRegistry).interfaceId), "its interface");
        check(registry.supportsInterface(type(IERC165).interfaceId), "ERC-165");
        check(!registry.supportsInterface(0xffffffff), "and no other");
        (address owner, address publisher, address approver) = registry.rolesOf(id);
        check(owner == OWNER && publisher == PUBLISHER && approver == APPROVER, "roles");
    }

    function testFuzz_active_is_within_the_window_and_before_the_revocation(
        uint64 from,
        uint64 length,
        uint64 revokedAt,
        uint64 when
    ) public {
        from = uint64(between(from, 1_000_000, 2_000_000));
        uint64 until = from + uint64(between(length, 1, 1_000_000));
        revokedAt = uint64(between(revokedAt, 1_000_000, 4_000_000));
        propose();
        activate(from, until);
        vm.warp(revokedAt);
        vm.prank(OWNER);
        registry.revoke(id, MODEL, "");
        bool expected = when >= from && when < until && when < revokedAt;
        check(registry.isActive(id, MODEL, when) == expected, "active");
    }
}
