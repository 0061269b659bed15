//! The contracts as Rust sees them. Private: the room's public types are plain, see [`super::checkpoint`].
//!
//! A test holds each interface against the ABI of the committed artifact, selector by selector.
#![allow(missing_docs)]

use alloy::sol;

sol! {
    #[derive(Debug, PartialEq, Eq)]
    struct Checkpoint {
        bytes32 logId;
        uint64 oldSize;
        uint64 newSize;
        bytes32 oldRoot;
        bytes32 newRoot;
        bytes32 dataCommitment;
        uint64 issuedAt;
    }

    #[derive(Debug, PartialEq, Eq)]
    struct Anchored {
        uint64 size;
        bytes32 root;
        uint64 issuedAt;
        uint64 anchoredAt;
        uint64 blockNumber;
    }

    #[derive(Debug, PartialEq, Eq)]
    interface VerdictLog {
        error UnknownLog(bytes32 logId);
        error AlreadyRegistered(bytes32 logId);
        error LogClosed(bytes32 logId, address successor);
        error ZeroAddress();
        error NotAuthorized(bytes32 logId, address caller);
        error StaleCheckpoint(bytes32 logId, uint64 headSize, bytes32 headRoot);
        error NotLonger(uint64 oldSize, uint64 newSize);
        error InvalidSignature(bytes32 logId, address signer);
        error InconsistentLog(bytes32 logId, uint64 oldSize, uint64 newSize);
        error UnknownCheckpoint(bytes32 logId, uint64 size);

        event LogRegistered(bytes32 indexed logId, address indexed owner, bytes32 indexed name, address signer);
        event SignerChanged(bytes32 indexed logId, address indexed previous, address indexed current);
        event LogSucceeded(bytes32 indexed logId, address indexed successor);
        event CheckpointAdvanced(
            bytes32 indexed logId,
            uint64 indexed newSize,
            uint64 oldSize,
            bytes32 newRoot,
            bytes32 dataCommitment,
            uint64 issuedAt
        );

        function register(bytes32 name, address signer) external returns (bytes32 logId);
        function setSigner(bytes32 logId, address signer) external;
        function setSuccessor(bytes32 logId, address successor) external;
        function advance(Checkpoint calldata checkpoint, bytes32[] calldata proof, bytes calldata signature) external;
        function logIdOf(address owner, bytes32 name) external pure returns (bytes32);
        function head(bytes32 logId) external view returns (Anchored memory);
        function checkpointOf(bytes32 logId, uint64 size) external view returns (Anchored memory);
        function verifyInclusion(bytes32 logId, bytes32 entry, uint64 index, uint64 size, bytes32[] calldata proof)
            external
            view
            returns (bool);
        function ownerOf(bytes32 logId) external view returns (address);
        function signerOf(bytes32 logId) external view returns (address);
        function successorOf(bytes32 logId) external view returns (address);
        function digestOf(Checkpoint calldata checkpoint) external view returns (bytes32);
        function supportsInterface(bytes4 interfaceId) external view returns (bool);
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
            );
    }

    #[derive(Debug, PartialEq, Eq)]
    struct DeviceKey {
        bytes32 keyHash;
        uint64 fromSeq;
        uint64 untilSeq;
        uint64 enrolledAt;
    }

    #[derive(Debug, PartialEq, Eq)]
    struct Enrolment {
        bytes32 fleetId;
        bytes32 deviceId;
        uint64 fromSeq;
        bytes key;
    }

    #[derive(Debug, PartialEq, Eq)]
    interface DeviceRegistry {
        error UnknownFleet(bytes32 fleetId);
        error AlreadyRegistered(bytes32 fleetId);
        error ZeroAddress();
        error NotAuthorized(bytes32 fleetId, address caller);
        error AlreadyEnrolled(bytes32 fleetId, bytes32 deviceId);
        error UnknownDevice(bytes32 fleetId, bytes32 deviceId);
        error UnknownKey(bytes32 fleetId, bytes32 deviceId, uint256 number);
        error NotSpokenFor(uint64 given, uint64 fromSeq, uint64 untilSeq);
        error BadSeq(uint64 given, uint64 least);
        error BadKey();
        error NoConsent(bytes32 fleetId, bytes32 deviceId);
        error CheckedOffChain();

        event EnrollerSet(bytes32 indexed fleetId, address indexed owner, bytes32 indexed name, address enroller);
        event DeviceKeySet(
            bytes32 indexed fleetId, bytes32 indexed deviceId, uint256 number, uint64 fromSeq, bytes key, bytes consent
        );
        event DeviceRevoked(
            bytes32 indexed fleetId, bytes32 indexed deviceId, uint256 number, uint64 fromSeq, bytes32 reasonHash
        );

        function ED25519() external view returns (address);
        function register(bytes32 name, address enroller) external returns (bytes32 fleetId);
        function setEnroller(bytes32 name, address enroller) external returns (bytes32 fleetId);
        function enrol(bytes32 fleetId, bytes32 deviceId, bytes calldata key, bytes calldata consent) external;
        function rotate(bytes32 fleetId, bytes32 deviceId, uint64 fromSeq, bytes calldata key, bytes calldata consent)
            external;
        function revoke(bytes32 fleetId, bytes32 deviceId, uint256 number, uint64 fromSeq, bytes32 reasonHash) external;
        function verify(
            bytes32 fleetId,
            bytes32 deviceId,
            uint64 seq,
            bytes calldata key,
            bytes32 hash,
            bytes calldata signature
        ) external view returns (bool);
        function keyAt(bytes32 fleetId, bytes32 deviceId, uint64 seq) external view returns (DeviceKey memory);
        function keysOf(bytes32 fleetId, bytes32 deviceId) external view returns (uint256);
        function fleetOf(bytes32 fleetId) external view returns (address owner, address enroller);
        function fleetIdOf(address owner, bytes32 name) external pure returns (bytes32);
        function digestOf(Enrolment calldata enrolment) external view returns (bytes32);
        function supportsInterface(bytes4 interfaceId) external view returns (bool);
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
            );
    }

    #[derive(Debug, PartialEq, Eq)]
    struct Model {
        uint64 proposedAt;
        uint64 activeFrom;
        uint64 activeUntil;
        uint64 revokedAt;
        bytes32 dataHash;
        address proposer;
    }

    #[derive(Debug, PartialEq, Eq)]
    interface ModelRegistry {
        error UnknownRegistry(bytes32 registryId);
        error AlreadyRegistered(bytes32 registryId);
        error BadRoles(address publisher, address approver);
        error NotAuthorized(bytes32 registryId, address caller);
        error AlreadyProposed(bytes32 registryId, bytes32 modelHash);
        error NotProposed(bytes32 registryId, bytes32 modelHash);
        error AlreadyActivated(bytes32 registryId, bytes32 modelHash);
        error Revoked(bytes32 registryId, bytes32 modelHash);
        error SamePerson(bytes32 registryId, bytes32 modelHash, address caller);
        error BadWindow(uint64 from, uint64 until, uint64 present);

        event RolesSet(
            bytes32 indexed registryId, address indexed owner, bytes32 indexed name, address publisher, address approver
        );
        event ModelProposed(
            bytes32 indexed registryId, bytes32 indexed modelHash, address indexed publisher, bytes32 dataHash, string uri
        );
        event ModelActivated(
            bytes32 indexed registryId, bytes32 indexed modelHash, address indexed approver, uint64 from, uint64 until
        );
        event ModelRevoked(
            bytes32 indexed registryId, bytes32 indexed modelHash, address indexed by, bytes32 reasonHash
        );

        function register(bytes32 name, address publisher, address approver) external returns (bytes32 registryId);
        function setRoles(bytes32 name, address publisher, address approver) external returns (bytes32 registryId);
        function propose(bytes32 registryId, bytes32 modelHash, bytes32 dataHash, string calldata uri) external;
        function activate(bytes32 registryId, bytes32 modelHash, uint64 from, uint64 until) external;
        function revoke(bytes32 registryId, bytes32 modelHash, bytes32 reasonHash) external;
        function isActive(bytes32 registryId, bytes32 modelHash, uint64 when) external view returns (bool);
        function modelOf(bytes32 registryId, bytes32 modelHash) external view returns (Model memory);
        function rolesOf(bytes32 registryId)
            external
            view
            returns (address owner, address publisher, address approver);
        function registryIdOf(address owner, bytes32 name) external pure returns (bytes32);
        function supportsInterface(bytes4 interfaceId) external view returns (bool);
    }
}
