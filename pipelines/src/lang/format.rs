//! What a record's value is: `format` and the keys that belong to it.

use std::path::PathBuf;
use std::sync::Arc;

use avouch_engine::spec::{FormatSpec, Framing, ProtobufSpec};

use super::interpolate::{SecretString, Text};
use super::span::Spanned;

/// A source's format.
#[derive(Debug, Clone)]
pub enum Format {
    /// JSON objects.
    Json,
    /// Avro with the id of its schema before it.
    Avro(Registry),
    /// Protobuf messages.
    Protobuf(Protobuf),
    /// Arrow IPC streams.
    Arrow,
}

impl Format {
    /// Its name in TOML.
    pub fn name(&self) -> &'static str {
        match self {
            Format::Json => "json",
            Format::Avro(_) => "avro",
            Format::Protobuf(_) => "protobuf",
            Format::Arrow => "arrow",
        }
    }

    /// What the engine is told of it.
    pub fn spec(&self) -> FormatSpec {
        match self {
            Format::Json => FormatSpec::Json,
            Format::Avro(_) => FormatSpec::Avro,
            Format::Protobuf(p) => FormatSpec::Protobuf(p.spec()),
            Format::Arrow => FormatSpec::Arrow,
        }
    }
}

/// A schema registry.
#[derive(Debug, Clone)]
pub struct Registry {
    /// http or https. May carry a user and password, so show it with [`Text::raw`].
    pub url: Text,
    /// Who one is there.
    pub login: RegistryLogin,
}

/// How to show a registry who one is.
#[derive(Debug, Clone)]
pub enum RegistryLogin {
    /// Not at all, or as the URL says.
    None,
    /// HTTP basic authentication.
    Basic {
        /// User, or API key.
        username: Text,
        /// Password, or API secret.
        password: Spanned<SecretString>,
    },
    /// A bearer token.
    Token(Spanned<SecretString>),
}

/// A Protobuf message.
#[derive(Debug, Clone)]
pub struct Protobuf {
    /// The descriptor set, resolved.
    pub file: Spanned<PathBuf>,
    /// Its bytes when the pipeline was read.
    pub descriptor: Arc<[u8]>,
    /// The message's full name.
    pub message: Spanned<String>,
    /// What stands before each message.
    pub framing: Framing,
}

impl Protobuf {
    /// What the engine is told of it.
    pub fn spec(&self) -> ProtobufSpec {
        ProtobufSpec { descriptor: self.descriptor.clone(), message: self.message.value.clone(), framing: self.framing }
    }
}
