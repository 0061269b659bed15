//! The checkpoint as transparency logs publish it: a tlog-checkpoint text in a signed note (Ed25519).
//!
//! This is beside the EIP-712 checkpoint that goes on chain; both state the same size and root. The text is the
//! origin, the size in decimal and the root in base64, a line each.

use ed25519_dalek::{Signer as _, SigningKey};
use signed_note::{Note, StandardVerifier, VerifierList};
use tlog_tiles::{Checkpoint, Hash};

use super::LogError;
use crate::verdict::{Hash32, LogOrigin};

/// What a checkpoint text says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TreeHead {
    /// The log.
    pub origin: LogOrigin,
    /// How many entries it has.
    pub size: u64,
    /// Its root.
    pub root: Hash32,
}

/// The tlog-checkpoint text of a log.
///
/// # Errors
/// When the origin is empty or holds a control character, which would break the text's lines.
pub fn checkpoint_text(origin: &LogOrigin, size: u64, root: &Hash32) -> Result<Vec<u8>, LogError> {
    let name = origin.as_str();
    if name.is_empty() || name.chars().any(char::is_control) {
        return Err(LogError::Note(format!("{name:?} cannot be an origin: it is empty or has a control character")));
    }
    let checkpoint = Checkpoint::new(name, size, Hash(*root), "").map_err(|e| LogError::Note(e.to_string()))?;
    Ok(checkpoint.to_bytes())
}

/// Reads what [`checkpoint_text`] wrote. Extension lines are allowed and ignored.
///
/// # Errors
/// When it is not a tlog-checkpoint text.
pub fn parse_checkpoint_text(text: &[u8]) -> Result<TreeHead, LogError> {
    let head = Checkpoint::from_bytes(text).map_err(|_| {
        LogError::Note("this is not a checkpoint text (origin, size and base64 root, a line each)".into())
    })?;
    Ok(TreeHead { origin: LogOrigin::from_text(head.origin()), size: head.size(), root: head.hash().0 })
}

/// Reads the head out of a signed note without looking at its signatures.
///
/// # Errors
/// When it is not a signed note of a checkpoint text.
pub fn read_note_unverified(note: &[u8]) -> Result<TreeHead, LogError> {
    let note = Note::from_bytes(note).map_err(|e| LogError::Note(e.to_string()))?;
    parse_checkpoint_text(note.text())
}

/// Checks that a signed note carries a good signature by `verifier_key` (`<name>+<id>+<key>`, as
/// [`NoteSigner::verifier_key`] gives it) and that its origin is that key's name.
///
/// # Errors
/// When the note or key is malformed, the signature is missing or wrong, or the origin is another log's.
pub fn verify_note(note: &[u8], verifier_key: &str) -> Result<TreeHead, LogError> {
    let refuse = |e: &dyn std::fmt::Display| LogError::Note(e.to_string());
    let verifier = StandardVerifier::new(verifier_key).map_err(|e| refuse(&e))?;
    let name = signed_note::Verifier::name(&verifier).to_owned();
    let note = Note::from_bytes(note).map_err(|e| refuse(&e))?;
    note.verify(&VerifierList::new(vec![Box::new(verifier)])).map_err(|e| refuse(&e))?;
    let head = parse_checkpoint_text(note.text())?;
    if head.origin.as_str() != name {
        return Err(LogError::Note(format!("it is signed by {name} but is a checkpoint of {}", head.origin.as_str())));
    }
    Ok(head)
}

/// Signs checkpoint notes of one log with Ed25519. The same key and text give the same note.
#[derive(Clone)]
pub struct NoteSigner {
    name: String,
    id: u32,
    key: SigningKey,
}

impl std::fmt::Debug for NoteSigner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "NoteSigner({}+{:08x}+…)", self.name, self.id)
    }
}

impl NoteSigner {
    /// From the 32 bytes of an Ed25519 seed; the key's name is the log's origin, as tlog-checkpoint recommends.
    ///
    /// # Errors
    /// When the origin cannot be a key name: it is empty, or has white space or a plus sign.
    pub fn from_seed(origin: &LogOrigin, seed: &Hash32) -> Result<Self, LogError> {
        let name = origin.as_str();
        if !signed_note::is_key_name_valid(name) {
            return Err(LogError::Note(format!(
                "{name:?} cannot name a signing key: it must not be empty nor have white space or '+'; rename the pipeline"
            )));
        }
        let key = SigningKey::from_bytes(seed);
        let mut public = vec![1u8]; // the signature type of Ed25519
        public.extend_from_slice(key.verifying_key().as_bytes());
        Ok(Self { name: name.to_owned(), id: signed_note::key_id(name, &public), key })
    }

    /// The public side, to be given to monitors and witnesses.
    pub fn verifier_key(&self) -> String {
        signed_note::new_ed25519_verifier_key(&self.name, &self.key.verifying_key())
    }

    /// The signed note of a checkpoint text.
    ///
    /// # Errors
    /// When the text cannot stand in a note.
    pub fn sign(&self, text: &[u8]) -> Result<Vec<u8>, LogError> {
        let mut note = Note::new(text, &[]).map_err(|e| LogError::Note(e.to_string()))?;
        note.add_sigs(&[self]).map_err(|e| LogError::Note(e.to_string()))?;
        Ok(note.to_bytes())
    }
}

impl signed_note::Signer for NoteSigner {
    fn name(&self) -> &str {
        &self.name
    }
    fn key_id(&self) -> u32 {
        self.id
    }
    fn sign(&self, msg: &[u8]) -> Result<Vec<u8>, ed25519_dalek::SignatureError> {
        Ok(self.key.try_sign(msg)?.to_bytes().to_vec())
    }
}
