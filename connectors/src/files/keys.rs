//! Keys of devices from a file, for fleets without a registry on chain.

use std::path::Path;
use std::sync::Arc;

use avouch_engine::identity::{DeviceKey, DeviceKeys, KeySet, KeySpan, Naming, device_hash, file_domain};
use serde::{Deserialize, Serialize};

use super::FilesError;

/// A file of keys, as it is written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyFile {
    /// The fleet's name, which every signature covers.
    pub fleet: String,
    /// Its devices.
    #[serde(default)]
    pub devices: Vec<DeviceRow>,
}

/// A device in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeviceRow {
    /// Its name, as its readings have it.
    pub device: String,
    /// Its keys, in the order in which they follow each other.
    pub keys: Vec<KeyRow>,
}

/// A key of a device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyRow {
    /// `ed25519`, `p256` or `secp256k1`.
    pub kind: String,
    /// Hexadecimal: 32 bytes of Ed25519, 64 of P-256 (x and y), 20 of secp256k1 (the account).
    pub key: String,
    /// The first number it speaks for.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub from_seq: u64,
    /// The first number it does not speak for any more; if absent, where the next key begins, or none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until_seq: Option<u64>,
}

fn is_zero(n: &u64) -> bool {
    *n == 0
}

impl KeyFile {
    /// Reads a file as it is written.
    ///
    /// # Errors
    /// [`FilesError`], at the line where it is not what it must be.
    pub fn read(path: &Path) -> Result<Self, FilesError> {
        Self::parse(path).map(|(file, _)| file)
    }

    fn parse(path: &Path) -> Result<(Self, String), FilesError> {
        let io = |source| FilesError::Io { path: path.to_path_buf(), source };
        let text = std::fs::read_to_string(path).map_err(io)?;
        match serde_json::from_str::<Self>(&text) {
            Ok(file) => Ok((file, text)),
            Err(e) => {
                let why = e.to_string();
                let why = why.rsplit_once(" at line ").map_or(why.as_str(), |(why, _)| why).to_owned();
                Err(FilesError::Row { path: path.to_path_buf(), line: e.line().max(1) as u64, why })
            }
        }
    }
}

/// Reads the keys of a file. `name`: [`KeySet::name_of`] the source.
///
/// # Errors
/// [`FilesError`], at the line of the device whose keys are wrong.
pub fn read_keys(path: &Path, name: &str) -> Result<Arc<KeySet>, FilesError> {
    let (file, text) = KeyFile::parse(path)?;
    let fail = |device: &str, nth: usize, why: String| {
        let quoted = serde_json::Value::from(device).to_string();
        let at = text.match_indices(&quoted).nth(nth).map_or(0, |(at, _)| at);
        let line = text[..at].bytes().filter(|b| *b == b'\n').count() as u64 + 1;
        FilesError::Row { path: path.to_path_buf(), line, why: format!("device {quoted}: {why}") }
    };
    if file.fleet.is_empty() {
        return Err(FilesError::Row {
            path: path.to_path_buf(),
            line: 1,
            why: "`fleet` is empty; name the fleet".into(),
        });
    }
    let domain = file_domain(&file.fleet);
    let mut devices: Vec<DeviceKeys> = Vec::with_capacity(file.devices.len());
    let mut names = std::collections::BTreeSet::new();
    for row in &file.devices {
        if !names.insert(&row.device) {
            return Err(fail(&row.device, 1, "it stands twice; keep all its keys in one place".into()));
        }
        let mut spans = Vec::with_capacity(row.keys.len());
        for (i, key) in row.keys.iter().enumerate() {
            let bytes = unhex(&key.key)
                .ok_or_else(|| fail(&row.device, 0, format!("`{}` is not hexadecimal", key.key.escape_debug())))?;
            let parsed = DeviceKey::new(&key.kind, &bytes).map_err(|e| fail(&row.device, 0, e.to_string()))?;
            let next = row.keys.get(i + 1).map_or(u64::MAX, |k| k.from_seq);
            spans.push(KeySpan { from_seq: key.from_seq, until_seq: key.until_seq.unwrap_or(next), key: parsed });
        }
        let one = DeviceKeys { id: device_hash(row.device.as_bytes()), spans };
        // Alone first, so that what is wrong has a line.
        KeySet::new(name, domain, Naming::Name, vec![one.clone()]).map_err(|e| {
            let id = avouch_engine::identity::hex(&one.id);
            fail(&row.device, 0, e.to_string().replace(&format!("the device {id}"), "it"))
        })?;
        devices.push(one);
    }
    KeySet::new(name, domain, Naming::Name, devices).map_err(|e| FilesError::Row {
        path: path.to_path_buf(),
        line: 1,
        why: e.to_string(),
    })
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits = text.strip_prefix("0x").unwrap_or(text).as_bytes();
    let (pairs, rest) = digits.as_chunks::<2>();
    let digit = |c: u8| char::from(c).to_digit(16);
    let byte = |[high, low]: &[u8; 2]| u8::try_from(digit(*high)? * 16 + digit(*low)?).ok();
    rest.is_empty().then(|| pairs.iter().map(byte).collect())?
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use avouch_engine::identity::KeyAt;

    use super::*;

    fn read(text: &str) -> Result<Arc<KeySet>, String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("devices.json");
        std::fs::write(&path, text).unwrap();
        let shown = path.display().to_string();
        read_keys(&path, "s.identity").map_err(|e| e.to_string().replace(&shown, "devices.json"))
    }

    const KEY: &str = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a";

    #[test]
    fn keys_follow_each_other_and_the_order_of_devices_does_not_matter() {
        let a = format!(
            r#"{{ "device": "a", "keys": [{{ "kind": "ed25519", "key": "{KEY}" }},
            {{ "kind": "secp256k1", "key": "0x{}", "from_seq": 10, "until_seq": 20 }}] }}"#,
            "11".repeat(20)
        );
        let b = format!(r#"{{ "device": "b", "keys": [{{ "kind": "ed25519", "key": "{KEY}", "from_seq": 3 }}] }}"#);
        let one = read(&format!(r#"{{ "fleet": "works", "devices": [{a}, {b}] }}"#)).unwrap();
        let two = read(&format!(r#"{{ "fleet": "works", "devices": [{b}, {a}] }}"#)).unwrap();
        assert_eq!(one.version(), two.version());
        let at = one.find(&device_hash(b"a")).unwrap();
        assert!(matches!(one.key_at(at, 9), KeyAt::Key(DeviceKey::Ed25519(_))));
        assert!(matches!(one.key_at(at, 10), KeyAt::Key(DeviceKey::Account(_))));
        assert_eq!(one.key_at(at, 20), KeyAt::Revoked(20));
        assert_ne!(
            read(&format!(r#"{{ "fleet": "works2", "devices": [{a}, {b}] }}"#)).unwrap().version(),
            one.version()
        );
    }

    #[test]
    fn what_is_wrong_is_said_with_its_line() {
        let key = format!(r#"{{ "kind": "ed25519", "key": "{KEY}" }}"#);
        let file =
            |devices: &str| read(&format!("{{ \"fleet\": \"works\",\n\"devices\": [\n{devices}] }}")).unwrap_err();
        let device = |name: &str, keys: &str| format!("{{ \"device\": \"{name}\", \"keys\": [{keys}] }}");
        let said = [
            file(&device("a", "")),
            file(&device("a", r#"{ "kind": "rsa", "key": "00" }"#)),
            file(&device("a", r#"{ "kind": "ed25519", "key": "00" }"#)),
            file(&device("a", r#"{ "kind": "ed25519", "key": "zz" }"#)),
            file(&device("a", &format!(r#"{{ "kind": "p256", "key": "{}" }}"#, "01".repeat(64)))),
            file(&device("a", &format!("{key}, {key}"))),
            file(&format!("{},\n{}", device("a", &key), device("a", &key))),
            file(r#"{ "device": "a", "key": [] }"#),
            read(r#"{ "fleet": "", "devices": [] }"#).unwrap_err(),
        ];
        let expected = [
            "devices.json:3: device \"a\": it has no key",
            "devices.json:3: device \"a\": a key \"rsa\" of 1 bytes is of no kind known here: ed25519, p256, secp256k1",
            "devices.json:3: device \"a\": a key \"ed25519\" of 1 bytes has another length than such keys: ed25519 32, p256 64, \
             secp256k1 20 (its account)",
            "devices.json:3: device \"a\": `zz` is not hexadecimal",
            "devices.json:3: device \"a\": a key \"p256\" of 64 bytes is no point of the curve",
            "devices.json:3: device \"a\": the keys of it overlap, or are not in order: one speaks for \
             0..18446744073709551615",
            "devices.json:4: device \"a\": it stands twice; keep all its keys in one place",
            "devices.json:3: unknown field `key`, expected `device` or `keys`",
            "devices.json:1: `fleet` is empty; name the fleet",
        ];
        for (said, expected) in said.iter().zip(expected) {
            assert_eq!(said, expected);
        }
        assert!(read("[").unwrap_err().starts_with("devices.json:1: "));
    }
}
