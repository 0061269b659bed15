// SPDX-License-Identifier: Apache-2.0 OR MIT
pragma solidity 0.8.37;

import {Verdict} from "../Verdict.sol";
import {Purse} from "./Purse.sol";
import {Subject, VerdictConsumer} from "./VerdictConsumer.sol";
import {IERC5267} from "@openzeppelin/contracts/interfaces/IERC5267.sol";
import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {MessageHashUtils} from "@openzeppelin/contracts/utils/cryptography/MessageHashUtils.sol";
import {SignatureChecker} from "@openzeppelin/contracts/utils/cryptography/SignatureChecker.sol";

/// @notice What a machine offers, signed with its own key (EIP-712).
struct Offer {
    /// The machine: the account whose key signs the offer, and which is paid.
    address machine;
    /// Who may rent it; zero: anybody.
    address renter;
    /// Decides about disputed usage; neither of the two.
    address arbiter;
    /// What is paid in.
    IERC20 token;
    /// For a unit of usage; a verdict's score is the usage of its window.
    uint128 price;
    /// What the renter puts in, which is also the most that can be due.
    uint128 deposit;
    /// The class of verdicts that meter usage.
    uint16 class_;
    /// The length of their windows, in milliseconds. Windows follow each other from the Unix epoch on, so that none overlaps
    /// another; those of a sliding grid that begin elsewhere are not taken.
    uint64 window;
    /// From when it may be used, in seconds since the Unix epoch.
    uint64 from;
    /// Until when.
    uint64 until;
    /// How long after `until` usage can be proven, and how long after that it can be disputed, in seconds.
    uint32 challenge;
    /// How long the arbiter has, in seconds.
    uint32 arbitration;
    /// Makes two offers different.
    uint256 nonce;
    /// The machine's verdicts.
    Subject subject;
}

/// @notice Where a rental stands.
enum RentalState {
    /// There is none.
    None,
    /// Usage is metered.
    Rented,
    /// Usage is metered, and the renter says that less was used than was proven.
    Disputed,
    /// The deposit is divided.
    Settled
}

/// @title MachineRental
/// @notice A machine rents itself out: it signs an offer with its own key, a renter (which may be a machine too) puts the deposit in,
/// and usage that verdicts prove is settled from it, to the machine's account.
/// @dev Usage is proven until `until + challenge`, also while it is disputed; it can be disputed for another `challenge`, so that
/// what is proven in the last second can be, too; then the deposit is divided, or the arbiter's time begins. A machine is paid once
/// for each window, whoever rents; so its meter keeps the length of window that its first offer had. An arbiter who is
/// silent leaves what was proven. One contract serves everyone; nobody administers it. An offer is taken once.
contract MachineRental is VerdictConsumer, Purse, IERC5267 {
    /// @notice What is known of a rental.
    struct Rental {
        /// What was offered.
        Offer offer;
        /// Who rents.
        address renter;
        /// Where it stands.
        RentalState state;
        /// Since when it stands there, in seconds since the Unix epoch.
        uint64 since;
        /// Since when it is rented.
        uint64 rentedAt;
        /// Proven usage, times 10^6.
        uint128 usageE6;
    }

    /// @notice Parties must differ and not be zero, the times follow each other, the deposit and the window be above zero, and the
    /// window be that of the machine's meter.
    error BadOffer();
    /// @notice The machine did not sign this offer, or took it back.
    error NotSigned(address machine);
    /// @notice The offer was taken before.
    error AlreadyTaken(bytes32 digest);
    /// @notice Where the rental stands this cannot be done.
    error WrongState(uint256 agreement, RentalState state);
    /// @notice Too late, or too early: the time that matters is `when`.
    error WrongTime(uint256 agreement, uint64 when);
    /// @notice The machine was paid for this window, by this renter or another.
    error AlreadyMetered(uint256 agreement, uint64 windowStart);
    /// @notice An arbiter can only say that less was used than was proven.
    error MoreThanProven(uint128 usageE6, uint128 proven);

    /// @notice A machine is rented.
    /// @param agreement The rental's number.
    /// @param machine The machine.
    /// @param renter The renter.
    /// @param digest `digestOf(offer)`.
    /// @param offer What the machine signed.
    event Rented(
        uint256 indexed agreement, address indexed machine, address indexed renter, bytes32 digest, Offer offer
    );
    /// @notice A machine took an offer back.
    /// @param machine The machine.
    /// @param digest `digestOf(offer)`.
    event Cancelled(address indexed machine, bytes32 indexed digest);
    /// @notice A verdict has proven usage.
    /// @param agreement The rental.
    /// @param index The verdict's index in the log.
    /// @param usageE6 The window's usage, times 10^6.
    /// @param totalE6 The rental's, times 10^6.
    event UsageProven(uint256 indexed agreement, uint64 index, uint128 usageE6, uint128 totalE6);
    /// @notice The renter says that less was used than was proven.
    /// @param agreement The rental.
    /// @param reasonHash SHA-256 of the reason.
    event Disputed(uint256 indexed agreement, bytes32 reasonHash);
    /// @notice The arbiter has said how much was used.
    /// @param agreement The rental.
    /// @param usageE6 The usage, times 10^6.
    event Resolved(uint256 indexed agreement, uint128 usageE6);
    /// @notice The deposit is divided; it can be withdrawn.
    /// @param agreement The rental.
    /// @param toMachine The machine's.
    /// @param toRenter The renter's.
    event Settled(uint256 indexed agreement, uint256 toMachine, uint256 toRenter);

    bytes32 private constant DOMAIN_TYPE_HASH =
        keccak256("EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)");
    bytes32 private constant SUBJECT_TYPE_HASH = keccak256(
        "Subject(address log,bytes32 logId,bytes32 deviceId,address models,bytes32 registryId,address cases)"
    );
    bytes32 private constant OFFER_TYPE_HASH = keccak256(
        "Offer(address machine,address renter,address arbiter,address token,uint128 price,uint128 deposit,uint16 class_,uint64 window,uint64 from,uint64 until,uint32 challenge,uint32 arbitration,uint256 nonce,Subject subject)Subject(address log,bytes32 logId,bytes32 deviceId,address models,bytes32 registryId,address cases)"
    );

    Rental[] private _rentals;
    /// @dev Offers that were taken or taken back.
    mapping(bytes32 digest => bool) private _gone;
    /// @dev The window of each meter, which its first offer settles; a meter is a machine's account with what it signs for.
    mapping(bytes32 meter => uint64) private _windows;
    /// @dev The windows that were paid for.
    mapping(bytes32 meter => mapping(uint64 window => bool)) private _metered;

    // ── the agreement ───────────────────────────────────────────────────────

    /// @notice Takes an offer and puts the deposit in.
    /// @param offer What the machine signed.
    /// @param signature The machine's, over `digestOf(offer)`: of an account, or by ERC-1271.
    /// @return agreement The rental's number.
    function rent(Offer calldata offer, bytes calldata signature) external nonReentrant returns (uint256 agreement) {
        if (
            offer.machine == address(0) || offer.arbiter == address(0) || offer.machine == msg.sender
                || offer.arbiter == msg.sender || offer.arbiter == offer.machine || offer.deposit == 0
        ) revert BadOffer();
        if (
            offer.until <= offer.from || offer.until <= block.timestamp || offer.until > type(uint64).max / 2000
                || offer.challenge < 1 hours || offer.arbitration < 1 hours || offer.window == 0
        ) revert BadOffer();
        agreement = _rentals.length;
        if (offer.renter != address(0) && offer.renter != msg.sender) revert NotAuthorized(agreement, msg.sender);
        bytes32 digest = _take(offer);
        if (!SignatureChecker.isValidSignatureNowCalldata(offer.machine, digest, signature)) {
            revert NotSigned(offer.machine);
        }
        _settleWindow(offer);
        Rental storage r = _rentals.push();
        (r.offer, r.renter, r.state) = (offer, msg.sender, RentalState.Rented);
        (r.since, r.rentedAt) = (uint64(block.timestamp), uint64(block.timestamp));
        emit Rented(agreement, offer.machine, msg.sender, digest, offer);
        _takeIn(offer.token, offer.deposit);
    }

    /// @notice The machine takes an offer back that nobody has taken.
    /// @param offer The offer.
    function cancel(Offer calldata offer) external {
        if (msg.sender != offer.machine) revert NotSigned(offer.machine);
        emit Cancelled(msg.sender, _take(offer));
    }

    // ── settlement ──────────────────────────────────────────────────────────

    /// @notice The renter says that less was used than was proven. Usage can be proven all the same.
    /// @param agreement The rental.
    /// @param reasonHash SHA-256 of the reason, which is kept elsewhere.
    function dispute(uint256 agreement, bytes32 reasonHash) external {
        Rental storage r = _inState(agreement, RentalState.Rented);
        if (msg.sender != r.renter) revert NotAuthorized(agreement, msg.sender);
        uint64 until = _disputableUntil(r);
        if (block.timestamp >= until) revert WrongTime(agreement, until);
        (r.state, r.since) = (RentalState.Disputed, uint64(block.timestamp));
        emit Disputed(agreement, reasonHash);
    }

    /// @notice The arbiter says how much was used: once nothing can be proven any more, in its time, and not more than was proven.
    /// @param agreement The rental.
    /// @param usageE6 The usage, times 10^6.
    function resolve(uint256 agreement, uint128 usageE6) external {
        Rental storage r = _inState(agreement, RentalState.Disputed);
        if (msg.sender != r.offer.arbiter) revert NotAuthorized(agreement, msg.sender);
        uint64 from = _provableUntil(r);
        if (block.timestamp < from) revert WrongTime(agreement, from);
        uint64 until = _disputableUntil(r) + r.offer.arbitration;
        if (block.timestamp >= until) revert WrongTime(agreement, until);
        if (usageE6 > r.usageE6) revert MoreThanProven(usageE6, r.usageE6);
        r.usageE6 = usageE6;
        emit Resolved(agreement, usageE6);
        _settle(agreement, r);
    }

    /// @notice Divides the deposit by what was proven, once nobody has disputed it in time; a dispute's once the arbiter has not
    /// decided in time. Anybody may.
    /// @param agreement The rental.
    function settle(uint256 agreement) external {
        Rental storage r = _rentalOf(agreement);
        if (r.state != RentalState.Rented && r.state != RentalState.Disputed) revert WrongState(agreement, r.state);
        uint64 from = _disputableUntil(r);
        if (r.state == RentalState.Disputed) from += r.offer.arbitration;
        if (block.timestamp < from) revert WrongTime(agreement, from);
        _settle(agreement, r);
    }

    // ── reading ─────────────────────────────────────────────────────────────

    /// @notice All that is known of a rental.
    /// @param agreement The rental.
    /// @return The rental.
    function rentalOf(uint256 agreement) external view returns (Rental memory) {
        return _rentalOf(agreement);
    }

    /// @notice What a machine signs: the EIP-712 digest of an offer, for this chain and this contract.
    /// @param offer The offer.
    /// @return keccak256(0x1901 ‖ domain separator ‖ struct hash).
    function digestOf(Offer calldata offer) public view returns (bytes32) {
        Subject calldata s = offer.subject;
        bytes32 subject =
            keccak256(abi.encode(SUBJECT_TYPE_HASH, s.log, s.logId, s.deviceId, s.models, s.registryId, s.cases));
        // In two parts: the compiler has not enough stack for one.
        bytes memory parties = abi.encode(
            OFFER_TYPE_HASH, offer.machine, offer.renter, offer.arbiter, offer.token, offer.price, offer.deposit
        );
        bytes memory terms = abi.encode(
            offer.class_,
            offer.window,
            offer.from,
            offer.until,
            offer.challenge,
            offer.arbitration,
            offer.nonce,
            subject
        );
        bytes32 separator = keccak256(
            abi.encode(DOMAIN_TYPE_HASH, keccak256("Avouch rental"), keccak256("1"), block.chainid, address(this))
        );
        return MessageHashUtils.toTypedDataHash(separator, keccak256(bytes.concat(parties, terms)));
    }

    /// @inheritdoc IERC5267
    function eip712Domain()
        external
        view
        returns (
            bytes1 fields,
            string memory name,
            string memory version,
            uint256 chainId,
            address verifyingContract,
            bytes32 salt,
            uint256[] memory extensions
        )
    {
        return (hex"0f", "Avouch rental", "1", block.chainid, address(this), bytes32(0), new uint256[](0));
    }

    // ── what the verdict does ───────────────────────────────────────────────

    function _subjectOf(uint256 agreement) internal view override returns (Subject storage) {
        return _rentalOf(agreement).offer.subject;
    }

    function _isAgreed(uint256 agreement, Verdict calldata verdict) internal view override returns (bool) {
        Rental storage r = _rentals[agreement];
        Offer storage o = r.offer;
        bool open =
            (r.state == RentalState.Rented || r.state == RentalState.Disputed) && block.timestamp < _provableUntil(r);
        uint64 from = r.rentedAt > o.from ? r.rentedAt : o.from;
        return open && verdict.class_ == o.class_ && verdict.scoreE6 > 0 && verdict.windowStart / 1000 >= from
            && verdict.windowEnd <= o.until * 1000 && verdict.windowStart % o.window == 0
            && verdict.windowEnd - verdict.windowStart == o.window;
    }

    function _act(uint256 agreement, Verdict calldata verdict, uint64 index) internal override {
        Rental storage r = _rentals[agreement];
        bytes32 meter = _meterOf(r.offer.machine, r.offer.class_, r.offer.subject);
        if (_metered[meter][verdict.windowStart]) revert AlreadyMetered(agreement, verdict.windowStart);
        _metered[meter][verdict.windowStart] = true;
        uint128 usageE6 = uint128(uint64(verdict.scoreE6));
        r.usageE6 += usageE6;
        emit UsageProven(agreement, index, usageE6, r.usageE6);
    }

    // ── the steps ───────────────────────────────────────────────────────────

    function _rentalOf(uint256 agreement) private view returns (Rental storage) {
        if (agreement >= _rentals.length) revert UnknownAgreement(agreement);
        return _rentals[agreement];
    }

    function _inState(uint256 agreement, RentalState state) private view returns (Rental storage r) {
        r = _rentalOf(agreement);
        if (r.state != state) revert WrongState(agreement, r.state);
    }

    /// @dev An offer is taken, or taken back, once.
    function _take(Offer calldata offer) private returns (bytes32 digest) {
        digest = digestOf(offer);
        if (_gone[digest]) revert AlreadyTaken(digest);
        _gone[digest] = true;
    }

    /// @dev The first offer of a meter that is taken settles its window.
    function _settleWindow(Offer calldata offer) private {
        bytes32 meter = _meterOf(offer.machine, offer.class_, offer.subject);
        uint64 window = _windows[meter];
        if (window == 0) _windows[meter] = offer.window;
        else if (window != offer.window) revert BadOffer();
    }

    function _meterOf(address machine, uint16 class_, Subject memory s) private pure returns (bytes32) {
        return keccak256(abi.encode(machine, class_, s.log, s.logId, s.deviceId));
    }

    /// @dev Until when usage can be proven.
    function _provableUntil(Rental storage r) private view returns (uint64) {
        return r.offer.until + r.offer.challenge;
    }

    /// @dev Until when it can be disputed: as long again, so that what was proven last can be.
    function _disputableUntil(Rental storage r) private view returns (uint64) {
        return _provableUntil(r) + r.offer.challenge;
    }

    function _settle(uint256 agreement, Rental storage r) private {
        uint256 deposit = r.offer.deposit;
        uint256 due = uint256(r.usageE6) * r.offer.price / 1e6;
        if (due > deposit) due = deposit;
        (r.state, r.since) = (RentalState.Settled, uint64(block.timestamp));
        emit Settled(agreement, due, deposit - due);
        _give(r.offer.machine, r.offer.token, due);
        _give(r.renter, r.offer.token, deposit - due);
    }
}
