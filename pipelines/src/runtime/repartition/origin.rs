//! Where a record stood before it was repartitioned, as headers of the copy.

use avouch_engine::dead_letter::DeadLetter;

/// Names the record that this one is a copy of: `topic/partition/offset`. (No topic has a `/` in its name.)
pub const SOURCE_HEADER: &str = "avouch.source";
/// The key that a record had whose device could not be read, if it had one: its copy has none.
pub const KEY_HEADER: &str = "avouch.key";

/// Where a record comes from, by its headers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Origin<'a> {
    place: Option<&'a str>,
    key: Option<&'a [u8]>,
}

impl<'a> Origin<'a> {
    /// Reads it. The record may have been repartitioned before, by another pipeline: the last copy says where this one is
    /// from, and the key that was taken from it stands behind that.
    pub fn of(headers: &[(&'a str, Option<&'a [u8]>)]) -> Self {
        let Some(at) = headers.iter().rposition(|(name, _)| *name == SOURCE_HEADER) else { return Self::default() };
        let place = headers[at].1.and_then(|v| std::str::from_utf8(v).ok());
        let key = headers[at..].iter().rev().find(|(name, _)| *name == KEY_HEADER).and_then(|(_, v)| *v);
        Self { place, key }
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
        }
    }

    #[test]
    fn a_dead_letter_names_the_record_and_has_its_key() {
        let headers: [(&str, Option<&[u8]>); 5] = [
            ("trace", Some(b"1")),
            (SOURCE_HEADER, Some(b"first/0/1")),
            (KEY_HEADER, Some(b"old")),
            (SOURCE_HEADER, Some(b"by.gateway/2/41")),
            (KEY_HEADER, Some(b"gw-1")),
        ];
        let mut dead = letter();
        Origin::of(&headers).explain(&mut dead);
        assert_eq!(dead.detail, "by.gateway/2 at offset 41: not JSON");
        assert_eq!(dead.key.as_deref(), Some(&b"gw-1"[..]));
        // The key of a copy of a copy is not that of the copy.
        let mut dead = letter();
        Origin::of(&headers[..4]).explain(&mut dead);
        assert_eq!(dead.key, None);
    }

    #[test]
    fn what_others_wrote_there_changes_nothing() {
        for headers in [&[][..], &[("avouch.source", Some(&b"\xff"[..]))], &[("avouch.source", Some(b"a/b"))]] {
            let mut dead = letter();
            Origin::of(headers).explain(&mut dead);
            assert_eq!(dead, letter());
        }
    }
}
