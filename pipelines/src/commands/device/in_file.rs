//! A fleet whose keys stand in a JSON file: the file is read, changed, checked, and put in place whole.

use std::path::Path;

use avouch_connectors::files::{DeviceRow, KeyFile, KeyRow, read_keys};

use super::{DeviceError, Known, RevokeArgs, Said, public, said_of};
use crate::signing::DeviceKeyFile;

fn row(key: &DeviceKeyFile, from_seq: u64) -> KeyRow {
    let public_key = key.key().public();
    KeyRow { kind: public_key.kind().to_owned(), key: public(&public_key), from_seq, until_seq: None }
}

/// Writes the file, unless it would be wrong: then it stays as it was.
fn write(path: &Path, file: &KeyFile) -> Result<(), DeviceError> {
    let temporary = path.with_extension(format!("{}.tmp", std::process::id()));
    let io = |source| DeviceError::Write { path: path.to_path_buf(), source };
    // Invariant: texts and numbers are JSON.
    let text = serde_json::to_string_pretty(file).unwrap_or_default() + "\n";
    std::fs::write(&temporary, text).map_err(io)?;
    let put = match read_keys(&temporary, "") {
        Ok(_) => std::fs::rename(&temporary, path).map_err(io),
        Err(e) => {
            let message = e.to_string().replace(&temporary.display().to_string(), &path.display().to_string());
            Err(DeviceError::Asked(format!("the file of keys would not be right: {message}")))
        }
    };
    if put.is_err() {
        let _ = std::fs::remove_file(&temporary);
    }
    put
}

fn device<'f>(path: &Path, file: &'f mut KeyFile, name: &str) -> Result<&'f mut DeviceRow, DeviceError> {
    let missing = || {
        DeviceError::Asked(format!(
            "{}: `{name}` was never enrolled; `avouch device enrol` gives it a key",
            path.display()
        ))
    };
    file.devices.iter_mut().find(|d| d.device == name).ok_or_else(missing)
}

pub(super) fn enrol(path: &Path, fleet: Option<&str>, key: &DeviceKeyFile) -> Result<Said, DeviceError> {
    let mut file = match (path.exists(), fleet) {
        (true, _) => KeyFile::read(path)?,
        (false, Some(fleet)) => KeyFile { fleet: fleet.to_owned(), devices: Vec::new() },
        (false, None) => {
            let why = format!("{} is not there yet; name the fleet it is for with --fleet", path.display());
            return Err(DeviceError::Asked(why));
        }
    };
    if let Some(fleet) = fleet.filter(|f| *f != file.fleet) {
        let why = format!("{} is of the fleet `{}`, not of `{fleet}`", path.display(), file.fleet);
        return Err(DeviceError::Asked(why));
    }
    if file.devices.iter().any(|d| d.device == key.device()) {
        let why = format!("`{}` was enrolled before; give it another key with `avouch device rotate`", key.device());
        return Err(DeviceError::Asked(why));
    }
    file.devices.push(DeviceRow { device: key.device().to_owned(), keys: vec![row(key, 0)] });
    write(path, &file)?;
    Ok(said_of(key.device(), &keys_of(path, key.device())?))
}

pub(super) fn rotate(path: &Path, key: &DeviceKeyFile, from_seq: u64) -> Result<Said, DeviceError> {
    let mut file = KeyFile::read(path)?;
    device(path, &mut file, key.device())?.keys.push(row(key, from_seq));
    write(path, &file)?;
    Ok(said_of(key.device(), &keys_of(path, key.device())?))
}

pub(super) fn revoke(path: &Path, args: &RevokeArgs) -> Result<Said, DeviceError> {
    let known = keys_of(path, &args.device)?;
    let mut file = KeyFile::read(path)?;
    let row = device(path, &mut file, &args.device)?;
    let number = args.number.unwrap_or(row.keys.len().saturating_sub(1));
    let (Some(key), Some(now)) = (row.keys.get_mut(number), known.get(number)) else {
        return Err(DeviceError::Asked(format!("`{}` has no key number {number}", args.device)));
    };
    if !(now.from_seq..now.until_seq).contains(&args.from_seq) {
        let (from, until, given) = (now.from_seq, now.until_seq, args.from_seq);
        let why = format!("the key speaks for readings {from} to before {until}, so it cannot be ended at {given}");
        return Err(DeviceError::Asked(why));
    }
    key.until_seq = Some(args.from_seq);
    write(path, &file)?;
    Ok(said_of(&args.device, &keys_of(path, &args.device)?))
}

fn known(row: &DeviceRow) -> Vec<Known> {
    let next = |i: usize| row.keys.get(i + 1).map_or(u64::MAX, |k: &KeyRow| k.from_seq);
    let one = |(i, k): (usize, &KeyRow)| Known {
        kind: k.kind.clone(),
        from_seq: k.from_seq,
        until_seq: k.until_seq.unwrap_or(next(i)),
    };
    row.keys.iter().enumerate().map(one).collect()
}

pub(super) fn keys_of(path: &Path, device: &str) -> Result<Vec<Known>, DeviceError> {
    read_keys(path, "")?;
    let file = KeyFile::read(path)?;
    Ok(file.devices.iter().find(|d| d.device == device).map(known).unwrap_or_default())
}

pub(super) fn all(path: &Path) -> Result<Vec<(String, Vec<Known>)>, DeviceError> {
    read_keys(path, "")?;
    Ok(KeyFile::read(path)?.devices.iter().map(|d| (d.device.clone(), known(d))).collect())
}
