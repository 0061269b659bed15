//! Ed25519 by the rules of ZIP 215, one by one and in batches with the same answer for every input.
//!
//! RFC 8032 leaves open what becomes of keys and points of small order or written in another than the usual way, and most
//! implementations answer differently one by one and in a batch. A lane's input is cut into batches by chance, so here that
//! may not be. ZIP 215 settles it: `A` and `R` may be any 32 bytes that decode to a point, also in a non-canonical way; `s` must
//! be less than the group's order; and what must hold is the equation times the cofactor, `8(sB − kA − R) = 0`.
//!
//! A batch is judged by one equation, a sum of all with factors `z`. The factors are derived from the whole batch by SHA-256, so
//! the answer is a function of the input and nobody can choose signatures by them; a batch in which one signature is bad passes
//! with a chance of 2⁻¹²⁸. If it does not pass, its eighths are judged, down to single signatures.

use curve25519_dalek::edwards::{CompressedEdwardsY, EdwardsPoint};
use curve25519_dalek::scalar::Scalar;
use curve25519_dalek::traits::{IsIdentity, VartimeMultiscalarMul};
use sha2::{Digest, Sha256, Sha512};

/// A key: its bytes, and the point, if they stand for one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PublicKey {
    bytes: [u8; 32],
    point: Option<EdwardsPoint>,
}

impl PublicKey {
    /// Any 32 bytes. Under ones that stand for no point nothing is valid.
    pub fn new(bytes: [u8; 32]) -> Self {
        Self { bytes, point: CompressedEdwardsY(bytes).decompress() }
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.bytes
    }

    /// Whether the bytes stand for a point.
    pub fn is_point(&self) -> bool {
        self.point.is_some()
    }
}

/// What is to be judged.
#[derive(Debug, Clone, Copy)]
pub struct Item<'a> {
    /// By which key.
    pub key: &'a PublicKey,
    /// What is signed.
    pub message: &'a [u8],
    /// The signature, `R ‖ s`.
    pub signature: &'a [u8; 64],
}

/// A batch that does not pass falls into so many. Of fewer, one bad signature would cost less, and nothing but bad ones more.
const PARTS: usize = 8;
/// Below this a batch costs more than its signatures.
const LEAST: usize = 4;
/// So many at a time: more are hardly cheaper, and all that is made of them stays in the cache.
const TOGETHER: usize = 512;

/// An item that may be valid: all its parts decode.
struct Parts<'a> {
    at: usize,
    key: &'a [u8; 32],
    a: EdwardsPoint,
    r: EdwardsPoint,
    s: Scalar,
    k: Scalar,
}

fn parts<'a>(at: usize, item: &Item<'a>) -> Option<Parts<'a>> {
    let a = item.key.point?;
    let (r, s) = item.signature.split_at(32);
    let r = CompressedEdwardsY(r.try_into().ok()?);
    let s = Option::from(Scalar::from_canonical_bytes(s.try_into().ok()?))?;
    let k = Sha512::new().chain_update(r.as_bytes()).chain_update(item.key.bytes).chain_update(item.message).finalize();
    let k = Scalar::from_bytes_mod_order_wide(&k.into());
    Some(Parts { at, key: &item.key.bytes, a, r: r.decompress()?, s, k })
}

fn holds(p: &Parts<'_>) -> bool {
    let sb_minus_ka = EdwardsPoint::vartime_double_scalar_mul_basepoint(&p.k, &-p.a, &p.s);
    (sb_minus_ka - p.r).mul_by_cofactor().is_identity()
}

/// Whether one signature is valid.
pub fn verify(item: &Item<'_>) -> bool {
    parts(0, item).is_some_and(|p| holds(&p))
}

/// Whether each is valid: what [`verify`] says of it, at a third of the cost where most are.
pub fn verify_each(items: &[Item<'_>]) -> Vec<bool> {
    let mut valid = vec![false; items.len()];
    for (first, group) in (0..).step_by(TOGETHER).zip(items.chunks(TOGETHER)) {
        let decoded: Vec<Parts<'_>> = group.iter().enumerate().filter_map(|(i, item)| parts(first + i, item)).collect();
        judge(items, &decoded, &mut valid);
    }
    valid
}

fn judge(items: &[Item<'_>], group: &[Parts<'_>], valid: &mut [bool]) {
    if group.len() < LEAST {
        group.iter().for_each(|p| valid[p.at] = holds(p));
    } else if all_hold(items, group) {
        group.iter().for_each(|p| valid[p.at] = true);
    } else {
        group.chunks(group.len().div_ceil(PARTS)).for_each(|part| judge(items, part, valid));
    }
}

/// Whether the sum of all equations holds, which is so if each does.
fn all_hold(items: &[Item<'_>], group: &[Parts<'_>]) -> bool {
    let mut seed = Sha256::new();
    seed.update(b"avouch/ed25519-batch/1");
    for p in group {
        // The message is in k, with R and A; s is not.
        seed.update(p.key);
        seed.update(p.k.as_bytes());
        seed.update(items[p.at].signature);
    }
    let seed = seed.finalize();
    let mut base = Scalar::ZERO;
    // R and z of each, A once a key: devices send many readings at a time.
    let mut points = Vec::with_capacity(2 * group.len() + 1);
    let mut scalars = Vec::with_capacity(2 * group.len() + 1);
    let mut keys: Vec<(&[u8; 32], EdwardsPoint, Scalar)> = Vec::new();
    let mut place = hashbrown::HashMap::<&[u8; 32], usize, ahash::RandomState>::with_hasher(
        ahash::RandomState::with_seeds(1, 2, 3, 4),
    );
    let mut factors = [0u8; 32];
    for (i, p) in group.iter().enumerate() {
        if i % 2 == 0 {
            factors = Sha256::new().chain_update(seed).chain_update((i as u64).to_be_bytes()).finalize().into();
        }
        let mut z = [0u8; 32];
        z[..16].copy_from_slice(if i % 2 == 0 { &factors[..16] } else { &factors[16..] });
        let z = Scalar::from_bytes_mod_order(z);
        base += z * p.s;
        points.push(p.r);
        scalars.push(z);
        let at = *place.entry(p.key).or_insert_with(|| {
            keys.push((p.key, p.a, Scalar::ZERO));
            keys.len() - 1
        });
        keys[at].2 += z * p.k;
    }
    for (_, a, k) in &keys {
        points.push(*a);
        scalars.push(*k);
    }
    points.push(curve25519_dalek::constants::ED25519_BASEPOINT_POINT);
    scalars.push(-base);
    EdwardsPoint::vartime_multiscalar_mul(&scalars, &points).mul_by_cofactor().is_identity()
}
