//! Values from outside the file: `${env:NAME}`, `${env:NAME:-default}` and `${file:path}` inside strings.
//!
//! Interpolation happens after parsing, into string values only, so nothing that comes from outside can add a key or
//! close a quote. What came in is never shown: a [`Text`] shows what stands in the file, a [`SecretString`] nothing.
//! `$${` is a literal `${`.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

use super::span::Span;

/// Where interpolated values come from.
pub trait Environment {
    /// The variable's value; `None` when it is not set or not Unicode.
    fn var(&self, name: &str) -> Option<String>;
    /// A file's bytes.
    fn read(&self, path: &Path) -> io::Result<Vec<u8>>;
}

/// This process's environment and the local file system.
#[derive(Debug, Clone, Copy, Default)]
pub struct ProcessEnvironment;

impl Environment for ProcessEnvironment {
    fn var(&self, name: &str) -> Option<String> {
        std::env::var(name).ok()
    }
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        std::fs::read(path)
    }
}

/// A string that may have been interpolated. Shows itself as it stands in the file; [`Text::as_str`] is the value.
#[derive(Clone, PartialEq, Eq)]
pub struct Text {
    raw: String,
    value: String,
    /// Its place in the file.
    pub span: Span,
}

impl Text {
    pub(super) fn new(raw: impl Into<String>, value: impl Into<String>, span: Span) -> Self {
        Self { raw: raw.into(), value: value.into(), span }
    }
    /// The value to use.
    pub fn as_str(&self) -> &str {
        &self.value
    }
    /// As it stands in the file, safe to show.
    pub fn raw(&self) -> &str {
        &self.raw
    }
    /// Whether anything in it came from outside the file.
    pub fn is_interpolated(&self) -> bool {
        self.raw != self.value
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.raw.fmt(f)
    }
}

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.raw)
    }
}

/// A secret. It can be used, but neither shown nor compared by accident.
#[derive(Clone)]
pub struct SecretString(String);

impl SecretString {
    /// Keeps a secret.
    pub fn new(value: impl Into<String>) -> Self {
        Self(value.into())
    }
    /// The secret itself; take care where it goes.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for SecretString {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

/// Why a value from outside could not be put in. `at` are byte offsets in the string.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(super) enum InterpolationError {
    #[error("`${{` is not closed")]
    Unclosed { at: usize },
    // Neither shows what stands between the braces: it may be part of a literal password.
    #[error("this `${{…}}` does not say where its value comes from")]
    NoScheme { at: usize },
    #[error("this `${{…}}` names a place no value comes from")]
    UnknownScheme { at: usize },
    #[error("`{name}` is not the name of an environment variable")]
    BadName { at: usize, name: String },
    #[error("the environment variable `{name}` is not set")]
    Unset { at: usize, name: String },
    #[error("the file `{path}` cannot be read ({why})")]
    File { at: usize, path: String, why: String },
}

impl InterpolationError {
    pub fn at(&self) -> usize {
        match self {
            Self::Unclosed { at }
            | Self::NoScheme { at }
            | Self::UnknownScheme { at }
            | Self::BadName { at, .. }
            | Self::Unset { at, .. }
            | Self::File { at, .. } => *at,
        }
    }

    /// Whether what is named is not there, rather than named wrongly.
    pub fn is_missing(&self) -> bool {
        matches!(self, Self::Unset { .. } | Self::File { .. })
    }

    pub fn code(&self) -> &'static str {
        match self {
            Self::Unset { .. } => "missing-variable",
            Self::File { .. } => "missing-file",
            _ => "bad-interpolation",
        }
    }

    pub fn help(&self) -> String {
        match self {
            Self::Unclosed { .. } => "close it with `}`, or write `$${` for a literal `${`".into(),
            Self::NoScheme { .. } | Self::UnknownScheme { .. } | Self::BadName { .. } => {
                "write `${env:NAME}`, `${env:NAME:-default}` or `${file:path}`; `$${` is a literal `${`".into()
            }
            Self::Unset { name, .. } => {
                format!("set it (`export {name}=…`), or give a default: `${{env:{name}:-default}}`")
            }
            Self::File { .. } => "create the file, or correct the path; it is relative to the pipeline file".into(),
        }
    }
}

/// Files are small: a password, a key. More than this is a mistake in the path.
const MAX_FILE: usize = 64 * 1024;

/// Whether a string would be interpolated.
pub(super) fn has_interpolation(raw: &str) -> bool {
    raw.match_indices("${").any(|(i, _)| {
        let rest = &raw[i + 2..];
        !raw[..i].ends_with('$') && (rest.starts_with("env:") || rest.starts_with("file:"))
    })
}

/// Puts outside values into `raw`. All mistakes are reported, not only the first.
pub(super) fn interpolate(raw: &str, dir: &Path, env: &dyn Environment) -> Result<String, Vec<InterpolationError>> {
    let mut out = String::with_capacity(raw.len());
    let mut errors = Vec::new();
    let mut at = 0;
    while let Some(found) = raw[at..].find("${") {
        let start = at + found;
        if raw[at..start].ends_with('$') {
            out.push_str(&raw[at..start]);
            out.push('{');
            at = start + 2;
            continue;
        }
        out.push_str(&raw[at..start]);
        let Some(len) = raw[start..].find('}') else {
            errors.push(InterpolationError::Unclosed { at: start });
            at = raw.len();
            break;
        };
        match resolve(&raw[start + 2..start + len], start, dir, env) {
            Ok(value) => out.push_str(&value),
            Err(e) => errors.push(e),
        }
        at = start + len + 1;
    }
    out.push_str(&raw[at..]);
    if errors.is_empty() { Ok(out) } else { Err(errors) }
}

fn resolve(inside: &str, at: usize, dir: &Path, env: &dyn Environment) -> Result<String, InterpolationError> {
    let Some((scheme, rest)) = inside.split_once(':') else {
        return Err(InterpolationError::NoScheme { at });
    };
    match scheme {
        "env" => {
            let (name, default) = match rest.split_once(":-") {
                Some((name, default)) => (name, Some(default)),
                None => (rest, None),
            };
            if !is_name(name) {
                return Err(InterpolationError::BadName { at, name: name.to_owned() });
            }
            // As in a shell: `:-` also replaces a variable that is set but empty.
            match (env.var(name), default) {
                (Some(value), None) => Ok(value),
                (Some(value), Some(_)) if !value.is_empty() => Ok(value),
                (_, Some(default)) => Ok(default.to_owned()),
                (None, None) => Err(InterpolationError::Unset { at, name: name.to_owned() }),
            }
        }
        "file" => {
            let path: PathBuf = dir.join(rest);
            let fail = |why: String| InterpolationError::File { at, path: rest.to_owned(), why };
            let bytes = env.read(&path).map_err(|e| fail(e.kind().to_string()))?;
            if bytes.len() > MAX_FILE {
                return Err(fail(format!("it is larger than {} KiB", MAX_FILE / 1024)));
            }
            let text = String::from_utf8(bytes).map_err(|_| fail("it is not UTF-8".into()))?;
            // Editors end a file with a newline; it is not part of the value.
            let text = text.strip_suffix('\n').map_or(text.as_str(), |t| t.strip_suffix('\r').unwrap_or(t));
            Ok(text.to_owned())
        }
        _ => Err(InterpolationError::UnknownScheme { at }),
    }
}

fn is_name(name: &str) -> bool {
    let mut chars = name.chars();
    chars.next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_')
        && chars.all(|c| c.is_ascii_alphanumeric() || c == '_')
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    struct Fake;
    impl Environment for Fake {
        fn var(&self, name: &str) -> Option<String> {
            match name {
                "A" => Some("alpha".into()),
                "EMPTY" => Some(String::new()),
                "EVIL" => Some("${env:A} \" = ]".into()),
                _ => None,
            }
        }
        fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
            match path.to_str() {
                Some("/dir/secret") => Ok(b"s3cret\r\n".to_vec()),
                Some("/abs") => Ok(b"two\nlines\n".to_vec()),
                Some("/dir/big") => Ok(vec![b'x'; MAX_FILE + 1]),
                Some("/dir/binary") => Ok(vec![0xff]),
                _ => Err(io::ErrorKind::NotFound.into()),
            }
        }
    }

    fn go(raw: &str) -> Result<String, Vec<InterpolationError>> {
        interpolate(raw, Path::new("/dir"), &Fake)
    }

    #[test]
    fn values_come_in_once_and_only_as_text() {
        assert_eq!(go("a ${env:A} b ${env:B:-beta}${env:EMPTY:-e}").unwrap(), "a alpha b betae");
        assert_eq!(go("${env:EMPTY}").unwrap(), "");
        assert_eq!(go("${env:B:-}").unwrap(), "");
        assert_eq!(go("${env:B:-http://localhost:9092}").unwrap(), "http://localhost:9092");
        assert_eq!(go("${env:EVIL}").unwrap(), "${env:A} \" = ]", "what came in is not read again");
        assert_eq!(go("${file:secret}|${file:/abs}").unwrap(), "s3cret|two\nlines");
        assert_eq!(go("costs $5, $${env:A} and {x}").unwrap(), "costs $5, ${env:A} and {x}");
    }

    #[test]
    fn every_mistake_is_named_at_its_place() {
        let errors =
            go("${env:B} ${file:none} ${A} ${vault:x} ${env:1} ${file:big} ${file:binary} ${env:A").unwrap_err();
        let codes: Vec<_> = errors.iter().map(|e| (e.at(), e.code())).collect();
        assert_eq!(
            codes,
            [
                (0, "missing-variable"),
                (9, "missing-file"),
                (22, "bad-interpolation"),
                (27, "bad-interpolation"),
                (38, "bad-interpolation"),
                (47, "missing-file"),
                (59, "missing-file"),
                (74, "bad-interpolation"),
            ]
        );
    }

    #[test]
    fn secrets_and_outside_values_do_not_show() {
        assert_eq!(format!("{:?}", SecretString::new("hunter2")), "[redacted]");
        let text = Text::new("${env:KEY}", "hunter2", Span::default());
        assert!(!format!("{text:?} {text}").contains("hunter2"));
        assert!(text.is_interpolated());
    }

    #[test]
    fn what_counts_as_interpolated() {
        assert!(has_interpolation("x ${env:A}") && has_interpolation("${file:a}"));
        assert!(!has_interpolation("${x}") && !has_interpolation("$${env:A}") && !has_interpolation("plain"));
    }
}
