//! The verdict: one decision about one device over one window, and what is hashed of it.
//!
//! A [`Verdict`] is an EIP-712 struct of static fields, so it has one encoding. Its 32-byte struct hash is the entry
//! of the verdict log. What a person wants to read (device name, features, contributions) is the [`Evidence`] beside
//! it, bound by `evidence_hash`; nothing readable is in the struct itself.

mod evidence;
mod identity;
pub(crate) mod parts;
mod record;
mod salts;
mod secret;

pub use evidence::{Evidence, FeatureEvidence, ReferenceVersion};
pub use identity::LogOrigin;
pub use parts::{Disclosed, FEATURE, Scored, SourceRows};
pub use record::{Logged, Tombstone, VerdictRecord};
pub use salts::RecordSalts;
pub use secret::{Secret, SecretError};

use alloy_primitives::keccak256;

/// A 32-byte hash or identifier.
pub type Hash32 = [u8; 32];

/// The EIP-712 type string, exactly as Solidity and wallets see it.
pub const VERDICT_TYPE: &str = "Verdict(bytes32 deviceId,uint64 seq,uint64 windowStart,uint64 windowEnd,bytes32 modelHash,bytes32 configHash,bytes32 inputDigest,int64 scoreE6,uint8 severity,uint16 class_,bytes32 evidenceHash,bytes32 salt)";

/// `scoreE6` of a verdict whose score is not a number (its class is [`class::NOT_A_NUMBER`]).
pub const SCORE_NOT_A_NUMBER: i64 = i64::MIN;

/// `modelHash` of a label: no model has judged.
pub const NO_MODEL: Hash32 = [0; 32];

/// Verdict classes (`class_`): what kind of statement the verdict makes.
pub mod class {
    /// The window looks like the training data.
    pub const NORMAL: u16 = 0;
    /// The window does not look like the training data.
    pub const ANOMALY: u16 = 1;
    /// The model could not score the window, because a feature is null or not finite.
    pub const NOT_A_NUMBER: u16 = 2;
    /// A prognosis is beyond a threshold: the machine is expected to fail.
    pub const FAILURE_EXPECTED: u16 = 3;
    /// Readings are missing.
    pub const GAP: u16 = 4;
    /// A sensor repeats one value.
    pub const STUCK: u16 = 5;
    /// A sensor is at the end of its range.
    pub const SATURATED: u16 = 6;
    /// Readings come at another rhythm than they should.
    pub const IRREGULAR: u16 = 7;
    /// The data are not any more what the model was made for.
    pub const DRIFT: u16 = 8;
    /// A person says: there was an alarm, and something was wrong ([`crate::label`]).
    pub const LABEL_TRUE_ALARM: u16 = 9;
    /// A person says: there was an alarm, and nothing was wrong.
    pub const LABEL_FALSE_ALARM: u16 = 10;
    /// A person says: something was wrong that was not called.
    pub const LABEL_MISSED: u16 = 11;
    /// A person says: nothing was wrong.
    pub const LABEL_HEALTHY: u16 = 12;

    /// All, in the order of their numbers.
    pub const ALL: [u16; 13] = [
        NORMAL,
        ANOMALY,
        NOT_A_NUMBER,
        FAILURE_EXPECTED,
        GAP,
        STUCK,
        SATURATED,
        IRREGULAR,
        DRIFT,
        LABEL_TRUE_ALARM,
        LABEL_FALSE_ALARM,
        LABEL_MISSED,
        LABEL_HEALTHY,
    ];

    /// Whether a record of this class is a label: what a person says, and no decision of a model.
    pub fn is_label(class: u16) -> bool {
        (LABEL_TRUE_ALARM..=LABEL_HEALTHY).contains(&class)
    }

    /// The class of a finding.
    pub fn of(finding: crate::model::Finding) -> u16 {
        use crate::model::Finding;
        match finding {
            Finding::Gap => GAP,
            Finding::Stuck => STUCK,
            Finding::Saturated => SATURATED,
            Finding::Irregular => IRREGULAR,
            Finding::Drift => DRIFT,
        }
    }

    /// Its name in JSON and tables; `None` for a number that no class has.
    pub fn name(class: u16) -> Option<&'static str> {
        Some(match class {
            NORMAL => "normal",
            ANOMALY => "anomaly",
            NOT_A_NUMBER => "not_a_number",
            FAILURE_EXPECTED => "failure_expected",
            GAP => "gap",
            STUCK => "stuck",
            SATURATED => "saturated",
            IRREGULAR => "irregular",
            DRIFT => "drift",
            LABEL_TRUE_ALARM => "label_true_alarm",
            LABEL_FALSE_ALARM => "label_false_alarm",
            LABEL_MISSED => "label_missed",
            LABEL_HEALTHY => "label_healthy",
            _ => return None,
        })
    }
}

/// How grave a verdict is. The numbers are part of the hash and never change meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Nothing to do.
    Normal = 0,
    /// Look at it.
    Warning = 1,
    /// Act on it.
    Critical = 2,
}

impl Severity {
    /// All, mildest first.
    pub const ALL: [Severity; 3] = [Severity::Normal, Severity::Warning, Severity::Critical];

    /// The number in the verdict struct.
    pub fn code(self) -> u8 {
        self as u8
    }

    /// The severity of a number, if it is one.
    pub fn from_code(code: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|s| s.code() == code)
    }

    /// Its lower-case name, as in TOML, metrics and JSON.
    pub fn name(self) -> &'static str {
        match self {
            Severity::Normal => "normal",
            Severity::Warning => "warning",
            Severity::Critical => "critical",
        }
    }
}

/// One decision. Times are milliseconds since the Unix epoch; the window is `[window_start, window_end)`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// HMAC-SHA-256 of the device's name under the pipeline's secret ([`Secret::device_id`]).
    pub device_id: Hash32,
    /// Gapless per device and log, from 0.
    pub seq: u64,
    /// First instant of the window.
    pub window_start: u64,
    /// First instant after the window.
    pub window_end: u64,
    /// SHA-256 of the model file; [`NO_MODEL`] of a label.
    pub model_hash: Hash32,
    /// SHA-256 of the canonical pipeline.
    pub config_hash: Hash32,
    /// SHA-256 over the canonical form of the rows used; of a label, of the label itself ([`crate::label::Label::id`]).
    pub input_digest: Hash32,
    /// Score times one million, rounded half to even, saturating; [`SCORE_NOT_A_NUMBER`] when there is none.
    pub score_e6: i64,
    /// [`Severity::code`].
    pub severity: u8,
    /// One of [`class`].
    pub class: u16,
    /// [`Evidence::hash`].
    pub evidence_hash: Hash32,
    /// Made from the record's key ([`RecordSalts::salt`]), which can be erased; blinds the record.
    pub salt: Hash32,
}

fn word_u64(v: u64) -> Hash32 {
    let mut w = [0u8; 32];
    w[24..].copy_from_slice(&v.to_be_bytes());
    w
}

fn word_i64(v: i64) -> Hash32 {
    let mut w = if v < 0 { [0xffu8; 32] } else { [0u8; 32] };
    w[24..].copy_from_slice(&v.to_be_bytes());
    w
}

/// keccak256 of [`VERDICT_TYPE`].
pub fn verdict_type_hash() -> Hash32 {
    static HASH: std::sync::OnceLock<Hash32> = std::sync::OnceLock::new();
    *HASH.get_or_init(|| keccak256(VERDICT_TYPE.as_bytes()).0)
}

impl Verdict {
    /// The twelve ABI words of the struct, in order.
    pub fn words(&self) -> [Hash32; 12] {
        [
            self.device_id,
            word_u64(self.seq),
            word_u64(self.window_start),
            word_u64(self.window_end),
            self.model_hash,
            self.config_hash,
            self.input_digest,
            word_i64(self.score_e6),
            word_u64(u64::from(self.severity)),
            word_u64(u64::from(self.class)),
            self.evidence_hash,
            self.salt,
        ]
    }

    /// EIP-712 `hashStruct`: keccak256(typeHash ‖ the twelve words). This is the entry of the verdict log. It has no
    /// domain in it, so the same verdict has the same entry whichever chain its log is anchored on.
    pub fn struct_hash(&self) -> Hash32 {
        let mut buf = [0u8; 13 * 32];
        buf[..32].copy_from_slice(&verdict_type_hash());
        for (i, w) in self.words().iter().enumerate() {
            buf[32 * (i + 1)..32 * (i + 2)].copy_from_slice(w);
        }
        keccak256(buf).0
    }
}

/// A score as it stands in the verdict: times one million, rounded half to even, saturating below [`i64::MAX`].
pub fn score_e6(score: f64) -> i64 {
    if score.is_nan() {
        return SCORE_NOT_A_NUMBER;
    }
    let scaled = (score * 1e6).round_ties_even();
    // `as` saturates; i64::MIN is kept for "not a number".
    (scaled as i64).max(i64::MIN + 1)
}
