//! Where a fleet's rows go: one file, or one for each device.

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use super::SimulateError;
use crate::simulator::{Row, RowForm};

/// What stands for the device in a path.
const DEVICE: &str = "{device}";
/// A device's rows are kept back until there are so many bytes of them.
const BUFFER: usize = 1 << 20;

/// The form that a path asks for: CSV by its ending, else JSON.
pub(super) fn form(path: &Path) -> RowForm {
    match path.extension().is_some_and(|e| e.eq_ignore_ascii_case("csv")) {
        true => RowForm::Csv,
        false => RowForm::Json,
    }
}

/// Whether a path asks for a file for each device.
pub(super) fn each_its_own(path: &Path) -> bool {
    path.to_string_lossy().contains(DEVICE)
}

/// Writes rows into one file until there is none.
pub(super) fn one_file(path: &Path, mut next: impl FnMut(&mut Row) -> bool) -> Result<u64, SimulateError> {
    let form = form(path);
    let (mut row, mut count) = (Row::new(form), 0);
    super::write(path, |out| {
        while next(&mut row) {
            if count == 0 && form == RowForm::Csv {
                line(out, row.columns())?;
            }
            line(out, row.bytes())?;
            count += 1;
        }
        Ok(())
    })?;
    Ok(count)
}

/// Writes rows into a file for each device; `name` says what a device is called, `next` of which device the row is.
pub(super) fn file_each(
    path: &Path,
    name: impl Fn(usize) -> String,
    mut next: impl FnMut(&mut Row) -> Option<usize>,
) -> Result<u64, SimulateError> {
    let form = form(path);
    let (mut row, mut count) = (Row::new(form), 0);
    let mut files: Vec<Waiting> = Vec::new();
    while let Some(device) = next(&mut row) {
        while files.len() <= device {
            let own = PathBuf::from(path.to_string_lossy().replace(DEVICE, &name(files.len())));
            files.push(Waiting { path: own, bytes: Vec::new(), begun: false });
        }
        let file = &mut files[device];
        if form == RowForm::Csv && file.bytes.is_empty() && !file.begun {
            file.line(row.columns());
        }
        file.line(row.bytes());
        if file.bytes.len() >= BUFFER {
            file.flush()?;
        }
        count += 1;
    }
    files.iter_mut().try_for_each(Waiting::flush)?;
    Ok(count)
}

/// A device's file, which is open only while something is written: a fleet may have more devices than a process may files.
struct Waiting {
    path: PathBuf,
    bytes: Vec<u8>,
    begun: bool,
}

impl Waiting {
    fn line(&mut self, text: &[u8]) {
        self.bytes.extend_from_slice(text);
        self.bytes.push(b'\n');
    }

    fn flush(&mut self) -> Result<(), SimulateError> {
        let attempt = || -> io::Result<()> {
            let mut file = if self.begun {
                OpenOptions::new().append(true).open(&self.path)?
            } else {
                if let Some(parent) = self.path.parent() {
                    std::fs::create_dir_all(parent)?;
                }
                File::create(&self.path)?
            };
            file.write_all(&self.bytes)
        };
        attempt().map_err(|source| SimulateError::Write { path: self.path.clone(), source })?;
        self.begun = true;
        self.bytes.clear();
        Ok(())
    }
}

fn line(out: &mut BufWriter<File>, text: &[u8]) -> io::Result<()> {
    out.write_all(text)?;
    out.write_all(b"\n")
}
