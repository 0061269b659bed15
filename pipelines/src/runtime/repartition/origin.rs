//! Where a record stood before it was repartitioned, as headers of the copy.

use avouch_engine::dead_letter::DeadLetter;
use avouch_engine::decode::RecordOrigin;

/// Names the record that this one is a copy of: `topic/partition/offset`. (No topic has a `/` in its name.)
pub const SOURCE_HEADER: &str = "avouch.source";
/// When the copy was made, milliseconds since the epoch, by the clock of the process that made it.
pub const COPIED_HEADER: &str = "avouch.copied";
/// The key that a record had whose device could not be read, if it had one: its copy has none.
pub const KEY_HEADER: &str = "avouch.key";

/// Where a record comes from, by its headers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Origin<'a> {
    place: Option<&'a str>,
    copied_ms: Option<i64>,
    key: Option<&'a [u8]>,
}

impl<'a> Origin<'a> {
    /// Reads it. The record may have been repartitioned before, by another pipeline: the last copy says where this one is
    /// from, and the key that was taken from it stands behind that.
    pub fn of(headers: &[(&'a str, Option<&'a [u8]>)]) -> Self {
        let Some(at) = headers.iter().rposition(|(name, _)| *name == SOURCE_HEADER) else { return Self::default() };
        let place = headers[at].1.and_then(|v| std::str::from_utf8(v).ok());
        let behind = |header: &str| headers[at..].iter().rev().find(|(name, _)| *name == header).and_then(|(_, v)| *v);
        let copied_ms = behind(COPIED_HEADER).and_then(|v| std::str::from_utf8(v).ok()?.parse().ok());
        Self { place, copied_ms, key: behind(KEY_HEADER) }
    }

    /// What the lane's time is judged by. Copies that do not say when they were made have none.
    pub fn record(&self) -> Option<RecordOrigin> {
        let (_, partition, _) = self.place.and_then(parts)?;
        Some(RecordOrigin { partition, copied_ms: self.copied_ms? })
    }

    /// Makes a dead letter of the copy name the record it is a copy of.
    pub fn explain(&self, letter: &mut DeadLetter) {
        if let Some((topic, partition, offset)) = self.place.and_then(parts) {
            letter.detail = format!("{topic}/{partition} at offset {offset}: {}", letter.detail);
        }
        if letter.key.is_none() {
            letter.key = self.key.map(<[u8]>::to_vec);
        }
    }
}

fn parts(place: &str) -> Option<(&str, i32, i64)> {
    let mut parts = place.splitn(3, '/');
    Some((parts.next()?, parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use avouch_engine::dead_letter::DeadReason;

    use super::*;

    fn letter() -> DeadLetter {
        DeadLetter {
            reason: DeadReason::Undecodable,
            detail: "not JSON".into(),
            offset: 7,
            row: None,
            timestamp: 1,
            key: None,
            value: None,
            signature: None,
        }
    }

    #[test]
    fn a_dead_letter_names_the_record_and_has_its_key() {
        let headers: [(&str, Option<&[u8]>); 7] = [
            ("trace", Some(b"1")),
            (SOURCE_HEADER, Some(b"first/0/1")),
            (COPIED_HEADER, Some(b"7")),
            (KEY_HEADER, Some(b"old")),
            (SOURCE_HEADER, Some(b"by.gateway/2/41")),
            (COPIED_HEADER, Some(b"1767686400000")),
            (KEY_HEADER, Some(b"gw-1")),
        ];
        let origin = RecordOrigin { partition: 2, copied_ms: 1_767_686_400_000 };
        assert_eq!(Origin::of(&headers).record(), Some(origin));
        // The time of another copying is none of this one.
        assert_eq!(Origin::of(&headers[..5]).record(), None);
        let mut dead = letter();
        Origin::of(&headers).explain(&mut dead);
        assert_eq!(dead.detail, "by.gateway/2 at offset 41: not JSON");
        assert_eq!(dead.key.as_deref(), Some(&b"gw-1"[..]));
        // The key of a copy of a copy is not that of the copy.
        let mut dead = letter();
        Origin::of(&headers[..6]).explain(&mut dead);
        assert_eq!(dead.key, None);
    }

    #[test]
    fn what_others_wrote_there_changes_nothing() {
        for headers in [&[][..], &[("avouch.source", Some(&b"\xff"[..]))], &[("avouch.source", Some(b"a/b"))]] {
            let mut dead = letter();
            Origin::of(headers).explain(&mut dead);
            assert_eq!(dead, letter());
            assert_eq!(Origin::of(headers).record(), None);
        }
    }
}
