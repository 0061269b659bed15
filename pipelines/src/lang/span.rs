//! Places in a pipeline file: byte spans, and the file they are spans of.

use std::fmt;
use std::path::{Path, PathBuf};

/// A run of bytes `[start, end)` in the text of a pipeline file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
pub struct Span {
    /// The first byte.
    pub start: usize,
    /// The byte after the last.
    pub end: usize,
}

impl Span {
    /// The span `[start, end)`.
    pub fn new(start: usize, end: usize) -> Self {
        Self { start, end }
    }
}

impl From<toml_span::Span> for Span {
    fn from(s: toml_span::Span) -> Self {
        Self { start: s.start, end: s.end }
    }
}

/// A value and where it stands in the pipeline file, so that what is found wrong with it later can still be shown there.
#[derive(Clone, PartialEq, Eq)]
pub struct Spanned<T> {
    /// The value.
    pub value: T,
    /// Its place.
    pub span: Span,
}

impl<T> Spanned<T> {
    /// A value at a place.
    pub fn new(value: T, span: Span) -> Self {
        Self { value, span }
    }
}

impl<T: fmt::Debug> fmt::Debug for Spanned<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.value.fmt(f)
    }
}

/// The text of a pipeline file, with its lines.
#[derive(Clone)]
pub struct SourceFile {
    path: PathBuf,
    text: String,
    line_starts: Vec<usize>,
}

impl fmt::Debug for SourceFile {
    // Not the text: it may hold a secret somebody wrote down in it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SourceFile").field("path", &self.path).field("bytes", &self.text.len()).finish()
    }
}

impl SourceFile {
    /// A file of this path and text; nothing is read from the disk.
    pub fn new(path: impl Into<PathBuf>, text: impl Into<String>) -> Self {
        let text = text.into();
        let line_starts = std::iter::once(0).chain(text.match_indices('\n').map(|(i, _)| i + 1)).collect();
        Self { path: path.into(), text, line_starts }
    }

    /// The path, as given.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The directory relative paths in the file are resolved against: the one the file is in.
    pub fn dir(&self) -> PathBuf {
        match self.path.parent() {
            Some(p) if !p.as_os_str().is_empty() => p.to_path_buf(),
            _ => PathBuf::from("."),
        }
    }

    /// The whole text.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The text of a span, or nothing where it is not a span of this file.
    pub fn slice(&self, span: Span) -> &str {
        self.text.get(span.start..span.end).unwrap_or("")
    }

    /// Line and column of a byte, both from 1; columns count characters, not bytes.
    pub fn line_col(&self, offset: usize) -> (usize, usize) {
        let offset = self.clamp(offset);
        let line = self.line_starts.partition_point(|&s| s <= offset);
        let start = self.line_starts[line - 1];
        (line, self.text[start..offset].chars().count() + 1)
    }

    /// The text of a line (from 1) without its end, and the byte it starts at.
    pub fn line(&self, line: usize) -> (&str, usize) {
        let Some(&start) = self.line_starts.get(line.wrapping_sub(1)) else {
            return ("", self.text.len());
        };
        let end = self.line_starts.get(line).map_or(self.text.len(), |&next| next - 1);
        (self.text[start..end].trim_end_matches('\r'), start)
    }

    /// The nearest character boundary at or before `offset`.
    fn clamp(&self, offset: usize) -> usize {
        let mut at = offset.min(self.text.len());
        while !self.text.is_char_boundary(at) {
            at -= 1;
        }
        at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_and_columns_count_characters() {
        let f = SourceFile::new("a/b.toml", "ä = 1\r\nbb = 2\n");
        assert_eq!(f.line_col(0), (1, 1));
        assert_eq!(f.line_col(3), (1, 3));
        assert_eq!(f.line_col(1), (1, 1), "inside ä");
        assert_eq!(f.line_col(8), (2, 1));
        assert_eq!(f.line_col(10_000), (3, 1));
        assert_eq!(f.line(1), ("ä = 1", 0));
        assert_eq!(f.line(2), ("bb = 2", 8));
        assert_eq!(f.line(3).0, "");
        assert_eq!(f.line(9).0, "");
        assert_eq!(f.dir(), Path::new("a"));
        assert_eq!(SourceFile::new("b.toml", "").dir(), Path::new("."));
    }
}
