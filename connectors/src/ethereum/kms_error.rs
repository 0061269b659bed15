//! Why a key in AWS KMS cannot be used, and what to do about it.

use std::time::Duration;

use alloy::primitives::Address;
use thiserror::Error;

/// What is asked of the service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KmsAction {
    /// Which key it is.
    GetPublicKey,
    /// A signature.
    Sign,
}

impl KmsAction {
    /// Its name in the service's interface and in policies.
    pub fn name(self) -> &'static str {
        match self {
            Self::GetPublicKey => "GetPublicKey",
            Self::Sign => "Sign",
        }
    }
}

impl std::fmt::Display for KmsAction {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "kms:{}", self.name())
    }
}

/// Why a key in AWS KMS cannot be used. Each names the key. What the service said is shown as it stands; it holds no secrets.
#[derive(Debug, Error)]
pub enum KmsError {
    /// The program was built without it.
    #[error(
        "key {key} is in AWS KMS, which this build of the program cannot reach; build it with the cargo feature `aws-kms`, which is on by default, or use a keystore file"
    )]
    NotBuilt {
        /// The key.
        key: String,
    },
    /// Nobody says where the key is.
    #[error("key {key} in AWS KMS: no region is given; name it, give the key's whole ARN, or set AWS_REGION")]
    NoRegion {
        /// The key.
        key: String,
    },
    /// The key lies elsewhere than said.
    #[error("key {key} in AWS KMS: its ARN says region {arn}, but {given} is given; remove one of the two")]
    OtherRegion {
        /// The key.
        key: String,
        /// The ARN's.
        arn: String,
        /// The configured one.
        given: String,
    },
    /// The text can be no key.
    #[error(
        "`{key}` is no key in AWS KMS; write its ARN (arn:aws:kms:REGION:ACCOUNT:key/ID), its id, or an alias (alias/NAME)"
    )]
    NoKey {
        /// The text.
        key: String,
    },
    /// The region is no name of one.
    #[error("key {key} in AWS KMS: its region is no region's name, such as eu-central-1")]
    BadRegion {
        /// The key.
        key: String,
    },
    /// The endpoint is no URL.
    #[error(
        "key {key} in AWS KMS: its endpoint must be an http:// or https:// URL without user name, password and query, such as https://kms.eu-central-1.amazonaws.com"
    )]
    BadEndpoint {
        /// The key.
        key: String,
    },
    /// There are no credentials, or they cannot be had now.
    #[error(
        "key {key} in AWS KMS: no credentials ({reason}); set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or give this machine or container a role"
    )]
    NoCredentials {
        /// The key.
        key: String,
        /// Why.
        reason: String,
    },
    /// The service does not know the credentials.
    #[error(
        "key {key} in AWS KMS: {endpoint} does not accept these credentials ({code}: {message}); renew them, and check this machine's clock"
    )]
    BadCredentials {
        /// The key.
        key: String,
        /// The service.
        endpoint: String,
        /// Its code.
        code: String,
        /// Its words.
        message: String,
    },
    /// The credentials do not suffice.
    #[error(
        "key {key} in AWS KMS: {action} is not allowed ({message}); allow kms:GetPublicKey and kms:Sign on this key in its key policy, or in the policy of the role that this program runs as"
    )]
    Denied {
        /// The key.
        key: String,
        /// What was asked.
        action: KmsAction,
        /// The service's words.
        message: String,
    },
    /// No such key or alias.
    #[error(
        "key {key} is not in AWS KMS at {endpoint} ({message}); check the key, its account and its region: a key of another account needs its whole ARN"
    )]
    NotFound {
        /// The key.
        key: String,
        /// The service.
        endpoint: String,
        /// Its words.
        message: String,
    },
    /// The key is disabled, or about to be deleted.
    #[error(
        "key {key} in AWS KMS cannot sign in its present state ({message}); enable it or cancel its deletion, or hand the logs over to another key with `avouch rotate`"
    )]
    NotEnabled {
        /// The key.
        key: String,
        /// The service's words.
        message: String,
    },
    /// Another kind of key.
    #[error(
        "key {key} in AWS KMS is {found}; Ethereum's signatures need ECC_SECG_P256K1 for SIGN_VERIFY: make such a key (`aws kms create-key --key-spec ECC_SECG_P256K1 --key-usage SIGN_VERIFY`)"
    )]
    WrongSpec {
        /// The key.
        key: String,
        /// What it is.
        found: String,
    },
    /// The signature is not one of the account.
    #[error(
        "key {key} in AWS KMS gave a signature that is not one of account {address}, which it was when it was opened; nothing was sent. If its alias was moved to another key, move it back and hand the logs over with `avouch rotate` first; else do not trust that endpoint"
    )]
    WrongKey {
        /// The key.
        key: String,
        /// Its account when it was opened.
        address: Address,
    },
    /// Nobody answered.
    #[error(
        "key {key} in AWS KMS: cannot reach {endpoint} ({reason}); check the region, and that this machine may reach it"
    )]
    Unreachable {
        /// The key.
        key: String,
        /// The service.
        endpoint: String,
        /// The innermost cause.
        reason: String,
    },
    /// It took too long.
    #[error("key {key} in AWS KMS: no answer to {action} from {endpoint} within {after:?}")]
    Timeout {
        /// The key.
        key: String,
        /// The service.
        endpoint: String,
        /// What was asked.
        action: KmsAction,
        /// How long was waited.
        after: Duration,
    },
    /// The service has more to do than it will, or a fault of its own.
    #[error(
        "key {key} in AWS KMS: {endpoint} cannot answer {action} now ({code}: {message}); it is asked again. If this lasts, look at the account's request quotas"
    )]
    Busy {
        /// The key.
        key: String,
        /// The service.
        endpoint: String,
        /// What was asked.
        action: KmsAction,
        /// Its code.
        code: String,
        /// Its words.
        message: String,
    },
    /// It said no, for a reason without a variant of its own.
    #[error("key {key} in AWS KMS: {endpoint} refused {action} with HTTP {status} ({code}: {message})")]
    Refused {
        /// The key.
        key: String,
        /// The service.
        endpoint: String,
        /// What was asked.
        action: KmsAction,
        /// HTTP status.
        status: u16,
        /// Its code.
        code: String,
        /// Its words.
        message: String,
    },
    /// The answer is not what the action answers.
    #[error(
        "key {key} in AWS KMS: cannot read the answer of {endpoint} to {action}: {reason}; is this the endpoint of AWS KMS?"
    )]
    Malformed {
        /// The key.
        key: String,
        /// The service.
        endpoint: String,
        /// What was asked.
        action: KmsAction,
        /// What is wrong with it.
        reason: String,
    },
}

impl KmsError {
    /// Whether the same request can succeed later without anybody changing anything here.
    pub fn retryable(&self) -> bool {
        // A role's credentials come from a service that may be away for a while.
        matches!(self, Self::Unreachable { .. } | Self::Timeout { .. } | Self::Busy { .. } | Self::NoCredentials { .. })
    }
}
