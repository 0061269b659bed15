//! A witness of logs: it signs a log's head only if that extends the head it signed before (tlog-witness, tlog-cosignature,
//! <https://c2sp.org/tlog-witness>). Whoever sees heads with the signatures of the same witness sees one log, not two.
//!
//! What a request asks, what is answered and what must be remembered is decided here; who listens and keeps it is elsewhere.
//!
//! A cosignature is Ed25519 over `cosignature/v1\ntime <seconds>\n` and the checkpoint's text; its bytes are the time, eight
//! bytes, big-endian, and the signature. The key's algorithm byte is 4.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD as STANDARD;
use ed25519_dalek::{Signature as Ed25519, Signer as _, SigningKey, Verifier as _, VerifyingKey};
use signed_note::{Note, Signature};

use super::note::{TreeHead, parse_checkpoint_text, verify_note};
use super::{LogError, verify_consistency};
use crate::verdict::Hash32;

/// The algorithm byte of cosignature keys.
const COSIGNATURE: u8 = 4;

/// A proof has at most so many hashes.
const MOST_HASHES: usize = 63;

/// The body of an `add-checkpoint` request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AddCheckpoint {
    /// The size that the client thinks the witness signed last; 0 for none.
    pub old_size: u64,
    /// From there to the note's size.
    pub proof: Vec<Hash32>,
    /// The signed head.
    pub note: Vec<u8>,
}

impl AddCheckpoint {
    /// As it is posted.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = format!("old {}\n", self.old_size).into_bytes();
        for hash in &self.proof {
            out.extend_from_slice(STANDARD.encode(hash).as_bytes());
            out.push(b'\n');
        }
        out.push(b'\n');
        out.extend_from_slice(&self.note);
        out
    }

    /// Reads a body.
    ///
    /// # Errors
    /// When it is none, with what is wrong.
    pub fn from_bytes(body: &[u8]) -> Result<Self, String> {
        let mut rest = body;
        let mut line = || -> Result<&str, String> {
            let end = rest.iter().position(|b| *b == b'\n').ok_or("it ends before an empty line")?;
            let (line, after) = rest.split_at(end);
            rest = &after[1..];
            std::str::from_utf8(line).map_err(|_| "a line is not UTF-8".to_owned())
        };
        let first = line()?;
        let old_size = first.strip_prefix("old ").and_then(decimal).ok_or("it does not begin with `old <size>`")?;
        let mut proof = Vec::new();
        loop {
            let text = line()?;
            if text.is_empty() {
                break;
            }
            if proof.len() == MOST_HASHES {
                return Err(format!("its proof has more than {MOST_HASHES} hashes"));
            }
            proof.push(hash_of_base64(text).ok_or("a line of its proof is not a hash in base64")?);
        }
        Ok(Self { old_size, proof, note: rest.to_vec() })
    }
}

/// A number as the protocol writes it: decimal digits without leading zeros.
fn decimal(text: &str) -> Option<u64> {
    let plain = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    if plain { text.parse().ok() } else { None }
}

/// What a witness has signed of one log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Witnessed {
    /// Entries.
    pub size: u64,
    /// The root over them.
    pub root: Hash32,
}

/// What a witness does with a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Judgement {
    /// It remembers this, durably, and then signs the text.
    Cosign {
        /// What to remember.
        now: Witnessed,
        /// What to sign.
        text: Vec<u8>,
    },
    /// 400: it is no request.
    Malformed(String),
    /// 403: nobody it trusts has signed the head.
    Unsigned(String),
    /// 404: it does not know the log.
    UnknownLog(String),
    /// 409: it has signed another size, this one.
    Conflict(u64),
    /// 409, and somebody must be told: it has signed another root at the same size.
    Forked(Witnessed),
    /// 422: the proof does not show that the head extends the one before.
    Inconsistent,
}

/// Judges a request. `keys`: the verifier keys of the logs that are witnessed; `known`: what was signed of a log, by its origin.
pub fn judge(body: &[u8], keys: &[String], known: impl Fn(&str) -> Option<Witnessed>) -> Judgement {
    let request = match AddCheckpoint::from_bytes(body) {
        Ok(request) => request,
        Err(why) => return Judgement::Malformed(why),
    };
    let note = match Note::from_bytes(&request.note) {
        Ok(note) => note,
        Err(e) => return Judgement::Malformed(format!("its checkpoint is no signed note: {e}")),
    };
    let head = match parse_checkpoint_text(note.text()) {
        Ok(head) => head,
        Err(e) => return Judgement::Malformed(e.to_string()),
    };
    let origin = head.origin.as_str();
    let mut mine = keys.iter().filter(|k| k.split('+').next() == Some(origin)).peekable();
    if mine.peek().is_none() {
        return Judgement::UnknownLog(origin.to_owned());
    }
    let outcomes: Vec<_> = mine.map(|key| verify_note(&request.note, key)).collect();
    if !outcomes.iter().any(Result::is_ok) {
        let why = outcomes.into_iter().find_map(Result::err).map_or_else(String::new, |e| e.to_string());
        return Judgement::Unsigned(why);
    }
    if request.old_size > head.size {
        return Judgement::Malformed(format!("its old size {} is larger than its checkpoint", request.old_size));
    }
    let last = known(origin).unwrap_or(Witnessed { size: 0, root: super::EMPTY_ROOT });
    if request.old_size != last.size {
        return Judgement::Conflict(last.size);
    }
    if head.size == last.size {
        if head.root != last.root {
            return Judgement::Forked(last);
        }
        if !request.proof.is_empty() {
            return Judgement::Inconsistent;
        }
    } else if verify_consistency(last.size, head.size, &request.proof, &last.root, &head.root).is_err() {
        return Judgement::Inconsistent;
    }
    Judgement::Cosign { now: Witnessed { size: head.size, root: head.root }, text: note.text().to_vec() }
}

/// A witness's key.
pub struct Cosigner {
    name: String,
    id: u32,
    key: SigningKey,
}

impl std::fmt::Debug for Cosigner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Cosigner({}+{:08x}+…)", self.name, self.id)
    }
}

fn public(key: &VerifyingKey) -> Vec<u8> {
    let mut bytes = vec![COSIGNATURE];
    bytes.extend_from_slice(key.as_bytes());
    bytes
}

fn message(time: u64, text: &[u8]) -> Vec<u8> {
    let mut out = format!("cosignature/v1\ntime {time}\n").into_bytes();
    out.extend_from_slice(text);
    out
}

impl Cosigner {
    /// From the 32 bytes of an Ed25519 seed. The name is a schema-less URL by custom, such as `witness.example.com/w1`.
    ///
    /// # Errors
    /// When it cannot be a key's name.
    pub fn from_seed(name: &str, seed: &Hash32) -> Result<Self, LogError> {
        if !signed_note::is_key_name_valid(name) {
            let why = format!("{name:?} cannot name a key: it must not be empty nor have white space or '+'");
            return Err(LogError::Note(why));
        }
        let key = SigningKey::from_bytes(seed);
        Ok(Self { name: name.to_owned(), id: signed_note::key_id(name, &public(&key.verifying_key())), key })
    }

    /// The public side: `<name>+<id>+<key>`.
    pub fn verifier_key(&self) -> String {
        format!("{}+{:08x}+{}", self.name, self.id, STANDARD.encode(public(&self.key.verifying_key())))
    }

    /// The signature line of a checkpoint's text, at a time in seconds since the epoch.
    ///
    /// # Errors
    /// Never for a name that was taken.
    pub fn cosign(&self, text: &[u8], time: u64) -> Result<Vec<u8>, LogError> {
        let mut bytes = time.to_be_bytes().to_vec();
        bytes.extend_from_slice(&self.key.sign(&message(time, text)).to_bytes());
        let signature = Signature::new(self.name.clone(), self.id, bytes);
        signature.map(|s| s.to_bytes()).map_err(|e| LogError::Note(e.to_string()))
    }
}

/// When a witness signed a note's head, seconds since the epoch; `None` if it did not.
///
/// # Errors
/// When the key or the note is malformed, or the signature under that key is wrong.
pub fn cosigned(note: &[u8], witness_key: &str) -> Result<Option<(TreeHead, u64)>, LogError> {
    let refuse = |why: &str| LogError::Note(format!("{witness_key:?} {why}"));
    let malformed = || refuse("is no key of a witness: write <name>+<id>+<key>");
    let (name, rest) = witness_key.split_once('+').ok_or_else(malformed)?;
    let (id, key) = rest.split_once('+').ok_or_else(malformed)?;
    let id = u32::from_str_radix(id, 16).map_err(|_| malformed())?;
    let key = bytes_of_base64(key).ok_or_else(malformed)?;
    if signed_note::key_id(name, &key) != id {
        return Err(refuse("has an id that is not its key's"));
    }
    let key: [u8; 32] = match key.split_first() {
        Some((&COSIGNATURE, key)) => key.try_into().map_err(|_| malformed())?,
        _ => return Err(refuse("is no key for cosignatures (algorithm 4)")),
    };
    let key = VerifyingKey::from_bytes(&key).map_err(|_| malformed())?;
    let parsed = Note::from_bytes(note).map_err(|e| LogError::Note(e.to_string()))?;
    let head = parse_checkpoint_text(parsed.text())?;
    // The crate parses signatures and shows only those it verifies; the lines are read again here.
    let lines = note.get(parsed.text().len() + 1..).unwrap_or_default();
    for line in lines.split(|b| *b == b'\n').filter(|l| !l.is_empty()) {
        let signature = Signature::from_bytes(line).map_err(|e| LogError::Note(e.to_string()))?;
        if signature.name() != name || signature.id() != id {
            continue;
        }
        let wrong = || refuse("did not make the signature that stands under it");
        let (time, bytes) = signature.signature().split_first_chunk::<8>().ok_or_else(wrong)?;
        let time = u64::from_be_bytes(*time);
        let bytes = Ed25519::from_slice(bytes).map_err(|_| wrong())?;
        key.verify(&message(time, parsed.text()), &bytes).map_err(|_| wrong())?;
        return Ok(Some((head, time)));
    }
    Ok(None)
}

/// The one spelling of bytes in base64; `None` of any other.
fn bytes_of_base64(text: &str) -> Option<Vec<u8>> {
    STANDARD.decode(text).ok()
}

fn hash_of_base64(text: &str) -> Option<Hash32> {
    bytes_of_base64(text)?.try_into().ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::{
        EMPTY_ROOT, Lack, NoteSigner, PublishedLog, TreeAppender, checkpoint_text, consistency_proof, leaf_hash, root,
        tiles_between, verify_note,
    };
    use super::*;
    use crate::verdict::LogOrigin;

    struct Log {
        hashes: Vec<Hash32>,
        signer: NoteSigner,
        origin: LogOrigin,
    }

    impl Log {
        fn new(entries: u64, other_from: u64) -> Self {
            let (mut tree, mut stored) = (TreeAppender::new(), Vec::new());
            for n in 0..entries {
                tree.append(&Self::entry(n, n >= other_from), &mut stored);
            }
            let hashes = stored.chunks_exact(32).map(|h| h.try_into().unwrap()).collect();
            let origin = LogOrigin::new("pumps", 0);
            Self { hashes, signer: NoteSigner::from_seed(&origin, &[7; 32]).unwrap(), origin }
        }

        fn entry(n: u64, other: bool) -> Hash32 {
            let mut entry = [u8::from(other); 32];
            entry[..8].copy_from_slice(&n.to_be_bytes());
            entry
        }

        fn root(&self, size: u64) -> Hash32 {
            root(size, &self.hashes).unwrap()
        }

        fn note(&self, size: u64) -> Vec<u8> {
            self.signer.sign(&checkpoint_text(&self.origin, size, &self.root(size)).unwrap()).unwrap()
        }

        fn request(&self, old_size: u64, size: u64) -> Vec<u8> {
            let proof =
                if old_size <= size { consistency_proof(old_size, size, &self.hashes).unwrap() } else { Vec::new() };
            AddCheckpoint { old_size, proof, note: self.note(size) }.to_bytes()
        }

        fn keys(&self) -> Vec<String> {
            vec![self.signer.verifier_key()]
        }
    }

    fn at(log: &Log, size: u64) -> Option<Witnessed> {
        (size > 0).then(|| Witnessed { size, root: log.root(size) })
    }

    #[test]
    fn a_head_that_extends_the_last_is_cosigned() {
        let log = Log::new(300, u64::MAX);
        for (old, new) in [(0, 1), (0, 300), (1, 2), (7, 256), (256, 300), (300, 300)] {
            let judged = judge(&log.request(old, new), &log.keys(), |_| at(&log, old));
            let text = checkpoint_text(&log.origin, new, &log.root(new)).unwrap();
            assert_eq!(
                judged,
                Judgement::Cosign { now: Witnessed { size: new, root: log.root(new) }, text },
                "{old} to {new}"
            );
        }
    }

    #[test]
    fn what_does_not_extend_it_is_refused_as_the_protocol_says() {
        let log = Log::new(300, u64::MAX);
        let fork = Log::new(300, 120);
        let keys = log.keys();
        assert_eq!(judge(&log.request(7, 300), &keys, |_| at(&log, 8)), Judgement::Conflict(8));
        assert_eq!(judge(&log.request(0, 300), &keys, |_| at(&log, 300)), Judgement::Conflict(300));
        // Another log under the same name and key, from entry 120 on.
        assert_eq!(judge(&fork.request(200, 300), &keys, |_| at(&log, 200)), Judgement::Inconsistent);
        assert_eq!(judge(&fork.request(300, 300), &keys, |_| at(&log, 300)), Judgement::Forked(at(&log, 300).unwrap()));
        assert!(matches!(judge(&fork.request(100, 300), &keys, |_| at(&log, 100)), Judgement::Cosign { .. }));
        assert!(matches!(judge(&log.request(200, 100), &keys, |_| at(&log, 200)), Judgement::Malformed(_)));
        let other = LogOrigin::new("other", 0);
        let stranger = vec![NoteSigner::from_seed(&other, &[7; 32]).unwrap().verifier_key()];
        assert_eq!(
            judge(&log.request(0, 9), &stranger, |_| None),
            Judgement::UnknownLog(log.origin.as_str().to_owned())
        );
        let wrong = vec![NoteSigner::from_seed(&log.origin, &[8; 32]).unwrap().verifier_key()];
        assert!(matches!(judge(&log.request(0, 9), &wrong, |_| None), Judgement::Unsigned(_)));
        let padded = AddCheckpoint { old_size: 0, proof: vec![[1; 32]], note: log.note(9) }.to_bytes();
        assert_eq!(judge(&padded, &keys, |_| None), Judgement::Inconsistent);
    }

    #[test]
    fn bodies_that_are_none_are_refused_and_none_panics() {
        let log = Log::new(300, u64::MAX);
        let body = log.request(7, 300);
        assert_eq!(AddCheckpoint::from_bytes(&body).unwrap().to_bytes(), body);
        for cut in 0..body.len() {
            let _ = judge(&body[..cut], &log.keys(), |_| None);
        }
        for i in 0..body.len() {
            for flip in [1, 0x20, 0x80] {
                let mut other = body.clone();
                other[i] ^= flip;
                assert!(!matches!(judge(&other, &log.keys(), |_| at(&log, 7)), Judgement::Cosign { .. }), "byte {i}");
            }
        }
        for wrong in ["", "old 07\n\n", "old -1\n\n", "old 1\nAAAA\n\n", "old 18446744073709551616\n\n"] {
            assert!(matches!(judge(wrong.as_bytes(), &log.keys(), |_| None), Judgement::Malformed(_)), "{wrong:?}");
        }
    }

    #[test]
    fn a_cosignature_is_read_back_and_no_other_is() {
        let log = Log::new(9, u64::MAX);
        let witness = Cosigner::from_seed("witness.example/w1", &[3; 32]).unwrap();
        let key = witness.verifier_key();
        let mut note = log.note(9);
        assert_eq!(cosigned(&note, &key).unwrap(), None);
        let text = checkpoint_text(&log.origin, 9, &log.root(9)).unwrap();
        note.extend(witness.cosign(&text, 1_767_225_600).unwrap());
        let (head, time) = cosigned(&note, &key).unwrap().unwrap();
        assert_eq!((head.size, head.root, time), (9, log.root(9), 1_767_225_600));
        // The log's own signature still counts.
        assert_eq!(verify_note(&note, &log.signer.verifier_key()).unwrap().size, 9);
        let mut of_another = log.note(9);
        of_another.extend(witness.cosign(b"another text\n", 1).unwrap());
        assert!(cosigned(&of_another, &key).is_err());
        for wrong in ["", "a+b", "a+00000000+AAAA", &log.signer.verifier_key()] {
            assert!(cosigned(&note, wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn base64_has_one_spelling() {
        for wrong in ["Zh==", "Zg=", "Zg", "Zm9", "Z", "Zm9v=", "Zm 9"] {
            assert_eq!(bytes_of_base64(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn tiles_answer_what_the_head_vouches_for() {
        let log = Log::new(70_000, u64::MAX);
        let tiles: std::collections::BTreeMap<_, _> =
            tiles_between(0, 70_000).into_iter().map(|t| (t, t.read(&log.hashes).unwrap())).collect();
        let head = TreeHead { origin: log.origin.clone(), size: 70_000, root: log.root(70_000) };
        let fetch = |question: &dyn Fn(&PublishedLog) -> Result<(), Lack>, published: &mut PublishedLog| loop {
            match question(published) {
                Err(Lack::Tiles(lacks)) => {
                    lacks.into_iter().for_each(|t| published.insert(t, tiles[&t].clone()).unwrap())
                }
                other => break other,
            }
        };
        let mut published = PublishedLog::new(head.clone());
        for size in [0, 1, 255, 256, 257, 65_536, 69_999, 70_000] {
            let asks = |p: &PublishedLog| {
                assert_eq!(p.root(size)?, log.root(size));
                let proof = p.consistency(size)?;
                let old = if size == 0 { EMPTY_ROOT } else { log.root(size) };
                verify_consistency(size, 70_000, &proof, &old, &head.root).unwrap();
                Ok(())
            };
            fetch(&asks, &mut published).unwrap();
        }
        let leaf = |p: &PublishedLog| p.leaf(12_345).map(|l| assert_eq!(l, leaf_hash(&Log::entry(12_345, false))));
        fetch(&leaf, &mut published).unwrap();
        assert!(matches!(published.root(70_001), Err(Lack::Log(LogError::NoSuchProof(_)))));
        // A tile of another log, and one that is cut short.
        let other = Log::new(70_000, 100);
        let mut forged = PublishedLog::new(head);
        let asks = |p: &PublishedLog| p.root(257).map(drop);
        let outcome = loop {
            match asks(&forged) {
                Err(Lack::Tiles(lacks)) => {
                    lacks.into_iter().for_each(|t| forged.insert(t, t.read(&other.hashes).unwrap()).unwrap());
                }
                other => break other,
            }
        };
        assert!(matches!(outcome, Err(Lack::Log(LogError::Read(_)))));
        let first = tiles_between(0, 70_000)[0];
        assert!(forged.insert(first, vec![0; 31 * 32]).is_err());
        assert_eq!(first.filled(), first);
    }
}
