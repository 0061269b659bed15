//! Schemas for lanes that read Avro: asked for when a record needs one, waited for when the registry is down.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use avouch_connectors::schema_registry::{RegistryAuth, RegistryError, RegistrySchema, SchemaRegistry};
use avouch_engine::decode::SchemaAnswer;
use avouch_engine::ingest::DeviceReader;
use avouch_engine::lane::Lane;
use tokio::runtime::Handle;

use crate::lang::{Format, Pipeline, RegistryLogin};

/// How long "there is none" is believed: long enough that a flood of bad records is no flood of requests, short enough
/// that who registers the schema late need not restart anything.
const BELIEVE: Duration = Duration::from_secs(30);
/// Most ids of which it is believed at a time; a producer can make up four billion.
const MOST_UNKNOWN: usize = 256;
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// The client of a pipeline's registry, if it has one; schemas are kept in `state`'s directory `schemas`.
pub fn registry(pipeline: &Pipeline, state: &Path) -> Result<Option<Arc<SchemaRegistry>>, RegistryError> {
    let Format::Avro(registry) = &pipeline.source.format else { return Ok(None) };
    let auth = match &registry.login {
        RegistryLogin::None => RegistryAuth::None,
        RegistryLogin::Basic { username, password } => {
            RegistryAuth::Basic { username: username.as_str().to_owned(), password: password.value.expose().to_owned() }
        }
        RegistryLogin::Token(token) => RegistryAuth::Token(token.value.expose().to_owned()),
    };
    SchemaRegistry::new(registry.url.as_str(), auth, &state.join("schemas")).map(Arc::new).map(Some)
}

/// What decodes by schemas that it must be told.
pub trait Learns {
    /// See [`Lane::learn_schema`].
    fn learn_schema(&mut self, id: u32, answer: SchemaAnswer<'_>);
    /// See [`Lane::forget_schema`].
    fn forget_schema(&mut self, id: u32);
}

impl Learns for Lane {
    fn learn_schema(&mut self, id: u32, answer: SchemaAnswer<'_>) {
        Lane::learn_schema(self, id, answer);
    }

    fn forget_schema(&mut self, id: u32) {
        Lane::forget_schema(self, id);
    }
}

impl Learns for DeviceReader {
    fn learn_schema(&mut self, id: u32, answer: SchemaAnswer<'_>) {
        DeviceReader::learn_schema(self, id, answer);
    }

    fn forget_schema(&mut self, id: u32) {
        DeviceReader::forget_schema(self, id);
    }
}

/// One lane's dealings with the registry.
#[derive(Debug)]
pub struct Schemas {
    registry: Arc<SchemaRegistry>,
    handle: Handle,
    unknown: VecDeque<(u32, Instant)>,
    pause: Duration,
}

impl Schemas {
    /// To be used in a thread of its own, which may block on `handle`.
    pub fn new(registry: Arc<SchemaRegistry>, handle: Handle) -> Self {
        Self { registry, handle, unknown: VecDeque::new(), pause: FIRST_PAUSE }
    }

    /// Asks once for the schema a lane needs, and tells the lane the answer.
    ///
    /// # Errors
    /// When there is no answer: the caller waits for [`Schemas::pause`] and asks again. The lane is as before.
    pub fn learn(&mut self, lane: &mut impl Learns, id: u32) -> Result<(), RegistryError> {
        let answer = self.handle.block_on(self.registry.schema(id))?;
        self.pause = FIRST_PAUSE;
        match &answer {
            RegistrySchema::Avro(json) => {
                tracing::info!(id, registry = self.registry.url(), "schema learnt");
                lane.learn_schema(id, SchemaAnswer::Avro(json));
            }
            RegistrySchema::Unusable(why) => {
                tracing::warn!(id, why, "a schema cannot be used; its records are dead letters");
                lane.learn_schema(id, SchemaAnswer::Unusable(why));
            }
            RegistrySchema::Unknown => {
                tracing::warn!(
                    id,
                    registry = self.registry.url(),
                    "the registry has no such schema; its records are dead letters"
                );
                lane.learn_schema(id, SchemaAnswer::Unknown);
                self.unknown.push_back((id, Instant::now()));
                if self.unknown.len() > MOST_UNKNOWN
                    && let Some((oldest, _)) = self.unknown.pop_front()
                {
                    lane.forget_schema(oldest);
                }
            }
        }
        Ok(())
    }

    /// How long to wait before asking again; longer each time until there is an answer.
    pub fn pause(&mut self) -> Duration {
        let now = self.pause;
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        now
    }

    /// Lets the lane ask again for what the registry did not have a while ago.
    pub fn forget_old(&mut self, lane: &mut impl Learns) {
        while let Some((id, at)) = self.unknown.front()
            && at.elapsed() >= BELIEVE
        {
            lane.forget_schema(*id);
            self.unknown.pop_front();
        }
    }
}
