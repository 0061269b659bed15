//! `avouch witness`: vouches for logs that it has watched grow, and brings heads to whoever does (tlog-witness).

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use avouch_connectors::published::PublishedAt;
use avouch_connectors::witness::{Submitted, Witness, submit};
use avouch_engine::bundle::utc;
use avouch_engine::log::{Cosigner, cosigned};
use avouch_engine::verdict::Hash32;
use clap::{Args, Subcommand};
use rand::RngCore as _;
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};

use super::fail;
use crate::lang::hex_bytes;
use crate::runtime::hex;

/// Witness logs: sign a log's head only if it extends the head signed before, so that nobody is shown another log
/// (tlog-witness, https://c2sp.org/tlog-witness).
#[derive(Debug, Clone, Args)]
pub struct WitnessArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Clone, Subcommand)]
enum What {
    /// Listen, and cosign heads of these logs
    Serve(ServeArgs),
    /// Bring the newest head of a published log to a witness. Anybody may
    Submit(SubmitArgs),
    /// Check whether a note carries a witness's signature
    Check(CheckArgs),
}

#[derive(Debug, Clone, Args)]
struct ServeArgs {
    /// The witness's name, by custom a URL without its scheme: witness.example.com/w1
    #[arg(long, value_name = "NAME")]
    name: String,

    /// Directory of its key and of what it has signed
    #[arg(long, value_name = "DIR")]
    state: PathBuf,

    /// Verifier key of a log that it witnesses; several may be given
    #[arg(long = "log", value_name = "KEY", required = true)]
    logs: Vec<String>,

    /// Where to listen
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:9465")]
    listen: SocketAddr,
}

#[derive(Debug, Clone, Args)]
struct SubmitArgs {
    /// Where the log is published: a URL such as http://host:9464/log/0, or a directory
    #[arg(value_name = "URL|DIR")]
    log: String,

    /// The log's verifier key
    #[arg(long, value_name = "KEY")]
    key: String,

    /// The witness's URL
    #[arg(long, value_name = "URL")]
    witness: String,

    /// The witness's verifier key: its signature is checked
    #[arg(long, value_name = "KEY")]
    witness_key: String,

    /// File for the cosigned note [default: standard output]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Args)]
struct CheckArgs {
    /// The note
    #[arg(value_name = "FILE")]
    note: PathBuf,

    /// The witness's verifier key
    #[arg(long, value_name = "KEY")]
    witness_key: String,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Serves until it is told to stop, or brings one head.
pub fn run(args: &WitnessArgs) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build() {
        Ok(r) => r,
        Err(e) => return fail(false, format!("cannot start the async runtime: {e}")),
    };
    match &args.what {
        What::Serve(a) => match runtime.block_on(serve(a)) {
            Ok(()) => ExitCode::SUCCESS,
            Err(e) => fail(false, e),
        },
        What::Submit(a) => runtime.block_on(bring(a)).unwrap_or_else(|e| fail(a.json, e)),
        What::Check(a) => check(a).unwrap_or_else(|e| fail(a.json, e)),
    }
}

async fn serve(args: &ServeArgs) -> Result<(), String> {
    std::fs::create_dir_all(&args.state).map_err(|e| format!("{}: {e}", args.state.display()))?;
    let seed = seed(&args.state.join("key"))?;
    let key = Cosigner::from_seed(&args.name, &seed).map_err(|e| e.to_string())?;
    let shown = key.verifier_key();
    let witness = Witness::bind(args.listen, key, args.logs.clone(), &args.state).await.map_err(|e| e.to_string())?;
    println!("listening on http://{}\nkey {shown}", witness.address());
    let fail = |e: std::io::Error| e.to_string();
    let mut term = signal(SignalKind::terminate()).map_err(fail)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(fail)?;
    tokio::select! {
        ended = witness.serve() => ended.map_err(|e| e.to_string()),
        _ = term.recv() => Ok(()),
        _ = interrupt.recv() => Ok(()),
    }
}

/// The seed in a file, which is made if it is not there.
fn seed(path: &Path) -> Result<Hash32, String> {
    use std::os::unix::fs::OpenOptionsExt as _;
    let fail = |e: std::io::Error| format!("{}: {e}", path.display());
    match std::fs::read_to_string(path) {
        Ok(text) => hex_bytes(text.trim())
            .ok_or_else(|| format!("{}: it should hold 64 hexadecimal digits; restore it from a copy", path.display())),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            let mut seed = [0; 32];
            rand::rngs::OsRng.fill_bytes(&mut seed);
            let mut file =
                std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(fail)?;
            file.write_all(format!("{}\n", hex(&seed)).as_bytes()).and_then(|()| file.sync_all()).map_err(fail)?;
            Ok(seed)
        }
        Err(e) => Err(fail(e)),
    }
}

async fn bring(args: &SubmitArgs) -> Result<ExitCode, String> {
    let log = PublishedAt::new(&args.log, &args.key).map_err(|e| e.to_string())?;
    let note = match submit(&log, &args.witness).await.map_err(|e| e.to_string())? {
        Submitted::Cosigned(note) => note,
        Submitted::Refused { status, why } => {
            return Err(format!("the witness refused ({status}): {why}"));
        }
    };
    let signed = cosigned(&note, &args.witness_key).map_err(|e| e.to_string())?;
    let (head, time) = signed.ok_or("the witness answered, but not with a signature under that key")?;
    if let Some(path) = &args.out {
        std::fs::write(path, &note).map_err(|e| format!("{}: {e}", path.display()))?;
    }
    if args.json {
        println!(
            "{}",
            json!({ "log": head.origin.as_str(), "size": head.size, "root": hex(&head.root), "time": time })
        );
    } else if args.out.is_some() {
        println!("cosigned: {} records of {}, {}", head.size, head.origin.as_str(), utc(time.saturating_mul(1000)));
    } else {
        std::io::stdout().write_all(&note).map_err(|e| e.to_string())?;
    }
    Ok(ExitCode::SUCCESS)
}

fn check(args: &CheckArgs) -> Result<ExitCode, String> {
    let note = std::fs::read(&args.note).map_err(|e| format!("{}: {e}", args.note.display()))?;
    let found = cosigned(&note, &args.witness_key).map_err(|e| e.to_string())?;
    let Some((head, time)) = found else {
        return Err("the note carries no signature under that key".into());
    };
    if args.json {
        println!(
            "{}",
            json!({ "log": head.origin.as_str(), "size": head.size, "root": hex(&head.root), "time": time })
        );
    } else {
        println!("{} records of {} were cosigned {}", head.size, head.origin.as_str(), utc(time.saturating_mul(1000)));
    }
    Ok(ExitCode::SUCCESS)
}
