//! Arrow IPC streams: a schema, then record batches, all in one record's value.
//!
//! Arrow's reader trusts what a message says of its body: an offset beyond it panics, a length to unfold to is allocated.
//! So everything a message says is checked against the bytes at hand before the reader sees it ([`check_batch`]), and only
//! columns that the pipeline names, of types it can use, are read at all ([`Layout`]).
//!
//! A record that is damaged anywhere is refused as a whole, since what its other batches say cannot be relied on. A value
//! that does not fit its field (not finite, beyond the range of times) is a fault of its row alone.

mod layout;
mod take;

use std::collections::HashMap;

use arrow::array::ArrayRef;
use arrow::buffer::Buffer;
use arrow::datatypes::{Field, Schema};
use arrow::error::ArrowError;
use arrow::ipc;
use arrow::ipc::reader::RecordBatchDecoder;

use super::RowError;
use crate::dead_letter::DeadReason;
use crate::ingest::Column;
use crate::spec::FieldSpec;
use layout::Layout;

/// Most rows taken from one record.
const MAX_ROWS: usize = 65_536;
/// A record may unfold (by compression, by dictionaries, by views) to so many times `max_record_bytes`, but to no more
/// than [`MAX_UNFOLDED`].
const UNFOLD: usize = 16;
const MAX_UNFOLDED: usize = 1 << 30;

/// A value that does not fit its field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fault {
    /// Index of the row in the record.
    pub row: u32,
    /// The field's place in the schema.
    pub field: u32,
    /// What is wrong.
    pub detail: String,
}

/// Decodes records of one pipeline's fields, whatever schema each has.
#[derive(Debug)]
pub struct ArrowDecoder {
    fields: Vec<FieldSpec>,
    budget: usize,
    /// The schema message seen last, and what it means: a guess that only saves time.
    last: Option<(Vec<u8>, Layout)>,
}

/// What may still be unfolded of a record.
pub(super) struct Budget(usize);

impl Budget {
    fn spend(&mut self, bytes: usize) -> Result<(), RowError> {
        match self.0.checked_sub(bytes) {
            Some(rest) => {
                self.0 = rest;
                Ok(())
            }
            None => Err(too_large(format!(
                "the record unfolds to more than {UNFOLD} times max_record_bytes; send smaller batches"
            ))),
        }
    }
}

#[cold]
fn too_large(detail: String) -> RowError {
    RowError { reason: DeadReason::TooLarge, detail }
}

#[cold]
fn damaged(why: impl std::fmt::Display) -> RowError {
    // Of what the verifier says, only the first line is about what is wrong.
    let why = why.to_string();
    RowError::undecodable(format!("the Arrow stream is damaged: {}", why.lines().next().unwrap_or_default()))
}

fn arrow_error(e: ArrowError) -> RowError {
    damaged(e)
}

/// A message of the stream and the bytes after it that belong to it.
struct Message {
    head: Buffer,
    body: Buffer,
}

/// Cuts the next message off the stream; `None` at its end.
fn next_message(stream: &Buffer, at: &mut usize) -> Result<Option<Message>, RowError> {
    let word = |at: usize| stream.get(at..at + 4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]));
    if *at == stream.len() {
        return Ok(None);
    }
    let truncated = || damaged(format!("it ends at byte {} within a message", stream.len()));
    let mut size = word(*at).ok_or_else(truncated)?;
    *at += 4;
    if size == u32::MAX {
        size = word(*at).ok_or_else(truncated)?;
        *at += 4;
    }
    if size == 0 {
        if *at < stream.len() {
            return Err(damaged(format!("{} bytes are left over after its end", stream.len() - *at)));
        }
        return Ok(None);
    }
    let size = size as usize;
    if stream.len() - *at < size {
        return Err(truncated());
    }
    let head = stream.slice_with_length(*at, size);
    *at += size;
    let length = ipc::root_as_message(&head).map_err(damaged)?.bodyLength();
    let body = match usize::try_from(length) {
        Ok(n) if n <= stream.len() - *at => stream.slice_with_length(*at, n),
        _ => return Err(damaged(format!("a body of {length} bytes, with {} left", stream.len() - *at))),
    };
    *at += body.len();
    Ok(Some(Message { head, body }))
}

impl ArrowDecoder {
    /// A decoder for these fields.
    pub fn new(fields: &[FieldSpec], max_record_bytes: usize) -> Self {
        let budget = max_record_bytes.saturating_mul(UNFOLD).min(MAX_UNFOLDED);
        Self { fields: fields.to_vec(), budget, last: None }
    }

    /// Decodes a record: appends its rows to `columns`, one a field of the schema, and says how many there are. Rows with
    /// values that do not fit are appended too, and named in `faults`; nulls are appended wherever they stand, also in
    /// required fields. After an error the columns may be of unequal length.
    pub(crate) fn decode(
        &mut self,
        payload: &[u8],
        columns: &mut [Column],
        faults: &mut Vec<Fault>,
    ) -> Result<usize, RowError> {
        if let Some(e) = not_a_stream(payload) {
            return Err(e);
        }
        let stream = Buffer::from(payload);
        let mut budget = Budget(self.budget);
        let mut at = 0;
        let Some(first) = next_message(&stream, &mut at)? else {
            return Err(damaged("it ends before its schema"));
        };
        self.layout(&first)?;
        let Some((_, layout)) = &self.last else { return Err(damaged("no schema")) };
        let mut dictionaries = HashMap::new();
        let mut rows = 0;
        while let Some(message) = next_message(&stream, &mut at)? {
            let head = ipc::root_as_message(&message.head).map_err(damaged)?;
            if head.version() != layout.version {
                return Err(damaged("its messages are of different versions"));
            }
            match head.header_type() {
                ipc::MessageHeader::RecordBatch => {
                    let batch = head.header_as_record_batch().ok_or_else(|| damaged("an empty message"))?;
                    let n = check_batch(&batch, &layout.nodes, &message.body, &mut budget)?;
                    if rows + n > MAX_ROWS {
                        return Err(too_large(format!(
                            "the record holds more than {MAX_ROWS} rows; send smaller batches"
                        )));
                    }
                    let projection = Some(&layout.projection[..]);
                    let read = RecordBatchDecoder::try_new(
                        &message.body,
                        batch,
                        layout.schema.clone(),
                        &dictionaries,
                        &layout.version,
                    )
                    .and_then(|d| d.with_projection(projection).read_record_batch())
                    .map_err(arrow_error)?;
                    let mut seen = vec![false; columns.len()];
                    for (found, array) in layout.found.iter().zip(read.columns()) {
                        let field = &self.fields[found.field];
                        let column = &mut columns[found.field];
                        take::append(array, field, found.field, rows, column, &mut budget, faults)?;
                        seen[found.field] = true;
                    }
                    for (column, _) in columns.iter_mut().zip(&seen).filter(|(_, seen)| !**seen) {
                        column.push_nulls(n);
                    }
                    rows += n;
                }
                ipc::MessageHeader::DictionaryBatch => {
                    let batch = head.header_as_dictionary_batch().ok_or_else(|| damaged("an empty message"))?;
                    read_dictionary(&batch, layout, &message.body, &mut budget, &mut dictionaries)?;
                }
                ipc::MessageHeader::Schema => return Err(damaged("a second schema")),
                other => return Err(damaged(format!("a message of kind {other:?}"))),
            }
        }
        Ok(rows)
    }

    /// Makes `last` what the stream's first message says.
    fn layout(&mut self, message: &Message) -> Result<(), RowError> {
        if self.last.as_ref().is_some_and(|(head, _)| head == message.head.as_slice()) {
            return Ok(());
        }
        let head = ipc::root_as_message(&message.head).map_err(damaged)?;
        let Some(schema) = head.header_as_schema() else {
            return Err(damaged("it does not begin with a schema"));
        };
        let layout = Layout::new(schema, head.version(), &self.fields)?;
        self.last = Some((message.head.to_vec(), layout));
        Ok(())
    }
}

fn read_dictionary(
    batch: &ipc::DictionaryBatch<'_>,
    layout: &Layout,
    body: &Buffer,
    budget: &mut Budget,
    dictionaries: &mut HashMap<i64, ArrayRef>,
) -> Result<(), RowError> {
    let Some(values) = layout.dictionary_values(batch.id()) else { return Ok(()) };
    if batch.isDelta() {
        return Err(RowError::undecodable("the Arrow stream extends a dictionary; send each dictionary whole"));
    }
    let data = batch.data().ok_or_else(|| damaged("a dictionary without values"))?;
    let view = *values == arrow::datatypes::DataType::Utf8View;
    let node = layout::NodeAt { buffers: if view { 2 } else { 3 }, view, wanted: true, unit: layout::unit(values) };
    check_batch(&data, &[node], body, budget)?;
    let schema = Schema::new(vec![Field::new("", values.clone(), true)]);
    let none = HashMap::new();
    let read = RecordBatchDecoder::try_new(body, data, schema.into(), &none, &layout.version)
        .and_then(RecordBatchDecoder::read_record_batch)
        .map_err(arrow_error)?;
    dictionaries.insert(batch.id(), read.column(0).clone());
    Ok(())
}

/// Checks everything that a batch says of its body against the schema's nodes and the body's length; the number of rows.
fn check_batch(
    batch: &ipc::RecordBatch<'_>,
    nodes: &[layout::NodeAt],
    body: &Buffer,
    budget: &mut Budget,
) -> Result<usize, RowError> {
    let length = batch.length();
    let rows = usize::try_from(length).map_err(|_| damaged(format!("a batch of {length} rows")))?;
    if rows > MAX_ROWS {
        return Err(too_large(format!("the record holds more than {MAX_ROWS} rows; send smaller batches")));
    }
    let compressed = batch.compression().is_some();
    let given = batch.nodes().ok_or_else(|| damaged("a batch without nodes"))?;
    if given.len() != nodes.len() {
        return Err(damaged(format!("{} nodes in a batch, where its schema has {}", given.len(), nodes.len())));
    }
    let mut buffers = batch.buffers().ok_or_else(|| damaged("a batch without buffers"))?.iter();
    let mut views = batch.variadicBufferCounts().into_iter().flatten();
    let mut end = 0;
    for (node, said) in nodes.iter().zip(given.iter()) {
        if said.length() < 0 || said.null_count() < 0 || said.null_count() > said.length() {
            return Err(damaged(format!("a node of {} values with {} nulls", said.length(), said.null_count())));
        }
        if node.wanted && said.length() != length {
            return Err(damaged(format!("a column of {} values in a batch of {length}", said.length())));
        }
        let mut count = node.buffers;
        if node.view {
            let more = views.next().and_then(|n| usize::try_from(n).ok());
            let more = more.ok_or_else(|| damaged("a column of views does not say how many buffers it has"))?;
            count = count.checked_add(more).ok_or_else(|| damaged("a count of buffers"))?;
        }
        for i in 0..count {
            let b = buffers.next().ok_or_else(|| damaged("fewer buffers than its schema has"))?;
            let (offset, len) = (usize::try_from(b.offset()), usize::try_from(b.length()));
            let (Ok(offset), Ok(len)) = (offset, len) else { return Err(damaged("a negative length")) };
            let past = offset.checked_add(len).filter(|past| *past <= body.len());
            let Some(past) = past else {
                return Err(damaged(format!("a buffer at {offset} of {len} bytes, in a body of {}", body.len())));
            };
            if !node.wanted {
                continue;
            }
            let mut plain = len;
            if len > 0 && compressed {
                let prefix = body[offset..past].first_chunk::<8>().ok_or_else(|| damaged("a cut-off length"))?;
                plain = match i64::from_le_bytes(*prefix) {
                    -1 => len - 8,
                    n => usize::try_from(n).map_err(|_| damaged("a negative length"))?,
                };
                budget.spend(plain)?;
            }
            // Every node's first buffer says which values are null; the reader does not check that it is long enough.
            if i == 0 && said.null_count() > 0 && plain < rows.div_ceil(8) {
                return Err(damaged(format!("{plain} bytes to say which of {rows} values are null")));
            }
            // The reader panics where elements do not fill their buffer.
            if i == 1 && plain % node.unit != 0 {
                return Err(damaged(format!("a buffer of {plain} bytes, for elements of {}", node.unit)));
            }
            if len == 0 {
                continue;
            }
            // No two may share bytes, or a small record could unfold to any size.
            if offset < end {
                return Err(damaged("buffers that overlap"));
            }
            end = past;
        }
    }
    if buffers.next().is_some() || views.next().is_some() {
        return Err(damaged("more buffers than its schema has"));
    }
    Ok(rows)
}

#[cold]
fn wrong_format(payload: &[u8]) -> Option<&'static str> {
    match payload {
        [] => Some("the value is empty"),
        [b'{', ..] => Some("the value looks like JSON, not like an Arrow IPC stream"),
        p if p.starts_with(b"ARROW1") => Some("the value is an Arrow IPC file; send the stream format"),
        _ => None,
    }
}

#[inline]
fn not_a_stream(payload: &[u8]) -> Option<RowError> {
    match payload {
        [0xff, 0xff, 0xff, 0xff, ..] => None,
        other => wrong_format(other).map(RowError::undecodable),
    }
}

#[cfg(test)]
mod tests;
