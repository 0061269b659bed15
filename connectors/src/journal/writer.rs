//! The writing side.

use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::Arc;

use sha2::{Digest as _, Sha256};

use super::recall::Recall;
use super::segment::{self, At, HEADER, RECORD};
use super::{
    JournalBatch, JournalError, JournalHandle, JournalOptions, JournalReader, Result, Segment, Shared, State, failed,
};

/// What arrived.
#[derive(Debug, Clone, Copy)]
pub struct Message<'a> {
    /// When, milliseconds since the epoch.
    pub arrived_ms: i64,
    /// Packet identifier; 0 for none.
    pub packet: u16,
    /// Topic: at most 65,535 bytes, the rest is cut off.
    pub topic: &'a [u8],
    /// Value.
    pub value: &'a [u8],
}

fn digest(topic: &[u8], value: &[u8]) -> [u8; 32] {
    let len = (topic.len() as u64).to_le_bytes();
    Sha256::new().chain_update(len).chain_update(topic).chain_update(value).finalize().into()
}

/// The one writer of a journal.
#[derive(Debug)]
pub struct JournalWriter {
    shared: Arc<Shared>,
    options: JournalOptions,
    file: File,
    group: Vec<u8>,
    count: u32,
    last_ms: i64,
    session: u32,
    /// The last record of this session under each packet identifier.
    recent: HashMap<u16, [u8; 32]>,
    failed: Option<String>,
}

impl JournalWriter {
    /// Opens or creates the journal in `dir`, cutting off a torn last group. Reads the last two segments.
    ///
    /// # Errors
    /// [`JournalError::Locked`], [`JournalError::Damaged`], [`JournalError::Io`].
    pub fn open(dir: &Path, options: JournalOptions) -> Result<Self> {
        std::fs::create_dir_all(dir).map_err(failed("create the directory", dir))?;
        let lock = super::lock(dir)?;
        let firsts = segment::list(dir)?;
        let mut segments = Vec::new();
        // Where nothing is recalled, there are two segments at most.
        let Recall { offset: recalled, mut session, mut recent } = Recall::read(dir)?.unwrap_or_default();
        let mut end = firsts.first().copied().unwrap_or(0);
        let mut payload = Vec::new();
        let at = firsts.partition_point(|f| *f <= recalled).saturating_sub(1);
        let from = at.min(firsts.len().saturating_sub(2));
        for (i, &first) in firsts.iter().enumerate() {
            let path = segment::path(dir, first);
            let file = File::options().read(true).write(true).open(&path).map_err(failed("open", &path))?;
            let len = file.metadata().map_err(failed("look at", &path))?.len();
            let is_last = i + 1 == firsts.len();
            if i < from {
                // Whole since the segment after it was begun. If it was damaged since, its reader will say so.
                let modified = file.metadata().and_then(|m| m.modified()).map_err(failed("look at", &path))?;
                let age = modified.duration_since(std::time::UNIX_EPOCH).unwrap_or_default().as_millis();
                segments.push(Segment { first, path, len, last_ms: i64::try_from(age).unwrap_or(i64::MAX) });
                end = firsts[i + 1];
                continue;
            }
            let damaged = |at, why: String| JournalError::Damaged { path: path.clone(), at, why };
            if first != end {
                return Err(damaged(0, format!("it begins at offset {first}, but the segment before ends at {end}")));
            }
            let (mut at, mut last_ms) = (0, i64::MIN);
            loop {
                match segment::read(&file, &path, at, len, &mut payload)? {
                    At::Group(group) => {
                        if group.first != end {
                            return Err(damaged(at, format!("offset {} follows {end}", group.first)));
                        }
                        let is_new = group.first >= recalled;
                        if is_new && group.session != session {
                            session = group.session;
                            recent.clear();
                        }
                        let (mut from, mut records) = (0, 0u32);
                        while let Some(r) = segment::record(&payload, from) {
                            if is_new && r.packet > 0 {
                                let topic = &payload[r.topic.0..r.topic.1];
                                recent.insert(r.packet, digest(topic, &payload[r.topic.1..r.end]));
                            }
                            (last_ms, from, records) = (r.arrived_ms, r.end, records + 1);
                        }
                        if from != payload.len() || records != group.count {
                            return Err(damaged(at, "its records do not fill their group".into()));
                        }
                        end += i64::from(records);
                        at += (HEADER + payload.len()) as u64;
                    }
                    At::End => break,
                    At::Torn if is_last => {
                        tracing::warn!(file = %path.display(), bytes = len - at, "a torn group is cut off; it was not acknowledged");
                        file.set_len(at).and_then(|()| file.sync_all()).map_err(failed("truncate", &path))?;
                        break;
                    }
                    At::Torn => return Err(damaged(at, "it ends within a group".into())),
                }
            }
            segments.push(Segment { first, path, len: at, last_ms });
        }
        if segments.is_empty() {
            segments.push(create(dir, end)?);
        }
        let last = segments.last().map(|s| s.path.clone()).unwrap_or_default();
        let file = File::options().read(true).write(true).open(&last).map_err(failed("open", &last))?;
        let state = State { segments, end, full: false, closed: false };
        let shared = Arc::new(Shared {
            dir: dir.to_path_buf(),
            lock,
            state: std::sync::Mutex::new(state),
            changed: Default::default(),
        });
        let mut writer =
            Self { shared, options, file, group: Vec::new(), count: 0, last_ms: 0, session, recent, failed: None };
        writer.begin_group();
        Ok(writer)
    }

    /// What others may know and say.
    pub fn handle(&self) -> JournalHandle {
        JournalHandle { shared: self.shared.clone(), keep_ms: self.options.keep_ms }
    }

    /// A reader that goes on at `offset` (`None`: at the first record there is).
    ///
    /// # Errors
    /// [`JournalError::Gone`] when the journal does not have that offset.
    pub fn reader(&self, offset: Option<i64>) -> Result<JournalReader> {
        JournalReader::new(self.shared.clone(), offset)
    }

    fn begin_group(&mut self) {
        self.group.clear();
        self.group.resize(HEADER, 0);
        self.count = 0;
    }

    /// The other side has forgotten us: packet identifiers mean something else from now on.
    pub fn new_session(&mut self) {
        self.session += 1;
        self.recent.clear();
    }

    /// Whether the journal holds this very message under its packet identifier in this session. Asked of redeliveries.
    pub fn holds(&self, packet: u16, topic: &[u8], value: &[u8]) -> bool {
        self.recent.get(&packet).is_some_and(|d| *d == digest(topic, value))
    }

    /// Bytes and records of the group being gathered.
    pub fn gathered(&self) -> (usize, usize) {
        (self.group.len() - HEADER, self.count as usize)
    }

    /// Adds a message to the group. Nothing is durable before [`JournalWriter::commit`].
    pub fn append(&mut self, message: Message<'_>) {
        let topic = &message.topic[..message.topic.len().min(usize::from(u16::MAX))];
        self.group.reserve(RECORD + topic.len() + message.value.len());
        self.group.extend_from_slice(&message.arrived_ms.to_le_bytes());
        self.group.extend_from_slice(&message.packet.to_le_bytes());
        self.group.extend_from_slice(&(topic.len() as u16).to_le_bytes());
        self.group.extend_from_slice(&(message.value.len() as u32).to_le_bytes());
        self.group.extend_from_slice(topic);
        self.group.extend_from_slice(message.value);
        self.count += 1;
        self.last_ms = message.arrived_ms;
        if message.packet > 0 {
            self.recent.insert(message.packet, digest(topic, message.value));
        }
    }

    /// Makes the group durable and readable. Waits while the journal is full.
    ///
    /// # Errors
    /// [`JournalError::Io`], after which it must be opened again; [`JournalError::Failed`] when it was closed while it
    /// waited for room (nothing was written).
    pub fn commit(&mut self) -> Result<()> {
        if let Some(why) = &self.failed {
            return Err(JournalError::Failed { why: why.clone() });
        }
        if self.count == 0 {
            return Ok(());
        }
        self.wait_for_room()?;
        let outcome = self.write_group();
        if let Err(e) = &outcome {
            self.failed = Some(e.to_string());
        }
        outcome
    }

    fn wait_for_room(&self) -> Result<()> {
        let mut state = self.shared.state();
        loop {
            let bytes: u64 = state.segments.iter().map(|s| s.len).sum();
            state.full = bytes >= self.options.max_bytes;
            if !state.full {
                return Ok(());
            }
            if state.closed {
                return Err(JournalError::Failed { why: "it was closed while it waited for room".into() });
            }
            state = self.shared.changed.wait(state).unwrap_or_else(std::sync::PoisonError::into_inner);
        }
    }

    fn write_group(&mut self) -> Result<()> {
        let (end, mut last) = {
            let state = self.shared.state();
            // Invariant: there is always a last segment.
            let Some(last) = state.segments.last().cloned() else { return Ok(()) };
            (state.end, last)
        };
        let fresh = last.len >= self.options.segment_bytes;
        if fresh {
            last = create(&self.shared.dir, end)?;
            self.file = File::options().read(true).write(true).open(&last.path).map_err(failed("open", &last.path))?;
        }
        segment::seal(&mut self.group, end, self.count, self.session);
        self.file.write_all_at(&self.group, last.len).map_err(failed("write", &last.path))?;
        self.file.sync_data().map_err(failed("fsync", &last.path))?;
        if fresh {
            // Before the segment shows: until then the one before it cannot be deleted.
            Recall::write(&self.shared.dir, end + i64::from(self.count), self.session, &self.recent)?;
        }
        last.len += self.group.len() as u64;
        last.last_ms = self.last_ms;
        {
            let mut state = self.shared.state();
            if !fresh {
                state.segments.pop();
            }
            state.segments.push(last);
            state.end = end + i64::from(self.count);
        }
        self.shared.changed.notify_all();
        self.begin_group();
        Ok(())
    }
}

fn create(dir: &Path, first: i64) -> Result<Segment> {
    let path = segment::path(dir, first);
    File::create(&path).map_err(failed("create", &path))?;
    File::open(dir).and_then(|d| d.sync_all()).map_err(failed("fsync the directory", dir))?;
    Ok(Segment { first, path, len: 0, last_ms: i64::MIN })
}

impl JournalBatch {
    /// Bytes a group may gather before it is committed.
    pub const GROUP_BYTES: usize = 4 << 20;
}
