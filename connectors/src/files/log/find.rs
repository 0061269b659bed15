//! Where files are: a pattern on this machine, or in an object store.

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use sha2::{Digest as _, Sha256};

use super::super::FilesError;
use super::manifest::Begin;

/// A pattern, and where it holds.
#[derive(Debug, Clone)]
pub enum Place {
    /// On this machine.
    Local(String),
    /// In an object store.
    #[cfg(feature = "object-store")]
    Objects(Objects),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Local(pattern) => f.write_str(pattern),
            #[cfg(feature = "object-store")]
            Place::Objects(objects) => write!(f, "{}/{}", objects.name, objects.pattern),
        }
    }
}

/// A pattern in an object store.
#[cfg(feature = "object-store")]
#[derive(Debug, Clone)]
pub struct Objects {
    /// The store.
    pub store: std::sync::Arc<dyn object_store::ObjectStore>,
    /// How it is called in messages, such as `s3://bucket`.
    pub name: String,
    /// The pattern of keys.
    pub pattern: String,
    /// What drives its requests. The log is read outside of it.
    pub runtime: tokio::runtime::Handle,
}

#[cfg(feature = "object-store")]
impl Objects {
    /// Objects of an S3 bucket. Endpoint, region and credentials come from the environment, by the names that the
    /// `object_store` crate reads (`AWS_ACCESS_KEY_ID`, `AWS_ENDPOINT`, …). `pattern` is one of keys.
    ///
    /// # Errors
    /// Settings that contradict each other.
    pub fn s3(bucket: &str, pattern: &str, runtime: tokio::runtime::Handle) -> Result<Self, FilesError> {
        let name = format!("s3://{bucket}");
        let store = object_store::aws::AmazonS3Builder::from_env().with_bucket_name(bucket).build();
        let store =
            store.map_err(|e| FilesError::Io { path: name.clone().into(), source: std::io::Error::other(e) })?;
        Ok(Self { store: std::sync::Arc::new(store), name, pattern: pattern.to_owned(), runtime })
    }
}

/// Finds, compares and brings files. Their names are relative to the pattern's fixed directory, so a directory can be
/// moved together with the state.
pub(super) enum Finder {
    Local {
        pattern: String,
        base: PathBuf,
    },
    #[cfg(feature = "object-store")]
    Objects(objects::ObjectFinder),
}

/// A pattern without the `./` it may begin with, which is how what it finds is named: a name with it would not be found to
/// lie under its directory.
fn here(mut pattern: &str) -> &str {
    while let Some(rest) = pattern.strip_prefix("./") {
        pattern = rest.trim_start_matches('/');
    }
    pattern
}

/// A file, there to be read.
#[derive(Debug)]
pub(super) struct Fetched {
    pub path: PathBuf,
    pub size: u64,
    pub sha256: String,
    pub etag: Option<String>,
    pub modified_ms: i64,
}

impl Finder {
    pub fn new(place: &Place) -> Result<Self, FilesError> {
        Ok(match place {
            Place::Local(pattern) => {
                let pattern = here(pattern);
                Finder::Local { pattern: pattern.to_owned(), base: fixed(pattern).into() }
            }
            #[cfg(feature = "object-store")]
            Place::Objects(objects) => Finder::Objects(objects::ObjectFinder::new(objects)?),
        })
    }

    /// The names of all files that match, in their order.
    pub fn find(&self) -> Result<Vec<String>, FilesError> {
        match self {
            Finder::Local { pattern, base } => {
                let bad = |e: glob::PatternError| FilesError::Pattern { pattern: pattern.clone(), why: e.msg.into() };
                // As a shell does: `*` stays within a directory and leaves hidden files out.
                let options = glob::MatchOptions {
                    case_sensitive: true,
                    require_literal_separator: true,
                    require_literal_leading_dot: true,
                };
                let mut names = Vec::new();
                for path in glob::glob_with(pattern, options).map_err(bad)? {
                    let path = path.map_err(|e| FilesError::Io { path: e.path().to_path_buf(), source: e.into() })?;
                    if !path.is_file() {
                        continue;
                    }
                    let name = path.strip_prefix(base).unwrap_or(&path).to_str();
                    let Some(name) = name else {
                        let source = std::io::Error::other("its name is not UTF-8; rename it");
                        return Err(FilesError::Io { path, source });
                    };
                    names.push(name.to_owned());
                }
                names.sort();
                Ok(names)
            }
            #[cfg(feature = "object-store")]
            Finder::Objects(objects) => objects.find(),
        }
    }

    /// Errs when a file is no longer what it was when its reading began. One that is gone has not changed.
    pub fn unchanged(&self, name: &str, begin: &Begin) -> Result<(), FilesError> {
        match self {
            Finder::Local { base, .. } => {
                let path = base.join(name);
                let (size, modified_ms) = match facts(&path) {
                    Ok(facts) => facts,
                    Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
                    Err(source) => return Err(FilesError::Io { path, source }),
                };
                if size != begin.size {
                    let what = format!("it had {} bytes and now has {size}", begin.size);
                    return Err(FilesError::Changed { name: path.display().to_string(), what });
                }
                // Touched, or written again: only its contents tell.
                if modified_ms != begin.modified_ms {
                    let now = hash(&path).map_err(|source| FilesError::Io { path: path.clone(), source })?;
                    if now != begin.sha256 {
                        let what = format!("its SHA-256 was {} and now is {now}", begin.sha256);
                        return Err(FilesError::Changed { name: path.display().to_string(), what });
                    }
                }
                Ok(())
            }
            #[cfg(feature = "object-store")]
            Finder::Objects(objects) => objects.unchanged(name, begin),
        }
    }

    /// Makes a file readable on this machine. `as_it_was`: what it must be.
    pub fn fetch(&self, name: &str, as_it_was: Option<&Begin>, dir: &Path) -> Result<Fetched, FilesError> {
        match self {
            Finder::Local { base, .. } => {
                let path = base.join(name);
                let io = |source| FilesError::Io { path: path.clone(), source };
                let (size, modified_ms) = match facts(&path) {
                    Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                        return Err(gone(path.display().to_string(), as_it_was));
                    }
                    facts => facts.map_err(io)?,
                };
                let sha256 = match as_it_was {
                    Some(begin) => begin.sha256.clone(),
                    None => hash(&path).map_err(io)?,
                };
                Ok(Fetched { size, sha256, etag: None, modified_ms, path })
            }
            #[cfg(feature = "object-store")]
            Finder::Objects(objects) => objects.fetch(name, as_it_was, dir),
        }
    }
}

fn gone(name: String, as_it_was: Option<&Begin>) -> FilesError {
    let what = match as_it_was {
        Some(_) => "rows of it are still to be read",
        None => "it was there when the pattern was looked at, but has not been read",
    };
    FilesError::Gone { name, what }
}

/// The directory before the first part of a pattern that has a wildcard (or before the last part), with its `/`.
fn fixed(pattern: &str) -> &str {
    let wild = pattern.find(['*', '?', '[']).unwrap_or(pattern.len());
    &pattern[..pattern[..wild].rfind('/').map_or(0, |i| i + 1)]
}

/// Size, and milliseconds since the epoch when it was last modified.
fn facts(path: &Path) -> std::io::Result<(u64, i64)> {
    let meta = std::fs::metadata(path)?;
    let modified = meta.modified()?.duration_since(UNIX_EPOCH).unwrap_or_default();
    Ok((meta.len(), i64::try_from(modified.as_millis()).unwrap_or(i64::MAX)))
}

fn hash(path: &Path) -> std::io::Result<String> {
    let mut file = File::open(path)?;
    let mut digest = Sha256::new();
    let mut buffer = vec![0; 1 << 18];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok(hex(&digest.finalize())),
            Ok(n) => digest.update(&buffer[..n]),
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

#[cfg(feature = "object-store")]
mod objects {
    use std::fs::File;
    use std::io::Write as _;
    use std::path::Path;
    use std::sync::Arc;

    use futures_util::TryStreamExt as _;
    use object_store::{GetOptions, ObjectStore, ObjectStoreExt as _, path::Path as Key};
    use sha2::{Digest as _, Sha256};

    use super::super::super::FilesError;
    use super::super::manifest::Begin;
    use super::{Fetched, Objects, fixed, gone, hash, hex};

    pub(in super::super) struct ObjectFinder {
        objects: Objects,
        pattern: glob::Pattern,
        base: String,
    }

    impl ObjectFinder {
        pub fn new(objects: &Objects) -> Result<Self, FilesError> {
            let pattern = glob::Pattern::new(&objects.pattern)
                .map_err(|e| FilesError::Pattern { pattern: objects.pattern.clone(), why: e.msg.into() })?;
            Ok(Self { base: fixed(&objects.pattern).to_owned(), pattern, objects: objects.clone() })
        }

        fn failed(&self, key: &str, e: object_store::Error) -> FilesError {
            let path = format!("{}/{key}", self.objects.name).into();
            FilesError::Io { path, source: std::io::Error::other(e) }
        }

        pub fn find(&self) -> Result<Vec<String>, FilesError> {
            let prefix = self.base.trim_end_matches('/');
            let prefix = (!prefix.is_empty()).then(|| Key::from(prefix));
            let store: &Arc<dyn ObjectStore> = &self.objects.store;
            let found = self.objects.runtime.block_on(store.list(prefix.as_ref()).try_collect::<Vec<_>>());
            let found = found.map_err(|e| self.failed(&self.base, e))?;
            let options = glob::MatchOptions {
                case_sensitive: true,
                require_literal_separator: true,
                require_literal_leading_dot: true,
            };
            let mut names: Vec<String> = found
                .iter()
                .map(|m| m.location.as_ref())
                .filter(|key| self.pattern.matches_with(key, options))
                .filter_map(|key| key.strip_prefix(&self.base).map(str::to_owned))
                .collect();
            names.sort();
            Ok(names)
        }

        pub fn unchanged(&self, name: &str, begin: &Begin) -> Result<(), FilesError> {
            let key = format!("{}{name}", self.base);
            let meta = match self.objects.runtime.block_on(self.objects.store.head(&Key::from(key.as_str()))) {
                Ok(meta) => meta,
                Err(object_store::Error::NotFound { .. }) => return Ok(()),
                Err(e) => return Err(self.failed(&key, e)),
            };
            if meta.size != begin.size || meta.e_tag != begin.etag {
                let shown = |tag: &Option<String>| tag.clone().unwrap_or_else(|| "none".into());
                let what = format!(
                    "it had {} bytes and the ETag {}, and now has {} and {}",
                    begin.size,
                    shown(&begin.etag),
                    meta.size,
                    shown(&meta.e_tag)
                );
                return Err(FilesError::Changed { name: format!("{}/{key}", self.objects.name), what });
            }
            Ok(())
        }

        pub fn fetch(&self, name: &str, as_it_was: Option<&Begin>, dir: &Path) -> Result<Fetched, FilesError> {
            let key = format!("{}{name}", self.base);
            let path = dir.join("object");
            if let Some(b) = as_it_was
                && std::fs::metadata(&path).is_ok_and(|m| m.len() == b.size)
                && hash(&path).is_ok_and(|h| h == b.sha256)
            {
                let (sha256, etag) = (b.sha256.clone(), b.etag.clone());
                return Ok(Fetched { path, size: b.size, sha256, etag, modified_ms: b.modified_ms });
            }
            let io = |source| FilesError::Io { path: path.clone(), source };
            let mut file = File::create(&path).map_err(io)?;
            let mut digest = Sha256::new();
            let options = GetOptions { if_match: as_it_was.and_then(|b| b.etag.clone()), ..GetOptions::default() };
            let got = self.objects.runtime.block_on(async {
                let got = self.objects.store.get_opts(&Key::from(key.as_str()), options).await?;
                let meta = got.meta.clone();
                let mut stream = got.into_stream();
                let mut written = Ok(());
                while let Some(bytes) = stream.try_next().await? {
                    digest.update(&bytes);
                    written = file.write_all(&bytes);
                    if written.is_err() {
                        break;
                    }
                }
                Ok::<_, object_store::Error>((meta, written))
            });
            let (meta, written) = got.map_err(|e| match e {
                object_store::Error::NotFound { .. } => gone(format!("{}/{key}", self.objects.name), as_it_was),
                e => self.failed(&key, e),
            })?;
            written.map_err(io)?;
            let sha256 = hex(&digest.finalize());
            if let Some(b) = as_it_was
                && b.sha256 != sha256
            {
                let what = format!("its SHA-256 was {} and now is {sha256}", b.sha256);
                return Err(FilesError::Changed { name: format!("{}/{key}", self.objects.name), what });
            }
            let modified_ms = as_it_was.map_or_else(|| meta.last_modified.timestamp_millis(), |b| b.modified_ms);
            Ok(Fetched { path, size: meta.size, sha256, etag: meta.e_tag, modified_ms })
        }
    }
}
