// SPDX-License-Identifier: Apache-2.0 OR MIT
pragma solidity 0.8.37;

import {Cases} from "../src/Cases.sol";
import {Desk, State} from "../src/ICases.sol";
import {IVerdictConsumer} from "../src/IVerdictConsumer.sol";
import {ModelRegistry} from "../src/ModelRegistry.sol";
import {Class, Proof, Severity, Verdict} from "../src/Verdict.sol";
import {ColdChainShipment, ShipmentState, ShipmentTerms} from "../src/consumers/ColdChainShipment.sol";
import {MachineRental, Offer, RentalState} from "../src/consumers/MachineRental.sol";
import {MaintenanceOrder, MaintenanceTerms} from "../src/consumers/MaintenanceOrder.sol";
import {Subject} from "../src/consumers/VerdictConsumer.sol";
import {ConsumerFixture} from "./ConsumerFixture.sol";

/// @notice What a party could do to the others' harm within its rights, each shown to be refused or to cost what it should.
contract AttacksTest is ConsumerFixture {
    address private constant OTHER_RENTER = address(0x0666);
    address private constant OVERSEER = address(0x0777);

    MaintenanceOrder private orders;
    ColdChainShipment private shipments;
    MachineRental private rentals;
    Cases private cases;
    bytes32 private desk;
    address private machine = vm.addr(MACHINE_KEY);

    function setUp() public override {
        super.setUp();
        (orders, shipments, rentals) = (new MaintenanceOrder(), new ColdChainShipment(), new MachineRental());
        cases = new Cases();
        vm.prank(owner);
        desk = cases.openDesk(Desk(owner, OVERSEER, ARBITER, verdictLog, logId, 1 ether, 1 days, 2 days));
    }

    function notAgreed(IVerdictConsumer to, uint256 id, uint64 index) private {
        refusedWith(to, id, index, isNotAgreed(id, index));
    }

    function doesNotStand(IVerdictConsumer to, uint256 id, uint64 index) private {
        refusedWith(to, id, index, abi.encodeWithSelector(IVerdictConsumer.DoesNotStand.selector, id, index));
    }

    function opened(uint64 index) private returns (bytes32) {
        Proof memory proof = proofOf(index);
        return cases.open(desk, said[index], proof);
    }

    function overruled(uint64 index) private returns (bytes32 id) {
        id = opened(index);
        vm.prank(OVERSEER);
        cases.overrule(id, "");
    }

    // ── rental ──────────────────────────────────────────────────────────────

    function rented(uint256 nonce, address renter) private returns (uint256) {
        Offer memory o = rentalOffer(nonce);
        bytes memory by = signedBy(MACHINE_KEY, rentals, o);
        pay(renter, address(rentals), 1000);
        vm.prank(renter);
        return rentals.rent(o, by);
    }

    function test_a_renter_who_disputes_at_once_does_not_use_it_for_nothing() public {
        uint256 id = rented(1, A);
        uint64 before = usage(10);
        vm.prank(A);
        rentals.dispute(id, "");
        uint64 index = usage(80);
        bring(rentals, id, before);
        bring(rentals, id, index);
        pass(10 days);
        rentals.settle(id);
        equal(rentals.balanceOf(machine, coin), 900, "all that was used");
        equal(rentals.balanceOf(A, coin), 100, "the rest");
    }

    function test_an_arbiter_cannot_cut_off_usage_that_can_still_be_proven() public {
        uint256 id = rented(1, A);
        uint64 first = usage(10);
        uint64 second = usage(80);
        bring(rentals, id, first);
        vm.prank(A);
        rentals.dispute(id, "before the second proof");
        uint64 until = rentals.rentalOf(id).offer.until;
        vm.warp(until);
        vm.prank(ARBITER);
        vm.expectRevert(abi.encodeWithSelector(MachineRental.WrongTime.selector, id, until + 1 days));
        rentals.resolve(id, 10e6);
        bring(rentals, id, second);
        vm.warp(until + 1 days);
        vm.prank(ARBITER);
        rentals.resolve(id, 90e6);
        equal(rentals.balanceOf(machine, coin), 900, "all of it");
    }

    function test_usage_that_is_proven_in_the_last_second_can_be_disputed() public {
        uint256 id = rented(1, A);
        uint64 index = usage(90);
        uint64 provable = rentals.rentalOf(id).offer.until + 1 days;
        vm.warp(provable - 1);
        bring(rentals, id, index);
        vm.warp(provable);
        vm.expectRevert(abi.encodeWithSelector(MachineRental.WrongTime.selector, id, provable + 1 days));
        rentals.settle(id);
        vm.warp(provable + 1 days - 1);
        vm.prank(A);
        rentals.dispute(id, "it stood still");
        vm.prank(ARBITER);
        rentals.resolve(id, 0);
        equal(rentals.balanceOf(A, coin), 1000, "the renter has everything back");
    }

    function test_an_arbiter_of_a_rental_decides_in_its_time_only() public {
        uint256 id = rented(1, A);
        bring(rentals, id, usage(50));
        vm.prank(A);
        rentals.dispute(id, "");
        uint64 until = rentals.rentalOf(id).offer.until + 9 days;
        vm.warp(until);
        vm.prank(ARBITER);
        vm.expectRevert(abi.encodeWithSelector(MachineRental.WrongTime.selector, id, until));
        rentals.resolve(id, 0);
        rentals.settle(id);
        equal(rentals.balanceOf(machine, coin), 500, "as it was proven");
    }

    function test_one_usage_is_not_billed_to_two_renters() public {
        uint256 one = rented(1, A);
        uint256 two = rented(2, OTHER_RENTER);
        uint64 index = usage(50);
        bring(rentals, one, index);
        refusedWith(
            rentals,
            two,
            index,
            abi.encodeWithSelector(MachineRental.AlreadyMetered.selector, two, said[index].windowStart)
        );
        bring(rentals, two, usage(50));
        equal(rentals.rentalOf(two).usageE6, 50e6, "its own");
    }

    function test_windows_that_slide_over_each_other_are_billed_once() public {
        uint256 id = rented(1, A);
        uint64 index = usage(30);
        bring(rentals, id, index);
        // The same minute by another verdict; and minutes that begin between minutes.
        uint64 again = log(fresh(said[index]));
        refusedWith(
            rentals,
            id,
            again,
            abi.encodeWithSelector(MachineRental.AlreadyMetered.selector, id, said[again].windowStart)
        );
        pass(30);
        Verdict memory v = fresh(said[index]);
        (v.windowStart, v.windowEnd) = (v.windowStart + 30_000, v.windowEnd + 30_000);
        notAgreed(rentals, id, log(v));
        // A longer window, and a shorter one that begins where it should.
        pass(60);
        v = fresh(said[index]);
        (v.windowStart, v.windowEnd) = (v.windowStart + 60_000, v.windowEnd + 90_000);
        notAgreed(rentals, id, log(v));
        v = fresh(v);
        v.windowEnd = v.windowStart + 1;
        notAgreed(rentals, id, log(v));
        equal(rentals.rentalOf(id).usageE6, 30e6, "once");
    }

    function fresh(Verdict memory v) private view returns (Verdict memory) {
        v = abi.decode(abi.encode(v), (Verdict));
        v.seq = uint64(said.length);
        return v;
    }

    function test_a_meter_keeps_its_window() public {
        rented(1, A);
        Offer memory o = rentalOffer(2);
        o.window = 120_000;
        bytes memory by = signedBy(MACHINE_KEY, rentals, o);
        pay(OTHER_RENTER, address(rentals), 1000);
        vm.prank(OTHER_RENTER);
        vm.expectRevert(abi.encodeWithSelector(MachineRental.BadOffer.selector));
        rentals.rent(o, by);
        // Of another class of verdicts it may be another.
        o.class_ = USAGE + 1;
        by = signedBy(MACHINE_KEY, rentals, o);
        vm.prank(OTHER_RENTER);
        rentals.rent(o, by);
    }

    function test_an_offer_has_one_signature() public {
        Offer memory o = rentalOffer(7);
        (uint8 v, bytes32 r, bytes32 s) = vm.sign(MACHINE_KEY, rentals.digestOf(o));
        pay(A, address(rentals), 2000);
        bytes[4] memory forged = [
            abi.encodePacked(r, bytes32(N - uint256(s)), v == 27 ? uint8(28) : uint8(27)),
            abi.encodePacked(r, bytes32(uint256(s) | (uint256(v - 27) << 255))),
            abi.encodePacked(r, s, v, uint8(0)),
            bytes("")
        ];
        for (uint256 i = 0; i < forged.length; ++i) {
            vm.prank(A);
            vm.expectRevert(abi.encodeWithSelector(MachineRental.NotSigned.selector, machine));
            rentals.rent(o, forged[i]);
        }
        vm.prank(A);
        rentals.rent(o, abi.encodePacked(r, s, v));
    }

    // ── what is the same for all consumers ──────────────────────────────────

    function test_the_same_verdict_at_two_places_is_taken_once() public {
        uint256 id = rented(1, A);
        uint64 index = usage(30);
        uint64 again = log(said[index]);
        bring(rentals, id, index);
        refusedWith(
            rentals, id, again, abi.encodeWithSelector(IVerdictConsumer.AlreadyConsumed.selector, id, said[index].seq)
        );
    }

    function test_a_window_of_the_future_is_not_taken() public {
        uint256 id = rented(1, A);
        Verdict memory v = verdictNow(Severity.NORMAL);
        (v.class_, v.scoreE6) = (USAGE, 90e6);
        (v.windowStart, v.windowEnd) = (present() * 1000, (present() + 60) * 1000);
        uint64 index = log(v);
        notAgreed(rentals, id, index);
        pass(59);
        notAgreed(rentals, id, index);
        pass(1);
        bring(rentals, id, index);
        // Nor one that ends before it begins.
        uint256 order_ = order(subject());
        v = verdictNow(Severity.CRITICAL);
        (v.windowStart, v.windowEnd) = (v.windowEnd + 1, v.windowEnd);
        pass(60);
        notAgreed(orders, order_, log(v));
    }

    function test_a_model_that_is_not_active_yet_does_not_decide_by_a_window_of_the_future() public {
        ModelRegistry models = new ModelRegistry();
        bytes32 registry = models.register("m", A, B);
        vm.prank(A);
        models.propose(registry, MODEL, "data", "");
        uint64 from = present() + 30 days;
        vm.prank(B);
        models.activate(registry, MODEL, from, type(uint64).max);
        Subject memory s = subject();
        (s.models, s.registryId) = (models, registry);
        uint256 id = order(s);
        Verdict memory v = verdictNow(Severity.CRITICAL);
        v.windowEnd = (from + 1 days) * 1000;
        notAgreed(orders, id, log(v));
        uint64 index = critical();
        refusedWith(orders, id, index, abi.encodeWithSelector(IVerdictConsumer.ModelNotActive.selector, id, MODEL));
    }

    // ── maintenance ─────────────────────────────────────────────────────────

    function order(Subject memory s) private returns (uint256 id) {
        MaintenanceTerms memory t = maintenanceTerms();
        t.subject = s;
        vm.prank(A);
        id = orders.agree(t);
        vm.prank(B);
        orders.accept(id);
        pay(A, address(orders), 5000);
        vm.prank(A);
        orders.fund(id, 5000);
    }

    function test_one_fault_is_paid_once() public {
        uint256 id = order(subject());
        for (uint256 i = 0; i < 5; ++i) {
            critical();
        }
        bring(orders, id, 0);
        vm.prank(B);
        orders.report(id, "done");
        pass(1 days);
        orders.settle(id);
        for (uint64 i = 1; i < 5; ++i) {
            notAgreed(orders, id, i);
        }
        equal(orders.balanceOf(B, coin), 500, "once");
        // A fault that comes back is another.
        bring(orders, id, critical());
    }

    function test_a_label_or_another_class_opens_no_order() public {
        uint256 id = order(subject());
        for (uint16 class_ = 0; class_ <= Class.LABEL_LAST; ++class_) {
            if (class_ == Class.ANOMALY) continue;
            pass(60);
            Verdict memory v = verdictNow(Severity.CRITICAL);
            v.class_ = class_;
            notAgreed(orders, id, log(v));
        }
    }

    function test_a_verdict_that_a_person_has_overruled_opens_no_order() public {
        Subject memory s = subject();
        s.cases = cases;
        uint256 id = order(s);
        uint64 index = critical();
        bytes32 case_ = overruled(index);
        doesNotStand(orders, id, index);
        // Nor one that is disputed; and one that the arbiter lets stand is taken.
        vm.deal(STRANGER, 1 ether);
        vm.prank(STRANGER);
        cases.dispute{value: 1 ether}(case_, State.Overridden, "");
        doesNotStand(orders, id, index);
        vm.prank(ARBITER);
        cases.resolve(case_, true, "it was a fault");
        bring(orders, id, index);
        equal(orders.agreementOf(id).orders, 1, "an order");
    }

    // ── shipment ────────────────────────────────────────────────────────────

    function shipment(Subject memory s) private returns (uint256 id) {
        pay(A, address(shipments), PAY);
        ShipmentTerms memory t = shipmentTerms();
        t.subject = s;
        vm.prank(A);
        id = shipments.agree(t);
        vm.prank(B);
        shipments.accept(id);
    }

    function report(uint256 id) private {
        vm.prank(B);
        shipments.report(id, "");
    }

    function confirmed(uint256 id) private {
        report(id);
        vm.prank(A);
        shipments.confirm(id);
    }

    function test_excursions_after_the_delivery_was_reported_do_not_count() public {
        uint256 id = shipment(subject());
        confirmed(id);
        uint64 on_the_way = critical();
        report(id);
        // The shipper's side has goods and logger from here on, and lets the challenge window pass.
        uint64 afterwards = critical();
        notAgreed(shipments, id, afterwards);
        pass(1 days);
        shipments.proceed(id);
        notAgreed(shipments, id, afterwards);
        bring(shipments, id, on_the_way);
        pass(1 days);
        shipments.settle(id);
        equal(shipments.balanceOf(B, coin), 950, "one excursion");
    }

    function test_an_excursion_after_a_false_report_of_the_delivery_counts() public {
        uint256 id = shipment(subject());
        confirmed(id);
        report(id);
        uint64 index = critical();
        notAgreed(shipments, id, index);
        vm.prank(A);
        shipments.challenge(id, "the lorry is elsewhere");
        notAgreed(shipments, id, index);
        vm.prank(ARBITER);
        shipments.resolve(id, false);
        bring(shipments, id, index);
        equal(shipments.shipmentOf(id).excursions, 1, "it counts");
    }

    function test_an_excursion_counts_while_an_early_milestone_waits() public {
        uint256 id = shipment(subject());
        report(id);
        uint64 index = critical();
        bring(shipments, id, index);
        equal(shipments.shipmentOf(id).excursions, 1, "the goods are on the way");
    }

    function test_a_false_challenge_does_not_run_the_deadline_out() public {
        uint256 id = shipment(subject());
        uint64 agreed = shipments.shipmentOf(id).deadline;
        pass(3 days);
        report(id);
        pass(1 days - 1);
        vm.prank(A);
        shipments.challenge(id, "a lie");
        // On the fifth day it is delivered, and cannot be reported.
        pass(7 days - 1);
        vm.prank(ARBITER);
        shipments.resolve(id, true);
        equal(shipments.shipmentOf(id).deadline, agreed + 8 days - 2, "later by what it waited");
        report(id);
        pass(1 days);
        shipments.proceed(id);
        pass(1 days);
        shipments.settle(id);
        equal(shipments.balanceOf(B, coin), 1000, "paid in full");
    }

    function test_a_milestone_that_nobody_ends_does_not_hold_the_deadline_up() public {
        uint256 id = shipment(subject());
        uint64 agreed = shipments.shipmentOf(id).deadline;
        report(id);
        pass(5 days);
        shipments.proceed(id);
        equal(shipments.shipmentOf(id).deadline, agreed + 1 days, "only by what it had to wait");
        // What was no milestone costs its own time.
        report(id);
        vm.prank(A);
        shipments.challenge(id, "");
        pass(1 days);
        vm.prank(ARBITER);
        shipments.resolve(id, false);
        equal(shipments.shipmentOf(id).deadline, agreed + 1 days, "not earned");
    }

    function test_an_excursion_is_not_brought_and_divided_in_one_breath() public {
        uint256 id = shipment(subject());
        uint64 index = critical();
        confirmed(id);
        confirmed(id);
        pass(1 days);
        notAgreed(shipments, id, index);
        shipments.settle(id);
        equal(shipments.balanceOf(B, coin), 1000, "too late");
        // Nor after the deadline of one that was not delivered.
        id = shipment(subject());
        index = critical();
        vm.warp(shipments.shipmentOf(id).deadline + 1 days - 1);
        bring(shipments, id, index);
        vm.warp(shipments.shipmentOf(id).deadline - 60);
        index = critical();
        pass(1 days);
        notAgreed(shipments, id, index);
        shipments.settle(id);
    }

    function test_a_deadline_without_end_is_refused() public {
        ShipmentTerms memory t = shipmentTerms();
        t.milestones = new uint128[](1);
        t.milestones[0] = 1;
        (t.challenge, t.arbitration) = (type(uint32).max, type(uint32).max);
        t.deadline = type(uint64).max / 2 + 1;
        vm.prank(A);
        vm.expectRevert(abi.encodeWithSelector(ColdChainShipment.BadTerms.selector));
        shipments.agree(t);
        // The longest that is taken can be divided.
        t.deadline = type(uint64).max / 2;
        pay(A, address(shipments), 1);
        vm.prank(A);
        uint256 id = shipments.agree(t);
        vm.warp(uint256(t.deadline) + type(uint32).max);
        shipments.settle(id);
        equal(shipments.balanceOf(A, coin), 1, "back");
    }

    function test_an_arbiter_of_a_milestone_decides_in_its_time_only() public {
        uint256 id = shipment(subject());
        report(id);
        vm.prank(A);
        shipments.challenge(id, "");
        pass(7 days);
        uint64 when = present();
        vm.prank(ARBITER);
        vm.expectRevert(abi.encodeWithSelector(ColdChainShipment.WrongTime.selector, id, when));
        shipments.resolve(id, false);
        shipments.proceed(id);
        equal(shipments.shipmentOf(id).earned, 1, "earned");
    }

    function test_another_class_is_no_excursion() public {
        uint256 id = shipment(subject());
        pass(60);
        Verdict memory v = verdictNow(Severity.CRITICAL);
        v.class_ = Class.GAP;
        notAgreed(shipments, id, log(v));
    }

    function test_windows_that_slide_over_one_excursion_cost_one_penalty_a_slot() public {
        uint256 id = shipment(subject());
        bring(shipments, id, critical());
        uint64 slot = said[0].windowStart / 60_000;
        for (uint64 i = 1; i < 6; ++i) {
            pass(10);
            uint64 index = log(verdictNow(Severity.CRITICAL));
            bytes memory reason = abi.encodeWithSelector(ColdChainShipment.SlotTaken.selector, id, slot);
            refusedWith(shipments, id, index, reason);
        }
        pass(10);
        bring(shipments, id, log(verdictNow(Severity.CRITICAL)));
        equal(shipments.shipmentOf(id).excursions, 2, "one a minute");
    }

    function test_an_excursion_that_a_person_overrules_afterwards_is_taken_back() public {
        Subject memory s = subject();
        s.cases = cases;
        uint256 id = shipment(s);
        uint64 index = critical();
        bring(shipments, id, index);
        uint64 slot = said[index].windowStart / 60_000;
        bytes memory no = abi.encodeWithSelector(ColdChainShipment.NotOverruled.selector, id, slot);
        vm.expectRevert(no);
        shipments.retract(id, slot);
        overruled(index);
        // It could still be disputed.
        vm.expectRevert(no);
        shipments.retract(id, slot);
        pass(1 days);
        vm.expectEmit(true, true, true, true, address(shipments));
        emit ColdChainShipment.ExcursionRetracted(id, slot, index, 0);
        shipments.retract(id, slot);
        equal(shipments.shipmentOf(id).excursions, 0, "taken back");
        vm.expectRevert(no);
        shipments.retract(id, slot);
        // Another verdict about the same minute may count; the overruled one may not.
        refusedWith(
            shipments, id, index, abi.encodeWithSelector(IVerdictConsumer.AlreadyConsumed.selector, id, said[index].seq)
        );
        uint64 other = log(fresh(said[index]));
        bring(shipments, id, other);
        // One that the overseer stands by is not taken back, nor anything once the pay is divided.
        bytes32 case_ = opened(other);
        vm.prank(OVERSEER);
        cases.acknowledge(case_, "");
        pass(1 days);
        vm.expectRevert(no);
        shipments.retract(id, slot);
        pass(10 days);
        shipments.settle(id);
        vm.expectRevert(abi.encodeWithSelector(ColdChainShipment.WrongState.selector, id, ShipmentState.Settled));
        shipments.retract(id, slot);
    }

    function test_without_a_desk_nothing_is_taken_back() public {
        uint256 id = shipment(subject());
        uint64 index = critical();
        bring(shipments, id, index);
        uint64 slot = said[index].windowStart / 60_000;
        overruled(index);
        pass(1 days);
        vm.expectRevert(abi.encodeWithSelector(ColdChainShipment.NotOverruled.selector, id, slot));
        shipments.retract(id, slot);
    }

    function test_an_offer_that_is_not_accepted_and_a_rental_that_is_settled_take_no_verdicts() public {
        uint256 id = rented(1, A);
        uint64 index = usage(1);
        pass(4 days);
        rentals.settle(id);
        check(rentals.rentalOf(id).state == RentalState.Settled, "settled");
        notAgreed(rentals, id, index);
    }
}
