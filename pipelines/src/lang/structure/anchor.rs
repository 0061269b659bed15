//! `[anchor]`: where and when the verdict log is anchored.

use super::super::fields::{Choices, Fields, Key, Keys, Kind, Need, Reading, Rule};
use super::super::interpolate::Text;
use super::super::pipeline::{Anchor, Signer};
use super::super::span::Spanned;
use super::super::units::format_duration;
use super::Section;
use super::steps::{bad_hex, hex_bytes};

pub(super) const ANCHOR: Keys = Keys::new(
    "anchor",
    "Where and when checkpoints of the verdict log are anchored. Without it nothing is, and no bundle can be made.",
    &[
        Key::must("kind", Kind::Choice(&KIND), "What it is anchored in."),
        Key::must("rpc", Kind::Text, "JSON-RPC endpoint, http or https."),
        Key::must("chain_id", Kind::Int(1, i64::MAX), "EIP-155 chain id; any other chain is refused."),
        Key::must("contract", Kind::Text, "Address of the VerdictLog, from `avouch deploy`."),
        Key::must("signer", Kind::Table(&SIGNER), "Who signs checkpoints and pays for them."),
        Key::must("every", Kind::Table(&EVERY), "When to anchor: whichever comes first."),
        Key::may(
            "max_merge_delay",
            Kind::Duration(1),
            "The promise that metrics watch: no verdict waits longer for its anchor. `every.interval` may not be longer.",
        )
        .or("\"5m\""),
    ],
);
const KIND: Choices = Choices { what: "anchor kind", known: &["ethereum"], planned: &[] };
const SIGNER: Keys = Keys::new(
    "signer",
    "An encrypted keystore with its password, or a plain key for development.",
    &[
        Key::may("keystore", Kind::Text, "An encrypted keystore file."),
        Key::may("password", Kind::Secret, "Its password."),
        Key::may("key", Kind::Secret, "64 hexadecimal digits; for development."),
    ],
)
.rules(&[
    Rule::OneOf(&["keystore", "key"]),
    Rule::Needs("keystore", "password"),
    Rule::Needs("password", "keystore"),
    Rule::Not("keystore", "key"),
]);
const EVERY: Keys = Keys::new(
    "anchor_every",
    "When to anchor: whichever comes first.",
    &[
        Key::may("verdicts", Kind::Int(1, i64::MAX), "When so many verdicts wait."),
        Key::may("interval", Kind::Duration(1), "When a verdict has waited so long."),
    ],
)
.rules(&[Rule::NotEmpty]);
const SIGNER_EXAMPLE: &str =
    "signer = { keystore = \"keys/operator.json\", password = \"${file:/run/secrets/keystore}\" }";
const DEFAULT_MAX_MERGE_DELAY_MS: i64 = 300_000;
/// Chains that exist on a developer's machine only.
const DEVELOPMENT_CHAINS: [u64; 2] = [31_337, 1_337];

pub(super) fn read(cx: &mut Reading<'_>, file: &Fields<'_>) -> Section<Anchor> {
    if file.get("anchor").is_none() {
        return Section::Absent;
    }
    read_body(cx, file).map_or(Section::Broken, Section::Read)
}

fn read_body(cx: &mut Reading<'_>, file: &Fields<'_>) -> Option<Anchor> {
    let f = file.table(cx, Need::Must, "anchor", &ANCHOR, "[anchor]")?;
    let kind = f.choice(cx, Need::Must, "kind", &KIND, "kind = \"ethereum\"");
    let rpc = f.text(cx, Need::Must, "rpc", "rpc = \"${env:ETH_RPC:-http://localhost:8545}\"");
    let rpc = rpc.filter(|rpc| check_rpc(cx, rpc));
    let chain_id = f.int(cx, Need::Must, "chain_id", (1, i64::MAX), "chain_id = 31337");
    let contract = f.text(cx, Need::Must, "contract", "contract = \"${env:VERDICT_LOG}\"");
    let contract = contract.and_then(|c| read_address(cx, &c));
    let chain = chain_id.as_ref().and_then(|c| u64::try_from(c.value).ok());
    let signer = read_signer(cx, &f, chain);
    let max_merge_delay = match f.get("max_merge_delay") {
        None => Some(DEFAULT_MAX_MERGE_DELAY_MS),
        Some(_) => f.duration(cx, Need::May, "max_merge_delay", 1, "max_merge_delay = \"5m\"").map(|d| d.value),
    };
    let every = read_every(cx, &f, max_merge_delay);
    kind?;
    let (every_verdicts, every_ms) = every?;
    Some(Anchor {
        rpc: rpc?,
        chain_id: chain?,
        chain_id_span: chain_id?.span,
        contract: contract?,
        signer: signer?,
        every_verdicts,
        every_ms,
        max_merge_delay_ms: max_merge_delay?,
        span: f.at,
    })
}

pub(super) fn check_rpc(cx: &mut Reading<'_>, rpc: &Text) -> bool {
    let rest = rpc.as_str().strip_prefix("http://").or_else(|| rpc.as_str().strip_prefix("https://"));
    let good = rest.is_some_and(|r| !r.is_empty() && !r.starts_with(['/', ':']) && !r.contains(char::is_whitespace));
    if !good {
        cx.diags.error(
            "bad-url",
            rpc.span,
            format!("`{}` is not the URL of a JSON-RPC endpoint", rpc.raw().escape_debug()),
            "write an http:// or https:// URL, such as \"http://localhost:8545\"",
        );
    }
    good
}

fn read_address(cx: &mut Reading<'_>, text: &Text) -> Option<Spanned<[u8; 20]>> {
    let Some(address) = hex_bytes::<20>(text.as_str()) else {
        bad_hex(cx, text, "the address of a contract", 40, "`avouch deploy` prints the address of the VerdictLog");
        return None;
    };
    if address == [0; 20] {
        cx.diags.error(
            "bad-hex",
            text.span,
            "the zero address is no contract",
            "`avouch deploy` prints the address of the VerdictLog",
        );
        return None;
    }
    Some(Spanned::new(address, text.span))
}

fn read_signer(cx: &mut Reading<'_>, f: &Fields<'_>, chain: Option<u64>) -> Option<Signer> {
    let s = f.table(cx, Need::Must, "signer", &SIGNER, SIGNER_EXAMPLE)?;
    let (has_key, has_keystore) = (s.get("key"), s.get("keystore").is_some() || s.get("password").is_some());
    let Some(key_entry) = has_key else {
        let file = s.text(cx, Need::Must, "keystore", "keystore = \"keys/operator.json\"");
        let file = file.map(|t| Spanned::new(cx.dir.join(t.as_str()), t.span));
        let password = s.secret(cx, Need::Must, "password", "password = \"${file:/run/secrets/keystore}\"");
        return Some(Signer::Keystore { file: file?, password: password? });
    };
    let key = s.secret(cx, Need::Must, "key", "key = \"${env:AVOUCH_KEY}\"");
    if has_keystore {
        cx.diags.error(
            "two-signers",
            key_entry.key_span,
            "the signer has both a `key` and a `keystore`",
            "keep one: the keystore in production, the key in development",
        );
        return None;
    }
    let key = key?;
    let bytes = hex_bytes::<32>(key.value.expose());
    if bytes.is_none_or(|b| b == [0; 32]) {
        cx.diags.error(
            "bad-key",
            key.span,
            "`anchor.signer.key` is not a private key: 64 hexadecimal digits are needed",
            "check the variable or file it comes from; the value is not shown here on purpose",
        );
        return None;
    }
    if chain.is_some_and(|c| !DEVELOPMENT_CHAINS.contains(&c)) {
        cx.diags.warning(
            "plain-key",
            key_entry.key_span,
            "a plain key signs for a chain that is not a development chain",
            format!("use an encrypted keystore: `{SIGNER_EXAMPLE}`"),
        );
    }
    Some(Signer::Key(key))
}

type Every = (Option<u64>, Option<i64>);

fn read_every(cx: &mut Reading<'_>, f: &Fields<'_>, max_merge_delay: Option<i64>) -> Option<Every> {
    let example = "every = { verdicts = 10_000, interval = \"30s\" }";
    let e = f.table(cx, Need::Must, "every", &EVERY, example)?;
    if e.get("verdicts").is_none() && e.get("interval").is_none() {
        cx.diags.error("missing-key", e.at, "`anchor.every` says not when to anchor", format!("write `{example}`"));
        return None;
    }
    let verdicts = e.int(cx, Need::May, "verdicts", (1, i64::MAX), "verdicts = 10_000");
    let interval = e.duration(cx, Need::May, "interval", 1, "interval = \"30s\"");
    if (e.get("verdicts").is_some() && verdicts.is_none()) || (e.get("interval").is_some() && interval.is_none()) {
        return None;
    }
    let max = max_merge_delay?;
    if let Some(i) = &interval
        && i.value > max
    {
        cx.diags.error(
            "broken-guarantee",
            i.span,
            format!(
                "verdicts may wait {} for their anchor, but `max_merge_delay` promises {}",
                format_duration(i.value),
                format_duration(max)
            ),
            "make the interval shorter than `max_merge_delay`, with room for the chain to answer",
        );
        return None;
    }
    if interval.is_none() {
        cx.diags.warning(
            "no-interval",
            e.at,
            "without `interval`, verdicts of a quiet fleet wait for their anchor without end, and `max_merge_delay` is \
             not kept",
            "add `interval = \"30s\"`",
        );
    }
    Some((verdicts.and_then(|v| u64::try_from(v.value).ok()), interval.map(|i| i.value)))
}
