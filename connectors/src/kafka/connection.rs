//! How brokers are reached: where they are, how the wire is protected, and who we are. Every client of this room is made
//! from a [`KafkaConnection`], so that what one can reach, all can.

use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::client::{ClientContext, OAuthToken};
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError as Rd, RDKafkaErrorCode};
use rdkafka::metadata::Metadata;

use super::KafkaError;
use super::oauth::Tokens;

/// A password, key phrase or token: it can be used, but is not shown by accident.
#[derive(Clone, PartialEq, Eq)]
pub struct Password(String);

impl Password {
    /// Keeps one.
    pub fn new(value: impl Into<String>) -> Self {
        Self(value.into())
    }

    pub(super) fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

/// TLS. The broker's certificate is always verified, and so is that it is for the host asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tls {
    /// PEM file of the authorities that may have signed the broker's certificate; the system's where there is none.
    pub ca: Option<PathBuf>,
    /// PEM files of our own certificate and its key, where the broker asks for one.
    pub identity: Option<TlsIdentity>,
}

/// Our own certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsIdentity {
    /// PEM file of the certificate, and of those between it and the authority.
    pub certificate: PathBuf,
    /// PEM file of its private key.
    pub key: PathBuf,
    /// What the key is encrypted with, if it is.
    pub key_password: Option<Password>,
}

/// Who we are, by SASL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sasl {
    /// Name and password as they are: only over TLS is that private.
    Plain {
        /// The user's name.
        username: String,
        /// Its password.
        password: Password,
    },
    /// Salted challenge and response.
    Scram {
        /// SHA-512 instead of SHA-256.
        sha512: bool,
        /// The user's name.
        username: String,
        /// Its password.
        password: Password,
    },
    /// A bearer token (RFC 7628).
    OAuthBearer(TokenSource),
}

impl Sasl {
    /// The mechanism's name.
    pub fn mechanism(&self) -> &'static str {
        match self {
            Sasl::Plain { .. } => "PLAIN",
            Sasl::Scram { sha512: false, .. } => "SCRAM-SHA-256",
            Sasl::Scram { sha512: true, .. } => "SCRAM-SHA-512",
            Sasl::OAuthBearer(_) => "OAUTHBEARER",
        }
    }
}

/// Where bearer tokens come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TokenSource {
    /// This one, for as long as it is good.
    Token(Password),
    /// Asked for at an endpoint with the client-credentials grant (RFC 6749 §4.4), and again when four fifths of its time
    /// are over.
    ClientCredentials {
        /// The endpoint's URL, http or https.
        endpoint: String,
        /// Who asks.
        client_id: String,
        /// Its secret.
        client_secret: Password,
        /// What for, if the endpoint wants to know.
        scope: Option<String>,
    },
}

/// How brokers are reached. Clones share tokens.
#[derive(Debug, Clone)]
pub struct KafkaConnection {
    brokers: String,
    tls: Option<Tls>,
    sasl: Option<Sasl>,
    tokens: Option<Arc<Tokens>>,
}

impl KafkaConnection {
    /// Brokers (`host:port`, several with commas) that ask for nothing, without encryption.
    pub fn plaintext(brokers: impl Into<String>) -> Self {
        Self { brokers: brokers.into(), tls: None, sasl: None, tokens: None }
    }

    /// The same, with TLS.
    #[must_use]
    pub fn with_tls(mut self, tls: Tls) -> Self {
        self.tls = Some(tls);
        self
    }

    /// The same, as this user.
    #[must_use]
    pub fn with_sasl(mut self, sasl: Sasl) -> Self {
        self.tokens = match &sasl {
            Sasl::OAuthBearer(source) => Some(Arc::new(Tokens::new(source.clone()))),
            Sasl::Plain { .. } | Sasl::Scram { .. } => None,
        };
        self.sasl = Some(sasl);
        self
    }

    /// `host:port`, several with commas.
    pub fn brokers(&self) -> &str {
        &self.brokers
    }

    /// Kafka's name of the protocol.
    pub fn protocol(&self) -> &'static str {
        match (&self.tls, &self.sasl) {
            (None, None) => "PLAINTEXT",
            (Some(_), None) => "SSL",
            (None, Some(_)) => "SASL_PLAINTEXT",
            (Some(_), Some(_)) => "SASL_SSL",
        }
    }

    /// Settings that every client begins with.
    pub(super) fn config(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", &self.brokers)
            .set("client.id", "avouch")
            .set("security.protocol", self.protocol().to_ascii_lowercase());
        if let Some(tls) = &self.tls {
            match &tls.ca {
                Some(ca) => config.set("ssl.ca.location", ca.to_string_lossy()),
                None => config.set("ssl.ca.location", "probe"),
            };
            if let Some(own) = &tls.identity {
                config
                    .set("ssl.certificate.location", own.certificate.to_string_lossy())
                    .set("ssl.key.location", own.key.to_string_lossy());
                if let Some(password) = &own.key_password {
                    config.set("ssl.key.password", password.expose());
                }
            }
        }
        if let Some(sasl) = &self.sasl {
            config.set("sasl.mechanism", sasl.mechanism());
            if let Sasl::Plain { username, password } | Sasl::Scram { username, password, .. } = sasl {
                config.set("sasl.username", username).set("sasl.password", password.expose());
            }
        }
        config
    }

    /// What every client carries.
    pub(super) fn context(&self) -> Context {
        Context { tokens: self.tokens.clone(), heard: Arc::default() }
    }

    /// A client that asks the brokers things, and reads nothing.
    pub(super) fn asking(&self, group: Option<&str>) -> Result<BaseConsumer<Context>, KafkaError> {
        let mut config = self.config();
        config
            .set("allow.auto.create.topics", "false")
            .set("enable.auto.commit", "false")
            .set("isolation.level", "read_committed");
        if let Some(group) = group {
            config.set("group.id", group);
        }
        let consumer: BaseConsumer<Context> =
            config.create_with_context(self.context()).map_err(|e| self.refused(e))?;
        self.arm(consumer.client().native_ptr())?;
        Ok(consumer)
    }

    /// Why a client could not even be made: almost always a file of TLS.
    pub(super) fn refused(&self, e: Rd) -> KafkaError {
        match (&e, &self.tls) {
            (Rd::ClientCreation(why), Some(_)) if why.contains("ssl.") || why.contains("SSL") => {
                KafkaError::Untrusted { brokers: self.brokers.clone(), why: why.clone() }
            }
            _ => KafkaError::client("Kafka client", e),
        }
    }

    /// Gives a new client its first token. Later ones it asks for itself, when it is polled.
    pub(super) fn arm(&self, client: *mut rdkafka_sys::rd_kafka_t) -> Result<(), KafkaError> {
        match &self.tokens {
            None => Ok(()),
            Some(tokens) => {
                tokens.give(client).map_err(|why| KafkaError::NotAdmitted { brokers: self.brokers.clone(), why })
            }
        }
    }

    /// What the brokers say of a topic (or of all). Returns as soon as it is clear that they will not say anything.
    pub(super) fn metadata(
        &self,
        consumer: &BaseConsumer<Context>,
        topic: Option<&str>,
        timeout: Duration,
    ) -> Result<Metadata, KafkaError> {
        let began = Instant::now();
        loop {
            let left = timeout.saturating_sub(began.elapsed());
            let error = match consumer.fetch_metadata(topic, left.min(Duration::from_secs(1))) {
                Ok(metadata) => return Ok(metadata),
                Err(e) => e,
            };
            // What went wrong with the connections waits in the queue.
            while consumer.poll(Duration::from_millis(50)).is_some() {}
            if let Some(clear) = consumer.context().heard().and_then(|heard| heard.into_error(&self.brokers)) {
                return Err(clear);
            }
            if began.elapsed() >= timeout {
                if let (Some(_), Some(why)) = (&self.tls, consumer.context().heard_words()) {
                    return Err(KafkaError::Untrusted { brokers: self.brokers.clone(), why });
                }
                return Err(KafkaError::Unreachable { brokers: self.brokers.clone(), source: error });
            }
        }
    }
}

/// What librdkafka said of the connections.
#[derive(Debug, Clone)]
pub(super) struct Heard {
    code: RDKafkaErrorCode,
    why: String,
}

impl Heard {
    /// The error, where it is one that waiting will not mend.
    fn into_error(self, brokers: &str) -> Option<KafkaError> {
        let brokers = brokers.to_owned();
        match self.code {
            RDKafkaErrorCode::Authentication | RDKafkaErrorCode::SaslAuthenticationFailed => {
                Some(KafkaError::NotAdmitted { brokers, why: self.why })
            }
            RDKafkaErrorCode::SSL => Some(KafkaError::Untrusted { brokers, why: self.why }),
            _ => None,
        }
    }
}

/// The words of librdkafka without where in its own workings they arose: what is left is the same at every attempt.
fn plain(reason: &str) -> String {
    // What it adds depends on when it notices.
    if reason.contains("SSL connection closed by peer") {
        return "the listener closed the connection during the handshake".to_owned();
    }
    let reason = reason.split(": ").skip_while(|part| part.contains("/bootstrap") || part.contains("://"));
    let reason = reason.collect::<Vec<_>>().join(": ");
    match reason.split_once(" (after ") {
        Some((before, _)) => before.to_owned(),
        None => reason,
    }
}

/// Serves what librdkafka asks of any client: tokens, and an ear for what goes wrong.
#[derive(Debug, Clone, Default)]
pub(super) struct Context {
    tokens: Option<Arc<Tokens>>,
    heard: Arc<Mutex<Option<Heard>>>,
}

impl Context {
    /// The last thing that went wrong with a connection and said why.
    pub fn heard(&self) -> Option<Heard> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Its words.
    pub fn heard_words(&self) -> Option<String> {
        self.heard().map(|h| h.why)
    }

    /// The error behind a failed call, where librdkafka has said one that waiting will not mend.
    pub fn clear_error(&self, brokers: &str) -> Option<KafkaError> {
        self.heard().and_then(|heard| heard.into_error(brokers))
    }

    pub(super) fn hear(&self, error: &Rd, reason: &str) {
        tracing::debug!(%error, reason, "kafka client");
        let Some(code) = error.rdkafka_error_code() else { return };
        // That all brokers are down follows the reason why, and says less.
        if code != RDKafkaErrorCode::AllBrokersDown {
            let heard = Heard { code, why: plain(reason) };
            *self.heard.lock().unwrap_or_else(PoisonError::into_inner) = Some(heard);
        }
    }

    pub(super) fn token(&self) -> Result<OAuthToken, Box<dyn std::error::Error>> {
        match &self.tokens {
            Some(tokens) => Ok(tokens.current()?),
            None => Err("this connection has no source of tokens".into()),
        }
    }
}

impl ClientContext for Context {
    const ENABLE_REFRESH_OAUTH_TOKEN: bool = true;

    fn error(&self, error: Rd, reason: &str) {
        self.hear(&error, reason);
    }

    fn generate_oauth_token(&self, _: Option<&str>) -> Result<OAuthToken, Box<dyn std::error::Error>> {
        self.token()
    }
}

impl ConsumerContext for Context {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_that_hangs_up_is_told_in_the_same_words() {
        let before = "ssl://127.0.0.1:9092/bootstrap: SSL handshake failed: Disconnected: SSL connection closed by peer: \
                      connecting to a PLAINTEXT broker listener? (after 3ms in state SSL_HANDSHAKE)";
        let after = "ssl://127.0.0.1:9092/bootstrap: Disconnected: SSL connection closed by peer (after 4ms in state APIVERSION_QUERY)";
        assert_eq!(plain(before), plain(after));
        let other =
            "ssl://127.0.0.1:9092/bootstrap: SSL handshake failed: error:0A000086 (after 3ms in state SSL_HANDSHAKE)";
        assert_eq!(plain(other), "SSL handshake failed: error:0A000086");
    }

    #[test]
    fn no_secret_is_shown() {
        let connection = KafkaConnection::plaintext("a:1")
            .with_tls(Tls {
                ca: None,
                identity: Some(TlsIdentity {
                    certificate: "c".into(),
                    key: "k".into(),
                    key_password: Some(Password::new("hunter2")),
                }),
            })
            .with_sasl(Sasl::OAuthBearer(TokenSource::ClientCredentials {
                endpoint: "http://a/token".into(),
                client_id: "me".into(),
                client_secret: Password::new("hunter2"),
                scope: None,
            }));
        assert_eq!(connection.protocol(), "SASL_SSL");
        assert!(!format!("{connection:?}").contains("hunter2"));
        let plain = KafkaConnection::plaintext("a:1")
            .with_sasl(Sasl::Plain { username: "u".into(), password: Password::new("hunter2") });
        assert_eq!(plain.protocol(), "SASL_PLAINTEXT");
        assert!(!format!("{plain:?}").contains("hunter2"));
    }

    #[test]
    fn reasons_are_the_same_at_every_attempt() {
        assert_eq!(
            plain(
                "sasl_plaintext://127.0.0.1:9092/bootstrap: SASL authentication error: Authentication failed: Invalid \
                 username or password (after 312ms in state AUTH_REQ)"
            ),
            "SASL authentication error: Authentication failed: Invalid username or password"
        );
    }
}
