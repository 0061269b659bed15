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
//!   connection and mark that one as a redelivery too. What the publishing device itself sends twice is two messages.
//! - **Exactly once from the journal on.**
//! - QoS 0 is taken as it comes; MQTT promises nothing for it. QoS 2 is taken with the promise of QoS 1, because
//!   subscriptions ask for QoS 1.
//! - A broker drops messages larger than the packet size we ask for (`max_record_bytes` and the room a topic may take)
//!   without telling anyone; that is MQTT 5's rule.
//!
//! # Bounds
//!
//! The broker holds at most `receive_maximum` unacknowledged messages against us, and they take at most
//! [`UNACKED_BYTES`]. When the journal is full nothing is acknowledged, and the broker keeps the rest by its own rules
//! (mosquitto: `max_queued_messages`).

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rumqttc::Transport;
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{Filter, Packet, Publish, RetainForwardRule, SubscribeReasonCode};
use rumqttc::v5::{AsyncClient, Event, EventLoop, MqttOptions as Options};
use thiserror::Error;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};

use crate::journal::{JournalBatch, JournalError, JournalWriter, Message};

/// Bytes of messages that may be on their way between the connection and the journal.
pub const UNACKED_BYTES: usize = 64 << 20;
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
            // The channel has room for as many as can be unacknowledged; if not, the broker sends the message again.
            if let Err(e) = self.client.try_ack(&a.publish) {
                tracing::warn!(error = %e, "an acknowledgement was not sent; the message will come again");
            }
        }
    }

    /// A connection was lost: what is still to be acknowledged will come again.
    fn lost(&self, events: &mut EventLoop) {
        let mut connection = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        *connection += 1;
        events.clean();
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

/// Runs until `stop` turns true. Every message is durable in the journal before it is acknowledged.
///
/// # Errors
/// Those after which going on would be wrong: the journal failed, or a subscription was refused.
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
    let (client, mut events) = AsyncClient::new(connect, 2 * unacked + 16);
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
    let mut new_session = false;
    let mut pause = Duration::from_millis(100);
    loop {
        match events.poll().await {
            Ok(Event::Incoming(Packet::ConnAck(ack))) => {
                tracing::info!(host = options.host, session = ack.session_present, "connected to the MQTT broker");
                counts.connected.store(true, Ordering::Relaxed);
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
                for (code, filter) in ack.return_codes.iter().zip(&options.topics) {
                    if !matches!(code, SubscribeReasonCode::Success(_)) {
                        return Err(MqttError::Refused { filter: filter.clone(), why: format!("{code:?}") });
                    }
                }
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
                journal.commit()?;
                acks.acknowledge(&arrived);
                arrived.clear();
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
        let records = journal.gathered().1 as u64;
        journal.commit()?;
        acks.acknowledge(&arrived);
        arrived.clear();
        counts.messages.fetch_add(records, Ordering::Relaxed);
    }
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
