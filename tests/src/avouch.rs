//! The program under test, run as its users run it.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::place;
use crate::process::{self, Process};

/// One call of `avouch`: arguments, environment and directory.
#[derive(Debug, Clone, Default)]
pub struct Avouch {
    arguments: Vec<OsString>,
    environment: Vec<(OsString, OsString)>,
    directory: Option<PathBuf>,
}

/// What a call that ended has left.
#[derive(Debug)]
pub struct Outcome {
    /// The exit code; `None` if a signal ended it.
    pub code: Option<i32>,
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
    /// How long it ran.
    pub took: Duration,
}

impl Avouch {
    /// A call with these arguments.
    pub fn new<A: AsRef<OsStr>>(arguments: impl IntoIterator<Item = A>) -> Self {
        Self::default().args(arguments)
    }

    /// More arguments.
    #[must_use]
    pub fn args<A: AsRef<OsStr>>(mut self, arguments: impl IntoIterator<Item = A>) -> Self {
        self.arguments.extend(arguments.into_iter().map(|argument| argument.as_ref().to_owned()));
        self
    }

    /// An environment variable.
    #[must_use]
    pub fn env(mut self, key: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.environment.push((key.as_ref().to_owned(), value.as_ref().to_owned()));
        self
    }

    /// The directory it runs in; the test's own otherwise.
    #[must_use]
    pub fn within(mut self, directory: impl Into<PathBuf>) -> Self {
        self.directory = Some(directory.into());
        self
    }

    /// Runs it to its end, which is killed and a failure of the test after `limit`.
    ///
    /// # Panics
    /// If it runs longer.
    pub fn run(&self, limit: Duration) -> Outcome {
        let outputs = tempfile::tempdir().expect("a temporary directory");
        let (out, err) = (outputs.path().join("out"), outputs.path().join("err"));
        let mut command = self.command();
        command.stdin(Stdio::null()).stdout(create(&out)).stderr(create(&err));
        let start = Instant::now();
        let mut child = process::spawn(command).expect("avouch starts");
        let read = |path: &Path| String::from_utf8_lossy(&std::fs::read(path).expect("its output")).into_owned();
        let code = loop {
            if let Some(status) = child.try_wait().expect("its status") {
                break status.code();
            }
            if start.elapsed() > limit {
                // It may have ended this moment.
                let _ = child.kill();
                let _ = child.wait();
                panic!("{self:?} still ran after {limit:?}:\n{}\n{}", read(&out), read(&err));
            }
            std::thread::sleep(Duration::from_millis(5));
        };
        Outcome { code, stdout: read(&out), stderr: read(&err), took: start.elapsed() }
    }

    /// Starts it and lets it run, its outputs together in `log`. Dropping what is returned kills it (`SIGKILL`).
    pub fn start(&self, log: &Path) -> Process {
        Process::start("avouch", self.command(), log)
    }

    fn command(&self) -> Command {
        let mut command = process::command(&program());
        command.args(&self.arguments).envs(self.environment.iter().map(|(key, value)| (key, value)));
        if let Some(directory) = &self.directory {
            command.current_dir(directory);
        }
        command
    }
}

impl Outcome {
    /// Itself, if it succeeded.
    ///
    /// # Panics
    /// If it failed, with what it said.
    pub fn success(self) -> Self {
        assert_eq!(self.code, Some(0), "avouch failed:\n{}\n{}", self.stdout, self.stderr);
        self
    }

    /// The standard output as the one JSON value that `--json` promises.
    ///
    /// # Panics
    /// If it is not JSON.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error} in {}", self.stdout))
    }
}

/// The built program, of the same profile as this test.
///
/// # Panics
/// If it has not been built: cargo builds a package's programs for its own tests only.
pub fn program() -> PathBuf {
    let path = place::programs().join("avouch");
    assert!(path.is_file(), "no {}: run cargo build --release --bin avouch", path.display());
    path
}

fn create(path: &Path) -> File {
    File::create(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}
