//! A flat JSON scanner: one object a record, typed by the source's schema.
//!
//! General JSON parsers build or tape every value before a caller may look at it. A reading is one flat object whose
//! keys mostly come in the same order, so this scanner guesses the next key from the rows before, compares bytes, and parses the value
//! straight into its slot. What it accepts is exactly RFC 8259 (property-tested against `serde_json`), except that a
//! duplicate known key is refused rather than resolved silently. Unknown keys are skipped, but must be well-formed.

use super::number;
use super::timestamp::{MAX_TIMESTAMP_MS, parse_timestamp};
use super::{RowDecoder, RowError, Slot, check_required, wanted};
use crate::spec::{FieldSpec, FieldType};

/// Deepest nesting allowed in values that are skipped.
const MAX_DEPTH: usize = 64;

/// Decodes the fields of one schema. Reused from row to row; holds no state between rows that affects results.
#[derive(Debug, Clone)]
pub struct JsonDecoder {
    fields: Vec<FieldSpec>,
    slots: Vec<Slot>,
    scratch: Vec<u8>,
    /// The field that stood at each place of the rows before: a guess that only saves time.
    order: Vec<usize>,
}

impl JsonDecoder {
    /// A decoder for these fields.
    pub fn new(fields: &[FieldSpec]) -> Self {
        Self {
            fields: fields.to_vec(),
            slots: vec![Slot::Missing; fields.len()],
            scratch: Vec::new(),
            order: (0..fields.len()).collect(),
        }
    }
}

impl RowDecoder for JsonDecoder {
    #[inline]
    fn slots(&self) -> &[Slot] {
        &self.slots
    }

    #[inline]
    fn text<'a>(&'a self, payload: &'a [u8], slot: Slot) -> &'a [u8] {
        match slot {
            Slot::Text { start, end } => &payload[start as usize..end as usize],
            Slot::Unescaped { start, end } => &self.scratch[start as usize..end as usize],
            _ => &[],
        }
    }

    fn decode(&mut self, payload: &[u8]) -> Result<(), RowError> {
        if u32::try_from(payload.len()).is_err() {
            return Err(RowError::undecodable("the value is larger than 4 GiB"));
        }
        if let Err(e) = simdutf8::basic::from_utf8(payload) {
            let at = std::str::from_utf8(payload).err().map_or(0, |e| e.valid_up_to());
            return Err(RowError::undecodable(format!("not UTF-8 at byte {at} ({e})")));
        }
        self.slots.fill(Slot::Missing);
        self.scratch.clear();
        let mut p = Scan { bytes: payload, at: 0 };
        p.space();
        if !p.take(b'{') {
            return Err(p.expected("an object that starts with '{'"));
        }
        p.space();
        if !p.take(b'}') {
            self.members(&mut p)?;
        }
        p.space();
        if p.at != payload.len() {
            return Err(RowError::undecodable(format!("text after the object, at byte {}", p.at)));
        }
        check_required(&self.fields, &self.slots)
    }
}

impl JsonDecoder {
    fn members(&mut self, p: &mut Scan<'_>) -> Result<(), RowError> {
        let mut place = 0;
        loop {
            p.space();
            if !p.take(b'"') {
                return Err(p.expected("a field name in quotes"));
            }
            let found = match self.order.get(place).map(|&guess| (guess, &self.fields[guess].name)) {
                Some((guess, name)) if p.rest().starts_with(name.as_bytes()) && p.peek_at(name.len()) == Some(b'"') => {
                    p.at += name.len() + 1;
                    Some(guess)
                }
                _ => {
                    let found = self.lookup(p)?;
                    if let (Some(i), Some(guess)) = (found, self.order.get_mut(place)) {
                        *guess = i;
                    }
                    found
                }
            };
            place += 1;
            p.space();
            if !p.take(b':') {
                return Err(p.expected("':' after the field name"));
            }
            p.space();
            match found {
                Some(i) => {
                    if self.slots[i] != Slot::Missing {
                        return Err(RowError::schema(format!("field \"{}\" stands twice", self.fields[i].name)));
                    }
                    self.slots[i] = self.value(p, i)?;
                }
                None => p.skip_value(0)?,
            }
            p.space();
            if p.take(b',') {
                continue;
            }
            if p.take(b'}') {
                return Ok(());
            }
            return Err(p.expected("',' or '}'"));
        }
    }

    #[cold]
    fn lookup(&mut self, p: &mut Scan<'_>) -> Result<Option<usize>, RowError> {
        let start = p.at;
        let escaped = p.skip_string()?;
        let raw = &p.bytes[start..p.at - 1];
        if !escaped {
            return Ok(self.fields.iter().position(|f| f.name.as_bytes() == raw));
        }
        let name = unescape(&p.bytes[start - 1..p.at], start)?;
        Ok(self.fields.iter().position(|f| f.name == name))
    }

    #[inline]
    fn value(&mut self, p: &mut Scan<'_>, i: usize) -> Result<Slot, RowError> {
        let ty = self.fields[i].ty;
        match p.peek() {
            Some(b'n') if p.rest().starts_with(b"null") => {
                p.at += 4;
                return Ok(Slot::Null);
            }
            Some(b'-' | b'0'..=b'9') => {
                let Some(n) = number::scan(p.bytes, p.at) else {
                    return Err(p.expected("a number"));
                };
                let start = p.at;
                p.at = n.end;
                return match ty {
                    FieldType::F64 if n.value.is_finite() => Ok(Slot::F64(n.value)),
                    FieldType::I64 | FieldType::TimestampMs => match n.integer {
                        Some(v) if ty == FieldType::I64 => Ok(Slot::I64(v)),
                        Some(v) if (0..=MAX_TIMESTAMP_MS).contains(&v) => Ok(Slot::Timestamp(v)),
                        _ => Err(self.unfit(i, p, start)),
                    },
                    _ => Err(self.unfit(i, p, start)),
                };
            }
            Some(b'"') => {
                p.at += 1;
                let start = p.at;
                let escaped = p.skip_string()?;
                let end = p.at - 1;
                if ty == FieldType::Utf8 {
                    if !escaped {
                        return Ok(Slot::Text { start: start as u32, end: end as u32 });
                    }
                    let text = unescape(&p.bytes[start - 1..p.at], start)?;
                    let from = self.scratch.len() as u32;
                    self.scratch.extend_from_slice(text.as_bytes());
                    return Ok(Slot::Unescaped { start: from, end: self.scratch.len() as u32 });
                }
                if ty == FieldType::TimestampMs
                    && let Some(ms) = parse_timestamp(&p.bytes[start..end])
                    && (0..=MAX_TIMESTAMP_MS).contains(&ms)
                {
                    return Ok(Slot::Timestamp(ms));
                }
                return Err(self.unfit(i, p, start - 1));
            }
            Some(b't') if p.rest().starts_with(b"true") => {
                p.at += 4;
                if ty == FieldType::Bool {
                    return Ok(Slot::Bool(true));
                }
                return Err(self.unfit(i, p, p.at - 4));
            }
            Some(b'f') if p.rest().starts_with(b"false") => {
                p.at += 5;
                if ty == FieldType::Bool {
                    return Ok(Slot::Bool(false));
                }
                return Err(self.unfit(i, p, p.at - 5));
            }
            _ => {}
        }
        let start = p.at;
        p.skip_value(0)?;
        Err(self.unfit(i, p, start))
    }

    #[cold]
    fn unfit(&self, i: usize, p: &Scan<'_>, start: usize) -> RowError {
        let f = &self.fields[i];
        let found = String::from_utf8_lossy(&p.bytes[start..p.at.min(start + 40)]);
        let wanted = wanted(f.ty);
        RowError::schema(format!("field \"{}\" at byte {start}: {wanted} expected, found {found}", f.name))
    }
}

/// A JSON string literal, quotes included, to its text. `serde_json` does the rare work of escapes.
#[cold]
fn unescape(literal: &[u8], at: usize) -> Result<String, RowError> {
    serde_json::from_slice(literal)
        .map_err(|e| RowError::undecodable(format!("bad escape in the text at byte {at}: {e}")))
}

struct Scan<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Scan<'a> {
    #[inline(always)]
    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }
    #[inline(always)]
    fn peek_at(&self, n: usize) -> Option<u8> {
        self.bytes.get(self.at + n).copied()
    }
    #[inline(always)]
    fn rest(&self) -> &'a [u8] {
        &self.bytes[self.at..]
    }
    #[inline(always)]
    fn space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\n' | b'\r' | b'\t')) {
            self.at += 1;
        }
    }
    #[inline(always)]
    fn take(&mut self, b: u8) -> bool {
        let hit = self.peek() == Some(b);
        self.at += usize::from(hit);
        hit
    }

    #[cold]
    fn expected(&self, what: &str) -> RowError {
        match self.peek() {
            None => RowError::undecodable(format!("the JSON ends at byte {} where {what} is expected", self.at)),
            Some(b) => RowError::undecodable(format!(
                "{what} expected at byte {}, found '{}'",
                self.at,
                char::from(b).escape_default()
            )),
        }
    }

    /// Moves past the closing quote of the string whose content starts here; whether it has escapes.
    #[inline]
    fn skip_string(&mut self) -> Result<bool, RowError> {
        let mut escaped = false;
        loop {
            match self.peek() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(escaped);
                }
                Some(b'\\') => {
                    escaped = true;
                    self.at += 2;
                }
                Some(0..=0x1f) => return Err(self.expected("text without control characters")),
                Some(_) => self.at += 1,
                None => {
                    self.at = self.bytes.len();
                    return Err(self.expected("the closing quote of a text"));
                }
            }
        }
    }

    #[cold]
    fn skip_value(&mut self, depth: usize) -> Result<(), RowError> {
        if depth > MAX_DEPTH {
            return Err(RowError::undecodable(format!("nested deeper than {MAX_DEPTH} levels at byte {}", self.at)));
        }
        match self.peek() {
            Some(b'"') => {
                self.at += 1;
                let start = self.at;
                if self.skip_string()? {
                    unescape(&self.bytes[start - 1..self.at], start)?;
                }
                Ok(())
            }
            Some(open @ (b'{' | b'[')) => {
                let close = if open == b'{' { b'}' } else { b']' };
                self.at += 1;
                self.space();
                if self.take(close) {
                    return Ok(());
                }
                loop {
                    if open == b'{' {
                        self.space();
                        if self.peek() != Some(b'"') {
                            return Err(self.expected("a field name in quotes"));
                        }
                        self.skip_value(depth + 1)?;
                        self.space();
                        if !self.take(b':') {
                            return Err(self.expected("':' after the field name"));
                        }
                    }
                    self.space();
                    self.skip_value(depth + 1)?;
                    self.space();
                    if self.take(close) {
                        return Ok(());
                    }
                    if !self.take(b',') {
                        return Err(self.expected("',' or the closing bracket"));
                    }
                }
            }
            Some(b'-' | b'0'..=b'9') => match number::scan(self.bytes, self.at) {
                Some(n) => {
                    self.at = n.end;
                    Ok(())
                }
                None => Err(self.expected("a number")),
            },
            _ => {
                for word in [&b"true"[..], b"false", b"null"] {
                    if self.rest().starts_with(word) {
                        self.at += word.len();
                        return Ok(());
                    }
                }
                Err(self.expected("a JSON value (NaN and Infinity are not JSON)"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::dead_letter::DeadReason;
    use proptest::prelude::*;

    fn field(name: &str, ty: FieldType, required: bool) -> FieldSpec {
        FieldSpec { name: name.into(), ty, required }
    }

    fn fields() -> Vec<FieldSpec> {
        vec![
            field("device", FieldType::Utf8, true),
            field("ts", FieldType::TimestampMs, true),
            field("x", FieldType::F64, false),
            field("n", FieldType::I64, false),
            field("ok", FieldType::Bool, false),
        ]
    }

    fn decode(json: &[u8]) -> Result<Vec<Slot>, RowError> {
        let mut d = JsonDecoder::new(&fields());
        d.decode(json).map(|()| d.slots().to_vec())
    }

    #[test]
    fn a_row() {
        let slots = decode(br#" {"device":"p-1","ts":1700000000000,"x":-2.5e-1,"n":7,"ok":true} "#).unwrap();
        assert_eq!(
            slots,
            [
                Slot::Text { start: 12, end: 15 },
                Slot::Timestamp(1_700_000_000_000),
                Slot::F64(-0.25),
                Slot::I64(7),
                Slot::Bool(true)
            ]
        );
    }

    #[test]
    fn any_order_unknown_fields_and_escapes() {
        let json = br#"{"z":{"a":[1,"\u00e9",{}],"b":null},"\u0074s":"2020-01-01T00:00:00Z","device":"a\"b","x":null}"#;
        let mut d = JsonDecoder::new(&fields());
        d.decode(json).unwrap();
        let slots = d.slots().to_vec();
        assert_eq!(d.text(json, slots[0]), b"a\"b");
        assert_eq!(slots[1], Slot::Timestamp(1_577_836_800_000));
        assert_eq!(slots[2..], [Slot::Null, Slot::Missing, Slot::Missing]);
    }

    #[test]
    fn what_is_wrong_is_said() {
        let mut seen = String::new();
        for bad in [
            r#"{"device":"a","ts":1"#,
            r#"{"device":"a","ts":1,"x":NaN}"#,
            r#"{"device":"a","ts":1,"x":"3.5"}"#,
            r#"{"device":"a","ts":1,"x":1e999}"#,
            r#"{"device":"a","ts":1,"n":1.5}"#,
            r#"{"device":"a","ts":-5}"#,
            r#"{"device":"a","ts":1.0}"#,
            r#"{"device":"a","ts":"yesterday"}"#,
            r#"{"device":"a"}"#,
            r#"{"device":"a","ts":null}"#,
            r#"{"device":7,"ts":1}"#,
            r#"{"device":"a","ts":1,"ts":2}"#,
            r#"{"device":"a","ts":1} x"#,
            r#"[1,2]"#,
            r#"{"device":"a","ts":01}"#,
            "{\"device\":\"a\nb\",\"ts\":1}",
            r#"{"device":"a\q","ts":1}"#,
            "",
        ] {
            let e = decode(bad.as_bytes()).unwrap_err();
            seen.push_str(&format!("{bad:?}\n    {}: {}\n", e.reason.name(), e.detail));
        }
        let e = decode(b"{\"device\":\"\xff\",\"ts\":1}").unwrap_err();
        seen.push_str(&format!("(byte ff)\n    {}: {}\n", e.reason.name(), e.detail));
        insta::assert_snapshot!(seen);
    }

    proptest! {
        #[test]
        fn accepts_exactly_what_serde_json_accepts(bytes in "[\\[\\]{}\",:0-9eE+\\-. a-z\\\\]{0,60}") {
            // Everything is an unknown field here, so only well-formedness counts.
            let json = format!("{{\"device\":\"d\",\"ts\":1,\"q\":{bytes}}}");
            let ours = decode(json.as_bytes());
            let theirs = serde_json::from_str::<serde_json::Value>(&json);
            let known_dup = matches!(&ours, Err(e) if e.reason == DeadReason::Schema);
            if !known_dup {
                // serde_json refuses numbers beyond f64; skipped values need not be representable.
                let out_of_range = theirs.as_ref().err().is_some_and(|e| e.to_string().contains("out of range"));
                prop_assert!(ours.is_ok() == theirs.is_ok() || out_of_range, "{} ours {:?} theirs {:?}", json, ours, theirs);
            }
        }

        #[test]
        fn never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode(&bytes);
        }

        #[test]
        fn truncation_is_refused(cut in 0usize..62) {
            let json = br#"{"device":"p-1","ts":1700000000000,"x":-2.5e-1,"n":7,"ok":true}"#;
            prop_assert!(decode(&json[..cut]).is_err());
        }
    }
}
