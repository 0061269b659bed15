//! Debian's mosquitto: an MQTT broker on loopback that keeps sessions over a restart; open to all, or with TLS and a password.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::place::{self, Missing};
use crate::process::{self, Process};
use crate::secured::{USER, make_certificates};

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
        Self::start_with(|_| Ok("allow_anonymous true\n".to_owned()))
    }

    /// A broker that is reached by TLS and lets in [`USER`] alone. The authority's certificate is [`Mosquitto::file`] `ca.pem`.
    ///
    /// # Errors
    /// [`Missing`] if it, or openssl, is not installed.
    ///
    /// # Panics
    /// If it does not start.
    pub fn secured() -> Result<Self, Missing> {
        place::find_program("openssl", &[]).ok_or_else(|| Missing("openssl is not installed".to_owned()))?;
        let unpacked = place::cache().join("mosquitto/usr/bin");
        let passwords = place::find_program("mosquitto_passwd", &["/usr/bin".into(), unpacked])
            .ok_or_else(|| Missing("mosquitto_passwd is not there: run tests/setup/install mosquitto".to_owned()))?;
        Self::start_with(|directory| {
            make_certificates(directory);
            let mut command = with_libraries(Command::new(passwords));
            command.current_dir(directory).args(["-b", "-c", "passwords", USER.0, USER.1]);
            let done = command.output().unwrap_or_else(|error| panic!("mosquitto_passwd: {error}"));
            assert!(done.status.success(), "mosquitto_passwd: {}", String::from_utf8_lossy(&done.stderr));
            let at = |name: &str| directory.join(name).display().to_string();
            Ok(format!(
                "allow_anonymous false\npassword_file {}\ncafile {}\ncertfile {}\nkeyfile {}\n",
                at("passwords"),
                at("ca.pem"),
                at("broker.pem"),
                at("broker.key")
            ))
        })
    }

    /// A broker with more lines of configuration, which the closure makes in the broker's directory.
    ///
    /// # Errors
    /// As [`Mosquitto::start`].
    ///
    /// # Panics
    /// As [`Mosquitto::start`].
    pub fn start_with(more: impl FnOnce(&Path) -> Result<String, Missing>) -> Result<Self, Missing> {
        let unpacked = place::cache().join("mosquitto/usr/sbin");
        let program = place::find_program("mosquitto", &["/usr/sbin".into(), unpacked])
            .ok_or_else(|| Missing("mosquitto is not there: run tests/setup/install mosquitto".to_owned()))?;
        let directory = place::fresh_directory("mosquitto");
        let port = place::free_port();
        let more = more(&directory)?;
        // Where root starts it, it stays root: its files are the test's.
        let configuration = format!(
            "user root
listener {port} 127.0.0.1
{more}persistence true
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

    /// A file in its directory.
    pub fn file(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// Stops it (`SIGTERM`: it writes its sessions and queues down) if it runs.
    ///
    /// # Panics
    /// If it does not stop.
    pub fn stop(&self) {
        let mut slot = self.process.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(mut running) = slot.take() {
            running.signal("TERM");
            running.wait(START);
        }
    }

    /// Stops it if it runs, and starts it on the same port and data.
    ///
    /// # Panics
    /// If it does not stop or start.
    pub fn restart(&self) {
        self.stop();
        let mut slot = self.process.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let mut command = with_libraries(process::command(&self.program));
        command.arg("-c").arg(self.directory.join("mosquitto.conf")).current_dir(&self.directory);
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

/// With what the package needs beside it, where it was unpacked and not installed.
fn with_libraries(mut command: Command) -> Command {
    let libraries = place::cache().join("mosquitto/usr/lib");
    let libraries: Vec<PathBuf> =
        std::fs::read_dir(libraries).into_iter().flatten().flatten().map(|e| e.path()).collect();
    if let Ok(path) = std::env::join_paths(&libraries) {
        command.env("LD_LIBRARY_PATH", path);
    }
    command
}
