//! Child processes that never outlive their test, and that can be frozen, killed and looked into.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{LazyLock, Mutex, mpsc};
use std::time::{Duration, Instant};

/// A running child with its output in a log file. Dropping it kills it (`SIGKILL`) and reaps it.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts `command` (see [`command`]) with no input and both outputs appended to `log`.
    ///
    /// # Panics
    /// If the program cannot be started.
    pub fn start(name: &str, mut command: Command, log: &Path) -> Self {
        let open = || File::options().create(true).append(true).open(log);
        let (out, err) =
            open().and_then(|out| Ok((out, open()?))).unwrap_or_else(|error| panic!("{}: {error}", log.display()));
        command.stdin(Stdio::null()).stdout(out).stderr(err);
        let child = spawn(command).unwrap_or_else(|error| panic!("starting {name}: {error}"));
        Self { name: name.to_owned(), child, log: log.to_path_buf() }
    }

    /// The process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends `SIGKILL` and waits until the process is gone. Nothing if it has ended already.
    pub fn kill(&mut self) {
        // Errors mean that it is gone, which is what was asked for.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Sends a signal by name (`TERM`, `STOP`, `CONT`, …).
    ///
    /// # Panics
    /// If the process is gone.
    pub fn signal(&self, signal: &str) {
        let sent = Command::new("kill").arg(format!("-{signal}")).arg(self.id().to_string()).status();
        assert!(
            sent.is_ok_and(|status| status.success()),
            "sending {signal} to {}; its log ends:\n{}",
            self.name,
            self.log_tail()
        );
    }

    /// The exit status, if the process has ended.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap_or_else(|error| panic!("waiting for {}: {error}", self.name))
    }

    /// Waits for the process to end by itself.
    ///
    /// # Panics
    /// If it has not after `limit`.
    pub fn wait(&mut self, limit: Duration) -> ExitStatus {
        let start = Instant::now();
        loop {
            if let Some(status) = self.ended() {
                return status;
            }
            assert!(
                start.elapsed() < limit,
                "{} still runs after {limit:?}; its log ends:\n{}",
                self.name,
                self.log_tail()
            );
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Everything the process has written so far, on either output.
    pub fn log(&self) -> String {
        std::fs::read(&self.log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    }

    /// The last 30 lines of [`Process::log`].
    pub fn log_tail(&self) -> String {
        let log = self.log();
        let lines: Vec<_> = log.lines().collect();
        lines[lines.len().saturating_sub(30)..].join("\n")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A command for `program` whose process the kernel kills when this test process ends, however it ends.
///
/// `setpriv` (util-linux, on every Debian) arms the parent-death signal and becomes the program, keeping the pid.
///
/// # Panics
/// If there is no such program: `setpriv` would only say so in the log.
pub fn command(program: &Path) -> Command {
    assert!(program.is_file(), "no program at {}", program.display());
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--"]).arg(program);
    command
}

/// Starts a command on a thread that lives as long as the test process.
///
/// The kernel ties a child's parent-death signal to the *thread* that made it, and each test has a thread of its own, so a broker
/// shared by several tests would die with the first of them.
///
/// # Errors
/// That the program cannot be started.
pub fn spawn(command: Command) -> io::Result<Child> {
    type Request = (Command, mpsc::Sender<io::Result<Child>>);
    static KEEPER: LazyLock<Mutex<mpsc::Sender<Request>>> = LazyLock::new(|| {
        let (send, receive) = mpsc::channel::<Request>();
        std::thread::Builder::new()
            .name("keeper".to_owned())
            .spawn(move || {
                for (mut command, reply) in receive {
                    // A requester that died meanwhile drops the reply, and the child ends with this process.
                    let _ = reply.send(command.spawn());
                }
            })
            .expect("a thread can be started");
        Mutex::new(send)
    });
    let (reply, answer) = mpsc::channel();
    let keeper = KEEPER.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    keeper.send((command, reply)).expect("the keeper lives as long as the process");
    answer.recv().expect("the keeper answers")
}
