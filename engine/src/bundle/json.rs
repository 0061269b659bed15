//! The JSON files: one spelling each.

use alloy_primitives::Address;
use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{BundleError, Inclusion, SignedCheckpoint, file};
use crate::log::Coverage;
use crate::verdict::{Disclosed, Hash32, LogOrigin, SCORE_NOT_A_NUMBER, Severity, Verdict, class};

pub(super) fn hex(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(2 + 2 * bytes.len());
    out.push_str("0x");
    for b in bytes {
        for nibble in [b >> 4, b & 15] {
            out.push(char::from_digit(u32::from(nibble), 16).unwrap_or('?'));
        }
    }
    out
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits = text.strip_prefix("0x")?.as_bytes();
    if !digits.len().is_multiple_of(2) {
        return None;
    }
    let digit = |b: u8| (b as char).to_digit(16);
    digits.chunks_exact(2).map(|p| Some((digit(p[0])? * 16 + digit(p[1])?) as u8)).collect()
}

/// Bytes as `0x` and hex digits.
struct Hex(Vec<u8>);

impl Serialize for Hex {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&hex(&self.0))
    }
}

impl<'de> Deserialize<'de> for Hex {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = String::deserialize(d)?;
        unhex(&text).map(Hex).ok_or_else(|| D::Error::custom(format!("{text:?} is not 0x and pairs of hex digits")))
    }
}

/// 32 bytes.
struct Word(Hash32);

impl Serialize for Word {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&hex(&self.0))
    }
}

impl<'de> Deserialize<'de> for Word {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let Hex(bytes) = Hex::deserialize(d)?;
        let n = bytes.len();
        bytes.try_into().map(Word).map_err(|_| D::Error::custom(format!("{n} bytes where there must be 32")))
    }
}

/// 20 bytes, with the checksum of EIP-55 in the case of its letters.
struct Account([u8; 20]);

impl Serialize for Account {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&account_text(&self.0))
    }
}

pub(super) fn account_text(bytes: &[u8; 20]) -> String {
    Address::from(*bytes).to_checksum(None)
}

impl<'de> Deserialize<'de> for Account {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let Hex(bytes) = Hex::deserialize(d)?;
        let n = bytes.len();
        bytes.try_into().map(Account).map_err(|_| D::Error::custom(format!("{n} bytes where there must be 20")))
    }
}

/// A 64-bit integer as a decimal string.
struct Decimal<T>(T);

impl<T: std::fmt::Display> Serialize for Decimal<T> {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(&self.0)
    }
}

impl<'de, T: std::str::FromStr> Deserialize<'de> for Decimal<T> {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = String::deserialize(d)?;
        text.parse().map(Decimal).map_err(|_| D::Error::custom(format!("{text:?} is not a 64-bit integer in decimal")))
    }
}

pub(super) fn render<T: Serialize>(value: &T) -> String {
    // Invariant: plain structs of strings and numbers have a JSON form.
    let mut text = serde_json::to_string_pretty(value).unwrap_or_default();
    text.push('\n');
    text
}

/// Parses one of our files and refuses every spelling but ours.
pub(super) fn parse<T: DeserializeOwned + Serialize>(file: &'static str, bytes: &[u8]) -> Result<T, BundleError> {
    let value: T = serde_json::from_slice(bytes).map_err(|e| BundleError::Malformed { file, why: e.to_string() })?;
    same(file, bytes, &render(&value))?;
    Ok(value)
}

fn same(file: &'static str, bytes: &[u8], ours: &str) -> Result<(), BundleError> {
    if bytes == ours.as_bytes() {
        return Ok(());
    }
    let differs = bytes.iter().zip(ours.as_bytes()).take_while(|(a, b)| a == b).count();
    let line = 1 + bytes[..differs].iter().filter(|b| **b == b'\n').count();
    Err(BundleError::Altered { file, why: format!("line {line} is not spelt as a bundle spells it") })
}

pub(super) fn format_is(file: &'static str, found: &str, expected: &str) -> Result<(), BundleError> {
    if found == expected {
        return Ok(());
    }
    let why = format!("its format is {found:?}, this program reads {expected:?}; use the program that made it");
    Err(BundleError::Malformed { file, why })
}

// ---- verdict.json

const VERDICT_FORMAT: &str = "avouch-verdict/1";

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct VerdictFile {
    format: String,
    log: String,
    index: Decimal<u64>,
    verdict: VerdictFields,
    reads: Reads,
}

/// Named as in the EIP-712 type.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct VerdictFields {
    device_id: Word,
    seq: Decimal<u64>,
    window_start: Decimal<u64>,
    window_end: Decimal<u64>,
    model_hash: Word,
    config_hash: Word,
    input_digest: Word,
    #[serde(rename = "scoreE6")]
    score_e6: Decimal<i64>,
    severity: u8,
    #[serde(rename = "class_")]
    class: u16,
    evidence_hash: Word,
    salt: Word,
}

/// The same in words, for people; follows from the fields.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Reads {
    score: String,
    severity: String,
    class: String,
    window: String,
}

/// Milliseconds since the epoch in RFC 3339, UTC; the number itself beyond the year 9999.
pub fn utc(ms: u64) -> String {
    let (days, in_day) = (ms / 86_400_000, ms % 86_400_000);
    if days > 2_932_896 {
        return format!("{ms} ms");
    }
    // Civil date from a day count, in eras of 400 years that begin on 1 March (H. Hinnant's method).
    let z = days + 719_468;
    let (era, doe) = (z / 146_097, z % 146_097);
    let yoe = (doe - doe / 1460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let (day, month) = (doy - (153 * mp + 2) / 5 + 1, if mp < 10 { mp + 3 } else { mp - 9 });
    let year = 400 * era + yoe + u64::from(month <= 2);
    let (h, m, s, milli) = (in_day / 3_600_000, in_day / 60_000 % 60, in_day / 1000 % 60, in_day % 1000);
    format!("{year:04}-{month:02}-{day:02}T{h:02}:{m:02}:{s:02}.{milli:03}Z")
}

fn reads(v: &Verdict) -> Reads {
    let score = match v.score_e6 {
        SCORE_NOT_A_NUMBER => "not a number".to_owned(),
        e6 => {
            let (sign, size) = (if e6 < 0 { "-" } else { "" }, e6.unsigned_abs());
            format!("{sign}{}.{:06}", size / 1_000_000, size % 1_000_000)
        }
    };
    let severity = Severity::from_code(v.severity).map_or("unknown", Severity::name).to_owned();
    let class = class::name(v.class).unwrap_or("unknown").replace('_', " ");
    let window = format!("{} to {}", utc(v.window_start), utc(v.window_end));
    Reads { score, severity, class, window }
}

pub(super) fn verdict(origin: &LogOrigin, index: u64, v: &Verdict) -> String {
    render(&VerdictFile {
        format: VERDICT_FORMAT.into(),
        log: origin.as_str().into(),
        index: Decimal(index),
        verdict: VerdictFields {
            device_id: Word(v.device_id),
            seq: Decimal(v.seq),
            window_start: Decimal(v.window_start),
            window_end: Decimal(v.window_end),
            model_hash: Word(v.model_hash),
            config_hash: Word(v.config_hash),
            input_digest: Word(v.input_digest),
            score_e6: Decimal(v.score_e6),
            severity: v.severity,
            class: v.class,
            evidence_hash: Word(v.evidence_hash),
            salt: Word(v.salt),
        },
        reads: reads(v),
    })
}

pub(super) fn parse_verdict(bytes: &[u8]) -> Result<(LogOrigin, u64, Verdict), BundleError> {
    let file: VerdictFile = parse(file::VERDICT, bytes)?;
    format_is(file::VERDICT, &file.format, VERDICT_FORMAT)?;
    let v = file.verdict;
    let verdict = Verdict {
        device_id: v.device_id.0,
        seq: v.seq.0,
        window_start: v.window_start.0,
        window_end: v.window_end.0,
        model_hash: v.model_hash.0,
        config_hash: v.config_hash.0,
        input_digest: v.input_digest.0,
        score_e6: v.score_e6.0,
        severity: v.severity,
        class: v.class,
        evidence_hash: v.evidence_hash.0,
        salt: v.salt.0,
    };
    let origin = LogOrigin::from_text(file.log);
    // What it reads as follows from the fields; a copy that says otherwise is refused.
    same(file::VERDICT, bytes, &self::verdict(&origin, file.index.0, &verdict))?;
    Ok((origin, file.index.0, verdict))
}

// ---- evidence.json, coverage.json: rendered, never parsed

/// A double as the shortest decimal that reads back as the same; what JSON cannot say, in words.
struct Double(f64);

impl Serialize for Double {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        if self.0.is_finite() { s.serialize_f64(self.0) } else { s.serialize_str(&format!("{}", self.0)) }
    }
}

#[derive(Serialize)]
struct EvidenceFile<'a> {
    format: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    device: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    step: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    topic: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    partition: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    first_offset: Option<Decimal<i64>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_offset: Option<Decimal<i64>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rows: Option<Decimal<u64>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    references: Vec<ReferenceRow<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    score: Option<Double>,
    #[serde(skip_serializing_if = "Option::is_none")]
    p_value: Option<Double>,
    #[serde(skip_serializing_if = "Option::is_none")]
    interval: Option<IntervalRow>,
    #[serde(skip_serializing_if = "Option::is_none")]
    incident: Option<Decimal<u64>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    label: Option<LabelRow>,
    features: Vec<Feature<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    withheld: Vec<&'a str>,
}

#[derive(Serialize)]
struct LabelRow {
    says: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    verdict: Option<Decimal<u64>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason_hash: Option<Word>,
    by: Word,
    at: Decimal<i64>,
}

#[derive(Serialize)]
struct IntervalRow {
    lower: Double,
    upper: Double,
}

#[derive(Serialize)]
struct ReferenceRow<'a> {
    name: &'a str,
    version: Word,
}

#[derive(Serialize)]
struct Feature<'a> {
    name: &'a str,
    value: Double,
    expected: Double,
    contribution: Double,
}

pub(super) fn evidence(e: &Disclosed) -> String {
    let features = e.features.iter().map(|f| Feature {
        name: &f.name,
        value: Double(f.value),
        expected: Double(f.expected),
        contribution: Double(f.contribution),
    });
    let references = e.references.iter().flatten();
    render(&EvidenceFile {
        format: "avouch-evidence/4",
        device: e.device.as_deref(),
        step: e.step.as_deref(),
        topic: e.source.as_ref().map(|s| &*s.topic),
        partition: e.source.as_ref().map(|s| s.partition),
        first_offset: e.source.as_ref().map(|s| Decimal(s.first_offset)),
        last_offset: e.source.as_ref().map(|s| Decimal(s.last_offset)),
        rows: e.source.as_ref().map(|s| Decimal(s.rows)),
        references: references.map(|r| ReferenceRow { name: &r.name, version: Word(r.version) }).collect(),
        score: e.score.map(|s| Double(s.score)),
        p_value: e.score.map(|s| Double(s.p_value)),
        interval: e
            .score
            .and_then(|s| s.interval)
            .map(|i| IntervalRow { lower: Double(i.lower), upper: Double(i.upper) }),
        incident: e.incident.map(Decimal),
        label: e.label.as_ref().map(|l| LabelRow {
            says: l.opinion.name(),
            verdict: l.verdict.map(Decimal),
            reason_hash: l.reason.map(Word),
            by: Word(l.by),
            at: Decimal(l.at),
        }),
        features: features.collect(),
        withheld: e.withheld(),
    })
}

#[derive(Serialize)]
struct CoverageFile<'a> {
    format: &'static str,
    topic: &'a str,
    partition: i32,
    from_offset: Decimal<i64>,
    to_offset: Decimal<i64>,
    commitment: Word,
}

pub(super) fn coverage(c: &Coverage) -> String {
    render(&CoverageFile {
        format: "avouch-coverage/1",
        topic: &c.topic,
        partition: c.partition,
        from_offset: Decimal(c.from_offset),
        to_offset: Decimal(c.to_offset),
        commitment: Word(c.commitment()),
    })
}

// ---- inclusion.json

const INCLUSION_FORMAT: &str = "avouch-inclusion/1";

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct InclusionFile {
    format: String,
    index: Decimal<u64>,
    size: Decimal<u64>,
    entry: Word,
    root: Word,
    path: Vec<Word>,
}

pub(super) fn inclusion(i: &Inclusion) -> String {
    render(&InclusionFile {
        format: INCLUSION_FORMAT.into(),
        index: Decimal(i.index),
        size: Decimal(i.size),
        entry: Word(i.entry),
        root: Word(i.root),
        path: i.path.iter().copied().map(Word).collect(),
    })
}

pub(super) fn parse_inclusion(bytes: &[u8]) -> Result<Inclusion, BundleError> {
    let f: InclusionFile = parse(file::INCLUSION, bytes)?;
    format_is(file::INCLUSION, &f.format, INCLUSION_FORMAT)?;
    let path = f.path.into_iter().map(|w| w.0).collect();
    Ok(Inclusion { index: f.index.0, size: f.size.0, entry: f.entry.0, root: f.root.0, path })
}

// ---- checkpoint.json

const CHECKPOINT_FORMAT: &str = "avouch-checkpoint/1";

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct CheckpointFile {
    format: String,
    checkpoint: CheckpointFields,
    domain: DomainFields,
    owner: Account,
    signer: Account,
    signature: Hex,
}

/// Named as in the EIP-712 type.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct CheckpointFields {
    log_id: Word,
    old_size: Decimal<u64>,
    new_size: Decimal<u64>,
    old_root: Word,
    new_root: Word,
    data_commitment: Word,
    issued_at: Decimal<u64>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct DomainFields {
    name: String,
    version: String,
    chain_id: Decimal<u64>,
    verifying_contract: Account,
}

pub(super) fn checkpoint(c: &SignedCheckpoint) -> String {
    render(&CheckpointFile {
        format: CHECKPOINT_FORMAT.into(),
        checkpoint: CheckpointFields {
            log_id: Word(c.log_id),
            old_size: Decimal(c.old_size),
            new_size: Decimal(c.new_size),
            old_root: Word(c.old_root),
            new_root: Word(c.new_root),
            data_commitment: Word(c.data_commitment),
            issued_at: Decimal(c.issued_at),
        },
        domain: DomainFields {
            name: "Avouch".into(),
            version: "1".into(),
            chain_id: Decimal(c.chain_id),
            verifying_contract: Account(c.contract),
        },
        owner: Account(c.owner),
        signer: Account(c.signer),
        signature: Hex(c.signature.clone()),
    })
}

pub(super) fn parse_checkpoint(bytes: &[u8]) -> Result<SignedCheckpoint, BundleError> {
    let f: CheckpointFile = parse(file::CHECKPOINT, bytes)?;
    format_is(file::CHECKPOINT, &f.format, CHECKPOINT_FORMAT)?;
    if (f.domain.name.as_str(), f.domain.version.as_str()) != ("Avouch", "1") {
        let why = format!("signed for the domain {:?} {:?}, not for \"Avouch\" \"1\"", f.domain.name, f.domain.version);
        return Err(BundleError::Malformed { file: file::CHECKPOINT, why });
    }
    let c = f.checkpoint;
    Ok(SignedCheckpoint {
        log_id: c.log_id.0,
        old_size: c.old_size.0,
        new_size: c.new_size.0,
        old_root: c.old_root.0,
        new_root: c.new_root.0,
        data_commitment: c.data_commitment.0,
        issued_at: c.issued_at.0,
        chain_id: f.domain.chain_id.0,
        contract: f.domain.verifying_contract.0,
        owner: f.owner.0,
        signer: f.signer.0,
        signature: f.signature.0,
    })
}
