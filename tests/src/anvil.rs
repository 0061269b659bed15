//! An Ethereum node: anvil, from the npm packages of the contracts' folder; and `cast`, an auditor's own tool.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};

use crate::place::{self, Missing};
use crate::process::{self, Process};

/// A running anvil with ten funded accounts. Dropping it kills it.
#[derive(Debug)]
pub struct Anvil {
    port: u16,
    keys: Vec<String>,
    process: Process,
}

impl Anvil {
    /// Starts anvil on a free port, with the gas limit a transaction has on the real chain, mining a block a transaction.
    ///
    /// # Errors
    /// [`Missing`] if the npm packages are not installed.
    ///
    /// # Panics
    /// If it does not start.
    pub fn start() -> Result<Self, Missing> {
        Self::start_with(&[])
    }

    /// [`Anvil::start`] with more arguments, such as `--block-time 1`.
    ///
    /// # Errors
    /// As [`Anvil::start`].
    ///
    /// # Panics
    /// As [`Anvil::start`].
    pub fn start_with(arguments: &[&str]) -> Result<Self, Missing> {
        Self::start_on(place::free_port(), arguments)
    }

    /// [`Anvil::start_with`] on a port that a client may be dialling already.
    ///
    /// # Errors
    /// As [`Anvil::start`].
    ///
    /// # Panics
    /// As [`Anvil::start`].
    pub fn start_on(port: u16, arguments: &[&str]) -> Result<Self, Missing> {
        let program = tool("anvil")?;
        let directory = place::fresh_directory("anvil");
        let accounts = directory.join("accounts.json");
        let mut command = process::command(&program);
        command.args(["--enable-tx-gas-limit", "--host", "127.0.0.1", "--port", &port.to_string(), "--config-out"]);
        command.arg(&accounts).args(arguments);
        let mut anvil =
            Self { port, keys: Vec::new(), process: Process::start("anvil", command, &directory.join("anvil.log")) };
        crate::eventually("anvil answers", Duration::from_secs(60), || {
            assert!(anvil.process.ended().is_none(), "anvil did not start:\n{}", anvil.process.log_tail());
            anvil.try_call("eth_chainId", &json!([])).ok()
        });
        anvil.keys = crate::eventually("anvil names its accounts", Duration::from_secs(10), || private_keys(&accounts));
        Ok(anvil)
    }

    /// Its RPC endpoint.
    pub fn rpc(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// The private key of a funded account, in hexadecimal with `0x`; there are ten.
    pub fn key(&self, account: usize) -> &str {
        &self.keys[account]
    }

    /// A JSON-RPC call's result.
    ///
    /// # Panics
    /// If the node refuses it.
    pub fn call(&self, method: &str, params: &Value) -> Value {
        self.try_call(method, params).unwrap_or_else(|error| panic!("{method}: {error}"))
    }

    /// A JSON-RPC call's result, or what the node or the connection said against it.
    ///
    /// # Errors
    /// The node's error, or the transport's, as text.
    pub fn try_call(&self, method: &str, params: &Value) -> Result<Value, String> {
        let request = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params }).to_string();
        let mut response = ureq::post(self.rpc())
            .header("content-type", "application/json")
            .send(request)
            .map_err(|error| error.to_string())?;
        let text = response.body_mut().read_to_string().map_err(|error| error.to_string())?;
        let mut answer: Value = serde_json::from_str(&text).map_err(|error| error.to_string())?;
        match answer.get("error") {
            Some(error) => Err(error.to_string()),
            None => Ok(answer["result"].take()),
        }
    }

    /// Runs `cast` against this node (the endpoint is given in its environment), as an auditor would.
    ///
    /// # Errors
    /// What `cast` said, if it failed.
    ///
    /// # Panics
    /// If `cast` is not installed beside anvil.
    pub fn cast(&self, arguments: &[&str]) -> Result<String, String> {
        let cast = tool("cast").expect("cast comes with anvil");
        let mut command = process::command(&cast);
        let output = command.args(arguments).env("ETH_RPC_URL", self.rpc()).output().expect("cast starts");
        if output.status.success() {
            Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
        } else {
            Err(String::from_utf8_lossy(&output.stderr).trim().to_owned())
        }
    }

    /// Freezes the node: it takes connections and answers nothing.
    pub fn freeze(&self) {
        self.process.signal("STOP");
    }

    /// Lets a frozen node go on.
    pub fn thaw(&self) {
        self.process.signal("CONT");
    }

    /// The last lines the node logged.
    pub fn log_tail(&self) -> String {
        self.process.log_tail()
    }
}

/// The folder of the contracts and their tools.
pub fn contracts() -> PathBuf {
    place::workspace().join("connectors/ethereum/contracts")
}

/// One of the Foundry programs, itself and not npm's wrapper script: killing the wrapper would leave the program running.
///
/// # Errors
/// [`Missing`] if it is not installed for this platform.
pub fn tool(name: &str) -> Result<PathBuf, Missing> {
    let packages = contracts().join("node_modules/@foundry-rs");
    let system = if cfg!(target_os = "macos") { "darwin" } else { "linux" };
    let machine = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
    let path = packages.join(format!("{name}-{system}-{machine}/bin/{name}"));
    if path.is_file() {
        Ok(path)
    } else {
        Err(Missing(format!("{name} is not installed: run tests/setup/install contracts")))
    }
}

fn private_keys(path: &Path) -> Option<Vec<String>> {
    let accounts: Value = serde_json::from_slice(&std::fs::read(path).ok()?).ok()?;
    accounts["private_keys"].as_array()?.iter().map(|key| Some(key.as_str()?.to_owned())).collect()
}
