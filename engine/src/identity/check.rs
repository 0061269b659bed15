//! The lane's part: which records of a run are signed as they must be, and by the device's counter, for the first time.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::columns::{self, Cell};
use super::envelope::{Envelope, unhex};
use super::keys::{KeyAt, KeySet, Naming};
use super::statement::{Statement, device_hash, leaf, root_of};
use super::verify::{Signature, verify_all};
use super::{DeviceKey, SignatureIn, refuse};
use crate::codec::{CodecError, MOST_COUNTED, Reader, Writer};
use crate::dead_letter::DeadReason;
use crate::decode::{RawRecord, RowDecoder, RowError, Slot};
use crate::sha256::Messages;
use crate::spec::FieldSpec;
use crate::verdict::{Hash32, Secret};

/// How many verified batches are remembered, so that each costs one signature however many readings it has. What is
/// remembered changes no answer.
const BATCHES_REMEMBERED: usize = 4_096;

/// What became of a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Checked {
    /// No device can be read from it: it dies for that.
    Undecoded,
    /// It is not signed as it must be.
    Refused(RowError),
    /// It is signed, as its device's reading of this number.
    Signed(u64),
}

/// A device that the keys name, or that has been counted.
#[derive(Debug)]
struct Known {
    id: Hash32,
    hash: Hash32,
    /// Its place in the keys.
    place: Option<usize>,
    /// The highest number accepted.
    last: Option<u64>,
}

/// Checks signatures and counters of one lane.
#[derive(Debug)]
pub struct Checker {
    /// The signature's field; `None` where it stands in a header.
    field: Option<usize>,
    /// The signed fields, by name, where the signature is one.
    signed: Vec<usize>,
    secret: Secret,
    keys: Option<Arc<KeySet>>,
    known: HashMap<Box<[u8]>, Known, ahash::RandomState>,
    skipped: u64,
    batches: HashSet<Hash32, ahash::RandomState>,
    /// Of the records of the present run.
    checked: Vec<Checked>,
}

/// A record whose signature is to be judged.
struct Pending {
    record: usize,
    /// Its envelope, among all of them.
    start: usize,
    end: usize,
    device: Hash32,
    place: usize,
}

fn random_state() -> ahash::RandomState {
    ahash::RandomState::with_seeds(1, 2, 3, 4)
}

impl Checker {
    /// For readings of these fields. `None` where the signature's field is none of them (planning checks that).
    pub fn new(signature: &SignatureIn, fields: &[FieldSpec], secret: Secret) -> Option<Self> {
        let field = match signature {
            SignatureIn::Header => None,
            SignatureIn::Field(name) => Some(fields.iter().position(|f| f.name == *name)?),
        };
        let mut signed: Vec<usize> = (0..fields.len()).filter(|i| Some(*i) != field).collect();
        signed.sort_by_key(|i| fields[*i].name.as_bytes());
        Some(Self {
            field,
            signed,
            secret,
            keys: None,
            known: HashMap::with_hasher(random_state()),
            skipped: 0,
            batches: HashSet::with_hasher(random_state()),
            checked: Vec::new(),
        })
    }

    /// The keys in use.
    pub fn keys(&self) -> Option<&Arc<KeySet>> {
        self.keys.as_ref()
    }

    /// From here on these keys speak for the devices. Counters stay.
    pub fn take_keys(&mut self, keys: Arc<KeySet>) {
        for (name, known) in &mut self.known {
            known.id = id_of(&self.secret, keys.naming(), name).unwrap_or(known.id);
            known.place = keys.find(&known.id);
        }
        self.known.retain(|_, known| known.place.is_some() || known.last.is_some());
        self.keys = Some(keys);
    }

    /// How many numbers devices have passed over between accepted readings: readings that were lost, refused, or never sent.
    pub fn skipped(&self) -> u64 {
        self.skipped
    }

    /// Judges the signatures of records in offset order, all together. [`Checker::admit`] then counts them one by one.
    pub(crate) fn run<D: RowDecoder>(
        &mut self,
        decoder: &mut D,
        records: &[RawRecord<'_>],
        key: usize,
        fields: &[FieldSpec],
        max_record_bytes: usize,
    ) {
        self.checked.clear();
        let Some(keys) = self.keys.clone() else {
            let why = || Checked::Refused(refuse(DeadReason::UnknownDevice, "there are no keys"));
            self.checked.resize_with(records.len(), why);
            return;
        };
        let mut envelopes = Vec::new();
        let mut contents = Messages::default();
        let mut pending: Vec<Pending> = Vec::with_capacity(records.len());
        for (at, record) in records.iter().enumerate() {
            let decoded = crate::ingest::payload(record.value, max_record_bytes)
                .and_then(|payload| decoder.decode(payload).map(|()| payload));
            let checked = match decoded {
                Err(_) => Checked::Undecoded,
                Ok(payload) => match decoder.text(payload, decoder.slots()[key]) {
                    [] => Checked::Undecoded,
                    device => match self.read(decoder, record, payload, device, &keys, &mut envelopes) {
                        Err(e) => Checked::Refused(e),
                        Ok((mut one, seq)) => {
                            one.record = at;
                            self.content(decoder, payload, fields, &mut contents);
                            pending.push(one);
                            Checked::Signed(seq)
                        }
                    },
                },
            };
            self.checked.push(checked);
        }
        self.judge(&keys, &pending, &envelopes, &contents.digests());
    }

    /// What can be said of a record before its signature is looked at.
    fn read<D: RowDecoder>(
        &mut self,
        decoder: &D,
        record: &RawRecord<'_>,
        payload: &[u8],
        device: &[u8],
        keys: &KeySet,
        envelopes: &mut Vec<u8>,
    ) -> Result<(Pending, u64), RowError> {
        let forged = |e: super::EnvelopeError| refuse(DeadReason::Forged, e.to_string());
        let start = envelopes.len();
        match self.field {
            None => match record.signature {
                None => return Err(refuse(DeadReason::Unsigned, "the record has no signature in its header")),
                Some(bytes) => envelopes.extend_from_slice(bytes),
            },
            Some(field) => match decoder.slots()[field] {
                slot @ (Slot::Text { .. } | Slot::Unescaped { .. }) => {
                    let mut bytes = Vec::new();
                    unhex(decoder.text(payload, slot), &mut bytes).map_err(forged)?;
                    envelopes.append(&mut bytes);
                }
                _ => return Err(refuse(DeadReason::Unsigned, "the reading has no signature in its field")),
            },
        }
        let found = Envelope::parse(&envelopes[start..]).map(|e| e.seq);
        let (seq, (place, hash)) = match found.map_err(forged).and_then(|seq| Ok((seq, self.find(device, keys)?))) {
            Ok(found) => found,
            Err(e) => {
                envelopes.truncate(start);
                return Err(e);
            }
        };
        let refused = match keys.key_at(place, seq) {
            KeyAt::Key(_) => {
                let one = Pending { record: 0, start, end: envelopes.len(), device: hash, place };
                return Ok((one, seq));
            }
            KeyAt::NotYet(from) => refuse(
                DeadReason::KeyNotValid,
                format!("reading {seq}: the device's first key speaks for its readings from {from} on"),
            ),
            KeyAt::Revoked(until) => refuse(
                DeadReason::Revoked,
                format!("reading {seq}: no key speaks for the device's readings from {until} on"),
            ),
        };
        envelopes.truncate(start);
        Err(refused)
    }

    /// A device's place in the keys, and the hash of its name.
    fn find(&mut self, device: &[u8], keys: &KeySet) -> Result<(usize, Hash32), RowError> {
        let unknown = || {
            let name = String::from_utf8_lossy(&device[..device.len().min(40)]).escape_debug().to_string();
            refuse(DeadReason::UnknownDevice, format!("no key was ever enrolled for the device \"{name}\""))
        };
        if let Some(known) = self.known.get(device) {
            return known.place.map(|p| (p, known.hash)).ok_or_else(unknown);
        }
        let id = id_of(&self.secret, keys.naming(), device).ok_or_else(unknown)?;
        // Only devices that the keys name are remembered: strangers may be as many as they like.
        let place = keys.find(&id).ok_or_else(unknown)?;
        let hash = device_hash(device);
        self.known.insert(device.into(), Known { id, hash, place: Some(place), last: None });
        Ok((place, hash))
    }

    /// Appends what the content is the hash of.
    fn content<D: RowDecoder>(&self, decoder: &D, payload: &[u8], fields: &[FieldSpec], out: &mut Messages) {
        if self.field.is_none() {
            out.bytes.push(0);
            out.bytes.extend_from_slice(payload);
        } else {
            columns::write(cells(decoder, payload, &self.signed, fields), &mut out.bytes);
        }
        out.end();
    }

    /// Judges the signatures; those that are not valid are refused.
    fn judge(&mut self, keys: &KeySet, pending: &[Pending], envelopes: &[u8], contents: &[Hash32]) {
        /// Where the answer is found.
        enum Answer {
            Known,
            Of(usize),
        }
        struct Asked<'a> {
            key: &'a DeviceKey,
            statement: Statement,
            signature: &'a [u8],
            batch: Option<Hash32>,
        }
        let mut asked: Vec<Asked<'_>> = Vec::with_capacity(pending.len());
        let mut answers = Vec::with_capacity(pending.len());
        let mut batches: HashMap<Hash32, usize, ahash::RandomState> = HashMap::with_hasher(random_state());
        for (one, content) in pending.iter().zip(contents) {
            // Both were so when the record was read.
            let Ok(envelope) = Envelope::parse(&envelopes[one.start..one.end]) else { continue };
            let KeyAt::Key(key) = keys.key_at(one.place, envelope.seq) else { continue };
            let (statement, batch) = match &envelope.member {
                None => (Statement::reading(keys.domain(), &one.device, envelope.seq, content), None),
                Some(m) => {
                    let root = root_of(leaf(envelope.seq, content), m.index, m.count, m.path());
                    let statement = Statement::batch(keys.domain(), &one.device, m.first, &root, m.count);
                    let id = batch_id(key, &statement, envelope.signature);
                    (statement, Some(id))
                }
            };
            if let Some(id) = &batch {
                if self.batches.contains(id) {
                    answers.push(Answer::Known);
                    continue;
                }
                if let Some(&at) = batches.get(id) {
                    answers.push(Answer::Of(at));
                    continue;
                }
                batches.insert(*id, asked.len());
            }
            answers.push(Answer::Of(asked.len()));
            asked.push(Asked { key, statement, signature: envelope.signature, batch });
        }
        let signatures: Vec<Signature<'_>> =
            asked.iter().map(|a| Signature { key: a.key, statement: &a.statement, signature: a.signature }).collect();
        let valid = verify_all(&signatures);
        for (a, _) in asked.iter().zip(&valid).filter(|(_, valid)| **valid) {
            if let Some(id) = a.batch {
                if self.batches.len() >= BATCHES_REMEMBERED {
                    self.batches.clear();
                }
                self.batches.insert(id);
            }
        }
        for (one, answer) in pending.iter().zip(&answers) {
            if let Answer::Of(at) = answer
                && !valid[*at]
            {
                let kind = match asked[*at].key {
                    DeviceKey::Other(_) => "is of a kind that is not verified here".to_owned(),
                    key => format!("({}) did not make this signature of this reading", key.kind()),
                };
                let why = format!("the device's key {kind}");
                self.checked[one.record] = Checked::Refused(refuse(DeadReason::Forged, why));
            }
        }
    }

    /// What was found of record `at` of the run, and whether it is its first.
    pub(crate) fn admit(&mut self, at: usize, device: &[u8]) -> Result<(), RowError> {
        let seq = match self.checked.get(at) {
            Some(Checked::Signed(seq)) => *seq,
            Some(Checked::Refused(e)) => return Err(e.clone()),
            // Invariant: what decodes here has decoded there.
            Some(Checked::Undecoded) | None => {
                return Err(refuse(DeadReason::Unsigned, "the record was not looked at"));
            }
        };
        let Some(known) = self.known.get_mut(device) else {
            return Err(refuse(DeadReason::UnknownDevice, "the device is not known"));
        };
        match known.last {
            Some(last) if seq <= last => Err(refuse(
                DeadReason::Replayed,
                format!("reading {seq} of the device comes after its reading {last} was accepted"),
            )),
            last => {
                let passed = last.map_or(0, |last| seq - last - 1);
                self.skipped = self.skipped.saturating_add(passed).min(MOST_COUNTED);
                known.last = Some(seq);
                Ok(())
            }
        }
    }

    /// How many devices were counted.
    pub fn counted(&self) -> usize {
        self.known.values().filter(|k| k.last.is_some()).count()
    }

    /// Writes the counters into a snapshot. Keys are not part of it.
    pub fn snapshot(&self, w: &mut Writer) {
        w.u64(self.skipped);
        let mut counted: Vec<_> = self.known.iter().filter_map(|(name, k)| Some((name, k.last?))).collect();
        counted.sort_unstable();
        w.u32(counted.len() as u32);
        for (name, last) in counted {
            w.bytes(name);
            w.u64(last);
        }
    }

    /// Reads what [`Checker::snapshot`] wrote; into nothing, where the readings need no signature any more.
    pub fn restore(to: Option<&mut Self>, r: &mut Reader<'_>) -> Result<(), CodecError> {
        let skipped = r.counted()?;
        let n = r.count(13)?;
        let mut known = HashMap::with_hasher(random_state());
        let mut before: &[u8] = &[];
        for _ in 0..n {
            let name = r.bytes()?;
            if name <= before {
                return Err(r.invalid("counted devices out of order"));
            }
            before = name;
            let last = r.u64()?;
            let entry = Known { id: [0; 32], hash: device_hash(name), place: None, last: Some(last) };
            known.insert(name.into(), entry);
        }
        if let Some(checker) = to {
            (checker.skipped, checker.known) = (skipped, known);
            if let Some(keys) = checker.keys.take() {
                checker.take_keys(keys);
            }
        }
        Ok(())
    }
}

/// The values of these fields of the row decoded last.
pub(super) fn cells<'a, D: RowDecoder>(
    decoder: &'a D,
    payload: &'a [u8],
    which: &'a [usize],
    fields: &'a [FieldSpec],
) -> impl Iterator<Item = (&'a str, Cell<'a>)> {
    let slots = decoder.slots();
    which.iter().map(move |&i| {
        let cell = match slots[i] {
            Slot::Missing | Slot::Null => Cell::Null,
            Slot::Bool(v) => Cell::Bool(v),
            Slot::I64(v) | Slot::Timestamp(v) => Cell::I64(v),
            Slot::F64(v) => Cell::F64(v),
            slot => Cell::Text(decoder.text(payload, slot)),
        };
        (fields[i].name.as_str(), cell)
    })
}

fn id_of(secret: &Secret, naming: Naming, device: &[u8]) -> Option<Hash32> {
    match naming {
        Naming::Name => Some(device_hash(device)),
        Naming::Pseudonym => std::str::from_utf8(device).ok().map(|name| secret.device_id(name)),
    }
}

fn batch_id(key: &DeviceKey, statement: &Statement, signature: &[u8]) -> Hash32 {
    let mut hash = Sha256::new();
    hash.update(key.kind());
    hash.update([0]);
    match key {
        DeviceKey::Ed25519(k) => hash.update(k.as_bytes()),
        DeviceKey::P256(k) => hash.update(k.as_bytes()),
        DeviceKey::Account(a) => hash.update(a),
        DeviceKey::Other(b) => hash.update(b),
    }
    hash.update(statement.as_bytes());
    hash.update(signature);
    hash.finalize().into()
}
