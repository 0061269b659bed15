//! Entries of many verdicts at once.
//!
//! An entry is keccak256 of 416 bytes, four permutations that cost some 4 µs when they are made one after the other:
//! more than everything else that is done for a verdict. Entries do not depend on each other, so the same permutation is
//! made over eight (AVX-512) or four (AVX2) of them side by side, word by word. The result is that of
//! [`Verdict::struct_hash`], on every processor; elsewhere than x86-64 it is made by it.

use crate::verdict::{Hash32, Verdict};

/// The entry of each verdict: [`Verdict::struct_hash`], made for many at once.
pub fn entries(verdicts: &[&Verdict]) -> Vec<Hash32> {
    #[cfg(target_arch = "x86_64")]
    {
        if std::arch::is_x86_feature_detected!("avx512f") {
            return side_by_side(verdicts, |words| {
                // SAFETY: the processor has AVX-512F, which is all that the function asks for.
                unsafe { avx512::keccak(words) }
            });
        }
        if std::arch::is_x86_feature_detected!("avx2") {
            return side_by_side(verdicts, |words| {
                // SAFETY: the processor has AVX2, which is all that the function asks for.
                unsafe { avx2::keccak(words) }
            });
        }
    }
    verdicts.iter().map(|v| v.struct_hash()).collect()
}

/// 64-bit words of the preimage: type hash and twelve words of 32 bytes.
#[cfg(target_arch = "x86_64")]
const WORDS: usize = 52;

/// Lays `N` preimages side by side, hashes them, and takes the first four words of each state.
#[cfg(target_arch = "x86_64")]
fn side_by_side<const N: usize>(
    verdicts: &[&Verdict],
    keccak: impl Fn(&[[u64; N]; WORDS]) -> [[u64; N]; 4],
) -> Vec<Hash32> {
    let type_hash = crate::verdict::verdict_type_hash();
    let mut out = Vec::with_capacity(verdicts.len());
    let mut words = [[0u64; N]; WORDS];
    for group in verdicts.chunks(N) {
        for (lane, verdict) in group.iter().enumerate() {
            let parts = std::iter::once(type_hash).chain(verdict.words());
            for (i, part) in parts.enumerate() {
                for (j, eight) in part.chunks_exact(8).enumerate() {
                    let mut bytes = [0; 8];
                    bytes.copy_from_slice(eight);
                    words[4 * i + j][lane] = u64::from_le_bytes(bytes);
                }
            }
        }
        // Lanes beyond a short last group hash what the group before left in them, and are not looked at.
        let hashed = keccak(&words);
        for lane in 0..group.len() {
            let mut hash = [0; 32];
            for (eight, word) in hash.chunks_exact_mut(8).zip(&hashed) {
                eight.copy_from_slice(&word[lane].to_le_bytes());
            }
            out.push(hash);
        }
    }
    out
}

/// The round constants of Keccak-f[1600] (FIPS 202, §3.2.5).
#[cfg(target_arch = "x86_64")]
const ROUNDS: [u64; 24] = [
    0x0000_0000_0000_0001,
    0x0000_0000_0000_8082,
    0x8000_0000_0000_808a,
    0x8000_0000_8000_8000,
    0x0000_0000_0000_808b,
    0x0000_0000_8000_0001,
    0x8000_0000_8000_8081,
    0x8000_0000_0000_8009,
    0x0000_0000_0000_008a,
    0x0000_0000_0000_0088,
    0x0000_0000_8000_8009,
    0x0000_0000_8000_000a,
    0x0000_0000_8000_808b,
    0x8000_0000_0000_008b,
    0x8000_0000_0000_8089,
    0x8000_0000_0000_8003,
    0x8000_0000_0000_8002,
    0x8000_0000_0000_0080,
    0x0000_0000_0000_800a,
    0x8000_0000_8000_000a,
    0x8000_0000_8000_8081,
    0x8000_0000_0000_8080,
    0x0000_0000_8000_0001,
    0x8000_0000_8000_8008,
];

/// One round: theta, rho and pi, chi, iota (FIPS 202, §3.2).
#[cfg(target_arch = "x86_64")]
macro_rules! round {
    ($a:ident, $constant:expr, $xor:ident, $xor3:ident, $chi:ident, $rol:ident) => {{
        let c0 = $xor3($xor3($a[0], $a[5], $a[10]), $a[15], $a[20]);
        let c1 = $xor3($xor3($a[1], $a[6], $a[11]), $a[16], $a[21]);
        let c2 = $xor3($xor3($a[2], $a[7], $a[12]), $a[17], $a[22]);
        let c3 = $xor3($xor3($a[3], $a[8], $a[13]), $a[18], $a[23]);
        let c4 = $xor3($xor3($a[4], $a[9], $a[14]), $a[19], $a[24]);
        let d0 = $xor(c4, $rol!(c1, 1, 63));
        let d1 = $xor(c0, $rol!(c2, 1, 63));
        let d2 = $xor(c1, $rol!(c3, 1, 63));
        let d3 = $xor(c2, $rol!(c4, 1, 63));
        let d4 = $xor(c3, $rol!(c0, 1, 63));
        let b0 = $xor($a[0], d0);
        let b1 = $rol!($xor($a[6], d1), 44, 20);
        let b2 = $rol!($xor($a[12], d2), 43, 21);
        let b3 = $rol!($xor($a[18], d3), 21, 43);
        let b4 = $rol!($xor($a[24], d4), 14, 50);
        let b5 = $rol!($xor($a[3], d3), 28, 36);
        let b6 = $rol!($xor($a[9], d4), 20, 44);
        let b7 = $rol!($xor($a[10], d0), 3, 61);
        let b8 = $rol!($xor($a[16], d1), 45, 19);
        let b9 = $rol!($xor($a[22], d2), 61, 3);
        let b10 = $rol!($xor($a[1], d1), 1, 63);
        let b11 = $rol!($xor($a[7], d2), 6, 58);
        let b12 = $rol!($xor($a[13], d3), 25, 39);
        let b13 = $rol!($xor($a[19], d4), 8, 56);
        let b14 = $rol!($xor($a[20], d0), 18, 46);
        let b15 = $rol!($xor($a[4], d4), 27, 37);
        let b16 = $rol!($xor($a[5], d0), 36, 28);
        let b17 = $rol!($xor($a[11], d1), 10, 54);
        let b18 = $rol!($xor($a[17], d2), 15, 49);
        let b19 = $rol!($xor($a[23], d3), 56, 8);
        let b20 = $rol!($xor($a[2], d2), 62, 2);
        let b21 = $rol!($xor($a[8], d3), 55, 9);
        let b22 = $rol!($xor($a[14], d4), 39, 25);
        let b23 = $rol!($xor($a[15], d0), 41, 23);
        let b24 = $rol!($xor($a[21], d1), 2, 62);
        $a[0] = $chi(b0, b1, b2);
        $a[1] = $chi(b1, b2, b3);
        $a[2] = $chi(b2, b3, b4);
        $a[3] = $chi(b3, b4, b0);
        $a[4] = $chi(b4, b0, b1);
        $a[5] = $chi(b5, b6, b7);
        $a[6] = $chi(b6, b7, b8);
        $a[7] = $chi(b7, b8, b9);
        $a[8] = $chi(b8, b9, b5);
        $a[9] = $chi(b9, b5, b6);
        $a[10] = $chi(b10, b11, b12);
        $a[11] = $chi(b11, b12, b13);
        $a[12] = $chi(b12, b13, b14);
        $a[13] = $chi(b13, b14, b10);
        $a[14] = $chi(b14, b10, b11);
        $a[15] = $chi(b15, b16, b17);
        $a[16] = $chi(b16, b17, b18);
        $a[17] = $chi(b17, b18, b19);
        $a[18] = $chi(b18, b19, b15);
        $a[19] = $chi(b19, b15, b16);
        $a[20] = $chi(b20, b21, b22);
        $a[21] = $chi(b21, b22, b23);
        $a[22] = $chi(b22, b23, b24);
        $a[23] = $chi(b23, b24, b20);
        $a[24] = $chi(b24, b20, b21);
        $a[0] = $xor($a[0], $constant);
    }};
}

/// keccak256 of [`WORDS`] words: three full blocks of 17, one of the last word and the padding.
#[cfg(target_arch = "x86_64")]
macro_rules! sponge {
    ($feature:literal, $lanes:literal, $vector:ident, $splat:ident, $xor:ident, $xor3:ident, $chi:ident, $rol:ident) => {
        #[target_feature(enable = $feature)]
        fn load(word: &[u64; $lanes]) -> $vector {
            // SAFETY: both are that many bytes, for which every bit pattern is a value.
            unsafe { std::mem::transmute::<[u64; $lanes], $vector>(*word) }
        }

        #[target_feature(enable = $feature)]
        fn store(vector: $vector) -> [u64; $lanes] {
            // SAFETY: both are that many bytes, for which every bit pattern is a value.
            unsafe { std::mem::transmute::<$vector, [u64; $lanes]>(vector) }
        }

        #[target_feature(enable = $feature)]
        pub(super) fn keccak(words: &[[u64; $lanes]; super::WORDS]) -> [[u64; $lanes]; 4] {
            let mut a = [$splat(0); 25];
            for block in words.chunks(17) {
                for (state, word) in a.iter_mut().zip(block) {
                    *state = $xor(*state, load(word));
                }
                if block.len() < 17 {
                    a[block.len()] = $xor(a[block.len()], $splat(1));
                    a[16] = $xor(a[16], $splat(i64::MIN));
                }
                for constant in super::ROUNDS {
                    round!(a, $splat(constant as i64), $xor, $xor3, $chi, $rol);
                }
            }
            [store(a[0]), store(a[1]), store(a[2]), store(a[3])]
        }
    };
}

#[cfg(target_arch = "x86_64")]
mod avx512 {
    use std::arch::x86_64::*;

    #[target_feature(enable = "avx512f")]
    #[inline]
    fn xor3(a: __m512i, b: __m512i, c: __m512i) -> __m512i {
        _mm512_ternarylogic_epi64::<0x96>(a, b, c)
    }
    #[target_feature(enable = "avx512f")]
    #[inline]
    fn chi(a: __m512i, b: __m512i, c: __m512i) -> __m512i {
        _mm512_ternarylogic_epi64::<0xd2>(a, b, c)
    }
    macro_rules! rol {
        ($x:expr, $left:literal, $right:literal) => {
            _mm512_rol_epi64::<$left>($x)
        };
    }
    sponge!("avx512f", 8, __m512i, _mm512_set1_epi64, _mm512_xor_si512, xor3, chi, rol);
}

#[cfg(target_arch = "x86_64")]
mod avx2 {
    use std::arch::x86_64::*;

    #[target_feature(enable = "avx2")]
    #[inline]
    fn xor3(a: __m256i, b: __m256i, c: __m256i) -> __m256i {
        _mm256_xor_si256(_mm256_xor_si256(a, b), c)
    }
    #[target_feature(enable = "avx2")]
    #[inline]
    fn chi(a: __m256i, b: __m256i, c: __m256i) -> __m256i {
        _mm256_xor_si256(a, _mm256_andnot_si256(b, c))
    }
    macro_rules! rol {
        ($x:expr, $left:literal, $right:literal) => {{
            let x = $x;
            _mm256_or_si256(_mm256_slli_epi64::<$left>(x), _mm256_srli_epi64::<$right>(x))
        }};
    }
    sponge!("avx2", 4, __m256i, _mm256_set1_epi64x, _mm256_xor_si256, xor3, chi, rol);
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;
    use sha2::{Digest, Sha256};

    use super::*;

    fn verdict(seed: [u8; 32], n: u64) -> Verdict {
        let part = |i: u8| Sha256::digest([&seed[..], &[i]].concat()).into();
        Verdict {
            device_id: part(0),
            seq: n,
            window_start: n.wrapping_mul(0x9e37_79b9_7f4a_7c15),
            window_end: u64::MAX - n,
            model_hash: part(1),
            config_hash: part(2),
            input_digest: part(3),
            score_e6: (n as i64).wrapping_mul(-7_777_777_777),
            severity: n as u8,
            class: n as u16,
            evidence_hash: part(4),
            salt: part(5),
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn every_way_gives_the_struct_hash(seed: [u8; 32], count in 0u64..40) {
            let verdicts: Vec<Verdict> = (0..count).map(|n| verdict(seed, n)).collect();
            let refs: Vec<&Verdict> = verdicts.iter().collect();
            let expected: Vec<Hash32> = verdicts.iter().map(Verdict::struct_hash).collect();
            prop_assert_eq!(&entries(&refs), &expected);
            #[cfg(target_arch = "x86_64")]
            {
                if std::arch::is_x86_feature_detected!("avx512f") {
                    // SAFETY: just looked.
                    prop_assert_eq!(&side_by_side(&refs, |w| unsafe { avx512::keccak(w) }), &expected);
                }
                if std::arch::is_x86_feature_detected!("avx2") {
                    // SAFETY: just looked.
                    prop_assert_eq!(&side_by_side(&refs, |w| unsafe { avx2::keccak(w) }), &expected);
                }
            }
        }
    }
}
