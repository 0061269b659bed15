//! Prometheus Alertmanager, by its API v2.
//!
//! An alert is not a message but a state: Alertmanager knows it by its labels, and posting it again changes nothing but
//! when it ends. So a repeat after a crash does no harm.

use std::collections::BTreeMap;
use std::time::Duration;

use avouch_engine::decode::format_timestamp;
use serde_json::{Map, Value};

use super::post::Endpoint;
use crate::delivery::Failure;

/// One alert as it stands now. Times are milliseconds since the epoch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Alert {
    /// What it is known by; values must be Unicode, an empty one counts as absent.
    pub labels: BTreeMap<&'static str, String>,
    /// What is said of it.
    pub annotations: BTreeMap<String, String>,
    /// Since when.
    pub starts_at: i64,
    /// Until when: in the past it is resolved.
    pub ends_at: i64,
    /// A page about it.
    pub generator_url: Option<String>,
}

impl Alert {
    fn json(&self) -> Value {
        let labels: Map<_, _> = self.labels.iter().map(|(k, v)| ((*k).to_owned(), v.as_str().into())).collect();
        let annotations: Map<_, _> = self.annotations.iter().map(|(k, v)| (k.clone(), v.as_str().into())).collect();
        let mut out = Map::new();
        out.insert("labels".into(), labels.into());
        out.insert("annotations".into(), annotations.into());
        out.insert("startsAt".into(), format_timestamp(self.starts_at).into());
        out.insert("endsAt".into(), format_timestamp(self.ends_at).into());
        if let Some(url) = &self.generator_url {
            out.insert("generatorURL".into(), url.as_str().into());
        }
        out.into()
    }
}

/// Posts alerts to one Alertmanager.
#[derive(Debug, Clone)]
pub struct Alertmanager {
    endpoint: Endpoint,
}

impl Alertmanager {
    /// `url` is Alertmanager's own, without `/api`. Opens no connection.
    ///
    /// # Errors
    /// [`Failure::Fatal`] when the URL is none.
    pub fn new(url: &str, token: Option<String>, timeout: Duration) -> Result<Self, Failure> {
        Ok(Self { endpoint: Endpoint::new(url, "/api/v2/alerts", token, timeout)? })
    }

    /// Posts alerts; returns once Alertmanager has them. None is no request.
    ///
    /// # Errors
    /// [`Failure::Refused`] when it refuses at least one of them (it then takes the others), [`Failure::Down`].
    pub async fn post(&self, alerts: &[Alert]) -> Result<(), Failure> {
        if alerts.is_empty() {
            return Ok(());
        }
        let body = Value::from(alerts.iter().map(Alert::json).collect::<Vec<_>>());
        self.endpoint.post(&[], body.to_string().into_bytes()).await
    }
}
