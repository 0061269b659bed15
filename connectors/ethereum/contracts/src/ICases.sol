// SPDX-License-Identifier: Apache-2.0 OR MIT
pragma solidity 0.8.37;

import {IVerdictLog} from "./IVerdictLog.sol";
import {Proof, Verdict} from "./Verdict.sol";
import {IERC165} from "@openzeppelin/contracts/utils/introspection/IERC165.sol";

/// @notice Where a case stands.
enum State {
    None,
    /// Somebody has proven the verdict, and nobody has answered.
    Open,
    /// The overseer stands by it.
    Acknowledged,
    /// The overseer does not: what it decided is not to be acted on.
    Overridden,
    /// Somebody has paid a bond to say that the last answer is wrong.
    Disputed,
    /// The arbiter has decided, for good.
    Resolved
}

/// @notice How a log's owner lets its verdicts be questioned.
struct Desk {
    /// Who keeps it: the owner of the log.
    address owner;
    /// Answers cases: a person who may acknowledge and override.
    address overseer;
    /// Decides disputes: neither owner nor overseer.
    address arbiter;
    /// The log's witness.
    IVerdictLog log;
    /// The log.
    bytes32 logId;
    /// What a dispute costs until it is decided, in wei.
    uint96 bond;
    /// How long after the last answer a dispute may begin, in seconds.
    uint32 disputeWindow;
    /// How long the arbiter has; after that anybody may end the dispute, and the bond goes back.
    uint32 arbitration;
}

/// @notice A verdict that somebody has questioned.
struct Case {
    State state;
    /// Of the last answer; of the opening before the first. Seconds since the Unix epoch.
    uint64 since;
    /// Its index in the log.
    uint64 index;
    /// Who paid the bond; zero where there is no dispute.
    address disputer;
    /// What was paid, in wei.
    uint96 bond;
    /// What the verdict counts for if it is disputed no more: false once it is overridden, or a dispute is upheld.
    bool stands;
    /// The log's entry.
    bytes32 entry;
    /// SHA-256 of the last reason given.
    bytes32 reasonHash;
}

/// @title Cases: a person's answer to a machine's verdict
/// @notice A proven verdict can be opened as a case by anybody, once. Its desk's overseer acknowledges or overrides it; who
/// disagrees disputes the answer with a bond, and an arbiter decides. Nothing in the log changes: an override is also
/// appended there as a verdict of its own, which `link` ties to the case.
/// @dev Money only ever waits here to be withdrawn by whom it belongs to, so that nobody's refusal to take it blocks a case.
interface ICases is IERC165 {
    /// @notice No desk has this id.
    error UnknownDesk(bytes32 deskId);
    /// @notice There is one for this log already, or it is not the caller's log.
    error DeskRefused(bytes32 deskId);
    /// @notice The three roles must be three addresses that are not zero, and the times at least an hour.
    error BadDesk();
    /// @notice This takes another role.
    error NotAuthorized(bytes32 caseId, address caller);
    /// @notice Where the case stands this cannot be done.
    error WrongState(bytes32 caseId, State state);
    /// @notice Too late, or too early: the time that matters is `when`.
    error WrongTime(bytes32 caseId, uint64 when);
    /// @notice Exactly the desk's bond must be paid.
    error WrongBond(uint256 paid, uint256 bond);
    /// @notice The entry is not about the same device, or is the case's own verdict.
    error NotALink(bytes32 caseId, uint64 index);
    /// @notice There is nothing to withdraw, or the recipient does not take it.
    error NotWithdrawn(address account, uint256 amount);

    event DeskOpened(bytes32 indexed deskId, address indexed owner, bytes32 indexed logId, Desk desk);
    event CaseOpened(
        bytes32 indexed caseId,
        bytes32 indexed deskId,
        bytes32 indexed deviceId,
        uint64 index,
        address opener,
        Verdict verdict
    );
    event CaseAnswered(bytes32 indexed caseId, State state, address by, bytes32 reasonHash);
    event CaseDisputed(bytes32 indexed caseId, address indexed disputer, uint256 bond, bytes32 reasonHash);
    event CaseResolved(bytes32 indexed caseId, bool upheld, bool stands, bytes32 reasonHash);
    event CaseLinked(bytes32 indexed caseId, uint64 index, bytes32 entry);
    event Withdrawn(address indexed account, uint256 amount);

    /// @notice Opens the desk of a log. Only the log's owner may, once; its terms are for good, so that nobody changes them
    /// under an open case.
    /// @return deskId `deskIdOf(log, logId)`.
    function openDesk(Desk calldata desk) external returns (bytes32 deskId);

    /// @notice Opens a case about a proven verdict. Anybody may; a verdict has one case.
    /// @return caseId `caseIdOf(deskId, index)`.
    function open(bytes32 deskId, Verdict calldata verdict, Proof calldata proof) external returns (bytes32 caseId);

    /// @notice The overseer stands by the verdict.
    function acknowledge(bytes32 caseId, bytes32 reasonHash) external;

    /// @notice The overseer does not. Possible also after an acknowledgement, while nobody disputes it.
    function overrule(bytes32 caseId, bytes32 reasonHash) external;

    /// @notice Says with a bond that the last answer is wrong; once a case, within the desk's window.
    function dispute(bytes32 caseId, bytes32 reasonHash) external payable;

    /// @notice The arbiter decides. If the dispute is upheld the answer is turned round and the bond goes back; else the bond
    /// is the desk's owner's.
    function resolve(bytes32 caseId, bool upheld, bytes32 reasonHash) external;

    /// @notice Ends a dispute that the arbiter did not decide in time: the answer stands, and the bond goes back.
    function lapse(bytes32 caseId) external;

    /// @notice Ties an entry of the same log about the same device to the case: the override as the log has it.
    function link(bytes32 caseId, Verdict calldata answered, Verdict calldata entry, Proof calldata proof) external;

    /// @notice Pays what belongs to the caller.
    function withdraw() external;

    /// @notice What belongs to an account, in wei.
    function balanceOf(address account) external view returns (uint256);

    /// @notice Whether a proven verdict counts: no case, or one whose last answer lets it stand and that is not disputed.
    function stands(bytes32 deskId, uint64 index) external view returns (bool);

    /// @notice A case; all zero if there is none.
    function caseOf(bytes32 caseId) external view returns (Case memory);

    /// @notice A desk; all zero if there is none.
    function deskOf(bytes32 deskId) external view returns (Desk memory);

    /// @notice keccak256(abi.encode(log, logId)).
    function deskIdOf(IVerdictLog log, bytes32 logId) external pure returns (bytes32);

    /// @notice keccak256(abi.encode(deskId, index)).
    function caseIdOf(bytes32 deskId, uint64 index) external pure returns (bytes32);
}
