//! Signing readings as devices do: for simulated fleets, gateways and tests.
//!
//! A device's secret key stands in a file of its own, with the number its next reading has. The number is put ahead in the file
//! before readings are signed, so that a process that is killed never uses one twice; it leaves a gap instead, which is allowed.

mod key_file;
mod signer;

pub use key_file::{DeviceKeyFile, KeyFileError};
pub use signer::{ReadingSigner, Signed, SigningError};

use avouch_engine::identity::{chain_domain, file_domain};
use avouch_engine::verdict::Hash32;

use crate::lang::{Identity, KeyRegistry};

/// What signatures name the fleet by.
///
/// # Errors
/// When the file of keys, which says the fleet's name, cannot be read.
pub fn domain(identity: &Identity) -> Result<Hash32, avouch_connectors::files::FilesError> {
    Ok(match &identity.registry {
        KeyRegistry::File(path) => file_domain(&avouch_connectors::files::KeyFile::read(&path.value)?.fleet),
        KeyRegistry::Chain(keys) => chain_domain(keys.chain_id, &keys.contract.value, &keys.fleet.value),
    })
}
