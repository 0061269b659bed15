//! What is secret is in nothing that the program says: a marker stands in every key that can hold a secret, and in the
//! URLs that can, and all output is searched for it.

use std::path::Path;
use std::process::Command;

use avouch::lang::{Canonical, Pipeline, check, read_file};

use super::Fixed;

/// A private key as good as any, so that it fits everywhere.
const MARKER: &str = "5ec2e75ec2e75ec2e75ec2e75ec2e75ec2e75ec2e75ec2e75ec2e75ec2e75ec2";

const HEAD: &str = r#"version = 1
[pipeline]
name = "secretive"
secret = "${file:marker}"
checkpoint = { store = "s3://some-bucket/state", endpoint = "http://127.0.0.1:1", region = "x", access_key = "${file:marker}", secret_key = "${env:MARKER}" }
"#;
const STEPS: &str = r#"schema = { device = "utf8!", ts = "timestamp_ms!", temperature = "f64" }
key = "device"
time = { column = "ts", max_disorder = "30s" }
[steps.features]
from = "readings"
window = { kind = "tumbling", size = "1m" }
sql = "SELECT device, avg(temperature) AS temp_mean, stddev(temperature) AS temp_std FROM readings GROUP BY device"
[steps.anomaly]
from = "features"
model = { file = "pump.model" }
features = ["temp_mean", "temp_std"]
decide = { severity = { warning = 0.1 } }
[sinks.hook]
from = "anomaly"
kind = "webhook"
url = "http://user:${env:MARKER}@127.0.0.1:1/${file:marker}"
secret = "${file:marker}"
token = "${env:MARKER}"
timeout = "1s"
delivery = "at-least-once"
[sinks.pager]
from = "anomaly"
kind = "alertmanager"
url = "http://user:${env:MARKER}@127.0.0.1:1"
token = "${env:MARKER}"
[http]
listen = "127.0.0.1:0"
[anchor]
kind = "ethereum"
rpc = "http://user:${env:MARKER}@127.0.0.1:1/${file:marker}"
chain_id = 31337
contract = "0x5FbDB2315678afecb367f032d93F642f64180aa3"
every = { interval = "30s" }
"#;

/// Every key of the language that can hold a secret stands in one of these.
fn pipelines() -> Vec<(&'static str, String)> {
    let kafka = |security: &str, registry: &str, signer: &str| {
        format!(
            "{HEAD}[sources.readings]\nkind = \"kafka\"\nbrokers = \"127.0.0.1:1\"\ntopic = \"t\"\nsecurity = {security}\n\
             format = \"avro\"\nregistry = {registry}\n{STEPS}signer = {signer}\n\
             [dead_letter]\nkind = \"kafka\"\ntopic = \"dead\"\n"
        )
    };
    let mqtt = format!(
        "{}[sources.readings]\nkind = \"mqtt\"\nurl = \"mqtt://127.0.0.1:1\"\ntopics = [\"a\"]\nusername = \"u\"\n\
         password = \"${{file:marker}}\"\nformat = \"json\"\n{STEPS}signer = {{ keystore = \"keystore.json\", password = \"${{file:marker}}\" }}\n\
         [dead_letter]\nkind = \"files\"\npath = \"file://./dead\"\n",
        HEAD.replace(HEAD.lines().last().unwrap(), "")
    );
    vec![
        (
            "scram",
            kafka(
                r#"{ protocol = "SASL_PLAINTEXT", mechanism = "SCRAM-SHA-256", username = "u", password = "${env:MARKER}" }"#,
                r#"{ url = "http://127.0.0.1:1", username = "u", password = "${file:marker}" }"#,
                r#"{ key = "${env:MARKER}" }"#,
            ),
        ),
        (
            "oauth",
            kafka(
                r#"{ protocol = "SASL_SSL", mechanism = "OAUTHBEARER", token_endpoint = "http://127.0.0.1:1/token", client_id = "u", client_secret = "${file:marker}", certificate = "c.pem", key = "k.pem", key_password = "${env:MARKER}" }"#,
                r#"{ url = "http://user:${env:MARKER}@127.0.0.1:1/${file:marker}", token = "${file:marker}" }"#,
                r#"{ keystore = "absent.json", password = "${env:MARKER}" }"#,
            )
            .replace("http://user:${env:MARKER}@127.0.0.1:1/${file:marker}\", token", "http://127.0.0.1:1/${file:marker}\", token"),
        ),
        (
            "token",
            kafka(
                r#"{ protocol = "SASL_PLAINTEXT", mechanism = "OAUTHBEARER", token = "${env:MARKER}" }"#,
                r#"{ url = "http://user:${env:MARKER}@127.0.0.1:1" }"#,
                r#"{ key = "0x${file:marker}" }"#,
            ),
        ),
        (
            "kms",
            kafka(
                r#"{ protocol = "SASL_PLAINTEXT", mechanism = "OAUTHBEARER", token = "${env:MARKER}" }"#,
                r#"{ url = "http://user:${env:MARKER}@127.0.0.1:1" }"#,
                r#"{ aws_kms = "alias/operator", region = "eu-central-1", endpoint = "http://127.0.0.1:1" }"#,
            ),
        ),
        ("mqtt", mqtt),
    ]
}

fn said(dir: &Path, args: &[&str]) -> String {
    // A run that would wait for what is away is ended.
    let output = Command::new("timeout")
        .args(["--signal=KILL", "8", env!("CARGO_BIN_EXE_avouch")])
        .args(args)
        .current_dir(dir)
        .env("MARKER", MARKER)
        .env("RUST_LOG", "debug")
        .env("AWS_EC2_METADATA_DISABLED", "true")
        // What a key in KMS is asked with.
        .env("AWS_ACCESS_KEY_ID", "AKIAEXAMPLE")
        .env("AWS_SECRET_ACCESS_KEY", MARKER)
        .env("AWS_SESSION_TOKEN", MARKER)
        .output()
        .unwrap();
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn shows(text: &str) -> bool {
    let text = text.to_lowercase();
    text.contains(&MARKER[..12])
}

#[test]
fn no_secret_is_in_anything_the_program_says() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    std::fs::write(dir.join("marker"), format!("{MARKER}\n")).unwrap();
    std::fs::write(dir.join("keystore.json"), "{}").unwrap();
    std::fs::write(dir.join("pump.model"), super::models::model(&["temp_mean", "temp_std"])).unwrap();
    let pipelines = pipelines();
    std::thread::scope(|scope| {
        for (name, text) in &pipelines {
            scope.spawn(move || {
                let file = format!("{name}.toml");
                std::fs::write(dir.join(&file), text).unwrap();
                for args in [
                    &["check"][..],
                    &["check", "--json"],
                    &["check", "--format", "sarif"],
                    &["check", "--canonical"],
                    &["check", "--connect"],
                    &["check", "--connect", "--format", "sarif"],
                    &["--log-format", "json", "run", "--json"],
                ] {
                    let args: Vec<&str> = args.iter().copied().chain([file.as_str()]).collect();
                    let said = said(dir, &args);
                    assert!(!said.is_empty(), "{name}: {args:?}");
                    assert!(!shows(&said), "{name}: {args:?} shows it:\n{said}");
                    let canonical = args.contains(&"--canonical");
                    assert!(canonical || !said.contains("error[missing-key]"), "{name} is no valid pipeline:\n{said}");
                }
            });
        }
    });
}

#[test]
fn no_secret_is_in_debug_output_or_changes_the_hash() {
    struct With(&'static str);
    impl avouch::lang::Environment for With {
        fn var(&self, name: &str) -> Option<String> {
            if name == "MARKER" { Some(self.0.into()) } else { Fixed.var(name) }
        }
        fn read(&self, path: &Path) -> std::io::Result<Vec<u8>> {
            if path.ends_with("marker") { Ok(self.0.as_bytes().to_vec()) } else { Fixed.read(path) }
        }
    }
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in pipelines() {
        let path = dir.path().join(format!("{name}.toml"));
        std::fs::write(&path, &text).unwrap();
        let file = read_file(&path).unwrap();
        let other: &str = "0ddba110ddba110ddba110ddba110ddba110ddba110ddba110ddba110ddba110";
        let [one, two] = [MARKER, other].map(|secret| match Pipeline::read(file.clone(), &With(secret)) {
            Ok(p) => p,
            Err(e) => panic!("{name}: {e}"),
        });
        assert_eq!(one.config_hash(), two.config_hash());
        assert!(!shows(&format!("{one:?}")), "{name}: {one:?}");
        assert!(!shows(&format!("{:?} {}", check(&one), check(&one).to_json())), "{name}");
        assert!(!shows(&Canonical::of(&file).unwrap().json));
    }
}
