//! `avouch demo`: the whole path on a simulated fleet, from a reading in Kafka to a verdict verified against a chain.
//!
//! ```text
//!   Fleet ─► Kafka (embedded) ─► runtime ─► verdict log ─► VerdictLog on anvil
//!     └─ truth ───────────► judged ◄──────────┘ └─► bundle ─► verified, and refused once tampered with
//! ```
//!
//! The simulator is paced by the consumer: it stays at most [`UNDER_WAY`] rows ahead of what the lanes count as read,
//! because the embedded broker drops older messages without a word.

mod anvil;
mod board;
mod error;
mod evidence;
mod judged;
mod place;
mod summary;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use avouch_connectors::ethereum::{Address, Contract, Endpoint, OperatorKey, RpcOptions, deploy};
use avouch_connectors::kafka::{EmbeddedBroker, KafkaConnection};
use avouch_connectors::store::LaneReader;
use avouch_engine::dead_letter::DeadLetter;
use avouch_engine::decode::format_timestamp;
use avouch_engine::verdict::{Logged, Severity, VerdictRecord, class};
use clap::Args;
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use super::produce::{Pace, Pacer, Publisher, TopicOptions, create_topic};
use crate::lang::{self, Diagnostics, Pipeline, format_duration, grouped, parse_duration};
use crate::runtime::metrics::Metrics;
use crate::runtime::{self, RunOptions, Share, lane_dir, state_dir};
use crate::simulator::{Fleet, FleetConfig, GroundTruth};
use anvil::Anvil;
use board::{Board, Seen};
use place::{Blanks, Place};
use summary::{Anchored, Check, Evidence, Rows, Seconds, Summary};

pub use error::DemoError;

/// Rows sent and not yet counted as read by the lanes, at most: some 1.3 MB, a quarter of what the embedded broker keeps
/// of one partition.
const UNDER_WAY: u64 = 10_000;
/// 2026-01-07T08:00:00Z: the fleet is judged from here on, and was healthy at the same hours of the day before.
const START: i64 = 1_767_772_800_000;
const DAY: i64 = 86_400_000;
/// Healthy hours the model is trained on, beginning an hour earlier in the day.
const HEALTHY: i64 = 4 * 3_600_000;
/// How long deliveries and anchors may take after the last row.
const PATIENCE: Duration = Duration::from_secs(120);

/// Run the whole path on a simulated fleet: train, judge, anchor, then bundle a verdict and verify it.
///
/// Without arguments it starts all it needs: a broker inside the process (librdkafka's mock: it keeps nothing after the
/// end, drops old messages, and so gives at-least-once delivery), and anvil, a development chain, from npm.
#[derive(Debug, Clone, Args)]
pub struct DemoArgs {
    /// Brokers of a real Kafka, as host:port separated by commas, instead of the embedded one; new topics are created there
    #[arg(long, value_name = "BROKERS")]
    pub brokers: Option<String>,

    /// JSON-RPC endpoint of a real chain, instead of anvil
    #[arg(long, value_name = "URL", requires = "key_env")]
    pub rpc: Option<String>,

    /// Environment variable with the private key that deploys, signs and pays on that chain
    #[arg(long, value_name = "NAME", requires = "rpc")]
    pub key_env: Option<String>,

    /// A VerdictLog that is on that chain already; otherwise one is deployed
    #[arg(long, value_name = "ADDRESS", requires = "rpc")]
    pub contract: Option<Address>,

    /// The anvil program to start [default: the contracts' folder, the PATH, or npx]
    #[arg(long, value_name = "FILE", conflicts_with = "rpc")]
    pub anvil: Option<PathBuf>,

    /// New or empty directory to work in, left as it is at the end [default: a new one for temporary files]
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,

    /// Pumps; about a quarter of them has a fault
    #[arg(long, default_value_t = 40, value_parser = clap::value_parser!(u32).range(40..=10_000), value_name = "N")]
    pub devices: u32,

    /// Event time covered
    #[arg(long, default_value = "2h", value_parser = duration, value_name = "DURATION")]
    pub duration: i64,

    /// Seconds of event time in a second, such as 160x, or `max` for as fast as the lanes read
    #[arg(long, default_value = "160x", value_parser = speed, value_name = "Nx|max")]
    pub speed: Pace,

    /// Lanes: partitions of the topic
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(i32).range(1..=64), value_name = "N")]
    pub lanes: i32,

    /// Decides everything random in the fleet
    #[arg(long, default_value_t = 7, value_name = "N")]
    pub seed: u64,

    /// Print nothing but a JSON summary
    #[arg(long)]
    pub json: bool,
}

fn duration(text: &str) -> Result<i64, String> {
    let ms = parse_duration(text).map_err(|e| e.to_string())?;
    // Late rows are held back for up to a quarter of an hour, and faults need time to grow.
    if ms < 1_800_000 { Err("use 30m or more: faults need time to grow".into()) } else { Ok(ms) }
}

fn speed(text: &str) -> Result<Pace, String> {
    if text == "max" {
        return Ok(Pace::Unlimited);
    }
    match text.trim_end_matches('x').parse::<f64>() {
        Ok(factor) if factor.is_finite() && factor > 0.0 => Ok(Pace::Speed { factor }),
        _ => Err("write a factor such as 160x, or max".into()),
    }
}

/// Runs the demo. Exit code 0 if everything that is claimed held: rows conserved, everything anchored, the evidence
/// accepted, and refused once tampered with; 130 if interrupted.
pub fn run(args: &DemoArgs) -> ExitCode {
    let place = match Place::new(args.dir.as_deref()) {
        Ok(place) => place,
        Err(e) => return super::fail(args.json, e),
    };
    if let Err(e) = log_to(&place.file("avouch.log")) {
        return super::fail(args.json, e);
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(r) => r,
        Err(e) => return super::fail(args.json, format!("cannot start the async runtime: {e}")),
    };
    // Outlives every client of it.
    let broker = match args.brokers {
        Some(_) => None,
        None => match EmbeddedBroker::start() {
            Ok(broker) => Some(broker),
            Err(e) => return super::fail(args.json, e),
        },
    };
    let outcome = runtime.block_on(async {
        tokio::select! {
            outcome = demo(args, &place, broker.as_ref()) => outcome,
            () = interrupted() => Err(DemoError::Interrupted(place.dir.clone())),
        }
    });
    let code = match &outcome {
        Ok(summary) if args.json => {
            println!("{}", json!(summary));
            if summary.ok { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Ok(summary) => {
            // A closed pipe is the reader's choice, not an error of ours.
            let _ = std::io::stdout().write_all(summary.to_text().as_bytes());
            if summary.ok { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(e) => {
            if !args.json {
                // Below the table, and after the terminal's ^C.
                eprintln!();
            }
            let code = super::fail(args.json, e);
            if matches!(e, DemoError::Interrupted(_)) { ExitCode::from(130) } else { code }
        }
    };
    if outcome.is_err() {
        // Lanes may still be reading; the process ends under them, which their checkpoints are made for.
        runtime.shutdown_background();
        std::mem::forget(broker);
    }
    code
}

async fn interrupted() {
    let (Ok(mut term), Ok(mut int)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt())) else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = term.recv() => {}
        _ = int.recv() => {}
    }
}

fn log_to(path: &Path) -> Result<(), DemoError> {
    let file = File::create(path).map_err(|e| DemoError::file(path, e))?;
    let filter = super::log_filter();
    let logs = tracing_subscriber::fmt().with_env_filter(filter).with_ansi(false).with_writer(Mutex::new(file));
    // A subscriber that is set already belongs to whoever runs this as a library.
    let _ = logs.try_init();
    Ok(())
}

/// Where the demo runs.
struct Outside {
    brokers: String,
    prefix: String,
    rpc: String,
    chain_id: u64,
    contract: Address,
    signer: Address,
    deployment_gas: Option<u64>,
    _anvil: Option<Anvil>,
}

async fn demo(args: &DemoArgs, place: &Place, broker: Option<&EmbeddedBroker>) -> Result<Summary, DemoError> {
    let began = Instant::now();
    let say = |what: &str, text: String| {
        if !args.json {
            eprintln!("  {what:<12} {text}");
        }
    };
    if !args.json {
        eprintln!(
            "{} pumps, {} of their time; about a quarter of them has a fault\n",
            args.devices,
            format_duration(args.duration)
        );
    }
    say("directory", place.dir.display().to_string());
    let outside = outside(args, place, broker, &say).await?;

    let at = Instant::now();
    let (pipeline, training_rows) = {
        let (args, place) = (args.clone(), Place { dir: place.dir.clone() });
        blocking(move || train(&args, &place)).await?
    };
    let (plan, model) = plan(&pipeline)?;
    let training = at.elapsed().as_secs_f64();
    say("model", format!("{}… from {} healthy rows, {training:.1} s", &model[..16], grouped(training_rows)));
    if !args.json {
        eprintln!();
    }

    let at = Instant::now();
    let (seen, truth) = judge(args, place, &outside, &pipeline, plan).await?;
    let running = at.elapsed().as_secs_f64();
    place.write("truth.json", &truth.to_json().map_err(|e| DemoError::Thread(e.to_string()))?)?;
    if !args.json {
        eprintln!();
    }

    let state = state_dir(&pipeline);
    let lanes = args.lanes;
    let (verdicts, dead) = blocking(move || read_back(&state, lanes)).await?;
    let evidence = prove(place, &outside, &pipeline, &verdicts, &truth).await?;
    let anchored = Anchored {
        chain_id: outside.chain_id,
        contract: outside.contract.to_string(),
        deployment_gas: outside.deployment_gas,
        log_size: seen.log,
        anchored_size: seen.anchored,
        anchors: seen.anchors,
        gas: seen.gas,
        gas_per_anchor: seen.gas as f64 / seen.anchors.max(1) as f64,
        gas_per_verdict: seen.gas as f64 / seen.anchored.max(1) as f64,
    };
    let rows = Rows {
        simulated: truth.rows,
        read: seen.rows_in,
        used: seen.rows_used,
        dead_letters: summary::by_reason(&seen.dead),
        planted: BTreeMap::from([
            ("undecodable", truth.bad_rows),
            ("late", truth.late_rows),
            ("future", truth.future_rows),
        ]),
    };
    let checks = checks(&seen, &rows, &verdicts, &dead, &evidence);
    let summary = Summary {
        ok: checks.iter().all(|c| c.holds),
        directory: place.dir.display().to_string(),
        brokers: outside.brokers.clone(),
        delivery: pipeline.delivery.value.name(),
        devices: args.devices,
        lanes: args.lanes,
        training_rows,
        model,
        seconds: Seconds { training, running, total: began.elapsed().as_secs_f64() },
        rows,
        verdicts: Severity::ALL.iter().map(|s| (s.name(), seen.verdicts[*s as usize])).collect(),
        definition: judged::DEFINITION,
        quality: judged::confusions(&verdicts, &truth),
        detections: judged::detections(&verdicts, &dead, &truth),
        anchored,
        evidence,
        checks,
    };
    place.write("summary.json", &json!(summary).to_string())?;
    Ok(summary)
}

/// Starts or finds the broker and the chain, deploys the contract, writes the pipeline file.
async fn outside(
    args: &DemoArgs,
    place: &Place,
    broker: Option<&EmbeddedBroker>,
    say: &impl Fn(&str, String),
) -> Result<Outside, DemoError> {
    let ms = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis());
    let (brokers, prefix) = match (&args.brokers, broker) {
        // Names of their own: rows of an earlier demo would be read again.
        (Some(brokers), _) => (brokers.clone(), format!("avouch-demo-{ms}")),
        (None, Some(broker)) => (broker.brokers(), "pumps".to_owned()),
        (None, None) => return Err(DemoError::Thread("no broker was started".into())),
    };
    for name in ["telemetry", "verdicts", "dead"] {
        let topic = format!("{prefix}.{name}");
        match broker {
            Some(broker) => broker.create_topic(&topic, args.lanes)?,
            None => {
                let (brokers, lanes) = (brokers.clone(), args.lanes);
                let options = TopicOptions { partitions: Some(lanes), replication: None };
                blocking(move || Ok(create_topic(&KafkaConnection::plaintext(brokers), &topic, &options, &[])?))
                    .await?;
            }
        }
    }
    if broker.is_some() {
        say("Kafka", format!("embedded at {brokers} (librdkafka's mock): it keeps nothing, drops old"));
        say("", "messages, and proves nothing about delivery, so: at-least-once".into());
    } else {
        say("Kafka", format!("{brokers}, topics {prefix}.*, exactly-once"));
    }

    let (anvil, rpc, key, key_blank) = match (&args.rpc, &args.key_env) {
        (Some(rpc), Some(name)) => (None, rpc.clone(), OperatorKey::from_env(name)?, format!("${{env:{name}}}")),
        _ => {
            let anvil = Anvil::start(args.anvil.as_deref(), &place.file("anvil.log")).await?;
            let key = OperatorKey::from_hex(anvil::KEY).ok_or_else(|| DemoError::NoAnvil("its key is wrong".into()))?;
            let url = anvil.url().to_owned();
            (Some(anvil), url, key, anvil::KEY.to_owned())
        }
    };
    let (chain_id, contract, deployment_gas) = match args.contract {
        Some(contract) => (Endpoint::new(&rpc, RpcOptions::default())?.chain_id().await?, contract, None),
        None => {
            let d = deploy(Contract::VerdictLog, &rpc, None, &key, RpcOptions::default()).await?;
            (d.chain_id, d.contract, Some(d.gas_used))
        }
    };
    let rpc_blank = if anvil.is_some() {
        rpc.clone()
    } else {
        place.write_private("rpc", &rpc)?;
        "${file:rpc}".to_owned()
    };
    let name = if anvil.is_some() { format!("anvil {rpc}") } else { format!("chain {chain_id}") };
    say("chain", format!("{name}, VerdictLog {contract}"));
    let blanks = Blanks {
        brokers: brokers.clone(),
        prefix: prefix.clone(),
        exactly_once: broker.is_none(),
        rpc: rpc_blank,
        chain_id,
        contract: contract.to_string(),
        key: key_blank,
    };
    place.write("pipeline.toml", &blanks.fill())?;
    Ok(Outside { brokers, prefix, rpc, chain_id, contract, signer: key.address(), deployment_gas, _anvil: anvil })
}

fn text(d: Diagnostics) -> DemoError {
    DemoError::Pipeline(d.render_text(super::check::colour()))
}

async fn blocking<T: Send + 'static>(
    f: impl FnOnce() -> Result<T, DemoError> + Send + 'static,
) -> Result<T, DemoError> {
    tokio::task::spawn_blocking(f).await.map_err(|e| DemoError::Thread(e.to_string()))?
}

/// Simulates healthy hours and trains on them as `avouch train` does.
fn train(args: &DemoArgs, place: &Place) -> Result<(Pipeline, u64), DemoError> {
    let path = place.file("training/healthy.ndjson");
    let fail = |e| DemoError::file(&path, e);
    let mut out = BufWriter::new(File::create(&path).map_err(fail)?);
    let fleet = Fleet::new(FleetConfig::healthy(args.seed, args.devices, START - DAY - 3_600_000, HEALTHY))?;
    let mut rows = 0;
    for reading in fleet {
        out.write_all(&reading.payload).and_then(|()| out.write_all(b"\n")).map_err(fail)?;
        rows += 1;
    }
    out.flush().map_err(fail)?;
    let pipeline = Pipeline::load(place.pipeline()).map_err(text)?;
    for entry in &pipeline.train {
        let (_, model) = super::train::train_one(&pipeline, entry, &super::train::now(), args.json)?;
        place.write(&format!("models/{}.md", entry.name.value), &model.card.to_markdown())?;
    }
    Ok((pipeline, rows))
}

/// Loads the models and plans the lanes; also gives the model's hash.
fn plan(pipeline: &Pipeline) -> Result<(Arc<avouch_engine::plan::LanePlan>, String), DemoError> {
    let (models, warnings) = lang::load_models(pipeline).map_err(text)?;
    for warning in [&pipeline.warnings, &warnings] {
        if !warning.is_empty() {
            tracing::warn!("{}", warning.render_text(false));
        }
    }
    let plan = lang::plan(pipeline, &models).map_err(text)?;
    let model = plan.scores.first().map(|s| runtime::hex(&s.model.hash())).unwrap_or_default();
    Ok((Arc::new(plan), model))
}

/// What the simulator's thread tells.
#[derive(Default)]
struct Sent {
    rows: AtomicU64,
    event_ms: AtomicI64,
    /// Set when nobody wants more.
    enough: AtomicBool,
}

/// Runs the pipeline while the fleet sends, until all of it is judged, delivered and anchored.
async fn judge(
    args: &DemoArgs,
    place: &Place,
    outside: &Outside,
    pipeline: &Pipeline,
    plan: Arc<avouch_engine::plan::LanePlan>,
) -> Result<(Seen, GroundTruth), DemoError> {
    let fleet = Fleet::new(FleetConfig::troubled(args.seed, args.devices, START, args.duration))?;
    let total = fleet.total_rows();
    let metrics = Metrics::new().map_err(|e| DemoError::Thread(format!("metrics: {e}")))?;
    let (stop, stopped) = watch::channel(false);
    let options = RunOptions { share: Share::All, until_end: false, create_topics: false, accept_change: false };
    let reloads = runtime::Reloads::none();
    let running = runtime::run_watched(pipeline, plan, options, metrics.clone(), reloads, stopped);
    tokio::pin!(running);

    let sent = Arc::new(Sent::default());
    sent.event_ms.store(START, Ordering::Relaxed);
    let _enough = Enough(sent.clone());
    let mut sending = {
        let (brokers, topic) = (outside.brokers.clone(), format!("{}.telemetry", outside.prefix));
        let (pace, sent, metrics) = (args.speed, sent.clone(), metrics.clone());
        tokio::task::spawn_blocking(move || send(fleet, &brokers, &topic, pace, &sent, &metrics))
    };
    let mut truth: Option<GroundTruth> = None;
    let mut board = Board::new(args.json, total, START);
    let mut tick = tokio::time::interval(Duration::from_millis(100));
    let mut moved = (Instant::now(), Seen::default());
    loop {
        tokio::select! {
            ended = &mut running => {
                ended?;
                return Err(DemoError::Stalled("the pipeline ended by itself".into(), place.file("avouch.log")));
            }
            told = &mut sending, if truth.is_none() => {
                truth = Some(told.map_err(|e| DemoError::Thread(e.to_string()))??);
            }
            _ = tick.tick() => {
                let seen = Seen::now(&metrics);
                board.show(&seen, sent.rows.load(Ordering::Relaxed), sent.event_ms.load(Ordering::Relaxed));
                if seen != moved.1 {
                    moved = (Instant::now(), seen);
                }
                if moved.0.elapsed() > PATIENCE {
                    let why = format!("nothing has moved for {} s", PATIENCE.as_secs());
                    return Err(DemoError::Stalled(why, place.file("avouch.log")));
                }
                if let Some(truth) = &truth && seen.is_finished(truth.rows) {
                    board.draw(&seen, truth.rows, truth.end_ms);
                    break;
                }
            }
        }
    }
    stop.send_replace(true);
    running.await?;
    let truth = truth.ok_or_else(|| DemoError::Thread("the simulator said nothing".into()))?;
    Ok((Seen::now(&metrics), truth))
}

/// Tells the simulator's thread to stop, however its audience left.
struct Enough(Arc<Sent>);

impl Drop for Enough {
    fn drop(&mut self) {
        self.0.enough.store(true, Ordering::Relaxed);
    }
}

/// Sends the fleet's readings, paced, and never further ahead of the lanes than the embedded broker keeps.
fn send(
    mut fleet: Fleet,
    brokers: &str,
    topic: &str,
    pace: Pace,
    sent: &Sent,
    metrics: &Metrics,
) -> Result<GroundTruth, DemoError> {
    let mut publisher = Publisher::connect(&KafkaConnection::plaintext(brokers), topic, &[])?;
    let mut pacer = Pacer::new(pace);
    let mut read = 0;
    for reading in fleet.by_ref() {
        while let Some(wait) = pacer.wait(Some(reading.broker_time_ms)) {
            publisher.poll(wait.min(Duration::from_millis(20)));
        }
        while publisher.sent() - read >= UNDER_WAY && !sent.enough.load(Ordering::Relaxed) {
            publisher.poll(Duration::from_millis(1));
            read = Seen::now(metrics).rows_in;
        }
        if sent.enough.load(Ordering::Relaxed) {
            break;
        }
        publisher.send(Some(reading.device.as_bytes()), &reading.payload, Some(reading.broker_time_ms))?;
        sent.rows.store(publisher.sent(), Ordering::Relaxed);
        sent.event_ms.store(reading.broker_time_ms, Ordering::Relaxed);
    }
    publisher.finish()?;
    if let Some(first) = publisher.first_failure() {
        return Err(DemoError::Undelivered { failed: publisher.failed(), sent: publisher.sent(), first });
    }
    Ok(fleet.truth())
}

/// The durable logs and dead letters of all lanes.
fn read_back(state: &Path, lanes: i32) -> Result<(Vec<VerdictRecord>, Vec<DeadLetter>), DemoError> {
    const MOST: usize = 10_000;
    let (mut verdicts, mut dead) = (Vec::new(), Vec::new());
    for lane in 0..lanes {
        let reader = LaneReader::open_read_only(&lane_dir(state, lane))?;
        let mut at = 0;
        loop {
            let more = reader.records(at, MOST)?;
            at += more.len() as u64;
            if more.is_empty() {
                break;
            }
            // Whoever labels while it runs adds no verdict.
            verdicts
                .extend(more.into_iter().filter_map(Logged::into_record).filter(|r| !class::is_label(r.verdict.class)));
        }
        let mut at = 0;
        loop {
            let more = reader.dead_letters(at, MOST)?;
            at += more.len() as u64;
            if more.is_empty() {
                break;
            }
            dead.extend(more);
        }
    }
    Ok((verdicts, dead))
}

/// Bundles a verdict, verifies it, and verifies copies that were tampered with.
async fn prove(
    place: &Place,
    outside: &Outside,
    pipeline: &Pipeline,
    verdicts: &[VerdictRecord],
    truth: &GroundTruth,
) -> Result<Evidence, DemoError> {
    let (lane, index) = judged::to_bundle(verdicts, truth).ok_or(DemoError::NothingFound)?;
    let dir = place.file("bundle");
    let made = evidence::make(pipeline, &place.pipeline(), lane, index, &dir).await?;
    Ok(Evidence {
        bundle: dir.display().to_string(),
        log: made.origin.as_str().to_owned(),
        index: made.record.index,
        device: made.record.evidence.device.clone(),
        window_end: format_timestamp(made.record.verdict.window_end as i64),
        offline: evidence::offline(&dir, outside.contract, outside.signer),
        on_chain: evidence::on_chain(&dir, &outside.rpc, outside.contract, outside.signer).await?,
        tampered: evidence::tamper(&dir, outside.contract, outside.signer)?,
    })
}

/// What has to hold, whatever the model is worth.
fn checks(
    seen: &Seen,
    rows: &Rows,
    verdicts: &[VerdictRecord],
    dead: &[DeadLetter],
    evidence: &Evidence,
) -> Vec<Check> {
    let check = |what, holds, detail| Check { what, holds, detail };
    let planted = rows.planted.iter().filter(|(_, n)| **n > 0).map(|(r, n)| (*r, *n)).collect::<BTreeMap<_, _>>();
    let refused = evidence.tampered.iter().all(|t| !t.verified.accepted);
    vec![
        check(
            "rows simulated = rows read",
            rows.simulated == rows.read,
            format!("{} simulated, {} read", rows.simulated, rows.read),
        ),
        check(
            "rows read = rows used + dead letters",
            rows.read == rows.used + seen.dead_total(),
            format!("{} read, {} used, {} dead", rows.read, rows.used, seen.dead_total()),
        ),
        check(
            "dead letters are those the simulator planted, by reason",
            rows.dead_letters == planted,
            format!("{:?} counted, {planted:?} planted", rows.dead_letters),
        ),
        check(
            "dead letters kept = dead letters counted",
            dead.len() as u64 == seen.dead_total(),
            format!("{} kept, {} counted", dead.len(), seen.dead_total()),
        ),
        check(
            "verdicts in the durable log = verdicts anchored",
            verdicts.len() as u64 == seen.anchored && seen.log == seen.anchored,
            format!("{} in the log, {} anchored", verdicts.len(), seen.anchored),
        ),
        check(
            "verdicts and dead letters handed to Kafka",
            seen.verdicts_delivered >= seen.log && seen.dead_delivered >= seen.dead_total(),
            format!("{} verdicts, {} dead letters", seen.verdicts_delivered, seen.dead_delivered),
        ),
        check("the bundle is accepted offline", evidence.offline.accepted, format!("{:?}", evidence.offline.why)),
        check("the chain confirms the bundle", evidence.on_chain.accepted, format!("{:?}", evidence.on_chain.why)),
        check("a bundle with a byte changed is refused", refused, format!("{:?}", evidence.tampered)),
    ]
}
