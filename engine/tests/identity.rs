//! Signed readings: what is accepted, what is refused and why, and that neither cutting, restarting nor replaying changes it.

#![allow(clippy::unwrap_used, clippy::panic)]

mod fleet;

use std::sync::Arc;

use avouch_engine::dead_letter::DeadReason;
use avouch_engine::decode::RawRecord;
use avouch_engine::event::LaneEvent;
use avouch_engine::identity::ed25519::{self, Item, PublicKey};
use avouch_engine::identity::{
    BatchTree, Cell, DeviceKey, DeviceKeys, KeyError, KeySet, KeySpan, Naming, SignatureIn, SigningKey, chain_domain,
    columns_content, device_hash, file_domain, leaf, sign_batch, sign_reading, value_content,
};
use avouch_engine::lane::{Lane, LaneError, Output};
use avouch_engine::plan::LanePlan;
use avouch_engine::replay::Replay;
use avouch_engine::spec::{FieldSpec, FieldType, FormatSpec, LaneSpec};
use avouch_engine::verdict::Hash32;
use fleet::{T0, row, secret, spec};
use proptest::prelude::*;

const KINDS: [&str; 3] = ["ed25519", "p256", "secp256k1"];

fn key(kind: &str, n: u8) -> SigningKey {
    SigningKey::new(kind, &[n; 32]).unwrap()
}

fn span(from_seq: u64, until_seq: u64, key: &SigningKey) -> KeySpan {
    KeySpan { from_seq, until_seq, key: key.public() }
}

fn domain() -> Hash32 {
    file_domain("works")
}

fn keys_of(naming: Naming, domain: Hash32, devices: &[(&str, Vec<KeySpan>)]) -> Arc<KeySet> {
    let id = |name: &str| match naming {
        Naming::Name => device_hash(name.as_bytes()),
        Naming::Pseudonym => secret().device_id(name),
    };
    let devices = devices.iter().map(|(name, spans)| DeviceKeys { id: id(name), spans: spans.clone() }).collect();
    KeySet::new(&KeySet::name_of("readings"), domain, naming, devices).unwrap()
}

fn header_spec() -> LaneSpec {
    let mut spec = spec();
    spec.source.signature = Some(SignatureIn::Header);
    spec
}

fn header_plan() -> Arc<LanePlan> {
    Arc::new(LanePlan::new(&header_spec()).unwrap())
}

/// A record with its signature.
#[derive(Debug, Clone, PartialEq)]
struct Sent {
    at: i64,
    value: String,
    signature: Option<Vec<u8>>,
}

fn signed(key: &SigningKey, device: &str, seq: u64, at: i64) -> Sent {
    let value = row(device, at, 1.0);
    let content = value_content(value.as_bytes());
    Sent { at, value, signature: Some(sign_reading(key, &domain(), device, seq, &content).unwrap()) }
}

fn raw(sent: &[Sent], from: usize) -> Vec<RawRecord<'_>> {
    sent.iter()
        .enumerate()
        .map(|(i, s)| RawRecord {
            offset: (from + i) as i64,
            timestamp: T0 + 1_000_000,
            key: None,
            value: Some(s.value.as_bytes()),
            origin: None,
            signature: s.signature.as_deref(),
        })
        .collect()
}

fn lane(plan: &Arc<LanePlan>, keys: &Arc<KeySet>, out: &mut Output) -> Lane {
    let mut lane = Lane::new(plan.clone(), 0, secret());
    lane.take_reference(keys.clone(), out).unwrap();
    lane
}

/// Why each record died; `None` for those that were used.
fn reasons(sent: &[Sent], out: &Output) -> Vec<Option<DeadReason>> {
    (0..sent.len() as i64).map(|i| out.dead.iter().find(|d| d.offset == i).map(|d| d.reason)).collect()
}

fn judged(keys: &Arc<KeySet>, sent: &[Sent]) -> Vec<Option<DeadReason>> {
    let mut out = Output::default();
    let mut lane = lane(&header_plan(), keys, &mut out);
    lane.step(&raw(sent, 0), &mut out).unwrap();
    assert!(lane.counters().balanced());
    reasons(sent, &out)
}

#[test]
fn each_kind_of_key_speaks_for_its_device_and_each_wrong_reading_has_its_own_reason() {
    for (kind, naming) in KINDS.into_iter().flat_map(|k| [(k, Naming::Name), (k, Naming::Pseudonym)]) {
        let (old, new, other) = (key(kind, 1), key(kind, 2), key(kind, 3));
        let keys = keys_of(
            naming,
            domain(),
            &[("a", vec![span(5, 10, &old), span(10, 20, &new)]), ("b", vec![span(0, u64::MAX, &other)])],
        );
        let mut sent = vec![
            signed(&old, "a", 4, T0),        // before its first key
            signed(&old, "a", 5, T0 + 1),    // good
            signed(&old, "a", 5, T0 + 2),    // the number again
            signed(&old, "a", 7, T0 + 3),    // a gap
            signed(&old, "a", 6, T0 + 4),    // what the gap was
            signed(&old, "a", 10, T0 + 5),   // the old key, for what the new one speaks for
            signed(&new, "a", 10, T0 + 6),   // good
            signed(&new, "a", 20, T0 + 7),   // revoked
            signed(&other, "a", 11, T0 + 8), // another device's key
            signed(&other, "c", 1, T0 + 9),  // a stranger
            signed(&other, "b", 0, T0 + 10), // good
            Sent { signature: None, ..signed(&other, "b", 1, T0 + 11) },
            Sent { signature: Some(vec![1, 2, 3]), ..signed(&other, "b", 1, T0 + 12) },
        ];
        // A good signature before another value, and one with a bit changed.
        sent.push(Sent { value: row("b", T0 + 13, 9.0), ..signed(&other, "b", 1, T0 + 13) });
        let mut flipped = signed(&other, "b", 1, T0 + 14);
        flipped.signature.as_mut().unwrap()[30] ^= 1;
        sent.push(flipped);
        // A reading that was accepted, sent again byte for byte.
        sent.push(sent[10].clone());
        // Refused ones have not used up their number.
        sent.push(signed(&other, "b", 1, T0 + 15));
        use DeadReason::*;
        let expected = [
            Some(KeyNotValid),
            None,
            Some(Replayed),
            None,
            Some(Replayed),
            Some(Forged),
            None,
            Some(Revoked),
            Some(Forged),
            Some(UnknownDevice),
            None,
            Some(Unsigned),
            Some(Forged),
            Some(Forged),
            Some(Forged),
            Some(Replayed),
            None,
        ];
        assert_eq!(judged(&keys, &sent), expected, "{kind}");
    }
}

#[test]
fn a_signature_for_another_fleet_chain_contract_or_device_is_no_signature_here() {
    let k = key("ed25519", 1);
    let here = chain_domain(1, &[1; 20], &[1; 32]);
    let keys = keys_of(Naming::Name, here, &[("a", vec![span(0, u64::MAX, &k)]), ("b", vec![span(0, u64::MAX, &k)])]);
    let value = row("a", T0, 1.0);
    let content = value_content(value.as_bytes());
    let by = |domain: &Hash32, device: &str| {
        let signature = Some(sign_reading(&k, domain, device, 0, &content).unwrap());
        judged(&keys, &[Sent { at: T0, value: value.clone(), signature }])
    };
    assert_eq!(by(&here, "a"), [None]);
    let others = [
        chain_domain(2, &[1; 20], &[1; 32]),
        chain_domain(1, &[2; 20], &[1; 32]),
        chain_domain(1, &[1; 20], &[2; 32]),
        domain(),
    ];
    for other in &others {
        assert_eq!(by(other, "a"), [Some(DeadReason::Forged)]);
    }
    // The same key, enrolled for two devices, speaks for neither in the other's name.
    assert_eq!(by(&here, "b"), [Some(DeadReason::Forged)]);
}

#[test]
fn a_batch_is_signed_once_and_each_of_its_readings_stands_for_itself() {
    for kind in KINDS {
        let k = key(kind, 1);
        let keys = keys_of(Naming::Name, domain(), &[("a", vec![span(0, u64::MAX, &k)])]);
        for count in [1usize, 2, 3, 7, 16, 33] {
            let values: Vec<String> = (0..count).map(|i| row("a", T0 + i as i64, 1.0)).collect();
            let contents: Vec<Hash32> = values.iter().map(|v| value_content(v.as_bytes())).collect();
            let envelopes = sign_batch(&k, &domain(), "a", 10, &contents).unwrap();
            let sent: Vec<Sent> = values
                .iter()
                .zip(&envelopes)
                .map(|(v, e)| Sent { at: T0, value: v.clone(), signature: Some(e.clone()) })
                .collect();
            assert_eq!(judged(&keys, &sent), vec![None; count]);
            // One of them alone, and without the first.
            assert_eq!(judged(&keys, &sent[count - 1..]), [None]);
            // Two that swap their values: neither stands where it was signed.
            if count > 1 {
                let mut swapped = sent.clone();
                (swapped[0].value, swapped[1].value) = (sent[1].value.clone(), sent[0].value.clone());
                let reasons = judged(&keys, &swapped);
                assert_eq!(reasons[..2], [Some(DeadReason::Forged); 2]);
                assert_eq!(reasons[2..], vec![None; count - 2]);
                // Another index with the same path.
                let mut moved = sent[1].clone();
                moved.signature.as_mut().unwrap()[16] ^= 1;
                assert_eq!(judged(&keys, &[moved]), [Some(DeadReason::Forged)]);
            }
        }
        // A reading's signature is none of a batch of one, nor the other way round.
        let value = row("a", T0, 1.0);
        let content = value_content(value.as_bytes());
        let one = sign_reading(&k, &domain(), "a", 3, &content).unwrap();
        let batch = sign_batch(&k, &domain(), "a", 3, &[content]).unwrap().remove(0);
        let mixed = |head: &[u8], signature: &[u8]| Sent {
            at: T0,
            value: value.clone(),
            signature: Some([head, signature].concat()),
        };
        assert_eq!(judged(&keys, &[mixed(&batch[..17], &one[9..])]), [Some(DeadReason::Forged)]);
        assert_eq!(judged(&keys, &[mixed(&one[..9], &batch[17..])]), [Some(DeadReason::Forged)]);
    }
}

#[test]
fn a_dead_letter_keeps_its_signature_but_not_whatever_somebody_puts_in_its_place() {
    let k = key("ed25519", 1);
    let keys = keys_of(Naming::Name, domain(), &[("a", vec![span(9, u64::MAX, &k)])]);
    let early = signed(&k, "a", 1, T0);
    let huge = Sent { signature: Some(vec![7; 100_000]), ..early.clone() };
    let mut out = Output::default();
    let mut lane = lane(&header_plan(), &keys, &mut out);
    lane.step(&raw(&[early.clone(), huge], 0), &mut out).unwrap();
    assert_eq!(out.dead[0].signature, early.signature);
    assert_eq!(out.dead[1].signature, Some(vec![7; 1_024]));
    for letter in &out.dead {
        assert_eq!(&avouch_engine::dead_letter::DeadLetter::from_bytes(&letter.to_bytes()).unwrap(), letter);
    }
}

#[test]
fn the_twin_of_an_ecdsa_signature_is_refused() {
    for kind in ["p256", "secp256k1"] {
        let k = key(kind, 1);
        let keys = keys_of(Naming::Name, domain(), &[("a", vec![span(0, u64::MAX, &k)])]);
        let good = signed(&k, "a", 0, T0);
        assert_eq!(judged(&keys, std::slice::from_ref(&good)), [None]);
        let mut twin = good;
        let bytes = twin.signature.as_mut().unwrap();
        if kind == "p256" {
            let s = p256_negated(&bytes[9..73]);
            bytes[9..73].copy_from_slice(&s);
        } else {
            let s = k256_negated(&bytes[9..73]);
            bytes[9..73].copy_from_slice(&s);
            bytes[73] ^= 27 ^ 28;
        }
        assert_eq!(judged(&keys, &[twin]), [Some(DeadReason::Forged)], "{kind}");
    }
}

/// `n − s`, big-endian, where `s` is the second half.
fn negated(rs: &[u8], order: [u8; 32]) -> Vec<u8> {
    let mut out = rs.to_vec();
    let mut borrow = 0i16;
    for i in (0..32).rev() {
        let d = i16::from(order[i]) - i16::from(rs[32 + i]) - borrow;
        borrow = i16::from(d < 0);
        out[32 + i] = d.rem_euclid(256) as u8;
    }
    out
}

fn order(hex: &str) -> [u8; 32] {
    let digit = |i: usize| u8::from_str_radix(&hex[2 * i..2 * i + 2], 16).unwrap();
    std::array::from_fn(digit)
}

fn p256_negated(rs: &[u8]) -> Vec<u8> {
    negated(rs, order("ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551"))
}

fn k256_negated(rs: &[u8]) -> Vec<u8> {
    negated(rs, order("fffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141"))
}

/// The eight points of small order, in every way that 32 bytes can stand for them.
fn small_order() -> Vec<[u8; 32]> {
    let p_plus = |n: u8| {
        let mut bytes = [0xff; 32];
        (bytes[0], bytes[31]) = (0xed + n, 0x7f);
        bytes
    };
    let low = |n: u8| {
        let mut bytes = [0; 32];
        bytes[0] = n;
        bytes
    };
    let mut p_minus_one = [0xff; 32];
    (p_minus_one[0], p_minus_one[31]) = (0xec, 0x7f);
    let order_8 = order("c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a");
    let order_8_other = order("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05");
    let mut out = Vec::new();
    for y in [low(0), low(1), p_minus_one, p_plus(0), p_plus(1), order_8, order_8_other] {
        let mut negative = y;
        negative[31] |= 0x80;
        out.extend([y, negative]);
    }
    out
}

#[test]
fn with_points_of_small_order_one_by_one_and_together_agree_by_zip_215() {
    let points = small_order();
    assert_eq!(points.len(), 14);
    let keys: Vec<PublicKey> = points.iter().map(|p| PublicKey::new(*p)).collect();
    assert!(keys.iter().all(PublicKey::is_point));
    let signatures: Vec<[u8; 64]> = points
        .iter()
        .map(|r| {
            let mut s = [0; 64];
            s[..32].copy_from_slice(r);
            s
        })
        .collect();
    let message = b"Zcash";
    let items: Vec<Item<'_>> =
        keys.iter().flat_map(|key| signatures.iter().map(move |signature| Item { key, message, signature })).collect();
    assert_eq!(items.len(), 196);
    // By ZIP 215 all of them are valid.
    assert!(items.iter().all(ed25519::verify));
    assert!(ed25519::verify_each(&items).into_iter().all(|v| v));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    /// Good, altered, hostile: in whatever company, what one alone would be.
    #[test]
    fn a_batch_answers_for_each_what_it_alone_would(
        picks in proptest::collection::vec((0u8..6, 0u8..5, any::<u8>(), 0usize..96), 0..80),
    ) {
        let points = small_order();
        let keys: Vec<SigningKey> = (0..5).map(|n| key("ed25519", n + 1)).collect();
        let made: Vec<(PublicKey, Vec<u8>, [u8; 64])> = picks
            .iter()
            .map(|(what, who, byte, at)| {
                let SigningKey::Ed25519(k) = &keys[usize::from(*who)] else { panic!() };
                let message = vec![*byte; 100];
                let mut signature = ed25519_dalek::Signer::sign(k.as_ref(), &message).to_bytes();
                let mut public = k.verifying_key().to_bytes();
                match what {
                    0..=2 => {}
                    3 if *at < 64 => signature[*at] ^= 1 << (byte % 8),
                    3 => public[at - 64] ^= 1 << (byte % 8),
                    4 => signature[..32].copy_from_slice(&points[at % 14]),
                    _ => {
                        public = points[at % 14];
                        signature = [0; 64];
                        signature[..32].copy_from_slice(&points[usize::from(*byte) % 14]);
                    }
                }
                (PublicKey::new(public), message, signature)
            })
            .collect();
        let items: Vec<Item<'_>> =
            made.iter().map(|(key, message, signature)| Item { key, message, signature }).collect();
        let alone: Vec<bool> = items.iter().map(ed25519::verify).collect();
        prop_assert_eq!(ed25519::verify_each(&items), alone);
    }
}

/// What happens to a lane: a record, or other keys.
#[derive(Debug, Clone)]
enum Act {
    /// Who, by which key, the number, what is wrong with it.
    Reading(u8, u8, u64, u8),
    /// Signed together.
    Batch(u8, u64, u8),
    Keys(usize),
    Restart,
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let act = prop_oneof![
        6 => (0u8..3, 0u8..3, 0u64..30, 0u8..8).prop_map(|(d, k, n, w)| Act::Reading(d, k, n, w)),
        2 => (0u8..3, 0u64..30, 1u8..6).prop_map(|(d, n, c)| Act::Batch(d, n, c)),
        1 => (0usize..3).prop_map(Act::Keys),
        1 => Just(Act::Restart),
    ];
    proptest::collection::vec(act, 1..60)
}

const NAMES: [&str; 3] = ["a", "b", "c"];

fn versions() -> Vec<Arc<KeySet>> {
    let k: Vec<SigningKey> = KINDS.iter().zip(1..).map(|(kind, n)| key(kind, n)).collect();
    let set = |devices: &[(&str, Vec<KeySpan>)]| keys_of(Naming::Pseudonym, domain(), devices);
    vec![
        set(&[("a", vec![span(0, u64::MAX, &k[0])]), ("b", vec![span(3, u64::MAX, &k[1])])]),
        set(&[("a", vec![span(0, 12, &k[0]), span(12, u64::MAX, &k[1])]), ("b", vec![span(3, 20, &k[1])])]),
        set(&[("b", vec![span(3, u64::MAX, &k[1])]), ("c", vec![span(0, u64::MAX, &k[2])])]),
    ]
}

#[derive(Debug, PartialEq)]
struct Left {
    verdicts: Vec<Vec<u8>>,
    dead: Vec<Vec<u8>>,
    events: Vec<LaneEvent>,
    snapshot: Vec<u8>,
}

fn left(lane: &Lane, out: Output) -> Left {
    assert!(lane.counters().balanced());
    Left {
        verdicts: out.verdicts.iter().map(|v| v.to_bytes()).collect(),
        dead: out.dead.iter().map(|d| d.to_bytes()).collect(),
        events: out.events,
        snapshot: lane.snapshot().bytes,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn neither_cutting_nor_restarting_nor_replaying_changes_a_byte(acts in acts(), piece in 1usize..7) {
        let keys: Vec<SigningKey> = KINDS.iter().zip(1..).map(|(kind, n)| key(kind, n)).collect();
        let mut sent: Vec<Sent> = Vec::new();
        // After how many records the keys change, and where the lane restarts.
        let (mut switches, mut restarts) = (Vec::new(), Vec::new());
        for act in &acts {
            let at = T0 + sent.len() as i64 * 150;
            match act {
                Act::Reading(device, by, seq, wrong) => {
                    let mut one = signed(&keys[usize::from(*by)], NAMES[usize::from(*device)], *seq, at);
                    match wrong {
                        0 => one.signature = None,
                        1 => one.signature.as_mut().unwrap()[20] ^= 4,
                        2 => one.value = one.value.replace("1", "2"),
                        3 => one.value = "no JSON".into(),
                        _ => {}
                    }
                    sent.push(one);
                }
                Act::Batch(device, first, count) => {
                    let device = NAMES[usize::from(*device)];
                    let k = &keys[NAMES.iter().position(|n| *n == device).unwrap()];
                    let values: Vec<String> = (0..*count).map(|i| row(device, at + i64::from(i), 2.0)).collect();
                    let contents: Vec<Hash32> = values.iter().map(|v| value_content(v.as_bytes())).collect();
                    let envelopes = sign_batch(k, &domain(), device, *first, &contents).unwrap();
                    sent.extend(values.into_iter().zip(envelopes).map(|(value, e)| Sent { at, value, signature: Some(e) }));
                }
                Act::Keys(n) => switches.push((sent.len(), *n)),
                Act::Restart => restarts.push(sent.len()),
            }
        }
        let (plan, versions) = (header_plan(), versions());
        let run = |piece: usize, restart: bool| {
            let mut out = Output::default();
            let mut lane = lane(&plan, &versions[0], &mut out);
            let mut last = versions[0].clone();
            for at in 0..=sent.len() {
                for (_, n) in switches.iter().filter(|(place, _)| *place == at) {
                    last = versions[*n].clone();
                    lane.take_reference(last.clone(), &mut out).unwrap();
                }
                if restart && restarts.contains(&at) {
                    lane = Lane::restore(plan.clone(), 0, secret(), &lane.snapshot()).unwrap();
                    lane.take_reference(last.clone(), &mut out).unwrap();
                }
                // Pieces end at multiples, and where something else happens.
                if at < sent.len() {
                    let next = (at + 1..=sent.len())
                        .find(|e| *e % piece == 0 || *e == sent.len() || switches.iter().any(|(p, _)| p == e) || restarts.contains(e))
                        .unwrap();
                    let begins = at % piece == 0 || switches.iter().any(|(p, _)| *p == at) || restarts.contains(&at);
                    if begins {
                        lane.step(&raw(&sent[at..next], at), &mut out).unwrap();
                    }
                }
            }
            left(&lane, out)
        };
        let whole = run(sent.len().max(1), false);
        prop_assert_eq!(&run(1, false), &whole);
        prop_assert_eq!(&run(piece, true), &whole);
        // And from what was recorded alone.
        let mut replay = Replay::new(whole.events.clone());
        let mut out = Output::default();
        let mut lane = Lane::new(plan.clone(), 0, secret());
        let find = |_: &str, version: &Hash32| Ok::<_, LaneError>(versions.iter().find(|v| v.version() == *version).unwrap().clone());
        replay.give(&mut lane, find, &mut out).unwrap();
        let records = raw(&sent, 0);
        let mut rest = &records[..];
        while !rest.is_empty() {
            let n = replay.before(rest).unwrap();
            lane.step(&rest[..n], &mut out).unwrap();
            rest = &rest[n..];
            replay.give(&mut lane, find, &mut out).unwrap();
        }
        prop_assert_eq!(left(&lane, out), whole);
    }
}

#[test]
fn a_signature_can_be_a_field_of_the_reading_however_that_is_written() {
    let mut spec = spec();
    let sig = FieldSpec { name: "sig".into(), ty: FieldType::Utf8, required: false };
    spec.source.fields.insert(2, sig);
    spec.source.signature = Some(SignatureIn::Field("sig".into()));
    let plan = Arc::new(LanePlan::new(&spec).unwrap());
    let k = key("p256", 1);
    let keys = keys_of(Naming::Name, domain(), &[("a", vec![span(0, u64::MAX, &k)])]);
    let hex = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
    let content =
        |ts: i64, x: Cell<'_>| columns_content(&[("ts", Cell::I64(ts)), ("x", x), ("device", Cell::Text(b"a"))]);
    let sign = |seq: u64, content: &Hash32| hex(&sign_reading(&k, &domain(), "a", seq, content).unwrap());
    let (one, two) = (sign(1, &content(T0, Cell::F64(1.5))), sign(2, &content(T0 + 1, Cell::Null)));
    let values = [
        // The order of fields, blanks, and how a number or a time is written do not matter; other fields are not read.
        format!(
            "{{ \"x\": 15e-1, \"more\": 3, \"sig\": \"{one}\", \"ts\": \"2023-11-14T22:13:20Z\", \"device\": \"\\u0061\" }}"
        ),
        format!("{{\"device\":\"a\",\"ts\":{},\"sig\":\"{}\"}}", T0 + 1, two.to_uppercase()),
        format!("{{\"device\":\"a\",\"ts\":{},\"x\":0,\"sig\":\"{}\"}}", T0 + 1, sign(3, &content(T0 + 1, Cell::Null))),
        format!("{{\"device\":\"a\",\"ts\":{}}}", T0 + 2),
        format!("{{\"device\":\"a\",\"ts\":{},\"sig\":null}}", T0 + 2),
        format!("{{\"device\":\"a\",\"ts\":{},\"sig\":\"0g\"}}", T0 + 2),
    ];
    let sent: Vec<Sent> = values.into_iter().map(|value| Sent { at: T0, value, signature: None }).collect();
    let mut out = Output::default();
    let mut lane = lane(&plan, &keys, &mut out);
    lane.step(&raw(&sent, 0), &mut out).unwrap();
    use DeadReason::*;
    assert_eq!(reasons(&sent, &out), [None, None, Some(Forged), Some(Unsigned), Some(Unsigned), Some(Forged)]);
}

#[test]
fn evidence_names_the_keys_that_the_rows_of_a_window_were_accepted_by() {
    let versions = versions();
    let k = key(KINDS[0], 1);
    let mut out = Output::default();
    let mut lane = lane(&header_plan(), &versions[0], &mut out);
    let sent: Vec<Sent> = (0..8).map(|i| signed(&k, "a", i, T0 + i as i64 * 400)).collect();
    lane.step(&raw(&sent[..4], 0), &mut out).unwrap();
    lane.take_reference(versions[1].clone(), &mut out).unwrap();
    lane.step(&raw(&sent[4..], 4), &mut out).unwrap();
    let named = |n: usize| -> Vec<(String, Hash32)> {
        out.verdicts[n].evidence.references.iter().map(|r| (r.name.clone(), r.version)).collect()
    };
    let version = |n: usize| ("readings.identity".to_owned(), versions[n].version());
    // The first window has rows 0 to 2; the second, 3 and 4.
    assert_eq!(named(0), [version(0)]);
    assert_eq!(named(1), [version(0), version(1)]);
    assert_eq!(out.events.iter().filter(|e| matches!(e, LaneEvent::Reference { .. })).count(), 2);
}

#[test]
fn a_lane_does_not_begin_without_keys_and_a_state_from_before_signatures_goes_on() {
    let plan = header_plan();
    let mut lane = Lane::new(plan.clone(), 0, secret());
    let refused = lane.step(&raw(&[signed(&key("ed25519", 1), "a", 1, T0)], 0), &mut Output::default()).unwrap_err();
    assert!(refused.to_string().contains("no keys were loaded"), "{refused}");
    // A state as version 6 wrote it: seven reasons to die, and nothing about signatures.
    let plain = Arc::new(LanePlan::new(&spec()).unwrap());
    let mut lane = Lane::new(plain.clone(), 0, secret());
    let sent = [
        Sent { at: T0, value: row("a", T0, 1.0), signature: None },
        Sent { at: T0, value: "?".into(), signature: None },
    ];
    lane.step(&raw(&sent, 0), &mut Output::default()).unwrap();
    let now = lane.snapshot().bytes;
    let dead = 2 + 32 + 8 + 8 + 4 * 8;
    let mut then = now.clone();
    then.drain(dead + 7 * 8..dead + 13 * 8);
    then.truncate(then.len() - 1);
    then[..2].copy_from_slice(&6u16.to_le_bytes());
    let restored = Lane::restore(plain.clone(), 0, secret(), &then).unwrap();
    assert_eq!(restored.snapshot().bytes, now);
    // And goes on under a pipeline that asks for signatures.
    let mut signed_spec = header_spec();
    signed_spec.config_hash = [2; 32];
    let mut out = Output::default();
    let plan = Arc::new(LanePlan::new(&signed_spec).unwrap());
    let mut lane = Lane::migrate(plan, 0, secret(), &then, &mut out).unwrap();
    lane.take_reference(versions()[0].clone(), &mut out).unwrap();
    let next = [
        signed(&key("ed25519", 1), "a", 1, T0 + 100),
        Sent { signature: None, ..signed(&key("ed25519", 1), "a", 2, T0 + 200) },
    ];
    lane.step(&raw(&next, 2), &mut out).unwrap();
    assert_eq!(out.dead.iter().map(|d| (d.offset, d.reason)).collect::<Vec<_>>(), [(3, DeadReason::Unsigned)]);
}

#[test]
fn keys_are_named_by_their_content_and_damaged_ones_are_refused() {
    let all = versions();
    for keys in &all {
        let bytes = keys.to_bytes();
        assert_eq!(KeySet::from_bytes(keys.name(), &bytes).unwrap().version(), keys.version());
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1;
            if let Ok(other) = KeySet::from_bytes(keys.name(), &damaged) {
                assert_ne!(other.version(), keys.version());
                assert_eq!(other.to_bytes(), damaged);
            }
            assert!(KeySet::from_bytes(keys.name(), &bytes[..at]).is_err());
        }
    }
    let k = key("ed25519", 1);
    let set = |spans: Vec<KeySpan>| {
        KeySet::new("s.identity", domain(), Naming::Name, vec![DeviceKeys { id: [1; 32], spans }]).map(|_| ())
    };
    assert!(matches!(set(vec![]), Err(KeyError::NoKey(_))));
    assert!(matches!(set(vec![span(0, 9, &k), span(8, 10, &k)]), Err(KeyError::Order { .. })));
    assert!(matches!(set(vec![span(3, 2, &k)]), Err(KeyError::Order { .. })));
    assert_eq!(set(vec![span(0, 0, &k), span(5, 9, &k)]), Ok(()));
}

#[test]
fn registry_keys_are_read_as_the_registry_has_them() {
    for kind in KINDS {
        let public = key(kind, 7).public();
        let bytes = public.to_erc7913(&[9; 20]);
        assert_eq!(bytes.len(), [52, 84, 20][KINDS.iter().position(|k| *k == kind).unwrap()]);
        assert_eq!(DeviceKey::from_erc7913(&bytes), public);
    }
    assert_eq!(DeviceKey::from_erc7913(&[1; 53]), DeviceKey::Other(vec![1; 53]));
    assert_eq!(DeviceKey::from_erc7913(&[1; 52]), DeviceKey::Other(vec![1; 52]), "not the mark of Ed25519");
}

#[test]
fn planning_says_what_cannot_be_signed() {
    let errors = |change: &dyn Fn(&mut LaneSpec)| {
        let mut spec = header_spec();
        change(&mut spec);
        LanePlan::new(&spec).map(|_| ()).unwrap_err().into_iter().map(|e| e.to_string()).collect::<Vec<_>>()
    };
    insta::assert_debug_snapshot!([
        errors(&|s| s.source.format = FormatSpec::Arrow),
        errors(&|s| s.source.signature = Some(SignatureIn::Field("sig".into()))),
        errors(&|s| s.source.signature = Some(SignatureIn::Field("x".into()))),
        errors(&|s| s.source.signature = Some(SignatureIn::Field("device".into()))),
    ]);
}

#[test]
fn the_worked_example_of_the_docs_is_what_is_signed_and_accepted() {
    let page = include_str!("../../docs/signed-readings.md");
    let hex = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
    let says = |what: &str| assert!(page.contains(what), "not in the page: {what}");
    let secret = order("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60");
    let k = SigningKey::new("ed25519", &secret).unwrap();
    let value =
        |i: i64, x: &str| format!("{{\"device\":\"pump-1\",\"ts\":{},\"x\":{x}}}", 1_700_000_000_000 + 1_000 * i);
    let first = value(0, "1.5");
    says(&first);
    let content = value_content(first.as_bytes());
    let one = sign_reading(&k, &domain(), "pump-1", 7, &content).unwrap();
    for word in [&domain()[..], &device_hash(b"pump-1"), &content, &one] {
        says(&format!("`{}`", hex(word)));
    }
    let cells = [("device", Cell::Text(b"pump-1")), ("ts", Cell::I64(1_700_000_000_000)), ("x", Cell::F64(1.5))];
    let content = columns_content(&cells);
    says(&format!("`{}`", hex(&content)));
    says(&format!("\n{}\n", hex(&sign_reading(&k, &domain(), "pump-1", 7, &content).unwrap())));
    let values = [first, value(1, "1.25"), value(2, "1.75")];
    let contents: Vec<Hash32> = values.iter().map(|v| value_content(v.as_bytes())).collect();
    let leaves: Vec<Hash32> = (8..).zip(&contents).map(|(seq, c)| leaf(seq, c)).collect();
    says(&format!("`{}`", hex(&BatchTree::new(leaves).root())));
    let batch = sign_batch(&k, &domain(), "pump-1", 8, &contents).unwrap();
    says(&format!("\n{}\n", hex(&batch[1])));
    let keys = keys_of(Naming::Name, domain(), &[("pump-1", vec![span(0, u64::MAX, &k)])]);
    let mut sent = vec![Sent { at: T0, value: values[0].clone(), signature: Some(one) }];
    sent.extend(values.into_iter().zip(batch).map(|(value, e)| Sent { at: T0, value, signature: Some(e) }));
    assert_eq!(judged(&keys, &sent), [None; 4]);
}
