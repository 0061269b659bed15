//! `[sources.*]` with `kind = "ethereum"`.

use avouch_connectors::ethereum::source::{ColumnError, Columns, ContractEvent, Reads};
use avouch_engine::spec::FieldSpec;

use super::super::fields::{Fields, Key, Keys, Kind, Need, Reading, Rule, closest, list};
use super::super::pipeline::ChainSource;
use super::super::span::Spanned;
use super::anchor::{QUORUM, RPC, read_rpc};
use super::source::{DEVICE, DEVICE_TTL, SCHEMA, TIMES, is};
use super::steps::hex_bytes;

pub(super) const ETHEREUM_SOURCE: Keys = Keys::new(
    "ethereum_source",
    "Readings from an Ethereum chain, its blocks or the events of contracts, in one lane, as far as they are final.",
    &[
        is("ethereum"),
        RPC,
        QUORUM,
        Key::must("chain_id", Kind::Int(1, i64::MAX), "EIP-155 chain id; any other chain is refused."),
        Key::may(
            "events",
            Kind::Names(true),
            "Declarations of events in Solidity, whose parameters become fields: `Transfer(address indexed from, address \
             indexed to, uint256 value)`.",
        )
        .or("every block is a reading"),
        Key::may("contracts", Kind::Names(true), "Whose events.").or("those of all contracts"),
        Key::must("from_block", Kind::Int(0, MOST_BLOCKS), "The first block that is read."),
        SCHEMA,
        DEVICE,
        TIMES,
        DEVICE_TTL,
    ],
)
.planned(&[("identity", "remove it; what is on a chain was signed by who sent it there")])
.rules(&[Rule::Needs("contracts", "events")]);

/// Offsets have 43 bits for a block's number.
const MOST_BLOCKS: i64 = 1 << 42;
const EVENTS_EXAMPLE: &str = "events = [\"Transfer(address indexed from, address indexed to, uint256 value)\"]";
const CONTRACTS_EXAMPLE: &str = "contracts = [\"0xdAC17F958D2ee523a2206206994597C13D831ec7\"]";

pub(super) fn read(cx: &mut Reading<'_>, f: &Fields<'_>) -> Option<ChainSource> {
    let rpc = read_rpc(cx, f);
    let chain_id = f.int(cx, Need::Must, "chain_id", (1, i64::MAX), "chain_id = 1");
    let from_block = f.int(cx, Need::Must, "from_block", (0, MOST_BLOCKS), "from_block = 19000000");
    let events = match f.get("events") {
        None => Some(None),
        Some(_) => {
            f.literals(cx, Need::May, "events", true, EVENTS_EXAMPLE).and_then(|texts| events(cx, &texts)).map(Some)
        }
    };
    let contracts = match f.get("contracts") {
        None => Some(Vec::new()),
        Some(_) => f.literals(cx, Need::May, "contracts", true, CONTRACTS_EXAMPLE).and_then(|t| contracts(cx, &t)),
    };
    if let (Some(entry), None) = (f.get("contracts"), f.get("events")) {
        cx.diags.error(
            "missing-key",
            entry.key_span,
            "without `events` every block is a reading, and a block is of no contract",
            format!("add `{EVENTS_EXAMPLE}`, or remove `contracts`"),
        );
        return None;
    }
    let reads = match events? {
        None => Reads::Blocks,
        Some(events) => Reads::Events { contracts: contracts?.into_iter().map(Into::into).collect(), events },
    };
    let chain_id = chain_id?;
    Some(ChainSource {
        rpc: rpc?,
        chain_id: u64::try_from(chain_id.value).ok()?,
        chain_id_span: chain_id.span,
        from_block: from_block.and_then(|b| Some(Spanned::new(u64::try_from(b.value).ok()?, b.span)))?,
        reads,
    })
}

fn events(cx: &mut Reading<'_>, texts: &[Spanned<String>]) -> Option<Vec<ContractEvent>> {
    let mut out: Vec<ContractEvent> = Vec::with_capacity(texts.len());
    let mut whole = true;
    for text in texts {
        match ContractEvent::parse(&text.value) {
            Err(e) => {
                cx.diags.error(
                    "bad-event",
                    text.span,
                    e.to_string(),
                    format!("write it as Solidity does: `{EVENTS_EXAMPLE}`"),
                );
                whole = false;
            }
            Ok(event) if out.iter().any(|other| other.topic() == event.topic()) => {
                let message = format!("`{}` stands here twice", event.signature());
                cx.diags.error("bad-event", text.span, message, "remove one of them");
                whole = false;
            }
            Ok(event) => out.push(event),
        }
    }
    whole.then_some(out)
}

fn contracts(cx: &mut Reading<'_>, texts: &[Spanned<String>]) -> Option<Vec<[u8; 20]>> {
    let mut out = Vec::with_capacity(texts.len());
    for text in texts {
        match hex_bytes::<20>(&text.value) {
            Some(address) => out.push(address),
            None => {
                let message = format!("`{}` is not the address of a contract", text.value.escape_debug());
                cx.diags.error("bad-hex", text.span, message, "40 hexadecimal digits are needed, with 0x before them");
            }
        }
    }
    (out.len() == texts.len()).then_some(out)
}

/// Checks that every field of the schema is one of a block, or of the events.
pub(super) fn check_schema(cx: &mut Reading<'_>, source: &ChainSource, fields: &[Spanned<FieldSpec>]) {
    let specs: Vec<FieldSpec> = fields.iter().map(|f| f.value.clone()).collect();
    let Err(wrong) = Columns::new(&source.reads, source.chain_id, &specs) else { return };
    for (i, e) in wrong {
        let help = match &e {
            ColumnError::Unknown { field, known, .. } => match closest(field, known.iter().map(String::as_str)) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("there is {}", list(&known.iter().map(String::as_str).collect::<Vec<_>>())),
            },
            ColumnError::Type { .. } => "change the type".to_owned(),
            ColumnError::Differ { .. } => "the names of parameters are yours to choose".to_owned(),
        };
        cx.diags.error("wrong-column", fields[i].span, e.to_string(), help);
    }
}
