//! Rows that die, with why and where: nothing disappears.

use crate::codec::{CodecError, Reader, Writer};

/// Why a row died. The names are the `reason` label of the metrics and the header of the dead-letter topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum DeadReason {
    /// The payload is not what the format says: bad JSON, bad UTF-8, no value at all, a schema the registry does not have.
    Undecodable,
    /// Well-formed, but a field is missing, null where it must not be, or of the wrong type or range.
    Schema,
    /// The row carries no device, or one that is empty, or (where records are repartitioned) one that is not its record's key.
    NoDevice,
    /// Every window the row belongs to is closed already.
    Late,
    /// Event time is further ahead of the record's broker timestamp than `max_future`.
    Future,
    /// The SQL of a step failed on this row.
    Sql,
    /// The record is larger than `max_record_bytes`, or unfolds to more than is taken from one.
    TooLarge,
    /// Readings must be signed ([`crate::identity`]), and this one is not.
    Unsigned,
    /// The signature is not one that the device's key makes of this reading, or is in no form that a signature has.
    Forged,
    /// It is signed, but its number is not above that of the device's last accepted reading.
    Replayed,
    /// No key speaks for readings of this number any more.
    Revoked,
    /// No key was ever enrolled for the device.
    UnknownDevice,
    /// No key speaks for readings of this number yet.
    KeyNotValid,
}

impl DeadReason {
    /// Every reason, in a fixed order.
    pub const ALL: [DeadReason; 13] = [
        DeadReason::Undecodable,
        DeadReason::Schema,
        DeadReason::NoDevice,
        DeadReason::Late,
        DeadReason::Future,
        DeadReason::Sql,
        DeadReason::TooLarge,
        DeadReason::Unsigned,
        DeadReason::Forged,
        DeadReason::Replayed,
        DeadReason::Revoked,
        DeadReason::UnknownDevice,
        DeadReason::KeyNotValid,
    ];

    /// Those of readings that must be signed.
    pub const OF_SIGNATURES: [DeadReason; 6] = [
        DeadReason::Unsigned,
        DeadReason::Forged,
        DeadReason::Replayed,
        DeadReason::Revoked,
        DeadReason::UnknownDevice,
        DeadReason::KeyNotValid,
    ];

    /// The stable name.
    pub fn name(self) -> &'static str {
        match self {
            DeadReason::Undecodable => "undecodable",
            DeadReason::Schema => "schema",
            DeadReason::NoDevice => "no_device",
            DeadReason::Late => "late",
            DeadReason::Future => "future",
            DeadReason::Sql => "sql",
            DeadReason::TooLarge => "too_large",
            DeadReason::Unsigned => "unsigned",
            DeadReason::Forged => "forged",
            DeadReason::Replayed => "replayed",
            DeadReason::Revoked => "revoked",
            DeadReason::UnknownDevice => "unknown_device",
            DeadReason::KeyNotValid => "key_not_valid",
        }
    }

    /// Its place in [`DeadReason::ALL`], for counters.
    pub fn index(self) -> usize {
        self as usize
    }
}

/// A row that died.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    /// Why.
    pub reason: DeadReason,
    /// What exactly is wrong, for a person: names the field or the column and byte.
    pub detail: String,
    /// Offset in the source partition.
    pub offset: i64,
    /// Index of the row in its record, if the record holds several (Arrow) and could be decoded.
    pub row: Option<u32>,
    /// The record's broker timestamp, milliseconds since the epoch.
    pub timestamp: i64,
    /// The record's key, if it had one.
    pub key: Option<Vec<u8>>,
    /// The record's raw value, if it had one. With `row` it is that row alone, as the JSON object that `format = "json"`
    /// takes: a record of a thousand late rows must not be kept a thousand times. Numbers that JSON has no word for (NaN,
    /// infinity) are text there.
    pub value: Option<Vec<u8>>,
    /// What stood in the record's signature header, if readings are signed there, up to 1,024 bytes, which no signature has:
    /// without it the record could not be given to a pipeline again.
    pub signature: Option<Vec<u8>>,
}

impl DeadLetter {
    /// The canonical bytes (see [`crate::codec`]).
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut w = Writer::new();
        w.u8(self.reason.index() as u8);
        w.str(&self.detail);
        w.i64(self.offset);
        w.u8(u8::from(self.row.is_some()));
        w.u32(self.row.unwrap_or(0));
        w.i64(self.timestamp);
        for part in [&self.key, &self.value] {
            match part {
                None => w.u8(0),
                Some(b) => {
                    w.u8(1);
                    w.bytes(b);
                }
            }
        }
        // Behind all else, and only where there is one: letters from before there were signatures read the same.
        if let Some(signature) = &self.signature {
            w.bytes(signature);
        }
        w.bytes
    }

    /// Reads what [`DeadLetter::to_bytes`] wrote.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, CodecError> {
        let mut r = Reader::new("dead letter", bytes);
        let code = r.u8()? as usize;
        let Some(&reason) = DeadReason::ALL.get(code) else {
            return Err(r.invalid(format!("unknown reason code {code}")));
        };
        let detail = r.str()?.to_owned();
        let offset = r.i64()?;
        let (flag, row) = (r.u8()?, r.u32()?);
        let row = match flag {
            0 if row == 0 => None,
            1 => Some(row),
            other => return Err(r.invalid(format!("row flag {other}"))),
        };
        let timestamp = r.i64()?;
        let mut parts = [None, None];
        for part in &mut parts {
            *part = match r.u8()? {
                0 => None,
                1 => Some(r.bytes()?.to_vec()),
                other => return Err(r.invalid(format!("presence flag {other}"))),
            };
        }
        let signature = if r.remaining() > 0 { Some(r.bytes()?.to_vec()) } else { None };
        r.finish()?;
        let [key, value] = parts;
        Ok(Self { reason, detail, offset, row, timestamp, key, value, signature })
    }
}
