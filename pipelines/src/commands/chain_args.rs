//! How a command that a person gives reaches a chain, and with whose key.

use std::path::PathBuf;

use avouch_connectors::ethereum::{EthereumError, KmsOptions, OperatorKey};
use clap::Args;

/// Which chain.
#[derive(Debug, Clone, Args)]
pub struct ChainArgs {
    /// JSON-RPC endpoint
    #[arg(long, env = "ETH_RPC", default_value = "http://localhost:8545", value_name = "URL")]
    pub rpc: String,

    /// Refuse any other chain
    #[arg(long, value_name = "ID")]
    pub chain_id: Option<u64>,
}

/// Whose key signs and pays.
#[derive(Debug, Clone, Args)]
pub struct KeyArgs {
    /// Encrypted keystore file of the account that signs and pays
    #[arg(long, value_name = "FILE", requires = "password_file")]
    pub keystore: Option<PathBuf>,

    /// File with the keystore's password
    #[arg(long, value_name = "FILE")]
    pub password_file: Option<PathBuf>,

    /// Key in AWS KMS of the account that signs and pays: ARN, id or alias/NAME
    #[arg(long, value_name = "KEY", conflicts_with = "keystore")]
    pub kms: Option<String>,

    /// Region of the key in AWS KMS [default: the ARN's, then the environment's]
    #[arg(long, value_name = "REGION", requires = "kms")]
    pub kms_region: Option<String>,

    /// URL of the KMS service [default: the environment's, then Amazon's]
    #[arg(long, value_name = "URL", requires = "kms")]
    pub kms_endpoint: Option<String>,

    /// Environment variable with the private key, for development
    #[arg(long, value_name = "NAME", default_value = "AVOUCH_KEY", conflicts_with_all = ["keystore", "kms"])]
    pub key_env: String,
}

impl KeyArgs {
    /// The key.
    ///
    /// # Errors
    /// [`EthereumError::Keystore`], [`EthereumError::Kms`], or that the variable is not set or is no key.
    pub async fn key(&self) -> Result<OperatorKey, EthereumError> {
        if let Some(key) = &self.kms {
            return OperatorKey::from_kms(KmsOptions {
                region: self.kms_region.clone(),
                endpoint: self.kms_endpoint.clone(),
                ..KmsOptions::new(key.as_str())
            })
            .await;
        }
        let (Some(keystore), Some(password)) = (&self.keystore, &self.password_file) else {
            return OperatorKey::from_env(&self.key_env);
        };
        let text = std::fs::read_to_string(password)
            .map_err(|e| EthereumError::Keystore { path: password.clone(), reason: e.to_string() })?;
        OperatorKey::from_keystore(keystore, &text)
    }
}
