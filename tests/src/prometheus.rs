//! A real Prometheus: what it makes of `/metrics` is what an operator sees.

use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use crate::place::{self, Missing};
use crate::process::{self, Process};

/// A running Prometheus. Dropping it kills it.
#[derive(Debug)]
pub struct Prometheus {
    port: u16,
    process: Process,
}

/// One series of an instant query's answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// The labels, `__name__` among them where the query keeps it.
    pub labels: std::collections::BTreeMap<String, String>,
    /// The value.
    pub value: f64,
}

impl Prometheus {
    /// Starts Prometheus on a free port, scraping `targets` (`host:port`, at `/metrics`) twice a second, with the rules of
    /// `tests/prometheus` if there are any.
    ///
    /// # Errors
    /// [`Missing`] if Prometheus is not installed.
    ///
    /// # Panics
    /// If it does not start.
    pub fn start(targets: &[&str]) -> Result<Self, Missing> {
        let unpacked = place::cache().join("prometheus/usr/bin");
        let program = place::find_program("prometheus", &[unpacked])
            .ok_or_else(|| Missing("Prometheus is not installed: run tests/setup/install prometheus".to_owned()))?;
        let directory = place::fresh_directory("prometheus");
        let config = directory.join("prometheus.yml");
        std::fs::write(&config, configuration(targets)).unwrap_or_else(|error| panic!("{}: {error}", config.display()));
        let port = place::free_port();
        let mut command = process::command(&program);
        command.arg(format!("--config.file={}", config.display()));
        command.arg(format!("--storage.tsdb.path={}", directory.join("data").display()));
        command.arg(format!("--web.listen-address=127.0.0.1:{port}"));
        let mut prometheus =
            Self { port, process: Process::start("Prometheus", command, &directory.join("prometheus.log")) };
        crate::eventually("Prometheus is ready", Duration::from_secs(60), || {
            assert!(
                prometheus.process.ended().is_none(),
                "Prometheus did not start:\n{}",
                prometheus.process.log_tail()
            );
            ureq::get(format!("{}/-/ready", prometheus.url())).call().ok()
        });
        Ok(prometheus)
    }

    /// Its own address.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// An instant query's series.
    ///
    /// # Panics
    /// If the query is refused.
    pub fn query(&self, expression: &str) -> Vec<Sample> {
        let answer = self.get("/api/v1/query", expression);
        let result = answer["data"]["result"].as_array();
        let result = result.unwrap_or_else(|| panic!("{expression}: no vector in {answer}"));
        result.iter().map(|series| sample(series).unwrap_or_else(|| panic!("{expression}: {series}"))).collect()
    }

    /// The value of an expression that has one, such as a `sum`; `None` if it has no series yet.
    ///
    /// # Panics
    /// If it has several.
    pub fn value(&self, expression: &str) -> Option<f64> {
        let samples = self.query(expression);
        assert!(samples.len() < 2, "{expression} has {} series: {samples:?}", samples.len());
        samples.first().map(|sample| sample.value)
    }

    /// Waits until an expression has a value that `accept` takes, and gives it.
    ///
    /// # Panics
    /// If it has none after `limit`; the message has the last value and the scrape's state.
    pub fn wait_for(&self, expression: &str, limit: Duration, accept: impl Fn(f64) -> bool) -> f64 {
        let start = std::time::Instant::now();
        loop {
            let value = self.value(expression);
            if let Some(value) = value.filter(|&value| accept(value)) {
                return value;
            }
            assert!(start.elapsed() < limit, "{expression} is {value:?} after {limit:?}; up: {:?}", self.query("up"));
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// The last lines Prometheus logged.
    pub fn log_tail(&self) -> String {
        self.process.log_tail()
    }

    fn get(&self, path: &str, expression: &str) -> Value {
        let mut response = ureq::get(format!("{}{path}", self.url()))
            .query("query", expression)
            .call()
            .unwrap_or_else(|error| panic!("{expression}: {error}\n{}", self.process.log_tail()));
        let text = response.body_mut().read_to_string().unwrap_or_else(|error| panic!("{expression}: {error}"));
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{expression}: {error} in {text}"))
    }
}

fn configuration(targets: &[&str]) -> String {
    let rules = place::workspace().join("tests/prometheus/rules.yml");
    let targets: Vec<_> = targets.iter().map(|target| format!("'{target}'")).collect();
    format!(
        "global: {{ scrape_interval: 500ms, evaluation_interval: 500ms }}
{rules}scrape_configs:
  - job_name: avouch
    static_configs: [{{ targets: [{targets}] }}]
",
        rules = rule_files(&rules),
        targets = targets.join(", ")
    )
}

fn rule_files(rules: &Path) -> String {
    if rules.is_file() { format!("rule_files: ['{}']\n", rules.display()) } else { String::new() }
}

fn sample(series: &Value) -> Option<Sample> {
    let labels = series["metric"].as_object()?;
    let labels = labels.iter().map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())));
    // Prometheus writes values as text, infinities and NaN included.
    Some(Sample { labels: labels.collect::<Option<_>>()?, value: series["value"][1].as_str()?.parse().ok()? })
}
