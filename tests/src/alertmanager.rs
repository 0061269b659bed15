//! Prometheus Alertmanager, Debian's, on loopback.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use crate::place::{self, Missing};
use crate::process::{self, Process};

const START: Duration = Duration::from_secs(60);

/// A running Alertmanager that notifies nobody. Dropping it kills it.
#[derive(Debug)]
pub struct Alertmanager {
    port: u16,
    process: Option<Process>,
}

impl Alertmanager {
    /// Reserves an address; [`Alertmanager::run`] starts it.
    ///
    /// # Errors
    /// [`Missing`] if it is not installed.
    pub fn new() -> Result<Self, Missing> {
        program()?;
        Ok(Self { port: place::free_port(), process: None })
    }

    /// Its address, whether it runs or not.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Starts it, without anything it knew before, and waits until it is ready.
    ///
    /// # Panics
    /// If it does not start.
    pub fn run(&mut self) {
        self.process = None;
        let directory = place::fresh_directory("alertmanager");
        let config = directory.join("alertmanager.yml");
        std::fs::write(&config, "route: { receiver: nobody }\nreceivers: [ { name: nobody } ]\n").expect("its file");
        let mut command = command(&program().expect("it was there"));
        command
            .arg(format!("--config.file={}", config.display()))
            .arg(format!("--storage.path={}", directory.join("data").display()))
            .arg(format!("--web.listen-address=127.0.0.1:{}", self.port))
            .arg("--cluster.listen-address=");
        let mut started = Process::start("Alertmanager", command, &directory.join("alertmanager.log"));
        crate::eventually("Alertmanager is ready", START, || {
            assert!(started.ended().is_none(), "Alertmanager ended:\n{}", started.log_tail());
            ureq::get(format!("{}/-/ready", self.url())).call().ok()
        });
        self.process = Some(started);
    }

    /// Kills it.
    pub fn kill(&mut self) {
        self.process = None;
    }

    /// The alerts it has and that have not ended.
    ///
    /// # Panics
    /// If it does not answer.
    pub fn alerts(&self) -> Vec<Value> {
        let mut answer = ureq::get(format!("{}/api/v2/alerts", self.url())).call().expect("Alertmanager answers");
        let text = answer.body_mut().read_to_string().expect("its answer");
        match serde_json::from_str(&text) {
            Ok(Value::Array(alerts)) => alerts,
            other => panic!("{other:?}"),
        }
    }
}

fn program() -> Result<std::path::PathBuf, Missing> {
    let unpacked = place::cache().join("alertmanager/usr/bin");
    place::find_program("prometheus-alertmanager", std::slice::from_ref(&unpacked))
        .or_else(|| place::find_program("alertmanager", std::slice::from_ref(&unpacked)))
        .ok_or_else(|| Missing("Alertmanager is not there: run tests/setup/install alertmanager".to_owned()))
}

/// Debian's looks for its template under /usr/share only. Where the package is unpacked and not installed, the process gets a
/// /usr/share of its own, the package's.
fn command(program: &Path) -> Command {
    const TEMPLATE: &str = "share/prometheus/alertmanager/default.tmpl";
    let share = program.parent().and_then(Path::parent).map(|usr| usr.join("share"));
    let Some(share) = share.filter(|s| !Path::new("/usr").join(TEMPLATE).exists() && s.is_dir()) else {
        return process::command(program);
    };
    let mut command = process::command(Path::new("/usr/bin/unshare"));
    command.args(["--map-root-user", "--mount", "sh", "-c", "mount --bind \"$0\" /usr/share && exec \"$@\""]);
    command.arg(share).arg(program);
    command
}
