//! Readings on their way, signed by their devices' keys.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use avouch_connectors::files::FilesError;
use avouch_engine::identity::{SignatureIn, SignerError, json_content, sign_batch, sign_reading};
use avouch_engine::spec::FieldSpec;
use avouch_engine::verdict::Hash32;
use thiserror::Error;

use super::key_file::{DeviceKeyFile, KeyFileError};
use crate::lang::{Pipeline, SignaturePlace, hex};

/// Why a reading cannot be signed.
#[derive(Debug, Error)]
pub enum SigningError {
    /// The pipeline asks for no signature.
    #[error("the pipeline's source has no `identity`, so nothing need be signed")]
    NoIdentity,
    /// The file of keys, which says the fleet's name.
    #[error(transparent)]
    Files(#[from] FilesError),
    /// A device's key.
    #[error(transparent)]
    Key(#[from] KeyFileError),
    /// The key file in the place of a device's is another's.
    #[error("{} is the key of `{found}`, not of `{device}`", path.display())]
    Other {
        /// Which.
        path: PathBuf,
        /// Whose it is.
        found: String,
        /// Whose it should be.
        device: String,
    },
    /// The reading has no content that could be signed.
    #[error("a reading of `{device}` cannot be signed: {why}")]
    Reading {
        /// Whose.
        device: String,
        /// Why.
        why: String,
    },
    /// The signature.
    #[error(transparent)]
    Sign(#[from] SignerError),
}

/// A reading with its signature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signed {
    /// The value, with the signature's field if it is one.
    pub value: Vec<u8>,
    /// The header, if the signature is one.
    pub header: Option<Vec<u8>>,
}

/// Signs readings for a pipeline, each with the key of its device in a directory.
pub struct ReadingSigner {
    dir: PathBuf,
    domain: Hash32,
    signature: SignatureIn,
    header: Option<String>,
    fields: Vec<FieldSpec>,
    keys: HashMap<String, DeviceKeyFile>,
}

impl ReadingSigner {
    /// For a pipeline whose readings must be signed.
    ///
    /// # Errors
    /// [`SigningError::NoIdentity`], [`SigningError::Files`]
    pub fn new(pipeline: &Pipeline, dir: &Path) -> Result<Self, SigningError> {
        let identity = pipeline.source.identity.as_ref().ok_or(SigningError::NoIdentity)?;
        let header = match &identity.signature.value {
            SignaturePlace::Header(name) => Some(name.clone()),
            SignaturePlace::Field(_) => None,
        };
        Ok(Self {
            dir: dir.to_path_buf(),
            domain: super::domain(identity)?,
            signature: identity.signature.value.spec(),
            header,
            fields: pipeline.source.fields.iter().map(|f| f.value.clone()).collect(),
            keys: HashMap::new(),
        })
    }

    /// The header that signatures go into, if they do.
    pub fn header(&self) -> Option<&str> {
        self.header.as_deref()
    }

    fn key(&mut self, device: &str) -> Result<&mut DeviceKeyFile, SigningError> {
        if !self.keys.contains_key(device) {
            let path = DeviceKeyFile::path_in(&self.dir, device)?;
            let file = DeviceKeyFile::read(&path)?;
            if file.device() != device {
                let found = file.device().to_owned();
                return Err(SigningError::Other { path, found, device: device.to_owned() });
            }
            self.keys.insert(device.to_owned(), file);
        }
        self.keys.get_mut(device).ok_or(SigningError::Sign(SignerError::Failed))
    }

    /// Signs JSON readings of one device: one alone, or several by one signature.
    ///
    /// # Errors
    /// [`SigningError`]; then none has a number.
    pub fn sign(&mut self, device: &str, values: Vec<Vec<u8>>) -> Result<Vec<Signed>, SigningError> {
        let reading = |why: String| SigningError::Reading { device: device.to_owned(), why };
        let content = |v: &Vec<u8>| json_content(&self.signature, &self.fields, v).map_err(|e| reading(e.detail));
        let contents = values.iter().map(content).collect::<Result<Vec<_>, _>>()?;
        let domain = self.domain;
        let key = self.key(device)?;
        let first = key.take(contents.len() as u64)?;
        let envelopes = match contents.as_slice() {
            [one] => vec![sign_reading(key.key(), &domain, device, first, one)?],
            more => sign_batch(key.key(), &domain, device, first, more)?,
        };
        let field = match &self.signature {
            SignatureIn::Header => None,
            SignatureIn::Field(name) => Some(serde_json::Value::from(name.as_str()).to_string()),
        };
        let put = |(value, envelope): (Vec<u8>, Vec<u8>)| match &field {
            None => Ok(Signed { value, header: Some(envelope) }),
            Some(name) => {
                let text =
                    with_field(&value, name, &hex(&envelope)).ok_or_else(|| reading("it is no object".into()))?;
                Ok(Signed { value: text, header: None })
            }
        };
        values.into_iter().zip(envelopes).map(put).collect()
    }

    /// Writes down where each device's numbers have got to.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn settle(&mut self) -> Result<(), SigningError> {
        self.keys.values_mut().try_for_each(DeviceKeyFile::settle).map_err(SigningError::Key)
    }
}

/// A JSON object with one more member, at its end. (One that has it already is refused by the lane: no member may stand twice.)
fn with_field(value: &[u8], name: &str, text: &str) -> Option<Vec<u8>> {
    let end = value.iter().rposition(|b| *b == b'}')?;
    let empty = value[..end].iter().rfind(|b| !b.is_ascii_whitespace()) == Some(&b'{');
    let comma = if empty { "" } else { "," };
    Some([&value[..end], format!("{comma}{name}:\"{text}\"").as_bytes(), &value[end..]].concat())
}
