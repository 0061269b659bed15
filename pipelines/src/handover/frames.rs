//! Payloads with their lengths before them.

use std::fs::File;
use std::io::{BufReader, BufWriter, ErrorKind, Read as _, Write as _};
use std::path::{Path, PathBuf};

use super::HandoverError;

/// No payload is longer: a length beyond it is no length.
const LONGEST: u32 = 1 << 30;

pub(super) fn failed(path: &Path) -> impl FnOnce(std::io::Error) -> HandoverError {
    let path = path.to_path_buf();
    move |source| HandoverError::File { path, source }
}

/// Appends frames to a new file.
pub(super) struct Frames {
    path: PathBuf,
    file: BufWriter<File>,
}

impl Frames {
    pub fn create(path: PathBuf) -> Result<Self, HandoverError> {
        let file = File::create_new(&path).map_err(failed(&path))?;
        Ok(Self { file: BufWriter::with_capacity(1 << 20, file), path })
    }

    pub fn push(&mut self, payload: &[u8]) -> Result<(), HandoverError> {
        let length = u32::try_from(payload.len()).ok().filter(|n| *n <= LONGEST);
        let length = length.ok_or_else(|| HandoverError::Malformed {
            path: self.path.clone(),
            why: format!("a payload of {} bytes is too long", payload.len()),
        })?;
        let write = |file: &mut BufWriter<File>| {
            file.write_all(&length.to_le_bytes())?;
            file.write_all(payload)
        };
        write(&mut self.file).map_err(failed(&self.path))
    }

    pub fn finish(mut self) -> Result<(), HandoverError> {
        self.file.flush().and_then(|()| self.file.get_ref().sync_all()).map_err(failed(&self.path))
    }
}

/// Reads frames one after the other.
pub(super) struct FrameReader {
    pub path: PathBuf,
    file: BufReader<File>,
    payload: Vec<u8>,
}

impl FrameReader {
    pub fn open(path: PathBuf) -> Result<Self, HandoverError> {
        let file = File::open(&path).map_err(failed(&path))?;
        Ok(Self { file: BufReader::with_capacity(1 << 20, file), path, payload: Vec::new() })
    }

    /// The next payload; `None` at the end of the file, which is after a whole frame.
    pub fn next(&mut self) -> Result<Option<&[u8]>, HandoverError> {
        let mut length = [0; 4];
        let mut have = 0;
        while have < length.len() {
            match self.file.read(&mut length[have..]) {
                Ok(0) if have == 0 => return Ok(None),
                Ok(0) => return Err(self.cut()),
                Ok(n) => have += n,
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return Err(failed(&self.path)(e)),
            }
        }
        let length = u32::from_le_bytes(length);
        if length > LONGEST {
            return Err(self.cut());
        }
        self.payload.clear();
        // The length is the file's word: memory is taken as the bytes come.
        let read = (&mut self.file).take(u64::from(length)).read_to_end(&mut self.payload);
        let read = read.map_err(failed(&self.path))?;
        if read < length as usize {
            return Err(self.cut());
        }
        Ok(Some(&self.payload))
    }

    fn cut(&self) -> HandoverError {
        HandoverError::Malformed { path: self.path.clone(), why: "it ends within a frame".into() }
    }
}
