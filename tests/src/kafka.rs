//! Apache Kafka itself: one broker in KRaft mode, both controller and broker, on loopback.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};

use crate::place::{self, Missing};
use crate::process::{self, Process};

/// How long a start may take on a busy two-core machine; it takes about four seconds on an idle one.
const START: Duration = Duration::from_secs(120);

/// What a broker has besides its plain listener.
#[derive(Debug, Clone, Default)]
pub struct Extras {
    /// More listeners: name, protocol and port.
    pub listeners: Vec<(String, String, u16)>,
    /// More lines of `server.properties`.
    pub properties: String,
    /// More arguments of the storage's formatting.
    pub format: Vec<String>,
}

/// A running Apache Kafka. Dropping it kills it.
#[derive(Debug)]
pub struct KafkaBroker {
    directory: PathBuf,
    port: u16,
    java: PathBuf,
    process: Mutex<Option<Process>>,
    took: Duration,
}

impl KafkaBroker {
    /// Formats a fresh storage directory, starts a broker on free ports, and waits until it answers.
    ///
    /// # Errors
    /// [`Missing`] if Java or the jars are not there.
    ///
    /// # Panics
    /// If the broker does not start.
    pub fn start() -> Result<Self, Missing> {
        Self::start_with(|_| Extras::default())
    }

    /// The same with more; the closure is given the broker's directory.
    ///
    /// # Errors
    /// As [`KafkaBroker::start`].
    ///
    /// # Panics
    /// As [`KafkaBroker::start`].
    pub fn start_with(extras: impl FnOnce(&Path) -> Extras) -> Result<Self, Missing> {
        let java = place::find_program("java", &[]).ok_or_else(|| Missing("Java is not installed".to_owned()))?;
        if !jars().is_dir() {
            return Err(Missing("Apache Kafka's jars are not there: run tests/setup/install kafka".to_owned()));
        }
        let began = Instant::now();
        let directory = place::fresh_directory("kafka");
        let port = place::free_port();
        let extras = extras(&directory);
        let properties = server_properties(&directory, port, place::free_port(), &extras);
        write(&directory.join("server.properties"), &properties);
        write(&directory.join("log4j2.properties"), LOG4J);
        let mut broker = Self { directory, port, java, process: Mutex::new(None), took: Duration::ZERO };
        broker.format(&extras.format);
        broker.restart();
        broker.took = began.elapsed();
        Ok(broker)
    }

    /// The broker that the tests of one binary share; started by the first to ask, killed with the process.
    ///
    /// Only for tests that neither stop nor freeze it, on topics of their own names ([`KafkaBroker::create_topic`] makes them).
    ///
    /// # Errors
    /// As [`KafkaBroker::start`].
    pub fn shared() -> Result<&'static Self, Missing> {
        static SHARED: LazyLock<Result<KafkaBroker, Missing>> = LazyLock::new(KafkaBroker::start);
        SHARED.as_ref().map_err(Clone::clone)
    }

    /// Its address, as clients want it.
    pub fn bootstrap(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// How long [`KafkaBroker::start`] took, formatting included.
    pub fn took(&self) -> Duration {
        self.took
    }

    /// Kills the broker (`SIGKILL`). Its ports and its data stay as they are, for [`KafkaBroker::restart`].
    pub fn kill(&self) {
        self.process().take();
    }

    /// Starts the broker on the same ports and data, and waits until it answers. Kills it first if it runs.
    ///
    /// # Panics
    /// If it does not answer.
    pub fn restart(&self) {
        let mut process = self.process();
        process.take();
        let mut command = self.java("512m");
        command.arg("kafka.Kafka").arg(self.directory.join("server.properties"));
        let mut started = Process::start("Kafka", command, &self.directory.join("kafka.log"));
        let client: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", self.bootstrap())
            // While the broker starts, refused connections are no news.
            .set("log_level", "0")
            .set("reconnect.backoff.max.ms", "200")
            .create()
            .expect("a client with valid settings");
        let start = Instant::now();
        while !client.fetch_metadata(None, Duration::from_millis(500)).is_ok_and(|found| !found.brokers().is_empty()) {
            let over = started.ended().is_some() || start.elapsed() > START;
            assert!(!over, "Kafka did not start; its log ends:\n{}", started.log_tail());
            // A refused connection fails at once; the broker needs the processor more than we do.
            std::thread::sleep(Duration::from_millis(50));
        }
        *process = Some(started);
    }

    /// Freezes the broker (`SIGSTOP`): it holds its connections and answers nothing.
    pub fn freeze(&self) {
        self.running(|process| process.signal("STOP"));
    }

    /// Lets a frozen broker go on (`SIGCONT`).
    pub fn thaw(&self) {
        self.running(|process| process.signal("CONT"));
    }

    /// The last lines the broker logged.
    pub fn log_tail(&self) -> String {
        self.process().as_ref().map(Process::log_tail).unwrap_or_default()
    }

    fn process(&self) -> MutexGuard<'_, Option<Process>> {
        self.process.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn running(&self, act: impl FnOnce(&Process)) {
        act(self.process().as_ref().expect("the broker runs"));
    }

    fn format(&self, more: &[String]) {
        let mut command = self.java("128m");
        // The cluster's id may be any 16 bytes in base64; a fixed one, so that restarts and copies of the directory fit together.
        command.args(["kafka.tools.StorageTool", "format", "--cluster-id", "YXZvdWNoLXRlc3RzLTAwMQ", "--config"]);
        command.arg(self.directory.join("server.properties")).args(more);
        let mut formatting = Process::start("Kafka's format", command, &self.directory.join("format.log"));
        let status = formatting.wait(START);
        assert!(status.success(), "formatting Kafka's storage failed:\n{}", formatting.log_tail());
    }

    fn java(&self, heap: &str) -> Command {
        let mut command = process::command(&self.java);
        // Compiling quickly rather than well suits a process that lives for seconds, and leaves the cores to what is tested.
        command.args([
            "-Xms64m",
            &format!("-Xmx{heap}"),
            "-XX:+UseSerialGC",
            "-XX:TieredStopAtLevel=1",
            "-XX:-UsePerfData",
        ]);
        command.arg(format!("-Dlog4j2.configurationFile={}", self.directory.join("log4j2.properties").display()));
        command.arg("-cp").arg(jars().join("*")).current_dir(&self.directory);
        command
    }
}

fn jars() -> PathBuf {
    place::cache().join("kafka")
}

fn write(path: &Path, text: &str) {
    std::fs::write(path, text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
}

fn server_properties(directory: &Path, port: u16, controller: u16, extras: &Extras) -> String {
    let listeners = |show: fn(&(String, String, u16)) -> String| -> String {
        extras.listeners.iter().map(|l| format!(",{}", show(l))).collect()
    };
    let bound = listeners(|(name, _, port)| format!("{name}://127.0.0.1:{port}"));
    let protocols = listeners(|(name, protocol, _)| format!("{name}:{protocol}"));
    let more = &extras.properties;
    format!(
        "process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller}
listeners=CLIENTS://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}{bound}
advertised.listeners=CLIENTS://127.0.0.1:{port}{bound}
listener.security.protocol.map=CLIENTS:PLAINTEXT,CONTROLLER:PLAINTEXT{protocols}
inter.broker.listener.name=CLIENTS
controller.listener.names=CONTROLLER
log.dirs={data}
auto.create.topics.enable=false
offsets.topic.num.partitions=1
offsets.topic.replication.factor=1
transaction.state.log.num.partitions=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.num.partitions=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
group.consumer.min.session.timeout.ms=1000
group.consumer.session.timeout.ms=6000
group.consumer.min.heartbeat.interval.ms=100
group.consumer.heartbeat.interval.ms=1000
message.max.bytes=20971520
replica.fetch.max.bytes=20971520
log.retention.ms=-1
{more}",
        data = directory.join("data").display()
    )
}

const LOG4J: &str = "rootLogger.level=info
rootLogger.appenderRef.out.ref=OUT
appender.out.type=Console
appender.out.name=OUT
appender.out.layout.type=PatternLayout
appender.out.layout.pattern=%d{ISO8601} %-5p %c{1} %m%n
";
