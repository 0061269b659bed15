//! MQTT 5 into a journal.
//!
//! ```text
//!   broker ─ PUBLISH ─► connection ─► gathered ─► journal, fsynced ─► PUBACK
//! ```
//!
//! # What is promised
//!
//! - **Nothing the broker hands over is lost.** A message of QoS 1 or 2 is acknowledged only when it is durable in the
//!   journal. The session outlives the connection (`session_expiry`), so the broker keeps what arrives meanwhile.
//! - **At least once into the journal.** A crash or a lost connection between fsync and PUBACK makes the broker send the
//!   message again. A redelivery (DUP) that repeats, under its packet identifier and within its session, the very topic
//!   and payload that the journal holds under it is acknowledged and not written again. That catches what a crash causes.
//!   Packet identifier and session alone would not do: the broker may use an identifier for a new message, lose the
//!   connection and mark that one as a redelivery too. What the publishing device itself sends twice is two messages,
//!   unless the broker gives the second the identifier of the first, the two are equal to the byte, and the connection
//!   breaks before the second is acknowledged: it is then taken for the redelivery it claims to be.
//! - **Exactly once from the journal on.**
//! - QoS 0 is taken as it comes; MQTT promises nothing for it. QoS 2 is taken with the promise of QoS 1, because
//!   subscriptions ask for QoS 1.
//! - A broker drops messages larger than the packet size we ask for (`max_record_bytes` and the room a topic may take)
//!   without telling anyone; that is MQTT 5's rule.
//!
//! # Bounds
//!
//! We ask the broker for at most `receive_maximum` unacknowledged messages; whatever it makes of that (mosquitto 2.0.11 sends
//! more), what was received and is not in the journal takes at most [`UNACKED_BYTES`], and then we stop reading. When the journal is full nothing is acknowledged, and the broker keeps the rest by its own rules
//! (mosquitto: `max_queued_messages`).

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rumqttc::Transport;
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{ConnectReturnCode, Filter, Packet, Publish, RetainForwardRule, SubscribeReasonCode};
use rumqttc::v5::{AsyncClient, ConnectionError, Event, EventLoop, MqttOptions as Options};
use thiserror::Error;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};

use crate::journal::{JournalBatch, JournalError, JournalWriter, Message};

/// Bytes of messages that may be on their way between the connection and the journal, at most.
pub const UNACKED_BYTES: usize = 64 << 20;
/// There are so many packet identifiers, so no more acknowledgements can be on their way.
const IDENTIFIERS: usize = 65_535;
/// What a packet may have beside its payload: a topic and properties.
const BESIDE_PAYLOAD: usize = 72 << 10;
const MOST_UNACKED: usize = 4_096;
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// How to connect and what to subscribe to.
#[derive(Clone)]
pub struct MqttOptions {
    /// Host of the broker.
    pub host: String,
    /// Port.
    pub port: u16,
    /// TLS: with the certificates of this machine, or with these authorities (PEM).
    pub tls: Option<Option<Vec<u8>>>,
    /// The name the session is kept under. Two connections under one name throw each other out.
    pub client_id: String,
    /// User and password.
    pub credentials: Option<(String, String)>,
    /// Topic filters.
    pub topics: Vec<String>,
    /// How long the broker keeps the session after the connection is lost, seconds.
    pub session_expiry: u32,
    /// Largest payload.
    pub max_record_bytes: usize,
}

impl std::fmt::Debug for MqttOptions {
    // Without the password.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "MQTT {}@{}:{} {:?}", self.client_id, self.host, self.port, self.topics)
    }
}

/// Why the bridge cannot go on. What passes by itself (a broker that is away) is waited for instead.
#[derive(Debug, Error)]
pub enum MqttError {
    /// The journal.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// A subscription was refused.
    #[error("the broker refuses the subscription to \"{filter}\": {why}")]
    Refused {
        /// The filter.
        filter: String,
        /// Its reason.
        why: String,
    },
    /// The broker does not let us in, and has not since this process began.
    #[error("the MQTT broker {host}:{port} refuses the connection: {why}")]
    Rejected {
        /// Its host.
        host: String,
        /// Its port.
        port: u16,
        /// Its reason, and what to do.
        why: String,
    },
    /// There is no answer; only [`probe`] minds.
    #[error("there is no MQTT broker at {host}:{port}: {why}")]
    Away {
        /// The host.
        host: String,
        /// The port.
        port: u16,
        /// What was said.
        why: String,
    },
    /// A filter is no topic filter.
    #[error("\"{0}\" is not an MQTT topic filter")]
    Filter(String),
    /// A part of the bridge ended.
    #[error("the MQTT bridge ended: {0}")]
    Ended(String),
}

/// What the bridge has done since it began; for metrics.
#[derive(Debug, Default)]
pub struct Counts {
    /// Whether a connection stands.
    pub connected: AtomicBool,
    /// Messages written to the journal.
    pub messages: AtomicU64,
    /// Redeliveries that the journal held already.
    pub redeliveries: AtomicU64,
    /// Connections that failed or were lost.
    pub failures: AtomicU64,
}

struct Arrived {
    publish: Publish,
    arrived_ms: i64,
    /// The connection it came by.
    connection: u64,
    /// Set on the first message after the broker had forgotten our session.
    new_session: bool,
    _room: OwnedSemaphorePermit,
}

/// Acknowledgements go out only by the connection the message came by: after a lost session its packet identifier means
/// another message.
struct Acks {
    client: AsyncClient,
    connection: Mutex<u64>,
}

impl Acks {
    fn acknowledge(&self, arrived: &[Arrived]) {
        let connection = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        for a in arrived.iter().filter(|a| a.connection == *connection) {
            // The channel has room for an acknowledgement of each identifier; only a client that is ending takes none.
            if let Err(e) = self.client.try_ack(&a.publish) {
                tracing::warn!(error = %e, "an acknowledgement was not sent; the message comes again on the next connection");
            }
        }
    }

    /// A connection was lost: what is still to be acknowledged will come again.
    fn lost(&self, events: &mut EventLoop) {
        let mut connection = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        *connection += 1;
        events.clean();
        // What it had received and not handed on yet would else count as received by the next connection.
        events.state.events.clear();
    }

    fn connection(&self) -> u64 {
        *self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How many unacknowledged messages of this size may be under way.
fn receive_maximum(max_packet: usize) -> u16 {
    (UNACKED_BYTES / max_packet.max(1)).clamp(1, MOST_UNACKED) as u16
}

fn connect_options(o: &MqttOptions) -> Options {
    let packet = o.max_record_bytes.saturating_add(BESIDE_PAYLOAD).min(u32::MAX as usize);
    let mut options = Options::new(&o.client_id, &o.host, o.port);
    options
        .set_clean_start(false)
        .set_session_expiry_interval(Some(o.session_expiry))
        .set_receive_maximum(Some(receive_maximum(packet)))
        .set_max_packet_size(Some(packet as u32))
        .set_keep_alive(Duration::from_secs(30))
        .set_manual_acks(true);
    if let Some((user, password)) = &o.credentials {
        options.set_credentials(user, password);
    }
    options
}

/// Why a broker that answered did not let us in, and what to do; `None` for what may pass by itself.
fn rejected(code: ConnectReturnCode) -> Option<&'static str> {
    use ConnectReturnCode as C;
    Some(match code {
        C::BadUserNamePassword => "user name or password is wrong; correct `username` and `password`",
        C::NotAuthorized => {
            "it does not let this client in; correct `username`, `password` or `client_id`, or its access list"
        }
        C::BadClientId | C::ClientIdentifierNotValid => "it does not take this `client_id`",
        C::Banned => "this client is banned there",
        C::RefusedProtocolVersion | C::UnsupportedProtocolVersion => "it does not speak MQTT 5",
        C::BadAuthenticationMethod => "it wants another kind of authentication than user name and password",
        C::UseAnotherServer | C::ServerMoved => "it has moved; correct `url`",
        _ => return None,
    })
}

/// Errs unless each filter was granted, with QoS 1.
fn granted(codes: &[SubscribeReasonCode], filters: &[String]) -> Result<(), MqttError> {
    for (code, filter) in codes.iter().zip(filters) {
        let why = match code {
            SubscribeReasonCode::Success(QoS::AtMostOnce) => {
                "it grants QoS 0 only, by which messages are lost".to_owned()
            }
            SubscribeReasonCode::Success(_) => continue,
            SubscribeReasonCode::NotAuthorized => {
                "this client may not read it; see the broker's access list".to_owned()
            }
            other => format!("{other:?}"),
        };
        return Err(MqttError::Refused { filter: filter.clone(), why });
    }
    Ok(())
}

/// Whether the broker is there, lets us in and grants the subscriptions. Makes a session of its own that ends with the
/// connection, under `client_id` and `.check`, so that one that runs is not disturbed. Shared subscriptions are not tried: they
/// would take messages from the others.
///
/// # Errors
/// [`MqttError::Away`], [`MqttError::Rejected`], [`MqttError::Refused`].
pub async fn probe(options: &MqttOptions, timeout: Duration) -> Result<(), MqttError> {
    let mut connect =
        connect_options(&MqttOptions { client_id: format!("{}.check", options.client_id), ..options.clone() });
    connect.set_clean_start(true).set_session_expiry_interval(None);
    if let Some(authorities) = &options.tls {
        connect.set_transport(tls(authorities.clone()));
    }
    let away = |why: String| MqttError::Away { host: options.host.clone(), port: options.port, why };
    let (client, mut events) = AsyncClient::new(connect, 16);
    let topics: Vec<String> = options.topics.iter().filter(|t| !t.starts_with("$share/")).cloned().collect();
    let asking = async {
        loop {
            match events.poll().await {
                Ok(Event::Incoming(Packet::ConnAck(_))) if topics.is_empty() => return Ok(()),
                Ok(Event::Incoming(Packet::ConnAck(_))) => {
                    let filters = topics.iter().map(|topic| Filter {
                        retain_forward_rule: RetainForwardRule::Never,
                        ..Filter::new(topic.as_str(), QoS::AtLeastOnce)
                    });
                    client.try_subscribe_many(filters).map_err(|_| MqttError::Filter(topics.join("\", \"")))?;
                }
                Ok(Event::Incoming(Packet::SubAck(ack))) => return granted(&ack.return_codes, &topics),
                Ok(_) => {}
                Err(e) => return Err(refusal(options, &e).unwrap_or_else(|| away(e.to_string()))),
            }
        }
    };
    match tokio::time::timeout(timeout, asking).await {
        Ok(outcome) => outcome,
        Err(_) => Err(away(format!("no answer in {timeout:?}"))),
    }
}

/// The error if a broker has refused us for good.
fn refusal(options: &MqttOptions, e: &ConnectionError) -> Option<MqttError> {
    let ConnectionError::ConnectionRefused(code) = e else { return None };
    let why = rejected(*code)?.to_owned();
    Some(MqttError::Rejected { host: options.host.clone(), port: options.port, why })
}

/// Runs until `stop` turns true. Every message is durable in the journal before it is acknowledged.
///
/// # Errors
/// Those after which going on would be wrong: the journal failed, a subscription was refused, or the broker does not let
/// us in and has not since the beginning. A broker that once let us in is asked for ever.
pub async fn run(
    options: MqttOptions,
    journal: JournalWriter,
    counts: Arc<Counts>,
    mut stop: watch::Receiver<bool>,
) -> Result<(), MqttError> {
    let mut connect = connect_options(&options);
    if let Some(authorities) = &options.tls {
        connect.set_transport(tls(authorities.clone()));
    }
    let unacked = usize::from(connect.receive_maximum().unwrap_or(1));
    let (client, mut events) = AsyncClient::new(connect, IDENTIFIERS + 16);
    let acks = Arc::new(Acks { client: client.clone(), connection: Mutex::new(0) });
    let handle = journal.handle();
    let (send, receive) = mpsc::channel::<Arrived>(2 * unacked);
    let keeper = {
        let (acks, counts) = (acks.clone(), counts.clone());
        tokio::task::spawn_blocking(move || keep(journal, receive, &acks, &counts))
    };
    let outcome = tokio::select! {
        outcome = listen(&options, &client, &mut events, &acks, &counts, &send) => outcome,
        _ = stop.wait_for(|s| *s) => Ok(()),
    };
    counts.connected.store(false, Ordering::Relaxed);
    // What was not acknowledged stays with the broker; a journal that waits for room is let go.
    acks.lost(&mut events);
    drop(send);
    handle.close();
    let kept = match keeper.await {
        Ok(kept) => kept,
        Err(e) => Err(MqttError::Ended(e.to_string())),
    };
    let stopped = *stop.borrow();
    match (outcome, kept) {
        // A journal that was let go while it waited for room has lost nothing.
        (_, Err(MqttError::Journal(JournalError::Failed { .. }))) if stopped => Ok(()),
        (_, Err(e)) | (Err(e), Ok(())) => Err(e),
        (Ok(()), Ok(())) => Ok(()),
    }
}

/// The connection: hands on what arrives, and connects again for ever.
async fn listen(
    options: &MqttOptions,
    client: &AsyncClient,
    events: &mut EventLoop,
    acks: &Acks,
    counts: &Counts,
    send: &mpsc::Sender<Arrived>,
) -> Result<(), MqttError> {
    let room = Arc::new(Semaphore::new(UNACKED_BYTES));
    let (mut new_session, mut was_in) = (false, false);
    let mut pause = Duration::from_millis(100);
    loop {
        match events.poll().await {
            Ok(Event::Incoming(Packet::ConnAck(ack))) => {
                tracing::info!(host = options.host, session = ack.session_present, "connected to the MQTT broker");
                counts.connected.store(true, Ordering::Relaxed);
                was_in = true;
                let kept = ack.properties.and_then(|p| p.session_expiry_interval).unwrap_or(options.session_expiry);
                if kept < options.session_expiry {
                    tracing::warn!(
                        kept,
                        wanted = options.session_expiry,
                        "the broker keeps what arrives while we are away for fewer seconds than `session_expiry` says"
                    );
                }
                new_session |= !ack.session_present;
                pause = Duration::from_millis(100);
                let filters = options.topics.iter().map(|topic| Filter {
                    // Retained messages come when a subscription is new, not whenever we connect.
                    retain_forward_rule: RetainForwardRule::OnNewSubscribe,
                    ..Filter::new(topic.as_str(), QoS::AtLeastOnce)
                });
                client.try_subscribe_many(filters).map_err(|_| MqttError::Filter(options.topics.join("\", \"")))?;
            }
            Ok(Event::Incoming(Packet::SubAck(ack))) => {
                granted(&ack.return_codes, &options.topics)?;
            }
            Ok(Event::Incoming(Packet::Publish(publish))) => {
                let bytes = (publish.payload.len() + publish.topic.len() + 256).min(UNACKED_BYTES) as u32;
                let Ok(room) = room.clone().acquire_many_owned(bytes).await else {
                    return Err(MqttError::Ended("its memory was closed".into()));
                };
                let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                let arrived = Arrived {
                    publish,
                    arrived_ms: i64::try_from(now.as_millis()).unwrap_or(i64::MAX),
                    connection: acks.connection(),
                    new_session: std::mem::take(&mut new_session),
                    _room: room,
                };
                if send.send(arrived).await.is_err() {
                    // The keeper has ended, and its error says why.
                    return Ok(());
                }
            }
            Ok(_) => {}
            Err(e) => {
                acks.lost(events);
                counts.connected.store(false, Ordering::Relaxed);
                if let Some(refused) = refusal(options, &e).filter(|_| !was_in) {
                    return Err(refused);
                }
                counts.failures.fetch_add(1, Ordering::Relaxed);
                tracing::warn!(host = options.host, port = options.port, error = %e, ?pause, "no connection to the MQTT broker");
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
        }
        if send.is_closed() {
            return Ok(());
        }
    }
}

/// The journal's thread: gathers what has arrived, makes it durable in one go, acknowledges it.
fn keep(
    mut journal: JournalWriter,
    mut receive: mpsc::Receiver<Arrived>,
    acks: &Acks,
    counts: &Counts,
) -> Result<(), MqttError> {
    let mut arrived: Vec<Arrived> = Vec::new();
    while let Some(first) = receive.blocking_recv() {
        let mut next = Some(first);
        while let Some(a) = next {
            if a.new_session {
                // Identifiers of a session stand in groups of their own.
                durable(&mut journal, &mut arrived, acks, counts)?;
                journal.new_session();
            }
            let p = &a.publish;
            if p.dup && journal.holds(p.pkid, &p.topic, &p.payload) {
                counts.redeliveries.fetch_add(1, Ordering::Relaxed);
            } else {
                journal.append(Message {
                    arrived_ms: a.arrived_ms,
                    packet: p.pkid,
                    topic: &p.topic,
                    value: &p.payload,
                });
            }
            arrived.push(a);
            let (bytes, records) = journal.gathered();
            let full = bytes >= JournalBatch::GROUP_BYTES || records >= MOST_UNACKED;
            next = if full { None } else { receive.try_recv().ok() };
        }
        durable(&mut journal, &mut arrived, acks, counts)?;
    }
    Ok(())
}

/// Makes what was gathered durable, then acknowledges it.
fn durable(
    journal: &mut JournalWriter,
    arrived: &mut Vec<Arrived>,
    acks: &Acks,
    counts: &Counts,
) -> Result<(), MqttError> {
    let records = journal.gathered().1 as u64;
    journal.commit()?;
    acks.acknowledge(arrived);
    arrived.clear();
    counts.messages.fetch_add(records, Ordering::Relaxed);
    Ok(())
}

fn tls(authorities: Option<Vec<u8>>) -> Transport {
    use rumqttc::tokio_rustls::rustls::crypto::{CryptoProvider, aws_lc_rs};

    // Whoever comes first decides for the process; an error only says that someone has.
    if CryptoProvider::get_default().is_none() {
        let _ = aws_lc_rs::default_provider().install_default();
    }
    match authorities {
        Some(ca) => Transport::tls(ca, None, None),
        None => Transport::tls_with_default_config(),
    }
}
