//! `[anchor]`: where and when the verdict log is anchored.

use avouch_connectors::ethereum::{KmsError, KmsOptions};

use super::super::fields::{Choices, Fields, Key, Keys, Kind, Need, Reading, Rule, value_span};
use super::super::interpolate::Text;
use super::super::pipeline::{Anchor, Gas, KmsKey, Rpc, Signer};
use super::super::span::Spanned;
use super::super::tree::NodeValue;
use super::super::units::format_duration;
use super::Section;
use super::steps::{bad_hex, hex_bytes};

pub(super) const ANCHOR: Keys = Keys::new(
    "anchor",
    "Where and when checkpoints of the verdict log are anchored. Without it nothing is, and no bundle can be made.",
    &[
        Key::must("kind", Kind::Choice(&KIND), "What it is anchored in."),
        RPC,
        QUORUM,
        Key::must("chain_id", Kind::Int(1, i64::MAX), "EIP-155 chain id; any other chain is refused."),
        Key::must("contract", Kind::Text, "Address of the VerdictLog, from `avouch deploy`."),
        Key::must("signer", Kind::Table(&SIGNER), "Who signs checkpoints and pays for them."),
        Key::may(
            "owner",
            Kind::Text,
            "Address of the account that registered the logs, once `avouch rotate` has handed them over to another signer.",
        )
        .or("the signer's"),
        Key::must("every", Kind::Table(&EVERY), "When to anchor: whichever comes first."),
        Key::may("gas", Kind::Table(&GAS), "What anchors may cost, and whether they wait for cheaper gas."),
        Key::may(
            "max_merge_delay",
            Kind::Duration(1),
            "The promise that metrics watch: no verdict waits longer for its anchor. `every.interval` may not be longer.",
        )
        .or("\"5m\""),
    ],
);
pub(super) const RPC: Key = Key::must(
    "rpc",
    Kind::OneOrMore,
    "JSON-RPC endpoints of one chain, http or https, the preferred first: one that is away is stood in for by the others.",
);
pub(super) const QUORUM: Key = Key::may(
    "quorum",
    Kind::Int(1, MOST_ENDPOINTS),
    "How many of the endpoints must agree before what one says of the chain is believed.",
)
.or("1");
/// Each is asked about everything.
const MOST_ENDPOINTS: i64 = 16;
const RPC_EXAMPLE: &str = "rpc = \"${env:ETH_RPC:-http://localhost:8545}\"";
const KIND: Choices = Choices { what: "anchor kind", known: &["ethereum"], planned: &[] };
const SIGNER: Keys = Keys::new(
    "signer",
    "An encrypted keystore with its password, a key in AWS KMS, or a plain key for development.",
    &[
        Key::may("keystore", Kind::Text, "An encrypted keystore file."),
        Key::may("password", Kind::Secret, "Its password."),
        Key::may("key", Kind::Secret, "64 hexadecimal digits; for development."),
        Key::may(
            "aws_kms",
            Kind::Text,
            "ARN or id of a key in AWS KMS, or ARN or name of an alias; the key is of spec ECC_SECG_P256K1 for SIGN_VERIFY.",
        ),
        Key::may("region", Kind::Text, "With `aws_kms`: its region.").or("the ARN's, then the environment's"),
        Key::may("endpoint", Kind::Text, "With `aws_kms`: URL of the service.").or("the environment's, then Amazon's"),
    ],
)
.rules(&[
    Rule::OneOf(&["keystore", "aws_kms", "key"]),
    Rule::Needs("keystore", "password"),
    Rule::Needs("password", "keystore"),
    Rule::Needs("region", "aws_kms"),
    Rule::Needs("endpoint", "aws_kms"),
    Rule::Not("keystore", "key"),
    Rule::Not("keystore", "aws_kms"),
    Rule::Not("aws_kms", "key"),
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
const GAS: Keys = Keys::new(
    "anchor_gas",
    "What anchors may cost. What cannot be paid for waits, nothing is lost, and the delay is an alarm when it breaks the promise.",
    &[
        Key::may("max_fee", Kind::Ether, "The most that is offered for a unit of gas, tip included.").or("\"500 gwei\""),
        Key::may(
            "per_day",
            Kind::Ether,
            "The most that is spent on a day, UTC, by the time of the chain's blocks; what is on its way counts with the most \
             that it can cost.",
        )
        .or("no limit"),
        Key::may(
            "adapt",
            Kind::Bool,
            "Whether anchors that are due wait for cheaper gas, and for the day's budget to last, as long as \
             `max_merge_delay` allows; more goes into each then.",
        )
        .or("false"),
    ],
)
.rules(&[Rule::NotEmpty]);
const GAS_EXAMPLE: &str = "gas = { max_fee = \"60 gwei\", per_day = \"0.05 ether\", adapt = true }";
const SIGNER_EXAMPLE: &str =
    "signer = { keystore = \"keys/operator.json\", password = \"${file:/run/secrets/keystore}\" }";
const KMS_EXAMPLE: &str = "aws_kms = \"alias/avouch-operator\"";
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
    let rpc = read_rpc(cx, &f);
    let chain_id = f.int(cx, Need::Must, "chain_id", (1, i64::MAX), "chain_id = 31337");
    let contract = f.text(cx, Need::Must, "contract", "contract = \"${env:VERDICT_LOG}\"");
    let contract = contract.and_then(|c| read_address(cx, &c, &CONTRACT));
    let owner = match f.get("owner") {
        None => Some(None),
        Some(_) => {
            let text = f.text(cx, Need::May, "owner", "owner = \"0x70997970C51812dc3A010C7d01b50e0d17dc79C8\"");
            text.and_then(|t| read_address(cx, &t, &OWNER)).map(Some)
        }
    };
    let chain = chain_id.as_ref().and_then(|c| u64::try_from(c.value).ok());
    let signer = read_signer(cx, &f, chain);
    let max_merge_delay = match f.get("max_merge_delay") {
        None => Some(DEFAULT_MAX_MERGE_DELAY_MS),
        Some(_) => f.duration(cx, Need::May, "max_merge_delay", 1, "max_merge_delay = \"5m\"").map(|d| d.value),
    };
    let gas = read_gas(cx, &f);
    let every = read_every(cx, &f, max_merge_delay);
    kind?;
    let (every_verdicts, every_ms) = every?;
    Some(Anchor {
        rpc: rpc?,
        chain_id: chain?,
        chain_id_span: chain_id?.span,
        contract: contract?,
        signer: signer?,
        owner: owner?,
        every_verdicts,
        every_ms,
        gas: gas?,
        max_merge_delay_ms: max_merge_delay?,
        span: f.at,
    })
}

/// Reads `rpc` and `quorum`.
pub(super) fn read_rpc(cx: &mut Reading<'_>, f: &Fields<'_>) -> Option<Rpc> {
    let endpoints = f.texts(cx, Need::Must, "rpc", RPC_EXAMPLE);
    let quorum = match f.get("quorum") {
        None => Some(Spanned::new(1, f.at)),
        Some(_) => f.int(cx, Need::May, "quorum", (1, MOST_ENDPOINTS), "quorum = 2"),
    };
    let endpoints = endpoints?;
    let good = endpoints.iter().filter(|rpc| check_rpc(cx, rpc)).count() == endpoints.len();
    if let Some(again) = endpoints.iter().enumerate().find(|(i, e)| {
        // Two that stand for one would agree with each other.
        !cx.offline && endpoints[..*i].iter().any(|other| other.as_str() == e.as_str())
    }) {
        cx.diags.error(
            "endpoint-twice",
            again.1.span,
            format!("`{}` stands here twice", again.1.raw().escape_debug()),
            "remove one of them, or name another node: one cannot stand in for itself, nor agree with itself",
        );
        return None;
    }
    let quorum = quorum?;
    let wanted = usize::try_from(quorum.value).ok()?;
    if wanted > endpoints.len() {
        cx.diags.error(
            "no-quorum",
            quorum.span,
            format!("{wanted} endpoints must agree, and `rpc` has {}", endpoints.len()),
            "name more endpoints in `rpc`, or make `quorum` smaller",
        );
        return None;
    }
    let span = f.get("rpc").map_or(f.at, value_span);
    good.then_some(Rpc { endpoints, quorum: wanted, span })
}

fn check_rpc(cx: &mut Reading<'_>, rpc: &Text) -> bool {
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

/// What an address is of: of what, why not of nobody, and where to find it.
struct Whose(&'static str, &'static str, &'static str);
const CONTRACT: Whose = Whose(
    "the address of a contract",
    "the zero address is no contract",
    "`avouch deploy` prints the address of the VerdictLog",
);
const OWNER: Whose = Whose(
    "the address of an account",
    "the zero address owns no log",
    "`avouch rotate` prints the owner's address; it is that of the first signer",
);

fn read_address(cx: &mut Reading<'_>, text: &Text, Whose(what, nobody, help): &Whose) -> Option<Spanned<[u8; 20]>> {
    let Some(address) = hex_bytes::<20>(text.as_str()) else {
        bad_hex(cx, text, what, 40, help);
        return None;
    };
    if address == [0; 20] {
        cx.diags.error("bad-hex", text.span, *nobody, *help);
        return None;
    }
    Some(Spanned::new(address, text.span))
}

fn read_signer(cx: &mut Reading<'_>, f: &Fields<'_>, chain: Option<u64>) -> Option<Signer> {
    let s = f.table(cx, Need::Must, "signer", &SIGNER, SIGNER_EXAMPLE)?;
    let (has_key, has_keystore) = (s.get("key"), s.get("keystore").is_some() || s.get("password").is_some());
    let kms_entry = s.get("aws_kms").or_else(|| s.get("region")).or_else(|| s.get("endpoint"));
    if let Some(entry) = kms_entry {
        let kms = read_kms(cx, &s);
        let other = if has_keystore { "keystore" } else { "key" };
        if has_keystore || has_key.is_some() {
            // Read so that they are masked in the line that is shown.
            let _ = s.secret(cx, Need::May, "key", "key = \"${env:AVOUCH_KEY}\"");
            let _ = s.secret(cx, Need::May, "password", "password = \"${file:/run/secrets/keystore}\"");
            cx.diags.error(
                "two-signers",
                entry.key_span,
                format!("the signer has both a key in AWS KMS and a `{other}`"),
                "keep one: a key in KMS or the keystore in production, the key in development",
            );
            return None;
        }
        return kms.map(Signer::Kms);
    }
    if s.misspelt("aws_kms") {
        return None;
    }
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

fn read_kms(cx: &mut Reading<'_>, s: &Fields<'_>) -> Option<KmsKey> {
    let key = s.text(cx, Need::Must, "aws_kms", KMS_EXAMPLE);
    let mut optional = |name: &str, example: &str| match s.get(name) {
        None => Some(None),
        Some(_) => s.text(cx, Need::May, name, example).map(Some),
    };
    let region = optional("region", "region = \"eu-central-1\"");
    let endpoint = optional("endpoint", "endpoint = \"https://kms.eu-central-1.amazonaws.com\"");
    let (key, region, endpoint) = (key?, region?, endpoint?);
    let said = |text: &Option<Text>| text.as_ref().map(|t| t.as_str().trim().to_owned());
    let options =
        KmsOptions { region: said(&region), endpoint: said(&endpoint), ..KmsOptions::new(key.as_str().trim()) };
    let span_of = |text: &Option<Text>| text.as_ref().map_or(key.span, |t| t.span);
    // What interpolation gave is not repeated: it may be something else by mistake, such as a private key.
    let shown = key.raw().escape_debug();
    match options.check() {
        Ok(()) => {}
        // What stands in the place of a variable that is not set is in no ARN, and nobody is asked.
        Err(KmsError::OtherRegion { .. }) if cx.offline => {}
        Err(KmsError::OtherRegion { arn, .. }) => {
            cx.diags.error(
                "bad-kms",
                span_of(&region),
                format!("the ARN in `anchor.signer.aws_kms` says region {arn}, and `region` another one"),
                "remove `region`, or correct the ARN",
            );
            return None;
        }
        Err(KmsError::BadRegion { .. }) => {
            cx.diags.error(
                "bad-kms",
                span_of(&region),
                "`anchor.signer.region` is no name of a region",
                "write for example `region = \"eu-central-1\"`",
            );
            return None;
        }
        Err(KmsError::BadEndpoint { .. }) => {
            cx.diags.error(
                "bad-endpoint",
                span_of(&endpoint),
                "`anchor.signer.endpoint` must be the http:// or https:// URL of a KMS service, without user name, password and query",
                "remove it for Amazon's own, or write for example `endpoint = \"https://kms.eu-central-1.amazonaws.com\"`",
            );
            return None;
        }
        Err(_) => {
            cx.diags.error(
                "bad-kms",
                key.span,
                format!("`{shown}` is no key in AWS KMS"),
                "write its ARN (arn:aws:kms:REGION:ACCOUNT:key/ID), its id, or an alias (alias/NAME)",
            );
            return None;
        }
    }
    if !cfg!(feature = "aws-kms") && !cx.offline {
        cx.diags.error(
            "not-built",
            key.span,
            "this build of avouch cannot reach AWS KMS",
            "build it with the cargo feature `aws-kms`, which is on by default, or use a keystore",
        );
        return None;
    }
    Some(KmsKey { key: Spanned::new(options.key, key.span), region: options.region, endpoint: options.endpoint })
}

fn read_gas(cx: &mut Reading<'_>, f: &Fields<'_>) -> Option<Gas> {
    if f.get("gas").is_none() {
        return Some(Gas::default());
    }
    let g = f.table(cx, Need::May, "gas", &GAS, GAS_EXAMPLE)?;
    if g.entries().is_empty() {
        cx.diags.error(
            "missing-key",
            g.at,
            "`anchor.gas` says nothing",
            format!("write `{GAS_EXAMPLE}`, or remove `gas`"),
        );
        return None;
    }
    let max_fee = g.ether(cx, Need::May, "max_fee", "max_fee = \"60 gwei\"");
    let per_day = g.ether(cx, Need::May, "per_day", "per_day = \"0.05 ether\"");
    let adapt = match g.get("adapt") {
        None => Some(false),
        Some(e) => match e.node.value {
            NodeValue::Bool(adapt) => Some(adapt),
            _ => {
                g.wrong_type(cx, e, "true or false", "adapt = true");
                None
            }
        },
    };
    let broken = |key: &str, read: bool| g.get(key).is_some() && !read;
    if broken("max_fee", max_fee.is_some()) || broken("per_day", per_day.is_some()) {
        return None;
    }
    Some(Gas { max_fee: max_fee.map(|w| w.value), per_day: per_day.map(|w| w.value), adapt: adapt? })
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
