// SPDX-License-Identifier: Apache-2.0 OR MIT
pragma solidity 0.8.37;

import {ICases} from "../src/ICases.sol";
import {IModelRegistry} from "../src/IModelRegistry.sol";
import {IVerdictConsumer} from "../src/IVerdictConsumer.sol";
import {Anchored, Checkpoint, IVerdictLog} from "../src/IVerdictLog.sol";
import {Proof, Severity, Verdict} from "../src/Verdict.sol";
import {ColdChainShipment, ShipmentTerms} from "../src/consumers/ColdChainShipment.sol";
import {MachineRental, Offer} from "../src/consumers/MachineRental.sol";
import {MaintenanceOrder, MaintenanceTerms} from "../src/consumers/MaintenanceOrder.sol";
import {Purse} from "../src/consumers/Purse.sol";
import {Subject} from "../src/consumers/VerdictConsumer.sol";
import {ConsumerFixture} from "./ConsumerFixture.sol";
import {Coin} from "./VerdictsFixture.sol";
import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {ReentrancyGuardTransient} from "@openzeppelin/contracts/utils/ReentrancyGuardTransient.sol";

/// @notice A token that calls a contract back whenever it is moved, and keeps what came of it.
contract Reentrant is Coin {
    address private _target;
    bytes private _call;
    bytes[] public answers;
    uint256 public done;

    function set(address target, bytes calldata call) external {
        (_target, _call) = (target, call);
    }

    function count() external view returns (uint256) {
        return answers.length;
    }

    function _update(address from, address to, uint256 value) internal override {
        super._update(from, to, value);
        if (_target == address(0) || from == address(0)) return;
        (bool made, bytes memory answer) = _target.call(_call);
        if (made) ++done;
        answers.push(answer);
    }
}

/// @notice A token that does not pay one account.
contract Freezing is Coin {
    address public frozen;

    function freeze(address account) external {
        frozen = account;
    }

    function _update(address from, address to, uint256 value) internal override {
        require(to != frozen, "frozen");
        super._update(from, to, value);
    }
}

/// @notice Moves nothing and says that it did; or says that it did not.
contract Liar {
    bool private immutable _answer;

    constructor(bool answer) {
        _answer = answer;
    }

    function transferFrom(address, address, uint256) external view returns (bool) {
        return _answer;
    }

    function transfer(address, uint256) external view returns (bool) {
        return _answer;
    }

    function balanceOf(address) external pure returns (uint256) {
        return 0;
    }
}

/// @notice In the place of a witness, a registry of models, a desk or a machine's wallet: answers every question by burning gas, failing,
/// failing with a flood of bytes, answering nothing, or changing something.
contract Burner {
    uint256 private immutable _mode;
    uint256 private _changed;

    constructor(uint256 mode) {
        _mode = mode;
    }

    fallback() external {
        if (_mode == 0) {
            while (true) {}
        }
        if (_mode == 1) revert("no");
        if (_mode == 2) {
            assembly {
                revert(0, 1000000)
            }
        }
        if (_mode == 4) ++_changed;
    }
}

/// @notice A consumer that does all it can against the log whose verdict it is given.
contract Saboteur is IVerdictConsumer {
    IVerdictLog private immutable _log;
    bytes32 private immutable _logId;
    bool private immutable _burns;
    uint256 public made;

    constructor(IVerdictLog log, bytes32 logId, bool burns) {
        (_log, _logId, _burns) = (log, logId, burns);
    }

    function consume(uint256, Verdict calldata, Proof calldata) external {
        Anchored memory head = _log.head(_logId);
        Checkpoint memory c =
            Checkpoint(_logId, head.size, head.size + 1, head.root, keccak256("mine"), bytes32(0), head.issuedAt + 1);
        attempt(abi.encodeCall(IVerdictLog.advance, (c, new bytes32[](3), new bytes(65))));
        attempt(abi.encodeCall(IVerdictLog.setSigner, (_logId, address(this))));
        attempt(abi.encodeCall(IVerdictLog.setSuccessor, (_logId, address(this))));
        while (_burns) {}
    }

    function attempt(bytes memory call) private {
        (bool done,) = address(_log).call(call);
        if (done) ++made;
    }

    function consumed(uint256, uint64) external pure returns (bool) {
        return false;
    }

    function supportsInterface(bytes4) external pure returns (bool) {
        return true;
    }
}

contract HostileTest is ConsumerFixture {
    MaintenanceOrder private orders;
    ColdChainShipment private shipments;
    MachineRental private rentals;

    function setUp() public override {
        super.setUp();
        (orders, shipments, rentals) = (new MaintenanceOrder(), new ColdChainShipment(), new MachineRental());
    }

    function order(IERC20 token, Subject memory s) private returns (uint256 id) {
        MaintenanceTerms memory t = maintenanceTerms();
        (t.token, t.subject) = (token, s);
        vm.prank(A);
        id = orders.agree(t);
        vm.prank(B);
        orders.accept(id);
    }

    function shipmentIn(IERC20 token) private view returns (ShipmentTerms memory t) {
        t = shipmentTerms();
        t.token = token;
        t.milestones = new uint128[](1);
        t.milestones[0] = PAY;
    }

    function offer(IERC20 token, address machine, uint256 nonce) private view returns (Offer memory o) {
        o = rentalOffer(nonce);
        (o.token, o.machine) = (token, machine);
    }

    function signed(Offer memory o) private view returns (bytes memory) {
        return signedBy(MACHINE_KEY, rentals, o);
    }

    function mintFor(Coin coin, address who, address to, uint256 amount) private {
        coin.mint(who, amount);
        vm.prank(who);
        coin.approve(to, type(uint256).max);
    }

    // ── tokens ──────────────────────────────────────────────────────────────

    function test_a_token_that_calls_back_gets_nowhere_whatever_it_calls() public {
        uint64 index = log(verdictNow(Severity.CRITICAL));
        Proof memory proof = proofOf(index);
        bytes[4] memory calls = [
            abi.encodeCall(IVerdictConsumer.consume, (0, said[index], proof)),
            abi.encodeCall(Purse.withdraw, (IERC20(address(0)))),
            abi.encodeCall(MaintenanceOrder.fund, (0, 1)),
            abi.encodeCall(MaintenanceOrder.release, (0, 1))
        ];
        bytes32 guard =
            keccak256(abi.encodeWithSelector(ReentrancyGuardTransient.ReentrancyGuardReentrantCall.selector));
        for (uint256 i = 0; i < calls.length; ++i) {
            Reentrant coin = new Reentrant();
            mintFor(coin, A, address(orders), 5000);
            uint256 id = order(coin, subject());
            coin.set(address(orders), calls[i]);
            vm.prank(A);
            orders.fund(id, 5000);
            vm.prank(A);
            orders.release(id, 5000);
            vm.prank(A);
            orders.withdraw(coin);
            equal(coin.count(), 2, "called back at putting in and at paying out");
            equal(coin.done(), 0, "and refused");
            equal(keccak256(coin.answers(0)), guard, "by the guard");
            equal(keccak256(coin.answers(1)), guard, "both times");
        }
    }

    function test_a_token_that_calls_back_at_an_agreement_or_a_rental_gets_nowhere() public {
        bytes32 guard =
            keccak256(abi.encodeWithSelector(ReentrancyGuardTransient.ReentrancyGuardReentrantCall.selector));
        Reentrant coin = new Reentrant();
        mintFor(coin, A, address(shipments), 5000);
        ShipmentTerms memory t = shipmentIn(coin);
        coin.set(address(shipments), abi.encodeCall(ColdChainShipment.agree, (t)));
        vm.prank(A);
        shipments.agree(t);
        equal(keccak256(coin.answers(0)), guard, "agree");
        coin.set(address(shipments), abi.encodeCall(ColdChainShipment.retract, (0, 0)));
        vm.prank(A);
        shipments.agree(t);
        equal(keccak256(coin.answers(1)), guard, "retract");
        coin = new Reentrant();
        mintFor(coin, A, address(rentals), 5000);
        Offer memory o = offer(coin, vm.addr(MACHINE_KEY), 1);
        bytes memory by = signed(o);
        coin.set(address(rentals), abi.encodeCall(MachineRental.rent, (o, by)));
        vm.prank(A);
        rentals.rent(o, by);
        equal(keccak256(coin.answers(0)), guard, "rent");
    }

    function test_a_token_that_freezes_one_account_leaves_the_other_paid() public {
        Freezing coin = new Freezing();
        mintFor(coin, A, address(rentals), 1000);
        Offer memory o = offer(coin, vm.addr(MACHINE_KEY), 1);
        bytes memory by = signed(o);
        vm.prank(A);
        uint256 id = rentals.rent(o, by);
        pass(60);
        Verdict memory v = verdictNow(Severity.NORMAL);
        (v.class_, v.scoreE6) = (USAGE, 40e6);
        uint64 index = log(v);
        rentals.consume(id, v, proofOf(index));
        coin.freeze(A);
        pass(3 days);
        rentals.settle(id);
        vm.prank(o.machine);
        rentals.withdraw(coin);
        equal(coin.balanceOf(o.machine), 400, "the machine is paid");
        vm.prank(A);
        vm.expectRevert("frozen");
        rentals.withdraw(coin);
        equal(rentals.balanceOf(A, coin), 600, "and the renter's waits");
    }

    function test_a_token_that_lies_about_what_it_moved_is_refused() public {
        for (uint256 i = 0; i < 2; ++i) {
            Liar liar = new Liar(i == 0);
            ShipmentTerms memory t = shipmentIn(IERC20(address(liar)));
            vm.prank(A);
            refused(address(shipments), abi.encodeCall(ColdChainShipment.agree, (t)));
            uint256 id = order(IERC20(address(liar)), subject());
            vm.prank(A);
            refused(address(orders), abi.encodeCall(MaintenanceOrder.fund, (id, 1)));
            equal(orders.agreementOf(id).free, 0, "nothing is counted");
        }
        // An account without code is no token.
        ShipmentTerms memory none = shipmentIn(IERC20(address(0x0999)));
        vm.prank(A);
        refused(address(shipments), abi.encodeCall(ColdChainShipment.agree, (none)));
    }

    function test_one_bad_token_touches_no_other_tokens_money() public {
        Coin good = new Coin();
        Reentrant bad = new Reentrant();
        mintFor(good, A, address(orders), 1000);
        mintFor(bad, B, address(orders), 1000);
        uint256 one = order(good, subject());
        vm.prank(A);
        orders.fund(one, 1000);
        uint256 two = order(bad, subject());
        bad.set(address(orders), abi.encodeCall(Purse.withdraw, (good)));
        vm.prank(B);
        orders.fund(two, 1000);
        equal(bad.done(), 0, "refused");
        equal(good.balanceOf(address(orders)), 1000, "untouched");
        equal(orders.agreementOf(one).free, 1000, "and counted");
    }

    // ── witnesses, registries, desks ────────────────────────────────────────

    function test_what_an_agreement_names_can_fail_only_that_agreement_and_only_so_dearly() public {
        Coin coin = new Coin();
        mintFor(coin, A, address(orders), 500);
        uint256 good = order(coin, subject());
        vm.prank(A);
        orders.fund(good, 500);
        pass(60);
        uint64 index = log(verdictNow(Severity.CRITICAL));
        Proof memory proof = proofOf(index);
        for (uint256 mode = 0; mode < 5; ++mode) {
            address burner = address(new Burner(mode));
            for (uint256 place = 0; place < 3; ++place) {
                Subject memory s = subject();
                if (place == 0) s.log = IVerdictLog(burner);
                else if (place == 1) s.models = IModelRegistry(burner);
                else s.cases = ICases(burner);
                uint256 id = order(coin, s);
                bytes memory call = abi.encodeCall(IVerdictConsumer.consume, (id, said[index], proof));
                uint256 before = gasleft();
                refused(address(orders), call);
                check(before - gasleft() < 600_000, "bounded");
                check(!orders.consumed(id, said[index].seq), "nothing is taken");
            }
        }
        orders.consume(good, said[index], proof);
        equal(orders.agreementOf(good).orders, 1, "others go on");
    }

    // ── wallets ─────────────────────────────────────────────────────────────

    function test_a_machines_wallet_that_fails_burns_or_changes_something_signs_nothing() public {
        Coin coin = new Coin();
        mintFor(coin, A, address(rentals), 1000);
        for (uint256 mode = 0; mode < 5; ++mode) {
            address machine = address(new Burner(mode));
            Offer memory o = offer(coin, machine, mode);
            bytes memory call = abi.encodeCall(MachineRental.rent, (o, bytes("")));
            vm.prank(A);
            (bool done,) = address(rentals).call{gas: 5_000_000}(call);
            check(!done, "refused");
        }
        equal(coin.balanceOf(A), 1000, "nothing is paid");
    }

    // ── the log goes on ─────────────────────────────────────────────────────

    function test_a_consumer_cannot_hinder_the_log() public {
        uint64 index = log(verdictNow(Severity.CRITICAL));
        Saboteur saboteur = new Saboteur(verdictLog, logId, false);
        bytes memory call = abi.encodeCall(IVerdictConsumer.consume, (0, said[index], proofOf(index)));
        bytes32 root = verdictLog.head(logId).root;
        saboteur.consume(0, said[index], proofOf(index));
        equal(saboteur.made(), 0, "nothing of what it tried was done");
        saboteur = new Saboteur(verdictLog, logId, true);
        (bool done,) = address(saboteur).call{gas: 3_000_000}(call);
        check(!done, "it burns what it is given, and no more");
        equal(verdictLog.head(logId).root, root, "the log is as it was");
        equal(verdictLog.signerOf(logId), signer, "and its signer");
        log(verdictNow(Severity.NORMAL));
        equal(verdictLog.head(logId).size, index + 2, "it goes on");
    }
}
