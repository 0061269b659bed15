//! An object store that speaks S3's protocol: moto's server.

use std::time::Duration;

use crate::place::{self, Missing};
use crate::process::{self, Process};

/// A running object store with one bucket. Dropping it kills it.
#[derive(Debug)]
pub struct ObjectStore {
    port: u16,
    process: Process,
}

/// The bucket.
pub const BUCKET: &str = "plant";

/// Moto checks no signature, but wants somebody to have signed.
const ANYBODY: &str =
    "AWS4-HMAC-SHA256 Credential=test/20260101/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=0";

impl ObjectStore {
    /// Starts it on a free port and makes the bucket.
    ///
    /// # Errors
    /// [`Missing`] if moto is not installed.
    ///
    /// # Panics
    /// If it does not start.
    pub fn start() -> Result<Self, Missing> {
        let python = place::cache().join("moto-venv/bin/python");
        if !python.is_file() {
            return Err(Missing("moto is not installed: run tests/setup/install moto".to_owned()));
        }
        let directory = place::fresh_directory("moto");
        let port = place::free_port();
        let mut command = process::command(&python);
        command.args(["-m", "moto.server", "-H", "127.0.0.1", "-p", &port.to_string()]);
        let mut store = Self { port, process: Process::start("moto", command, &directory.join("moto.log")) };
        crate::eventually("moto makes a bucket", Duration::from_secs(60), || {
            assert!(store.process.ended().is_none(), "moto did not start:\n{}", store.process.log_tail());
            ureq::put(format!("{}/{BUCKET}", store.endpoint())).send_empty().ok()
        });
        Ok(store)
    }

    /// Its URL.
    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Puts an object of the bucket in place of what is there.
    ///
    /// # Panics
    /// If it is refused.
    pub fn put(&self, name: &str, bytes: &[u8]) {
        let url = format!("{}/{BUCKET}/{name}", self.endpoint());
        ureq::put(url).header("authorization", ANYBODY).send(bytes).expect("moto takes an object");
    }

    /// Deletes an object of the bucket.
    ///
    /// # Panics
    /// If it is refused.
    pub fn delete(&self, name: &str) {
        let url = format!("{}/{BUCKET}/{name}", self.endpoint());
        ureq::delete(url).header("authorization", ANYBODY).call().expect("moto deletes an object");
    }

    /// Stops it where it stands (SIGSTOP): requests are neither refused nor answered.
    pub fn pause(&self) {
        self.process.signal("STOP");
    }

    /// Lets it go on.
    pub fn resume(&self) {
        self.process.signal("CONT");
    }
}
