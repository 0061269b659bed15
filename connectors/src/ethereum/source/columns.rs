//! What a record of a chain has: the fields that a schema asks for, as one JSON object.
//!
//! | of a block | type | |
//! | --- | --- | --- |
//! | `chain` | text | the chain's id |
//! | `number` `gas_used` `gas_limit` `base_fee_per_gas` `transactions` `size` `blob_gas_used` `excess_blob_gas` | number | fees in wei; `transactions`: how many; `size` in bytes |
//! | `hash` `parent_hash` `miner` | text | 0x and hex |
//! | `timestamp` | time | |
//!
//! | of an event | type | |
//! | --- | --- | --- |
//! | `chain` `event` `address` | text | its name, its contract |
//! | `block_number` `transaction_index` `log_index` | number | |
//! | `block_hash` `transaction_hash` | text | |
//! | `timestamp` | time | its block's |
//! | each parameter, by its name | `uint…`, `int…`: number; `bool`; the rest: text | `bytes` and `address` as 0x and lower-case hex. An indexed `string`, `bytes`, array or struct is there only as its Keccak-256 |
//!
//! A number is `i64`, `f64` (rounded) or `utf8` (all digits), as the schema says. A parameter hides a field of the event that has its name.

use alloy::dyn_abi::{DynSolValue, EventExt as _};
use alloy::primitives::hex;
use alloy::rpc::types::{Block, Log};
use avouch_engine::spec::{FieldSpec, FieldType};
use serde_json::{Map, Number, Value};
use thiserror::Error;

use super::Reads;
use super::event::{ContractEvent, Sort};

const BLOCK_NUMBERS: [&str; 8] =
    ["number", "gas_used", "gas_limit", "base_fee_per_gas", "transactions", "size", "blob_gas_used", "excess_blob_gas"];
const BLOCK_TEXTS: [&str; 4] = ["chain", "hash", "parent_hash", "miner"];
const EVENT_NUMBERS: [&str; 3] = ["block_number", "transaction_index", "log_index"];
const EVENT_TEXTS: [&str; 5] = ["chain", "event", "address", "block_hash", "transaction_hash"];
const TIMESTAMP: &str = "timestamp";

/// Why a field cannot be had.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ColumnError {
    /// There is nothing of this name.
    #[error("there is no `{field}` in {what}")]
    Unknown {
        /// A block, or the events.
        what: &'static str,
        /// The field.
        field: String,
        /// What there is.
        known: Vec<String>,
    },
    /// It is of another type.
    #[error("`{field}` is {is}, not `{asked}`")]
    Type {
        /// The field.
        field: String,
        /// What it is, and how a schema may write it.
        is: &'static str,
        /// The type asked for.
        asked: &'static str,
    },
    /// Two events differ about it.
    #[error("`{field}` is one thing in `{one}` and another in `{other}`; call the parameter of one of them otherwise")]
    Differ {
        /// The field.
        field: String,
        /// An event.
        one: String,
        /// Another one.
        other: String,
    },
}

/// The fields of a record, checked against what there is.
#[derive(Debug, Clone)]
pub struct Columns {
    chain: String,
    fields: Vec<FieldSpec>,
}

fn sort_words(sort: Sort) -> &'static str {
    match sort {
        Sort::Integer => "a whole number (`i64`, `f64`, or `utf8` for all its digits)",
        Sort::Bool => "true or false (`bool`)",
        Sort::Text => "text (`utf8`)",
        Sort::Compound => "an array or a struct, of which there is no field",
    }
}

impl Columns {
    /// Checks every field of a schema.
    ///
    /// # Errors
    /// Each field that cannot be had, by its place in `fields`.
    pub fn new(reads: &Reads, chain_id: u64, fields: &[FieldSpec]) -> Result<Self, Vec<(usize, ColumnError)>> {
        let wrong: Vec<_> =
            fields.iter().enumerate().filter_map(|(i, f)| check(reads, f).err().map(|e| (i, e))).collect();
        if !wrong.is_empty() {
            return Err(wrong);
        }
        Ok(Self { chain: chain_id.to_string(), fields: fields.to_vec() })
    }

    /// The value of a block's record.
    pub(super) fn of_block(&self, block: &Block) -> String {
        let h = &block.header;
        let mut out = Map::new();
        for f in &self.fields {
            let integer = match f.name.as_str() {
                "number" => Some(h.number),
                "gas_used" => Some(h.gas_used),
                "gas_limit" => Some(h.gas_limit),
                "base_fee_per_gas" => h.base_fee_per_gas,
                "transactions" => Some(block.transactions.len() as u64),
                "size" => h.size.map(|s| s.saturating_to()),
                "blob_gas_used" => h.blob_gas_used,
                "excess_blob_gas" => h.excess_blob_gas,
                _ => None,
            };
            let value = match f.name.as_str() {
                "chain" => Value::from(self.chain.as_str()),
                "hash" => Value::from(hex::encode_prefixed(h.hash)),
                "parent_hash" => Value::from(hex::encode_prefixed(h.parent_hash)),
                "miner" => Value::from(hex::encode_prefixed(h.beneficiary)),
                TIMESTAMP => Value::from(h.timestamp.saturating_mul(1000)),
                _ => match integer {
                    Some(n) => number(&n.to_string(), f.ty),
                    // Not on every chain: null.
                    None => continue,
                },
            };
            out.insert(f.name.clone(), value);
        }
        Value::Object(out).to_string()
    }

    /// The value of an event's record, or why it has none. `seconds`: its block's time.
    pub(super) fn of_event(&self, log: &Log, seconds: u64, events: &[ContractEvent]) -> Result<String, String> {
        let topic = log.topic0().copied().unwrap_or_default();
        let event = events.iter().find(|e| e.topic() == topic).ok_or("none of the events that were asked for")?;
        let decoded = event
            .event()
            .decode_log(&log.inner.data)
            .map_err(|e| format!("its layout is not that of `{}`: {e}", event.signature()))?;
        let (mut indexed, mut body) = (decoded.indexed.iter(), decoded.body.iter());
        let parameters: Vec<(&str, Option<&DynSolValue>)> = event
            .event()
            .inputs
            .iter()
            .map(|i| (i.name.as_str(), if i.indexed { indexed.next() } else { body.next() }))
            .collect();
        let mut out = Map::new();
        for f in &self.fields {
            let name = f.name.as_str();
            let integer = |n: Option<u64>| n.map(|n| number(&n.to_string(), f.ty));
            let text = |bytes: Option<&[u8]>| bytes.map(|b| Value::from(hex::encode_prefixed(b)));
            let parameter = parameters.iter().find(|(p, _)| *p == name).and_then(|(_, v)| *v);
            let value = match parameter {
                Some(value) => shown(value, f.ty),
                None => match name {
                    "chain" => Some(Value::from(self.chain.as_str())),
                    "event" => Some(Value::from(event.name())),
                    "address" => text(Some(log.inner.address.as_slice())),
                    "block_hash" => text(log.block_hash.as_ref().map(|h| h.as_slice())),
                    "transaction_hash" => text(log.transaction_hash.as_ref().map(|h| h.as_slice())),
                    "block_number" => integer(log.block_number),
                    "transaction_index" => integer(log.transaction_index),
                    "log_index" => integer(log.log_index),
                    TIMESTAMP => Some(Value::from(seconds.saturating_mul(1000))),
                    // A parameter of another one of the events: null.
                    _ => None,
                },
            };
            if let Some(value) = value {
                out.insert(f.name.clone(), value);
            }
        }
        Ok(Value::Object(out).to_string())
    }
}

/// A whole number of any size, as the field has it.
fn number(digits: &str, ty: FieldType) -> Value {
    match ty {
        FieldType::Utf8 => Value::from(digits),
        // To the nearest: a decimal text of digits is always a number.
        FieldType::F64 => digits.parse::<f64>().ok().and_then(Number::from_f64).map_or(Value::Null, Value::Number),
        // What does not fit 64 bits stays text, which the decoder refuses by the field's name.
        _ => digits.parse::<i64>().map_or_else(|_| Value::from(digits), Value::from),
    }
}

fn shown(value: &DynSolValue, ty: FieldType) -> Option<Value> {
    Some(match value {
        DynSolValue::Bool(b) => Value::from(*b),
        DynSolValue::Int(n, _) => number(&n.to_string(), ty),
        DynSolValue::Uint(n, _) => number(&n.to_string(), ty),
        DynSolValue::FixedBytes(word, size) => Value::from(hex::encode_prefixed(&word[..(*size).min(32)])),
        DynSolValue::Address(a) => Value::from(hex::encode_prefixed(a)),
        DynSolValue::Function(f) => Value::from(hex::encode_prefixed(f)),
        DynSolValue::Bytes(b) => Value::from(hex::encode_prefixed(b)),
        DynSolValue::String(s) => Value::from(s.as_str()),
        DynSolValue::Array(_) | DynSolValue::FixedArray(_) | DynSolValue::Tuple(_) => return None,
    })
}

fn check(reads: &Reads, field: &FieldSpec) -> Result<(), ColumnError> {
    let name = field.name.as_str();
    let (what, mut sort, numbers, texts): (_, _, &[&str], &[&str]) = match reads {
        Reads::Blocks => ("a block", None, &BLOCK_NUMBERS, &BLOCK_TEXTS),
        Reads::Events { events, .. } => {
            let mut found: Option<(&str, Sort)> = None;
            for event in events {
                for (_, sort) in event.parameters().filter(|(p, _)| *p == name) {
                    match found {
                        Some((one, before)) if before != sort => {
                            return Err(ColumnError::Differ {
                                field: name.to_owned(),
                                one: one.to_owned(),
                                other: event.name().to_owned(),
                            });
                        }
                        _ => found = Some((event.name(), sort)),
                    }
                }
            }
            ("any of the events", found.map(|f| f.1), &EVENT_NUMBERS, &EVENT_TEXTS)
        }
    };
    if sort.is_none() && name == TIMESTAMP {
        return match field.ty {
            FieldType::TimestampMs => Ok(()),
            other => Err(ColumnError::Type {
                field: name.to_owned(),
                is: "the block's time (`timestamp_ms`)",
                asked: other.name(),
            }),
        };
    }
    if sort.is_none() {
        sort = match name {
            _ if numbers.contains(&name) => Some(Sort::Integer),
            _ if texts.contains(&name) => Some(Sort::Text),
            _ => None,
        };
    }
    let Some(sort) = sort else {
        let mut known: Vec<String> = Vec::new();
        if let Reads::Events { events, .. } = reads {
            for (p, _) in events.iter().flat_map(ContractEvent::parameters) {
                if !known.iter().any(|k| k == p) {
                    known.push(p.to_owned());
                }
            }
        }
        known.extend(texts.iter().chain(numbers).chain([&TIMESTAMP]).map(|s| (*s).to_owned()));
        return Err(ColumnError::Unknown { what, field: name.to_owned(), known });
    };
    let fits = match sort {
        Sort::Integer => matches!(field.ty, FieldType::I64 | FieldType::F64 | FieldType::Utf8),
        Sort::Bool => field.ty == FieldType::Bool,
        Sort::Text => field.ty == FieldType::Utf8,
        Sort::Compound => false,
    };
    if fits {
        return Ok(());
    }
    Err(ColumnError::Type { field: name.to_owned(), is: sort_words(sort), asked: field.ty.name() })
}
