// SPDX-License-Identifier: Apache-2.0 OR MIT
pragma solidity 0.8.37;

import {IVerdictConsumer} from "../src/IVerdictConsumer.sol";
import {IVerdictLog} from "../src/IVerdictLog.sol";
import {ModelRegistry} from "../src/ModelRegistry.sol";
import {Class, Proof, Severity, Verdict, Verdicts} from "../src/Verdict.sol";
import {MaintenanceOrder, MaintenanceTerms, OrderState} from "../src/consumers/MaintenanceOrder.sol";
import {Purse} from "../src/consumers/Purse.sol";
import {ConsumerFixture} from "./ConsumerFixture.sol";
import {Coin, Tithe} from "./VerdictsFixture.sol";
import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {ReentrancyGuardTransient} from "@openzeppelin/contracts/utils/ReentrancyGuardTransient.sol";
import {IERC165} from "@openzeppelin/contracts/utils/introspection/IERC165.sol";

/// @notice A witness that burns all the gas it gets, or says yes to everything.
contract FalseWitness {
    bool private immutable _burns;

    constructor(bool burns) {
        _burns = burns;
    }

    function verifyInclusion(bytes32, bytes32, uint64, uint64, bytes32[] calldata) external view returns (bool) {
        while (_burns) {}
        return true;
    }
}

/// @notice A token that calls back while it pays.
contract Hook is Coin {
    MaintenanceOrder public orders;
    bytes public reason;

    function set(MaintenanceOrder orders_) external {
        orders = orders_;
    }

    function _update(address from, address to, uint256 value) internal override {
        super._update(from, to, value);
        if (from != address(0) && from == address(orders)) {
            try orders.withdraw(IERC20(address(this))) {}
            catch (bytes memory why) {
                reason = why;
            }
        }
    }
}

contract MaintenanceOrderTest is ConsumerFixture {
    address private constant PLANT = A;
    address private constant CONTRACTOR = B;

    MaintenanceOrder private orders;
    uint256 private id;

    function setUp() public override {
        super.setUp();
        orders = new MaintenanceOrder();
        id = agreed(maintenanceTerms());
    }

    function agreed(MaintenanceTerms memory t) private returns (uint256 agreement) {
        vm.prank(PLANT);
        agreement = orders.agree(t);
        vm.prank(CONTRACTOR);
        orders.accept(agreement);
    }

    function fund(uint128 amount) private {
        pay(PLANT, address(orders), amount);
        vm.prank(PLANT);
        orders.fund(id, amount);
    }

    function opened() private returns (uint64 index) {
        fund(PRICE);
        index = critical();
        bring(orders, id, index);
    }

    function reported() private {
        opened();
        vm.prank(CONTRACTOR);
        orders.report(id, "a new bearing");
    }

    function state() private view returns (OrderState) {
        return orders.agreementOf(id).order.state;
    }

    function refusedBy(address who, bytes memory call, bytes memory reason) private {
        refusedBy(address(orders), who, call, reason);
    }

    function wrong(OrderState at_) private view returns (bytes memory) {
        return abi.encodeWithSelector(MaintenanceOrder.WrongState.selector, id, at_);
    }

    function late(uint256 when) private view returns (bytes memory) {
        return abi.encodeWithSelector(MaintenanceOrder.WrongTime.selector, id, when);
    }

    function notBy(address who) private view returns (bytes memory) {
        return abi.encodeWithSelector(IVerdictConsumer.NotAuthorized.selector, id, who);
    }

    function test_a_proven_critical_verdict_opens_an_order_that_is_paid_after_the_window() public {
        uint64 index = opened();
        check(state() == OrderState.Open && orders.consumed(id, index), "open");
        equal(orders.agreementOf(id).free, 0, "set aside");
        vm.prank(CONTRACTOR);
        orders.report(id, "a new bearing");
        refusedBy(STRANGER, abi.encodeCall(MaintenanceOrder.settle, (id)), late(present() + 1 days));
        pass(1 days);
        vm.prank(STRANGER);
        orders.settle(id);
        equal(orders.balanceOf(CONTRACTOR, coin), PRICE, "earned");
        vm.prank(CONTRACTOR);
        orders.withdraw(coin);
        equal(coin.balanceOf(CONTRACTOR), PRICE, "paid");
        equal(coin.balanceOf(address(orders)), 0, "nothing is left");
    }

    function test_a_verdict_is_taken_once() public {
        uint64 index = opened();
        Verdict memory v = said[index];
        Proof memory proof = proofOf(index);
        refusedBy(
            STRANGER,
            abi.encodeCall(IVerdictConsumer.consume, (id, v, proof)),
            abi.encodeWithSelector(IVerdictConsumer.AlreadyConsumed.selector, id, index)
        );
        // Also once its order is done, and at another place of the log.
        uint64 again = log(v);
        pass(3 days);
        vm.prank(PLANT);
        orders.cancel(id);
        refusedBy(
            STRANGER,
            abi.encodeCall(IVerdictConsumer.consume, (id, v, proof)),
            abi.encodeWithSelector(IVerdictConsumer.AlreadyConsumed.selector, id, index)
        );
        proof = proofOf(again);
        refusedBy(
            STRANGER,
            abi.encodeCall(IVerdictConsumer.consume, (id, v, proof)),
            abi.encodeWithSelector(IVerdictConsumer.AlreadyConsumed.selector, id, v.seq)
        );
        check(!orders.consumed(id, v.seq + 1) && !orders.consumed(id, v.seq + 256), "and no other with it");
    }

    function test_a_machine_has_one_order_at_a_time_and_one_fault_is_paid_once() public {
        opened();
        fund(2 * PRICE);
        uint64 second = critical();
        Proof memory proof = proofOf(second);
        bytes memory call = abi.encodeCall(IVerdictConsumer.consume, (id, said[second], proof));
        refusedBy(STRANGER, call, abi.encodeWithSelector(MaintenanceOrder.OrderUnderWay.selector, id));
        pass(30);
        vm.prank(CONTRACTOR);
        orders.report(id, "");
        pass(1 days);
        orders.settle(id);
        // What was said of windows that began before the mending is about the fault that is mended.
        refusedBy(STRANGER, call, isNotAgreed(id, second));
        Verdict memory v = verdictNow(Severity.CRITICAL);
        v.windowStart = (present() - 1 days) * 1000 - 1;
        uint64 across = log(v);
        proof = proofOf(across);
        refusedBy(STRANGER, abi.encodeCall(IVerdictConsumer.consume, (id, v, proof)), isNotAgreed(id, across));
        v = verdictNow(Severity.CRITICAL);
        v.windowStart = (present() - 1 days) * 1000;
        uint64 third = log(v);
        orders.consume(id, v, proofOf(third));
        equal(orders.agreementOf(id).orders, 2, "orders");
    }

    function test_a_cancelled_order_leaves_the_fault() public {
        opened();
        fund(PRICE);
        uint64 second = critical();
        pass(3 days);
        vm.prank(PLANT);
        orders.cancel(id);
        orders.consume(id, said[second], proofOf(second));
        equal(orders.agreementOf(id).orders, 2, "opened again");
    }

    function test_what_was_not_agreed_opens_nothing() public {
        fund(PRICE);
        Verdict memory v = verdictNow(Severity.WARNING);
        uint64 mild = log(v);
        v = verdictNow(Severity.CRITICAL);
        v.deviceId = keccak256("another");
        uint64 another = log(v);
        v = verdictNow(Severity.CRITICAL);
        (v.windowStart, v.windowEnd) = (v.windowStart - 1, v.windowEnd - 1);
        log(v);
        v = verdictNow(Severity.CRITICAL);
        v.class_ = Class.GAP;
        uint64 last = log(v);
        for (uint64 index = mild; index <= last; ++index) {
            Proof memory proof = proofOf(index);
            refusedBy(
                STRANGER, abi.encodeCall(IVerdictConsumer.consume, (id, said[index], proof)), isNotAgreed(id, index)
            );
        }
        check(another == mild + 1, "four of them");
    }

    function test_a_forged_verdict_or_place_opens_nothing() public {
        fund(PRICE);
        log(verdictNow(Severity.NORMAL));
        uint64 index = log(verdictNow(Severity.CRITICAL));
        Verdict memory v = said[index];
        Proof memory proof = proofOf(index);
        v.scoreE6 += 1;
        bytes memory notThere = abi.encodeWithSelector(Verdicts.NotInLog.selector, address(verdictLog), logId, index);
        refusedBy(STRANGER, abi.encodeCall(IVerdictConsumer.consume, (id, v, proof)), notThere);
        v.scoreE6 -= 1;
        proof.index = 0;
        notThere = abi.encodeWithSelector(Verdicts.NotInLog.selector, address(verdictLog), logId, uint64(0));
        refusedBy(STRANGER, abi.encodeCall(IVerdictConsumer.consume, (id, v, proof)), notThere);
        proof = proofOf(index);
        proof.size = 99;
        refusedBy(
            STRANGER,
            abi.encodeCall(IVerdictConsumer.consume, (id, v, proof)),
            abi.encodeWithSelector(IVerdictLog.UnknownCheckpoint.selector, logId, uint64(99))
        );
    }

    function test_a_severity_with_higher_bits_is_refused() public {
        fund(PRICE);
        uint64 index = log(verdictNow(Severity.CRITICAL));
        bytes memory call = abi.encodeCall(IVerdictConsumer.consume, (id, said[index], proofOf(index)));
        // The verdict's ninth word: selector, agreement, then the struct.
        uint256 place = 4 + 32 + 8 * 32;
        call[place + 30] = 0x01;
        refused(address(orders), call);
    }

    function test_a_witness_that_burns_gas_burns_only_its_bound() public {
        MaintenanceTerms memory t = maintenanceTerms();
        t.subject.log = IVerdictLog(address(new FalseWitness(true)));
        id = agreed(t);
        fund(PRICE);
        uint64 index = log(verdictNow(Severity.CRITICAL));
        Proof memory proof = proofOf(index);
        uint256 before = gasleft();
        refusedBy(
            STRANGER,
            abi.encodeCall(IVerdictConsumer.consume, (id, said[index], proof)),
            abi.encodeWithSelector(IVerdictConsumer.ProofTooDear.selector, id)
        );
        check(before - gasleft() < 400_000, "bounded");
    }

    function test_a_model_must_have_been_active_at_the_windows_end() public {
        ModelRegistry registry = new ModelRegistry();
        bytes32 registryId = registry.register("pumps", PLANT, ARBITER);
        MaintenanceTerms memory t = maintenanceTerms();
        t.subject.models = registry;
        t.subject.registryId = registryId;
        id = agreed(t);
        fund(PRICE);
        uint64 index = log(verdictNow(Severity.CRITICAL));
        Proof memory proof = proofOf(index);
        bytes memory inactive = abi.encodeWithSelector(IVerdictConsumer.ModelNotActive.selector, id, MODEL);
        refusedBy(STRANGER, abi.encodeCall(IVerdictConsumer.consume, (id, said[index], proof)), inactive);
        pass(60);
        vm.prank(PLANT);
        registry.propose(registryId, MODEL, "", "");
        vm.prank(ARBITER);
        registry.activate(registryId, MODEL, 0, type(uint64).max);
        // What it said before it was active stays without effect.
        refusedBy(STRANGER, abi.encodeCall(IVerdictConsumer.consume, (id, said[index], proof)), inactive);
        uint64 later = critical();
        orders.consume(id, said[later], proofOf(later));
    }

    function test_without_money_there_is_no_order() public {
        fund(PRICE - 1);
        uint64 index = log(verdictNow(Severity.CRITICAL));
        Proof memory proof = proofOf(index);
        refusedBy(
            STRANGER,
            abi.encodeCall(IVerdictConsumer.consume, (id, said[index], proof)),
            abi.encodeWithSelector(MaintenanceOrder.NotFunded.selector, id, PRICE - 1, PRICE)
        );
        check(!orders.consumed(id, index), "and the verdict can come again");
    }

    function test_the_contractor_who_does_not_report_is_not_paid() public {
        opened();
        uint256 until = present() + 3 days;
        refusedBy(PLANT, abi.encodeCall(MaintenanceOrder.cancel, (id)), late(until));
        vm.warp(until);
        refusedBy(CONTRACTOR, abi.encodeCall(MaintenanceOrder.report, (id, "")), late(until));
        refusedBy(STRANGER, abi.encodeCall(MaintenanceOrder.cancel, (id)), notBy(STRANGER));
        vm.prank(PLANT);
        orders.cancel(id);
        vm.prank(PLANT);
        orders.release(id, PRICE);
        vm.prank(PLANT);
        orders.withdraw(coin);
        equal(coin.balanceOf(PLANT), PRICE, "back");
    }

    function test_a_challenge_goes_to_the_arbiter() public {
        reported();
        vm.prank(PLANT);
        orders.challenge(id, "it still shakes");
        refusedBy(PLANT, abi.encodeCall(MaintenanceOrder.resolve, (id, false)), notBy(PLANT));
        vm.prank(ARBITER);
        orders.resolve(id, false);
        check(state() == OrderState.Cancelled, "cancelled");
        equal(orders.agreementOf(id).free, PRICE, "the plant's again");
        uint64 index = log(verdictNow(Severity.CRITICAL));
        orders.consume(id, said[index], proofOf(index));
        vm.prank(CONTRACTOR);
        orders.report(id, "again");
        vm.prank(PLANT);
        orders.challenge(id, "no");
        vm.prank(ARBITER);
        orders.resolve(id, true);
        equal(orders.balanceOf(CONTRACTOR, coin), PRICE, "the contractor's");
    }

    function test_an_arbiter_who_is_silent_leaves_the_contractor_paid() public {
        reported();
        vm.prank(PLANT);
        orders.challenge(id, "no");
        refusedBy(STRANGER, abi.encodeCall(MaintenanceOrder.settle, (id)), late(present() + 7 days));
        pass(7 days);
        orders.settle(id);
        equal(orders.balanceOf(CONTRACTOR, coin), PRICE, "paid");
    }

    function test_nothing_is_done_out_of_turn() public {
        fund(2 * PRICE);
        refusedBy(CONTRACTOR, abi.encodeCall(MaintenanceOrder.report, (id, "")), wrong(OrderState.None));
        refusedBy(STRANGER, abi.encodeCall(MaintenanceOrder.settle, (id)), wrong(OrderState.None));
        uint64 index = log(verdictNow(Severity.CRITICAL));
        orders.consume(id, said[index], proofOf(index));
        refusedBy(PLANT, abi.encodeCall(MaintenanceOrder.challenge, (id, "")), wrong(OrderState.Open));
        refusedBy(ARBITER, abi.encodeCall(MaintenanceOrder.resolve, (id, true)), wrong(OrderState.Open));
        refusedBy(STRANGER, abi.encodeCall(MaintenanceOrder.report, (id, "")), notBy(STRANGER));
        vm.prank(CONTRACTOR);
        orders.report(id, "");
        refusedBy(STRANGER, abi.encodeCall(MaintenanceOrder.challenge, (id, "")), notBy(STRANGER));
        uint256 until = present() + 1 days;
        vm.warp(until);
        refusedBy(PLANT, abi.encodeCall(MaintenanceOrder.challenge, (id, "")), late(until));
        refusedBy(STRANGER, abi.encodeCall(MaintenanceOrder.release, (id, 1)), notBy(STRANGER));
        refusedBy(CONTRACTOR, abi.encodeCall(MaintenanceOrder.accept, (id)), notBy(CONTRACTOR));
        bytes memory unknown = abi.encodeWithSelector(IVerdictConsumer.UnknownAgreement.selector, 99);
        refusedBy(STRANGER, abi.encodeCall(MaintenanceOrder.settle, (99)), unknown);
        Proof memory proof = proofOf(index);
        refusedBy(STRANGER, abi.encodeCall(IVerdictConsumer.consume, (99, said[index], proof)), unknown);
    }

    function test_the_plant_cannot_take_what_is_set_aside() public {
        opened();
        vm.prank(PLANT);
        vm.expectRevert(abi.encodeWithSelector(MaintenanceOrder.NotFunded.selector, id, 0, 1));
        orders.release(id, 1);
    }

    function test_terms_are_those_of_three_parties_with_time_and_a_price() public {
        MaintenanceTerms[8] memory bad = [
            maintenanceTerms(),
            maintenanceTerms(),
            maintenanceTerms(),
            maintenanceTerms(),
            maintenanceTerms(),
            maintenanceTerms(),
            maintenanceTerms(),
            maintenanceTerms()
        ];
        bad[0].plant = STRANGER;
        bad[1].contractor = PLANT;
        bad[2].arbiter = PLANT;
        bad[3].arbiter = CONTRACTOR;
        bad[4].price = 0;
        bad[5].service = 59 minutes;
        bad[6].challenge = 59 minutes;
        bad[7].arbitration = 59 minutes;
        for (uint256 i = 0; i < bad.length; ++i) {
            refusedBy(
                PLANT,
                abi.encodeCall(MaintenanceOrder.agree, (bad[i])),
                abi.encodeWithSelector(MaintenanceOrder.BadTerms.selector)
            );
        }
    }

    function test_before_the_contractor_accepts_nothing_opens() public {
        vm.prank(PLANT);
        id = orders.agree(maintenanceTerms());
        fund(PRICE);
        uint64 index = log(verdictNow(Severity.CRITICAL));
        Proof memory proof = proofOf(index);
        refusedBy(STRANGER, abi.encodeCall(IVerdictConsumer.consume, (id, said[index], proof)), isNotAgreed(id, index));
    }

    function test_a_token_that_keeps_a_part_is_refused() public {
        Tithe tithe = new Tithe();
        MaintenanceTerms memory t = maintenanceTerms();
        t.token = tithe;
        id = agreed(t);
        tithe.mint(PLANT, 1000);
        vm.prank(PLANT);
        tithe.approve(address(orders), 1000);
        refusedBy(
            PLANT,
            abi.encodeCall(MaintenanceOrder.fund, (id, 1000)),
            abi.encodeWithSelector(Purse.LessArrived.selector, 900, 1000)
        );
    }

    function test_an_arbiter_decides_in_its_time_only() public {
        reported();
        vm.prank(PLANT);
        orders.challenge(id, "no");
        pass(7 days);
        refusedBy(ARBITER, abi.encodeCall(MaintenanceOrder.resolve, (id, false)), late(present()));
        orders.settle(id);
        check(state() == OrderState.Paid, "paid");
    }

    function test_a_token_that_calls_back_is_paid_once() public {
        Hook hook = new Hook();
        coin = hook;
        id = agreed(maintenanceTerms());
        reported();
        pass(1 days);
        orders.settle(id);
        hook.set(orders);
        vm.prank(CONTRACTOR);
        orders.withdraw(coin);
        equal(coin.balanceOf(CONTRACTOR), PRICE, "once");
        equal(
            keccak256(hook.reason()),
            keccak256(abi.encodeWithSelector(ReentrancyGuardTransient.ReentrancyGuardReentrantCall.selector)),
            "and the call back was refused"
        );
    }

    function test_it_says_what_it_is() public view {
        check(orders.supportsInterface(type(IVerdictConsumer).interfaceId), "its interface");
        check(orders.supportsInterface(type(IERC165).interfaceId), "ERC-165");
        check(!orders.supportsInterface(0xffffffff), "and no other");
    }
}
