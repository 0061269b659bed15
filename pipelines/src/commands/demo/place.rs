//! The demo's directory and the pipeline file in it: the ready-made one with its blanks filled in, so that every other
//! command works on what the demo leaves behind.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use super::DemoError;

/// The ready-made pipeline.
const PIPELINE: &str = include_str!("../../../pump-demo/pipeline.toml");

/// The demo's directory.
pub(super) struct Place {
    pub(super) dir: PathBuf,
}

impl Place {
    /// Takes an empty or new directory; one of its own below the system's temporary directory if none is given.
    pub(super) fn new(given: Option<&Path>) -> Result<Self, DemoError> {
        let dir = match given {
            Some(dir) => dir.to_path_buf(),
            None => {
                let ms = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis());
                std::env::temp_dir().join(format!("avouch-demo-{ms}-{}", std::process::id()))
            }
        };
        std::fs::create_dir_all(dir.join("training")).map_err(|e| DemoError::file(&dir, e))?;
        let dir = dir.canonicalize().map_err(|e| DemoError::file(&dir, e))?;
        let entries = std::fs::read_dir(&dir).map_err(|e| DemoError::file(&dir, e))?.count();
        if entries > 1 {
            return Err(DemoError::NotEmpty(dir));
        }
        Ok(Self { dir })
    }

    /// A file in it.
    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// The pipeline file.
    pub(super) fn pipeline(&self) -> PathBuf {
        self.file("pipeline.toml")
    }

    /// Writes a file.
    pub(super) fn write(&self, name: &str, text: &str) -> Result<(), DemoError> {
        let path = self.file(name);
        std::fs::write(&path, text).map_err(|e| DemoError::file(&path, e))
    }

    /// Writes an endpoint, which may carry a secret, into a file that only its owner reads.
    pub(super) fn write_private(&self, name: &str, text: &str) -> Result<(), DemoError> {
        use std::io::Write as _;
        use std::os::unix::fs::OpenOptionsExt as _;
        let path = self.file(name);
        let file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
        file.and_then(|mut f| f.write_all(text.as_bytes())).map_err(|e| DemoError::file(&path, e))
    }
}

/// What the ready-made pipeline leaves open.
pub(super) struct Blanks {
    /// Kafka.
    pub(super) brokers: String,
    /// Topics begin with it.
    pub(super) prefix: String,
    /// Whether the brokers keep transactions.
    pub(super) exactly_once: bool,
    /// What stands for the endpoint.
    pub(super) rpc: String,
    /// The chain.
    pub(super) chain_id: u64,
    /// VerdictLog.
    pub(super) contract: String,
    /// What stands for the key.
    pub(super) key: String,
}

impl Blanks {
    /// The pipeline file's text. Variables that are not blanks of the demo get their defaults: what the shell has set
    /// for another pipeline must not reach into this one.
    pub(super) fn fill(&self) -> String {
        let topic = |name: &str| format!("{}.{name}", self.prefix);
        let values = BTreeMap::from([
            ("KAFKA_BROKERS", quoted(&self.brokers)),
            ("PUMP_READINGS", topic("telemetry")),
            ("PUMP_VERDICTS", topic("verdicts")),
            ("PUMP_DEAD", topic("dead")),
            ("ETH_RPC", self.rpc.clone()),
            ("VERDICT_LOG", self.contract.clone()),
            ("AVOUCH_KEY", self.key.clone()),
        ]);
        let mut out = String::new();
        for line in PIPELINE.lines() {
            let line = match line.split_whitespace().next() {
                Some("delivery") if self.exactly_once => "delivery    = \"exactly-once\"".to_owned(),
                Some("chain_id") => format!("chain_id        = {}", self.chain_id),
                _ => fill(line, &values),
            };
            out.push_str(&line);
            out.push('\n');
        }
        // A port of its own: another pipeline may run on this machine.
        out.push_str("\n[http]\nlisten = \"127.0.0.1:0\"\n");
        out
    }
}

/// The inside of a TOML string; JSON's escapes are TOML's too.
fn quoted(text: &str) -> String {
    let json = serde_json::Value::from(text.replace("${", "$${")).to_string();
    json[1..json.len() - 1].to_owned()
}

fn fill(line: &str, values: &BTreeMap<&str, String>) -> String {
    const OPEN: &str = "${env:";
    let mut out = String::new();
    let mut rest = line;
    while let Some(at) = rest.find(OPEN) {
        let Some(end) = rest[at..].find('}') else { break };
        let inside = &rest[at + OPEN.len()..at + end];
        let (name, default) = inside.split_once(":-").unwrap_or((inside, ""));
        out.push_str(&rest[..at]);
        out.push_str(values.get(name).map_or(default, String::as_str));
        rest = &rest[at + end + 1..];
    }
    out + rest
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::lang::{Delivery, Pipeline, SourceKind};

    fn blanks() -> Blanks {
        Blanks {
            brokers: "localhost:1".into(),
            prefix: "demo".into(),
            exactly_once: true,
            rpc: "http://localhost:2".into(),
            chain_id: 1337,
            contract: format!("0x{}", "12".repeat(20)),
            key: super::super::anvil::KEY.into(),
        }
    }

    #[test]
    fn every_blank_is_filled() {
        let text = blanks().fill();
        assert!(!text.contains("${"), "{text}");
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("pipeline.toml");
        std::fs::write(&path, &text).unwrap();
        let pipeline = Pipeline::load(&path).unwrap_or_else(|e| panic!("{}", e.render_text(false)));
        let SourceKind::Kafka(kafka) = &pipeline.source.kind else { panic!("the demo reads Kafka") };
        assert_eq!(kafka.brokers.as_str(), "localhost:1");
        assert_eq!(kafka.topic.as_str(), "demo.telemetry");
        let crate::lang::DeadLetterKind::Kafka(dead) = &pipeline.dead_letter.kind else { panic!() };
        assert_eq!(dead.topic.as_str(), "demo.dead");
        assert_eq!(pipeline.delivery.value, Delivery::ExactlyOnce);
        let anchor = pipeline.anchor.unwrap();
        assert_eq!((anchor.chain_id, anchor.contract.value), (1337, [0x12; 20]));
        assert_eq!(pipeline.http_listen.port(), 0);
    }

    #[test]
    fn a_directory_in_use_is_refused() {
        let place = tempfile::tempdir().unwrap();
        let dir = place.path().join("new");
        Place::new(Some(&dir)).unwrap().write("something", "").unwrap();
        assert!(matches!(Place::new(Some(&dir)), Err(DemoError::NotEmpty(_))));
    }
}
