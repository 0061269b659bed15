// SPDX-License-Identifier: Apache-2.0 OR MIT
pragma solidity 0.8.37;

import {IVerdictLog} from "./IVerdictLog.sol";
import {Proof, Verdict} from "./Verdict.sol";
import {IERC165} from "@openzeppelin/contracts/utils/introspection/IERC165.sol";

/// @notice Where a case stands.
enum State {
    /// There is no case.
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

/// @notice The id of a log's desk.
/// @param log The witness.
/// @param logId The log.
/// @return keccak256(abi.encode(log, logId)).
function deskIdFor(IVerdictLog log, bytes32 logId) pure returns (bytes32) {
    return keccak256(abi.encode(log, logId));
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
    /// What a dispute costs until it is decided, in wei. With 0 disputes are free, and so is keeping a verdict from counting
    /// until the arbiter has decided.
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
/// appended there as a record of its own, a label, which `link` ties to the case.
///
/// A verdict counts until somebody says otherwise: a case that the overseer never answers stays open, and its verdict stands.
/// There is nothing to dispute before an answer. The owner's own dispute costs it nothing, since a bond that is lost is the
/// owner's; overseer and arbiter are the owner's choice, and whoever relies on a desk judges that choice.
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
    /// @notice The entry is no label about the device and the window of the case's verdict, is not later than it in the log, or
    /// was linked before.
    error NotALink(bytes32 caseId, uint64 index);
    /// @notice There is nothing to withdraw, or the recipient does not take it.
    error NotWithdrawn(address account, uint256 amount);

    /// @notice A log's verdicts can be questioned.
    /// @param deskId `deskIdOf(desk.log, desk.logId)`.
    /// @param owner The log's owner.
    /// @param logId The log.
    /// @param desk Its terms, for good.
    event DeskOpened(bytes32 indexed deskId, address indexed owner, bytes32 indexed logId, Desk desk);

    /// @notice A verdict was questioned.
    /// @param caseId `caseIdOf(deskId, index)`.
    /// @param deskId The desk.
    /// @param deviceId The device that the verdict is about.
    /// @param index The verdict's index in the log.
    /// @param opener Who questioned it.
    /// @param verdict The verdict.
    event CaseOpened(
        bytes32 indexed caseId,
        bytes32 indexed deskId,
        bytes32 indexed deviceId,
        uint64 index,
        address opener,
        Verdict verdict
    );

    /// @notice The overseer has answered.
    /// @param caseId The case.
    /// @param state `Acknowledged` or `Overridden`.
    /// @param by The overseer.
    /// @param reasonHash SHA-256 of the reason, which is kept elsewhere.
    event CaseAnswered(bytes32 indexed caseId, State state, address by, bytes32 reasonHash);

    /// @notice Somebody disagrees with the answer.
    /// @param caseId The case.
    /// @param disputer Who.
    /// @param answer The answer that is disputed: `Acknowledged` or `Overridden`.
    /// @param bond What was paid, in wei.
    /// @param reasonHash SHA-256 of the reason, which is kept elsewhere.
    event CaseDisputed(
        bytes32 indexed caseId, address indexed disputer, State answer, uint256 bond, bytes32 reasonHash
    );

    /// @notice A dispute is over.
    /// @param caseId The case.
    /// @param upheld Whether the arbiter agreed with the disputer; false also where it did not decide in time.
    /// @param stands Whether the verdict counts, for good.
    /// @param reasonHash SHA-256 of the last reason given.
    event CaseResolved(bytes32 indexed caseId, bool upheld, bool stands, bytes32 reasonHash);

    /// @notice A label in the log is about the case's verdict.
    /// @param caseId The case.
    /// @param index The label's index in the log.
    /// @param class_ What it says: 9 true alarm, 10 false alarm, 11 missed, 12 healthy.
    /// @param entry The label's entry.
    event CaseLinked(bytes32 indexed caseId, uint64 index, uint16 class_, bytes32 entry);

    /// @notice An account took what belonged to it.
    /// @param account The account.
    /// @param amount How much, in wei.
    event Withdrawn(address indexed account, uint256 amount);

    /// @notice Opens the desk of a log. Only the log's owner may, once; its terms are for good, so that nobody changes them
    /// under an open case.
    /// @param desk Its terms. The owner must be the caller.
    /// @return deskId `deskIdOf(log, logId)`.
    function openDesk(Desk calldata desk) external returns (bytes32 deskId);

    /// @notice Opens a case about a proven verdict. Anybody may; a verdict has one case.
    /// @param deskId The log's desk.
    /// @param verdict The verdict.
    /// @param proof Where it stands in the log.
    /// @return caseId `caseIdOf(deskId, index)`.
    function open(bytes32 deskId, Verdict calldata verdict, Proof calldata proof) external returns (bytes32 caseId);

    /// @notice The overseer stands by the verdict.
    /// @param caseId The case.
    /// @param reasonHash SHA-256 of the reason, which is kept elsewhere.
    function acknowledge(bytes32 caseId, bytes32 reasonHash) external;

    /// @notice The overseer does not. Possible also after an acknowledgement, while nobody disputes it and its time to be disputed
    /// has not passed.
    /// @param caseId The case.
    /// @param reasonHash SHA-256 of the reason, which is kept elsewhere.
    function overrule(bytes32 caseId, bytes32 reasonHash) external;

    /// @notice Says with a bond that the answer is wrong; once a case, within the desk's window. The bond must be the desk's.
    /// @param caseId The case.
    /// @param answer The answer that is disputed. If it was changed meanwhile the call is refused, so that nobody finds itself
    /// on the other side.
    /// @param reasonHash SHA-256 of the reason, which is kept elsewhere.
    function dispute(bytes32 caseId, State answer, bytes32 reasonHash) external payable;

    /// @notice The arbiter decides, in its time. If the dispute is upheld the answer is turned round and the bond goes back; else
    /// the bond is the desk's owner's.
    /// @param caseId The case.
    /// @param upheld Whether the disputer is right.
    /// @param reasonHash SHA-256 of the reason, which is kept elsewhere.
    function resolve(bytes32 caseId, bool upheld, bytes32 reasonHash) external;

    /// @notice Ends a dispute that the arbiter did not decide in time: the answer stands, and the bond goes back.
    /// Anybody may.
    /// @param caseId The case.
    function lapse(bytes32 caseId) external;

    /// @notice Ties a label to the case: what a person says of the verdict's device and window, as a later record of the same log
    /// has it. Anybody may, once a label. It changes nothing about the case: which answer binds is the overseer's to say, and the
    /// event shows whether the log says the same.
    /// @param caseId The case.
    /// @param answered The case's verdict.
    /// @param label The label: of class 9 to 12, by no model, about the same device and window.
    /// @param proof Where the label stands in the log.
    function link(bytes32 caseId, Verdict calldata answered, Verdict calldata label, Proof calldata proof) external;

    /// @notice Pays what belongs to the caller.
    function withdraw() external;

    /// @notice What belongs to an account, in wei.
    /// @param account The account.
    /// @return The amount.
    function balanceOf(address account) external view returns (uint256);

    /// @notice Whether a proven verdict counts: no case, or one whose last answer lets it stand and that is not disputed.
    /// @param deskId The log's desk; of one that is not open every verdict counts.
    /// @param index The verdict's index in the log. That there is such a verdict is for a proof to show.
    /// @return True if it counts.
    function stands(bytes32 deskId, uint64 index) external view returns (bool);

    /// @notice Whether what `stands` says of a verdict cannot change any more: its answer can be disputed no longer, or a dispute is
    /// decided. False where there is no answer: somebody may still open a case.
    /// @param deskId The log's desk.
    /// @param index The verdict's index in the log.
    /// @return True if it is final.
    function isFinal(bytes32 deskId, uint64 index) external view returns (bool);

    /// @notice A case; all zero if there is none.
    /// @param caseId `caseIdOf(deskId, index)`.
    /// @return The case.
    function caseOf(bytes32 caseId) external view returns (Case memory);

    /// @notice A desk; all zero if there is none.
    /// @param deskId `deskIdOf(log, logId)`.
    /// @return The desk.
    function deskOf(bytes32 deskId) external view returns (Desk memory);

    /// @notice The id of a log's desk.
    /// @param log The witness.
    /// @param logId The log.
    /// @return keccak256(abi.encode(log, logId)).
    function deskIdOf(IVerdictLog log, bytes32 logId) external pure returns (bytes32);

    /// @notice The id of a verdict's case.
    /// @param deskId The log's desk.
    /// @param index The verdict's index in the log.
    /// @return keccak256(abi.encode(deskId, index)).
    function caseIdOf(bytes32 deskId, uint64 index) external pure returns (bytes32);
}
