#![allow(clippy::unwrap_used)]
use alloy::primitives::{Bytes, LogData, U256, address, keccak256};
use avouch_engine::spec::{FieldSpec, FieldType};

use super::*;

const TRANSFER: &str = "Transfer(address indexed from, address indexed to, uint256 value)";

fn field(name: &str, ty: FieldType) -> FieldSpec {
    FieldSpec { name: name.to_owned(), ty, required: false }
}

fn events(texts: &[&str]) -> Reads {
    Reads::Events { contracts: Vec::new(), events: texts.iter().map(|t| ContractEvent::parse(t).unwrap()).collect() }
}

fn of(reads: &Reads) -> &[ContractEvent] {
    match reads {
        Reads::Events { events, .. } => events,
        Reads::Blocks => &[],
    }
}

fn transfer(value: U256) -> Log {
    let topics = vec![
        keccak256("Transfer(address,address,uint256)"),
        address!("00000000000000000000000000000000000000aa").into_word(),
        address!("00000000000000000000000000000000000000bb").into_word(),
    ];
    let data = Bytes::from(value.to_be_bytes::<32>().to_vec());
    Log {
        inner: alloy::primitives::Log {
            address: address!("00000000000000000000000000000000000000cc"),
            data: LogData::new_unchecked(topics, data),
        },
        block_number: Some(7),
        log_index: Some(3),
        ..Log::default()
    }
}

#[test]
fn an_event_becomes_the_fields_that_are_asked_for() {
    let reads = events(&[TRANSFER]);
    let columns = Columns::new(
        &reads,
        31337,
        &[
            field("address", FieldType::Utf8),
            field("block_number", FieldType::I64),
            field("chain", FieldType::Utf8),
            field("event", FieldType::Utf8),
            field("from", FieldType::Utf8),
            field("timestamp", FieldType::TimestampMs),
            field("value", FieldType::F64),
        ],
    )
    .unwrap();
    let said = columns.of_event(&transfer(U256::from(1500)), 9, of(&reads)).unwrap();
    assert_eq!(
        said,
        r#"{"address":"0x00000000000000000000000000000000000000cc","block_number":7,"chain":"31337","event":"Transfer","from":"0x00000000000000000000000000000000000000aa","timestamp":9000,"value":1500.0}"#
    );
}

#[test]
fn a_number_of_256_bits_is_rounded_kept_or_refused_as_the_field_says() {
    let reads = events(&[TRANSFER]);
    let huge = U256::from(10).pow(U256::from(30));
    let shown =
        |ty| Columns::new(&reads, 1, &[field("value", ty)]).unwrap().of_event(&transfer(huge), 0, of(&reads)).unwrap();
    assert_eq!(shown(FieldType::F64), r#"{"value":1e+30}"#);
    assert_eq!(shown(FieldType::Utf8), format!(r#"{{"value":"1{}"}}"#, "0".repeat(30)));
    // Text where the decoder expects a number: a dead letter that names the field.
    assert_eq!(shown(FieldType::I64), format!(r#"{{"value":"1{}"}}"#, "0".repeat(30)));
}

#[test]
fn an_event_of_another_layout_is_no_value_and_says_why() {
    // ERC-721: the third parameter is indexed too, so the first topic is the same.
    let reads = events(&[TRANSFER]);
    let columns = Columns::new(&reads, 1, &[field("from", FieldType::Utf8)]).unwrap();
    let mut log = transfer(U256::from(1));
    let mut topics = log.inner.data.topics().to_vec();
    topics.push(keccak256("token"));
    log.inner.data = LogData::new_unchecked(topics, Bytes::new());
    let why = columns.of_event(&log, 0, of(&reads)).unwrap_err();
    assert!(why.starts_with("its layout is not that of `Transfer(address,address,uint256)`"), "{why}");
}

#[test]
fn what_cannot_be_had_is_said_of_each_field() {
    let reads = events(&[TRANSFER, "Approval(address indexed owner, bytes32 value)", "Batch(uint256[] parts)"]);
    let wrong = Columns::new(
        &reads,
        1,
        &[
            field("parts", FieldType::Utf8),
            field("sender", FieldType::Utf8),
            field("timestamp", FieldType::I64),
            field("to", FieldType::F64),
            field("value", FieldType::F64),
        ],
    )
    .unwrap_err();
    let said: Vec<String> = wrong.iter().map(|(i, e)| format!("{i}: {e}")).collect();
    assert_eq!(
        said,
        [
            "0: `parts` is an array or a struct, of which there is no field, not `utf8`",
            "1: there is no `sender` in any of the events",
            "2: `timestamp` is the block's time (`timestamp_ms`), not `i64`",
            "3: `to` is text (`utf8`), not `f64`",
            "4: `value` is one thing in `Transfer` and another in `Approval`; call the parameter of one of them otherwise",
        ]
    );
}

#[test]
fn declarations_of_events_are_read_or_refused() {
    let parse = |text: &str| ContractEvent::parse(text).map(|e| e.signature()).map_err(|e| e.to_string());
    assert_eq!(parse("event Sold(uint indexed id);").unwrap(), "Sold(uint256)");
    assert_eq!(parse(TRANSFER).unwrap(), "Transfer(address,address,uint256)");
    assert!(parse("Transfer").unwrap_err().starts_with("`Transfer` is not the declaration of an event"));
    assert!(parse("A(uint256 x, uint8 x)").unwrap_err().contains("two parameters `x`"));
    assert!(parse("A(uint256)").unwrap_err().contains("parameter 1 of `A` has no name"));
    assert!(parse("A(uint256 x) anonymous").unwrap_err().contains("anonymous"));
    assert!(parse("A(nonsense x)").unwrap_err().contains("is not the declaration of an event"));
}

#[test]
fn offsets_lead_back_to_their_blocks() {
    for block in [0, 1, 19_000_000, 1 << 42] {
        assert_eq!(block_of(offset_of(block)), block);
        assert_eq!(block_of(offset_of(block) + (1 << PLACE_BITS) - 1), block);
        assert!(offset_of(block + 1) > offset_of(block) + (1 << PLACE_BITS) - 1);
    }
}
