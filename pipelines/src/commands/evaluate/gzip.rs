//! Data sets come packed.

use std::io::Read as _;
use std::path::Path;

use flate2::read::MultiGzDecoder;

use super::EvaluateError;

/// What a file holds, unpacked if its name ends in `.gz`. Without such a file the packed one beside it is read.
pub(super) fn read(path: &Path) -> Result<String, EvaluateError> {
    let packed = path.with_extension(match path.extension().and_then(|e| e.to_str()) {
        Some(e) => format!("{e}.gz"),
        None => "gz".to_owned(),
    });
    let found = if path.exists() { path } else { &packed };
    let failed = |path: &Path, source| EvaluateError::Io { path: path.to_path_buf(), source };
    // What is missed is what was asked for.
    let bytes = std::fs::read(found).map_err(|e| failed(path, e))?;
    let mut text = String::new();
    let read = match found.extension().is_some_and(|e| e == "gz") {
        true => MultiGzDecoder::new(bytes.as_slice()).read_to_string(&mut text),
        false => bytes.as_slice().read_to_string(&mut text),
    };
    read.map_err(|e| failed(found, e))?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::io::Write as _;

    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;

    #[test]
    fn packed_files_are_unpacked_and_damaged_ones_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.txt");
        let missing = read(&path).unwrap_err().to_string();
        assert!(missing.contains("a.txt:"), "{missing}");
        let mut gz = GzEncoder::new(Vec::new(), Compression::fast());
        gz.write_all(b"one\ntwo\n").unwrap();
        let mut bytes = gz.finish().unwrap();
        std::fs::write(dir.path().join("a.txt.gz"), &bytes).unwrap();
        assert_eq!(read(&path).unwrap(), "one\ntwo\n");
        let last = bytes.len() - 9;
        bytes[last] ^= 1;
        std::fs::write(dir.path().join("a.txt.gz"), &bytes).unwrap();
        let damaged = read(&path).unwrap_err().to_string();
        assert!(damaged.contains("a.txt.gz:"), "{damaged}");
        std::fs::write(&path, "plain").unwrap();
        assert_eq!(read(&path).unwrap(), "plain");
    }
}
