//! Debian's mosquitto: an MQTT broker on loopback, without TLS or passwords, that keeps sessions over a restart.

use std::path::PathBuf;
use std::process::Command;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::place::{self, Missing};
use crate::process::{self, Process};

const START: Duration = Duration::from_secs(30);

/// A running mosquitto. Dropping it kills it.
#[derive(Debug)]
pub struct Mosquitto {
    directory: PathBuf,
    program: PathBuf,
    port: u16,
    process: Mutex<Option<Process>>,
}

impl Mosquitto {
    /// Starts a broker that queues without limit for a client that is away.
    ///
    /// # Errors
    /// [`Missing`] if it is not installed.
    ///
    /// # Panics
    /// If it does not start.
    pub fn start() -> Result<Self, Missing> {
        let unpacked = place::cache().join("mosquitto/usr/sbin");
        let program = place::find_program("mosquitto", &["/usr/sbin".into(), unpacked])
            .ok_or_else(|| Missing("mosquitto is not there: run tests/setup/install mosquitto".to_owned()))?;
        let directory = place::fresh_directory("mosquitto");
        let port = place::free_port();
        let configuration = format!(
            "listener {port} 127.0.0.1
allow_anonymous true
persistence true
persistence_location {}/
max_queued_messages 0
max_queued_bytes 0
max_inflight_messages 1000
log_type error
log_type warning
log_type notice
",
            directory.display()
        );
        std::fs::write(directory.join("mosquitto.conf"), configuration)
            .unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
        let broker = Self { directory, program, port, process: Mutex::new(None) };
        broker.restart();
        Ok(broker)
    }

    /// Its port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Stops it (`SIGTERM`: it writes its sessions and queues down) if it runs, and starts it on the same port and data.
    ///
    /// # Panics
    /// If it does not stop or start.
    pub fn restart(&self) {
        let mut slot = self.process.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(mut running) = slot.take() {
            running.signal("TERM");
            running.wait(START);
        }
        let mut command: Command = process::command(&self.program);
        command.arg("-c").arg(self.directory.join("mosquitto.conf")).current_dir(&self.directory);
        // What the package needs beside it, where it was unpacked and not installed.
        let libraries = place::cache().join("mosquitto/usr/lib");
        let libraries: Vec<PathBuf> =
            std::fs::read_dir(libraries).into_iter().flatten().flatten().map(|e| e.path()).collect();
        if let Ok(path) = std::env::join_paths(&libraries) {
            command.env("LD_LIBRARY_PATH", path);
        }
        let mut started = Process::start("mosquitto", command, &self.directory.join("mosquitto.log"));
        let start = Instant::now();
        while std::net::TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            let over = started.ended().is_some() || start.elapsed() > START;
            assert!(!over, "mosquitto did not start; its log ends:\n{}", started.log_tail());
            std::thread::sleep(Duration::from_millis(10));
        }
        *slot = Some(started);
    }
}
