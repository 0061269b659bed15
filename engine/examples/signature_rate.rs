//! What signatures cost, in CPU seconds of one thread: `cargo run --release -p avouch-engine --example signature_rate`.
//!
//! 200 devices, a reading a second each, JSON. The first lines are signatures alone, one by one and together; then whole lanes, which decode,
//! check, admit and window the same readings: without signatures, with one a reading by each kind of key, and with one a batch.
//! Lanes share nothing, so two cores do twice as much.

use std::error::Error;
use std::sync::Arc;

use avouch_engine::decode::RawRecord;
use avouch_engine::identity::ed25519::{self, Item};
use avouch_engine::identity::{
    DeviceKey, DeviceKeys, KeySet, KeySpan, Naming, SignatureIn, SigningKey, Statement, device_hash, file_domain,
    sign_batch, sign_reading, value_content,
};
use avouch_engine::lane::{Lane, Output};
use avouch_engine::plan::LanePlan;
use avouch_engine::spec::{FieldSpec, FieldType, FormatSpec, LaneSpec, SourceSpec, SqlStepSpec, WindowSpec};
use avouch_engine::verdict::{Hash32, Secret};

const DEVICES: usize = 200;
/// As many records as a lane gets from Kafka at once.
const PIECE: usize = 4_096;
const T0: i64 = 1_700_000_000_000;

/// CPU time of this thread so far, seconds.
fn cpu() -> Result<f64, Box<dyn Error>> {
    // Nanoseconds on the CPU: the first number.
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat")?;
    let ns: f64 = stat.split_whitespace().next().ok_or("no CPU time in schedstat")?.parse()?;
    Ok(ns / 1e9)
}

fn report(what: &str, n: usize, began: f64) -> Result<(), Box<dyn Error>> {
    let took = cpu()? - began;
    let rate = n as f64 / took;
    println!("{what:<46} {:>7.2} µs  {rate:>9.0}/s a core  {:>9.0}/s on two", took / n as f64 * 1e6, 2.0 * rate);
    Ok(())
}

fn plan(signed: bool) -> Result<Arc<LanePlan>, Box<dyn Error>> {
    let field = |name: &str, ty, required| FieldSpec { name: name.into(), ty, required };
    let spec = LaneSpec {
        pipeline: "rate".into(),
        config_hash: [0; 32],
        source: SourceSpec {
            name: "readings".into(),
            topic: "t".into(),
            format: FormatSpec::Json,
            fields: vec![
                field("a", FieldType::F64, false),
                field("b", FieldType::F64, false),
                field("device", FieldType::Utf8, true),
                field("ts", FieldType::TimestampMs, true),
            ],
            key: "device".into(),
            keyed: false,
            time: "ts".into(),
            max_disorder_ms: 2_000,
            max_future_ms: 0,
            device_ttl_ms: None,
            max_record_bytes: 1_000,
            signature: signed.then_some(SignatureIn::Header),
        },
        references: Vec::new(),
        sql: vec![SqlStepSpec {
            name: "features".into(),
            from: "readings".into(),
            sql: "SELECT device, avg(a) AS a, avg(b) AS b FROM readings GROUP BY device".into(),
            window: Some(WindowSpec::Tumbling { size_ms: 60_000 }),
        }],
        scores: Vec::new(),
    };
    LanePlan::new(&spec).map(Arc::new).map_err(|e| format!("{e:?}").into())
}

struct Row {
    device: usize,
    at: i64,
    value: String,
}

fn name(device: usize) -> String {
    format!("pump-{device:03}")
}

fn key(kind: &str, device: usize) -> Result<SigningKey, Box<dyn Error>> {
    let mut secret = [7; 32];
    secret[..8].copy_from_slice(&(device as u64 + 1).to_be_bytes());
    Ok(SigningKey::new(kind, &secret)?)
}

fn lane(what: &str, rows: &[Row], signatures: Option<(&Arc<KeySet>, &[Vec<u8>])>) -> Result<(), Box<dyn Error>> {
    let mut lane = Lane::new(plan(signatures.is_some())?, 0, Secret::new(b"rate"));
    let mut out = Output::default();
    if let Some((keys, _)) = signatures {
        lane.take_reference(keys.clone(), &mut out)?;
    }
    let records: Vec<RawRecord<'_>> = rows
        .iter()
        .enumerate()
        .map(|(i, row)| RawRecord {
            offset: i as i64,
            timestamp: row.at,
            key: None,
            value: Some(row.value.as_bytes()),
            origin: None,
            signature: signatures.map(|(_, s)| s[i].as_slice()),
        })
        .collect();
    let began = cpu()?;
    for piece in records.chunks(PIECE) {
        lane.step(piece, &mut out)?;
    }
    report(what, rows.len(), began)?;
    if lane.counters().rows_used != rows.len() as u64 {
        return Err(
            format!("{} of {} rows were used: {:?}", lane.counters().rows_used, rows.len(), out.dead.first()).into()
        );
    }
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    let seconds: usize = std::env::args().nth(1).map_or(Ok(300), |n| n.parse())?;
    let rows: Vec<Row> = (0..DEVICES * seconds)
        .map(|i| {
            let (device, second) = (i % DEVICES, i / DEVICES);
            let at = T0 + second as i64 * 1_000;
            let a = ((i * 7_919) % 1_000) as f64 / 10.0;
            let value = format!("{{\"device\":\"{}\",\"ts\":{at},\"a\":{a},\"b\":{}}}", name(device), a / 3.0);
            Row { device, at, value }
        })
        .collect();
    let contents: Vec<Hash32> = rows.iter().map(|r| value_content(r.value.as_bytes())).collect();
    let domain = file_domain("rate");
    println!("{} readings of {DEVICES} devices", rows.len());

    let keys: Vec<SigningKey> = (0..DEVICES).map(|d| key("ed25519", d)).collect::<Result<_, _>>()?;
    let hashes: Vec<Hash32> = (0..DEVICES).map(|d| device_hash(name(d).as_bytes())).collect();
    let statements: Vec<Statement> = rows
        .iter()
        .zip(&contents)
        .enumerate()
        .map(|(i, (row, content))| Statement::reading(&domain, &hashes[row.device], (i / DEVICES) as u64, content))
        .collect();
    let mut signatures = Vec::with_capacity(rows.len());
    for (row, statement) in rows.iter().zip(&statements) {
        let bytes: [u8; 64] = keys[row.device].sign(statement)?.try_into().map_err(|_| "no Ed25519 signature")?;
        signatures.push(bytes);
    }
    let public: Vec<DeviceKey> = keys.iter().map(SigningKey::public).collect();
    let items: Vec<Item<'_>> = rows
        .iter()
        .zip(statements.iter().zip(&signatures))
        .filter_map(|(row, (statement, signature))| match &public[row.device] {
            DeviceKey::Ed25519(key) => Some(Item { key, message: statement.as_bytes(), signature }),
            _ => None,
        })
        .collect();
    let few = &items[..items.len().min(10_000)];
    let began = cpu()?;
    if !few.iter().all(ed25519::verify) {
        return Err("a signature is not valid".into());
    }
    report("Ed25519, one by one", few.len(), began)?;
    let began = cpu()?;
    for piece in items.chunks(PIECE) {
        if ed25519::verify_each(piece).contains(&false) {
            return Err("a signature is not valid".into());
        }
    }
    report("Ed25519, together", items.len(), began)?;
    // Signatures of other readings: one of 512 that are judged together, or all.
    let other: Vec<Item<'_>> =
        few.iter().zip(few.iter().skip(1)).map(|(a, b)| Item { signature: b.signature, ..*a }).collect();
    let one: Vec<Item<'_>> =
        few.iter().zip(&other).enumerate().map(|(i, (good, bad))| if i % 512 == 7 { *bad } else { *good }).collect();
    for (what, items) in [("Ed25519, together, one in 512 bad", &one), ("Ed25519, together, all bad", &other)] {
        let began = cpu()?;
        let bad = items.chunks(PIECE).map(|p| ed25519::verify_each(p).iter().filter(|v| !**v).count()).sum::<usize>();
        report(what, items.len(), began)?;
        if bad != items.iter().filter(|i| !ed25519::verify(i)).count() {
            return Err("one by one and together do not agree".into());
        }
    }

    lane("lane, no signatures", &rows, None)?;
    for kind in ["ed25519", "p256", "secp256k1"] {
        // ECDSA takes its time.
        let rows = if kind == "ed25519" { &rows[..] } else { &rows[..rows.len().min(20 * DEVICES)] };
        let keys: Vec<SigningKey> = (0..DEVICES).map(|d| key(kind, d)).collect::<Result<_, _>>()?;
        let set = |keys: &[SigningKey]| {
            let span = |k: &SigningKey| KeySpan { from_seq: 0, until_seq: u64::MAX, key: k.public() };
            let devices = hashes.iter().zip(keys).map(|(id, k)| DeviceKeys { id: *id, spans: vec![span(k)] });
            KeySet::new(&KeySet::name_of("readings"), domain, Naming::Name, devices.collect())
        };
        let set = set(&keys)?;
        let mut envelopes = Vec::with_capacity(rows.len());
        for (i, row) in rows.iter().enumerate() {
            let seq = (i / DEVICES) as u64;
            envelopes.push(sign_reading(&keys[row.device], &domain, &name(row.device), seq, &contents[i])?);
        }
        lane(&format!("lane, {kind}, a signature a reading"), rows, Some((&set, &envelopes)))?;
        for batch in [10, 60] {
            let mut envelopes = vec![Vec::new(); rows.len()];
            for (device, key) in keys.iter().enumerate() {
                let own: Vec<usize> = (device..rows.len()).step_by(DEVICES).collect();
                for (n, part) in own.chunks(batch).enumerate() {
                    let contents: Vec<Hash32> = part.iter().map(|i| contents[*i]).collect();
                    let signed = sign_batch(key, &domain, &name(device), (n * batch) as u64, &contents)?;
                    for (i, envelope) in part.iter().zip(signed) {
                        envelopes[*i] = envelope;
                    }
                }
            }
            lane(&format!("lane, {kind}, a signature for {batch} readings"), rows, Some((&set, &envelopes)))?;
        }
    }
    Ok(())
}
