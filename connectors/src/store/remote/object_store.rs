//! Any store that the `object_store` crate speaks to: S3 and what speaks its protocol; in tests, memory and a directory.

use std::sync::Arc;
use std::time::Duration;

use futures_util::TryStreamExt as _;
use object_store::aws::AmazonS3Builder;
use object_store::path::Path;
use object_store::{
    BackoffConfig, ClientOptions, Error, ObjectStore, ObjectStoreExt as _, PutMode, PutOptions, PutPayload, RetryConfig,
};
use tokio::runtime::Runtime;

use super::{ObjectError, Objects};

/// How to reach a bucket, beyond what the environment says (`AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`,
/// `AWS_SESSION_TOKEN`, `AWS_REGION`, `AWS_ENDPOINT`, `AWS_ALLOW_HTTP` and the others that the object_store crate reads).
#[derive(Clone, Default)]
pub struct ObjectStoreOptions {
    /// URL of the S3 service; Amazon's if absent. `http://` is taken only where it is written here.
    pub endpoint: Option<String>,
    /// Region.
    pub region: Option<String>,
    /// Access key.
    pub access_key: Option<String>,
    /// Secret key.
    pub secret_key: Option<String>,
    /// How long one request may take; 60 s if absent.
    pub timeout: Option<Duration>,
}

impl std::fmt::Debug for ObjectStoreOptions {
    /// Without the keys.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ObjectStoreOptions")
            .field("endpoint", &self.endpoint)
            .field("region", &self.region)
            .finish_non_exhaustive()
    }
}

/// A store and the small runtime that speaks to it, so that callers may block wherever they are.
pub(super) struct Client {
    store: Arc<dyn ObjectStore>,
    prefix: Path,
    url: String,
    runtime: Arc<Background>,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("url", &self.url).finish_non_exhaustive()
    }
}

struct Background(Option<Runtime>);

impl Drop for Background {
    fn drop(&mut self) {
        // A runtime must not be waited for where it is dropped in another's task.
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

/// Opens `s3://bucket/prefix`. Nothing is asked of the network yet.
///
/// # Errors
/// When the URL is not one, or credentials in the environment are incomplete.
pub fn open_object_store(url: &str, options: &ObjectStoreOptions) -> Result<ObjectStoreRoot, String> {
    let Some(("s3", rest)) = url.split_once("://") else {
        return Err(format!("{url} is not an s3:// URL"));
    };
    let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
    // Requests are tried again by the lane, which says so; here only what a lost connection needs.
    let retry = RetryConfig {
        max_retries: 1,
        retry_timeout: Duration::from_secs(10),
        backoff: BackoffConfig { init_backoff: Duration::from_millis(50), ..BackoffConfig::default() },
    };
    let client = ClientOptions::new()
        .with_timeout(options.timeout.unwrap_or(Duration::from_secs(60)))
        .with_connect_timeout(Duration::from_secs(5));
    let mut builder =
        AmazonS3Builder::from_env().with_bucket_name(bucket).with_retry(retry).with_client_options(client);
    if let Some(endpoint) = &options.endpoint {
        builder = builder.with_endpoint(endpoint).with_allow_http(endpoint.starts_with("http://"));
    } else if std::env::var("AWS_ALLOW_HTTP").is_ok_and(|v| v == "true" || v == "1") {
        // Options of the client replace those that came from the environment.
        builder = builder.with_allow_http(true);
    }
    if let Some(region) = &options.region {
        builder = builder.with_region(region);
    }
    if let Some(key) = &options.access_key {
        builder = builder.with_access_key_id(key);
    }
    if let Some(key) = &options.secret_key {
        builder = builder.with_secret_access_key(key);
    }
    let store = builder.build().map_err(|e| e.to_string())?;
    ObjectStoreRoot::new(Arc::new(store), prefix, &format!("s3://{bucket}"))
}

/// A bucket, or a prefix of one, with the lanes of pipelines under it.
#[derive(Clone)]
pub struct ObjectStoreRoot {
    store: Arc<dyn ObjectStore>,
    prefix: String,
    base: String,
    runtime: Arc<Background>,
}

impl std::fmt::Debug for ObjectStoreRoot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ObjectStoreRoot({}/{})", self.base, self.prefix)
    }
}

impl ObjectStoreRoot {
    /// Any store; `base` is its URL, for messages.
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn new(store: Arc<dyn ObjectStore>, prefix: &str, base: &str) -> Result<Self, String> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("avouch-objects")
            .enable_all()
            .build()
            .map_err(|e| format!("cannot start a thread: {e}"))?;
        let runtime = Arc::new(Background(Some(runtime)));
        Ok(Self { store, prefix: prefix.trim_matches('/').to_owned(), base: base.to_owned(), runtime })
    }

    /// The objects under a path below this one, such as `pump-health/0`.
    pub fn under(&self, path: &str) -> Arc<dyn Objects> {
        let joined = [self.prefix.as_str(), path].into_iter().filter(|p| !p.is_empty()).collect::<Vec<_>>().join("/");
        Arc::new(Client {
            store: Arc::clone(&self.store),
            url: format!("{}/{joined}", self.base),
            prefix: Path::from(joined),
            runtime: Arc::clone(&self.runtime),
        })
    }

    /// The names of what lies directly below a path, as directories.
    ///
    /// # Errors
    /// When it cannot be listed.
    pub fn directories(&self, path: &str) -> Result<Vec<String>, ObjectError> {
        let joined = [self.prefix.as_str(), path].into_iter().filter(|p| !p.is_empty()).collect::<Vec<_>>().join("/");
        let (store, prefix) = (Arc::clone(&self.store), Path::from(joined));
        let listed = wait(&self.runtime, async move { store.list_with_delimiter(Some(&prefix)).await })??;
        Ok(listed.common_prefixes.iter().filter_map(|p| p.filename().map(str::to_owned)).collect())
    }
}

/// Runs a future on the store's own thread and waits for it, whatever thread this is.
fn wait<T: Send + 'static>(
    runtime: &Background,
    future: impl Future<Output = object_store::Result<T>> + Send + 'static,
) -> Result<Result<T, ObjectError>, ObjectError> {
    let ended = || ObjectError { why: "the thread that speaks to the object store ended".into(), permanent: true };
    let runtime = runtime.0.as_ref().ok_or_else(ended)?;
    let (tell, told) = std::sync::mpsc::sync_channel(1);
    runtime.spawn(async move {
        // Nobody listens only if the waiting thread is gone.
        let _ = tell.send(future.await);
    });
    told.recv().map_err(|_| ended()).map(|answer| answer.map_err(|e| failed(&e)))
}

fn failed(error: &Error) -> ObjectError {
    let permanent = matches!(
        error,
        Error::PermissionDenied { .. }
            | Error::Unauthenticated { .. }
            | Error::NotFound { .. }
            | Error::NotSupported { .. }
    );
    // The outer words often say little; what the server said is at the end of the chain.
    let mut why = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(e) = source {
        let said = e.to_string();
        if !why.contains(&said) {
            why = format!("{why}: {said}");
        }
        source = e.source();
    }
    ObjectError { why: why.split_whitespace().collect::<Vec<_>>().join(" "), permanent }
}

impl Objects for Client {
    fn url(&self) -> String {
        self.url.clone()
    }

    fn put_new(&self, name: &str, bytes: &[u8]) -> Result<bool, ObjectError> {
        let (store, path) = (Arc::clone(&self.store), self.prefix.clone().join(name));
        let payload = PutPayload::from(bytes.to_vec());
        wait(&self.runtime, async move {
            let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
            match store.put_opts(&path, payload, options).await {
                Ok(_) => Ok(true),
                Err(Error::AlreadyExists { .. }) => Ok(false),
                Err(e) => Err(e),
            }
        })?
    }

    fn get(&self, name: &str) -> Result<Option<Vec<u8>>, ObjectError> {
        let (store, path) = (Arc::clone(&self.store), self.prefix.clone().join(name));
        wait(&self.runtime, async move {
            match store.get(&path).await {
                Ok(answer) => answer.bytes().await.map(|b| Some(b.to_vec())),
                Err(Error::NotFound { .. }) => Ok(None),
                Err(e) => Err(e),
            }
        })?
    }

    fn list(&self, beginning: &str) -> Result<Vec<(String, u64)>, ObjectError> {
        let (store, prefix) = (Arc::clone(&self.store), self.prefix.clone());
        let all = wait(&self.runtime, async move { store.list(Some(&prefix)).try_collect::<Vec<_>>().await })??;
        let direct = |m: object_store::ObjectMeta| {
            let mut rest = m.location.prefix_match(&self.prefix)?;
            let name = rest.next()?.as_ref().to_owned();
            (rest.next().is_none() && name.starts_with(beginning)).then_some((name, m.size))
        };
        Ok(all.into_iter().filter_map(direct).collect())
    }

    fn delete(&self, name: &str) -> Result<(), ObjectError> {
        let (store, path) = (Arc::clone(&self.store), self.prefix.clone().join(name));
        wait(&self.runtime, async move {
            match store.delete(&path).await {
                Err(Error::NotFound { .. }) => Ok(()),
                other => other,
            }
        })?
    }
}
