// SPDX-License-Identifier: Apache-2.0 OR MIT
pragma solidity 0.8.37;

import {ICases} from "../src/ICases.sol";
import {IModelRegistry} from "../src/IModelRegistry.sol";
import {IVerdictConsumer} from "../src/IVerdictConsumer.sol";
import {Class, Proof, Severity, Verdict} from "../src/Verdict.sol";
import {ShipmentTerms} from "../src/consumers/ColdChainShipment.sol";
import {MachineRental, Offer} from "../src/consumers/MachineRental.sol";
import {MaintenanceTerms} from "../src/consumers/MaintenanceOrder.sol";
import {Subject} from "../src/consumers/VerdictConsumer.sol";
import {Coin, VerdictsFixture} from "./VerdictsFixture.sol";

/// @notice Parties, a token, and one agreement with each consumer, as most tests make them. A test changes of it what it is about.
abstract contract ConsumerFixture is VerdictsFixture {
    /// Plant, shipper, renter.
    address internal constant A = address(0x0222);
    /// Contractor, carrier.
    address internal constant B = address(0x0333);
    address internal constant ARBITER = address(0x0444);
    address internal constant STRANGER = address(0x0555);
    uint256 internal constant MACHINE_KEY = 0xCAFE;
    /// The class of verdicts whose score is a machine's usage.
    uint16 internal constant USAGE = 100;
    /// What an order costs.
    uint128 internal constant PRICE = 500;
    /// What a shipment pays, and what a renter deposits.
    uint128 internal constant PAY = 1_000;

    Coin public coin;

    function setUp() public virtual override {
        super.setUp();
        // Usage is metered in minutes of the clock.
        vm.warp(1_700_000_040);
        coin = new Coin();
    }

    // ── agreements ──────────────────────────────────────────────────────────

    /// @dev The device's verdicts, whatever model made them, and whatever a person says to them.
    function subject() internal view virtual returns (Subject memory) {
        return Subject({
            log: verdictLog,
            logId: logId,
            deviceId: DEVICE,
            models: IModelRegistry(address(0)),
            registryId: bytes32(0),
            cases: ICases(address(0))
        });
    }

    function maintenanceTerms() internal view returns (MaintenanceTerms memory) {
        return MaintenanceTerms({
            plant: A,
            contractor: B,
            arbiter: ARBITER,
            token: coin,
            price: PRICE,
            class_: Class.ANOMALY,
            service: 3 days,
            challenge: 1 days,
            arbitration: 7 days,
            subject: subject()
        });
    }

    function shipmentTerms() internal view returns (ShipmentTerms memory) {
        uint128[] memory milestones = new uint128[](2);
        (milestones[0], milestones[1]) = (PAY * 3 / 10, PAY * 7 / 10);
        return ShipmentTerms({
            shipper: A,
            carrier: B,
            arbiter: ARBITER,
            token: coin,
            milestones: milestones,
            penaltyBps: 500,
            maxPenaltyBps: 3_000,
            class_: Class.ANOMALY,
            severity: Severity.CRITICAL,
            slot: 60,
            challenge: 1 days,
            arbitration: 7 days,
            deadline: present() + 10 days,
            subject: subject()
        });
    }

    function rentalOffer(uint256 nonce) internal view returns (Offer memory) {
        return Offer({
            machine: vm.addr(MACHINE_KEY),
            renter: address(0),
            arbiter: ARBITER,
            token: coin,
            price: 10,
            deposit: PAY,
            class_: USAGE,
            window: 60_000,
            from: present(),
            until: present() + 1 days,
            challenge: 1 days,
            arbitration: 7 days,
            nonce: nonce,
            subject: subject()
        });
    }

    function signedBy(uint256 key, MachineRental rentals, Offer memory o) internal view returns (bytes memory) {
        (uint8 v, bytes32 r, bytes32 s) = vm.sign(key, rentals.digestOf(o));
        return abi.encodePacked(r, s, v);
    }

    /// @dev Gives an account money that `to` may take.
    function pay(address who, address to, uint256 amount) internal {
        coin.mint(who, amount);
        vm.prank(who);
        coin.approve(to, amount);
    }

    // ── verdicts ────────────────────────────────────────────────────────────

    /// @dev A critical verdict about the next minute; returns its index.
    function critical() internal returns (uint64) {
        pass(60);
        return log(verdictNow(Severity.CRITICAL));
    }

    function usageNow(int64 units) internal view returns (Verdict memory v) {
        v = verdictNow(Severity.NORMAL);
        (v.class_, v.scoreE6) = (USAGE, units * 1e6);
    }

    /// @dev A verdict that tells the next minute's usage; returns its index.
    function usage(int64 units) internal returns (uint64) {
        pass(60);
        return log(usageNow(units));
    }

    function bring(IVerdictConsumer to, uint256 id, uint64 index) internal {
        Proof memory proof = proofOf(index);
        to.consume(id, said[index], proof);
    }

    // ── refusals ────────────────────────────────────────────────────────────

    /// @dev The call must revert with exactly this.
    function refusedBy(address target, address who, bytes memory call, bytes memory reason) internal {
        vm.expectRevert(reason);
        vm.prank(who);
        (bool done,) = target.call(call);
        done;
    }

    /// @dev Bringing the verdict must revert with exactly this.
    function refusedWith(IVerdictConsumer to, uint256 id, uint64 index, bytes memory reason) internal {
        Proof memory proof = proofOf(index);
        vm.expectRevert(reason);
        to.consume(id, said[index], proof);
    }

    function isNotAgreed(uint256 id, uint64 index) internal pure returns (bytes memory) {
        return abi.encodeWithSelector(IVerdictConsumer.NotAgreed.selector, id, index);
    }
}
