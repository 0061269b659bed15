//! What a person says of a verdict, or of a device and a stretch of time: a label.
//!
//! A label becomes a record of the verdict log of the device's lane ([`crate::lane::Lane::label`]), so that it is anchored like
//! a verdict and can be neither taken back nor left out; another label of the same person or of another one only stands beside it. It
//! is an input of the lane ([`crate::event::LaneEvent::Label`]), recorded at its place like a tick.
//!
//! Nothing in it names the person, who has a pseudonym ([`crate::verdict::Secret::person_id`]), or the reason, of which it
//! has a salted hash ([`reason_hash`]): whoever deletes the text and its salt has erased the reason, and the log stays valid.

use sha2::{Digest, Sha256};

use crate::codec::{CodecError, Reader, Writer};
use crate::verdict::{Hash32, class};

const MAGIC: &[u8; 8] = b"avouchL1";
const OF_VERDICT: u8 = 1;
const WITH_REASON: u8 = 2;

/// What is said. The codes are part of the hash and never change meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Opinion {
    /// There was an alarm, and something was wrong.
    TrueAlarm = 1,
    /// There was an alarm, and nothing was wrong.
    FalseAlarm = 2,
    /// Something was wrong that was not called.
    Missed = 3,
    /// Nothing was wrong.
    Healthy = 4,
}

impl Opinion {
    /// All, in the order of their codes.
    pub const ALL: [Opinion; 4] = [Opinion::TrueAlarm, Opinion::FalseAlarm, Opinion::Missed, Opinion::Healthy];

    /// The name, as on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Opinion::TrueAlarm => "true-alarm",
            Opinion::FalseAlarm => "false-alarm",
            Opinion::Missed => "missed",
            Opinion::Healthy => "healthy",
        }
    }

    /// The opinion of a name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|o| o.name() == name)
    }

    /// Whether it says that something was wrong with the device.
    pub fn is_fault(self) -> bool {
        matches!(self, Opinion::TrueAlarm | Opinion::Missed)
    }

    /// The class of its records in the log.
    pub fn class(self) -> u16 {
        match self {
            Opinion::TrueAlarm => class::LABEL_TRUE_ALARM,
            Opinion::FalseAlarm => class::LABEL_FALSE_ALARM,
            Opinion::Missed => class::LABEL_MISSED,
            Opinion::Healthy => class::LABEL_HEALTHY,
        }
    }
}

/// What one person says. Times are milliseconds since the Unix epoch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Label {
    /// The device's name, as in the readings.
    pub device: String,
    /// Index, in the lane's log, of the verdict it is about; `None` where it is about a stretch of time.
    pub verdict: Option<u64>,
    /// The model step it is about: that of the verdict; empty where it is about a stretch and about every step.
    pub step: String,
    /// First instant of what it is about: of the verdict's window, or of the stretch.
    pub from: u64,
    /// First instant after it.
    pub to: u64,
    /// What is said.
    pub opinion: Opinion,
    /// [`reason_hash`] of the reason, if one was given.
    pub reason: Option<Hash32>,
    /// The person's pseudonym.
    pub by: Hash32,
    /// When it was said, by the person's clock. Nothing rests on it; that the log had it by some time is for the anchor to say.
    pub at: i64,
}

impl Label {
    /// The canonical bytes (see [`crate::codec`]): a mark, what parts there are, then the fields in the order of the
    /// declaration.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut w = Writer::new();
        self.write(&mut w);
        w.bytes
    }

    pub(crate) fn write(&self, w: &mut Writer) {
        w.raw(MAGIC);
        let of_verdict = u8::from(self.verdict.is_some()) * OF_VERDICT;
        w.u8(of_verdict | (u8::from(self.reason.is_some()) * WITH_REASON));
        w.str(&self.device);
        if let Some(index) = self.verdict {
            w.u64(index);
        }
        w.str(&self.step);
        w.u64(self.from);
        w.u64(self.to);
        w.u8(self.opinion as u8);
        if let Some(reason) = &self.reason {
            w.raw(reason);
        }
        w.raw(&self.by);
        w.i64(self.at);
    }

    /// Reads what [`Label::to_bytes`] wrote.
    ///
    /// # Errors
    /// When the bytes are not exactly that, or say what no label can ([`Label::flaw`]).
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, CodecError> {
        let mut r = Reader::new("label", bytes);
        if &r.array::<8>()? != MAGIC {
            return Err(r.invalid("these bytes are not a label of version 1"));
        }
        let parts = r.u8()?;
        if parts > OF_VERDICT | WITH_REASON {
            return Err(r.invalid(format!("a label with the unknown parts {parts}")));
        }
        let device = r.str()?.to_owned();
        let verdict = if parts & OF_VERDICT == 0 { None } else { Some(r.u64()?) };
        let step = r.str()?.to_owned();
        let (from, to, code) = (r.u64()?, r.u64()?, r.u8()?);
        let Some(opinion) = Opinion::ALL.into_iter().find(|o| *o as u8 == code) else {
            return Err(r.invalid(format!("unknown opinion {code}")));
        };
        let reason = if parts & WITH_REASON == 0 { None } else { Some(r.array()?) };
        let label = Self { device, verdict, step, from, to, opinion, reason, by: r.array()?, at: r.i64()? };
        if let Some(flaw) = label.flaw() {
            return Err(r.invalid(flaw));
        }
        r.finish()?;
        Ok(label)
    }

    /// What is wrong with it by itself, if anything is.
    pub fn flaw(&self) -> Option<&'static str> {
        if self.device.is_empty() {
            return Some("the device is empty");
        }
        if self.from >= self.to {
            return Some("it is about no time: its end is not after its beginning");
        }
        if self.verdict.is_some() && self.step.is_empty() {
            return Some("the step of the verdict is empty");
        }
        None
    }

    /// What identifies it: SHA-256 of the canonical bytes, which is `inputDigest` of its record.
    pub fn id(&self) -> Hash32 {
        Sha256::digest(self.to_bytes()).into()
    }

    /// Whether it says something of a window that this step judged: that very window if it is about a verdict, and every one that
    /// its stretch touches if it is about a stretch.
    pub fn covers(&self, device: &str, step: &str, window: (i64, i64)) -> bool {
        let time = |t: u64| i64::try_from(t).unwrap_or(i64::MAX);
        let (from, to) = (time(self.from), time(self.to));
        let here = match self.verdict {
            // A window that began before 1970 begins there in its verdict.
            Some(_) => (window.0.max(0), window.1) == (from, to),
            None => window.0 < to && from < window.1,
        };
        here && self.device == device && (self.step.is_empty() || self.step == step)
    }
}

/// The hash of a reason: SHA-256 of "avouch/reason/1" ‖ 0x00 ‖ salt ‖ text. The salt is random and kept with the text, so that
/// whoever has neither cannot find the text by trying.
pub fn reason_hash(salt: &[u8; 16], text: &str) -> Hash32 {
    let mut hash = Sha256::new();
    hash.update(b"avouch/reason/1\0");
    hash.update(salt);
    hash.update(text.as_bytes());
    hash.finalize().into()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    fn labels() -> impl Strategy<Value = Label> {
        let about = ("[a-z0-9 -]{1,12}", any::<Option<u64>>(), "[a-z]{1,8}", 0u64..1 << 45, 1u64..1 << 40);
        let said = (0usize..4, any::<Option<Hash32>>(), any::<Hash32>(), any::<i64>());
        (about, said).prop_map(|((device, verdict, step, from, length), (opinion, reason, by, at))| Label {
            device,
            verdict,
            step,
            from,
            to: from + length,
            opinion: Opinion::ALL[opinion],
            reason,
            by,
            at,
        })
    }

    proptest! {
        #[test]
        fn bytes_and_back(label in labels(), cut in any::<prop::sample::Index>()) {
            let bytes = label.to_bytes();
            prop_assert_eq!(Label::from_bytes(&bytes).unwrap(), label);
            prop_assert!(Label::from_bytes(&bytes[..cut.index(bytes.len())]).is_err());
            prop_assert!(Label::from_bytes(&[bytes.as_slice(), &[0]].concat()).is_err());
        }

        #[test]
        fn whatever_is_said_differently_is_another_label(a in labels(), b in labels()) {
            prop_assert_eq!(a == b, a.id() == b.id());
        }

        #[test]
        fn bytes_that_are_read_are_the_ones_that_would_be_written(label in labels(), at in any::<prop::sample::Index>(), to: u8) {
            let mut bytes = label.to_bytes();
            let i = at.index(bytes.len());
            bytes[i] = to;
            if let Ok(read) = Label::from_bytes(&bytes) {
                prop_assert_eq!(read.to_bytes(), bytes);
            }
        }
    }

    fn of(verdict: Option<u64>, step: &str) -> Label {
        Label {
            device: "pump-1".into(),
            verdict,
            step: step.into(),
            from: 1_000,
            to: 2_000,
            opinion: Opinion::Healthy,
            reason: None,
            by: [1; 32],
            at: 0,
        }
    }

    #[test]
    fn a_stretch_covers_what_it_touches_and_a_verdict_its_window() {
        let (stretch, verdict) = (of(None, ""), of(Some(7), "anomaly"));
        for (window, touched, same) in [
            ((0, 1_000), false, false),
            ((0, 1_001), true, false),
            ((1_000, 2_000), true, true),
            ((1_999, 3_000), true, false),
            ((2_000, 3_000), false, false),
        ] {
            assert_eq!(stretch.covers("pump-1", "anomaly", window), touched, "{window:?}");
            assert_eq!(verdict.covers("pump-1", "anomaly", window), same, "{window:?}");
        }
        assert!(!stretch.covers("pump-2", "anomaly", (1_000, 2_000)));
        assert!(!of(None, "life").covers("pump-1", "anomaly", (1_000, 2_000)));
        assert!(!verdict.covers("pump-1", "life", (1_000, 2_000)));
    }

    #[test]
    fn what_no_label_can_say_is_refused() {
        for (flawed, why) in [
            (Label { device: String::new(), ..of(None, "") }, "device"),
            (Label { to: 1_000, ..of(None, "") }, "no time"),
            (of(Some(3), ""), "step"),
        ] {
            assert!(flawed.flaw().unwrap().contains(why));
            assert!(Label::from_bytes(&flawed.to_bytes()).unwrap_err().to_string().contains(why));
        }
        assert!(Opinion::ALL.iter().all(|o| Opinion::named(o.name()) == Some(*o)));
        assert_eq!(Opinion::named("maybe"), None);
    }

    #[test]
    fn a_reason_is_hidden_by_its_salt() {
        assert_ne!(reason_hash(&[0; 16], "bearing"), reason_hash(&[1; 16], "bearing"));
        assert_ne!(reason_hash(&[0; 16], "bearing"), reason_hash(&[0; 16], "Bearing"));
    }
}
