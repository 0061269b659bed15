// SPDX-License-Identifier: Apache-2.0 OR MIT
pragma solidity 0.8.37;

import {Verdict} from "../Verdict.sol";
import {Subject, VerdictConsumer} from "./VerdictConsumer.sol";
import {IERC5267} from "@openzeppelin/contracts/interfaces/IERC5267.sol";
import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";
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
    /// From when it may be used, in seconds since the Unix epoch.
    uint64 from;
    /// Until when.
    uint64 until;
    /// How long after `until` usage can be proven and disputed, in seconds.
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
    None,
    Rented,
    Disputed,
    Settled
}

/// @title MachineRental
/// @notice A machine rents itself out: it signs an offer with its own key, a renter (which may be a machine too) puts the deposit in,
/// and usage that verdicts prove is settled from it, to the machine's account.
/// @dev One contract serves everyone; nobody administers it. An offer is taken once.
contract MachineRental is VerdictConsumer, IERC5267 {
    using SafeERC20 for IERC20;

    struct Rental {
        Offer offer;
        address renter;
        RentalState state;
        uint64 since;
        /// Proven usage, times 10^6.
        uint128 usageE6;
    }

    /// @notice Parties must differ and not be zero, the times follow each other, the deposit be above zero.
    error BadOffer();
    /// @notice The machine did not sign this offer, or took it back.
    error NotSigned(address machine);
    /// @notice The offer was taken before.
    error AlreadyTaken(bytes32 digest);
    /// @notice Where the rental stands this cannot be done.
    error WrongState(uint256 agreement, RentalState state);
    /// @notice Too late, or too early: the time that matters is `when`.
    error WrongTime(uint256 agreement, uint64 when);
    /// @notice The token took something of the transfer, so that less arrived than the deposit.
    error LessArrived(uint256 arrived, uint256 due);
    /// @notice An arbiter can only say that less was used than was proven.
    error MoreThanProven(uint128 usageE6, uint128 proven);

    event Rented(uint256 indexed agreement, address indexed machine, address indexed renter, bytes32 digest);
    event Cancelled(address indexed machine, bytes32 indexed digest);
    event UsageProven(uint256 indexed agreement, uint64 index, uint128 usageE6, uint128 totalE6);
    event Disputed(uint256 indexed agreement, bytes32 reasonHash);
    event Resolved(uint256 indexed agreement, uint128 usageE6);
    event Settled(uint256 indexed agreement, uint256 toMachine, uint256 toRenter);
    event Withdrawn(address indexed account, IERC20 indexed token, uint256 amount);

    bytes32 private constant DOMAIN_TYPE_HASH =
        keccak256("EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)");
    bytes32 private constant SUBJECT_TYPE_HASH =
        keccak256("Subject(address log,bytes32 logId,bytes32 deviceId,address models,bytes32 registryId)");
    bytes32 private constant OFFER_TYPE_HASH = keccak256(
        "Offer(address machine,address renter,address arbiter,address token,uint128 price,uint128 deposit,uint16 class_,uint64 from,uint64 until,uint32 challenge,uint32 arbitration,uint256 nonce,Subject subject)Subject(address log,bytes32 logId,bytes32 deviceId,address models,bytes32 registryId)"
    );

    Rental[] private _rentals;
    /// @dev Offers that were taken or taken back.
    mapping(bytes32 digest => bool) private _gone;
    mapping(address account => mapping(IERC20 token => uint256)) private _balances;

    // ── the agreement ───────────────────────────────────────────────────────

    /// @notice Takes an offer and puts the deposit in.
    /// @param signature The machine's, over `digestOf(offer)`: of an account, or by ERC-1271.
    function rent(Offer calldata offer, bytes calldata signature) external nonReentrant returns (uint256 agreement) {
        if (
            offer.machine == address(0) || offer.arbiter == address(0) || offer.machine == msg.sender
                || offer.arbiter == msg.sender || offer.arbiter == offer.machine || offer.deposit == 0
                || offer.until <= offer.from || offer.until <= block.timestamp || offer.challenge < 1 hours
                || offer.arbitration < 1 hours || offer.until > type(uint64).max / 2000
        ) revert BadOffer();
        if (offer.renter != address(0) && offer.renter != msg.sender) {
            revert NotAuthorized(_rentals.length, msg.sender);
        }
        bytes32 digest = digestOf(offer);
        if (_gone[digest]) revert AlreadyTaken(digest);
        _gone[digest] = true;
        if (!SignatureChecker.isValidSignatureNowCalldata(offer.machine, digest, signature)) {
            revert NotSigned(offer.machine);
        }
        agreement = _rentals.length;
        Rental storage r = _rentals.push();
        (r.offer, r.renter, r.state, r.since) = (offer, msg.sender, RentalState.Rented, uint64(block.timestamp));
        emit Rented(agreement, offer.machine, msg.sender, digest);
        uint256 before = offer.token.balanceOf(address(this));
        offer.token.safeTransferFrom(msg.sender, address(this), offer.deposit);
        uint256 arrived = offer.token.balanceOf(address(this)) - before;
        if (arrived < offer.deposit) revert LessArrived(arrived, offer.deposit);
    }

    /// @notice The machine takes an offer back that nobody has taken.
    function cancel(Offer calldata offer) external {
        if (msg.sender != offer.machine) revert NotSigned(offer.machine);
        bytes32 digest = digestOf(offer);
        if (_gone[digest]) revert AlreadyTaken(digest);
        _gone[digest] = true;
        emit Cancelled(msg.sender, digest);
    }

    // ── settlement ──────────────────────────────────────────────────────────

    /// @notice The renter says that less was used than was proven.
    function dispute(uint256 agreement, bytes32 reasonHash) external {
        Rental storage r = _inState(agreement, RentalState.Rented);
        if (msg.sender != r.renter) revert NotAuthorized(agreement, msg.sender);
        uint64 until = r.offer.until + r.offer.challenge;
        if (block.timestamp >= until) revert WrongTime(agreement, until);
        (r.state, r.since) = (RentalState.Disputed, uint64(block.timestamp));
        emit Disputed(agreement, reasonHash);
    }

    /// @notice The arbiter says how much was used; not before `until`, and not more than was proven.
    function resolve(uint256 agreement, uint128 usageE6) external {
        Rental storage r = _inState(agreement, RentalState.Disputed);
        if (msg.sender != r.offer.arbiter) revert NotAuthorized(agreement, msg.sender);
        if (block.timestamp < r.offer.until) revert WrongTime(agreement, r.offer.until);
        if (usageE6 > r.usageE6) revert MoreThanProven(usageE6, r.usageE6);
        r.usageE6 = usageE6;
        emit Resolved(agreement, usageE6);
        _settle(agreement, r);
    }

    /// @notice Divides the deposit by what was proven, once the challenge window has passed; a dispute's once the arbiter has not
    /// decided in time. Anybody may.
    function settle(uint256 agreement) external {
        Rental storage r = _rentalOf(agreement);
        if (r.state != RentalState.Rented && r.state != RentalState.Disputed) revert WrongState(agreement, r.state);
        uint64 from = r.offer.until + r.offer.challenge;
        if (r.state == RentalState.Disputed) from += r.offer.arbitration;
        if (block.timestamp < from) revert WrongTime(agreement, from);
        _settle(agreement, r);
    }

    /// @notice Pays what is the caller's.
    function withdraw(IERC20 token) external nonReentrant {
        uint256 amount = _balances[msg.sender][token];
        _balances[msg.sender][token] = 0;
        token.safeTransfer(msg.sender, amount);
        emit Withdrawn(msg.sender, token, amount);
    }

    // ── reading ─────────────────────────────────────────────────────────────

    /// @notice All that is known of a rental.
    function rentalOf(uint256 agreement) external view returns (Rental memory) {
        return _rentalOf(agreement);
    }

    /// @notice What an account can withdraw.
    function balanceOf(address account, IERC20 token) external view returns (uint256) {
        return _balances[account][token];
    }

    /// @notice What a machine signs: the EIP-712 digest of an offer, for this chain and this contract.
    function digestOf(Offer calldata offer) public view returns (bytes32) {
        Subject calldata s = offer.subject;
        bytes32 subject = keccak256(abi.encode(SUBJECT_TYPE_HASH, s.log, s.logId, s.deviceId, s.models, s.registryId));
        // In two parts: the compiler has not enough stack for one.
        bytes memory parties = abi.encode(
            OFFER_TYPE_HASH, offer.machine, offer.renter, offer.arbiter, offer.token, offer.price, offer.deposit
        );
        bytes memory terms =
            abi.encode(offer.class_, offer.from, offer.until, offer.challenge, offer.arbitration, offer.nonce, subject);
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
        return r.state == RentalState.Rented && verdict.class_ == r.offer.class_ && verdict.scoreE6 > 0
            && verdict.windowStart >= r.offer.from * 1000 && verdict.windowEnd <= r.offer.until * 1000
            && verdict.windowStart / 1000 >= r.since && block.timestamp < r.offer.until + r.offer.challenge;
    }

    function _act(uint256 agreement, Verdict calldata verdict, uint64 index) internal override {
        Rental storage r = _rentals[agreement];
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

    function _settle(uint256 agreement, Rental storage r) private {
        uint256 deposit = r.offer.deposit;
        uint256 due = uint256(r.usageE6) * r.offer.price / 1e6;
        if (due > deposit) due = deposit;
        (r.state, r.since) = (RentalState.Settled, uint64(block.timestamp));
        _balances[r.offer.machine][r.offer.token] += due;
        _balances[r.renter][r.offer.token] += deposit - due;
        emit Settled(agreement, due, deposit - due);
    }
}
