//! The harness of the whole-system tests: real parts, started on loopback and stopped with the test.
//!
//! ```text
//!   KafkaBroker  Apache Kafka in KRaft mode     (jars: tests/kafka/pom.xml)
//!   Anvil        an Ethereum node               (npm: connectors/ethereum/contracts)
//!   Alertmanager Debian's
//!   Endpoint     HTTP, in the test's process: takes, refuses, fails, dies
//!   Kms          moto, which stands in for AWS KMS, with additions (pip; connectors/tests/anchoring/kms_server.py)
//!   Mosquitto    Debian's, an MQTT broker
//!   ObjectStore  moto, which speaks S3 (pip)    (tests/setup/install moto)
//!   Prometheus   Debian's, scraping a program   (configuration: tests/prometheus)
//!   Registry     a schema registry, in process: the part of Confluent's REST interface that readers use
//!   Avouch       the program under test, as built beside this test
//! ```
//!
//! Nothing here stands in for a real part but the registry, of which none can be had without a container, and moto. A part that this machine lacks is [`Missing`]; a test that [`require!`]s it is
//! then reported as skipped, and fails where `CI=true`, so a green run there has skipped nothing.
//!
//! Whatever a test starts is killed with it, even if the test process itself is killed: see [`process`].
//! The harness panics where a test would: its callers are tests, and its messages end with the tail of the part's log.

pub mod alertmanager;
pub mod anvil;
pub mod avouch;
pub mod endpoint;
pub mod kafka;
pub mod kms;
pub mod mosquitto;
pub mod objects;
pub mod place;
pub mod process;
pub mod prometheus;
pub mod records;
pub mod registry;
pub mod secured;

pub use alertmanager::Alertmanager;
pub use anvil::Anvil;
pub use avouch::Avouch;
pub use endpoint::Endpoint;
pub use kafka::KafkaBroker;
pub use kms::Kms;
pub use mosquitto::Mosquitto;
pub use objects::ObjectStore;
pub use place::{Missing, datasets};
pub use process::Process;
pub use prometheus::Prometheus;
pub use records::{Isolation, Record};
pub use registry::Registry;
pub use secured::{SecuredBroker, TokenEndpoint};

use std::io::Write;
use std::time::{Duration, Instant};

/// Unwraps a part of the machine, or skips the test that needs it (and returns from it).
#[macro_export]
macro_rules! require {
    ($part:expr) => {
        match $part {
            Ok(part) => part,
            Err(missing) => {
                $crate::skip(&missing.to_string());
                return;
            }
        }
    };
}

/// Reports the running test as skipped, on standard error past cargo's capture, so that the count at the end of `make test` sees it.
///
/// # Panics
/// Where `CI=true`: there everything is installed, so a skip is a fault of the set-up.
pub fn skip(reason: &str) {
    let test = std::thread::current().name().unwrap_or("a test").to_owned();
    assert!(std::env::var("CI").as_deref() != Ok("true"), "CI=true, and {test} would be skipped: {reason}");
    // A closed standard error leaves nobody to tell.
    let _ = writeln!(std::io::stderr(), "\nSKIPPED: {test}: {reason}");
}

/// Polls `condition` every 20 ms until it gives something, and panics with `what` after `limit`.
pub fn eventually<T>(what: &str, limit: Duration, mut condition: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = condition() {
            return found;
        }
        assert!(start.elapsed() < limit, "after {limit:?}, still not: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
