// SPDX-License-Identifier: Apache-2.0 OR MIT
pragma solidity 0.8.37;

import {IVerdictConsumer} from "../src/IVerdictConsumer.sol";
import {Proof, Severity} from "../src/Verdict.sol";
import {ColdChainShipment, ShipmentState, ShipmentTerms} from "../src/consumers/ColdChainShipment.sol";
import {Purse} from "../src/consumers/Purse.sol";
import {ConsumerFixture} from "./ConsumerFixture.sol";
import {Tithe} from "./VerdictsFixture.sol";

contract ColdChainShipmentTest is ConsumerFixture {
    address private constant SHIPPER = A;
    address private constant CARRIER = B;

    ColdChainShipment private shipments;
    uint256 private id;

    function setUp() public override {
        super.setUp();
        shipments = new ColdChainShipment();
        id = agreed(shipmentTerms());
        vm.prank(CARRIER);
        shipments.accept(id);
    }

    function agreed(ShipmentTerms memory t) private returns (uint256) {
        pay(SHIPPER, address(shipments), PAY);
        vm.prank(SHIPPER);
        return shipments.agree(t);
    }

    function report() private {
        vm.prank(CARRIER);
        shipments.report(id, "signed for");
    }

    function confirmed() private {
        report();
        vm.prank(SHIPPER);
        shipments.confirm(id);
    }

    function delivered() private {
        confirmed();
        pass(1 days);
        confirmed();
    }

    function excursion() private returns (uint64 index) {
        index = critical();
        bring(shipments, id, index);
    }

    function settled() private {
        pass(1 days);
        shipments.settle(id);
    }

    function refusedBy(address who, bytes memory call, bytes memory reason) private {
        refusedBy(address(shipments), who, call, reason);
    }

    function wrong(ShipmentState state) private view returns (bytes memory) {
        return abi.encodeWithSelector(ColdChainShipment.WrongState.selector, id, state);
    }

    function timed(uint256 when) private view returns (bytes memory) {
        return abi.encodeWithSelector(ColdChainShipment.WrongTime.selector, id, when);
    }

    function notBy(address who) private view returns (bytes memory) {
        return abi.encodeWithSelector(IVerdictConsumer.NotAuthorized.selector, id, who);
    }

    function test_a_shipment_that_stayed_cold_is_paid_in_full() public {
        delivered();
        refusedBy(STRANGER, abi.encodeCall(ColdChainShipment.settle, (id)), timed(present() + 1 days));
        settled();
        vm.prank(CARRIER);
        shipments.withdraw(coin);
        equal(coin.balanceOf(CARRIER), PAY, "paid");
        equal(coin.balanceOf(address(shipments)), 0, "nothing is left");
        refusedBy(STRANGER, abi.encodeCall(ColdChainShipment.settle, (id)), wrong(ShipmentState.Settled));
    }

    function test_each_proven_excursion_takes_its_part_down_to_the_limit() public {
        excursion();
        (uint256 toCarrier,) = shipments.divisionOf(id);
        equal(toCarrier, 0, "nothing is earned yet");
        for (uint256 i = 1; i < 4; ++i) {
            excursion();
        }
        delivered();
        (toCarrier,) = shipments.divisionOf(id);
        equal(toCarrier, PAY * 80 / 100, "four times five per cent");
        settled();
        equal(shipments.balanceOf(CARRIER, coin), PAY * 80 / 100, "carrier");
        equal(shipments.balanceOf(SHIPPER, coin), PAY * 20 / 100, "shipper");
    }

    function test_the_limit_holds_whatever_is_proven() public {
        for (uint256 i = 0; i < 9; ++i) {
            excursion();
        }
        delivered();
        settled();
        equal(shipments.balanceOf(CARRIER, coin), PAY * 70 / 100, "thirty per cent at most");
    }

    function test_an_excursion_on_the_way_can_be_proven_until_it_is_settled_and_later_ones_do_not_count() public {
        uint64 on_the_way = critical();
        delivered();
        pass(120);
        uint64 afterwards = log(verdictNow(Severity.CRITICAL));
        Proof memory proof = proofOf(afterwards);
        refusedBy(
            STRANGER,
            abi.encodeCall(IVerdictConsumer.consume, (id, said[afterwards], proof)),
            isNotAgreed(id, afterwards)
        );
        shipments.consume(id, said[on_the_way], proofOf(on_the_way));
        settled();
        equal(shipments.balanceOf(CARRIER, coin), PAY * 95 / 100, "one");
        uint64 late = on_the_way;
        proof = proofOf(late);
        refusedBy(
            STRANGER,
            abi.encodeCall(IVerdictConsumer.consume, (id, said[late], proof)),
            abi.encodeWithSelector(IVerdictConsumer.AlreadyConsumed.selector, id, late)
        );
    }

    function test_what_happened_before_the_carrier_took_the_goods_is_not_its_fault() public {
        uint64 index = log(verdictNow(Severity.CRITICAL));
        Proof memory proof = proofOf(index);
        refusedBy(STRANGER, abi.encodeCall(IVerdictConsumer.consume, (id, said[index], proof)), isNotAgreed(id, index));
    }

    function test_a_mild_verdict_is_no_excursion() public {
        pass(60);
        uint64 index = log(verdictNow(Severity.WARNING));
        Proof memory proof = proofOf(index);
        refusedBy(STRANGER, abi.encodeCall(IVerdictConsumer.consume, (id, said[index], proof)), isNotAgreed(id, index));
    }

    function test_a_milestone_nobody_challenges_is_earned() public {
        report();
        uint256 until = present() + 1 days;
        refusedBy(STRANGER, abi.encodeCall(ColdChainShipment.proceed, (id)), timed(until));
        vm.warp(until);
        refusedBy(SHIPPER, abi.encodeCall(ColdChainShipment.challenge, (id, "")), timed(until));
        shipments.proceed(id);
        equal(shipments.shipmentOf(id).earned, 1, "earned");
    }

    function test_a_challenged_milestone_is_the_arbiters() public {
        report();
        vm.prank(SHIPPER);
        shipments.challenge(id, "not there");
        refusedBy(SHIPPER, abi.encodeCall(ColdChainShipment.resolve, (id, false)), notBy(SHIPPER));
        vm.prank(ARBITER);
        shipments.resolve(id, false);
        check(shipments.shipmentOf(id).state == ShipmentState.UnderWay, "not earned");
        equal(shipments.shipmentOf(id).earned, 0, "none");
        report();
        vm.prank(SHIPPER);
        shipments.challenge(id, "not there");
        refusedBy(STRANGER, abi.encodeCall(ColdChainShipment.proceed, (id)), timed(present() + 7 days));
        pass(7 days);
        shipments.proceed(id);
        equal(shipments.shipmentOf(id).earned, 1, "an arbiter who is silent leaves it earned");
    }

    function test_what_is_not_delivered_in_time_is_paid_as_far_as_it_was_earned() public {
        confirmed();
        excursion();
        pass(11 days - 60);
        refusedBy(CARRIER, abi.encodeCall(ColdChainShipment.report, (id, "")), timed(shipments.shipmentOf(id).deadline));
        shipments.settle(id);
        equal(shipments.balanceOf(CARRIER, coin), PAY * 25 / 100, "thirty less five");
        equal(shipments.balanceOf(SHIPPER, coin), PAY * 75 / 100, "the rest");
    }

    function test_an_offer_nobody_takes_goes_back() public {
        id = agreed(shipmentTerms());
        pass(11 days);
        refusedBy(CARRIER, abi.encodeCall(ColdChainShipment.accept, (id)), timed(shipments.shipmentOf(id).deadline));
        shipments.settle(id);
        equal(shipments.balanceOf(SHIPPER, coin), PAY, "all of it");
    }

    function test_nothing_is_done_out_of_turn_or_by_others() public {
        refusedBy(CARRIER, abi.encodeCall(ColdChainShipment.accept, (id)), wrong(ShipmentState.UnderWay));
        refusedBy(SHIPPER, abi.encodeCall(ColdChainShipment.confirm, (id)), wrong(ShipmentState.UnderWay));
        refusedBy(STRANGER, abi.encodeCall(ColdChainShipment.proceed, (id)), wrong(ShipmentState.UnderWay));
        refusedBy(SHIPPER, abi.encodeCall(ColdChainShipment.report, (id, "")), notBy(SHIPPER));
        report();
        refusedBy(CARRIER, abi.encodeCall(ColdChainShipment.confirm, (id)), notBy(CARRIER));
        refusedBy(CARRIER, abi.encodeCall(ColdChainShipment.challenge, (id, "")), notBy(CARRIER));
        refusedBy(ARBITER, abi.encodeCall(ColdChainShipment.resolve, (id, true)), wrong(ShipmentState.Reported));
        pass(20 days);
        refusedBy(STRANGER, abi.encodeCall(ColdChainShipment.settle, (id)), wrong(ShipmentState.Reported));
        refusedBy(
            STRANGER,
            abi.encodeCall(ColdChainShipment.settle, (99)),
            abi.encodeWithSelector(IVerdictConsumer.UnknownAgreement.selector, 99)
        );
        ShipmentTerms memory t = free();
        vm.prank(SHIPPER);
        uint256 other = shipments.agree(t);
        refusedBy(
            STRANGER,
            abi.encodeCall(ColdChainShipment.accept, (other)),
            abi.encodeWithSelector(IVerdictConsumer.NotAuthorized.selector, other, STRANGER)
        );
    }

    function free() private returns (ShipmentTerms memory t) {
        pay(SHIPPER, address(shipments), PAY);
        t = shipmentTerms();
    }

    function test_terms_are_those_of_three_parties_with_time_and_pay() public {
        ShipmentTerms[14] memory bad = [
            shipmentTerms(),
            shipmentTerms(),
            shipmentTerms(),
            shipmentTerms(),
            shipmentTerms(),
            shipmentTerms(),
            shipmentTerms(),
            shipmentTerms(),
            shipmentTerms(),
            shipmentTerms(),
            shipmentTerms(),
            shipmentTerms(),
            shipmentTerms(),
            shipmentTerms()
        ];
        bad[0].shipper = STRANGER;
        bad[1].carrier = SHIPPER;
        bad[2].arbiter = CARRIER;
        bad[3].milestones = new uint128[](0);
        bad[4].milestones = new uint128[](9);
        bad[5].milestones = new uint128[](2);
        bad[6].penaltyBps = 10_001;
        bad[7].maxPenaltyBps = 10_001;
        bad[8].severity = 0;
        bad[9].challenge = 59 minutes;
        bad[10].arbitration = 59 minutes;
        bad[12].slot = 0;
        bad[13].deadline = type(uint64).max / 2 + 1;
        bad[11].deadline = present();
        for (uint256 i = 0; i < bad.length; ++i) {
            refusedBy(
                SHIPPER,
                abi.encodeCall(ColdChainShipment.agree, (bad[i])),
                abi.encodeWithSelector(ColdChainShipment.BadTerms.selector)
            );
        }
    }

    function test_a_token_that_keeps_a_part_is_refused() public {
        Tithe tithe = new Tithe();
        ShipmentTerms memory t = shipmentTerms();
        t.token = tithe;
        tithe.mint(SHIPPER, PAY);
        vm.prank(SHIPPER);
        tithe.approve(address(shipments), PAY);
        refusedBy(
            SHIPPER,
            abi.encodeCall(ColdChainShipment.agree, (t)),
            abi.encodeWithSelector(Purse.LessArrived.selector, PAY * 9 / 10, PAY)
        );
    }

    /// @dev Whatever was earned and proven, what the two get is what was put in.
    function testFuzz_nothing_is_made_and_nothing_lost(uint8 excursions, uint8 milestones, uint16 part, uint16 most)
        public
    {
        ShipmentTerms memory t = shipmentTerms();
        (t.penaltyBps, t.maxPenaltyBps) = (uint16(between(part, 0, 10_000)), uint16(between(most, 0, 10_000)));
        id = agreed(t);
        vm.prank(CARRIER);
        shipments.accept(id);
        for (uint256 i = 0; i < milestones % 3; ++i) {
            confirmed();
        }
        for (uint256 i = 0; i < excursions % 5; ++i) {
            if (milestones % 3 == 2) break;
            excursion();
        }
        pass(12 days);
        shipments.settle(id);
        equal(shipments.balanceOf(CARRIER, coin) + shipments.balanceOf(SHIPPER, coin), PAY, "all of it");
    }
}
