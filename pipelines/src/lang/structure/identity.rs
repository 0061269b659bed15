//! `identity` of a source: readings must be signed by their devices.

use std::path::PathBuf;

use avouch_engine::spec::{FieldSpec, FieldType};

use super::super::fields::{Fields, Key, Keys, Kind, Need, Reading, Rule, value_span};
use super::super::format::Format;
use super::super::pipeline::{ChainKeys, Identity, KeyRegistry, SignaturePlace};
use super::super::span::Spanned;
use super::super::tree::NodeValue;
use super::anchor::{QUORUM, read_rpc};
use super::steps::{bad_hex, hex_bytes};

pub(super) const IDENTITY: Key =
    Key::may("identity", Kind::Table(&KEYS), "Readings must be signed by their devices; others are dead letters.")
        .or("readings are taken as they come");
const KEYS: Keys = Keys::new(
    "identity",
    "Readings must be signed by their devices: see docs/signed-readings.md.",
    &[
        Key::must(
            "signature",
            Kind::Literal,
            "Where it stands: `header:NAME`, a header of a Kafka record, or `field:NAME`, a `utf8` field of the schema.",
        ),
        Key::must("registry", Kind::TextOr(&KEY_FILE), "Where keys are: `\"chain\"`, or a file."),
        Key::may("rpc", Kind::OneOrMore, "JSON-RPC endpoints of the chain, http or https, the preferred first."),
        QUORUM,
        Key::may("chain_id", Kind::Int(1, i64::MAX), "EIP-155 chain id; any other chain is refused."),
        Key::may("contract", Kind::Text, "Address of the DeviceRegistry, from `avouch deploy device-registry`."),
        Key::may("fleet", Kind::Text, "The fleet's id, from `avouch device register`."),
        Key::may("from_block", Kind::Int(0, i64::MAX), "The block the fleet was made in, or an earlier one.").or("0"),
    ],
)
.rules(&[Rule::When("registry", &["chain"], &CHAIN)]);
const KEY_FILE: Keys = Keys::new(
    "key_file",
    "A file of keys, for fleets without a registry on chain.",
    &[Key::must("file", Kind::Text, "A JSON file of devices and their keys. Read again on change.")],
);
const CHAIN: [&str; 4] = ["rpc", "chain_id", "contract", "fleet"];
const EXAMPLE: &str = "identity = { signature = \"header:sig\", registry = { file = \"devices.json\" } }";
const REGISTRY: &str = "registry = { file = \"devices.json\" }";

/// The table `identity`; `Some(None)` where there is none, `None` where something is wrong with it. `headers`: whether records of
/// this source have any.
pub(super) fn read(cx: &mut Reading<'_>, source: &Fields<'_>, headers: bool) -> Option<Option<Identity>> {
    let Some(entry) = source.get("identity") else { return Some(None) };
    let f = source.table(cx, Need::Must, "identity", &KEYS, EXAMPLE)?;
    let signature = f.literal(cx, Need::Must, "signature", "signature = \"header:sig\"");
    let signature = signature.and_then(|s| place(cx, s, headers));
    let registry = f.entry(cx, Need::Must, "registry", REGISTRY);
    let registry = registry.and_then(|e| match &e.node.value {
        NodeValue::Table(_) => {
            for extra in f
                .entries()
                .iter()
                .filter(|e| CHAIN.contains(&e.key.as_str()) || ["from_block", "quorum"].contains(&e.key.as_str()))
            {
                let message = format!("`{}` has no effect here: the keys stand in a file", extra.key);
                let help = format!("remove `{}`, or write `registry = \"chain\"`", extra.key);
                cx.diags.error("contradiction", extra.key_span, message, help);
            }
            let t = f.table(cx, Need::Must, "registry", &KEY_FILE, REGISTRY)?;
            let file = t.text(cx, Need::Must, "file", "file = \"devices.json\"")?;
            let path: PathBuf = cx.dir.join(file.as_str());
            Some(KeyRegistry::File(Spanned::new(path, file.span)))
        }
        NodeValue::Str(word) if word == "chain" => chain(cx, &f).map(KeyRegistry::Chain),
        NodeValue::Str(word) => {
            let message = format!("`{}` is no registry of keys", word.escape_debug());
            cx.diags.error(
                "unknown-choice",
                value_span(e),
                message,
                format!("write `registry = \"chain\"` or `{REGISTRY}`"),
            );
            None
        }
        _ => {
            f.wrong_type(cx, e, "\"chain\" or a table", REGISTRY);
            None
        }
    });
    Some(Some(Identity { signature: signature?, registry: registry?, span: entry.key_span }))
}

fn place(cx: &mut Reading<'_>, text: Spanned<String>, headers: bool) -> Option<Spanned<SignaturePlace>> {
    let found = match text.value.split_once(':') {
        Some(("header", name)) if good(name) => SignaturePlace::Header(name.to_owned()),
        Some(("field", name)) if good(name) => SignaturePlace::Field(name.to_owned()),
        _ => {
            let message = format!("`{}` is no place of a signature", text.value.escape_debug());
            let help = "write `header:NAME`, a header of the record, or `field:NAME`, a field of the reading";
            cx.diags.error("bad-signature-place", text.span, message, help);
            return None;
        }
    };
    if matches!(found, SignaturePlace::Header(_)) && !headers {
        let message = "records of this source have no headers that could carry a signature";
        let help = "let devices put it into a field: `signature = \"field:sig\"`, with `sig = \"utf8\"` in the schema";
        cx.diags.error("no-headers", text.span, message, help);
        return None;
    }
    Some(Spanned::new(found, text.span))
}

fn good(name: &str) -> bool {
    !name.is_empty() && !name.chars().any(|c| c.is_control() || c.is_whitespace())
}

fn chain(cx: &mut Reading<'_>, f: &Fields<'_>) -> Option<ChainKeys> {
    let rpc = read_rpc(cx, f);
    let chain_id = f.int(cx, Need::Must, "chain_id", (1, i64::MAX), "chain_id = 31337");
    let contract = f.text(cx, Need::Must, "contract", "contract = \"${env:DEVICE_REGISTRY}\"");
    let contract = contract.and_then(|text| match hex_bytes::<20>(text.as_str()) {
        Some(bytes) => Some(Spanned::new(bytes, text.span)),
        None => {
            let help = "`avouch deploy device-registry` prints the address of the DeviceRegistry";
            bad_hex(cx, &text, "the address of a contract", 40, help);
            None
        }
    });
    let fleet = f.text(cx, Need::Must, "fleet", "fleet = \"${env:FLEET}\"");
    let fleet = fleet.and_then(|text| match hex_bytes::<32>(text.as_str()) {
        Some(bytes) => Some(Spanned::new(bytes, text.span)),
        None => {
            bad_hex(cx, &text, "the id of a fleet", 64, "`avouch device register` prints it");
            None
        }
    });
    let from_block = match f.get("from_block") {
        None => Some(0),
        Some(_) => {
            let block = f.int(cx, Need::May, "from_block", (0, i64::MAX), "from_block = 19000000");
            block.and_then(|b| u64::try_from(b.value).ok())
        }
    };
    let chain_id = chain_id?;
    Some(ChainKeys {
        rpc: rpc?,
        chain_id: u64::try_from(chain_id.value).ok()?,
        chain_id_span: chain_id.span,
        contract: contract?,
        fleet: fleet?,
        from_block: from_block?,
    })
}

/// Whether readings can carry the signature.
pub(super) fn check(
    cx: &mut Reading<'_>,
    identity: &Identity,
    format: &Format,
    fields: &[Spanned<FieldSpec>],
    key: &Spanned<String>,
) {
    if matches!(format, Format::Arrow) {
        let message = "a record of `format = \"arrow\"` holds rows of several devices, none of which can sign it";
        cx.diags.error(
            "broken-guarantee",
            identity.span,
            message,
            "use a format of one row a record, or remove `identity`",
        );
    }
    let SignaturePlace::Field(name) = &identity.signature.value else { return };
    let span = identity.signature.span;
    let wanted = format!("write `{name} = \"utf8\"` in the schema");
    match fields.iter().find(|f| f.value.name == *name) {
        Some(f) if f.value.ty == FieldType::Utf8 && key.value != *name => {}
        Some(f) => {
            let message =
                format!("the field `{name}` carries the signature: it must be `utf8`, and another than the key");
            cx.diags.error("wrong-column", span, message, wanted);
            cx.diags.relate(span, f.span, "the field stands");
        }
        None => cx.diags.error("unknown-column", span, format!("the schema has no field `{name}`"), wanted),
    }
}
