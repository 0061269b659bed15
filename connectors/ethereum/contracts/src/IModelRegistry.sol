// SPDX-License-Identifier: Apache-2.0 OR MIT
pragma solidity 0.8.37;

import {IERC165} from "@openzeppelin/contracts/utils/introspection/IERC165.sol";

/// @notice What a registry knows of a model. Times are in seconds since the Unix epoch, those of the blocks that hold them.
struct Model {
    /// When it was proposed; 0 if it never was.
    uint64 proposedAt;
    /// When its window begins; 0 until it is activated.
    uint64 activeFrom;
    /// When its window ends, which is no part of it.
    uint64 activeUntil;
    /// When it was revoked; 0 if it was not.
    uint64 revokedAt;
    /// SHA-256 of what it was trained on, as its card has it.
    bytes32 dataHash;
    /// Who proposed it.
    address proposer;
}

/// @title Which models may decide, and since when
/// @notice Two people stand behind every model: a publisher proposes it, an approver, who is somebody else, activates it for a
/// window of time. Nothing is backdated: a window begins now or later, and a revocation takes effect when it is made.
/// @dev Anyone may keep registries here; a registry's id is bound to who registered it. Nobody administers the contract.
interface IModelRegistry is IERC165 {
    /// @notice No registry has this id.
    error UnknownRegistry(bytes32 registryId);
    /// @notice The owner has registered this name already.
    error AlreadyRegistered(bytes32 registryId);
    /// @notice An address may not be zero, and publisher and approver may not be one.
    error BadRoles(address publisher, address approver);
    /// @notice This takes another role.
    error NotAuthorized(bytes32 registryId, address caller);
    /// @notice The model was proposed before.
    error AlreadyProposed(bytes32 registryId, bytes32 modelHash);
    /// @notice The model was not proposed.
    error NotProposed(bytes32 registryId, bytes32 modelHash);
    /// @notice The model was activated before; a window is set once, and only ever cut short.
    error AlreadyActivated(bytes32 registryId, bytes32 modelHash);
    /// @notice The model was revoked, for good.
    error Revoked(bytes32 registryId, bytes32 modelHash);
    /// @notice Who proposed a model may not activate it, whatever roles were given since.
    error SamePerson(bytes32 registryId, bytes32 modelHash, address caller);
    /// @notice A window begins now or later, and ends after it begins.
    error BadWindow(uint64 from, uint64 until, uint64 present);

    /// @notice A registry came into being, or its roles changed.
    /// @param registryId `registryIdOf(owner, name)`.
    /// @param owner Who registered it.
    /// @param name The owner's name for it.
    /// @param publisher Who may propose from here on.
    /// @param approver Who may activate from here on.
    event RolesSet(
        bytes32 indexed registryId, address indexed owner, bytes32 indexed name, address publisher, address approver
    );

    /// @notice A model was proposed.
    /// @param registryId The registry.
    /// @param modelHash SHA-256 of the model file.
    /// @param publisher Who proposed it.
    /// @param dataHash SHA-256 of what it was trained on, as its card has it.
    /// @param uri Where its file is; what counts is its hash.
    event ModelProposed(
        bytes32 indexed registryId, bytes32 indexed modelHash, address indexed publisher, bytes32 dataHash, string uri
    );

    /// @notice A model may decide from `from` to `until`.
    /// @param registryId The registry.
    /// @param modelHash SHA-256 of the model file.
    /// @param approver Who activated it.
    /// @param from When its window begins, in seconds since the Unix epoch.
    /// @param until When it ends.
    event ModelActivated(
        bytes32 indexed registryId, bytes32 indexed modelHash, address indexed approver, uint64 from, uint64 until
    );

    /// @notice A model may not decide any more.
    /// @param registryId The registry.
    /// @param modelHash SHA-256 of the model file.
    /// @param by Who revoked it.
    /// @param reasonHash SHA-256 of the reason, which is kept elsewhere.
    event ModelRevoked(bytes32 indexed registryId, bytes32 indexed modelHash, address indexed by, bytes32 reasonHash);

    /// @notice Makes a registry of the caller's.
    /// @param name The caller's name for it.
    /// @param publisher Who may propose.
    /// @param approver Who may activate; somebody else.
    /// @return registryId `registryIdOf(msg.sender, name)`.
    function register(bytes32 name, address publisher, address approver) external returns (bytes32 registryId);

    /// @notice Gives the roles to others. Only the owner may; what was done before stands.
    /// @param name The caller's name for the registry.
    /// @param publisher Who may propose from here on.
    /// @param approver Who may activate from here on; somebody else.
    /// @return registryId `registryIdOf(msg.sender, name)`.
    function setRoles(bytes32 name, address publisher, address approver) external returns (bytes32 registryId);

    /// @notice Proposes a model. Only the publisher may.
    /// @param registryId The registry.
    /// @param modelHash SHA-256 of the model file.
    /// @param dataHash SHA-256 of what it was trained on, as its card has it.
    /// @param uri Where its file is.
    function propose(bytes32 registryId, bytes32 modelHash, bytes32 dataHash, string calldata uri) external;

    /// @notice Lets a proposed model decide in a window. Only the approver may, and once.
    /// @param registryId The registry.
    /// @param modelHash SHA-256 of the model file.
    /// @param from Its beginning, in seconds since the Unix epoch; 0: now.
    /// @param until Its end; the largest number: until it is revoked.
    function activate(bytes32 registryId, bytes32 modelHash, uint64 from, uint64 until) external;

    /// @notice Ends a model's right to decide, now and for good. Publisher, approver and owner may.
    /// @param registryId The registry.
    /// @param modelHash SHA-256 of the model file.
    /// @param reasonHash SHA-256 of the reason, which is kept elsewhere.
    function revoke(bytes32 registryId, bytes32 modelHash, bytes32 reasonHash) external;

    /// @notice Whether a model may decide at a time: within its window, and not after its revocation. Of a time that is still to come the
    /// answer can change.
    /// @param registryId The registry.
    /// @param modelHash SHA-256 of the model file.
    /// @param when Seconds since the Unix epoch.
    /// @return True if it may.
    function isActive(bytes32 registryId, bytes32 modelHash, uint64 when) external view returns (bool);

    /// @notice What is known of a model; all zero if nothing is.
    /// @param registryId The registry.
    /// @param modelHash SHA-256 of the model file.
    /// @return The model.
    function modelOf(bytes32 registryId, bytes32 modelHash) external view returns (Model memory);

    /// @notice Owner, publisher and approver of a registry; zero if there is none.
    /// @param registryId The registry.
    /// @return owner Who registered it.
    /// @return publisher Who may propose.
    /// @return approver Who may activate.
    function rolesOf(bytes32 registryId) external view returns (address owner, address publisher, address approver);

    /// @notice The id of a registry.
    /// @param owner Who registers it.
    /// @param name The owner's name for it.
    /// @return keccak256(abi.encode(owner, name)).
    function registryIdOf(address owner, bytes32 name) external pure returns (bytes32);
}
