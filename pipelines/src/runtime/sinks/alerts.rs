//! Alertmanager. An alert is a state: while the last verdict of a device and step matches the sink's `where`, its alert is
//! open; a verdict that does not match resolves it. What is open is kept, with the cursor, in the lane's cursor file, and
//! posted again every minute, because Alertmanager forgets its alerts when it restarts.
//!
//! - Labels, which identify it: `alertname` (`AvouchVerdict`), `pipeline`, `step`, `severity`, `device`. When the severity
//!   changes, the alert of the old one is resolved and one of the new one opened.
//! - `startsAt`: end of the window of the first verdict that matched.
//! - `endsAt`: `resolve_after` from when the last matching verdict was posted, by the clock, so that the alert of a device
//!   that fell silent ends some time; when resolved, the end of the window of the verdict that resolved it.
//!
//! Of several verdicts in one batch only where they lead to is posted: after an outage nobody is woken for what is over.
//! A repeat after a crash posts the same alerts, which changes nothing.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use avouch_connectors::http::{Alert, Alertmanager};
use avouch_connectors::store::{Cursor, LaneReader, StoreError};
use avouch_engine::decode::format_timestamp;
use avouch_engine::verdict::VerdictRecord;
use serde::{Deserialize, Serialize};

use super::super::error::RuntimeError;
use super::super::verdict_json::class_name;
use super::Target;
use super::feed::{Item, Record};
use super::writer::{Batch, Halt, Position};
use crate::lang::{AlertmanagerSink, SecretString};
use crate::verdict_table::severity_name;

/// How often open alerts are posted again.
const RESEND_MS: i64 = 60_000;

#[derive(Debug, Clone)]
pub(super) struct Options {
    url: String,
    token: Option<SecretString>,
    timeout: Duration,
    resolve_after_ms: i64,
    generator_url: Option<String>,
}

impl Options {
    pub fn new(a: &AlertmanagerSink) -> Self {
        Self {
            url: a.url.as_str().to_owned(),
            token: a.token.as_ref().map(|t| t.value.clone()),
            timeout: Duration::from_millis(a.timeout_ms.max(1) as u64),
            resolve_after_ms: a.resolve_after_ms,
            generator_url: a.generator_url.as_ref().map(|u| u.as_str().to_owned()),
        }
    }
}

/// An open alert, as it was posted last.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Open {
    device: String,
    step: String,
    severity: String,
    starts_at: i64,
    ends_at: i64,
    annotations: BTreeMap<String, String>,
}

/// The open alerts of a lane, one a device and step.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Board {
    open: BTreeMap<(String, String), Open>,
}

pub(super) struct AlertWriter {
    alertmanager: Alertmanager,
    cursor: Cursor,
    board: Board,
    options: Options,
    pipeline: String,
}

fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as i64)
}

impl Board {
    fn read(note: &str) -> Option<Self> {
        if note.is_empty() {
            return Some(Self::default());
        }
        let all: Vec<Open> = serde_json::from_str(note).ok()?;
        Some(Self { open: all.into_iter().map(|o| ((o.device.clone(), o.step.clone()), o)).collect() })
    }

    /// One line.
    fn write(&self) -> String {
        let all: Vec<&Open> = self.open.values().collect();
        // Invariant: strings and numbers are always JSON.
        serde_json::to_string(&all).unwrap_or_default()
    }

    /// Takes verdicts in the order of the log. Returns where that leads: the alerts that are open and changed, then those
    /// that were open before and are not any more, with their ends.
    fn take(&mut self, log: &str, items: &[Item], now: i64, resolve_after_ms: i64) -> Vec<Open> {
        let before = self.open.clone();
        let mut touched: BTreeMap<(String, String), i64> = BTreeMap::new();
        for item in items {
            let Record::Verdict(r) = &item.record else { continue };
            let key = (r.evidence.device.clone(), r.evidence.step.to_string());
            let at = r.verdict.window_end as i64;
            touched.insert(key.clone(), at);
            if !item.matches {
                self.open.remove(&key);
                continue;
            }
            let severity = severity_name(r);
            let since = self.open.get(&key).filter(|o| o.severity == severity).map_or(at, |o| o.starts_at);
            let ends_at = now.saturating_add(resolve_after_ms).max(since);
            let annotations = annotations(log, r);
            let (device, step) = key.clone();
            let open = Open { device, step, severity: severity.into(), starts_at: since, ends_at, annotations };
            self.open.insert(key, open);
        }
        let mut out: Vec<Open> = touched.keys().filter_map(|key| self.open.get(key).cloned()).collect();
        for (key, at) in &touched {
            if let Some(old) = before.get(key)
                && self.open.get(key).is_none_or(|new| new.severity != old.severity)
            {
                // Never before its start, which Alertmanager refuses, nor later than now, which would leave it open.
                out.push(Open { ends_at: (*at).min(now).max(old.starts_at), ..old.clone() });
            }
        }
        out
    }

    /// Forgets those that have ended by the clock.
    fn expire(&mut self, now: i64) {
        self.open.retain(|_, o| o.ends_at > now);
    }
}

fn annotations(log: &str, r: &VerdictRecord) -> BTreeMap<String, String> {
    let e = &r.evidence;
    let mut most: Vec<_> = e.features.iter().filter(|f| f.contribution.is_finite()).collect();
    most.sort_by(|a, b| b.contribution.abs().total_cmp(&a.contribution.abs()).then_with(|| a.name.cmp(&b.name)));
    let most: Vec<String> = most
        .iter()
        .take(3)
        .map(|f| format!("{} is {:.4}, expected {:.4} (adds {:.4})", f.name, f.value, f.expected, f.contribution))
        .collect();
    let mut out = BTreeMap::new();
    let mut put = |key: &str, value: String| {
        out.insert(key.to_owned(), value);
    };
    put("summary", format!("{} of {}: {} by {}", severity_name(r), e.device, class_name(r.verdict.class), e.step));
    if !most.is_empty() {
        put("description", most.join("; "));
    }
    put("score", format!("{}", e.score));
    if e.p_value.is_finite() {
        put("p_value", format!("{}", e.p_value));
    }
    if let Some(i) = e.interval {
        put("interval", format!("{} to {}", i.lower, i.upper));
    }
    if let Some(first) = e.incident {
        put("incident", first.to_string());
    }
    put("window_start", format_timestamp(r.verdict.window_start as i64));
    put("window_end", format_timestamp(r.verdict.window_end as i64));
    put("log", log.to_owned());
    put("index", r.index.to_string());
    out
}

impl AlertWriter {
    pub fn open(target: &Target, options: &Options, reader: &LaneReader) -> Result<(Self, Position), Halt> {
        let cursor = reader.cursor(&target.name)?;
        let Some(board) = Board::read(cursor.note()) else {
            let why = format!("cursor-{} does not hold the open alerts of this sink", target.name);
            return Err(RuntimeError::Inconsistent { lane: target.partition, why }.into());
        };
        let token = options.token.as_ref().map(|t| t.expose().to_owned());
        let alertmanager = Alertmanager::new(&options.url, token, options.timeout)?;
        let position = Position::of(&cursor);
        let (options, pipeline) = (options.clone(), target.pipeline.clone());
        Ok((Self { alertmanager, cursor, board, options, pipeline }, position))
    }

    fn alerts(&self, open: impl IntoIterator<Item = Open>) -> Vec<Alert> {
        open.into_iter()
            .map(|o| Alert {
                labels: BTreeMap::from([
                    ("alertname", "AvouchVerdict".to_owned()),
                    ("pipeline", self.pipeline.clone()),
                    ("step", o.step),
                    ("severity", o.severity),
                    ("device", o.device),
                ]),
                annotations: o.annotations,
                starts_at: o.starts_at,
                ends_at: o.ends_at,
                generator_url: self.options.generator_url.clone(),
            })
            .collect()
    }

    pub async fn deliver(&mut self, _: &Target, batch: Batch<'_>) -> Result<(), Halt> {
        let mut board = self.board.clone();
        let changed = board.take(batch.log, batch.items, now_ms(), self.options.resolve_after_ms);
        self.alertmanager.post(&self.alerts(changed)).await?;
        self.board = board;
        Ok(())
    }

    pub fn save(&mut self, next: u64) -> Result<(), StoreError> {
        self.cursor.set_with(next, &self.board.write())
    }

    pub fn refresh_every(&self) -> Option<i64> {
        (!self.board.open.is_empty()).then_some(RESEND_MS)
    }

    pub async fn refresh(&mut self) -> Result<(), Halt> {
        self.board.expire(now_ms());
        Ok(self.alertmanager.post(&self.alerts(self.board.open.values().cloned())).await?)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use avouch_engine::verdict::{Evidence, Verdict};

    use super::*;

    const NOW: i64 = 1_000_000;
    const HOUR: i64 = 3_600_000;

    fn item(index: u64, device: &str, severity: u8, window_end: u64) -> Item {
        let evidence = Evidence {
            salt: [0; 32],
            device: device.into(),
            step: "anomaly".into(),
            topic: "t".into(),
            partition: 0,
            first_offset: 0,
            last_offset: 0,
            rows: 1,
            references: Vec::new(),
            score: 1.0,
            p_value: 0.5,
            interval: None,
            incident: None,
            label: None,
            features: Vec::new(),
        };
        let verdict = Verdict {
            device_id: [0; 32],
            seq: 0,
            window_start: 0,
            window_end,
            model_hash: [0; 32],
            config_hash: [0; 32],
            input_digest: [0; 32],
            score_e6: 0,
            severity,
            class: 0,
            evidence_hash: [0; 32],
            salt: [0; 32],
        };
        let record = VerdictRecord { index, verdict, evidence };
        Item { number: index, record: Record::Verdict(record), matches: severity > 0 }
    }

    fn shown(all: &[Open]) -> Vec<(String, i64, i64)> {
        all.iter().map(|o| (format!("{} {}", o.device, o.severity), o.starts_at, o.ends_at)).collect()
    }

    #[test]
    fn an_alert_is_open_while_the_last_verdict_matches() {
        let mut board = Board::default();
        let take = |board: &mut Board, items: &[Item]| shown(&board.take("l", items, NOW, HOUR));
        let until = NOW + HOUR;
        assert!(take(&mut board, &[item(0, "a", 0, 10)]).is_empty(), "normal verdicts post nothing");
        assert_eq!(take(&mut board, &[item(1, "a", 1, 20)]), [("a warning".into(), 20, until)]);
        assert_eq!(take(&mut board, &[item(2, "a", 1, 30)]), [("a warning".into(), 20, until)], "its start stays");
        assert_eq!(
            take(&mut board, &[item(3, "a", 2, 40)]),
            [("a critical".into(), 40, until), ("a warning".into(), 20, 40)],
            "another severity is another alert"
        );
        assert_eq!(Board::read(&board.write()).unwrap(), board);
        assert_eq!(
            take(&mut board, &[item(4, "a", 0, 50), item(5, "b", 2, 50)]),
            [("b critical".into(), 50, until), ("a critical".into(), 40, 50)]
        );
        assert!(board.write().starts_with('[') && !board.write().contains('\n'));
    }

    #[test]
    fn only_where_a_batch_leads_to_is_posted() {
        let mut board = Board::default();
        let over = [item(0, "a", 2, 10), item(1, "a", 0, 20), item(2, "b", 2, 20), item(3, "b", 1, 30)];
        assert_eq!(shown(&board.take("l", &over, NOW, HOUR)), [("b warning".into(), 30, NOW + HOUR)]);
    }

    #[test]
    fn an_end_is_never_before_the_start_nor_after_now() {
        let mut board = Board::default();
        // A device whose clock is ahead.
        board.take("l", &[item(0, "a", 2, NOW as u64 + 60_000)], NOW, HOUR);
        let ended = board.take("l", &[item(1, "a", 0, NOW as u64 + 120_000)], NOW, HOUR);
        assert_eq!(shown(&ended), [("a critical".into(), NOW + 60_000, NOW + 60_000)]);
        board.take("l", &[item(2, "a", 2, 5)], NOW, HOUR);
        board.expire(NOW + HOUR - 1);
        assert_eq!(board.open.len(), 1);
        board.expire(NOW + HOUR);
        assert!(board.open.is_empty());
    }
}
