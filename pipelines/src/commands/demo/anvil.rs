//! An Ethereum node for the demo: anvil, found on this machine or brought by npm, and ended with the demo.

use std::fs::File;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::DemoError;

/// The version npm is asked for; the contracts' package.json pins the same.
const VERSION: &str = "1.7.1";
const PATIENCE: Duration = Duration::from_secs(30);

/// The key of the first account of every anvil. Everybody knows it.
pub(super) const KEY: &str = "0xac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80";

/// A running anvil. Dropping it kills it.
pub(super) struct Anvil {
    child: Child,
    url: String,
}

impl Anvil {
    /// Starts it on a free port with the gas limit a transaction has on the real chain. Its log goes to `log`.
    pub(super) async fn start(given: Option<&Path>, log: &Path) -> Result<Self, DemoError> {
        let program = find(given)?;
        let file = || File::options().create(true).append(true).open(log).map_err(|e| DemoError::file(log, e));
        let mut command = dies_with_us(&program);
        command.args(["--host", "127.0.0.1", "--port", "0", "--enable-tx-gas-limit"]);
        command.stdin(Stdio::null()).stdout(file()?).stderr(file()?);
        // Ctrl-C at the terminal is for the demo, which ends the node last.
        command.process_group(0);
        let child = command
            .spawn()
            .map_err(|e| DemoError::NoAnvil(format!("{} could not be started: {e}", program.display())))?;
        let mut anvil = Self { child, url: String::new() };
        let began = Instant::now();
        loop {
            let said = std::fs::read_to_string(log).unwrap_or_default();
            if let Some(address) = said.lines().find_map(|l| l.strip_prefix("Listening on ")) {
                anvil.url = format!("http://{}", address.trim());
                return Ok(anvil);
            }
            let ended = anvil.child.try_wait().ok().flatten();
            if ended.is_some() || began.elapsed() > PATIENCE {
                let why = ended.map_or("is not listening".to_owned(), |status| format!("ended with {status}"));
                return Err(DemoError::NoAnvil(format!("{} {why}; see {}", program.display(), log.display())));
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Its JSON-RPC endpoint.
    pub(super) fn url(&self) -> &str {
        &self.url
    }
}

impl Drop for Anvil {
    fn drop(&mut self) {
        // Errors mean that it is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Where util-linux has `setpriv`, the kernel ends the node even when the demo is killed with SIGKILL.
fn dies_with_us(program: &Path) -> Command {
    match on_path("setpriv") {
        Some(setpriv) if cfg!(target_os = "linux") => {
            let mut command = Command::new(setpriv);
            command.args(["--pdeathsig", "KILL", "--"]).arg(program);
            command
        }
        _ => Command::new(program),
    }
}

fn platform() -> String {
    let system = if cfg!(target_os = "macos") { "darwin" } else { "linux" };
    let machine = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
    format!("{system}-{machine}")
}

/// The one given, that of the contracts' folder in this directory or one above, one on the PATH, or npm's.
fn find(given: Option<&Path>) -> Result<PathBuf, DemoError> {
    if let Some(path) = given {
        return Ok(path.to_path_buf());
    }
    let package = format!("anvil-{}", platform());
    let here = std::env::current_dir().unwrap_or_default();
    let installed = here
        .ancestors()
        .map(|d| d.join("connectors/ethereum/contracts/node_modules/@foundry-rs").join(&package).join("bin/anvil"))
        .find(|p| p.is_file());
    match installed.or_else(|| on_path("anvil")) {
        Some(path) => Ok(path),
        None => by_npm(&package),
    }
}

fn on_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).map(|dir| dir.join(name)).find(|p| p.is_file())
}

/// npm only brings the program and says where it is: what npx starts would outlive npx when that is killed.
fn by_npm(package: &str) -> Result<PathBuf, DemoError> {
    let missing = |why: String| {
        DemoError::NoAnvil(format!(
            "{why}. Install Node.js (npx), or Foundry's anvil {VERSION} on the PATH or with --anvil, or name a node with --rpc"
        ))
    };
    let package = format!("--package=@foundry-rs/{package}@{VERSION}");
    let out = Command::new("npx")
        .args(["--yes", &package, "-c", "command -v anvil"])
        .stdin(Stdio::null())
        .output()
        .map_err(|e| missing(format!("npx could not be started: {e}")))?;
    let path = PathBuf::from(String::from_utf8_lossy(&out.stdout).trim());
    if out.status.success() && path.is_file() {
        return Ok(path);
    }
    let said = String::from_utf8_lossy(&out.stderr);
    let last = said.lines().rev().find(|l| !l.trim().is_empty()).unwrap_or("it said nothing");
    Err(missing(format!("npx did not bring anvil: {last}")))
}
