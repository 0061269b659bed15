//! Sixteen compressions side by side with AVX-512: word `i` of all states is one vector.

use std::arch::x86_64::*;

use super::{Block, LANES, State};

/// Sixteen states, word by word.
#[derive(Clone, Copy)]
pub(super) struct States([[u32; LANES]; 8]);

const NOTHING: Block = [0; 64];

impl States {
    /// All the same.
    pub fn all(state: &State) -> Self {
        Self(state.map(|word| [word; LANES]))
    }

    /// These; lanes beyond them hold anything.
    pub fn of(states: &[State]) -> Self {
        let mut out = [[0; LANES]; 8];
        for (lane, state) in states.iter().enumerate().take(LANES) {
            for (words, word) in out.iter_mut().zip(state) {
                words[lane] = *word;
            }
        }
        Self(out)
    }

    /// Writes the states to `states`.
    pub fn give(&self, states: &mut [State]) {
        for (lane, state) in states.iter_mut().enumerate().take(LANES) {
            *state = self.lane(lane);
        }
    }

    /// The state of a lane.
    pub fn lane(&self, lane: usize) -> State {
        std::array::from_fn(|word| self.0[word][lane])
    }

    /// One block into each state whose bit is set in `active`; lanes beyond the blocks given take zeros.
    #[target_feature(enable = "avx512f,avx512bw")]
    pub fn compress(&mut self, blocks: &[&Block], active: u16) {
        // Loops, not closures: what the processor can do is not handed on into `map` and `from_fn`.
        let mut rows = [load(&NOTHING); LANES];
        for (row, block) in rows.iter_mut().zip(blocks) {
            *row = load(block);
        }
        let mut before = [rows[0]; 8];
        for (vector, words) in before.iter_mut().zip(&self.0) {
            *vector = load_words(words);
        }
        let after = rounds(before, transposed(rows));
        for i in 0..8 {
            self.0[i] = store(_mm512_mask_add_epi32(before[i], active, before[i], after[i]));
        }
    }
}

#[target_feature(enable = "avx512f")]
#[inline]
fn load(block: &Block) -> __m512i {
    // SAFETY: both are 64 bytes, for which every bit pattern is a value.
    unsafe { std::mem::transmute::<Block, __m512i>(*block) }
}

#[target_feature(enable = "avx512f")]
#[inline]
fn load_words(words: &[u32; LANES]) -> __m512i {
    // SAFETY: both are 64 bytes, for which every bit pattern is a value.
    unsafe { std::mem::transmute::<[u32; LANES], __m512i>(*words) }
}

#[target_feature(enable = "avx512f")]
#[inline]
fn store(vector: __m512i) -> [u32; LANES] {
    // SAFETY: both are 64 bytes, for which every bit pattern is a value.
    unsafe { std::mem::transmute::<__m512i, [u32; LANES]>(vector) }
}

/// From a block a vector to a word a vector, big-endian words made native.
#[target_feature(enable = "avx512f,avx512bw")]
#[inline]
fn transposed(mut r: [__m512i; 16]) -> [__m512i; 16] {
    let swap = _mm512_set4_epi32(0x0c0d_0e0f, 0x0809_0a0b, 0x0405_0607, 0x0001_0203);
    for block in &mut r {
        *block = _mm512_shuffle_epi8(*block, swap);
    }
    let mut t = [r[0]; 16];
    for i in 0..8 {
        t[2 * i] = _mm512_unpacklo_epi32(r[2 * i], r[2 * i + 1]);
        t[2 * i + 1] = _mm512_unpackhi_epi32(r[2 * i], r[2 * i + 1]);
    }
    let mut q = t;
    for i in 0..4 {
        q[4 * i] = _mm512_unpacklo_epi64(t[4 * i], t[4 * i + 2]);
        q[4 * i + 1] = _mm512_unpackhi_epi64(t[4 * i], t[4 * i + 2]);
        q[4 * i + 2] = _mm512_unpacklo_epi64(t[4 * i + 1], t[4 * i + 3]);
        q[4 * i + 3] = _mm512_unpackhi_epi64(t[4 * i + 1], t[4 * i + 3]);
    }
    let mut s = q;
    for i in 0..4 {
        s[i] = _mm512_shuffle_i32x4::<0x88>(q[i], q[i + 4]);
        s[i + 4] = _mm512_shuffle_i32x4::<0xdd>(q[i], q[i + 4]);
        s[i + 8] = _mm512_shuffle_i32x4::<0x88>(q[i + 8], q[i + 12]);
        s[i + 12] = _mm512_shuffle_i32x4::<0xdd>(q[i + 8], q[i + 12]);
    }
    let mut w = s;
    for i in 0..8 {
        w[i] = _mm512_shuffle_i32x4::<0x88>(s[i], s[i + 8]);
        w[i + 8] = _mm512_shuffle_i32x4::<0xdd>(s[i], s[i + 8]);
    }
    w
}

/// The round constants (FIPS 180-4, §4.2.2).
#[rustfmt::skip]
const K: [u32; 64] = [
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2,
];

#[target_feature(enable = "avx512f")]
#[inline]
fn add(a: __m512i, b: __m512i) -> __m512i {
    _mm512_add_epi32(a, b)
}

#[target_feature(enable = "avx512f")]
#[inline]
fn xor3(a: __m512i, b: __m512i, c: __m512i) -> __m512i {
    _mm512_ternarylogic_epi32::<0x96>(a, b, c)
}

/// The sixty-four rounds (FIPS 180-4, §6.2.2); what is added to the state.
#[target_feature(enable = "avx512f")]
#[inline]
fn rounds(state: [__m512i; 8], mut w: [__m512i; 16]) -> [__m512i; 8] {
    let [mut a, mut b, mut c, mut d, mut e, mut f, mut g, mut h] = state;
    macro_rules! round {
        ($a:ident, $b:ident, $c:ident, $d:ident, $e:ident, $f:ident, $g:ident, $h:ident, $k:expr, $w:expr) => {
            let sigma1 = xor3(_mm512_ror_epi32::<6>($e), _mm512_ror_epi32::<11>($e), _mm512_ror_epi32::<25>($e));
            let choice = _mm512_ternarylogic_epi32::<0xca>($e, $f, $g);
            let t1 = add(add(add($h, $w), _mm512_set1_epi32($k as i32)), add(sigma1, choice));
            let sigma0 = xor3(_mm512_ror_epi32::<2>($a), _mm512_ror_epi32::<13>($a), _mm512_ror_epi32::<22>($a));
            let majority = _mm512_ternarylogic_epi32::<0xe8>($a, $b, $c);
            $d = add($d, t1);
            $h = add(t1, add(sigma0, majority));
        };
    }
    macro_rules! eight {
        ($k:expr, $w:expr) => {
            round!(a, b, c, d, e, f, g, h, K[$k], w[$w]);
            round!(h, a, b, c, d, e, f, g, K[$k + 1], w[$w + 1]);
            round!(g, h, a, b, c, d, e, f, K[$k + 2], w[$w + 2]);
            round!(f, g, h, a, b, c, d, e, K[$k + 3], w[$w + 3]);
            round!(e, f, g, h, a, b, c, d, K[$k + 4], w[$w + 4]);
            round!(d, e, f, g, h, a, b, c, K[$k + 5], w[$w + 5]);
            round!(c, d, e, f, g, h, a, b, K[$k + 6], w[$w + 6]);
            round!(b, c, d, e, f, g, h, a, K[$k + 7], w[$w + 7]);
        };
    }
    macro_rules! schedule {
        ($($i:literal)*) => {$({
            let (x, y) = (w[($i + 1) % 16], w[($i + 14) % 16]);
            let s0 = xor3(_mm512_ror_epi32::<7>(x), _mm512_ror_epi32::<18>(x), _mm512_srli_epi32::<3>(x));
            let s1 = xor3(_mm512_ror_epi32::<17>(y), _mm512_ror_epi32::<19>(y), _mm512_srli_epi32::<10>(y));
            w[$i] = add(add(w[$i], s0), add(w[($i + 9) % 16], s1));
        })*};
    }
    eight!(0, 0);
    eight!(8, 8);
    for k in [16, 32, 48] {
        schedule!(0 1 2 3 4 5 6 7);
        eight!(k, 0);
        schedule!(8 9 10 11 12 13 14 15);
        eight!(k + 8, 8);
    }
    [a, b, c, d, e, f, g, h]
}
