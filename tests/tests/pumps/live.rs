//! A process that runs, is asked how it is, and is told to reload its file.

use std::path::{Path, PathBuf};
use std::time::Duration;

use avouch_system_tests::{Process, eventually, place};

use super::{Place, metric, readyz};

const LIMIT: Duration = Duration::from_secs(120);
/// The thresholds that a file goes through.
pub const WARNINGS: [&str; 3] = ["warning = 0.01", "warning = 0.02", "warning = 0.05"];

/// A running process of a pipeline.
pub struct Live {
    pub process: Process,
    pub address: String,
    pub log: PathBuf,
}

impl Live {
    pub fn start(place: &Place, file: &Path, name: &str, more: &[&str]) -> Self {
        let address = format!("127.0.0.1:{}", place::free_port());
        let log = place.directory.join(format!("{name}.log"));
        let mut other = place.clone();
        other.file = file.to_path_buf();
        let call = other.avouch("run").args(more).env("T_HTTP", &address).env("T_INSTANCE", name);
        Self { process: call.start(&log), address, log }
    }

    pub fn metric(&self, name: &str) -> f64 {
        metric(&self.address, name).unwrap_or(-1.0)
    }

    pub fn reloads(&self, outcome: &str) -> f64 {
        self.metric(&format!("avouch_reloads_total{{outcome=\"{outcome}\"}}"))
    }

    /// Waits for something that is true of it, and that it lives.
    pub fn until(&mut self, what: &str, mut is: impl FnMut(&Self) -> bool) {
        eventually(what, LIMIT, || {
            assert!(self.process.ended().is_none(), "it ended:\n{}", self.process.log_tail());
            is(self).then_some(())
        });
    }

    pub fn ready(&mut self, lanes: i32) {
        self.until("it runs its lanes", |s| {
            s.metric("avouch_lanes_owned") == f64::from(lanes)
                && readyz(&s.address).is_some_and(|said| said.starts_with("ready"))
        });
    }

    pub fn stop(mut self) {
        self.process.signal("TERM");
        let status = self.process.wait(LIMIT);
        assert!(status.success(), "{status}:\n{}", self.process.log_tail());
    }
}

/// Changes the threshold of a file.
pub fn set_warning(file: &Path, warning: &str) {
    let text = std::fs::read_to_string(file).unwrap();
    let old = WARNINGS.iter().find(|w| text.contains(**w)).unwrap();
    // As an editor does it: never half a file.
    let new = file.with_extension("new");
    std::fs::write(&new, text.replace(old, warning)).unwrap();
    std::fs::rename(new, file).unwrap();
}
