//! Signed readings: envelopes beside values, and key sets, of any bytes.

use std::sync::{Arc, LazyLock};

use avouch_engine::decode::RawRecord;
use avouch_engine::identity::{
    DeviceKeys, Envelope, KeySet, KeySpan, Naming, SignatureIn, SigningKey, device_hash, file_domain, sign_batch,
    sign_reading, value_content,
};
use avouch_engine::lane::{Lane, LaneError, Output};
use avouch_engine::plan::LanePlan;
use avouch_engine::spec::FormatSpec;
use avouch_engine::verdict::Hash32;

use crate::lanes;

const KINDS: [&str; 3] = ["ed25519", "p256", "secp256k1"];
const BROKER: i64 = 1_700_000_000_000;

/// The device, its key, and a set that names it.
struct Fleet {
    keys: Vec<SigningKey>,
    set: Arc<KeySet>,
    plan: Arc<LanePlan>,
}

static FLEET: LazyLock<Fleet> = LazyLock::new(|| {
    let key = |kind: &&str| match SigningKey::new(kind, &[7; 32]) {
        Ok(key) => key,
        Err(e) => panic!("the target's own key: {e}"),
    };
    let keys: Vec<SigningKey> = KINDS.iter().map(key).collect();
    let device = |(kind, key): (&&str, &SigningKey)| DeviceKeys {
        id: device_hash(kind.as_bytes()),
        spans: vec![
            KeySpan { from_seq: 1, until_seq: 50, key: key.public() },
            KeySpan { from_seq: 60, until_seq: u64::MAX, key: key.public() },
        ],
    };
    let devices = KINDS.iter().zip(&keys).map(device).collect();
    let mut spec = lanes::spec(FormatSpec::Json);
    spec.source.signature = Some(SignatureIn::Header);
    match (KeySet::new("readings.identity", file_domain("fuzz"), Naming::Name, devices), LanePlan::new(&spec)) {
        (Ok(set), Ok(plan)) => Fleet { keys, set, plan: Arc::new(plan) },
        (set, plan) => panic!("the target's own fleet: {:?} {:?}", set.err(), plan.err()),
    }
});

fn lane(out: &mut Output) -> Lane {
    let mut lane = Lane::new(FLEET.plan.clone(), 0, lanes::secret());
    match lane.take_reference(FLEET.set.clone(), out) {
        Ok(()) => lane,
        Err(e) => panic!("the target's own keys: {e}"),
    }
}

fn step(lane: &mut Lane, records: &[RawRecord<'_>], out: &mut Output) {
    if let Err(e) = lane.step(records, out) {
        panic!("no record stops a lane: {e}");
    }
}

/// Records, each a length (2 bytes), so many bytes of signature, a length and the value: however they are cut, the same becomes of
/// them, also after a restart.
pub fn envelopes(data: &[u8]) {
    let mut rest = data;
    let mut run = || {
        let (n, behind) = rest.split_first_chunk::<2>()?;
        let (bytes, behind) = behind.split_at_checked(usize::from(u16::from_be_bytes(*n)))?;
        rest = behind;
        Some(bytes)
    };
    let mut pairs: Vec<(&[u8], &[u8])> = Vec::new();
    while let (Some(signature), Some(value)) = (run(), run()) {
        pairs.push((signature, value));
    }
    pairs.truncate(32);
    for (signature, _) in &pairs {
        if let Ok(e) = Envelope::parse(signature) {
            let again = match &e.member {
                None => Envelope::reading(e.seq, e.signature),
                Some(m) => {
                    let path: Vec<Hash32> = m.path().collect();
                    Envelope::member(m.first, m.count, m.index, &path, e.signature)
                }
            };
            assert_eq!(&again, signature, "an envelope has one spelling");
        }
    }
    let record =
        |(i, (signature, value)): (usize, &(&'_ [u8], &'_ [u8]))| (i as i64, signature.to_vec(), value.to_vec());
    let owned: Vec<(i64, Vec<u8>, Vec<u8>)> = pairs.iter().enumerate().map(record).collect();
    let raw: Vec<RawRecord<'_>> = owned
        .iter()
        .map(|(offset, signature, value)| RawRecord {
            offset: *offset,
            timestamp: BROKER + offset * 400,
            key: None,
            value: Some(value),
            origin: None,
            signature: (!signature.is_empty()).then_some(signature),
        })
        .collect();
    let (mut out, mut bit_by_bit) = (Output::default(), Output::default());
    let (mut whole, mut each) = (lane(&mut out), lane(&mut bit_by_bit));
    step(&mut whole, &raw, &mut out);
    for r in &raw {
        step(&mut each, std::slice::from_ref(r), &mut bit_by_bit);
    }
    assert!(whole.counters().balanced());
    assert_eq!(out.dead, bit_by_bit.dead);
    let snapshot = whole.snapshot();
    assert_eq!(snapshot.bytes, each.snapshot().bytes, "cut otherwise, another state");
    match Lane::restore(FLEET.plan.clone(), 0, lanes::secret(), &snapshot) {
        Ok(restored) => assert_eq!(restored.snapshot().bytes, snapshot.bytes),
        Err(e) => panic!("a lane's own snapshot: {e}"),
    }
}

pub fn envelope_seeds() -> Vec<Vec<u8>> {
    let domain = file_domain("fuzz");
    let value =
        |device: &str, at: i64| format!("{{\"device\":\"{device}\",\"ts\":{},\"x\":1}}", BROKER + at).into_bytes();
    let framed = |records: &[(Vec<u8>, Vec<u8>)]| -> Vec<u8> {
        let part = |bytes: &[u8]| [&(bytes.len() as u16).to_be_bytes()[..], bytes].concat();
        records.iter().flat_map(|(s, v)| [part(s), part(v)].concat()).collect()
    };
    let mut seeds = Vec::new();
    for (kind, key) in KINDS.iter().zip(&FLEET.keys) {
        let v = value(kind, 0);
        let one = |seq: u64| sign_reading(key, &domain, kind, seq, &value_content(&v)).unwrap_or_default();
        seeds.push(framed(&[(one(1), v.clone()), (one(2), v.clone()), (one(2), v.clone()), (one(55), v.clone())]));
        let values: Vec<Vec<u8>> = (0..5).map(|i| value(kind, i * 900)).collect();
        let contents: Vec<Hash32> = values.iter().map(|v| value_content(v)).collect();
        let batch = sign_batch(key, &domain, kind, 3, &contents).unwrap_or_default();
        seeds.push(framed(&batch.into_iter().zip(values).collect::<Vec<_>>()));
    }
    seeds.push(framed(&[(Vec::new(), value("ed25519", 0)), (vec![1; 73], value("nobody", 0))]));
    seeds
}

/// A set of keys, and the state of a lane that counts devices: what is read is written the same.
pub fn keys(data: &[u8]) {
    let (kind, bytes) = data.split_first().map_or((0, data), |(k, b)| (k % 2, b));
    if kind == 0 {
        if let Ok(set) = KeySet::from_bytes("readings.identity", bytes) {
            assert_eq!(set.to_bytes(), bytes);
        }
        return;
    }
    match Lane::restore(FLEET.plan.clone(), 0, lanes::secret(), bytes) {
        Ok(mut restored) => {
            let written = restored.snapshot();
            let mut out = Output::default();
            if restored.take_reference(FLEET.set.clone(), &mut out).is_ok() {
                let value = b"{\"device\":\"ed25519\",\"ts\":1700000000000}";
                let (offset, timestamp) = (restored.last_offset().saturating_add(1), BROKER);
                let record = RawRecord {
                    offset,
                    timestamp,
                    key: None,
                    value: Some(value),
                    origin: None,
                    signature: Some(&[1; 73]),
                };
                // A damaged state may have no room left; it must not panic.
                let _: Result<(), LaneError> = restored.step(&[record], &mut out);
            }
            if let Err(e) = Lane::restore(FLEET.plan.clone(), 0, lanes::secret(), &written) {
                panic!("what a restored lane writes is read: {e}");
            }
        }
        Err(e) => drop(e.to_string()),
    }
}

pub fn key_seeds() -> Vec<Vec<u8>> {
    let mut out = Output::default();
    let mut counted = lane(&mut out);
    for data in envelope_seeds() {
        let len = usize::from(u16::from_be_bytes([data[0], data[1]]));
        let (signature, rest) = data[2..].split_at(len);
        let value = &rest[2..2 + usize::from(u16::from_be_bytes([rest[0], rest[1]]))];
        let offset = counted.last_offset() + 1;
        let record = RawRecord {
            offset,
            timestamp: BROKER,
            key: None,
            value: Some(value),
            origin: None,
            signature: Some(signature),
        };
        step(&mut counted, &[record], &mut out);
    }
    vec![[&[0], &FLEET.set.to_bytes()[..]].concat(), [&[1], &counted.snapshot().bytes[..]].concat()]
}
