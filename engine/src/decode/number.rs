//! JSON numbers (RFC 8259 §6), read exactly.

/// A number token.
#[derive(Debug, Clone, Copy)]
pub(super) struct Number {
    /// One past its last byte.
    pub end: usize,
    /// Its digits as an integer, if the token has neither fraction nor exponent and fits.
    pub integer: Option<i64>,
    /// Its value, correctly rounded; infinite when out of range.
    pub value: f64,
}

/// Powers of ten that a double holds exactly.
const EXACT_POWERS: [f64; 23] = [
    1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20,
    1e21, 1e22,
];

/// Reads the number that starts at `at`. `None` if no number in JSON's grammar starts there.
#[inline]
pub(super) fn scan(bytes: &[u8], at: usize) -> Option<Number> {
    let mut i = at;
    let negative = bytes.get(i) == Some(&b'-');
    if negative {
        i += 1;
    }
    let first = i;
    let mut mantissa: u64 = 0;
    while let Some(d) = digit(bytes, i) {
        mantissa = mantissa.wrapping_mul(10).wrapping_add(d);
        i += 1;
    }
    let int_digits = i - first;
    if int_digits == 0 || (int_digits > 1 && bytes[first] == b'0') {
        return None;
    }
    let mut digits = int_digits;
    let mut exponent: i32 = 0;
    let mut is_integer = true;
    if bytes.get(i) == Some(&b'.') {
        is_integer = false;
        i += 1;
        let fraction = i;
        while let Some(d) = digit(bytes, i) {
            mantissa = mantissa.wrapping_mul(10).wrapping_add(d);
            i += 1;
        }
        if i == fraction {
            return None;
        }
        digits += i - fraction;
        exponent = -i32::try_from(i - fraction).ok()?;
    }
    if matches!(bytes.get(i), Some(b'e' | b'E')) {
        is_integer = false;
        i += 1;
        let minus = match bytes.get(i) {
            Some(b'-') => {
                i += 1;
                true
            }
            Some(b'+') => {
                i += 1;
                false
            }
            _ => false,
        };
        let start = i;
        let mut e: i32 = 0;
        while let Some(d) = digit(bytes, i) {
            e = e.saturating_mul(10).saturating_add(d as i32);
            i += 1;
        }
        if i == start {
            return None;
        }
        exponent = exponent.saturating_add(if minus { -e } else { e });
    }
    // Clinger's fast path: both operands are exact doubles, so one rounding happens, which is the correct one.
    let value = if digits <= 19 && mantissa < (1 << 53) && (-22..=22).contains(&exponent) {
        let m = mantissa as f64;
        let v = if exponent < 0 {
            m / EXACT_POWERS[exponent.unsigned_abs() as usize]
        } else {
            m * EXACT_POWERS[exponent as usize]
        };
        if negative { -v } else { v }
    } else {
        fast_float2::parse::<f64, _>(&bytes[at..i]).ok()?
    };
    let integer = if !is_integer {
        None
    } else if digits <= 18 {
        let m = mantissa as i64;
        Some(if negative { -m } else { m })
    } else {
        std::str::from_utf8(&bytes[at..i]).ok()?.parse().ok()
    };
    Some(Number { end: i, integer, value })
}

#[inline(always)]
fn digit(bytes: &[u8], i: usize) -> Option<u64> {
    let d = bytes.get(i)?.wrapping_sub(b'0');
    (d < 10).then_some(u64::from(d))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn refuses_what_json_refuses() {
        for bad in ["", "-", "01", "+1", ".5", "1.", "1e", "1e+", "NaN", "Infinity", "-.1", "0x10"] {
            let n = scan(bad.as_bytes(), 0);
            assert!(n.is_none_or(|n| n.end != bad.len()), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn agrees_with_the_standard_library(v in proptest::num::f64::NORMAL) {
            for text in [format!("{v}"), format!("{v:e}"), format!("{v:.3}")] {
                let n = scan(text.as_bytes(), 0).unwrap();
                prop_assert_eq!(n.end, text.len());
                prop_assert_eq!(n.value.to_bits(), text.parse::<f64>().unwrap().to_bits(), "{}", text);
            }
        }

        #[test]
        fn integers_are_exact(v in any::<i64>()) {
            let text = v.to_string();
            prop_assert_eq!(scan(text.as_bytes(), 0).unwrap().integer, Some(v));
        }

        #[test]
        fn agrees_on_any_digits(text in "-?(0|[1-9][0-9]{0,30})(\\.[0-9]{1,30})?([eE][+-]?[0-9]{1,3})?") {
            let n = scan(text.as_bytes(), 0).unwrap();
            prop_assert_eq!(n.end, text.len());
            prop_assert_eq!(n.value.to_bits(), text.parse::<f64>().unwrap().to_bits(), "{}", text);
        }
    }
}
