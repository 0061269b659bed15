//! One row at a time, as JSON or as CSV.

use std::io::Write as _;

/// How a row is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RowForm {
    /// One flat object.
    Json,
    /// Values with commas between them; [`Row::columns`] is the line before the first.
    Csv,
}

/// A row that a fleet writes into. It is used again for the next one.
///
/// Names and texts are the simulator's own and hold nothing that JSON or CSV would have to escape.
#[derive(Debug)]
pub struct Row {
    form: RowForm,
    bytes: Vec<u8>,
    columns: Vec<u8>,
    /// Whether `columns` is still being gathered: during the first row.
    gathering: bool,
}

impl Row {
    /// An empty row.
    pub fn new(form: RowForm) -> Self {
        Self { form, bytes: Vec::new(), columns: Vec::new(), gathering: true }
    }

    /// The row, without a line feed.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The names of the columns with commas between them, once a row has been written.
    pub fn columns(&self) -> &[u8] {
        &self.columns
    }

    pub(super) fn begin(&mut self) {
        self.gathering = self.columns.is_empty();
        self.bytes.clear();
    }

    pub(super) fn end(&mut self) {
        if self.form == RowForm::Json {
            self.bytes.push(b'}');
        }
    }

    pub(super) fn text(&mut self, name: &str, value: &str) {
        self.name(name);
        // Writing into a vector cannot fail, here and below.
        let _ = match self.form {
            RowForm::Json => write!(self.bytes, "\"{value}\""),
            RowForm::Csv => write!(self.bytes, "{value}"),
        };
    }

    pub(super) fn whole(&mut self, name: &str, value: i64) {
        self.name(name);
        let _ = write!(self.bytes, "{value}");
    }

    pub(super) fn number(&mut self, name: &str, value: f64, decimals: usize) {
        self.name(name);
        let _ = write!(self.bytes, "{value:.decimals$}");
    }

    fn name(&mut self, name: &str) {
        if self.gathering {
            if !self.columns.is_empty() {
                self.columns.push(b',');
            }
            self.columns.extend_from_slice(name.as_bytes());
        }
        let first = self.bytes.is_empty();
        let _ = match (self.form, first) {
            (RowForm::Json, true) => write!(self.bytes, "{{\"{name}\":"),
            (RowForm::Json, false) => write!(self.bytes, ",\"{name}\":"),
            (RowForm::Csv, true) => Ok(()),
            (RowForm::Csv, false) => write!(self.bytes, ","),
        };
    }
}
