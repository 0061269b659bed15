//! Events as a pipeline file writes them: `Transfer(address indexed from, address indexed to, uint256 value)`.

use alloy::dyn_abi::{DynSolEvent, DynSolType, Specifier};
use alloy::json_abi::Event;
use alloy::primitives::B256;
use thiserror::Error;

/// An event of a contract, by its declaration in Solidity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContractEvent(Event);

/// Why a text is no event.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum EventError {
    /// It is no declaration.
    #[error("`{text}` is not the declaration of an event: {why}")]
    Syntax {
        /// As given.
        text: String,
        /// The parser's words.
        why: String,
    },
    /// A parameter has no name, so that no field can be its.
    #[error("parameter {number} of `{event}` has no name; name it as its field is to be called")]
    Nameless {
        /// The event.
        event: String,
        /// Which parameter, from 1.
        number: usize,
    },
    /// Two parameters have one name.
    #[error("`{event}` has two parameters `{name}`; the names are yours to choose, call one of them otherwise")]
    Twice {
        /// The event.
        event: String,
        /// The name.
        name: String,
    },
}

/// What a parameter is, as far as a field needs to know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sort {
    /// `uint…` or `int…`.
    Integer,
    Bool,
    /// `address`, `bytes…`, `string`; or what is only there as its hash, because it is indexed and has no fixed size.
    Text,
    /// An array or a struct.
    Compound,
}

impl ContractEvent {
    /// Reads a declaration, with or without the word `event` before it. Names of parameters become names of fields.
    ///
    /// # Errors
    /// [`EventError`], saying what to write.
    pub fn parse(text: &str) -> Result<Self, EventError> {
        let syntax = |why: String| EventError::Syntax { text: text.trim().to_owned(), why };
        let event = Event::parse(text.trim().trim_end_matches(';')).map_err(|e| {
            syntax(e.to_string().lines().rfind(|l| !l.trim().is_empty()).unwrap_or_default().trim().to_owned())
        })?;
        if event.anonymous {
            return Err(syntax("anonymous events cannot be told from others".to_owned()));
        }
        // Types are read here, so that decoding has none to refuse.
        Specifier::<DynSolEvent>::resolve(&event).map_err(|e| syntax(e.to_string()))?;
        for (i, input) in event.inputs.iter().enumerate() {
            if input.name.is_empty() {
                return Err(EventError::Nameless { event: event.name.clone(), number: i + 1 });
            }
            if event.inputs[..i].iter().any(|other| other.name == input.name) {
                return Err(EventError::Twice { event: event.name.clone(), name: input.name.clone() });
            }
        }
        Ok(Self(event))
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// Its first topic: Keccak-256 of its signature.
    pub fn topic(&self) -> B256 {
        self.0.selector()
    }

    /// Its signature: `Transfer(address,address,uint256)`.
    pub fn signature(&self) -> String {
        self.0.signature()
    }

    pub(super) fn event(&self) -> &Event {
        &self.0
    }

    /// Its parameters' names, and what they are.
    pub(super) fn parameters(&self) -> impl Iterator<Item = (&str, Sort)> {
        self.0.inputs.iter().map(|input| {
            let sort = match DynSolType::parse(&input.selector_type()) {
                Ok(DynSolType::Uint(_) | DynSolType::Int(_)) => Sort::Integer,
                Ok(DynSolType::Bool) => Sort::Bool,
                Ok(DynSolType::Array(_) | DynSolType::FixedArray(..) | DynSolType::Tuple(_)) if !input.indexed => {
                    Sort::Compound
                }
                _ => Sort::Text,
            };
            (input.name.as_str(), sort)
        })
    }
}
