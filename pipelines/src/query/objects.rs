//! An archive in an object store, for DataFusion to read.
//!
//! DataFusion speaks to the `object_store` crate in another version than the sink that writes the archive. So this is the sink's
//! store, with the sink's settings and credentials, behind DataFusion's trait: listing and reading of ranges, and nothing
//! that writes. Only the days and the parts of files that a query needs are brought over.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use datafusion::object_store as theirs;
use futures_util::stream::BoxStream;
use futures_util::{StreamExt as _, TryStreamExt as _};
use object_store as ours;

/// What may be read of a store.
#[derive(Debug)]
pub(super) struct ReadOnly {
    store: Arc<dyn ours::ObjectStore>,
    /// Only files of this sink, where several share a place.
    only: Option<String>,
}

impl ReadOnly {
    pub fn new(store: Arc<dyn ours::ObjectStore>, only: Option<&str>) -> Self {
        Self { store, only: only.map(|sink| format!(".{sink}.")) }
    }

    /// Whether there is any Parquet file of a day under a prefix.
    pub async fn has_files(&self, prefix: &ours::path::Path) -> Result<bool, ours::Error> {
        let mut all = self.store.list(Some(prefix));
        while let Some(object) = all.try_next().await? {
            let path = object.location.as_ref();
            if path.ends_with(".parquet") && path.contains("day=") && shown(self.only.as_deref(), path) {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

impl fmt::Display for ReadOnly {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.store)
    }
}

/// Whether a file is of the sink that is asked for.
fn shown(only: Option<&str>, path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or(path);
    only.is_none_or(|sink| name.contains(sink))
}

fn our_path(path: &theirs::path::Path) -> theirs::Result<ours::path::Path> {
    ours::path::Path::parse(path.as_ref()).map_err(|e| generic(Box::new(e)))
}

fn their_path(path: &ours::path::Path) -> theirs::Result<theirs::path::Path> {
    Ok(theirs::path::Path::parse(path.as_ref())?)
}

fn generic(source: Box<dyn std::error::Error + Send + Sync>) -> theirs::Error {
    theirs::Error::Generic { store: "the archive's store", source }
}

/// The same error in DataFusion's version.
fn their_error(e: ours::Error) -> theirs::Error {
    use ours::Error as E;
    match e {
        E::NotFound { path, source } => theirs::Error::NotFound { path, source },
        E::NotSupported { source } => theirs::Error::NotSupported { source },
        E::Precondition { path, source } => theirs::Error::Precondition { path, source },
        E::NotModified { path, source } => theirs::Error::NotModified { path, source },
        E::PermissionDenied { path, source } => theirs::Error::PermissionDenied { path, source },
        E::Unauthenticated { path, source } => theirs::Error::Unauthenticated { path, source },
        other => generic(Box::new(other)),
    }
}

fn their_meta(m: ours::ObjectMeta) -> theirs::Result<theirs::ObjectMeta> {
    Ok(theirs::ObjectMeta {
        location: their_path(&m.location)?,
        last_modified: m.last_modified,
        size: m.size,
        e_tag: m.e_tag,
        version: m.version,
    })
}

fn our_options(o: theirs::GetOptions) -> ours::GetOptions {
    ours::GetOptions {
        if_match: o.if_match,
        if_none_match: o.if_none_match,
        if_modified_since: o.if_modified_since,
        if_unmodified_since: o.if_unmodified_since,
        range: o.range.map(|r| match r {
            theirs::GetRange::Bounded(r) => ours::GetRange::Bounded(r),
            theirs::GetRange::Offset(n) => ours::GetRange::Offset(n),
            theirs::GetRange::Suffix(n) => ours::GetRange::Suffix(n),
        }),
        version: o.version,
        head: o.head,
        ..ours::GetOptions::default()
    }
}

/// An archive is asked, never written.
fn not_written() -> theirs::Error {
    theirs::Error::NotSupported { source: "an archive is only read here".into() }
}

#[async_trait]
impl theirs::ObjectStore for ReadOnly {
    async fn put_opts(
        &self,
        _: &theirs::path::Path,
        _: theirs::PutPayload,
        _: theirs::PutOptions,
    ) -> theirs::Result<theirs::PutResult> {
        Err(not_written())
    }

    async fn put_multipart_opts(
        &self,
        _: &theirs::path::Path,
        _: theirs::PutMultipartOptions,
    ) -> theirs::Result<Box<dyn theirs::MultipartUpload>> {
        Err(not_written())
    }

    async fn get_opts(
        &self,
        location: &theirs::path::Path,
        options: theirs::GetOptions,
    ) -> theirs::Result<theirs::GetResult> {
        let answer = self.store.get_opts(&our_path(location)?, our_options(options)).await.map_err(their_error)?;
        let (meta, range) = (their_meta(answer.meta.clone())?, answer.range.clone());
        let bytes = answer.into_stream().map_err(their_error).boxed();
        let payload = theirs::GetResultPayload::Stream(bytes);
        Ok(theirs::GetResult { payload, meta, range, attributes: theirs::Attributes::default() })
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, theirs::Result<theirs::path::Path>>,
    ) -> BoxStream<'static, theirs::Result<theirs::path::Path>> {
        locations.map(|_| Err(not_written())).boxed()
    }

    fn list(&self, prefix: Option<&theirs::path::Path>) -> BoxStream<'static, theirs::Result<theirs::ObjectMeta>> {
        let prefix = match prefix.map(our_path).transpose() {
            Ok(prefix) => prefix,
            Err(e) => return futures_util::stream::once(async { Err(e) }).boxed(),
        };
        let only = self.only.clone();
        let listed = self.store.list(prefix.as_ref()).map_err(their_error);
        let of_sink = listed.try_filter(move |m| {
            let shown = shown(only.as_deref(), m.location.as_ref());
            async move { shown }
        });
        of_sink.and_then(|m| async { their_meta(m) }).boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&theirs::path::Path>) -> theirs::Result<theirs::ListResult> {
        let prefix = prefix.map(our_path).transpose()?;
        let listed = self.store.list_with_delimiter(prefix.as_ref()).await.map_err(their_error)?;
        let of_sink = listed.objects.into_iter().filter(|m| shown(self.only.as_deref(), m.location.as_ref()));
        Ok(theirs::ListResult {
            common_prefixes: listed.common_prefixes.iter().map(their_path).collect::<Result<_, _>>()?,
            objects: of_sink.map(their_meta).collect::<Result<_, _>>()?,
        })
    }

    async fn copy_opts(
        &self,
        _: &theirs::path::Path,
        _: &theirs::path::Path,
        _: theirs::CopyOptions,
    ) -> theirs::Result<()> {
        Err(not_written())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use datafusion::object_store::{ObjectStore as _, ObjectStoreExt as _};
    use ours::ObjectStoreExt as _;

    use super::*;

    #[tokio::test]
    async fn it_reads_what_is_there_and_writes_nothing() {
        let memory = Arc::new(ours::memory::InMemory::new());
        for (path, bytes) in [
            ("a/day=2026-01-07/p-0.archive.0-1.parquet", "0123456789"),
            ("a/day=2026-01-07/p-0.other.0-1.parquet", "x"),
            ("a/_cursors/p-0.archive.json", "{}"),
        ] {
            ours::ObjectStoreExt::put(memory.as_ref(), &path.into(), bytes.into()).await.unwrap();
        }
        let store = ReadOnly::new(memory.clone(), Some("archive"));
        assert!(store.has_files(&"a".into()).await.unwrap() && !store.has_files(&"b".into()).await.unwrap());
        let path = theirs::path::Path::parse("a/day=2026-01-07/p-0.archive.0-1.parquet").unwrap();
        assert_eq!(store.get_range(&path, 2..5).await.unwrap(), "234");
        assert_eq!(store.head(&path).await.unwrap().size, 10);
        let names: Vec<String> =
            store.list(Some(&"a".into())).map_ok(|m| m.location.to_string()).try_collect().await.unwrap();
        assert_eq!(names, ["a/_cursors/p-0.archive.json", "a/day=2026-01-07/p-0.archive.0-1.parquet"]);
        let days = store.list_with_delimiter(Some(&"a".into())).await.unwrap().common_prefixes;
        assert_eq!(days.len(), 2);
        let missing = store.get(&"nothing".into()).await.unwrap_err();
        assert!(matches!(missing, theirs::Error::NotFound { .. }), "{missing}");
        let written = store.put(&"new".into(), "x".into()).await.unwrap_err();
        assert!(matches!(written, theirs::Error::NotSupported { .. }), "{written}");
        assert!(store.delete(&path).await.is_err());
        assert_eq!(memory.get(&path.to_string().into()).await.unwrap().meta.size, 10);
    }
}
