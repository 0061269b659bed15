//! One JSON object a line, passed through as it stands.

use std::fmt;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::Value;

use super::json_text::{member, push_string};
use super::options::{device_of, no_time, time_of};
use super::{DeviceFrom, FilesError, ReplayOptions, Row, RowReader};

/// The fields looked for, and what was found of them in the current line.
#[derive(Default)]
struct Wanted {
    names: Vec<String>,
    values: Vec<Option<Value>>,
    /// A field that must not be there, because the device of the path takes its name.
    taken: Option<String>,
    clash: bool,
    members: usize,
}

impl Wanted {
    fn want(&mut self, name: &Option<String>) -> Option<usize> {
        let name = name.as_ref()?;
        Some(self.names.iter().position(|n| n == name).unwrap_or_else(|| {
            self.names.push(name.clone());
            self.values.push(None);
            self.names.len() - 1
        }))
    }

    /// The value as text, for a key or a device; empty where there is none.
    fn text(&self, at: usize) -> String {
        match &self.values[at] {
            Some(Value::String(s)) => s.clone(),
            Some(Value::Number(n)) => n.to_string(),
            _ => String::new(),
        }
    }
}

/// Finds the wanted fields of one object and checks that all of it is JSON.
struct Find<'w>(&'w mut Wanted);

impl<'de> DeserializeSeed<'de> for Find<'_> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Find<'_> {
    type Value = ();
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(which) = map.next_key_seed(Name(self.0))? {
            self.0.members += 1;
            match which {
                Which::Wanted(at) => self.0.values[at] = Some(map.next_value()?),
                Which::Other => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(())
    }
}

enum Which {
    Wanted(usize),
    Other,
}

struct Name<'w>(&'w mut Wanted);

impl<'de> DeserializeSeed<'de> for Name<'_> {
    type Value = Which;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Which, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Name<'_> {
    type Value = Which;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a field name")
    }
    fn visit_str<E>(self, name: &str) -> Result<Which, E> {
        if self.0.taken.as_deref() == Some(name) {
            self.0.clash = true;
        }
        Ok(self.0.names.iter().position(|n| n == name).map_or(Which::Other, Which::Wanted))
    }
}

pub(super) struct NdjsonRows {
    path: PathBuf,
    reader: BufReader<File>,
    buffer: Vec<u8>,
    bytes: u64,
    line: u64,
    wanted: Wanted,
    /// `"device":"valve1/0"`, or nothing.
    prefix: Vec<u8>,
    path_device: String,
    device: Option<usize>,
    key: Option<usize>,
    time: Option<usize>,
    arrival: Option<usize>,
    keep_unreadable: bool,
    keep_undated: bool,
    last_times: (Option<i64>, Option<i64>),
}

impl NdjsonRows {
    pub(super) fn open(path: PathBuf, options: &ReplayOptions) -> Result<Self, FilesError> {
        let file = File::open(&path).map_err(|source| FilesError::Io { path: path.clone(), source })?;
        let mut wanted = Wanted::default();
        let (mut prefix, mut path_device, mut device) = (Vec::new(), String::new(), None);
        match &options.device {
            None => {}
            Some(DeviceFrom::Column(column)) => device = wanted.want(&Some(column.clone())),
            Some(DeviceFrom::Path) => {
                path_device = device_of(&path);
                if let Some(field) = &options.device_field {
                    prefix = member(field);
                    push_string(&mut prefix, &path_device);
                    wanted.taken = Some(field.clone());
                }
            }
        }
        let key = wanted.want(&options.key);
        let time = wanted.want(&options.time);
        let arrival = wanted.want(&options.arrival);
        Ok(Self {
            path,
            reader: BufReader::with_capacity(1 << 16, file),
            buffer: Vec::new(),
            bytes: 0,
            line: 0,
            wanted,
            prefix,
            path_device,
            device,
            key,
            time,
            arrival,
            keep_unreadable: options.keep_unreadable,
            keep_undated: options.keep_undated,
            last_times: (None, None),
        })
    }

    fn error(&self, why: String) -> FilesError {
        FilesError::Row { path: self.path.clone(), line: self.line, why }
    }

    fn parse(&mut self) -> Result<(), serde_json::Error> {
        self.wanted.values.iter_mut().for_each(|v| *v = None);
        self.wanted.clash = false;
        self.wanted.members = 0;
        let mut json = serde_json::Deserializer::from_slice(&self.buffer);
        Find(&mut self.wanted).deserialize(&mut json)?;
        json.end()
    }

    fn time_at(&self, at: Option<usize>, before: Option<i64>) -> Result<Option<i64>, FilesError> {
        let Some(at) = at else { return Ok(None) };
        let text = self.wanted.text(at);
        if self.keep_undated {
            return Ok(time_of(&text).or(before));
        }
        time_of(&text).map(Some).ok_or_else(|| self.error(no_time(&self.wanted.names[at], &text)))
    }
}

impl RowReader for NdjsonRows {
    fn read(&mut self, row: &mut Row) -> Result<bool, FilesError> {
        row.clear();
        loop {
            self.buffer.clear();
            let n = self
                .reader
                .read_until(b'\n', &mut self.buffer)
                .map_err(|source| FilesError::Io { path: self.path.clone(), source })?;
            if n == 0 {
                return Ok(false);
            }
            self.bytes += n as u64;
            self.line += 1;
            while matches!(self.buffer.last(), Some(b'\n' | b'\r')) {
                self.buffer.pop();
            }
            if !self.buffer.iter().all(u8::is_ascii_whitespace) {
                break;
            }
        }
        row.line = self.line;
        if let Err(e) = self.parse() {
            if !self.keep_unreadable {
                // The error counts lines from this one; only its column says something.
                let place = format!(" at line {} column {}", e.line(), e.column());
                let what = e.to_string().replace(&place, "");
                return Err(self.error(format!("this line is not a JSON object: {what}, at byte {}", e.column())));
            }
            row.json.extend_from_slice(&self.buffer);
            row.readable = false;
            (row.time_ms, row.arrival_ms) = self.last_times;
            row.device.push_str(&self.path_device);
            row.key.push_str(&self.path_device);
            return Ok(true);
        }
        if self.wanted.clash {
            let field = self.wanted.taken.clone().unwrap_or_default();
            return Err(self.error(format!(
                "there is a field `{field}` already; give the device of the path another field name, or take the device from the field"
            )));
        }
        if self.prefix.is_empty() {
            row.json.extend_from_slice(&self.buffer);
        } else {
            // The line was parsed as an object, so its first `{` opens it.
            let open = self.buffer.iter().position(|b| *b == b'{').map_or(0, |i| i + 1);
            row.json.push(b'{');
            row.json.extend_from_slice(&self.prefix);
            if self.wanted.members > 0 {
                row.json.push(b',');
            }
            row.json.extend_from_slice(&self.buffer[open..]);
        }
        match self.device {
            Some(at) => row.device.push_str(&self.wanted.text(at)),
            None => row.device.push_str(&self.path_device),
        }
        match self.key {
            Some(at) => row.key.push_str(&self.wanted.text(at)),
            None => row.key.push_str(&row.device),
        }
        row.time_ms = self.time_at(self.time, self.last_times.0)?;
        row.arrival_ms = self.time_at(self.arrival, self.last_times.1)?;
        self.last_times = (row.time_ms, row.arrival_ms);
        Ok(true)
    }

    fn bytes_read(&self) -> u64 {
        self.bytes
    }
}
